//! Secrets in files that everybody on the host may read.

use std::collections::BTreeMap;

use super::model::{Application, FileKind};
use super::page::{Extent, Page};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::AppName;

/// How the name of a variable ends that holds a secret.
const SECRETS: [&str; 8] =
    ["PASSWORD", "PASSWD", "SECRET", "SECRET_KEY", "TOKEN", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY"];

/// Warns about what looks like a secret where the file's mode lets everybody read it.
pub(super) fn check(apps: &BTreeMap<AppName, Application>, diagnostics: &mut Vec<Diagnostic>) {
    for app in apps.values().flat_map(|application| &application.variants) {
        for (path, file) in app.files.iter().filter(|(_, file)| file.mode.bits() & 0o004 != 0) {
            let FileKind::Regular { content, .. } = &file.kind else { continue };
            let Some((what, extent, text)) = std::str::from_utf8(content).ok().and_then(|text| {
                let (what, extent) = secret(text)?;
                Some((what, extent, text))
            }) else {
                continue;
            };
            let source = &file.location.file;
            let location = match source.ends_with(".j2") {
                true => Location::whole(source),
                false => Page::new(source, text).at(extent),
            };
            let message = format!("{what}, and with mode {} everybody on the host may read it", file.mode);
            let mut complaint = Diagnostic::warning("secret-readable", location, message);
            complaint.help(format!(
                "write files: {{ {path}: {{ mode: \"0600\" }} }} in app.yaml; whoever may read the repository reads it all the same"
            ));
            diagnostics.push(complaint);
        }
    }
}

/// Finds the first line with something secret, and what it is.
fn secret(text: &str) -> Option<(&'static str, Extent)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let found = if bare.starts_with("-----BEGIN ") && bare.ends_with("PRIVATE KEY-----") {
            (!bare.contains("ENCRYPTED")).then_some(("a private key stands here", bare.len()))
        } else {
            variable(bare).map(|length| ("a password or token stands here", length))
        };
        if let Some((what, length)) = found {
            return Some((what, Extent::new(start, start + length)));
        }
        start += line.len();
    }
    None
}

/// Returns the length of the name when a line gives a value to a variable that holds a secret, as files with variables do.
fn variable(line: &str) -> Option<usize> {
    let (name, value) = line.split_once('=')?;
    let bare = name.strip_prefix("export ").unwrap_or(name);
    let is_name =
        !bare.is_empty() && bare.bytes().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_');
    let is_secret =
        SECRETS.iter().any(|end| bare.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')));
    let value = value.trim().trim_matches(['"', '\'']);
    // A reference to another variable, or a path, is none itself.
    (is_name && is_secret && !value.is_empty() && !value.starts_with(['$', '/', '<', '{'])).then_some(name.len())
}
