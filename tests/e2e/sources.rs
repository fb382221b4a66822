//! Where commits come from: every transport, outages of all lengths, and commits that no host should believe.

use std::fmt::Write as _;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn every_transport_converges() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    host.write("/etc/lab-ca.pem", forge.root_certificate().unwrap()).unwrap();
    let repo = forge.repo("fleet").unwrap();
    repo.commit(&[("fleet.yaml", FLEET), ("apps/web/web.service", STAYS)], "begin").unwrap();
    host.sh(&format!("git clone -q --bare {} /srv/local.git", repo.ssh_url())).unwrap();
    let transports = [
        (repo.ssh_url(), ""),
        (repo.http_url(), ""),
        (repo.git_url(), ""),
        (repo.https_url(), "git: { ca: /etc/lab-ca.pem }\n"),
    ];
    agent::follow(&host, &transports[0].0, "");
    for (number, (url, more)) in transports.iter().enumerate() {
        agent::set(&host, url, more);
        host.sh("systemctl restart mainstay").unwrap();
        let tip = repo.commit(&[("apps/web/files/etc/web", &format!("{number}\n"))], "next").unwrap();
        agent::await_converged(&host, &tip);
        assert_eq!(host.read("/etc/web").unwrap(), format!("{number}\n"));
        let noted = || Ok(repo.notes()?.iter().any(|note| note.commit == tip).then_some(()));
        assert!(lab::poll(agent::SOON, noted).unwrap().is_some(), "no note by {url}\n{}", agent::log(&host));
    }

    // Nobody trusts an unknown certificate, and what was believed stays.
    agent::set(&host, &repo.https_url(), "");
    host.sh("systemctl restart mainstay").unwrap();
    host.wait_for(agent::SOON, "(mainstay --json status || true) | grep -i '\"unreachable\".*certificate'").unwrap();
    // Folders only where they are allowed.
    agent::set(&host, "file:///srv/local.git", "");
    host.sh("systemctl restart mainstay || true").unwrap();
    let said = host.sh("mainstay once 2>&1 || true").unwrap();
    assert!(said.contains("allow-file") || said.contains("file://"), "{said}");
    host.sh("systemctl stop mainstay").unwrap();
    agent::set(&host, "file:///srv/local.git", "allow-file: true\n");
    host.sh(
        "git -C /srv/local.git fetch -q origin main:main; systemctl reset-failed mainstay; systemctl start mainstay",
    )
    .unwrap();
    agent::await_converged(&host, &repo.tip("main").unwrap().unwrap());
}

/// A server that lets nobody in without a name and a token.
const CLOSED: &str = r#"
cat >>/etc/forge/lighttpd.conf <<'CONF'
server.modules += ("mod_auth", "mod_authn_file")
auth.backend = "plain"
auth.backend.plain.userfile = "/run/users"
$SERVER["socket"] == ":443" {
    auth.require = ("/git" => ("method" => "basic", "realm" => "forge", "require" => "valid-user"))
}
CONF
printf 'mainstay:tk-one\nbot:tk-two\n' >/run/users; chmod 644 /run/users
systemctl restart forge-http
"#;
/// Keeps a token and forgets it when it is told to, as `git credential-store` does.
const HELPER: &str = r#"#!/bin/sh
about=$(cat)
case $1 in
get) echo "$about" | grep -qx protocol=https && test -e /etc/mainstay/kept && printf 'username=bot\npassword=%s\n' "$(cat /etc/mainstay/kept)" ;;
erase) rm -f /etc/mainstay/kept ;;
esac
exit 0
"#;

