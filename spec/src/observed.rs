//! What a host really looks like. "Unknown" is a value of its own: it is never taken for "absent".

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::container::NetworkSettings;
use crate::digest::Digest;
use crate::id::{AppName, ContainerName, HostPath, Mode, NetworkName, UnitName, User, VolumeName};

/// One look at the host: everything that is wanted, and everything that is owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every wanted and every owned path.
    pub files: BTreeMap<HostPath, FileState>,
    /// Every wanted and every owned unit.
    pub units: Reach<BTreeMap<UnitName, UnitState>>,
    /// What is known of the users whose managers have wanted or remembered units. These units are among the others, but for
    /// those of a manager that is away.
    pub managers: BTreeMap<User, Manager>,
    /// Every container on the engine, ours or not.
    pub containers: Reach<BTreeMap<ContainerName, ContainerState>>,
    /// Every network on the engine, ours or not; asked only where the planner needs it.
    pub networks: Reach<BTreeMap<NetworkName, NetworkState>>,
    /// The wanted volumes that the planner needs to know of; `None` for one that is not there.
    pub volumes: BTreeMap<VolumeName, Option<VolumeState>>,
    /// Images named by wanted containers that are on the engine already.
    pub images: BTreeSet<String>,
    /// Whether Podman is on this host to make services of quadlets; asked only where some are wanted.
    pub has_podman: bool,
    /// Who has the names in Podman that services of quadlets would take, in root's store and in those of users; asked only
    /// where a plan would let them.
    pub podman: BTreeMap<Option<User>, Reach<BTreeMap<ContainerName, Holder>>>,
    /// Artifacts that have to be written and are in the agent's store already.
    pub artifacts: BTreeSet<Digest>,
    /// Texts of distribution packages that texts of ours take the place of.
    pub shadowed: BTreeMap<UnitName, HostPath>,
    /// User names that files want, with their ids; `None` where the host knows no such user.
    pub users: BTreeMap<String, Option<u32>>,
    /// Group names that files want, with their ids.
    pub groups: BTreeMap<String, Option<u32>>,
    /// What should be published for units to read, and could not be written.
    pub unpublished: BTreeMap<HostPath, Unpublished>,
}

/// Something that could not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    /// Why not.
    pub why: String,
    /// Whether what was published before is there, and stays in use.
    pub is_kept: bool,
}

/// What is known of a user and the manager of the user's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// In which way the host's account is another, when it is: there is no such user then, and no manager.
    pub stranger: Option<String>,
    /// Whether the manager runs without anybody being logged in.
    pub lingers: bool,
    /// Whether it runs now.
    pub state: ManagerState,
}

/// Whether a user's manager runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagerState {
    /// It answered.
    Up,
    /// It does not run, and so does none of its units.
    Down,
    /// It gave no answer, with the reason: nothing is known of its units.
    Away(String),
}

impl Observed {
    /// Says whether the units of a manager were seen; the host's manager is asked about those of users.
    pub fn manager(&self, user: Option<&User>) -> Reach<()> {
        let of_user = || user.map(|user| self.managers.get(user).map(|manager| &manager.state));
        match (&self.units, of_user()) {
            (Reach::Unreachable(why), _) | (_, Some(Some(ManagerState::Away(why)))) => Reach::Unreachable(why.clone()),
            (Reach::NotAsked, _) | (_, Some(None)) => Reach::NotAsked,
            (Reach::Seen(_), _) => Reach::Seen(()),
        }
    }

    /// Says why the manager that reads the unit or quadlet at a path is away, if it is.
    pub fn reader_away(&self, path: &HostPath) -> Option<String> {
        let Some(uid) = path.quadlet_uid() else {
            return match &self.units {
                Reach::Unreachable(why) if path.is_of_a_unit() => Some(why.clone()),
                _ => None,
            };
        };
        let readers = self.managers.keys().filter(|user| user.uid() == uid);
        readers.into_iter().find_map(|user| match self.manager(Some(user)) {
            Reach::Unreachable(why) => Some(why),
            Reach::Seen(()) | Reach::NotAsked => None,
        })
    }

    /// Says whether a user's manager is known not to run.
    pub fn is_down(&self, user: &User) -> bool {
        self.managers.get(user).is_some_and(|manager| manager.state == ManagerState::Down)
    }
}

/// The answer of something that can be away: the bus or the container engine.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Reach<T> {
    /// It answered.
    Seen(T),
    /// It did not, with the reason. Nothing of that kind may be touched.
    Unreachable(String),
    /// Nothing wanted or owned is of that kind, so nobody asked.
    #[default]
    NotAsked,
}

impl<T> Reach<T> {
    /// Returns what was seen, if anything was.
    pub fn seen(&self) -> Option<&T> {
        match self {
            Reach::Seen(seen) => Some(seen),
            Reach::Unreachable(_) | Reach::NotAsked => None,
        }
    }
}

