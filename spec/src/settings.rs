//! The agent's own configuration, as far as it can be said without a host: which keys there are, what each holds unless a file says
//! otherwise, and what several files say together.
//!
//! The table of keys is the one source: files are read by it, and the documented example and `mainstay settings` are written from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::diagnostic::Location;
use crate::length;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it stands, such as `git.connect`.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its value unless a file gives one, as a file would write it; empty for none.
    pub default: &'static str,
    /// What it is for, in one sentence without full stop.
    pub about: &'static str,
}

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A host's name in fleet.yaml.
    Host,
    /// A commit, by its whole name.
    Commit,
    /// An absolute path on this host.
    Path,
    /// A program by its absolute path, and what it is started with, between spaces.
    Program,
    /// A length of time between these.
    Duration(Duration, Duration),
    /// A number between these.
    Count(u64, u64),
    /// A number of bytes between these.
    Size(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// A list of addresses with ports, such as `127.0.0.1:9105`.
    Addresses,
    /// A list of names of this host, without ports.
    Names,
    /// An address of http or https.
    Url,
    /// A list of events that somebody may want to hear of: [`EVENTS`].
    Events,
}

/// What a setting holds, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text, a name, or a path.
    Text(String),
    /// A length of time.
    Duration(Duration),
    /// A number, or a number of bytes.
    Number(u64),
    /// A switch.
    Boolean(bool),
    /// A list.
    Texts(Vec<String>),
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file says anything else.
    Default,
    /// A file does.
    File(Location),
    /// The command line does.
    CommandLine,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Any wait: long enough to be one, and short enough that a typing mistake does not stop the agent.
const WAIT: Kind = Kind::Duration(Duration::from_millis(100), Duration::from_secs(7 * 86_400));

/// What alerts are about.
pub const EVENTS: [&str; 8] =
    ["failed", "rolled-back", "unhealthy", "drifted", "conflict", "refused", "stale", "recovered"];

/// What concerns a fleet as a whole, of which fleet.yaml says who is told.
pub const FLEET_EVENTS: [&str; 2] = ["halted", "silent"];

