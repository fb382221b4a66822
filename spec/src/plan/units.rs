//! Plans units: enablement, and starts, restarts, reloads and stops by what each was last started with.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{DesiredUnit, UnitGoal, UnitOrigin};
use crate::digest::{Digest, Fields};
use crate::id::{AppName, HostPath, ResourceId, UnitName};
use crate::inputs::{self, Pull, UnitInputs};
use crate::memory::{Inputs, Run, UnitMemory};
use crate::observed::{ActiveState, FileState, LoadState, Reach, UnitState};
use crate::plan::{Action, Draft, Fate, Lesson, Note, Step, Verb, Why};

/// What is said of a unit that went down by itself.
pub(super) const DIED: [&str; 2] = ["it failed", "it ended and is started over and over"];

/// Plans every wanted unit.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    for (app, name, unit) in desired.units() {
        let id = ResourceId::Unit(name.clone());
        if unit.origin == UnitOrigin::Host && draft.loses_its_text(name) {
            continue;
        }
        let seen = || draft.observed.units.seen().and_then(|units| units.get(name)).cloned();
        let state = match draft.observed.manager(name.user()) {
            Reach::Seen(()) => seen().unwrap_or_else(UnitState::not_found),
            Reach::Unreachable(why) => {
                let reads = draft.inputs(name, unit, None);
                let mut named = reads.restart.iter().chain(&reads.reload);
                // What the text of a host's unit names cannot be read at the moment.
                let written = match unit.origin {
                    UnitOrigin::Application { .. } => named.any(|path| draft.written.contains(path)),
                    UnitOrigin::Host => !draft.written.is_empty(),
                };
                if written && draft.memory.units.contains_key(name) {
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
        let has_drop_ins = || !inputs::drop_ins(name, &draft.managed).is_empty();
        if let Some(vendor) = draft.observed.shadowed.get(name) {
            let text = format!("its text takes the place of {vendor}, which a package brought");
            draft.plan.notes.push(Note { app: app.clone(), resource: id.clone(), text });
        }
        let possible = possible(unit, &state, has_drop_ins).and_then(|()| has_accounts(draft, name, unit));
        if let Err(why) = possible {
            let inputs = draft.inputs(name, unit, state.text.as_deref());
            owe_what_is_put_back(draft, name, &state, &inputs);
            draft.conflict(app, id, why);
            continue;
        }
        plan_unit(draft, app, name, unit, &state);
    }
}

/// Refuses what systemd would refuse, with the remedy.
fn possible(unit: &DesiredUnit, state: &UnitState, has_drop_ins: impl FnOnce() -> bool) -> Result<(), String> {
    let asks = unit.state == Some(UnitGoal::Running) || unit.enabled == Some(true);
    match (&unit.origin, state.load) {
        (UnitOrigin::Host, LoadState::NotFound) if asks => Err(
            "this host has no such unit: install the package that provides it, or put its text into the application's folder"
                .to_owned(),
        ),
        (UnitOrigin::Host, LoadState::NotFound) if has_drop_ins() => Err(
            "this host has no such unit, so that its drop-ins do nothing: install the package that provides it, or remove them"
                .to_owned(),
        ),
        (UnitOrigin::Host, LoadState::Masked) if asks => {
            Err("somebody masked it on this host: `systemctl unmask` it, or no longer ask for it".to_owned())
        }
        (UnitOrigin::Host, LoadState::Loaded) if unit.enabled == Some(true) && state.enabled.is_none() => {
            Err("it cannot be enabled: its text has no [Install] section; something else starts it".to_owned())
        }
        (UnitOrigin::Host, LoadState::Broken) if asks => {
            Err("systemd cannot load it: see `systemctl status` for its complaint".to_owned())
        }
        _ => Ok(()),
    }
}

/// Refuses a start with an account that the host does not have, which systemd finds out when it is too late.
fn has_accounts(draft: &Draft<'_>, name: &UnitName, unit: &DesiredUnit) -> Result<(), String> {
    if unit.state != Some(UnitGoal::Running) && unit.enabled != Some(true) {
        return Ok(());
    }
    let accounts = inputs::accounts(name, unit, &draft.managed);
    let missing = |known: &BTreeMap<String, Option<u32>>, names: BTreeSet<String>| {
        names.into_iter().find(|name| known.get(name) == Some(&None))
    };
    let user = missing(&draft.observed.users, accounts.users).map(|name| ("user", name));
    let found = user.or_else(|| missing(&draft.observed.groups, accounts.groups).map(|name| ("group", name)));
    found.map_or(Ok(()), |(what, name)| {
        Err(format!(
            "it is to run with {what} `{name}`, which this host does not have: create it (a package or sysusers.d does), \
             name another, or let systemd make one up with `DynamicUser=yes`"
        ))
    })
}

fn plan_unit(draft: &mut Draft<'_>, app: &AppName, name: &UnitName, unit: &DesiredUnit, state: &UnitState) {
    let inputs = draft.inputs(name, unit, state.text.as_deref());
    if let Some(path) = inputs.restart.iter().chain(&inputs.reload).find(|path| draft.blocked.contains(*path)) {
        let why = format!("waits for {path}, which cannot be put in place");
        let id = ResourceId::Unit(name.clone());
        owe_what_is_put_back(draft, name, state, &inputs);
        if draft.is_aside(app) {
            return;
        }
        if let Some(why) = draft.held_by_another(path) {
            return draft.unknown(app, id, &why);
        }
        let known_unknown = draft.plan.unknown.iter().any(|it| it.resource == ResourceId::File(path.clone()));
        return if known_unknown { draft.unknown(app, id, &why) } else { draft.conflict(app, id, why) };
    }
    match (unit.enabled, state.enabled) {
        (Some(true), Some(false)) => {
            let why = draft.because(app, &ResourceId::Unit(name.clone()), "it is not enabled");
            draft.step(app, Action::EnableUnit(name.clone()), why);
        }
        (Some(false), Some(true)) => {
            let why = draft.because(app, &ResourceId::Unit(name.clone()), "it is enabled");
            draft.step(app, Action::DisableUnit(name.clone()), why);
        }
        _ => {}
    }
    let subject = Subject::new(draft, (app, name, unit), state, inputs);
    match unit.state {
        Some(UnitGoal::Running) => subject.running(draft),
        Some(UnitGoal::Stopped) => subject.stopped(draft),
        None => subject.untold(draft),
    }
}

/// Remembers what is due to a unit that is left alone while something it reads is put back: by the digests nothing changed, and
/// the next plan puts nothing back.
fn owe_what_is_put_back(draft: &mut Draft<'_>, name: &UnitName, state: &UnitState, inputs: &UnitInputs) {
    let is_put_back = |paths: &BTreeSet<HostPath>| paths.iter().any(|path| draft.written.contains(path));
    let (restart, reload) = (is_put_back(&inputs.restart), is_put_back(&inputs.reload));
    // Somebody else may have started it with what is there now.
    let strayed = |known: Option<&String>| known.is_none() || known != state.invocation.as_ref();
    let lesson = match draft.memory.units.get(name).map(|known| &known.run) {
        _ if !state.is_up() => return,
        Some(Run::Started { invocation, .. }) if restart && strayed(invocation.as_ref()) => {
            Lesson::Owes(ResourceId::Unit(name.clone()))
        }
        Some(Run::Started { .. }) if reload => Lesson::OwesReload(name.clone()),
        Some(Run::Beginning { was, .. }) if (restart || reload) && strayed(was.as_ref()) => {
            Lesson::Owes(ResourceId::Unit(name.clone()))
        }
        // Owed is owed, and of what we did not start the times of the files tell.
        _ => return,
    };
    draft.plan.lessons.push(lesson);
}

/// Plans the restart of the wanted units that go on without a drop-in, now that it is known to go: one that was held back
/// before may have been there when they were started, which their digests do not tell.
pub(super) fn go_on_without(draft: &mut Draft<'_>, path: &HostPath) {
    let (Some(added_to), Reach::Seen(units)) = (path.drop_in(), &draft.observed.units) else { return };
    let desired = draft.desired;
    for (app, name, unit) in desired.units() {
        let reads_it = *name == added_to || name.template().as_ref() == Some(&added_to);
        let Some(state) = units.get(name).filter(|state| reads_it && state.is_up()) else { continue };
        let id = ResourceId::Unit(name.clone());
        let reloads =
            |step: &Step| matches!(&step.action, Action::RunUnit { unit, verb: Verb::Reload, .. } if unit == name);
        let runs = |step: &Step| matches!(&step.action, Action::RunUnit { unit, .. } if unit == name) && !reloads(step);
        let is_planned = draft.plan.steps.iter().chain(&draft.plan.drift).any(runs);
        // Once it is gone, nothing shows that something was due.
        let is_left = draft.is_aside(app) || draft.paused_owner(&id, app).is_some();
        if is_left || draft.plan.unknown.iter().any(|unknown| unknown.resource == id) {
            draft.plan.lessons.push(Lesson::Owes(id));
        } else if !is_planned && !draft.plan.conflicts.iter().any(|conflict| conflict.resource == id) {
            let inputs = draft.inputs(name, unit, state.text.as_deref());
            let subject = Subject::new(draft, (app, name, unit), state, inputs);
            // A service that reads its files again goes on with the unit that it was started from.
            draft.plan.steps.retain(|step| !reloads(step));
            draft.plan.drift.retain(|step| !reloads(step));
            subject.restart(draft, Why::Changed(format!("{path} goes")));
        }
    }
    // A release that was begun before its application was paused is not wanted meanwhile, and goes on after.
    let is_begun = |name: &UnitName, known: &UnitMemory| {
        (*name == added_to || name.template().as_ref() == Some(&added_to))
            && units.get(name).is_some_and(UnitState::is_up)
            && draft.is_aside(&known.app)
            && !desired.units().any(|(_, wanted, _)| wanted == name)
    };
    let begun = draft.memory.units.iter().filter(|(name, known)| is_begun(name, known));
    let owed: Vec<Lesson> = begun.map(|(name, _)| Lesson::Owes(ResourceId::Unit(name.clone()))).collect();
    draft.plan.lessons.extend(owed);
}

/// Leaves alone the services of quadlets whose name a unit file of ours still has: systemd reads that one and not what Podman
/// makes, so a start would start what is no longer wanted, again at every pass.
pub(super) fn leave_what_another_text_hides(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    for (app, name, unit) in desired.units() {
        let UnitOrigin::Application { path, .. } = &unit.origin else { continue };
        let Some(hiding) = inputs::hiding(name, unit) else { continue };
        let is_there = draft.observed.files.get(&hiding).is_some_and(|state| *state != FileState::Absent);
        let goes = |step: &Step| matches!(&step.action, Action::RemoveFile(path, _) if *path == hiding);
        if !is_there || draft.plan.steps.iter().any(goes) {
            continue;
        }
        let id = ResourceId::Unit(name.clone());
        let runs = |step: &Step| {
            let of = |unit: &UnitName| unit == name;
            matches!(&step.action, Action::RunUnit { unit, .. } | Action::PullForUnit(unit, _) if of(unit))
        };
        draft.plan.steps.retain(|step| !runs(step));
        draft.plan.drift.retain(|step| !runs(step));
        draft.plan.lessons.retain(|lesson| !matches!(lesson, Lesson::Runs(unit, ..) if unit == name));
        if !draft.is_aside(app) {
            let why = format!("waits for {hiding} to go, which systemd reads in place of what Podman makes of {path}");
            draft.conflict(app, id, why);
        }
    }
}

/// Plans the restarts that follow from others: systemd restarts what requires a unit together with it, and a pod ends with the
/// last of its containers. What goes down along has to come up again, and is the plan's to see to.
pub(super) fn follow(draft: &mut Draft<'_>) {
    loop {
        let before = draft.plan.steps.len();
        restart_dependents(draft);
        restart_emptied_pods(draft);
        if draft.plan.steps.len() == before {
            return;
        }
    }
}

/// Plans the restart of what requires a unit that is restarted (systemd.unit(5): `Requires=`, `Requisite=`, `BindsTo=`, `PartOf=`).
fn restart_dependents(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    let Reach::Seen(units) = &draft.observed.units else { return };
    let restarts = |draft: &Draft<'_>| -> BTreeSet<UnitName> {
        let restarted = draft.plan.steps.iter().filter_map(|step| match &step.action {
            Action::RunUnit { unit, verb: Verb::Restart, .. } => Some(unit.clone()),
            _ => None,
        });
        restarted.collect()
    };
    let mut restarted = restarts(draft);
    if restarted.is_empty() {
        return;
    }
    let made = inputs::made_of(desired);
    for (app, name, unit) in desired.units() {
        let Some(state) = units.get(name).filter(|state| state.is_up()) else { continue };
        let id = ResourceId::Unit(name.clone());
        let runs = |step: &Step| matches!(&step.action, Action::RunUnit { unit, .. } if unit == name);
        let is_open = draft.plan.conflicts.iter().any(|it| it.resource == id)
            || draft.plan.unknown.iter().any(|it| it.resource == id)
            || draft.plan.steps.iter().any(runs);
        if is_open || matches!(name.suffix(), "slice" | "target") {
            continue;
        }
        let required = inputs::required(name, unit, state.text.as_deref(), &draft.managed, &made);
        if let Some(other) = required.intersection(&restarted).next() {
            let inputs = draft.inputs(name, unit, state.text.as_deref());
            let subject = Subject::new(draft, (app, name, unit), state, inputs);
            subject.restart_along(draft, format!("systemd restarts it with {other}, which it requires"));
            restarted = restarts(draft);
        }
    }
}

