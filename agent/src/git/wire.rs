//! Bytes to and from a server over a socket or a child's pipes, under deadlines, a byte cap and a cancel flag.
//!
//! No read or write here blocks for longer than a fraction of a second without looking at all of them, so nothing above
//! can hang; a conversation needs no helper thread that might have to be abandoned.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::command::{Running, wait_for};
use super::complaints;
use super::error::{Cap, Deadline, Verdict, because};
use super::opening::{Guess, Held, MAX_OPENING};
use super::remote::{Bounds, Deadlines};

/// How long a wait goes on before the cancel flag is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// How long a server's address may leave a connection unanswered before it is asked anew, about.
const KNOCK: Duration = Duration::from_secs(2);

/// Fewer bytes a second than this, while we wait for nothing else, are silence: a server that drips would otherwise hold
/// a conversation until its very last deadline.
const MIN_RATE: u128 = 512;

/// How an answer comes in: the time that was spent waiting for it, and its bytes.
#[derive(Clone, Copy, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

/// What bounds one conversation, and the reason it was given up for.
pub(super) struct Watch<'c> {
    pub(super) cancel: &'c AtomicBool,
    pub(super) deadlines: Deadlines,
    ends: Instant,
    pub(super) bounds: Bounds,
    cap: Cell<u64>,
    /// What that is of, as people are told.
    most: Cell<Cap>,
    received: Cell<u64>,
    pace: Cell<Pace>,
    pub(super) guess: RefCell<Guess>,
    /// The server did not accept the token.
    pub(super) refused: Cell<bool>,
    /// Programs are not run by this process, which may have no network.
    pub(super) outside: Cell<bool>,
    verdict: RefCell<Option<Verdict>>,
}

impl<'c> Watch<'c> {
    pub(super) fn new(deadlines: &Deadlines, bounds: Bounds, cancel: &'c AtomicBool) -> Watch<'c> {
        Watch {
            cancel,
            deadlines: *deadlines,
            ends: Instant::now() + deadlines.total,
            bounds,
            cap: Cell::new(bounds.bytes),
            most: Cell::new(Cap::Bytes(bounds.bytes)),
            received: Cell::new(0),
            pace: Cell::default(),
            guess: RefCell::default(),
            refused: Cell::new(false),
            outside: Cell::new(false),
            verdict: RefCell::new(None),
        }
    }

    /// Records why the conversation is given up; the first reason stands.
    pub(super) fn fail(&self, verdict: Verdict) -> io::Error {
        let mut slot = self.verdict.borrow_mut();
        let message = format!("given up: {verdict:?}");
        slot.get_or_insert(verdict);
        io::Error::other(message)
    }

    /// Returns the recorded reason.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.borrow_mut().take()
    }

    /// Returns how long to wait now, for something that has been quiet since `quiet` and may be for `patience`.
    pub(super) fn slice(&self, quiet: Instant, patience: Duration, which: Deadline) -> io::Result<Duration> {
        let now = Instant::now();
        if self.cancel.load(Ordering::Relaxed) {
            return Err(self.fail(Verdict::Cancelled));
        }
        if now >= self.ends {
            return Err(self.fail(Verdict::TimedOut(Deadline::Total)));
        }
        if now >= quiet + patience {
            return Err(self.fail(Verdict::TimedOut(which)));
        }
        Ok(SLICE.min(self.ends - now).min(quiet + patience - now))
    }

    /// Counts what was received against the cap.
    pub(super) fn count(&self, bytes: usize) -> io::Result<()> {
        let received = self.received.get() + bytes as u64;
        self.received.set(received);
        if received > self.cap.get() {
            return Err(self.fail(Verdict::TooLarge(self.most.get())));
        }
        Ok(())
    }

    /// Takes note of what somebody else received in the place of this process.
    pub(super) fn note(&self, bytes: u64) {
        self.received.set(self.received.get().saturating_add(bytes));
    }

    /// Begins to measure the speed of an answer, when a question was asked.
    pub(super) fn asked(&self) {
        self.pace.set(Pace::default());
    }

    /// Takes note that `bytes` of the answer came after waiting for `waited`. Whenever the waiting adds up to the
    /// deadline for silence, the bytes of that time have to be enough.
    pub(super) fn paced(&self, waited: Duration, bytes: usize) -> io::Result<()> {
        let pace = self.pace.get();
        let pace = Pace { waited: pace.waited + waited, bytes: pace.bytes + bytes as u64 };
        if pace.waited < self.deadlines.stall {
            self.pace.set(pace);
            return Ok(());
        }
        self.pace.set(Pace::default());
        if u128::from(pace.bytes) < self.deadlines.stall.as_millis() * MIN_RATE / 1000 {
            return Err(self.fail(Verdict::TimedOut(Deadline::Stall)));
        }
        Ok(())
    }

