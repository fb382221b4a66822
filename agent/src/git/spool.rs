//! A pack that grows in a file, with its index: whole objects, no deltas (gitformat-pack(5)). Both are in the repository at once with the
//! last of them, or not at all.

use std::cell::RefCell;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;

use flate2::Crc;
use gix::ObjectId;
use gix::objs::Kind;
use tempfile::NamedTempFile;

use super::pack::write_header;

/// How much is held at once.
const PIECE: usize = 64 << 10;
/// Nobody writes to them again.
const MODE: u32 = 0o444;
/// Offsets from here on are in a table of their own.
const FAR: u64 = 1 << 31;

pub(super) struct Spool {
    /// Written to from two sides in turn: the heads of entries as they are, and what they hold compressed.
    file: Shared,
    /// One for all objects, as in [`super::pack`].
    deflated: gix::zlib::stream::deflate::Write<Shared>,
    entries: Vec<Entry>,
}

/// Where an object is.
struct Entry {
    id: ObjectId,
    offset: u64,
    /// Of what it takes there.
    crc: u32,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Growing>>);

struct Growing {
    file: BufWriter<NamedTempFile>,
    written: u64,
    /// How many bytes may be written.
    most: u64,
    /// Of what was written since the entry began.
    crc: Crc,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut growing = self.0.borrow_mut();
        let written = growing.written.saturating_add(bytes.len() as u64);
        if written > growing.most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        growing.written = written;
        growing.crc.update(bytes);
        growing.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Spool {
    /// Begins a pack in a folder of packs, which may take `most` bytes.
    pub(super) fn begin(folder: &Path, most: u64) -> io::Result<Spool> {
        let file = BufWriter::with_capacity(PIECE, NamedTempFile::new_in(folder)?);
        let growing = Growing { file, written: 0, most, crc: Crc::new() };
        let mut file = Shared(Rc::new(RefCell::new(growing)));
        // The number of objects is put in when it is known.
        file.write_all(b"PACK\0\0\0\x02\0\0\0\0")?;
        let deflated = gix::zlib::stream::deflate::Write::new(file.clone(), gix::zlib::Compression::DEFAULT);
        Ok(Spool { file, deflated, entries: Vec::new() })
    }

    /// Begins the next object, with its size in bytes.
    ///
    /// # Errors
    /// As for [`Spool::add`].
    pub(super) fn object(&mut self, id: ObjectId, kind: Kind, size: usize) -> io::Result<()> {
        let mut growing = self.file.0.borrow_mut();
        self.entries.push(Entry { id, offset: growing.written, crc: 0 });
        growing.crc.reset();
        drop(growing);
        let mut head = Vec::new();
        write_header(&mut head, kind, size);
        self.file.write_all(&head)
    }

    /// Adds a piece of the object.
    ///
    /// # Errors
    /// The file cannot be written, or becomes too large: `QuotaExceeded` without a number of the system.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.deflated.write_all(bytes)
    }

    /// Ends the object.
    ///
    /// # Errors
    /// As for [`Spool::add`].
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.deflated.flush()?;
        self.deflated.reset();
        if let Some(entry) = self.entries.last_mut() {
            entry.crc = self.file.0.borrow().crc.sum();
        }
        Ok(())
    }

    /// Completes the pack and puts it into `folder`, with its index. Nothing else may be in progress there.
    pub(super) fn finish(self, folder: &Path) -> io::Result<()> {
        let Spool { file, deflated, mut entries } = self;
        drop(deflated);
        let growing = Rc::into_inner(file.0).ok_or_else(|| io::Error::other("the pack is still written to"))?;
        let mut pack = growing.into_inner().file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let sum = seal(pack.as_file_mut(), entries.len())?;
        entries.sort_unstable_by_key(|entry| entry.id);
        let mut index = NamedTempFile::new_in(folder)?;
        write_index(index.as_file_mut(), &entries, sum)?;
        for file in [&pack, &index] {
            file.as_file().set_permissions(Permissions::from_mode(MODE))?;
            file.as_file().sync_all()?;
        }
        // Who reads looks for the index: it comes last, also for who finds them after a loss of power.
        let (path, open) = (folder.join(format!("pack-{sum}.pack")), File::open(folder)?);
        pack.persist(&path).map_err(|error| error.error)?;
        let ended =
            open.sync_all().and_then(|()| index.persist(path.with_extension("idx")).map_err(|error| error.error));
        if ended.is_err() && !path.with_extension("idx").exists() {
            // What went wrong is worth more than whether this does too; who opens the repository next removes it.
            drop(std::fs::remove_file(&path));
        }
        ended?;
        open.sync_all()
    }
}

