//! What waits for its turn in a rollout: it keeps what it has, and what moves between applications is there all the time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spec::course::{self, Release};
use spec::desired::{Desired, DesiredApp, Hold};
use spec::handover;
use spec::id::{AppName, ResourceId};
use spec::memory::Memory;
use spec::plan::{Action, Patience};

use crate::strategy::{self, shape};
use crate::world::{self, Kill, World};

/// Lets those applications wait whose bits are set, of those that change or go, and those that cannot go without them.
fn waiting(wanted: &Desired, memory: &Memory, good: &BTreeMap<AppName, Release>, bits: u8) -> BTreeMap<AppName, Hold> {
    let pending = course::pending(wanted, memory);
    let waits = strategy::apps(bits).into_iter().filter(|app| pending.contains(app));
    let mut holds = waits.map(|app| (app, Hold::Waits("its turn has not come".to_owned()))).collect();
    handover::together(wanted, memory, good, &mut holds);
    holds
}

/// Names everything that a host is to have.
fn all(desired: &Desired) -> BTreeSet<ResourceId> {
    desired.apps.values().flat_map(DesiredApp::resources).collect()
}

fn restarts(action: &Action) -> bool {
    matches!(
        action,
        Action::RunUnit { .. }
            | Action::PullForUnit(..)
            | Action::PullImage(_)
            | Action::ReplaceContainer(..)
            | Action::CreateContainer(_)
            | Action::StartContainer(..)
    )
}

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn what_waits_for_its_turn_stays_and_what_moves_is_never_gone(
        first in shape(),
        second in shape(),
        waits in 1..8_u8,
        gone in 0..8_u8,
        instants in prop::collection::vec(0..40_usize, 0..3),
    ) {
        let (mut world, mut memory) = (World::default(), Memory::default());
        let good = first.without_drop_ins().desired();
        world.pass(&good, &mut memory, Kill::Never);
        let releases = world::releases(&good);
        let mut wanted = second.without_drop_ins().desired();
        strategy::apps(gone).iter().for_each(|app| drop(wanted.apps.remove(app)));
        let holds = waiting(&wanted, &memory, &releases, waits);
        let held = course::held_back(&wanted, &holds, &releases);
        let is_held = |app: &AppName| holds.contains_key(app);
        let kept = world.of(&memory, is_held);
        let both: BTreeSet<ResourceId> = all(&good).intersection(&all(&wanted)).cloned().collect();
        // What reads a file of another application starts anew when that changes, at whichever release it is.
        let theirs = |desired: &Desired| {
            let files = desired.files().filter(|(app, ..)| !is_held(app));
            files.map(|(_, path, file)| (path.clone(), file.clone())).collect::<BTreeMap<_, _>>()
        };
        let reads_anew = theirs(&good) != theirs(&held);
        for kill in instants.into_iter().map(Kill::After).chain([Kill::Never, Kill::Never]) {
            let plan = world.plan(&held, &memory, Patience::Now);
            for step in plan.steps.iter().filter(|step| step.app.as_ref().is_some_and(is_held)) {
                prop_assert!(reads_anew && restarts(&step.action), "{}\n{plan}", step.action.object());
            }
            world.pass(&held, &mut memory, kill);
            for (id, before) in kept.iter().filter(|(id, _)| !reads_anew || !matches!(id, ResourceId::Container(_))) {
                prop_assert_eq!(&world.look(id), before, "{} waits\n{}", id, plan);
            }
            let is_cut_short = matches!(kill, Kill::After(_));
            for id in both.iter().filter(|id| !is_cut_short && world.has(id) == Some(false)) {
                prop_assert!(false, "{id} is gone, which both commits want:\n{plan}");
            }
        }
        // Everybody's turn comes.
        world.pass(&wanted, &mut memory, Kill::Never);
        let left = world.plan(&wanted, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "left:\n{left}");
        prop_assert_eq!(world.stale(&wanted, &left), Vec::<String>::new());
    }
}
