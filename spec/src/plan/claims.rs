//! Names in Podman: a service of a quadlet takes its name from whoever has it, and removes that with all that is in it. What
//! is not ours keeps its name, and the quadlet waits: with its text in place, the next boot would start it.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, UnitOrigin};
use crate::id::{AppName, ContainerName, HostPath, ResourceId, UnitName, User};
use crate::inputs;
use crate::memory::Memory;
use crate::observed::{Holder, HolderKind, Observed, Reach};
use crate::plan::{Action, Draft, Phase, Plan, Unknown, Verb};

/// Names what services of quadlets would take in Podman if this plan were carried out, by whose Podman it is. Nothing is
/// asked where nothing is started and no quadlet is written, nor of a user's before the manager runs that answers.
pub fn names_in_doubt(
    plan: &Plan,
    desired: &Desired,
    observed: &Observed,
) -> BTreeMap<Option<User>, BTreeSet<ContainerName>> {
    let mut names = taken(plan, desired, |_| true);
    names.retain(|user, _| user.as_ref().is_none_or(|user| !observed.is_down(user)));
    names
}

/// Leaves of a plan only what has the managers of users run, for the applications whose names in Podman nobody can be asked
/// about before: another pass does the rest. What was started once took its name then, and a manager that begins starts it by
/// itself.
pub fn first_managers(plan: &mut Plan, desired: &Desired, memory: &Memory) {
    let starts = |user: &User| {
        let starts = |action: &Action| matches!(action, Action::StartManager(it) if it == user);
        plan.steps.iter().any(|step| starts(&step.action))
    };
    let is_first = |name: &UnitName| !memory.units.contains_key(name);
    let users: BTreeSet<User> = taken(plan, desired, is_first).into_keys().flatten().filter(starts).collect();
    let user_of = |app: &AppName| desired.apps.get(app).and_then(|wanted| wanted.user.as_ref());
    let waits = |app: &AppName| user_of(app).is_some_and(|user| users.contains(user));
    plan.steps.retain(|step| {
        let reloads = matches!(&step.action, Action::ReloadManager(user) if users.contains(user));
        !reloads && (step.action.phase() == Phase::Prepare || !step.app.as_ref().is_some_and(waits))
    });
    for app in desired.apps.keys().filter(|app| waits(app)) {
        let Some(user) = user_of(app) else { continue };
        let why = format!("what Podman has of {user} shows when the manager runs");
        plan.unknown.push(Unknown { app: app.clone(), resource: ResourceId::Unit(user.manager()), why });
        plan.closed.insert(app.clone());
    }
}

/// Names what a plan takes: by what it starts, and by the quadlets that it writes, which others may start.
fn taken(
    plan: &Plan,
    desired: &Desired,
    matters: impl Fn(&UnitName) -> bool,
) -> BTreeMap<Option<User>, BTreeSet<ContainerName>> {
    let is_new = |name: &UnitName, path: &HostPath| {
        plan.steps.iter().any(|step| match &step.action {
            Action::RunUnit { unit, verb, .. } => unit == name && matches!(verb, Verb::Start | Verb::Restart),
            Action::WriteFile(written, _) => written == path || of_drop_in(written).as_ref() == Some(path),
            _ => false,
        })
    };
    let mut names: BTreeMap<Option<User>, BTreeSet<ContainerName>> = BTreeMap::new();
    if plan.steps.is_empty() {
        return names;
    }
    let managed = inputs::managed(desired);
    for (_, name, unit) in desired.units() {
        let UnitOrigin::Application { path, .. } = &unit.origin else { continue };
        if path.quadlet().is_some() && matters(name) && is_new(name, path) {
            names.entry(name.user().cloned()).or_default().extend(inputs::claims(name, unit, &managed));
        }
    }
    names.retain(|_, names| !names.is_empty());
    names
}

/// Returns the quadlet that a drop-in is for.
fn of_drop_in(path: &HostPath) -> Option<HostPath> {
    path.quadlet_drop_in()?;
    HostPath::parse(path.parent()?.as_str().strip_suffix(".d")?).ok()
}

