//! Looks at the host: everything that is wanted and everything that is owned, with as few questions as possible.
//!
//! An unchanged host costs one stat per managed file, one ListUnitsByNames and one container list. What takes more
//! (enablement of the host's own units, texts, invocations) is asked only where the planner needs it, or kept until the
//! file it came from changes. No judgement here about what should be.

mod podman;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use spec::desired::{Desired, DesiredUnit, FileKind, UnitOrigin};
use spec::id::{ContainerName, HostPath, ResourceId, UnitName, User};
use spec::inputs;
use spec::memory::Memory;
use spec::observed::{ContainerState, FileState, LoadState, ManagerState, Observed, Reach, UnitState};
use spec::plan;

use crate::artifacts::Fetcher;
use crate::backups::Backups;
use crate::disk::{Beside, Disk};
use crate::engine::{self, Engine};
use crate::store::Store;
use crate::systemd::{self, Managers, by_manager};

pub use podman::{images as images_in_podman, images_run as images_run_in_podman, names as names_in_podman};
pub use users::stranger;

/// For how long the text of a unit that the host provides is taken as read.
const HOST_TEXT_AGE: Duration = Duration::from_secs(300);

/// Where distribution packages put units (systemd.unit(5), "Unit File Load Path").
const VENDORS: [&str; 2] = ["/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// Everything an agent can look at and change.
pub struct Providers {
    /// Files.
    pub disk: Disk,
    /// Units.
    pub systemd: Managers,
    /// Containers.
    pub engine: Engine,
    /// What others wrote where we write.
    pub backups: Backups,
    /// Artifacts that were fetched.
    pub store: Store,
    /// Where they come from.
    pub fetcher: Fetcher,
    /// Texts of the host's own units, with when they were read.
    texts: BTreeMap<UnitName, (Instant, String)>,
    /// Units whose text and drop-ins systemd is known to have read, with what the files looked like then.
    loaded: BTreeMap<UnitName, Vec<FileState>>,
    /// Units of ours for which it was looked whether a package brings one of that name, with what it brings.
    vendors: BTreeMap<UnitName, Option<HostPath>>,
}

impl Providers {
    /// Puts them together.
    pub fn new(
        disk: Disk,
        systemd: Managers,
        engine: Engine,
        backups: Backups,
        artifacts: (Store, Fetcher),
    ) -> Providers {
        let (texts, loaded, vendors) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (store, fetcher) = artifacts;
        Providers { disk, systemd, engine, backups, store, fetcher, texts, loaded, vendors }
    }

    /// Forgets what was remembered of systemd, after changing it.
    pub fn forget_units(&mut self) {
        self.texts.clear();
        self.loaded.clear();
    }
}

/// Looks at everything that is wanted or owned. systemd and the engine are asked first, and think while the files are
/// looked at.
pub async fn observe(providers: &mut Providers, desired: &Desired, memory: &Memory) -> Observed {
    let mut observed = Observed::default();
    let names = names(desired, memory);
    let of_users = users::named(desired, memory);
    let of_host = of_host(&names, &of_users);
    let Providers { disk, systemd, engine, store, .. } = &mut *providers;
    let listing = async {
        let asks = !of_host.is_empty() || memory.reload_owed || desired.files().any(|(_, path, _)| path.is_of_a_unit());
        if asks { systemd.host.units(&of_host).await.map(Some) } else { Ok(None) }
    };
    let containing = async {
        let owned = memory.owned.keys().any(|id| matches!(id, ResourceId::Container(_) | ResourceId::Network(_)));
        if owned || desired.containers().next().is_some() { engine.containers().await.map(Some) } else { Ok(None) }
    };
    let looking = async {
        // The questions are on their way when the connections had their turn.
        tokio::task::yield_now().await;
        let long = files(disk, desired, memory, &mut observed);
        accounts(desired, &mut observed);
        long
    };
    let (mut listed, contained, long) = tokio::join!(listing, containing, looking);
    for path in long {
        let state = disk.look(&path);
        observed.files.insert(path, state);
    }
    artifacts(store, desired, &mut observed);
    if let Ok(Some(states)) = &mut listed {
        observed.managers = users::look(&mut providers.systemd, of_users, &names, states).await;
    }
    observed.units = match units(providers, desired, &of_host, listed, &mut observed).await {
        Ok(units) => units,
        Err(error) => Reach::Unreachable(crate::chain(&error)),
    };
    observed.shadowed = shadowed(providers, desired);
    let wants_quadlets = desired.files().any(|(_, path, _)| path.quadlet().is_some());
    observed.has_podman = wants_quadlets && crate::podman::generator().is_some();
    if let Err(error) = doubts(providers, desired, memory, &mut observed).await {
        observed.units = Reach::Unreachable(crate::chain(&error));
    }
    if let Err(error) = containers(&providers.engine, desired, memory, contained, &mut observed).await {
        observed.containers = Reach::Unreachable(crate::chain(&error));
    }
    observed
}

/// What a look is about: a change to anything else is no reason for one.
pub struct Interest {
    /// Paths that are wanted, owned, or could hide what is wanted.
    pub files: BTreeSet<HostPath>,
    /// Units that are wanted or remembered, each with its manager.
    pub units: BTreeSet<UnitName>,
    /// Names of containers and networks on the engine.
    pub containers: BTreeSet<String>,
}

/// Names everything that a look is about.
pub fn interest(desired: &Desired, memory: &Memory) -> Interest {
    let on_engine = |id: &ResourceId| match id {
        ResourceId::Container(name) => Some(name.to_string()),
        ResourceId::Network(name) => Some(name.to_string()),
        _ => None,
    };
    let owned = memory.owned.keys().filter_map(on_engine);
    let wanted = desired.apps.values().flat_map(|app| {
        let networks = app.networks.keys().map(ToString::to_string);
        app.containers.keys().map(ToString::to_string).chain(networks)
    });
    let users = users::named(desired, memory);
    let hiding = hiding(desired);
    Interest {
        files: paths(desired, memory, &hiding).into_iter().cloned().collect(),
        units: names(desired, memory).into_iter().chain(users.iter().map(User::manager)).collect(),
        containers: wanted.chain(owned).collect(),
    }
}

/// Names the files that would take the place of what is wanted.
fn hiding(desired: &Desired) -> Vec<HostPath> {
    desired.units().filter_map(|(_, name, unit)| inputs::hiding(name, unit)).collect()
}

fn paths<'a>(desired: &'a Desired, memory: &'a Memory, hiding: &'a [HostPath]) -> BTreeSet<&'a HostPath> {
    let owned = memory.owned.keys().filter_map(|id| match id {
        ResourceId::File(path) => Some(path),
        _ => None,
    });
    desired.files().map(|(_, path, _)| path).chain(owned).chain(hiding).collect()
}

