//! Who may ask what. Nothing is decided by an address: a browser on the host asks from the loopback on anybody's behalf.

use std::net::SocketAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use sha2::{Digest as _, Sha256};
use spec::id::HostName;
use subtle::ConstantTimeEq as _;

use super::answer::{self, Answer};
use super::route::Route;
use crate::snapshot::Detail;

/// What a program sends to show that it is no page in somebody's browser, which cannot send it to another origin.
const HEADER: &str = "x-mainstay";

/// How somebody reached the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Over the Unix socket, which only those may open who may know everything.
    Socket,
    /// Over TCP.
    Tcp,
}

/// The rules.
#[derive(Debug)]
pub(super) struct Guard {
    /// The names that a request over TCP may be for, without ports.
    names: Vec<String>,
    /// The digest of the token, where there is one.
    token: Option<[u8; 32]>,
}

impl Guard {
    /// Lays down the rules.
    pub(super) fn new(listen: &[SocketAddr], names: &[String], host: &HostName, token: Option<&str>) -> Guard {
        let own = listen.iter().filter(|it| !it.ip().is_unspecified()).map(|it| match it {
            SocketAddr::V4(it) => it.ip().to_string(),
            SocketAddr::V6(it) => format!("[{}]", it.ip()),
        });
        let usual = ["localhost", "127.0.0.1", "[::1]", host.as_str()].map(str::to_owned);
        let names = own.chain(usual).chain(names.iter().map(|name| name.to_ascii_lowercase())).collect();
        Guard { names, token: token.map(digest) }
    }

    /// Says how much somebody may see who asks this, or why not.
    pub(super) fn admit<B>(&self, door: Door, route: &Route, request: &Request<B>) -> Result<Detail, Box<Answer>> {
        if door == Door::Socket {
            return Ok(Detail::Full);
        }
        let headers = request.headers();
        if !self.is_for_us(headers) {
            return Err(Box::new(answer::refusal(
                StatusCode::MISDIRECTED_REQUEST,
                "the request is for another host: `endpoint: { names: […] }` of the settings lists the names of this one",
            )));
        }
        if route.is_open() {
            // A hook proves itself; the page asks for the token; the rest tells nothing.
            return Ok(Detail::Least);
        }
        let detail = match (&self.token, bearer(headers)) {
            (None, _) => Detail::Least,
            (Some(token), Some(sent)) if same(&digest(sent), token) => Detail::Full,
            (Some(_), _) => {
                let words = "send the token of this host's settings as `Authorization: Bearer TOKEN`";
                return Err(Box::new(answer::refusal(StatusCode::UNAUTHORIZED, words)));
            }
        };
        if route.changes() && self.token.is_none() && !headers.contains_key(HEADER) {
            let words = "send the header `X-Mainstay: 1` with it, which no page of another site can";
            return Err(Box::new(answer::refusal(StatusCode::FORBIDDEN, words)));
        }
        Ok(detail)
    }

    /// Says whether the request names this host: a name that somebody else points here does not count (DNS rebinding).
    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
        let name = match host.rsplit_once(':') {
            // The colons of an address are no port's.
            Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
            _ => host,
        };
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Returns what was sent as `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let sent: &HeaderValue = headers.get(AUTHORIZATION)?;
    let (scheme, token) = sent.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Digests have one length, so that comparing them tells nothing about a token's.
pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares in a time that does not depend on what is compared.
pub(super) fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct horse battery staple";

    fn ask(guard: &Guard, door: Door, route: &Route, headers: &[(&str, &str)]) -> Result<Detail, u16> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        guard.admit(door, route, &request).map_err(|answer| answer.status().as_u16())
    }

    fn guard(token: Option<&str>) -> Guard {
        let listen = ["192.0.2.7:9105", "[::]:9105", "[2001:db8::7]:1"].map(|it| it.parse().expect("an address"));
        let host = HostName::parse("attic").expect("a name");
        Guard::new(&listen, &["Attic.example".to_owned()], &host, token)
    }

    #[test]
    fn only_requests_for_this_host_are_answered_over_tcp() {
        let guard = guard(None);
        let for_host = |host| ask(&guard, Door::Tcp, &Route::Status, &[("host", host)]);
        for host in [
            "localhost",
            "localhost:9105",
            "LOCALHOST:1",
            "127.0.0.1:9105",
            "[::1]:9105",
            "[::1]",
            "192.0.2.7:9105",
            "attic",
            "attic.example:443",
            "[2001:db8::7]:9105",
        ] {
            assert_eq!(for_host(host), Ok(Detail::Least), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9105", "localhost.evil.example", "127.0.0.2", "[::]", "::1", "0.0.0.0"]
        {
            assert_eq!(for_host(host), Err(421), "{host}");
        }
        assert_eq!(ask(&guard, Door::Tcp, &Route::Health, &[("host", "evil.example")]), Err(421));
        assert_eq!(ask(&guard, Door::Tcp, &Route::Health, &[]), Err(421));
        assert_eq!(
            ask(&guard, Door::Tcp, &Route::Health, &[("host", "localhost"), ("host", "evil.example")]),
            Err(421)
        );
        assert_eq!(ask(&guard, Door::Socket, &Route::Status, &[("host", "whatever")]), Ok(Detail::Full));
    }

    #[test]
    fn a_token_opens_everything_and_without_it_next_to_nothing_is_told() {
        let guard = guard(Some(TOKEN));
        let with = |route, token: &str| ask(&guard, Door::Tcp, route, &[("host", "attic"), ("authorization", token)]);
        assert_eq!(with(&Route::Status, &format!("Bearer {TOKEN}")), Ok(Detail::Full));
        assert_eq!(with(&Route::Sync, &format!("bearer {TOKEN}")), Ok(Detail::Full));
        for wrong in ["Bearer", "Bearer ", "Bearer x", TOKEN, &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}x")] {
            assert_eq!(with(&Route::Metrics, wrong), Err(401), "{wrong}");
        }
        let host = [("host", "attic")];
        assert_eq!(ask(&guard, Door::Tcp, &Route::Status, &host), Err(401));
        assert_eq!(ask(&guard, Door::Tcp, &Route::Health, &host), Ok(Detail::Least));
        let own = [("host", "attic"), ("x-mainstay", "1")];
        assert_eq!(
            ask(&guard, Door::Tcp, &Route::Sync, &own),
            Err(401),
            "the header is no proof where there is a token"
        );
    }

    #[test]
    fn what_a_page_of_another_site_can_send_changes_nothing() {
        let guard = guard(None);
        let form = [("host", "localhost:9105"), ("content-type", "text/plain"), ("origin", "http://evil.example")];
        assert_eq!(ask(&guard, Door::Tcp, &Route::Sync, &form), Err(403));
        assert_eq!(ask(&guard, Door::Tcp, &Route::Sync, &[form[0], ("x-mainstay", "1")]), Ok(Detail::Least));
        assert_eq!(ask(&guard, Door::Socket, &Route::Sync, &[]), Ok(Detail::Full));
    }
}
