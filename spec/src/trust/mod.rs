//! Whether a commit is believed: who signed it and all that lead to it.
//!
//! What a repository says of trust changes with commits, and who may sign a commit is what the last such changes say that do not come
//! after it: on a straight line, what its parents say, never what it says itself; beside a branch on which somebody was removed or
//! signatures were introduced, what is said there as well. So whoever is added counts from the next commit on, and whoever was removed
//! signs nothing more, also on branches that never heard of it. Where changes were made beside each other, all of them have to agree.

mod openpgp;
mod signers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use openpgp::verify as verify_openpgp;
pub(crate) use signers::key as fingerprint;
pub use signers::{Fingerprint, Mistake, Reader, Signer, read as read_signers};

use crate::id::CommitId;

/// The namespace that git signs in.
pub const GIT: &str = "git";

/// Which commits have to be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// None.
    None,
    /// The newest of those that arrive together.
    Tip,
    /// Each.
    #[default]
    EveryCommit,
}

/// What a repository, or a host, says about who is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Which commits have to be signed.
    pub require: Require,
    /// Who may sign.
    pub signers: Vec<Signer>,
    /// So many people have to agree to a change of this.
    pub approvals: usize,
    /// The only branch for which this is meant.
    pub branch: Option<String>,
    /// What this history replaces, and does not go on from.
    pub replaces: Vec<CommitId>,
    /// The newest commit is never older than this, or somebody withholds newer ones.
    pub max_age: Option<Duration>,
}

impl Trust {
    /// Believes everything.
    pub fn nobody() -> Trust {
        Trust { require: Require::None, ..Trust::default() }
    }
}

/// What holds on a host, for people to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// Which commits have to be signed.
    pub require: Require,
    /// How many keys may sign.
    pub signers: usize,
    /// When the newest commit that is believed was committed, by its own word.
    pub newest: Timestamp,
    /// How old the newest commit is at most, in seconds, as the repository promises.
    pub max_age: Option<u64>,
}

impl Standing {
    /// Makes that of a commit that says this of trust.
    pub fn of(trust: &Trust, newest: Timestamp) -> Standing {
        let (require, signers) = (trust.require, trust.signers.len());
        Standing { require, signers, newest, max_age: trust.max_age.map(|age| age.as_secs()) }
    }

    /// Says that newer commits may be withheld, if the branch has been quiet for longer than it promises to be. Whoever serves the
    /// repository cannot make a commit, but can hide the newest ones, as if nothing had happened.
    pub fn stale(&self, now: Timestamp) -> Option<String> {
        let promised = Duration::from_secs(self.max_age?);
        let age = Duration::try_from(now.duration_since(self.newest)).unwrap_or_default();
        (age > promised).then(|| {
            format!(
                "the newest commit is of {}, and fleet.yaml promises that there is one every {} (`max-age`): newer ones may be withheld \
                 by whoever serves the repository; if it was just quiet, sign an empty commit (`git commit -S --allow-empty`)",
                self.newest.strftime("%Y-%m-%d %H:%M UTC"),
                crate::length::text(promised)
            )
        })
    }
}

/// A commit, as far as it matters for whether it is believed.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its name.
    pub id: CommitId,
    /// What it goes on from.
    pub parents: Vec<CommitId>,
    /// When it was committed, by its own word.
    pub at: Timestamp,
    /// Who signed it.
    pub signature: Signature,
    /// To which changes of trust its message agrees.
    pub approves: Vec<CommitId>,
    /// What it says of trust; `None` where that cannot be read, which leaves it as it was.
    pub trust: Option<Arc<Trust>>,
}

/// Who signed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Nobody.
    Missing,
    /// Somebody, as a signature says that is not sound.
    Broken(String),
    /// Somebody with a key that nobody here knows, and that is needed to check it.
    Claims(Fingerprint),
    /// Whoever has this key.
    By(Fingerprint),
}

/// Why a commit is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disbelief {
    /// Which one, of those that would have to be believed.
    pub commit: CommitId,
    /// In which way.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

