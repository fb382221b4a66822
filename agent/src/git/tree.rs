//! Reading commits and their trees from the mirror's objects: no checkout, no filter, no link followed.

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use jiff::Timestamp;
use spec::id::{CommitId, shown};
use spec::tree::{Entry, Tree};

use super::error::GitError;
use super::mirror::{Mirror, Source, commit_id, object_id};

/// How much of a repository is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A larger file is refused, the others are read.
    pub max_blob: u64,
    /// More files and folders than this refuse the whole commit.
    pub max_entries: usize,
    /// More bytes than this refuse the whole commit.
    pub max_total: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_blob: 4 << 20, max_entries: 50_000, max_total: 64 << 20 }
    }
}

/// The deepest folder that is read; deeper ones are refused.
const MAX_DEPTH: usize = 64;

/// A commit as people recognise it; safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The first line of its message, at most 200 characters.
    pub subject: String,
    /// The author's name.
    pub author: String,
    /// When it was committed.
    pub time: Timestamp,
}

impl Mirror {
    /// Reads all files of `commit`.
    ///
    /// Entries that cannot be handed over (too large, a name that is not UTF-8 or would leave its folder) are in the
    /// tree as [`Entry::Refused`]; it is for the reader to refuse the commit.
    ///
    /// # Errors
    /// The commit is missing or damaged, or larger than `limits` altogether.
    pub fn tree(&self, commit: &CommitId, limits: &Limits) -> Result<Tree, GitError> {
        let damaged = |source: Source| {
            self.suspect.set(true);
            GitError::Damaged { commit: commit.clone(), source }
        };
        let root = self
            .repo
            .find_commit(object_id(commit))
            .and_then(|found| Ok(found.tree_id()?.detach()))
            .map_err(|error| damaged(error.into()))?;
        let mut walk = Walk { repo: &self.repo, limits, tree: Tree::default(), entries: 0, bytes: 0 };
        match walk.run(root) {
            Ok(()) => Ok(walk.tree),
            Err(Stop::TooLarge(what)) => Err(GitError::TooLarge { commit: commit.clone(), what }),
            Err(Stop::Damaged(source)) => Err(damaged(source)),
        }
    }

    /// Reads what people call `commit` by.
    ///
    /// # Errors
    /// The commit is missing or damaged.
    pub fn commit(&self, commit: &CommitId) -> Result<Summary, GitError> {
        self.summary(commit).map_err(|source| GitError::Damaged { commit: commit.clone(), source })
    }

    fn summary(&self, commit: &CommitId) -> Result<Summary, Source> {
        let found = self.repo.find_commit(object_id(commit))?;
        let decoded = found.decode()?;
        let message = String::from_utf8_lossy(decoded.message);
        let subject = message.trim_start().lines().next().unwrap_or_default();
        let author = String::from_utf8_lossy(decoded.author()?.name).into_owned();
        let seconds = decoded.committer()?.seconds();
        let bounded = |text: &str| shown(text.trim()).chars().take(200).collect();
        // A time that no calendar has is the author's problem, and no reason to refuse the commit.
        let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Summary { subject: bounded(subject), author: bounded(&author), time })
    }

    /// Returns the bytes of the commit object, as they were hashed and signed.
    ///
    /// # Errors
    /// The commit is missing or damaged.
    pub fn raw_commit(&self, commit: &CommitId) -> Result<Vec<u8>, GitError> {
        let damaged = |source: Source| GitError::Damaged { commit: commit.clone(), source };
        let found = self.repo.find_commit(object_id(commit)).map_err(|error| damaged(error.into()))?;
        // The object's name is what everybody trusts, so it is computed, not believed.
        let actual = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Commit, &found.data);
        match actual {
            Ok(id) if id == found.id => Ok(found.data.clone()),
            Ok(_) => Err(damaged("its bytes do not match its name".into())),
            Err(error) => Err(damaged(error.into())),
        }
    }

    /// Says whether `ancestor` is `descendant` or one of its ancestors: a way forward that rewrote nothing.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, GitError> {
        let (ancestor, descendant) = (object_id(ancestor), object_id(descendant));
        self.reaches(descendant, ancestor).map_err(|source| self.failed("read the history", source))
    }

    pub(super) fn reaches(&self, from: ObjectId, to: ObjectId) -> Result<bool, Source> {
        if from == to {
            return Ok(self.repo.find_commit(from).is_ok());
        }
        self.repo.find_commit(to)?;
        let bases = self.repo.merge_bases_many(from, &[to])?;
        Ok(bases.iter().any(|base| base.detach() == to))
    }

    /// Lists the commits that `new` reaches and `old` does not, newest first: what has to be verified before `new` is
    /// believed. Without `old`, all of them. At most `limit` are listed.
    ///
    /// # Errors
    /// The history cannot be read, or is longer than `limit`.
    pub fn commits_between(
        &self,
        old: Option<&CommitId>,
        new: &CommitId,
        limit: usize,
    ) -> Result<Vec<CommitId>, GitError> {
        let failed = |source: Source| self.failed("read the history", source);
        let walk = self.repo.rev_walk([object_id(new)]).with_hidden(old.map(object_id));
        let mut commits = Vec::new();
        for found in walk.all().map_err(|error| failed(error.into()))? {
            if commits.len() == limit {
                return Err(failed(format!("there are more than {limit} new commits").into()));
            }
            commits.push(commit_id(found.map_err(|error| failed(error.into()))?.id));
        }
        Ok(commits)
    }
}

