//! Whether a commit has arrived: on all hosts that it is for, with all applications, or not any more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{Fleet, Place};
use spec::memory::AppState;
use spec::record::AppRecord;
use spec::resolve;
use spec::rollout::{self, Gate};

use super::spread::Contained;
use super::turns::Turns;
use super::{Reading, Row, age};

/// What is waited for.
pub struct Awaited {
    /// The commit.
    commit: CommitId,
    /// What it wants of each application that is meant, on each host that is.
    targets: BTreeMap<(HostName, AppName), Digest>,
    /// Since when.
    begun: Timestamp,
    /// Whether hosts that say nothing are waited for as well.
    is_strict: bool,
}

/// An application on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The host.
    pub host: HostName,
    /// The application.
    pub app: AppName,
    /// How far it is.
    pub state: &'static str,
}

/// How far all of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Where it did not arrive yet.
    pub open: Vec<Pair>,
    /// Where it failed.
    pub failed: Vec<Pair>,
    /// Where nothing is heard of, and no longer waited for.
    pub passed_over: Vec<Pair>,
    /// Where it arrived.
    pub done: usize,
    /// Where a later commit with another content took its place.
    pub superseded: BTreeSet<CommitId>,
    /// Why it does not go on.
    pub halted: Option<String>,
}

/// What there is to say in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not over.
    Open,
    /// It runs wherever it should.
    Converged,
    /// A later commit does, in its place.
    Superseded,
    /// It failed somewhere, and is over everywhere.
    Failed,
    /// The rollout is halted.
    Halted,
    /// Nobody says anything.
    Unheard,
}

impl Awaited {
    /// Begins to wait for a commit, whose fleet is `fleet`: on the hosts that are meant, with one application or with all.
    pub fn new(fleet: &Fleet, commit: &CommitId, place: &Place, app: Option<&AppName>, begun: Timestamp) -> Awaited {
        let hosts = fleet.hosts.iter().filter(|(name, host)| place.holds(name, host));
        let wanted = hosts.filter_map(|(name, _)| Some((name, resolve::resolve(fleet, name).ok()?)));
        let targets = wanted.flat_map(|(name, desired)| {
            let apps = desired.apps.into_iter().filter(|(found, _)| app.is_none_or(|app| app == found));
            apps.map(|(app, wanted)| ((name.clone(), app), wanted.digest)).collect::<Vec<_>>()
        });
        Awaited { commit: commit.clone(), targets: targets.collect(), begun, is_strict: false }
    }

    /// Waits for hosts as well that say nothing.
    #[must_use]
    pub fn strictly(self) -> Awaited {
        Awaited { is_strict: true, ..self }
    }

    /// Says whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Says how far it is.
    pub fn look(&self, reading: &Reading, contained: &mut Contained<'_>) -> Arrival {
        let (mut arrival, turns) = (Arrival::default(), Turns::of(reading));
        let rows: BTreeMap<(&HostName, &AppName), Row<'_>> =
            reading.rows().map(|row| ((row.host, row.app), row)).collect();
        for ((host, app), target) in &self.targets {
            // Who left the fleet is nobody's any more.
            let Some(known) = reading.hosts.get(host) else { continue };
            let row = rows.get(&(host, app));
            let at = row.and_then(|row| row.said.map(|said| self.far(row, said, *target, contained)));
            // What is to take the place of a release that failed may do better, whether its host has seen it or not.
            let is_mended = |row: &Row<'_>| row.said.is_some_and(|said| !has_failed(said, turns.target(app, host)));
            let at = match at {
                Some(Far::Failed(_)) if row.is_some_and(is_mended) => {
                    Some(Far::Open("failed, and a later commit is to come"))
                }
                at => at,
            };
            let pair = |state| Pair { host: host.clone(), app: app.clone(), state };
            let has_seen = || known.record.as_ref().is_some_and(|record| record.commit == self.commit);
            match at {
                Some(Far::There) => arrival.done += 1,
                Some(Far::Later(commit)) => {
                    arrival.done += 1;
                    arrival.superseded.insert(commit);
                }
                Some(Far::Failed(state)) => arrival.failed.push(pair(state)),
                // A later commit took it away again.
                None if known.record.is_some() && !has_seen() && row.is_none_or(|row| !row.is_placed) => {
                    arrival.done += 1;
                    arrival.superseded.insert(reading.commit.clone());
                }
                None | Some(Far::Open(_)) if self.is_passed_over(reading, host) => {
                    arrival.passed_over.push(pair(if known.is_reported() { "silent" } else { "unreported" }));
                }
                Some(Far::Open(state)) => arrival.open.push(pair(state)),
                None => arrival.open.push(pair(if known.is_reported() { "not there yet" } else { "unreported" })),
            }
        }
        arrival.halted = halted(&turns, reading, &arrival.open);
        arrival
    }