    /// Sets what may be received from now on, of a list or of a pack.
    pub(super) fn set_cap(&self, bytes: u64, is_list: bool) {
        self.cap.set(bytes.saturating_add(self.received.get()));
        self.most.set(if is_list { Cap::List(bytes) } else { Cap::Bytes(bytes) });
    }

    /// Returns how many bytes were received.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Returns the moment at which everything must be done.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }
}

/// The reading half of a connection.
pub(super) struct Reader<'w>(Rc<Wire<'w>>);

/// The writing half. It collects what is written until somebody waits for the answer: one request is one packet, and
/// never waits for Nagle's algorithm (41 ms per exchange against the delayed ACK of the other side).
pub(super) struct Writer<'w>(Rc<Wire<'w>>);

struct Wire<'w> {
    input: OwnedFd,
    output: OwnedFd,
    unsent: RefCell<Vec<u8>>,
    stage: RefCell<Stage>,
    socket: bool,
    child: Option<Running>,
    watch: &'w Watch<'w>,
}

/// How far the opening of a conversation went, see [`super::opening`].
enum Stage {
    /// Nothing was sent yet.
    Greeting,
    /// What follows the greeting was sent with it, and gix still has to write the rest of it, from this byte on.
    Ahead(Vec<u8>, usize),
    /// The greeting was sent; what gix writes next is collected.
    Learning(Vec<u8>),
    /// The opening is over.
    Over,
}

/// Connects to a git daemon.
///
/// # Errors
/// The verdict is in `watch`.
pub(super) fn tcp<'w>(host: &str, port: u16, watch: &'w Watch<'w>) -> io::Result<(Reader<'w>, Writer<'w>)> {
    let started = Instant::now();
    let addresses = resolve(host, port, watch)?;
    let mut last = because(format!("`{host}` has no address"));
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let patience = (started + watch.deadlines.connect).saturating_duration_since(Instant::now()) / left.max(1);
        left -= 1;
        if patience.is_zero() {
            return Err(watch.fail(Verdict::TimedOut(Deadline::Connect)));
        }
        match knock(&address, patience, watch) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let output = OwnedFd::from(stream.try_clone()?);
                return Ok(halves(stream.into(), output, None, true, watch));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && left == 0 => {
                return Err(watch.fail(Verdict::TimedOut(Deadline::Connect)));
            }
            Err(error) => last = Box::new(error),
        }
    }
    Err(watch.fail(Verdict::Unreachable(None, last)))
}

/// Connects, and tries anew after a few seconds, and then ever fewer times. The kernel repeats what a full queue dropped after 1, 3, 7,
/// 15 s, at the same instants for all who came at once, so that most of them meet a full queue again (git-daemon(1) has five places).
fn knock(address: &SocketAddr, patience: Duration, watch: &Watch<'_>) -> io::Result<TcpStream> {
    let ends = Instant::now() + patience;
    let mut wait = KNOCK;
    loop {
        let left = ends.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let drawn = wait.mul_f64(0.5 + fastrand::f64());
        match TcpStream::connect_timeout(address, drawn.min(left)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && drawn < left => wait = wait.mul_f64(1.5),
            done => return done,
        }
        if watch.cancel.load(Ordering::Relaxed) {
            return Err(watch.fail(Verdict::Cancelled));
        }
    }
}

/// Resolves `host` in a thread of its own, because the C library's resolver knows no deadline; a resolver that hangs is
/// left behind and ends on its own.
fn resolve(host: &str, port: u16, watch: &Watch<'_>) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    std::thread::Builder::new().name("git-resolve".to_owned()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        if sender.send(found).is_err() {
            tracing::debug!(host = name, "the name was resolved too late");
        }
    })?;
    let started = Instant::now();
    loop {
        let slice = watch.slice(started, watch.deadlines.connect, Deadline::Connect)?;
        match receiver.recv_timeout(slice) {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => return Err(watch.fail(Verdict::Unreachable(None, Box::new(error)))),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(watch.fail(Verdict::Unreachable(None, because("the resolver ended without an answer"))));
            }
        }
    }
}

/// Talks to a child process through its standard input and output.
///
/// # Errors
/// The verdict is in `watch`.
pub(super) fn child<'w>(
    mut command: std::process::Command,
    watch: &'w Watch<'w>,
) -> io::Result<(Reader<'w>, Writer<'w>)> {
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut running = Running::start(command).map_err(|error| {
        watch.fail(Verdict::Config(because(format!("failed to start `{name}`: {error}; is it installed?"))))
    })?;
    let (Some(output), Some(input)) = (running.child.stdin.take(), running.child.stdout.take()) else {
        return Err(io::Error::other("a child process without pipes"));
    };
    let (input, output) = (OwnedFd::from(input), OwnedFd::from(output));
    for fd in [&input, &output] {
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok(halves(input, output, Some(running), false, watch))
}

fn halves<'w>(
    input: OwnedFd,
    output: OwnedFd,
    child: Option<Running>,
    socket: bool,
    watch: &'w Watch<'w>,
) -> (Reader<'w>, Writer<'w>) {
    let (unsent, stage) = (RefCell::default(), RefCell::new(Stage::Greeting));
    let wire = Rc::new(Wire { input, output, unsent, stage, socket, child, watch });
    (Reader(Rc::clone(&wire)), Writer(wire))
}

