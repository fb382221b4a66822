//! What tools leave in files and nobody means: the marks of a merge, a pointer instead of a file, a template that nobody renders.
//!
//! Looked for in every file that a host would get or mainstay reads, because nothing else would notice before a service does.

use std::collections::BTreeSet;

use super::folder;
use super::page::{Extent, Page};
use crate::diagnostic::Diagnostic;
use crate::tree::{Entry, Tree};

/// The first line of what git LFS keeps in the repository instead of a file.
pub(super) const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n";

/// What our templates are given, as far as nobody else's have it.
const NAMES: [&str; 7] =
    ["vars.", "endpoints.", "host.name", "host.address", "host.labels", "host.environment", "secret("];

/// Complains about traces in the repository's files. Returns those with the marks of a merge: all else that is said of them follows
/// from the marks.
pub(super) fn check(tree: &Tree, diagnostics: &mut Vec<Diagnostic>) -> BTreeSet<String> {
    let mut merging = BTreeSet::new();
    for (path, entry) in &tree.entries {
        let Entry::File { bytes, .. } = entry else { continue };
        let within = path.strip_prefix("apps/").and_then(|rest| rest.split_once('/')).map(|(_, within)| within);
        let is_read = path == super::FLEET || path.starts_with("hosts/");
        let is_for_people = within.is_some_and(|within| !within.contains('/') && folder::is_for_people(within));
        if is_for_people || !(is_read || within.is_some()) {
            continue;
        }
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        let mut page = Page::new(path, text);
        if let Some(extent) = conflict(text) {
            page.error("merge-conflict", extent, "a merge conflict was committed as it stood")
                .help("keep one of the two sides, and remove the lines with `<<<<<<<`, `=======` and `>>>>>>>`");
            merging.insert(path.clone());
        } else if let Some(rest) = text.strip_prefix(POINTER) {
            complain_pointer(&mut page, rest);
        } else if within.is_some_and(is_taken_as_it_is) {
            warn_unrendered(&mut page, path);
        }
        page.close(diagnostics);
    }
    merging
}

/// Finds the first mark of a conflict; one of the three alone may be a heading or an example.
fn conflict(text: &str) -> Option<Extent> {
    if !text.contains("<<<<<<< ") {
        return None;
    }
    let mut start = 0;
    let mut first = None;
    let mut parted = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        match first {
            None if bare.starts_with("<<<<<<< ") => first = Some(Extent::new(start, start + bare.len())),
            Some(_) if bare == "=======" => parted = true,
            Some(_) if parted && bare.starts_with(">>>>>>> ") => return first,
            _ => {}
        }
        start += line.len();
    }
    None
}

fn complain_pointer(page: &mut Page<'_>, rest: &str) {
    let digest = rest.lines().find_map(|line| line.strip_prefix("oid sha256:")).unwrap_or("…").to_owned();
    let message = "this is a pointer of git LFS and not the file: mainstay fetches nothing but commits";
    page.error("lfs-pointer", Extent::new(0, POINTER.len() - 1), message).help(format!(
        "let hosts fetch the file, with artifacts: {{ /path: {{ url: \"https://…\", sha256: \"{}\" }} }} in app.yaml, or commit \
         the file itself",
        crate::id::shown(&digest)
    ));
}

/// Says whether a file of an application goes to the host without being rendered.
fn is_taken_as_it_is(within: &str) -> bool {
    let name = within.rsplit('/').next().unwrap_or_default();
    !name.ends_with(".j2") && name != "app.yaml" && !folder::COMPOSE.contains(&name)
}

fn warn_unrendered(page: &mut Page<'_>, path: &str) {
    let found = page.text.match_indices("{{").find_map(|(at, _)| {
        let inner = page.text[at + 2..].trim_start_matches(['-', ' ']);
        let is_ours = NAMES.iter().any(|name| inner.starts_with(name));
        let end = is_ours.then(|| page.text[at..].find("}}"))??;
        Some(Extent::new(at, at + end + 2))
    });
    if let Some(extent) = found {
        let name = path.rsplit('/').next().unwrap_or_default();
        page.warning("template-unrendered", extent, "this goes to the host as it stands: only *.j2 files are rendered")
            .help(format!("rename the file to {}.j2", crate::id::shown(name)));
    }
}
