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
    let marked = error.marker().byte_offset().unwrap_or(0).min(page.text.len());
    // The parser marks what follows a wrong tab; the tab itself is what people look for.
    let after_tab = page.text.get(..marked).is_some_and(|before| before.ends_with('\t'));
    let start = if after_tab { marked - 1 } else { marked };
    let width = page.text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let extent = Extent::new(start, start + width);
    let kind = error.kind();
    if matches!(kind, ErrorKind::RecursionLimitExceeded) {
        return complain_depth(page, extent);
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
