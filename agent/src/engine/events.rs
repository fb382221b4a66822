//! What the engine says by itself: that a container or a network came, went, or changed.

use std::collections::HashMap;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::{Engine, Error};

/// What concerns us, in the words of Docker; Podman's service speaks them, too. What a health check does is not among it: that
/// happens every few seconds.
const ACTIONS: [&str; 10] =
    ["create", "start", "die", "stop", "destroy", "remove", "rename", "pause", "unpause", "disconnect"];

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name of the container or network.
    pub name: String,
    /// The container's process has ended, and it may be removed or started again by whoever ended it.
    pub has_ended: bool,
}

/// Listens to the engine for as long as it is held.
pub struct Events {
    messages: BoxStream<'static, Result<EventMessage, bollard::errors::Error>>,
}

impl Engine {
    /// Listens to the engine. The question is asked with the first wait.
    ///
    /// # Errors
    /// Unreachable: there is no socket.
    pub fn events(&self) -> Result<Events, Error> {
        let client = self.client("listen to the engine")?;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filters = [("type".to_owned(), words(&["container", "network"])), ("event".to_owned(), words(&ACTIONS))];
        let filters = Some(HashMap::from(filters));
        let options = EventsOptions { filters, ..EventsOptions::default() };
        Ok(Events { messages: client.docker.events(Some(options)).boxed() })
    }
}

impl Events {
    /// Waits for the next thing of interest. `None` when the engine has ended the conversation, or never began it.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let message = self.messages.next().await?.ok()?;
            if let Some(name) = heard(message) {
                return Some(name);
            }
        }
    }
}

/// Reads an event; `None` when it says nothing of interest.
fn heard(message: EventMessage) -> Option<Event> {
    let action = message.action.filter(|action| ACTIONS.contains(&action.as_str()))?;
    let name = message.actor?.attributes?.remove("name")?;
    Some(Event { name, has_ended: matches!(action.as_str(), "die" | "stop") })
}
