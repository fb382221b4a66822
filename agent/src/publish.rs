//! What the agent tells the units of its host: files in its own runtime directory, which a boot empties.
//!
//! They are no resources. Nobody else may own anything in that directory, so there is neither conflict nor drift nor anything
//! to remember: what is not as it should be is written again, before a plan is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use spec::desired::{Desired, DesiredFile, FileKind};
use spec::digest::Digest;
use spec::id::{AppName, ENDPOINTS_FILE, HostPath, SECRETS_DIRECTORY};
use spec::observed::Unpublished;
use tracing::warn;

use crate::beneath;
use crate::seal::Opener;

/// What is known of a host beside what is wanted.
pub struct Surroundings<'a> {
    /// Says whether nothing of an application is changed, as it is paused or held back: its secrets stay what they are, too.
    pub is_still: &'a dyn Fn(&AppName) -> bool,
    /// Says whether a file is there that mainstay made, as the link to a secret is.
    pub is_there: &'a dyn Fn(&HostPath) -> bool,
}

/// Sees to it that what should be published is, below `root`, secrets among it, and that nothing else is, but for secrets that something
/// which is still there was given: they go with it. Returns what could not be written.
pub fn ensure(
    root: &Path,
    desired: &mut Desired,
    opener: &mut Opener,
    around: &Surroundings<'_>,
) -> BTreeMap<HostPath, Unpublished> {
    let mut failed = BTreeMap::new();
    for (path, file) in &desired.published {
        let FileKind::Regular { content, .. } = &file.kind else { continue };
        let (above, name) = beneath::split(path.as_str());
        let mode = |folder: &str| (folder == above).then_some(0o755);
        let written = beneath::folder(root, above, mode)
            .and_then(|folder| beneath::write(folder.as_fd(), name, content, file.mode.bits(), None));
        if let Err(error) = written {
            failed.insert(path.clone(), Unpublished { why: error.to_string(), is_kept: false });
        }
    }
    let wanted = desired.published.keys().any(|path| path.as_str() == ENDPOINTS_FILE);
    if !wanted && let Err(error) = beneath::remove(root, ENDPOINTS_FILE) {
        warn!(path = ENDPOINTS_FILE, %error, "failed to remove what is no longer published");
    }
    let write = |path: &HostPath, file: &DesiredFile, content: &[u8]| -> Result<(), String> {
        let owner = owner(file)?;
        let (above, name) = beneath::split(path.as_str());
        let folder = beneath::folder(root, above, mode).map_err(|error| error.to_string())?;
        in_memory(folder.as_fd())?;
        beneath::write(folder.as_fd(), name, content, file.mode.bits(), Some(owner)).map_err(|error| error.to_string())
    };
    secrets(root, desired, opener, &mut failed, around, write);
    opener.keep_only(desired.secrets().map(|(.., secret)| &*secret.sealed));
    wipe(root, desired, around);
    failed
}

/// Wipes secrets that nobody wants any more. What something that is still there was given goes when that does.
pub fn wipe(root: &Path, desired: &Desired, around: &Surroundings<'_>) {
    let wanted: BTreeSet<&str> = desired.secrets().map(|(_, path, _)| path.as_str()).collect();
    // The link that was given it, as long as it leads there: an application may have taken the path over from another one.
    let is_given = |place: &str| {
        let link = link(place.strip_prefix(SECRETS_DIRECTORY)?).filter(|link| (around.is_there)(link))?;
        let target = fs::read_link(root.join(link.as_str().trim_start_matches('/'))).ok()?;
        (target == Path::new(place)).then_some(())
    };
    let is_kept = |place: &str| wanted.contains(place) || is_given(place).is_some();
    if let Err(error) = beneath::sweep(root, SECRETS_DIRECTORY, &is_kept) {
        warn!(%error, "failed to remove secrets that are no longer wanted");
    }
}

/// Names the link to a secret, which stands below the folder of secrets as APPLICATION/PATH.
fn link(below: &str) -> Option<HostPath> {
    HostPath::parse(&format!("/{}", below.trim_start_matches('/').split_once('/')?.1)).ok()
}

/// Finds out what the secrets are that applications want, and writes nothing. Returns what cannot be opened.
pub fn look(
    root: &Path,
    desired: &mut Desired,
    opener: &mut Opener,
    around: &Surroundings<'_>,
) -> BTreeMap<HostPath, Unpublished> {
    let mut failed = BTreeMap::new();
    secrets(root, desired, opener, &mut failed, around, |_, _, _| Ok(()));
    failed
}

