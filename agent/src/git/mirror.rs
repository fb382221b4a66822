//! The bare mirror on disk: opened, repaired, renewed, tidied. It can always be fetched again, except for reports that
//! were not pushed yet, which are carried over.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gix::ObjectId;
use gix::refs::transaction::PreviousValue;
use spec::id::{CommitId, shown};

use super::command;
use super::connect::Kept;
use super::error::{GitError, because};
use super::remote::{Bounds, MAX_OBJECT};
use super::signs::Deaf;

/// Where the branch's tip is kept. Its name carries no branch: one mirror follows one branch, whichever it is today.
pub(super) const TIP: &str = "refs/mainstay/tip";

/// Where a fetched tip waits until it was looked at.
pub(super) const INCOMING: &str = "refs/mainstay/incoming";

/// Where commits that must survive packing are kept, for instance those that still run after a history was rewritten.
const KEEP: &str = "refs/mainstay/keep/";

/// The mirror's configuration is ours to the byte, and restored if anything changed it.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tlogallrefupdates = false\n\
                      [gc]\n\tauto = 0\n";

/// Nothing is ever checked out; git only insists that HEAD names something.
const HEAD: &str = "ref: refs/heads/none\n";

/// More packs than this slow every lookup down.
const MAX_PACKS: usize = 50;

/// More loose objects than this waste inodes.
const MAX_LOOSE: usize = 2000;

/// Beside the objects: how many bytes the packs had that hold what is needed.
const SETTLED: &str = "mainstay-settled";

/// What [`Mirror::tidy`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidied {
    /// There was little to do, so nothing was done.
    Unneeded,
    /// The objects were packed.
    Packed,
}

/// A bare repository that mirrors one branch and holds this host's notes. One process at a time may have it open.
pub struct Mirror {
    pub(super) dir: PathBuf,
    pub(super) repo: gix::Repository,
    pub(super) kept: Kept,
    /// Something could not be read: the next fetch renews the mirror.
    pub(super) suspect: Cell<bool>,
    /// When the packs beside the largest have so many bytes, what nobody needs is worth looking for: commits that are refused, for
    /// instance.
    pub(super) slack: u64,
    /// The largest single allocation while reading objects, in bytes: what a small pack may inflate to.
    room: usize,
    /// Who of the other hosts is not heard.
    pub(super) deaf: Deaf,
    /// What the branch was at when the mirror was tidied, and how many bytes its packs had then, until that is known to be needed.
    packed: Option<(Option<CommitId>, u64)>,
}

