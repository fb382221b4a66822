//! Puts the applications together: the layers of each folder, who has it, and what it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::app::{self, Head};
use super::endpoints::{Exchange, Found};
use super::fleet::FleetFile;
use super::folder;
use super::forms;
use super::layers::{self, Audience, Layers, View};
use super::model::{Application, Host, Watch};
use super::page::Page;
use super::rendered::Told;
use super::scene::{self, Setting};
use super::template;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, shown};
use crate::sealed::{Sealed, Secrets};
use crate::tree::{Entry, Tree};

/// What is known before any application is read.
pub(super) struct Ground<'f> {
    /// What fleet.yaml says.
    pub(super) file: &'f FleetFile,
    /// The hosts.
    pub(super) hosts: &'f BTreeMap<HostName, Host>,
    /// Whether all hosts are known, so that what nobody has can be called unknown.
    pub(super) is_complete: bool,
    /// Whether fleet.yaml and hosts/ have no mistake.
    pub(super) is_sound: bool,
    /// The commit, or `local` for a folder in hand.
    pub(super) commit: &'f str,
    /// What templates may print without knowing it.
    pub(super) secrets: &'f Secrets,
}

/// What every application is put together with.
struct Workshop<'f> {
    ground: &'f Ground<'f>,
    setting: Setting<'f>,
    engine: minijinja::Environment<'static>,
    /// Whether all endpoints are known that are meant: names would be undefined that are not.
    offers_are_sound: bool,
}

/// An application of which the parts are not read yet.
struct Draft<'t, 'h> {
    name: AppName,
    root: String,
    views: Vec<Seen<'t, 'h>>,
}

/// A view and what its app.yaml says about the application as a whole.
struct Seen<'t, 'h> {
    view: View<'t, 'h>,
    head: Head,
    /// The hosts of the view that have the application.
    placed: Vec<&'h HostName>,
    /// What is wrong with that part of app.yaml; said again when all of it is read.
    said: Vec<Diagnostic>,
}

/// Reads every application below apps/; the paths that units watch go to `watches`.
pub(super) fn read(
    tree: &Tree,
    ground: &Ground<'_>,
    watches: &mut BTreeSet<Watch>,
    diagnostics: &mut Vec<Diagnostic>,
) -> (BTreeMap<AppName, Application>, BTreeMap<Option<String>, Found>) {
    let drafts = drafts(tree, ground, diagnostics);
    let (found, offered) = exchange(&drafts, ground, diagnostics).close();
    let none = BTreeMap::new();
    let setting = Setting {
        fleet: ground.file.name.as_deref().unwrap_or_default(),
        commit: ground.commit,
        environments: ground.file.environments.as_ref().unwrap_or(&none),
        endpoints: found.iter().map(|(name, found)| (name.clone(), Arc::new(found.clone()))).collect(),
        offered: Arc::new(offered),
    };
    let offers_are_sound = drafts.iter().flat_map(|draft| &draft.views).all(|seen| seen.head.offers_are_sound);
    let names = Arc::new(ground.secrets.keys().cloned().collect());
    let workshop = Workshop { ground, setting, engine: template::engine(names), offers_are_sound };
    let apps = drafts.into_iter().map(|draft| assemble(draft, &workshop, watches, diagnostics)).collect();
    (apps, found)
}

/// Collects what applications offer where they are placed, and what lies outside the fleet.
fn exchange<'f>(drafts: &[Draft<'_, 'f>], ground: &Ground<'f>, diagnostics: &mut Vec<Diagnostic>) -> Exchange<'f> {
    let environments = ground.file.environments.iter().flatten();
    let outside = environments.map(|(name, environment)| (Some(name.as_str()), &environment.endpoints));
    let mut exchange = Exchange::outside(outside);
    for draft in drafts {
        for seen in &draft.views {
            let hosts = seen.placed.iter().map(|host| (*host, &ground.hosts[*host]));
            exchange.add(&draft.name, &seen.head.offers, hosts, diagnostics);
        }
    }
    exchange
}

