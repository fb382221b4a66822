//! Plans containers: one label holds the digest of the want, so drift needs no mapping of every inspected field.

use crate::container::Pull;
use crate::desired::{DesiredApp, DesiredContainer};
use crate::id::{AppName, ContainerName, HostPath, ResourceId};
use crate::memory;
use crate::observed::{ContainerRun, ContainerState, Reach};
use crate::plan::networks::{self, Ground};
use crate::plan::{Action, Draft, Fate, Lesson, Phase, Step, Why, is_done, order};

/// Plans every wanted container, and the networks and volumes they need, each behind what it is started after.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    let ground = networks::plan(draft);
    for (app, wanted) in &desired.apps {
        let sorted = sorted(wanted);
        for name in &sorted {
            look_at(draft, &ground, app, name, &wanted.containers[*name]);
        }
        for name in &sorted {
            follow(draft, &ground, app, name, &wanted.containers[*name]);
        }
    }
    owe_what_is_left(draft);
}

/// Remembers that containers which nobody wants at this moment may mount what is replaced now: those of a change that was begun
/// and then left alone, as by a pause. Wanted again, they are created anew.
fn owe_what_is_left(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    if draft.written.is_empty() {
        return;
    }
    let is_wanted = |name: &ContainerName| desired.containers().any(|(_, wanted, _)| wanted == name);
    let left = draft.memory.owned.iter().filter(|(id, owned)| match id {
        ResourceId::Container(name) => draft.is_aside(&owned.app) && !is_wanted(name),
        ResourceId::File(_) | ResourceId::Unit(_) | ResourceId::Network(_) | ResourceId::Volume(_) => false,
    });
    let owed: Vec<Lesson> = left.map(|(id, _)| Lesson::Owes(id.clone())).collect();
    draft.plan.lessons.extend(owed);
}

/// Sorts an application's containers, each behind what it is started after.
fn sorted(wanted: &DesiredApp) -> Vec<&ContainerName> {
    let after = wanted.containers.iter().map(|(name, it)| (name, it.after.keys().chain(&it.joins).collect()));
    order::sorted(&after.collect())
}

fn look_at(draft: &mut Draft<'_>, all: &Ground, app: &AppName, name: &ContainerName, wanted: &DesiredContainer) {
    let id = ResourceId::Container(name.clone());
    let state = match &draft.observed.containers {
        Reach::Seen(seen) => seen.get(name).cloned(),
        Reach::Unreachable(why) => {
            let why = why.clone();
            let written = wanted.inputs.iter().any(|path| draft.written.contains(path));
            if written && draft.memory.owned.contains_key(&id) {
                draft.plan.lessons.push(Lesson::Owes(id.clone()));
            }
            return draft.unknown(app, id, &why);
        }
        Reach::NotAsked => return draft.unknown(app, id, "was not looked at"),
    };
    let networks = wanted.networks().map(|name| ResourceId::Network(name.clone()));
    let volumes = wanted.volumes().map(|name| ResourceId::Volume(name.clone()));
    let ground = networks.chain(volumes).find(|id| all.missing.contains(id)).map(|id| id.to_string());
    let path = wanted.inputs.iter().find(|path| draft.blocked.contains(*path));
    if let Some(missing) = path.map(HostPath::to_string).or(ground) {
        if draft.is_aside(app) {
            return;
        }
        if let Some(why) = path.and_then(|path| draft.held_by_another(path)) {
            return draft.unknown(app, id, &why);
        }
        return draft.conflict(app, id, format!("waits for {missing}, which cannot be put in place"));
    }
    plan_container(draft, all, (app, name, wanted), state);
}

fn plan_container(
    draft: &mut Draft<'_>,
    ground: &Ground,
    (app, name, wanted): (&AppName, &ContainerName, &DesiredContainer),
    state: Option<ContainerState>,
) {
    let whole = (app, name, wanted);
    let id = ResourceId::Container(name.clone());
    let owned = draft.memory.owned.get(&id);
    let Some(state) = state else {
        let why = draft.because_absent(app, &id, "it was removed");
        return ensure(draft, ground, whole, Action::CreateContainer(name.clone()), why);
    };
    let Some(mark) = &state.mark else {
        let adopted = draft.memory.adopted.get(name).filter(|it| it.app == *app && it.id == state.id);
        if let Some((_, why)) = adopted.and_then(|it| it.back.as_ref()).filter(|(want, _)| *want == wanted.digest) {
            let why = format!(
                "ours did not work in the place of the container that was there, which is back: {why}; correct the \
                 application's container, or say `mainstay retry {app}`"
            );
            return draft.conflict(app, id, why);
        }
        if draft.policy(app, &id).adopt {
            let why = Why::Changed("the container that was there is kept under another name".to_owned());
            return ensure(draft, ground, whole, Action::AdoptContainer(name.clone(), state.id), why);
        }
        let why = "a container of that name is there already and mainstay did not create it; remove or rename it, give the \
                   application's container another name, or write `adopt: true` for it: then it is stopped and kept under \
                   another name";
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
        return ensure(draft, ground, whole, Action::ReplaceContainer(name.clone(), state.id), why);
    }
    let known_run = state.started.is_some() && state.started.as_ref() == draft.memory.containers.get(name);
    // A file that is put back gets a new inode: one that is mounted itself stays the old one inside, one in a mounted
    // folder does not, and then only a container that somebody else started may have read what was there meanwhile.
    let stale = |path: &&HostPath| {
        let mounted_itself = wanted.settings.mounts.iter().any(|mount| mount.host_path() == Some(path.as_str()));
        draft.written.contains(*path) && (mounted_itself || !known_run)
    };
    if let Some(path) = wanted.inputs.iter().find(stale) {
        let why = draft.because_of(&[path], format!("{path} is put back"));
        return ensure(draft, ground, whole, Action::ReplaceContainer(name.clone(), state.id), why);
    }
    if outgoing {
        let why = Why::Owed("it did not stay up, or an earlier pass ended before it was replaced".to_owned());
        return ensure(draft, ground, whole, Action::ReplaceContainer(name.clone(), state.id), why);
    }
    let why = match state.run {
        ContainerRun::Running => return,
        ContainerRun::Stopped if is_done(wanted, &state) => return,
        ContainerRun::Created => Why::Owed("it was created and not started yet".to_owned()),
        ContainerRun::Paused => draft.because(app, &id, "it is paused"),
        ContainerRun::Stopped => draft.because(app, &id, "it is not running"),
    };
    ensure(draft, ground, whole, Action::StartContainer(name.clone(), state.id), why);
}

