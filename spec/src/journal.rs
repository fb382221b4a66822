//! How memory moves while a plan is carried out: what is written down before each step, and what after.
//!
//! Write-ahead: [`begin`] is saved before anything changes, [`beginning`] before a service is started or restarted, and
//! what was done is saved after. A kill between any two of these leaves a memory from which the next plan neither loses
//! a restart, nor repeats one, nor takes somebody else's file for its own. Pure: the agent's ledger does the saving.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::desired::{Desired, FileKind, UnitOrigin};
use crate::digest::Digest;
use crate::id::{AppName, ContainerName, HostPath, NetworkName, ResourceId, UnitName, User};
use crate::inputs;
use crate::memory::{self, Adopted, AppState, Inputs, Memory, Owned, Ran, Run, UnitMemory};
use crate::observed::{FileState, InvocationId};
use crate::plan::{Action, Lesson, Plan, Step, Verb, Why, fights};

/// Notes everything a plan is about to do that could not be told from the host afterwards.
pub fn begin(memory: &mut Memory, plan: &Plan, desired: &Desired) {
    learn(memory, &plan.lessons);
    for (unit, path) in written_quadlets(plan, desired) {
        memory.quadlets.insert(unit, path);
    }
    let written: BTreeSet<&HostPath> = plan.steps.iter().filter_map(written_by).collect();
    for step in &plan.steps {
        let Some(app) = &step.app else {
            match &step.action {
                Action::ReloadManager(user) => drop(memory.reloads_owed.insert(user.clone())),
                _ => memory.reload_owed = true,
            }
            continue;
        };
        // Until it is known to be so again: what a failed release changed is no drift from the one before.
        if let (Some(id), Some(settled)) = (step.action.resource(), memory.settled.get_mut(app)) {
            settled.wants.remove(&id);
            settled.release = None;
        }
        match &step.action {
            Action::WriteFile(path, FileState::Absent) => claim(memory, desired, app, path),
            Action::CreateContainer(name) | Action::AdoptContainer(name, _) => {
                let id = ResourceId::Container(name.clone());
                memory.owned.insert(id, Owned::claimed(app, memory::coming()));
            }
            Action::CreateNetwork(name) => {
                let id = ResourceId::Network(name.clone());
                memory.owned.insert(id, Owned { claim: Some(memory::coming()), ..Owned::by(app) });
            }
            // The engine goes on stopping it when we are killed, whatever is wanted by then.
            Action::RemoveContainer(name, old) | Action::ReplaceContainer(name, old) => {
                let id = ResourceId::Container(name.clone());
                memory.owned.insert(id, Owned::claimed(app, memory::outgoing(old)));
            }
            Action::RunUnit { unit, verb, with, was, .. } => {
                let known = entry(memory, desired, app, unit);
                // Nothing wants it, so that no digest would show the debt.
                let leaves = !known.ours && step.why == Why::Unwanted;
                if leaves && !matches!(known.run, Run::Beginning { .. }) {
                    known.run = Run::Owed;
                }
                owe(known, *verb, *with, was.as_ref());
                // Whatever started it until now, and that may be its manager at any moment, read what is replaced.
                let outdated = step.reads.iter().any(|path| written.contains(path));
                if outdated && *verb == Verb::Restart && matches!(known.run, Run::Beginning { .. }) {
                    known.run = Run::Owed;
                }
            }
            Action::EnableUnit(unit) => {
                entry(memory, desired, app, unit);
            }
            _ => {}
        }
    }
}

fn written_by(step: &Step) -> Option<&HostPath> {
    match &step.action {
        Action::WriteFile(path, _) => Some(path),
        _ => None,
    }
}