/// Plans the restart of pods all of whose containers are restarted: a pod ends with the last of them, and none can be
/// started in one that is ending.
fn restart_emptied_pods(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    let Reach::Seen(units) = &draft.observed.units else { return };
    let verb_of = |draft: &Draft<'_>, name: &UnitName| {
        draft.plan.steps.iter().find_map(|step| match &step.action {
            Action::RunUnit { unit, verb, .. } if unit == name => Some(*verb),
            _ => None,
        })
    };
    let is_up = |name: &UnitName| units.get(name).is_some_and(UnitState::is_up);
    let restarts = |draft: &Draft<'_>, name: &UnitName| verb_of(draft, name) == Some(Verb::Restart);
    let members: Vec<(HostPath, &UnitName)> =
        desired.units().filter_map(|(_, name, unit)| Some((inputs::pod_of(unit)?, name))).collect();
    if members.is_empty() {
        return;
    }
    for (app, name, unit) in desired.units() {
        let UnitOrigin::Application { path, .. } = &unit.origin else { continue };
        let within = || members.iter().filter(|(pod, name)| pod == path && is_up(name));
        let empties = within().next().is_some() && within().all(|(_, member)| restarts(draft, member));
        let Some(state) = units.get(name).filter(|state| empties && state.is_up() && verb_of(draft, name).is_none())
        else {
            continue;
        };
        let inputs = draft.inputs(name, unit, state.text.as_deref());
        let subject = Subject::new(draft, (app, name, unit), state, inputs);
        subject.restart_along(draft, "all its containers are restarted, which ends it".to_owned());
    }
}

