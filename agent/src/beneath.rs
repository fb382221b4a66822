//! Small files below a folder, reached from one opened folder to the next without following a link: whatever else changes there
//! meanwhile, nothing is read or written anywhere else.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// What is read of one.
const MOST: u64 = 64 << 20;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the folder `path`, which begins with a slash and stands below `root`. `mode` says with which mode one on the way is made that
/// is not there, if it is.
///
/// # Errors
/// It is not there, or something on the way is no folder.
pub fn folder(root: &Path, path: &str, mode: impl Fn(&str) -> Option<u32>) -> io::Result<OwnedFd> {
    let mut here = fs::openat(CWD, root, FOLDER, Mode::empty())?;
    let mut so_far = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        so_far = format!("{so_far}/{name}");
        let open = |here: &OwnedFd| fs::openat(here, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        here = match (open(&here), mode(&so_far)) {
            (Err(Errno::NOENT), Some(bits)) => {
                let made = fs::mkdirat(&here, name, Mode::from_bits_truncate(bits));
                let next = match made {
                    Ok(()) | Err(Errno::EXIST) => open(&here)?,
                    Err(error) => return Err(error.into()),
                };
                if made.is_ok() {
                    // Whatever the process takes away from modes.
                    fs::fchmod(&next, Mode::from_bits_truncate(bits))?;
                }
                next
            }
            (opened, _) => opened?,
        };
    }
    Ok(here)
}

/// Splits a path into its folder and its name.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Reads a regular file; `None` where there is none.
pub fn read(root: &Path, path: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (above, name) = split(path);
    read_in(folder(root, above, |_| None).ok()?.as_fd(), name).map(|(_, content)| content)
}

fn read_in(folder: BorrowedFd<'_>, name: &str) -> Option<(std::fs::Metadata, Zeroizing<Vec<u8>>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(fs::openat(folder, name, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len().min(MOST)).unwrap_or(0)));
    file.take(MOST).read_to_end(&mut content).ok()?;
    Some((metadata, content))
}

/// Writes a file unless it holds this already. It is written whole, beside its place: others may read it at any time.
///
/// # Errors
/// It cannot be written.
pub fn write(
    folder: BorrowedFd<'_>,
    name: &str,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let holds = |(metadata, found): (std::fs::Metadata, Zeroizing<Vec<u8>>)| {
        let is_owned = owner.is_none_or(|(user, group)| (metadata.uid(), metadata.gid()) == (user, group));
        is_owned && metadata.permissions().mode() & 0o7777 == mode && **found == *content
    };
    if read_in(folder, name).is_some_and(holds) {
        return Ok(());
    }
    let beside = format!(".{name}.new");
    match fs::unlinkat(folder, &beside, AtFlags::empty()) {
        Err(error) if error != Errno::NOENT => return Err(error.into()),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(folder, &beside, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    if let Some((user, group)) = owner {
        fs::fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(fs::renameat(folder, &beside, folder, name)?)
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(root: &Path, path: &str) -> io::Result<()> {
    let (above, name) = split(path);
    let removed = folder(root, above, |_| None).and_then(|above| Ok(fs::unlinkat(above, name, AtFlags::empty())?));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what is not kept in a folder, and the folder itself where it is empty then.
///
/// # Errors
/// Something cannot be removed.
pub fn sweep(root: &Path, path: &str, is_kept: &impl Fn(&str) -> bool) -> io::Result<()> {
    let (above, name) = split(path);
    match folder(root, above, |_| None) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        above => sweep_in(above?.as_fd(), name, path, is_kept),
    }
}

fn sweep_in(above: BorrowedFd<'_>, name: &str, path: &str, is_kept: &impl Fn(&str) -> bool) -> io::Result<()> {
    let here = match fs::openat(above, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        here => here?,
    };
    for entry in Dir::read_from(&here)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let path = format!("{path}/{name}");
        if entry.file_type() == FileType::Directory {
            sweep_in(here.as_fd(), name, &path, is_kept)?;
        } else if !is_kept(&path) {
            fs::unlinkat(&here, name, AtFlags::empty())?;
        }
    }
    match fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
        Err(error) if error != Errno::NOTEMPTY => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_elsewhere() {
        let root = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("run")).expect("a folder");
        std::fs::write(outside.path().join("file"), "theirs").expect("written");
        std::os::unix::fs::symlink(outside.path(), root.path().join("run/link")).expect("a link");
        std::os::unix::fs::symlink(outside.path().join("file"), root.path().join("run/file")).expect("a link");
        assert!(folder(root.path(), "/run/link", |_| Some(0o755)).is_err());
        assert!(folder(root.path(), "/run/link/below", |_| Some(0o755)).is_err());
        assert_eq!(read(root.path(), "/run/file"), None);
        assert!(remove(root.path(), "/run/link/file").is_err());
        sweep(root.path(), "/run/link", &|_| false).expect_err("it is no folder");
        let run = folder(root.path(), "/run", |_| None).expect("a folder");
        write(run.as_fd(), "file", b"ours", 0o600, None).expect("written");
        assert_eq!(read(root.path(), "/run/file").expect("ours").as_slice(), b"ours");
        // What is swept goes with its links, and not with what these lead to.
        sweep(root.path(), "/run", &|path| path == "/run/file").expect("swept");
        assert_eq!(std::fs::read_dir(root.path().join("run")).expect("a folder").count(), 1);
        assert_eq!(std::fs::read_to_string(outside.path().join("file")).expect("theirs"), "theirs");
    }
}
