//! One file of the repository while it is read: its text, positions in it, and the complaints about it.
//!
//! Positions are byte extents until somebody complains; only then are line and column counted, so that a hostile file of
//! one very long line costs nothing.

use std::cell::Cell;

use super::words;
use crate::diagnostic::{Diagnostic, Location, Severity, Span};

/// More complaints than this about one file are counted, not listed.
const MOST_PER_FILE: usize = 200;

/// A run of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset of the first byte.
    pub(super) start: usize,
    /// Offset behind the last byte.
    pub(super) end: usize,
}

impl Extent {
    /// Spans from `start` to `end`.
    pub(super) fn new(start: usize, end: usize) -> Extent {
        Extent { start, end: end.max(start) }
    }

    /// Says whether no byte is meant.
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A file that is being read.
pub(super) struct Page<'a> {
    /// Path from the repository's root.
    pub(super) path: &'a str,
    /// The whole text.
    pub(super) text: &'a str,
    line_starts: Vec<usize>,
    /// The last place whose column was counted, as byte offset and column: counting goes on from there, because a file of
    /// one line with thousands of values would otherwise be counted from its start thousands of times.
    counted: Cell<(usize, usize)>,
    diagnostics: Vec<Diagnostic>,
    unlisted: usize,
    /// Where complaints go that are only counted.
    spare: Diagnostic,
    /// Other files that are read with this one, and where their text begins: behind this one's.
    sheets: Vec<(usize, Page<'a>)>,
}

impl<'a> Page<'a> {
    /// Opens `text`, the content of the file at `path`.
    pub(super) fn new(path: &'a str, text: &'a str) -> Page<'a> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        let spare = Diagnostic::error("too-many", Location::whole(path), "");
        Page {
            path,
            text,
            line_starts,
            counted: Cell::new((0, 1)),
            diagnostics: Vec::new(),
            unlisted: 0,
            spare,
            sheets: Vec::new(),
        }
    }

    /// Adds a file that is read with this one, and returns what its extents have to be moved by.
    pub(super) fn attach(&mut self, path: &'a str, text: &'a str) -> usize {
        let end = |(start, sheet): &(usize, Page<'a>)| start + sheet.text.len();
        let start = self.sheets.last().map_or(self.text.len(), end) + 1;
        self.sheets.push((start, Page::new(path, text)));
        start
    }

    /// Turns a run of bytes into a place that people can find: at most one line of it.
    pub(super) fn at(&self, extent: Extent) -> Location {
        if let Some((start, sheet)) = self.sheets.iter().rev().find(|(start, _)| extent.start >= *start) {
            return sheet.at(Extent::new(extent.start - start, extent.end - start));
        }
        let start = floor_boundary(self.text, extent.start);
        let end = floor_boundary(self.text, extent.end).max(start);
        let first_line = self.text[start..end].split('\n').next().unwrap_or_default().trim_end();
        let line = self.line_starts.partition_point(|at| *at <= start).max(1);
        let line_start = self.line_starts[line - 1];
        let (from, before) = self.counted.get();
        let (from, before) = if (line_start..=start).contains(&from) { (from, before) } else { (line_start, 1) };
        let column = before + self.text[from..start].chars().count();
        self.counted.set((start, column));
        Location::at(self.path, Span { start, end: start + first_line.len(), line, column })
    }

    /// Complains; the caller adds help to what is returned.
    pub(super) fn error(&mut self, rule: &'static str, extent: Extent, message: impl Into<String>) -> &mut Diagnostic {
        self.complain(Severity::Error, rule, extent, message)
    }

    /// Warns; the caller adds help to what is returned.
    pub(super) fn warning(
        &mut self,
        rule: &'static str,
        extent: Extent,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.complain(Severity::Warning, rule, extent, message)
    }

    /// Complains as severely as the caller says; the caller adds help to what is returned.
    pub(super) fn complain(
        &mut self,
        severity: Severity,
        rule: &'static str,
        extent: Extent,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        if self.is_full() {
            self.unlisted += 1;
            return &mut self.spare;
        }
        let location = self.at(extent);
        let complaint = Diagnostic { severity, ..Diagnostic::error(rule, location, message) };
        self.diagnostics.push(complaint);
        self.diagnostics.last_mut().expect("one was just pushed")
    }

    /// Finds what was most likely meant by `wrong`, unless the complaint will not be listed anyway.
    pub(super) fn near<'k>(&self, wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        if self.is_full() { None } else { words::nearest(wrong, known) }
    }

    /// Says whether complaints are only counted from here on.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= MOST_PER_FILE
    }

    /// Counts the errors so far, so that a reader can tell whether a part of the file was sound.
    pub(super) fn errors(&self) -> usize {
        self.unlisted + self.diagnostics.iter().filter(|it| it.is_error()).count()
    }

    /// Adds a complaint whose place is already known, in this file or another.
    pub(super) fn add(&mut self, complaint: Diagnostic) {
        if self.is_full() {
            self.unlisted += 1;
        } else {
            self.diagnostics.push(complaint);
        }
    }

    /// Closes the file and hands its complaints over.
    pub(super) fn close(mut self, all: &mut Vec<Diagnostic>) {
        if self.unlisted > 0 {
            let message = format!("{} more mistakes in this file are not listed", self.unlisted);
            let mut rest = Diagnostic::error("too-many", Location::whole(self.path), message);
            rest.help("fix those above first; most of the others usually go with them");
            self.diagnostics.push(rest);
        }
        all.append(&mut self.diagnostics);
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Complains that this version does not act on something that the format knows.
pub(super) fn not_supported<'p>(page: &'p mut Page<'_>, extent: Extent, what: &str) -> &'p mut Diagnostic {
    page.error("not-supported", extent, format!("{what} is not supported by this version of mainstay")).help(
        "remove it for now: mainstay ignores nothing that a repository asks for, and this version cannot do it yet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_stay_on_one_line() {
        let page = Page::new("x", "äö: 1\nb: 2\nc: 3");
        let span = page.at(Extent::new(8, 15)).span.expect("a span");
        assert_eq!((span.line, span.column, span.start, span.end), (2, 1, 8, 12));
        let span = page.at(Extent::new(6, 7)).span.expect("a span");
        assert_eq!((span.line, span.column), (1, 5));
        assert_eq!(page.at(Extent::new(99, 99)).span.map(|span| span.line), Some(3));
    }

    #[test]
    fn a_flood_is_counted() {
        let mut page = Page::new("x", "a");
        for _ in 0..500 {
            page.error("r", Extent::new(0, 1), "m").help("h");
        }
        let mut all = Vec::new();
        page.close(&mut all);
        assert_eq!(all.len(), MOST_PER_FILE + 1);
        assert!(all.last().is_some_and(|last| last.message.starts_with("300 more")));
    }
}
