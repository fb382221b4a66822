//! The bookkeeping of systemd jobs: what was asked, what was queued, what came of it. Pure: the bus is in `run`, and the
//! time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use spec::id::{UnitName, shown};
use spec::observed::ActiveState;
use tokio::time::Instant;

/// What can be asked of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start it, unless it runs.
    Start,
    /// Stop it if it runs, and start it.
    Restart,
    /// Make it read its configuration again; it must be running.
    Reload,
    /// Stop it.
    Stop,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Start => "start",
            Verb::Restart => "restart",
            Verb::Reload => "reload",
            Verb::Stop => "stop",
        })
    }
}

impl Verb {
    /// Returns the manager's method; a job is put in the place of any other for the same unit.
    pub(super) fn method(self) -> &'static str {
        match self {
            Verb::Start => "StartUnit",
            Verb::Restart => "RestartUnit",
            Verb::Reload => "ReloadUnit",
            Verb::Stop => "StopUnit",
        }
    }

    /// Says whether a queued job of this type can be the one we asked for; a restart goes on as a start.
    fn becomes(self, kind: &str) -> bool {
        match self {
            Verb::Start => matches!(kind, "start" | "restart"),
            Verb::Restart => matches!(kind, "start" | "restart"),
            Verb::Reload => matches!(kind, "reload"),
            Verb::Stop => matches!(kind, "stop"),
        }
    }
}

/// A job that systemd finished well. A start is proven by `settle` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDone {
    /// How long it took from asking.
    pub took: Duration,
}

/// A job that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {verb} unit `{unit}`: {why}")]
pub struct JobError {
    /// The unit.
    pub unit: UnitName,
    /// What was asked of it.
    pub verb: Verb,
    /// Why it did not happen.
    pub why: Why,
}

/// Why a job did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// systemd did not queue it: no such unit, masked, a broken text, nothing to reload with.
    #[error("{words}")]
    Refused {
        /// The name of the D-Bus error.
        code: String,
        /// systemd's words.
        words: String,
    },
    /// A reload of a unit that has no way to reload.
    #[error("it has nothing to reload with: give the unit an `ExecReload=`, or restart it on this change instead")]
    NoReload,
    /// The unit's command failed, or ended before the unit was ready.
    #[error("its command failed or ended before it was ready; its journal says why")]
    Failed,
    /// systemd's own `TimeoutStartSec=` or `TimeoutStopSec=` passed, or the job's.
    #[error("it was not ready within the unit's own timeout (`TimeoutStartSec=`, `TimeoutStopSec=`)")]
    Timeout,
    /// A unit that it needs did not start.
    #[error("a unit that it requires did not start (`systemctl list-dependencies {unit}` names them)")]
    Dependency {
        /// The unit.
        unit: UnitName,
    },
    /// A condition did not hold.
    #[error("systemd skipped it: a condition of the unit (`Condition…=`, `ExecCondition=`) does not hold")]
    Skipped,
    /// An assertion did not hold.
    #[error("an assertion of the unit (`Assert…=`) does not hold")]
    Assert,
    /// The job does not fit the unit as it is: a reload of something that does not run, for instance.
    #[error("it does not apply to the unit in its present state: it may not be running")]
    Invalid,
    /// Somebody cancelled or replaced the job.
    #[error("the job was cancelled or replaced by somebody else's")]
    Canceled,
    /// Our deadline passed; the job was cancelled. A unit that was starting is left starting, under its own timeout.
    #[error("not done within {}; the job was cancelled", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The bus went away and did not come back: what came of it is not known.
    #[error("the system bus went away, and what came of the job is not known")]
    Lost,
    /// The bus was away, so it was never asked for.
    #[error("systemd does not answer on the system bus")]
    NotAsked,
    /// A result of a later systemd.
    #[error("systemd reports `{0}`")]
    Other(String),
}

/// Reads a result of `JobRemoved`; `None` when it is done.
fn failure(unit: &UnitName, result: &str) -> Option<Why> {
    Some(match result {
        "done" => return None,
        "failed" => Why::Failed,
        "timeout" => Why::Timeout,
        "dependency" => Why::Dependency { unit: unit.clone() },
        "skipped" => Why::Skipped,
        "assert" => Why::Assert,
        "invalid" => Why::Invalid,
        "canceled" | "collected" => Why::Canceled,
        "once" => Why::Other("once: the unit may be started once only, and was".to_owned()),
        "frozen" => Why::Other("frozen: the unit is frozen and cannot be stopped or started".to_owned()),
        other => Why::Other(shown(other)),
    })
}

