//! The one file in which the agent's memory lives: versioned, checksummed, written whole, with the copy before it kept.
//!
//! A ledger that cannot be read is never taken for an empty one silently: the copy before it is used, and if that is
//! gone too the agent starts from the marks on the host and removes nothing it does not remember.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use spec::digest::Digest;
use spec::memory::Memory;

/// The version of the file's format that this agent writes.
const VERSION: u32 = 1;
const NAME: &str = "ledger.json";
const BEFORE: &str = "ledger.json.before";
const LOCK: &str = "lock";

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another agent works on this host.
    #[error(
        "another mainstay works with {0} at this moment (the service, or another `mainstay once`); wait for it or stop it"
    )]
    Locked(PathBuf),
    /// The file comes from a newer agent.
    #[error(
        "{path} was written by a newer mainstay (format {found}, this one knows up to {VERSION}); install that version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It could not be read or written.
    #[error("failed to {doing} {path}{}", as_root(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn as_root(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        ": run it as root, or name another folder with --state"
    } else {
        ""
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    sha256: Digest,
    /// The memory, as JSON text: the checksum is over exactly these bytes.
    memory: String,
}

/// What was found when the ledger was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The memory as it was saved last.
    Whole,
    /// No file: a host that mainstay has not worked on yet, or whose state was removed.
    Nothing,
    /// The file was damaged and the copy before it was taken.
    Before,
    /// The file and the copy before it were damaged: an empty memory; both are kept aside.
    Lost,
}

/// The agent's memory on disk, held exclusively.
pub struct Ledger {
    folder: PathBuf,
    /// Held for as long as the ledger lives; `None` for one that is only looked at and is never saved.
    lock: Option<File>,
    /// What is on disk: comparing is cheaper than writing it out to compare texts, with every pass.
    saved: Memory,
    /// How often it was another one than on disk.
    saves: u64,
    /// The memory; changed freely, and on disk after [`Ledger::save`].
    pub memory: Memory,
    /// How it was found.
    pub found: Found,
}

impl Ledger {
    /// Opens the ledger in `folder` and locks it against other agents.
    ///
    /// # Errors
    /// When another agent holds it, a newer one wrote it, or the folder cannot be read and written.
    pub fn open(folder: &Path) -> Result<Ledger, LedgerError> {
        create_private(folder)?;
        let path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|source| LedgerError::Io { doing: "open", path: path.clone(), source })?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LedgerError::Locked(folder.to_owned()))?;
        let (memory, found) = load(folder, Damaged::SetAside)?;
        Ok(Ledger { folder: folder.to_owned(), lock: Some(lock), saved: memory.clone(), saves: 0, memory, found })
    }

    /// Reads the memory without locking or ever writing it: for commands that only look.
    ///
    /// # Errors
    /// When a newer agent wrote it or it cannot be read.
    pub fn peek(folder: &Path) -> Result<Ledger, LedgerError> {
        let (memory, found) = load(folder, Damaged::Leave)?;
        Ok(Ledger { folder: folder.to_owned(), lock: None, saved: memory.clone(), saves: 0, memory, found })
    }

    /// Says whether another agent holds the ledger at the moment.
    pub fn is_taken(&self) -> bool {
        self.lock.is_none()
            && File::open(self.folder.join(LOCK))
                .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Counts how often the memory was saved as another one: what follows from it is the same until then.
    pub fn saves(&self) -> u64 {
        self.saves
    }

    /// Writes the memory to disk, durably; nothing is written when nothing changed.
    ///
    /// # Errors
    /// When the disk refuses; the file on it is then the one before, whole.
    pub fn save(&mut self) -> Result<(), LedgerError> {
        if self.memory == self.saved || self.lock.is_none() {
            return Ok(());
        }
        let text = encode(&self.memory);
        let path = self.folder.join(NAME);
        write_whole(&self.folder, &text).map_err(|source| LedgerError::Io { doing: "write", path, source })?;
        self.saved.clone_from(&self.memory);
        self.saves += 1;
        Ok(())
    }
}

fn create_private(folder: &Path) -> Result<(), LedgerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| LedgerError::Io { doing: "create", path: folder.to_owned(), source })
}

fn encode(memory: &Memory) -> String {
    let memory = serde_json::to_string(memory).expect("memory holds only strings, numbers and maps with string keys");
    let envelope = Envelope { version: VERSION, sha256: Digest::of(memory.as_bytes()), memory };
    serde_json::to_string(&envelope).expect("an envelope holds only strings and numbers")
}

