//! The endpoint: answers what is known, over a Unix socket and, where the settings say so, over TCP. It runs beside the
//! passes as tasks of the same loop, looks at pictures that the daemon put up, and can ask it for one thing: to fetch now.
//!
//! Nothing here waits for a pass, and no pass waits for anything here. The modules below are in the order of dependency.

mod answer;
mod page;
mod route;
mod guard;
mod connection;
mod events;
mod metrics;
mod hooks;
mod past;
mod tls;
mod listen;
pub mod fleet;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode};
use serde_json::json;
use spec::id::HostName;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::board::{Asked, Board, Pulse};
use crate::identity::Identity;
use crate::progress::Progress;
use crate::settings;
use crate::snapshot::{Detail, Snapshot, as_json};
use answer::{Answer, JSON, TEXT};
use connection::Slot;
use guard::{Door, Guard};
use hooks::Hooks;
use past::{Form, Past};
use route::{Astray, Forge, Route};
use tls::Tls;

/// What can be asked, for programs.
const DESCRIPTION: &str = include_str!("endpoint/openapi.json");
/// How many readers of events there are at once.
const READERS: usize = 16;
/// A token has at least so many characters.
const SHORTEST: usize = 16;
/// What holds more was not meant as a token.
const LONGEST: u64 = 4096;

/// Why the endpoint's settings cannot be used. The agent does not start with them: what was meant to be guarded must not
/// stand open, nor be missing unnoticed.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It would tell everybody on the network.
    #[error(
        "`endpoint.listen` names {0}, which others can reach: that needs a certificate and a token, \
         `endpoint: {{ cert: FILE, key: FILE, token: FILE }}`; or listen at 127.0.0.1"
    )]
    Open(SocketAddr),
    /// The certificate cannot be used.
    #[error("`endpoint.cert` and `endpoint.key` cannot be used: {0}")]
    Tls(String),
    /// A token or a secret cannot be used.
    #[error("`{key}` cannot be used: {path}: {why}", path = path.display())]
    Secret {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The settings, checked.
pub struct Config {
    socket: PathBuf,
    listen: Vec<SocketAddr>,
    tls: Option<Tls>,
    guard: Guard,
    hooks: Option<Hooks>,
    past: Past,
}

impl Config {
    /// Checks the settings, and reads the files that they name.
    ///
    /// # Errors
    /// Says what is off; nothing listens anywhere then.
    pub fn of(settings: &settings::Settings, host: &HostName) -> Result<Config, EndpointError> {
        let (branch, address) = (&settings.branch, settings.repository.as_deref().unwrap_or_default());
        let identity = Identity::find(settings).ok().flatten();
        let key = identity.map(|identity| identity.public().to_owned());
        let past = Past::new(settings.state.clone(), host.clone(), key);
        let settings = &settings.endpoint;
        let open = settings.listen.iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = open.filter(|_| settings.cert.is_none() || settings.token.is_none()) {
            return Err(EndpointError::Open(*address));
        }
        let token = settings.token.as_deref().map(|path| secret("endpoint.token", path)).transpose()?;
        let hooks = settings.hooks.as_deref().map(|path| secret("endpoint.hooks", path)).transpose()?;
        let hooks = hooks.map(|secret| Hooks::new(secret, branch, address));
        let tls = tls(settings).map_err(EndpointError::Tls)?;
        let guard = Guard::new(&settings.listen, &settings.names, host, token.as_deref());
        Ok(Config { socket: settings.socket.clone(), listen: settings.listen.clone(), tls, guard, hooks, past })
    }
}

/// Reads the certificate and its key, where the settings name them.
fn tls(settings: &settings::Endpoint) -> Result<Option<Tls>, String> {
    match (&settings.cert, &settings.key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Tls::read(cert, key).map(Some),
        _ => Err("a certificate needs its key, and a key its certificate".to_owned()),
    }
}

/// Looks at the certificate and its key as they are now, which a running agent may have refused to take over.
///
/// # Errors
/// Says what is wrong with them.
pub fn examine(settings: &settings::Endpoint) -> Result<(), String> {
    tls(settings).map(drop)
}

/// Reads a token: one line, long enough not to be guessed.
fn secret(key: &'static str, path: &Path) -> Result<String, EndpointError> {
    let off = |why: String| EndpointError::Secret { key, path: path.to_owned(), why };
    match std::fs::metadata(path) {
        Ok(file) if file.len() > LONGEST => return Err(off(format!("it has more than {LONGEST} bytes"))),
        _ => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = if error.kind() == std::io::ErrorKind::NotFound {
            ": `openssl rand -hex 32` makes a line for it"
        } else {
            ""
        };
        off(format!("{error}{remedy}"))
    })?;
    let text = text.trim();
    if text.len() < SHORTEST || !text.bytes().all(|it| it.is_ascii_graphic() || it == b' ') {
        return Err(off(format!(
            "it should hold one line of at least {SHORTEST} characters, such as `openssl rand -hex 32` prints"
        )));
    }
    Ok(text.to_owned())
}

/// What every answer is made of.
struct Shared {
    config: Arc<Config>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    pulse: Arc<Pulse>,
    asked: Arc<Asked>,
    progress: Arc<Progress>,
    /// Nothing achieved for this long means that the loop hangs.
    longest: Duration,
    readers: Arc<Semaphore>,
}

