//! The host's files, handled by descriptor: no path is followed through a symbolic link, what is written is written
//! whole and durably, and what is replaced or removed still is what was observed.
//!
//! Parents are opened with openat2(2) `RESOLVE_NO_SYMLINKS`, and every change is made relative to that descriptor, so
//! swapping a directory for a link between the look and the write leads nowhere (CVE-2018-15687 and its relatives).
//! A new content goes into a temporary file beside its target, created 0600, given its owner and mode, synced, and only
//! then swapped with it; nobody ever sees half a file or a wider mode, and what was there is looked at once more before it
//! goes, so that no edit is lost.

mod original;
mod restored;
mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode as Bits, OFlags, ResolveFlags, Stat, Uid, XattrFlags};
use sha2::{Digest as _, Sha256};
use spec::desired::{DesiredFile, FileKind};
use spec::digest::Digest;
use spec::id::{AppName, HostPath, Mode};
use spec::observed::{Access, FileState};

use crate::progress::Progress;
use crate::store::Store;

pub use restored::Over;

/// The extended attribute that marks a file as ours: `FLEET/APP/PATH-DIGEST`, so that a copy elsewhere is not taken for
/// ours. A `user.*` attribute, since `trusted.*` needs a capability that the hardened unit gives up (xattr(7)); the
/// ledger comes first, and nothing is ever removed for its mark alone.
const MARK: &str = "user.mainstay.owner";
/// A managed file larger than this is not read.
const LARGEST: u64 = spec::artifact::MOST;
/// After so many bytes of a file it is said that the agent gets on.
const LONG: u64 = 64 << 20;
/// From this many files on, one syncfs(2) per file system is cheaper than an fsync(2) per file.
const SYNCFS_FROM: usize = 6;
/// So many bytes are read while systemd and the engine think: a moment, also on a slow machine.
const WHILE_OTHERS_THINK: u64 = 16 << 20;
/// A file changed less than this before it was read may change again without its timestamps showing it.
const RACY: Duration = Duration::from_millis(50);

/// Why a file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The path leads through a symbolic link.
    #[error("{0} is a symbolic link; name the directory it points to instead, mainstay does not follow links")]
    Link(String),
    /// Somebody changed it between the look and the change; the next pass looks again.
    #[error("it changed while this plan was made; nothing was overwritten, the next pass looks again")]
    Moved,
    /// It has to be read anew, and that would take longer than this look may.
    #[error("reading it takes long")]
    Long,
    /// The kernel refused.
    #[error("failed to {0}")]
    Io(&'static str, #[source] io::Error),
}

fn io_error(doing: &'static str) -> impl Fn(rustix::io::Errno) -> DiskError {
    move |errno| DiskError::Io(doing, errno.into())
}

/// Reads and changes files, and remembers digests so that an unchanged file costs one stat.
#[derive(Default)]
pub struct Disk {
    fleet: String,
    store: Store,
    seen: BTreeMap<HostPath, Seen>,
    swept: bool,
    /// How many bytes this look may still read; `None` for all that there are.
    spare: Option<u64>,
}

/// What a file was when it was read: a stat that says the same means the content is the same.
struct Seen {
    identity: Identity,
    digest: Digest,
    mark: Option<AppName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Identity {
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
    fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Says whether the file was left alone for long enough before `now` that its timestamps tell of any change.
    fn is_settled(&self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed =
            Duration::new(u64::try_from(self.changed.0).unwrap_or(0), u32::try_from(self.changed.1).unwrap_or(0));
        changed + RACY < since
    }
}

/// One file to put in place.
pub struct Write<'a> {
    /// Where.
    pub path: &'a HostPath,
    /// What.
    pub file: &'a DesiredFile,
    /// With which owner and mode.
    pub access: Access,
    /// What was observed there.
    pub expected: &'a FileState,
    /// The application it belongs to.
    pub app: &'a AppName,
}

impl Disk {
    /// Makes one for a fleet, whose name is part of every mark; artifacts come out of `store`.
    pub fn new(fleet: &str, store: Store) -> Disk {
        Disk { fleet: fleet.to_owned(), store, seen: BTreeMap::new(), swept: false, spare: None }
    }

    /// Looks at a path.
    pub fn look(&mut self, path: &HostPath) -> FileState {
        self.look_beside(path, &mut Beside::default())
    }

    /// Looks at a path that may be in the same directory as the one looked at before. For a look at everything only:
    /// what is about to be changed is looked at anew, from the root.
    fn look_beside(&mut self, path: &HostPath, beside: &mut Beside) -> FileState {
        match self.try_look(path, beside) {
            Ok(state) => state,
            Err(error) => FileState::Unknown(crate::chain(&error)),
        }
    }

