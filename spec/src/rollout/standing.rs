//! Where all hosts of an application stand, and whose turn it is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::order::Order;
use super::stage::Stage;
use crate::id::HostName;
use crate::manifest::{Count, Rollout};

/// Where the hosts of an application stand on the way to one release, in the order of their turns.
///
/// Counted once, in one walk over the order; each host's turn is then read off, so that a fleet of thousands can be looked at as a
/// whole. What a host is told does not depend on its own stage, so that one count serves all who see the same.
#[derive(Clone, Debug)]
pub struct Standing {
    order: Order,
    members: Vec<Member>,
    waves: Vec<Wave>,
    /// The first member in the order that is neither done nor passed over.
    first_open: Option<usize>,
    /// The members that are not available because of the change; of many only the first.
    changing: Vec<usize>,
    baking: usize,
    /// How many are at it and may get there.
    at_work: usize,
    /// All of them together.
    all: Ahead,
    tally: Tally,
    failures: Count,
    most_changing: usize,
    silent_after: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    stage: Stage,
    /// Those before it, of all waves.
    ahead: Ahead,
}

/// How many have not begun, or are not available.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// How many.
    count: usize,
    /// How many of them are not available.
    changing: usize,
}

/// A wave that somebody is in.
#[derive(Clone, Copy, Debug)]
struct Wave {
    number: usize,
    /// Those of the waves before.
    ahead: Ahead,
    /// Its first member that has not begun or is not available.
    first: Option<usize>,
    /// Its first member that is neither there nor passed over.
    first_open: Option<usize>,
    /// What came of it and of all before it.
    tally: Tally,
}

/// What came of a wave and of all before it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    size: usize,
    done: usize,
    failed: usize,
    /// Those of the failed that have only come to no end so far.
    stuck: usize,
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

/// What keeps a host from going.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// This member of a wave before it.
    Open(usize),
    /// Nobody has shown that the release works.
    Unproven,
    /// As many others change, or go before it.
    Taken(usize),
}

/// More hosts than this are counted, not named.
const MOST_NAMED: usize = 3;
/// A host that waits looks at so many of those before it, or at twice as many as may change at a time: that these move on shows
/// how far the others are, and costs the git server the same in a fleet of any size.
const MOST_LOOKED_AT: usize = 100;

impl Standing {
    /// Counts where everybody stands.
    pub fn of(policy: &Rollout, order: &Order, mut stage: impl FnMut(&HostName) -> Stage) -> Standing {
        let mut standing = Standing {
            order: order.clone(),
            members: Vec::with_capacity(order.len()),
            waves: Vec::new(),
            first_open: None,
            changing: Vec::new(),
            baking: 0,
            at_work: 0,
            all: Ahead::default(),
            tally: Tally::default(),
            failures: policy.failures,
            most_changing: policy.max_unavailable.of(order.len()).max(1),
            silent_after: policy.silent_after,
        };
        for (place, host) in order.iter() {
            standing.count(place.wave, stage(host));
        }
        standing
    }

    fn count(&mut self, wave: usize, stage: Stage) {
        let at = self.members.len();
        self.members.push(Member { stage, ahead: self.all });
        self.tally.size += 1;
        self.tally.done += usize::from(stage == Stage::Done);
        self.tally.failed += usize::from(stage.has_failed());
        self.tally.stuck += usize::from(stage == Stage::Stuck);
        self.baking += usize::from(stage == Stage::Baking);
        self.at_work += usize::from(stage == Stage::Changing);
        if self.waves.last().is_none_or(|last| last.number != wave) {
            let (ahead, tally) = (self.all, self.tally);
            self.waves.push(Wave { number: wave, ahead, first: None, first_open: None, tally });
        }
        if let Some(wave) = self.waves.last_mut() {
            wave.tally = self.tally;
            if stage.is_changing() || stage == Stage::Waiting {
                wave.first.get_or_insert(at);
            }
            if stage.is_open() {
                wave.first_open.get_or_insert(at);
            }
        }
        self.all.count += usize::from(stage.is_changing() || stage == Stage::Waiting);
        if stage.is_changing() {
            self.all.changing += 1;
            if self.changing.len() < MOST_NAMED {
                self.changing.push(at);
            }
        }
        if stage.is_open() {
            self.first_open.get_or_insert(at);
        }
    }

    /// Says whether more hosts failed than may: of percent, in any wave and those before it, so that a wide margin for a fleet
    /// is none for its canaries.
    pub fn is_halted(&self) -> bool {
        self.halted_by().is_some()
    }

    /// Says whether it stays halted until another commit comes: who has only come to no end may still get there.
    pub fn is_halted_for_good(&self) -> bool {
        let mut tallies = self.waves.iter().map(|wave| wave.tally);
        tallies.any(|tally| tally.failed - tally.stuck > self.failures.of(tally.size))
    }

    fn halted_by(&self) -> Option<Tally> {
        self.waves.iter().map(|wave| wave.tally).find(|tally| tally.failed > self.failures.of(tally.size))
    }

