//! Publishing this host's refs. Each push names the value it replaces, so it can never erase what it has not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::progress::Discard;
use gix::protocol::transport::Service;
use gix::protocol::transport::client::blocking_io::{ReadlineBufRead, Transport};
use gix::protocol::transport::client::{MessageKind, WriteMode};
use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{CommitId, HostName, shown};

use super::apart::{Listing, Pushing};
use super::connect::{Kept, connect};
use super::error::{Failure, GitError, PushError, because};
use super::link::Id;
use super::mirror::{Mirror, Source, find, set};
use super::notes::{author, own};
use super::pack;
use super::pull::{pull, text};
use super::remote::{Address, Deadlines, Remote};
use super::signs::SEEN;
use super::wire::Watch;
use crate::identity::{SEEN as SAID, Voice};

/// How often a push is tried at once: without asking what is there, and after taking over what somebody else pushed.
const ATTEMPTS: usize = 4;

/// How many notes are looked at to find the last one that the host itself wrote.
const LOOKED_AT: usize = 20;

/// A sign of life: who looks at a whole fleet needs nothing else of a host.
#[derive(Clone, Copy)]
pub struct Seen<'c> {
    /// When the host was last alive.
    pub at: Timestamp,
    /// The commit that it believes.
    pub believed: &'c CommitId,
    /// Whether it goes out even where there is no news.
    pub is_due: bool,
    /// Who signs it, if anybody does.
    pub voice: Option<&'c Voice>,
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// There was nothing to push; the network was not used.
    Nothing,
    /// The remote has what we have.
    Done,
}

/// A ref that the remote is to have.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) value: ObjectId,
    pub(super) lease: Lease,
}

/// What a push may replace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// Only a value that ours has in its history.
    Continues,
    /// Whatever is there at the moment: it is ours and worth nothing once there is a newer one.
    Replaces,
    /// The same; what is pushed goes on from this, which the remote has.
    Branches(ObjectId),
}

/// What the remote answered to an offer.
enum Offer {
    /// For each ref, why it was refused, if it was.
    Answered(Vec<Option<String>>),
    /// It has a history of the first ref that ours does not continue.
    Behind(ObjectId),
}

impl Mirror {
    /// Pushes `host`'s notes, unless the remote is known to have them, and with them its sign of life, which has the newest note in
    /// it; that alone where only it is due. One conversation, whatever goes out.
    ///
    /// When the remote's history is not the one that ours continues (the state directory was lost, for instance), it is
    /// fetched and our notes are put on top of it.
    ///
    /// # Errors
    /// See [`PushError`]; the notes stay in the mirror.
    pub fn publish(
        &mut self,
        remote: &Remote,
        host: &HostName,
        seen: Option<Seen<'_>>,
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<Pushed, PushError> {
        let (name, marker) = (own(host), pushed_marker(remote, host));
        let url = || remote.url.to_string();
        let other = |source| PushError::Other { url: url(), name: name.clone(), source };
        let is_news = |ours: &ObjectId| Ok(find(&self.repo, &marker)? != Some(*ours));
        let ours = find(&self.repo, &name).map_err(other)?;
        let notes = ours.map(|ours| is_news(&ours).map(|is| is.then_some(ours))).transpose().map_err(other)?.flatten();
        let seen = seen.filter(|seen| seen.is_due || notes.is_some());
        let sign = seen.map(|seen| self.sign_of_life(host, seen)).transpose().map_err(|error| other(error.into()))?;
        let sign = sign.map(|value| Wanted { name: format!("{SEEN}{host}"), value, lease: Lease::Replaces });
        let mut wanted: Vec<Wanted> = Vec::new();
        wanted.extend(notes.map(|value| Wanted { name: name.clone(), value, lease: Lease::Continues }));
        wanted.extend(sign);
        if wanted.is_empty() {
            return Ok(Pushed::Nothing);
        }
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_push(url(), name.clone()))?;
        let mut made_up = self.made_up(remote, &marker, &wanted).map_err(other)?;
        for _ in 0..ATTEMPTS {
            let watch = Watch::new(deadlines, remote.growth, cancel);
            let is_made_up = made_up.is_some();
            watch.guess.borrow_mut().expected = made_up.take();
            match self.offer(remote, &wanted, &watch) {
                Err(error) if is_made_up && !matches!(error, PushError::Denied { .. }) => {}
                Err(error) => return Err(error),
                Ok(Offer::Answered(answers)) if is_made_up && answers.iter().any(Option::is_some) => {}
                Ok(Offer::Answered(answers)) => return self.take_in(remote, &marker, &wanted, answers),
                Ok(Offer::Behind(theirs)) => {
                    tracing::info!(%host, remote = %remote.url, "the remote has other notes of this host, continuing them");
                    self.take_over(remote, host, &name, theirs, &watch)?;
                    self.reload().map_err(|error| other(Box::new(error)))?;
                    wanted[0].value = find(&self.repo, &name).map_err(other)?.unwrap_or(theirs);
                }
            }
        }
        Err(PushError::Retryable { url: url(), name, source: because("somebody else keeps writing to it") })
    }

