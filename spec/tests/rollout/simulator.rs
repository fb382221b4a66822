//! Thousands of hosts that follow one repository, each with its own view of it, its own delays and its own bad days.
//!
//! The repository is a list of what was pushed, in order. Every host polls it, decides with `rollout::decide`, and pushes what
//! it does, all of it late by some seconds. What must hold at every moment is looked at at every moment.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{Fleet, Rollout};
use spec::memory::AppState;
use spec::record::{AppRecord, Record};
use spec::rollout::{self, Change, Gate, Own, Peer, Signs, Standing};

use crate::fleet::{app, commit, fleet, host};

/// Views are of the last of these moments: as if each answer were late by as much more. Crowds have longer ones.
const TICK: u64 = 15;
const TICK_OF_A_CROWD: u64 = 60;
/// From so many hosts on it is a crowd.
const CROWD: usize = 2000;
pub(crate) const SILENT_AFTER: u64 = 900;

/// Random numbers of which each seed has its own row (SplitMix64, Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What a host is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nature {
    Honest,
    /// Says that it is there as soon as it hears of a release.
    Boasts,
    /// Says that every release failed.
    Moans,
    /// Cannot push.
    Mute,
}

/// A commit of the application, and when it arrives.
struct Commit {
    id: CommitId,
    digest: Digest,
    at: u64,
    is_bad: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    Rests,
    /// Has said that it begins, and begins when that is pushed.
    Announces(usize),
    Changes(usize),
    Bakes(usize, u64),
}

struct SimHost {
    name: HostName,
    nature: Nature,
    /// When it is away: from, to.
    away: Vec<(u64, u64)>,
    /// By how many seconds its clock is ahead of the others', or behind them.
    skew: i64,
    doing: Doing,
    /// The release that it runs.
    runs: usize,
    /// The release that failed here.
    bad: Option<usize>,
    /// The newest commit it has seen, since when, and when the repository had answered last before.
    seen: (usize, u64),
    polled_before: u64,
    view: u64,
    /// Nothing happens here: what it asks is not played.
    is_idle: bool,
    signs: Option<Row>,
    /// What it says, and the last of it that arrived.
    said: Option<Said>,
    arrived: Option<Said>,
    pushes: u64,
    /// Every release that it began, in order, and when.
    began: Vec<(usize, u64)>,
    /// What it saw when it asked for something that has not come back yet.
    stuck: Option<(Rc<Standing>, usize)>,
    /// Counts what it does, so that what was planned before a restart is not done after.
    life: u32,
}

