//! Desired, Observed and Memory in; an ordered list of steps out. Pure and total.
//!
//! What the planner cannot answer is a [`Conflict`] in the plan, never a guess. Nothing is removed that is not owned,
//! nothing of an unreachable kind is touched, and a restart is owed exactly when what a unit was last *started* with
//! differs from what it should be started with.

pub mod fights;
pub mod text;
mod order;
mod claims;
mod pauses;
mod networks;
mod managers;
mod containers;
mod files;
mod units;
mod prune;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::artifact::Origin;
use crate::desired::{Desired, DesiredContainer, DriftPolicy, FileKind, HeldBack, Hold, Policy, UnitGoal};
use crate::digest::Digest;
use crate::id::{AppName, ContainerName, HostPath, NetworkName, ResourceId, UnitName, User, VolumeName};
use crate::inputs::{self, Managed, Pull, UnitInputs};
use crate::memory::{Inputs, Memory, Run};
use crate::observed::{ContainerRun, ContainerState, FileState, InvocationId, Observed, Reach};
use crate::pause::Pauses;

pub use claims::{first_managers, names_in_doubt};

/// What to do, in order, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order of their phases.
    pub steps: Vec<Step>,
    /// What a person has to resolve.
    pub conflicts: Vec<Conflict>,
    /// Differences that are only reported, because the repository says `drift: report`, or because they are contested.
    pub drift: Vec<Step>,
    /// Drift that is not put back any more, since somebody else changes it back again and again, with its application.
    pub contested: BTreeMap<ResourceId, AppName>,
    /// What could not be looked at and is therefore left alone.
    pub unknown: Vec<Unknown>,
    /// Applications whose last attempt failed and whose next one is not due yet.
    pub waiting: BTreeMap<AppName, Timestamp>,
    /// Applications of which not everything could be looked at yet: what is in an archive, who has a name in Podman.
    pub closed: BTreeSet<AppName>,
    /// Applications that are not brought to the commit, and why.
    pub held_back: BTreeMap<AppName, HeldBack>,
    /// What a person paused.
    pub pauses: Pauses,
    /// What would be done if it were not paused.
    pub postponed: Vec<Step>,
    /// Applications that go only when others have gone: a higher number goes later.
    pub ranks: BTreeMap<AppName, usize>,
    /// Removals that wait for an acknowledgement in the repository.
    pub held: Option<Held>,
    /// Paths that these steps overwrite or remove although somebody else wrote what is there: it is kept before.
    pub keeps: BTreeMap<HostPath, Keep>,
    /// What is learnt without changing the host.
    pub lessons: Vec<Lesson>,
    /// What a person may want to know, and need do nothing about.
    pub notes: Vec<Note>,
}

/// Why the bytes at a path are kept before they are overwritten or removed. What a person must not find in a backup, a
/// decrypted secret, is never kept: whoever plans such a file leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is somebody else's, and is taken over.
    Adopted,
    /// It is ours, and somebody edited it.
    Edited,
    /// It is ours and no longer wanted, and somebody edited it.
    Unwanted,
}

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The application it is done for; `None` for what concerns the whole host.
    pub app: Option<AppName>,
    /// The change.
    pub action: Action,
    /// Why it is needed.
    pub why: Why,
    /// For what is started: the managed paths that it reads. It must not start before they are in place.
    pub reads: BTreeSet<HostPath>,
}