/// One unit under consideration.
struct Subject<'a> {
    app: &'a AppName,
    name: &'a UnitName,
    unit: &'a DesiredUnit,
    state: &'a UnitState,
    once: bool,
    inputs: UnitInputs,
    /// What a start now would be with: other than wanted while the drift of an input is only reported.
    with: Inputs,
}

/// Returns what a start now would be with. The content that is only reported on is not known, so that a start with it
/// is told from one with the wanted content, and owes a restart once that is put back.
fn starting_with(draft: &Draft<'_>, inputs: &UnitInputs) -> Inputs {
    let mark = |digest: Digest, paths: &BTreeSet<HostPath>| match paths.iter().any(|path| draft.astray.contains(path)) {
        true => Fields::default().add("astray", digest.to_string().as_bytes()).finish(),
        false => digest,
    };
    let wanted = inputs.digests;
    Inputs { start: mark(wanted.start, &inputs.restart), reload: mark(wanted.reload, &inputs.reload) }
}

impl<'a> Subject<'a> {
    fn new(
        draft: &Draft<'_>,
        (app, name, unit): (&'a AppName, &'a UnitName, &'a DesiredUnit),
        state: &'a UnitState,
        inputs: UnitInputs,
    ) -> Subject<'a> {
        let with = starting_with(draft, &inputs);
        Subject { app, name, unit, state, once: inputs.once, inputs, with }
    }

