//! Puts a compose file together: the override beside it, what its services extend, and what it includes, all of them files of
//! the application's folder.
//!
//! Each file is a sheet of one page, so that whatever is wrong is told where it stands. Paths in a file of a subfolder are
//! written anew, from the application's folder, before anybody else sees them.

use std::collections::BTreeMap;

use super::merge::merge;
use super::variables::{self, Format, Variables};
use crate::diagnostic::Diagnostic;
use crate::id::shown;
use crate::manifest::folder::Beside;
use crate::manifest::page::{Extent, Page};
use crate::manifest::words::did_you_mean;
use crate::manifest::yaml::{self, Key, Kind, Node};

/// The names of an override, which is put on top of the compose file by itself.
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];
/// The most files that includes may bring, and the deepest that they or extensions may be nested.
const MOST_FILES: usize = 64;
/// The most values that extensions may repeat.
const MOST_REPEATED: usize = 50_000;
/// The most bytes that are read beside the compose file: one file may be named many times.
const MOST_BYTES: usize = 8 << 20;

/// What is put together, and what it took.
pub(super) struct Sources<'t> {
    beside: &'t BTreeMap<String, Beside>,
    /// The files of the folder that were read, by their path within it.
    pub(super) used: Vec<String>,
    /// Complaints about files that are no sheets of the page.
    pub(super) elsewhere: Vec<Diagnostic>,
    left: usize,
    bytes_left: usize,
}

/// A file while it is put together.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The path within the application's folder; empty for the compose file.
    file: &'a str,
    /// What its variables are.
    variables: &'a Variables,
}

