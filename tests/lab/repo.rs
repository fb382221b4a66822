//! A bare repository on the forge, and the shortest way to get commits into it: git's own import stream, no work tree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::forge::{Signer, repo_path};
use crate::{Host, shell};

const DEADLINE: Duration = Duration::from_secs(60);

/// Where a commit rests between being written and being signed; no branch shows it.
const UNSIGNED: &str = "refs/lab/unsigned";

/// A bare repository on the forge.
#[derive(Clone)]
pub struct Repo {
    forge: Arc<Host>,
    name: String,
    /// Hosts whose keys every `fleet.yaml` names, whoever writes it.
    enrolled: Vec<(String, String)>,
}

/// A note on a commit, as `git notes` keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `refs/notes/…`
    pub reference: String,
    /// The commit it is on.
    pub commit: String,
    /// What it says.
    pub text: String,
}

impl Repo {
    pub(crate) fn create(forge: Arc<Host>, name: &str) -> Result<Repo> {
        let repo = Repo { forge, name: name.to_owned(), enrolled: Vec::new() };
        let path = repo.path();
        let mut init = repo.forge.command(&as_git(&["git", "init", "--quiet", "--bare", &path]))?;
        shell::check(&mut init, DEADLINE).with_context(|| format!("failed to make repository {name}"))?;
        Ok(repo)
    }

    /// Names the key of a host in every `fleet.yaml` that is committed from now on and has the host as `NAME: {`.
    pub fn enrol(&mut self, host: &str, key: &str) {
        self.enrolled.push((host.to_owned(), key.trim().to_owned()));
    }

    /// Its name, without `.git`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is on the forge.
    pub fn path(&self) -> String {
        repo_path(&self.name)
    }

    /// Where the machine sees it; to look, not to run git in, since it belongs to a user of the forge.
    pub fn path_on_machine(&self) -> PathBuf {
        self.forge.path_on_machine(&self.path())
    }

    /// Needs [`crate::Forge::authorize`].
    pub fn ssh_url(&self) -> String {
        format!("ssh://git@{}{}", self.forge.address(), self.path())
    }

    /// Read and write for everybody.
    pub fn http_url(&self) -> String {
        format!("http://{}/git/{}.git", self.forge.address(), self.name)
    }

    /// Read and write for everybody who trusts it, see [`crate::Forge::trust_https`].
    pub fn https_url(&self) -> String {
        format!("https://{}/git/{}.git", self.forge.address(), self.name)
    }

    /// Read and write for everybody, by the git daemon.
    pub fn git_url(&self) -> String {
        format!("git://{}/{}.git", self.forge.address(), self.name)
    }

