//! Plans files, links and directories: content, kind, mode and owner; only where nothing is there or it is ours.

use crate::desired::{DesiredFile, FileKind};
use crate::id::{AppName, HostPath, ResourceId, SECRETS_DIRECTORY};
use crate::inputs::fingerprint;
use crate::observed::{Access, FileState};
use crate::plan::{Action, Draft, Keep, Lesson, Why, claims};

/// Plans every wanted file.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    closed_archives(draft);
    for (app, path, file) in desired.files() {
        if matches!(file.kind, FileKind::Archive { is_open: false, .. }) {
            draft.blocked.insert(path.clone());
            continue;
        }
        if let Some((why, is_kept)) = unopened(draft, file) {
            draft.conflict(app, ResourceId::File(path.clone()), why);
            if !is_kept {
                draft.blocked.insert(path.clone());
                continue;
            }
        }
        if let Some(why) = draft.observed.reader_away(path) {
            draft.blocked.insert(path.clone());
            draft.unknown(app, ResourceId::File(path.clone()), &why);
            continue;
        }
        if let Some(why) = strangers(draft, app, path) {
            draft.blocked.insert(path.clone());
            draft.conflict(app, ResourceId::File(path.clone()), why);
            continue;
        }
        if path.quadlet().is_some() && !draft.observed.has_podman {
            draft.blocked.insert(path.clone());
            let why = "this host has no Podman to make a service of it: install it (apt install podman)";
            draft.conflict(app, ResourceId::File(path.clone()), why.to_owned());
            continue;
        }
        if claims::hold_back(draft, app, path) {
            draft.blocked.insert(path.clone());
            continue;
        }
        match access(draft, file) {
            Err(why) => {
                draft.blocked.insert(path.clone());
                draft.conflict(app, ResourceId::File(path.clone()), why);
            }
            Ok(access) => plan_file(draft, app, path, file, access),
        }
    }
}

/// Says why what a link leads to cannot be opened, if it is a secret that cannot, and whether an old one is there.
fn unopened(draft: &Draft<'_>, file: &DesiredFile) -> Option<(String, bool)> {
    let FileKind::Symlink { target } = &file.kind else { return None };
    let target = HostPath::parse(target).ok().filter(|target| target.is_below(SECRETS_DIRECTORY))?;
    let found = draft.observed.unpublished.get(&target)?;
    let rest = if found.is_kept { "; what was opened before stays in use" } else { "" };
    Some((format!("it cannot be opened: {}{rest}", found.why), found.is_kept))
}

/// Plans what is needed to know what is in archives. Until it is known, nothing of their applications is changed: the rest of a
/// release does not go without them, and what they leave out cannot be told.
fn closed_archives(draft: &mut Draft<'_>) {
    for (app, wanted) in &draft.desired.apps {
        if draft.is_aside(app) {
            continue;
        }
        for (path, origin) in wanted.closed_archives() {
            let id = ResourceId::File(path);
            let why = draft.because(app, &id, "what is in it is not known");
            draft.fetch(app, origin.key(), &origin, &why);
            draft.unknown(app, id, "what is in it is planned once it was fetched");
            draft.plan.closed.insert(app.clone());
        }
    }
}

/// Tells who reads a whole archive what becomes of its parts.
pub(super) fn archives(draft: &mut Draft<'_>) {
    let open = |file: &DesiredFile| matches!(file.kind, FileKind::Archive { is_open: true, .. });
    for (_, path, _) in draft.desired.files().filter(|(_, _, file)| open(file)) {
        for set in [&mut draft.blocked, &mut draft.written, &mut draft.astray] {
            // What lies below a folder follows it, but for names that go on where it ends.
            let within = set.range(path.clone()..).take_while(|other| other.as_str().starts_with(path.as_str()));
            if within.into_iter().any(|other| other.is_below(path.as_str())) {
                set.insert(path.clone());
            }
        }
    }
}

/// Says why a user's quadlet must not be put in place, if that number is not this user's: another's Podman would take it.
fn strangers(draft: &Draft<'_>, app: &AppName, path: &HostPath) -> Option<String> {
    path.quadlet_uid()?;
    let user = draft.desired.apps.get(app)?.user.as_ref()?;
    draft.observed.managers.get(user)?.stranger.clone()
}

