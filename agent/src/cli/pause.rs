//! `mainstay pause`: a person says that nothing, or nothing of some applications, is changed for a while.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Zoned;
use serde_json::json;
use spec::id::AppName;
use spec::pause::{Asked, Pause};

use super::{Common, Ended, names, status, times};
use crate::pass::Host;
use crate::progress::Progress;
use crate::requests;

/// The longest: whoever wants more stops the service, and knows that it is stopped.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
/// How long to wait for the agent to take it up.
const TAKEN_UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  mainstay pause --reason 'new disk' --for 2h          the whole host
  mainstay pause web --reason 'by hand' --until 06:30  one application";

/// Change nothing of this host, or of applications, for a while
///
/// Has the agent on this host change nothing, or nothing of these applications, until the pause ends: by itself, or by
/// `mainstay resume`. It goes on looking, and shows what it would do. A pause outlives restarts of the agent and of the host,
/// and `once` obeys it too. A pass that is under way ends first. What an interrupted pass owes is done when the pause is over.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The applications [default: everything on this host]
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    apps: Vec<AppName>,
    /// Why, for whoever looks next
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// For how long, like 30m, 2h or 3d
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "24h")]
    length: Duration,
    /// Until when, like 06:30, 2026-11-22T06:30 (this host's time) or 2026-11-22T05:30Z
    #[arg(long, value_name = "TIME", conflicts_with = "length")]
    until: Option<String>,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.len() {
        0 => Err("say why: somebody will wonder at night".to_owned()),
        1..=500 => Ok(text.to_owned()),
        _ => Err("500 bytes are enough".to_owned()),
    }
}

/// Asks for a pause.
///
/// # Errors
/// The settings or the ledger cannot be read, there is no such application here, or the state folder cannot be written.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let mut host = Host::look(settings.host()?, &settings, Arc::new(Progress::default()))?;
    let now = Zoned::now();
    let until = match &args.until {
        Some(text) => times::next(text, &now).map_err(anyhow::Error::msg)?,
        None => now.timestamp().saturating_add(args.length)?,
    };
    anyhow::ensure!(until > now.timestamp(), "that is in the past: {until}");
    let longest = now.timestamp().saturating_add(LONGEST)?;
    anyhow::ensure!(
        until <= longest,
        "a pause of more than 31 days would be forgotten; `systemctl disable --now mainstay` instead"
    );
    let apps: BTreeSet<AppName> = args.apps.iter().cloned().collect();
    if !apps.is_empty() {
        status::remember(&mut host, &settings);
        names::known(&host, &apps)?;
    }
    let pause = Pause { reason: args.reason.clone(), since: now.timestamp(), until };
    let asked = Asked { apps, pause: Some(pause.clone()) };
    requests::ask_pause(&settings.state, &asked).context("failed to ask the agent for it")?;
    let obeys = taken_up(&settings.state, &host).await;
    if common.json {
        println!("{:#}", json!({ "apps": asked.apps, "pause": pause, "taken-up": obeys == Obeys::Now }));
        return Ok(Ended::Well);
    }
    println!("nothing of {} is changed {pause}", asked.whom());
    println!("{}", said(obeys, "from now on"));
    Ok(Ended::Well)
}

/// When the agent obeys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Obeys {
    Now,
    AfterThisPass,
    OnceItRuns,
}

/// Puts it into words.
pub(super) fn said(obeys: Obeys, now: &str) -> String {
    match obeys {
        Obeys::Now => format!("the agent obeys {now}"),
        Obeys::AfterThisPass => "the agent is in the middle of a pass, and obeys after it".to_owned(),
        Obeys::OnceItRuns => "no agent runs at the moment: the next `mainstay run` or `once` obeys".to_owned(),
    }
}

/// Waits until a running agent has taken a request up.
pub(super) async fn taken_up(state: &Path, host: &Host) -> Obeys {
    if !host.is_taken() {
        return Obeys::OnceItRuns;
    }
    let request = requests::pause(state);
    let gone = async {
        while request.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(TAKEN_UP, gone).await.map_or(Obeys::AfterThisPass, |()| Obeys::Now)
}
