//! The fetcher's side of the socket: it talks to servers, reads what they send, and hands on what the agent asks for by name.
//!
//! It has a mirror of its own, from which nothing is believed. What does not hold together there is thrown away whole.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gix::objs::Kind;
use rustix::event::PollFlags;
use spec::digest::Digest;

use super::apart::{CERTIFICATE, Listing};
use super::command::wait_for;
use super::connect::Kept;
use super::error::{Failure, FetchError, GitError};
use super::link::{
    Ask, Commands, Handed, HandedToken, Link, Named, NotFetched, NotPushed, Reach, Said, Verdict, Wants,
};
use super::mirror::{Mirror, remove};
use super::pull::pull;
use super::push::Line;
use super::remote::{Deadlines, Remote, Ssh, Token};
use super::wire::Watch;

/// How long the agent may take to say what it wants, and to take what it gets.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long tidying may take.
const TIDY: Duration = Duration::from_secs(120);
/// How often is looked whether the agent is still there.
const SLICE: Duration = Duration::from_millis(100);
/// Objects that are smaller, in bytes, are handed out several at once.
const SMALL: usize = 64 << 10;
/// The largest pack that is pushed.
const MAX_PACK: u64 = 256 << 20;

/// Who talks to servers.
pub struct Fetcher {
    /// Its mirror; one conversation at a time uses it.
    mirror: Mutex<Option<Mirror>>,
    /// Where that is.
    dir: PathBuf,
    /// Where keys are put that programs read, on no disk.
    scratch: PathBuf,
}

impl Fetcher {
    /// Makes one with a mirror in `dir`, which puts keys into `scratch`.
    pub fn new(dir: &Path, scratch: &Path) -> Fetcher {
        Fetcher { mirror: Mutex::new(None), dir: dir.to_owned(), scratch: scratch.to_owned() }
    }

    /// Has the conversation that the agent at the other end asks for. Says whether a server was not found.
    ///
    /// # Errors
    /// The agent is gone, or makes no sense.
    pub fn serve(&self, stream: UnixStream) -> io::Result<bool> {
        let gone = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        let other = stream.try_clone()?;
        std::thread::scope(|scope| {
            scope.spawn(|| watch_over(&other, &gone, &done));
            let served = self.converse(stream, &gone);
            done.store(true, Ordering::Release);
            served
        })
    }

