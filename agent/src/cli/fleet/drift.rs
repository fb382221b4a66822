//! `mainstay fleet drift`: what a person should look at, anywhere.

use serde_json::json;

use super::super::width::{self, folded};
use super::super::{Common, Ended};
use super::{Place, table};
use crate::fleet::{Condition, Row};

const EXAMPLES: &str = "\
Exit codes:
  0  nothing
  4  something is not as it should be
  1  it could not be found out; also with an answer that may be old

Examples:
  mainstay fleet drift || mail -s drift ops@example.org";

/// Show what is not as it should be, anywhere
///
/// Shows the applications that failed, that went back to an earlier release, that are unhealthy, that drifted, or that somebody else
/// changes back again and again; with why, as far as their hosts say it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

/// Shows it.
///
/// # Errors
/// The clone cannot be read.
pub(super) fn run(common: &Common, place: &Place, _args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    let is_trouble = |row: &Row<'_>| row.said.is_some_and(crate::fleet::is_trouble);
    let rows: Vec<Row<'_>> = reading.rows().filter(is_trouble).collect();
    if common.json {
        let mut answer = clone.as_json(&reading);
        let of = |row: &Row<'_>| {
            let mut found = json!({ "host": row.host, "app": row.app });
            if let (Some(found), serde_json::Value::Object(row)) = (found.as_object_mut(), table::as_json(row)) {
                found.extend(row);
            }
            found
        };
        answer.insert("drift".to_owned(), rows.iter().map(of).collect());
        println!("{:#}", serde_json::Value::Object(answer));
    } else if rows.is_empty() {
        let unheard = reading.rows().filter(|row| row.condition() == Condition::Unheard).count();
        let but = if unheard > 0 { format!("; {unheard} that nothing was heard of") } else { String::new() };
        println!("nothing is off, as far as the hosts of {} say{but}", reading.fleet.name);
    } else {
        let width = width::of_output();
        print!("{}", folded(&table::table(&rows, reading.at, common.colour(), width), width));
    }
    Ok(clone.ended(if rows.is_empty() { Ended::Well } else { Ended::Unconverged }))
}
