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
    let parsed = parse(&tree(&repository(compose, app)), None);
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
            let settings = serde_json::to_value(&it.settings).expect("JSON");
            let settings = settings.as_object().expect("an object").iter();
            let settings: String = settings.map(|(key, value)| format!("  {key}: {value}\n")).collect();
            let after: Vec<String> =
                it.after.iter().map(|(name, it)| format!("{name} {:?} restart {}", it.condition, it.restart)).collect();
            let inputs: Vec<&str> = it.inputs.iter().map(spec::id::HostPath::as_str).collect();
            text.push_str(&format!("{name}: job {} after {after:?} inputs {inputs:?}\n{settings}", it.job));
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
    means(
        SHOP,
        "compose: { profiles: [debug] }\n",
        expect![[r#"
        /srv/compose/shop/.configs/banner 0444 0:0
        /srv/compose/shop/.secrets 0700 root:root
        /srv/compose/shop/.secrets/db 0444 0:0
        /srv/compose/shop/.secrets/db@33.0.0440 0440 33:0
        /srv/compose/shop/conf/web.conf 0644 root:root
        network store_default {"labels":{"com.docker.compose.network":"default","com.docker.compose.project":"store"}}
        network store_front {"internal":true,"pools":[{"subnet":"10.9.0.0/24"}],"labels":{"com.docker.compose.network":"front","com.docker.compose.project":"store"}}
        volume old_uploads null
        volume store_data {"labels":{"com.docker.compose.project":"store","com.docker.compose.volume":"data","keep":"yes"}}
        store-db-1: job false after [] inputs []
          health: {"interval_ms":5000,"retries":3,"start_period_ms":90000,"test":["CMD-SHELL","pg_isready -U x"]}
          image: "registry.lan/db:9"
          labels: {"com.docker.compose.config-hash":"mainstay","com.docker.compose.container-number":"1","com.docker.compose.oneoff":"False","com.docker.compose.project":"store","com.docker.compose.project.config_files":"apps/shop/compose.yaml","com.docker.compose.service":"db"}
          limits: {"shm":67108864,"ulimits":{"nofile":[1024,2048]}}
          logging: {"driver":"json-file","options":{"max-size":"10m"}}
          mounts: [{"read_only":false,"source":{"volume":{"name":"store_data","nocopy":false,"subpath":null}},"target":"/var/lib/db"}]
          networking: {"networks":{"store_default":{"aliases":["db"]}}}
        store-debug-1: job true after [] inputs []
          image: "registry.lan/debug:1"
          labels: {"com.docker.compose.config-hash":"mainstay","com.docker.compose.container-number":"1","com.docker.compose.oneoff":"False","com.docker.compose.project":"store","com.docker.compose.project.config_files":"apps/shop/compose.yaml","com.docker.compose.service":"debug"}
          networking: {"container":"store-web-1"}
          restart: "no"
        store-migrate-1: job true after ["store-db-1 Started restart false"] inputs []
          command: ["migrate"]
          image: "registry.lan/web:1.4"
          labels: {"com.docker.compose.config-hash":"mainstay","com.docker.compose.container-number":"1","com.docker.compose.oneoff":"False","com.docker.compose.project":"store","com.docker.compose.project.config_files":"apps/shop/compose.yaml","com.docker.compose.service":"migrate"}
          networking: {"networks":{"store_default":{"aliases":["migrate"]}}}
          restart: "no"
        store-web-1: job false after ["store-db-1 Healthy restart true", "store-migrate-1 Completed restart false"] inputs ["/srv/compose/shop/.configs/banner", "/srv/compose/shop/.secrets/db", "/srv/compose/shop/.secrets/db@33.0.0440", "/srv/compose/shop/conf/web.conf"]
          command: ["serve","--port","80 80"]
          env: {"LEVEL":"info","MODE":"prod","NAME":"${TAG}","PRICE":"$5"}
          image: "registry.lan/web:1.4"
          labels: {"com.docker.compose.config-hash":"mainstay","com.docker.compose.container-number":"1","com.docker.compose.oneoff":"False","com.docker.compose.project":"store","com.docker.compose.project.config_files":"apps/shop/compose.yaml","com.docker.compose.service":"web"}
          limits: {"memory":134217728,"nano_cpus":500000000,"pids":50}
          logging: {"driver":"json-file","options":{"max-size":"10m"}}
          mounts: [{"read_only":true,"source":{"bind":{"create":true,"path":"/srv/compose/shop/conf","propagation":null,"relabel":null}},"target":"/etc/web"},{"read_only":false,"source":{"volume":{"name":"old_uploads","nocopy":false,"subpath":null}},"target":"/uploads"},{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/shop/data","propagation":null,"relabel":null}},"target":"/data"},{"read_only":false,"source":{"tmpfs":{"mode":null,"options":null,"size":67108864}},"target":"/tmp"},{"read_only":true,"source":{"bind":{"create":false,"path":"/srv/compose/shop/.configs/banner","propagation":null,"relabel":null}},"target":"/banner"},{"read_only":true,"source":{"bind":{"create":false,"path":"/srv/compose/shop/.secrets/db","propagation":null,"relabel":null}},"target":"/run/secrets/db"},{"read_only":true,"source":{"bind":{"create":false,"path":"/srv/compose/shop/.secrets/db@33.0.0440","propagation":null,"relabel":null}},"target":"/run/secrets/other"}]
          networking: {"networks":{"store_default":{"aliases":["web"]},"store_front":{"aliases":["web","www"],"ipv4":"10.9.0.5"}}}
          ports: [{"address":"127.0.0.1","container":53,"host":5353,"protocol":"udp"},{"address":null,"container":80,"host":8080,"protocol":"tcp"}]
          rights: {"cap_drop":["ALL"],"security_opt":["no-new-privileges:true"]}
          stop_secs: 30
    "#]],
    );
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
        expect![[r#"
            warning[compose-version] apps/shop/compose.yaml:1:1: `version` has no meaning any more
              = remove it
            error[compose-path] apps/shop/compose.yaml:2:11: the application's folder has no file `other.yaml`
              = name a file beside the compose file, or below
            error[not-supported] apps/shop/compose.yaml:5:5: `build` in a compose file is not supported
              = build the image in CI, push it to a registry, and name it with `image`
            error[compose-variable] apps/shop/compose.yaml:6:12: variable `NOWHERE` is not set in `.env` or in `vars` of app.yaml
              = set it there, or write a default: ${NOWHERE:-…}; a host's environment is never used
            error[unknown-key] apps/shop/compose.yaml:8:5: a service has no key `prots`
              = did you mean `ports`?
            error[compose-variable] apps/shop/compose.yaml:9:19: variable `TOKEN` has no value here, nor in `.env` or `vars` of app.yaml
              = give it one; a host's environment is never used
            error[compose-path] apps/shop/compose.yaml:10:15: the application's folder has no file `gone.env`
              = add it beside compose.yaml, or write required: false
            error[compose-path] apps/shop/compose.yaml:11:15: `../up` does not stay within the application's folder
              = name a file or folder beside the compose file, such as ./conf, or an absolute path of the host
            error[compose-volume] apps/shop/compose.yaml:11:27: there is no volume `nothing`
              = declare it: volumes: { nothing: }; a path begins with `./` or `/`
            error[container-volume] apps/shop/compose.yaml:11:41: `/anonymous` is a volume without a name
              = give it a name: nobody would find, or remove, what an engine names by itself
            error[compose-service] apps/shop/compose.yaml:12:19: there is no service `c`
              = there is `a`, `b`, `e`, `f`, `g` and `h`
            error[unknown-value] apps/shop/compose.yaml:12:35: `condition` is `service_started`, `service_healthy` or `service_completed_successfully`, not `service_fine`
              = write `service_started`, `service_healthy` or `service_completed_successfully`
            error[no-value] apps/shop/compose.yaml:12:51: a dependency has no value
              = write a map such as { key: value } behind it, or remove it
            error[compose-attached] apps/shop/compose.yaml:13:15: there is no secret `missing`
              = declare it: secrets: { missing: { file: ./NAME } }
            error[compose-network] apps/shop/compose.yaml:14:16: there is no network `nowhere`
              = declare it: networks: { nowhere: }
            error[not-supported] apps/shop/compose.yaml:15:15: `placement` in a compose file is not supported
              = remove it: which hosts have an application is said by `place` in app.yaml
            error[not-supported] apps/shop/compose.yaml:15:59: `devices` in a compose file is not supported
              = remove it: mainstay gives no GPUs to containers yet
            error[compose-value] apps/shop/compose.yaml:16:26: a test that is a list begins with `CMD`, `CMD-SHELL` or `NONE`
              = write test: ["CMD", "program", "argument"]
            error[compose-value] apps/shop/compose.yaml:16:44: `5` is not a duration
              = write a number with its unit, such as 30s or 1m30s
            error[unknown-value] apps/shop/compose.yaml:17:14: `restart` is not `sometimes`
              = write no, always, unless-stopped, on-failure or on-failure:5
            error[compose-value] apps/shop/compose.yaml:18:16: `lots` is not a number of bytes
              = write a number with its unit, such as 512m or 2g
            error[compose-circle] apps/shop/compose.yaml:19:3: services wait for each other: `b` → `e` → `b`
              = remove one of these dependencies
            error[compose-privileged] apps/shop/compose.yaml:19:51: service `b` would have the host (`privileged`): `privileged: true` makes it root on the host
              = if you mean it, write compose: { allow-privileged: [b] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:19:67: service `b` would have the host (`volumes`): it mounts `/var/run/docker.sock`: whoever reaches the engine's socket is root on the host
              = if you mean it, write compose: { allow-privileged: [b] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:19:105: service `b` would have the host (`cap_add`): capability `SYS_ADMIN` reaches beyond the container
              = if you mean it, write compose: { allow-privileged: [b] } in app.yaml
            error[container-port] apps/shop/compose.yaml:20:47: this is not a published port: `80` names only one port, and mainstay publishes no random ones
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
            error[compose-scale] apps/shop/compose.yaml:21:3: several containers cannot have one name or one port of the host
              = remove `container_name` and `ports`, or keep one container
            error[compose-profile] apps/shop/compose.yaml:23:35: service `g` takes no part: its profile is not enabled
              = enable it in app.yaml: compose: { profiles: [NAME] }, or write required: false
        "#]],
    );
}

#[test]
fn values_are_what_compose_would_make_of_them() {
    mistakes(
        r#"services:
  a:
    image: "a:1"
    environment: { V: 1.10, W: 0755, X: True, Y: 1.5, Z: "1.10", E: $EMPTY }
    labels: [io.mainstay.app=forged]
    network_mode: container:elsewhere
    links: ["b:database"]
    volumes: [".:/all", "~/x:/home", "b:/b:fast", "./x:/twice", "/srv/y:/twice/"]
    deploy:
      labels: { a: b }
      restart_policy: { condition: any, delay: 5s }
      resources: { reservations: { cpus: "1", memory: 50M } }
    command: serve "oops
    mem_limit: 1.5.2g
    stop_grace_period: 1h
    entrypoint: []
  b:
    build: { context: . }
    container_name: fixed
    healthcheck: { disable: true }
  c: { image: "c:1", depends_on: { b: { condition: service_healthy }, e: { condition: service_completed_successfully } }, pid: "service:zz", ipc: "container:x" }
  .d: { image: "d:1", secrets: [{ source: s, mode: 999 }] }
  d: { image: "c:1", container_name: fixed }
  e: { image: "c:1", restart: unless-stopped }
networks:
  out: { external: true, driver: bridge }
volumes:
  b: { driver: local, driver_opts: { type: none, o: bind, device: ./here } }
  c: { driver: local, driver_opts: { type: none, o: bind, device: /etc } }
configs: { k: { external: true }, m: { file: ./gone, content: x } }
secrets: { s: { environment: NOWHERE } }
"#,
        expect![[r#"
            error[container-volume] apps/shop/compose.yaml:2:3: two things are mounted at `/twice`
              = keep one of the two
            error[compose-value] apps/shop/compose.yaml:4:23: compose would not read `1.10` as it is written
              = put quotes around it: "1.10"
            error[compose-value] apps/shop/compose.yaml:4:32: compose would not read `0755` as it is written
              = put quotes around it: "0755"
            error[compose-value] apps/shop/compose.yaml:4:41: compose would not read `True` as it is written
              = put quotes around it: "True"
            error[container-label] apps/shop/compose.yaml:5:14: label `io.mainstay.app` is set by mainstay
              = use another prefix
            error[container-network] apps/shop/compose.yaml:6:19: container `elsewhere` is not of this project
              = put both into one compose file and write `network_mode: service:NAME`: who shares a network is made anew with it
            error[not-supported] apps/shop/compose.yaml:7:13: the other name `database` of a link is not supported
              = give it to the service: b: { networks: { default: { aliases: [database] } } }
            error[compose-path] apps/shop/compose.yaml:8:15: `.` is the application's folder itself, with all that belongs to no service
              = name a file or folder beside the compose file, such as ./conf, or an absolute path of the host
            error[compose-path] apps/shop/compose.yaml:8:25: `~/x` does not stay within the application's folder
              = name a file or folder beside the compose file, such as ./conf, or an absolute path of the host
            error[container-volume] apps/shop/compose.yaml:8:38: `fast` is no option of a volume
              = `ro`, `rw`, `z`, `Z`, `nocopy` and the propagations are
            error[not-supported] apps/shop/compose.yaml:10:7: `labels` in a compose file is not supported
              = move them to `labels` of the service: these would be a cluster's, and no container would have them
            error[not-supported] apps/shop/compose.yaml:11:41: `delay` in a compose file is not supported
              = remove it: an engine of one host waits longer with each restart, by itself
            error[not-supported] apps/shop/compose.yaml:12:36: `cpus` in a compose file is not supported
              = remove it: an engine of one host reserves no CPUs; `cpu_shares` gives weight
            error[compose-value] apps/shop/compose.yaml:13:14: `command` has a quote that is never closed
              = add the missing quote, or write a list of arguments
            error[compose-value] apps/shop/compose.yaml:14:16: `1.5.2g` is not a number of bytes
              = write a number with its unit, such as 512m or 2g
            error[compose-value] apps/shop/compose.yaml:15:24: a container may take at most 10 minutes to stop
              = write 10m or less
            error[compose-value] apps/shop/compose.yaml:16:17: `entrypoint` is empty
              = remove it to have the image's own; an engine cannot be told to use none
            error[not-supported] apps/shop/compose.yaml:18:5: `build` in a compose file is not supported
              = build the image in CI, push it to a registry, and name it with `image`
            error[compose-health] apps/shop/compose.yaml:21:36: service `b` has no health check to wait for
              = give it a `healthcheck`, or wait for service_started
            error[compose-restart] apps/shop/compose.yaml:21:71: service `e` never ends: the engine starts it anew
              = give it restart: on-failure, or wait for service_started
            error[compose-service] apps/shop/compose.yaml:21:128: there is no service `zz`
              = there is `.d`, `a`, `b`, `c`, `d` and `e`
            error[unknown-value] apps/shop/compose.yaml:21:147: `ipc` is not `container:x`
              = write host, private or service:NAME
            error[compose-name] apps/shop/compose.yaml:22:3: `.d` is not a name within `services`
              = use letters, digits, `.`, `_` and `-`
            error[file-mode] apps/shop/compose.yaml:22:52: `999` is not a mode of octal digits
              = write it as chmod takes it, such as "0440"
            error[conflict] apps/shop/compose.yaml:23:3: container `fixed` is wanted by two services
              = rename one of them
            error[container-network] apps/shop/compose.yaml:26:3: an external network is made by something else
              = keep only `external` and `name`
            error[compose-path] apps/shop/compose.yaml:28:3: the folder of this volume is not an absolute path of the host
              = write it in full, or mount it in the service by its relative path
            error[container-mount] apps/shop/compose.yaml:29:3: this volume opens the host: with it the container can take over the host
              = mount only what the services need
            error[not-supported] apps/shop/compose.yaml:30:17: `external` configs and secrets are a cluster's
              = name a `file`
            error[compose-value] apps/shop/compose.yaml:30:35: a config or secret has one of `file`, `content` and `environment`
              = name a file of the folder: file: ./NAME
            error[compose-variable] apps/shop/compose.yaml:31:30: variable `NOWHERE` is not set in `.env` or in `vars` of app.yaml
              = set it there, or name a `file`
        "#]],
    );
}

#[test]
fn the_host_is_handed_to_nobody_unless_app_yaml_says_so() {
    let compose = r#"services:
  proxy:
    image: "proxy:1"
    volumes: ["/var/run/docker.sock:/var/run/docker.sock:ro", "/:/host:ro"]
    network_mode: host
  vpn: { image: "vpn:1", cap_add: [NET_ADMIN, chown], devices: ["/dev/net/tun"], security_opt: [seccomp:unconfined] }
  own: { image: "own:1", pid: host, userns_mode: host, privileged: "true" }
"#;
    mistakes(
        compose,
        expect![[r#"
            error[compose-privileged] apps/shop/compose.yaml:4:15: service `proxy` would have the host (`volumes`): it mounts `/var/run/docker.sock`: whoever reaches the engine's socket is root on the host
              = if you mean it, write compose: { allow-privileged: [proxy] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:4:63: service `proxy` would have the host (`volumes`): it mounts `/`: a container that sees the whole host is root on it
              = if you mean it, write compose: { allow-privileged: [proxy] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:6:36: service `vpn` would have the host (`cap_add`): capability `NET_ADMIN` reaches beyond the container
              = if you mean it, write compose: { allow-privileged: [vpn] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:6:65: service `vpn` would have the host (`devices`): `/dev/net/tun` opens a device of the host
              = if you mean it, write compose: { allow-privileged: [vpn] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:6:97: service `vpn` would have the host (`security_opt`): `seccomp:unconfined` weakens what confines it
              = if you mean it, write compose: { allow-privileged: [vpn] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:7:31: service `own` would have the host (`pid`): `pid: host` shows it what runs on the host
              = if you mean it, write compose: { allow-privileged: [own] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:7:50: service `own` would have the host (`userns_mode`): `userns_mode: host` takes it out of its own namespace
              = if you mean it, write compose: { allow-privileged: [own] } in app.yaml
            error[compose-privileged] apps/shop/compose.yaml:7:68: service `own` would have the host (`privileged`): `privileged: true` makes it root on the host
              = if you mean it, write compose: { allow-privileged: [own] } in app.yaml
        "#]],
    );
    let choices = "compose: { allow-privileged: [proxy, vpn, own, vpm], profiles: [debug] }\n";
    check(
        &repository(compose, choices),
        expect![[r#"
            error[compose-choice] apps/shop/app.yaml:1:48: the compose file has no service `vpm`
              = did you mean `vpn`?
            error[compose-choice] apps/shop/app.yaml:1:65: the compose file has no profile `debug`
              = remove it
            warning[not-deployed] apps/shop/conf/web.conf: `conf/web.conf` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/shop/db.secret: `db.secret` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/shop/web.env: `web.env` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
        "#]],
    );
    let allowed = "compose: { allow-privileged: [proxy, vpn, own] }\n";
    let parsed = parse(
        &tree(&format!(
            "-- fleet.yaml --\n{FLEET}-- apps/shop/app.yaml --\n{allowed}-- apps/shop/compose.yaml --\n{compose}"
        )),
        None,
    );
    assert_eq!(lines(&parsed), "");
}

#[test]
fn a_service_is_a_job_when_it_may_end() {
    let compose = "services:
  web: { image: \"a:1\", ports: [\"80:80\"] }
  checked: { image: \"a:1\", healthcheck: { test: [CMD, ask] } }
  once: { image: \"a:1\", restart: \"no\", ports: [\"81:80\"] }
  silent: { image: \"a:1\" }
  awaited: { image: \"a:1\", ports: [\"82:80\"] }
  waits: { image: \"a:1\", restart: always, depends_on: { awaited: { condition: service_completed_successfully } } }
  failing: { image: \"a:1\", deploy: { restart_policy: { condition: on-failure, max_attempts: 3 } } }
";
    let parsed = parse(&tree(&format!("-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\n{compose}")), None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let desired = resolve(&fleet, &HostName::parse("attic").expect("a host")).expect("a host of the fleet");
    let print = |(_, name, it): (_, &spec::id::ContainerName, &spec::desired::DesiredContainer)| {
        format!("{name}: {}{:?}\n", if it.job { "job, " } else { "" }, it.settings.restart)
    };
    expect![[r#"
        a-awaited-1: job, No
        a-checked-1: No
        a-failing-1: job, OnFailure(Some(3))
        a-once-1: job, No
        a-silent-1: job, No
        a-waits-1: Always
        a-web-1: No
    "#]]
    .assert_eq(&desired.containers().map(print).collect::<String>());
}

#[test]
fn variables_are_those_of_the_host() {
    let compose = "services: { a: { image: \"a:${TAG}\", environment: [LEVEL, \"SITE=${site:-none}\"] } }\n";
    let fleet = "fleet: home
hosts:
  attic: { environment: prod, vars: { LEVEL: debug } }
  barn: { environment: prod }
environments: { prod: { vars: { TAG: 7, other: 1 } } }
";
    let whole = format!(
        "-- fleet.yaml --\n{fleet}-- apps/a/app.yaml --\nvars: {{ LEVEL: info, TAG: 1 }}\n\
         -- apps/a/compose.yaml --\n{compose}-- apps/a/.env --\nsite=north\nTAG=0\n"
    );
    let parsed = parse(&tree(&whole), None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let mut text = String::new();
    for host in ["attic", "barn"] {
        let desired = resolve(&fleet, &HostName::parse(host).expect("a host")).expect("a host of the fleet");
        for (_, _, it) in desired.containers() {
            text.push_str(&format!("{host}: {} {:?}\n", it.settings.image, it.settings.env));
        }
    }
    expect![[r#"
        attic: a:7 {"LEVEL": "debug", "SITE": "north"}
        barn: a:7 {"LEVEL": "info", "SITE": "north"}
    "#]]
    .assert_eq(&text);
    // Half of what holds for a host is known while fleet.yaml has a mistake: nothing is called unset then.
    check(
        &whole.replace("hosts:", "hostz:"),
        expect![[r#"
        error[no-hosts] fleet.yaml: the repository names no host
          = add hosts: { NAME: { labels: { … } } } to fleet.yaml, or files in hosts/
        error[unknown-key] fleet.yaml:2:1: fleet.yaml has no key `hostz`
          = did you mean `hosts`?
    "#]],
    );
}

#[test]
fn what_nobody_names_is_a_mistake() {
    mistakes(
        "services: { a: { image: \"a:1\" } }\n",
        expect![[r#"
            warning[not-deployed] apps/shop/conf/web.conf: `conf/web.conf` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/shop/db.secret: `db.secret` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/shop/web.env: `web.env` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
        "#]],
    );
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\nservices: {{ a: {{ image: \"a:1\" }} }}\n\
             -- apps/a/docker-compose.yml --\nservices:\n"
        ),
        expect![[r#"
            error[compose-twice] apps/a/docker-compose.yml: `apps/a/compose.yaml` is a compose file too
              = keep one of the two: an application is one project
        "#]],
    );
}

#[test]
fn app_yaml_speaks_of_the_compose_file_that_is_there() {
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\ncompose: {{ profiles: [x] }}\n\
             -- apps/a/a.service --\n[Service]\nExecStart=/usr/bin/true\n"
        ),
        expect![[r#"
            error[compose-choice] apps/a/app.yaml:1:1: `compose` speaks of a compose file, and the folder has none
              = add compose.yaml beside app.yaml, or remove this
        "#]],
    );
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\ncontainers: {{ a-b-1: {{ image: \"b:1\" }} }}\n\
             -- apps/a/compose.yaml --\nservices: {{ b: {{ image: \"b:1\" }} }}\n"
        ),
        expect![[r#"
            error[conflict] apps/a/app.yaml:1:15: container `a-b-1` is wanted twice by `a`
              = keep one of the two
              - apps/a/compose.yaml:1:13: wanted here as well
        "#]],
    );
}

/// Prints the containers of a sound repository: image, command, environment, and what else was merged.
fn merged(files: &str, expected: Expect) {
    let parsed = parse(&tree(&format!("-- fleet.yaml --\n{FLEET}{files}")), None);
    let said = lines(&parsed);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{said}"));
    let desired = resolve(&fleet, &HostName::parse("attic").expect("a host")).expect("a host of the fleet");
    let mut text = said;
    for (_, name, it) in desired.containers() {
        let settings = serde_json::to_value(&it.settings).expect("JSON");
        text.push_str(&format!("{name}\n"));
        for (key, value) in settings.as_object().expect("an object").iter().filter(|(key, _)| *key != "labels") {
            text.push_str(&format!("  {key}: {value}\n"));
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn services_extend_others_by_the_rules_of_the_specification() {
    merged(
        r#"-- apps/a/compose.yaml --
services:
  web:
    extends: { file: common/base.yaml, service: web }
    environment: [LEVEL=debug, OWN=1]
    ports: ["8081:80"]
    volumes: ["./own:/etc/web", "data:/data"]
    healthcheck: { retries: 9 }
    depends_on: { db: { condition: service_healthy } }
  worker:
    extends: web
    command: work
    ports: ["8082:80"]
  again: { extends: { file: compose.yaml, service: worker }, network_mode: none, ports: ["8083:80"] }
  db: { image: "db:1" }
volumes: { data: }
-- apps/a/common/base.yaml --
services:
  root:
    image: "web:1"
    env_file: base.env
    dns: 10.0.0.1
    logging: { driver: json-file, options: { max-size: 1m } }
  web:
    extends: root
    command: [serve, all]
    environment: { LEVEL: info, BASE: 1 }
    ports: ["8080:80"]
    volumes: ["./conf:/etc/web:ro", "./more:/more"]
    healthcheck: { test: [CMD, ask], interval: 5s }
    dns: [10.0.0.2]
    depends_on: [db]
    ulimits: { nofile: 10 }
-- apps/a/common/base.env --
BASE=0
FILE=1
-- apps/a/common/more/x --
x
"#,
        expect![[r#"
            a-again-1
              command: ["work"]
              env: {"BASE":"1","FILE":"1","LEVEL":"debug","OWN":"1"}
              health: {"interval_ms":5000,"retries":9,"test":["CMD","ask"]}
              image: "web:1"
              limits: {"ulimits":{"nofile":[10,10]}}
              logging: {"driver":"json-file","options":{"max-size":"1m"}}
              mounts: [{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/own","propagation":null,"relabel":null}},"target":"/etc/web"},{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/common/more","propagation":null,"relabel":null}},"target":"/more"},{"read_only":false,"source":{"volume":{"name":"a_data","nocopy":false,"subpath":null}},"target":"/data"}]
              names: {"dns":["10.0.0.1","10.0.0.2"]}
              networking: {"mode":"none"}
              ports: [{"address":null,"container":80,"host":8080,"protocol":"tcp"},{"address":null,"container":80,"host":8081,"protocol":"tcp"},{"address":null,"container":80,"host":8082,"protocol":"tcp"},{"address":null,"container":80,"host":8083,"protocol":"tcp"}]
              restart: "no"
            a-db-1
              image: "db:1"
              networking: {"networks":{"a_default":{"aliases":["db"]}}}
              restart: "no"
            a-web-1
              command: ["serve","all"]
              env: {"BASE":"1","FILE":"1","LEVEL":"debug","OWN":"1"}
              health: {"interval_ms":5000,"retries":9,"test":["CMD","ask"]}
              image: "web:1"
              limits: {"ulimits":{"nofile":[10,10]}}
              logging: {"driver":"json-file","options":{"max-size":"1m"}}
              mounts: [{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/own","propagation":null,"relabel":null}},"target":"/etc/web"},{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/common/more","propagation":null,"relabel":null}},"target":"/more"},{"read_only":false,"source":{"volume":{"name":"a_data","nocopy":false,"subpath":null}},"target":"/data"}]
              names: {"dns":["10.0.0.1","10.0.0.2"]}
              networking: {"networks":{"a_default":{"aliases":["web"]}}}
              ports: [{"address":null,"container":80,"host":8080,"protocol":"tcp"},{"address":null,"container":80,"host":8081,"protocol":"tcp"}]
              restart: "no"
            a-worker-1
              command: ["work"]
              env: {"BASE":"1","FILE":"1","LEVEL":"debug","OWN":"1"}
              health: {"interval_ms":5000,"retries":9,"test":["CMD","ask"]}
              image: "web:1"
              limits: {"ulimits":{"nofile":[10,10]}}
              logging: {"driver":"json-file","options":{"max-size":"1m"}}
              mounts: [{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/own","propagation":null,"relabel":null}},"target":"/etc/web"},{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/common/more","propagation":null,"relabel":null}},"target":"/more"},{"read_only":false,"source":{"volume":{"name":"a_data","nocopy":false,"subpath":null}},"target":"/data"}]
              names: {"dns":["10.0.0.1","10.0.0.2"]}
              networking: {"networks":{"a_default":{"aliases":["worker"]}}}
              ports: [{"address":null,"container":80,"host":8080,"protocol":"tcp"},{"address":null,"container":80,"host":8081,"protocol":"tcp"},{"address":null,"container":80,"host":8082,"protocol":"tcp"}]
              restart: "no"
        "#]],
    );
}

#[test]
fn other_files_are_included_and_an_override_is_put_on_top() {
    merged(
        r#"-- apps/a/compose.yaml --
include: [db/compose.yaml, { path: [log.yaml, log.more.yaml], env_file: log.env }]
services:
  web: { image: "web:${TAG}", depends_on: [db, log], volumes: ["stored:/stored"] }
-- apps/a/.env --
TAG=main
-- apps/a/db/compose.yaml --
include: [deep/compose.yaml]
services: { db: { image: "db:${TAG}-${OWN}", volumes: ["./conf:/conf", "stored:/data"], secrets: [key] } }
volumes: { stored: }
secrets: { key: { file: key.txt } }
-- apps/a/db/.env --
TAG=ignored
OWN=own
-- apps/a/db/key.txt --
k
-- apps/a/db/conf/db.conf --
c
-- apps/a/db/deep/compose.yaml --
services: { deep: { image: "deep:${OWN}", env_file: deep.env } }
-- apps/a/db/deep/deep.env --
DEEP=1
-- apps/a/log.yaml --
services: { log: { image: "log:${VERSION}", command: a } }
-- apps/a/log.more.yaml --
services: { log: { command: b, environment: { X: 1 } } }
-- apps/a/log.env --
VERSION=3
-- apps/a/compose.override.yaml --
services:
  web: { image: "web:over", labels: [a=b], environment: { SITE: here } }
"#,
        expect![[r#"
            a-db-1
              image: "db:main-own"
              mounts: [{"read_only":false,"source":{"bind":{"create":true,"path":"/srv/compose/a/db/conf","propagation":null,"relabel":null}},"target":"/conf"},{"read_only":false,"source":{"volume":{"name":"a_stored","nocopy":false,"subpath":null}},"target":"/data"},{"read_only":true,"source":{"bind":{"create":false,"path":"/srv/compose/a/.secrets/key","propagation":null,"relabel":null}},"target":"/run/secrets/key"}]
              networking: {"networks":{"a_default":{"aliases":["db"]}}}
              restart: "no"
            a-deep-1
              env: {"DEEP":"1"}
              image: "deep:own"
              networking: {"networks":{"a_default":{"aliases":["deep"]}}}
              restart: "no"
            a-log-1
              command: ["b"]
              env: {"X":"1"}
              image: "log:3"
              networking: {"networks":{"a_default":{"aliases":["log"]}}}
              restart: "no"
            a-web-1
              env: {"SITE":"here"}
              image: "web:over"
              mounts: [{"read_only":false,"source":{"volume":{"name":"a_stored","nocopy":false,"subpath":null}},"target":"/stored"}]
              networking: {"networks":{"a_default":{"aliases":["web"]}}}
              restart: "no"
        "#]],
    );
}

#[test]
fn what_is_wrong_in_a_file_is_told_there() {
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}{}",
            r#"-- apps/a/compose.yaml --
include: [../b/compose.yaml, gone.yaml, more.yaml, { path: more.yaml, project_directory: x }]
services:
  a: { extends: b }
  b: { extends: { service: c } }
  c: { extends: a, image: "c:1" }
  d: { extends: { file: more.yaml, service: wen } }
  e: { extends: { file: /etc/passwd, service: x } }
  f: { extends: { file: more.yaml, service: form }, environment: 1 }
  web: { image: "web:1", volumes: [] }
-- apps/a/more.yaml --
include: [more.yaml]
services:
  web:
    image: "web:1"
    prots: []
  form: { image: "x:1", volumes: { a: b } }
  bad: { image: "${NOWHERE}", ports: ["x:80"] }
-- apps/b/compose.yaml --
services: { a: { image: "a:1" } }
-- apps/b/docker-compose.override.yml --
services: { a: { volumes: { x: y }, ports: [1] } }
"#
        ),
        expect![[r#"
            error[compose-path] apps/a/compose.yaml:1:11: the application's folder has no file `../b/compose.yaml`
              = name a file beside the compose file, or below
            error[compose-path] apps/a/compose.yaml:1:30: the application's folder has no file `gone.yaml`
              = did you mean `more.yaml`?
            error[not-supported] apps/a/compose.yaml:1:71: `project_directory` is not supported by this version of mainstay
              = remove it for now: mainstay ignores nothing that a repository asks for, and this version cannot do it yet
            error[compose-circle] apps/a/compose.yaml:3:8: service `a` extends itself in the end
              = remove one of these `extends`
            error[compose-circle] apps/a/compose.yaml:4:8: service `b` extends itself in the end
              = remove one of these `extends`
            error[compose-circle] apps/a/compose.yaml:5:8: service `c` extends itself in the end
              = remove one of these `extends`
            error[compose-service] apps/a/compose.yaml:6:17: there is no service `wen` to extend
              = did you mean `web`?
            error[compose-path] apps/a/compose.yaml:7:25: the application's folder has no file `/etc/passwd`
              = name a file beside the compose file, or below
            error[wrong-type] apps/a/compose.yaml:8:66: `environment` must be a map, but a number stands here
              = write a map such as { name: … }
            error[compose-circle] apps/a/more.yaml:1:11: `more.yaml` includes itself in the end
              = remove one of these `include`s
            error[conflict] apps/a/more.yaml:3:3: `web` is in an included file and in the one that includes it
              = keep one of the two
              - apps/a/compose.yaml:9:3: written here as well
            error[conflict] apps/a/more.yaml:6:3: `form` is in an included file and in the one that includes it
              = keep one of the two
              - apps/a/more.yaml:6:3: written here as well
            error[wrong-type] apps/a/more.yaml:6:34: `volumes` must be a list, but a map stands here
              = write a list such as [one, two]
            error[conflict] apps/a/more.yaml:7:3: `bad` is in an included file and in the one that includes it
              = keep one of the two
              - apps/a/more.yaml:7:3: written here as well
            error[compose-variable] apps/a/more.yaml:7:17: variable `NOWHERE` is not set in `.env` or in `vars` of app.yaml
              = set it there, or write a default: ${NOWHERE:-…}; a host's environment is never used
            error[container-port] apps/a/more.yaml:7:39: this is not a published port: `x` is not a port from 1 to 65535
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
            error[wrong-type] apps/b/docker-compose.override.yml:1:27: `volumes` must be a list, but a map stands here
              = write a list such as [one, two]
            error[container-port] apps/b/docker-compose.override.yml:1:45: this is not a published port: `1` names only one port, and mainstay publishes no random ones
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
        "#]],
    );
}

/// Where a key stands, and every key that the specification has there (schema/compose-spec.json, July 2026).
const KEYS: [(&str, &str); 14] = [
    ("?", "version name include services models networks volumes secrets configs"),
    (
        "services: { a: { ? } }",
        "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_count \
         cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on deploy \
         develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose extends \
         external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels links logging \
         mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks oom_kill_disable \
         oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider pull_policy \
         pull_refresh_after read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period \
         stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes volumes_from working_dir",
    ),
    ("services: { a: { healthcheck: { ? } } }", "disable interval retries start_interval start_period test timeout"),
    (
        "services: { a: { deploy: { ? } } }",
        "endpoint_mode labels mode placement replicas resources restart_policy rollback_config update_config",
    ),
    ("services: { a: { deploy: { resources: { limits: { ? } } } } }", "cpus memory pids"),
    ("services: { a: { deploy: { resources: { reservations: { ? } } } } }", "cpus devices generic_resources memory"),
    ("services: { a: { deploy: { restart_policy: { ? } } } }", "condition delay max_attempts window"),
    (
        "services: { a: { networks: { default: { ? } } } }",
        "aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority",
    ),
    ("services: { a: { ports: [{ ? }] } }", "app_protocol host_ip mode name protocol published target"),
    ("services: { a: { volumes: [{ ? }] } }", "bind consistency image read_only source target tmpfs type volume"),
    ("services: { a: { depends_on: { a: { ? } } } }", "condition required restart"),
    (
        "networks: { a: { ? } }",
        "attachable driver driver_opts enable_ipv4 enable_ipv6 external internal ipam labels name",
    ),
    ("volumes: { a: { ? } }", "driver driver_opts external labels name"),
    ("secrets: { a: { ? } }", "driver driver_opts environment external file labels name template_driver"),
];

#[test]
fn every_key_of_the_specification_is_known() {
    for (place, keys) in KEYS {
        for key in keys.split_whitespace() {
            let compose = place.replace('?', &format!("{key}: 1"));
            let parsed =
                parse(&tree(&format!("-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\n{compose}\n")), None);
            let said = lines(&parsed);
            assert!(!said.contains("has no key"), "{compose}\n{said}");
        }
    }
    let unknown = "-- apps/a/compose.yaml --\nservices: { a: { image: \"a:1\", colour: red, x-colour: red } }\n";
    let parsed = parse(&tree(&format!("-- fleet.yaml --\n{FLEET}{unknown}")), None);
    assert!(lines(&parsed).contains("a service has no key `colour`"));
}

#[test]
fn two_applications_do_not_share_a_project() {
    let compose = "name: same\nservices: { a: { image: \"a:1\", volumes: [\"d:/d\"] } }\nvolumes: { d: }\n";
    check(
        &format!("-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\n{compose}-- apps/b/compose.yml --\n{compose}"),
        expect![[r#"
            error[conflict] apps/b/compose.yml:2:13: container `same-a-1` is wanted by `a` and `b` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/compose.yaml:2:13: wanted here as well
            error[conflict] apps/b/compose.yml:2:13: network `same_default` is wanted by `a` and `b` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/compose.yaml:2:13: wanted here as well
            error[conflict] apps/b/compose.yml:3:12: volume `same_d` is wanted by `a` and `b` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/compose.yaml:3:12: wanted here as well
        "#]],
    );
}

#[test]
fn what_takes_no_part_names_only_what_there_is() {
    mistakes(
        r#"services:
  a: { image: "a:1" }
  off: { image: "b:1", profiles: [off], depends_on: [nope, a, too], networks: [nonet, default] }
  too: { image: "b:1", profiles: [too], depends_on: { off: { condition: service_started } } }
"#,
        expect![[r#"
            error[compose-service] apps/shop/compose.yaml:3:54: there is no service `nope`
              = there is `a`, `off` and `too`
            error[compose-network] apps/shop/compose.yaml:3:80: there is no network `nonet`
              = declare it: networks: { nonet: }
        "#]],
    );
}

#[test]
fn an_unknown_key_of_a_service_gets_no_long_list() {
    mistakes(
        "services: { a: { image: \"a:1\", colour: red, comand: x } }\n",
        expect![[r#"
        error[unknown-key] apps/shop/compose.yaml:1:32: a service has no key `colour`
          = remove it; README.md says which keys are read, and what does the same as others
        error[unknown-key] apps/shop/compose.yaml:1:45: a service has no key `comand`
          = did you mean `command`?
    "#]],
    );
}

#[test]
fn what_people_keep_beside_a_compose_file_is_not_deployed() {
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/compose.yaml --\nservices: {{ a: {{ image: \"a:1\" }} }}\n\
             -- apps/a/.env.example --\nA=1\n-- apps/a/.env.prod --\nA=1\n-- apps/a/.dockerignore --\nx\n-- apps/a/.gitignore --\nx\n\
             -- apps/a/Dockerfile --\nFROM x\n-- apps/a/Makefile --\nall:\n-- apps/a/LICENSE --\nx\n\
             -- apps/a/docker-compose.prod.yml --\nservices:\n-- apps/a/src/main.py --\nx\n-- apps/a/src/more/b.py --\nx\n\
             -- apps/a/web.contaner --\nx\n-- apps/a/backup.servce --\nx\n-- apps/a/apps.yaml --\nx\n\
             -- apps/a/web.contianer.d/a.conf --\nx\n-- apps/a/flies/etc/motd --\nx\n"
        ),
        expect![[r#"
            warning[not-deployed] apps/a/.dockerignore: `.dockerignore` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/a/.env.example: `.env.example` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/a/.env.prod: `.env.prod` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/a/Dockerfile: `Dockerfile` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            warning[not-deployed] apps/a/Makefile: `Makefile` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            error[unknown-file] apps/a/apps.yaml: mainstay does not know what `apps.yaml` is for
              = did you mean `app.yaml`?
            error[unknown-file] apps/a/backup.servce: mainstay does not know what `backup.servce` is for
              = did you mean `backup.service`?
            warning[not-deployed] apps/a/docker-compose.prod.yml: `docker-compose.prod.yml` is not deployed: the compose file does not name it
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            error[unknown-file] apps/a/flies/etc/motd: mainstay does not know what `flies/etc/motd` is for
              = did you mean `files/etc/motd`?
            warning[not-deployed] apps/a/src/main.py: 2 files in `src/` are not deployed: the compose file does not name them
              = that is fine for what only people and their tools read; what a service needs is mounted by its relative path
            error[unknown-file] apps/a/web.contaner: mainstay does not know what `web.contaner` is for
              = did you mean `web.container`?
            error[unknown-file] apps/a/web.contianer.d/a.conf: mainstay does not know what `web.contianer.d/a.conf` is for
              = did you mean `web.container.d/a.conf`?
        "#]],
    );
}
