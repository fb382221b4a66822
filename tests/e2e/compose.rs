//! Compose projects, on Docker and on Podman's socket: what they bring, what a change concerns, and what stays.

use std::collections::BTreeMap;

use lab::{Forge, Host};

use crate::{agent, start};

const FOLDER: &str = "/root/fleet";
const FLEET: &str = "fleet: home\nhosts: { attic: {} }\n";
/// Enough beside the project that it may go as a whole without a person's word.
const BESIDE: usize = 60;

const COMPOSE: &str = r#"
x-common: &common
  image: ${IMAGE:?set in .env}
  restart: unless-stopped
services:
  db:
    <<: *common
    command: [sh, -c, "touch /data/ready; exec sleep 1000"]
    volumes: [data:/data]
    healthcheck: { test: [CMD, test, -e, /data/ready], interval: 1s, timeout: 5s, retries: 3 }
    networks: { back: { aliases: [database] } }
  migrate:
    <<: *common
    restart: "no"
    command: sh -c "echo 'once more' >>/data/log"
    volumes: [data:/data]
    depends_on: { db: { condition: service_healthy } }
    networks: [back]
  web:
    <<: *common
    command: [httpd, -f, -p, "8080", -h, /www]
    ports: ["8080:8080"]
    env_file: web.env
    environment: { GREETING: "it costs $$5" }
    volumes: ["./conf:/etc/web:ro", "./state:/state"]
    secrets: [{ source: password, uid: "65534", mode: 0400 }]
    configs: [{ source: page, target: /www/index.html }]
    networks: [front, back]
    depends_on:
      db: { condition: service_healthy, restart: true }
      migrate: { condition: service_completed_successfully }
    deploy: { resources: { limits: { memory: 64M } } }
  beside:
    <<: *common
    command: [sleep, "1000"]
    network_mode: service:web
  debug:
    <<: *common
    profiles: [debug]
networks:
  front:
  back: { internal: true }
volumes:
  data: { labels: { holds: orders } }
configs:
  page: { content: "hello from ${COLOUR}\n" }
secrets:
  password: { file: ./password.txt }
"#;

/// A folder of desired state that can be changed file by file.
struct Wanted<'h> {
    host: &'h Host,
    files: BTreeMap<String, String>,
}

