//! A host in memory, with just enough of systemd and an engine to catch a planner that lies: a service remembers the
//! bytes it was started with.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use spec::course::{self, Release};
use spec::desired::{Desired, DesiredApp, FileKind, UnitGoal, UnitOrigin};
use spec::digest::Digest;
use spec::id::{AppName, ContainerName, HostPath, Mode, NetworkName, UnitName, User};
use spec::inputs;
use spec::journal;
use spec::memory::{Adopted, AppMemory, AppState, Bad, Memory, Ran};
use spec::observed::{
    Access, ActiveState, ContainerMark, ContainerRun, ContainerState, FileState, LoadState, Manager, ManagerState,
    NetworkState, Observed, Reach, UnitState,
};
use spec::pins;
use spec::plan::{self, Action, Patience, Phase, Plan, Verb};

use crate::strategy::{self, Tamper};

/// The simulated time: every event counts one second.
fn at(event: usize) -> Timestamp {
    Timestamp::from_second(i64::try_from(event).expect("few events")).expect("in range")
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    kind: FileKind,
    mode: Mode,
    foreign: bool,
}

/// What a service or container read when it started.
type Snapshot = BTreeMap<HostPath, Digest>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    /// The text systemd has read; `None` until it was loaded.
    loaded: Option<String>,
    /// The drop-ins systemd has read.
    loaded_drop_ins: Snapshot,
    active: bool,
    enabled: bool,
    invocation: Option<String>,
    began: usize,
    started: Snapshot,
    reloaded: Snapshot,
    starts: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    id: String,
    mark: Option<ContainerMark>,
    running: bool,
    /// The inode each file had that is mounted itself.
    mounted: BTreeMap<HostPath, usize>,
    /// What it read in mounted folders when it started.
    read: Snapshot,
    began: usize,
    /// The networks it is attached to, each by its id.
    attached: BTreeMap<NetworkName, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    id: String,
    mark: Option<ContainerMark>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that is away or not")]
pub(crate) struct World {
    files: BTreeMap<HostPath, File>,
    inodes: BTreeMap<HostPath, usize>,
    units: BTreeMap<UnitName, Unit>,
    containers: BTreeMap<ContainerName, Container>,
    networks: BTreeMap<NetworkName, Network>,
    counter: usize,
    /// What was fetched.
    store: BTreeSet<Digest>,
    pub(crate) bus_away: bool,
    pub(crate) engine_away: bool,
    pub(crate) alice_away: bool,
    manager: Manages,
}

/// Whether the user's manager runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Manages {
    /// The user does not linger.
    #[default]
    Never,
    /// The user lingers, and somebody stopped it.
    NotNow,
    Now,
}

/// When the agent is killed.
#[derive(Clone, Copy)]
pub(crate) enum Kill {
    Never,
    /// After this many instants; each change and each save is one.
    After(usize),
}

struct Killed;

struct Clock(Option<usize>);