/// Names the services of the quadlets that a plan writes: only the text tells, which goes before they do.
fn written_quadlets<'d>(plan: &Plan, desired: &'d Desired) -> Vec<(UnitName, HostPath)> {
    let is_written = |wanted: &HostPath| {
        wanted.quadlet().is_some()
            && plan.steps.iter().any(|step| matches!(&step.action, Action::WriteFile(path, _) if path == wanted))
    };
    let texts = desired.units().filter_map(|(_, name, unit)| match &unit.origin {
        UnitOrigin::Application { path, .. } if is_written(path) => Some((name, path)),
        _ => None,
    });
    texts.map(|(name, path): (&'d UnitName, &'d HostPath)| (name.clone(), path.clone())).collect()
}

/// Makes a debt visible that the digests would not show once the files are in place: the unit ran before we knew it, or
/// its inputs are only being put back.
fn owe(known: &mut UnitMemory, verb: Verb, now: Inputs, runs: Option<&InvocationId>) {
    match (&mut known.run, verb) {
        // The planner would find out by the times of the files, unless the clock was set meanwhile.
        (Run::Unknown, Verb::Restart) => known.run = Run::Owed,
        (Run::Unknown, Verb::Reload) => {
            let with = Inputs { start: now.start, reload: Digest::of(b"reload owed") };
            known.run = Run::Started { with, invocation: runs.cloned() };
        }
        (Run::Started { with, .. }, Verb::Restart) if with.start == now.start => known.run = Run::Owed,
        (Run::Started { with, .. }, Verb::Reload) => with.reload = Digest::of(b"reload owed"),
        _ => {}
    }
}

/// Takes over what a look at the host taught. Returns nothing: learning twice is harmless.
pub fn learn(memory: &mut Memory, lessons: &[Lesson]) {
    for lesson in lessons {
        match lesson {
            Lesson::Made(id, app) | Lesson::Moved(id, app) => {
                let before = memory.owned.remove(id);
                let claim = |before: &Owned| before.claim.filter(|_| matches!(id, ResourceId::File(_)));
                let put = before.and_then(|before| before.put.or(claim(&before)));
                memory.owned.insert(id.clone(), Owned { put, ..Owned::by(app) });
            }
            Lesson::Holds(path, put) => {
                if let Some(owned) = memory.owned.get_mut(&ResourceId::File(path.clone())) {
                    owned.put = Some(*put);
                }
            }
            Lesson::Gone(id) => {
                memory.owned.remove(id);
            }
            Lesson::Owes(ResourceId::Unit(unit)) => {
                if let Some(known) = memory.units.get_mut(unit) {
                    known.run = Run::Owed;
                }
            }
            Lesson::OwesReload(unit) => {
                if let Some(UnitMemory { run: Run::Started { with, .. }, .. }) = memory.units.get_mut(unit) {
                    with.reload = Digest::of(b"reload owed");
                }
            }
            Lesson::Owes(id) => {
                if let Some(owned) = memory.owned.get_mut(id) {
                    owned.claim = Some(memory::outgoing(memory::WHICHEVER));
                }
            }
            Lesson::ReadsAnew(user) => drop(memory.reloads_owed.remove(user)),
            Lesson::Released(unit) => {
                memory.quadlets.remove(unit);
                memory.units.remove(unit);
            }
            Lesson::Runs(unit, app, ours, with, invocation) => {
                let run = Run::Started { with: *with, invocation: invocation.clone() };
                memory.units.insert(unit.clone(), UnitMemory { app: app.clone(), ours: *ours, run });
            }
        }
    }
}

/// Claims a path that is about to be made: until the write is confirmed, only what looks like this is ours.
fn claim(memory: &mut Memory, desired: &Desired, app: &AppName, path: &HostPath) {
    let id = ResourceId::File(path.clone());
    let Some(file) = desired.file(path) else { return };
    memory.owned.insert(id, Owned::claimed(app, inputs::fingerprint(&file.kind)));
}

/// Claims directories that are about to be made for a new path below them: a kill before the path is confirmed must not
/// leave them behind for ever.
pub fn making(memory: &mut Memory, app: &AppName, directories: impl IntoIterator<Item = HostPath>) {
    for directory in directories {
        let owned = Owned::claimed(app, inputs::fingerprint(&FileKind::Directory));
        memory.owned.entry(ResourceId::File(directory)).or_insert(owned);
    }
}

