//! The client against real git: a bare repository behind `git daemon` and `file://`, and servers that misbehave.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use spec::id::{CommitId, HostName};
use spec::tree::Entry;

use super::*;

mod follow;
pub(crate) mod servers;
mod exchanges;
mod answers;
mod damage;
mod notes;
mod peers;
mod apart;

/// Set where everything goes through a fetcher.
const APART: &str = "MAINSTAY_TEST_APART";

/// Bounds that nothing here passes.
const LARGE: Bounds = Bounds { bytes: 512 << 20, objects: 1_000_000, unpacked: 16 << 30 };

static NO: AtomicBool = AtomicBool::new(false);

/// Returns what a fetch over ssh fails with when `ssh` says this.
pub(crate) fn refused_by_ssh(url: &str, said: &str) -> FetchError {
    complaints::classify(&command::bounded(said.as_bytes())).into_fetch(url.to_owned())
}

fn quick() -> Deadlines {
    Deadlines { connect: Duration::from_secs(5), stall: Duration::from_secs(20), total: Duration::from_secs(60) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).expect("a time")
}

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host")
}

/// Runs git with a fixed identity and returns what it prints.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = try_git(dir, args, &[]);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn try_git(dir: &Path, args: &[&str], stdin: &[u8]) -> std::process::Output {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("git is installed");
    child.stdin.take().expect("stdin").write_all(stdin).expect("git reads");
    child.wait_with_output().expect("git ends")
}

/// A bare repository with a branch `main`, and a scratch directory.
pub(crate) struct Fixture {
    scratch: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let scratch = tempfile::tempdir().expect("a directory");
        let fixture = Fixture { scratch };
        git(fixture.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "served.git"]);
        fixture.commit("first", &[("fleet.yaml", "fleet: home\n")]);
        fixture
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn served(&self) -> PathBuf {
        self.path().join("served.git")
    }

    fn mirror_dir(&self) -> PathBuf {
        self.path().join("state/mirror")
    }

    fn mirror(&self) -> Mirror {
        let mirror = Mirror::open(&self.mirror_dir()).expect("a mirror");
        if std::env::var_os(APART).is_none() { mirror } else { mirror.through(Some(self.fetcher())) }
    }

    /// Starts a fetcher, unless there is one, and returns where it listens.
    fn fetcher(&self) -> PathBuf {
        let socket = self.path().join("fetch.sock");
        let Ok(listener) = std::os::unix::net::UnixListener::bind(&socket) else { return socket };
        let (state, scratch) = (self.path().join("fetcher/mirror.git"), self.path().join("scratch"));
        fs::create_dir_all(&scratch).expect("a folder");
        std::thread::spawn(move || {
            let fetcher = std::sync::Arc::new(Fetcher::new(&state, &scratch));
            for stream in listener.incoming() {
                let (fetcher, mut stream) = (std::sync::Arc::clone(&fetcher), stream.expect("a connection"));
                std::thread::spawn(move || {
                    stream.read_exact(&mut [0])?;
                    fetcher.serve(stream).map(drop)
                });
            }
        });
        socket
    }

    fn remote(&self) -> Remote {
        remote(&format!("file://{}", self.served().display()))
    }

    /// Commits `files` on top of `main` without a checkout.
    fn commit(&self, message: &str, files: &[(&str, &str)]) -> CommitId {
        let mut stream = String::new();
        stream.push_str("commit refs/heads/main\ncommitter Ada <ada@example.org> 1790000000 +0000\n");
        writeln!(stream, "data {}\n{message}", message.len()).expect("text");
        if try_git(&self.served(), &["rev-parse", "--verify", "--quiet", "main"], b"").status.success() {
            stream.push_str("from refs/heads/main^0\n");
        }
        for (path, text) in files {
            writeln!(stream, "M 100644 inline {path}\ndata {}\n{text}", text.len()).expect("text");
        }
        let output = try_git(&self.served(), &["fast-import", "--quiet", "--force"], stream.as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.main()
    }

    pub(crate) fn main(&self) -> CommitId {
        CommitId::parse(&git(&self.served(), &["rev-parse", "main"])).expect("a commit")
    }

    fn daemon(&self) -> Daemon {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let child = Command::new("git")
            .args(["daemon", "--verbose", "--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1"])
            .arg("--max-connections=0")
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", self.path().display()))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path().join("daemon.log")).expect("a log"))
            .process_group(0)
            .spawn()
            .expect("git daemon starts");
        let daemon = Daemon { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        daemon
    }
}

struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn remote(&self) -> Remote {
        remote(&format!("git://127.0.0.1:{}/served.git", self.port))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `git` starts `git-daemon` as a child, so the group is what has to end.
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).expect("killed");
        self.child.wait().expect("reaped");
    }
}

fn remote(url: &str) -> Remote {
    let url = Url::parse(url, Files::Allowed).expect("an address");
    Remote::new(url, BranchName::parse("main").expect("a branch"))
}

fn fetch(mirror: &mut Mirror, remote: &Remote) -> Fetched {
    mirror.fetch(remote, &quick(), &NO).expect("fetched")
}

fn files(mirror: &Mirror, commit: &CommitId) -> String {
    let tree = mirror.tree(commit, &Limits::default()).expect("a tree");
    tree.entries.iter().map(|(path, entry)| format!("{path} {}\n", shape(entry))).collect()
}

fn shape(entry: &Entry) -> String {
    match entry {
        Entry::File { bytes, executable } => {
            format!("{}{:?}", if *executable { "x " } else { "" }, String::from_utf8_lossy(bytes))
        }
        Entry::Symlink { target } => format!("-> {target}"),
        Entry::Submodule => "submodule".to_owned(),
        Entry::Refused { why } => format!("refused: {why}"),
    }
}

/// Writes an object into the repository that is served, whatever it holds.
fn written(fixture: &Fixture, kind: &str, content: &[u8]) -> String {
    let output = try_git(&fixture.served(), &["hash-object", "-w", "--literally", "-t", kind, "--stdin"], content);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the bytes of an object's name.
fn hex(id: &str) -> Vec<u8> {
    (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// Bytes that nothing makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