/// In which way a commit is not to be believed; a word for metrics and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not signed.
    Unsigned,
    /// Its signature is broken.
    BadSignature,
    /// Who signed it may not.
    UnknownSigner,
    /// Who signed it may, but not this or not any more.
    NotValid,
    /// Who signed it may, but not yet, by the clock of this host.
    NotYetValid,
    /// Fewer people agree to a change of trust than have to.
    NotApproved,
    /// Nobody may sign anything.
    NoSigners,
}

impl Reason {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unsigned => "unsigned",
            Reason::BadSignature => "bad-signature",
            Reason::UnknownSigner => "unknown-signer",
            Reason::NotValid => "not-valid",
            Reason::NotYetValid => "not-yet-valid",
            Reason::NotApproved => "not-approved",
            Reason::NoSigners => "no-signers",
        }
    }
}

/// What was believed before.
#[derive(Clone, Debug)]
pub struct Before {
    /// The commit; `None` where nothing was, and somebody said whom to trust first.
    pub id: Option<CommitId>,
    /// What it says of trust.
    pub trust: Arc<Trust>,
    /// When it was committed.
    pub at: Timestamp,
}

/// Believes `commits`, each behind its parents, or says which one is not to be believed. The last one is the newest of the branch, and
/// all others lead to it. `outside` says what older commits say of trust that are not in the list.
///
/// # Errors
/// The first of them that is not to be believed, and why.
pub fn believe(
    before: &Before,
    commits: &[Commit],
    outside: impl Fn(&CommitId) -> Option<Arc<Trust>>,
    now: Timestamp,
) -> Result<(), Disbelief> {
    let history = History::of(before, commits, outside, now)?;
    let last = commits.len().saturating_sub(1);
    for (number, commit) in commits.iter().enumerate() {
        let rules = history.rules(number);
        if rules.require == Require::EveryCommit || (rules.require == Require::Tip && number == last) {
            rules.signer(commit, history.at[number])?;
        }
        if rules.approvals > 1 && history.changes.contains_key(&number) {
            history.agreed(&rules, number)?;
        }
    }
    Ok(())
}

/// More changes of trust than this do not arrive at once.
const MOST_CHANGES: usize = 100;

/// What leads from what was believed to the newest commit, by the numbers of the commits.
struct History<'a> {
    before: &'a Before,
    commits: &'a [Commit],
    /// When each was committed: not before any that lead to it, and not in the future.
    at: Vec<Timestamp>,
    /// Those of the list that each goes on from, and whether what was believed before leads to it.
    parents: Vec<Vec<usize>>,
    goes_on: Vec<bool>,
    /// The last changes of trust that lead to each.
    above: Vec<BTreeSet<usize>>,
    /// Those that change what is said of trust, and what each of them goes on from.
    changes: BTreeMap<usize, Vec<bool>>,
    /// What is named by the parents of each.
    named: Vec<BTreeSet<Fingerprint>>,
}

/// What holds at a commit: what it says, and which changes that comes from; none where it is older than what was believed before.
#[derive(Clone)]
struct Holding {
    says: Arc<Trust>,
    changes: BTreeSet<usize>,
    goes_on: bool,
}

