//! The history of a host's notes: what it wrote, the latest first, as far back as somebody asks.

use std::collections::BTreeMap;

use gix::ObjectId;
use spec::id::HostName;

use super::error::GitError;
use super::mirror::{Mirror, Source, find};
use super::notes::{MAX_FOLDER, blob_at, notes_tree, own};

/// The deepest folder in which a note can be: notes fan out by two digits of the commit at a time.
const DEEPEST: usize = 20;

impl Mirror {
    /// Reads the notes that `host` wrote, the latest first, each as it was written then; at most `limit`. Says whether that is
    /// all of them. What cannot be read is left out: others may have written it.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub fn note_history(&self, host: &HostName, limit: usize) -> Result<(Vec<String>, bool), GitError> {
        let failed = |source: Source| self.failed(&format!("read the history of the notes of `{host}`"), source);
        let mut tip = find(&self.repo, &own(host)).map_err(failed)?;
        let mut texts = Vec::new();
        while let Some(commit) = tip {
            let before = parent(&self.repo, commit).map_err(failed)?;
            let (Ok(root), below) = (notes_tree(&self.repo, commit), before.map(|it| notes_tree(&self.repo, it)))
            else {
                return Ok((texts, false));
            };
            let mut changed = Vec::new();
            let below = below.and_then(Result::ok);
            differing(&self.repo, root, below, limit, &mut changed).map_err(failed)?;
            let read = changed.into_iter().filter_map(|blob| String::from_utf8(blob_at(&self.repo, blob).ok()?).ok());
            texts.extend(read);
            if texts.len() >= limit {
                texts.truncate(limit);
                return Ok((texts, before.is_none()));
            }
            tip = before;
        }
        Ok((texts, true))
    }
}

/// Returns the commit before a commit.
pub(super) fn parent(repo: &gix::Repository, commit: ObjectId) -> Result<Option<ObjectId>, Source> {
    Ok(repo.find_commit(commit)?.parent_ids().next().map(gix::Id::detach))
}

/// Collects the files below `new` that are not the same below `old`. Folders that are the same are not looked into.
pub(super) fn differing(
    repo: &gix::Repository,
    new: ObjectId,
    old: Option<ObjectId>,
    limit: usize,
    found: &mut Vec<ObjectId>,
) -> Result<(), Source> {
    below(repo, new, old, limit, DEEPEST, found)
}

fn below(
    repo: &gix::Repository,
    new: ObjectId,
    old: Option<ObjectId>,
    limit: usize,
    depth: usize,
    found: &mut Vec<ObjectId>,
) -> Result<(), Source> {
    let before = old.map_or_else(|| Ok(BTreeMap::new()), |old| entries(repo, old))?;
    for (name, (id, is_folder)) in entries(repo, new)? {
        let was = before.get(&name).copied();
        if was == Some((id, is_folder)) || found.len() >= limit {
            continue;
        }
        match is_folder {
            true if depth == 0 => {}
            true => {
                let was = was.filter(|(_, was_folder)| *was_folder).map(|(id, _)| id);
                below(repo, id, was, limit, depth - 1, found)?;
            }
            false => found.push(id),
        }
    }
    Ok(())
}

/// Lists a folder: what each name stands for, and whether that is a folder.
pub(super) fn entries(repo: &gix::Repository, folder: ObjectId) -> Result<BTreeMap<Vec<u8>, (ObjectId, bool)>, Source> {
    if repo.find_header(folder)?.size() > MAX_FOLDER {
        return Err("a folder of it is too large".into());
    }
    let tree = repo.find_tree(folder)?;
    let read = tree.iter().map(|entry| {
        let entry = entry?;
        Ok((entry.filename().to_vec(), (entry.object_id(), entry.mode().is_tree())))
    });
    read.collect()
}
