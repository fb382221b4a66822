//! Brings something back that was kept, at any path: whole, with its mode, owner and time, and never through a link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Gid, Mode as Bits, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use spec::id::HostPath;

use super::{Disk, DiskError, io_error, parent, temporary};
use crate::backups::{Entry, Kind};

/// What happens to what is at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing may be there.
    Nothing,
    /// It is replaced.
    Anything,
}

impl Disk {
    /// Makes `path` what `entry` was; `fill` writes the content of a regular file.
    ///
    /// # Errors
    /// Something is there that must not be replaced, the directory is missing, or the kernel refuses.
    pub fn bring_back(
        path: &HostPath,
        entry: &Entry,
        over: Over,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        let missing = || DiskError::Io("open its directory", io::ErrorKind::NotFound.into());
        let parent = parent(path)?.ok_or_else(missing)?;
        // Not the name that the agent uses: it may be at work beside us.
        let new = format!("{}.restored", temporary(path));
        match fs::unlinkat(&parent, &new, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(io_error("remove an abandoned temporary file")(errno)),
        }
        let made = make(&parent, &new, entry, fill).and_then(|()| name_it(&parent, &new, path, over));
        if made.is_err()
            && let Err(errno) = fs::unlinkat(&parent, &new, AtFlags::empty())
        {
            tracing::debug!(name = new, %errno, "there is no temporary file to remove");
        }
        made
    }
}

fn make(
    parent: &OwnedFd,
    new: &str,
    entry: &Entry,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), DiskError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    if let Kind::Symlink { target } = &entry.kind {
        fs::symlinkat(target.as_str(), parent, new).map_err(io_error("create a temporary link"))?;
        return fs::chownat(parent, new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("set its owner"));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor =
        fs::openat(parent, new, flags, Bits::RUSR | Bits::WUSR).map_err(io_error("create a temporary file"))?;
    let mut file = File::from(descriptor);
    fill(&mut file).map_err(|error| DiskError::Io("write its content", error))?;
    fs::fchown(&file, Some(uid), Some(gid)).map_err(io_error("set its owner"))?;
    fs::fchmod(&file, Bits::from_raw_mode(entry.mode)).map_err(io_error("set its mode"))?;
    let written =
        Timespec { tv_sec: entry.modified.as_second(), tv_nsec: entry.modified.subsec_nanosecond().max(0).into() };
    fs::futimens(&file, &Timestamps { last_access: written, last_modification: written })
        .map_err(io_error("set its time"))?;
    file.sync_all().map_err(|error| DiskError::Io("sync it to disk", error))
}

fn name_it(parent: &OwnedFd, new: &str, path: &HostPath, over: Over) -> Result<(), DiskError> {
    let flags = match over {
        Over::Nothing => RenameFlags::NOREPLACE,
        Over::Anything => RenameFlags::empty(),
    };
    fs::renameat_with(parent, new, parent, path.file_name(), flags).map_err(io_error("move it to its name"))?;
    fs::fsync(parent).map_err(io_error("sync its directory"))
}