    fn converse(&self, stream: UnixStream, gone: &AtomicBool) -> io::Result<bool> {
        let mut link = Link::new(stream, Instant::now() + PATIENCE, gone)?;
        let ask: Ask = match link.hear() {
            Ok(ask) => ask,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let why = "the fetcher is of another version: systemctl restart mainstay";
                link.say(&Said::NotFetched(NotFetched::Unreachable(None, why.to_owned()), false))?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        // Whoever asked first is not kept waiting for ever: everything has a deadline.
        let mut mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let (Ask::Pull(reach, _) | Ask::Push(reach, ..)) = &ask;
        link.until(Instant::now() + reach.deadlines.total + PATIENCE);
        let is_pull = matches!(ask, Ask::Pull(..));
        let opened = match mirror.take() {
            Some(mirror) => Ok(mirror),
            None => Mirror::open(&self.dir),
        };
        let mut own = match opened {
            Ok(own) => own,
            Err(error) => {
                let why = self.in_words(&error);
                link.say(&if is_pull {
                    Said::NotFetched(NotFetched::Unreachable(None, why), false)
                } else {
                    Said::NotPushed(NotPushed::Retryable(why), false)
                })?;
                return Ok(false);
            }
        };
        let served = match ask {
            Ask::Pull(reach, specs) => self.pull(&mut link, &mut own, reach, &specs, gone),
            Ask::Push(reach, names, expected) => self.push(&mut link, &mut own, reach, (&names, expected), gone),
        };
        if !own.suspect.get() {
            // The agent has what it wants and is gone, or was not given anything.
            if let Err(error) = own.tidy(&[], TIDY, &AtomicBool::new(false)) {
                tracing::warn!("the fetcher's mirror could not be tidied: {}", crate::chain(&error));
            }
            *mirror = Some(own);
            return served;
        }
        drop(own);
        tracing::warn!("the fetcher's mirror is damaged, and is fetched anew");
        remove(&self.dir)?;
        served
    }

    fn in_words(&self, error: &GitError) -> String {
        format!("the mirror of the fetcher in {} cannot be used: {}", self.dir.display(), crate::chain(error))
    }

    fn pull(
        &self,
        link: &mut Link<'_>,
        mirror: &mut Mirror,
        reach: Reach,
        specs: &[String],
        gone: &AtomicBool,
    ) -> io::Result<bool> {
        let settled = match self.settle(reach) {
            Ok(settled) => settled,
            Err(error) => {
                return link
                    .say(&Said::NotFetched(NotFetched::Unreachable(None, unsettled(&error)), false))
                    .map(|()| false);
            }
        };
        let (remote, deadlines) = (&settled.remote, &settled.deadlines);
        if let Err(verdict) = mirror.kept.ensure_client(remote, deadlines) {
            let failure = Failure::Plain(verdict.into_fetch(String::new()));
            link.say(&Said::NotFetched(settled.tell(&failure), false))?;
            return Ok(false);
        }
        mirror.slack = remote.slack;
        if let Err(error) = mirror.make_room(remote.whole) {
            link.say(&Said::NotFetched(NotFetched::Unreachable(None, self.in_words(&error)), false))?;
            return Ok(false);
        }
        let bounds = if mirror.is_empty() { remote.whole } else { remote.growth };
        let watch = Watch::new(deadlines, bounds, gone);
        let mut heard = Ok(());
        let pulled = pull(&mirror.repo, remote, specs, &mirror.kept, &watch, |listed: &[Named]| {
            let said = link.say(&Said::Listed(listed.to_vec())).and_then(|()| link.hear());
            match said {
                Ok(Verdict::Take) => Listing::New,
                Ok(Verdict::Leave) => Listing::Same,
                Err(error) => {
                    heard = Err(error);
                    Listing::Same
                }
            }
        });
        heard?;
        match pulled {
            Ok(Listing::New) => {}
            Ok(_) => return Ok(false),
            Err(failure) => {
                mirror.suspect.set(matches!(failure, Failure::Odd(_)));
                link.say(&Said::NotFetched(settled.tell(&failure), watch.refused.get()))?;
                return Ok(matches!(failure, Failure::Plain(FetchError::Unreachable { .. })));
            }
        }
        if let Err(error) = mirror.reload() {
            link.say(&Said::NotFetched(NotFetched::Odd(self.in_words(&error)), false))?;
            mirror.suspect.set(true);
            return Ok(false);
        }
        link.say(&Said::Received(watch.received()))?;
        hand_out(link, mirror)?;
        Ok(false)
    }

    fn push(
        &self,
        link: &mut Link<'_>,
        mirror: &mut Mirror,
        reach: Reach,
        (names, expected): (&[String], Option<Vec<u8>>),
        gone: &AtomicBool,
    ) -> io::Result<bool> {
        let settled = match self.settle(reach) {
            Ok(settled) => settled,
            Err(error) => {
                return link.say(&Said::NotPushed(NotPushed::Retryable(unsettled(&error)), false)).map(|()| false);
            }
        };
        let (remote, deadlines) = (&settled.remote, &settled.deadlines);
        if let Err(verdict) = mirror.kept.ensure_client(remote, deadlines) {
            let error = verdict.into_push(String::new(), String::new());
            link.say(&Said::NotPushed(settled.in_their_words(NotPushed::of(&error)), false))?;
            return Ok(false);
        }
        let watch = Watch::new(deadlines, remote.growth, gone);
        watch.guess.borrow_mut().expected = expected;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let pushed = converse_for_push(link, remote, &names, &mirror.kept, &watch)?;
        if let Err(error) = pushed {
            link.say(&Said::NotPushed(settled.in_their_words(error), watch.refused.get()))?;
        }
        Ok(false)
    }

    /// Makes a remote of what the agent handed over.
    fn settle(&self, reach: Reach) -> io::Result<Settled> {
        let folder = tempfile::Builder::new().prefix("keys").tempdir_in(&self.scratch)?;
        let mut places = Vec::new();
        let mut put = |handed: Handed| -> io::Result<PathBuf> {
            let path = folder.path().join(places.len().to_string());
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(handed.text.as_bytes())?;
            places.push((path.display().to_string(), handed.path.display().to_string()));
            Ok(path)
        };
        let keys = reach.keys.into_iter().map(&mut put).collect::<io::Result<Vec<PathBuf>>>()?;
        let mut known_hosts = reach.known_hosts.into_iter().map(&mut put).collect::<io::Result<Vec<_>>>()?;
        if known_hosts.is_empty() {
            // Otherwise ssh would look elsewhere.
            known_hosts.push(put(Handed { path: "known_hosts".into(), text: String::new() })?);
        }
        for (key, certificate) in keys.iter().zip(reach.certificates) {
            let Some(certificate) = certificate else { continue };
            let mut path = key.clone().into_os_string();
            path.push(CERTIFICATE);
            std::fs::write(&path, certificate.text)?;
        }
        // It keeps its name while it says the same: so does the client that was built with it.
        let ca_file = reach.ca.map(|ca| {
            let path = self.scratch.join(Digest::of(ca.text.as_bytes()).short());
            let mut file = tempfile::NamedTempFile::new_in(&self.scratch)?;
            file.write_all(ca.text.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)?;
            places.push((path.display().to_string(), ca.path.display().to_string()));
            Ok::<_, io::Error>(path)
        });
        let ca_file = ca_file.transpose()?;
        let token = reach.token.map(|HandedToken { user, token, hint }| Token::Told { user, token, hint });
        let remote = Remote {
            url: reach.url,
            branch: reach.branch,
            ssh: Ssh { keys, known_hosts, config: None },
            ca_file,
            token,
            proxies: Some(reach.proxies),
            whole: reach.whole,
            growth: reach.bounds,
            slack: reach.slack,
        };
        Ok(Settled { remote, deadlines: reach.deadlines, places, _folder: folder })
    }
}

/// A remote, and where the files that it names are on the host.
struct Settled {
    remote: Remote,
    deadlines: Deadlines,
    places: Vec<(String, String)>,
    /// The keys are gone with it.
    _folder: tempfile::TempDir,
}

fn unsettled(error: &io::Error) -> String {
    format!("the fetcher has no place for the keys that it was given: {error}")
}

impl Settled {
    /// Says why a fetch failed, with the places that a person knows.
    fn tell(&self, failure: &Failure) -> NotFetched {
        match NotFetched::of(failure) {
            NotFetched::Unreachable(after, why) => NotFetched::Unreachable(after, self.placed(why)),
            NotFetched::Denied(why) => NotFetched::Denied(self.placed(why)),
            NotFetched::Config(why) => NotFetched::Config(self.placed(why)),
            NotFetched::Odd(why) => NotFetched::Odd(self.placed(why)),
            other => other,
        }
    }

