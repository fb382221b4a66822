//! The last words of a unit's run, from the journal. Libsystemd is not linked, so `journalctl` reads for us.

use std::process::Stdio;
use std::time::Duration;

use spec::id::{UnitName, shown};
use spec::observed::InvocationId;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long reading may take: the words belong into an error report, which must not wait for them.
const READ: Duration = Duration::from_secs(5);
/// The program's own name is looked up in the path that the child gets.
const PATH: &str = "/usr/bin:/bin:/usr/local/bin";
/// The most that is read; longer output loses its end, which `lines` keeps from happening to anything sensible.
const LIMIT: u64 = 64 * 1024;
/// The most that is kept of one line.
const LINE_LIMIT: usize = 400;

/// Returns the last `lines` lines that a unit wrote, or that systemd wrote about it, in one run of it; in this boot
/// when the run is not known. Control characters are escaped. Never fails: without a journal there are no last words,
/// and the text says why.
pub async fn journal_tail(unit: &UnitName, invocation: Option<&InvocationId>, lines: usize) -> String {
    // What it said last may be on its way to the journal still.
    sync().await;
    match tokio::time::timeout(READ, read(unit, invocation, lines)).await {
        Ok(Ok(bytes)) => tidy(&bytes),
        Ok(Err(error)) => format!("(the journal cannot be read: {error})"),
        Err(_) => format!("(the journal gave no answer within {})", humantime::format_duration(READ)),
    }
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

async fn read(unit: &UnitName, invocation: Option<&InvocationId>, lines: usize) -> std::io::Result<Vec<u8>> {
    let mut command = Command::new("journalctl");
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
    command.args(["--no-pager", "--quiet", "--output=cat"]).arg(format!("--lines={lines}"));
    match invocation {
        // The unit's processes, or PID 1 about it: processes can set the second field, but not their own process id.
        Some(run) => {
            command.args([&format!("_SYSTEMD_INVOCATION_ID={run}"), "+", &format!("INVOCATION_ID={run}"), "_PID=1"])
        }
        None => command.arg("--boot").arg(format!("--unit={unit}")),
    };
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

fn tidy(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| shown(&line.chars().take(LINE_LIMIT).collect::<String>()));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_carry_no_escapes_and_keep_their_lines() {
        assert_eq!(tidy(b"one\n\x1b[31mtwo\xff\n"), "one\n\\u{1b}[31mtwo\u{fffd}");
        assert_eq!(tidy("x".repeat(1000).as_bytes()).len(), LINE_LIMIT);
    }
}