/// What a unit looks like after the bus had gone.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its state.
    pub active: ActiveState,
    /// When it last left the inactive state, in microseconds of the monotonic clock.
    pub left_inactive: u64,
    /// `Result=` of a service.
    pub result: Option<String>,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Asked,
    Queued {
        job: String,
    },
    /// Late, and being cancelled.
    Cancelling {
        job: String,
    },
    Finished,
}

#[derive(Debug)]
struct Row {
    verb: Verb,
    stage: Stage,
    /// When it was first asked for, on the clock of deadlines.
    asked: Instant,
    /// The same on the clock that systemd shows.
    asked_usec: u64,
}

impl Row {
    fn job(&self) -> Option<&str> {
        match &self.stage {
            Stage::Queued { job } | Stage::Cancelling { job } => Some(job),
            Stage::Waiting | Stage::Asked | Stage::Finished => None,
        }
    }

    fn is_waited_for(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Queued { .. })
    }
}

/// A finished job's result.
pub(super) type Finished = (UnitName, Result<JobDone, JobError>);

/// The jobs of one run.
#[derive(Debug)]
pub(super) struct Table {
    rows: BTreeMap<UnitName, Row>,
    waiting: VecDeque<UnitName>,
    /// Results that came before the reply that says whose they are.
    early: BTreeMap<String, String>,
    deadline: Duration,
}

impl Table {
    /// Lists jobs; of several for one unit, the last is taken.
    pub(super) fn new(jobs: impl IntoIterator<Item = (UnitName, Verb)>, deadline: Duration, now: Instant) -> Table {
        let row = |verb| Row { verb, stage: Stage::Waiting, asked: now, asked_usec: 0 };
        let rows: BTreeMap<_, _> = jobs.into_iter().map(|(unit, verb)| (unit, row(verb))).collect();
        Table { waiting: rows.keys().cloned().collect(), rows, early: BTreeMap::new(), deadline }
    }

    /// Takes the next job to ask for.
    pub(super) fn ask_next(&mut self, now: Instant, now_usec: u64) -> Option<(UnitName, Verb)> {
        let unit = self.waiting.pop_front()?;
        let row = self.rows.get_mut(&unit)?;
        if row.asked_usec == 0 {
            (row.asked, row.asked_usec) = (now, now_usec);
        }
        row.stage = Stage::Asked;
        Some((unit, row.verb))
    }

    /// Notes that systemd queued the job; returns its result when that was here first.
    pub(super) fn queued(&mut self, unit: &UnitName, job: String, now: Instant) -> Option<Finished> {
        if let Some(result) = self.early.remove(&job) {
            return self.finish(unit, failure(unit, &result), now);
        }
        let row = self.rows.get_mut(unit)?;
        if row.stage != Stage::Finished {
            row.stage = Stage::Queued { job };
        }
        None
    }

    /// Notes a job's end.
    pub(super) fn removed(&mut self, job: &str, result: &str, now: Instant) -> Option<Finished> {
        let found = self.rows.iter().find(|(_, row)| row.job() == Some(job));
        match found.map(|(unit, row)| (unit.clone(), matches!(row.stage, Stage::Cancelling { .. }))) {
            Some((unit, true)) if result == "canceled" => self.give_up(&unit, now),
            Some((unit, _)) => self.finish(&unit, failure(&unit, result), now),
            None => {
                if self.rows.values().any(|row| row.stage == Stage::Asked) {
                    self.early.insert(job.to_owned(), result.to_owned());
                }
                None
            }
        }
    }

    /// Notes an end that we decide.
    pub(super) fn finish(&mut self, unit: &UnitName, why: Option<Why>, now: Instant) -> Option<Finished> {
        let row = self.rows.get_mut(unit).filter(|row| row.stage != Stage::Finished)?;
        row.stage = Stage::Finished;
        let result = match why {
            None => Ok(JobDone { took: now.duration_since(row.asked) }),
            Some(why) => Err(JobError { unit: unit.clone(), verb: row.verb, why }),
        };
        Some((unit.clone(), result))
    }

    /// Ends a job because the bus stays away.
    pub(super) fn lose(&mut self, unit: &UnitName, now: Instant) -> Option<Finished> {
        let asked = self.rows.get(unit).is_some_and(|row| row.asked_usec != 0);
        self.finish(unit, Some(if asked { Why::Lost } else { Why::NotAsked }), now)
    }

    /// Ends a job because its deadline has passed.
    pub(super) fn give_up(&mut self, unit: &UnitName, now: Instant) -> Option<Finished> {
        self.finish(unit, Some(Why::TimedOut(self.deadline)), now)
    }

