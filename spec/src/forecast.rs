//! What one commit changes on every host, told without asking any of them: for whoever reviews it.
//!
//! It is worked out from what both commits want, so it is what happens on hosts that are as the first one says. Drift, and what
//! failed there, only they know.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::desired::{Desired, DesiredApp, DesiredUnit, UnitGoal, UnitOrigin};
use crate::id::{AppName, HostName, HostPath, ResourceId, UnitName};
use crate::inputs::{self, Managed};
use crate::manifest::Fleet;
use crate::resolve;

/// What changes, by application, and on which hosts it is just the same.
pub type Forecast = BTreeMap<AppName, BTreeMap<Change, BTreeSet<HostName>>>;

/// What becomes of an application on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Whether it was there, and will be.
    pub kind: Kind,
    /// What is done to its parts. Nothing, where only what is looked at or said of them changes.
    pub effects: BTreeSet<Effect>,
}

/// Whether an application was there, and will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It comes to the host.
    Added,
    /// It is there before and after.
    Changed,
    /// It leaves the host.
    Removed,
}

/// What is done to a part of an application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Effect {
    /// What is done.
    pub verb: Verb,
    /// To what, as plans name it.
    pub object: String,
}

/// What is done, in the order in which people want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It stops and starts.
    Restart,
    /// It stops and starts where it runs; nothing says that it has to.
    RestartIfRunning,
    /// It is removed and created anew.
    Replace,
    /// It is stopped.
    Stop,
    /// It is started.
    Start,
    /// It reads its files again.
    Reload,
    /// It is created or written.
    Write,
    /// It is removed.
    Remove,
}

impl Verb {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Restart => "restart",
            Verb::RestartIfRunning => "restart if running",
            Verb::Replace => "replace",
            Verb::Stop => "stop",
            Verb::Start => "start",
            Verb::Reload => "reload",
            Verb::Write => "write",
            Verb::Remove => "remove",
        }
    }
}

/// Compares what two commits want of every host that either has.
pub fn forecast(from: &Fleet, to: &Fleet) -> Forecast {
    let mut forecast = Forecast::new();
    let hosts: BTreeSet<&HostName> = from.hosts.keys().chain(to.hosts.keys()).collect();
    for host in hosts {
        let wanted = [from, to].map(|fleet| resolve::resolve(fleet, host).ok());
        // A host that is left out keeps what it has, until somebody takes the agent off it.
        let [before, Some(after)] = wanted else { continue };
        for (app, change) in on_host(before.as_ref(), &after) {
            forecast.entry(app).or_default().entry(change).or_default().insert(host.clone());
        }
    }
    forecast
}

/// Names the hosts that the second commit leaves out: they keep what they have.
pub fn left_out<'f>(from: &'f Fleet, to: &Fleet) -> Vec<&'f HostName> {
    from.hosts.keys().filter(|host| !to.hosts.contains_key(*host)).collect()
}

fn on_host(before: Option<&Desired>, after: &Desired) -> BTreeMap<AppName, Change> {
    let nothing = BTreeMap::new();
    let old = before.map_or(&nothing, |before| &before.apps);
    let [managed_before, managed_after] = [before, Some(after)].map(|it| it.map(inputs::managed).unwrap_or_default());
    let mut changes = BTreeMap::new();
    let names: BTreeSet<&AppName> = old.keys().chain(after.apps.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), after.apps.get(name));
        let mut effects = BTreeSet::new();
        let mut add = |verb, object: String| {
            effects.insert(Effect { verb, object });
        };
        files((was, before), (is, after), &mut add);
        units((was, before, &managed_before), (is, after, &managed_after), &mut add);
        engine(was, is, &mut add);
        let kind = match (was, is) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            (Some(was), Some(is)) if was.digest == is.digest && effects.is_empty() => continue,
            _ => Kind::Changed,
        };
        changes.insert(name.clone(), Change { kind, effects });
    }
    changes
}

