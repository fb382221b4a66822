//! The socket between the agent and its fetcher, which talks to servers in its place: without root, and without the host's files.
//!
//! One connection is one conversation with a server. Both sides are the same program, so this is no format for anybody else: a length
//! of four bytes, then JSON; packs and objects follow as they are. What the fetcher sends is bounded and believed by nobody: objects
//! are what their names say (see [`super::walk`]), and words are for people only.

use std::collections::BTreeMap;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;
use rustix::event::PollFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spec::id::shown;

use super::command::wait_for;
use super::error::{Cap, Deadline, Failure, FetchError, PushError, because};
use super::remote::{Bounds, BranchName, Deadlines, Remote, Url};

/// What the agent says first to the fetcher where it wants something of git.
pub const OPENING: u8 = b'g';
/// The longest list of refs, as JSON: a server's own is bounded to as much, and every name and value of it is longer there.
const MAX_LIST: u32 = 32 << 20;
/// The longest of anything else; keys, certificates and what a push is expected to find are among it.
const MAX_TEXT: u32 = 16 << 20;
/// The longest word of the fetcher about how a conversation went.
pub(super) const MAX_WORD: u32 = 256 << 10;
/// The most that a reason says.
const MAX_REASON: usize = 2000;
/// How long a wait goes on before the cancel flag is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// One end of a connection.
pub(super) struct Link<'c> {
    input: BufReader<Half<'c>>,
    output: Half<'c>,
}

/// One direction of it; no read or write outlasts the deadline or the cancel flag.
struct Half<'c> {
    stream: UnixStream,
    ends: Instant,
    cancel: &'c AtomicBool,
}

impl<'c> Link<'c> {
    /// Connects to who listens at a path.
    ///
    /// # Errors
    /// Nobody does, or this process may not.
    pub(super) fn connect(path: &Path, ends: Instant, cancel: &'c AtomicBool) -> io::Result<Link<'c>> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let address = SocketAddrUnix::new(path)?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                // Too many wait there already; the kernel tells nobody when there is room.
                Err(rustix::io::Errno::AGAIN) => {
                    look(ends, cancel)?;
                    std::thread::park_timeout(SLICE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut link = Link::new(UnixStream::from(socket), ends, cancel)?;
        link.write_all(&[OPENING])?;
        Ok(link)
    }

    /// Takes one end of a connection, on which everything has to be said before an instant.
    ///
    /// # Errors
    /// The kernel has no more room for it.
    pub(super) fn new(stream: UnixStream, ends: Instant, cancel: &'c AtomicBool) -> io::Result<Link<'c>> {
        stream.set_nonblocking(true)?;
        let output = Half { stream: stream.try_clone()?, ends, cancel };
        Ok(Link { input: BufReader::with_capacity(64 << 10, Half { stream, ends, cancel }), output })
    }

    /// Moves the deadline.
    pub(super) fn until(&mut self, ends: Instant) {
        (self.input.get_mut().ends, self.output.ends) = (ends, ends);
    }

    /// Says something.
    ///
    /// # Errors
    /// Nobody listens any more, in time.
    pub(super) fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, what)?;
        let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= MAX_LIST);
        let length = length.ok_or_else(|| io::Error::other("there is too much to say"))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.write_all(&frame)
    }

    /// Hears something.
    ///
    /// # Errors
    /// Nothing was said in time, or what makes no sense.
    pub(super) fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.hear_at_most(MAX_TEXT)
    }

    /// Hears a list of refs.
    ///
    /// # Errors
    /// See [`Link::hear`].
    pub(super) fn hear_list<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.hear_at_most(MAX_LIST)
    }

    /// Hears something that has no more bytes than so many.
    ///
    /// # Errors
    /// See [`Link::hear`].
    pub(super) fn hear_at_most<T: DeserializeOwned>(&mut self, most: u32) -> io::Result<T> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > most {
            return Err(io::Error::other(format!("{length} bytes were announced, which is too much")));
        }
        let mut text = Vec::new();
        self.input.by_ref().take(length.into()).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Returns how long there still is.
