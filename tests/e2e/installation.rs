//! From nothing to a host that follows a repository, and back: `mainstay install`, `uninstall`, and the package.

use lab::{Debian, Forge, Host, Repo, product};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const WEB: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

fn fleet(forge: &Forge) -> (Repo, String) {
    let repo = forge.repo("fleet").unwrap();
    let tip = repo.commit(&[("fleet.yaml", FLEET), ("apps/web/web.service", WEB)], "web").unwrap();
    (repo, tip)
}

/// What a command said, and how it ended.
fn try_mainstay(host: &Host, arguments: &str) -> (i32, String) {
    let output = host.try_sh(&format!("mainstay {arguments} 2>&1")).unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_package_a_repository_and_a_way_out() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let (repo, tip) = fleet(&forge);
    host.install_deb(&product::package().unwrap()).unwrap();
    assert_eq!(
        host.sh("systemctl is-enabled mainstay; systemctl is-active mainstay || true").unwrap(),
        "enabled\ninactive\n"
    );
    assert!(host.sh("getent group mainstay").is_ok(), "the group that may ask is made");

    // Nobody has seen the server before: it is shown, and nothing is written.
    let install = format!("install --repo {}", repo.ssh_url());
    let (code, said) = try_mainstay(&host, &install);
    assert!(code == 1 && said.contains("SHA256:") && said.contains("--trust-server"), "{code}\n{said}");
    assert!(host.sh("ls -A /etc/mainstay").unwrap().trim() == "agent.d");
    // Trusted, but it does not know us yet: the key is shown, and nothing is started.
    let (code, said) = try_mainstay(&host, &format!("{install} --trust-server"));
    let key =
        said.lines().find(|line| line.trim().starts_with("ssh-ed25519 ")).unwrap_or_else(|| panic!("{said}")).trim();
    assert!(code == 1 && key.ends_with(" mainstay@attic") && said.contains("was not started"), "{code}\n{said}");
    assert_eq!(host.sh("stat -c '%a %U' /etc/mainstay/id_ed25519").unwrap(), "600 root\n");
    assert!(host.sh("systemctl is-active mainstay").is_err());
    forge.authorize_key(key).unwrap();
    let (code, said) = try_mainstay(&host, "install");
    assert!(code == 0 && said.contains("attic of home: web"), "{code}\n{said}");
    agent::await_converged(&host, &tip);
    let web = agent::invocation(&host, "web");
    // Who may ask is told by the socket, which systemd makes, and keeps no longer than the agent is wanted.
    const SOCKET: &str = "stat -c '%F %a %U:%G' /run/mainstay/agent.sock";
    assert_eq!(host.sh(SOCKET).unwrap(), "socket 660 root:mainstay\n");
    const ASK: &str = "curl -sf --unix-socket /run/mainstay/agent.sock http://mainstay/v1/status";
    host.sh(&format!("systemctl restart mainstay; {ASK}")).unwrap();
    assert_eq!(host.sh(SOCKET).unwrap(), "socket 660 root:mainstay\n");
    host.sh("systemctl stop mainstay").unwrap();
    assert!(host.sh("systemctl is-active mainstay.socket").is_err());
    assert!(host.sh(SOCKET).is_err(), "nobody brings back what was stopped by hand");
    host.sh("systemctl start mainstay; systemctl is-active mainstay.socket").unwrap();
    agent::await_converged(&host, &tip);
    let (code, said) = try_mainstay(&host, "install --repo ssh://git@other/fleet.git");
    assert!(code == 1 && said.contains("follows ssh://"), "{code}\n{said}");

    // An upgrade is a new agent, and nothing else.
    let before = agent::invocation(&host, "mainstay");
    host.install_deb(&product::package().unwrap()).unwrap();
    agent::await_converged(&host, &tip);
    assert_ne!(agent::invocation(&host, "mainstay"), before);
    assert_eq!(agent::invocation(&host, "web"), web);
    // One that was stopped by hand stays stopped.
    host.sh("systemctl stop mainstay").unwrap();
    host.install_deb(&product::package().unwrap()).unwrap();
    assert!(host.sh("systemctl is-active mainstay").is_err());

    // It goes, and comes again, and what runs does not notice.
    let (code, said) = try_mainstay(&host, "uninstall");
    assert!(code == 0 && said.contains("goes on without it: 1 file, 1 unit"), "{code}\n{said}");
    assert_eq!(
        host.sh("systemctl is-enabled mainstay || true; systemctl is-active web").unwrap(),
        "disabled\nactive\n"
    );
    let (code, said) = try_mainstay(&host, "install");
    assert!(code == 0, "{said}");
    agent::await_converged(&host, &tip);
    let (code, said) = try_mainstay(&host, "uninstall --purge");
    assert!(code == 0 && said.contains("removed /var/lib/mainstay"), "{code}\n{said}");
    assert!(host.sh("ls /etc/mainstay/agent.yaml /etc/mainstay/id_ed25519 /var/lib/mainstay/ledger.json").is_err());
    host.sh("dpkg --purge mainstay").unwrap();
    assert_eq!(agent::invocation(&host, "web"), web);
    assert!(host.sh("ls /etc/mainstay /usr/bin/mainstay /var/lib/mainstay").is_err());
}

