//! Whether containers that were started stay up: as for units, a start counts only after a window without an end or a
//! restart, and with a health check, only when that is content.

use std::collections::BTreeMap;
use std::time::Duration;

use spec::desired::DesiredContainer;
use tokio::time::Instant;

use super::containers::{ContainerRunState, Health, short};
use super::{Engine, Error};

/// How often containers are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long beyond the window a health check may take for its first verdict: by default it asks every 30 seconds.
const HEALTH: Duration = Duration::from_secs(90);
/// The longest wait for a verdict, whatever the health check says of itself.
const LONGEST: Duration = Duration::from_secs(600);
/// Lines of a container's log that go into the error.
const LOG_LINES: usize = 20;

/// A container whose start is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The container.
    pub id: String,
    /// Whether it is a job, which may end with exit code 0.
    pub job: bool,
    /// How long beyond the window its health check may take for its first verdict.
    pub verdict: Duration,
}

impl Watched {
    /// Watches what is created from `wanted`.
    pub fn new(id: &str, wanted: Option<&DesiredContainer>) -> Watched {
        let health = wanted.and_then(|wanted| wanted.settings.health.as_ref());
        let verdict = health.map_or(HEALTH, |health| Duration::from_millis(health.verdict_ms()));
        Watched { id: id.to_owned(), job: wanted.is_some_and(|it| it.job), verdict: verdict.clamp(HEALTH, LONGEST) }
    }
}

/// Why a container's start does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("container {} did not stay up: {why}", short(id))]
pub struct Unsettled {
    /// The container.
    pub id: String,
    /// What happened.
    pub why: Unrest,
    /// The last lines that it wrote.
    pub log: String,
}

/// What happened to a container that was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrest {
    /// Its process ended.
    #[error("its process exited with code {code}{}", because(error))]
    Exited {
        /// The exit code.
        code: i64,
        /// The engine's words, if any.
        error: String,
    },
    /// The engine restarted it.
    #[error("the engine had to restart it, so it crashes or exits")]
    Restarted,
    /// Its health check failed.
    #[error("its health check fails")]
    Unhealthy,
    /// Its health check came to no verdict.
    #[error("its health check had no verdict after {}", humantime::format_duration(*.0))]
    NoVerdict(Duration),
    /// Somebody removed it.
    #[error("it was removed meanwhile")]
    Gone,
}

fn because(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!(" ({error})") }
}

/// What one look at a container says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Up,
    Undecided,
    Down(Unrest),
}

fn look(first: &ContainerRunState, now: &ContainerRunState, job: bool) -> Look {
    if job && !now.running && now.exit_code == 0 && !now.paused {
        return Look::Up;
    }
    if now.restarts > first.restarts {
        return Look::Down(Unrest::Restarted);
    }
    if !now.running {
        return Look::Down(Unrest::Exited { code: now.exit_code, error: now.error.clone() });
    }
    match now.health {
        Some(Health::Unhealthy) => Look::Down(Unrest::Unhealthy),
        Some(Health::Starting) => Look::Undecided,
        Some(Health::Healthy) | None => Look::Up,
    }
}

impl Engine {
    /// Watches started containers for `window`, all together, and returns for each whether its start counts. Ends early
    /// when none is left to watch, and waits longer for the first verdict of a health check.
    ///
    /// # Errors
    /// Unreachable or timed out: what became of the starts is not known.
    pub async fn settle(
        &self,
        watched: &[Watched],
        window: Duration,
    ) -> Result<BTreeMap<String, Result<(), Unsettled>>, Error> {
        let until = Instant::now() + window;
        let mut first: BTreeMap<&String, ContainerRunState> = BTreeMap::new();
        let mut ends: BTreeMap<&String, Option<Unrest>> = BTreeMap::new();
        loop {
            let last = Instant::now() >= until;
            for Watched { id, job, verdict } in watched {
                let too_late = Instant::now() >= until + *verdict;
                if ends.contains_key(id) {
                    continue;
                }
                let state = match self.inspect_run(id).await {
                    Err(Error::Missing { .. }) => {
                        ends.insert(id, Some(Unrest::Gone));
                        continue;
                    }
                    state => state?,
                };
                match look(first.entry(id).or_insert_with(|| state.clone()), &state, *job) {
                    Look::Down(why) => ends.insert(id, Some(why)),
                    Look::Up if last => ends.insert(id, None),
                    Look::Undecided if too_late => ends.insert(id, Some(Unrest::NoVerdict(window + *verdict))),
                    Look::Up | Look::Undecided => continue,
                };
            }
            if watched.iter().all(|it| ends.contains_key(&it.id)) {
                break;
            }
            let next = Instant::now() + LOOK;
            tokio::time::sleep_until(if last { next } else { next.min(until) }).await;
        }
        let mut results = BTreeMap::new();
        for (id, end) in ends {
            let result = match end {
                None => Ok(()),
                Some(why) => Err(Unsettled { id: id.clone(), why, log: self.logs_tail(id, LOG_LINES).await }),
            };
            results.insert(id.clone(), result);
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(running: bool, restarts: u64, health: Option<Health>) -> ContainerRunState {
        ContainerRunState {
            running,
            paused: false,
            restarts,
            exit_code: 3,
            error: String::new(),
            health,
            started: None,
        }
    }

    #[test]
    fn a_container_is_up_when_it_runs_unrestarted_and_well() {
        let first = state(true, 1, None);
        let exited = Unrest::Exited { code: 3, error: String::new() };
        for (now, expected) in [
            (state(true, 1, None), Look::Up),
            (state(true, 1, Some(Health::Healthy)), Look::Up),
            (state(true, 1, Some(Health::Starting)), Look::Undecided),
            (state(true, 1, Some(Health::Unhealthy)), Look::Down(Unrest::Unhealthy)),
            (state(true, 2, None), Look::Down(Unrest::Restarted)),
            (state(false, 1, None), Look::Down(exited.clone())),
        ] {
            assert_eq!(look(&first, &now, false), expected, "{now:?}");
        }
        let done = ContainerRunState { exit_code: 0, ..state(false, 1, None) };
        assert_eq!(
            (look(&first, &done, true), look(&first, &state(false, 1, None), true)),
            (Look::Up, Look::Down(exited.clone()))
        );
        let error = Unsettled { id: "0123456789abcdef".to_owned(), why: exited, log: String::new() };
        assert_eq!(error.to_string(), "container 0123456789ab did not stay up: its process exited with code 3");
    }
}
