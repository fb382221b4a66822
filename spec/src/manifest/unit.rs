//! Reads the text of a systemd unit and finds what systemd would only grumble about in the journal.
//!
//! systemd ignores what it does not know; a misspelt `ProtectSystm=` is a service without protection. So unknown sections,
//! directives and words are errors here. Nothing is rewritten: the text that is installed is the text in the repository.

use super::directives;
use super::page::{Extent, Page};
use super::unit_rules;
use super::unit_rules::Assignment;
use super::unit_values;
use super::words::{did_you_mean, list};
use crate::id::{UnitName, shown};

/// The largest unit text that is read; systemd itself stops at lines of 1 MiB.
const MOST_BYTES: usize = 1 << 20;

/// What the rest of the manifest wants to know about a unit's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Traits {
    /// It can be enabled: `[Install]` names something to hook it to.
    pub(super) installs: bool,
    /// The unit that it triggers, when that is not the service of its name.
    pub(super) triggers: Option<String>,
    /// Other names that it takes when it is enabled.
    pub(super) aliases: Vec<(String, Extent)>,
    /// It is a service with a command that may be its only one.
    pub(super) has_its_command: bool,
}

/// Reads the page as the text of `unit`.
pub(super) fn read(page: &mut Page<'_>, unit: &UnitName) -> Traits {
    if !is_plain(page) {
        return Traits::default();
    }
    if page.text.trim().is_empty() {
        page.error(
            "unit-empty",
            Extent::new(0, 0),
            "this unit is empty, and systemd takes an empty unit for a masked one",
        )
        .help("write its text, or remove the file; `state: stopped` and `enabled: false` keep a unit from running");
        return Traits::default();
    }
    let assignments = assignments_of(page, unit);
    for assignment in &assignments {
        check_directive(page, unit, assignment);
        if !unit_values::check(page, assignment) {
            unit_rules::check_value(page, assignment);
        }
    }
    unit_rules::check_whole(page, unit, &assignments);
    // What seems to be missing may only be misspelt, and that was said already.
    if page.errors() == 0 {
        unit_rules::check_complete(page, unit, &assignments);
    }
    let values = |section: &'static str, key: &'static str| {
        assignments.iter().filter(move |it| it.section == section && it.key == key && !it.value.is_empty())
    };
    let hooks = ["WantedBy", "RequiredBy", "UpheldBy", "Also", "Alias"];
    let triggers = match unit.suffix() {
        "timer" => values("Timer", "Unit").next_back(),
        "path" => values("Path", "Unit").next_back(),
        "socket" => values("Socket", "Service").next_back(),
        _ => None,
    };
    // A socket with an instance of a template for each connection.
    let accepting = || {
        let accept = values("Socket", "Accept").next_back()?.value.to_ascii_lowercase();
        matches!(accept.as_str(), "yes" | "y" | "true" | "t" | "on" | "1").then(|| format!("{}@.service", unit.stem()))
    };
    Traits {
        installs: hooks.into_iter().any(|key| values("Install", key).next().is_some()),
        triggers: triggers.map(|it| it.value.clone()).or_else(accepting),
        aliases: values("Install", "Alias")
            .flat_map(|it| it.value.split_whitespace().map(|name| (name.to_owned(), it.value_extent)))
            .collect(),
        has_its_command: values("Service", "ExecStart").next().is_some()
            && values("Service", "Type").next_back().is_none_or(|it| it.value != "oneshot"),
    }
}

/// Reads the page as a drop-in for `unit`; returns where it adds a command that only a oneshot may have beside another.
///
/// An empty one is fine: it takes the place of one of the same name that the host brings.
pub(super) fn read_drop_in(page: &mut Page<'_>, unit: &UnitName) -> Option<Extent> {
    if !is_plain(page) {
        return None;
    }
    let assignments = assignments_of(page, unit);
    if let Some(install) = assignments.iter().find(|it| it.section == "Install") {
        page.error("drop-in-install", install.key_extent, "systemd does not read [Install] in a drop-in").help(
            "put it into the unit itself; a unit of the host is enabled with units: { NAME: { enabled: true } } in app.yaml",
        );
    }
    for assignment in &assignments {
        check_directive(page, unit, assignment);
        if !unit_values::check(page, assignment) {
            unit_rules::check_value(page, assignment);
        }
    }
    unit_rules::check_whole(page, unit, &assignments);
    let has = |key: &str, value: &str| assignments.iter().any(|it| it.key == key && it.value == value);
    let commands = || assignments.iter().filter(|it| it.key == "ExecStart");
    let added = commands().find(|it| !it.value.is_empty()).map(|it| it.key_extent);
    added.filter(|_| unit.suffix() == "service" && !has("Type", "oneshot") && !has("ExecStart", ""))
}

