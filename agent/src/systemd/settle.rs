//! Whether what was started stays up. A start job is done when the process is there, or says it is ready; a service that
//! crashes a second later was "started" too. So everything is watched for a window, together, before it counts.
//!
//! The window is measured on tokio's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use spec::id::UnitName;
use spec::observed::{ActiveState, InvocationId, UnitState};
use tokio::time::Instant;

use super::{Error, SERVICE, Systemd};

/// How often units are looked at within the window; one call for all of them.
const LOOK: Duration = Duration::from_millis(250);

/// Why a start does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unit `{unit}` did not stay up: {why}")]
pub struct Unsettled {
    /// The unit.
    pub unit: UnitName,
    /// The run that was being watched, whose journal says more.
    pub invocation: Option<InvocationId>,
    /// What happened.
    pub why: Unrest,
}

/// What happened to a unit that was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrest {
    /// It failed.
    #[error("{}", describe(result, *status))]
    Failed {
        /// `Result=` of the service.
        result: String,
        /// Exit code of its main process, or the signal that ended it.
        status: i32,
    },
    /// It ended by itself, and well.
    #[error("it ended by itself, although it should keep running (is it `Type=oneshot` or `Type=forking`?)")]
    Ended,
    /// It was started again by its own `Restart=`.
    #[error("it was restarted by its own `Restart=` meanwhile, so it crashes or exits")]
    Restarted,
    /// It is neither up nor failed at the end of the window.
    #[error("it is still `{sub}`")]
    NotUp {
        /// `SubState` of the unit.
        sub: String,
    },
    /// It is down, and systemd remembers no run: it forgets a unit without a job, a process or a failure at once.
    #[error(
        "it is not running: a condition of the unit (`Condition…=`, `ExecCondition=`) does not hold, or it ended at once"
    )]
    NotRunning,
}

fn describe(result: &str, status: i32) -> String {
    match result {
        "exit-code" => match unbegun(status) {
            Some(why) => format!("its process exited with code {status}, before its program ran: {why}"),
            None => format!("its process exited with code {status}"),
        },
        "signal" => format!("its process was killed by signal {status}"),
        "core-dump" => format!("its process crashed (signal {status})"),
        "oom-kill" => "it ran out of memory and was killed".to_owned(),
        "watchdog" => "it did not answer its watchdog (`WatchdogSec=`)".to_owned(),
        "timeout" => "it was not ready, or did not stop, within its own timeout".to_owned(),
        "start-limit-hit" => "it was started too often in a short time (`StartLimitBurst=`)".to_owned(),
        "protocol" => "it did not follow its `Type=`: it ended before it was ready".to_owned(),
        "resources" => {
            "systemd could not set up what it needs (a file of `EnvironmentFile=`, a directory, a credential)"
                .to_owned()
        }
        "" | "success" => "it failed".to_owned(),
        other => format!("it failed ({})", spec::id::shown(other)),
    }
}

/// Says what systemd's own exit codes mean (systemd.exec(5)), with what to look at.
fn unbegun(status: i32) -> Option<&'static str> {
    Some(match status {
        200 => "the folder of `WorkingDirectory=` cannot be entered; is it there, and open to the service's user?",
        203 => {
            "what `Exec…=` names cannot be executed; is it installed, may it be executed (mode 0755), and is the interpreter in \
             the first line of a script there?"
        }
        208 | 209 | 222 => "what `StandardInput=`, `StandardOutput=` or `StandardError=` names cannot be opened",
        210 => "the folder of `RootDirectory=` cannot be entered; is it there, with all that a root needs?",
        216 => "its group cannot be taken on; are `Group=` and `SupplementaryGroups=` on this host?",
        217 => "its user cannot be taken on; is the one of `User=` on this host?",
        218 => "its capabilities cannot be set; may the host grant those of `AmbientCapabilities=`?",
        226 => {
            "its view of the files cannot be set up; is each path of `ReadWritePaths=`, `BindPaths=` and the like there? One that \
             may be missing has a `-` before it"
        }
        233 | 238..=241 => "a folder of `RuntimeDirectory=`, `StateDirectory=` and the like cannot be made",
        243 => "its credentials cannot be read; is each file of `LoadCredential=` there?",
        _ => return None,
    })
}

