//! `mainstay retry`: a person says that what failed is to be tried again.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::json;
use spec::id::{AppName, shown};

use super::{Common, Ended};
use crate::ledger::Ledger;
use crate::requests;

const EXAMPLES: &str = "\
Examples:
  mainstay retry      all that failed
  mainstay retry web  one application";

/// Try again what failed, without waiting for another commit
///
/// Tries again what failed on this host: an application that went back to its last good release, that could not go back, or
/// that waits after a failure. The running agent takes it up at once, else the next `run` or `once`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The applications [default: all that failed]
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    apps: Vec<AppName>,
}

/// Asks for it.
///
/// # Errors
/// The settings or the ledger cannot be read, there is no such application here, or the state folder cannot be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let ledger = Ledger::peek(&settings.state)?;
    let known = &ledger.memory.apps;
    let mut apps: BTreeSet<AppName> = args.apps.iter().cloned().collect();
    if let Some(wrong) = apps.iter().find(|app| !known.contains_key(*app)) {
        let here: Vec<&str> = known.keys().map(AppName::as_str).collect();
        anyhow::bail!("there is no application `{wrong}` on this host, which has {}", here.join(", "));
    }
    if apps.is_empty() {
        apps.extend(known.keys().cloned());
    }
    apps.retain(|app| known[app].bad.is_some() || known[app].failure.is_some());
    if common.json {
        if !apps.is_empty() {
            requests::ask_retry(&settings.state, &apps).context("failed to ask the agent for it")?;
        }
        println!("{:#}", json!({ "apps": apps, "agent-runs": ledger.is_taken() }));
        return Ok(Ended::Well);
    }
    if apps.is_empty() {
        println!("nothing of that failed, so there is nothing to try again");
        return Ok(Ended::Well);
    }
    requests::ask_retry(&settings.state, &apps).context("failed to ask the agent for it")?;
    for app in &apps {
        let why = known[app].trouble().and_then(|text| text.lines().next()).unwrap_or_default();
        println!("{app} is tried again; it had failed: {}", shown(why));
    }
    match ledger.is_taken() {
        true => println!("the agent takes it up now"),
        false => println!("no agent runs at the moment: the next `mainstay run` or `once` does it"),
    }
    Ok(Ended::Well)
}
