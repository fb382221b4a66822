//! What a run is made of, and what came of it.

use std::ops::Range;

/// What a run is made of.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) seed: u64,
    /// How many hosts there are, and how many of them are in the fleet at the beginning.
    pub(crate) hosts: usize,
    pub(crate) first_hosts: usize,
    /// The first so many hosts have the label of the canaries.
    pub(crate) canaries: usize,
    /// What fleet.yaml goes on with.
    pub(crate) rules: String,
    /// How many may change at a time, as the rules say it.
    pub(crate) most_changing: usize,
    pub(crate) commits: Vec<Commit>,
    pub(crate) until: u64,
    pub(crate) weather: Weather,
}

/// A commit.
#[derive(Clone, Default)]
pub(crate) struct Commit {
    /// When it arrives.
    pub(crate) at: u64,
    /// How many of a hundred hosts it breaks that take it.
    pub(crate) breaks: u64,
    /// It leaves the application as it is.
    pub(crate) is_same: bool,
    /// What fleet.yaml goes on with from here on, and which hosts are in it, where that changes.
    pub(crate) rules: Option<String>,
    pub(crate) hosts: Option<Range<usize>>,
}

/// What goes wrong by itself.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// How many hosts in a hundred are away, and of them in a hundred for good.
    pub(crate) offline: u64,
    pub(crate) for_good: u64,
    /// For how long the others are away at most, and how often.
    pub(crate) longest_away: u64,
    pub(crate) spells: u64,
    /// All canaries are away for good.
    pub(crate) no_canaries: bool,
    /// Of how many polls in a hundred the answer is acted upon late, and how late at most.
    pub(crate) slow: u64,
    pub(crate) slowest: u64,
    /// How many pushes in a hundred take up to a minute longer, and of how many the answer is lost.
    pub(crate) lag: u64,
    pub(crate) lost: u64,
    /// By how many seconds clocks are ahead or behind at most.
    pub(crate) skew: u64,
    /// Of five hundred hosts as many boast, as many moan, as many cannot push, and as many come to no end with what they say that
    /// they begin, or that they wait for.
    pub(crate) liars: u64,
    /// How many hosts in a hundred have their agent restarted.
    pub(crate) restarts: u64,
    /// How long a change takes at most.
    pub(crate) longest_change: u64,
}

/// What came of a course.
#[derive(Debug)]
pub(crate) struct Report {
    /// The honest hosts that were there and are not at the last release.
    pub(crate) left: Vec<String>,
    /// How many hosts began each release.
    pub(crate) took: Vec<usize>,
    /// How many were changing at the same time at most.
    pub(crate) worst: usize,
    /// Each begin of a release, and when.
    pub(crate) began: Vec<(usize, u64)>,
    /// How many hosts say that what works failed, or come to no end with it, and how many canaries do.
    pub(crate) moaners: usize,
    pub(crate) moaning_canaries: usize,
}
