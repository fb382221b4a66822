//! May this release go to this host now? Decided by every host for itself, from what git says, and with the same answer
//! everywhere: nobody coordinates.
//!
//! The hosts of an application stand in one order: by wave, then by a stable hash. A host may go when those before it are far
//! enough, or have been silent for too long. Two hosts with views of different ages never both go beyond `max-unavailable`:
//!
//! - Nobody starts before its record says so, and nobody starts with a view older than a quarter of `silent-after`.
//! - Who may have been taken for silent shows itself and then waits for as long, so that whoever passed it over has shown
//!   itself too.
//!
//! Clocks of different hosts are never compared but for silence, where being wrong means to wait.

mod overrides;
mod order;
mod stage;
mod standing;
mod signs;
mod intent;
mod overdue;
mod scheme;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use intent::Intent;
pub(crate) use order::rank;
pub use order::{Order, Place, order};
pub use overdue::{Awaited, Overdue, Step, deadline};
pub use overrides::overrides;
pub use scheme::{Answer, Halt, Known, MOST_TELLERS, Scheme};
pub use signs::{Row, Signs, Spreading};
pub use stage::{Peer, Stage, said, stage};
pub use standing::{Look, Standing, Turn};

use crate::calendar::{self, Window};
use crate::digest::Digest;
use crate::id::{AppName, CommitId, HostName};
use crate::manifest::{self, App, Fleet, Held, Rollout, Rule};

/// May it go?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Now.
    Go,
    /// Not yet.
    Wait {
        /// When it can go on at the earliest, where time alone decides.
        until: Option<Timestamp>,
        /// What it waits for.
        because: String,
    },
    /// Not until a person or another commit changes something.
    Blocked {
        /// What stands in the way.
        because: String,
    },
}

/// A change of one application on one host.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The application.
    pub app: &'a AppName,
    /// The newest believed commit: where its policy comes from, and its content.
    pub commit: &'a CommitId,
    /// The host that asks.
    pub host: &'a HostName,
}

/// The hosts among which a release spreads, and what each is to have: `None` where the application is removed.
pub type Targets = BTreeMap<HostName, Option<Digest>>;

/// What the host that asks knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// When the records of the others were fetched last.
    pub view: Timestamp,
    /// Its own signs of life, if it gives any: a host that cannot push takes its turn all the same, and is passed over.
    pub signs: Signs,
}

/// Returns the policy of an application's changes on `host`. One that is removed there follows the one it has elsewhere, as far
/// as there is one alone.
pub fn policy(fleet: &Fleet, app: &AppName, host: &HostName) -> Rollout {
    written(fleet, app, host).cloned().unwrap_or_default()
}

/// Returns the policy, if it is written down anywhere.
fn written<'f>(fleet: &'f Fleet, app: &AppName, host: &HostName) -> Option<&'f Rollout> {
    fleet.rollouts.get(policy_name(fleet, app, host))
}

/// Names that policy.
pub fn policy_name<'f>(fleet: &'f Fleet, app: &AppName, host: &HostName) -> &'f str {
    let application = fleet.apps.get(app);
    if let Some(form) = application.and_then(|it| it.on(host)) {
        return form.rollout();
    }
    let names: BTreeSet<&str> = application.iter().flat_map(|it| &it.variants).map(App::rollout).collect();
    match names.len() {
        1 => names.into_iter().next().unwrap_or(manifest::DEFAULT_ROLLOUT),
        _ => manifest::DEFAULT_ROLLOUT,
    }
}

/// Decides whether the change may begin at `now`, as far as the repository alone says: holds, freezes and windows.
pub fn permitted(fleet: &Fleet, change: &Change<'_>, now: Timestamp) -> Gate {
    if let Some(held) = held(fleet, change, now) {
        return Gate::Blocked { because: format!("held: {}", held.reason) };
    }
    let windows = written(fleet, change.app, change.host).map_or(&[][..], |policy| &policy.windows);
    match earliest(fleet, change, windows, now) {
        Ok((at, _)) if at <= now => Gate::Go,
        Ok((at, because)) => Gate::Wait { until: Some(at), because },
        Err(calendar::NeverOpen) => Gate::Blocked { because: calendar::NeverOpen.to_string() },
    }
}

/// Returns what holds the change back until somebody removes it from the repository.
fn held<'f>(fleet: &'f Fleet, change: &Change<'_>, now: Timestamp) -> Option<&'f Held> {
    let is_meant = |held: &&Held| {
        held.app.as_ref().is_none_or(|app| app == change.app) && is_meant_here(fleet, &held.place, change.host)
    };
    fleet.holds.iter().find(is_meant).filter(|_| !is_broken(fleet, change, Rule::Holds, now))
}

