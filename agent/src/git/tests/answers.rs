//! What an operator reads when a server answers something else than git.

use super::servers::server;
use super::*;

/// Fetches from a server that reads a request and answers `text`, and prints the error.
fn read_out(text: &str) -> String {
    let scheme = if text.starts_with("HTTP") { "http" } else { "git" };
    let text = text.to_owned();
    let port = server(move |mut stream| {
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).is_ok());
        stream.write_all(text.as_bytes()).expect("sent");
    });
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let remote = remote(&format!("{scheme}://127.0.0.1:{port}/fleet.git"));
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("no git");
    crate::chain(&error).replace(&format!(":{port}"), ":1")
}

#[test]
fn what_a_server_answers_instead_of_git_is_told_with_what_to_do() {
    let git = "Content-Type: application/x-git-upload-pack-advertisement";
    let http = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let login = "https://login.example.org/fleet.git/info/refs?service=git-upload-pack";
    let answers = [
        ("a login page", http("200 OK", "Content-Type: text/html; charset=utf-8", "<html>Sign in</html>")),
        ("no content type", http("200 OK", "X: y", "hi")),
        ("no git", http("200 OK", git, "zzzz")),
        ("401", http("401 Unauthorized", "WWW-Authenticate: Basic realm=\"forge\"", "")),
        ("403", http("403 Forbidden", "X: y", "")),
        ("404", http("404 Not Found", "X: y", "")),
        ("redirect", http("302 Found", &format!("Location: {login}"), "")),
        ("busy", http("503 Service Unavailable", "Retry-After: 30", "")),
        ("asked too often", http("429 Too Many Requests", "Retry-After: 30", "")),
        ("cut off", http("200 OK", git, "000eversion 2\n").replace("Length: 14", "Length: 500")),
        ("ssh", "SSH-2.0-OpenSSH_9.9\r\n".to_owned()),
        ("closed", String::new()),
        ("hidden", line("ERR access denied or repository not exported: /fleet.git")),
        ("overrun", line("ERR too many clients, sleep 10\n")),
    ];
    let read: String = answers.iter().map(|(name, bytes)| format!("{name}: {}\n", read_out(bytes))).collect();
    expect_test::expect![[r#"
        a login page: failed to reach http://127.0.0.1:1/fleet.git: the answer is `text/html; charset=utf-8` and not git's: the address may be incomplete, want a token, or be no smart git server's
        no content type: failed to reach http://127.0.0.1:1/fleet.git: the answer is of no type and not git's: the address may be incomplete, want a token, or be no smart git server's
        no git: failed to reach http://127.0.0.1:1/fleet.git: the answer is not git's: check that the address and the port are those of a git server
        401: http://127.0.0.1:1/fleet.git does not let us read it: the server answered 401 Unauthorized: it wants a token, and none is set: name a file that holds one with `git.token`
        403: http://127.0.0.1:1/fleet.git does not let us read it: the server answered 403 Forbidden: it may want a token, and none is set: name a file that holds one with `git.token`
        404: http://127.0.0.1:1/fleet.git does not let us read it: the server answered 404 Not Found: there is no such repository, or it is shown only to who has a token: check the path, or name a file that holds one with `git.token`
        redirect: failed to set up the connection to http://127.0.0.1:1/fleet.git: the server redirects to https://login.example.org/fleet.git: redirects are not followed, set that address
        busy: failed to reach http://127.0.0.1:1/fleet.git: the server answered 503 Service Unavailable
        asked too often: failed to reach http://127.0.0.1:1/fleet.git: the server answered 429 Too Many Requests: it is asked too often
        cut off: failed to reach http://127.0.0.1:1/fleet.git: error reading a body from connection: end of file before message length reached
        ssh: failed to reach git://127.0.0.1:1/fleet.git: the answer is not git's: check that the address and the port are those of a git server
        closed: failed to reach git://127.0.0.1:1/fleet.git: the server closed the connection
        hidden: git://127.0.0.1:1/fleet.git does not let us read it: access denied or repository not exported: /fleet.git: check the address and who may read it
        overrun: failed to reach git://127.0.0.1:1/fleet.git: too many clients, sleep 10
    "#]].assert_eq(&read);
}

fn line(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// Answers the list of refs properly, and the request for the pack with `pack`; prints the error.
fn read_out_pack(pack: String) -> String {
    let port = server(move |mut stream| {
        let mut request = [0; 65536];
        let list = line(&format!("{} refs/heads/main\n", "a".repeat(40)));
        let capabilities = ["version 2\n", "agent=x\n", "ls-refs\n", "fetch\n", "object-format=sha1\n"].map(line);
        for answer in [format!("{}0000", capabilities.concat()), format!("{list}0000"), pack.clone()] {
            assert!(stream.read(&mut request).is_ok());
            stream.write_all(answer.as_bytes()).expect("sent");
        }
    });
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let remote = remote(&format!("git://127.0.0.1:{port}/fleet.git"));
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("no pack");
    crate::chain(&error).replace(&format!(":{port}"), ":1")
}

#[test]
fn what_is_wrong_with_a_pack_is_told() {
    let pack = |content: &str| format!("{}{}", line("packfile\n"), line(content));
    let packs = [
        ("cut off", pack("\u{1}PACK\0\0\0\u{2}\0\0\0\u{3}")),
        ("ended", pack("\u{1}PACK\0\0\0\u{2}\0\0\0\u{3}") + "0000"),
        ("garbage", pack("\u{1}no pack at all") + "0000"),
        ("the server fails", pack("\u{3}upload-pack: out of memory\n")),
        ("the branch moved", line("ERR upload-pack: not our ref aaaaaaaa")),
        ("2 million objects", pack("\u{1}PACK\0\0\0\u{2}\0\u{20}\0\0") + "0000"),
        ("2 billion objects", pack("\u{1}PACK\0\0\0\u{2}\u{7f}\0\0\0") + "0000"),
    ];
    let read: String = packs.into_iter().map(|(name, pack)| format!("{name}: {}\n", read_out_pack(pack))).collect();
    expect_test::expect![[r#"
        cut off: failed to reach git://127.0.0.1:1/fleet.git: the server closed the connection
        ended: failed to reach git://127.0.0.1:1/fleet.git: what it sent ends too early: failed to fill whole buffer
        garbage: failed to take over what git://127.0.0.1:1/fleet.git sent: Pack data type not recognized
        the server fails: failed to reach git://127.0.0.1:1/fleet.git: the server gave up: upload-pack: out of memory
        the branch moved: failed to reach git://127.0.0.1:1/fleet.git: Could not decode server reply: Failed to read from line reader: upload-pack: not our ref aaaaaaaa
        2 million objects: git://127.0.0.1:1/fleet.git sent more than 262144 objects at once: if the repository is that large, raise `git.max-size` in the settings of the host
        2 billion objects: git://127.0.0.1:1/fleet.git sent more than 262144 objects at once: if the repository is that large, raise `git.max-size` in the settings of the host
    "#]].assert_eq(&read);
}

#[test]
fn a_pack_that_unpacks_to_too_much_is_refused() {
    let fixture = Fixture::new();
    fixture.commit("zeros", &[("a", &"0".repeat(3 << 20)), ("b", &"1".repeat(3 << 20))]);
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    let remote = daemon.remote().within(Bounds { unpacked: 1 << 20, ..LARGE });
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("too much");
    assert!(matches!(error, FetchError::TooLarge { cap: Cap::Unpacked(_), .. }), "{error:?}");
    let remote = daemon.remote().within(Bounds { objects: 3, ..LARGE });
    let error = mirror.fetch(&remote, &quick(), &NO).expect_err("too many");
    assert!(matches!(error, FetchError::TooLarge { cap: Cap::Objects(3), .. }), "{error:?}");
    assert_eq!(fs::read_dir(fixture.mirror_dir().join("objects/pack")).expect("packs").count(), 0);
    assert!(fetch(&mut mirror, &daemon.remote()).changed);
}