/// Every setting, in the order in which people read about them.
pub const KEYS: &[Key] = &[
    key("repository", Kind::Text, "", "The repository to follow: ssh://, user@host:path, https://, git:// or http://"),
    key("branch", Kind::Text, "main", "The branch to follow"),
    key("host", Kind::Host, "", "Who this host is in fleet.yaml; the machine's name up to its first dot when not set"),
    key("state", Kind::Path, "/var/lib/mainstay", "Where the mirror and the ledger are"),
    key("poll", WAIT, "1m", "How often the repository is asked, give or take a tenth; rarer while it does not answer"),
    key(
        "observe",
        WAIT,
        "5m",
        "How often a settled host is looked at for drift that nobody spoke of; an unsettled one every 10s",
    ),
    key("settle", WAIT, "2s", "How long a started service or container must stay up before its start counts"),
    key("job", WAIT, "90s", "The longest wait for one start, stop or reload"),
    key("pull", WAIT, "10m", "The longest wait for one image or artifact"),
    key("engine", Kind::Path, "", "The container engine's socket; Docker's, else Podman's, when not set"),
    key(
        "registries",
        Kind::Path,
        "",
        "Credentials for registries as `docker login` writes them; root's own when not set",
    ),
    key("allow-file", Kind::Boolean, "false", "Allows file:// repositories, for trying out"),
    key(
        "identity",
        Kind::Path,
        "",
        "The key that this host signs with; /etc/mainstay/identity or its ed25519 host key for ssh when not set",
    ),
    key("git.connect", WAIT, "10s", "The longest wait for a connection"),
    key("git.stall", WAIT, "20s", "The longest time in which nothing comes"),
    key("git.total", WAIT, "5m", "The longest fetch or push"),
    key(
        "git.max-size",
        Kind::Size(1 << 20, 1 << 40),
        "512MiB",
        "The largest repository; a sixteenth of it is the most that comes at once where it is here already",
    ),
    key("git.key", Kind::Path, "", "The private key for ssh; root's own when not set"),
    key("git.known-hosts", Kind::Path, "", "The servers' keys for ssh; root's own known_hosts when not set"),
    key("git.ca", Kind::Path, "", "The certificate authorities to trust for https in place of the system's"),
    key(
        "git.token",
        Kind::Path,
        "",
        "A file that holds a token for https; the service's credential `git-token` of systemd when not set",
    ),
    key(
        "git.helper",
        Kind::Program,
        "",
        "A program that knows the token for https, with its arguments, as gitcredentials(7) has them",
    ),
    key(
        "trust.signers",
        Kind::Path,
        "",
        "Who signs what is believed first, as a file in the form of git's allowedSignersFile",
    ),
    key("trust.since", Kind::Commit, "", "A commit by its whole name: nothing is believed that does not go on from it"),
    key(
        "trust.floor",
        Kind::Path,
        "/etc/mainstay/floor",
        "Which commit was believed last: kept here as well, so that the loss of `state` takes the host to no older one",
    ),
    key("report.push", Kind::Boolean, "true", "Whether records are pushed; they are kept in the mirror in any case"),
    key("report.repository", Kind::Text, "", "Another repository for records than the one that is followed"),
    key("report.heartbeat", WAIT, "1h", "How often the host says that it is there"),
    key(
        "backups.count",
        Kind::Count(1, 100_000),
        "1000",
        "How many backups are kept of what others wrote; the oldest go first",
    ),
    key(
        "backups.bytes",
        Kind::Size(1024, 1 << 40),
        "256MiB",
        "How many bytes they have; a larger file is not overwritten",
    ),
    key("backups.age", Kind::Duration(HOUR, Duration::from_secs(3650 * 86_400)), "90d", "How long they are kept"),
    key(
        "endpoint.socket",
        Kind::Path,
        "/run/mainstay/agent.sock",
        "The Unix socket on which the agent answers root and the group `mainstay`",
    ),
    key(
        "endpoint.listen",
        Kind::Addresses,
        "",
        "A list of addresses, as 127.0.0.1:9105, where it answers over TCP as well",
    ),
    key("endpoint.names", Kind::Names, "", "A list of names by which it is reached over TCP, beside the host's"),
    key("endpoint.cert", Kind::Path, "", "The certificate that it shows over TCP, as PEM; without it, it speaks http"),
    key("endpoint.key", Kind::Path, "", "The key of the certificate, as PEM"),
    key("endpoint.token", Kind::Path, "", "A file that holds what clients send over TCP as `Authorization: Bearer`"),
    key(
        "endpoint.hooks",
        Kind::Path,
        "",
        "A file that holds the secret of the webhooks by which forges tell of a push",
    ),
    key(
        "alerts.on",
        Kind::Events,
        "",
        "A list of events to tell of: failed, rolled-back, unhealthy, drifted, conflict, refused, stale, recovered; all when not set",
    ),
    key("alerts.webhook", Kind::Url, "", "An address that gets each alert as JSON"),
    key(
        "alerts.webhook-secret",
        Kind::Path,
        "",
        "A file that holds the secret that signs it, in X-Mainstay-Signature-256",
    ),
    key(
        "alerts.slack",
        Kind::Path,
        "",
        "A file that holds the address of an incoming webhook of Slack, or of what speaks its form",
    ),
    key("alerts.alertmanager", Kind::Url, "", "The address of an Alertmanager"),
    key("alerts.alertmanager-token", Kind::Path, "", "A file that holds a token for it"),
    key("alerts.ntfy", Kind::Url, "", "The address of a topic of ntfy"),
    key("alerts.ntfy-token", Kind::Path, "", "A file that holds a token for it"),
];

const fn key(path: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { path, kind, default, about }
}