/// Looks at files; returns those that take long to read.
fn files(disk: &mut Disk, desired: &Desired, memory: &Memory, observed: &mut Observed) -> Vec<HostPath> {
    let hiding = hiding(desired);
    let paths = paths(desired, memory, &hiding);
    disk.keep_only(&paths);
    disk.look_quickly(paths, &mut observed.files).into_iter().cloned().collect()
}

/// Says which artifacts are here already, of those that are not in their place.
fn artifacts(store: &Store, desired: &Desired, observed: &mut Observed) {
    for (_, path, file) in desired.files() {
        let FileKind::Artifact { digest, .. } = &file.kind else { continue };
        let is_in_place =
            matches!(observed.files.get(path), Some(FileState::Regular { digest: found, .. }) if found == digest);
        if !is_in_place && store.has(*digest) {
            observed.artifacts.insert(*digest);
        }
    }
}

/// Resolves the users and groups that files want and units run with; root needs no look.
fn accounts(desired: &Desired, observed: &mut Observed) {
    for (_, _, file) in desired.files() {
        user(&mut observed.users, &file.owner);
        group(&mut observed.groups, &file.group);
    }
    let managed = inputs::managed(desired);
    for (_, name, unit) in desired.units() {
        let accounts = inputs::accounts(name, unit, &managed);
        accounts.users.iter().for_each(|name| user(&mut observed.users, name));
        accounts.groups.iter().for_each(|name| group(&mut observed.groups, name));
    }
}

fn user(known: &mut BTreeMap<String, Option<u32>>, name: &str) {
    if !known.contains_key(name) {
        let id = if name == "root" { Some(0) } else { uzers::get_user_by_name(name).map(|user| user.uid()) };
        known.insert(name.to_owned(), id);
    }
}

