//! Images from a registry that asks for a password: what `docker login` left on the host is used, and its absence is told.

use lab::Forge;

use crate::{agent, start};

/// `operator` with the password `open sesame`, as `htpasswd -B` writes it.
const USERS: &str = "operator:$2b$05$dS/ix8aL.8.tvfmmmBhU6.rLkqfgI8I41VKLNxNAT8wpsun68uJdG\n";

/// Serves the forge's images a second time, at another port and behind a password.
fn start_private_registry(forge: &Forge) {
    forge.write("/etc/forge/users", USERS).unwrap();
    let settings = "version: 0.1\nlog: { level: warn }\nstorage: { filesystem: { rootdirectory: /srv/registry } }\n\
                    http: { addr: \":5001\" }\nauth: { htpasswd: { realm: lab, path: /etc/forge/users } }\n";
    forge.write("/etc/forge/private.yml", settings).unwrap();
    forge
        .sh("systemd-run --quiet --unit private-registry --uid git /usr/bin/docker-registry serve /etc/forge/private.yml")
        .unwrap();
    forge.wait_for(agent::SOON, ": </dev/tcp/127.0.0.1/5001").unwrap();
}

#[test]
fn a_login_on_the_host_is_used() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.start_docker().unwrap();
    let image = forge.image("page", "1", "behind a password").unwrap();
    start_private_registry(&forge);
    let private = image.reference.replace(":5000/", ":5001/");
    let app = format!("containers:\n  page: {{ image: \"{private}\" }}\n");
    agent::write_folder(
        &host,
        "/root/fleet",
        &[("fleet.yaml", "fleet: home\nhosts: { attic: {} }\n"), ("apps/page/app.yaml", &app)],
    );

    let (code, said) = agent::once(&host, "/root/fleet");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("no basic auth credentials") || said.contains("unauthorized"), "{said}");

    host.write("/root/.docker/config.json", "{\"auths\": {}, \"credsStore\": \"secretservice\"}").unwrap();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("the credentials are kept by the helper `secretservice`"), "{said}");

    let address = private.split('/').next().unwrap();
    host.sh(&format!(
        "rm /root/.docker/config.json; echo 'open sesame' | docker login --username operator --password-stdin {address}"
    ))
    .unwrap();
    let said = agent::converge(&host, "/root/fleet");
    assert!(!said.contains("sesame"), "{said}");
    assert_eq!(host.sh("docker exec page cat /marker").unwrap(), "behind a password");
}
