//! Puts the services of a project together: which take part, what they are called on the host, and who waits for whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::{Condition, Dependency, Namespace, NetworkSettings, Networking, Restart};
use crate::id::{ContainerName, NetworkName, shown};
use crate::manifest::model::{Container, Network};
use crate::manifest::page::{Extent, Page};
use crate::manifest::words::{did_you_mean, list};
use crate::manifest::yaml::{Key, Node};

use super::network::{Declared, Wish};
use super::service::{self, Service};
use super::{Choices, Project, rights};

/// The services that take part, by their names.
type Services<'n> = BTreeMap<&'n str, Service>;

/// Reads all services and adds what they bring.
pub(super) fn services(
    page: &mut Page<'_>,
    project: &mut Project<'_>,
    entries: &[(Key, Node)],
    networks: &BTreeMap<String, Declared<NetworkSettings>>,
    choices: &Choices,
) {
    let known: BTreeSet<&str> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
    let (mut parts, mut idle): (Services<'_>, Services<'_>) = (BTreeMap::new(), BTreeMap::new());
    for (key, node) in entries {
        let own = profiles_of(page, node);
        // One that takes no part is read all the same: its mistakes are mistakes.
        let takes_part = own.is_empty() || own.iter().any(|profile| choices.profiles.contains_key(profile));
        project.brought.services.insert(key.text.clone());
        project.brought.profiles.extend(own);
        let Some(service) = service::read(page, project, key, node) else { continue };
        if takes_part {
            parts.insert(&key.text, service)
        } else {
            idle.insert(&key.text, service)
        };
    }
    find_joined(page, project, &mut parts);
    check_references(page, &known, &parts, &|name| parts.contains_key(name));
    check_idle(page, &known, &idle, networks);
    check_circles(page, &parts);
    guard(page, &parts, choices);
    for (key, part) in &parts {
        place(page, project, (key, part), &parts, networks);
    }
}

/// Finds the services behind `network_mode: container:NAME`. A container that is not of the project could go, or be made
/// anew, and the one that shares its network would be left with none.
fn find_joined(page: &mut Page<'_>, project: &Project<'_>, parts: &mut Services<'_>) {
    let names: BTreeMap<String, &str> = parts
        .iter()
        .map(|(key, part)| (part.container_name.clone().unwrap_or_else(|| format!("{}-{key}-1", project.name)), *key))
        .collect();
    for part in parts.values_mut() {
        let Wish::Container(name, extent) = &part.wish else { continue };
        if let Some(service) = names.get(name) {
            part.wish = Wish::Service((*service).to_owned(), *extent);
            continue;
        }
        let message = format!("container `{}` is not of this project", shown(name));
        page.error("container-network", *extent, message)
            .help("put both into one compose file and write `network_mode: service:NAME`: who shares a network is made anew with it");
    }
}

fn profiles_of(page: &mut Page<'_>, node: &Node) -> Vec<String> {
    let crate::manifest::yaml::Kind::Mapping(entries) = &node.kind else { return Vec::new() };
    let profiles = entries.iter().find(|(key, _)| key.text == "profiles");
    let words = profiles.map(|(_, node)| page.words(node, "`profiles`")).unwrap_or_default();
    words.into_iter().map(|(word, _)| word).collect()
}

/// Names the other services that one refers to.
fn references(service: &Service) -> impl Iterator<Item = (&str, Extent, bool)> {
    let after = service.after.iter().map(|after| (after.service.as_str(), after.extent, after.required));
    let joins = service.joins.values().map(|(name, extent)| (name.as_str(), *extent, true));
    let network = match &service.wish {
        Wish::Service(name, extent) => Some((name.as_str(), *extent, true)),
        Wish::Networks(_) | Wish::Mode(_) | Wish::Container(..) => None,
    };
    after.chain(joins).chain(network)
}

/// Checks what services that take no part name, as far as it would be wrong if they did.
fn check_idle(
    page: &mut Page<'_>,
    known: &BTreeSet<&str>,
    idle: &Services<'_>,
    networks: &BTreeMap<String, Declared<NetworkSettings>>,
) {
    check_references(page, known, idle, &|name| known.contains(name));
    let wishes = idle.values().filter_map(|part| match &part.wish {
        Wish::Networks(wanted) => Some(wanted),
        Wish::Mode(_) | Wish::Service(..) | Wish::Container(..) => None,
    });
    for (network, (_, extent)) in wishes.flatten().filter(|(network, _)| !is_declared(network, networks)) {
        undeclared(page, network, *extent, networks);
    }
}

fn is_declared(network: &str, networks: &BTreeMap<String, Declared<NetworkSettings>>) -> bool {
    network == "default" || networks.contains_key(network)
}

