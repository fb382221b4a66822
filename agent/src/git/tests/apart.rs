//! The same through a fetcher, and what a fetcher that lies achieves.

use super::*;

#[test]
fn everything_holds_through_a_fetcher() {
    let mut tests = Command::new(std::env::current_exe().expect("this program"));
    tests.args(["git::tests::", "--skip", "git::tests::apart::", "--test-threads=2"]).env(APART, "1");
    let output = tests.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}

/// What a fetcher does with an object that it is asked for: its kind as a number, and its bytes.
type Lie = fn(&mut std::os::unix::net::UnixStream, u8, Vec<u8>) -> std::io::Result<()>;

fn hand(stream: &mut std::os::unix::net::UnixStream, kind: u8, length: usize, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[kind])?;
    stream.write_all(&(length as u64).to_be_bytes())?;
    stream.write_all(bytes)
}

/// Starts a fetcher that lists what a repository has at `main`, and a name that leads elsewhere, and lies about objects.
fn liar(fixture: &Fixture, name: &str, lie: Lie) -> PathBuf {
    let socket = fixture.path().join(name);
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let served = fixture.served();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // It ends where the agent has heard enough.
            drop(lie_once(stream.expect("a connection"), &served, lie));
        }
    });
    socket
}

fn lie_once(mut stream: std::os::unix::net::UnixStream, served: &Path, lie: Lie) -> std::io::Result<()> {
    let ends = Instant::now() + Duration::from_secs(20);
    stream.read_exact(&mut [0])?;
    let mut link = link::Link::new(stream.try_clone()?, ends, &NO)?;
    drop(link.hear::<link::Ask>()?);
    let id = |text: &str| link::Id::try_from(text.to_owned()).expect("an id");
    let tip = git(served, &["rev-parse", "main"]);
    let named = |name: &str| link::Named { name: name.to_owned(), id: id(&tip) };
    link.say(&link::Said::Listed(vec![
        named("refs/heads/main"),
        named("refs/mainstay/seen/../../../../../etc/evil"),
        named("refs/mainstay/tip"),
    ]))?;
    link.hear::<link::Verdict>()?;
    link.say(&link::Said::Received(7))?;
    stream.set_nonblocking(false)?;
    loop {
        let wants: link::Wants = link.hear()?;
        for want in wants.ids {
            let want = want.0.to_string();
            let kind = git(served, &["cat-file", "-t", &want]);
            let bytes = try_git(served, &["cat-file", &kind, &want], b"").stdout;
            let number = ["commit", "tree", "blob"].iter().position(|it| *it == kind).expect("a kind") + 1;
            lie(&mut stream, u8::try_from(number).expect("small"), bytes)?;
        }
    }
}

/// What bounds a conversation.
type Bound = fn(&mut Bounds, &mut Deadlines);

/// Names what is in the mirror's folder of packs.
fn packs(fixture: &Fixture) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(fixture.mirror_dir().join("objects/pack")).expect("a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}

#[test]
fn what_a_fetcher_hands_out_is_bounded() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &fixture.remote()).tip;
    drop(mirror);
    fixture.commit("second", &[("apps/web/web.service", "[Service]\nExecStart=/bin/web\n")]);
    let (remote, before) = (remote("git://127.0.0.1:1/served.git"), packs(&fixture));
    let bounded: [(&str, Bound, Lie, &str); 4] = [
        (
            "objects",
            |bounds, _| bounds.objects = 3,
            |it, kind, bytes| hand(it, kind, bytes.len(), &bytes),
            "more than 3 objects",
        ),
        (
            "unpacked",
            |bounds, _| bounds.unpacked = 300,
            |it, kind, bytes| hand(it, kind, bytes.len(), &bytes),
            "more than 300 bytes",
        ),
        (
            "disk",
            |bounds, _| bounds.bytes = 100,
            |it, kind, bytes| hand(it, kind, bytes.len(), &bytes),
            "more than 200 bytes at once",
        ),
        (
            "without a pause",
            |_, deadlines| deadlines.total = Duration::from_millis(200),
            |it, _, _| {
                hand(it, 3, 20 << 20, b"")?;
                loop {
                    it.write_all(&[b'x'; 4096])?;
                }
            },
            "took too long",
        ),
    ];
    for (name, bound, lie, expected) in bounded {
        let (mut bounds, mut deadlines) = (LARGE, quick());
        bound(&mut bounds, &mut deadlines);
        let remote = remote.clone().within(bounds);
        let socket = liar(&fixture, name, lie);
        let mut mirror = Mirror::open(&fixture.mirror_dir()).expect("a mirror").through(Some(socket));
        let error = mirror.fetch(&remote, &deadlines, &NO).expect_err(name);
        assert!(crate::chain(&error).contains(expected), "{name}: {}", crate::chain(&error));
        assert_eq!((mirror.tip(), packs(&fixture)), (Some(first.clone()), before.clone()), "{name}");
    }
}

