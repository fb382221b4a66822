//! Asking a remote what it has, and taking over what is new.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::progress::Discard;
use gix::protocol::handshake::Ref;
use gix::protocol::transport::Service;
use spec::digest::Digest;
use spec::id::{CommitId, HostName, shown};

use super::apart::{self, Listing};
use super::connect::{Kept, connect};
use super::error::{Cap, Deadline, Failure, FetchError, Verdict, because};
use super::link::{Id, Named};
use super::meter::{Meter, Stopped};
use super::mirror::{Mirror, Source, TIP, beside, commit_id, find, load, object_id, remove, set};
use super::opening::{Guess, Held, Opening};
use super::remote::{Deadlines, Remote};
use super::tree::is_complete;
use super::wire::Watch;

/// Where a fetched tip waits until it was looked at.
const INCOMING: &str = "refs/mainstay/incoming";

/// Where other hosts' signs of life are kept: apart from ours, so that nothing a remote sends overwrites what we report.
pub(super) const HEARD: &str = "refs/mainstay/heard/";

/// Where signs of life are published.
pub(super) const SEEN: &str = "refs/mainstay/seen/";

/// Where notes are published.
pub(super) const NOTES: &str = "refs/notes/mainstay/";

/// The most that a list of refs may take, in bytes: some 200 000 refs.
const MAX_LISTING: u64 = 16 << 20;

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

/// Whose signs of life are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Those of these hosts; who never gave one is left out.
    Some(BTreeSet<HostName>),
    /// Everybody's.
    All,
}

impl Peers {
    fn specs(&self) -> Vec<String> {
        match self {
            Peers::All => vec![format!("+{SEEN}*:{HEARD}*")],
            Peers::Some(hosts) => hosts.iter().map(|host| format!("+{SEEN}{host}:{HEARD}{host}")).collect(),
        }
    }
}

/// What came of asking for the other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// They were not asked for, or it failed.
    Nothing,
    /// They said what is known here.
    Same,
    /// Some said something new.
    News,
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
        let watch = Watch::new(deadlines, remote.max_bytes, cancel);
        let kept = std::mem::take(&mut self.kept);
        let fetched = self.fetch_or_renew(remote, peers, &kept, &watch);
        self.kept = kept;
        fetched
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
            let pulled = match pull_branch(&self.repo, remote, peers, kept, watch) {
                // A list that has no end is theirs, too: the branch alone is asked for by its name.
                Err((failure, has_answered))
                    if peers.is_some() && !failure.is_cancelled() && (has_answered || failure.is_too_much()) =>
                {
                    let error = failure.text();
                    tracing::warn!(remote = %remote.url, error, "the signs of life of the other hosts could not be fetched");
                    // What they took of the time and the bytes is not the branch's.
                    let again = Watch::new(&watch.deadlines, watch.max_bytes(), watch.cancel);
                    let pulled = pull_branch(&self.repo, remote, None, kept, &again);
                    watch.note(again.received());
                    pulled
                }
                pulled => pulled,
            };
            match pulled {
                Ok((tip, heard)) => {
                    let changed = before.as_ref() != Some(&tip);
                    self.refresh(remote, changed || heard == Heard::News)?;
                    let fetched = Fetched { tip, changed, renewed: false, received: watch.received() };
                    return Ok((fetched, heard));
                }
                Err((Failure::Plain(error), _)) => return Err(error),
                Err((Failure::Odd(error), _)) => {
                    tracing::warn!(remote = %remote.url, error = text(&*error), "fetch failed oddly, renewing the mirror");
                }
            }
        }
        let tip = self.renew(remote, kept, watch)?;
        tracing::info!(remote = %remote.url, commit = %tip, "mirror renewed");
        let changed = before.as_ref() != Some(&tip);
        Ok((Fetched { changed, tip, renewed: true, received: watch.received() }, Heard::Nothing))
    }

    /// Opens the repository again when a pack came in: gix has a fixed number of slots for packs, and keeps maps of files
    /// that it no longer needs.
    fn refresh(&mut self, remote: &Remote, received: bool) -> Result<(), FetchError> {
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
        let pulled =
            pull_branch(&repo, remote, None, kept, watch).map_err(|(failure, _)| failure).and_then(|(tip, _)| {
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
        let url = || remote.url.to_string();
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_fetch(url()))?;
        let watch = Watch::new(deadlines, remote.max_bytes, cancel);
        let repo = &self.repo;
        let compare = |references: &[Named]| if is_news(repo, references) { Listing::New } else { Listing::Same };
        match pull(repo, remote, &peers.specs(), &self.kept, &watch, compare) {
            Ok(Listing::New) => {
                self.refresh(remote, true)?;
                Ok(Heard::News)
            }
            Ok(_) => Ok(Heard::Same),
            Err(Failure::Plain(error)) => Err(error),
            Err(Failure::Odd(source)) => Err(FetchError::Corrupt { url: url(), source }),
        }
    }
}

