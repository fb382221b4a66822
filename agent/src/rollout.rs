//! Whether what a commit changes may begin on this host now: what the other hosts published, when they were heard, and what this
//! one told them. The judgement is [`spec::rollout`]'s.
//!
//! The others are looked at only while something waits for them: at first only at those who come before this host, and at
//! everybody who takes part right before it begins. A change that others have to know of is announced first: its record says
//! `applying`, and only when that is pushed does it begin.

mod kept;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use spec::course;
use spec::desired::Hold;
use spec::digest::Digest;
use spec::id::{AppName, HostName};
use spec::memory::{AppMemory, AppState, Memory};
use spec::record::{AppRecord, Record};
use spec::rollout::{Answer, Gate, Halt, Intent, Known, Look, Own, Row, Scheme, Signs, Spreading, Stage};

use self::kept::Keeper;
use self::others::Others;
use crate::belief::Belief;
use crate::ears::Hearing;
use crate::git::Peers;

/// The repository is asked as often as this while a rollout is on its way to this host, unless it is asked more often anyway.
const QUICK: Duration = Duration::from_secs(5);
/// For so much longer with every host that takes part, while everybody is asked for.
const PER_HOST: Duration = Duration::from_millis(20);

/// Why a change whose turn it is has not begun.
pub const TURN: &str = "it is its turn: the other hosts have to be told before it begins";

/// What a record announces: the releases that are about to begin, `None` for a removal.
pub type Announced = BTreeMap<AppName, Option<Digest>>;

/// Which rollouts are halted for everybody who has not begun.
#[derive(Debug, Default)]
pub struct Halts {
    /// By application, and how long others wait for a host that says nothing.
    pub halted: BTreeMap<AppName, (Halt, Duration)>,
    /// Of which applications this host cannot tell now.
    pub unclear: BTreeSet<AppName>,
}

/// What this host knows of rollouts.
pub struct Rollouts {
    host: HostName,
    kept: Keeper,
    others: Others,
    /// Whom to look at next, and how they are asked for.
    look: Look,
    asks: Option<Peers>,
    /// This host tells nobody what it does.
    is_mute: bool,
    intents: BTreeMap<AppName, Intent>,
    /// Those of the last time: who goes along with another one goes on with its own, though its own turn has not come.
    before: BTreeMap<AppName, Intent>,
    gates: BTreeMap<AppName, Gate>,
    /// How many hosts take part, and after which time one of them is silent.
    size: usize,
    silent_after: Option<Duration>,
    /// After which time others take this host for silent that wait for it.
    patience: Option<Duration>,
}

impl Rollouts {
    /// Reads what was kept.
    pub fn open(state: &Path, host: &HostName, reports: bool) -> Rollouts {
        Rollouts {
            host: host.clone(),
            kept: Keeper::open(state),
            others: Others::default(),
            look: Look::Nobody,
            asks: None,
            is_mute: !reports,
            intents: BTreeMap::new(),
            before: BTreeMap::new(),
            gates: BTreeMap::new(),
            size: 0,
            silent_after: None,
            patience: None,
        }
    }

    /// Keeps nothing from now on: somebody else does.
    pub fn only_look(&mut self) {
        self.kept.only_look();
    }

    /// Says whether nothing is kept.
    pub fn only_looks(&self) -> bool {
        self.kept.only_looks()
    }

    /// Says which of the changes that nothing else holds back may not begin yet, and why.
    pub fn holds(
        &mut self,
        belief: &Belief,
        memory: &Memory,
        held: &BTreeMap<AppName, Hold>,
        now: Timestamp,
    ) -> BTreeMap<AppName, Hold> {
        let Some(scheme) = &belief.scheme else {
            self.forget();
            self.patience = under_way(belief, memory).min();
            return BTreeMap::new();
        };
        (self.size, self.silent_after) = (scheme.size(), scheme.silent_after());
        self.take_up(scheme, now);
        let mut pending = course::pending(&belief.desired, memory);
        pending.retain(|app| !held.contains_key(app));
        self.intents.retain(|app, _| pending.contains(app));
        self.before.clone_from(&self.intents);
        self.gates.retain(|app, _| pending.contains(app));
        self.note_overdue(scheme, memory, now);
        let mut holds = BTreeMap::new();
        self.look = Look::Nobody;
        for app in &pending {
            let target = belief.desired.apps.get(app).map(|wanted| wanted.digest);
            let answer = self.gate(scheme, memory, app, now);
            if let Some(hold) = self.hold(app, target, &answer, now) {
                holds.insert(app.clone(), Hold::Waits(hold));
            }
            self.gates.insert(app.clone(), answer.gate);
            self.look = std::mem::replace(&mut self.look, Look::Nobody).and(answer.look);
        }
        self.asks = self.others.ask(&self.look, (&self.host, &*self.kept), scheme);
        self.patience = under_way(belief, memory).chain(self.silent_after.filter(|_| self.is_waited_for())).min();
        holds
    }

