//! How often a conversation waits for the other side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::servers::{http_backend, server};
use super::*;

/// How a [`Gate`] treats what the client sends first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Passes everything on at once.
    Open,
    /// Lets the server hear nothing, and so say nothing, before the client has asked for the list.
    Strict,
    /// Drops what came with the greeting, as a server does that reads it into a buffer and starts another program.
    Forgetful,
}

/// A proxy in front of a git daemon.
struct Gate {
    port: u16,
    manner: Arc<Mutex<Manner>>,
    connections: Arc<AtomicUsize>,
}

impl Gate {
    fn before(daemon: &Daemon) -> Gate {
        let (manner, connections) = (Arc::new(Mutex::new(Manner::Open)), Arc::new(AtomicUsize::new(0)));
        let (shared, counter, behind) = (Arc::clone(&manner), Arc::clone(&connections), daemon.port);
        let port = server(move |client| {
            counter.fetch_add(1, Ordering::SeqCst);
            let manner = *shared.lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::spawn(move || pass_on(client, behind, manner));
        });
        Gate { port, manner, connections }
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().expect("no panic") = manner;
    }

    /// Returns how many connections were made since this was last asked.
    fn connections(&self) -> usize {
        self.connections.swap(0, Ordering::SeqCst)
    }

    fn remote(&self) -> Remote {
        remote(&format!("git://127.0.0.1:{}/served.git", self.port))
    }
}

fn pass_on(mut client: TcpStream, behind: u16, manner: Manner) {
    let asked = |heard: &[u8]| heard.windows(15).any(|line| line == b"command=ls-refs") && heard.ends_with(b"0000");
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    while heard.is_empty() || (manner == Manner::Strict && !asked(&heard)) {
        let length = client.read(&mut buffer).expect("a request");
        if length == 0 {
            return;
        }
        heard.extend_from_slice(&buffer[..length]);
    }
    if manner == Manner::Forgetful {
        let digits = std::str::from_utf8(&heard[..4]).expect("a length");
        heard.truncate(usize::from_str_radix(digits, 16).expect("a length"));
    }
    let mut daemon = TcpStream::connect(("127.0.0.1", behind)).expect("a daemon");
    daemon.write_all(&heard).expect("sent");
    let (mut from, mut to) = (client.try_clone().expect("a socket"), daemon.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        // Either side may hang up first.
        if std::io::copy(&mut from, &mut to).is_ok() {
            drop(to.shutdown(std::net::Shutdown::Write));
        }
    });
    drop(std::io::copy(&mut daemon, &mut client));
}

#[test]
fn an_unchanged_tip_costs_one_exchange_over_git() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let gate = Gate::before(&daemon);
    let mut mirror = fixture.mirror();
    let deadlines = Deadlines { stall: Duration::from_secs(5), ..quick() };
    let mut poll = || mirror.fetch(&gate.remote(), &deadlines, &NO).expect("fetched").changed;
    assert!(poll());
    assert_eq!(gate.connections(), 1);
    // From now on a client that waits for the capabilities waits for ever.
    gate.set(Manner::Strict);
    for _ in 0..3 {
        assert!(!poll());
    }
    assert_eq!(gate.connections(), 3);
    // What is new is fetched in the same conversation.
    fixture.commit("second", &[("a", "1")]);
    assert!(poll());
    assert!(!poll());
    assert_eq!(gate.connections(), 2);
    let log = fs::read_to_string(fixture.path().join("daemon.log")).expect("a log");
    // The fixture itself knocks once and says nothing.
    assert_eq!((log.matches("(with error)").count(), log.matches("fatal").count()), (1, 1), "{log}");
}

#[test]
fn a_server_that_cannot_be_asked_ahead_is_asked_ahead_once() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let gate = Gate::before(&daemon);
    gate.set(Manner::Forgetful);
    let mut mirror = fixture.mirror();
    let deadlines = Deadlines { stall: Duration::from_millis(700), ..quick() };
    let mut poll = || mirror.fetch(&gate.remote(), &deadlines, &NO).expect("fetched").changed;
    assert!(poll());
    assert_eq!(gate.connections(), 1);
    assert!(!poll());
    assert_eq!(gate.connections(), 2, "asked ahead, and again the long way");
    fixture.commit("second", &[("a", "1")]);
    assert!(poll());
    assert!(!poll());
    assert_eq!(gate.connections(), 2, "the long way only");
}

