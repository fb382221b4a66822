//! From repositories to what one host should look like.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use spec::check::Probe;
use spec::container::MountSource;
use spec::desired::{Desired, FileKind, UnitOrigin};
use spec::digest::Digest;
use spec::id::{AppName, ContainerName, HostName};
use spec::manifest::Fleet;
use spec::resolve::resolve;

use crate::support::{FLEET, lines, parse, tree};

fn fleet(repository: &str) -> Fleet {
    let parsed = parse(&tree(repository));
    let said = lines(&parsed);
    parsed.fleet.unwrap_or_else(|| panic!("a sound repository, but:\n{said}"))
}

fn desired(repository: &str, host: &str) -> Desired {
    resolve(&fleet(repository), &HostName::parse(host).expect("a host name")).expect("a host of the fleet")
}

fn digest(repository: &str, app: &str) -> Digest {
    desired(repository, "attic").apps[&AppName::parse(app).expect("an application's name")].digest
}

/// Prints what is wanted, without what is the same everywhere.
fn summary(desired: &Desired) -> String {
    let mut text = format!("fleet {} host {}\n", desired.fleet, desired.host);
    for (name, app) in &desired.apps {
        text.push_str(&format!("app {name}: drift {:?}\n", app.drift));
        for (path, file) in &app.files {
            let kind = match &file.kind {
                FileKind::Regular { content, .. } => format!("file of {} bytes", content.len()),
                FileKind::Symlink { target } => format!("link to {target}"),
                FileKind::Directory => "directory".to_owned(),
                FileKind::Artifact { origin, .. } | FileKind::Archive { origin, .. } => {
                    format!("artifact of {}", origin.url)
                }
            };
            text.push_str(&format!("  {path}: {kind} {} {}:{}\n", file.mode, file.owner, file.group));
        }
        for (name, unit) in &app.units {
            let origin = match &unit.origin {
                UnitOrigin::Application { path, .. } => path.to_string(),
                UnitOrigin::Host => "the host".to_owned(),
            };
            text.push_str(&format!("  {name} from {origin}: {:?} enabled {:?}", unit.state, unit.enabled));
            text.push_str(&format!(" restart {:?} reload {:?}\n", texts(&unit.restart_on), texts(&unit.reload_on)));
        }
        for (name, it) in &app.containers {
            let (inputs, it) = (&it.inputs, &it.settings);
            text.push_str(&format!("  container {name}: {} {:?} {:?}\n", it.image, it.entrypoint, it.command));
            let ports = it.ports.iter().map(|port| {
                let address = port.address.as_deref().unwrap_or("*");
                format!("{address}:{}->{}/{}", port.host, port.container, port.protocol.as_str())
            });
            let volumes = it.mounts.iter().map(|mount| {
                let source = match &mount.source {
                    MountSource::Bind { path, .. } => path.as_str(),
                    MountSource::Volume { name, .. } => name.as_str(),
                    MountSource::Tmpfs { .. } => "tmpfs",
                };
                format!("{source}->{}{}", mount.target, if mount.read_only { " ro" } else { "" })
            });
            text.push_str(&format!("    env {:?} labels {:?}\n", it.env, it.labels));
            text.push_str(&format!(
                "    ports {:?} volumes {:?}\n",
                ports.collect::<Vec<_>>(),
                volumes.collect::<Vec<_>>()
            ));
            text.push_str(&format!("    user {:?} network {:?} inputs {:?}\n", it.user, it.networking, texts(inputs)));
        }
    }
    text.push_str(&format!("acknowledged {:?}\n", desired.acknowledged));
    text
}

fn texts<T: std::fmt::Display>(names: &std::collections::BTreeSet<T>) -> Vec<String> {
    names.iter().map(T::to_string).collect()
}

fn check(repository: &str, host: &str, expected: Expect) {
    expected.assert_eq(&summary(&desired(repository, host)));
}

/// Everything that this version acts on.
const EVERYTHING: &str = r#"-- fleet.yaml --
fleet: home
defaults: { environment: prod, drift: report }
environments:
  prod: { vars: { retention: 14d }, endpoints: { billing: "https://billing.example" } }
  test:
