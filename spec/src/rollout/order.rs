//! The order in which the hosts of an application have their turns.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// The hosts of an application in the order of their turns; copied for the price of a pointer.
#[derive(Clone, Debug)]
pub struct Order(Arc<Row>);

#[derive(Debug)]
struct Row {
    turns: Vec<(Place, HostName)>,
    /// Where in `turns` each host is, by name.
    by_name: Vec<usize>,
}

impl Order {
    fn new(mut turns: Vec<(Place, HostName)>) -> Order {
        turns.sort_unstable();
        let mut by_name: Vec<usize> = (0..turns.len()).collect();
        by_name.sort_unstable_by_key(|at| &turns[*at].1);
        Order(Arc::new(Row { turns, by_name }))
    }

    /// Iterates over the hosts, and where each stands.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Place, &HostName)> {
        self.0.turns.iter().map(|(place, host)| (*place, host))
    }

    /// Returns how many hosts there are.
    pub fn len(&self) -> usize {
        self.0.turns.len()
    }

    /// Says whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.turns.is_empty()
    }

    /// Returns whose turn is as many turns from the first.
    pub(super) fn at(&self, at: usize) -> (Place, &HostName) {
        let (place, host) = &self.0.turns[at];
        (*place, host)
    }

    /// Returns how many turns a host is from the first.
    pub(super) fn find(&self, host: &HostName) -> Option<usize> {
        let Row { turns, by_name } = &*self.0;
        let found = by_name.binary_search_by(|at| turns[*at].1.cmp(host)).ok()?;
        Some(by_name[found])
    }
}

/// Orders `hosts`: those that match a selector go with it, the others by rank in growing shares. Who is in no wave by now goes
/// last: a policy may have changed while a host that is leaving still waits.
pub fn order<'h>(fleet: &Fleet, app: &AppName, policy: &Rollout, hosts: impl Iterator<Item = &'h HostName>) -> Order {
    let (mut turns, mut rest) = (Vec::new(), BTreeMap::new());
    let has_selectors = policy.waves.iter().any(|wave| matches!(wave, Wave::Where(_)));
    for name in hosts {
        let rank = rank(name, app.as_str());
        let known = fleet.hosts.get(name).filter(|_| has_selectors);
        let matching = |wave: &Wave| match (wave, known) {
            (Wave::Where(place), Some(host)) => place.holds(name, host),
            _ => false,
        };
        match policy.waves.iter().position(matching) {
            Some(wave) => turns.push((Place { wave, rank }, name.clone())),
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
        turns.push((Place { wave, rank }, name.clone()));
    }
    Order::new(turns)
}

/// A stable hash: another application has another order, so that not the same hosts are always first.
pub(crate) fn rank(host: &HostName, of: &str) -> Digest {
    let mut fields = Fields::default();
    fields.add("host", host.as_str().as_bytes());
    fields.add("app", of.as_bytes());
    fields.finish()
}