    fn id(&self) -> ResourceId {
        ResourceId::Unit(self.name.clone())
    }

    /// Plans a unit that should run.
    fn running(&self, draft: &mut Draft<'_>) {
        let run = draft.memory.units.get(self.name).map_or(&Run::Unknown, |known| &known.run);
        match run {
            Run::Started { with, invocation } => {
                if Self::differs(with.start, self.inputs.digests.start, self.with.start) {
                    let why = self.changed(draft, &self.inputs.restart);
                    return self.restart(draft, why);
                }
                if let Some(why) = self.strayed(draft, invocation.as_ref()) {
                    return self.restart(draft, why);
                }
                // A job that ended is not begun again, but what its manager begins by itself may be a service that stays.
                if self.once && self.may_be_started_before(draft) {
                    let why = self.changed(draft, &self.inputs.restart);
                    return self.restart(draft, why);
                }
                if let Some(why) = self.down() {
                    let why = draft.because(self.app, &self.id(), why);
                    return self.run(draft, Verb::Start, why);
                }
                self.reload(draft, *with);
            }
            Run::Beginning { with, was } => self.begun(draft, *with, was.as_ref()),
            Run::Owed => self.restart(draft, Why::Owed("an earlier pass changed its inputs".to_owned())),
            Run::Unknown if !self.state.is_up() => {
                let why = draft.because_absent(self.app, &self.id(), "it is not running");
                self.run(draft, Verb::Start, why);
            }
            Run::Unknown => self.met_running(draft),
        }
    }

