//! One service of a compose file: every key of the specification is read, or refused by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::{Condition, Health, Logging, Names, Namespace, Pull, Restart, Rights, Settings};
use crate::id::shown;
use crate::manifest::decode::Table;
use crate::manifest::image;
use crate::manifest::model::Port;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Key, Kind, Node};

use super::amounts::{command, labels, map, millis, number, one_or_more, pairs, switch, text, texts};
use super::network::{self, Wish};
use super::rights::Words;
use super::{Project, attached, limits, mounts, ports};

/// A service as written, before it is known what the others are called on the host.
pub(super) struct Service {
    pub(super) extent: Extent,
    pub(super) settings: Settings,
    pub(super) ports: Vec<Port>,
    pub(super) container_name: Option<String>,
    pub(super) replicas: i64,
    pub(super) restart: Option<Restart>,
    pub(super) after: Vec<After>,
    pub(super) wish: Wish,
    /// Services whose namespaces it joins, by what is joined.
    pub(super) joins: BTreeMap<&'static str, (String, Extent)>,
    /// Where the words stand that may hand the host over.
    pub(super) words: Words,
}

impl Service {
    /// Says whether it may end by itself. `restart` is `no` unless written, by the specification; but what nobody wrote it for,
    /// and publishes a port or has a health check, is there to run.
    pub(super) fn is_job(&self) -> bool {
        let has_check = self.settings.health.as_ref().is_some_and(|health| !health.is_off());
        match self.restart {
            Some(Restart::No | Restart::OnFailure(_)) => true,
            Some(Restart::Always | Restart::UnlessStopped) => false,
            None => self.ports.is_empty() && !has_check,
        }
    }
}

/// A dependency as written.
pub(super) struct After {
    pub(super) service: String,
    pub(super) condition: Condition,
    pub(super) restart: bool,
    pub(super) required: bool,
    pub(super) extent: Extent,
}

/// Keys that are refused, and what to do instead.
const REFUSED: [(&str, &str); 21] = [
    ("build", "build the image in CI, push it to a registry, and name it with `image`"),
    ("develop", "remove it: it is for a developer's machine"),
    ("external_links", "put both on one `external` network, and use the container's name"),
    ("volumes_from", "mount the same named volume in both services"),
    ("gpus", "remove it, or run this with `devices` and a line in app.yaml's `compose: { allow-privileged: … }`"),
    ("credential_spec", "remove it: it is for Windows"),
    ("isolation", "remove it: it is for Windows"),
    ("cpu_count", "use `cpus`"),
    ("cpu_percent", "use `cpus`"),
    ("cpu_rt_period", "remove it: no distribution's kernel grants it"),
    ("cpu_rt_runtime", "remove it: no distribution's kernel grants it"),
    ("blkio_config", "remove it; a slice with IOWeight= does it for the engine as a whole"),
    ("storage_opt", "remove it: it depends on the engine's storage"),
    ("annotations", "use `labels`"),
    ("label_file", "write the labels into `labels`"),
    ("post_start", "use a service of its own with `depends_on`"),
    ("pre_stop", "handle the stop signal in the image"),
    ("provider", "describe the service itself"),
    ("models", "describe the service itself"),
    ("use_api_socket", "mount the engine's socket, with a line in app.yaml's `compose: { allow-privileged: … }`"),
    ("pull_refresh_after", "remove it: what runs changes with a commit, not with the time"),
];

