//! The client to the container engine: Docker's API on a local socket, which Podman serves too.
//!
//! It holds no judgement about what should run, and keeps nothing between calls but the connection. Bollard speaks the
//! API over our own transport, for two reasons: bollard opens a connection for each request, and reads states into closed
//! enums, so that one container in a state of a newer (or Podman's) engine makes the whole list unreadable. What is
//! read at every pass is therefore asked for and parsed here, tolerantly.

mod body;
mod containers;
mod adoption;
pub mod credentials;
mod events;
mod images;
mod logs;
mod networks;
mod podman;
mod settle;

use std::borrow::Cow;
use std::error::Error as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use serde::de::DeserializeOwned;
use spec::id::{HostName, shown};

pub use containers::{ContainerRunState, Health};
pub use events::{Event, Events};
pub use images::Image;
pub use podman::Podman;
pub use settle::{Unrest, Unsettled, Watched};

/// How long the engine may take to answer a question. An engine that hangs must not hold up files and units.
const ASK: Duration = Duration::from_secs(5);
/// How long it may take to change something; creating many at once takes seconds.
const CHANGE: Duration = Duration::from_secs(60);
/// The most that is read of one answer: a list of some thousand containers has a few megabytes.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;

/// There is nothing at the socket's path.
const NO_SOCKET: &str = "there is no such socket (is the engine installed and its socket enabled?)";

/// Why the engine did not do or say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no engine to talk to: nothing is known of containers, and none may be touched this pass.
    #[error("failed to {doing}: the container engine cannot be reached at {}: {reason}", socket.display())]
    Unreachable {
        /// What we were doing.
        doing: Cow<'static, str>,
        /// Where it should be.
        socket: PathBuf,
        /// Why it cannot, and what to do about it.
        reason: String,
        /// What happened, in the words of a library: no part of the message.
        cause: Option<Box<BollardError>>,
    },
    /// There was no answer in time.
    #[error("failed to {doing}: the container engine gave no answer within {}", humantime::format_duration(*after))]
    TimedOut {
        /// What we were doing.
        doing: Cow<'static, str>,
        /// The deadline that passed.
        after: Duration,
    },
    /// Something that is not ours has that name.
    #[error(
        "failed to create container `{name}`: a container of that name exists; remove or rename it, or choose another name"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The engine has no such container or image.
    #[error("failed to {doing}: {words}")]
    Missing {
        /// What we were doing.
        doing: Cow<'static, str>,
        /// The engine's words.
        words: String,
    },
    /// The engine, or the registry behind it, answered, and the answer is no.
    #[error("failed to {doing}: {words}")]
    Refused {
        /// What we were doing.
        doing: Cow<'static, str>,
        /// Their words.
        words: String,
    },
    /// A pull that moved nothing for a while.
    #[error("failed to {doing}: nothing came for {}", humantime::format_duration(*after))]
    Stalled {
        /// What we were doing.
        doing: Cow<'static, str>,
        /// For how long.
        after: Duration,
    },
}

impl Error {
    /// Says whether this tells nothing of containers: the pass leaves them alone and the next one asks again.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::TimedOut { .. })
    }

    /// Says whether nobody listens on the socket, or there is none.
    pub fn is_nobody_there(&self) -> bool {
        let Error::Unreachable { cause: Some(cause), .. } = self else { return false };
        matches!(io_kind(cause), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    }
}

/// Whose containers are ours: what their labels must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The fleet.
    pub fleet: String,
    /// The host.
    pub host: HostName,
}

type Transport =
    Arc<dyn Fn(BollardRequest) -> BoxFuture<'static, Result<Response<Incoming>, BollardError>> + Send + Sync>;

/// The engine of this host. Calls may overlap: images are pulled beside each other.
pub struct Engine {
    sockets: Vec<PathBuf>,
    owner: Owner,
    logins: Vec<PathBuf>,
    client: OnceLock<Client>,
}

