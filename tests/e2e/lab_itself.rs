//! The lab holds what it promises: hosts boot and reach each other, take every kind of outage, and leave nothing behind.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::Host;

use crate::start;

fn reaches(from: &Host, to: &Host) -> bool {
    from.try_sh(&format!("ping -c 1 -W 1 {}", to.name())).unwrap().status.success()
}

#[test]
fn two_hosts_boot_and_reach_each_other() {
    let Some(lab) = start() else { return };
    let began = Instant::now();
    let hosts = lab.boot_all(&["attic", "barn"]).unwrap();
    eprintln!("two hosts booted in {:?}", began.elapsed());
    let [attic, barn] = &hosts[..] else { panic!("two were asked for") };
    assert_eq!(attic.sh("systemctl is-system-running").unwrap(), "running\n");
    assert_eq!(attic.sh("hostname").unwrap(), "attic\n");
    assert_ne!(attic.read("/etc/machine-id").unwrap(), barn.read("/etc/machine-id").unwrap());
    assert!(reaches(attic, barn) && reaches(barn, attic));

    barn.cut().unwrap();
    assert!(!reaches(attic, barn));
    barn.rejoin().unwrap();
    assert!(reaches(attic, barn));

    barn.freeze().unwrap();
    assert!(barn.is_running());
    barn.thaw().unwrap();
    assert_eq!(barn.sh("systemctl is-system-running").unwrap(), "running\n");
}

#[test]
fn the_disk_outlives_a_power_cut_and_a_reboot_but_not_a_reset() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    host.sh("echo kept > /srv/kept; echo gone > /run/gone").unwrap();
    let boot_id = || host.sh("cat /proc/1/stat").unwrap();

    let first = boot_id();
    host.kill().unwrap();
    assert!(!host.is_running());
    assert_eq!(host.read("/srv/kept").unwrap(), "kept\n", "the disk can be read while the host is off");
    host.write("/srv/while-off", "written").unwrap();
    host.start().unwrap();
    assert_ne!(boot_id(), first);
    assert_eq!(host.sh("cat /srv/kept /srv/while-off; test ! -e /run/gone").unwrap(), "kept\nwritten");

    host.reboot().unwrap();
    assert_eq!(host.sh("cat /srv/kept").unwrap(), "kept\n");
    host.poweroff().unwrap();
    host.start().unwrap();
    host.reset().unwrap();
    host.sh("test ! -e /srv/kept").unwrap();
}

#[test]
fn programs_and_files_of_a_host() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();

    let error = format!("{:#}", host.sh("echo one; echo two >&2; false; echo three").unwrap_err());
    assert!(error.contains("one\ntwo\n") && !error.contains("\nthree"), "{error}");
    assert_eq!(host.run(&["sh", "-c", "exit 7"]).unwrap().status.code(), Some(7));
    assert_eq!(host.sh("env | cut -d= -f1 | sort | grep -v -e _ -e SHLVL -e PWD").unwrap(), "HOME\nLANG\nPATH\n");

    host.write("/run/deep/down/file", "seen").unwrap();
    assert_eq!(host.sh("cat /run/deep/down/file").unwrap(), "seen");
    host.sh("ln -s /etc/hostname /run/link").unwrap();
    assert_eq!(host.read("/run/link").unwrap(), "attic\n", "a link leads to the host's file, not to the machine's");

    host.sh("printf '[Service]\\nExecStart=sleep 1h\\n' > /etc/systemd/system/nap.service").unwrap();
    host.sh("systemctl daemon-reload; systemctl start nap").unwrap();
    host.wait_for(Duration::from_secs(5), "systemctl is-active nap").unwrap();
    let error = format!("{:#}", host.wait_for(Duration::from_millis(50), "echo not yet; false").unwrap_err());
    assert!(error.contains("not yet"), "{error}");

    let mut echo = host.spawn(&["sh", "-c", "echo started; sleep 1h"]).unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(echo.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "started\n");
    echo.end().unwrap();
    host.wait_for(Duration::from_secs(5), "test $(pgrep -fc 'sleep 1[h]') = 1").unwrap();

    let began = Instant::now();
    for _ in 0..100 {
        host.run(&["true"]).unwrap();
    }
    let each = began.elapsed() / 100;
    eprintln!("entering a host takes {each:?}");
}