/// Puts the number of objects into a pack and the sum of it all behind it.
fn seal(file: &mut File, objects: usize) -> io::Result<ObjectId> {
    file.seek(SeekFrom::Start(8))?;
    file.write_all(&count(objects)?.to_be_bytes())?;
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
    let sum = hasher.try_finalize().map_err(io::Error::other)?;
    file.write_all(sum.as_slice())?;
    Ok(sum)
}

fn count(objects: usize) -> io::Result<u32> {
    u32::try_from(objects).map_err(io::Error::other)
}

/// Writes an index of version 2 for entries in the order of their names.
fn write_index(file: &mut File, entries: &[Entry], pack: ObjectId) -> io::Result<()> {
    let mut index = Summed { file: BufWriter::with_capacity(PIECE, file), hasher: hasher() };
    index.put(b"\xfftOc\0\0\0\x02")?;
    let mut until = 0;
    for first in 0..=u8::MAX {
        until += entries[until..].partition_point(|entry| entry.id.first_byte() <= first);
        index.put(&count(until)?.to_be_bytes())?;
    }
    for entry in entries {
        index.put(entry.id.as_slice())?;
    }
    for entry in entries {
        index.put(&entry.crc.to_be_bytes())?;
    }
    let mut far = Vec::new();
    for entry in entries {
        let near = u32::try_from(entry.offset).ok().filter(|_| entry.offset < FAR);
        let offset = match near {
            Some(near) => near,
            None => {
                far.push(entry.offset);
                count(far.len() - 1)? | 1 << 31
            }
        };
        index.put(&offset.to_be_bytes())?;
    }
    for offset in far {
        index.put(&offset.to_be_bytes())?;
    }
    index.put(pack.as_slice())?;
    let Summed { mut file, hasher } = index;
    file.write_all(hasher.try_finalize().map_err(io::Error::other)?.as_slice())?;
    file.flush()
}

fn hasher() -> gix::hash::Hasher {
    gix::hash::hasher(gix::hash::Kind::Sha1)
}

/// What is summed up while it is written.
struct Summed<W> {
    file: W,
    hasher: gix::hash::Hasher,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a pack of so many blobs and asks git whether it holds together.
    fn verified(count: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::begin(dir.path(), 64 << 20).unwrap();
        for number in 0..count {
            let text = format!("{number}\n").repeat(number * 7 % 5000);
            let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, text.as_bytes()).unwrap();
            spool.object(id, Kind::Blob, text.len()).unwrap();
            text.as_bytes().chunks(1000).for_each(|piece| spool.add(piece).unwrap());
            spool.end().unwrap();
        }
        spool.finish(dir.path()).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let index = names.iter().find(|name| name.extension().is_some_and(|it| it == "idx")).unwrap();
        let checked = std::process::Command::new("git").args(["verify-pack", "-v"]).arg(index).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        String::from_utf8(checked.stdout).unwrap()
    }

    #[test]
    fn git_reads_what_is_written() {
        for count in [1, 2, 300, 5000] {
            let said = verified(count);
            assert_eq!(said.lines().filter(|line| line.contains(" blob ")).count(), count, "{said}");
        }
    }

    #[test]
    fn an_index_says_where_things_are_beyond_two_gigabytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack-0.idx");
        let id = |first: u8| ObjectId::from_bytes_or_panic(&[first; 20]);
        let offsets = [12, FAR - 1, FAR, 5 * FAR];
        let entries: Vec<Entry> = std::iter::zip([1, 1 << 4, 0x80, 0xff], offsets)
            .map(|(first, offset)| Entry { id: id(first), offset, crc: 7 })
            .collect();
        write_index(&mut File::create_new(&path).unwrap(), &entries, id(9)).unwrap();
        let index = gix::odb::pack::index::File::at(&path, gix::hash::Kind::Sha1).unwrap();
        let found: Vec<_> = index.iter().map(|entry| (entry.oid, entry.pack_offset, entry.crc32)).collect();
        let meant: Vec<_> = entries.iter().map(|entry| (entry.id, entry.offset, Some(7))).collect();
        assert_eq!(found, meant);
        assert_eq!(index.pack_checksum(), id(9));
        assert!(entries.iter().all(|entry| index.lookup(entry.id).is_some()));
    }

    #[test]
    fn no_more_is_written_than_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::begin(dir.path(), 100).unwrap();
        spool.object(ObjectId::null(gix::hash::Kind::Sha1), Kind::Blob, 1 << 20).unwrap();
        let noise: Vec<u8> =
            (0_u32..1 << 16).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let refused = spool.add(&noise).and_then(|()| spool.end()).unwrap_err();
        assert_eq!((refused.kind(), refused.raw_os_error()), (io::ErrorKind::QuotaExceeded, None));
        drop(spool);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
