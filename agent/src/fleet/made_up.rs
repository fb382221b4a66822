//! A clone that is made up for tests: a real repository with commits, records and heartbeats, written by `git fast-import` in one go,
//! so that a fleet of thousands takes no longer than one of three.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::memory::AppState;
use spec::record::{AppRecord, Record};
use spec::{manifest, resolve};

use super::Reading;
use crate::git::{Followed, Mirror};
use crate::upstream::LIMITS;

const FITS: &str = "writing to a string does not fail";

/// The moment at which made-up fleets are looked at.
pub(crate) fn now() -> Timestamp {
    "2026-11-22T05:00:00Z".parse().expect("a time")
}

/// A commit: when in seconds ago, what it says, and its files beside those of the one before.
pub(crate) type Commit<'c> = (i64, &'c str, &'c [(&'c str, &'c str)]);

/// A clone whose branch has some commits.
pub(crate) struct MadeUp {
    folder: tempfile::TempDir,
    /// The commits, the first one first.
    pub(crate) commits: Vec<CommitId>,
    /// What is to be written, until it is.
    stream: String,
    counter: u64,
}

/// What a record says of an application: its state, for how many seconds, and what else there is to it.
pub(crate) struct Says<'s> {
    pub(crate) app: &'s str,
    pub(crate) state: AppState,
    pub(crate) ago: i64,
    /// The commit that runs instead, by its number.
    pub(crate) runs: Option<usize>,
    pub(crate) failure: Option<&'s str>,
}

/// A record that says only how an application is, and for how long.
pub(crate) fn says(app: &str, state: AppState, ago: i64) -> Says<'_> {
    Says { app, state, ago, runs: None, failure: None }
}

impl MadeUp {
    /// Makes a clone whose branch has these commits.
    pub(crate) fn new(commits: &[Commit<'_>]) -> MadeUp {
        let folder = tempfile::tempdir().expect("a folder");
        let mut made = MadeUp { folder, commits: Vec::new(), stream: String::new(), counter: 0 };
        made.git(&["init", "--quiet", "--initial-branch=main"], None);
        let mut stream = String::new();
        for (number, (ago, message, files)) in commits.iter().enumerate() {
            let at = now().as_second() - ago;
            writeln!(
                stream,
                "commit refs/heads/main\nmark :{}\ncommitter Ada <ada@example.org> {at} +0000",
                number + 1
            )
            .expect(FITS);
            data(&mut stream, message);
            for (path, text) in *files {
                writeln!(stream, "M 100644 inline {path}").expect(FITS);
                data(&mut stream, text);
            }
        }
        made.git(&["fast-import", "--quiet"], Some(&stream));
        let listed = made.git(&["rev-list", "--reverse", "main"], None);
        made.commits = listed.lines().map(|line| CommitId::parse(line).expect("a commit")).collect();
        made
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Has a host say something of a commit, by its number, so many seconds ago.
    pub(crate) fn record(&mut self, host: &str, commit: usize, ago: i64, apps: &[Says<'_>]) {
        let name = HostName::parse(host).expect("a host");
        let content = |number: usize, app: &str| self.content(number, &name, app);
        let said = |it: &Says<'_>| {
            let wanted = content(commit, it.app);
            let went_back = matches!(it.state, AppState::RolledBack | AppState::Failed);
            let record = AppRecord {
                state: it.state,
                since: before(it.ago),
                from: None,
                digest: it.runs.map_or(wanted, |runs| content(runs, it.app)),
                contested: Vec::new(),
                images: std::collections::BTreeMap::new(),
                changes: 1,
                bad: went_back.then_some(wanted),
                runs: it.runs.map(|number| self.commits[number].clone()),
                failure: it.failure.map(str::to_owned),
            };
            (AppName::parse(it.app).expect("an application"), record)
        };
        let apps = apps.iter().map(said).collect();
        let commit = self.commits[commit].clone();
        self.counter += 1;
        let fleet = "home".to_owned();
        let record = Record { fleet, host: name, commit: commit.clone(), counter: self.counter, at: before(ago), apps };
        self.note(host, &commit, ago, &record.text());
    }

    /// Has a host write any text as its note.
    pub(crate) fn note(&mut self, host: &str, commit: &CommitId, ago: i64, text: &str) {
        let (stream, at) = (&mut self.stream, now().as_second() - ago);
        let name = format!("refs/notes/mainstay/{host}");
        writeln!(stream, "commit {name}\ncommitter {host} <mainstay@{host}> {at} +0000").expect(FITS);
        data(stream, "mainstay: a note");
        writeln!(stream, "N inline {commit}").expect(FITS);
        data(stream, text);
    }

    /// Has a host show that it is alive.
    pub(crate) fn heartbeat(&mut self, host: &str, commit: usize, ago: i64) {
        let (stream, at) = (&mut self.stream, now().as_second() - ago);
        writeln!(stream, "commit refs/mainstay/seen/{host}\ncommitter {host} <mainstay@{host}> {at} +0000")
            .expect(FITS);
        data(stream, &format!("mainstay: {host} seen at {}, at {}\n", before(ago), self.commits[commit]));
    }

    /// Writes what was said since.
    pub(crate) fn write(&mut self) {
        let stream = std::mem::take(&mut self.stream);
        self.git(&["fast-import", "--quiet", "--force"], Some(&stream));
    }

    pub(crate) fn mirror(&mut self) -> Mirror {
        self.write();
        Mirror::of_clone(self.path()).expect("a clone")
    }

    pub(crate) fn read(&mut self) -> (Mirror, Reading) {
        let mirror = self.mirror();
        let reading = Reading::of(&mirror, &main(), now()).expect("a fleet");
        (mirror, reading)
    }

    /// Computes the digest of an application's release at a commit.
    fn content(&self, commit: usize, host: &HostName, app: &str) -> Digest {
        let mirror = Mirror::of_clone(self.path()).expect("a clone");
        let commit = &self.commits[commit];
        let fleet = manifest::parse(&mirror.tree(commit, &LIMITS).expect("a tree"), Some(commit)).fleet;
        let desired = fleet.and_then(|fleet| resolve::resolve(&fleet, host).ok());
        let known = desired.and_then(|desired| Some(desired.apps.get(&AppName::parse(app).ok()?)?.digest));
        known.unwrap_or_else(|| Digest::of(commit.as_str().as_bytes()))
    }

    pub(crate) fn git(&self, args: &[&str], stdin: Option<&str>) -> String {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(self.path())
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git is installed");
        let written = child.stdin.take().expect("stdin").write_all(stdin.unwrap_or_default().as_bytes());
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        written.expect("git reads");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// The branch of a clone that has no remote.
pub(crate) fn main() -> Followed {
    Followed { remote: None, branch: "main".to_owned() }
}

fn before(ago: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - ago).expect("a time")
}

fn data(stream: &mut String, text: &str) {
    writeln!(stream, "data {}\n{text}", text.len()).expect(FITS);
}
