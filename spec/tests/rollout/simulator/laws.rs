//! What must hold at every moment, told from what really happens and not from what was decided.

use std::rc::Rc;

use jiff::Timestamp;
use spec::manifest::Count;
use spec::memory::AppState;

use super::course::Course;
use super::host::{Nature, SimHost};
use super::moment;
use super::repository::{Entry, Release, Said, Terms};

/// Watches a run.
pub(super) struct Laws {
    /// By which rules the hosts of each commit stand, and the first commit with the same application.
    releases: Vec<(Rc<Terms>, usize)>,
    most_changing: usize,
    /// How many are changing, whether they are in the fleet or not.
    changing: usize,
    /// How many were changing at the same time at most.
    pub(super) worst: usize,
    /// When somebody was healthy for long enough at each release for the first time.
    proven: Vec<Option<u64>>,
    has_boasters: bool,
    seed: u64,
}

/// A host that begins: when, to which release, and what it had seen.
pub(super) struct Begin<'a> {
    pub(super) number: usize,
    pub(super) release: usize,
    /// The newest commit that it knows.
    pub(super) newest: usize,
    pub(super) now: u64,
    /// What every host had said when this one looked, and when that was.
    pub(super) seen: (u64, &'a [Entry]),
}

impl Laws {
    pub(super) fn new(course: &Course, hosts: &[SimHost], releases: &[Release]) -> Laws {
        Laws {
            has_boasters: hosts.iter().any(|host| host.nature == Nature::Boasts),
            proven: vec![None; releases.len()],
            releases: releases.iter().map(|it| (Rc::clone(&it.terms), it.content)).collect(),
            most_changing: course.most_changing,
            changing: 0,
            worst: 0,
            seed: course.seed,
        }
    }

    fn terms(&self, begin: &Begin<'_>) -> &Terms {
        &self.releases[begin.newest].0
    }

    /// Says whether what a commit wants of the application is what a host begins with.
    fn is_same(&self, commit: usize, begin: &Begin<'_>) -> bool {
        self.releases[commit].1 == begin.release
    }

    /// A host begins.
    pub(super) fn begins(&mut self, begin: &Begin<'_>, hosts: &[SimHost]) {
        let host = &hosts[begin.number];
        self.looked_in_time(begin, host);
        // Who cannot tell the others what it does is not counted: they pass it over.
        if host.nature == Nature::Mute {
            return;
        }
        self.changing += 1;
        // Whoever left the fleet counts for nobody who knows that.
        let gone = if self.changing > self.most_changing {
            let members = &self.terms(begin).hosts;
            let others = hosts.iter().enumerate().filter(|(number, _)| !members.contains(number));
            others.filter(|(_, it)| it.nature != Nature::Mute && it.changes().is_some()).count()
        } else {
            0
        };
        let changing = self.changing - gone;
        self.worst = self.worst.max(changing);
        let (seed, name, now) = (self.seed, &host.name, begin.now);
        assert!(
            changing <= self.most_changing,
            "seed {seed}: {changing} hosts change at {now}, of which {} may: {:?}",
            self.most_changing,
            hosts.iter().filter(|it| it.changes().is_some()).map(|it| (&it.name, &it.doing)).collect::<Vec<_>>()
        );
        let before = host.began.iter().rev().nth(1).map_or(0, |(release, _)| *release);
        assert!(before < begin.release, "seed {seed}: {name} went back by itself: {:?}", host.began);
        self.within_the_budget(begin, name.as_str());
        if self.terms(begin).waves[&begin.number] > 0 && !self.has_boasters {
            self.after_those_before(begin, hosts);
        }
    }

    /// Nobody begins by what it saw long ago, or before the others could see that it is about to.
    fn looked_in_time(&self, begin: &Begin<'_>, host: &SimHost) {
        let (seed, name, (at, seen)) = (self.seed, &host.name, begin.seen);
        let longest = self.terms(begin).policy.silent_after.as_secs() / 4;
        let now = begin.now;
        assert!(now - at <= longest, "seed {seed}: {name} begins at {now} by what it saw at {at}");
        let told = seen[begin.number].map(|(said, _)| (said.commit, said.state));
        let is_announced = |(commit, state)| self.is_same(commit, begin) && state == AppState::Applying;
        let is_told = host.nature == Nature::Mute || told.is_some_and(is_announced);
        assert!(is_told, "seed {seed}: {name} begins at {now}, and only {told:?} could be seen of it at {at}");
    }

    /// Nobody begins who could see that more failed than may.
    fn within_the_budget(&self, begin: &Begin<'_>, name: &str) {
        let Count::Hosts(budget) = self.terms(begin).policy.failures else { return };
        let members = &begin.seen.1[self.terms(begin).hosts.clone()];
        let has_failed = |said: &Said| said.bad.is_some_and(|bad| self.is_same(bad, begin));
        let failed = members.iter().flatten().filter(|(said, _)| has_failed(said)).count();
        let budget = usize::try_from(budget).expect("it is small");
        assert!(failed <= budget, "seed {}: {name} begins at {} and saw {failed} fail", self.seed, begin.now);
    }

    /// Nobody begins who could see that somebody of a wave before is at work, or has not been healthy for long enough; nor, where
    /// nobody has been healthy for long enough yet, that somebody else of a later wave tries it.
    fn after_those_before(&self, begin: &Begin<'_>, hosts: &[SimHost]) {
        let waves = &self.terms(begin).waves;
        let wave = waves[&begin.number];
        let (at, seen) = begin.seen;
        let silent_after = self.terms(begin).policy.silent_after.as_secs();
        let is_proven = self.proven[begin.release].is_some_and(|proven| proven <= begin.now);
        let is_busy = |said: &Said| {
            self.is_same(said.commit, begin) && matches!(said.state, AppState::Applying | AppState::Baking)
        };
        // Close to silence the two clocks may differ on what was seen.
        let is_there = |heard: Timestamp| heard > moment(at.saturating_sub(silent_after / 2));
        let all = seen.iter().zip(hosts).enumerate();
        let mut others = all.filter(|(number, _)| {
            *number != begin.number && waves.get(number).is_some_and(|other| *other < wave || !is_proven)
        });
        let busy = others.find(|(_, (entry, it))| {
            // Nobody has to wait for ever.
            it.nature != Nature::Stalls && entry.is_some_and(|(said, heard)| is_busy(&said) && is_there(heard))
        });
        let busy = busy.map(|(_, (entry, it))| (&it.name, entry));
        assert_eq!(busy, None, "seed {}: {} begins at {}", self.seed, hosts[begin.number].name, begin.now);
    }

    /// A host is healthy at a release, or has gone back.
    pub(super) fn ends(&mut self, host: &SimHost) {
        self.changing -= usize::from(host.nature != Nature::Mute);
    }

    /// A host has been healthy for long enough.
    pub(super) fn bakes(&mut self, release: usize, now: u64) {
        self.proven[release].get_or_insert(now);
    }
}