/// Checks that all files of `commit` can be read.
///
/// # Errors
/// The first that cannot; a commit that is too large to be read is not incomplete.
pub(super) fn is_complete(repo: &gix::Repository, commit: ObjectId) -> Result<(), Source> {
    let root = repo.find_commit(commit)?.tree_id()?.detach();
    let limits = Limits::default();
    match (Walk { repo, limits: &limits, tree: Tree::default(), entries: 0, bytes: 0 }).run(root) {
        Ok(()) | Err(Stop::TooLarge(_)) => Ok(()),
        Err(Stop::Damaged(source)) => Err(source),
    }
}

enum Stop {
    TooLarge(String),
    Damaged(Source),
}

struct Walk<'m> {
    repo: &'m gix::Repository,
    limits: &'m Limits,
    tree: Tree,
    entries: usize,
    bytes: u64,
}

impl Walk<'_> {
    fn run(&mut self, root: ObjectId) -> Result<(), Stop> {
        let mut folders = vec![(String::new(), 0, root)];
        while let Some((prefix, depth, id)) = folders.pop() {
            let folder = self.repo.find_tree(id).map_err(|error| Stop::Damaged(error.into()))?;
            for entry in folder.iter() {
                let entry = entry.map_err(|error| Stop::Damaged(error.into()))?;
                self.entries += 1;
                if self.entries > self.limits.max_entries {
                    return Err(Stop::TooLarge(format!("it has more than {} entries", self.limits.max_entries)));
                }
                let name: &[u8] = entry.filename();
                let path = format!("{prefix}{}", String::from_utf8_lossy(name));
                if let Some(why) = bad_name(name) {
                    self.insert(&path, Entry::Refused { why });
                } else if entry.mode().is_tree() && depth + 1 > MAX_DEPTH {
                    self.insert(&path, Entry::Refused { why: format!("it lies deeper than {MAX_DEPTH} folders") });
                } else if entry.mode().is_tree() {
                    folders.push((format!("{path}/"), depth + 1, entry.object_id()));
                } else {
                    let found = self.leaf(entry.mode().kind(), entry.object_id())?;
                    self.insert(&path, found);
                }
            }
        }
        Ok(())
    }

    /// Adds an entry; a name that a hostile tree holds twice is nobody's.
    fn insert(&mut self, path: &str, entry: Entry) {
        let path = shown(path);
        let twice = self.tree.entries.contains_key(&path);
        let entry = if twice { Entry::Refused { why: "its folder names it twice".to_owned() } } else { entry };
        self.tree.entries.insert(path, entry);
    }

    fn leaf(&mut self, kind: EntryKind, id: ObjectId) -> Result<Entry, Stop> {
        let executable = match kind {
            EntryKind::Commit => return Ok(Entry::Submodule),
            EntryKind::Link | EntryKind::Blob => false,
            EntryKind::BlobExecutable => true,
            EntryKind::Tree => return Ok(Entry::Refused { why: "it is a folder where a file belongs".to_owned() }),
        };
        let header = self.repo.find_header(id).map_err(|error| Stop::Damaged(error.into()))?;
        if header.kind() != gix::objs::Kind::Blob {
            return Ok(Entry::Refused { why: "its object is no file".to_owned() });
        }
        if header.size() > self.limits.max_blob {
            let why = format!("it has {} bytes, and {} are the most that is read", header.size(), self.limits.max_blob);
            return Ok(Entry::Refused { why });
        }
        self.bytes += header.size();
        if self.bytes > self.limits.max_total {
            return Err(Stop::TooLarge(format!("its files have more than {} bytes", self.limits.max_total)));
        }
        let mut blob = self.repo.find_blob(id).map_err(|error| Stop::Damaged(error.into()))?;
        if kind != EntryKind::Link {
            return Ok(Entry::File { bytes: blob.take_data().into(), executable });
        }
        Ok(match String::from_utf8(blob.take_data()) {
            Ok(target) => Entry::Symlink { target },
            Err(_) => Entry::Refused { why: "it is a link to a name that is not UTF-8".to_owned() },
        })
    }
}

/// Says why an entry's name cannot be used. git refuses most of these itself, but not every server checks what it stores.
fn bad_name(name: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Some("its name is not UTF-8".to_owned());
    };
    let why = match text {
        "" => "its name is empty",
        "." | ".." => "its name would leave its folder",
        _ if text.eq_ignore_ascii_case(".git") => "`.git` cannot be a part of a repository's tree",
        _ if text.contains(['/', '\\']) => "its name holds a path separator",
        _ if text.chars().any(char::is_control) => "its name holds a control character",
        _ if text.len() > 255 => "its name is longer than 255 bytes",
        _ => return None,
    };
    Some(why.to_owned())
}