/// Whose the thing at a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Remembered as ours.
    Ours,
    /// Claimed, or marked, and exactly as it would be: ours, and not remembered so yet.
    Found,
    /// Somebody else's.
    Foreign,
}

/// Says whose the thing at `path` is.
pub(super) fn whose(draft: &Draft<'_>, path: &HostPath, state: &FileState) -> Whose {
    match draft.memory.owned.get(&ResourceId::File(path.clone())) {
        Some(owned) => match owned.claim {
            None => Whose::Ours,
            Some(claim) if seen_fingerprint(state) == Some(claim) => Whose::Found,
            Some(_) => Whose::Foreign,
        },
        None => match state {
            FileState::Regular { mark: Some(_), .. } => Whose::Found,
            _ => Whose::Foreign,
        },
    }
}

/// Says whether something else is at an owned path than what this agent is known to have put there.
pub(super) fn is_edited(draft: &Draft<'_>, path: &HostPath, state: &FileState) -> bool {
    let put = draft.memory.owned.get(&ResourceId::File(path.clone())).and_then(|owned| owned.put);
    put.is_none() || put != seen_fingerprint(state)
}

/// Says whether a secret is to be found at a name of the kind.
fn leads_to_a_secret(kind: &FileKind) -> bool {
    matches!(kind, FileKind::Symlink { target } if HostPath::parse(target).is_ok_and(|it| it.is_below(SECRETS_DIRECTORY)))
}

/// Says whether what was put at a path led to a secret, of whichever application: what somebody left there since, an editor for instance,
/// most likely holds it.
pub(super) fn was_a_secret(draft: &Draft<'_>, path: &HostPath) -> bool {
    let owned = draft.memory.owned.get(&ResourceId::File(path.clone()));
    let Some((put, owner)) = owned.and_then(|owned| Some((owned.put?, &owned.app))) else { return false };
    let apps = draft.memory.apps.keys().chain(draft.desired.apps.keys()).chain([owner]);
    let link = |app: &AppName| FileKind::Symlink { target: format!("{SECRETS_DIRECTORY}/{app}{path}") };
    apps.into_iter().any(|app| put == fingerprint(&link(app)))
}

/// Adds to a reason that what is there is not kept: backups are on a disk.
fn unkept(why: Why) -> Why {
    const UNKEPT: &str = "; it is not kept, as it may hold a secret";
    match why {
        Why::Changed(text) => Why::Changed(text + UNKEPT),
        Why::Drifted(text) => Why::Drifted(text + UNKEPT),
        other => other,
    }
}

fn seen_fingerprint(state: &FileState) -> Option<crate::digest::Digest> {
    match state {
        FileState::Regular { digest, .. } => Some(*digest),
        FileState::Symlink { target, .. } => Some(fingerprint(&FileKind::Symlink { target: target.clone() })),
        FileState::Directory { .. } => Some(fingerprint(&FileKind::Directory)),
        FileState::Absent | FileState::Other | FileState::Unknown(_) => None,
    }
}

