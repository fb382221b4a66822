//! Thousands of hosts that follow one repository, each with its own view of it, its own delays and its own bad days.
//!
//! Every host asks what was pushed, decides with `rollout::decide`, says what it is about to do, looks again, does it, and says
//! what came of it; all of that late by some seconds or minutes. What must hold at every moment is looked at by `laws`.

mod course;
mod dice;
mod host;
mod laws;
mod repository;

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spec::memory::AppState;
use spec::rollout::{self, Change, Gate, Intent, Look, Own, Row, Signs, Spreading};

pub(crate) use course::{Commit, Course, Report, Weather};
use dice::Dice;
use host::{Doing, Nature, SimHost};
use laws::{Begin, Laws};
use repository::{Repository, Said, Snapshot, converged, failed, said};

/// From so many hosts on it is a crowd: its hosts ask less often, as the agent does.
const CROWD: usize = 2000;
pub(crate) const SILENT_AFTER: u64 = 900;

#[derive(Clone, Copy, Debug)]
struct Event {
    host: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// It asks the repository; of what was planned only the last counts.
    Poll(u32),
    /// What it saw when it asked is acted upon at last.
    Late(u32),
    /// What it said has arrived, and whether it is told so.
    Pushed {
        life: u32,
        said: Said,
        is_told: bool,
    },
    /// Its change is over.
    Changed(u32),
    /// What it is healthy at turns out to be broken.
    Spoilt(usize),
    Restart,
}

struct World {
    repository: Repository,
    hosts: Vec<SimHost>,
    /// What happens in each second.
    queue: Vec<Vec<Event>>,
    dice: Dice,
    laws: Laws,
    course: Course,
}

/// The moment of the story that is so many seconds after its beginning, a Friday in 2027.
pub(crate) fn moment(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).expect("it is small");
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

impl World {
    fn new(course: &Course) -> World {
        let mut dice = Dice::new(course.seed);
        let mut hosts: Vec<SimHost> = (0..course.hosts).map(|it| SimHost::new(it, course, &mut dice)).collect();
        // Who is not there yet has said nothing.
        hosts[course.first_hosts..].iter_mut().for_each(|host| (host.says, host.arrived) = (None, None));
        let entry = |host: &SimHost| Some((host.arrived.filter(|_| host.nature != Nature::Mute)?, moment(0)));
        let entries = hosts.iter().map(entry).collect();
        let repository = Repository::new(course, entries, course.hosts >= CROWD);
        let laws = Laws::new(course, &hosts, &repository.releases);
        let seconds = usize::try_from(course.until).expect("it is small") + 1;
        let queue = vec![Vec::new(); seconds];
        let mut world = World { repository, hosts, queue, dice, laws, course: course.clone() };
        for number in 0..world.hosts.len() {
            let first = world.repository.next_commit(0).unwrap_or_default() + world.dice.range(1, 120);
            world.poll_at(number, first);
            if world.dice.percent(course.weather.restarts) {
                let at = world.dice.range(1, course.until);
                world.at(at, number, What::Restart);
            }
        }
        world
    }

    fn at(&mut self, at: u64, host: usize, what: What) {
        let second = usize::try_from(at).expect("it is small");
        if let Some(events) = self.queue.get_mut(second) {
            events.push(Event { host, what });
        }
    }

    /// The host asks at a moment, and not at the one that was planned before.
    fn poll_at(&mut self, number: usize, at: u64) {
        self.hosts[number].polls += 1;
        self.at(at, number, What::Poll(self.hosts[number].polls));
    }

    /// What a host's clock shows.
    fn clock(&self, number: usize, at: u64) -> Timestamp {
        moment(at) + SignedDuration::from_secs(self.hosts[number].skew)
    }

    fn run(&mut self) {
        for now in 0..=self.course.until {
            let second = usize::try_from(now).expect("it is small");
            // What happens now can make more happen in the same second.
            while !self.queue[second].is_empty() {
                for event in mem::take(&mut self.queue[second]) {
                    self.happen(event, now);
                }
            }
            if now % 600 == 0 && self.is_over(now) {
                break;
            }
        }
    }

