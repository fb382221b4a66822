//! The order in which the hosts of an application have their turns.

use std::collections::BTreeMap;

use crate::digest::{Digest, Fields};
use crate::id::{AppName, HostName};
use crate::manifest::{Fleet, Rollout, Wave};

/// Where a host stands in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its wave, counted from zero.
    pub wave: usize,
    /// Its rank within.
    pub rank: Digest,
}

/// Orders `hosts`: those that match a selector go with it, the others by rank in growing shares. Who is in no wave by now goes
/// last: a policy may have changed while a host that is leaving still waits.
pub fn order<'h>(
    fleet: &Fleet,
    app: &AppName,
    policy: &Rollout,
    hosts: impl Iterator<Item = &'h HostName>,
) -> BTreeMap<Place, &'h HostName> {
    let (mut places, mut rest) = (BTreeMap::new(), BTreeMap::new());
    for name in hosts {
        let rank = rank(name, app);
        let matching = |wave: &Wave| match (wave, fleet.hosts.get(name)) {
            (Wave::Where(place), Some(host)) => place.holds(name, host),
            _ => false,
        };
        match policy.waves.iter().position(matching) {
            Some(wave) => drop(places.insert(Place { wave, rank }, name)),
            None => drop(rest.insert(rank, name)),
        }
    }
    let all = rest.len();
    let shares = policy.waves.iter().enumerate().filter_map(|(wave, it)| match it {
        // Rounded up: a share of a few hosts is at least one of them.
        Wave::Share(share) => Some((wave, (all * usize::from(*share)).div_ceil(100))),
        Wave::Where(_) => None,
    });
    let shares: Vec<(usize, usize)> = shares.collect();
    for (at, (rank, name)) in rest.into_iter().enumerate() {
        let wave = shares.iter().find(|(_, until)| at < *until).map_or(policy.waves.len(), |(wave, _)| *wave);
        places.insert(Place { wave, rank }, name);
    }
    places
}

/// A stable hash: another application has another order, so that not the same hosts are always first.
fn rank(host: &HostName, app: &AppName) -> Digest {
    let mut fields = Fields::default();
    fields.add("host", host.as_str().as_bytes());
    fields.add("app", app.as_str().as_bytes());
    fields.finish()
}
