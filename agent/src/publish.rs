//! What the agent tells the units of its host: files in its own runtime directory, which a boot empties.
//!
//! They are no resources. Nobody else may own anything in that directory, so there is neither conflict nor drift nor anything
//! to remember: what is not as it should be is written again, before a plan is made.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use spec::desired::{Desired, FileKind};
use spec::id::{ENDPOINTS_FILE, HostPath};
use tracing::warn;

/// Sees to it that what should be published is, below `root`, and that nothing else is. Returns what could not be written.
pub fn ensure(root: &Path, desired: &Desired) -> BTreeSet<HostPath> {
    let mut failed = BTreeSet::new();
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for (path, file) in &desired.published {
        let FileKind::Regular { content, .. } = &file.kind else { continue };
        if let Err(error) = ensure_file(&at(path.as_str()), content, file.mode.bits()) {
            warn!(%path, %error, "failed to write what units read; those that name it are left alone until it can be");
            failed.insert(path.clone());
        }
    }
    let wanted = desired.published.keys().any(|path| path.as_str() == ENDPOINTS_FILE);
    if !wanted
        && let Err(error) = fs::remove_file(at(ENDPOINTS_FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = ENDPOINTS_FILE, %error, "failed to remove what is no longer published");
    }
    failed
}

/// Writes a file unless it holds this already. It is written whole, beside its place: units may read it at any time.
fn ensure_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if holds(path, content, mode) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` follows no link, though nobody but root can put one here.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    fs::rename(&beside, path)
}

fn holds(path: &Path, content: &[u8], mode: u32) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let same =
        metadata.is_file() && metadata.len() == content.len() as u64 && metadata.permissions().mode() & 0o7777 == mode;
    same && fs::read(path).is_ok_and(|found| found == content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::desired::DesiredFile;
    use spec::digest::Digest;
    use spec::id::{HostName, Mode};

    fn desired(content: Option<&str>) -> Desired {
        let published = content.map(|text| {
            let kind = FileKind::Regular { content: text.as_bytes().into(), digest: Digest::of(text.as_bytes()) };
            let (owner, group) = ("root".to_owned(), "root".to_owned());
            let path = HostPath::parse(ENDPOINTS_FILE).expect("a path");
            (path, DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group })
        });
        Desired {
            fleet: "home".to_owned(),
            host: HostName::parse("attic").expect("a name"),
            apps: std::collections::BTreeMap::new(),
            published: published.into_iter().collect(),
            acknowledged: BTreeSet::new(),
            held_back: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_published_is_written_kept_and_removed() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("run")).expect("a folder");
        let path = root.path().join("run/mainstay/endpoints.env");
        assert!(ensure(root.path(), &desired(None)).is_empty());
        assert!(ensure(root.path(), &desired(Some("A=1\n"))).is_empty());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "A=1\n");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o644);
        let before = fs::metadata(&path).expect("a file").modified().expect("a time");
        assert!(ensure(root.path(), &desired(Some("A=1\n"))).is_empty());
        assert_eq!(
            fs::metadata(&path).expect("a file").modified().expect("a time"),
            before,
            "it was not written again"
        );
        // What an interrupted write left, a link and a wrong mode do not stand in the way.
        std::os::unix::fs::symlink("/nowhere", path.with_extension("new")).expect("a link");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a mode");
        assert!(ensure(root.path(), &desired(Some("A=1\n"))).is_empty());
        assert_eq!(mode(&path), 0o644);
        assert!(ensure(root.path(), &desired(None)).is_empty());
        assert!(!path.exists());
        fs::create_dir(&path).expect("a folder in the way");
        assert_eq!(ensure(root.path(), &desired(Some("A=1\n"))).len(), 1);
    }
}
