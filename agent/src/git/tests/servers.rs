//! Servers that are silent, slow, endless, refusing or gone; and smart HTTP.

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn a_closed_port_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let error = mirror.fetch(&remote(&format!("git://127.0.0.1:{port}/x")), &quick(), &NO).expect_err("closed");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
    let error = mirror.fetch(&remote(&format!("http://127.0.0.1:{port}/x")), &quick(), &NO).expect_err("closed");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
}

/// Accepts connections and does `behave` with each.
pub(crate) fn server(behave: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            behave(stream.expect("a connection"));
        }
    });
    port
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let (sender, _kept) = std::sync::mpsc::channel();
    let port = server(move |stream| sender.send(stream).expect("kept open"));
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let deadlines = Deadlines { stall: Duration::from_millis(300), ..quick() };
    for scheme in ["git", "http"] {
        let started = Instant::now();
        let remote = remote(&format!("{scheme}://127.0.0.1:{port}/x"));
        let error = mirror.fetch(&remote, &deadlines, &NO).expect_err("silence");
        assert!(matches!(error, FetchError::TimedOut { deadline: Deadline::Stall, .. }), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let error = mirror.fetch(&remote, &quick(), &AtomicBool::new(true)).expect_err("cancelled");
        assert!(matches!(error, FetchError::Cancelled { .. }), "{error:?}");
    }
}

#[test]
fn a_server_that_drips_is_given_up_in_time() {
    let port = server(|mut stream| {
        std::thread::spawn(move || {
            // A well-formed beginning of a line that never ends.
            stream.write_all(b"fff0").expect("sent");
            while stream.write_all(b"a").is_ok() {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
    });
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let deadlines = Deadlines { total: Duration::from_millis(400), ..quick() };
    let error = mirror.fetch(&remote(&format!("git://127.0.0.1:{port}/x")), &deadlines, &NO).expect_err("drips");
    assert!(matches!(error, FetchError::TimedOut { deadline: Deadline::Total, .. }), "{error:?}");
}

#[test]
fn a_server_that_drips_is_as_good_as_silent() {
    let port = server(|mut stream| {
        std::thread::spawn(move || {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).expect("a request");
            let http = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n";
            let beginning = if request[..length].starts_with(b"GET") { &http[..] } else { b"" };
            let mut sent = stream.write_all(beginning).and_then(|()| stream.write_all(b"fff0"));
            while sent.is_ok() {
                sent = stream.write_all(b"a");
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
    });
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let deadlines = Deadlines { stall: Duration::from_millis(500), ..quick() };
    for scheme in ["git", "http"] {
        let started = Instant::now();
        let remote = remote(&format!("{scheme}://127.0.0.1:{port}/x"));
        let error = mirror.fetch(&remote, &deadlines, &NO).expect_err("drips");
        assert!(matches!(error, FetchError::TimedOut { deadline: Deadline::Stall, .. }), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn a_server_that_closes_is_unreachable_and_an_endless_list_is_capped() {
    let closing = server(drop);
    let endless = server(|mut stream| {
        std::thread::spawn(move || {
            stream.write_all(b"000eversion 2\n000cagent=x\n000cls-refs\n0000").expect("sent");
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).is_ok());
            let line = format!("003e{} refs/heads/{:010}\n", "a".repeat(40), 7);
            let many = format!("{:04x}{}", line.len(), &line[4..]).repeat(1000);
            while stream.write_all(many.as_bytes()).is_ok() {}
        });
    });
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let error = mirror.fetch(&remote(&format!("git://127.0.0.1:{closing}/x")), &quick(), &NO).expect_err("closed");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
    let error = mirror.fetch(&remote(&format!("git://127.0.0.1:{endless}/x")), &quick(), &NO).expect_err("endless");
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error:?}");
}

#[test]
fn a_pack_larger_than_allowed_is_cut_off_and_leaves_nothing() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &daemon.remote()).tip;
    let mut noise = fastrand::Rng::with_seed(7);
    let large: String = (0..400_000).map(|_| noise.alphanumeric()).collect();
    fixture.commit("large", &[("blob", &large)]);
    let remote = daemon.remote().within(Bounds { bytes: 50_000, ..LARGE });
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("too large");
    assert!(matches!(error, FetchError::TooLarge { cap: Cap::Bytes(50_000), .. }), "{error:?}");
    assert_eq!(mirror.tip(), Some(tip));
    let packs = fs::read_dir(fixture.mirror_dir().join("objects/pack")).expect("packs").count();
    assert_eq!(packs, 2, "one pack and its index");
}

#[test]
fn http_answers_are_classed_by_reaction() {
    let answering = |head: &'static str| {
        server(move |mut stream| {
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).is_ok());
            stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).expect("sent");
        })
    };
    let class = |head| {
        let fixture = Fixture::new();
        let mut mirror = fixture.mirror();
        let url = format!("http://127.0.0.1:{}/x", answering(head));
        match mirror.fetch(&remote(&url), &quick(), &NO).expect_err("no git") {
            FetchError::Unreachable { retry_after, .. } => format!("retry {retry_after:?}"),
            FetchError::Denied { .. } => "denied".to_owned(),
            FetchError::Config { source, .. } => format!("config {source}"),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(class("401 Unauthorized\r\nWWW-Authenticate: Basic realm=x"), "denied");
    assert_eq!(class("403 Forbidden"), "denied");
    assert_eq!(class("404 Not Found"), "denied");
    assert_eq!(class("503 Busy\r\nRetry-After: 120"), "retry Some(120s)");
    assert_eq!(class("500 Oops"), "retry None");
    assert_eq!(class("200 OK\r\nContent-Type: text/html"), "retry None");
    let redirected = class("301 Moved\r\nLocation: https://u:p@evil.example/x?y");
    assert!(redirected.starts_with("config the server redirects to https://evil.example/x:"), "{redirected}");
}

/// Serves `fixture`'s repository by `git http-backend`, one request per connection, and keeps the requests' methods.
pub(super) fn http_backend(fixture: &Fixture) -> (Remote, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let root = fixture.path().to_owned();
    git(&fixture.served(), &["config", "http.receivepack", "true"]);
    let port = server(move |stream| {
        let (root, kept) = (root.clone(), Arc::clone(&kept));
        std::thread::spawn(move || answer_by_cgi(stream, &root, &kept));
    });
    (remote(&format!("http://127.0.0.1:{port}/served.git")), requests)
}

fn answer_by_cgi(mut stream: TcpStream, root: &Path, requests: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).expect("a request") == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().expect("a method"), words.next().expect("a target"));
    requests.lock().expect("no panic").push(method.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_LENGTH", length.to_string())
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git http-backend starts");
    child.stdin.take().expect("stdin").write_all(&body).expect("the backend reads");
    let output = child.wait_with_output().expect("the backend ends").stdout;
    let text = String::from_utf8_lossy(&output);
    let status = text.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&output).expect("sent");
}

