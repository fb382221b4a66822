//! Requests and sockets through the fetcher's side, compared with those that this process makes itself.

use super::*;

/// Starts the fetcher's side, and returns where it listens.
fn fetcher(folder: &Path) -> PathBuf {
    let path = folder.join("fetch.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let server = std::sync::Arc::new(Server::default());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move {
                assert_eq!(stream.read_u8().await.expect("an opening"), OPENING);
                server.serve(stream).await
            });
        }
    });
    path
}

/// Answers `GET /length` with so many bytes, and anything else with what was asked.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.expect("a request");
                let asked = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                let body = match path.parse::<usize>() {
                    Ok(length) => "x".repeat(length),
                    Err(_) => asked.replace("\r\n", "|").to_lowercase(),
                };
                let head = format!("HTTP/1.1 200 OK\r\nX-It: yes\r\nContent-Length: {}\r\n", body.len());
                let sent = if path == "torn" { &body[..5] } else { &body };
                let answer = format!("{head}Connection: close\r\n\r\n{sent}");
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    address
}

async fn told(web: &Web, asked: Asked) -> String {
    let mut answer = match web.send(asked).await {
        Ok(answer) => answer,
        Err(error) => return format!("{}: {error}", error.is_ours),
    };
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => body.extend(piece),
            Ok(None) => break,
            Err(error) => return format!("{} after {}: {error}", error.is_ours, body.len()),
        }
    }
    let it: Vec<&str> = answer.headers("x-it").collect();
    let body = String::from_utf8_lossy(&body);
    let body = if body.len() > 1000 { body.len().to_string() } else { body.into_owned() };
    format!("{} {it:?} {:?} {body}", answer.status(), answer.length())
}

#[tokio::test]
async fn what_the_fetcher_asks_is_what_this_process_would() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, path) = (server().await, fetcher(folder.path()));
    let (here, apart) = (Web::new(Manner::Check, None), Web::new(Manner::Check, Some(path.clone())));
    let at = |path: &str| format!("http://{address}/{path}");
    let all = || {
        [
            Asked::get(&at("plain")),
            Asked::post(&at("sent"), "some text").with("Authorization", "Bearer token").with("X-Two", "2"),
            Asked::get(&at("5000000")),
            Asked::get(&at("torn")),
            Asked::get("http://127.0.0.1:1/"),
            Asked::get("nonsense"),
            Asked::get(&at("x")).with("X-Bad", "a\nb"),
        ]
    };
    for (one, other) in all().into_iter().zip(all()) {
        let url = one.url.clone();
        let (told_here, told_apart) = (told(&here, one).await, told(&apart, other).await);
        assert_eq!(told_here, told_apart, "{url}");
    }
    let sent = told(&apart, Asked::post(&at("sent"), "some text").with("X-Two", "2")).await;
    assert!(
        sent.starts_with("200 [\"yes\"]") && sent.contains("|x-two: 2|") && sent.ends_with("||some text"),
        "{sent}"
    );
    assert!(told(&apart, Asked::get(&at("5000000"))).await.ends_with(" 5000000"));
    assert!(told(&apart, Asked::get(&at("torn"))).await.starts_with("false after 5: "));
    for web in [&here, &apart] {
        assert!(web.knock(&address).await.is_ok());
        assert!(web.knock("127.0.0.1:1").await.is_err_and(|error| error.to_string().contains("refused")));
    }
    let gone = Web::new(Manner::Check, Some(folder.path().join("nobody")));
    assert!(told(&gone, Asked::get(&at("plain"))).await.starts_with("true: nobody listens at "));
}

#[tokio::test]
async fn a_socket_is_passed_on_and_taken_ones_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = fetcher(folder.path());
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = listen(any, Some(&path)).await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (accepted, connected) = tokio::join!(listener.accept(), tokio::net::TcpStream::connect(address));
    assert_eq!(accepted.expect("a connection").1, connected.expect("a connection").local_addr().expect("its own"));
    let taken = listen(address, Some(&path)).await.expect_err("it is taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn what_is_fetched_over_tls_stays_there() {
    let url = |text: &str| Url::parse(text).expect("a URL");
    let before = [url("https://ci.example/x")];
    assert_eq!(flaw(&before, &url("https://cdn.example/x?signature=y")), None);
    assert!(flaw(&before, &url("http://cdn.example/x")).is_some());
    assert!(flaw(&before, &url("https://me@cdn.example/x")).is_some());
    assert_eq!(flaw(&[url("http://127.0.0.1/x")], &url("https://cdn.example/x")), None);
}
