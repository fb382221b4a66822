//! Smart HTTP for git: the requests of gix's transport, on a client that is kept between polls.
//!
//! gix's own client would build a TLS configuration, a thread and a runtime per connection, and follows redirects. This
//! one reuses connections, follows nothing (credentials never travel to another host) and obeys the same [`Watch`] as
//! every other transport. Proxies are taken from the agent's environment (`HTTPS_PROXY`), as everywhere.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gix::protocol::transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use reqwest::header::{HeaderName, HeaderValue};
use spec::id::shown;

use super::complaints::{certificate, chain};
use super::credential::Credentials;
use super::error::{Deadline, Verdict, because};
use super::opening::{Held, MAX_OPENING};
use super::remote::{Deadlines, Remote};
use super::wire::Watch;
use crate::web;

/// An HTTP client with its connections and TLS sessions.
pub(super) struct Client {
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    client: reqwest::Client,
    ca_file: Option<PathBuf>,
    proxies: Option<Vec<(String, String)>>,
    connect: Duration,
}

impl Client {
    /// Builds a client; this reads the certificate authorities.
    ///
    /// # Errors
    /// The CA file cannot be used, or there is none on this host.
    pub(super) fn new(remote: &Remote, deadlines: &Deadlines) -> Result<Client, String> {
        crate::tls::ensure_provider();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(deadlines.connect)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("git/mainstay-", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &remote.ca_file {
            builder = builder.tls_certs_only(certificates(path)?);
        }
        if let Some(named) = &remote.proxies {
            builder = web::proxied(builder.no_proxy(), named)?;
        }
        let client = builder.build().map_err(|error| format!("failed to build an https client: {}", chain(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("failed to start an https client: {error}"))?;
        let (ca_file, proxies) = (remote.ca_file.clone(), remote.proxies.clone());
        Ok(Client { runtime: Some(runtime), client, ca_file, proxies, connect: deadlines.connect })
    }

    /// Says whether this client is what `remote` and `deadlines` ask for.
    pub(super) fn suits(&self, remote: &Remote, deadlines: &Deadlines) -> bool {
        self.ca_file == remote.ca_file && self.proxies == remote.proxies && self.connect == deadlines.connect
    }
}

impl Drop for Client {
    /// A command that asks once drops it within the runtime that it runs in itself, where waiting is not allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(path)
        .map_err(|error| format!("failed to read {}, which `git.ca` names: {error}", path.display()))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!(
            "{}, which `git.ca` names, holds no certificate: it begins with -----BEGIN CERTIFICATE-----",
            path.display()
        )),
        Err(error) => Err(format!("{}, which `git.ca` names, cannot be used: {}", path.display(), chain(&error))),
    }
}

/// One conversation over a [`Client`].
pub(super) struct Requests<'w> {
    pub(super) client: &'w Client,
    pub(super) watch: &'w Watch<'w>,
    pub(super) credentials: Option<Rc<Credentials>>,
}

/// A request that is sent when its answer is first read, and that answer.
struct Exchange<'w> {
    client: &'w Client,
    watch: &'w Watch<'w>,
    request: Option<reqwest::RequestBuilder>,
    body: Vec<u8>,
    response: Option<reqwest::Response>,
    /// The capabilities as far as they were read, where they are asked for.
    capabilities: Option<Vec<u8>>,
    /// What goes with the request.
    credentials: Option<Rc<Credentials>>,
}

type Shared<'w> = Rc<RefCell<Exchange<'w>>>;

impl<'w> Requests<'w> {
    fn exchange(
        &self,
        request: reqwest::RequestBuilder,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Shared<'w> {
        let mut request = request;
        for line in headers {
            let Some((name, value)) = line.as_ref().split_once(':') else { continue };
            let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value.trim()));
            match (name, value) {
                (Ok(name), _) if name == reqwest::header::USER_AGENT => {}
                (Ok(name), Ok(value)) => request = request.header(name, value),
                _ => {}
            }
        }
        if let Some(Credentials { user, token, .. }) = self.credentials.as_deref() {
            request = request.basic_auth(user, Some(token));
        }
        self.exchange_of(Some(request))
    }

    fn exchange_of(&self, request: Option<reqwest::RequestBuilder>) -> Shared<'w> {
        let (client, watch, credentials) = (self.client, self.watch, self.credentials.clone());
        let (body, response, capabilities) = (Vec::new(), None, None);
        Rc::new(RefCell::new(Exchange { client, watch, request, body, response, capabilities, credentials }))
    }
}

