//! One host of a lab: a real Debian with systemd as process 1, on a fresh overlay of the shared root tree.
//!
//! Here is its life, from boot to boot. Its disk is in `disk.rs`, what is done on it in `work.rs` and to it in `outage.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::network::{self, Network};
use crate::process::{self, Process};
use crate::register::{self, HostEntry};
use crate::shell;
use crate::tree::{self, Debian};

/// How long a boot may take, and how long on a machine that has more to do than it can.
const BOOT: Duration = Duration::from_secs(20);
const BOOT_UNDER_LOAD: Duration = Duration::from_secs(40);

/// How long short helper programs and the kernel may take.
pub(crate) const MOMENT: Duration = Duration::from_secs(20);

/// Where a process goes that enters from outside, below the host's own root cgroup.
const VISITORS: &str = "lab.visitors";

/// A host of a lab. Dropping it switches it off and throws its disk away.
pub struct Host {
    pub(crate) name: String,
    number: u8,
    /// The root tree under its disk.
    pub(crate) tree: PathBuf,
    pub(crate) network: Arc<Network>,
    life: Mutex<Option<Life>>,
    /// A pulled cable stays pulled across boots, though every boot brings a new interface.
    pub(crate) is_cut: AtomicBool,
}

/// A host between switching on and off.
struct Life {
    /// `nsenter`, whose child is `systemd-nspawn`, whose child is the host's process 1.
    launcher: Child,
    leader: Process,
    /// Where a process goes that is started on this host from outside.
    cgroup: PathBuf,
}

