//! The client to systemd, over the system bus, and to the managers of users, over their own sockets: reads units, runs jobs, and watches what was started until it has settled.
//!
//! It holds no judgement about what should run, keeps no memory of units between calls, and never parses `systemctl`.
//! Every call has a deadline. The connection is made when it is first needed and made again when it has ended; what was
//! asked for then is asked again, which is safe because everything here but a job is idempotent, and jobs are re-read
//! (`run`).

mod jobs;
mod journal;
mod entries;
mod login;
mod manage;
mod managers;
mod peer;
mod run;
mod settle;
mod signals;
mod transient;
mod units;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use spec::id::{UnitName, User, shown};
use zbus::names::ErrorName;
use zbus::{Connection, DBusError, DynamicType, Message, Variant, fdo};

pub use entries::{Entries, Entry};
pub use jobs::{JobDone, JobError, Verb, Why};
pub use journal::journal_tail;
pub use login::lingers;
pub use managers::{Managers, Settled, by_manager};
pub use peer::seems_up;
pub use run::Progress;
pub use settle::{Unrest, Unsettled};
pub use signals::{Heard, Signals, object_path};
pub use transient::Ended;
pub use verify::{Complaint, Place, complaints};

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Below this path are the objects of units.
const UNITS: &str = "/org/freedesktop/systemd1/unit";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// How long connecting may take. The socket is local, but whoever comes first has systemd start the bus, which takes seconds on a
/// machine that is busy with its boot.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one ordinary call may take. PID 1 answers nothing while it reloads, which takes a good part of a second.
const CALL: Duration = Duration::from_secs(10);
/// Calls on their way at once. The system bus ends replies beyond 128 (`max_replies_per_connection` of dbus-daemon).
const WINDOW: usize = 100;
/// The pause before what a lost connection swallowed is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Why systemd did not do or say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus, or systemd on it, is away: nothing is known of any unit, and none may be touched this pass.
    #[error("failed to {doing}: systemd does not answer")]
    Unreachable {
        /// What we were doing.
        doing: &'static str,
        /// Why it does not.
        #[source]
        source: Box<zbus::Error>,
    },
    /// Connected, but there was no answer in time: PID 1 or the bus hangs.
    #[error("failed to {doing}: systemd gave no answer within {}", humantime::format_duration(*after))]
    TimedOut {
        /// What we were doing.
        doing: &'static str,
        /// The deadline that passed.
        after: Duration,
    },
    /// `daemon-reload` is refused until somebody makes room: systemd wants 16 MiB free to serialise its state.
    #[error("failed to {doing}: /run is too full for systemd to reload: {words}")]
    RunFull {
        /// What we were doing.
        doing: &'static str,
        /// systemd's words.
        words: String,
    },
    /// systemd answered, and the answer is no.
    #[error("failed to {doing}: {words}")]
    Refused {
        /// What we were doing.
        doing: &'static str,
        /// The name of the D-Bus error.
        code: String,
        /// systemd's words.
        words: String,
    },
}

impl Error {
    /// Says whether this tells nothing of units: the pass leaves them alone and the next one asks again.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::TimedOut { .. })
    }
}

/// Sorts what zbus reports by what to do about it.
fn classify(doing: &'static str, error: zbus::Error) -> Error {
    use fdo::Error as Bus;
    let refused = |code: &str, words: &str| match code {
        "org.freedesktop.systemd1.DiskFull" => Error::RunFull { doing, words: shown(words) },
        _ => Error::Refused { doing, code: code.to_owned(), words: shown(words) },
    };
    match &error {
        zbus::Error::MethodError(code, words, _) if !is_away(code) => {
            refused(code.as_str(), words.as_deref().unwrap_or("it gave no reason"))
        }
        zbus::Error::FDO(bus) => match bus.as_ref() {
            // The bus is up, but nobody owns systemd's name: PID 1 re-executes, or the bus itself has just come back.
            Bus::ServiceUnknown(_)
            | Bus::NameHasNoOwner(_)
            | Bus::NoReply(_)
            | Bus::Disconnected(_)
            | Bus::NoServer(_) => Error::Unreachable { doing, source: Box::new(error) },
            Bus::ZBus(_) => Error::Unreachable { doing, source: Box::new(error) },
            answer => refused(answer.name().as_str(), answer.description().unwrap_or("it gave no reason")),
        },
        _ => Error::Unreachable { doing, source: Box::new(error) },
    }
}