impl Clock {
    fn tick(&mut self) -> Result<(), Killed> {
        match &mut self.0 {
            None => Ok(()),
            Some(0) => Err(Killed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl World {
    /// A host on which others have put things already, some under names that will be wanted.
    pub(crate) fn with_bystanders(bits: u8) -> World {
        let mut world = World::default();
        for index in (0..3).filter(|index| bits & (1 << index) != 0) {
            let content = format!("somebody's {index}");
            let kind = FileKind::Regular { digest: Digest::of(content.as_bytes()), content: content.as_bytes().into() };
            world.put(&strategy::file_path(index), kind, Mode::from_bits(0o644), true);
        }
        if bits & 8 != 0 {
            let container = Container {
                id: "x".to_owned(),
                mark: None,
                running: true,
                mounted: BTreeMap::new(),
                read: Snapshot::new(),
                began: 0,
                attached: BTreeMap::new(),
            };
            world.containers.insert(strategy::container_name(0), container);
        }
        if bits & 32 != 0 {
            let network = Network { id: "y".to_owned(), mark: None };
            world.networks.insert(strategy::network_name(0), network);
        }
        let host = Unit { loaded: Some(strategy::HOST_TEXT.to_owned()), ..Unit::default() };
        world.units.insert(strategy::host_unit_name(), host);
        if bits & 16 != 0 {
            world.start(&strategy::host_unit_name());
        }
        world
    }

    pub(crate) fn foreign_names(&self, bits: u8) -> BTreeSet<String> {
        World::with_bystanders(bits).foreign().into_keys().collect()
    }

    /// Everything of others, as text by name.
    pub(crate) fn foreign(&self) -> BTreeMap<String, String> {
        let files = self.files.iter().filter(|(_, file)| file.foreign);
        let containers = self.containers.iter().filter(|(_, container)| container.mark.is_none());
        let networks = self.networks.iter().filter(|(_, network)| network.mark.is_none());
        files
            .map(|(path, file)| (path.to_string(), format!("{:?} {}", file.kind, file.mode)))
            .chain(containers.map(|(name, container)| (name.to_string(), container.id.clone())))
            .chain(networks.map(|(name, network)| (name.to_string(), network.id.clone())))
            .collect()
    }

    pub(crate) fn foreign_among(&self, names: &BTreeSet<String>) -> BTreeMap<String, String> {
        let mut found = self.foreign();
        found.retain(|name, _| names.contains(name));
        found
    }

    pub(crate) fn starts(&self) -> BTreeMap<UnitName, usize> {
        self.units.iter().map(|(name, unit)| (name.clone(), unit.starts)).collect()
    }

    fn next(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    fn put(&mut self, path: &HostPath, kind: FileKind, mode: Mode, foreign: bool) {
        let inode = self.next();
        self.inodes.insert(path.clone(), inode);
        self.files.insert(path.clone(), File { kind, mode, foreign });
    }

    fn text_on_disk(&self, unit: &UnitName) -> Option<String> {
        if *unit == strategy::host_unit_name() {
            return Some(strategy::HOST_TEXT.to_owned());
        }
        match &self.files.get(&self.text_path(unit))?.kind {
            FileKind::Regular { content, .. } => Some(String::from_utf8_lossy(content).into_owned()),
            _ => None,
        }
    }

    fn content(&self) -> Snapshot {
        self.files.iter().map(|(path, file)| (path.clone(), inputs::fingerprint(&file.kind))).collect()
    }

    /// Everything on disk, with the text and drop-ins that systemd has loaded for this unit in place of those on disk.
    fn snapshot(&self, unit: &UnitName) -> Snapshot {
        let mut seen = self.content();
        if let Some(known) = self.units.get(unit) {
            seen.retain(|path, _| path.drop_in().as_ref() != Some(unit));
            seen.extend(known.loaded_drop_ins.clone());
            if let Some(text) = &known.loaded {
                seen.insert(self.text_path(unit), Digest::of(text.as_bytes()));
            }
        }
        seen
    }

    /// Where systemd has a unit's text from: a unit file comes before what Podman makes.
    fn text_path(&self, unit: &UnitName) -> HostPath {
        let quadlet = strategy::quadlet_path(unit);
        if self.files.contains_key(&unit.path()) { unit.path() } else { quadlet }
    }

    fn drop_ins_on_disk(&self, unit: &UnitName) -> Snapshot {
        let mut seen = self.content();
        seen.retain(|path, _| path.drop_in().as_ref() == Some(unit));
        seen
    }

    fn start(&mut self, name: &UnitName) {
        assert!(self.can_start(name), "nobody is there to start {name}");
        let (text, drop_ins) = (self.text_on_disk(name), self.drop_ins_on_disk(name));
        let unit = self.units.entry(name.clone()).or_default();
        if unit.loaded.is_none() {
            unit.loaded = text;
            unit.loaded_drop_ins = drop_ins;
        }
        let once = unit.loaded.as_deref().is_some_and(inputs::runs_to_its_end);
        let snapshot = self.snapshot(name);
        let began = self.next();
        let unit = self.units.entry(name.clone()).or_default();
        unit.active = !once;
        unit.invocation = Some(format!("run{began}"));
        unit.began = began;
        unit.started = snapshot.clone();
        unit.reloaded = snapshot;
        unit.starts += 1;
    }

    /// Says whether the manager of a unit is there.
    fn can_start(&self, name: &UnitName) -> bool {
        name.user().is_none() || self.manager == Manages::Now
    }

    /// Starts the user's manager, which starts what is to run in it with what is there.
    fn start_manager(&mut self, desired: &Desired) {
        if std::mem::replace(&mut self.manager, Manages::Now) == Manages::Now {
            return;
        }
        let runs = |unit: &UnitName| {
            let mut wanted = desired.units().filter(|(_, name, _)| *name == unit);
            wanted.any(|(.., unit)| unit.state == Some(UnitGoal::Running))
        };
        for name in (0..strategy::UNITS).map(strategy::unit_name).filter(|name| name.user().is_some() && runs(name)) {
            if self.text_on_disk(&name).is_some() {
                self.start(&name);
                // Nobody asked for it.
                self.units.entry(name).or_default().starts -= 1;
            }
        }
    }

    fn stop_manager(&mut self) {
        self.manager = self.manager.min(Manages::NotNow);
        for (_, unit) in self.units.iter_mut().filter(|(name, _)| name.user().is_some()) {
            *unit = Unit { starts: unit.starts, ..Unit::default() };
        }
    }

    pub(crate) fn tamper(&mut self, tamper: &Tamper) {
        let stamp = self.next();
        match tamper {
            Tamper::EditFile(index) => self.edit(&strategy::file_path(*index), stamp),
            Tamper::EditUnitText(index) => self.edit(&self.text_path(&strategy::unit_name(*index)), stamp),
            Tamper::EditDropIn(index) => self.edit(&strategy::drop_in_path(*index), stamp),
            Tamper::DeleteFile(index) => {
                let path = strategy::file_path(*index);
                if self.files.get(&path).is_some_and(|file| !file.foreign) {
                    self.files.remove(&path);
                }
            }
            Tamper::Chmod(index) => {
                if let Some(file) = self.files.get_mut(&strategy::file_path(*index)).filter(|file| !file.foreign) {
                    file.mode = Mode::from_bits(0o666);
                }
            }
            Tamper::Stop(index) => {
                if let Some(unit) = self.units.get_mut(&strategy::unit_name(*index)) {
                    unit.active = false;
                }
            }
            Tamper::Restart(index) => {
                let name = strategy::unit_name(*index);
                if self.units.get(&name).is_some_and(|unit| unit.active) {
                    self.reload_systemd(name.user());
                    self.start(&name);
                }
            }
            Tamper::Activate(index) => {
                let name = strategy::unit_name(*index);
                if self.can_start(&name)
                    && self.text_on_disk(&name).is_some()
                    && !self.units.get(&name).is_some_and(|unit| unit.active)
                {
                    self.start(&name);
                }
            }
            Tamper::Disable(index) => {
                if let Some(unit) = self.units.get_mut(&strategy::unit_name(*index)) {
                    unit.enabled = false;
                }
            }
            Tamper::StopManager => self.stop_manager(),
            Tamper::StopContainer(index) => {
                if let Some(container) = self.containers.get_mut(&strategy::container_name(*index)) {
                    container.running = false;
                }
            }
            Tamper::RestartContainer(index) => {
                let (inodes, content, began) = (self.inodes.clone(), self.content(), self.next());
                let name = strategy::container_name(*index);
                if let Some(container) = self.containers.get_mut(&name).filter(|it| it.mark.is_some() && it.running) {
                    container
                        .mounted
                        .iter_mut()
                        .for_each(|(path, inode)| *inode = inodes.get(path).copied().unwrap_or(0));
                    container.read = content;
                    container.began = began;
                }
            }
            Tamper::RemoveContainer(index) => {
                let name = strategy::container_name(*index);
                if self.containers.get(&name).is_some_and(|container| container.mark.is_some()) {
                    self.containers.remove(&name);
                }
            }
        }
    }

    /// Somebody edits a regular file of ours; every edit differs from every other content.
    fn edit(&mut self, path: &HostPath, stamp: usize) {
        let Some(file) = self.files.get(path).filter(|file| !file.foreign) else { return };
        let before = match &file.kind {
            FileKind::Regular { content, .. } => Some(String::from_utf8_lossy(content).into_owned()),
            FileKind::Artifact { .. } => Some(String::new()),
            FileKind::Symlink { .. } | FileKind::Directory | FileKind::Archive { .. } => None,
        };
        if let Some(before) = before {
            let text = format!("{before}# edited {stamp}\n");
            let mode = file.mode;
            let kind = FileKind::Regular { digest: Digest::of(text.as_bytes()), content: text.as_bytes().into() };
            self.put(path, kind, mode, false);
        }
    }

    fn reload(&mut self, memory: &mut Memory, user: Option<&User>) {
        self.reload_systemd(user);
        journal::reloaded(memory, user);
    }

    fn reload_systemd(&mut self, user: Option<&User>) {
        assert!(user.is_none() || self.manager == Manages::Now, "nobody is there to reload");
        let names: Vec<UnitName> = self.units.keys().filter(|name| name.user() == user).cloned().collect();
        for name in names {
            let (text, drop_ins) = (self.text_on_disk(&name), self.drop_ins_on_disk(&name));
            if let Some(unit) = self.units.get_mut(&name) {
                unit.loaded = text;
                unit.loaded_drop_ins = drop_ins;
            }
        }
    }

    pub(crate) fn observe(&self, desired: &Desired, memory: &Memory) -> Observed {
        let mut observed = Observed::default();
        let owned = memory.owned.keys().filter_map(|id| match id {
            spec::id::ResourceId::File(path) => Some(path),
            _ => None,
        });
        let hiding: Vec<HostPath> = desired.units().filter_map(|(_, name, unit)| inputs::hiding(name, unit)).collect();
        for path in desired.files().map(|(_, path, _)| path).chain(owned).chain(&hiding) {
            observed.files.insert(path.clone(), self.file_state(path));
        }
        {
            let name = "root";
            observed.users.insert(name.to_owned(), Some(0));
            observed.groups.insert(name.to_owned(), Some(0));
        }
        observed.has_podman = true;
        observed.artifacts.clone_from(&self.store);
        let away = || "away".to_owned();
        let units = self.units.keys().chain(desired.units().map(|(_, name, _)| name));
        let seen = units.filter(|name| name.user().is_none() || !self.alice_away);
        let states = seen.map(|name| (name.clone(), self.unit_state(name))).collect();
        let state = match self.manager {
            _ if self.alice_away => ManagerState::Away(away()),
            Manages::Now => ManagerState::Up,
            Manages::NotNow | Manages::Never => ManagerState::Down,
        };
        let lingers = self.manager != Manages::Never;
        observed.managers.insert(strategy::alice(), Manager { stranger: None, lingers, state });
        observed.units = if self.bus_away { Reach::Unreachable(away()) } else { Reach::Seen(states) };
        let containers = self.containers.iter().map(|(name, it)| {
            let run = if it.running { ContainerRun::Running } else { ContainerRun::Stopped };
            let started = Some(format!("at {}", it.began));
            let (id, mark) = (it.id.clone(), it.mark.clone());
            (name.clone(), ContainerState { id, run, mark, started, exit_code: None, after: BTreeSet::new() })
        });
        let networks = self.networks.iter().map(|(name, network)| {
            let on_it = self.containers.values().filter(|it| it.running && it.attached.get(name) == Some(&network.id));
            let containers = on_it.map(|it| it.id.clone()).collect();
            let (id, mark, settings) = (network.id.clone(), network.mark.clone(), strategy::network_settings());
            (name.clone(), NetworkState { id, mark, settings, containers })
        });
        let networks = networks.collect();
        observed.containers =
            if self.engine_away { Reach::Unreachable(away()) } else { Reach::Seen(containers.collect()) };
        if plan::networks_in_doubt(desired, &observed, memory) {
            observed.networks = Reach::Seen(networks);
        }
        observed
    }

    fn file_state(&self, path: &HostPath) -> FileState {
        let Some(file) = self.files.get(path) else { return FileState::Absent };
        let access = Access { mode: file.mode, uid: 0, gid: 0 };
        match &file.kind {
            FileKind::Regular { digest, .. } | FileKind::Artifact { digest, .. } => {
                FileState::Regular { digest: *digest, access, modified: at(self.inodes[path]), mark: None }
            }
            FileKind::Symlink { target } => FileState::Symlink { target: target.clone(), access },
            FileKind::Directory | FileKind::Archive { .. } => FileState::Directory { access, empty: true },
        }
    }

    fn unit_state(&self, name: &UnitName) -> UnitState {
        let text = self.text_on_disk(name);
        let known = self.units.get(name).cloned().unwrap_or_default();
        let found = text.is_some() || known.loaded.is_some();
        UnitState {
            load: if found { LoadState::Loaded } else { LoadState::NotFound },
            active: if known.active { ActiveState::Active } else { ActiveState::Inactive },
            sub: String::new(),
            enabled: name.user().is_none().then_some(known.enabled),
            need_reload: known.loaded.is_some()
                && (known.loaded != text || known.loaded_drop_ins != self.drop_ins_on_disk(name)),
            since: known.invocation.is_some().then(|| at(known.began)),
            invocation: known.invocation,
            text: (*name == strategy::host_unit_name()).then(|| strategy::HOST_TEXT.to_owned()),
        }
    }

    /// Plans as the agent does: the invocation is only known of units in doubt, and `*` acknowledges what was held.
    pub(crate) fn plan(&self, desired: &Desired, memory: &Memory, patience: Patience) -> Plan {
        let mut observed = self.observe(desired, memory);
        let doubtful = plan::units_in_doubt(desired, &observed, memory);
        if let Reach::Seen(units) = &mut observed.units {
            units.iter_mut().filter(|(name, _)| !doubtful.contains(*name)).for_each(|(_, unit)| {
                unit.invocation = None;
                unit.since = None;
            });
        }
        let plan = plan::plan(desired, &observed, memory, Timestamp::UNIX_EPOCH, patience);
        match &plan.held {
            Some(held) if desired.acknowledged.contains("*") => {
                let mut desired = desired.clone();
                desired.acknowledged.insert(held.digest.clone());
                plan::plan(&desired, &observed, memory, Timestamp::UNIX_EPOCH, patience)
            }
            _ => plan,
        }
    }

    /// One pass of the agent, saving its memory where the agent does.
    pub(crate) fn pass(&mut self, desired: &Desired, disk: &mut Memory, kill: Kill) {
        let mut clock = Clock(match kill {
            Kill::Never => None,
            Kill::After(instants) => Some(instants),
        });
        let plan = self.plan(desired, disk, Patience::Now);
        // A kill is the end of the pass; what it leaves behind is the point.
        let (Ok(()) | Err(Killed)) = self.carry_out(desired, &plan, disk, &mut clock);
    }

    fn carry_out(
        &mut self,
        desired: &Desired,
        plan: &Plan,
        disk: &mut Memory,
        clock: &mut Clock,
    ) -> Result<(), Killed> {
        let mut memory = disk.clone();
        journal::begin(&mut memory, plan, desired);
        clock.tick()?;
        *disk = memory.clone();
        for step in plan.steps.iter().filter(|step| step.action.phase() < Phase::Provide) {
            clock.tick()?;
            self.change(desired, &mut memory, step.app.as_ref(), &step.action);
        }
        let begun = plan.steps.iter().filter_map(|step| match &step.action {
            Action::RunUnit { unit, verb: Verb::Start | Verb::Restart, with, .. } => {
                let was = self.units.get(unit).and_then(|unit| unit.invocation.clone());
                Some((unit.clone(), *with, was))
            }
            _ => None,
        });
        journal::beginning(&mut memory, begun);
        clock.tick()?;
        *disk = memory.clone();
        for step in plan.phase(Phase::Provide) {
            clock.tick()?;
            self.change(desired, &mut memory, step.app.as_ref(), &step.action);
        }
        for step in plan.phase(Phase::Ensure) {
            clock.tick()?;
            match &step.action {
                Action::ReplaceContainer(name, _) => drop(self.containers.remove(name)),
                Action::AdoptContainer(name, id) => {
                    self.note(&mut memory, step.app.as_ref(), name, id);
                    *disk = memory.clone();
                    clock.tick()?;
                    self.set_aside(name, id);
                }
                _ => {}
            }
            if let Action::ReplaceContainer(..) | Action::AdoptContainer(..) = &step.action {
                clock.tick()?;
            }
            self.change(desired, &mut memory, step.app.as_ref(), &step.action);
            if let (true, Some(spec::id::ResourceId::Container(name))) =
                (plan.starts_astray(step), step.action.resource())
            {
                journal::ran(&mut memory, &name, None);
            }
        }
        journal::settle(&mut memory, desired, plan, &BTreeSet::new(), Timestamp::UNIX_EPOCH);
        for (app, wanted) in &desired.apps {
            let untouched = desired.held_back.get(app).is_some_and(|held| held.is_untouched);
            let bad = memory.apps.get(app).and_then(|known| known.bad.clone());
            if untouched || plan.is_paused(app) {
                continue;
            }
            let bad = bad.filter(|_| desired.held_back.contains_key(app));
            memory.apps.insert(app.clone(), AppMemory { bad, ..settled(wanted) });
        }
        journal::forget_adopted(&mut memory);
        clock.tick()?;
        *disk = memory;
        Ok(())
    }

    fn change(&mut self, desired: &Desired, memory: &mut Memory, app: Option<&AppName>, action: &Action) {
        match (action, app) {
            (Action::PullImage(_) | Action::PullForUnit(..), _) => {}
            (Action::FetchArtifact(origin), _) => {
                self.store.insert(origin.sha256);
            }
            (Action::ReloadSystemd, _) => self.reload(memory, None),
            (Action::ReloadManager(user), _) => self.reload(memory, Some(user)),
            (Action::Linger(_) | Action::StartManager(_), _) => self.start_manager(desired),
            (Action::RetireUnit(unit), _) => {
                if let Some(known) = self.units.get_mut(unit) {
                    known.active = false;
                }
                journal::retired(memory, unit);
            }
            (Action::DisableUnit(unit), _) => self.units.entry(unit.clone()).or_default().enabled = false,
            (Action::EnableUnit(unit), _) => self.units.entry(unit.clone()).or_default().enabled = true,
            (Action::RemoveContainer(name, id), _) => {
                self.containers.retain(|known, container| known != name || container.id != *id);
                if desired.containers().any(|(_, wanted, _)| wanted == name) {
                    journal::vacated(memory, app.expect("a container has an application"), name);
                } else {
                    journal::removed(memory, &spec::id::ResourceId::Container(name.clone()));
                }
            }
            (Action::RemoveNetwork(name, id), _) => {
                let on_it = |it: &Container| it.running && it.attached.get(name) == Some(id);
                assert!(!self.containers.values().any(on_it), "an engine would not remove {name}");
                self.networks.retain(|known, network| known != name || network.id != *id);
                if desired.networks().all(|(_, wanted, _)| wanted != name) {
                    journal::removed(memory, &spec::id::ResourceId::Network(name.clone()));
                }
            }
            (Action::CreateNetwork(name), Some(app)) => {
                let mark = Some(ContainerMark { app: app.clone(), digest: desired.apps[app].networks[name].digest });
                let before = self.networks.insert(name.clone(), Network { id: format!("net{}", self.counter), mark });
                assert_eq!(before, None, "an engine would not create {name} twice");
                self.counter += 1;
                journal::provided(memory, app, name);
            }
            (Action::CreateVolume(name), _) => panic!("nobody wants volume {name}"),
            (Action::RemoveFile(path, _) | Action::RemoveDirectory(path), _) => {
                self.files.remove(path);
                journal::removed(memory, &spec::id::ResourceId::File(path.clone()));
            }
            (Action::WriteFile(path, _), Some(app)) => {
                let file = desired.file(path).expect("a planned write is wanted");
                if let FileKind::Artifact { digest, .. } = &file.kind {
                    assert!(self.store.contains(digest), "{path} is written before it was fetched");
                }
                self.put(path, file.kind.clone(), file.mode, false);
                journal::wrote(memory, app, path, &file.kind, &[]);
            }
            (Action::SetAccess(path, _), _) => {
                let mode = desired.file(path).expect("planned access is wanted").mode;
                self.files.get_mut(path).expect("planned access is of a file").mode = mode;
            }
            (Action::RunUnit { unit, verb, with, once, .. }, _) => self.run(memory, unit, *verb, *with, *once),
            (
                Action::CreateContainer(name) | Action::ReplaceContainer(name, _) | Action::AdoptContainer(name, _),
                Some(app),
            ) => {
                self.create(desired, memory, app, name);
                journal::created(memory, app, name);
            }
            (Action::StartContainer(name, _), _) => {
                let (inodes, content, began) = (self.inodes.clone(), self.content(), self.next());
                let container = self.containers.get_mut(name).expect("a planned start is of a container");
                container.running = true;
                container.mounted.iter_mut().for_each(|(path, inode)| *inode = inodes.get(path).copied().unwrap_or(0));
                container.read = content;
                container.began = began;
                journal::ran(memory, name, Some(format!("at {began}")));
            }
            (action, None) => panic!("{action:?} belongs to no application"),
        }
    }

    fn note(&self, memory: &mut Memory, app: Option<&AppName>, name: &ContainerName, id: &str) {
        let app = app.expect("a container is wanted by an application").clone();
        let running = self.containers[name].running;
        let theirs = Adopted { app, id: id.to_owned(), running, restart: ("always".to_owned(), 0), back: None };
        journal::adopting(memory, name, theirs);
    }

    /// Somebody's container is kept under another name.
    fn set_aside(&mut self, name: &ContainerName, id: &str) {
        let theirs = self.containers.remove(name).expect("a planned adoption is of a container");
        assert!(theirs.mark.is_none() && theirs.id == id, "{name} is ours");
        let kept = ContainerName::parse(&format!("{name}.before")).expect("a container");
        assert_eq!(self.containers.insert(kept, Container { running: false, ..theirs }), None);
    }

    fn run(&mut self, memory: &mut Memory, unit: &UnitName, verb: Verb, with: spec::memory::Inputs, once: bool) {
        match verb {
            Verb::Start if self.units.get(unit).is_some_and(|unit| unit.active) => {}
            Verb::Start | Verb::Restart => self.start(unit),
            Verb::Reload => {
                let snapshot = self.snapshot(unit);
                self.units.entry(unit.clone()).or_default().reloaded = snapshot;
            }
            Verb::Stop => {
                self.units.entry(unit.clone()).or_default().active = false;
                return journal::stopped(memory, unit);
            }
        }
        let invocation = self.units.get(unit).and_then(|unit| unit.invocation.clone()).filter(|_| !once);
        journal::started(memory, unit, with, invocation);
    }

    fn create(&mut self, desired: &Desired, memory: &mut Memory, app: &AppName, name: &ContainerName) {
        let wanted = desired.apps[app].containers[name].clone();
        let id = format!("id{}", self.next());
        let itself =
            |path: &&HostPath| wanted.settings.mounts.iter().any(|mount| mount.host_path() == Some(path.as_str()));
        let inode = |path: &HostPath| (path.clone(), self.inodes.get(path).copied().unwrap_or(0));
        let mounted = wanted.inputs.iter().filter(itself).map(inode).collect();
        let (read, began) = (self.content(), self.next());
        journal::ran(memory, name, Some(format!("at {began}")));
        let mark = Some(ContainerMark { app: app.clone(), digest: wanted.digest });
        let attached = wanted.networks().map(|name| {
            let network = self.networks.get(name).expect("an engine would not attach to what is not there");
            (name.clone(), network.id.clone())
        });
        let attached = attached.collect();
        let container = Container { id, mark, running: true, mounted, read, began, attached };
        let before = self.containers.insert(name.clone(), container);
        assert!(before.is_none_or(|before| before.mark.is_some()), "a foreign container was replaced");
    }

    /// Names the units that run with a drop-in which is gone.
    fn with_what_is_gone(&self, desired: &Desired, plan: &Plan) -> Vec<String> {
        let (excused, mut stale) = (excused(plan), Vec::new());
        for (name, is) in self.units.iter().filter(|(_, is)| is.active && is.starts > 0) {
            // One that nobody wants any more goes, and until a person says so it stays what it is.
            let goes = plan.held.is_some() && !desired.units().any(|(_, wanted, _)| wanted == name);
            if excused.contains(&spec::id::ResourceId::Unit(name.clone()).to_string()) || goes {
                continue;
            }
            let there = self.drop_ins_on_disk(name);
            let mut read = is.started.keys().filter(|path| path.drop_in().as_ref() == Some(name));
            if let Some(gone) = read.find(|path| !there.contains_key(*path)) {
                stale.push(format!("{name} runs with {gone}, which is gone"));
            }
        }
        stale
    }

    /// Names everything that runs with something else than what is wanted, or does not run; empty when converged.
    /// What the plan itself calls a conflict, or unknown, is left out.
    pub(crate) fn stale(&self, desired: &Desired, plan: &Plan) -> Vec<String> {
        let managed = inputs::managed(desired);
        let excused = excused(plan);
        let mut stale = Vec::new();
        let untouched = |app| desired.held_back.get(app).is_some_and(|held| held.is_untouched);
        for (_, name, unit) in desired.units().filter(|(app, ..)| !untouched(app)) {
            let id = spec::id::ResourceId::Unit(name.clone()).to_string();
            let text = matches!(unit.origin, UnitOrigin::Host).then_some(strategy::HOST_TEXT);
            let reads = inputs::of_unit(name, unit, text, &managed);
            let is = self.units.get(name).cloned().unwrap_or_default();
            let once = self.text_on_disk(name).is_some_and(|text| inputs::runs_to_its_end(&text));
            let should_run = unit.state == Some(UnitGoal::Running);
            // Its text goes, and a person has yet to say so: until then it stays what it is.
            let goes = unit.origin == UnitOrigin::Host && self.files.contains_key(&self.text_path(name));
            if excused.contains(&id) || (goes && plan.held.is_some()) {
                continue;
            }
            if should_run && !is.active && !once {
                stale.push(format!("{name} does not run"));
            }
            if unit.state == Some(UnitGoal::Stopped) && is.active {
                stale.push(format!("{name} runs"));
            }
            if unit.enabled.is_some_and(|enabled| enabled != is.enabled) {
                stale.push(format!("{name} enabled: {}", is.enabled));
            }
            let reads_are = |paths: &BTreeSet<HostPath>, seen: &Snapshot| {
                paths.iter().all(|path| {
                    managed.get(path).is_none_or(|file| seen.get(path) == Some(&inputs::fingerprint(&file.kind)))
                })
            };
            // A host's unit that ran before was started with whatever was there; it is restarted when that changes.
            let is_ours = is.starts > 0 || name.user().is_some();
            if is.active && is_ours && !reads_are(&reads.restart, &is.started) {
                stale.push(format!("{name} was started with something else"));
            }
            if should_run && is.active && !reads_are(&reads.reload, &is.reloaded) {
                stale.push(format!("{name} has not reloaded"));
            }
        }
        stale.extend(self.with_what_is_gone(desired, plan));
        for (_, name, wanted) in desired.containers().filter(|(app, ..)| !untouched(app)) {
            let id = spec::id::ResourceId::Container(name.clone()).to_string();
            if excused.contains(&id) {
                continue;
            }
            match self.containers.get(name) {
                Some(is) if is.running && is.mark.as_ref().is_some_and(|mark| mark.digest == wanted.digest) => {
                    let mut mounted = is.mounted.iter().filter(|(path, _)| managed.contains_key(*path));
                    let fresh = mounted.all(|(path, inode)| self.inodes.get(path) == Some(inode));
                    let current = |path: &HostPath| managed.get(path).map(|file| inputs::fingerprint(&file.kind));
                    let attached = |name| self.networks.get(name).map(|network| &network.id) == is.attached.get(name);
                    if !wanted.networks().all(attached) {
                        stale.push(format!("{name} is attached to a network that is gone"));
                    }
                    if !fresh {
                        stale.push(format!("{name} mounts a file that was replaced"));
                    }
                    // What a release of before mounts may be managed no longer.
                    let mut inputs = wanted.inputs.iter().filter(|path| managed.contains_key(*path));
                    if inputs.any(|path| is.read.get(path).copied() != current(path)) {
                        stale.push(format!("{name} was started with something else"));
                    }
                }
                _ => stale.push(format!("{name} is not as wanted")),
            }
        }
        for (_, name, wanted) in desired.networks().filter(|(app, ..)| !untouched(app)) {
            let id = spec::id::ResourceId::Network(name.clone()).to_string();
            let is = self.networks.get(name).and_then(|network| network.mark.as_ref()).map(|mark| mark.digest);
            if !excused.contains(&id) && is != Some(wanted.digest) {
                stale.push(format!("network {name} is not as wanted"));
            }
        }
        stale
    }
}

impl World {
    /// What there is of what is remembered of some applications.
    pub(crate) fn of(
        &self,
        memory: &Memory,
        matters: impl Fn(&AppName) -> bool,
    ) -> BTreeMap<spec::id::ResourceId, String> {
        let owned = memory.owned.iter().filter(|(_, owned)| matters(&owned.app)).map(|(id, _)| id.clone());
        owned.map(|id| (id.clone(), self.look(&id))).collect()
    }

    /// Says whether something is there; `None` for what is not looked at here.
    pub(crate) fn has(&self, id: &spec::id::ResourceId) -> Option<bool> {
        match id {
            spec::id::ResourceId::File(path) => Some(self.files.contains_key(path)),
            spec::id::ResourceId::Container(name) => Some(self.containers.contains_key(name)),
            spec::id::ResourceId::Network(name) => Some(self.networks.contains_key(name)),
            spec::id::ResourceId::Unit(_) | spec::id::ResourceId::Volume(_) => None,
        }
    }

    /// Everything that the agent could change of something.
    pub(crate) fn look(&self, id: &spec::id::ResourceId) -> String {
        match id {
            spec::id::ResourceId::File(path) => {
                format!("{:?} {:?}", self.files.get(path).map(|file| (&file.kind, file.mode)), self.inodes.get(path))
            }
            spec::id::ResourceId::Container(name) => {
                format!("{:?}", self.containers.get(name).map(|it| (&it.id, it.running, it.began)))
            }
            spec::id::ResourceId::Network(name) => format!("{:?}", self.networks.get(name).map(|it| &it.id)),
            spec::id::ResourceId::Unit(_) | spec::id::ResourceId::Volume(_) => String::new(),
        }
    }
}

/// Remembers that the change to a commit has begun, as the agent does before the first step of it.
pub(crate) fn begin(memory: &mut Memory, wanted: &Desired) {
    for (app, wanted) in &wanted.apps {
        if memory.apps.get(app).is_none_or(|known| known.digest != wanted.digest) {
            let begun = AppMemory { state: AppState::Applying, reached: false, ..settled(wanted) };
            memory.apps.insert(app.clone(), begun);
        }
    }
}

/// The good releases of what a host was converged to.
pub(crate) fn releases(good: &Desired) -> BTreeMap<AppName, Release> {
    let release = |app: &DesiredApp| Release {
        commit: None,
        app: app.clone(),
        reads: course::reads(app, good),
        published: BTreeMap::new(),
        ran: BTreeMap::new(),
    };
    good.apps.iter().map(|(name, app)| (name.clone(), release(app))).collect()
}

/// Says of every release that its quadlets' services ran the first image.
pub(crate) fn with_images(mut releases: BTreeMap<AppName, Release>) -> BTreeMap<AppName, Release> {
    for release in releases.values_mut() {
        let ran = || Ran { id: "first".to_owned(), digest: None };
        release.ran = release.app.units.keys().map(|name| (name.clone(), ran())).collect();
    }
    releases
}

/// What the name that all quadlets say leads to in each Podman: the first image, or another one.
pub(crate) fn images(moved: bool) -> pins::Found {
    let now = if moved { "second" } else { "first" };
    let of = |user: Option<User>| {
        let found = [("r.lan/web:1", now), ("first", "first")];
        found.map(|(name, id)| ((user.clone(), name.to_owned()), Some(id.to_owned())))
    };
    of(None).into_iter().chain(of(Some(strategy::alice()))).collect()
}

/// Remembers that the releases of some applications failed, of those that can go back.
pub(crate) fn condemn(memory: &mut Memory, wanted: &Desired, good: &BTreeMap<AppName, Release>, failed: u8) {
    for (index, (name, app)) in wanted.apps.iter().enumerate() {
        let is_failed = failed & (1 << index) != 0;
        if !is_failed || good.get(name).is_none_or(|good| good.app.digest == app.digest) {
            continue;
        }
        let bad = Bad { digest: app.digest, commit: None, text: String::new(), since: at(0), stuck: None };
        let known = memory.apps.entry(name.clone()).or_insert_with(|| settled(app));
        (known.state, known.reached, known.digest, known.bad) = (AppState::Failed, false, app.digest, Some(bad));
    }
}

/// Remembers of some of them that they could not go back.
pub(crate) fn give_up(memory: &mut Memory, stuck: u8) {
    let failed = memory.apps.values_mut().filter_map(|known| known.bad.as_mut()).enumerate();
    failed.filter(|(index, _)| stuck & (1 << index) != 0).for_each(|(_, bad)| bad.stuck = Some("stuck".to_owned()));
}

fn settled(wanted: &DesiredApp) -> AppMemory {
    AppMemory {
        state: AppState::Converged,
        since: Timestamp::UNIX_EPOCH,
        reached: true,
        digest: wanted.digest,
        commit: None,
        from: None,
        changes: 0,
        repairs: 0,
        going: false,
        baking: None,
        next_repair: None,
        images: BTreeMap::new(),
        failure: None,
        needs: BTreeSet::new(),
        bad: None,
        unhealthy: None,
    }
}

impl World {
    /// Says whether a drop-in is there that holds a quadlet to an image.
    pub(crate) fn holds_images(&self) -> bool {
        self.files.keys().any(HostPath::is_pin)
    }

    /// Compares everything of the applications that are held back with what it was when they were good.
    pub(crate) fn is_back(&self, good: &World, held: &Desired, plan: &Plan) -> Result<(), TestCaseError> {
        let excused = excused(plan);
        for (name, why) in &held.held_back {
            if why.is_untouched {
                continue;
            }
            let app = &held.apps[name];
            for path in app.files.keys().filter(|path| !excused.contains(&format!("file {path}"))) {
                // A link has no mode.
                let of = |world: &World| {
                    world.files.get(path).map(|file| match &file.kind {
                        FileKind::Symlink { .. } => (file.kind.clone(), Mode::from_bits(0)),
                        FileKind::Regular { .. }
                        | FileKind::Artifact { .. }
                        | FileKind::Archive { .. }
                        | FileKind::Directory => (file.kind.clone(), file.mode),
                    })
                };
                prop_assert_eq!(of(self), of(good), "{}", path);
            }
            let said = app.units.iter().filter(|(_, wanted)| wanted.enabled.is_some());
            for (unit, _) in said.filter(|(unit, _)| !excused.contains(&format!("unit {unit}"))) {
                let of = |world: &World| world.units.get(unit).is_some_and(|unit| unit.enabled);
                prop_assert_eq!(of(self), of(good), "{}", unit);
            }
        }
        Ok(())
    }
}

/// What a plan itself says that it cannot make as wanted.
fn excused(plan: &Plan) -> BTreeSet<String> {
    let conflicts = plan.conflicts.iter().map(|conflict| conflict.resource.to_string());
    conflicts.chain(plan.unknown.iter().map(|unknown| unknown.resource.to_string())).collect()
}