/// Changes, as the providers carry them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetches an image; disturbs nothing.
    PullImage(String),
    /// Has Podman fetch the image of a service that is about to be started; disturbs nothing.
    PullForUnit(UnitName, Pull),
    /// Fetches an artifact into the agent's store; disturbs nothing.
    FetchArtifact(Arc<Origin>),
    /// Stops a unit that is no longer wanted at all.
    RetireUnit(UnitName),
    /// Removes the links of a unit that is no longer wanted, or should not be enabled.
    DisableUnit(UnitName),
    /// Removes an owned container, never its volumes.
    RemoveContainer(ContainerName, String),
    /// Removes an owned file or link, if it still is what was observed.
    RemoveFile(HostPath, FileState),
    /// Removes an owned directory, if it is empty.
    RemoveDirectory(HostPath),
    /// Makes or replaces a path, if what is there still is what was observed.
    WriteFile(HostPath, FileState),
    /// Sets mode and owner, if the content still is what was observed.
    SetAccess(HostPath, FileState),
    /// Makes the links of a unit's `[Install]` section.
    EnableUnit(UnitName),
    /// Has a user's manager run without anybody being logged in, from now on.
    Linger(User),
    /// Starts a user's manager.
    StartManager(User),
    /// Tells systemd to read its unit files again.
    ReloadSystemd,
    /// Tells a user's manager to read its unit files again.
    ReloadManager(User),
    /// Starts, restarts, reloads or stops a wanted unit.
    RunUnit {
        /// The unit.
        unit: UnitName,
        /// What to ask of systemd.
        verb: Verb,
        /// What it is started with; remembered when it worked.
        with: Inputs,
        /// The run before, when the planner was told.
        was: Option<InvocationId>,
        /// Whether the job runs to its end instead of staying.
        once: bool,
    },
    /// Creates and starts a container.
    CreateContainer(ContainerName),
    /// Stops and removes an owned container and creates it anew.
    ReplaceContainer(ContainerName, String),
    /// Stops somebody else's container, gives it another name and creates the wanted one in its place.
    AdoptContainer(ContainerName, String),
    /// Starts an owned container that is as wanted and does not run.
    StartContainer(ContainerName, String),
    /// Creates a network.
    CreateNetwork(NetworkName),
    /// Removes an owned network that no container uses any more.
    RemoveNetwork(NetworkName, String),
    /// Creates a named volume; nothing ever removes one.
    CreateVolume(VolumeName),
}

/// What to ask of systemd for a wanted unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Start it.
    Start,
    /// Restart it.
    Restart,
    /// Reload its configuration.
    Reload,
    /// Stop it.
    Stop,
}

/// The phases of a plan. A phase begins when the one before has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Have the managers of users run.
    Prepare,
    /// Get what is needed; nothing is disturbed yet.
    Fetch,
    /// Stop and remove what is ours and unwanted.
    Clear,
    /// Write files.
    Write,
    /// Enable and disable units.
    Enable,
    /// One daemon-reload for everything.
    Reload,
    /// Make what containers need: networks and volumes.
    Provide,
    /// Start and restart.
    Ensure,
}

impl Action {
    /// Returns the phase this belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            Action::Linger(_) | Action::StartManager(_) => Phase::Prepare,
            Action::PullImage(_) | Action::PullForUnit(..) | Action::FetchArtifact(_) => Phase::Fetch,
            Action::RetireUnit(_)
            | Action::RemoveContainer(..)
            | Action::RemoveNetwork(..)
            | Action::RemoveFile(..)
            | Action::RemoveDirectory(_) => Phase::Clear,
            Action::CreateNetwork(_) | Action::CreateVolume(_) => Phase::Provide,
            Action::WriteFile(..) | Action::SetAccess(..) => Phase::Write,
            Action::EnableUnit(_) | Action::DisableUnit(_) => Phase::Enable,
            Action::ReloadSystemd | Action::ReloadManager(_) => Phase::Reload,
            Action::RunUnit { .. }
            | Action::CreateContainer(_)
            | Action::ReplaceContainer(..)
            | Action::AdoptContainer(..)
            | Action::StartContainer(..) => Phase::Ensure,
        }
    }

    /// Returns what is changed; `None` for what is only fetched and for systemd itself.
    pub fn resource(&self) -> Option<ResourceId> {
        match self {
            Action::PullImage(_)
            | Action::PullForUnit(..)
            | Action::FetchArtifact(_)
            | Action::ReloadSystemd
            | Action::ReloadManager(_) => None,
            Action::Linger(user) | Action::StartManager(user) => Some(ResourceId::Unit(user.manager())),
            Action::RetireUnit(unit)
            | Action::DisableUnit(unit)
            | Action::EnableUnit(unit)
            | Action::RunUnit { unit, .. } => Some(ResourceId::Unit(unit.clone())),
            Action::RemoveContainer(name, _)
            | Action::CreateContainer(name)
            | Action::ReplaceContainer(name, _)
            | Action::AdoptContainer(name, _)
            | Action::StartContainer(name, _) => Some(ResourceId::Container(name.clone())),
            Action::CreateNetwork(name) | Action::RemoveNetwork(name, _) => Some(ResourceId::Network(name.clone())),
            Action::CreateVolume(name) => Some(ResourceId::Volume(name.clone())),
            Action::RemoveFile(path, _)
            | Action::RemoveDirectory(path)
            | Action::WriteFile(path, _)
            | Action::SetAccess(path, _) => Some(ResourceId::File(path.clone())),
        }
    }

    /// Says whether it changes something on the container engine.
    pub fn is_of_the_engine(&self) -> bool {
        matches!(self.resource(), Some(ResourceId::Container(_) | ResourceId::Network(_) | ResourceId::Volume(_)))
    }
}

