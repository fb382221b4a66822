//! Puts one application together: its folder and its app.yaml.

use std::collections::{BTreeMap, BTreeSet};

use super::artifacts;
use super::checks;
use super::compose;
use super::container;
use super::decode::{Table, values};
use super::endpoints::{self, Offer};
use super::expressions::{self, Expression};
use super::files;
use super::folder::{self, Folder};
use super::layers::{Layer, Source};
use super::model::{App, FileKind, Host, QuadletNames, State, Unit, Watch, owned_by_root};
use super::needs;
use super::page::{Extent, Page};
use super::place;
use super::policy::DRIFT;
use super::selector::Place;
use super::units;
use super::user;
use super::yaml;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, Mode, ResourceId, UnitName};
use crate::tree::Entry;

/// What the file is called.
pub(super) const APP_YAML: &str = "app.yaml";

/// What app.yaml says about the application as a whole, before its parts are read.
pub(super) struct Head {
    /// Which hosts have it.
    pub(super) place: Place,
    /// Values for its templates.
    pub(super) vars: BTreeMap<String, serde_json::Value>,
    /// Whether these are all that it means to give.
    pub(super) vars_are_sound: bool,
    /// What it offers to the others.
    pub(super) offers: BTreeMap<String, Offer>,
    /// Whether these are all that it means to offer.
    pub(super) offers_are_sound: bool,
    /// The texts of app.yaml that are templates.
    pub(super) expressions: Vec<Expression>,
}

/// Returns where the app.yaml among `files` stands, and its text; an empty one where there is none, or none to be read.
pub(super) fn text<'f>(files: &'f Layer<'_>) -> (&'f str, &'f str) {
    match files.get(APP_YAML) {
        Some(Source { path, entry: Entry::File { bytes, .. }, .. }) => {
            (path, std::str::from_utf8(bytes).unwrap_or_default())
        }
        Some(source) => (source.path, ""),
        None => (APP_YAML, ""),
    }
}