/// Writes a temporary file, syncs it, links the old one as the copy before, renames, and syncs the folder.
fn write_whole(folder: &Path, text: &str) -> io::Result<()> {
    let (path, before, new) = (folder.join(NAME), folder.join(BEFORE), folder.join("ledger.json.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::remove_file(&before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::hard_link(&path, &before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()
}

/// What to do with a damaged file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damaged {
    SetAside,
    Leave,
}

fn load(folder: &Path, treatment: Damaged) -> Result<(Memory, Found), LedgerError> {
    let mut damaged = false;
    for (name, found) in [(NAME, Found::Whole), (BEFORE, Found::Before)] {
        let path = folder.join(name);
        let memory = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => decode(&path, &text)?,
                Err(_) => None,
            },
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => None,
            // Unreadable at the moment is not lost: nothing may be done without it.
            Err(source) => return Err(LedgerError::Io { doing: "read", path, source }),
        };
        if let Some(memory) = memory {
            return Ok((memory, found));
        }
        tracing::error!(path = %path.display(), "the ledger is damaged");
        damaged = true;
        if treatment == Damaged::SetAside {
            set_aside(&path);
        }
    }
    let found = if damaged { Found::Lost } else { Found::Nothing };
    Ok((Memory::default(), found))
}

/// Reads a ledger; `None` when it is damaged.
fn decode(path: &Path, text: &str) -> Result<Option<Memory>, LedgerError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_str::<Version>(text) {
        Ok(Version { version }) if version > VERSION => {
            return Err(LedgerError::Newer { path: path.to_owned(), found: version });
        }
        _ => {}
    }
    let Ok(envelope) = serde_json::from_str::<Envelope>(text) else { return Ok(None) };
    if Digest::of(envelope.memory.as_bytes()) != envelope.sha256 {
        return Ok(None);
    }
    Ok(serde_json::from_str(&envelope.memory).ok())
}

fn set_aside(path: &Path) {
    let aside = path.with_file_name(match path.ends_with(NAME) {
        true => "ledger.damaged",
        false => "ledger.before.damaged",
    });
    // A directory cannot be moved over what was set aside before.
    let moved = fs::rename(path, &aside).or_else(|_| fs::remove_file(&aside).and_then(|()| fs::rename(path, &aside)));
    if let Err(error) = moved {
        tracing::warn!(path = %path.display(), %error, "failed to keep the damaged ledger aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn saved_twice(folder: &Path) {
        let mut ledger = Ledger::open(folder).expect("an empty ledger");
        for counter in [1, 2] {
            ledger.memory.counter = counter;
            ledger.save().expect("a save");
        }
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let folder = folder();
        saved_twice(folder.path());
        let ledger = Ledger::open(folder.path()).expect("the ledger");
        assert_eq!((ledger.memory.counter, ledger.found), (2, Found::Whole));
    }

    #[test]
    fn a_second_agent_is_refused() {
        let folder = folder();
        let _first = Ledger::open(folder.path()).expect("the ledger");
        assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Locked(_))));
    }

    #[test]
    fn damage_of_any_kind_falls_back_to_the_copy_before_and_then_to_nothing() {
        for damage in ["", "{", "\0\0\0", "{\"version\":1,\"sha256\":\"00\",\"memory\":\"{}\"}"] {
            let folder = folder();
            saved_twice(folder.path());
            fs::write(folder.path().join(NAME), damage).expect("damage");
            let ledger = Ledger::peek(folder.path()).expect("the copy before");
            assert_eq!((ledger.memory.counter, ledger.found), (1, Found::Before), "{damage:?}");
            fs::write(folder.path().join(BEFORE), damage).expect("damage");
            let ledger = Ledger::open(folder.path()).expect("nothing left");
            assert_eq!((&ledger.memory, ledger.found), (&Memory::default(), Found::Lost), "{damage:?}");
            assert!(folder.path().join("ledger.damaged").exists(), "what is damaged is kept");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let folder = folder();
        saved_twice(folder.path());
        let path = folder.path().join(NAME);
        let text = fs::read_to_string(&path).expect("the ledger").replace("\\\"counter\\\":2", "\\\"counter\\\":3");
        fs::write(&path, text).expect("a flip");
        assert_eq!(Ledger::peek(folder.path()).expect("the copy before").memory.counter, 1);
    }

    #[test]
    fn what_is_no_text_or_no_file_is_set_aside_and_the_next_save_works() {
        let folder = folder();
        saved_twice(folder.path());
        for (round, damage) in [(2, true), (3, false)] {
            let path = folder.path().join(NAME);
            match damage {
                true => fs::write(&path, [0xff, 0xfe]).expect("bytes"),
                false => fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("a directory"),
            }
            let mut ledger = Ledger::open(folder.path()).expect("the copy before");
            assert_eq!(ledger.found, Found::Before);
            ledger.memory.counter = 10 * round;
            ledger.save().expect("a save");
            ledger.memory.counter += 1;
            ledger.save().expect("another");
            drop(ledger);
            assert_eq!(Ledger::peek(folder.path()).expect("the ledger").memory.counter, 10 * round + 1);
        }
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let folder = folder();
        fs::write(folder.path().join(NAME), "{\"version\":99,\"something\":true}").expect("a file");
        assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Newer { found: 99, .. })));
    }

    #[test]
    fn an_unchanged_memory_is_not_written() {
        let folder = folder();
        saved_twice(folder.path());
        let mut ledger = Ledger::open(folder.path()).expect("the ledger");
        fs::remove_file(folder.path().join(NAME)).expect("removal");
        ledger.save().expect("nothing to do");
        assert!(!folder.path().join(NAME).exists());
    }
}
