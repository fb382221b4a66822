//! What a sign of life is: where hosts publish theirs, where those of others are kept, and which commits can be one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use gix::ObjectId;
use gix::objs::{CommitRefIter, Kind};
use spec::id::HostName;

/// Where other hosts' signs of life are kept: apart from ours, so that nothing a remote sends overwrites what we report.
pub(super) const HEARD: &str = "refs/mainstay/heard/";

/// Where signs of life are published.
pub(super) const SEEN: &str = "refs/mainstay/seen/";

/// The largest note that is written or read, in bytes.
pub(super) const MAX_NOTE: u64 = 64 << 10;

/// The longest commit that is taken for a sign of life, in bytes: a note and what stands around it.
pub(super) const MAX_SIGN: u64 = MAX_NOTE + (4 << 10);

/// Whose signs of life are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Those of these hosts; who never gave one is left out.
    Some(BTreeSet<HostName>),
    /// Everybody's.
    All,
}

/// What came of asking for the other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// They were not asked for, or it failed.
    Nothing,
    /// They said what is known here.
    Same,
    /// Some said something new.
    News,
}

impl Heard {
    /// Adds what came of asking apart for some who were left out: whatever that is, the others were heard.
    pub(super) fn or(self, more: Heard) -> Heard {
        if more == Heard::News { Heard::News } else { self }
    }
}

/// Who is not heard, and why not.
#[derive(Default)]
pub(super) struct Deaf {
    /// In whose refs something stands that is no sign of life or cannot be had, and what.
    pub(super) refused: BTreeMap<HostName, ObjectId>,
    /// Hosts that could not be had together, as one of them may be such a one; they are asked for apart from the others.
    pub(super) suspects: Vec<Vec<HostName>>,
    /// How many of those there were, since this process began.
    pub(super) count: u64,
    /// Since when a list of everybody had too many names.
    pub(super) crowded: Option<Instant>,
    /// Who is asked for by name then.
    pub(super) members: BTreeSet<HostName>,
}

/// Says whether an object can be a sign of life: a commit that stands alone and has nothing in it but what it says. Anything else may
/// lead to any amount of anything.
pub(super) fn is_sign(kind: Kind, bytes: &[u8]) -> bool {
    if kind != Kind::Commit || bytes.len() as u64 > MAX_SIGN {
        return false;
    }
    let hash = gix::hash::Kind::Sha1;
    let mut commit = CommitRefIter::from_bytes(bytes, hash);
    commit.tree_id().is_ok_and(|tree| tree.is_empty_tree()) && commit.parent_ids().next().is_none()
}
