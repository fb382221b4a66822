//! Listening to other hosts, whatever stands where they speak.

use std::collections::BTreeSet;

use super::*;

/// Asks for the branch and for other hosts.
fn look(mirror: &mut Mirror, remote: &Remote, whom: &Peers) -> Heard {
    mirror.fetch_with(remote, Some(whom), &quick(), &NO).expect("fetched").1
}

#[test]
fn who_looks_at_others_is_told_what_they_said_last_in_the_same_conversation() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let (attic, barn) = (host("attic"), host("barn"));
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &daemon.remote()).tip;
    let mut push = |name: &HostName, note: Option<&str>, second: i64, is_due: bool| {
        let new = note.map(|note| mirror.write_note(name, &first, note, at(second)).expect("written"));
        let seen = Some(Seen { at: at(second), believed: &first, is_due, voice: None });
        let pushed = mirror.publish(&daemon.remote(), name, seen, &quick(), &NO).expect("pushed");
        (new, pushed)
    };
    assert_eq!(push(&attic, Some("applying\n{}\n"), 1, false), (Some(true), Pushed::Done));
    assert_eq!(push(&attic, None, 2, false), (None, Pushed::Nothing));
    assert_eq!(push(&attic, Some("converged\n{}\n"), 3, false), (Some(true), Pushed::Done));
    assert_eq!(push(&barn, None, 3, true), (None, Pushed::Done));

    let mut other = Mirror::open(&fixture.path().join("state/other")).expect("a mirror");
    let both = Peers::Some(BTreeSet::from([attic.clone(), barn.clone(), host("away")]));
    assert_eq!(look(&mut other, &daemon.remote(), &both), Heard::News);
    assert_eq!(other.tip(), Some(first.clone()));
    assert_eq!(other.record_heard(&attic).as_deref(), Some("converged\n{}\n"));
    assert_eq!(other.record_heard(&barn), None, "it has nothing to say but that it is there");
    let before = other.heard(&both);
    assert_eq!(before.keys().collect::<Vec<_>>(), [&attic, &barn]);
    assert_eq!(look(&mut other, &daemon.remote(), &both), Heard::Same);
    assert_eq!(look(&mut other, &daemon.remote(), &Peers::Some(BTreeSet::from([host("away")]))), Heard::Same);
    // A sign of life alone is another one, with the same record.
    assert_eq!(push(&attic, None, 4, true), (None, Pushed::Done));
    assert_eq!(push(&barn, None, 4, true), (None, Pushed::Done));
    assert_eq!(look(&mut other, &daemon.remote(), &Peers::Some(BTreeSet::from([attic.clone()]))), Heard::News);
    let after = other.heard(&Peers::All);
    assert_ne!(after[&attic], before[&attic]);
    assert_eq!(after[&barn], before[&barn], "nobody asked for it");
    assert_eq!(other.record_heard(&attic).as_deref(), Some("converged\n{}\n"));
    // The branch comes along, and everybody.
    let second = fixture.commit("second", &[("a", "1")]);
    assert_eq!(look(&mut other, &daemon.remote(), &Peers::All), Heard::News);
    assert_eq!((other.tip(), other.heard(&Peers::All) != after), (Some(second), true));
    assert_eq!(other.fetch_peers(&daemon.remote(), &Peers::All, &quick(), &NO).expect("fetched"), Heard::Same);
    // One object for each sign, and no history of anything but the branch.
    let kinds =
        git(&fixture.path().join("state/other"), &["cat-file", "--batch-check=%(objecttype)", "--batch-all-objects"]);
    assert_eq!(kinds.lines().filter(|kind| *kind == "commit").count(), 2 + 4, "{kinds}");
}

/// What a host says, with something above it: a tree, or parents.
fn sign(above: &str, said: &str) -> Vec<u8> {
    format!("{above}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\n{said}").into_bytes()
}

/// Puts something where a host speaks, which git itself would not in every case.
fn puts(fixture: &Fixture, host: &str, id: &str) {
    let folder = fixture.served().join("refs/mainstay/seen");
    fs::create_dir_all(&folder).expect("created");
    fs::write(folder.join(host), format!("{id}\n")).expect("written");
}

