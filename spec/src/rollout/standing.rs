//! Where all hosts of an application stand, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::order::Place;
use super::stage::Stage;
use crate::id::HostName;
use crate::manifest::{Count, Rollout};

/// Where the hosts of an application stand on the way to one release, in the order of their turns.
///
/// Counted once; each host's turn is then read off, so that a fleet of thousands can be looked at as a whole.
#[derive(Clone, Debug)]
pub struct Standing {
    members: Vec<Member>,
    places: BTreeMap<HostName, usize>,
    /// The first member in the order that is neither done nor passed over.
    first_open: Option<usize>,
    /// What came of each wave and those before it.
    tallies: BTreeMap<usize, Tally>,
    /// The members that are not available because of the change; of many only the first.
    changing: Vec<usize>,
    all_changing: usize,
    baking: usize,
    failed: usize,
    failures: Count,
    most_changing: usize,
    silent_after: Duration,
}

#[derive(Clone, Debug)]
struct Member {
    host: HostName,
    wave: usize,
    stage: Stage,
    /// Those before it in its wave.
    in_wave: Ahead,
    /// Those before it in all waves.
    in_all: Ahead,
    /// Whether it is the first of its wave that is not passed over.
    is_first: bool,
}

/// Those who stand before a host and have not begun, or are not available.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// How many.
    count: usize,
    /// How many of them are not available.
    changing: usize,
    /// The first of them.
    first: Option<usize>,
}

impl Ahead {
    fn pass(&mut self, at: usize, stage: Stage) {
        let is_changing = stage.is_changing();
        if is_changing || stage == Stage::Waiting {
            self.count += 1;
            self.changing += usize::from(is_changing);
            self.first.get_or_insert(at);
        }
    }
}

/// What came of a wave and of all before it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    size: usize,
    done: usize,
    failed: usize,
}

/// Whether it is a host's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Go,
    /// It is not, and for whom it waits.
    Wait(String),
}

/// Whom a host has to look at next to learn whether its turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody: time, another commit or a person decides.
    Nobody,
    /// These hosts: unless one of them moves on, nothing changes.
    At {
        /// Which; of very many only those that come first.
        hosts: BTreeSet<HostName>,
        /// How many batches of hosts that may change at a time come before its own.
        distance: usize,
    },
    /// All that take part, right before it begins.
    All,
}

impl Look {
    /// Returns whom to look at where both matter.
    #[must_use]
    pub fn and(self, other: Look) -> Look {
        match (self, other) {
            (Look::All, _) | (_, Look::All) => Look::All,
            (Look::Nobody, look) | (look, Look::Nobody) => look,
            (Look::At { mut hosts, distance }, Look::At { hosts: more, distance: other }) => {
                hosts.extend(more);
                Look::At { hosts, distance: distance.min(other) }
            }
        }
    }
}

/// More hosts than this are counted, not named.
const MOST_NAMED: usize = 3;
/// A host that waits looks at so many of those before it, or at twice as many as may change at a time: that these move on shows
/// how far the others are, and costs the git server the same in a fleet of any size.
const MOST_LOOKED_AT: usize = 100;

impl Standing {
    /// Counts where everybody stands.
    pub fn of(policy: &Rollout, order: &BTreeMap<Place, &HostName>, stage: impl Fn(&HostName) -> Stage) -> Standing {
        let mut standing = Standing {
            members: Vec::with_capacity(order.len()),
            places: BTreeMap::new(),
            first_open: None,
            tallies: BTreeMap::new(),
            changing: Vec::new(),
            all_changing: 0,
            baking: 0,
            failed: 0,
            failures: policy.failures,
            most_changing: policy.max_unavailable.of(order.len()).max(1),
            silent_after: policy.silent_after,
        };
        let (mut in_wave, mut in_all, mut wave, mut is_first) = (Ahead::default(), Ahead::default(), None, true);
        let mut tally = Tally::default();
        for (at, (place, host)) in order.iter().enumerate() {
            if wave != Some(place.wave) {
                (wave, in_wave, is_first) = (Some(place.wave), Ahead::default(), true);
            }
            let stage = stage(host);
            let (host, is_passed) = ((*host).clone(), stage.is_passed_over());
            standing.places.insert(host.clone(), at);
            let is_first_here = is_first && !is_passed;
            standing.members.push(Member { host, wave: place.wave, stage, in_wave, in_all, is_first: is_first_here });
            is_first &= is_passed;
            in_wave.pass(at, stage);
            in_all.pass(at, stage);
            standing.count(at, stage);
            tally.size += 1;
            tally.done += usize::from(stage == Stage::Done);
            tally.failed += usize::from(stage.has_failed());
            standing.tallies.insert(place.wave, tally);
        }
        standing
    }

