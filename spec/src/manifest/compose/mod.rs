//! Reads compose.yaml: one project for each application, by the specification, with a complaint about every key that is not
//! acted on.
//!
//! Read from our own tree of YAML and not through the types of a crate: those forget where a key stands, stop at the first
//! mistake, and skip what they do not know. Relative paths mean the application's folder in the repository, and
//! [`PROJECTS`] on the host.

mod amounts;
mod variables;
mod ports;
mod rights;
mod limits;
mod network;
mod attached;
mod mounts;
mod service;
mod assemble;

use std::collections::{BTreeMap, BTreeSet};

use super::folder::Beside;
use super::model::{Container, File, FileKind, Network, Volume, owned_by_root};
use super::page::{Extent, Page};
use super::yaml::{self, Kind, Node};
use crate::container::VolumeSettings;
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::id::{AppName, ContainerName, HostPath, Mode, NetworkName, VolumeName, shown};
use attached::{Access, Content, Sort};
use network::Declared;
use variables::{Format, Variables};

/// Where the files of projects go: each has a folder of its application's name. Below /srv, which is for what a host serves,
/// and which the agent's service may write to.
const PROJECTS: &str = "/srv/compose";

/// What app.yaml says about its compose file.
#[derive(Default)]
pub(super) struct Choices {
    /// The profiles that are enabled.
    pub(super) profiles: BTreeSet<String>,
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
}

/// What is known of the project while its services are read.
struct Project<'p> {
    name: String,
    app: &'p AppName,
    beside: &'p BTreeMap<String, Beside>,
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
        choices.profiles = page.words(node, "`profiles`").into_iter().map(|(word, _)| word).collect();
    }
    if let Some((_, node)) = table.take("allow-privileged") {
        choices.privileged = page.words(node, "`allow-privileged`").into_iter().collect();
    }
    table.finish(page, "`compose`");
    choices
}

