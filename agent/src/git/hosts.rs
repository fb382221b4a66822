//! What all hosts of a fleet have said last: the newest note of each, and its heartbeat. Reads refs by the thousand, without a
//! process or a listing for each.

use std::collections::BTreeMap;
use std::num::NonZero;

use gix::ObjectId;
use jiff::Timestamp;
use spec::id::{CommitId, HostName};

use super::error::GitError;
use super::fetch::{NOTES, PEERS};
use super::history::{differing, parent};
use super::mirror::{Mirror, Source};
use super::notes::{blob_at, notes_tree};

/// Where heartbeats are.
pub(super) const SEEN: &str = "refs/mainstay/seen/";
/// How many commits of a host's notes are looked at until one of them holds something that can be used.
const LOOKED_AT: usize = 5;
/// A commit of notes changes one of them; one that was carried over from elsewhere may change many.
const MOST_CHANGED: usize = 100;
/// More threads than this do not read faster.
const MOST_THREADS: usize = 8;
/// The longest commit that is read as a heartbeat.
const MAX_HEARTBEAT: u64 = 4 << 10;

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
    /// none of them, those of the commit before, and so on.
    ///
    /// # Errors
    /// The refs cannot be read. What cannot be read of one host is no error: others wrote it.
    pub fn newest_notes<T: Send>(
        &self,
        read: impl Fn(&HostName, &[String]) -> Option<T> + Sync,
    ) -> Result<Newest<T>, GitError> {
        let (mut tips, mut nameless) = (BTreeMap::new(), 0);
        // Others' notes in the mirror of a host lie apart from its own, which count more.
        for prefix in [PEERS, NOTES] {
            nameless += self.tips(prefix, &mut tips)?;
        }
        let tips: Vec<(HostName, ObjectId)> = tips.into_iter().collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let shared = self.repo.clone().into_sync();
        let hosts = std::thread::scope(|scope| {
            let parts = tips.chunks(tips.len().div_ceil(threads).max(1)).map(|part| {
                let (shared, read) = (&shared, &read);
                scope.spawn(move || {
                    let repo = shared.to_thread_local();
                    let newest = |(host, tip): &(HostName, ObjectId)| (host.clone(), newest(&repo, host, *tip, read));
                    part.iter().map(newest).collect::<Vec<_>>()
                })
            });
            let parts: Vec<_> = parts.collect();
            // A thread that panics has found what must not happen, and so have we.
            parts.into_iter().flat_map(|part| part.join().expect("reading does not panic")).collect()
        });
        Ok(Newest { hosts, nameless })
    }

    /// Reads the heartbeat of every host; what cannot be read is left out.
    ///
    /// # Errors
    /// The refs cannot be read.
    pub fn heartbeats(&self) -> Result<BTreeMap<HostName, Heartbeat>, GitError> {
        let mut tips = BTreeMap::new();
        self.tips(SEEN, &mut tips)?;
        Ok(tips.into_iter().filter_map(|(host, tip)| Some((host, heartbeat(&self.repo, tip)?))).collect())
    }

    /// Says when the last note of each host was written, by the host's own clock.
    ///
    /// # Errors
    /// The refs cannot be read.
    pub fn last_written(&self) -> Result<BTreeMap<HostName, Timestamp>, GitError> {
        let mut tips = BTreeMap::new();
        for prefix in [PEERS, NOTES] {
            self.tips(prefix, &mut tips)?;
        }
        let at = |tip| Timestamp::from_second(self.repo.find_commit(tip).ok()?.committer().ok()?.seconds()).ok();
        Ok(tips.into_iter().filter_map(|(host, tip)| Some((host, at(tip)?))).collect())
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
    host: &HostName,
    tip: ObjectId,
    read: &impl Fn(&HostName, &[String]) -> Option<T>,
) -> Option<T> {
    let mut tip = Some(tip);
    for _ in 0..LOOKED_AT {
        let commit = tip?;
        let root = notes_tree(repo, commit).ok()?;
        tip = parent(repo, commit).ok()?;
        let before = tip.and_then(|before| notes_tree(repo, before).ok());
        let mut changed = Vec::new();
        differing(repo, root, before, MOST_CHANGED, &mut changed).ok()?;
        let texts = changed.into_iter().filter_map(|blob| String::from_utf8(blob_at(repo, blob).ok()?).ok());
        let texts: Vec<String> = texts.collect();
        if let Some(found) = read(host, &texts) {
            return Some(found);
        }
    }
    None
}

fn heartbeat(repo: &gix::Repository, tip: ObjectId) -> Option<Heartbeat> {
    if repo.find_header(tip).ok()?.size() > MAX_HEARTBEAT {
        return None;
    }
    let commit = repo.find_commit(tip).ok()?;
    let at = Timestamp::from_second(commit.committer().ok()?.seconds()).ok()?;
    let message = String::from_utf8_lossy(commit.message_raw().ok()?).into_owned();
    let believed = message.split_whitespace().next_back().and_then(|word| CommitId::parse(word).ok());
    Some(Heartbeat { at, believed })
}