///
/// # Errors
/// There is no time left, or nobody wants it any more.
fn look(ends: Instant, cancel: &AtomicBool) -> io::Result<Duration> {
    let left = ends.saturating_duration_since(Instant::now());
    if cancel.load(Ordering::Relaxed) {
        return Err(io::Error::other("it was cancelled"));
    }
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Half<'_> {
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let left = look(self.ends, self.cancel)?;
        wait_for(&self.stream, what, SLICE.min(left))?;
        Ok(())
    }
}

impl Read for Half<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN)?,
                // Who never pauses would otherwise never be waited for; and an end that has come is an end.
                Ok(read) if read > 0 => return look(self.ends, self.cancel).map(|_| read),
                done => return done,
            }
        }
    }
}

impl Write for Half<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            look(self.ends, self.cancel)?;
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Link<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Link<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the agent asks for first.
#[derive(Serialize, Deserialize)]
pub(super) enum Ask {
    /// A list of what matches these refspecs and, when it is told so, their objects; then those that it wants, until it hangs up.
    Pull(Reach, Vec<String>),
    /// The values that these refs have, and to replace them; with what a server is expected to say first.
    Push(Reach, Vec<String>, Option<Vec<u8>>),
}

/// What the agent says to a list.
#[derive(Serialize, Deserialize)]
pub(super) enum Verdict {
    /// Receive what is new.
    Take,
    /// There is nothing to receive.
    Leave,
}

/// What the agent wants the server to have: names with old and new values, and the length of the pack that follows.
#[derive(Serialize, Deserialize)]
pub(super) struct Commands {
    /// The refs.
    pub(super) refs: Vec<(String, Id, Id)>,
    /// In bytes.
    pub(super) pack: u64,
}

/// Objects that the agent wants. Each is sent as one byte for its kind (gitformat-pack(5); 0: it is not there), eight for its length,
/// and itself.
#[derive(Serialize, Deserialize)]
pub(super) struct Wants {
    /// Which.
    pub(super) ids: Vec<Id>,
    /// Of one that has more bytes, only the head is sent.
    pub(super) most: u64,
}

/// What the fetcher says.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    /// What the server has.
    Listed(Vec<Named>),
    /// Everything came in, in so many bytes.
    Received(u64),
    /// The values that refs have at the server, in the order in which they were asked for.
    Values(Vec<Option<Id>>),
    /// Why refs were refused, by name.
    Refused(BTreeMap<String, String>),
    /// A fetch led nowhere; the second: the token was not accepted.
    NotFetched(NotFetched, bool),
    /// A push led nowhere, likewise.
    NotPushed(NotPushed, bool),
}

/// A ref and what it points at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Named {
    /// Its whole name.
    pub(super) name: String,
    /// Its value.
    pub(super) id: Id,
}

/// The name of an object, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Id(pub(super) ObjectId);

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Id, String> {
        let id = ObjectId::from_hex(text.as_bytes()).map_err(|error| error.to_string())?;
        if id.kind() == gix::hash::Kind::Sha1 { Ok(Id(id)) } else { Err("no SHA-1".to_owned()) }
    }
}

impl From<Id> for String {
    fn from(Id(id): Id) -> String {
        id.to_string()
    }
}

/// A remote with everything that it takes to reach it, for who cannot read files.
#[derive(Serialize, Deserialize)]
pub(super) struct Reach {
    pub(super) url: Url,
    pub(super) branch: BranchName,
    pub(super) keys: Vec<Handed>,
    /// What certifies each of them, where something does (ssh-keygen(1), "CERTIFICATES").
    pub(super) certificates: Vec<Option<Handed>>,
    pub(super) known_hosts: Vec<Handed>,
    pub(super) ca: Option<Handed>,
    pub(super) token: Option<HandedToken>,
    /// Variables that name proxies.
    pub(super) proxies: Vec<(String, String)>,
    /// What the conversation may bring.
    pub(super) bounds: Bounds,
    /// The same, where the fetcher has nothing of it yet.
    pub(super) whole: Bounds,
    /// See [`Remote::slack`].
    pub(super) slack: u64,
    pub(super) deadlines: Deadlines,
}

/// A file that the agent read.
#[derive(Serialize, Deserialize)]
pub(super) struct Handed {
    /// Where, for messages.
    pub(super) path: PathBuf,
    /// What it holds.
    pub(super) text: String,
}