    /// Says which hosts halted the release.
    pub fn halt(&self) -> String {
        let may = match self.halted_by().map_or(0, |tally| self.failures.of(tally.size)) {
            0 => "none may".to_owned(),
            budget => format!("only {budget} may so far"),
        };
        let with = |stage: fn(Stage) -> bool| {
            let all = self.members().filter(|(.., it)| stage(*it)).count();
            (all > 0).then(|| self.with(all, stage))
        };
        let failed =
            with(|stage| stage.has_failed() && stage != Stage::Stuck).map(|hosts| format!("failed on {hosts}"));
        let stuck = with(|stage| stage == Stage::Stuck).map(|hosts| format!("came to no end in time on {hosts}"));
        let what: Vec<String> = failed.into_iter().chain(stuck).collect();
        format!("halted: the release {}, and {may}", what.join(" and "))
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
        self.order.find(host).map(|at| self.members[at].stage)
    }

    /// Returns a host's wave, counted from zero.
    pub fn wave(&self, host: &HostName) -> Option<usize> {
        self.order.find(host).map(|at| self.order.at(at).0.wave)
    }

    /// Iterates over the hosts in the order of their turns, with their waves.
    pub fn members(&self) -> impl Iterator<Item = (&HostName, usize, Stage)> {
        self.order.iter().zip(&self.members).map(|((place, host), member)| (host, place.wave, member.stage))
    }

    /// Says whether it is the turn of `host`, which has not begun.
    pub fn turn(&self, host: &HostName, no_waves: bool) -> Turn {
        let Some(at) = self.order.find(host) else { return Turn::Go };
        let wave = self.wave_of(at).filter(|_| !no_waves);
        match self.obstacle(at, wave) {
            Some(obstacle) => Turn::Wait(self.text(at, wave, obstacle)),
            None => Turn::Go,
        }
    }

    /// Says of each host, in the order of their turns, whether [`Standing::turn`] would let it go: for all of them at the price of
    /// one walk.
    pub fn turns(&self) -> impl Iterator<Item = (&HostName, bool)> {
        let mut waves = self.waves.iter().peekable();
        self.order.iter().enumerate().map(move |(at, (place, host))| {
            while waves.next_if(|wave| wave.number < place.wave).is_some() {}
            (host, self.obstacle(at, waves.peek().copied()).is_none())
        })
    }

    /// Says whether as few others change as may, whosever turn it is.
    pub fn has_room(&self, host: &HostName) -> bool {
        let is_changing = self.stage(host).is_some_and(Stage::is_changing);
        self.all.changing - usize::from(is_changing) < self.most_changing
    }

    /// Names the host that alone says that the release works, where `host` is of a wave that others came before.
    pub fn only_word(&self, host: &HostName) -> Option<&HostName> {
        let wave = self.order.find(host).and_then(|at| self.wave_of(at))?;
        let is_later = self.waves.first().is_some_and(|first| first.number < wave.number);
        let mut done = self.members().filter(|(other, _, stage)| *other != host && *stage == Stage::Done);
        match (done.next(), done.next()) {
            (Some((only, ..)), None) if is_later => Some(only),
            _ => None,
        }
    }

    /// Says whom `host`, whose turn it is not yet, has to look at next.
    pub fn look(&self, host: &HostName, no_waves: bool) -> Look {
        let Some(me) = self.order.find(host) else { return Look::All };
        let wave = self.wave_of(me).filter(|_| !no_waves);
        let most = MOST_LOOKED_AT.max(2 * self.most_changing);
        let in_wave = wave.and_then(|wave| self.before_its_wave(me, wave));
        let of_wave = |at: usize| self.order.at(at).0.wave;
        let is_before = |at: usize, stage: Stage| match (in_wave, wave) {
            (Some(Obstacle::Open(open)), _) => of_wave(at) == of_wave(open) && stage.is_open(),
            // Whoever tries it in the place of those who should have.
            (Some(_), Some(wave)) => stage == Stage::Baking || of_wave(at) < wave.number || wave.first_open == Some(at),
            // Who is healthy keeps nobody of its own wave.
            (_, wave) => {
                stage.is_open() && stage != Stage::Baking && wave.is_none_or(|wave| of_wave(at) == wave.number)
            }
        };
        let all = || self.members.iter().map(|member| member.stage).enumerate();
        let ahead = all().take(me).filter(|(at, stage)| is_before(*at, *stage)).take(most);
        let changing = all().filter(|(at, stage)| stage.is_changing() && *at != me).take(most);
        let hosts = ahead.chain(changing).map(|(at, _)| self.order.at(at).1.clone()).collect();
        let before = wave.map_or(0, |wave| wave.ahead.count);
        Look::At { hosts, distance: (self.members[me].ahead.count - before) / self.most_changing }
    }

    /// Names the hosts on which the release failed.
    pub fn failed(&self) -> BTreeSet<HostName> {
        self.who(Stage::has_failed)
    }

