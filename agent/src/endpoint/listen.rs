//! Where the endpoint listens: a Unix socket always, TCP where the settings say so. What cannot be had is said loudly and
//! tried again; nothing here keeps a host from being looked after.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tracing::{debug, error, info, warn};

use super::connection::{self, Connections};
use super::guard::Door;
use super::{Config, Shared, answer_to};
use crate::web;

/// The group that may ask over the Unix socket, where there is one.
const GROUP: &str = "mainstay";
/// How long to wait before what could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long to wait when the kernel has no more connections to give.
pub(super) const BREATH: Duration = Duration::from_secs(1);
/// How long to wait when too many connections come: it is others' turn, passes above all.
pub(super) const OTHERS: Duration = Duration::from_millis(1);
/// Ports below this are for root alone (ip(7), `ip_unprivileged_port_start`).
const LOW: u16 = 1024;
/// How long a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The sockets that the service manager holds for us.
#[derive(Default)]
pub(super) struct Passed {
    /// Of the host.
    pub(super) unix: Vec<UnixListener>,
    /// For others; the only way to a port that is for root, where this process has no network.
    pub(super) tcp: BTreeMap<SocketAddr, TcpListener>,
}

/// Takes the sockets that the service manager holds for us (sd_listen_fds(3)).
pub(super) fn passed() -> Passed {
    let (mut passed, mut sockets) = (listenfd::ListenFd::from_env(), Passed::default());
    for index in 0..passed.len() {
        let taken = match passed.take_unix_listener(index) {
            Ok(Some(socket)) => {
                socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map(|socket| {
                    sockets.unix.push(socket);
                })
            }
            Ok(None) => Ok(()),
            Err(_) => passed.take_tcp_listener(index).and_then(|socket| {
                let Some(socket) = socket else { return Ok(()) };
                socket.set_nonblocking(true)?;
                let socket = TcpListener::from_std(socket)?;
                sockets.tcp.insert(socket.local_addr()?, socket);
                Ok(())
            }),
        };
        if let Err(error) = taken {
            warn!(%error, "a socket of the service manager cannot be used");
        }
    }
    sockets
}

/// Answers over a Unix socket that is made at its path, for ever.
pub(super) async fn over_unix(config: Arc<Config>, shared: Arc<Shared>) {
    let mut told = String::new();
    let listener = loop {
        match make(&config.socket).await {
            Ok(listener) => break listener,
            Err(error) => {
                let text = format!("{}: {error}", config.socket.display());
                if told != text {
                    error!("the endpoint cannot be reached over its socket; it is tried again: {text}");
                }
                told = text;
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    debug!(path = %config.socket.display(), "the endpoint listens");
    on_unix(listener, shared).await;
}

/// Answers over a Unix socket, for ever.
pub(super) async fn on_unix(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = Connections::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection could not be taken");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let is_crowd = connections.take_in(|slot| {
            let on = Arc::clone(&slot);
            connection::serve(stream, slot, move |request| {
                answer_to(request, Door::Socket, Arc::clone(&on), Arc::clone(&shared))
            })
        });
        if is_crowd {
            tokio::time::sleep(OTHERS).await;
        }
    }
}

/// Answers over TCP, for ever; where the service manager holds the socket, over that.
pub(super) async fn over_tcp(
    address: SocketAddr,
    passed: Option<TcpListener>,
    config: Arc<Config>,
    shared: Arc<Shared>,
) {
    let (mut told, mut passed, fetcher) = (String::new(), passed, web::fetcher());
    let listener = loop {
        let listener = match passed.take() {
            Some(listener) => Ok(listener),
            None => web::listen(address, fetcher.as_deref()).await,
        };
        match listener {
            Ok(listener) => break listener,
            Err(error) => {
                let is_low = error.kind() == io::ErrorKind::PermissionDenied && address.port() < LOW;
                let hint = format!(
                    "; ports below {LOW} are root's: `systemctl edit mainstay.socket` with ListenStream={address}, and restart mainstay"
                );
                let text = format!("{error}{}", if is_low { hint.as_str() } else { "" });
                if told != text {
                    error!("the endpoint cannot listen at {address}; it is tried again: {text}");
                }
                told = text;
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    info!(%address, tls = config.tls.is_some(), "the endpoint listens");
    let mut connections = Connections::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection could not be taken");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
        let is_crowd = connections.take_in(|slot| async move {
            let on = Arc::clone(&slot);
            let answer = move |request| answer_to(request, Door::Tcp, Arc::clone(&on), Arc::clone(&shared));
            let Some(tls) = &config.tls else { return connection::serve(stream, slot, answer).await };
            match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => connection::serve(stream, slot, answer).await,
                Ok(Err(error)) => debug!(%error, "a client did not agree on TLS"),
                Err(_) => debug!("a client took too long to agree on TLS"),
            }
        });
        if is_crowd {
            tokio::time::sleep(OTHERS).await;
        }
    }
}

/// Makes the socket beside its place and moves it there when only those can open it who may.
async fn make(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other(
                "something else is there, and is left alone: remove it, or set `endpoint: { socket: … }`",
            ));
        }
        // What nobody listens at was left by an agent that was killed.
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there"));
        }
        _ => {}
    }
    if let Some(folder) = path.parent() {
        match DirBuilder::new().mode(0o755).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o660))?;
    if let Some(group) = uzers::get_group_by_name(GROUP)
        && let Err(error) = std::os::unix::fs::chown(&beside, None, Some(group.gid()))
    {
        warn!(%error, "the group `{GROUP}` could not be given the endpoint's socket");
    }
    fs::rename(&beside, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/agent.sock");
        let first = make(&path).await.expect("a socket");
        let mode = fs::metadata(&path).expect("a socket").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o660);
        assert_eq!(make(&path).await.expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(make(&path).await.expect("the one that was left is replaced"));
        fs::remove_file(&path).expect("a socket");
        fs::write(&path, "mine").expect("a file");
        make(&path).await.expect_err("a file is in the way");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "mine");
    }
}
