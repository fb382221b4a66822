//! The fetcher: the process that talks to servers and reads what they send, without root and without the host's files. The agent asks it
//! over a socket that only root may open, and believes nothing that it says of git (see [`crate::git`]).
//!
//! systemd starts it when it is asked, and it ends when nobody has asked for a while: what it keeps is a mirror, and a start of it takes
//! milliseconds. It also ends when a server was not found, because it sees the resolver's files as they were when it started.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tracing::{debug, warn};

use crate::{git, seal, web};

/// How long it stays without being asked: longer than the usual time between two polls.
const IDLE: Duration = Duration::from_secs(120);
/// So many conversations at once are more than the checks of one host and a few people have.
const MOST: usize = 256;
/// How often is looked whether it is time to end.
const SLICE: Duration = Duration::from_secs(5);
/// How long may pass until it is said what is wanted.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// Nobody gave it a socket.
    #[error(
        "there is no socket to be asked over: `systemctl start mainstay-fetch.socket` makes one, and starts this when it is needed"
    )]
    NoSocket,
    /// It has no folder of its own.
    #[error("${0} names no folder: mainstay-fetch.service does")]
    NoFolder(&'static str),
    /// The socket cannot be used.
    #[error("failed to listen")]
    Socket(#[source] io::Error),
}

/// Answers at the socket that the service manager passes, with a mirror and keys in the folders that it names, until nobody has asked
/// for a while.
///
/// # Errors
/// It was not started as mainstay-fetch.service.
pub async fn run() -> Result<(), FetcherError> {
    // Keys and tokens are handed to it.
    seal::leave_no_core();
    let folder = |name| std::env::var_os(name).map(PathBuf::from).ok_or(FetcherError::NoFolder(name));
    let listener = listenfd::ListenFd::from_env().take_unix_listener(0).map_err(FetcherError::Socket)?;
    let listener = listener.ok_or(FetcherError::NoSocket)?;
    let (state, scratch) = (folder("STATE_DIRECTORY")?, folder("RUNTIME_DIRECTORY")?);
    let desk = Arc::new(Desk {
        git: git::Fetcher::new(&state.join("mirror.git"), &scratch),
        web: web::Server::default(),
        active: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    });
    answer(listener, &desk).await.map_err(FetcherError::Socket)
}

/// Who answers.
struct Desk {
    git: git::Fetcher,
    web: web::Server,
    /// How many conversations are under way.
    active: AtomicUsize,
    /// A git server was not found.
    lost: AtomicBool,
}

async fn answer(listener: UnixListener, desk: &Arc<Desk>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut since = Instant::now();
    loop {
        let is_quiet = desk.active.load(Ordering::Acquire) == 0;
        if is_quiet && (since.elapsed() >= IDLE || desk.lost.load(Ordering::Relaxed)) {
            return Ok(());
        }
        if !is_quiet {
            since = Instant::now();
        }
        let stream = match tokio::time::timeout(SLICE, listener.accept()).await {
            Err(_) => continue,
            Ok(Ok((stream, _))) => stream,
            Ok(Err(error)) => {
                debug!(%error, "a connection could not be taken");
                tokio::time::sleep(SLICE).await;
                continue;
            }
        };
        since = Instant::now();
        // Counted down even where it panics: the next one has a chance.
        let active = Active::begin(desk);
        if desk.active.load(Ordering::Acquire) > MOST {
            warn!("more is asked for than {MOST} conversations at once; one is turned away");
            continue;
        }
        tokio::spawn(async move {
            if let Err(error) = active.0.converse(stream).await {
                warn!("a conversation ended before it was over: {error}");
            }
        });
    }
}

impl Desk {
    async fn converse(self: &Arc<Desk>, mut stream: UnixStream) -> io::Result<()> {
        let opening = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        match opening.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            web::OPENING => self.web.serve(stream).await,
            git::OPENING => {
                let (stream, desk) = (stream.into_std()?, Arc::clone(self));
                let was_lost = tokio::task::spawn_blocking(move || desk.git.serve(stream)).await;
                self.lost.store(was_lost.map_err(io::Error::other)??, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(io::Error::other("another version asks: restart mainstay.service")),
        }
    }
}

/// A conversation that is counted.
struct Active(Arc<Desk>);

impl Active {
    fn begin(desk: &Arc<Desk>) -> Active {
        desk.active.fetch_add(1, Ordering::AcqRel);
        Active(Arc::clone(desk))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