/// Why a step is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was not there.
    New,
    /// The commit wants it otherwise; the text says in which way.
    Changed(String),
    /// The host departed from what was converged; the text says in which way.
    Drifted(String),
    /// An earlier pass did not get that far.
    Owed(String),
    /// No application wants it any more.
    Unwanted,
}

/// Something a person has to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The application that cannot be as it should.
    pub app: AppName,
    /// What it is about.
    pub resource: ResourceId,
    /// What is wrong and what to do.
    pub why: String,
}

/// Something that is as it is wanted, and still worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The application concerned.
    pub app: AppName,
    /// What it is about.
    pub resource: ResourceId,
    /// What there is to know.
    pub text: String,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// The application concerned.
    pub app: AppName,
    /// What was not looked at.
    pub resource: ResourceId,
    /// Why not.
    pub why: String,
}

/// Removals that wait for an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What `acknowledge:` in `fleet.yaml` has to name.
    pub digest: String,
    /// What would be removed.
    pub removals: Vec<ResourceId>,
    /// How many things are owned altogether.
    pub owned: usize,
}

/// What a look at the host teaches without changing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// A claimed thing exists as claimed: it is ours.
    Made(ResourceId, AppName),
    /// An owned thing is gone, or turned out to be somebody else's: not ours any more.
    Gone(ResourceId),
    /// An owned thing is wanted by another application now.
    Moved(ResourceId, AppName),
    /// An owned path holds what is wanted, which has this fingerprint.
    Holds(HostPath, Digest),
    /// A unit runs with these inputs: found so, or a begun restart turned out to have happened.
    Runs(UnitName, AppName, bool, Inputs, Option<InvocationId>),
    /// A user's manager does not run, and reads everything when it is started.
    ReadsAnew(User),
    /// A host's unit is no longer managed; it is left as it is.
    Released(UnitName),
    /// An input is put back while systemd or the engine is away: what runs may have been started without it, so a
    /// restart is owed once it can be seen again.
    Owes(ResourceId),
    /// The same for what a unit only reloads.
    OwesReload(UnitName),
}

/// Whether applications whose last attempt failed are tried before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A daemon's pass waits for the back-off.
    Wait,
    /// A person asked.
    Now,
}

/// Everything the planners of the kinds work on.
struct Draft<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    memory: &'a Memory,
    now: Timestamp,
    managed: Managed<'a>,
    plan: Plan,
    /// Paths that are not, and will not be by this plan, as wanted.
    blocked: BTreeSet<HostPath>,
    /// Paths whose content this plan changes.
    written: BTreeSet<HostPath>,
    /// Paths whose drift is only reported: they keep a content that is not the wanted one.
    astray: BTreeSet<HostPath>,
    /// What is fetched by this plan, by application.
    fetched: BTreeSet<(AppName, Digest)>,
}

/// What becomes of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is carried out.
    Done,
    /// Its application is not tried now.
    Waits,
    /// It is drift that is only reported.
    Reported,
    /// It is drift that somebody else wants.
    Contested,
}

/// Works out what to do, and what would be done if nothing were paused.
pub fn plan(desired: &Desired, observed: &Observed, memory: &Memory, now: Timestamp, patience: Patience) -> Plan {
    let mut plan = plan_but_for_pauses(desired, observed, memory, now, patience);
    if !plan.pauses.is_empty() {
        let (desired, memory) = pauses::without(desired, memory);
        pauses::postpone(&mut plan, plan_but_for_pauses(&desired, observed, &memory, now, patience).steps);
    }
    plan
}

