//! Real files in a temporary folder: what is written, what is left alone, and what an attacker beside us gains.

mod attacks;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;

/// A temporary folder and a disk to change it with.
struct Folder {
    root: tempfile::TempDir,
    disk: Disk,
    app: AppName,
}

fn folder() -> Folder {
    let root = tempfile::tempdir().expect("a temporary folder");
    Folder { root, disk: Disk::new("home", Store::default()), app: AppName::parse("web").expect("a name") }
}

fn regular(content: &str, mode: u32) -> DesiredFile {
    let kind = FileKind::Regular { content: content.as_bytes().into(), digest: Digest::of(content.as_bytes()) };
    wanted(kind, mode)
}

fn wanted(kind: FileKind, mode: u32) -> DesiredFile {
    DesiredFile { kind, mode: Mode::from_bits(mode), owner: "root".to_owned(), group: "root".to_owned() }
}

fn own(mode: u32) -> Access {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Access { mode: Mode::from_bits(mode), uid, gid }
}

impl Folder {
    fn at(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().expect("the folder").join(name)
    }

    fn path(&self, name: &str) -> HostPath {
        HostPath::parse(self.at(name).to_str().expect("UTF-8")).expect("a path")
    }

    /// Writes one file over what is there now.
    fn put(&mut self, name: &str, file: &DesiredFile) -> Result<Vec<HostPath>, DiskError> {
        let expected = self.disk.look(&self.path(name));
        self.put_over(name, file, &expected)
    }

    /// Writes one file over what is said to be there.
    fn put_over(&mut self, name: &str, file: &DesiredFile, expected: &FileState) -> Result<Vec<HostPath>, DiskError> {
        let (path, app) = (self.path(name), self.app.clone());
        let write = Write { path: &path, file, access: own(file.mode.bits()), expected, app: &app };
        self.disk.write(&[write]).pop().expect("one result")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).expect("a file")
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.at(name)).expect("a file").permissions().mode() & 0o7777
    }

    /// Everything in the folder, hidden files too.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(name)).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_file_has_its_content_mode_and_mark_and_nothing_else_is_left() {
    let mut folder = folder();
    folder.put("a", &regular("one", 0o640)).expect("a write");
    folder.put("a", &regular("two", 0o4755)).expect("a write over it");
    assert_eq!((folder.read("a"), folder.mode("a")), ("two".to_owned(), 0o4755));
    assert_eq!(folder.names("."), ["a"]);
    let FileState::Regular { digest, access, mark, .. } = folder.disk.look(&folder.path("a")) else { panic!() };
    assert_eq!((digest, access), (Digest::of(b"two"), own(0o4755)));
    match rustix::process::geteuid().is_root() {
        true => assert_eq!(mark, Some(folder.app.clone())),
        false => eprintln!("skipped: only root may write trusted.* attributes"),
    }
}

#[test]
fn only_this_fleets_mark_counts() {
    let mut folder = folder();
    folder.put("a", &regular("one", 0o644)).expect("a write");
    let mark = |disk: &mut Disk, path: &HostPath| match disk.look(path) {
        FileState::Regular { mark, .. } => mark,
        other => panic!("{other:?}"),
    };
    let path = folder.path("a");
    for other in ["hom", "homer", "other", ""] {
        assert_eq!(mark(&mut Disk::new(other, Store::default()), &path), None, "{other:?}");
    }
    fs::write(folder.at("theirs"), "x").expect("a file");
    let theirs = folder.path("theirs");
    assert_eq!(mark(&mut folder.disk, &theirs), None);
}

#[test]
fn a_link_is_made_and_replaced_whole() {
    let mut folder = folder();
    let link = |target: &str| wanted(FileKind::Symlink { target: target.to_owned() }, 0o777);
    folder.put("a", &link("/nowhere")).expect("a link");
    folder.put("a", &link("elsewhere")).expect("a link over it");
    assert_eq!(fs::read_link(folder.at("a")).expect("a link"), PathBuf::from("elsewhere"));
    folder.put("a", &regular("file", 0o600)).expect("a file over a link");
    assert_eq!((folder.read("a"), folder.names(".")), ("file".to_owned(), vec!["a".to_owned()]));
}

#[test]
fn a_link_at_the_path_is_replaced_and_its_target_left_alone() {
    let mut folder = folder();
    fs::write(folder.at("target"), "theirs").expect("a file");
    symlink("target", folder.at("a")).expect("a link");
    folder.put("a", &regular("ours", 0o644)).expect("a write");
    assert_eq!((folder.read("a"), folder.read("target")), ("ours".to_owned(), "theirs".to_owned()));
}