    /// Pushes refs that nobody but this host writes to.
    pub(super) fn push(
        &mut self,
        remote: &Remote,
        wanted: &[Wanted],
        deadlines: &Deadlines,
        cancel: &AtomicBool,
    ) -> Result<(), PushError> {
        let (url, name) = (remote.url.to_string(), wanted[0].name.clone());
        self.kept.ensure_client(remote, deadlines).map_err(|verdict| verdict.into_push(url.clone(), name.clone()))?;
        let watch = Watch::new(deadlines, remote.growth, cancel);
        match self.offer(remote, wanted, &watch)? {
            Offer::Answered(answers) => match answers.into_iter().flatten().next() {
                Some(why) => Err(classify(url, name, why)),
                None => Ok(()),
            },
            Offer::Behind(_) => Err(PushError::Retryable { url, name, source: because("somebody else writes to it") }),
        }
    }

    /// Returns the list of refs that a push over http begins with, as far as it matters and as it was after the last push. A server
    /// lists all its refs there, which of a large fleet is a thousand times what is pushed; it checks the old values that a push
    /// names, so that what is out of date is refused.
    fn made_up(&self, remote: &Remote, marker: &str, wanted: &[Wanted]) -> Result<Option<Vec<u8>>, Source> {
        if !matches!(remote.url.address(), Address::Http { .. }) {
            return Ok(None);
        }
        let mut list = line("# service=git-receive-pack\n");
        list.extend_from_slice(b"0000");
        for (at, wanted) in wanted.iter().enumerate() {
            let kept = if wanted.lease == Lease::Continues { marker } else { &wanted.name };
            let Some(id) = find(&self.repo, kept)? else { return Ok(None) };
            let capabilities = if at == 0 { "\0report-status" } else { "" };
            list.extend(line(&format!("{id} {}{capabilities}\n", wanted.name)));
        }
        list.extend_from_slice(b"0000");
        Ok(Some(list))
    }

    /// Remembers what the remote has by now.
    fn take_in(
        &self,
        remote: &Remote,
        marker: &str,
        wanted: &[Wanted],
        answers: Vec<Option<String>>,
    ) -> Result<Pushed, PushError> {
        let url = remote.url.to_string();
        let mut refused = None;
        for (wanted, answer) in wanted.iter().zip(answers) {
            if let Some(why) = answer {
                refused.get_or_insert((wanted.name.clone(), why));
                continue;
            }
            let kept = if wanted.lease == Lease::Continues { marker } else { &wanted.name };
            set(&self.repo, kept, wanted.value).map_err(|source| PushError::Other {
                url: url.clone(),
                name: wanted.name.clone(),
                source,
            })?;
        }
        refused.map_or(Ok(Pushed::Done), |(name, why)| Err(classify(url, name, why)))
    }

    /// Writes a commit without history that says what the host believes, and when, and below that its newest note.
    fn sign_of_life(&self, host: &HostName, Seen { at, believed, voice, .. }: Seen<'_>) -> Result<ObjectId, GitError> {
        let failed = |source: Source| self.failed("write the sign of life", source);
        let tree = self.repo.write_object(gix::objs::Tree::empty()).map_err(|error| failed(error.into()))?.detach();
        let author = author(host, at);
        let mut buffer = gix::date::parse::TimeBuf::default();
        let author = author.to_ref(&mut buffer);
        let note = match voice {
            // Others may have written notes under its name since.
            Some(voice) => self.last_said(host, believed, voice)?.map(|(note, _)| note),
            None => self.note_history(host, 1)?.0.into_iter().next(),
        };
        let note = note.map(|note| format!("\n{note}")).unwrap_or_default();
        let message = format!("mainstay: {host} seen at {at}, at {believed}\n{note}");
        let message = voice.map(|voice| voice.sign(SAID, message.clone())).unwrap_or(message);
        let nothing = None::<ObjectId>;
        let commit = self.repo.new_commit_as(author, author, message, tree, nothing);
        Ok(commit.map_err(|error| failed(error.into()))?.id)
    }

