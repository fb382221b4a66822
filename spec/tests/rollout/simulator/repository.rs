//! The repository: commits, what every host said last, and what a host that asks is shown.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{Fleet, Rollout};
use spec::memory::AppState;
use spec::record::{AppRecord, Record};
use spec::rollout::{self, Awaited, Look, Order, Overdue, Stage, Standing, Step};

use super::course::Course;
use super::host::SimHost;
use super::moment;
use crate::fleet::{self, app, commit, host};

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) commit: usize,
    pub(super) state: AppState,
    pub(super) bad: Option<usize>,
}

pub(super) fn said(commit: usize, state: AppState) -> Said {
    Said { commit, state, bad: None }
}

pub(super) fn converged(commit: usize) -> Said {
    said(commit, AppState::Converged)
}

pub(super) fn failed(commit: usize) -> Said {
    Said { commit, state: AppState::RolledBack, bad: Some(commit) }
}

/// What a host said last, and when it gave its last sign of life.
pub(super) type Entry = Option<(Said, Timestamp)>;

/// A commit, and when it arrives.
pub(super) struct Release {
    pub(super) id: CommitId,
    /// The application, and the first commit that has it so.
    pub(super) digest: Digest,
    pub(super) content: usize,
    pub(super) at: u64,
    /// How many of a hundred hosts it breaks.
    pub(super) breaks: u64,
    pub(super) terms: Rc<Terms>,
    /// Which of all releases it is that spreads: where it goes to other hosts, it is another one.
    pub(super) spreads: Digest,
}

/// By which rules the hosts of a commit stand.
pub(super) struct Terms {
    pub(super) fleet: Fleet,
    pub(super) policy: Rollout,
    pub(super) hosts: Range<usize>,
    order: Order,
    /// The numbers of the hosts in that order.
    numbers: Vec<usize>,
    /// The wave of each host, counted from zero.
    pub(super) waves: BTreeMap<usize, usize>,
}

impl Terms {
    fn new(hosts: Range<usize>, canaries: usize, rules: &str) -> Terms {
        let fleet = fleet::fleet_of(hosts.clone(), canaries, rules);
        let policy = rollout::policy(&fleet, &app(), &host(0));
        let order = rollout::order(&fleet, &app(), &policy, fleet.hosts.keys());
        let numbers = order.iter().map(|(_, name)| number(name)).collect();
        let waves = order.iter().map(|(place, name)| (number(name), place.wave)).collect();
        Terms { fleet, policy, hosts, order, numbers, waves }
    }
}

/// Where everybody stands.
pub(super) struct Counted {
    pub(super) standing: Standing,
    /// Whose turn it would be, by number.
    pub(super) turns: Vec<bool>,
}

impl Counted {
    fn new(standing: Standing, numbers: &[usize], hosts: usize) -> Counted {
        let mut turns = vec![false; hosts];
        for ((_, is_due), number) in standing.turns().zip(numbers) {
            turns[*number] = is_due;
        }
        Counted { standing, turns }
    }
}

/// What the repository held at a moment, or what a host has seen of it by then.
pub(super) struct Snapshot {
    pub(super) at: u64,
    /// When all that take part were looked at.
    pub(super) view: u64,
    pub(super) hosts: Vec<Entry>,
    /// For how long a host saw the others at a release, where each looks for itself.
    overdue: Option<(Digest, Rc<Overdue>)>,
    /// What was counted from it: for which commit, since when that was known, and when.
    counted: RefCell<BTreeMap<(usize, u64, u64), Rc<Counted>>>,
}

impl Snapshot {
    fn of(at: u64, hosts: Vec<Entry>) -> Snapshot {
        Snapshot { at, view: at, hosts, overdue: None, counted: RefCell::default() }
    }
}

/// The repository, and the rules by which its hosts stand.
pub(super) struct Repository {
    pub(super) app: AppName,
    pub(super) releases: Vec<Release>,
    hosts: Vec<Entry>,
    pub(super) shown: Rc<Snapshot>,
    /// Who asks is shown what was there at the last of these moments: as if each answer were late by as much more.
    tick: u64,
    is_crowd: bool,
    /// For how long the hosts are at the newest release, which that is, and when it was noted: once for all who look.
    overdue: (Digest, Overdue, u64),
    /// How far who says so is, on the way to which release.
    stages: RefCell<Vec<((usize, Said), Stage)>>,
}

