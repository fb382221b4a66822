//! Mistakes with what lets a host reach its repository, as `mainstay status` and the journal tell them.
//!
//! What a case brings beside files of the host: `the server answers` with the head of an answer over http; `the server's
//! certificate` names a file of `tests/messages/certificates`; `the repository` lists commands for it; `ssh says` is what a real
//! `ssh` complained about, since not every machine that builds mainstay runs a server for it. `SERVER` stands for the address of
//! the server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Case, cases, folder};
use crate::git::FetchError;
use crate::git::tests::servers::server;
use crate::git::tests::{Fixture, refused_by_ssh};
use crate::settings::Settings;
use crate::upstream::{Done, Question, Upstream};

#[test]
fn mistakes_with_credentials() {
    for case in cases("credentials") {
        case.says("mainstay status", &told(&case));
    }
}

fn told(case: &Case) -> String {
    let find = |header: &str| case.files.iter().find(|(found, _)| found.starts_with(header));
    if let Some((_, said)) = find("ssh says") {
        return crate::chain(&refused_by_ssh("git@git.example:ops/fleet.git", said));
    }
    let (scratch, fixture) = (tempfile::tempdir().expect("a folder"), Fixture::new());
    let root = scratch.path().to_str().expect("a path is UTF-8").to_owned();
    fs::create_dir_all(format!("{root}/etc/mainstay")).expect("folders");
    fs::copy(folder("certificates/ca.pem"), format!("{root}/etc/mainstay/ca.pem")).expect("a file");
    if find("the repository is empty").is_some() {
        fs::remove_dir_all(fixture.served()).expect("a repository");
        let init = ["init", "--quiet", "--bare", "--initial-branch=main"];
        let made = std::process::Command::new("git").args(init).arg(fixture.served()).status().expect("git is there");
        assert!(made.success(), "an empty repository");
    }
    let certificate = find("the server's certificate").and_then(|(header, _)| header.rsplit(' ').next());
    let port = match find("the server answers") {
        Some((_, head)) => answering(head, certificate),
        // Nobody listens there.
        None => 1,
    };
    for (path, text) in case.files.iter().filter(|(path, _)| path.starts_with('/')) {
        let text = text.replace(" /etc/", &format!(" {root}/etc/")).replace("SERVER", &format!("127.0.0.1:{port}"));
        let text = text.replace("REPOSITORY", fixture.served().to_str().expect("a path is UTF-8"));
        fs::write(format!("{root}{path}"), text).expect("a file");
    }
    let said = crate::settings::read(Some(Path::new(&format!("{root}/etc/mainstay/agent.yaml"))), false);
    let settings = Settings { state: scratch.path().join("state"), ..Settings::from(&said.expect("settings")) };
    let text = crate::chain(&refused(&settings)).replace(&root, "").replace(&format!("127.0.0.1:{port}"), "SERVER");
    text.replace(fixture.served().to_str().expect("a path is UTF-8"), "REPOSITORY")
}

/// Fetches what cannot be.
fn refused(settings: &Settings) -> FetchError {
    let mut upstream = Upstream::open(settings).expect("a mirror");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        upstream.fetch(Question::default());
        upstream.done().await
    });
    let Done::Fetched(Err(error)) = done else { panic!("it can be fetched") };
    error
}

/// Answers every request alike, over TLS where there is a certificate.
fn answering(head: &str, certificate: Option<&str>) -> u16 {
    let answer = format!("{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
    let tls = certificate.map(|name| Arc::new(shown(name)));
    server(move |mut stream| match &tls {
        None => exchange(&mut stream, &answer),
        Some(tls) => {
            let connection = rustls::ServerConnection::new(Arc::clone(tls)).expect("a connection");
            exchange(&mut rustls::StreamOwned::new(connection, stream), &answer);
        }
    })
}

/// Reads a request and answers it; who does not trust us goes away before.
fn exchange(stream: &mut (impl std::io::Read + std::io::Write), answer: &str) {
    let mut request = [0; 4096];
    if stream.read(&mut request).is_ok() {
        drop(stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()));
    }
}

fn shown(name: &str) -> rustls::ServerConfig {
    crate::tls::ensure_provider();
    let file = |name: &str| folder(&format!("certificates/{name}.pem"));
    let chain = vec![CertificateDer::from_pem_file(file(name)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
    rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("they go together")
}

/// Whoever answers for a server that was given a token could send it on to somebody else.
#[test]
fn a_redirect_brings_nothing_to_anybody_else() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let visitors = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visitors);
    let elsewhere = server(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let scratch = tempfile::tempdir().expect("a folder");
    let root = scratch.path().to_str().expect("a path is UTF-8");
    fs::write(format!("{root}/token"), "s3cret\n").expect("a file");
    for (number, status) in ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"].iter().enumerate()
    {
        for scheme in ["http", "https"] {
            let port = answering(
                &format!("HTTP/1.1 {status}\nLocation: {scheme}://127.0.0.1:{elsewhere}/fleet.git"),
                Some("valid"),
            );
            let text = format!(
                "repository: https://127.0.0.1:{port}/fleet.git\ngit: {{ token: {root}/token, ca: {} }}\n",
                folder("certificates/ca.pem").display()
            );
            fs::write(format!("{root}/agent.yaml"), text).expect("a file");
            let said = crate::settings::read(Some(Path::new(&format!("{root}/agent.yaml"))), false);
            let state = scratch.path().join(format!("state{number}{scheme}"));
            let settings = Settings { state, ..Settings::from(&said.expect("settings")) };
            let said = crate::chain(&refused(&settings));
            assert!(said.contains("redirects are not followed"), "{said}");
        }
    }
    assert_eq!(visitors.load(Ordering::SeqCst), 0);
}
