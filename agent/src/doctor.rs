//! Looks at what the agent finds on this host, and what it lacks for what it is to keep there. Changes nothing, and waits for
//! nobody for long.

mod programs;
mod endpoint;
mod repository;

use std::fmt;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use spec::desired::{Desired, UnitOrigin};

use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::podman;
use crate::settings::Settings;
use programs::{ask, version};

/// The oldest systemd that does all that is asked of it.
const SYSTEMD: u32 = 250;
/// The oldest Podman whose quadlets are the ones that are checked for.
const PODMAN: u32 = 5;
/// Where D-Bus listens.
const BUS: &str = "/run/dbus/system_bus_socket";
/// Less than this in `/run` is too little for what is published and staged there.
const RUN: u64 = 4 << 20;
/// Less than this for the state is too little for a mirror and a ledger that are written whole.
const LEAST: u64 = 64 << 20;
/// Less than this is soon too little.
const SCANT: u64 = 512 << 20;
/// Folders that a host with a hundred applications listens to.
const WATCHES: u64 = 4096;

/// How something fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It works, or is not needed now; better were otherwise.
    Warning,
    /// Something that is needed is not there.
    Missing,
}

impl Verdict {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Warning => "warning",
            Verdict::Missing => "missing",
        }
    }
}

/// What was looked at, and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub what: &'static str,
    /// How it fares.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// A command, or a sentence, that ends it.
    pub remedy: Option<String>,
}

impl Finding {
    fn fine(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { what, verdict: Verdict::Fine, found: found.into(), remedy: None }
    }

