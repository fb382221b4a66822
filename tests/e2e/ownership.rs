//! What is not mainstay's stays as it is: on a wanted name it is a conflict that says so, and the rest goes on.

use lab::{Forge, Host};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn somebody_elses_things_are_conflicts_and_stay_untouched() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    host.start_docker().unwrap();
    agent::install(&host);
    host.sh(&format!(
        "echo theirs > /etc/theirs.conf; echo same > /etc/same.conf; chmod 0644 /etc/theirs.conf /etc/same.conf
         mkdir -p /srv/is-a-directory; mknod /srv/pipe p
         printf '[Service]\\nExecStart=/usr/bin/sleep 1d\\n' > /etc/systemd/system/theirs.service
         systemctl daemon-reload; systemctl start theirs
         docker run --quiet -d --name theirs {}",
        image.reference
    ))
    .unwrap();
    let paths = [
        "/etc/theirs.conf",
        "/etc/same.conf",
        "/srv/is-a-directory",
        "/srv/pipe",
        "/etc/systemd/system/theirs.service",
    ];
    let look = || {
        let mut all = agent::snapshot(&host, &paths, &["theirs"]);
        all.retain(|key, _| {
            !["events", "jobs", "reloads"].contains(&key.as_str())
                && !key.starts_with("state ")
                && key != "container /ours"
        });
        all
    };
    let before = look();
    let container = |name: &str| format!("containers: {{ {name}: {{ image: \"{}\" }} }}\n", image.reference);
    let (theirs, ours) = (container("theirs"), container("ours"));
    let accounts = "files:\n  /srv/a: { owner: nobody-here }\n  /srv/b: { group: no-such-group }\n";
    let all = [
        ("fleet.yaml", FLEET),
        ("apps/file/files/etc/theirs.conf", "ours\n"),
        ("apps/unit/theirs.service", STAYS),
        ("apps/container/app.yaml", &theirs),
        ("apps/directory/files/srv/is-a-directory", "a file\n"),
        ("apps/pipe/files/srv/pipe", "a file\n"),
        ("apps/accounts/app.yaml", accounts),
        ("apps/accounts/files/srv/a", "a\n"),
        ("apps/accounts/files/srv/b", "b\n"),
        ("apps/same/files/etc/same.conf", "same\n"),
        ("apps/same/files/etc/more.conf", "more\n"),
        ("apps/well/ours.service", STAYS),
        ("apps/well/app.yaml", &ours),
    ];
    agent::write_folder(&host, "/root/fleet", &all);
    for _ in 0..2 {
        let (code, said) = agent::once(&host, "/root/fleet");
        assert_eq!(code, 4, "{said}");
        for conflict in [
            "conflict in file: file /etc/theirs.conf: ",
            "conflict in unit: file /etc/systemd/system/theirs.service: ",
            "conflict in container: container theirs: ",
            "conflict in directory: file /srv/is-a-directory: ",
            "conflict in pipe: file /srv/pipe: ",
            "conflict in accounts: file /srv/a: this host has no user `nobody-here`",
            "conflict in accounts: file /srv/b: this host has no group `no-such-group`",
        ] {
            assert!(said.contains(conflict), "{conflict}\n{said}");
        }
        assert!(!said.contains("conflict in same") && !said.contains("conflict in well"), "{said}");
        assert_eq!(agent::changes(&before, &look()), Vec::<String>::new());
        host.sh("systemctl is-active ours; test ! -e /srv/a; test ! -e /srv/b; docker inspect ours >/dev/null")
            .unwrap();
    }
    // Applications that go take nothing with them that they did not bring.
    agent::write_folder(
        &host,
        "/root/fleet",
        &[("fleet.yaml", FLEET), ("apps/well/ours.service", STAYS), ("apps/well/app.yaml", &ours)],
    );
    agent::converge(&host, "/root/fleet");
    assert_eq!(agent::changes(&before, &look()), Vec::<String>::new());
    host.sh("test ! -e /etc/more.conf").unwrap();
}

