//! Looks whether an application is well: one try of a check, and the tries after a change until it passes.
//!
//! No judgement about what a failing check means. Nothing here writes anything down.

mod podman;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use spec::check::{Check, Probe};
use spec::id::{AppName, ContainerName, UnitName, shown};
use spec::observed::ActiveState;
use tokio::time::Instant;

use crate::engine::{self, Engine, Health};
use crate::progress::Progress;
use crate::systemd::{self, Systemd};
use crate::web::{self, Asked, Manner, Web, WebError};

/// How many checks are tried at once.
const AT_ONCE: usize = 16;
/// The pauses between tries after a change: short at first, most services need less than a second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The most that is read of a body to find a text in it.
const BODY: usize = 1 << 20;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// In our own words.
    pub why: String,
    /// What a program printed last; may be empty.
    pub said: String,
    /// It could not be looked at all: that says nothing about the application.
    pub is_blind: bool,
}

impl Miss {
    fn saw(why: impl Into<String>) -> Miss {
        Miss { why: why.into(), said: String::new(), is_blind: false }
    }

    fn blind(error: &dyn std::error::Error) -> Miss {
        Miss { why: crate::chain(error), said: String::new(), is_blind: true }
    }
}

/// Looks at one host.
pub struct Eyes {
    web: Web,
}

impl Default for Eyes {
    fn default() -> Eyes {
        Eyes::new(web::fetcher())
    }
}

impl Eyes {
    /// Makes eyes that have not looked at anything yet; `apart`: who connects to services in the place of this process.
    pub fn new(apart: Option<PathBuf>) -> Eyes {
        Eyes { web: Web::new(Manner::Check, apart) }
    }

    /// Tries checks, several at once, each again and again until it passes or its `within` is over. Returns those that
    /// did not pass; `None` when the agent is asked to stop meanwhile.
    pub async fn until_well<'c>(
        &self,
        checks: Vec<(&'c AppName, &'c Check)>,
        engine: &Engine,
        progress: &Progress,
    ) -> Option<Vec<(&'c AppName, &'c Check, Miss)>> {
        let tries = checks.into_iter().map(|(app, check)| async move {
            let miss = self.patiently(app, check, engine, progress).await.err();
            miss.map(|miss| (app, check, miss))
        });
        let tries = stream::iter(tries.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
        tokio::select! {
            missed = tries => Some(missed.into_iter().flatten().collect()),
            () = progress.overdue() => None,
        }
    }

    async fn patiently(&self, app: &AppName, check: &Check, engine: &Engine, progress: &Progress) -> Result<(), Miss> {
        let until = Instant::now() + check.within;
        let mut pause = FIRST_PAUSE.min(check.interval);
        loop {
            let result = self.look(app, check, engine).await;
            progress.mark();
            if result.is_ok() || Instant::now() + pause >= until {
                return result;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE).min(check.interval);
        }
    }

    /// Tries a check once, within its timeout.
    ///
    /// # Errors
    /// It did not pass.
    pub async fn look(&self, app: &AppName, check: &Check, engine: &Engine) -> Result<(), Miss> {
        if let Probe::Exec { command, user } = &check.probe {
            // systemd keeps the time, and ends everything that the program started.
            return program(app, command, user.as_deref(), check.timeout).await;
        }
        let look = async {
            match &check.probe {
                Probe::Tcp { address } => self.web.knock(address).await.map_err(|error| missed(&error)),
                Probe::Http { url, status, body } => self.http(url, status, body.as_deref()).await,
                Probe::Unit { unit } => active(unit).await,
                Probe::Container { container, service: None } => healthy(container, engine).await,
                Probe::Container { container, service: Some(service) } => podman::healthy(container, service).await,
                Probe::Exec { .. } => Ok(()),
            }
        };
        let late = || Miss {
            // Who is late then is the engine, which says nothing of the container.
            is_blind: matches!(check.probe, Probe::Container { .. }),
            ..Miss::saw(format!("no answer within {}", humantime::format_duration(check.timeout)))
        };
        tokio::time::timeout(check.timeout, look).await.unwrap_or_else(|_| Err(late()))
    }

    async fn http(&self, url: &str, status: &BTreeSet<u16>, body: Option<&str>) -> Result<(), Miss> {
        let mut answer = self.web.send(Asked::get(url)).await.map_err(|error| missed(&error))?;
        let code = answer.status();
        let counts = if status.is_empty() { (200..400).contains(&code) } else { status.contains(&code) };
        if !counts {
            return Err(Miss::saw(format!("it answered {code}")));
        }
        let Some(wanted) = body else { return Ok(()) };
        let mut bytes = Vec::new();
        while bytes.len() < BODY {
            match answer.chunk().await.map_err(|error| missed(&error))? {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        match String::from_utf8_lossy(&bytes).contains(wanted) {
            true => Ok(()),
            false => Err(Miss::saw(format!("it answered {code} without the text `{}`", shown(wanted)))),
        }
    }
}

/// Says why nobody answered; where nobody asked, that says nothing about the application.
fn missed(error: &WebError) -> Miss {
    Miss { why: error.to_string(), said: String::new(), is_blind: error.is_ours }
}

async fn program(app: &AppName, command: &[String], user: Option<&str>, timeout: Duration) -> Result<(), Miss> {
    // A connection of its own: a program may take long, and what it runs in goes with the connection.
    match Systemd::new().run_program(app.as_str(), command, user, timeout).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(systemd::Ended { why, said })) => Err(Miss { why, said, is_blind: false }),
        Err(error) => Err(Miss::blind(&error)),
    }
}