fn files(
    (was, before): (Option<&DesiredApp>, Option<&Desired>),
    (is, after): (Option<&DesiredApp>, &Desired),
    add: &mut impl FnMut(Verb, String),
) {
    let all = |app: Option<&DesiredApp>| -> Vec<HostPath> {
        app.into_iter().flat_map(|app| app.files.keys().cloned()).collect()
    };
    // What another application has before or after changes hands.
    for path in all(is).into_iter().filter(|path| before.and_then(|it| it.file(path)) != after.file(path)) {
        add(Verb::Write, path.to_string());
    }
    for path in all(was).into_iter().filter(|path| after.file(path).is_none()) {
        add(Verb::Remove, path.to_string());
    }
}

fn units(
    (was, before, managed_before): (Option<&DesiredApp>, Option<&Desired>, &Managed<'_>),
    (is, after, managed_after): (Option<&DesiredApp>, &Desired, &Managed<'_>),
    add: &mut impl FnMut(Verb, String),
) {
    let runs = |unit: &DesiredUnit| unit.state == Some(UnitGoal::Running);
    for (name, unit) in is.into_iter().flat_map(|app| &app.units) {
        let before = before.and_then(|before| unit_of(before, name));
        let verb = match before {
            _ if unit.state == Some(UnitGoal::Stopped) => before.filter(|it| runs(it)).map(|_| Verb::Stop),
            None => runs(unit).then_some(Verb::Start),
            Some(before) if runs(unit) && !runs(before) => Some(Verb::Start),
            Some(before) => {
                let [old, new] = [(before, managed_before), (unit, managed_after)]
                    .map(|(unit, managed)| inputs::of_unit(name, unit, None, managed).digests);
                let restart = if runs(unit) { Verb::Restart } else { Verb::RestartIfRunning };
                if old.start != new.start { Some(restart) } else { (old.reload != new.reload).then_some(Verb::Reload) }
            }
        };
        verb.into_iter().for_each(|verb| add(verb, name.to_string()));
    }
    let goes = |name: &UnitName| unit_of(after, name).is_none();
    for (name, unit) in was.into_iter().flat_map(|app| &app.units).filter(|(name, _)| goes(name)) {
        // One that the host itself provides is let go of, and runs on.
        if matches!(unit.origin, UnitOrigin::Application { .. }) {
            add(Verb::Stop, name.to_string());
        }
    }
}

/// Finds a unit, whichever application has it.
fn unit_of<'d>(desired: &'d Desired, name: &UnitName) -> Option<&'d DesiredUnit> {
    desired.apps.values().find_map(|app| app.units.get(name))
}

/// Containers, networks and volumes: what is wanted of each is one digest.
fn engine(was: Option<&DesiredApp>, is: Option<&DesiredApp>, add: &mut impl FnMut(Verb, String)) {
    let wants = |app: Option<&DesiredApp>| -> BTreeMap<ResourceId, _> {
        let all = app.into_iter().flat_map(|app| app.resources().map(move |id| (app.want(&id), id)));
        let is_there =
            |id: &ResourceId| matches!(id, ResourceId::Container(_) | ResourceId::Network(_) | ResourceId::Volume(_));
        all.filter(|(_, id)| is_there(id)).map(|(want, id)| (id, want)).collect()
    };
    let (before, after) = (wants(was), wants(is));
    for (id, want) in &after {
        match before.get(id) {
            None if matches!(id, ResourceId::Container(_)) => add(Verb::Start, id.to_string()),
            None => add(Verb::Write, id.to_string()),
            Some(before) if before != want => add(Verb::Replace, id.to_string()),
            Some(_) => {}
        }
    }
    for id in before.keys().filter(|id| !after.contains_key(*id)) {
        // Data outlives what made it.
        if !matches!(id, ResourceId::Volume(_)) {
            add(Verb::Remove, id.to_string());
        }
    }
}
