//! Changes a name in a directory without losing what somebody writes there at the same moment: what was at the name is taken
//! aside by the same rename(2) that puts the new thing there, looked at, and put back if it is not what was observed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, RenameFlags};
use rustix::io::Errno;
use spec::id::HostPath;
use spec::observed::FileState;

use super::{Disk, DiskError, Prepared, Write, discard, io_error, make_directory, parent, temporary};

/// What came of a swap.
enum Swapped {
    /// What was there is under the temporary name.
    Aside,
    /// The file system cannot swap: what was there is gone.
    Over,
}

impl Disk {
    /// Moves a prepared thing to its name, if what is there still is what was observed.
    pub(super) fn place(
        &mut self,
        write: &Write<'_>,
        prepared: Prepared,
        parents: &mut BTreeMap<HostPath, OwnedFd>,
    ) -> Result<Vec<HostPath>, DiskError> {
        let name = write.path.file_name();
        let state = self.look_in(&prepared.parent, name, write.path);
        self.seen.remove(write.path);
        if !state.as_ref().is_ok_and(|state| state == write.expected) {
            discard(&prepared);
            return Err(state.err().unwrap_or(DiskError::Moved));
        }
        if write.file.kind.is_directory() {
            make_directory(&prepared.parent, name, write.access)?;
        } else if *write.expected == FileState::Absent {
            appear(&prepared, name)?;
        } else {
            self.replace(write, &prepared, name)?;
        }
        if let Some(path) = write.path.parent() {
            parents.insert(path, prepared.parent);
        }
        Ok(prepared.made)
    }

    /// Replaces what is at a name; what turns out to be something else than what was observed is back at the end.
    pub(super) fn replace(&mut self, write: &Write<'_>, prepared: &Prepared, name: &str) -> Result<(), DiskError> {
        let parent = &prepared.parent;
        match exchange(parent, &prepared.temporary, name) {
            Ok(Swapped::Over) => return Ok(()),
            Ok(Swapped::Aside) => {}
            Err(errno) => {
                discard(prepared);
                return Err(moving(errno));
            }
        }
        if self.is_still(parent, &prepared.temporary, write.path, write.expected) {
            return fs::unlinkat(parent, &prepared.temporary, AtFlags::empty())
                .map_err(io_error("remove what was there before"));
        }
        exchange(parent, &prepared.temporary, name).map_err(moving)?;
        discard(prepared);
        Err(DiskError::Moved)
    }

    /// Removes a file or link, if it still is what was observed.
    ///
    /// # Errors
    /// When it changed meanwhile, or the kernel refuses.
    pub fn remove(&mut self, path: &HostPath, expected: &FileState) -> Result<(), DiskError> {
        let parent = parent(path)?.ok_or(DiskError::Moved)?;
        let state = self.look_in(&parent, path.file_name(), path)?;
        self.seen.remove(path);
        if state != *expected {
            return Err(DiskError::Moved);
        }
        self.remove_from(&parent, path, expected)
    }

    /// Removes a name from a directory; what turns out to be something else than what was observed is back at the end.
    pub(super) fn remove_from(
        &mut self,
        parent: &OwnedFd,
        path: &HostPath,
        expected: &FileState,
    ) -> Result<(), DiskError> {
        let (name, aside) = (path.file_name(), temporary(path));
        let name = match fs::renameat_with(parent, name, parent, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => aside.as_str(),
            Err(Errno::INVAL | Errno::NOSYS) => name,
            Err(Errno::NOENT) => return Err(DiskError::Moved),
            Err(errno) => return Err(io_error("remove it")(errno)),
        };
        if name == aside && !self.is_still(parent, name, path, expected) {
            let back = fs::renameat_with(parent, name, parent, path.file_name(), RenameFlags::NOREPLACE);
            return Err(back.map_or_else(io_error("put it back"), |()| DiskError::Moved));
        }
        fs::unlinkat(parent, name, AtFlags::empty()).map_err(io_error("remove it"))?;
        fs::fsync(parent).map_err(io_error("sync its directory"))
    }

    /// Says whether what was taken aside is what was observed. It is read again: its timestamps tell less than usual, since
    /// the rename itself is a change.
    fn is_still(&mut self, parent: &OwnedFd, aside: &str, path: &HostPath, expected: &FileState) -> bool {
        let state = self.look_in(parent, aside, path);
        self.seen.remove(path);
        state.is_ok_and(|state| state == *expected)
    }
}

/// Gives a prepared thing its name; what was absent is not replaced should it have appeared in the last microsecond.
pub(super) fn appear(prepared: &Prepared, name: &str) -> Result<(), DiskError> {
    let (parent, temporary) = (&prepared.parent, &prepared.temporary);
    let done = match fs::renameat_with(parent, temporary, parent, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::renameat(parent, temporary, parent, name),
        done => done,
    };
    done.map_err(|errno| {
        discard(prepared);
        moving(errno)
    })
}

/// Swaps two names; where the file system cannot, the first replaces the second.
fn exchange(parent: &OwnedFd, temporary: &str, name: &str) -> Result<Swapped, Errno> {
    match fs::renameat_with(parent, temporary, parent, name, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Swapped::Aside),
        Err(Errno::INVAL | Errno::NOSYS) => fs::renameat(parent, temporary, parent, name).map(|()| Swapped::Over),
        Err(errno) => Err(errno),
    }
}

/// Says why a rename failed: a name that is gone, or that appeared, was changed by somebody meanwhile.
fn moving(errno: Errno) -> DiskError {
    match errno {
        Errno::NOENT | Errno::EXIST => DiskError::Moved,
        errno => io_error("move it to its name")(errno),
    }
}