/// Says whether a remote has a sign of life that is not known here.
fn is_news(repo: &gix::Repository, references: &[Named]) -> bool {
    let mut signs =
        references.iter().filter_map(|Named { name, id }| Some((format!("{HEARD}{}", name.strip_prefix(SEEN)?), id.0)));
    signs.any(|(name, id)| find(repo, &name).ok().flatten() != Some(id))
}

/// Brings `repo`'s tip up to date, with the signs of life of `peers`, and returns it. With a failure goes whether the remote had
/// answered by then.
fn pull_branch(
    repo: &gix::Repository,
    remote: &Remote,
    peers: Option<&Peers>,
    kept: &Kept,
    watch: &Watch<'_>,
) -> Result<(CommitId, Heard), (Failure, bool)> {
    let branch = remote.branch.full();
    let known = find(repo, TIP).map_err(|error| (Failure::Odd(error), false))?;
    let mut specs = vec![format!("+{branch}:{INCOMING}")];
    specs.extend(peers.iter().flat_map(|peers| peers.specs()));
    let (mut tip, mut heard, mut has_answered) = (None, Heard::Nothing, false);
    let pulled = pull(repo, remote, &specs, kept, watch, |references| {
        has_answered = true;
        tip = references.iter().find(|named| named.name == branch).map(|named| named.id.0);
        if peers.is_some() {
            heard = if is_news(repo, references) { Heard::News } else { Heard::Same };
        }
        match tip {
            None => Listing::Missing,
            Some(tip) if known == Some(tip) && heard != Heard::News && repo.find_commit(tip).is_ok() => Listing::Same,
            Some(_) => Listing::New,
        }
    });
    let listing = pulled.map_err(|failure| (failure, has_answered))?;
    let missing = || {
        let (url, branch) = (remote.url.to_string(), remote.branch.to_string());
        (Failure::Plain(FetchError::RefMissing { url, branch }), false)
    };
    let tip = tip.ok_or_else(missing)?;
    if listing == Listing::New {
        take_over(repo, tip).map_err(|failure| (failure, true))?;
    }
    Ok((commit_id(tip), heard))
}

/// Makes what came in the tip. One that is no commit, or came without its tree, must not become ours.
fn take_over(repo: &gix::Repository, tip: ObjectId) -> Result<(), Failure> {
    let commit = repo.find_commit(tip).map_err(|error| Failure::Odd(error.into()))?;
    commit.tree().map_err(|error| Failure::Odd(error.into()))?;
    set(repo, TIP, tip).map_err(|source| Failure::Plain(local(repo, source)))
}

fn direct(reference: &Ref) -> Option<Named> {
    let (name, target, peeled) = reference.unpack();
    Some(Named { name: String::from_utf8(name.to_vec()).ok()?, id: Id(target.or(peeled)?.to_owned()) })
}

