//! Plans containers: one label holds the digest of the want, so drift needs no mapping of every inspected field.

use crate::desired::DesiredContainer;
use crate::id::{AppName, ContainerName, HostPath, ResourceId};
use crate::memory;
use crate::observed::{ContainerRun, ContainerState, Reach};
use crate::plan::{Action, Draft, Fate, Lesson, Step, Why};

/// Plans every wanted container.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    for (app, name, wanted) in desired.containers() {
        let id = ResourceId::Container(name.clone());
        let state = match &draft.observed.containers {
            Reach::Seen(seen) => seen.get(name).cloned(),
            Reach::Unreachable(why) => {
                let why = why.clone();
                let written = wanted.inputs.iter().any(|path| draft.written.contains(path));
                if written && draft.memory.owned.contains_key(&id) {
                    draft.plan.lessons.push(Lesson::Owes(id.clone()));
                }
                draft.unknown(app, id, &why);
                continue;
            }
            Reach::NotAsked => {
                draft.unknown(app, id, "was not looked at");
                continue;
            }
        };
        if let Some(path) = wanted.inputs.iter().find(|path| draft.blocked.contains(*path)) {
            if draft.is_aside(app) {
                continue;
            }
            if let Some(holder) = draft.holder(path) {
                let why = format!("waits for {path} of {holder}, which is held back");
                draft.unknown(app, id, &why);
                continue;
            }
            let why = format!("waits for {path}, which cannot be put in place");
            draft.conflict(app, id, why);
            continue;
        }
        plan_container(draft, app, name, wanted, state);
    }
}

fn plan_container(
    draft: &mut Draft<'_>,
    app: &AppName,
    name: &ContainerName,
    wanted: &DesiredContainer,
    state: Option<ContainerState>,
) {
    let id = ResourceId::Container(name.clone());
    let owned = draft.memory.owned.get(&id);
    let Some(state) = state else {
        let why = draft.because_absent(app, &id, "it was removed");
        pull(draft, app, name, wanted, &why);
        return draft.step_reading(app, Action::CreateContainer(name.clone()), why, wanted.inputs.clone());
    };
    let Some(mark) = &state.mark else {
        let why = "a container of that name is there already and mainstay did not create it; \
                   remove or rename it, or give the application's container another name";
        return draft.conflict(app, id, why.to_owned());
    };
    let outgoing = owned.is_some_and(|owned| {
        [memory::outgoing(&state.id), memory::outgoing(memory::WHICHEVER)].map(Some).contains(&owned.claim)
    });
    match owned {
        Some(owned) if owned.app != *app && !outgoing => {
            draft.plan.lessons.push(Lesson::Moved(id.clone(), app.clone()));
        }
        Some(owned) if owned.claim.is_none() || outgoing => {}
        _ => draft.plan.lessons.push(Lesson::Made(id.clone(), app.clone())),
    }
    if mark.digest != wanted.digest {
        let why = match wanted.inputs.iter().find(|path| draft.written.contains(*path)) {
            Some(path) => draft.because_of(&[path], format!("{path} changes")),
            None => draft.because(app, &id, "it was created from another configuration"),
        };
        pull(draft, app, name, wanted, &why);
        return draft.step_reading(app, Action::ReplaceContainer(name.clone(), state.id), why, wanted.inputs.clone());
    }
    let known_run = state.started.is_some() && state.started.as_ref() == draft.memory.containers.get(name);
    // A file that is put back gets a new inode: one that is mounted itself stays the old one inside, one in a mounted
    // folder does not, and then only a container that somebody else started may have read what was there meanwhile.
    let stale = |path: &&HostPath| {
        let mounted_itself = wanted.volumes.iter().any(|volume| volume.source == path.as_str());
        draft.written.contains(*path) && (mounted_itself || !known_run)
    };
    if let Some(path) = wanted.inputs.iter().find(stale) {
        let why = draft.because_of(&[path], format!("{path} is put back"));
        return draft.step_reading(app, Action::ReplaceContainer(name.clone(), state.id), why, wanted.inputs.clone());
    }
    if outgoing {
        let why = Why::Owed("it did not stay up, or an earlier pass ended before it was replaced".to_owned());
        return draft.step_reading(app, Action::ReplaceContainer(name.clone(), state.id), why, wanted.inputs.clone());
    }
    let why = match state.run {
        ContainerRun::Running => return,
        ContainerRun::Created => Why::Owed("it was created and not started yet".to_owned()),
        ContainerRun::Paused => draft.because(app, &id, "it is paused"),
        ContainerRun::Stopped => draft.because(app, &id, "it is not running"),
    };
    draft.step_reading(app, Action::StartContainer(name.clone(), state.id), why, wanted.inputs.clone());
}

/// Plans the image before anything stops, so that a registry outage changes nothing; not for what is not made then.
fn pull(draft: &mut Draft<'_>, app: &AppName, name: &ContainerName, wanted: &DesiredContainer, why: &Why) {
    let pull = Action::PullImage(wanted.image.clone());
    let planned = draft.plan.steps.iter().any(|step| step.action == pull && step.app.as_ref() == Some(app));
    let action = Action::CreateContainer(name.clone());
    let made = Step { app: Some(app.clone()), action, why: why.clone(), reads: wanted.inputs.clone() };
    if !planned && !draft.observed.images.contains(&wanted.image) && draft.fate(&made) == Fate::Done {
        draft.step(app, pull, Why::New);
    }
}