/// Holds a quadlet back whose service would take a name that is somebody else's, and what is of one that is held back. Says
/// whether it is.
pub(super) fn hold_back(draft: &mut Draft<'_>, app: &AppName, path: &HostPath) -> bool {
    if draft.observed.podman.is_empty() || path.quadlet().is_none() {
        return false;
    }
    let desired = draft.desired;
    let id = ResourceId::File(path.clone());
    let made: Vec<_> = desired.units().filter(|(_, _, unit)| is_of(&unit.origin, path)).collect();
    for (_, name, unit) in &made {
        let Some(holders) = draft.observed.podman.get(&name.user().cloned()) else { continue };
        let claims = inputs::claims(name, unit, &draft.managed);
        match holders {
            Reach::Unreachable(why) if !claims.is_empty() => {
                let why = why.clone();
                draft.unknown(app, id, &why);
                return true;
            }
            Reach::Seen(holders) => {
                let held = claims.iter().filter_map(|claim| Some((claim, holders.get(claim)?)));
                let mut foreign = held.filter(|(_, holder)| !is_ours(desired, draft.memory, name, holder));
                if let Some((claim, holder)) = foreign.next() {
                    let why = conflict(name, path, claim, holder);
                    draft.conflict(app, id, why);
                    return true;
                }
            }
            Reach::Unreachable(_) | Reach::NotAsked => {}
        }
    }
    let pod = made.iter().find_map(|(_, _, unit)| inputs::pod_of(unit)).filter(|pod| pod != path);
    let Some(pod) = pod.filter(|pod| is_held_back(draft, pod)) else { return false };
    draft.conflict(app, id, format!("waits for {pod}, which cannot be put in place"));
    true
}

/// Says whether a pod's quadlet is held back; files are planned in the order of their paths, so that it may still be to come.
fn is_held_back(draft: &Draft<'_>, pod: &HostPath) -> bool {
    let pods = draft.desired.units().filter(|(_, _, unit)| is_of(&unit.origin, pod));
    pods.into_iter().any(|(_, name, unit)| match draft.observed.podman.get(&name.user().cloned()) {
        Some(Reach::Unreachable(_)) => true,
        Some(Reach::Seen(holders)) => inputs::claims(name, unit, &draft.managed)
            .iter()
            .filter_map(|claim| holders.get(claim))
            .any(|holder| !is_ours(draft.desired, draft.memory, name, holder)),
        Some(Reach::NotAsked) | None => false,
    })
}

fn is_of(origin: &UnitOrigin, path: &HostPath) -> bool {
    matches!(origin, UnitOrigin::Application { path: it, .. } if it == path)
}

/// Says whether a service of ours made it: the one that wants the name, or another one that is, or was, made of a quadlet of ours.
fn is_ours(desired: &Desired, memory: &Memory, wants: &UnitName, holder: &Holder) -> bool {
    let Some(unit) = holder.unit.as_ref().and_then(|unit| UnitName::parse(unit).ok()) else { return false };
    let unit = unit.of(wants.user());
    let is_it = |name: &UnitName| *name == unit || unit.template().as_ref() == Some(name);
    let wanted = || {
        let mut units = desired.units();
        units.any(|(_, name, it)| is_it(name) && matches!(it.origin, UnitOrigin::Application { .. }))
    };
    let remembered = || memory.units.get(&unit).is_some_and(|known| known.ours);
    unit == *wants || remembered() || memory.quadlets.keys().any(is_it) || wanted()
}

fn conflict(name: &UnitName, path: &HostPath, claim: &ContainerName, holder: &Holder) -> String {
    let of = match &holder.unit {
        Some(unit) => format!("that {} made", crate::id::shown(unit)),
        None => "that somebody made by hand".to_owned(),
    };
    let (what, away) = match holder.kind {
        HolderKind::Container => ("container", format!("`podman rename {claim} OTHER` it, remove it")),
        HolderKind::Pod => ("pod", "remove it".to_owned()),
    };
    let other = match path.quadlet().and_then(|file| file.rsplit('.').next()) {
        Some("pod") => "write another `PodName=`",
        Some("kube") => "give what is in the manifest another name",
        _ => "write another `ContainerName=`",
    };
    let user = name.user().map(|user| format!(" of {user}")).unwrap_or_default();
    format!(
        "Podman{user} has a {what} `{claim}` {of}, and {} would remove it to take its name: {away}, or {other}; \
         `adopt: true` does not take over what Podman has",
        name.as_str()
    )
}