/// Says whether the page is text that systemd would read at all; complains otherwise.
pub(super) fn is_plain(page: &mut Page<'_>) -> bool {
    if page.text.len() > MOST_BYTES {
        page.error("unit-too-large", Extent::new(0, 0), "the unit is larger than 1 MiB")
            .help("systemd would not read it");
        return false;
    }
    if let Some(at) = page.text.find('\0') {
        page.error("unit-nul", Extent::new(at, at + 1), "the unit holds a NUL byte")
            .help("units are plain text; save it as UTF-8");
        return false;
    }
    true
}

fn assignments_of<'a>(page: &mut Page<'a>, unit: &UnitName) -> Vec<Assignment<'a>> {
    let usual = type_section(unit).unwrap_or("Unit");
    assignments(page, usual, &|page, name, extent| check_section(page, unit, name, extent))
}

/// Says whether a section may be there; complains otherwise.
pub(super) type IsSection<'s> = dyn Fn(&mut Page<'_>, &str, Extent) -> bool + 's;

/// Splits the text into assignments, complaining about lines that are none; `usual` is the section that was likely meant.
pub(super) fn assignments<'a>(page: &mut Page<'a>, usual: &str, is_section: &IsSection<'_>) -> Vec<Assignment<'a>> {
    let mut found: Vec<Assignment<'a>> = Vec::new();
    let mut section: Option<&str> = None;
    // Whether the section may hold anything, because it is ours to ignore (`X-…`) or was complained about.
    let mut skipping = false;
    let mut continues: Option<Continued> = None;
    let mut start = 0;
    for raw in page.text.split_inclusive('\n') {
        let line = raw.trim_start_matches('\u{feff}').trim();
        let at = start + (raw.find(line).unwrap_or(0));
        start += raw.len();
        let extent = Extent::new(at, at + line.len());
        let comment = line.starts_with(['#', ';']);
        if comment || (line.is_empty() && continues.is_none()) {
            continue;
        }
        let (text, more) = match line.strip_suffix('\\') {
            Some(text) => (text.trim_end(), true),
            None => (line, false),
        };
        if let Some(previous) = continues.take() {
            if let Continued::Value = previous
                && let Some(last) = found.last_mut()
            {
                last.value.push(' ');
                last.value.push_str(text);
            }
            continues = more.then_some(previous);
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.strip_suffix(']') {
                Some(name) => {
                    skipping = name.starts_with("X-") || !is_section(page, name, extent);
                    section = Some(name);
                }
                None => {
                    page.error("unit-syntax", extent, "this section header has no closing `]`")
                        .help("write it as [Service], with nothing behind the bracket");
                    skipping = true;
                }
            }
            continue;
        }
        // systemd reads nothing in these, not even for its grammar.
        if skipping {
            continues = more.then_some(Continued::Nothing);
            continue;
        }
        let Some((key, value)) = text.split_once('=') else {
            let message =
                format!("this line is neither `Key=value` nor `[Section]` nor a comment: `{}`", shown(&clipped(text)));
            page.error("unit-syntax", extent, message)
                .help("begin comments with `#`; end a line with `\\` when the value goes on in the next one");
            continues = more.then_some(Continued::Nothing);
            continue;
        };
        let Some(section) = section else {
            page.error("unit-syntax", extent, "this line stands before the first section")
                .help(format!("put it below a header such as [{usual}]"));
            continues = more.then_some(Continued::Nothing);
            continue;
        };
        continues = more.then_some(Continued::Value);
        let trimmed = value.trim();
        let value_at = at + (text.len() - value.len()) + (value.len() - value.trim_start().len());
        found.push(Assignment {
            section,
            key: key.trim(),
            key_extent: Extent::new(at, at + key.trim().len()),
            value: trimmed.to_owned(),
            value_extent: Extent::new(value_at, value_at + trimmed.len()),
        });
    }
    if continues.is_some() {
        complain_dangling(page);
    }
    found
}

