//! `mainstay fleet` in a clone, over the records that real agents push: what runs where, until it is there, and the page of it in a
//! real browser.

use std::path::PathBuf;

use lab::{Browser, Host};
use serde_json::{Value, json};

use crate::page::{ACCESS, CONTRAST};
use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: { labels: { role: web } }\n  barn: { labels: { role: web } }\n  cellar: { labels: { role: web } }\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const FAILS: &str = "[Service]\nType=oneshot\nExecStart=/usr/bin/false\n[Install]\nWantedBy=multi-user.target\n";
const HOSTILE: &str = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>";

/// Asks in the clone, and returns what is printed and the exit code.
fn fleet(host: &Host, arguments: &str) -> (String, String) {
    let said = host
        .sh(&format!("cd /root/clone; code=0; mainstay fleet {arguments} || code=$?; echo \"code $code\""))
        .unwrap();
    let (text, code) = said.trim_end().rsplit_once("code ").unwrap();
    (text.to_owned(), code.to_owned())
}

fn as_json(host: &Host, arguments: &str) -> Value {
    serde_json::from_str(&fleet(host, &format!("--json {arguments}")).0).unwrap()
}

#[test]
fn a_clone_tells_what_runs_where() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let hosts = lab.boot_all(&["attic", "barn"]).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files =
        [("fleet.yaml", FLEET), ("apps/web/web.service", STAYS), ("apps/web/app.yaml", "place: { role: web }\n")];
    let first = repo.commit(&files, "begin").unwrap();
    for host in &hosts {
        forge.authorize(host).unwrap();
        agent::follow(host, &repo.ssh_url(), &format!("host: {}\n", host.name()));
    }
    hosts.iter().for_each(|host| agent::await_converged(host, &first));
    let attic = &hosts[0];
    // The clone of a person: with that person's own key, and known hosts.
    attic.sh(&format!("git clone -q {} /root/clone", repo.ssh_url())).unwrap();
    let wait = "--timeout 2m --where host=attic\\|barn";
    let (text, code) = fleet(attic, &format!("wait HEAD {wait}"));
    assert_eq!((text.as_str(), code.as_str()), (format!("converged: {} on 2 of 2\n", &first[..10]).as_str(), "0"));
    let status = as_json(attic, "status");
    assert_eq!(
        status["summary"],
        json!({ "hosts": 3, "newest": 2, "behind": 0, "elsewhere": 0, "silent": 0, "unreported": 1, "trouble": 0 })
    );
    let (text, code) = fleet(attic, "status");
    assert!(text.contains("cellar  web          unreported") && code == "4", "{text}");

    // A commit that fails on one of them, which goes back, and the one that mends it.
    let failing = repo.commit(&[("apps/web/@barn/web.service", FAILS)], "barn: another service").unwrap();
    let (text, code) = fleet(attic, &format!("wait {failing} --no-fetch 2>&1"));
    assert!(text.contains("no commit of /root/clone is called") && code == "1", "{text} {code}");
    let (text, code) = fleet(attic, &format!("wait {failing} {wait}"));
    assert!(
        text.starts_with(&format!("failed: {} on 1 of 2; failed: web on barn", &failing[..10])) && code == "4",
        "{text} {code}"
    );
    let (text, code) = fleet(attic, "drift");
    assert!(text.contains("barn  web          rolled-back") && code == "4", "{text}");
    let (text, _) = fleet(attic, "explain barn web");
    assert!(text.contains(&format!("{} failed there: ", &failing[..10])), "{text}");
    let (text, code) = fleet(attic, "where 'another service'");
    assert!(text.contains("runs on 1 of 3 hosts: attic") && text.contains("failed on barn") && code == "4", "{text}");
    let (text, _) = fleet(attic, "diff attic barn");
    assert!(text.starts_with("web: converged at "), "{text}");
    let mended = repo.commit(&[("apps/web/@barn/web.service", STAYS)], HOSTILE).unwrap();
    let (text, code) = fleet(attic, &format!("wait {mended} {wait}"));
    assert!(text.starts_with("converged: ") && code == "0", "{text} {code}");
    // What barn went back to is what is wanted again, so it is there before it has said so.
    let said = format!("cd /root/clone && mainstay fleet wait {failing} {wait} || test $? -eq 6");
    attic.wait_for(agent::SOON, &said).unwrap();
    let (text, code) = fleet(attic, &format!("wait {failing} {wait}"));
    assert!(text.starts_with("superseded: ") && text.contains(&mended[..10]) && code == "6", "{text} {code}");
    let annotations: Value = serde_json::from_str(&fleet(attic, "history --grafana").0).unwrap();
    assert!(
        annotations.as_array().unwrap().iter().any(|it| it["text"].as_str().unwrap().contains(" on attic, barn: ")),
        "{annotations}"
    );
    let log = attic.sh("cd /root/clone && git log --notes='mainstay/*' main").unwrap();
    assert!(log.contains("Notes (mainstay/barn):"), "the person has the notes as well\n{log}");

    page(attic);

    // Without the server, what the clone has is told, and that it may be old.
    forge.stop_git().unwrap();
    let (text, code) = fleet(attic, "drift 2>&1");
    assert!(text.contains("what follows may be old, origin/main cannot be fetched") && code == "1", "{text} {code}");
}

