//! Requests over http(s), made by this process or, where there is one, by the fetcher in its place: then this process needs no network,
//! and reads of an answer no more than its status, its headers and its bytes.

mod serve;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpSocket, UnixStream};

use crate::tls;

pub use serve::Server;

/// Where the fetcher listens.
pub const SOCKET: &str = "/run/mainstay/fetch.sock";
/// The variable that says where it listens.
const NAMED: &str = "MAINSTAY_FETCHER";
/// What the agent says first to the fetcher where it wants something of this module.
pub const OPENING: u8 = b'w';
/// The longest request with its body.
const MAX_TEXT: u32 = 16 << 20;
/// The longest head of an answer, or reason for none.
const MAX_HEAD: u32 = 256 << 10;
/// How much of a reason counts, in characters.
const MAX_REASON: usize = 1000;
/// The largest piece of a body at once.
const MAX_PIECE: u32 = 1 << 20;
/// How long the agent may take to say what it wants, and the fetcher to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// More redirects than this are a circle.
const REDIRECTS: usize = 5;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{why}")]
pub struct WebError {
    why: String,
    /// No server was asked: something is wrong on this host.
    pub is_ours: bool,
}

impl WebError {
    fn new(why: impl Into<String>) -> WebError {
        WebError { why: why.into(), is_ours: false }
    }

    fn ours(why: impl Into<String>) -> WebError {
        WebError { why: why.into(), is_ours: true }
    }

    /// As the fetcher told it: safe to print, and no longer than somebody reads.
    fn told(self) -> WebError {
        let why = self.why.chars().take(MAX_REASON).collect::<String>();
        WebError { why: spec::id::shown(&why), is_ours: self.is_ours }
    }

    /// Without its address, which may hold a secret.
    fn of(error: reqwest::Error) -> WebError {
        WebError::new(crate::chain(&error.without_url()))
    }
}

/// Returns where the fetcher is asked: where the unit of the agent says, whether anybody is there now or not; else at its usual place, if
/// somebody is there whom this process may ask. `None`: this process talks to servers with its own rights.
pub fn fetcher() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(NAMED).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = Path::new(SOCKET);
    let may_ask = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    may_ask.then(|| path.to_owned())
}

/// How requests are made, which is decided by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manner {
    /// An artifact: proxies, and redirects that keep what comes from being seen by more people.
    Artifact,
    /// An alert: proxies, and no redirects.
    Alert,
    /// A check: no proxy, and redirects on the same host.
    Check,
}

/// A request.
#[derive(Serialize, Deserialize)]
pub struct Asked {
    /// `GET` or `POST`.
    pub method: String,
    /// Where.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Vec<u8>,
}