impl Host {
    /// Makes a host's disk and boots it; `prepare` gets the root directory before the first boot.
    pub(crate) fn boot(
        network: &Arc<Network>,
        name: &str,
        debian: Debian,
        number: Option<u8>,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Host> {
        let tree = tree::ensure(debian)?;
        let number = network.reserve(name, number)?;
        let host = Host {
            name: name.to_owned(),
            number,
            tree,
            network: Arc::clone(network),
            life: Mutex::new(None),
            is_cut: AtomicBool::new(false),
        };
        host.make_disk()?;
        prepare(&host.path_on_machine("/"))?;
        host.start()?;
        let failed = host.failed_units()?;
        if !failed.is_empty() {
            let log = host.sh("systemctl --failed --no-pager; journalctl -b -p warning --no-pager | tail -n 60")?;
            bail!("host `{name}` booted, but failed on it: {}\n{log}", failed.join(" "));
        }
        Ok(host)
    }

    /// Its host name, and its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address in the lab's network.
    pub fn address(&self) -> String {
        network::address(self.number)
    }

    /// The id on the machine of the host's process 1.
    pub fn leader_pid(&self) -> Result<i32> {
        Ok(self.alive()?.0.pid)
    }

    /// Whether it is switched on.
    pub fn is_running(&self) -> bool {
        self.life().as_ref().is_some_and(|life| life.leader.is_alive())
    }

    /// Where the machine sees a path of the host's disk, also while the host is off. What the host mounts on top
    /// (`/run`, `/tmp`, `/proc`) is not there, and absolute symbolic links lead to the machine's files: to read and
    /// write what a running host sees, use [`Host::read`] and [`Host::write`].
    pub fn path_on_machine(&self, inner: &str) -> PathBuf {
        self.network.seen_from_machine(&self.disk().join("mnt")).join(inner.trim_start_matches('/'))
    }

    /// Switches the host on: the first time, or again on the same disk after [`Host::kill`] or [`Host::poweroff`].
    /// Failed units are no error here, since a test may have caused them; see [`Host::failed_units`].
    pub fn start(&self) -> Result<()> {
        if self.is_running() {
            bail!("host `{}` runs already", self.name);
        }
        self.ensure_off()?;
        let patience = patience()?;
        let end = Instant::now() + patience;
        let Err(error) = self.launch(end).and_then(|()| self.wait_until_up(end)) else { return Ok(()) };
        let story = self.last_words();
        self.ensure_off()?;
        Err(anyhow!("host `{}` did not boot, given {patience:?}: {error:#}\n{story}", self.name))
    }

    /// Ends every process at once, as a power cut does. The disk stays; what was written but not synced is kept too,
    /// which a real power cut does not promise.
    pub fn kill(&self) -> Result<()> {
        self.ensure_off().with_context(|| format!("failed to kill host `{}`", self.name))
    }

    /// Shuts the host down in good order.
    pub fn poweroff(&self) -> Result<()> {
        self.leave("poweroff")
    }

    /// Shuts the host down in good order and boots it again.
    pub fn reboot(&self) -> Result<()> {
        self.leave("reboot")?;
        self.start()
    }

    /// A new disk and a new boot: as cheap as any boot, and nothing of an earlier test is left.
    pub fn reset(&self) -> Result<()> {
        self.kill()?;
        self.remove_disk()?;
        self.make_disk()?;
        self.start()
    }

    /// The host's process 1 and the cgroup for visitors.
    pub(crate) fn alive(&self) -> Result<(Process, PathBuf)> {
        match self.life().as_ref() {
            Some(life) if life.leader.is_alive() => Ok((life.leader, life.cgroup.clone())),
            _ => bail!("host `{}` is off; `start` it first", self.name),
        }
    }

    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the lab's mount namespace.
    pub(crate) fn disk(&self) -> PathBuf {
        Path::new("/run/lab").join(&self.name)
    }

    /// What the machine part calls it: an interface name has no room for the host's own name.
    pub(crate) fn machine_name(&self) -> String {
        format!("h{}", self.number)
    }

    fn console(&self) -> PathBuf {
        register::console(&self.network.id, &self.name)
    }

    pub(crate) fn cgroup_in(&self, root: &Path) -> PathBuf {
        root.join(&self.network.id).join(&self.name)
    }

    /// Starts the host's process 1 and waits until its service manager listens.
    fn launch(&self, end: Instant) -> Result<()> {
        let console = File::create(self.console()).context("failed to create the console log")?;
        let mut command = self.nspawn()?;
        command.stdout(console.try_clone().context("failed to share the console log")?).stderr(console);
        let mut launcher = command.spawn().context("failed to start systemd-nspawn")?;
        let found = shell::poll(end.saturating_duration_since(Instant::now()), || {
            if let Some(status) = launcher.try_wait().context("failed to watch systemd-nspawn")? {
                bail!("systemd-nspawn ended: {status}");
            }
            leader_under(process::id(&launcher))
        });
        let found = match found {
            Ok(Some(leader)) => Process::of(leader).and_then(|leader| Ok((leader, self.visitors(leader)?))),
            Ok(None) => Err(anyhow!("its service manager never came up")),
            Err(error) => Err(error),
        };
        match found {
            Ok((leader, cgroup)) => {
                *self.life() = Some(Life { launcher, leader, cgroup: cgroup.clone() });
                self.ensure_cut_as_before()?;
                let (name, address) = (self.name.clone(), self.address());
                register::write_host(&self.network.id, &HostEntry { name, address, leader, cgroup })
            }
            Err(error) => {
                self.end_processes()?;
                shell::kill_group(&mut launcher)?;
                Err(error)
            }
        }
    }

    fn nspawn(&self) -> Result<Command> {
        // Two hosts in one cgroup would fight over it, so the launcher joins the host's own before it starts anything.
        const LAUNCH: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@""#;
        let mut command = shell::command("sh");
        command.args(["-euc", LAUNCH, "launch"]);
        for root in self.network.cgroups.all() {
            let group = self.cgroup_in(root);
            std::fs::create_dir_all(&group).with_context(|| format!("failed to create cgroup {}", group.display()))?;
            command.arg(group);
        }
        command.arg("--").args(["nsenter", "-t", &self.network.holder.pid.to_string(), "-m", "-n", "-i", "-p", "--"]);
        command.args(["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"]);
        command.arg("--directory").arg(self.disk().join("mnt"));
        command.arg(format!("--machine={}", self.machine_name()));
        command.args(["--network-bridge=br0", "--capability=all", "--system-call-filter=@known"]);
        command.args(["--console=read-only", "--bind=/dev/fuse", "--link-journal=no"]);
        command.args(["--resolv-conf=off", "--timezone=off"]);
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        Ok(command)
    }

    /// Makes the cgroup for visitors beside what the host's process 1 made, below the host's own root cgroup.
    fn visitors(&self, leader: Process) -> Result<PathBuf> {
        let file = format!("/proc/{}/cgroup", leader.pid);
        let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
        let inner = text.lines().find_map(|line| line.strip_prefix("0::/")).context("process 1 has no cgroup")?;
        // Process 1 moves itself into `init.scope` below the host's root cgroup.
        let root = inner.strip_suffix("/init.scope").unwrap_or(inner);
        let group = self.network.cgroups.unified.join(root).join(VISITORS);
        std::fs::create_dir_all(&group).with_context(|| format!("failed to create cgroup {}", group.display()))?;
        Ok(group)
    }

    fn wait_until_up(&self, end: Instant) -> Result<()> {
        let mut said = String::new();
        let up = shell::poll(end.saturating_duration_since(Instant::now()), || {
            let left = end.saturating_duration_since(Instant::now());
            // Exits with 1 when `degraded`; only the word counts.
            let asked = shell::output(&mut self.command(&["systemctl", "is-system-running", "--wait"])?, left)?;
            said = shell::said(&asked);
            match String::from_utf8_lossy(&asked.stdout).trim() {
                "running" | "degraded" => Ok(Some(())),
                "maintenance" => bail!("it is in emergency mode"),
                // It does not answer yet.
                _ => Ok(None),
            }
        })?;
        up.with_context(|| format!("its service manager says: {said}"))
    }

    /// What can be learnt of a boot that failed.
    fn last_words(&self) -> String {
        let console = std::fs::read_to_string(self.console())
            .unwrap_or_else(|problem| format!("(the console log cannot be read: {problem})"));
        let ask = "systemctl list-jobs --no-pager; journalctl --boot --no-pager --lines 40";
        let journal = match self.sh_within(Duration::from_secs(5), ask) {
            Ok(text) => text,
            Err(problem) => format!("(nothing: {problem:#})"),
        };
        format!("its console:\n{console}\nits waiting jobs and journal:\n{journal}\n")
    }

    fn leave(&self, how: &str) -> Result<()> {
        // The answer may get lost in what it causes; what counts is that the host goes down.
        let asked = self.try_sh(&format!("systemctl {how}"))?;
        let mut life = self.life();
        let Some(alive) = life.as_mut() else {
            return Ok(());
        };
        let ended = shell::wait(&mut alive.launcher, BOOT_UNDER_LOAD)?;
        drop(life);
        if ended.is_none() {
            bail!("host `{}` did not {how} within {BOOT_UNDER_LOAD:?}: {}", self.name, shell::said(&asked));
        }
        self.ensure_off()
    }

    fn ensure_off(&self) -> Result<()> {
        let life = self.life().take();
        if let Some(mut life) = life {
            life.leader.kill()?;
            // KILL reaches the frozen; what supervises the host has to move again to notice.
            self.ensure_thawed()?;
            if shell::wait(&mut life.launcher, MOMENT)?.is_none() {
                self.end_processes()?;
                shell::kill_group(&mut life.launcher)?;
            }
        }
        self.end_processes()?;
        register::remove_host(&self.network.id, &self.name)
    }

    /// Ends what runs in the host's cgroups, and removes them: the next boot starts with fresh ones.
    fn end_processes(&self) -> Result<()> {
        self.network.cgroups.all().try_for_each(|root| register::remove_cgroup(&self.cgroup_in(root)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A lab being torn down takes its hosts along; this is for one host that goes earlier.
        if self.network.holder.is_alive()
            && let Err(error) = self.kill().and_then(|()| self.remove_disk())
        {
            eprintln!("lab: failed to remove host `{}`: {error:#}", self.name);
        }
        self.network.release(&self.name);
    }
}

/// The host's process 1, once it listens. Below the launcher: `systemd-nspawn`, then the process that is number 1 in
/// a namespace one deeper.
fn leader_under(launcher: i32) -> Result<Option<i32>> {
    for nspawn in process::children(launcher)? {
        for child in process::children(nspawn)? {
            let listens = Path::new("/proc").join(child.to_string()).join("root/run/systemd/private");
            if listens.exists() {
                return Ok(Some(child));
            }
        }
    }
    Ok(None)
}

fn patience() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/loadavg").context("failed to read the machine's load")?;
    let load: f64 = text.split(' ').next().and_then(|load| load.parse().ok()).context("/proc/loadavg has no load")?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(if load > processors as f64 { BOOT_UNDER_LOAD } else { BOOT })
}