    fn happen(&mut self, Event { host, what }: Event, now: u64) {
        match what {
            What::Poll(polls) if self.hosts[host].polls == polls => self.poll(host, now),
            What::Late(life) => self.decide_late(host, life, now),
            What::Pushed { life, said, is_told } => self.pushed(host, (said, is_told), life, now),
            What::Changed(life) if self.hosts[host].life == life => self.changed(host, now),
            What::Spoilt(release) => self.spoilt(host, release, now),
            What::Restart => self.restart(host, now),
            What::Poll(_) | What::Changed(_) => {}
        }
    }

    /// Says whether each host looks at those of the others only that matter for it, as agents do. One story in four is told so; in a
    /// crowd all share one view, or there would be ten thousand of them.
    fn looks_at_some(&self) -> bool {
        self.course.seed % 4 == 1 && self.hosts.len() < CROWD
    }

    /// Says whether everybody has what is to be had, so that nothing happens any more.
    fn is_over(&self, now: u64) -> bool {
        let newest = self.repository.releases.len() - 1;
        let wanted = self.repository.content(newest);
        let is_there = |host: &SimHost| host.doing == Doing::Rests && (host.runs == wanted || host.bad == Some(wanted));
        let is_gone = |host: &SimHost| host.away.iter().any(|(from, to)| *from <= now && *to > self.course.until);
        now > self.repository.releases[newest].at
            && self.hosts[self.repository.releases[newest].terms.hosts.clone()]
                .iter()
                .all(|host| host.nature != Nature::Honest || is_there(host) || is_gone(host))
    }

    /// Says something as soon as what was said before has arrived; the same again only when it has been quiet for long.
    fn say(&mut self, number: usize, now: u64, said: Said) {
        let host = &mut self.hosts[number];
        let is_quiet = host.sign_at.is_none_or(|last| now - last > SILENT_AFTER / 3);
        if host.nature == Nature::Mute || (host.says == Some(said) && !is_quiet) {
            return;
        }
        host.says = Some(said);
        if !host.is_pushing {
            self.push(number, now);
        }
    }

    fn push(&mut self, number: usize, now: u64) {
        let host = &mut self.hosts[number];
        let Some(said) = host.says else { return };
        host.is_pushing = true;
        let life = host.life;
        let weather = &self.course.weather;
        let most = if self.dice.percent(weather.lag) { 80 } else { 20 };
        let is_told = !self.dice.percent(weather.lost);
        let late = self.dice.range(0, most);
        self.at(now + late, number, What::Pushed { life, said, is_told });
    }

    fn pushed(&mut self, number: usize, (said, is_told): (Said, bool), life: u32, now: u64) {
        let is_away = self.hosts[number].is_away(now);
        if !is_away {
            self.repository.push(number, said, now);
        }
        let clock = self.clock(number, now);
        let host = &mut self.hosts[number];
        if host.life != life {
            return;
        }
        host.is_pushing = false;
        if is_away || !is_told {
            // It is said again when the host looks around next.
            host.says = None;
            return;
        }
        (host.arrived, host.sign_at) = (Some(said), Some(now));
        host.signs = Some(Row::with(host.signs, clock, Duration::from_secs(SILENT_AFTER)));
        let release = Some(self.repository.releases[said.commit].digest);
        if said.state == AppState::Applying
            && let Some(intent) = host.intent.as_mut().filter(|it| it.release == release && it.pushed.is_none())
        {
            intent.pushed = Some(clock);
            let soon = self.repository.shown_at(now) + self.dice.range(1, 5);
            self.poll_at(number, soon);
        }
        if self.hosts[number].says != Some(said) {
            self.push(number, now);
        }
        // Something else lets it look at itself before it has asked again.
        if let Some(snapshot) = self.hosts[number].intent_by.take() {
            self.act(number, &snapshot, now);
        }
    }

    fn begin(&mut self, number: usize, release: usize, snapshot: &Rc<Snapshot>, now: u64) {
        let host = &mut self.hosts[number];
        (host.doing, host.intent, host.intent_by) = (Doing::Changes(release), None, None);
        host.began.push((release, now));
        let life = host.life;
        let newest = self.hosts[number].newest;
        let begin = Begin { number, release, newest, now, seen: (snapshot.view, &snapshot.hosts) };
        self.laws.begins(&begin, &self.hosts);
        let long = self.dice.range(5, self.course.weather.longest_change);
        self.at(now + long, number, What::Changed(life));
    }