    /// Looks at many paths for which a moment is enough, while others are waited for; returns the paths that are left,
    /// since they have to be read and are long. Reading keeps the loop from turning: an answer that arrives meanwhile
    /// would be heard only when its deadline has passed.
    pub fn look_quickly<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p HostPath>,
        found: &mut BTreeMap<HostPath, FileState>,
    ) -> Vec<&'p HostPath> {
        self.spare = Some(WHILE_OTHERS_THINK);
        let (mut beside, mut left) = (Beside::default(), Vec::new());
        for path in paths {
            match self.try_look(path, &mut beside) {
                Err(DiskError::Long) => left.push(path),
                Ok(state) => drop(found.insert(path.clone(), state)),
                Err(error) => drop(found.insert(path.clone(), FileState::Unknown(crate::chain(&error)))),
            }
        }
        self.spare = None;
        left
    }

    fn try_look(&mut self, path: &HostPath, beside: &mut Beside) -> Result<FileState, DiskError> {
        match beside.directory_of(path)? {
            Some(parent) => self.look_in(parent, path.file_name(), path),
            None => Ok(FileState::Absent),
        }
    }

    /// Looks at a name in an open directory; it stands for `path`, where it is or is about to be.
    fn look_in(&mut self, parent: &OwnedFd, name: &str, path: &HostPath) -> Result<FileState, DiskError> {
        let stat = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(FileState::Absent),
            Err(errno) => return Err(io_error("look at it")(errno)),
        };
        let access = access(&stat);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let (digest, mark) = self.content(path, parent, name, &stat)?;
                FileState::Regular { digest, access, modified: modified(&stat), mark }
            }
            FileType::Symlink => {
                let target = fs::readlinkat(parent, name, Vec::new()).map_err(io_error("read the link"))?;
                FileState::Symlink { target: target.to_string_lossy().into_owned(), access }
            }
            FileType::Directory => FileState::Directory { access, empty: is_empty(parent, name)? },
            _ => FileState::Other,
        })
    }

    /// Returns the digest and the mark of a regular file, from what is remembered where a stat proves it unchanged.
    fn content(
        &mut self,
        path: &HostPath,
        parent: &OwnedFd,
        name: &str,
        stat: &Stat,
    ) -> Result<(Digest, Option<AppName>), DiskError> {
        let identity = Identity::of(stat);
        if let Some(seen) = self.seen.get(path).filter(|seen| seen.identity == identity) {
            return Ok((seen.digest, seen.mark.clone()));
        }
        let now = SystemTime::now();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::openat(parent, name, flags, Bits::empty()).map_err(io_error("open it"))?;
        let opened = fs::fstat(&file).map_err(io_error("look at it"))?;
        if let Some(spare) = &mut self.spare {
            *spare = spare.checked_sub(u64::try_from(opened.st_size).unwrap_or(0)).ok_or(DiskError::Long)?;
        }
        let mark = self.mark(path, &file);
        let digest =
            digest(File::from(file), self.store.progress()).map_err(|error| DiskError::Io("read it", error))?;
        self.seen.remove(path);
        if Identity::of(&opened) == identity && identity.is_settled(now) {
            self.seen.insert(path.clone(), Seen { identity, digest, mark: mark.clone() });
        }
        Ok((digest, mark))
    }

    fn mark(&self, path: &HostPath, file: &OwnedFd) -> Option<AppName> {
        let mut buffer = [0_u8; 256];
        let length = fs::fgetxattr(file, MARK, &mut buffer[..]).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        let (app, at) = text.strip_prefix(self.fleet.as_str())?.strip_prefix('/')?.split_once('/')?;
        if at != place(path) {
            return None;
        }
        AppName::parse(app).ok()
    }

    /// Says whether a path exists; links are not followed and count as existing.
    pub fn exists(path: &HostPath, beside: &mut Beside) -> bool {
        match beside.directory_of(path) {
            Ok(Some(parent)) => fs::statat(parent, path.file_name(), AtFlags::SYMLINK_NOFOLLOW).is_ok(),
            Ok(None) | Err(_) => false,
        }
    }

    /// Names the directories above `path` that do not exist yet, the uppermost last.
    pub fn missing_parents(path: &HostPath) -> Vec<HostPath> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(folder) =
            above.filter(|folder| open_directory(folder.as_str()).err() == Some(rustix::io::Errno::NOENT))
        {
            above = folder.parent();
            missing.push(folder);
        }
        missing
    }

    /// Reads a regular file for a diff; `None` when it is not one or is larger than `most` bytes.
    pub fn read(path: &HostPath, most: u64) -> Option<Vec<u8>> {
        let parent = parent(path).ok()??;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(fs::openat(&parent, path.file_name(), flags, Bits::empty()).ok()?);
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        let mut content = Vec::new();
        (length <= most).then_some(())?;
        file.take(most).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Puts many files in place: all are prepared and synced before the first is renamed. Returns, for each, the parent
    /// directories that were made for it.
    pub fn write(&mut self, writes: &[Write<'_>]) -> Vec<Result<Vec<HostPath>, DiskError>> {
        let prepared: Vec<_> = writes.iter().map(|write| self.prepare(write)).collect();
        let each = writes.len() < SYNCFS_FROM;
        let synced = sync_files(prepared.iter().flatten(), each);
        let mut parents = BTreeMap::new();
        let mut results = Vec::new();
        for (write, prepared) in writes.iter().zip(prepared) {
            let result = prepared.and_then(|prepared| {
                if let Err(error) = &synced {
                    discard(&prepared);
                    return Err(DiskError::Io("sync it to disk", io::Error::new(error.kind(), error.to_string())));
                }
                self.place(write, prepared, &mut parents)
            });
            results.push(result);
        }
        for (parent, descriptor) in parents {
            if let Err(errno) = fs::fsync(&descriptor) {
                for (write, result) in writes.iter().zip(&mut results) {
                    if write.path.parent().as_ref() == Some(&parent) && result.is_ok() {
                        *result = Err(io_error("sync its directory")(errno));
                    }
                }
            }
        }
        results
    }

    /// Makes the new thing under a temporary name. Directories are made in place: they cannot replace anything.
    fn prepare(&self, write: &Write<'_>) -> Result<Prepared, DiskError> {
        let mut made = Vec::new();
        let parent = ensure_parent(write.path, &mut made)?;
        let temporary = temporary(write.path);
        let mut prepared = Prepared { parent, temporary, file: None, made };
        match fs::unlinkat(&prepared.parent, &prepared.temporary, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(io_error("remove an abandoned temporary file")(errno)),
        }
        let done = match &write.file.kind {
            FileKind::Regular { content, .. } => self.fill(write, &prepared, |file| file.write_all(content)).map(Some),
            FileKind::Artifact { digest, .. } => {
                self.fill(write, &prepared, |file| self.store.copy_out(*digest, file)).map(Some)
            }
            FileKind::Symlink { target } => link(write, &prepared, target).map(|()| None),
            FileKind::Directory | FileKind::Archive { .. } => Ok(None),
        };
        match done {
            Ok(file) => prepared.file = file,
            Err(error) => {
                discard(&prepared);
                return Err(error);
            }
        }
        Ok(prepared)
    }

    fn fill(
        &self,
        write: &Write<'_>,
        prepared: &Prepared,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<File, DiskError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = fs::openat(&prepared.parent, &prepared.temporary, flags, Bits::RUSR | Bits::WUSR)
            .map_err(io_error("create a temporary file"))?;
        let mut file = File::from(descriptor);
        content(&mut file).map_err(|error| DiskError::Io("write its content", error))?;
        let (uid, gid) = ids(write.access);
        fs::fchown(&file, Some(uid), Some(gid)).map_err(io_error("set its owner"))?;
        fs::fchmod(&file, Bits::from_raw_mode(write.access.mode.bits())).map_err(io_error("set its mode"))?;
        let mark = format!("{}/{}/{}", self.fleet, write.app, place(write.path));
        if let Err(errno) = fs::fsetxattr(&file, MARK, mark.as_bytes(), XattrFlags::empty()) {
            // The ledger says whose it is; the mark only helps when the ledger is lost.
            tracing::debug!(path = %write.path, %errno, "this file system keeps no mark");
        }
        Ok(file)
    }

    /// Sets owner and mode, if the content still is what was observed. Looks at and changes one open file: by name, whoever
    /// may write to its directory could put another name of a secret in its place in between (CVE-2013-4969).
    ///
    /// # Errors
    /// When it changed meanwhile, or the kernel refuses.
    pub fn set_access(&mut self, path: &HostPath, access: Access, expected: &FileState) -> Result<(), DiskError> {
        let is_link = matches!(expected, FileState::Symlink { .. });
        let how = if is_link { OFlags::PATH } else { OFlags::RDONLY | OFlags::NONBLOCK };
        let parent = parent(path)?.ok_or(DiskError::Moved)?;
        let thing = fs::openat(&parent, path.file_name(), how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Bits::empty());
        let thing = match thing {
            Ok(thing) => thing,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Err(DiskError::Moved),
            Err(errno) => return Err(io_error("open it")(errno)),
        };
        // What is in a directory is nothing to its own access, and the same plan may just have filled or emptied it.
        let same = match (self.state(path, &thing)?, expected) {
            (FileState::Directory { access: is, .. }, FileState::Directory { access: was, .. }) => is == *was,
            (is, was) => is == *was,
        };
        if !same {
            return Err(DiskError::Moved);
        }
        let (uid, gid) = ids(access);
        fs::chownat(&thing, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(io_error("set its owner"))?;
        if !is_link {
            fs::fchmod(&thing, Bits::from_raw_mode(access.mode.bits())).map_err(io_error("set its mode"))?;
            fs::fsync(&thing).map_err(io_error("sync it to disk"))?;
        }
        self.seen.remove(path);
        Ok(())
    }

    /// Looks at something open, remembering nothing.
    fn state(&self, path: &HostPath, thing: &OwnedFd) -> Result<FileState, DiskError> {
        let stat = fs::fstat(thing).map_err(io_error("look at it"))?;
        let access = access(&stat);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = thing.try_clone().map_err(|error| DiskError::Io("open it", error))?;
                let digest =
                    digest(File::from(file), self.store.progress()).map_err(|error| DiskError::Io("read it", error))?;
                FileState::Regular { digest, access, modified: modified(&stat), mark: self.mark(path, thing) }
            }
            FileType::Symlink => {
                let target = fs::readlinkat(thing, "", Vec::new()).map_err(io_error("read the link"))?;
                FileState::Symlink { target: target.to_string_lossy().into_owned(), access }
            }
            FileType::Directory => FileState::Directory { access, empty: is_empty(thing, ".")? },
            _ => FileState::Other,
        })
    }

    /// Removes a directory if it is empty; says whether it is gone.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that something is in it.
    pub fn remove_directory(path: &HostPath) -> Result<bool, DiskError> {
        let Some(parent) = parent(path)? else { return Ok(true) };
        match fs::unlinkat(&parent, path.file_name(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::BUSY) => Ok(false),
            Err(errno) => Err(io_error("remove it")(errno)),
        }
    }

    /// Forgets what is remembered of paths that no longer matter.
    pub fn keep_only(&mut self, paths: &BTreeSet<&HostPath>) {
        self.seen.retain(|path, _| paths.contains(path));
    }
}

