//! Fetches artifacts into the store: bounded, in time and in size, and proven by their digest before they count.
//!
//! Nothing on the host changes here. No judgement about what is needed: who calls says what to fetch.

mod archive;
mod registry;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use spec::artifact::{Address, Origin};
use spec::digest::Digest;
use spec::id::shown;
use tokio::time::Instant;

use crate::progress::{Progress, Transfer};
use crate::store::Store;
use crate::web::{self, Answer, Asked, Manner, Web, WebError};

/// How long a download may stand still.
const STALL: Duration = Duration::from_secs(60);

/// Why an artifact could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch {}: {why}", shown(.url))]
pub struct FetchError {
    url: String,
    why: Why,
}

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Registry(String),
    #[error("the server answered {0}")]
    Answered(StatusCode),
    #[error("the server redirects to {0}, which is not followed: {1}")]
    Redirected(String, &'static str),
    #[error("the sha256 of what came is {came}, and {wanted} is wanted ({length} bytes)")]
    Other { came: Digest, wanted: Digest, length: u64 },
    #[error("it has more than {0} bytes; `limit` of its entry allows more")]
    Large(u64),
    #[error("nothing came for {}", humantime::format_duration(*.0))]
    Stalled(Duration),
    #[error("it was not here within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("{0}")]
    Archive(#[from] archive::ArchiveError),
    #[error("it could not be kept: {0}")]
    Disk(#[from] io::Error),
}

/// Fetches artifacts.
pub struct Fetcher {
    web: Web,
    stall: Option<Duration>,
    /// Files with credentials for registries.
    logins: Vec<PathBuf>,
}

impl Fetcher {
    /// Makes one that finds the credentials for registries in these files; `apart`: who talks to servers in the place of this process.
    pub fn new(logins: Vec<PathBuf>, apart: Option<PathBuf>) -> Fetcher {
        Fetcher { web: Web::new(Manner::Artifact, apart), stall: None, logins }
    }

    /// Fetches what `origin` says into the store, within `deadline`. Nothing is fetched that is there already.
    ///
    /// # Errors
    /// It could not be fetched, or is not what was wanted; nothing is kept then.
    pub async fn fetch(
        &self,
        origin: &Origin,
        store: &Store,
        deadline: Duration,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        if store.holds(origin) {
            return Ok(());
        }
        let until = Instant::now() + deadline;
        let mut transfer = progress.transfer(&origin.url);
        let mut fetched = Ok(());
        if !store.has(origin.sha256) {
            let taken = tokio::time::timeout_at(until, self.take_in(origin, store, &mut transfer)).await;
            fetched = taken.unwrap_or(Err(Why::TimedOut(deadline)));
        }
        if fetched.is_ok() && origin.unpack.is_some() {
            fetched = unpack(origin, store).await;
        }
        fetched.map_err(|why| FetchError { url: origin.url.clone(), why })
    }

    async fn take_in(&self, origin: &Origin, store: &Store, transfer: &mut Transfer<'_>) -> Result<(), Why> {
        let answer = match Address::parse(&origin.url) {
            Ok(Address::Web(url)) => self.get(url).await?,
            Ok(Address::Registry(image)) => registry::layer(self, &image, origin.sha256).await?,
            Err(flaw) => return Err(Why::Unreachable(flaw.why.to_owned())),
        };
        let total = answer.length();
        if total.is_some_and(|length| length > origin.limit) {
            return Err(Why::Large(origin.limit));
        }
        let mut answer = answer;
        let mut incoming = store.begin(origin.sha256)?;
        while let Some(chunk) = self.moving(answer.chunk()).await? {
            if incoming.length() + chunk.len() as u64 > origin.limit {
                return Err(Why::Large(origin.limit));
            }
            incoming.write(&chunk)?;
            transfer.moved(incoming.length(), total);
        }
        let (came, wanted, length) = (incoming.digest(), origin.sha256, incoming.length());
        if came != wanted {
            return Err(Why::Other { came, wanted, length });
        }
        Ok(incoming.finish()?)
    }

    async fn get(&self, url: &str) -> Result<Answer, Why> {
        let answer = self.send(Asked::get(url)).await?;
        match status(&answer) {
            StatusCode::OK => Ok(answer),
            status if status.is_redirection() => Err(refused(&answer)),
            status => Err(Why::Answered(status)),
        }
    }

    async fn send(&self, asked: Asked) -> Result<Answer, Why> {
        self.moving(self.web.send(asked)).await
    }

    /// Reads a short body.
    async fn body(&self, mut answer: Answer, most: usize) -> Result<Vec<u8>, Why> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.moving(answer.chunk()).await? {
            if bytes.len() + chunk.len() > most {
                return Err(Why::Registry(format!("the registry's answer has more than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Waits for the next thing to come, but not for ever.
    async fn moving<T>(&self, next: impl Future<Output = Result<T, WebError>>) -> Result<T, Why> {
        let stall = self.stall.unwrap_or(STALL);
        match tokio::time::timeout(stall, next).await {
            Ok(come) => come.map_err(|error| Why::Unreachable(error.to_string())),
            Err(_) => Err(Why::Stalled(stall)),
        }
    }
}

/// Unpacks an archive beside the loop, which turns meanwhile. It is bounded by what may be in it, and ends when the agent does.
async fn unpack(origin: &Origin, store: &Store) -> Result<(), Why> {
    let (origin, store) = (origin.clone(), store.clone());
    match tokio::task::spawn_blocking(move || archive::unpack(&store, &origin)).await {
        Ok(unpacked) => Ok(unpacked?),
        Err(error) => Err(Why::Disk(io::Error::other(error))),
    }
}

/// Returns an answer's status; one that makes no sense is an error of the server.
fn status(answer: &Answer) -> StatusCode {
    StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Explains a redirect that was not followed; without its query, which may hold a secret.
fn refused(answer: &Answer) -> Why {
    let from = answer.url();
    let to = from.as_ref().and_then(|from| from.join(answer.headers("location").next()?).ok());
    let (Some(from), Some(mut to)) = (from, to) else { return Why::Answered(status(answer)) };
    let why = web::flaw(std::slice::from_ref(&from), &to).unwrap_or("there were too many before it");
    to.set_query(None);
    // A URL without a host has no user to remove.
    if to.set_username("").is_err() || to.set_password(None).is_err() {
        return Why::Answered(status(answer));
    }
    Why::Redirected(shown(to.as_str()), why)
}

#[cfg(test)]
mod tests;
