//! Brings the agent onto a host and takes it off again. What runs on the host because of it is left alone by both: the agent
//! is what comes and goes.

pub mod server;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::id::{HostName, UnitName};

use crate::systemd::{self, JobError, Systemd, Verb};

/// The folder of everything that a host is told by hand.
pub const FOLDER: &str = "/etc/mainstay";
/// Who signs what is believed first, where `install` took it from the repository.
const SIGNERS: &str = "signers";
/// Which commit was believed last, unless the settings name another place.
const FLOOR: &str = "floor";
/// Where the service of a package is.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system/mainstay.service", "/lib/systemd/system/mainstay.service"];
/// Where ours are on a host without the package.
const UNITS: &str = "/etc/systemd/system";
/// Where the program is then, unless it stands at a lasting place already.
const PROGRAM: &str = "/usr/local/bin/mainstay";
/// The units as the packages bring them; the service is the last to come.
const BROUGHT: [(&str, &str); 4] = [
    ("mainstay.socket", include_str!("../../systemd/mainstay.socket")),
    ("mainstay-fetch.socket", include_str!("../../systemd/mainstay-fetch.socket")),
    ("mainstay-fetch.service", include_str!("../../systemd/mainstay-fetch.service")),
    ("mainstay.service", include_str!("../../systemd/mainstay.service")),
];
/// Where the fetcher is asked.
const FETCHER: &str = "mainstay-fetch.socket";
/// Who the fetcher is, as the packages say it (sysusers.d(5)).
const USERS: &str = include_str!("../../packaging/sysusers.conf");
/// Where the fetcher keeps its mirror.
const FETCHED: &str = "/var/lib/mainstay-fetch";
/// The first line of what was written here and goes again.
const MARK: &str = "# Written by `mainstay install`; `mainstay uninstall` removes it.\n";
/// The first line of the settings, which stay.
const HEAD: &str = "# Written by `mainstay install`; `mainstay settings --example` shows everything that can be set.\n";
/// How long the service may take to be ready or to end: longer than its own time limits.
const PATIENCE: Duration = Duration::from_secs(240);

/// Why the agent could not be brought or taken.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file could not be written, read or removed.
    #[error("failed to {doing} {}{}", path.display(), as_root(source))]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is in the way that somebody else wrote.
    #[error("{} was not written by `mainstay install`: move it away first", .0.display())]
    Foreign(PathBuf),
    /// A program that is needed did not do what it should.
    #[error("failed to {doing}: {why}")]
    Program {
        /// What it was needed for.
        doing: &'static str,
        /// What went wrong.
        why: String,
    },
    /// systemd did not do what it should.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// The service did not start or stop.
    #[error("the service did not {verb}: {why}; see `journalctl -u mainstay`")]
    Service {
        /// What it should have done.
        verb: Verb,
        /// Why it did not.
        why: JobError,
    },
}

fn as_root(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied { ": run this as root" } else { "" }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::File { doing, path: path.to_owned(), source }
}

/// What the settings say that `install` writes.
pub struct First<'s> {
    /// The repository.
    pub repository: &'s str,
    /// The branch, where it is another than the usual one.
    pub branch: Option<&'s str>,
    /// The host's name, where it is another than the machine's.
    pub host: Option<&'s HostName>,
    /// The private key for ssh.
    pub key: Option<&'s Path>,
    /// The servers' keys for ssh.
    pub known_hosts: Option<&'s Path>,
    /// Who signs what is believed first.
    pub signers: Option<&'s Path>,
}

