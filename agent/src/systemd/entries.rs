//! What units say, as it is said: entries of the journal, through `journalctl`.

use std::collections::BTreeSet;
use std::io;
use std::process::Stdio;

use jiff::Timestamp;
use serde::Deserialize;
use spec::id::UnitName;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::journal::{Message, PATH, matches};

/// What is read of an entry beside its times.
const FIELDS: &str = "--output-fields=MESSAGE,PRIORITY,_PID,_SYSTEMD_UNIT,UNIT,_SYSTEMD_USER_UNIT,USER_UNIT";

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub at: Timestamp,
    /// The unit that it is about, without whose it is.
    pub unit: String,
    /// Whether systemd wrote it.
    pub by_systemd: bool,
    /// From 0 to 7, as with syslog(3).
    pub priority: Option<u8>,
    /// What it says; may hold anything, and several lines.
    pub text: String,
}

/// Entries, one after the other. Reading ends when this is dropped.
pub struct Entries {
    _reader: Child,
    lines: Lines<BufReader<ChildStdout>>,
    units: BTreeSet<String>,
}

impl Entries {
    /// Begins to read the newest `lines` entries of `units`, and with `follow` all that come. Entries of more than 4 KiB have no
    /// text, which keeps what is read at a time small.
    ///
    /// # Errors
    /// `journalctl` cannot be started.
    pub fn read(
        units: &BTreeSet<UnitName>,
        lines: usize,
        since: Option<Timestamp>,
        follow: bool,
    ) -> io::Result<Entries> {
        let mut command = Command::new("journalctl");
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        command.args(["--no-pager", "--quiet", "--output=json", FIELDS]).arg(format!("--lines={lines}"));
        if let Some(since) = since {
            command.arg(format!("--since=@{}.{:06}", since.as_second(), since.subsec_microsecond().max(0)));
        }
        if follow {
            command.arg("--follow");
        }
        for (index, unit) in units.iter().enumerate() {
            command.args((index > 0).then_some("+")).args(matches(unit));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut reader = command.spawn()?;
        let said = reader.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let units = units.iter().map(|unit| unit.as_str().to_owned()).collect();
        Ok(Entries { _reader: reader, lines: BufReader::new(said).lines(), units })
    }

    /// Returns the next one; `None` when there is none any more.
    ///
    /// # Errors
    /// Reading failed.
    pub async fn next(&mut self) -> io::Result<Option<Entry>> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some(entry) = parse(&line, &self.units) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// An entry as `journalctl --output=json` prints it: systemd.io, "Journal JSON Format".
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at: String,
    #[serde(rename = "MESSAGE", default)]
    message: Message,
    #[serde(rename = "PRIORITY")]
    priority: Option<String>,
    #[serde(rename = "_PID")]
    pid: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    of: Option<String>,
    #[serde(rename = "UNIT")]
    about: Option<String>,
    #[serde(rename = "_SYSTEMD_USER_UNIT")]
    of_user: Option<String>,
    #[serde(rename = "USER_UNIT")]
    about_user: Option<String>,
}

/// Reads an entry of one of these units. Anybody may write fields of these names, but those with `_` in front.
fn parse(line: &str, units: &BTreeSet<String>) -> Option<Entry> {
    let raw: Raw = serde_json::from_str(line).ok()?;
    let about = raw.about.filter(|_| raw.pid.as_deref() == Some("1")).or(raw.about_user);
    let by_systemd = about.as_ref().is_some_and(|unit| units.contains(unit));
    let unit = [about, raw.of_user, raw.of].into_iter().flatten().find(|unit| units.contains(unit))?;
    let at = Timestamp::from_microsecond(raw.at.parse().ok()?).ok()?;
    Some(Entry {
        at,
        unit,
        by_systemd,
        priority: raw.priority.and_then(|priority| priority.parse().ok()),
        text: raw.message.text().into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_belongs_to_the_unit_that_spoke_or_that_systemd_speaks_of() {
        let units = BTreeSet::from(["web.service".to_owned(), "db.service".to_owned()]);
        let read = |fields: &str| {
            let line = format!(r#"{{"__REALTIME_TIMESTAMP":"1800000000000001",{fields}}}"#);
            parse(&line, &units).map(|it| (it.unit, it.by_systemd, it.priority, it.text))
        };
        let entry = |unit: &str, by_systemd, text: &str| Some((unit.to_owned(), by_systemd, Some(6), text.to_owned()));
        assert_eq!(
            read(r#""MESSAGE":"hello","PRIORITY":"6","_PID":"99","_SYSTEMD_UNIT":"web.service""#),
            entry("web.service", false, "hello")
        );
        let started =
            r#""MESSAGE":"Started it","PRIORITY":"6","UNIT":"db.service","_SYSTEMD_UNIT":"init.scope","_PID":"#;
        assert_eq!(read(&format!("{started}\"1\"")), entry("db.service", true, "Started it"));
        assert_eq!(read(&format!("{started}\"7\"")), None, "anybody may say so");
        let hers = r#""MESSAGE":[104,255],"PRIORITY":"6","_SYSTEMD_UNIT":"user@1500.service","_SYSTEMD_USER_UNIT":"web.service""#;
        assert_eq!(read(hers), entry("web.service", false, "h\u{fffd}"));
        assert_eq!(
            read(r#""MESSAGE":null,"PRIORITY":"6","_SYSTEMD_UNIT":"web.service""#).map(|it| it.3.contains("too long")),
            Some(true)
        );
        assert_eq!(read(r#""MESSAGE":"x","_SYSTEMD_UNIT":"other.service""#), None);
    }
}
