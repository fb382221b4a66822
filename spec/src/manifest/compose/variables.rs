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
/// The longest that a value may grow: the kernel takes no longer one in an environment.
const MOST_VALUE: usize = 128 << 10;
/// What all values of a file may grow to together: each may repeat the one before.
const MOST_GROWN: usize = 4 << 20;

/// Maps whose keys the author chooses: `x-…` is an extension everywhere but in these.
const NAMES: [&str; 9] =
    ["environment", "labels", "driver_opts", "options", "sysctls", "extra_hosts", "annotations", "services", "args"];

/// Prepares a tree as compose does before it reads it: merge keys, extensions, variables.
pub(super) fn prepare(page: &mut Page<'_>, node: &mut Node, variables: &Variables) {
    merge(page, node);
    let mut left = MOST_GROWN;
    expand_below(page, node, variables, "", &mut left);
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

/// Expands the texts of a tree, as long as they grow by no more than is `left`. Returns `false` for what could not be: it is
/// dropped, so that nobody complains about what the author did not write.
fn expand_below(page: &mut Page<'_>, node: &mut Node, variables: &Variables, below: &str, left: &mut usize) -> bool {
    let extent = node.extent;
    match &mut node.kind {
        Kind::Scalar { text, plain } if text.contains('$') => {
            // Whatever a variable holds is a text: an empty one is not nothing.
            *plain = false;
            match expand(text, variables, 0).and_then(|expanded| within(expanded, left)) {
                Ok(expanded) => *text = expanded,
                Err((message, help)) => {
                    page.error("compose-variable", extent, message).help(help);
                    // A service needs an image, whatever it would have been.
                    "unset:1".clone_into(text);
                    return below == "image";
                }
            }
        }
        Kind::Scalar { .. } => {}
        Kind::Sequence(items) => items.retain_mut(|item| expand_below(page, item, variables, "", left)),
        Kind::Mapping(entries) => {
            if !NAMES.contains(&below) {
                entries.retain(|(key, _)| !key.text.starts_with("x-"));
            }
            entries.retain_mut(|(key, node)| expand_below(page, node, variables, &key.text, left));
        }
    }
    true
}

/// Takes the length of a text from what is `left`.
fn within(text: String, left: &mut usize) -> Result<String, (String, String)> {
    *left = left.checked_sub(text.len()).ok_or_else(grown)?;
    Ok(text)
}

fn grown() -> (String, String) {
    ("the values of variables make this too long".to_owned(), "write what is meant".to_owned())
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
        if out.len() > MOST_VALUE {
            return Err(grown());
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
    let (text, mut at, mut left) = (page.text, 0, MOST_GROWN);
    while at < text.len() {
        let line = text[at..].split('\n').next().unwrap_or_default();
        let (start, trimmed) = (at + line.len() - line.trim_start().len(), line.trim());
        let extent = Extent::new(start, start + trimmed.len());
        at += line.len() + 1;
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let Some((name, behind)) = name_of(page, text, extent) else { continue };
        let value = match format {
            Format::Raw => Ok(text[behind..start + trimmed.len()].to_owned()),
            Format::Compose => value_at(text, behind, &known).map(|(value, end)| {
                at = at.max(end + 1);
                value
            }),
        };
        match value.and_then(|value| within(value, &mut left)) {
            Ok(value) => {
                known.insert(name.clone(), value.clone());
                found.push((name, value));
            }
            Err((message, help)) => {
                page.error("env-file", extent, message).help(help);
            }
        }
    }
    found
}

/// Reads the name on a line of `text`, and returns where its value begins.
fn name_of(page: &mut Page<'_>, text: &str, line: Extent) -> Option<(String, usize)> {
    let written = &text[line.start..line.end];
    let bare = written.strip_prefix("export ").unwrap_or(written);
    let Some((name, value)) = bare.split_once('=') else {
        page.error("env-file", line, format!("`{}` has no value", shown(written)))
            .help("write NAME=value; a host's environment is never used");
        return None;
    };
    let name = name.trim();
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c)) {
        page.error("env-file", line, format!("`{}` is not a variable's name", shown(name)))
            .help("write NAME=value, the name with letters, digits and `_`");
        return None;
    }
    Some((name.to_owned(), line.end - value.len()))
}

