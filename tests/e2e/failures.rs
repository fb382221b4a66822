//! What fails takes down its own application only, says why, is tried again with patience, and is over with the next commit.

use lab::{Host, Repo};
use serde_json::Value;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target\n";

/// A service with these lines.
fn service(lines: &str) -> String {
    format!("[Service]\n{lines}\n{INSTALL}")
}

/// Every broken application with its unit and a word of its failure.
fn broken() -> Vec<(&'static str, &'static str, String, &'static str)> {
    let said = "sh -c 'echo secret-of-the-service; sleep 0.3; exit 7'";
    vec![
        ("exits", "exits.service", service("ExecStart=sh -c 'echo last words; exit 3'"), "code 3"),
        (
            "loops",
            "loops.service",
            service(&format!("Restart=always\nRestartSec=100ms\nExecStart={said}")),
            "loops.service",
        ),
        ("never", "never.service", service("Type=notify\nTimeoutStartSec=2s\nExecStart=sleep infinity"), "timeout"),
        (
            "mount",
            "srv-gone.mount",
            format!("[Mount]\nWhat=/dev/gone\nWhere=/srv/gone\nType=ext4\n{INSTALL}"),
            "srv-gone.mount",
        ),
        ("once", "once.service", service("Type=oneshot\nExecStart=sh -c 'echo one; exit 4'"), "once.service"),
    ]
}

fn app<'s>(status: &'s Value, name: &str) -> &'s Value {
    &status["apps"][name]
}

fn note(repo: &Repo, commit: &str, begins: &str) -> String {
    let found = || Ok(repo.notes()?.into_iter().find(|note| note.commit == commit && note.text.starts_with(begins)));
    match lab::poll(agent::SOON, found).unwrap() {
        Some(note) => note.text,
        None => panic!("no note that begins with `{begins}`: {:?}", repo.notes().unwrap()),
    }
}

fn starts(host: &Host, unit: &str) -> usize {
    let script = format!("journalctl _PID=1 UNIT={unit} -o cat --no-pager | grep -c -e '^Start' || true");
    host.sh(&script).unwrap().trim().parse().unwrap()
}

#[test]
fn a_failure_is_told_kept_to_its_application_and_retried_with_patience() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let mut files = vec![("fleet.yaml".to_owned(), FLEET.to_owned())];
    for (app, unit, text, _) in broken() {
        files.push((format!("apps/{app}/{unit}"), text));
    }
    files.push(("apps/well/well.service".to_owned(), service("ExecStart=sleep infinity")));
    files.push(("apps/well/files/etc/well.conf".to_owned(), "x\n".to_owned()));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let first = repo.commit(&files, "five broken, one well").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_status(&host, "^on .*5 of 6 applications failed");

    let (code, status) = agent::status(&host);
    assert_eq!(code, 4);
    assert_eq!(app(&status, "well")["state"], "converged");
    host.sh("systemctl is-active well; test -e /etc/well.conf").unwrap();
    for (name, unit, _, word) in broken() {
        assert_eq!(app(&status, name)["state"], "failed", "{name}");
        let failure = app(&status, name)["failure"].as_str().unwrap_or_default();
        assert!(failure.contains(unit) && failure.contains(word), "{name}: {failure}");
    }
    // Its last lines go to whoever asks on the host, and nowhere else.
    assert!(app(&status, "exits")["failure"].as_str().unwrap().contains("| last words"), "{status}");
    assert!(app(&status, "loops")["failure"].as_str().unwrap().contains("| secret-of-the-service"), "{status}");
    let text = note(&repo, &first, "attic failed ");
    assert!(!text.contains("secret-of-the-service") && !text.contains("last words"), "{text}");
    for (name, ..) in broken() {
        assert!(text.lines().next().unwrap().contains(name), "{text}");
    }

    // The next try is not due for some fifteen seconds: many looks, no start, and the ledger and the note stay.
    let before = (starts(&host, "exits.service"), starts(&host, "once.service"), repo.notes().unwrap());
    let well = agent::invocation(&host, "well");
    agent::await_passes(&host, 4);
    let after = (starts(&host, "exits.service"), starts(&host, "once.service"), repo.notes().unwrap());
    assert_eq!(before, after);

    // A person need not wait.
    host.sh("systemctl stop mainstay").unwrap();
    let output = host.try_sh("mainstay once 2>&1").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("failed in exits: ") && said.contains("| last words"), "{said}");
    assert_eq!(starts(&host, "exits.service"), before.0 + 1);
    host.sh("systemctl start mainstay").unwrap();

    // The fix is not made to wait for the back-off of what it fixes.
    let fixed = service("ExecStart=sleep infinity");
    let mut change = repo.change().remove("apps/mount");
    for (app, unit, ..) in broken().iter().filter(|it| it.0 != "mount") {
        change = change.write(&format!("apps/{app}/{unit}"), &fixed);
    }
    let second = change.commit("fixed").unwrap();
    agent::await_converged(&host, &second);
    host.sh("systemctl is-active exits loops never once").unwrap();
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
    assert_eq!(agent::invocation(&host, "well"), well);
    let text = note(&repo, &second, "attic converged ");
    assert!(text.contains("\"from\""), "it says what it replaced: {text}");
}

