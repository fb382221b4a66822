//! The agent's own configuration: `/etc/mainstay/agent.yaml` and the files in `/etc/mainstay/agent.d`. Where the repository is, who
//! this host is, how patient to be.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::id::{CommitId, HostName};
use spec::manifest;
use spec::settings as keys;
use spec::tree::Tree;

use crate::backups;
use crate::draw;

/// Where the settings are unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/mainstay/agent.yaml";
/// The most files that are read beside it.
const MOST_FILES: usize = 100;
/// The most that is read of one.
const MOST_BYTES: u64 = 1 << 20;

/// Everything that can be set; `spec::settings::KEYS` says what each is for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The repository's URL.
    pub repository: Option<String>,
    /// The branch that is followed.
    pub branch: String,
    /// Who this host is in `fleet.yaml`; see [`Settings::host`].
    pub host: Option<HostName>,
    /// The folder of the mirror and the ledger.
    pub state: PathBuf,
    /// How often the repository is asked, give or take a tenth.
    pub poll: Duration,
    /// How often a settled host is looked at for drift.
    pub observe: Duration,
    /// How long a started service or container must stay up before its start counts.
    pub settle: Duration,
    /// How long one start, stop or reload may take.
    pub job: Duration,
    /// How long one image or artifact may take to come.
    pub pull: Duration,
    /// The container engine's socket.
    pub engine: Option<PathBuf>,
    /// A file with the credentials for registries.
    pub registries: Option<PathBuf>,
    /// Allows `file://` repositories.
    pub allow_file: bool,
    /// How git is reached.
    pub git: Git,
    /// Whom to believe, before the repository itself says so.
    pub trust: Trust,
    /// The file of the key that this host signs what it says with.
    pub identity: Option<PathBuf>,
    /// How the host reports.
    pub report: Report,
    /// How much is kept of what others wrote where the agent writes.
    pub backups: Backups,
    /// Where the agent answers questions.
    pub endpoint: Endpoint,
    /// Who is told when a person is needed.
    pub alerts: Alerts,
}

/// How much is kept of what others wrote where the agent writes.
#[derive(Clone, Debug)]
pub struct Backups {
    /// At most so many.
    pub count: usize,
    /// At most so many bytes altogether.
    pub bytes: u64,
    /// For at most so long.
    pub age: Duration,
}

/// How git is reached.
#[derive(Clone, Debug)]
pub struct Git {
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a transfer may stand still.
    pub stall: Duration,
    /// How long one fetch or push may take altogether.
    pub total: Duration,
    /// The largest repository, in bytes as they come.
    pub max_size: u64,
    /// The private key for ssh.
    pub key: Option<PathBuf>,
    /// The known hosts for ssh.
    pub known_hosts: Option<PathBuf>,
    /// The certificate authorities to trust for https in place of the system's.
    pub ca: Option<PathBuf>,
    /// A file that holds a token for https.
    pub token: Option<PathBuf>,
    /// A program that knows it, and its arguments.
    pub helper: Option<String>,
}

/// Whom to believe, before anything was believed and where the repository says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// A file with those who sign.
    pub signers: Option<PathBuf>,
    /// Nothing that does not go on from this is believed.
    pub since: Option<CommitId>,
    /// Where it stands which commit was believed last.
    pub floor: PathBuf,
}

/// How the host reports.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether records are pushed at all; they are always kept in the mirror.
    pub push: bool,
    /// Another remote for records than the one commits come from.
    pub repository: Option<String>,
    /// How often the heartbeat is pushed.
    pub heartbeat: Duration,
}

/// Where the agent answers questions: what it knows, whether it is well, and that the repository is to be asked now.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Where it answers over TCP as well.
    pub listen: Vec<SocketAddr>,
    /// Names by which it is reached over TCP beside those that follow from the others.
    pub names: Vec<String>,
    /// A file with the certificate that it shows over TCP.
    pub cert: Option<PathBuf>,
    /// A file with the key of the certificate.
    pub key: Option<PathBuf>,
    /// A file that holds what a client has to send over TCP.
    pub token: Option<PathBuf>,
    /// A file that holds the secret of webhooks.
    pub hooks: Option<PathBuf>,
}