/// The directory looked into last. Paths that come in order mostly share it with their neighbours, and then cost one
/// system call instead of three.
#[derive(Default)]
pub struct Beside(Option<(String, Option<OwnedFd>)>);

impl Beside {
    /// Returns the directory that holds `path`; `None` when it does not exist.
    fn directory_of(&mut self, path: &HostPath) -> Result<Option<&OwnedFd>, DiskError> {
        let folder = path.as_str().strip_suffix(path.file_name()).unwrap_or_default();
        if self.0.as_ref().is_none_or(|(last, _)| last != folder) {
            self.0 = None;
            let directory = parent(path)?;
            self.0 = Some((folder.to_owned(), directory));
        }
        Ok(self.0.as_ref().and_then(|(_, directory)| directory.as_ref()))
    }
}

/// Stands for a path where a short name is needed.
fn place(path: &HostPath) -> String {
    Digest::of(path.as_str().as_bytes()).short()
}

/// A thing under its temporary name.
struct Prepared {
    parent: OwnedFd,
    temporary: String,
    file: Option<File>,
    made: Vec<HostPath>,
}

/// The name under which a path's new content is prepared, beside it.
fn temporary(path: &HostPath) -> String {
    format!(".{}.mainstay", place(path))
}

fn discard(prepared: &Prepared) {
    if let Err(errno) = fs::unlinkat(&prepared.parent, &prepared.temporary, AtFlags::empty())
        && errno != rustix::io::Errno::NOENT
    {
        tracing::warn!(name = prepared.temporary, %errno, "failed to remove a temporary file");
    }
}

