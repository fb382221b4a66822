//! Reads the machine's process table: who is whose child, and whether an id still means the same process.

use std::path::Path;
use std::process::Child;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id as the machine counts.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub since: u64,
}

impl Process {
    pub(crate) fn of(pid: i32) -> Result<Process> {
        let since = stat(pid).with_context(|| format!("no process {pid}"))?.since;
        Ok(Process { pid, since })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.since == self.since && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Kills it unless it is gone already.
    pub(crate) fn kill(self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a process id is not zero")?;
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("failed to kill process {}", self.pid)),
        }
    }
}

/// This process.
pub(crate) fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// A child's id in the form that everything here uses.
pub(crate) fn id(child: &Child) -> i32 {
    Pid::from_child(child).as_raw_nonzero().get()
}

/// The children of a process, in no particular order.
pub(crate) fn children(of: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("failed to list /proc")? {
        let entry = entry.context("failed to list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if stat(pid).is_some_and(|stat| stat.parent == of) {
            found.push(pid);
        }
    }
    Ok(found)
}

struct Stat {
    state: char,
    parent: i32,
    since: u64,
}

/// `None` when the process is gone.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in brackets may hold anything, brackets and spaces included; the last one ends it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        since: fields.nth(17)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_its_children() {
        let own = own();
        assert!(Process::of(own).unwrap().is_alive());
        assert!(!Process { pid: own, since: 1 }.is_alive());
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(children(own).unwrap().contains(&(id(&child))));
        Process::of(id(&child)).unwrap().kill().unwrap();
        child.wait().unwrap();
    }
}
