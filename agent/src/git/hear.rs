//! Listening to the other hosts. Whoever can push can put anything where a host's sign of life belongs, of any size; that costs the
//! other hosts nothing: they are heard all the same, in smaller and smaller groups, until it is known whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use gix::ObjectId;
use spec::id::HostName;

use super::apart::Listing;
use super::connect::Kept;
use super::error::{Cap, Failure, FetchError};
use super::link::Named;
use super::mirror::{Source, find, forget};
use super::pull::pull;
use super::remote::{Bounds, Deadlines, Remote};
use super::signs::{Deaf, HEARD, Heard, MAX_SIGN, Peers, SEEN, is_sign};
use super::wire::Watch;

/// So many conversations are had at most until everybody was heard whose sign of life is one; the rest is for the next time.
const MOST_CONVERSATIONS: usize = 24;
/// So long, at most: a commit may wait to be looked at.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many more signs of life than hosts are listed at most: of hosts that have left, for instance.
const MOST_OTHERS: usize = 1000;
/// So many are where nobody knows how many hosts there are.
const MOST_UNKNOWN: usize = 20_000;
/// So many hosts are left out of a list by their names at most.
const MOST_LEFT_OUT: usize = 100;
/// For how long everybody is asked for by name after a list that had too many.
const CROWDED: Duration = Duration::from_secs(3600);
/// What a conversation about signs of life takes beside them, in bytes and in objects.
const AROUND: (u64, usize) = (1 << 20, 100);

/// What a list said.
#[derive(Default)]
pub(super) struct Told {
    /// There was one.
    pub(super) has_answered: bool,
    /// Which hosts have a sign of life, and which.
    signs: BTreeMap<HostName, ObjectId>,
    /// It has more of them than there can be.
    pub(super) is_crowded: bool,
}

impl Deaf {
    /// Names those who are asked for by name where a list of everybody cannot be had.
    pub(super) fn expect(&mut self, members: BTreeSet<HostName>) {
        self.members = members;
    }

    /// Says how many signs of life were none or could not be had.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns refspecs for the signs of life of these hosts, but for those who are not heard.
    pub(super) fn specs(&self, repo: &gix::Repository, peers: &Peers) -> Vec<String> {
        let is_crowded = self.crowded.is_some_and(|since| since.elapsed() < CROWDED);
        let names = match peers {
            Peers::Some(hosts) => hosts.clone(),
            Peers::All if is_crowded || self.refused.len() > MOST_LEFT_OUT => self.known(repo),
            Peers::All => {
                let all = format!("+{SEEN}*:{HEARD}*");
                return [all].into_iter().chain(self.refused.keys().map(|host| format!("^{SEEN}{host}"))).collect();
            }
        };
        specs(names.iter().filter(|host| !self.refused.contains_key(*host)))
    }

    /// Takes in what a list says of those who were asked for; some servers list everybody, whoever is.
    pub(super) fn told(&self, references: &[Named], peers: Option<&Peers>) -> Told {
        let mut told = Told { has_answered: true, ..Told::default() };
        let mut names = 0;
        let was_asked = |host: &HostName| match peers {
            None => false,
            Some(Peers::Some(hosts)) => hosts.contains(host),
            Some(Peers::All) => true,
        };
        for Named { name, id } in references {
            let Some(name) = name.strip_prefix(SEEN) else { continue };
            names += 1;
            if let Some(host) = HostName::parse(name).ok().filter(was_asked) {
                told.signs.insert(host, id.0);
            }
        }
        told.is_crowded = peers == Some(&Peers::All) && names > self.most();
        told
    }

    fn most(&self) -> usize {
        if self.members.is_empty() { MOST_UNKNOWN } else { self.members.len() + MOST_OTHERS }
    }

    /// Says whether it is more than is taken.
    ///
    /// # Errors
    /// It is.
    pub(super) fn bound(&self, told: &Told, remote: &Remote) -> Result<(), Failure> {
        match told.is_crowded {
            true => {
                let (url, cap) = (remote.url.to_string(), Cap::Refs(self.most()));
                Err(Failure::Plain(FetchError::TooLarge { url, cap }))
            }
            false => Ok(()),
        }
    }

    /// Says whether there is a sign of life that is neither known here nor refused.
    pub(super) fn is_news(&self, repo: &gix::Repository, told: &Told) -> bool {
        told.signs.iter().any(|(host, id)| self.refused.get(host) != Some(id) && kept(repo, host) != Some(*id))
    }

    /// Looks at what came in, and leaves out what is no sign of life.
    fn settle(&mut self, repo: &gix::Repository, told: &Told, was_asked: impl Fn(&HostName) -> bool) {
        for (host, id) in told.signs.iter().filter(|(host, _)| was_asked(host)) {
            let is_kept = kept(repo, host) == Some(*id);
            if is_kept && is_one(repo, *id) {
                self.refused.remove(host);
                continue;
            }
            if is_kept && let Err(error) = forget(repo, &format!("{HEARD}{host}")) {
                tracing::warn!(%host, error, "what is no sign of life could not be removed");
            }
            self.refuse(host, *id, "it is no commit that stands alone, or too large");
        }
    }

    /// The same, of all who are heard.
    pub(super) fn take_in(&mut self, repo: &gix::Repository, told: &Told) {
        let left_out: BTreeSet<HostName> = self.refused.keys().cloned().collect();
        self.settle(repo, told, |host| !left_out.contains(host));
    }

