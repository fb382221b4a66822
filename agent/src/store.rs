//! Artifacts that were fetched, by their digest: what is written to its place, again after drift, and on the way back.
//!
//! A file is here under its name only when it is whole, on disk and what its name says; it is proven once more while it is
//! copied out. Nothing outside of one folder is ever made or removed, and nobody but root may look into it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use spec::artifact::Origin;
use spec::digest::Digest;
use spec::unpack::{Inventory, Member};
use tracing::{info, warn};

use crate::progress::Progress;

const FOLDER: &str = "artifacts";
/// What the list of an archive's content ends in.
const LIST: &str = ".list";
/// The longest such list.
const LONGEST_LIST: u64 = 64 << 20;
/// What a download that is not done yet ends in.
const COMING: &str = ".coming";
/// How much is written before it has to be on the disk: a sync of everything at the end would take too long at once.
const SYNC: u64 = 32 << 20;

/// The folder of artifacts.
#[derive(Clone, Default)]
pub struct Store {
    folder: PathBuf,
    progress: Arc<Progress>,
}

/// An artifact that is on its way. Dropped unfinished, it is gone.
pub struct Incoming<'s> {
    store: &'s Store,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Store {
    /// Names the folder in the state folder; it is made when something comes.
    pub fn of(state: &Path, progress: Arc<Progress>) -> Store {
        Store { folder: state.join(FOLDER), progress }
    }

    /// Returns who is told that long work gets on.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Says whether an artifact is here.
    pub fn has(&self, digest: Digest) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|metadata| metadata.is_file())
    }

    /// Says whether everything is here that comes of `origin`.
    pub fn holds(&self, origin: &Origin) -> bool {
        if origin.unpack.is_none() {
            return self.has(origin.sha256);
        }
        let is_here = |member: &Member| match member {
            Member::File { digest, .. } => self.has(*digest),
            Member::Link { .. } | Member::Directory => true,
        };
        self.list(origin.key()).is_some_and(|list| list.members.values().all(is_here))
    }

    /// Returns what an archive holds, if that is known.
    pub fn list(&self, key: Digest) -> Option<Inventory> {
        let mut text = String::new();
        let file = File::open(self.folder.join(format!("{key}{LIST}"))).ok()?;
        file.take(LONGEST_LIST).read_to_string(&mut text).ok()?;
        let (digest, list) = text.split_once('\n')?;
        // A list that is damaged is none: the archive is fetched again.
        (Digest::of(list.as_bytes()).to_string() == digest).then(|| serde_json::from_str(list).ok())?
    }

    /// Keeps what an archive holds, after all of that is on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep_list(&self, key: Digest, list: &Inventory) -> io::Result<()> {
        let folder = File::open(&self.folder)?;
        rustix::fs::syncfs(&folder)?;
        let list = serde_json::to_string(list)?;
        let new = self.folder.join(format!("{key}{COMING}"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{}\n{list}", Digest::of(list.as_bytes())).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(format!("{key}{LIST}")))?;
        folder.sync_all()
    }

    /// Opens an artifact to be read here.
    ///
    /// # Errors
    /// It is not here, or the disk refuses.
    pub fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// Begins to take in an artifact.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn begin(&self, digest: Digest) -> io::Result<Incoming<'_>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(format!("{digest}{COMING}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        Ok(Incoming { store: self, path, file, hasher: Sha256::new(), length: 0 })
    }

    /// Copies an artifact to an open file. One that turns out to be damaged is removed, so that it is fetched again.
    ///
    /// # Errors
    /// It is not here, is damaged, or the disk refuses.
    pub fn copy_out(&self, digest: Digest, to: &mut File) -> io::Result<()> {
        let mut from = File::open(self.path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(error.kind(), "the artifact was not fetched"),
            _ => error,
        })?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut unsynced = 0;
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..length]);
            to.write_all(&buffer[..length])?;
            unsynced += length as u64;
            if unsynced >= SYNC {
                unsynced = 0;
                to.sync_data()?;
                self.progress.mark_at_work();
            }
        }
        if Digest::from_bytes(hasher.finalize().into()) == digest {
            return Ok(());
        }
        fs::remove_file(self.path(digest))?;
        Err(io::Error::new(io::ErrorKind::InvalidData, "what was kept of the artifact is damaged; it is fetched again"))
    }

    /// Removes what is not needed, and what was left unfinished. What cannot be removed is tried again the next time.
    pub fn keep_only(&self, needed: &BTreeSet<Digest>) {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            entries => entries.into_iter().flatten(),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // Whatever else somebody put here is not ours.
            let bare = name.strip_suffix(COMING).or(name.strip_suffix(LIST)).unwrap_or(name);
            let Ok(digest) = Digest::parse(bare) else { continue };
            if needed.contains(&digest) && !name.ends_with(COMING) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => info!(artifact = name, "removed an artifact that is not needed any more"),
                Err(error) => {
                    warn!(artifact = name, %error, "failed to remove an artifact that is not needed any more");
                }
            }
        }
    }
}