#[test]
fn a_unit_of_the_host_is_kept_running_and_let_go_as_it_is() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    let app = "units: { mosquitto.service: { state: running, enabled: true } }\n";
    let conf = "listener 1883 127.0.0.1\n";
    let other = ("apps/other/other.service", STAYS);
    let with = |conf: &'static str| {
        [
            ("fleet.yaml", FLEET),
            ("apps/mqtt/app.yaml", app),
            ("apps/mqtt/files/etc/mosquitto/conf.d/local.conf", conf),
            other,
        ]
    };
    let text = host.sh("systemctl cat mosquitto | sed 1d | sha256sum").unwrap();
    agent::write_folder(&host, "/root/fleet", &with(conf));
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("systemctl is-active mosquitto; systemctl is-enabled mosquitto").unwrap(), "active\nenabled\n");
    let run = agent::invocation(&host, "mosquitto");
    assert!(agent::converge(&host, "/root/fleet").contains("nothing to do"));
    assert_eq!(agent::invocation(&host, "mosquitto"), run);

    host.sh("systemctl disable --now --quiet mosquitto").unwrap();
    assert_eq!(
        agent::steps(&agent::plan(&host, "/root/fleet")),
        ["enable mosquitto.service", "reload systemd", "start mosquitto.service"]
    );
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("systemctl is-active mosquitto; systemctl is-enabled mosquitto").unwrap(), "active\nenabled\n");

    host.sh("systemctl stop mosquitto; systemctl mask --quiet mosquitto").unwrap();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("conflict in mqtt: unit mosquitto.service: somebody masked it on this host"), "{said}");
    assert_eq!(host.sh("systemctl is-enabled mosquitto || true").unwrap(), "masked\n");
    host.sh("systemctl unmask --quiet mosquitto").unwrap();
    agent::converge(&host, "/root/fleet");

    // It goes from the commit: not stopped, not disabled, not removed; nor touched when it is stopped later.
    let run = agent::invocation(&host, "mosquitto");
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), other]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("systemctl is-active mosquitto; systemctl is-enabled mosquitto").unwrap(), "active\nenabled\n");
    assert_eq!(agent::invocation(&host, "mosquitto"), run);
    assert_eq!(host.sh("systemctl cat mosquitto | sed 1d | sha256sum").unwrap(), text);
    host.sh("test ! -e /etc/mosquitto/conf.d/local.conf; test -d /etc/mosquitto/conf.d").unwrap();
    host.sh("systemctl stop mosquitto").unwrap();
    assert!(agent::converge(&host, "/root/fleet").contains("nothing to do"));
    assert_eq!(host.sh("systemctl is-active mosquitto || true").unwrap(), "inactive\n");

    // What this host does not have at all.
    let missing = "units: { no-such-thing.service: { state: running } }\n";
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/mqtt/app.yaml", missing), other]);
    let (code, said) = agent::once(&host, "/root/fleet");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("conflict in mqtt: unit no-such-thing.service: this host has no such unit"), "{said}");
}

