//! A change that fails undoes itself: the application goes back as a whole, says why, and stays there until a commit or a
//! person says otherwise. What it needs comes first, and what does not pass its checks does not count.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target\n";

/// A service that reads its configuration and dies of a bad one.
fn service(conf: &str) -> String {
    format!(
        "[Service]\nExecStart=/bin/sh -c 'grep -q good {conf} || {{ echo last words; exit 3; }}; exec sleep infinity'\n{INSTALL}"
    )
}

/// Everything of the application on the host, as text.
fn facts(host: &Host) -> String {
    host.sh("for path in /etc/web.conf /etc/web.old /etc/web.new /srv/web /etc/systemd/system/web.service \
             /etc/systemd/system/extra.service; do \
             stat -c '%n %a %U:%G' $path 2>/dev/null && test -f $path && sha256sum <$path; done; \
         for unit in web extra nightly.timer; do \
             echo $unit $(systemctl is-active $unit) $(systemctl is-enabled $unit 2>/dev/null); done; \
         cat /etc/web.conf; systemctl list-units --state=failed --plain --no-legend")
        .unwrap()
}

fn status_of(host: &Host, app: &str) -> serde_json::Value {
    agent::status(host).1["apps"][app].clone()
}

#[test]
fn an_application_whose_change_failed_is_back_byte_for_byte_and_waits_for_a_commit_or_a_person() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 500ms\n").unwrap();
    let timer = "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n";
    let app = "files:\n  /etc/web.conf: { mode: \"0640\", owner: daemon, group: adm }\n  /srv/web: { kind: directory, mode: \"0750\" }\n";
    let web = service("/etc/web.conf");
    let good = [
        ("fleet.yaml", FLEET),
        ("apps/web/app.yaml", app),
        ("apps/web/web.service", &web),
        ("apps/web/nightly.timer", timer),
        ("apps/web/nightly.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n"),
        ("apps/web/files/etc/web.conf", "good one\n"),
        ("apps/web/files/etc/web.old", "old\n"),
        ("apps/other/files/etc/other.conf", "1\n"),
    ];
    agent::write_folder(&host, "/root/good", &good);
    agent::converge(&host, "/root/good");
    let before = facts(&host);

    // Everything at once: a changed and a new file, one that goes, other modes, a new unit, a timer that is off.
    let bad_app =
        "units: { nightly.timer: { state: stopped, enabled: false } }\nfiles:\n  /etc/web.conf: { mode: \"0600\" }\n";
    let many: Vec<String> = (0..6).map(|index| format!("apps/web/files/etc/web.d/{index}")).collect();
    let mut bad = vec![
        ("fleet.yaml", FLEET),
        ("apps/web/app.yaml", bad_app),
        ("apps/web/web.service", &*web),
        ("apps/web/extra.service", "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"),
        ("apps/web/nightly.timer", timer),
        ("apps/web/nightly.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n"),
        ("apps/web/files/etc/web.conf", "broken\n"),
        ("apps/web/files/etc/web.new", "new\n"),
        ("apps/other/files/etc/other.conf", "2\n"),
    ];
    bad.extend(many.iter().map(|path| (path.as_str(), "more\n")));
    agent::write_folder(&host, "/root/bad", &bad);
    let (code, said) = agent::once(&host, "/root/bad");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("failed in web: ") && said.contains("last words"), "{said}");
    assert_eq!(facts(&host), before, "{said}");
    assert_eq!(host.read("/etc/other.conf").unwrap(), "2\n", "the others move on");
    host.sh("test ! -e /etc/web.d").unwrap();
    let status = status_of(&host, "web");
    assert_eq!(status["state"], "rolled-back", "{status}");
    assert!(status["failure"].as_str().unwrap().contains("web.service"), "{status}");

    // Nothing is tried again, whoever looks; drift of what is back is repaired.
    let run = agent::invocation(&host, "web");
    host.sh("echo drift >/etc/web.conf; rm /etc/web.old").unwrap();
    let (code, said) = agent::once(&host, "/root/bad");
    assert!(code == 4 && said.contains("held back: web"), "{code} {said}");
    assert_eq!((facts(&host), agent::invocation(&host, "web")), (before.clone(), run), "{said}");
    assert_eq!(status_of(&host, "web")["state"], "rolled-back");

    // A person says so: it fails again and goes back again.
    let said = host.sh("mainstay retry web; mainstay retry nobody 2>&1 || true").unwrap();
    assert!(said.contains("web is tried again") && said.contains("no application `nobody`"), "{said}");
    let (code, said) = agent::once(&host, "/root/bad");
    assert!(code == 4 && said.contains("failed in web"), "{code} {said}");
    assert_eq!(facts(&host), before, "{said}");

    // The cause was outside the release after all: now it works, and the release is the good one.
    host.sh("mount --bind /root/good/apps/web/files/etc/web.conf /root/bad/apps/web/files/etc/web.conf").unwrap();
    let (code, said) = agent::once(&host, "/root/bad");
    assert_eq!(code, 0, "another content is another release, which needs no retry: {said}");
    host.sh("umount /root/bad/apps/web/files/etc/web.conf; systemctl is-active web extra").unwrap();
    assert_eq!(status_of(&host, "web")["state"], "converged");

    // What cannot go back stops: the file that the way back needs has become somebody's directory.
    host.sh("echo good one >/root/bad/apps/web/files/etc/web.conf; echo x >/root/bad/apps/web/files/etc/web.new")
        .unwrap();
    agent::converge(&host, "/root/bad");
    let unit =
        format!("[Service]\nExecStart=/bin/sh -c 'test ! -e /run/broken || exit 4; exec sleep infinity'\n{INSTALL}");
    host.write("/root/bad/apps/web/extra.service", &unit).unwrap();
    agent::converge(&host, "/root/bad");
    host.sh("touch /run/broken").unwrap();
    host.write("/root/bad/apps/web/extra.service", unit.replace("exit 4", "exit 5")).unwrap();
    let (code, said) = agent::once(&host, "/root/bad");
    assert_eq!(code, 4, "{said}");
    let status = status_of(&host, "web");
    let failure = status["failure"].as_str().unwrap();
    assert!(status["state"] == "failed" && failure.contains("a person is needed"), "{status}\n{said}");
    let before = facts(&host);
    let (_, said) = agent::once(&host, "/root/bad");
    assert!(said.contains("stopped: web"), "{said}");
    assert_eq!(facts(&host), before, "nothing flaps");
    host.sh("rm /run/broken; mainstay retry").unwrap();
    agent::converge(&host, "/root/bad");
}

