//! Builds trees from text, and prints what came out.

use expect_test::Expect;
use spec::diagnostic::{Diagnostic, Severity};
use spec::manifest::{self, Parsed};
use spec::tree::{Entry, Tree};

/// Builds a tree from `-- path --` headers, each followed by the file's text.
///
/// `-- path (x) --` is executable, `-- path -> target --` a symbolic link, `-- path (submodule) --` a submodule.
pub(crate) fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    let mut current: Option<(String, String)> = None;
    let close = |current: Option<(String, String)>, tree: &mut Tree| {
        let Some((header, body)) = current else { return };
        if let Some((path, target)) = header.split_once(" -> ") {
            tree.entries.insert(path.to_owned(), Entry::Symlink { target: target.to_owned() });
        } else if let Some(path) = header.strip_suffix(" (submodule)") {
            tree.entries.insert(path.to_owned(), Entry::Submodule);
        } else if let Some(path) = header.strip_suffix(" (x)") {
            tree.entries.insert(path.to_owned(), Entry::File { bytes: body.as_bytes().into(), executable: true });
        } else {
            tree.insert(&header, body.as_bytes());
        }
    };
    for line in text.split_inclusive('\n') {
        match line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
            Some(header) => close(current.replace((header.to_owned(), String::new())), &mut tree),
            None => {
                if let Some((_, body)) = &mut current {
                    body.push_str(line);
                }
            }
        }
    }
    close(current, &mut tree);
    tree
}

/// A sound fleet.yaml with two hosts.
pub(crate) const FLEET: &str = "\
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
";

/// A sound app, for repositories whose mistakes lie elsewhere.
pub(crate) const UNIT: &str = "[Service]\nExecStart=/usr/bin/true\n";

/// Reads a folder in hand.
pub(crate) fn parse(tree: &Tree) -> Parsed {
    let parsed = manifest::parse(tree, None);
    crate::schema::hold(tree, &parsed);
    parsed
}

/// Reads the repository and compares its mistakes, one per line.
pub(crate) fn check(repository: &str, expected: Expect) {
    expected.assert_eq(&lines(&parse(&tree(repository))));
}

/// Checks a fleet.yaml beside a sound application.
pub(crate) fn check_fleet(fleet: &str, expected: Expect) {
    check(&format!("-- fleet.yaml --\n{fleet}-- apps/a/a.service --\n{UNIT}"), expected);
}

/// Checks an app.yaml beside a sound fleet.yaml, a unit with [Install] and one file.
pub(crate) fn check_app(app: &str, expected: Expect) {
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\n{app}-- apps/a/web.service --\n{UNIT}[Install]\n\
             WantedBy=multi-user.target\n-- apps/a/files/etc/web/web.conf --\nport 80\n"
        ),
        expected,
    );
}

/// Checks the text of one unit.
pub(crate) fn check_unit(name: &str, text: &str, expected: Expect) {
    check(&format!("-- fleet.yaml --\n{FLEET}-- apps/a/{name} --\n{text}"), expected);
}

/// Prints the mistakes, one per line.
pub(crate) fn lines(parsed: &Parsed) -> String {
    let has_error = parsed.diagnostics.iter().any(|it| it.severity == Severity::Error);
    assert_eq!(parsed.fleet.is_none(), has_error, "a fleet exactly when there is no error: {:?}", parsed.diagnostics);
    lines_of(&parsed.diagnostics)
}

/// Prints mistakes, one per line.
pub(crate) fn lines_of(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for it in diagnostics {
        let severity = if it.severity == Severity::Error { "error" } else { "warning" };
        text.push_str(&format!("{severity}[{}] {}: {}\n", it.rule, it.location, it.message));
        text.push_str(&format!("  = {}\n", it.help));
        if !it.note.is_empty() {
            text.push_str(&format!("  ~ {}\n", it.note));
        }
        if let Some((location, what)) = &it.related {
            text.push_str(&format!("  - {location}: {what}\n"));
        }
    }
    text
}