impl First<'_> {
    fn text(&self) -> String {
        let quoted = |text: &OsStr| serde_json::Value::from(text.to_string_lossy()).to_string();
        let line = |key: &str, value: Option<&OsStr>| value.map(|value| format!("{key}: {}\n", quoted(value)));
        let host = self.host.map(|host| OsStr::new(host.as_str()));
        let key = line("  key", self.key.map(Path::as_os_str));
        let known_hosts = line("  known-hosts", self.known_hosts.map(Path::as_os_str));
        let git = (key.is_some() || known_hosts.is_some()).then(|| "git:\n".to_owned());
        let signers = line("  signers", self.signers.map(Path::as_os_str));
        let trust = signers.is_some().then(|| "trust:\n".to_owned());
        let lines = [
            Some(HEAD.to_owned()),
            line("repository", Some(self.repository.as_ref())),
            line("branch", self.branch.map(OsStr::new)),
            line("host", host),
            git,
            key,
            known_hosts,
            trust,
            signers,
        ];
        lines.into_iter().flatten().collect()
    }
}

/// Writes the first settings. A file that is there is never replaced.
///
/// # Errors
/// There is one, or it cannot be written.
pub fn write_settings(path: &Path, first: &First<'_>) -> Result<(), InstallError> {
    make_folder(path.parent().unwrap_or(Path::new(FOLDER)), 0o755)?;
    write_new(path, first.text().as_bytes(), 0o644)
}

/// Writes down whom to believe at first, beside the settings at `path`: a file with those who sign, and one of the folder beside the
/// settings that names it.
///
/// # Errors
/// One cannot be written, or is somebody else's.
pub fn write_signers(path: &Path, signers: &str) -> Result<PathBuf, InstallError> {
    let (file, folder) = (path.with_file_name(SIGNERS), path.with_extension("d"));
    let named = folder.join("trust.yaml");
    if fs::read_to_string(&named).is_ok_and(|text| !text.starts_with(HEAD)) {
        return Err(InstallError::Foreign(named));
    }
    make_folder(&folder, 0o755)?;
    let text = format!("{HEAD}trust:\n  signers: {}\n", serde_json::Value::from(file.to_string_lossy()));
    // The file first: what names it must not name nothing.
    for (path, text) in [(&file, signers), (&named, text.as_str())] {
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed("write", path))?;
    }
    Ok(file)
}

/// Makes a folder, and those above it, unless it is there.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), InstallError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("create", path))
}