/// Finds the folders, lays their layers, and sees who has what.
fn drafts<'t, 'h>(tree: &'t Tree, ground: &Ground<'h>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Draft<'t, 'h>> {
    let declared = ground.file.environments.iter().flat_map(BTreeMap::keys);
    let used = ground.hosts.values().filter_map(|host| host.environment.as_ref());
    let environments: BTreeSet<&str> = declared.chain(used).map(String::as_str).collect();
    let audience = Audience { hosts: ground.hosts, environments, is_complete: ground.is_complete };
    let mut drafts = Vec::new();
    for (folder, entries) in folders(tree, diagnostics) {
        let root = format!("apps/{folder}");
        let name = match AppName::parse(folder) {
            Ok(name) => name,
            Err(why) => {
                let message = format!("this is not an application's name: {why}");
                let mut complaint = Diagnostic::error("app-name", Location::whole(&root), message);
                complaint.help("rename the folder");
                diagnostics.push(complaint);
                continue;
            }
        };
        let mut layers = layers::split(&root, &entries, diagnostics);
        layers.keep_known(&root, &audience, diagnostics);
        let views = place(&layers, ground);
        warn_unused(&root, &views, diagnostics);
        drafts.push(Draft { name, root, views });
    }
    drafts
}

/// Groups the files below apps/ by their application's folder.
fn folders<'t>(tree: &'t Tree, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<&'t str, Vec<(&'t str, &'t Entry)>> {
    let mut folders: BTreeMap<&str, Vec<(&str, &Entry)>> = BTreeMap::new();
    for (path, entry) in super::below(tree, "apps/") {
        let within = &path["apps/".len()..];
        match within.split_once('/') {
            Some((folder, _)) => folders.entry(folder).or_default().push((path, entry)),
            None if folder::content(entry, path, diagnostics).is_some() && !folder::is_for_people(within) => {
                let message = format!("apps/ holds only folders, not the file `{}`", shown(within));
                let mut complaint = Diagnostic::error("unknown-file", Location::whole(path), message);
                complaint.help("put it into the folder of its application, apps/NAME/");
                diagnostics.push(complaint);
            }
            None => {}
        }
    }
    folders
}

/// Lays the layers for every host, and asks the app.yaml that each host sees whether the application is for it.
fn place<'t, 'h>(layers: &Layers<'t>, ground: &Ground<'h>) -> Vec<Seen<'t, 'h>> {
    let hosts = ground.is_complete.then_some(ground.hosts);
    let views = layers.views(ground.hosts).into_iter();
    views
        .map(|view| {
            let mut said = Vec::new();
            let head = app::head(&view.files, hosts, &mut said);
            let has = |name: &&HostName| head.place.holds(name, &ground.hosts[*name]);
            let placed = view.hosts.iter().copied().filter(has).collect();
            Seen { view, head, placed, said }
        })
        .collect()
}

/// Warns about overlays whose hosts do not have the application.
fn warn_unused(root: &str, views: &[Seen<'_, '_>], diagnostics: &mut Vec<Diagnostic>) {
    let overlays: BTreeSet<&str> = views.iter().flat_map(|seen| seen.view.overlays.iter().copied()).collect();
    for overlay in overlays {
        let mut within = views.iter().filter(|seen| seen.view.overlays.contains(&overlay));
        if within.clone().any(|seen| !seen.placed.is_empty()) || views.iter().all(|seen| seen.placed.is_empty()) {
            continue;
        }
        let nobody = within.all(|seen| seen.view.hosts.is_empty());
        let (message, help) = if nobody {
            (
                format!("no host is in environment `{overlay}`, so this overlay is never used"),
                "put a host into it, or remove the overlay",
            )
        } else {
            (
                format!("the application is placed on no host that `@{overlay}` is for, so this overlay is never used"),
                "correct `place:`, or remove the overlay",
            )
        };
        let mut warning =
            Diagnostic::warning("overlay-unused", Location::whole(&format!("{root}/@{overlay}")), message);
        warning.help(help);
        diagnostics.push(warning);
    }
}