/// What is known of a unit when its watch begins.
#[derive(Clone, Debug, Default)]
struct Watched {
    /// Whether it runs once and ends, which is then a success.
    once: bool,
    invocation: Option<InvocationId>,
    restarts: u32,
}

/// What one look at a unit says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Nothing can happen to it any more, or nothing that the window would show.
    Settled,
    /// It is up and has to stay up.
    Up,
    /// It is on its way somewhere.
    Moving,
    /// It is down, and failed.
    Failed,
    /// It is down without having failed.
    Down,
}

fn look(unit: &UnitName, watched: &Watched, state: &UnitState) -> Look {
    use ActiveState::{Activating, Active, Deactivating, Failed, Inactive, Reloading};
    let service = unit.suffix() == "service";
    match state.active {
        // A timer, socket, mount or target has no process; a service with `RemainAfterExit=` has none left.
        Active | Reloading if !service || state.sub == "exited" => Look::Settled,
        Active | Reloading => Look::Up,
        // `auto-restart` and `auto-restart-queued`: it failed and waits for its next try.
        Activating if state.sub.starts_with("auto-restart") => Look::Failed,
        // Should its condition not have held, there is no telling: systemd calls that a success as well.
        Inactive if watched.once => Look::Settled,
        Failed => Look::Failed,
        Inactive => Look::Down,
        Activating | Deactivating => Look::Moving,
    }
}

impl Systemd {
    /// Watches started units for `window`, all at once, and returns for each its run, or why its start does not count.
    /// Ends early when nothing is left to watch. There is no run to return for a oneshot that has finished.
    ///
    /// # Errors
    /// Unreachable or timed out: what became of the starts is not known.
    pub async fn settle(
        &mut self,
        started: &[UnitName],
        window: Duration,
    ) -> Result<BTreeMap<UnitName, Result<Option<InvocationId>, Unsettled>>, Error> {
        let until = Instant::now() + window;
        let watched = self.watched(started).await?;
        let mut watching = started.to_vec();
        let mut looks: BTreeMap<UnitName, (Look, String)> = BTreeMap::new();
        while !watching.is_empty() {
            let last = Instant::now() >= until;
            for (unit, state) in self.units(&watching).await? {
                let look = look(&unit, &watched[&unit], &state);
                looks.insert(unit, (look, state.sub));
            }
            watching.retain(|unit| matches!(looks[unit].0, Look::Up | Look::Moving));
            if last {
                break;
            }
            if !watching.is_empty() {
                tokio::time::sleep_until((Instant::now() + LOOK).min(until)).await;
            }
        }
        self.conclude(watched, looks).await
    }

    /// Reads what a watch is judged by.
    async fn watched(&mut self, units: &[UnitName]) -> Result<BTreeMap<UnitName, Watched>, Error> {
        const DOING: &str = "read how units are to run";
        let services: Vec<UnitName> = units.iter().filter(|unit| unit.suffix() == "service").cloned().collect();
        let types = self.properties::<String>(DOING, SERVICE, "Type", &services).await?;
        let oneshots: Vec<UnitName> =
            types.into_iter().filter(|(_, kind)| kind == "oneshot").map(|(unit, _)| unit).collect();
        let remain = self.properties::<bool>(DOING, SERVICE, "RemainAfterExit", &oneshots).await?;
        let restarts = self.properties::<u32>(DOING, SERVICE, "NRestarts", &services).await?;
        let mut invocations = self.invocations(units).await?;
        let one = |unit: &UnitName| Watched {
            once: remain.get(unit) == Some(&false),
            invocation: invocations.remove(unit),
            restarts: restarts.get(unit).copied().unwrap_or(0),
        };
        Ok(units.iter().cloned().zip(units.iter().map(one)).collect())
    }

