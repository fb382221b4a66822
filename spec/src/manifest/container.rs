//! Reads `containers:` of app.yaml: what the engine's API takes, as strictly as the engine, but with a place and a remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::critical;
use super::decode::Table;
use super::image;
use super::model::{Container, Policy, Port};
use super::page::{Extent, Page};
use super::policy;
use super::yaml::{Kind, Node};
use crate::container::{Mount, MountSource, Networking, Protocol, Settings};
use crate::id::{ContainerName, HostPath, ResourceId, VolumeName, shown};

/// Labels that mainstay marks its containers with.
const OWN_LABELS: &str = "io.mainstay.";

/// Reads all containers of an application.
pub(super) fn read(
    page: &mut Page<'_>,
    node: &Node,
    policies: &mut BTreeMap<ResourceId, Policy>,
) -> BTreeMap<ContainerName, Container> {
    let entries = page.entries(node, "`containers`").unwrap_or_default();
    let mut containers = BTreeMap::new();
    for (key, node) in entries {
        let name = page.name("container-name", key.extent, "a container name", ContainerName::parse(&key.text));
        let container = container(page, node, key.extent);
        if let (Some(name), Some((container, policy))) = (name, container) {
            policies.insert(ResourceId::Container(name.clone()), policy);
            containers.insert(name, container);
        }
    }
    containers
}

fn container(page: &mut Page<'_>, node: &Node, extent: Extent) -> Option<(Container, Policy)> {
    let mut table = page.table(node, "a container")?;
    let image = match table.take("image") {
        Some((_, node)) => image::read(page, node),
        None if table.has_misspelt("image") => None,
        None => {
            page.error("container-image", extent, "this container names no image")
                .help("add image: \"registry.example/name:version\"");
            None
        }
    };
    let command = arguments(page, &mut table, "command");
    let entrypoint = arguments(page, &mut table, "entrypoint");
    let env = table.take("env").map(|(_, node)| env(page, node)).unwrap_or_default();
    let ports = table.take("ports").map(|(_, node)| ports(page, node)).unwrap_or_default();
    let mounts = table.take("volumes").map(|(_, node)| volumes(page, node)).unwrap_or_default();
    let user = table.take("user").and_then(|(_, node)| user(page, node));
    let network = table.take("network").and_then(|(_, node)| network(page, node, &ports));
    let networking = network.map_or(Networking::Default, Networking::Mode);
    let labels = table.take("labels").map(|(_, node)| labels(page, node)).unwrap_or_default();
    let policy = policy::read(page, &mut table);
    table.finish(page, "a container");
    let ports = ports.into_iter().map(|(port, _)| port).collect();
    let location = page.at(extent);
    let image = image?;
    let settings =
        Settings { image, entrypoint, command, env, mounts, user, networking, labels, ..Settings::default() };
    let container = Container { settings, ports, job: false, after: BTreeMap::new(), joins: BTreeSet::new(), location };
    Some((container, policy))
}

/// Reads text that ends up in the engine: no NUL.
fn plain<'n>(page: &mut Page<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    let text = page.as_written(node, what)?;
    check_plain(page, text, node.extent, what).then_some(text)
}

fn check_plain(page: &mut Page<'_>, text: &str, extent: Extent, what: &str) -> bool {
    if text.contains('\0') {
        page.error("container-text", extent, format!("{what} holds a NUL character")).help("remove the `\\0`");
        return false;
    }
    true
}

fn arguments(page: &mut Page<'_>, table: &mut Table<'_>, key: &'static str) -> Vec<String> {
    let Some((_, node)) = table.take(key) else { return Vec::new() };
    let what = format!("`{key}`");
    if let Kind::Scalar { text, .. } = &node.kind
        && !node.is_null()
    {
        let words: Vec<String> = text.split_whitespace().take(4).map(|word| format!("\"{}\"", shown(word))).collect();
        let more = if text.split_whitespace().count() > 4 { ", …" } else { "" };
        page.error("container-command", node.extent, format!("{what} is one text; no shell splits it into arguments"))
            .help(format!("write a list: {key}: [{}{more}]", words.join(", ")));
        return Vec::new();
    }
    let item = format!("an argument of {what}");
    let items = page.list(node, &what).unwrap_or_default();
    items.iter().filter_map(|node| plain(page, node, &item).map(str::to_owned)).collect()
}