fn plan_file(draft: &mut Draft<'_>, app: &AppName, path: &HostPath, file: &DesiredFile, access: Access) {
    let id = ResourceId::File(path.clone());
    let state = match draft.observed.files.get(path) {
        Some(FileState::Unknown(why)) => {
            draft.blocked.insert(path.clone());
            return draft.conflict(app, id, format!("cannot be looked at: {why}"));
        }
        Some(state) => state.clone(),
        None => {
            draft.blocked.insert(path.clone());
            return draft.unknown(app, id, "was not looked at");
        }
    };
    if state == FileState::Absent {
        let why = draft.because_absent(app, &id, "it was removed");
        return draft.write(app, path, state, why);
    }
    let content = has_content(Some(&state), &file.kind);
    let kept = content && has_access(&state, &file.kind, access);
    match whose(draft, path, &state) {
        Whose::Foreign if draft.policy(app, &id).adopt => {
            let found = Found { app, path, file, has_content: content, is_kept: kept };
            return adopt(draft, &found, state);
        }
        Whose::Foreign if kept => return,
        Whose::Foreign => {
            draft.blocked.insert(path.clone());
            return draft.conflict(app, id, foreign(path, file, &state));
        }
        Whose::Found => draft.plan.lessons.push(Lesson::Made(id.clone(), app.clone())),
        Whose::Ours => {
            if draft.memory.owned.get(&id).is_some_and(|owned| owned.app != *app) {
                draft.plan.lessons.push(Lesson::Moved(id.clone(), app.clone()));
            }
        }
    }
    let put = fingerprint(&file.kind);
    if content && draft.memory.owned.get(&id).is_none_or(|owned| owned.put != Some(put)) {
        draft.plan.lessons.push(Lesson::Holds(path.clone(), put));
    }
    if kept {
        return;
    }
    let replaceable = matches!(state, FileState::Regular { .. } | FileState::Symlink { .. });
    if content {
        let why = draft.because(app, &id, difference(&state, access));
        draft.step(app, Action::SetAccess(path.clone(), state), why);
    } else if replaceable && !file.kind.is_directory() {
        let why = draft.because(app, &id, change(&state, &file.kind));
        let why = match (is_edited(draft, path, &state), was_a_secret(draft, path)) {
            (true, true) => unkept(why),
            (true, false) => {
                draft.plan.keeps.insert(path.clone(), Keep::Edited);
                why
            }
            (false, _) => why,
        };
        draft.write(app, path, state, why);
    } else {
        misplaced(draft, app, path, file, &state);
    }
}

/// Something else that is at a wanted name.
struct Found<'a> {
    app: &'a AppName,
    path: &'a HostPath,
    file: &'a DesiredFile,
    has_content: bool,
    is_kept: bool,
}

/// Plans something else at a wanted name that is to be taken over. What is as wanted already is only remembered as ours; of
/// anything else the bytes, or the mode and owner, are kept. A directory is never removed for a file.
fn adopt(draft: &mut Draft<'_>, found: &Found<'_>, state: FileState) {
    let Found { app, path, file, .. } = *found;
    let id = ResourceId::File(path.clone());
    let is_directory = matches!(state, FileState::Directory { .. });
    if found.is_kept {
        draft.plan.lessons.push(Lesson::Made(id, app.clone()));
        draft.plan.lessons.push(Lesson::Holds(path.clone(), fingerprint(&file.kind)));
        return;
    }
    if state == FileState::Other || is_directory != file.kind.is_directory() {
        return misplaced(draft, app, path, file, &state);
    }
    let why = Why::Changed(format!("{} that was there is taken over", noun(&state)));
    // It would be kept on a disk, and is nothing to throw away.
    if leads_to_a_secret(&file.kind) && matches!(state, FileState::Regular { .. }) {
        draft.blocked.insert(path.clone());
        return draft.conflict(app, ResourceId::File(path.clone()), foreign(path, file, &state));
    }
    if !is_directory {
        draft.plan.keeps.insert(path.clone(), Keep::Adopted);
    }
    if found.has_content {
        draft.step(app, Action::SetAccess(path.clone(), state), why);
    } else {
        draft.write(app, path, state, why);
    }
}

/// Notes that something of another kind is at a wanted name, which mainstay does not remove.
fn misplaced(draft: &mut Draft<'_>, app: &AppName, path: &HostPath, file: &DesiredFile, state: &FileState) {
    draft.blocked.insert(path.clone());
    let (is, should) = (noun(state), wanted(&file.kind));
    let why = format!("is {is} and should be {should}; move it away, mainstay does not remove it");
    draft.conflict(app, ResourceId::File(path.clone()), why);
}

/// Says whether the path is of the wanted kind and holds the wanted content.
pub(super) fn has_content(state: Option<&FileState>, kind: &FileKind) -> bool {
    match (state, kind) {
        (
            Some(FileState::Regular { digest: is, .. }),
            FileKind::Regular { digest, .. } | FileKind::Artifact { digest, .. },
        ) => is == digest,
        (Some(FileState::Symlink { target: is, .. }), FileKind::Symlink { target }) => is == target,
        (Some(FileState::Directory { .. }), FileKind::Directory | FileKind::Archive { .. }) => true,
        _ => false,
    }
}

