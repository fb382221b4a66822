//! Carries out the steps on containers, one after another: created in parallel they have a long tail, in a row they are
//! steady.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use spec::container::Condition;
use spec::desired::{Desired, DesiredContainer};
use spec::id::{AppName, ContainerName, ResourceId};
use spec::images;
use spec::journal;
use spec::memory::{Memory, Owned};
use spec::plan::{Action, Phase, Plan, Step};

use super::{Work, adoption};
use crate::engine::{self, ContainerRunState, Engine, Health, Unsettled, Watched};
use crate::progress::Progress;

/// What became of containers, by id.
type Settled = Result<BTreeMap<String, Result<(), Unsettled>>, engine::Error>;

/// How many images are fetched at once.
const PULLS: usize = 3;
/// How long the engine may take to end a request that an earlier pass left behind.
const UNFINISHED: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a container waits for a job to end, or for a health check that says nothing of itself.
const WAIT: Duration = Duration::from_secs(600);

/// What is known of the containers that a plan changes, by application.
type Known = Vec<(AppName, ContainerName, Option<Owned>)>;

/// Returns what is known of the containers that a plan changes, before it is noted that they go or come.
pub(super) fn known(plan: &Plan, memory: &Memory) -> Known {
    let changed: BTreeSet<(&AppName, &ContainerName)> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::ReplaceContainer(name, _) | Action::RemoveContainer(name, _) | Action::CreateContainer(name) => {
                Some((step.app.as_ref()?, name))
            }
            _ => None,
        })
        .collect();
    let known = |name: &ContainerName| memory.owned.get(&ResourceId::Container(name.clone())).cloned();
    changed.into_iter().map(|(app, name)| (app.clone(), name.clone(), known(name))).collect()
}

/// Takes back that containers go or come which nobody came to touch: their application failed before that, or the agent was
/// asked to stop.
pub(super) fn spare(work: &mut Work<'_>, known: Known) {
    for (app, name, before) in known {
        if !work.begun.contains(&app) {
            journal::spared(&mut work.ledger.memory, &name, before);
        }
    }
}

/// Fetches images, a few at a time; nothing is disturbed by it, and a failure leaves the application as it is.
pub(super) async fn pull(work: &mut Work<'_>) {
    let (engine, patience, progress) = (&work.providers.engine, work.patience.pull, work.progress);
    let steps = work.steps(Phase::Fetch).into_iter().filter_map(|step| match &step.action {
        Action::PullImage(image) => Some((step, image)),
        _ => None,
    });
    let steps: Vec<_> = steps.collect();
    if steps.is_empty() {
        return;
    }
    // What is there before us is somebody else's. Where that is not known, nothing is remembered as ours.
    let before = engine.image_ids().await.ok();
    let pulls = steps.into_iter().map(|(step, image)| async move {
        let mut transfer = progress.transfer(&format!("image {image}"));
        // The engine counts the layers that it knows of; before the first it knows of none.
        let mut moved = |done, total| transfer.moved(done, Some(total).filter(|total| *total > 0));
        let pulled = engine.pull(image, patience, &mut moved).await;
        let known = if pulled.is_ok() { engine.image(image).await.ok().flatten() } else { None };
        (step, image, pulled.map(|_| known))
    });
    let pulls = stream::iter(pulls.collect::<Vec<_>>()).buffer_unordered(PULLS).collect::<Vec<_>>();
    let pulled = tokio::select! {
        pulled = pulls => pulled,
        () = progress.overdue() => {
            work.outcome.interrupted = true;
            return;
        }
    };
    for (step, image, pulled) in pulled {
        match pulled {
            Ok(known) => {
                if let (Some(known), Some(before)) = (known, &before) {
                    images::fetched(&mut work.ledger.memory, &known.id, image, known.digest, before);
                }
                work.done(step);
            }
            Err(error) => work.failed(step, &error, ""),
        }
    }
}