/// Writes a file that was not there, durably.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
    let file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path);
    let mut file = file.map_err(failed("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Says whether a package brings the service.
pub fn is_packaged() -> bool {
    PACKAGED.iter().any(|path| Path::new(path).exists())
}

/// Brings the service, and the program to where it lasts, where no package does. Returns what was written.
///
/// # Errors
/// Somebody else's service is in the way, or a file cannot be written.
pub fn bring() -> Result<Vec<PathBuf>, InstallError> {
    if is_packaged() {
        return Ok(Vec::new());
    }
    for (name, _) in BROUGHT {
        let unit = Path::new(UNITS).join(name);
        if unit.exists() && !is_ours(&unit) {
            return Err(InstallError::Foreign(unit));
        }
    }
    let running = std::env::current_exe().map_err(failed("find", Path::new("this program")))?;
    let mut written = Vec::new();
    let program = if lasts(&running) { running } else { copy_program(&running, &mut written)? };
    make_users()?;
    for (name, text) in BROUGHT {
        let unit = Path::new(UNITS).join(name);
        let text = format!("{MARK}{}", starting(text, &program));
        if fs::read_to_string(&unit).ok().as_deref() != Some(&text) {
            replace(&unit, text.as_bytes(), 0o644)?;
            written.push(unit);
        }
    }
    Ok(written)
}

/// Returns a unit that starts this program.
fn starting(text: &str, program: &Path) -> String {
    let program = program.display().to_string();
    // The fetcher sees what is in /usr, and nothing else but what its unit names.
    let seen = if program.starts_with("/usr/") { String::new() } else { format!("\nBindReadOnlyPaths={program}") };
    text.replace("ExecStart=/usr/bin/mainstay run\n", &format!("ExecStart={program} run\n"))
        .replace("ExecStart=/usr/bin/mainstay fetcher\n", &format!("ExecStart={program} fetcher{seen}\n"))
}

/// Makes the users and groups that the packages make.
fn make_users() -> Result<(), InstallError> {
    let doing = "make the user of the fetcher with `systemd-sysusers`";
    let lines = USERS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let output = std::process::Command::new("systemd-sysusers").arg("--inline").args(lines).output();
    let output = output.map_err(|error| InstallError::Program { doing, why: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(InstallError::Program { doing, why: spec::id::shown(&why) })
}

/// Says whether a program at this place is there tomorrow.
fn lasts(program: &Path) -> bool {
    ["/usr", "/opt"].iter().any(|folder| program.starts_with(folder))
}

fn copy_program(from: &Path, written: &mut Vec<PathBuf>) -> Result<PathBuf, InstallError> {
    let to = PathBuf::from(PROGRAM);
    let bytes = fs::read(from).map_err(failed("read", from))?;
    if fs::read(&to).ok().as_deref() != Some(&bytes) {
        replace(&to, &bytes, 0o755)?;
        written.push(to.clone());
    }
    Ok(to)
}

/// Writes a file whole, in place of what is there: a program that runs cannot be written over.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new)(error)),
        _ => {}
    }
    write_new(&new, bytes, mode)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

fn unit() -> UnitName {
    UnitName::parse("mainstay.service").expect("it is a unit's name")
}

/// Enables the service and starts it; again, when it runs already, so that it goes by the settings as they are.
///
/// # Errors
/// systemd cannot be asked, or the service does not come up.
pub async fn start() -> Result<(), InstallError> {
    let mut systemd = Systemd::new();
    systemd.reload().await?;
    if let Some((_, error)) = systemd.enable(&[unit()]).await?.into_iter().next() {
        return Err(error.into());
    }
    systemd.reload().await?;
    job(&mut systemd, unit(), Verb::Restart).await
}

async fn job(systemd: &mut Systemd, unit: UnitName, verb: Verb) -> Result<(), InstallError> {
    let done = systemd.run(vec![(unit, verb)], PATIENCE, &mut |_, _| {}).await;
    match done.into_values().next() {
        Some(Err(why)) => Err(InstallError::Service { verb, why }),
        _ => Ok(()),
    }
}

/// Stops the service for good and removes what [`bring`] brought. Returns what was removed.
///
/// # Errors
/// systemd cannot be asked, the service does not stop, or a file cannot be removed.
pub async fn take_off() -> Result<Vec<PathBuf>, InstallError> {
    let mut systemd = Systemd::new();
    if is_loaded(&mut systemd, &unit()).await? {
        if let Some((_, error)) = systemd.disable(&[unit()]).await?.into_iter().next() {
            return Err(error.into());
        }
        job(&mut systemd, unit(), Verb::Stop).await?;
    }
    let fetcher = UnitName::parse(FETCHER).expect("it is a unit's name");
    if is_loaded(&mut systemd, &fetcher).await? {
        job(&mut systemd, fetcher, Verb::Stop).await?;
    }
    let mut removed = Vec::new();
    for (name, _) in BROUGHT {
        let unit = Path::new(UNITS).join(name);
        if !is_ours(&unit) {
            continue;
        }
        let starts_copy =
            fs::read_to_string(&unit).is_ok_and(|text| text.contains(&format!("ExecStart={PROGRAM} run")));
        remove(&unit, &mut removed)?;
        if starts_copy {
            remove(Path::new(PROGRAM), &mut removed)?;
        }
    }
    systemd.reload().await?;
    Ok(removed)
}

async fn is_loaded(systemd: &mut Systemd, unit: &UnitName) -> Result<bool, InstallError> {
    let known = systemd.units(std::slice::from_ref(unit)).await?;
    Ok(known.values().any(|state| state.load == spec::observed::LoadState::Loaded))
}

/// Removes what the agent remembers and is told: its state, its settings, the key that `install` made. Returns what was removed.
///
/// # Errors
/// The state folder is none, or something cannot be removed.
pub fn purge(state: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let mut removed = Vec::new();
    // Whatever the settings say: a folder that no agent has worked in is not removed.
    if state.join("lock").exists() && (state.join("ledger.json").exists() || state.join("mirror.git").exists()) {
        fs::remove_dir_all(state).map_err(failed("remove", state))?;
        removed.push(state.to_owned());
    }
    let fetched = Path::new(FETCHED);
    if fetched.join("mirror.git").exists() {
        fs::remove_dir_all(fetched).map_err(failed("remove", fetched))?;
        removed.push(fetched.to_owned());
    }
    let folder = Path::new(FOLDER);
    let ours = folder.join("agent.d/trust.yaml");
    if fs::read_to_string(&ours).is_ok_and(|text| text.starts_with(HEAD)) {
        remove(&folder.join(SIGNERS), &mut removed)?;
        remove(&ours, &mut removed)?;
    }
    for name in ["agent.yaml", FLOOR, server::KEY, server::PUBLIC, server::KNOWN] {
        remove(&folder.join(name), &mut removed)?;
    }
    for name in server::IDENTITY {
        remove(&folder.join(name), &mut removed)?;
    }
    for folder in [folder.join("agent.d").as_path(), folder] {
        // What somebody else put there stays, and the folder with it.
        if fs::remove_dir(folder).is_ok() {
            removed.push(folder.to_owned());
        }
    }
    Ok(removed)
}

fn remove(path: &Path, removed: &mut Vec<PathBuf>) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Ok(()) => removed.push(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("remove", path)(error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spec::manifest;

    use super::*;

    #[test]
    fn first_settings_are_read_back_and_never_written_over_others() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("etc/agent.yaml");
        let host = HostName::parse("attic").expect("a name");
        let first = First {
            repository: "git@forge:fl\"eet.git",
            branch: Some("release: 1"),
            host: Some(&host),
            key: Some(Path::new("/etc/mainstay/id_ed25519")),
            known_hosts: None,
            signers: None,
        };
        write_settings(&path, &first).expect("written");
        let text = fs::read_to_string(&path).expect("a file");
        let said = manifest::settings([("agent.yaml", text.as_str())]).expect("settings");
        let of = |key| said.text(key).unwrap_or_default();
        assert_eq!((of("repository"), of("branch"), of("host")), ("git@forge:fl\"eet.git", "release: 1", "attic"));
        assert_eq!(of("git.key"), "/etc/mainstay/id_ed25519");
        assert!(matches!(write_settings(&path, &first), Err(InstallError::File { doing: "create", .. })));
    }

    #[test]
    fn only_a_folder_that_an_agent_worked_in_is_purged() {
        let scratch = tempfile::tempdir().expect("a folder");
        fs::write(scratch.path().join("letter"), "dear").expect("a file");
        purge(scratch.path()).expect("nothing to do");
        assert!(scratch.path().join("letter").exists());
    }

    #[test]
    fn the_units_start_the_program_that_is_there() {
        let [.., fetcher, agent] = BROUGHT.map(|(_, text)| text);
        let of = |text: &str, program: &str| {
            let text = starting(text, Path::new(program));
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(program)).collect();
            lines.join("; ")
        };
        assert_eq!(of(agent, "/usr/bin/mainstay"), "ExecStart=/usr/bin/mainstay run");
        assert_eq!(of(agent, "/usr/local/bin/mainstay"), "ExecStart=/usr/local/bin/mainstay run");
        assert_eq!(of(fetcher, "/usr/local/bin/mainstay"), "ExecStart=/usr/local/bin/mainstay fetcher");
        let seen = "ExecStart=/opt/mainstay fetcher; BindReadOnlyPaths=/opt/mainstay";
        assert_eq!(of(fetcher, "/opt/mainstay"), seen, "it sees nothing of /opt otherwise");
    }
}
