//! Watches gix take a pack in: objects, unpacked bytes and memory are counted, and the work is stopped when they are too many.
//!
//! gix reports what it does as progress, meant for a person; the counters are the same. The bytes on the wire are capped
//! elsewhere, but a pack of a few kilobytes can unpack to terabytes, and of each file on which two others build, gix holds the whole
//! until it has unpacked both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gix::odb::pack::index::write::ProgressId;
use gix::progress::{Id, MessageLevel, Step, StepShared, Unit};
use spec::id::shown;

use super::error::Cap;
use super::remote::Bounds;

/// How much of what a server says about its failure is kept, in characters.
const MAX_SAID: usize = 500;

/// How often the counters are looked at: in that time, files of some 40 MB may be unpacked.
const SLICE: Duration = Duration::from_millis(20);

/// Why the work was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Cancelled,
    Late,
    TooMuch(Cap),
}

/// What was counted so far, and the flag that stops the work.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    stop: Arc<AtomicBool>,
    why: Arc<Mutex<Option<Stopped>>>,
    said: Arc<Mutex<Option<String>>>,
    unpacked: StepShared,
    bounds: Bounds,
}

impl Meter {
    /// Makes a meter with nothing counted.
    pub(super) fn new(bounds: Bounds) -> Meter {
        Meter { stop: Arc::default(), why: Arc::default(), said: Arc::default(), unpacked: Arc::default(), bounds }
    }

    /// Runs `work`, which has to look at the flag, and stops it when it is cancelled, late or too much: indexing a pack
    /// computes for long without touching the wire.
    pub(super) fn watch<T>(&self, cancel: &AtomicBool, ends: Instant, work: impl FnOnce(&AtomicBool) -> T) -> T {
        let done = AtomicBool::new(false);
        // Of a system that does not tell it is not known.
        let before = held().unwrap_or(u64::MAX);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if cancel.load(Ordering::Relaxed) {
                        self.stop(Stopped::Cancelled);
                    } else if Instant::now() >= ends {
                        self.stop(Stopped::Late);
                    } else if self.unpacked.load(Ordering::Relaxed) as u64 > self.bounds.unpacked {
                        self.stop(Stopped::TooMuch(Cap::Unpacked(self.bounds.unpacked)));
                    } else if held().is_some_and(|now| now.saturating_sub(before) > self.bounds.memory()) {
                        self.stop(Stopped::TooMuch(Cap::Memory(self.bounds.memory())));
                    }
                    std::thread::park_timeout(SLICE);
                }
            });
            let result = work(&self.stop);
            done.store(true, Ordering::Release);
            watcher.thread().unpark();
            result
        })
    }

    fn stop(&self, why: Stopped) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns why the work was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the server said beside the pack about why it gives up.
    pub(super) fn said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the progress to be given to gix.
    pub(super) fn progress(&self) -> Gauge {
        Gauge { meter: self.clone(), id: gix::progress::UNKNOWN, count: Arc::default() }
    }
}

/// Returns how many bytes of memory this process holds that are no file's (proc_pid_status(5), `RssAnon`).
fn held() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// One of gix's counters.
pub(super) struct Gauge {
    meter: Meter,
    id: Id,
    count: StepShared,
}

impl gix::Count for Gauge {
    fn set(&self, step: Step) {
        self.count.store(step, Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        self.count.load(Ordering::Relaxed)
    }

    fn inc_by(&self, step: Step) {
        self.count.fetch_add(step, Ordering::Relaxed);
    }

    fn counter(&self) -> StepShared {
        Arc::clone(&self.count)
    }
}

impl gix::Progress for Gauge {
    fn init(&mut self, max: Option<Step>, _unit: Option<Unit>) {
        let declared = max.unwrap_or_default();
        if self.id == Id::from(ProgressId::IndexObjects) && declared > self.meter.bounds.objects {
            self.meter.stop(Stopped::TooMuch(Cap::Objects(self.meter.bounds.objects)));
        }
    }

    fn set_name(&mut self, _name: String) {}

    fn name(&self) -> Option<String> {
        None
    }

    fn id(&self) -> Id {
        self.id
    }

    fn message(&self, level: MessageLevel, message: String) {
        if level == MessageLevel::Failure && self.id == Id::from(gix::protocol::fetch::ProgressId::RemoteProgress) {
            let message = shown(message.trim()).chars().take(MAX_SAID).collect();
            self.meter.said.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
        }
    }
}

impl gix::NestedProgress for Gauge {
    type SubProgress = Gauge;

    fn add_child(&mut self, name: impl Into<String>) -> Gauge {
        self.add_child_with_id(name, gix::progress::UNKNOWN)
    }

    fn add_child_with_id(&mut self, _name: impl Into<String>, id: Id) -> Gauge {
        let unpacking = [ProgressId::DecompressedBytes, ProgressId::DecodedBytes].map(Id::from);
        let shared = unpacking.contains(&id).then(|| Arc::clone(&self.meter.unpacked));
        Gauge { meter: self.meter.clone(), id, count: shared.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_memory_is_stopped() {
        let bounds = Bounds { bytes: 1 << 20, objects: 10, unpacked: u64::MAX };
        let most = usize::try_from(bounds.memory()).unwrap();
        for (takes, stopped) in [(most / 2, None), (4 * most, Some(Stopped::TooMuch(Cap::Memory(bounds.memory()))))] {
            let meter = Meter::new(bounds);
            let ends = Instant::now() + Duration::from_secs(60);
            let held: usize = meter.watch(&AtomicBool::new(false), ends, |stop| {
                let mut held: Vec<Vec<u8>> = Vec::new();
                while held.len() < takes >> 20 && !stop.load(Ordering::Relaxed) {
                    held.push(vec![1; 1 << 20]);
                    // As unpacking takes.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                held.len()
            });
            assert_eq!((meter.stopped(), held == takes >> 20), (stopped, stopped.is_none()));
        }
    }
}
