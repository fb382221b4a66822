//! Puts a container in the place of somebody else's, and gives that its place back when ours does not work there.
//!
//! How theirs was is on disk before it is touched, so that a pass which is cut short takes nothing from the next one's way back.

use spec::id::{ContainerName, ResourceId};
use spec::journal;
use spec::plan::{Action, Phase, Step};

use super::Work;
use crate::engine::{self, Engine};
use crate::ledger::LedgerError;
use crate::progress::Progress;

/// Writes down how the containers are that are in the way of wanted ones. What cannot be kept is left as it is.
///
/// # Errors
/// The ledger could not be written.
pub(super) async fn note(work: &mut Work<'_>) -> Result<(), LedgerError> {
    for step in work.steps(Phase::Ensure) {
        let (Action::AdoptContainer(name, id), Some(app)) = (&step.action, &step.app) else { continue };
        match work.providers.engine.adoptable(id, app).await {
            Ok(theirs) => journal::adopting(&mut work.ledger.memory, name, theirs),
            Err(error) => {
                journal::removed(&mut work.ledger.memory, &ResourceId::Container(name.clone()));
                work.failed(step, &error, "");
            }
        }
    }
    work.ledger.save()
}

/// Stops somebody else's container and keeps it under another name.
pub(super) async fn set_aside(
    engine: &Engine,
    progress: &Progress,
    name: &ContainerName,
    id: &str,
) -> Result<(), engine::Error> {
    progress.through(engine.stop(id)).await?;
    let kept = engine.set_aside(name, id).await?;
    tracing::info!(%name, %kept, "the container that was there is stopped and kept under another name");
    Ok(())
}

/// Gives the container that was in the place of the one of `step` its place back, if there was one: ours is removed, and `why` is
/// what did not work. Where that cannot be done, a person is needed, and is told.
pub(super) async fn give_back(work: &mut Work<'_>, step: &Step, why: &str) {
    let Some(ResourceId::Container(name)) = step.action.resource() else { return };
    let known = work.ledger.memory.adopted.get(&name).filter(|it| it.back.is_none());
    let Some(theirs) = known.cloned() else { return };
    let wanted = work.desired.apps.get(&theirs.app).and_then(|app| app.containers.get(&name));
    let engine = &work.providers.engine;
    let back = async {
        if let Some(ours) = engine.containers().await?.remove(&name).filter(|it| it.mark.is_some()) {
            work.progress.through(engine.stop(&ours.id)).await?;
            engine.remove(&ours.id).await?;
        }
        engine.put_back(&name, &theirs).await
    };
    match back.await {
        Ok(()) => {
            tracing::warn!(%name, "the container that was there before is back in its place");
            match wanted {
                Some(wanted) => journal::gave_back(&mut work.ledger.memory, &name, wanted.digest, why),
                None => drop(work.ledger.memory.adopted.remove(&name)),
            }
        }
        Err(error) => {
            let error = crate::chain(&error);
            let text = format!("the container that was there before is not back, start {} by hand: {error}", theirs.id);
            work.failed_with(step, &text, "");
        }
    }
}