fn link(write: &Write<'_>, prepared: &Prepared, target: &str) -> Result<(), DiskError> {
    fs::symlinkat(target, &prepared.parent, &prepared.temporary).map_err(io_error("create a temporary link"))?;
    let (uid, gid) = ids(write.access);
    fs::chownat(&prepared.parent, &prepared.temporary, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io_error("set its owner"))
}

fn make_directory(parent: &OwnedFd, name: &str, access: Access) -> Result<(), DiskError> {
    fs::mkdirat(parent, name, Bits::RWXU).map_err(io_error("make the directory"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Bits::empty()).map_err(io_error("open it"))?;
    let (uid, gid) = ids(access);
    fs::fchown(&directory, Some(uid), Some(gid)).map_err(io_error("set its owner"))?;
    fs::fchmod(&directory, Bits::from_raw_mode(access.mode.bits())).map_err(io_error("set its mode"))
}

fn ids(access: Access) -> (Uid, Gid) {
    (Uid::from_raw(access.uid), Gid::from_raw(access.gid))
}

fn access(stat: &Stat) -> Access {
    Access { mode: Mode::from_bits(stat.st_mode), uid: stat.st_uid, gid: stat.st_gid }
}

fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::MAX)
}

/// Opens the directory that holds `path`; `None` when it does not exist.
fn parent(path: &HostPath) -> Result<Option<OwnedFd>, DiskError> {
    let Some(parent) = path.parent() else {
        return open_directory("/").map(Some).map_err(io_error("open /"));
    };
    match open_directory(parent.as_str()) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::LOOP) => Err(DiskError::Link(first_link(&parent))),
        Err(errno) => Err(io_error("open its directory")(errno)),
    }
}