#[test]
fn what_is_in_the_way_is_taken_over_where_the_repository_says_so_and_comes_back() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.sh("echo theirs > /etc/theirs.conf; chmod 0600 /etc/theirs.conf; echo same > /etc/same.conf
         chmod 0644 /etc/same.conf; ln -s theirs.conf /etc/link.conf; mkdir /srv/is-a-directory; touch /srv/is-a-directory/x
         printf '[Service]\\nExecStart=/usr/bin/sleep 1d\\n' > /etc/systemd/system/theirs.service
         systemctl daemon-reload; systemctl start theirs")
        .unwrap();
    let before = agent::invocation(&host, "theirs");
    let inode = host.sh("stat -c %i /etc/same.conf").unwrap();
    let all = [
        ("fleet.yaml", FLEET),
        ("apps/all/app.yaml", "adopt: true\n"),
        ("apps/all/files/etc/theirs.conf", "ours\n"),
        ("apps/all/files/etc/same.conf", "same\n"),
        ("apps/all/files/etc/link.conf", "ours\n"),
        ("apps/all/theirs.service", STAYS),
        ("apps/directory/app.yaml", "adopt: true\n"),
        ("apps/directory/files/srv/is-a-directory", "a file\n"),
    ];
    agent::write_folder(&host, "/root/fleet", &all);
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("is a directory and should be a file"), "{code} {said}");
    host.sh("test -e /srv/is-a-directory/x; test ! -L /etc/link.conf").unwrap();
    assert_eq!(host.sh("cat /etc/theirs.conf /etc/link.conf").unwrap(), "ours\nours\n");
    assert_eq!(host.sh("stat -c %i /etc/same.conf").unwrap(), inode, "what is as wanted is not written");
    let after = agent::invocation(&host, "theirs");
    assert!(after != before && host.sh("systemctl cat theirs").unwrap().contains("infinity"), "it runs with our text");
    let list = host.sh("mainstay restore").unwrap();
    assert_eq!(list.matches("it was there before mainstay and is taken over").count(), 3, "{list}");

    // From here on it is ours: it goes when nobody wants it, and theirs can come back.
    let rest = [("fleet.yaml", FLEET), ("apps/all/files/etc/theirs.conf", "ours\n")];
    agent::write_folder(&host, "/root/fleet", &rest);
    agent::converge(&host, "/root/fleet");
    host.sh("test ! -e /etc/same.conf; test ! -e /etc/link.conf; test ! -e /etc/systemd/system/theirs.service")
        .unwrap();
    for (path, check) in [
        ("/etc/link.conf", "test \"$(readlink /etc/link.conf)\" = theirs.conf"),
        ("/etc/systemd/system/theirs.service", "grep 'sleep 1d' /etc/systemd/system/theirs.service"),
    ] {
        let id = list.lines().find(|line| line.contains(path)).unwrap().split(' ').next().unwrap();
        host.sh(&format!("mainstay restore {id} && {check}")).unwrap();
    }
}

#[test]
fn a_container_that_is_in_the_way_is_kept_under_another_name_or_put_back() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    host.start_docker().unwrap();
    containers_are_taken_over(&forge, &host, "docker");
}

#[test]
fn a_container_of_podman_that_is_in_the_way_is_kept_under_another_name_or_put_back() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    host.sh("systemctl start podman.socket").unwrap();
    containers_are_taken_over(&forge, &host, "podman");
}