/// Reads the head of the app.yaml among `files`.
pub(super) fn head(
    files: &Layer<'_>,
    hosts: Option<&BTreeMap<HostName, Host>>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Head {
    let (path, text) = text(files);
    let mut page = Page::new(path, text);
    let node = yaml::read(&mut page);
    // Whoever reads the folder says what is wrong with a file that is no text.
    let is_text = files
        .get(APP_YAML)
        .is_none_or(|source| matches!(&source.entry, Entry::File { bytes, .. } if std::str::from_utf8(bytes).is_ok()));
    let readable = node.is_some() && is_text;
    let node = node.filter(|node| !node.is_null());
    let mut table = node.as_ref().and_then(|node| page.table(node, APP_YAML));
    let is_plain = readable && node.is_some() == table.is_some();
    let place = place_of(&mut page, table.as_mut(), hosts, is_plain);
    let before = page.errors();
    let vars = table.as_mut().and_then(|table| table.take("vars")).map(|(_, node)| values(&mut page, node, "`vars`"));
    let vars_are_sound = is_plain && page.errors() == before;
    let before = page.errors();
    let offers = table.as_mut().and_then(|table| table.take("endpoints"));
    let offers = offers.map(|(_, node)| endpoints::offers(&mut page, node)).unwrap_or_default();
    let offers_are_sound = is_plain && page.errors() == before;
    let expressions = node.as_ref().map(|node| expressions::find(&mut page, node)).unwrap_or_default();
    page.close(diagnostics);
    Head { place, vars: vars.unwrap_or_default(), vars_are_sound, offers, offers_are_sound, expressions }
}

/// What cannot be read is placed nowhere: it is an error already, and guesses would only add false ones.
fn nowhere() -> Place {
    Place::Any(Vec::new())
}

fn place_of(
    page: &mut Page<'_>,
    table: Option<&mut Table<'_>>,
    hosts: Option<&BTreeMap<HostName, Host>>,
    is_plain: bool,
) -> Place {
    match table.and_then(|table| table.take("place")) {
        Some((_, node)) => place::read(page, node, hosts).unwrap_or_else(nowhere),
        None if is_plain => Place::All,
        None => nowhere(),
    }
}

/// Reads the application whose folder is `root`, layered and rendered as `files`, with the rendered `texts` of its app.yaml;
/// what its units watch goes to `watches`. A compose file is told `vars`, those of
/// environment and host over the application's own; while not all are known, none is called unset.
pub(super) fn read(
    (name, root, vars): (&AppName, &str, Option<&BTreeMap<String, serde_json::Value>>),
    files: &[Source<'_>],
    texts: &BTreeMap<usize, String>,
    hosts: Option<&BTreeMap<HostName, Host>>,
    watches: &mut BTreeSet<Watch>,
    diagnostics: &mut Vec<Diagnostic>,
) -> App {
    let mut folder = folder::sort(files, diagnostics);
    let (path, text) = folder.app_yaml.take().unwrap_or((format!("{root}/{APP_YAML}"), ""));
    let mut page = Page::new(&path, text);
    let mut node = yaml::read(&mut page);
    let readable = node.is_some();
    if let Some(node) = &mut node {
        // Complaints about keys are the same here and in the head, and are made once.
        expressions::find(&mut page, node);
        expressions::substitute(node, texts);
    }
    let node = node.filter(|node| !node.is_null());
    let table = node.as_ref().and_then(|node| page.table(node, APP_YAML));
    let is_plain = readable && node.is_some() == table.is_some();
    let app = assemble((&mut page, name, vars), table, &mut folder, hosts, watches, is_plain);
    page.close(diagnostics);
    let is_empty =
        folder.compose.is_none() && app.files.is_empty() && app.units.is_empty() && app.containers.is_empty();
    if is_empty
        && is_plain
        && !folder.is_faulty
        && !diagnostics.iter().any(|it| it.location.file == path && it.is_error())
    {
        let message = format!("application `{name}` brings nothing: no unit, no file and no container");
        let mut complaint = Diagnostic::error("empty-app", Location::whole(root), message);
        complaint.help(
            "add what it consists of, or remove the folder; an empty folder never means that something is removed",
        );
        diagnostics.push(complaint);
    }
    app
}

/// Adds what the compose file brings, and complains where app.yaml speaks of one that is not there.
fn project(
    page: &mut Page<'_>,
    app: &mut App,
    (name, vars): (&AppName, Option<&BTreeMap<String, serde_json::Value>>),
    choices: Option<(Extent, compose::Choices)>,
    folder: &Folder<'_>,
) {
    let Some((path, text)) = &folder.compose else {
        if let Some((extent, _)) = choices {
            page.error("compose-choice", extent, "`compose` speaks of a compose file, and the folder has none")
                .help("add compose.yaml beside app.yaml, or remove this");
        }
        return;
    };
    let choices = choices.map(|(_, choices)| choices).unwrap_or_default();
    let mut file = Page::new(path, text);
    let none = BTreeMap::new();
    let (mut brought, mut said) =
        compose::read(&mut file, name, vars.unwrap_or(&none), &choices, (&folder.beside, &folder.encrypted));
    file.close(&mut said);
    if vars.is_none() {
        said.retain(|it| !compose::OF_VARIABLES.contains(&it.rule));
    }
    if said.iter().all(|it| !it.is_error()) {
        said.extend(folder::unopened(folder, &brought.used));
        said.extend(folder::strangers(folder, &brought.used));
        choices.check(page, &brought);
    }
    let mut conflict = |what: String, location: Location, other: Location| {
        let mut complaint = Diagnostic::error("conflict", location, format!("{what} is wanted twice by `{name}`"));
        complaint.help("keep one of the two").related(other, "wanted here as well");
        said.push(complaint);
    };
    for (container, wanted) in std::mem::take(&mut brought.containers) {
        match app.containers.get(&container) {
            Some(other) => conflict(format!("container `{container}`"), other.location.clone(), wanted.location),
            None => drop(app.containers.insert(container, wanted)),
        }
    }
    for (path, file) in std::mem::take(&mut brought.files) {
        match app.files.get(&path) {
            Some(other) => conflict(format!("path `{path}`"), other.location.clone(), file.location),
            None => drop(app.files.insert(path, file)),
        }
    }
    app.networks.extend(brought.networks);
    app.volumes.extend(brought.volumes);
    said.into_iter().for_each(|it| page.add(it));
}

fn assemble(
    (page, name, vars): (&mut Page<'_>, &AppName, Option<&BTreeMap<String, serde_json::Value>>),
    table: Option<Table<'_>>,
    folder: &mut Folder<'_>,
    hosts: Option<&BTreeMap<HostName, Host>>,
    watches: &mut BTreeSet<Watch>,
    is_plain: bool,
) -> App {
    let mut table = table;
    let mut app = App {
        place: place_of(page, table.as_mut(), hosts, is_plain),
        drift: None,
        adopt: false,
        policies: BTreeMap::new(),
        vars: BTreeMap::new(),
        user: None,
        files: BTreeMap::new(),
        units: BTreeMap::new(),
        drop_ins: BTreeSet::new(),
        quadlets: Vec::new(),
        containers: BTreeMap::new(),
        rollout: None,
        needs: BTreeMap::new(),
        checks: Vec::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
    };
    let mut take = |key| table.as_mut().and_then(|table| table.take(key));
    if let Some((_, node)) = take("drift") {
        app.drift = page.choice(node, "`drift`", &DRIFT);
    }
    if let Some((_, node)) = take("adopt") {
        app.adopt = page.boolean(node, "`adopt`").unwrap_or(false);
    }
    if let Some((_, node)) = take("vars") {
        app.vars = values(page, node, "`vars`");
    }
    if let Some((_, node)) = take("endpoints") {
        // They were taken in with the head; what is wrong with them is said there and here alike.
        endpoints::offers(page, node);
    }
    let user = take("user").and_then(|(key, node)| Some((key.extent, user::read(page, (key.extent, node))?)));
    if let Some((extent, user)) = &user {
        user::place(page, folder, *extent, user);
    }
    let policies = &mut app.policies;
    app.units = units::read(page, take("units").map(|(_, node)| node), folder, watches, policies);
    app.files = files::read(page, take("files").map(|(_, node)| node), folder, policies);
    if let Some((_, node)) = take("artifacts") {
        artifacts::read(page, node, folder, &mut app.files, policies);
    }
    let choices = take("compose").map(|(key, node)| (key.extent, compose::choices(page, node)));
    if let Some((_, node)) = take("containers") {
        app.containers = container::read(page, node, policies);
    }
    if let Some((_, node)) = take("rollout") {
        let name = page.text(node, "`rollout`").map(HostName::parse);
        let name = name.and_then(|name| page.name("rollout-name", node.extent, "a rollout's name", name));
        app.rollout = name.map(|name| (name.as_str().to_owned(), page.at(node.extent)));
    }
    if let Some((_, node)) = take("needs") {
        app.needs = needs::read(page, node);
    }
    if let Some((_, node)) = take("checks") {
        app.checks = checks::read(page, node);
    }
    project(page, &mut app, (name, vars), choices, folder);
    texts(&mut app, folder);
    app.quadlets = quadlets(folder, &app.units);
    app.drop_ins = folder.drop_ins.iter().map(|it| it.unit.clone()).filter(|unit| !unit.is_template()).collect();
    if let Some((_, user)) = &user {
        user::give(page, &mut app, user);
    }
    if let Some(table) = table {
        table.finish(page, APP_YAML);
    }
    app
}

/// Puts the texts of units and quadlets and their drop-ins among the files.
fn texts(app: &mut App, folder: &Folder<'_>) {
    for brought in folder.units.values() {
        let content = brought.text.as_bytes().into();
        let digest = crate::digest::Digest::of(brought.text.as_bytes());
        let kind = FileKind::Regular { content, digest };
        let file = owned_by_root(kind, Mode::from_bits(0o644), brought.location.clone());
        app.files.insert(brought.path.clone(), file);
    }
    for drop_in in &folder.drop_ins {
        let content = drop_in.text.as_bytes().into();
        let digest = crate::digest::Digest::of(drop_in.text.as_bytes());
        let kind = FileKind::Regular { content, digest };
        app.files.insert(drop_in.path.clone(), owned_by_root(kind, Mode::from_bits(0o644), drop_in.location.clone()));
        if let Some(policy) = app.policies.get(&ResourceId::Unit(drop_in.unit.clone())) {
            app.policies.insert(ResourceId::File(drop_in.path.clone()), *policy);
        }
    }
    for drop_in in &folder.quadlet_drop_ins {
        let content = drop_in.text.as_bytes().into();
        let digest = crate::digest::Digest::of(drop_in.text.as_bytes());
        let kind = FileKind::Regular { content, digest };
        app.files.insert(drop_in.path.clone(), owned_by_root(kind, Mode::from_bits(0o644), drop_in.location.clone()));
    }
}

/// Collects what only all applications together can tell of the quadlets: names in Podman, and references.
fn quadlets(folder: &Folder<'_>, units: &BTreeMap<UnitName, Unit>) -> Vec<QuadletNames> {
    let names = folder.units.iter().filter_map(|(service, brought)| {
        let quadlet = brought.quadlet.as_ref()?;
        let resource = quadlet.resource.as_ref().map(|name| (quadlet.kind, name.clone()));
        let (file, references) = (brought.path.file_name().to_owned(), quadlet.references.clone());
        // Of two that take turns, one does not run; a drop-in may begin the list anew; and instances differ.
        let runs = units.get(service).is_some_and(|unit| unit.state == Some(State::Running));
        let is_changed = folder.quadlet_drop_ins.iter().any(|it| it.quadlet == file && it.text.contains("PublishPort"));
        let ports = if runs && !is_changed { quadlet.ports.clone() } else { Vec::new() };
        Some(QuadletNames { file, resource, references, ports, location: brought.location.clone() })
    });
    names.collect()
}