/// Which hosts are heard, by their names.
fn heard(mirror: &Mirror) -> Vec<String> {
    mirror.heard(&Peers::All).keys().map(ToString::to_string).collect()
}

#[test]
fn what_is_no_sign_of_life_is_left_out_and_those_beside_it_are_heard() {
    let fixture = Fixture::new();
    let tip = fixture.main();
    let nothing = format!("tree {}", written(&fixture, "tree", b""));
    let good = written(&fixture, "commit", &sign(&nothing, "seen\n\nfine\n"));
    let blob = written(&fixture, "blob", b"x");
    let entry = [b"100644 a\0".as_slice(), &hex(&blob)].concat();
    let full = format!("tree {}", written(&fixture, "tree", &entry));
    let bad = [
        ("blob", blob.clone()),
        ("child", written(&fixture, "commit", &sign(&format!("{nothing}\nparent {good}"), "seen\n\nfine\n"))),
        ("code", tip.to_string()),
        ("full", written(&fixture, "commit", &sign(&full, "seen\n\nfine\n"))),
        ("huge", written(&fixture, "commit", &sign(&nothing, &"x".repeat(1 << 20)))),
        ("odd", written(&fixture, "commit", b"no commit at all")),
        ("tag", written(&fixture, "tag", format!("object {good}\ntype commit\ntag t\n\nx\n").as_bytes())),
    ];
    let daemon = fixture.daemon();
    for remote in [fixture.remote(), daemon.remote()] {
        for (host, id) in &bad {
            puts(&fixture, host, id);
        }
        puts(&fixture, "NOT_A_HOST", tip.as_str());
        puts(&fixture, "good", &good);
        let mut mirror = fixture.mirror();
        assert_eq!(look(&mut mirror, &remote, &Peers::All), Heard::News);
        assert_eq!(heard(&mirror), ["good"]);
        assert_eq!(mirror.record_heard(&host("good")).as_deref(), Some("fine\n"));
        assert_eq!(mirror.left_out(), 7);
        // Nobody asks for them again, until they are something else.
        assert_eq!((look(&mut mirror, &remote, &Peers::All), mirror.left_out()), (Heard::Same, 7));
        puts(&fixture, "code", &good);
        assert_eq!((look(&mut mirror, &remote, &Peers::All), mirror.left_out()), (Heard::News, 7));
        puts(&fixture, "full", &written(&fixture, "commit", &sign(&full, "seen again\n\nfine\n")));
        puts(&fixture, "tag", &good);
        let some = Peers::Some(["full", "tag", "good"].map(host).into());
        assert_eq!((look(&mut mirror, &remote, &some), mirror.left_out()), (Heard::News, 8));
        assert_eq!(heard(&mirror), ["code", "good", "tag"]);
        drop(mirror);
        fs::remove_dir_all(fixture.mirror_dir()).expect("removed");
    }
}