#[test]
fn a_token_is_known_by_a_file_by_a_program_or_by_systemd() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    host.write("/etc/lab-ca.pem", forge.root_certificate().unwrap()).unwrap();
    let repo = forge.repo("fleet").unwrap();
    forge.sh(CLOSED).unwrap();
    let mut number = 0;
    let mut next = || {
        number += 1;
        repo.commit(&[("fleet.yaml", FLEET), ("apps/web/files/etc/web", &format!("{number}\n"))], "next").unwrap()
    };
    let set = |more: &str| {
        agent::set(&host, &repo.https_url(), &format!("git: {{ ca: /etc/lab-ca.pem{more} }}\n"));
        host.sh("systemctl daemon-reload; systemctl restart mainstay").unwrap();
    };
    let tip = next();
    agent::follow(&host, &repo.https_url(), "git: { ca: /etc/lab-ca.pem }\n");
    let says = |what: &str| {
        let told = host.wait_for(agent::SOON, &format!("{{ mainstay --json status || true; }} | grep -F '{what}'"));
        told.unwrap_or_else(|_| {
            panic!("{what}: {}\n{}", host.sh("mainstay status || true").unwrap(), agent::log(&host))
        });
    };
    says("it wants a token, and none is set");

    host.sh("umask 077; echo tk-one >/etc/mainstay/token").unwrap();
    set(", token: /etc/mainstay/token");
    agent::await_converged(&host, &tip);

    host.write("/usr/local/bin/keeper", HELPER).unwrap();
    host.sh("chmod 755 /usr/local/bin/keeper; rm /etc/mainstay/token; umask 077; echo tk-two >/etc/mainstay/kept")
        .unwrap();
    set(", helper: /usr/local/bin/keeper");
    let tip = next();
    agent::await_converged(&host, &tip);
    // It is told that what it keeps is not accepted any more, forgets it, and is asked once more.
    forge.sh("sed -i s/tk-two/tk-three/ /run/users; systemctl restart forge-http").unwrap();
    host.sh("mainstay sync || true").unwrap();
    says("`/usr/local/bin/keeper`, which `git.helper` names, knows no token");
    host.sh("test ! -e /etc/mainstay/kept").unwrap();

    host.sh(
        "mkdir -p /etc/systemd/system/mainstay.service.d; cd /etc/mainstay
         echo tk-one | systemd-creds encrypt --with-key=host --name=git-token - git-token.cred
         printf '[Service]\\nLoadCredentialEncrypted=git-token:/etc/mainstay/git-token.cred\\n' >/etc/systemd/system/mainstay.service.d/token.conf",
    )
    .unwrap();
    set("");
    let tip = next();
    agent::await_converged(&host, &tip);
    // Who asks beside the service finds it there as well.
    host.sh("mainstay plan").unwrap();
    assert!(host.sh("grep -rl tk-one /etc/mainstay || true").unwrap().is_empty(), "it stands nowhere in the clear");
}

