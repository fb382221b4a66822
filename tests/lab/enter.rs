//! The way into a running host: commands in its namespaces, and files as the host itself sees them.
//!
//! Knows a host only by its leader, the host's process 1 as the machine counts, so that a lab of another process can
//! be entered just the same.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::shell;

/// A command that runs on the host, in the cgroup made for what comes from outside. Without that step it would show
/// up to the host's own tools as a process outside of their world.
pub fn command(leader: i32, cgroup: &Path, program: &[&str]) -> Command {
    through(shell::command("sh"), leader, cgroup, program)
}

/// The same for a person: the command shares the caller's terminal.
pub fn interactive(leader: i32, cgroup: &Path, program: &[&str]) -> Command {
    let mut command = through(shell::foreground("sh"), leader, cgroup, program);
    if let Some(terminal) = std::env::var_os("TERM") {
        command.env("TERM", terminal);
    }
    command
}

fn through(mut command: Command, leader: i32, cgroup: &Path, program: &[&str]) -> Command {
    // The launching shell keeps on when the cgroup is gone: then the host is too, and entering says so.
    const ENTER: &str = r#"echo $$ 2>/dev/null >"$1/cgroup.procs"; leader=$2; shift 2
        exec nsenter -t "$leader" -m -u -i -n -p -C -- "$@""#;
    command.args(["-c", ENTER, "enter"]).arg(cgroup).arg(leader.to_string()).args(program);
    command
}

/// Opens the root directory that a host's process sees, with all that is mounted there.
pub(crate) fn root(leader: i32) -> Result<OwnedFd> {
    open_root(&Path::new("/proc").join(leader.to_string()).join("root"))
}

pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("failed to open the root directory {}", path.display()))
}

/// Reads a file of the host. Symbolic links lead where the host would be led, never to the machine's own files.
pub(crate) fn read(root: &OwnedFd, path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let fd = open(root, Path::new(path), OFlags::RDONLY).with_context(|| format!("failed to open {path}"))?;
    File::from(fd).read_to_end(&mut bytes).with_context(|| format!("failed to read {path}"))?;
    Ok(bytes)
}

/// Writes a file of the host, in place, with the directories it needs; a new one belongs to root with mode 0644.
pub(crate) fn write(root: &OwnedFd, path: &str, bytes: &[u8]) -> Result<()> {
    create(root, path)?.write_all(bytes).with_context(|| format!("failed to write {path}"))
}

/// Opens a file of the host for writing, emptied.
pub(crate) fn create(root: &OwnedFd, path: &str) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let path = Path::new(path);
    let opened = match open(root, path, flags) {
        Err(Errno::NOENT) => {
            ensure_directories(root, path.parent().unwrap_or(Path::new("/")))?;
            open(root, path, flags)
        }
        other => other,
    };
    Ok(File::from(opened.with_context(|| format!("failed to create {}", path.display()))?))
}

fn ensure_directories(root: &OwnedFd, path: &Path) -> Result<()> {
    let mut above = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        ensure_directory(root, &above, name).with_context(|| format!("failed to create {}", path.display()))?;
        above.push(name);
    }
    Ok(())
}

fn ensure_directory(root: &OwnedFd, above: &Path, name: &OsStr) -> rustix::io::Result<()> {
    let above = open(root, above, OFlags::PATH | OFlags::DIRECTORY)?;
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // The kernel takes a mode with no other flag than CREATE.
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    // AGAIN: a rename anywhere on the machine raced with the walk, which then has to start over.
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