/// Works out what to do, without a word on what is left out because it is paused.
fn plan_but_for_pauses(
    desired: &Desired,
    observed: &Observed,
    memory: &Memory,
    now: Timestamp,
    patience: Patience,
) -> Plan {
    let mut draft = Draft {
        desired,
        observed,
        memory,
        now,
        managed: inputs::managed(desired),
        plan: Plan { held_back: desired.held_back.clone(), pauses: memory.pauses.at(now), ..Plan::default() },
        blocked: observed.unpublished.iter().filter(|(_, it)| !it.is_kept).map(|(path, _)| path.clone()).collect(),
        written: BTreeSet::new(),
        astray: BTreeSet::new(),
        fetched: BTreeSet::new(),
    };
    draft.set_aside(patience);
    files::plan(&mut draft);
    files::archives(&mut draft);
    managers::plan(&mut draft);
    units::plan(&mut draft);
    containers::plan(&mut draft);
    prune::plan(&mut draft);
    units::leave_what_another_text_hides(&mut draft);
    units::follow(&mut draft);
    networks::clear(&mut draft);
    draft.reload_if_needed();
    draft.leave_with_paused();
    let mut plan = draft.plan;
    plan.ranks = prune::ranks(desired, memory);
    let mut steps = std::mem::take(&mut plan.steps);
    // A network is free only when the last of its containers is gone.
    let frees = |step: &Step| matches!(step.action, Action::RemoveNetwork(..));
    steps.sort_by_key(|step| (step.action.phase(), frees(step), plan.rank(step)));
    plan.steps = steps;
    let changed =
        |path: &HostPath| plan.steps.iter().any(|step| step.action.resource() == Some(ResourceId::File(path.clone())));
    plan.keeps.retain(|path, _| changed(path));
    plan
}

/// Names the units whose current invocation the planner needs: a restart was begun, or an input of theirs is about to
/// be put back and they may have been started with what is there now.
pub fn units_in_doubt(desired: &Desired, observed: &Observed, memory: &Memory) -> BTreeSet<UnitName> {
    let managed = inputs::managed(desired);
    let astray: Vec<&HostPath> = managed
        .iter()
        .filter(|(path, _)| !desired.published.contains_key(**path))
        .filter(|(path, file)| !files::has_content(observed.files.get(**path), &file.kind))
        .map(|(path, _)| *path)
        .collect();
    let archives = astray.iter().filter_map(|path| inputs::archive_of(path, &managed));
    let astray: BTreeSet<HostPath> = archives.chain(astray.iter().map(|path| (*path).clone())).collect();
    let mut doubtful = BTreeSet::new();
    for (_, name, unit) in desired.units() {
        let run = memory.units.get(name).map_or(&Run::Unknown, |known| &known.run);
        let begun = matches!(run, Run::Beginning { .. } | Run::Unknown);
        let host_text = observed.units.seen().and_then(|units| units.get(name)).and_then(|state| state.text.as_deref());
        if begun || !astray.is_empty() {
            let inputs = inputs::of_unit(name, unit, host_text, &managed);
            let mut paths = inputs.restart.iter().chain(&inputs.reload);
            if begun || paths.any(|path| astray.contains(path)) {
                doubtful.insert(name.clone());
            }
        }
    }
    // What goes on without drop-ins of ours: its restart may have happened.
    let left = memory.units.iter().filter(|(_, known)| matches!(known.run, Run::Beginning { .. }));
    doubtful.extend(left.map(|(name, _)| name.clone()));
    doubtful
}

/// Names the containers whose current run the planner needs: an input of theirs is about to be put back.
pub fn containers_in_doubt(desired: &Desired, observed: &Observed) -> BTreeSet<ContainerName> {
    let managed = inputs::managed(desired);
    let astray = |path: &&HostPath| {
        managed.get(path).is_some_and(|file| !files::has_content(observed.files.get(*path), &file.kind))
    };
    let doubtful = desired.containers().filter(|(_, _, wanted)| wanted.inputs.iter().any(|path| astray(&path)));
    doubtful.map(|(_, name, _)| name.clone()).collect()
}