    fn off(what: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { what, verdict, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// What this host installs packages with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Debian, Ubuntu, and what is made of them.
    Debian,
    /// Fedora, and what is made of it.
    Fedora,
    /// Another one.
    Other,
}

impl Distribution {
    /// Tells it by os-release(5).
    pub fn of(os_release: &str) -> Distribution {
        let value = |key: &str| os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let ids = ["ID", "ID_LIKE"].into_iter().filter_map(value);
        let ids: Vec<&str> = ids.flat_map(|it| it.trim_matches('"').split_whitespace()).collect();
        if ids.iter().any(|id| ["debian", "ubuntu"].contains(id)) {
            Distribution::Debian
        } else if ids.iter().any(|id| ["fedora", "rhel", "centos"].contains(id)) {
            Distribution::Fedora
        } else {
            Distribution::Other
        }
    }

    fn of_this_host() -> Distribution {
        Distribution::of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }
}

/// A package, as Debian and as Fedora call it.
#[derive(Clone, Copy)]
struct Package(&'static str, &'static str);

impl Package {
    /// Returns the command that installs it.
    fn on(self, distribution: Distribution) -> String {
        match distribution {
            Distribution::Debian => format!("apt install {}", self.0),
            Distribution::Fedora => format!("dnf install {}", self.1),
            Distribution::Other => format!("install {} with this host's package manager", self.0),
        }
    }
}

/// What the believed commit wants of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Containers through an engine.
    pub engine: bool,
    /// Quadlets.
    pub quadlets: bool,
}

impl Needs {
    /// Finds out.
    pub fn of(desired: &Desired) -> Needs {
        let is_quadlet = |origin: &UnitOrigin| match origin {
            UnitOrigin::Application { path, .. } => path.quadlet().is_some(),
            UnitOrigin::Host => false,
        };
        Needs {
            engine: desired.containers().next().is_some(),
            quadlets: desired.units().any(|(_, _, unit)| is_quadlet(&unit.origin)),
        }
    }
}

/// Says of something that is not there how bad that is.
fn unless(needed: bool) -> Verdict {
    if needed { Verdict::Missing } else { Verdict::Warning }
}

/// Looks at everything. `needs` is `None` while no commit is believed.
pub async fn examine(settings: &Settings, needs: Option<Needs>) -> Vec<Finding> {
    let distribution = Distribution::of_this_host();
    let known = needs.unwrap_or_default();
    let mut findings = vec![
        systemd(distribution).await,
        bus(distribution),
        space("/run", Path::new("/run"), RUN, RUN),
        engine(settings, known.engine, distribution),
        quadlets(known.quadlets, distribution).await,
    ];
    findings.extend(repository::examine(settings, distribution).await);
    let runs = Ledger::peek(&settings.state).is_ok_and(|ledger| ledger.is_taken());
    findings.extend(endpoint::examine(settings, runs));
    findings.extend([
        state(&settings.state),
        space("free disk", nearest(&settings.state), LEAST, SCANT),
        clock(distribution).await,
        inotify(),
        service().await,
    ]);
    findings
}

async fn systemd(distribution: Distribution) -> Finding {
    let what = "systemd";
    let package = Package("systemd", "systemd").on(distribution);
    match ask("systemctl", &["--version"]).await {
        Err(why) => Finding::off(what, Verdict::Missing, why, package),
        Ok(said) => match version(&said) {
            Some((major, text)) if major >= SYSTEMD => Finding::fine(what, text),
            Some((_, text)) => Finding::off(
                what,
                Verdict::Missing,
                format!("{text}, and {SYSTEMD} is needed"),
                "a newer release of the distribution",
            ),
            None => Finding::off(what, Verdict::Warning, "it does not tell its version", package),
        },
    }
}

fn bus(distribution: Distribution) -> Finding {
    match UnixStream::connect(BUS) {
        Ok(_) => Finding::fine("D-Bus", BUS),
        Err(error) => Finding::off(
            "D-Bus",
            Verdict::Missing,
            format!("{BUS}: {}", crate::chain(&error)),
            format!("{}; systemctl start dbus", Package("dbus", "dbus-broker").on(distribution)),
        ),
    }
}

fn engine(settings: &Settings, needed: bool, distribution: Distribution) -> Finding {
    let what = "container engine";
    let sockets: Vec<PathBuf> = settings.engine.clone().map_or_else(Engine::usual_sockets, |socket| vec![socket]);
    // Podman's socket starts its service when somebody asks, and takes the connection at once.
    match sockets.iter().find(|socket| UnixStream::connect(socket).is_ok()) {
        Some(socket) => Finding::fine(what, socket.display().to_string()),
        None => {
            let names: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
            let why = if needed { "the believed commit has containers" } else { "only containers need it" };
            let podman = "systemctl enable --now podman.socket";
            let remedy = format!("{}, or for Podman: {podman}", Package("docker.io", "moby-engine").on(distribution));
            Finding::off(what, unless(needed), format!("nobody answers at {}; {why}", names.join(" or ")), remedy)
        }
    }
}

async fn quadlets(needed: bool, distribution: Distribution) -> Finding {
    let what = "Podman's quadlets";
    let why = if needed { "the believed commit has quadlets" } else { "only quadlets need it" };
    let install = Package("podman", "podman").on(distribution);
    match (podman::generator(), ask("podman", &["--version"]).await) {
        (None, _) | (_, Err(_)) => {
            Finding::off(what, unless(needed), format!("there is no Podman with its generator; {why}"), install)
        }
        (Some(_), Ok(said)) => match version(&said) {
            Some((major, text)) if major >= PODMAN => Finding::fine(what, format!("Podman {text}")),
            _ => Finding::off(
                what,
                unless(needed),
                format!("{}, and {PODMAN} is needed; {why}", said.trim()),
                "a newer release of the distribution (Debian 13, Fedora 40)",
            ),
        },
    }
}

/// Returns the nearest folder that is there.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn state(state: &Path) -> Finding {
    let what = "state folder";
    let folder = nearest(state);
    match rustix::fs::access(folder, Access::WRITE_OK) {
        Ok(()) if folder == state => Finding::fine(what, state.display().to_string()),
        Ok(()) => Finding::fine(what, format!("{} can be made", state.display())),
        Err(error) if rustix::process::geteuid().is_root() => Finding::off(
            what,
            Verdict::Missing,
            format!("{} cannot be written: {}", folder.display(), crate::chain(&error)),
            "mount it writable, or name another folder with `state:` in the settings",
        ),
        Err(_) => Finding::off(
            what,
            Verdict::Warning,
            "whether it can be written shows for root only",
            "sudo mainstay doctor",
        ),
    }
}

