//! What authors write, read and proven: a repository's tree becomes a [`Fleet`], or a list of every mistake in it.
//!
//! All or nothing: one error anywhere and there is no fleet. Warnings never stand in the way. This is the only door through
//! which YAML comes in; nothing behind it knows the format.

mod critical;
mod words;
mod page;
mod yaml_errors;
mod yaml;
mod decode;
mod image;
mod ports;
mod alerts;
mod selector;
mod rollout;
mod model;
mod endpoints;
mod policy;
mod container;
mod directives;
mod unit_rules;
mod unit_values;
mod unit;
mod layers;
mod template_errors;
mod template;
mod scene;
mod expressions;
mod rendered;
mod forms;
mod quadlet;
mod drop_in;
mod folder;
mod files;
mod artifacts;
mod place;
mod duration;
mod checks;
mod user;
mod needs;
mod secrets;
mod exceptions;
mod rollouts;
mod trust;
mod fleet;
mod units;
mod compose;
mod app;
mod apps;
mod conflicts;
mod traces;
mod programs;
mod exposed;
mod settings;
mod enrol;

use std::collections::{BTreeMap, BTreeSet};

pub use alerts::{Alert, Receiver, events};
pub use critical::is_open;
pub use enrol::enrolled;
pub use folder::COMPOSE;
pub use model::{
    Address, App, Application, Container, Drift, Environment, File, FileKind, Fleet, Host, Network, Policy, Port,
    State, Unit, UnitText, Volume,
};
pub use rollout::{
    Count, DEFAULT as DEFAULT_ROLLOUT, Freeze, Held, OnFailure, Override, RULES, Rollout, Rule, SILENT_AFTER, Wave,
};
pub use secrets::{SealedFiles, SecretValue, Sops, sops, written};
pub use selector::Place;
pub use settings::settings;
pub use trust::{Said, files_of_signers, said_of_trust};

use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, CommitId, HostName, shown};
use crate::tree::{Entry, Tree};
use crate::trust::{Require, Trust};
use apps::Ground;
use fleet::FleetFile;
use page::Page;

/// What reading a repository gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The fleet; `None` exactly when a diagnostic is an error.
    pub fleet: Option<Fleet>,
    /// Every mistake, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// What is encrypted, and who should be able to read it; as far as that could be read, mistakes or not.
    pub sealed: SealedFiles,
}

/// Reads a repository, at a commit unless it is a folder in hand, and reports every mistake in it.
pub fn parse(tree: &Tree, commit: Option<&CommitId>) -> Parsed {
    let mut diagnostics = Vec::new();
    let meant = check_top(tree, &mut diagnostics);
    let (file, hosts) = read_fleet(tree, &meant, &mut diagnostics);
    if hosts.is_empty() && !file.hosts_are_faulty {
        let mut complaint = Diagnostic::error("no-hosts", Location::whole(FLEET), "the repository names no host");
        complaint.help("add hosts: { NAME: { labels: { … } } } to fleet.yaml, or files in hosts/");
        diagnostics.push(complaint);
    }
    let mut watches = BTreeSet::new();
    let is_complete = !file.hosts_are_faulty && !hosts.is_empty();
    let is_sound = is_complete && !diagnostics.iter().any(Diagnostic::is_error);
    let commit = commit.map_or(LOCAL, CommitId::as_str);
    let secrets = secrets::read(tree, &mut diagnostics);
    let ground = Ground { file: &file, hosts: &hosts, is_complete, is_sound, commit, secrets: &secrets };
    let (apps, endpoints) = apps::read(tree, &ground, &mut watches, &mut diagnostics);
    let said =
        meant.contains("apps/") || diagnostics.iter().any(|it| it.is_error() && it.location.file.starts_with("apps"));
    if apps.is_empty() && !said {
        let mut complaint = Diagnostic::error("no-apps", Location::whole("apps"), "the repository has no application");
        complaint.help("add apps/NAME/ with what should run; an empty tree never means that nothing should");
        diagnostics.push(complaint);
    }
    let trust = read_trust(tree, &file, &mut diagnostics);
    let rules = read_rules(tree, &file, (is_complete.then_some(&hosts), &apps), &mut diagnostics);
    conflicts::check(&apps, &mut diagnostics);
    needs::check(&apps, &mut diagnostics);
    conflicts::check_watches(&watches, &apps, &mut diagnostics);
    programs::check(&apps, &mut diagnostics);
    exposed::check(&apps, &mut diagnostics);
    let is_signed = trust.as_ref().is_some_and(|trust| trust.require != Require::None);
    let sealed = secrets::check(&apps, (&secrets, &hosts), &file.recipients, is_signed, &mut diagnostics);
    secrets::check_mounts(&apps, &mut diagnostics);
    if is_signed && !rules.rollouts.is_empty() {
        diagnostics.extend(keyless(&hosts));
    }
    let merging = traces::check(tree, &mut diagnostics);
    diagnostics.retain(|it| it.rule == "merge-conflict" || !merging.contains(&it.location.file));
    diagnostics.sort();
    diagnostics.dedup();
    let is_sound = !diagnostics.iter().any(Diagnostic::is_error);
    let fleet = file.name.filter(|_| is_sound).map(|name| Fleet {
        name,
        drift: file.drift.unwrap_or(Drift::Repair),
        hosts,
        environments: file.environments.unwrap_or_default(),
        apps,
        endpoints,
        acknowledged: file.acknowledged,
        rollouts: rules.rollouts,
        freezes: rules.freezes,
        holds: rules.holds,
        overrides: rules.overrides,
        alerts: file.alerts,
        trust,
    });
    Parsed { fleet, diagnostics, sealed }
}

