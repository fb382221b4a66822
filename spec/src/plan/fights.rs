//! Somebody else wants it otherwise: when this agent put the same thing back again and again and each time it changed again,
//! it stops, says so, and waits for a commit or a person. A service that dies by itself is another matter, with its own rule.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::id::{AppName, ResourceId};
use crate::memory::{Fight, Memory};
use crate::plan::{Action, Plan, Step, Why};

/// So often something is put back within [`WINDOW`].
pub const REPAIRS: usize = 5;
/// The time in which repairs count.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// Says whether a repair at `now` counts no longer. A clock that was set back makes nothing count for ever.
fn is_past(repair: Timestamp, now: Timestamp) -> bool {
    now.duration_since(repair).abs() >= WINDOW
}

/// Says whether something is no longer put back.
pub(super) fn is_lost(fight: &Fight, now: Timestamp) -> bool {
    fight.lost || fight.repairs.iter().filter(|repair| !is_past(**repair, now)).count() >= REPAIRS
}

/// Notes what a plan put back, and what it does not put back any more; forgets the fights that are over. Nothing is
/// remembered of what nobody fights over.
pub(crate) fn remember<'p>(
    memory: &mut Memory,
    plan: &Plan,
    done: impl Iterator<Item = &'p Step>,
    release: impl Fn(&AppName) -> Option<crate::digest::Digest>,
    now: Timestamp,
) {
    let put_back: BTreeSet<(&AppName, ResourceId)> = done
        .filter(|step| plan.puts_back(step))
        .filter_map(|step| Some((step.app.as_ref()?, step.action.resource()?)))
        .collect();
    for (app, id) in put_back {
        let Some(release) = release(app) else { continue };
        let begun = Fight { app: app.clone(), release, repairs: Vec::new(), lost: false };
        let fight = memory.fights.entry(id).or_insert_with(|| begun.clone());
        if fight.release != release || fight.app != *app {
            *fight = begun;
        }
        fight.repairs.push(now);
    }
    for id in plan.contested.keys() {
        if let Some(fight) = memory.fights.get_mut(id) {
            fight.lost = true;
        }
    }
    memory.fights.retain(|id, fight| {
        let goes_on = plan.contested.contains_key(id) || fight.repairs.last().is_some_and(|last| !is_past(*last, now));
        if !fight.lost {
            fight.repairs.retain(|repair| !is_past(*repair, now));
        }
        goes_on && release(&fight.app) == Some(fight.release)
    });
}

impl Plan {
    /// Says whether a step puts back what somebody changed: not what follows from another step, and not what died by itself.
    fn puts_back(&self, step: &Step) -> bool {
        let follows = self.steps.iter().any(|other| match &other.action {
            Action::WriteFile(path, _) => step.reads.contains(path),
            _ => false,
        });
        matches!(step.why, Why::Drifted(_)) && !step.revives() && !follows
    }
}
