//! What the lab needs from the machine it runs on: rights, kernel features, and some Debian packages.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Programs the lab calls, each with the Debian package that brings it.
const PROGRAMS: [(&str, &str); 8] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("ssh-keygen", "openssh-client"),
    ("openssl", "openssl"),
    ("rpmbuild", "rpm"),
];

/// Says why no lab can run here, so that a test can print it and return.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the lab boots real hosts, which takes root; run the tests with sudo".into());
    }
    cgroup_roots().map_err(|error| format!("{error:#}"))?;
    if !Path::new("/dev/fuse").exists() {
        return Err("the lab's container engines need /dev/fuse, which is not here".into());
    }
    let mut namespaces = shell::command("unshare");
    namespaces.args(["--mount", "--net", "--ipc", "--pid", "--fork", "--mount-proc", "true"]);
    shell::check(&mut namespaces, Duration::from_secs(10))
        .map_err(|error| format!("the lab needs namespaces of its own, and the kernel refused them: {error:#}"))?;
    if !missing().is_empty() && !on_path("apt-get") {
        let programs = missing().iter().map(|(program, _)| *program).collect::<Vec<_>>();
        return Err(format!(
            "the lab needs {}, and this machine has no apt-get to install them with",
            programs.join(", ")
        ));
    }
    Ok(())
}

/// Installs what is missing; does nothing, at the cost of a few file lookups, when all is there.
pub(crate) fn ensure_programs() -> Result<()> {
    ensure(&PROGRAMS)
}

/// Installs what is missing of these programs.
pub(crate) fn ensure(programs: &[(&'static str, &'static str)]) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<_> = programs.iter().copied().filter(|(program, _)| !on_path(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    eprintln!("lab: installing {}", packages.join(" "));
    apt(&["update"])?;
    let install = ["install", "--yes", "--no-install-recommends"];
    apt(&[&install[..], &packages[..]].concat()).with_context(|| format!("failed to install {}", packages.join(" ")))
}

/// The places where a host's cgroup is made: the unified hierarchy, and systemd's own one on a machine that has both.
pub(crate) fn cgroup_roots() -> Result<CgroupRoots> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("failed to read the list of mounts")?;
    let mut unified = None;
    let mut named = None;
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, at, kind, options, ..] = fields[..] else {
            continue;
        };
        match kind {
            "cgroup2" if unified.is_none() => unified = Some(PathBuf::from(at)),
            "cgroup" if options.split(',').any(|option| option == "name=systemd") => named = Some(PathBuf::from(at)),
            _ => {}
        }
    }
    let Some(unified) = unified else {
        bail!("the lab needs the unified cgroup hierarchy, and none is mounted here");
    };
    Ok(CgroupRoots { unified, named })
}

/// See [`cgroup_roots`].
#[derive(Clone, Debug)]
pub(crate) struct CgroupRoots {
    pub unified: PathBuf,
    pub named: Option<PathBuf>,
}

impl CgroupRoots {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.unified.as_path()).chain(self.named.as_deref())
    }
}

fn missing() -> Vec<(&'static str, &'static str)> {
    PROGRAMS.into_iter().filter(|(program, _)| !on_path(program)).collect()
}

fn on_path(program: &str) -> bool {
    shell::PATH.split(':').any(|folder| Path::new(folder).join(program).exists())
}

pub(crate) fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = shell::command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    shell::check(&mut command, Duration::from_secs(900)).map(drop)
}
