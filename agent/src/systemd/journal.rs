//! The last words of a unit's run, from the journal. Libsystemd is not linked, so `journalctl` reads for us.

use std::borrow::Cow;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use spec::id::{UnitName, User, shown};
use spec::observed::InvocationId;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long reading may take: the words belong into an error report, which must not wait for them.
const READ: Duration = Duration::from_secs(5);
/// The program's own name is looked up in the path that the child gets.
pub(super) const PATH: &str = "/usr/bin:/bin:/usr/local/bin";
/// The most that is read. `journalctl` leaves out messages of more than 4 KiB, so that the entries asked for fit.
const LIMIT: u64 = 1024 * 1024;
/// The most that is kept of one line.
const LINE_LIMIT: usize = 400;
/// How many entries are looked at for each line that is wanted: those of earlier runs are among them.
const LOOK_BACK: usize = 3;

/// Returns the last `lines` lines that a unit wrote, or that systemd wrote about it, in one run of it; in this boot
/// when the run is not known. Control characters are escaped. Never fails: without a journal there are no last words,
/// and the text says why.
pub async fn journal_tail(unit: &UnitName, invocation: Option<&InvocationId>, lines: usize) -> String {
    // What it said last may be on its way to the journal still.
    sync().await;
    let said = match tokio::time::timeout(READ, read(unit, lines * LOOK_BACK)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return format!("(the journal cannot be read: {error})"),
        Err(_) => return format!("(the journal gave no answer within {})", humantime::format_duration(READ)),
    };
    let entries: Vec<Entry> = said.split(|byte| *byte == b'\n').filter_map(Entry::parse).collect();
    let kept = of_run(&entries, invocation.map(InvocationId::as_str));
    let last = kept.get(kept.len().saturating_sub(lines)..).unwrap_or_default();
    last.iter().flat_map(|entry| entry.lines()).collect::<Vec<_>>().join("\n")
}

/// Waits until the journal holds what was written to it so far. Never fails: without it, last words may be missing.
async fn sync() {
    let mut command = Command::new("journalctl");
    command.env_clear().env("PATH", PATH).arg("--sync").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match tokio::time::timeout(READ, command.status()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the journal cannot be synced"),
        Err(_) => tracing::debug!("the journal was not synced in time"),
    }
}

/// Reads the last entries of a unit in this boot: its processes', or its manager's about it. Processes can set the second field,
/// but not their own process id.
async fn read(unit: &UnitName, entries: usize) -> std::io::Result<Vec<u8>> {
    let mut command = Command::new("journalctl");
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
    command.args(["--no-pager", "--quiet", "--boot", "--output=json"]).arg(format!("--lines={entries}"));
    command.arg("--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,USER_INVOCATION_ID,_PID");
    command.args(matches(unit));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LIMIT).read_to_end(&mut bytes).await?;
    }
    // Its output pipe is closed by now, so a child that had more to say ends too.
    child.wait().await?;
    Ok(bytes)
}

/// Returns what `journalctl` is to match: what a unit's processes wrote, or its manager about it.
pub(super) fn matches(unit: &UnitName) -> Vec<String> {
    let name = unit.as_str();
    match unit.user().map(User::uid) {
        None => vec![format!("_SYSTEMD_UNIT={unit}"), "+".to_owned(), format!("UNIT={unit}"), "_PID=1".to_owned()],
        // The user can write what the manager writes; it is the user's own unit.
        Some(uid) => vec![
            format!("_SYSTEMD_USER_UNIT={name}"),
            format!("_SYSTEMD_OWNER_UID={uid}"),
            "+".to_owned(),
            format!("USER_UNIT={name}"),
            format!("_UID={uid}"),
        ],
    }
}

