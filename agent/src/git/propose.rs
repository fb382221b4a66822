//! A change that a host proposes to people: one commit on a branch of its own, which nobody follows until somebody takes it over.

use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use jiff::Timestamp;
use spec::id::{CommitId, HostName};

use super::error::PushError;
use super::mirror::{Mirror, Source, commit_id, object_id};
use super::notes::author;
use super::push::{Lease, Wanted};
use super::remote::{Deadlines, Remote};

/// Where such branches are.
const PROPOSED: &str = "refs/heads/enrol/";

/// What a host proposes.
pub struct Proposal<'p> {
    /// The host.
    pub host: &'p HostName,
    /// The commit that it goes on from, which the remote has.
    pub base: &'p CommitId,
    /// The file at the root of the repository that is changed.
    pub path: &'p str,
    /// What it is to hold.
    pub content: &'p str,
    /// The message of the commit.
    pub message: &'p str,
    /// When.
    pub at: Timestamp,
}

impl Mirror {
    /// Pushes a proposal, in the place of an earlier one of the same host. Returns the name of the branch, and the commit.
    ///
    /// # Errors
    /// See [`PushError`]; where the host may not push branches it is denied.
    pub fn propose(
        &mut self,
        remote: &Remote,
        proposal: &Proposal<'_>,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<(String, CommitId), PushError> {
        let name = format!("{PROPOSED}{}", proposal.host);
        let other = |source| PushError::Other { url: remote.url.to_string(), name: name.clone(), source };
        let base = object_id(proposal.base);
        let value = self.proposed(base, proposal).map_err(other)?;
        let wanted = [Wanted { name: name.clone(), value, lease: Lease::Branches(base) }];
        self.push(remote, &wanted, deadlines, cancel)?;
        Ok((name.trim_start_matches("refs/heads/").to_owned(), commit_id(value)))
    }

    fn proposed(&self, base: ObjectId, proposal: &Proposal<'_>) -> Result<ObjectId, Source> {
        let blob = self.repo.write_blob(proposal.content.as_bytes())?.detach();
        let root = self.repo.find_commit(base)?.tree_id()?.detach();
        let mut tree: gix::objs::Tree = self.repo.find_tree(root)?.decode()?.into();
        let entry = tree.entries.iter_mut().find(|entry| entry.filename == proposal.path);
        entry.ok_or_else(|| format!("it has no {}", proposal.path))?.oid = blob;
        let tree = self.repo.write_object(&tree)?.detach();
        let author = author(proposal.host, proposal.at);
        let mut buffer = gix::date::parse::TimeBuf::default();
        let author = author.to_ref(&mut buffer);
        Ok(self.repo.new_commit_as(author, author, proposal.message, tree, [base])?.id)
    }
}