    /// Finds the last note that a host signed, and its number, among its newest ones and the one on the commit that it believes.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub fn last_said(
        &self,
        host: &HostName,
        believed: &CommitId,
        voice: &Voice,
    ) -> Result<Option<(String, u64)>, GitError> {
        let (notes, _) = self.note_history(host, LOOKED_AT)?;
        Ok(voice.last_of(notes.into_iter().chain(self.read_note(host, believed))))
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

    /// Offers new values of refs, each in place of the value that the remote says it has.
    fn offer(&self, remote: &Remote, wanted: &[Wanted], watch: &Watch<'_>) -> Result<Offer, PushError> {
        let names: Vec<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        let mut line = Line::open(remote, &names, &self.kept, watch)?;
        let theirs = line.values(&names)?;
        let mut commands = Vec::new();
        let mut sets = Vec::new();
        for (wanted, theirs) in wanted.iter().zip(theirs) {
            match theirs {
                Some(theirs) if theirs == wanted.value => continue,
                Some(theirs) if wanted.lease == Lease::Continues => {
                    if !self.reaches(wanted.value, theirs).unwrap_or(false) {
                        line.hang_up();
                        return Ok(Offer::Behind(theirs));
                    }
                    sets.push((Some(theirs), wanted.value));
                }
                _ => match wanted.lease {
                    Lease::Branches(base) => sets.push((Some(base), wanted.value)),
                    Lease::Continues | Lease::Replaces => sets.push((None, wanted.value)),
                },
            }
            let old = theirs.unwrap_or(ObjectId::null(gix::hash::Kind::Sha1));
            commands.push((wanted.name.clone(), Id(old), Id(wanted.value)));
        }
        if commands.is_empty() {
            line.hang_up();
            return Ok(Offer::Answered(wanted.iter().map(|_| None).collect()));
        }
        let pack = pack::between(&self.repo, &sets).map_err(|source| {
            let (url, name) = (remote.url.to_string(), names[0].to_owned());
            PushError::Other { url, name, source }
        })?;
        let refused = line.send(commands, &pack)?;
        Ok(Offer::Answered(wanted.iter().map(|wanted| refused.get(wanted.name.as_str()).cloned()).collect()))
    }
}

/// A conversation for a push: with the server, or with the fetcher, which has it in the place of this process.
pub(super) enum Line<'w> {
    /// With the server.
    Here { transport: Box<dyn Transport + 'w>, remote: &'w Remote, name: String, watch: &'w Watch<'w> },
    /// With the fetcher.
    Apart(Pushing<'w>),
}

impl<'w> Line<'w> {
    /// Begins a conversation about refs with these names.
    pub(super) fn open(
        remote: &'w Remote,
        names: &[&str],
        kept: &'w Kept,
        watch: &'w Watch<'w>,
    ) -> Result<Line<'w>, PushError> {
        if let Some(fetcher) = kept.fetcher_for(remote) {
            return Pushing::begin(fetcher, remote, names, watch).map(Line::Apart);
        }
        let name = names.first().copied().unwrap_or_default().to_owned();
        match connect(remote, Service::ReceivePack, kept, watch) {
            Ok(transport) => Ok(Line::Here { transport, remote, name, watch }),
            Err(error) => Err(not_pushed(remote, name, watch, &error.into())),
        }
    }

    /// Returns the values that these refs have at the server.
    pub(super) fn values(&mut self, names: &[&str]) -> Result<Vec<Option<ObjectId>>, PushError> {
        match self {
            Line::Apart(pushing) => pushing.values(),
            Line::Here { transport, remote, name, watch } => {
                advertised(transport, names).map_err(|error| not_pushed(remote, name.clone(), watch, &error))
            }
        }
    }

    /// Ends the conversation without a push. The server is done with us either way.
    pub(super) fn hang_up(self) {
        let Line::Here { mut transport, .. } = self else { return };
        if let Err(error) = gix::protocol::indicate_end_of_interaction(&mut transport, false) {
            tracing::debug!(%error, "the server did not wait for the end");
        }
    }

    /// Sends names with their old and new values, and their pack. Returns by name why refs were refused.
    pub(super) fn send(
        self,
        commands: Vec<(String, Id, Id)>,
        pack: &[u8],
    ) -> Result<BTreeMap<String, String>, PushError> {
        match self {
            Line::Apart(pushing) => pushing.send(commands, pack),
            Line::Here { mut transport, remote, name, watch } => {
                send(&mut transport, &commands, pack).map_err(|error| not_pushed(remote, name, watch, &error))
            }
        }
    }
}

