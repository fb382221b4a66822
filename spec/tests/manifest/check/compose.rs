//! Compose files: what they mean, and what can be wrong in them.

use expect_test::{Expect, expect};
use spec::id::HostName;
use spec::manifest::parse;
use spec::resolve::resolve;

use crate::support::{FLEET, check, lines, tree};

/// Checks a compose file beside a few files of its folder.
fn mistakes(compose: &str, expected: Expect) {
    check(&repository(compose, ""), expected);
}

fn repository(compose: &str, app: &str) -> String {
    format!(
        "-- fleet.yaml --\n{FLEET}-- apps/shop/app.yaml --\n{app}-- apps/shop/compose.yaml --\n{compose}\
         -- apps/shop/.env --\nTAG=1.4\nEMPTY=\n-- apps/shop/web.env --\nLEVEL=info # quiet\nNAME='${{TAG}}'\n\
         -- apps/shop/conf/web.conf --\nport 80\n-- apps/shop/db.secret --\nhunter2\n"
    )
}

/// Prints what is wanted of a sound project.
fn means(compose: &str, app: &str, expected: Expect) {
    let parsed = parse(&tree(&repository(compose, app)));
    let said = lines(&parsed);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{said}"));
    let desired = resolve(&fleet, &HostName::parse("attic").expect("a host")).expect("a host of the fleet");
    let mut text = said;
    for app in desired.apps.values() {
        for (path, file) in &app.files {
            text.push_str(&format!("{path} {} {}:{}\n", file.mode, file.owner, file.group));
        }
        for (name, network) in &app.networks {
            let settings = serde_json::to_string(&network.settings).expect("JSON");
            text.push_str(&format!("network {name} {settings}\n"));
        }
        for (name, volume) in &app.volumes {
            text.push_str(&format!("volume {name} {}\n", serde_json::to_string(&volume.settings).expect("JSON")));
        }
        for (name, it) in &app.containers {
            let settings = serde_json::to_string(&it.settings).expect("JSON");
            let after: Vec<String> =
                it.after.iter().map(|(name, it)| format!("{name} {:?} restart {}", it.condition, it.restart)).collect();
            let inputs: Vec<&str> = it.inputs.iter().map(spec::id::HostPath::as_str).collect();
            text.push_str(&format!("{name}: job {} after {after:?} inputs {inputs:?}\n  {settings}\n", it.job));
        }
    }
    expected.assert_eq(&text);
}

const SHOP: &str = r#"name: store
x-common: &common
  restart: unless-stopped
  logging: { driver: json-file, options: { max-size: 10m } }
services:
  web:
    <<: *common
    image: registry.lan/web:${TAG}
    command: serve --port "80 80"
    ports: ["8080:80", { target: 53, published: "5353", protocol: udp, host_ip: 127.0.0.1 }]
    env_file: [web.env, { path: more.env, required: false }]
    environment: [PRICE=$$5, "MODE=${MODE:-prod}"]
    volumes: ["./conf:/etc/web:ro", "uploads:/uploads", "./data:/data", { type: tmpfs, target: /tmp, tmpfs: { size: 64m } }]
    secrets: [db, { source: db, target: other, mode: 0440, uid: "33" }]
    configs: [banner]
    networks: { front: { aliases: [www], ipv4_address: 10.9.0.5 }, default: }
    depends_on:
      db: { condition: service_healthy, restart: true }
      migrate: { condition: service_completed_successfully }
    deploy: { replicas: 1, resources: { limits: { cpus: "0.5", memory: 128M, pids: 50 } } }
    cap_drop: [all]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: 30s
  db:
    <<: *common
    image: registry.lan/db:9
    volumes: [{ type: volume, source: data, target: /var/lib/db }]
    healthcheck: { test: "pg_isready -U x", interval: 5s, retries: 3, start_period: 1m30s }
    ulimits: { nofile: { soft: 1024, hard: 2048 } }
    shm_size: 64m
  migrate: { image: "registry.lan/web:1.4", command: [migrate], depends_on: [db] }
  debug: { image: "registry.lan/debug:1", profiles: [debug], network_mode: "service:web", scale: 1 }
networks:
  front: { internal: true, ipam: { config: [{ subnet: 10.9.0.0/24 }] } }
volumes:
  data: { labels: { keep: "yes" } }
  uploads: { external: true, name: old_uploads }
configs:
  banner: { content: "hello ${TAG}" }
secrets:
  db: { file: ./db.secret }
"#;

#[test]
fn a_project_as_people_write_it() {
    means(SHOP, "compose: { profiles: [debug] }\n", expect![[""]]);
}

#[test]
fn what_is_not_acted_on_is_named_with_its_line() {
    mistakes(
        r#"version: "3.8"
include: [other.yaml]
services:
  a:
    build: .
    image: "a:${NOWHERE}"
    links: [b]
    prots: ["80:80"]
    environment: [TOKEN]
    env_file: gone.env
    volumes: ["../up:/x", "nothing:/y", "/anonymous"]
    depends_on: { c: { condition: service_fine }, d: }
    secrets: [missing]
    networks: [nowhere]
    deploy: { placement: {}, resources: { reservations: { devices: [] } } }
    healthcheck: { test: [curl], interval: 5 }
    restart: sometimes
    mem_limit: lots
  b: { image: "b:1", depends_on: [e], privileged: true, volumes: ["/var/run/docker.sock:/s"], cap_add: [SYS_ADMIN] }
  e: { image: "e:1", depends_on: [b], ports: ["80"] }
  f: { image: "f:1", scale: 2, ports: ["81:81"] }
  g: { image: "g:1", profiles: [x] }
  h: { image: "h:1", depends_on: [g] }
"#,
        expect![[""]],
    );
}

#[test]
fn what_nobody_names_is_a_mistake() {
    mistakes("services: { a: { image: \"a:1\" } }\n", expect![[""]]);
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\nservices: {{ a: {{ image: \"a:1\" }} }}\n\
             -- apps/a/docker-compose.yml --\nservices:\n"
        ),
        expect![[""]],
    );
}
