//! What must hold of every course of a rollout, whatever the dice say.

use crate::simulator::{Commit, Course, Report, Weather, moment, run};

pub(crate) fn rules(most: &str, failures: &str) -> String {
    format!(
        "rollouts:\n  default:\n    waves: [{{ where: {{ ring: canary }} }}, {{ share: 10% }}, {{ share: 100% }}]\n    bake: 5m\n    \
         max-unavailable: {most}\n    failures: {failures}\n    silent-after: 15m\n"
    )
}

/// Tells a story with as many seeds as usual, or with the range that is asked for.
#[expect(clippy::disallowed_methods, reason = "what a test is asked for is not what the crate decides by")]
pub(crate) fn each_seed(usual: u64, mut story: impl FnMut(u64)) {
    let asked = std::env::var("MAINSTAY_ROLLOUT_SEEDS").ok();
    let seeds = asked.map_or(0..usual, |asked| {
        let (first, end) = asked.split_once("..").expect("a range of seeds: 50..60");
        first.parse().expect("a seed")..end.parse().expect("a seed")
    });
    for seed in seeds {
        let told = Told(seed);
        story(seed);
        drop(told);
    }
}

/// Says how to see a failure again.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with MAINSTAY_ROLLOUT_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}

/// One host in twenty is away, answers and pushes are late now and then or lost, and no two clocks agree.
const USUAL: Weather = Weather {
    offline: 5,
    for_good: 30,
    longest_away: 3000,
    spells: 1,
    no_canaries: false,
    slow: 2,
    slowest: 1500,
    lag: 10,
    lost: 2,
    skew: 300,
    liars: 0,
    restarts: 10,
    longest_change: 90,
};

pub(crate) fn good(at: u64) -> Commit {
    Commit { at, ..Commit::default() }
}

pub(crate) fn bad(at: u64) -> Commit {
    Commit { at, breaks: 100, ..Commit::default() }
}

pub(crate) fn usual(seed: u64, hosts: usize) -> Course {
    Course {
        seed,
        hosts,
        first_hosts: hosts,
        canaries: 1 + hosts / 20,
        rules: rules("2", "0"),
        most_changing: 2,
        commits: vec![good(300)],
        until: 60_000,
        weather: USUAL,
    }
}

/// Everything goes wrong at once: hosts come and go, change slowly, and act upon what they saw long ago.
const ROUGH: Weather =
    Weather { offline: 70, longest_away: 2500, spells: 4, slow: 20, lag: 30, lost: 5, longest_change: 400, ..USUAL };

fn between(seed: u64, least: u64, most: u64) -> usize {
    usize::try_from(least + (seed * 37) % (most - least)).expect("it is small")
}

/// Everybody has the last release who was there.
fn nobody_is_left(course: &Course, report: &Report) {
    assert_eq!(report.left, Vec::<String>::new(), "seed {}, {} hosts: {:?}", course.seed, course.hosts, report.took);
}

#[test]
fn a_good_commit_reaches_everybody_who_is_there() {
    each_seed(50, |seed| {
        let hosts = between(seed, 3, 150);
        let most = hosts / 4 + 1;
        let rules = rules(&most.to_string(), "10%");
        let weather = Weather { liars: 1, ..USUAL };
        let course = Course { rules, most_changing: most, weather, ..usual(seed, hosts) };
        let report = run(&course);
        // In a small fleet one host that moans is more than the share that may fail.
        if report.moaners == 0 {
            nobody_is_left(&course, &report);
            assert!(report.worst > 0, "seed {seed}");
        }
    });
}

#[test]
fn a_bad_commit_stops_at_the_canaries_and_a_good_one_behind_it_goes_on() {
    each_seed(50, |seed| {
        let course = Course { commits: vec![bad(300), good(4000)], ..usual(seed, between(seed, 10, 210)) };
        let report = run(&course);
        let canaries = course.canaries;
        assert!(report.took[1] <= canaries, "seed {seed}: {} took it, of {canaries} canaries", report.took[1]);
        nobody_is_left(&course, &report);
    });
}

#[test]
fn hosts_that_come_and_go_with_answers_that_take_minutes_never_change_together() {
    each_seed(200, |seed| {
        let commits = vec![good(300), good(6000), good(12_000)];
        let course = Course { commits, weather: ROUGH, until: 20_000, ..usual(seed, between(seed, 5, 40)) };
        let alone = Course { rules: rules("1", "0"), most_changing: 1, ..course.clone() };
        run(&course);
        run(&alone);
    });
}

#[test]
fn commits_in_the_middle_of_others_never_change_more_hosts_than_may() {
    each_seed(200, |seed| {
        let pause = 50 + (seed * 53) % 900;
        let commits = (0..20).map(|it| good(300 + it * pause)).collect();
        let weather = Weather { offline: 20, slow: 30, slowest: 400, ..ROUGH };
        let course = Course { canaries: 4, commits, weather, until: 40_000, ..usual(seed, between(seed, 8, 40)) };
        let report = run(&course);
        nobody_is_left(&course, &report);
    });
}