fn not_pushed(remote: &Remote, name: String, watch: &Watch<'_>, error: &Source) -> PushError {
    let (url, said) = (remote.url.to_string(), text(&**error));
    match watch.verdict() {
        _ if is_denied(&said) => PushError::Denied { url, name, source: because(said) },
        Some(verdict) => verdict.into_push(url, name),
        None => PushError::Retryable { url, name, source: because(said) },
    }
}

/// Puts the length before a line (gitprotocol-common(5), "pkt-line Format").
fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// Names the ref that remembers what `remote` has of `host`'s notes.
fn pushed_marker(remote: &Remote, host: &HostName) -> String {
    let digest = Digest::of(remote.url.to_string().as_bytes());
    format!("refs/mainstay/pushed/{}/{host}", digest.short())
}

/// Returns the values that the remote advertises for these refs.
fn advertised(transport: &mut Box<dyn Transport + '_>, names: &[&str]) -> Result<Vec<Option<ObjectId>>, Source> {
    let handshake = gix::protocol::handshake(transport, Service::ReceivePack, |_| Ok(None), Vec::new(), &mut Discard)?;
    let references = handshake.refs.unwrap_or_default();
    let value = |wanted: &&str| {
        let found = references.iter().map(|reference| reference.unpack()).find(|(name, _, _)| *name == *wanted);
        found.and_then(|(_, target, peeled)| target.or(peeled).map(ToOwned::to_owned))
    };
    Ok(names.iter().map(value).collect())
}

/// Sends commands and their pack (gitprotocol-pack(5), "Pushing data to a server"), and returns by name why refs were refused.
fn send(
    transport: &mut Box<dyn Transport + '_>,
    commands: &[(String, Id, Id)],
    pack: &[u8],
) -> Result<BTreeMap<String, String>, Source> {
    let mut writer = transport.request(WriteMode::OneLfTerminatedLinePerWriteCall, MessageKind::Flush, false)?;
    let agent = concat!("mainstay/", env!("CARGO_PKG_VERSION"));
    for (at, (name, Id(old), Id(new))) in commands.iter().enumerate() {
        let capabilities = if at == 0 { format!("\0 report-status agent={agent}") } else { String::new() };
        std::io::Write::write_all(&mut writer, format!("{old} {new} {name}{capabilities}").as_bytes())?;
    }
    writer.write_message(MessageKind::Flush)?;
    let (mut raw, mut report) = writer.into_parts();
    raw.write_all(pack)?;
    raw.flush()?;
    drop(raw);
    let (mut taken, mut refused, mut spoilt) = (BTreeSet::new(), BTreeMap::new(), None);
    while let Some(line) = report.readline() {
        let line = line??;
        let Some(line) = line.as_bstr() else { break };
        let line = String::from_utf8_lossy(line).trim().to_owned();
        match (line.split_once(' '), line.split(' ').nth(1)) {
            (Some(("ok", name)), _) => drop(taken.insert(name.to_owned())),
            (Some(("unpack", "ok")), _) => {}
            (Some(("ng", _)), Some(name)) => drop(refused.insert(name.to_owned(), shown(&line))),
            _ => drop(spoilt.get_or_insert(shown(&line))),
        }
    }
    for (name, ..) in commands.iter().filter(|(name, ..)| !taken.contains(name)) {
        match &spoilt {
            Some(why) => drop(refused.insert(name.clone(), why.clone())),
            None if refused.contains_key(name) => {}
            None => return Err("the server ended without a report".into()),
        }
    }
    Ok(refused)
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
