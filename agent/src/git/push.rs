//! Publishing this host's refs. Each push names the value it replaces, so it can never erase what it has not seen.

use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::progress::Discard;
use gix::protocol::transport::Service;
use gix::protocol::transport::client::blocking_io::{ReadlineBufRead, Transport};
use gix::protocol::transport::client::{MessageKind, WriteMode};
use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{CommitId, HostName, shown};

use super::connect::connect;
use super::error::{GitError, PushError, because};
use super::fetch::{Failure, Listing, SEEN, pull, text};
use super::mirror::{Mirror, Source, find, set};
use super::notes::{author, own};
use super::pack;
use super::remote::{Deadlines, Remote};
use super::wire::Watch;

/// How often a push is tried again at once, after taking over what somebody else pushed.
const ATTEMPTS: usize = 3;

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'c> {
    /// When the host was last alive.
    pub at: Timestamp,
    /// The commit that it believes.
    pub believed: &'c CommitId,
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// There was nothing to push; the network was not used.
    Nothing,
    /// The remote has what we have.
    Done,
}

/// What the remote answered to an offer.
enum Offer {
    /// It has the value now.
    Taken,
    /// It has a history that ours does not continue.
    Behind(ObjectId),
    /// It refused, with this reason.
    Refused(String),
}

impl Mirror {
    /// Pushes `host`'s notes, unless the remote is known to have them.
    ///
    /// When the remote's history is not the one that ours continues (the state directory was lost, for instance), it is
    /// fetched and our notes are put on top of it.
    ///
    /// # Errors
    /// See [`PushError`]; the notes stay in the mirror.
    pub fn push_note(
        &mut self,
        remote: &Remote,
        host: &HostName,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<Pushed, PushError> {
        let (name, marker) = (own(host), pushed_marker(remote, host));
        let url = || remote.url.to_string();
        let other = |source| PushError::Other { url: url(), name: name.clone(), source };
        let Some(mut ours) = find(&self.repo, &name).map_err(other)? else { return Ok(Pushed::Nothing) };
        if find(&self.repo, &marker).map_err(other)? == Some(ours) {
            return Ok(Pushed::Nothing);
        }
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_push(url(), name.clone()))?;
        let watch = Watch::new(deadlines, remote.max_bytes, cancel);
        for _ in 0..ATTEMPTS {
            match self.offer(remote, &name, ours, Lease::Continues, &watch)? {
                Offer::Taken => {
                    set(&self.repo, &marker, ours).map_err(other)?;
                    return Ok(Pushed::Done);
                }
                Offer::Refused(why) => return Err(classify(url(), name, why)),
                Offer::Behind(theirs) => {
                    tracing::info!(%host, remote = %remote.url, "the remote has other notes of this host, continuing them");
                    self.take_over(remote, host, &name, theirs, &watch)?;
                    self.reload().map_err(|error| other(Box::new(error)))?;
                    ours = find(&self.repo, &name).map_err(other)?.unwrap_or(theirs);
                }
            }
        }
        Err(PushError::Retryable { url: url(), name, source: because("somebody else keeps writing to it") })
    }

