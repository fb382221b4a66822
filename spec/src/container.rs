//! What containers, networks and volumes are made from: validated values that the manifest fills and the engine takes.
//!
//! They are no part of YAML and no part of the engine's API. Whatever is left at its default is not serialised, so that
//! the digest of a container does not change when a later version learns another setting.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Fields};
use crate::id::{ContainerName, NetworkName, VolumeName};

/// Everything a container is created from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The image reference, as written.
    pub image: String,
    /// When the image is fetched.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: Pull,
    /// The platform to take the image for, such as `linux/arm64`.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<String>,
    /// Overrides the image's entry point when not empty.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    /// Overrides the image's command when not empty.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, String>,
    /// The user inside, as `docker run --user` takes it.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// The folder that the command starts in.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Published ports.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
    /// Ports that are only declared, such as `9000/tcp`.
    #[serde(skip_serializing_if = "is_default")]
    pub expose: BTreeSet<String>,
    /// What is mounted, by its path inside.
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// How it is connected.
    #[serde(skip_serializing_if = "is_default")]
    pub networking: Networking,
    /// What it and others are called.
    #[serde(skip_serializing_if = "is_default")]
    pub names: Names,
    /// Labels the author asks for, beside mainstay's own.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// How its health is checked; the image's own way when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub health: Option<Health>,
    /// What the engine does when its process ends.
    #[serde(skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// The signal that stops it.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: Option<String>,
    /// How long it may take to stop, in seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_secs: Option<u32>,
    /// Whether it has a terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Whether its standard input is kept open.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// Whether an init process reaps its children; the engine's default when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    /// What it may do.
    #[serde(skip_serializing_if = "is_default")]
    pub rights: Rights,
    /// What it may use.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Where its output goes; the engine's default when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub logging: Option<Logging>,
    /// The OCI runtime; the engine's default when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Whenever a container is created from it.
    Always,
    /// Never: it is on the host, or the container cannot be created.
    Never,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The address to listen on; every one when `None`.
    pub address: Option<String>,
    /// The port on the host.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Returns the name the engine's API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A mount into a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The path inside.
    pub target: String,
    /// What is there.
    pub source: MountSource,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// The absolute path.
        path: String,
        /// Whether the engine makes a folder of it when it is not there.
        create: bool,
        /// `shared`, `slave` or `private`, or one of these behind an `r`; the engine's default when `None`.
        propagation: Option<String>,
        /// SELinux's label: `z` for one that several share, `Z` for a private one.
        relabel: Option<char>,
    },
    /// A named volume.
    Volume {
        /// The volume.
        name: VolumeName,
        /// Whether a new volume stays empty instead of taking over what the image has at the target.
        nocopy: bool,
        /// A folder of the volume, instead of all of it.
        subpath: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// The most bytes that it holds.
        size: Option<u64>,
        /// Its permission bits.
        mode: Option<u32>,
        /// Options as mount(8) takes them, separated by commas.
        options: Option<String>,
    },
}

impl Mount {
    /// Returns the path of the host that is mounted, if one is.
    pub fn host_path(&self) -> Option<&str> {
        match &self.source {
            MountSource::Bind { path, .. } => Some(path),
            MountSource::Volume { .. } | MountSource::Tmpfs { .. } => None,
        }
    }
}

/// How a container is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Networking {
    /// By the engine's default.
    #[default]
    Default,
    /// `host`, `none`, `bridge` or the name of a network that something else made.
    Mode(String),
    /// It shares the network of another container of its application.
    Container(ContainerName),
    /// By networks of its application.
    Networks(BTreeMap<NetworkName, Attachment>),
}

/// How a container is attached to a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attachment {
    /// The names under which the others find it.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: BTreeSet<String>,
    /// A fixed IPv4 address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4: Option<String>,
    /// A fixed IPv6 address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: Option<String>,
    /// A fixed hardware address.
    #[serde(skip_serializing_if = "is_default")]
    pub mac: Option<String>,
    /// What the network's driver is told.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// What a container is called, and what it calls others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Its host name.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    /// Its domain.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// Its name servers.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<String>,
    /// The domains in which names are looked for.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_options: Vec<String>,
    /// Lines for /etc/hosts: `name:address`.
    #[serde(skip_serializing_if = "is_default")]
    pub hosts: Vec<String>,
}

/// How the health of a container is checked. What is `None` is as the image, or the engine, has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// `NONE`, `CMD` with arguments, or `CMD-SHELL` with a line; the image's when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    /// Milliseconds between two checks.
    #[serde(skip_serializing_if = "is_default")]
    pub interval_ms: Option<u64>,
    /// Milliseconds that one may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds after the start in which failures do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period_ms: Option<u64>,
    /// Milliseconds between two checks within the start period.
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval_ms: Option<u64>,
    /// How many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
}