/// Who is told when a person is needed.
#[derive(Clone, Debug, Default)]
pub struct Alerts {
    /// The events that are told.
    pub on: Vec<String>,
    /// The address that gets each as JSON.
    pub webhook: Option<String>,
    /// A file with the secret that signs it.
    pub webhook_secret: Option<PathBuf>,
    /// A file with the address of an incoming webhook of Slack.
    pub slack: Option<PathBuf>,
    /// The address of an Alertmanager.
    pub alertmanager: Option<String>,
    /// A file with a token for it.
    pub alertmanager_token: Option<PathBuf>,
    /// The address of a topic of ntfy.
    pub ntfy: Option<String>,
    /// A file with a token for it.
    pub ntfy_token: Option<PathBuf>,
}

impl Alerts {
    fn of(said: &keys::Settings) -> Alerts {
        let path = |key| said.text(key).map(PathBuf::from);
        let text = |key| said.text(key).map(str::to_owned);
        let on = said.texts("alerts.on");
        Alerts {
            on: if on.is_empty() { keys::EVENTS.map(str::to_owned).to_vec() } else { on.to_vec() },
            webhook: text("alerts.webhook"),
            webhook_secret: path("alerts.webhook-secret"),
            slack: path("alerts.slack"),
            alertmanager: text("alerts.alertmanager"),
            alertmanager_token: path("alerts.alertmanager-token"),
            ntfy: text("alerts.ntfy"),
            ntfy_token: path("alerts.ntfy-token"),
        }
    }
}

