//! The first things a newcomer does: converge a host from a folder, change a line, stop a service, remove an application.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironmentFile=/etc/web.conf\n\n[Install]\nWantedBy=multi-user.target\n";
const OTHER: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn a_folder_becomes_running_services_and_stays_that_way() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    let folder = |conf: &'static str| {
        [
            ("fleet.yaml", FLEET),
            ("apps/web/web.service", UNIT),
            ("apps/web/files/etc/web.conf", conf),
            ("apps/other/other.service", OTHER),
        ]
    };
    agent::write_folder(&host, "/root/fleet", &folder("A=1\n"));
    agent::converge(&host, "/root/fleet");
    assert_eq!(
        host.sh("systemctl is-active web other; systemctl is-enabled web other").unwrap(),
        "active\nactive\nenabled\nenabled\n"
    );
    assert_eq!(agent::steps(&agent::plan(&host, "/root/fleet")), Vec::<String>::new());

    let (web, other) = (agent::invocation(&host, "web"), agent::invocation(&host, "other"));
    agent::write_folder(&host, "/root/fleet", &folder("A=2\n"));
    assert_eq!(agent::steps(&agent::plan(&host, "/root/fleet")), ["write /etc/web.conf", "restart web.service"]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.read("/etc/web.conf").unwrap(), "A=2\n");
    assert_ne!(agent::invocation(&host, "web"), web);
    assert_eq!(agent::invocation(&host, "other"), other);

    host.sh("systemctl stop web").unwrap();
    assert_eq!(agent::steps(&agent::plan(&host, "/root/fleet")), ["start web.service"]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("systemctl is-active web").unwrap(), "active\n");

    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/other/other.service", OTHER)]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(
        host.sh(
            "systemctl is-active web || true; ls /etc/web.conf /etc/systemd/system/web.service 2>/dev/null || true"
        )
        .unwrap(),
        "inactive\n"
    );
    assert_eq!(agent::invocation(&host, "other"), other);
}
