//! What a pass means for each application, as the ledger, the records and `mainstay status` say it.

mod baking;
mod wayback;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use spec::desired::Hold;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, ContainerName, HostName, UnitName};
use spec::inputs;
use spec::memory::{AppMemory, AppState, Failure, Memory};
use spec::pins;
use spec::plan::{Plan, Why};
use spec::record::{AppRecord, Record};
use spec::trust::Standing;

use crate::apply::Outcome;
use crate::belief::Belief;
pub use baking::{Seen, bake, checked, rest};
use wayback::Case;

/// The wait after the first failure; doubled with each further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(20);
/// The longest wait between two attempts.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(30);
/// A death within this time of the last start counts as one of a row.
const SOON: SignedDuration = SignedDuration::from_mins(5);
/// So many starts in a row are made at once.
const FREE_REPAIRS: u32 = 5;
/// How much of what a service printed is kept with its failure.
const SAID: usize = 4_000;

/// Notes which applications a plan is about to change.
pub fn applying(memory: &mut Memory, belief: &Belief, plan: &Plan, now: Timestamp) {
    for (app, wanted) in &belief.desired.apps {
        let touched = plan.steps.iter().any(|step| step.app.as_ref() == Some(app));
        let before = memory.apps.get(app).cloned();
        let same = before.as_ref().is_some_and(|before| before.digest == wanted.digest);
        let begins = |before: &AppMemory| matches!(before.state, AppState::Applying | AppState::Waiting);
        let is_held = belief.desired.held_back.contains_key(app);
        if !touched || is_held || before.as_ref().is_some_and(|before| same && !begins(before)) {
            continue;
        }
        let since =
            before.as_ref().filter(|before| same && before.state == AppState::Applying).map_or(now, |it| it.since);
        memory.apps.insert(app.clone(), next(before, belief, app, AppState::Applying, since, None));
    }
    let removed = |app: &AppName| plan.steps.iter().any(|step| step.app.as_ref() == Some(app));
    let leaving = memory.apps.iter_mut().filter(|(app, _)| !belief.desired.apps.contains_key(app) && removed(app));
    leaving.for_each(|(_, known)| known.going = true);
}

