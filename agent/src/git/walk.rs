//! Taking objects over from who is not believed: each is asked for by its name, which is a hash of what it holds, so that nothing
//! but what a commit stands for comes in, whole. What arrives is read no further than to see what it names.
//!
//! They are put into one pack, which this process writes itself, and which is there as a whole or not at all: what is in the
//! repository is in it with everything that it reaches, and need not be looked at again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::rc::Rc;
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

/// What may come in.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Objects.
    pub(super) objects: usize,
    /// Their bytes, unpacked.
    pub(super) bytes: usize,
    /// Their bytes on this disk, compressed one by one.
    pub(super) packed: u64,
}

/// Takes over what `roots` reach and `repo` does not have, unless `stop` is raised. Returns how many objects that were.
///
/// # Errors
/// See [`WalkError`]; nothing is there then that was not there before.
pub(super) fn take(
    repo: &gix::Repository,
    link: &mut Link<'_>,
    roots: &[ObjectId],
    bounds: Bounds,
    stop: &AtomicBool,
) -> Result<usize, WalkError> {
    let mut found = Found { repo, bounds, seen: BTreeSet::new(), wanted: Vec::new() };
    for root in roots {
        found.add(*root)?;
    }
    if found.wanted.is_empty() {
        return Ok(0);
    }
    let local = |error: io::Error| WalkError::Local(error.into());
    let folder = repo.objects.store_ref().path().join("pack");
    let mut spool = Spool::new(tempfile::tempfile_in(&folder).map_err(local)?, bounds.packed).map_err(local)?;
    let mut left = bounds.bytes;
    while !found.wanted.is_empty() {
        let now = found.wanted.split_off(found.wanted.len().saturating_sub(AT_ONCE));
        link.say(&Wants(now.iter().copied().map(Id).collect())).map_err(WalkError::Link)?;
        for id in now {
            receive(link, id, &mut left, &mut spool, &mut found)?;
        }
    }
    let pack = spool.finish(found.seen.len()).map_err(local)?;
    let (mut pack, nothing) = (BufReader::new(pack), None::<gix::odb::Handle>);
    let options = pack::bundle::write::Options { thread_limit: Some(1), ..Default::default() };
    let hash = gix::hash::Kind::Sha1;
    let written =
        pack::Bundle::write_to_directory(&mut pack, Some(&folder), &mut Discard, stop, nothing, hash, options);
    let written = written.map_err(|error| WalkError::Local(error.to_string().into()))?;
    // It keeps the pack from being tidied away before a ref needs it; nobody tidies meanwhile.
    if let Some(keep) = written.keep_path {
        std::fs::remove_file(keep).map_err(local)?;
    }
    Ok(found.seen.len())
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

/// Receives an object into the spool, and adds what it names to what is to come in.
fn receive(
    link: &mut Link<'_>,
    id: ObjectId,
    left: &mut usize,
    spool: &mut Spool,
    found: &mut Found<'_>,
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
    *left = left.checked_sub(size).ok_or(WalkError::TooLarge(found.bounds.bytes))?;
    let mut hasher = gix::hash::hasher(id.kind());
    hasher.update(&gix::objs::encode::loose_header(kind, length));
    let packed = found.bounds.packed;
    let local = |error: io::Error| match error.kind() {
        io::ErrorKind::QuotaExceeded if error.raw_os_error().is_none() => WalkError::TooMuch(packed),
        _ => WalkError::Local(error.into()),
    };
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

/// A pack that grows in a file without a name: whole objects, no deltas (gitformat-pack(5)).
struct Spool {
    /// Written to from two sides in turn: the heads of entries as they are, and what they hold compressed.
    file: Shared,
    /// One for all objects, as in [`super::pack`].
    deflated: gix::zlib::stream::deflate::Write<Shared>,
}

#[derive(Clone)]
struct Shared {
    file: Rc<RefCell<BufWriter<File>>>,
    /// How many more bytes may come.
    left: Rc<Cell<u64>>,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.get().checked_sub(bytes.len() as u64);
        self.left.set(left.ok_or(io::ErrorKind::QuotaExceeded)?);
        self.file.borrow_mut().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Spool {
    fn new(file: File, most: u64) -> io::Result<Spool> {
        let file = Rc::new(RefCell::new(BufWriter::with_capacity(PIECE, file)));
        let mut file = Shared { file, left: Rc::new(Cell::new(most)) };
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
        let mut writer = file.file.borrow_mut();
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
