//! A server on loopback that answers as it is told, and what comes of it in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What is answered to a GET of a path: these bytes, and then the end, or nothing ever.
enum Answer {
    Whole(Vec<u8>),
    Stalls(Vec<u8>),
}

async fn serve(answers: Vec<(&'static str, Answer)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    serve_on(listener, answers.into_iter().map(|(path, answer)| (path.to_owned(), answer)).collect());
    address
}

/// Answers by path, or by path and `Authorization`, where there is an answer for both together.
fn serve_on(listener: TcpListener, answers: Vec<(String, Answer)>) {
    let answers: Arc<BTreeMap<String, Answer>> = Arc::new(answers.into_iter().collect());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = text.split(' ').nth(1).expect("a path").to_owned();
                let header = |line: &str| {
                    line.split_once(':')
                        .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
                        .map(|it| it.1.trim().to_owned())
                };
                let both = text.lines().find_map(header).map(|authorization| format!("{path} {authorization}"));
                let key = both.filter(|both| answers.contains_key(both)).unwrap_or(path);
                match &answers[&key] {
                    Answer::Whole(bytes) => stream.write_all(bytes).await.expect("an answer"),
                    Answer::Stalls(bytes) => {
                        stream.write_all(bytes).await.expect("an answer");
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
}

fn ok(body: &str) -> Answer {
    Answer::Whole(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn redirect_to(to: &str) -> Answer {
    Answer::Whole(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

struct Ground {
    state: tempfile::TempDir,
    store: Store,
    fetcher: Fetcher,
}

fn ground() -> Ground {
    let state = tempfile::tempdir().expect("a folder");
    let store = Store::of(state.path(), Arc::default());
    let logins = vec![state.path().join("logins")];
    let fetcher = Fetcher { stall: Some(Duration::from_millis(300)), ..Fetcher::new(logins, None) };
    Ground { state, store, fetcher }
}

impl Ground {
    async fn fetch(&self, url: String, content: &str, limit: u64) -> Result<(), String> {
        let sha256 = Digest::of(content.as_bytes());
        let origin = Origin { url, sha256, limit, unpack: None };
        let deadline = Duration::from_secs(20);
        let fetched = self.fetcher.fetch(&origin, &self.store, deadline, &Progress::default()).await;
        assert_eq!(fetched.is_ok(), self.store.has(sha256), "in the store exactly when it is right");
        fetched.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn what_is_wanted_comes_and_is_not_asked_for_twice() {
    let ground = ground();
    let address = serve(vec![("/a", ok("artifact")), ("/b", redirect_to("/a")), ("/c", redirect_to("/c"))]).await;
    assert_eq!(ground.fetch(format!("http://{address}/b"), "artifact", 8).await, Ok(()));
    assert_eq!(ground.fetch("http://127.0.0.1:1/away".to_owned(), "artifact", 8).await, Ok(()));
    let circle = ground.fetch(format!("http://{address}/c"), "other", 8).await.expect_err("a circle");
    assert!(circle.ends_with("which is not followed: there were too many before it"), "{circle}");
}

#[tokio::test]
async fn what_is_not_as_wanted_is_not_kept_and_says_why() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nlarge\r\n5\r\nlarge\r\n0\r\n\r\n";
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsho";
    let address = serve(vec![
        ("/absent", Answer::Whole(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("/partial", Answer::Whole(b"HTTP/1.1 206 Partial Content\r\ncontent-length: 1\r\n\r\na".to_vec())),
        ("/other", ok("something else")),
        ("/large", ok("larger than its limit")),
        ("/chunked", Answer::Whole(chunked.as_bytes().to_vec())),
        ("/short", Answer::Whole(short.as_bytes().to_vec())),
        ("/silent", Answer::Stalls(Vec::new())),
        ("/stalls", Answer::Stalls(short.as_bytes().to_vec())),
        ("/elsewhere", redirect_to("http://me:secret@127.0.0.1/x?token=secret")),
    ])
    .await;
    let ground = ground();
    let digests = |came: &str| (Digest::of(came.as_bytes()), Digest::of(b"wanted"));
    let (came, wanted) = digests("something else");
    for (path, expected) in [
        ("absent", "the server answered 404 Not Found".to_owned()),
        ("partial", "the server answered 206 Partial Content".to_owned()),
        ("other", format!("the sha256 of what came is {came}, and {wanted} is wanted (14 bytes)")),
        ("large", "it has more than 16 bytes; `limit` of its entry allows more".to_owned()),
        ("silent", "nothing came for 300ms".to_owned()),
        (
            "elsewhere",
            "the server redirects to http://127.0.0.1/x, which is not followed: it holds a user or password".to_owned(),
        ),
    ] {
        let url = format!("http://{address}/{path}");
        let said = ground.fetch(url.clone(), "wanted", 16).await.expect_err(path);
        assert_eq!(said, format!("failed to fetch {url}: {expected}"));
    }
    let large = ground.fetch(format!("http://{address}/chunked"), "wanted", 8).await.expect_err("too large");
    assert!(large.contains("more than 8 bytes"), "{large}");
    let stalls = ground.fetch(format!("http://{address}/stalls"), "wanted", 200).await.expect_err("it stalls");
    assert!(stalls.ends_with("nothing came for 300ms"), "{stalls}");
    let short = ground.fetch(format!("http://{address}/short"), "sho", 200).await.expect_err("cut short");
    assert!(short.contains("body"), "{short}");
    let away = ground.fetch("http://127.0.0.1:1/x".to_owned(), "wanted", 8).await.expect_err("nobody is there");
    assert!(away.contains("refused"), "{away}");
}

/// A registry that wants a token, and a service that gives one for `me` with `secret`.
async fn registry(manifest: &str, layer: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let challenge = format!(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{address}/token\",service=\"here\"\r\n\
         content-length: 0\r\n\r\n"
    );
    let token = "/token?scope=repository%3Ateam%2Fbridge%3Apull&service=here";
    let blob = format!("/v2/team/bridge/blobs/sha256:{}", Digest::of(layer.as_bytes()));
    let denied = || Answer::Whole(challenge.clone().into_bytes());
    serve_on(
        listener,
        vec![
            ("/v2/team/bridge/manifests/1".to_owned(), denied()),
            ("/v2/team/bridge/manifests/1 Bearer T".to_owned(), ok(manifest)),
            (blob.clone(), denied()),
            (format!("{blob} Bearer T"), redirect_to("/elsewhere")),
            ("/elsewhere".to_owned(), ok(layer)),
            (token.to_owned(), Answer::Whole(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec())),
            (format!("{token} Basic bWU6c2VjcmV0"), ok(r#"{"token": "T", "expires_in": 60}"#)),
        ],
    );
    address
}

#[tokio::test]
async fn a_registry_gives_the_layer_that_is_wanted_to_who_may_have_it() {
    let digest = |content: &str| Digest::of(content.as_bytes());
    let manifest = format!(
        r#"{{"layers": [{{"digest": "sha256:{}", "size": 3}}, {{"digest": "sha256:{}", "size": 8}}]}}"#,
        digest("one"),
        digest("artifact")
    );
    let address = registry(&manifest, "artifact").await;
    let ground = ground();
    let url = format!("oci://{address}/team/bridge:1");
    let said = ground.fetch(url.clone(), "artifact", 100).await.expect_err("nobody may have it");
    assert!(said.ends_with("the registry answered 401 Unauthorized: this host has no credentials for it"), "{said}");
    let logins = format!(r#"{{"auths": {{"{address}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
    std::fs::write(ground.state.path().join("logins"), logins).expect("written");
    assert_eq!(ground.fetch(url.clone(), "artifact", 100).await, Ok(()));
    let said = ground.fetch(url.clone(), "other", 100).await.expect_err("no such layer");
    let layers = format!(
        "it has no layer sha256:{}, but sha256:{}, sha256:{}",
        digest("other"),
        digest("one"),
        digest("artifact")
    );
    assert_eq!(said, format!("failed to fetch {url}: {layers}"));

    let address = registry(r#"{"manifests": []}"#, "artifact").await;
    let logins = format!(r#"{{"auths": {{"{address}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
    std::fs::write(ground.state.path().join("logins"), logins).expect("written");
    let said = ground.fetch(format!("oci://{address}/team/bridge:1"), "more", 100).await.expect_err("a list");
    assert!(said.contains("a list of images for several platforms"), "{said}");
}
