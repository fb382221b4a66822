//! The two halves of the agent: who talks to servers is nobody on the host, and who changes the host has no network.

use std::time::Duration;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
/// What an attacker in either half would try first. The sandbox is entered as the process itself has it.
const INSIDE: &str =
    "inside() { unit=$1; shift; pid=$(systemctl show -P MainPID $unit); nsenter --target $pid --all --wdns=/ \"$@\"; }";

#[test]
fn who_talks_to_servers_is_nobody_and_who_changes_the_host_has_no_network() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let checks = "checks:\n  - { tcp: \"127.0.0.1:8099\" }\n  - { http: \"http://127.0.0.1:8099/signers\" }\n";
    let server = "[Service]\nExecStart=/usr/bin/busybox httpd -f -p 127.0.0.1:8099 -h /usr/share/lab\n\n[Install]\nWantedBy=multi-user.target\n";
    let first = repo
        .commit(&[("fleet.yaml", FLEET), ("apps/web/web.service", server), ("apps/web/app.yaml", checks)], "begin")
        .unwrap();
    agent::follow(&host, &repo.ssh_url(), "endpoint: { listen: [\"127.0.0.1:9105\"] }\n");
    agent::await_converged(&host, &first);
    host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:9105/readyz").unwrap();

    // The one is a user without rights, and sees nothing of what is the host's.
    let seen = host
        .sh(&format!(
            "{INSIDE}
             ps -o user=,args= -p $(systemctl show -P MainPID mainstay-fetch)
             grep -E '^Cap(Eff|Bnd)|^NoNewPrivs' /proc/$(systemctl show -P MainPID mainstay-fetch)/status
             cd /proc/$(systemctl show -P MainPID mainstay-fetch)/root
             {{ ls . ./var/lib ./run ./home ./root ./etc/mainstay 2>&1 || true; }} | tr '\\n' ' '"
        ))
        .unwrap();
    let user = seen.lines().next().unwrap_or_default();
    assert!(user.starts_with("mainsta") && user.ends_with("/usr/bin/mainstay fetcher"), "{seen}");
    assert!(seen.contains("CapEff:\t0000000000000000") && seen.contains("CapBnd:\t0000000000000000"), "{seen}");
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    for absent in ["agent.yaml", "ledger", "containers", "docker", "dbus", "apt", "srv", "opt", "boot", "podman"] {
        assert!(!seen.contains(absent), "{absent}\n{seen}");
    }

    // The other is root, and has nobody to talk to.
    let links = host.sh(&format!("{INSIDE}; inside mainstay ip -br link")).unwrap();
    assert!(links.lines().count() == 1 && links.starts_with("lo "), "{links}");
    host.sh(&format!("{INSIDE}; ! inside mainstay timeout 5 bash -c ': </dev/tcp/127.0.0.1/8099'")).unwrap();

    // Only root may ask who talks to servers: it hands over keys.
    let asked = host.sh("stat -c '%U %a' /run/mainstay/fetch.sock; runuser -u nobody -- curl -sv --max-time 5 --unix-socket /run/mainstay/fetch.sock http://it/ 2>&1 || true").unwrap();
    assert!(asked.starts_with("root 600\n") && asked.contains("ermission denied"), "{asked}");

    // Whoever has its user can spoil its mirror: that costs a fetch.
    host.sh("find /var/lib/mainstay-fetch -type f -exec sh -c 'echo spoilt >\"$1\"' _ {} \\;").unwrap();
    let second = repo.commit(&[("apps/web/files/etc/web", "1\n")], "second").unwrap();
    agent::await_converged(&host, &second);

    // What it has to say is heard.
    host.sh("curl -s --max-time 5 --unix-socket /run/mainstay/fetch.sock http://it/ || true").unwrap();
    host.wait_for(agent::SOON, "journalctl -u mainstay-fetch | grep -q 'another version asks'").unwrap();

    // It is back by itself; and while it is not, nothing is news, which is said, and what drifts is still put right.
    host.sh("systemctl stop mainstay-fetch.socket").unwrap();
    host.wait_for(agent::SOON, "systemctl is-active mainstay-fetch.socket").unwrap();
    host.sh("systemctl mask --now --runtime mainstay-fetch.socket mainstay-fetch.service; rm /etc/web").unwrap();
    host.wait_for(agent::SOON, "test -e /etc/web").unwrap();
    let third = repo.commit(&[("apps/web/files/etc/web", "2\n")], "third").unwrap();
    host.wait_for(agent::SOON, "journalctl -u mainstay | grep -q 'systemctl status mainstay-fetch.socket'").unwrap();
    host.sh("systemctl unmask --runtime mainstay-fetch.socket mainstay-fetch.service; systemctl start mainstay-fetch.socket")
        .unwrap();
    agent::await_converged(&host, &third);

    // It ends with the agent, and with it what it was given.
    host.sh("systemctl stop mainstay").unwrap();
    host.wait_for(Duration::from_secs(10), "! systemctl is-active --quiet mainstay-fetch.service").unwrap();
    host.sh("test ! -e /run/mainstay-fetch && systemctl is-active web").unwrap();
}
