//! `mainstay accept-rewrite`: a person on the host says that the branch was rewritten on purpose.

use anyhow::{Context as _, bail};
use serde_json::json;
use spec::id::CommitId;

use super::{Common, Ended};
use crate::ledger::Ledger;
use crate::requests::{self, Accepted};
use crate::trust::Floor;

const EXAMPLES: &str = "\
Examples:
  mainstay accept-rewrite 1f2e3d4c5b6a79881f2e3d4c5b6a79881f2e3d4c \\
                          5b6a79881f2e3d4c5b6a79881f2e3d4c5b6a7988";

/// Accept that the branch was rewritten since this host read it
///
/// A host goes on from commit to commit, and never backwards or sideways: a branch that was set back or rewritten is refused, and what
/// was believed before stays. Where it was rewritten on purpose this takes the host over: from the commit that it believes to the one
/// that takes its place, both by their whole names, as the refusal in `mainstay status` has them. Who has to sign is still asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The commit that the host believes
    #[arg(value_name = "OLD", value_parser = whole)]
    old: CommitId,
    /// The commit of the new history; those that go on from it are accepted as well
    #[arg(value_name = "NEW", value_parser = whole)]
    new: CommitId,
    /// Who may sign it is what the settings say, as on a new host: where nobody is left who may, by the old commit
    #[arg(long)]
    by_settings: bool,
}

fn whole(text: &str) -> Result<CommitId, String> {
    CommitId::parse(text).map_err(|_| "write all of its 40 digits: `git rev-parse COMMIT`".to_owned())
}

/// Notes it, and has the agent look again.
///
/// # Errors
/// The host believes another commit, or the state folder cannot be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let ledger = Ledger::peek(&settings.state)?;
    let floor = Floor::open(&settings.trust.floor);
    let known: Vec<&CommitId> = ledger.memory.believed.iter().chain(floor.commit()?).collect();
    if !known.is_empty() && !known.contains(&&args.old) {
        bail!("this host believes {} and not {}; nothing was changed", known[0], args.old);
    }
    let accepted = Accepted { from: args.old.clone(), to: args.new.clone(), by_settings: args.by_settings };
    requests::accept(&settings.state, &accepted).context("failed to note what is accepted")?;
    let runs = ledger.is_taken();
    if runs {
        requests::ask_sync(&settings.state).context("failed to have the agent look again")?;
    }
    if common.json {
        println!("{:#}", json!({ "from": args.old.as_str(), "to": args.new.as_str(), "asked": runs }));
    } else {
        let next = if runs { "the agent looks at the branch again now" } else { "it counts from the next run on" };
        println!("accepted: what goes on from {} may take the place of {}; {next}", args.new.short(), args.old.short());
    }
    Ok(Ended::Well)
}