impl<'t> Sources<'t> {
    pub(super) fn new(beside: &'t BTreeMap<String, Beside>) -> Sources<'t> {
        Sources { beside, used: Vec::new(), elsewhere: Vec::new(), left: MOST_REPEATED, bytes_left: MOST_BYTES }
    }

    /// Reads the compose file, and everything that belongs to it.
    pub(super) fn whole(&mut self, page: &mut Page<'t>, variables: &Variables) -> Option<Node> {
        let mut node = yaml::read(page)?;
        variables::prepare(page, &mut node, variables);
        let overrides: Vec<&str> = OVERRIDES.into_iter().filter(|name| self.beside.contains_key(*name)).collect();
        for (number, name) in overrides.iter().enumerate() {
            let Some(over) = self.sheet(page, (name, Extent::new(0, 0)), variables) else { continue };
            if number > 0 {
                let message = format!("`{}` is an override too", overrides[0]);
                page.error("compose-twice", over.extent, message).help("keep one of the two");
                continue;
            }
            node = merge(page, node, over, &[]);
        }
        let place = Place { file: "", variables };
        self.extend_all(page, &mut node, place);
        self.include_all(page, &mut node, place, &mut vec![String::new()]);
        Some(node)
    }

    /// Reads a file of the folder as another sheet of the page, its variables replaced and its paths written anew.
    fn sheet(&mut self, page: &mut Page<'t>, (within, extent): (&str, Extent), variables: &Variables) -> Option<Node> {
        let beside: &'t Beside = self.beside.get(within)?;
        let Some(left) = self.bytes_left.checked_sub(beside.content.len()) else {
            page.error("yaml-too-large", extent, "the files that this project names are too large together")
                .help("name fewer, or each of them less often");
            return None;
        };
        self.bytes_left = left;
        if !self.used.iter().any(|used| used == within) {
            self.used.push(within.to_owned());
        }
        let text = std::str::from_utf8(&beside.content).unwrap_or_default();
        let mut sheet = Page::new(&beside.path, text);
        let node = yaml::read(&mut sheet);
        let node = node.map(|mut node| {
            variables::prepare(&mut sheet, &mut node, variables);
            node
        });
        let mut said = Vec::new();
        sheet.close(&mut said);
        said.into_iter().for_each(|it| page.add(it));
        let mut node = node?;
        let start = page.attach(&beside.path, text);
        node.shift(start);
        if let Some((folder, _)) = within.rsplit_once('/') {
            rebase(&mut node, folder);
        }
        Some(node)
    }

    /// Replaces `extends` of every service by what it stands for.
    fn extend_all(&mut self, page: &mut Page<'t>, node: &mut Node, place: Place<'_>) {
        let Some(services) = child(node, "services") else { return };
        let Kind::Mapping(entries) = &services.kind else { return };
        let names: Vec<String> = entries.iter().map(|(key, _)| key.text.clone()).collect();
        let whole = services.clone();
        for name in names {
            if let Some(extended) = self.extended(page, &whole, &name, place, &mut Vec::new())
                && let Some(service) = child(services, &name)
            {
                *service = extended;
            }
        }
    }

    /// Returns the service called `name` with all that it extends; `None` when it extends nothing, or what is wrong was said.
    fn extended(
        &mut self,
        page: &mut Page<'t>,
        services: &Node,
        name: &str,
        place: Place<'_>,
        walked: &mut Vec<(String, String)>,
    ) -> Option<Node> {
        let mut service = find(services, name)?.1.clone();
        let Kind::Mapping(entries) = &mut service.kind else { return None };
        let at = entries.iter().position(|(key, _)| key.text == "extends")?;
        let (key, node) = entries.remove(at);
        let (file, base) = extension(page, &node)?;
        let here = (place.file.to_owned(), name.to_owned());
        if walked.contains(&here) {
            page.error("compose-circle", key.extent, format!("service `{}` extends itself in the end", shown(name)))
                .help("remove one of these `extends`");
            return Some(service);
        }
        if walked.len() >= MOST_FILES {
            page.error(
                "yaml-too-deep",
                key.extent,
                format!("this extends more than {MOST_FILES} services, one another"),
            )
            .help("write out what is meant");
            return Some(service);
        }
        walked.push(here);
        let sheet;
        // A file may name itself.
        let own = page.path.rsplit('/').next().filter(|_| place.file.is_empty()).unwrap_or(place.file);
        let file = file.filter(|(file, _)| joined("", file).as_deref() != Some(own));
        let (services, place) = match &file {
            None => (services, place),
            Some((file, extent)) => {
                let within = self.named(page, file, *extent)?;
                sheet = self.sheet(page, (&within, *extent), place.variables)?;
                let services = find(&sheet, "services").map(|(_, node)| node)?;
                let found =
                    self.extended_of(page, services, (&base, node.extent), Place { file: &within, ..place }, walked)?;
                return Some(merge(page, found, service, &["services", name]));
            }
        };
        let found = self.extended_of(page, services, (&base, node.extent), place, walked)?;
        Some(merge(page, found, service, &["services", name]))
    }

    /// Returns what a service extends.
    fn extended_of(
        &mut self,
        page: &mut Page<'t>,
        services: &Node,
        (base, extent): (&str, Extent),
        place: Place<'_>,
        walked: &mut Vec<(String, String)>,
    ) -> Option<Node> {
        let Some((_, found)) = find(services, base) else {
            let all: Vec<&str> = names(services);
            let near = page.near(base, all.iter().copied()).map(did_you_mean);
            page.error("compose-service", extent, format!("there is no service `{}` to extend", shown(base)))
                .help(near.unwrap_or_else(|| "correct the name, or the `file` that it is in".to_owned()));
            return None;
        };
        let Some(left) = self.left.checked_sub(found.count()) else {
            page.error("yaml-too-large", extent, "`extends` makes this file too large").help("write out what is meant");
            return None;
        };
        self.left = left;
        let found = found.clone();
        Some(self.extended(page, services, base, place, walked).unwrap_or(found))
    }

    /// Finds a file that another one names.
    fn named(&mut self, page: &mut Page<'t>, path: &str, extent: Extent) -> Option<String> {
        let within = joined("", path);
        let known = within.as_ref().filter(|within| self.beside.contains_key(*within));
        if known.is_none() {
            let within = within.unwrap_or_else(|| path.to_owned());
            let near = page.near(&within, self.beside.keys().map(String::as_str)).map(did_you_mean);
            page.error("compose-path", extent, format!("the application's folder has no file `{}`", shown(&within)))
                .help(near.unwrap_or_else(|| "name a file beside the compose file, or below".to_owned()));
            return None;
        }
        within
    }

    /// Adds what `include` names to a file.
    fn include_all(&mut self, page: &mut Page<'t>, node: &mut Node, place: Place<'_>, walked: &mut Vec<String>) {
        let Some(includes) = take(node, "include") else { return };
        let items = page.list(&includes, "`include`").unwrap_or_default().to_vec();
        for item in items {
            let Some(include) = include(page, &item) else { continue };
            let mut paths = include.paths.iter().filter_map(|path| self.named(page, path, item.extent));
            let Some(first) = paths.next() else { continue };
            let more: Vec<String> = paths.collect();
            if walked.contains(&first) {
                page.error("compose-circle", item.extent, format!("`{}` includes itself in the end", shown(&first)))
                    .help("remove one of these `include`s");
                continue;
            }
            if self.used.len() >= MOST_FILES {
                page.error("yaml-too-large", item.extent, format!("a project is made of at most {MOST_FILES} files"))
                    .help("put some of them into one file");
                continue;
            }
            let variables = self.variables(page, &first, &include.env_files, item.extent, place.variables);
            let Some(mut included) = self.sheet(page, (&first, item.extent), &variables) else { continue };
            for path in more {
                if let Some(over) = self.sheet(page, (&path, item.extent), &variables) {
                    included = merge(page, included, over, &[]);
                }
            }
            let place = Place { file: &first, variables: &variables };
            self.extend_all(page, &mut included, place);
            walked.push(first.clone());
            self.include_all(page, &mut included, place, walked);
            walked.pop();
            import(page, node, included);
        }
    }

    /// Returns the variables of an included file: those of the one that includes it win over its own files.
    fn variables(
        &mut self,
        page: &mut Page<'t>,
        file: &str,
        env_files: &[String],
        extent: Extent,
        outer: &Variables,
    ) -> Variables {
        let own = joined(file.rsplit_once('/').map_or("", |(folder, _)| folder), ".env");
        let own = own.filter(|own| self.beside.contains_key(own) && own != ".env");
        let all: Vec<String> = match env_files {
            [] => own.into_iter().collect(),
            files => files.iter().filter_map(|path| self.named(page, path, extent)).collect(),
        };
        let mut variables = Variables::new();
        for within in all {
            let Some(beside) = self.beside.get(&within) else { continue };
            let mut sheet = Page::new(&beside.path, std::str::from_utf8(&beside.content).unwrap_or_default());
            variables.extend(variables::read_file(&mut sheet, Format::Compose, outer));
            sheet.close(&mut self.elsewhere);
            self.used.push(within);
        }
        variables.extend(outer.clone());
        variables
    }
}

/// One entry of `include`.
struct Include {
    paths: Vec<String>,
    env_files: Vec<String>,
}

fn include(page: &mut Page<'_>, node: &Node) -> Option<Include> {
    let Kind::Mapping(_) = &node.kind else {
        let path = page.as_written(node, "an item of `include`")?;
        return Some(Include { paths: vec![path.to_owned()], env_files: Vec::new() });
    };
    let mut table = page.table(node, "an item of `include`")?;
    let mut several = |page: &mut Page<'_>, key| match table.take(key) {
        None => Vec::new(),
        Some((_, node)) => match &node.kind {
            Kind::Sequence(_) => page.words(node, "a list of files").into_iter().map(|(word, _)| word).collect(),
            _ => page.as_written(node, "a file").map(str::to_owned).into_iter().collect(),
        },
    };
    let (paths, env_files) = (several(page, "path"), several(page, "env_file"));
    table.later(&["project_directory"]).finish(page, "an item of `include`");
    if paths.is_empty() {
        page.error("compose-value", node.extent, "this `include` has no `path`")
            .help("add path: ./FOLDER/compose.yaml");
    }
    Some(Include { paths, env_files })
}