fn group(known: &mut BTreeMap<String, Option<u32>>, name: &str) {
    if !known.contains_key(name) {
        let id = if name == "root" { Some(0) } else { uzers::get_group_by_name(name).map(|group| group.gid()) };
        known.insert(name.to_owned(), id);
    }
}

/// Names every unit that is wanted, remembered, or about to lose its text.
fn names(desired: &Desired, memory: &Memory) -> Vec<UnitName> {
    let wanted = desired.units().map(|(_, name, _)| name.clone());
    let remembered = memory.units.keys().cloned();
    let owned = memory.owned.keys().filter_map(|id| match id {
        ResourceId::File(path) => path.unit().or_else(|| path.drop_in()),
        _ => None,
    });
    let made = memory.quadlets.keys().cloned();
    let all: BTreeSet<UnitName> =
        wanted.chain(remembered).chain(owned).chain(made).filter(|unit| !unit.is_template()).collect();
    all.into_iter().collect()
}

/// Names the units that the host's manager is asked of: its own, and the managers of users.
fn of_host(names: &[UnitName], users: &BTreeSet<User>) -> Vec<UnitName> {
    let own = names.iter().filter(|name| name.user().is_none()).cloned();
    own.chain(users.iter().map(User::manager)).collect()
}

/// Completes what systemd lists by what it says only when asked for more.
async fn units(
    providers: &mut Providers,
    desired: &Desired,
    names: &[UnitName],
    listed: Result<Option<BTreeMap<UnitName, UnitState>>, systemd::Error>,
    observed: &mut Observed,
) -> Result<Reach<BTreeMap<UnitName, UnitState>>, systemd::Error> {
    let Some(mut states) = listed? else { return Ok(Reach::NotAsked) };
    for name in names {
        states.entry(name.clone()).or_insert_with(UnitState::not_found);
    }
    reloads(providers, &mut states, desired, observed).await?;
    enablement(providers, desired, &mut states).await?;
    texts(providers, desired, &mut states, observed).await?;
    Ok(Reach::Seen(states))
}

/// Asks whether systemd has read the texts, of those whose file is not known to have been read as it is.
async fn reloads(
    providers: &mut Providers,
    states: &mut BTreeMap<UnitName, UnitState>,
    desired: &Desired,
    observed: &mut Observed,
) -> Result<(), systemd::Error> {
    let quadlets = quadlets(desired);
    let (files, managers) = (&observed.files, &mut observed.managers);
    let files_of = |name: &UnitName| files_of(name, quadlets.get(name).copied(), files);
    let unsure: Vec<UnitName> = states
        .iter()
        .filter(|(name, state)| {
            let files = files_of(name);
            let known = || providers.loaded.get(*name).is_some_and(|known| known.iter().eq(files.iter().copied()));
            state.load != LoadState::NotFound && !files.is_empty() && !known()
        })
        .map(|(name, _)| name.clone())
        .collect();
    if unsure.is_empty() {
        return Ok(());
    }
    for (user, unsure) in by_manager(unsure, |name| name) {
        let stale = match (providers.systemd.of(user.as_ref()).need_reload(&unsure).await, user) {
            (Ok(stale), _) => stale,
            (Err(error), None) => return Err(error),
            (Err(error), Some(user)) => {
                users::lose(managers, states, &user, &error);
                continue;
            }
        };
        for name in unsure {
            match states.get_mut(&name) {
                Some(state) if stale.contains(&name) => state.need_reload = true,
                _ => {
                    let files = files_of(&name).into_iter().cloned().collect();
                    providers.loaded.insert(name, files);
                }
            }
        }
    }
    Ok(())
}

/// Returns the quadlets that Podman makes the wanted services of.
fn quadlets(desired: &Desired) -> BTreeMap<&UnitName, &HostPath> {
    let sources = desired.units().filter_map(|(_, name, unit)| match &unit.origin {
        UnitOrigin::Application { path, .. } if path.quadlet().is_some() => Some((name, path)),
        UnitOrigin::Application { .. } | UnitOrigin::Host => None,
    });
    sources.collect()
}