fn entry<'m>(memory: &'m mut Memory, desired: &Desired, app: &AppName, unit: &UnitName) -> &'m mut UnitMemory {
    let wanted = desired.units().find(|(_, name, _)| *name == unit).map(|(_, _, wanted)| wanted);
    let ours = wanted.is_some_and(|wanted| matches!(wanted.origin, UnitOrigin::Application { .. }));
    memory.units.entry(unit.clone()).or_insert_with(|| UnitMemory { app: app.clone(), ours, run: Run::Unknown })
}

/// Notes that a path now is as wanted, and which parent directories were made for it.
pub fn wrote(memory: &mut Memory, app: &AppName, path: &HostPath, kind: &FileKind, parents: &[HostPath]) {
    for made in parents {
        memory.owned.insert(ResourceId::File(made.clone()), Owned::by(app));
    }
    let owned = Owned { put: Some(inputs::fingerprint(kind)), ..Owned::by(app) };
    memory.owned.insert(ResourceId::File(path.clone()), owned);
}

/// Notes that a new path could not be made: the claim is given up.
pub fn not_written(memory: &mut Memory, path: &HostPath) {
    let id = ResourceId::File(path.clone());
    if memory.owned.get(&id).is_some_and(|owned| owned.claim.is_some()) {
        memory.owned.remove(&id);
    }
}

/// Notes that a container was created or replaced and runs.
pub fn created(memory: &mut Memory, app: &AppName, name: &ContainerName) {
    memory.owned.insert(ResourceId::Container(name.clone()), Owned::by(app));
}

/// Notes that a container is gone whose place another one of the same plan takes: that one may come at any time from here.
pub fn vacated(memory: &mut Memory, app: &AppName, name: &ContainerName) {
    memory.containers.remove(name);
    memory.owned.insert(ResourceId::Container(name.clone()), Owned { claim: Some(memory::coming()), ..Owned::by(app) });
}

/// Notes how somebody else's container is before ours takes its name. How it was before an attempt that was cut short counts.
pub fn adopting(memory: &mut Memory, name: &ContainerName, theirs: Adopted) {
    let is_begun = memory.adopted.get(name).is_some_and(|known| known.id == theirs.id && known.back.is_none());
    if !is_begun {
        memory.adopted.insert(name.clone(), theirs);
    }
}

/// Notes that ours, which was wanted as `want`, is gone and that somebody else's container is back in its place.
pub fn gave_back(memory: &mut Memory, name: &ContainerName, want: Digest, why: &str) {
    removed(memory, &ResourceId::Container(name.clone()));
    if let Some(known) = memory.adopted.get_mut(name) {
        known.back = Some((want, why.to_owned()));
    }
}

/// Forgets what it takes to give containers back whose application is well without them.
pub fn forget_adopted(memory: &mut Memory) {
    let Memory { adopted, apps, .. } = memory;
    adopted.retain(|_, it| {
        apps.get(&it.app)
            .is_some_and(|app| !app.reached || !matches!(app.state, AppState::Converged | AppState::Repaired))
    });
}

/// Notes that a network was created.
pub fn provided(memory: &mut Memory, app: &AppName, name: &NetworkName) {
    memory.owned.insert(ResourceId::Network(name.clone()), Owned::by(app));
}

/// Notes when the run of a container began that was just started; `None` when the engine did not say.
pub fn ran(memory: &mut Memory, name: &ContainerName, started: Option<String>) {
    match started {
        Some(started) => memory.containers.insert(name.clone(), started),
        None => memory.containers.remove(name),
    };
}

/// Notes that a container whose replacement a plan meant to begin was left as it is: it is what it was before.
pub fn spared(memory: &mut Memory, name: &ContainerName, before: Option<Owned>) {
    let id = ResourceId::Container(name.clone());
    match before {
        Some(before) => drop(memory.owned.insert(id, before)),
        None => drop(memory.owned.remove(&id)),
    }
}

