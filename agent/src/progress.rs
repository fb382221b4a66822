//! Tells the watchdog that the agent gets on, whoever looks on what is fetched, and the agent that it should stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::transfer::{Look, Onlooker};

/// How long what is under way may still take once the agent is asked to stop. Most starts are done by then, and it is far
/// below the patience of whoever asked.
const GRACE: Duration = Duration::from_secs(5);

/// One for the whole process; shared by the loop, the pass and the watchdog.
pub struct Progress {
    began: Instant,
    /// Milliseconds since `began` at which something was last achieved.
    marked: AtomicU64,
    stopping: AtomicBool,
    stop: Notify,
    onlooker: Option<Box<dyn Onlooker>>,
}

/// Something that is being fetched, until this is dropped.
pub struct Transfer<'p> {
    progress: &'p Progress,
    look: Option<Box<dyn Look>>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            began: Instant::now(),
            marked: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            onlooker: None,
        }
    }
}

impl Transfer<'_> {
    /// Notes that bytes came: so many in all, of as many as there are where that is known.
    pub fn moved(&mut self, done: u64, total: Option<u64>) {
        self.progress.mark();
        if let Some(look) = &mut self.look {
            look.moved(done, total);
        }
    }
}

impl Progress {
    /// Makes one whose transfers somebody looks on.
    pub fn seen_by(onlooker: Box<dyn Onlooker>) -> Progress {
        Progress { onlooker: Some(onlooker), ..Progress::default() }
    }

    /// Notes that something begins to be fetched.
    pub fn transfer(&self, what: &str) -> Transfer<'_> {
        Transfer { progress: self, look: self.onlooker.as_ref().map(|onlooker| onlooker.begin(what)) }
    }

    /// Notes that something was achieved: a step, an answer, a turn of the loop.
    pub fn mark(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.marked.store(now, Ordering::Relaxed);
    }

    /// Notes that a long piece of work gets on during which the loop cannot turn, and answers the watchdog in its place.
    pub fn mark_at_work(&self) {
        self.mark();
        if sd_notify::watchdog_enabled().is_some()
            && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog])
        {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }

    /// Returns how long ago something was last achieved.
    pub fn idle_for(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.marked.load(Ordering::Relaxed)))
    }

    /// Asks the agent to stop at the next safe place.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }

    /// Waits until the agent is asked to stop.
    pub async fn stopped(&self) {
        if !self.is_stopping() {
            self.stop.notified().await;
        }
    }

    /// Waits until the agent was asked to stop and what is under way has had its time to end.
    pub async fn overdue(&self) {
        self.stopped().await;
        tokio::time::sleep(GRACE).await;
    }

    /// Waits for something that may take long and ends by itself, telling the watchdog that this is no hang. `None` when the
    /// agent was asked to stop and this went on.
    pub async fn within_reason<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let (mut waiting, mut overdue) = (std::pin::pin!(waiting), std::pin::pin!(self.overdue()));
        loop {
            tokio::select! {
                result = &mut waiting => return Some(result),
                () = &mut overdue => return None,
                () = tokio::time::sleep(Duration::from_secs(1)) => self.mark(),
            }
        }
    }

    /// Waits for something that has a deadline of its own and must not be left half-way, telling the watchdog that this is no
    /// hang.
    pub async fn through<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut waiting).await {
                Ok(result) => return result,
                Err(_) => self.mark(),
            }
        }
    }

    /// Says whether the agent was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