#[test]
fn an_outage_of_the_repository_costs_nothing_but_news() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = [("fleet.yaml", FLEET), ("apps/web/web.service", STAYS), ("apps/web/files/etc/web", "1\n")];
    let first = repo.commit(&files, "begin").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);
    // Nothing is left to push: for that, the server tells all its refs.
    let told = || Ok(repo.notes()?.iter().any(|note| note.text.starts_with("attic converged")).then_some(()));
    lab::poll(agent::SOON, told).unwrap().unwrap();

    // Ten thousand branches of other people: an unchanged poll asks for one, and receives nothing. Over ssh the server
    // has to let the client say which protocol it speaks, as forges do.
    forge.sh("echo AcceptEnv GIT_PROTOCOL > /etc/ssh/sshd_config.d/git.conf; systemctl reload ssh").unwrap();
    let branches: String = (0..10_000).fold(String::new(), |mut all, number| {
        writeln!(all, "create refs/heads/topic/{number} {first}").unwrap();
        all
    });
    repo.git_with(&["update-ref", "--stdin"], branches.as_bytes()).unwrap();
    repo.git(&["pack-refs", "--all"]).unwrap();
    let received = "cat /sys/class/net/host0/statistics/rx_bytes";
    let polls = "journalctl -u mainstay F_WAKE=Upstream -o cat --no-pager | wc -l";
    let before: u64 = host.sh(received).unwrap().trim().parse().unwrap();
    let polled: u64 = host.sh(polls).unwrap().trim().parse().unwrap();
    host.wait_for(agent::SOON, &format!("test $({polls}) -ge {}", polled + 5)).unwrap();
    let bytes = host.sh(received).unwrap().trim().parse::<u64>().unwrap() - before;
    assert!(bytes < 6 * 12_000, "five polls beside ten thousand refs received {bytes} bytes");
    assert_eq!(host.sh("git -C /var/lib/mainstay/mirror.git for-each-ref | grep -c topic || true").unwrap(), "0\n");

    // The server is away; what was believed is kept, across a restart of the agent and a reboot of the host.
    forge.stop_git().unwrap();
    let run = agent::invocation(&host, "web");
    host.wait_for(agent::SOON, "(mainstay --json status || true) | grep -E '\"unreachable\": \"'").unwrap();
    host.sh("echo 2 > /etc/web").unwrap();
    host.wait_for(agent::SOON, "test $(cat /etc/web) = 1").unwrap();
    host.sh("systemctl restart mainstay; rm /etc/web").unwrap();
    host.wait_for(agent::SOON, "test $(cat /etc/web) = 1").unwrap();
    assert_eq!(agent::invocation(&host, "web"), run);
    host.reboot().unwrap();
    host.sh("echo 3 > /etc/web; systemctl stop web").unwrap();
    host.wait_for(agent::SOON, "test $(cat /etc/web) = 1; systemctl is-active web").unwrap();
    let (code, status) = agent::status(&host);
    assert_eq!((code, status["commit"].as_str()), (0, Some(&*first)));

    // Back: the news arrives, and what happened meanwhile is told.
    let second = repo.commit(&[("apps/web/files/etc/web", "4\n")], "news").unwrap();
    forge.start_git().unwrap();
    agent::await_converged(&host, &second);
    let told = |commit: &str, state: &str| {
        let found = || {
            let begins = format!("attic {state} ");
            Ok(repo.notes()?.iter().any(|note| note.commit == commit && note.text.starts_with(&begins)).then_some(()))
        };
        assert!(lab::poll(agent::SOON, found).unwrap().is_some(), "{:?}", repo.notes().unwrap());
    };
    told(&second, "converged");
    told(&first, "repaired");
    let quiet = || Ok((agent::status(&host).1["unreachable"].is_null()).then_some(()));
    assert!(lab::poll(agent::SOON, quiet).unwrap().is_some());

    // The branch is deleted: nothing goes, and the status says so.
    repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
    host.wait_for(agent::SOON, "(mainstay --json status || true) | grep -E '\"unreachable\": \".*main'").unwrap();
    agent::await_pass(&host);
    assert_eq!(host.sh("cat /etc/web; systemctl is-active web").unwrap(), "4\nactive\n");
    repo.git(&["update-ref", "refs/heads/main", &second]).unwrap();
    assert!(lab::poll(agent::SOON, quiet).unwrap().is_some());
}

/// One mistake each: the file, its text, and a word of the complaint.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("apps/a01/app.yaml", "plcae: all\n", "place"),
    (
        "apps/a02/app.yaml",
        "place: { hosst: attic }\nfiles: { /srv/a02: { kind: directory, mode: 0755 } }\n",
        "\"0755\"",
    ),
    ("apps/a03/app.yaml", "files: { relative/path: { kind: directory } }\n", "relative/path"),
    ("apps/a04/app.yaml", "files: { /proc/sys/x: { kind: directory } }\n", "/proc/sys/x"),
    ("apps/a05/app.yaml", "files: { /srv/../etc/x: { kind: directory } }\n", ".."),
    ("apps/a06/app.yaml", "containers: { box: { ports: [\"80:80\"] } }\n", "image"),
    ("apps/a07/app.yaml", "containers: { box7: { image: \"x:1\", ports: [80] } }\n", "80"),
    ("apps/a08/app.yaml", "containers: { box8: { image: \"x:1\", volumes: [\"/:/host\"] } }\n", "root"),
    ("apps/a09/app.yaml", "containers: { box9: { image: \"x:1\", env: [A] } }\n", "env"),
    ("apps/a10/app.yaml", "units: { a10.servce: { state: running } }\n", "a10.servce"),
    ("apps/a11/app.yaml", "units: { mainstay.service: { state: stopped } }\n", "mainstay"),
    ("apps/a12/app.yaml", "units: { ssh.service: { state: stopped } }\n", "allow-critical"),
    ("apps/a13/app.yaml", "drift: maybe\n", "maybe"),
    ("apps/a14/app.yaml", "a: 1\na: 2\n", "a14"),
    ("apps/a15/app.yaml", "place: [\n", "a15"),
    ("apps/a16/a16.service", "[Service]\nExecStrat=/bin/true\n", "ExecStrat"),
    ("apps/a17/a17.service", "[Service]\nExecStart=/bin/true\nProtectSystem=maybe\n", "maybe"),
    ("apps/a18/a18.timer", "[Timer]\nPersistent=yes\n", "a18"),
    ("apps/a19/files/etc/shadow", "root::0\n", "/etc/shadow"),
    ("apps/a20/files/etc/web", "other\n", "/etc/web"),
    ("apps/a21/strange.txt", "?\n", "strange.txt"),
];

