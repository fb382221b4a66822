//! What moves from one application to another changes hands only when both may change: held apart, one would lose what the other
//! has not taken yet.

use std::collections::BTreeMap;

use crate::course::{Release, has_begun, meet};
use crate::desired::{Desired, DesiredApp, Hold};
use crate::id::{AppName, ResourceId};
use crate::memory::Memory;

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
