//! For how long each host could have moved on and did not: one that says for ever that it is about to holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::stage::Stage;
use crate::id::HostName;
use crate::manifest::Rollout;

/// What a host is at that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It could begin.
    MayBegin,
    /// It has begun, and is not there.
    IsAtWork,
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

impl Awaited {
    /// A host that others wait for by `policy`.
    pub fn new(host: HostName, step: Step, policy: &Rollout) -> Awaited {
        let deadline = policy.bake.saturating_add(policy.progress_deadline);
        Awaited { host, step, deadline, longest_gap: policy.silent_after }
    }
}

/// For how long hosts were seen to be on their way to a release, and not to get there.
///
/// The times add up for as long as the same release spreads, whatever a host says in between: nobody gains by changing its word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    waited: BTreeMap<HostName, Waited>,
    /// Those that could have begun long ago, and those that have been at work for too long: few, in a fleet that is well.
    idle: BTreeSet<HostName>,
    stuck: BTreeSet<HostName>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waited {
    idle: Duration,
    busy: Duration,
    last: Option<(Step, Timestamp)>,
}

impl Overdue {
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
            self.add(it, step, long);
        }
        for (host, Awaited { step, .. }) in awaited {
            self.waited.entry(host.clone()).or_default().last = Some((*step, now));
        }
    }

    /// Takes a host's own word for how long it has been at it.
    pub fn believe(&mut self, awaited: &Awaited, long: Duration) {
        self.add(awaited, awaited.step, long);
    }

    fn add(&mut self, Awaited { host, deadline, .. }: &Awaited, step: Step, long: Duration) {
        let waited = self.waited.entry(host.clone()).or_default();
        let (total, late) = match step {
            Step::MayBegin => (&mut waited.idle, &mut self.idle),
            Step::IsAtWork => (&mut waited.busy, &mut self.stuck),
        };
        *total = total.saturating_add(long);
        if *total > *deadline {
            late.insert(host.clone());
        }
    }

    /// Says how far a host counts that is at `stage` by its own word.
    pub fn stage(&self, host: &HostName, stage: Stage) -> Stage {
        match stage {
            Stage::Changing if self.stuck.contains(host) => Stage::Stuck,
            Stage::Baking if self.stuck.contains(host) => Stage::Idle,
            Stage::Waiting if self.idle.contains(host) => Stage::Idle,
            stage => stage,
        }
    }
}
