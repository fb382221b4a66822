//! Reads fleet.yaml and hosts/*.yaml.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::alerts::{self, Alert};
use super::decode::values;
use super::endpoints;
use super::model::{Drift, Environment, Host};
use super::page::{Extent, Page};
use super::place;
use super::policy::DRIFT;
use super::rollouts::Written;
use super::secrets;
use super::trust;
use super::words::{did_you_mean, list};
use super::yaml::{self, Key, Node};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostName, shown};

/// What fleet.yaml says before the pieces are put together.
#[derive(Default)]
pub(super) struct FleetFile {
    pub(super) name: Option<String>,
    pub(super) drift: Option<Drift>,
    pub(super) environment: Option<String>,
    /// `None` when there is no such section.
    pub(super) environments: Option<BTreeMap<String, Environment>>,
    pub(super) acknowledged: BTreeMap<String, String>,
    /// What it says of how changes spread, where it could be read at all.
    pub(super) rules: Option<Written>,
    pub(super) alerts: Vec<Alert>,
    /// Who is believed, where it says so.
    pub(super) trust: Option<trust::Written>,
    /// For whom everything is encrypted, beside the hosts that need it.
    pub(super) recipients: Vec<String>,
    /// Whether a host, or a file that may name some, has a mistake; selectors are not compared with half the hosts.
    pub(super) hosts_are_faulty: bool,
}

/// Reads fleet.yaml; its hosts go to `hosts`.
pub(super) fn read(page: &mut Page<'_>, hosts: &mut BTreeMap<HostName, Host>) -> FleetFile {
    let mut file = FleetFile::default();
    let Some(node) = yaml::read(page) else {
        file.hosts_are_faulty = true;
        return file;
    };
    if node.is_null() {
        file.hosts_are_faulty = true;
        page.error("fleet-empty", Extent::new(0, 0), "fleet.yaml is empty")
            .help("begin with `fleet: NAME` and `hosts:`; `mainstay init` writes an example");
        return file;
    }
    let Some(mut table) = page.table(&node, "fleet.yaml") else {
        file.hosts_are_faulty = true;
        return file;
    };
    match table.take("fleet") {
        Some((_, node)) => {
            let text = page.text(node, "`fleet`");
            file.name = text
                .and_then(|text| page.name("fleet-name", node.extent, "a fleet's name", HostName::parse(text)))
                .map(|name| name.as_str().to_owned());
        }
        None if table.has_misspelt("fleet") => {}
        None => {
            page.error("fleet-name", node.extent, "fleet.yaml does not name the fleet")
                .help("add `fleet: NAME`; the name marks what belongs to this repository on each host");
        }
    }
    if let Some((_, node)) = table.take("environments") {
        file.environments = environments(page, node);
    }
    if let Some((_, node)) = table.take("defaults")
        && let Some(mut defaults) = page.table(node, "`defaults`")
    {
        if let Some((_, node)) = defaults.take("environment") {
            file.environment = environment(page, node, file.environments.as_ref());
            file.hosts_are_faulty |= file.environment.is_none();
        }
        if let Some((_, node)) = defaults.take("drift") {
            file.drift = page.choice(node, "`drift`", &DRIFT);
        }
        defaults.finish(page, "`defaults`");
    }
    if let Some((_, node)) = table.take("hosts") {
        read_hosts(page, node, &mut file, hosts);
    }
    if let Some((_, node)) = table.take("acknowledge") {
        file.acknowledged = acknowledged(page, node);
    }
    file.rules = Some(Written::take(&mut table));
    if let Some((_, node)) = table.take("alerts") {
        file.alerts = alerts::read(page, node);
    }
    file.trust = table.take("trust").map(|(_, node)| trust::read(page, node));
    if let Some((_, node)) = table.take("recipients") {
        let items = page.list(node, "`recipients`").unwrap_or_default();
        file.recipients =
            items.iter().filter_map(|node| secrets::recipient(page, node, "an item of `recipients`")).collect();
    }
    table.finish(page, "fleet.yaml");
    file
}