/// Reads `extends`: a service of this file, or of another one.
fn extension(page: &mut Page<'_>, node: &Node) -> Option<(Option<(String, Extent)>, String)> {
    let Kind::Mapping(_) = &node.kind else {
        return Some((None, page.as_written(node, "`extends`")?.to_owned()));
    };
    let mut table = page.table(node, "`extends`")?;
    let file =
        table.take("file").and_then(|(_, node)| Some((page.as_written(node, "`file`")?.to_owned(), node.extent)));
    let service = table.take("service").and_then(|(_, node)| page.as_written(node, "`service`").map(str::to_owned));
    table.finish(page, "`extends`");
    if service.is_none() {
        page.error("compose-value", node.extent, "`extends` names no service").help("add service: NAME");
    }
    Some((file, service?))
}

/// Copies what an included file has into the one that includes it; nothing may be in both.
fn import(page: &mut Page<'_>, node: &mut Node, included: Node) {
    let Kind::Mapping(parts) = included.kind else { return };
    for (part, content) in parts {
        let is_project = matches!(part.text.as_str(), "version" | "name");
        if is_project || content.is_null() {
            continue;
        }
        let Kind::Mapping(target) = &mut node.kind else { return };
        let at = target.iter().position(|(key, _)| key.text == part.text);
        let Some((_, own)) = at.map(|at| &mut target[at]).filter(|(_, own)| !own.is_null()) else {
            target.retain(|(key, _)| key.text != part.text);
            target.push((part, content));
            continue;
        };
        let (Kind::Mapping(own), Kind::Mapping(more)) = (&mut own.kind, content.kind) else { continue };
        for (key, value) in more {
            match own.iter().find(|(known, _)| known.text == key.text) {
                Some((known, _)) => {
                    let other = page.at(known.extent);
                    let message =
                        format!("`{}` is in an included file and in the one that includes it", shown(&key.text));
                    page.error("conflict", key.extent, message)
                        .help("keep one of the two")
                        .related(other, "written here as well");
                }
                None => own.push((key, value)),
            }
        }
    }
}

