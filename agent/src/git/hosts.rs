//! What all hosts of a fleet have said last: the newest note of each, and its heartbeat. Reads refs by the thousand, without a
//! process or a listing for each.

use std::collections::BTreeMap;
use std::num::NonZero;

use gix::ObjectId;
use jiff::Timestamp;
use spec::id::{CommitId, HostName};

use super::error::GitError;
use super::history::differing;
use super::mirror::{Mirror, Source, find};
use super::notes::{NOTES, blob_at, notes_commit};
use super::signs::{HEARD, MAX_SIGN, Peers, SEEN};

/// How many commits of a host's notes are looked at until one of them holds something that can be used.
const LOOKED_AT: usize = 5;
/// A commit of notes changes one of them; one that was carried over from elsewhere may change many.
const MOST_CHANGED: usize = 100;
/// More threads than this do not read faster.
const MOST_THREADS: usize = 8;

/// What the refs of all hosts hold.
#[derive(Debug)]
pub struct Newest<T> {
    /// What each host said last; `None` where nothing of it can be used.
    pub hosts: BTreeMap<HostName, Option<T>>,
    /// How many refs are no host's by their names.
    pub nameless: usize,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// When, by the host's own clock.
    pub at: Timestamp,
    /// The commit that the host believed then, where the heartbeat says so.
    pub believed: Option<CommitId>,
}

impl Mirror {
    /// Reads the newest note of every host: those that the last commit of its ref changed are handed to `read`, and if it can use
    /// none of them, those of the commit before, and so on. One that `known` returns is compared and not read.
    ///
    /// # Errors
    /// The refs cannot be read. What cannot be read of one host is no error: others wrote it.
    pub fn newest_notes<'k, T: Send>(
        &self,
        known: impl Fn(&HostName) -> Option<&'k str> + Sync,
        read: impl Fn(&HostName, &[String]) -> Option<T> + Sync,
    ) -> Result<Newest<T>, GitError> {
        let mut tips = BTreeMap::new();
        let nameless = self.tips(NOTES, &mut tips)?;
        let hosts = self.each(tips, |repo, host, tip| newest(repo, tip, known(host), |texts| read(host, texts)));
        Ok(Newest { hosts, nameless })
    }

    /// Reads the sign of life of every host with `read`, which is given its text too; what cannot be read is left out.
    ///
    /// # Errors
    /// The refs cannot be read.
    pub fn heartbeats<T: Send>(
        &self,
        read: impl Fn(&HostName, Heartbeat, &str) -> Option<T> + Sync,
    ) -> Result<BTreeMap<HostName, T>, GitError> {
        let mut tips = BTreeMap::new();
        self.tips(SEEN, &mut tips)?;
        let found = self.each(tips, |repo, host, tip| {
            let (at, said) = sign_of_life(repo, tip)?;
            read(host, heartbeat(at, &said), &said)
        });
        Ok(found.into_iter().filter_map(|(host, read)| Some((host, read?))).collect())
    }

    /// Returns the last sign of life that was given here for `host`, as it stands.
    pub fn sign_given(&self, host: &HostName) -> Option<String> {
        let tip = find(&self.repo, &format!("{SEEN}{host}")).ok().flatten()?;
        sign_of_life(&self.repo, tip).map(|(_, said)| said)
    }

    /// Works on what refs point to, on as many threads as read faster than one.
    fn each<T: Send>(
        &self,
        tips: BTreeMap<HostName, ObjectId>,
        work: impl Fn(&gix::Repository, &HostName, ObjectId) -> Option<T> + Sync,
    ) -> BTreeMap<HostName, Option<T>> {
        let tips: Vec<(HostName, ObjectId)> = tips.into_iter().collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let shared = self.repo.clone().into_sync();
        std::thread::scope(|scope| {
            let parts = tips.chunks(tips.len().div_ceil(threads).max(1)).map(|part| {
                let (shared, work) = (&shared, &work);
                scope.spawn(move || {
                    let repo = shared.to_thread_local();
                    let done = |(host, tip): &(HostName, ObjectId)| (host.clone(), work(&repo, host, *tip));
                    part.iter().map(done).collect::<Vec<_>>()
                })
            });
            let parts: Vec<_> = parts.collect();
            // A thread that panics has found what must not happen, and so have we.
            parts.into_iter().flat_map(|part| part.join().expect("reading does not panic")).collect()
        })
    }

    /// Says when the last note of each host was written, by the host's own clock.
    ///
    /// # Errors
    /// The refs cannot be read.
    pub fn last_written(&self) -> Result<BTreeMap<HostName, Timestamp>, GitError> {
        let mut tips = BTreeMap::new();
        self.tips(NOTES, &mut tips)?;
        let at = |tip| Timestamp::from_second(self.repo.find_commit(tip).ok()?.committer().ok()?.seconds()).ok();
        Ok(tips.into_iter().filter_map(|(host, tip)| Some((host, at(tip)?))).collect())
    }

    /// Returns what the sign of life of each of these hosts is known by, as far as it has come: another value is another sign.
    pub fn heard(&self, whom: &Peers) -> BTreeMap<HostName, String> {
        match whom {
            Peers::All => {
                let mut tips = BTreeMap::new();
                if let Err(error) = self.tips(HEARD, &mut tips) {
                    tracing::warn!(error = crate::chain(&error), "the signs of life of the other hosts cannot be read");
                }
                tips.into_iter().map(|(host, tip)| (host, tip.to_string())).collect()
            }
            Peers::Some(hosts) => {
                let tip = |host: &HostName| find(&self.repo, &format!("{HEARD}{host}")).ok().flatten();
                hosts.iter().filter_map(|host| Some((host.clone(), tip(host)?.to_string()))).collect()
            }
        }
    }

    /// Returns the record that a host's last sign of life has in it, if there is one; others wrote it, so anything may be there.
    pub fn record_heard(&self, host: &HostName) -> Option<String> {
        self.sign_heard(host)?.split_once("\n\n").map(|(_, record)| record.to_owned())
    }

    /// Returns a host's last sign of life as it stands there; others wrote it, so anything may be there.
    pub fn sign_heard(&self, host: &HostName) -> Option<String> {
        let tip = find(&self.repo, &format!("{HEARD}{host}")).ok().flatten()?;
        sign_of_life(&self.repo, tip).map(|(_, said)| said)
    }

    /// Says when the newest of them was given, by its host's own clock.
    pub fn heard_last(&self) -> Option<Timestamp> {
        let mut tips = BTreeMap::new();
        self.tips(HEARD, &mut tips).ok()?;
        tips.values().filter_map(|tip| Some(sign_of_life(&self.repo, *tip)?.0)).max()
    }

    /// Collects the tips of the refs below `prefix` by the hosts that they are named after, and counts the others.
    fn tips(&self, prefix: &str, tips: &mut BTreeMap<HostName, ObjectId>) -> Result<usize, GitError> {
        let failed = |source: Source| self.failed("list the refs of the hosts", source);
        let references = self.repo.references().map_err(|error| failed(error.into()))?;
        let mut nameless = 0;
        for reference in references.prefixed(prefix).map_err(|error| failed(error.into()))? {
            // One that is damaged hides none of the others.
            let host = reference.ok().and_then(|reference| {
                let name = reference.name().as_bstr().to_string();
                let host = HostName::parse(name.strip_prefix(prefix)?).ok()?;
                Some((host, reference.target().try_id()?.to_owned()))
            });
            match host {
                Some((host, tip)) => drop(tips.insert(host, tip)),
                None => nameless += 1,
            }
        }
        Ok(nameless)
    }
}

