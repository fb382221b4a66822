//! Plans the networks and volumes that containers need. A network that changes takes its containers with it; a volume is
//! made when it is missing, and never changed or removed.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::{NetworkSettings, Pool, VolumeSettings};
use crate::desired::{DesiredApp, DesiredContainer, DesiredNetwork, DesiredVolume};
use crate::id::{AppName, ContainerName, NetworkName, ResourceId, VolumeName};
use crate::observed::{ContainerRun, ContainerState, NetworkState, Reach, VolumeState};
use crate::plan::{Action, Draft, Fate, Lesson, Phase, Step, Why, is_met_by};

/// What `docker compose` writes on the networks that it makes: whose it is, and what the compose file calls it.
const PROJECT: &str = "com.docker.compose.project";
const NETWORK: &str = "com.docker.compose.network";

/// What an application's containers find when they are created.
#[derive(Default)]
pub(super) struct Ground {
    /// What will not be as wanted, so that nothing may be created that needs it.
    pub(super) missing: BTreeSet<ResourceId>,
    /// Networks that are gone, which is only reported: what runs is left alone, and nothing is started that needs them.
    pub(super) lost: BTreeSet<ResourceId>,
}

/// Plans what all applications need, as far as it was looked at: what was not is as it was.
pub(super) fn plan(draft: &mut Draft<'_>) -> Ground {
    let mut ground = Ground::default();
    let desired = draft.desired;
    desired.apps.iter().for_each(|(app, wanted)| plan_app(draft, &mut ground, app, wanted));
    ground
}

fn plan_app(draft: &mut Draft<'_>, ground: &mut Ground, app: &AppName, wanted: &DesiredApp) {
    if let Some(seen) = draft.observed.networks.seen() {
        for (name, network) in &wanted.networks {
            plan_network(draft, ground, app, (name, network), seen.get(name));
        }
    } else if let Reach::Unreachable(why) = &draft.observed.containers {
        wanted.networks.keys().for_each(|name| draft.unknown(app, ResourceId::Network(name.clone()), why));
    }
    for (name, volume) in &wanted.volumes {
        if let Some(state) = draft.observed.volumes.get(name) {
            plan_volume(draft, ground, app, (name, volume), state.as_ref());
        }
    }
}

fn plan_network(
    draft: &mut Draft<'_>,
    ground: &mut Ground,
    app: &AppName,
    (name, wanted): (&NetworkName, &DesiredNetwork),
    state: Option<&NetworkState>,
) {
    let id = ResourceId::Network(name.clone());
    let complaint = match (&wanted.settings, state) {
        (None, Some(_)) => return,
        (None, None) => "it is external and not on this host; create it, or remove `external`".to_owned(),
        (Some(_), None) => {
            return create(draft, ground, app, name);
        }
        (Some(settings), Some(NetworkState { mark: None, settings: is, .. })) => {
            match foreign(settings, is, draft.policy(app, &id).adopt) {
                Some(complaint) => complaint,
                None => return,
            }
        }
        (Some(_), Some(state @ NetworkState { mark: Some(mark), .. })) => {
            match draft.memory.owned.get(&id) {
                Some(owned) if owned.app == *app && owned.claim.is_none() => {}
                Some(owned) if owned.app != *app => draft.plan.lessons.push(Lesson::Moved(id.clone(), app.clone())),
                _ => draft.plan.lessons.push(Lesson::Made(id.clone(), app.clone())),
            }
            if mark.digest == wanted.digest {
                return;
            }
            if let Some(owner) = draft.paused_owner(&id, app) {
                let why = format!("it still belongs to {owner}, which is paused");
                draft.unknown(app, id.clone(), &why);
                // What was attached to it as it is would keep it as it is.
                ground.missing.insert(id);
                return;
            }
            let why = draft.because(app, &id, "it was created from another configuration");
            draft.step(app, Action::RemoveNetwork(name.clone(), state.id.clone()), why.clone());
            return draft.step(app, Action::CreateNetwork(name.clone()), why);
        }
    };
    draft.conflict(app, id.clone(), complaint);
    ground.missing.insert(id);
}

/// Says what stands against the use of a network that mainstay did not make. That of a compose project which is taken over is
/// used like an external one, and stays without our mark: what is attached to it from before would not survive another, and
/// whoever goes back finds it.
fn foreign(wanted: &NetworkSettings, is: &NetworkSettings, adopt: bool) -> Option<String> {
    const THERE: &str = "a network of that name is there already and mainstay did not create it";
    let same = |label: &str| wanted.labels.get(label).is_some_and(|value| is.labels.get(label) == Some(value));
    // podman-compose writes the project alone.
    let is_of_the_project = same(PROJECT) && (same(NETWORK) || !is.labels.contains_key(NETWORK));
    Some(match (is_of_the_project, adopt) {
        (false, _) => format!("{THERE}; remove or rename it, or say `external: true` to use it as it is"),
        (true, false) => format!(
            "{THERE}, but `docker compose` did for this project; write `adopt: true` in app.yaml to take the project over, or \
             say `external: true` to use the network as it is"
        ),
        (true, true) => {
            let what = difference(wanted, is)?;
            format!(
                "`docker compose` created it with {what} than the compose file says, so it cannot be taken over; write there \
                 what it has, or remove it with `docker compose down`"
            )
        }
    })
}

