//! What a pause keeps from being done, and what others must know of that.

use crate::desired::{Desired, Hold};
use crate::id::{AppName, HostPath, ResourceId};
use crate::memory::Memory;
use crate::pause::Pauses;
use crate::plan::{Draft, Lesson, Plan, Step};

/// Returns what is wanted and remembered as if nothing were paused.
pub(super) fn without(desired: &Desired, memory: &Memory) -> (Desired, Memory) {
    let (mut desired, mut memory) = (desired.clone(), memory.clone());
    memory.pauses = Pauses::default();
    desired.held_back.retain(|_, held| held.why != Hold::Paused);
    (desired, memory)
}

/// Takes up which of the steps that would be done without any pause are left out for one.
pub(super) fn postpone(plan: &mut Plan, mut steps: Vec<Step>) {
    steps.retain(|step| step.app.as_ref().map_or(plan.pauses.host.is_some(), |app| plan.is_paused(app)));
    plan.postponed = steps;
}

impl Draft<'_> {
    /// Returns the application that something is remembered of, where that is paused and another one than wants it now.
    pub(super) fn paused_owner(&self, id: &ResourceId, wants: &AppName) -> Option<&AppName> {
        let owner = match id {
            ResourceId::Unit(unit) => self.memory.units.get(unit).map(|known| &known.app),
            ResourceId::File(_) | ResourceId::Container(_) | ResourceId::Network(_) | ResourceId::Volume(_) => {
                self.memory.owned.get(id).map(|owned| &owned.app)
            }
        };
        owner.filter(|owner| *owner != wants && self.plan.is_paused(owner))
    }

    /// Forgets what was learnt of the things that another application takes over from a paused one: they are still its.
    pub(super) fn leave_with_paused(&mut self) {
        let lessons = std::mem::take(&mut self.plan.lessons);
        let stays = |lesson: &Lesson| match lesson {
            Lesson::Made(id, app) | Lesson::Moved(id, app) => self.paused_owner(id, app).is_some(),
            Lesson::Runs(unit, app, ..) => self.paused_owner(&ResourceId::Unit(unit.clone()), app).is_some(),
            Lesson::Gone(_)
            | Lesson::Holds(..)
            | Lesson::ReadsAnew(_)
            | Lesson::Released(_)
            | Lesson::Owes(_)
            | Lesson::OwesReload(_) => false,
        };
        self.plan.lessons = lessons.into_iter().filter(|lesson| !stays(lesson)).collect();
    }

    /// Says for what it waits that needs `path`, where an application of which nothing is touched keeps that from being put in
    /// place.
    pub(super) fn held_by_another(&self, path: &HostPath) -> Option<String> {
        let is_held = |app: &AppName| self.desired.held_back.get(app).is_some_and(|held| held.is_untouched);
        let is_paused = |app: &AppName| self.plan.is_paused(app);
        let mut owners = self.desired.apps.iter().filter(|(_, wanted)| wanted.files.contains_key(path));
        let (holder, _) = owners.find(|(app, _)| is_paused(app) || is_held(app))?;
        let why = if is_paused(holder) { "paused" } else { "held back" };
        Some(format!("waits for {path} of {holder}, which is {why}"))
    }
}