/// Signs of life that followed each other without a gap, and the last one before that gap.
#[derive(Clone, Copy, Debug)]
struct Row {
    first: u64,
    last: u64,
    before: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Pushed {
        host: usize,
        life: u32,
        state: Said,
    },
    /// What was pushed at a moment can be seen now.
    Shown {
        host: usize,
        push: u64,
        state: Said,
        at: u64,
    },
    Poll {
        host: usize,
    },
    Changed {
        host: usize,
        life: u32,
    },
    Restart {
        host: usize,
    },
    Decide {
        host: usize,
        life: u32,
    },
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Said {
    commit: usize,
    state: u8,
    bad: Option<usize>,
}

const STATES: [AppState; 6] = [
    AppState::Waiting,
    AppState::Applying,
    AppState::Baking,
    AppState::Converged,
    AppState::RolledBack,
    AppState::Failed,
];
const WAITING: u8 = 0;
const APPLYING: u8 = 1;
const BAKING: u8 = 2;
const CONVERGED: u8 = 3;
const ROLLED_BACK: u8 = 4;

fn converged(commit: usize) -> Said {
    Said { commit, state: CONVERGED, bad: None }
}

/// The number that a host is called by.
fn number(host: &HostName) -> usize {
    host.as_str()[1..].parse().expect("a number")
}

/// What a run is made of.
pub(crate) struct Course {
    pub(crate) hosts: usize,
    pub(crate) canaries: usize,
    pub(crate) seed: u64,
    /// How many hosts in a hundred are away for a while, or for good, and of how many polls in a hundred the answer takes minutes.
    pub(crate) offline: u64,
    pub(crate) slow: u64,
    /// Of how many pushes in a hundred the others see nothing for up to a minute, while they see later ones.
    pub(crate) lag: u64,
    /// By how many seconds clocks are ahead or behind at most.
    pub(crate) skew: u64,
    pub(crate) canaries_are_away: bool,
    pub(crate) liars: u64,
    pub(crate) rules: String,
    pub(crate) most_changing: usize,
    /// When each commit comes, and whether it breaks every host that takes it.
    pub(crate) commits: Vec<(u64, bool)>,
    pub(crate) until: u64,
}

struct World {
    fleet: Fleet,
    policy: Rollout,
    app: AppName,
    commits: Vec<Commit>,
    hosts: Vec<SimHost>,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    dice: Dice,
    /// What the repository holds, and what it held at the last tick.
    git: Vec<Option<Rc<Peer>>>,
    /// The push that each of these is of.
    pushes: Vec<u64>,
    shown: Vec<Option<Rc<Peer>>>,
    shown_at: u64,
    tick: u64,
    order_of_turns: Vec<(rollout::Place, usize)>,
    /// What was counted at the last tick, by commit.
    counted: BTreeMap<usize, Rc<Standing>>,
    most_changing: usize,
    until: u64,
    /// Of how many polls in a hundred the answer takes minutes.
    slow: u64,
    lag: u64,
    changing: usize,
    worst: usize,
}

/// The moment of the story that is so many seconds after its beginning, a Friday in 2027.
pub(crate) fn moment(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).expect("it is small");
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

impl World {
    fn new(course: &Course) -> World {
        let mut dice = Dice(course.seed);
        let fleet = fleet(course.hosts, course.canaries, &course.rules);
        let mut all = vec![(0, false)];
        all.extend(&course.commits);
        let commits = all.iter().enumerate().map(|(number, (at, is_bad))| Commit {
            id: commit(number),
            digest: Digest::of(format!("release {number}").as_bytes()),
            at: *at,
            is_bad: *is_bad,
        });
        let commits: Vec<Commit> = commits.collect();
        let hosts = (0..course.hosts).map(|number| {
            let nature = match dice.range(0, 299) {
                it if it < course.liars => Nature::Boasts,
                it if it < 2 * course.liars => Nature::Moans,
                it if it < 3 * course.liars => Nature::Mute,
                _ => Nature::Honest,
            };
            let mut away = Vec::new();
            if number < course.canaries && course.canaries_are_away {
                away.push((0, course.until * 2));
            } else if dice.percent(course.offline) {
                let from = dice.range(0, course.until / 2);
                let long = if dice.percent(70) { dice.range(60, 3000) } else { course.until };
                away.push((from, from + long));
            }
            SimHost {
                name: host(number),
                nature,
                away,
                doing: Doing::Rests,
                runs: 0,
                bad: None,
                skew: i64::try_from(dice.range(0, 2 * course.skew)).expect("it is small")
                    - i64::try_from(course.skew).expect("it is small"),
                seen: (0, 0),
                polled_before: 0,
                view: 0,
                is_idle: true,
                signs: None,
                said: Some(converged(0)),
                arrived: Some(converged(0)),
                pushes: 0,
                stuck: None,
                began: Vec::new(),
                life: 0,
            }
        });
        let hosts: Vec<SimHost> = hosts.collect();
        let policy = rollout::policy(&fleet, &app(), &host(0));
        let order_of_turns = rollout::order(&fleet, &app(), &policy, fleet.hosts.keys());
        let order_of_turns = order_of_turns.into_iter().map(|(place, name)| (place, number(name))).collect();
        let mut world = World {
            fleet,
            policy,
            app: app(),
            commits,
            hosts,
            queue: BinaryHeap::new(),
            order: 0,
            dice,
            git: vec![None; course.hosts],
            pushes: vec![0; course.hosts],
            shown: Vec::new(),
            tick: if course.hosts < CROWD { TICK } else { TICK_OF_A_CROWD },
            order_of_turns,
            shown_at: 0,
            counted: BTreeMap::new(),
            most_changing: course.most_changing,
            until: course.until,
            slow: course.slow,
            lag: course.lag,
            changing: 0,
            worst: 0,
        };
        for number in 0..world.hosts.len() {
            if world.hosts[number].nature != Nature::Mute {
                let record = world.record(number, Said { commit: 0, state: CONVERGED, bad: None }, 0);
                world.git[number] = Some(Rc::new(Peer { record: Some(record), heard: moment(0) }));
            }
            let first = world.next_commit(0).unwrap_or_default() + world.dice.range(1, 120);
            world.at(first, Event::Poll { host: number });
            if world.dice.percent(10) {
                let at = world.dice.range(1, course.until);
                world.at(at, Event::Restart { host: number });
            }
        }
        world.shown.clone_from(&world.git);
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, event)));
    }

    /// Returns when the next commit comes, after `now`.
    fn next_commit(&self, now: u64) -> Option<u64> {
        self.commits.iter().map(|commit| commit.at).find(|at| *at > now)
    }

    /// What a host's clock shows.
    fn clock(&self, number: usize, at: u64) -> Timestamp {
        moment(at) + SignedDuration::from_secs(self.hosts[number].skew)
    }

    fn record(&self, number: usize, said: Said, now: u64) -> Record {
        let at = self.clock(number, now);
        let commit = &self.commits[said.commit];
        let record = AppRecord {
            state: STATES[usize::from(said.state)],
            since: at,
            from: None,
            digest: commit.digest,
            contested: Vec::new(),
            images: BTreeMap::new(),
            changes: 1,
            bad: said.bad.map(|bad| self.commits[bad].digest),
            runs: (said.bad == Some(said.commit)).then(|| self.commits[0].id.clone()),
            failure: None,
        };
        Record {
            fleet: "home".to_owned(),
            host: self.hosts[number].name.clone(),
            commit: commit.id.clone(),
            counter: 1,
            at,
            apps: BTreeMap::from([(self.app.clone(), record)]),
        }
    }

    /// Returns what is in the repository, as of the last tick.
    fn look(&mut self, now: u64) {
        if now / self.tick != self.shown_at / self.tick {
            self.shown.clone_from(&self.git);
            self.counted.clear();
            self.shown_at = now / self.tick * self.tick;
        }
    }

    fn standing(&mut self, newest: usize, since: u64) -> Rc<Standing> {
        if let Some(counted) = self.counted.get(&newest) {
            return Rc::clone(counted);
        }
        let order = self.order_of_turns.iter().map(|(place, number)| (*place, &self.hosts[*number].name)).collect();
        let commit = &self.commits[newest];
        let now = moment(self.shown_at);
        let standing = Standing::of(&self.policy, &order, |name| {
            let release = (&self.app, Some(commit.digest), &commit.id);
            rollout::stage(self.shown[number(name)].as_deref(), release, self.policy.silent_after, moment(since), now)
        });
        let standing = Rc::new(standing);
        self.counted.insert(newest, Rc::clone(&standing));
        standing
    }

    fn is_away(&self, number: usize, now: u64) -> bool {
        self.hosts[number].away.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// Pushes what a host says, some seconds late.
    fn say(&mut self, number: usize, now: u64, state: Said) {
        let host = &mut self.hosts[number];
        let is_quiet = host.signs.is_none_or(|row| now - row.last > SILENT_AFTER / 3);
        if host.nature == Nature::Mute || (host.said == Some(state) && !is_quiet) {
            return;
        }
        host.said = Some(state);
        let late = self.dice.range(0, 20);
        let life = self.hosts[number].life;
        self.at(now + late, Event::Pushed { host: number, life, state });
    }

    /// Says whether everybody has what is to be had, so that nothing happens any more.
    fn is_over(&self, now: u64) -> bool {
        let newest = self.commits.len() - 1;
        let has_it = |host: &SimHost| host.runs == newest && host.doing == Doing::Rests;
        let is_gone = |host: &SimHost| host.away.iter().any(|(from, to)| *from <= now && *to > self.until);
        now > self.commits[newest].at
            && self.hosts.iter().all(|host| host.nature != Nature::Honest || has_it(host) || is_gone(host))
    }

    fn run(&mut self) {
        let mut looked = 0;
        while let Some(Reverse((now, _, event))) = self.queue.pop() {
            if now > self.until || (now >= looked + 600 && self.is_over(now)) {
                break;
            }
            looked = if now >= looked + 600 { now } else { looked };
            match event {
                Event::Poll { host } => self.poll(host, now),
                Event::Pushed { host, life, state } => self.pushed(host, life, state, now),
                Event::Shown { host, push, state, at } => self.show(host, push, state, at),
                Event::Changed { host, life } => self.changed(host, life, now),
                Event::Restart { host } => self.restart(host, now),
                Event::Decide { host, life } => self.decide_late(host, life, now),
            }
            assert!(
                self.changing <= self.most_changing,
                "{} hosts change at {now}, of which {} may: {:?}",
                self.changing,
                self.most_changing,
                self.hosts
                    .iter()
                    .filter(|it| matches!(it.doing, Doing::Changes(_)))
                    .map(|it| &it.name)
                    .collect::<Vec<_>>()
            );
            self.worst = self.worst.max(self.changing);
        }
    }

    fn pushed(&mut self, number: usize, life: u32, state: Said, now: u64) {
        if self.is_away(number, now) {
            // It never arrived, and the host knows.
            let host = &mut self.hosts[number];
            host.said = None;
            if let Doing::Announces(_) = host.doing {
                host.doing = Doing::Rests;
            }
            return;
        }
        let host = &mut self.hosts[number];
        host.pushes += 1;
        host.arrived = Some(state);
        host.signs = Some(match host.signs {
            Some(row) if now - row.last <= SILENT_AFTER / 2 => Row { last: now, ..row },
            Some(row) => Row { first: now, last: now, before: Some(row.last) },
            None => Row { first: now, last: now, before: None },
        });
        let push = host.pushes;
        match self.dice.percent(self.lag) {
            true => {
                let late = self.dice.range(1, 60);
                self.at(now + late, Event::Shown { host: number, push, state, at: now });
            }
            false => self.show(number, push, state, now),
        }
        let host = &mut self.hosts[number];
        if host.life != life {
            return;
        }
        if let Doing::Announces(release) = host.doing {
            let is_fresh = now - host.view <= SILENT_AFTER / 4;
            if is_fresh && state.state == APPLYING {
                self.begin(number, release, now);
            } else {
                let host = &mut self.hosts[number];
                (host.doing, host.said) = (Doing::Rests, None);
            }
        }
    }

    /// Shows what was pushed at a moment; nothing older than what is shown.
    fn show(&mut self, number: usize, push: u64, state: Said, at: u64) {
        if push > self.pushes[number] {
            let record = self.record(number, state, at);
            self.pushes[number] = push;
            self.git[number] = Some(Rc::new(Peer { record: Some(record), heard: moment(at) }));
        }
    }

    fn begin(&mut self, number: usize, release: usize, now: u64) {
        let is_mute = self.hosts[number].nature == Nature::Mute;
        let host = &mut self.hosts[number];
        host.doing = Doing::Changes(release);
        host.began.push((release, now));
        // Who cannot tell the others what it does is not counted: they pass it over.
        self.changing += usize::from(!is_mute);
        let (long, life) = (self.dice.range(5, 90), self.hosts[number].life);
        self.at(now + long, Event::Changed { host: number, life });
    }

    fn changed(&mut self, number: usize, life: u32, now: u64) {
        if self.hosts[number].life != life {
            return;
        }
        let Doing::Changes(release) = self.hosts[number].doing else { return };
        let is_bad = self.commits[release].is_bad;
        let host = &mut self.hosts[number];
        self.changing -= usize::from(host.nature != Nature::Mute);
        if is_bad {
            host.bad = Some(release);
            host.doing = Doing::Rests;
            self.say(number, now, Said { commit: release, state: ROLLED_BACK, bad: Some(release) });
        } else {
            host.runs = release;
            host.doing = Doing::Bakes(release, now);
            self.say(number, now, Said { commit: release, state: BAKING, bad: None });
        }
    }

    fn restart(&mut self, number: usize, now: u64) {
        let host = &mut self.hosts[number];
        host.life += 1;
        host.said = None;
        match host.doing {
            // What had begun goes on.
            Doing::Changes(_) => {
                let life = host.life;
                self.at(now + 30, Event::Changed { host: number, life });
            }
            Doing::Announces(_) => host.doing = Doing::Rests,
            _ => {}
        }
    }

    fn poll(&mut self, number: usize, now: u64) {
        let host = &self.hosts[number];
        if self.is_away(number, now) || host.stuck.is_some() {
            let next = now + self.dice.range(40, 120);
            return self.at(next, Event::Poll { host: number });
        }
        self.look(now);
        let view = self.shown_at;
        let newest = self.commits.iter().rposition(|commit| commit.at <= view).expect("the first is always there");
        if self.hosts[number].seen.0 != newest {
            let before = self.polled_before(number, newest, view);
            let host = &mut self.hosts[number];
            (host.seen, host.polled_before) = ((newest, now), before);
        }
        self.hosts[number].view = view;
        self.act(number, newest, now, None);
        let host = &self.hosts[number];
        let is_told = host.nature == Nature::Mute || host.arrived.is_some_and(|said| said == converged(newest));
        // Who has nothing to do asks as before, and learns nothing until the next commit is there.
        let is_idle = host.runs == newest && host.doing == Doing::Rests && is_told;
        self.hosts[number].is_idle = is_idle;
        let pause = if self.hosts.len() < CROWD { self.dice.range(40, 80) } else { self.dice.range(90, 112) };
        match (is_idle, self.next_commit(view)) {
            (true, None) => {}
            (true, Some(next)) => {
                let late = self.dice.range(1, 120);
                self.at(next.max(now) + late, Event::Poll { host: number });
            }
            (false, _) => self.at(now + pause, Event::Poll { host: number }),
        }
    }

    /// Says when the repository had answered a host last that sees a commit now: somebody idle asks every other minute.
    fn polled_before(&mut self, number: usize, newest: usize, view: u64) -> u64 {
        let usual = view.saturating_sub(self.dice.range(60, 120)).min(self.commits[newest].at);
        let host = &self.hosts[number];
        if !host.is_idle {
            return host.view;
        }
        let away = host.away.iter().find(|(from, to)| (*from..*to).contains(&usual));
        away.map_or(usual, |(from, _)| *from).max(host.view)
    }

    fn decide_late(&mut self, number: usize, life: u32, now: u64) {
        let Some((standing, newest)) = self.hosts[number].stuck.take() else { return };
        if self.hosts[number].life == life && self.hosts[number].seen.0 == newest && !self.is_away(number, now) {
            self.act(number, newest, now, Some(standing));
        }
    }

    fn act(&mut self, number: usize, newest: usize, now: u64, standing: Option<Rc<Standing>>) {
        let host = &self.hosts[number];
        match (host.nature, host.doing) {
            (Nature::Boasts, _) => return self.say(number, now, Said { commit: newest, state: CONVERGED, bad: None }),
            (Nature::Moans, _) => {
                return self.say(number, now, Said { commit: newest, state: ROLLED_BACK, bad: Some(newest) });
            }
            (_, Doing::Announces(_) | Doing::Changes(_)) => return,
            (_, Doing::Bakes(release, since)) => {
                let is_baked = Duration::from_secs(now - since) >= self.policy.bake;
                if release == newest && !is_baked {
                    return self.say(number, now, Said { commit: release, state: BAKING, bad: None });
                }
                if release == newest {
                    self.hosts[number].doing = Doing::Rests;
                    return self.say(number, now, converged(release));
                }
                self.hosts[number].doing = Doing::Rests;
            }
            (_, Doing::Rests) => {}
        }
        let host = &self.hosts[number];
        if host.runs == newest {
            if host.arrived != Some(converged(newest)) {
                self.say(number, now, converged(newest));
            }
            return;
        }
        if host.bad == Some(newest) {
            return self.say(number, now, Said { commit: newest, state: ROLLED_BACK, bad: Some(newest) });
        }
        let since = host.seen.1;
        let signs = match (host.nature, host.signs) {
            (Nature::Mute, _) => Signs::Unreported,
            (_, None) => Signs::None,
            (_, Some(row)) => Signs::Since {
                first: self.clock(number, row.first),
                last: self.clock(number, row.last),
                was_away: row.first.saturating_sub(host.polled_before) > SILENT_AFTER * 3 / 4
                    || row.before.is_some_and(|before| before >= since),
            },
        };
        let own = Own { view: self.clock(number, host.view), signs };
        let (name, commit) = (host.name.clone(), self.commits[newest].id.clone());
        let standing = match standing {
            Some(standing) => standing,
            None => self.standing(newest, since.min(self.shown_at)),
        };
        if self.dice.percent(self.slow) && self.hosts[number].stuck.is_none() {
            // The answer takes its time, and is acted upon when it is there.
            let (host, life) = (number, self.hosts[number].life);
            self.hosts[number].stuck = Some((standing, newest));
            let late = self.dice.range(60, 900);
            return self.at(now + late, Event::Decide { host, life });
        }
        let change = Change { app: &self.app, commit: &commit, host: &name };
        let gate = rollout::decide(&self.fleet, &change, &standing, &own, self.clock(number, now));
        match gate {
            Gate::Go if self.hosts[number].nature == Nature::Mute => self.begin(number, newest, now),
            Gate::Go => {
                self.hosts[number].doing = Doing::Announces(newest);
                self.say(number, now, Said { commit: newest, state: APPLYING, bad: None });
            }
            Gate::Wait { .. } | Gate::Blocked { .. } => {
                self.say(number, now, Said { commit: newest, state: WAITING, bad: None });
            }
        }
    }
}