async fn active(unit: &UnitName) -> Result<(), Miss> {
    let mut systemd = unit.user().map_or_else(Systemd::new, Systemd::of);
    let states = systemd.units(std::slice::from_ref(unit)).await.map_err(|error| Miss::blind(&error))?;
    match states.get(unit) {
        Some(state) if matches!(state.active, ActiveState::Active | ActiveState::Reloading) => Ok(()),
        Some(state) => Err(Miss::saw(format!("it is {}", shown(&state.sub)))),
        None => Err(Miss::saw("there is no such unit")),
    }
}

async fn healthy(container: &ContainerName, engine: &Engine) -> Result<(), Miss> {
    let look = async {
        let Some(seen) = engine.containers().await?.remove(container) else { return Ok(None) };
        engine.inspect_run(&seen.id).await.map(Some)
    };
    match look.await {
        Ok(state) => verdict(state.map(|state| (state.running, state.health))),
        Err(engine::Error::Missing { .. }) => verdict(None),
        Err(error) => Err(Miss::blind(&error)),
    }
}

/// Says what it means that a container runs or not, with the word of its health check; `None` for one that is not there.
fn verdict(seen: Option<(bool, Option<Health>)>) -> Result<(), Miss> {
    match seen {
        None => Err(Miss::saw("there is no such container")),
        Some((false, _)) => Err(Miss::saw("it is not running")),
        Some((true, Some(Health::Unhealthy))) => Err(Miss::saw("its health check fails")),
        Some((true, Some(Health::Starting))) => Err(Miss::saw("its health check has no verdict yet")),
        Some((true, Some(Health::Healthy) | None)) => Ok(()),
    }
}

/// Sorts what did not pass by application.
pub fn by_app<'c>(missed: Vec<(&'c AppName, &'c Check, Miss)>) -> BTreeMap<&'c AppName, Vec<(&'c Check, Miss)>> {
    let mut sorted: BTreeMap<&AppName, Vec<(&Check, Miss)>> = BTreeMap::new();
    for (app, check, miss) in missed {
        sorted.entry(app).or_default().push((check, miss));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use spec::id::HostName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::engine::Owner;

    fn engine() -> Engine {
        Engine::new(Vec::new(), Owner { fleet: "f".to_owned(), host: HostName::parse("h").expect("a host") })
    }

    fn check(probe: Probe) -> Check {
        let second = Duration::from_secs(1);
        Check { name: None, probe, within: second, timeout: second / 2, interval: second }
    }

    async fn look(probe: Probe) -> Result<(), String> {
        let app = AppName::parse("web").expect("a name");
        Eyes::new(None).look(&app, &check(probe), &engine()).await.map_err(|miss| miss.why)
    }

    /// Answers every connection with `answer`, or never.
    async fn serve(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let read = stream.read(&mut request).await;
                    match (read, answer) {
                        (Ok(_), Some(answer)) => stream.write_all(answer.as_bytes()).await.expect("an answer"),
                        _ => std::future::pending().await,
                    }
                });
            }
        });
        address
    }

    fn answer(head: &str, body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
    }

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let address = serve(None).await;
        assert_eq!(look(Probe::Tcp { address: address.clone() }).await, Ok(()));
        let closed = look(Probe::Tcp { address: "127.0.0.1:1".to_owned() }).await.expect_err("nobody listens");
        assert!(closed.contains("refused"), "{closed}");
    }

    #[tokio::test]
    async fn an_answer_counts_by_its_status_and_its_text() {
        let fine = serve(answer("200 OK", "all is fine")).await;
        let broken = serve(answer("503 Busy", "")).await;
        let elsewhere = serve(answer("302 Found\r\nlocation: http://elsewhere.invalid/", "")).await;
        let silent = serve(None).await;
        for (address, codes, body, expected) in [
            (&fine, vec![], None, Ok(())),
            (&fine, vec![], Some("fine"), Ok(())),
            (&fine, vec![], Some("bad"), Err("it answered 200 without the text `bad`")),
            (&fine, vec![204], None, Err("it answered 200")),
            (&broken, vec![], None, Err("it answered 503")),
            (&broken, vec![500, 503], None, Ok(())),
            (&elsewhere, vec![], None, Ok(())),
            (&elsewhere, vec![200], None, Err("it answered 302")),
            (&silent, vec![], None, Err("no answer within 500ms")),
        ] {
            let (url, status) = (format!("http://{address}/x"), codes.into_iter().collect());
            let seen = look(Probe::Http { url, status, body: body.map(str::to_owned) }).await;
            assert_eq!(seen.as_ref().copied().map_err(String::as_str), expected);
        }
    }
}