/// Lists what matches `specs` at `remote`, and fetches it when `judge` finds something new.
///
/// What earlier conversations taught about the opening saves an exchange. When that leads nowhere, the conversation is
/// begun anew without it, and where it never worked it is not tried a second time.
pub(super) fn pull(
    repo: &gix::Repository,
    remote: &Remote,
    specs: &[String],
    kept: &Kept,
    watch: &Watch<'_>,
    mut judge: impl FnMut(&[Named]) -> Listing,
) -> Result<Listing, Failure> {
    if let Some(fetcher) = kept.fetcher_for(remote) {
        return apart::pull(fetcher, repo, remote, specs, watch, &mut judge);
    }
    let key = Digest::of(format!("{} {}", remote.url, specs.join(" ")).as_bytes());
    let opening = kept.openings.get(&key);
    let (pulled, guess) = converse(repo, remote, specs, (kept, &opening), watch, &mut judge);
    let proven = match opening {
        Opening::Unknown | Opening::Never => {
            if opening == Opening::Unknown && pulled.is_ok() {
                kept.openings.set(&key, guess.into_opening());
            }
            return pulled;
        }
        Opening::Known { .. } if pulled.is_ok() && guess.held != Held::Confirmed => {
            tracing::debug!(remote = %remote.url, "the server answers in another protocol than before");
            kept.openings.set(&key, Opening::Never);
            return pulled;
        }
        Opening::Known { bytes, .. } if pulled.is_ok() => {
            kept.openings.set(&key, Opening::Known { bytes, proven: true });
            return pulled;
        }
        Opening::Known { proven, .. } => proven,
    };
    kept.openings.set(&key, Opening::Unknown);
    let error = match pulled {
        Err(failure) if guess.held != Held::Untried && !guess.listed && failure.may_be_the_opening() => failure,
        other => return other,
    };
    tracing::debug!(remote = %remote.url, error = error.text(), "the short opening failed, taking the long one");
    let (pulled, guess) = converse(repo, remote, specs, (kept, &Opening::Unknown), watch, &mut judge);
    if pulled.is_ok() {
        kept.openings.set(&key, if proven { guess.into_opening() } else { Opening::Never });
    }
    pulled
}

impl Failure {
    fn is_cancelled(&self) -> bool {
        matches!(self, Failure::Plain(FetchError::Cancelled { .. }))
    }

    fn is_too_much(&self) -> bool {
        matches!(self, Failure::Plain(FetchError::TooLarge { .. }))
    }

    /// Says whether another opening could have avoided this.
    fn may_be_the_opening(&self) -> bool {
        match self {
            Failure::Odd(_) => true,
            Failure::Plain(error) => matches!(
                error,
                FetchError::Unreachable { .. }
                    | FetchError::Denied { .. }
                    | FetchError::TimedOut { deadline: Deadline::Stall, .. }
            ),
        }
    }

    fn text(&self) -> String {
        match self {
            Failure::Plain(error) => text(error),
            Failure::Odd(source) => text(&**source),
        }
    }
}

/// Has one conversation, and returns what came of its opening.
fn converse(
    repo: &gix::Repository,
    remote: &Remote,
    specs: &[String],
    (kept, opening): (&Kept, &Opening),
    watch: &Watch<'_>,
    judge: &mut impl FnMut(&[Named]) -> Listing,
) -> (Result<Listing, Failure>, Guess) {
    *watch.guess.borrow_mut() = Guess::by(opening);
    let pulled = list_and_receive(repo, remote, specs, kept, watch, judge);
    (pulled, watch.guess.take())
}

fn list_and_receive(
    repo: &gix::Repository,
    remote: &Remote,
    specs: &[String],
    kept: &Kept,
    watch: &Watch<'_>,
    judge: &mut impl FnMut(&[Named]) -> Listing,
) -> Result<Listing, Failure> {
    let plain = |error: Source| Failure::Plain(unreachable(remote, watch, &*error));
    let transport = connect(remote, Service::UploadPack, kept, watch).map_err(|error| plain(error.into()))?;
    // The address is for gix's messages only; what is talked to is `transport`.
    let origin = repo
        .remote_at_without_url_rewrite("https://remote.invalid/")
        .and_then(|origin| origin.with_refspecs(specs.iter().map(String::as_str), gix::remote::Direction::Fetch))
        .map_err(|error| Failure::Odd(error.into()))?
        .with_fetch_tags(gix::remote::fetch::Tags::None);
    let connection = origin
        .to_connection_with_transport(transport)
        .with_credentials(|_| Ok(None))
        .with_transport_options(Box::new(()));
    watch.set_cap(MAX_LISTING);
    let prepared = connection
        .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
        .map_err(|error| plain(error.into()))?;
    watch.guess.borrow_mut().listed = true;
    let references: Vec<Named> = prepared.ref_map().remote_refs.iter().filter_map(direct).collect();
    let listing = judge(&references);
    if listing != Listing::New {
        return Ok(listing);
    }
    watch.set_cap(watch.max_bytes());
    let meter = Meter::new(remote);
    match meter.watch(watch.cancel, watch.ends(), |stop| prepared.receive(meter.progress(), stop)) {
        Ok(_) => Ok(listing),
        Err(error) => Err(receive_failed(repo, remote, watch, error.into(), &meter)),
    }
}

