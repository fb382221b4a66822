//! Taking objects over from who is not believed: each is asked for by its name, which is a hash of what it holds, so that nothing
//! but what a commit stands for comes in, whole. What arrives is read no further than to see what it names.
//!
//! They are put into one pack, which this process writes itself, and which is there as a whole or not at all: what is in the
//! repository is in it with everything that it reaches, and need not be looked at again.

use std::collections::BTreeSet;
use std::io::{self, Read as _};

use gix::ObjectId;
use gix::objs::{CommitRefIter, Kind, TagRefIter, TreeRefIter};

use super::link::{Id, Link, Wants};
use super::mirror::Source;
use super::remote::{Bounds, MAX_OBJECT};
use super::signs::{MAX_SIGN, is_sign};
use super::spool::Spool;

/// So many objects are asked for at once.
const AT_ONCE: usize = 4096;
/// How much of an object is held at once.
const PIECE: usize = 64 << 10;

/// Why objects were not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    /// More objects than are accepted.
    #[error("there are more than {0} objects")]
    TooMany(usize),
    /// More bytes than are accepted.
    #[error("the objects have more than {0} bytes")]
    TooLarge(u64),
    /// More bytes in one object than are accepted.
    #[error("an object has more than {0} bytes")]
    File(u64),
    /// More bytes than may be stored.
    #[error("the objects take more than {0} bytes")]
    TooMuch(u64),
    /// Nobody is at the other end any more, or not in time.
    #[error("the fetcher broke off")]
    Link(#[source] io::Error),
    /// What was sent is not what was asked for.
    #[error("object {id} {why}")]
    Wrong {
        /// What was asked for.
        id: ObjectId,
        /// What came.
        why: String,
    },
    /// This repository cannot be read or written.
    #[error("the objects cannot be stored")]
    Local(#[source] Source),
}

/// What came in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How many objects.
    pub(super) objects: usize,
    /// What of the signs of life is none, and did not.
    pub(super) refused: BTreeSet<ObjectId>,
}

/// Takes over what `roots` reach and `repo` does not have, and those of `signs` that are signs of life.
///
/// # Errors
/// See [`WalkError`]; nothing is there then that was not there before.
pub(super) fn take(
    repo: &gix::Repository,
    link: &mut Link<'_>,
    (roots, signs): (&[ObjectId], &[ObjectId]),
    bounds: Bounds,
) -> Result<Taken, WalkError> {
    let mut found = Found { repo, bounds, seen: BTreeSet::new(), wanted: Vec::new() };
    for root in roots {
        found.add(*root)?;
    }
    let local = |error: io::Error| WalkError::Local(error.into());
    let folder = repo.objects.store_ref().path().join("pack");
    let mut spool = Spool::begin(&folder, bounds.stored()).map_err(local)?;
    let mut left = bounds.unpacked;
    while !found.wanted.is_empty() {
        let now = found.wanted.split_off(found.wanted.len().saturating_sub(AT_ONCE));
        link.say(&Wants { ids: now.iter().copied().map(Id).collect(), most: MAX_OBJECT as u64 })
            .map_err(WalkError::Link)?;
        for id in now {
            receive(link, id, &mut left, &mut spool, &mut found)?;
        }
    }
    let mut refused = BTreeSet::new();
    let missing = signs.iter().copied().filter(|id| !found.seen.contains(id) && !repo.has_object(*id));
    let missing: Vec<ObjectId> = missing.collect::<BTreeSet<_>>().into_iter().collect();
    for now in missing.chunks(AT_ONCE) {
        link.say(&Wants { ids: now.iter().copied().map(Id).collect(), most: MAX_SIGN }).map_err(WalkError::Link)?;
        for id in now {
            match receive_sign(link, *id, &mut spool, bounds)? {
                true => found.seen.insert(*id),
                false => refused.insert(*id),
            };
        }
    }
    let taken = Taken { objects: found.seen.len(), refused };
    if taken.objects == 0 {
        return Ok(taken);
    }
    spool.finish(&folder).map_err(local)?;
    Ok(taken)
}

/// What is to come in: each object once, and no more than may.
struct Found<'r> {
    repo: &'r gix::Repository,
    bounds: Bounds,
    seen: BTreeSet<ObjectId>,
    /// What of it was not asked for yet.
    wanted: Vec<ObjectId>,
}

impl Found<'_> {
    fn add(&mut self, id: ObjectId) -> Result<(), WalkError> {
        if self.seen.contains(&id) || self.repo.has_object(id) {
            return Ok(());
        }
        if self.seen.len() >= self.bounds.objects {
            return Err(WalkError::TooMany(self.bounds.objects));
        }
        self.seen.insert(id);
        self.wanted.push(id);
        Ok(())
    }
}

