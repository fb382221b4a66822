//! Published ports of a service, in the short and the long form.

use crate::id::shown;
use crate::manifest::model::Port;
use crate::manifest::page::{Extent, Page};
use crate::manifest::ports::{Written, paired, protocol_of, range, short};
use crate::manifest::yaml::{Kind, Node};

use super::amounts::text;

const FORMS: &str =
    "write \"HOST:CONTAINER\", \"ADDRESS:HOST:CONTAINER\" or \"HOST:CONTAINER/udp\", such as \"8080:80\"";
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
