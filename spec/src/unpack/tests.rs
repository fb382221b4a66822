//! What is admitted, entry by entry; archives as they are made are tried where they are read.

use super::*;

fn origin(into: &str, strip: usize) -> Origin {
    let unpack = Unpack { into: HostPath::parse(into).expect("a path"), strip };
    Origin { url: String::new(), sha256: Digest::of(b""), limit: 100, unpack: Some(unpack) }
}

/// Lists entries that are given as `path`, `path/`, `path -> target` or `path => hard link`.
fn check(into: &str, strip: usize, entries: &[&str]) -> String {
    let origin = origin(into, strip);
    let mut listing = Listing::new(&origin, origin.unpack.as_ref().expect("an archive"));
    for text in entries {
        let (path, kind) = match (text.split_once(" -> "), text.split_once(" => ")) {
            (Some((path, target)), _) => (path, Kind::Symlink(target.as_bytes())),
            (_, Some((path, target))) => (path, Kind::Hardlink(target.as_bytes())),
            _ if text.ends_with('/') => (*text, Kind::Directory),
            _ => (*text, Kind::File),
        };
        let entry = Entry { path: path.as_bytes(), kind, mode: 0o644, size: 1 };
        match listing.admit(&entry) {
            Ok(Admitted::Content(name)) => listing.took(&name, Digest::of(b"content")),
            Ok(Admitted::Noted) => {}
            Err(refused) => return refused.to_string(),
        }
    }
    match listing.finish() {
        Ok(inventory) => inventory.members.into_keys().collect::<Vec<_>>().join(" "),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn folders_are_made_and_named_once() {
    assert_eq!(check("/opt/x", 0, &["a/b/c", "a/", "a/b/", "./a/d => a/b/c"]), "a a/b a/b/c a/d");
    assert_eq!(check("/opt/x", 0, &["./"]), "there is nothing in it");
}

#[test]
fn links_stay_inside() {
    for good in ["a/b -> ../c", "a/b/c -> ../../d/e", "a -> b/c", "a -> ./b", "a/b -> .."] {
        assert_eq!(check("/opt/x", 0, &[good]), good.split(" -> ").next().map(with_folders).expect("a name"), "{good}");
    }
    for bad in ["a -> ..", "a -> /x", "a/b -> ../../c", "a -> b/../..", "a/b -> c/../../..", "a -> b/..", "a -> "] {
        assert!(check("/opt/x", 0, &[bad]).contains("is a link that leads out"), "{bad}");
    }
}

fn with_folders(name: &str) -> String {
    let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| &name[..end]).collect::<Vec<_>>().join(" ")
}

#[test]
fn guarded_paths_stay_guarded() {
    let said = check("/home/ann", 0, &[".ssh/authorized_keys"]);
    assert!(said.contains("would be /home/ann/.ssh/authorized_keys, which is guarded"), "{said}");
    assert!(check("/usr/local", 0, &["bin/mainstay"]).contains("which is guarded"));
}
