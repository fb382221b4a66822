//! Reads `needs:` of app.yaml, and checks over all applications that every needed one exists and none waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Application;
use super::page::Page;
use super::words::{did_you_mean, nearest};
use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::AppName;

/// Who needs whom, and where that is written.
type Needs = BTreeMap<AppName, BTreeMap<AppName, Location>>;

/// Reads the list: who is needed, and where that is written.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> BTreeMap<AppName, Location> {
    let mut needs = BTreeMap::new();
    for node in page.list(node, "`needs`").unwrap_or_default() {
        let Some(text) = page.text(node, "an item of `needs`") else { continue };
        let name = page.name("app-name", node.extent, "an application's name", AppName::parse(text));
        if let Some(name) = name {
            if needs.contains_key(&name) {
                page.error("needs", node.extent, format!("`{name}` is needed twice")).help("keep one of the two");
            }
            needs.insert(name, page.at(node.extent));
        }
    }
    needs
}

/// Checks what is needed against what there is.
pub(super) fn check(apps: &BTreeMap<AppName, Application>, diagnostics: &mut Vec<Diagnostic>) {
    // What an application needs on one host it may not need on another; a circle over several hosts helps nobody either.
    let needs = |application: &Application| {
        let variants = application.variants.iter().rev();
        variants.flat_map(|app| app.needs.iter().map(|(name, at)| (name.clone(), at.clone()))).collect()
    };
    let apps: Needs = apps.iter().map(|(name, application)| (name.clone(), needs(application))).collect();
    for (name, needs) in &apps {
        for (needed, location) in needs {
            if apps.contains_key(needed) {
                continue;
            }
            let message = format!("`{name}` needs `{needed}`, and there is no such application");
            let mut complaint = Diagnostic::error("needs", location.clone(), message);
            let near = nearest(needed.as_str(), apps.keys().map(AppName::as_str));
            complaint.help(near.map_or_else(|| format!("add apps/{needed}/, or remove it"), did_you_mean));
            diagnostics.push(complaint);
        }
    }
    let mut told = BTreeSet::new();
    for name in apps.keys() {
        let Some(cycle) = cycle(&apps, name) else { continue };
        if !told.insert(BTreeSet::from_iter(cycle.clone())) {
            continue;
        }
        let next = cycle.get(1).unwrap_or(&name);
        let Some(location) = apps[name].get(*next) else { continue };
        let round: Vec<&str> = cycle.iter().chain([&name]).map(|name| name.as_str()).collect();
        let message = match round.len() {
            2 => format!("`{name}` needs itself"),
            _ => format!("these applications wait for each other: {}", round.join(" -> ")),
        };
        let mut complaint = Diagnostic::error("needs-cycle", location.clone(), message);
        complaint.help("remove one `needs` of the round: the first one to start must need none of the others");
        diagnostics.push(complaint);
    }
}

/// Finds the shortest way from `from` back to itself.
fn cycle<'f>(apps: &'f Needs, from: &'f AppName) -> Option<Vec<&'f AppName>> {
    let mut came: BTreeMap<&AppName, &AppName> = BTreeMap::new();
    let mut round = vec![from];
    while !round.is_empty() {
        let mut next = Vec::new();
        for at in round {
            for needed in apps.get(at).into_iter().flat_map(BTreeMap::keys) {
                if needed == from {
                    let mut way = vec![at];
                    while let Some(before) = came.get(way[way.len() - 1]) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came.contains_key(needed) {
                    came.insert(needed, at);
                    next.push(needed);
                }
            }
        }
        round = next;
    }
    None
}
