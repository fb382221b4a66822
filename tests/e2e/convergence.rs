//! A host of ordinary size, from nothing to converged and through the smallest of changes: only what must move moves.

use std::fmt::Write as _;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const SERVICES: usize = 16;
const PAGES: usize = 20;
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
const INSTALL: &str = "\n[Install]\nWantedBy=multi-user.target\n";

/// Units of every kind, beside the plain services.
fn kinds() -> Vec<(String, String)> {
    let once = "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n";
    let notify = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/local/bin/ready\n[Install]\nWantedBy=multi-user.target\n";
    let ready = "#!/bin/sh\nsystemd-notify --ready\nexec sleep infinity\n";
    let path = "[Path]\nPathExists=/run/watch-me\n[Install]\nWantedBy=multi-user.target\n";
    let watch = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/touch /run/watched\n";
    let echo = "[Service]\nExecStart=/usr/bin/cat\nStandardInput=socket\n";
    let worker = format!(
        "[Service]\nEnvironmentFile=/etc/worker/%i.env\nSlice=part.slice\nExecStart=/usr/bin/sleep infinity\n{INSTALL}"
    );
    let mount = format!("[Mount]\nWhat=tmpfs\nWhere=/srv/scratch\nType=tmpfs\nOptions=size=1M\n{INSTALL}");
    let app = "units: { worker@blue.service: { state: running, enabled: true } }\nfiles:\n  /usr/local/bin/ready: { mode: \"0755\" }\n  /srv/spool: { kind: directory, mode: \"0750\", owner: daemon, group: daemon }\n  /srv/current: { kind: symlink, target: spool }\n";
    [
        ("app.yaml", app.to_owned()),
        ("notify.service", notify.to_owned()),
        ("files/usr/local/bin/ready", ready.to_owned()),
        ("prepare.service", format!("{once}RemainAfterExit=yes\n{INSTALL}")),
        ("nightly.timer", "[Timer]\nOnCalendar=*-*-* 03:00:00\n[Install]\nWantedBy=timers.target\n".to_owned()),
        ("nightly.service", once.to_owned()),
        (
            "echo.socket",
            "[Socket]\nListenStream=/run/echo.sock\nAccept=yes\n[Install]\nWantedBy=sockets.target\n".to_owned(),
        ),
        ("echo@.service", echo.to_owned()),
        ("store.socket", "[Socket]\nListenStream=127.0.0.1:7000\n[Install]\nWantedBy=sockets.target\n".to_owned()),
        ("store.service", STAYS.to_owned()),
        ("watch.path", path.to_owned()),
        ("watch.service", watch.to_owned()),
        ("srv-scratch.mount", mount),
        ("group.target", format!("[Unit]\nDescription=All of it\n{INSTALL}")),
        ("part.slice", format!("[Slice]\nMemoryHigh=1G\n{INSTALL}")),
        ("worker@.service", worker),
        ("files/etc/worker/blue.env", "COLOUR=blue\n".to_owned()),
    ]
    .map(|(path, text)| (format!("apps/kinds/{path}"), text))
    .into()
}

/// Everything: 33 units, 5 containers, 40 files.
fn everything(image: &str) -> Vec<(String, String)> {
    let mut files = kinds();
    files.push(("fleet.yaml".to_owned(), FLEET.to_owned()));
    for number in 0..SERVICES {
        let unit =
            format!("[Service]\nEnvironmentFile=/etc/many/{number}.conf\nExecStart=/usr/bin/sleep infinity\n{INSTALL}");
        files.push((format!("apps/many/many-{number}.service"), unit));
        files.push((format!("apps/many/files/etc/many/{number}.conf"), "VALUE=1\n".to_owned()));
    }
    for number in 0..PAGES {
        files.push((format!("apps/site/files/srv/site/pages/{number}.html"), format!("page {number}\n")));
    }
    files.push(("apps/boxes/files/etc/box/index.html".to_owned(), "managed".to_owned()));
    files.push(("apps/boxes/app.yaml".to_owned(), boxes(image, "1")));
    files
}

/// Five containers; `value` is what the third has in its environment.
fn boxes(image: &str, value: &str) -> String {
    let mut text = String::from("containers:\n");
    for number in 1..=5 {
        let (volumes, value) = match number {
            1 => (", volumes: [\"data:/data\"]", "1"),
            2 => (", volumes: [\"/etc/box/index.html:/www/index.html:ro\"]", "1"),
            3 => ("", value),
            _ => ("", "1"),
        };
        writeln!(
            text,
            "  box{number}: {{ image: \"{image}\", ports: [\"127.0.0.1:808{number}:8080\"], env: {{ VALUE: \"{value}\" }}{volumes} }}"
        )
        .unwrap();
    }
    text
}

fn units() -> Vec<String> {
    let many = (0..SERVICES).map(|number| format!("many-{number}.service"));
    let kinds = "notify.service prepare.service nightly.timer nightly.service echo.socket store.socket store.service
        watch.path watch.service srv-scratch.mount group.target part.slice worker@blue.service";
    many.chain(kinds.split_whitespace().map(str::to_owned)).collect()
}