fn page(host: &Host) {
    host.sh("systemd-run -q --unit=fleet-page --setenv=HOME=/root --working-directory=/root/clone mainstay fleet serve --every 5s").unwrap();
    host.wait_for(agent::SOON, "curl -fsS http://127.0.0.1:9106/healthz").unwrap();
    let metrics = host.sh("curl -fsS http://127.0.0.1:9106/metrics").unwrap();
    assert!(metrics.contains("mainstay_fleet_hosts{state=\"unreported\"} 1\n"), "{metrics}");
    let code = |arguments: &str| host.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' {arguments}")).unwrap();
    assert_eq!(code("http://127.0.0.1:9106/v1/fleet -H 'Host: evil.example'"), "421");
    assert_eq!(code("-X POST http://127.0.0.1:9106/v1/fleet"), "405");
    let browser = Browser::start(host).unwrap();
    let pictures = std::env::var_os("MAINSTAY_PICTURES").map(PathBuf::from);
    browser.open("http://127.0.0.1:9106/").unwrap();
    browser.wait_for(agent::SOON, "document.querySelectorAll('#rows tr').length === 3").unwrap();
    let shown = browser.run("return document.body.innerText").unwrap();
    for words in ["home", "1 unreported", "web", "attic", HOSTILE] {
        assert!(shown.as_str().unwrap().contains(words), "{words}: {shown}");
    }
    assert_eq!(
        browser.run("return window.pwned === undefined && !document.querySelector('img, main script')").unwrap(),
        true
    );
    browser.run("document.getElementById('filter').value = 'barn'; document.getElementById('filter').dispatchEvent(new Event('input'))").unwrap();
    browser.wait_for(agent::SOON, "document.querySelectorAll('#rows tr').length === 1").unwrap();
    browser.run("document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))").unwrap();
    for (name, width, height, mobile) in [("fleet.png", 1200, 900, false), ("fleet-phone.png", 390, 844, true)] {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        browser.devtools("Emulation.setDeviceMetricsOverride", &size).unwrap();
        for scheme in ["light", "dark"] {
            let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.devtools("Emulation.setEmulatedMedia", &features).unwrap();
            let least = browser.run(CONTRAST).unwrap();
            assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
            if let Some(folder) = &pictures {
                browser.picture(&folder.join(format!("{scheme}-{name}"))).unwrap();
            }
        }
        assert_eq!(browser.run(ACCESS).unwrap(), json!([]));
        assert_eq!(browser.run("return document.documentElement.scrollWidth <= innerWidth").unwrap(), true, "{name}");
    }
    host.sh("systemctl stop fleet-page").unwrap();
}