/// Returns when freezes and windows let the change begin, from `now` on, and what keeps it until then.
fn earliest(
    fleet: &Fleet,
    change: &Change<'_>,
    windows: &[Window],
    now: Timestamp,
) -> Result<(Timestamp, String), calendar::NeverOpen> {
    /// Each round leaves a freeze or reaches a window; as many of them cannot follow each other.
    const MOST_ROUNDS: usize = 250;
    let (mut at, mut because) = (now, String::new());
    for _ in 0..MOST_ROUNDS {
        let frozen = fleet.freezes.iter().find(|freeze| {
            freeze.from <= at
                && at < freeze.to
                && (freeze.apps.is_empty() || freeze.apps.contains(change.app))
                && is_meant_here(fleet, &freeze.place, change.host)
        });
        if let Some(freeze) = frozen.filter(|_| !is_broken(fleet, change, Rule::Freezes, at)) {
            if because.is_empty() {
                because = format!("frozen: {}", freeze.reason);
            }
            at = freeze.to;
            continue;
        }
        let opening = match is_broken(fleet, change, Rule::Windows, at) {
            true => None,
            false => calendar::opening(windows, at)?,
        };
        let Some(opening) = opening else { break };
        if because.is_empty() {
            let all: Vec<String> = windows.iter().map(ToString::to_string).collect();
            because = format!("outside its windows ({})", all.join("; "));
        }
        at = opening;
    }
    Ok((at, because))
}

fn is_meant_here(fleet: &Fleet, place: &manifest::Place, host: &HostName) -> bool {
    fleet.hosts.get(host).is_some_and(|known| place.holds(host, known))
}

fn is_broken(fleet: &Fleet, change: &Change<'_>, rule: Rule, now: Timestamp) -> bool {
    fleet.overrides.iter().any(|it| it.breaks(rule, change.app, change.commit.as_str(), now))
}

/// Decides whether the change may begin at `now`, by where all its hosts stand.
pub fn decide(fleet: &Fleet, change: &Change<'_>, standing: &Standing, own: &Own, now: Timestamp) -> Gate {
    let breaks = |rule| is_broken(fleet, change, rule, now);
    if standing.is_halted() && !breaks(Rule::Failures) {
        return Gate::Blocked { because: standing.halt() };
    }
    let permitted = permitted(fleet, change, now);
    if permitted != Gate::Go {
        return permitted;
    }
    let turn = standing.turn(change.host, breaks(Rule::Waves));
    if let Turn::Wait(because) = turn {
        return Gate::Wait { until: None, because };
    }
    if standing.is_alone() {
        return Gate::Go;
    }
    seen_by_others(own, standing.silent_after(), now)
}

/// Decides whether the release is known for long enough, `since` when, where a single host says that it works: it shortens nobody's
/// bake by boasting.
pub fn soaked(fleet: &Fleet, change: &Change<'_>, standing: &Standing, since: Timestamp, now: Timestamp) -> Gate {
    let bake = written(fleet, change.app, change.host).map(|policy| policy.bake).unwrap_or_default();
    let end =
        SignedDuration::try_from(bake).ok().and_then(|bake| since.checked_add(bake).ok()).unwrap_or(Timestamp::MAX);
    match standing.only_word(change.host) {
        Some(only) if now < end && !is_broken(fleet, change, Rule::Waves, now) => Gate::Wait {
            until: Some(end),
            because: format!("{only} alone says that it works, and cannot have been healthy for long enough"),
        },
        _ => Gate::Go,
    }
}

/// Says whom the host has to look at next whose change may not begin, by its `gate`: unless one of them moves on, nothing changes.
pub fn look(fleet: &Fleet, change: &Change<'_>, standing: &Standing, gate: &Gate, now: Timestamp) -> Look {
    let breaks = |rule| is_broken(fleet, change, rule, now);
    if standing.is_halted() && !breaks(Rule::Failures) {
        return Look::At { hosts: standing.failed(), distance: standing.failed().len() };
    }
    match gate {
        Gate::Blocked { .. } | Gate::Wait { until: Some(_), .. } => Look::Nobody,
        _ if standing.turn(change.host, breaks(Rule::Waves)) == Turn::Go => Look::All,
        _ => standing.look(change.host, breaks(Rule::Waves)),
    }
}

/// Waits until it is sure that the view is new enough and that nobody takes this host for silent.
fn seen_by_others(own: &Own, silent_after: Duration, now: Timestamp) -> Gate {
    let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let fresh = freshness(silent_after);
    if age(own.view) > fresh {
        return Gate::Wait {
            until: None,
            because: "the other hosts' records have to be fetched again first".to_owned(),
        };
    }
    match own.signs {
        Signs::Unreported => Gate::Go,
        Signs::Since { first, last, was_away } if age(last) <= silent_after / 2 => {
            let settled = first.checked_add(fresh).unwrap_or(Timestamp::MAX);
            match was_away && (now < settled || own.view < settled) {
                true => Gate::Wait {
                    until: Some(settled).filter(|settled| now < *settled),
                    because: "this host was away: the others have to see first that it is back".to_owned(),
                },
                false => Gate::Go,
            }
        }
        Signs::Since { .. } | Signs::None => {
            Gate::Wait { until: None, because: "this host's own record has to be published first".to_owned() }
        }
    }
}

/// Returns how old a view of the other hosts may be for a change to begin.
pub fn freshness(silent_after: Duration) -> Duration {
    silent_after / 4
}

/// Decides whether what an application needs is healthy at this commit wherever it is placed.
pub fn needs(fleet: &Fleet, change: &Change<'_>, needed: &BTreeMap<&AppName, &Standing>, now: Timestamp) -> Gate {
    if is_broken(fleet, change, Rule::Needs, now) {
        return Gate::Go;
    }
    for (app, standing) in needed {
        if standing.is_halted() {
            return Gate::Blocked { because: format!("it needs {app}, of which {}", standing.halt()) };
        }
        if let Some(because) = standing.unready() {
            return Gate::Wait { until: None, because: format!("it needs {app}: {because}") };
        }
    }
    Gate::Go
}