    /// Returns the jobs asked for whose deadline has just passed, with the queued job's path where there is one, which is
    /// to be cancelled.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(UnitName, Option<String>)> {
        let deadline = self.deadline;
        let late = self.rows.iter_mut().filter(|(_, row)| row.is_waited_for() && now >= row.asked + deadline);
        late.map(|(unit, row)| {
            let job = row.job().map(str::to_owned);
            if let Some(job) = job.clone() {
                row.stage = Stage::Cancelling { job };
            }
            (unit.clone(), job)
        })
        .collect()
    }

    /// Returns the units whose job has not ended long after it should have, asked for or not.
    pub(super) fn hopeless(&self, now: Instant, grace: Duration) -> Vec<UnitName> {
        let late = self.unfinished().filter(|(_, row)| now >= row.asked + self.deadline + grace);
        late.map(|(unit, _)| unit.clone()).collect()
    }

    /// Returns when the next deadline passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rows.values().filter(|row| row.is_waited_for()).map(|row| row.asked + self.deadline).min()
    }

    /// Returns every unit whose job was asked for and has not ended.
    pub(super) fn pending_units(&self) -> Vec<UnitName> {
        self.unfinished().filter(|(_, row)| row.stage != Stage::Waiting).map(|(unit, _)| unit.clone()).collect()
    }

    /// Returns every unit whose job has not ended, asked for or not.
    pub(super) fn unfinished_units(&self) -> Vec<UnitName> {
        self.unfinished().map(|(unit, _)| unit.clone()).collect()
    }

    /// Says whether every job has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.unfinished().next().is_none()
    }

    fn unfinished(&self) -> impl Iterator<Item = (&UnitName, &Row)> {
        self.rows.iter().filter(|(_, row)| row.stage != Stage::Finished)
    }

    /// Makes up for signals and replies that may be lost: `jobs` is what systemd has queued now, by unit, as job type and
    /// path; `seen` is what the units look like. What can be told from that is finished; what did not begin waits again.
    pub(super) fn reread(
        &mut self,
        jobs: &BTreeMap<String, (String, String)>,
        seen: &BTreeMap<UnitName, Seen>,
        now: Instant,
    ) -> Vec<Finished> {
        let mut finished = Vec::new();
        for unit in self.pending_units() {
            let Some(row) = self.rows.get_mut(&unit) else { continue };
            let late = matches!(row.stage, Stage::Cancelling { .. });
            let queued = row.stage != Stage::Asked;
            if let Some((_, job)) = jobs.get(unit.as_str()).filter(|(kind, _)| row.verb.becomes(kind)) {
                row.stage = Stage::Queued { job: job.clone() };
                continue;
            }
            match seen.get(&unit).map(|seen| judge(row.verb, queued, seen, row.asked_usec)) {
                Some(Verdict::Done) => finished.extend(self.finish(&unit, None, now)),
                Some(Verdict::Failed) => finished.extend(self.finish(&unit, Some(Why::Failed), now)),
                Some(Verdict::NotBegun) if late => finished.extend(self.give_up(&unit, now)),
                Some(Verdict::NotBegun) => {
                    row.stage = Stage::Waiting;
                    self.waiting.push_back(unit);
                }
                None => finished.extend(self.lose(&unit, now)),
            }
        }
        finished
    }
}

/// What can be told of a job from its unit alone.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Failed,
    NotBegun,
}

