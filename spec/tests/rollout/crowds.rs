//! Ten thousand hosts: a commit that breaks whoever takes it, and a good one behind it.

use crate::courses::{bad, each_seed, good, rules, usual};
use crate::simulator::{Course, Weather, run};

/// Runs one in five of the seeds.
fn ten_thousand(fifth: u64) {
    each_seed(50, |seed| {
        if seed % 5 != fifth {
            return;
        }
        let usual = usual(seed, 10_000);
        let course = Course {
            canaries: 20,
            rules: format!("{}    progress-deadline: 10m\n", rules("5%", "10%")),
            most_changing: 500,
            commits: vec![bad(300), good(2000)],
            until: 24_000,
            weather: Weather { liars: 1, ..usual.weather },
            ..usual
        };
        let report = run(&course);
        assert!(report.took[1] <= 20, "seed {seed}: {:?}", report.took);
        if report.moaning_canaries <= 2 {
            assert!(report.left.is_empty(), "seed {seed}: {} are left: {:?}", report.left.len(), report.left);
        }
    });
}

// Five, so that they run beside each other.

#[test]
fn the_first_fifth_of_the_seeds() {
    ten_thousand(0);
}

#[test]
fn the_second_fifth_of_the_seeds() {
    ten_thousand(1);
}

#[test]
fn the_third_fifth_of_the_seeds() {
    ten_thousand(2);
}

#[test]
fn the_fourth_fifth_of_the_seeds() {
    ten_thousand(3);
}

#[test]
fn the_last_fifth_of_the_seeds() {
    ten_thousand(4);
}
