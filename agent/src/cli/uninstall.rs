//! `mainstay uninstall`: the agent goes, and what it looked after goes on running.

use anyhow::bail;
use serde_json::json;
use spec::id::ResourceId;
use spec::memory::Memory;

use super::{Common, Ended};
use crate::install;
use crate::ledger::Ledger;

const EXAMPLES: &str = "\
Examples:
  mainstay uninstall          the service, and what it came with
  mainstay uninstall --purge  and settings, key, memory and backups";

/// Take the agent off this host; what runs goes on running
///
/// Stops and disables the service and removes what `mainstay install` brought. What runs on this host goes on running, and files
/// stay; nobody looks after them from then on. Settings and memory stay too, so that installing again goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Also remove the settings, the key for ssh, and what the agent remembers: which files, units and containers are its own, and
    /// the backups
    #[arg(long)]
    purge: bool,
}

/// Takes the agent off this host.
///
/// # Errors
/// Something could not be stopped or removed.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    if !rustix::process::geteuid().is_root() {
        bail!("uninstalling stops a service and removes files: run it as root");
    }
    let settings = common.settings()?;
    let kept = Ledger::peek(&settings.state).map(|ledger| left(&ledger.memory));
    let mut removed = install::take_off().await?;
    if args.purge {
        removed.extend(install::purge(&settings.state)?);
    }
    if common.json {
        let removed: Vec<String> = removed.iter().map(|path| path.display().to_string()).collect();
        let kept = kept.ok().flatten();
        println!("{:#}", json!({ "removed": removed, "goes-on": kept, "packaged": install::is_packaged() }));
        return Ok(Ended::Well);
    }
    println!("the service is stopped and disabled");
    for path in removed {
        println!("removed {}", path.display());
    }
    if let Ok(Some(kept)) = kept {
        println!("what it looked after goes on without it: {kept}");
    }
    if install::is_packaged() {
        println!("the package is still installed: `apt remove mainstay` or `rpm -e mainstay` removes the program");
    }
    Ok(Ended::Well)
}

/// Says what the agent leaves behind; nothing when there is nothing.
fn left(memory: &Memory) -> Option<String> {
    let count = |is: fn(&ResourceId) -> bool| memory.owned.keys().filter(|id| is(id)).count();
    let files = count(|id| matches!(id, ResourceId::File(_)));
    let containers = count(|id| matches!(id, ResourceId::Container(_)));
    let parts = [(files, "file"), (memory.units.len(), "unit"), (containers, "container")];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