/// Takes what a pass did into the memory of each application. `kept` says which release each could go back to.
pub fn fold(
    memory: &mut Memory,
    belief: &Belief,
    plan: &Plan,
    outcome: &Outcome,
    kept: &BTreeMap<AppName, Digest>,
    now: Timestamp,
) {
    fold_removals(memory, belief, plan, outcome, now);
    for (app, wanted) in &belief.desired.apps {
        let held = belief.desired.held_back.get(app);
        if let Some(held) = held.filter(|held| held.is_untouched) {
            wayback::fold_untouched(memory, belief, app, held, now);
            continue;
        }
        if plan.waiting.contains_key(app) || plan.is_paused(app) {
            continue;
        }
        let before = memory.apps.get(app).cloned();
        let same = before.as_ref().is_some_and(|before| before.digest == wanted.digest);
        let was = before.as_ref().filter(|_| same).map(|before| before.state);
        let done = outcome.done.get(&Some(app.clone())).copied().unwrap_or(0);
        let failure = failure(app, plan, outcome, before.as_ref().filter(|_| same), now);
        let settled = before.as_ref().is_some_and(|before| same && before.reached);
        let touched = plan.steps.iter().any(|step| step.app.as_ref() == Some(app));
        // A step for another application's change is no repair: this one did not drift.
        let repaired = settled
            && done > 0
            && plan.steps.iter().any(|step| step.app.as_ref() == Some(app) && matches!(step.why, Why::Drifted(_)));
        let unknown = plan.unknown.iter().any(|unknown| unknown.app == *app);
        let drifted = plan.drift.iter().any(|step| step.app.as_ref() == Some(app));
        let state = match was {
            _ if failure.is_some() => AppState::Failed,
            _ if outcome.interrupted && (touched || outcome.unchecked.contains(app)) => AppState::Applying,
            Some(was) if unknown && settled => was,
            _ if unknown => AppState::Applying,
            _ if drifted => AppState::Drifted,
            _ if repaired => AppState::Repaired,
            Some(AppState::Repaired) => AppState::Repaired,
            _ => AppState::Converged,
        };
        let unhealthy = match settled {
            true => before.as_ref().and_then(|before| before.unhealthy.clone()),
            false => outcome.unwell.get(app).cloned(),
        };
        let state = wayback::named(state, held, unhealthy.as_ref());
        let again = repaired && state == AppState::Repaired;
        let since = match &before {
            Some(before) if same && before.state == state && !again => before.since,
            _ => now,
        };
        let mut after = next(before.clone(), belief, app, state, since, failure);
        if done > 0 {
            after.changes = done;
        }
        after.unhealthy = unhealthy;
        if !settled && after.reached && held.is_none() {
            after.baking = Some(now);
        }
        let end = baking::end(Some(belief), kept, app, &after);
        wayback::judge(&mut after, before.as_ref(), &Case { app, held, plan, outcome, end, settled, now });
        if let Some(before) = before.as_ref().filter(|before| same && state == before.state) {
            (after.repairs, after.next_repair) = (before.repairs, before.next_repair);
        }
        if repaired && plan.steps.iter().any(|step| step.app.as_ref() == Some(app) && step.revives()) {
            calm_down(&mut after, before.as_ref(), now);
        }
        for name in wanted.containers.keys() {
            if let Some(digest) = outcome.images.get(name) {
                after.images.insert(name.clone(), digest.clone());
            }
        }
        let made: BTreeMap<ContainerName, &UnitName> =
            wanted.units.iter().filter_map(|(unit, it)| Some((inputs::container_of(unit, it)?, unit))).collect();
        for (container, unit) in &made {
            let ran = outcome.unit_images.get(&(app.clone(), (*unit).clone())).and_then(|ran| ran.digest.clone());
            if let Some(image) = pins::held_to(wanted, unit).or(ran) {
                after.images.insert(container.clone(), image);
            }
        }
        after.images.retain(|name, _| wanted.containers.contains_key(name) || made.contains_key(name));
        memory.apps.insert(app.clone(), after);
    }
}

/// Counts starts of a service that died by itself, and lets more and more time pass between them when they follow upon each
/// other: it dies as soon as it is believed to run.
fn calm_down(app: &mut AppMemory, before: Option<&AppMemory>, now: Timestamp) {
    let recent = |before: &&AppMemory| {
        before.state == AppState::Repaired && now.duration_since(before.since) < SOON + LONGEST_WAIT
    };
    app.repairs = before.filter(recent).map_or(0, |before| before.repairs).saturating_add(1);
    let many = app.repairs.saturating_sub(FREE_REPAIRS);
    app.next_repair = (many > 0).then(|| now.saturating_add(wait(many)).unwrap_or(now));
}

/// Takes failed removals into the memory of the applications that go: they are shown, and tried again with back-off.
fn fold_removals(memory: &mut Memory, belief: &Belief, plan: &Plan, outcome: &Outcome, now: Timestamp) {
    let gone = memory.apps.iter_mut().filter(|(app, known)| {
        !belief.desired.apps.contains_key(app) && (outcome.failed.contains_key(app) || known.failure.is_some())
    });
    for (app, known) in gone.filter(|(app, _)| !plan.waiting.contains_key(app) && !plan.is_paused(app)) {
        let before = known.going.then(|| known.clone());
        known.failure = failure(app, plan, outcome, before.as_ref(), now);
        known.going |= known.failure.is_some();
        if known.failure.is_some() && known.state != AppState::Failed {
            (known.state, known.since) = (AppState::Failed, now);
        }
    }
}