    /// Runs git in the bare repository, as its owner.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        self.git_with(arguments, b"")
    }

    /// As [`Repo::git`], with something on its input.
    pub fn git_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let path = self.path();
        let mut command = self.forge.command(&as_git(&[&["git", "-C", &path], arguments].concat()))?;
        command.stdin(shell::input(input)?);
        shell::check(&mut command, DEADLINE).with_context(|| format!("in repository {}", self.name))
    }

    /// Adds or replaces files on `main` and returns the commit's id.
    pub fn commit(&self, files: &[(&str, &str)], message: &str) -> Result<String> {
        files.iter().fold(self.change(), |change, (path, text)| change.write(path, text)).commit(message)
    }

    /// Removes files or folders from `main` and returns the commit's id.
    pub fn remove(&self, paths: &[&str], message: &str) -> Result<String> {
        paths.iter().fold(self.change(), |change, path| change.remove(path)).commit(message)
    }

    /// Makes these the only files on `main` and returns the commit's id.
    pub fn set_tree(&self, files: &[(&str, &str)], message: &str) -> Result<String> {
        files.iter().fold(self.change().remove_all(), |change, (path, text)| change.write(path, text)).commit(message)
    }

    /// The start of a commit with anything out of the ordinary: another branch, modes, author, time, signature. Unless said, it is signed
    /// with a key that all hosts know.
    pub fn change(&self) -> Change<'_> {
        Change {
            repo: self,
            branch: "main".to_owned(),
            author: "Lab <lab@example.org>".to_owned(),
            time: SystemTime::now(),
            signer: Some(Signer::usual()),
            edits: Vec::new(),
        }
    }

    /// The commit a branch is at, if there is such a branch.
    pub fn tip(&self, branch: &str) -> Result<Option<String>> {
        let found = self.git(&["for-each-ref", "--format=%(objectname)", &format!("refs/heads/{branch}")])?;
        Ok(Some(found.trim().to_owned()).filter(|id| !id.is_empty()))
    }

    /// A file's content at a revision.
    pub fn show(&self, revision: &str, path: &str) -> Result<String> {
        self.git(&["show", &format!("{revision}:{path}")])
    }

    /// The log of `main` with the notes of every notes ref: what a person would see.
    pub fn log_notes(&self) -> Result<String> {
        self.git(&["log", "--notes=*", "main"])
    }

    /// Every note on every commit, of all notes refs.
    pub fn notes(&self) -> Result<Vec<Note>> {
        let mut notes = Vec::new();
        for reference in self.git(&["for-each-ref", "--format=%(refname)", "refs/notes/"])?.lines() {
            for line in self.git(&["notes", &format!("--ref={reference}"), "list"])?.lines() {
                let (blob, commit) = line.split_once(' ').context("a line of `git notes list` has two words")?;
                let text = self.git(&["cat-file", "blob", blob])?;
                notes.push(Note { reference: reference.to_owned(), commit: commit.to_owned(), text });
            }
        }
        Ok(notes)
    }
}

/// A commit in the making, see [`Repo::change`].
pub struct Change<'a> {
    repo: &'a Repo,
    branch: String,
    author: String,
    time: SystemTime,
    signer: Option<Signer>,
    /// Commands of the import stream.
    edits: Vec<u8>,
}