/// Opens the secrets that applications want, and hands each to `write` with where it is read from.
fn secrets(
    root: &Path,
    desired: &mut Desired,
    opener: &mut Opener,
    failed: &mut BTreeMap<HostPath, Unpublished>,
    around: &Surroundings<'_>,
    write: impl Fn(&HostPath, &DesiredFile, &[u8]) -> Result<(), String>,
) {
    let mut opened: BTreeMap<HostPath, Digest> = BTreeMap::new();
    for (app, path, secret) in desired.secrets() {
        if (around.is_still)(app) {
            if let Some(content) = beneath::read(root, path.as_str()) {
                opened.insert(path.clone(), opener.digest(&content));
                continue;
            }
            // A boot emptied the folder: what was there before is given back. What was not is not there before its turn.
            let link = path.as_str().strip_prefix(SECRETS_DIRECTORY).and_then(link);
            if !link.is_some_and(|link| (around.is_there)(&link)) {
                continue;
            }
        }
        let written = opener.open(&secret.sealed).map_err(|why| why.to_string()).and_then(|content| {
            write(path, &secret.file, &content)?;
            Ok(opener.digest(&content))
        });
        match written {
            Ok(digest) => drop(opened.insert(path.clone(), digest)),
            Err(why) => {
                // What is in use goes on to be: an empty file in its place would be an outage.
                let before = beneath::read(root, path.as_str());
                opened.extend(before.as_ref().map(|content| (path.clone(), opener.digest(content))));
                failed.insert(path.clone(), Unpublished { why, is_kept: before.is_some() });
            }
        }
    }
    desired.open(&opened);
}

/// Checks that what is written there never reaches a disk.
fn in_memory(folder: BorrowedFd<'_>) -> Result<(), String> {
    let kind = rustix::fs::fstatfs(folder).map_err(|error| error.to_string())?.f_type;
    // Of tmpfs and of ramfs (statfs(2)).
    let is_memory = matches!(u64::try_from(kind), Ok(0x0102_1994 | 0x8584_58f6));
    if is_memory {
        Ok(())
    } else {
        Err(format!("{SECRETS_DIRECTORY} is not in memory on this host: secrets are written to no disk"))
    }
}

/// Says with which mode the folders that lead to a secret are made: whoever may read one gets through, and nobody sees what there is.
fn mode(folder: &str) -> Option<u32> {
    match folder.strip_prefix(SECRETS_DIRECTORY) {
        Some(below) if below.is_empty() || below.starts_with('/') => Some(0o711),
        _ => {
            SECRETS_DIRECTORY.strip_prefix(folder).is_some_and(|below| below.matches('/').count() == 1).then_some(0o755)
        }
    }
}