#[test]
fn what_is_needed_comes_first_and_checks_decide() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 200ms\n").unwrap();
    let unit = |name: &str, wait: &str| {
        format!(
            "[Service]\nExecStart=/bin/sh -c 'echo {name} >>/run/order; {wait} exec sleep infinity'\nExecStop=/bin/sh -c 'echo -{name} >>/run/order'\n{INSTALL}"
        )
    };
    // The store is up at once and well a second later.
    let well = "checks:\n  - { exec: [/bin/sh, -c, \"x=/run/well; test -e ${x} || { echo not yet; exit 1; }\"], within: 10s }\n  - { unit: store.service }\n";
    let store = unit("store", "(sleep 1; echo well >>/run/order; touch /run/well) &");
    let (web, page) = (unit("web", ""), unit("page", ""));
    let mut files = vec![
        ("fleet.yaml", FLEET),
        ("apps/store/app.yaml", well),
        ("apps/store/store.service", &*store),
        ("apps/web/app.yaml", "needs: [store]\nchecks: [ { tcp: \"127.0.0.1:22\" } ]\n"),
        ("apps/web/web.service", &web),
        ("apps/page/app.yaml", "needs: [web]\n"),
        ("apps/page/page.service", &page),
        ("apps/alone/files/etc/alone.conf", "1\n"),
    ];
    agent::write_folder(&host, "/root/one", &files);
    agent::converge(&host, "/root/one");
    assert_eq!(host.read("/run/order").unwrap(), "store\nwell\nweb\npage\n");
    let units = ["store", "web", "page"];
    let runs = || units.map(|unit| agent::invocation(&host, unit));
    let before = runs();

    // A check of the needed one fails: it goes back, and those that need it are not touched, but for the others.
    let bad = well.replace("x=/run/well", "x=/run/never").replace("10s", "1s");
    let (newer_web, newer_store) =
        (web.replace("echo web", "echo newer web"), store.replace("echo store", "echo newer store"));
    files.retain(|(path, _)| {
        !matches!(
            *path,
            "apps/store/app.yaml"
                | "apps/store/store.service"
                | "apps/web/web.service"
                | "apps/alone/files/etc/alone.conf"
        )
    });
    files.extend([
        ("apps/store/app.yaml", &*bad),
        ("apps/store/store.service", &newer_store),
        ("apps/web/web.service", &newer_web),
        ("apps/alone/files/etc/alone.conf", "2\n"),
    ]);
    host.write("/run/order", "").unwrap();
    agent::write_folder(&host, "/root/two", &files);
    let (code, said) = agent::once(&host, "/root/two");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("did not pass within 1s: it exited with code 1") && said.contains("| not yet"), "{said}");
    assert!(said.contains("it needs store, which"), "{said}");
    let order = host.read("/run/order").unwrap();
    let order: Vec<&str> = order.lines().filter(|line| *line != "well").collect();
    assert_eq!(order, ["-store", "newer store", "-store", "store"]);
    let after = runs();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..], "who needs it is not touched");
    assert_eq!(host.read("/etc/alone.conf").unwrap(), "2\n");
    let state = |app: &str| status_of(&host, app)["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!(["store", "web", "page", "alone"].map(state), ["rolled-back", "waiting", "converged", "converged"]);
    host.sh("systemctl list-units --all 'mainstay-check*' --plain --no-legend | grep . && exit 1 || true").unwrap();

    // It is well after all: the check passes, and what waited follows.
    host.sh("touch /run/never; : >/run/order; mainstay retry").unwrap();
    agent::converge(&host, "/root/two");
    let order = host.read("/run/order").unwrap();
    assert_eq!(
        order.lines().filter(|line| line.starts_with("newer")).collect::<Vec<_>>(),
        ["newer store", "newer web"]
    );

    // What goes, goes before what it needs.
    host.write("/run/order", "").unwrap();
    let files = [("fleet.yaml", FLEET), ("apps/alone/files/etc/alone.conf", "2\n")];
    agent::write_folder(&host, "/root/three", &files);
    let (_, said) = agent::once(&host, "/root/three");
    if let Some(at) = said.find("prune: \"") {
        let digest = &said[at + 8..at + 20];
        let fleet = format!("{FLEET}acknowledge: [ {{ prune: \"{digest}\", reason: \"all of it\" }} ]\n");
        host.write("/root/three/fleet.yaml", fleet).unwrap();
    }
    agent::converge(&host, "/root/three");
    let order = host.read("/run/order").unwrap();
    let stops: Vec<&str> = order.lines().filter(|line| line.starts_with('-')).collect();
    assert_eq!(stops, ["-page", "-web", "-store"], "{order}");
}

