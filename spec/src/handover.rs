//! What moves from one application to another changes hands only when both may change: held apart, one would lose what the other
//! has not taken yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::course::{self, Release, has_begun, meet};
use crate::desired::{Desired, DesiredApp, Hold};
use crate::id::{AppName, HostPath, ResourceId};
use crate::memory::Memory;
use crate::resolve;

/// Holds back whoever would take something from, or leave something to, an application that waits. `good` holds the releases
/// that those that wait are held to.
pub fn together(
    wanted: &Desired,
    memory: &Memory,
    good: &BTreeMap<AppName, Release>,
    holds: &mut BTreeMap<AppName, Hold>,
) {
    // Each round holds one more back, so this ends.
    while let Some((app, why)) = bound(wanted, memory, good, holds) {
        holds.insert(app, Hold::Waits(why));
    }
}

/// Groups the applications that change between which something moves, or that read the same published file, which changes: all of
/// a group go together. `running` holds the releases that they run.
pub fn groups(wanted: &Desired, memory: &Memory, running: &BTreeMap<AppName, Release>) -> Vec<BTreeSet<AppName>> {
    let mut groups: Vec<BTreeSet<AppName>> = Vec::new();
    let pending: Vec<AppName> = course::pending(wanted, memory).into_iter().collect();
    for (at, one) in pending.iter().enumerate() {
        for other in pending.get(at + 1..).unwrap_or_default() {
            if !are_bound(one, other, wanted, memory, running) && !are_bound(other, one, wanted, memory, running) {
                continue;
            }
            let (with, without): (Vec<_>, Vec<_>) =
                groups.into_iter().partition(|group| group.contains(one) || group.contains(other));
            groups = without;
            groups.push(with.into_iter().flatten().chain([one.clone(), other.clone()]).collect());
        }
    }
    groups
}

/// Says whether `one` takes something from, or leaves something to, `other`, or both read something published that changes.
fn are_bound(
    one: &AppName,
    other: &AppName,
    wanted: &Desired,
    memory: &Memory,
    running: &BTreeMap<AppName, Release>,
) -> bool {
    let app = wanted.apps.get(one);
    let takes = app.zip(running.get(other)).is_some_and(|(app, release)| meet(app, &release.app).is_some());
    takes || left_to(one, app, other, wanted, memory).is_some() || read_both(one, other, wanted, running)
}

/// Says whether both read something published that is another one than what they were started with.
fn read_both(one: &AppName, other: &AppName, wanted: &Desired, running: &BTreeMap<AppName, Release>) -> bool {
    let reads = |app: &AppName| -> BTreeSet<&HostPath> {
        let now = wanted.apps.get(app).into_iter().flat_map(|app| resolve::reads_of(app, &wanted.published));
        let before = running.get(app).into_iter().flat_map(|release| &release.published);
        now.chain(before).map(|(path, _)| path).collect()
    };
    let changes = |app: &AppName, path: &HostPath| {
        let before = running.get(app).and_then(|release| release.published.get(path));
        before.is_some_and(|before| Some(before) != wanted.published.get(path))
    };
    let (ours, theirs) = (reads(one), reads(other));
    ours.intersection(&theirs).any(|path| changes(one, path) || changes(other, path))
}

/// Finds an application that may go and hands something over to, or takes something from, one that waits.
fn bound(
    wanted: &Desired,
    memory: &Memory,
    good: &BTreeMap<AppName, Release>,
    holds: &BTreeMap<AppName, Hold>,
) -> Option<(AppName, String)> {
    let waits = || holds.iter().filter(|(_, hold)| matches!(hold, Hold::Waits(_))).map(|(name, _)| name);
    let is_free = |name: &AppName| !holds.contains_key(name);
    for (name, app) in &wanted.apps {
        if !is_free(name) || has_begun(memory.apps.get(name), app) {
            continue;
        }
        for other in waits() {
            let taken = good.get(other).and_then(|release| meet(app, &release.app));
            if let Some(what) = taken {
                return Some((name.clone(), format!("it takes {what} over from {other}, which waits")));
            }
            if read_both(name, other, wanted, good) {
                return Some((name.clone(), format!("it reads the same published endpoints as {other}, which waits")));
            }
            if let Some(what) = left_to(name, Some(app), other, wanted, memory) {
                return Some((name.clone(), format!("it leaves {what} to {other}, which waits")));
            }
        }
    }
    let leaving = memory.apps.iter().filter(|(name, known)| !wanted.apps.contains_key(*name) && !known.going);
    for (name, _) in leaving.filter(|(name, _)| is_free(name)) {
        for other in waits() {
            if let Some(what) = left_to(name, None, other, wanted, memory) {
                return Some((name.clone(), format!("it leaves {what} to {other}, which waits")));
            }
        }
    }
    None
}

/// Names something that `name` has and does not want any more, and that the commit's release of `other` wants.
fn left_to(
    name: &AppName,
    app: Option<&DesiredApp>,
    other: &AppName,
    wanted: &Desired,
    memory: &Memory,
) -> Option<ResourceId> {
    let theirs = wanted.apps.get(other).filter(|_| other != name)?;
    let has = |app: &DesiredApp, id: &ResourceId| match id {
        ResourceId::File(path) => app.files.contains_key(path),
        ResourceId::Unit(unit) => app.units.contains_key(unit),
        ResourceId::Container(container) => app.containers.contains_key(container),
        ResourceId::Network(network) => app.networks.get(network).is_some_and(|it| it.settings.is_some()),
        ResourceId::Volume(_) => false,
    };
    let owned = memory.owned.iter().filter(|(_, owned)| owned.app == *name).map(|(id, _)| id.clone());
    let units = memory.units.iter().filter(|(_, known)| known.app == *name);
    let mut all = owned.chain(units.map(|(unit, _)| ResourceId::Unit(unit.clone())));
    all.find(|id| has(theirs, id) && !app.is_some_and(|app| has(app, id)))
}
