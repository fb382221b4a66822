//! What a hostile or broken repository holds is refused by every door it could come in by; nothing on the host changes,
//! nothing of it is executed, and it takes neither much memory nor much time.

use std::time::{Duration, Instant};

use lab::{Host, product};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";
/// More than any of these may take, in KiB: a debug build with a tree of some hundred bytes.
const MOST: u64 = 96 << 10;

/// What a host is, as far as these could change it.
fn state(host: &Host) -> String {
    host.sh(
        "find /etc /root/fine /usr/local /srv -xdev -newer /root/began ! -path '/etc/mainstay/*' -printf '%p %s %i\\n' | sort; \
         systemctl list-units --plain --no-legend --state=active --type=service | cut -d' ' -f1 | grep -v '^run-\\|^mainstay'; ls /run/owned 2>&1 || true",
    )
    .unwrap()
}

/// Runs a command of the agent and measures it: exit code, output, largest memory in KiB.
fn measured(host: &Host, command: &str) -> (i32, String, u64) {
    let output = host.try_sh(&format!("busybox time -v {command} >/tmp/said 2>&1")).unwrap();
    let peak = host.sh("sed -n 's/.*Maximum resident set size (kbytes): //p' /tmp/said").unwrap();
    (output.status.code().unwrap_or(-1), host.sh("head -c 6000 /tmp/said").unwrap(), peak.trim().parse().unwrap())
}

#[test]
fn a_hostile_folder_is_refused_by_check_and_once() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 100ms\n").unwrap();
    agent::write_folder(&host, "/root/fine", &[("fleet.yaml", FLEET), ("apps/web/web.service", UNIT)]);
    agent::converge(&host, "/root/fine");
    host.sh("touch /root/began").unwrap();
    let before = state(&host);

    let app = |text: &str| format!("printf '%s' '{text}' >apps/web/app.yaml");
    let cases: Vec<(&str, String)> = vec![
        ("a link out of the tree", "mkdir -p apps/web/files/etc; ln -s /etc/shadow apps/web/files/etc/x".into()),
        ("a folder that is a link", "ln -s /etc apps/evil".into()),
        ("fleet.yaml is a link", "rm fleet.yaml; ln -s /etc/passwd fleet.yaml".into()),
        ("a pipe", "mkfifo apps/web/files".into()),
        ("an alias bomb", "{ echo 'a0: &a0 [x,x,x,x,x,x,x,x,x,x]'; for n in 1 2 3 4 5 6 7 8 9; do p=$((n-1)); echo \"a$n: &a$n [*a$p,*a$p,*a$p,*a$p,*a$p,*a$p,*a$p,*a$p,*a$p,*a$p]\"; done; } >apps/web/app.yaml".into()),
        ("deep nesting", "head -c 100000 /dev/zero | tr '\\0' '[' >apps/web/app.yaml".into()),
        ("deep maps", "{ printf 'vars: '; for n in $(seq 20000); do printf '{a: '; done; } >apps/web/app.yaml".into()),
        ("a huge scalar", "{ printf 'vars: {a: \"'; head -c 15000000 /dev/zero | tr '\\0' x; echo '\"}'; } >apps/web/app.yaml".into()),
        ("a huge file", "mkdir -p apps/web/files/etc; truncate -s 1G apps/web/files/etc/huge".into()),
        ("a unit out of its folder", app("units:\n  ../x.service: { state: running }\n")),
        ("a unit with a newline", app("units:\n  \"x\\ny.service\": { state: running }\n")),
        ("a newline in a value", app("containers:\n  c: { image: \"a:1\\nPrivileged=true\" }\n")),
        ("a critical unit", "cp apps/web/web.service apps/web/dbus.service".into()),
        ("a critical file", "mkdir -p apps/web/files/etc; echo x >apps/web/files/etc/shadow".into()),
        ("the agent itself", "mkdir -p apps/web/files/usr/bin; echo x >apps/web/files/usr/bin/mainstay".into()),
        ("a file in /proc", "mkdir -p apps/web/files/proc/sys/kernel; echo '|/bin/sh' >apps/web/files/proc/sys/kernel/core_pattern".into()),
        ("escapes in a name", "touch \"apps/web/$(printf 'x\\033[2Jy\\nz').service\"".into()),
        ("a name that is no UTF-8", "touch \"apps/web/$(printf '\\377').service\"".into()),
        ("no application at all", "rm -rf apps".into()),
        ("nothing at all", "rm -rf apps fleet.yaml".into()),
    ];
    let mut highest = 0;
    for (what, how) in cases {
        agent::write_folder(&host, "/root/evil", &[("fleet.yaml", FLEET), ("apps/web/web.service", UNIT)]);
        host.sh(&format!("cd /root/evil; {how}")).unwrap();
        for command in ["check /root/evil", "once --dir /root/evil"] {
            let began = Instant::now();
            let (code, said, peak) = measured(&host, &format!("mainstay {command}"));
            let story = format!("{what}, {command}: {code} after {:?} with {peak} KiB\n{said}", began.elapsed());
            assert!(code == 3 || code == 1 || (code == 4 && what == "no application at all"), "{story}");
            assert!(peak < MOST && began.elapsed() < Duration::from_secs(10), "{story}");
            assert!(!said.contains('\u{1b}') && !said.contains("panicked") && !said.is_empty(), "{story}");
            assert_eq!(state(&host), before, "{story}");
            highest = highest.max(peak);
        }
    }
    eprintln!("{highest} KiB at most");
}

