//! Carries out the steps on containers, one after another: created in parallel they have a long tail, in a row they are
//! steady.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use spec::desired::{Desired, DesiredContainer};
use spec::id::{AppName, ContainerName, ResourceId};
use spec::journal;
use spec::plan::{Action, Phase, Step};

use super::Work;
use crate::engine::{self, Engine, Unsettled};
use crate::progress::Progress;

/// What became of containers, by id.
type Settled = Result<BTreeMap<String, Result<(), Unsettled>>, engine::Error>;

/// How many images are fetched at once.
const PULLS: usize = 3;
/// How long a container may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long the engine may take to end a request that an earlier pass left behind.
const UNFINISHED: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Fetches images, a few at a time; nothing is disturbed by it, and a failure leaves the application as it is.
pub(super) async fn pull(work: &mut Work<'_>) {
    let (engine, patience, progress) = (&work.providers.engine, work.patience.pull, work.progress);
    let pulls = work.steps(Phase::Fetch).into_iter().filter_map(|step| match &step.action {
        Action::PullImage(image) => Some(async move {
            let pulled = engine.pull(image, patience, &mut |_, _| progress.mark()).await;
            (step, pulled)
        }),
        _ => None,
    });
    let pulls = stream::iter(pulls.collect::<Vec<_>>()).buffer_unordered(PULLS).collect::<Vec<_>>();
    let pulled = tokio::select! {
        pulled = pulls => pulled,
        () = progress.overdue() => {
            work.outcome.interrupted = true;
            return;
        }
    };
    for (step, pulled) in pulled {
        match pulled {
            Ok(_) => work.done(step),
            Err(error) => work.failed(step, &error, ""),
        }
    }
}

/// Removes containers that nobody wants; their volumes stay.
pub(super) async fn remove(work: &mut Work<'_>, rank: usize) {
    let plan = work.plan;
    for step in work.steps(Phase::Clear).into_iter().filter(|step| plan.rank(step) == rank) {
        if let Action::RemoveContainer(name, id) = &step.action {
            match take_down(&work.providers.engine, work.progress, id).await {
                Ok(()) => work.removed(step, &ResourceId::Container(name.clone())),
                Err(error) => work.failed(step, &error, ""),
            }
        }
    }
}

async fn take_down(engine: &Engine, progress: &Progress, id: &str) -> Result<(), engine::Error> {
    engine.stop(id, GRACE).await?;
    progress.mark();
    engine.remove(id).await
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
    result: Result<String, engine::Error>,
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

/// Creates, replaces and starts containers, one after another. Writes nothing down: see [`take`].
pub(super) async fn make<'a>(
    engine: &Engine,
    desired: &Desired,
    progress: &Progress,
    steps: Vec<&'a Step>,
) -> Vec<Made<'a>> {
    let mut all = Vec::new();
    for step in steps {
        let mut made = Made { step, is_created: false, result: Ok(String::new()) };
        made.result = match &step.action {
            Action::CreateContainer(name) => create(engine, desired, &mut made, name).await,
            Action::ReplaceContainer(name, old) => match take_down(engine, progress, old).await {
                Ok(()) => create(engine, desired, &mut made, name).await,
                Err(error) => Err(error),
            },
            Action::StartContainer(_, id) => engine.start(id).await.map(|()| id.clone()),
            _ => continue,
        };
        progress.mark();
        all.push(made);
    }
    all
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
                engine.stop(&ours.id, GRACE).await?;
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
pub(super) fn take<'a>(work: &mut Work<'a>, made: Vec<Made<'a>>) -> Vec<Started<'a>> {
    let mut started = Vec::new();
    for Made { step, is_created, result } in made {
        if let (true, Some(app), Some(ResourceId::Container(name))) = (is_created, &step.app, step.action.resource()) {
            journal::created(&mut work.ledger.memory, app, &name);
        }
        match result {
            Ok(id) => started.push(Started { step, id }),
            Err(error) => work.failed(step, &error, ""),
        }
    }
    started
}

/// Names what has to settle.
pub(super) fn ids(started: &[Started<'_>]) -> Vec<String> {
    started.iter().map(|it| it.id.clone()).collect()
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
    match work.providers.engine.image_digest(&wanted.image).await {
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