impl Wire<'_> {
    fn wait(&self, fd: &OwnedFd, what: PollFlags, quiet: Instant) -> io::Result<()> {
        let slice = self.watch.slice(quiet, self.watch.deadlines.stall, Deadline::Stall)?;
        wait_for(&fd.as_fd(), what, slice)?;
        Ok(())
    }

    /// Sends what is expected to follow the greeting along with it.
    fn greet(&self) {
        let mut stage = self.stage.borrow_mut();
        if !matches!(*stage, Stage::Greeting) {
            return;
        }
        let mut guess = self.watch.guess.borrow_mut();
        *stage = match &guess.expected {
            None => Stage::Learning(Vec::new()),
            Some(expected) => {
                self.unsent.borrow_mut().extend_from_slice(expected);
                Stage::Ahead(expected.clone(), 0)
            }
        };
        if guess.expected.is_some() {
            guess.held = Held::Used;
        }
    }

    /// Returns what of `bytes` is still to be sent.
    ///
    /// # Errors
    /// Something else was sent ahead.
    fn ahead<'b>(&self, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        let mut stage = self.stage.borrow_mut();
        match &mut *stage {
            Stage::Ahead(sent, at) => {
                let length = bytes.len().min(sent.len() - *at);
                if sent[*at..*at + length] != bytes[..length] {
                    return Err(io::Error::other("something else than this was sent ahead"));
                }
                *at += length;
                if *at == sent.len() {
                    self.watch.guess.borrow_mut().held = Held::Confirmed;
                    *stage = Stage::Over;
                }
                Ok(&bytes[length..])
            }
            Stage::Learning(request) if request.len() + bytes.len() > MAX_OPENING => {
                // A pack that is pushed, for instance.
                *stage = Stage::Over;
                Ok(bytes)
            }
            Stage::Learning(request) => {
                request.extend_from_slice(bytes);
                Ok(bytes)
            }
            Stage::Greeting | Stage::Over => Ok(bytes),
        }
    }

    /// Takes note of the first request after the greeting, when its answer is about to be read.
    fn learn(&self) {
        let mut stage = self.stage.borrow_mut();
        if let Stage::Learning(request) = &*stage
            && !request.is_empty()
        {
            self.watch.guess.borrow_mut().learn_request(request);
            *stage = Stage::Over;
        }
    }

    fn send(&self) -> io::Result<()> {
        self.greet();
        let unsent = std::mem::take(&mut *self.unsent.borrow_mut());
        if !unsent.is_empty() {
            self.watch.asked();
        }
        let mut rest = unsent.as_slice();
        let mut quiet = Instant::now();
        while !rest.is_empty() {
            match rustix::io::write(&self.output, rest) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    quiet = Instant::now();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(&self.output, PollFlags::OUT, quiet)?,
                // No verdict: what the server said before it closed is still to be read, and a farewell that comes too
                // late must not become the reason of an earlier failure.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.send()
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            return Err(error);
        }
        self.learn();
        let quiet = Instant::now();
        loop {
            if self.socket {
                // Asks for ACKs at once: the server's Nagle would otherwise hold its next small packet back for 40 ms.
                // It is only a hint, so a kernel that refuses it changes nothing.
                if let Err(error) = rustix::net::sockopt::set_tcp_quickack(&self.input, true) {
                    tracing::trace!(%error, "acknowledgements may be delayed");
                }
            }
            match rustix::io::read(&self.input, &mut *buffer) {
                Ok(0) => {
                    // Also the normal end of a conversation: only an error above makes this the reason.
                    self.broken(because("the server closed the connection"));
                    return Ok(0);
                }
                Ok(received) => {
                    self.watch.count(received)?;
                    self.watch.paced(quiet.elapsed(), received)?;
                    return Ok(received);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(&self.input, PollFlags::IN, quiet)?,
                Err(error) => return Err(self.broken(Box::new(error))),
            }
        }
    }

    /// Records that the connection ended, with what the child, if there is one, said about it.
    fn broken(&self, error: Box<dyn std::error::Error + Send + Sync>) -> io::Error {
        let said = self.child.as_ref().map(|child| child.complaints(Duration::from_millis(500))).unwrap_or_default();
        self.watch.fail(if said.is_empty() { Verdict::Unreachable(None, error) } else { complaints::classify(&said) })
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buffer)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let collected = {
            let rest = self.0.ahead(bytes)?;
            let mut unsent = self.0.unsent.borrow_mut();
            unsent.extend_from_slice(rest);
            unsent.len()
        };
        if collected > 256 << 10 {
            self.0.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.send()
    }
}
