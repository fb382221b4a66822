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
use super::mirror::{Mirror, Source, find, forget};
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
/// What a sign of life takes, in bytes on the wire, as hosts give them.
const USUAL: u64 = 16 << 10;
/// What a conversation about signs of life takes beside them, in bytes and in objects.
const AROUND: (u64, usize) = (1 << 20, 100);

/// What is asked for of other hosts.
pub(super) struct Asked {
    /// As refspecs; none where there is nobody to ask for.
    pub(super) specs: Vec<String>,
    /// Whose signs of life these are; everybody's but those that are left out, where nobody is named.
    names: Option<BTreeSet<HostName>>,
}

impl Asked {
    /// Asks for nobody.
    pub(super) fn nobody() -> Asked {
        Asked { specs: Vec::new(), names: Some(BTreeSet::new()) }
    }
}

/// What a list said.
#[derive(Default)]
pub(super) struct Told {
    /// There was one.
    pub(super) has_answered: bool,
    /// Which hosts have a sign of life, and which, whether they were asked for or not.
    listed: BTreeMap<HostName, ObjectId>,
    /// The same, of those who were.
    signs: BTreeMap<HostName, ObjectId>,
    /// Of whom it is.
    scope: Scope,
}

/// Of whom a list is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Scope {
    /// Of those who were asked for by name, and maybe of others.
    #[default]
    Named,
    /// Of everybody: who is not listed has none.
    Everybody,
    /// Of more than there can be.
    Crowded,
}

/// Hosts that are asked for together.
pub(super) struct Group {
    hosts: Vec<HostName>,
    /// One of them may be why they could not be had together with others.
    is_suspect: bool,
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

    /// Says whether a host is not asked for together with the others.
    fn is_left_out(&self, host: &HostName) -> bool {
        self.refused.contains_key(host) || self.suspects.iter().flatten().any(|suspect| suspect == host)
    }

    /// Says how to ask for the signs of life of these hosts, but for those that are left out.
    pub(super) fn ask(&self, repo: &gix::Repository, peers: &Peers) -> Asked {
        let left_out: BTreeSet<&HostName> = self.refused.keys().chain(self.suspects.iter().flatten()).collect();
        let is_crowded = self.crowded.is_some_and(|since| since.elapsed() < CROWDED);
        let names = match peers {
            Peers::Some(hosts) => hosts.clone(),
            Peers::All if is_crowded || left_out.len() > MOST_LEFT_OUT => self.known(repo),
            Peers::All => {
                let all = format!("+{SEEN}*:{HEARD}*");
                let but = left_out.into_iter().map(|host| format!("^{SEEN}{host}"));
                return Asked { specs: [all].into_iter().chain(but).collect(), names: None };
            }
        };
        let names: BTreeSet<HostName> = names.into_iter().filter(|host| !left_out.contains(host)).collect();
        Asked { specs: specs(names.iter()), names: Some(names) }
    }

