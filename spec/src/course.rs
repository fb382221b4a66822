//! Which release of each application a pass works towards: the commit's, or the last good one where the commit's failed on
//! this host or its turn has not come.
//!
//! What is held back is replaced in [`Desired`], so that the planner plans the way back as it plans any other change.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::desired::{Desired, DesiredApp, DesiredFile, DesiredUnit, FileKind, HeldBack, Hold, UnitOrigin};
use crate::digest::{Digest, Fields};
use crate::id::{AppName, CommitId, HostPath, ResourceId, UnitName};
use crate::inputs::fingerprint;
use crate::memory::{AppMemory, AppState, Memory, Ran};
use crate::plan::Plan;

/// The last release of an application that was reached on this host and passed its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The commit that it came from; `None` for a local folder.
    pub commit: Option<CommitId>,
    /// What it consists of; images by digest where that is known.
    pub app: DesiredApp,
    /// What the files of other applications held then that its containers mount.
    pub reads: BTreeMap<HostPath, Digest>,
    /// What was published for its units then, as far as they read it.
    pub published: BTreeMap<HostPath, DesiredFile>,
    /// The images that the services of its quadlets were started with: what their texts name may move on.
    pub ran: BTreeMap<UnitName, Ran>,
}

/// Returns what the files of other applications hold that the containers of `app` mount.
pub fn reads(app: &DesiredApp, desired: &Desired) -> BTreeMap<HostPath, Digest> {
    let inputs = app.containers.values().flat_map(|container| &container.inputs);
    let foreign = inputs.filter(|path| !app.files.contains_key(*path));
    foreign.filter_map(|path| Some((path.clone(), fingerprint(&desired.file(path)?.kind)))).collect()
}

/// Says which applications are not brought to the commit at `now`, and why: a person paused them, their release failed here,
/// or what they need is not there yet. Only a change waits for what it needs; what has begun goes on.
pub fn holds(wanted: &Desired, memory: &Memory, now: Timestamp) -> BTreeMap<AppName, Hold> {
    let mut holds = BTreeMap::new();
    for (name, app) in &wanted.apps {
        let known = memory.apps.get(name);
        let bad = known.and_then(|known| known.bad.as_ref()).filter(|bad| bad.digest == app.digest);
        if let Some(bad) = bad {
            holds.insert(name.clone(), bad.stuck.clone().map_or(Hold::Bad, Hold::Stuck));
        } else if !has_begun(known, app)
            && let Some(why) = app.needs.iter().find_map(|needed| unready(wanted, memory, needed))
        {
            holds.insert(name.clone(), Hold::Waits(format!("it needs {why}")));
        } else if memory.pauses.of(name, now).is_some() && !has_begun(known, app) {
            // Of one that has begun, some may run as the commit says already, and reads what only the commit's release names.
            holds.insert(name.clone(), Hold::Paused);
        }
    }
    holds
}

/// Says whether the change to this release was begun, or made.
pub fn has_begun(known: Option<&AppMemory>, app: &DesiredApp) -> bool {
    known.is_some_and(|known| known.digest == app.digest && (known.state != AppState::Waiting || known.reached))
}

/// Names the applications that are not at the commit: those that change, and those that it removes.
pub fn pending(wanted: &Desired, memory: &Memory) -> BTreeSet<AppName> {
    let is_there = |name: &AppName, app: &DesiredApp| has_begun(memory.apps.get(name), app);
    let changing = wanted.apps.iter().filter(|(name, app)| !is_there(name, app)).map(|(name, _)| name);
    let leaving = memory.apps.iter().filter(|(name, known)| !wanted.apps.contains_key(*name) && !known.going);
    changing.chain(leaving.map(|(name, _)| name)).cloned().collect()
}

/// Says why what is needed is not there yet, if it is not.
fn unready(wanted: &Desired, memory: &Memory, needed: &AppName) -> Option<String> {
    let release = wanted.apps.get(needed)?;
    let Some(known) = memory.apps.get(needed) else {
        return Some(format!("{needed}, which is not converged at this commit yet"));
    };
    let is_bad = known.bad.as_ref().is_some_and(|bad| bad.digest == release.digest);
    let why = match known.state {
        _ if is_bad => "whose release failed",
        AppState::Failed if known.digest == release.digest => "which failed",
        AppState::Unhealthy => "which is unhealthy",
        AppState::Waiting => "which waits itself",
        _ if known.digest != release.digest || !known.reached => "which is not converged at this commit yet",
        _ => return None,
    };
    Some(format!("{needed}, {why}"))
}

