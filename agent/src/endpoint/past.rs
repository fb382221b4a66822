//! The history, for those who ask: read from the mirror beside the loop, by one reader at a time.

use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use spec::id::{AppName, HostName};
use tokio::sync::Semaphore;

use super::answer::{self, Answer, JSON};
use crate::history::annotations::annotations;
use crate::history::{self, Event, USUAL};
use crate::snapshot::as_json;
use crate::upstream;

/// The most entries that are told at once.
const MOST: usize = 500;
/// How long reading may take, others' turns included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the history is.
pub(super) struct Past {
    state: PathBuf,
    host: HostName,
    /// The key that the host signs with.
    key: Option<String>,
    turn: Semaphore,
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it happened.
    Entries,
    /// As Grafana draws it.
    Annotations,
}

/// What is asked of it.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    app: Option<AppName>,
    limit: usize,
}

impl Past {
    pub(super) fn new(state: PathBuf, host: HostName, key: Option<String>) -> Past {
        Past { state, host, key, turn: Semaphore::new(1) }
    }

    /// Answers with what was deployed.
    pub(super) async fn answer(&self, query: &str, form: Form) -> Answer {
        let wanted = match Wanted::of(query) {
            Ok(wanted) => wanted,
            Err(words) => return answer::refusal(StatusCode::BAD_REQUEST, &words),
        };
        match tokio::time::timeout(PATIENCE, self.read(wanted, form)).await {
            Ok(Ok(text)) => answer::whole(StatusCode::OK, JSON, text),
            Ok(Err(words)) => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, &words),
            Err(_) => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "reading the history takes too long"),
        }
    }

    async fn read(&self, wanted: Wanted, form: Form) -> Result<String, String> {
        let _turn = self.turn.acquire().await.expect("nobody closes it");
        let (state, host, key) = (self.state.clone(), self.host.clone(), self.key.clone());
        let here = host.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mirror = upstream::peek(&state)?;
            history::read(&mirror, &host, key.as_deref(), wanted.app.as_ref(), wanted.limit)
        });
        let read = reading.await.map_err(|error| error.to_string())?;
        let history = read.map_err(|error| crate::chain(&error))?;
        Ok(match form {
            Form::Entries => as_json(&json!({ "history": history })),
            Form::Annotations => {
                let events = history.into_iter().map(|entry| Event { host: here.clone(), entry });
                as_json(&annotations(&events.collect::<Vec<_>>()))
            }
        })
    }
}

impl Wanted {
    fn of(query: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted { app: None, limit: USUAL };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("app", name)) => wanted.app = Some(AppName::parse(name)?),
                Some(("limit", number)) => {
                    let limit = number.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    wanted.limit = limit.ok_or_else(|| format!("`limit` is a number from 1 to {MOST}"))?;
                }
                _ => return Err("this takes `app` and `limit`".to_owned()),
            }
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let web = AppName::parse("web").expect("a name");
        assert_eq!(Wanted::of(""), Ok(Wanted { app: None, limit: USUAL }));
        assert_eq!(Wanted::of("limit=7&app=web"), Ok(Wanted { app: Some(web), limit: 7 }));
        for wrong in ["limit=0", "limit=501", "limit=x", "limit", "app=../x", "app=", "other=1"] {
            Wanted::of(wrong).expect_err(wrong);
        }
    }
}