/// Reads an application in every form that some host has.
///
/// A form that nobody has may rightly be incomplete, so it is read only where there is no other (its mistakes would come
/// to light on the day it is placed), and where an overlay would be read by nobody else.
fn assemble(
    draft: Draft<'_, '_>,
    workshop: &Workshop<'_>,
    watches: &mut BTreeSet<Watch>,
    diagnostics: &mut Vec<Diagnostic>,
) -> (AppName, Application) {
    let Draft { name, root, views } = draft;
    let ground = workshop.ground;
    let hosts = ground.is_complete.then_some(ground.hosts);
    let mut application = Application { variants: Vec::new(), hosts: BTreeMap::new() };
    let nowhere = views.iter().all(|seen| seen.placed.is_empty());
    // One mistake in a template is one for all hosts, whatever overlays they have.
    let mut told = Told::new(!workshop.offers_are_sound);
    for seen in &views {
        if seen.placed.is_empty() && !seen.view.hosts.is_empty() && !nowhere {
            diagnostics.extend(seen.said.iter().cloned());
            continue;
        }
        let is_known = ground.is_sound && seen.head.vars_are_sound;
        for share in shares(seen, workshop) {
            if forms::is_templated(&seen.view.files, &seen.head.expressions) {
                let whole = (&name, root.as_str(), seen);
                assemble_forms(whole, &share, workshop, (&mut application, watches), (&mut told, diagnostics));
            } else {
                let files: Vec<_> = seen.view.files.values().cloned().collect();
                let vars = is_known.then_some(&share.vars);
                let app = app::read((&name, &root, vars), &files, &BTreeMap::new(), hosts, watches, diagnostics);
                application.add(app, &share.hosts);
            }
        }
    }
    told.close(diagnostics);
    (name, application)
}

/// Hosts that see the same folder, and for which its compose file is told the same.
struct Share<'h> {
    vars: BTreeMap<String, serde_json::Value>,
    hosts: Vec<&'h HostName>,
}

/// Groups the hosts of a view by the variables that its folder speaks of, if it has a compose file: nothing else that is not
/// rendered knows variables.
fn shares<'h>(seen: &Seen<'_, 'h>, workshop: &Workshop<'_>) -> Vec<Share<'h>> {
    let Seen { view, head, placed, .. } = seen;
    if placed.is_empty() || !view.files.keys().any(|within| folder::COMPOSE.contains(within)) {
        return vec![Share { vars: head.vars.clone(), hosts: placed.clone() }];
    }
    let texts = view.files.values().filter_map(|source| match &source.entry {
        Entry::File { bytes, .. } if !source.within.starts_with("files/") => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    let texts: Vec<&str> = texts.collect();
    let mut shares: BTreeMap<String, Share<'h>> = BTreeMap::new();
    for host in placed {
        let mut vars = scene::vars(&workshop.setting, &head.vars, &workshop.ground.hosts[*host]);
        vars.retain(|name, _| texts.iter().any(|text| text.contains(name.as_str())));
        let key = serde_json::to_string(&vars).expect("JSON prints");
        shares.entry(key).or_insert_with(|| Share { vars, hosts: Vec::new() }).hosts.push(host);
    }
    shares.into_values().collect()
}

/// Renders a view for each host that has the application, and reads each form that comes of it.
fn assemble_forms<'h>(
    (name, root, seen): (&AppName, &str, &Seen<'_, 'h>),
    share: &Share<'h>,
    workshop: &Workshop<'_>,
    (application, watches): (&mut Application, &mut BTreeSet<Watch>),
    (told, diagnostics): (&mut Told<'h>, &mut Vec<Diagnostic>),
) {
    let Seen { view, head, said, .. } = seen;
    let ground = workshop.ground;
    // Half of what templates are given would make names undefined that are not.
    let is_known = ground.is_sound && head.vars_are_sound;
    diagnostics.extend(said.iter().cloned());
    let (path, text) = app::text(&view.files);
    let page = Page::new(path, text);
    let scene = |host: &HostName| scene::of(&workshop.setting, name, &head.vars, host, &ground.hosts[host]);
    let scenes = share.hosts.iter().map(|host| (*host, is_known.then(|| scene(host))));
    let sources = (&page, head.expressions.as_slice());
    let forms = forms::render(&workshop.engine, &view.files, sources, scenes, told, diagnostics);
    for mut form in forms {
        if told.is_full() {
            break;
        }
        for file in form.files.iter_mut().filter(|file| file.is_template) {
            if let Entry::File { bytes, .. } = &file.entry {
                let text = std::str::from_utf8(bytes).unwrap_or_default();
                file.sealed = Sealed::rendered(text, ground.secrets).map(Arc::new);
            }
        }
        let mut said = Vec::new();
        // What selectors match was said about the head, and is the same for every form.
        let app = app::read(
            (name, root, is_known.then_some(&share.vars)),
            &form.files,
            &form.values,
            None,
            watches,
            &mut said,
        );
        forms::tell(&form, &view.files, path, (said, &mut *told), diagnostics);
        // What lacks something is no fleet's, but may still clash with others.
        application.add(app, form.missing.as_ref().map_or(&form.hosts, |missing| &missing.hosts));
    }
}