impl Health {
    /// Returns how many milliseconds pass, at most, until the check has come to its first verdict.
    pub fn verdict_ms(&self) -> u64 {
        const EACH: u64 = 30_000;
        let each = self.interval_ms.unwrap_or(EACH).saturating_add(self.timeout_ms.unwrap_or(EACH));
        let tries = u64::from(self.retries.unwrap_or(3)).saturating_add(1);
        each.saturating_mul(tries).saturating_add(self.start_period_ms.unwrap_or(0))
    }

    /// Says whether there is no check.
    pub fn is_off(&self) -> bool {
        self.test.first().is_some_and(|first| first == "NONE")
    }
}

/// What the engine does when a container's process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Up again after a reboot without us, down when it was stopped.
    #[default]
    UnlessStopped,
    /// Up again, whatever happened.
    Always,
    /// Up again when it failed, so many times if a number is given.
    OnFailure(Option<u32>),
    /// It stays down.
    No,
}

/// What a container may do beside what every container may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rights {
    /// Whether it may do everything that the host may.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Whether its root is read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Capabilities that it has in addition.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: BTreeSet<String>,
    /// Capabilities that it lacks.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: BTreeSet<String>,
    /// Options such as `no-new-privileges`.
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    /// Devices: `host:container:rwm`.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<String>,
    /// Rules for devices, as the kernel's device cgroup takes them.
    #[serde(skip_serializing_if = "is_default")]
    pub device_rules: Vec<String>,
    /// Groups that its process has in addition.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// The user namespace, such as `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub userns: Option<String>,
    /// The process namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<Namespace>,
    /// The namespace of System V IPC.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<Namespace>,
    /// The namespace of the host's name, such as `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub uts: Option<String>,
    /// The namespace of control groups: `host` or `private`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: Option<String>,
    /// The control group to be in.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: Option<String>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
}

/// A namespace that can be shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Namespace {
    /// A mode of the engine: `host`, `private`, `shareable`, `none`.
    Mode(String),
    /// That of another container of its application.
    Container(ContainerName),
}

/// What a container may use. Bytes are bytes; a billion CPUs are a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Option<i64>,
    /// Memory and swap together; -1 for no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap: Option<i64>,
    /// Memory that is left to it when the host runs short.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_reservation: Option<i64>,
    /// How readily its memory is swapped out, in percent.
    #[serde(skip_serializing_if = "is_default")]
    pub swappiness: Option<i64>,
    /// CPUs, in billionths.
    #[serde(skip_serializing_if = "is_default")]
    pub nano_cpus: Option<i64>,
    /// Its weight among the others.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU in each period.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: Option<i64>,
    /// The period in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: Option<i64>,
    /// The CPUs it may run on, such as `0-3`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset: Option<String>,
    /// Processes; -1 for no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: Option<i64>,
    /// Bytes of /dev/shm.
    #[serde(skip_serializing_if = "is_default")]
    pub shm: Option<i64>,
    /// Soft and hard limits by name.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Whether the kernel spares it when memory is short.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    /// How readily the kernel kills it when memory is short.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: Option<i64>,
}

/// Where a container's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// The driver; the engine's default when `None`.
    pub driver: Option<String>,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// How a container waits for another one of its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// What must hold before it is started.
    pub condition: Condition,
    /// Whether it is restarted when the other one was.
    pub restart: bool,
}

/// What must hold of a container before those that depend on it are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It was started.
    Started,
    /// Its health check says that it is well.
    Healthy,
    /// It has run to its end with exit code 0.
    Completed,
}

/// What a network is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the engine's own switches, independent of each other")]
pub struct NetworkSettings {
    /// The driver; the engine's default when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// What the driver is told.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
    /// Whether nothing outside can be reached through it.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Whether containers that nobody planned may join.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// Whether it has IPv6 addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: bool,
    /// The driver that gives out addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub ipam_driver: Option<String>,
    /// What that driver is told.
    #[serde(skip_serializing_if = "is_default")]
    pub ipam_options: BTreeMap<String, String>,
    /// The ranges of addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub pools: Vec<Pool>,
    /// The author's labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

/// A range of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// The whole range, such as `172.28.0.0/16`.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: Option<String>,
    /// The part of it that containers get addresses from.
    #[serde(skip_serializing_if = "is_default")]
    pub range: Option<String>,
    /// The address of the host in it.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: Option<String>,
    /// Addresses that are taken, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub taken: BTreeMap<String, String>,
}

/// What a volume is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VolumeSettings {
    /// The driver; the engine's default when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// What the driver is told.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
    /// The author's labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

/// Digests settings by their serialised form, in which everything has one order.
pub fn digest_of(format: &str, settings: &impl Serialize) -> Digest {
    let mut fields = Fields::default();
    let text = serde_json::to_vec(settings).expect("these values have only texts as keys");
    fields.add("format", format.as_bytes()).add("settings", &text).finish()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
