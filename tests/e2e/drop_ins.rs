//! Drop-ins: for one's own units, for a unit that a distribution package ships, and what happens when they go.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const WEB: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const FOLDER: &str = "/root/fleet";
/// Debian's own unit, as its package ships it.
const THEIRS: &str = "docker-registry";

#[test]
fn drop_ins_add_to_units_of_the_application_and_of_packages() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.sh(&format!("systemctl start {THEIRS}; systemctl stop podman-auto-update.timer")).unwrap();
    let vendor =
        host.sh(&format!("systemctl cat {THEIRS} | sha256sum; systemctl is-enabled {THEIRS} || true")).unwrap();
    let property =
        |unit: &str, name: &str| host.sh(&format!("systemctl show -P {name} {unit}")).unwrap().trim().to_owned();
    let own = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", WEB),
        ("apps/web/web.service.d/nice.conf", "[Service]\nNice=7\nEnvironmentFile=/etc/web.env\n"),
        ("apps/web/files/etc/web.env", "A=1\n"),
    ];
    let theirs = [
        (
            "apps/tuning/docker-registry.service.d/limits.conf",
            "[Service]\nLimitNOFILE=12345\nEnvironmentFile=-/etc/reg.env\n",
        ),
        ("apps/tuning/files/etc/reg.env", "B=1\n"),
        // Not running, and not started just for this.
        ("apps/tuning/podman-auto-update.timer.d/often.conf", "[Timer]\nOnCalendar=\nOnCalendar=daily\n"),
    ];
    let write = |files: &[&[(&str, &str)]]| agent::write_folder(&host, FOLDER, &files.concat());

    // The first time: what runs is restarted with them, what does not run stays so, the mode is what systemd wants.
    let before = agent::invocation(&host, THEIRS);
    write(&[&own, &theirs]);
    agent::converge(&host, FOLDER);
    assert_eq!((property("web", "Nice"), property(THEIRS, "LimitNOFILE")), ("7".to_owned(), "12345".to_owned()));
    assert_ne!(agent::invocation(&host, THEIRS), before);
    assert_eq!(property("podman-auto-update.timer", "ActiveState"), "inactive");
    assert!(property("podman-auto-update.timer", "DropInPaths").ends_with("/often.conf"));
    host.sh("test \"$(stat -c '%a %U' /etc/systemd/system/docker-registry.service.d/limits.conf)\" = '644 root'")
        .unwrap();
    let runs = || ["web", THEIRS].map(|unit| agent::invocation(&host, unit));
    let settled = runs();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(runs(), settled);

    // What a drop-in names restarts exactly the unit it is for; so does the drop-in itself.
    let mut changed = theirs;
    changed[1].1 = "B=2\n";
    write(&[&own, &changed]);
    let said = agent::converge(&host, FOLDER);
    assert!(said.contains("restart  docker-registry.service"), "{said}");
    let now = runs();
    assert!(now[0] == settled[0] && now[1] != settled[1], "{said}");
    changed[0].1 = "[Service]\nLimitNOFILE=23456\n";
    write(&[&own, &changed]);
    agent::converge(&host, FOLDER);
    assert_eq!(property(THEIRS, "LimitNOFILE"), "23456");
    let again = runs();
    assert!(again[0] == now[0] && again[1] != now[1]);

    // Drift, with and without systemd having read it.
    host.sh(
        "echo 'Nice=1' >> /etc/systemd/system/web.service.d/nice.conf; systemctl daemon-reload; systemctl restart web",
    )
    .unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(property("web", "Nice"), "7");
    host.sh("rm -r /etc/systemd/system/docker-registry.service.d").unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!((property(THEIRS, "LimitNOFILE"), property(THEIRS, "NeedDaemonReload")), ("23456".into(), "no".into()));

    // Gone from the repository: the package's unit goes on without it, and is not stopped, disabled or changed.
    let before = agent::invocation(&host, THEIRS);
    write(&[&own[..2], &own[3..], &[("apps/tuning/files/etc/reg.env", "B=2\n")]]);
    let said = agent::converge(&host, FOLDER);
    assert_eq!((property("web", "Nice"), property("web", "ActiveState")), ("0".into(), "active".into()), "{said}");
    assert_ne!((property(THEIRS, "LimitNOFILE"), agent::invocation(&host, THEIRS)), ("23456".into(), before), "{said}");
    let shipped =
        host.sh(&format!("systemctl cat {THEIRS} | sha256sum; systemctl is-enabled {THEIRS} || true")).unwrap();
    assert_eq!((shipped, property(THEIRS, "ActiveState")), (vendor, "active".to_owned()));
    host.sh("test ! -e /etc/systemd/system/docker-registry.service.d; test ! -e /etc/systemd/system/podman-auto-update.timer.d")
        .unwrap();
    let settled = runs();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(runs(), settled);

    // A unit that nobody has; and a package's unit whose whole text is taken over, which is worth a note.
    write(&[
        &own[..2],
        &[("apps/ghost/ghost.service.d/a.conf", "[Service]\nNice=5\n"), ("apps/own/docker-registry.service", WEB)],
    ]);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("conflict in ghost: unit ghost.service: this host has no such unit"), "{said}");
    let note = "note on own: unit docker-registry.service: its text takes the place of /usr/lib/systemd/system/docker-registry.service";
    assert!(said.contains(note), "{said}");
    assert_eq!(agent::plan(&host, FOLDER)["notes"].as_array().unwrap().len(), 1);
}