    /// Names the hosts that somebody waits for who needs this application.
    pub fn not_ready(&self) -> BTreeSet<HostName> {
        let is_nowhere = self.is_healthy_nowhere();
        self.who(|stage| is_nowhere || is_unready(stage) || stage.has_failed())
    }

    /// Names hosts that are so far; of very many only the first.
    fn who(&self, is_so_far: impl Fn(Stage) -> bool) -> BTreeSet<HostName> {
        let so_far = self.members().filter(|(.., stage)| is_so_far(*stage));
        so_far.take(MOST_LOOKED_AT).map(|(host, ..)| host.clone()).collect()
    }

    fn wave_of(&self, at: usize) -> Option<&Wave> {
        let number = self.order.at(at).0.wave;
        self.waves.iter().find(|wave| wave.number == number)
    }

    /// Says what keeps the member at `me` from going, in its wave or in no wave at all.
    fn obstacle(&self, me: usize, wave: Option<&Wave>) -> Option<Obstacle> {
        if let Some(obstacle) = wave.and_then(|wave| self.before_its_wave(me, wave)) {
            return Some(obstacle);
        }
        let Member { stage, ahead } = self.members[me];
        let before = wave.map_or_else(Ahead::default, |wave| wave.ahead);
        let in_wave = ahead.count - before.count;
        // Who changes counts wherever it stands: it was not passed over by everybody.
        let behind = self.all.changing - ahead.changing - usize::from(stage.is_changing());
        let taken = in_wave + before.changing + behind;
        (taken >= self.most_changing).then_some(Obstacle::Taken(taken))
    }

    /// Says why the wave of the member at `me` has not begun, if it has not.
    fn before_its_wave(&self, me: usize, wave: &Wave) -> Option<Obstacle> {
        if let Some(open) = self.first_open.filter(|open| self.order.at(*open).0.wave < wave.number) {
            return Some(Obstacle::Open(open));
        }
        // More than failed: a single host that boasts proves nothing where others failed.
        let is_proven = wave.tally.done > wave.tally.failed;
        let is_later = self.waves.first().is_some_and(|first| first.number < wave.number);
        if !is_later || is_proven {
            return None;
        }
        // Most of those who should have tried it are silent or failed: one host tries it in their place, and nobody else.
        let is_tried = self.at_work > usize::from(self.members[me].stage == Stage::Changing) || self.baking > 0;
        let is_first = wave.first_open.is_none_or(|first| me <= first);
        (!is_first || is_tried).then_some(Obstacle::Unproven)
    }

    fn text(&self, me: usize, wave: Option<&Wave>, obstacle: Obstacle) -> String {
        match obstacle {
            Obstacle::Open(open) => {
                let (place, host) = self.order.at(open);
                let verb = match self.members[open].stage {
                    Stage::Baking => "has to have been healthy for long enough",
                    _ => "has to be healthy",
                };
                format!("wave {} has to pass first: {host} {verb}", place.wave + 1)
            }
            Obstacle::Unproven => "the waves before have not proven it: one host of this wave goes first".to_owned(),
            Obstacle::Taken(taken) => {
                let first = match wave {
                    Some(wave) => wave.first,
                    None => self.waves.iter().find_map(|wave| wave.first),
                };
                let ahead = first.into_iter().filter(|other| *other < me);
                let others = ahead.chain(self.changing.iter().copied().filter(|other| *other != me));
                let first = others.map(|at| self.order.at(at).1.as_str()).next().unwrap_or_default();
                let more = if taken > 1 { format!(" and {} more", taken - 1) } else { String::new() };
                let most = match self.most_changing {
                    1 => "one host".to_owned(),
                    most => format!("{most} hosts"),
                };
                format!("at most {most} may change at a time: {first}{more} first")
            }
        }
    }

    /// Says for whom one has to wait that needs this application, if for anybody.
    pub fn unready(&self) -> Option<String> {
        let open = self.members.iter().filter(|member| is_unready(member.stage)).count();
        if open > 0 {
            return Some(format!("it is not healthy at this commit on {}", self.with(open, is_unready)));
        }
        let failed = self.tally.failed;
        if failed > 0 {
            return Some(format!("it failed on {}", self.with(failed, Stage::has_failed)));
        }
        // Nobody waits for who is silent, and nobody builds upon what nobody vouches for.
        let silent = self.members.len();
        self.is_healthy_nowhere()
            .then(|| format!("it is healthy nowhere at this commit; silent: {}", self.with(silent, |_| true)))
    }

    fn is_healthy_nowhere(&self) -> bool {
        self.tally.done == 0 && self.baking == 0 && !self.members.is_empty()
    }

    /// Names the first of `all` hosts that are so far.
    fn with(&self, all: usize, stage: impl Fn(Stage) -> bool) -> String {
        let so_far = self.members().filter(|(.., it)| stage(*it)).map(|(host, ..)| host.as_str());
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