/// Reads the value that begins at `from`, and returns where it ends: on its line, unless quotes go on.
fn value_at(text: &str, from: usize, known: &Variables) -> Result<(String, usize), (String, String)> {
    let line = text[from..].split('\n').next().unwrap_or_default();
    let end = from + line.len();
    let value = line.trim();
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        let bare = value.find(" #").map_or(value, |at| &value[..at]);
        return Ok((expand(bare.trim_end(), known, 0)?, end));
    };
    let open = from + line.len() - line.trim_start().len() + 1;
    let (inside, close) = quoted(text, open, quote)
        .ok_or_else(|| ("this quote is never closed".to_owned(), "add the other one".to_owned()))?;
    let rest = text[close + 1..].split('\n').next().unwrap_or_default();
    if !rest.trim().is_empty() && !rest.trim_start().starts_with('#') {
        let help = "put quotes around all of the value, or around nothing";
        return Err((format!("`{}` stands behind the closing quote", shown(rest.trim())), help.to_owned()));
    }
    let value = if quote == '"' { expand(&unescaped(&inside), known, 0)? } else { inside };
    Ok((value, close + 1 + rest.len()))
}

/// Reads up to the quote that closes what begins at `open`; one behind a backslash is part of the value.
fn quoted(text: &str, open: usize, quote: char) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut escaped = false;
    for (at, c) in text[open..].char_indices() {
        if c == quote && !escaped {
            return Some((inside, open + at));
        }
        if escaped && c != quote {
            inside.push('\\');
        }
        escaped = c == '\\' && !escaped;
        if !escaped {
            inside.push(c);
        }
    }
    None
}

/// Replaces what stands behind backslashes. A dollar stays one: `$$` is how [`expand`] reads it.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let next = if c == '\\' { rest.clone().next() } else { None };
        let known = next.and_then(|next| {
            Some(match next {
                'n' => "\n",
                'r' => "\r",
                't' => "\t",
                '\\' => "\\",
                '"' => "\"",
                '$' => "$$",
                _ => return None,
            })
        });
        match known {
            Some(known) => {
                out.push_str(known);
                rest.next();
            }
            None => out.push(c),
        }
    }
    out
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
    fn values_do_not_grow_without_end() {
        let line = |at: usize| format!("V{}=${{V{at}}}${{V{at}}}\n", at + 1);
        let text: String = std::iter::once("V0=0123456789\n".to_owned()).chain((0..60).map(line)).collect();
        let mut page = Page::new(".env", &text);
        let read = read_file(&mut page, Format::Compose, &Variables::new());
        assert!(read.iter().map(|(_, value)| value.len()).sum::<usize>() <= MOST_GROWN && page.errors() > 0);
    }

    #[test]
    fn files_of_variables() {
        let text = "# c\nexport A=x # c\nB='$A'\nC=\"$A\\n\"\nD = $A#1\n\nE=\n";
        let mut page = Page::new(".env", text);
        let read = read_file(&mut page, Format::Compose, &Variables::new());
        let expected = [("A", "x"), ("B", "$A"), ("C", "x\n"), ("D", "x#1"), ("E", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let text = "A=\"-----\n$$ key \\\\n \\$B\n\" # c\nB='it\\'s'\n";
        let mut page = Page::new(".env", text);
        let read = read_file(&mut page, Format::Compose, &Variables::new());
        let expected = [("A", "-----\n$ key \\n $B\n"), ("B", "it's")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut page = Page::new(".env", "A='x' # y\n");
        assert_eq!(read_file(&mut page, Format::Raw, &Variables::new())[0].1, "'x' # y");
    }
}
