//! Whose turn it is, seen from outside: where all hosts of an application stand on the way to the newest commit, and why one of them
//! is not there yet. The judgement is [`spec::rollout`]'s, on the records that every host would look at as well.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use spec::digest::Digest;
use spec::id::{AppName, HostName};
use spec::memory::AppState;
use spec::resolve;
use spec::rollout::{self, Awaited, Gate, Overdue, Own, Peer, Scheme, Signs, Stage, Standing, Step};

use super::{Known, Reading, Row, age};

/// A fleet as its hosts look at it when they decide.
pub struct Turns<'r> {
    reading: &'r Reading,
    /// What the hosts published, as far as they ever did.
    peers: BTreeMap<HostName, Peer>,
    /// Since when the newest commit is there for everybody to see.
    since: Timestamp,
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// In one sentence, without a full stop.
    pub text: String,
    /// When it can go on at the earliest, where that is known.
    pub next: Option<Timestamp>,
    /// Whether it is where the newest commit wants it.
    pub is_there: bool,
}

impl Reason {
    fn there(text: String) -> Reason {
        Reason { text, next: None, is_there: true }
    }

    fn because(text: String) -> Reason {
        Reason { text, next: None, is_there: false }
    }
}

impl<'r> Turns<'r> {
    /// Begins to look at a fleet.
    pub fn of(reading: &'r Reading) -> Turns<'r> {
        let peer = |known: &Known| Some(Peer { record: known.record.clone(), heard: known.heard? });
        let peers = reading.hosts.iter().filter_map(|(host, known)| Some((host.clone(), peer(known)?)));
        Turns { reading, peers: peers.collect(), since: reading.seen().unwrap_or(reading.at) }
    }

    /// Returns what the newest commit wants of an application on a host.
    pub fn target(&self, app: &AppName, host: &HostName) -> Option<Digest> {
        resolve::resolve(&self.reading.fleet, host).ok()?.apps.get(app).map(|wanted| wanted.digest)
    }

    /// Says where all hosts of an application stand that have the policy of `host`; `None` where none has to do with another.
    pub fn standing(&self, app: &AppName, host: &HostName) -> Option<Standing> {
        let scheme = self.scheme(app, host)?;
        let is_coordinated = scheme.is_coordinated(app);
        is_coordinated.then(|| self.with_known(&scheme, host, |known| scheme.standing(app, known, self.reading.at)))
    }

    /// Decides as `host` would whether it may begin with an application.
    pub fn gate(&self, app: &AppName, host: &HostName) -> Gate {
        let Some(scheme) = self.scheme(app, host) else { return Gate::Go };
        self.with_known(&scheme, host, |known| scheme.gate(app, known, self.reading.at).gate)
    }

    /// Works out, as `host` would, what decides over an application that is not at the newest commit there.
    fn scheme(&self, app: &AppName, host: &HostName) -> Option<Scheme> {
        let reading = self.reading;
        let pending = BTreeSet::from([app.clone()]);
        if reading.fleet.overrides.is_empty() {
            return Scheme::of(&reading.fleet, &reading.commit, host, &pending);
        }
        let targets = BTreeMap::from([(app.clone(), self.target(app, host))]);
        let digests = |digits: &str| {
            let desired = resolve::resolve(reading.past.get(digits)?, host).ok()?;
            Some(desired.apps.into_iter().map(|(app, wanted)| (app, wanted.digest)).collect())
        };
        let mut fleet = reading.fleet.clone();
        fleet.overrides = rollout::overrides(&fleet.overrides, &targets, &reading.commit, reading.at, digests);
        Scheme::of(&fleet, &reading.commit, host, &pending)
    }

    /// Asks with what `host` knows, as far as it can be seen from outside.
    fn with_known<T>(&self, scheme: &Scheme, host: &HostName, ask: impl FnOnce(&rollout::Known<'_>) -> T) -> T {
        let now = self.reading.at;
        let stage = |app: &AppName| {
            let target = scheme.targets(app).and_then(|targets| targets.get(host)).copied().flatten();
            let patience = scheme.policy(app).silent_after;
            rollout::stage(self.peers.get(host), (app, target, &scheme.commit), patience, self.since, now)
        };
        // When it looked at the others, and whether they saw it, only the host knows: it is taken to be in good time.
        let own = Own { view: now, signs: Signs::Unreported };
        let mut overdue = BTreeMap::new();
        for app in scheme.coordinated() {
            let known =
                rollout::Known { peers: &self.peers, own, stage: &stage, since: &|_| self.since, overdue: &overdue };
            let awaited = scheme.awaited(app, &known, now);
            overdue.insert(app.clone(), self.by_their_word(app, &awaited));
        }
        ask(&rollout::Known { peers: &self.peers, own, stage: &stage, since: &|_| self.since, overdue: &overdue })
    }

    /// Says for how long hosts have been at work on an application: by their own word, since nobody looked at them before.
    fn by_their_word(&self, app: &AppName, awaited: &[Awaited]) -> Overdue {
        let mut overdue = Overdue::default();
        for it in awaited.iter().filter(|it| it.step != Step::MayBegin) {
            let record = self.peers.get(&it.host).and_then(|peer| peer.record.as_ref());
            if let Some(said) = record.and_then(|record| record.apps.get(app)) {
                overdue.believe(it, age(said.since.max(self.since), self.reading.at));
            }
        }
        overdue
    }

    /// Says why an application on a host is as it is.
    pub fn explain(&self, row: &Row<'_>) -> Reason {
        let (reading, app, host, known) = (self.reading, row.app, row.host, row.known);
        let now = reading.at;
        let newest = reading.commit.short();
        let target = self.target(app, host);
        if !known.is_reported() {
            return Reason::because(format!("{host} has never said anything: what it does is not known here"));
        }
        if let (Some(said), Some(record)) = (row.said, &known.record)
            && let Some(reason) = self.recorded(row, target, said.digest)
        {
            let is_behind = record.commit != reading.commit;
            let late = known.silence(now).map(|it| format!("; {host} has been silent for {}", in_words(it)));
            let text = reason.text + &late.filter(|_| is_behind || !reason.is_there).unwrap_or_default();
            return Reason { text, ..reason };
        }
        if let Some(silence) = known.silence(now) {
            return Reason::because(format!(
                "{host} has been silent for {}: the others do not wait for it, and it goes on when it is back",
                in_words(silence)
            ));
        }
        match self.gate(app, host) {
            Gate::Go if !is_at_newest(reading, known) => {
                let heard = known.heard.map(|heard| in_words(age(heard, now))).unwrap_or_default();
                Reason::because(format!(
                    "nothing keeps it back: {host}, last heard of {heard} ago, has not said that it saw {newest}"
                ))
            }
            Gate::Go => Reason::because(
                "nothing keeps it back: it begins when its host looks at the repository next".to_owned(),
            ),
            Gate::Blocked { because } => Reason::because(format!("blocked: {because}")),
            Gate::Wait { until, because } => {
                let next = until.or_else(|| self.baked(app, host));
                Reason { text: format!("waits: {because}"), next, is_there: false }
            }
        }
    }

    /// Says what a record says by itself: that it is there, is on its way, or failed.
    fn recorded(&self, row: &Row<'r>, target: Option<Digest>, digest: Digest) -> Option<Reason> {
        let (said, record) = (row.said?, row.known.record.as_ref()?);
        let newest = self.reading.commit.short();
        let since = said.since.strftime("%Y-%m-%d %H:%M:%SZ");
        let why = super::failure(said).map(|why| format!(": {why}")).unwrap_or_default();
        // An agent of another version may count its digests in another way.
        let is_newest = record.commit == self.reading.commit && said.runs.is_none();
        let is_target = target == Some(digest) || (target.is_some() && is_newest);
        if target.is_some() && said.bad == target {
            let goes_on = match said.state {
                AppState::Failed => "it does not run as it should".to_owned(),
                _ => format!("{} runs", row.release().map_or("an earlier release", |it| it.short())),
            };
            return Some(Reason::because(format!(
                "{newest} failed there{why}; {goes_on} until a commit changes {}, or `mainstay retry {}` on {}",
                row.app, row.app, row.host
            )));
        }
        match said.state {
            AppState::Converged | AppState::Repaired if is_target => {
                Some(Reason::there(format!("it is as {newest} wants it, since {since}")))
            }
            AppState::Drifted if is_target => {
                Some(Reason::there(format!("it is at {newest}, and drifted since {since}{why}")))
            }
            AppState::Unhealthy => Some(Reason::because(format!("it is unhealthy since {since}{why}"))),
            AppState::Applying => Some(Reason::because(format!("it is being changed since {since}"))),
            AppState::Failed => Some(Reason::because(format!("it failed at {since}, and is tried again{why}"))),
            AppState::Baking if is_target => {
                let bake = rollout::policy(&self.reading.fleet, row.app, row.host).bake;
                let text = format!("it is at {newest}, and has to stay healthy for {} since {since}", in_words(bake));
                Some(Reason { text, next: end(said.since, bake), is_there: false })
            }
            _ => None,
        }
    }

    /// Returns when the hosts of the waves before have been healthy for long enough, as far as they are by now.
    fn baked(&self, app: &AppName, host: &HostName) -> Option<Timestamp> {
        let reading = self.reading;
        let bake = rollout::policy(&reading.fleet, app, host).bake;
        let standing = self.standing(app, host)?;
        let wave = standing.wave(host)?;
        let before = standing.members().filter(|(_, other, _)| *other < wave);
        let baking = before.filter(|(.., stage)| *stage == Stage::Baking).filter_map(|(other, ..)| {
            let said = reading.hosts.get(other)?.record.as_ref()?.apps.get(app)?;
            end(said.since, bake)
        });
        baking.max().filter(|next| *next > reading.at)
    }
}

fn end(since: Timestamp, bake: std::time::Duration) -> Option<Timestamp> {
    since.checked_add(SignedDuration::try_from(bake).ok()?).ok()
}

fn is_at_newest(reading: &Reading, known: &Known) -> bool {
    known.record.as_ref().is_some_and(|record| record.commit == reading.commit)
}

/// Says how long something takes or took, in its largest unit.
pub fn in_words(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min", seconds / 60),
        3600..=86_399 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