/// A way to the engine; its connections are opened when needed, kept, and opened again when the engine closed them.
#[derive(Clone)]
struct Client {
    socket: PathBuf,
    send: Transport,
    docker: Docker,
}

impl Engine {
    /// Docker's socket.
    pub const DOCKER: &str = "/var/run/docker.sock";
    /// The socket of Podman's service.
    pub const PODMAN: &str = "/run/podman/podman.sock";

    /// Returns the sockets to try where the settings name none.
    pub fn usual_sockets() -> Vec<PathBuf> {
        vec![PathBuf::from(Engine::DOCKER), PathBuf::from(Engine::PODMAN)]
    }

    /// Returns the socket of the engine in use, once it was asked something.
    pub fn socket(&self) -> Option<PathBuf> {
        self.client.get().map(|client| client.socket.clone())
    }

    /// Makes a client that has not connected yet. Of several `sockets`, the first that exists at the first call is the
    /// engine from then on: containers must not wander to another one because the first is being upgraded.
    pub fn new(sockets: Vec<PathBuf>, owner: Owner) -> Engine {
        let logins = credentials::files(None);
        Engine { sockets, owner, logins, client: OnceLock::new() }
    }

    /// Looks for registries' credentials in this file alone, instead of the usual ones.
    #[must_use]
    pub fn with_credentials(mut self, file: Option<PathBuf>) -> Engine {
        self.logins = credentials::files(file);
        self
    }

    fn client(&self, doing: &str) -> Result<Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let unreachable = |socket: &Path, reason: &str| Error::Unreachable {
            doing: doing.to_owned().into(),
            socket: socket.to_owned(),
            reason: reason.to_owned(),
            cause: None,
        };
        let Some(socket) = self.sockets.iter().find(|socket| socket.exists()) else {
            return Err(match self.sockets.first() {
                Some(socket) => unreachable(socket, NO_SOCKET),
                None => unreachable(Path::new("nowhere"), "no socket is configured"),
            });
        };
        let client = Client::new(socket).map_err(|error| unreachable(socket, &error.to_string()))?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// Reads an answer of the engine, and again once when a kept connection had just ended.
    async fn get<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Error> {
        let client = self.client(doing)?;
        let answer = async {
            match client.get::<T>(path).await {
                Err(error) if client.is_lost(&error) => client.get::<T>(path).await,
                answer => answer,
            }
        };
        client.within(doing, ASK, answer).await
    }
}

impl Client {
    fn new(socket: &Path) -> Result<Client, BollardError> {
        let pool = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .build(hyperlocal::UnixConnector);
        Client::over(socket, Arc::new(move |request| pool.request(request).map(|answer| Ok(answer?)).boxed()))
    }

