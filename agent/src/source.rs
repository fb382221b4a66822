//! When to ask the remote for commits, and what came of it. Nothing here sleeps or reads a clock: the daemon does.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use spec::id::CommitId;

use crate::git::{Deadlines, FetchError, Fetched, GitError, Heard, Mirror, Peers, Proposal, PushError, Remote};

/// A machine that is up for less than this has just booted.
const JUST_BOOTED: Duration = Duration::from_secs(300);
/// Machines that boot at the same time ask within this time, or within that between two polls where it is shorter.
const SPREAD: Duration = Duration::from_secs(60);

/// How often to poll, and how to back off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The time between two polls while all is well; varied by a tenth, so that a fleet spreads.
    pub interval: Duration,
    /// The longest wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { interval: Duration::from_secs(60), base: Duration::from_secs(5), max: Duration::from_secs(15 * 60) }
    }
}

/// How the last polls went, as far as the next wait depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last poll succeeded, or there was none.
    Well,
    /// So many polls failed in a row, for a reason that passes.
    Failing {
        /// How many.
        times: u32,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// So many polls failed in a row, for a reason that a person has to remove: no need to ask often.
    Refused {
        /// How many.
        times: u32,
    },
}

impl Schedule {
    /// Returns how long to wait before the next poll. `random` is anything in `0.0..1.0`.
    ///
    /// After failures the wait is drawn from zero to a bound that doubles ("full jitter"), so that a thousand hosts do
    /// not return to a recovered server in step. After refusals the bound doubles twice as fast and the wait is at least
    /// half of it. What the server asks for is the least, within the cap.
    pub fn wait(&self, health: Health, random: f64) -> Duration {
        let random = random.clamp(0.0, 1.0);
        match health {
            Health::Well => self.interval.mul_f64(0.9 + 0.2 * random),
            Health::Failing { times, retry_after } => {
                let drawn = self.bound(times).mul_f64(random);
                drawn.max(retry_after.unwrap_or_default().min(self.max))
            }
            Health::Refused { times } => self.bound(times.saturating_mul(2)).mul_f64(0.5 + 0.5 * random),
        }
    }

    /// Returns how long to leave the remote alone after the start, on a machine that is `up` for so long. One that has just booted
    /// and knows what it should be may be one of a thousand whose power came back at once. `random` is anything in `0.0..1.0`.
    pub fn first(&self, up: Option<Duration>, is_known: bool, random: f64) -> Duration {
        let has_booted = up.is_some_and(|up| up < JUST_BOOTED);
        if has_booted && is_known { self.interval.min(SPREAD).mul_f64(random.clamp(0.0, 1.0)) } else { Duration::ZERO }
    }

    fn bound(&self, times: u32) -> Duration {
        let factor = 2_u32.checked_pow(times.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.checked_mul(factor).unwrap_or(self.max).min(self.max)
    }
}

impl Health {
    /// Returns the health after one more poll.
    pub fn after<T>(self, poll: &Result<T, FetchError>) -> Health {
        let times = match self {
            Health::Well => 1,
            Health::Failing { times, .. } | Health::Refused { times } => times.saturating_add(1),
        };
        match poll {
            Ok(_) => Health::Well,
            // Being asked to stop says nothing about the remote.
            Err(FetchError::Cancelled { .. }) => self,
            // The server answers well; the branch is expected, and somebody waits for it.
            Err(FetchError::RefMissing { .. }) => Health::Well,
            Err(FetchError::Denied { .. } | FetchError::Config { .. } | FetchError::TooLarge { .. }) => {
                Health::Refused { times }
            }
            Err(FetchError::Unreachable { retry_after, .. }) => Health::Failing { times, retry_after: *retry_after },
            Err(_) => Health::Failing { times, retry_after: None },
        }
    }
}

/// A mirror and the remote that it follows.
pub struct Source {
    mirror: Mirror,
    remote: Remote,
    deadlines: Deadlines,
    health: Health,
}

impl Source {
    /// Pushes a proposal to where commits come from.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn propose(&mut self, proposal: &Proposal<'_>, cancel: &AtomicBool) -> Result<(String, CommitId), PushError> {
        self.mirror.propose(&self.remote, proposal, &self.deadlines, cancel)
    }

