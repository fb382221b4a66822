//! The examples of this repository, each deployed as it stands on a host of its own: what a newcomer copies has to work.

use std::path::Path;
use std::time::Duration;

use lab::{Forge, Host, Lab};

use crate::{agent, start};

/// Where an example is on its host.
const FOLDER: &str = "/root/example";

/// Boots a host and puts an example and the agent onto it.
fn host_with(lab: &Lab, name: &str, example: &str) -> Host {
    let host = lab.boot(name).unwrap();
    agent::install(&host);
    copy(&host, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example), FOLDER);
    host
}

fn copy(host: &Host, from: &Path, to: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = format!("{to}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            copy(host, &entry.path(), &to);
        } else {
            host.copy_in(&entry.path(), &to).unwrap();
        }
    }
}

/// A database and the shop's own image, under the names that the examples use.
fn publish_images(forge: &Forge) {
    forge
        .image_made_by(
            "library/redis",
            "8",
            "with_programs redis-server redis-cli; mkdir $image/data",
            &["redis-server"],
        )
        .unwrap();
    let page = include_str!("../../examples/shop/image/www/cgi-bin/index.cgi");
    let script = format!(
        "mkdir -p $image/www/cgi-bin; cat >$image/www/cgi-bin/index.cgi <<'PAGE'\n{page}PAGE\nchmod +x $image/www/cgi-bin/*"
    );
    forge.image_made_by("mainstay/shop", "1", &script, &["httpd", "-f", "-p", "8080", "-h", "/www"]).unwrap();
}

/// Replaces text in a file of the example.
fn edit(host: &Host, file: &str, from: &str, to: &str) {
    let path = format!("{FOLDER}/{file}");
    let text = host.read(&path).unwrap();
    assert!(text.contains(from), "{path} holds no {from}");
    host.write(&path, text.replace(from, to)).unwrap();
}

/// Asks a page until it answers as it should.
fn page(host: &Host, url: &str, text: &str) {
    host.wait_for(Duration::from_secs(30), &format!("curl -sS --max-time 5 '{url}' | grep -qF '{text}'")).unwrap();
}

fn assert_nothing_to_do(host: &Host) {
    assert_eq!(agent::steps(&agent::plan(host, FOLDER)), Vec::<String>::new());
}

#[test]
fn the_shop_of_a_compose_project() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    publish_images(&forge);
    let host = host_with(&lab, "till", "shop");
    forge.stand_in_for_docker_hub(&host).unwrap();
    host.start_docker().unwrap();

    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8080/", "apples 2.40 EUR");
    page(&host, "http://127.0.0.1:8080/cgi-bin/index.cgi?order", "orders so far: 1");
    assert_nothing_to_do(&host);

    let started = "docker inspect --format '{{.State.StartedAt}}' shop-db-1";
    let before = host.sh(started).unwrap();
    edit(&host, "apps/shop/prices.txt", "2.40", "2.60");
    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8080/", "apples 2.60 EUR");
    page(&host, "http://127.0.0.1:8080/", "orders so far: 1");
    assert_eq!(host.sh(started).unwrap(), before, "a price restarted the database");

    // What the README of the example promises: the check fails, and the shop is what it was.
    edit(&host, "apps/shop/compose.yaml", "DB_PORT: \"6379\"", "DB_PORT: \"6380\"");
    edit(&host, "apps/shop/app.yaml", "within: 30s", "within: 3s");
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    page(&host, "http://127.0.0.1:8080/", "orders so far: 1");
    let (_, plan) = (agent::once(&host, FOLDER), agent::steps(&agent::plan(&host, FOLDER)));
    assert_eq!(plan, Vec::<String>::new(), "what failed is tried again and again");
}

#[test]
fn the_quadlet_stack() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    publish_images(&forge);
    let host = host_with(&lab, "desk", "stack");
    forge.stand_in_for_docker_hub(&host).unwrap();

    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8081/cgi-bin/index.cgi?order", "orders so far: 1");
    assert_eq!(host.sh("podman pod ps --format '{{.Name}}'; podman volume ls --quiet").unwrap(), "notes\nnotes-data\n");
    assert_nothing_to_do(&host);

    let before = agent::invocation(&host, "notes-db");
    edit(&host, "apps/notes/files/etc/notes/web.env", "SHOP_NAME=Notes", "SHOP_NAME=Memos");
    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8081/", "Memos");
    page(&host, "http://127.0.0.1:8081/", "orders so far: 1");
    assert_eq!(agent::invocation(&host, "notes-db"), before, "the database was restarted for the web server's sake");

    // The web server requires the database, and without both the pod ends.
    host.sh(&format!("echo '# more' >>{FOLDER}/apps/notes/files/etc/notes/redis.conf")).unwrap();
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    for unit in ["notes-db", "notes-web", "notes-pod"] {
        assert!(steps.contains(&format!("restart {unit}.service")), "{steps:?}");
    }
    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8081/", "orders so far: 1");
    assert_nothing_to_do(&host);
}

#[test]
fn the_plain_binary() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = host_with(&lab, "porch", "plain");
    forge.trust_https(&host).unwrap();
    let busybox = forge.read_bytes("/bin/busybox").unwrap();
    forge.publish("busybox", &busybox).unwrap();
    let sum = forge.sh("sha256sum </bin/busybox | cut -d' ' -f1").unwrap();
    edit(&host, "apps/greeter/app.yaml", "https://releases.example/busybox-1.36.1", "https://forge/busybox");
    edit(&host, "apps/greeter/app.yaml", &"0".repeat(64), sum.trim());

    agent::converge(&host, FOLDER);
    page(&host, "http://127.0.0.1:8082/", "Good morning.");
    assert_nothing_to_do(&host);
    let exposure = host.sh("systemd-analyze security --no-pager greeter.service | tail -n 1").unwrap();
    assert!(exposure.contains("OK"), "{exposure}");
}

#[test]
fn the_brokers() {
    let Some(lab) = start() else { return };
    let host = host_with(&lab, "attic", "brokers");
    agent::converge(&host, FOLDER);
    host.sh("mosquitto_pub -h 127.0.0.1 -t house/door -m open -q 1 -r").unwrap();
    assert_eq!(host.sh("mosquitto_sub -h 127.0.0.1 -t house/door -C 1 -W 10").unwrap(), "open\n");
    assert_nothing_to_do(&host);
}