fn open_directory(path: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(fs::CWD, path, flags, Bits::empty(), resolve) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            done => return done,
        }
    }
}

/// Names the first component that is a link, for the message.
fn first_link(path: &HostPath) -> String {
    let mut prefix = String::new();
    for component in path.as_str().split('/').skip(1) {
        prefix = format!("{prefix}/{component}");
        let is_link = std::fs::symlink_metadata(&prefix).is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            return prefix;
        }
    }
    path.to_string()
}

/// Opens the directory that holds `path`, making what is missing: 0755, owned by root, noted in `made`.
fn ensure_parent(path: &HostPath, made: &mut Vec<HostPath>) -> Result<OwnedFd, DiskError> {
    if let Some(descriptor) = parent(path)? {
        return Ok(descriptor);
    }
    let Some(folder) = path.parent() else { return open_directory("/").map_err(io_error("open /")) };
    let above = ensure_parent(&folder, made)?;
    let mode = Bits::RWXU | Bits::RGRP | Bits::XGRP | Bits::ROTH | Bits::XOTH;
    match fs::mkdirat(&above, folder.file_name(), mode) {
        Ok(()) => {
            // By descriptor: whoever owns the directory above could have put a link in its place by now.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory =
                fs::openat(&above, folder.file_name(), flags, Bits::empty()).map_err(io_error("open a directory"))?;
            fs::fchmod(&directory, mode).map_err(io_error("set a directory's mode"))?;
            fs::fsync(&above).map_err(io_error("sync a directory"))?;
            made.push(folder.clone());
        }
        Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(io_error("make its directory")(errno)),
    }
    parent(path)?.ok_or(DiskError::Moved)
}

fn is_empty(parent: &OwnedFd, name: &str) -> Result<bool, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Bits::empty()).map_err(io_error("open it"))?;
    let mut entries = fs::Dir::read_from(&directory).map_err(io_error("list it"))?;
    let dots = [CString::from(c"."), CString::from(c"..")];
    Ok(!entries.any(|entry| entry.is_ok_and(|entry| !dots.iter().any(|dot| dot.as_c_str() == entry.file_name()))))
}

fn digest(mut file: File, progress: &Progress) -> io::Result<Digest> {
    let length = file.metadata()?.len();
    if length > LARGEST {
        return Err(io::Error::other(format!(
            "it has {length} bytes, more than the {LARGEST} that a managed file may have"
        )));
    }
    let mut hasher = Sha256::new();
    let mut buffer = [0; 16 << 10];
    let mut unsaid = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                unsaid += length as u64;
                if unsaid >= LONG {
                    unsaid = 0;
                    progress.mark_at_work();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Syncs prepared files: each on its own, or each file system once.
fn sync_files<'a>(prepared: impl Iterator<Item = &'a Prepared>, each: bool) -> io::Result<()> {
    let mut devices = BTreeSet::new();
    for file in prepared.filter_map(|prepared| prepared.file.as_ref()) {
        if each {
            file.sync_all()?;
        } else if devices.insert(fs::fstat(file)?.st_dev) {
            fs::syncfs(file.as_fd())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
