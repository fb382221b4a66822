//! A disk is full, out of inodes or read-only: the old file stays as it is to the byte, nothing is left beside it, the
//! message says what is wrong, and the next pass goes on when there is room again.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironmentFile=/srv/small/web.conf\n\n[Install]\nWantedBy=multi-user.target\n";
const OTHER: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

fn folder(host: &Host, name: &str, conf: &str) -> String {
    let path = format!("/root/{name}");
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", UNIT),
        ("apps/web/files/srv/small/web.conf", conf),
        ("apps/other/other.service", OTHER),
        ("apps/other/files/etc/other.conf", conf),
    ];
    agent::write_folder(host, &path, &files);
    path
}

#[test]
fn a_full_or_read_only_disk_keeps_the_old_file_and_holds_up_nobody_else() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 100ms\n").unwrap();
    host.sh("mkdir /srv/small; mount -t tmpfs -o size=64k,nr_inodes=8 none /srv/small").unwrap();
    let mut now = format!("A=1{}\n", "1".repeat(20_000));
    agent::converge(&host, &folder(&host, "first", &now));

    let faults = [
        ("no space", "head -c 1M /dev/zero >fill || true", "No space left on device", "rm fill"),
        ("no inodes", "touch 1 2 3 4 5 6 7 8 9 || true", "No space left on device", "rm 1 2 3 4 5 6 7 8 9 || true"),
        ("read-only", "mount -o remount,ro .", "Read-only file system", "mount -o remount,rw ."),
    ];
    for (number, (fault, cause, says, undo)) in faults.into_iter().enumerate() {
        let next = format!("A={}{}\n", number + 2, "2".repeat(20_000));
        let wanted = folder(&host, "next", &next);
        let web = agent::invocation(&host, "web");
        host.sh(&format!("cd /srv/small; {cause}")).unwrap();
        let names = host.sh("ls -A /srv/small").unwrap();
        let (code, said) = agent::once(&host, &wanted);
        assert!(code == 4 && said.contains(says) && said.contains("/srv/small/web.conf"), "{fault}: {code} {said}");
        assert_eq!(host.read("/srv/small/web.conf").unwrap(), now, "{fault}");
        assert_eq!(host.sh("ls -A /srv/small").unwrap(), names, "{fault}: nothing is left behind");
        assert_eq!(agent::invocation(&host, "web"), web, "{fault}");
        assert_eq!(host.read("/etc/other.conf").unwrap(), next, "{fault}: the other application goes on");
        host.sh(&format!("cd /srv/small; {undo}")).unwrap();
        agent::converge(&host, &wanted);
        assert_eq!(host.read("/srv/small/web.conf").unwrap(), next, "{fault}");
        assert_ne!(agent::invocation(&host, "web"), web, "{fault}");
        now = next;
    }
}

#[test]
fn without_room_in_run_a_reload_is_refused_and_done_later() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 100ms\n").unwrap();
    host.sh("mkdir /srv/small").unwrap();
    let wanted = folder(&host, "first", "A=1\n");
    // systemd keeps 16 MiB free for its own state and refuses to reload below that.
    host.sh("fallocate -l $(( $(df --output=avail -B1 /run | tail -n 1) - 4000000 )) /run/fill").unwrap();
    let (code, said) = agent::once(&host, &wanted);
    assert!(code == 4 && said.contains("reload"), "{code} {said}");
    assert_eq!(host.sh("systemctl is-active web || true").unwrap(), "inactive\n");
    host.sh("rm /run/fill").unwrap();
    agent::converge(&host, &wanted);
    assert_eq!(host.sh("systemctl is-active web other").unwrap(), "active\nactive\n");
}