    /// Takes in what a list says. Some servers list everybody, whoever is asked for.
    pub(super) fn told(&self, references: &[Named], asked: &Asked) -> Told {
        let mut told = Told { has_answered: true, ..Told::default() };
        let mut count = 0;
        for Named { name, id } in references {
            let Some(name) = name.strip_prefix(SEEN) else { continue };
            count += 1;
            if let Ok(host) = HostName::parse(name) {
                told.listed.insert(host, id.0);
            }
        }
        let was_asked = |host: &HostName| match &asked.names {
            Some(names) => names.contains(host),
            None => !self.is_left_out(host),
        };
        told.signs =
            told.listed.iter().filter(|(host, _)| was_asked(host)).map(|(host, id)| (host.clone(), *id)).collect();
        told.scope = match &asked.names {
            Some(_) => Scope::Named,
            None if count > self.most() => Scope::Crowded,
            None => Scope::Everybody,
        };
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
        match told.scope == Scope::Crowded {
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
    pub(super) fn take_in(&mut self, repo: &gix::Repository, told: &Told) {
        for (host, id) in &told.signs {
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

    fn refuse(&mut self, host: &HostName, id: ObjectId, why: &str) {
        if self.refused.insert(host.clone(), id) != Some(id) {
            self.count += 1;
            tracing::warn!(%host, object = %id, why, "what stands where a host's sign of life belongs is left out");
        }
        if self.refused.len() > MOST_LEFT_OUT && !self.members.is_empty() {
            // Names that nobody has are not asked for any more then.
            let Deaf { refused, members, .. } = self;
            refused.retain(|host, _| members.contains(host));
        }
    }

    /// Returns whom to ask for one group after another, when they could not be had at once.
    pub(super) fn one_by_one(&mut self, repo: &gix::Repository, told: &Told, peers: &Peers) -> Vec<Group> {
        let names = match peers {
            Peers::Some(hosts) => hosts.clone(),
            Peers::All => {
                // It may be somebody whom the fleet does not know.
                self.crowded = Some(Instant::now());
                let is_known = !self.members.is_empty() || told.scope == Scope::Crowded || !told.has_answered;
                if is_known { self.known(repo) } else { told.listed.keys().cloned().collect() }
            }
        };
        let hosts: Vec<HostName> = names.into_iter().filter(|host| !self.is_left_out(host)).collect();
        let mut groups = self.again(told, peers);
        groups.extend((!hosts.is_empty()).then_some(Group { hosts, is_suspect: false }));
        groups
    }

    /// Returns whom to ask for apart: of those that are left out who may say something else by now.
    pub(super) fn again(&mut self, told: &Told, peers: &Peers) -> Vec<Group> {
        let is_gone = |host: &HostName| told.scope == Scope::Everybody && !told.listed.contains_key(host);
        self.refused.retain(|host, _| !is_gone(host));
        let is_meant = |host: &HostName| match peers {
            Peers::Some(hosts) => hosts.contains(host),
            Peers::All => true,
        };
        let other = self.refused.iter().filter(|(host, id)| is_meant(host) && told.listed.get(*host) != Some(*id));
        let other: Vec<HostName> = other.map(|(host, _)| host.clone()).collect();
        let (meant, rest) =
            std::mem::take(&mut self.suspects).into_iter().partition(|group| group.iter().any(is_meant));
        self.suspects = rest;
        let groups: Vec<Vec<HostName>> = meant;
        let groups = groups.into_iter().chain([other]).filter(|group| !group.is_empty());
        groups.map(|hosts| Group { hosts, is_suspect: true }).collect()
    }

    fn known(&self, repo: &gix::Repository) -> BTreeSet<HostName> {
        let mut known = self.members.clone();
        if known.is_empty() {
            known.extend(heard(repo).unwrap_or_default());
        }
        known
    }
}

impl Mirror {
    /// Listens to hosts: each group together, and where that fails to each half of it. Says what came of it, and how many bytes that
    /// took. Nothing came of it where the network failed, or where there was no time to ask for those whom nothing is the matter with;
    /// the others are asked for again the next time, apart, and not heard until then: whoever can push can have that anyway.
    pub(super) fn listen(
        &mut self,
        remote: &Remote,
        mut groups: Vec<Group>,
        keeps: &Kept,
        (deadlines, cancel): (&Deadlines, &AtomicBool),
    ) -> Result<(Heard, u64), FetchError> {
        let ends = Instant::now() + PATIENCE.min(deadlines.total);
        let (mut heard, mut received, mut conversations) = (Heard::Same, 0, 0);
        let mut tried: BTreeSet<HostName> = BTreeSet::new();
        while let Some(Group { hosts, is_suspect }) = groups.pop() {
            let left = ends.saturating_duration_since(Instant::now());
            if conversations == MOST_CONVERSATIONS || left.is_zero() {
                tracing::warn!("not all hosts could be heard in time; the rest is asked for next time");
                groups.push(Group { hosts, is_suspect });
                break;
            }
            conversations += 1;
            let few = few(remote, hosts.len());
            let deadlines = Deadlines { total: left, ..*deadlines };
            let watch = Watch::new(&deadlines, few.whole, cancel);
            let asked = Asked { specs: specs(hosts.iter()), names: Some(hosts.iter().cloned().collect()) };
            let (repo, deaf, mut told) = (&self.repo, &self.deaf, Told::default());
            let pulled = pull(repo, &few, &asked.specs, keeps, &watch, |references| {
                told = deaf.told(references, &asked);
                if deaf.is_news(repo, &told) { Listing::New } else { Listing::Same }
            });
            received += watch.received();
            match pulled {
                Ok(listing) => {
                    // Who has nothing there any more is not left out.
                    self.deaf.refused.retain(|host, _| told.listed.contains_key(host) || !hosts.contains(host));
                    if listing == Listing::New {
                        heard = Heard::News;
                        self.deaf.take_in(&self.repo, &told);
                        self.refresh(remote, true)?;
                    }
                }
                Err(failure) if !failure.is_theirs(told.has_answered) => {
                    let error = failure.text();
                    tracing::warn!(remote = %remote.url, error, "the signs of life of the other hosts could not be fetched");
                    groups.push(Group { hosts, is_suspect });
                    self.deaf.keep_suspects(groups);
                    return Ok((Heard::Nothing, received));
                }
                Err(failure) => match &hosts[..] {
                    [host] if failure.is_too_much() || !tried.insert(host.clone()) => {
                        let none = ObjectId::null(gix::hash::Kind::Sha1);
                        self.deaf.refuse(host, told.signs.get(host).copied().unwrap_or(none), &failure.text());
                    }
                    [_] => groups.push(Group { hosts, is_suspect: true }),
                    _ => {
                        let (one, other) = hosts.split_at(hosts.len() / 2);
                        let half = |hosts: &[HostName]| Group { hosts: hosts.to_vec(), is_suspect: true };
                        groups.extend([half(other), half(one)]);
                    }
                },
            }
        }
        let is_complete = groups.iter().all(|group| group.is_suspect);
        self.deaf.keep_suspects(groups);
        Ok((if is_complete { heard } else { Heard::Nothing }, received))
    }
}

impl Deaf {
    fn keep_suspects(&mut self, groups: Vec<Group>) {
        // Who is refused is asked for again by that.
        let unknown = |group: Group| -> Vec<HostName> {
            group.hosts.into_iter().filter(|host| !self.refused.contains_key(host)).collect()
        };
        let groups = groups.into_iter().filter(|group| group.is_suspect).map(unknown);
        let groups: Vec<Vec<HostName>> = groups.filter(|group| !group.is_empty()).collect();
        self.suspects.extend(groups);
    }
}

fn specs<'h>(hosts: impl Iterator<Item = &'h HostName>) -> Vec<String> {
    hosts.map(|host| format!("+{SEEN}{host}:{HEARD}{host}")).collect()
}

/// Returns a remote that may send no more than the signs of life of so many hosts take, most of which are short.
fn few(remote: &Remote, hosts: usize) -> Remote {
    let bytes = remote.whole.bytes.min(AROUND.0 + MAX_SIGN + USUAL * hosts as u64);
    let objects = remote.whole.objects.min(AROUND.1 + 2 * hosts);
    Remote { slack: remote.slack, ..remote.clone().within(Bounds { bytes, objects, unpacked: 4 * bytes }) }
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