    /// Plans a unit that runs and was not started by us, as far as we remember. With its inputs in place since before it
    /// began there is nothing to do; where only what it reloads is younger, it is not disturbed more than that.
    fn met_running(&self, draft: &mut Draft<'_>) {
        let younger = |path: &&HostPath| match (draft.observed.files.get(*path), self.state.since) {
            (Some(FileState::Regular { modified, .. }), Some(since)) => *modified >= since,
            _ => true,
        };
        let (restart, reload) = (&self.inputs.restart, &self.inputs.reload);
        let maybe = |path: &HostPath| Why::Owed(format!("it may have been started before {path} was written"));
        if restart.iter().any(|path| draft.written.contains(path)) {
            let why = self.changed(draft, restart);
            self.restart(draft, why);
        } else if let Some(path) = restart.iter().find(younger) {
            self.restart(draft, maybe(path));
        } else if reload.iter().any(|path| draft.written.contains(path)) {
            let why = self.changed(draft, reload);
            self.run(draft, Verb::Reload, why);
        } else if let Some(path) = reload.iter().find(younger) {
            self.run(draft, Verb::Reload, maybe(path));
        } else {
            self.learn(draft);
        }
    }

    /// Plans a unit for which a start or restart was about to be asked for when the agent ended. A reload is never
    /// remembered as begun: doing it twice harms nobody.
    fn begun(&self, draft: &mut Draft<'_>, with: Inputs, was: Option<&String>) {
        let happened = self.state.invocation.is_some() && self.state.invocation.as_ref() != was;
        // Whoever started it while an input differed that is only put back now started it with that. One that is only to be
        // reloaded is restarted as well: between two kills, nothing would show that the reload was due.
        let strayed = self.inputs.restart.union(&self.inputs.reload).any(|path| draft.written.contains(path));
        let same = (with.start == self.inputs.digests.start || with.start == self.with.start)
            && (with.reload == self.inputs.digests.reload || with.reload == self.with.reload);
        let current = happened && same && !strayed;
        let owed = || Why::Owed("an earlier pass ended before its restart".to_owned());
        match self.state.active {
            ActiveState::Active | ActiveState::Reloading if current => self.learn(draft),
            ActiveState::Inactive if current && self.once => self.learn(draft),
            // Its job still runs: asking to start it joins that job instead of beginning anew.
            ActiveState::Activating if current => self.run(draft, Verb::Start, owed()),
            _ => self.restart(draft, owed()),
        }
    }

