//! What a test does on a host: run programs, read and write files, wait for something to become true.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Host, enter, shell};

/// How long any one program on a host may take, unless the caller says otherwise.
const DEADLINE: Duration = Duration::from_secs(120);

impl Host {
    /// A command in the host's namespaces, for what the methods below do not cover; it does not run yet.
    pub fn command(&self, program: &[&str]) -> Result<Command> {
        let (leader, cgroup) = self.alive()?;
        Ok(enter::command(leader.pid, &cgroup, program))
    }

    /// Runs a program to its end, whatever its exit status.
    pub fn run(&self, program: &[&str]) -> Result<Output> {
        shell::output(&mut self.command(program)?, DEADLINE).with_context(|| self.on())
    }

    /// Runs a bash script that stops at its first failure, and returns what it printed; a failure is an error with
    /// all that was said on both outputs.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.sh_within(DEADLINE, script)
    }

    /// As [`Host::sh`], with a deadline of its own.
    pub fn sh_within(&self, deadline: Duration, script: &str) -> Result<String> {
        let output = shell::output(&mut self.command(&bash(script))?, deadline);
        let output = output.with_context(|| self.on())?;
        if !output.status.success() {
            bail!("{}: {}: {script}\n{}", self.on(), output.status, shell::said(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a bash script that may fail.
    pub fn try_sh(&self, script: &str) -> Result<Output> {
        self.run(&bash(script))
    }

    /// Starts a program and leaves it running; its standard output is a pipe, and it ends with the value returned.
    pub fn spawn(&self, program: &[&str]) -> Result<Running> {
        let mut command = self.command(program)?;
        let child = command.stdout(Stdio::piped()).spawn().with_context(|| self.on())?;
        Ok(Running(child))
    }

    /// Runs a script again and again until it succeeds; the error tells what it said last.
    pub fn wait_for(&self, deadline: Duration, script: &str) -> Result<String> {
        let mut last = String::from("(it never ran)");
        let answer = shell::poll(deadline, || {
            let output = self.try_sh(script)?;
            last = shell::said(&output);
            Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
        })?;
        answer.with_context(|| format!("{}: not true within {deadline:?}: {script}\nsaid last: {last}", self.on()))
    }

    /// Names of the units that have failed.
    pub fn failed_units(&self) -> Result<Vec<String>> {
        let units = self.sh("systemctl list-units --state=failed --plain --no-legend --full")?;
        Ok(units.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect())
    }

    /// Writes a file as the host sees it, with the directories it needs. Mode and owner of a file that is there stay;
    /// a new one belongs to root with mode 0644.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        enter::write(&self.root()?, path, bytes.as_ref()).with_context(|| self.on())
    }

    /// Reads a file as the host sees it.
    pub fn read(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read_bytes(path)?).with_context(|| format!("{}: {path} is not text", self.on()))
    }

    /// As [`Host::read`], for any bytes.
    pub fn read_bytes(&self, path: &str) -> Result<Vec<u8>> {
        enter::read(&self.root()?, path).with_context(|| self.on())
    }

    /// Copies a file of the machine to the host; its mode comes along, its owner is root.
    pub fn copy_in(&self, local: &Path, path: &str) -> Result<()> {
        let mut from = std::fs::File::open(local).with_context(|| format!("failed to open {}", local.display()))?;
        let mode = from.metadata().with_context(|| format!("failed to look at {}", local.display()))?.permissions();
        let mut to = enter::create(&self.root()?, path).with_context(|| self.on())?;
        std::io::copy(&mut from, &mut to).with_context(|| format!("{}: failed to copy to {path}", self.on()))?;
        to.set_permissions(mode).with_context(|| format!("{}: failed to set the mode of {path}", self.on()))
    }

    /// Installs a Debian package of the machine; what it depends on must be in the root tree already.
    pub fn install_deb(&self, local: &Path) -> Result<String> {
        self.copy_in(local, "/tmp/lab.deb")?;
        self.sh("DEBIAN_FRONTEND=noninteractive dpkg --install /tmp/lab.deb && rm /tmp/lab.deb")
    }

    /// Starts Docker, which a fresh host has but does not run.
    pub fn start_docker(&self) -> Result<()> {
        self.sh("systemctl start docker.socket docker.service").map(drop)
    }

    /// The public part of the host's ssh key, as in `/etc/ssh`.
    pub fn ssh_host_key(&self) -> Result<String> {
        let path = self.path_on_machine("/etc/ssh/ssh_host_ed25519_key.pub");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(key)) => Ok(format!("{kind} {key}")),
            _ => bail!("{} holds no key", path.display()),
        }
    }

    /// The host's root directory; of its disk alone while the host is off.
    fn root(&self) -> Result<std::os::fd::OwnedFd> {
        match self.alive() {
            Ok((leader, _)) => enter::root(leader.pid),
            Err(_) => enter::open_root(&self.path_on_machine("/")),
        }
    }

    fn on(&self) -> String {
        format!("on host `{}`", self.name())
    }
}

/// A program that runs on a host until it ends by itself or this value is dropped.
pub struct Running(Child);

impl Running {
    /// Ends it, and what it started.
    pub fn end(mut self) -> Result<()> {
        shell::kill_group(&mut self.0)
    }
}

impl Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = shell::kill_group(&mut self.0) {
            eprintln!("lab: failed to end a program: {error:#}");
        }
    }
}

fn bash(script: &str) -> [&str; 6] {
    ["bash", "-e", "-o", "pipefail", "-c", script]
}
