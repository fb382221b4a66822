//! Somebody's own clone: which branch of which remote the hosts follow, and how it is brought up to date, with that person's own
//! git and credentials.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gix::bstr::ByteSlice as _;
use gix::refs::TargetRef;
use spec::id::{CommitId, shown};

use super::command;
use super::error::GitError;
use super::mirror::{Mirror, Source, commit_id, find};
use super::notes::NOTES;
use super::signs::SEEN;

/// So many refs of hosts in files of their own are put into one.
const MANY_LOOSE: usize = 500;

/// The branch that hosts follow, as a clone knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The remote that has it, if it is not the clone's own.
    pub remote: Option<String>,
    /// Its name.
    pub branch: String,
}

impl Followed {
    /// Names the ref that holds it in the clone.
    fn reference(&self) -> String {
        match &self.remote {
            Some(remote) => format!("refs/remotes/{remote}/{}", self.branch),
            None => format!("refs/heads/{}", self.branch),
        }
    }
}

impl std::fmt::Display for Followed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.remote {
            Some(remote) => write!(f, "{remote}/{}", self.branch),
            None => f.write_str(&self.branch),
        }
    }
}

impl Mirror {
    /// Finds out which branch hosts follow: what is said, else the remote's own HEAD, else what the current branch follows.
    ///
    /// # Errors
    /// There is no such remote, or the branch cannot be told.
    pub fn followed(&self, remote: Option<&str>, branch: Option<&str>) -> Result<Followed, GitError> {
        let failed = |why: String| GitError::Clone { folder: self.dir.clone(), source: why.into() };
        let remotes: Vec<String> = self.repo.remote_names().iter().map(ToString::to_string).collect();
        if let Some(wrong) = remote.filter(|remote| !remotes.iter().any(|known| known == remote)) {
            let all = if remotes.is_empty() { "none".to_owned() } else { remotes.join(", ") };
            return Err(failed(format!("it has no remote `{}`; it has {}", shown(wrong), shown(&all))));
        }
        let current = self.repo.head_name().ok().flatten().map(|name| name.shorten().to_string());
        let (tracked_remote, tracked) = current.as_deref().map(|name| self.tracked(name)).unwrap_or_default();
        let only = remotes.first().filter(|_| remotes.len() == 1);
        let origin = remotes.iter().find(|name| *name == "origin");
        let known = |name: &String| remotes.contains(name);
        let remote = remote.map(str::to_owned).or_else(|| tracked_remote.clone().filter(known));
        let remote = remote.or_else(|| origin.or(only).cloned());
        let Some(remote) = remote else {
            let branch = branch.map(str::to_owned).or(current);
            let branch = branch.ok_or_else(|| failed("no branch is checked out: name one with --branch".to_owned()))?;
            return Ok(Followed { remote: None, branch });
        };
        let head = self.head_of(&remote);
        let tracked = tracked.filter(|_| tracked_remote.as_ref() == Some(&remote));
        let branch = branch.map(str::to_owned).or(head).or(tracked).or(current).ok_or_else(|| {
            failed(format!(
                "which branch of {} the hosts follow is not known here: name it with --branch",
                shown(&remote)
            ))
        })?;
        Ok(Followed { remote: Some(remote), branch })
    }

    /// Returns the remote and the branch that a branch of the clone follows.
    fn tracked(&self, branch: &str) -> (Option<String>, Option<String>) {
        let config = self.repo.config_snapshot();
        let value = |key: &str| config.string(format!("branch.{branch}.{key}").as_str()).map(|text| text.to_string());
        let merge = value("merge").and_then(|name| Some(name.strip_prefix("refs/heads/")?.to_owned()));
        (value("remote"), merge)
    }

    /// Returns the branch that a remote's HEAD was at when it was cloned.
    fn head_of(&self, remote: &str) -> Option<String> {
        let head = self.repo.try_find_reference(&format!("refs/remotes/{remote}/HEAD")).ok().flatten()?;
        match head.target() {
            TargetRef::Symbolic(name) => {
                let name = name.as_bstr().to_str().ok()?;
                Some(name.strip_prefix(&format!("refs/remotes/{remote}/"))?.to_owned())
            }
            TargetRef::Object(_) => None,
        }
    }

    /// Returns the newest commit of a branch, as far as the clone knows.
    ///
    /// # Errors
    /// The clone does not have the branch.
    pub fn newest_of(&self, followed: &Followed) -> Result<CommitId, GitError> {
        let found = find(&self.repo, &followed.reference()).ok().flatten();
        let found = found.filter(|tip| self.repo.find_commit(*tip).is_ok());
        let none = || {
            let why: Source = format!(
                "it has no branch `{}` yet: fetch it, or name another with --branch",
                shown(&followed.to_string())
            )
            .into();
            GitError::Clone { folder: self.dir.clone(), source: why }
        };
        found.map(commit_id).ok_or_else(none)
    }

    /// Fetches the branch, and the records and heartbeats of all hosts, which may be at another remote. The clone keeps them where
    /// `git log --notes='mainstay/*'` finds them; nothing is removed from it.
    ///
    /// # Errors
    /// What git said, on one line.
    pub fn bring(
        &mut self,
        followed: &Followed,
        records: Option<&str>,
        deadline: Duration,
        cancel: &AtomicBool,
    ) -> Result<(), String> {
        let Some(remote) = &followed.remote else { return Ok(()) };
        let branch = format!("+refs/heads/{}:{}", followed.branch, followed.reference());
        let told = [format!("+{NOTES}*:{NOTES}*"), format!("+{SEEN}*:{SEEN}*")];
        let dir = self.dir.clone();
        let fetch = |remote: &str, specs: &[&String]| command::run(fetch(&dir, remote, specs), deadline, cancel);
        match records.filter(|records| *records != remote) {
            None => fetch(remote, &[&branch, &told[0], &told[1]])?,
            Some(records) => {
                fetch(remote, &[&branch])?;
                fetch(records, &[&told[0], &told[1]])?;
            }
        }
        self.pack_references(deadline, cancel);
        // Packs have come that an open repository does not know.
        let fresh = Mirror::of_clone(&dir).map_err(|error| crate::chain(&error))?;
        self.repo = fresh.repo;
        Ok(())
    }
}

impl Mirror {
    /// Has git put the refs of the hosts into one file where they are thousands of files, as its own tidying would.
    fn pack_references(&self, deadline: Duration, cancel: &AtomicBool) {
        let loose = |folder: &str| std::fs::read_dir(self.repo.common_dir().join(folder)).map_or(0, Iterator::count);
        if loose(NOTES) + loose(SEEN) < MANY_LOOSE {
            return;
        }
        let mut git = command::git_of_a_person(&self.dir);
        git.args(["pack-refs", "--all"]);
        // They can be read as they are, only more slowly.
        if let Err(error) = command::run(git, deadline, cancel) {
            tracing::debug!(error, "the refs of the clone could not be packed");
        }
    }
}

fn fetch(folder: &Path, remote: &str, specs: &[&String]) -> std::process::Command {
    let mut git = command::git_of_a_person(folder);
    // Notes are read whole, whatever a partial clone leaves out; submodules are nobody's question.
    git.args([
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-recurse-submodules",
        "--no-write-fetch-head",
        "--no-filter",
        "--",
    ]);
    git.arg(remote).args(specs);
    git
}
