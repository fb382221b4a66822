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
    let mut child = command.spawn().map_err(|error| format!("{program}: {}", crate::chain(&error)))?;
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
        Ok(Err(error)) => Err(format!("{program}: {}", crate::chain(&error))),
        Err(_) => Err(format!("{program} gave no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Finds the version in what a program prints of itself: its first number, and the text from there on.
pub(super) fn version(said: &str) -> Option<(u32, String)> {
    let line = said.lines().next()?;
    let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let words: Vec<&str> = line.split_whitespace().skip_while(|word| !is_number(word)).collect();
    let major: String = words.first()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for (said, expected) in [
            ("systemd 257 (257.9-1~deb13u1)\n+PAM", Some((257, "257 (257.9-1~deb13u1)"))),
            ("podman version 5.4.2\n", Some((5, "5.4.2"))),
            ("git version 2.47.3", Some((2, "2.47.3"))),
            ("OpenSSH_10.0p2", None),
            ("", None),
        ] {
            assert_eq!(version(said), expected.map(|(major, text)| (major, text.to_owned())), "{said}");
        }
    }
}
