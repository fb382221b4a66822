//! HOST and HOST:PORT as they stand in URLs. Grammar only; nothing here resolves a name.

use std::net::{IpAddr, Ipv6Addr};

/// Says whether `text` is HOST or HOST:PORT, an IPv6 address in brackets.
pub fn is_authority(text: &str) -> bool {
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().is_ok() && port;
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

/// Says whether `text` can be a host's name or IPv4 address.
pub fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(plain)
}

/// Says whether `text` is a port number.
pub fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Says whether an authority is this very machine: nobody is on the way to it.
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_the_whole_host() {
        for this in ["localhost", "localhost:80", "127.0.0.1", "127.8.0.1:5000", "[::1]", "[::1]:80"] {
            assert!(is_authority(this) && is_loopback(this), "{this}");
        }
        for other in ["localhost.example", "127.0.0.1.example:80", "[::2]", "192.0.2.1", "localhosts"] {
            assert!(is_authority(other) && !is_loopback(other), "{other}");
        }
        for none in ["", ":80", "a:0", "a:", "a:b", "[::1", "[x]", "a b", "a@b"] {
            assert!(!is_authority(none), "{none}");
        }
    }
}
