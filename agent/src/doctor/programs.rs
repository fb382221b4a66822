//! Asks programs of the host short questions.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than this is no answer.
const MOST: u64 = 16 << 10;

/// Runs a program and returns what it printed, whatever its exit code is; `systemctl is-active` says "inactive" with one.
pub(super) async fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let read = async {
        let mut said = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_end(&mut said).await?;
        }
        child.wait().await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&said).into_owned())
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} gave no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Finds the version in what a program prints of itself: its first number, and the text around it.
pub(super) fn version(said: &str) -> Option<(u32, String)> {
    let line = said.lines().next()?;
    let text = line.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let major: String = text.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for (said, expected) in [
            ("systemd 257 (257.9-1~deb13u1)\n+PAM", Some(257)),
            ("podman version 5.4.2\n", Some(5)),
            ("git version 2.47.3", Some(2)),
            ("OpenSSH_10.0p2", None),
            ("", None),
        ] {
            assert_eq!(version(said).map(|(major, _)| major), expected, "{said}");
        }
    }
}