/// Writes a commit on a bare repository whose tree holds an entry that no ordinary git would write.
const EVIL: &str = r#"
cd /srv/fleet.git
blob=$(printf 'evil' | git hash-object -w --stdin)
good=$(git rev-parse main:apps) fleet=$(git rev-parse main:fleet.yaml)
raw() { printf "$1 $2\0"; printf "$(printf %s "$3" | sed 's/../\\x&/g')"; }
commit() { git -c core.hooksPath=/dev/null update-ref refs/heads/main $(git commit-tree -p main -m "$2" $1); }
"#;

#[test]
fn a_hostile_commit_is_refused_by_the_daemon_which_stays_at_the_last_good_one() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    agent::write_folder(&host, "/root/fine", &[("fleet.yaml", FLEET), ("apps/web/web.service", UNIT)]);
    host.sh("git init -q --bare -b main /srv/fleet.git; git config --global user.name a; git config --global user.email a@b; \
             cd /root/fine; export GIT_DIR=/srv/fleet.git GIT_WORK_TREE=.; git -c core.bare=false add -A; git -c core.bare=false commit -qm good; unset GIT_DIR GIT_WORK_TREE; \
             cd /srv/fleet.git; for hook in post-receive pre-receive update post-checkout post-merge reference-transaction; do \
             printf '#!/bin/sh\\ntouch /run/owned\\n' >hooks/$hook; chmod +x hooks/$hook; done").unwrap();
    host.write("/etc/mainstay/agent.yaml", "repository: file:///srv/fleet.git\nallow-file: true\npoll: 200ms\nobserve: 500ms\nsettle: 100ms\nreport: { push: false }\n").unwrap();
    product::bring_units(&host).unwrap();
    host.sh("systemctl start mainstay; rm -f /run/owned").unwrap();
    host.wait_for(Duration::from_secs(20), "systemctl is-active web").unwrap();
    let web = agent::invocation(&host, "web");
    let tip = |host: &Host| host.sh("git -C /srv/fleet.git rev-parse --short=7 main").unwrap().trim().to_owned();

    let cases = [
        (
            "a name with dots",
            r#"tree=$( { raw 40000 .. $good; raw 40000 apps $good; raw 100644 fleet.yaml $fleet; } | git hash-object -w -t tree --literally --stdin)"#,
        ),
        (
            "a name with a slash",
            r#"tree=$( { raw 40000 apps $good; raw 100644 ../../etc/evil $blob; raw 100644 fleet.yaml $fleet; } | git hash-object -w -t tree --literally --stdin)"#,
        ),
        (
            "a .git folder",
            r#"tree=$( { raw 40000 .git $good; raw 40000 apps $good; raw 100644 fleet.yaml $fleet; } | git hash-object -w -t tree --literally --stdin)"#,
        ),
        (
            "a submodule in an application",
            r#"web=$( { git ls-tree main:apps/web; printf '160000 commit %s\tsub\n' $(git rev-parse main); } | git mktree --missing); apps=$(printf '040000 tree %s\tweb\n' $web | git mktree); tree=$( { printf '040000 tree %s\tapps\n' $apps; printf '100644 blob %s\tfleet.yaml\n' $fleet; } | git mktree)"#,
        ),
        (
            "a link instead of fleet.yaml",
            r#"link=$(printf '/etc/passwd' | git hash-object -w --stdin); tree=$( { printf '040000 tree %s\tapps\n' $good; printf '120000 blob %s\tfleet.yaml\n' $link; } | git mktree)"#,
        ),
        ("an empty tree", "tree=$(git mktree </dev/null)"),
        (
            "a huge blob",
            r#"huge=$(head -c 40M /dev/zero | git hash-object -w --stdin); web=$( { git ls-tree main:apps/web; printf '100644 blob %s\thuge.service\n' $huge; } | git mktree); apps=$(printf '040000 tree %s\tweb\n' $web | git mktree); tree=$( { printf '040000 tree %s\tapps\n' $apps; printf '100644 blob %s\tfleet.yaml\n' $fleet; } | git mktree)"#,
        ),
    ];
    let mut good = tip(&host);
    for (what, how) in cases {
        host.sh(&format!("{EVIL}\n{how}\ncommit $tree \"$(printf 'evil \\033[2J\\033]0;x\\007')\"")).unwrap();
        let evil = tip(&host);
        assert_ne!(evil, good, "{what}");
        let refused = format!(
            "journalctl -u mainstay --no-pager -o cat | grep -a {evil} || systemctl status mainstay --no-pager | grep {evil}; mainstay status | cat"
        );
        let poll = host.wait_for(Duration::from_secs(20), &format!("mainstay status 2>&1 | grep -q {evil} || journalctl -u mainstay -o cat | grep -aq 'refused\\|could not be asked'"));
        let said = host.sh(&refused).unwrap_or_default();
        assert!(poll.is_ok() && !said.contains('\u{1b}'), "{what}: {poll:?}\n{said}");
        assert_eq!(host.sh("systemctl is-active mainstay web").unwrap(), "active\nactive\n", "{what}");
        assert_eq!(agent::invocation(&host, "web"), web, "{what}");
        assert_eq!(host.sh("ls /run/owned /etc/evil 2>/dev/null || true").unwrap(), "", "{what}: nothing is executed");
        host.sh("cd /srv/fleet.git; git -c core.hooksPath=/dev/null update-ref refs/heads/main $(git commit-tree -p main -m good $(git rev-parse main~1^{tree}))").unwrap();
        good = tip(&host);
        host.wait_for(Duration::from_secs(20), &format!("grep -q {good} /var/lib/mainstay/ledger.json")).unwrap();
    }
    let peak: u64 =
        host.sh("grep VmHWM /proc/$(systemctl show -P MainPID mainstay)/status | tr -dc 0-9").unwrap().parse().unwrap();
    eprintln!("the daemon took {peak} KiB at most");
    assert!(peak < 256 << 10, "{peak} KiB");
}
