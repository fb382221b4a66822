//! Somebody who may write to a folder works against us while files in it are changed. Each attack is a loop on another
//! thread; what it must not gain is checked after as many rounds as fit into a moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// For how long each attack goes on at least.
const MOMENT: Duration = Duration::from_millis(600);
/// And how often the folder is swapped under our feet.
const SWAPS: u64 = 1_000_000;
/// A machine on which that takes longer has other troubles.
const PATIENCE: Duration = Duration::from_secs(120);

/// Works for a moment, and until `attack` was repeated often enough on another thread.
fn under(least: u64, attack: impl FnMut() + Send, mut work: impl FnMut(usize)) {
    let (done, attacks) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut attack = attack;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                attack();
                attacks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        let mut round = 0;
        while began.elapsed() < MOMENT || (attacks.load(Ordering::Relaxed) < least && began.elapsed() < PATIENCE) {
            work(round);
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
        let attacks = attacks.load(Ordering::Relaxed);
        eprintln!("{round} rounds, {attacks} attacks, {:?}", began.elapsed());
        assert!(attacks >= least, "only {attacks} attacks");
    });
}

#[test]
fn a_parent_swapped_for_a_link_leads_nowhere() {
    let mut folder = folder();
    fs::create_dir(folder.at("home")).expect("a directory");
    fs::create_dir(folder.at("outside")).expect("a directory");
    fs::write(folder.at("outside/a"), "theirs").expect("a file");
    fs::write(folder.at("outside/gone"), "theirs").expect("a file");
    // Another test of this process may have changed what files begin with.
    fs::set_permissions(folder.at("outside/gone"), fs::Permissions::from_mode(0o644)).expect("a mode");
    symlink(folder.at("outside"), folder.at("link")).expect("a link");
    let (home, link) = (folder.at("home"), folder.at("link"));
    let mut written = 0;
    under(
        SWAPS,
        || renameat_with(CWD, &home, CWD, &link, RenameFlags::EXCHANGE).expect("a swap"),
        |round| {
            written += usize::from(folder.put("home/a", &regular(&format!("{round}"), 0o644)).is_ok());
            written += usize::from(folder.put(&format!("home/{round}/b"), &regular("x", 0o644)).is_ok());
            let path = folder.path("home/gone");
            let seen = folder.disk.look(&path);
            if !matches!(seen, FileState::Absent | FileState::Unknown(_)) {
                drop(folder.disk.remove(&path, &seen));
                drop(folder.disk.set_access(&path, own(0o777), &seen));
            }
        },
    );
    assert_eq!(folder.names("outside"), ["a", "gone"]);
    assert_eq!((folder.read("outside/a"), folder.read("outside/gone")), ("theirs".to_owned(), "theirs".to_owned()));
    assert_eq!(folder.mode("outside/gone"), 0o644);
    assert!(written > 0, "the attack must not be all that happens");
}

#[test]
fn a_new_directory_swapped_for_a_link_does_not_open_its_target() {
    let mut folder = folder();
    fs::create_dir(folder.at("home")).expect("a directory");
    fs::write(folder.at("secret"), "theirs").expect("a file");
    fs::set_permissions(folder.at("secret"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let (new, secret) = (folder.at("home/new"), folder.at("secret"));
    under(
        1,
        || {
            // Whoever owns a folder may remove an empty directory from it, whosever that is.
            if fs::remove_dir(&new).is_ok() {
                drop(symlink(&secret, &new));
            }
            drop(fs::remove_file(&new));
        },
        |_| {
            drop(folder.put("home/new/a", &regular("x", 0o644)));
            drop(fs::remove_file(folder.at("home/new/a")));
        },
    );
    assert_eq!(folder.mode("secret"), 0o600);
}

#[test]
fn a_file_swapped_for_another_name_of_a_secret_does_not_open_it() {
    let mut folder = folder();
    fs::create_dir(folder.at("home")).expect("a directory");
    fs::write(folder.at("secret"), "theirs").expect("a file");
    fs::set_permissions(folder.at("secret"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(folder.at("home/a"), "x").expect("a file");
    fs::hard_link(folder.at("secret"), folder.at("home/b")).expect("another name");
    let (a, b) = (folder.at("home/a"), folder.at("home/b"));
    under(
        SWAPS,
        || renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("a swap"),
        |round| {
            let path = folder.path("home/a");
            let seen = folder.disk.look(&path);
            let is_ours = matches!(&seen, FileState::Regular { digest, .. } if *digest == Digest::of(b"x"));
            if is_ours {
                drop(folder.disk.set_access(&path, own(if round % 2 == 0 { 0o644 } else { 0o664 }), &seen));
            }
        },
    );
    assert_eq!(folder.mode("secret"), 0o600);
}

#[test]
fn a_mode_is_never_wider_than_wanted() {
    // Process-wide, and nothing else in these tests minds.
    rustix::process::umask(Bits::empty());
    let mut folder = folder();
    let root = folder.at(".");
    let seen = std::sync::Mutex::new(BTreeSet::new());
    under(
        1,
        || {
            for entry in fs::read_dir(&root).expect("the folder").flatten() {
                if let Ok(metadata) = entry.metadata() {
                    let kind = if metadata.is_dir() { "directory" } else { "file" };
                    seen.lock().expect("no panic").insert((kind, metadata.mode() & 0o7777));
                }
            }
        },
        |round| {
            folder.put("a", &regular(&format!("{round}"), 0o640)).expect("a write");
            folder.put("d", &wanted(FileKind::Directory, 0o750)).expect("a directory");
            fs::remove_dir(folder.at("d")).expect("removal");
        },
    );
    let seen = seen.into_inner().expect("no panic");
    let allowed = [("file", 0o600), ("file", 0o640), ("directory", 0o700), ("directory", 0o750)];
    assert!(seen.iter().all(|it| allowed.contains(it)), "{seen:?}");
    assert!(seen.contains(&("file", 0o640)), "something must have been seen");
}

#[test]
fn a_reader_sees_the_old_or_the_new_content_and_never_a_part() {
    let mut folder = folder();
    let long = |round: usize| format!("{round} ").repeat(20_000);
    folder.put("a", &regular(&long(0), 0o644)).expect("a write");
    let path = folder.at("a");
    let torn = Arc::new(std::sync::Mutex::new(None));
    let found = Arc::clone(&torn);
    under(
        1,
        move || {
            let text = fs::read_to_string(&path).expect("it is never away");
            let first = text.split(' ').next().unwrap_or_default();
            if text != format!("{first} ").repeat(20_000) {
                *found.lock().expect("no panic") = Some(text.len());
            }
        },
        |round| {
            folder.put("a", &regular(&long(round), 0o644)).expect("a write");
        },
    );
    assert_eq!(*torn.lock().expect("no panic"), None);
}
