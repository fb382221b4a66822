//! One application's folder as each host sees it: the base, over it the overlay of its environment, over both its own.
//!
//! Layers are put on top of each other as files, before anything of them is understood: whoever reads a folder afterwards
//! sees a plain one, and never asks which layer a file came from, except to say where a mistake stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::Host;
use super::words::{did_you_mean, list, nearest};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostName, shown};
use crate::sealed::Sealed;
use crate::tree::Entry;

/// What marks a template.
const TEMPLATE: &str = ".j2";

/// One file of a layer.
#[derive(Clone)]
pub(super) struct Source<'t> {
    /// Its path within the application's folder, as the host sees it: without the overlay's folder, without `.j2`.
    pub(super) within: &'t str,
    /// The folder of its layer, such as `apps/mqtt` or `apps/mqtt/@prod`.
    pub(super) root: &'t str,
    /// Where it stands in the repository.
    pub(super) path: &'t str,
    /// What it holds.
    pub(super) entry: Entry,
    /// Whether that is a template (`.j2`), still to be rendered.
    pub(super) is_template: bool,
    /// What is encrypted in it, where that is rendered from secrets.
    pub(super) sealed: Option<Arc<Sealed>>,
}

/// The files of one layer, or of several on top of each other, by what a host calls them.
pub(super) type Layer<'t> = BTreeMap<&'t str, Source<'t>>;

/// The layers of one application.
pub(super) struct Layers<'t> {
    base: Layer<'t>,
    /// By the name behind the `@`.
    overlays: BTreeMap<&'t str, Layer<'t>>,
}

/// The folder as some hosts see it.
pub(super) struct View<'t, 'h> {
    /// The files.
    pub(super) files: Layer<'t>,
    /// Which overlays are part of it.
    pub(super) overlays: Vec<&'t str>,
    /// Everybody who sees it; whether the application is placed there is another question.
    pub(super) hosts: Vec<&'h HostName>,
}

/// Who overlays may be for.
pub(super) struct Audience<'h> {
    /// The hosts.
    pub(super) hosts: &'h BTreeMap<HostName, Host>,
    /// The environments, declared or used.
    pub(super) environments: BTreeSet<&'h str>,
    /// Whether these are all: nothing is called unknown while fleet.yaml has mistakes.
    pub(super) is_complete: bool,
}

/// Sorts the files below `root` into layers, by their path within it.
pub(super) fn split<'t>(root: &str, entries: &[(&'t str, &'t Entry)], diagnostics: &mut Vec<Diagnostic>) -> Layers<'t> {
    let mut layers = Layers { base: Layer::new(), overlays: BTreeMap::new() };
    let mut nested = BTreeSet::new();
    for (path, entry) in entries {
        let rest = &path[root.len() + 1..];
        let Some(below) = rest.strip_prefix('@') else {
            add(&mut layers.base, path, root.len(), entry, diagnostics);
            continue;
        };
        let Some((name, within)) = below.split_once('/') else {
            let message = format!("`{}` is a file, but overlays are folders", shown(rest));
            let mut complaint = Diagnostic::error("overlay", Location::whole(path), message);
            complaint.help("make it a folder that is laid out like the application's, or rename it");
            diagnostics.push(complaint);
            continue;
        };
        if within.starts_with('@') {
            let inner = within.split('/').next().unwrap_or_default();
            if nested.insert((name, inner)) {
                let place = format!("{root}/@{name}/{inner}");
                let mut complaint = Diagnostic::error(
                    "overlay",
                    Location::whole(&place),
                    format!("the overlay `{}` lies within another one", shown(inner)),
                );
                complaint.help(format!("move it to {}/{}", shown(root), shown(inner)));
                diagnostics.push(complaint);
            }
            continue;
        }
        let layer = layers.overlays.entry(name).or_default();
        add(layer, path, root.len() + 2 + name.len(), entry, diagnostics);
    }
    layers
}