fn env(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if let Kind::Sequence(_) = &node.kind {
        page.error("wrong-type", node.extent, "`env` is a map, not a list").help("write env: { NAME: value }");
        return env;
    }
    for (key, node) in page.entries(node, "`env`").unwrap_or_default() {
        let bad = key.text.is_empty() || key.text.contains(|c: char| c == '=' || c.is_whitespace() || c.is_control());
        if bad {
            page.error("container-env", key.extent, format!("`{}` is not a variable's name", shown(&key.text)))
                .help("use letters, digits and `_`, without `=` or spaces");
        }
        let value = plain(page, node, &format!("variable `{}`", shown(&key.text)));
        if let Some(value) = value.filter(|_| !bad) {
            env.insert(key.text.clone(), value.to_owned());
        }
    }
    env
}

fn labels(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, node) in page.entries(node, "`labels`").unwrap_or_default() {
        let own = key.text.starts_with(OWN_LABELS);
        if own {
            page.error("container-label", key.extent, format!("label `{}` is mainstay's own", shown(&key.text)))
                .help(format!("use another prefix: mainstay knows its containers by `{OWN_LABELS}…`"));
        }
        if key.text.is_empty() || key.text.contains(char::is_control) {
            page.error("container-label", key.extent, "this label has no readable name").help("give it one");
        }
        let value = plain(page, node, &format!("label `{}`", shown(&key.text)));
        if let Some(value) = value.filter(|_| !own) {
            labels.insert(key.text.clone(), value.to_owned());
        }
    }
    labels
}

const PORT_FORMS: &str =
    "write \"HOST:CONTAINER\", \"ADDRESS:HOST:CONTAINER\" or \"HOST:CONTAINER/udp\", such as \"8080:80\"";

fn ports(page: &mut Page<'_>, node: &Node) -> Vec<(Port, Extent)> {
    let mut ports: Vec<(Port, Extent)> = Vec::new();
    for (text, extent) in page.words(node, "`ports`") {
        if !check_plain(page, &text, extent, "a port") {
            continue;
        }
        match port(&text) {
            Ok((host, container, protocol, address)) => {
                let location = page.at(extent);
                ports.push((Port { host, container, protocol, address, location }, extent));
            }
            Err(why) => {
                let help = match text.parse::<u16>() {
                    Ok(number) => format!("write \"{number}:{number}\" to publish it under the same number"),
                    Err(_) => PORT_FORMS.to_owned(),
                };
                page.error("container-port", extent, format!("`{}` is not a published port: {why}", shown(&text)))
                    .help(help);
            }
        }
    }
    ports.sort_by(|one, other| one.0.cmp(&other.0));
    for pair in ports.windows(2) {
        let (one, other) = (&pair[0].0, &pair[1].0);
        let key = |port: &Port| (port.host, port.container, port.protocol, port.address);
        if key(one) == key(other) {
            page.error("container-port", pair[1].1, "this port is published twice")
                .help("keep one of the two")
                .related(one.location.clone(), "first published here");
        }
    }
    ports
}

/// Reads the port on the host, the one in the container, the protocol, and the address.
fn port(text: &str) -> Result<(u16, u16, Protocol, Option<IpAddr>), String> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => return Err(format!("`{}` is neither `tcp` nor `udp`", shown(other))),
    };
    let number = |text: &str| {
        if text.contains('-') {
            return Err("a range is not read; list each port".to_owned());
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse::<u16>().ok() } else { None };
        number.filter(|number| *number > 0).ok_or_else(|| format!("`{}` is not a port from 1 to 65535", shown(text)))
    };
    let Some((rest, container)) = rest.rsplit_once(':') else {
        return Err("it names only one port, and mainstay publishes no random ones".to_owned());
    };
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => (Some(address), host),
    };
    let address = address
        .map(|text| {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            bare.parse::<IpAddr>().map_err(|_| format!("`{}` is not an IP address", shown(text)))
        })
        .transpose()?;
    Ok((number(host)?, number(container)?, protocol, address))
}

