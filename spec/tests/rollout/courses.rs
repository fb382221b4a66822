//! What must hold of every course of a rollout, whatever the dice say.

use crate::simulator::{Course, SILENT_AFTER, moment, run};

fn rules(most: &str, failures: &str) -> String {
    format!(
        "rollouts:\n  default:\n    waves: [{{ where: {{ ring: canary }} }}, {{ share: 10% }}, {{ share: 100% }}]\n    bake: 5m\n    \
         max-unavailable: {most}\n    failures: {failures}\n    silent-after: 15m\n"
    )
}

/// How many seeds are run: more when asked for.
#[expect(clippy::disallowed_methods, reason = "what a test is asked for is not what the crate decides by")]
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("MAINSTAY_ROLLOUT_SEEDS").ok().map(|text| text.parse().expect("a number of seeds"));
    0..asked.unwrap_or(usual)
}

/// What most courses share: one host in twenty is away, answers and pushes are late now and then, and no two clocks agree.
fn usual(seed: u64, hosts: usize) -> Course {
    Course {
        hosts,
        canaries: 1 + hosts / 20,
        seed,
        offline: 5,
        slow: 2,
        lag: 10,
        skew: 300,
        canaries_are_away: false,
        liars: 0,
        rules: rules("2", "0"),
        most_changing: 2,
        commits: vec![(300, false)],
        until: 30_000,
    }
}

fn between(seed: u64, least: u64, most: u64) -> usize {
    usize::try_from(least + (seed * 37) % (most - least)).expect("it is small")
}

#[test]
fn a_good_commit_reaches_everybody_who_is_there() {
    for seed in seeds(50) {
        let hosts = between(seed, 3, 150);
        let most = hosts / 4 + 1;
        let rules = rules(&most.to_string(), "10%");
        let course = Course { liars: 1, rules, most_changing: most, ..usual(seed, hosts) };
        let report = run(&course);
        // In a small fleet one host that moans is more than the share that may fail.
        if report.moaners == 0 {
            assert_eq!(report.left, Vec::<String>::new(), "seed {seed}, {hosts} hosts: {:?}", report.took);
            assert!(report.worst > 0, "seed {seed}");
        }
    }
}

#[test]
fn a_bad_commit_stops_at_the_canaries_and_a_good_one_behind_it_goes_on() {
    for seed in seeds(50) {
        let hosts = between(seed, 10, 210);
        let course = Course { commits: vec![(300, true), (4000, false)], ..usual(seed, hosts) };
        let report = run(&course);
        let canaries = course.canaries;
        assert!(report.took[1] <= canaries, "seed {seed}: {} took it, of {canaries} canaries", report.took[1]);
        assert_eq!(report.left, Vec::<String>::new(), "seed {seed}, {hosts} hosts: {:?}", report.took);
    }
}

#[test]
fn hosts_that_come_and_go_with_answers_that_take_minutes_never_change_together() {
    for seed in seeds(100) {
        run(&Course {
            canaries: 1,
            offline: 70,
            slow: 30,
            lag: 30,
            rules: rules("1", "0"),
            most_changing: 1,
            commits: vec![(300, false), (4000, false), (9000, false)],
            until: 16_000,
            ..usual(seed, 12)
        });
    }
}

#[test]
fn where_all_canaries_are_away_one_host_alone_tries_a_bad_commit() {
    for seed in seeds(50) {
        let report = run(&Course {
            canaries: 3,
            offline: 0,
            canaries_are_away: true,
            rules: rules("50%", "0"),
            most_changing: 20,
            commits: vec![(300, true)],
            until: 6000,
            ..usual(seed, 40)
        });
        assert_eq!(report.took[1], 1, "seed {seed}");
    }
}

#[test]
fn nobody_begins_in_a_freeze_by_any_clock_and_everybody_goes_on_after_it() {
    let (from, to) = (1500, 9000);
    let freeze = format!("freezes: [{{ from: \"{}\", to: \"{}\", reason: holidays }}]\n", moment(from), moment(to));
    for seed in seeds(50) {
        let hosts = between(seed, 20, 120);
        let rules = format!("{}{freeze}", rules("2", "0"));
        let course = Course { rules, commits: vec![(300, false), (2000, false)], ..usual(seed, hosts) };
        let report = run(&course);
        // What was announced before begins as soon as the others know.
        let late = course.skew + SILENT_AFTER / 4;
        let within = |at: &&(usize, u64)| (from + late..to - course.skew).contains(&at.1);
        assert_eq!(report.began.iter().find(within), None, "seed {seed}");
        assert_eq!(report.left, Vec::<String>::new(), "seed {seed}, {hosts} hosts: {:?}", report.took);
    }
}

#[test]
fn ten_thousand_hosts() {
    for seed in seeds(1) {
        let course = Course {
            canaries: 20,
            liars: 1,
            rules: rules("5%", "10%"),
            most_changing: 500,
            commits: vec![(300, true), (2000, false)],
            until: 20_000,
            ..usual(seed, 10_000)
        };
        let report = run(&course);
        assert!(report.took[1] <= 20, "seed {seed}: {:?}", report.took);
        if report.moaning_canaries <= 2 {
            assert!(report.left.is_empty(), "seed {seed}: {} are left: {:?}", report.left.len(), report.left);
        }
    }
}
