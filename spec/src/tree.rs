//! The repository's files at one commit, as bytes: what the source hands over and the manifest reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::Digest;

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// git's executable bit.
        executable: bool,
    },
    /// A symbolic link; never followed, so that nothing outside the tree is read (Argo CD CVE-2022-24904 and others).
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// A submodule; never fetched.
    Submodule,
    /// Something the source would not hand over, with the reason: too large, or a name that is not UTF-8.
    Refused {
        /// Why, ready for a diagnostic.
        why: String,
    },
}

/// Files by their path from the repository's root, `/`-separated, without a leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries; folders are implied by the paths.
    pub entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Adds a plain file; for callers that build a tree by hand.
    pub fn insert(&mut self, path: &str, bytes: &[u8]) {
        self.entries.insert(path.to_owned(), Entry::File { bytes: bytes.into(), executable: false });
    }

    /// Digests the bytes of the file at `path`, if it is one.
    pub fn digest(&self, path: &str) -> Option<Digest> {
        match self.entries.get(path) {
            Some(Entry::File { bytes, .. }) => Some(Digest::of(bytes)),
            _ => None,
        }
    }
}