#[test]
fn the_daemon_goes_back_says_so_in_git_and_watches_what_runs() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let web = service("/etc/web.conf");
    let app = "checks: [ { exec: [/bin/test, -e, /run/well], interval: 1s, within: 2s } ]\n";
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/app.yaml", app),
        ("apps/web/web.service", &*web),
        ("apps/web/files/etc/web.conf", "good one\n"),
        ("apps/web/files/etc/web.old", "old\n"),
        ("apps/other/files/etc/other.conf", "1\n"),
    ];
    let first = repo.commit(&files, "good").unwrap();
    host.sh("touch /run/well").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);
    let note = |commit: &str, begins: &str| {
        let found = || {
            let notes = repo.notes()?;
            Ok(notes.into_iter().find(|note| note.commit == commit && note.text.starts_with(begins)))
        };
        let found = lab::poll(agent::SOON, found).unwrap();
        found.unwrap_or_else(|| panic!("no note `{begins}`: {:?}", repo.notes().unwrap())).text
    };
    note(&first, "attic converged ");

    // What does not pass any more is told, and left alone, until it passes again.
    let (run, before) = (agent::invocation(&host, "web"), facts(&host));
    host.sh("rm /run/well").unwrap();
    agent::await_status(&host, "1 of 2 applications unhealthy");
    assert_eq!(status_of(&host, "web")["state"], "unhealthy");
    let text = note(&first, "attic unhealthy ");
    assert!(text.contains("web (check by /bin/test does not pass: it exited with code 1)"), "{text}");
    host.sh("touch /run/well").unwrap();
    agent::await_converged(&host, &first);
    note(&first, "attic converged ");
    assert_eq!(agent::invocation(&host, "web"), run, "nobody restarts what is unhealthy");

    // Each bad commit is undone, wherever the agent is killed meanwhile.
    for (number, wait) in ["0.3", "1.2", "2"].into_iter().enumerate() {
        let bad = [
            ("apps/web/files/etc/web.conf", format!("broken {number}\n")),
            ("apps/web/files/etc/web.new", "new\n".to_owned()),
            ("apps/other/files/etc/other.conf", format!("{number} moves on\n")),
        ];
        let change = bad
            .iter()
            .fold(repo.change().remove("apps/web/files/etc/web.old"), |change, (path, text)| change.write(path, text));
        let commit = change.commit("bad").unwrap();
        host.wait_for(
            agent::SOON,
            "grep -q broken /etc/web.conf || systemctl show -P StatusText mainstay | grep 'rolled back'",
        )
        .unwrap();
        host.sh(&format!("sleep {wait}; systemctl kill --signal=KILL mainstay || true")).unwrap();
        agent::await_status(&host, &format!("^on {}, 1 of 2 applications rolled back", &commit[..10]));
        assert_eq!(facts(&host), before, "killed after {wait} s");
        assert_eq!(host.read("/etc/other.conf").unwrap(), format!("{number} moves on\n"));
        let text = note(&commit, "attic rolled-back ");
        assert!(text.lines().next().unwrap().contains("web (unit `web.service` did not stay up"), "{text}");
        assert!(text.contains(&format!("\"runs\":\"{first}\"")) && !text.contains("last words"), "{text}");
    }

    let fixed = repo.change().write("apps/web/files/etc/web.conf", "good again\n").commit("fixed").unwrap();
    agent::await_converged(&host, &fixed);
    assert_eq!(host.read("/etc/web.conf").unwrap(), "good again\n");
    note(&fixed, "attic converged ");
}

