//! `mainstay check`: every mistake of a repository in one run, for people and for CI.

use std::path::PathBuf;

use anyhow::Context as _;
use spec::diagnostic::Severity;
use spec::manifest;

use super::{Common, Ended};
use crate::draw;
use crate::folder;
use crate::upstream::LIMITS;

const EXAMPLES: &str = "\
Examples:
  mainstay check ./fleet
  mainstay check --json . | jq -r '.[].message'";

/// Find every mistake in a configuration repository
///
/// Reads a configuration repository as every host would, and reports all mistakes at once: file, line, what is wrong,
/// what to do. Needs no host and no network; run it before you push, and in CI.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository's folder
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Checks a folder.
///
/// # Errors
/// The folder cannot be read.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let tree = folder::read(&args.dir, &LIMITS).with_context(|| format!("failed to read {}", args.dir.display()))?;
    let parsed = manifest::parse(&tree, None);
    let mistaken = parsed.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    if common.json {
        println!("{:#}", draw::json(&parsed.diagnostics));
    } else if parsed.diagnostics.is_empty() {
        let fleet = parsed.fleet.as_ref();
        let (hosts, apps) = fleet.map_or((0, 0), |fleet| (fleet.hosts.len(), fleet.apps.len()));
        let (s1, s2) = (plural(hosts), plural(apps));
        println!("{} is sound: {hosts} host{s1}, {apps} application{s2}", args.dir.display());
    } else {
        print!("{}", draw::render(&parsed.diagnostics, &tree, common.colour()));
    }
    Ok(if mistaken { Ended::Mistaken } else { Ended::Well })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