    /// Says which rollouts are halted, by what this host knows of the others.
    pub fn halts(&self, belief: &Belief, memory: &Memory, now: Timestamp) -> Halts {
        let mut halts = Halts::default();
        let Some(scheme) = &belief.scheme else { return halts };
        for app in course::pending(&belief.desired, memory) {
            match self.gates.get(&app) {
                // Right after the start.
                _ if self.others.peers.is_empty() => drop(halts.unclear.insert(app)),
                Some(Gate::Blocked { .. }) => {
                    let patience = scheme.policy(&app).silent_after;
                    let halt = self.with_known(scheme, memory, &app, now, |known| scheme.halt(&app, known, now));
                    halts.halted.extend(halt.map(|halt| (app, (halt, patience))));
                }
                Some(_) => {}
                // Something else holds it back, so that nobody looked.
                None => drop(halts.unclear.insert(app)),
            }
        }
        halts
    }

    /// Iterates over the records of the other hosts that were read.
    pub fn records(&self) -> impl Iterator<Item = (&HostName, &Record)> {
        self.others.peers.iter().filter_map(|(host, peer)| Some((host, peer.record.as_ref()?)))
    }

    /// Lets applications go together that something moves between, or that read the same: one of each group takes its turn for all
    /// of them, since each has an order of its own, and two hosts would otherwise wait for each other. Who may not go for another
    /// reason than that its own turn has not come is held, and with it the others; none begins before all are announced.
    pub fn lead(
        &mut self,
        belief: &Belief,
        memory: &Memory,
        mut holds: BTreeMap<AppName, Hold>,
        groups: &[BTreeSet<AppName>],
        now: Timestamp,
    ) -> BTreeMap<AppName, Hold> {
        let Some(scheme) = &belief.scheme else { return holds };
        for group in groups {
            // What is held for a reason of its own is waited for, or not, where holds are worked out.
            let group = group.iter().filter(|app| self.gates.contains_key(*app)).cloned().collect();
            let Some(leader) = scheme.leader(&group) else { continue };
            let is_its_turn = self.gates.get(leader) == Some(&Gate::Go);
            let turn = Hold::Waits(TURN.to_owned());
            for app in group.iter().filter(|app| *app != leader) {
                if !is_its_turn && holds.get(app).is_none_or(|hold| *hold == turn) {
                    let why = format!("it goes together with {leader}, whose turn has not come");
                    holds.insert(app.clone(), Hold::Waits(why));
                }
                if !is_its_turn {
                    continue;
                }
                let gate = self.with_known(scheme, memory, app, now, |known| scheme.may_follow(app, known, now));
                let answer = Answer { gate, has_company: scheme.is_coordinated(app), look: Look::Nobody };
                let release = belief.desired.apps.get(app).map(|wanted| wanted.digest);
                match self.hold(app, release, &answer, now) {
                    Some(why) => drop(holds.insert(app.clone(), Hold::Waits(why))),
                    None => drop(holds.remove(app)),
                }
            }
            if group.iter().any(|app| holds.get(app) == Some(&turn)) {
                for app in &group {
                    holds.entry(app.clone()).or_insert_with(|| turn.clone());
                }
            }
        }
        holds
    }

    /// Returns why a change does not begin now, and notes the intention where it is its turn.
    fn hold(&mut self, app: &AppName, release: Option<Digest>, answer: &Answer, now: Timestamp) -> Option<String> {
        match &answer.gate {
            Gate::Go if !answer.has_company || self.is_mute => None,
            Gate::Go => {
                let before = self.intents.get(app).or(self.before.get(app)).copied();
                let intent = Intent::to(release, before, now);
                self.intents.insert(app.clone(), intent);
                (!self.is_told(app, &intent)).then(|| TURN.to_owned())
            }
            Gate::Wait { until, because } => {
                self.intents.remove(app);
                Some(match until {
                    Some(until) => format!("{because}, until {}", until.strftime("%Y-%m-%d %H:%M:%SZ")),
                    None => because.clone(),
                })
            }
            Gate::Blocked { because } => {
                self.intents.remove(app);
                Some(because.clone())
            }
        }
    }

    /// Says whether the others know of a change, so that it may begin.
    fn is_told(&self, app: &AppName, intent: &Intent) -> bool {
        intent.is_told(self.others.view, self.others.show(app, intent, self.silent_after))
    }

    /// Takes back what was announced of applications that wait for something else.
    pub fn retract(&mut self, is_held: impl Fn(&AppName) -> bool) {
        self.intents.retain(|app, _| !is_held(app));
    }

