//! What the agent remembers between passes: what it owns, what it started with what, and how each application fares.
//!
//! The transitions live here, pure, so that the planner's property tests and the agent walk through the same ones. The
//! agent's ledger writes this value to disk *before* the world is changed (claims, owed and begun restarts) and after.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AppName, CommitId, ContainerName, HostPath, ResourceId, UnitName, User};
use crate::observed::InvocationId;
use crate::pause::Pauses;

/// Everything remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The newest commit that was believed: enforced until another one is, with or without a network.
    pub believed: Option<CommitId>,
    /// The fleet this host belongs to, once something was believed: its name is part of every mark.
    #[serde(default)]
    pub fleet: Option<String>,
    /// The engine's socket on which this agent's containers are: they must not be looked for on another engine.
    #[serde(default)]
    pub engine: Option<String>,
    /// What this agent put on the host.
    #[serde(default)]
    pub owned: BTreeMap<ResourceId, Owned>,
    /// What each managed unit was last started with.
    #[serde(default)]
    pub units: BTreeMap<UnitName, UnitMemory>,
    /// The quadlet of ours that Podman makes each of these services of.
    #[serde(default)]
    pub quadlets: BTreeMap<UnitName, HostPath>,
    /// When each container's run began that we started, as the engine writes it.
    #[serde(default)]
    pub containers: BTreeMap<ContainerName, String>,
    /// Whether unit files changed and systemd has not been told since.
    #[serde(default)]
    pub reload_owed: bool,
    /// The users whose quadlets changed, and whose managers have not been told since.
    #[serde(default)]
    pub reloads_owed: BTreeSet<User>,
    /// How each application fares.
    #[serde(default)]
    pub apps: BTreeMap<AppName, AppMemory>,
    /// What of each application was as wanted once: from then on any difference of it is drift.
    #[serde(default)]
    pub settled: BTreeMap<AppName, Settled>,
    /// What somebody else changes back again and again.
    #[serde(default)]
    pub fights: BTreeMap<ResourceId, Fight>,
    /// Somebody else's containers whose names ours have taken, until their application was well with ours once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<ContainerName, Adopted>,
    /// Images on the engine that this agent fetched, by the engine's id: nobody had them before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pulled: BTreeMap<String, Pulled>,
    /// Images that Podman fetched for quadlets.
    #[serde(default, skip_serializing_if = "Stores::is_empty")]
    pub stores: Stores,
    /// The image that each quadlet's service was last started with, where Podman was asked for it before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ran: BTreeMap<UnitName, Ran>,
    /// What a person paused.
    #[serde(default, skip_serializing_if = "Pauses::is_empty")]
    pub pauses: Pauses,
    /// Counts the records this host has written; part of what will be signed.
    #[serde(default)]
    pub counter: u64,
}

/// Something this agent put on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// The application that wanted it last.
    pub app: AppName,
    /// Set from before a *new* path is made until it is known to be made: what it would look like. Were the agent
    /// killed in between, only a thing that looks like this is ours. For a container: [`outgoing`]
    /// or [`coming`].
    pub claim: Option<Digest>,
    /// The fingerprint of what this agent put at the path last: what differs from it is somebody else's work, which is kept
    /// before it is overwritten. `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<Digest>,
}

impl Owned {
    /// Describes something of ours, of which nothing more is known.
    pub fn by(app: &AppName) -> Owned {
        Owned { app: app.clone(), claim: None, put: None }
    }

    /// Describes something that is about to be made.
    pub fn claimed(app: &AppName, claim: Digest) -> Owned {
        Owned { claim: Some(claim), ..Owned::by(app) }
    }
}

/// Stands for a container's id where it could not be asked for.
pub const WHICHEVER: &str = "";

/// Identifies a container that is about to be replaced; the claim of its name. While it is still there, the replacement
/// is owed.
pub fn outgoing(id: &str) -> Digest {
    Digest::of(id.as_bytes())
}

/// The claim of the name of a container that is about to be created. An engine goes on with a request whose sender was
/// killed, and lists the container only when it is done: one that is not there yet is not gone.
pub fn coming() -> Digest {
    Digest::of(b"coming")
}