hosts:
  attic:
    labels: { site: home, role: broker }
    address: 192.0.2.10
    key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai root@attic"
    vars: { port: 1883, deep: [{ a: 1 }] }
  spare: { environment: test }
acknowledge:
  - { prune: "1f2e3d4c5b6a", reason: "the old broker is gone" }
-- hosts/farm.yaml --
barn: { labels: { site: farm, role: broker } }
-- apps/mqtt/app.yaml --
place:
  - { role: broker, site: [home, farm], not: { environment: test } }
  - { host: spare, site: home }
drift: repair
vars: { port: 1883 }
units:
  mosquitto.service: { reload-on: [/etc/mosquitto/mosquitto.conf], restart-on: [/etc/mosquitto/passwd] }
  worker@blue.service: { state: running }
  worker@green.service: { state: stopped, enabled: false }
  old.service: { state: stopped }
  paused.service: { enabled: false }
  systemd-timesyncd.service: { state: running, enabled: true, allow-critical: true }
files:
  /etc/mosquitto/passwd: { mode: "0640", owner: mosquitto, group: 118 }
  /srv/mqtt: { kind: directory, mode: "0750", owner: mosquitto }
  /etc/mosquitto/current: { kind: symlink, target: mosquitto.conf }
  /etc/sudoers.d/mqtt: { allow-critical: true, mode: "0440" }
containers:
  exporter:
    image: "registry.lan:5000/tools/exporter:1.4@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    entrypoint: [/exporter]
    command: [--port, 9234, --verbose]
    env: { BROKER: localhost, RETRIES: 3, DEBUG: false, RATIO: 1.50 }
    ports: ["9234:9234", "127.0.0.1:53:5353/udp", "[::1]:80:80"]
    volumes: ["/etc/mosquitto:/etc/mosquitto:ro", "data:/data", "/srv/mqtt:/srv", "/etc/motd:/etc/motd:ro"]
    user: 1000:1000
    network: mqtt
    labels: { team: home }
-- apps/mqtt/mosquitto.service --
[Unit]
Description=MQTT broker
After=network-online.target

[Service]
ExecStart=/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf \
  # not part of the value
  --verbose
Type=notify
X-Remark=ours

[Install]
WantedBy=multi-user.target
-- apps/mqtt/worker@.service --
[Service]
ExecStart=/usr/bin/worker %i
[Install]
WantedBy=multi-user.target
-- apps/mqtt/old.service --
[Service]
ExecStart=/usr/bin/old
[Install]
WantedBy=multi-user.target
-- apps/mqtt/paused.service --
[Service]
ExecStart=/usr/bin/paused
[Install]
WantedBy=multi-user.target
-- apps/mqtt/backup.service --
[Service]
Type=oneshot
ExecStart=/usr/bin/backup
[Install]
WantedBy=multi-user.target
-- apps/mqtt/backup.timer --
[Timer]
OnCalendar=daily
[Install]
WantedBy=timers.target
-- apps/mqtt/weekly.timer --
[Timer]
OnCalendar=weekly
Unit=report.service
[Install]
WantedBy=timers.target
-- apps/mqtt/report.service --
[Service]
ExecStart=/usr/bin/report
[Install]
WantedBy=multi-user.target
-- apps/mqtt/helper.service --
[Service]
ExecStart=/usr/bin/helper
-- apps/mqtt/srv-my\x2ddata.mount --
[Mount]
What=/dev/disk/by-label/data
Where=/srv/my-data
[Install]
WantedBy=local-fs.target
-- apps/mqtt/mqtt.slice --
[Slice]
MemoryMax=1G
-- apps/mqtt/mqtt.target --
[Unit]
Description=everything
-- apps/mqtt/files/etc/mosquitto/mosquitto.conf --
listener 1883
-- apps/mqtt/files/etc/mosquitto/passwd --
bridge:x
-- apps/mqtt/files/etc/sudoers.d/mqtt --
mosquitto ALL=NOPASSWD: /usr/bin/true
-- apps/mqtt/files/usr/local/bin/smoke (x) --
#!/bin/sh
-- apps/motd/files/etc/motd --
welcome
"#;

