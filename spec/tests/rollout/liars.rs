//! What one host can do that lies, or says nothing: neither push a rollout forward nor halt it beyond the budget.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spec::id::HostName;
use spec::manifest::Fleet;
use spec::rollout::{self, Change, Gate, Order, Own, Signs, Stage, Standing};

use crate::fleet::{app, commit, fleet, host};
use crate::simulator::moment;

const HOSTS: usize = 12;
const CANARIES: usize = 3;
const BAKE: u64 = 600;

struct Scene {
    fleet: Fleet,
    order: Order,
}

impl Scene {
    fn new(failures: usize, most: usize) -> Scene {
        let fleet = fleet(
            HOSTS,
            CANARIES,
            &format!(
                "rollouts: {{ default: {{ waves: [{{ where: {{ ring: canary }} }}, {{ share: 40% }}, {{ share: 100% }}], bake: 10m, \
                 max-unavailable: {most}, failures: {failures} }} }}\n"
            ),
        );
        let policy = rollout::policy(&fleet, &app(), &host(0));
        let order = rollout::order(&fleet, &app(), &policy, fleet.hosts.keys());
        Scene { fleet, order }
    }

    fn standing(&self, stages: &BTreeMap<HostName, Stage>) -> Standing {
        let policy = rollout::policy(&self.fleet, &app(), &host(0));
        Standing::of(&policy, &self.order, |host| stages[host])
    }

    /// What a host decides that has known of the release for as long.
    fn gate(&self, stages: &BTreeMap<HostName, Stage>, host: &HostName, known_for: u64) -> Gate {
        let (app, commit, now) = (app(), commit(2), moment(known_for));
        let change = Change { app: &app, commit: &commit, host };
        let signs = Signs::Since { first: moment(0), last: now, was_away: false };
        let standing = self.standing(stages);
        match rollout::decide(&self.fleet, &change, &standing, &Own { view: now, signs }, now) {
            Gate::Go => rollout::soaked(&self.fleet, &change, &standing, moment(0), now),
            gate => gate,
        }
    }
}

/// How far an honest host may be while nothing has failed.
fn honest() -> impl Strategy<Value = Stage> {
    use Stage::{Baking, Changing, Done, Silent, Waiting};
    prop::sample::select(vec![Waiting, Waiting, Changing, Baking, Done, Done, Silent])
}

fn stages() -> impl Strategy<Value = BTreeMap<HostName, Stage>> {
    prop::collection::vec(honest(), HOSTS).prop_map(|all| (0..HOSTS).map(host).zip(all).collect())
}

fn liars(most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..HOSTS).collect::<Vec<_>>(), 0..=most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn as_many_as_the_budget_halt_nothing_and_one_more_does(stages in stages(), budget in 0..4usize, moan in liars(5)) {
        let scene = Scene::new(budget, 2);
        let mut lied = stages.clone();
        lied.extend(moan.iter().map(|liar| (host(*liar), Stage::Failed)));
        let standing = scene.standing(&lied);
        prop_assert_eq!(standing.is_halted(), moan.len() > budget);
        for waiting in lied.iter().filter(|(_, stage)| **stage == Stage::Waiting).map(|(host, _)| host) {
            let gate = scene.gate(&lied, waiting, 2 * BAKE);
            prop_assert_eq!(matches!(gate, Gate::Blocked { .. }), moan.len() > budget, "{:?}", gate);
        }
    }

    /// Whatever it says for ever, and however few may change at a time.
    #[test]
    fn who_comes_to_no_end_takes_nobodys_turn(stages in stages(), stuck in liars(3), late in prop::sample::select(vec![Stage::Stuck, Stage::Failed])) {
        let scene = Scene::new(3, 1);
        let with = |stage| {
            let mut lied = stages.clone();
            lied.extend(stuck.iter().map(|liar| (host(*liar), stage)));
            scene.standing(&lied)
        };
        let (lied, away) = (with(late), with(Stage::Silent));
        for host in (0..HOSTS).map(host) {
            prop_assert!(lied.has_room(&host) || !away.has_room(&host), "{}", host);
        }
    }

    #[test]
    fn one_that_boasts_is_worth_no_more_than_one_that_is_silent(
        stages in stages(), liar in 0..HOSTS, most in 1..6usize, known_for in 0..BAKE
    ) {
        let scene = Scene::new(1, most);
        let with = |stage| {
            let mut lied = stages.clone();
            lied.insert(host(liar), stage);
            lied
        };
        let (boasts, is_silent) = (with(Stage::Done), with(Stage::Silent));
        let honestly = is_silent.values().filter(|stage| **stage == Stage::Done).count();
        for other in (0..HOSTS).map(host).filter(|other| boasts[other] == Stage::Waiting) {
            let goes = |stages| scene.gate(stages, &other, known_for) == Gate::Go;
            // Where an honest host says the same, it has baked.
            prop_assert!(!goes(&boasts) || goes(&is_silent) || honestly > 0, "{} goes", other);
        }
    }

    #[test]
    fn where_it_is_alone_with_its_word_nobody_goes_before_the_bake_is_over(liar in 0..CANARIES, known_for in 0..BAKE) {
        let scene = Scene::new(0, 12);
        let stage = |it| match it {
            it if it == liar => Stage::Done,
            it if it < CANARIES => Stage::Silent,
            _ => Stage::Waiting,
        };
        let stages: BTreeMap<HostName, Stage> = (0..HOSTS).map(|it| (host(it), stage(it))).collect();
        for other in (CANARIES..HOSTS).map(host) {
            prop_assert_ne!(scene.gate(&stages, &other, known_for), Gate::Go);
        }
        let after = (CANARIES..HOSTS).map(host).filter(|it| scene.gate(&stages, it, BAKE) == Gate::Go).count();
        prop_assert!(after > 0);
    }

    #[test]
    fn one_that_says_nothing_for_ever_stops_nobody(stages in stages(), quiet in 0..HOSTS) {
        let scene = Scene::new(0, 2);
        // The others have done what they can: who is left waits for nobody who could move on.
        let settled = |stage| match stage {
            Stage::Changing | Stage::Baking => Stage::Done,
            stage => stage,
        };
        let mut stages: BTreeMap<HostName, Stage> =
            stages.into_iter().map(|(host, stage)| (host, settled(stage))).collect();
        stages.insert(host(quiet), Stage::Silent);
        let waiting: Vec<&HostName> = stages.iter().filter(|it| *it.1 == Stage::Waiting).map(|it| it.0).collect();
        let goes = waiting.iter().any(|it| scene.gate(&stages, it, 2 * BAKE) == Gate::Go);
        prop_assert!(waiting.is_empty() || goes);
    }
}