/// Returns what was seen of the files from which systemd reads a unit: its text and its drop-ins, or its template's; for
/// the service of a quadlet, these are what Podman's generator reads too.
fn files_of<'o>(
    name: &UnitName,
    quadlet: Option<&HostPath>,
    seen: &'o BTreeMap<HostPath, FileState>,
) -> Vec<&'o FileState> {
    let mut files = Vec::new();
    if let Some(path) = quadlet {
        let added = seen.range(path.clone()..).take_while(|(it, _)| it.as_str().starts_with(path.as_str()));
        files.extend(added.filter(|(it, _)| it.is_of_a_unit()).map(|(_, file)| file));
    }
    for unit in name.template().iter().chain([name]) {
        files.extend(seen.get(&unit.path()));
        let folder = unit.drop_in_folder();
        let within = seen.range(folder.clone()..).take_while(|(path, _)| path.as_str().starts_with(folder.as_str()));
        files.extend(within.filter(|(path, _)| path.drop_in().as_ref() == Some(unit)).map(|(_, file)| file));
    }
    files
}

/// Fills in enablement: by looking for the links where the text says which they are, else by asking systemd.
async fn enablement(
    providers: &mut Providers,
    desired: &Desired,
    states: &mut BTreeMap<UnitName, UnitState>,
) -> Result<(), systemd::Error> {
    let mut ask = Vec::new();
    let mut beside = Beside::default();
    let wanted: BTreeMap<&UnitName, &DesiredUnit> = desired.units().map(|(_, name, unit)| (name, unit)).collect();
    // What of a user's is managed comes from quadlets, which Podman enables as they say.
    for (name, state) in states.iter_mut().filter(|(name, _)| name.user().is_none()) {
        let links = match wanted.get(name).map(|unit| (unit.enabled, &unit.origin)) {
            Some((None, _)) => continue,
            Some((Some(_), UnitOrigin::Application { text, .. })) => inputs::install_links(name, text),
            Some((Some(_), UnitOrigin::Host)) | None => None,
        };
        match links {
            Some(links) => state.enabled = Some(links.iter().all(|link| Disk::exists(link, &mut beside))),
            None if state.load == LoadState::NotFound => state.enabled = Some(false),
            None => ask.push(name.clone()),
        }
    }
    if !ask.is_empty() {
        for (name, enabled) in providers.systemd.host.enablement(&ask).await? {
            if let Some(state) = states.get_mut(&name) {
                state.enabled = enabled;
            }
        }
    }
    Ok(())
}

/// Fills in the texts of units that the host provides: they may name managed files. Managed drop-ins are left out, since
/// the commit says what they should be.
async fn texts(
    providers: &mut Providers,
    desired: &Desired,
    states: &mut BTreeMap<UnitName, UnitState>,
    observed: &Observed,
) -> Result<(), systemd::Error> {
    let wanted: BTreeSet<&UnitName> =
        desired.units().filter(|(_, _, unit)| unit.origin == UnitOrigin::Host).map(|(_, name, _)| name).collect();
    providers.texts.retain(|name, (read, _)| wanted.contains(name) && read.elapsed() < HOST_TEXT_AGE);
    let missing: Vec<UnitName> = wanted
        .iter()
        .filter(|name| !providers.texts.contains_key(**name))
        .filter(|name| states.get(**name).is_some_and(|state| state.load == LoadState::Loaded))
        .map(|name| (*name).clone())
        .collect();
    if !missing.is_empty() {
        let managed = |path: &str| HostPath::parse(path).is_ok_and(|path| observed.files.contains_key(&path));
        let read = providers.systemd.host.texts(&missing, &managed).await?;
        providers.texts.extend(read.into_iter().map(|(name, text)| (name, (Instant::now(), text))));
    }
    for (name, (_, text)) in &providers.texts {
        if let Some(state) = states.get_mut(name) {
            state.text = Some(text.clone());
        }
    }
    Ok(())
}