fn next(
    before: Option<AppMemory>,
    belief: &Belief,
    app: &AppName,
    state: AppState,
    since: Timestamp,
    failure: Option<Failure>,
) -> AppMemory {
    let wanted = &belief.desired.apps[app];
    let digest = wanted.digest;
    let release = belief.desired.held_back.get(app).map_or(&belief.commit, |held| &held.commit);
    let (changes, images) = before.as_ref().map(|it| (it.changes, it.images.clone())).unwrap_or_default();
    let had_reached = before.as_ref().is_some_and(|before| before.digest == digest && before.reached);
    let baking = before.as_ref().filter(|before| before.digest == digest).and_then(|before| before.baking);
    let (commit, from) = match before {
        Some(before) if before.digest == digest => (before.commit.or_else(|| release.clone()), before.from),
        Some(before) => (release.clone(), before.commit),
        None => (release.clone(), None),
    };
    let reached = !matches!(state, AppState::Applying | AppState::Failed);
    let (repairs, next_repair) = (0, None);
    AppMemory {
        state,
        since,
        reached: reached || had_reached,
        digest,
        commit,
        from,
        changes,
        images,
        repairs,
        next_repair,
        going: false,
        baking,
        failure,
        needs: wanted.needs.clone(),
        bad: None,
        unhealthy: None,
    }
}

/// Puts together why an application failed, and when it is tried again.
fn failure(
    app: &AppName,
    plan: &Plan,
    outcome: &Outcome,
    before: Option<&AppMemory>,
    now: Timestamp,
) -> Option<Failure> {
    let failed = outcome.failed.get(app).map(Vec::as_slice).unwrap_or_default();
    let conflicts = plan.conflicts.iter().filter(|conflict| conflict.app == *app);
    let mut text: Vec<String> = failed.iter().map(|failure| failure.text.clone()).collect();
    text.extend(conflicts.map(|conflict| format!("{}: {}", conflict.resource, conflict.why)));
    if text.is_empty() {
        return None;
    }
    let said: Vec<String> =
        failed.iter().flat_map(|it| it.said.trim().lines()).map(|line| format!("  | {line}")).collect();
    // The last lines say why; when there are too many, the first ones go.
    let mut room = SAID;
    let kept = said.iter().rev().take_while(|line| {
        room = room.saturating_sub(line.len());
        room > 0
    });
    let kept = kept.count();
    text.extend(said.into_iter().rev().take(kept).rev());
    let text = text.join("\n");
    if let Some(same) =
        before.and_then(|before| before.failure.as_ref()).filter(|before| failed.is_empty() && before.text == text)
    {
        // Nothing was tried and nothing is new: nothing is written down again.
        return Some(same.clone());
    }
    // A conflict costs nothing to look at again; only what was tried and failed has to wait.
    let count = before.and_then(|before| before.failure.as_ref()).map_or(0, |failure| failure.count).saturating_add(1);
    let not_before = if failed.is_empty() { now } else { now.saturating_add(wait(count)).unwrap_or(now) };
    Some(Failure { text, count, not_before })
}

/// The wait after `count` failures: doubling, bounded, and spread by a quarter so that hosts do not move in step.
fn wait(count: u32) -> SignedDuration {
    let doubled = FIRST_WAIT.as_secs().saturating_mul(1 << count.saturating_sub(1).min(12));
    let longest = doubled.min(LONGEST_WAIT.as_secs());
    SignedDuration::from_secs(longest - fastrand::i64(0..=longest / 4))
}

fn contested(memory: &Memory, app: &AppName) -> Vec<String> {
    let lost = memory.fights.iter().filter(|(_, fight)| fight.app == *app && fight.lost);
    lost.map(|(id, _)| id.to_string()).collect()
}

/// Says whether an application is well at another release than the commit's, since a person paused it.
fn is_kept_behind(memory: &Memory, belief: &Belief, app: &AppName, known: &AppMemory, now: Timestamp) -> bool {
    let desired = &belief.desired;
    let is_held = desired.held_back.contains_key(app);
    let is_another = desired.apps.get(app).is_some_and(|wanted| wanted.digest != known.digest);
    let is_well = matches!(known.state, AppState::Converged | AppState::Repaired);
    is_well && memory.pauses.of(app, now).is_some() && (is_held || is_another)
}

