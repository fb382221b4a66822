//! What a person asks of the agent from the command line: a file in the state folder, taken up with the next pass.
//!
//! A file and no signal: it survives a restart of the agent, and nobody who merely holds the ledger is interrupted by it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use spec::id::{AppName, CommitId};
use spec::pause::Asked;

const RETRY: &str = "retry";
const SYNC: &str = "sync";
/// An accepted rewrite.
const ACCEPT: &str = "accept-rewrite";
/// One line of JSON for each pause or resumption, in the order in which they were asked for.
const PAUSE: &str = "pause";
/// More than this was not written by us.
const LONGEST: u64 = 1 << 20;

/// Returns where a person asks for another attempt.
pub fn retry(state: &Path) -> PathBuf {
    state.join(RETRY)
}

/// Returns where a person asks for the newest commit.
pub fn sync(state: &Path) -> PathBuf {
    state.join(SYNC)
}

/// Asks that the repository is asked now; the request is there until the host is at what it said.
///
/// # Errors
/// The state folder cannot be written.
pub fn ask_sync(state: &Path) -> io::Result<()> {
    let new = state.join("sync.new");
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    fs::rename(new, sync(state))
}

/// Which request for the newest commit there is: another one is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syncing {
    inode: u64,
    changed: (i64, i64),
}

impl Syncing {
    /// Looks for it.
    pub fn look(state: &Path) -> Option<Syncing> {
        let seen = fs::symlink_metadata(sync(state)).ok()?;
        Some(Syncing { inode: seen.ino(), changed: (seen.ctime(), seen.ctime_nsec()) })
    }

    /// Forgets it, unless somebody asked again meanwhile.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn done(self, state: &Path) -> io::Result<()> {
        if Syncing::look(state) == Some(self) { fs::remove_file(sync(state)) } else { Ok(()) }
    }
}

/// Returns where a person asks for a pause, or for its end.
pub fn pause(state: &Path) -> PathBuf {
    state.join(PAUSE)
}

/// Asks for a pause, or for its end, behind what was asked before.
///
/// # Errors
/// The state folder cannot be written.
pub fn ask_pause(state: &Path, asked: &Asked) -> io::Result<()> {
    let line = serde_json::to_string(asked)? + "\n";
    loop {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(pause(state))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        // The agent may have taken up and removed it in between.
        if file.metadata()?.nlink() > 0 {
            file.write_all(line.as_bytes())?;
            return file.sync_all();
        }
    }
}

/// What was asked of pauses and is not taken up yet; nobody adds to it while this is held.
#[derive(Debug)]
pub struct Pending {
    file: Option<(File, PathBuf)>,
    /// In order.
    pub asked: Vec<Asked>,
}

impl Pending {
    /// Takes hold of it; mostly nothing. While somebody is writing there is nothing yet.
    pub fn take(state: &Path) -> Pending {
        let path = pause(state);
        let none = Pending { file: None, asked: Vec::new() };
        let Ok(file) = File::open(&path) else { return none };
        let is_sane = file.metadata().is_ok_and(|seen| seen.is_file() && seen.len() <= LONGEST);
        if !is_sane || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return none;
        }
        let Ok(text) = io::read_to_string(&file) else { return none };
        Pending { file: Some((file, path)), asked: asked(&text) }
    }

    /// Reads it without taking hold of it, for who only looks.
    pub fn peek(state: &Path) -> Vec<Asked> {
        let path = pause(state);
        match fs::metadata(&path) {
            Ok(seen) if seen.is_file() && seen.len() <= LONGEST => asked(&fs::read_to_string(path).unwrap_or_default()),
            _ => Vec::new(),
        }
    }

    /// Forgets it, once it is in the ledger.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn taken_up(self) -> io::Result<()> {
        self.file.map_or(Ok(()), |(_, path)| fs::remove_file(path))
    }
}

/// Reads requests; half a line is none yet.
fn asked(text: &str) -> Vec<Asked> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A rewrite that a person accepts: what does not go on from the one may be believed all the same if it goes on from the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What was believed.
    pub from: CommitId,
    /// What takes its place.
    pub to: CommitId,
    /// Who may sign it is what the settings say, as if nothing had been believed.
    pub by_settings: bool,
}

/// The word for that.
const BY_SETTINGS: &str = "by-settings";

/// Notes which rewrite a person accepts. It stays until something is believed by it.
///
/// # Errors
/// The state folder cannot be written.
pub fn accept(state: &Path, Accepted { from, to, by_settings }: &Accepted) -> io::Result<()> {
    let new = state.join("accept.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    let how = if *by_settings { BY_SETTINGS } else { "" };
    file.write_all(format!("{from} {to} {how}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(new, state.join(ACCEPT))
}

/// Returns which rewrite a person accepts.
pub fn accepted(state: &Path) -> Option<Accepted> {
    let path = state.join(ACCEPT);
    let seen = fs::metadata(&path).ok()?;
    if !seen.is_file() || seen.len() > LONGEST {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let (from, to) = (CommitId::parse(words.next()?).ok()?, CommitId::parse(words.next()?).ok()?);
    Some(Accepted { from, to, by_settings: words.next() == Some(BY_SETTINGS) })
}

/// Forgets it, once something was believed by it.
///
/// # Errors
/// The state folder cannot be written.
pub fn forget_accepted(state: &Path) -> io::Result<()> {
    fs::remove_file(state.join(ACCEPT))
}

/// Asks that the releases of these applications are tried again. What was asked before and is not taken up yet stays.
///
/// # Errors
/// The state folder cannot be written.
pub fn ask_retry(state: &Path, apps: &BTreeSet<AppName>) -> io::Result<()> {
    let mut all = pending(state);
    all.extend(apps.iter().cloned());
    let text: String = all.iter().map(|app| format!("{app}\n")).collect();
    let new = state.join("retry.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, retry(state))
}

/// Returns the applications that are to be tried again; mostly none.
pub fn pending(state: &Path) -> BTreeSet<AppName> {
    let path = retry(state);
    match fs::metadata(&path) {
        Ok(seen) if seen.is_file() && seen.len() <= LONGEST => {}
        _ => return BTreeSet::new(),
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    text.lines().filter_map(|line| AppName::parse(line).ok()).collect()
}

/// Forgets what was asked, once it is in the ledger.
///
/// # Errors
/// The state folder cannot be written.
pub fn taken_up(state: &Path) -> io::Result<()> {
    fs::remove_file(retry(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_while_it_is_taken_up_is_not_lost() {
        let state = tempfile::tempdir().expect("a folder");
        let asked = |app: &str| Asked { apps: AppName::parse(app).into_iter().collect(), pause: None };
        ask_pause(state.path(), &asked("web")).expect("asked");
        ask_pause(state.path(), &asked("page")).expect("asked");
        let pending = Pending::take(state.path());
        assert_eq!(pending.asked, [asked("web"), asked("page")]);
        assert!(Pending::take(state.path()).asked.is_empty(), "it is being taken up");
        assert_eq!(Pending::peek(state.path()), pending.asked);
        let folder = state.path().to_owned();
        let later = std::thread::spawn(move || ask_pause(&folder, &asked("late")));
        pending.taken_up().expect("removed");
        later.join().expect("it ends").expect("asked");
        assert_eq!(Pending::take(state.path()).asked, [asked("late")]);
    }
}