    /// Says whether a release breaks a host: always the same one.
    fn is_broken_by(&self, number: usize, release: usize) -> bool {
        let mut dice = Dice::new(self.course.seed ^ ((release as u64) << 32) ^ number as u64);
        dice.percent(self.repository.releases[release].breaks)
    }

    fn changed(&mut self, number: usize, now: u64) {
        let Some(release) = self.hosts[number].changes() else { return };
        self.laws.ends(&self.hosts[number]);
        let is_broken = self.is_broken_by(number, release);
        // A third of what is broken shows it only after a while.
        let is_late = self.dice.percent(33);
        let newest = self.hosts[number].newest;
        let bake = self.repository.releases[newest].terms.policy.bake.as_secs();
        if is_broken && !is_late {
            return self.go_back(number, release, now);
        }
        if is_broken {
            let late = self.dice.range(1, bake - 1);
            self.at(now + late, number, What::Spoilt(release));
        }
        let host = &mut self.hosts[number];
        (host.runs, host.doing) = (release, Doing::Bakes(release, now));
        self.say(number, now, said(release, AppState::Baking));
    }

    fn spoilt(&mut self, number: usize, release: usize, now: u64) {
        if matches!(self.hosts[number].doing, Doing::Bakes(it, _) if it == release) {
            self.go_back(number, release, now);
        }
    }

    fn go_back(&mut self, number: usize, release: usize, now: u64) {
        let host = &mut self.hosts[number];
        (host.bad, host.doing) = (Some(release), Doing::Rests);
        host.runs = host.began.iter().rev().map(|it| it.0).find(|it| *it != release).unwrap_or_default();
        self.say(number, now, failed(release));
    }

    /// The agent dies and starts again: what had begun goes on, and what was only said is said anew.
    fn restart(&mut self, number: usize, now: u64) {
        let host = &mut self.hosts[number];
        host.life += 1;
        (host.says, host.intent, host.intent_by, host.stuck, host.is_pushing) = (None, None, None, None, false);
        let life = host.life;
        if host.changes().is_some() {
            self.at(now + 30, number, What::Changed(life));
        }
        self.poll_at(number, now + 5);
    }

    fn poll(&mut self, number: usize, now: u64) {
        let is_crowd = self.hosts.len() >= CROWD;
        let pause = if is_crowd { self.dice.range(90, 112) } else { self.dice.range(40, 80) };
        self.poll_at(number, now + pause);
        let host = &self.hosts[number];
        if host.is_away(now) || host.stuck.is_some() {
            return;
        }
        self.hosts[number].intent_by = None;
        let snapshot = match self.looks_at_some() {
            true => self.repository.look_at_some(&mut self.hosts[number], now),
            false => self.repository.look(now),
        };
        let newest = self.repository.newest(snapshot.at);
        if !self.repository.has(newest, number) {
            return self.leave(number, &snapshot, now);
        }
        self.take_up(number, newest, &snapshot, now);
        if self.dice.percent(self.course.weather.slow) {
            // The answer is acted upon late.
            let late = self.dice.range(60, self.course.weather.slowest);
            let host = &mut self.hosts[number];
            host.stuck = Some(snapshot);
            let life = host.life;
            return self.at(now + late, number, What::Late(life));
        }
        self.act(number, &snapshot, now);
        self.rest(number, snapshot.at, now);
    }

    /// The host is not in the fleet of the newest commit: what it has stays as it is, until another commit says more.
    fn leave(&mut self, number: usize, snapshot: &Rc<Snapshot>, now: u64) {
        let host = &mut self.hosts[number];
        (host.intent, host.view) = (None, snapshot.at);
        if host.changes().is_none() {
            let next = self.repository.next_commit(snapshot.at).unwrap_or(self.course.until);
            let late = self.dice.range(1, 120);
            self.poll_at(number, next.max(now) + late);
        }
    }