    /// Plans a unit that should not run.
    fn stopped(&self, draft: &mut Draft<'_>) {
        if self.state.is_up() {
            let why = draft.because(self.app, &self.id(), "it is running");
            self.run(draft, Verb::Stop, why);
        }
    }

    /// Plans a unit that something else starts: it is restarted only when it runs with older inputs.
    fn untold(&self, draft: &mut Draft<'_>) {
        let known = draft.memory.units.get(self.name).map(|known| &known.run);
        // A job that runs to its end is never `active`, only `activating`: it is left to end.
        let stays = matches!(self.state.active, ActiveState::Active | ActiveState::Reloading);
        match known {
            // Whoever started it, it ran until then.
            Some(Run::Owed | Run::Beginning { .. }) if self.state.active == ActiveState::Failed => {
                self.run(draft, Verb::Start, Why::Owed("it failed when it was restarted".to_owned()));
            }
            Some(Run::Beginning { with, was }) if stays => self.begun(draft, *with, was.as_ref()),
            Some(Run::Started { with, invocation }) if stays => {
                if Self::differs(with.start, self.inputs.digests.start, self.with.start) {
                    let why = self.changed(draft, &self.inputs.restart);
                    self.restart(draft, why);
                } else if let Some(why) = self.strayed(draft, invocation.as_ref()) {
                    self.restart(draft, why);
                } else {
                    self.reload(draft, *with);
                }
            }
            Some(Run::Started { with, .. }) if *with == self.inputs.digests || *with == self.with => {}
            None | Some(Run::Unknown) if stays => self.met_running(draft),
            _ if stays => {
                let why = self.changed(draft, &self.inputs.restart);
                self.restart(draft, why);
            }
            _ => self.learn(draft),
        }
    }

    /// Says whether something was started with something else than is wanted, and than is there.
    fn differs(was: Digest, wanted: Digest, now: Digest) -> bool {
        was != wanted && was != now
    }

    /// Plans the reload of a unit that runs with `with`, if what it reloads is another by now, or is put back.
    fn reload(&self, draft: &mut Draft<'_>, with: Inputs) {
        let rewritten = self.inputs.reload.iter().any(|path| draft.written.contains(path));
        if rewritten || Self::differs(with.reload, self.inputs.digests.reload, self.with.reload) {
            let why = self.changed(draft, &self.inputs.reload);
            self.run(draft, Verb::Reload, why);
        }
    }

    /// A unit whose inputs are put back may have been started with what was there meanwhile; only the run that we
    /// started with the right ones is known not to have been.
    fn strayed(&self, draft: &Draft<'_>, invocation: Option<&String>) -> Option<Why> {
        let path = self.inputs.restart.iter().find(|path| draft.written.contains(*path))?;
        if !self.state.is_up() || (invocation.is_some() && invocation == self.state.invocation.as_ref()) {
            return None;
        }
        Some(Why::Drifted(format!("it was started by somebody else while {path} differed")))
    }