/// What is remembered of a managed unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitMemory {
    /// The application that wants it.
    pub app: AppName,
    /// Whether the application brings its text; a unit that the host provides is released, never stopped, when unwanted.
    pub ours: bool,
    /// What it was last started with.
    pub run: Run,
}

/// What a unit was last started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// Nothing is known, and nothing is owed: not started by us yet.
    Unknown,
    /// Started with these inputs, in this run when it was seen.
    Started {
        /// The inputs.
        with: Inputs,
        /// The run that began then; `None` for what does not keep running.
        invocation: Option<InvocationId>,
    },
    /// It ran before we knew it and its inputs are being changed: it must be restarted, whatever it started with.
    Owed,
    /// A start, restart or reload was about to be asked for; whether it happened shows in the invocation.
    Beginning {
        /// The inputs it is started with.
        with: Inputs,
        /// The run before, if there was one.
        was: Option<InvocationId>,
    },
}

/// Digests of everything a unit reads when it starts, and of what it reads again on a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Its text and the managed files that its text names: a change restarts.
    pub start: Digest,
    /// The files of `reload-on`: a change reloads.
    pub reload: Digest,
}

impl Inputs {
    /// Returns the inputs of what is started without any of ours.
    pub fn none() -> Inputs {
        let nothing = Digest::of(b"nothing of ours");
        Inputs { start: nothing, reload: nothing }
    }
}

/// A container of somebody else in whose place one of ours is put: what it takes to give it its place back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopted {
    /// The application that wants its name.
    pub app: AppName,
    /// The engine's id, which stays when the name changes.
    pub id: String,
    /// Whether it ran.
    pub running: bool,
    /// When the engine started it by itself, in the engine's words, and how often after a failure.
    pub restart: (String, i64),
    /// What was wanted in its place and why that did not work, once it is back: the same is not tried again, since each attempt
    /// stops what works.
    #[serde(default)]
    pub back: Option<(Digest, String)>,
}

/// An image that this agent fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pulled {
    /// What it was asked for as; `None` once that name has moved on to another image.
    pub reference: Option<String>,
    /// What its registry calls it, `name@sha256:…`, where that is known.
    pub digest: Option<String>,
}

/// An image that a quadlet's service was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    /// Podman's id.
    pub id: String,
    /// What its registry calls it, `name@sha256:…`, where that is known.
    pub digest: Option<String>,
}

/// The images that Podman fetched for this agent, by their ids: in root's store, and in those of users. Nobody had them before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stores {
    /// In root's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub root: BTreeMap<String, Fetched>,
    /// In those of users.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<User, BTreeMap<String, Fetched>>,
}

impl Stores {
    fn is_empty(&self) -> bool {
        self.root.is_empty() && self.users.is_empty()
    }

    /// Returns what is in the store of a user, or in root's.
    pub fn of(&self, user: Option<&User>) -> Option<&BTreeMap<String, Fetched>> {
        match user {
            None => Some(&self.root),
            Some(user) => self.users.get(user),
        }
    }

    /// Forgets an image.
    pub fn forget(&mut self, user: Option<&User>, id: &str) {
        match user {
            None => self.root.remove(id),
            Some(user) => self.users.get_mut(user).and_then(|store| store.remove(id)),
        };
        self.users.retain(|_, store| !store.is_empty());
    }
}

/// An image that Podman fetched for quadlets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    /// What it was asked for as, and what the store calls it since; a name that has moved on to another image is not here.
    pub names: BTreeSet<String>,
    /// What its registry calls it, `name@sha256:…`.
    pub digests: BTreeSet<String>,
}

/// What of an application was as wanted once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// The release of which all was; there is nothing more to learn then.
    pub release: Option<Digest>,
    /// What was wanted of each resource when it was so.
    pub wants: BTreeMap<ResourceId, Digest>,
}

/// Somebody else and this agent want something different, and each changes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fight {
    /// The application that wants it.
    pub app: AppName,
    /// The release that it is about: another one starts anew.
    pub release: Digest,
    /// When this agent put it back; no more than count.
    pub repairs: Vec<Timestamp>,
    /// It is not put back any more.
    pub lost: bool,
}

