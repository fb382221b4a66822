//! Jobs on the bus: subscribe, ask, and wait for each job's own end. The bookkeeping is `jobs`.
//!
//! A job is never taken for done because it was asked for. When the bus drops in the middle, the connection is made
//! again, and systemd is asked which jobs it still has and what became of the others' units.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use spec::id::UnitName;
use tokio::time::Instant;
use zbus::wire::{ObjectPath, OwnedObjectPath};
use zbus::{Connection, Message, MessageStream};

use super::jobs::{Finished, JobDone, JobError, Seen, Table, Verb, Why};
use super::{AGAIN, CALL, Error, MANAGER, MANAGER_PATH, SERVICE, SYSTEMD, Systemd, UNIT, WINDOW, classify, manager};

/// Is told of each job when it ends.
pub type Progress<'p> = dyn FnMut(&UnitName, &Result<JobDone, JobError>) + Send + 'p;

/// How often pending jobs are looked up, in case a signal was lost: PID 1 may have re-executed meanwhile.
const RECHECK: Duration = Duration::from_secs(10);
/// How long the bus may stay away before what is pending is given up.
const AWAY: Duration = Duration::from_secs(15);
/// Signals held for us. The connection stops reading when they are full, so there is room for those of a whole boot.
const SIGNALS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Takes a job's end.
type End<'e> = dyn FnMut(Finished) + Send + 'e;

type Results = BTreeMap<UnitName, Result<JobDone, JobError>>;

/// The answer to one call of a run.
enum Reply {
    Queued(UnitName, zbus::Result<Message>),
    Cancelled(UnitName),
}

impl Systemd {
    /// Runs jobs, all at once as far as systemd's own ordering lets them, and returns what came of each. A job that has
    /// not ended `deadline` after it was asked for is cancelled: systemd enforces the unit's own timeouts, so this is for
    /// units that have none, or longer ones than we are ready to wait for.
    ///
    /// A socket cannot start while its service runs: such a service is stopped first and started again afterwards.
    /// `progress` is told of each job when it ends.
    pub async fn run(
        &mut self,
        jobs: Vec<(UnitName, Verb)>,
        deadline: Duration,
        progress: &mut Progress<'_>,
    ) -> BTreeMap<UnitName, Result<JobDone, JobError>> {
        let held = self.held_by_services(&jobs).await;
        if held.is_empty() {
            return self.run_phase(jobs, deadline, progress).await;
        }
        let mut wanted: BTreeMap<UnitName, Verb> = jobs.into_iter().collect();
        let services: BTreeSet<&UnitName> = held.values().flatten().collect();
        let asked: BTreeMap<&UnitName, Option<Verb>> =
            services.iter().map(|service| (*service, wanted.remove(*service))).collect();

        // The sockets stop with them: a connection that came in between would start the service again.
        let stops = services.iter().copied().chain(held.keys()).map(|unit| (unit.clone(), Verb::Stop)).collect();
        let mut results = self.run_phase(stops, deadline, &mut |_, _| {}).await;
        results.extend(self.run_phase(wanted.into_iter().collect(), deadline, progress).await);
        let again = services.iter().filter(|service| asked[**service] != Some(Verb::Stop));
        let starts = again.map(|service| ((*service).clone(), Verb::Start)).collect();
        results.extend(self.run_phase(starts, deadline, progress).await);

        // A service that nobody asked for, and that did not come back, is the socket's failure.
        for (socket, service) in held.iter().flat_map(|(socket, services)| services.iter().map(move |it| (socket, it)))
        {
            if asked[service].is_none()
                && let Some(Err(error)) = results.remove(service)
            {
                results.insert(socket.clone(), Err(error));
            }
        }
        results
    }

    /// Returns, for each socket to be started or restarted, the running services that keep it from starting.
    async fn held_by_services(&mut self, jobs: &[(UnitName, Verb)]) -> BTreeMap<UnitName, Vec<UnitName>> {
        let begins = |verb: &Verb| matches!(verb, Verb::Start | Verb::Restart);
        let sockets = jobs.iter().filter(|(unit, verb)| unit.suffix() == "socket" && begins(verb));
        let sockets: BTreeMap<UnitName, Verb> = sockets.cloned().collect();
        if sockets.is_empty() {
            return BTreeMap::new();
        }
        let names: Vec<UnitName> = sockets.keys().cloned().collect();
        match self.active_triggered(&names).await {
            Ok((active, mut triggered)) => {
                // A start of a socket that listens already does nothing, and so needs nothing.
                triggered.retain(|socket, services| {
                    let listens = sockets.get(socket) == Some(&Verb::Start) && active.contains(socket);
                    !listens && !services.is_empty()
                });
                triggered
            }
            Err(error) => {
                // The jobs will meet the same bus, and say so for each unit.
                tracing::debug!(%error, "cannot see which services hold sockets");
                BTreeMap::new()
            }
        }
    }