impl Asked {
    /// Asks for what is at an address.
    pub fn get(url: &str) -> Asked {
        Asked { method: "GET".to_owned(), url: url.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Sends something to an address.
    pub fn post(url: &str, body: impl Into<Vec<u8>>) -> Asked {
        Asked { method: "POST".to_owned(), body: body.into(), ..Asked::get(url) }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Asked {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What the fetcher is asked for.
#[derive(Serialize, Deserialize)]
enum Wish {
    Send(Manner, Vec<(String, String)>, Asked),
    /// Whether somebody takes connections there.
    Knock(String),
    /// To take connections there.
    Listen(SocketAddr),
}

/// How an answer begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    status: u16,
    url: String,
    headers: Vec<(String, String)>,
    length: Option<u64>,
}

/// An answer, of which the body comes piece by piece.
pub struct Answer {
    head: Head,
    body: Body,
}

enum Body {
    Here(reqwest::Response),
    Apart(UnixStream),
    Over,
}

impl Answer {
    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Returns the address that answered, after redirects.
    pub fn url(&self) -> Option<Url> {
        Url::parse(&self.head.url).ok()
    }

    /// Returns the values of a header.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.headers.iter().filter(move |(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns how long the body is to be, where that was said.
    pub fn length(&self) -> Option<u64> {
        self.head.length
    }

    /// Returns the next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// It ended too early.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, WebError> {
        let piece = match &mut self.body {
            Body::Over => None,
            Body::Here(response) => response.chunk().await.map_err(WebError::of)?.map(|piece| piece.to_vec()),
            Body::Apart(stream) => next_piece(stream).await?,
        };
        if piece.is_none() {
            self.body = Body::Over;
        }
        Ok(piece)
    }
}

/// Who makes requests of one manner.
pub struct Web {
    manner: Manner,
    fetcher: Option<PathBuf>,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Web {
    /// Makes one; `fetcher`: who makes them in the place of this process, if anybody does.
    pub fn new(manner: Manner, fetcher: Option<PathBuf>) -> Web {
        Web { manner, fetcher, client: OnceLock::new() }
    }

    /// Sends a request and returns the beginning of the answer. No deadline is kept here but for the connection.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn send(&self, asked: Asked) -> Result<Answer, WebError> {
        let Some(fetcher) = &self.fetcher else {
            let client = self.client.get_or_init(|| client(self.manner, None)).as_ref();
            return send(client.map_err(WebError::ours)?, asked).await;
        };
        let mut stream = wish(fetcher, &Wish::Send(self.manner, proxies(), asked)).await?;
        let head: Result<Head, WebError> = hear(&mut stream, MAX_HEAD).await.map_err(|error| broke_off(&error))?;
        Ok(Answer { head: head.map_err(WebError::told)?, body: Body::Apart(stream) })
    }

    /// Finds out whether somebody takes connections at an address, `HOST:PORT`.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn knock(&self, address: &str) -> Result<(), WebError> {
        let Some(fetcher) = &self.fetcher else { return knock(address).await };
        let mut stream = wish(fetcher, &Wish::Knock(address.to_owned())).await?;
        let known: Result<(), WebError> = hear(&mut stream, MAX_HEAD).await.map_err(|error| broke_off(&error))?;
        known.map_err(WebError::told)
    }
}

async fn wish(fetcher: &Path, wish: &Wish) -> Result<UnixStream, WebError> {
    let said = async {
        let mut stream = UnixStream::connect(fetcher).await?;
        stream.write_all(&[OPENING]).await?;
        say(&mut stream, wish).await?;
        Ok::<_, io::Error>(stream)
    };
    let gone = |why: String| {
        let path = fetcher.display();
        WebError::ours(format!(
            "nobody listens at {path}, where servers are talked to in the place of this process: {why}; see `systemctl status \
             mainstay-fetch.socket`"
        ))
    };
    match tokio::time::timeout(PATIENCE, said).await {
        Ok(said) => said.map_err(|error| gone(error.to_string())),
        Err(_) => Err(gone("no answer".to_owned())),
    }
}

fn broke_off(error: &io::Error) -> WebError {
    WebError::ours(format!(
        "the fetcher, which asks in the place of this process, broke off: {error}; see `journalctl -u mainstay-fetch`"
    ))
}

async fn send(client: &reqwest::Client, asked: Asked) -> Result<Answer, WebError> {
    let method = Method::from_bytes(asked.method.as_bytes()).map_err(|error| WebError::new(error.to_string()))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let unfit = || WebError::new(format!("the header {name} cannot hold its value"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
        value.set_sensitive(name == reqwest::header::AUTHORIZATION);
        headers.append(name, value);
    }
    let url = Url::parse(&asked.url).map_err(|error| WebError::new(error.to_string()))?;
    let mut request = client.request(method, url).headers(headers);
    if !asked.body.is_empty() {
        request = request.body(asked.body);
    }
    let response = request.send().await.map_err(WebError::of)?;
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let head = Head {
        status: response.status().as_u16(),
        url: response.url().to_string(),
        headers: response.headers().iter().filter_map(text).collect(),
        length: response.content_length(),
    };
    Ok(Answer { head, body: Body::Here(response) })
}

async fn knock(address: &str) -> Result<(), WebError> {
    tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| WebError::new(error.to_string()))
}

/// So many connections may wait to be taken. Who comes when there are more is dropped by the kernel and tries again after a
/// second, so that a burst would keep others out for much longer than it takes. The kernel may allow fewer (net.core.somaxconn).
const WAITING: u32 = 4096;

/// Takes connections at an address; through the fetcher where there is one, which passes the socket on and keeps nothing of it.
///
/// # Errors
/// It is taken, or not this host's; or the fetcher is away.
pub async fn listen(address: SocketAddr, fetcher: Option<&Path>) -> io::Result<TcpListener> {
    let Some(fetcher) = fetcher else { return bind(address) };
    let mut stream = wish(fetcher, &Wish::Listen(address)).await.map_err(io::Error::other)?;
    let heard = tokio::time::timeout(PATIENCE, hear::<Result<(), Option<i32>>>(&mut stream, MAX_HEAD)).await;
    match heard.map_err(|_| io::ErrorKind::TimedOut)?? {
        Ok(()) => {}
        Err(Some(number)) => return Err(io::Error::from_raw_os_error(number)),
        Err(None) => return Err(io::Error::other("the fetcher cannot listen there")),
    }
    let listener = std::net::TcpListener::from(receive(&stream).await?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Takes connections at an address with this process's own rights.
///
/// # Errors
/// It is taken, or not this host's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of the connections of an agent that ended does not keep the next one out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Passes a socket on (unix(7), `SCM_RIGHTS`).
async fn pass(stream: &UnixStream, listener: &TcpListener) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let sent = stream.async_io(Interest::WRITABLE, || {
        let fds = [listener.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        Ok(sendmsg(stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?)
    });
    sent.await.map(drop)
}

async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let received = stream.async_io(Interest::READABLE, || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        Ok(fds.next().and_then(|mut fds| fds.next()))
    });
    let received = tokio::time::timeout(PATIENCE, received).await.map_err(|_| io::ErrorKind::TimedOut)?;
    received?.ok_or_else(|| io::Error::other("the fetcher passed no socket"))
}

/// Returns the variables of this process that name proxies.
pub fn proxies() -> Vec<(String, String)> {
    PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// The variables that name proxies, the later one where both are set.
pub const PROXIES: [&str; 8] =
    ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// Has a client go through the proxies that variables name, as if they were set here.
///
/// # Errors
/// One of them is no address, in words.
pub fn proxied(
    mut builder: reqwest::ClientBuilder,
    named: &[(String, String)],
) -> Result<reqwest::ClientBuilder, String> {
    let last = |name: &str| named.iter().rev().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let except = last("NO_PROXY").and_then(|hosts| reqwest::NoProxy::from_string(hosts));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let Some(address) = last(name).filter(|address| !address.is_empty()) else { continue };
        let proxy = match name {
            "HTTP_PROXY" => reqwest::Proxy::http(address),
            "HTTPS_PROXY" => reqwest::Proxy::https(address),
            _ => reqwest::Proxy::all(address),
        };
        let proxy = proxy.map_err(|error| format!("{name} is of no use: {}", crate::chain(&error)))?;
        builder = builder.proxy(proxy.no_proxy(except.clone()));
    }
    Ok(builder)
}

/// Builds a client that trusts what the host trusts; with the proxies of this process, or with those that are named.
fn client(manner: Manner, named: Option<&[(String, String)]>) -> Result<reqwest::Client, String> {
    tls::ensure_provider();
    let mut builder = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("mainstay-", env!("CARGO_PKG_VERSION")));
    builder = match manner {
        Manner::Artifact => builder.connect_timeout(Duration::from_secs(30)).redirect(Policy::custom(|attempt| {
            match flaw(attempt.previous(), attempt.url()) {
                None => attempt.follow(),
                Some(_) => attempt.stop(),
            }
        })),
        Manner::Alert => builder.redirect(Policy::none()),
        Manner::Check => builder.no_proxy().redirect(Policy::custom(|attempt| {
            let first = attempt.previous().first().and_then(|url| url.host_str());
            match (first == attempt.url().host_str(), attempt.previous().len() > REDIRECTS) {
                (true, false) => attempt.follow(),
                (true, true) => attempt.error("too many redirects"),
                (false, _) => attempt.stop(),
            }
        })),
    };
    if let Some(named) = named.filter(|_| manner != Manner::Check) {
        builder = proxied(builder.no_proxy(), named)?;
    }
    builder.build().map_err(|error| format!("failed to build an http client: {}", crate::chain(&error)))
}

/// Says why a redirect is not followed on the way to an artifact. Where it leads matters little, since the digest proves what comes; that
/// nobody on the way sees it does.
pub fn flaw(previous: &[Url], to: &Url) -> Option<&'static str> {
    let is_plain = |url: &Url| url.scheme() != "https";
    if previous.len() > REDIRECTS {
        Some("there were too many before it")
    } else if is_plain(to) && !previous.iter().all(is_plain) {
        Some("everybody on the way would see what comes")
    } else if !to.username().is_empty() || to.password().is_some() {
        Some("it holds a user or password")
    } else {
        None
    }
}

async fn next_piece(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, WebError> {
    let lost = |error: io::Error| broke_off(&error);
    match stream.read_u32().await.map_err(lost)? {
        0 => Ok(None),
        u32::MAX => Err(hear::<WebError>(stream, MAX_HEAD).await.map_err(lost)?.told()),
        length if length > MAX_PIECE => Err(WebError::ours(format!("the fetcher announced {length} bytes at once"))),
        length => {
            let mut piece = vec![0; length as usize];
            stream.read_exact(&mut piece).await.map_err(lost)?;
            Ok(Some(piece))
        }
    }
}

async fn say(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MAX_TEXT);
    let length = length.ok_or_else(|| io::Error::other("there is too much to say"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&text).await
}

async fn hear<T: DeserializeOwned>(stream: &mut UnixStream, most: u32) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > most {
        return Err(io::Error::other(format!("{length} bytes were announced, which is too much")));
    }
    let mut text = Vec::new();
    stream.take(length.into()).read_to_end(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests;
