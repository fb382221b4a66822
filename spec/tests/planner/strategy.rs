//! Random desired states over a small universe, so that collisions, moves and removals happen often.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use spec::artifact::Origin;
use spec::container::{Attachment, Mount, MountSource, NetworkSettings, Networking, Settings};
use spec::desired::{
    Desired, DesiredApp, DesiredContainer, DesiredFile, DesiredNetwork, DesiredUnit, DriftPolicy, FileKind, UnitGoal,
    UnitOrigin,
};
use spec::digest::{Digest, Fields};
use spec::id::{AppName, ContainerName, HostName, HostPath, Mode, NetworkName, QUADLET_DIRECTORY, UnitName, User};
use spec::pause::{Pause, Pauses};

pub(crate) const FILES: usize = 6;
pub(crate) const UNITS: usize = 5;
pub(crate) const CONTAINERS: usize = 3;
/// Drop-ins: one for the unit that the host provides, the others for the first units.
pub(crate) const DROP_INS: usize = 3;
/// The unit that is a quadlet of a user's.
const HERS: usize = UNITS - 1;
const NETWORKS: usize = 2;

/// One desired state: for each thing of the universe, the application that wants it and in which version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    files: Vec<Option<FileShape>>,
    units: Vec<Option<UnitShape>>,
    host_unit: Option<UnitShape>,
    containers: Vec<Option<ContainerShape>>,
    drop_ins: Vec<Option<DropInShape>>,
    /// For each network, whose it is and in which version.
    networks: Vec<Option<(u8, u8)>>,
    acknowledge: bool,
    /// The first application only reports its drift.
    reports: bool,
}

#[derive(Clone, Debug)]
struct FileShape {
    app: u8,
    version: u8,
    kind: u8,
    mode: u8,
}

#[derive(Clone, Debug)]
struct UnitShape {
    app: u8,
    version: u8,
    names: BTreeSet<usize>,
    reload_on: Option<usize>,
    state: Option<bool>,
    enabled: Option<bool>,
    once: bool,
    /// Its text is a quadlet, from which Podman makes the service.
    quadlet: bool,
}

#[derive(Clone, Debug)]
struct DropInShape {
    app: u8,
    version: u8,
    names: Option<usize>,
}

#[derive(Clone, Debug)]
struct ContainerShape {
    app: u8,
    version: u8,
    mounts: BTreeSet<usize>,
}

/// What somebody else does to the host between two passes.
#[derive(Clone, Debug)]
pub(crate) enum Tamper {
    EditFile(usize),
    DeleteFile(usize),
    Chmod(usize),
    EditUnitText(usize),
    EditDropIn(usize),
    Stop(usize),
    Restart(usize),
    Activate(usize),
    Disable(usize),
    StopContainer(usize),
    RestartContainer(usize),
    RemoveContainer(usize),
    StopManager,
}

pub(crate) fn tampers() -> impl Strategy<Value = Vec<Tamper>> {
    let one = prop_oneof![
        (0..FILES).prop_map(Tamper::EditFile),
        (0..FILES).prop_map(Tamper::DeleteFile),
        (0..FILES).prop_map(Tamper::Chmod),
        (0..UNITS).prop_map(Tamper::EditUnitText),
        (0..DROP_INS).prop_map(Tamper::EditDropIn),
        (0..UNITS).prop_map(Tamper::Stop),
        (0..UNITS).prop_map(Tamper::Restart),
        (0..UNITS).prop_map(Tamper::Activate),
        (0..UNITS).prop_map(Tamper::Disable),
        (0..CONTAINERS).prop_map(Tamper::StopContainer),
        (0..CONTAINERS).prop_map(Tamper::RestartContainer),
        (0..CONTAINERS).prop_map(Tamper::RemoveContainer),
        Just(Tamper::StopManager),
    ];
    prop::collection::vec(one, 0..4)
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let file = prop::option::weighted(
        0.7,
        (0..3_u8, 0..3_u8, prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2), 3 => Just(3)], 0..2_u8)
            .prop_map(|(app, version, kind, mode)| FileShape { app, version, kind, mode }),
    );
    let container = prop::option::weighted(
        0.6,
        (0..3_u8, 0..3_u8, prop::collection::btree_set(0..FILES, 0..2))
            .prop_map(|(app, version, mounts)| ContainerShape { app, version, mounts }),
    );
    (
        prop::collection::vec(file, FILES),
        prop::collection::vec(prop::option::weighted(0.7, unit()), UNITS),
        prop::option::weighted(0.5, unit()),
        prop::collection::vec(container, CONTAINERS),
        prop::collection::vec(prop::option::weighted(0.3, drop_in()), DROP_INS),
        prop::collection::vec(prop::option::weighted(0.5, (0..3_u8, 0..2_u8)), NETWORKS),
        any::<bool>(),
    )
        .prop_map(|(files, units, host_unit, containers, drop_ins, networks, acknowledge)| Shape {
            files,
            units,
            host_unit,
            containers,
            drop_ins,
            networks,
            acknowledge,
            reports: false,
        })
}