#[test]
fn a_quadlet_that_goes_back_runs_the_image_of_its_last_good_release() {
    const FOLDER: &str = "/root/fleet";
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 200ms\n").unwrap();
    let push = |name: &str, marker: &str| forge.image(name, "1", marker).unwrap().reference;
    let (always, still) = (push("always", "A"), push("still", "A"));
    let quadlet = |image: &str, more: &str| {
        format!("[Container]\nImage={image}\nNetwork=none\n{more}[Service]\nTimeoutStopSec=1\nRestart=no\n")
    };
    let write = |level: &str, check: &str| {
        let app = format!(
            "units: {{ many@1.service: {{ state: running }}, many@2.service: {{ state: running }} }}\nchecks: [ {{ exec: [/bin/sh, -c, \"{check}\"], within: 1s }} ]\n"
        );
        let level = format!("Environment=LEVEL={level}\n");
        let files = [
            ("fleet.yaml", FLEET),
            ("apps/web/app.yaml", &app),
            ("apps/web/always.container", &quadlet(&always, &format!("Pull=always\n{level}"))),
            ("apps/web/moved.container", &quadlet("localhost/moved:1", &level)),
            ("apps/web/never.container", &quadlet("localhost/moved:1", &format!("Pull=never\n{level}"))),
            ("apps/web/fetched.container", &quadlet("fetched.image", &level)),
            ("apps/web/fetched.image", &format!("[Image]\nImage={always}\n")),
            ("apps/web/many@.container", &quadlet("localhost/moved:1", &level)),
            ("apps/web/built.container", &quadlet("built.build", &level)),
            ("apps/web/built.build", "[Build]\nImageTag=localhost/built\nSetWorkingDirectory=/etc/built\nPull=never\n"),
            (
                "apps/web/files/etc/built/Containerfile",
                &format!("FROM localhost/moved:1\nENV BUILT={}\n", level.trim()),
            ),
            ("apps/web/still.container", &quadlet(&still, &level)),
            ("apps/web/aside.container", &quadlet(&always, "Pull=always\n")),
        ];
        agent::write_folder(&host, FOLDER, &files);
    };
    let runs = || {
        let of = |name| format!("podman exec systemd-{name} sh -c 'echo $(cat /marker)$LEVEL'");
        host.sh(&["always", "moved", "still", "never", "fetched", "built", "many_1", "many_2"].map(of).join("; "))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let pins = || {
        let found = host.sh("cd /etc/containers/systemd; find . -name '90-mainstay*' | sort").unwrap();
        found.lines().map(|path| path.split(['/', '.']).nth(2).unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let other = push("other", "B");
    host.sh(&format!("podman pull -q {still}; podman tag {still} localhost/moved:1; podman pull -q {other}")).unwrap();
    write("1", "true");
    agent::converge(&host, FOLDER);
    assert_eq!((runs(), pins()), ("A1 A1 A1 A1 A1 A1 A1 A1".to_owned(), String::new()));
    let aside = agent::invocation(&host, "aside");

    // The tags move, one in the registry and one by hand; then a release fails.
    push("always", "B");
    host.sh(&format!("podman tag {other} localhost/moved:1")).unwrap();
    write("2", "podman exec systemd-always cat /marker | grep -q B && exit 1");
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("its quadlet would start another image than the last good release ran"), "{said}");
    assert_eq!(
        (runs(), pins()),
        ("A1 A1 A1 A1 A1 A1 A1 A1".to_owned(), "always built fetched many@ moved never".to_owned()),
        "{said}"
    );
    let status = status_of(&host, "web");
    assert_eq!(status["state"], "rolled-back", "{status}");
    assert_eq!(agent::invocation(&host, "aside"), aside, "what the failed release did not touch goes on");

    // It stays so: nothing is left to do, and a start by hand starts the same, with the registry or without it.
    forge.stop_registry().unwrap();
    host.sh("systemctl restart always moved never fetched built many@1").unwrap();
    assert_eq!(runs(), "A1 A1 A1 A1 A1 A1 A1 A1");
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    assert_eq!(steps, Vec::<String>::new());
    host.sh("rm /etc/containers/systemd/always.container.d/90-*; systemctl stop moved; systemctl daemon-reload")
        .unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("held back: web"), "{said}");
    assert_eq!(
        (runs(), pins()),
        ("A1 A1 A1 A1 A1 A1 A1 A1".to_owned(), "always built fetched many@ moved never".to_owned()),
        "{said}"
    );
    forge.start_registry().unwrap();

    // A newer commit that is good leaves nothing of it.
    write("3", "true");
    agent::converge(&host, FOLDER);
    assert_eq!((runs(), pins()), ("B3 B3 A3 B3 B3 B3 B3 B3".to_owned(), String::new()));
    host.sh("! test -e /etc/containers/systemd/always.container.d").unwrap();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
}
