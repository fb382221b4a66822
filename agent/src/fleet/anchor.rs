//! Which commit of a branch this clone took for the fleet's last: what comes after it is judged as hosts judge it, so that nobody who can
//! push, and cannot sign, has their own keys taken for those of hosts here. The first that a clone sees is taken as it is.
//!
//! It is kept in a file within git's own folder of the clone. Who can write there can have git show anything anyway.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use spec::id::CommitId;

use crate::git::{Followed, Mirror};

/// The file's name: a line for each branch, with its last commit.
const NAME: &str = "believed";
/// A file with more bytes is no file of ours.
const MOST: u64 = 1 << 20;

/// The last commit of a branch that was taken for the fleet's.
pub(super) struct Anchor {
    path: PathBuf,
    branch: String,
    commit: Option<CommitId>,
}

impl Anchor {
    /// Reads it; there is none where that cannot be read.
    pub(super) fn of(mirror: &Mirror, followed: &Followed) -> Anchor {
        let (path, branch) = (mirror.own_folder().join(NAME), followed.to_string());
        let commit = lines(&path).into_iter().find(|(name, _)| *name == branch).map(|(_, commit)| commit);
        Anchor { path, branch, commit }
    }

    /// Returns it.
    pub(super) fn commit(&self) -> Option<&CommitId> {
        self.commit.as_ref()
    }

    /// Returns where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes another one from now on.
    pub(super) fn keep(&self, commit: &CommitId) {
        if self.commit.as_ref() == Some(commit) {
            return;
        }
        let mut all: Vec<(String, CommitId)> = lines(&self.path);
        all.retain(|(name, _)| *name != self.branch);
        all.push((self.branch.clone(), commit.clone()));
        // Whoever may only read the clone takes the newest for the first again.
        if let Err(error) = write(&self.path, &all) {
            tracing::debug!(path = %self.path.display(), %error, "which commit was believed was not kept");
        }
    }
}

fn lines(path: &Path) -> Vec<(String, CommitId)> {
    if fs::metadata(path).map_or(true, |found| found.len() > MOST) {
        return Vec::new();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let (commit, branch) = line.split_once(' ')?;
        Some((branch.to_owned(), CommitId::parse(commit).ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn write(path: &Path, all: &[(String, CommitId)]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    for (branch, commit) in all {
        writeln!(new, "{commit} {branch}")?;
    }
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}
