//! Containers on the engine: what is there, and the four changes that can be made to one. Volumes are never removed, and
//! a container is only ever removed by the id it was seen with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use futures_util::StreamExt;
use serde::Deserialize;
use spec::desired::DesiredContainer;
use spec::digest::Digest;
use spec::id::{AppName, ContainerName, shown};
use spec::observed::{ContainerMark, ContainerRun, ContainerState};

use super::body::Marks;
use super::{ASK, CHANGE, Engine, Error, Owner, body, path_escaped};

pub(super) const FLEET: &str = "io.mainstay.fleet";
const HOST: &str = "io.mainstay.host";
const APP: &str = "io.mainstay.app";
const DIGEST: &str = "io.mainstay.digest";
/// The containers that one was started after, separated by commas: they are stopped in the reverse order, and whoever wanted
/// them may be gone by then.
const AFTER: &str = "io.mainstay.after";

/// How long a container may take to stop: longer than any that a repository can ask for.
const LONGEST_STOP: Duration = Duration::from_secs(15 * 60);

/// The most that is kept of one line of a log, and of a log's tail.
const LINE_LIMIT: usize = 400;
const TAIL_LIMIT: usize = 64 * 1024;

/// A row of the list. Everything may be missing: Podman leaves out and adds, and no single row may spoil the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

/// How a container runs, for `settle` and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRunState {
    /// Whether its process is there, be it held.
    pub running: bool,
    /// Whether its process is there and held.
    pub paused: bool,
    /// How often the engine has restarted it.
    pub restarts: u64,
    /// What its process ended with, last.
    pub exit_code: i64,
    /// What the engine says of a failed start; often empty.
    pub error: String,
    /// What its health check says; `None` without one.
    pub health: Option<Health>,
    /// When its current or last run began, as the engine writes it.
    pub started: Option<String>,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not yet known.
    Starting,
    /// Well.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