fn volumes(page: &mut Page<'_>, node: &Node) -> Vec<Mount> {
    let mut volumes: Vec<Mount> = Vec::new();
    let mut targets = BTreeSet::new();
    for (text, extent) in page.words(node, "`volumes`") {
        if !check_plain(page, &text, extent, "a volume") {
            continue;
        }
        match volume(&text) {
            Ok(volume) => {
                if let Some((path, why)) = volume.host_path().and_then(|path| Some((path, critical::mount(path)?))) {
                    let message = format!("a container may not mount `{}`: {why}", shown(path));
                    page.error("container-mount", extent, message)
                        .help("mount only the files or folders that it needs");
                }
                if !targets.insert(volume.target.clone()) {
                    let message = format!("two volumes are mounted at `{}`", shown(&volume.target));
                    page.error("container-volume", extent, message).help("keep one of the two");
                }
                volumes.push(volume);
            }
            Err((why, help)) => {
                page.error("container-volume", extent, format!("`{}` is not a volume: {why}", shown(&text))).help(help);
            }
        }
    }
    volumes.sort();
    volumes
}

fn volume(text: &str) -> Result<Mount, (String, &'static str)> {
    const FORMS: &str =
        "write \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\", such as \"/etc/bridge:/etc/bridge:ro\" or \"data:/data\"";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [_, _, option] => return Err((format!("`{}` is neither `ro` nor `rw`", shown(option)), FORMS)),
        [_] => return Err(("it has no target".to_owned(), FORMS)),
        _ => return Err(("it has too many parts".to_owned(), FORMS)),
    };
    if let Err(why) = HostPath::parse(target) {
        return Err((format!("its target {why}"), FORMS));
    }
    let source = if source.starts_with('/') {
        if source != "/"
            && let Err(why) = HostPath::parse(source)
        {
            return Err((format!("its source {why}"), FORMS));
        }
        MountSource::Bind { path: source.to_owned(), create: true, propagation: None, relabel: None }
    } else if source.starts_with(['.', '~']) || source.contains('/') {
        return Err((
            format!("its source `{}` depends on a current folder, which a host does not have", shown(source)),
            "bring the file under files/ and mount it by its absolute path",
        ));
    } else if let Ok(name) = VolumeName::parse(source) {
        MountSource::Volume { name, nocopy: false, subpath: None }
    } else {
        return Err((format!("its source `{}` is neither an absolute path nor a volume's name", shown(source)), FORMS));
    };
    Ok(Mount { source, target: target.to_owned(), read_only })
}

fn user(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = plain(page, node, "`user`")?;
    let part = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let good = match text.split_once(':') {
        Some((user, group)) => part(user) && part(group),
        None => part(text),
    };
    if !good {
        page.error("container-user", node.extent, format!("`{}` is not a user", shown(text)))
            .help("write a name or number, with a group if needed: \"1000:1000\"");
    }
    good.then(|| text.to_owned())
}

fn network(page: &mut Page<'_>, node: &Node, ports: &[(Port, Extent)]) -> Option<String> {
    let text = plain(page, node, "`network`")?;
    if text.starts_with("container:") || text.starts_with("ns:") {
        page.error(
            "container-network",
            node.extent,
            format!("`{}` shares the network of something mainstay does not order", shown(text)),
        )
        .help("use a named network that both join, or network: host");
        return None;
    }
    let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !good {
        page.error("container-network", node.extent, format!("`{}` is not a network", shown(text)))
            .help("write `host`, `bridge`, `none` or the name of a network");
        return None;
    }
    if let (true, Some((_, extent))) = (matches!(text, "host" | "none"), ports.first()) {
        page.error("container-network", *extent, format!("nothing is published with network: {text}")).help(
            if text == "host" { "remove `ports`: the container listens on the host itself" } else { "remove `ports`" },
        );
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_engine_reads_them() {
        let port = |text: &str| port(text).map(|it| (it.3.map(|address| address.to_string()), it.0, it.1, it.2));
        assert_eq!(port("8080:80"), Ok((None, 8080, 80, Protocol::Tcp)));
        assert_eq!(port("127.0.0.1:53:5353/udp"), Ok((Some("127.0.0.1".to_owned()), 53, 5353, Protocol::Udp)));
        assert_eq!(port("[::1]:80:80"), Ok((Some("::1".to_owned()), 80, 80, Protocol::Tcp)));
        for bad in
            ["80", "0:80", "80:70000", "a:80", "80:80/sctp", "80-90:80-90", "host:80:80", ":80", "80:", "+80:80", ""]
        {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_absolute_or_named() {
        assert!(volume("/srv/a:/a:ro").is_ok_and(|it| it.read_only));
        assert!(volume("data:/data").is_ok_and(|it| !it.read_only));
        for bad in ["/a", "./a:/a", "~/a:/a", "a/b:/a", "/a:b", "/a:/", "/a/../b:/b", "a:/a:z", ":/a", "a:/a:ro:x"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }
}