/// What is at a path. The final component is never followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Nothing.
    Absent,
    /// A regular file.
    Regular {
        /// Of its content.
        digest: Digest,
        /// Who owns it and who may do what.
        access: Access,
        /// When its content was written last.
        modified: Timestamp,
        /// The application whose mark the file carries, when it carries this fleet's mark.
        mark: Option<AppName>,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
        /// Its owner; the mode is meaningless.
        access: Access,
    },
    /// A directory.
    Directory {
        /// Who owns it and who may do what.
        access: Access,
        /// Whether nothing is in it.
        empty: bool,
    },
    /// A device, socket or pipe.
    Other,
    /// It could not be looked at, with the reason: a symlink among its parents, an I/O error.
    Unknown(String),
}

/// Ownership and permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: Mode,
    /// The owning user's id.
    pub uid: u32,
    /// The owning group's id.
    pub gid: u32,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// `LoadState`.
    pub load: LoadState,
    /// `ActiveState`.
    pub active: ActiveState,
    /// `SubState`, for people.
    pub sub: String,
    /// Whether it is enabled; `None` where that means nothing (static, generated) or was not asked.
    pub enabled: Option<bool>,
    /// Whether systemd runs on an older text than the disk holds.
    pub need_reload: bool,
    /// The current run's invocation; asked only where the planner needs it.
    pub invocation: Option<InvocationId>,
    /// When that run began; asked together with the invocation.
    pub since: Option<Timestamp>,
    /// The text, for units that the host provides and whose inputs matter.
    pub text: Option<String>,
}

/// Identifies one run of a unit (systemd.exec(5), `$INVOCATION_ID`): 32 hex digits.
pub type InvocationId = String;

/// `LoadState` of org.freedesktop.systemd1.Unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// `loaded` or `stub`/`merged`.
    Loaded,
    /// `not-found`.
    NotFound,
    /// `masked`.
    Masked,
    /// `bad-setting` or `error`.
    Broken,
}

/// `ActiveState` of org.freedesktop.systemd1.Unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveState {
    /// `active`.
    Active,
    /// `reloading` or `refreshing`: still running.
    Reloading,
    /// `activating`: starting, or waiting to be restarted.
    Activating,
    /// `deactivating`.
    Deactivating,
    /// `inactive`.
    Inactive,
    /// `failed`.
    Failed,
}

/// What the engine says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// The engine's id, so that what is changed is what was looked at.
    pub id: String,
    /// Running, or not.
    pub run: ContainerRun,
    /// The mark, when the container carries this fleet's and host's.
    pub mark: Option<ContainerMark>,
    /// When its current run began, as the engine writes it; asked only where the planner needs it.
    pub started: Option<String>,
    /// What its process ended with, when the engine's list says so.
    pub exit_code: Option<i64>,
    /// The containers that it was started after, by its label.
    pub after: BTreeSet<ContainerName>,
}

/// What the engine says of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkState {
    /// The engine's id.
    pub id: String,
    /// The mark, when it carries this fleet's and host's.
    pub mark: Option<ContainerMark>,
    /// How it was made, as far as the engine's list says so.
    pub settings: NetworkSettings,
    /// The ids of the containers attached to it; asked only where the network may have to go.
    pub containers: BTreeSet<String>,
}

/// What the engine says of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeState {
    /// The mark, when it carries this fleet's and host's.
    pub mark: Option<ContainerMark>,
    /// Its driver.
    pub driver: String,
    /// What the driver was told.
    pub options: BTreeMap<String, String>,
}

/// What has a name in Podman, where containers and pods share one set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which of the two it is.
    pub kind: HolderKind,
    /// The unit whose command made it, by the label that Podman gives it; `None` for what somebody made by hand.
    pub unit: Option<String>,
}

/// What can have a name in Podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// A container.
    Container,
    /// A pod: it goes with all its containers.
    Pod,
}

/// The states of a container that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRun {
    /// Running, or being restarted by the engine's own policy.
    Running,
    /// Created and never started.
    Created,
    /// Paused by somebody.
    Paused,
    /// Exited, dead, being removed, or in a state this version does not know.
    Stopped,
}

/// Our labels on a container, a network or a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMark {
    /// The application it belongs to.
    pub app: AppName,
    /// The digest of the want it was created from.
    pub digest: Digest,
}

impl UnitState {
    /// Describes a unit that systemd has never heard of.
    pub fn not_found() -> UnitState {
        UnitState {
            load: LoadState::NotFound,
            active: ActiveState::Inactive,
            sub: "dead".to_owned(),
            enabled: None,
            need_reload: false,
            invocation: None,
            since: None,
            text: None,
        }
    }

    /// Says whether the unit runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.active, ActiveState::Active | ActiveState::Reloading | ActiveState::Activating)
    }
}