impl Health {
    /// Reads the engines' word; none where there is no check.
    pub fn of(word: &str) -> Option<Health> {
        match word {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => Some(Health::Unhealthy),
            // `none`, or empty.
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    #[serde(default)]
    name: String,
    #[serde(default)]
    state: InspectedState,
    #[serde(default)]
    restart_count: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the engine's own words")]
struct InspectedState {
    running: bool,
    paused: bool,
    restarting: bool,
    exit_code: i64,
    error: Option<String>,
    health: Option<InspectedHealth>,
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    #[serde(default)]
    status: String,
}

impl Engine {
    /// Lists every container, running or not, ours or not, in one call.
    ///
    /// # Errors
    /// Unreachable or timed out: then nothing is known of containers. Refused when the answer is no list.
    pub async fn containers(&self) -> Result<BTreeMap<ContainerName, ContainerState>, Error> {
        let rows: Vec<Row> = self.get("list containers", "/containers/json?all=true").await?;
        Ok(rows.into_iter().filter_map(|row| listed(row, &self.owner)).collect())
    }

    /// Creates a container that has our labels and runs until it is stopped, and returns its id. It is not started. The
    /// engine makes named volumes when they do not exist.
    ///
    /// # Errors
    /// `NameTaken` when there is a container of that name, ours or not. Missing when the image is not on the engine.
    pub async fn create(
        &self,
        name: &ContainerName,
        wanted: &DesiredContainer,
        app: &AppName,
    ) -> Result<String, Error> {
        let doing = format!("create container `{name}`");
        let client = self.client(&doing)?;
        let platform = wanted.settings.platform.clone().unwrap_or_default();
        let options = CreateContainerOptions { name: Some(name.to_string()), platform };
        let mut body = body::container(&wanted.settings, &marks(&self.owner, app, &wanted.digest));
        if !wanted.after.is_empty() {
            let after: Vec<&str> = wanted.after.keys().map(ContainerName::as_str).collect();
            body.labels.get_or_insert_default().insert(AFTER.to_owned(), after.join(","));
        }
        let created = client.within(&doing, CHANGE, client.docker.create_container(Some(options), body)).await;
        match created {
            Ok(created) => Ok(created.id),
            // Docker answers 409, Podman 500; both say this.
            Err(Error::Refused { words, .. }) if words.contains("already in use") => {
                Err(Error::NameTaken { name: name.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    /// Starts a container, or lets it go on when it is paused; one that runs is left alone.
    ///
    /// # Errors
    /// Refused with the engine's words, for instance when a port is taken.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let doing = format!("start container {}", short(id));
        // The engines refuse to start what is paused, each in its own words.
        let paused = self.inspect_run(id).await?.paused;
        let client = self.client(&doing)?;
        if paused {
            return client.within(&doing, CHANGE, client.docker.unpause_container(id)).await;
        }
        client.within(&doing, CHANGE, client.docker.start_container(id, None::<StartContainerOptions>)).await
    }

    /// Stops a container, and has it killed after the grace that it was created with. One that is stopped, or gone, is
    /// left alone. The engine does not start it again by itself.
    ///
    /// # Errors
    /// Refused with the engine's words.
    pub async fn stop(&self, id: &str) -> Result<(), Error> {
        let doing = format!("stop container {}", short(id));
        let client = self.client(&doing)?;
        let options = StopContainerOptions::default();
        let stopped = client.within(&doing, LONGEST_STOP, client.docker.stop_container(id, Some(options))).await;
        unless_missing(stopped)
    }

    /// Removes a stopped container, and none of its volumes. One that is gone is no error.
    ///
    /// # Errors
    /// Refused when it runs: stop it first.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let doing = format!("remove container {}", short(id));
        let client = self.client(&doing)?;
        let options = RemoveContainerOptions { v: false, force: false, link: false };
        unless_missing(client.within(&doing, CHANGE, client.docker.remove_container(id, Some(options))).await)
    }

    /// Returns how a container runs.
    ///
    /// # Errors
    /// Missing when there is no such container.
    pub async fn inspect_run(&self, id: &str) -> Result<ContainerRunState, Error> {
        let path = format!("/containers/{}/json", path_escaped(id));
        Ok(run_state(self.get(&format!("inspect container {}", short(id)), &path).await?))
    }

    /// Returns the last `lines` lines that a container wrote, with control characters escaped. Never fails: without a
    /// log there are no last words, and the text says why.
    pub async fn logs_tail(&self, id: &str, lines: usize) -> String {
        match self.read_log(id, lines).await {
            Ok(bytes) => tidy(&bytes),
            Err(error) => format!("({error})"),
        }
    }

    async fn read_log(&self, id: &str, lines: usize) -> Result<Vec<u8>, Error> {
        let doing = format!("read the log of container {}", short(id));
        let client = self.client(&doing)?;
        let options = LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let read = async {
            let mut bytes = Vec::new();
            let mut log = std::pin::pin!(client.docker.logs(id, Some(options)));
            while let Some(piece) = log.next().await
                && bytes.len() < TAIL_LIMIT
            {
                bytes.extend_from_slice(&LogOutput::into_bytes(piece?));
            }
            Ok(bytes)
        };
        client.within(&doing, ASK, read).await
    }
}

fn unless_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Missing { .. }) => Ok(()),
        result => result,
    }
}

/// Returns as much of an id as people are used to.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn listed(row: Row, owner: &Owner) -> Option<(ContainerName, ContainerState)> {
    // A container has its own name as `/name`, and `/other/alias` for each link to it.
    let names = row.names.unwrap_or_default();
    let name = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).find(|name| !name.contains('/'))?;
    let name = ContainerName::parse(name).ok()?;
    let mark = row.labels.as_ref().and_then(|labels| mark(labels, owner));
    let run = run(row.state.as_deref().unwrap_or_default());
    let exit_code = row.status.as_deref().and_then(exit_code);
    let after =
        row.labels.as_ref().and_then(|labels| labels.get(AFTER)).map(|after| names_in(after)).unwrap_or_default();
    Some((name, ContainerState { id: row.id, run, mark, started: None, exit_code, after }))
}

/// Reads what both engines write for people: `Exited (0) 5 minutes ago`.
fn exit_code(status: &str) -> Option<i64> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

fn names_in(list: &str) -> BTreeSet<ContainerName> {
    list.split(',').filter_map(|name| ContainerName::parse(name).ok()).collect()
}

fn run(word: &str) -> ContainerRun {
    match word {
        "running" | "restarting" => ContainerRun::Running,
        // Podman calls it `configured` or `initialized` before the first start.
        "created" | "configured" | "initialized" => ContainerRun::Created,
        "paused" => ContainerRun::Paused,
        // `exited`, `dead`, `removing`, Podman's `stopped` and `stopping`, and what we do not know.
        _ => ContainerRun::Stopped,
    }
}

pub(super) fn mark(labels: &HashMap<String, String>, owner: &Owner) -> Option<ContainerMark> {
    if labels.get(FLEET) != Some(&owner.fleet) || labels.get(HOST).map(String::as_str) != Some(owner.host.as_str()) {
        return None;
    }
    Some(ContainerMark {
        app: AppName::parse(labels.get(APP)?).ok()?,
        digest: Digest::parse(labels.get(DIGEST)?).ok()?,
    })
}

pub(super) fn marks(owner: &Owner, app: &AppName, digest: &Digest) -> Marks {
    [(FLEET, owner.fleet.clone()), (HOST, owner.host.to_string()), (APP, app.to_string()), (DIGEST, digest.to_string())]
        .map(|(label, value)| (label.to_owned(), value))
}

/// Reads how a container runs, when it is the one of this name.
pub(super) fn run_state_of(name: &ContainerName, inspected: Inspected) -> Option<ContainerRunState> {
    let is_it = inspected.name.strip_prefix('/').unwrap_or(&inspected.name) == name.as_str();
    is_it.then(|| run_state(inspected))
}

fn run_state(inspected: Inspected) -> ContainerRunState {
    let health = inspected.state.health.and_then(|health| Health::of(&health.status));
    ContainerRunState {
        running: inspected.state.running && !inspected.state.restarting,
        paused: inspected.state.paused,
        restarts: inspected.restart_count.unwrap_or(0),
        exit_code: inspected.state.exit_code,
        error: shown(inspected.state.error.unwrap_or_default().trim()),
        health,
        started: inspected.state.started_at.filter(|at| !at.is_empty()),
    }
}

fn tidy(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| shown(&line.chars().take(LINE_LIMIT).collect::<String>()));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use spec::id::HostName;