    async fn active_triggered(
        &mut self,
        sockets: &[UnitName],
    ) -> Result<(BTreeSet<UnitName>, BTreeMap<UnitName, Vec<UnitName>>), Error> {
        let triggers = self.properties::<Vec<String>>("read what sockets start", UNIT, "Triggers", sockets).await?;
        let mut triggered = BTreeMap::new();
        let mut names = sockets.to_vec();
        for (socket, services) in triggers {
            let services: Vec<UnitName> =
                services.iter().filter_map(|name| Some(UnitName::parse(name).ok()?.of(socket.user()))).collect();
            names.extend(services.iter().cloned());
            triggered.insert(socket, services);
        }
        let states = self.units(&names).await?;
        let active: BTreeSet<UnitName> =
            states.into_iter().filter(|(_, state)| state.is_up()).map(|(name, _)| name).collect();
        for services in triggered.values_mut() {
            services.retain(|service| active.contains(service));
        }
        Ok((active, triggered))
    }

    /// Runs jobs that do not stand in each other's way.
    async fn run_phase(
        &mut self,
        jobs: Vec<(UnitName, Verb)>,
        deadline: Duration,
        progress: &mut Progress<'_>,
    ) -> Results {
        let mut results = Results::new();
        let mut table = Table::new(jobs, deadline, Instant::now());
        let mut end = |(unit, result): Finished| {
            progress(&unit, &result);
            results.insert(unit, result);
        };
        let mut seen = Instant::now();
        while !table.is_finished() {
            let Err(error) = self.follow(&mut table, &mut seen, &mut end).await else { break };
            tracing::debug!(%error, "jobs are pending and the bus is away");
            let now = Instant::now();
            let given_up =
                if now.duration_since(seen) > AWAY { table.unfinished_units() } else { table.hopeless(now, AWAY) };
            given_up.iter().filter_map(|unit| table.lose(unit, now)).for_each(&mut end);
            self.forget();
            tokio::time::sleep(AGAIN).await;
        }
        results
    }

    /// Follows jobs on one connection until all have ended. `seen` is when the bus was there last.
    async fn follow(&mut self, table: &mut Table, seen: &mut Instant, end: &mut End<'_>) -> Result<(), Error> {
        const DOING: &str = "run jobs";
        let connection = self.connection(DOING).await?;
        let mut signals = self.job_signals(&connection).await?;
        *seen = Instant::now();
        if !table.pending_units().is_empty() {
            self.reread(table, &mut signals, end).await?;
        }
        let mut calls: FuturesUnordered<BoxFuture<'static, Reply>> = FuturesUnordered::new();
        let mut recheck = Instant::now() + RECHECK;
        while !table.is_finished() {
            while calls.len() < WINDOW
                && let Some((unit, verb)) = table.ask_next(Instant::now(), monotonic_usec())
            {
                calls.push(enqueue(connection.clone(), unit, verb).boxed());
            }
            let wake = table.next_deadline().unwrap_or(recheck).min(recheck);
            tokio::select! {
                biased;
                signal = signals.next() => removed(table, signal)?.into_iter().for_each(&mut *end),
                Some(reply) = calls.next(), if !calls.is_empty() => replied(table, reply)?.into_iter().for_each(&mut *end),
                () = tokio::time::sleep_until(wake) => {
                    for (unit, job) in table.overdue(Instant::now()) {
                        match job {
                            Some(job) => calls.push(cancel(connection.clone(), unit, job).boxed()),
                            None => table.give_up(&unit, Instant::now()).into_iter().for_each(&mut *end),
                        }
                    }
                    if Instant::now() >= recheck {
                        recheck = Instant::now() + RECHECK;
                        // With a call on its way, its reply tells more than its unit.
                        if calls.is_empty() {
                            self.reread(table, &mut signals, end).await?;
                        }
                    }
                },
            }
            *seen = Instant::now();
        }
        Ok(())
    }

