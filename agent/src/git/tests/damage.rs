//! Mirrors that were damaged, lost, or have grown.

use super::*;
use crate::git::mirror::{TIP, set};
use crate::git::tree::is_complete;

/// Damages a mirror in one way after another; each time the next fetch must bring everything back, with the notes.
#[test]
fn a_damaged_mirror_is_renewed_and_keeps_its_notes() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 9] = [
        ("truncated pack", |dir| for_each_pack(dir, "pack", |path| truncate(path, 40))),
        ("emptied pack", |dir| for_each_pack(dir, "pack", |path| truncate(path, 0))),
        ("truncated index", |dir| for_each_pack(dir, "idx", |path| truncate(path, 100))),
        ("flipped bytes", |dir| for_each_pack(dir, "pack", flip)),
        ("garbage tip", |dir| fs::write(dir.join("refs/mainstay/tip"), "garbage").expect("written")),
        ("dangling tip", |dir| {
            fs::write(dir.join("refs/mainstay/tip"), format!("{}\n", "1".repeat(40))).expect("written");
        }),
        ("garbage packed-refs", |dir| fs::write(dir.join("packed-refs"), "\0\0garbage").expect("written")),
        ("no HEAD, foreign config", |dir| {
            fs::remove_file(dir.join("HEAD")).expect("removed");
            fs::write(dir.join("config"), "[core\n").expect("written");
        }),
        ("stale locks", |dir| {
            for name in ["refs/mainstay/tip.lock", "packed-refs.lock", "refs/notes/mainstay/attic.lock"] {
                fs::write(dir.join(name), "").expect("written");
            }
        }),
    ];
    for (what, damage) in damages {
        let fixture = Fixture::new();
        let mut mirror = fixture.mirror();
        let tip = fetch(&mut mirror, &fixture.remote()).tip;
        mirror.write_note(&host("attic"), &tip, "converged\n", at(1)).expect("written");
        drop(mirror);
        damage(&fixture.mirror_dir());
        let next = fixture.commit("second", &[("a", "1")]);
        let mut mirror = fixture.mirror();
        // Reading may fail, but only as an error, and the fetch after it repairs.
        drop(mirror.tree(&tip, &Limits::default()));
        let fetched = fetch(&mut mirror, &fixture.remote());
        assert_eq!(fetched.tip, next, "{what}");
        assert_eq!(files(&mirror, &next), "a \"1\"\nfleet.yaml \"fleet: home\\n\"\n", "{what}");
        assert_eq!(mirror.read_note(&host("attic"), &tip).as_deref(), Some("converged\n"), "{what}");
        assert_eq!(
            mirror.publish(&fixture.remote(), &host("attic"), None, &quick(), &NO).expect("pushed"),
            Pushed::Done
        );
        git(&fixture.mirror_dir(), &["fsck", "--strict"]);
    }
}

fn for_each_pack(dir: &Path, extension: &str, damage: impl Fn(&Path)) {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(dir.join("objects/pack")).expect("packs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|found| found == extension) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("writable");
            damage(&path);
        }
    }
}

fn truncate(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).expect("opened").set_len(length).expect("truncated");
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    for byte in bytes.iter_mut().skip(12) {
        *byte ^= 0x55;
    }
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_mirror_that_is_a_file_is_replaced_and_an_interrupted_renewal_is_finished() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path().join("state")).expect("created");
    fs::write(fixture.mirror_dir(), "not a directory").expect("written");
    let tip = fetch(&mut fixture.mirror(), &fixture.remote()).tip;
    // Killed between the two renames: only the old one is there.
    fs::rename(fixture.mirror_dir(), fixture.path().join("state/mirror.old")).expect("renamed");
    fs::create_dir_all(fixture.path().join("state/mirror.new/objects")).expect("created");
    assert_eq!(fixture.mirror().tip(), Some(tip));
    assert_eq!(fs::read_dir(fixture.path().join("state")).expect("a directory").count(), 1);
}

#[test]
fn a_wiped_mirror_is_kept_while_the_remote_is_away() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let tip = fetch(&mut mirror, &fixture.remote()).tip;
    mirror.suspect.set(true);
    let error = mirror.fetch(&remote("file:///nowhere/x.git"), &quick(), &NO).expect_err("away");
    assert!(matches!(error, FetchError::Denied { .. }), "{error:?}");
    assert_eq!(files(&mirror, &tip), "fleet.yaml \"fleet: home\\n\"\n");
    assert!(fetch(&mut mirror, &fixture.remote()).renewed);
}

