//! Taking objects over from who is not believed: each is asked for by its name, which is a hash of what it holds, so that nothing
//! but what a commit stands for comes in, whole. What arrives is read no further than to see what it names.
//!
//! They are put into one pack, which this process writes itself, and which is there as a whole or not at all: what is in the
//! repository is in it with everything that it reaches, and need not be looked at again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::objs::{CommitRefIter, Kind, TagRefIter, TreeRefIter};
use gix::odb::pack;
use gix::progress::Discard;

use super::link::{Id, Link, Wants};
use super::mirror::Source;
use super::pack::write_header;

/// So many objects are asked for at once.
const AT_ONCE: usize = 4096;
/// A commit, a tree or a tag that is larger is none that people make.
const MAX_NAMING: u64 = 32 << 20;
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
    TooLarge(usize),
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

/// What may come in.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Objects.
    pub(super) objects: usize,
    /// Their bytes, unpacked.
    pub(super) bytes: usize,
}

/// Takes over what `roots` reach and `repo` does not have. Returns how many objects that were.
///
/// # Errors
/// See [`WalkError`]; nothing is there then that was not there before.
pub(super) fn take(
    repo: &gix::Repository,
    link: &mut Link<'_>,
    roots: &[ObjectId],
    bounds: Bounds,
) -> Result<usize, WalkError> {
    let mut seen: BTreeSet<ObjectId> = roots.iter().copied().filter(|id| !repo.has_object(*id)).collect();
    let mut wanted: Vec<ObjectId> = seen.iter().copied().collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let local = |error: io::Error| WalkError::Local(error.into());
    let folder = repo.objects.store_ref().path().join("pack");
    let mut spool = Spool::new(tempfile::tempfile_in(&folder).map_err(local)?).map_err(local)?;
    let mut left = bounds.bytes;
    while !wanted.is_empty() {
        let now = wanted.split_off(wanted.len().saturating_sub(AT_ONCE));
        link.say(&Wants(now.iter().copied().map(Id).collect())).map_err(WalkError::Link)?;
        let mut named = Vec::new();
        for id in now {
            receive(link, id, &mut left, bounds, &mut spool, &mut named)?;
        }
        for id in named {
            if !seen.contains(&id) && !repo.has_object(id) {
                if seen.len() >= bounds.objects {
                    return Err(WalkError::TooMany(bounds.objects));
                }
                seen.insert(id);
                wanted.push(id);
            }
        }
    }
    let pack = spool.finish(seen.len()).map_err(local)?;
    let (mut pack, nothing) = (BufReader::new(pack), None::<gix::odb::Handle>);
    let options = pack::bundle::write::Options { thread_limit: Some(1), ..Default::default() };
    let never = AtomicBool::new(false);
    let hash = gix::hash::Kind::Sha1;
    let written =
        pack::Bundle::write_to_directory(&mut pack, Some(&folder), &mut Discard, &never, nothing, hash, options);
    let written = written.map_err(|error| WalkError::Local(error.to_string().into()))?;
    // It keeps the pack from being tidied away before a ref needs it; nobody tidies meanwhile.
    if let Some(keep) = written.keep_path {
        std::fs::remove_file(keep).map_err(local)?;
    }
    Ok(seen.len())
}

/// Receives an object into the spool, and adds what it names to `named`.
fn receive(
    link: &mut Link<'_>,
    id: ObjectId,
    left: &mut usize,
    bounds: Bounds,
    spool: &mut Spool,
    named: &mut Vec<ObjectId>,
) -> Result<(), WalkError> {
    let wrong = |why: &str| WalkError::Wrong { id, why: why.to_owned() };
    let mut head = [0; 9];
    link.read_exact(&mut head).map_err(WalkError::Link)?;
    let [number, length @ ..] = head;
    let length = u64::from_be_bytes(length);
    let kind = match number {
        0 => return Err(wrong("is not there")),
        1 => Kind::Commit,
        2 => Kind::Tree,
        3 => Kind::Blob,
        4 => Kind::Tag,
        _ => return Err(wrong("is of no kind")),
    };
    if kind != Kind::Blob && length > MAX_NAMING {
        return Err(wrong("is too large for its kind"));
    }
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    *left = left.checked_sub(size).ok_or(WalkError::TooLarge(bounds.bytes))?;
    let mut hasher = gix::hash::hasher(id.kind());
    hasher.update(&gix::objs::encode::loose_header(kind, length));
    let local = |error: io::Error| WalkError::Local(error.into());
    spool.begin(kind, size).map_err(local)?;
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
    if hasher.try_finalize().map_err(|error| wrong(&error.to_string()))? != id {
        return Err(wrong("came as something else"));
    }
    names(kind, &whole, id, named).map_err(|why| wrong(&format!("cannot be read: {why}")))
}

/// Adds the objects that an object names, but for commits of other repositories.
fn names(kind: Kind, data: &[u8], id: ObjectId, named: &mut Vec<ObjectId>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match kind {
        Kind::Blob => {}
        Kind::Commit => {
            let mut commit = CommitRefIter::from_bytes(data, id.kind());
            named.push(commit.tree_id().map_err(|error| text(&error))?);
            named.extend(CommitRefIter::from_bytes(data, id.kind()).parent_ids());
        }
        Kind::Tree => {
            for entry in TreeRefIter::from_bytes(data, id.kind()) {
                let entry = entry.map_err(|error| text(&error))?;
                if !entry.mode.is_commit() {
                    named.push(entry.oid.to_owned());
                }
            }
        }
        Kind::Tag => named.push(TagRefIter::from_bytes(data, id.kind()).target_id().map_err(|error| text(&error))?),
    }
    Ok(())
}

/// A pack that grows in a file without a name: whole objects, no deltas (gitformat-pack(5)).
struct Spool {
    /// Written to from two sides in turn: the heads of entries as they are, and what they hold compressed.
    file: Shared,
    /// One for all objects, as in [`super::pack`].
    deflated: gix::zlib::stream::deflate::Write<Shared>,
}

#[derive(Clone)]
struct Shared(std::rc::Rc<RefCell<BufWriter<File>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Spool {
    fn new(file: File) -> io::Result<Spool> {
        let mut file = Shared(std::rc::Rc::new(RefCell::new(BufWriter::with_capacity(PIECE, file))));
        // The number of objects is put in when it is known.
        file.write_all(b"PACK\0\0\0\x02\0\0\0\0")?;
        let deflated = gix::zlib::stream::deflate::Write::new(file.clone(), gix::zlib::Compression::DEFAULT);
        Ok(Spool { file, deflated })
    }

    fn begin(&mut self, kind: Kind, size: usize) -> io::Result<()> {
        let mut head = Vec::new();
        write_header(&mut head, kind, size);
        self.file.write_all(&head)
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.deflated.write_all(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.deflated.flush()?;
        self.deflated.reset();
        Ok(())
    }

    /// Completes the pack of so many objects, and returns it from its beginning on.
    fn finish(self, objects: usize) -> io::Result<File> {
        let Spool { file, deflated } = self;
        drop(deflated);
        let mut writer = file.0.borrow_mut();
        writer.seek(SeekFrom::Start(8))?;
        let count = u32::try_from(objects).map_err(io::Error::other)?;
        writer.write_all(&count.to_be_bytes())?;
        writer.flush()?;
        let mut file = writer.get_ref().try_clone()?;
        file.rewind()?;
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
        }
        file.write_all(hasher.try_finalize().map_err(io::Error::other)?.as_slice())?;
        file.rewind()?;
        Ok(file)
    }
}
