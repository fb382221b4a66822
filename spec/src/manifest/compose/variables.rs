//! `${NAME}` in compose files, by the rules of the specification, and the files in which names get values.
//!
//! The only sources are what the repository says. What is not set there is an error and never an empty text, and nothing
//! here knows the environment of a process.

use std::collections::BTreeMap;

use crate::id::shown;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Kind, Node};

/// Names and their values.
pub(super) type Variables = BTreeMap<String, String>;

/// The deepest that defaults may hold further variables.
const MOST_DEPTH: usize = 16;

/// Maps whose keys the author chooses: `x-…` is an extension everywhere but in these.
const NAMES: [&str; 9] =
    ["environment", "labels", "driver_opts", "options", "sysctls", "extra_hosts", "annotations", "services", "args"];

/// Prepares a tree as compose does before it reads it: merge keys, extensions, variables.
pub(super) fn prepare(page: &mut Page<'_>, node: &mut Node, variables: &Variables) {
    merge(page, node);
    expand_below(page, node, variables, "");
}

/// Puts what `<<` refers to in its place: what stands beside it wins, and of several the first.
fn merge(page: &mut Page<'_>, node: &mut Node) {
    match &mut node.kind {
        Kind::Scalar { .. } => {}
        Kind::Sequence(items) => items.iter_mut().for_each(|item| merge(page, item)),
        Kind::Mapping(entries) => {
            entries.iter_mut().for_each(|(_, node)| merge(page, node));
            let Some(at) = entries.iter().position(|(key, _)| key.text == "<<") else { return };
            let (key, merged) = entries.remove(at);
            let sources = match merged.kind {
                Kind::Sequence(items) => items,
                kind => vec![Node { kind, ..merged }],
            };
            for source in sources {
                let Kind::Mapping(more) = source.kind else {
                    page.error("yaml-merge", key.extent, "`<<` takes a map, or a list of maps")
                        .help("write `<<: *NAME`, with `&NAME` before a map further up");
                    continue;
                };
                for (key, node) in more {
                    if !entries.iter().any(|(known, _)| known.text == key.text) {
                        entries.push((key, node));
                    }
                }
            }
        }
    }
}

fn expand_below(page: &mut Page<'_>, node: &mut Node, variables: &Variables, below: &str) {
    let extent = node.extent;
    match &mut node.kind {
        Kind::Scalar { text, .. } if text.contains('$') => match expand(text, variables, 0) {
            Ok(expanded) => *text = expanded,
            Err((message, help)) => {
                page.error("compose-variable", extent, message).help(help);
            }
        },
        Kind::Scalar { .. } => {}
        Kind::Sequence(items) => items.iter_mut().for_each(|item| expand_below(page, item, variables, "")),
        Kind::Mapping(entries) => {
            if !NAMES.contains(&below) {
                entries.retain(|(key, _)| !key.text.starts_with("x-"));
            }
            entries.iter_mut().for_each(|(key, node)| expand_below(page, node, variables, &key.text));
        }
    }
}

