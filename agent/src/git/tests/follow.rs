//! Following a branch, and reading what it holds.

use super::*;

#[test]
fn a_branch_is_followed_over_git_and_file() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    assert_eq!(mirror.tip(), None);
    let first = fetch(&mut mirror, &daemon.remote());
    assert_eq!((first.changed, first.renewed, &first.tip), (true, false, &fixture.main()));
    let same = fetch(&mut mirror, &daemon.remote());
    assert_eq!((same.changed, &same.tip), (false, &first.tip));
    assert!(same.received < 1000, "{}", same.received);

    let second = fixture.commit("second", &[("apps/web/app.yaml", "place: all\n")]);
    let changed = fetch(&mut mirror, &fixture.remote());
    assert_eq!((changed.changed, &changed.tip), (true, &second));
    assert_eq!(files(&mirror, &second), "apps/web/app.yaml \"place: all\\n\"\nfleet.yaml \"fleet: home\\n\"\n");
    assert!(mirror.is_ancestor(&first.tip, &second).expect("a history"));
    assert!(!mirror.is_ancestor(&second, &first.tip).expect("a history"));
    assert_eq!(
        mirror.commits_between(Some(&first.tip), &second, 10).expect("a history"),
        std::slice::from_ref(&second)
    );
    assert_eq!(mirror.commits_between(None, &second, 10).expect("a history").len(), 2);

    let summary = mirror.commit(&second).expect("a commit");
    let expected = Summary { subject: "second".to_owned(), author: "Ada".to_owned(), time: at(0) };
    assert_eq!(summary, expected);
    let raw = mirror.raw_commit(&second).expect("a commit");
    assert_eq!(String::from_utf8_lossy(&raw).trim(), git(&fixture.served(), &["cat-file", "commit", second.as_str()]));

    // A new process finds what the old one had, without the network.
    drop(mirror);
    assert_eq!(fixture.mirror().tip(), Some(second));
}

#[test]
fn ten_thousand_other_refs_cost_nothing() {
    let fixture = Fixture::new();
    let tip = fixture.main();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    let alone = fetch(&mut mirror, &daemon.remote()).received;
    let alone_unchanged = fetch(&mut mirror, &daemon.remote()).received;
    let many: String = (0..10_000).map(|i| format!("create refs/notes/mainstay/host-{i} {tip}\n")).collect();
    let output = try_git(&fixture.served(), &["update-ref", "--stdin"], many.as_bytes());
    assert!(output.status.success());
    assert_eq!(fetch(&mut mirror, &daemon.remote()).received, alone_unchanged);
    fs::remove_dir_all(fixture.mirror_dir()).expect("removed");
    // A pack's bytes depend on the server's threads a little, its list of refs does not.
    assert!(fetch(&mut fixture.mirror(), &daemon.remote()).received < alone + 100);
}

#[test]
fn a_missing_branch_loses_nothing() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &daemon.remote()).tip;
    git(&fixture.served(), &["branch", "-m", "main", "trunk"]);
    for remote in [daemon.remote(), fixture.remote()] {
        let error = mirror.fetch(&remote, &quick(), &NO).expect_err("no branch");
        assert!(matches!(error, FetchError::RefMissing { .. }), "{error:?}");
    }
    assert_eq!(mirror.tip(), Some(tip.clone()));
    assert_eq!(files(&mirror, &tip), "fleet.yaml \"fleet: home\\n\"\n");
    // An empty repository is the same to us.
    git(fixture.path(), &["init", "--quiet", "--bare", "empty.git"]);
    let empty = remote(&format!("file://{}", fixture.path().join("empty.git").display()));
    let error = mirror.fetch(&empty, &quick(), &NO).expect_err("no branch");
    assert!(matches!(error, FetchError::RefMissing { .. }), "{error:?}");
}