#[test]
fn failures_in_different_waves_count_together() {
    let waves = "waves: [{ where: { ring: canary } }, { share: 20% }, { share: 40% }, { share: 60% }, { share: 100% }]";
    let rules = format!(
        "rollouts: {{ default: {{ {waves}, bake: 5m, max-unavailable: 1, failures: 3, silent-after: 15m }} }}\n"
    );
    each_seed(50, |seed| {
        let (rules, commits) = (rules.clone(), vec![Commit { at: 300, breaks: 25, ..Commit::default() }, good(20_000)]);
        let course = Course { canaries: 2, rules, most_changing: 1, commits, ..usual(seed, 30) };
        let report = run(&course);
        nobody_is_left(&course, &report);
    });
}

#[test]
fn where_all_canaries_are_away_one_host_alone_tries_a_bad_commit() {
    each_seed(50, |seed| {
        let weather = Weather { offline: 0, no_canaries: true, ..USUAL };
        let (rules, commits) = (rules("50%", "0"), vec![bad(300)]);
        let course = Course { canaries: 3, rules, most_changing: 20, commits, until: 6000, weather, ..usual(seed, 40) };
        assert_eq!(run(&course).took[1], 1, "seed {seed}");
    });
}

#[test]
fn nobody_begins_in_a_freeze_by_any_clock_and_everybody_goes_on_after_it() {
    let (from, to) = (1500, 9000);
    let freeze = format!("freezes: [{{ from: \"{}\", to: \"{}\", reason: holidays }}]\n", moment(from), moment(to));
    each_seed(50, |seed| {
        let rules = format!("{}{freeze}", rules("2", "0"));
        let course = Course { rules, commits: vec![good(300), good(2000)], ..usual(seed, between(seed, 20, 120)) };
        let report = run(&course);
        let within = |at: &&(usize, u64)| (from + USUAL.skew..to - USUAL.skew).contains(&at.1);
        assert_eq!(report.began.iter().find(within), None, "seed {seed}");
        nobody_is_left(&course, &report);
    });
}

#[test]
fn who_comes_to_no_end_with_what_it_says_holds_nobody_up_within_the_budget() {
    each_seed(50, |seed| {
        // One in eight hosts lies, one in twenty of all in this way.
        let weather = Weather { liars: 12, ..USUAL };
        let course = Course { rules: rules("9", "9"), most_changing: 9, weather, ..usual(seed, 40) };
        let report = run(&course);
        if report.moaners <= 6 && report.moaning_canaries < 3 {
            nobody_is_left(&course, &report);
        }
    });
}

/// What another commit does to the fleet while a release spreads: the waves, the bake and the budget are others, hosts come and go.
/// Where nobody may fail, the bake stays: one that is made shorter lets pass what would have failed later.
fn fleet_changes(seed: u64, at: u64, hosts: usize, most_failures: u64) -> Commit {
    let rules = format!(
        "rollouts:\n  default:\n    waves: [{{ where: {{ ring: canary }} }}, {{ share: {}% }}, {{ share: 100% }}]\n    bake: {}m\n    \
         max-unavailable: 2\n    failures: {}\n    silent-after: {}m\n",
        10 + (seed * 7) % 80,
        if most_failures == 0 { 5 } else { 3 + seed % 8 },
        seed % (most_failures + 1),
        12 + seed % 9
    );
    // A third of those behind the canaries come or go.
    let (from, to) = (2 * hosts / 3, hosts);
    let members = if seed.is_multiple_of(2) { to } else { from };
    Commit { at, is_same: seed % 5 < 3, rules: Some(rules), hosts: Some(0..members), ..Commit::default() }
}

#[test]
fn rules_and_hosts_that_change_in_the_middle_break_no_rule_and_leave_nobody_behind() {
    each_seed(200, |seed| {
        let hosts = between(seed, 12, 60);
        let mut commits = vec![good(300)];
        commits.extend((0..5).map(|it| fleet_changes(seed + it, 600 + it * (200 + (seed * 53) % 900), hosts, 2)));
        let first_hosts = if seed % 3 == 0 { hosts } else { 2 * hosts / 3 };
        let course = Course { canaries: 3, first_hosts, commits, ..usual(seed, hosts) };
        let report = run(&course);
        nobody_is_left(&course, &report);
    });
}

#[test]
fn a_bad_commit_stays_with_the_canaries_whatever_becomes_of_the_fleet() {
    each_seed(100, |seed| {
        let hosts = between(seed, 12, 60);
        let mut commits = vec![bad(300)];
        let same =
            |it| Commit { is_same: true, ..fleet_changes(seed + it, 350 + it * (30 + (seed * 53) % 300), hosts, 0) };
        commits.extend((0..5).map(same));
        commits.push(Commit { hosts: Some(0..hosts), ..good(9000) });
        let course = Course { canaries: 3, first_hosts: 2 * hosts / 3, commits, ..usual(seed, hosts) };
        let report = run(&course);
        assert!(report.took[1] <= 3, "seed {seed}: {:?}", report.took);
        nobody_is_left(&course, &report);
    });
}
