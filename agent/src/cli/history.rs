//! `mainstay history`: what was deployed on this host, and what came of it.

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, shown};

use super::print::ago;
use super::{Common, Ended};
use crate::history::{self, Entry, USUAL};
use crate::upstream;

const EXAMPLES: &str = "\
Examples:
  mainstay history                the latest of all applications
  mainstay history web --limit 5  the last five of one";

/// Show what was deployed on this host, and what came of it
///
/// Shows what happened to the applications of this host, the latest first: with which commit, what came of it, how long it took and
/// why it failed. It is read from the host's own records, which `git log --notes='mainstay/*'` shows as well.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Of this application only
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    app: Option<AppName>,
    /// Show at most so many entries
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL)]
    limit: usize,
}

/// Shows the history.
///
/// # Errors
/// The settings or the mirror cannot be read.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let name = settings.host()?;
    let mirror =
        upstream::peek(&settings.state).context("nothing was deployed here yet, or nothing that can be read")?;
    let entries = history::read(&mirror, &name, args.app.as_ref(), args.limit)?;
    if common.json {
        println!("{:#}", json!({ "history": entries }));
    } else {
        print!("{}", text(&entries, Timestamp::now()));
    }
    Ok(Ended::Well)
}

fn text(entries: &[Entry], now: Timestamp) -> String {
    if entries.is_empty() {
        return "nothing was deployed here yet\n".to_owned();
    }
    let widest = |title: &str, of: &dyn Fn(&Entry) -> usize| entries.iter().map(of).max().unwrap_or(0).max(title.len());
    let app = widest("APPLICATION", &|it| it.app.as_str().len());
    let state = widest("STATE", &|it| it.state.len());
    let mut text = format!("{:<32}  {:<app$}  {:<state$}  COMMIT\n", "WHEN", "APPLICATION", "STATE");
    for entry in entries {
        let when = format!("{} ({})", entry.at.strftime("%Y-%m-%d %H:%M:%SZ"), ago(entry.at, now));
        let subject = shown(entry.commit.subject.as_deref().unwrap_or_default());
        let took = entry.took_seconds.map(|took| format!(" (took {took} s)")).unwrap_or_default();
        let line = format!(
            "{when:<32}  {:<app$}  {:<state$}  {} {subject}{took}",
            entry.app,
            entry.state,
            entry.commit.id.short()
        );
        text.extend([line.trim_end(), "\n"]);
        for line in entry.failure.as_deref().unwrap_or_default().lines() {
            text.extend(["    ", &shown(line), "\n"]);
        }
    }
    text
}