impl Repository {
    pub(super) fn new(course: &Course, hosts: Vec<Entry>, is_crowd: bool) -> Repository {
        let mut terms = Rc::new(Terms::new(0..course.first_hosts, course.canaries, &course.rules));
        let (mut rules, mut content) = (&course.rules, 0);
        let first = super::course::Commit::default();
        let mut releases = Vec::new();
        for (number, it) in std::iter::once(&first).chain(&course.commits).enumerate() {
            if it.rules.is_some() || it.hosts.is_some() {
                rules = it.rules.as_ref().unwrap_or(rules);
                let hosts = it.hosts.clone().unwrap_or_else(|| terms.hosts.clone());
                terms = Rc::new(Terms::new(hosts, course.canaries, rules));
            }
            content = if it.is_same { content } else { number };
            releases.push(Release {
                id: commit(number),
                digest: Digest::of(format!("release {content}").as_bytes()),
                content,
                at: it.at,
                breaks: it.breaks,
                terms: Rc::clone(&terms),
                spreads: Digest::of(format!("release {content} for {:?}", terms.hosts).as_bytes()),
            });
        }
        let shown = Rc::new(Snapshot::of(0, hosts.clone()));
        Repository {
            app: app(),
            overdue: (releases[0].spreads, Overdue::default(), 0),
            releases,
            hosts,
            shown,
            tick: if is_crowd { 60 } else { 15 },
            is_crowd,
            stages: RefCell::default(),
        }
    }

    /// Says whether a commit has a host in its fleet.
    pub(super) fn has(&self, release: usize, number: usize) -> bool {
        self.releases[release].terms.hosts.contains(&number)
    }

    /// Returns the first commit with the same application as this one.
    pub(super) fn content(&self, release: usize) -> usize {
        self.releases[release].content
    }

    /// Takes in what a host pushed.
    pub(super) fn push(&mut self, number: usize, said: Said, now: u64) {
        self.hosts[number] = Some((said, moment(now)));
    }

    /// Returns what is there, as of the last tick.
    pub(super) fn look(&mut self, now: u64) -> Rc<Snapshot> {
        let at = now / self.tick * self.tick;
        if at != self.shown.at {
            self.shown = Rc::new(Snapshot::of(at, self.hosts.clone()));
            self.note_overdue(at);
        }
        Rc::clone(&self.shown)
    }

    /// Notes what those are at that others wait for.
    fn note_overdue(&mut self, at: u64) {
        let newest = self.newest(at);
        let spreads = self.releases[newest].spreads;
        if self.overdue.0 != spreads {
            self.overdue = (spreads, Overdue::default(), 0);
        }
        if at < self.overdue.2 + 4 * self.tick {
            return;
        }
        self.overdue.2 = at;
        let awaited = self.awaited(&self.shown, newest, self.releases[newest].at, at);
        self.overdue.1.note(&awaited, |_| true, moment(at));
    }

    /// Returns what is there to a host, which looks at some of the others alone.
    pub(super) fn look_at_some(&mut self, me: &mut SimHost, now: u64) -> Rc<Snapshot> {
        let shown = self.look(now);
        let (at, newest) = (shown.at, self.newest(shown.at));
        let terms = Rc::clone(&self.releases[newest].terms);
        let whom = match &me.look {
            // By their names more than half of them take more room than all that there are.
            Look::At { hosts, .. } if hosts.len() <= terms.hosts.len() / 2 => hosts.iter().map(number).collect(),
            Look::At { .. } | Look::All => BTreeSet::from_iter(0..shown.hosts.len()),
            Look::Nobody => BTreeSet::new(),
        };
        let before = me.seen.take();
        let mut hosts = before.as_ref().map_or_else(|| vec![None; shown.hosts.len()], |it| it.hosts.clone());
        whom.iter().for_each(|number| hosts[*number] = shown.hosts[*number]);
        let is_view = whom.len() == hosts.len();
        let view = if is_view { at } else { before.map_or(0, |it| it.view) };
        let spreads = self.releases[newest].spreads;
        if me.overdue.as_ref().is_none_or(|overdue| overdue.0 != spreads) {
            me.overdue = Some((spreads, Rc::default()));
            me.noted = 0;
        }
        let mut seen = Snapshot { view, overdue: me.overdue.clone(), ..Snapshot::of(at, hosts) };
        let is_due = !whom.is_empty() && at >= me.noted + 4 * self.tick;
        if let Some((_, overdue)) = me.overdue.as_mut().filter(|_| is_due && terms.hosts.contains(&number(&me.name))) {
            let mut awaited = self.awaited(&seen, newest, me.since, at);
            awaited.retain(|it| it.host != me.name);
            Rc::make_mut(overdue).note(&awaited, |host| whom.contains(&number(host)), moment(at));
            me.noted = at;
            seen = Snapshot { overdue: me.overdue.clone(), counted: RefCell::default(), ..seen };
        }
        let seen = Rc::new(seen);
        me.seen = Some(Rc::clone(&seen));
        seen
    }

