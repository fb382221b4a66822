//! What somebody else had written where the agent overwrites or removes: kept in the state folder before it goes, durably,
//! and given back by `mainstay restore`.
//!
//! One small file of JSON per backup and one file per content, named by its digest: there is no index that a crash could
//! tear, and the same bytes are held once. Only root may look into the folder, whatever the modes were of what is in it.
//! Bounded by count, bytes and age; what goes first is the oldest edit, and last what was taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spec::digest::{Digest, Fields};
use spec::id::{AppName, HostPath};
use spec::observed::Access;
use tempfile::NamedTempFile;

/// The version of an entry's format.
const VERSION: u32 = 1;
/// The folder in the state folder.
const FOLDER: &str = "backups";
/// An entry is a few hundred bytes; a file that is longer is none.
const LONGEST_ENTRY: u64 = 64 << 10;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At most so many backups.
    pub count: usize,
    /// At most so many bytes altogether; a file that is larger cannot be kept, and so is not overwritten.
    pub bytes: u64,
    /// For at most so long.
    pub age: Duration,
}

/// Why something could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is larger than everything that may be kept.
    #[error(
        "it has {size} bytes, more than the {bound} that `backups: bytes` in the settings lets mainstay keep: \
         move it away, or raise the bound"
    )]
    Large {
        /// Its size.
        size: u64,
        /// The bound.
        bound: u64,
    },
    /// It changed while it was copied.
    #[error("it changed while it was copied; the next pass looks again")]
    Moved,
    /// What was kept is not what it was: the disk lost or changed it.
    #[error("the kept bytes are damaged: their digest is {0}")]
    Damaged(Digest),
    /// The disk refused.
    #[error("failed to {0}")]
    Io(&'static str, #[source] io::Error),
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::Io(doing, error)
}

/// Something to keep, opened.
#[derive(Debug)]
pub struct Original {
    /// What it is.
    pub source: Source,
    /// Its mode and owner.
    pub access: Access,
    /// When it was written last.
    pub modified: Timestamp,
    /// The digest that its content must have, when it was looked at before.
    pub expected: Option<Digest>,
}

/// Where the bytes are.
#[derive(Debug)]
pub enum Source {
    /// In an open file.
    Regular {
        /// The file.
        file: File,
    },
    /// It is a symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
    },
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this format.
    pub version: u32,
    /// Names it: the same thing at the same path has the same name, however often it is kept.
    pub id: String,
    /// Where it was.
    pub path: HostPath,
    /// The application that wanted something else there.
    pub app: Option<AppName>,
    /// Why it was kept, for people.
    pub why: String,
    /// Whether it was there before mainstay was: it goes last.
    #[serde(default)]
    pub adopted: bool,
    /// When it was kept last.
    pub at: Timestamp,
    /// What it was.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
    /// The id of its owner.
    pub uid: u32,
    /// The id of its group.
    pub gid: u32,
    /// When it had been written.
    pub modified: Timestamp,
}

/// What was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    Regular {
        /// The digest of its content, and the name of the file that holds it.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
    },
}

/// On whose account something is kept.
#[derive(Clone, Debug)]
pub struct Reason<'a> {
    /// Where it is.
    pub path: &'a HostPath,
    /// The application that wants something else there.
    pub app: Option<&'a AppName>,
    /// Why, for people.
    pub why: &'a str,
    /// Whether it is somebody else's altogether.
    pub adopted: bool,
}

/// The folder of backups.
#[derive(Clone, Debug)]
pub struct Backups {
    folder: PathBuf,
    bounds: Bounds,
}

impl Backups {
    /// Names the backups of a state folder; nothing is made before there is something to keep.
    pub fn of(state: &Path, bounds: Bounds) -> Backups {
        Backups { folder: state.join(FOLDER), bounds }
    }

