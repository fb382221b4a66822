//! What the other hosts said, as far as this one looked at them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spec::digest::Digest;
use spec::id::{AppName, HostName};
use spec::manifest::SILENT_AFTER;
use spec::memory::AppState;
use spec::record::Record;
use spec::rollout::{Intent, Look, Peer, Scheme};
use tracing::debug;

use super::kept::{Heard, Kept};
use crate::ears::{Hearing, Keys};
use crate::git::Peers;

/// The other hosts, and what the repository showed of this one while it was asked for them.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// What they said and when they were heard, and of which sign the record of each was read.
    pub(super) peers: BTreeMap<HostName, Peer>,
    read: BTreeMap<HostName, String>,
    /// With which keys they were heard.
    keys: Keys,
    /// When all that take part were asked for last.
    pub(super) view: Option<Timestamp>,
    /// What this host's own record said by then, as others read it.
    shown: Option<Record>,
    /// The releases since which everybody was asked for, so that it is known which hosts have what they are not to have.
    surveyed: BTreeMap<AppName, Digest>,
    /// Who was looked at since it was noted last for how long the others have been at it.
    pub(super) looked_at: Option<Peers>,
}

impl Others {
    /// Takes in what is heard of `whom`, who were asked for at `asked` by the host `me`.
    pub(super) fn look(
        &mut self,
        (me, kept): (&HostName, &mut Kept),
        hearing: &mut Hearing<'_>,
        scheme: &Scheme,
        (whom, asked): (&Peers, Timestamp),
        now: Timestamp,
    ) {
        self.forget_renamed(kept, hearing.keys);
        let heard = hearing.values(whom);
        let known = |host: &HostName| scheme.fleet.hosts.contains_key(host) && host != me;
        let strangers = heard.keys().filter(|host| *host != me && !known(host)).count();
        if strangers > 0 {
            debug!(strangers, "records of hosts that are not in the fleet are left out");
        }
        kept.heard.retain(|host, _| known(host));
        self.peers.retain(|host, _| known(host));
        for (host, value) in heard.into_iter().filter(|(host, _)| known(host)) {
            if kept.heard.get(&host).is_none_or(|before| before.value != value) {
                kept.heard.insert(host.clone(), Heard { value: value.clone(), at: now });
            }
            let at = kept.heard[&host].at;
            if self.read.get(&host) != Some(&value) {
                let record = hearing.record(&host);
                let before = self.peers.remove(&host).and_then(|peer| peer.record);
                self.peers.insert(host.clone(), Peer { record: record.or(before), heard: at });
                self.read.insert(host.clone(), value);
            }
            if let Some(peer) = self.peers.get_mut(&host) {
                peer.heard = at;
            }
        }
        self.looked_at = Some(whom.clone());
        let is_view = match whom {
            Peers::All => {
                self.surveyed = kept.releases.iter().map(|(app, it)| (app.clone(), it.release)).collect();
                true
            }
            Peers::Some(hosts) => {
                self.is_surveyed(scheme, kept)
                    && self.taking_part(scheme).all(|host| host == me || hosts.contains(host))
            }
        };
        if is_view {
            self.view = Some(asked);
            self.shown = hearing.record(me);
        }
    }

    /// Forgets what hosts said whose keys are others by now: what was heard without a key, or with an old one, may be anybody's word.
    fn forget_renamed(&mut self, kept: &mut Kept, keys: &Keys) {
        if self.keys == *keys {
            return;
        }
        let names: BTreeSet<HostName> = self.keys.keys().chain(keys.keys()).cloned().collect();
        for host in names.iter().filter(|host| self.keys.get(*host) != keys.get(*host)) {
            if self.peers.remove(host).is_some() {
                kept.heard.remove(host);
            }
            self.read.remove(host);
        }
        self.keys.clone_from(keys);
    }

    /// Says how to ask for those who are to be looked at by the host `me`.
    pub(super) fn ask(&self, look: &Look, (me, kept): (&HostName, &Kept), scheme: &Scheme) -> Option<Peers> {
        let hosts: BTreeSet<HostName> = match look {
            Look::Nobody => return None,
            Look::At { hosts, .. } => hosts.clone(),
            Look::All if !self.is_surveyed(scheme, kept) => return Some(Peers::All),
            // And itself: it has to see what it announced.
            Look::All => self.taking_part(scheme).chain([me]).cloned().collect(),
        };
        // By their names they take more room than all that there are.
        Some(if hosts.len() > scheme.fleet.hosts.len() / 2 { Peers::All } else { Peers::Some(hosts) })
    }

    fn is_surveyed(&self, scheme: &Scheme, kept: &Kept) -> bool {
        let release = |app: &AppName| kept.releases.get(app).map(|spreading| spreading.release);
        scheme.coordinated().all(|app| self.surveyed.get(app).copied() == release(app))
    }

    /// Names the hosts that take part in what is coordinated, as far as they are known, some of them more than once: those that are
    /// to have it, and those that have it.
    pub(super) fn taking_part<'a>(&'a self, scheme: &'a Scheme) -> impl Iterator<Item = &'a HostName> {
        let placed = scheme.coordinated().filter_map(|app| scheme.targets(app)).flat_map(BTreeMap::keys);
        let has_one = |record: &Record| scheme.coordinated().any(|app| record.apps.contains_key(app));
        let leaving = self.peers.iter().filter(move |(_, peer)| peer.record.as_ref().is_some_and(has_one));
        placed.chain(leaving.map(|(host, _)| host))
    }

    /// Says whether the look at the others showed that this host announces a change: this very time, since it may have taken the
    /// same announcement back before. Where the repository never shows what it took, it cannot be waited for longer than others are.
    pub(super) fn show(&self, app: &AppName, intent: &Intent, silent_after: Option<Duration>) -> bool {
        let Some(shown) = &self.shown else {
            let patience = SignedDuration::try_from(silent_after.unwrap_or(SILENT_AFTER));
            let patience = patience.unwrap_or(SignedDuration::MAX);
            let since_then = |pushed| self.view.map(|view| view.duration_since(pushed));
            return intent.pushed.and_then(since_then).is_some_and(|passed| passed > patience);
        };
        shown.apps.get(app).is_some_and(|said| {
            let is_it = said.state == AppState::Applying && said.since == intent.since;
            is_it && intent.release.is_none_or(|release| release == said.digest)
        })
    }

    /// Takes back what a clock said that was ahead.
    pub(super) fn not_after(&mut self, now: Timestamp) {
        self.peers.values_mut().for_each(|peer| peer.heard = peer.heard.min(now));
        self.view = self.view.filter(|view| *view <= now);
    }
}