/// Reads a service. `None` where it lacks what it cannot do without.
pub(super) fn read(page: &mut Page<'_>, project: &mut Project<'_>, key: &Key, node: &Node) -> Option<Service> {
    let mut table = page.table(node, "a service")?;
    // Read before, when it was decided which services take part.
    table.take("profiles");
    // Replaced by what it stands for, or complained about.
    let is_lost = table.take("extends").is_some();
    // What is attached to a terminal matters to who types `docker compose up`.
    table.take("attach");
    let is_built = node_has(node, "build");
    limits::refuse(page, &mut table, &REFUSED);
    let mut settings = Settings::default();
    let named = table.take("image");
    let image = named.and_then(|(_, node)| image::read(page, node));
    if named.is_none() && !is_built && !is_lost && !table.has_misspelt("image") {
        let help = "add image: registry.example/name:version";
        page.error("container-image", key.extent, format!("service `{}` names no image", shown(&key.text))).help(help);
    }
    settings.image = image.unwrap_or_default();
    process(page, project, &mut table, &mut settings);
    settings.limits = limits::read(page, &mut table);
    let restart = table.take("restart").and_then(|(_, node)| restart(page, node));
    let scale = table.take("scale").and_then(|(_, node)| number(page, node, "`scale`", (0, 100)));
    let deploy =
        table.take("deploy").map(|(_, node)| limits::deploy(page, node, &mut settings.limits)).unwrap_or_default();
    settings.rights = rights(page, &mut table);
    settings.names = names(page, &mut table);
    let ports = table.take("ports").map(|(_, node)| ports::read(page, node)).unwrap_or_default();
    let exposed = table.take("expose").map(|(_, node)| ports::expose(page, node)).unwrap_or_default();
    settings.expose = exposed.into_iter().collect();
    if let Some((_, node)) = table.take("volumes") {
        settings.mounts = mounts::read(page, project, node);
    }
    if let Some((_, node)) = table.take("tmpfs") {
        settings.mounts.extend(mounts::tmpfs(page, node));
    }
    attached::read(page, project, &mut table, &mut settings);
    mounts::check_targets(page, key.extent, &settings.mounts);
    let joins = namespaces(page, &mut table, &mut settings.rights);
    let wish = network::wish(page, &mut table);
    let mut after = table.take("depends_on").map(|(_, node)| depends(page, node)).unwrap_or_default();
    links(page, &mut table, &mut after);
    let container_name = table.take("container_name").and_then(|(_, node)| text(page, node, "`container_name`"));
    table.finish(page, "a service");
    let replicas = deploy.replicas.or(scale).unwrap_or(1);
    let restart = deploy.restart.or(restart);
    let (extent, words) = (key.extent, Words::of(node));
    Some(Service { extent, settings, ports, container_name, replicas, restart, after, wish, joins, words })
}

/// Reads what runs and how.
fn process(page: &mut Page<'_>, project: &mut Project<'_>, table: &mut Table<'_>, settings: &mut Settings) {
    settings.command = table.take("command").map(|(_, node)| command(page, node, "`command`")).unwrap_or_default();
    settings.entrypoint =
        table.take("entrypoint").map(|(_, node)| command(page, node, "`entrypoint`")).unwrap_or_default();
    if let Some((_, node)) = table.take("env_file") {
        settings.env = project.env_files(page, node);
    }
    for (name, value, extent) in
        table.take("environment").map(|(_, node)| pairs(page, node, "`environment`")).unwrap_or_default()
    {
        match value.or_else(|| project.variables.get(&name).cloned()) {
            Some(value) => {
                settings.env.insert(name, value);
            }
            None => {
                let message =
                    format!("variable `{}` has no value here, nor in `.env` or `vars` of app.yaml", shown(&name));
                page.error("compose-variable", extent, message).help("give it one; a host's environment is never used");
            }
        }
    }
    let mut word =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
    settings.user = word(page, "user");
    settings.working_dir = word(page, "working_dir");
    settings.platform = word(page, "platform");
    settings.runtime = word(page, "runtime");
    settings.stop_signal = word(page, "stop_signal");
    let mut flag =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| switch(page, node, &format!("`{key}`")));
    settings.tty = flag(page, "tty").unwrap_or(false);
    settings.stdin_open = flag(page, "stdin_open").unwrap_or(false);
    settings.init = flag(page, "init");
    let pulls = [
        ("missing", Pull::Missing),
        ("if_not_present", Pull::Missing),
        ("always", Pull::Always),
        ("never", Pull::Never),
    ];
    settings.pull =
        table.take("pull_policy").and_then(|(_, node)| page.choice(node, "`pull_policy`", &pulls)).unwrap_or_default();
    settings.labels = table.take("labels").map(|(_, node)| labels(page, node)).unwrap_or_default();
    settings.stop_secs = table.take("stop_grace_period").and_then(|(_, node)| grace(page, node));
    settings.health = table.take("healthcheck").and_then(|(_, node)| health(page, node));
    settings.logging = table.take("logging").and_then(|(_, node)| logging(page, node));
}

fn grace(page: &mut Page<'_>, node: &Node) -> Option<u32> {
    const MOST: u64 = 600;
    let seconds = millis(page, node, "`stop_grace_period`")?.div_ceil(1000);
    if seconds > MOST {
        page.error("compose-value", node.extent, "a container may take at most 10 minutes to stop")
            .help("write 10m or less");
        return None;
    }
    u32::try_from(seconds).ok()
}

