//! `mainstay resume`: a person ends a pause.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::id::AppName;
use spec::pause::Asked;

use super::pause::{Obeys, said, taken_up};
use super::{Common, Ended};
use crate::pass::Host;
use crate::progress::Progress;
use crate::requests;

const EXAMPLES: &str = "\
Examples:
  mainstay resume      everything
  mainstay resume web  one application";

/// End a pause: what waited is done now
///
/// Ends a pause before its time. What drifted is put back, what commits changed meanwhile follows, and what was owed is done.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The applications [default: everything that is paused]
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    apps: Vec<AppName>,
}

/// Asks for the end of a pause.
///
/// # Errors
/// The settings or the ledger cannot be read, that is not paused, or the state folder cannot be written.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let host = Host::look(settings.host()?, &settings, Arc::new(Progress::default()))?;
    let pauses = host.ledger.memory.pauses.at(Timestamp::now());
    let apps: BTreeSet<AppName> = args.apps.iter().cloned().collect();
    if let (Some(pause), false) = (&pauses.host, apps.is_empty()) {
        anyhow::bail!("this whole host is paused {pause}; `mainstay resume` ends that");
    }
    if let Some(wrong) = apps.iter().find(|app| !pauses.apps.contains_key(*app)) {
        let paused: Vec<&str> = pauses.apps.keys().map(AppName::as_str).collect();
        anyhow::bail!(
            "`{wrong}` is not paused; paused are: {}",
            if paused.is_empty() { "none".to_owned() } else { paused.join(", ") }
        );
    }
    if pauses.is_empty() {
        if common.json {
            println!("{:#}", json!({ "apps": apps, "resumed": false }));
        } else {
            println!("nothing is paused on this host");
        }
        return Ok(Ended::Well);
    }
    let asked = Asked { apps, pause: None };
    requests::ask_pause(&settings.state, &asked).context("failed to ask the agent for it")?;
    let obeys = taken_up(&settings.state, &host).await;
    if common.json {
        println!("{:#}", json!({ "apps": asked.apps, "resumed": true, "taken-up": obeys == Obeys::Now }));
        return Ok(Ended::Well);
    }
    println!("{} is looked after again", asked.whom());
    println!("{}", said(obeys, "now"));
    Ok(Ended::Well)
}
