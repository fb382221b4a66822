//! Draws diagnostics for people, as compilers do, and lists them for machines. It judges nothing.
//!
//! Everything printed comes from a repository that somebody else wrote, so no control character reaches the terminal.

use std::collections::BTreeSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};
use spec::diagnostic::{Diagnostic, Location, Severity};
use spec::tree::{Entry, Tree};

/// Draws every diagnostic with its excerpt from `tree`, and sums them up in the last line.
///
/// Nothing is drawn when there is nothing to say.
pub fn render(diagnostics: &[Diagnostic], tree: &Tree, colour: bool) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&draw(diagnostic, tree, &renderer));
        text.push_str("\n\n");
    }
    text.push_str(&summary(diagnostics));
    text.push('\n');
    text
}

/// Lists the diagnostics for other programs.
pub fn json(diagnostics: &[Diagnostic]) -> Value {
    diagnostics.iter().map(to_json).collect()
}

fn draw(diagnostic: &Diagnostic, tree: &Tree, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = visible(&diagnostic.message);
    let title = level.primary_title(message).id(diagnostic.rule);
    let mut main = place(Group::with_title(title), &diagnostic.location, tree, "");
    if !diagnostic.note.is_empty() {
        main = main.element(Level::NOTE.message(visible(&diagnostic.note)));
    }
    let help = visible(&diagnostic.help);
    let mut groups = Vec::new();
    match &diagnostic.related {
        None if help.is_empty() => groups.push(main),
        None => groups.push(main.element(Level::HELP.message(help))),
        Some((location, what)) => {
            if !help.is_empty() {
                main = main.element(Level::HELP.message(help));
            }
            groups.push(main);
            let title = Level::NOTE.secondary_title(visible(what));
            groups.push(place(Group::with_title(title), location, tree, ""));
        }
    }
    renderer.render(&groups)
}

/// Adds the lines around `location`, or only its name when there is nothing to show.
fn place<'g>(group: Group<'g>, location: &Location, tree: &Tree, label: &'g str) -> Group<'g> {
    let path = visible(&location.file);
    let Some(excerpt) = excerpt(location, tree) else {
        let origin = Origin::path(path);
        return group.element(match location.span {
            Some(span) => origin.line(span.line).char_column(span.column),
            None => origin,
        });
    };
    let annotation = AnnotationKind::Primary.span(excerpt.start..excerpt.end).label(label);
    group.element(Snippet::source(excerpt.text).path(path).line_start(excerpt.line).annotation(annotation))
}

/// A line of a file and what is meant in it.
struct Excerpt {
    text: String,
    line: usize,
    start: usize,
    end: usize,
}

/// More of a line than this is not drawn.
const MOST_DRAWN: usize = 2000;

/// Cuts the line of `location` out of the file, which may have changed or be no text at all.
fn excerpt(location: &Location, tree: &Tree) -> Option<Excerpt> {
    let span = location.span?;
    // What should be encrypted and is not would be printed with it, into a log of CI for instance.
    if location.file.starts_with("secrets/") {
        return None;
    }
    let Some(Entry::File { bytes, .. }) = tree.entries.get(&location.file) else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    let (before, rest) = text.split_at_checked(span.start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line_end = rest.find('\n').map_or(text.len(), |at| span.start + at);
    if line_end - line_start > MOST_DRAWN {
        return None;
    }
    // Nor is a private key, wherever somebody put it.
    let line = text.get(line_start..line_end)?;
    if line.contains("AGE-SECRET-KEY-")
        || (line.contains("PRIVATE KEY") && !line.trim_end().ends_with("PRIVATE KEY-----"))
    {
        return None;
    }
    let end = span.end.clamp(span.start, line_end);
    let (left, meant, right) =
        (text.get(line_start..span.start)?, text.get(span.start..end)?, text.get(end..line_end)?);
    let (left, meant, right) = (visible_source(left), visible_source(meant), visible_source(right.trim_end()));
    let start = left.len();
    let end = start + meant.len();
    Some(Excerpt { text: format!("{left}{meant}{right}"), line: span.line, start, end })
}

/// Replaces characters that a terminal acts upon, or that reorder text, by signs that show them.
fn visible(text: &str) -> String {
    let reorders =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let show = |c: char| match c {
        '\t' => ' '.to_string(),
        '\0'..='\x1f' => char::from_u32(u32::from(c) + 0x2400).unwrap_or('\u{fffd}').to_string(),
        '\x7f' => '\u{2421}'.to_string(),
        _ if c.is_control() || reorders(c) => '\u{fffd}'.to_string(),
        _ => c.to_string(),
    };
    text.chars().map(show).collect()
}

/// As [`visible`], but leaves tabs to the renderer, which knows what column they stand for.
fn visible_source(text: &str) -> String {
    text.split('\t').map(visible).collect::<Vec<_>>().join("\t")
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|it| it.severity == Severity::Error).count();
    let files: BTreeSet<&str> = diagnostics.iter().map(|it| it.location.file.as_str()).collect();
    let parts = [counted(errors, "error"), counted(diagnostics.len() - errors, "warning")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let files = counted(files.len(), "file").unwrap_or_default();
    format!("{} in {files}", parts.join(", "))
}

fn counted(number: usize, noun: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{number} {noun}s")),
    }
}

fn to_json(diagnostic: &Diagnostic) -> Value {
    let mut value = location_json(&diagnostic.location);
    value["severity"] = match diagnostic.severity {
        Severity::Error => "error".into(),
        Severity::Warning => "warning".into(),
    };
    value["rule"] = diagnostic.rule.into();
    value["message"] = diagnostic.message.as_str().into();
    if !diagnostic.help.is_empty() {
        value["help"] = diagnostic.help.as_str().into();
    }
    if !diagnostic.note.is_empty() {
        value["note"] = diagnostic.note.as_str().into();
    }
    if let Some((location, what)) = &diagnostic.related {
        let mut related = location_json(location);
        related["message"] = what.as_str().into();
        value["related"] = related;
    }
    value
}

fn location_json(location: &Location) -> Value {
    match location.span {
        Some(span) => json!({
            "file": location.file, "line": span.line, "column": span.column, "start": span.start, "end": span.end,
        }),
        None => json!({ "file": location.file }),
    }
}

#[cfg(test)]
mod tests;
