//! Drift of every kind: put back by the daemon within seconds, with no more than the repair needs; or only reported.

use lab::{Forge, Host, Repo};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironmentFile=/etc/web/main.env\n[Install]\nWantedBy=multi-user.target\n";
const OTHER: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const FILES: &str = "files:
  /etc/web/main.env: { mode: \"0640\", owner: daemon, group: daemon }
  /srv/spool: { kind: directory, mode: \"0750\" }
  /srv/current: { kind: symlink, target: spool }
";

fn commit(repo: &Repo, image: &str, web: &str) -> String {
    let web = format!("{web}{FILES}");
    let box1 = format!("containers: {{ box1: {{ image: \"{image}\", ports: [\"8081:8080\"] }} }}\n");
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/app.yaml", &web),
        ("apps/web/web.service", STAYS),
        ("apps/web/calm.service", OTHER),
        ("apps/web/files/etc/web/main.env", "A=1\n"),
        ("apps/web/files/etc/web/page", "page\n"),
        ("apps/other/other.service", OTHER),
        ("apps/boxes/app.yaml", &box1),
    ];
    repo.commit(&files, "all").unwrap()
}

fn lab_of(lab: &lab::Lab) -> (Forge, Host, Repo, String) {
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    host.start_docker().unwrap();
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    (forge, host, repo, image.reference)
}

/// One kind of drift.
struct Case {
    /// What somebody does.
    done: &'static str,
    /// What must hold again.
    holds: &'static str,
    /// What changes its invocation or id by the repair: nothing else may.
    moves: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { done: "echo B=2 > /etc/web/page", holds: "test \"$(cat /etc/web/page)\" = page", moves: &[] },
    Case { done: "echo B=2 >> /etc/web/main.env", holds: "test \"$(cat /etc/web/main.env)\" = A=1", moves: &[] },
    Case { done: "rm /etc/web/page", holds: "test \"$(cat /etc/web/page)\" = page", moves: &[] },
    Case { done: "rm -r /etc/web", holds: "test \"$(stat -c '%a %U' /etc/web/main.env)\" = '640 daemon'", moves: &[] },
    Case { done: "chmod 0666 /etc/web/page", holds: "test \"$(stat -c %a /etc/web/page)\" = 644", moves: &[] },
    Case {
        done: "chown nobody: /etc/web/page",
        holds: "test \"$(stat -c %U:%G /etc/web/page)\" = root:root",
        moves: &[],
    },
    Case {
        done: "ln -sf /etc/hostname /etc/web/page",
        holds: "test ! -L /etc/web/page; test \"$(cat /etc/web/page)\" = page; test \"$(cat /etc/hostname)\" = attic",
        moves: &[],
    },
    Case { done: "chmod 0777 /srv/spool", holds: "test \"$(stat -c %a /srv/spool)\" = 750", moves: &[] },
    Case { done: "rmdir /srv/spool", holds: "test \"$(stat -c %a /srv/spool)\" = 750", moves: &[] },
    Case { done: "ln -sfn /etc /srv/current", holds: "test \"$(readlink /srv/current)\" = spool", moves: &[] },
    Case { done: "systemctl stop web", holds: "systemctl is-active web", moves: &["web"] },
    Case { done: "systemctl kill -s KILL web", holds: "systemctl is-active web", moves: &["web"] },
    Case { done: "systemctl disable --quiet web", holds: "systemctl is-enabled web", moves: &[] },
    Case {
        done: "rm /etc/systemd/system/multi-user.target.wants/web.service",
        holds: "systemctl is-enabled web",
        moves: &[],
    },
    // With what the wrong text started: nothing, so nothing is started again.
    Case {
        done: "echo Nice=5 >> /etc/systemd/system/web.service",
        holds: "! grep Nice /etc/systemd/system/web.service",
        moves: &[],
    },
    Case {
        done: "sed -i s/^EnvironmentFile/Nice=5\\\\nEnvironmentFile/ /etc/systemd/system/web.service; systemctl daemon-reload; systemctl restart web",
        holds: "! grep Nice /etc/systemd/system/web.service; test $(ps -o ni= -p $(systemctl show -P MainPID web)) = 0",
        moves: &["web"],
    },
    Case {
        done: "ln -sf /dev/null /etc/systemd/system/web.service; systemctl daemon-reload",
        holds: "test ! -L /etc/systemd/system/web.service; systemctl is-active web",
        moves: &[],
    },
    Case {
        done: "ln -sf /dev/null /etc/systemd/system/web.service; systemctl daemon-reload; systemctl stop web",
        holds: "test ! -L /etc/systemd/system/web.service; systemctl is-active web",
        moves: &["web"],
    },
    Case { done: "docker stop -t 0 box1", holds: "docker ps --format '{{.Names}}' | grep box1", moves: &["started"] },
    Case {
        done: "docker pause box1",
        holds: "test $(docker inspect -f '{{.State.Status}}' box1) = running",
        moves: &[],
    },
    Case {
        done: "docker rm -f box1",
        holds: "test $(docker inspect -f '{{.State.Status}}' box1) = running",
        moves: &["box1", "started"],
    },
];

/// What is started again only for a reason.
fn runs(host: &Host) -> Vec<(&'static str, String)> {
    let container = |what: &str| host.sh(&format!("docker inspect -f '{{{{.{what}}}}}' box1 || true")).unwrap();
    vec![
        ("web", agent::invocation(host, "web")),
        ("other", agent::invocation(host, "other")),
        ("box1", container("Id")),
        ("started", container("State.StartedAt")),
    ]
}

#[test]
fn drift_of_every_kind_is_repaired() {
    let Some(lab) = start() else { return };
    let (_forge, host, repo, image) = lab_of(&lab);
    let tip = commit(&repo, &image, "");
    agent::follow(&host, &repo.ssh_url(), "observe: 300ms\nsettle: 300ms\n");
    agent::await_converged(&host, &tip);
    for (number, case) in CASES.iter().enumerate() {
        // All of it happens between two looks of the daemon.
        host.sh("systemctl kill -s STOP mainstay").unwrap();
        if number % 4 == 3 {
            // The same things drift so often here that the agent would take it for a fight.
            host.sh("systemctl kill -s HUP mainstay").unwrap();
        }
        host.sh(case.done).unwrap();
        let before = runs(&host);
        host.sh("systemctl kill -s CONT mainstay").unwrap();
        if let Err(error) = host.wait_for(agent::SOON, case.holds) {
            panic!("{}: {error:#}\n{}", case.done, agent::log(&host));
        }
        let well = host.wait_for(agent::SOON, "mainstay status");
        well.unwrap_or_else(|error| panic!("{}: {error:#}\n{}", case.done, agent::log(&host)));
        // What was started is being watched still: the next case must not look like its failure.
        agent::await_rest(&host);
        let after = runs(&host);
        let moved: Vec<&str> =
            before.iter().zip(&after).filter(|(before, after)| before != after).map(|(before, _)| before.0).collect();
        assert_eq!(moved, case.moves, "{}\n{}", case.done, agent::log(&host));
    }
    assert_eq!(host.sh("systemctl show -P NeedDaemonReload web").unwrap(), "no\n");
    let (_, status) = agent::status(&host);
    assert_eq!(status["apps"]["web"]["state"], "repaired");
    assert_eq!(status["apps"]["other"]["state"], "converged");
    let note = |text: &str| {
        let all = repo.notes().unwrap();
        all.iter().any(|note| note.commit == tip && note.text.contains(text)).then_some(())
    };
    let said = lab::poll(agent::SOON, || Ok(note("attic repaired "))).unwrap();
    assert!(said.is_some(), "{:?}", repo.notes().unwrap());
}

#[test]
fn drift_that_is_only_to_be_reported_is_left_as_it_is() {
    let Some(lab) = start() else { return };
    let (_forge, host, repo, image) = lab_of(&lab);
    let tip = commit(&repo, &image, "drift: report\n");
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &tip);
    let look = || {
        agent::snapshot(
            &host,
            &["/etc/web", "/srv/spool", "/srv/current", "/etc/systemd/system"],
            &["web", "calm", "other"],
        )
    };

    host.sh("echo B=2 > /etc/web/page; chmod 0777 /srv/spool; systemctl stop web; systemctl disable --quiet web
         echo Nice=5 >> /etc/systemd/system/calm.service")
        .unwrap();
    let before = look();
    host.wait_for(agent::SOON, "(mainstay --json status || true) | grep '\"state\": \"drifted\"'").unwrap();
    agent::await_passes(&host, 2);
    let changed = agent::changes(&before, &look());
    let changed: Vec<&String> = changed.iter().filter(|it| !it.starts_with("state ")).collect();
    assert_eq!(changed, Vec::<&String>::new(), "{}", agent::log(&host));
    let (code, status) = agent::status(&host);
    assert_eq!(code, 4);
    let drift: Vec<&str> =
        status["now"]["drift"].as_array().unwrap().iter().map(|it| it["object"].as_str().unwrap()).collect();
    for object in ["/etc/web/page", "/srv/spool", "web.service", "/etc/systemd/system/calm.service"] {
        assert!(drift.contains(&object), "{object} in {drift:?}");
    }
    let note = || Ok(repo.notes()?.into_iter().find(|note| note.text.starts_with("attic drifted ")));
    let note = lab::poll(agent::SOON, note).unwrap().expect("a note that says so");
    assert!(note.text.lines().next().unwrap().contains(": web"), "{}", note.text);

    // Others are repaired all the same, and what a commit changes is changed; nothing else.
    host.sh("systemctl stop other").unwrap();
    host.wait_for(agent::SOON, "systemctl is-active other").unwrap();
    host.sh("! systemctl is-active web; grep B=2 /etc/web/page").unwrap();
    let next = repo.commit(&[("apps/web/files/etc/web/page", "new\n")], "release").unwrap();
    host.wait_for(agent::SOON, "test \"$(cat /etc/web/page)\" = new").unwrap();
    let kept = host.sh("mainstay restore --json").unwrap();
    assert!(kept.contains("/etc/web/page") && !kept.contains("calm.service"), "{kept}");
    agent::await_passes(&host, 2);
    host.sh("! systemctl is-active web; ! systemctl is-enabled web; grep Nice /etc/systemd/system/calm.service")
        .unwrap();
    assert_eq!(agent::status(&host).1["commit"], next.as_str());

    // One service under `report` stays as it was left, its neighbours in the application are put back.
    let tip = commit(&repo, &image, "units: { web.service: { drift: report } }\n");
    host.wait_for(agent::SOON, "! grep Nice /etc/systemd/system/calm.service").unwrap();
    let drifted = || Ok((agent::status(&host).1["commit"] == tip.as_str()).then(|| agent::status(&host).1));
    let status = lab::poll(agent::SOON, drifted).unwrap().expect("the commit is believed");
    let drift = status["now"]["drift"].as_array().unwrap();
    assert!(drift.iter().all(|step| step["object"] == "web.service") && !drift.is_empty(), "{status:#}");
    host.sh("! systemctl is-active web").unwrap();
    let tip = commit(&repo, &image, "");
    agent::await_converged(&host, &tip);
    host.sh("systemctl is-active web; systemctl is-enabled web").unwrap();
}

#[test]
fn what_somebody_changes_back_again_and_again_is_left_to_them_until_asked() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = [("fleet.yaml", FLEET), ("apps/other/other.service", OTHER), ("apps/other/files/etc/page", "page\n")];
    let tip = repo.commit(&files, "all").unwrap();
    agent::follow(&host, &repo.ssh_url(), "observe: 200ms\nsettle: 100ms\n");
    agent::await_converged(&host, &tip);
    // Another tool that wants the file otherwise, and looks more often than we do.
    host.sh("systemd-run --quiet --unit=rival sh -c 'while sleep 0.1; do echo theirs >/etc/page; done'").unwrap();
    let contested = || {
        let status = agent::status(&host).1;
        let is_known = status["apps"]["other"]["state"] == "drifted";
        Ok((is_known && status["now"]["contested"][0]["resource"] == "file /etc/page").then_some(()))
    };
    assert!(lab::poll(agent::SOON, contested).unwrap().is_some(), "{}", agent::log(&host));
    let writes = || host.sh("journalctl -u mainstay -o cat | grep -c '^write /etc/page' || true").unwrap();
    assert_eq!(writes(), "5\n", "{}", agent::log(&host));
    let text = host.sh("mainstay status || true").unwrap();
    assert!(text.contains("no longer repaired in other: file /etc/page: it was changed back 5 times"), "{text}");
    let note = || Ok(repo.notes()?.into_iter().find(|note| note.text.contains("changed back again and again")));
    assert!(lab::poll(agent::SOON, note).unwrap().is_some(), "{:?}", repo.notes().unwrap());

    // The neighbours are looked after all the same, also by an agent that was started anew.
    host.sh("systemctl restart mainstay; systemctl stop other").unwrap();
    host.wait_for(agent::SOON, "systemctl is-active other").unwrap();
    assert_eq!((writes().as_str(), host.read("/etc/page").unwrap().as_str()), ("5\n", "theirs\n"));
    host.sh("systemctl stop rival; systemctl kill -s HUP mainstay").unwrap();
    host.wait_for(agent::SOON, "test \"$(cat /etc/page)\" = page && mainstay status").unwrap();
}