/// How an application fares on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppMemory {
    /// The state that records and `status` show.
    pub state: AppState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// Whether this release was reached once: from then on any difference is drift, whatever fails meanwhile.
    #[serde(default)]
    pub reached: bool,
    /// The digest of the release that was applied last, completely or not.
    pub digest: Digest,
    /// The commit it came from; `None` for a local folder.
    pub commit: Option<CommitId>,
    /// The commit of the release before, which this one replaced.
    #[serde(default)]
    pub from: Option<CommitId>,
    /// How many steps the last change or repair took.
    #[serde(default)]
    pub changes: usize,
    /// The digest of the image that each container was created from.
    #[serde(default)]
    pub images: BTreeMap<ContainerName, String>,
    /// Starts in a row of a service that died by itself, each within minutes of the one before.
    #[serde(default)]
    pub repairs: u32,
    /// Drift is not repaired again before: a service dies again and again.
    #[serde(default)]
    pub next_repair: Option<Timestamp>,
    /// Nothing wants it any more and its removal has begun, which goes on whoever's turn it is: the failure is that of the removal.
    #[serde(default, alias = "leaving")]
    pub going: bool,
    /// Since when it is healthy at this release, while that is not long enough for the release to count as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baking: Option<Timestamp>,
    /// The last failure, while it lasts.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// The applications that it needs: what goes is removed before what it needs.
    #[serde(default)]
    pub needs: BTreeSet<AppName>,
    /// The release that failed here, while the repository wants it.
    #[serde(default)]
    pub bad: Option<Bad>,
    /// The checks that do not pass any more, in words, while they do not.
    #[serde(default)]
    pub unhealthy: Option<String>,
}

impl AppMemory {
    /// Says whether the release with this digest was reached once.
    pub fn is_reached(&self, digest: Digest) -> bool {
        self.digest == digest && self.reached
    }

    /// Returns what is wrong with the application, if anything: the latest first.
    pub fn trouble(&self) -> Option<&str> {
        let failure = self.failure.as_ref().map(|failure| failure.text.as_str());
        let bad = self.bad.as_ref().map(|bad| bad.text.as_str());
        failure.or(self.unhealthy.as_deref()).or(bad)
    }
}

/// A release that failed on this host. It is not tried again until a commit changes the application, or a person says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// The digest of its resolved content.
    pub digest: Digest,
    /// The commit with which it failed.
    pub commit: Option<CommitId>,
    /// What failed; the first line is our own words, the others may be the service's.
    pub text: String,
    /// When.
    pub since: Timestamp,
    /// Why the application could not go back, if it could not: nothing of it is changed then.
    #[serde(default)]
    pub stuck: Option<String>,
}

/// Why an application is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// For people: what failed and the last lines that it said.
    pub text: String,
    /// Passes in a row that failed at this release.
    pub count: u32,
    /// Not tried again before.
    pub not_before: Timestamp,
}

/// The states of a release on a host (`config-repo.md`, "Records").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppState {
    /// Not begun: what it needs is not healthy at this commit yet.
    Waiting,
    /// Being changed.
    Applying,
    /// As the commit says, not for as long as its rollout asks for. Only records say so.
    Baking,
    /// As the commit says.
    Converged,
    /// A step failed; see the failure.
    Failed,
    /// The commit's release failed and the last good one is back.
    RolledBack,
    /// At its release, and its checks do not pass any more.
    Unhealthy,
    /// Not as the commit says, and only reported.
    Drifted,
    /// Was drifted and has been put back.
    Repaired,
}

impl AppState {
    /// Returns the word for it in logs, records and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            AppState::Waiting => "waiting",
            AppState::Applying => "applying",
            AppState::Baking => "baking",
            AppState::Converged => "converged",
            AppState::Failed => "failed",
            AppState::RolledBack => "rolled-back",
            AppState::Unhealthy => "unhealthy",
            AppState::Drifted => "drifted",
            AppState::Repaired => "repaired",
        }
    }
}