#[test]
fn a_container_that_cannot_run_takes_nothing_else_down() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let one = forge.image("web", "1", "one").unwrap();
    let two = forge.image("web", "2", "two").unwrap();
    let bad = forge
        .image_with("bad", "1", &[("x", "x")], &["/bin/sh", "-c", "echo secret-of-the-box; sleep 0.3; exit 5"])
        .unwrap();
    host.start_docker().unwrap();
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let web = |image: &str| format!("containers: {{ web: {{ image: \"{image}\", ports: [\"8081:8080\"] }} }}\n");
    let well = service("ExecStart=sleep infinity");
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/app.yaml", &web(&one.reference)),
        ("apps/web/files/etc/web.conf", "1\n"),
        ("apps/well/well.service", &well),
    ];
    let first = repo.commit(&files, "one").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);
    let id = || host.sh("docker inspect -f '{{.Id}} {{.State.StartedAt}}' web").unwrap();
    let before = id();

    // The registry is away at an update: the old release stays whole, and the others go on.
    forge.stop_registry().unwrap();
    let files = [
        ("apps/web/app.yaml", &*web(&two.reference)),
        ("apps/web/files/etc/web.conf", "2\n"),
        ("apps/well/files/etc/well.conf", "new\n"),
    ];
    let second = repo.commit(&files, "two").unwrap();
    agent::await_status(&host, &format!("^on {}, 1 of 2 applications failed", &second[..10]));
    assert_eq!(host.read("/etc/well.conf").unwrap(), "new\n");
    assert_eq!((id(), host.read("/etc/web.conf").unwrap()), (before.clone(), "1\n".to_owned()));
    let (_, status) = agent::status(&host);
    let failure = app(&status, "web")["failure"].as_str().unwrap();
    assert!(failure.contains(&two.reference), "{failure}");
    forge.start_registry().unwrap();
    agent::await_converged(&host, &second);
    assert_eq!(host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:8081").unwrap(), "two");

    // It starts, and ends again and again: that is no success, neither at once nor a minute later.
    let third = repo.commit(&[("apps/web/app.yaml", &web(&bad.reference))], "bad").unwrap();
    agent::await_status(&host, &format!("^on {}, 1 of 2 applications rolled back", &third[..10]));
    let (_, status) = agent::status(&host);
    let failure = app(&status, "web")["failure"].as_str().unwrap();
    assert!(failure.contains("web") && failure.contains("| secret-of-the-box"), "{failure}");
    let text = note(&repo, &third, "attic rolled-back ");
    assert!(!text.contains("secret-of-the-box"), "{text}");
    assert!(text.contains(&format!("\"runs\":\"{second}\"")), "{text}");
    // Back by digest, with the registry out of reach, and not tried again.
    assert_eq!(host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:8081").unwrap(), "two");
    let before = id();
    agent::await_passes(&host, 4);
    assert_eq!(id(), before);

    let fourth = repo.commit(&[("apps/web/app.yaml", &web(&two.reference))], "good again").unwrap();
    agent::await_converged(&host, &fourth);
    assert_eq!(host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:8081").unwrap(), "two");
}

/// The journal asks the kernel and systemd whose words it got; a busy one asks when both have forgotten the process.
#[test]
fn last_words_are_told_although_the_journal_is_late() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 1s\n").unwrap();
    let exits = service("ExecStart=sh -c 'echo last words; exit 3'");
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/exits/exits.service", &exits)]);
    // Another run comes before, whose words are not these.
    host.write("/run/systemd/system/exits.service", service("ExecStart=sh -c 'echo other words; exit 3'")).unwrap();
    host.sh("systemctl daemon-reload; systemctl start exits; rm /run/systemd/system/exits.service").unwrap();
    let script = "pid=$(systemctl show -P MainPID systemd-journald); kill -STOP $pid; \
                  systemctl reset-failed exits; \
                  (timeout 30 sh -c 'until systemctl is-failed --quiet exits; do sleep 0.1; done'; kill -CONT $pid) & \
                  mainstay once --dir /root/fleet 2>&1; wait";
    let output = host.try_sh(script).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("code 3") && said.contains("| last words"), "{said}");
    assert!(!said.contains("other words"), "{said}");
}
