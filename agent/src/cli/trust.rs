//! `mainstay trust`: who is believed here, and why a commit is believed or not.

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::id::CommitId;
use spec::trust::{Require, Trust};

use super::{Common, Ended};
use crate::ledger::Ledger;
use crate::requests;
use crate::settings::Settings;
use crate::trust::{Before, Floor, Judge, Refusal, Verdict};
use crate::upstream;

const EXAMPLES: &str = "\
Examples:
  mainstay trust explain             of the newest commit that was fetched
  mainstay trust explain 1f2e3d4c5b";

/// Say who is believed here, and why
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Explain(Explain),
}

/// Say why a commit is believed or not
///
/// Reads what was fetched last and asks nobody: who signed the commit, who may, which commits lead to it from what is believed, and what
/// stands in the way.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Explain {
    /// The commit [default: the newest that was fetched]
    #[arg(value_name = "COMMIT")]
    commit: Option<String>,
}

/// Obeys.
///
/// # Errors
/// Nothing was fetched yet, or there is no such commit.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let Command::Explain(args) = &args.command;
    let settings = common.settings()?;
    let ledger = Ledger::peek(&settings.state)?;
    let mirror = upstream::peek(&settings.state).context("nothing was fetched on this host yet")?;
    let commit = match &args.commit {
        Some(name) => mirror.named(name)?,
        None => mirror.tip().context("nothing was fetched on this host yet")?,
    };
    let believed = ledger.memory.believed.as_ref();
    let is_old = match believed {
        Some(believed) => *believed == commit || mirror.is_ancestor(&commit, believed).unwrap_or(false),
        None => false,
    };
    let judged = match is_old {
        true => None,
        false => Some(judge(&settings, &mirror, believed, &commit)),
    };
    let summary = mirror.commit(&commit)?;
    let signature = match Judge::new(&mirror, &settings.trust) {
        Ok(judge) => judge.signer(&commit)?,
        Err(refusal) => refusal.to_string(),
    };
    let is_believed = judged.as_ref().is_none_or(Result::is_ok);
    if common.json {
        let why = judged.as_ref().and_then(|it| it.as_ref().err()).map(ToString::to_string);
        println!(
            "{:#}",
            json!({ "commit": commit.as_str(), "signature": signature, "believed": is_believed, "why-not": why })
        );
        return Ok(if is_believed { Ended::Well } else { Ended::Mistaken });
    }
    println!("{commit} {}", summary.subject);
    println!("  {signature}");
    match (&judged, believed) {
        (None, Some(believed)) if *believed == commit => println!("  believed: this is what the host is held to"),
        (None, _) => println!("  believed before: what the host is held to goes on from it"),
        (Some(Ok(verdict)), _) => println!("  it may be believed: {}", because(verdict)),
        (Some(Err(refusal)), _) => println!("  not believed: {refusal}"),
    }
    Ok(if is_believed { Ended::Well } else { Ended::Mistaken })
}

fn judge(
    settings: &Settings,
    mirror: &crate::git::Mirror,
    believed: Option<&CommitId>,
    commit: &CommitId,
) -> Result<Verdict, Refusal> {
    let (floor, accepted) = (Floor::open(&settings.trust.floor), requests::accepted(&settings.state));
    let before = Before { believed, floor: floor.commit()?, accepted: accepted.as_ref() };
    Judge::new(mirror, &settings.trust)?.believe(before, commit, &settings.branch, Timestamp::now())
}

fn because(verdict: &Verdict) -> String {
    let Trust { require, signers, .. } = &*verdict.trust;
    match require {
        Require::None => "nobody has to sign commits here".to_owned(),
        Require::Tip => format!("the newest commit has to be signed by one of {} keys, and is", signers.len()),
        Require::EveryCommit => {
            format!("each of the {} commits that lead to it is signed by one who may", verdict.commits)
        }
    }
}
