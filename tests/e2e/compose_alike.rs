//! What mainstay makes of a compose file, against what `docker compose` makes of the same file: field by field.

use std::collections::BTreeMap;

use lab::Host;
use serde_json::Value;

use crate::{agent, start};

/// Where relative paths lead on the host, so that both mean the same.
const PROJECT: &str = "/srv/compose/rich";

const COMPOSE: &str = r#"
x-common: &common
  image: ${IMAGE}
  command: [sleep, "1000"]
services:
  all:
    <<: *common
    entrypoint: /bin/run env 'A B=1'
    command: sh -c "trap true TERM; sleep 1000 & wait"
    container_name: named
    hostname: inside
    domainname: example.org
    user: "0:0"
    group_add: [5, "1234"]
    working_dir: /tmp
    environment: { PLAIN: x, QUOTED: "a 'b' \"c\" $$d", NUMBER: 5, FLAG: true, FROM_ENV: , EMPTY: "" }
    env_file: [one.env, { path: missing.env, required: false }]
    labels: { team: web, flag: "true" }
    ports: ["8080:80", "127.0.0.1:5353:53/udp", "9000-9002:9000-9002", { target: 443, published: "8443", host_ip: 127.0.0.1, mode: host }]
    expose: [7000, "7001-7002/udp"]
    volumes:
      - data:/data
      - ./conf:/conf:ro
      - ./made:/made:rw,rslave
      - { type: volume, source: more, target: /more, read_only: true, volume: { nocopy: true } }
      - { type: bind, source: ./conf/web.conf, target: /web.conf, bind: { create_host_path: false } }
      - { type: tmpfs, target: /mem, tmpfs: { size: 16m, mode: 01777 } }
    tmpfs: ["/run:mode=755,size=1m", /var/empty]
    configs: [{ source: page, target: /etc/page }]
    secrets: [key, { source: key, target: other }]
    networks: { front: { aliases: [www, web], ipv4_address: 10.77.0.9 }, default: }
    dns: [10.0.0.1, 10.0.0.2]
    dns_search: example.org
    dns_opt: [ndots:2]
    extra_hosts: ["one:10.0.0.3", "two=10.0.0.4"]
    healthcheck: { test: "true", interval: 1s500ms, timeout: 5s, retries: 4, start_period: 1s }
    logging: { driver: json-file, options: { max-size: 1m, max-file: "3" } }
    restart: on-failure:4
    stop_signal: SIGINT
    stop_grace_period: 1m5s
    init: true
    tty: true
    stdin_open: true
    read_only: true
    shm_size: 8m
    mem_limit: 64m
    memswap_limit: 128m
    mem_reservation: 32m
    cpu_shares: 512
    cpuset: "0"
    oom_score_adj: 300
    pids_limit: 100
    ulimits: { nofile: { soft: 100, hard: 200 }, nproc: 50 }
    cap_add: [NET_ADMIN]
    cap_drop: [MKNOD, chown]
    security_opt: ["no-new-privileges:true", "seccomp=unconfined"]
    sysctls: { net.core.somaxconn: 512 }
    devices: ["/dev/null:/dev/nothing:r", /dev/zero]
    device_cgroup_rules: ["c 1:3 r"]
    cgroup: private
    ipc: shareable
    depends_on: { plain: { condition: service_started } }
  plain: { <<: *common }
  follows: { <<: *common, network_mode: "service:all", ipc: "service:all", pid: "service:all" }
  limited:
    <<: *common
    restart: always
    healthcheck: { disable: true }
    deploy:
      resources: { limits: { memory: 32M, pids: 20 }, reservations: { memory: 16M } }
      restart_policy: { condition: on-failure, max_attempts: 2 }
    mac_address: 02:42:ac:11:65:43
    networks: [back]
  alone: { <<: *common, network_mode: none, uts: host, privileged: true, pid: host, userns_mode: host }
  several: { <<: *common, scale: 2, links: [plain] }
  hosts: { <<: *common, network_mode: host, healthcheck: { test: [NONE] } }
networks:
  default: { labels: [a=b] }
  front:
    driver: bridge
    driver_opts: { com.docker.network.bridge.name: rich0 }
    ipam: { driver: default, config: [{ subnet: 10.77.0.0/24, ip_range: 10.77.0.128/25, gateway: 10.77.0.1, aux_addresses: { one: 10.77.0.7 } }] }
    labels: { zone: dmz }
  back: { name: own_name, internal: true, attachable: true }
volumes:
  data:
  more: { name: own_volume, driver: local, driver_opts: { type: tmpfs, device: tmpfs, o: size=1m }, labels: { keep: "1" } }
configs: { page: { file: ./page.txt } }
secrets: { key: { file: ./key.txt } }
"#;

/// The hardware address that is written above; others are drawn.
const MAC: &str = "02:42:ac:11:65:43";

const APP: &str = "compose: { allow-privileged: [all, alone] }\n";