fn unit() -> impl Strategy<Value = UnitShape> {
    (
        0..3_u8,
        0..2_u8,
        prop::collection::btree_set(0..FILES, 0..3),
        prop::option::weighted(0.2, 0..FILES),
        prop_oneof![6 => Just(Some(true)), 1 => Just(Some(false)), 2 => Just(None)],
        prop_oneof![3 => Just(Some(true)), 1 => Just(Some(false)), 2 => Just(None)],
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(app, version, names, reload_on, state, enabled, once, quadlet)| UnitShape {
            app,
            version,
            names,
            reload_on,
            state,
            enabled: enabled.filter(|_| !quadlet),
            once,
            quadlet,
        })
}

fn drop_in() -> impl Strategy<Value = DropInShape> {
    (0..3_u8, 0..2_u8, prop::option::of(0..FILES)).prop_map(|(app, version, names)| DropInShape { app, version, names })
}

/// The unit that a drop-in is for.
pub(crate) fn added_to(index: usize) -> UnitName {
    if index == 0 { host_unit_name() } else { unit_name(index - 1) }
}

pub(crate) fn drop_in_path(index: usize) -> HostPath {
    HostPath::parse(&format!("{}/x.conf", added_to(index).drop_in_folder())).expect("a path")
}

pub(crate) fn file_path(index: usize) -> HostPath {
    HostPath::parse(&format!("/etc/f{index}")).expect("a path")
}

pub(crate) fn unit_name(index: usize) -> UnitName {
    let name = UnitName::parse(&format!("u{index}.service")).expect("a unit");
    if index == HERS { name.of(Some(&alice())) } else { name }
}

pub(crate) fn alice() -> User {
    User::new("alice", 1500).expect("a user")
}

/// Where the quadlet is that a service is made of.
pub(crate) fn quadlet_path(unit: &UnitName) -> HostPath {
    let directory = unit.user().map_or_else(|| QUADLET_DIRECTORY.to_owned(), User::quadlet_directory);
    HostPath::parse(&format!("{directory}/{}.container", unit.stem())).expect("a path")
}

pub(crate) fn host_unit_name() -> UnitName {
    UnitName::parse("host.service").expect("a unit")
}

pub(crate) fn container_name(index: usize) -> ContainerName {
    ContainerName::parse(&format!("c{index}")).expect("a container")
}

/// The text of the unit that the host provides.
pub(crate) const HOST_TEXT: &str = "[Service]\nExecStart=/bin/host /etc/f0 /etc/f1\n";

/// As of a compose project.
pub(crate) fn network_settings() -> NetworkSettings {
    let labels = ["project", "network"].map(|label| (format!("com.docker.compose.{label}"), "n".to_owned()));
    NetworkSettings { labels: BTreeMap::from(labels), ..NetworkSettings::default() }
}

pub(crate) fn network_name(index: usize) -> NetworkName {
    NetworkName::parse(&format!("n{index}")).expect("a network")
}

/// Pauses everything, or the applications with these numbers.
pub(crate) fn pauses(apps: u8, total: bool) -> Pauses {
    let (since, until) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
    let pause = Pause { reason: "a person sleeps".to_owned(), since, until };
    let named = (0..3).filter(|index| apps & (1 << index) != 0).map(|index| (app_name(index), pause.clone()));
    Pauses { apps: named.collect(), host: total.then(|| pause.clone()) }
}

/// The applications with these numbers.
pub(crate) fn apps(bits: u8) -> Vec<AppName> {
    (0..3).filter(|index| bits & (1 << index) != 0).map(app_name).collect()
}

fn app_name(index: u8) -> AppName {
    AppName::parse(&format!("app{index}")).expect("an application")
}

impl Shape {
    pub(crate) fn desired(&self) -> Desired {
        self.desired_in_order(0)
    }

    /// The same, but for the first application, which only reports its drift.
    pub(crate) fn reporting(&self) -> Shape {
        Shape { reports: true, ..self.clone() }
    }

    /// The same without drop-ins.
    pub(crate) fn without_drop_ins(&self) -> Shape {
        Shape { drop_ins: Vec::new(), ..self.clone() }
    }