const FLEET: &str = "fleet.yaml";

/// What templates are told instead of a commit where there is none.
const LOCAL: &str = "local";

/// Complains about names at the top that look like ours but are not, and returns ours; warns about submodules.
fn check_top(tree: &Tree, diagnostics: &mut Vec<Diagnostic>) -> BTreeSet<&'static str> {
    let mut all_meant = BTreeSet::new();
    let mut tops = BTreeSet::new();
    for (path, entry) in &tree.entries {
        let (top, is_folder) = path.split_once('/').map_or((path.as_str(), false), |(top, _)| (top, true));
        tops.insert((top, is_folder || *entry == Entry::Submodule));
        let ours = is_folder && matches!(top, "apps" | "hosts" | "secrets");
        if *entry == Entry::Submodule && !ours && !matches!(path.as_str(), "apps" | "hosts" | FLEET) {
            let mut complaint =
                Diagnostic::warning("submodule", Location::whole(path), "this submodule is not fetched");
            complaint.help("that is fine when hosts do not need it");
            diagnostics.push(complaint);
        }
    }
    for (top, is_folder) in tops {
        let lower = top.to_lowercase();
        let meant = match (is_folder, lower.as_str()) {
            (true, "app" | "apps") if top != "apps" => "apps/",
            (true, "host" | "hosts") if top != "hosts" => "hosts/",
            (false, "apps" | "hosts") => {
                folder::content(&tree.entries[top], top, diagnostics);
                continue;
            }
            (false, _) if top != FLEET && is_near_fleet(&lower) => FLEET,
            _ => continue,
        };
        let mut complaint =
            Diagnostic::error("unknown-top", Location::whole(top), format!("mainstay does not read `{}`", shown(top)));
        complaint.help(words::did_you_mean(meant));
        diagnostics.push(complaint);
        all_meant.insert(meant);
    }
    all_meant
}

fn is_near_fleet(lower: &str) -> bool {
    ["fleet.yaml", "fleet.yml"].iter().any(|name| strsim::damerau_levenshtein(lower, name) <= 1)
}

fn read_fleet(
    tree: &Tree,
    meant: &BTreeSet<&str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> (FleetFile, BTreeMap<HostName, Host>) {
    let mut hosts = BTreeMap::new();
    let mut file = FleetFile::default();
    match tree.entries.get(FLEET) {
        None if meant.contains(FLEET) => file.hosts_are_faulty = true,
        None => {
            let mut complaint =
                Diagnostic::error("no-fleet", Location::whole(FLEET), "the repository has no fleet.yaml");
            complaint.help("`mainstay init` writes one; it stands at the repository's root");
            diagnostics.push(complaint);
            file.hosts_are_faulty = true;
        }
        Some(entry) => {
            if let Some(text) = text(entry, FLEET, diagnostics) {
                let mut page = Page::new(FLEET, text);
                file = fleet::read(&mut page, &mut hosts);
                page.close(diagnostics);
            } else {
                file.hosts_are_faulty = true;
            }
        }
    }
    for (path, entry) in below(tree, "hosts/") {
        let name = &path["hosts/".len()..];
        if !name.contains('/') && name.ends_with(".yaml") {
            if let Some(text) = text(entry, path, diagnostics) {
                let mut page = Page::new(path, text);
                fleet::read_more_hosts(&mut page, &mut file, &mut hosts);
                page.close(diagnostics);
            } else {
                file.hosts_are_faulty = true;
            }
        } else if folder::content(entry, path, diagnostics).is_some() && !folder::is_for_people(name) {
            let message = format!("hosts/ holds only *.yaml files, not `{}`", shown(name));
            let mut complaint = Diagnostic::error("unknown-file", Location::whole(path), message);
            complaint.help(match name.strip_suffix(".yml") {
                Some(stem) => words::did_you_mean(&format!("hosts/{stem}.yaml")),
                None => "move it out of hosts/".to_owned(),
            });
            diagnostics.push(complaint);
        }
    }
    fleet::check_keys(&hosts, diagnostics);
    (file, hosts)
}

/// Reads what fleet.yaml says of how changes spread. What is wrong with an application must not make a policy look wrong.
fn read_rules(
    tree: &Tree,
    file: &FleetFile,
    (hosts, apps): (Option<&BTreeMap<HostName, Host>>, &BTreeMap<AppName, Application>),
    diagnostics: &mut Vec<Diagnostic>,
) -> rollouts::Rules {
    let (Some(written), Some(Entry::File { bytes, .. })) = (&file.rules, tree.entries.get(FLEET)) else {
        return rollouts::Rules::default();
    };
    let errors = diagnostics.iter().filter(|it| it.is_error());
    let folder = |it: &'_ Diagnostic| match it.location.file.strip_prefix("apps") {
        Some(path) => Some(path.split('/').nth(1).unwrap_or_default().to_owned()),
        None => (it.rule == "unknown-top").then(String::new),
    };
    let folders: BTreeSet<String> = errors.filter_map(folder).collect();
    let faulty: BTreeSet<&AppName> = apps.keys().filter(|app| folders.contains(app.as_str())).collect();
    let has_strangers = apps.is_empty() || faulty.len() < folders.len();
    let mut page = Page::new(FLEET, std::str::from_utf8(bytes).unwrap_or_default());
    let rules = rollouts::read(&mut page, written, &exceptions::Known { hosts, apps, faulty, has_strangers });
    page.close(diagnostics);
    rules
}