/// Judges a job that is no longer queued by its unit. Asking again is safe where nothing shows that it began: a start of
/// what runs and a stop of what does not are done at once, and a reload can be repeated.
fn judge(verb: Verb, queued: bool, seen: &Seen, asked_usec: u64) -> Verdict {
    use ActiveState::{Activating, Active, Deactivating, Failed, Inactive, Reloading};
    let begun = seen.left_inactive >= asked_usec;
    // systemd forgets a unit that ended well, times and all; one that failed it keeps.
    let forgotten = seen.left_inactive == 0 && seen.active == Inactive;
    match (verb, seen.active) {
        (Verb::Start | Verb::Restart, Inactive) if queued && forgotten => Verdict::Done,
        (Verb::Stop, Inactive | Failed) => Verdict::Done,
        (Verb::Stop | Verb::Reload, _) => Verdict::NotBegun,
        (Verb::Start, Active | Reloading) => Verdict::Done,
        (Verb::Start | Verb::Restart, _) if !begun => Verdict::NotBegun,
        (Verb::Restart, Active | Reloading) => Verdict::Done,
        // It ran and ended: a oneshot that finished, or a service that ended well and that `settle` will refuse.
        (_, Inactive) if seen.result.as_deref() == Some("success") => Verdict::Done,
        // No job, and yet on its way up or down: it failed and is being started again by its `Restart=`.
        (_, Inactive | Failed | Activating | Deactivating) => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).expect("a unit name")
    }

    fn asked(verb: Verb) -> (Table, UnitName, Instant) {
        let (now, name) = (Instant::now(), unit("a.service"));
        let mut table = Table::new([(name.clone(), verb)], LIMIT, now);
        assert_eq!(table.ask_next(now, 1000), Some((name.clone(), verb)));
        (table, name, now)
    }

    fn seen(active: ActiveState, left_inactive: u64, result: Option<&str>) -> Seen {
        Seen { active, left_inactive, result: result.map(str::to_owned) }
    }

    #[test]
    fn a_result_may_come_before_the_reply() {
        let (mut table, name, now) = asked(Verb::Start);
        assert_eq!(table.removed("/job/1", "done", now), None);
        let finished = table.queued(&name, "/job/1".to_owned(), now + Duration::from_secs(1));
        assert_eq!(finished, Some((name, Ok(JobDone { took: Duration::from_secs(1) }))));
        assert!(table.unfinished_units().is_empty());
    }

    #[test]
    fn results_of_other_jobs_are_not_ours() {
        let (mut table, name, now) = asked(Verb::Start);
        table.queued(&name, "/job/1".to_owned(), now);
        assert_eq!(table.removed("/job/2", "failed", now), None);
        let (_, result) = table.removed("/job/1", "failed", now).expect("an end");
        let error = result.expect_err("a failure");
        assert_eq!(
            error.to_string(),
            "failed to start unit `a.service`: its command failed or ended before it was ready; its journal says why"
        );
    }

    #[test]
    fn overdue_jobs_are_named_once_they_are() {
        let (mut table, name, now) = asked(Verb::Start);
        table.queued(&name, "/job/1".to_owned(), now);
        assert_eq!(table.next_deadline(), Some(now + LIMIT));
        assert_eq!(table.overdue(now), vec![]);
        assert_eq!(table.overdue(now + LIMIT), vec![(name, Some("/job/1".to_owned()))]);
        assert_eq!((table.overdue(now + LIMIT), table.next_deadline()), (vec![], None));
        let (_, result) = table.removed("/job/1", "canceled", now + LIMIT).expect("an end");
        assert_eq!(result.expect_err("late").why, Why::TimedOut(LIMIT));
    }

    #[test]
    fn a_job_still_queued_after_the_bus_came_back_is_waited_for() {
        let (mut table, name, now) = asked(Verb::Restart);
        let jobs = BTreeMap::from([("a.service".to_owned(), ("start".to_owned(), "/job/7".to_owned()))]);
        assert_eq!(table.reread(&jobs, &BTreeMap::new(), now), vec![]);
        assert_eq!(table.removed("/job/7", "done", now), Some((name, Ok(JobDone { took: Duration::ZERO }))));
    }

    #[test]
    fn a_job_that_did_not_begin_is_asked_for_again() {
        let (mut table, name, now) = asked(Verb::Restart);
        let state = BTreeMap::from([(name.clone(), seen(ActiveState::Active, 999, Some("success")))]);
        assert_eq!(table.reread(&BTreeMap::new(), &state, now), vec![]);
        assert_eq!(table.ask_next(now, 2000), Some((name, Verb::Restart)));
    }

    #[test]
    fn a_unit_nothing_is_known_of_is_lost_not_done() {
        let (mut table, _, now) = asked(Verb::Start);
        let finished = table.reread(&BTreeMap::new(), &BTreeMap::new(), now);
        assert_eq!(finished[0].1.as_ref().expect_err("lost").why, Why::Lost);
    }

    #[test]
    fn what_came_of_a_job_shows_in_its_unit() {
        use ActiveState::{Activating, Active, Failed, Inactive};
        for (verb, state, verdict) in [
            (Verb::Start, seen(Active, 1, None), Verdict::Done),
            (Verb::Start, seen(Failed, 1, Some("exit-code")), Verdict::NotBegun),
            (Verb::Start, seen(Failed, 2000, Some("exit-code")), Verdict::Failed),
            (Verb::Start, seen(Inactive, 2000, Some("success")), Verdict::Done),
            (Verb::Start, seen(Activating, 2000, Some("exit-code")), Verdict::Failed),
            (Verb::Restart, seen(Active, 1, None), Verdict::NotBegun),
            (Verb::Restart, seen(Active, 2000, None), Verdict::Done),
            (Verb::Stop, seen(Inactive, 1, None), Verdict::Done),
            (Verb::Stop, seen(Active, 1, None), Verdict::NotBegun),
            (Verb::Reload, seen(Active, 1, None), Verdict::NotBegun),
        ] {
            assert_eq!(judge(verb, true, &state, 1000), verdict, "{verb} {state:?}");
        }
        let forgotten = seen(Inactive, 0, Some("success"));
        assert_eq!(judge(Verb::Start, true, &forgotten, 1000), Verdict::Done);
        assert_eq!(judge(Verb::Start, false, &forgotten, 1000), Verdict::NotBegun);
    }
}