impl<'w> Http for Requests<'w> {
    type Headers = Headers<'w>;
    type ResponseBody = Body<'w>;
    type PostBody = Upload<'w>;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Headers<'w>, Body<'w>>> {
        // The only thing that git gets is the capabilities, with the refs for a push, and what is known need not be asked for.
        if let Some(known) = self.watch.guess.borrow().expected.clone() {
            let exchange = self.exchange_of(None);
            let service = url.rsplit("service=").next().unwrap_or_default();
            let line = format!("content-type: application/x-{service}-advertisement\n").into_bytes();
            let headers = Headers { exchange: Rc::clone(&exchange), lines: Some(io::Cursor::new(line)) };
            return Ok(GetResponse { headers, body: Body { exchange, chunk: io::Cursor::new(known) } });
        }
        let exchange = self.exchange(self.client.client.get(url), headers);
        exchange.borrow_mut().capabilities = Some(Vec::new());
        Ok(GetResponse { headers: Headers::of(&exchange), body: Body::of(&exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Headers<'w>, Body<'w>, Upload<'w>>> {
        let exchange = self.exchange(self.client.client.post(url), headers);
        Ok(PostResponse {
            post_body: Upload(Rc::clone(&exchange)),
            headers: Headers::of(&exchange),
            body: Body::of(&exchange),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result {
        // Options of git's configuration have no say here.
        Ok(())
    }
}

impl Exchange<'_> {
    /// Waits for `work`, which counts as silence until it is done.
    fn wait<T>(&self, work: impl Future<Output = reqwest::Result<T>>) -> io::Result<T> {
        let quiet = Instant::now();
        let patience = self.watch.deadlines.stall;
        let runtime = self.client.runtime.as_ref().expect("it is there until the client is dropped");
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                let slice = self.watch.slice(quiet, patience, Deadline::Stall)?;
                if let Ok(done) = tokio::time::timeout(slice, work.as_mut()).await {
                    return done.map_err(|error| self.watch.fail(broken(&error)));
                }
            }
        })
    }

    /// Takes note of how far known capabilities held.
    fn assumed(&self, held: Held) {
        let mut guess = self.watch.guess.borrow_mut();
        if guess.expected.is_some() {
            guess.held = held;
        }
    }

    fn answer(&mut self) -> io::Result<()> {
        let Some(request) = self.request.take() else { return Ok(()) };
        let body = std::mem::take(&mut self.body);
        let request = if body.is_empty() { request } else { request.body(body) };
        self.assumed(Held::Used);
        let response = self.wait(request.send())?;
        self.watch.asked();
        if !response.status().is_success() {
            let credentials = self.credentials.as_deref();
            if response.status() == reqwest::StatusCode::UNAUTHORIZED
                && let Some(credentials) = credentials
            {
                credentials.reject(self.watch);
            }
            return Err(self.watch.fail(refused(&response, credentials)));
        }
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
        if !kind.is_some_and(|kind| kind.starts_with("application/x-git-")) {
            let why = format!(
                "the answer is {} and not git's: the address may be incomplete, want a token, or be no smart git server's",
                kind.map_or_else(|| "of no type".to_owned(), |kind| format!("`{}`", shown(kind)))
            );
            return Err(self.watch.fail(Verdict::Unreachable(None, because(why))));
        }
        self.response = Some(response);
        self.assumed(Held::Confirmed);
        Ok(())
    }

    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        self.answer()?;
        let Some(mut response) = self.response.take() else { return Ok(Vec::new()) };
        let asked = Instant::now();
        let chunk = self.wait(response.chunk())?.map(Vec::from).unwrap_or_default();
        self.watch.count(chunk.len())?;
        self.watch.paced(asked.elapsed(), chunk.len())?;
        if let Some(known) = &mut self.capabilities {
            if chunk.is_empty() {
                self.watch.guess.borrow_mut().learn_capabilities(known);
            }
            // An older protocol lists all refs here, which is not remembered.
            if known.len() <= MAX_OPENING {
                known.extend_from_slice(&chunk);
            }
        }
        self.response = (!chunk.is_empty()).then_some(response);
        Ok(chunk)
    }
}

