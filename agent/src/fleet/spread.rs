//! How far a commit has come: which hosts run a release that contains it, by ancestry.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spec::id::{AppName, CommitId, HostName};
use spec::memory::AppState;

use super::{Reading, Row};
use crate::git::Mirror;

/// How far a commit has come with one application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spread {
    /// Where a release runs that contains it.
    pub runs: BTreeSet<HostName>,
    /// Where such a release is on its way, and how far it is.
    pub coming: BTreeMap<HostName, &'static str>,
    /// Where it failed.
    pub failed: BTreeSet<HostName>,
    /// Where it is not yet.
    pub missing: BTreeSet<HostName>,
    /// Where it is not, and which have said nothing for too long, or never.
    pub unheard: BTreeSet<HostName>,
}

/// How far a commit is on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// A release that contains it runs.
    Runs,
    /// One is on its way.
    Coming(&'static str),
    /// It failed.
    Failed,
    /// It has not begun.
    Not,
}

/// Which commits contain one, each found out once.
pub struct Contained<'m> {
    mirror: &'m Mirror,
    commit: CommitId,
    known: BTreeMap<CommitId, bool>,
}

impl<'m> Contained<'m> {
    /// Begins to find out which commits contain `commit`.
    pub fn new(mirror: &'m Mirror, commit: &CommitId) -> Contained<'m> {
        Contained { mirror, commit: commit.clone(), known: BTreeMap::new() }
    }

    /// Says whether `later` contains it. A commit that is not here does not: it is from before a shallow clone begins, or was
    /// thrown away.
    pub fn by(&mut self, later: &CommitId) -> bool {
        let (mirror, commit) = (self.mirror, &self.commit);
        *self.known.entry(later.clone()).or_insert_with(|| mirror.is_ancestor(commit, later).unwrap_or(false))
    }
}

/// Says how far a commit is with one application on one host.
pub fn has(row: &Row<'_>, contained: &mut Contained<'_>) -> Has {
    let (Some(said), Some(record), Some(release)) = (row.said, &row.known.record, row.release()) else {
        return Has::Not;
    };
    if contained.by(release) {
        return match said.state {
            AppState::Applying | AppState::Failed if said.runs.is_some() => Has::Runs,
            AppState::Applying => Has::Coming("applying"),
            AppState::Failed => Has::Failed,
            // What waits or went back is a newer one.
            AppState::Waiting if said.runs.is_none() => Has::Coming("waiting"),
            _ => Has::Runs,
        };
    }
    if !contained.by(&record.commit) {
        return Has::Not;
    }
    match said.state {
        AppState::Failed | AppState::RolledBack => Has::Failed,
        _ if said.bad.is_some() => Has::Failed,
        state => Has::Coming(state.as_str()),
    }
}

/// Says how far a commit has come with each of some applications.
pub fn spread<'r>(
    reading: &'r Reading,
    contained: &mut Contained<'_>,
    is_meant: impl Fn(&AppName) -> bool,
) -> BTreeMap<&'r AppName, Spread> {
    let mut all: BTreeMap<&AppName, Spread> = BTreeMap::new();
    for row in reading.rows().filter(|row| is_meant(row.app)) {
        let spread = all.entry(row.app).or_default();
        let host = row.host.clone();
        match has(&row, contained) {
            Has::Runs => drop(spread.runs.insert(host)),
            Has::Failed => drop(spread.failed.insert(host)),
            _ if row.known.is_silent || !row.known.is_reported() => drop(spread.unheard.insert(host)),
            Has::Coming(state) => drop(spread.coming.insert(host, state)),
            Has::Not => drop(spread.missing.insert(host)),
        }
    }
    all
}