    /// Says in which way the unit is down although it was started, if it is.
    fn down(&self) -> Option<&'static str> {
        match self.state.active {
            _ if self.once => None,
            // systemd would try again and again, and each time it would look as if it came up.
            ActiveState::Activating if self.state.sub.starts_with("auto-restart") => Some(DIED[1]),
            ActiveState::Active | ActiveState::Reloading | ActiveState::Activating => None,
            ActiveState::Failed => Some(DIED[0]),
            // Somebody's stop or restart is under way: a start now would cancel it in their hands. The next look sees what
            // came of it.
            ActiveState::Deactivating => None,
            ActiveState::Inactive => Some("it is not running"),
        }
    }

    fn changed(&self, draft: &Draft<'_>, inputs: &BTreeSet<HostPath>) -> Why {
        let written: Vec<&HostPath> = inputs.iter().filter(|path| draft.written.contains(*path)).collect();
        let kept = inputs::kept_by_podman(self.unit, &draft.managed).unwrap_or_default();
        match written.as_slice() {
            [] => Why::Owed(format!("its inputs changed since it was started{kept}")),
            [path] => draft.because_of(&written, format!("{path} changes{kept}")),
            [path, rest @ ..] => draft.because_of(&written, format!("{path} and {} more change{kept}", rest.len())),
        }
    }

    /// Restarts what can be restarted: a slice or target takes its new text from the daemon-reload, and restarting it
    /// would take down everything in it.
    fn restart(&self, draft: &mut Draft<'_>, why: Why) {
        let container = matches!(self.name.suffix(), "slice" | "target");
        match self.state.is_up() {
            true if container => self.learn(draft),
            true => self.run(draft, Verb::Restart, why),
            false if self.unit.state == Some(UnitGoal::Running) => self.run(draft, Verb::Start, why),
            false => self.learn(draft),
        }
    }

    /// Restarts what goes down with something else. Its image is here, unless it is asked for anew at each start.
    fn restart_along(&self, draft: &mut Draft<'_>, why: String) {
        let pull = inputs::pull(self.name, self.unit, &draft.managed).filter(|pull| !pull.if_missing);
        self.run_after(draft, Verb::Restart, Why::Changed(why), pull);
    }

    fn run(&self, draft: &mut Draft<'_>, verb: Verb, why: Why) {
        // What somebody stopped has its image; a restart must not begin before the new one is here.
        let pulls = matches!(verb, Verb::Start | Verb::Restart) && !matches!(why, Why::Drifted(_));
        let pull = inputs::pull(self.name, self.unit, &draft.managed).filter(|_| pulls);
        self.run_after(draft, verb, why, pull);
    }

    fn run_after(&self, draft: &mut Draft<'_>, verb: Verb, why: Why, pull: Option<Pull>) {
        let verb = if verb == Verb::Start && self.may_be_started_before(draft) { Verb::Restart } else { verb };
        let action = Action::RunUnit {
            unit: self.name.clone(),
            verb,
            with: self.with,
            was: self.state.invocation.clone(),
            once: self.once,
        };
        let reads = self.inputs.restart.union(&self.inputs.reload).cloned().collect();
        let step = Step { app: Some(self.app.clone()), action, why, reads };
        // Nothing is fetched for what is not started: it would be in every pass.
        if let Some(pull) = pull.filter(|_| draft.fate(&step) == Fate::Done) {
            draft.step(self.app, Action::PullForUnit(self.name.clone(), pull), step.why.clone());
        }
        draft.step_reading(self.app, step.action, step.why, step.reads);
    }

    /// Says whether the manager that this plan starts may have started the unit by itself, with what is there before this
    /// plan writes it: a start would find it running then, and leave it.
    fn may_be_started_before(&self, draft: &Draft<'_>) -> bool {
        let is_down = self.name.user().is_some_and(|user| draft.observed.is_down(user));
        let has_text = match &self.unit.origin {
            UnitOrigin::Application { path, .. } => draft.observed.files.get(path) != Some(&FileState::Absent),
            UnitOrigin::Host => true,
        };
        let mut reads = self.inputs.restart.iter().chain(&self.inputs.reload);
        is_down && has_text && reads.any(|path| draft.written.contains(path))
    }

    fn learn(&self, draft: &mut Draft<'_>) {
        let ours = matches!(self.unit.origin, UnitOrigin::Application { .. });
        let invocation = self.state.invocation.clone();
        draft.plan.lessons.push(Lesson::Runs(self.name.clone(), self.app.clone(), ours, self.with, invocation));
    }
}