    /// Keeps something. When this returns, it is on the disk for good.
    ///
    /// # Errors
    /// It is too large, changed meanwhile, or the disk is full; then what it was to be kept from must not happen.
    pub fn keep(&self, original: Original, reason: &Reason<'_>, now: Timestamp) -> Result<Entry, BackupError> {
        private(&self.folder).map_err(io_error("make the folder of the backups"))?;
        let _lock = self.lock()?;
        let Original { source, access, modified, expected } = original;
        let kind = match source {
            Source::Symlink { target } => Kind::Symlink { target },
            Source::Regular { file } => self.keep_content(file, expected)?,
        };
        let mut fields = Fields::default();
        fields.add("path", reason.path.as_str().as_bytes());
        fields.add("kind", format!("{kind:?}").as_bytes());
        fields.add("access", format!("{access:?}").as_bytes());
        let entry = Entry {
            version: VERSION,
            id: fields.finish().short(),
            path: reason.path.clone(),
            app: reason.app.cloned(),
            why: reason.why.to_owned(),
            adopted: reason.adopted,
            at: now,
            kind,
            mode: access.mode.bits(),
            uid: access.uid,
            gid: access.gid,
            modified,
        };
        self.write_entry(&entry)?;
        self.prune(now, Some(&entry.id));
        Ok(entry)
    }