fn undeclared(
    page: &mut Page<'_>,
    network: &str,
    extent: Extent,
    networks: &BTreeMap<String, Declared<NetworkSettings>>,
) {
    let near = page.near(network, networks.keys().map(String::as_str)).map(did_you_mean);
    page.error("compose-network", extent, format!("there is no network `{}`", shown(network)))
        .help(near.unwrap_or_else(|| format!("declare it: networks: {{ {}: }}", shown(network))));
}

fn check_references(
    page: &mut Page<'_>,
    known: &BTreeSet<&str>,
    parts: &Services<'_>,
    is_there: &dyn Fn(&str) -> bool,
) {
    let missing = parts.values().flat_map(references).filter(|(name, _, _)| !is_there(name));
    let missing: Vec<(String, Extent, bool)> =
        missing.map(|(name, extent, needed)| (name.to_owned(), extent, needed)).collect();
    for (name, extent, required) in missing {
        let shown_name = shown(&name);
        if !known.contains(name.as_str()) {
            let near = page.near(&name, known.iter().copied()).map(did_you_mean);
            let all: Vec<&str> = known.iter().copied().collect();
            page.error("compose-service", extent, format!("there is no service `{shown_name}`"))
                .help(near.unwrap_or_else(|| format!("there is {}", list(&all))));
        } else if required {
            page.error(
                "compose-profile",
                extent,
                format!("service `{shown_name}` takes no part: its profile is not enabled"),
            )
            .help("enable it in app.yaml: compose: { profiles: [NAME] }, or write required: false");
        }
    }
}

fn check_circles(page: &mut Page<'_>, parts: &Services<'_>) {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = parts
        .iter()
        .map(|(name, part)| {
            (*name, references(part).map(|(other, _, _)| other).filter(|other| parts.contains_key(other)).collect())
        })
        .collect();
    while let Some(free) = left.iter().find(|(_, others)| others.is_empty()).map(|(name, _)| *name) {
        left.remove(free);
        left.values_mut().for_each(|others| {
            others.remove(free);
        });
    }
    // What is left waits for a circle; going on from one of them ends up in it.
    let Some(mut at) = left.keys().next().copied() else { return };
    let mut walked: Vec<&str> = Vec::new();
    while !walked.contains(&at) {
        walked.push(at);
        let Some(next) = left.get(at).and_then(|others| others.iter().next()) else { return };
        at = next;
    }
    let start = walked.iter().position(|name| *name == at).unwrap_or(0);
    let circle: Vec<String> = walked[start..].iter().chain([&at]).map(|name| format!("`{}`", shown(name))).collect();
    let extent = parts.get(at).map_or(Extent::new(0, 0), |part| part.extent);
    page.error("compose-circle", extent, format!("services wait for each other: {}", circle.join(" → ")))
        .help("remove one of these dependencies");
}

/// Refuses what hands the host over, unless app.yaml says so for this very service.
fn guard(page: &mut Page<'_>, parts: &Services<'_>, choices: &Choices) {
    for (name, part) in parts {
        for danger in rights::dangers(&part.settings) {
            if !choices.privileged.contains_key(*name) {
                let name = shown(name);
                page.error(
                    "compose-privileged",
                    part.words.place(&danger).unwrap_or(part.extent),
                    format!("service `{name}` would have the host (`{}`): {}", danger.key, danger.why),
                )
                .help(format!("if you mean it, write compose: {{ allow-privileged: [{name}] }} in app.yaml"));
            }
        }
    }
}

fn place(
    page: &mut Page<'_>,
    project: &mut Project<'_>,
    (key, part): (&str, &Service),
    parts: &Services<'_>,
    networks: &BTreeMap<String, Declared<NetworkSettings>>,
) {
    let (networking, joined) = connect(page, project, (key, part), parts, networks);
    if part.replicas != 1 && (part.container_name.is_some() || (part.replicas > 1 && !part.ports.is_empty())) {
        page.error("compose-scale", part.extent, "several containers cannot have one name or one port of the host")
            .help("remove `container_name` and `ports`, or keep one container");
    }
    let is_awaited = parts
        .values()
        .flat_map(|other| &other.after)
        .any(|after| after.service == key && after.condition == Condition::Completed);
    let job = is_awaited || part.is_job();
    for number in 1..=part.replicas {
        let Some(name) = container_name(page, project, key, part, number) else { return };
        let mut settings = part.settings.clone();
        settings.networking = networking.clone();
        settings.restart = part.restart.unwrap_or(Restart::No);
        let mut joins: BTreeSet<ContainerName> = joined.iter().cloned().collect();
        for (kind, (other, _)) in &part.joins {
            let Some(other) = parts.get(other.as_str()).and_then(|it| container_name(page, project, other, it, 1))
            else {
                continue;
            };
            let namespace = Some(Namespace::Container(other.clone()));
            if *kind == "pid" {
                settings.rights.pid = namespace;
            } else {
                settings.rights.ipc = namespace;
            }
            joins.insert(other);
        }
        let labels = [
            ("project", project.name.clone()),
            ("service", key.to_owned()),
            ("container-number", number.to_string()),
            ("oneoff", "False".to_owned()),
            // What `docker compose ls`, `ps` and `logs` look for. Another hash than its own, since it did not make this.
            ("config-hash", "mainstay".to_owned()),
            ("project.config_files", format!("apps/{}/compose.yaml", project.app)),
        ];
        settings.labels.extend(labels.map(|(label, value)| (format!("com.docker.compose.{label}"), value)));
        let after = waits(page, project, part, parts);
        let location = page.at(part.extent);
        let container = Container { settings, ports: part.ports.clone(), job, after, joins, location };
        if project.brought.containers.insert(name.clone(), container).is_some() {
            page.error("conflict", part.extent, format!("container `{name}` is wanted by two services"))
                .help("rename one of them");
        }
    }
}

