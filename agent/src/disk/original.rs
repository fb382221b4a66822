//! What somebody else left where this agent is about to write or remove, opened so that it can be kept.

use std::fs::File;
use std::io::Seek as _;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Mode as Bits, OFlags, Stat};
use spec::id::HostPath;
use spec::observed::FileState;

use super::{Disk, DiskError, access, digest, io_error, modified, parent, temporary};
use crate::backups::{Original, Source};
use crate::progress::Progress;

impl Disk {
    /// Opens what is at `path` to be kept; its content is compared with what was observed while it is copied.
    ///
    /// # Errors
    /// It is no longer of the kind that was observed, or cannot be opened.
    pub fn original(path: &HostPath, expected: &FileState) -> Result<Original, DiskError> {
        let parent = parent(path)?.ok_or(DiskError::Moved)?;
        let original = open_original(&parent, path.file_name())?;
        match (&original.source, expected) {
            (Source::Regular { .. }, FileState::Regular { digest, .. }) => {
                Ok(Original { expected: Some(*digest), ..original })
            }
            (Source::Symlink { target }, FileState::Symlink { target: seen, .. }) if target == seen => Ok(original),
            _ => Err(DiskError::Moved),
        }
    }

    /// Removes what a killed agent left under temporary names beside these paths; once, since nobody else leaves any. What is
    /// there may be what was taken aside a moment before the kill, so that `keep` sees it first, and has to succeed.
    pub fn ensure_swept<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p HostPath>,
        mut keep: impl FnMut(&HostPath, Original) -> Result<(), String>,
    ) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        for path in paths {
            let Ok(Some(parent)) = parent(path) else { continue };
            let name = temporary(path);
            let kept = match open_original(&parent, &name) {
                Err(DiskError::Moved) => continue,
                Err(error) => Err(crate::chain(&error)),
                Ok(original) => digested(original, self.store.progress()).and_then(|original| keep(path, original)),
            };
            let removed =
                kept.and_then(|()| fs::unlinkat(&parent, &name, AtFlags::empty()).map_err(|errno| errno.to_string()));
            match removed {
                Ok(()) => tracing::info!(%path, "removed an abandoned temporary file"),
                Err(why) => tracing::warn!(%path, "failed to remove an abandoned temporary file: {why}"),
            }
        }
    }
}

/// Reads a file once to know its digest.
fn digested(mut original: Original, progress: &Progress) -> Result<Original, String> {
    if let Source::Regular { file } = &mut original.source {
        let read = file.try_clone().and_then(|file| digest(file, progress));
        original.expected = Some(read.map_err(|error| error.to_string())?);
        file.rewind().map_err(|error| error.to_string())?;
    }
    Ok(original)
}

/// Opens a file, or reads a link; whatever else it is, and nothing, counts as changed meanwhile.
fn open_original(parent: &OwnedFd, name: &str) -> Result<Original, DiskError> {
    let stat = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Err(DiskError::Moved),
        Err(errno) => return Err(io_error("look at it")(errno)),
    };
    let original =
        |stat: &Stat, source| Original { source, access: access(stat), modified: modified(stat), expected: None };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = fs::readlinkat(parent, name, Vec::new()).map_err(io_error("read the link"))?;
            Ok(original(&stat, Source::Symlink { target: target.to_string_lossy().into_owned() }))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = fs::openat(parent, name, flags, Bits::empty()).map_err(io_error("open it"))?;
            let stat = fs::fstat(&file).map_err(io_error("look at it"))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(DiskError::Moved);
            }
            Ok(original(&stat, Source::Regular { file: File::from(file) }))
        }
        _ => Err(DiskError::Moved),
    }
}