fn restart(page: &mut Page<'_>, node: &Node) -> Option<Restart> {
    let text = page.as_written(node, "`restart`")?;
    let parsed = match text.split_once(':') {
        None if text == "no" || text == "false" => Some(Restart::No),
        None if text == "always" => Some(Restart::Always),
        None if text == "unless-stopped" => Some(Restart::UnlessStopped),
        None if text == "on-failure" => Some(Restart::OnFailure(None)),
        Some(("on-failure", most)) => most.parse().ok().map(|most| Restart::OnFailure(Some(most))),
        _ => None,
    };
    if parsed.is_none() {
        page.error("unknown-value", node.extent, format!("`restart` is not `{}`", shown(text)))
            .help("write no, always, unless-stopped, on-failure or on-failure:5");
    }
    parsed
}

fn health(page: &mut Page<'_>, node: &Node) -> Option<Health> {
    let mut table = page.table(node, "`healthcheck`")?;
    let mut health = Health::default();
    let disabled = table.take("disable").and_then(|(_, node)| switch(page, node, "`disable`")) == Some(true);
    if let Some((_, node)) = table.take("test") {
        health.test = match &node.kind {
            Kind::Sequence(_) => texts(page, node, "`test`"),
            _ => text(page, node, "`test`").map(|line| vec!["CMD-SHELL".to_owned(), line]).unwrap_or_default(),
        };
        let first = health.test.first().map(String::as_str);
        if !matches!(first, None | Some("NONE" | "CMD" | "CMD-SHELL")) {
            page.error("compose-value", node.extent, "a test that is a list begins with `CMD`, `CMD-SHELL` or `NONE`")
                .help("write test: [\"CMD\", \"program\", \"argument\"]");
        }
    }
    let mut amount =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| millis(page, node, &format!("`{key}`")));
    health.interval_ms = amount(page, "interval");
    health.timeout_ms = amount(page, "timeout");
    health.start_period_ms = amount(page, "start_period");
    health.start_interval_ms = amount(page, "start_interval");
    let retries = table.take("retries").and_then(|(_, node)| number(page, node, "`retries`", (0, 1_000_000)));
    health.retries = retries.and_then(|retries| u32::try_from(retries).ok());
    table.finish(page, "`healthcheck`");
    if disabled {
        return Some(Health { test: vec!["NONE".to_owned()], ..Health::default() });
    }
    Some(health)
}

fn logging(page: &mut Page<'_>, node: &Node) -> Option<Logging> {
    let mut table = page.table(node, "`logging`")?;
    let driver = table.take("driver").and_then(|(_, node)| text(page, node, "`driver`"));
    let options = table.take("options").map(|(_, node)| map(page, node, "`options`")).unwrap_or_default();
    table.finish(page, "`logging`");
    Some(Logging { driver, options })
}

fn names(page: &mut Page<'_>, table: &mut Table<'_>) -> Names {
    let mut list = |page: &mut Page<'_>, key| {
        table.take(key).map(|(_, node)| one_or_more(page, node, &format!("`{key}`"))).unwrap_or_default()
    };
    let (dns, dns_search, dns_options) = (list(page, "dns"), list(page, "dns_search"), list(page, "dns_opt"));
    let mut hosts = Vec::new();
    if let Some((_, node)) = table.take("extra_hosts") {
        for (name, address, extent) in pairs(page, node, "`extra_hosts`") {
            let line = match address {
                Some(address) => format!("{name}:{}", address.trim_matches(['[', ']'])),
                None => name,
            };
            if !line.contains(':') {
                page.error("compose-value", extent, format!("`{}` has no address", shown(&line)))
                    .help("write \"name=address\"");
            }
            hosts.push(line);
        }
    }
    let mut word =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
    Names {
        hostname: word(page, "hostname"),
        domainname: word(page, "domainname"),
        dns,
        dns_search,
        dns_options,
        hosts,
    }
}

fn rights(page: &mut Page<'_>, table: &mut Table<'_>) -> Rights {
    let mut list = |page: &mut Page<'_>, key| {
        table.take(key).map(|(_, node)| texts(page, node, &format!("`{key}`"))).unwrap_or_default()
    };
    let capabilities =
        |names: Vec<String>| -> BTreeSet<String> { names.iter().map(|name| name.to_uppercase()).collect() };
    let mut rights = Rights {
        cap_add: capabilities(list(page, "cap_add")),
        cap_drop: capabilities(list(page, "cap_drop")),
        security_opt: list(page, "security_opt"),
        groups: list(page, "group_add"),
        device_rules: list(page, "device_cgroup_rules"),
        ..Rights::default()
    };
    if let Some((_, node)) = table.take("devices") {
        rights.devices = devices(page, node);
    }
    let mut flag =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| switch(page, node, &format!("`{key}`")));
    rights.privileged = flag(page, "privileged").unwrap_or(false);
    rights.read_only = flag(page, "read_only").unwrap_or(false);
    let mut word =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
    rights.userns = word(page, "userns_mode");
    rights.uts = word(page, "uts");
    rights.cgroup_parent = word(page, "cgroup_parent");
    let modes = [("host", "host"), ("private", "private")];
    let mode = table.take("cgroup").and_then(|(_, node)| page.choice(node, "`cgroup`", &modes));
    rights.cgroup = mode.map(str::to_owned);
    rights.sysctls = table.take("sysctls").map(|(_, node)| map(page, node, "`sysctls`")).unwrap_or_default();
    rights
}

