//! Which failure condemns a release, and how an application fares that is held back.
//!
//! A release is condemned when the change to it failed by its own fault and there is a good one to go back to. Failures of
//! drift repair never condemn: the release was reached.

use jiff::Timestamp;
use spec::desired::{HeldBack, Hold};
use spec::id::AppName;
use spec::memory::{AppMemory, AppState, Bad, Failure, Memory};
use spec::plan::Plan;

use super::baking::{End, STOP};
use super::next;
use crate::apply::{Blame, Outcome};
use crate::belief::Belief;

/// One application after a pass.
pub(super) struct Case<'a> {
    pub(super) app: &'a AppName,
    pub(super) held: Option<&'a HeldBack>,
    pub(super) plan: &'a Plan,
    pub(super) outcome: &'a Outcome,
    /// What becomes of its release if that fails.
    pub(super) end: End,
    /// Its release had been reached before.
    pub(super) settled: bool,
    pub(super) now: Timestamp,
}

/// Names the state of an application that is at a release: other words when it is not the commit's, or not well.
pub(super) fn named(state: AppState, held: Option<&HeldBack>, unhealthy: Option<&String>) -> AppState {
    match (state, held.map(|held| &held.why)) {
        (AppState::Converged | AppState::Repaired, _) if unhealthy.is_some() => AppState::Unhealthy,
        (AppState::Converged | AppState::Repaired, Some(Hold::Bad | Hold::Stuck(_))) => AppState::RolledBack,
        (AppState::Converged | AppState::Repaired, Some(Hold::Waits(_) | Hold::Paused)) => AppState::Waiting,
        _ => state,
    }
}

/// Condemns the release that failed, or gives up going back.
pub(super) fn judge(after: &mut AppMemory, before: Option<&AppMemory>, case: &Case<'_>) {
    let Some(Hold::Bad) = case.held.map(|held| &held.why) else {
        if let (Some(failure), true) = (&after.failure, is_condemned(case)) {
            let (text, commit) = (failure.text.clone(), after.commit.clone());
            let stuck = (case.end == End::Stop).then(|| STOP.to_owned());
            after.bad = Some(Bad { digest: after.digest, commit, text, since: case.now, stuck });
        }
        return;
    };
    after.bad = before.and_then(|before| before.bad.clone());
    let gives_up = !case.settled && is_own_fault(case);
    if let (Some(failure), Some(bad), true) = (&mut after.failure, &mut after.bad, gives_up) {
        bad.stuck = Some(failure.text.clone());
        failure.text = stuck(bad, &failure.text);
    }
}

fn is_condemned(case: &Case<'_>) -> bool {
    !case.settled && case.end != End::None && case.held.is_none() && is_own_fault(case)
}

/// Says whether everything that failed is the release's own fault: while something around it is in trouble too, nothing
/// is known of the release.
fn is_own_fault(case: &Case<'_>) -> bool {
    let failed = case.outcome.failed.get(case.app).map(Vec::as_slice).unwrap_or_default();
    let conflicts = case.plan.conflicts.iter().any(|conflict| conflict.app == *case.app);
    let unknown = case.plan.unknown.iter().any(|unknown| unknown.app == *case.app);
    !failed.is_empty() && failed.iter().all(|failure| failure.blame == Blame::Release) && !conflicts && !unknown
}

/// Says that an application could not go back, why, and why it had to.
fn stuck(bad: &Bad, why: &str) -> String {
    format!("could not go back to the last good release, a person is needed: {why}\nit had to go back: {}", bad.text)
}

/// Takes into memory that nothing of an application was touched.
pub(super) fn fold_untouched(memory: &mut Memory, belief: &Belief, app: &AppName, held: &HeldBack, now: Timestamp) {
    match &held.why {
        Hold::Waits(_) => {
            let mut known = memory.apps.remove(app).unwrap_or_else(|| {
                let mut fresh = next(None, belief, app, AppState::Waiting, now, None);
                (fresh.reached, fresh.commit) = (false, belief.commit.clone());
                fresh
            });
            if known.state != AppState::Waiting {
                (known.state, known.since) = (AppState::Waiting, now);
            }
            (known.failure, known.bad) = (None, None);
            memory.apps.insert(app.clone(), known);
        }
        Hold::Stuck(why) => {
            let Some(known) = memory.apps.get_mut(app) else { return };
            let Some(bad) = known.bad.as_mut().filter(|bad| bad.stuck.is_none()) else { return };
            bad.stuck = Some(why.clone());
            known.failure = Some(Failure { text: stuck(bad, why), count: 1, not_before: now });
            if known.state != AppState::Failed {
                (known.state, known.since) = (AppState::Failed, now);
            }
        }
        Hold::Bad | Hold::Paused => {}
    }
}
