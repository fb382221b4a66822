//! What leads to a commit, with what was signed of each step and the signature: for who judges whether to believe it.

use std::collections::{BTreeMap, BTreeSet};

use gix::objs::{CommitRef, CommitRefIter};
use jiff::Timestamp;
use spec::id::CommitId;

use super::error::GitError;
use super::mirror::{Mirror, Source, commit_id, object_id};

const HASH: gix::hash::Kind = gix::hash::Kind::Sha1;
/// A commit that is larger was written to hurt: the list of its files is not in it.
const MOST_BYTES: u64 = 1 << 20;
/// No merge that people make is wider.
const MOST_PARENTS: usize = 64;

/// A commit, and who vouches for it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its name.
    pub id: CommitId,
    /// What it goes on from.
    pub parents: Vec<CommitId>,
    /// When it was committed, by its own word.
    pub at: Timestamp,
    /// Its message.
    pub message: String,
    /// What was signed, and the signature in its armour.
    pub signature: Option<(Vec<u8>, String)>,
}

impl Mirror {
    /// Reads a commit with its signature.
    ///
    /// # Errors
    /// The commit is missing or damaged, or is none that people write.
    pub fn signed(&self, commit: &CommitId) -> Result<Signed, GitError> {
        let damaged = |source: Source| GitError::Damaged { commit: commit.clone(), source };
        let size = self.repo.find_header(object_id(commit)).map_err(|error| damaged(error.into()))?.size();
        if size > MOST_BYTES {
            let why = format!("it has {size} bytes, and {MOST_BYTES} are the most that is read of one");
            return Err(GitError::Malformed { commit: commit.clone(), source: why.into() });
        }
        let raw = self.raw_commit(commit)?;
        read(commit, &raw).map_err(|source| GitError::Malformed { commit: commit.clone(), source })
    }

    /// Names all commits that `new` reaches and `old` does not, each behind those that it goes on from; `None` where there are more than
    /// `most`. `go_on` is asked before each.
    ///
    /// # Errors
    /// The history cannot be read, or `go_on` says so.
    pub fn way<E: From<GitError>>(
        &self,
        old: &CommitId,
        new: &CommitId,
        most: usize,
        go_on: impl Fn() -> Result<(), E>,
    ) -> Result<Option<Vec<CommitId>>, E> {
        let failed = |source: Source| self.failed("read the history", source);
        let walk = self.repo.rev_walk([object_id(new)]).with_hidden([object_id(old)]);
        let mut open: BTreeMap<CommitId, Vec<CommitId>> = BTreeMap::new();
        for found in walk.all().map_err(|error| failed(error.into()))? {
            let id = commit_id(found.map_err(|error| failed(error.into()))?.id);
            go_on()?;
            let parents = self.signed(&id)?.parents;
            open.insert(id, parents);
            if open.len() > most {
                return Ok(None);
            }
        }
        // Those with no open parents first: dates are what somebody wrote, and order nothing.
        let mut missing: BTreeMap<&CommitId, BTreeSet<&CommitId>> = BTreeMap::new();
        let mut children: BTreeMap<&CommitId, Vec<&CommitId>> = BTreeMap::new();
        for (id, parents) in &open {
            let parents: BTreeSet<&CommitId> = parents.iter().filter(|parent| open.contains_key(*parent)).collect();
            for parent in &parents {
                children.entry(parent).or_default().push(id);
            }
            missing.insert(id, parents);
        }
        let mut ready: Vec<&CommitId> =
            missing.iter().filter(|(_, parents)| parents.is_empty()).map(|(id, _)| *id).collect();
        let mut way = Vec::with_capacity(open.len());
        while let Some(next) = ready.pop() {
            for child in children.remove(next).unwrap_or_default() {
                let left = missing.get_mut(child);
                if left.is_some_and(|left| left.remove(next) && left.is_empty()) {
                    ready.push(child);
                }
            }
            way.push(next.clone());
        }
        Ok(Some(way))
    }

    /// Names what a commit holds at a path, of all of it where that is empty, without reading it; `None` where there is nothing.
    ///
    /// # Errors
    /// The commit is missing or damaged.
    pub fn name_at(&self, commit: &CommitId, path: &str) -> Result<Option<String>, GitError> {
        let damaged = |source: Source| GitError::Damaged { commit: commit.clone(), source };
        let name = || -> Result<Option<String>, Source> {
            let commit = self.repo.find_commit(object_id(commit))?;
            if path.is_empty() {
                return Ok(Some(commit.tree_id()?.to_string()));
            }
            Ok(commit.tree()?.lookup_entry_by_path(path)?.map(|entry| entry.object_id().to_string()))
        };
        name().map_err(damaged)
    }

    /// Reads one file of a commit as text, and the name of its content. `None` where there is none that is text and has at most `most`
    /// bytes.
    ///
    /// # Errors
    /// The commit is missing or damaged.
    pub fn text_at(&self, commit: &CommitId, path: &str, most: u64) -> Result<Option<(String, String)>, GitError> {
        let damaged = |source: Source| GitError::Damaged { commit: commit.clone(), source };
        let read = || -> Result<Option<(String, String)>, Source> {
            let tree = self.repo.find_commit(object_id(commit))?.tree()?;
            let Some(entry) = tree.lookup_entry_by_path(path)? else { return Ok(None) };
            let id = entry.object_id();
            let is_fitting = entry.mode().is_blob() && self.repo.find_header(id)?.size() <= most;
            if !is_fitting {
                return Ok(None);
            }
            let text = String::from_utf8(self.repo.find_blob(id)?.take_data()).ok();
            Ok(text.map(|text| (id.to_string(), text)))
        };
        read().map_err(damaged)
    }
}

fn read(commit: &CommitId, raw: &[u8]) -> Result<Signed, Source> {
    let decoded = CommitRef::from_bytes(raw, HASH)?;
    // Somebody who wrote nonsense there gains nothing: it is not older than what leads to it.
    let seconds = decoded.committer().map_or(0, |committer| committer.seconds());
    let parents: Vec<CommitId> = decoded.parents().map(commit_id).collect();
    if parents.len() > MOST_PARENTS {
        return Err(
            format!("it goes on from {} commits, and {MOST_PARENTS} are the most that is read", parents.len()).into()
        );
    }
    let signature = CommitRefIter::signature(raw, HASH)?
        .map(|(armoured, signed)| (signed.to_bstring().into(), String::from_utf8_lossy(&armoured).into_owned()));
    Ok(Signed {
        id: commit.clone(),
        parents,
        at: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH),
        message: String::from_utf8_lossy(decoded.message).into_owned(),
        signature,
    })
}
