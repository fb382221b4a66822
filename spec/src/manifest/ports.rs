//! Published ports as they are written: `ADDRESS:HOST:CONTAINER/PROTOCOL`, each side a port or a range.

use std::net::IpAddr;

use crate::container::Protocol;
use crate::id::shown;

/// The most ports that one range may hold.
const MOST: u16 = 1024;

/// One port or range as written.
pub(super) struct Written {
    pub(super) address: Option<IpAddr>,
    pub(super) host: (u16, u16),
    pub(super) container: (u16, u16),
    pub(super) protocol: Protocol,
}

/// Reads a port or range in the form of compose and of Podman.
pub(super) fn short(text: &str) -> Result<Written, String> {
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

/// Puts the parts together.
pub(super) fn paired(
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

/// Reads a protocol.
pub(super) fn protocol_of(text: &str) -> Result<Protocol, String> {
    Ok(match text {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("`{}` is neither `tcp`, `udp` nor `sctp`", shown(other))),
    })
}

/// Reads a port, or the first and last one of a range.
pub(super) fn range(text: &str) -> Result<(u16, u16), String> {
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