    fn count(&mut self, at: usize, stage: Stage) {
        if stage.is_changing() {
            self.all_changing += 1;
            if self.changing.len() < MOST_NAMED {
                self.changing.push(at);
            }
        }
        self.baking += usize::from(stage == Stage::Baking);
        self.failed += usize::from(stage.has_failed());
        if stage.is_open() {
            self.first_open.get_or_insert(at);
        }
    }

    /// Says whether more hosts failed than may: of percent, in any wave and those before it, so that a wide margin for a fleet
    /// is none for its canaries.
    pub fn is_halted(&self) -> bool {
        self.tallies.values().any(|tally| tally.failed > self.failures.of(tally.size))
    }

    /// Says which hosts halted the release.
    pub fn halt(&self) -> String {
        let tally = self.tallies.values().find(|tally| tally.failed > self.failures.of(tally.size));
        let may = match tally.map_or(0, |tally| self.failures.of(tally.size)) {
            0 => "none may".to_owned(),
            budget => format!("only {budget} may so far"),
        };
        format!("halted: the release failed on {}, and {may}", self.with(self.failed, Stage::has_failed))
    }

    /// Says whether there is nobody else to wait for.
    pub fn is_alone(&self) -> bool {
        self.members.len() < 2
    }

    /// Returns after which time a host counts as silent.
    pub fn silent_after(&self) -> Duration {
        self.silent_after
    }

    /// Returns how far a host is.
    pub fn stage(&self, host: &HostName) -> Option<Stage> {
        self.places.get(host).map(|at| self.members[*at].stage)
    }

    /// Returns a host's wave, counted from zero.
    pub fn wave(&self, host: &HostName) -> Option<usize> {
        self.places.get(host).map(|at| self.members[*at].wave)
    }

    /// Iterates over the hosts in the order of their turns, with their waves.
    pub fn members(&self) -> impl Iterator<Item = (&HostName, usize, Stage)> {
        self.members.iter().map(|member| (&member.host, member.wave, member.stage))
    }

