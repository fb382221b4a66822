//! Rows of the fleet as a table: a host, an application, how it fares, since when, and what runs.

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::id::{CommitId, shown};

use super::super::print::{self, Since};
use super::super::width::padded;
use crate::fleet::turns::in_words;
use crate::fleet::{Reading, Row, failure};

/// What the last column takes at least: a commit, and some words.
const RELEASE: usize = 26;

/// Draws rows.
pub(super) fn table(rows: &[Row<'_>], now: Timestamp, colour: bool, width: Option<usize>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let widest = |title: &str, of: &dyn Fn(&Row<'_>) -> usize| rows.iter().map(of).max().unwrap_or(0).max(title.len());
    let host = widest("HOST", &|row| row.host.as_str().len());
    let app = widest("APPLICATION", &|row| row.app.as_str().len());
    let state = widest("STATE", &|row| row.state().len());
    let since = Since::beside(host + app + state + 2 * 4 + RELEASE, width);
    let when = since.width();
    let head = format!("{:<host$}  {:<app$}  {:<state$}  {:<when$}  RELEASE", "HOST", "APPLICATION", "STATE", "SINCE");
    let mut text = head + "\n";
    for row in rows {
        let said = row.said.map(|said| since.say(said.since, now)).unwrap_or_default();
        let word = painted(row, colour);
        let release = row.release().map_or("", CommitId::short);
        let line = format!(
            "{:<host$}  {:<app$}  {}  {said:<when$}  {release}{}",
            row.host,
            row.app,
            padded(&word, state),
            remark(row, now)
        );
        text.extend([line.trim_end(), "\n"]);
        for line in row.said.and_then(failure).unwrap_or_default().lines() {
            text.extend(["    ", &shown(line), "\n"]);
        }
    }
    text
}

fn painted(row: &Row<'_>, colour: bool) -> String {
    let code = match row.said {
        Some(said) if row.is_placed && !row.known.is_silent => print::colour_of(said.state),
        _ => "33",
    };
    print::painted(row.state(), code, colour)
}

/// Says what else there is to a row, behind its release.
fn remark(row: &Row<'_>, now: Timestamp) -> String {
    let mut remarks = Vec::new();
    if let (Some(said), Some(record)) = (row.said, &row.known.record)
        && said.runs.as_ref().is_some_and(|runs| *runs != record.commit)
    {
        remarks.push(format!("not {}", record.commit.short()));
    }
    remarks.extend(row.known.silence(now).map(|silence| format!("silent for {}", in_words(silence))));
    if remarks.is_empty() { String::new() } else { format!("  {}", remarks.join(", ")) }
}

/// Returns a row for programs.
pub(super) fn as_json(row: &Row<'_>) -> Value {
    let said = row.said;
    json!({
        "state": row.state(),
        "since": said.map(|said| said.since),
        "release": row.release(),
        "from": said.and_then(|said| said.from.as_ref()),
        "digest": said.map(|said| said.digest),
        "failure": said.and_then(failure),
        "contested": said.map(|said| said.contested.as_slice()).unwrap_or_default(),
        "condition": row.condition().as_str(),
    })
}

/// Returns the hosts of the fleet for programs, with those of their applications that are meant.
pub(super) fn hosts_as_json(reading: &Reading, is_meant: impl Fn(&Row<'_>) -> bool) -> Value {
    let hosts = reading.hosts.iter().map(|(name, known)| {
        let rows = reading.rows_of(name).filter(|row| is_meant(row));
        let apps: serde_json::Map<String, Value> = rows.map(|row| (row.app.to_string(), as_json(&row))).collect();
        let host = json!({
            "commit": known.record.as_ref().map(|record| &record.commit),
            "heard": known.heard,
            "silent-seconds": known.silence(reading.at).map(|silence| silence.as_secs()),
            "reported": known.is_reported(),
            "apps": apps,
        });
        (name.to_string(), host)
    });
    Value::Object(hosts.collect())
}
