//! What one host should look like at one commit: validated values, ready for the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::artifact::Origin;
use crate::check::Check;
use crate::container::{Dependency, MountSource, NetworkSettings, Networking, Settings, VolumeSettings};
use crate::digest::{Digest, Fields};
use crate::id::{
    AppName, CommitId, ContainerName, HostName, HostPath, Mode, NetworkName, ResourceId, SECRETS_DIRECTORY, UnitName,
    User, VolumeName,
};
use crate::sealed::Sealed;

/// Everything one host should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The fleet's name; part of every mark, so that two fleets on one host cannot mistake each other's things.
    pub fleet: String,
    /// The host this is for.
    pub host: HostName,
    /// The applications placed here. No path, unit or container is wanted by two of them.
    pub apps: BTreeMap<AppName, DesiredApp>,
    /// What the agent writes into its own runtime directory for units to read, before a plan is carried out. No resources:
    /// gone after a boot is no drift, and nobody else may own them. To the units that name them they are files like others.
    pub published: BTreeMap<HostPath, DesiredFile>,
    /// Removals that the repository acknowledges, by the short digest that the prune guard printed.
    pub acknowledged: BTreeSet<String>,
    /// The applications that are not brought to the commit: what stands in `apps` for them is what they are held to.
    pub held_back: BTreeMap<AppName, HeldBack>,
}

/// An application that is not brought to the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Why not.
    pub why: Hold,
    /// The digest of the commit's release, which it is kept from; `None` where the commit removes the application.
    pub wanted: Option<Digest>,
    /// The commit of the release that it is held to.
    pub commit: Option<CommitId>,
    /// Nothing of it is changed, not even put back: there is no release to hold it to, or that did not work.
    pub is_untouched: bool,
}

/// Why an application is not brought to the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The commit's release failed on this host; it goes back to, and stays at, its last good one.
    Bad,
    /// It could not go back, for this reason: a person is needed.
    Stuck(String),
    /// Its turn has not come, or what it needs is not there; the text says so.
    Waits(String),
    /// A person said so.
    Paused,
}

/// One application on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredApp {
    /// The digest of the resolved content: equal digests are the same release.
    pub digest: Digest,
    /// What happens to drift.
    pub drift: DriftPolicy,
    /// Whether what is there already under a wanted name is taken over.
    #[serde(default)]
    pub adopt: bool,
    /// What is said of single resources, where it differs from the application.
    #[serde(default)]
    pub policies: BTreeMap<ResourceId, Policy>,
    /// In whose manager its quadlets run; root's is the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Files, symlinks and directories, unit texts included.
    pub files: BTreeMap<HostPath, DesiredFile>,
    /// Files of which something is encrypted, by where they are opened to, below [`crate::id::SECRETS_DIRECTORY`]: memory, never a
    /// disk. A link among `files` leads to each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<HostPath, DesiredSecret>,
    /// Units whose state or enablement is wanted.
    pub units: BTreeMap<UnitName, DesiredUnit>,
    /// Containers on the engine.
    pub containers: BTreeMap<ContainerName, DesiredContainer>,
    /// The applications of this host that must be healthy at this commit before it changes.
    #[serde(default)]
    pub needs: BTreeSet<AppName>,
    /// What must hold after a change, and from then on.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Networks that its containers are attached to.
    #[serde(default)]
    pub networks: BTreeMap<NetworkName, DesiredNetwork>,
    /// Named volumes that its containers mount and that are made with settings of their own.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeName, DesiredVolume>,
}

/// What is said of one resource, beyond what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether something else that is there already is taken over, and kept.
    pub adopt: bool,
    /// What happens to drift.
    pub drift: DriftPolicy,
}

/// What to do when the host no longer is what the commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DriftPolicy {
    /// Put it back.
    Repair,
    /// Only say so.
    Report,
}

/// A path that should exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredFile {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits; not compared for symlinks, which have none.
    pub mode: Mode,
    /// The owning user: a name, or a number in decimal.
    pub owner: String,
    /// The owning group: a name, or a number in decimal.
    pub group: String,
}

/// A file of which something is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredSecret {
    /// What it consists of.
    pub sealed: Arc<Sealed>,
    /// What it is, without its content, which stands nowhere but in the file. Once it was opened, the digest is one that only this
    /// host can make: equal contents have equal ones, and nobody can try guesses on it.
    pub file: DesiredFile,
}

/// The kinds of path that mainstay makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// The whole content. A serialised release keeps it apart, by its digest.
        #[serde(skip, default = "no_content")]
        content: Arc<[u8]>,
        /// The digest of the content.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// A directory; what is in it is not managed by this entry.
    Directory,
    /// A regular file whose content the repository does not hold: it is fetched, and kept in the agent's store.
    Artifact {
        /// The digest of the content.
        digest: Digest,
        /// What is fetched for it.
        origin: Arc<Origin>,
    },
    /// A directory with what is in an archive. What that is shows when it was fetched; from then on all of it is among the
    /// application's files.
    Archive {
        /// What is fetched for it.
        origin: Arc<Origin>,
        /// Whether it is known what is in it.
        is_open: bool,
    },
}