#[test]
fn a_rewritten_branch_is_fetched_and_told_apart() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let old = fixture.commit("second", &[("a", "1")]);
    fetch(&mut mirror, &fixture.remote());
    git(&fixture.served(), &["update-ref", "refs/heads/main", &format!("{old}^")]);
    let new = fixture.commit("other", &[("a", "2")]);
    assert_eq!(fetch(&mut mirror, &fixture.remote()).tip, new);
    assert!(!mirror.is_ancestor(&old, &new).expect("a history"));
    assert!(mirror.has(&old));
}

#[test]
fn a_repository_that_is_not_there_is_denied() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let mut mirror = fixture.mirror();
    for url in [format!("git://127.0.0.1:{}/other.git", daemon.port), "file:///nowhere/other.git".to_owned()] {
        let error = mirror.fetch(&remote(&url), &quick(), &NO).expect_err("nothing there");
        assert!(matches!(error, FetchError::Denied { .. }), "{error:?}");
    }
}

#[test]
fn a_tree_is_handed_over_as_it_is_or_refused_by_name() {
    let fixture = Fixture::new();
    let served = fixture.served();
    let blob = |text: &[u8]| {
        let output = try_git(&served, &["hash-object", "-w", "--stdin"], text);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (small, large, link) = (blob(b"small"), blob(&[b'x'; 5000]), blob(b"../../etc/shadow"));
    let tip = fixture.main();
    let mut entries = Vec::new();
    for (mode, id, name) in [
        ("100755", &small, &b"run"[..]),
        ("120000", &link, b"link"),
        ("160000", &tip.to_string(), b"module"),
        ("100644", &large, b"large"),
        ("100644", &small, b"caf\xe9"),
        ("100644", &small, b"a\\b"),
        ("100644", &small, b"line\nbreak"),
        ("100644", &small, b".."),
        ("100644", &small, b".GIT"),
        ("100644", &small, b"twice"),
        ("100644", &small, b"twice"),
        ("40000", &small, b"not-a-folder"),
    ] {
        if name == b"not-a-folder" {
            continue;
        }
        entries.extend_from_slice(format!("{mode} ").as_bytes());
        entries.extend_from_slice(name);
        entries.push(0);
        entries.extend_from_slice(gix::ObjectId::from_hex(id.as_bytes()).expect("an id").as_slice());
    }
    let output = try_git(&served, &["hash-object", "-w", "--stdin", "-t", "tree", "--literally"], &entries);
    let tree = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(!tree.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let subject = "red \u{1b}[31malert\u{7}";
    let commit = git(&served, &["commit-tree", &tree, "-p", tip.as_str(), "-m", subject]);
    git(&served, &["update-ref", "refs/heads/main", &commit]);
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &fixture.remote()).tip;
    let tree = mirror.tree(&tip, &Limits { max_blob: 1000, ..Limits::default() }).expect("a tree");
    let actual: String = tree.entries.iter().map(|(path, entry)| format!("{path}: {}\n", shape(entry))).collect();
    expect_test::expect![[r#"
        ..: refused: its name would leave its folder
        .GIT: refused: `.git` cannot be a part of a repository's tree
        a\b: refused: its name holds a path separator
        caf�: refused: its name is not UTF-8
        large: refused: it has 5000 bytes, and 1000 are the most that is read
        line\nbreak: refused: its name holds a control character
        link: -> ../../etc/shadow
        module: submodule
        run: x "small"
        twice: refused: its folder names it twice
    "#]]
    .assert_eq(&actual);
    assert_eq!(mirror.commit(&tip).expect("a commit").subject, "red \\u{1b}[31malert\\u{7}");
    for limits in [Limits { max_entries: 5, ..Limits::default() }, Limits { max_total: 5000, ..Limits::default() }] {
        let error = mirror.tree(&tip, &limits).expect_err("too large");
        assert!(matches!(error, GitError::TooLarge { .. }), "{error:?}");
    }
}

/// Prints what polling costs, for a person: set `MAINSTAY_MEASURE=1` and run this test alone with `--nocapture`.
#[test]
fn what_an_unchanged_poll_costs() {
    if std::env::var_os("MAINSTAY_MEASURE").is_none() {
        return;
    }
    let resident = |when: &str| {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let lines: Vec<_> =
            status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")).collect();
        println!("{when}: {}", lines.join(" ").replace('\t', ""));
    };
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    resident("before");
    let mut mirror = fixture.mirror();
    resident("mirror opened");
    fetch(&mut mirror, &daemon.remote());
    resident("fetched");
    let mut polls = Vec::new();
    let mut processes = Vec::new();
    let url = daemon.remote().url.to_string();
    for _ in 0..100 {
        let started = Instant::now();
        assert!(!fetch(&mut mirror, &daemon.remote()).changed);
        polls.push(started.elapsed());
        let started = Instant::now();
        git(fixture.path(), &["ls-remote", "--exit-code", &url, "refs/heads/main"]);
        processes.push(started.elapsed());
    }
    resident("after 100 unchanged polls");
    println!("unchanged poll {:?}, `git ls-remote` {:?} (medians of 100)", median(polls), median(processes));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    git(fixture.path(), &["clone", "--quiet", "--bare", &url, "cloned.git"]);
    for number in 0..20 {
        fixture.commit("more", &[("a", &number.to_string())]);
        let started = Instant::now();
        assert!(fetch(&mut mirror, &daemon.remote()).changed);
        ours.push(started.elapsed());
        let started = Instant::now();
        git(&fixture.path().join("cloned.git"), &["fetch", "--quiet", &url, "main:main"]);
        theirs.push(started.elapsed());
    }
    resident("after 20 changed polls");
    println!("one new commit {:?}, `git fetch` {:?} (medians of 20)", median(ours), median(theirs));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..100 {
        mirror.write_note(&host("attic"), &fixture.main(), &number.to_string(), at(number)).expect("written");
        let started = Instant::now();
        mirror.publish(&daemon.remote(), &host("attic"), None, &quick(), &NO).expect("pushed");
        ours.push(started.elapsed());
        if [0, 19, 99].contains(&number) {
            resident(&format!("after {} pushes", number + 1));
        }
    }
    for number in 0..20 {
        mirror.write_note(&host("attic"), &fixture.main(), &format!("again {number}"), at(number)).expect("written");
        let started = Instant::now();
        git(&fixture.mirror_dir(), &["push", "--quiet", &url, "refs/notes/mainstay/attic"]);
        theirs.push(started.elapsed());
    }
    println!("one pushed note {:?}, `git push` {:?} (medians)", median(ours), median(theirs));
}

#[test]
fn somebodys_clone_is_read_from_any_folder_of_it_by_the_names_that_people_use() {
    let fixture = Fixture::new();
    let first = fixture.main();
    let second = fixture.commit("second", &[("apps/web/app.yaml", "place: all\n")]);
    git(fixture.path(), &["clone", "--quiet", "served.git", "clone"]);
    let top = fixture.path().join("clone");
    git(&top, &["tag", "v1", first.as_str()]);
    let clone = Mirror::of_clone(&top.join("apps/web")).expect("a clone");
    assert_eq!(clone.folder(), top.canonicalize().expect("a folder"));
    for (name, commit) in [
        ("HEAD", &second),
        ("origin/main", &second),
        ("HEAD~1", &first),
        ("v1", &first),
        (&first.as_str()[..8], &first),
    ] {
        assert_eq!(clone.named(name).expect(name), *commit, "{name}");
    }
    assert_eq!(files(&clone, &first), "fleet.yaml \"fleet: home\\n\"\n");
    // A worktree beside it has the same commits.
    git(&top, &["worktree", "add", "--quiet", "--detach", "../beside", "v1"]);
    let beside = Mirror::of_clone(&fixture.path().join("beside")).expect("a worktree");
    assert_eq!(beside.named("HEAD").expect("a commit"), first);
    for (what, error) in [
        (clone.named("no-such-branch").map(|_| ()), "is called `no-such-branch`"),
        (Mirror::of_clone(fixture.path()).map(|_| ()), "is in no git repository"),
    ] {
        let said = crate::chain(&what.expect_err("there is none"));
        assert!(said.contains(error), "{said}");
    }
}
