//! The networks of a compose file, and how a service is connected.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::container::{Attachment, NetworkSettings, Pool};
use crate::id::shown;
use crate::manifest::decode::Table;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Kind, Node};

use super::amounts::{labels, map, switch, text, texts};

/// How a service wants to be connected.
pub(super) enum Wish {
    /// By these networks, by their keys.
    Networks(BTreeMap<String, (Attachment, Extent)>),
    /// `host`, `none` or `bridge`.
    Mode(String),
    /// As another service is.
    Service(String, Extent),
    /// As a container is, by its name.
    Container(String, Extent),
}

/// Reads `network_mode` and `networks` of a service.
pub(super) fn wish(page: &mut Page<'_>, table: &mut Table<'_>) -> Wish {
    let networks = table.take("networks");
    let mac = table.take("mac_address").and_then(|(_, node)| text(page, node, "`mac_address`"));
    let default = || ("default".to_owned(), (Attachment::default(), Extent::new(0, 0)));
    if let Some((key, node)) = table.take("network_mode") {
        if networks.is_some() {
            page.error("container-network", key.extent, "`network_mode` and `networks` exclude each other")
                .help("keep one of the two");
        }
        let Some(mode) = text(page, node, "`network_mode`") else { return Wish::Mode("none".to_owned()) };
        return match mode.split_once(':') {
            Some(("service", service)) => Wish::Service(service.to_owned(), node.extent),
            Some(("container", container)) => Wish::Container(container.to_owned(), node.extent),
            _ => {
                if !matches!(mode.as_str(), "host" | "none" | "bridge") {
                    page.error("container-network", node.extent, format!("`network_mode` is not `{}`", shown(&mode)))
                        .help("write host, none, bridge or service:NAME; for a network of its own, use `networks`");
                }
                Wish::Mode(mode)
            }
        };
    }
    let mut wanted: BTreeMap<String, (Attachment, Extent)> = match networks {
        None => BTreeMap::from([default()]),
        Some((_, node)) => match &node.kind {
            Kind::Sequence(_) => {
                let words = page.words(node, "`networks`").into_iter();
                words.map(|(key, extent)| (key, (Attachment::default(), extent))).collect()
            }
            _ => {
                let entries = page.entries(node, "`networks`").unwrap_or_default();
                entries.iter().map(|(key, node)| (key.text.clone(), (attachment(page, node), key.extent))).collect()
            }
        },
    };
    if let (Some(mac), Some((attachment, _))) = (mac, wanted.values_mut().next()) {
        attachment.mac = Some(mac);
    }
    Wish::Networks(wanted)
}

fn attachment(page: &mut Page<'_>, node: &Node) -> Attachment {
    let mut attachment = Attachment::default();
    if node.is_null() {
        return attachment;
    }
    let Some(mut table) = page.table(node, "a network of a service") else { return attachment };
    attachment.aliases =
        table.take("aliases").map(|(_, node)| texts(page, node, "`aliases`").into_iter().collect()).unwrap_or_default();
    let mut address = |page: &mut Page<'_>, key| {
        let (_, node) = table.take(key)?;
        let address = text(page, node, &format!("`{key}`"))?;
        if address.parse::<IpAddr>().is_err() {
            page.error("compose-value", node.extent, format!("`{}` is not an IP address", shown(&address)))
                .help("write an address of the network's subnet");
        }
        Some(address)
    };
    attachment.ipv4 = address(page, "ipv4_address");
    attachment.ipv6 = address(page, "ipv6_address");
    attachment.mac = table.take("mac_address").and_then(|(_, node)| text(page, node, "`mac_address`"));
    attachment.options =
        table.take("driver_opts").map(|(_, node)| map(page, node, "`driver_opts`")).unwrap_or_default();
    table
        .later(&["gw_priority", "interface_name", "link_local_ips", "priority"])
        .finish(page, "a network of a service");
    attachment
}

/// A network or volume as declared.
pub(super) struct Declared<T> {
    /// What it is called on the engine; by its key within the project when `None`.
    pub(super) name: Option<String>,
    /// What it is made from; `None` when it is external.
    pub(super) settings: Option<T>,
    /// Where it stands.
    pub(super) extent: Extent,
}

/// Reads one of the top-level `networks`.
pub(super) fn declared(page: &mut Page<'_>, extent: Extent, node: &Node) -> Declared<NetworkSettings> {
    let mut settings = NetworkSettings::default();
    if node.is_null() {
        return Declared { name: None, settings: Some(settings), extent };
    }
    let Some(mut table) = page.table(node, "a network") else { return Declared { name: None, settings: None, extent } };
    let (name, external) = identity(page, &mut table);
    settings.driver = table.take("driver").and_then(|(_, node)| text(page, node, "`driver`"));
    settings.options = table.take("driver_opts").map(|(_, node)| map(page, node, "`driver_opts`")).unwrap_or_default();
    settings.labels = table.take("labels").map(|(_, node)| labels(page, node)).unwrap_or_default();
    let mut flag =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| switch(page, node, &format!("`{key}`")));
    settings.internal = flag(page, "internal").unwrap_or(false);
    settings.attachable = flag(page, "attachable").unwrap_or(false);
    settings.ipv6 = flag(page, "enable_ipv6").unwrap_or(false);
    if let Some((_, node)) = table.take("ipam") {
        ipam(page, node, &mut settings);
    }
    table.later(&["enable_ipv4"]).finish(page, "a network");
    if external && settings != NetworkSettings::default() {
        page.error("container-network", extent, "an external network is made by something else")
            .help("keep only `external` and `name`");
    }
    Declared { name, settings: (!external).then_some(settings), extent }
}

/// Reads `name` and `external`.
pub(super) fn identity(page: &mut Page<'_>, table: &mut Table<'_>) -> (Option<String>, bool) {
    let mut name = table.take("name").and_then(|(_, node)| text(page, node, "`name`"));
    let external = table.take("external").is_some_and(|(_, node)| match &node.kind {
        Kind::Mapping(_) => {
            if let Some(mut table) = page.table(node, "`external`") {
                name = table.take("name").and_then(|(_, node)| text(page, node, "`name`")).or(name.take());
                table.finish(page, "`external`");
            }
            true
        }
        _ => switch(page, node, "`external`") == Some(true),
    });
    (name, external)
}

fn ipam(page: &mut Page<'_>, node: &Node, settings: &mut NetworkSettings) {
    let Some(mut table) = page.table(node, "`ipam`") else { return };
    settings.ipam_driver = table.take("driver").and_then(|(_, node)| text(page, node, "`driver`"));
    settings.ipam_options = table.take("options").map(|(_, node)| map(page, node, "`options`")).unwrap_or_default();
    let pools = table.take("config").and_then(|(_, node)| page.list(node, "`config`")).unwrap_or_default();
    for item in pools {
        let Some(mut table) = page.table(item, "a range of addresses") else { continue };
        let mut word =
            |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
        let mut pool = Pool {
            subnet: word(page, "subnet"),
            range: word(page, "ip_range"),
            gateway: word(page, "gateway"),
            ..Pool::default()
        };
        pool.taken =
            table.take("aux_addresses").map(|(_, node)| map(page, node, "`aux_addresses`")).unwrap_or_default();
        table.finish(page, "a range of addresses");
        settings.pools.push(pool);
    }
    table.finish(page, "`ipam`");
}