    /// Turns the last looks into results.
    async fn conclude(
        &mut self,
        watched: BTreeMap<UnitName, Watched>,
        looks: BTreeMap<UnitName, (Look, String)>,
    ) -> Result<BTreeMap<UnitName, Result<Option<InvocationId>, Unsettled>>, Error> {
        const DOING: &str = "read what became of units";
        let with = |wanted: fn(&Look) -> bool| -> Vec<UnitName> {
            looks.iter().filter(|(_, (look, _))| wanted(look)).map(|(unit, _)| unit.clone()).collect()
        };
        let (up, failed) = (with(|look| *look == Look::Up), with(|look| *look == Look::Failed));
        let runs = self.invocations(&up).await?;
        let restarts = self.properties::<u32>(DOING, SERVICE, "NRestarts", &up).await?;
        let mut results = self.properties::<String>(DOING, SERVICE, "Result", &failed).await?;
        let statuses = self.properties::<i32>(DOING, SERVICE, "ExecMainStatus", &failed).await?;
        let one = |(unit, (look, sub)): (UnitName, (Look, String))| {
            let was = &watched[&unit];
            let result = match look {
                Look::Settled if was.once => Ok(None),
                Look::Settled => Ok(was.invocation.clone()),
                Look::Up
                    if runs.get(&unit) != was.invocation.as_ref() || restarts.get(&unit) != Some(&was.restarts) =>
                {
                    Err(Unrest::Restarted)
                }
                Look::Up => Ok(was.invocation.clone()),
                Look::Moving => Err(Unrest::NotUp { sub }),
                Look::Down if was.invocation.is_none() => Err(Unrest::NotRunning),
                Look::Down => Err(Unrest::Ended),
                Look::Failed => Err(match (results.remove(&unit), statuses.get(&unit)) {
                    // It waited for its next try when it was looked at, and has begun it.
                    (Some(result), _) if result == "success" => Unrest::Restarted,
                    (result, status) => {
                        Unrest::Failed { result: result.unwrap_or_default(), status: status.copied().unwrap_or(0) }
                    }
                }),
            };
            let unsettled = |why| Unsettled { unit: unit.clone(), invocation: was.invocation.clone(), why };
            (unit.clone(), result.map_err(unsettled))
        };
        Ok(looks.into_iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: ActiveState, sub: &str) -> UnitState {
        UnitState { active, sub: sub.to_owned(), ..UnitState::not_found() }
    }

    #[test]
    fn each_kind_of_unit_settles_in_its_own_way() {
        use ActiveState::{Activating, Active, Failed, Inactive};
        let keeps = Watched::default();
        let once = Watched { once: true, ..keeps.clone() };
        for (unit, watched, state, expected) in [
            ("a.service", &keeps, state(Active, "running"), Look::Up),
            ("a.service", &keeps, state(Active, "exited"), Look::Settled),
            ("a.service", &keeps, state(Inactive, "dead"), Look::Down),
            ("a.service", &keeps, state(Failed, "failed"), Look::Failed),
            ("a.service", &keeps, state(Activating, "auto-restart"), Look::Failed),
            ("a.service", &keeps, state(Activating, "start"), Look::Moving),
            ("a.service", &once, state(Inactive, "dead"), Look::Settled),
            ("a.service", &once, state(Failed, "failed"), Look::Failed),
            ("a.timer", &keeps, state(Active, "waiting"), Look::Settled),
            ("a.socket", &keeps, state(Inactive, "dead"), Look::Down),
        ] {
            let unit = UnitName::parse(unit).expect("a unit name");
            assert_eq!(look(&unit, watched, &state), expected, "{unit} {state:?}");
        }
    }

    #[test]
    fn failures_name_what_happened() {
        let why = Unrest::Failed { result: "exit-code".to_owned(), status: 3 };
        let unit = UnitName::parse("a.service").expect("a unit name");
        let error = Unsettled { unit, invocation: None, why };
        assert_eq!(error.to_string(), "unit `a.service` did not stay up: its process exited with code 3");
        let absent = describe("exit-code", 203);
        assert!(
            absent.starts_with("its process exited with code 203, before its program ran: what `Exec…="),
            "{absent}"
        );
    }
}