    /// Notes since when a commit is known, and when the repository answered.
    fn take_up(&mut self, number: usize, newest: usize, snapshot: &Rc<Snapshot>, now: u64) {
        if self.hosts[number].newest != newest {
            let polled = Some(self.polled_before(number, newest, snapshot.at)).map(|at| self.clock(number, at));
            let (seen, release) = (self.clock(number, now), self.repository.releases[newest].spreads);
            let host = &mut self.hosts[number];
            host.newest = newest;
            if host.spreading.is_none_or(|before| before.release != release) {
                host.since = now;
                host.spreading = Some(Spreading { release, seen, polled });
            }
        }
        self.hosts[number].view = snapshot.at;
    }

    /// Says when the repository had answered a host last that sees a commit now: somebody idle asks every other minute.
    fn polled_before(&mut self, number: usize, newest: usize, view: u64) -> u64 {
        let usual = view.saturating_sub(self.dice.range(60, 120)).min(self.repository.releases[newest].at);
        let host = &self.hosts[number];
        if !host.is_idle {
            return host.view;
        }
        let away = host.away.iter().find(|(from, to)| (*from..*to).contains(&usual));
        away.map_or(usual, |(from, _)| *from).max(host.view)
    }

    /// Who has nothing to do asks as before, and learns nothing until the next commit is there.
    fn rest(&mut self, number: usize, view: u64, now: u64) {
        let host = &mut self.hosts[number];
        let wanted = self.repository.content(host.newest);
        let is_told = host.nature == Nature::Mute || host.arrived == Some(converged(host.newest));
        host.is_idle = host.runs == wanted && host.doing == Doing::Rests && is_told;
        if host.is_idle {
            let late = self.dice.range(1, 120);
            let next = self.repository.next_commit(view).unwrap_or(self.course.until);
            self.poll_at(number, next.max(now) + late);
        }
    }

    fn decide_late(&mut self, number: usize, life: u32, now: u64) {
        if self.hosts[number].life == life
            && let Some(snapshot) = self.hosts[number].stuck.take()
        {
            self.act(number, &snapshot, now);
        }
    }

    fn act(&mut self, number: usize, snapshot: &Rc<Snapshot>, now: u64) {
        self.bake(number, now);
        let host = &self.hosts[number];
        let newest = host.newest;
        let wanted = self.repository.content(newest);
        let state = match (host.nature, host.doing) {
            (Nature::Boasts, _) => converged(newest),
            (Nature::Moans, _) => failed(newest),
            (Nature::Stalls, _) => said(newest, AppState::Applying),
            (Nature::Idles, _) => said(newest, AppState::Waiting),
            (_, Doing::Changes(release)) => said(release, AppState::Applying),
            (_, Doing::Bakes(release, _)) if release == wanted => said(newest, AppState::Baking),
            _ if host.runs == wanted => converged(newest),
            _ if host.bad == Some(wanted) => failed(newest),
            _ => return self.wait(number, snapshot, now),
        };
        self.say(number, now, state);
    }

    /// What has been healthy for long enough is there; what another commit came for before that has its turn anew.
    fn bake(&mut self, number: usize, now: u64) {
        let host = &mut self.hosts[number];
        let Doing::Bakes(release, since) = host.doing else { return };
        let newest = &self.repository.releases[host.newest];
        let is_baked = Duration::from_secs(now - since) >= newest.terms.policy.bake;
        if is_baked {
            self.laws.bakes(release, now);
        }
        if is_baked || release != newest.content {
            host.doing = Doing::Rests;
        }
    }

    /// Decides whether it is a host's turn; if so, says that first.
    fn wait(&mut self, number: usize, snapshot: &Rc<Snapshot>, now: u64) {
        let newest = self.hosts[number].newest;
        let (gate, view, look) = self.gate(number, snapshot, now);
        let clock = self.clock(number, now);
        let host = &mut self.hosts[number];
        host.look = look;
        if gate != Gate::Go {
            (host.intent, host.intent_by) = (None, None);
            return self.say(number, now, said(newest, AppState::Waiting));
        }
        if host.nature == Nature::Mute {
            return self.begin(number, self.repository.content(newest), snapshot, now);
        }
        let intent = Intent::to(Some(self.repository.releases[newest].digest), host.intent, clock);
        host.intent = Some(intent);
        let wanted = self.repository.content(newest);
        let is_announced =
            |said: Said| said.state == AppState::Applying && self.repository.content(said.commit) == wanted;
        let is_shown = snapshot.hosts[number].is_some_and(|(shown, _)| is_announced(shown));
        match intent.is_told(Some(view), is_shown) {
            true => self.begin(number, wanted, snapshot, now),
            false => {
                host.intent_by = Some(Rc::clone(snapshot));
                self.say(number, now, said(newest, AppState::Applying));
            }
        }
    }

