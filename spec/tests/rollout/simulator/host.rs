//! One host: what it is like, what it does, and what it knows.

use std::rc::Rc;

use spec::digest::Digest;
use spec::id::HostName;
use spec::rollout::{Intent, Look, Overdue, Row, Spreading};

use super::course::Course;
use super::dice::Dice;
use super::repository::{Said, Snapshot, converged};
use crate::fleet::host;

/// What a host is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    Honest,
    /// Says that it is there as soon as it hears of a release.
    Boasts,
    /// Says that every release failed.
    Moans,
    /// Cannot push.
    Mute,
    /// Says that it is about to begin, for ever.
    Stalls,
    /// Says that it waits, for ever.
    Idles,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Rests,
    Changes(usize),
    /// Is healthy at a release, since when.
    Bakes(usize, u64),
}

/// A host, its agent, and what that keeps.
pub(super) struct SimHost {
    pub(super) name: HostName,
    pub(super) nature: Nature,
    /// When it is away: from, to.
    pub(super) away: Vec<(u64, u64)>,
    /// By how many seconds its clock is ahead of the others', or behind them.
    pub(super) skew: i64,
    pub(super) doing: Doing,
    /// What it is about to do, and what it had seen when it decided that.
    pub(super) intent: Option<Intent>,
    pub(super) intent_by: Option<Rc<Snapshot>>,
    /// The release that it runs, and the one that failed here.
    pub(super) runs: usize,
    pub(super) bad: Option<usize>,
    /// The newest commit it has seen, since when, and that by its own clock.
    pub(super) newest: usize,
    pub(super) since: u64,
    pub(super) spreading: Option<Spreading>,
    /// When the repository answered last.
    pub(super) view: u64,
    /// Whom it looks at next, what it has seen of everybody so far, and for how long it saw them at the release that spreads: where
    /// hosts look at some of the others only.
    pub(super) look: Look,
    pub(super) seen: Option<Rc<Snapshot>>,
    pub(super) overdue: Option<(Digest, Rc<Overdue>)>,
    /// When that was noted last.
    pub(super) noted: u64,
    /// Nothing happens here: what it asks is not played.
    pub(super) is_idle: bool,
    /// Its signs of life, and when the last one was given.
    pub(super) signs: Option<Row>,
    pub(super) sign_at: Option<u64>,
    /// What it has to say, what is on its way, and the last of it that arrived.
    pub(super) says: Option<Said>,
    pub(super) is_pushing: bool,
    pub(super) arrived: Option<Said>,
    /// Every release that it began, in order, and when.
    pub(super) began: Vec<(usize, u64)>,
    /// What it saw when it asked and did not come to act upon yet.
    pub(super) stuck: Option<Rc<Snapshot>>,
    /// Counts starts of its agent, so that what was planned before one is not done after.
    pub(super) life: u32,
    /// Counts what was planned to be asked, so that only the last of it is.
    pub(super) polls: u32,
}

impl SimHost {
    pub(super) fn new(number: usize, course: &Course, dice: &mut Dice) -> SimHost {
        let weather = &course.weather;
        let nature = match dice.range(0, 499) {
            it if it < weather.liars => Nature::Boasts,
            it if it < 2 * weather.liars => Nature::Moans,
            it if it < 3 * weather.liars => Nature::Mute,
            it if it < 4 * weather.liars => Nature::Stalls,
            it if it < 5 * weather.liars => Nature::Idles,
            _ => Nature::Honest,
        };
        let skew = i64::try_from(dice.range(0, 2 * weather.skew)).expect("it is small")
            - i64::try_from(weather.skew).expect("it is small");
        SimHost {
            name: host(number),
            nature,
            away: away(number, course, dice),
            skew,
            doing: Doing::Rests,
            intent: None,
            intent_by: None,
            runs: 0,
            bad: None,
            newest: 0,
            since: 0,
            spreading: None,
            view: 0,
            look: Look::Nobody,
            seen: None,
            overdue: None,
            noted: 0,
            is_idle: true,
            signs: None,
            sign_at: None,
            says: Some(converged(0)),
            is_pushing: false,
            arrived: Some(converged(0)),
            began: Vec::new(),
            stuck: None,
            life: 0,
            polls: 0,
        }
    }

    pub(super) fn is_away(&self, now: u64) -> bool {
        self.away.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// Returns the release that it changes to.
    pub(super) fn changes(&self) -> Option<usize> {
        match self.doing {
            Doing::Changes(release) => Some(release),
            Doing::Rests | Doing::Bakes(..) => None,
        }
    }
}

fn away(number: usize, course: &Course, dice: &mut Dice) -> Vec<(u64, u64)> {
    let weather = &course.weather;
    if number < course.canaries && weather.no_canaries {
        return vec![(0, course.until * 2)];
    }
    if !dice.percent(weather.offline) {
        return Vec::new();
    }
    if dice.percent(weather.for_good) {
        let from = dice.range(0, course.until / 2);
        return vec![(from, course.until * 2)];
    }
    let spells = dice.range(1, weather.spells.max(1));
    let spell = |_| {
        let from = dice.range(0, course.until * 2 / 3);
        (from, from + dice.range(60, weather.longest_away))
    };
    (0..spells).map(spell).collect()
}