impl Key {
    /// Returns the group that it stands in, empty at the top, and its name there.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').unwrap_or(("", self.path))
    }

    /// Writes a value as a file would.
    pub fn spell(&self, value: &Value) -> String {
        match (value, self.kind) {
            (Value::Text(text), _) => text.clone(),
            (Value::Boolean(switch), _) => switch.to_string(),
            (Value::Texts(texts), _) => format!("[{}]", texts.join(", ")),
            (Value::Duration(time), _) => length::text(*time),
            (Value::Number(bytes), Kind::Size(..)) => size_text(*bytes),
            (Value::Number(number), _) => number.to_string(),
        }
    }

    /// Says whether it holds several of what [`Key::read`] reads.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::Addresses | Kind::Names | Kind::Events)
    }

    /// Reads a value from its text; of a list, one of them.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn read(&self, text: &str) -> Result<Value, (String, String)> {
        let off = |wrong: String, help: &str| Err((wrong, help.to_owned()));
        let shown = crate::id::shown(text);
        match self.kind {
            Kind::Text if text.is_empty() => off("this is empty".to_owned(), "remove the key, or give it a value"),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Host => match crate::id::HostName::parse(text) {
                Ok(name) => Ok(Value::Text(name.as_str().to_owned())),
                Err(why) => off(format!("this is no host's name: {why}"), "write it as fleet.yaml does"),
            },
            Kind::Commit if crate::id::CommitId::parse(text).is_ok() => Ok(Value::Text(text.to_owned())),
            Kind::Commit => off(format!("`{shown}` is not the whole name of a commit"), "write all of its 40 digits"),
            Kind::Path if text.starts_with('/') && !text.contains('\0') => Ok(Value::Text(text.to_owned())),
            Kind::Path => off(format!("`{shown}` is no absolute path"), "write the path from `/` on"),
            Kind::Program if text.starts_with('/') && !text.contains(['\0', '\n']) => Ok(Value::Text(text.to_owned())),
            Kind::Program => off(
                format!("`{shown}` is no program by its absolute path"),
                "write it from `/` on, its arguments behind it: /usr/local/bin/git-credential-forge --fleet",
            ),
            Kind::Addresses if text.parse::<SocketAddr>().is_ok() => Ok(Value::Texts(vec![text.to_owned()])),
            Kind::Addresses => off(
                format!("`{shown}` is no address with a port"),
                "write it such as \"127.0.0.1:9105\" or \"[::1]:9105\"",
            ),
            Kind::Names if is_name(text) => Ok(Value::Texts(vec![text.to_owned()])),
            Kind::Names => off(
                format!("`{shown}` is no name of a host"),
                "write it without scheme and port, such as attic.example",
            ),
            Kind::Url if is_url(text) => Ok(Value::Text(text.to_owned())),
            Kind::Url => off(
                "this is no address of http or https, or holds a user or password".to_owned(),
                "write it such as https://alerts.example/hook",
            ),
            Kind::Events if EVENTS.contains(&text) => Ok(Value::Texts(vec![text.to_owned()])),
            Kind::Events if FLEET_EVENTS.contains(&text) => off(
                format!("`{shown}` is of the fleet, and one host tells it for all"),
                "name it in fleet.yaml: alerts: [ { webhook: \"https://alerts.example/hook\", on: [halted, silent] } ]",
            ),
            Kind::Events => off(format!("there is no event `{shown}`"), &format!("choose among {}", EVENTS.join(", "))),
            Kind::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => off(format!("this is `true` or `false`, not `{shown}`"), "write one of the two, without quotes"),
            },
            Kind::Duration(least, most) => match length::parse(text) {
                None => off(
                    format!("`{shown}` is no length of time with its unit"),
                    "write it such as 500ms, 30s, 5m, 12h or 90d",
                ),
                Some(time) if time < least || time > most => off(
                    between(&length::text(least), &length::text(most), &shown),
                    "choose a length of time between the two",
                ),
                Some(time) => Ok(Value::Duration(time)),
            },
            Kind::Count(least, most) => match text.parse::<u64>() {
                Ok(count) if (least..=most).contains(&count) => Ok(Value::Number(count)),
                Ok(_) => off(between(&least.to_string(), &most.to_string(), &shown), "choose a number between the two"),
                Err(_) => off(format!("`{shown}` is no whole number"), "write it in digits"),
            },
            Kind::Size(least, most) => match size(text) {
                None => off(format!("`{shown}` is no size with its unit"), "write it such as 512KiB, 64MiB or 2GiB"),
                Some(bytes) if bytes < least || bytes > most => {
                    off(between(&size_text(least), &size_text(most), &shown), "choose a size between the two")
                }
                Some(bytes) => Ok(Value::Number(bytes)),
            },
        }
    }
}

/// Says whether a text is an address of http or https, without user and password.
pub(crate) fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    crate::authority::is_authority(authority) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') && !part.starts_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

fn between(least: &str, most: &str, shown: &str) -> String {
    format!("this is between {least} and {most}, not `{shown}`")
}

const SIZES: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn size(text: &str) -> Option<u64> {
    SIZES.iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << bits)
    })
}

fn size_text(bytes: u64) -> String {
    let fits = |bits: u32| bytes >= 1 << bits && bytes.trailing_zeros() >= bits;
    match SIZES.iter().find(|(_, bits)| fits(*bits)) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits),
        None => format!("{bytes} bytes"),
    }
}