fn owner(file: &DesiredFile) -> Result<(u32, u32), String> {
    let user = match file.owner.as_str() {
        "root" => Some(0),
        name => name.parse().ok().or_else(|| uzers::get_user_by_name(name).map(|user| user.uid())),
    };
    let group = match file.group.as_str() {
        "root" => Some(0),
        name => name.parse().ok().or_else(|| uzers::get_group_by_name(name).map(|group| group.gid())),
    };
    let user = user.ok_or_else(|| format!("this host has no user `{}`", file.owner))?;
    Ok((user, group.ok_or_else(|| format!("this host has no group `{}`", file.group))?))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

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
            apps: BTreeMap::new(),
            published: published.into_iter().collect(),
            acknowledged: BTreeSet::new(),
            held_back: BTreeMap::new(),
        }
    }

    const MOVING: Surroundings<'_> = Surroundings { is_still: &|_| false, is_there: &|_| false };

    fn published(root: &Path, mut desired: Desired) -> BTreeMap<HostPath, Unpublished> {
        ensure(root, &mut desired, &mut Opener::find(&crate::settings::Settings::default()), &MOVING)
    }

    #[test]
    fn what_is_published_is_written_kept_and_removed() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("run")).expect("a folder");
        let path = root.path().join("run/mainstay/endpoints.env");
        assert!(published(root.path(), desired(None)).is_empty());
        assert!(published(root.path(), desired(Some("A=1\n"))).is_empty());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "A=1\n");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o644);
        let before = fs::metadata(&path).expect("a file").modified().expect("a time");
        assert!(published(root.path(), desired(Some("A=1\n"))).is_empty());
        assert_eq!(
            fs::metadata(&path).expect("a file").modified().expect("a time"),
            before,
            "it was not written again"
        );
        // What an interrupted write left, a link and a wrong mode do not stand in the way.
        std::os::unix::fs::symlink("/nowhere", path.with_extension("new")).expect("a link");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a mode");
        assert!(published(root.path(), desired(Some("A=1\n"))).is_empty());
        assert_eq!(mode(&path), 0o644);
        assert!(published(root.path(), desired(None)).is_empty());
        assert!(!path.exists());
        fs::create_dir(&path).expect("a folder in the way");
        assert_eq!(published(root.path(), desired(Some("A=1\n"))).len(), 1);
    }

    #[test]
    fn secrets_are_opened_in_memory_kept_while_they_cannot_be_and_gone_when_nobody_wants_them() {
        use crate::seal::tests::{made_up, whole};
        // In memory, as /run is.
        let root = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let keys = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("run")).expect("a folder");
        let (file, key) = made_up(keys.path(), "key");
        let (_, other) = made_up(keys.path(), "other");
        let mut opener = Opener::any(&[file]);
        let path = HostPath::parse("/run/mainstay/secrets/web/etc/web/key").expect("a path");
        let place = root.path().join("run/mainstay/secrets/web/etc/web/key");
        let mut stood = |texts: &[(&str, &str)], mode, around: &Surroundings<'_>| {
            let mut desired = desired(None);
            let secrets = texts.iter().map(|(text, key)| {
                let sealed = whole(&crate::seal::seal(text.as_bytes(), &[(*key).to_owned()]).expect("sealed"));
                let kind = FileKind::Regular { content: [].into(), digest: sealed.digest() };
                let (owner, group) =
                    (rustix::process::getuid().as_raw().to_string(), rustix::process::getgid().as_raw().to_string());
                let file = DesiredFile { kind, mode: Mode::from_bits(mode), owner, group };
                (path.clone(), spec::desired::DesiredSecret { sealed: sealed.into(), file })
            });
            let app = spec::desired::DesiredApp { secrets: secrets.collect(), ..crate::releases::made_up() };
            desired.apps.insert(AppName::parse("web").expect("a name"), app);
            let failed = ensure(root.path(), &mut desired, &mut opener, around);
            let digest = desired.secrets().next().map(|(.., secret)| secret.file.kind.clone());
            (failed.into_values().next(), digest)
        };
        // Of what is still nothing is written before its turn.
        let (still, given) = (|_: &AppName| true, |link: &HostPath| link.as_str() == "/etc/web/key");
        assert_eq!(stood(&[("one", &key)], 0o400, &Surroundings { is_still: &still, is_there: &|_| false }).0, None);
        assert!(!place.exists());
        let mut ensured = |texts: &[(&str, &str)], mode| stood(texts, mode, &MOVING);
        let (failed, first) = ensured(&[("one", &key)], 0o400);
        assert_eq!(failed, None);
        let metadata = fs::metadata(&place).expect("a file");
        assert_eq!((fs::read_to_string(&place).expect("a file").as_str(), metadata.mode() & 0o7777), ("one", 0o400));
        assert_eq!(fs::metadata(place.parent().expect("a folder")).expect("a folder").mode() & 0o7777, 0o711);
        // Encrypted anew it is the same; another one is not.
        assert_eq!(ensured(&[("one", &key)], 0o400).1, first);
        assert_ne!(ensured(&[("two", &key)], 0o400).1, first);
        assert_eq!(fs::read_to_string(&place).expect("a file"), "two");
        // One that is not for this host leaves the old one in use.
        let (failed, kept) = ensured(&[("three", &other)], 0o400);
        let failed = failed.expect("it cannot be opened");
        assert!(failed.is_kept && failed.why.contains("encrypted for other keys"), "{failed:?}");
        assert_eq!(kept, ensured(&[("two", &key)], 0o400).1);
        assert_eq!(fs::read_to_string(&place).expect("a file"), "two");
        // What is still keeps what it has, and is given it back after a boot; what goes keeps it until it is gone.
        let kept = Surroundings { is_still: &still, is_there: &given };
        let before = stood(&[("three", &key)], 0o400, &kept).1;
        assert_eq!((fs::read_to_string(&place).expect("a file").as_str(), before == first), ("two", false));
        fs::remove_file(&place).expect("emptied");
        stood(&[("three", &key)], 0o400, &kept);
        assert_eq!(fs::read_to_string(&place).expect("a file"), "three");
        fs::create_dir_all(root.path().join("etc/web")).expect("a folder");
        std::os::unix::fs::symlink("/run/mainstay/secrets/web/etc/web/key", root.path().join("etc/web/key"))
            .expect("a link");
        stood(&[], 0o400, &Surroundings { is_still: &|_| false, is_there: &given });
        assert!(place.exists(), "its link is still there");
        fs::remove_file(root.path().join("etc/web/key")).expect("gone");
        std::os::unix::fs::symlink("/run/mainstay/secrets/shop/etc/web/key", root.path().join("etc/web/key"))
            .expect("a link");
        stood(&[], 0o400, &Surroundings { is_still: &|_| false, is_there: &given });
        assert!(!place.exists(), "another application has the path by now");
        let mut ensured = |texts: &[(&str, &str)], mode| stood(texts, mode, &MOVING);
        assert_eq!(ensured(&[], 0o400).0, None);
        assert!(!root.path().join("run/mainstay/secrets").exists());
        assert!(!ensured(&[("three", &other)], 0o400).0.expect("it cannot be opened").is_kept);
        assert!(!place.exists(), "there is no empty one");
    }

    #[test]
    fn secrets_are_written_to_no_disk() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder on a disk");
        let folder = beneath::folder(root.path(), "", |_| None).expect("a folder");
        let why = in_memory(folder.as_fd());
        assert!(why.is_err_and(|why| why.contains("not in memory")));
    }
}