/// An entry as `journalctl --output=json` prints it: systemd.io, "Journal JSON Format".
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE", default)]
    message: Message,
    /// The run that wrote it, told by the journal.
    #[serde(rename = "_SYSTEMD_INVOCATION_ID")]
    of: Option<String>,
    /// The run of a user's unit that it is about, told by the user's manager.
    #[serde(rename = "USER_INVOCATION_ID")]
    of_user: Option<String>,
    /// The run that it is about, told by the writer.
    #[serde(rename = "INVOCATION_ID")]
    about: Option<String>,
    #[serde(rename = "_PID")]
    pid: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(super) enum Message {
    Text(String),
    Bytes(Vec<u8>),
    #[default]
    Missing,
}

impl Message {
    /// Returns it as text.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Message::Text(text) => text.into(),
            Message::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Message::Missing => "(a message that is too long to be shown)".into(),
        }
    }
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Entry> {
        serde_json::from_slice(line).ok()
    }

    /// The run that it belongs to, if the journal knows: who wrote it may have ended before the journal looked.
    fn run(&self) -> Option<&str> {
        let about = self.about.as_deref().filter(|_| self.pid.as_deref() == Some("1"));
        about.or(self.of_user.as_deref()).or(self.of.as_deref())
    }

    fn lines(&self) -> Vec<String> {
        self.message.text().lines().map(|line| shown(&line.chars().take(LINE_LIMIT).collect::<String>())).collect()
    }
}

/// Picks the entries of one run. Those of no known run count to it behind the last one of another: what a process says
/// just before it ends reaches a busy journal when systemd has forgotten the process already.
fn of_run<'e>(entries: &'e [Entry], run: Option<&str>) -> Vec<&'e Entry> {
    let is_other = |entry: &Entry| run.is_some() && entry.run().is_some_and(|of| Some(of) != run);
    let since = entries.iter().rposition(is_other).map_or(0, |last| last + 1);
    let kept = entries
        .iter()
        .enumerate()
        .filter(|(index, entry)| !is_other(entry) && (entry.run().is_some() || *index >= since));
    kept.map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[&str]) -> Vec<Entry> {
        lines.iter().map(|line| Entry::parse(line.as_bytes()).expect("an entry")).collect()
    }

    #[test]
    fn last_words_carry_no_escapes_and_keep_their_lines() {
        let said =
            entries(&[r#"{"MESSAGE":"one\n\u001b[31mtwo"}"#, r#"{"MESSAGE":[255,120]}"#, r#"{"MESSAGE":null}"#, "{}"]);
        let lines: Vec<String> = said.iter().flat_map(Entry::lines).collect();
        let missing = "(a message that is too long to be shown)";
        assert_eq!(lines, ["one", "\\u{1b}[31mtwo", "\u{fffd}x", missing, missing]);
        let long = Entry { message: Message::Text("x".repeat(1000)), of: None, of_user: None, about: None, pid: None };
        assert_eq!(long.lines()[0].len(), LINE_LIMIT);
    }

    #[test]
    fn what_the_journal_could_not_attribute_counts_to_the_run_that_it_followed() {
        let said = entries(&[
            r#"{"MESSAGE":"of nobody, before"}"#,
            r#"{"MESSAGE":"before","_SYSTEMD_INVOCATION_ID":"a"}"#,
            r#"{"MESSAGE":"started","INVOCATION_ID":"b","_PID":"1","_SYSTEMD_INVOCATION_ID":"pid1"}"#,
            r#"{"MESSAGE":"a lie","INVOCATION_ID":"b","_PID":"7","_SYSTEMD_INVOCATION_ID":"a"}"#,
            r#"{"MESSAGE":"last words"}"#,
            r#"{"MESSAGE":"failed","INVOCATION_ID":"b","_PID":"1"}"#,
        ]);
        let text = |kept: Vec<&Entry>| kept.iter().flat_map(|entry| entry.lines()).collect::<Vec<_>>();
        assert_eq!(text(of_run(&said, Some("b"))), ["started", "last words", "failed"]);
        assert_eq!(of_run(&said, None).len(), said.len());
    }
}
