//! When the changes of a commit can begin on each host at the earliest, as far as the repository alone says: holds, freezes, windows,
//! and how long the waves before have to be healthy.
//!
//! Nobody is asked, so this is when all goes well at once: hosts that take their time, are silent or fail make it later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::Digest;
use crate::forecast::Forecast;
use crate::id::{AppName, CommitId, HostName};
use crate::manifest::{Fleet, Held, Override, Rollout, Rule, Wave};
use crate::resolve;
use crate::rollout::{self, Change, Gate};

/// When each application that changes can do so, by host.
pub type Schedule = BTreeMap<AppName, BTreeMap<HostName, Turn>>;

/// When it is the turn of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Turn {
    /// The policy.
    pub rollout: String,
    /// The wave, counted from one.
    pub wave: usize,
    /// How many there are.
    pub waves: usize,
    /// Who is in it.
    pub who: String,
    /// When it begins.
    #[serde(flatten)]
    pub start: Start,
}

/// When a change begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Not before.
    Earliest {
        /// The moment.
        at: Timestamp,
        /// What keeps it until then, where that is not the waves before.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<String>,
    },
    /// Not until a hold is removed; the others do not wait for it.
    Held {
        /// Why it is held.
        because: String,
    },
    /// Not until the repository says otherwise.
    Blocked {
        /// What stands in the way.
        because: String,
    },
}

/// What the times depend on.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The commit that is rolled out, as overrides name it.
    pub commit: &'a CommitId,
    /// When it is there for all hosts.
    pub at: Timestamp,
}

/// Works out when each of `changes`, which lead to `fleet`, can begin. `digests` tells what a host had at the commit that begins
/// with some digits, for overrides.
pub fn schedule(
    fleet: &Fleet,
    changes: &Forecast,
    moment: &Moment<'_>,
    mut digests: impl FnMut(&str, &HostName) -> Option<BTreeMap<AppName, Digest>>,
) -> Schedule {
    let mut schedule = Schedule::new();
    let hosts: BTreeSet<&HostName> = changes.values().flat_map(|it| it.values().flatten()).collect();
    let mut overrides: BTreeMap<&HostName, Vec<Override>> = BTreeMap::new();
    for host in hosts.into_iter().filter(|_| !fleet.overrides.is_empty()) {
        overrides.insert(host, in_force(fleet, (host, changes), moment, |commit| digests(commit, host)));
    }
    let mut round = Round { fleet: fleet.clone(), overrides, moment };
    for (app, variants) in changes {
        let changing: BTreeSet<&HostName> = variants.values().flatten().collect();
        let placed = fleet.apps.get(app).into_iter().flat_map(|it| it.hosts.keys());
        let all: BTreeSet<&HostName> = placed.chain(changing.iter().copied()).collect();
        // Who follows another policy is not waited for.
        let by_policy = |hosts: BTreeSet<&'_ HostName>| {
            let mut by_policy: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
            for host in hosts {
                by_policy.entry(rollout::policy_name(fleet, app, host).to_owned()).or_default().push(host.clone());
            }
            by_policy
        };
        for (name, all) in by_policy(all) {
            let turns = round.turns(app, &name, &all, &changing);
            schedule.entry(app.clone()).or_default().extend(turns);
        }
    }
    schedule
}

/// Returns the overrides that are for what one host is to have.
fn in_force(
    fleet: &Fleet,
    (host, changes): (&HostName, &Forecast),
    moment: &Moment<'_>,
    digests: impl FnMut(&str) -> Option<BTreeMap<AppName, Digest>>,
) -> Vec<Override> {
    let wanted = resolve::resolve(fleet, host).map(|desired| desired.apps).unwrap_or_default();
    let target = |app: &AppName| (app.clone(), wanted.get(app).map(|app| app.digest));
    let targets = fleet.apps.keys().chain(changes.keys()).map(target).collect();
    rollout::overrides(&fleet.overrides, &targets, moment.commit, moment.at, digests)
}

/// What turns are worked out from.
struct Round<'a> {
    /// The fleet, whose overrides are those of the host that is looked at.
    fleet: Fleet,
    overrides: BTreeMap<&'a HostName, Vec<Override>>,
    moment: &'a Moment<'a>,
}