fn devices(page: &mut Page<'_>, node: &Node) -> Vec<String> {
    let mut devices = Vec::new();
    for item in page.list(node, "`devices`").unwrap_or_default() {
        if let Kind::Mapping(_) = &item.kind {
            let Some(mut table) = page.table(item, "a device") else { continue };
            let mut word =
                |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
            let source = word(page, "source");
            let (target, permissions) = (word(page, "target"), word(page, "permissions"));
            table.finish(page, "a device");
            if let Some(source) = source {
                let target = target.unwrap_or_else(|| source.clone());
                devices.push(format!("{source}:{target}:{}", permissions.as_deref().unwrap_or("rwm")));
            }
        } else if let Some(device) = text(page, item, "a device") {
            devices.push(device);
        }
    }
    devices
}

/// Reads `pid` and `ipc`: a mode, or a service whose namespace is joined.
fn namespaces(
    page: &mut Page<'_>,
    table: &mut Table<'_>,
    rights: &mut Rights,
) -> BTreeMap<&'static str, (String, Extent)> {
    let mut joins = BTreeMap::new();
    for key in ["pid", "ipc"] {
        let Some((_, node)) = table.take(key) else { continue };
        let Some(mode) = text(page, node, &format!("`{key}`")) else { continue };
        if let Some(service) = mode.strip_prefix("service:") {
            joins.insert(key, (service.to_owned(), node.extent));
            continue;
        }
        if !matches!(mode.as_str(), "host" | "private" | "shareable" | "none") {
            page.error("unknown-value", node.extent, format!("`{key}` is not `{}`", shown(&mode)))
                .help("write host, private or service:NAME");
            continue;
        }
        let namespace = Some(Namespace::Mode(mode));
        if key == "pid" { rights.pid = namespace } else { rights.ipc = namespace }
    }
    joins
}

/// Says whether a service has the key, before anybody takes it.
fn node_has(node: &Node, key: &str) -> bool {
    matches!(&node.kind, Kind::Mapping(entries) if entries.iter().any(|(it, _)| it.text == key))
}

fn plain(service: String, extent: Extent) -> After {
    After { service, condition: Condition::Started, restart: false, required: true, extent }
}

/// Reads `links`, which order services and restart them with each other; by name they find each other anyway.
fn links(page: &mut Page<'_>, table: &mut Table<'_>, after: &mut Vec<After>) {
    let Some((_, node)) = table.take("links") else { return };
    for (link, extent) in page.words(node, "`links`") {
        let (service, alias) = link.split_once(':').unwrap_or((&link, &link));
        if alias != service {
            let message = format!("the other name `{}` of a link is not supported", shown(alias));
            page.error("not-supported", extent, message).help(format!(
                "give it to the service: {}: {{ networks: {{ default: {{ aliases: [{}] }} }} }}",
                shown(service),
                shown(alias)
            ));
        }
        if !after.iter().any(|it| it.service == service) {
            after.push(After { restart: true, ..plain(service.to_owned(), extent) });
        }
    }
}

fn depends(page: &mut Page<'_>, node: &Node) -> Vec<After> {
    if let Kind::Sequence(_) = &node.kind {
        return page.words(node, "`depends_on`").into_iter().map(|(service, extent)| plain(service, extent)).collect();
    }
    let conditions = [
        ("service_started", Condition::Started),
        ("service_healthy", Condition::Healthy),
        ("service_completed_successfully", Condition::Completed),
    ];
    let mut all = Vec::new();
    for (key, node) in page.entries(node, "`depends_on`").unwrap_or_default() {
        let Some(mut table) = page.table(node, "a dependency") else { continue };
        let mut after = plain(key.text.clone(), key.extent);
        let condition = table.take("condition").and_then(|(_, node)| page.choice(node, "`condition`", &conditions));
        after.condition = condition.unwrap_or(Condition::Started);
        after.restart = table.take("restart").and_then(|(_, node)| switch(page, node, "`restart`")).unwrap_or(false);
        after.required = table.take("required").and_then(|(_, node)| switch(page, node, "`required`")).unwrap_or(true);
        table.finish(page, "a dependency");
        all.push(after);
    }
    all
}
