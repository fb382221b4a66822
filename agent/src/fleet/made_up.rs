//! A clone that is made up for tests: a real repository with commits, records and heartbeats, written by `git fast-import` in one go
//! and with packed refs, so that a fleet of thousands takes a second.

use std::collections::BTreeMap;
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
use crate::identity::{Identity, SEEN};
use crate::upstream::LIMITS;

/// The branch on which commits are made before their refs name them.
const SCRATCH: &str = "refs/made-up/scratch";
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
    /// How many commits were written, and the last one of each ref.
    marks: usize,
    tips: BTreeMap<String, usize>,
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
        let (tips, stream) = (BTreeMap::new(), String::new());
        let mut made = MadeUp { folder, commits: Vec::new(), stream, marks: 0, tips, counter: 0 };
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
                images: BTreeMap::new(),
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
        let (at, told) = (before(ago), Vec::new());
        let record = Record { fleet, host: name, commit: commit.clone(), counter: self.counter, at, apps, told };
        self.note(host, &commit, ago, &record.text());
    }

    /// Has a host write any text as its note.
    pub(crate) fn note(&mut self, host: &str, commit: &CommitId, ago: i64, text: &str) {
        self.commit(format!("refs/notes/mainstay/{host}"), host, ago, "mainstay: a note");
        writeln!(self.stream, "N inline {commit}").expect(FITS);
        data(&mut self.stream, text);
    }

    /// Has a host show that it is alive.
    pub(crate) fn heartbeat(&mut self, host: &str, commit: usize, ago: i64) {
        let name = format!("refs/mainstay/seen/{host}");
        self.tips.remove(&name);
        let message = format!("mainstay: {host} seen at {}, at {}\n", before(ago), self.commits[commit]);
        self.commit(name, host, ago, &message);
    }

    /// Has a host show that it is alive, with its last record in it, in its own hand.
    pub(crate) fn sign_of_life(&mut self, host: &str, commit: usize, ago: i64, note: &str, by: &Identity) {
        let name = format!("refs/mainstay/seen/{host}");
        self.tips.remove(&name);
        let said = format!("mainstay: {host} seen at {}, at {}\n\n{note}", before(ago), self.commits[commit]);
        let message = by.sign(SEEN, "home", &said).expect("signed");
        self.commit(name, host, ago, &message);
    }

    /// Begins a commit on top of what a ref had. One branch takes all of them: a ref for each would be a file for each.
    fn commit(&mut self, name: String, host: &str, ago: i64, message: &str) {
        let at = now().as_second() - ago;
        self.marks += 1;
        let from = self.tips.insert(name, self.marks).map(|before| format!("from :{before}\n")).unwrap_or_default();
        let stream = &mut self.stream;
        write!(stream, "reset {SCRATCH}\n{from}\ncommit {SCRATCH}\nmark :{}\n", self.marks).expect(FITS);
        writeln!(stream, "committer {host} <mainstay@{host}> {at} +0000").expect(FITS);
        data(stream, message);
    }

    /// Writes what was said since.
    pub(crate) fn write(&mut self) {
        let stream = std::mem::take(&mut self.stream);
        let marks = self.path().join(".git/made-up");
        let read = format!("--import-marks-if-exists={}", marks.display());
        let kept = format!("--export-marks={}", marks.display());
        self.git(&["fast-import", "--quiet", "--force", &read, &kept], Some(&stream));
        let written = std::fs::read_to_string(&marks).expect("marks");
        let ids: BTreeMap<&str, &str> = written.lines().filter_map(|line| line.split_once(' ')).collect();
        let refs = self.tips.iter().map(|(name, mark)| format!("{} {name}\n", ids[format!(":{mark}").as_str()]));
        let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{}", refs.collect::<String>());
        std::fs::write(self.path().join(".git/packed-refs"), packed).expect("written");
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
