//! The laws of the planner, as properties over a simulated host: converges in one pass, converges after a kill at any
//! instant without losing or repeating a restart, touches only what is its own, changes no more than it must, and comes
//! back whole from a change that failed.
//!
//! 10 000 cases each, and 1 000 of what takes many passes; `PROPTEST_CASES` asks for more.

mod strategy;
mod world;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use spec::course;
use spec::desired::{Desired, DriftPolicy, Policy};
use spec::id::ResourceId;
use spec::memory::Memory;
use spec::pins;
use spec::plan::fights::REPAIRS;
use spec::plan::{Action, Patience};

use strategy::{Shape, Tamper, shape, tampers};
use world::{Kill, World};

pub(crate) fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(10_000), max_shrink_iters: 1_000, ..default }
}

/// The same, with containers taking the place of those that are there, on the networks that are there.
fn adopting(mut desired: Desired) -> Desired {
    for app in desired.apps.values_mut() {
        let networks = app.networks.keys().map(|name| ResourceId::Network(name.clone()));
        let names = app.containers.keys().map(|name| ResourceId::Container(name.clone())).chain(networks);
        app.policies.extend(names.map(|id| (id, Policy { adopt: true, drift: DriftPolicy::Repair })));
    }
    desired
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn converges_in_one_pass_and_is_idempotent(first in shape(), second in shape(), bystanders in any::<u8>()) {
        let mut world = World::with_bystanders(bystanders);
        let mut memory = Memory::default();
        for shape in [&first, &second] {
            let desired = shape.desired();
            world.pass(&desired, &mut memory, Kill::Never);
            let before = world.clone();
            let again = world.plan(&desired, &memory, Patience::Wait);
            prop_assert!(again.steps.is_empty() && again.drift.is_empty(), "not converged:\n{again}\n{:#?}", world);
            prop_assert!(again.lessons.is_empty(), "still learning: {:?}", again.lessons);
            world.pass(&desired, &mut memory, Kill::Never);
            prop_assert_eq!(&before, &world, "the second pass changed the host");
            prop_assert_eq!(world.stale(&desired, &again), Vec::<String>::new());
        }
    }

    #[test]
    fn a_kill_at_any_instant_loses_no_restart_and_repeats_none(
        first in shape(),
        second in shape(),
        tampers in tampers(),
        bystanders in any::<u8>(),
        instant in 0..60_usize,
        again in 0..60_usize,
    ) {
        let mut world = World::with_bystanders(bystanders);
        let mut memory = Memory::default();
        world.pass(&first.desired(), &mut memory, Kill::Never);
        tampers.iter().for_each(|tamper| world.tamper(tamper));
        let starts = world.starts();
        let desired = second.desired();
        let planned = world.plan(&desired, &memory, Patience::Now);
        world.pass(&desired, &mut memory, Kill::After(instant));
        world.pass(&desired, &mut memory, Kill::After(again));
        world.pass(&desired, &mut memory, Kill::Never);
        let left = world.plan(&desired, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "first plan:\n{planned}\nleft:\n{left}\n{memory:#?}");
        prop_assert_eq!(world.stale(&desired, &left), Vec::<String>::new(), "first plan:\n{}", planned);
        for (unit, now) in world.starts() {
            let needed = planned.steps.iter().any(|step| matches!(
                &step.action, Action::RunUnit { unit: name, .. } if *name == unit));
            let count = now - starts.get(&unit).copied().unwrap_or(0);
            prop_assert!(count <= usize::from(needed), "{unit} was started {count} times; first plan:\n{planned}");
        }
    }

    #[test]
    fn what_is_not_ours_is_never_touched(
        first in shape(), second in shape(), tampers in tampers(), bystanders in any::<u8>(), instant in 0..80_usize,
    ) {
        let mut world = World::with_bystanders(bystanders);
        let foreign = world.foreign();
        let mut memory = Memory::default();
        world.pass(&first.desired(), &mut memory, Kill::After(instant));
        tampers.iter().filter(|it| !matches!(it, Tamper::Activate(_))).for_each(|tamper| world.tamper(tamper));
        world.pass(&second.desired(), &mut memory, Kill::Never);
        world.pass(&Shape::default().desired(), &mut memory, Kill::Never);
        prop_assert_eq!(foreign, world.foreign_among(&world.foreign_names(bystanders)));
    }

    #[test]
    fn a_container_that_is_taken_over_is_kept_whenever_the_agent_is_killed(
        first in shape(), second in shape(), instant in 0..80_usize, again in 0..80_usize,
    ) {
        const A_CONTAINER_AND_A_NETWORK: u8 = 8 | 32;
        let mut world = World::with_bystanders(A_CONTAINER_AND_A_NETWORK);
        let mut memory = Memory::default();
        let (first, second) = (adopting(first.desired()), adopting(second.desired()));
        world.pass(&first, &mut memory, Kill::After(instant));
        world.pass(&second, &mut memory, Kill::After(again));
        world.pass(&second, &mut memory, Kill::Never);
        let foreign = world.foreign();
        prop_assert_eq!(foreign.values().collect::<BTreeSet<_>>().len(), 2, "{:?}", foreign);
        prop_assert!(foreign.values().all(|id| ["x", "y"].contains(&id.as_str())), "{foreign:?}");
        let left = world.plan(&second, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "{left}\n{memory:#?}");
        prop_assert!(!left.conflicts.iter().any(|it| it.why.contains("did not create it")), "{left}");
        prop_assert!(memory.adopted.is_empty(), "{memory:#?}");
    }

    #[test]
    fn a_change_touches_what_names_it_and_nothing_else(base in shape(), file in 0..6_usize) {
        let (base, changed) = base.with_a_changed_file(file);
        let mut world = World::default();
        let mut memory = Memory::default();
        world.pass(&base.desired(), &mut memory, Kill::Never);
        let desired = changed.desired();
        let plan = world.plan(&desired, &memory, Patience::Wait);
        let path = strategy::file_path(file);
        for step in &plan.steps {
            match step.action.resource() {
                Some(ResourceId::File(touched)) => prop_assert_eq!(&touched, &path),
                Some(ResourceId::Unit(unit)) => prop_assert!(changed.unit_names_file(&unit, file), "{step}"),
                Some(ResourceId::Container(name)) => prop_assert!(changed.container_mounts(&name, file), "{step}"),
                Some(ResourceId::Network(_) | ResourceId::Volume(_)) => prop_assert!(false, "{step}"),
                None => match &step.action {
                    Action::PullForUnit(unit, _) => prop_assert!(changed.unit_names_file(unit, file), "{step}"),
                    action => prop_assert!(matches!(action, Action::PullImage(_) | Action::FetchArtifact(_)), "{step}"),
                },
            }
        }
        prop_assert!(plan.steps.iter().any(|step| step.action.resource() == Some(ResourceId::File(path.clone()))));
        for unit in changed.running_units_naming(file) {
            let run = plan.steps.iter().any(|it| matches!(&it.action, Action::RunUnit { unit: name, .. } if *name == unit));
            prop_assert!(run, "{unit} names the changed file and is not restarted:\n{plan}");
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(base in shape(), seed in any::<u64>(), tampers in tampers()) {
        let mut world = World::default();
        let mut memory = Memory::default();
        world.pass(&base.desired(), &mut memory, Kill::Never);
        tampers.iter().for_each(|tamper| world.tamper(tamper));
        let straight = world.plan(&base.desired(), &memory, Patience::Wait);
        let shuffled = world.plan(&base.desired_in_order(seed), &memory, Patience::Wait);
        prop_assert_eq!(straight, shuffled);
    }

    #[test]
    fn drift_that_is_only_reported_is_left_alone_and_makes_nobody_run_in_circles(
        shape in shape(), tampers in tampers(), bystanders in any::<u8>(),
    ) {
        let mut world = World::with_bystanders(bystanders);
        let mut memory = Memory::default();
        let (reporting, repairing) = (shape.reporting().desired(), shape.desired());
        world.pass(&reporting, &mut memory, Kill::Never);
        tampers.iter().for_each(|tamper| world.tamper(tamper));
        let first = world.plan(&reporting, &memory, Patience::Wait);
        world.pass(&reporting, &mut memory, Kill::Never);
        let again = world.plan(&reporting, &memory, Patience::Wait);
        prop_assert!(again.steps.is_empty(), "first:\n{first}\nagain:\n{again}");
        let told = |plan: &spec::plan::Plan| {
            plan.drift.iter().map(|step| step.action.object()).collect::<Vec<_>>()
        };
        prop_assert_eq!(told(&first), told(&again), "what is reported stays as it is");
        world.pass(&repairing, &mut memory, Kill::Never);
        let left = world.plan(&repairing, &memory, Patience::Wait);
        prop_assert!(left.steps.is_empty(), "left:\n{left}");
        prop_assert_eq!(world.stale(&repairing, &left), Vec::<String>::new(), "first:\n{}", first);
    }

    #[test]
    fn the_unreachable_is_left_alone(
        first in shape(),
        other in prop::option::of(shape()),
        tampers in tampers(),
        bus in any::<bool>(),
        engine in any::<bool>(),
        alice in any::<bool>(),
    ) {
        let second = other.unwrap_or_else(|| first.clone());
        let mut world = World::default();
        let mut memory = Memory::default();
        world.pass(&first.desired(), &mut memory, Kill::Never);
        tampers.iter().for_each(|tamper| world.tamper(tamper));
        world.bus_away = bus;
        world.engine_away = engine;
        world.alice_away = alice;
        let desired = second.desired();
        let plan = world.plan(&desired, &memory, Patience::Now);
        for step in &plan.steps {
            match step.action.resource() {
                Some(ResourceId::Unit(unit)) => prop_assert!(!bus && (!alice || unit.user().is_none()), "{step}"),
                Some(ResourceId::Container(_) | ResourceId::Network(_) | ResourceId::Volume(_)) => {
                    prop_assert!(!engine, "{step}");
                }
                Some(ResourceId::File(path)) => {
                    let away = bus || (alice && path.quadlet_uid().is_some());
                    prop_assert!(!away || !path.is_of_a_unit(), "{step}");
                }
                None => {}
            }
        }
        world.pass(&desired, &mut memory, Kill::Never);
        (world.bus_away, world.engine_away, world.alice_away) = (false, false, false);
        world.pass(&desired, &mut memory, Kill::Never);
        let left = world.plan(&desired, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "back, and not converged:\n{left}");
        prop_assert_eq!(world.stale(&desired, &left), Vec::<String>::new());
    }

    #[test]
    fn a_failed_change_comes_back_to_exactly_the_good_state(
        first in shape(),
        second in shape(),
        tampers in tampers(),
        failed in 1..8_u8,
        got in 0..80_usize,
        instants in prop::collection::vec(0..40_usize, 0..3),
    ) {
        let (mut world, mut memory) = (World::default(), Memory::default());
        let (first, second) = (first.without_drop_ins(), second.without_drop_ins());
        let good = first.desired();
        world.pass(&good, &mut memory, Kill::Never);
        let releases = world::releases(&good);
        let before = world.clone();
        // The change gets so far, or all the way, before it fails; nothing of the bad release may be left then.
        let wanted = second.desired();
        world.pass(&wanted, &mut memory, Kill::After(got));
        tampers.iter().filter(|it| !matches!(it, Tamper::Activate(_))).for_each(|tamper| world.tamper(tamper));
        world::condemn(&mut memory, &wanted, &releases, failed);
        let held = course::held_back(&wanted, &course::holds(&wanted, &memory, Timestamp::UNIX_EPOCH), &releases);
        let starts = world.starts();
        let planned = world.plan(&held, &memory, Patience::Now);
        for instant in instants {
            world.pass(&held, &mut memory, Kill::After(instant));
        }
        world.pass(&held, &mut memory, Kill::Never);
        let left = world.plan(&held, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "first plan:\n{planned}\nleft:\n{left}");
        prop_assert_eq!(world.stale(&held, &left), Vec::<String>::new(), "first plan:\n{}", planned);
        world.is_back(&before, &held, &left)?;
        for (unit, now) in world.starts() {
            let count = now - starts.get(&unit).copied().unwrap_or(0);
            let needed = planned.steps.iter().any(|step| matches!(
                &step.action, Action::RunUnit { unit: name, .. } if *name == unit));
            prop_assert!(count <= usize::from(needed), "{unit} was started {count} times:\n{planned}");
        }
    }

    #[test]
    fn what_goes_back_is_held_to_its_images_and_let_go_by_the_next_release(
        first in shape(), second in shape(), failed in 1..8_u8, got in 0..80_usize,
        instants in prop::collection::vec(0..40_usize, 0..3), moved: bool, again: bool,
    ) {
        let (mut world, mut memory) = (World::default(), Memory::default());
        let (first, second) = (first.without_drop_ins(), second.without_drop_ins());
        let (good, wanted) = (first.desired(), second.desired());
        world.pass(&good, &mut memory, Kill::Never);
        let releases = world::with_images(world::releases(&good));
        world.pass(&wanted, &mut memory, Kill::After(got));
        world::condemn(&mut memory, &wanted, &releases, failed);
        let found = world::images(moved);
        let held = |memory: &Memory| {
            let mut held = course::held_back(&wanted, &course::holds(&wanted, memory, Timestamp::UNIX_EPOCH), &releases);
            pins::pin(&mut held, &releases, memory, &found);
            held
        };
        for instant in instants {
            let held = held(&memory);
            world.pass(&held, &mut memory, Kill::After(instant));
        }
        let held_to = held(&memory);
        world.pass(&held_to, &mut memory, Kill::Never);
        let stays = held(&memory);
        prop_assert_eq!(pins::all(&held_to), pins::all(&stays), "what is held changes while nothing does");
        let left = world.plan(&stays, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "left:\n{left}");
        prop_assert!(moved || pins::all(&stays).is_empty(), "nothing has moved");
        prop_assert_eq!(world.stale(&stays, &left), Vec::<String>::new());

        // The next commit may be the good one again, or the one that failed and is tried again.
        let next = if again { wanted.clone() } else { good.clone() };
        memory.apps.values_mut().for_each(|known| known.bad = None);
        world.pass(&next, &mut memory, Kill::Never);
        let left = world.plan(&next, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty(), "left:\n{left}");
        if left.held.is_none() {
            prop_assert!(!world.holds_images(), "{left}");
        }
    }

    #[test]
    fn what_is_held_back_never_wants_what_another_one_has(
        first in shape(), second in shape(), failed in 0..8_u8, stuck in 0..8_u8,
    ) {
        let (good, wanted) = (first.desired(), second.desired());
        let releases = world::releases(&good);
        let mut memory = Memory::default();
        world::condemn(&mut memory, &wanted, &releases, failed);
        world::give_up(&mut memory, stuck);
        let held = course::held_back(&wanted, &course::holds(&wanted, &memory, Timestamp::UNIX_EPOCH), &releases);
        let mut seen = BTreeSet::new();
        for (_, path, _) in held.files() {
            prop_assert!(seen.insert(path.to_string()), "{path} is wanted twice");
        }
        for (_, unit, _) in held.units() {
            prop_assert!(seen.insert(unit.to_string()), "{unit} is wanted twice");
        }
        for (_, name, _) in held.containers() {
            prop_assert!(seen.insert(name.to_string()), "{name} is wanted twice");
        }
        for (_, name, _) in held.networks() {
            prop_assert!(seen.insert(name.to_string()), "{name} is wanted twice");
        }
        prop_assert_eq!(held.apps.keys().collect::<Vec<_>>(), wanted.apps.keys().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_paused_gets_no_step_and_is_done_after(
        first in shape(),
        second in shape(),
        tampers in tampers(),
        bystanders in any::<u8>(),
        paused in 0..8_u8,
        total in prop::bool::weighted(0.2),
        held in any::<bool>(),
        begins in prop::bool::weighted(0.8),
        instant in 0..60_usize,
        again in 0..60_usize,
    ) {
        let mut world = World::with_bystanders(bystanders);
        let mut memory = Memory::default();
        let good = first.desired();
        world.pass(&good, &mut memory, Kill::Never);
        let wanted = second.desired();
        // What is owed when the pause begins is owed when it ends.
        if begins {
            world.pass(&wanted, &mut memory, Kill::After(instant));
            world::begin(&mut memory, &wanted);
        }
        tampers.iter().filter(|it| !matches!(it, Tamper::Activate(_))).for_each(|tamper| world.tamper(tamper));
        memory.pauses = strategy::pauses(paused, total);
        let releases = if held { world::releases(&good) } else { BTreeMap::new() };
        let desired = course::held_back(&wanted, &course::holds(&wanted, &memory, Timestamp::UNIX_EPOCH), &releases);
        let others = world.of(&memory, |app| memory.pauses.of(app, Timestamp::UNIX_EPOCH).is_some());
        for kill in [Kill::After(again), Kill::Never, Kill::Never] {
            let plan = world.plan(&desired, &memory, Patience::Now);
            let touches = |step: &&spec::plan::Step| step.app.as_ref().map_or(total, |app| plan.is_paused(app));
            prop_assert!(!plan.steps.iter().any(|step| touches(&step)), "{plan}");
            prop_assert!(plan.postponed.iter().all(|step| touches(&step)), "{plan}");
            world.pass(&desired, &mut memory, kill);
        }
        for (id, before) in others {
            prop_assert_eq!(world.look(&id), before, "{} belongs to what is paused", id);
        }
        memory.pauses.lift(&BTreeSet::new());
        world.pass(&wanted, &mut memory, Kill::Never);
        let left = world.plan(&wanted, &memory, Patience::Now);
        prop_assert!(left.steps.is_empty() && left.postponed.is_empty(), "left:\n{left}\n{memory:#?}");
        prop_assert_eq!(world.stale(&wanted, &left), Vec::<String>::new());
    }
}

proptest! {
    // Each case is a dozen passes.
    #![proptest_config(ProptestConfig { cases: 1_000, ..cases() })]

    #[test]
    fn nothing_is_put_back_for_ever(shape in shape(), tampers in tampers()) {
        let mut world = World::default();
        let mut memory = Memory::default();
        let desired = shape.desired();
        world.pass(&desired, &mut memory, Kill::Never);
        let mut repairs: BTreeMap<ResourceId, usize> = BTreeMap::new();
        for _ in 0..2 * REPAIRS + 2 {
            tampers.iter().for_each(|tamper| world.tamper(tamper));
            let plan = world.plan(&desired, &memory, Patience::Wait);
            let touched: BTreeSet<ResourceId> = plan.steps.iter().filter_map(|it| it.action.resource()).collect();
            touched.into_iter().for_each(|id| *repairs.entry(id).or_default() += 1);
            world.pass(&desired, &mut memory, Kill::Never);
        }
        // Its own repairs, and those that follow from a file that it reads.
        prop_assert!(repairs.values().all(|count| *count <= 2 * REPAIRS), "{repairs:?}");
        prop_assert!(memory.fights.values().all(|fight| fight.repairs.len() <= REPAIRS), "{:?}", memory.fights);
    }
}
