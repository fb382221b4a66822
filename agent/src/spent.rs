//! What a piece of work cost: time that passed, and time that this thread computed. For the log, at debug.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A piece of work under way, all of it on one thread.
pub struct Spent {
    began: Instant,
    computed: Duration,
}

impl Spent {
    /// Begins to count.
    pub fn begin() -> Spent {
        Spent { began: Instant::now(), computed: computed() }
    }

    /// Returns the microseconds that have passed.
    pub fn wall_us(&self) -> u64 {
        micros(self.began.elapsed())
    }

    /// Returns the microseconds that this thread has computed, other tasks of it included.
    pub fn cpu_us(&self) -> u64 {
        micros(computed().saturating_sub(self.computed))
    }
}

fn computed() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