/// Notes that a container did not stay up: the engine may make it look as if it ran, so it is to be replaced.
pub fn unsettled(memory: &mut Memory, name: &ContainerName, id: &str) {
    if let Some(owned) = memory.owned.get_mut(&ResourceId::Container(name.clone())) {
        owned.claim = Some(memory::outgoing(id));
    }
}

/// Notes that something owned is gone.
pub fn removed(memory: &mut Memory, id: &ResourceId) {
    memory.owned.remove(id);
    if let ResourceId::Container(name) = id {
        memory.containers.remove(name);
    }
    if let ResourceId::File(path) = id
        && path.quadlet().is_some()
    {
        let (units, owned) = (&mut memory.units, &memory.owned);
        memory.quadlets.retain(|unit, source| {
            let stays = source != path;
            // Its text may have become a unit file.
            if !stays && !owned.contains_key(&ResourceId::File(unit.path())) {
                units.remove(unit);
            }
            stays
        });
    }
    if let ResourceId::File(path) = id
        && let Some(unit) = path.unit()
    {
        let is_of = |name: &UnitName| *name == unit || name.template().as_ref() == Some(&unit);
        // Its text may have become a quadlet.
        let quadlets = &memory.quadlets;
        memory.units.retain(|name, _| !is_of(name) || quadlets.contains_key(name));
    }
}

/// Notes that a unit was stopped for good.
pub fn retired(memory: &mut Memory, unit: &UnitName) {
    memory.quadlets.remove(unit);
    memory.units.remove(unit);
}

/// Notes that the host's manager has read its unit files, or a user's.
pub fn reloaded(memory: &mut Memory, user: Option<&User>) {
    match user {
        None => memory.reload_owed = false,
        Some(user) => drop(memory.reloads_owed.remove(user)),
    }
}

/// Notes that these units are about to be started or restarted, each with the invocation it has now. One that was begun
/// with the same inputs before keeps the invocation it had then: what changed since may be that very start.
pub fn beginning(memory: &mut Memory, units: impl IntoIterator<Item = (UnitName, Inputs, Option<InvocationId>)>) {
    for (unit, with, was) in units {
        let Some(known) = memory.units.get_mut(&unit) else { continue };
        let is_same = matches!(&known.run, Run::Beginning { with: before, .. } if *before == with);
        if !is_same {
            known.run = Run::Beginning { with, was };
        }
    }
}

/// Notes that a unit was started, restarted or reloaded and runs in `invocation`.
///
/// What goes on without anything of ours is forgotten with that: it is the host's alone.
pub fn started(memory: &mut Memory, unit: &UnitName, with: Inputs, invocation: Option<InvocationId>) {
    if with == Inputs::none() {
        memory.units.remove(unit);
    }
    if let Some(known) = memory.units.get_mut(unit) {
        known.run = Run::Started { with, invocation };
    }
}

/// Notes that a start or restart failed: it stays owed.
pub fn not_started(memory: &mut Memory, unit: &UnitName) {
    if let Some(known) = memory.units.get_mut(unit) {
        known.run = Run::Owed;
    }
}

/// Notes that a unit was stopped on request.
pub fn stopped(memory: &mut Memory, unit: &UnitName) {
    if let Some(known) = memory.units.get_mut(unit) {
        known.run = Run::Unknown;
    }
}

/// Forgets that the release of an application failed, because a person says so: it is tried again with the next pass.
/// Says whether there was anything to forget.
pub fn retry(memory: &mut Memory, app: &AppName) -> bool {
    let Some(known) = memory.apps.get_mut(app) else { return false };
    known.next_repair = None;
    let waited = known.failure.as_mut().map(|failure| failure.not_before = Timestamp::UNIX_EPOCH).is_some();
    let (fights, adopted) = (memory.fights.len(), memory.adopted.len());
    let was_bad = known.bad.take().is_some();
    memory.fights.retain(|_, fight| fight.app != *app);
    memory.adopted.retain(|_, it| it.app != *app || it.back.is_none());
    was_bad || waited || memory.fights.len() < fights || memory.adopted.len() < adopted
}