/// Says in what a network is not as wanted, as far as the author says how it should be.
fn difference(wanted: &NetworkSettings, is: &NetworkSettings) -> Option<&'static str> {
    let unlike = |wanted: &Option<String>, is: &Option<String>| wanted.is_some() && wanted != is;
    let is_there = |pool: &Pool| {
        is.pools.iter().any(|is| {
            let parts = [(&pool.subnet, &is.subnet), (&pool.range, &is.range), (&pool.gateway, &is.gateway)];
            !parts.into_iter().any(|(wanted, is)| unlike(wanted, is))
        })
    };
    if wanted.driver.as_deref().unwrap_or("bridge") != is.driver.as_deref().unwrap_or("bridge") {
        Some("another driver")
    } else if wanted.internal != is.internal {
        Some("another `internal`")
    } else if wanted.ipv6 && !is.ipv6 {
        Some("another `enable_ipv6`")
    } else if wanted.options.iter().any(|(key, value)| is.options.get(key) != Some(value)) {
        Some("other `driver_opts`")
    } else if unlike(&wanted.ipam_driver, &is.ipam_driver) || !wanted.pools.iter().all(is_there) {
        Some("other addresses")
    } else {
        None
    }
}

/// Plans a network that is not there. One that this agent never made was not taken away, whatever was converged before.
fn create(draft: &mut Draft<'_>, ground: &mut Ground, app: &AppName, name: &NetworkName) {
    let id = ResourceId::Network(name.clone());
    let was_made = draft.memory.owned.get(&id).is_some_and(|owned| owned.claim.is_none());
    let why = if was_made { draft.because_absent(app, &id, "it was removed") } else { Why::New };
    let action = Action::CreateNetwork(name.clone());
    let step = Step { app: Some(app.clone()), action, why, reads: BTreeSet::new() };
    if draft.fate(&step) != Fate::Done {
        ground.lost.insert(id);
    }
    draft.step(app, step.action, step.why);
}

fn plan_volume(
    draft: &mut Draft<'_>,
    ground: &mut Ground,
    app: &AppName,
    (name, wanted): (&VolumeName, &DesiredVolume),
    state: Option<&VolumeState>,
) {
    let id = ResourceId::Volume(name.clone());
    let complaint = match (&wanted.settings, state) {
        (None, Some(_)) => return,
        (None, None) => "it is external and not on this host; create it, or remove `external`",
        (Some(_), None) => return draft.step(app, Action::CreateVolume(name.clone()), Why::New),
        (Some(settings), Some(state)) => {
            let is_same = match &state.mark {
                Some(mark) => mark.digest == wanted.digest,
                None => is_like(settings, state),
            };
            if is_same {
                return;
            }
            "it was made with another driver, other options or labels, and a volume is never changed; put the old \
             settings back, give the volume another name, or move its content away and remove it by hand"
        }
    };
    draft.conflict(app, id.clone(), complaint.to_owned());
    ground.missing.insert(id);
}

/// Says whether a volume that something else made, such as an earlier tool, is what would have been made.
fn is_like(wanted: &VolumeSettings, state: &VolumeState) -> bool {
    let driver = wanted.driver.as_deref().unwrap_or("local");
    state.driver == driver && state.options == wanted.options
}

/// Says whether an application's networks have to be looked at: a container of it is not as it should be, or one of
/// them is not known to be ours.
pub(super) fn are_in_doubt(
    wanted: &DesiredApp,
    seen: &BTreeMap<ContainerName, ContainerState>,
    is_owned: impl Fn(&NetworkName) -> bool,
) -> bool {
    let unowned = wanted.networks.iter().any(|(name, network)| network.settings.is_some() && !is_owned(name));
    !wanted.networks.is_empty()
        && (unowned || wanted.containers.iter().any(|(name, it)| !is_met_by(it, seen.get(name))))
}

/// Takes containers off the networks that go or are made anew, before these go; where that is not possible, spares them.
pub(super) fn clear(draft: &mut Draft<'_>) {
    vacate(draft);
    spare_used(draft);
}

/// Splits the replacement of containers that are attached to a network that goes: they are removed in the reverse of the
/// order in which they start, and created when the network is back.
fn vacate(draft: &mut Draft<'_>) {
    let Some(networks) = draft.observed.networks.seen() else { return };
    let going = draft.plan.steps.iter().filter_map(|step| match &step.action {
        Action::RemoveNetwork(name, _) => networks.get(name),
        _ => None,
    });
    let attached: BTreeSet<&String> = going.flat_map(|network| &network.containers).collect();
    let mut removals = Vec::new();
    for step in draft.plan.steps.iter_mut().rev() {
        if let Action::ReplaceContainer(name, id) = &step.action
            && attached.contains(id)
        {
            let removal = Action::RemoveContainer(name.clone(), id.clone());
            removals.push(Step { action: removal, reads: BTreeSet::new(), ..step.clone() });
            step.action = Action::CreateContainer(name.clone());
        }
    }
    draft.plan.steps.extend(removals);
}