/// Removes containers that nobody wants; their volumes stay. Podman refuses to remove one whose namespaces another one has
/// joined, so what was refused is tried again once others are gone.
pub(super) async fn remove(work: &mut Work<'_>, rank: usize) {
    let (plan, desired, progress) = (work.plan, work.desired, work.progress);
    let all = work.steps(Phase::Ensure);
    let mut left: Vec<&Step> = work.steps(Phase::Clear).into_iter().filter(|step| plan.rank(step) == rank).collect();
    while !left.is_empty() {
        let (before, mut refused) = (left.len(), Vec::new());
        for step in left {
            let Action::RemoveContainer(name, id) = &step.action else { continue };
            work.begun.extend(step.app.clone());
            match take_down(&work.providers.engine, progress, &followers(&all, desired, name), id).await {
                Ok(()) => {
                    vacated(work, step, name);
                    if !is_made_again(work, &Action::CreateContainer(name.clone())) {
                        adoption::give_back(work, step, "it is not wanted any more").await;
                    }
                }
                Err(error) => refused.push((step, error)),
            }
        }
        if refused.len() == before {
            return refused.iter().for_each(|(step, error)| work.failed(step, error, ""));
        }
        left = refused.into_iter().map(|(step, _)| step).collect();
    }
}

/// Names the old containers that are replaced because they join the one called `name`: the one that nobody joins first.
fn followers<'a>(steps: &[&'a Step], desired: &Desired, name: &ContainerName) -> Vec<&'a str> {
    let mut found = Vec::new();
    for step in steps {
        let Action::ReplaceContainer(follower, id) = &step.action else { continue };
        let wanted = step.app.as_ref().and_then(|app| desired.apps.get(app)?.containers.get(follower));
        if wanted.is_some_and(|wanted| wanted.joins.contains(name)) {
            found.extend(followers(steps, desired, follower));
            found.push(id.as_str());
        }
    }
    found
}

/// Removes networks that nobody wants, or that are made anew; their containers are gone by now.
pub(super) async fn remove_networks(work: &mut Work<'_>) {
    for step in work.steps(Phase::Clear) {
        if let Action::RemoveNetwork(name, id) = &step.action {
            match work.providers.engine.remove_network(id).await {
                Ok(()) if is_made_again(work, &Action::CreateNetwork(name.clone())) => work.done(step),
                Ok(()) => work.removed(step, &ResourceId::Network(name.clone())),
                Err(error) => work.failed(step, &error, ""),
            }
        }
    }
}

fn is_made_again(work: &Work<'_>, action: &Action) -> bool {
    work.plan.steps.iter().any(|step| step.action == *action)
}

/// Notes that a container is gone: for good, or until the same plan creates the next one.
fn vacated(work: &mut Work<'_>, step: &Step, name: &ContainerName) {
    match &step.app {
        Some(app) if is_made_again(work, &Action::CreateContainer(name.clone())) => {
            journal::vacated(&mut work.ledger.memory, app, name);
            work.done(step);
        }
        _ => work.removed(step, &ResourceId::Container(name.clone())),
    }
}

/// Makes the networks and volumes that containers need.
pub(super) async fn provide(work: &mut Work<'_>) {
    let desired = work.desired;
    for step in work.steps(Phase::Provide) {
        let Some(app) = &step.app else { continue };
        let Some(wanted) = desired.apps.get(app) else { continue };
        let engine = &work.providers.engine;
        let made = match &step.action {
            Action::CreateNetwork(name) => match wanted.networks.get(name) {
                Some(wanted) => engine.create_network(name, wanted, app).await,
                None => continue,
            },
            Action::CreateVolume(name) => match wanted.volumes.get(name) {
                Some(wanted) => engine.create_volume(name, wanted, app).await,
                None => continue,
            },
            _ => continue,
        };
        match made {
            Ok(()) => {
                if let Action::CreateNetwork(name) = &step.action {
                    journal::provided(&mut work.ledger.memory, app, name);
                }
                work.done(step);
            }
            Err(error) => work.failed(step, &error, ""),
        }
    }
}

/// Removes a container, those that follow it first: their own steps make them again.
async fn take_down(engine: &Engine, progress: &Progress, followers: &[&str], id: &str) -> Result<(), engine::Error> {
    for id in followers.iter().copied().chain([id]) {
        // Which may take as long as it was created to take.
        progress.through(engine.stop(id)).await?;
        progress.mark();
        engine.remove(id).await?;
    }
    Ok(())
}

/// A container that was started and has to settle.
pub(super) struct Started<'a> {
    step: &'a Step,
    id: String,
}