#[test]
fn a_fetcher_that_lies_changes_nothing() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &fixture.remote()).tip;
    drop(mirror);
    fixture.commit("second", &[("apps/web/web.service", "[Service]\nExecStart=/bin/web\n")]);
    let lies: [(&str, Lie, &str); 9] = [
        ("other", |it, kind, bytes| hand(it, kind, bytes.len(), &vec![b'x'; bytes.len()]), "came as something else"),
        (
            "changed",
            |it, kind, mut bytes| {
                // Only what the files hold: all that leads there is as it should be.
                if kind == 3 {
                    bytes = String::from_utf8_lossy(&bytes).replace("/bin/web", "/bin/evi").into_bytes();
                }
                hand(it, kind, bytes.len(), &bytes)
            },
            "came as something else",
        ),
        ("withheld", |it, _, _| hand(it, 0, 0, b""), "is not there"),
        (
            "withheld file",
            |it, kind, bytes| if kind == 3 { hand(it, 0, 0, b"") } else { hand(it, kind, bytes.len(), &bytes) },
            "is not there",
        ),
        ("no kind", |it, _, bytes| hand(it, 9, bytes.len(), &bytes), "is of no kind"),
        ("other kind", |it, _, bytes| hand(it, 3, bytes.len(), &bytes), "came as something else"),
        ("large", |it, kind, _| hand(it, kind, 50 << 20, b""), "more than 41943040 bytes in one file"),
        (
            "endless",
            |it, _, _| {
                hand(it, 3, 1 << 50, b"")?;
                loop {
                    it.write_all(&[b'x'; 4096])?;
                }
            },
            "more than 41943040 bytes in one file",
        ),
        (
            "torn",
            |it, kind, bytes| {
                hand(it, kind, bytes.len(), &bytes[..bytes.len() / 2])?;
                it.shutdown(std::net::Shutdown::Both)
            },
            "broke off",
        ),
    ];
    let remote = remote("git://127.0.0.1:1/served.git");
    let packs = || packs(&fixture);
    let before = packs();
    for (name, lie, expected) in lies {
        let socket = liar(&fixture, name, lie);
        let mut mirror = Mirror::open(&fixture.mirror_dir()).expect("a mirror").through(Some(socket));
        let all = Peers::All;
        let error = mirror.fetch_with(&remote, Some(&all), &quick(), &NO).expect_err(name);
        let said = crate::chain(&error);
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!((mirror.tip(), packs()), (Some(first.clone()), before.clone()), "{name}");
    }
    assert!(!fixture.path().join("etc").exists());

    // One that only hands on is believed in what the names stand for, and no name leads elsewhere.
    let socket = liar(&fixture, "honest", |it, kind, bytes| hand(it, kind, bytes.len(), &bytes));
    let mut mirror = Mirror::open(&fixture.mirror_dir()).expect("a mirror").through(Some(socket));
    let (fetched, _) = mirror.fetch_with(&remote, Some(&Peers::All), &quick(), &NO).expect("fetched");
    assert_eq!(fetched.tip, fixture.main());
    git(&fixture.mirror_dir(), &["fsck", "--strict", "--full"]);
    let names = git(&fixture.mirror_dir(), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(names, "refs/mainstay/incoming\nrefs/mainstay/tip");
}

#[test]
fn a_fetcher_that_says_nothing_or_nonsense_is_given_up() {
    let fixture = Fixture::new();
    let remote = remote("git://127.0.0.1:1/served.git");
    let says: [(&str, &[u8], &str); 4] = [
        ("nothing", b"", "took too long"),
        ("nonsense", b"\0\0\0\x04oops", "broke off: expected"),
        ("a gigabyte", b"\xff\xff\xff\xff", "which is too much"),
        ("something else", b"\0\0\0\x0e{\"Refused\":{}}", "it answered something else"),
    ];
    for (name, bytes, expected) in says {
        let socket = fixture.path().join(name);
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let (sender, _kept) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                stream.write_all(bytes).expect("sent");
                sender.send(stream).expect("kept open");
            }
        });
        let mut mirror = Mirror::open(&fixture.mirror_dir()).expect("a mirror").through(Some(socket));
        let deadlines = Deadlines { total: Duration::from_millis(500), ..quick() };
        let error = mirror.fetch(&remote, &deadlines, &NO).expect_err(name);
        assert!(crate::chain(&error).contains(expected), "{name}: {}", crate::chain(&error));
        let note = mirror.write_note(&host("attic"), &fixture.main(), "x\n", at(1));
        assert!(note.expect("written") || name != "nothing");
        let error = mirror.publish(&remote, &host("attic"), None, &deadlines, &NO).expect_err(name);
        assert!(crate::chain(&error).contains(expected), "{name}: {}", crate::chain(&error));
        let cancelled = mirror.fetch(&remote, &quick(), &AtomicBool::new(true)).expect_err(name);
        assert!(matches!(cancelled, FetchError::Cancelled { .. }) || name != "nothing", "{cancelled:?}");
    }
    let mut mirror = fixture.mirror().through(Some(fixture.path().join("nobody")));
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("nobody");
    expect_test::expect![[r#"failed to reach git://127.0.0.1:1/served.git: nobody listens at FOLDER/nobody, where servers are talked to in the place of this process: No such file or directory; see `systemctl status mainstay-fetch.socket`"#]]
        .assert_eq(&crate::chain(&error).replace(&fixture.path().display().to_string(), "FOLDER"));
}

#[test]
fn a_fetcher_whose_mirror_is_damaged_has_a_new_one() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror().through(Some(fixture.fetcher()));
    fetch(&mut mirror, &daemon.remote());
    let packs = fixture.path().join("fetcher/mirror.git/objects/pack");
    for entry in fs::read_dir(&packs).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
        fs::write(&path, "garbage").expect("written");
    }
    let second = fixture.commit("second", &[("a", "1")]);
    let fetched =
        mirror.fetch(&daemon.remote(), &quick(), &NO).or_else(|_| mirror.fetch(&daemon.remote(), &quick(), &NO));
    assert_eq!(fetched.expect("at the second time at the latest").tip, second);
    git(&fixture.mirror_dir(), &["fsck", "--strict", "--full"]);
}
