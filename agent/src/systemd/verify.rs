//! What systemd thinks of unit files before they are put where it reads them: `systemd-analyze verify`, systemd-analyze(1).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use spec::id::{UnitName, shown};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long looking may take; it takes a tenth of a second.
const VERIFY: Duration = Duration::from_secs(30);
/// The most that is read of what it says.
const LIMIT: u64 = 256 * 1024;
const PATH: &str = "/usr/bin:/bin:/usr/local/bin";

/// What systemd would do without, or refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file below the folder that was looked at, and the line; a unit's name where systemd says no line.
    pub at: Place,
    /// What it says, on one line.
    pub text: String,
}

/// What a complaint is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, which is named by its path below the folder.
    Line(String, usize),
    /// A unit as a whole.
    Unit(UnitName),
}

/// Returns what systemd complains about in the texts of `units`, which are below `folder` as they would be below
/// /etc/systemd/system. What is not there yet (programs, other units) is no complaint, nor is a key that this systemd is too
/// old for, which is how systemd's own units come to older hosts.
///
/// # Errors
/// The program is not there, cannot be started, or does not end in time.
pub async fn complaints(folder: &Path, units: &[UnitName]) -> Result<Vec<Complaint>, String> {
    let asked = tokio::time::timeout(VERIFY, ask(folder, units)).await;
    let said = asked
        .map_err(|_| format!("systemd-analyze gave no answer within {}", humantime::format_duration(VERIFY)))?
        .map_err(|error| format!("systemd-analyze cannot be run: {error}"))?;
    Ok(said.lines().filter_map(|line| complaint(folder, line)).collect())
}

async fn ask(folder: &Path, units: &[UnitName]) -> std::io::Result<String> {
    let mut command = Command::new("systemd-analyze");
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("SYSTEMD_LOG_COLOR", "0");
    // The colon at the end stands for the folders that systemd reads otherwise (systemd.unit(5), "Unit File Load Path").
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display())).current_dir("/");
    command.args(["verify", "--man=no", "--recursive-errors=no"]).args(units.iter().map(UnitName::as_str));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(LIMIT).read_to_end(&mut said).await?;
    }
    child.wait().await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn complaint(folder: &Path, line: &str) -> Option<Complaint> {
    let of_file = line.strip_prefix(folder.to_str()?).and_then(|rest| rest.strip_prefix('/'));
    if let Some((file, rest)) = of_file.and_then(|rest| rest.split_once(':')) {
        let (number, text) = rest.split_once(": ")?;
        let is_lost = text.contains("ignoring") || text.contains("Refusing");
        let is_too_new = text.starts_with("Unknown key") || text.starts_with("Unknown section");
        let at = Place::Line(file.to_owned(), number.parse().ok()?);
        return (is_lost && !is_too_new).then(|| Complaint { at, text: shown(text) });
    }
    let (unit, text) = line.split_once(": ")?;
    let at = Place::Unit(UnitName::parse(unit).ok()?);
    text.ends_with("Refusing.").then(|| Complaint { at, text: shown(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_lost_or_refused_is_a_complaint() {
        let of = |line: &str| complaint(Path::new("/tmp/x"), line).map(|it| (it.at, it.text));
        let place = |file: &str, line| Place::Line(file.to_owned(), line);
        let text = "Failed to parse protect system value, ignoring: maybe";
        assert_eq!(of(&format!("/tmp/x/web.service:6: {text}")), Some((place("web.service", 6), text.to_owned())));
        let text = "Failed to parse TimeoutStartSec= parameter, ignoring: abc";
        let file = "web.service.d/x.conf";
        assert_eq!(of(&format!("/tmp/x/{file}:2: {text}")), Some((place(file, 2), text.to_owned())));
        let text = "Timer unit lacks value setting. Refusing.";
        let unit = UnitName::parse("t.timer").expect("a unit");
        assert_eq!(of(&format!("t.timer: {text}")), Some((Place::Unit(unit), text.to_owned())));
        for fine in [
            "web.service: Command /usr/local/bin/x is not executable: No such file or directory",
            "/usr/lib/systemd/system/ssh.service:6: Failed to parse it, ignoring: maybe",
            "/tmp/x/web.service:9: Unknown key name 'Novel' in section 'Service', ignoring.",
            "/tmp/x/web.service:9: Standard output type syslog is obsolete, automatically updating to journal.",
            "Unit t.timer has a bad unit file setting.",
        ] {
            assert_eq!(of(fine), None, "{fine}");
        }
    }
}
