//! Looking for commits: by what their messages say, and what of a repository each of them changed.

use std::collections::BTreeSet;

use gix::revision::walk::Sorting;
use gix::traverse::commit::simple::CommitTimeOrder;
use spec::id::CommitId;

use super::error::GitError;
use super::history::{entries, parent};
use super::mirror::{Mirror, Source, commit_id, object_id};

/// So many commits are looked through.
const MOST_COMMITS: usize = 100_000;
/// The longest message that is looked through.
const MAX_MESSAGE: usize = 64 << 10;

/// What of a configuration repository a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Something that may concern every application.
    Everything,
    /// The folders of these applications.
    Apps(BTreeSet<String>),
}

impl Mirror {
    /// Finds the commits that `tip` reaches whose messages, trailers included, hold `text` in whatever case, the latest first; at
    /// most `limit`.
    ///
    /// # Errors
    /// The history cannot be read. Where it ends early (a shallow clone), what is there is looked through.
    pub fn search(&self, tip: &CommitId, text: &str, limit: usize) -> Result<Vec<CommitId>, GitError> {
        let failed = |source: Source| self.failed("read the history", source);
        let wanted = text.to_lowercase();
        let sorting = Sorting::ByCommitTime(CommitTimeOrder::NewestFirst);
        let walk = self.repo.rev_walk([object_id(tip)]).sorting(sorting).all().map_err(|error| failed(error.into()))?;
        let mut found = Vec::new();
        for info in walk.take(MOST_COMMITS) {
            let id = info.map_err(|error| failed(error.into()))?.id;
            let commit = self.repo.find_commit(id).map_err(|error| failed(error.into()))?;
            let message = commit.message_raw().map_err(|error| failed(error.into()))?;
            let message = String::from_utf8_lossy(&message[..message.len().min(MAX_MESSAGE)]);
            if message.to_lowercase().contains(&wanted) {
                found.push(commit_id(id));
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Returns those of some commits that `tip` reaches, itself included. The history is walked once for all of them, and only as far
    /// as it takes to meet them.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn reached(&self, tip: &CommitId, wanted: &BTreeSet<CommitId>) -> Result<BTreeSet<CommitId>, GitError> {
        let failed = |source: Source| self.failed("read the history", source);
        let sorting = Sorting::ByCommitTime(CommitTimeOrder::NewestFirst);
        let walk = self.repo.rev_walk([object_id(tip)]).sorting(sorting).all().map_err(|error| failed(error.into()))?;
        let mut left: BTreeSet<gix::ObjectId> = wanted.iter().map(object_id).collect();
        // What is not here at all would be looked for to the end.
        left.retain(|id| self.repo.find_header(*id).is_ok());
        let mut found = BTreeSet::new();
        for info in walk.take(MOST_COMMITS) {
            if left.is_empty() {
                break;
            }
            let id = info.map_err(|error| failed(error.into()))?.id;
            if left.remove(&id) {
                found.insert(commit_id(id));
            }
        }
        Ok(found)
    }

    /// Returns the commit before `commit` on its own branch, where there is one here.
    pub fn before(&self, commit: &CommitId) -> Option<CommitId> {
        let before = parent(&self.repo, object_id(commit)).ok().flatten()?;
        self.repo.find_commit(before).is_ok().then(|| commit_id(before))
    }

    /// Says what `commit` changed. Without the commit before it, that is everything.
    ///
    /// # Errors
    /// The commits cannot be read.
    pub fn touched(&self, commit: &CommitId) -> Result<Touched, GitError> {
        self.differences(commit).map_err(|source| self.failed("compare two commits", source))
    }

    fn differences(&self, commit: &CommitId) -> Result<Touched, Source> {
        let Some(before) = self.before(commit) else { return Ok(Touched::Everything) };
        let root =
            |id: &CommitId| -> Result<_, Source> { Ok(self.repo.find_commit(object_id(id))?.tree_id()?.detach()) };
        let [old, new] = [entries(&self.repo, root(&before)?)?, entries(&self.repo, root(commit)?)?];
        let is_other = |name: &str| old.get(name.as_bytes()) != new.get(name.as_bytes());
        if is_other("fleet.yaml") || is_other("hosts") {
            return Ok(Touched::Everything);
        }
        let apps = |of: &std::collections::BTreeMap<Vec<u8>, (gix::ObjectId, bool)>| match of.get("apps".as_bytes()) {
            Some((id, true)) => entries(&self.repo, *id),
            _ => Ok(std::collections::BTreeMap::new()),
        };
        let (old, new) = (apps(&old)?, apps(&new)?);
        let names = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name));
        Ok(Touched::Apps(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()))
    }
}