/// What came of one step, to be written down when nothing else is under way.
pub(super) struct Made<'a> {
    step: &'a Step,
    is_created: bool,
    result: Result<String, Trouble>,
}

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The engine did not.
    #[error(transparent)]
    Engine(engine::Error),
    /// What it depends on is not as it asks.
    #[error("{0}")]
    Dependency(String),
}

/// Sorts the steps that create, replace and start containers: first those of applications that have no unit to be run
/// before, which wait for nothing.
pub(super) fn sorted<'a>(work: &Work<'a>) -> (Vec<&'a Step>, Vec<&'a Step>) {
    let steps = work.steps(Phase::Ensure);
    let runs = |step: &&&Step| matches!(step.action, Action::RunUnit { .. });
    let with_units: BTreeSet<Option<&AppName>> = steps.iter().filter(runs).map(|step| step.app.as_ref()).collect();
    let containers = steps.into_iter().filter(|step| !matches!(step.action, Action::RunUnit { .. }));
    containers.partition(|step| !with_units.contains(&step.app.as_ref()))
}

/// Creates, replaces and starts containers, one after another, each once what it depends on is as it asks. Writes nothing
/// down: see [`take`]. What still waits when the agent is asked to stop is left out.
pub(super) async fn make<'a>(
    engine: &Engine,
    desired: &Desired,
    progress: &Progress,
    steps: Vec<&'a Step>,
) -> Vec<Made<'a>> {
    let mut since = BTreeMap::new();
    let planned = steps.clone();
    let (mut all, mut waiting) = (Vec::new(), steps);
    while !waiting.is_empty() && !progress.is_stopping() {
        let before = waiting.len();
        let mut still = Vec::new();
        for step in waiting {
            let open: BTreeSet<ContainerName> = still.iter().filter_map(|step: &&Step| name_of(step)).collect();
            match readiness(engine, desired, (&all, &open), step, &mut since).await {
                Readiness::Ready => {
                    all.push(make_one(engine, desired, progress, (step, &planned)).await);
                    progress.mark();
                }
                Readiness::Never(trouble) => all.push(Made { step, is_created: false, result: Err(trouble) }),
                Readiness::NotYet => still.push(step),
            }
        }
        waiting = still;
        if waiting.len() == before {
            tokio::time::sleep(LOOK_AGAIN).await;
            progress.mark();
        }
    }
    all
}

async fn make_one<'a>(
    engine: &Engine,
    desired: &Desired,
    progress: &Progress,
    (step, planned): (&'a Step, &[&Step]),
) -> Made<'a> {
    let mut made = Made { step, is_created: false, result: Ok(String::new()) };
    let result = match &step.action {
        Action::CreateContainer(name) => create(engine, desired, &mut made, name).await,
        Action::ReplaceContainer(name, old) => {
            match take_down(engine, progress, &followers(planned, desired, name), old).await {
                Ok(()) => create(engine, desired, &mut made, name).await,
                Err(error) => Err(error),
            }
        }
        Action::AdoptContainer(name, old) => match adoption::set_aside(engine, progress, name, old).await {
            Ok(()) => create(engine, desired, &mut made, name).await,
            Err(error) => Err(error),
        },
        Action::StartContainer(_, id) => engine.start(id).await.map(|()| id.clone()),
        _ => Ok(String::new()),
    };
    made.result = result.map_err(Trouble::Engine);
    made
}

fn name_of(step: &Step) -> Option<ContainerName> {
    match step.action.resource() {
        Some(ResourceId::Container(name)) => Some(name),
        _ => None,
    }
}

/// Whether what a container depends on is as it asks.
enum Readiness {
    Ready,
    NotYet,
    Never(Trouble),
}

