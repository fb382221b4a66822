//! One conversation with a remote: what it has, and taking over what is new of it.

use std::io::ErrorKind;

use gix::progress::Discard;
use gix::protocol::handshake::Ref;
use gix::protocol::transport::Service;
use spec::digest::Digest;
use spec::id::shown;

use super::apart::{self, Listing};
use super::connect::{Kept, connect};
use super::error::{Cap, Deadline, Failure, FetchError, Verdict, because};
use super::link::{Id, Named};
use super::meter::{Meter, Stopped};
use super::mirror::Source;
use super::opening::{Guess, Held, Opening};
use super::remote::{MAX_OBJECT, Remote};
use super::wire::Watch;

/// The most that a list of refs may take, in bytes: some 200 000 refs.
const MAX_LISTING: u64 = 16 << 20;

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
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Failure::Plain(FetchError::Cancelled { .. }))
    }

    /// Says whether what was asked for may be why it failed: the network is not.
    pub(super) fn is_theirs(&self, has_answered: bool) -> bool {
        let is_lost = matches!(self, Failure::Plain(FetchError::TimedOut { .. } | FetchError::Local { .. }));
        !self.is_cancelled() && !is_lost && (has_answered || self.is_too_much())
    }

    pub(super) fn is_too_much(&self) -> bool {
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

    pub(super) fn text(&self) -> String {
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
    watch.set_cap(MAX_LISTING, true);
    let prepared = connection
        .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
        .map_err(|error| plain(error.into()))?;
    watch.guess.borrow_mut().listed = true;
    let references: Vec<Named> = prepared.ref_map().remote_refs.iter().filter_map(direct).collect();
    let listing = judge(&references);
    if listing != Listing::New {
        return Ok(listing);
    }
    watch.set_cap(watch.bounds.bytes, false);
    let meter = Meter::new(watch.bounds);
    match meter.watch(watch.cancel, watch.ends(), |stop| prepared.receive(meter.progress(), stop)) {
        Ok(_) => Ok(listing),
        Err(error) => Err(receive_failed(repo, remote, watch, error.into(), &meter)),
    }
}

pub(super) fn local(repo: &gix::Repository, source: Source) -> FetchError {
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
            Failure::Plain(FetchError::TooLarge { url, cap: Cap::Objects(watch.bounds.objects) })
        }
        _ if said.contains("Entry too large to fit in memory") => {
            Failure::Plain(FetchError::TooLarge { url, cap: Cap::File(MAX_OBJECT as u64) })
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
