//! `mainstay restore`: what was kept of what others had written where mainstay wrote or removed, and the way back.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use spec::id::{AppName, HostPath, Mode, ResourceId, shown};
use spec::observed::FileState;

use super::print::Since;
use super::width::{self, folded, padded, room};
use super::{Common, Ended};
use crate::backups::{Backups, Entry, Kind, Reason};
use crate::disk::{Disk, Over};
use crate::ledger::Ledger;

const EXAMPLES: &str = "\
Examples:
  mainstay restore                           what there is
  mainstay restore 4f9d --print              look at one of them
  mainstay restore 4f9d --to /root/web.conf  bring it back somewhere else";

/// List what was kept of what others wrote, or bring it back
///
/// Lists what mainstay kept before it overwrote or removed something that somebody else had written, or brings one of
/// these back with its mode, owner and time. Nothing that is there is replaced unless you say so.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The backup to bring back, as the list names it; its first digits do. Without it, all are listed
    id: Option<String>,
    /// Bring it back at this path instead of where it was
    #[arg(long, value_name = "PATH", requires = "id", conflicts_with = "print")]
    to: Option<PathBuf>,
    /// Print it to standard output instead
    #[arg(long, requires = "id")]
    print: bool,
    /// Write over what is there, which is kept first; also where mainstay manages the path, and will revert it
    #[arg(long, requires = "id", conflicts_with = "print")]
    replace: bool,
}

/// How wide the columns of the list are: a backup's number, its size, and some words of why it is kept.
const ID: usize = 12;
const SIZE: usize = 8;
const WHY: usize = 24;

/// Lists, or brings back.
///
/// # Errors
/// The settings or the backups cannot be read, there is no such backup, or it cannot be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let backups = Backups::of(&settings.state, settings.backups.bounds());
    let entries = backups.list().context("failed to read the backups: run it as root, or name the --state")?;
    let Some(id) = &args.id else {
        if common.json {
            println!("{:#}", entries.iter().map(as_json).collect::<Value>());
        } else {
            print!("{}", listed(&entries, Timestamp::now(), width::of_output()));
        }
        return Ok(Ended::Well);
    };
    let entry = find(&entries, id)?;
    if args.print {
        print_content(&backups, entry)?;
        return Ok(Ended::Well);
    }
    let path = match &args.to {
        Some(to) => absolute(to)?,
        None => entry.path.clone(),
    };
    let manager = managed_by(&settings.state, &path)?;
    let kept = bring_back(&backups, entry, &path, args, manager.as_ref())?;
    let manager = manager.as_ref().map(AppName::as_str);
    if common.json {
        println!("{:#}", json!({ "path": path.as_str(), "restored": entry.id, "kept": kept, "managed-by": manager }));
        return Ok(Ended::Well);
    }
    if let Some(kept) = kept {
        println!("kept what was at {path}: {kept}");
    }
    println!("{path} is what it was: {}", described(entry));
    if let Some(app) = manager {
        println!("It is managed by application {app}: mainstay puts the commit's content back with its next pass.");
    }
    Ok(Ended::Well)
}

fn find<'e>(entries: &'e [Entry], id: &str) -> anyhow::Result<&'e Entry> {
    let mut found = entries.iter().filter(|entry| entry.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => bail!("there is no backup `{}`: `mainstay restore` lists them", shown(id)),
        (Some(_), Some(_)) => bail!("more than one backup begins with `{}`: write more of its digits", shown(id)),
    }
}

/// Says which application manages a path of this host.
fn managed_by(state: &Path, path: &HostPath) -> anyhow::Result<Option<AppName>> {
    let memory = Ledger::peek(state)?.memory;
    Ok(memory.owned.get(&ResourceId::File(path.clone())).map(|owned| owned.app.clone()))
}

fn absolute(path: &Path) -> anyhow::Result<HostPath> {
    let absolute = std::path::absolute(path).context("failed to find the current folder")?;
    let text = absolute.to_str().context("this path is not UTF-8")?;
    HostPath::parse(text).map_err(|why| anyhow::anyhow!("this path cannot be written: {why}"))
}