impl Mirror {
    /// Opens the mirror in `dir`, creating it when it is missing.
    ///
    /// What can be repaired in place is; a mirror that cannot be opened at all is replaced by an empty one; one whose
    /// objects turn out to be damaged stays readable as far as possible until a fetch has brought a fresh one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(dir: &Path) -> Result<Mirror, GitError> {
        let failed = |doing: &str, source| GitError::Mirror { doing: doing.to_owned(), path: dir.to_owned(), source };
        finish_swap(dir).map_err(|error| failed("finish the renewal of", Box::new(error)))?;
        let repo = match load(dir) {
            Ok(repo) => repo,
            Err(error) => {
                tracing::warn!(path = %dir.display(), %error, "the mirror cannot be opened and is created anew");
                remove(dir).map_err(|error| failed("remove what is damaged", Box::new(error)))?;
                load(dir).map_err(|error| failed("create the repository", error))?
            }
        };
        let mut mirror = Mirror {
            dir: dir.to_owned(),
            repo,
            kept: Kept::default(),
            suspect: Cell::new(false),
            slack: u64::MAX,
            room: MAX_OBJECT,
            deaf: Deaf::default(),
            packed: None,
        };
        if !mirror.is_sound() {
            tracing::warn!(path = %dir.display(), "the mirror is damaged and will be renewed by the next fetch");
            mirror.drop_garbage().map_err(|error| failed("set aside what is damaged in", Box::new(error)))?;
            mirror.reload()?;
            mirror.suspect.set(true);
        }
        Ok(mirror)
    }

    /// Opens the mirror in `dir` to read from it while an agent may be writing to it: nothing is created or repaired.
    ///
    /// # Errors
    /// There is no mirror, or it cannot be opened.
    pub fn peek(dir: &Path) -> Result<Mirror, GitError> {
        let repo = open_repository(dir, MAX_OBJECT).map_err(|source| {
            let (doing, path) = ("open the repository".to_owned(), dir.to_owned());
            GitError::Mirror { doing, path, source }
        })?;
        Ok(Mirror {
            dir: dir.to_owned(),
            repo,
            kept: Kept::default(),
            suspect: Cell::new(false),
            slack: u64::MAX,
            room: MAX_OBJECT,
            deaf: Deaf::default(),
            packed: None,
        })
    }

    /// Has who listens at a path talk to servers in the place of this process from now on.
    #[must_use]
    pub fn through(mut self, fetcher: Option<PathBuf>) -> Mirror {
        self.kept.fetcher = fetcher;
        self
    }

    /// Opens the clone that `folder` is in, somebody's own, to read commits from.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub fn of_clone(folder: &Path) -> Result<Mirror, GitError> {
        let none = || GitError::NoClone { folder: folder.to_owned() };
        let whole = folder.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => none(),
            _ => GitError::Clone { folder: folder.to_owned(), source: error.into() },
        })?;
        let top = whole.ancestors().find(|folder| folder.join(".git").exists()).ok_or_else(none)?;
        let options = gix::open::Options::isolated().with(gix::sec::Trust::Full);
        let repo = gix::open_opts(top, options)
            .map_err(|error| GitError::Clone { folder: top.to_owned(), source: error.into() })?;
        Ok(Mirror {
            dir: top.to_owned(),
            repo,
            kept: Kept::default(),
            suspect: Cell::new(false),
            slack: u64::MAX,
            room: MAX_OBJECT,
            deaf: Deaf::default(),
            packed: None,
        })
    }

    /// Returns the folder that the repository is in.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// Returns a folder within that of git where mainstay may keep what it worked out; nothing of it is shared with anybody.
    pub fn own_folder(&self) -> PathBuf {
        self.repo.common_dir().join("mainstay")
    }

    /// Finds the commit that people mean by a name, such as `HEAD~1`, `origin/main` or the first digits of its id.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn named(&self, name: &str) -> Result<CommitId, GitError> {
        let found = self.repo.rev_parse_single(name).ok();
        let commit = found.and_then(|found| found.object().ok()?.peel_to_commit().ok());
        let none = || GitError::NoSuchCommit { name: shown(name), folder: self.dir.clone() };
        commit.map(|commit| commit_id(commit.id)).ok_or_else(none)
    }

    /// Removes an unreadable `packed-refs`: it hides every other ref, and with them the notes that can be saved.
    fn drop_garbage(&self) -> io::Result<()> {
        match self.repo.refs.open_packed_buffer() {
            Ok(_) => Ok(()),
            Err(_) => remove(&self.dir.join("packed-refs")),
        }
    }

    /// Returns the newest commit that was fetched, if there is one and it can be read.
    pub fn tip(&self) -> Option<CommitId> {
        let tip = find(&self.repo, TIP).ok().flatten()?;
        self.repo.find_commit(tip).ok()?.tree().ok()?;
        Some(commit_id(tip))
    }

    /// Says whether `commit` and its tree are here.
    pub fn has(&self, commit: &CommitId) -> bool {
        self.repo.find_commit(object_id(commit)).is_ok_and(|commit| commit.tree().is_ok())
    }

    /// Returns how many bytes the packs here have; none, where they cannot be counted.
    pub(super) fn size(&self) -> u64 {
        count_objects(&self.dir.join("objects")).map_or(0, |stored| stored.bytes)
    }

    /// Says whether nothing was ever fetched of a branch.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(find(&self.repo, INCOMING), Ok(Some(_)))
    }

    /// Packs what has piled up, when it is much; commits in `keep` survive even if no branch reaches them any more.
    ///
    /// # Errors
    /// `git` is not installed, failed, was cancelled or did not end within `deadline`; the mirror is as it was.
    pub fn tidy(&mut self, keep: &[CommitId], deadline: Duration, cancel: &AtomicBool) -> Result<Tidied, GitError> {
        let Stored { packs, loose, bytes, largest } = self.stored()?;
        let tip = self.tip();
        let mut settled = self.settled(keep, largest);
        if let Some((at, bytes)) = &self.packed {
            let is_needed = keep.is_empty() || at.as_ref().is_none_or(|at| keep.contains(at));
            if is_needed {
                self.settle(*bytes);
            }
            // Nothing went then that would go now, where the branch is where it was.
            if is_needed || *at == tip {
                settled = *bytes;
            }
        }
        if packs <= MAX_PACKS && loose <= MAX_LOOSE && bytes.saturating_sub(settled) <= self.slack {
            return Ok(Tidied::Unneeded);
        }
        self.keep(keep).map_err(|source| self.failed("pack the objects", source))?;
        let mut git = command::git();
        // Others only read here, and only what somebody needs. Large files are taken as they are: the memory is bounded.
        git.args(["-c", "pack.threads=1", "-c", "pack.windowMemory=16m", "-c", "pack.deltaCacheSize=16m"]);
        git.args(["-c", "core.deltaBaseCacheLimit=16m"]);
        git.args(["-c", "core.bigFileThreshold=1m", "-c", "gc.cruftPacks=false", "--git-dir"]).arg(&self.dir);
        git.args(["gc", "--quiet", "--prune=now"]);
        if let Err(why) = command::run(git, deadline, cancel) {
            // What it began is of no use to anybody.
            remove_leftovers(&self.dir).map_err(|error| self.failed("pack the objects", Box::new(error)))?;
            return Err(self.failed("pack the objects", because(why)));
        }
        self.reload()?;
        // What the branch is at may be refused, and then goes when it is at something else.
        self.packed = Some((tip, self.stored()?.bytes));
        Ok(Tidied::Packed)
    }

    fn stored(&self) -> Result<Stored, GitError> {
        let counted = count_objects(&self.dir.join("objects"));
        counted.map_err(|error| self.failed("pack the objects", Box::new(error)))
    }

    /// Returns how many bytes the packs had when they were last known to hold what is needed alone: after they were tidied while the branch
    /// was at what is to be kept, or when the first of that was fetched. Before that, what there is most of is all that there is to go by.
    fn settled(&self, keep: &[CommitId], largest: u64) -> u64 {
        let known = fs::read_to_string(self.dir.join(SETTLED)).ok().and_then(|text| text.trim().parse().ok());
        known.unwrap_or_else(|| {
            let packs = keep.iter().filter_map(|commit| pack_with(&self.dir.join("objects/pack"), object_id(commit)));
            let Some(bytes) = packs.max() else { return largest };
            self.settle(bytes);
            bytes
        })
    }

    fn settle(&self, bytes: u64) {
        if let Err(error) = ensure_text(&self.dir, SETTLED, &format!("{bytes}\n")) {
            tracing::warn!(%error, "how large the mirror is could not be noted; it may be tidied sooner than needed");
        }
    }

    fn keep(&self, commits: &[CommitId]) -> Result<(), Source> {
        let wanted: Vec<String> = commits.iter().map(|commit| format!("{KEEP}{commit}")).collect();
        for reference in self.repo.references()?.prefixed(KEEP)? {
            let reference = reference.map_err(|error| because(error.to_string()))?;
            if !wanted.iter().any(|name| name.as_bytes() == reference.name().as_bstr()) {
                reference.delete()?;
            }
        }
        for (name, commit) in wanted.iter().zip(commits) {
            if self.has(commit) {
                set(&self.repo, name, object_id(commit))?;
            }
        }
        Ok(())
    }

    /// Makes room for what a conversation may bring.
    pub(super) fn make_room(&mut self, whole: Bounds) -> Result<(), GitError> {
        let room = whole.largest();
        if room == self.room {
            return Ok(());
        }
        self.room = room;
        self.reload()
    }

    /// Opens the repository again, after something replaced its files.
    pub(super) fn reload(&mut self) -> Result<(), GitError> {
        self.repo =
            open_repository(&self.dir, self.room).map_err(|source| self.failed("open the repository", source))?;
        Ok(())
    }

    /// Puts the repository in `fresh` into this one's place.
    pub(super) fn replace_by(&mut self, fresh: &Path) -> io::Result<()> {
        let old = beside(&self.dir, "old");
        remove(&old)?;
        fs::rename(&self.dir, &old)?;
        fs::rename(fresh, &self.dir)?;
        sync_parent(&self.dir)?;
        remove(&old)
    }

    pub(super) fn failed(&self, doing: &str, source: Source) -> GitError {
        GitError::Mirror { doing: doing.to_owned(), path: self.dir.clone(), source }
    }

    /// Says whether every ref parses and the tip's commit and root tree are readable. Deeper damage shows when a tree is
    /// read, or when a fetch needs the history.
    fn is_sound(&self) -> bool {
        let Ok(references) = self.repo.references() else { return false };
        let Ok(mut all) = references.all() else { return false };
        if all.any(|reference| reference.is_err()) {
            return false;
        }
        match find(&self.repo, TIP) {
            Ok(Some(_)) => self.tip().is_some(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Opens the repository in `dir` after making its frame what it must be.
pub(super) fn load(dir: &Path) -> Result<gix::Repository, Source> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for folder in ["objects/pack", "objects/info", "refs/heads", "refs/mainstay"] {
        builder.create(dir.join(folder))?;
    }
    ensure_text(dir, "HEAD", HEAD)?;
    ensure_text(dir, "config", CONFIG)?;
    remove_leftovers(dir)?;
    open_repository(dir, MAX_OBJECT)
}

fn open_repository(dir: &Path, room: usize) -> Result<gix::Repository, Source> {
    let overrides = [format!("gitoxide.objects.allocLimit={room}"), "pack.threads=1".to_owned()];
    let options =
        gix::open::Options::isolated().open_path_as_is(true).with(gix::sec::Trust::Full).config_overrides(overrides);
    let mut repo = gix::open_opts(dir, options)?;
    // Reading a tree visits each object once, so a cache would only cost memory.
    repo.object_cache_size(None);
    Ok(repo)
}

fn ensure_text(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes what a killed predecessor left behind: locks, which would stop every later write, and half-written packs.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    let mut folders = vec![dir.join("refs"), dir.join("objects/pack")];
    let mut top: Vec<PathBuf> = ["packed-refs.lock", "HEAD.lock", "config.lock", "gc.pid", "shallow.lock", "shallow"]
        .iter()
        .map(|name| dir.join(name))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with(".tmp") {
                top.push(entry.path());
            } else if [("pack", "idx"), ("idx", "pack")].iter().any(|(this, other)| {
                let path = entry.path();
                path.extension().is_some_and(|it| it == *this) && !path.with_extension(other).exists()
            }) {
                // Neither is of use without the other.
                top.push(entry.path());
            }
        }
    }
    for path in top {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Completes a renewal that was interrupted between its two renames.
fn finish_swap(dir: &Path) -> io::Result<()> {
    let old = beside(dir, "old");
    if !dir.exists() && old.exists() {
        fs::rename(&old, dir)?;
        sync_parent(dir)?;
    }
    remove(&old)?;
    remove(&beside(dir, "new"))
}

/// Names the directory `dir.suffix` next to `dir`.
pub(super) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a file or directory tree, without following links; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Returns how many bytes a pack has that holds an object, if one does.
fn pack_with(folder: &Path, id: ObjectId) -> Option<u64> {
    let indices = fs::read_dir(folder).ok()?.filter_map(|file| Some(file.ok()?.path()));
    let mut indices = indices.filter(|path| path.extension().is_some_and(|it| it == "idx"));
    indices.find_map(|path| {
        let index = gix::odb::pack::index::File::at(&path, id.kind()).ok()?;
        index.lookup(id)?;
        Some(fs::metadata(path.with_extension("pack")).ok()?.len())
    })
}

/// What a folder of objects holds.
#[derive(Default)]
struct Stored {
    packs: usize,
    loose: usize,
    /// Of the packs.
    bytes: u64,
    /// Of the largest of them.
    largest: u64,
}

/// Counts packs and loose objects.
fn count_objects(objects: &Path) -> io::Result<Stored> {
    let mut stored = Stored::default();
    for entry in fs::read_dir(objects)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "pack" {
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "pack") {
                    stored.packs += 1;
                    let bytes = file.metadata()?.len();
                    stored.bytes += bytes;
                    stored.largest = stored.largest.max(bytes);
                }
            }
        } else if name.len() == 2 {
            stored.loose += fs::read_dir(entry.path())?.count();
        }
    }
    Ok(stored)
}

/// Looks a ref up; `None` when there is none.
pub(super) fn find(repo: &gix::Repository, name: &str) -> Result<Option<ObjectId>, Source> {
    let found = repo.try_find_reference(name)?;
    Ok(found.and_then(|reference| reference.target().try_id().map(ToOwned::to_owned)))
}

/// Points a ref at `target`, whatever it was before.
pub(super) fn set(repo: &gix::Repository, name: &str, target: ObjectId) -> Result<(), Source> {
    repo.reference(name, target, PreviousValue::Any, "mainstay")?;
    Ok(())
}

/// Removes a ref, which may be gone.
pub(super) fn forget(repo: &gix::Repository, name: &str) -> Result<(), Source> {
    repo.try_find_reference(name)?.map_or(Ok(()), |reference| Ok(reference.delete()?))
}

pub(super) fn object_id(commit: &CommitId) -> ObjectId {
    ObjectId::from_hex(commit.as_str().as_bytes()).expect("a CommitId is 40 hex digits")
}

pub(super) fn commit_id(id: ObjectId) -> CommitId {
    CommitId::parse(&id.to_string()).expect("the mirror is a SHA-1 repository")
}