    fn gate(&self, scheme: &Scheme, memory: &Memory, app: &AppName, now: Timestamp) -> Answer {
        self.with_known(scheme, memory, app, now, |known| scheme.gate(app, known, now))
    }

    /// Asks with what this host knows when it is about an application.
    fn with_known<T>(
        &self,
        scheme: &Scheme,
        memory: &Memory,
        app: &AppName,
        now: Timestamp,
        ask: impl FnOnce(&Known<'_>) -> T,
    ) -> T {
        let stage = |app: &AppName| self.own_stage(scheme, memory, app);
        let since = |app: &AppName| self.kept.releases.get(app).map_or(now, |spreading| spreading.seen);
        let own = Own { view: self.others.view.unwrap_or(Timestamp::UNIX_EPOCH), signs: self.signs(scheme, app) };
        ask(&Known { peers: &self.others.peers, own, stage: &stage, since: &since, overdue: &self.kept.overdue })
    }

    /// Says how far this host is with an application.
    fn own_stage(&self, scheme: &Scheme, memory: &Memory, app: &AppName) -> Stage {
        if self.intents.contains_key(app) {
            return Stage::Changing;
        }
        let target = scheme.targets(app).and_then(|targets| targets.get(&self.host)).copied().flatten();
        match (target, memory.apps.get(app)) {
            (None, None) => Stage::Done,
            (None, Some(known)) if known.going => Stage::Changing,
            (None, Some(_)) => Stage::Waiting,
            (Some(_), None) => Stage::Waiting,
            (Some(target), Some(known)) if known.bad.as_ref().is_some_and(|bad| bad.digest == target) => failed(known),
            (Some(target), Some(known)) if known.digest != target => Stage::Waiting,
            (Some(_), Some(known)) => match known.state {
                AppState::Waiting if !known.reached => Stage::Waiting,
                AppState::Applying | AppState::Unhealthy => Stage::Changing,
                AppState::Failed | AppState::RolledBack => failed(known),
                _ if known.baking.is_some() => Stage::Baking,
                _ => Stage::Done,
            },
        }
    }

    /// Returns this host's signs of life, as they matter for one application.
    fn signs(&self, scheme: &Scheme, app: &AppName) -> Signs {
        if self.is_mute {
            return Signs::Unreported;
        }
        let Some(row) = &self.kept.signs else { return Signs::None };
        row.signs(self.kept.releases.get(app), scheme.policy(app).silent_after)
    }

    /// Notes for how long those who were looked at have been at each application.
    fn note_overdue(&mut self, scheme: &Scheme, memory: &Memory, now: Timestamp) {
        let Some(whom) = self.others.looked_at.take() else { return };
        let looked_at = |host: &HostName| match &whom {
            Peers::All => true,
            Peers::Some(hosts) => hosts.contains(host),
        };
        for app in scheme.coordinated() {
            let awaited = self.with_known(scheme, memory, app, now, |known| scheme.awaited(app, known, now));
            self.kept.overdue.entry(app.clone()).or_default().note(&awaited, looked_at, now);
        }
        self.kept.save_overdue(now);
    }

    /// Notes since when each release is known.
    fn take_up(&mut self, scheme: &Scheme, now: Timestamp) {
        self.kept.not_after(now);
        self.others.not_after(now);
        let polled = self.kept.polled;
        let releases = scheme.coordinated().filter_map(|app| Some((app.clone(), scheme.release(app)?)));
        let releases: BTreeMap<AppName, Digest> = releases.collect();
        self.kept.releases.retain(|app, known| releases.get(app) == Some(&known.release));
        self.kept.overdue.retain(|app, _| releases.contains_key(app));
        for (app, release) in releases {
            self.kept.releases.entry(app).or_insert(Spreading { release, seen: now, polled });
        }
        self.kept.save();
    }

    /// Takes in what is heard of `whom`, who were asked for at `asked`.
    pub fn look(&mut self, hearing: &mut Hearing<'_>, scheme: &Scheme, whom: (&Peers, Timestamp), now: Timestamp) {
        self.others.look((&self.host, &mut *self.kept), hearing, scheme, whom, now);
        self.kept.save();
    }

    /// The repository answered at `at`.
    pub fn polled(&mut self, at: Timestamp) {
        self.kept.polled = Some(at);
    }

    /// Writes into a record what is about to begin.
    pub fn announce(&self, record: &mut Record) {
        announce(&self.intents, record);
    }

    /// Says what a record that is written now announces.
    pub fn announced(&self) -> Announced {
        self.intents.iter().map(|(app, intent)| (app.clone(), intent.release)).collect()
    }

    /// The others can see what was announced. Says whether that is news.
    pub fn seen(&mut self, announced: &Announced, at: Timestamp) -> bool {
        let mut is_news = false;
        for (app, intent) in &mut self.intents {
            if announced.get(app) == Some(&intent.release) && intent.pushed.is_none() {
                (intent.pushed, is_news) = (Some(at), true);
            }
        }
        is_news
    }

    /// A sign of life went out that was begun at `at`. Says whether something here may have waited for that.
    pub fn signed(&mut self, at: Timestamp) -> bool {
        let was_quiet = self.kept.signs.is_none() || self.is_mute;
        self.is_mute = false;
        let silent_after = self.patience.unwrap_or(spec::manifest::SILENT_AFTER);
        self.kept.signs = Some(Row::with(self.kept.signs.take(), at, silent_after));
        self.kept.save();
        let is_new = self.kept.signs.as_ref().is_some_and(|row| row.first == at);
        self.is_concerned() && (was_quiet || is_new)
    }

    /// The repository does not let this host tell anything: it takes its turn all the same, and the others pass it over.
    pub fn denied(&mut self) {
        self.is_mute = true;
    }

    /// Says whether the others have to be asked for at once: it may be this host's turn, and they were never asked for.
    pub fn lacks_view(&self) -> bool {
        self.look == Look::All && self.others.view.is_none()
    }

    /// Says whether something here waits for other hosts.
    pub fn is_concerned(&self) -> bool {
        self.look != Look::Nobody
    }

    /// Says whether it is this host's turn with something, and only the others have to be told, or looked at once more.
    pub fn is_about_to_begin(&self) -> bool {
        self.intents.iter().any(|(app, intent)| !self.is_told(app, intent))
    }

    /// Returns whom to ask for with the next look at the repository.
    pub fn asks(&self) -> Option<Peers> {
        self.asks.clone()
    }

    /// Says whether others may wait for this host: what is held or halted here is nobody's to wait for.
    fn is_waited_for(&self) -> bool {
        self.size > 0 && self.gates.values().any(|gate| !matches!(gate, Gate::Blocked { .. }))
    }

    /// Returns how long to wait between two looks at the repository: the shorter, the nearer this host's turn is.
    pub fn interval(&self, usual: Duration) -> Duration {
        let longest = self.silent_after.unwrap_or(Duration::MAX) / 8;
        let quick = (usual / 4).max(QUICK);
        let wait = match &self.look {
            Look::Nobody => usual,
            Look::At { distance, .. } => {
                quick.min(longest).saturating_mul(u32::try_from(distance + 1).unwrap_or(u32::MAX))
            }
            Look::All => quick.max(PER_HOST.saturating_mul(u32::try_from(self.size).unwrap_or(u32::MAX))).min(longest),
        };
        usual.min(wait)
    }

    /// Returns how often this host has to show that it is alive, while others may wait for it.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.patience.map(|silent_after| silent_after / 3)
    }