/// Says whether an error's name means that systemd was not there to answer: dbus-daemon tries to launch an absent owner.
fn is_away(code: &ErrorName<'_>) -> bool {
    code.as_str().starts_with("org.freedesktop.DBus.Error.Spawn")
        || code.as_str() == "org.freedesktop.systemd1.ShuttingDown"
}

/// One manager of systemd: the host's, or a user's.
#[derive(Debug, Default)]
pub struct Systemd {
    user: Option<User>,
    connection: Option<Connection>,
    /// Whether systemd was asked on this connection to send signals.
    subscribed: bool,
}

impl Systemd {
    /// Makes a client to the host's manager that has not connected yet.
    pub fn new() -> Systemd {
        Systemd::default()
    }

    /// Makes a client to a user's manager that has not connected yet.
    pub fn of(user: &User) -> Systemd {
        Systemd { user: Some(user.clone()), ..Systemd::default() }
    }

    /// Returns the connection, made anew if there is none or it has ended.
    async fn connection(&mut self, doing: &'static str) -> Result<Connection, Error> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        self.forget();
        let connecting = async {
            match &self.user {
                Some(user) => peer::connect(user).await,
                None => Connection::system().await,
            }
        };
        let connection = tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| Error::TimedOut { doing, after: CONNECT })?
            .map_err(|source| Error::Unreachable { doing, source: Box::new(source) })?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Asks systemd to send signals on this connection, once.
    async fn subscribe(&mut self, doing: &'static str) -> Result<(), Error> {
        if !self.subscribed {
            match self.ask_once(doing, "Subscribe", &(), CALL).await {
                Ok(_) => {}
                Err(Error::Refused { code, .. }) if code == "org.freedesktop.systemd1.AlreadySubscribed" => {}
                Err(error) => return Err(error),
            }
            self.subscribed = true;
        }
        Ok(())
    }

    /// Drops the connection, so that the next call makes another.
    fn forget(&mut self) {
        self.connection = None;
        self.subscribed = false;
    }

    /// Calls a method of the manager; asks again, once, when the connection was lost on the way.
    async fn ask<B>(
        &mut self,
        doing: &'static str,
        method: &str,
        body: &B,
        deadline: Duration,
    ) -> Result<Message, Error>
    where
        B: Serialize + DynamicType,
    {
        match self.ask_once(doing, method, body, deadline).await {
            Err(Error::Unreachable { .. }) => {
                self.forget();
                tokio::time::sleep(AGAIN).await;
                self.ask_once(doing, method, body, deadline).await
            }
            answer => answer,
        }
    }

    async fn ask_once<B>(
        &mut self,
        doing: &'static str,
        method: &str,
        body: &B,
        deadline: Duration,
    ) -> Result<Message, Error>
    where
        B: Serialize + DynamicType,
    {
        let connection = self.connection(doing).await?;
        match tokio::time::timeout(deadline, manager(&connection, method, body)).await {
            Ok(answer) => answer.map_err(|error| classify(doing, error)),
            Err(_) => Err(Error::TimedOut { doing, after: deadline }),
        }
    }

