//! Writes a first configuration repository that works: this host, and one application that shows a unit and a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spec::id::HostName;
use spec::schema::{self, Subject};

/// The files, by their paths in the repository.
const FILES: &[(&str, &str)] = &[
    ("fleet.yaml", include_str!("scaffold/fleet.yaml")),
    ("README.md", include_str!("scaffold/README.md")),
    ("apps/hello/app.yaml", include_str!("scaffold/app.yaml")),
    ("apps/hello/hello.service", include_str!("scaffold/hello.service")),
    ("apps/hello/files/etc/hello.conf", include_str!("scaffold/hello.conf")),
];
/// What editors are told of each file, and where that is from there.
pub const SCHEMAS: &[(Subject, &str)] = &[
    (Subject::Fleet, ".mainstay/schema/fleet.json"),
    (Subject::Hosts, "../.mainstay/schema/hosts.json"),
    (Subject::App, "../../.mainstay/schema/app.json"),
];
/// Stands for the host's name in them.
const HOST: &str = "THIS-HOST";

/// Why nothing was written, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// Something is there that would be written over.
    #[error("{} there already; nothing was written: choose another folder", are(.0))]
    There(Vec<PathBuf>),
    /// A file could not be written.
    #[error("failed to write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `git init` did not work.
    #[error("the files are there, but they could not be made a git repository: {0}")]
    Git(String),
}

fn are(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// What was made.
pub struct Scaffold {
    /// The files, in the order in which people read them.
    pub files: Vec<PathBuf>,
    /// Whether the folder became a git repository now; it was part of one before otherwise.
    pub is_new_repository: bool,
}

/// Somebody who signs commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Whom people know by the key.
    pub principal: String,
    /// The public key, in one line as OpenSSH writes it.
    pub key: String,
    /// How git is told of it: a file, or the key itself.
    pub named: String,
}

impl Signer {
    /// Finds whoever sits here: the key that git signs with, else the usual one for ssh.
    pub fn find() -> Option<Signer> {
        let said = |key: &str| {
            let output = Command::new("git").args(["config", "--global", "--get", key]).stdin(Stdio::null()).output();
            let text = String::from_utf8(output.ok().filter(|output| output.status.success())?.stdout).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let home = PathBuf::from(std::env::var_os("HOME")?);
        let usual = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| format!("{}/.ssh/{name}.pub", home.display()));
        let of_git = said("user.signingKey").filter(|_| said("gpg.format").as_deref() == Some("ssh"));
        let (key, named) = of_git.into_iter().chain(usual).find_map(|named| Some((key(&home, &named)?, named)))?;
        let principal = said("user.email").unwrap_or_else(|| "me@example.com".to_owned());
        Some(Signer { principal, key, named })
    }

    /// Returns the file that names this person, and nobody else.
    fn file(&self) -> String {
        format!(
            "# Whoever stands here deploys: one line for each, as in git's gpg.ssh.allowedSignersFile. A change of this file is signed by \
             somebody\n# who stood here before.\n{} namespaces=\"git\" {}\n",
            self.principal, self.key
        )
    }
}

/// Returns a public key as git names it: in a file, of the private key or of the public one, or itself.
fn key(home: &Path, named: &str) -> Option<String> {
    let literal = named.strip_prefix("key::").unwrap_or(named);
    let text = if literal.starts_with("ssh-") || literal.starts_with("ecdsa-") || literal.starts_with("sk-") {
        literal.to_owned()
    } else {
        let path = named.strip_prefix("~/").map_or_else(|| PathBuf::from(named), |rest| home.join(rest));
        let public = if named.ends_with(".pub") { path } else { PathBuf::from(format!("{}.pub", path.display())) };
        fs::read_to_string(public).ok()?
    };
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let line = words.join(" ");
    let (signers, _) = spec::trust::read_signers(&format!("me {line}\n"));
    (!signers.is_empty()).then_some(line)
}

/// Where those stand who sign.
const SIGNERS: &str = "trust/allowed_signers";