fn containers_are_taken_over(forge: &Forge, host: &Host, engine: &str) {
    let (theirs, ours) = (forge.image("web", "1", "one").unwrap(), forge.image("web", "2", "two").unwrap());
    agent::install(host);
    host.write("/etc/mainstay/agent.yaml", "settle: 300ms\n").unwrap();
    for (name, how) in [("web", "--restart always"), ("bad", "--restart always"), ("late", ""), ("fleeting", "--rm")] {
        let run = format!("{engine} run --quiet -d {how} --name {name} {}", theirs.reference);
        host.sh(&format!("{run}; {engine} exec {name} touch /theirs")).unwrap();
    }
    let wants = |name: &str, more: &str| {
        format!("adopt: true\ncontainers:\n  {name}: {{ image: \"{}\"{more} }}\n", ours.reference)
    };
    let apps = |bad: &str| {
        let (web, bad, fleeting) = (wants("web", ""), wants("bad", bad), wants("fleeting", ""));
        let check = "checks: [{ exec: [/bin/false], within: 1s, interval: 1s }]\n";
        let late = format!("{}{check}", wants("late", ""));
        let apps = [("web", &web), ("bad", &bad), ("late", &late), ("fleeting", &fleeting)];
        let apps = apps.map(|(app, text)| (format!("apps/{app}/app.yaml"), text.as_str()));
        let files: Vec<_> = apps.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        agent::write_folder(host, "/root/fleet", &[&[("fleet.yaml", FLEET)], &files[..]].concat());
    };
    // One that does not stay up does not take the place of one that runs.
    apps(", command: [/nowhere]");
    let steps = agent::steps(&agent::plan(host, "/root/fleet"));
    assert!(steps.contains(&"replace container web".to_owned()), "{steps:?}");
    let (code, said) = agent::once(host, "/root/fleet");
    assert!(code == 4 && said.contains("failed in bad: "), "{code} {said}");
    assert!(said.contains("fleeting") && said.contains("it was started with `--rm`"), "{said}");
    let look = |name: &str| {
        let format = "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Image}}";
        host.sh(&format!("{engine} inspect --format '{format}' {name}")).unwrap().trim().to_owned()
    };
    assert_eq!(look("bad"), format!("true always {}", theirs.reference), "{said}");
    assert_eq!(look("fleeting"), format!("true no {}", theirs.reference), "{said}");
    assert_eq!(look("web"), format!("true unless-stopped {}", ours.reference), "{said}");
    assert_eq!(look("web.before"), format!("false no {}", theirs.reference), "{said}");
    assert_eq!(look("late"), format!("true unless-stopped {}", ours.reference), "its check does not pass: {said}");
    host.sh(&format!("{engine} exec bad test -e /theirs; {engine} cp web.before:/theirs - >/dev/null")).unwrap();
    // Each attempt would stop what works.
    let plan = agent::plan(host, "/root/fleet");
    assert!(plan.to_string().contains("mainstay retry bad"), "{plan}");
    assert!(!agent::steps(&plan).contains(&"replace container bad".to_owned()), "{plan}");

    apps("");
    agent::once(host, "/root/fleet");
    assert_eq!(look("bad"), format!("true unless-stopped {}", ours.reference));
    assert_eq!(look("bad.before"), format!("false no {}", theirs.reference));
    // What was kept is not ours, whatever becomes of the application; what was never replaced by what works comes back.
    agent::write_folder(host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/x/files/etc/x", "x\n")]);
    agent::converge(host, "/root/fleet");
    let all = host.sh(&format!("{engine} ps --all --format '{{{{.Names}}}}' | sort")).unwrap();
    assert_eq!(all, "bad.before\nfleeting\nlate\nweb.before\n");
    assert_eq!(look("late"), format!("true no {}", theirs.reference));
    host.sh(&format!("{engine} exec late test -e /theirs")).unwrap();
}

#[test]
fn a_project_that_docker_compose_runs_is_taken_over_with_its_data() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    host.start_docker().unwrap();
    agent::install(&host);
    let image = forge.image("mig", "1", "one").unwrap();
    let compose = format!(
        "services:\n  web: {{ image: \"{}\", command: [sleep, \"1000\"], volumes: [\"data:/data\"] }}\nvolumes: {{ data: }}\n",
        image.reference
    );
    agent::write_folder(&host, "/srv/mig", &[("compose.yaml", &compose)]);
    host.sh("cd /srv/mig && docker compose up --detach 2>&1 && docker exec mig-web-1 touch /data/orders").unwrap();
    let network = "docker network inspect --format '{{.Id}} {{.Labels}}' mig_default";
    let before = host.sh(network).unwrap();
    let wants = |adopt: &str| {
        let all = [("fleet.yaml", FLEET), ("apps/mig/compose.yaml", &compose), ("apps/mig/app.yaml", adopt)];
        agent::write_folder(&host, "/root/fleet", &all);
    };
    wants("");
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("write `adopt: true` in app.yaml to take the project over"), "{code} {said}");

    wants("adopt: true\n");
    agent::converge(&host, "/root/fleet");
    let containers = "docker ps --all --format '{{.Names}} {{.State}} {{.Label \"io.mainstay.app\"}}' | sort";
    assert_eq!(host.sh(containers).unwrap(), "mig-web-1 running mig\nmig-web-1.before exited \n");
    host.sh("docker exec mig-web-1 test -e /data/orders").unwrap();
    assert_eq!(host.sh(network).unwrap(), before, "the network is theirs as before");
    assert!(agent::converge(&host, "/root/fleet").contains("nothing to do"));

    // It goes without what was there before.
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/x/files/etc/x", "x\n")]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh(containers).unwrap(), "mig-web-1.before exited \n");
    assert_eq!(host.sh(network).unwrap(), before);
    host.sh("docker start mig-web-1.before && docker exec mig-web-1.before test -e /data/orders").unwrap();
}