impl<'h> Wanted<'h> {
    fn new(forge: &Forge, host: &'h Host) -> Wanted<'h> {
        let image = forge.image("shop", "1", "one").unwrap();
        let mut files = BTreeMap::from([
            ("fleet.yaml".to_owned(), FLEET.to_owned()),
            ("apps/shop/compose.yaml".to_owned(), COMPOSE.to_owned()),
            ("apps/shop/.env".to_owned(), format!("IMAGE={}\nCOLOUR=red\n", image.reference)),
            ("apps/shop/web.env".to_owned(), "LEVEL=info # quiet\n".to_owned()),
            ("apps/shop/conf/web.conf".to_owned(), "port 8080\n".to_owned()),
            ("apps/shop/password.txt".to_owned(), "hunter2".to_owned()),
        ]);
        files.extend((0..BESIDE).map(|at| (format!("apps/other/files/srv/other/{at}"), "x\n".to_owned())));
        Wanted { host, files }
    }

    /// Replaces text in a file; nothing of it may be elsewhere.
    fn edit(&mut self, file: &str, from: &str, to: &str) {
        let text = self.files.get_mut(file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
        *text = text.replace(from, to);
    }

    fn write(&self) {
        let files: Vec<(&str, &str)> = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        agent::write_folder(self.host, FOLDER, &files);
    }

    fn converge(&self) -> String {
        self.write();
        agent::converge(self.host, FOLDER)
    }
}

/// The project's containers that exist, with their ids.
fn containers(host: &Host, engine: &str) -> BTreeMap<String, String> {
    let said = host.sh(&format!("{engine} ps --all --no-trunc --format '{{{{.Names}}}} {{{{.ID}}}}'")).unwrap();
    said.lines().filter_map(|line| line.split_once(' ')).map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
}

/// The names of what is not the same container as before, or gone, or new.
fn changed(before: &BTreeMap<String, String>, host: &Host, engine: &str) -> Vec<String> {
    agent::changes(before, &containers(host, engine))
}

/// The story that has to be the same on both engines.
fn a_project_lives(forge: &Forge, host: &Host, engine: &str) {
    let mut wanted = Wanted::new(forge, host);
    if engine == "podman" {
        // The lab's hosts delegate no memory controller to it.
        wanted.edit("apps/shop/compose.yaml", "    deploy: { resources: { limits: { memory: 64M } } }\n", "");
    }
    let said = wanted.converge();
    assert!(!said.contains("hunter2"), "{said}");
    let all = ["shop-beside-1", "shop-db-1", "shop-migrate-1", "shop-web-1"];
    assert_eq!(containers(host, engine).into_keys().collect::<Vec<_>>(), all);
    assert_eq!(agent::steps(&agent::plan(host, FOLDER)), Vec::<String>::new());
    let inside = |container: &str, script: &str| host.sh(&format!("{engine} exec {container} {script}")).unwrap();
    assert_eq!(inside("shop-web-1", "cat /etc/web/web.conf /www/index.html"), "port 8080\nhello from red\n");
    assert_eq!(inside("shop-web-1", "stat -c '%a %u' /run/secrets/password"), "400 65534\n");
    assert_eq!(inside("shop-web-1", "sh -c 'echo \"$LEVEL, $GREETING\"'"), "info, it costs $5\n");
    assert_eq!(inside("shop-db-1", "cat /data/log"), "once more\n");
    inside("shop-web-1", "nslookup database");
    inside("shop-web-1", "touch /state/kept");
    host.sh("test \"$(curl -sS http://127.0.0.1:8080/)\" = 'hello from red'; test -e /srv/compose/shop/state/kept")
        .unwrap();

    // A changed environment file concerns its service, and what lives in that one's network; nothing else.
    let before = containers(host, engine);
    wanted.edit("apps/shop/web.env", "info", "debug");
    wanted.converge();
    assert_eq!(changed(&before, host, engine), ["shop-beside-1", "shop-web-1"]);
    // So does a file that is mounted.
    let before = containers(host, engine);
    wanted.edit("apps/shop/conf/web.conf", "8080", "8081");
    let said = wanted.converge();
    assert_eq!(changed(&before, host, engine), ["shop-beside-1", "shop-web-1"], "{said}");
    // What asks for it is replaced with the one that it depends on; the job is done, and is not done again.
    let before = containers(host, engine);
    wanted.edit("apps/shop/compose.yaml", "exec sleep 1000", "exec sleep 2000");
    wanted.converge();
    assert_eq!(changed(&before, host, engine), ["shop-beside-1", "shop-db-1", "shop-web-1"]);
    assert_eq!(inside("shop-db-1", "cat /data/log"), "once more\n");

    // A database that is never healthy: all of it goes back to what it was.
    wanted.edit("apps/shop/compose.yaml", "test: [CMD, test, -e, /data/ready]", "test: [CMD, false]");
    wanted.write();
    let (code, said) = agent::once(host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("shop-db-1, whose health check fails"), "{said}");
    host.sh("test \"$(curl -sS http://127.0.0.1:8080/)\" = 'hello from red'").unwrap();
    let before = containers(host, engine);
    assert_eq!(agent::steps(&agent::plan(host, FOLDER)), Vec::<String>::new(), "{said}");
    wanted.edit("apps/shop/compose.yaml", "test: [CMD, false]", "test: [CMD, test, -e, /data/ready]");
    wanted.converge();
    assert_eq!(changed(&before, host, engine), Vec::<String>::new());

    // What somebody removed comes back, and what follows it with it.
    host.sh(&format!("{engine} rm --force shop-beside-1 >/dev/null; {engine} rm --force shop-web-1 >/dev/null"))
        .unwrap();
    agent::converge(host, FOLDER);
    assert_eq!(containers(host, engine).into_keys().collect::<Vec<_>>(), all);

    // A service goes, then all of it; data stays.
    let text = wanted.files.get_mut("apps/shop/compose.yaml").unwrap();
    let (at, end) = (text.find("  beside:").unwrap(), text.find("  debug:").unwrap());
    text.replace_range(at..end, "");
    let before = containers(host, engine);
    wanted.converge();
    assert_eq!(changed(&before, host, engine), ["shop-beside-1"]);
    wanted.files.retain(|path, _| !path.starts_with("apps/shop/"));
    wanted.converge();
    assert_eq!(containers(host, engine), BTreeMap::new());
    let left = host.sh(&format!("{engine} network ls --format '{{{{.Name}}}}'; {engine} volume ls --quiet")).unwrap();
    assert!(!left.contains("front") && !left.contains("back") && left.contains("shop_data"), "{left}");
    host.sh(
        "test -e /srv/compose/shop/state/kept; test ! -e /srv/compose/shop/.secrets; test ! -e /srv/compose/shop/conf",
    )
    .unwrap();
}

#[test]
fn a_project_on_docker() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 500ms\n").unwrap();
    host.start_docker().unwrap();

    // Another project of the same name is somebody's: nothing of it is touched.
    let mut wanted = Wanted::new(&forge, &host);
    let image = wanted.files["apps/shop/.env"].lines().next().unwrap().replace("IMAGE=", "");
    host.sh(&format!(
        "docker run --quiet --detach --name shop-db-1 {image} sleep 1000; docker network create shop_front"
    ))
    .unwrap();
    let theirs = containers(&host, "docker");
    wanted.write();
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    for name in ["container shop-db-1", "network shop_front"] {
        assert!(said.contains(name), "{said}");
    }
    assert_eq!(containers(&host, "docker"), theirs);
    host.sh("docker rm --force shop-db-1; docker network rm shop_front").unwrap();

    // The engine's own tool sees the project.
    wanted.files.remove("apps/nothing");
    wanted.converge();
    assert_eq!(
        host.sh(
            "docker compose ls --quiet; docker compose -p shop ps --services | sort; docker compose -p shop logs web"
        )
        .unwrap(),
        "shop\nbeside\ndb\nweb\n"
    );
    let profiles = "compose: { profiles: [debug] }\n".to_owned();
    wanted.files.insert("apps/shop/app.yaml".to_owned(), profiles);
    wanted.converge();
    assert!(containers(&host, "docker").contains_key("shop-debug-1"));
    wanted.files.remove("apps/shop/app.yaml");
    wanted.converge();
    assert!(!containers(&host, "docker").contains_key("shop-debug-1"));
    what_is_gone_and_only_reported_is_not_started_without(&host, &mut wanted);
    a_project_lives(&forge, &host, "docker");
}

/// Under `drift: report` a network that somebody removed stays away, and nothing is started that needs it.
fn what_is_gone_and_only_reported_is_not_started_without(host: &Host, wanted: &mut Wanted<'_>) {
    let report = FLEET.to_owned() + "defaults: { drift: report }\n";
    let repair = wanted.files.insert("fleet.yaml".to_owned(), report).unwrap();
    wanted.converge();
    host.sh("docker rm --force shop-beside-1 shop-web-1; docker network rm shop_front").unwrap();
    wanted.edit("apps/shop/web.env", "info", "warn");
    wanted.write();
    let (code, said) = agent::once(host, FOLDER);
    assert_eq!(code, 4, "{said}");
    println!("{said}");
    assert!(
        said.contains("container shop-web-1: waits for network shop_front, which is gone and is not put back"),
        "{said}"
    );
    assert!(!host.sh("docker network ls --format '{{.Name}}'").unwrap().contains("shop_front"));
    wanted.files.insert("fleet.yaml".to_owned(), repair);
    wanted.converge();
    assert!(containers(host, "docker").contains_key("shop-beside-1"));
    wanted.edit("apps/shop/web.env", "warn", "info");
    wanted.converge();
}

#[test]
fn a_project_on_the_socket_of_podman() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 500ms\n").unwrap();
    // Podman's name server for networks wants to know whom to ask.
    host.sh("test -e /etc/resolv.conf || echo 'nameserver 192.0.2.2' >/etc/resolv.conf; systemctl start podman.socket")
        .unwrap();
    a_project_lives(&forge, &host, "podman");
}
