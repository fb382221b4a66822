//! A pack of a few small objects, as sent with a push: whole objects, no deltas.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use gix::ObjectId;
use gix::objs::Kind;

use super::mirror::Source;

/// The most commits that one push sends; a host that could not push for longer sends them in several.
const MAX_COMMITS: usize = 10_000;

/// Packs, for each pair, what the new commit reaches and the old one does not. The old one must be an ancestor of the new one.
///
/// # Errors
/// An object cannot be read.
pub(super) fn between(repo: &gix::Repository, pairs: &[(Option<ObjectId>, ObjectId)]) -> Result<Vec<u8>, Source> {
    let mut objects = BTreeMap::new();
    for (old, new) in pairs {
        add(repo, *old, *new, &mut objects)?;
    }
    encode(repo, &objects)
}

/// Adds what `new` reaches and `old` does not to `objects`.
fn add(
    repo: &gix::Repository,
    old: Option<ObjectId>,
    new: ObjectId,
    objects: &mut BTreeMap<ObjectId, Kind>,
) -> Result<(), Source> {
    let mut known = BTreeMap::new();
    if let Some(old) = old {
        collect(repo, repo.find_commit(old)?.tree_id()?.detach(), &BTreeMap::new(), &mut known)?;
    }
    let (mut pending, mut commits) = (vec![new], BTreeSet::new());
    while let Some(id) = pending.pop() {
        if Some(id) == old || !commits.insert(id) {
            continue;
        }
        if commits.len() > MAX_COMMITS {
            return Err(format!("there are more than {MAX_COMMITS} commits to push").into());
        }
        let commit = repo.find_commit(id)?;
        collect(repo, commit.tree_id()?.detach(), &known, objects)?;
        pending.extend(commit.parent_ids().map(gix::Id::detach));
        objects.insert(id, Kind::Commit);
    }
    Ok(())
}

/// Adds the folder `tree` and all below it to `objects`, except what is in `known`.
fn collect(
    repo: &gix::Repository,
    tree: ObjectId,
    known: &BTreeMap<ObjectId, Kind>,
    objects: &mut BTreeMap<ObjectId, Kind>,
) -> Result<(), Source> {
    let mut folders = vec![tree];
    while let Some(id) = folders.pop() {
        if known.contains_key(&id) || objects.insert(id, Kind::Tree).is_some() {
            continue;
        }
        for entry in repo.find_tree(id)?.iter() {
            let entry = entry?;
            if entry.mode().is_tree() {
                folders.push(entry.object_id());
            } else if !entry.mode().is_commit() && !known.contains_key(&entry.object_id()) {
                objects.insert(entry.object_id(), Kind::Blob);
            }
        }
    }
    Ok(())
}

/// Writes the pack format, version 2 (gitformat-pack(5)).
fn encode(repo: &gix::Repository, objects: &BTreeMap<ObjectId, Kind>) -> Result<Vec<u8>, Source> {
    let pack = Growing::default();
    let mut header = b"PACK\0\0\0\x02".to_vec();
    header.extend_from_slice(&u32::try_from(objects.len())?.to_be_bytes());
    (&pack).write_all(&header)?;
    // One compressor for all objects: each takes 380 KB in aligned pieces, which the C library does not reuse well.
    let mut deflated = gix::zlib::stream::deflate::Write::new(&pack, gix::zlib::Compression::DEFAULT);
    for (id, kind) in objects {
        let data = &repo.find_object(*id)?.data;
        header.clear();
        write_header(&mut header, *kind, data.len());
        (&pack).write_all(&header)?;
        deflated.write_all(data)?;
        deflated.flush()?;
        deflated.reset();
    }
    drop(deflated);
    let mut pack = pack.0.into_inner();
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&pack);
    pack.extend_from_slice(hasher.try_finalize()?.as_slice());
    Ok(pack)
}

/// Bytes that are written from two sides in turn.
#[derive(Default)]
struct Growing(RefCell<Vec<u8>>);

impl Write for &Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes type and length: four bits of length beside the type, then seven in each byte, least significant first.
pub(super) fn write_header(pack: &mut Vec<u8>, kind: Kind, length: usize) {
    let number = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut byte = (number << 4) | lowest(length, 4);
    let mut rest = length >> 4;
    while rest > 0 {
        pack.push(byte | 0x80);
        byte = lowest(rest, 7);
        rest >>= 7;
    }
    pack.push(byte);
}

/// Returns the lowest `bits` of `number`, at most seven.
fn lowest(number: usize, bits: u32) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest & ((1 << bits) - 1)
}