#[test]
fn an_ordinary_host_converges_and_then_only_what_must_move_moves() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    host.start_docker().unwrap();
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = everything(&image.reference);
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let first = repo.commit(&files, "everything").unwrap();
    let began = std::time::Instant::now();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);
    eprintln!("first convergence takes {:?}", began.elapsed());

    // Each kind does its work.
    let active = "many-0 many-15 notify prepare nightly.timer echo.socket store.socket watch.path srv-scratch.mount group.target part.slice worker@blue";
    host.sh(&format!("systemctl is-active {active} >&2; systemctl is-enabled {active} >&2")).unwrap();
    assert_eq!(host.sh("systemctl is-active store nightly watch || true").unwrap(), "inactive\ninactive\ninactive\n");
    host.sh("touch /run/watch-me").unwrap();
    host.wait_for(agent::SOON, "test -e /run/watched").unwrap();
    assert_eq!(
        host.sh("findmnt -no FSTYPE /srv/scratch; systemctl show -P Slice worker@blue").unwrap(),
        "tmpfs\npart.slice\n"
    );
    assert_eq!(
        host.sh("stat -c '%a %U:%G' /srv/spool; readlink /srv/current; stat -c %a /usr/local/bin/ready").unwrap(),
        "750 daemon:daemon\nspool\n755\n"
    );
    for (number, expected) in [(1, "one"), (2, "managed"), (3, "one"), (4, "one"), (5, "one")] {
        let said = host.wait_for(agent::SOON, &format!("curl -sf http://127.0.0.1:808{number}/")).unwrap();
        assert_eq!(said, expected, "box{number}");
    }
    host.sh("docker volume inspect data").unwrap();
    assert_eq!(host.sh("docker inspect -f '{{json .Config.Env}}' box3 | grep -o VALUE=.").unwrap(), "VALUE=1\n");
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());

    let units = units();
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    let look = || {
        let roots = [
            "/etc/many",
            "/etc/worker",
            "/etc/box",
            "/srv/site",
            "/srv/spool",
            "/srv/current",
            "/usr/local/bin",
            "/etc/systemd/system",
        ];
        agent::snapshot(&host, &roots, &units)
    };
    agent::await_pass(&host);
    let before = look();
    agent::await_passes(&host, 2);
    assert_eq!(agent::changes(&before, &look()), Vec::<String>::new(), "a pass over a converged host touches nothing");

    // One line of one file: one service.
    let second = repo.commit(&[("apps/many/files/etc/many/3.conf", "VALUE=2\n")], "a line").unwrap();
    agent::await_converged(&host, &second);
    let (before, after) = (before, look());
    let moved = [
        "file /etc/many",
        "file /etc/many/3.conf",
        "jobs",
        "state /var/lib/mainstay/ledger.json",
        "unit many-3.service",
    ];
    assert_eq!(without_ledger_copies(agent::changes(&before, &after)), moved);
    assert_eq!(
        host.sh("tr '\\0' '\\n' </proc/$(systemctl show -P MainPID many-3)/environ | grep VALUE").unwrap(),
        "VALUE=2\n"
    );

    // The environment of one container: that container, and the job with which the engine makes its scope.
    let third = repo.commit(&[("apps/boxes/app.yaml", &boxes(&image.reference, "2"))], "an environment").unwrap();
    agent::await_converged(&host, &third);
    let (before, after) = (after, look());
    assert_eq!(containers(&agent::changes(&before, &after)), ["container /box3", "events", "jobs"]);
    assert_eq!(host.sh("docker inspect -f '{{json .Config.Env}}' box3 | grep -o VALUE=.").unwrap(), "VALUE=2\n");

    // The file that one container mounts: the file and that container.
    let fourth = repo.commit(&[("apps/boxes/files/etc/box/index.html", "changed")], "a page").unwrap();
    agent::await_converged(&host, &fourth);
    let (before, after) = (after, look());
    assert_eq!(
        containers(&agent::changes(&before, &after)),
        ["container /box2", "events", "file /etc/box", "file /etc/box/index.html", "jobs"]
    );
    assert_eq!(host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:8082/").unwrap(), "changed");

    // Something that no host reads: the commit is believed and noted, and nothing else happens.
    let fifth = repo.commit(&[("README.md", "# Home\n \n")], "white space").unwrap();
    agent::await_converged(&host, &fifth);
    assert_eq!(containers(&agent::changes(&after, &look())), Vec::<String>::new());
    let noted = || Ok(repo.notes()?.into_iter().find(|note| note.commit == fifth));
    let note = lab::poll(agent::SOON, noted).unwrap().expect("a note on the last commit");
    assert!(note.text.starts_with("attic converged "), "{}", note.text);
    let (code, status) = agent::status(&host);
    assert_eq!((code, status["commit"].as_str()), (0, Some(&*fifth)));
}

/// Leaves out what the agent keeps of its own.
fn containers(changed: &[String]) -> Vec<&str> {
    changed.iter().map(String::as_str).filter(|it| !it.starts_with("state ")).collect()
}

fn without_ledger_copies(mut changed: Vec<String>) -> Vec<String> {
    changed.retain(|it| !it.starts_with("state ") || it.ends_with("ledger.json"));
    changed
}
