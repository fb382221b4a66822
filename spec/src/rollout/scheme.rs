//! What of a fleet decides how the changes spread that concern one host, without the contents of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{
    Awaited, Change, Gate, Look, Overdue, Own, Peer, Stage, Standing, Step, Targets, Turn, deadline, decide, look,
    needs, order, permitted, policy, policy_name, soaked, stage,
};
use crate::digest::Digest;
use crate::id::{AppName, CommitId, HostName};
use crate::manifest::{self, App, Fleet, Rollout, Rule};
use crate::resolve;

/// How the changes of one commit spread, as far as they concern one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The fleet; what its applications consist of is left out.
    pub fleet: Fleet,
    /// The commit.
    pub commit: CommitId,
    host: HostName,
    /// Where each application goes that is coordinated with other hosts, or that such a one needs.
    targets: BTreeMap<AppName, Targets>,
}

/// What a host knows when it asks.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The other hosts, by what they published.
    pub peers: &'a BTreeMap<HostName, Peer>,
    /// Itself.
    pub own: Own,
    /// How far it is with an application.
    pub stage: &'a dyn Fn(&AppName) -> Stage,
    /// Since when it knows where an application goes.
    pub since: &'a dyn Fn(&AppName) -> Timestamp,
    /// For how long the others have been at each application.
    pub overdue: &'a BTreeMap<AppName, Overdue>,
}

/// What a host is told that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether its change may begin.
    pub gate: Gate,
    /// Whether others have to know of it before it does.
    pub has_company: bool,
    /// Whom it has to look at next.
    pub look: Look,
}

/// So many of those who wait may have to tell somebody that they do so in vain.
pub const MOST_TELLERS: usize = 64;

/// A release that nobody begins with any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Which release it is, by which policy.
    pub about: String,
    /// Why, in words.
    pub because: String,
    /// The first that may know of it, in the order of their turns: as far as this host can tell, they wait, and look at the others.
    pub waiting: Vec<HostName>,
}

impl Scheme {
    /// Works out what decides over the changes of `pending`, applications of `host` that are not at `commit`; `None` where
    /// nothing does, so that they begin at once.
    pub fn of(fleet: &Fleet, commit: &CommitId, host: &HostName, pending: &BTreeSet<AppName>) -> Option<Scheme> {
        let coordinated: BTreeSet<&AppName> = pending.iter().filter(|app| is_coordinated(fleet, host, app)).collect();
        let is_timed = |app: &AppName| !policy(fleet, app, host).windows.is_empty();
        let is_free = fleet.freezes.is_empty() && fleet.holds.is_empty() && !pending.iter().any(is_timed);
        if pending.is_empty() || (coordinated.is_empty() && is_free) {
            return None;
        }
        let needed = coordinated.iter().flat_map(|app| needed(fleet, app, host));
        let concerned: BTreeSet<&AppName> = coordinated.iter().copied().chain(needed).collect();
        let targets = targets(fleet, &concerned);
        Some(Scheme { fleet: without_contents(fleet), commit: commit.clone(), host: host.clone(), targets })
    }

