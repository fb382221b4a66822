//! What ssh needs before it reaches a git server: a key of our own, and the server's, which a person has to look at.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{FOLDER, InstallError, make_folder, write_new};
use crate::identity;

/// The private key that is made, in the folder of the settings.
pub(super) const KEY: &str = "id_ed25519";
/// Its public half.
pub(super) const PUBLIC: &str = "id_ed25519.pub";
/// The key that this host signs with, where it has none for ssh, and its public half.
pub(super) const IDENTITY: [&str; 2] = ["identity", "identity.pub"];
/// The servers' keys, in the same folder.
pub(super) const KNOWN: &str = "known_hosts";
/// Making a key, or asking a server for its own, takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// More keys than this of one server are none.
const MOST: usize = 64 << 10;

/// A key of this host.
pub struct Key {
    /// Where its private half is.
    pub path: PathBuf,
    /// Its public half, one line.
    pub public: String,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Returns the key of this host, made now unless there is one.
///
/// # Errors
/// `ssh-keygen` is missing or fails, or the folder cannot be written.
pub async fn key(comment: &str) -> Result<Key, InstallError> {
    let path = Path::new(FOLDER).join(KEY);
    make(path, comment).await
}

/// Makes the key that this host signs with what it says, unless it has one: one for ssh does.
///
/// # Errors
/// `ssh-keygen` is missing or fails, or the folder cannot be written.
pub async fn identity(comment: &str) -> Result<PathBuf, InstallError> {
    Ok(make(Path::new(identity::PLACES[0]).to_owned(), comment).await?.path)
}

async fn make(path: PathBuf, comment: &str) -> Result<Key, InstallError> {
    make_folder(Path::new(FOLDER), 0o755)?;
    let is_new = !path.exists();
    if is_new {
        let made = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"];
        run("make a key for ssh", Command::new("ssh-keygen").args(made).arg(&path)).await?;
    }
    let public = run("read the key for ssh", Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path)).await?;
    Ok(Key { path, public: public.trim().to_owned(), is_new })
}

/// Says whether root's ssh, or the file that `install` wrote, knows the server's key already; returns the file that has to be named.
///
/// # Errors
/// `ssh-keygen` is missing.
pub async fn knows(host: &str, port: Option<u16>) -> Result<Option<Option<PathBuf>>, InstallError> {
    let name = bracketed(host, port);
    let own = Path::new(FOLDER).join(KNOWN);
    let home = PathBuf::from("/root/.ssh/known_hosts");
    let system = PathBuf::from("/etc/ssh/ssh_known_hosts");
    for (path, named) in [(&own, Some(own.clone())), (&home, None), (&system, None)] {
        if path.exists() {
            let mut command = Command::new("ssh-keygen");
            let found = run("look for the server's key", command.arg("-F").arg(&name).arg("-f").arg(path)).await;
            if found.is_ok_and(|found| !found.trim().is_empty()) {
                return Ok(Some(named));
            }
        }
    }
    Ok(None)
}

/// Asks a server for its keys. Whoever answers could be somebody else: a person compares them.
///
/// # Errors
/// It does not answer.
pub async fn ask(host: &str, port: Option<u16>) -> Result<String, InstallError> {
    let mut command = Command::new("ssh-keyscan");
    command.args(["-T", "10", "-p"]).arg(port.unwrap_or(22).to_string()).arg("--").arg(host);
    let doing = "ask the server for its keys";
    let keys = run(doing, &mut command).await?;
    let keys: String = keys.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    if keys.is_empty() || keys.len() > MOST {
        return Err(InstallError::Program { doing, why: format!("{host} does not answer, or not as ssh") });
    }
    Ok(keys)
}

/// Returns the fingerprints of a server's keys, a line each.
///
/// # Errors
/// `ssh-keygen` fails.
pub async fn fingerprints(keys: &str) -> Result<String, InstallError> {
    let doing = "print the server's keys";
    let scratch = tempfile::NamedTempFile::new().map_err(|source| InstallError::File {
        doing: "create",
        path: std::env::temp_dir(),
        source,
    })?;
    std::fs::write(scratch.path(), keys).map_err(|source| InstallError::File {
        doing: "write",
        path: scratch.path().to_owned(),
        source,
    })?;
    run(doing, Command::new("ssh-keygen").arg("-l").arg("-f").arg(scratch.path())).await
}

/// Takes these keys for the server's from now on; returns where they are.
///
/// # Errors
/// There are others, or the file cannot be written.
pub fn trust(keys: &str) -> Result<PathBuf, InstallError> {
    let path = Path::new(FOLDER).join(KNOWN);
    make_folder(Path::new(FOLDER), 0o755)?;
    write_new(&path, keys.as_bytes(), 0o644)?;
    Ok(path)
}

/// A host's name as known_hosts has it: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
fn bracketed(host: &str, port: Option<u16>) -> String {
    match port {
        None | Some(22) => host.to_owned(),
        Some(port) => format!("[{host}]:{port}"),
    }
}

async fn run(doing: &'static str, command: &mut Command) -> Result<String, InstallError> {
    let failed = |why: String| InstallError::Program { doing, why };
    command.stdin(Stdio::null()).env("LC_ALL", "C").kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(format!("`{program}` is not here: install openssh-client")));
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => {
            return Err(failed(format!("`{program}` did not end within {}", humantime::format_duration(PATIENCE))));
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word");
        return Err(failed(spec::id::shown(last)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers_are_as_known_hosts_has_them() {
        let names = [bracketed("forge", None), bracketed("forge", Some(22)), bracketed("forge", Some(2222))];
        assert_eq!(names, ["forge", "forge", "[forge]:2222"]);
    }
}