    /// Decides as the host does, and says by its clock when it saw everybody, and at whom it has to look next.
    fn gate(&self, number: usize, snapshot: &Rc<Snapshot>, now: u64) -> (Gate, Timestamp, Look) {
        let host = &self.hosts[number];
        let terms = &self.repository.releases[host.newest].terms;
        let signs = match (host.nature, host.signs) {
            (Nature::Mute, _) => Signs::Unreported,
            (_, None) => Signs::None,
            (_, Some(row)) => row.signs(host.spreading.as_ref(), terms.policy.silent_after),
        };
        let own = Own { view: self.clock(number, snapshot.view), signs };
        let counted = self.repository.standing(snapshot, host.newest, host.since, now);
        // Most of a crowd wait for others: only every hundredth of these is asked, to see that it does.
        let waits = !counted.turns[number];
        if waits && self.hosts.len() >= CROWD && !(now + number as u64).is_multiple_of(100) {
            return (Gate::Wait { until: None, because: String::new() }, own.view, Look::All);
        }
        let commit = &self.repository.releases[host.newest].id;
        let change = Change { app: &self.repository.app, commit, host: &host.name };
        let clock = self.clock(number, now);
        let fleet = &terms.fleet;
        let gate = match rollout::decide(fleet, &change, &counted.standing, &own, clock) {
            Gate::Go => rollout::soaked(fleet, &change, &counted.standing, self.clock(number, host.since), clock),
            gate => gate,
        };
        assert!(gate != Gate::Go || !waits, "{} goes out of turn", host.name);
        let look = match &gate {
            Gate::Go => Look::All,
            gate => rollout::look(fleet, &change, &counted.standing, gate, clock),
        };
        (gate, own.view, look)
    }

    /// Says what a host is at that should be done, and what it waits for.
    fn describe(&self, number: usize, host: &SimHost) -> String {
        let SimHost { name, runs, newest, doing, view, says, arrived, intent, signs, .. } = host;
        format!(
            "{name} runs {runs} of {newest} and {doing:?}; it looked at {view} by a clock that is {} off, says {says:?} of which {arrived:?} \
             arrived by {signs:?}, intends {intent:?}, away {:?}: {:?}",
            host.skew,
            host.away,
            self.gate(number, host.seen.as_ref().unwrap_or(&self.repository.shown), self.course.until).0
        )
    }
}

/// Runs a course, and says what came of it.
pub(crate) fn run(course: &Course) -> Report {
    let mut world = World::new(course);
    world.run();
    let releases = &world.repository.releases;
    let (newest, last) = (releases[releases.len() - 1].content, &releases[releases.len() - 1]);
    let is_here =
        |host: &SimHost| !host.away.iter().any(|(from, to)| *from < course.until && *to + 4000 > course.until);
    let honest = world.hosts.iter().enumerate().filter(|(_, it)| it.nature == Nature::Honest && is_here(it));
    let honest = honest.filter(|(number, _)| last.terms.hosts.contains(number));
    let left = honest.filter(|(_, host)| host.runs != newest && host.bad != Some(newest));
    let left = left.map(|(number, host)| world.describe(number, host)).collect();
    let began: Vec<(usize, u64)> = world.hosts.iter().flat_map(|host| host.began.clone()).collect();
    let took = |release: usize| began.iter().filter(|(began, _)| *began == release).count();
    let moans =
        |hosts: &[SimHost]| hosts.iter().filter(|it| matches!(it.nature, Nature::Moans | Nature::Stalls)).count();
    Report {
        left,
        took: (0..releases.len()).map(took).collect(),
        worst: world.laws.worst,
        moaners: moans(&world.hosts),
        moaning_canaries: moans(&world.hosts[..course.canaries]),
        began,
    }
}
