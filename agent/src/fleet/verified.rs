//! Which signatures were found to hold before: whoever asks a fleet of thousands again has only those to check that are new.
//!
//! What is remembered is a digest of all that makes a signature hold, the key, the place, the fleet and the text with its signature,
//! in a file within git's own folder of the clone. Who can write there can have git show anything anyway.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use spec::digest::{Digest, Fields};

use crate::git::Mirror;
use crate::identity;

/// The file's name.
const NAME: &str = "verified";
/// What it begins with: one that begins with anything else is written anew.
const HEAD: &[u8] = b"mainstay: signatures that hold, 1\n";
/// The length of a digest.
const LENGTH: usize = 32;
/// A file with more of them is no file of ours.
const MOST: usize = 1_000_000;

/// Signatures that hold.
pub(super) struct Verified {
    path: PathBuf,
    before: BTreeSet<Digest>,
    /// Those that were asked for: the others are forgotten.
    now: Mutex<BTreeSet<Digest>>,
}

impl Verified {
    /// Reads what was found before; nothing where that cannot be read.
    pub(super) fn open(mirror: &Mirror) -> Verified {
        let path = mirror.own_folder().join(NAME);
        let before = read(&path).unwrap_or_default();
        Verified { path, before, now: Mutex::default() }
    }

    /// Says whether the owner of a key signed a text.
    pub(super) fn is_signed(&self, key: &str, namespace: &str, fleet: &str, text: &str) -> bool {
        let mut all = Fields::default();
        all.add("key", key.as_bytes()).add("namespace", namespace.as_bytes());
        let digest = all.add("fleet", fleet.as_bytes()).add("text", text.as_bytes()).finish();
        let holds = self.before.contains(&digest) || identity::verify(key, namespace, fleet, text).is_ok();
        if holds {
            self.now.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
        holds
    }

    /// Remembers them for the next time.
    pub(super) fn keep(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == self.before {
            return;
        }
        // Whoever may only read the clone checks all of them again.
        if let Err(error) = write(&self.path, &now) {
            tracing::debug!(path = %self.path.display(), %error, "which signatures hold was not kept");
        }
    }
}

fn read(path: &Path) -> Option<BTreeSet<Digest>> {
    if fs::metadata(path).ok()?.len() > (HEAD.len() + MOST * LENGTH) as u64 {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let digests = bytes.strip_prefix(HEAD)?.chunks_exact(LENGTH);
    digests
        .remainder()
        .is_empty()
        .then(|| digests.map(|digest| Digest::from_bytes(digest.try_into().unwrap_or_default())).collect())
}

fn write(path: &Path, digests: &BTreeSet<Digest>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut bytes = HEAD.to_vec();
    digests.iter().take(MOST).for_each(|digest| bytes.extend_from_slice(digest.bytes()));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&bytes)?;
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}