/// Warns about hosts in whose name anybody can speak who can push: rollouts go by what hosts say.
fn keyless(hosts: &BTreeMap<HostName, Host>) -> Option<Diagnostic> {
    let keyless: Vec<(&HostName, &Host)> = hosts.iter().filter(|(_, host)| host.key.is_none()).collect();
    let (name, host) = keyless.first()?;
    let who = match keyless.len() - 1 {
        0 => format!("`{name}` has no `key`"),
        more => format!("`{name}` and {more} more have no `key`"),
    };
    let message =
        format!("{who}: whoever can push can say in its name that it is well, or failed, and rollouts go by that");
    let mut warning = Diagnostic::warning("host-key", host.location.clone(), message);
    warning.help("add what `mainstay install` prints for the host: key: \"ssh-ed25519 AAAA…\"");
    Some(warning)
}

/// Reads the files of the signers that fleet.yaml names.
fn read_trust(tree: &Tree, file: &FleetFile, diagnostics: &mut Vec<Diagnostic>) -> Option<Trust> {
    let (Some(written), Some(Entry::File { bytes, .. })) = (&file.trust, tree.entries.get(FLEET)) else {
        return None;
    };
    let (mut found, mut is_faulty, mut reader) = (Vec::new(), false, crate::trust::Reader::default());
    for path in written.signers() {
        let Some(entry) = tree.entries.get(path) else { continue };
        let signers = text(entry, path, diagnostics).map(|text| {
            let mut page = Page::new(path, text);
            let signers = trust::signers(&mut page, &mut reader);
            is_faulty |= page.errors() > 0;
            page.close(diagnostics);
            signers
        });
        is_faulty |= signers.is_none();
        found.push((path, signers.unwrap_or_default()));
    }
    found.iter_mut().for_each(|(_, signers)| reader.leave_out_revoked(signers));
    // What is wrong in the files is said there.
    if !is_faulty {
        let mut page = Page::new(FLEET, std::str::from_utf8(bytes).unwrap_or_default());
        trust::check(&mut page, written, &found);
        page.close(diagnostics);
    }
    Some(written.clone().with(found.into_iter().flat_map(|(_, signers)| signers).collect()))
}

/// Returns the file's text; complains when it is none.
fn text<'t>(entry: &'t Entry, path: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<&'t str> {
    let (bytes, _) = folder::content(entry, path, diagnostics)?;
    let text = std::str::from_utf8(bytes);
    if text.is_err() {
        let mut complaint =
            Diagnostic::error("not-utf8", Location::whole(path), format!("`{}` is not UTF-8", shown(path)));
        complaint.help("save it as UTF-8");
        diagnostics.push(complaint);
    }
    text.ok()
}

/// Iterates over the entries whose path begins with `folder`.
fn below<'t>(tree: &'t Tree, folder: &'t str) -> impl Iterator<Item = (&'t String, &'t Entry)> {
    tree.entries.range(folder.to_owned()..).take_while(move |(path, _)| path.starts_with(folder))
}

/// Finds what of `known` was most likely meant by `wrong`.
pub fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    words::nearest(wrong, known)
}

/// Finds the host of `fleet` that was most likely meant by `wrong`.
pub fn nearest_host(fleet: &Fleet, wrong: &HostName) -> Option<HostName> {
    let near = words::nearest(wrong.as_str(), fleet.hosts.keys().map(HostName::as_str))?;
    fleet.hosts.keys().find(|host| host.as_str() == near).cloned()
}