/// Begins to answer. It ends when what is returned is dropped.
pub fn open(
    config: Config,
    board: &Board,
    asked: &Arc<Asked>,
    progress: &Arc<Progress>,
    longest: Duration,
) -> JoinSet<()> {
    let config = Arc::new(config);
    let shared = Arc::new(Shared {
        config: Arc::clone(&config),
        snapshots: board.watch(),
        pulse: Arc::clone(&board.pulse),
        asked: Arc::clone(asked),
        progress: Arc::clone(progress),
        longest,
        readers: Arc::new(Semaphore::new(READERS)),
    });
    let mut tasks = JoinSet::new();
    let mut passed = listen::passed();
    let is_at_its_path = |listener: &UnixListener| {
        listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(&config.socket))
    };
    // Those of the service manager are answered on wherever they are: who connects there would wait for ever.
    if !passed.unix.iter().any(is_at_its_path) {
        tasks.spawn(listen::over_unix(Arc::clone(&config), Arc::clone(&shared)));
    }
    for listener in passed.unix {
        tasks.spawn(listen::on_unix(listener, Arc::clone(&shared)));
    }
    for address in &config.listen {
        let listener = passed.tcp.remove(address);
        tasks.spawn(listen::over_tcp(*address, listener, Arc::clone(&config), Arc::clone(&shared)));
    }
    for address in passed.tcp.keys() {
        tracing::warn!(%address, "the service manager holds a socket that nobody answers on: add it to `endpoint.listen`");
    }
    tasks
}

async fn answer_to(request: Request<Incoming>, door: Door, slot: Arc<Slot>, shared: Arc<Shared>) -> Answer {
    let answer = match Route::of(request.method(), request.uri().path()) {
        Err(Astray::Nothing) => answer::refusal(StatusCode::NOT_FOUND, "there is nothing; see /openapi.json"),
        Err(Astray::Method(allowed)) => answer::other_method(allowed),
        Ok(route) => match shared.config.guard.admit(door, &route, &request) {
            Err(refusal) => *refusal,
            Ok(detail) => match route {
                Route::Hook(forge) => hook(forge, request, &shared).await,
                Route::History => shared.config.past.answer(query(&request), Form::Entries).await,
                Route::Annotations => shared.config.past.answer(query(&request), Form::Annotations).await,
                route => answer_with(route, detail, &request, slot, &shared),
            },
        },
    };
    answer::guarded(answer)
}

fn query(request: &Request<Incoming>) -> &str {
    request.uri().query().unwrap_or_default()
}

async fn hook(forge: Forge, request: Request<Incoming>, shared: &Shared) -> Answer {
    match &shared.config.hooks {
        Some(hooks) => hooks.hear(forge, request, || shared.asked.ask()).await,
        None => answer::refusal(
            StatusCode::NOT_FOUND,
            "hooks are off: put a secret into a file and name it as `endpoint.hooks` in the settings",
        ),
    }
}

fn answer_with(route: Route, detail: Detail, request: &Request<Incoming>, slot: Arc<Slot>, shared: &Shared) -> Answer {
    let snapshot = Arc::clone(&shared.snapshots.borrow());
    let json = |text: String| answer::whole(StatusCode::OK, JSON, text);
    match route {
        Route::Health => match shared.progress.idle_for() < shared.longest {
            true => answer::whole(StatusCode::OK, TEXT, "ok\n"),
            false => answer::whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the loop hangs\n"),
        },
        Route::Ready => match snapshot.ready {
            true => answer::whole(StatusCode::OK, TEXT, "ok\n"),
            false => answer::whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, "nothing was looked at yet\n"),
        },
        Route::Metrics => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let form = metrics::Form::accepted(accept);
            answer::whole(StatusCode::OK, form.kind(), metrics::write(&snapshot, &shared.pulse, form))
        }
        Route::Status => answer::shared(snapshot.text(detail)),
        Route::Plan => json(as_json(&snapshot.seen(detail).plan)),
        Route::Apps => json(as_json(&json!({ "apps": snapshot.seen(detail).apps }))),
        Route::App(name) => match snapshot.seen(detail).apps.get(&name) {
            Some(app) => json(as_json(app)),
            None => answer::refusal(StatusCode::NOT_FOUND, "this host has no such application"),
        },
        Route::Endpoints => json(as_json(&json!({ "endpoints": *snapshot.endpoints }))),
        Route::Events => match Arc::clone(&shared.readers).try_acquire_owned() {
            Ok(room) => answer::events(events::stream(shared.snapshots.clone(), detail, slot, room)),
            Err(_) => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "there are too many readers of events already"),
        },
        Route::Page(file) => page::answer(file),
        Route::Description => answer::whole(StatusCode::OK, JSON, DESCRIPTION),
        // What takes its time was answered before.
        Route::Hook(_) | Route::History | Route::Annotations => {
            answer::refusal(StatusCode::NOT_FOUND, "there is nothing")
        }
        Route::Sync => {
            shared.asked.ask();
            answer::whole(StatusCode::ACCEPTED, JSON, json!({ "result": "the repository is asked now" }).to_string())
        }
    }
}

#[cfg(test)]
mod tests;