    /// Opens the mirror in `dir`. The network is not used: an agent that starts offline has what it had.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(dir: &Path, remote: Remote, deadlines: Deadlines) -> Result<Source, GitError> {
        Ok(Source { mirror: Mirror::open(dir)?, remote, deadlines, health: Health::Well })
    }

    /// Has who listens at a path talk to servers in the place of this process.
    #[must_use]
    pub fn through(mut self, fetcher: Option<PathBuf>) -> Source {
        self.mirror = self.mirror.through(fetcher);
        self
    }

    /// Returns the newest commit of the branch, asking the remote.
    ///
    /// # Errors
    /// See [`FetchError`]; [`Source::known`] is still there then.
    pub fn latest(&mut self, cancel: &AtomicBool) -> Result<Fetched, FetchError> {
        self.latest_with(None, cancel).map(|(fetched, _)| fetched)
    }

    /// The same, and the signs of life of `peers` in the same conversation.
    ///
    /// # Errors
    /// See [`Source::latest`].
    pub fn latest_with(&mut self, peers: Option<&Peers>, cancel: &AtomicBool) -> Result<(Fetched, Heard), FetchError> {
        let poll = self.mirror.fetch_with(&self.remote, peers, &self.deadlines, cancel);
        self.health = self.health.after(&poll);
        poll
    }

    /// Returns the newest commit that the mirror has, without asking.
    pub fn known(&self) -> Option<CommitId> {
        self.mirror.tip()
    }

    /// Returns how the last polls went.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Follows `remote` from now on.
    pub fn follow(&mut self, remote: Remote) {
        self.remote = remote;
        self.health = Health::Well;
    }

    /// Returns the remote.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Returns the mirror, to read from.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Returns the mirror, to write reports to and to push from.
    pub fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule =
        Schedule { interval: Duration::from_secs(100), base: Duration::from_secs(4), max: Duration::from_secs(60) };

    fn check(health: Health, random: f64, seconds: u64) {
        assert_eq!(SCHEDULE.wait(health, random), Duration::from_secs(seconds), "{health:?} {random}");
    }

    #[test]
    fn a_healthy_source_is_polled_within_a_tenth_of_the_interval() {
        check(Health::Well, 0.0, 90);
        check(Health::Well, 0.5, 100);
        check(Health::Well, 1.0, 110);
    }

    #[test]
    fn failures_back_off_exponentially_with_full_jitter_up_to_the_cap() {
        let failing = |times| Health::Failing { times, retry_after: None };
        check(failing(1), 1.0, 4);
        check(failing(2), 1.0, 8);
        check(failing(2), 0.25, 2);
        check(failing(5), 1.0, 60);
        check(failing(u32::MAX), 1.0, 60);
        check(failing(9), 0.0, 0);
    }

    #[test]
    fn what_the_server_asks_for_is_the_least_but_not_beyond_the_cap() {
        let asked = |seconds| Health::Failing { times: 1, retry_after: Some(Duration::from_secs(seconds)) };
        check(asked(30), 1.0, 30);
        check(asked(86_400), 0.0, 60);
    }

    #[test]
    fn refusals_back_off_faster_and_never_to_zero() {
        check(Health::Refused { times: 1 }, 0.0, 4);
        check(Health::Refused { times: 2 }, 1.0, 32);
        check(Health::Refused { times: 3 }, 0.0, 30);
    }

    #[test]
    fn only_who_has_just_booted_and_knows_what_to_be_leaves_the_remote_alone_for_a_while() {
        let seconds = Duration::from_secs;
        let hourly = Schedule { interval: seconds(3600), ..Schedule::default() };
        let quick = Schedule { interval: seconds(10), ..Schedule::default() };
        assert_eq!(hourly.first(Some(seconds(20)), true, 0.5), seconds(30));
        assert_eq!(quick.first(Some(seconds(20)), true, 0.5), seconds(5));
        for (up, is_known) in [(Some(seconds(20)), false), (Some(seconds(300)), true), (None, true)] {
            assert_eq!(hourly.first(up, is_known, 0.5), Duration::ZERO, "{up:?}");
        }
    }

    #[test]
    fn health_counts_failures_until_a_poll_succeeds() {
        let url = || "u".to_owned();
        let refused: Result<Fetched, _> = Err(FetchError::Denied { url: url(), source: "401".into() });
        let lost: Result<Fetched, _> =
            Err(FetchError::Unreachable { url: url(), retry_after: None, source: "refused".into() });
        let cancelled: Result<Fetched, _> = Err(FetchError::Cancelled { url: url() });
        let one = Health::Well.after(&lost);
        assert_eq!(one, Health::Failing { times: 1, retry_after: None });
        assert_eq!(one.after(&cancelled), one);
        assert_eq!(one.after(&refused), Health::Refused { times: 2 });
        let tip = CommitId::parse(&"a".repeat(40)).expect("a commit");
        let fetched = Ok(Fetched { tip, changed: false, renewed: false, received: 0 });
        assert_eq!(one.after(&refused).after(&fetched), Health::Well);
    }
}
