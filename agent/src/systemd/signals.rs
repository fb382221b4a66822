//! What a manager of systemd says by itself: that a unit went down or came up, that unit files changed.
//!
//! On a connection of its own, so that what is asked during a pass never waits behind a storm of signals.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use futures_util::StreamExt;
use futures_util::stream::{Select, select};
use spec::id::{UnitName, User};
use zbus::match_rule::Builder;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, Variant};

use super::{CALL, Error, MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD, Systemd, UNIT, UNITS, classify, unit_path};

const DOING: &str = "listen to systemd";
/// Signals held for us. When there are more, the bus holds them, and what they say shows at the next look anyhow.
const HELD: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The unit with this object path has come to rest in another state; see [`object_path`].
    Unit(String),
    /// Unit files were linked, enabled, disabled or masked.
    Files,
}

/// Listens to one manager for as long as it is held.
pub struct Signals {
    messages: Select<MessageStream, MessageStream>,
}

/// Returns the name by which signals speak of a unit.
pub fn object_path(name: &UnitName) -> String {
    unit_path(name)
}

impl Signals {
    /// Listens to the host's manager, or to a user's.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn open(user: Option<&User>) -> Result<Signals, Error> {
        let mut systemd = user.map_or_else(Systemd::new, Systemd::of);
        let connection = systemd.connection(DOING).await?;
        let rule = || MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD);
        let states = rule().interface(PROPERTIES).member("PropertiesChanged").path_namespace(UNITS).arg(0, UNIT);
        let files = rule().interface(MANAGER).member("UnitFilesChanged").path(MANAGER_PATH);
        let states = stream(&connection, states).await?;
        let files = stream(&connection, files).await?;
        systemd.subscribe(DOING).await?;
        Ok(Signals { messages: select(states, files) })
    }

    /// Waits for the next thing of interest. `None` when the connection has ended, and with it the listening.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            let message = self.messages.next().await?.ok()?;
            if let Some(heard) = heard(&message) {
                return Some(heard);
            }
        }
    }
}

async fn stream(connection: &Connection, rule: Builder<'static>) -> Result<MessageStream, Error> {
    let rule = rule.build().map_err(|error| classify(DOING, error))?;
    tokio::time::timeout(CALL, MessageStream::for_match_rule(rule, connection, Some(HELD)))
        .await
        .map_err(|_| Error::TimedOut { doing: DOING, after: CALL })?
        .map_err(|error| classify(DOING, error))
}

/// Reads a signal; `None` when it says nothing of interest, such as that a unit is on its way to another state.
fn heard(message: &Message) -> Option<Heard> {
    let header = message.header();
    if header.member()?.as_str() == "UnitFilesChanged" {
        return Some(Heard::Files);
    }
    let path = header.path()?.as_str().to_owned();
    let body = message.body();
    let (_, changed, _) = body.deserialize::<(&str, BTreeMap<&str, Variant<'_>>, Vec<&str>)>().ok()?;
    let state = changed.get("ActiveState")?.downcast_ref::<&str>().ok()?;
    matches!(state, "active" | "inactive" | "failed").then_some(Heard::Unit(path))
}
