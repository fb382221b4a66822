//! What systemd would refuse, or would silently do without, is refused before anything of its application changes.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target\n";

#[test]
fn what_systemd_would_not_take_changes_nothing() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 200ms\n").unwrap();
    let service = |lines: &str| format!("[Unit]\nAfter=nobody-has.service\n[Service]\n{lines}\n{INSTALL}");
    let files = [
        ("fleet.yaml", FLEET.to_owned()),
        ("apps/soft/soft.service", service("ExecStart=sleep infinity\nCPUQuota=lots%")),
        ("apps/soft/files/etc/soft.conf", "x\n".to_owned()),
        ("apps/added/added.service", service("ExecStart=sleep infinity")),
        ("apps/added/added.service.d/limits.conf", "[Service]\nMemoryMax=12Q\n".to_owned()),
        ("apps/never/never.timer", "[Timer]\nOnCalendar=*-*-* 25:61\n[Install]\nWantedBy=timers.target\n".to_owned()),
        ("apps/never/never.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n".to_owned()),
        ("apps/user/user.service", service("ExecStart=sleep infinity\nUser=keeper")),
        ("apps/well/well.service", service("ExecStart=/usr/local/bin/well")),
        ("apps/well/files/usr/local/bin/well", "#!/bin/sh\nexec sleep infinity\n".to_owned()),
        ("apps/well/app.yaml", "files: { /usr/local/bin/well: { mode: \"0755\" } }\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    agent::write_folder(&host, "/root/fleet", &files);

    let (code, said) = agent::once(&host, "/root/fleet");
    assert_eq!(code, 4, "{said}");
    for expected in [
        "failed in soft: ",
        "apps/soft/soft.service:5: systemd does not take it as it is written: ",
        "apps/added/added.service.d/limits.conf:2: systemd does not take it as it is written: Invalid memory limit '12Q'",
        "apps/never/never.timer:2: systemd does not take it as it is written: Failed to parse calendar",
        "user.service: it is to run with user `keeper`, which this host does not have: create it",
    ] {
        assert!(said.contains(expected), "no `{expected}` in\n{said}");
    }
    host.sh("systemctl is-active well; for it in soft.service added.service never.timer never.service; do \
             test ! -e /etc/systemd/system/$it || exit 1; done; test ! -e /etc/soft.conf")
        .unwrap();

    // The account comes with a package, the others with a commit.
    host.sh("useradd --system keeper").unwrap();
    let mended = [
        ("soft/soft.service", service("ExecStart=sleep infinity\nCPUQuota=50%")),
        ("added/added.service.d/limits.conf", "[Service]\nMemoryMax=12G\n".to_owned()),
        ("never/never.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n".to_owned()),
    ];
    for (path, text) in mended {
        host.write(&format!("/root/fleet/apps/{path}"), text).unwrap();
    }
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("systemctl show -P User user").unwrap().trim(), "keeper");
    host.sh("systemctl is-active soft added never.timer user").unwrap();

    // Who is wanted by another target from now on, or by none, is no longer wanted by the one before.
    let links =
        || host.sh("cd /etc/systemd/system; find . -type l -name soft.service -o -type l -name well.service").unwrap();
    assert_eq!(sorted(&links()), ["./multi-user.target.wants/soft.service", "./multi-user.target.wants/well.service"]);
    let other = service("ExecStart=sleep infinity").replace("multi-user", "graphical");
    host.write("/root/fleet/apps/soft/soft.service", other).unwrap();
    let bare = service("ExecStart=/usr/local/bin/well").replace(INSTALL, "");
    host.write("/root/fleet/apps/well/well.service", bare).unwrap();
    agent::converge(&host, "/root/fleet");
    assert_eq!(sorted(&links()), ["./graphical.target.wants/soft.service"]);
    assert_eq!(agent::steps(&agent::plan(&host, "/root/fleet")), Vec::<String>::new());
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}