impl FileKind {
    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, FileKind::Directory | FileKind::Archive { .. })
    }
}

fn no_content() -> Arc<[u8]> {
    Arc::from([])
}

/// A unit whose state is wanted. Its text, when the application brings it, is among the application's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredUnit {
    /// Where its text comes from.
    pub origin: UnitOrigin,
    /// Whether it should run; `None` leaves that to whatever triggers it.
    pub state: Option<UnitGoal>,
    /// Whether it should be enabled; `None` leaves that as it is.
    pub enabled: Option<bool>,
    /// Files that restart it in addition to those that its text names.
    pub restart_on: BTreeSet<HostPath>,
    /// Files that only reload it.
    pub reload_on: BTreeSet<HostPath>,
    /// Files that its text names and whose changes are none of its business.
    pub ignore: BTreeSet<HostPath>,
}

/// Where a unit's text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UnitOrigin {
    /// The application brings it: `path` is among its files (the template's path, for an instance).
    Application {
        /// The path of the text.
        path: HostPath,
        /// The text.
        text: Arc<str>,
    },
    /// Something else on the host provides it, such as a distribution's package.
    Host,
}

/// Whether a unit should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UnitGoal {
    /// Active; for a oneshot without `RemainAfterExit=`, run once to success for each change.
    Running,
    /// Inactive.
    Stopped,
}

/// A container that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredContainer {
    /// What it is created from.
    pub settings: Settings,
    /// Whether it is a job: exit code 0 is its aim, and then it is not started again.
    pub job: bool,
    /// The containers of its application that it is started after.
    pub after: BTreeMap<ContainerName, Dependency>,
    /// The containers of its application whose namespaces it joins: it does not survive them.
    pub joins: BTreeSet<ContainerName>,
    /// Digest of the settings, of the networks and volumes that it uses, and of the content of every managed file that is
    /// mounted: the container's label.
    pub digest: Digest,
    /// The same without what is in the secrets that it mounts, once that is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unopened: Option<Digest>,
    /// The managed files it mounts; a change of one replaces the container.
    pub inputs: BTreeSet<HostPath>,
}

/// A network that should be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredNetwork {
    /// What it is made from; `None` for one that something else makes.
    pub settings: Option<NetworkSettings>,
    /// Digest of the settings: the network's label.
    pub digest: Digest,
}

/// A named volume that should be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVolume {
    /// What it is made from; `None` for one that something else makes.
    pub settings: Option<VolumeSettings>,
    /// Digest of the settings: the volume's label.
    pub digest: Digest,
}

impl DesiredContainer {
    /// Iterates over the networks it is attached to, of those that an application knows.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkName> {
        let networks = match &self.settings.networking {
            Networking::Networks(networks) => Some(networks),
            Networking::Default | Networking::Mode(_) | Networking::Container(_) => None,
        };
        networks.into_iter().flatten().map(|(name, _)| name)
    }

    /// Iterates over the named volumes it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.settings.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(name),
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
        })
    }
}

impl DesiredApp {
    /// Forgets what is in the secrets again, see [`Desired::open`]: another host, or this one later, may open others.
    pub fn close(&mut self) {
        for container in self.containers.values_mut() {
            if let Some(unopened) = container.unopened.take() {
                container.digest = unopened;
            }
        }
    }

    /// Returns what holds for one resource.
    pub fn policy(&self, id: &ResourceId) -> Policy {
        self.policies.get(id).copied().unwrap_or(Policy { adopt: self.adopt, drift: self.drift })
    }

    /// Digests what is wanted of one resource by itself: what it reads, and what another one is, is not in it.
    pub fn want(&self, id: &ResourceId) -> Option<Digest> {
        match id {
            ResourceId::File(path) => self.files.get(path).map(DesiredFile::digest),
            ResourceId::Unit(name) => self.units.get(name).map(DesiredUnit::digest),
            ResourceId::Container(name) => self.containers.get(name).map(|container| container.digest),
            ResourceId::Network(name) => self.networks.get(name).map(|network| network.digest),
            ResourceId::Volume(name) => self.volumes.get(name).map(|volume| volume.digest),
        }
    }

    /// Names what is kept in the store for its files: contents, and what archives hold.
    pub fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.files.values().filter_map(|file| match &file.kind {
            FileKind::Artifact { digest, .. } => Some(*digest),
            FileKind::Archive { origin, is_open: true } => Some(origin.key()),
            FileKind::Archive { origin, is_open: false } => Some(origin.sha256),
            FileKind::Regular { .. } | FileKind::Symlink { .. } | FileKind::Directory => None,
        })
    }

    /// Names the archives of which it is not known what is in them.
    pub fn closed_archives(&self) -> impl Iterator<Item = (HostPath, Arc<Origin>)> {
        self.files.iter().filter_map(|(path, file)| match &file.kind {
            FileKind::Archive { origin, is_open: false } => Some((path.clone(), Arc::clone(origin))),
            _ => None,
        })
    }

    /// Names everything that is wanted.
    pub fn resources(&self) -> impl Iterator<Item = ResourceId> {
        let files = self.files.keys().cloned().map(ResourceId::File);
        let units = self.units.keys().cloned().map(ResourceId::Unit);
        let networks = self.networks.keys().cloned().map(ResourceId::Network);
        let volumes = self.volumes.keys().cloned().map(ResourceId::Volume);
        let containers = self.containers.keys().cloned().map(ResourceId::Container);
        files.chain(units).chain(networks).chain(volumes).chain(containers)
    }
}