/// Reads the compose file `page` of application `app`.
pub(super) fn read(
    page: &mut Page<'_>,
    app: &AppName,
    vars: &BTreeMap<String, serde_json::Value>,
    choices: &Choices,
    beside: &BTreeMap<String, Beside>,
) -> (Brought, Vec<Diagnostic>) {
    let variables = vars.iter().filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect();
    let mut project = Project {
        name: app.to_string(),
        app,
        beside,
        variables,
        volumes: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        brought: Brought::default(),
        elsewhere: Vec::new(),
    };
    project.read_env();
    if let Some(mut node) = yaml::read(page) {
        variables::prepare(page, &mut node, &project.variables);
        project.whole(page, &node, choices);
    }
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
        if let Some((key, _)) = table.take("include") {
            page.error("not-supported", key.extent, "`include` in a compose file is not supported")
                .help("write the services into this file; an application of its own has a compose file of its own");
        }
        let mut networks = BTreeMap::new();
        for (key, node) in
            table.take("networks").and_then(|(_, node)| page.entries(node, "`networks`")).unwrap_or_default()
        {
            networks.insert(key.text.clone(), network::declared(page, key.extent, node));
        }
        for (key, node) in
            table.take("volumes").and_then(|(_, node)| page.entries(node, "`volumes`")).unwrap_or_default()
        {
            let declared = volume(page, key.extent, node);
            self.volumes.insert(key.text.clone(), declared);
        }
        for (key, node) in
            table.take("configs").and_then(|(_, node)| page.entries(node, "`configs`")).unwrap_or_default()
        {
            let content = attached::declared(page, self, key.extent, node);
            self.configs.insert(key.text.clone(), content);
        }
        for (key, node) in
            table.take("secrets").and_then(|(_, node)| page.entries(node, "`secrets`")).unwrap_or_default()
        {
            let content = attached::declared(page, self, key.extent, node);
            self.secrets.insert(key.text.clone(), content);
        }
        let services =
            table.take("services").and_then(|(_, node)| page.entries(node, "`services`")).unwrap_or_default();
        if services.is_empty() {
            page.error("compose-empty", node.extent, "this compose file has no services")
                .help("add services: { NAME: { image: … } }");
        }
        table.later(&["models"]).finish(page, "a compose file");
        assemble::services(page, self, services, &networks, choices);
    }
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

    /// Returns what a volume of this file is called on the engine, and notes that it is used.
    fn volume(&mut self, page: &mut Page<'_>, key: &str, extent: Extent) -> Option<VolumeName> {
        let Some(declared) = self.volumes.get(key) else {
            let near = page.near(key, self.volumes.keys().map(String::as_str)).map(super::words::did_you_mean);
            page.error("compose-volume", extent, format!("there is no volume `{}`", shown(key))).help(
                near.unwrap_or_else(|| {
                    format!("declare it: volumes: {{ {}: }}; a path begins with `./` or `/`", shown(key))
                }),
            );
            return None;
        };
        let called = match (&declared.name, &declared.settings) {
            (Some(name), _) => name.clone(),
            (None, None) => key.to_owned(),
            (None, Some(_)) => format!("{}_{key}", self.name),
        };
        let name = page.name("volume-name", declared.extent, "the name of a volume", VolumeName::parse(&called))?;
        let settings = declared.settings.clone().map(|mut settings| {
            let labels = [("project", self.name.clone()), ("volume", key.to_owned())];
            settings.labels.extend(labels.map(|(label, value)| (format!("com.docker.compose.{label}"), value)));
            settings
        });
        let location = page.at(declared.extent);
        self.brought.volumes.insert(name.clone(), Volume { settings, location });
        Some(name)
    }

    /// Returns the path on the host that a mount's source means, and installs the files of the folder that lie there. A
    /// relative path at which the folder has nothing is a place for data: the engine makes it, and nobody takes it away.
    fn host_path(&mut self, page: &mut Page<'_>, source: &str, extent: Extent) -> Option<String> {
        if source.starts_with('/') {
            let trimmed = source.trim_end_matches('/');
            if trimmed.is_empty() {
                return Some("/".to_owned());
            }
            return page
                .name("container-volume", extent, "a path of the host", HostPath::parse(trimmed))
                .map(String::from);
        }
        let within = self.within(page, source, extent)?;
        let below = format!("{within}/");
        let brought: Vec<String> =
            self.beside.keys().filter(|path| **path == within || path.starts_with(&below)).cloned().collect();
        for path in brought {
            self.install(&path, page.at(extent));
        }
        Some(format!("{PROJECTS}/{}/{within}", self.app))
    }

    /// Returns a relative path as the folder's files are called.
    fn within(&self, page: &mut Page<'_>, path: &str, extent: Extent) -> Option<String> {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                parts.pop()?;
            } else {
                parts.push(part);
            }
        }
        let good = !parts.is_empty() && !path.starts_with('~') && !path.contains("..");
        if !good {
            page.error(
                "compose-path",
                extent,
                format!("`{}` does not stay within the application's folder", shown(path)),
            )
            .help("name a file or folder beside compose.yaml, such as ./conf, or an absolute path of the host");
            return None;
        }
        Some(parts.join("/"))
    }

    fn install(&mut self, within: &str, location: crate::diagnostic::Location) {
        let Some(beside) = self.beside.get(within) else { return };
        let Ok(path) = HostPath::parse(&format!("{PROJECTS}/{}/{within}", self.app)) else { return };
        let kind = FileKind::Regular { content: beside.content.clone(), digest: Digest::of(&beside.content) };
        let mode = Mode::from_bits(if beside.executable { 0o755 } else { 0o644 });
        self.brought.used.insert(within.to_owned());
        self.brought.files.insert(path, owned_by_root(kind, mode, location));
    }

    /// Finds the file of a config or secret.
    fn file(&mut self, page: &mut Page<'_>, path: &str, extent: Extent) -> Option<Content> {
        if path.starts_with('/') {
            return page.name("compose-path", extent, "a path of the host", HostPath::parse(path)).map(Content::OnHost);
        }
        let within = self.within(page, path, extent)?;
        let Some(beside) = self.beside.get(&within) else {
            let near = page.near(&within, self.beside.keys().map(String::as_str)).map(super::words::did_you_mean);
            page.error("compose-path", extent, format!("the application's folder has no file `{}`", shown(&within)))
                .help(near.unwrap_or_else(|| "add it beside compose.yaml".to_owned()));
            return None;
        };
        let content = beside.content.clone();
        self.brought.used.insert(within);
        Some(Content::Bytes(content))
    }

    /// Installs a config or secret for one service, and returns its path on the host. Secrets lie in a folder that only root
    /// may enter: the container's user reads the mounted file all the same.
    fn attach(
        &mut self,
        page: &mut Page<'_>,
        sort: Sort,
        key: &str,
        access: &Access,
        extent: Extent,
    ) -> Option<String> {
        let (all, what, folder) = match sort {
            Sort::Config => (&self.configs, "config", ".configs"),
            Sort::Secret => (&self.secrets, "secret", ".secrets"),
        };
        let content = match all.get(key) {
            Some(Content::Bytes(bytes)) => bytes.clone(),
            Some(Content::OnHost(path)) => return Some(path.to_string()),
            Some(Content::Faulty) => return None,
            None => {
                let near = page.near(key, all.keys().map(String::as_str)).map(super::words::did_you_mean);
                page.error("compose-attached", extent, format!("there is no {what} `{}`", shown(key))).help(
                    near.unwrap_or_else(|| format!("declare it: {what}s: {{ {}: {{ file: ./NAME }} }}", shown(key))),
                );
                return None;
            }
        };
        let (uid, gid) = (access.uid.as_deref().unwrap_or("0"), access.gid.as_deref().unwrap_or("0"));
        let mode = Mode::from_bits(access.mode.unwrap_or(0o444));
        let own =
            if (uid, gid, mode.bits()) == ("0", "0", 0o444) { String::new() } else { format!("@{uid}.{gid}.{mode}") };
        let folder = format!("{PROJECTS}/{}/{folder}", self.app);
        let path =
            page.name("compose-attached", extent, "a file's name", HostPath::parse(&format!("{folder}/{key}{own}")))?;
        let location = page.at(extent);
        if let (Sort::Secret, Ok(folder)) = (sort, HostPath::parse(&folder)) {
            let file = owned_by_root(FileKind::Directory, Mode::from_bits(0o700), location.clone());
            self.brought.files.insert(folder, file);
        }
        let kind = FileKind::Regular { digest: Digest::of(&content), content };
        let file = File { owner: uid.to_owned(), group: gid.to_owned(), ..owned_by_root(kind, mode, location) };
        self.brought.files.insert(path.clone(), file);
        Some(path.to_string())
    }

    /// Reads `env_file` of a service; of several, the later ones win.
    fn env_files(&mut self, page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
        let items = match &node.kind {
            Kind::Sequence(items) => items.iter().collect(),
            Kind::Scalar { .. } | Kind::Mapping(_) => vec![node],
        };
        let mut env = BTreeMap::new();
        for item in items {
            let (mut path, mut required, mut format) = (None, true, Format::Compose);
            if let Kind::Mapping(_) = &item.kind {
                let Some(mut table) = page.table(item, "an entry of `env_file`") else { continue };
                path = table.take("path").and_then(|(_, node)| amounts::text(page, node, "`path`"));
                required = table.take("required").and_then(|(_, node)| amounts::switch(page, node, "`required`"))
                    != Some(false);
                let raw =
                    table.take("format").and_then(|(_, node)| page.choice(node, "`format`", &[("raw", Format::Raw)]));
                format = raw.unwrap_or(format);
                table.finish(page, "an entry of `env_file`");
            } else if let Some(text) = amounts::text(page, item, "`env_file`") {
                path = Some(text);
            }
            let Some(within) = path.and_then(|path| self.within(page, &path, item.extent)) else { continue };
            match self.beside.get(&within) {
                Some(beside) => {
                    let mut file = Page::new(&beside.path, std::str::from_utf8(&beside.content).unwrap_or_default());
                    env.extend(variables::read_file(&mut file, format, &self.variables));
                    file.close(&mut self.elsewhere);
                    self.brought.used.insert(within);
                }
                None if !required => {}
                None => {
                    page.error(
                        "compose-path",
                        item.extent,
                        format!("the application's folder has no file `{}`", shown(&within)),
                    )
                    .help("add it beside compose.yaml, or write required: false");
                }
            }
        }
        env
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
    settings.labels = table.take("labels").map(|(_, node)| service::labels(page, node)).unwrap_or_default();
    table.finish(page, "a volume");
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
