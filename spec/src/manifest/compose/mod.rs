//! Reads compose.yaml: one project for each application, by the specification, with a complaint about every key that is not
//! acted on.
//!
//! Read from our own tree of YAML and not through the types of a crate: those forget where a key stands, stop at the first
//! mistake, and skip what they do not know. Relative paths mean the application's folder in the repository, and
//! [`PROJECTS`] on the host.

mod amounts;
mod variables;
mod merge;
mod sources;
mod ports;
mod rights;
mod limits;
mod network;
mod attached;
mod mounts;
mod project;
mod service;
mod assemble;

use std::collections::{BTreeMap, BTreeSet};

use super::decode::Table;
use super::folder::{Beside, Encrypted};
use super::model::{Container, File, Network, Volume};
use super::page::{Extent, Page};
use super::words::did_you_mean;
use super::yaml::{Key, Node};
use crate::container::VolumeSettings;
use crate::diagnostic::Diagnostic;
use crate::id::{AppName, ContainerName, HostPath, NetworkName, VolumeName, shown};
use attached::Content;
use network::Declared;
use sources::Sources;
use variables::{Format, Variables};

/// Where the files of projects go: each has a folder of its application's name. Below /srv, which is for what a host serves,
/// and which the agent's service may write to.
const PROJECTS: &str = "/srv/compose";

/// The complaints that a variable alone may cause.
pub(super) const OF_VARIABLES: [&str; 2] = ["compose-variable", "env-file"];

/// What app.yaml says about its compose file.
#[derive(Default)]
pub(super) struct Choices {
    /// The profiles that are enabled, and where that is written.
    pub(super) profiles: BTreeMap<String, Extent>,
    /// The services that may have the host, and where that is written.
    pub(super) privileged: BTreeMap<String, Extent>,
}

/// What a compose file brings.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) containers: BTreeMap<ContainerName, Container>,
    pub(super) networks: BTreeMap<NetworkName, Network>,
    pub(super) volumes: BTreeMap<VolumeName, Volume>,
    pub(super) files: BTreeMap<HostPath, File>,
    /// The files of the folder that it names, by their path within it.
    pub(super) used: BTreeSet<String>,
    /// What its services are called, whether they take part or not.
    pub(super) services: BTreeSet<String>,
    /// The profiles that it knows.
    pub(super) profiles: BTreeSet<String>,
}

/// What is known of the project while its services are read.
struct Project<'p> {
    name: String,
    app: &'p AppName,
    beside: &'p BTreeMap<String, Beside>,
    encrypted: &'p BTreeMap<String, Encrypted>,
    variables: Variables,
    volumes: BTreeMap<String, Declared<VolumeSettings>>,
    configs: BTreeMap<String, Content>,
    secrets: BTreeMap<String, Content>,
    brought: Brought,
    /// Complaints about other files than compose.yaml.
    elsewhere: Vec<Diagnostic>,
}

/// Reads `compose` of app.yaml.
pub(super) fn choices(page: &mut Page<'_>, node: &Node) -> Choices {
    let mut choices = Choices::default();
    let Some(mut table) = page.table(node, "`compose`") else { return choices };
    if let Some((_, node)) = table.take("profiles") {
        choices.profiles = page.words(node, "`profiles`").into_iter().collect();
    }
    if let Some((_, node)) = table.take("allow-privileged") {
        choices.privileged = page.words(node, "`allow-privileged`").into_iter().collect();
    }
    table.finish(page, "`compose`");
    choices
}

impl Choices {
    /// Complains about services and profiles that the compose file does not have.
    pub(super) fn check(&self, page: &mut Page<'_>, brought: &Brought) {
        let all = [("service", &self.privileged, &brought.services), ("profile", &self.profiles, &brought.profiles)];
        for (what, wanted, known) in all {
            for (name, extent) in wanted.iter().filter(|(name, _)| !known.contains(*name)) {
                let near = page.near(name, known.iter().map(String::as_str)).map(did_you_mean);
                page.error("compose-choice", *extent, format!("the compose file has no {what} `{}`", shown(name)))
                    .help(near.unwrap_or_else(|| "remove it".to_owned()));
            }
        }
    }
}

/// Reads the compose file `page` of application `app`.
pub(super) fn read<'t>(
    page: &mut Page<'t>,
    app: &AppName,
    vars: &BTreeMap<String, serde_json::Value>,
    choices: &Choices,
    (beside, encrypted): (&'t BTreeMap<String, Beside>, &'t BTreeMap<String, Encrypted>),
) -> (Brought, Vec<Diagnostic>) {
    let variables = vars.iter().filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect();
    let mut project = Project {
        name: app.to_string(),
        app,
        beside,
        encrypted,
        variables,
        volumes: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        brought: Brought::default(),
        elsewhere: Vec::new(),
    };
    project.read_env();
    let mut sources = Sources::new(beside);
    if let Some(node) = sources.whole(page, &project.variables) {
        project.whole(page, &node, choices);
    }
    project.brought.used.extend(sources.used);
    project.elsewhere.extend(sources.elsewhere);
    (project.brought, project.elsewhere)
}

/// Returns the text of a value of `vars`; lists and maps have none.
fn plain(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(value.to_string()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
    }
}