/// Says whether the networks of the engine have to be looked at: a container that is attached to one of them is not as it
/// should be, or one of ours is no longer wanted. Nothing about networks is asked of an unchanged host.
pub fn networks_in_doubt(desired: &Desired, observed: &Observed, memory: &Memory) -> bool {
    let Some(seen) = observed.containers.seen() else { return false };
    let wanted = |name: &NetworkName| desired.networks().any(|(_, wanted, it)| wanted == name && it.settings.is_some());
    let unwanted = memory.owned.keys().any(|id| matches!(id, ResourceId::Network(name) if !wanted(name)));
    let is_owned = |app: &AppName, name: &NetworkName| {
        let owned = memory.owned.get(&ResourceId::Network(name.clone()));
        owned.is_some_and(|owned| owned.app == *app && owned.claim.is_none())
    };
    unwanted || desired.apps.iter().any(|(app, it)| networks::are_in_doubt(it, seen, |name| is_owned(app, name)))
}

/// Says whether a container is what is wanted and does what it should.
fn is_met_by(wanted: &DesiredContainer, state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| {
        let is_it = state.mark.as_ref().is_some_and(|mark| mark.digest == wanted.digest);
        is_it && (state.run == ContainerRun::Running || is_done(wanted, state))
    })
}

/// Says whether a container is a job that has reached its end.
fn is_done(wanted: &DesiredContainer, state: &ContainerState) -> bool {
    wanted.job && state.run == ContainerRun::Stopped && state.exit_code == Some(0)
}

/// Names the volumes that have to be looked at: a container that mounts one of them has to be created.
pub fn volumes_in_doubt(desired: &Desired, observed: &Observed) -> BTreeSet<VolumeName> {
    let Some(seen) = observed.containers.seen() else { return BTreeSet::new() };
    let missing = desired.containers().filter(|(_, name, wanted)| {
        let mark = seen.get(*name).and_then(|state| state.mark.as_ref());
        mark.is_none_or(|mark| mark.digest != wanted.digest)
    });
    let known: BTreeSet<&VolumeName> = desired.volumes().map(|(_, name, _)| name).collect();
    missing.flat_map(|(_, _, wanted)| wanted.volumes()).filter(|name| known.contains(name)).cloned().collect()
}

/// Names the jobs of which it is not known whether they have reached their end.
pub fn jobs_in_doubt(desired: &Desired, observed: &Observed) -> BTreeSet<ContainerName> {
    let Some(seen) = observed.containers.seen() else { return BTreeSet::new() };
    let ended = |name: &ContainerName| {
        seen.get(name).is_some_and(|state| state.run == ContainerRun::Stopped && state.exit_code.is_none())
    };
    let jobs = desired.containers().filter(|(_, name, wanted)| wanted.job && ended(name));
    jobs.map(|(_, name, _)| name.clone()).collect()
}

impl Step {
    /// Says whether this starts a service that had died by itself.
    pub fn revives(&self) -> bool {
        matches!((&self.action, &self.why), (Action::RunUnit { .. }, Why::Drifted(why)) if units::DIED.contains(&why.as_str()))
    }
}

impl Plan {
    /// Says whether the host is as wanted, as far as this plan can tell.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
            && self.conflicts.is_empty()
            && self.drift.is_empty()
            && self.contested.is_empty()
            && self.unknown.is_empty()
            && self.waiting.is_empty()
            && self.held_back.is_empty()
            && self.held.is_none()
            && self.postponed.is_empty()
    }

    /// Says whether a step starts something that reads a file whose drift is only reported: it does not start with what is
    /// wanted, and must not be remembered as if it did.
    pub fn starts_astray(&self, step: &Step) -> bool {
        self.drift.iter().any(|drift| match &drift.action {
            Action::WriteFile(path, _) => step.reads.contains(path),
            _ => false,
        })
    }

    /// Says whether nothing of `app` is changed, since a person said so.
    pub fn is_paused(&self, app: &AppName) -> bool {
        self.pauses.host.is_some() || self.pauses.apps.contains_key(app)
    }

    /// Says how late among the removals a step comes: what goes is removed before what it needs.
    pub fn rank(&self, step: &Step) -> usize {
        let rank = step.app.as_ref().and_then(|app| self.ranks.get(app)).copied().unwrap_or(0);
        if step.why == Why::Unwanted { rank } else { 0 }
    }

    /// Iterates over the steps of one phase.
    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.action.phase() == phase)
    }
}