    /// Builds the same desired state, with its parts put in in another order.
    pub(crate) fn desired_in_order(&self, seed: u64) -> Desired {
        let mut apps: BTreeMap<AppName, DesiredApp> = BTreeMap::new();
        let mut order: Vec<usize> = (0..FILES.max(UNITS)).collect();
        let rotation = usize::try_from(seed % 7).expect("small") % order.len();
        order.rotate_left(rotation);
        if seed % 2 == 1 {
            order.reverse();
        }
        for index in order {
            if let Some(Some(file)) = self.files.get(index) {
                app(&mut apps, file.app).files.insert(file_path(index), file.desired(index));
            }
            if let Some(Some(unit)) = self.units.get(index) {
                let mut text = unit.text();
                let name = unit_name(index);
                let path = if unit.quadlet || index == HERS { quadlet_path(&name) } else { name.path() };
                if path.quadlet().is_some() {
                    text.push_str("[Container]\nImage=r.lan/web:1\n");
                }
                let content =
                    FileKind::Regular { content: text.as_bytes().into(), digest: Digest::of(text.as_bytes()) };
                let wanted = app(&mut apps, unit.app);
                wanted.files.insert(path.clone(), root(content, 0o644));
                let origin = UnitOrigin::Application { path, text: text.into() };
                let enabled = unit.enabled.filter(|_| index != HERS);
                wanted.user = name.user().cloned().or(wanted.user.take());
                wanted.units.insert(name, DesiredUnit { enabled, ..unit.desired(origin) });
            }
            if let Some(Some(container)) = self.containers.get(index) {
                let wanted = self.container(container);
                app(&mut apps, container.app).containers.insert(container_name(index), wanted);
                for (name, network) in self.networks_of(container.app) {
                    app(&mut apps, container.app).networks.insert(name, network);
                }
            }
        }
        if let Some(unit) = &self.host_unit {
            let wanted = DesiredUnit { reload_on: BTreeSet::new(), ..unit.desired(UnitOrigin::Host) };
            app(&mut apps, unit.app).units.insert(host_unit_name(), wanted);
        }
        self.add_drop_ins(&mut apps);
        for wanted in apps.values_mut() {
            let mut fields = Fields::default();
            wanted.digest = fields
                .add(
                    "all",
                    format!("{:?}", (&wanted.files, &wanted.units, &wanted.containers, &wanted.networks)).as_bytes(),
                )
                .finish();
        }
        if let (true, Some(first)) = (self.reports, apps.get_mut(&app_name(0))) {
            first.drift = DriftPolicy::Report;
        }
        Desired {
            fleet: "home".to_owned(),
            host: HostName::parse("attic").expect("a host"),
            apps,
            published: BTreeMap::new(),
            acknowledged: BTreeSet::from_iter(self.acknowledge.then(|| "*".to_owned())),
            held_back: BTreeMap::new(),
        }
    }

    /// Puts the drop-ins in, and what they are for where no application has it among its units.
    fn add_drop_ins(&self, apps: &mut BTreeMap<AppName, DesiredApp>) {
        for (index, shape) in self.drop_ins.iter().enumerate() {
            let Some(shape) = shape else { continue };
            let names = shape.names.map(|file| format!("EnvironmentFile={}\n", file_path(file))).unwrap_or_default();
            let text = format!("[Service]\n{names}# {}\n", shape.version);
            let content = FileKind::Regular { content: text.as_bytes().into(), digest: Digest::of(text.as_bytes()) };
            let unit = added_to(index);
            let known = apps.values().any(|app| app.units.contains_key(&unit));
            let wanted = app(apps, shape.app);
            wanted.files.insert(drop_in_path(index), root(content, 0o644));
            if !known {
                wanted.units.insert(unit, DesiredUnit::only_added_to(UnitOrigin::Host));
            }
        }
    }

    /// Returns this shape with a regular file at `index`, and the same with another content of that file.
    pub(crate) fn with_a_changed_file(mut self, index: usize) -> (Shape, Shape) {
        let app = self.files[index].as_ref().map_or(0, |file| file.app);
        self.files[index] = Some(FileShape { app, version: 1, kind: 0, mode: 0 });
        let mut changed = self.clone();
        changed.files[index] = Some(FileShape { app, version: 2, kind: 0, mode: 0 });
        (self, changed)
    }

    pub(crate) fn unit_names_file(&self, unit: &UnitName, file: usize) -> bool {
        let adds = |index: usize| self.drop_ins[index].as_ref().is_some_and(|shape| shape.names == Some(file));
        if (0..self.drop_ins.len()).any(|index| added_to(index) == *unit && adds(index)) {
            return true;
        }
        if *unit == host_unit_name() {
            return file < 2 || self.host_unit.as_ref().is_some_and(|unit| unit.names.contains(&file));
        }
        (0..UNITS).filter(|index| unit_name(*index) == *unit).any(|index| {
            self.units[index].as_ref().is_some_and(|unit| unit.names.contains(&file) || unit.reload_on == Some(file))
        })
    }

    pub(crate) fn running_units_naming(&self, file: usize) -> Vec<UnitName> {
        let named = |index: &usize| {
            self.units[*index].as_ref().is_some_and(|unit| {
                unit.state == Some(true) && (unit.names.contains(&file) || unit.reload_on == Some(file))
            })
        };
        (0..UNITS).filter(named).map(unit_name).collect()
    }