impl Incoming<'_> {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        let before = self.length / SYNC;
        self.length += bytes.len() as u64;
        if self.length / SYNC > before {
            self.file.sync_data()?;
            self.store.progress.mark_at_work();
        }
        Ok(())
    }

    /// Says how many bytes have come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the digest of what has come.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Gives what came its name; when it is on the disk is another matter, see [`Store::keep_list`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish_soon(self) -> io::Result<()> {
        fs::rename(&self.path, self.store.path(self.digest()))
    }

    /// Gives the artifact its name, durably: it is the digest of what came.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, self.store.path(self.digest()))?;
        File::open(&self.store.folder)?.sync_all()
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.path.display(), %error, "failed to remove an unfinished download");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::of(state.path(), Arc::default());
        (state, store)
    }

    fn take_in(store: &Store, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut incoming = store.begin(digest).expect("begun");
        content.chunks(3).for_each(|chunk| incoming.write(chunk).expect("written"));
        assert_eq!((incoming.length(), incoming.digest()), (content.len() as u64, digest));
        incoming.finish().expect("finished");
        digest
    }

    fn names(store: &Store) -> Vec<String> {
        let entries = fs::read_dir(&store.folder).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_comes_goes_out_again_and_is_nobodys_business() {
        let (state, store) = store();
        let digest = take_in(&store, b"an artifact");
        assert!(store.has(digest) && !store.has(Digest::of(b"another")));
        let copy = state.path().join("copy");
        store.copy_out(digest, &mut File::create(&copy).expect("a file")).expect("copied");
        assert_eq!(fs::read(&copy).expect("the copy"), b"an artifact");
        for path in [store.folder.clone(), store.path(digest)] {
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o077, 0, "{path:?}");
        }
        let absent = store.copy_out(Digest::of(b"another"), &mut File::create(&copy).expect("a file"));
        assert_eq!(absent.expect_err("it is absent").to_string(), "the artifact was not fetched");
    }

    #[test]
    fn what_is_damaged_is_not_handed_out_and_goes() {
        let (state, store) = store();
        let digest = take_in(&store, b"an artifact");
        fs::write(store.path(digest), b"an arti").expect("damage");
        let copied = store.copy_out(digest, &mut File::create(state.path().join("copy")).expect("a file"));
        assert!(copied.is_err() && !store.has(digest));
    }

    #[test]
    fn only_what_is_needed_stays_and_what_is_not_ours() {
        let (_state, store) = store();
        let (needed, other) = (take_in(&store, b"needed"), take_in(&store, b"other"));
        fs::write(store.folder.join("notes"), "x").expect("a file");
        fs::write(store.folder.join(format!("{needed}{COMING}")), "left by a kill").expect("a file");
        drop(store.begin(Digest::of(b"broken off")).expect("begun"));
        store.keep_only(&BTreeSet::from([needed]));
        assert_eq!(names(&store), [needed.to_string(), "notes".to_owned()]);
        assert!(!store.has(other));
    }
}