/// Reads one of hosts/*.yaml.
pub(super) fn read_more_hosts(page: &mut Page<'_>, file: &mut FleetFile, hosts: &mut BTreeMap<HostName, Host>) {
    let Some(node) = yaml::read(page) else {
        file.hosts_are_faulty = true;
        return;
    };
    if node.is_null() {
        page.error("hosts-empty", Extent::new(0, 0), "this file names no host").help("add one, or remove the file");
        return;
    }
    if let yaml::Kind::Mapping(entries) = &node.kind
        && let [(key, _)] = entries.as_slice()
        && key.text == "hosts"
    {
        file.hosts_are_faulty = true;
        page.error(
            "hosts-shape",
            key.extent,
            "files in hosts/ hold the hosts themselves, without `hosts:` around them",
        )
        .help("remove this line and move everything below it two spaces to the left");
        return;
    }
    read_hosts(page, &node, file, hosts);
}

fn environments(page: &mut Page<'_>, node: &Node) -> Option<BTreeMap<String, Environment>> {
    let mut environments = BTreeMap::new();
    for (key, node) in page.entries(node, "`environments`")? {
        let name = page.name("environment-name", key.extent, "an environment's name", HostName::parse(&key.text));
        let mut environment = Environment::default();
        if !node.is_null()
            && let Some(mut table) = page.table(node, "an environment")
        {
            if let Some((_, node)) = table.take("vars") {
                environment.vars = values(page, node, "`vars`");
            }
            if let Some((_, node)) = table.take("endpoints") {
                environment.endpoints = endpoints::externals(page, node);
            }
            table.finish(page, "an environment");
        }
        if name.is_some() {
            environments.insert(key.text.clone(), environment);
        }
    }
    Some(environments)
}

fn environment(page: &mut Page<'_>, node: &Node, known: Option<&BTreeMap<String, Environment>>) -> Option<String> {
    let name = page.text(node, "`environment`")?;
    if let Some(known) = known
        && !known.contains_key(name)
    {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let help = match page.near(name, names.iter().copied()) {
            Some(near) => did_you_mean(near),
            None if names.is_empty() => "`environments` is empty: name it there".to_owned(),
            None => format!("`environments` names {}", list(&names)),
        };
        page.error("unknown-environment", node.extent, format!("there is no environment `{}`", shown(name))).help(help);
        return None;
    }
    page.name("environment-name", node.extent, "an environment's name", HostName::parse(name))?;
    Some(name.to_owned())
}

fn read_hosts(page: &mut Page<'_>, node: &Node, file: &mut FleetFile, hosts: &mut BTreeMap<HostName, Host>) {
    let before = page.errors();
    for (key, node) in page.entries(node, "`hosts`").unwrap_or_default() {
        let name = page.name("host-name", key.extent, "a host name", HostName::parse(&key.text));
        let host = host(page, key, node, file);
        let (Some(name), Some(host)) = (name, host) else { continue };
        if let Some(earlier) = hosts.get(&name) {
            let earlier = earlier.location.clone();
            page.error("duplicate-host", key.extent, format!("host `{name}` is written twice"))
                .help("keep one of the two")
                .related(earlier, "first written here");
            continue;
        }
        hosts.insert(name, host);
    }
    file.hosts_are_faulty |= page.errors() > before;
}

fn host(page: &mut Page<'_>, key: &Key, node: &Node, file: &FleetFile) -> Option<Host> {
    let mut host = Host {
        labels: BTreeMap::new(),
        address: None,
        key: None,
        recipient: None,
        environment: file.environment.clone(),
        vars: BTreeMap::new(),
        location: page.at(key.extent),
    };
    if node.is_null() {
        return Some(host);
    }
    let mut table = page.table(node, &format!("host `{}`", shown(&key.text)))?;
    if let Some((_, node)) = table.take("labels") {
        host.labels = labels(page, node);
    }
    if let Some((_, node)) = table.take("address") {
        host.address = address(page, node);
    }
    if let Some((_, node)) = table.take("key") {
        host.key = public_key(page, node);
    }
    if let Some((_, node)) = table.take("recipient") {
        host.recipient = secrets::recipient(page, node, "`recipient`");
    }
    if let Some((_, node)) = table.take("environment") {
        host.environment = environment(page, node, file.environments.as_ref());
    }
    if let Some((_, node)) = table.take("vars") {
        host.vars = values(page, node, "`vars`");
    }
    table.finish(page, "a host");
    Some(host)
}