#[test]
fn a_link_among_the_parents_is_named_and_nothing_is_written_through_it() {
    let mut folder = folder();
    fs::create_dir_all(folder.at("real/deep")).expect("folders");
    symlink("real", folder.at("link")).expect("a link");
    let error = folder.put_over("link/deep/a", &regular("x", 0o644), &FileState::Absent).expect_err("a link");
    assert!(matches!(&error, DiskError::Link(link) if *link == folder.path("link").to_string()), "{error}");
    assert_eq!(folder.names("real/deep"), Vec::<String>::new());
    assert!(
        matches!(folder.disk.look(&folder.path("link/deep/a")), FileState::Unknown(why) if why.contains("/link is"))
    );
    assert_eq!(Disk::missing_parents(&folder.path("link/new/a")), [], "what is behind a link is not missing");
    let FileState::Symlink { target, .. } = folder.disk.look(&folder.path("link")) else { panic!() };
    assert_eq!(target, "real");
}

#[test]
fn what_changed_since_the_look_is_not_overwritten() {
    let mut folder = folder();
    let absent = FileState::Absent;
    fs::write(folder.at("a"), "theirs").expect("a file");
    let before = folder.disk.look(&folder.path("a"));
    assert!(matches!(folder.put_over("a", &regular("ours", 0o644), &absent), Err(DiskError::Moved)));
    fs::write(folder.at("a"), "edited").expect("a file");
    assert!(matches!(folder.put_over("a", &regular("ours", 0o644), &before), Err(DiskError::Moved)));
    fs::remove_file(folder.at("a")).expect("removal");
    assert!(matches!(folder.put_over("a", &regular("ours", 0o644), &before), Err(DiskError::Moved)));
    assert_eq!(folder.names("."), Vec::<String>::new(), "no temporary file is left");
}

#[test]
fn what_appears_after_the_last_look_is_not_replaced() {
    let folder = folder();
    let (path, app, file) = (folder.path("a"), folder.app.clone(), regular("ours", 0o644));
    let write = Write { path: &path, file: &file, access: own(0o644), expected: &FileState::Absent, app: &app };
    let prepared = folder.disk.prepare(&write).expect("a temporary file");
    fs::write(folder.at("a"), "theirs").expect("a file");
    assert!(matches!(swap::appear(&prepared, "a"), Err(DiskError::Moved)));
    assert_eq!((folder.read("a"), folder.names(".")), ("theirs".to_owned(), vec!["a".to_owned()]));
}

#[test]
fn an_abandoned_temporary_file_is_replaced() {
    let mut folder = folder();
    let (path, app, file) = (folder.path("a"), folder.app.clone(), regular("ours", 0o600));
    let write = Write { path: &path, file: &file, access: own(0o600), expected: &FileState::Absent, app: &app };
    let abandoned = folder.disk.prepare(&write).expect("a temporary file").temporary;
    fs::set_permissions(folder.at(&abandoned), fs::Permissions::from_mode(0o666)).expect("a mode");
    folder.put("a", &file).expect("a write");
    assert_eq!((folder.names("."), folder.mode("a")), (vec!["a".to_owned()], 0o600));
    // It may also be a link that somebody put there.
    fs::write(folder.at("target"), "theirs").expect("a file");
    symlink("target", folder.at(&abandoned)).expect("a link");
    folder.put("a", &regular("again", 0o600)).expect("a write");
    assert_eq!((folder.read("a"), folder.read("target")), ("again".to_owned(), "theirs".to_owned()));
}

#[test]
fn directories_are_made_for_files_and_reported() {
    let mut folder = folder();
    let missing = Disk::missing_parents(&folder.path("x/y/z/a"));
    assert_eq!(missing, ["x/y/z", "x/y", "x"].map(|name| folder.path(name)));
    let made = folder.put("x/y/z/a", &regular("deep", 0o600)).expect("a write");
    assert_eq!(made, ["x", "x/y", "x/y/z"].map(|name| folder.path(name)));
    assert_eq!(["x", "x/y", "x/y/z"].map(|name| folder.mode(name)), [0o755; 3]);
    assert_eq!(folder.put("x/y/b", &regular("b", 0o600)).expect("a write"), []);
    assert_eq!(Disk::missing_parents(&folder.path("x/y/z/b")), []);
}

