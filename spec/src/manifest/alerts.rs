//! Reads `alerts` of fleet.yaml: who is told of what happens on every host, and to the fleet as a whole.

use std::collections::BTreeSet;
use std::fmt;

use super::page::{Extent, Page};
use super::words::list;
use super::yaml::{Key, Kind, Node};
use crate::digest::Digest;
use crate::settings::{self, EVENTS, FLEET_EVENTS};

/// Each host keeps an eye on each of them.
const MOST: usize = 10;
const FORM: &str =
    "write { webhook: \"https://chat.example/hook\", on: [failed, halted] }; `alertmanager` and `ntfy` are others";

/// Somebody who is told, and of what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    /// In which form.
    pub receiver: Receiver,
    /// Where.
    pub url: String,
    /// Of what.
    pub on: BTreeSet<&'static str>,
}

/// The forms in which somebody is told of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receiver {
    /// JSON.
    Webhook,
    /// The API of Alertmanager.
    Alertmanager,
    /// A topic of ntfy.
    Ntfy,
}

impl Receiver {
    const ALL: [Receiver; 3] = [Receiver::Webhook, Receiver::Alertmanager, Receiver::Ntfy];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Receiver::Webhook => "webhook",
            Receiver::Alertmanager => "alertmanager",
            Receiver::Ntfy => "ntfy",
        }
    }

    /// Says whether it forgets what is not repeated.
    pub fn forgets(self) -> bool {
        self == Receiver::Alertmanager
    }
}

impl Alert {
    /// Names the receiver in a few digits: its address may be all that keeps others from using it.
    pub fn id(&self) -> String {
        Digest::of(format!("{} {}", self.receiver, self.url).as_bytes()).short()
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names everything of which somebody can be told.
pub fn events() -> impl Iterator<Item = &'static str> {
    EVENTS.into_iter().chain(FLEET_EVENTS)
}

/// Reads the section.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> Vec<Alert> {
    let items = page.list(node, "`alerts`").unwrap_or_default();
    if let Some(first) = items.get(MOST) {
        page.error("alert", first.extent, format!("`alerts` has at most {MOST} receivers"))
            .help("let one of them pass it on");
    }
    let mut alerts: Vec<(Alert, Extent)> = Vec::new();
    for node in items.iter().take(MOST) {
        let Some((alert, extent)) = alert(page, node) else { continue };
        let same = alerts.iter().find(|(other, _)| (other.receiver, &other.url) == (alert.receiver, &alert.url));
        if let Some(first) = same.map(|(_, extent)| page.at(*extent)) {
            page.error("alert", extent, "this receiver is there already: it would be told everything twice")
                .help("write all its words in one `on`")
                .related(first, "first written here");
            continue;
        }
        alerts.push((alert, extent));
    }
    alerts.into_iter().map(|(alert, _)| alert).collect()
}

fn alert(page: &mut Page<'_>, node: &Node) -> Option<(Alert, Extent)> {
    let mut table = page.table(node, "an item of `alerts`")?;
    let before = page.errors();
    for (key, instead) in [
        ("slack", "`slack` holds a secret"),
        ("webhook-secret", "`webhook-secret` names a secret"),
        ("alertmanager-token", "`alertmanager-token` names a secret"),
        ("ntfy-token", "`ntfy-token` names a secret"),
    ] {
        if let Some(found) = table.take_foreign(key) {
            let message = format!("{instead}, which this version of mainstay does not read from a repository");
            page.error("not-supported", found.extent, message)
                .help(format!("name it in the settings of each host, as a file: alerts: {{ {key}: /etc/mainstay/… }}"));
        }
    }
    let mut found: Vec<(Receiver, &Key, &Node)> = Vec::new();
    for receiver in Receiver::ALL {
        found.extend(table.take(receiver.as_str()).map(|(key, node)| (receiver, key, node)));
    }
    let on = match table.take("on") {
        Some((_, node)) => words(page, node),
        None => events().collect(),
    };
    match found.as_slice() {
        [] if page.errors() == before && !Receiver::ALL.iter().any(|it| table.has_misspelt(it.as_str())) => {
            page.error("alert", node.extent, "this alert goes to nobody").help(FORM);
        }
        [_, (second, key, _), ..] => {
            page.error("alert", key.extent, format!("an alert goes to one receiver, and `{second}` is another"))
                .help("write an item of the list for each");
        }
        _ => {}
    }
    table.finish(page, "an item of `alerts`");
    let (receiver, _, node) = found.into_iter().next()?;
    let url = url(page, receiver, node)?;
    (page.errors() == before).then_some((Alert { receiver, url, on }, node.extent))
}

fn words(page: &mut Page<'_>, node: &Node) -> BTreeSet<&'static str> {
    let known: Vec<(&'static str, &'static str)> = events().map(|event| (event, event)).collect();
    if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
        let all: Vec<&str> = events().collect();
        page.error("alert", node.extent, "this alert tells of nothing")
            .help(format!("name some of {}, or leave `on` out for all of them", list(&all)));
    }
    let items = page.list(node, "`on`").unwrap_or_default();
    items.iter().filter_map(|node| page.choice(node, "an item of `on`", &known)).collect()
}

fn url(page: &mut Page<'_>, receiver: Receiver, node: &Node) -> Option<String> {
    let text = page.text(node, &format!("`{receiver}`"))?;
    // What is wrong with it is not shown: it may hold a password.
    if !settings::is_url(text) {
        let message = format!("`{receiver}` is no address of http or https, or holds a user or password");
        page.error("alert", node.extent, message).help("write it such as https://alerts.example/hook");
        return None;
    }
    if text.starts_with("https://hooks.slack.com/") {
        page.error("alert", node.extent, "whoever reads the repository could use this address: it is a secret")
            .help("replace it there, and name a file that holds the new one in the settings of each host: alerts: { slack: /etc/mainstay/… }");
        return None;
    }
    Some(text.to_owned())
}