fn waits(
    page: &mut Page<'_>,
    project: &Project<'_>,
    part: &Service,
    parts: &Services<'_>,
) -> BTreeMap<ContainerName, Dependency> {
    let mut waits = BTreeMap::new();
    for after in &part.after {
        let Some(other) = parts.get(after.service.as_str()) else { continue };
        if after.condition == Condition::Healthy
            && other.settings.health.as_ref().is_some_and(crate::container::Health::is_off)
        {
            page.error(
                "compose-health",
                after.extent,
                format!("service `{}` has no health check to wait for", shown(&after.service)),
            )
            .help("give it a `healthcheck`, or wait for service_started");
        }
        if after.condition == Condition::Completed
            && matches!(other.restart, Some(Restart::Always | Restart::UnlessStopped))
        {
            let message = format!("service `{}` never ends: the engine starts it anew", shown(&after.service));
            page.error("compose-restart", after.extent, message)
                .help("give it restart: on-failure, or wait for service_started");
        }
        for number in 1..=other.replicas {
            if let Some(name) = container_name(page, project, &after.service, other, number) {
                waits.insert(name, Dependency { condition: after.condition, restart: after.restart });
            }
        }
    }
    waits
}

fn container_name(
    page: &mut Page<'_>,
    project: &Project<'_>,
    key: &str,
    part: &Service,
    number: i64,
) -> Option<ContainerName> {
    let name = part.container_name.clone().unwrap_or_else(|| format!("{}-{key}-{number}", project.name));
    page.name("container-name", part.extent, "a container name", ContainerName::parse(&name))
}

fn connect(
    page: &mut Page<'_>,
    project: &mut Project<'_>,
    (key, part): (&str, &Service),
    parts: &Services<'_>,
    networks: &BTreeMap<String, Declared<NetworkSettings>>,
) -> (Networking, Option<ContainerName>) {
    let wanted = match &part.wish {
        Wish::Mode(mode) => return (Networking::Mode(mode.clone()), None),
        Wish::Service(other, _) => {
            let name = parts.get(other.as_str()).and_then(|it| container_name(page, project, other, it, 1));
            return (name.clone().map_or(Networking::Default, Networking::Container), name);
        }
        // It was complained about.
        Wish::Container(..) => return (Networking::Default, None),
        Wish::Networks(wanted) => wanted,
    };
    let mut attached = BTreeMap::new();
    for (network, (attachment, extent)) in wanted {
        let declared = networks.get(network);
        if !is_declared(network, networks) {
            undeclared(page, network, *extent, networks);
            continue;
        }
        let called = declared.and_then(|it| it.name.clone());
        let is_external = declared.is_some_and(|it| it.settings.is_none());
        let called =
            called.unwrap_or_else(|| if is_external { network.clone() } else { format!("{}_{network}", project.name) });
        let place = declared.map_or(part.extent, |it| it.extent);
        let Some(name) = page.name("network-name", place, "the name of a network", NetworkName::parse(&called)) else {
            continue;
        };
        let mut attachment = attachment.clone();
        attachment.aliases.insert(key.to_owned());
        attached.insert(name.clone(), attachment);
        let location = page.at(place);
        let settings = match declared {
            Some(declared) => declared.settings.clone(),
            None => Some(NetworkSettings::default()),
        };
        let settings = settings.map(|mut settings| {
            let labels = [("project", project.name.clone()), ("network", network.clone())];
            settings.labels.extend(labels.map(|(label, value)| (format!("com.docker.compose.{label}"), value)));
            settings
        });
        project.brought.networks.insert(name, Network { settings, location });
    }
    (Networking::Networks(attached), None)
}