#[test]
fn everything_that_can_be_written() {
    check(
        EVERYTHING,
        "attic",
        expect![[r#"
            fleet home host attic
            app motd: drift Report
              /etc/motd: file of 8 bytes 0644 root:root
            app mqtt: drift Repair
              /etc/mosquitto/current: link to mosquitto.conf 0777 root:root
              /etc/mosquitto/mosquitto.conf: file of 14 bytes 0644 root:root
              /etc/mosquitto/passwd: file of 9 bytes 0640 mosquitto:118
              /etc/sudoers.d/mqtt: file of 38 bytes 0440 root:root
              /etc/systemd/system/backup.service: file of 86 bytes 0644 root:root
              /etc/systemd/system/backup.timer: file of 58 bytes 0644 root:root
              /etc/systemd/system/helper.service: file of 36 bytes 0644 root:root
              /etc/systemd/system/mosquitto.service: file of 237 bytes 0644 root:root
              /etc/systemd/system/mqtt.slice: file of 21 bytes 0644 root:root
              /etc/systemd/system/mqtt.target: file of 30 bytes 0644 root:root
              /etc/systemd/system/old.service: file of 70 bytes 0644 root:root
              /etc/systemd/system/paused.service: file of 73 bytes 0644 root:root
              /etc/systemd/system/report.service: file of 73 bytes 0644 root:root
              /etc/systemd/system/srv-my\x2ddata.mount: file of 91 bytes 0644 root:root
              /etc/systemd/system/weekly.timer: file of 79 bytes 0644 root:root
              /etc/systemd/system/worker@.service: file of 76 bytes 0644 root:root
              /srv/mqtt: directory 0750 mosquitto:root
              /usr/local/bin/smoke: file of 10 bytes 0755 root:root
              backup.service from /etc/systemd/system/backup.service: None enabled None restart [] reload []
              backup.timer from /etc/systemd/system/backup.timer: Some(Running) enabled Some(true) restart [] reload []
              helper.service from /etc/systemd/system/helper.service: None enabled None restart [] reload []
              mosquitto.service from /etc/systemd/system/mosquitto.service: Some(Running) enabled Some(true) restart ["/etc/mosquitto/passwd"] reload ["/etc/mosquitto/mosquitto.conf"]
              mqtt.slice from /etc/systemd/system/mqtt.slice: None enabled None restart [] reload []
              mqtt.target from /etc/systemd/system/mqtt.target: None enabled None restart [] reload []
              old.service from /etc/systemd/system/old.service: Some(Stopped) enabled Some(false) restart [] reload []
              paused.service from /etc/systemd/system/paused.service: None enabled Some(false) restart [] reload []
              report.service from /etc/systemd/system/report.service: None enabled None restart [] reload []
              srv-my\x2ddata.mount from /etc/systemd/system/srv-my\x2ddata.mount: Some(Running) enabled Some(true) restart [] reload []
              systemd-timesyncd.service from the host: Some(Running) enabled Some(true) restart [] reload []
              weekly.timer from /etc/systemd/system/weekly.timer: Some(Running) enabled Some(true) restart [] reload []
              worker@blue.service from /etc/systemd/system/worker@.service: Some(Running) enabled Some(true) restart [] reload []
              worker@green.service from /etc/systemd/system/worker@.service: Some(Stopped) enabled Some(false) restart [] reload []
              container exporter: registry.lan:5000/tools/exporter:1.4@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ["/exporter"] ["--port", "9234", "--verbose"]
                env {"BROKER": "localhost", "DEBUG": "false", "RATIO": "1.50", "RETRIES": "3"} labels {"team": "home"}
                ports ["127.0.0.1:53->5353/udp", "::1:80->80/tcp", "*:9234->9234/tcp"] volumes ["data->/data", "/etc/mosquitto->/etc/mosquitto ro", "/etc/motd->/etc/motd ro", "/srv/mqtt->/srv"]
                user Some("1000:1000") network Mode("mqtt") inputs ["/etc/mosquitto/current", "/etc/mosquitto/mosquitto.conf", "/etc/mosquitto/passwd", "/etc/motd"]
            acknowledged {"1f2e3d4c5b6a"}
        "#]],
    );
}

#[test]
fn a_host_without_applications_wants_nothing() {
    let only_farm = format!(
        "-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\nplace: {{ site: farm }}\n-- apps/a/files/etc/a --\na\n"
    );
    check(
        &only_farm,
        "attic",
        expect![[r#"
        fleet home host attic
        acknowledged {}
    "#]],
    );
    assert_eq!(desired(&only_farm, "barn").apps.len(), 1);
}

#[test]
fn a_host_outside_the_fleet_is_an_error() {
    let fleet = fleet(&format!("-- fleet.yaml --\n{FLEET}-- apps/a/files/etc/a --\na\n"));
    let error = |host: &str| {
        resolve(&fleet, &HostName::parse(host).expect("a host name")).expect_err("no such host").to_string()
    };
    expect!["host `attik` is not in fleet `home`: did you mean `attic`?"].assert_eq(&error("attik"));
    expect!["host `elsewhere` is not in fleet `home`, which has attic, barn"].assert_eq(&error("elsewhere"));
}

#[test]
fn digests_follow_content_and_nothing_else() {
    let before = digest(EVERYTHING, "mqtt");
    let same = |from: &str, to: &str| {
        assert!(EVERYTHING.contains(from), "{from}");
        assert_eq!(digest(&EVERYTHING.replace(from, to), "mqtt"), before, "{from} -> {to}");
    };
    let other = |from: &str, to: &str| {
        assert!(EVERYTHING.contains(from), "{from}");
        assert_ne!(digest(&EVERYTHING.replace(from, to), "mqtt"), before, "{from} -> {to}");
    };
    same("role: broker }\n    address", "role: broker, ring: canary }\n    address");
    same("address: 192.0.2.10", "address: 192.0.2.11");
    same("fleet: home", "fleet: house");
    same("drift: repair", "drift: report");
    same("vars: { port: 1883 }", "vars: { port: 1884 }");
    same("the old broker is gone", "gone");
    same("role: broker, site: [home, farm], not", "site: [farm, home], role: broker, not");
    other("listener 1883", "listener 1884");
    other("mode: \"0640\"", "mode: \"0600\"");
    other("owner: mosquitto, group: 118", "owner: mosquitto, group: 119");
    other("target: mosquitto.conf", "target: ./mosquitto.conf");
    other("Description=MQTT broker", "Description=Broker");
    other("worker@blue.service: { state: running }", "worker@red.service: { state: running }");
    other("paused.service: { enabled: false }", "paused.service: { enabled: true }");
    other("RETRIES: 3", "RETRIES: 4");
    other("smoke (x)", "smoke");
    // Another application's file that a container mounts.
    other("welcome", "good morning");
}

#[test]
fn a_container_depends_on_what_it_mounts() {
    let container = |repository: &str| {
        let desired = desired(repository, "attic");
        let app = &desired.apps[&AppName::parse("mqtt").expect("an application's name")];
        app.containers[&ContainerName::parse("exporter").expect("a container's name")].digest
    };
    let before = container(EVERYTHING);
    assert_eq!(container(&EVERYTHING.replace("#!/bin/sh", "#!/bin/dash")), before);
    assert_eq!(container(&EVERYTHING.replace("mode: \"0750\"", "mode: \"0700\"")), before);
    assert_ne!(container(&EVERYTHING.replace("bridge:x", "bridge:y")), before);
    assert_ne!(container(&EVERYTHING.replace("welcome", "good morning")), before);
    assert_ne!(container(&EVERYTHING.replace("team: home", "team: farm")), before);
}

/// Turns texts into a map in flow style, in the order given.
fn flow(entries: &[&str]) -> String {
    format!("{{ {} }}", entries.join(", "))
}

proptest! {
    #[test]
    fn the_order_of_keys_does_not_matter(
        top in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        env in Just(vec!["A: 1", "B: two", "C: true"]).prop_shuffle(),
        ports in Just(vec!["\"80:80\"", "\"81:80\"", "\"80:80/udp\""]).prop_shuffle(),
        volumes in Just(vec!["\"a:/a\"", "\"/etc/x:/x\"", "\"b:/b:ro\""]).prop_shuffle(),
        files in Just(vec!["/etc/x: { mode: \"0600\" }", "/srv/a: { kind: directory }", "/srv/b: { kind: directory }"]).prop_shuffle(),
        units in Just(vec!["a.service: { state: running }", "b.service: { enabled: true }"]).prop_shuffle(),
    ) {
        let sections = [
            format!("files: {}\n", flow(&files)),
            format!("units: {}\n", flow(&units)),
            format!(
                "containers: {{ c: {{ image: \"c:1\", env: {}, ports: [{}], volumes: [{}] }} }}\n",
                flow(&env), ports.join(", "), volumes.join(", ")
            ),
            "place: all\n".to_owned(),
        ];
        let app = |order: &[usize]| order.iter().map(|at| sections[*at].clone()).collect::<String>();
        let repository = |app: String| format!("-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\n{app}-- apps/a/files/etc/x --\nx\n");
        let sorted = "files: { /etc/x: { mode: \"0600\" }, /srv/a: { kind: directory }, /srv/b: { kind: directory } }\n\
            units: { a.service: { state: running }, b.service: { enabled: true } }\n\
            containers: { c: { image: \"c:1\", env: { A: 1, B: two, C: true }, ports: [\"80:80\", \"81:80\", \"80:80/udp\"], \
            volumes: [\"a:/a\", \"/etc/x:/x\", \"b:/b:ro\"] } }\n";
        prop_assert_eq!(digest(&repository(app(&top)), "a"), digest(&repository(sorted.to_owned()), "a"));
    }
}

#[test]
fn a_check_of_a_quadlet_s_container_knows_whose_podman_has_it() {
    let check = |app: &str, quadlets: &str, container: &str, expected: &str| {
        let app = format!("{app}checks: [ {{ container: {container} }} ]\n");
        let repository = format!("-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\n{app}{quadlets}");
        let desired = desired(&repository, "attic");
        let check = &desired.apps[&AppName::parse("a").unwrap()].checks[0];
        let Probe::Container { service, .. } = &check.probe else { panic!("{check}") };
        let service = service.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(format!("{check}: {service}"), expected);
    };
    let web = "-- apps/a/web.container --\n[Container]\nImage=x:1\n";
    let pod = "-- apps/a/shop.pod --\n[Pod]\n";
    let instances = "-- apps/a/w@.container --\n[Container]\nImage=x:1\nContainerName=%p-%i\n";
    let alice = "user: { name: alice, uid: 1500 }\n";
    check("", web, "systemd-web", "check of container systemd-web: web.service");
    check(alice, web, "systemd-web", "check of container systemd-web of alice: web.service of alice");
    check("", web, "web", "check of container web: ");
    let named = format!("{web}-- apps/a/web.container.d/name.conf --\n[Container]\nContainerName=web\n");
    check("", &named, "web", "check of container web: web.service");
    check("", pod, "systemd-shop-infra", "check of container systemd-shop-infra: shop-pod.service");
    check("", web, "systemd-web-infra", "check of container systemd-web-infra: ");
    check("units: { w@one.service: {} }\n", instances, "w-one", "check of container w-one: w@one.service");
    let kube = "-- apps/a/k.kube --\n[Kube]\nYaml=/srv/k.yaml\n-- apps/a/files/srv/k.yaml --\nkind: Pod\n\
                metadata: { name: kp }\nspec: { containers: [ { name: web, image: x } ] }\n";
    check("", kube, "kp-web", "check of container kp-web: k.service");
    check("containers: { db: { image: \"db:1\" } }\n", web, "db", "check of container db: ");
}