fn seen_access(state: &FileState) -> Option<Access> {
    match state {
        FileState::Regular { access, .. } | FileState::Symlink { access, .. } | FileState::Directory { access, .. } => {
            Some(*access)
        }
        FileState::Absent | FileState::Other | FileState::Unknown(_) => None,
    }
}

fn has_access(state: &FileState, kind: &FileKind, wanted: Access) -> bool {
    seen_access(state).is_some_and(|is| {
        let mode = matches!(kind, FileKind::Symlink { .. }) || is.mode == wanted.mode;
        mode && (is.uid, is.gid) == (wanted.uid, wanted.gid)
    })
}

/// Resolves the wanted owner and group to this host's ids.
fn access(draft: &Draft<'_>, file: &DesiredFile) -> Result<Access, String> {
    let id = |known: &std::collections::BTreeMap<String, Option<u32>>, name: &str, what: &str| {
        let resolved = name.parse().ok().or_else(|| known.get(name).copied().flatten());
        resolved.ok_or_else(|| {
            format!("this host has no {what} `{name}`: create it (a package or sysusers.d does), or name another")
        })
    };
    Ok(Access {
        mode: file.mode,
        uid: id(&draft.observed.users, &file.owner, "user")?,
        gid: id(&draft.observed.groups, &file.group, "group")?,
    })
}

fn noun(state: &FileState) -> &'static str {
    match state {
        FileState::Absent => "nothing",
        FileState::Regular { .. } => "a file",
        FileState::Symlink { .. } => "a symbolic link",
        FileState::Directory { .. } => "a directory",
        FileState::Other => "a device, socket or pipe",
        FileState::Unknown(_) => "unknown",
    }
}

fn wanted(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Regular { .. } | FileKind::Artifact { .. } => "a file",
        FileKind::Symlink { .. } => "a symbolic link",
        FileKind::Directory | FileKind::Archive { .. } => "a directory",
    }
}

fn foreign(path: &HostPath, file: &DesiredFile, state: &FileState) -> String {
    if let (FileState::Symlink { target, .. }, Some(unit)) = (state, path.unit())
        && target == "/dev/null"
    {
        return format!(
            "somebody masked {unit} on this host, so that nothing starts it: find out why, then `systemctl unmask {unit}`; or no \
             longer ask for it here"
        );
    }
    let what = noun(state);
    if leads_to_a_secret(&file.kind) && matches!(state, FileState::Regular { .. }) {
        return format!(
            "{what} is there already, mainstay did not put it there, and a secret belongs there; move it away or remove it: mainstay would \
             keep it on the disk, and it may hold the secret; or give the application another path"
        );
    }
    format!(
        "{what} is there already, mainstay did not put it there, and it differs from what is wanted; \
         move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced"
    )
}

fn change(state: &FileState, kind: &FileKind) -> String {
    match (state, kind) {
        (FileState::Regular { .. }, FileKind::Regular { .. } | FileKind::Artifact { .. }) => {
            "its content differs".to_owned()
        }
        (FileState::Symlink { target, .. }, FileKind::Symlink { .. }) => {
            format!("it points to {}", crate::id::shown(target))
        }
        _ => format!("it is {} instead of {}", noun(state), wanted(kind)),
    }
}

fn difference(state: &FileState, wanted: Access) -> String {
    let Some(is) = seen_access(state) else { return "its access differs".to_owned() };
    let mut parts = Vec::new();
    if is.mode != wanted.mode && !matches!(state, FileState::Symlink { .. }) {
        parts.push(format!("mode {} -> {}", is.mode, wanted.mode));
    }
    if (is.uid, is.gid) != (wanted.uid, wanted.gid) {
        parts.push(format!("owner {}:{} -> {}:{}", is.uid, is.gid, wanted.uid, wanted.gid));
    }
    parts.join(", ")
}
