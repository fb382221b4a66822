//! From what the repository says to what one host should look like: placement, and the digests that releases go by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::check::{Check, Probe};
use crate::container::{self, Mount, Port, Settings};
use crate::desired::{
    Desired, DesiredApp, DesiredContainer, DesiredFile, DesiredNetwork, DesiredSecret, DesiredUnit, DesiredVolume,
    DriftPolicy, FileKind, Policy, UnitGoal, UnitOrigin,
};
use crate::digest::{Digest, Fields};
use crate::id::{
    AppName, ContainerName, ENDPOINTS_FILE, HostName, HostPath, Mode, NetworkName, ResourceId, SECRETS_DIRECTORY,
    UnitName, VolumeName,
};
use crate::inputs;
use crate::manifest::{self, Address, App, Drift, Fleet, State};

/// The host is not in the repository, so nothing can be said about what it should look like.
///
/// That is an error and never "nothing is wanted": a host that is renamed or left out keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host `{host}` is not in fleet `{fleet}`{}", self.hint())]
pub struct Unplaced {
    /// The host that was asked for.
    pub host: HostName,
    /// The fleet's name.
    pub fleet: String,
    /// The host that was most likely meant.
    pub nearest: Option<HostName>,
    /// Every host of the fleet.
    pub known: Vec<HostName>,
}

impl Unplaced {
    fn hint(&self) -> String {
        const MOST_LISTED: usize = 10;
        if let Some(nearest) = &self.nearest {
            return format!(": did you mean `{nearest}`?");
        }
        let listed: Vec<&str> = self.known.iter().take(MOST_LISTED).map(HostName::as_str).collect();
        let more = self.known.len().saturating_sub(MOST_LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(", which has {}{more}", listed.join(", "))
    }
}

/// Resolves `fleet` for `host`.
///
/// # Errors
/// The host is not in the fleet. A host without applications is fine, and wants nothing.
pub fn resolve(fleet: &Fleet, host: &HostName) -> Result<Desired, Unplaced> {
    if !fleet.hosts.contains_key(host) {
        return Err(Unplaced {
            host: host.clone(),
            fleet: fleet.name.clone(),
            nearest: manifest::nearest_host(fleet, host),
            known: fleet.hosts.keys().cloned().collect(),
        });
    }
    let placed: Vec<(&AppName, &App)> = fleet.placed(host).collect();
    // A container may mount what another application brings, so all files of the host are known first.
    let files: HostFiles<'_> =
        placed.iter().flat_map(|(name, app)| app.files.iter().map(|(path, file)| (path, (*name, file)))).collect();
    let mut added = only_added_to(&placed);
    let names: BTreeSet<&AppName> = placed.iter().map(|(name, _)| *name).collect();
    let published = published(fleet, host);
    let apps = placed.iter().map(|(name, app)| {
        let added = added.remove(*name).unwrap_or_default();
        let mut resolved = resolve_app(fleet, (name, app), added, &names, &files);
        resolved.digest = digest_published(&resolved, &published);
        ((*name).clone(), resolved)
    });
    let apps = apps.collect();
    Ok(Desired {
        fleet: fleet.name.clone(),
        host: host.clone(),
        apps,
        published,
        acknowledged: fleet.acknowledged.keys().cloned().collect(),
        held_back: BTreeMap::new(),
    })
}

/// All files of a host, with the applications that bring them.
type HostFiles<'f> = BTreeMap<&'f HostPath, (&'f AppName, &'f manifest::File)>;

/// Collects what is published on `host`: the endpoints of its environment, where the repository names any.
fn published(fleet: &Fleet, host: &HostName) -> BTreeMap<HostPath, DesiredFile> {
    let environment = fleet.hosts.get(host).and_then(|host| host.environment.clone());
    if fleet.endpoints.values().all(BTreeMap::is_empty) {
        return BTreeMap::new();
    }
    let text = endpoints_file(fleet.endpoints.get(&environment).unwrap_or(&BTreeMap::new()), host);
    let kind = FileKind::Regular { digest: Digest::of(text.as_bytes()), content: text.into_bytes().into() };
    let path = HostPath::parse(ENDPOINTS_FILE).expect("it is a path");
    let (owner, group) = ("root".to_owned(), "root".to_owned());
    BTreeMap::from([(path, DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group })])
}