    fn over(socket: &Path, send: Transport) -> Result<Client, BollardError> {
        let sent = Arc::clone(&send);
        let address = format!("unix://{}", hex::encode(socket.as_os_str().as_encoded_bytes()));
        // Every deadline is ours; bollard's own, in seconds, would cut a pull short.
        let docker = Docker::connect_with_custom_transport(
            move |request| sent(request),
            Some(address),
            24 * 3600,
            API_DEFAULT_VERSION,
        )?;
        Ok(Client { socket: socket.to_owned(), send, docker })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BollardError> {
        let uri: hyper::Uri = hyperlocal::Uri::new(&self.socket, path).into();
        let request = Request::get(uri).body(bollard::body_full(Bytes::new()))?;
        let answer = (self.send)(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| std::io::Error::other(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        #[derive(serde::Deserialize)]
        struct Complaint {
            message: String,
        }
        let message = match serde_json::from_slice::<Complaint>(&body) {
            Ok(complaint) => complaint.message,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(BollardError::DockerResponseServerError { status_code: status.as_u16(), message })
    }

    /// Waits for an answer until the deadline, and sorts what went wrong by what to do about it.
    async fn within<T>(
        &self,
        doing: &str,
        deadline: Duration,
        answer: impl Future<Output = Result<T, BollardError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(|error| self.classify(doing, error)),
            Err(_) => Err(Error::TimedOut { doing: doing.to_owned().into(), after: deadline }),
        }
    }

    fn classify(&self, doing: &str, error: BollardError) -> Error {
        let doing = doing.to_owned().into();
        match error {
            BollardError::DockerResponseServerError { status_code: 404, message } => {
                Error::Missing { doing, words: shown(message.trim()) }
            }
            BollardError::DockerResponseServerError { message, .. } => {
                Error::Refused { doing, words: shown(message.trim()) }
            }
            BollardError::DockerStreamError { error } => Error::Refused { doing, words: shown(error.trim()) },
            // Answered, but with what we cannot read: not the API that we know.
            BollardError::JsonDataError { .. } | BollardError::JsonSerdeError { .. } => {
                Error::Refused { doing, words: format!("its answer cannot be read: {error}") }
            }
            error => {
                let reason = match describe(io_kind(&error)) {
                    Some(reason) => reason.to_owned(),
                    None => format!("the connection failed: {}", root(&error)),
                };
                Error::Unreachable { doing, socket: self.socket.clone(), reason, cause: Some(Box::new(error)) }
            }
        }
    }

    fn is_lost(&self, error: &BollardError) -> bool {
        matches!(
            error,
            BollardError::HyperLegacyError { .. }
                | BollardError::HyperResponseError { .. }
                | BollardError::IOError { .. }
        )
    }
}

/// Finds the kind of I/O error at the bottom of a chain of errors.
fn io_kind(error: &BollardError) -> ErrorKind {
    let mut next: Option<&(dyn std::error::Error + 'static)> = match error {
        // These two show their cause as themselves.
        BollardError::HyperLegacyError { err } => err.source(),
        BollardError::IOError { err } => return err.kind(),
        other => other.source(),
    };
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind();
        }
        next = error.source();
    }
    ErrorKind::Other
}

fn describe(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some(NO_SOCKET),
        ErrorKind::PermissionDenied => Some("permission denied (the agent's user must be allowed to open the socket)"),
        ErrorKind::ConnectionRefused => Some("nobody listens on the socket (the engine is stopped)"),
        _ => None,
    }
}

/// Returns the last cause: the others are the library's words for each other.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root
}

/// Escapes what may not stand in a URL's path; the marks that image references use stay.
fn path_escaped(text: &str) -> String {
    use std::fmt::Write;
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_cannot_leave_their_place_in_the_path() {
        assert_eq!(path_escaped("127.0.0.1:5000/a/b@sha256:0f"), "127.0.0.1:5000/a/b@sha256:0f");
        assert_eq!(path_escaped("a?x=1#y z\n"), "a%3Fx%3D1%23y%20z%0A");
    }

    #[test]
    fn a_pass_may_run_on_any_task() {
        fn is_send<T: Send>(_: T) {}
        let owner = Owner { fleet: "f".to_owned(), host: HostName::parse("h").expect("a host") };
        let engine = Engine::new(Vec::new(), owner);
        is_send(engine.settle(&[], ASK));
        is_send(engine.pull("x", ASK, &mut |_, _| {}));
    }

    #[test]
    fn an_absent_engine_says_where_it_should_be() {
        let owner = Owner { fleet: "f".to_owned(), host: HostName::parse("h").expect("a host") };
        let engine = Engine::new(vec![PathBuf::from("/nonexistent/docker.sock")], owner);
        let error = engine.client("list containers").err().expect("an error");
        assert!(error.is_unreachable());
        assert_eq!(
            error.to_string(),
            "failed to list containers: the container engine cannot be reached at /nonexistent/docker.sock: there is no \
             such socket (is the engine installed and its socket enabled?)"
        );
    }
}
