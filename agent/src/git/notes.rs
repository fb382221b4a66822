//! This host's notes: written and read as git's own, in commits that read well in `git log`.

use gix::ObjectId;
use gix::actor::{Signature, SignatureRef};
use gix::note::plumbing::State;
use jiff::Timestamp;
use spec::id::{CommitId, HostName, shown};

use super::error::GitError;
use super::mirror::{Mirror, Source, find, object_id, set};
use super::signs::MAX_NOTE;

/// Where notes are published.
pub(super) const NOTES: &str = "refs/notes/mainstay/";

/// The largest folder of notes that is read: some 100 000 notes.
pub(super) const MAX_FOLDER: u64 = 8 << 20;

/// The most notes of one host that are carried from one mirror or history to another.
const MAX_CARRIED: usize = 10_000;

impl Mirror {
    /// Writes `text` as `host`'s note on `commit`, in the mirror only; false when it is there already.
    ///
    /// # Errors
    /// The note is too large, or the mirror cannot be written.
    pub fn write_note(
        &mut self,
        host: &HostName,
        commit: &CommitId,
        text: &str,
        at: Timestamp,
    ) -> Result<bool, GitError> {
        let doing = format!("write the note of `{host}` on {}", commit.short());
        if text.len() as u64 > MAX_NOTE {
            return Err(self.failed(&doing, format!("it is larger than {MAX_NOTE} bytes").into()));
        }
        let name = own(host);
        let reference = find(&self.repo, &name).map_err(|source| self.failed(&doing, source))?;
        // A notes ref that cannot be read any more is started anew: what was published is at the remote.
        let tip = reference.filter(|tip| notes_tree(&self.repo, *tip).is_ok());
        if let Some(tip) = tip
            && note_at(&self.repo, tip, object_id(commit)).ok().flatten().as_deref() == Some(text)
        {
            return Ok(false);
        }
        let edits = [(object_id(commit), text.as_bytes().to_vec())];
        write(&self.repo, host, tip, &edits, &subject(text), at).map_err(|source| self.failed(&doing, source))?;
        Ok(true)
    }

    /// Reads `host`'s note on `commit`.
    ///
    /// `None` also when the note is unreadable, not UTF-8 or larger than 64 KiB: others wrote it, so it is not an error.
    pub fn read_note(&self, host: &HostName, commit: &CommitId) -> Option<String> {
        let tip = find(&self.repo, &own(host)).ok().flatten()?;
        let note = note_at(&self.repo, tip, object_id(commit));
        note.inspect_err(|error| tracing::debug!(%host, %commit, %error, "note is unreadable")).ok().flatten()
    }

    /// Copies all notes that this mirror's own refs hold into `fresh`, as far as they can be read.
    pub(super) fn carry_notes(&self, fresh: &gix::Repository) -> Result<(), Source> {
        let Ok(references) = self.repo.references() else { return Ok(()) };
        let Ok(found) = references.prefixed(NOTES) else { return Ok(()) };
        for reference in found.filter_map(Result::ok) {
            let name = reference.name().as_bstr().to_string();
            let Some(host) = name.strip_prefix(NOTES).and_then(|host| HostName::parse(host).ok()) else { continue };
            let Some(tip) = reference.target().try_id().map(ToOwned::to_owned) else { continue };
            let notes = readable(&self.repo, tip);
            if notes.is_empty() {
                tracing::warn!(%host, "no note could be saved from the damaged mirror");
                continue;
            }
            let at = committed(&self.repo, tip).unwrap_or(Timestamp::UNIX_EPOCH);
            write(fresh, &host, None, &notes, "notes saved from a damaged mirror", at)?;
        }
        Ok(())
    }

    /// Puts our notes on top of the history `theirs`, and points our ref at the result.
    pub(super) fn rebase_notes(&self, host: &HostName, theirs: ObjectId) -> Result<(), Source> {
        let name = own(host);
        let Some(ours) = find(&self.repo, &name)? else { return set(&self.repo, &name, theirs) };
        let mut notes = readable(&self.repo, ours);
        notes.retain(|(commit, bytes)| {
            let known = note_at(&self.repo, theirs, *commit).ok().flatten();
            known.as_deref().map(str::as_bytes) != Some(bytes.as_slice())
        });
        if notes.is_empty() {
            return set(&self.repo, &name, theirs);
        }
        let commit = self.repo.find_commit(ours)?;
        let message = String::from_utf8_lossy(commit.message_raw()?).trim().to_owned();
        let message = message.strip_prefix("mainstay: ").unwrap_or(&message).to_owned();
        let at = committed(&self.repo, ours).unwrap_or(Timestamp::UNIX_EPOCH);
        write(&self.repo, host, Some(theirs), &notes, &message, at)
    }
}

/// Names the ref of `host`'s notes.
pub(super) fn own(host: &HostName) -> String {
    format!("{NOTES}{host}")
}

