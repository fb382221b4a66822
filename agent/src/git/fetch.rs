//! Following a branch: asking its remote what it has, and taking over what is new.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use spec::id::{CommitId, HostName};

use super::apart::Listing;
use super::connect::Kept;
use super::error::{Failure, FetchError};
use super::hear::{Asked, Told};
use super::link::Named;
use super::mirror::{INCOMING, Mirror, TIP, beside, commit_id, find, load, object_id, remove, set};
use super::pull::{local, pull, text};
use super::remote::{Bounds, Deadlines, Remote};
use super::signs::{Heard, Peers};
use super::tree::is_complete;
use super::wire::Watch;

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The branch's tip.
    pub tip: CommitId,
    /// Whether it is another than before.
    pub changed: bool,
    /// Whether the mirror was damaged and is a new one.
    pub renewed: bool,
    /// Bytes received, for the metrics.
    pub received: u64,
}

impl Mirror {
    /// Brings the branch of `remote` up to date. An unchanged tip costs one list of one ref.
    ///
    /// Only the branch itself is asked for, with its whole history: ancestry is checked and notes are read on it. When
    /// the mirror turns out to be damaged, a fresh one is fetched beside it and takes its place, with the notes.
    ///
    /// # Errors
    /// See [`FetchError`]; the mirror still has what it had.
    pub fn fetch(
        &mut self,
        remote: &Remote,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<Fetched, FetchError> {
        self.fetch_with(remote, None, deadlines, cancel).map(|(fetched, _)| fetched)
    }

    /// The same, and, in the same conversation, the signs of life of `peers`, to be read with [`Mirror::heard`] and
    /// [`Mirror::record_heard`]. Whatever is wrong with those, the branch is followed.
    ///
    /// # Errors
    /// See [`Mirror::fetch`].
    pub fn fetch_with(
        &mut self,
        remote: &Remote,
        peers: Option<&Peers>,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<(Fetched, Heard), FetchError> {
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_fetch(remote.url.to_string()))?;
        self.slack = remote.slack;
        self.make_room(remote.whole)
            .map_err(|error| FetchError::Local { path: self.dir.clone(), source: Box::new(error) })?;
        let (remote, bounds) = self.bounded(remote);
        let watch = Watch::new(deadlines, bounds, cancel);
        let kept = std::mem::take(&mut self.kept);
        let fetched = self.fetch_or_renew(&remote, peers, &kept, &watch);
        self.kept = kept;
        fetched
    }

    /// Returns the remote, and what one conversation with it may bring, as they follow from what is here.
    fn bounded(&self, remote: &Remote) -> (Remote, Bounds) {
        match self.tip() {
            // What is damaged says nothing of how large it should be.
            Some(_) if self.suspect.get() => (remote.clone(), remote.growth),
            Some(_) => (remote.known_to_have(self.size()), remote.growth),
            None => (remote.clone(), remote.whole),
        }
    }

    fn fetch_or_renew(
        &mut self,
        remote: &Remote,
        peers: Option<&Peers>,
        kept: &Kept,
        watch: &Watch<'_>,
    ) -> Result<(Fetched, Heard), FetchError> {
        let before = self.tip();
        if !self.suspect.get() {
            let (mut pulled, told) = self.pull_with(remote, peers, kept, watch);
            let (mut whom, mut is_heard) = (Vec::new(), true);
            if let (Err(failure), Some(peers)) = (&pulled, peers)
                && !failure.is_cancelled()
                && (told.has_answered || failure.is_too_much())
            {
                // It may be theirs; the branch alone is asked for by its name.
                let error = failure.text();
                tracing::warn!(remote = %remote.url, error, "the branch is asked for without the signs of life of the other hosts");
                // What they took of the time and the bytes is not the branch's.
                let again = Watch::new(&watch.deadlines, watch.bounds, watch.cancel);
                pulled = self.pull_with(remote, None, kept, &again).0;
                watch.note(again.received());
                if pulled.is_ok() {
                    whom = self.deaf.one_by_one(&self.repo, &told, peers);
                }
                is_heard = false;
            } else if let (Ok(_), Some(peers)) = (&pulled, peers) {
                whom = self.deaf.again(&told, peers);
            }
            match pulled {
                Ok((tip, mut heard)) => {
                    let changed = before.as_ref() != Some(&tip);
                    self.refresh(remote, changed || heard == Heard::News)?;
                    if !whom.is_empty() {
                        let (more, received) = self.listen(remote, whom, kept, (&watch.deadlines, watch.cancel))?;
                        watch.note(received);
                        heard = if is_heard { heard.or(more) } else { more };
                    }
                    let fetched = Fetched { tip, changed, renewed: false, received: watch.received() };
                    return Ok((fetched, heard));
                }
                Err(Failure::Plain(error)) => return Err(error),
                Err(Failure::Odd(error)) => {
                    tracing::warn!(remote = %remote.url, error = text(&*error), "fetch failed oddly, renewing the mirror");
                }
            }
        }
        let anew = Watch::new(&watch.deadlines, remote.whole, watch.cancel);
        let tip = self.renew(remote, kept, &anew)?;
        watch.note(anew.received());
        tracing::info!(remote = %remote.url, commit = %tip, "mirror renewed");
        let changed = before.as_ref() != Some(&tip);
        Ok((Fetched { changed, tip, renewed: true, received: watch.received() }, Heard::Nothing))
    }

    /// Has the conversation about the branch, and the signs of life of `peers`.
    fn pull_with(
        &mut self,
        remote: &Remote,
        peers: Option<&Peers>,
        kept: &Kept,
        watch: &Watch<'_>,
    ) -> (Result<(CommitId, Heard), Failure>, Told) {
        let (repo, deaf, mut told) = (&self.repo, &self.deaf, Told::default());
        let asked = peers.map(|peers| deaf.ask(repo, peers)).unwrap_or_else(Asked::nobody);
        let mut heard = if peers.is_some() { Heard::Same } else { Heard::Nothing };
        let pulled = pull_branch(repo, remote, &asked.specs, kept, watch, |references| {
            told = deaf.told(references, &asked);
            deaf.bound(&told, remote)?;
            if deaf.is_news(repo, &told) {
                heard = Heard::News;
            }
            Ok(heard == Heard::News)
        });
        if pulled.is_ok() && heard == Heard::News {
            self.deaf.take_in(&self.repo, &told);
        }
        (pulled.map(|tip| (tip, heard)), told)
    }

    /// Opens the repository again when a pack came in: gix has a fixed number of slots for packs, and keeps maps of files
    /// that it no longer needs.
    pub(super) fn refresh(&mut self, remote: &Remote, received: bool) -> Result<(), FetchError> {
        if !received {
            return Ok(());
        }
        tracing::debug!(remote = %remote.url, "objects received");
        self.reload().map_err(|error| FetchError::Local { path: self.dir.clone(), source: Box::new(error) })
    }

    /// Fetches a whole new mirror beside this one, carries the notes over, and puts it into place.
    fn renew(&mut self, remote: &Remote, kept: &Kept, watch: &Watch<'_>) -> Result<CommitId, FetchError> {
        let local = |source| FetchError::Local { path: self.dir.clone(), source };
        let fresh = beside(&self.dir, "new");
        remove(&fresh).map_err(|error| local(Box::new(error)))?;
        let repo = load(&fresh).map_err(local)?;
        let pulled = pull_branch(&repo, remote, &[], kept, watch, |_| Ok(false)).and_then(|tip| {
            // A server that withholds objects would otherwise be cloned again with every poll, in place of what we have.
            is_complete(&repo, object_id(&tip)).map_err(Failure::Odd)?;
            Ok(tip)
        });
        let tip = match pulled {
            Ok(tip) => tip,
            Err(failure) => {
                if let Err(error) = remove(&fresh) {
                    tracing::warn!(path = %fresh.display(), %error, "failed to remove an unfinished mirror");
                }
                return Err(match failure {
                    Failure::Plain(error) => error,
                    Failure::Odd(source) => FetchError::Corrupt { url: remote.url.to_string(), source },
                });
            }
        };
        self.carry_notes(&repo).map_err(local)?;
        drop(repo);
        self.replace_by(&fresh)
            .map_err(|error| FetchError::Local { path: self.dir.clone(), source: Box::new(error) })?;
        self.reload().map_err(|error| FetchError::Local { path: self.dir.clone(), source: Box::new(error) })?;
        self.suspect.set(false);
        Ok(tip)
    }

    /// Fetches the signs of life of `peers` from a remote that is not the branch's.
    ///
    /// # Errors
    /// See [`FetchError`]; what was known stays known.
    pub fn fetch_peers(
        &mut self,
        remote: &Remote,
        peers: &Peers,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<Heard, FetchError> {
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_fetch(remote.url.to_string()))?;
        let (remote, bounds) = self.bounded(remote);
        let kept = std::mem::take(&mut self.kept);
        let heard = self.ask_for(&remote, peers, &kept, &Watch::new(deadlines, bounds, cancel));
        self.kept = kept;
        heard
    }

    fn ask_for(&mut self, remote: &Remote, peers: &Peers, kept: &Kept, watch: &Watch<'_>) -> Result<Heard, FetchError> {
        let (repo, deaf, mut told) = (&self.repo, &self.deaf, Told::default());
        let asked = deaf.ask(repo, peers);
        let pulled = match asked.specs.is_empty() {
            true => Ok(Listing::Same),
            false => pull(repo, remote, &asked.specs, kept, watch, |references| {
                told = deaf.told(references, &asked);
                let is_news = deaf.bound(&told, remote).is_ok() && deaf.is_news(repo, &told);
                if is_news { Listing::New } else { Listing::Same }
            }),
        };
        let pulled = pulled.and_then(|listing| deaf.bound(&told, remote).map(|()| listing));
        let (heard, whom) = match pulled {
            Ok(listing) => {
                let heard = if listing == Listing::New { Heard::News } else { Heard::Same };
                if heard == Heard::News {
                    self.deaf.take_in(&self.repo, &told);
                    self.refresh(remote, true)?;
                }
                (Some(heard), self.deaf.again(&told, peers))
            }
            Err(failure) if failure.is_theirs(told.has_answered) => {
                (None, self.deaf.one_by_one(&self.repo, &told, peers))
            }
            Err(Failure::Plain(error)) => return Err(error),
            Err(Failure::Odd(source)) => return Err(FetchError::Corrupt { url: remote.url.to_string(), source }),
        };
        if whom.is_empty() {
            return Ok(heard.unwrap_or(Heard::Nothing));
        }
        let (more, _) = self.listen(remote, whom, kept, (&watch.deadlines, watch.cancel))?;
        Ok(heard.map_or(more, |heard| heard.or(more)))
    }

    /// Names the hosts of the fleet, which are asked for by name where a list of everybody cannot be had.
    pub fn expect(&mut self, members: BTreeSet<HostName>) {
        self.deaf.expect(members);
    }

    /// Names the hosts where something stands that is no sign of life, or cannot be had.
    pub fn deaf_to(&self) -> impl Iterator<Item = &HostName> {
        self.deaf.refused.keys()
    }

    /// Says how many things stood where a sign of life belongs, since this process began, that were none or could not be had.
    pub fn left_out(&self) -> u64 {
        self.deaf.count()
    }
}

/// Brings `repo`'s tip up to date, with what `specs` ask for too, and returns it. `judge` looks at the list, and says whether there is
/// anything new beside the branch.
fn pull_branch(
    repo: &gix::Repository,
    remote: &Remote,
    specs: &[String],
    kept: &Kept,
    watch: &Watch<'_>,
    mut judge: impl FnMut(&[Named]) -> Result<bool, Failure>,
) -> Result<CommitId, Failure> {
    let branch = remote.branch.full();
    let known = find(repo, TIP).map_err(Failure::Odd)?;
    let mut all = vec![format!("+{branch}:{INCOMING}")];
    all.extend_from_slice(specs);
    let (mut tip, mut refused) = (None, None);
    let listing = pull(repo, remote, &all, kept, watch, |references| {
        tip = references.iter().find(|named| named.name == branch).map(|named| named.id.0);
        let is_news = judge(references).unwrap_or_else(|failure| {
            refused = Some(failure);
            false
        });
        match tip {
            _ if refused.is_some() => Listing::Same,
            None => Listing::Missing,
            Some(tip) if known == Some(tip) && !is_news && repo.find_commit(tip).is_ok() => Listing::Same,
            Some(_) => Listing::New,
        }
    })?;
    if let Some(failure) = refused {
        return Err(failure);
    }
    let missing = || {
        let (url, branch) = (remote.url.to_string(), remote.branch.to_string());
        Failure::Plain(FetchError::RefMissing { url, branch })
    };
    let tip = tip.ok_or_else(missing)?;
    if listing == Listing::New {
        take_over(repo, tip)?;
    }
    Ok(commit_id(tip))
}

/// Makes what came in the tip. One that is no commit, or came without its tree, must not become ours.
fn take_over(repo: &gix::Repository, tip: ObjectId) -> Result<(), Failure> {
    let commit = repo.find_commit(tip).map_err(|error| Failure::Odd(error.into()))?;
    commit.tree().map_err(|error| Failure::Odd(error.into()))?;
    set(repo, TIP, tip).map_err(|source| Failure::Plain(local(repo, source)))
}
