//! Where the agent answers, or would: what it cannot have.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Finding, Verdict};
use crate::endpoint;
use crate::settings::{self, Settings};
use crate::web;

/// Where the unit of who talks to servers is, if it is anywhere.
const FETCHER: [&str; 2] =
    ["/usr/lib/systemd/system/mainstay-fetch.socket", "/etc/systemd/system/mainstay-fetch.socket"];

/// Looks at the socket and at each configured address. While the agent runs, they are its own.
pub(super) fn examine(settings: &Settings, runs: bool) -> Vec<Finding> {
    let addresses = settings.endpoint.listen.iter().map(|address| over_tcp(*address, runs));
    let socket = socket(&settings.endpoint.socket, runs);
    let fetcher = fetcher(Path::new(web::SOCKET), runs);
    [socket].into_iter().chain(addresses).chain(certificate(&settings.endpoint, runs)).chain(fetcher).collect()
}

/// Finds out whether the agent that runs has nobody who talks to servers, of whom it has to be told only then.
fn fetcher(path: &Path, runs: bool) -> Option<Finding> {
    let is_brought = FETCHER.iter().any(|unit| Path::new(unit).exists());
    let kind = UnixStream::connect(path).err().map(|error| error.kind())?;
    let is_away = runs && is_brought && matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused);
    is_away.then(|| {
        let why = format!("nobody answers at {}: no server is talked to", path.display());
        Finding::off(
            "fetcher",
            Verdict::Missing,
            why,
            "systemctl restart mainstay-fetch.socket; journalctl -u mainstay-fetch -e",
        )
    })
}

/// Reads the certificate as the agent would. One that was renewed badly is not taken over by an agent that runs, and keeps
/// the next one from starting.
fn certificate(settings: &settings::Endpoint, runs: bool) -> Option<Finding> {
    let what = "endpoint's TLS";
    let cert = settings.cert.as_ref()?.display();
    Some(match (endpoint::examine(settings), runs) {
        (Ok(()), _) => Finding::fine(what, cert.to_string()),
        (Err(_), _) if !rustix::process::geteuid().is_root() => {
            Finding::off(what, Verdict::Warning, "whether it can be used shows for root only", "sudo mainstay doctor")
        }
        (Err(why), true) => Finding::off(
            what,
            Verdict::Missing,
            format!(
                "the agent goes on with the certificate that it read before; as it is now, it would not start: {why}"
            ),
            "renew both files; they are read again when they change",
        ),
        (Err(why), false) => {
            Finding::off(what, Verdict::Missing, format!("the agent does not start with it: {why}"), "renew both files")
        }
    })
}

fn socket(path: &Path, runs: bool) -> Finding {
    let what = "endpoint's socket";
    let name = path.display();
    match (UnixStream::connect(path).map_err(|error| error.kind()), runs) {
        (Ok(_), true) => Finding::fine(what, name.to_string()),
        (Err(ErrorKind::NotFound | ErrorKind::ConnectionRefused), false) => {
            Finding::fine(what, format!("{name}, once the agent runs"))
        }
        (Ok(_), false) => Finding::off(
            what,
            Verdict::Missing,
            format!("no agent runs here, and somebody answers at {name}"),
            format!("ss -lxp src {name}; then stop it, or name another `endpoint.socket:` in the settings"),
        ),
        (Err(ErrorKind::PermissionDenied), _) => Finding::off(
            what,
            Verdict::Warning,
            format!("{name} is for root and the group `mainstay`"),
            "sudo mainstay doctor, or usermod --append --groups mainstay USER",
        ),
        (Err(kind), true) => Finding::off(
            what,
            Verdict::Warning,
            format!("the agent runs, and nobody answers at {name}: {kind}"),
            "systemctl restart mainstay; journalctl -u mainstay -e",
        ),
        (Err(kind), false) => Finding::off(what, Verdict::Warning, format!("{name}: {kind}"), format!("ls -l {name}")),
    }
}

fn over_tcp(address: SocketAddr, runs: bool) -> Finding {
    let what = "endpoint over TCP";
    let see = format!("ss -ltnp sport = :{}", address.port());
    match (TcpListener::bind(address).map(drop).map_err(|error| error.kind()), runs) {
        (Err(ErrorKind::AddrInUse), true) => Finding::fine(what, address.to_string()),
        (Ok(()), false) => Finding::fine(what, format!("{address}, once the agent runs")),
        (Err(ErrorKind::AddrInUse), false) => Finding::off(
            what,
            Verdict::Missing,
            format!("no agent runs here, and {address} is in use"),
            format!("{see}; then stop it, or name another address under `endpoint.listen:` in the settings"),
        ),
        (Ok(()), true) => Finding::off(
            what,
            Verdict::Warning,
            format!("the agent runs, and does not listen on {address}"),
            "systemctl restart mainstay: it reads its settings when it starts",
        ),
        (Err(ErrorKind::AddrNotAvailable), _) => Finding::off(
            what,
            Verdict::Missing,
            format!("{address} is no address of this host"),
            "ip -brief address; then write one of those under `endpoint.listen:` in the settings",
        ),
        (Err(ErrorKind::PermissionDenied), _) => Finding::off(
            what,
            Verdict::Warning,
            format!("whether {address} is free shows for root only"),
            "sudo mainstay doctor",
        ),
        (Err(kind), _) => Finding::off(what, Verdict::Warning, format!("{address}: {kind}"), see),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_has_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let verdicts = |address| [false, true].map(|runs| over_tcp(address, runs).verdict);
        assert_eq!(verdicts(address), [Verdict::Missing, Verdict::Fine]);
        assert!(over_tcp(address, false).remedy.expect("a remedy").contains(&address.port().to_string()));
        drop(taken);
        assert_eq!(verdicts(address), [Verdict::Fine, Verdict::Warning]);
        assert_eq!(verdicts("192.0.2.250:1".parse().expect("an address")), [Verdict::Missing; 2]);

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let verdicts = || [false, true].map(|runs| socket(&path, runs).verdict);
        assert_eq!(verdicts(), [Verdict::Fine, Verdict::Warning]);
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert_eq!(verdicts(), [Verdict::Missing, Verdict::Fine]);
    }
}
