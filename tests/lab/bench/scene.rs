//! The scene of the bench: a host, a forge, and a repository of many services with a file each and some containers.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};
use lab::{Forge, Host, Lab, Repo};

/// How many containers there are.
const CONTAINERS: usize = 5;
/// What there is before there is anything to converge to.
const LITTLE: &str = "apps/little/files/etc/bench/little";
/// How many one-line changes are made at most.
pub(super) const CHANGES: usize = 20;
/// How many units belong to one application.
const UNITS_PER_APP: usize = 5;

/// One service and the file that its text names.
pub(super) struct Unit {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) text: String,
    pub(super) text_path: String,
    pub(super) config_path: String,
}

/// The services, the same for whoever asks.
pub(super) fn units(count: usize) -> Vec<Unit> {
    (0..count).map(|number| unit("bench", number)).collect()
}

/// A service that the repository knows nothing of.
pub(super) fn spare(number: usize) -> Unit {
    unit("spare", number)
}

fn unit(prefix: &str, number: usize) -> Unit {
    let name = format!("{prefix}-{number:03}.service");
    let config_path = format!("/etc/{prefix}/{number:03}.conf");
    let text = format!(
        "[Unit]\nDescription=Number {number} of the {prefix} services\n\n\
         [Service]\nEnvironmentFile={config_path}\nExecStart=/bin/sleep infinity\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    Unit { number, text_path: format!("/etc/systemd/system/{name}"), name, text, config_path }
}

/// The time, in microseconds since 1970: all hosts of a lab share the machine's clock.
pub(super) fn now() -> Result<u64> {
    since_1970(SystemTime::now())
}

fn since_1970(time: SystemTime) -> Result<u64> {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    u64::try_from(time.as_micros()).context("the clock is far off")
}

/// What a service's file holds.
pub(super) fn config(number: usize, value: &str) -> String {
    format!("# read by number {number}\nNUMBER={number}\nVALUE={value}\n")
}

/// The containers' names.
pub(super) fn containers() -> Vec<String> {
    (0..CONTAINERS).map(|number| format!("bench-{number}")).collect()
}

/// Where a service's file is in the repository.
pub(super) fn in_repository(unit: &Unit) -> String {
    format!("{}/files{}", app(unit.number), unit.config_path)
}

fn app(number: usize) -> String {
    format!("apps/app-{:02}", number / UNITS_PER_APP)
}

/// The host, the forge, and what the host follows.
pub(super) struct Scene {
    pub(super) host: Host,
    pub(super) repo: Repo,
    pub(super) image: String,
    _forge: Forge,
    _lab: Lab,
}

impl Scene {
    /// Boots both; the image is on the host already, so that nobody's time depends on a registry.
    pub(super) fn set() -> Result<Scene> {
        let lab = Lab::start()?;
        let host = lab.boot("attic")?;
        let forge = lab.forge()?;
        let repo = forge.repo("fleet")?;
        host.start_docker()?;
        let image = forge.image("bench", "1", "one of five")?.reference;
        host.sh(&format!("docker pull --quiet {image}"))?;
        Ok(Scene { host, repo, image, _forge: forge, _lab: lab })
    }

    /// Puts the whole configuration into the repository; returns the commit.
    pub(super) fn commit_all(&self, units: &[Unit]) -> Result<String> {
        let mut change = self.repo.change().remove_all();
        change = change.write("fleet.yaml", self.fleet()).write(LITTLE, "little\n");
        for unit in units {
            change = change.write(&format!("{}/{}", app(unit.number), unit.name), &unit.text);
            change = change.write(&in_repository(unit), config(unit.number, "0"));
        }
        let mut yaml = "containers:\n".to_owned();
        for name in containers() {
            writeln!(yaml, "  {name}: {{ image: \"{}\" }}", self.image).context("failed to write to a text")?;
        }
        change.write("apps/containers/app.yaml", yaml).commit("everything")
    }

    /// Changes one line of one service's file; returns the commit.
    pub(super) fn commit_line(&self, unit: &Unit, value: &str) -> Result<String> {
        self.repo.commit(&[(&in_repository(unit), &config(unit.number, value))], "one line")
    }

    /// Wants one file on the host, since an empty repository is refused; returns the commit.
    pub(super) fn commit_little(&self) -> Result<String> {
        self.repo.set_tree(&[("fleet.yaml", &self.fleet()), (LITTLE, "little\n")], "little")
    }

    /// When the newest commit came onto the branch, in microseconds since 1970.
    pub(super) fn pushed_at(&self) -> Result<u64> {
        let branch = self.repo.path_on_machine().join("refs/heads/main");
        let data = std::fs::metadata(&branch).with_context(|| format!("failed to look at {}", branch.display()))?;
        since_1970(data.modified().context("the file system tells no times")?)
    }

    fn fleet(&self) -> String {
        format!("fleet: bench\nhosts:\n  {}: {{}}\n", self.host.name())
    }

    /// Makes the host what it was before anybody worked on it.
    pub(super) fn clear(&self) -> Result<()> {
        let containers = containers().join(" ");
        self.host.sh(&format!(
            "systemctl stop mainstay 2>/dev/null || true
             systemctl stop 'bench-*.service'
             rm -rf /etc/bench /etc/systemd/system/bench-* /etc/systemd/system/*/bench-* /var/lib/mainstay
             systemctl daemon-reload
             systemctl reset-failed
             docker rm --force {containers} >/dev/null 2>&1 || true
             sync"
        ))?;
        Ok(())
    }

    /// When a unit was up, in microseconds since 1970.
    pub(super) fn up_since(&self, unit: &Unit) -> Result<u64> {
        let name = &unit.name;
        let said = self.host.sh(&format!("systemctl show -P ActiveEnterTimestamp --timestamp=us+utc {name}"))?;
        micros_of(said.trim().trim_start_matches(|c: char| !c.is_ascii_digit()))
    }

    /// When a file was put where it is, in microseconds since 1970.
    pub(super) fn written_at(&self, path: &str) -> Result<u64> {
        let said = self.host.sh(&format!("stat --format=%.6Z {path}"))?;
        said.trim().replace('.', "").parse().with_context(|| format!("`{said}` is no time"))
    }

    /// When a container was started, in microseconds since 1970.
    pub(super) fn container_since(&self, name: &str) -> Result<u64> {
        let said = self.host.sh(&format!("docker inspect --format '{{{{.State.StartedAt}}}}' {name}"))?;
        micros_of(said.trim())
    }

    /// When the last of everything was up, in microseconds since 1970.
    pub(super) fn all_up(&self) -> Result<u64> {
        let said = self.host.sh(&format!(
            "systemctl show 'bench-*.service' --property=ActiveState,ActiveEnterTimestamp --timestamp=us+utc
             docker inspect --format 'container={{{{.State.Running}}}} {{{{.State.StartedAt}}}}' {}",
            containers().join(" ")
        ))?;
        let mut last = 0;
        for line in said.lines() {
            let time = match line.split_once('=') {
                Some(("ActiveEnterTimestamp", time)) => time.trim_start_matches(|c: char| !c.is_ascii_digit()),
                Some(("container", said)) => said.strip_prefix("true ").context("a container does not run")?,
                Some(("ActiveState", "active")) | None => continue,
                Some(_) => anyhow::bail!("not everything runs: {line}"),
            };
            last = last.max(micros_of(time)?);
        }
        Ok(last)
    }
}

/// Reads `2026-01-02 03:04:05.678901 UTC` or `2026-01-02T03:04:05.678901234Z`: the microseconds of that day's time since
/// 1970. A bench that runs over midnight is told apart by the date.
fn micros_of(text: &str) -> Result<u64> {
    let number = |from: usize, to: usize| -> Result<u64> {
        let digits = text.get(from..to).with_context(|| format!("`{text}` is no time"))?;
        digits.parse().with_context(|| format!("`{text}` is no time"))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fraction: String =
        text[19..].trim_start_matches('.').chars().take_while(char::is_ascii_digit).take(6).collect();
    let micros = format!("{fraction:0<6}").parse::<u64>().context("a fraction of a second is a number")?;
    // Days since 1970, by counting years from March on.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_systemd_and_of_the_engine_are_read() {
        assert_eq!(micros_of("2026-11-20 19:00:01.000002 UTC").unwrap(), 1_795_201_201_000_002);
        assert_eq!(micros_of("2026-11-20T19:00:01.5Z").unwrap(), 1_795_201_201_500_000);
        assert_eq!(micros_of("1970-01-01T00:00:00Z").unwrap(), 0);
    }
}