impl From<&keys::Settings> for Settings {
    fn from(said: &keys::Settings) -> Settings {
        let path = |key| said.text(key).map(PathBuf::from);
        let text = |key| said.text(key).map(str::to_owned);
        Settings {
            repository: text("repository"),
            branch: text("branch").unwrap_or_default(),
            host: said.text("host").and_then(|name| HostName::parse(name).ok()),
            state: path("state").unwrap_or_default(),
            poll: said.duration("poll"),
            observe: said.duration("observe"),
            settle: said.duration("settle"),
            job: said.duration("job"),
            pull: said.duration("pull"),
            engine: path("engine"),
            registries: path("registries"),
            allow_file: said.is_on("allow-file"),
            git: Git {
                connect: said.duration("git.connect"),
                stall: said.duration("git.stall"),
                total: said.duration("git.total"),
                max_size: said.number("git.max-size"),
                key: path("git.key"),
                known_hosts: path("git.known-hosts"),
                ca: path("git.ca"),
                token: path("git.token"),
                helper: text("git.helper"),
            },
            trust: Trust {
                signers: path("trust.signers"),
                since: said.text("trust.since").and_then(|commit| CommitId::parse(commit).ok()),
                floor: path("trust.floor").unwrap_or_default(),
            },
            identity: path("identity"),
            report: Report {
                push: said.is_on("report.push"),
                repository: text("report.repository"),
                heartbeat: said.duration("report.heartbeat"),
            },
            backups: Backups {
                count: usize::try_from(said.number("backups.count")).unwrap_or(usize::MAX),
                bytes: said.number("backups.bytes"),
                age: said.duration("backups.age"),
            },
            endpoint: Endpoint {
                socket: path("endpoint.socket").unwrap_or_default(),
                listen: said.texts("endpoint.listen").iter().filter_map(|it| it.parse().ok()).collect(),
                names: said.texts("endpoint.names").to_vec(),
                cert: path("endpoint.cert"),
                key: path("endpoint.key"),
                token: path("endpoint.token"),
                hooks: path("endpoint.hooks"),
            },
            alerts: Alerts::of(said),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::from(&keys::Settings::default())
    }
}

impl Backups {
    /// Returns them as the store takes them.
    pub fn bounds(&self) -> backups::Bounds {
        backups::Bounds { count: self.count, bytes: self.bytes, age: self.age }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("failed to read the settings {path}{}", hint(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// They do not say what they should.
    #[error("the settings are off; nothing was done\n\n{0}")]
    Mistakes(String),
    /// The host name is not one that `fleet.yaml` could hold.
    #[error(
        "this machine's host name cannot be a host's name in fleet.yaml: {0}; set `host:` in the settings or say --host"
    )]
    Host(String),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => ": write one that holds at least `repository: URL`",
        io::ErrorKind::PermissionDenied => ": run it as root",
        _ => "",
    }
}

/// Reads what the files say, each value with where it stands: the one at `path`, or [`DEFAULT_PATH`], where none need be, and those
/// in the folder of the same name that ends in `.d`, in the order of their names.
///
/// # Errors
/// A file cannot be read, or says something that is not a setting.
pub fn read(path: Option<&Path>, colour: bool) -> Result<keys::Settings, SettingsError> {
    let first = path.unwrap_or(Path::new(DEFAULT_PATH));
    let mut files = Vec::new();
    match text_of(first) {
        Ok(text) => files.push((first.display().to_string(), text)),
        Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(SettingsError::Read { path: first.to_owned(), source }),
    }
    let folder = first.with_extension("d");
    for more in beside(&folder).map_err(|source| SettingsError::Read { path: folder.clone(), source })? {
        let text = text_of(&more).map_err(|source| SettingsError::Read { path: more.clone(), source })?;
        files.push((more.display().to_string(), text));
    }
    manifest::settings(files.iter().map(|(path, text)| (path.as_str(), text.as_str()))).map_err(|mistakes| {
        let mut tree = Tree::default();
        for (path, text) in &files {
            tree.insert(path, text.as_bytes());
        }
        SettingsError::Mistakes(draw::render(&mistakes, &tree, colour))
    })
}

fn text_of(path: &Path) -> io::Result<String> {
    let seen = fs::metadata(path)?;
    if !seen.is_file() || seen.len() > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of at most 1 MiB"));
    }
    fs::read_to_string(path)
}

/// Lists the files that say more, the one that counts most last. What an editor or a package manager leaves behind is none.
fn beside(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml"));
    files.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    if files.len() > MOST_FILES {
        let why = format!("it holds {} files of settings, and at most {MOST_FILES} are read", files.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    files.sort();
    Ok(files)
}

impl Settings {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_bring_the_documented_example() {
        expect_test::expect_file!["../../packaging/agent.yaml"].assert_eq(&keys::example());
    }

    #[test]
    fn files_beside_count_more_and_mistakes_are_drawn() {
        let scratch = tempfile::tempdir().expect("a folder");
        let (path, folder) = (scratch.path().join("agent.yaml"), scratch.path().join("agent.d"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(&path, "repository: https://git.example/fleet.git\npoll: 30s\n").expect("a file");
        for (name, text) in [("20.yaml", "poll: 7s\n"), ("10.yaml", "poll: 8s\n"), ("30.yaml~", "poll: off\n")] {
            fs::write(folder.join(name), text).expect("a file");
        }
        let settings = Settings::from(&read(Some(&path), false).expect("settings"));
        assert_eq!((settings.poll.as_secs(), settings.branch.as_str()), (7, "main"));

        fs::write(folder.join("30.yaml"), "pol: 1s\n").expect("a file");
        let Err(SettingsError::Mistakes(text)) = read(Some(&path), false) else { panic!("a mistake is refused") };
        for part in ["unknown-key", "30.yaml:1:1", "1 | pol: 1s", "did you mean `poll`"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(matches!(read(Some(&scratch.path().join("none.yaml")), false), Err(SettingsError::Read { .. })));
    }
}