#[test]
fn a_branch_is_followed_and_notes_are_pushed_over_http() {
    let fixture = Fixture::new();
    let (remote, _) = http_backend(&fixture);
    let attic = host("attic");
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &remote).tip;
    assert!(!fetch(&mut mirror, &remote).changed);
    mirror.write_note(&attic, &first, "converged\n", at(1)).expect("written");
    assert_eq!(mirror.publish(&remote, &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    mirror
        .publish(&remote, &attic, Some(Seen { at: at(2), believed: &first, is_due: true, voice: None }), &quick(), &NO)
        .expect("pushed");
    assert_eq!(git(&fixture.served(), &["notes", "--ref=mainstay/attic", "show", first.as_str()]), "converged");
    let second = fixture.commit("second", &[("a", "1")]);
    assert_eq!(fetch(&mut mirror, &remote).tip, second);

    fs::remove_dir_all(fixture.mirror_dir()).expect("lost");
    let mut mirror = fixture.mirror();
    fetch(&mut mirror, &remote);
    mirror.write_note(&attic, &second, "applying\n", at(3)).expect("written");
    assert_eq!(mirror.publish(&remote, &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    assert_eq!(git(&fixture.served(), &["rev-list", "--count", "refs/notes/mainstay/attic"]), "2");
    git(&fixture.served(), &["config", "http.receivepack", "false"]);
    mirror.write_note(&attic, &second, "converged\n", at(4)).expect("written");
    let error = mirror.publish(&remote, &attic, None, &quick(), &NO).expect_err("read only");
    assert!(matches!(error, PushError::Denied { .. }), "{error:?}");
}

#[test]
fn a_token_is_never_sent_in_clear_text() {
    let fixture = Fixture::new();
    let token_file = fixture.path().join("token");
    fs::write(&token_file, "s3cret\n").expect("written");
    let remote = Remote { token: Some(Token::File(token_file)), ..http_backend(&fixture).0 };
    let error = fixture.mirror().fetch(&remote, &quick(), &NO).expect_err("refused");
    assert!(matches!(error, FetchError::Config { .. }), "{error:?}");
}
