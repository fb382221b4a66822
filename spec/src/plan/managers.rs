//! Plans what users' managers need: that they run without anybody being logged in, before anything is asked of them.

use crate::desired::UnitGoal;
use crate::id::ResourceId;
use crate::observed::ManagerState;
use crate::plan::{Action, Draft};

/// Plans that each user's manager runs whose units should. Lingering is never taken away again: whoever works on the host may
/// count on it by then, and everything that the user runs would end with it.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    for (app, wanted) in desired.apps.iter().filter(|(_, wanted)| wanted.user.is_some()) {
        let known = wanted.user.as_ref().and_then(|user| draft.observed.managers.get_key_value(user));
        let Some((user, manager)) = known.filter(|(_, manager)| manager.stranger.is_none()) else { continue };
        let is_needed = wanted.units.values().any(|unit| unit.state == Some(UnitGoal::Running));
        // One application has it started for all of them.
        let is_done = draft.starts_manager(user);
        if !is_needed || is_done || draft.observed.units.seen().is_none() || draft.is_aside(app) {
            continue;
        }
        let id = ResourceId::Unit(user.manager());
        if !manager.lingers {
            let why = draft.because(app, &id, "its services are to run without a login");
            draft.step(app, Action::Linger(user.clone()), why);
        }
        if manager.state == ManagerState::Down {
            let why = draft.because(app, &id, "it is not running");
            draft.step(app, Action::StartManager(user.clone()), why);
        }
    }
}
