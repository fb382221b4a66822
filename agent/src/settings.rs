//! The agent's own configuration: `/etc/mainstay/agent.yaml`. Where the repository is, who this host is, how patient to be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use spec::id::HostName;

use crate::backups;

/// Where the settings are unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/mainstay/agent.yaml";
/// Where the agent keeps its mirror and ledger.
pub const DEFAULT_STATE: &str = "/var/lib/mainstay";

/// Everything that can be set, with its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The repository's URL: https://, ssh:// or user@host:path, git://, http://, and file:// where allowed.
    pub repository: Option<String>,
    /// The branch that is followed.
    pub branch: String,
    /// Who this host is in `fleet.yaml`; the machine's host name up to its first dot when not set.
    pub host: Option<HostName>,
    /// The folder of the mirror and the ledger.
    pub state: PathBuf,
    /// How often the repository is asked, give or take a tenth.
    #[serde(deserialize_with = "duration")]
    pub poll: Duration,
    /// How often the host is looked at for drift that nobody spoke of; every ten seconds while it is not as wanted.
    #[serde(deserialize_with = "duration")]
    pub observe: Duration,
    /// How long a started service or container must stay up before its start counts.
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// How long one start, stop or reload may take.
    #[serde(deserialize_with = "duration")]
    pub job: Duration,
    /// How long one image or artifact may take to come.
    #[serde(deserialize_with = "duration")]
    pub pull: Duration,
    /// The container engine's socket; Docker's, else Podman's, when not set.
    pub engine: Option<PathBuf>,
    /// A file with the credentials for registries, as `docker login` writes it; root's own of either engine when not set.
    pub registries: Option<PathBuf>,
    /// Allows `file://` repositories: for trying out and for tests.
    pub allow_file: bool,
    /// How git is reached.
    pub git: Git,
    /// How the host reports.
    pub report: Report,
    /// How much is kept of what others wrote where the agent writes.
    pub backups: Backups,
}

/// How much is kept of what others wrote where the agent writes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Backups {
    /// At most so many.
    #[serde(deserialize_with = "count")]
    pub count: usize,
    /// At most so many bytes altogether; a larger file is not overwritten, since it could not be kept.
    #[serde(deserialize_with = "size")]
    pub bytes: u64,
    /// For at most so long.
    #[serde(deserialize_with = "age")]
    pub age: Duration,
}

/// How git is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Git {
    /// How long connecting may take.
    #[serde(deserialize_with = "duration")]
    pub connect: Duration,
    /// How long a transfer may stand still.
    #[serde(deserialize_with = "duration")]
    pub stall: Duration,
    /// How long one fetch or push may take altogether.
    #[serde(deserialize_with = "duration")]
    pub total: Duration,
    /// The private key for ssh; root's default keys when not set.
    pub key: Option<PathBuf>,
    /// The known hosts for ssh; root's when not set.
    pub known_hosts: Option<PathBuf>,
    /// A certificate authority to trust for https beside the system's.
    pub ca: Option<PathBuf>,
    /// A file that holds a token for https.
    pub token: Option<PathBuf>,
}

/// How the host reports.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Report {
    /// Whether records are pushed at all; they are always kept in the mirror.
    pub push: bool,
    /// Another remote for records than the one commits come from.
    pub repository: Option<String>,
    /// How often the heartbeat is pushed.
    #[serde(deserialize_with = "duration")]
    pub heartbeat: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            repository: None,
            branch: "main".to_owned(),
            host: None,
            state: PathBuf::from(DEFAULT_STATE),
            poll: Duration::from_secs(60),
            observe: Duration::from_secs(300),
            settle: Duration::from_secs(2),
            job: Duration::from_secs(90),
            pull: Duration::from_secs(600),
            engine: None,
            registries: None,
            allow_file: false,
            git: Git::default(),
            report: Report::default(),
            backups: Backups::default(),
        }
    }
}

impl Default for Backups {
    fn default() -> Backups {
        Backups { count: 1000, bytes: 256 << 20, age: Duration::from_secs(90 * 86_400) }
    }
}

impl Backups {
    /// Returns them as the store takes them.
    pub fn bounds(&self) -> backups::Bounds {
        backups::Bounds { count: self.count, bytes: self.bytes, age: self.age }
    }
}

impl Default for Git {
    fn default() -> Git {
        Git {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            total: Duration::from_secs(300),
            key: None,
            known_hosts: None,
            ca: None,
            token: None,
        }
    }
}

