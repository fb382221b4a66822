//! Selectors of hosts: the `place:` of app.yaml, and the `where:` of what fleet.yaml says of changes.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Host;
use super::page::{Extent, Page};
use super::selector::Place;
use super::words::did_you_mean;
use super::yaml::{Kind, Node};
use crate::diagnostic::Severity;
use crate::id::{HostName, shown};

/// Labels that every host has without writing them, and the word that turns a selector around.
pub(super) const BUILT_IN: [&str; 3] = ["host", "environment", "not"];

/// Reads `place`; `hosts` is `None` when the hosts themselves have mistakes, and then nothing is said about matches.
pub(super) fn read(page: &mut Page<'_>, node: &Node, hosts: Option<&BTreeMap<HostName, Host>>) -> Option<Place> {
    selector(page, node, ("`place`", Severity::Warning), hosts)
}

/// Reads the selector of a rule that keeps hosts from changing. One that matches nobody keeps nobody, which is what a slip of the
/// pen would do as well: that is an error.
pub(super) fn rule(
    page: &mut Page<'_>,
    node: &Node,
    what: &'static str,
    hosts: Option<&BTreeMap<HostName, Host>>,
) -> Option<Place> {
    selector(page, node, (what, Severity::Error), hosts)
}

fn selector(
    page: &mut Page<'_>,
    node: &Node,
    (what, severity): (&'static str, Severity),
    hosts: Option<&BTreeMap<HostName, Host>>,
) -> Option<Place> {
    let known = hosts.map(Known::of);
    let mut reader = Reader { page, what, severity, known, has_complained: false };
    let place = reader.selector(node)?;
    let has_complained = reader.has_complained;
    if let Some(hosts) = hosts
        && !has_complained
        && !hosts.iter().any(|(name, host)| place.holds(name, host))
    {
        page.complain(severity, "place-nobody", node.extent, "this selector matches no host")
            .help("each label may fit some host, but no host has all of them; compare with the labels in fleet.yaml");
    }
    Some(place)
}

/// The labels in use, with their values.
struct Known<'h>(BTreeMap<&'h str, BTreeSet<&'h str>>);

impl<'h> Known<'h> {
    fn of(hosts: &'h BTreeMap<HostName, Host>) -> Known<'h> {
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, host) in hosts {
            labels.entry("host").or_default().insert(name.as_str());
            if let Some(environment) = &host.environment {
                labels.entry("environment").or_default().insert(environment);
            }
            for (label, value) in &host.labels {
                labels.entry(label).or_default().insert(value);
            }
        }
        Known(labels)
    }
}

struct Reader<'p, 'a, 'h> {
    page: &'p mut Page<'a>,
    what: &'static str,
    severity: Severity,
    known: Option<Known<'h>>,
    has_complained: bool,
}

const FORMS: &str = "write `all`, labels such as { role: broker }, a list of selectors, or { not: { … } }";

impl Reader<'_, '_, '_> {
    fn selector(&mut self, node: &Node) -> Option<Place> {
        match &node.kind {
            Kind::Scalar { text, .. } if text == "all" => Some(Place::All),
            Kind::Scalar { text, .. } => {
                let host = self
                    .known
                    .as_ref()
                    .and_then(|known| known.0.get("host"))
                    .is_some_and(|hosts| hosts.contains(text.as_str()));
                let help = if host { format!("to name a host, write {{ host: {text} }}") } else { FORMS.to_owned() };
                let message = if node.is_null() {
                    format!("{} has no value", self.what)
                } else {
                    format!("`{}` is not a selector", shown(text))
                };
                self.page.error("place-selector", node.extent, message).help(help);
                None
            }
            Kind::Sequence(items) if items.is_empty() => {
                self.page.error("place-selector", node.extent, "an empty list selects no host").help(FORMS);
                None
            }
            Kind::Sequence(items) => {
                let places: Vec<Option<Place>> = items.iter().map(|item| self.selector(item)).collect();
                places.into_iter().collect::<Option<Vec<_>>>().map(Place::Any)
            }
            Kind::Mapping(entries) if entries.is_empty() => {
                self.page
                    .error("place-selector", node.extent, "a selector without labels is ambiguous")
                    .help("write `all` when every host is meant");
                None
            }
            Kind::Mapping(entries) => {
                let places: Vec<Option<Place>> = entries
                    .iter()
                    .map(|(key, value)| match key.text.as_str() {
                        "not" => self.selector(value).map(|place| Place::Not(Box::new(place))),
                        label => self.label(label, key.extent, value),
                    })
                    .collect();
                places.into_iter().collect::<Option<Vec<_>>>().map(Place::Each)
            }
        }
    }

    fn label(&mut self, label: &str, extent: Extent, node: &Node) -> Option<Place> {
        let what = format!("label `{}`", shown(label));
        let single;
        let items = match &node.kind {
            Kind::Sequence(items) => items.as_slice(),
            _ => {
                single = [node.clone()];
                &single
            }
        };
        if items.is_empty() {
            self.page
                .error("place-selector", extent, format!("label `{}` has no value to match", shown(label)))
                .help("name at least one value");
            return None;
        }
        self.expect_label(label, extent);
        let mut values = BTreeSet::new();
        for item in items {
            let value = self.page.text(item, &what)?;
            self.expect_value(label, value, item.extent);
            values.insert(value.to_owned());
        }
        Some(Place::Label { name: label.to_owned(), values })
    }

    fn expect_label(&mut self, label: &str, extent: Extent) {
        let Some(known) = &self.known else { return };
        if known.0.contains_key(label) {
            return;
        }
        let near = self.page.near(label, known.0.keys().copied()).map(did_you_mean);
        let (message, remedy) = if label == "environment" {
            (
                "no host is in an environment".to_owned(),
                "set `environment:` for hosts in fleet.yaml, or correct the selector",
            )
        } else {
            let message = format!("no host has a label `{}`", shown(label));
            (message, "give a host this label in fleet.yaml, or correct the selector")
        };
        let help = near.unwrap_or_else(|| remedy.to_owned());
        self.page.complain(self.severity, "place-unknown-label", extent, message).help(help);
        self.has_complained = true;
    }

    fn expect_value(&mut self, label: &str, value: &str, extent: Extent) {
        let Some(values) = self.known.as_ref().and_then(|known| known.0.get(label)) else { return };
        if values.contains(value) {
            return;
        }
        let near = self.page.near(value, values.iter().copied()).map(did_you_mean);
        let help = near.unwrap_or_else(|| "give a host this value in fleet.yaml, or correct the selector".to_owned());
        let message = match label {
            "host" => format!("no host is called `{}`", shown(value)),
            "environment" => format!("no host is in environment `{}`", shown(value)),
            _ => format!("no host has `{}` as its `{}`", shown(value), shown(label)),
        };
        self.page.complain(self.severity, "place-unknown-value", extent, message).help(help);
        self.has_complained = true;
    }
}