/// Complains about a last line that promises another one.
fn complain_dangling(page: &mut Page<'_>) {
    let end = page.text.trim_end().len();
    let last = Extent::new(end.saturating_sub(1), end);
    page.error("unit-syntax", last, "the last line ends with `\\`, but nothing follows").help("remove the backslash");
}

/// What the next line continues.
enum Continued {
    /// The last assignment.
    Value,
    /// Something that is not kept.
    Nothing,
}

fn clipped(text: &str) -> String {
    let mut clipped: String = text.chars().take(60).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// Returns the section that a unit of this type has for itself.
fn type_section(unit: &UnitName) -> Option<&'static str> {
    match unit.suffix() {
        "service" => Some("Service"),
        "socket" => Some("Socket"),
        "timer" => Some("Timer"),
        "path" => Some("Path"),
        "mount" => Some("Mount"),
        "slice" => Some("Slice"),
        _ => None,
    }
}

const SECTIONS: [&str; 8] = ["Unit", "Install", "Service", "Socket", "Timer", "Path", "Mount", "Slice"];
const QUADLET: [&str; 7] = ["Container", "Volume", "Network", "Pod", "Kube", "Build", "Image"];

fn allowed_sections(unit: &UnitName) -> Vec<&'static str> {
    ["Unit", "Install"].into_iter().chain(type_section(unit)).collect()
}

/// Says whether `name` may be a section of `unit`; complains otherwise.
fn check_section(page: &mut Page<'_>, unit: &UnitName, name: &str, extent: Extent) -> bool {
    let allowed = allowed_sections(unit);
    if allowed.contains(&name) {
        return true;
    }
    let message = format!("a .{} unit has no section [{}]", unit.suffix(), shown(&clipped(name)));
    let help = if QUADLET.contains(&name) {
        format!("that is a Podman quadlet: rename the file to {}.{}", unit.stem(), name.to_lowercase())
    } else if SECTIONS.contains(&name) {
        format!("move it into a unit whose name ends with .{}", name.to_lowercase())
    } else if let Some(near) = page.near(name, allowed.iter().copied()) {
        format!("did you mean [{near}]?")
    } else {
        format!("it knows {}; systemd ignores only sections that begin with `X-`", list(&allowed))
    };
    page.error("unit-section", extent, message).help(help);
    false
}

fn check_directive(page: &mut Page<'_>, unit: &UnitName, assignment: &Assignment<'_>) {
    let Assignment { section, key, .. } = assignment;
    if key.starts_with("X-") || directives::is_known(section, key) {
        return;
    }
    let message = format!("systemd knows no `{}=` in [{section}]", shown(&clipped(key)));
    let home = if page.is_full() { None } else { directives::home(key, &allowed_sections(unit)) };
    let help = match (page.near(key, directives::of(section)), home) {
        (_, Some(home)) => format!("move it to [{home}]"),
        (Some(near), None) => did_you_mean(&format!("{near}=")),
        (None, None) => {
            "systemd would ignore it; remove it, or begin its name with `X-` to keep it as a remark".to_owned()
        }
    };
    page.error("unit-directive", assignment.key_extent, message).help(help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_times_of_the_calendar_are_those_of_systemd() {
        let complaints = |value: &str| {
            let text = format!("[Timer]\nOnCalendar={value}\n[Install]\nWantedBy=timers.target\n");
            let mut page = Page::new("a.timer", &text);
            read(&mut page, &UnitName::parse("a.timer").expect("a name"));
            page.errors()
        };
        // As `systemd-analyze calendar` takes them.
        for good in [
            "minutely",
            "hourly",
            "Daily",
            "weekly",
            "monthly",
            "yearly",
            "annually",
            "anually",
            "quarterly",
            "semiannually",
            "semi-annually",
            "biannually",
            "bi-annually",
            "Mon,Fri *-*-* 03:00",
            "sunday 04:00",
        ] {
            assert_eq!(complaints(good), 0, "{good}");
        }
        for bad in ["nightly", "0 3 * * *", "Tues 04:00", "every day"] {
            assert_eq!(complaints(bad), 1, "{bad}");
        }
    }
}
