//! The mistakes that a host makes, out of the collection in `tests/messages/`: each is made on one, and what is said
//! is compared. `UPDATE_EXPECT=1 cargo lab test -- messages` writes it down; then it is read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lab::Host;

use crate::{agent, start};

/// What stands in for a fleet.yaml where the mistake lies elsewhere.
const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";

/// What stands for the lines that a service or systemd wrote.
const JOURNAL: &str = "  | (what the journal says)\n";
/// Nobody waits for what is wrong anyway.
const SETTINGS: &str = "settle: 1s\njob: 10s\n";

#[test]
fn mistakes_of_the_host_are_told_with_what_to_do() {
    let Some(lab) = start() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("messages/host");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let hosts = [lab.boot("attic").unwrap(), lab.boot("barn").unwrap()];
    // Each host takes the next mistake that nobody makes yet; none leaves anything behind.
    let next = AtomicUsize::new(0);
    let make = |host: &Host| -> Vec<(usize, String)> {
        agent::install(host);
        host.write("/etc/mainstay/agent.yaml", SETTINGS).unwrap();
        let mut told = Vec::new();
        while let Some((number, path)) = paths.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            told.push((number, told_on(host, &fs::read_to_string(path).unwrap())));
            eprintln!("{}: {:.1?}", path.file_name().unwrap().display(), began.elapsed());
        }
        told
    };
    let told = std::thread::scope(|scope| {
        let threads = hosts.each_ref().map(|host| scope.spawn(move || make(host)));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<BTreeMap<usize, String>>()
    });
    for (path, told) in paths.iter().zip(told.values()) {
        expect_test::expect_file![path.to_str().unwrap()].assert_eq(told);
    }
}

/// Makes one mistake on a host, and returns it with what is said to it.
fn told_on(host: &Host, text: &str) -> String {
    let given: String = text.split_inclusive('\n').take_while(|line| !line.starts_with("== ")).collect();
    let sections = sections(&given);
    let find = |header: &str| sections.iter().find(|(found, _)| *found == header).map(|(_, text)| text.as_str());
    let mut files: Vec<(&str, &str)> = sections.iter().map(|(path, text)| (*path, text.as_str())).collect();
    files.retain(|(path, _)| path.contains(['/', '.']));
    if find("fleet.yaml").is_none() {
        files.push(("fleet.yaml", FLEET));
    }
    agent::write_folder(host, "/srv/fleet", &files);
    host.sh(find("before").unwrap_or_default()).unwrap();
    let command = "cd / && mainstay --host attic once --dir /srv/fleet 2>&1";
    let said = match find("as") {
        Some(user) => host.try_sh(&format!("su -s /bin/sh -c '{command}' {}", user.trim())).unwrap(),
        None => host.try_sh(command).unwrap(),
    };
    host.sh(find("after").unwrap_or_default()).unwrap();
    // The next one begins with a host on which nothing is wanted.
    host.sh(CLEAN).unwrap();
    let mut all = format!("{given}== mainstay once ==\n");
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        match line.starts_with("  | ") {
            // A process that ends at once may be gone before the journal knows whose words these are.
            true if all.ends_with(JOURNAL) => {}
            true => all.push_str(JOURNAL),
            false => writeln!(all, "{}", steady(line.trim_end())).unwrap(),
        }
    }
    all
}

/// Takes everything back, as far as a case got.
const CLEAN: &str = "systemctl stop 'web.*' 'ssh-web.*' 2>/dev/null || true
    rm -rf /var/lib/mainstay /srv/fleet /srv/web /run/podman/podman.sock /etc/web.conf /etc/containers/systemd/db.container
    rm -f /usr/local/bin/web /etc/systemd/system/web.* /etc/systemd/system/ssh-web.* /etc/systemd/system/*.wants/*web.*
    systemctl daemon-reload; systemctl reset-failed";

/// Splits a case into its parts.
fn sections(given: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in given.split_inclusive('\n') {
        match line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
            Some(header) => found.push((header, String::new())),
            None => found.last_mut().into_iter().for_each(|(_, text)| text.push_str(line)),
        }
    }
    found
}

/// Replaces what differs from one run to the next: containers are known by numbers.
fn steady(line: &str) -> String {
    let is_container = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let word = |word: &str| match is_container(word.trim_end_matches(':')) {
        true => format!("CONTAINER{}", &word[12..]),
        false => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
