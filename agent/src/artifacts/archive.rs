//! Reads a tar archive out of the store and takes its files in, each by its digest. What is refused is decided in `spec`.
//!
//! Headers are read one by one as they stand: what the `tar` crate does to put long names and extended headers together reads
//! them into memory whatever their size, and believes a size that an extended header gives, on which other readers differ.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};

use flate2::read::MultiGzDecoder;
use spec::artifact::Origin;
use spec::unpack::{Admitted, Entry, Inventory, Kind, Listing, MOST_ENTRIES, Refused};
use tar::{EntryType, PaxExtensions};

use crate::store::Store;

/// The longest name, or extended header.
const LONGEST: u64 = 1 << 20;
/// An archive with more headers of all kinds is refused.
const MOST_HEADERS: usize = 4 * MOST_ENTRIES;
/// What other compressions begin with, and what they are called.
const OTHERS: [(&[u8], &str); 4] =
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"PK\x03\x04", "zip")];

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("the archive is refused: {0}")]
    Refused(String),
    #[error("the archive cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("what is in the archive could not be kept: {0}")]
    Disk(io::Error),
    #[error("the agent was asked to stop")]
    Stopped,
}

impl From<Refused> for ArchiveError {
    fn from(refused: Refused) -> ArchiveError {
        ArchiveError::Refused(refused.to_string())
    }
}

fn refused(why: &str) -> ArchiveError {
    ArchiveError::Refused(why.to_owned())
}

/// Takes in everything that the archive of `origin` holds, and the list of it; without that, nothing of it counts.
pub(super) fn unpack(store: &Store, origin: &Origin) -> Result<(), ArchiveError> {
    let Some(unpack) = &origin.unpack else { return Ok(()) };
    let file = store.open(origin.sha256).map_err(ArchiveError::Disk)?;
    let mut archive = tar::Archive::new(decoded(file)?);
    let mut listing = Listing::new(origin, unpack);
    let mut names = Names::default();
    let entries = archive.entries().map_err(ArchiveError::Unreadable)?.raw(true);
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        if index >= MOST_HEADERS {
            return Err(refused("it has too many headers"));
        }
        if names.take_in(&mut entry)? {
            continue;
        }
        let (path, target) = std::mem::take(&mut names).of(&entry);
        let kind = kind(&entry, &path, target.as_deref());
        let mode = entry.header().mode().map_err(ArchiveError::Unreadable)?;
        let size = entry.size();
        if size > 0 && !matches!(kind, Kind::File | Kind::Other) {
            return Err(refused("something in it that is no file has a content"));
        }
        if let Admitted::Content(name) = listing.admit(&Entry { path: &path, kind, mode, size })? {
            let digest = take_in(store, origin, &mut entry, size)?;
            listing.took(&name, digest);
        }
    }
    let inventory: Inventory = listing.finish()?;
    store.keep_list(origin.key(), &inventory).map_err(ArchiveError::Disk)
}

/// Recognises the compression by how the file begins.
fn decoded(mut file: File) -> Result<Box<dyn Read>, ArchiveError> {
    let mut magic = Vec::new();
    file.by_ref().take(8).read_to_end(&mut magic).map_err(ArchiveError::Disk)?;
    file.rewind().map_err(ArchiveError::Disk)?;
    if let Some((_, name)) = OTHERS.iter().find(|(begins, _)| magic.starts_with(begins)) {
        return Err(ArchiveError::Refused(format!("it is compressed with {name}; tar and tar.gz are unpacked")));
    }
    let file = BufReader::with_capacity(64 << 10, file);
    Ok(if magic.starts_with(b"\x1f\x8b") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn take_in(
    store: &Store,
    origin: &Origin,
    content: &mut impl Read,
    size: u64,
) -> Result<spec::digest::Digest, ArchiveError> {
    let mut incoming = store.begin(origin.sha256).map_err(ArchiveError::Disk)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        if store.progress().is_stopping() {
            return Err(ArchiveError::Stopped);
        }
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => incoming.write(&buffer[..length]).map_err(ArchiveError::Disk)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Unreadable(error)),
        }
        store.progress().mark();
    }
    if incoming.length() != size {
        return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
    }
    let digest = incoming.digest();
    incoming.finish_soon().map_err(ArchiveError::Disk)?;
    Ok(digest)
}

fn kind<'e>(entry: &tar::Entry<'_, impl Read>, path: &[u8], target: Option<&'e [u8]>) -> Kind<'e> {
    match entry.header().entry_type() {
        // As the oldest archives write it.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target.unwrap_or_default()),
        EntryType::Link => Kind::Hardlink(target.unwrap_or_default()),
        _ => Kind::Other,
    }
}

/// Names that headers before an entry give it.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Names {
    /// Takes in a header that says something of the entry after it; says whether it was one.
    fn take_in(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, ArchiveError> {
        let kind = entry.header().entry_type();
        let is_name = kind.is_gnu_longname() || kind.is_gnu_longlink();
        let is_extended = kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        if !is_name && !is_extended {
            return Ok(false);
        }
        if entry.size() > LONGEST {
            return Err(refused("a header in it is too large"));
        }
        let mut content = Vec::new();
        entry.take(LONGEST).read_to_end(&mut content).map_err(ArchiveError::Unreadable)?;
        if is_name {
            let name = content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            *(if kind.is_gnu_longname() { &mut self.path } else { &mut self.target }) = Some(name);
            return Ok(true);
        }
        for extension in PaxExtensions::new(&content) {
            let extension = extension.map_err(ArchiveError::Unreadable)?;
            let value = || Some(extension.value_bytes().to_vec());
            match extension.key_bytes() {
                // A path for all that follows, or another size than the header's: readers differ on it.
                b"path" | b"linkpath" | b"size" if kind.is_pax_global_extensions() => {
                    return Err(refused("a global header in it changes what follows"));
                }
                b"size" => return Err(refused("an extended header in it gives another size")),
                key if key.starts_with(b"GNU.sparse") => return Err(refused("a file in it is sparse")),
                b"path" => self.path = value(),
                b"linkpath" => self.target = value(),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Returns path and link target of an entry.
    fn of(self, entry: &tar::Entry<'_, impl Read>) -> (Vec<u8>, Option<Vec<u8>>) {
        let header = entry.header();
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let target = self.target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        (path, target)
    }
}

#[cfg(test)]
mod tests;
