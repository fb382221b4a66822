//! Carries out the steps on files: removals, directories first-made-first, then all writes as one batch.

use std::collections::BTreeMap;

use jiff::Timestamp;
use spec::desired::Desired;
use spec::digest::Digest;
use spec::id::{HostPath, ResourceId};
use spec::inputs;
use spec::journal;
use spec::memory::Memory;
use spec::observed::{Access, FileState};
use spec::plan::{Action, Keep, Phase, Step};
use tracing::info;

use super::Work;
use crate::backups::Reason;
use crate::disk::{Disk, Write};
use crate::observe::Providers;

/// So many files are prepared before the first of them is put in place.
const BATCH: usize = 256;
/// Said when a name that the planner resolved does not resolve any more.
const UNKNOWN_OWNER: &str = "this host no longer knows its owner or group";

/// Names every path that is owned or wanted, with the contents that are known to be ours there.
pub(super) fn ours(memory: &Memory, desired: &Desired) -> BTreeMap<HostPath, Vec<Digest>> {
    let mut ours: BTreeMap<HostPath, Vec<Digest>> = BTreeMap::new();
    for (id, owned) in &memory.owned {
        if let ResourceId::File(path) = id {
            ours.entry(path.clone()).or_default().extend(owned.put.iter().chain(&owned.claim));
        }
    }
    for (_, path, file) in desired.files() {
        ours.entry(path.clone()).or_default().push(inputs::fingerprint(&file.kind));
    }
    ours
}

/// Removes what a killed agent left under temporary names; what is not known to be ours is kept.
pub(super) fn sweep(providers: &mut Providers, ours: &BTreeMap<HostPath, Vec<Digest>>) {
    let Providers { disk, backups, .. } = providers;
    disk.ensure_swept(ours.keys(), |path, original| {
        if ours[path].iter().any(|ours| original.expected == Some(*ours)) {
            return Ok(());
        }
        let why = "it was found under a temporary name beside its path, after mainstay was killed";
        let reason = Reason { path, app: None, why, adopted: false };
        backups.keep(original, &reason, Timestamp::now()).map(drop).map_err(|error| crate::chain(&error))
    });
}

/// Keeps what somebody else wrote where a step is about to overwrite or remove, if the plan says so. Says whether the step
/// may go on: what cannot be kept is left as it is, and the step fails.
fn keep(work: &mut Work<'_>, step: &Step, path: &HostPath, expected: &FileState) -> bool {
    let Some(keep) = work.plan.keeps.get(path) else { return true };
    let reason = Reason { path, app: step.app.as_ref(), why: keep.as_str(), adopted: *keep == Keep::Adopted };
    let original = Disk::original(path, expected).map_err(|error| crate::chain(&error));
    let kept = original.and_then(|original| {
        work.providers.backups.keep(original, &reason, Timestamp::now()).map_err(|error| crate::chain(&error))
    });
    work.progress.mark();
    match kept {
        Ok(entry) => {
            info!(%path, id = entry.id, "kept what was there: `mainstay restore {}` brings it back", entry.id);
            true
        }
        Err(why) => {
            let why = format!("what is there could not be kept, so it is left as it is: {why}");
            work.failed_with(step, &why, "");
            false
        }
    }
}

/// Removes what is ours and unwanted: files first, then the directories that are empty by then, the deepest first.
pub(super) fn remove(work: &mut Work<'_>) {
    let steps = work.steps(Phase::Clear);
    for step in &steps {
        if let Action::RemoveFile(path, expected) = &step.action
            && keep(work, step, path, expected)
        {
            match work.providers.disk.remove(path, expected) {
                Ok(()) => work.removed(step, &ResourceId::File(path.clone())),
                Err(error) => work.failed(step, &error, ""),
            }
        }
    }
    let mut directories: Vec<(&HostPath, &Step)> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::RemoveDirectory(path) => Some((path, *step)),
            _ => None,
        })
        .collect();
    directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_str().len()));
    for (path, step) in directories {
        match Disk::remove_directory(path) {
            Ok(true) => work.removed(step, &ResourceId::File(path.clone())),
            // Somebody put something into it: it is theirs now.
            Ok(false) => journal::removed(&mut work.ledger.memory, &ResourceId::File(path.clone())),
            Err(error) => work.failed(step, &error, ""),
        }
    }
}

/// Makes directories, then writes all files as one batch, then sets modes and owners.
pub(super) fn write(work: &mut Work<'_>) {
    let steps = work.steps(Phase::Write);
    let is_directory = |step: &&Step| match &step.action {
        Action::WriteFile(path, _) => work.desired.file(path).is_some_and(|file| file.kind.is_directory()),
        _ => false,
    };
    let (directories, rest): (Vec<&Step>, Vec<&Step>) = steps.into_iter().partition(is_directory);
    for step in directories {
        write_batch(work, &[step]);
    }
    let (files, access): (Vec<&Step>, Vec<&Step>) =
        rest.into_iter().partition(|step| matches!(step.action, Action::WriteFile(..)));
    // Each is open until all of its batch are in place.
    files.chunks(BATCH).for_each(|files| write_batch(work, files));
    for step in access {
        if let Action::SetAccess(path, expected) = &step.action
            && keep(work, step, path, expected)
        {
            let Some(access) = wanted_access(work, path) else {
                work.failed_with(step, UNKNOWN_OWNER, "");
                continue;
            };
            match work.providers.disk.set_access(path, access, expected) {
                Ok(()) => {
                    if let (Some(app), Some(file)) = (&step.app, work.desired.file(path)) {
                        journal::took(&mut work.ledger.memory, app, path, &file.kind);
                    }
                    work.done(step);
                }
                Err(error) => work.failed(step, &error, ""),
            }
        }
    }
}

fn write_batch(work: &mut Work<'_>, steps: &[&Step]) {
    let mut writes = Vec::new();
    let mut of = Vec::new();
    for step in steps {
        if let (Action::WriteFile(path, expected), Some(app)) = (&step.action, &step.app) {
            let (Some(file), Some(access)) = (work.desired.file(path), wanted_access(work, path)) else {
                journal::not_written(&mut work.ledger.memory, path);
                work.failed_with(step, UNKNOWN_OWNER, "");
                continue;
            };
            if !keep(work, step, path, expected) {
                continue;
            }
            writes.push(Write { path, file, access, expected, app });
            of.push(*step);
        }
    }
    let results = work.providers.disk.write(&writes);
    for ((step, write), result) in of.into_iter().zip(&writes).zip(results) {
        match result {
            Ok(made) => {
                journal::wrote(&mut work.ledger.memory, write.app, write.path, &write.file.kind, &made);
                work.done(step);
            }
            Err(error) => {
                if *write.expected == FileState::Absent {
                    journal::not_written(&mut work.ledger.memory, write.path);
                }
                work.failed(step, &error, "");
            }
        }
    }
}

/// Resolves the wanted owner and mode; the planner has made sure that the names resolve.
fn wanted_access(work: &Work<'_>, path: &HostPath) -> Option<Access> {
    let file = work.desired.file(path)?;
    let uid = match file.owner.as_str() {
        "root" => 0,
        name => name.parse().ok().or_else(|| uzers::get_user_by_name(name).map(|user| user.uid()))?,
    };
    let gid = match file.group.as_str() {
        "root" => 0,
        name => name.parse().ok().or_else(|| uzers::get_group_by_name(name).map(|group| group.gid()))?,
    };
    Some(Access { mode: file.mode, uid, gid })
}