/// Reads of which kind an object is that comes next, and how many bytes it has; `None` where there is none.
fn header(link: &mut Link<'_>, id: ObjectId) -> Result<Option<(Kind, u64)>, WalkError> {
    let mut head = [0; 9];
    link.read_exact(&mut head).map_err(WalkError::Link)?;
    let [number, length @ ..] = head;
    let kind = match number {
        0 => return Ok(None),
        1 => Kind::Commit,
        2 => Kind::Tree,
        3 => Kind::Blob,
        4 => Kind::Tag,
        _ => return Err(WalkError::Wrong { id, why: "is of no kind".to_owned() }),
    };
    Ok(Some((kind, u64::from_be_bytes(length))))
}

/// Begins the digest that is an object's name.
fn hasher(kind: Kind, length: u64) -> gix::hash::Hasher {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&gix::objs::encode::loose_header(kind, length));
    hasher
}

/// Says that what came is not what the name stands for.
fn named(hasher: gix::hash::Hasher, id: ObjectId) -> Result<(), WalkError> {
    let wrong = |why: String| WalkError::Wrong { id, why };
    match hasher.try_finalize().map_err(|error| wrong(error.to_string()))? == id {
        true => Ok(()),
        false => Err(wrong("came as something else".to_owned())),
    }
}

fn stored(error: io::Error, bounds: Bounds) -> WalkError {
    match error.kind() {
        io::ErrorKind::QuotaExceeded if error.raw_os_error().is_none() => WalkError::TooMuch(bounds.stored()),
        _ => WalkError::Local(error.into()),
    }
}

/// Receives what is to be a sign of life, into the spool if it is one. Says whether it is.
fn receive_sign(link: &mut Link<'_>, id: ObjectId, spool: &mut Spool, bounds: Bounds) -> Result<bool, WalkError> {
    let Some((kind, length)) = header(link, id)? else { return Ok(false) };
    if length > MAX_SIGN {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    link.take(length).read_to_end(&mut bytes).map_err(WalkError::Link)?;
    let mut hasher = hasher(kind, length);
    hasher.update(&bytes);
    named(hasher, id)?;
    if !is_sign(kind, &bytes) {
        return Ok(false);
    }
    let stored = |error| stored(error, bounds);
    spool.object(id, kind, bytes.len()).map_err(stored)?;
    spool.add(&bytes).map_err(stored)?;
    spool.end().map_err(stored)?;
    Ok(true)
}

/// Receives an object into the spool, and adds what it names to what is to come in.
fn receive(
    link: &mut Link<'_>,
    id: ObjectId,
    left: &mut u64,
    spool: &mut Spool,
    found: &mut Found<'_>,
) -> Result<(), WalkError> {
    let wrong = |why: &str| WalkError::Wrong { id, why: why.to_owned() };
    let (kind, length) = header(link, id)?.ok_or_else(|| wrong("is not there"))?;
    if length > MAX_OBJECT as u64 {
        return Err(WalkError::File(MAX_OBJECT as u64));
    }
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    *left = left.checked_sub(length).ok_or(WalkError::TooLarge(found.bounds.unpacked))?;
    let (mut hasher, bounds) = (hasher(kind, length), found.bounds);
    let local = |error| stored(error, bounds);
    spool.object(id, kind, size).map_err(local)?;
    let mut whole = Vec::new();
    let mut piece = vec![0; PIECE.min(size)];
    let mut rest = size;
    while rest > 0 {
        let piece = &mut piece[..rest.min(PIECE)];
        link.read_exact(piece).map_err(WalkError::Link)?;
        rest -= piece.len();
        hasher.update(piece);
        spool.add(piece).map_err(local)?;
        if kind != Kind::Blob {
            whole.extend_from_slice(piece);
        }
    }
    spool.end().map_err(local)?;
    named(hasher, id)?;
    let unreadable = |why: String| wrong(&format!("cannot be read: {why}"));
    match kind {
        Kind::Blob => {}
        Kind::Commit => {
            let tree = CommitRefIter::from_bytes(&whole, id.kind()).tree_id();
            found.add(tree.map_err(|error| unreadable(error.to_string()))?)?;
            for parent in CommitRefIter::from_bytes(&whole, id.kind()).parent_ids() {
                found.add(parent)?;
            }
        }
        Kind::Tree => {
            for entry in TreeRefIter::from_bytes(&whole, id.kind()) {
                let entry = entry.map_err(|error| unreadable(error.to_string()))?;
                // Commits of other repositories are not ours to have.
                if !entry.mode.is_commit() {
                    found.add(entry.oid.to_owned())?;
                }
            }
        }
        Kind::Tag => {
            let target = TagRefIter::from_bytes(&whole, id.kind()).target_id();
            found.add(target.map_err(|error| unreadable(error.to_string()))?)?;
        }
    }
    Ok(())
}