impl Draft<'_> {
    fn step(&mut self, app: &AppName, action: Action, why: Why) {
        self.step_reading(app, action, why, BTreeSet::new());
    }

    /// Adds a step that starts something, unless it is not to be carried out.
    fn step_reading(&mut self, app: &AppName, action: Action, why: Why, reads: BTreeSet<HostPath>) {
        let step = Step { app: Some(app.clone()), action, why, reads };
        let fate = self.fate(&step);
        if fate == Fate::Done {
            return self.plan.steps.push(step);
        }
        // Another application puts a file of this one's back: once it is, nothing shows that something was due.
        if step.reads.iter().any(|path| self.written.contains(path))
            && let Some(id) = step.action.resource()
        {
            self.plan.lessons.push(match &step.action {
                Action::RunUnit { unit, verb: Verb::Reload, .. } => Lesson::OwesReload(unit.clone()),
                _ => Lesson::Owes(id),
            });
        }
        if let Some(id) = step.action.resource().filter(|_| !self.is_aside(app))
            && let Some(owner) = self.paused_owner(&id, app)
        {
            let why = format!("it still belongs to {owner}, which is paused");
            self.unknown(app, id, &why);
        }
        if let (Fate::Contested, Some(id)) = (fate, step.action.resource()) {
            self.plan.contested.insert(id, app.clone());
        }
        if fate != Fate::Waits {
            self.plan.drift.push(step);
        }
    }

    /// Adds the step that writes a path. What depends on the path is told whether it will be as wanted.
    fn write(&mut self, app: &AppName, path: &HostPath, state: FileState, why: Why) {
        let action = Action::WriteFile(path.clone(), state);
        let step = Step { app: Some(app.clone()), action, why, reads: BTreeSet::new() };
        let fate = self.fate(&step);
        if let (Fate::Done, Some(FileKind::Artifact { digest, origin })) =
            (fate, self.managed.get(path).map(|file| &file.kind))
        {
            self.fetch(app, *digest, &Arc::clone(origin), &step.why);
        }
        let set = match fate {
            Fate::Done => &mut self.written,
            Fate::Waits => &mut self.blocked,
            Fate::Reported | Fate::Contested => &mut self.astray,
        };
        set.insert(path.clone());
        self.step(app, step.action, step.why);
    }

    /// Adds the step that fetches what is needed, unless that is here: before anything stops, so that a server
    /// that is away changes nothing.
    fn fetch(&mut self, app: &AppName, needed: Digest, origin: &Arc<Origin>, why: &Why) {
        if !self.observed.artifacts.contains(&needed) && self.fetched.insert((app.clone(), origin.key())) {
            self.step(app, Action::FetchArtifact(Arc::clone(origin)), why.clone());
        }
    }

    /// Says what becomes of a step. A commit's change is a change, whatever the repository says about drift: only what was
    /// as wanted before, and is not any more, is reported instead of put back.
    fn fate(&self, step: &Step) -> Fate {
        if step.app.as_ref().is_none_or(|app| !self.is_aside(app)) && self.lacks_its_manager(&step.action) {
            return Fate::Reported;
        }
        let (Some(app), Some(id)) = (&step.app, step.action.resource()) else { return Fate::Done };
        if self.is_aside(app) || self.paused_owner(&id, app).is_some() {
            return Fate::Waits;
        }
        let drifted = matches!(step.why, Why::Drifted(_));
        let owed = matches!(step.why, Why::Owed(_)) && self.is_settled(app);
        if (drifted || owed) && self.policy(app, &id).drift == DriftPolicy::Report {
            return Fate::Reported;
        }
        let follows = step.reads.iter().any(|path| self.written.contains(path));
        let release = self.desired.apps.get(app).map(|wanted| wanted.digest);
        let fight = self.memory.fights.get(&id).filter(|fight| Some(fight.release) == release);
        match fight {
            Some(fight) if drifted && !follows && !step.revives() && fights::is_lost(fight, self.now) => {
                Fate::Contested
            }
            _ => Fate::Done,
        }
    }

    /// Says whether an action needs a user's manager that does not run, and that this plan does not start: somebody wants it
    /// so, or it is only reported.
    fn lacks_its_manager(&self, action: &Action) -> bool {
        let Action::RunUnit { unit, .. } = action else { return false };
        unit.user().is_some_and(|user| self.observed.is_down(user) && !self.starts_manager(user))
    }

    fn starts_manager(&self, user: &User) -> bool {
        let starts = |step: &Step| matches!(&step.action, Action::StartManager(it) | Action::Linger(it) if it == user);
        self.plan.steps.iter().any(starts)
    }

    /// Returns what the repository says of a resource beyond what it should be.
    fn policy(&self, app: &AppName, id: &ResourceId) -> Policy {
        let otherwise = Policy { adopt: false, drift: DriftPolicy::Repair };
        self.desired.apps.get(app).map_or(otherwise, |wanted| wanted.policy(id))
    }

    fn conflict(&mut self, app: &AppName, resource: ResourceId, why: String) {
        self.plan.conflicts.push(Conflict { app: app.clone(), resource, why });
    }

    fn unknown(&mut self, app: &AppName, resource: ResourceId, why: &str) {
        self.plan.unknown.push(Unknown { app: app.clone(), resource, why: why.to_owned() });
    }

    /// Says whether nothing of `app` is changed by this plan.
    fn is_aside(&self, app: &AppName) -> bool {
        self.plan.is_paused(app)
            || self.plan.waiting.contains_key(app)
            || self.plan.closed.contains(app)
            || self.desired.held_back.get(app).is_some_and(|held| held.is_untouched)
    }

    /// Says whether `app` goes back to its last good release: what the failed one made is taken away again.
    fn goes_back(&self, app: &AppName) -> bool {
        self.desired.held_back.get(app).is_some_and(|held| held.why == Hold::Bad)
    }

    /// Says whether `app` was converged on this very release before, so that any difference now is drift.
    fn is_settled(&self, app: &AppName) -> bool {
        let Some(wanted) = self.desired.apps.get(app) else { return false };
        self.memory.apps.get(app).is_some_and(|known| known.digest == wanted.digest && known.reached)
    }

    /// Says whether what is wanted of `id` was so before, so that any difference now is drift, also while the rest of its
    /// application is on its way to another release.
    fn was_so(&self, app: &AppName, id: &ResourceId) -> bool {
        if let ResourceId::File(path) = id
            && path.is_pin()
        {
            return self.was_held(path);
        }
        let want = || self.desired.apps.get(app).and_then(|wanted| wanted.want(id));
        let before = self.memory.settled.get(app).and_then(|settled| settled.wants.get(id));
        self.is_settled(app) || before.is_some_and(|before| want() == Some(*before))
    }

    /// Says whether a drop-in that holds a quadlet to an image was in place: it is no part of a release.
    fn was_held(&self, path: &HostPath) -> bool {
        let owned = self.memory.owned.get(&ResourceId::File(path.clone()));
        owned.is_some_and(|owned| owned.claim.is_none())
    }

    /// Chooses between "the commit changed it" and "the host drifted".
    fn because(&self, app: &AppName, id: &ResourceId, text: impl Into<String>) -> Why {
        if self.was_so(app, id) { Why::Drifted(text.into()) } else { Why::Changed(text.into()) }
    }

    /// Says why something that is not there is made: it is new, or was taken away.
    fn because_absent(&self, app: &AppName, id: &ResourceId, text: &str) -> Why {
        match id {
            _ if self.was_so(app, id) => Why::Drifted(text.to_owned()),
            ResourceId::File(path) if path.is_pin() => {
                Why::Changed("its quadlet would start another image than the last good release ran".to_owned())
            }
            _ => Why::New,
        }
    }

    /// Says why a change of these paths matters: drift only if every application they belong to was settled.
    fn because_of(&self, paths: &[&HostPath], text: String) -> Why {
        let settled = |path: &&HostPath| {
            if path.is_pin() {
                return self.was_held(path);
            }
            let owner = self.desired.files().find(|(_, wanted, _)| wanted == path).map(|(app, _, _)| app);
            owner.is_none_or(|app| self.is_settled(app))
        };
        if paths.iter().all(settled) { Why::Drifted(text) } else { Why::Changed(text) }
    }

    fn inputs(&self, name: &UnitName, unit: &crate::desired::DesiredUnit, host_text: Option<&str>) -> UnitInputs {
        inputs::of_unit(name, unit, host_text, &self.managed)
    }

    /// Finds the applications whose next attempt is not due: nothing of theirs is changed, and what reads their files must
    /// know.
    fn set_aside(&mut self, patience: Patience) {
        let now = self.now;
        // What goes waits as well after its removal failed.
        for (app, known) in self.memory.apps.iter().filter(|(app, _)| !self.desired.apps.contains_key(app)) {
            let failure = known.failure.as_ref().filter(|_| known.going);
            self.wait(app, failure.map(|failure| failure.not_before), now, patience);
        }
        for (app, wanted) in &self.desired.apps {
            let known = self.memory.apps.get(app).filter(|known| known.digest == wanted.digest);
            let failed = known.and_then(|known| known.failure.as_ref()).map(|failure| failure.not_before);
            let until = failed.max(known.and_then(|known| known.next_repair));
            self.wait(app, until, now, patience);
        }
    }

    fn wait(&mut self, app: &AppName, until: Option<Timestamp>, now: Timestamp, patience: Patience) {
        // A clock that was set back must not keep an application waiting for longer than any back-off.
        let longest = now.checked_add(jiff::SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX);
        if let (Some(until), Patience::Wait) = (until, patience)
            && now < until
            && until < longest
        {
            self.plan.waiting.insert(app.clone(), until);
        }
    }

    /// Says whether the text of a unit, or the quadlet that it is made of, is ours and goes. Whether the host has a text of
    /// its own shows only then.
    fn loses_its_text(&self, unit: &UnitName) -> bool {
        let template = unit.template();
        let quadlets = &self.memory.quadlets;
        let source = quadlets.get(unit).or_else(|| template.as_ref().and_then(|template| quadlets.get(template)));
        let own = template.as_ref().unwrap_or(unit).path();
        let goes = |path: &HostPath| {
            !self.managed.contains_key(path) && self.memory.owned.contains_key(&ResourceId::File(path.clone()))
        };
        goes(&own) || source.is_some_and(goes)
    }

    /// Adds the one daemon-reload of each manager when unit files or links change, changed before, or changed behind our back.
    fn reload_if_needed(&mut self) {
        let observed = self.observed;
        if observed.units.seen().is_none() || self.plan.pauses.host.is_some() {
            return;
        }
        if let Some(why) = self.reload(None) {
            self.plan.steps.push(Step { app: None, action: Action::ReloadSystemd, why, reads: BTreeSet::new() });
        }
        for user in observed.managers.keys() {
            if observed.is_down(user) && !self.starts_manager(user) {
                let is_owed = self.memory.reloads_owed.contains(user);
                self.plan.lessons.extend(is_owed.then(|| Lesson::ReadsAnew(user.clone())));
            } else if let (Reach::Seen(()), Some(why)) = (observed.manager(Some(user)), self.reload(Some(user))) {
                let action = Action::ReloadManager(user.clone());
                self.plan.steps.push(Step { app: None, action, why, reads: BTreeSet::new() });
            }
        }
    }

    /// Says why a manager has to read its unit files again, if it has.
    fn reload(&self, user: Option<&User>) -> Option<Why> {
        let changes = self.plan.steps.iter().any(|step| match &step.action {
            Action::WriteFile(path, _) | Action::RemoveFile(path, _) => {
                path.is_of_a_unit() && path.quadlet_uid() == user.map(User::uid)
            }
            Action::EnableUnit(unit) | Action::DisableUnit(unit) => unit.user() == user,
            _ => false,
        });
        let is_owed = user.map_or(self.memory.reload_owed, |user| self.memory.reloads_owed.contains(user));
        let mut units = self.observed.units.seen()?.iter().filter(|(unit, _)| unit.user() == user);
        if changes {
            Some(Why::Changed("unit files change".to_owned()))
        } else if is_owed {
            Some(Why::Owed("unit files changed in an earlier pass".to_owned()))
        } else {
            let (unit, _) = units.find(|(unit, state)| state.need_reload && self.manages(unit))?;
            Some(Why::Drifted(format!("systemd has an older {unit} than the disk")))
        }
    }

    /// Says whether systemd has to know this unit's text for an application's sake.
    fn manages(&self, unit: &UnitName) -> bool {
        self.desired.units().any(|(app, name, wanted)| {
            let brought =
                || self.managed.contains_key(&unit.path()) || !inputs::drop_ins(unit, &self.managed).is_empty();
            let matters = wanted.state == Some(UnitGoal::Running) || brought();
            let id = ResourceId::Unit(name.clone());
            let reported = self.policy(app, &id).drift == DriftPolicy::Report && self.was_so(app, &id);
            let aside = reported || self.is_aside(app);
            name == unit && matters && !aside
        })
    }
}
