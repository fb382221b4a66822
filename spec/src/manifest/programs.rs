//! What units run and read of the files that their application brings: what systemd would only find out when it starts them.

use std::collections::BTreeMap;

use super::model::{App, Application, File, FileKind, Unit};
use super::page::{Extent, Page};
use super::traces;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostPath, UNIT_DIRECTORY, UnitName, shown};

/// Complains about files that units cannot run or read as they are.
pub(super) fn check(apps: &BTreeMap<AppName, Application>, diagnostics: &mut Vec<Diagnostic>) {
    for app in apps.values().flat_map(|application| &application.variants) {
        for (name, unit) in &app.units {
            let Some(text) = unit.text.as_ref().filter(|text| text.path.is_below(UNIT_DIRECTORY)) else { continue };
            for (key, value) in assignments(&text.text) {
                match key {
                    _ if key.starts_with("Exec") => check_program(app, name, unit, value, diagnostics),
                    "EnvironmentFile" => check_environment(app, name, value, diagnostics),
                    _ => {}
                }
            }
            check_reload(app, name, unit, &text.text, diagnostics);
        }
        for (path, file) in &app.files {
            if file.mode.bits() & 0o111 != 0 {
                check_interpreter(path, file, diagnostics);
            }
        }
    }
}

/// Iterates over the lines that assign, with what they assign; none of those that are asked for here is continued before its first
/// word.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim()))
}

/// Checks the program that a command line begins with.
fn check_program(app: &App, name: &UnitName, unit: &Unit, value: &str, diagnostics: &mut Vec<Diagnostic>) {
    let command = value.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    let word = command.split_whitespace().next().unwrap_or_default();
    let Some((path, file)) = HostPath::parse(word).ok().and_then(|path| app.files.get_key_value(&path)) else { return };
    let is_artifact = matches!(file.kind, FileKind::Artifact { .. });
    if file.mode.bits() & 0o111 == 0 && !file.is_archive() && file.kind != FileKind::Directory {
        let message = format!("`{name}` runs `{path}`, which nobody may execute: its mode is {}", file.mode);
        let source = shown(&file.location.file);
        let mut complaint = Diagnostic::error("not-executable", file.location.clone(), message);
        complaint.related(unit.location.clone(), "run here").help(if is_artifact {
            "add mode: \"0755\" to it".to_owned()
        } else {
            format!("git update-index --chmod=+x {source}, or files: {{ {path}: {{ mode: \"0755\" }} }} in app.yaml")
        });
        diagnostics.push(complaint);
    } else if let FileKind::Regular { content, .. } = &file.kind
        && let Ok(text) = std::str::from_utf8(content)
        && !text.contains('\0')
        && !text.starts_with(traces::POINTER)
        && !text.trim_start_matches('\u{feff}').starts_with("#!")
    {
        let message = format!("`{name}` runs `{path}`, a script that does not say what interprets it");
        let mut complaint = Diagnostic::error("no-interpreter", file.location.clone(), message);
        complaint
            .related(unit.location.clone(), "run here")
            .help("begin it with a line such as #!/bin/sh: systemd starts programs without a shell");
        diagnostics.push(complaint);
    }
}

/// Checks that the kernel finds the interpreter that a script names.
fn check_interpreter(path: &HostPath, file: &File, diagnostics: &mut Vec<Diagnostic>) {
    let FileKind::Regular { content, .. } = &file.kind else { return };
    let marked = content.strip_prefix("\u{feff}".as_bytes());
    let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let (message, help) = if marked.is_some_and(|rest| rest.starts_with(b"#!")) {
        (format!("`{path}` cannot be run: a byte order mark stands before its `#!`"), "save it as UTF-8 without BOM")
    } else if first.starts_with(b"#!") && first.ends_with(b"\r") {
        (
            format!(
                "`{path}` cannot be run: the kernel looks for an interpreter whose name ends with a carriage return"
            ),
            "save it with the line ends of Unix (LF), and keep them so: `*.sh text eol=lf` in .gitattributes",
        )
    } else {
        return;
    };
    let mut complaint = Diagnostic::error("script-interpreter", file.location.clone(), message);
    complaint.help(help);
    diagnostics.push(complaint);
}

/// Checks the lines of a file with variables: systemd only logs those that it does not take.
fn check_environment(app: &App, name: &UnitName, value: &str, diagnostics: &mut Vec<Diagnostic>) {
    let path = HostPath::parse(value.trim_start_matches('-')).ok();
    let Some(file) = path.and_then(|path| app.files.get(&path)) else { return };
    let FileKind::Regular { content, .. } = &file.kind else { return };
    let Ok(text) = std::str::from_utf8(content) else { return };
    let source = file.location.file.clone();
    let mut page = Page::new(&source, text);
    let (mut start, mut goes_on) = (0, false);
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let extent = Extent::new(start, start + line.trim_end().len());
        start += line.len();
        let is_inner = std::mem::replace(&mut goes_on, bare.ends_with('\\'));
        if is_inner || bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        let key = bare.split_once('=').map(|(key, value)| (key.trim(), value));
        // A quoted value may go on in the next lines, which are not told from others here.
        if key.is_some_and(|(_, value)| value.matches(['"', '\'']).count() % 2 == 1) {
            break;
        }
        let help = match key {
            Some((key, _)) if key.strip_prefix("export ").is_some() => "remove `export`: no shell reads this file",
            Some((key, _)) if is_variable(key) => continue,
            _ => "write NAME=value; a line that begins with `#` is a comment",
        };
        page.warning("env-file", extent, format!("systemd ignores this line when it reads the file for `{name}`"))
            .help(help);
    }
    let mut said = Vec::new();
    page.close(&mut said);
    // Lines of what was rendered are not those of its template.
    if source.ends_with(".j2") {
        said.iter_mut().for_each(|it| it.location = Location::whole(&source));
    }
    diagnostics.append(&mut said);
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Complains about a service that is to be reloaded and does not say how.
fn check_reload(app: &App, name: &UnitName, unit: &Unit, text: &str, diagnostics: &mut Vec<Diagnostic>) {
    let can = |(key, value): (&str, &str)| key == "ExecReload" || (key == "Type" && value == "notify-reload");
    // Drop-ins, of the host as well as of others, may say it; ours most likely do.
    let is_asked = !unit.reload_on.is_empty() && name.suffix() == "service" && !app.drop_ins.contains(name);
    if is_asked && !assignments(text).any(can) {
        let message = format!("`{name}` is to be reloaded and does not say how: systemd would refuse it");
        let mut complaint = Diagnostic::warning("unit-reload", unit.location.clone(), message);
        complaint
            .help("add `ExecReload=` to the unit, such as /bin/kill -HUP $MAINPID, or write restart-on for reload-on");
        diagnostics.push(complaint);
    }
}