#[test]
fn what_is_too_much_or_not_there_costs_the_other_hosts_nothing() {
    let fixture = Fixture::new();
    let served = fixture.served();
    let nothing = format!("tree {}", written(&fixture, "tree", b""));
    let names: Vec<String> = (0..20).map(|number| format!("good-{number:02}")).collect();
    let says = |said: &str| {
        for name in &names {
            puts(&fixture, name, &written(&fixture, "commit", &sign(&nothing, &format!("{name} {said}\n\nfine\n"))));
        }
    };
    // More than may come at once, in what hangs on it, in itself, and in how much it is; and what the server cannot send.
    let large = written(&fixture, "blob", &noise(7, 3 << 20));
    let large = format!("tree {}", written(&fixture, "tree", &[b"100644 a\0".as_slice(), &hex(&large)].concat()));
    let (mut many, mut above) = (String::new(), nothing.clone());
    for number in 0..3000 {
        many = written_quickly(&fixture, &sign(&above, &number.to_string()));
        above = format!("{nothing}\nparent {many}");
    }
    let bad = [
        ("deep", many),
        ("large", written(&fixture, "commit", &sign(&large, "seen"))),
        ("long", written(&fixture, "commit", &[sign(&nothing, ""), noise(7, 3 << 20)].concat())),
    ];
    let daemon = fixture.daemon();
    for (turn, remote) in [fixture.remote(), daemon.remote()].into_iter().enumerate() {
        let remote = remote.within(Bounds { bytes: 2 << 20, objects: 2000, ..LARGE });
        let mut mirror = fixture.mirror();
        says(&format!("first {turn}"));
        assert_eq!(look(&mut mirror, &remote, &Peers::All), Heard::News);
        for (host, id) in &bad {
            puts(&fixture, host, id);
        }
        puts(&fixture, "lost", &"1b".repeat(20));
        let tip = fixture.commit("next", &[("a", &format!("{turn}"))]);
        says(&format!("second {turn}"));
        let (fetched, news) = mirror.fetch_with(&remote, Some(&Peers::All), &quick(), &NO).expect("the branch comes");
        assert_eq!((&fetched.tip, fetched.renewed, news), (&tip, false, Heard::News));
        assert_eq!(heard(&mirror), names);
        for name in &names {
            let said = mirror.sign_heard(&host(name)).expect("it was heard");
            assert!(said.starts_with(&format!("{name} second {turn}")), "{said}");
        }
        let left_out = mirror.left_out();
        assert!((3..=4).contains(&left_out), "{left_out}");
        // The next time, they are known, and nothing of them is received.
        says(&format!("third {turn}"));
        let (fetched, news) = mirror.fetch_with(&remote, Some(&Peers::All), &quick(), &NO).expect("the branch comes");
        assert_eq!(news, Heard::News);
        assert!(fetched.received < 1 << 20, "{} bytes", fetched.received);
        assert_eq!(mirror.left_out(), left_out);
        // And whoever says something again is heard again, wherever signs of life are.
        puts(&fixture, "deep", &written(&fixture, "commit", &sign(&nothing, "back\n\nfine\n")));
        assert_eq!(mirror.fetch_peers(&remote, &Peers::All, &quick(), &NO).expect("fetched"), Heard::News);
        assert_eq!(mirror.record_heard(&host("deep")).as_deref(), Some("fine\n"));
        drop(mirror);
        fs::remove_dir_all(fixture.mirror_dir()).expect("removed");
        fs::remove_file(served.join("refs/mainstay/seen/lost")).expect("removed");
        for (host, _) in &bad {
            git(&served, &["update-ref", "-d", &format!("refs/mainstay/seen/{host}")]);
        }
    }
}

/// Writes a commit as a file of its own, which a process for each of thousands would take minutes for.
fn written_quickly(fixture: &Fixture, content: &[u8]) -> String {
    use gix::prelude::Write as _;
    let repo = gix::open_opts(fixture.served(), gix::open::Options::isolated()).expect("a repository");
    repo.write_buf(gix::objs::Kind::Commit, content).expect("written").to_string()
}

#[test]
fn more_names_than_there_are_hosts_hide_none_of_them() {
    let fixture = Fixture::new();
    let served = fixture.served();
    let nothing = format!("tree {}", written(&fixture, "tree", b""));
    let sign = |said: &str| written(&fixture, "commit", &sign(&nothing, &format!("{said}\n\nfine\n")));
    let members = BTreeSet::from(["attic", "barn"].map(host));
    let tip = fixture.main();
    let daemon = fixture.daemon();
    // More than a list may have at all, and more than a fleet of two can have.
    for (turn, count) in [260_000, 2000].into_iter().enumerate() {
        let names = (0..count).map(|number| format!("{tip} refs/mainstay/seen/h-{number:040}\n"));
        let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{}", names.collect::<String>());
        fs::write(served.join("packed-refs"), packed).expect("written");
        for (name, remote) in [("file", fixture.remote()), ("daemon", daemon.remote())] {
            let tip = fixture.commit("next", &[("a", &format!("{turn} {name}"))]);
            puts(&fixture, "attic", &sign(&format!("attic {turn} {name}")));
            let mut mirror = fixture.mirror();
            mirror.expect(members.clone());
            let everybody = Some(&Peers::All);
            let (fetched, news) = mirror.fetch_with(&remote, everybody, &quick(), &NO).expect("the branch comes");
            assert_eq!((&fetched.tip, fetched.renewed, news), (&tip, false, Heard::News), "{name}");
            assert_eq!(heard(&mirror), ["attic"], "{name}");
            // From now on they are asked for by name, without a list of everybody.
            puts(&fixture, "barn", &sign(&format!("barn {turn} {name}")));
            let (fetched, news) = mirror.fetch_with(&remote, everybody, &quick(), &NO).expect("the branch comes");
            assert_eq!((news, heard(&mirror)), (Heard::News, vec!["attic".to_owned(), "barn".to_owned()]), "{name}");
            assert!(fetched.received < 100_000, "{name}: {} bytes", fetched.received);
            git(&served, &["update-ref", "-d", "refs/mainstay/seen/barn"]);
            drop(mirror);
            fs::remove_dir_all(fixture.mirror_dir()).expect("removed");
        }
    }
}