/// Writes endpoints as an environment file (systemd.exec(5), "EnvironmentFile="). Each name has a suffix, so that no endpoint
/// can take the place of another's part, or of a variable such as `PATH`.
fn endpoints_file(found: &BTreeMap<String, Arc<[Address]>>, host: &HostName) -> String {
    let mut lines = vec!["# The endpoints of this host's environment; written by mainstay.".to_owned()];
    for (name, all) in found {
        let all = Address::nearest_first(all, host);
        let Some(first) = all.first() else { continue };
        let name = name.to_uppercase();
        lines.push(format!("{name}_URL={}", first.url));
        lines.push(format!("{name}_HOST={}", first.name));
        lines.extend(first.port.map(|port| format!("{name}_PORT={port}")));
        lines.push(format!("{name}_ALL={}", all.iter().map(|it| it.url.as_str()).collect::<Vec<_>>().join(",")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Adds what is published to the digest of an application of which a file names it: its units restart with it, so it is another
/// release.
fn digest_published(app: &DesiredApp, published: &BTreeMap<HostPath, DesiredFile>) -> Digest {
    let mut fields = Fields::default();
    fields.add("app", app.digest.to_string().as_bytes());
    let named: Vec<_> = reads_of(app, published).collect();
    for (path, file) in &named {
        fields.add("published", path.as_str().as_bytes());
        add_file(&mut fields, file);
    }
    if named.is_empty() { app.digest } else { fields.finish() }
}

/// Returns what of the published files an application names.
pub fn reads_of<'p>(
    app: &DesiredApp,
    published: &'p BTreeMap<HostPath, DesiredFile>,
) -> impl Iterator<Item = (&'p HostPath, &'p DesiredFile)> {
    let holds = |file: &DesiredFile, path: &[u8]| match &file.kind {
        FileKind::Regular { content, .. } => content.windows(path.len()).any(|window| window == path),
        _ => false,
    };
    let names = move |path: &HostPath| {
        app.files.values().any(|file| holds(file, path.as_str().as_bytes()))
            || app.units.values().any(|unit| unit.restart_on.contains(path) || unit.reload_on.contains(path))
    };
    published.iter().filter(move |(path, _)| names(path))
}

/// Finds the units that drop-ins are for and that no application has in its `units`: the first one with such a drop-in
/// has them restarted. Nothing else is asked of them.
fn only_added_to<'f>(placed: &[(&'f AppName, &'f App)]) -> BTreeMap<&'f AppName, BTreeMap<UnitName, DesiredUnit>> {
    let mut known: BTreeSet<&UnitName> = placed.iter().flat_map(|(_, app)| app.units.keys()).collect();
    let mut added: BTreeMap<&AppName, BTreeMap<UnitName, DesiredUnit>> = BTreeMap::new();
    for (name, app) in placed {
        for unit in app.drop_ins.iter().filter(|unit| known.insert(unit)) {
            let origin = unit.template().and_then(|template| brought(placed, &template)).unwrap_or(UnitOrigin::Host);
            added.entry(name).or_default().insert(unit.clone(), DesiredUnit::only_added_to(origin));
        }
    }
    added
}

/// Finds the text of a template among what the applications bring.
fn brought(placed: &[(&AppName, &App)], template: &UnitName) -> Option<UnitOrigin> {
    let path = template.path();
    let file = placed.iter().find_map(|(_, app)| app.files.get(&path))?;
    let manifest::FileKind::Regular { content, .. } = &file.kind else { return None };
    let text = std::str::from_utf8(content).ok()?;
    Some(UnitOrigin::Application { path, text: text.into() })
}

fn resolve_app(
    fleet: &Fleet,
    (name, app): (&AppName, &App),
    added: BTreeMap<UnitName, DesiredUnit>,
    placed: &BTreeSet<&AppName>,
    host_files: &HostFiles<'_>,
) -> DesiredApp {
    let files = app.files.iter().map(|(path, file)| (path.clone(), resolve_file(name, path, file))).collect();
    let secrets = app.files.iter().filter_map(|(path, file)| resolve_secret(name, path, file)).collect();
    let mut units = added;
    units.extend(app.units.iter().map(|(name, unit)| (name.clone(), resolve_unit(unit))));
    let networks = app.networks.iter().map(|(name, it)| (name.clone(), resolve_network(it))).collect();
    let volumes = app.volumes.iter().map(|(name, it)| (name.clone(), resolve_volume(it))).collect();
    let containers = resolve_containers(app, host_files, &networks, &volumes);
    let drift = drift_policy(app.drift.unwrap_or(fleet.drift));
    // One that is placed elsewhere is no obstacle here.
    let needs = app.needs.keys().filter(|needed| placed.contains(needed)).cloned().collect();
    let mut wanted = DesiredApp {
        digest: Digest::from_bytes([0; 32]),
        drift,
        adopt: app.adopt,
        policies: policies(app, drift),
        user: app.user.clone(),
        files,
        secrets,
        units,
        containers,
        networks,
        volumes,
        needs,
        checks: Vec::new(),
    };
    wanted.checks = app.checks.iter().map(|check| resolve_check(check, &wanted)).collect();
    wanted.digest = digest_app(&wanted);
    wanted
}

/// Says of a check of a container which Podman is asked, where a quadlet of the application makes it.
fn resolve_check(check: &Check, app: &DesiredApp) -> Check {
    let mut check = check.clone();
    if let Probe::Container { container, service } = &mut check.probe
        && !app.containers.contains_key(container)
    {
        *service = inputs::runner(app, container).cloned();
    }
    check
}

/// Collects what single entries say where it differs from the application, whose drift policy is `drift`.
fn policies(app: &App, drift: DriftPolicy) -> BTreeMap<ResourceId, Policy> {
    let said = app.policies.iter().filter(|(_, said)| said.adopt.is_some() || said.drift.is_some());
    let policies = said.map(|(id, said)| {
        let policy = Policy { adopt: said.adopt.unwrap_or(app.adopt), drift: said.drift.map_or(drift, drift_policy) };
        (id.clone(), policy)
    });
    policies.collect()
}

fn drift_policy(drift: Drift) -> DriftPolicy {
    match drift {
        Drift::Repair => DriftPolicy::Repair,
        Drift::Report => DriftPolicy::Report,
    }
}

/// Names where a file is opened to of which something is encrypted.
fn opened(app: &AppName, path: &HostPath) -> HostPath {
    HostPath::parse(&format!("{SECRETS_DIRECTORY}/{app}{path}"))
        .expect("a path of what is encrypted was checked to leave room for this")
}

/// Takes a file up of which something is encrypted, with where it is opened to.
fn resolve_secret(app: &AppName, path: &HostPath, file: &manifest::File) -> Option<(HostPath, DesiredSecret)> {
    let manifest::FileKind::Sealed { sealed, digest } = &file.kind else { return None };
    let kind = FileKind::Regular { content: Arc::from([]), digest: *digest };
    let wanted = DesiredFile { kind, mode: file.mode, owner: file.owner.clone(), group: file.group.clone() };
    Some((opened(app, path), DesiredSecret { sealed: Arc::clone(sealed), file: wanted }))
}

fn resolve_file(app: &AppName, path: &HostPath, file: &manifest::File) -> DesiredFile {
    let kind = match &file.kind {
        manifest::FileKind::Sealed { .. } => {
            let kind = FileKind::Symlink { target: opened(app, path).to_string() };
            let (owner, group) = ("root".to_owned(), "root".to_owned());
            return DesiredFile { kind, mode: Mode::from_bits(0o777), owner, group };
        }
        manifest::FileKind::Regular { content, digest } => {
            FileKind::Regular { content: content.clone(), digest: *digest }
        }
        manifest::FileKind::Symlink { target } => FileKind::Symlink { target: target.clone() },
        manifest::FileKind::Directory => FileKind::Directory,
        manifest::FileKind::Artifact { origin } if origin.unpack.is_some() => {
            FileKind::Archive { origin: Arc::clone(origin), is_open: false }
        }
        manifest::FileKind::Artifact { origin } => {
            FileKind::Artifact { digest: origin.sha256, origin: Arc::clone(origin) }
        }
    };
    DesiredFile { kind, mode: file.mode, owner: file.owner.clone(), group: file.group.clone() }
}

fn resolve_unit(unit: &manifest::Unit) -> DesiredUnit {
    let origin = match &unit.text {
        Some(text) => UnitOrigin::Application { path: text.path.clone(), text: text.text.clone() },
        None => UnitOrigin::Host,
    };
    let state = unit.state.map(|state| match state {
        State::Running => UnitGoal::Running,
        State::Stopped => UnitGoal::Stopped,
    });
    DesiredUnit {
        origin,
        state,
        enabled: unit.enabled,
        restart_on: unit.restart_on.clone(),
        reload_on: unit.reload_on.clone(),
        ignore: unit.ignore.clone(),
    }
}

fn resolve_network(network: &manifest::Network) -> DesiredNetwork {
    let digest = container::digest_of("mainstay network 1", &network.settings);
    DesiredNetwork { settings: network.settings.clone(), digest }
}

fn resolve_volume(volume: &manifest::Volume) -> DesiredVolume {
    let digest = container::digest_of("mainstay volume 1", &volume.settings);
    DesiredVolume { settings: volume.settings.clone(), digest }
}

fn resolve_containers(
    app: &App,
    host_files: &HostFiles<'_>,
    networks: &BTreeMap<NetworkName, DesiredNetwork>,
    volumes: &BTreeMap<VolumeName, DesiredVolume>,
) -> BTreeMap<ContainerName, DesiredContainer> {
    let mut wanted: BTreeMap<ContainerName, DesiredContainer> = BTreeMap::new();
    for (name, container) in &app.containers {
        let mut it = resolve_container(container, host_files);
        let mut fields = Fields::default();
        fields.add("settings", container::digest_of("mainstay container 2", &it.settings).to_string().as_bytes());
        for network in it.networks().filter_map(|name| networks.get(name)) {
            fields.add("network", network.digest.to_string().as_bytes());
        }
        for volume in it.volumes().filter_map(|name| volumes.get(name)) {
            fields.add("volume", volume.digest.to_string().as_bytes());
        }
        for path in &it.inputs {
            fields.add("input", path.as_str().as_bytes());
            if let Some((app, file)) = host_files.get(path) {
                add_file(&mut fields, &resolve_file(app, path, file));
            }
        }
        it.digest = fields.finish();
        wanted.insert(name.clone(), it);
    }
    join(&mut wanted);
    wanted
}

/// Lets the digest of a container that joins another one's namespaces follow the other's: it has to be made anew with it.
/// Along a chain of these the planner passes it on.
fn join(wanted: &mut BTreeMap<ContainerName, DesiredContainer>) {
    let alone: BTreeMap<ContainerName, Digest> = wanted.iter().map(|(name, it)| (name.clone(), it.digest)).collect();
    for it in wanted.values_mut().filter(|it| !it.joins.is_empty()) {
        let mut fields = Fields::default();
        fields.add("settings", it.digest.to_string().as_bytes());
        for digest in it.joins.iter().filter_map(|name| alone.get(name)) {
            fields.add("joins", digest.to_string().as_bytes());
        }
        it.digest = fields.finish();
    }
}

fn resolve_container(container: &manifest::Container, host_files: &HostFiles<'_>) -> DesiredContainer {
    let ports = container.ports.iter().map(|port| Port {
        address: port.address.map(|address| address.to_string()),
        host: port.host,
        container: port.container,
        protocol: port.protocol,
    });
    DesiredContainer {
        settings: Settings { ports: ports.collect(), ..container.settings.clone() },
        job: container.job,
        after: container.after.clone(),
        joins: container.joins.clone(),
        digest: Digest::from_bytes([0; 32]),
        unopened: None,
        inputs: inputs(&container.settings.mounts, host_files),
    }
}

/// Finds the managed files at or below the sources of mounts. Directories are no input: a container that is given a folder
/// to write into need not be replaced because the folder's mode changed.
fn inputs(mounts: &[Mount], host_files: &HostFiles<'_>) -> BTreeSet<HostPath> {
    let sources: Vec<&str> = mounts.iter().filter_map(Mount::host_path).collect();
    let mounted = |path: &HostPath| sources.iter().any(|source| path.as_str() == *source || path.is_below(source));
    let below = |path: &HostPath| {
        sources.iter().any(|source| HostPath::parse(source).is_ok_and(|source| source.is_below(path.as_str())))
    };
    let files = host_files.iter().map(|(path, (_, file))| (path, file));
    let files = files.filter(|(_, file)| file.kind != manifest::FileKind::Directory);
    // What is below the directory of an archive is in the archive.
    let holds = |path: &HostPath, file: &manifest::File| file.is_archive() && below(path);
    files.filter(|(path, file)| mounted(path) || holds(path, file)).map(|(path, _)| (*path).clone()).collect()
}

fn digest_app(app: &DesiredApp) -> Digest {
    let mut fields = Fields::default();
    fields.add("format", b"mainstay app 1");
    // What happens to drift is no part of a release; what may be taken over decides whether one can be reached.
    if app.adopt {
        fields.add("adopt", b"all");
    }
    for (id, _) in app.policies.iter().filter(|(_, policy)| policy.adopt) {
        fields.add("adopt", id.to_string().as_bytes());
    }
    if let Some(user) = &app.user {
        fields.add("user", String::from(user.clone()).as_bytes());
    }
    for (path, file) in &app.files {
        fields.add("file", path.as_str().as_bytes());
        add_file(&mut fields, file);
        if let FileKind::Artifact { origin, .. } | FileKind::Archive { origin, .. } = &file.kind {
            // Another address is another attempt, for whom the first one failed.
            fields.add("url", origin.url.as_bytes()).add("limit", &origin.limit.to_le_bytes());
        }
    }
    for (path, secret) in &app.secrets {
        // What stands in the repository, not what is in it: everybody computes this, and nobody learns anything of the secret.
        fields.add("secret", path.as_str().as_bytes()).add("sealed", secret.sealed.digest().to_string().as_bytes());
        add_file(&mut fields, &secret.file);
    }
    for (name, unit) in &app.units {
        // The text of a unit that the application brings is among its files.
        fields.add("unit", String::from(name.clone()).as_bytes());
        if let Some(goal) = unit.state {
            fields.add("state", if goal == UnitGoal::Running { b"running" } else { b"stopped" });
        }
        if let Some(enabled) = unit.enabled {
            fields.add("enabled", &[u8::from(enabled)]);
        }
        for (label, paths) in
            [("restart-on", &unit.restart_on), ("reload-on", &unit.reload_on), ("ignore", &unit.ignore)]
        {
            for path in paths {
                fields.add(label, path.as_str().as_bytes());
            }
        }
    }
    for (name, container) in &app.containers {
        fields.add("container", name.as_str().as_bytes());
        fields.add("digest", container.digest.to_string().as_bytes());
        let waits = container::digest_of("mainstay order 1", &(&container.after, container.job));
        fields.add("order", waits.to_string().as_bytes());
    }
    for (name, network) in &app.networks {
        fields.add("network", name.as_str().as_bytes()).add("digest", network.digest.to_string().as_bytes());
    }
    for (name, volume) in &app.volumes {
        fields.add("volume", name.as_str().as_bytes()).add("digest", volume.digest.to_string().as_bytes());
    }
    for needed in &app.needs {
        fields.add("needs", needed.as_str().as_bytes());
    }
    for check in &app.checks {
        fields.add("check", serde_json::to_string(check).expect("a check is strings and numbers").as_bytes());
    }
    fields.finish()
}

fn add_file(fields: &mut Fields, file: &DesiredFile) {
    match &file.kind {
        FileKind::Regular { digest, .. } | FileKind::Artifact { digest, .. } => {
            fields.add("regular", digest.to_string().as_bytes())
        }
        FileKind::Symlink { target } => fields.add("symlink", target.as_bytes()),
        FileKind::Directory => fields.add("directory", b""),
        FileKind::Archive { origin, .. } => fields.add("archive", origin.key().to_string().as_bytes()),
    };
    fields.add("mode", &file.mode.bits().to_le_bytes());
    fields.add("owner", file.owner.as_bytes());
    fields.add("group", file.group.as_bytes());
}