fn add<'t>(layer: &mut Layer<'t>, path: &'t str, root: usize, entry: &Entry, diagnostics: &mut Vec<Diagnostic>) {
    let written = &path[root + 1..];
    let stem = written.strip_suffix(TEMPLATE).filter(|stem| !stem.is_empty() && !stem.ends_with('/'));
    let within = stem.unwrap_or(written);
    let source =
        Source { within, root: &path[..root], path, entry: entry.clone(), is_template: stem.is_some(), sealed: None };
    if source.is_template && within == "app.yaml" {
        let message = "app.yaml itself is not a template";
        let mut complaint = Diagnostic::error("template-app", Location::whole(path), message);
        complaint
            .help("rename it to app.yaml: the texts in it may hold `{{ … }}`, its structure may not depend on a host");
        diagnostics.push(complaint);
        return;
    }
    if let Some(other) = layer.get(within) {
        let message = format!("`{}` is here twice, as a file and as a template", shown(within));
        let mut complaint = Diagnostic::error("template-twice", Location::whole(path), message);
        complaint.help("keep one of the two").related(Location::whole(other.path), "the other one");
        diagnostics.push(complaint);
        return;
    }
    layer.insert(within, source);
}

impl<'t> Layers<'t> {
    /// Complains about overlays that are for nobody, or for two; those are laid over nothing.
    pub(super) fn keep_known(&mut self, root: &str, audience: &Audience<'_>, diagnostics: &mut Vec<Diagnostic>) {
        self.overlays.retain(|name, _| {
            let is_host = audience.hosts.keys().any(|host| host.as_str() == *name);
            let is_environment = audience.environments.contains(name);
            let (rule, message, help) = match (is_host, is_environment) {
                (true, false) | (false, true) => return true,
                (true, true) => (
                    "overlay-ambiguous",
                    format!("`{name}` is both a host and an environment"),
                    "rename one of the two in fleet.yaml: nobody could tell for whom this overlay is".to_owned(),
                ),
                (false, false) if !audience.is_complete => return false,
                (false, false) => (
                    "overlay-unknown",
                    format!("there is no host and no environment `{}`", shown(name)),
                    unknown(name, audience),
                ),
            };
            let mut complaint = Diagnostic::error(rule, Location::whole(&format!("{root}/@{name}")), message);
            complaint.help(help);
            diagnostics.push(complaint);
            false
        });
    }

    /// Lays the layers on top of each other for all of `hosts`; those who see the same share a view.
    ///
    /// An environment's overlay that no host sees has a view without hosts, so that its mistakes are found as well.
    pub(super) fn views<'h>(&self, hosts: &'h BTreeMap<HostName, Host>) -> Vec<View<'t, 'h>> {
        let mut seen: BTreeMap<Vec<&'t str>, Vec<&'h HostName>> = BTreeMap::new();
        for (name, host) in hosts {
            let environment = host.environment.as_deref().unwrap_or_default();
            let overlays =
                [environment, name.as_str()].into_iter().filter_map(|name| self.overlays.get_key_value(name));
            seen.entry(overlays.map(|(name, _)| *name).collect()).or_default().push(name);
        }
        for overlay in self.overlays.keys() {
            if !seen.keys().any(|overlays| overlays.contains(overlay)) {
                seen.insert(vec![*overlay], Vec::new());
            }
        }
        if seen.is_empty() {
            seen.insert(Vec::new(), Vec::new());
        }
        seen.into_iter().map(|(overlays, hosts)| View { files: self.laid(&overlays), overlays, hosts }).collect()
    }

    fn laid(&self, overlays: &[&str]) -> Layer<'t> {
        let mut files = self.base.clone();
        for overlay in overlays.iter().filter_map(|name| self.overlays.get(name)) {
            files.extend(overlay.iter().map(|(within, source)| (*within, source.clone())));
        }
        files
    }
}

/// Says what may have been meant by an overlay's name.
fn unknown(name: &str, audience: &Audience<'_>) -> String {
    const MOST_LISTED: usize = 10;
    let environments = audience.environments.iter().copied();
    let known = environments.clone().chain(audience.hosts.keys().map(HostName::as_str));
    if let Some(near) = nearest(name, known) {
        return did_you_mean(&format!("@{near}"));
    }
    let environments: Vec<&str> = environments.take(MOST_LISTED).collect();
    if environments.is_empty() {
        return "an overlay is called like a host or an environment of fleet.yaml, with an `@` before it".to_owned();
    }
    format!("fleet.yaml knows the environments {}; an overlay can be for a host, too", list(&environments))
}