#[test]
fn a_bad_commit_is_refused_as_a_whole_and_every_mistake_is_shown_at_once() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let good = [("fleet.yaml", FLEET), ("apps/web/web.service", STAYS), ("apps/web/files/etc/web", "1\n")];
    let first = repo.commit(&good, "good").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);

    let mut change = repo.change().write("apps/web/files/etc/web", "2\n");
    for (path, text, _) in MISTAKES {
        change = change.write(path, text);
    }
    let bad = change.commit("twenty mistakes").unwrap();
    agent::await_status(&host, &format!("^converged on {}.*{} is refused", &first[..10], &bad[..10]));
    let (code, status) = agent::status(&host);
    assert_eq!((code, status["refused"]["commit"].as_str()), (4, Some(&*bad)));
    host.sh(&format!("git clone -q {} /srv/clone", repo.ssh_url())).unwrap();
    let check = |form: &str| {
        let output = host.try_sh(&format!("mainstay {form} check /srv/clone")).unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = check("");
    let json: serde_json::Value = serde_json::from_str(&check("--json")).unwrap();
    let json = json.to_string();
    for (path, _, word) in MISTAKES {
        let place = path.trim_end_matches("strange.txt").trim_end_matches("/files/etc/web");
        assert!(text.contains(place) && text.contains(word), "{path} {word}:\n{text}");
        assert!(json.contains(place), "{path}:\n{json}");
    }

    // The last good one is enforced, also after a restart, and nothing of the bad one is on the host.
    host.sh("echo 3 > /etc/web; systemctl restart mainstay").unwrap();
    host.wait_for(agent::SOON, "test $(cat /etc/web) = 1").unwrap();
    host.sh("test ! -e /srv/a02; test ! -e /etc/systemd/system/a17.service").unwrap();
    agent::await_status(&host, &format!("^converged on {}.*{} is refused", &first[..10], &bad[..10]));

    // The branch goes back to the last good commit: then nothing is refused any more.
    repo.git(&["update-ref", "refs/heads/main", &first]).unwrap();
    let cleared = || Ok(agent::status(&host).1["refused"].is_null().then_some(()));
    assert!(lab::poll(agent::SOON, cleared).unwrap().is_some(), "{}", agent::status(&host).1);
    // And the fix on top of the bad one is believed.
    repo.git(&["update-ref", "refs/heads/main", &bad]).unwrap();
    let mut change = repo.change();
    for (path, ..) in MISTAKES {
        change = change.remove(path);
    }
    let fixed = change.commit("fixed").unwrap();
    agent::await_converged(&host, &fixed);
    assert_eq!(host.read("/etc/web").unwrap(), "2\n");
    assert_eq!(agent::status(&host).0, 0);

    // A repository that knows nothing of this host, or holds nothing at all, takes nothing away.
    for files in [
        &[("fleet.yaml", "fleet: home\nhosts:\n  barn: {}\n"), ("apps/web/web.service", STAYS)][..],
        &[("README.md", "moved\n")],
    ] {
        let other = repo.set_tree(files, "other").unwrap();
        agent::await_status(&host, &format!("^converged on {}.*{} is refused", &fixed[..10], &other[..10]));
        assert_eq!(host.sh("cat /etc/web; systemctl is-active web").unwrap(), "2\nactive\n");
    }
}