fn space(what: &'static str, folder: &Path, least: u64, scant: u64) -> Finding {
    let Ok(seen) = rustix::fs::statvfs(folder) else {
        return Finding::off(what, Verdict::Warning, format!("{} cannot be looked at", folder.display()), "mount it");
    };
    let free = seen.f_bavail.saturating_mul(seen.f_frsize);
    let found = format!("{} MiB free at {}", free >> 20, folder.display());
    let remedy = format!("du -xh --max-depth=2 {} | sort -h | tail", folder.display());
    match free {
        _ if free < least => Finding::off(what, Verdict::Missing, found, remedy),
        _ if free < scant => Finding::off(what, Verdict::Warning, found, remedy),
        _ => Finding::fine(what, found),
    }
}

async fn clock(distribution: Distribution) -> Finding {
    match ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await.as_deref().map(str::trim) {
        Ok("yes") => Finding::fine("clock", "synchronised"),
        Ok("no") => Finding::off(
            "clock",
            Verdict::Warning,
            "it is not synchronised: certificates and times in records may be off",
            format!("{}; timedatectl set-ntp true", Package("systemd-timesyncd", "chrony").on(distribution)),
        ),
        Ok(_) | Err(_) => Finding::off(
            "clock",
            Verdict::Warning,
            "nobody tells whether it is synchronised",
            "timedatectl timesync-status",
        ),
    }
}

fn inotify() -> Finding {
    let what = "inotify";
    let limit = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
    };
    match (limit("max_user_watches"), limit("max_user_instances")) {
        (Some(watches), Some(instances)) if watches >= WATCHES && instances >= 16 => {
            Finding::fine(what, format!("{watches} watches"))
        }
        (watches, instances) => Finding::off(
            what,
            Verdict::Warning,
            format!(
                "{} watches and {} listeners for each user: drift of files may be noticed late",
                watches.unwrap_or(0),
                instances.unwrap_or(0)
            ),
            "sysctl -w fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=128",
        ),
    }
}

async fn service() -> Finding {
    let word = |said: Result<String, String>| match said.as_deref().map(str::trim) {
        Ok("") => "systemd does not say".to_owned(),
        Ok(said) => said.to_owned(),
        Err(why) => why.to_owned(),
    };
    let enabled = word(ask("systemctl", &["is-enabled", "mainstay.service"]).await);
    let active = word(ask("systemctl", &["is-active", "mainstay.service"]).await);
    let found = format!("{enabled}, {active}");
    match (enabled.as_str(), active.as_str()) {
        ("enabled", "active") => Finding::fine("service", found),
        ("enabled", _) => {
            Finding::off("service", Verdict::Warning, found, "systemctl start mainstay; journalctl -u mainstay -e")
        }
        _ => Finding::off("service", Verdict::Warning, found, "mainstay install --repo URL"),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<18} {}", self.verdict.as_str(), self.what, self.found)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n{:<27} -> {remedy}", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_commands_of_this_distribution() {
        let podman = Package("podman", "podman");
        let says = |os_release: &str| podman.on(Distribution::of(os_release));
        assert_eq!(says("NAME=x\nID=debian\n"), "apt install podman");
        assert_eq!(says("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), "apt install podman");
        assert_eq!(says("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), "dnf install podman");
        assert_eq!(says("ID=arch\n"), "install podman with this host's package manager");
    }

    #[test]
    fn a_finding_reads_as_what_is_wrong_and_what_to_do() {
        let finding = Finding::off("clock", Verdict::Warning, "it is not synchronised", "timedatectl set-ntp true");
        assert_eq!(
            finding.to_string(),
            "warning  clock              it is not synchronised\n                            -> timedatectl set-ntp true"
        );
        assert_eq!(unless(true), Verdict::Missing);
    }
}