/// Builds the record of this host on the believed commit; `None` for a local folder.
pub fn record(memory: &Memory, belief: &Belief, host: &HostName, now: Timestamp) -> Option<Record> {
    let commit = belief.commit.clone()?;
    let placed = belief.desired.apps.keys().filter_map(|app| Some((app, memory.apps.get(app)?)));
    // What is being removed is there until it is gone.
    let leaving = memory.apps.iter().filter(|(app, _)| !belief.desired.apps.contains_key(*app));
    let apps = placed.chain(leaving).map(|(app, known)| {
        let (state, since) = told(memory, belief, app, known, now);
        let is_held = belief.desired.held_back.contains_key(app) || state == AppState::Waiting;
        let record = AppRecord {
            state,
            since,
            from: known.from.clone(),
            digest: known.digest,
            contested: contested(memory, app),
            images: known.images.clone(),
            changes: known.changes,
            bad: known.bad.as_ref().map(|bad| bad.digest),
            // What was never reached runs nowhere.
            runs: known.commit.clone().filter(|_| {
                (is_held || state == AppState::RolledBack) && (known.reached || state != AppState::Waiting)
            }),
            failure: known.trouble().map(str::to_owned),
        };
        (app.clone(), record)
    });
    let fleet = belief.desired.fleet.clone();
    // Others count no record before one that they know: also one that is written after the loss of this memory is later.
    let counter = (memory.counter + 1).max(u64::try_from(now.as_second()).unwrap_or(0));
    let (apps, told) = (apps.collect(), Vec::new());
    Some(Record { fleet, host: host.clone(), commit, counter, at: now, apps, told })
}

/// Says how an application fares on the way to the believed commit, and since when.
fn told(memory: &Memory, belief: &Belief, app: &AppName, known: &AppMemory, now: Timestamp) -> (AppState, Timestamp) {
    let is_well =
        matches!(known.state, AppState::Converged | AppState::Repaired | AppState::Drifted | AppState::Waiting);
    let waits = belief.desired.held_back.get(app).is_some_and(|held| matches!(held.why, Hold::Waits(_)));
    let is_held = belief.desired.held_back.contains_key(app);
    let state = match (belief.desired.apps.get(app), known.baking) {
        _ if waits && is_well || is_kept_behind(memory, belief, app, known, now) => AppState::Waiting,
        (None, _) if memory.pauses.of(app, now).is_some() => AppState::Waiting,
        (None, _) if known.failure.is_none() => AppState::Applying,
        // It went back to what is wanted again.
        (Some(wanted), _) if !is_held && known.state == AppState::RolledBack && wanted.digest == known.digest => {
            AppState::Converged
        }
        // Nothing was done yet, and it is about to be.
        (Some(wanted), _) if !is_held && is_well && wanted.digest != known.digest => AppState::Applying,
        (Some(_), Some(since)) if matches!(known.state, AppState::Converged | AppState::Repaired) => {
            return (AppState::Baking, since);
        }
        _ => known.state,
    };
    (state, known.since)
}

/// What the agent knows beside its ledger, for `mainstay status`; written when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// A newer commit that is not believed, with why.
    pub refused: Option<(CommitId, String)>,
    /// Why the repository could not be asked, while it could not.
    pub unreachable: Option<String>,
    /// Why the last record could not be pushed, while it could not.
    pub unreported: Option<String>,
    /// Who has to sign what is believed.
    #[serde(default)]
    pub trust: Option<Standing>,
    /// Why newer commits may be withheld, while they may.
    #[serde(default)]
    pub stale: Option<String>,
}

impl Notice {
    /// The file's name in the state folder.
    const NAME: &'static str = "notice.json";

    /// Reads the notice; an empty one when there is none, or none that can be read.
    pub fn read(state: &Path) -> Notice {
        let text = fs::read_to_string(state.join(Notice::NAME)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes the notice, whole.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        let (path, new) = (state.join(Notice::NAME), state.join("notice.json.new"));
        fs::write(&new, serde_json::to_string(self)?)?;
        fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_bounded() {
        for (count, longest) in [(1, 20), (2, 40), (3, 80), (20, 1800), (u32::MAX, 1800)] {
            let secs = wait(count).as_secs();
            assert!(secs <= longest && secs >= longest - longest / 4, "{count}: {secs}");
        }
    }
}
