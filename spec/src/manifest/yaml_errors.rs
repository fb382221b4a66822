//! The parser's errors in the words of somebody who writes YAML, not somebody who parses it.

use serde_yaml::granit_parser::{ErrorKind, ScanError};

use super::page::{Extent, Page};

/// The deepest that lists and maps may be nested.
pub(super) const MOST_DEPTH: usize = 64;

/// Complains about nesting that no author needs.
pub(super) fn complain_depth(page: &mut Page<'_>, extent: Extent) {
    page.error("yaml-too-deep", extent, format!("lists and maps are nested more than {MOST_DEPTH} deep"))
        .help("nothing that mainstay reads needs that; look for a bracket that is never closed");
}

/// Says in an author's words what the parser did not understand.
pub(super) fn complain_syntax(page: &mut Page<'_>, error: &ScanError) {
    let start = start_of(page.text, error);
    let width = page.text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let extent = Extent::new(start, start + width);
    let kind = error.kind();
    if matches!(kind, ErrorKind::RecursionLimitExceeded) {
        return complain_depth(page, extent);
    }
    if let Some((extent, message, help)) = no_entry(page.text, start, kind) {
        page.error("yaml-syntax", extent, message).help(help);
        return;
    }
    let tab = page.text.get(start..).is_some_and(|rest| rest.starts_with('\t'));
    let (message, help) = match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => {
            ("a tab indents this line".to_owned(), "YAML indents with spaces only: replace the tab by spaces")
        }
        _ if tab => ("a tab stands here".to_owned(), "YAML indents with spaces only: replace the tab by spaces"),
        ErrorKind::UnclosedQuotedScalar => {
            ("this quote is never closed".to_owned(), "add the missing quote at the end of the text")
        }
        ErrorKind::InvalidQuotedScalarIndent => (
            "a quoted text above goes on in this line".to_owned(),
            "add the missing quote at the end of its first line, or indent this line",
        ),
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("this `{open}` is never closed"), "add the missing bracket")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), "close each bracket with its own kind")
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator
            if page.text.get(start..).is_some_and(|rest| rest.starts_with(':')) =>
        {
            ("a `:` is not expected here".to_owned(), "put quotes around a text that holds `: `")
        }
        ErrorKind::ExpectedFlowMappingSeparator => (
            "a `}` or `,` is missing before this".to_owned(),
            "close every `{` that is open above, and put commas between entries",
        ),
        ErrorKind::ExpectedFlowSequenceSeparator => (
            "a `]` or `,` is missing before this".to_owned(),
            "close every `[` that is open above, and put commas between items",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a second `:` on this line is not expected here".to_owned(),
            "put quotes around a text that holds `: `, or begin a new line",
        ),
        ErrorKind::UnknownAnchor => {
            ("this alias names no anchor above it".to_owned(), "a text that begins with `*` needs quotes")
        }
        ErrorKind::DirectiveDisallowed => {
            ("a line begins with `%`".to_owned(), "YAML directives are not read: remove the line")
        }
        ErrorKind::UnknownQuotedScalarEscape => (
            "this backslash escape does not exist".to_owned(),
            "double the backslash, or use single quotes, in which it means itself",
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("a value cannot begin with `{}`", character.escape_default()), "put quotes around the text")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::ExpectedBlockSequenceEntry => (
            "this line does not fit the ones above it".to_owned(),
            "entries of one map or list begin in the same column, and each key ends with `: `",
        ),
        other => (
            format!("this is not YAML: {other}"),
            "quote texts that hold special characters, and check the indentation",
        ),
    };
    page.error("yaml-syntax", extent, message).help(help);
}

/// Finds what people look for: a wrong tab, rather than what follows it or the text before it, which the parser marks.
fn start_of(text: &str, error: &ScanError) -> usize {
    let marked = error.marker().byte_offset().unwrap_or(0).min(text.len());
    let marked = match text.get(marked..).and_then(|rest| rest.find("\n\t")) {
        Some(at) if error.kind().to_string().contains("tab") => marked + at + 1,
        _ => marked,
    };
    if text.get(..marked).is_some_and(|before| before.ends_with('\t')) { marked - 1 } else { marked }
}

/// Finds the line that was meant to be `key: value` and is none: the parser takes it for text, and complains further down.
fn no_entry(text: &str, at: usize, kind: &ErrorKind) -> Option<(Extent, &'static str, &'static str)> {
    if !matches!(
        kind,
        ErrorKind::MappingValueNotAllowed | ErrorKind::SimpleKeyExpected | ErrorKind::InvalidColonPlacement
    ) {
        return None;
    }
    let start = text.get(..at)?.rfind('\n').map_or(0, |before| before + 1);
    let line = text.get(start..)?.lines().next()?;
    let above = text.get(..start)?.trim_end();
    let above_start = above.rfind('\n').map_or(0, |before| before + 1);
    let glued = |line: &str| {
        let (key, value) = line.trim().trim_start_matches("- ").split_once(':')?;
        let is_word = !key.is_empty() && key.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
        (is_word && !value.is_empty() && !value.starts_with([' ', '/']) && !value.contains(": ")).then_some(())
    };
    let whole = |start: usize, line: &str| {
        let indent = line.len() - line.trim_start().len();
        Extent::new(start + indent, start + line.trim_end().len())
    };
    let no_space = "there is no space behind the `:`, so that this is a text and no entry";
    if glued(line).is_some() {
        Some((whole(start, line), no_space, "write a space behind the colon"))
    } else if glued(&above[above_start..]).is_some() {
        Some((whole(above_start, &above[above_start..]), no_space, "write a space behind the colon"))
    } else if !line.contains(':') && !line.trim_start().starts_with(['-', '#', '"', '\'']) {
        Some((
            whole(start, line),
            "this line is no `key: value`",
            "write the missing `:`, or indent what goes on from above",
        ))
    } else {
        None
    }
}
