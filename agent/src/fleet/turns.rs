//! Whose turn it is, seen from outside: where all hosts of an application stand on the way to the newest commit, and why one of them
//! is not there yet. The judgement is [`spec::rollout`]'s, on the records that every host would look at as well.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use spec::digest::Digest;
use spec::id::{AppName, HostName};
use spec::manifest::Rollout;
use spec::memory::AppState;
use spec::resolve;
use spec::rollout::{self, Change, Gate, Own, Peer, Signs, Stage, Standing, Targets};

use super::{Known, Reading, Row, age};

/// The hosts of some applications and what each is to have at the newest commit.
pub struct Turns<'r> {
    reading: &'r Reading,
    targets: BTreeMap<&'r AppName, Targets>,
    standings: BTreeMap<(&'r AppName, &'r str), Standing>,
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
        Turns { reading, targets: BTreeMap::new(), standings: BTreeMap::new() }
    }

    /// Returns what the newest commit wants of an application on a host.
    pub fn target(&mut self, app: &'r AppName, host: &HostName) -> Option<Digest> {
        self.targets(app).get(host).copied().flatten()
    }

    fn targets(&mut self, app: &'r AppName) -> &Targets {
        let reading = self.reading;
        self.targets.entry(app).or_insert_with(|| {
            let rows = reading.rows().filter(|row| row.app == app);
            let target = |row: &Row<'_>| match row.is_placed {
                true => resolve::resolve(&reading.fleet, row.host).ok()?.apps.get(app).map(|wanted| wanted.digest),
                // It is removed there.
                false => None,
            };
            rows.map(|row| (row.host.clone(), target(&row))).collect()
        })
    }

    /// Says where all hosts of an application stand that have the policy of `host`.
    pub fn standing(&mut self, app: &'r AppName, host: &HostName) -> &Standing {
        let reading = self.reading;
        let name = rollout::policy_name(&reading.fleet, app, host);
        if !self.standings.contains_key(&(app, name)) {
            let mut targets = self.targets(app).clone();
            targets.retain(|other, _| rollout::policy_name(&reading.fleet, app, other) == name);
            let standing = count(reading, app, &rollout::policy(&reading.fleet, app, host), &targets);
            self.standings.insert((app, name), standing);
        }
        &self.standings[&(app, name)]
    }

    /// Decides as `host` would whether it may begin with an application.
    pub fn gate(&mut self, app: &'r AppName, host: &HostName) -> Gate {
        let reading = self.reading;
        let change = Change { app, commit: &reading.commit, host };
        let now = reading.at;
        // When it looked at the others, and whether they saw it, only the host knows: it is taken to be in good time.
        let own = Own { view: now, signs: Signs::Unreported };
        let gate = rollout::decide(&reading.fleet, &change, self.standing(app, host), &own, now);
        if gate != Gate::Go {
            return gate;
        }
        let needs = reading.fleet.apps.get(app).and_then(|it| it.on(host)).map(|form| &form.needs);
        let names: Vec<&'r AppName> = needs.into_iter().flat_map(BTreeMap::keys).collect();
        let everywhere = names.into_iter().map(|needed| {
            let targets = self.targets(needed).clone();
            let policy = targets.keys().next().map(|first| rollout::policy(&reading.fleet, needed, first));
            (needed, count(reading, needed, &policy.unwrap_or_default(), &targets))
        });
        let everywhere: Vec<(&AppName, Standing)> = everywhere.collect();
        let needed = everywhere.iter().map(|(app, standing)| (*app, standing)).collect();
        rollout::needs(&reading.fleet, &change, &needed, now)
    }

    /// Says why an application on a host is as it is.
    pub fn explain(&mut self, row: &Row<'r>) -> Reason {
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
    fn baked(&mut self, app: &'r AppName, host: &HostName) -> Option<Timestamp> {
        let reading = self.reading;
        let bake = rollout::policy(&reading.fleet, app, host).bake;
        let standing = self.standing(app, host);
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

fn count(reading: &Reading, app: &AppName, policy: &Rollout, targets: &Targets) -> Standing {
    let fleet = &reading.fleet;
    let order = rollout::order(fleet, app, policy, targets.keys());
    let since = reading.seen().unwrap_or(reading.at);
    Standing::of(policy, &order, |host| {
        let known = reading.hosts.get(host);
        let peer = known.and_then(|known| Some(Peer { record: known.record.clone(), heard: known.heard? }));
        let target = targets.get(host).copied().flatten();
        let release = (app, target, &reading.commit);
        let at = rollout::stage(peer.as_ref(), release, policy.silent_after, since, reading.at);
        let change = Change { app, commit: &reading.commit, host };
        let is_held = || matches!(rollout::permitted(fleet, &change, reading.at), Gate::Blocked { .. });
        if matches!(at, Stage::Waiting | Stage::Silent) && is_held() { Stage::Held } else { at }
    })
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