/// Leaves networks alone that would have to go, or be made anew, while something is attached to them that this plan does not
/// remove: an engine refuses that, and the application's containers would be gone by then.
fn spare_used(draft: &mut Draft<'_>) {
    let (Some(networks), Some(containers)) = (draft.observed.networks.seen(), draft.observed.containers.seen()) else {
        return;
    };
    loop {
        let going: BTreeSet<&String> = draft.plan.steps.iter().filter_map(|step| removed_id(&step.action)).collect();
        let used = draft.plan.steps.iter().find_map(|step| match (&step.action, &step.app) {
            (Action::RemoveNetwork(name, _), Some(app)) => {
                let stays = networks.get(name)?.containers.iter().find(|id| !going.contains(id))?;
                Some((app.clone(), name.clone(), stays.clone()))
            }
            _ => None,
        });
        let Some((app, name, id)) = used else { return };
        let container =
            containers.iter().find(|(_, state)| state.id == id).map(|(name, _)| format!("container {name}"));
        let who = container.unwrap_or_else(|| "something that is no container of this engine".to_owned());
        let is_wanted = draft.desired.apps.get(&app).is_some_and(|wanted| wanted.networks.contains_key(&name));
        let why = if is_wanted {
            for id in spare(draft, &app, &name) {
                let why = format!("waits for network {name}, which cannot be put in place");
                draft.conflict(&app, id, why);
            }
            format!("it has to be created anew, and {who} is attached to it and stays; disconnect it, or remove it")
        } else {
            let removal = |action: &Action| matches!(action, Action::RemoveNetwork(other, _) if *other == name);
            draft.plan.steps.retain(|step| !removal(&step.action));
            format!("nobody wants it any more, and {who} is attached to it and stays; disconnect it, or remove it")
        };
        draft.conflict(&app, ResourceId::Network(name), why);
    }
}

/// Leaves a network as it is, and with it the containers that are to be attached to it, those that join one of these, and those
/// that are started after one that does not run; returns them, as far as something was to be done to them.
fn spare(draft: &mut Draft<'_>, app: &AppName, network: &NetworkName) -> BTreeSet<ResourceId> {
    let Some(wanted) = draft.desired.apps.get(app) else { return BTreeSet::new() };
    let id = |name: &ContainerName| Some(ResourceId::Container(name.clone()));
    let moves = |name: &ContainerName| draft.plan.steps.iter().any(|step| step.action.resource() == id(name));
    let needs = |it: &DesiredContainer| it.networks().any(|name| name == network);
    let all = &wanted.containers;
    let mut held: BTreeSet<&ContainerName> = all.iter().filter(|(_, it)| needs(it)).map(|(name, _)| name).collect();
    loop {
        let before = held.len();
        let follows = |it: &DesiredContainer| {
            let mut after = it.after.keys().filter(|other| !runs(draft, other));
            it.joins.iter().chain(&mut after).any(|other| held.contains(other) && moves(other))
        };
        let more: Vec<&ContainerName> = all.iter().filter(|(_, it)| follows(it)).map(|(name, _)| name).collect();
        held.extend(more);
        if held.len() == before {
            break;
        }
    }
    let held: BTreeSet<ResourceId> = held.into_iter().cloned().map(ResourceId::Container).collect();
    let is_spared = |step: &Step| {
        let resource = step.action.resource();
        let is_network = resource == Some(ResourceId::Network(network.clone()));
        step.app.as_ref() == Some(app) && (is_network || resource.is_some_and(|id| held.contains(&id)))
    };
    let (spared, mut left): (Vec<Step>, Vec<Step>) =
        std::mem::take(&mut draft.plan.steps).into_iter().partition(is_spared);
    let is_made = |image: &String| {
        left.iter().filter(|step| step.action.phase() == Phase::Ensure).any(|step| {
            let of = all.iter().find(|(name, _)| step.action.resource() == id(name));
            of.is_some_and(|(_, it)| it.settings.image == *image)
        })
    };
    let useless: Vec<bool> = left
        .iter()
        .map(|step| matches!(&step.action, Action::PullImage(image) if step.app.as_ref() == Some(app) && !is_made(image)))
        .collect();
    let mut useless = useless.into_iter();
    left.retain(|_| useless.next() != Some(true));
    draft.plan.steps = left;
    let waits = spared.into_iter().filter(|step| step.action.phase() >= Phase::Provide);
    waits.filter_map(|step| step.action.resource()).filter(|id| held.contains(id)).collect()
}

fn runs(draft: &Draft<'_>, name: &ContainerName) -> bool {
    let seen = draft.observed.containers.seen().and_then(|seen| seen.get(name));
    seen.is_some_and(|state| state.run == ContainerRun::Running)
}

fn removed_id(action: &Action) -> Option<&String> {
    match action {
        Action::RemoveContainer(_, id) => Some(id),
        _ => None,
    }
}
