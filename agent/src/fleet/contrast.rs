//! How two hosts differ: in what they run, by their records, and in what the releases that they run want of each of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spec::desired::DesiredApp;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{self, Fleet};
use spec::resolve;

use super::Reading;
use crate::git::Mirror;
use crate::upstream::LIMITS;

/// How an application differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Contrast {
    /// On the first host and on the second.
    pub sides: [Option<Side>; 2],
    /// What their releases want of both, and not the same.
    pub other: BTreeSet<String>,
    /// What only one of them should have.
    pub only: [BTreeSet<String>; 2],
    /// What cannot be compared: the commit is not here, or has mistakes.
    pub is_unknown: bool,
}

/// An application on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Side {
    /// How it fares.
    pub state: &'static str,
    /// The release that runs.
    pub release: Option<CommitId>,
}

impl Contrast {
    /// Says whether there is nothing to tell.
    fn is_nothing(&self) -> bool {
        let [left, right] = &self.sides;
        left == right && !self.is_unknown && self.other.is_empty() && self.only.iter().all(BTreeSet::is_empty)
    }
}

/// Compares two hosts of the fleet, application by application; those that are alike are left out.
pub fn contrast(mirror: &Mirror, reading: &Reading, hosts: [&HostName; 2]) -> BTreeMap<AppName, Contrast> {
    let mut fleets = Fleets { mirror, read: BTreeMap::new() };
    let rows = hosts.map(|host| {
        let rows = reading.rows_of(host).map(|row| (row.app, row));
        rows.collect::<BTreeMap<_, _>>()
    });
    let apps: BTreeSet<&AppName> = rows.iter().flat_map(BTreeMap::keys).copied().collect();
    let compared = apps.into_iter().map(|app| {
        let found = [rows[0].get(app), rows[1].get(app)];
        let sides = found.map(|row| row.map(|row| Side { state: row.state(), release: row.release().cloned() }));
        let mut contrast =
            Contrast { sides, other: BTreeSet::new(), only: [BTreeSet::new(), BTreeSet::new()], is_unknown: false };
        if let [Some(left), Some(right)] = found
            && let (Some(first), Some(second)) = (left.release(), right.release())
        {
            let [first, second] =
                [(first, hosts[0]), (second, hosts[1])].map(|(commit, host)| fleets.wanted(commit, host, app));
            match (first, second) {
                (Some(first), Some(second)) => compare(&first, &second, &mut contrast),
                _ => contrast.is_unknown = true,
            }
        }
        (app.clone(), contrast)
    });
    compared.filter(|(_, contrast)| !contrast.is_nothing()).collect()
}

fn compare(left: &DesiredApp, right: &DesiredApp, contrast: &mut Contrast) {
    let [wanted, others] = [left, right].map(|app| {
        let wants = app.resources().map(|id| (id.to_string(), app.want(&id)));
        wants.collect::<BTreeMap<_, _>>()
    });
    for (id, want) in &wanted {
        match others.get(id) {
            None => drop(contrast.only[0].insert(id.clone())),
            Some(other) if other != want => drop(contrast.other.insert(id.clone())),
            Some(_) => {}
        }
    }
    contrast.only[1].extend(others.into_keys().filter(|id| !wanted.contains_key(id)));
}

/// What commits say, each read once.
struct Fleets<'m> {
    mirror: &'m Mirror,
    read: BTreeMap<CommitId, Option<Fleet>>,
}

impl Fleets<'_> {
    fn wanted(&mut self, commit: &CommitId, host: &HostName, app: &AppName) -> Option<DesiredApp> {
        let mirror = self.mirror;
        let fleet = self.read.entry(commit.clone()).or_insert_with(|| {
            let tree = mirror.tree(commit, &LIMITS).ok()?;
            manifest::parse(&tree, Some(commit)).fleet
        });
        resolve::resolve(fleet.as_ref()?, host).ok()?.apps.remove(app)
    }
}