impl Change<'_> {
    /// Adds or replaces a file.
    pub fn write(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        if path != "fleet.yaml" || self.repo.enrolled.is_empty() {
            return self.put("100644", path, content.as_ref());
        }
        let mut text = String::from_utf8_lossy(content.as_ref()).into_owned();
        for (host, key) in &self.repo.enrolled {
            assert!(text.contains(&format!(" {host}: {{")), "{host} is in fleet.yaml as it is looked for: {text}");
            text = text.replacen(&format!(" {host}: {{"), &format!(" {host}: {{ key: \"{key}\", "), 1);
        }
        self.put("100644", path, text.as_bytes())
    }

    /// Adds or replaces a file that may be executed.
    pub fn write_executable(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.put("100755", path, content.as_ref())
    }

    /// Adds or replaces a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.put("120000", path, target.as_bytes())
    }

    /// Removes a file or a folder.
    pub fn remove(mut self, path: &str) -> Self {
        self.edits.extend(format!("D {}\n", quoted(path)).bytes());
        self
    }

    /// Starts from an empty tree instead of the branch's.
    pub fn remove_all(mut self) -> Self {
        self.edits.extend(b"deleteall\n");
        self
    }

    /// Another branch than `main`; a new one starts with no history.
    pub fn branch(mut self, branch: &str) -> Self {
        self.branch = branch.to_owned();
        self
    }

    /// `Name <mail>` of author and committer.
    pub fn author(mut self, author: &str) -> Self {
        self.author = author.to_owned();
        self
    }

    /// The time of author and committer; now, unless said.
    pub fn at(mut self, time: SystemTime) -> Self {
        self.time = time;
        self
    }

    /// Signs the commit with a key of [`crate::Forge::signer`].
    pub fn signed_by(mut self, signer: &Signer) -> Self {
        self.signer = Some(signer.clone());
        self
    }

    /// Leaves the commit unsigned.
    pub fn unsigned(mut self) -> Self {
        self.signer = None;
        self
    }

    /// Writes the commit and moves the branch to it; returns the commit's id.
    pub fn commit(self, message: &str) -> Result<String> {
        let parent = self.repo.tip(&self.branch)?;
        let target = match self.signer {
            Some(_) => UNSIGNED.to_owned(),
            None => format!("refs/heads/{}", self.branch),
        };
        let seconds = self.time.duration_since(UNIX_EPOCH).context("commits before 1970 are not supported")?.as_secs();
        let who = format!("{} {seconds} +0000", self.author);
        let mut stream = format!("commit {target}\nmark :1\nauthor {who}\ncommitter {who}\n").into_bytes();
        stream.extend(data(message.as_bytes()));
        if let Some(parent) = &parent {
            stream.extend(format!("from {parent}\n").bytes());
        }
        stream.extend(&self.edits);
        stream.extend(b"\nget-mark :1\n");
        // Only the resting place of unsigned commits may jump; a branch must not lose what was pushed meanwhile.
        let mut import = vec!["fast-import", "--quiet", "--date-format=raw"];
        import.extend(self.signer.is_some().then_some("--force"));
        let id = self.repo.git_with(&import, &stream)?.trim().to_owned();
        match &self.signer {
            Some(signer) => self.sign(signer, &id, parent.as_deref()),
            None => Ok(id),
        }
    }

    /// The import stream cannot sign, so the commit is written once more.
    fn sign(&self, signer: &Signer, unsigned: &str, parent: Option<&str>) -> Result<String> {
        let raw = self.repo.git(&["cat-file", "commit", unsigned])?;
        let (headers, message) = raw.split_once("\n\n").context("a commit has headers and a message")?;
        let (key, form) = (format!("user.signingKey={}", signer.key), format!("gpg.format={}", signer.format));
        let tree = format!("{unsigned}^{{tree}}");
        let who = headers.lines().find_map(|line| line.strip_prefix("author ")).context("a commit has an author")?;
        let (name, rest) = who.split_once(" <").context("an author has a mail address")?;
        let (mail, date) = rest.split_once("> ").context("an author has a date")?;
        let names = [("NAME", name), ("EMAIL", mail), ("DATE", date)];
        let identity: Vec<_> = ["AUTHOR", "COMMITTER"]
            .iter()
            .flat_map(|role| names.map(|(what, value)| format!("GIT_{role}_{what}={value}")))
            .collect();
        let path = self.repo.path();
        let mut words = vec!["env"];
        words.extend(identity.iter().map(String::as_str));
        words.extend(["git", "-C", &path, "-c", &key, "-c", &form, "commit-tree", "-S", &tree]);
        words.extend(parent.iter().flat_map(|parent| ["-p", parent]));
        let mut command = self.repo.forge.command(&as_git(&words))?;
        command.stdin(shell::input(message.as_bytes())?);
        let signed = shell::check(&mut command, DEADLINE).context("failed to sign a commit")?.trim().to_owned();
        let branch = format!("refs/heads/{}", self.branch);
        // Zeros: the branch must not be there yet.
        let zeros = "0".repeat(40);
        self.repo.git(&["update-ref", &branch, &signed, parent.unwrap_or(&zeros)])?;
        Ok(signed)
    }

    fn put(mut self, mode: &str, path: &str, content: &[u8]) -> Self {
        self.edits.extend(format!("M {mode} inline {}\n", quoted(path)).bytes());
        self.edits.extend(data(content));
        self
    }
}

fn data(bytes: &[u8]) -> Vec<u8> {
    [format!("data {}\n", bytes.len()).as_bytes(), bytes, b"\n"].concat()
}

/// A path as the import stream wants it when it may hold anything.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Runs a program as the owner of all repositories.
fn as_git<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let drop_rights = ["setpriv", "--reuid=git", "--regid=git", "--clear-groups", "env", "HOME=/home/git"];
    [&drop_rights[..], words].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_hold_anything() {
        assert_eq!(quoted("a b/\"c\"\\\n"), r#""a b/\"c\"\\\n""#);
    }
}
