//! What a repository says, validated: every name parsed, every reference found, nothing written twice.
//!
//! Built only by [`super::parse`]. Where something was written is kept beside it, for messages; it is no part of what is
//! wanted and never reaches a digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::alerts::Alert;
use super::rollout::{DEFAULT, Freeze, Held, Override, Rollout};
use super::selector::Place;
use crate::artifact::Origin;
use crate::check::Check;
use crate::container::{Dependency, NetworkSettings, Protocol, Settings, VolumeSettings};
use crate::diagnostic::Location;
use crate::digest::Digest;
use crate::id::{
    AppName, ContainerName, HostName, HostPath, Mode, NetworkName, ResourceId, UnitName, User, VolumeName,
};
use crate::sealed::Sealed;
use crate::trust::Trust;

/// A whole repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// The fleet's name, a DNS label.
    pub name: String,
    /// What happens to drift where an application does not say.
    pub drift: Drift,
    /// The hosts, from `fleet.yaml` and `hosts/*.yaml`.
    pub hosts: BTreeMap<HostName, Host>,
    /// The environments; empty when the repository does not use them.
    pub environments: BTreeMap<String, Environment>,
    /// The applications.
    pub apps: BTreeMap<AppName, Application>,
    /// Where endpoints are found, by environment; empty when the repository names none.
    pub endpoints: BTreeMap<Option<String>, BTreeMap<String, Arc<[Address]>>>,
    /// Acknowledged removals: the short digest that the prune guard printed, and the reason.
    pub acknowledged: BTreeMap<String, String>,
    /// How changes spread, by the name of the policy.
    pub rollouts: BTreeMap<String, Rollout>,
    /// When nothing begins.
    pub freezes: Vec<Freeze>,
    /// Of which applications nothing new is deployed.
    pub holds: Vec<Held>,
    /// Which of these rules are broken in the open.
    pub overrides: Vec<Override>,
    /// Who is told.
    pub alerts: Vec<Alert>,
    /// Who is believed; `None` where the repository does not say.
    pub trust: Option<Trust>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Labels that selectors look at.
    pub labels: BTreeMap<String, String>,
    /// Where other hosts reach it.
    pub address: Option<String>,
    /// The public key that signs its records, as OpenSSH writes it.
    pub key: Option<String>,
    /// For which key its secrets are encrypted, where that is not `key`: one of age's own.
    pub recipient: Option<String>,
    /// Its environment: its own, or the default.
    pub environment: Option<String>,
    /// Values for templates.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Where it was written.
    pub location: Location,
}

/// One environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Values for templates.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Services outside the fleet.
    pub endpoints: BTreeMap<String, Address>,
}

/// Where an endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host of the fleet, unless it lies outside.
    pub host: Option<HostName>,
    /// The scheme of its URL.
    pub scheme: String,
    /// The name or address to connect to.
    pub name: String,
    /// The port, unless the scheme says it.
    pub port: Option<u16>,
    /// All of it, with the path.
    pub url: String,
    /// Where it was written.
    pub location: Location,
}

/// What happens to drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It is put back.
    Repair,
    /// It is only reported.
    Report,
}

/// One application, as each of its hosts sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its forms: hosts for which the layered folder is equal share one, so that a fleet of thousands reads it once.
    pub variants: Vec<App>,
    /// Which form each host has; who is not named here does not have the application.
    pub hosts: BTreeMap<HostName, usize>,
}

/// One form of an application, with all its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Which hosts have it.
    pub place: Place,
    /// What happens to drift, when the application says.
    pub drift: Option<Drift>,
    /// Whether what is there already under a wanted name is taken over, unless an entry says otherwise.
    pub adopt: bool,
    /// What single entries say of their own; of a unit that is brought, for its text as well.
    pub policies: BTreeMap<ResourceId, Policy>,
    /// Values for templates.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// In whose manager its quadlets run; root's is the host's.
    pub user: Option<User>,
    /// Files, symlinks and directories, unit texts included.
    pub files: BTreeMap<HostPath, File>,
    /// Units: those it brings, except templates, and those of the host that it has wishes for.
    pub units: BTreeMap<UnitName, Unit>,
    /// The units, except templates, that it has drop-ins for; they need not be among its units.
    pub drop_ins: BTreeSet<UnitName>,
    /// What its quadlets are called in Podman, and which others they refer to.
    pub quadlets: Vec<QuadletNames>,
    /// Containers.
    pub containers: BTreeMap<ContainerName, Container>,
    /// The policy by which its changes spread, where it names one, and where that is written.
    pub rollout: Option<(String, Location)>,
    /// The applications that must be healthy before it changes, and where that is written.
    pub needs: BTreeMap<AppName, Location>,
    /// What must hold after a change, and from then on.
    pub checks: Vec<Check>,
    /// Networks.
    pub networks: BTreeMap<NetworkName, Network>,
    /// Named volumes with settings of their own.
    pub volumes: BTreeMap<VolumeName, Volume>,
}

/// What an entry says beyond what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether what is there already is taken over; as the application says when `None`.
    pub adopt: Option<bool>,
    /// What happens to drift; as the application says when `None`.
    pub drift: Option<Drift>,
}

/// The names in one quadlet, which other applications may clash with or provide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuadletNames {
    /// Its file name.
    pub file: String,
    /// The kind and name of what Podman makes, where it is known.
    pub resource: Option<(&'static str, String)>,
    /// The quadlets it refers to by their file names.
    pub references: Vec<(String, Location)>,
    /// The ports of the host that its service takes while it runs, as far as the text says them.
    pub ports: Vec<Port>,
    /// Where it was written.
    pub location: Location,
}

