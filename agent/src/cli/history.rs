//! `mainstay history`: what was deployed on this host, and what came of it.

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, shown};

use super::print::Since;
use super::width::{self, folded};
use super::{Common, Ended};
use crate::history::{self, Entry, USUAL};
use crate::identity::Identity;
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

/// What a commit takes at least: its number, and some words of what it says.
const COMMIT: usize = 40;

/// Shows the history.
///
/// # Errors
/// The settings or the mirror cannot be read.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let name = settings.host()?;
    let mirror =
        upstream::peek(&settings.state).context("nothing was deployed here yet, or nothing that can be read")?;
    let identity = Identity::find(&settings).ok().flatten();
    let key = identity.as_ref().map(Identity::public);
    let entries = history::read(&mirror, &name, key, args.app.as_ref(), args.limit)?;
    if common.json {
        println!("{:#}", json!({ "history": entries }));
    } else {
        print!("{}", text(&entries, Timestamp::now(), width::of_output()));
    }
    Ok(Ended::Well)
}

fn text(entries: &[Entry], now: Timestamp, width: Option<usize>) -> String {
    if entries.is_empty() {
        return "nothing was deployed here yet\n".to_owned();
    }
    let widest = |title: &str, of: &dyn Fn(&Entry) -> usize| entries.iter().map(of).max().unwrap_or(0).max(title.len());
    let app = widest("APPLICATION", &|it| it.app.as_str().len());
    let state = widest("STATE", &|it| it.state.len());
    let since = Since::beside(app + state + 2 * 3 + COMMIT, width);
    let when = since.width();
    let mut text = format!("{:<when$}  {:<app$}  {:<state$}  COMMIT\n", "WHEN", "APPLICATION", "STATE");
    for entry in entries {
        let at = since.say(entry.at, now);
        let subject = shown(entry.commit.subject.as_deref().unwrap_or_default());
        let took = entry.took_seconds.map(|took| format!(" (took {took} s)")).unwrap_or_default();
        let line = format!(
            "{at:<when$}  {:<app$}  {:<state$}  {} {subject}{took}",
            entry.app,
            entry.state,
            entry.commit.id.short()
        );
        text.extend([line.trim_end(), "\n"]);
        for line in entry.failure.as_deref().unwrap_or_default().lines() {
            text.extend(["    ", &shown(line), "\n"]);
        }
    }
    folded(&text, width)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use spec::id::CommitId;

    use super::*;
    use crate::snapshot::Release;

    #[test]
    fn what_happened_fits_the_terminal() {
        let now: Timestamp = "2026-11-22T05:00:00Z".parse().expect("a time");
        let entry = |app: &str, at: &str, state: &'static str, failure: Option<&str>| Entry {
            at: at.parse().expect("a time"),
            app: AppName::parse(app).expect("a name"),
            state,
            commit: Release {
                id: CommitId::parse("94fe7a2c1d94fe7a2c1d94fe7a2c1d94fe7a2c1d").expect("a commit"),
                subject: Some("web: another page, which is larger than the last one".to_owned()),
                author: None,
                committed: None,
            },
            from: None,
            runs: None,
            took_seconds: Some(12),
            failure: failure.map(str::to_owned),
        };
        let why = "failed to start unit `page.service`: its process exited with code 1 before it was ready";
        let all = [
            entry("web", "2026-11-22T04:50:00Z", "converged", None),
            entry("page", "2026-11-21T04:50:00Z", "rolled-back", Some(why)),
        ];
        let check = |width: usize, expected: Expect| expected.assert_eq(&text(&all, now, Some(width)));
        check(
            60,
            expect![[r#"
            WHEN        APPLICATION  STATE        COMMIT
            10 min ago  web          converged    94fe7a2c1d web:
                another page, which is larger than the last one (took 12
                s)
            1 d ago     page         rolled-back  94fe7a2c1d web:
                another page, which is larger than the last one (took 12
                s)
                failed to start unit `page.service`: its process exited
                    with code 1 before it was ready
        "#]],
        );
        check(
            80,
            expect![[r#"
            WHEN        APPLICATION  STATE        COMMIT
            10 min ago  web          converged    94fe7a2c1d web: another page, which is
                                                  larger than the last one (took 12 s)
            1 d ago     page         rolled-back  94fe7a2c1d web: another page, which is
                                                  larger than the last one (took 12 s)
                failed to start unit `page.service`: its process exited with code 1 before
                    it was ready
        "#]],
        );
        check(
            120,
            expect![[r#"
            WHEN                               APPLICATION  STATE        COMMIT
            2026-11-22 04:50:00Z (10 min ago)  web          converged    94fe7a2c1d web: another page, which is larger than the last
                                                                         one (took 12 s)
            2026-11-21 04:50:00Z (1 d ago)     page         rolled-back  94fe7a2c1d web: another page, which is larger than the last
                                                                         one (took 12 s)
                failed to start unit `page.service`: its process exited with code 1 before it was ready
        "#]],
        );
    }
}
