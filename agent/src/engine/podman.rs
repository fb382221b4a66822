//! One question to a Podman that need not be the host's engine: root's beside Docker, or that of a user.
//!
//! A user's socket lies in a folder of the user's, who may put there what leads to another engine, root's above all. So whoever
//! listens must be the user; each question has a connection of its own, and each connection is looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::errors::Error as BollardError;
use futures_util::FutureExt;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use spec::id::{ContainerName, User};
use tokio::net::UnixStream;

use super::containers::{self, ContainerRunState};
use super::{ASK, Client, Engine, Error, Transport, path_escaped};

/// The Podman of a user, or root's.
pub struct Podman(Client);

impl Podman {
    /// Makes a client that has not connected yet.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn of(user: Option<&User>) -> Result<Podman, Error> {
        let socket = user.map_or_else(
            || PathBuf::from(Engine::PODMAN),
            |user| PathBuf::from(format!("/run/user/{}/podman/podman.sock", user.uid())),
        );
        Podman::at(&socket, user.map_or(0, User::uid))
    }

    fn at(socket: &Path, listener: u32) -> Result<Podman, Error> {
        let client = Client::over(socket, transport(socket.to_owned(), listener))
            .map_err(|error| Error::Refused { doing: "make a client for Podman".into(), words: error.to_string() })?;
        Ok(Podman(client))
    }

    /// Returns how the container of this name runs.
    ///
    /// # Errors
    /// Missing when there is none, unreachable when nobody listens or somebody else does.
    pub async fn inspect_run(&self, container: &ContainerName) -> Result<ContainerRunState, Error> {
        let doing = format!("inspect container `{container}` in Podman");
        let path = format!("/containers/{}/json", path_escaped(container.as_str()));
        let inspected = self.0.within(&doing, ASK, self.0.get(&path)).await?;
        // Podman also takes the beginning of an id for a name.
        containers::run_state_of(container, inspected)
            .ok_or_else(|| Error::Missing { doing: doing.into(), words: "another container was found".to_owned() })
    }
}

fn transport(socket: PathBuf, listener: u32) -> Transport {
    Arc::new(move |mut request| {
        let socket = socket.clone();
        async move {
            let stream = connect(&socket, listener).await.map_err(|err| BollardError::IOError { err })?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // It ends with the answer, or when nobody waits for one any more.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to Podman ended");
                }
            });
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            *request.uri_mut() =
                path.parse().map_err(|error| BollardError::IOError { err: io::Error::other(error) })?;
            request.headers_mut().insert(HOST, HeaderValue::from_static("podman"));
            Ok(sender.send_request(request).await?)
        }
        .boxed()
    })
}

async fn connect(socket: &Path, listener: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket).await?;
    let peer = stream.peer_cred()?.uid();
    if peer == listener {
        return Ok(stream);
    }
    let text = format!("it leads to a process of user {peer}, not of user {listener}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::engine::Health;

    /// Answers one question with a body, and returns what was asked and what the answer was taken for.
    async fn ask(listener: u32, status: &str, body: &str) -> (String, Result<ContainerRunState, Error>) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("podman.sock");
        let server = UnixListener::bind(&socket).expect("a socket");
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let mut question = vec![0; 1024];
            let read = stream.read(&mut question).await.expect("a question");
            if read > 0 {
                stream.write_all(answer.as_bytes()).await.expect("it takes the answer");
            }
            String::from_utf8_lossy(&question[..read]).lines().next().unwrap_or_default().to_owned()
        });
        let name = ContainerName::parse("systemd-web").expect("a name");
        let answer = Podman::at(&socket, listener).expect("a client").inspect_run(&name).await;
        (serving.await.expect("it was asked"), answer)
    }

    #[tokio::test]
    async fn a_container_is_found_by_its_whole_name() {
        let me = rustix::process::geteuid().as_raw();
        let of =
            |name: &str| format!(r#"{{"Name":"{name}","State":{{"Running":true,"Health":{{"Status":"healthy"}}}}}}"#);
        let (question, answer) = ask(me, "200 OK", &of("/systemd-web")).await;
        assert_eq!(question, "GET /containers/systemd-web/json HTTP/1.1");
        let state = answer.expect("an answer");
        assert_eq!((state.running, state.health), (true, Some(Health::Healthy)));
        let (_, answer) = ask(me, "200 OK", &of("other")).await;
        assert!(matches!(answer, Err(Error::Missing { .. })), "{answer:?}");
        let (_, answer) = ask(me, "404 Not Found", r#"{"message":"no such container"}"#).await;
        assert!(matches!(answer, Err(Error::Missing { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn nothing_is_asked_of_somebody_else() {
        let me = rustix::process::geteuid().as_raw();
        let (question, answer) = ask(me + 1, "200 OK", "{}").await;
        assert_eq!(question, "");
        let error = crate::chain(&answer.expect_err("it is refused"));
        assert!(error.contains(&format!("it leads to a process of user {me}, not of user {}", me + 1)), "{error}");
    }
}