#[test]
fn a_server_that_withholds_objects_does_not_replace_what_we_have() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let good = fetch(&mut mirror, &fixture.remote()).tip;
    // A tree that names a blob which the server does not have; sent by a server that does not check what it sends.
    let tree = format!("100644 blob {}\tmissing\n", "5".repeat(40));
    let output = try_git(&fixture.served(), &["mktree", "--missing"], tree.as_bytes());
    let tree = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let commit = git(&fixture.served(), &["commit-tree", &tree, "-p", good.as_str(), "-m", "withheld"]);
    let pack =
        try_git(&fixture.served(), &["pack-objects", "--stdout", "-q"], format!("{commit}\n{tree}\n").as_bytes());
    let stored = try_git(&fixture.mirror_dir(), &["unpack-objects", "-q"], &pack.stdout);
    assert!(stored.status.success());
    set(&mirror.repo, TIP, gix::ObjectId::from_hex(commit.as_bytes()).expect("an id")).expect("set");
    let withheld = CommitId::parse(&commit).expect("a commit");
    let error = mirror.tree(&withheld, &Limits::default()).expect_err("incomplete");
    assert!(matches!(error, GitError::Damaged { .. }), "{error:?}");
    // The honest server repairs it, and until then the good commit is readable.
    assert_eq!(files(&mirror, &good), "fleet.yaml \"fleet: home\\n\"\n");
    let fetched = fetch(&mut mirror, &fixture.remote());
    assert_eq!((fetched.renewed, fetched.tip), (true, good));
    assert!(
        is_complete(&mirror.repo, gix::ObjectId::from_hex(fixture.main().as_str().as_bytes()).expect("an id")).is_ok()
    );
    let gone = gix::ObjectId::from_hex(commit.as_bytes()).expect("an id");
    let unpacked = try_git(&fixture.mirror_dir(), &["unpack-objects", "-q"], &pack.stdout);
    assert!(unpacked.status.success() && is_complete(&mirror.repo, gone).is_err());
}

#[test]
fn much_is_packed_and_what_runs_survives() {
    let fixture = Fixture::new();
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &fixture.remote()).tip;
    let patience = Duration::from_secs(60);
    assert_eq!(mirror.tidy(&[], patience, &NO).expect("tidied"), Tidied::Unneeded);
    let running = fixture.commit("running", &[("a", "1")]);
    for number in 0..52 {
        git(&fixture.served(), &["update-ref", "refs/heads/main", first.as_str()]);
        fixture.commit("rewritten", &[("a", &number.to_string())]);
        if number == 0 {
            git(&fixture.served(), &["update-ref", "refs/heads/main", running.as_str()]);
        }
        fetch(&mut mirror, &fixture.remote());
    }
    mirror.write_note(&host("attic"), &running, "converged\n", at(1)).expect("written");
    assert_eq!(mirror.tidy(std::slice::from_ref(&running), patience, &NO).expect("tidied"), Tidied::Packed);
    assert_eq!(mirror.tidy(std::slice::from_ref(&running), patience, &NO).expect("tidied"), Tidied::Unneeded);
    assert!(mirror.has(&running) && mirror.tip() == Some(fixture.main()));
    assert_eq!(mirror.read_note(&host("attic"), &running).as_deref(), Some("converged\n"));
    assert!(!fetch(&mut mirror, &fixture.remote()).changed);
}