    /// Reads one property of many units, pipelined. A unit without that property is left out of the answer.
    async fn properties<T>(
        &mut self,
        doing: &'static str,
        interface: &'static str,
        property: &'static str,
        names: &[UnitName],
    ) -> Result<BTreeMap<UnitName, T>, Error>
    where
        T: for<'v> TryFrom<Variant<'v>, Error = zbus::Error> + Send + 'static,
    {
        let read = move |connection: Connection, name: UnitName| {
            async move {
                let (path, wanted) = (unit_path(&name), (interface, property));
                let call = connection.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &wanted);
                let value = call.await.and_then(|answer| answer.body().deserialize::<Variant<'_>>()?.downcast::<T>());
                (name, value)
            }
            .boxed()
        };
        self.each(doing, names, &read).await
    }

    /// Asks the same of many units, pipelined, and again once when the connection was lost on the way. A unit to which
    /// systemd says no is left out of the answer.
    async fn each<T>(
        &mut self,
        doing: &'static str,
        names: &[UnitName],
        ask: &Asking<'_, T>,
    ) -> Result<BTreeMap<UnitName, T>, Error> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        match self.each_once(doing, names, ask).await {
            Err(Error::Unreachable { .. }) => {
                self.forget();
                tokio::time::sleep(AGAIN).await;
                self.each_once(doing, names, ask).await
            }
            answer => answer,
        }
    }

    async fn each_once<T>(
        &mut self,
        doing: &'static str,
        names: &[UnitName],
        ask: &Asking<'_, T>,
    ) -> Result<BTreeMap<UnitName, T>, Error> {
        let connection = self.connection(doing).await?;
        let (mut names, mut found, mut calls) = (names.iter(), BTreeMap::new(), FuturesUnordered::new());
        loop {
            while calls.len() < WINDOW
                && let Some(name) = names.next()
            {
                calls.push(ask(connection.clone(), name.clone()));
            }
            let answer = tokio::time::timeout(CALL, calls.next()).await;
            let Some((name, answer)) = answer.map_err(|_| Error::TimedOut { doing, after: CALL })? else { break };
            match answer.map_err(|error| classify(doing, error)) {
                Ok(value) => {
                    found.insert(name, value);
                }
                Err(Error::Refused { code, words, .. }) => tracing::debug!(%name, code, words, "left out: {doing}"),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Asks something of one unit; the name comes back with the answer.
type Asking<'a, T> = dyn Fn(Connection, UnitName) -> BoxFuture<'static, (UnitName, zbus::Result<T>)> + Send + Sync + 'a;

/// Calls a method of the manager.
async fn manager<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<Message>
where
    B: Serialize + DynamicType,
{
    connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), method, body).await
}

/// Returns the object path of a unit: `bus_label_escape()` of systemd, which escapes all but letters and inner digits.
fn unit_path(name: &UnitName) -> String {
    use std::fmt::Write;
    let mut path = format!("{UNITS}/");
    for (position, byte) in name.as_str().bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && position > 0) {
            path.push(char::from(byte));
        } else {
            write!(path, "_{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_escape_like_systemd() {
        for (name, path) in [
            ("web.service", "web_2eservice"),
            ("0web-1@a.service", "_30web_2d1_40a_2eservice"),
            ("a\\x2db.mount", "a_5cx2db_2emount"),
        ] {
            let name = UnitName::parse(name).expect("a unit name");
            assert_eq!(unit_path(&name), format!("/org/freedesktop/systemd1/unit/{path}"));
        }
    }

    #[test]
    fn a_pass_may_run_on_any_task() {
        fn is_send<T: Send>(_: T) {}
        let mut systemd = Systemd::new();
        is_send(systemd.run(Vec::new(), CALL, &mut |_, _| {}));
        is_send(systemd.settle(&[], CALL));
        is_send(systemd.enable(&[]));
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        let away = classify("list units", zbus::Error::FDO(Box::new(fdo::Error::NoReply("gone".to_owned()))));
        assert!(away.is_unreachable());
        let no =
            classify("list units", zbus::Error::FDO(Box::new(fdo::Error::AccessDenied("not\u{1b}you".to_owned()))));
        assert_eq!(no.to_string(), "failed to list units: not\\u{1b}you");
        assert!(!no.is_unreachable());
    }
}
