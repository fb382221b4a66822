//! Archives, good ones and traps, made here and taken in by a store.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use spec::artifact::Unpack;
use spec::digest::Digest;
use spec::id::HostPath;
use spec::unpack::Member;
use tar::{Builder, Header};

use super::*;

/// An entry: its type, path, link target, mode and content.
type Made<'m> = (EntryType, &'m str, &'m str, u32, &'m str);

const FILE: EntryType = EntryType::Regular;

fn tar_of(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, target, mode, content) in entries {
        let mut header = Header::new_gnu();
        // The crate's own setters refuse what a trap needs.
        let fields = header.as_gnu_mut().expect("a GNU header");
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

fn pax(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// Takes an archive in; returns what is in it, one line each, or why it is refused.
fn check(archive: &[u8], strip: usize, limit: u64) -> String {
    let state = tempfile::tempdir().expect("a folder");
    let store = Store::of(state.path(), Arc::default());
    let sha256 = Digest::of(archive);
    let mut incoming = store.begin(sha256).expect("begun");
    incoming.write(archive).expect("written");
    incoming.finish().expect("finished");
    let unpack_into = Unpack { into: HostPath::parse("/opt/app").expect("a path"), strip };
    let origin = Origin { url: String::new(), sha256, limit, unpack: Some(unpack_into) };
    if let Err(error) = unpack(&store, &origin) {
        assert!(!store.holds(&origin), "what is refused does not count");
        return error.to_string();
    }
    assert!(store.holds(&origin), "everything is there");
    let inventory = store.list(origin.key()).expect("a list");
    let lines = inventory.members.into_iter().map(|(name, member)| match member {
        Member::Directory => format!("{name}/"),
        Member::Link { target } => format!("{name} -> {target}"),
        Member::File { digest, executable } => {
            let copy = state.path().join("copy");
            store.copy_out(digest, &mut File::create(&copy).expect("a file")).expect("copied");
            let content = std::fs::read_to_string(&copy).expect("text");
            format!("{name}{} {content}", if executable { "*" } else { "" })
        }
    });
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_in_an_archive_is_taken_in() {
    let entries = [
        (EntryType::XGlobalHeader, "pax_global_header", "", 0o644, &*pax("comment", "1f2e3d")),
        (EntryType::Directory, "./app-1/", "", 0o755, ""),
        (FILE, "./app-1/bin/run", "", 0o700, "#!"),
        (EntryType::Link, "./app-1/bin/also", "app-1/bin/run", 0o700, ""),
        (FILE, "./app-1/conf", "", 0o666, "a=1"),
        (EntryType::Symlink, "./app-1/bin/conf", "../conf", 0o777, ""),
    ];
    let plain = tar_of(&entries);
    let expected = "bin/, bin/also* #!, bin/conf -> ../conf, bin/run* #!, conf a=1";
    assert_eq!(check(&plain, 1, 100), expected);
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&plain).expect("compressed");
    assert_eq!(check(&gz.finish().expect("compressed"), 1, 100), expected);

    let long = "long/".repeat(40);
    let names = [
        (EntryType::XHeader, "x", "", 0o644, &*pax("path", &format!("{long}pax"))),
        (FILE, "short", "", 0o644, "1"),
        (EntryType::GNULongName, "././@LongLink", "", 0o644, &*format!("{long}gnu\0")),
        (FILE, "short", "", 0o644, "2"),
        (FILE, "plain", "", 0o644, "3"),
    ];
    let read = check(&tar_of(&names), 0, 100);
    assert!(read.ends_with(&format!("{long}gnu 2, {long}pax 1, plain 3")), "{read}");
}

#[test]
fn traps_are_refused() {
    let large = "x".repeat(2 << 20);
    let one = |kind, path, target, mode| tar_of(&[(kind, path, target, mode, "")]);
    for (trap, expected) in [
        (one(FILE, "/etc/passwd", "", 0o644), "`/etc/passwd` in it has a path that is absolute or leads upwards"),
        (one(FILE, "a/../../etc/x", "", 0o644), "has a path that is absolute or leads upwards"),
        (one(FILE, "..", "", 0o644), "has a path that is absolute or leads upwards"),
        (one(EntryType::Symlink, "a", "/etc", 0o777), "is a link that leads out of the directory"),
        (one(EntryType::Symlink, "a/b", "../../etc", 0o777), "is a link that leads out of the directory"),
        (one(EntryType::Symlink, "a", "b/../../etc", 0o777), "is a link that leads out of the directory"),
        (one(EntryType::Symlink, "a", "", 0o777), "is a link that leads out of the directory, or nowhere"),
        (one(EntryType::Link, "a", "/etc/shadow", 0o644), "is a link to something that is no file before it"),
        (one(EntryType::Link, "a", "../b", 0o644), "is a link to something that is no file before it"),
        (one(EntryType::Char, "a", "", 0o644), "is neither a file nor a directory nor a link"),
        (one(EntryType::Block, "a", "", 0o644), "is neither a file nor a directory nor a link"),
        (one(EntryType::Fifo, "a", "", 0o644), "is neither a file nor a directory nor a link"),
        (one(EntryType::GNUSparse, "a", "", 0o644), "is neither a file nor a directory nor a link"),
        (one(FILE, "a", "", 0o4755), "`a` in it has the setuid or setgid bit"),
        (one(EntryType::Directory, "a/", "", 0o2755), "has the setuid or setgid bit"),
        (one(FILE, "a\nb", "", 0o644), "has a name that no path on a host should have"),
        (one(FILE, "a\\b", "", 0o644), "has a name that no path on a host should have"),
        (tar_of(&[(FILE, "a", "", 0o644, "1"), (FILE, "./a", "", 0o644, "2")]), "`a` in it is there twice"),
        (
            tar_of(&[(EntryType::Symlink, "a", "b", 0o777, ""), (FILE, "a/x", "", 0o644, "")]),
            "`a/x` in it lies below something that is no directory",
        ),
        (
            tar_of(&[(FILE, "a", "", 0o644, "1"), (FILE, "a/x", "", 0o644, "")]),
            "lies below something that is no directory",
        ),
        (tar_of(&[(EntryType::Directory, "a", "", 0o755, "content")]), "something in it that is no file has a content"),
        (tar_of(&[(FILE, "a", "", 0o644, &"x".repeat(101))]), "it holds more than 100 bytes"),
        (tar_of(&[(EntryType::GNULongName, "x", "", 0o644, &large)]), "a header in it is too large"),
        (
            tar_of(&[(EntryType::XHeader, "x", "", 0o644, &pax("size", "1")), (FILE, "a", "", 0o644, "")]),
            "an extended header in it gives another size",
        ),
        (
            tar_of(&[(EntryType::XHeader, "x", "", 0o644, &pax("path", "../a")), (FILE, "a", "", 0o644, "")]),
            "`../a` in it has a path that is absolute or leads upwards",
        ),
        (
            tar_of(&[(EntryType::XGlobalHeader, "x", "", 0o644, &pax("path", "a"))]),
            "a global header in it changes what follows",
        ),
        (tar_of(&[(EntryType::XHeader, "x", "", 0o644, &pax("GNU.sparse.major", "1"))]), "a file in it is sparse"),
        (tar_of(&[]), "there is nothing in it"),
        (b"PK\x03\x04 and more".to_vec(), "it is compressed with zip; tar and tar.gz are unpacked"),
    ] {
        let said = check(&trap, 0, 100);
        assert!(said.starts_with("the archive is refused: ") && said.contains(expected), "{expected}: {said}");
    }
    let mut not_text = one(FILE, "aa", "", 0o644);
    not_text[0] = 0xff;
    assert!(check(&not_text, 0, 100).contains("cannot be read"), "its checksum is wrong");
    assert!(check(b"no archive at all", 0, 100).contains("cannot be read"));
    let cut = tar_of(&[(FILE, "a", "", 0o644, "0123456789")]);
    assert!(check(&cut[..515], 0, 100).contains("cannot be read"));
}

#[test]
fn a_bomb_and_a_flood_are_refused() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(&tar_of(&[(FILE, "a", "", 0o644, &"\0".repeat(4 << 20))])).expect("compressed");
    let bomb = gz.finish().expect("compressed");
    assert!(bomb.len() < 20_000 && check(&bomb, 0, 1 << 20).contains("more than 1048576 bytes"));
    let names: Vec<String> = (0..=MOST_ENTRIES).map(|index| format!("f{index}")).collect();
    let flood: Vec<Made<'_>> = names.iter().map(|name| (EntryType::Directory, name.as_str(), "", 0o755, "")).collect();
    assert!(check(&tar_of(&flood), 0, 100).contains("it holds more than 5000 entries"));
    let headers = pax("comment", "x");
    let many: Vec<Made<'_>> =
        (0..=MOST_HEADERS).map(|_| (EntryType::XHeader, "x", "", 0o644, headers.as_str())).collect();
    assert!(check(&tar_of(&many), 0, 100).contains("too many headers"));
}

#[test]
fn what_is_stripped_is_folders() {
    let entries =
        [(EntryType::Directory, "app/", "", 0o755, ""), (FILE, "app/a", "", 0o644, "1"), (FILE, "b", "", 0o644, "2")];
    assert_eq!(check(&tar_of(&entries[..2]), 1, 100), "a 1");
    assert!(check(&tar_of(&entries), 1, 100).contains("`b` in it lies above what `strip: 1` leaves"));
    let twice = [(FILE, "one/a", "", 0o644, "1"), (FILE, "two/a", "", 0o644, "2")];
    assert!(check(&tar_of(&twice), 1, 100).contains("is there twice"));
}
