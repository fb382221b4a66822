//! The first day with mainstay, as one story: installed from its package, told a repository, told of a push by a webhook, looked at in
//! a browser and by Prometheus, and taken off again.

use std::path::PathBuf;

use lab::{Browser, product};

use crate::{agent, endpoint, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\ntrust: { signers: trust/allowed_signers, branch: main }\n";
const WEB: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironmentFile=/etc/web/count\n[Install]\nWantedBy=multi-user.target\n";
const SETTINGS: &str = "endpoint: { listen: [\"127.0.0.1:9105\"], hooks: /etc/mainstay/hook }\npoll: 10m\n";

#[test]
fn from_the_package_to_a_push_that_is_seen_live_and_off_again() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let repo = forge.repo("fleet").unwrap();
    let signers = host.read("/usr/share/lab/signers").unwrap();
    let files = [
        ("fleet.yaml", FLEET),
        ("trust/allowed_signers", signers.as_str()),
        ("apps/web/web.service", WEB),
        ("apps/web/files/etc/web/count", "N=0\n"),
    ];
    let first = repo.commit(&files, "begin").unwrap();

    host.install_deb(&product::package().unwrap()).unwrap();
    host.write("/etc/mainstay/agent.d/endpoint.yaml", SETTINGS).unwrap();
    host.sh(&format!("umask 077; echo {} >/etc/mainstay/hook", endpoint::SECRET)).unwrap();
    let install = format!("mainstay install --repo {} --trust-server 2>&1", repo.ssh_url());
    let said = host.try_sh(&install).unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let key = said.lines().map(str::trim).find(|line| line.starts_with("ssh-ed25519 "));
    forge.authorize_key(key.unwrap_or_else(|| panic!("it shows its key: {said}"))).unwrap();
    // It shows whom the repository names, and believes nothing before a person has looked.
    let shown = host.try_sh("mainstay install 2>&1").unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("--trust-signers") && host.sh("test ! -e /etc/web/count").is_ok(), "{shown}");
    host.sh("mainstay install --trust-signers").unwrap();
    agent::await_converged(&host, &first);

    let browser = Browser::start(&host).unwrap();
    browser.open("http://127.0.0.1:9105/").unwrap();
    let shows = |script: &str| {
        if let Err(error) = browser.wait_for(agent::SOON, script) {
            panic!("{error:#}\n{:?}\n{}", browser.complaints(), agent::log(&host));
        }
    };
    shows("document.getElementById('link').textContent === 'live'");
    browser.run("window.sameDocument = true").unwrap();

    // A forge tells of a push: the service restarts, and the page that is open shows it.
    let second = repo.commit(&[("apps/web/files/etc/web/count", "N=1\n")], "web: count to one").unwrap();
    host.write("/tmp/push", endpoint::payload("github", "main", "fleet", &second)).unwrap();
    let before = agent::invocation(&host, "web");
    let asked = endpoint::clock(&host);
    let send = format!(
        "signature=$(openssl dgst -sha256 -hmac {} -r /tmp/push | cut -d' ' -f1)
        curl -sf -H 'Content-Type: application/json' -H 'X-GitHub-Event: push' -H \"X-Hub-Signature-256: sha256=$signature\" \
            --data-binary @/tmp/push http://127.0.0.1:9105/v1/hook/github",
        endpoint::SECRET
    );
    host.sh(&send).unwrap();
    agent::await_converged(&host, &second);
    assert_ne!(agent::invocation(&host, "web"), before);
    let restarted: u64 =
        host.sh("systemctl show -P ActiveEnterTimestampMonotonic web").unwrap().trim().parse().unwrap();
    eprintln!("restarted {} ms after the webhook's client was begun", restarted.saturating_sub(asked) / 1000);
    shows(&format!("document.getElementById('commit').textContent.includes('{}')", &second[..10]));
    shows("document.getElementById('history').textContent.includes('web: count to one')");
    assert_eq!(browser.run("return window.sameDocument").unwrap(), true, "it was not loaded anew");
    if let Some(folder) = std::env::var_os("MAINSTAY_PICTURES") {
        browser.picture(&PathBuf::from(folder).join("first-day.png")).unwrap();
    }
    endpoint::seen_by_prometheus(&host, "mainstay_app_state{state=\"converged\"} == 1");

    // The agent goes; what it brought stays as it is.
    let web = agent::invocation(&host, "web");
    host.sh("mainstay uninstall && dpkg --purge mainstay").unwrap();
    assert_eq!(host.sh("systemctl is-active web && cat /etc/web/count").unwrap(), "active\nN=1\n");
    assert_eq!(agent::invocation(&host, "web"), web);
}
