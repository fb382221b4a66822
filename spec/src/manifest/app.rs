//! Puts one application together: its folder and its app.yaml.

use std::collections::BTreeMap;

use super::container;
use super::decode::{Table, values};
use super::files;
use super::fleet::DRIFT;
use super::folder::{self, Folder};
use super::model::{App, FileKind, Host, Place, Watch, owned_by_root};
use super::page::Page;
use super::place;
use super::units;
use super::yaml;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, Mode};
use crate::tree::Entry;

/// Parts of app.yaml that later versions act on.
const LATER: [&str; 6] = ["rollout", "needs", "checks", "endpoints", "artifacts", "adopt"];

/// Reads the application whose folder is `root`; its watches go to `watches`.
pub(super) fn read(
    name: &AppName,
    root: &str,
    entries: &[(&str, &Entry)],
    hosts: Option<&BTreeMap<HostName, Host>>,
    watches: &mut Vec<Watch>,
    diagnostics: &mut Vec<Diagnostic>,
) -> App {
    let mut folder = folder::sort(root, entries, diagnostics);
    let (path, text) = folder.app_yaml.take().unwrap_or((format!("{root}/app.yaml"), ""));
    let mut page = Page::new(&path, text);
    let node = yaml::read(&mut page);
    let readable = node.is_some();
    let node = node.filter(|node| !node.is_null());
    let table = node.as_ref().and_then(|node| page.table(node, "app.yaml"));
    let is_plain = readable && node.is_some() == table.is_some();
    let app = assemble(&mut page, table, &folder, hosts, watches, is_plain);
    page.close(diagnostics);
    let is_empty = app.files.is_empty() && app.units.is_empty() && app.containers.is_empty();
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

fn assemble(
    page: &mut Page<'_>,
    table: Option<Table<'_>>,
    folder: &Folder<'_>,
    hosts: Option<&BTreeMap<HostName, Host>>,
    watches: &mut Vec<Watch>,
    is_plain: bool,
) -> App {
    // What cannot be read is placed nowhere: it is an error already, and guesses would only add false ones.
    let nowhere = Place::Any(Vec::new());
    let mut app = App {
        place: if is_plain { Place::All } else { nowhere.clone() },
        drift: None,
        vars: BTreeMap::new(),
        files: BTreeMap::new(),
        units: BTreeMap::new(),
        containers: BTreeMap::new(),
    };
    let mut table = table.map(|table| table.later(&LATER));
    let mut take = |key| table.as_mut().and_then(|table| table.take(key));
    if let Some((_, node)) = take("place") {
        app.place = place::read(page, node, hosts).unwrap_or(nowhere);
    }
    if let Some((_, node)) = take("drift") {
        app.drift = page.choice(node, "`drift`", &DRIFT);
    }
    if let Some((_, node)) = take("vars") {
        app.vars = values(page, node, "`vars`");
    }
    app.units = units::read(page, take("units").map(|(_, node)| node), folder, watches);
    app.files = files::read(page, take("files").map(|(_, node)| node), folder);
    if let Some((_, node)) = take("containers") {
        app.containers = container::read(page, node);
    }
    for (unit, brought) in &folder.units {
        let content = brought.text.as_bytes().into();
        let digest = crate::digest::Digest::of(brought.text.as_bytes());
        let kind = FileKind::Regular { content, digest };
        app.files.insert(unit.path(), owned_by_root(kind, Mode::from_bits(0o644), brought.location.clone()));
    }
    if let Some(table) = table {
        table.finish(page, "app.yaml");
    }
    app
}