/// A token for https.
#[derive(Serialize, Deserialize)]
pub(super) struct HandedToken {
    /// Whose it is.
    pub(super) user: String,
    /// Itself.
    pub(super) token: String,
    /// What to do where it is not accepted.
    pub(super) hint: String,
}

/// Why a fetch led nowhere; see [`FetchError`].
#[derive(Serialize, Deserialize)]
pub(super) enum NotFetched {
    Unreachable(Option<Duration>, String),
    Denied(String),
    TooLarge(Cap),
    Config(String),
    TimedOut(Deadline),
    Cancelled,
    /// Neither the network nor the settings.
    Odd(String),
}

impl NotFetched {
    /// Tells a failure, with its reasons in words.
    pub(super) fn of(failure: &Failure) -> NotFetched {
        let error = match failure {
            Failure::Odd(source) => return NotFetched::Odd(crate::chain(&**source)),
            Failure::Plain(error) => error,
        };
        match error {
            FetchError::Unreachable { retry_after, source, .. } => {
                NotFetched::Unreachable(*retry_after, crate::chain(&**source))
            }
            FetchError::Denied { source, .. } => NotFetched::Denied(crate::chain(&**source)),
            FetchError::Config { source, .. } => NotFetched::Config(crate::chain(&**source)),
            FetchError::TooLarge { cap, .. } => NotFetched::TooLarge(*cap),
            FetchError::TimedOut { deadline, .. } => NotFetched::TimedOut(*deadline),
            FetchError::Cancelled { .. } => NotFetched::Cancelled,
            FetchError::RefMissing { .. } | FetchError::Corrupt { .. } => NotFetched::Odd(crate::chain(error)),
            // Its disk is another one than the mirror's: what is here can still be written.
            FetchError::Local { source, .. } => {
                NotFetched::Unreachable(None, format!("what it sent cannot be stored: {}", crate::chain(&**source)))
            }
        }
    }

    /// Returns it as what it was.
    pub(super) fn into_failure(self, remote: &Remote) -> Failure {
        let url = remote.url.to_string();
        Failure::Plain(match self {
            NotFetched::Odd(why) => return Failure::Odd(reason(&why)),
            NotFetched::Unreachable(retry_after, why) => {
                FetchError::Unreachable { url, retry_after, source: reason(&why) }
            }
            NotFetched::Denied(why) => FetchError::Denied { url, source: reason(&why) },
            NotFetched::Config(why) => FetchError::Config { url, source: reason(&why) },
            NotFetched::TooLarge(cap) => FetchError::TooLarge { url, cap },
            NotFetched::TimedOut(deadline) => FetchError::TimedOut { url, deadline },
            NotFetched::Cancelled => FetchError::Cancelled { url },
        })
    }
}

/// Why a push led nowhere; see [`PushError`].
#[derive(Serialize, Deserialize)]
pub(super) enum NotPushed {
    Retryable(String),
    Denied(String),
    Other(String),
}

impl NotPushed {
    /// Tells a failure, with its reasons in words.
    pub(super) fn of(error: &PushError) -> NotPushed {
        match error {
            PushError::Retryable { source, .. } => NotPushed::Retryable(crate::chain(&**source)),
            PushError::Denied { source, .. } => NotPushed::Denied(crate::chain(&**source)),
            PushError::Other { source, .. } => NotPushed::Other(crate::chain(&**source)),
        }
    }

    /// Returns it as what it was.
    pub(super) fn into_error(self, remote: &Remote, name: &str) -> PushError {
        let (url, name) = (remote.url.to_string(), name.to_owned());
        match self {
            NotPushed::Retryable(why) => PushError::Retryable { url, name, source: reason(&why) },
            NotPushed::Denied(why) => PushError::Denied { url, name, source: reason(&why) },
            NotPushed::Other(why) => PushError::Other { url, name, source: reason(&why) },
        }
    }
}

/// Returns what the fetcher gave as a reason, as far as people need it and safe to print.
fn reason(why: &str) -> super::mirror::Source {
    because(shown(&why.chars().take(MAX_REASON).collect::<String>()))
}
