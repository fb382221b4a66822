//! `mainstay fleet explain`: why an application is not there yet.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::id::{AppName, HostName};

use super::super::width::{self, folded};
use super::super::{Common, Ended, names};
use super::{Place, known_host};
use crate::fleet::turns::{Reason, Turns, in_words};
use crate::fleet::{Reading, Row};

const EXAMPLES: &str = "\
Exit codes:
  0  it is there
  4  it is not
  1  it could not be found out; also with an answer that may be old

Examples:
  mainstay fleet explain attic mqtt";

/// Say why an application is not there yet, and when it may go on
///
/// Decides what the host itself decides, on the records that are in the clone: its turn, the waves before it, windows, freezes, holds,
/// and what it needs. When it looks at the repository next, and what is in its way on the host, only the host knows.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The host
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    host: HostName,
    /// The application
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    app: AppName,
}

/// Says it.
///
/// # Errors
/// The clone cannot be read, or the application is not on the host.
pub(super) fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    let row = find(&reading, &args.host, &args.app)?;
    let reason = Turns::of(&reading).explain(&row);
    if common.json {
        let mut answer = clone.as_json(&reading);
        answer.insert("host".to_owned(), json!(args.host));
        answer.insert("app".to_owned(), json!(args.app));
        answer.insert("there".to_owned(), json!(reason.is_there));
        answer.insert("reason".to_owned(), json!(reason.text));
        answer.insert("next".to_owned(), json!(reason.next));
        println!("{:#}", Value::Object(answer));
    } else {
        print!("{}", folded(&text(&row, &reason, reading.at), width::of_output()));
    }
    Ok(clone.ended(if reason.is_there { Ended::Well } else { Ended::Unconverged }))
}

/// Finds an application on a host.
pub(super) fn find<'r>(reading: &'r Reading, host: &HostName, app: &AppName) -> anyhow::Result<Row<'r>> {
    known_host(reading, host)?;
    let row = reading.hosts.get_key_value(host).and_then(|(host, _)| reading.rows_of(host).find(|row| row.app == app));
    row.ok_or_else(|| {
        if reading.fleet.apps.contains_key(app) {
            return anyhow::anyhow!("`{app}` is not placed on {host}, and not there");
        }
        let hint = names::hint(app.as_str(), reading.fleet.apps.keys().map(AppName::as_str));
        anyhow::anyhow!("there is no application `{app}` in fleet `{}`{hint}", reading.fleet.name)
    })
}

pub(super) fn text(row: &Row<'_>, reason: &Reason, now: Timestamp) -> String {
    let next = reason.next.map(|next| {
        let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        format!("; at the earliest it goes on at {} (in {})", next.strftime("%Y-%m-%d %H:%M:%SZ"), in_words(left))
    });
    format!("{} on {}: {}{}\n", row.app, row.host, reason.text, next.unwrap_or_default())
}
