//! The register of running labs under `/run/mainstay-lab`: how another process finds a lab's hosts, and what a dead one left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::{self, CgroupRoots};
use crate::process::Process;
use crate::shell;

const REGISTER: &str = "/run/mainstay-lab";
const PREFIX: &str = "mainstay-lab-";

/// A lab: whose it is and what holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) owner: Process,
    pub(crate) holder: Process,
}

/// A running host of a lab.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostEntry {
    /// Its name in its lab.
    pub name: String,
    /// Its address in the lab's network.
    pub address: String,
    /// Its process 1.
    pub leader: Process,
    /// Where a process goes that is started on this host from outside.
    pub cgroup: PathBuf,
}

/// One per lab on this machine: the owner's process id and a count of the labs in that process.
pub(crate) fn id(owner: i32, count: u32) -> String {
    format!("{PREFIX}{owner}-{count}")
}

/// The entry of a lab.
pub(crate) fn folder(id: &str) -> PathBuf {
    Path::new(REGISTER).join(id)
}

/// Where the console of a host is kept.
pub(crate) fn console(id: &str, host: &str) -> PathBuf {
    folder(id).join(format!("{host}.console"))
}

pub(crate) fn write(id: &str, entry: &Entry) -> Result<()> {
    write_json(&folder(id).join("lab"), entry)
}

pub(crate) fn write_host(id: &str, host: &HostEntry) -> Result<()> {
    write_json(&folder(id).join(format!("{}.host", host.name)), host)
}

pub(crate) fn remove_host(id: &str, name: &str) -> Result<()> {
    match std::fs::remove_file(folder(id).join(format!("{name}.host"))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to take host `{name}` off the register"))
        }
        _ => Ok(()),
    }
}

/// All hosts of all running labs, each with its lab's id.
pub fn hosts() -> Result<Vec<(String, HostEntry)>> {
    let mut hosts = Vec::new();
    for id in ids()? {
        for file in list(&folder(&id))? {
            if file.extension().is_some_and(|end| end == "host")
                && let Some(host) = read_json::<HostEntry>(&file)?
                && host.leader.is_alive()
            {
                hosts.push((id.clone(), host));
            }
        }
    }
    Ok(hosts)
}

/// Finds a running host by its name, or by `LAB/NAME` where several labs have one of that name.
pub fn host(wanted: &str) -> Result<HostEntry> {
    let all = hosts()?;
    let full = |id: &str, host: &HostEntry| format!("{id}/{}", host.name);
    let known: Vec<_> = all.iter().map(|(id, host)| full(id, host)).collect();
    let mut matching: Vec<_> =
        all.into_iter().filter(|(id, host)| host.name == wanted || full(id, host) == wanted).collect();
    match (matching.pop(), matching.len()) {
        (Some((_, host)), 0) => Ok(host),
        (Some(_), _) => bail!("several labs have a host `{wanted}`; name one of: {}", known.join(" ")),
        (None, _) if known.is_empty() => bail!("no lab is running; start one with `cargo lab up`"),
        (None, _) => bail!("no host `{wanted}`; running are: {}", known.join(" ")),
    }
}

/// Removes what labs of dead processes left behind, and tells their ids.
pub fn clean() -> Result<Vec<String>> {
    let cgroups = machine::cgroup_roots()?;
    let mut ids = ids()?;
    for root in cgroups.all() {
        let names = list(root)?.into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        ids.extend(names.filter(|name| name.starts_with(PREFIX)));
    }
    ids.sort();
    ids.dedup();
    let mut cleaned = Vec::new();
    for id in ids {
        if ensure_clean(&id, &cgroups).with_context(|| format!("failed to clean up after {id}"))? {
            cleaned.push(id);
        }
    }
    Ok(cleaned)
}

/// Whether there was something to remove: a lab whose owner lives is left alone.
fn ensure_clean(id: &str, cgroups: &CgroupRoots) -> Result<bool> {
    let entry: Option<Entry> = read_json(&folder(id).join("lab"))?;
    let in_use = match &entry {
        Some(entry) => entry.owner.is_alive(),
        // Started this very moment, or killed while it started; the id names the owner.
        None => owner_in(id).is_some_and(|pid| Process::of(pid).is_ok_and(Process::is_alive)),
    };
    if in_use {
        return Ok(false);
    }
    if let Some(entry) = entry {
        entry.holder.kill()?;
    }
    for root in cgroups.all() {
        remove_cgroup(&root.join(id))?;
    }
    match std::fs::remove_dir_all(folder(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("failed to remove its folder"),
        _ => Ok(true),
    }
}

/// Ends every process in a cgroup and those below it, then removes them all.
pub(crate) fn remove_cgroup(group: &Path) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    let kill = group.join("cgroup.kill");
    if kill.exists() {
        std::fs::write(&kill, "1").with_context(|| format!("failed to write {}", kill.display()))?;
    }
    // A cgroup is busy until the kernel has buried the last process.
    let gone = shell::poll(Duration::from_secs(10), || {
        remove_empty(group);
        Ok((!group.exists()).then_some(()))
    })?;
    gone.with_context(|| format!("cgroup {} is still in use", group.display()))
}

/// One attempt: what is busy stays, and the caller looks again.
fn remove_empty(group: &Path) {
    if let Ok(entries) = std::fs::read_dir(group) {
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|entry| remove_empty(&entry.path()));
    }
    if rustix::fs::rmdir(group).is_err() {
        // Busy, or gone by now; either shows in the next look.
    }
}

fn owner_in(id: &str) -> Option<i32> {
    id.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn ids() -> Result<Vec<String>> {
    let folders = list(Path::new(REGISTER))?;
    Ok(folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to list {}", folder.display()));
        }
    };
    let paths: std::io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.with_context(|| format!("failed to list {}", folder.display()))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("failed to spell a register entry")?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).with_context(|| format!("failed to write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("failed to write {}", path.display()))
}

/// `None` when there is no such file.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", path.display()));
        }
    };
    serde_json::from_str(&text).map(Some).with_context(|| format!("failed to understand {}", path.display()))
}