/// Brings it back; returns the backup of what was in its place.
fn bring_back(
    backups: &Backups,
    entry: &Entry,
    path: &HostPath,
    args: &Args,
    manager: Option<&AppName>,
) -> anyhow::Result<Option<String>> {
    if let (Some(app), false) = (manager, args.replace) {
        bail!(
            "{path} is managed by application {app}: mainstay would put the commit's content back at once. To keep this \
             one, commit it (`mainstay restore {id} --print`); to look at it, write it elsewhere (`mainstay restore {id} \
             --to PATH`); to write it here all the same, add --replace",
            id = entry.id
        );
    }
    let state = Disk::default().look(path);
    let (over, kept) = match (&state, args.replace) {
        (FileState::Absent, _) => (Over::Nothing, None),
        (FileState::Unknown(why), _) => bail!("{path} cannot be looked at: {why}"),
        (FileState::Regular { .. } | FileState::Symlink { .. }, true) => {
            let original = Disk::original(path, &state).with_context(|| format!("failed to keep {path}"))?;
            let reason = Reason { path, app: manager, why: "`mainstay restore` replaced it", adopted: false };
            let kept = backups.keep(original, &reason, Timestamp::now());
            (Over::Anything, Some(kept.with_context(|| format!("failed to keep {path}"))?.id))
        }
        (FileState::Directory { .. } | FileState::Other, true) => bail!("{path} is no file: move it away first"),
        (_, false) => {
            bail!("there is something at {path}: move it away, name another path with --to, or add --replace")
        }
    };
    let fill = |file: &mut File| match entry.kind {
        Kind::Regular { sha256, .. } => {
            backups.copy_out(sha256, file).map_err(|error| io::Error::other(crate::chain(&error)))
        }
        Kind::Symlink { .. } => Ok(()),
    };
    Disk::bring_back(path, entry, over, fill).with_context(|| format!("failed to write {path}"))?;
    Ok(kept)
}

fn print_content(backups: &Backups, entry: &Entry) -> anyhow::Result<()> {
    match &entry.kind {
        Kind::Regular { sha256, .. } => backups.copy_out(*sha256, &mut io::stdout().lock())?,
        Kind::Symlink { target } => println!("{target}"),
    }
    Ok(())
}

fn described(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Regular { size, .. } => {
            format!("{}, mode {}, owner {}:{}", bytes(*size), Mode::from_bits(entry.mode), entry.uid, entry.gid)
        }
        Kind::Symlink { target } => format!("a link to {}", shown(target)),
    }
}

fn listed(entries: &[Entry], now: Timestamp, width: Option<usize>) -> String {
    if entries.is_empty() {
        let nothing = "Nothing is kept: mainstay has overwritten and removed nothing that somebody else had written.\n";
        return folded(nothing, width);
    }
    let path = |entry: &Entry| match &entry.app {
        Some(app) => format!("{} ({app})", entry.path),
        None => entry.path.to_string(),
    };
    let rest = ID + SIZE + WHY + 2 * 4;
    let widest =
        entries.iter().map(|entry| room(&path(entry))).max().unwrap_or(0).clamp("PATH (APPLICATION)".len(), 60);
    let since = Since::beside(rest + widest, width);
    let when = since.width();
    // Where there is no room for a last column, what would stand there follows the path.
    let widest = if width.is_none_or(|width| rest + when + widest <= width) { widest } else { 0 };
    let title = padded("PATH (APPLICATION)", widest);
    let mut text = format!("{:<ID$}  {:<when$}  {:>SIZE$}  {title}  WHY\n", "BACKUP", "KEPT", "SIZE");
    for entry in entries {
        let kept = since.say(entry.at, now);
        let size = match entry.kind {
            Kind::Regular { size, .. } => bytes(size),
            Kind::Symlink { .. } => "link".to_owned(),
        };
        let path = padded(&path(entry), widest);
        let line = format!("{:<ID$}  {kept:<when$}  {size:>SIZE$}  {path}  {}", entry.id, shown(&entry.why));
        text.extend([&line, "\n"]);
    }
    text += "\nTo see one: mainstay restore BACKUP --print; to bring one back: mainstay restore BACKUP [--to PATH]\n";
    folded(&text, width)
}

/// Writes a size in its largest unit.
fn bytes(size: u64) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{} KiB", size.div_ceil(1024)),
        _ => format!("{} MiB", size.div_ceil(1 << 20)),
    }
}

fn as_json(entry: &Entry) -> Value {
    let (size, target) = match &entry.kind {
        Kind::Regular { size, .. } => (Some(size), None),
        Kind::Symlink { target } => (None, Some(target)),
    };
    json!({
        "id": entry.id,
        "path": entry.path.as_str(),
        "app": entry.app.as_ref().map(AppName::as_str),
        "why": entry.why,
        "at": entry.at.to_string(),
        "size": size,
        "target": target,
        "mode": Mode::from_bits(entry.mode).to_string(),
        "uid": entry.uid,
        "gid": entry.gid,
        "modified": entry.modified.to_string(),
    })
}