/// What all files say together, each value with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Default for Settings {
    fn default() -> Settings {
        let given = KEYS.iter().filter(|key| !key.default.is_empty());
        let values = given.filter_map(|key| Some((key.path, (key.read(key.default).ok()?, Origin::Default))));
        Settings { values: values.collect() }
    }
}

impl Settings {
    /// Gives a key another value; what is set last counts.
    pub fn set(&mut self, key: &Key, value: Value, origin: Origin) {
        self.values.insert(key.path, (value, origin));
    }

    /// Returns a value and where it came from; `None` where there is no default either.
    pub fn get(&self, path: &str) -> Option<(&Value, &Origin)> {
        self.values.get(path).map(|(value, origin)| (value, origin))
    }

    /// Returns a text.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.values.get(path) {
            Some((Value::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    /// Returns a list; an empty one for a key that is none.
    pub fn texts(&self, path: &str) -> &[String] {
        match self.values.get(path) {
            Some((Value::Texts(texts), _)) => texts,
            _ => &[],
        }
    }

    /// Returns a length of time; one second for a key that is none.
    pub fn duration(&self, path: &str) -> Duration {
        match self.values.get(path) {
            Some((Value::Duration(time), _)) => *time,
            _ => SECOND,
        }
    }

    /// Returns a number; 0 for a key that is none.
    pub fn number(&self, path: &str) -> u64 {
        match self.values.get(path) {
            Some((Value::Number(number), _)) => *number,
            _ => 0,
        }
    }

    /// Says whether a switch is on.
    pub fn is_on(&self, path: &str) -> bool {
        matches!(self.values.get(path), Some((Value::Boolean(true), _)))
    }
}

/// Writes a file that documents every key with its default, all of them commented out.
pub fn example() -> String {
    let mut text = String::from(
        "# /etc/mainstay/agent.yaml: all that a host is told by hand. Everything else comes from the repository that it follows.\n\
         # What stands in /etc/mainstay/agent.d/*.yaml counts more, the last file most; `mainstay settings` shows what comes of it.\n",
    );
    let mut group = "";
    for key in KEYS {
        let (within, name) = key.parts();
        if within != group {
            write_line(&mut text, format_args!("\n#{within}:"));
            group = within;
        } else if within.is_empty() {
            text.push('\n');
        }
        let indent = if within.is_empty() { "" } else { "  " };
        let default = if key.default.is_empty() { "…" } else { key.default };
        write_line(&mut text, format_args!("{indent}# {}.", key.about));
        write_line(&mut text, format_args!("#{indent}{name}: {default}"));
    }
    text
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a text can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_what_it_says() {
        let settings = Settings::default();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let (value, origin) = settings.get(key.path).unwrap_or_else(|| panic!("{} has no default", key.path));
            assert_eq!((key.spell(value).as_str(), origin), (key.default, &Origin::Default), "{}", key.path);
        }
        assert!(KEYS.windows(2).all(|two| two[0].parts().0 == two[1].parts().0 || !two[1].parts().0.is_empty()));
    }

    #[test]
    fn values_out_of_bounds_or_of_another_kind_are_refused() {
        let find = |path: &str| KEYS.iter().find(|key| key.path == path).expect("a key");
        for (path, text, wrong) in [
            ("poll", "30", "no length of time"),
            ("poll", "-1s", "no length of time"),
            ("poll", "9223372036854775807s", "no length of time"),
            ("poll", "0s", "between 100ms and 7d"),
            ("backups.count", "0", "between 1 and 100000"),
            ("backups.count", "many", "no whole number"),
            ("backups.bytes", "12", "no size"),
            ("backups.bytes", "0KiB", "between 1KiB and 1024GiB"),
            ("backups.age", "1s", "between 1h and 3650d"),
            ("host", "Not_A_Host", "no host's name"),
            ("state", "var/lib", "no absolute path"),
            ("report.push", "yes", "`true` or `false`"),
            ("endpoint.listen", "9105", "no address with a port"),
            ("endpoint.listen", "localhost:9105", "no address with a port"),
            ("endpoint.names", "https://attic", "no name of a host"),
            ("endpoint.names", "", "no name of a host"),
        ] {
            let (message, help) = find(path).read(text).expect_err(text);
            assert!(message.contains(wrong) && !help.is_empty(), "{path}: {text}: {message}");
        }
        assert_eq!(find("backups.bytes").read("3 MiB"), Ok(Value::Number(3 << 20)));
    }
}