fn newest<T>(
    repo: &gix::Repository,
    tip: ObjectId,
    known: Option<&str>,
    read: impl Fn(&[String]) -> Option<T>,
) -> Option<T> {
    let id = |text: &str| gix::objs::compute_hash(repo.object_hash(), gix::objs::Kind::Blob, text.as_bytes()).ok();
    let known = known.and_then(|text| Some((id(text)?, text)));
    let mut commit = notes_commit(repo, tip).ok();
    for _ in 0..LOOKED_AT {
        let (root, parent) = commit?;
        let before = parent.and_then(|before| notes_commit(repo, before).ok());
        let mut changed = Vec::new();
        let folder = before.map(|(tree, _)| tree);
        if differing(repo, root, folder, MOST_CHANGED, &mut changed).is_err() {
            // What was there before may be anything; what is there now counts.
            changed.clear();
            differing(repo, root, None, MOST_CHANGED, &mut changed).ok()?;
        }
        let text = |blob| match known {
            Some((id, text)) if id == blob => Some(text.to_owned()),
            _ => String::from_utf8(blob_at(repo, blob).ok()?).ok(),
        };
        let texts: Vec<String> = changed.into_iter().filter_map(text).collect();
        if let Some(found) = read(&texts) {
            return Some(found);
        }
        commit = before;
    }
    None
}

fn heartbeat(at: Timestamp, message: &str) -> Heartbeat {
    let said = message.lines().next().unwrap_or_default();
    let believed = said.split_whitespace().next_back().and_then(|word| CommitId::parse(word).ok());
    // What is in the text may be signed; the times of the commit around it never are.
    Heartbeat { at: said_by(message).map_or(at, |(_, at)| at), believed }
}

/// Reads in a sign of life who gave it, and when: `mainstay: attic seen at 2026-11-20T18:40:12Z, at 1f2e…`.
pub fn said_by(message: &str) -> Option<(&str, Timestamp)> {
    let rest = message.lines().next()?.strip_prefix("mainstay: ")?;
    let (who, rest) = rest.split_once(" seen at ")?;
    let (at, _) = rest.split_once(", at ")?;
    Some((who, at.parse().ok()?))
}

/// Returns when a host gave a sign of life, by its own clock, and what it said.
fn sign_of_life(repo: &gix::Repository, tip: ObjectId) -> Option<(Timestamp, String)> {
    if repo.find_header(tip).ok()?.size() > MAX_SIGN {
        return None;
    }
    let commit = repo.find_commit(tip).ok()?;
    let at = Timestamp::from_second(commit.committer().ok()?.seconds()).ok()?;
    Some((at, std::str::from_utf8(commit.message_raw().ok()?).ok()?.to_owned()))
}