    fn write_entry(&self, entry: &Entry) -> Result<(), BackupError> {
        let doing = io_error("write down a backup");
        let text = serde_json::to_vec(entry).map_err(|error| doing(error.into()))?;
        let mut new = NamedTempFile::new_in(&self.folder).map_err(&doing)?;
        new.write_all(&text).and_then(|()| new.as_file().sync_all()).map_err(&doing)?;
        new.persist(self.folder.join(format!("{}.json", entry.id))).map_err(|error| doing(error.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(&doing)
    }

    /// Copies a content under the name of its digest.
    fn keep_content(&self, file: File, expected: Option<Digest>) -> Result<Kind, BackupError> {
        let bound = self.bounds.bytes;
        let size = file.metadata().map_err(io_error("look at it"))?.len();
        if size > bound {
            return Err(BackupError::Large { size, bound });
        }
        let mut new = NamedTempFile::new_in(&self.folder).map_err(io_error("make a backup"))?;
        // One byte more than there was: a file that grows is one that changed.
        let (sha256, copied) = copy(file.take(size + 1), new.as_file_mut())?;
        if copied != size || expected.is_some_and(|expected| expected != sha256) {
            return Err(BackupError::Moved);
        }
        let kept = self.content_path(sha256);
        if fs::metadata(&kept).is_ok_and(|metadata| metadata.len() == size) {
            return Ok(Kind::Regular { sha256, size });
        }
        new.as_file().sync_all().map_err(io_error("write a backup"))?;
        new.persist(&kept).map_err(|error| BackupError::Io("name a backup", error.error))?;
        Ok(Kind::Regular { sha256, size })
    }

    /// Lists what is kept, the newest first. What cannot be read is left out, with a warning.
    ///
    /// # Errors
    /// The folder cannot be read; that there is none is no error.
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let (mut entries, _) = self.read_all()?;
        entries.sort_by(|one, other| (other.at, &other.path).cmp(&(one.at, &one.path)));
        Ok(entries)
    }

    /// Returns every entry that can be read, and whether there are others.
    fn read_all(&self) -> io::Result<(Vec<Entry>, bool)> {
        let folder = match fs::read_dir(&self.folder) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
            Err(error) => return Err(error),
        };
        let (mut entries, mut strange) = (Vec::new(), false);
        for file in folder {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_entry(&path) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    strange = true;
                    tracing::warn!(path = %path.display(), %error, "a backup's description cannot be read");
                }
            }
        }
        Ok((entries, strange))
    }

    /// Copies the kept content of a regular file.
    ///
    /// # Errors
    /// It cannot be read or written, or is not what was kept.
    pub fn copy_out(&self, sha256: Digest, to: &mut impl io::Write) -> Result<(), BackupError> {
        let file = File::open(self.content_path(sha256)).map_err(io_error("open the backup"))?;
        let (is, _) = copy(file, to)?;
        if is == sha256 { Ok(()) } else { Err(BackupError::Damaged(is)) }
    }

    /// Removes what is too old or too much. Not being able to is no reason to stop: it is tried again with the next backup.
    pub fn ensure_bounded(&self, now: Timestamp) {
        if !self.folder.exists() {
            return;
        }
        match self.lock() {
            Ok(_lock) => self.prune(now, None),
            Err(error) => tracing::warn!("failed to look through the backups: {}", crate::chain(&error)),
        }
    }

    /// Removes what the bounds do not allow, never the one that was just kept.
    fn prune(&self, now: Timestamp, newest: Option<&str>) {
        let (mut entries, strange) = match self.read_all() {
            Ok(read) => read,
            Err(error) => return tracing::warn!(%error, "failed to look through the backups"),
        };
        entries.sort_by_key(|entry| (Some(entry.id.as_str()) == newest, entry.adopted, entry.at));
        let mut held: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut bytes = 0;
        for (sha256, size) in entries.iter().filter_map(content_of) {
            let count = held.entry(sha256).or_default();
            *count += 1;
            bytes += if *count == 1 { size } else { 0 };
        }
        let mut count = entries.len();
        for entry in entries.iter().filter(|entry| Some(entry.id.as_str()) != newest) {
            if count <= self.bounds.count && bytes <= self.bounds.bytes && !self.is_old(entry, now) {
                continue;
            }
            tracing::info!(path = %entry.path, id = entry.id, "a backup goes: it is old, or there are too many");
            remove(&self.folder.join(format!("{}.json", entry.id)));
            count -= 1;
            if let Some((sha256, size)) = content_of(entry)
                && let Some(others) = held.get_mut(&sha256)
            {
                *others -= 1;
                bytes -= if *others == 0 { size } else { 0 };
            }
        }
        held.retain(|_, count| *count > 0);
        if !strange {
            self.remove_contents_but(&held.into_keys().collect());
        }
    }

    fn is_old(&self, entry: &Entry, now: Timestamp) -> bool {
        SignedDuration::try_from(self.bounds.age).is_ok_and(|age| now.duration_since(entry.at) > age)
    }

    /// Removes contents that no entry names: of entries that went, and what a kill left half done.
    fn remove_contents_but(&self, held: &BTreeSet<Digest>) {
        let names: BTreeSet<String> = held.iter().map(Digest::to_string).collect();
        let Ok(folder) = fs::read_dir(&self.folder) else { return };
        for file in folder.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let is_entry = Path::new(&name).extension().is_some_and(|extension| extension == "json");
            if name != LOCK && !is_entry && !names.contains(&name) {
                remove(&file.path());
            }
        }
    }

    fn content_path(&self, sha256: Digest) -> PathBuf {
        self.folder.join(sha256.to_string())
    }

    /// Waits for whoever else keeps something at this moment, the service or `mainstay restore`: neither takes longer than
    /// one copy of a bounded size.
    fn lock(&self) -> Result<File, BackupError> {
        let doing = io_error("lock the backups");
        let path = self.folder.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(&doing)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|errno| doing(errno.into()))?;
        Ok(file)
    }
}

const LOCK: &str = "lock";

fn content_of(entry: &Entry) -> Option<(Digest, u64)> {
    match entry.kind {
        Kind::Regular { sha256, size } => Some((sha256, size)),
        Kind::Symlink { .. } => None,
    }
}

fn read_entry(path: &Path) -> io::Result<Entry> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_ENTRY).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Copies everything and digests it on the way.
fn copy(mut from: impl io::Read, to: &mut impl io::Write) -> Result<(Digest, u64), BackupError> {
    let mut hasher = Sha256::new();
    let mut buffer = [0; 16 << 10];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hasher.finalize().into()), copied)),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                to.write_all(&buffer[..length]).map_err(io_error("write a copy"))?;
                copied += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BackupError::Io("read it", error)),
        }
    }
}

fn private(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), |state| File::open(state)?.sync_all()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "failed to remove a backup");
    }
}

#[cfg(test)]
mod tests;