/// What the engine says of all that the project has, as `path: value`; what is empty says nothing.
fn facts(host: &Host) -> BTreeMap<String, String> {
    let ask = |what: &str| -> Vec<Value> { serde_json::from_str(&host.sh(what).unwrap()).unwrap() };
    let mut facts = BTreeMap::new();
    let all = ask("docker ps --all --quiet | xargs docker inspect");
    for it in &all {
        let name = it["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
        let id = it["Id"].as_str().unwrap();
        let mut add = |path: &str, value: &Value| flatten(&format!("{name} {path}"), value, id, &mut facts);
        add("Config", &it["Config"]);
        add("HostConfig", &it["HostConfig"]);
        for mount in it["Mounts"].as_array().unwrap() {
            add(&format!("Mount {}", mount["Destination"].as_str().unwrap()), mount);
        }
        for (network, endpoint) in it["NetworkSettings"]["Networks"].as_object().unwrap() {
            for key in ["Aliases", "IPAMConfig", "Links", "DriverOpts", "MacAddress"] {
                if key == "MacAddress" && endpoint[key] != MAC {
                    continue;
                }
                add(&format!("{network}.{key}"), &endpoint[key]);
            }
        }
    }
    // An id says nothing to anybody else.
    for fact in facts.values_mut().filter(|fact| fact.contains("container:")) {
        for it in &all {
            *fact = fact.replace(it["Id"].as_str().unwrap(), it["Name"].as_str().unwrap());
        }
    }
    for it in ask("docker network ls --quiet --filter type=custom | xargs docker network inspect") {
        let name = format!("network {}", it["Name"].as_str().unwrap());
        for key in ["Driver", "Internal", "Attachable", "EnableIPv6", "IPAM", "Options", "Labels"] {
            flatten(&format!("{name} {key}"), &it[key], "", &mut facts);
        }
    }
    for it in ask("docker volume ls --quiet | xargs docker volume inspect") {
        let name = format!("volume {}", it["Name"].as_str().unwrap());
        for key in ["Driver", "Options", "Labels"] {
            flatten(&format!("{name} {key}"), &it[key], "", &mut facts);
        }
    }
    facts
}

/// Writes a value as lines; the order in lists is kept only where it means something.
fn flatten(path: &str, value: &Value, id: &str, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::Number(number) if number.as_i64() == Some(0) => {}
        Value::String(text) if text.is_empty() || is_id(text, id) => {}
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, id, facts));
        }
        Value::Array(items) => {
            let is_ordered = ["Cmd", "Entrypoint", "Test", "Dns", "DnsSearch"].iter().any(|it| path.ends_with(it));
            let mut items: Vec<String> =
                items.iter().filter(|it| it.as_str().is_none_or(|it| !is_id(it, id))).map(Value::to_string).collect();
            if path.contains("HostConfig.Cap") {
                items.iter_mut().for_each(|it| *it = it.to_uppercase());
            }
            if !is_ordered {
                items.sort();
            }
            if !items.is_empty() {
                facts.insert(path.to_owned(), items.join(", "));
            }
        }
        value => {
            facts.insert(path.to_owned(), value.to_string());
        }
    }
}

/// Says whether a text is the container's id, whole or as short as the engine makes it a host name. Whatever is shorter than
/// that begins some id by chance.
fn is_id(text: &str, id: &str) -> bool {
    text.len() >= 12 && id.starts_with(text)
}

/// What differs and is meant to, each with its reason.
fn is_meant(path: &str) -> bool {
    const MEANT: [&str; 16] = [
        // Each has labels of its own, and says in them how it made what.
        "Labels.io.mainstay.",
        "Labels.com.docker.compose.",
        // Who types `docker compose up` may want to see the output.
        "Config.AttachStdout",
        "Config.AttachStderr",
        // Asked for, and not set by this version of theirs.
        "MacAddress",
        // Two ways to ask for one mount; what came of them is compared.
        "HostConfig.Binds",
        "HostConfig.Mounts",
        "HostConfig.Tmpfs",
        "/made.Mode",
        "/more.Mode",
        // An engine finds a container by its name anyway, and the services of a network find each other.
        "Aliases",
        "Links",
        // Their files are mainstay's own copies: a secret's lies where only root may look.
        "Mount /etc/page.Source",
        "Mount /run/secrets/",
        // Whatever was free.
        "network own_name IPAM.Config",
        "network rich_default IPAM.Config",
    ];
    MEANT.iter().any(|meant| path.contains(meant))
}

#[test]
fn mainstay_makes_what_docker_compose_makes() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.start_docker().unwrap();
    let image = forge.image("rich", "1", "rich").unwrap();
    let env = format!("IMAGE={}\nFROM_ENV=told\n", image.reference);
    let files = [
        ("compose.yaml", COMPOSE),
        (".env", env.as_str()),
        (
            "one.env",
            "# comment\nexport ONE='single $ONE'\nTWO=\"double ${FROM_ENV}\\n2\" # more\nTHREE=bare # comment\nPLAIN=lost\n",
        ),
        ("conf/web.conf", "web\n"),
        ("page.txt", "page\n"),
        ("key.txt", "key\n"),
    ];
    let mut wanted =
        vec![("fleet.yaml".to_owned(), "fleet: home\nhosts: { attic: {} }\n"), ("apps/rich/app.yaml".to_owned(), APP)];
    wanted.extend(files.iter().map(|(path, text)| (format!("apps/rich/{path}"), *text)));
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    agent::write_folder(&host, "/root/fleet", &wanted);
    agent::converge(&host, "/root/fleet");
    let ours = facts(&host);

    host.sh(
        "docker ps --all --quiet | xargs docker rm --force; docker network prune --force; docker volume rm rich_data own_volume",
    )
    .unwrap();
    agent::write_folder(&host, PROJECT, &files);
    host.sh(&format!("cd {PROJECT} && docker compose up --detach 2>&1")).unwrap();
    let theirs = facts(&host);

    let paths: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let of = |facts: &BTreeMap<String, String>, path: &str| facts.get(path).cloned().unwrap_or_else(|| "-".to_owned());
    let mut differences = String::new();
    for path in paths.into_iter().filter(|path| !is_meant(path) && ours.get(*path) != theirs.get(*path)) {
        differences.push_str(&format!("{path}: {} | {}\n", of(&ours, path), of(&theirs, path)));
    }
    assert!(theirs.len() > 300, "{}", theirs.len());
    assert!(ours.iter().any(|(path, value)| path.ends_with("MacAddress") && value.contains(MAC)));
    assert_eq!(differences, "", "ours | theirs");
}