fn labels(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, node) in page.entries(node, "`labels`").unwrap_or_default() {
        let name = shown(&key.text);
        if place::BUILT_IN.contains(&key.text.as_str()) {
            page.error(
                "host-label",
                key.extent,
                format!("`{name}` cannot be a label: selectors give it a meaning of its own"),
            )
            .help(if name == "environment" {
                "write `environment:` beside `labels:`"
            } else {
                "choose another name"
            });
            continue;
        }
        if key.text.is_empty() || key.text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            page.error("host-label", key.extent, format!("`{name}` is not a label's name"))
                .help("use letters, digits and `-`");
            continue;
        }
        if let Some(value) = page.text(node, &format!("label `{name}`")) {
            labels.insert(key.text.clone(), value.to_owned());
        }
    }
    labels
}

fn address(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`address`")?;
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let name = text.len() <= 253 && !numeric && text.trim_end_matches('.').split('.').all(label);
    if text.parse::<IpAddr>().is_err() && !name {
        page.error("host-address", node.extent, format!("`{}` is neither an IP address nor a DNS name", shown(text)))
            .help("write it without port, user or scheme, such as 192.0.2.10 or attic.example");
        return None;
    }
    Some(text.to_owned())
}

/// What every ed25519 public key begins with: its type, in SSH's own encoding, in base64.
const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAI";

fn public_key(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`key`")?;
    let mut words = text.split_whitespace();
    let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (why, help) = if text.contains("PRIVATE KEY") {
        (
            "this is a private key",
            "replace this key everywhere: whoever reads the repository has it; write the public half here",
        )
    } else if kind != "ssh-ed25519" {
        ("the key is not of type ssh-ed25519", "write the line of the host's .pub file: ssh-ed25519 AAAA…")
    } else if text.contains(char::is_control) || !data.starts_with(ED25519) || data.len() != 68 {
        (
            "the key is damaged: an ed25519 key has 68 characters behind its type",
            "copy the whole line of the host's .pub file",
        )
    } else if crate::trust::fingerprint(kind, data).is_err() {
        (
            "the key is damaged: its characters are not those of an ed25519 key",
            "copy the whole line of the host's .pub file",
        )
    } else {
        // As all who compare keys write it: without a comment, and with one blank.
        return Some(format!("{kind} {data}"));
    };
    page.error("host-key", node.extent, why).help(help);
    None
}

/// Complains when two hosts have one key: one could then speak for the other.
pub(super) fn check_keys(hosts: &BTreeMap<HostName, Host>, diagnostics: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<&str, (&HostName, &Location)> = BTreeMap::new();
    for (name, host) in hosts {
        let Some(data) = host.key.as_deref().and_then(|key| key.split_whitespace().nth(1)) else { continue };
        if let Some((other, location)) = seen.get(data) {
            let message = format!("hosts `{other}` and `{name}` have the same key");
            let mut complaint = Diagnostic::error("host-key-shared", host.location.clone(), message);
            complaint
                .help("give each host a key of its own, so that none can speak for another")
                .related((*location).clone(), "the other host");
            diagnostics.push(complaint);
        } else {
            seen.insert(data, (name, &host.location));
        }
    }
}

fn acknowledged(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    const FORM: &str =
        "copy the line that the prune guard printed, and say why: { prune: \"1f2e3d4c5b6a\", reason: \"…\" }";
    for node in page.list(node, "`acknowledge`").unwrap_or_default() {
        let Some(mut table) = page.table(node, "an acknowledgement") else { continue };
        let prune = table.take("prune");
        let reason = table.take("reason");
        if prune.is_none() {
            page.error("acknowledge", node.extent, "this acknowledgement names no removal").help(FORM);
        }
        if reason.is_none() {
            page.error("acknowledge", node.extent, "this acknowledgement gives no reason").help(FORM);
        }
        table.finish(page, "an acknowledgement");
        let reason = reason.and_then(|(_, node)| Some((page.text(node, "`reason`")?, node.extent)));
        if let Some((_, extent)) = reason.filter(|(text, _)| text.trim().is_empty()) {
            page.error("acknowledge", extent, "the reason is empty").help(FORM);
        }
        let prune = prune.and_then(|(_, node)| {
            let text = page.as_written(node, "`prune`")?;
            let good = text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !good {
                page.error("acknowledge", node.extent, format!("`{}` is not a digest of 12 hex digits", shown(text)))
                    .help(FORM);
            }
            good.then_some(text)
        });
        if let (Some(prune), Some((reason, _))) = (prune, reason) {
            acknowledged.insert(prune.to_owned(), reason.to_owned());
        }
    }
    acknowledged
}