#[test]
fn a_service_that_fails_at_boot_is_named() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    let unit = "[Service]\nExecStart=false\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n";
    host.write("/etc/systemd/system/broken.service", unit).unwrap();
    host.sh("systemctl enable broken").unwrap();
    host.reboot().unwrap();
    assert_eq!(host.failed_units().unwrap(), ["broken.service"]);
}

#[test]
fn a_host_that_does_not_boot_shows_its_console() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    host.poweroff().unwrap();
    let init = host.path_on_machine("/usr/lib/systemd/systemd");
    std::fs::write(&init, "#!/bin/sh\necho the last words\n").unwrap();
    let error = format!("{:#}", host.start().unwrap_err());
    assert!(error.contains("did not boot") && error.contains("the last words"), "{error}");
}

#[test]
fn outages_combine() {
    let Some(lab) = start() else { return };
    let [attic, barn] = &lab.boot_all(&["attic", "barn"]).unwrap()[..] else { panic!("two were asked for") };
    barn.freeze().unwrap();
    let began = Instant::now();
    barn.kill().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "a frozen host takes {:?} to kill", began.elapsed());
    barn.cut().unwrap();
    barn.start().unwrap();
    assert!(!reaches(attic, barn), "the cable is still out");
    barn.rejoin().unwrap();
    assert!(reaches(attic, barn));
}

#[test]
fn a_killed_owner_leaves_nothing_behind() {
    let Some(_) = start() else { return };
    let mut owner = up();
    let id = format!("mainstay-lab-{}-0", owner.id());
    let mut enter = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
    let said = enter.args(["sh", &format!("{id}/attic"), "hostname"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "attic\n");

    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = lab::poll(Duration::from_secs(20), || Ok(traces(&id).is_empty().then_some(()))).unwrap();
    assert!(gone.is_some(), "left behind: {:?}", traces(&id));
}

#[test]
fn clean_removes_what_a_killed_keeper_left() {
    let Some(_) = start() else { return };
    let mut owner = up();
    let id = format!("mainstay-lab-{}-0", owner.id());
    let keeper = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", owner.id())).unwrap();
    // The owner has two children: the keeper of the lab and what launched the host. Neither gets to clean up.
    for child in keeper.split_whitespace() {
        std::process::Command::new("kill").args(["-9", child]).status().unwrap();
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!traces(&id).is_empty(), "with its keeper gone, a lab leaves traces");
    std::process::Command::new(env!("CARGO_BIN_EXE_lab")).arg("clean").status().unwrap();
    assert_eq!(traces(&id), Vec::<String>::new());
}

/// `lab up attic`, running.
fn up() -> std::process::Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
    let mut owner = command.args(["up", "attic"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let said = std::io::BufReader::new(owner.stdout.take().unwrap());
    assert!(std::io::BufRead::lines(said).any(|line| line.unwrap().contains("Ctrl-C")), "it should come up");
    owner
}

#[test]
fn nothing_is_left_behind() {
    let Some(lab) = start() else { return };
    let id = lab.id().to_owned();
    let hosts = lab.boot_all(&["attic", "barn"]).unwrap();
    let leaders: Vec<_> = hosts.iter().map(|host| host.leader_pid().unwrap()).collect();
    let network = std::fs::read_link(format!("/proc/{}/ns/net", leaders[0])).unwrap();
    // Held open: the number of a namespace that is gone is given to the next one, which may be that of another test.
    let held = std::fs::File::open(format!("/proc/{}/ns/net", leaders[0])).unwrap();
    assert!(traces(&id).iter().any(|trace| trace.starts_with("/sys")), "a cgroup should show up while it runs");
    assert_eq!(mounts(), Vec::<String>::new(), "no mount is seen outside of the lab, not even while it runs");
    // A panicking test drops its hosts in any order; the lab goes with the last one.
    drop(lab);
    drop(hosts);
    assert_eq!(traces(&id), Vec::<String>::new());
    assert!(leaders.iter().all(|leader| !Path::new("/proc").join(leader.to_string()).exists()));
    let in_it = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other == network);
    assert!(!list("/proc").iter().any(|path| in_it(path.rsplit('/').next().unwrap())));
    drop(held);
}

/// Folders of a lab: its cgroups and its entry in the register.
fn traces(id: &str) -> Vec<String> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/run/mainstay-lab"];
    roots.iter().flat_map(|root| list(root)).filter(|path| path.ends_with(id)).collect()
}

/// What of a lab is mounted in the machine's main namespace; other programs mount what they like meanwhile.
fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    text.lines().filter(|line| line.contains("/run/lab")).map(str::to_owned).collect()
}

fn list(folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}
