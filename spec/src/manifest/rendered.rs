//! Mistakes in rendered text, told about the template: where they come from, for which hosts, and each of them once.

use std::collections::{BTreeMap, BTreeSet};

use super::page::{Extent, Page};
use super::template_errors::Mistake;
use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::id::{HostName, shown};

/// A text that was rendered, and the template that it was rendered from.
#[derive(Clone, Copy)]
pub(super) struct Rendered<'r> {
    /// The template.
    pub(super) source: &'r str,
    /// What came of it for one host.
    pub(super) text: &'r str,
}

/// What was complained about so far, and for whom.
pub(super) struct Told<'h> {
    found: BTreeMap<Key, Found<'h>>,
    /// Whether some endpoints could not be read, so that others seem to name what there is not.
    lacks_endpoints: bool,
}

/// What makes two complaints one: the place, where there is one; else the words.
type Key = (Location, Severity, &'static str, Option<String>);

struct Found<'h> {
    complaint: Diagnostic,
    /// The line as it was rendered for the first host, where the template has another.
    line: Option<String>,
    hosts: BTreeSet<&'h HostName>,
}

/// More different complaints than this about one application's templates are not collected.
const MOST: usize = 200;

impl<'h> Told<'h> {
    /// Begins with nothing told.
    pub(super) fn new(lacks_endpoints: bool) -> Told<'h> {
        Told { found: BTreeMap::new(), lacks_endpoints }
    }

    /// Says whether more would not be listed.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    /// Adds a complaint that holds for `hosts`.
    fn add(&mut self, complaint: Diagnostic, line: Option<String>, hosts: &[&'h HostName]) {
        // Without a place the words tell mistakes apart. With one they may differ by nothing but a host's values.
        let words = complaint.location.span.is_none().then(|| complaint.message.clone());
        let key = (complaint.location.clone(), complaint.severity, complaint.rule, words);
        let found = self.found.entry(key).or_insert_with(|| Found { complaint, line, hosts: BTreeSet::new() });
        found.hosts.extend(hosts);
    }

    /// Adds what could not be rendered: a mistake within `extent` of the file, or at the place that it names itself.
    pub(super) fn mistake(&mut self, page: &Page<'_>, extent: Option<Extent>, mistake: Mistake, host: &'h HostName) {
        if self.lacks_endpoints && (mistake.rule == "endpoint-nowhere" || mistake.message.starts_with("`endpoints")) {
            return;
        }
        let mut complaint = Diagnostic::error(mistake.rule, page.at(extent.unwrap_or(mistake.extent)), mistake.message);
        complaint.help(mistake.help);
        self.add(complaint, None, &[host]);
    }

    /// Adds a complaint about one of the texts in `rendered`, by their file's path; the others go to `diagnostics`.
    pub(super) fn complaint(
        &mut self,
        mut complaint: Diagnostic,
        rendered: &BTreeMap<&str, Rendered<'_>>,
        hosts: &[&'h HostName],
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        if let Some((location, _)) = &mut complaint.related
            && let Some(rendered) = rendered.get(location.file.as_str())
        {
            *location = trace(location, *rendered).0;
        }
        let Some(text) = rendered.get(complaint.location.file.as_str()) else {
            diagnostics.push(complaint);
            return;
        };
        let (location, line) = trace(&complaint.location, *text);
        let is_of_values = location.span.is_none() || line.is_some();
        complaint.location = location;
        if is_of_values {
            self.add(complaint, line, hosts);
        } else {
            // The template says the same for everybody.
            diagnostics.push(complaint);
        }
    }

    /// Adds a complaint about a value of app.yaml that was rendered to `text`.
    pub(super) fn value(&mut self, complaint: Diagnostic, text: &str, hosts: &[&'h HostName]) {
        self.add(complaint, Some(excerpt(text)), hosts);
    }

    /// Hands the complaints over, each with the hosts that it is about.
    pub(super) fn close(self, diagnostics: &mut Vec<Diagnostic>) {
        for Found { mut complaint, line, hosts } in self.found.into_values() {
            let Some(first) = hosts.first() else { continue };
            let more = if hosts.len() > 1 { format!(" and {} more", hosts.len() - 1) } else { String::new() };
            complaint.note = match line {
                Some(line) => format!("rendered for host `{first}`{more}: `{line}`"),
                None => format!("for host `{first}`{more}"),
            };
            diagnostics.push(complaint);
        }
    }
}

/// Finds the place in the template for one in the rendered text, and says what was rendered where the two differ.
///
/// A line that stands in the template as it is, once, is that line. What stands so many lines below such a line, or below the
/// beginning, is as many lines below it in the template, if that is a line that renders something.
fn trace(location: &Location, rendered: Rendered<'_>) -> (Location, Option<String>) {
    let whole = Location::whole(&location.file);
    let Some(span) = location.span else { return (whole, None) };
    let page = Page::new(&location.file, rendered.source);
    let lines: Vec<&str> = rendered.source.split('\n').collect();
    let texts: Vec<&str> = rendered.text.split('\n').take(span.line).collect();
    let Some(text) = texts.last() else { return (whole, None) };
    let starts_at = |line: usize| lines[..line].iter().map(|line| line.len() + 1).sum::<usize>();
    let verbatim = |text: &str| {
        let mut same = lines.iter().enumerate().filter(|(_, line)| **line == text);
        same.next().filter(|_| same.next().is_none()).map(|(at, _)| at)
    };
    if let Some(line) = verbatim(text) {
        let text_starts: usize = texts[..texts.len() - 1].iter().map(|text| text.len() + 1).sum();
        let start = starts_at(line) + span.start.saturating_sub(text_starts);
        return (page.at(Extent::new(start, start + (span.end - span.start))), None);
    }
    let above = texts.iter().enumerate().rev().skip(1).find_map(|(at, text)| Some((at, verbatim(text)?)));
    let line = above.map_or(span.line - 1, |(at, line)| line + (span.line - 1 - at));
    match lines.get(line).filter(|line| line.contains("{{")) {
        Some(found) => {
            let indent = found.len() - found.trim_start().len();
            let start = starts_at(line);
            let extent = Extent::new(start + indent, start + found.trim_end().len());
            (page.at(extent), Some(excerpt(text)))
        }
        None => (whole, Some(excerpt(text))),
    }
}

/// Clips a rendered line for a message.
fn excerpt(text: &str) -> String {
    const MOST_SHOWN: usize = 100;
    let line = text.trim().lines().next().unwrap_or_default();
    let clipped: String = line.chars().take(MOST_SHOWN).collect();
    let more = if clipped.len() < line.len() { "…" } else { "" };
    format!("{}{more}", shown(&clipped))
}
