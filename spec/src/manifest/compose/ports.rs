//! Published ports of a service, in the short and the long form.

use std::net::IpAddr;

use crate::container::Protocol;
use crate::id::shown;
use crate::manifest::model::Port;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Kind, Node};

use super::amounts::text;

const FORMS: &str =
    "write \"HOST:CONTAINER\", \"ADDRESS:HOST:CONTAINER\" or \"HOST:CONTAINER/udp\", such as \"8080:80\"";
/// The most ports that one range may hold.
const MOST: u16 = 1024;

/// One port or range as written.
struct Written {
    address: Option<IpAddr>,
    host: (u16, u16),
    container: (u16, u16),
    protocol: Protocol,
}

/// Reads `ports`.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for item in page.list(node, "`ports`").unwrap_or_default() {
        let written = match &item.kind {
            Kind::Mapping(_) => long(page, item),
            _ => page.as_written(item, "a port").map(short),
        };
        match written {
            Some(Ok(written)) => add(page, &mut ports, &written, item.extent),
            Some(Err(why)) => {
                page.error("container-port", item.extent, format!("this is not a published port: {why}")).help(FORMS);
            }
            None => {}
        }
    }
    ports.sort();
    ports
}

fn add(page: &mut Page<'_>, ports: &mut Vec<Port>, written: &Written, extent: Extent) {
    for (host, container) in (written.host.0..=written.host.1).zip(written.container.0..=written.container.1) {
        let location = page.at(extent);
        let port = Port { host, container, protocol: written.protocol, address: written.address, location };
        let key = |port: &Port| (port.host, port.container, port.protocol, port.address);
        if ports.iter().any(|other| key(other) == key(&port)) {
            page.error("container-port", extent, format!("port {host} is published twice")).help("keep one of the two");
            return;
        }
        ports.push(port);
    }
}

fn short(text: &str) -> Result<Written, String> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol_of(protocol)?;
    let Some((rest, container)) = rest.rsplit_once(':') else {
        return Err(format!("`{}` names only one port, and mainstay publishes no random ones", shown(text)));
    };
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => (Some(address), host),
    };
    paired(address, range(host)?, range(container)?, protocol)
}

fn paired(
    address: Option<&str>,
    host: (u16, u16),
    container: (u16, u16),
    protocol: Protocol,
) -> Result<Written, String> {
    if host.1 - host.0 != container.1 - container.0 {
        return Err("the two ranges are not of the same length".to_owned());
    }
    let address = address.map(|text| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse::<IpAddr>().map_err(|_| format!("`{}` is not an IP address", shown(text)))
    });
    Ok(Written { address: address.transpose()?, host, container, protocol })
}

fn protocol_of(text: &str) -> Result<Protocol, String> {
    Ok(match text {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("`{}` is neither `tcp`, `udp` nor `sctp`", shown(other))),
    })
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        port.ok_or_else(|| format!("`{}` is not a port from 1 to 65535", shown(text)))
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if last < first || last - first >= MOST {
        return Err(format!("`{}` is not a range of at most {MOST} ports", shown(text)));
    }
    Ok((first, last))
}

fn long(page: &mut Page<'_>, node: &Node) -> Option<Result<Written, String>> {
    let mut table = page.table(node, "a port")?;
    let mut take = |key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
    let (target, published) = (take("target"), take("published"));
    let (address, protocol, mode) = (take("host_ip"), take("protocol"), take("mode"));
    // Hints for people and proxies; an engine is told neither.
    take("name");
    take("app_protocol");
    table.finish(page, "a port");
    let read = || {
        let target = range(target.as_deref().ok_or("it has no `target`")?)?;
        let Some(published) = published else {
            return Err("it has no `published`, and mainstay publishes no random ones".to_owned());
        };
        if let Some(mode) = mode.filter(|mode| mode != "host" && mode != "ingress") {
            return Err(format!("its mode is `host` or `ingress`, not `{}`", shown(&mode)));
        }
        let protocol = protocol_of(protocol.as_deref().unwrap_or("tcp"))?;
        paired(address.as_deref(), range(&published)?, target, protocol)
    };
    Some(read())
}

/// Reads `expose`: ports that are only declared.
pub(super) fn expose(page: &mut Page<'_>, node: &Node) -> Vec<String> {
    let mut exposed = Vec::new();
    for (word, extent) in page.words(node, "`expose`") {
        let (ports, protocol) = word.rsplit_once('/').unwrap_or((&word, "tcp"));
        match range(ports).and_then(|range| Ok((range, protocol_of(protocol)?))) {
            Ok(((first, last), protocol)) => {
                exposed.extend((first..=last).map(|port| format!("{port}/{}", protocol.as_str())));
            }
            Err(why) => {
                page.error("container-port", extent, why).help("write a port, such as \"9000\" or \"9000/udp\"");
            }
        }
    }
    exposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ports() {
        let read = |text: &str| short(text).map(|it| (it.host, it.container, it.protocol.as_str()));
        assert_eq!(read("8080:80"), Ok(((8080, 8080), (80, 80), "tcp")));
        assert_eq!(read("[::1]:53:53/udp"), Ok(((53, 53), (53, 53), "udp")));
        assert_eq!(read("90-92:80-82"), Ok(((90, 92), (80, 82), "tcp")));
        for bad in ["80", "90-91:80", "a:80", "80:0", "x:80:80", "80:80/icmp", "9-8:9-8"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