    pub(crate) fn container_mounts(&self, name: &ContainerName, file: usize) -> bool {
        (0..CONTAINERS)
            .filter(|index| container_name(*index) == *name)
            .any(|index| self.containers[index].as_ref().is_some_and(|container| container.mounts.contains(&file)))
    }

    fn networks_of(&self, app: u8) -> BTreeMap<NetworkName, DesiredNetwork> {
        let all = self.networks.iter().enumerate().filter_map(|(index, network)| Some((index, (*network)?)));
        let own = all.filter(|(_, (owner, _))| *owner == app).map(|(index, (_, version))| {
            let network = DesiredNetwork { settings: Some(network_settings()), digest: Digest::of(&[version]) };
            (network_name(index), network)
        });
        own.collect()
    }

    fn container(&self, container: &ContainerShape) -> DesiredContainer {
        let present = |index: &&usize| self.files.get(**index).is_some_and(Option::is_some);
        let mut fields = Fields::default();
        fields.add("version", &[container.version]);
        let mut inputs = BTreeSet::new();
        let mut mounts = Vec::new();
        for index in container.mounts.iter().filter(present) {
            let file = self.files[*index].as_ref().expect("filtered").desired(*index);
            fields.add(file_path(*index).as_str(), spec::inputs::fingerprint(&file.kind).to_string().as_bytes());
            inputs.insert(file_path(*index));
            // Every other file is mounted itself, the rest through their folder.
            let source = if index % 2 == 0 { file_path(*index).to_string() } else { "/etc".to_owned() };
            let source = MountSource::Bind { path: source, create: true, propagation: None, relabel: None };
            mounts.push(Mount { source, target: "/inside".to_owned(), read_only: true });
        }
        let mut networks = BTreeMap::new();
        for (name, network) in self.networks_of(container.app) {
            fields.add(name.as_str(), network.digest.to_string().as_bytes());
            networks.insert(name, Attachment::default());
        }
        let networking = Networking::Networks(networks);
        let image = format!("image:{}", container.version);
        DesiredContainer {
            unopened: None,
            settings: Settings { image, mounts, networking, ..Settings::default() },
            job: false,
            after: BTreeMap::new(),
            joins: BTreeSet::new(),
            digest: fields.finish(),
            inputs,
        }
    }
}

fn app(apps: &mut BTreeMap<AppName, DesiredApp>, index: u8) -> &mut DesiredApp {
    apps.entry(app_name(index)).or_insert_with(|| DesiredApp {
        secrets: BTreeMap::new(),
        digest: Digest::of(b""),
        drift: DriftPolicy::Repair,
        adopt: false,
        policies: BTreeMap::new(),
        user: None,
        files: BTreeMap::new(),
        units: BTreeMap::new(),
        containers: BTreeMap::new(),
        needs: BTreeSet::new(),
        checks: Vec::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
    })
}

fn root(kind: FileKind, mode: u32) -> DesiredFile {
    DesiredFile { kind, mode: Mode::from_bits(mode), owner: "root".to_owned(), group: "root".to_owned() }
}

impl FileShape {
    fn desired(&self, index: usize) -> DesiredFile {
        let kind = match self.kind {
            0 => {
                let content = format!("file {index} version {}", self.version);
                FileKind::Regular { digest: Digest::of(content.as_bytes()), content: content.as_bytes().into() }
            }
            1 => FileKind::Symlink { target: format!("/target/{}", self.version) },
            2 => FileKind::Directory,
            _ => {
                let content = format!("artifact {index} version {}", self.version);
                let digest = Digest::of(content.as_bytes());
                let url = format!("https://ci.example/{content}");
                FileKind::Artifact { digest, origin: Origin { url, sha256: digest, limit: 1, unpack: None }.into() }
            }
        };
        root(kind, if self.mode == 0 { 0o644 } else { 0o600 })
    }
}

impl UnitShape {
    fn text(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|index| file_path(*index).to_string()).collect();
        let kind = if self.once { "oneshot" } else { "simple" };
        format!(
            "[Service]\nType={kind}\nExecStart=/bin/app {}\n# {}\n[Install]\nWantedBy=multi-user.target\n",
            names.join(" "),
            self.version
        )
    }

    fn desired(&self, origin: UnitOrigin) -> DesiredUnit {
        DesiredUnit {
            origin,
            state: self.state.map(|running| if running { UnitGoal::Running } else { UnitGoal::Stopped }),
            enabled: self.enabled,
            restart_on: BTreeSet::new(),
            reload_on: self.reload_on.iter().map(|index| file_path(*index)).collect(),
            ignore: BTreeSet::new(),
        }
    }
}
