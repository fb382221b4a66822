//! Reads drop-ins: `NAME.TYPE.d/*.conf` in an application's folder, added to a unit of the application or of the host.
//!
//! systemd skips files whose name it does not like, and reads `service.d/` for every service there is; neither is what
//! somebody means who puts it into an application's folder.

use std::sync::Arc;

use super::page::Page;
use super::{quadlet, unit};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostPath, QUADLET_DIRECTORY, QUADLET_SUFFIXES, UNIT_SUFFIXES, UnitName, shown};

/// A drop-in that the application brings.
pub(super) struct DropIn {
    /// The unit it adds to; a template for all its instances.
    pub(super) unit: UnitName,
    /// Where it goes.
    pub(super) path: HostPath,
    pub(super) text: Arc<str>,
    pub(super) location: Location,
    /// Where it adds a command that only a oneshot may have beside its first one.
    pub(super) adds_command: Option<Location>,
}

/// A drop-in for a quadlet that the application brings.
pub(super) struct QuadletDropIn {
    /// The file name of the quadlet.
    pub(super) quadlet: String,
    /// Where it goes.
    pub(super) path: HostPath,
    pub(super) text: Arc<str>,
    pub(super) location: Location,
}

/// Says whether a folder of this name, in an application's folder, is meant for drop-ins; returns the unit's name.
pub(super) fn unit_of(folder: &str) -> Option<&str> {
    let name = folder.strip_suffix(".d")?;
    let suffix = name.rsplit_once('.').map_or(name, |(_, suffix)| suffix);
    (UNIT_SUFFIXES.contains(&suffix) || QUADLET_SUFFIXES.contains(&suffix)).then_some(name)
}

/// Reads the file `below` of the drop-in folder for `unit`; `path` is its place in the repository.
pub(super) fn read(
    path: &str,
    (unit, below): (&str, &str),
    bytes: &[u8],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<DropIn> {
    match place(unit, below).and_then(|(unit, target)| Ok((unit, target, text(bytes)?))) {
        Ok((unit, target, text)) => {
            let mut page = Page::new(path, text);
            let adds_command = unit::read_drop_in(&mut page, &unit).map(|extent| page.at(extent));
            page.close(diagnostics);
            Some(DropIn { unit, path: target, text: Arc::from(text), location: Location::whole(path), adds_command })
        }
        Err((message, help)) => {
            let mut complaint = Diagnostic::error("drop-in", Location::whole(path), message);
            complaint.help(help);
            diagnostics.push(complaint);
            None
        }
    }
}

/// Reads the file `below` of the drop-in folder for the quadlet `name`.
pub(super) fn read_for_quadlet(
    path: &str,
    (name, below): (&str, &str),
    bytes: &[u8],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<QuadletDropIn> {
    let placed = place_for_quadlet(name, below).and_then(|(kind, target)| Ok((kind, target, text(bytes)?)));
    match placed {
        Ok((kind, target, text)) => {
            let mut page = Page::new(path, text);
            quadlet::read_drop_in(&mut page, kind);
            page.close(diagnostics);
            let (quadlet, text) = (name.to_owned(), Arc::from(text));
            Some(QuadletDropIn { quadlet, path: target, text, location: Location::whole(path) })
        }
        Err((message, help)) => {
            let mut complaint = Diagnostic::error("drop-in", Location::whole(path), message);
            complaint.help(help);
            diagnostics.push(complaint);
            None
        }
    }
}

fn place_for_quadlet(name: &str, below: &str) -> Result<(&'static str, HostPath), Complaint> {
    let Some((kind, (stem, _))) = quadlet::kind_of(name).zip(name.rsplit_once('.')) else {
        return Err((
            format!("`{name}.d/` would add to every .{name} of the host"),
            format!("name the quadlet, such as web.{name}.d/"),
        ));
    };
    if stem.is_empty()
        || stem.ends_with('-')
        || below.contains('/')
        || !below.ends_with(".conf")
        || below.starts_with('.')
    {
        return Err((
            format!("Podman adds `{}` to no quadlet in particular, or does not read it", shown(below)),
            "call it NAME.container.d/SOMETHING.conf".to_owned(),
        ));
    }
    let target = HostPath::parse(&format!("{QUADLET_DIRECTORY}/{name}.d/{below}"))
        .map_err(|why| (format!("this path cannot be managed: {why}"), "rename the file".to_owned()))?;
    Ok((kind, target))
}

/// What is wrong, and what to do.
type Complaint = (String, String);

fn text(bytes: &[u8]) -> Result<&str, Complaint> {
    std::str::from_utf8(bytes).map_err(|_| ("this drop-in is not UTF-8".to_owned(), "save it as UTF-8".to_owned()))
}

/// Finds the unit and the place on the host, or says why systemd would not read it there.
fn place(unit: &str, below: &str) -> Result<(UnitName, HostPath), Complaint> {
    if UNIT_SUFFIXES.contains(&unit) {
        return Err((
            format!("`{unit}.d/` would add to every {unit} of the host"),
            format!("name the unit, such as web.{unit}.d/"),
        ));
    }
    let name = UnitName::parse(unit).map_err(|why| {
        (format!("this is not the drop-in folder of a unit: {why}"), "rename the folder to NAME.service.d".to_owned())
    })?;
    if name.stem().ends_with('-') {
        return Err((
            format!("`{name}.d/` would add to every unit whose name begins with `{}`", shown(name.stem())),
            "name the unit, and repeat the drop-in for others".to_owned(),
        ));
    }
    if below.contains('/') {
        return Err((
            format!("systemd reads no folder within `{name}.d/`"),
            format!("move the file up into {name}.d/"),
        ));
    }
    let hidden = below.starts_with('.') || below.contains('\\') || below == ".conf";
    if !below.ends_with(".conf") || hidden {
        let reason = if hidden { "of such a name" } else { "whose name does not end with `.conf`" };
        return Err((
            format!("systemd reads no drop-in {reason}"),
            "rename it to, for instance, limits.conf".to_owned(),
        ));
    }
    let target = HostPath::parse(&format!("{}/{below}", name.drop_in_folder()))
        .map_err(|why| (format!("this path cannot be managed: {why}"), "rename the file".to_owned()))?;
    Ok((name, target))
}