/// Notes what is as wanted after a plan was carried out, what it put back, and what somebody else fights over. `failed` names
/// the applications of which not every step was done.
pub fn settle(memory: &mut Memory, desired: &Desired, plan: &Plan, failed: &BTreeSet<AppName>, now: Timestamp) {
    let done = plan.steps.iter().filter(|step| step.app.as_ref().is_some_and(|app| !failed.contains(app)));
    let release = |app: &AppName| desired.apps.get(app).map(|wanted| wanted.digest);
    fights::remember(memory, plan, done, release, now);
    memory.settled.retain(|app, _| desired.apps.contains_key(app));
    let untouched = |app: &AppName| desired.held_back.get(app).is_some_and(|held| held.is_untouched);
    let aside = |app: &AppName| {
        plan.waiting.contains_key(app) || plan.closed.contains(app) || untouched(app) || plan.is_paused(app)
    };
    for (app, wanted) in desired.apps.iter().filter(|(app, _)| !aside(app)) {
        let settled = memory.settled.entry(app.clone()).or_default();
        if settled.release == Some(wanted.digest) {
            continue;
        }
        let open = open(plan, app, failed.contains(app));
        settled.wants.retain(|id, _| wanted.want(id).is_some());
        for id in wanted.resources().filter(|id| !open.contains(id)) {
            if let Some(want) = wanted.want(&id) {
                settled.wants.insert(id, want);
            }
        }
        settled.release = open.is_empty().then_some(wanted.digest);
    }
}

/// Names what of an application is not known to be as wanted.
fn open(plan: &Plan, app: &AppName, has_failed: bool) -> BTreeSet<ResourceId> {
    let conflicts = plan.conflicts.iter().filter(|it| it.app == *app).map(|it| it.resource.clone());
    let unknown = plan.unknown.iter().filter(|it| it.app == *app).map(|it| it.resource.clone());
    let undone = plan.steps.iter().filter(|_| has_failed).chain(&plan.drift);
    let undone = undone.filter(|step| step.app.as_ref() == Some(app)).filter_map(|step| step.action.resource());
    conflicts.chain(unknown).chain(undone).collect()
}

/// Forgets who fights over what: a person asks for another attempt.
pub fn make_peace(memory: &mut Memory) {
    memory.fights.clear();
}

/// Notes that a path was taken over as it was, but for its mode and owner.
pub fn took(memory: &mut Memory, app: &AppName, path: &HostPath, kind: &FileKind) {
    let owned = || Owned { put: Some(inputs::fingerprint(kind)), ..Owned::by(app) };
    memory.owned.entry(ResourceId::File(path.clone())).or_insert_with(owned);
}

/// Forgets which images services run that are about to be started: what was fetched for them is noted next, and what they
/// really run when they do.
pub fn run_anew<'u>(memory: &mut Memory, units: impl IntoIterator<Item = &'u UnitName>) {
    units.into_iter().for_each(|unit| drop(memory.ran.remove(unit)));
}

/// Notes which images services run, or are about to be started with.
pub fn running(memory: &mut Memory, images: impl IntoIterator<Item = (UnitName, Ran)>) {
    memory.ran.extend(images);
    let (ran, units) = (&mut memory.ran, &memory.units);
    ran.retain(|unit, _| units.contains_key(unit));
}

/// Forgets applications that are no longer wanted and own nothing any more.
pub fn forget_apps(memory: &mut Memory, desired: &Desired) {
    let owners: BTreeSet<AppName> = memory.owned.values().map(|owned| owned.app.clone()).collect();
    memory.apps.retain(|app, _| desired.apps.contains_key(app) || owners.contains(app));
}