    use super::*;

    fn owner() -> Owner {
        Owner { fleet: "shop".to_owned(), host: HostName::parse("h1").expect("a host") }
    }

    fn digest() -> Digest {
        Digest::of(b"x")
    }

    fn parse(text: &str) -> Vec<(String, ContainerRun, Option<String>)> {
        let rows: Vec<Row> = serde_json::from_str(text).expect("a list");
        let listed = rows.into_iter().filter_map(|row| listed(row, &owner()));
        listed.map(|(name, state)| (name.to_string(), state.run, state.mark.map(|mark| mark.app.to_string()))).collect()
    }

    #[test]
    fn one_odd_row_does_not_spoil_the_list() {
        let text = r#"[
            {"Id":"1","Names":["/a"],"State":"stopped","Labels":null},
            {"Id":"2","Names":["/x/alias","/b"],"State":"something-new","Labels":{},"Ports":[{"x":1}]},
            {"Id":"3","Names":null,"State":"running"},
            {"Id":"4","Names":["/c"],"State":"restarting"},
            {"Id":"5","Names":["d"]}
        ]"#;
        assert_eq!(
            parse(text),
            [
                ("a".to_owned(), ContainerRun::Stopped, None),
                ("b".to_owned(), ContainerRun::Stopped, None),
                ("c".to_owned(), ContainerRun::Running, None),
                ("d".to_owned(), ContainerRun::Stopped, None),
            ]
        );
    }

    #[test]
    fn only_our_fleet_and_host_make_a_mark() {
        let row = |fleet: &str, host: &str, digest: &str| {
            format!(
                r#"[{{"Id":"1","Names":["/a"],"State":"running","Labels":{{"io.mainstay.fleet":"{fleet}",
                "io.mainstay.host":"{host}","io.mainstay.app":"web","io.mainstay.digest":"{digest}"}}}}]"#
            )
        };
        let digest = digest().to_string();
        assert_eq!(parse(&row("shop", "h1", &digest))[0].2, Some("web".to_owned()));
        assert_eq!(parse(&row("other", "h1", &digest))[0].2, None);
        assert_eq!(parse(&row("shop", "h2", &digest))[0].2, None);
        assert_eq!(parse(&row("shop", "h1", "nonsense"))[0].2, None);
    }

    #[test]
    fn the_exit_code_is_read_where_the_list_has_it() {
        assert_eq!(exit_code("Exited (137) 5 minutes ago"), Some(137));
        assert_eq!(exit_code("Exited (0) 5 minutes ago"), Some(0));
        assert_eq!((exit_code("Up 3 seconds (healthy)"), exit_code("Exited"), exit_code("")), (None, None, None));
    }

    #[test]
    fn a_container_that_waits_for_its_restart_does_not_run() {
        let text = r#"{"State":{"Status":"restarting","Running":true,"Restarting":true,"ExitCode":3,"Error":"a\u001bb"},
            "RestartCount":2}"#;
        let state = run_state(serde_json::from_str(text).expect("an answer"));
        let expected = ContainerRunState {
            running: false,
            paused: false,
            restarts: 2,
            exit_code: 3,
            error: "a\\u{1b}b".to_owned(),
            health: None,
            started: None,
        };
        assert_eq!(state, expected);
    }
}
