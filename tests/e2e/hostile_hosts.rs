//! The host itself is odd or works against the agent: links and pipes where files should be, a user who swaps folders, a
//! clock that jumps, services that take their time while somebody wants the agent to end.

use std::time::{Duration, Instant};

use lab::{Host, product};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

fn boot(lab: &lab::Lab) -> Host {
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 100ms\nobserve: 300ms\n").unwrap();
    // Whoever comes first has the bus started, which is not what these tests are about.
    host.wait_for(agent::SOON, "busctl --timeout=30 status org.freedesktop.systemd1 >/dev/null").unwrap();
    host
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    let Some(lab) = start() else { return };
    let host = boot(&lab);
    host.sh(
        "mkdir -p /srv/real /srv/pipe /srv/socket /srv/device /srv/long /srv/big /srv/dir/file; ln -s real /srv/link; \
         mkfifo /srv/pipe/file; mknod /srv/device/file c 1 3; truncate -s 1G /srv/long/file; truncate -s 100G /srv/big/file; \
         systemd-socket-activate -l /srv/socket/file true >/dev/null 2>&1 & until test -S /srv/socket/file; do :; done; kill %1",
    )
    .unwrap();
    let places = ["link", "pipe", "socket", "device", "long", "big", "dir"];
    let files: Vec<String> = places.iter().map(|place| format!("apps/{place}/files/srv/{place}/file")).collect();
    let mut folder = vec![("fleet.yaml", FLEET), ("apps/web/web.service", UNIT)];
    folder.extend(files.iter().map(|path| (path.as_str(), "ours\n")));
    agent::write_folder(&host, "/root/fleet", &folder);
    let before = host.sh("ls -lRA --time-style=full-iso /srv").unwrap();
    let began = Instant::now();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && began.elapsed() < Duration::from_secs(60), "{:?} {said}", began.elapsed());
    for place in places {
        assert!(said.contains(&format!("conflict in {place}: file /srv/{place}/file")), "{place}: {said}");
    }
    assert!(said.contains("/srv/link is a symbolic link"), "{said}");
    assert_eq!(host.sh("ls -lRA --time-style=full-iso /srv").unwrap(), before);
    let web = host.try_sh("systemctl is-active web").unwrap();
    assert!(web.status.success(), "the others go on, but web does not: {said}\n{}", agent::log(&host));

    host.sh("rm -rf /srv/*").unwrap();
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.sh("cat /srv/*/file | sort | uniq -c").unwrap().trim(), "7 ours");
    // One of ours is replaced by something huge and sparse: reading it would take long, and it is not ours any more.
    host.sh("truncate -s 100G /srv/big/file").unwrap();
    let began = Instant::now();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("more than the") && began.elapsed() < Duration::from_secs(60), "{said}");
}

/// How often a folder is swapped for a link while the agent writes below it.
const SWAPS: u64 = 1_000_000;

#[test]
fn a_user_who_swaps_a_folder_for_a_link_gains_nothing() {
    let Some(lab) = start() else { return };
    let host = boot(&lab);
    host.sh("useradd -m eve; install -d -o eve /srv/eve /srv/eve/web; ln -s /etc/secret /srv/eve/other; install -d -m 755 /etc/secret; echo theirs >/etc/secret/conf").unwrap();
    // renameat2(2) with RENAME_EXCHANGE, by its number: perl has no name for it. How often is told now and then.
    let swap = r#"($web, $other) = ("/srv/eve/web", "/srv/eve/other"); $times = 0; $renameat2 = `uname -m` =~ /aarch64/ ? 276 : 316; while (1) {
        for (1 .. 10000) { syscall($renameat2, -100, $web, -100, $other, 2) == 0 or die "$!" }
        open(F, '>', '/tmp/swaps') and print F ++$times * 10000; close(F) }"#;
    let attack = host.spawn(&["setpriv", "--reuid=eve", "--clear-groups", "perl", "-e", swap]).unwrap();
    let swaps = || host.sh("cat /tmp/swaps 2>/dev/null || echo 0").unwrap().trim().parse::<u64>().unwrap_or(0);
    let before = host.sh("ls -lRA --time-style=full-iso /etc/secret").unwrap();
    let (mut done, mut round, began) = (0, 0, Instant::now());
    while round < 40 || (swaps() < SWAPS && began.elapsed() < Duration::from_secs(120)) {
        round += 1;
        let text = format!("round {round}\n");
        agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/web/files/srv/eve/web/conf", &text)]);
        let (code, said) = agent::once(&host, "/root/fleet");
        assert!(code == 0 || code == 4, "{said}");
        done += usize::from(code == 0);
    }
    let swaps = swaps();
    attack.end().unwrap();
    eprintln!("{done} of {round} passes met a folder; it was swapped {swaps} times in {:?}", began.elapsed());
    assert!(swaps >= SWAPS && done > 0, "{swaps} swaps, {done} of {round} passes met a folder");
    assert_eq!(host.sh("ls -lRA --time-style=full-iso /etc/secret").unwrap(), before);
    assert_eq!(host.read("/etc/secret/conf").unwrap(), "theirs\n");
}