    fn refuse(&mut self, host: &HostName, id: ObjectId, why: &str) {
        if self.refused.insert(host.clone(), id) != Some(id) {
            self.count += 1;
            tracing::warn!(%host, object = %id, why, "what stands where a host's sign of life belongs is left out");
        }
    }

    /// Returns whom to ask for one group after another, when they could not be had at once.
    pub(super) fn one_by_one(&mut self, repo: &gix::Repository, told: &Told, peers: &Peers) -> Vec<HostName> {
        if told.is_crowded || !told.has_answered {
            self.crowded = Some(Instant::now());
        }
        let names = match peers {
            Peers::Some(hosts) => hosts.clone(),
            Peers::All if self.members.is_empty() && !told.is_crowded => told.signs.keys().cloned().collect(),
            Peers::All => self.known(repo),
        };
        names.into_iter().filter(|host| !self.refused.contains_key(host)).collect()
    }

    /// Returns who was left out, and whom to ask for again: of those where something else stands by now, as far as that is known.
    pub(super) fn again(&self, told: &Told, peers: &Peers) -> Vec<HostName> {
        let refused = self.refused.iter().filter(|(host, id)| match peers {
            Peers::Some(hosts) => hosts.contains(*host),
            Peers::All => told.signs.get(*host) != Some(*id),
        });
        refused.map(|(host, _)| host.clone()).collect()
    }

    fn known(&self, repo: &gix::Repository) -> BTreeSet<HostName> {
        let mut known = self.members.clone();
        if known.is_empty() {
            known.extend(heard(repo).unwrap_or_default());
        }
        known
    }

    /// Listens to hosts: together, and where that fails to each half of them. Says what came of it, and how many bytes that took.
    pub(super) fn listen(
        &mut self,
        repo: &gix::Repository,
        remote: &Remote,
        hosts: Vec<HostName>,
        kept: &Kept,
        (deadlines, cancel): (&Deadlines, &AtomicBool),
    ) -> (Heard, u64) {
        let ends = Instant::now() + PATIENCE.min(deadlines.total);
        let (mut heard, mut received, mut conversations) = (Heard::Same, 0, 0);
        let mut groups = if hosts.is_empty() { Vec::new() } else { vec![hosts] };
        while let Some(group) = groups.pop() {
            let peers = Peers::Some(group.iter().cloned().collect());
            let left = ends.saturating_duration_since(Instant::now());
            if conversations == MOST_CONVERSATIONS || left.is_zero() {
                tracing::warn!("not all hosts could be heard in time; the rest is asked for next time");
                // What came in is there; what it is worth is found out together with the rest.
                return (Heard::Nothing, received);
            }
            conversations += 1;
            let few = few(remote, group.len());
            let deadlines = Deadlines { total: left, ..*deadlines };
            let watch = Watch::new(&deadlines, few.whole, cancel);
            let mut told = Told::default();
            let pulled = pull(repo, &few, &specs(group.iter()), kept, &watch, |references| {
                told = self.told(references, Some(&peers));
                if self.is_news(repo, &told) { Listing::New } else { Listing::Same }
            });
            received += watch.received();
            match pulled {
                Ok(Listing::New) => {
                    heard = Heard::News;
                    self.settle(repo, &told, |_| true);
                }
                Ok(_) => {}
                Err(failure) if failure.is_cancelled() || !(told.has_answered || failure.is_too_much()) => {
                    let error = failure.text();
                    tracing::warn!(remote = %remote.url, error, "the signs of life of the other hosts could not be fetched");
                    return (Heard::Nothing, received);
                }
                Err(failure) if group.len() == 1 => {
                    let none = ObjectId::null(gix::hash::Kind::Sha1);
                    self.refuse(&group[0], told.signs.get(&group[0]).copied().unwrap_or(none), &failure.text());
                }
                Err(_) => {
                    let mut group = group;
                    let half = group.split_off(group.len() / 2);
                    groups.extend([half, group]);
                }
            }
        }
        (heard, received)
    }
}

fn specs<'h>(hosts: impl Iterator<Item = &'h HostName>) -> Vec<String> {
    hosts.map(|host| format!("+{SEEN}{host}:{HEARD}{host}")).collect()
}

/// Returns a remote that may send no more than the signs of life of so many hosts take.
fn few(remote: &Remote, hosts: usize) -> Remote {
    let bytes = remote.whole.bytes.min(AROUND.0 + 2 * MAX_SIGN * hosts as u64);
    let objects = remote.whole.objects.min(AROUND.1 + 2 * hosts);
    remote.clone().within(Bounds { bytes, objects, unpacked: bytes })
}

/// Returns the sign of life of a host that is kept here.
fn kept(repo: &gix::Repository, host: &HostName) -> Option<ObjectId> {
    find(repo, &format!("{HEARD}{host}")).ok().flatten()
}

fn is_one(repo: &gix::Repository, id: ObjectId) -> bool {
    repo.find_header(id).is_ok_and(|header| header.size() <= MAX_SIGN)
        && repo.find_object(id).is_ok_and(|object| is_sign(object.kind, &object.data))
}

/// Names the hosts of which a sign of life is kept here.
fn heard(repo: &gix::Repository) -> Result<BTreeSet<HostName>, Source> {
    let mut hosts = BTreeSet::new();
    for reference in repo.references()?.prefixed(HEARD)? {
        let name = reference.map(|reference| reference.name().as_bstr().to_string());
        hosts.extend(name.ok().and_then(|name| HostName::parse(name.strip_prefix(HEARD)?).ok()));
    }
    Ok(hosts)
}
