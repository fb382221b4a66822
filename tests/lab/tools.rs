//! Programs that single tests bring along. What stands alone is unpacked from its Debian package and installed nowhere: no
//! service of it is started on the machine.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;

use crate::{machine, shell, tree};

const DEADLINE: Duration = Duration::from_secs(600);

/// Where the programs of Debian's `prometheus` are: `prometheus` and `promtool`.
pub fn prometheus() -> Result<PathBuf> {
    unpacked("prometheus").context("failed to get Prometheus")
}

/// Where the program of Debian's `prometheus-alertmanager` is.
pub fn alertmanager() -> Result<PathBuf> {
    unpacked("prometheus-alertmanager").context("failed to get Alertmanager")
}

/// Unpacks a package once, and returns the folder of its programs.
fn unpacked(package: &str) -> Result<PathBuf> {
    let cache = tree::cache().join("tools");
    std::fs::create_dir_all(&cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).with_context(|| format!("failed to lock {}", cache.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("failed to lock the tools")?;
    let place = cache.join(package);
    if place.exists() {
        return Ok(place.join("usr/bin"));
    }
    let scratch = tempfile::tempdir_in(&cache).context("failed to make a folder for a package")?;
    let download = || {
        let mut command = shell::command("apt-get");
        command.args(["-q", "download", package]).current_dir(scratch.path());
        shell::check(&mut command, DEADLINE)
    };
    // A fresh machine does not know yet where packages are.
    if download().is_err() {
        machine::apt(&["update"])?;
        download()?;
    }
    let files = std::fs::read_dir(scratch.path())?.collect::<Result<Vec<_>, _>>()?;
    let [file] = &files[..] else { bail!("`apt-get download {package}` brought {} files", files.len()) };
    let half = scratch.path().join("half");
    let mut unpack = shell::command("dpkg-deb");
    shell::check(unpack.arg("--extract").arg(file.path()).arg(&half), DEADLINE)?;
    std::fs::rename(&half, &place).with_context(|| format!("failed to rename {}", half.display()))?;
    Ok(place.join("usr/bin"))
}