/// Names the author of what `host` commits.
pub(super) fn author(host: &HostName, at: Timestamp) -> Signature {
    Signature {
        name: host.as_str().into(),
        email: format!("mainstay@{host}").into(),
        time: gix::date::Time::new(at.as_second(), 0),
    }
}

fn subject(text: &str) -> String {
    shown(text.trim().lines().next().unwrap_or_default()).chars().take(120).collect()
}

/// Commits `notes` on top of `parent` and points the ref of `host`'s notes at the commit.
fn write(
    repo: &gix::Repository,
    host: &HostName,
    parent: Option<ObjectId>,
    notes: &[(ObjectId, Vec<u8>)],
    message: &str,
    at: Timestamp,
) -> Result<(), Source> {
    let root = match parent {
        Some(parent) => notes_tree(repo, parent)?,
        None => repo.write_object(gix::objs::Tree::empty())?.detach(),
    };
    let mut state = State::new(root, &repo.objects)?;
    for (commit, bytes) in notes {
        let blob = repo.write_blob(bytes)?.detach();
        state.edit(*commit, Some(blob), &repo.objects)?;
    }
    let tree = state.write(&repo.objects)?;
    let author = author(host, at);
    let mut buffer = gix::date::parse::TimeBuf::default();
    let author: SignatureRef<'_> = author.to_ref(&mut buffer);
    let commit = repo.new_commit_as(author, author, format!("mainstay: {message}\n"), tree, parent)?;
    set(repo, &own(host), commit.id)
}

/// Returns the root folder of the notes commit `tip`, if it is of a sane size.
pub(super) fn notes_tree(repo: &gix::Repository, tip: ObjectId) -> Result<ObjectId, Source> {
    let (tree, _) = notes_commit(repo, tip)?;
    let header = repo.find_header(tree)?;
    if header.kind() != gix::objs::Kind::Tree || header.size() > MAX_FOLDER {
        return Err("its folder is too large or no folder".into());
    }
    Ok(tree)
}

/// Returns the folder of a commit of notes, which nobody has looked at, and the commit before it.
pub(super) fn notes_commit(repo: &gix::Repository, tip: ObjectId) -> Result<(ObjectId, Option<ObjectId>), Source> {
    if repo.find_header(tip)?.size() > MAX_NOTE {
        return Err("its commit is too large".into());
    }
    let commit = repo.find_commit(tip)?;
    let commit = commit.decode()?;
    Ok((commit.tree(), commit.parents().next()))
}

fn note_at(repo: &gix::Repository, tip: ObjectId, commit: ObjectId) -> Result<Option<String>, Source> {
    let root = notes_tree(repo, tip)?;
    let Some(blob) = State::new(root, &repo.objects)?.get(&commit, &repo.objects)? else { return Ok(None) };
    let bytes = blob_at(repo, blob)?;
    Ok(Some(String::from_utf8(bytes)?))
}

pub(super) fn blob_at(repo: &gix::Repository, blob: ObjectId) -> Result<Vec<u8>, Source> {
    let header = repo.find_header(blob)?;
    if header.kind() != gix::objs::Kind::Blob || header.size() > MAX_NOTE {
        return Err("it is too large or no file".into());
    }
    Ok(repo.find_blob(blob)?.take_data())
}

/// Reads all notes below `tip` that can be read.
fn readable(repo: &gix::Repository, tip: ObjectId) -> Vec<(ObjectId, Vec<u8>)> {
    let listed = list(repo, tip).unwrap_or_default();
    listed.into_iter().filter_map(|(commit, blob)| Some((commit, blob_at(repo, blob).ok()?))).collect()
}

/// Lists the commits with notes, and the notes' blobs, through any fan-out; what is no note is skipped.
fn list(repo: &gix::Repository, tip: ObjectId) -> Result<Vec<(ObjectId, ObjectId)>, Source> {
    let mut folders = vec![(String::new(), notes_tree(repo, tip)?)];
    let mut notes = Vec::new();
    while let Some((prefix, id)) = folders.pop() {
        if repo.find_header(id)?.size() > MAX_FOLDER {
            continue;
        }
        for entry in repo.find_tree(id)?.iter() {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.filename());
            if entry.mode().is_tree() && path.len() < 40 {
                folders.push((path, entry.object_id()));
            } else if let Ok(commit) = ObjectId::from_hex(path.as_bytes())
                && notes.len() < MAX_CARRIED
            {
                notes.push((commit, entry.object_id()));
            }
        }
    }
    Ok(notes)
}

fn committed(repo: &gix::Repository, tip: ObjectId) -> Option<Timestamp> {
    let commit = repo.find_commit(tip).ok()?;
    let seconds = commit.committer().ok()?.seconds();
    Timestamp::from_second(seconds).ok()
}
