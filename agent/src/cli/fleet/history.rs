//! `mainstay fleet history`: what was deployed on all hosts, and what came of it.

use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, HostName, shown};

use super::super::print::Since;
use super::super::width::{self, folded};
use super::super::{Common, Ended, names};
use super::Place;
use crate::fleet::{Reading, past};
use crate::history::annotations::annotations;
use crate::history::{Event, USUAL};

const EXAMPLES: &str = "\
Examples:
  mainstay fleet history                       the latest of all hosts
  mainstay fleet history web --limit 5         the last five of an application
  mainstay fleet history attic                 what happened on one host
  mainstay fleet history --grafana --limit 500 annotations for a dashboard";

/// Show what was deployed in the fleet, and what came of it
///
/// Shows what happened to the applications of all hosts, the latest first: with which commit, what came of it, how long it took and
/// why it failed. With --grafana it is an array of annotations as Grafana takes them (time, timeEnd, tags, text): one for what a
/// commit did to an application, from the first host that began to the last that was done.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Of this application or of this host only; write app:NAME or host:NAME where both have the name
    #[arg(value_name = "APP|HOST")]
    of: Option<String>,
    /// Show at most so many entries
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL)]
    limit: usize,
    /// Print Grafana's annotations
    #[arg(long, conflicts_with = "json")]
    grafana: bool,
}

/// What a commit takes at least: its number, and some words of what it says.
const COMMIT: usize = 34;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) host: Option<HostName>,
    pub(super) app: Option<AppName>,
}

/// Shows the history.
///
/// # Errors
/// The clone cannot be read.
pub(super) fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    let of = args.of.as_deref().map_or_else(|| Ok(Of::default()), |name| meant(&reading, name))?;
    let (events, left_out) = past::read(&clone.mirror, &reading, of.host.as_ref(), of.app.as_ref(), args.limit)?;
    if left_out > 0 {
        eprintln!(
            "mainstay: {left_out} {} not signed with the keys that fleet.yaml names for their hosts, and left out",
            if left_out == 1 { "record is" } else { "records are" }
        );
    }
    if args.grafana {
        println!("{:#}", json!(annotations(&events)));
    } else if common.json {
        println!("{:#}", json!({ "history": events }));
    } else {
        print!("{}", text(&events, reading.at, width::of_output()));
    }
    Ok(clone.ended(Ended::Well))
}

/// Finds out whether a name is an application's or a host's. One that is gone by now has a history all the same.
pub(super) fn meant(reading: &Reading, name: &str) -> anyhow::Result<Of> {
    let host = |name: &str| HostName::parse(name).ok().filter(|host| reading.hosts.contains_key(host));
    let is_app = |app: &AppName| reading.rows().any(|row| row.app == app) || reading.fleet.apps.contains_key(app);
    let app = |name: &str| AppName::parse(name).ok();
    if let Some(name) = name.strip_prefix("host:") {
        let host = HostName::parse(name).map_err(anyhow::Error::msg)?;
        super::known_host(reading, &host)?;
        return Ok(Of { host: Some(host), app: None });
    }
    if let Some(name) = name.strip_prefix("app:") {
        let app = AppName::parse(name).map_err(anyhow::Error::msg)?;
        return Ok(Of { host: None, app: Some(app) });
    }
    match (host(name), app(name).filter(is_app)) {
        (Some(_), Some(_)) => anyhow::bail!("`{name}` is a host and an application: write host:{name} or app:{name}"),
        (None, None) => {
            let known =
                reading.hosts.keys().map(HostName::as_str).chain(reading.fleet.apps.keys().map(AppName::as_str));
            let hint = names::hint(name, known);
            anyhow::bail!(
                "fleet `{}` has neither a host nor an application `{}`{hint}; app:NAME is for one that is gone",
                reading.fleet.name,
                shown(name)
            )
        }
        (host, app) => Ok(Of { host, app }),
    }
}

pub(super) fn text(events: &[Event], now: Timestamp, width: Option<usize>) -> String {
    if events.is_empty() {
        return "nothing was deployed there yet\n".to_owned();
    }
    let widest = |title: &str, of: &dyn Fn(&Event) -> usize| events.iter().map(of).max().unwrap_or(0).max(title.len());
    let host = widest("HOST", &|it| it.host.as_str().len());
    let app = widest("APPLICATION", &|it| it.entry.app.as_str().len());
    let state = widest("STATE", &|it| it.entry.state.len());
    let since = Since::beside(host + app + state + 2 * 4 + COMMIT, width);
    let when = since.width();
    let mut text =
        format!("{:<when$}  {:<host$}  {:<app$}  {:<state$}  COMMIT\n", "WHEN", "HOST", "APPLICATION", "STATE");
    for Event { host: name, entry } in events {
        let at = since.say(entry.at, now);
        let subject = shown(entry.commit.subject.as_deref().unwrap_or_default());
        let took = entry.took_seconds.map(|took| format!(" (took {took} s)")).unwrap_or_default();
        let commit = entry.commit.id.short();
        let line = format!(
            "{at:<when$}  {name:<host$}  {:<app$}  {:<state$}  {commit} {subject}{took}",
            entry.app, entry.state
        );
        text.extend([line.trim_end(), "\n"]);
        for line in entry.failure.as_deref().unwrap_or_default().lines() {
            text.extend(["    ", &shown(line), "\n"]);
        }
    }
    folded(&text, width)
}
