//! How long a release has to stay healthy before it counts as good, and what becomes of one that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::AppName;
use spec::manifest::OnFailure;
use spec::memory::{AppMemory, AppState, Bad, Failure, Memory};
use spec::plan::Plan;

use crate::belief::Belief;

/// A service that dies so often while its release bakes makes it a bad one.
const DEATHS: u32 = 2;

/// What a look at checks means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing new.
    Nothing,
    /// The application is in another state.
    News,
    /// Its release did not stay healthy for long enough.
    Spoilt,
}

/// Takes in what the checks of an application say now. `kept` says which good release each could go back to.
pub fn checked(
    memory: &mut Memory,
    belief: Option<&Belief>,
    kept: &BTreeMap<AppName, Digest>,
    app: &AppName,
    unhealthy: Option<String>,
    now: Timestamp,
) -> Seen {
    let Some(known) = memory.apps.get_mut(app) else { return Seen::Nothing };
    if let (Some(why), Some(_)) = (&unhealthy, known.baking)
        && spoil(known, why, end(belief, kept, app, known), now)
    {
        return Seen::Spoilt;
    }
    let state = match (&unhealthy, known.state) {
        (Some(_), AppState::Converged | AppState::Repaired | AppState::RolledBack) => AppState::Unhealthy,
        (None, AppState::Unhealthy) if known.bad.is_some() => AppState::RolledBack,
        (None, AppState::Unhealthy) => AppState::Converged,
        (_, state) => state,
    };
    let is_news = known.state != state || known.unhealthy.is_some() != unhealthy.is_some();
    if known.state != state {
        (known.state, known.since) = (state, now);
    }
    if unhealthy.is_some() && known.baking.is_some() {
        known.baking = Some(now);
    }
    known.unhealthy = unhealthy;
    if is_news { Seen::News } else { Seen::Nothing }
}

/// Ends the baking of what has been healthy for long enough, and begins it anew where a service died meanwhile. Returns the
/// applications whose release died again and again.
pub fn bake(
    memory: &mut Memory,
    belief: &Belief,
    kept: &BTreeMap<AppName, Digest>,
    plan: &Plan,
    now: Timestamp,
) -> BTreeSet<AppName> {
    let mut spoilt = BTreeSet::new();
    for (app, known) in &mut memory.apps {
        let Some(since) = known.baking else { continue };
        let bake = belief.policies.get(app).map_or(Duration::ZERO, |policy| policy.bake);
        let died = plan.steps.iter().any(|step| step.app.as_ref() == Some(app) && step.revives());
        let healthy = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if bake.is_zero() || known.going {
            known.baking = None;
        } else if died && known.repairs >= DEATHS {
            let why = "a service of it died again and again";
            if spoil(known, why, end(Some(belief), kept, app, known), now) {
                spoilt.insert(app.clone());
            }
        } else if died || since > now || matches!(known.state, AppState::Failed | AppState::Unhealthy) {
            known.baking = Some(now);
        } else if healthy >= bake {
            known.baking = None;
        }
    }
    spoilt
}

/// Returns how much longer the first of those that bake has to stay healthy.
pub fn rest(memory: &Memory, belief: &Belief, now: Timestamp) -> Option<Duration> {
    let left = memory.apps.iter().filter_map(|(app, known)| {
        let bake = belief.policies.get(app).map_or(Duration::ZERO, |policy| policy.bake);
        let healthy = Duration::try_from(now.duration_since(known.baking?)).unwrap_or_default();
        Some(bake.saturating_sub(healthy))
    });
    left.min()
}

/// What is done with a release that fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It makes room for the last good one.
    Back,
    /// It stays, for a person to look at.
    Stop,
    /// There is nothing to go back to.
    None,
}

/// Says what is done with the release of an application if it fails.
pub(super) fn end(belief: Option<&Belief>, kept: &BTreeMap<AppName, Digest>, app: &AppName, known: &AppMemory) -> End {
    let policy = belief.and_then(|belief| belief.policies.get(app));
    match kept.get(app) {
        _ if policy.is_some_and(|policy| policy.on_failure == OnFailure::Stop) => End::Stop,
        Some(good) if *good != known.digest => End::Back,
        _ => End::None,
    }
}

/// Why nothing is done about a release that failed.
pub(super) const STOP: &str = "its rollout says `on-failure: stop`";

/// Condemns a release that failed while it baked. Says whether that makes a difference.
fn spoil(known: &mut AppMemory, why: &str, end: End, now: Timestamp) -> bool {
    if end == End::None {
        return false;
    }
    known.baking = None;
    let text = format!("it did not stay healthy while it baked: {why}");
    let stuck = (end == End::Stop).then(|| STOP.to_owned());
    known.bad = Some(Bad { digest: known.digest, commit: known.commit.clone(), text: text.clone(), since: now, stuck });
    known.failure = Some(Failure { text, count: 1, not_before: now });
    (known.state, known.since, known.unhealthy) = (AppState::Failed, now, None);
    true
}