impl<'a> History<'a> {
    fn of(
        before: &'a Before,
        commits: &'a [Commit],
        outside: impl Fn(&CommitId) -> Option<Arc<Trust>>,
        now: Timestamp,
    ) -> Result<History<'a>, Disbelief> {
        let mut history = History {
            before,
            commits,
            at: Vec::new(),
            parents: Vec::new(),
            goes_on: Vec::new(),
            above: Vec::new(),
            changes: BTreeMap::new(),
            named: Vec::new(),
        };
        let numbers: BTreeMap<&CommitId, usize> = commits.iter().enumerate().map(|(at, it)| (&it.id, at)).collect();
        let mut holdings: Vec<Holding> = Vec::new();
        for (number, commit) in commits.iter().enumerate() {
            let old = |id: Option<&CommitId>| Holding {
                says: id.and_then(&outside).unwrap_or_else(|| Arc::clone(&before.trust)),
                changes: BTreeSet::new(),
                // Where nothing was believed before, everything goes on from that.
                goes_on: before.id.is_none() || id == before.id.as_ref(),
            };
            let known = |id: &CommitId| numbers.get(id).filter(|at| **at < number).copied();
            let parents: BTreeSet<&CommitId> = commit.parents.iter().collect();
            let hold = |id: &&CommitId| known(id).map_or_else(|| old(Some(*id)), |at| holdings[at].clone());
            let mut held: Vec<Holding> = parents.iter().map(hold).collect();
            if held.is_empty() {
                held.push(old(None));
            }
            let earliest = before.at.min(now);
            let times = parents.iter().map(|id| known(id).map_or(earliest, |at| history.at[at]));
            history.at.push(times.max().unwrap_or(earliest).max(commit.at.min(now)));
            history.parents.push(parents.into_iter().filter_map(known).collect());
            history.goes_on.push(held.iter().any(|it| it.goes_on));
            let keys = held.iter().flat_map(|it| it.says.signers.iter().map(|signer| signer.key.clone()));
            history.named.push(keys.collect());
            history.above.push(held.iter().flat_map(|it| &it.changes).copied().collect());
            let left = history.left(&held);
            let said = &left[0].says;
            let is_one = left.iter().all(|it| it.says == *said);
            let says = commit.trust.as_ref().unwrap_or(said);
            // What nobody has to sign by itself changes nobody's rights before the newest commit vouches for it.
            let is_change =
                commit.trust.is_some() && !(is_one && says == said) && history.rules(number).require != Require::Tip;
            let mut changes: BTreeSet<usize> = left.iter().flat_map(|it| &it.changes).copied().collect();
            if is_change {
                history.add(number)?;
                changes = BTreeSet::from([number]);
            }
            let goes_on = history.goes_on[number];
            holdings.push(Holding { says: Arc::clone(says), changes, goes_on });
        }
        Ok(history)
    }

    /// Leaves out what others of them come after.
    fn left<'h>(&self, held: &'h [Holding]) -> Vec<&'h Holding> {
        let covers = |newer: &Holding, older: &Holding| {
            let is_in = |change: &usize| newer.changes.iter().any(|it| it == change || self.changes[it][*change]);
            (newer.goes_on || !older.goes_on) && older.changes.iter().all(is_in)
        };
        let is_over = |newer: &Holding, older: &Holding| covers(newer, older) && !covers(older, newer);
        held.iter().filter(|older| !held.iter().any(|newer| is_over(newer, older))).collect()
    }

    /// Notes that a commit changes what is said of trust.
    fn add(&mut self, number: usize) -> Result<(), Disbelief> {
        if self.changes.len() >= MOST_CHANGES {
            let text = format!("it is one of more than {MOST_CHANGES} that change who is trusted, all at once");
            let commit = self.commits[number].id.clone();
            return Err(Disbelief { commit, reason: Reason::NotApproved, text });
        }
        let mut leads = vec![false; self.commits.len()];
        let mut open = vec![number];
        while let Some(at) = open.pop() {
            for parent in &self.parents[at] {
                if !leads[*parent] {
                    leads[*parent] = true;
                    open.push(*parent);
                }
            }
        }
        self.changes.insert(number, leads);
        Ok(())
    }

    /// Says what is asked of a commit: by the last changes that lead to it, which may add somebody, and by the last that do not come
    /// after it, which may only leave somebody out. Changes beside each other would otherwise vouch for each other.
    fn rules(&self, number: usize) -> Rules<'_> {
        let is_before = |change: &usize| *change != number && !self.changes[change][number];
        let before: BTreeSet<usize> = self.changes.keys().filter(|change| is_before(change)).copied().collect();
        let mut asked: Vec<&Trust> = Vec::new();
        for changes in [&self.above[number], &before] {
            let is_last = |change: &usize| !changes.iter().any(|newer| self.changes[newer][*change]);
            let is_over = changes.iter().any(|change| self.goes_on[*change]);
            asked.extend((!is_over).then_some(&*self.before.trust));
            let last = changes.iter().filter(|change| is_last(change));
            asked.extend(last.filter_map(|change| self.commits[*change].trust.as_deref()));
        }
        asked.retain(|trust| trust.require != Require::None);
        Rules {
            require: asked.iter().map(|trust| trust.require).max().unwrap_or(Require::None),
            approvals: asked.iter().map(|trust| trust.approvals).max().unwrap_or_default(),
            asked,
            named: &self.named[number],
        }
    }

    /// Checks that as many people agree to a change of trust as have to: who signed it, and who says so in another commit.
    fn agreed(&self, rules: &Rules<'_>, number: usize) -> Result<(), Disbelief> {
        let commit = &self.commits[number];
        let agrees = |other: &Commit| other.id == commit.id || other.approves.contains(&commit.id);
        let all = self.commits.iter().zip(&self.at).filter(|(other, _)| agrees(other));
        let people: BTreeSet<&str> =
            all.filter_map(|(other, at)| Some(rules.signer(other, *at).ok()?.principals.as_str())).collect();
        if people.len() >= rules.approvals {
            return Ok(());
        }
        let text = format!(
            "it changes who is trusted, and {} of the {} who have to agree do: somebody else who is trusted already has to sign a \
             commit on top of it that says `Approves: {}`, on a line of its own at the end of its message",
            people.len(),
            rules.approvals,
            commit.id
        );
        Err(Disbelief { commit: commit.id.clone(), reason: Reason::NotApproved, text })
    }
}