fn find<'n>(node: &'n Node, name: &str) -> Option<(&'n Key, &'n Node)> {
    let Kind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
}

fn names(node: &Node) -> Vec<&str> {
    let Kind::Mapping(entries) = &node.kind else { return Vec::new() };
    entries.iter().map(|(key, _)| key.text.as_str()).collect()
}

fn child<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    let Kind::Mapping(entries) = &mut node.kind else { return None };
    entries.iter_mut().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

fn take(node: &mut Node, name: &str) -> Option<Node> {
    let Kind::Mapping(entries) = &mut node.kind else { return None };
    let at = entries.iter().position(|(key, _)| key.text == name)?;
    Some(entries.remove(at).1)
}

/// Writes the relative paths of a file in `folder` as they are from the application's folder.
fn rebase(node: &mut Node, folder: &str) {
    if let Some(includes) = child(node, "include") {
        each(includes, &mut |item| match &item.kind {
            Kind::Mapping(_) => ["path", "env_file"].into_iter().for_each(|key| {
                if let Some(paths) = child(item, key) {
                    each(paths, &mut |path| moved(path, folder));
                }
            }),
            _ => moved(item, folder),
        });
    }
    for part in ["configs", "secrets"] {
        if let Some(Node { kind: Kind::Mapping(entries), .. }) = child(node, part) {
            entries.iter_mut().filter_map(|(_, it)| child(it, "file")).for_each(|path| moved(path, folder));
        }
    }
    let Some(Node { kind: Kind::Mapping(services), .. }) = child(node, "services") else { return };
    for (_, service) in services {
        if let Some(file) = child(service, "extends").and_then(|it| child(it, "file")) {
            moved(file, folder);
        }
        if let Some(files) = child(service, "env_file") {
            each(files, &mut |item| match child(item, "path") {
                Some(path) => moved(path, folder),
                None => moved(item, folder),
            });
        }
        if let Some(volumes) = child(service, "volumes") {
            each(volumes, &mut |item| match child(item, "source") {
                Some(source) => if_relative(source, folder),
                None => if_relative(item, folder),
            });
        }
    }
}

/// Calls `act` with every item of a list, or with what is none.
fn each(node: &mut Node, act: &mut dyn FnMut(&mut Node)) {
    match &mut node.kind {
        Kind::Sequence(items) => items.iter_mut().for_each(act),
        _ => act(node),
    }
}

fn if_relative(node: &mut Node, folder: &str) {
    if matches!(&node.kind, Kind::Scalar { text, .. } if text.starts_with('.')) {
        moved(node, folder);
    }
}

fn moved(node: &mut Node, folder: &str) {
    if let Kind::Scalar { text, .. } = &mut node.kind
        && !text.starts_with(['/', '~'])
    {
        *text = format!("./{folder}/{text}");
    }
}

/// Joins a folder and a relative path; `None` where that leads out of the application's folder.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with(['/', '~']) {
        return None;
    }
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
