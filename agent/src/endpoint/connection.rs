//! Connections: so many and no more, each with a bound on its time, its headers and its buffers.
//!
//! When there are too many, the one that has asked for nothing for the longest goes: ten thousand that only sit there keep
//! nobody out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::answer::Answer;

/// Connections of one listener at once.
const MOST: usize = 64;
/// So many in a row for which others had to go are a crowd. One at a time, each with a breath after it, would let ten
/// thousand keep the door shut for half a minute.
const CROWD: usize = 16;
/// How long a client may take to say what it wants, the next thing included.
const HEADERS: Duration = Duration::from_secs(10);
/// How long it may take to send the rest and to read the answer.
const REQUEST: Duration = Duration::from_secs(30);
/// The most that is held of what a client sends before it is read: no header line of ours is longer.
const BUFFER: usize = 16 << 10;
/// The most header lines.
const LINES: usize = 64;

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Slot {
    opened: Instant,
    /// Milliseconds after `opened` at which it ends, whatever it does; zero while nothing was asked.
    until: AtomicU64,
    /// Milliseconds after `opened` at which it asked for something last.
    asked: AtomicU64,
    /// An answer is being worked out, or is one that does not end.
    is_busy: AtomicBool,
}

impl Slot {
    fn new() -> Arc<Slot> {
        let (until, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Slot { opened: Instant::now(), until, asked, is_busy: AtomicBool::new(false) })
    }

    /// Gives the connection so much time from now.
    pub(super) fn extend(&self, time: Duration) {
        self.until.store(millis(self.opened.elapsed() + time), Ordering::Relaxed);
    }

    fn begin(&self) {
        self.asked.store(millis(self.opened.elapsed()), Ordering::Relaxed);
        self.is_busy.store(true, Ordering::Relaxed);
        self.extend(REQUEST);
    }

    fn end(&self, answer: &Answer) {
        // A stream is over when the connection is.
        let is_stream = matches!(answer.body(), http_body_util::Either::Right(_));
        self.is_busy.store(is_stream, Ordering::Relaxed);
    }

    fn until(&self) -> Instant {
        let until = match self.until.load(Ordering::Relaxed) {
            0 => HEADERS + REQUEST,
            until => Duration::from_millis(until),
        };
        self.opened + until
    }

    fn asked(&self) -> Instant {
        self.opened + Duration::from_millis(self.asked.load(Ordering::Relaxed))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The connections of one listener.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: Vec<(Arc<Slot>, AbortHandle)>,
    /// So many came in a row for which another one had to go.
    crowd: usize,
}

impl Connections {
    /// Takes one more in. Says whether there is such a crowd that it is others' turn.
    pub(super) fn take_in<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<Slot>) -> W,
    ) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() < MOST {
            self.crowd = 0;
        } else {
            self.crowd = self.crowd % CROWD + 1;
            let idle = self.open.iter().enumerate().filter(|(_, (slot, _))| !slot.is_busy.load(Ordering::Relaxed));
            let Some((longest, _)) = idle.min_by_key(|(_, (slot, _))| slot.asked()) else {
                debug!("all connections are busy; another one is closed");
                return true;
            };
            self.open.swap_remove(longest).1.abort();
        }
        let slot = Slot::new();
        let task = self.tasks.spawn(work(Arc::clone(&slot)));
        self.open.push((slot, task));
        self.crowd == CROWD
    }
}

/// Speaks HTTP with one client until either has enough.
pub(super) async fn serve<S, F, R>(stream: S, slot: Arc<Slot>, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send,
    R: Future<Output = Answer> + Send,
{
    let service = service_fn(|request| {
        slot.begin();
        let (slot, answer) = (Arc::clone(&slot), answer(request));
        async move {
            let answer = answer.await;
            slot.end(&answer);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER).max_headers(LINES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    loop {
        let until = slot.until();
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "a client went away, or was sent away");
                }
                return;
            }
            () = sleep_until(until) => if slot.until() <= Instant::now() {
                debug!("a client took too long");
                return;
            }
        }
    }
}