/// What is asked of a commit.
struct Rules<'a> {
    require: Require,
    approvals: usize,
    /// What was said last, of those who ask for signatures: all of them have to trust who signed it.
    asked: Vec<&'a Trust>,
    /// Whom its parents name.
    named: &'a BTreeSet<Fingerprint>,
}

impl<'a> Rules<'a> {
    /// Returns who signed a commit, if that counts.
    fn signer(&self, commit: &Commit, at: Timestamp) -> Result<&'a Signer, Disbelief> {
        let refused = |reason, text: String| Disbelief { commit: commit.id.clone(), reason, text };
        let key = match &commit.signature {
            _ if self.asked.iter().any(|trust| trust.signers.is_empty()) => {
                let text = "nobody may sign here: the file of the signers names no usable key".to_owned();
                return Err(refused(Reason::NoSigners, text));
            }
            Signature::Missing => return Err(refused(Reason::Unsigned, "it is not signed".to_owned())),
            Signature::Broken(why) => {
                return Err(refused(Reason::BadSignature, format!("its signature does not hold: {why}")));
            }
            Signature::Claims(key) => return Err(refused(Reason::UnknownSigner, self.stranger(commit, key))),
            Signature::By(key) => key,
        };
        let mut found = None;
        for trust in &self.asked {
            let mut objection = None;
            let lines = trust.signers.iter().filter(|signer| signer.key == *key);
            let good = lines.clone().find(|signer| {
                let why = signer.objection(GIT, at);
                objection = why.map(|why| {
                    let is_early = signer.is_early(at) && !signer.is_early(commit.at);
                    let reason = if is_early { Reason::NotYetValid } else { Reason::NotValid };
                    refused(reason, format!("it is signed by {} with {key}, who {why}", signer.principals))
                });
                objection.is_none()
            });
            found = match (good, objection) {
                (Some(signer), _) => found.or(Some(signer)),
                (None, Some(objection)) => return Err(objection),
                (None, None) => return Err(refused(Reason::UnknownSigner, self.stranger(commit, key))),
            };
        }
        found.ok_or_else(|| refused(Reason::NoSigners, "nobody may sign here".to_owned()))
    }

    fn stranger(&self, commit: &Commit, key: &Fingerprint) -> String {
        if self.named.contains(key) {
            return format!(
                "it is signed with {key}, which was removed from those who may sign; its branch is older than that: somebody who is \
                 trusted now has to sign these changes again"
            );
        }
        let adds = commit.trust.as_ref().and_then(|trust| trust.signers.iter().find(|signer| signer.key == *key));
        match adds {
            Some(signer) => format!(
                "it is signed with {key}, which is not trusted before this commit: {} counts from the next one on, and somebody \
                 who is trusted already has to sign this one",
                signer.principals
            ),
            None => format!("it is signed with {key}, which is not among those who may sign"),
        }
    }
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {} is not believed ({}): {}", self.commit.short(), self.reason.as_str(), self.text)
    }
}

impl std::error::Error for Disbelief {}

#[cfg(test)]
mod tests;