    /// Says how an application is halted for everybody who has not begun with it, if it is.
    pub fn halt(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Option<Halt> {
        let change = Change { app, commit: &self.commit, host: &self.host };
        let standing = self.standing(app, known, now);
        if !standing.is_halted() || super::is_broken(&self.fleet, &change, Rule::Failures, now) {
            return None;
        }
        // Who is held, or waits for a moment, does not look.
        let looks = |host: &HostName| permitted(&self.fleet, &Change { host, ..change }, now) == Gate::Go;
        // Who was never asked for is quiet, which says nothing.
        let waits = |host: &HostName, stage: Stage| match stage {
            Stage::Waiting => true,
            Stage::Silent => !known.peers.contains_key(host),
            _ => false,
        };
        let waiting = standing.members().filter(|(host, _, stage)| waits(host, *stage) && looks(host));
        let waiting = waiting.take(MOST_TELLERS).map(|(host, ..)| host.clone()).collect();
        let mut about = crate::digest::Fields::default();
        about.add("release", self.release(app)?.to_string().as_bytes());
        about.add("policy", policy_name(&self.fleet, app, &self.host).as_bytes());
        Some(Halt { about: about.finish().short(), because: standing.halt(), waiting })
    }

    /// Returns where an application goes, of those that are coordinated.
    pub fn targets(&self, app: &AppName) -> Option<&Targets> {
        self.targets.get(app)
    }

    /// Names the applications that are coordinated with other hosts, and those that they need.
    pub fn coordinated(&self) -> impl Iterator<Item = &AppName> {
        self.targets.keys()
    }

    /// Digests where an application goes: while this is the same, it is the same release that spreads.
    pub fn release(&self, app: &AppName) -> Option<Digest> {
        let mut fields = crate::digest::Fields::default();
        for (host, target) in self.targets.get(app)? {
            fields.add(host.as_str(), target.map(|it| it.to_string()).unwrap_or_default().as_bytes());
        }
        Some(fields.finish())
    }

    /// Returns the policy of an application's changes on this host.
    pub fn policy(&self, app: &AppName) -> Rollout {
        policy(&self.fleet, app, &self.host)
    }

    /// Decides whether the change of an application may begin.
    pub fn gate(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Answer {
        let change = Change { app, commit: &self.commit, host: &self.host };
        if !is_coordinated(&self.fleet, &self.host, app) {
            return Answer { gate: permitted(&self.fleet, &change, now), has_company: false, look: Look::Nobody };
        }
        let standing = self.standing(app, known, now);
        let has_company = !standing.is_alone();
        let gate = match decide(&self.fleet, &change, &standing, &known.own, now) {
            Gate::Go => soaked(&self.fleet, &change, &standing, (known.since)(app), now),
            gate => gate,
        };
        if gate != Gate::Go {
            let look = look(&self.fleet, &change, &standing, &gate, now);
            return Answer { gate, has_company, look };
        }
        let needed = self.needed(app, known, now);
        let gate = needs(&self.fleet, &change, &needed.iter().map(|(app, it)| (*app, it)).collect(), now);
        let look = match gate {
            Gate::Go => Look::All,
            Gate::Wait { .. } | Gate::Blocked { .. } => {
                Look::At { hosts: needed.iter().flat_map(|(_, standing)| standing.not_ready()).collect(), distance: 0 }
            }
        };
        Answer { gate, has_company, look }
    }

    /// Counts where what an application needs stands, wherever it is placed.
    fn needed<'s>(&'s self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Vec<(&'s AppName, Standing)> {
        needed(&self.fleet, app, &self.host).map(|it| (it, self.everywhere(it, known, now))).collect()
    }

    /// Decides whether what an application needs is there.
    fn needs(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Gate {
        let change = Change { app, commit: &self.commit, host: &self.host };
        let needed = self.needed(app, known, now);
        needs(&self.fleet, &change, &needed.iter().map(|(app, it)| (*app, it)).collect(), now)
    }

    /// Says whether the change of an application has to do with other hosts.
    pub fn is_coordinated(&self, app: &AppName) -> bool {
        is_coordinated(&self.fleet, &self.host, app)
    }

    /// Names the one of a group that takes the turn for all of them.
    ///
    /// It is the one whose changes are spread most carefully anywhere in the fleet, so that it is before the same others on every
    /// host: wherever a host waits for another one, that one waits by the same order, or by one that comes later in this sense,
    /// and so they never wait in a circle.
    pub fn leader<'g>(&self, group: &'g BTreeSet<AppName>) -> Option<&'g AppName> {
        let coordinated = group.iter().filter(|app| self.is_coordinated(app)).rev();
        coordinated.max_by_key(|app| self.care(app))
    }

    /// Says how carefully the changes of an application are spread: in how many waves, and how long each has to be healthy.
    fn care(&self, app: &AppName) -> (usize, Duration) {
        let names = match self.fleet.apps.get(app) {
            Some(application) => application.variants.iter().map(App::rollout).collect(),
            None => vec![manifest::DEFAULT_ROLLOUT],
        };
        let policies = names.into_iter().filter_map(|name| self.fleet.rollouts.get(name));
        policies.map(|policy| (policy.waves.len(), policy.bake)).max().unwrap_or_default()
    }

    /// Says why an application may not go along with another one whose turn it is, if it may not: whatever its own policy has
    /// against it but that its own turn is another.
    pub fn may_follow(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Gate {
        let change = Change { app, commit: &self.commit, host: &self.host };
        let permitted = permitted(&self.fleet, &change, now);
        if permitted != Gate::Go || !self.is_coordinated(app) {
            return permitted;
        }
        let standing = self.standing(app, known, now);
        if standing.is_halted() && !super::is_broken(&self.fleet, &change, Rule::Failures, now) {
            return Gate::Blocked { because: standing.halt() };
        }
        if !standing.has_room(&self.host) {
            let because = "as many of its hosts change as may".to_owned();
            return Gate::Wait { until: None, because };
        }
        self.needs(app, known, now)
    }

    /// Names those other hosts of an application that are waited for: who could begin with it, and who is at work.
    pub fn awaited(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Vec<Awaited> {
        let targets = self.targets.get(app);
        let hosts = targets.iter().flat_map(|targets| targets.keys()).chain([&self.host]);
        let policies: BTreeMap<&str, &HostName> =
            hosts.map(|host| (policy_name(&self.fleet, app, host), host)).collect();
        let change = Change { app, commit: &self.commit, host: &self.host };
        let breaks = |rule| super::is_broken(&self.fleet, &change, rule, now);
        let (no_halt, no_waves) = (breaks(Rule::Failures), breaks(Rule::Waves));
        let (mut awaited, mut ready) = (Vec::new(), BTreeMap::new());
        let mut is_ready = |it| *ready.entry(it).or_insert_with(|| self.is_ready(app, it, known, now));
        for (name, host) in policies {
            let policy = policy(&self.fleet, app, host);
            let is_meant = |host: &HostName| policy_name(&self.fleet, app, host) == name;
            let standing = self.count(app, known, now, is_meant, &policy);
            let is_open = no_halt || !standing.is_halted();
            for (host, is_due) in standing.turns().filter(|(host, _)| **host != self.host) {
                let is_its_turn = || is_due || (no_waves && standing.turn(host, true) == Turn::Go);
                let step = match self.said(app, host, known, &policy, now) {
                    Stage::Baking => Step::Bakes,
                    Stage::Changing if self.changes_to_another(app, host, known) => Step::ChangesToAnother,
                    Stage::Changing => Step::Changes,
                    Stage::Down => Step::IsDown,
                    Stage::Waiting if is_open && is_its_turn() && self.may_begin(app, host, &mut is_ready, now) => {
                        Step::MayBegin
                    }
                    _ => continue,
                };
                let deadline = match step {
                    Step::MayBegin => self.longest_wait(&policy),
                    _ => deadline(&policy),
                };
                awaited.push(Awaited { host: host.clone(), step, deadline, longest_gap: policy.silent_after });
            }
        }
        awaited
    }

    /// Says whether what a host changes to, by its own word, is something else than what it is to have.
    fn changes_to_another(&self, app: &AppName, host: &HostName, known: &Known<'_>) -> bool {
        let target = self.targets.get(app).and_then(|targets| targets.get(host)).copied().flatten();
        let record = known.peers.get(host).and_then(|peer| peer.record.as_ref());
        let said = record.filter(|record| record.commit != self.commit).and_then(|record| record.apps.get(app));
        said.is_some_and(|said| target.is_some_and(|target| target != said.digest))
    }

    /// Returns for how long a host may wait though it could begin. Where there are other applications, it may go together with one
    /// whose turn comes by another policy: whether it does cannot be told from here.
    fn longest_wait(&self, policy: &Rollout) -> Duration {
        let all = self.fleet.rollouts.values().filter(|_| self.fleet.apps.len() > 1);
        let whole = |it: &Rollout| deadline(it).saturating_mul(u32::try_from(it.waves.len()).unwrap_or(u32::MAX));
        all.map(whole).max().unwrap_or_default().max(deadline(policy))
    }

    /// Says whether nothing keeps another host whose turn it is, as far as it can be told from here: nor anything of its other
    /// applications, which may go together with this one.
    fn may_begin<'s>(
        &'s self,
        app: &AppName,
        host: &HostName,
        is_ready: impl FnMut(&'s AppName) -> bool,
        now: Timestamp,
    ) -> bool {
        let placed = self.fleet.apps.iter().filter(|(_, it)| it.on(host).is_some());
        let mut there = placed.map(|(app, _)| app).chain([app]);
        let may = |app| permitted(&self.fleet, &Change { app, commit: &self.commit, host }, now) == Gate::Go;
        there.all(may) && needed(&self.fleet, app, host).all(is_ready)
    }

    /// Says whether what an application needs is there.
    fn is_ready(&self, app: &AppName, needed: &AppName, known: &Known<'_>, now: Timestamp) -> bool {
        let change = Change { app, commit: &self.commit, host: &self.host };
        self.targets.contains_key(needed) && {
            let standing = self.everywhere(needed, known, now);
            needs(&self.fleet, &change, &BTreeMap::from([(needed, &standing)]), now) == Gate::Go
        }
    }

    /// Says how many hosts take part in the largest of what is coordinated.
    pub fn size(&self) -> usize {
        self.targets.values().map(BTreeMap::len).max().unwrap_or(0)
    }

    /// Returns the shortest time after which somebody counts as silent.
    pub fn silent_after(&self) -> Option<Duration> {
        self.targets.keys().map(|app| self.policy(app).silent_after).min()
    }

    /// Counts where the hosts of an application stand that share this one's policy.
    pub fn standing(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Standing {
        let name = policy_name(&self.fleet, app, &self.host);
        self.count(app, known, now, |host| policy_name(&self.fleet, app, host) == name, &self.policy(app))
    }

    /// Counts where all hosts of an application stand that another one needs.
    fn everywhere(&self, app: &AppName, known: &Known<'_>, now: Timestamp) -> Standing {
        let first = self.targets.get(app).and_then(|targets| targets.keys().next()).unwrap_or(&self.host);
        // Where it is removed, nobody needs it.
        let is_placed = |host: &HostName| self.fleet.apps.get(app).is_some_and(|it| it.on(host).is_some());
        self.count(app, known, now, is_placed, &policy(&self.fleet, app, first))
    }

    fn count(
        &self,
        app: &AppName,
        known: &Known<'_>,
        now: Timestamp,
        takes_part: impl Fn(&HostName) -> bool,
        policy: &Rollout,
    ) -> Standing {
        let mut targets = self.targets.get(app).cloned().unwrap_or_default();
        let has_it = |peer: &Peer| peer.record.as_ref().is_some_and(|record| record.apps.contains_key(app));
        // Who has it and is not to have it any more takes part: it is removed there.
        let leaving = known.peers.iter().filter(|(host, peer)| self.fleet.hosts.contains_key(*host) && has_it(peer));
        for (host, _) in leaving {
            targets.entry(host.clone()).or_insert(None);
        }
        targets.entry(self.host.clone()).or_insert(None);
        targets.retain(|host, _| takes_part(host));
        let order = order(&self.fleet, app, policy, targets.keys());
        // Where an override lets any number fail, nothing else bounds how many are down at a time.
        let change = Change { app, commit: &self.commit, host: &self.host };
        let no_halt = super::is_broken(&self.fleet, &change, Rule::Failures, now);
        Standing::of(policy, &order, |host| {
            if *host == self.host {
                return (known.stage)(app);
            }
            let at = self.said(app, host, known, policy, now);
            let is_waiting = matches!(at, Stage::Waiting | Stage::Silent);
            match known.overdue.get(app) {
                _ if is_waiting && self.is_held(app, host, now) => Stage::Held,
                Some(overdue) => match overdue.stage(host, at) {
                    Stage::Stuck | Stage::Failed if no_halt && at.is_changing() => Stage::Down,
                    stage => stage,
                },
                None => at,
            }
        })
    }

    /// Says how far another host is by its own word.
    fn said(&self, app: &AppName, host: &HostName, known: &Known<'_>, policy: &Rollout, now: Timestamp) -> Stage {
        let target = self.targets.get(app).and_then(|targets| targets.get(host)).copied().flatten();
        let since = (known.since)(app);
        stage(known.peers.get(host), (app, target, &self.commit), policy.silent_after, since, now)
    }

    /// Says whether the repository holds an application back on a host.
    fn is_held(&self, app: &AppName, host: &HostName, now: Timestamp) -> bool {
        let change = Change { app, commit: &self.commit, host };
        super::held(&self.fleet, &change, now).is_some()
    }
}

/// Names the applications of `host` that need another one and are not at home here alone.
fn needed<'f>(fleet: &'f Fleet, app: &AppName, host: &HostName) -> impl Iterator<Item = &'f AppName> {
    let form: Option<&App> = fleet.apps.get(app).and_then(|it| it.on(host));
    form.into_iter().flat_map(|form| form.needs.keys()).filter(|needed| {
        let placed = fleet.apps.get(*needed).map(|it| &it.hosts);
        placed.is_some_and(|hosts| !hosts.is_empty())
    })
}

/// Says whether a change of an application on `host` has to do with other hosts.
fn is_coordinated(fleet: &Fleet, host: &HostName, app: &AppName) -> bool {
    let everybody_at_once = Rollout::default();
    let policy = Rollout { windows: Vec::new(), bake: Duration::ZERO, ..policy(fleet, app, host) };
    let is_alone_in_it = |needed: &AppName| fleet.apps[needed].hosts.keys().all(|it| it == host);
    let same = policy.waves == everybody_at_once.waves
        && policy.max_unavailable == everybody_at_once.max_unavailable
        && policy.failures == everybody_at_once.failures;
    !same || needed(fleet, app, host).any(|needed| !is_alone_in_it(needed))
}

/// Resolves what every host is to have of these applications.
fn targets(fleet: &Fleet, apps: &BTreeSet<&AppName>) -> BTreeMap<AppName, Targets> {
    let mut targets: BTreeMap<AppName, Targets> = apps.iter().map(|app| ((*app).clone(), Targets::new())).collect();
    let hosts: BTreeSet<&HostName> =
        apps.iter().filter_map(|app| fleet.apps.get(*app)).flat_map(|it| it.hosts.keys()).collect();
    for host in hosts {
        let Ok(desired) = resolve::resolve(fleet, host) else { continue };
        for (app, targets) in &mut targets {
            if let Some(wanted) = desired.apps.get(app) {
                targets.insert(host.clone(), Some(wanted.digest));
            }
        }
    }
    targets
}

/// Leaves out what applications consist of: who goes when does not depend on it, and it may be large.
fn without_contents(fleet: &Fleet) -> Fleet {
    let mut fleet = Fleet { environments: BTreeMap::new(), endpoints: BTreeMap::new(), ..fleet.clone() };
    for form in fleet.apps.values_mut().flat_map(|app| &mut app.variants) {
        form.files.clear();
        form.units.clear();
        form.drop_ins.clear();
        form.quadlets.clear();
        form.containers.clear();
        form.networks.clear();
        form.volumes.clear();
        form.policies.clear();
        form.vars.clear();
        form.checks.clear();
    }
    fleet
}