#[test]
fn a_directory_is_made_with_its_mode_and_removed_when_empty() {
    let mut folder = folder();
    let directory = wanted(FileKind::Directory, 0o2750);
    folder.put("d", &directory).expect("a directory");
    assert_eq!(folder.mode("d"), 0o2750);
    let path = folder.path("d");
    assert_eq!(folder.disk.look(&path), FileState::Directory { access: own(0o2750), empty: true });
    fs::write(folder.at("d/theirs"), "x").expect("a file");
    assert!(matches!(folder.disk.look(&path), FileState::Directory { empty: false, .. }));
    assert!(!Disk::remove_directory(&path).expect("an answer"), "somebody's file is in it");
    fs::remove_file(folder.at("d/theirs")).expect("removal");
    assert!(Disk::remove_directory(&path).expect("an answer"));
    assert!(Disk::remove_directory(&path).expect("an answer"), "what is gone is gone");
    fs::write(folder.at("d"), "x").expect("a file");
    folder.put("d", &directory).expect_err("a file is in the way");
    assert_eq!(folder.read("d"), "x");
}

#[test]
fn access_is_set_where_the_content_is_what_was_seen() {
    let mut folder = folder();
    fs::write(folder.at("a"), "x").expect("a file");
    let path = folder.path("a");
    let seen = folder.disk.look(&path);
    folder.disk.set_access(&path, own(0o4711), &seen).expect("a mode");
    assert_eq!(folder.mode("a"), 0o4711);
    assert!(matches!(folder.disk.set_access(&path, own(0o600), &seen), Err(DiskError::Moved)));
    assert_eq!(folder.mode("a"), 0o4711);

    symlink("a", folder.at("link")).expect("a link");
    let link = folder.path("link");
    let seen = folder.disk.look(&link);
    folder.disk.set_access(&link, own(0o600), &seen).expect("links have no mode");
    assert_eq!(folder.mode("a"), 0o4711, "the link was not followed");

    fs::create_dir(folder.at("d")).expect("a directory");
    let directory = folder.path("d");
    let seen = folder.disk.look(&directory);
    folder.disk.set_access(&directory, own(0o700), &seen).expect("a mode");
    assert_eq!(folder.mode("d"), 0o700);
}

#[test]
fn a_file_is_removed_where_it_is_what_was_seen() {
    let mut folder = folder();
    fs::write(folder.at("a"), "x").expect("a file");
    let path = folder.path("a");
    let seen = folder.disk.look(&path);
    fs::write(folder.at("a"), "y").expect("an edit");
    assert!(matches!(folder.disk.remove(&path, &seen), Err(DiskError::Moved)));
    assert_eq!(folder.read("a"), "y");
    let seen = folder.disk.look(&path);
    folder.disk.remove(&path, &seen).expect("removal");
    assert_eq!(folder.disk.look(&path), FileState::Absent);
}

#[test]
fn a_batch_of_any_size_is_written_and_one_failure_is_one_failure() {
    for count in [1, SYNCFS_FROM - 1, SYNCFS_FROM, 40] {
        let mut folder = folder();
        fs::create_dir(folder.at("real")).expect("a directory");
        symlink("real", folder.at("link")).expect("a link");
        let mut paths: Vec<HostPath> = (0..count).map(|n| folder.path(&format!("d{}/{n}", n % 3))).collect();
        paths.push(folder.path("link/a"));
        let (app, file) = (folder.app.clone(), regular("same", 0o644));
        let write = |path| Write { path, file: &file, access: own(0o644), expected: &FileState::Absent, app: &app };
        let writes: Vec<Write<'_>> = paths.iter().map(write).collect();
        let results = folder.disk.write(&writes);
        assert!(results[..count].iter().all(Result::is_ok), "{count}: {results:?}");
        assert!(matches!(results[count], Err(DiskError::Link(_))), "{count}");
        assert!((0..count).all(|n| folder.read(&format!("d{}/{n}", n % 3)) == "same"), "{count}");
        assert_eq!(folder.names("real"), Vec::<String>::new());
    }
}

#[test]
fn what_is_no_file_is_left_alone_without_waiting_for_it() {
    let mut folder = folder();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.at("pipe"), Bits::RUSR).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(folder.at("socket")).expect("a socket");
    for name in ["pipe", "socket"] {
        assert_eq!(folder.disk.look(&folder.path(name)), FileState::Other);
        assert_eq!(Disk::read(&folder.path(name), 100), None);
    }
}

