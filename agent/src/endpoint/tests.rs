//! The endpoint over real sockets. Time stands still, but for when nobody has anything else to do.

mod described;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::report::Notice;
use crate::snapshot::Repository;

/// An endpoint that answers, and what it answers of.
struct Open {
    board: Board,
    asked: Arc<Asked>,
    folder: TempDir,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

const TOKEN: &str = "0123456789abcdef";

async fn open(token: Option<&str>) -> Open {
    let host = HostName::parse("attic").expect("a name");
    let repository = Repository { url: Some("ssh://git@forge/fleet.git".to_owned()), branch: "main".to_owned() };
    open_with(token, Snapshot::first(host, repository)).await
}

async fn open_with(token: Option<&str>, first: Snapshot) -> Open {
    let folder = tempfile::tempdir().expect("a folder");
    // Free now; whoever takes it meanwhile fails a test, and nothing else here listens.
    let address =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|it| it.local_addr()).expect("an address");
    let token = token.map(|token| {
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{token}\n")).expect("a file");
        path
    });
    let socket = folder.path().join("agent.sock");
    let endpoint = settings::Endpoint { socket, listen: vec![address], token, ..settings::Endpoint::default() };
    let state = folder.path().join("state");
    let settings = settings::Settings { endpoint, state, ..settings::Settings::default() };
    let host = HostName::parse("attic").expect("a name");
    let config = Config::of(&settings, &host).expect("a configuration");
    let board = Board::new(first);
    let (asked, progress) = (Arc::new(Asked::default()), Arc::new(Progress::default()));
    let tasks = super::open(config, &board, &asked, &progress, Duration::from_secs(600));
    let open = Open { board, asked, folder, address, _tasks: tasks };
    while UnixStream::connect(open.folder.path().join("agent.sock")).await.is_err() || open.tcp().await.is_err() {
        tokio::task::yield_now().await;
    }
    open
}

impl Open {
    async fn tcp(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.address).await
    }

    /// Sends something over TCP and returns what came back until the end.
    async fn send(&self, text: &str) -> String {
        let mut stream = self.tcp().await.expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("it is written");
        rest(&mut stream).await
    }

    /// Asks over the Unix socket for what may have no end, and returns what is there at once.
    async fn begin(&self, method: &str, path: &str) -> String {
        if path != "/v1/events" {
            return self.ask(method, path).await;
        }
        let mut stream = UnixStream::connect(self.folder.path().join("agent.sock")).await.expect("a connection");
        stream
            .write_all(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .expect("it is written");
        let mut buffer = vec![0; 16 << 10];
        let count = stream.read(&mut buffer).await.expect("it is read");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Asks over the Unix socket.
    async fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("agent.sock")).await.expect("a connection");
        let text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.expect("it is written");
        rest(&mut stream).await
    }
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes).await {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn what_is_known_is_told_over_the_socket() {
    let open = open(None).await;
    let status = open.ask("GET", "/v1/status").await;
    assert!(status.starts_with("HTTP/1.1 200 OK\r\n"), "{status}");
    for header in
        ["cache-control: no-store", "x-content-type-options: nosniff", "content-security-policy: default-src 'none'"]
    {
        assert!(status.contains(header), "{status}");
    }
    assert!(status.contains(r#""host":"attic""#) && status.contains(r#""condition":"starting""#), "{status}");
    assert!(open.ask("GET", "/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(open.ask("GET", "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(open.ask("GET", "/metrics").await.ends_with("# EOF\n"));
    assert!(open.ask("GET", "/v1/nothing").await.starts_with("HTTP/1.1 404 "));
    assert!(open.ask("GET", "/v1/sync").await.starts_with("HTTP/1.1 405 "));
    let head = open.ask("HEAD", "/v1/status").await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn who_asks_for_a_fetch_is_heard_once() {
    let open = open(None).await;
    for _ in 0..20 {
        assert!(open.ask("POST", "/v1/sync").await.starts_with("HTTP/1.1 202 "));
    }
    open.asked.next().await;
    let again = tokio::time::timeout(Duration::from_millis(10), open.asked.next()).await;
    assert!(again.is_err(), "twenty times is once");
}

#[tokio::test]
async fn events_follow_what_is_known() {
    let mut open = open(None).await;
    let mut stream = UnixStream::connect(open.folder.path().join("agent.sock")).await.expect("a connection");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is written");
    let mut seen = String::new();
    let mut until = async |words: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(words) {
            let count = stream.read(&mut buffer).await.expect("it is read");
            assert!(count > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    until("id: 0\nevent: status\ndata: {").await;
    open.board.notice(&Notice { unreachable: Some("no route".to_owned()), ..Notice::default() });
    until("id: 1\nevent: status\ndata: {").await;
    until(r#""unreachable":"no route""#).await;
    tokio::time::pause();
    until(": still here\n\n").await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_too_much_is_sent_away() {
    let open = open(None).await;
    let begun = tokio::time::Instant::now();
    for beginning in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let said = open.send(beginning).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // One that keeps its connection is sent away as well, a while after its last answer.
    let said = open.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(said.ends_with("ok\n"), "{said}");
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(100));
    for text in [long, many] {
        let mut stream = open.tcp().await.expect("a connection");
        // It may be closed before all of it is written.
        let written = stream.write_all(text.as_bytes()).await;
        let said = rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 431 ") || written.is_err(), "{said}");
    }
    // A body that nobody asked for is not waited for.
    let body = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n";
    assert!(open.send(body).await.ends_with("ok\n"));
    assert!(open.send("\0\x01\x02\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test(start_paused = true)]
async fn those_that_only_sit_there_keep_nobody_out() {
    let open = open(None).await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(open.tcp().await.expect("a connection"));
    }
    let said = open.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(said.ends_with("ok\n"), "{said}");
}

#[tokio::test]
async fn without_the_token_only_its_health_is_told() {
    let open = open(Some(TOKEN)).await;
    let ask = async |path: &str, more: &str| {
        open.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")).await
    };
    assert!(ask("/healthz", "").await.starts_with("HTTP/1.1 200 "));
    let refused = ask("/v1/status", "").await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("www-authenticate: Bearer"), "{refused}");
    assert!(ask("/v1/status", &format!("Authorization: Bearer {TOKEN}\r\n")).await.starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_others_can_reach_needs_a_certificate_and_a_token() {
    let check = |listen: &str, token: Option<&str>| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, token.unwrap_or_default()).expect("a file");
        let listen = vec![listen.parse().expect("an address")];
        let token = token.map(|_| path);
        let endpoint = settings::Endpoint { listen, token, ..settings::Endpoint::default() };
        let settings = settings::Settings { endpoint, ..settings::Settings::default() };
        let host = HostName::parse("attic").expect("a name");
        Config::of(&settings, &host).map(|_| ()).map_err(|error| error.to_string())
    };
    for listen in ["127.0.0.1:9105", "[::1]:9105", "127.8.8.8:1"] {
        assert_eq!(check(listen, None), Ok(()));
    }
    for listen in ["0.0.0.0:9105", "[::]:9105", "192.0.2.7:9105", "[::ffff:192.0.2.7]:9105"] {
        for token in [None, Some(TOKEN)] {
            let refused = check(listen, token).expect_err(listen);
            assert!(refused.contains("needs a certificate and a token"), "{refused}");
        }
    }
    for token in ["", "short", "0123456789abcde\u{7f}", "0123456789\nabcdef"] {
        let refused = check("127.0.0.1:1", Some(token)).expect_err(token);
        assert!(refused.contains("openssl rand -hex 32"), "{refused}");
    }
}