/// Reads from a failed request how to react. Certificates expire and are renewed, so TLS failures are retried.
fn broken(error: &reqwest::Error) -> Verdict {
    if error.is_connect() && error.is_timeout() {
        return Verdict::TimedOut(Deadline::Connect);
    }
    let said = chain(error);
    if let Some(what) = certificate(&said) {
        return Verdict::Unreachable(None, because(what));
    }
    if error.is_builder() {
        return Verdict::Config(because(chain(error)));
    }
    let remedy = if said.contains("Connection refused") {
        ": check the address in `repository`, and whether the server runs"
    } else if said.contains("failed to lookup address") {
        ": check the host in `repository`, and this host's DNS"
    } else {
        ""
    };
    Verdict::Unreachable(None, because(format!("{said}{remedy}")))
}

/// Reads from a status other than success how to react, and to whom something was shown.
fn refused(response: &reqwest::Response, credentials: Option<&Credentials>) -> Verdict {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let of = |text: &str| text.to_owned();
    let hint = match (status.as_u16(), credentials) {
        (401, None) => of(": it wants a token, and none is set: name a file that holds one with `git.token`"),
        (401, Some(credentials)) => format!(": it does not accept {}", credentials.hint()),
        (403, None) => of(": it may want a token, and none is set: name a file that holds one with `git.token`"),
        (403, Some(_)) => of(": the token does not allow this: give it the right to read the repository"),
        (404 | 410, None) => of(
            ": there is no such repository, or it is shown only to who has a token: check the path, or name a file that holds one with `git.token`",
        ),
        (404 | 410, Some(_)) => of(
            ": there is no such repository, or the token does not allow to see it: check the path, and what the token may read",
        ),
        (429, _) => of(": it is asked too often"),
        _ => String::new(),
    };
    let why = because(format!("the server answered {status}{hint}"));
    match status.as_u16() {
        300..=399 => {
            let to = header(reqwest::header::LOCATION).map_or_else(|| "somewhere else".to_owned(), plain_address);
            Verdict::Config(because(format!(
                "the server redirects to {to}: redirects are not followed, set that address"
            )))
        }
        401 | 403 | 404 | 410 => Verdict::Denied(why),
        407 => Verdict::Config(because("the proxy wants credentials")),
        _ => {
            let wait = header(reqwest::header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
            Verdict::Unreachable(wait.map(Duration::from_secs), why)
        }
    }
}

/// Prints where a redirect leads, without credentials or a query, which may hold them.
fn plain_address(to: &str) -> String {
    let to = to.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = to.split_once("://") else { return shown(to) };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // What is wanted is the repository's address, not that of the request.
    let path = ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .iter()
        .find_map(|request| path.strip_suffix(request))
        .unwrap_or(path);
    let host = authority.rsplit('@').next().unwrap_or_default();
    shown(&format!("{scheme}://{host}/{path}"))
}

/// The header lines of an answer.
pub(super) struct Headers<'w> {
    exchange: Shared<'w>,
    lines: Option<io::Cursor<Vec<u8>>>,
}

impl<'w> Headers<'w> {
    fn of(exchange: &Shared<'w>) -> Headers<'w> {
        Headers { exchange: Rc::clone(exchange), lines: None }
    }

    fn lines(&mut self) -> io::Result<&mut io::Cursor<Vec<u8>>> {
        if self.lines.is_none() {
            let mut exchange = self.exchange.borrow_mut();
            exchange.answer()?;
            let mut text = Vec::new();
            for (name, value) in exchange.response.iter().flat_map(reqwest::Response::headers) {
                text.extend_from_slice(name.as_str().as_bytes());
                text.push(b':');
                text.extend_from_slice(value.as_bytes());
                text.push(b'\n');
            }
            self.lines = Some(io::Cursor::new(text));
        }
        Ok(self.lines.get_or_insert_default())
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lines()?.read(buffer)
    }
}

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(amount);
        }
    }
}

/// The body of an answer.
pub(super) struct Body<'w> {
    exchange: Shared<'w>,
    chunk: io::Cursor<Vec<u8>>,
}

impl<'w> Body<'w> {
    fn of(exchange: &Shared<'w>) -> Body<'w> {
        Body { exchange: Rc::clone(exchange), chunk: io::Cursor::default() }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.fill_buf()?.is_empty() {
            self.chunk = io::Cursor::new(self.exchange.borrow_mut().chunk()?);
        }
        self.chunk.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.consume(amount);
    }
}

/// The body of a request: notes and negotiations, which are small, so it is collected and sent at once.
pub(super) struct Upload<'w>(Shared<'w>);

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