/// Runs a course, and says what came of it.
pub(crate) fn run(course: &Course) -> Report {
    let mut world = World::new(course);
    world.run();
    let newest = world.commits.len() - 1;
    let honest: Vec<&SimHost> = world.hosts.iter().filter(|it| it.nature == Nature::Honest).collect();
    for host in &world.hosts {
        let mut before = 0;
        for (release, _) in &host.began {
            assert!(*release > before, "{} went back by itself: {:?}", host.name, host.began);
            before = *release;
        }
    }
    let is_here =
        |host: &&&SimHost| !host.away.iter().any(|(from, to)| *from < course.until && *to + 4000 > course.until);
    let left: Vec<String> = honest
        .iter()
        .filter(is_here)
        .filter(|host| host.runs != newest && host.bad != Some(newest))
        .map(|host| format!("{} runs {} ({:?})", host.name, host.runs, host.doing))
        .collect();
    let began: Vec<(usize, u64)> = world.hosts.iter().flat_map(|host| host.began.clone()).collect();
    let took = |release: usize| began.iter().filter(|(began, _)| *began == release).count();
    let moans = |hosts: &[SimHost]| hosts.iter().filter(|it| it.nature == Nature::Moans).count();
    let (moaners, moaning_canaries) = (moans(&world.hosts), moans(&world.hosts[..course.canaries]));
    Report { left, took: (0..=newest).map(took).collect(), worst: world.worst, began, moaners, moaning_canaries }
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
    /// How many hosts say that what works failed, and how many canaries do.
    pub(crate) moaners: usize,
    pub(crate) moaning_canaries: usize,
}