#[test]
fn a_huge_file_is_not_read() {
    let mut folder = folder();
    let sparse = File::create(folder.at("a")).expect("a file");
    sparse.set_len(LARGEST + 1).expect("a sparse file");
    let FileState::Unknown(why) = folder.disk.look(&folder.path("a")) else { panic!() };
    assert!(why.contains(&format!("{} bytes", LARGEST + 1)), "{why}");
    assert_eq!(Disk::read(&folder.path("a"), 1 << 20), None);
}

#[test]
fn an_edit_of_the_same_size_right_after_a_look_is_seen() {
    let mut folder = folder();
    let path = folder.path("a");
    for round in 0..300 {
        let texts = [format!("{round:04} a"), format!("{round:04} b")];
        for text in &texts {
            fs::write(folder.at("a"), text).expect("an edit");
            let FileState::Regular { digest, .. } = folder.disk.look(&path) else { panic!() };
            assert_eq!(digest, Digest::of(text.as_bytes()));
        }
    }
}

#[test]
fn an_edit_that_puts_its_time_back_is_seen() {
    let mut folder = folder();
    let path = folder.path("a");
    fs::write(folder.at("a"), "one").expect("a file");
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(folder.at("a")).and_then(|file| file.set_modified(old)).expect("a time");
    let inode = fs::metadata(folder.at("a")).expect("a file").ino();
    folder.disk.look(&path);
    fs::write(folder.at("a"), "two").expect("an edit");
    File::options().write(true).open(folder.at("a")).and_then(|file| file.set_modified(old)).expect("a time");
    assert_eq!(fs::metadata(folder.at("a")).expect("a file").ino(), inode);
    let FileState::Regular { digest, .. } = folder.disk.look(&path) else { panic!() };
    assert_eq!(digest, Digest::of(b"two"));
}

#[test]
fn an_edit_after_the_last_look_is_back_at_the_end() {
    let mut folder = folder();
    let (path, app, file) = (folder.path("a"), folder.app.clone(), regular("ours", 0o644));
    fs::write(folder.at("a"), "theirs").expect("a file");
    let seen = folder.disk.look(&path);
    let write = Write { path: &path, file: &file, access: own(0o644), expected: &seen, app: &app };
    let prepared = folder.disk.prepare(&write).expect("a temporary file");
    fs::write(folder.at("a"), "an edit").expect("an edit");
    assert!(matches!(folder.disk.replace(&write, &prepared, "a"), Err(DiskError::Moved)));
    assert!(matches!(folder.disk.remove_from(&prepared.parent, &path, &seen), Err(DiskError::Moved)));
    assert_eq!((folder.read("a"), folder.names(".")), ("an edit".to_owned(), vec!["a".to_owned()]));
}

#[test]
fn what_a_kill_left_aside_is_kept_unless_it_is_known() {
    let mut folder = folder();
    let paths = ["a", "b", "c"].map(|name| folder.path(name));
    fs::write(folder.at(&temporary(&paths[0])), "an edit").expect("a file");
    symlink("/somewhere", folder.at(&temporary(&paths[1]))).expect("a link");
    fs::write(folder.at(&temporary(&paths[2])), "cannot be kept").expect("a file");
    let mut kept = Vec::new();
    folder.disk.ensure_swept(paths.iter(), |path, original| {
        kept.push((path.clone(), original.expected));
        if *path == paths[2] { Err("no room".to_owned()) } else { Ok(()) }
    });
    let expected = [Some(Digest::of(b"an edit")), None, Some(Digest::of(b"cannot be kept"))];
    assert_eq!(kept, paths.iter().cloned().zip(expected).collect::<Vec<_>>());
    assert_eq!(folder.names("."), [temporary(&paths[2])]);
}

#[test]
fn what_takes_long_to_read_is_left_for_when_nobody_waits() {
    let mut folder = folder();
    for (name, length) in [("a", WHILE_OTHERS_THINK - 1), ("b", 2), ("c", 1), ("huge", LARGEST + 1)] {
        File::create(folder.at(name)).and_then(|file| file.set_len(length)).expect("a sparse file");
        let past = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(folder.at(name)).and_then(|file| file.set_modified(past)).expect("a time");
    }
    let paths = ["a", "b", "c", "huge", "missing"].map(|name| folder.path(name));
    let mut found = BTreeMap::new();
    assert_eq!(folder.disk.look_quickly(&paths, &mut found), [&paths[1], &paths[3]]);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&paths[0], &paths[2], &paths[4]]);
    assert!(matches!(folder.disk.look(&paths[1]), FileState::Regular { .. }));
    let huge = folder.disk.look(&paths[3]);
    assert!(matches!(&huge, FileState::Unknown(why) if why.contains("more than the")), "{huge:?}");
}