/// A path on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: Mode,
    /// The owning user, by name or number.
    pub owner: String,
    /// The owning group, by name or number.
    pub group: String,
    /// Where it was written.
    pub location: Location,
}

/// The kinds of path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file with its content.
    Regular {
        /// The whole content.
        content: Arc<[u8]>,
        /// Its digest.
        digest: Digest,
    },
    /// A regular file of which something is encrypted.
    Sealed {
        /// What it consists of.
        sealed: Arc<Sealed>,
        /// The digest of that.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// A directory.
    Directory,
    /// A regular file that is fetched, or a directory with what was in an archive.
    Artifact {
        /// From where, and what has to come.
        origin: Arc<Origin>,
    },
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its text, when the application brings it; of the template, for an instance.
    pub text: Option<UnitText>,
    /// Whether it should run; `None` leaves that to whatever triggers it.
    pub state: Option<State>,
    /// Whether it should be enabled.
    pub enabled: Option<bool>,
    /// Paths that restart it beside those that its text names.
    pub restart_on: BTreeSet<HostPath>,
    /// Paths that only reload it.
    pub reload_on: BTreeSet<HostPath>,
    /// Paths that its text names and whose changes neither restart nor reload it.
    pub ignore: BTreeSet<HostPath>,
    /// Where it was written.
    pub location: Location,
}

/// A unit's text and where it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitText {
    /// Where the text goes.
    pub path: HostPath,
    /// The text.
    pub text: Arc<str>,
}

/// The state of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What it is created from, but for the ports.
    pub settings: Settings,
    /// Published ports, sorted.
    pub ports: Vec<Port>,
    /// Whether it is a job that ends.
    pub job: bool,
    /// What it is started after.
    pub after: BTreeMap<ContainerName, Dependency>,
    /// Whose namespaces it joins.
    pub joins: BTreeSet<ContainerName>,
    /// Where it was written.
    pub location: Location,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The port on the host.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The address to listen on; every one when `None`.
    pub address: Option<std::net::IpAddr>,
    /// Where it was written.
    pub location: Location,
}

/// A network that containers are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What it is made from; `None` for one that something else makes.
    pub settings: Option<NetworkSettings>,
    /// Where it was written.
    pub location: Location,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What it is made from; `None` for one that something else makes.
    pub settings: Option<VolumeSettings>,
    /// Where it was written.
    pub location: Location,
}

impl Place {
    /// Says whether the host called `name` is meant.
    pub fn holds(&self, name: &HostName, host: &Host) -> bool {
        match self {
            Place::All => true,
            Place::Any(places) => places.iter().any(|place| place.holds(name, host)),
            Place::Each(places) => places.iter().all(|place| place.holds(name, host)),
            Place::Not(place) => !place.holds(name, host),
            Place::Label { name: label, values } => host.label(name, label).is_some_and(|value| values.contains(value)),
        }
    }
}

impl Host {
    /// Returns the value of a label, the built-in `host` and `environment` included.
    pub fn label<'h>(&'h self, name: &'h HostName, label: &str) -> Option<&'h str> {
        match label {
            "host" => Some(name.as_str()),
            "environment" => self.environment.as_deref(),
            _ => self.labels.get(label).map(String::as_str),
        }
    }
}

impl Address {
    /// Puts the addresses of an endpoint in the order in which `host` should try them: its own first.
    pub fn nearest_first<'a>(all: &'a [Address], host: &HostName) -> Vec<&'a Address> {
        let mut nearest: Vec<&Address> = all.iter().collect();
        nearest.sort_by_key(|address| address.host.as_ref() != Some(host));
        nearest
    }
}

impl App {
    /// Returns the name of the policy by which its changes spread.
    pub fn rollout(&self) -> &str {
        self.rollout.as_ref().map_or(DEFAULT, |(name, _)| name)
    }
}

impl Application {
    /// Adds a form and the hosts that have it.
    pub(super) fn add(&mut self, app: App, hosts: &[&HostName]) {
        self.hosts.extend(hosts.iter().map(|host| ((*host).clone(), self.variants.len())));
        self.variants.push(app);
    }

    /// Returns the form that `host` has, if it has the application.
    pub fn on(&self, host: &HostName) -> Option<&App> {
        self.hosts.get(host).and_then(|variant| self.variants.get(*variant))
    }
}

impl File {
    /// Says whether it is a directory with what was in an archive.
    pub fn is_archive(&self) -> bool {
        matches!(&self.kind, FileKind::Artifact { origin } if origin.unpack.is_some())
    }
}

impl Fleet {
    /// Iterates over the applications that `host` has, in the form in which it has them.
    pub fn placed<'f>(&'f self, host: &'f HostName) -> impl Iterator<Item = (&'f AppName, &'f App)> {
        self.apps.iter().filter_map(|(name, application)| Some((name, application.on(host)?)))
    }
}

/// A path that a unit watches, to be found among all managed paths.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watch {
    pub(super) path: HostPath,
    pub(super) location: Location,
}

/// Builds what is installed unless app.yaml says otherwise.
pub(super) fn owned_by_root(kind: FileKind, mode: Mode, location: Location) -> File {
    File { kind, mode, owner: "root".to_owned(), group: "root".to_owned(), location }
}
