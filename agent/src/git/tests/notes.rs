//! Notes and heartbeats, as git and other hosts see them.

use super::*;

#[test]
fn git_reads_the_notes_that_we_write() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let (attic, barn) = (host("attic"), host("barn"));
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &daemon.remote()).tip;
    let second = fixture.commit("second", &[("a", "1")]);
    fetch(&mut mirror, &daemon.remote());
    assert!(mirror.write_note(&attic, &first, "applying\n{}\n", at(1)).expect("written"));
    assert!(mirror.write_note(&attic, &first, "converged: 3 of 3\n{}\n", at(2)).expect("written"));
    assert!(!mirror.write_note(&attic, &first, "converged: 3 of 3\n{}\n", at(3)).expect("written"));
    assert_eq!(mirror.publish(&daemon.remote(), &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    assert_eq!(
        mirror.publish(&remote("git://127.0.0.1:1/served.git"), &barn, None, &quick(), &NO).expect("no network"),
        Pushed::Nothing
    );
    assert_eq!(mirror.publish(&daemon.remote(), &attic, None, &quick(), &NO).expect("no network"), Pushed::Nothing);
    assert!(mirror.write_note(&attic, &second, "waiting\n", at(4)).expect("written"));
    assert!(mirror.write_note(&barn, &second, "baking\n", at(4)).expect("written"));
    for host in [&attic, &barn] {
        assert_eq!(mirror.publish(&fixture.remote(), host, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    }

    let served = fixture.served();
    assert_eq!(git(&served, &["notes", "--ref=mainstay/attic", "show", first.as_str()]), "converged: 3 of 3\n{}");
    let log = git(&served, &["log", "--format=%s %N", "--notes=mainstay/*", "main"]);
    assert_eq!(
        log.split_whitespace().collect::<Vec<_>>().join(" "),
        "second waiting baking first converged: 3 of 3 {}"
    );
    let history = git(&served, &["log", "--format=%an <%ae> %at %s", "refs/notes/mainstay/attic"]);
    expect_test::expect![[r#"
        attic <mainstay@attic> 1790000004 mainstay: waiting
        attic <mainstay@attic> 1790000002 mainstay: converged: 3 of 3
        attic <mainstay@attic> 1790000001 mainstay: applying"#]]
    .assert_eq(&history);
    git(&served, &["fsck", "--strict"]);

    // Another host reads them, and never mixes them up with its own.
}

#[test]
fn hosts_do_not_race() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let tip = fixture.main();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (fixture, daemon, tip) = (&fixture, &daemon, &tip);
            scope.spawn(move || {
                let name = host(&format!("host-{number}"));
                let mut mirror = Mirror::open(&fixture.path().join(format!("state/{number}"))).expect("a mirror");
                fetch(&mut mirror, &daemon.remote());
                for round in 0..3 {
                    mirror.write_note(&name, tip, &format!("round {round}\n"), at(round)).expect("written");
                    let seen = Some(Seen { at: at(round), believed: tip, is_due: false, voice: None });
                    let pushed = mirror.publish(&daemon.remote(), &name, seen, &quick(), &NO).expect("pushed");
                    assert_eq!(pushed, Pushed::Done);
                }
            });
        }
    });
    let refs =
        git(&fixture.served(), &["for-each-ref", "--format=%(refname)", "refs/notes/mainstay", "refs/mainstay/seen"]);
    assert_eq!(refs.lines().count(), 16);
    for number in 0..8 {
        let reference = format!("--ref=mainstay/host-{number}");
        assert_eq!(git(&fixture.served(), &["notes", &reference, "show", tip.as_str()]), "round 2");
    }
    let seen = git(&fixture.served(), &["log", "--format=%an %s", "refs/mainstay/seen/host-1"]);
    assert_eq!(seen, format!("host-1 mainstay: host-1 seen at {}, at {tip}", at(2)));
}

/// How many hosts report at once: more when asked for.
fn pushers() -> usize {
    let asked = std::env::var("MAINSTAY_PUSHERS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(40)
}

#[test]
fn a_crowd_that_reports_at_once_loses_nothing_and_hardly_ever_tries_twice() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let tip = fixture.main();
    fetch(&mut fixture.mirror(), &daemon.remote());
    let all = pushers();
    let mirrors: Vec<Mirror> = (0..all)
        .map(|number| {
            let folder = fixture.path().join(format!("state/{number}"));
            let copied = Command::new("cp").arg("-r").arg(fixture.mirror_dir()).arg(&folder).status();
            assert!(copied.expect("cp runs").success());
            Mirror::open(&folder).expect("a mirror")
        })
        .collect();
    let begin = std::sync::Barrier::new(all);
    // As the settings have it where nobody says otherwise.
    let patient = Deadlines { total: Duration::from_secs(300), ..quick() }.patient(Duration::from_secs(150));
    let tries: usize = std::thread::scope(|scope| {
        let hosts = mirrors.into_iter().enumerate().map(|(number, mut mirror)| {
            let (daemon, tip, begin) = (&daemon, &tip, &begin);
            scope.spawn(move || {
                let name = host(&format!("host-{number}"));
                mirror.write_note(&name, tip, &format!("converged {number}\n"), at(1)).expect("written");
                begin.wait();
                // A host tries again with back-off; nobody waits here, which is harder.
                (1..=20).find(|_| mirror.publish(&daemon.remote(), &name, None, &patient, &NO).is_ok()).expect("pushed")
            })
        });
        let hosts: Vec<_> = hosts.collect();
        hosts.into_iter().map(|host| host.join().expect("it ends")).sum()
    });
    let refs = git(&fixture.served(), &["for-each-ref", "--format=%(refname)", "refs/notes/mainstay"]);
    assert_eq!(refs.lines().count(), all, "a record is lost");
    for number in [0, all / 2, all - 1] {
        let reference = format!("--ref=mainstay/host-{number}");
        assert_eq!(git(&fixture.served(), &["notes", &reference, "show", tip.as_str()]), format!("converged {number}"));
    }
    eprintln!("{all} hosts needed {tries} pushes");
    assert!(tries * 10 <= all * 11, "{tries} pushes for {all} hosts");
}

#[test]
fn a_lost_mirror_continues_the_notes_of_the_remote() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let attic = host("attic");
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &daemon.remote()).tip;
    mirror.write_note(&attic, &first, "converged\n", at(1)).expect("written");
    mirror.publish(&daemon.remote(), &attic, None, &quick(), &NO).expect("pushed");
    drop(mirror);
    fs::remove_dir_all(fixture.mirror_dir()).expect("lost");

    let second = fixture.commit("second", &[("a", "1")]);
    let mut mirror = fixture.mirror();
    fetch(&mut mirror, &daemon.remote());
    mirror.write_note(&attic, &second, "applying\n", at(9)).expect("written");
    assert_eq!(mirror.publish(&daemon.remote(), &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    let history = git(&fixture.served(), &["log", "--format=%at %s", "refs/notes/mainstay/attic"]);
    assert_eq!(history, "1790000009 mainstay: applying\n1790000001 mainstay: converged");
    for (commit, text) in [(&first, "converged"), (&second, "applying")] {
        assert_eq!(git(&fixture.served(), &["notes", "--ref=mainstay/attic", "show", commit.as_str()]), text);
        assert_eq!(mirror.read_note(&attic, commit), Some(format!("{text}\n")));
    }

    // The same notes once more, from yet another empty mirror: nothing is added to the history.
    let mut again = Mirror::open(&fixture.path().join("state/again")).expect("a mirror");
    fetch(&mut again, &daemon.remote());
    again.write_note(&attic, &second, "applying\n", at(10)).expect("written");
    assert_eq!(again.publish(&daemon.remote(), &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
    assert_eq!(git(&fixture.served(), &["rev-list", "--count", "refs/notes/mainstay/attic"]), "2");
}

#[test]
fn a_refused_push_is_denied_and_the_note_stays() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    let hook = fixture.served().join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().expect("a folder")).expect("created");
    fs::write(&hook, "#!/bin/sh\nexit 1\n").expect("written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("executable");
    let daemon = fixture.daemon();
    let attic = host("attic");
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &daemon.remote()).tip;
    mirror.write_note(&attic, &tip, "converged\n", at(1)).expect("written");
    for remote in [daemon.remote(), fixture.remote()] {
        let error = mirror.publish(&remote, &attic, None, &quick(), &NO).expect_err("refused");
        assert!(matches!(error, PushError::Denied { .. }), "{error:?}");
    }
    let hidden = remote(&format!("git://127.0.0.1:{}/other.git", daemon.port));
    let error = mirror.publish(&hidden, &attic, None, &quick(), &NO).expect_err("refused");
    assert!(matches!(error, PushError::Denied { .. }), "{error:?}");
    drop(daemon);
    fs::remove_file(hook).expect("removed");
    assert_eq!(mirror.publish(&fixture.remote(), &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
}

#[test]
fn a_push_that_lost_the_race_is_retried_later() {
    let fixture = Fixture::new();
    let attic = host("attic");
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &fixture.remote()).tip;
    mirror.write_note(&attic, &tip, "converged\n", at(1)).expect("written");
    let lock = fixture.served().join("refs/notes/mainstay");
    fs::create_dir_all(&lock).expect("created");
    fs::write(lock.join("attic.lock"), "").expect("locked");
    let error = mirror.publish(&fixture.remote(), &attic, None, &quick(), &NO).expect_err("locked");
    assert!(matches!(error, PushError::Retryable { .. }), "{error:?}");
    fs::remove_file(lock.join("attic.lock")).expect("unlocked");
    assert_eq!(mirror.publish(&fixture.remote(), &attic, None, &quick(), &NO).expect("pushed"), Pushed::Done);
}

#[test]
fn a_proposal_is_one_commit_on_a_branch_of_its_own() {
    let fixture = Fixture::new();
    let base = fixture.commit("first", &[("fleet.yaml", "fleet: home\n"), ("apps/web/web.service", "[Service]\n")]);
    let (mut mirror, remote, attic) = (fixture.mirror(), fixture.remote(), host("attic"));
    fetch(&mut mirror, &remote);
    let mut propose = |content: &str, second: i64| {
        let proposal = Proposal {
            host: &attic,
            base: &base,
            path: "fleet.yaml",
            content,
            message: "Enrol attic\n",
            at: at(second),
        };
        mirror.propose(&remote, &proposal, &quick(), &NO)
    };
    let (branch, _) = propose("fleet: home\nhosts: {}\n", 1).expect("pushed");
    assert_eq!(branch, "enrol/attic");
    // Another one takes its place.
    let (_, commit) = propose("fleet: home\nhosts: { attic: {} }\n", 2).expect("pushed");
    let served = fixture.served();
    assert_eq!(git(&served, &["rev-parse", "enrol/attic", "enrol/attic^"]), format!("{commit}\n{base}"));
    assert_eq!(git(&served, &["diff", "--stat", "--format=", "main", "enrol/attic"]).lines().count(), 2);
    assert_eq!(git(&served, &["show", "enrol/attic:fleet.yaml"]), "fleet: home\nhosts: { attic: {} }");
    assert_eq!(git(&served, &["rev-parse", "main"]), base.as_str());
    // Who may not push branches is told.
    let hook = served.join("hooks/update");
    fs::create_dir_all(served.join("hooks")).expect("a folder");
    fs::write(&hook, "#!/bin/sh\necho 'hosts push no branches' >&2\nexit 1\n").expect("a hook");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let error = propose("fleet: home\nhosts: { attic: { key: x } }\n", 3).expect_err("denied");
    assert!(matches!(error, PushError::Denied { .. }), "{error:?}");
    assert_eq!(git(&served, &["rev-parse", "enrol/attic"]), commit.as_str());
}