/// Finds the units of distribution packages that texts of ours take the place of. It is looked once for each: packages
/// that come later are noticed when the agent starts again.
fn shadowed(providers: &mut Providers, desired: &Desired) -> BTreeMap<UnitName, HostPath> {
    let is_brought = |unit: &DesiredUnit| matches!(unit.origin, UnitOrigin::Application { .. });
    let brought = desired.units().filter(|(_, name, unit)| name.user().is_none() && is_brought(unit));
    for (_, name, _) in brought {
        if !providers.vendors.contains_key(name) {
            let text = name.template().unwrap_or_else(|| name.clone());
            let mut paths = VENDORS.iter().filter_map(|folder| HostPath::parse(&format!("{folder}/{text}")).ok());
            let found = paths.find(|path| std::fs::symlink_metadata(path.as_str()).is_ok());
            providers.vendors.insert(name.clone(), found);
        }
    }
    let wanted = desired.units().map(|(_, name, _)| name);
    wanted.filter_map(|name| Some((name.clone(), providers.vendors.get(name)?.clone()?))).collect()
}

/// Asks for the current run of the units that the planner is in doubt about.
async fn doubts(
    providers: &mut Providers,
    desired: &Desired,
    memory: &Memory,
    observed: &mut Observed,
) -> Result<(), systemd::Error> {
    if observed.units.seen().is_none() {
        return Ok(());
    }
    let doubtful: Vec<UnitName> = plan::units_in_doubt(desired, observed, memory).into_iter().collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    for (user, doubtful) in by_manager(doubtful, |name| name) {
        let is_up = |user| observed.managers.get(user).is_some_and(|manager| manager.state == ManagerState::Up);
        if user.as_ref().is_some_and(|user| !is_up(user)) {
            continue;
        }
        let runs = providers.systemd.of(user.as_ref()).runs(&doubtful).await;
        let Reach::Seen(units) = &mut observed.units else { continue };
        match (runs, user) {
            (Ok(runs), _) => {
                for (name, (invocation, since)) in runs {
                    if let Some(state) = units.get_mut(&name) {
                        state.invocation = Some(invocation);
                        state.since = since;
                    }
                }
            }
            (Err(error), None) => return Err(error),
            (Err(error), Some(user)) => users::lose(&mut observed.managers, units, &user, &error),
        }
    }
    Ok(())
}

/// Completes what the engine lists.
async fn containers(
    engine: &Engine,
    desired: &Desired,
    memory: &Memory,
    listed: Result<Option<BTreeMap<ContainerName, ContainerState>>, engine::Error>,
    observed: &mut Observed,
) -> Result<(), engine::Error> {
    let Some(mut seen) = listed? else { return Ok(()) };
    let images: BTreeSet<&str> = desired
        .containers()
        .filter(|(_, name, wanted)| {
            let mark = seen.get(*name).and_then(|state| state.mark.as_ref());
            mark.is_none_or(|mark| mark.digest != wanted.digest)
        })
        .map(|(_, _, wanted)| wanted.settings.image.as_str())
        .collect();
    for image in images {
        if engine.has_image(image).await? {
            observed.images.insert(image.to_owned());
        }
    }
    for name in plan::containers_in_doubt(desired, observed) {
        if let Some(state) = seen.get_mut(&name) {
            state.started = engine.inspect_run(&state.id).await?.started;
        }
    }
    observed.containers = Reach::Seen(seen);
    for name in plan::jobs_in_doubt(desired, observed) {
        if let Reach::Seen(seen) = &mut observed.containers
            && let Some(state) = seen.get_mut(&name)
        {
            state.exit_code = Some(engine.inspect_run(&state.id).await?.exit_code);
        }
    }
    ground(engine, desired, memory, observed).await
}

/// Looks at the networks and volumes that containers need, where there is a reason to.
async fn ground(
    engine: &Engine,
    desired: &Desired,
    memory: &Memory,
    observed: &mut Observed,
) -> Result<(), engine::Error> {
    if plan::networks_in_doubt(desired, observed, memory) {
        let mut networks = engine.networks().await?;
        for (name, state) in networks.iter_mut().filter(|(_, state)| state.mark.is_some()) {
            let stays = desired.networks().any(|(_, wanted, it)| {
                wanted == name && state.mark.as_ref().is_some_and(|mark| mark.digest == it.digest)
            });
            if !stays {
                state.containers = engine.attached(&state.id).await?;
            }
        }
        observed.networks = Reach::Seen(networks);
    }
    for name in plan::volumes_in_doubt(desired, observed) {
        let state = engine.volume(&name).await?;
        observed.volumes.insert(name, state);
    }
    Ok(())
}
