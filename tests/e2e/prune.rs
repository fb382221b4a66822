//! Removals: all of what is ours and unwanted, none of what is not, and never many at once without a person's word.

use std::fmt::Write as _;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const FOLDER: &str = "/root/fleet";

#[test]
fn an_application_that_goes_takes_what_it_brought() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    host.start_docker().unwrap();
    agent::install(&host);
    let boxes = format!("containers: {{ box1: {{ image: \"{}\", volumes: [\"data:/data\"] }} }}\n", image.reference);
    let mut pages = Vec::new();
    for number in 0..12 {
        pages.push(format!("apps/site/files/srv/site/{number}"));
    }
    let mut all = vec![("fleet.yaml", FLEET), ("apps/keeps/keeps.service", STAYS)];
    all.extend(pages.iter().map(|path| (path.as_str(), "page\n")));
    let gone = [
        ("apps/goes/goes.service", STAYS),
        ("apps/goes/files/srv/goes/deep/empty/file", "1\n"),
        ("apps/boxes/app.yaml", &boxes),
        ("apps/moves/files/etc/moves.conf", "moves\n"),
        ("apps/moves/moves.service", STAYS),
    ];
    agent::write_folder(&host, FOLDER, &[&all[..], &gone[..]].concat());
    agent::converge(&host, FOLDER);
    // A volume holds what no commit can bring back; a file of somebody else holds its directory.
    host.sh("docker volume inspect data >/dev/null; touch /srv/goes/deep/theirs").unwrap();
    let (keeps, moves) = (agent::invocation(&host, "keeps"), agent::invocation(&host, "moves"));
    let inode = host.sh("stat -c '%i %Y' /etc/moves.conf /etc/systemd/system/moves.service").unwrap();

    // Half of it goes, the other half changes hands.
    let moved = [("apps/heir/files/etc/moves.conf", "moves\n"), ("apps/heir/moves.service", STAYS)];
    agent::write_folder(&host, FOLDER, &[&all[..], &moved[..], &gone[2..3]].concat());
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    assert!(!steps.iter().any(|step| step.contains("moves")), "{steps:?}");
    agent::converge(&host, FOLDER);
    host.sh(
        "test ! -e /etc/systemd/system/goes.service; test ! -e /srv/goes/deep/empty; test -e /srv/goes/deep/theirs",
    )
    .unwrap();
    assert_eq!(
        host.sh("systemctl show -P LoadState -P ActiveState goes; find /etc/systemd -name 'goes*'").unwrap(),
        "not-found\ninactive\n"
    );
    assert_eq!(host.sh("stat -c '%i %Y' /etc/moves.conf /etc/systemd/system/moves.service").unwrap(), inode);
    assert_eq!(agent::invocation(&host, "moves"), moves);

    // The engine is away: its container stays, and what systemd has goes on.
    host.sh("systemctl stop docker.socket docker.service").unwrap();
    agent::write_folder(&host, FOLDER, &[&all[..], &moved[..]].concat());
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("left alone: ") && said.contains("  container box1 (boxes)"), "{said}");
    host.start_docker().unwrap();
    assert_eq!(host.sh("docker ps -a --format '{{.Names}}'").unwrap(), "box1\n");
    agent::converge(&host, FOLDER);
    assert_eq!(host.sh("docker ps -aq; docker volume ls -q").unwrap(), "data\n");

    // The bus is away: units and their texts stay, files go.
    agent::write_folder(&host, FOLDER, &all);
    host.sh("systemctl stop dbus.socket dbus.service").unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    host.sh("systemctl start dbus.socket dbus.service").unwrap();
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("left alone: ") && said.contains("  file /etc/systemd/system/moves.service (heir)"),
        "{said}"
    );
    assert_eq!(agent::invocation(&host, "moves"), moves);
    host.sh("test -e /etc/systemd/system/moves.service; test ! -e /etc/moves.conf; systemctl is-active moves").unwrap();
    agent::converge(&host, FOLDER);
    host.sh("test ! -e /etc/systemd/system/moves.service; ! systemctl is-active moves").unwrap();
    assert_eq!(agent::invocation(&host, "keeps"), keeps);
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
}

#[test]
fn many_removals_at_once_wait_for_a_word() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    let all: Vec<String> = (0..10).map(|number| format!("apps/app{number}/files/srv/file{number}")).collect();
    let folder = |fleet: &str, kept: &[String]| {
        let mut files = vec![("fleet.yaml", fleet)];
        files.extend(kept.iter().map(|path| (path.as_str(), "x\n")));
        agent::write_folder(&host, FOLDER, &files);
    };
    let count = || host.sh("ls /srv | wc -l").unwrap().trim().to_owned();
    folder(FLEET, &all);
    agent::converge(&host, FOLDER);

    // Four of ten: held, while everything else is done.
    let mut some = all[..6].to_vec();
    some.push("apps/new/files/srv/new".to_owned());
    folder(FLEET, &some);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!((code, count()), (4, "11".to_owned()), "{said}");
    let plan = agent::plan(&host, FOLDER);
    let key = plan["held"]["acknowledge"].as_str().unwrap();
    for words in ["held: 4 of ", "/srv/file6", "/srv/file9", key] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Another key, or the key of other removals, is none.
    let acknowledge = |key: &str| format!("{FLEET}acknowledge:\n  - {{ prune: \"{key}\", reason: \"moved away\" }}\n");
    folder(&acknowledge("0123456789ab"), &some);
    assert_eq!((agent::once(&host, FOLDER).0, count()), (4, "11".to_owned()));
    folder(&acknowledge(key), &some[..5]);
    assert_eq!((agent::once(&host, FOLDER).0, count()), (4, "11".to_owned()));
    folder(&acknowledge(key), &some);
    let said = agent::converge(&host, FOLDER);
    assert_eq!(count(), "7", "{said}");

    // Three are free; the last one is not, since then nothing would be left.
    folder(FLEET, &some[..4]);
    agent::converge(&host, FOLDER);
    assert_eq!(count(), "4");
    folder(FLEET, &some[..1]);
    agent::converge(&host, FOLDER);
    assert_eq!(count(), "1");
    let elsewhere = "fleet: home\nhosts:\n  attic: {}\n  barn: {}\n";
    let mut files = vec![("fleet.yaml", elsewhere), ("apps/app0/app.yaml", "place: { host: barn }\n")];
    files.push((some[0].as_str(), "x\n"));
    agent::write_folder(&host, FOLDER, &files);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!((code, count()), (4, "1".to_owned()), "{said}");
    assert!(said.contains("held: 1 of "), "{said}");

    // A folder without applications, or none at all, is a mistake and never "nothing is wanted".
    for files in [vec![("fleet.yaml", FLEET)], vec![("README.md", "empty\n")]] {
        agent::write_folder(&host, FOLDER, &files);
        let (code, said) = agent::once(&host, FOLDER);
        assert!(code != 0, "{said}");
        assert_eq!(count(), "1", "{said}");
    }
    let mut missing = String::new();
    write!(missing, "rm -r {FOLDER}").unwrap();
    host.sh(&missing).unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!((code, count()), (1, "1".to_owned()), "{said}");
}