    fn far(&self, row: &Row<'_>, said: &AppRecord, target: Digest, contained: &mut Contained<'_>) -> Far {
        let release = row.release();
        // An agent of another version may count its digests in another way.
        let is_exact = said.digest == target || release == Some(&self.commit);
        let contains = release.is_some_and(|release| contained.by(release));
        let has_seen = row.known.record.as_ref().is_some_and(|record| contained.by(&record.commit));
        let runs = match said.state {
            AppState::Converged | AppState::Repaired | AppState::Drifted => true,
            // What waits, or went back, is a later one.
            AppState::Waiting | AppState::RolledBack => said.runs.is_some(),
            AppState::Applying | AppState::Baking | AppState::Failed | AppState::Unhealthy => false,
        };
        match (runs, release) {
            (true, _) if is_exact => Far::There,
            (true, Some(release)) if contains => Far::Later(release.clone()),
            _ if said.state == AppState::Failed && has_seen => Far::Failed("failed"),
            // A later one that is on its way may do better.
            _ if !contains && (said.bad == Some(target) || (has_seen && said.bad.is_some())) => {
                Far::Failed(said.state.as_str())
            }
            // How the release before fares is another matter.
            _ if !contains && !matches!(said.state, AppState::Waiting | AppState::Applying) => Far::Open("not begun"),
            _ => Far::Open(said.state.as_str()),
        }
    }

    /// Says whether a host is not waited for: it says nothing, and the rollout has waited for it for as long.
    fn is_passed_over(&self, reading: &Reading, host: &HostName) -> bool {
        let says_nothing = reading.hosts.get(host).is_none_or(|known| known.is_silent || !known.is_reported());
        !self.is_strict && says_nothing && age(self.begun, reading.at) >= reading.silent_after(host)
    }
}

impl Arrival {
    /// Says what it comes to.
    pub fn verdict(&self) -> Verdict {
        match () {
            () if self.halted.is_some() => Verdict::Halted,
            () if !self.open.is_empty() => Verdict::Open,
            () if !self.failed.is_empty() => Verdict::Failed,
            () if self.done == 0 => Verdict::Unheard,
            () if !self.superseded.is_empty() => Verdict::Superseded,
            () => Verdict::Converged,
        }
    }
}

/// Says whether what is wanted of an application now is what its host says has failed: nothing else is on its way there.
fn has_failed(said: &AppRecord, wanted: Option<Digest>) -> bool {
    wanted.is_some_and(|wanted| said.bad == Some(wanted) || (said.state == AppState::Failed && said.digest == wanted))
}

/// How far one application is on one host.
enum Far {
    There,
    Later(CommitId),
    Failed(&'static str),
    Open(&'static str),
}

/// Says why what is open does not go on, if it does not.
fn halted(turns: &Turns<'_>, reading: &Reading, open: &[Pair]) -> Option<String> {
    let mut looked_at = BTreeSet::new();
    open.iter().find_map(|pair| {
        let (host, _) = reading.hosts.get_key_value(&pair.host)?;
        let row = reading.rows_of(host).find(|row| *row.app == pair.app)?;
        let policy = rollout::policy_name(&reading.fleet, row.app, host);
        // All that have one policy are halted together.
        let is_halted = || turns.standing(row.app, host).is_some_and(|standing| standing.is_halted_for_good());
        if !looked_at.insert((row.app, policy)) || !is_halted() {
            return None;
        }
        match turns.gate(row.app, host) {
            Gate::Blocked { because } => Some(format!("{}: {because}", pair.app)),
            Gate::Go | Gate::Wait { .. } => None,
        }
    })
}