    /// Overwrites `host`'s heartbeat: a commit without history that says what the host believes, and when.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_seen(
        &mut self,
        remote: &Remote,
        host: &HostName,
        seen: Seen<'_>,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<(), PushError> {
        let name = format!("{SEEN}{host}");
        let url = || remote.url.to_string();
        let other = |source| PushError::Other { url: url(), name: name.clone(), source };
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_push(url(), name.clone()))?;
        let seen = self.heartbeat(host, seen).map_err(|error| other(Box::new(error)))?;
        let watch = Watch::new(deadlines, remote.max_bytes, cancel);
        match self.offer(remote, &name, seen, Lease::Replaces, &watch)? {
            Offer::Taken => set(&self.repo, &name, seen).map_err(other),
            Offer::Refused(why) => Err(classify(url(), name, why)),
            Offer::Behind(_) => Err(other(because("a heartbeat continues nothing"))),
        }
    }

    fn heartbeat(&self, host: &HostName, Seen { at, believed }: Seen<'_>) -> Result<ObjectId, GitError> {
        let failed = |source: Source| self.failed("write the heartbeat", source);
        let tree = self.repo.write_object(gix::objs::Tree::empty()).map_err(|error| failed(error.into()))?.detach();
        let author = author(host, at);
        let mut buffer = gix::date::parse::TimeBuf::default();
        let author = author.to_ref(&mut buffer);
        let message = format!("mainstay: {host} seen at {at}, at {believed}\n");
        let nothing = None::<ObjectId>;
        let commit = self.repo.new_commit_as(author, author, message, tree, nothing);
        Ok(commit.map_err(|error| failed(error.into()))?.id)
    }

    /// Fetches the remote's notes of `host` and puts ours on top of them.
    fn take_over(
        &self,
        remote: &Remote,
        host: &HostName,
        name: &str,
        theirs: ObjectId,
        watch: &Watch<'_>,
    ) -> Result<(), PushError> {
        let spec = [format!("+{name}:refs/mainstay/theirs/{host}")];
        let listed = pull(&self.repo, remote, &spec, &self.kept, watch, |_| Listing::New);
        let url = remote.url.to_string();
        match listed {
            Ok(_) => {}
            Err(Failure::Plain(error)) => return Err(error.into_push(name.to_owned())),
            Err(Failure::Odd(source)) => return Err(PushError::Retryable { url, name: name.to_owned(), source }),
        }
        self.rebase_notes(host, theirs).map_err(|source| PushError::Other { url, name: name.to_owned(), source })
    }

    /// Offers `ours` as the new value of `name`, in place of the value that the remote says it has.
    fn offer(
        &self,
        remote: &Remote,
        name: &str,
        ours: ObjectId,
        lease: Lease,
        watch: &Watch<'_>,
    ) -> Result<Offer, PushError> {
        let failed = |error: Source| {
            let url = remote.url.to_string();
            let said = text(&*error);
            match watch.verdict() {
                _ if is_denied(&said) => PushError::Denied { url, name: name.to_owned(), source: because(said) },
                Some(verdict) => verdict.into_push(url, name.to_owned()),
                None => PushError::Retryable { url, name: name.to_owned(), source: because(said) },
            }
        };
        let connection = connect(remote, Service::ReceivePack, &self.kept, watch);
        let mut transport = connection.map_err(|error| failed(error.into()))?;
        let theirs = advertised(&mut transport, name).map_err(failed)?;
        let (old, continued) = match (lease, theirs) {
            (_, Some(theirs)) if theirs == ours => {
                hang_up(&mut transport);
                return Ok(Offer::Taken);
            }
            (_, None) => (None, None),
            (Lease::Replaces, theirs) => (theirs, None),
            (Lease::Continues, Some(theirs)) if self.reaches(ours, theirs).unwrap_or(false) => {
                (Some(theirs), Some(theirs))
            }
            (Lease::Continues, Some(theirs)) => {
                hang_up(&mut transport);
                return Ok(Offer::Behind(theirs));
            }
        };
        let pack = pack::between(&self.repo, continued, ours).map_err(|source| PushError::Other {
            url: remote.url.to_string(),
            name: name.to_owned(),
            source,
        })?;
        send(&mut transport, name, old, ours, &pack).map_err(failed)
    }
}

/// What a push may replace.
#[derive(Clone, Copy)]
enum Lease {
    /// Only a value that ours has in its history.
    Continues,
    /// Whatever is there at the moment: it is ours and worth nothing once there is a newer one.
    Replaces,
}

/// Names the ref that remembers what `remote` has of `host`'s notes.
fn pushed_marker(remote: &Remote, host: &HostName) -> String {
    let digest = Digest::of(remote.url.to_string().as_bytes());
    format!("refs/mainstay/pushed/{}/{host}", digest.short())
}

/// Returns the value that the remote advertises for `name`.
fn advertised(transport: &mut (impl Transport + ?Sized), name: &str) -> Result<Option<ObjectId>, Source> {
    let handshake =
        gix::protocol::handshake(&mut *transport, Service::ReceivePack, |_| Ok(None), Vec::new(), &mut Discard)?;
    let references = handshake.refs.unwrap_or_default();
    let found = references.iter().map(|reference| reference.unpack()).find(|(found, _, _)| *found == name);
    Ok(found.and_then(|(_, target, peeled)| target.or(peeled).map(ToOwned::to_owned)))
}

