//! For how long each host could have moved on and did not: one that says for ever that it is about to holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::id::HostName;
use crate::manifest::Rollout;

/// What a host is at that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// It could begin.
    MayBegin,
    /// It changes to something else than what it is to have, which may be what it was to have before.
    ChangesToAnother,
    /// It has begun.
    Changes,
    /// It is healthy, not for long enough.
    Bakes,
    /// It failed, and what was there before does not run either.
    IsDown,
}

/// A host that others wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Which.
    pub host: HostName,
    /// What it is at.
    pub step: Step,
    /// How long it may take for that.
    pub deadline: Duration,
    /// What it was at longer ago than this is not what it was at in between.
    pub longest_gap: Duration,
}

/// Returns how long a host may take for each step by `policy`. Who dies while it bakes begins once more with that.
pub fn deadline(policy: &Rollout) -> Duration {
    policy.bake.saturating_mul(2).saturating_add(policy.progress_deadline)
}

/// For how long hosts were seen to be on their way to a release, and not to get there.
///
/// The times of each step add up for as long as the same release spreads, whatever a host says in between: nobody gains by changing
/// its word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    waited: BTreeMap<HostName, Waited>,
    /// Those for whom it was too long: few, in a fleet that is well.
    late: BTreeMap<Step, BTreeSet<HostName>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Waited {
    long: BTreeMap<Step, Duration>,
    last: Option<(Step, Timestamp)>,
}

impl Overdue {
    /// Says whether nobody was waited for.
    pub fn is_empty(&self) -> bool {
        self.waited.is_empty()
    }

    /// Takes in what those are at that others wait for, of the hosts that were `looked_at` at `now`.
    pub fn note(&mut self, awaited: &[Awaited], looked_at: impl Fn(&HostName) -> bool, now: Timestamp) {
        let mut awaited: BTreeMap<&HostName, &Awaited> = awaited.iter().map(|it| (&it.host, it)).collect();
        awaited.retain(|host, _| looked_at(host));
        let mut passed = Vec::new();
        for (host, waited) in self.waited.iter_mut().filter(|(host, _)| looked_at(host)) {
            if let (Some((step, at)), Some(it)) = (waited.last.take(), awaited.get(host)) {
                let long = Duration::try_from(now.duration_since(at)).unwrap_or_default();
                passed.push((*it, step, long.min(it.longest_gap)));
            }
        }
        for (it, step, long) in passed {
            self.add(&it.host, step, long, it.deadline);
        }
        for (host, Awaited { step, .. }) in awaited {
            self.waited.entry(host.clone()).or_default().last = Some((*step, now));
        }
    }

    /// Takes a host's own word for how long it has been at it.
    pub fn believe(&mut self, Awaited { host, step, deadline, .. }: &Awaited, long: Duration) {
        self.add(host, *step, long, *deadline);
    }

    /// By the deadline of now: a policy that gives more time gives it to those who are late as well.
    fn add(&mut self, host: &HostName, step: Step, long: Duration, deadline: Duration) {
        let total = self.waited.entry(host.clone()).or_default().long.entry(step).or_default();
        *total = total.saturating_add(long);
        let late = self.late.entry(step).or_default();
        match *total > deadline {
            true => drop(late.insert(host.clone())),
            false => drop(late.remove(host)),
        }
    }

    /// Says how far a host counts that is at `stage` by its own word.
    pub fn stage(&self, host: &HostName, stage: Stage) -> Stage {
        let is_late = |step| self.late.get(&step).is_some_and(|hosts| hosts.contains(host));
        match stage {
            Stage::Changing if is_late(Step::Changes) || is_late(Step::ChangesToAnother) => Stage::Stuck,
            // Nothing is on its way there.
            Stage::Down if is_late(Step::IsDown) => Stage::Failed,
            Stage::Baking if is_late(Step::Bakes) => Stage::Idle,
            Stage::Waiting if is_late(Step::MayBegin) => Stage::Idle,
            stage => stage,
        }
    }
}