    /// Returns when the first of those that wait for a moment may go on.
    pub fn next(&self) -> Option<Timestamp> {
        let until = self.gates.values().filter_map(|gate| match gate {
            Gate::Wait { until, .. } => *until,
            Gate::Go | Gate::Blocked { .. } => None,
        });
        until.min()
    }

    fn forget(&mut self) {
        self.others = Others::default();
        self.intents.clear();
        self.before.clear();
        self.gates.clear();
        self.kept.heard.clear();
        self.kept.releases.clear();
        self.kept.overdue.clear();
        (self.size, self.silent_after) = (0, None);
        (self.look, self.asks) = (Look::Nobody, None);
        self.kept.save();
    }
}

/// Writes what is about to begin into a record, which has nothing yet of what is new on its host.
fn announce(intents: &BTreeMap<AppName, Intent>, record: &mut Record) {
    for (app, intent) in intents {
        match (record.apps.get_mut(app), intent.release) {
            (Some(said), release) => {
                (said.state, said.since, said.runs) = (AppState::Applying, intent.since, None);
                said.digest = release.unwrap_or(said.digest);
            }
            (None, Some(digest)) => {
                record.apps.insert(app.clone(), AppRecord::begins(digest, intent.since));
            }
            // There is nothing to remove.
            (None, None) => {}
        }
    }
}

/// Returns after which time others take this host for silent that wait for what has begun here.
fn under_way(belief: &Belief, memory: &Memory) -> impl Iterator<Item = Duration> {
    let is_under_way = |known: &AppMemory| {
        let is_at_work = matches!(known.state, AppState::Applying | AppState::Failed | AppState::Unhealthy);
        known.baking.is_some() || !known.reached || known.going || is_at_work
    };
    let apps = belief.policies.iter().filter(move |(app, _)| memory.apps.get(*app).is_some_and(is_under_way));
    apps.map(|(_, policy)| policy.silent_after)
}

fn failed(known: &AppMemory) -> Stage {
    match known.state {
        AppState::Failed | AppState::Unhealthy | AppState::Applying => Stage::Down,
        _ => Stage::Failed,
    }
}

#[cfg(test)]
mod tests;