impl DesiredFile {
    fn digest(&self) -> Digest {
        let mut fields = Fields::default();
        match &self.kind {
            // Where the same bytes come from makes no other file.
            FileKind::Regular { digest, .. } | FileKind::Artifact { digest, .. } => {
                fields.add("regular", digest.to_string().as_bytes())
            }
            FileKind::Symlink { target } => fields.add("symlink", target.as_bytes()),
            FileKind::Directory => fields.add("directory", b""),
            FileKind::Archive { origin, .. } => fields.add("archive", origin.key().to_string().as_bytes()),
        };
        fields.add("mode", &self.mode.bits().to_le_bytes());
        fields.add("owner", self.owner.as_bytes()).add("group", self.group.as_bytes());
        fields.finish()
    }
}

impl DesiredUnit {
    /// A unit of which nothing is asked: it is restarted when what is added to it changes.
    pub fn only_added_to(origin: UnitOrigin) -> DesiredUnit {
        DesiredUnit {
            origin,
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        }
    }

    fn digest(&self) -> Digest {
        let mut fields = Fields::default();
        fields.add("state", format!("{:?}", self.state).as_bytes());
        fields.add("enabled", format!("{:?}", self.enabled).as_bytes());
        fields.finish()
    }
}

impl Desired {
    /// Iterates over every wanted file with the application that wants it.
    pub fn files(&self) -> impl Iterator<Item = (&AppName, &HostPath, &DesiredFile)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.files.iter().map(move |(path, file)| (app, path, file)))
    }

    /// Iterates over every wanted unit with the application that wants it.
    pub fn units(&self) -> impl Iterator<Item = (&AppName, &UnitName, &DesiredUnit)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.units.iter().map(move |(name, unit)| (app, name, unit)))
    }

    /// Iterates over every wanted container with the application that wants it.
    pub fn containers(&self) -> impl Iterator<Item = (&AppName, &ContainerName, &DesiredContainer)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.containers.iter().map(move |(name, it)| (app, name, it)))
    }

    /// Iterates over every wanted network with the application that wants it.
    pub fn networks(&self) -> impl Iterator<Item = (&AppName, &NetworkName, &DesiredNetwork)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.networks.iter().map(move |(name, it)| (app, name, it)))
    }

    /// Iterates over every wanted volume with the application that wants it.
    pub fn volumes(&self) -> impl Iterator<Item = (&AppName, &VolumeName, &DesiredVolume)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.volumes.iter().map(move |(name, it)| (app, name, it)))
    }

    /// Iterates over every file of which something is encrypted, with the application that wants it.
    pub fn secrets(&self) -> impl Iterator<Item = (&AppName, &HostPath, &DesiredSecret)> {
        self.apps.iter().flat_map(|(app, wanted)| wanted.secrets.iter().map(move |(path, it)| (app, path, it)))
    }

    /// Forgets what is in the secrets again, as far as containers follow it: what they are compared with then is what the commit says.
    pub(crate) fn close(&mut self) {
        self.apps.values_mut().for_each(DesiredApp::close);
    }

    /// Takes in what is in the secrets, by digests that only this host can make. A container that mounts one follows it: what it holds
    /// is another file's when it changes.
    pub fn open(&mut self, opened: &BTreeMap<HostPath, Digest>) {
        for secret in self.apps.values_mut().flat_map(|app| app.secrets.iter_mut()) {
            if let (Some(found), FileKind::Regular { digest, .. }) = (opened.get(secret.0), &mut secret.1.file.kind) {
                *digest = *found;
            }
        }
        let links: BTreeMap<HostPath, Digest> = self
            .files()
            .filter_map(|(_, path, file)| {
                let FileKind::Symlink { target } = &file.kind else { return None };
                let target = HostPath::parse(target).ok().filter(|target| target.is_below(SECRETS_DIRECTORY))?;
                Some((path.clone(), *opened.get(&target)?))
            })
            .collect();
        for container in self.apps.values_mut().flat_map(|app| app.containers.values_mut()) {
            let read: Vec<_> = container.inputs.iter().filter_map(|path| Some((path, links.get(path)?))).collect();
            if read.is_empty() {
                continue;
            }
            let unopened = *container.unopened.get_or_insert(container.digest);
            let mut fields = Fields::default();
            fields.add("container", unopened.to_string().as_bytes());
            for (path, digest) in read {
                fields.add(path.as_str(), digest.to_string().as_bytes());
            }
            container.digest = fields.finish();
        }
    }

    /// Returns the wanted file at `path`, whichever application wants it.
    pub fn file(&self, path: &HostPath) -> Option<&DesiredFile> {
        self.apps.values().find_map(|app| app.files.get(path))
    }
}
