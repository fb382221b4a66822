//! What is done for unit files and drop-ins before anything changes: systemd is asked what it would make of them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use spec::desired::FileKind;
use spec::id::{HostPath, UNIT_DIRECTORY, UnitName};
use spec::inputs;
use spec::observed::FileState;
use spec::plan::{Action, Phase, Step};
use tracing::info;

use super::Work;
use crate::disk::Disk;
use crate::systemd::{self, Complaint, Place};

/// The most that is read of a unit's old text.
const LARGEST: u64 = 1 << 20;

/// Asks systemd about the texts that are about to be written. What it would refuse, or would silently do without (a sandbox
/// that is misspelt is none), fails its application, of which nothing is changed then.
pub(super) async fn prove(work: &mut Work<'_>) {
    let written = work.plan.steps.iter().filter_map(|step| match &step.action {
        Action::WriteFile(path, _) => Some(path),
        _ => None,
    });
    let units: BTreeSet<UnitName> = written.filter_map(|path| path.unit().or_else(|| path.drop_in())).collect();
    if units.is_empty() {
        return;
    }
    let units: Vec<UnitName> = units.into_iter().collect();
    let complaints = match stage(work) {
        Ok(stage) => systemd::complaints(stage.path(), &units).await,
        Err(error) => Err(format!("the unit files cannot be put together: {error}")),
    };
    match complaints {
        Ok(complaints) => complaints.iter().for_each(|complaint| blame(work, complaint)),
        // It is one look more, and systemd says at the start what it refuses.
        Err(why) => tracing::warn!(why, "unit files are not looked through before they are written"),
    }
}

/// Removes the links by which units are enabled whose new text no longer says so: systemd makes the new ones and leaves these,
/// so that a unit would go on starting with a target that it has left. They go first: a kill in between leaves a unit that
/// is not enabled, which the next pass sees.
pub(super) fn unlink_stale(work: &mut Work<'_>) {
    for step in work.steps(Phase::Write) {
        let Action::WriteFile(path, FileState::Regular { .. }) = &step.action else { continue };
        let Some(new) = text_of(work, path).map(str::to_owned) else { continue };
        unlink_all(work, step, path, &new);
    }
}

/// Removes the links of units whose text goes while the unit stays: a quadlet makes it from now on, and Podman links what it
/// makes. They go first, since only the text tells which they are.
pub(super) fn unlink_gone(work: &mut Work<'_>) {
    for step in work.steps(Phase::Clear) {
        if let Action::RemoveFile(path, FileState::Regular { .. }) = &step.action {
            unlink_all(work, step, path, "");
        }
    }
}

/// Removes the links that the text at a path asks for and the new one does not.
fn unlink_all(work: &mut Work<'_>, step: &Step, path: &HostPath, new: &str) {
    let Some(text) = path.unit() else { return };
    let Some(old) = Disk::read(path, LARGEST) else { return };
    let old = String::from_utf8_lossy(&old);
    let instances = work.desired.units().map(|(_, name, _)| name).filter(|it| it.template().as_ref() == Some(&text));
    for unit in std::iter::once(&text).chain(instances) {
        for link in inputs::stale_links(unit, &old, new) {
            unlink(work, step, &link);
        }
    }
}

fn unlink(work: &mut Work<'_>, step: &Step, link: &HostPath) {
    let state = work.providers.disk.look(link);
    let FileState::Symlink { target, .. } = &state else { return };
    let Some(app) = step.app.as_ref().filter(|_| target.starts_with(UNIT_DIRECTORY)) else { return };
    match work.providers.disk.remove(link, &state) {
        Ok(()) => info!(app = app.as_str(), %link, "removed: no text of the unit asks for this link any more"),
        Err(error) => work.failed(step, &error, ""),
    }
}

fn text_of<'w>(work: &Work<'w>, path: &HostPath) -> Option<&'w str> {
    match &work.desired.file(path)?.kind {
        FileKind::Regular { content, .. } => std::str::from_utf8(content).ok(),
        FileKind::Artifact { .. } | FileKind::Archive { .. } | FileKind::Symlink { .. } | FileKind::Directory => None,
    }
}

/// Puts all unit files and drop-ins together as they will be.
fn stage(work: &Work<'_>) -> io::Result<tempfile::TempDir> {
    let stage = tempfile::Builder::new().prefix("mainstay-units-").tempdir()?;
    for (_, path, file) in work.desired.files() {
        let FileKind::Regular { content, .. } = &file.kind else { continue };
        if let Ok(within) = Path::new(path.as_str()).strip_prefix(UNIT_DIRECTORY) {
            let target = stage.path().join(within);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(target, content)?;
        }
    }
    Ok(stage)
}

/// Fails the application whose text a complaint is about.
fn blame(work: &mut Work<'_>, complaint: &Complaint) {
    let (below, line) = match &complaint.at {
        Place::Line(file, line) => (file.clone(), format!(":{line}")),
        Place::Unit(unit) => (unit.to_string(), String::new()),
    };
    let plan = work.plan;
    let is_it = |path: &HostPath| path.as_str().strip_prefix(UNIT_DIRECTORY) == Some(&format!("/{below}"));
    let step = plan.steps.iter().find(|step| matches!(&step.action, Action::WriteFile(path, _) if is_it(path)));
    // One that is there already came through this once, or is left alone.
    let Some((step, app)) = step.and_then(|step| Some((step, step.app.as_ref()?))) else { return };
    let why = format!("apps/{app}/{below}{line}: systemd does not take it as it is written: {}", complaint.text);
    work.failed_with(step, &why, "");
}
