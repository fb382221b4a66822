//! Mistakes in the repository, as `mainstay check` shows them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use spec::manifest;
use spec::tree::Entry;

use super::{Case, cases};
use crate::draw;
use crate::upstream::LIMITS;

/// What stands in for a fleet.yaml where the mistake lies elsewhere.
const FLEET: &str = "\
fleet: home
hosts:
  attic: { labels: { role: broker }, address: 192.0.2.10 }
  barn: { labels: { role: store }, address: 192.0.2.20 }
";

/// What stands in for an application.
const UNIT: &str = "[Service]\nExecStart=/usr/bin/web\n";

#[test]
fn mistakes_in_the_repository() {
    let mut unnoticed = Vec::new();
    for case in cases("repository") {
        let scratch = tempfile::tempdir().expect("a folder");
        let submodules = lay_out(&case, scratch.path());
        let mut tree = crate::folder::read(scratch.path(), &LIMITS).expect("a tree");
        tree.entries.extend(submodules.into_iter().map(|path| (path, Entry::Submodule)));
        let parsed = manifest::parse(&tree, None);
        if parsed.diagnostics.is_empty() {
            unnoticed.push(case.name);
            continue;
        }
        for it in &parsed.diagnostics {
            assert!(!it.help.is_empty(), "{}: {it}: it does not say what to do", case.name);
        }
        case.says("mainstay check", &draw::render(&parsed.diagnostics, &tree, false));
    }
    assert!(unnoticed.is_empty(), "nobody notices {unnoticed:?}");
}

/// Writes the files of a case into a folder; returns the submodules, which no folder has.
///
/// A file's path is followed by what is special about it: `(x)` is executable, `-> target` a link, `(crlf)` has the line ends of
/// Windows, `(bom)` begins with a byte order mark, `(latin-1)` is written so, `(17 MiB)` is filled up to that.
fn lay_out(case: &Case, root: &Path) -> Vec<String> {
    let is_there = |start: &str| case.files.iter().any(|(header, _)| header.starts_with(start));
    let is_empty = is_there("README.md");
    let mut files = case.files.clone();
    if !is_empty && !is_there("fleet.y") {
        files.push(("fleet.yaml".to_owned(), FLEET.to_owned()));
    }
    if !is_empty && !is_there("app") {
        files.push(("apps/web/web.service".to_owned(), UNIT.to_owned()));
    }
    let mut submodules = Vec::new();
    for (header, text) in files {
        let (path, special) = header.split_once(' ').unwrap_or((&header, ""));
        let place = root.join(path);
        fs::create_dir_all(place.parent().expect("a folder")).expect("folders");
        if special == "(submodule)" {
            submodules.push(path.to_owned());
        } else if let Some(target) = special.strip_prefix("-> ") {
            std::os::unix::fs::symlink(target, &place).expect("a link");
        } else {
            fs::write(&place, bytes(&text, special)).expect("a file");
            let mode = if special.contains("(x)") { 0o755 } else { 0o644 };
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("a mode");
        }
    }
    submodules
}

fn bytes(text: &str, special: &str) -> Vec<u8> {
    let mut bytes = match special.contains("(latin-1)") {
        true => text.chars().map(|it| u8::try_from(u32::from(it)).expect("a character of Latin-1")).collect(),
        false => text.as_bytes().to_vec(),
    };
    if special.contains("(crlf)") {
        bytes = text.replace('\n', "\r\n").into_bytes();
    }
    if special.contains("(bom)") {
        bytes.splice(0..0, "\u{feff}".bytes());
    }
    if special.contains("(17 MiB)") {
        bytes.resize(17 << 20, 0);
    }
    bytes
}