fn local(repo: &gix::Repository, source: Source) -> FetchError {
    FetchError::Local { path: repo.path().to_owned(), source }
}

/// Classes a failure before anything was taken over: it is the network's or the server's.
fn unreachable(remote: &Remote, watch: &Watch<'_>, error: &(dyn std::error::Error + 'static)) -> FetchError {
    let url = remote.url.to_string();
    let said = text(error);
    // git daemon and some forges answer a repository that we may not see with an ERR line and close the connection.
    let hidden = ["access denied", "not exported", "not found", "not enabled", "permission"];
    let is_hidden = hidden.iter().any(|phrase| said.to_lowercase().contains(phrase));
    match watch.verdict() {
        Some(Verdict::Unreachable(None, _)) | None if is_hidden => {
            FetchError::Denied { url, source: because(format!("{said}: check the address and who may read it")) }
        }
        Some(verdict) => verdict.into_fetch(url),
        None if said.contains("Failed to decode the first four hex bytes") => {
            let source =
                because("the answer is not git's: check that the address and the port are those of a git server");
            FetchError::Unreachable { url, retry_after: None, source }
        }
        None => FetchError::Unreachable { url, retry_after: None, source: because(said) },
    }
}

fn receive_failed(repo: &gix::Repository, remote: &Remote, watch: &Watch<'_>, error: Source, meter: &Meter) -> Failure {
    let url = remote.url.to_string();
    if is_disk(&*error) {
        return Failure::Plain(local(repo, error));
    }
    let said = text(&*error);
    // What the server says about itself explains why it broke off, or why what it sent ends early.
    let lost = |why: String| FetchError::Unreachable { url: url.clone(), retry_after: None, source: because(why) };
    match (meter.stopped(), watch.verdict(), meter.said()) {
        (_, Some(Verdict::Unreachable(..)) | None, Some(why)) => {
            Failure::Plain(lost(format!("the server gave up: {why}")))
        }
        (_, Some(verdict), _) => Failure::Plain(verdict.into_fetch(url)),
        (Some(Stopped::Cancelled), ..) => Failure::Plain(FetchError::Cancelled { url }),
        (Some(Stopped::Late), ..) => Failure::Plain(FetchError::TimedOut { url, deadline: Deadline::Total }),
        (Some(Stopped::TooMuch(cap)), ..) => Failure::Plain(FetchError::TooLarge { url, cap }),
        // gix refuses to make room for so many before it tells anybody how many they are.
        _ if said.contains("delta tree is too large") => {
            Failure::Plain(FetchError::TooLarge { url, cap: Cap::Objects(remote.max_objects) })
        }
        // An ERR line in place of a pack, "not our ref" for instance, when the branch moved since it was listed.
        _ if said.contains("Could not decode server reply") => Failure::Plain(lost(said)),
        _ if any_io(&*error, |io| {
            matches!(io.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
        }) =>
        {
            Failure::Plain(lost(format!("what it sent ends too early: {said}")))
        }
        _ => Failure::Odd(because(said)),
    }
}

/// Says whether an error comes from a full or read-only disk.
fn is_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    any_io(error, |io| matches!(io.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge))
}

/// Says whether an error or one of its sources is an I/O error for which `check` holds.
fn any_io(error: &(dyn std::error::Error + 'static), check: impl Fn(&std::io::Error) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<std::io::Error>().is_some_and(&check) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What gix says on the way to the reason, and nobody needs to read.
const FRAMES: [&str; 6] = [
    "Transport handshake failed",
    "An IO error occurred when talking to the server",
    "Failed to consume the pack sent by the remote",
    "Failed to write the received pack",
    "An IO operation failed while streaming an entry",
    "Capabilities could not be parsed",
];

/// Prints an error with its sources in one line, neutralised.
pub(super) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut lines = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = shown(error.to_string().lines().next().unwrap_or_default());
        next = error.source();
        if lines.last() != Some(&line) && (next.is_none() || !FRAMES.contains(&line.as_str())) {
            lines.push(line);
        }
    }
    lines.join(": ").chars().take(1000).collect()
}
