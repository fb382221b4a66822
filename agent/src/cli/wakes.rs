//! When to look again: at once when the agent on this host says that something is another, else every second.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::Uri;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How long to wait where nobody says anything.
const LOOK: Duration = Duration::from_secs(1);
/// How long the agent may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// An agent that says nothing for so long is gone: it says at least every 15 seconds that it is still there.
const SILENCE: Duration = Duration::from_secs(45);

/// Begins to listen at the agent's socket. Many changes at once are one.
pub(super) fn of(socket: PathBuf) -> mpsc::Receiver<()> {
    let (woken, wakes) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut agent = Agent { socket, heard: None };
        loop {
            agent.stirs().await;
            if woken.send(()).await.is_err() {
                return;
            }
        }
    });
    wakes
}

/// What is heard of the agent.
struct Agent {
    socket: PathBuf,
    heard: Option<Incoming>,
}

impl Agent {
    /// Waits until it is worth to look again.
    async fn stirs(&mut self) {
        let until = Instant::now() + SILENCE;
        if self.heard.is_none() {
            self.heard = timeout(ANSWER, self.listen()).await.ok().flatten();
        }
        while let Some(heard) = &mut self.heard {
            match timeout(until.saturating_duration_since(Instant::now()), heard.frame()).await {
                Ok(Some(Ok(frame))) if frame.data_ref().is_some_and(|text| is_news(text)) => return,
                Ok(Some(Ok(_))) => {}
                Ok(None | Some(Err(_))) | Err(_) => self.heard = None,
            }
        }
        sleep(LOOK).await;
    }

    async fn listen(&self) -> Option<Incoming> {
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(UnixConnector);
        let events: Uri = hyperlocal::Uri::new(&self.socket, "/v1/events").into();
        let answer = client.get(events).await.ok()?;
        answer.status().is_success().then(|| answer.into_body())
    }
}

/// Says whether this is a picture, or the first piece of one: the rest only says that the agent is there.
fn is_news(text: &[u8]) -> bool {
    !text.starts_with(b": ")
}