#[test]
fn a_program_without_a_package() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let (repo, _) = fleet(&forge);
    forge.authorize(&host).unwrap();
    host.copy_in(agent::program(), "/root/mainstay").unwrap();
    host.sh("chmod 0755 /root/mainstay").unwrap();
    // The host is not in the fleet yet: the agent waits for the commit that names it.
    let unnamed = repo.commit(&[("fleet.yaml", "fleet: home\nhosts:\n  cellar: {}\n")], "no attic").unwrap();
    let install = format!("/root/mainstay install --repo {} --key /root/.ssh/id_ed25519", repo.ssh_url());
    let said = host.sh(&format!("{install} --enrol")).unwrap();
    assert!(said.contains(&unnamed[..10]) && said.contains("changes nothing until a commit"), "{said}");
    // It proposes its own line, which somebody takes over.
    assert!(said.contains("the branch enrol/attic") && said.contains("git cherry-pick -S FETCH_HEAD"), "{said}");
    let fleet = repo.git(&["show", "enrol/attic:fleet.yaml"]).unwrap();
    let line = said.lines().map(str::trim).find(|line| line.starts_with("attic: { key: \"ssh-ed25519 "));
    let line = line.unwrap_or_else(|| panic!("it shows its line: {said}"));
    assert_eq!(fleet.trim(), format!("fleet: home\nhosts:\n  cellar: {{}}\n  {line}"));
    assert_eq!(repo.git(&["log", "--format=%s", "main..enrol/attic"]).unwrap().trim(), "Enrol attic");
    let tip = repo.commit(&[("fleet.yaml", &fleet)], "attic").unwrap();
    host.sh("systemctl kill -s HUP --kill-whom=main mainstay").unwrap();
    agent::await_converged(&host, &tip);
    let said = host.sh(&format!("{install} --enrol")).unwrap();
    assert!(said.contains("fleet.yaml names this host's key") && !said.contains("enrol/attic"), "{said}");
    let web = agent::invocation(&host, "web");
    assert_eq!(host.sh("systemctl show -P FragmentPath mainstay").unwrap(), "/etc/systemd/system/mainstay.service\n");
    // A port that is for root alone is the service manager's to give: the agent has neither the right nor a network.
    host.write("/etc/mainstay/agent.d/port.yaml", "endpoint: { listen: [\"127.0.0.1:81\"] }\n").unwrap();
    host.sh("systemctl restart mainstay").unwrap();
    let refused = "journalctl -u mainstay | grep -F 'systemctl edit mainstay.socket` with ListenStream=127.0.0.1:81'";
    host.wait_for(agent::SOON, refused).unwrap();
    host.write("/etc/systemd/system/mainstay.socket.d/port.conf", "[Socket]\nListenStream=127.0.0.1:81\n").unwrap();
    host.sh("systemctl daemon-reload; systemctl restart mainstay").unwrap();
    host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:81/readyz").unwrap();
    host.sh("rm -r /etc/systemd/system/mainstay.socket.d /etc/mainstay/agent.d/port.yaml").unwrap();

    let said = host.sh("/usr/local/bin/mainstay uninstall --purge").unwrap();
    assert!(said.contains("removed /usr/local/bin/mainstay"), "{said}");
    assert!(host.sh("ls /etc/systemd/system/mainstay.service /usr/local/bin/mainstay /etc/mainstay").is_err());
    let left =
        host.sh("ls -d /etc/systemd/system/mainstay* /var/lib/mainstay* /run/mainstay-fetch 2>/dev/null || true");
    assert_eq!(left.unwrap(), "", "nothing of both halves stays");
    assert_eq!(agent::invocation(&host, "web"), web);
    assert!(host.sh("systemctl is-active web").is_ok());

    // A service of somebody else's is not taken for ours.
    host.write("/etc/systemd/system/mainstay.service", WEB).unwrap();
    let output = host.try_sh(&format!("{install} 2>&1")).unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stdout).contains("was not written by"));
}

