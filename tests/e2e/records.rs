//! What hosts publish: readable in `git log`, one ref per host, a history of deployments, and nothing a service said.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: { labels: { role: a } }\n  barn: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const SLOW: &str = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'sleep 4; systemd-notify --ready; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn two_hosts_report_side_by_side() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let hosts = lab.boot_all(&["attic", "barn"]).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let slow = "place: { role: a }\n";
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", STAYS),
        ("apps/slow/slow.service", SLOW),
        ("apps/slow/app.yaml", slow),
    ];
    let first = repo.commit(&files, "begin").unwrap();
    for host in &hosts {
        forge.authorize(host).unwrap();
        agent::follow(host, &repo.ssh_url(), &format!("host: {}\n", host.name()));
    }
    let note = |commit: &str, begins: &str| {
        let found =
            || Ok(repo.notes()?.into_iter().find(|note| note.commit == commit && note.text.starts_with(begins)));
        match lab::poll(agent::SOON, found).unwrap() {
            Some(note) => note,
            None => panic!("no note `{begins}`: {:?}\n{}", repo.notes().unwrap(), agent::log(&hosts[0])),
        }
    };
    note(&first, "barn converged ");
    let attic = note(&first, "attic converged ");
    assert_eq!(attic.reference, "refs/notes/mainstay/attic");
    assert!(attic.text.lines().next().unwrap().ends_with("Z: slow, web"), "{}", attic.text);
    assert_eq!(attic.text.lines().nth(1), Some(""));
    for line in attic.text.lines().skip(2).take_while(|line| !line.starts_with("-----")) {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    // Both report on every commit at once, and neither is lost.
    let mut last = first.clone();
    for number in 0..3 {
        last = repo.commit(&[("apps/web/files/etc/web", &format!("{number}\n"))], &format!("change {number}")).unwrap();
        note(&last, "attic converged ");
        note(&last, "barn converged ");
    }
    let log = repo.git(&["log", "--notes=mainstay/*", "main"]).unwrap();
    for words in ["Notes (mainstay/attic):\n    attic converged ", "Notes (mainstay/barn):\n    barn converged "] {
        assert_eq!(log.matches(words).count(), 4, "{words}\n{log}");
    }
    // The history of the ref: what was deployed, in order, and that it was being applied before it had converged.
    let history = repo.git(&["log", "--reverse", "--format=%H", "refs/notes/mainstay/attic"]).unwrap();
    let mut states = Vec::new();
    for commit in history.lines() {
        let changed = repo.git(&["diff-tree", "--root", "-r", "--no-commit-id", commit]).unwrap();
        for line in changed.lines() {
            let blob = line.split_whitespace().nth(3).unwrap();
            if let Ok(text) = repo.git(&["cat-file", "blob", blob]) {
                states.push(text.split_whitespace().nth(1).unwrap_or_default().to_owned());
            }
        }
    }
    assert_eq!(states.first().map(String::as_str), Some("applying"), "{states:?}");
    assert_eq!(states.iter().filter(|state| *state == "converged").count(), 4, "{states:?}");
    let counters: Vec<u64> = log
        .lines()
        .filter(|line| line.contains("\"host\":\"attic\""))
        .map(|line| serde_json::from_str::<serde_json::Value>(line.trim()).unwrap()["counter"].as_u64().unwrap())
        .collect();
    assert!(counters.is_sorted_by(|newer, older| newer > older), "{counters:?}");
    let refs = repo.git(&["for-each-ref", "--format=%(refname)", "refs/mainstay", "refs/notes"]).unwrap();
    let expected =
        "refs/mainstay/seen/attic\nrefs/mainstay/seen/barn\nrefs/notes/mainstay/attic\nrefs/notes/mainstay/barn\n";
    assert_eq!(refs, expected);

    // Nothing happens, nothing is written.
    let before = repo.git(&["for-each-ref"]).unwrap();
    agent::await_passes(&hosts[0], 3);
    assert_eq!(repo.git(&["for-each-ref"]).unwrap(), before);

    // A host that may not push works all the same, and says so; later, all that it kept arrives.
    forge.write(&format!("{}/hooks/pre-receive", repo.path()), "#!/bin/sh\necho not you >&2\nexit 1\n").unwrap();
    forge.sh(&format!("chmod 0755 {}/hooks/pre-receive", repo.path())).unwrap();
    let muted = repo.commit(&[("apps/web/files/etc/web", "muted\n")], "muted").unwrap();
    for host in &hosts {
        agent::await_converged(host, &muted);
        host.wait_for(agent::SOON, "(mainstay --json status || true) | grep -E '\"unreported\": \"'").unwrap();
        assert_eq!(agent::status(host).0, 0);
    }
    assert_eq!(repo.notes().unwrap().iter().filter(|note| note.commit == muted).count(), 0);
    forge.sh(&format!("rm {}/hooks/pre-receive", repo.path())).unwrap();
    note(&muted, "attic converged ");
    note(&muted, "barn converged ");
    last.clone_from(&muted);
    let reported = || Ok(agent::status(&hosts[0]).1["unreported"].is_null().then_some(()));
    assert!(lab::poll(agent::SOON, reported).unwrap().is_some());

    // One that is told not to push keeps its records to itself.
    agent::set(&hosts[1], &repo.ssh_url(), "host: barn\nreport: { push: false }\n");
    hosts[1].sh("systemctl restart mainstay").unwrap();
    let quiet = repo.commit(&[("apps/web/files/etc/web", "quiet\n")], "quiet").unwrap();
    agent::await_converged(&hosts[1], &quiet);
    note(&quiet, "attic converged ");
    agent::await_pass(&hosts[1]);
    assert!(!repo.notes().unwrap().iter().any(|note| note.commit == quiet && note.reference.ends_with("barn")));
    hosts[1].sh(&format!("git -C /var/lib/mainstay/mirror.git notes --ref=mainstay/barn show {quiet}")).unwrap();
}