/// Ends the conversation without a push. The server is done with us either way.
fn hang_up(transport: &mut (impl Transport + ?Sized)) {
    if let Err(error) = gix::protocol::indicate_end_of_interaction(&mut *transport, false) {
        tracing::debug!(%error, "the server did not wait for the end");
    }
}

/// Sends one command and its pack (gitprotocol-pack(5), "Pushing data to a server"), and reads the report.
fn send(
    transport: &mut (impl Transport + ?Sized),
    name: &str,
    old: Option<ObjectId>,
    new: ObjectId,
    pack: &[u8],
) -> Result<Offer, Source> {
    let old = old.unwrap_or(ObjectId::null(gix::hash::Kind::Sha1));
    let mut writer = transport.request(WriteMode::OneLfTerminatedLinePerWriteCall, MessageKind::Flush, false)?;
    let agent = concat!("mainstay/", env!("CARGO_PKG_VERSION"));
    let command = format!("{old} {new} {name}\0 report-status agent={agent}");
    std::io::Write::write_all(&mut writer, command.as_bytes())?;
    writer.write_message(MessageKind::Flush)?;
    let (mut raw, mut report) = writer.into_parts();
    raw.write_all(pack)?;
    raw.flush()?;
    drop(raw);
    let mut refused = None;
    let mut taken = false;
    while let Some(line) = report.readline() {
        let line = line??;
        let Some(line) = line.as_bstr() else { break };
        let line = String::from_utf8_lossy(line).trim().to_owned();
        match line.split_once(' ') {
            Some(("ok", found)) if found == name => taken = true,
            Some(("unpack", "ok")) => {}
            _ => {
                refused.get_or_insert(shown(&line));
            }
        }
    }
    match refused {
        Some(why) => Ok(Offer::Refused(why)),
        None if taken => Ok(Offer::Taken),
        None => Err("the server ended without a report".into()),
    }
}

fn is_denied(said: &str) -> bool {
    let said = said.to_lowercase();
    let phrases = [
        "denied",
        "declined",
        "protected",
        "prohibited",
        "not allowed",
        "permission",
        "forbidden",
        "unauthorized",
        "not enabled",
        "not exported",
        "deny",
        "read-only",
        "not authorized",
    ];
    phrases.iter().any(|phrase| said.contains(phrase))
}

/// Classes what the server said about a ref it did not update.
fn classify(url: String, name: String, why: String) -> PushError {
    let said = why.to_lowercase();
    let raced = [
        "cannot lock ref",
        "fetch first",
        "stale info",
        "reference already exists",
        "failed to lock",
        "failed to update",
        "incorrect old value",
        "unable to lock",
        "try again",
        "timeout",
        "temporarily",
    ];
    let source = because(why);
    if raced.iter().any(|phrase| said.contains(phrase)) {
        return PushError::Retryable { url, name, source };
    }
    if is_denied(&said) || said.contains("non-fast-forward") {
        return PushError::Denied { url, name, source };
    }
    PushError::Other { url, name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_classed_by_what_to_do_about_them() {
        let class = |why: &str| match classify("u".to_owned(), "n".to_owned(), why.to_owned()) {
            PushError::Retryable { .. } => "retry",
            PushError::Denied { .. } => "denied",
            PushError::Other { .. } => "other",
        };
        for why in [
            "ng n cannot lock ref 'n': is at a but expected b",
            "ng n fetch first",
            "ng n stale info",
            "ng n reference already exists",
            "ng n failed to update ref",
            "ng n incorrect old value provided",
        ] {
            assert_eq!(class(why), "retry", "{why}");
        }
        for why in [
            "ng n pre-receive hook declined",
            "ng n hook declined",
            "ng n protected branch hook declined",
            "ng n deny updating a hidden ref",
            "ng n non-fast-forward",
            "ng n You are not allowed to push",
        ] {
            assert_eq!(class(why), "denied", "{why}");
        }
        assert_eq!(class("unpack index-pack abnormal exit"), "other");
        assert_eq!(class("ng n funny refname"), "other");
    }
}