#[test]
fn a_stop_is_not_kept_waiting_by_a_slow_start() {
    let Some(lab) = start() else { return };
    let host = boot(&lab);
    let slow = "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=600\nExecStart=/bin/sh -c 'echo started >>/run/starts; until test -e /run/go; do sleep 0.1; done; systemd-notify --ready; exec sleep infinity'\n\n[Install]\nWantedBy=multi-user.target\n";
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/slow/slow.service", slow)]);
    let running = host.spawn(&["mainstay", "once", "--dir", "/root/fleet"]).unwrap();
    host.wait_for(Duration::from_secs(20), "test -e /run/starts").unwrap();
    let began = Instant::now();
    host.sh("pkill -TERM -x mainstay").unwrap();
    let ended = host.wait_for(Duration::from_secs(15), "! pgrep -x mainstay");
    eprintln!("it ended after {:?}", began.elapsed());
    drop(running);
    ended.unwrap();
    host.sh("touch /run/go").unwrap();
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.read("/run/starts").unwrap(), "started\n", "the start that was under way is joined");
}

#[test]
fn the_watchdog_is_answered_through_slow_starts() {
    let Some(lab) = start() else { return };
    let host = boot(&lab);
    let slow = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/sleep 8\n\n[Install]\nWantedBy=multi-user.target\n";
    agent::write_folder(&host, "/root/fleet", &[("fleet.yaml", FLEET), ("apps/slow/slow.service", slow)]);
    host.sh("git init -q --bare -b main /srv/fleet.git; cd /root/fleet; export GIT_DIR=/srv/fleet.git GIT_WORK_TREE=.; git -c core.bare=false add -A; git -c core.bare=false -c user.name=a -c user.email=a@b commit -qm good").unwrap();
    host.write("/etc/mainstay/agent.yaml", "repository: file:///srv/fleet.git\nallow-file: true\npoll: 200ms\nobserve: 500ms\nsettle: 100ms\nreport: { push: false }\n").unwrap();
    product::bring_units(&host).unwrap();
    host.write("/etc/systemd/system/mainstay.service.d/test.conf", "[Service]\nWatchdogSec=2s\n").unwrap();
    host.sh("systemctl daemon-reload; systemctl start mainstay").unwrap();
    let first = agent::invocation(&host, "mainstay");
    host.wait_for(Duration::from_secs(30), "systemctl is-active slow").unwrap();
    assert_eq!(agent::invocation(&host, "mainstay"), first);
    // Killed as a service, it is back by itself and finds nothing to do.
    let slow = agent::invocation(&host, "slow");
    host.sh("systemctl kill -s KILL mainstay").unwrap();
    host.wait_for(
        Duration::from_secs(30),
        &format!("systemctl is-active mainstay && test $(systemctl show -P InvocationID mainstay) != {first}"),
    )
    .unwrap();
    assert_eq!(agent::invocation(&host, "slow"), slow);
}