/// Plans the replacement of a container that does not survive what is done to another one: it joins the other's namespaces,
/// or asks to be restarted with it. That is owed, and no repair of its own: it never counts as changed back by somebody.
fn follow(draft: &mut Draft<'_>, ground: &Ground, app: &AppName, name: &ContainerName, wanted: &DesiredContainer) {
    let Some(state) = draft.observed.containers.seen().and_then(|seen| seen.get(name)).cloned() else { return };
    let moved = |other: &ContainerName, starts: bool| {
        let id = Some(ResourceId::Container(other.clone()));
        draft.plan.steps.iter().any(|step| {
            let started = matches!(step.action, Action::StartContainer(..));
            step.action.phase() == Phase::Ensure && step.action.resource() == id && (starts || !started)
        })
    };
    if state.mark.is_none() || is_done(wanted, &state) || moved(name, true) {
        return;
    }
    let joined = wanted.joins.iter().find(|other| moved(other, true));
    let restarted = wanted.after.iter().filter(|(_, it)| it.restart).map(|(other, _)| other);
    let why = match joined {
        Some(other) => format!("it joins {other}, which starts anew"),
        None => match restarted.into_iter().find(|other| moved(other, false)) {
            Some(other) => format!("it asks to be restarted with {other}"),
            None => return,
        },
    };
    ensure(draft, ground, (app, name, wanted), Action::ReplaceContainer(name.clone(), state.id), Why::Owed(why));
}

/// Adds the step that makes or starts a container, unless what it needs is gone and is not put back: an engine would refuse to
/// start it, when the old one is gone already.
fn ensure(
    draft: &mut Draft<'_>,
    ground: &Ground,
    (app, name, wanted): (&AppName, &ContainerName, &DesiredContainer),
    action: Action,
    why: Why,
) {
    let step = Step { app: Some(app.clone()), action, why, reads: wanted.inputs.clone() };
    if draft.fate(&step) == Fate::Done
        && let Some(lost) = lost(draft, ground, wanted)
    {
        let why = format!("waits for {lost}, which is gone and is not put back");
        return draft.conflict(app, ResourceId::Container(name.clone()), why);
    }
    let is_new = matches!(step.action, Action::CreateContainer(_) | Action::AdoptContainer(..));
    if is_new || is_of_another_want(draft, name, wanted) {
        pull(draft, app, wanted, &step);
    }
    draft.step_reading(app, step.action, step.why, step.reads);
}

/// Finds what a container needs that is not there and will not be: a network, or a container whose namespaces it joins.
fn lost(draft: &Draft<'_>, ground: &Ground, wanted: &DesiredContainer) -> Option<ResourceId> {
    let network = wanted.networks().map(|name| ResourceId::Network(name.clone())).find(|id| ground.lost.contains(id));
    let joined = || {
        wanted.joins.iter().map(|name| ResourceId::Container(name.clone())).find(|id| {
            let runs = |name: &ContainerName, state: &ContainerState| {
                *id == ResourceId::Container(name.clone()) && state.run == ContainerRun::Running
            };
            let seen = draft.observed.containers.seen();
            let is_there = seen.is_some_and(|seen| seen.iter().any(|(name, state)| runs(name, state)));
            !is_there && !draft.plan.steps.iter().any(|step| step.action.resource().as_ref() == Some(id))
        })
    };
    network.or_else(joined)
}

/// Says whether a container on the host was created from something else than what is wanted.
fn is_of_another_want(draft: &Draft<'_>, name: &ContainerName, wanted: &DesiredContainer) -> bool {
    let mark = draft.observed.containers.seen().and_then(|seen| seen.get(name)?.mark.as_ref());
    mark.is_some_and(|mark| mark.digest != wanted.digest)
}

/// Plans the image before anything stops, so that a registry outage changes nothing; not for what is not made then.
fn pull(draft: &mut Draft<'_>, app: &AppName, wanted: &DesiredContainer, made: &Step) {
    let image = &wanted.settings.image;
    let needed = match wanted.settings.pull {
        Pull::Missing => !draft.observed.images.contains(image),
        Pull::Always => true,
        Pull::Never => false,
    };
    let pull = Action::PullImage(image.clone());
    let planned = draft.plan.steps.iter().any(|step| step.action == pull && step.app.as_ref() == Some(app));
    if needed && !planned && draft.fate(made) == Fate::Done {
        draft.step(app, pull, Why::New);
    }
}