/// Replaces variables in a text; says what is wrong and what to do.
fn expand(text: &str, variables: &Variables, depth: usize) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| wrong("this `${` is never closed"))?;
            out.push_str(&braced(&after[..end], variables, depth)?);
            rest = &after[end + 1..];
        } else {
            let name = name_at(rest);
            if name.is_empty() {
                return Err(wrong("a `$` stands here that no name follows"));
            }
            out.push_str(variables.get(name).ok_or_else(|| unset(name))?);
            rest = &rest[name.len()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn wrong(message: &str) -> (String, String) {
    (message.to_owned(), "write `$$` for a dollar, or `${NAME}` for a variable".to_owned())
}

fn unset(name: &str) -> (String, String) {
    let message = format!("variable `{}` is not set in `.env` or in `vars` of app.yaml", shown(name));
    (message, format!("set it there, or write a default: ${{{}:-…}}; a host's environment is never used", shown(name)))
}

/// Finds the brace that closes what was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut before) = (0_usize, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

fn braced(inside: &str, variables: &Variables, depth: usize) -> Result<String, (String, String)> {
    let name = name_at(inside);
    if name.is_empty() || depth >= MOST_DEPTH {
        return Err(wrong("`${…}` holds no name of a variable"));
    }
    let value = variables.get(name);
    let filled = value.filter(|value| !value.is_empty());
    let expanded = |word: &str| expand(word, variables, depth + 1);
    let operator = &inside[name.len()..];
    let complain = |word: &str| {
        let word = expand(word, variables, depth + 1).unwrap_or_default();
        let why = if word.is_empty() { "it is required here" } else { &word };
        Err((format!("variable `{}` is not set: {}", shown(name), shown(why)), unset(name).1))
    };
    match operator {
        "" => value.cloned().ok_or_else(|| unset(name)),
        _ if operator.starts_with(":-") => filled.cloned().map_or_else(|| expanded(&operator[2..]), Ok),
        _ if operator.starts_with('-') => value.cloned().map_or_else(|| expanded(&operator[1..]), Ok),
        _ if operator.starts_with(":?") => filled.cloned().map_or_else(|| complain(&operator[2..]), Ok),
        _ if operator.starts_with('?') => value.cloned().map_or_else(|| complain(&operator[1..]), Ok),
        _ if operator.starts_with(":+") => filled.map_or(Ok(String::new()), |_| expanded(&operator[2..])),
        _ if operator.starts_with('+') => value.map_or(Ok(String::new()), |_| expanded(&operator[1..])),
        _ => Err(wrong("this is not how a variable is written")),
    }
}

/// How a file of variables is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Quotes, comments behind values, and variables mean something.
    Compose,
    /// Everything behind the `=` is the value.
    Raw,
}

/// Reads a file of lines `NAME=value`; variables in values are found in the lines above and in `outer`.
pub(super) fn read_file(page: &mut Page<'_>, format: Format, outer: &Variables) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut known = outer.clone();
    let mut start = 0;
    for line in page.text.split_inclusive('\n') {
        let extent = Extent::new(start, start + line.trim_end().len());
        start += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            page.error("env-file", extent, format!("`{}` has no value", shown(line)))
                .help("write NAME=value; a host's environment is never used");
            continue;
        };
        let name = name.trim();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            page.error("env-file", extent, format!("`{}` is not a variable's name", shown(name)))
                .help("use letters, digits and `_`");
            continue;
        }
        let value = match format {
            Format::Raw => Ok(value.to_owned()),
            Format::Compose => value_of(value.trim(), &known),
        };
        match value {
            Ok(value) => {
                known.insert(name.to_owned(), value.clone());
                found.push((name.to_owned(), value));
            }
            Err((message, help)) => {
                page.error("env-file", extent, message).help(help);
            }
        }
    }
    found
}

fn value_of(text: &str, known: &Variables) -> Result<String, (String, String)> {
    let unclosed =
        || ("this quote is not closed on its line".to_owned(), "close it on the line it begins on".to_owned());
    if let Some(rest) = text.strip_prefix('\'') {
        return rest.split_once('\'').map(|(inside, _)| inside.to_owned()).ok_or_else(unclosed);
    }
    if let Some(rest) = text.strip_prefix('"') {
        let end =
            rest.match_indices('"').map(|(at, _)| at).find(|at| !rest[..*at].ends_with('\\')).ok_or_else(unclosed)?;
        let inside = expand(&rest[..end], known, 0)?;
        let escapes = [("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t"), ("\\\"", "\""), ("\\\\", "\\")];
        return Ok(escapes.iter().fold(inside, |text, (from, to)| text.replace(from, to)));
    }
    let bare = text.find(" #").map_or(text, |at| &text[..at]);
    expand(bare.trim_end(), known, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Variables {
        [("A", "1"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn variables_are_replaced_by_the_rules_of_compose() {
        for (text, expected) in [
            ("$A ${A}", Some("1 1")),
            ("$$A", Some("$A")),
            ("${B:-x}${EMPTY:-y}${EMPTY-z}", Some("xy")),
            ("${B-${A}}", Some("1")),
            ("${A:+on}${B:+off}${EMPTY+set}", Some("onset")),
            ("${B:-a}b}", Some("ab}")),
            ("$B", None),
            ("${B:?no}", None),
            ("${EMPTY:?no}", None),
            ("${A", None),
            ("$ ", None),
            ("${A/x/y}", None),
        ] {
            assert_eq!(expand(text, &known(), 0).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn files_of_variables() {
        let text = "# c\nexport A=x # c\nB='$A'\nC=\"$A\\n\"\nD = $A#1\n\nE=\n";
        let mut page = Page::new(".env", text);
        let read = read_file(&mut page, Format::Compose, &Variables::new());
        let expected = [("A", "x"), ("B", "$A"), ("C", "x\n"), ("D", "x#1"), ("E", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut page = Page::new(".env", "A='x' # y\n");
        assert_eq!(read_file(&mut page, Format::Raw, &Variables::new())[0].1, "'x' # y");
    }
}
