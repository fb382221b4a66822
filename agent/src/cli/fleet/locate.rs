//! `mainstay fleet where`: how far a commit, or a feature, has come.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use spec::id::{AppName, CommitId, HostName, shown};

use super::super::width::{self, folded};
use super::super::{Common, Ended, print};
use super::{Place, Repo};
use crate::fleet::Reading;
use crate::fleet::spread::{Contained, Spread, spread};
use crate::git::Touched;
use crate::snapshot::Release;

/// More hosts than this are counted, not named.
const MOST_HOSTS: usize = 8;
/// More commits than this are not looked up.
const MOST_COMMITS: usize = 10;
const FITS: &str = "writing to a string does not fail";

const EXAMPLES: &str = "\
Exit codes:
  0  it runs wherever its applications are placed
  4  not (yet), or not everywhere
  1  there is no such commit, or it could not be found out

Examples:
  mainstay fleet where HEAD
  mainstay fleet where 1f2e3d4
  mainstay fleet where 'Ticket: 4711'   by what messages and trailers say";

/// Show which hosts run a commit, or a feature
///
/// A host runs a commit when the release that it runs has it among its ancestors, which it says for each application. Shown are the
/// applications whose folders the commit changes; all of them, where it changes fleet.yaml or hosts. What is no commit's name is
/// looked for in the messages of the branch, trailers included; of several that have it each is shown, the latest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A commit, or what its message says
    #[arg(value_name = "COMMIT|TEXT")]
    what: String,
    /// Show all applications, also those that the commit does not change
    #[arg(long)]
    all: bool,
}

/// A commit, and how far it has come.
pub(super) struct Located<'r> {
    commit: Release,
    apps: Vec<(&'r AppName, Spread)>,
}

/// Shows it.
///
/// # Errors
/// The clone cannot be read, or there is no such commit.
pub(super) fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    let newest = &reading.tip;
    let commits = commits(&clone, newest, &args.what)?;
    let is_more = commits.len() > MOST_COMMITS;
    let located: Vec<Located<'_>> = commits
        .iter()
        .take(MOST_COMMITS)
        .map(|commit| locate(&clone, &reading, commit, args.all))
        .collect::<anyhow::Result<_>>()?;
    if common.json {
        let mut answer = clone.as_json(&reading);
        answer.insert("commits".to_owned(), located.iter().map(as_json).collect());
        println!("{:#}", Value::Object(answer));
    } else {
        let text: Vec<String> = located.iter().map(|it| text(it, &reading)).collect();
        print!("{}", folded(&text.join("\n"), width::of_output()));
        if is_more {
            println!("\nMore commits say so: give more of what they say");
        }
    }
    let is_everywhere = located.iter().flat_map(|it| &it.apps).all(|(_, spread)| {
        spread.coming.is_empty() && spread.failed.is_empty() && spread.missing.is_empty() && spread.unheard.is_empty()
    });
    Ok(clone.ended(if is_everywhere { Ended::Well } else { Ended::Unconverged }))
}

/// Finds the commits that are meant: by name, if it is one, else by what they say.
pub(super) fn commits(clone: &Repo, newest: &CommitId, what: &str) -> anyhow::Result<Vec<CommitId>> {
    // A word such as `feed` may be both; who means a commit writes more digits.
    if let Ok(commit) = clone.mirror.named(what) {
        if !clone.mirror.is_ancestor(&commit, newest)? {
            eprintln!("mainstay: {} is not on {}: no host is held to it", commit.short(), clone.followed);
        }
        return Ok(vec![commit]);
    }
    let found = clone.mirror.search(newest, what, MOST_COMMITS + 1)?;
    if found.is_empty() {
        anyhow::bail!("no commit is called `{0}`, and no message on {1} says `{0}`", shown(what), clone.followed);
    }
    Ok(found)
}

pub(super) fn locate<'r>(
    clone: &Repo,
    reading: &'r Reading,
    commit: &CommitId,
    all: bool,
) -> anyhow::Result<Located<'r>> {
    let touched = if all { Touched::Everything } else { clone.mirror.touched(commit)? };
    let is_meant = |app: &AppName| match &touched {
        Touched::Everything => true,
        Touched::Apps(apps) => apps.contains(app.as_str()),
    };
    let mut contained = Contained::new(&clone.mirror, commit);
    let apps = spread(reading, &mut contained, is_meant).into_iter().collect();
    Ok(Located { commit: Release::read(&clone.mirror, commit), apps })
}

pub(super) fn text(located: &Located<'_>, reading: &Reading) -> String {
    let Located { commit, apps } = located;
    let mut text = format!("{} {}", commit.id.short(), shown(commit.subject.as_deref().unwrap_or_default()));
    let by = commit.author.as_deref().map(|author| format!("{}, ", shown(author))).unwrap_or_default();
    let when = commit.committed.map(|at| print::ago(at, reading.at)).unwrap_or_default();
    writeln!(text, " ({by}{when})").expect(FITS);
    if apps.is_empty() {
        text.push_str("  changes no application that is on any host\n");
    }
    let wide = apps.iter().map(|(app, _)| app.as_str().len()).max().unwrap_or(0);
    for (app, spread) in apps {
        let away = [spread.coming.len(), spread.failed.len(), spread.missing.len(), spread.unheard.len()];
        let of = spread.runs.len() + away.iter().sum::<usize>();
        let plural = if of == 1 { "" } else { "s" };
        write!(text, "  {app:<wide$}  runs on {} of {of} host{plural}", spread.runs.len()).expect(FITS);
        if !spread.runs.is_empty() {
            write!(text, ": {}", named(spread.runs.iter())).expect(FITS);
        }
        text.push('\n');
        let states: BTreeSet<&str> = spread.coming.values().copied().collect();
        for state in states {
            let hosts = spread.coming.iter().filter(|(_, found)| **found == state).map(|(host, _)| host);
            writeln!(text, "  {:wide$}  {state} on {}", "", named(hosts)).expect(FITS);
        }
        for (what, hosts) in
            [("failed on", &spread.failed), ("not yet on", &spread.missing), ("nothing is heard of", &spread.unheard)]
        {
            if !hosts.is_empty() {
                writeln!(text, "  {:wide$}  {what} {}", "", named(hosts.iter())).expect(FITS);
            }
        }
    }
    text
}

fn named<'h>(hosts: impl Iterator<Item = &'h HostName> + Clone) -> String {
    let first: Vec<&str> = hosts.clone().take(MOST_HOSTS).map(HostName::as_str).collect();
    match hosts.count().saturating_sub(MOST_HOSTS) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn as_json(located: &Located<'_>) -> Value {
    let apps: serde_json::Map<String, Value> =
        located.apps.iter().map(|(app, spread)| (app.to_string(), json!(spread))).collect();
    json!({ "commit": located.commit, "apps": apps })
}