/// Says which more applications have to wait: a plan changes what they need, though memory says that it was converged.
pub fn in_motion(wanted: &Desired, memory: &Memory, plan: &Plan) -> BTreeMap<AppName, Hold> {
    let mut moved: BTreeSet<&AppName> = plan.steps.iter().filter_map(|step| step.app.as_ref()).collect();
    moved.extend(plan.postponed.iter().filter_map(|step| step.app.as_ref()));
    moved.extend(plan.conflicts.iter().map(|conflict| &conflict.app));
    moved.extend(plan.unknown.iter().map(|unknown| &unknown.app));
    let mut holds = BTreeMap::new();
    for (name, app) in &wanted.apps {
        let needed = app.needs.iter().find(|needed| moved.contains(needed));
        if let Some(needed) = needed.filter(|_| !has_begun(memory.apps.get(name), app)) {
            let why = if plan.is_paused(needed) { "which is paused" } else { "which is being repaired" };
            holds.insert(name.clone(), Hold::Waits(format!("it needs {needed}, {why}")));
        }
    }
    holds
}

/// Puts the last good release of each application that is held back in the place of the commit's. One without, or whose
/// last good release wants what another application has by now, stays exactly as it is.
pub fn held_back(wanted: &Desired, holds: &BTreeMap<AppName, Hold>, good: &BTreeMap<AppName, Release>) -> Desired {
    let mut desired = wanted.clone();
    desired.close();
    for (name, hold) in holds {
        let release = good.get(name);
        let Some(app) = wanted.apps.get(name) else {
            stay(&mut desired, name, hold, release);
            continue;
        };
        // At the commit's release, or never at another one: the planner leaves it alone, and no commit waits.
        if *hold == Hold::Paused && release.is_none_or(|release| release.app.digest == app.digest) {
            continue;
        }
        let why = match (hold, release) {
            (Hold::Bad, None) => Hold::Stuck("its last good release is lost".to_owned()),
            (hold, _) => hold.clone(),
        };
        let is_untouched = release.is_none() || matches!(why, Hold::Stuck(_) | Hold::Paused);
        // What its units read stays what it was; whoever else reads it waits as well.
        let published = release.map(|release| release.published.clone()).filter(|_| matches!(why, Hold::Waits(_)));
        desired.published.extend(published.into_iter().flatten());
        let commit = release.and_then(|release| release.commit.clone());
        desired.apps.insert(name.clone(), release.map_or(app, |release| &release.app).clone());
        desired.held_back.insert(name.clone(), HeldBack { why, wanted: Some(app.digest), commit, is_untouched });
    }
    // The commit's releases want nothing twice, so this ends: at the latest when nothing is held to an older one.
    while let Some((name, other, what)) = clash(&desired, wanted) {
        let comes_later = desired.held_back.get(&other).is_some_and(|held| held.is_untouched);
        if comes_later && matches!(holds.get(&other), Some(Hold::Waits(_))) && !good.contains_key(&other) {
            // It has nothing here yet, and takes over what it wants when it may.
            desired.apps.remove(&other);
            continue;
        }
        match wanted.apps.get(&name) {
            Some(app) => drop(desired.apps.insert(name.clone(), app.clone())),
            None => drop(desired.apps.remove(&name)),
        }
        if let Some(held) = desired.held_back.get_mut(&name) {
            held.is_untouched = true;
            held.commit = None;
            if held.why == Hold::Bad {
                held.why = Hold::Stuck(format!("its last good release wants {what}, which `{other}` has by now"));
            }
        }
    }
    take_up(&mut desired);
    settle_containers(&mut desired, wanted, good);
    desired
}

/// Gives the units that older releases have drop-ins for, and that nobody has among its units any more, to the first such
/// release: as in a commit, so that they are restarted when the drop-ins go.
fn take_up(desired: &mut Desired) {
    let adds_to = |app: &DesiredApp| app.files.keys().filter_map(HostPath::drop_in).collect::<BTreeSet<UnitName>>();
    let held = desired.held_back.keys().filter_map(|name| Some((name.clone(), adds_to(desired.apps.get(name)?))));
    let mut known: BTreeSet<UnitName> = desired.units().map(|(_, unit, _)| unit.clone()).collect();
    for (name, units) in held.collect::<Vec<_>>() {
        for unit in units.into_iter().filter(|unit| known.insert(unit.clone())) {
            let text = unit.template().and_then(|template| text_of(desired, template.path()));
            let origin = text.unwrap_or(UnitOrigin::Host);
            if let Some(app) = desired.apps.get_mut(&name) {
                app.units.insert(unit, DesiredUnit::only_added_to(origin));
            }
        }
    }
}