/// Looks at what the container of `step` depends on. `all` was made by this plan, `open` is still to be; `since` keeps when
/// each began to wait for which.
async fn readiness(
    engine: &Engine,
    desired: &Desired,
    (all, open): (&[Made<'_>], &BTreeSet<ContainerName>),
    step: &Step,
    since: &mut BTreeMap<(ContainerName, ContainerName), Instant>,
) -> Readiness {
    let app = step.app.as_ref().and_then(|app| desired.apps.get(app));
    let (Some(app), Some(own)) = (app, name_of(step)) else { return Readiness::Ready };
    let Some(wanted) = app.containers.get(&own) else { return Readiness::Ready };
    let failed =
        |name: &ContainerName| all.iter().any(|made| made.result.is_err() && name_of(made.step).as_ref() == Some(name));
    for name in &wanted.joins {
        if failed(name) {
            return never(format!("it joins container {name}, which could not be started"));
        }
        if open.contains(name) {
            return Readiness::NotYet;
        }
    }
    for (name, dependency) in &wanted.after {
        if failed(name) {
            return never(format!("it is started after container {name}, which could not be started"));
        }
        if open.contains(name) {
            return Readiness::NotYet;
        }
        if dependency.condition == Condition::Started {
            continue;
        }
        let health = app.containers.get(name).and_then(|it| it.settings.health.as_ref());
        let most = match (dependency.condition, health) {
            (Condition::Healthy, Some(health)) => Duration::from_millis(health.verdict_ms()).min(WAIT),
            _ => WAIT,
        };
        let began = since.entry((own.clone(), name.clone())).or_insert_with(Instant::now);
        let verdict = match engine.inspect_run(name.as_str()).await {
            Ok(state) => verdict(name, dependency.condition, &state),
            Err(error) => Readiness::Never(Trouble::Engine(error)),
        };
        match verdict {
            Readiness::Ready => {}
            Readiness::NotYet if began.elapsed() >= most => {
                let most = humantime::format_duration(most);
                return never(match dependency.condition {
                    Condition::Completed => format!("it waits for job {name}, which still runs after {most}"),
                    _ => format!("it waits for container {name}, which is not healthy after {most}"),
                });
            }
            other => return other,
        }
    }
    Readiness::Ready
}

fn never(why: String) -> Readiness {
    Readiness::Never(Trouble::Dependency(why))
}

fn verdict(name: &ContainerName, condition: Condition, state: &ContainerRunState) -> Readiness {
    let never = |why: String| never(format!("it waits for container {name}, {why}"));
    match (condition, state.running, state.health) {
        (Condition::Started, _, _) => Readiness::Ready,
        (Condition::Completed, true, _) => Readiness::NotYet,
        (Condition::Completed, false, _) if state.exit_code == 0 => Readiness::Ready,
        (Condition::Completed, false, _) => never(format!("whose process exited with code {}", state.exit_code)),
        (Condition::Healthy, true, Some(Health::Healthy)) => Readiness::Ready,
        (Condition::Healthy, true, Some(Health::Starting)) => Readiness::NotYet,
        (Condition::Healthy, true, Some(Health::Unhealthy)) => never("whose health check fails".to_owned()),
        // An engine calls what has ended unhealthy, whatever its check said last.
        (Condition::Healthy, false, Some(Health::Unhealthy)) => {
            never(format!("whose process exited with code {} before it was healthy", state.exit_code))
        }
        (Condition::Healthy, true, None) => never("which has no health check".to_owned()),
        // One that the engine restarts may still become healthy.
        (Condition::Healthy, false, _) => Readiness::NotYet,
    }
}

async fn create(
    engine: &Engine,
    desired: &Desired,
    made: &mut Made<'_>,
    name: &ContainerName,
) -> Result<String, engine::Error> {
    let app = made.step.app.as_ref().expect("the planner gives every container step its application");
    let wanted = desired.apps.get(app).and_then(|wanted| wanted.containers.get(name));
    let wanted = wanted.expect("the planner creates only wanted containers");
    let id = create_once_free(engine, name, wanted, app).await?;
    made.is_created = true;
    engine.start(&id).await?;
    Ok(id)
}

/// Creates a container whose name nobody held when it was looked for. An engine goes on with a request whose sender was
/// killed: it reserves the name first and lists the container later, so that ours may still be on its way.
async fn create_once_free(
    engine: &Engine,
    name: &ContainerName,
    wanted: &DesiredContainer,
    app: &AppName,
) -> Result<String, engine::Error> {
    let deadline = Instant::now() + UNFINISHED;
    loop {
        let taken = match engine.create(name, wanted, app).await {
            Err(taken @ engine::Error::NameTaken { .. }) => taken,
            other => return other,
        };
        match engine.containers().await?.remove(name) {
            Some(ours) if ours.mark.is_some() => {
                engine.stop(&ours.id).await?;
                engine.remove(&ours.id).await?;
            }
            Some(_) => return Err(taken),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
        if Instant::now() >= deadline {
            return Err(taken);
        }
    }
}

/// Writes down what was made; returns what was started and has to settle.
pub(super) async fn take<'a>(work: &mut Work<'a>, made: Vec<Made<'a>>) -> Vec<Started<'a>> {
    // What still waited when the agent was asked to stop is done when it is back.
    work.outcome.interrupted |= work.progress.is_stopping();
    let mut started = Vec::new();
    for Made { step, is_created, result } in made {
        if let (true, Some(app), Some(ResourceId::Container(name))) = (is_created, &step.app, step.action.resource()) {
            journal::created(&mut work.ledger.memory, app, &name);
        }
        match result {
            Ok(id) => started.push(Started { step, id }),
            Err(error) => {
                work.failed(step, &error, "");
                adoption::give_back(work, step, &crate::chain(&error)).await;
            }
        }
    }
    started
}

/// Names what has to settle.
pub(super) fn watched(desired: &Desired, started: &[Started<'_>]) -> Vec<Watched> {
    let watched = started.iter().map(|it| {
        let wanted = it.step.app.as_ref().and_then(|app| desired.apps.get(app));
        let wanted = name_of(it.step).and_then(|name| wanted?.containers.get(&name));
        Watched::new(&it.id, wanted)
    });
    watched.collect()
}

/// Writes down what came of watching what was started: a start counts only when it lasts.
pub(super) async fn settled(work: &mut Work<'_>, started: Vec<Started<'_>>, settled: Settled) {
    let mut settled = match settled {
        Ok(settled) => settled,
        Err(error) => {
            for it in started {
                work.failed(it.step, &error, "");
            }
            return;
        }
    };
    for it in started {
        match settled.remove(&it.id) {
            Some(Err(unsettled)) => {
                if let Some(ResourceId::Container(name)) = it.step.action.resource() {
                    journal::unsettled(&mut work.ledger.memory, &name, &it.id);
                }
                let said = unsettled.log.clone();
                work.failed(it.step, &unsettled, &said);
                adoption::give_back(work, it.step, &crate::chain(&unsettled)).await;
            }
            Some(Ok(())) | None => {
                remember(work, &it).await;
                image(work, it.step).await;
                work.done(it.step);
            }
        }
    }
}

/// Notes which image a container runs, for the record: a tag says little a year later.
async fn image(work: &mut Work<'_>, step: &Step) {
    let Some(ResourceId::Container(name)) = step.action.resource() else { return };
    let Some((_, _, wanted)) = work.desired.containers().find(|(_, wanted, _)| **wanted == name) else { return };
    match work.providers.engine.image_digest(&wanted.settings.image).await {
        Ok(Some(digest)) => {
            work.outcome.images.insert(name, digest);
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%name, error = crate::chain(&error), "the image's digest is not known"),
    }
}

/// Notes when the run began that just settled: a later one is somebody else's.
async fn remember(work: &mut Work<'_>, it: &Started<'_>) {
    let Some(ResourceId::Container(name)) = it.step.action.resource() else { return };
    let astray = work.plan.starts_astray(it.step);
    let started = match work.providers.engine.inspect_run(&it.id).await {
        Ok(state) => state.started.filter(|_| !astray),
        Err(error) => {
            tracing::debug!(%name, error = crate::chain(&error), "it is not known when the container started");
            None
        }
    };
    journal::ran(&mut work.ledger.memory, &name, started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_blamed_on_its_health_check() {
        let name = ContainerName::parse("cloud-db").expect("a name");
        let of = |running, health| {
            let error = String::new();
            let state =
                ContainerRunState { running, paused: false, restarts: 0, exit_code: 3, error, health, started: None };
            match verdict(&name, Condition::Healthy, &state) {
                Readiness::Ready => "ready".to_owned(),
                Readiness::NotYet => "not yet".to_owned(),
                Readiness::Never(trouble) => trouble.to_string(),
            }
        };
        let ended = "it waits for container cloud-db, whose process exited with code 3 before it was healthy";
        assert_eq!(of(false, Some(Health::Unhealthy)), ended);
        assert_eq!(of(true, Some(Health::Unhealthy)), "it waits for container cloud-db, whose health check fails");
        assert_eq!(of(true, Some(Health::Healthy)), "ready");
        assert_eq!(of(false, Some(Health::Starting)), "not yet");
    }
}