impl Round<'_> {
    /// Goes through the waves of `all` hosts of an application that follow one policy.
    fn turns(
        &mut self,
        app: &AppName,
        name: &str,
        all: &[HostName],
        changing: &BTreeSet<&HostName>,
    ) -> BTreeMap<HostName, Turn> {
        let policy = self.fleet.rollouts.get(name).cloned().unwrap_or_default();
        let mut waves: BTreeMap<usize, Vec<&HostName>> = BTreeMap::new();
        let order = rollout::order(&self.fleet, app, &policy, all.iter());
        for (place, host) in order.iter() {
            if changing.contains(host) {
                waves.entry(place.wave).or_default().push(host);
            }
        }
        let mut turns = BTreeMap::new();
        let mut ready = Ok(self.moment.at);
        for (wave, hosts) in waves {
            let mut next = ready.clone();
            for host in hosts {
                let start = self.start(app, host, &ready);
                next = after(next, &start, host, wave, &policy);
                let (rollout, who) = (name.to_owned(), who(&policy, wave));
                turns.insert(host.clone(), Turn { rollout, wave: wave + 1, waves: policy.waves.len(), who, start });
            }
            ready = next;
        }
        turns
    }

    /// Says when a host can begin whose wave is `ready` then.
    fn start(&mut self, app: &AppName, host: &HostName, ready: &Result<Timestamp, String>) -> Start {
        if let Some(mine) = self.overrides.get(host) {
            self.fleet.overrides.clone_from(mine);
        }
        if let Some(because) = self.held(app, host) {
            return Start::Held { because };
        }
        let mut at = match ready {
            _ if self.breaks(Rule::Waves, app) => self.moment.at,
            Ok(at) => *at,
            Err(because) => return Start::Blocked { because: because.clone() },
        };
        /// A look sees past freezes and windows; another one is only needed where an override ends meanwhile.
        const MOST_LOOKS: usize = 10;
        let change = Change { app, commit: self.moment.commit, host };
        let mut reason = None;
        for _ in 0..MOST_LOOKS {
            match rollout::permitted(&self.fleet, &change, at) {
                Gate::Wait { until: Some(until), because } if until > at => {
                    at = until;
                    reason.get_or_insert(because);
                }
                Gate::Blocked { because } => return Start::Blocked { because },
                Gate::Go | Gate::Wait { .. } => break,
            }
        }
        Start::Earliest { at, because: reason }
    }

    fn held(&self, app: &AppName, host: &HostName) -> Option<String> {
        let it = self.fleet.hosts.get(host)?;
        let is_meant = |held: &&Held| held.app.as_ref().is_none_or(|meant| meant == app) && held.place.holds(host, it);
        let held = self.fleet.holds.iter().find(is_meant)?;
        (!self.breaks(Rule::Holds, app)).then(|| held.reason.clone())
    }

    fn breaks(&self, rule: Rule, app: &AppName) -> bool {
        let Moment { commit, at } = *self.moment;
        self.fleet.overrides.iter().any(|it| it.breaks(rule, app, commit.as_str(), at))
    }
}

/// Says when the next wave is ready, after a host that begins at `start`. One that is held is not waited for.
fn after(
    next: Result<Timestamp, String>,
    start: &Start,
    host: &HostName,
    wave: usize,
    policy: &Rollout,
) -> Result<Timestamp, String> {
    match start {
        Start::Earliest { at, .. } => {
            let healthy = at.checked_add(policy.bake).unwrap_or(Timestamp::MAX);
            next.map(|next| next.max(healthy))
        }
        Start::Held { .. } => next,
        Start::Blocked { because } => next.and(Err(format!("wave {} has to pass first: {host}: {because}", wave + 1))),
    }
}

/// Says in words who is in a wave.
fn who(policy: &Rollout, wave: usize) -> String {
    let is_of_rest = policy.waves.iter().any(|wave| matches!(wave, Wave::Where(_)));
    match (policy.waves.get(wave), is_of_rest) {
        (Some(Wave::Where(place)), _) => place.to_string(),
        (Some(Wave::Share(100)), true) => "all others".to_owned(),
        (Some(Wave::Share(100)), false) => "all".to_owned(),
        (Some(Wave::Share(share)), true) => format!("up to {share}% of the others"),
        (Some(Wave::Share(share)), false) => format!("up to {share}%"),
        (None, _) => "in no wave".to_owned(),
    }
}

impl Turn {
    /// Says whether it begins at once, with everybody else.
    pub fn is_at_once(&self, at: Timestamp) -> bool {
        self.waves == 1 && self.start == Start::Earliest { at, because: None }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Earliest { at, because } => {
                write!(f, "from {}", at.strftime("%Y-%m-%d %H:%M:%SZ"))?;
                because.iter().try_for_each(|because| write!(f, ", {because}"))
            }
            Start::Held { because } => write!(f, "held: {because}"),
            Start::Blocked { because } => f.write_str(because),
        }
    }
}
