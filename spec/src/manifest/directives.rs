//! Which sections and directives systemd knows, from the list beside this file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The list: `[Section]` lines followed by names.
const DIRECTIVES: &str = include_str!("directives.txt");

/// The list for quadlets, in the same form.
const QUADLET_KEYS: &str = include_str!("quadlet_keys.txt");

/// The list, by section.
static SECTIONS: LazyLock<Sections> = LazyLock::new(|| by_section(DIRECTIVES));
static QUADLET_SECTIONS: LazyLock<Sections> = LazyLock::new(|| by_section(QUADLET_KEYS));

type Sections = BTreeMap<&'static str, BTreeSet<&'static str>>;

fn by_section(list: &'static str) -> Sections {
    let mut sections: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut section = "";
    for word in list.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace) {
        match word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => section = name,
            None => {
                sections.entry(section).or_default().insert(word);
            }
        }
    }
    sections
}

/// Returns the parts of the list that count for `section`.
fn parts(section: &str) -> impl Iterator<Item = &'static BTreeSet<&'static str>> {
    let executes = matches!(section, "Service" | "Socket" | "Mount");
    let shared = if executes { SECTIONS.get("Shared") } else { None };
    SECTIONS.get(section).into_iter().chain(shared)
}

/// Iterates over the directives that may stand in `section`.
pub(super) fn of(section: &str) -> impl Iterator<Item = &'static str> {
    parts(section).flatten().copied()
}

/// Says whether `directive` may stand in `section`.
pub(super) fn is_known(section: &str, directive: &str) -> bool {
    parts(section).any(|part| part.contains(directive))
}

/// Iterates over the keys that Podman knows in a section of a quadlet.
pub(super) fn quadlet_keys(section: &str) -> impl Iterator<Item = &'static str> {
    QUADLET_SECTIONS.get(section).into_iter().flatten().copied()
}

/// Says whether Podman knows `key` in a section of a quadlet.
pub(super) fn is_quadlet_key(section: &str, key: &str) -> bool {
    QUADLET_SECTIONS.get(section).is_some_and(|keys| keys.contains(key))
}

/// Finds another section in which `directive` is known.
pub(super) fn home(directive: &str, sections: &[&'static str]) -> Option<&'static str> {
    sections.iter().copied().find(|section| is_known(section, directive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_a_home() {
        assert!(is_known("Service", "ExecStart") && is_known("Service", "User") && is_known("Unit", "After"));
        assert!(!is_known("Unit", "ExecStart") && !is_known("Timer", "User") && !is_known("Service", "execstart"));
        assert_eq!(home("WantedBy", &["Unit", "Install"]), Some("Install"));
        assert!(DIRECTIVES.lines().all(|line| line.len() <= 120), "the list stays readable");
    }
}