    fn in_their_words(&self, why: NotPushed) -> NotPushed {
        match why {
            NotPushed::Retryable(why) => NotPushed::Retryable(self.placed(why)),
            NotPushed::Denied(why) => NotPushed::Denied(self.placed(why)),
            NotPushed::Other(why) => NotPushed::Other(self.placed(why)),
        }
    }

    fn placed(&self, why: String) -> String {
        self.places.iter().fold(why, |why, (here, there)| why.replace(here, there))
    }
}

/// Raises the flag when the other end hangs up, so that nothing goes on for nobody.
fn watch_over(stream: &UnixStream, gone: &AtomicBool, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        // No data is waited for: only the end of them, of which the kernel tells unasked.
        match wait_for(stream, PollFlags::RDHUP, SLICE) {
            Ok(false) => {}
            Ok(true) | Err(_) => {
                gone.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

fn converse_for_push(
    link: &mut Link<'_>,
    remote: &Remote,
    names: &[&str],
    kept: &Kept,
    watch: &Watch<'_>,
) -> io::Result<Result<(), NotPushed>> {
    let values = Line::open(remote, names, kept, watch).and_then(|mut line| Ok((line.values(names)?, line)));
    let (values, line) = match values {
        Ok(found) => found,
        Err(error) => return Ok(Err(NotPushed::of(&error))),
    };
    link.say(&Said::Values(values.into_iter().map(|id| id.map(super::link::Id)).collect()))?;
    let commands: Commands = match link.hear() {
        Ok(commands) => commands,
        // There is nothing to push.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || watch.cancel.load(Ordering::Relaxed) => {
            line.hang_up();
            return Ok(Ok(()));
        }
        Err(error) => return Err(error),
    };
    if commands.pack > MAX_PACK {
        line.hang_up();
        return Ok(Err(NotPushed::Other(format!("the pack has {} bytes, which is too much", commands.pack))));
    }
    let mut pack = Vec::new();
    link.take(commands.pack).read_to_end(&mut pack)?;
    match line.send(commands.refs, &pack) {
        Ok(refused) => link.say(&Said::Refused(refused))?,
        Err(error) => return Ok(Err(NotPushed::of(&error))),
    }
    Ok(Ok(()))
}

/// Hands out objects until nobody asks for more.
fn hand_out(link: &mut Link<'_>, mirror: &Mirror) -> io::Result<()> {
    loop {
        let wants: Wants = match link.hear() {
            Ok(wants) => wants,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut buffer = Vec::new();
        for want in wants.ids {
            let Ok(header) = mirror.repo.find_header(want.0) else {
                mirror.suspect.set(true);
                buffer.extend_from_slice(&[0; 9]);
                continue;
            };
            let is_small = header.size() <= wants.most;
            let object = is_small.then(|| mirror.repo.find_object(want.0));
            if matches!(object, Some(Err(_))) {
                mirror.suspect.set(true);
                buffer.extend_from_slice(&[0; 9]);
                continue;
            }
            buffer.push(match header.kind() {
                Kind::Commit => 1,
                Kind::Tree => 2,
                Kind::Blob => 3,
                Kind::Tag => 4,
            });
            buffer.extend_from_slice(&header.size().to_be_bytes());
            let Some(Ok(object)) = object else { continue };
            if object.data.len() < SMALL {
                buffer.extend_from_slice(&object.data);
            }
            if buffer.len() > SMALL || object.data.len() >= SMALL {
                link.write_all(&buffer)?;
                buffer.clear();
            }
            if object.data.len() >= SMALL {
                link.write_all(&object.data)?;
            }
        }
        link.write_all(&buffer)?;
    }
}