/// The release before: systemd 252, and a Docker that does not know the newest API.
#[test]
fn the_debian_before() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot_on("attic", Debian::Bookworm).unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    let repo = forge.repo("fleet").unwrap();
    let boxes = format!(
        "containers: {{ box1: {{ image: \"{}\", ports: [\"8080:8080\"] }} }}\n\
         checks:\n  - {{ http: \"http://127.0.0.1:8080/\" }}\n",
        image.reference
    );
    let files = [("fleet.yaml", FLEET), ("apps/web/web.service", WEB), ("apps/boxes/app.yaml", &boxes)];
    let tip = repo.commit(&files, "all").unwrap();
    forge.authorize(&host).unwrap();
    host.start_docker().unwrap();
    host.install_deb(&product::package().unwrap()).unwrap();
    let said = host.sh(&format!("mainstay install --repo {} --key /root/.ssh/id_ed25519", repo.ssh_url())).unwrap();
    assert!(said.contains("enabled and started"), "{said}");
    agent::await_converged(&host, &tip);
    const RUNS: &str = "systemctl is-active web && curl -sf http://127.0.0.1:8080/";
    assert_eq!(host.sh(RUNS).unwrap(), "active\none");
    // What drifts is heard there as well.
    host.sh("systemctl stop web; docker rm -f box1").unwrap();
    host.wait_for(agent::SOON, RUNS).unwrap();
    host.sh("mainstay uninstall && dpkg --purge mainstay").unwrap();
    assert_eq!(host.sh(RUNS).unwrap(), "active\none");
}

/// rpm on Debian: another database, the same service manager.
#[test]
fn the_package_of_other_distributions() {
    let Some(lab) = start() else { return };
    let host = lab.boot_on("attic", Debian::Bookworm).unwrap();
    host.copy_in(&product::rpm_package().unwrap(), "/root/mainstay.rpm").unwrap();
    const RPM: &str = "rpm --nodeps --force-debian";
    host.sh(&format!("{RPM} --install /root/mainstay.rpm")).unwrap();
    assert_eq!(host.sh("getent group mainstay >/dev/null; systemctl is-enabled mainstay").unwrap(), "enabled\n");
    host.sh(
        "test -s /usr/share/man/man1/mainstay-install.1.gz && test -s /usr/share/bash-completion/completions/mainstay",
    )
    .unwrap();
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/web/web.service", WEB)]);
    agent::converge(&host, "/root/fleet");
    // Nobody has told it yet what to follow, so it is quiet; once it is told, an upgrade starts it anew, and nothing else.
    assert_eq!(host.sh("systemctl is-active mainstay || true").unwrap(), "inactive\n");
    host.sh("git init -q --bare -b main /srv/fleet.git && cd /root/fleet && git init -q -b main && git add . &&
        git -c user.name=a -c user.email=a@b commit -qm all && git push -q /srv/fleet.git main")
        .unwrap();
    host.write("/etc/mainstay/agent.yaml", "repository: file:///srv/fleet.git\nallow-file: true\n").unwrap();
    host.sh("systemctl start mainstay").unwrap();
    agent::await_status(&host, "^converged");
    let (web, before) = (agent::invocation(&host, "web"), agent::invocation(&host, "mainstay"));
    host.sh(&format!("{RPM} --upgrade --force /root/mainstay.rpm")).unwrap();
    agent::await_status(&host, "^converged");
    assert_ne!(agent::invocation(&host, "mainstay"), before);
    host.sh(&format!("{RPM} --erase mainstay")).unwrap();
    assert_eq!(agent::invocation(&host, "web"), web);
    assert!(host.sh("systemctl is-active web").is_ok() && host.sh("ls /usr/bin/mainstay").is_err());
    assert_eq!(host.sh("ls /etc/mainstay/agent.yaml /var/lib/mainstay/ledger.json | wc -l").unwrap(), "2\n");
}