impl Project<'_> {
    /// Reads `.env`. What app.yaml says wins: it is what differs from host to host.
    fn read_env(&mut self) {
        let Some(Beside { path, content, .. }) = self.beside.get(".env") else { return };
        self.brought.used.insert(".env".to_owned());
        let mut page = Page::new(path, std::str::from_utf8(content).unwrap_or_default());
        for (name, value) in variables::read_file(&mut page, Format::Compose, &self.variables) {
            if name.starts_with("COMPOSE_") {
                page.error("not-supported", Extent::new(0, 0), format!("`{}` in `.env` is not read", shown(&name)))
                    .help("say it in app.yaml, such as compose: { profiles: [debug] }");
            }
            self.variables.entry(name).or_insert(value);
        }
        page.close(&mut self.elsewhere);
    }

    fn whole(&mut self, page: &mut Page<'_>, node: &Node, choices: &Choices) {
        let Some(mut table) = page.table(node, "a compose file") else { return };
        if let Some((key, _)) = table.take("version") {
            page.warning("compose-version", key.extent, "`version` has no meaning any more").help("remove it");
        }
        if let Some((_, node)) = table.take("name") {
            self.rename(page, node);
        }
        let mut networks = BTreeMap::new();
        for (key, node) in named(page, &mut table, "networks") {
            networks.insert(key.text.clone(), network::declared(page, key.extent, node));
        }
        for (key, node) in named(page, &mut table, "volumes") {
            let declared = volume(page, key.extent, node);
            self.volumes.insert(key.text.clone(), declared);
        }
        for (key, node) in named(page, &mut table, "configs") {
            let content = attached::declared(page, self, key.extent, node);
            self.configs.insert(key.text.clone(), content);
        }
        for (key, node) in named(page, &mut table, "secrets") {
            let content = attached::declared(page, self, key.extent, node);
            self.secrets.insert(key.text.clone(), content);
        }
        let services = named(page, &mut table, "services");
        if services.is_empty() {
            page.error("compose-empty", node.extent, "this compose file has no services")
                .help("add services: { NAME: { image: … } }");
        }
        table.later(&["models"]).finish(page, "a compose file");
        assemble::services(page, self, services, &networks, choices);
    }
}

/// Takes one of the maps at the top, and checks the names in it by the grammar of the specification.
fn named<'n>(page: &mut Page<'_>, table: &mut Table<'n>, what: &'static str) -> &'n [(Key, Node)] {
    let Some((_, node)) = table.take(what).filter(|(_, node)| !node.is_null()) else { return &[] };
    let entries = page.entries(node, &format!("`{what}`")).unwrap_or_default();
    for (key, _) in entries {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if key.text.is_empty() || !key.text.chars().all(good) || key.text.starts_with('.') {
            page.error("compose-name", key.extent, format!("`{}` is not a name within `{what}`", shown(&key.text)))
                .help("use letters, digits, `.`, `_` and `-`");
        }
    }
    entries
}

impl Project<'_> {
    fn rename(&mut self, page: &mut Page<'_>, node: &Node) {
        let Some(name) = page.as_written(node, "`name`") else { return };
        let good = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
        if !good || name.len() > 63 {
            page.error("compose-name", node.extent, format!("`{}` is not the name of a project", shown(name)))
                .help("use lower-case letters, digits, `-` and `_`, or remove it: it is the application's name then");
            return;
        }
        name.clone_into(&mut self.name);
    }
}

/// Reads one of the top-level `volumes`.
fn volume(page: &mut Page<'_>, extent: Extent, node: &Node) -> Declared<VolumeSettings> {
    let mut settings = VolumeSettings::default();
    if node.is_null() {
        return Declared { name: None, settings: Some(settings), extent };
    }
    let Some(mut table) = page.table(node, "a volume") else { return Declared { name: None, settings: None, extent } };
    let (name, external) = network::identity(page, &mut table);
    settings.driver = table.take("driver").and_then(|(_, node)| amounts::text(page, node, "`driver`"));
    settings.options =
        table.take("driver_opts").map(|(_, node)| amounts::map(page, node, "`driver_opts`")).unwrap_or_default();
    settings.labels = table.take("labels").map(|(_, node)| amounts::labels(page, node)).unwrap_or_default();
    table.finish(page, "a volume");
    let device = settings.options.get("device");
    let is_bind = settings.options.get("o").is_some_and(|o| o.split(',').any(|word| matches!(word, "bind" | "rbind")));
    if is_bind && device.is_some_and(|device| !device.starts_with('/')) {
        page.error("compose-path", extent, "the folder of this volume is not an absolute path of the host")
            .help("write it in full, or mount it in the service by its relative path");
    }
    if let Some(why) =
        settings.options.get("device").filter(|it| it.starts_with('/')).and_then(|it| super::critical::mount(it))
    {
        page.error("container-mount", extent, format!("this volume opens the host: {why}"))
            .help("mount only what the services need");
    }
    if external && settings != VolumeSettings::default() {
        page.error("compose-volume", extent, "an external volume is made by something else")
            .help("keep only `external` and `name`");
    }
    Declared { name, settings: (!external).then_some(settings), extent }
}
