//! Runs programs as transient units: with what any service of the host has, not inside the agent's sandbox, in a cgroup of
//! their own that systemd empties at the deadline, whatever becomes of the agent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use spec::id::UnitName;
use tokio::time::Instant;
use zbus::Variant;
use zbus::wire::{ObjectPath, OwnedObjectPath};

use super::journal::journal_tail;
use super::{CALL, Error, SERVICE, Systemd, classify, manager};

const DOING: &str = "run a program";
/// How long systemd may take to end what is left of the program, and we to hear of it.
const GRACE: Duration = Duration::from_secs(5);
/// SIGKILL: a program that is late has had its time.
const KILL: i32 = 9;
/// LOG_NOTICE: what the program prints is logged with it, and what systemd says of each run is below it.
const NOTICE: i32 = 5;
/// Lines of what it printed last.
const LINES: usize = 20;

/// A program that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub why: String,
    /// What it printed last.
    pub said: String,
}

impl Systemd {
    /// Runs a program until it ends or `timeout` has passed. `label` becomes part of the unit's name.
    ///
    /// # Errors
    /// Unreachable, timed out or refused: the program was not run, or what came of it is not known.
    pub async fn run_program(
        &mut self,
        label: &str,
        command: &[String],
        user: Option<&str>,
        timeout: Duration,
    ) -> Result<Result<(), Ended>, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mainstay-check-{label}-{}-{number}.service", std::process::id());
        let unit =
            UnitName::parse(&name).map_err(|words| Error::Refused { doing: DOING, code: String::new(), words })?;
        let connection = self.connection(DOING).await?;
        // Subscribed before it is asked for, so that no end is missed.
        let mut signals = self.job_signals(&connection).await?;
        let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "fail", properties(label, command, user, timeout), others);
        let answer = tokio::time::timeout(CALL, manager(&connection, "StartTransientUnit", &body)).await;
        let answer = answer.map_err(|_| Error::TimedOut { doing: DOING, after: CALL })?;
        let job = answer.and_then(|message| message.body().deserialize::<OwnedObjectPath>());
        let job = job.map_err(|error| classify(DOING, error))?;
        let until = Instant::now() + timeout + GRACE;
        loop {
            let signal = tokio::time::timeout_at(until, signals.next()).await;
            let signal = signal.map_err(|_| Error::TimedOut { doing: DOING, after: timeout + GRACE })?;
            let Some(Ok(message)) = signal else {
                return Err(Error::TimedOut { doing: DOING, after: timeout });
            };
            let body = message.body();
            match body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>() {
                Ok((_, ended, _, "done")) if ended.as_str() == job.as_str() => return Ok(Ok(())),
                Ok((_, ended, _, _)) if ended.as_str() == job.as_str() => break,
                _ => {}
            }
        }
        self.what_became_of(&unit, timeout).await.map(Err)
    }

    /// Has systemd run a command once, as the unit `name`, which stays active after it ended well: several may run beside
    /// each other. Whoever asks for its start then waits for its end, see `run`. What it prints is in the unit's journal.
    ///
    /// # Errors
    /// Unreachable or timed out, or refused: a unit of this name may be there.
    pub async fn start_transient(
        &mut self,
        name: &UnitName,
        description: &str,
        command: &[String],
        deadline: Duration,
    ) -> Result<(), Error> {
        let program = command.first().cloned().unwrap_or_default();
        let micros = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", Variant::from(description)),
            ("Type", Variant::from("oneshot")),
            ("RemainAfterExit", Variant::from(true)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("TimeoutStartUSec", Variant::from(micros)),
            ("ExecStart", Variant::new(vec![(program, arguments(command), false)])),
        ];
        let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (name.as_str(), "fail", properties, others);
        self.ask("start a command", "StartTransientUnit", &body, CALL).await.map(drop)
    }

    async fn what_became_of(&mut self, unit: &UnitName, timeout: Duration) -> Result<Ended, Error> {
        let units = std::slice::from_ref(unit);
        let result = self.properties::<String>(DOING, SERVICE, "Result", units).await?.remove(unit);
        let status = self.properties::<i32>(DOING, SERVICE, "ExecMainStatus", units).await?.remove(unit);
        let status = status.unwrap_or_default();
        let why = match result.as_deref().unwrap_or_default() {
            "timeout" => format!("it did not end within {}", humantime::format_duration(timeout)),
            // systemd's own codes, from systemd.exec(5): the program was never executed.
            "exit-code" if status == 203 => "the program cannot be executed".to_owned(),
            "exit-code" if status == 217 => "there is no such user".to_owned(),
            "exit-code" => format!("it exited with code {status}"),
            "signal" | "core-dump" => format!("it was killed by signal {status}"),
            other => format!("it failed ({})", spec::id::shown(other)),
        };
        // The unit's name is that of this run alone.
        Ok(Ended { why, said: journal_tail(unit, None, LINES).await })
    }
}

/// Returns the arguments so that the program gets them as they are: systemd would take `$` for one of its variables
/// (systemd.service(5), "Command lines").
fn arguments(command: &[String]) -> Vec<String> {
    command.iter().map(|argument| argument.replace('$', "$$")).collect()
}

fn properties<'a>(
    label: &str,
    command: &[String],
    user: Option<&'a str>,
    timeout: Duration,
) -> Vec<(&'static str, Variant<'a>)> {
    let micros = |length: Duration| Variant::new(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
    let program = command.first().cloned().unwrap_or_default();
    let mut properties = vec![
        ("Description", Variant::new(format!("a check of {label}, by mainstay"))),
        ("Type", Variant::new("oneshot")),
        ("ExecStart", Variant::new(vec![(program, arguments(command), false)])),
        ("TimeoutStartUSec", micros(timeout)),
        ("TimeoutStopUSec", micros(GRACE)),
        ("KillSignal", Variant::new(KILL)),
        ("SyslogLevel", Variant::new(NOTICE)),
        ("LogLevelMax", Variant::new(NOTICE)),
        // Nothing is left of it, however it ends, once our connection has let go of it.
        ("CollectMode", Variant::new("inactive-or-failed")),
        ("AddRef", Variant::new(true)),
    ];
    if let Some(user) = user {
        properties.push(("User", Variant::new(user)));
    }
    properties
}
