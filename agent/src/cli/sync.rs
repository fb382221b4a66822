//! `mainstay sync`: the repository is asked now.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Common, Ended, status};
use crate::ledger::Ledger;
use crate::requests;

/// How often to look whether it is done.
const LOOK: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  mainstay sync --wait --within 2m && echo deployed";

/// Have the agent ask the repository now
///
/// Has the running agent ask the repository now, instead of at its next turn, and bring this host to the newest commit. What failed
/// is tried again, as with SIGHUP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Wait until the host is at the newest commit, or cannot get there, and end with the exit code of `mainstay status`
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10m", requires = "wait")]
    within: Duration,
}

/// Asks for it.
///
/// # Errors
/// No agent runs, it cannot be asked, or it is not done in time.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    if !Ledger::peek(&settings.state)?.is_taken() {
        bail!("no agent runs on this host: start it (systemctl start mainstay), or call `mainstay once`");
    }
    requests::ask_sync(&settings.state).context("failed to ask the agent for it")?;
    if !args.wait {
        if common.json {
            println!("{:#}", json!({ "asked": true }));
        } else {
            println!("the agent asks the repository now; `mainstay status` says how it fares");
        }
        return Ok(Ended::Well);
    }
    let request = requests::sync(&settings.state);
    let done = async {
        while request.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(args.within, done).await.is_err() {
        bail!(
            "the agent was not done within {}; `mainstay status` says how it fares",
            humantime::format_duration(args.within)
        );
    }
    status::run(common, &status::Args::default()).await
}