impl Default for Report {
    fn default() -> Report {
        Report { push: true, repository: None, heartbeat: Duration::from_secs(3600) }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("failed to read the settings {path}{}", hint(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("the settings {path} are off:\n{text}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        text: String,
    },
    /// The host name is not one that `fleet.yaml` could hold.
    #[error(
        "this machine's host name cannot be a host's name in fleet.yaml: {0}; set `host:` in the settings or say --host"
    )]
    Host(String),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => ": write one that holds at least `repository: URL`",
        _ => "",
    }
}

impl Settings {
    /// Reads the settings from `path`; defaults when `path` is `None` and there is no file at [`DEFAULT_PATH`].
    ///
    /// # Errors
    /// The file cannot be read, or says something that is not a setting.
    pub fn load(path: Option<&Path>) -> Result<Settings, SettingsError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(file) {
            Ok(text) => parse(&text).map_err(|text| SettingsError::Parse { path: file.to_owned(), text }),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(source) => Err(SettingsError::Read { path: file.to_owned(), source }),
        }
    }

    /// Returns who this host is.
    ///
    /// # Errors
    /// The machine's name is no name for a host and the settings give none.
    pub fn host(&self) -> Result<HostName, SettingsError> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let system = rustix::system::uname();
        let name = system.nodename().to_string_lossy();
        let label = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        HostName::parse(&label).map_err(SettingsError::Host)
    }
}

/// Parses settings; the error shows line, column and excerpt.
fn parse(text: &str) -> Result<Settings, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// Reads a duration with its unit, within bounds that keep a typing mistake from stopping the agent.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let parsed = humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("`{text}` is not a duration such as 30s, 5m or 1h: {error}")))?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);
    if !bounds.contains(&parsed) {
        return Err(D::Error::custom(format!("`{text}` is out of bounds: from 100ms to 7days")));
    }
    Ok(parsed)
}

/// Reads how long backups are kept: longer than the agent ever waits for anything.
fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let parsed = humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("`{text}` is not a duration such as 12h or 90days: {error}")))?;
    let bounds = Duration::from_secs(3600)..=Duration::from_secs(3650 * 86_400);
    if !bounds.contains(&parsed) {
        return Err(D::Error::custom(format!("`{text}` is out of bounds: from 1h to 3650days")));
    }
    Ok(parsed)
}

/// Reads how many backups are kept.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    use serde::de::Error as _;
    let count = usize::deserialize(deserializer)?;
    match count {
        1..=100_000 => Ok(count),
        _ => Err(D::Error::custom(format!("`{count}` is out of bounds: from 1 to 100000"))),
    }
}

/// Reads a size with its unit, of powers of 1024.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    use serde::de::Error as _;
    const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let text = String::deserialize(deserializer)?;
    let parsed = UNITS.iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << bits)
    });
    match parsed {
        Some(size @ 1024..) if size <= 1 << 40 => Ok(size),
        Some(_) => Err(D::Error::custom(format!("`{text}` is out of bounds: from 1KiB to 1024GiB"))),
        None => Err(D::Error::custom(format!("`{text}` is not a size such as 64MiB or 2GiB"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_documents() {
        let settings =
            parse("repository: ssh://git@forge/srv/fleet.git\npoll: 30s\nreport: { push: false }\n").expect("settings");
        assert_eq!(settings.repository.as_deref(), Some("ssh://git@forge/srv/fleet.git"));
        assert_eq!((settings.poll, settings.report.push), (Duration::from_secs(30), false));
        assert!(parse("# nothing\n").is_ok());
        let kept = parse("backups: { count: 7, bytes: 3 MiB, age: 30days }\n").expect("settings").backups;
        assert_eq!((kept.count, kept.bytes, kept.age.as_secs()), (7, 3 << 20, 30 * 86_400));
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, expected) in [
            ("repositry: x", "repositry"),
            ("poll: 30", "30"),
            ("poll: -1s", "-1s"),
            ("poll: 9223372036854775807s", "9223372036854775807s"),
            ("poll: 0s", "out of bounds"),
            ("backups: { count: 0 }", "out of bounds"),
            ("backups: { bytes: 12 }", "not a size"),
            ("backups: { bytes: 0KiB }", "out of bounds"),
            ("backups: { age: 1s }", "out of bounds"),
            ("host: Not_A_Host", "Not_A_Host"),
            ("branch: a\nbranch: b", "branch"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(expected), "{message}");
        }
    }
}