/// Finds the text of a unit among the files that are wanted.
fn text_of(desired: &Desired, path: HostPath) -> Option<UnitOrigin> {
    let FileKind::Regular { content, .. } = &desired.file(&path)?.kind else { return None };
    let text = std::str::from_utf8(content).ok()?;
    Some(UnitOrigin::Application { text: text.into(), path })
}

/// Keeps an application that the commit removes, while its removal waits: at the release that it runs, or, where that is lost,
/// exactly as it is.
fn stay(desired: &mut Desired, name: &AppName, hold: &Hold, release: Option<&Release>) {
    let held = HeldBack {
        why: hold.clone(),
        wanted: None,
        commit: release.and_then(|release| release.commit.clone()),
        is_untouched: release.is_none(),
    };
    desired.held_back.insert(name.clone(), held);
    desired.apps.extend(release.map(|release| (name.clone(), release.app.clone())));
}

/// Gives containers another digest whose mounted files come from another release than their own digest was made for: they
/// have to be created anew for what they read now.
fn settle_containers(desired: &mut Desired, wanted: &Desired, good: &BTreeMap<AppName, Release>) {
    let now: BTreeMap<HostPath, Digest> =
        desired.files().map(|(_, path, file)| (path.clone(), fingerprint(&file.kind))).collect();
    for (name, app) in &mut desired.apps {
        let release = good.get(name).filter(|good| good.app.digest == app.digest && !is_at(wanted, name, app.digest));
        let made_for = |path: &HostPath| match release {
            Some(release) => release.reads.get(path).copied(),
            None => wanted.file(path).map(|file| fingerprint(&file.kind)),
        };
        for container in app.containers.values_mut() {
            let foreign = container.inputs.iter().filter(|path| !app.files.contains_key(*path));
            let other: Vec<&HostPath> = foreign.filter(|path| made_for(path) != now.get(*path).copied()).collect();
            if other.is_empty() {
                continue;
            }
            let mut fields = Fields::default();
            fields.add("made for", container.digest.to_string().as_bytes());
            for path in other {
                let digest = now.get(path).map(ToString::to_string).unwrap_or_default();
                fields.add(path.as_str(), digest.as_bytes());
            }
            container.digest = fields.finish();
        }
    }
}

/// Says whether a release is the commit's.
fn is_at(wanted: &Desired, name: &AppName, digest: Digest) -> bool {
    wanted.apps.get(name).is_some_and(|app| app.digest == digest)
}

/// Finds an application at an older release that wants what another one has.
fn clash(desired: &Desired, wanted: &Desired) -> Option<(AppName, AppName, String)> {
    for name in desired.held_back.keys() {
        let Some(app) = desired.apps.get(name).filter(|app| !is_at(wanted, name, app.digest)) else { continue };
        for (other, theirs) in desired.apps.iter().filter(|(other, _)| *other != name) {
            if let Some(what) = meet(app, theirs) {
                return Some((name.clone(), other.clone(), what));
            }
        }
    }
    None
}

/// Names something that both want, if there is such a thing.
pub fn meet(one: &DesiredApp, other: &DesiredApp) -> Option<String> {
    let both = |path: &&HostPath| other.files.contains_key(*path) || lies_below_a_file(path, other);
    if let Some(path) = one.files.keys().find(both) {
        return Some(path.to_string());
    }
    if let Some(path) = other.files.keys().find(|path| lies_below_a_file(path, one)) {
        return Some(path.to_string());
    }
    let unit = one.units.keys().find(|unit| other.units.contains_key(*unit)).map(ToString::to_string);
    let container = || one.containers.keys().find(|it| other.containers.contains_key(*it));
    let ground = || made(one).find(|id| made(other).any(|it| it == *id));
    unit.or_else(|| container().map(|it| format!("container {it}"))).or_else(|| ground().map(|id| id.to_string()))
}

/// Names the networks and volumes that an application has made; one that something else makes is for everybody.
fn made(app: &DesiredApp) -> impl Iterator<Item = ResourceId> {
    let networks = app.networks.iter().filter(|(_, it)| it.settings.is_some());
    let volumes = app.volumes.iter().filter(|(_, it)| it.settings.is_some());
    let networks = networks.map(|(name, _)| ResourceId::Network(name.clone()));
    networks.chain(volumes.map(|(name, _)| ResourceId::Volume(name.clone())))
}

fn lies_below_a_file(path: &HostPath, app: &DesiredApp) -> bool {
    let mut above = path.parent();
    while let Some(folder) = above {
        if app.files.get(&folder).is_some_and(|file| file.kind != FileKind::Directory) {
            return true;
        }
        above = folder.parent();
    }
    false
}