    /// Subscribes to the ends of jobs.
    pub(super) async fn job_signals(&mut self, connection: &Connection) -> Result<MessageStream, Error> {
        const DOING: &str = "subscribe to systemd's jobs";
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)
            .path(MANAGER_PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()
            .map_err(|error| classify(DOING, error))?;
        let signals = tokio::time::timeout(CALL, MessageStream::for_match_rule(rule, connection, Some(SIGNALS)))
            .await
            .map_err(|_| Error::TimedOut { doing: DOING, after: CALL })?
            .map_err(|error| classify(DOING, error))?;
        self.subscribe(DOING).await?;
        Ok(signals)
    }

    /// Asks systemd what became of pending jobs.
    async fn reread(&mut self, table: &mut Table, signals: &mut MessageStream, end: &mut End<'_>) -> Result<(), Error> {
        const DOING: &str = "read what became of jobs";
        type Job<'a> = (u32, &'a str, &'a str, &'a str, ObjectPath<'a>, ObjectPath<'a>);
        // Jobs first: what is not queued now has ended, so its unit's state, read later, is what came of it.
        let body = self.ask_once(DOING, "ListJobs", &(), CALL).await?.body();
        let jobs: Vec<Job<'_>> = body.deserialize().map_err(|error| classify(DOING, error))?;
        let jobs = jobs.iter().map(|job| (job.1.to_owned(), (job.2.to_owned(), job.4.as_str().to_owned()))).collect();
        // An end that was signalled tells more than the unit.
        while let Some(signal) = signals.next().now_or_never() {
            removed(table, signal)?.into_iter().for_each(&mut *end);
        }
        let pending = table.pending_units();
        let states = self.units(&pending).await?;
        let left = self.properties::<u64>(DOING, UNIT, "InactiveExitTimestampMonotonic", &pending).await?;
        let services: Vec<UnitName> = pending.iter().filter(|unit| unit.suffix() == "service").cloned().collect();
        let mut outcomes = self.properties::<String>(DOING, SERVICE, "Result", &services).await?;
        let seen = states.into_iter().filter_map(|(unit, state)| {
            let left_inactive = *left.get(&unit)?;
            let result = outcomes.remove(&unit);
            Some((unit, Seen { active: state.active, left_inactive, result }))
        });
        table.reread(&jobs, &seen.collect(), Instant::now()).into_iter().for_each(end);
        Ok(())
    }
}

async fn enqueue(connection: Connection, unit: UnitName, verb: Verb) -> Reply {
    let answer = manager(&connection, verb.method(), &(unit.as_str(), "replace")).await;
    Reply::Queued(unit, answer)
}

async fn cancel(connection: Connection, unit: UnitName, job: String) -> Reply {
    let call = connection.call_method(Some(SYSTEMD), job, Some("org.freedesktop.systemd1.Job"), "Cancel", &());
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(_)) => {}
        // It may just have ended by itself; either way it was late.
        Ok(Err(error)) => tracing::debug!(%unit, %error, "cannot cancel the job"),
        Err(_) => tracing::debug!(%unit, "no answer to cancelling the job"),
    }
    Reply::Cancelled(unit)
}

/// Takes a call's answer into the table.
fn replied(table: &mut Table, reply: Reply) -> Result<Option<Finished>, Error> {
    let now = Instant::now();
    match reply {
        Reply::Cancelled(unit) => Ok(table.give_up(&unit, now)),
        Reply::Queued(unit, answer) => match answer.and_then(|message| message.body().deserialize::<OwnedObjectPath>())
        {
            Ok(job) => Ok(table.queued(&unit, job.as_str().to_owned(), now)),
            Err(error) => match classify("run jobs", error) {
                Error::Refused { code, .. } if code == "org.freedesktop.systemd1.JobTypeNotApplicable" => {
                    Ok(table.finish(&unit, Some(Why::NoReload), now))
                }
                Error::Refused { code, words, .. } => Ok(table.finish(&unit, Some(Why::Refused { code, words }), now)),
                error => Err(error),
            },
        },
    }
}

/// Takes what came from the stream of `JobRemoved` signals into the table.
fn removed(table: &mut Table, signal: Option<zbus::Result<Message>>) -> Result<Option<Finished>, Error> {
    const DOING: &str = "wait for jobs";
    let gone = || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the bus ended the connection").into();
    let message = signal.unwrap_or_else(|| Err(gone())).map_err(|error| classify(DOING, error))?;
    let body = message.body();
    match body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>() {
        Ok((_, job, _, result)) => Ok(table.removed(job.as_str(), result, Instant::now())),
        Err(error) => {
            tracing::warn!(%error, "systemd sent a signal that cannot be read");
            Ok(None)
        }
    }
}

/// Returns the time on the clock of systemd's timestamps.
fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