    /// Says who could move on with a release, by what was seen at a moment.
    fn awaited(&self, seen: &Snapshot, release: usize, since: u64, at: u64) -> Vec<Awaited> {
        let terms = &self.releases[release].terms;
        let counted = self.standing(seen, release, since, at);
        let mut awaited = Vec::new();
        for (host, ..) in counted.standing.members() {
            let number = number(host);
            let stage = seen.hosts[number].map_or(Stage::Waiting, |(said, _)| self.stage(release, said));
            let heard = seen.hosts[number].map(|(_, heard)| heard);
            let step = match stage.unless_silent(heard, terms.policy.silent_after, moment(since), moment(at)) {
                Stage::Changing => Step::Changes,
                Stage::Baking => Step::Bakes,
                Stage::Waiting if counted.turns[number] && !counted.standing.is_halted() => Step::MayBegin,
                _ => continue,
            };
            let (deadline, longest_gap) = (rollout::deadline(&terms.policy), terms.policy.silent_after);
            awaited.push(Awaited { host: host.clone(), step, deadline, longest_gap });
        }
        awaited
    }

    /// Says how far a host is that said so.
    fn stage(&self, release: usize, said: Said) -> Stage {
        let mut stages = self.stages.borrow_mut();
        if let Some((_, stage)) = stages.iter().rev().find(|(known, _)| *known == (release, said)) {
            return *stage;
        }
        let target = &self.releases[release];
        let stage = rollout::said(&self.record(said), (&self.app, Some(target.digest), &target.id));
        stages.push(((release, said), stage));
        stage
    }

    /// Returns the first moment at which what is there now is shown.
    pub(super) fn shown_at(&self, now: u64) -> u64 {
        (now / self.tick + 1) * self.tick
    }

    /// Returns when the next commit comes, after `now`.
    pub(super) fn next_commit(&self, now: u64) -> Option<u64> {
        self.releases.iter().map(|release| release.at).find(|at| *at > now)
    }

    /// Returns the newest commit at a moment.
    pub(super) fn newest(&self, at: u64) -> usize {
        self.releases.iter().rposition(|release| release.at <= at).expect("the first is always there")
    }

    /// Counts where everybody stands at `now`, by what was there when somebody asked who knows of a release `since`. Who has known
    /// of it for so long that it makes no difference any more shares what is counted; so do those of a crowd who heard of it, or
    /// act late upon it, at about the same time.
    pub(super) fn standing(&self, snapshot: &Snapshot, release: usize, since: u64, now: u64) -> Rc<Counted> {
        let grain = if self.is_crowd { 600 } else { 1 };
        let late = now.saturating_sub(snapshot.at) / grain * grain;
        let now = snapshot.at + late;
        let terms = &self.releases[release].terms;
        let longest = terms.policy.silent_after.as_secs() + 1;
        let grain = if self.is_crowd { 300 } else { 1 };
        let since = (since / grain * grain).max(now.saturating_sub(longest));
        let mut counted = snapshot.counted.borrow_mut();
        let fresh =
            || Rc::new(Counted::new(self.count(snapshot, release, since, now), &terms.numbers, self.hosts.len()));
        Rc::clone(counted.entry((release, since, now)).or_insert_with(fresh))
    }

    fn count(&self, snapshot: &Snapshot, release: usize, since: u64, now: u64) -> Standing {
        let Release { spreads, terms, .. } = &self.releases[release];
        let (silent_after, since, now) = (terms.policy.silent_after, moment(since), moment(now));
        let mut numbers = terms.numbers.iter();
        let overdue = match &snapshot.overdue {
            Some((release, own)) => (release == spreads).then_some(&**own),
            None => (self.overdue.0 == *spreads).then_some(&self.overdue.1),
        };
        Standing::of(&terms.policy, &terms.order, |host| {
            let entry = numbers.next().and_then(|number| snapshot.hosts[*number]);
            let stage = entry.map_or(Stage::Waiting, |(said, _)| self.stage(release, said));
            let stage = stage.unless_silent(entry.map(|(_, heard)| heard), silent_after, since, now);
            overdue.map_or(stage, |overdue| overdue.stage(host, stage))
        })
    }

    fn record(&self, said: Said) -> Record {
        let commit = &self.releases[said.commit];
        let record = AppRecord {
            bad: said.bad.map(|bad| self.releases[bad].digest),
            runs: (said.bad == Some(said.commit)).then(|| self.releases[0].id.clone()),
            ..fleet::said(said.state, commit.digest, moment(0))
        };
        fleet::record(host(0), commit.id.clone(), record, moment(0))
    }
}

/// The number that a host is called by.
pub(super) fn number(host: &HostName) -> usize {
    host.as_str()[1..].parse().expect("a number")
}