    /// Says whether it is the turn of `host`, which has not begun.
    pub fn turn(&self, host: &HostName, no_waves: bool) -> Turn {
        let Some(at) = self.places.get(host) else { return Turn::Go };
        let me = &self.members[*at];
        if !no_waves && let Some(because) = self.before_its_wave(me) {
            return Turn::Wait(because);
        }
        let ahead = if no_waves { me.in_all } else { me.in_wave };
        let elsewhere = self.all_changing - ahead.changing - usize::from(me.stage.is_changing());
        if ahead.count + elsewhere < self.most_changing {
            return Turn::Go;
        }
        let others = ahead.first.into_iter().chain(self.changing.iter().copied().filter(|other| other != at));
        let first = others.map(|at| self.members[at].host.as_str()).next().unwrap_or_default();
        let more = match ahead.count + elsewhere {
            0 | 1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let most =
            if self.most_changing == 1 { "one host".to_owned() } else { format!("{} hosts", self.most_changing) };
        Turn::Wait(format!("at most {most} may change at a time: {first}{more} first"))
    }

    /// Says whom `host`, whose turn it is not yet, has to look at next.
    pub fn look(&self, host: &HostName, no_waves: bool) -> Look {
        let Some(at) = self.places.get(host) else { return Look::All };
        let me = &self.members[*at];
        let most = MOST_LOOKED_AT.max(2 * self.most_changing);
        let open = self.first_open.map(|open| &self.members[open]).filter(|open| open.wave < me.wave && !no_waves);
        let is_unproven = open.is_none() && !no_waves && self.before_its_wave(me).is_some();
        let is_before = |other: &Member| match (open, other.stage) {
            (Some(open), stage) => other.wave == open.wave && stage.is_open(),
            (None, Stage::Baking) => is_unproven,
            // Whoever tries it in the place of those who should have.
            (None, _) if is_unproven => other.is_first && other.wave == me.wave || other.wave < me.wave,
            (None, stage) => (no_waves || other.wave == me.wave) && stage.is_open(),
        };
        let ahead = self.members[..*at].iter().filter(|it| is_before(it));
        let changing = self.members.iter().filter(|it| it.stage.is_changing() && it.host != *host);
        let hosts = ahead.take(most).chain(changing.take(most)).map(|it| it.host.clone()).collect();
        let before = if no_waves { me.in_all } else { me.in_wave };
        Look::At { hosts, distance: before.count / self.most_changing }
    }

    /// Names the hosts on which the release failed.
    pub fn failed(&self) -> BTreeSet<HostName> {
        let failed = self.members.iter().filter(|it| it.stage.has_failed());
        failed.take(MOST_LOOKED_AT).map(|it| it.host.clone()).collect()
    }

    /// Names the hosts that somebody waits for who needs this application.
    pub fn not_ready(&self) -> BTreeSet<HostName> {
        let open = self.members.iter().filter(|it| is_unready(it.stage) || it.stage.has_failed());
        open.take(MOST_LOOKED_AT).map(|it| it.host.clone()).collect()
    }

    /// Says why the wave of `me` has not begun, if it has not.
    fn before_its_wave(&self, me: &Member) -> Option<String> {
        if let Some(open) = self.first_open.map(|open| &self.members[open]).filter(|open| open.wave < me.wave) {
            let verb = match open.stage {
                Stage::Baking => "has to have been healthy for long enough",
                _ => "has to be healthy",
            };
            return Some(format!("wave {} has to pass first: {} {verb}", open.wave + 1, open.host));
        }
        // More than failed: a single host that boasts proves nothing where others failed.
        let is_proven = self.tallies.get(&me.wave).is_some_and(|tally| tally.done > tally.failed);
        let is_later = self.members.first().is_some_and(|first| first.wave < me.wave);
        if !is_later || is_proven {
            return None;
        }
        // Most of those who should have tried it are silent or failed: one host tries it in their place, and nobody else.
        let is_tried = self.all_changing > usize::from(me.stage.is_changing()) || self.baking > 0;
        (!me.is_first || is_tried)
            .then(|| "the waves before have not proven it: one host of this wave goes first".to_owned())
    }

    /// Says for whom one has to wait that needs this application, if for anybody.
    pub fn unready(&self) -> Option<String> {
        let open = self.members.iter().filter(|member| is_unready(member.stage)).count();
        if open > 0 {
            return Some(format!("it is not healthy at this commit on {}", self.with(open, is_unready)));
        }
        (self.failed > 0).then(|| format!("it failed on {}", self.with(self.failed, Stage::has_failed)))
    }

    /// Names the first of `all` hosts that are so far.
    fn with(&self, all: usize, stage: impl Fn(Stage) -> bool) -> String {
        let so_far = self.members.iter().filter(|it| stage(it.stage)).map(|it| it.host.as_str());
        let first: Vec<&str> = so_far.take(MOST_NAMED).collect();
        match all.saturating_sub(first.len()) {
            0 => first.join(", "),
            more => format!("{} and {more} more", first.join(", ")),
        }
    }
}

/// Says whether who needs the application waits for it there: what is held has not got there; who is silent is not waited for.
fn is_unready(stage: Stage) -> bool {
    matches!(stage, Stage::Waiting | Stage::Changing | Stage::Held)
}