#[test]
fn whoever_is_left_out_is_heard_again_whatever_else_there_is() {
    let fixture = Fixture::new();
    let nothing = format!("tree {}", written(&fixture, "tree", b""));
    let good = |said: &str| written(&fixture, "commit", &sign(&nothing, &format!("{said}\n\nfine\n")));
    let large = written(&fixture, "blob", &noise(3, 3 << 20));
    let large = format!("tree {}", written(&fixture, "tree", &[b"100644 a\0".as_slice(), &hex(&large)].concat()));
    // Of somebody whom the fleet does not know, it is no less.
    let stranger = written(&fixture, "commit", &sign(&large, "seen"));
    let bad = written(&fixture, "blob", b"x");
    let daemon = fixture.daemon();
    for (name, remote) in [("file", fixture.remote()), ("daemon", daemon.remote())] {
        let remote = remote.within(Bounds { bytes: 2 << 20, objects: 2000, ..LARGE });
        let everybody = Some(&Peers::All);
        puts(&fixture, "zzz", &stranger);
        puts(&fixture, "attic", &good(&format!("attic {name}")));
        puts(&fixture, "barn", &bad);
        let mut mirror = fixture.mirror();
        mirror.expect(["attic", "barn"].map(host).into());
        let (_, news) = mirror.fetch_with(&remote, everybody, &quick(), &NO).expect("the branch comes");
        assert_eq!((news, heard(&mirror)), (Heard::News, vec!["attic".to_owned()]), "{name}");
        assert_eq!(mirror.deaf_to().collect::<Vec<_>>(), [&host("barn")], "{name}");
        // The stranger is not asked for any more, and who was left out is.
        puts(&fixture, "barn", &good(&format!("barn {name}")));
        let (fetched, news) = mirror.fetch_with(&remote, everybody, &quick(), &NO).expect("the branch comes");
        assert_eq!((news, heard(&mirror).len()), (Heard::News, 2), "{name}");
        assert!(fetched.received < 1 << 20, "{name}: {} bytes", fetched.received);
        // Nobody else need be asked for.
        let barn = Peers::Some([host("barn")].into());
        puts(&fixture, "barn", &bad);
        assert_eq!(mirror.fetch_peers(&remote, &barn, &quick(), &NO).expect("fetched"), Heard::News, "{name}");
        assert_eq!(mirror.fetch_peers(&remote, &barn, &quick(), &NO).expect("fetched"), Heard::Same, "{name}");
        puts(&fixture, "barn", &good(&format!("barn again {name}")));
        assert_eq!(mirror.fetch_peers(&remote, &barn, &quick(), &NO).expect("fetched"), Heard::News, "{name}");
        assert_eq!((mirror.deaf_to().count(), mirror.left_out()), (0, 2), "{name}");
        // And who has nothing there any more is nobody to be counted.
        puts(&fixture, "barn", &bad);
        assert_eq!(mirror.fetch_peers(&remote, &barn, &quick(), &NO).expect("fetched"), Heard::News, "{name}");
        git(&fixture.served(), &["update-ref", "-d", "refs/mainstay/seen/barn"]);
        assert_eq!(mirror.fetch_peers(&remote, &barn, &quick(), &NO).expect("fetched"), Heard::Same, "{name}");
        assert_eq!(mirror.deaf_to().count(), 0, "{name}");
        drop(mirror);
        fs::remove_dir_all(fixture.mirror_dir()).expect("removed");
    }
}