/// Writes the files below `folder`, for this host, and makes it a git repository unless it is part of one. Where there is a `signer`,
/// only what that one signs is believed, and a new repository signs each commit.
///
/// # Errors
/// Something is in the way, or cannot be written.
pub fn write(folder: &Path, host: &HostName, signer: Option<&Signer>) -> Result<Scaffold, ScaffoldError> {
    let mut texts: Vec<(&str, String)> =
        FILES.iter().map(|(path, text)| (*path, text.replace(HOST, host.as_str()))).collect();
    if let Some(signer) = signer {
        texts[0].1 = texts[0].1.replacen("#trust:", "trust:", 1);
        texts.push((SIGNERS, signer.file()));
    }
    let files: Vec<PathBuf> = texts.iter().map(|(path, _)| folder.join(path)).collect();
    let there: Vec<PathBuf> = files.iter().filter(|path| path.symlink_metadata().is_ok()).cloned().collect();
    if !there.is_empty() {
        return Err(ScaffoldError::There(there));
    }
    for (path, (_, text)) in files.iter().zip(&texts) {
        let failed = |source| ScaffoldError::File { path: path.clone(), source };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let mut file = OpenOptions::new().create_new(true).write(true).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    let files = files.into_iter().chain(write_schemas(folder)?).collect();
    let is_new_repository = !is_in_a_repository(folder);
    if is_new_repository {
        git(folder, &["init", "--quiet", "--initial-branch=main"])?;
    }
    if let Some(signer) = signer.filter(|_| is_new_repository) {
        let settings = [("gpg.format", "ssh"), ("user.signingKey", &signer.named), ("commit.gpgSign", "true")];
        for (key, value) in settings.into_iter().chain([("gpg.ssh.allowedSignersFile", SIGNERS)]) {
            git(folder, &["config", key, value])?;
        }
    }
    Ok(Scaffold { files, is_new_repository })
}

/// Writes the schemas for editors into a repository, over those of an older version.
///
/// # Errors
/// One cannot be written.
pub fn write_schemas(folder: &Path) -> Result<Vec<PathBuf>, ScaffoldError> {
    let mut files = Vec::new();
    for (subject, path) in SCHEMAS {
        let path = folder.join(path.trim_start_matches("../"));
        let failed = |source| ScaffoldError::File { path: path.clone(), source };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        fs::write(&path, format!("{:#}\n", schema::of(*subject))).map_err(failed)?;
        files.push(path);
    }
    Ok(files)
}

fn is_in_a_repository(folder: &Path) -> bool {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    folder.ancestors().any(|above| above.join(".git").exists())
}

fn git(folder: &Path, words: &[&str]) -> Result<(), ScaffoldError> {
    let mut command = Command::new("git");
    command.args(words).current_dir(folder).stdin(Stdio::null());
    let done = command.output().map_err(|error| ScaffoldError::Git(error.to_string()))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(ScaffoldError::Git(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use spec::manifest;

    use super::*;
    use crate::folder;
    use crate::upstream::LIMITS;

    #[test]
    fn what_is_written_is_sound_and_writes_over_nothing() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("new/fleet");
        let host = HostName::parse("attic").expect("a name");
        let made = write(&folder, &host, None).expect("written");
        assert!(made.is_new_repository && folder.join(".git/HEAD").exists());
        let parsed = manifest::parse(&folder::read(&folder, &LIMITS).expect("a tree"), None);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let fleet = parsed.fleet.expect("a fleet");
        assert!(fleet.hosts.contains_key(&host) && fleet.apps.len() == 1);
        // The example of a rollout is one that holds, as it stands.
        let text = fs::read_to_string(folder.join("fleet.yaml")).expect("a file");
        let (before, example) = text.split_once("#rollouts:").expect("an example");
        let example =
            example.split_inclusive('\n').map(|line| line.strip_prefix('#').unwrap_or(line)).collect::<String>();
        let mut tree = folder::read(&folder, &LIMITS).expect("a tree");
        tree.insert("fleet.yaml", format!("{before}rollouts:{example}").as_bytes());
        let parsed = manifest::parse(&tree, None);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let rollouts = parsed.fleet.expect("a fleet").rollouts;
        assert_eq!(rollouts["default"].waves.len(), 3);
        for (file, schema) in
            [("fleet.yaml", ".mainstay/schema/fleet.json"), ("apps/hello/app.yaml", "../../.mainstay/schema/app.json")]
        {
            let path = folder.join(file);
            let text = fs::read_to_string(&path).expect("a file");
            assert!(text.starts_with(&format!("# yaml-language-server: $schema={schema}\n")), "{text}");
            let read: serde_json::Value =
                serde_json::from_slice(&fs::read(path.with_file_name(schema)).expect("a schema")).expect("JSON");
            assert!(read["$schema"].is_string());
        }
        for path in &made.files {
            assert!(!fs::read_to_string(path).expect("a file").contains(HOST), "{}", path.display());
        }

        fs::remove_file(folder.join("fleet.yaml")).expect("removed");
        let error = write(&folder, &host, None).map(|_| ()).expect_err("it is in the way");
        assert!(error.to_string().contains("README.md") && !folder.join("fleet.yaml").exists(), "{error}");
        let inside = write(&folder.join("inside"), &host, None).expect("written");
        assert!(!inside.is_new_repository, "it is part of one");
    }

    #[test]
    fn whoever_has_a_key_begins_with_commits_that_are_signed() {
        let scratch = tempfile::tempdir().expect("a folder");
        let file = scratch.path().join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status();
        assert!(made.expect("ssh-keygen runs").success());
        let named = file.display().to_string();
        let key = key(scratch.path(), &named).expect("a key");
        assert_eq!(super::key(scratch.path(), "~/key.pub").as_deref(), Some(key.as_str()));
        assert_eq!(super::key(scratch.path(), &format!("key::{key}")).as_deref(), Some(key.as_str()));
        assert_eq!(super::key(scratch.path(), "~/missing"), None);
        let signer = Signer { principal: "ann@example.com".to_owned(), key, named };
        let folder = scratch.path().join("fleet");
        write(&folder, &HostName::parse("attic").expect("a name"), Some(&signer)).expect("written");
        let parsed = manifest::parse(&folder::read(&folder, &LIMITS).expect("a tree"), None);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let trust = parsed.fleet.expect("a fleet").trust.expect("it asks for signatures");
        assert_eq!((trust.signers[0].principals.as_str(), trust.signers.len()), ("ann@example.com", 1));
        git(&folder, &["add", "-A"]).expect("added");
        git(&folder, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"]).expect("committed");
        git(&folder, &["verify-commit", "HEAD"]).expect("it is signed by who may");
    }
}