#[test]
fn what_nobody_believes_does_not_pile_up() {
    const SIZE: usize = 1 << 20;
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let most = Bounds { bytes: 2 << 20, ..LARGE };
    let followed = daemon.remote().within(most);
    let mut mirror = fixture.mirror().through(Some(fixture.fetcher()));
    let first = fetch(&mut mirror, &followed).tip;
    let disk = |folder: &str| -> usize {
        let output = Command::new("du").arg("-sb").arg(fixture.path().join(folder)).output().expect("du runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a size")
    };
    for seed in 0..7 {
        // Another branch each time, which goes on from what is believed and is not.
        let blob = written(&fixture, "blob", &noise(seed, SIZE));
        let tree = written(&fixture, "tree", &[b"100644 a\0".as_slice(), &hex(&blob)].concat());
        let commit = git(&fixture.served(), &["commit-tree", "-p", first.as_str(), "-m", "evil", &tree]);
        git(&fixture.served(), &["update-ref", "refs/heads/main", &commit]);
        assert_eq!(fetch(&mut mirror, &followed).tip, fixture.main());
        mirror.tidy(std::slice::from_ref(&first), Duration::from_secs(60), &NO).expect("tidied");
        // The fetcher tidies once nobody listens any more.
        drop(mirror.fetch(&remote("git://127.0.0.1:1/served.git"), &quick(), &NO));
        let (ours, theirs) = (disk("state"), disk("fetcher"));
        assert!(ours < 5 * SIZE && theirs < 5 * SIZE, "{seed}: {ours} and {theirs} bytes");
    }
    assert!(mirror.has(&first));
    // More than may come at once is not kept by anybody.
    let blob = written(&fixture, "blob", &noise(9, 3 << 20));
    let tree = written(&fixture, "tree", &[b"100644 a\0".as_slice(), &hex(&blob)].concat());
    let commit = git(&fixture.served(), &["commit-tree", "-p", first.as_str(), "-m", "evil", &tree]);
    git(&fixture.served(), &["update-ref", "refs/heads/main", &commit]);
    let (ours, theirs) = (disk("state"), disk("fetcher"));
    for _ in 0..3 {
        let error = mirror.fetch(&followed, &quick(), &NO).expect_err("too much");
        assert!(matches!(error, FetchError::TooLarge { cap: Cap::Bytes(2_097_152), .. }), "{error:?}");
    }
    assert!(disk("state") <= ours + 4096 && disk("fetcher") <= theirs + 4096);
    // Who has nothing yet may be sent as much as a repository may have.
    let mut fresh =
        Mirror::open(&fixture.path().join("state/fresh")).expect("a mirror").through(Some(fixture.fetcher()));
    assert!(fetch(&mut fresh, &daemon.remote()).changed);
}

/// Also where it is the largest of all that is there.
#[test]
fn what_was_refused_goes_when_something_else_comes() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon();
    let followed = Remote { slack: 1 << 20, ..daemon.remote().within(Bounds { bytes: 4 << 20, ..LARGE }) };
    let mut mirror = fixture.mirror();
    let first = fetch(&mut mirror, &followed).tip;
    let tidied =
        |mirror: &mut Mirror| mirror.tidy(std::slice::from_ref(&first), Duration::from_secs(60), &NO).expect("tidied");
    assert_eq!(tidied(&mut mirror), Tidied::Unneeded);
    let blob = written(&fixture, "blob", &noise(1, 2 << 20));
    let tree = written(&fixture, "tree", &[b"100644 a\0".as_slice(), &hex(&blob)].concat());
    let refused = git(&fixture.served(), &["commit-tree", "-p", first.as_str(), "-m", "evil", &tree]);
    git(&fixture.served(), &["update-ref", "refs/heads/main", &refused]);
    fetch(&mut mirror, &followed);
    assert_eq!(tidied(&mut mirror), Tidied::Packed);
    assert!(mirror.size() > 2 << 20, "it is where the branch is at");
    git(&fixture.served(), &["update-ref", "refs/heads/main", first.as_str()]);
    fetch(&mut mirror, &followed);
    tidied(&mut mirror);
    assert!(mirror.size() < 1 << 20, "{} bytes", mirror.size());
    assert_eq!(tidied(&mut mirror), Tidied::Unneeded);
}

/// Files of packs of which the other one is missing are of no use to anybody.
#[test]
fn halves_of_packs_are_removed() {
    let fixture = Fixture::new();
    drop(fixture.mirror());
    let folder = fixture.mirror_dir().join("objects/pack");
    for name in ["pack-1.pack", "pack-2.idx", "pack-3.pack", "pack-3.idx"] {
        fs::write(folder.join(name), "x").expect("a file");
    }
    drop(Mirror::open(&fixture.mirror_dir()));
    let mut left: Vec<_> =
        fs::read_dir(&folder).expect("packs").map(|file| file.expect("a file").file_name()).collect();
    left.sort();
    assert_eq!(left, ["pack-3.idx", "pack-3.pack"]);
}