#[test]
fn a_server_that_is_away_for_a_while_is_asked_ahead_again() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let gate = Gate::before(&daemon);
    let mut mirror = fixture.mirror();
    let mut poll = || mirror.fetch(&gate.remote(), &quick(), &NO).is_ok();
    assert!(poll() && poll());
    let served = fixture.served();
    fs::rename(&served, fixture.path().join("away.git")).expect("moved");
    assert!(!poll() && !poll());
    fs::rename(fixture.path().join("away.git"), &served).expect("moved");
    assert!(poll());
    gate.set(Manner::Strict);
    assert!(poll());
}

#[test]
fn an_unchanged_tip_costs_one_exchange_over_http() {
    let fixture = Fixture::new();
    let (remote, requests) = http_backend(&fixture);
    let asked = || std::mem::take(&mut *requests.lock().expect("no panic")).join(" ");
    let mut mirror = fixture.mirror();
    assert!(fetch(&mut mirror, &remote).changed);
    assert_eq!(asked(), "GET POST POST");
    for _ in 0..2 {
        assert!(!fetch(&mut mirror, &remote).changed);
        assert_eq!(asked(), "POST");
    }
    fixture.commit("second", &[("a", "1")]);
    assert!(fetch(&mut mirror, &remote).changed);
    assert_eq!(asked(), "POST POST");
    // The long way is taken once more when the short one fails.
    git(&fixture.served(), &["config", "protocol.version", "0"]);
    git(&fixture.served(), &["config", "http.uploadpack", "false"]);
    mirror.fetch(&remote, &quick(), &NO).expect_err("refused");
    assert_eq!(asked(), "POST GET");
    mirror.fetch(&remote, &quick(), &NO).expect_err("refused");
    assert_eq!(asked(), "GET");
    git(&fixture.served(), &["config", "http.uploadpack", "true"]);
    assert!(!fetch(&mut mirror, &remote).changed);
    assert!(!fetch(&mut mirror, &remote).changed);
    assert_eq!(asked(), "GET POST POST");
}

#[test]
fn a_push_over_http_is_one_exchange_once_it_is_known_what_is_there() {
    let fixture = Fixture::new();
    let (remote, requests) = http_backend(&fixture);
    let asked = || std::mem::take(&mut *requests.lock().expect("no panic")).join(" ");
    let attic = host("attic");
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &remote).tip;
    asked();
    let push = |mirror: &mut Mirror, note: &str, second| {
        mirror.write_note(&attic, &tip, note, at(second)).expect("written");
        let seen = Some(Seen { at: at(second), believed: &tip, is_due: false, voice: None });
        assert_eq!(mirror.publish(&remote, &attic, seen, &quick(), &NO).expect("pushed"), Pushed::Done);
        let there = git(&fixture.served(), &["notes", "--ref=mainstay/attic", "show", tip.as_str()]);
        assert_eq!(there, note);
        let sign = git(&fixture.served(), &["log", "--format=%b", "refs/mainstay/seen/attic"]);
        assert_eq!(sign, note);
    };
    push(&mut mirror, "applying", 1);
    assert_eq!(asked(), "GET POST");
    push(&mut mirror, "baking", 2);
    push(&mut mirror, "converged", 3);
    assert_eq!(asked(), "POST POST");
    // Somebody else has written meanwhile: nothing of it is lost.
    let mut other = Mirror::open(&fixture.path().join("state/other")).expect("a mirror");
    fetch(&mut other, &remote);
    asked();
    push(&mut other, "drifted", 4);
    assert_eq!(asked(), "GET GET POST POST GET POST", "its own history is not theirs, which is fetched");
    push(&mut mirror, "repaired", 5);
    let asked_then = asked();
    assert!(asked_then.starts_with("POST GET ") && asked_then.ends_with(" GET POST"), "{asked_then}");
    let subjects = git(&fixture.served(), &["log", "--format=%s", "refs/notes/mainstay/attic"]);
    expect_test::expect![[r#"
        mainstay: repaired
        mainstay: drifted
        mainstay: converged
        mainstay: baking
        mainstay: applying"#]]
    .assert_eq(&subjects);
    push(&mut mirror, "converged", 6);
    assert_eq!(asked(), "POST");
}
