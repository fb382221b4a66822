//! Real files in a temporary folder: what is kept, how it comes back, and what goes when there is too much.

use std::os::unix::fs::PermissionsExt as _;

use spec::id::Mode;

use super::*;

const BOUNDS: Bounds = Bounds { count: 4, bytes: 100, age: Duration::from_secs(3600) };

struct State {
    root: tempfile::TempDir,
    backups: Backups,
}

fn state() -> State {
    let root = tempfile::tempdir().expect("a temporary folder");
    let backups = Backups::of(root.path(), BOUNDS);
    State { root, backups }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

impl State {
    fn keep(&self, path: &str, text: &str, second: i64) -> Result<Entry, BackupError> {
        self.keep_expecting(path, text, None, second)
    }

    fn keep_expecting(
        &self,
        path: &str,
        text: &str,
        expected: Option<Digest>,
        second: i64,
    ) -> Result<Entry, BackupError> {
        let file = self.root.path().join("original");
        fs::write(&file, text).expect("a file");
        let source = Source::Regular { file: File::open(file).expect("the file") };
        let access = Access { mode: Mode::from_bits(0o640), uid: 1, gid: 2 };
        let original = Original { source, access, modified: at(7), expected };
        let path = HostPath::parse(path).expect("a path");
        let reason = Reason { path: &path, app: None, why: "a test", adopted: path.as_str().starts_with("/adopted") };
        self.backups.keep(original, &reason, at(second))
    }

    fn listed(&self) -> Vec<String> {
        let entries = self.backups.list().expect("a list");
        entries.iter().map(|entry| format!("{} {}", entry.path, entry.at.as_second())).collect()
    }

    /// How many files hold contents.
    fn contents(&self) -> usize {
        let names = fs::read_dir(self.root.path().join(FOLDER)).expect("the folder");
        names.filter(|name| name.as_ref().expect("a name").file_name().len() == 64).count()
    }

    fn content(&self, entry: &Entry) -> Result<String, BackupError> {
        let (sha256, _) = content_of(entry).expect("a regular file");
        let mut bytes = Vec::new();
        self.backups.copy_out(sha256, &mut bytes)?;
        Ok(String::from_utf8(bytes).expect("text"))
    }
}

#[test]
fn what_is_kept_comes_back_and_only_root_sees_it() {
    let state = state();
    assert_eq!(state.listed(), Vec::<String>::new(), "no folder, no backups");
    let entry = state.keep("/etc/a", "one", 1).expect("a backup");
    assert_eq!(state.content(&entry).expect("the content"), "one");
    assert_eq!(state.backups.list().expect("a list"), [entry]);
    let folder = state.root.path().join(FOLDER);
    let mode = |path: &Path| fs::metadata(path).expect("it").permissions().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    for file in fs::read_dir(&folder).expect("the folder") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
}

#[test]
fn the_same_bytes_are_held_once_and_the_same_thing_is_listed_once() {
    let state = state();
    state.keep("/etc/a", "same", 1).expect("a backup");
    state.keep("/etc/b", "same", 2).expect("a backup");
    state.keep("/etc/a", "same", 3).expect("a backup");
    assert_eq!((state.listed(), state.contents()), (vec!["/etc/a 3".to_owned(), "/etc/b 2".to_owned()], 1));
}

#[test]
fn the_oldest_edit_goes_first_and_what_was_taken_over_last() {
    let state = state();
    state.keep("/adopted", "a", 1).expect("a backup");
    for second in 2..9 {
        state.keep(&format!("/etc/{second}"), &format!("{second}"), second).expect("a backup");
    }
    assert_eq!(state.listed(), ["/etc/8 8", "/etc/7 7", "/etc/6 6", "/adopted 1"]);
    state.keep("/etc/large", &"x".repeat(98), 9).expect("a backup");
    assert_eq!(state.listed(), ["/etc/large 9", "/etc/8 8", "/adopted 1"], "bytes are bounded too");
    assert_eq!(state.contents(), 3);
    state.backups.ensure_bounded(at(3609));
    assert_eq!(state.listed(), ["/etc/large 9"], "what is older than an hour is gone");
}

#[test]
fn what_does_not_fit_or_changed_is_refused_and_leaves_nothing() {
    let state = state();
    let large = state.keep("/etc/a", &"x".repeat(101), 1);
    assert!(matches!(large, Err(BackupError::Large { size: 101, bound: 100 })), "{large:?}");
    let moved = state.keep_expecting("/etc/a", "now", Some(Digest::of(b"before")), 1);
    assert!(matches!(moved, Err(BackupError::Moved)), "{moved:?}");
    assert_eq!((state.listed(), state.contents()), (Vec::new(), 0));
}

#[test]
fn what_a_kill_left_goes_and_what_is_strange_takes_nothing_with_it() {
    let state = state();
    let entry = state.keep("/etc/a", "one", 1).expect("a backup");
    let folder = state.root.path().join(FOLDER);
    for name in [".tmpabc", &"0".repeat(64)] {
        fs::write(folder.join(name), "half").expect("a file");
    }
    fs::write(folder.join("newer.json"), "{\"version\":2}").expect("a file");
    state.backups.ensure_bounded(at(2));
    assert_eq!(state.contents(), 2, "an entry of another version may name any of the contents");
    fs::remove_file(folder.join("newer.json")).expect("the file");
    state.backups.ensure_bounded(at(2));
    assert_eq!((state.contents(), folder.join(".tmpabc").exists()), (1, false));
    assert_eq!(state.content(&entry).expect("the content"), "one");
}

#[test]
fn damage_is_noticed() {
    let state = state();
    let entry = state.keep("/etc/a", "one", 1).expect("a backup");
    let (sha256, _) = content_of(&entry).expect("a regular file");
    fs::write(state.root.path().join(FOLDER).join(sha256.to_string()), "two").expect("damage");
    assert!(matches!(state.content(&entry), Err(BackupError::Damaged(_))));
}
