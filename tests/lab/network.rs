//! The ground under one lab: namespaces, a bridge, a tmpfs and a cgroup of its own, held by one process.
//!
//! Nothing of it appears in the machine's main namespaces, so tearing down is one act that cannot be done by halves:
//! the process that holds it ends, and the kernel takes the rest. Only the cgroups are left to remove by hand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::machine::CgroupRoots;
use crate::process::{self, Process};
use crate::register::{self, Entry};
use crate::{machine, shell};

const KEEPER: &str = include_str!("keeper.sh");

/// How long the kernel may take to end a whole lab.
const TEARDOWN: Duration = Duration::from_secs(30);

/// Last number of the address of a lab's forge; other hosts follow from [`FIRST`] on.
pub(crate) const FORGE: u8 = 2;
const FIRST: u8 = 10;

pub(crate) struct Network {
    pub id: String,
    pub cgroups: CgroupRoots,
    /// First process of the lab's own process namespace; its namespaces are the lab's.
    pub holder: Process,
    keeper: Mutex<Child>,
    names: Mutex<BTreeMap<String, u8>>,
}

impl Network {
    pub(crate) fn start() -> Result<Network> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        machine::ensure_programs()?;
        let cgroups = machine::cgroup_roots()?;
        let id = register::id(process::own(), COUNT.fetch_add(1, Ordering::Relaxed));
        let state = register::folder(&id);
        std::fs::create_dir_all(&state).with_context(|| format!("failed to create {}", state.display()))?;
        for root in cgroups.all() {
            let group = root.join(&id);
            std::fs::create_dir_all(&group).with_context(|| format!("failed to create {}", group.display()))?;
        }

        // In a session of its own: a Ctrl-C meant for the test run must not hit what cleans up after it.
        let mut command = Command::new("setsid");
        command.env_clear().env("PATH", shell::PATH).current_dir("/");
        command.args(["sh", "-uc", KEEPER, "keeper.sh"]).arg(&id).arg(&state).args(cgroups.all());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().context("failed to start the lab's keeper")?;
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut said).context("failed to hear from the lab's keeper")?;
        if said.trim() != "ready" {
            bail!("failed to make namespaces and a bridge for the lab; what was printed above says why");
        }
        let holder = holder_under(process::id(&keeper))?;
        register::write(&id, &Entry { owner: Process::of(process::own())?, holder })?;
        Ok(Network { id, cgroups, holder, keeper: Mutex::new(keeper), names: Mutex::new(BTreeMap::new()) })
    }

    /// A command that will run in the lab's namespaces, outside of any host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = shell::command("nsenter");
        command.args(["-t", &self.holder.pid.to_string(), "-m", "-n", "-i", "-p", "--", program]);
        command
    }

    /// Path on the machine of a path in the lab's mount namespace.
    pub(crate) fn seen_from_machine(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(self.holder.pid.to_string()).join("root").join(inside)
    }

    /// Reserves a name and the last number of its address, fixed (`Some`) or the next one free.
    pub(crate) fn reserve(&self, name: &str, fixed: Option<u8>) -> Result<u8> {
        check_name(name)?;
        let mut names = self.names();
        if names.contains_key(name) {
            bail!("the lab has a host `{name}` already");
        }
        let free = |number: &u8| !names.values().any(|taken| taken == number);
        let Some(number) = fixed.into_iter().chain(FIRST..=254).find(free) else {
            bail!("no address is left in the lab for host `{name}`");
        };
        names.insert(name.to_owned(), number);
        Ok(number)
    }

    pub(crate) fn release(&self, name: &str) {
        self.names().remove(name);
    }

    /// `/etc/hosts` as it must read on each host, so that hosts find each other by name without a name server.
    pub(crate) fn hosts_file(&self) -> String {
        let names = self.names();
        let lines = names.iter().map(|(name, number)| format!("{} {name}\n", address(*number)));
        std::iter::once("127.0.0.1 localhost\n::1 localhost\n".to_owned()).chain(lines).collect()
    }

    pub(crate) fn host_names(&self) -> Vec<String> {
        self.names().keys().cloned().collect()
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, u8>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn address(number: u8) -> String {
    format!("192.0.2.{number}")
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        // The keeper cleans up when this input ends. Should that fail, the holder is killed, which does not depend on
        // anybody's good will.
        drop(keeper.stdin.take());
        let ended = match shell::wait(&mut keeper, TEARDOWN) {
            Ok(None) => self.holder.kill().and_then(|()| shell::wait(&mut keeper, TEARDOWN)),
            ended => ended,
        };
        match ended {
            Ok(Some(_)) => {}
            Ok(None) => eprintln!("lab: {} did not end within {TEARDOWN:?}; `lab clean` removes what is left", self.id),
            Err(error) => eprintln!("lab: failed to tear down {}: {error:#}", self.id),
        }
    }
}

/// The keeper's script starts `unshare`, which starts the first process of the new process namespace.
fn holder_under(keeper: i32) -> Result<Process> {
    let mut at = keeper;
    // `setsid` replaces itself with the script, unless it had to fork; either way the holder is the last of one line.
    while let [child] = process::children(at)?[..] {
        at = child;
    }
    if at == keeper {
        bail!("the lab's keeper has no child");
    }
    Process::of(at)
}

/// A name becomes a host name, a folder and part of a cgroup's name.
fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 40 || name.starts_with('-') || !name.bytes().all(fits) {
        bail!("`{name}` cannot be the name of a lab host: use up to 40 of a-z, 0-9 and `-`");
    }
    Ok(())
}
