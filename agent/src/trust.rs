//! Whether a commit is believed on this host: what leads to it is read from the mirror, and judged by [`spec::trust`].
//!
//! Belief goes on from what was believed last, and never backwards. Where nothing was, it begins with what the settings say; where
//! the state was lost, with the floor, a file beside the settings that holds what was believed last.

mod signature;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{CommitId, shown};
use spec::manifest::{self, Said};
use spec::trust::{self, Disbelief, Reason, Require, Standing, Trust};
use tracing::warn;

use crate::git::{GitError, Mirror, Signed};
use crate::requests::Accepted;
use crate::settings;

/// More commits than this do not arrive at once.
const MOST_COMMITS: usize = 20_000;
/// More versions of who may sign do not arrive at once: each is read before anybody has vouched for it.
const MOST_VERSIONS: usize = 120;
/// A fleet.yaml, or a file of signers, that is larger is not read for this.
const MOST_TEXT: u64 = 4 << 20;
/// So many bytes of such files are read altogether before it is known who wrote them.
const MOST_READ: u64 = 256 << 20;
/// Checking who signed takes no longer: a tenth of a millisecond for most commits.
const LONGEST: Duration = Duration::from_secs(120);
/// The line of a message by which somebody agrees to a change of trust.
const APPROVES: &str = "Approves:";
const FLEET: &str = "fleet.yaml";

/// Why a commit is not believed, whatever it says.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It, or one that leads to it, is not signed as it has to be.
    #[error(transparent)]
    Disbelief(#[from] Disbelief),
    /// It is older than what was believed before.
    #[error(
        "{tip} is older than {believed}, which was believed before: the branch was set back, and this host does not go back with it; to \
         go back, revert what came since with a new commit, or say `mainstay accept-rewrite {believed} {tip}` on each host"
    )]
    Rollback {
        /// What was believed.
        believed: CommitId,
        /// What the branch is at.
        tip: CommitId,
    },
    /// It does not go on from what was believed before.
    #[error(
        "{tip} does not go on from {believed}, which was believed before: the branch was rewritten, or is another one; if that is meant, \
         say `mainstay accept-rewrite {believed} {tip}` on each host, or `trust: {{ replaces: [{believed}] }}` in fleet.yaml in a commit \
         on the new branch, signed by somebody who is trusted already"
    )]
    Rewritten {
        /// What was believed.
        believed: CommitId,
        /// What the branch is at.
        tip: CommitId,
    },
    /// More commits than that lead to it.
    #[error(
        "more than {MOST_COMMITS} commits came since the last that was believed; look at them, and accept the newest with `mainstay accept-rewrite OLD NEW --by-settings`"
    )]
    TooMany,
    /// It takes too long to check who signed what leads to it.
    #[error(
        "who signed what came since the last commit that was believed could not be checked in {} s: `mainstay sync` tries again; where \
         that is no help, look at it, and accept the newest with `mainstay accept-rewrite OLD NEW --by-settings`",
        LONGEST.as_secs()
    )]
    TooLong,
    /// The agent ends.
    #[error("it was not checked to the end: the agent ends")]
    Interrupted,
    /// What a commit says of trust cannot be read.
    #[error("what {} says of trust cannot be read: `mainstay check` says why; both files have at most 4 MiB", commit.short())]
    Unclear {
        /// Which.
        commit: CommitId,
    },
    /// The file that holds what was believed last is of no use.
    #[error("it cannot be told what was believed last, so nothing else is: {0}")]
    Floor(String),
    /// The repository asks for signatures, and nobody told this host whose.
    #[error(
        "the repository says that its commits are signed, and this host was not told by whom: compare the keys in the repository with \
         the people they are of, copy their file to this host, and name it with `trust: {{ signers: FILE }}` in {}",
        crate::settings::DEFAULT_PATH
    )]
    NoFirst,
    /// The file of the signers that the settings name is of no use.
    #[error("the signers that the settings name cannot be used, so nothing is believed: {0}")]
    Signers(String),
    /// It is meant for another branch.
    #[error("fleet.yaml says that this is for the branch `{meant}`, and this host follows `{followed}`")]
    OtherBranch {
        /// For which.
        meant: String,
        /// The one that is followed.
        followed: String,
    },
    /// What leads to it cannot be read.
    #[error("what leads to it cannot be read")]
    Unreadable(#[from] GitError),
}

impl Refusal {
    /// Says whether that tells nothing of the commit: it could not be read.
    pub fn is_unread(&self) -> bool {
        matches!(self, Refusal::Unreadable(error) if !matches!(error, GitError::Malformed { .. }))
    }

    /// Says whether the same commit may be believed later: the clock and files of this host had a part in it.
    pub fn is_passing(&self) -> bool {
        match self {
            Refusal::Unreadable(_) => self.is_unread(),
            Refusal::Floor(_) | Refusal::Signers(_) | Refusal::Interrupted => true,
            Refusal::Disbelief(disbelief) => disbelief.reason == Reason::NotYetValid,
            _ => false,
        }
    }
}

/// Reads the file of those who sign that the settings name.
fn first(path: Option<&Path>) -> Result<Option<Trust>, Refusal> {
    let Some(path) = path else { return Ok(None) };
    let bad = |why: String| Refusal::Signers(format!("{}{why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(format!(" cannot be read: {error}")))?;
    let (signers, mistakes) = trust::read_signers(&text);
    if let Some(mistake) = mistakes.iter().find(|mistake| !mistake.is_warning) {
        let line = 1 + text[..mistake.extent.start].matches('\n').count();
        return Err(bad(format!(":{line}: {}; {}", mistake.message, mistake.help)));
    }
    if signers.is_empty() {
        return Err(bad(" names nobody".to_owned()));
    }
    Ok(Some(Trust { signers, approvals: 1, ..Trust::default() }))
}

/// What a commit has to go on from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// What was believed last.
    pub believed: Option<&'a CommitId>,
    /// What was believed last as the floor has it, which is older or newer where the state was lost or restored.
    pub floor: Option<&'a CommitId>,
    /// A rewrite that a person accepted.
    pub accepted: Option<&'a Accepted>,
}

/// All that it takes to judge a commit, so that it can be done on another thread: whoever can push makes it take as long as may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What the settings say.
    pub settings: settings::Trust,
    /// What the file of those who sign holds that they name.
    pub told: Option<Digest>,
    /// The branch that is followed.
    pub followed: String,
    /// What was believed last.
    pub believed: Option<CommitId>,
    /// The same, as the floor has it.
    pub floor: Option<CommitId>,
    /// A rewrite that a person accepted.
    pub accepted: Option<Accepted>,
}

impl Case {
    /// Puts one together of what the settings of a host say, with nothing that was believed before.
    pub fn new(settings: &settings::Trust, followed: &str) -> Case {
        let told = settings.signers.as_deref().and_then(|path| Some(Digest::of(&fs::read(path).ok()?)));
        let followed = followed.to_owned();
        Case { settings: settings.clone(), told, followed, believed: None, floor: None, accepted: None }
    }

    /// Judges a commit, until `cancel` is raised.
    ///
    /// # Errors
    /// It is not to be believed, or that cannot be told.
    pub fn judge(
        &self,
        mirror: &Mirror,
        commit: &CommitId,
        now: Timestamp,
        cancel: Option<&AtomicBool>,
    ) -> Result<Verdict, Refusal> {
        let judge = Judge { cancel, ..Judge::new(mirror, &self.settings)? };
        let before =
            Before { believed: self.believed.as_ref(), floor: self.floor.as_ref(), accepted: self.accepted.as_ref() };
        judge.believe(before, commit, &self.followed, now)
    }
}

/// What came of a case.
pub struct Judged {
    /// Which.
    pub case: Case,
    /// What was judged.
    pub commit: CommitId,
    /// Whether it is believed.
    pub verdict: Result<Verdict, Refusal>,
}

/// Why a commit is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What holds from this commit on.
    pub trust: Arc<Trust>,
    /// How many commits were looked at.
    pub commits: usize,
}

/// Judges commits.
pub struct Judge<'m> {
    mirror: &'m Mirror,
    /// What holds where nothing is said.
    otherwise: Arc<Trust>,
    is_told: bool,
    since: Option<CommitId>,
    /// What each commit says of trust, and what each pair of files does: most commits change neither.
    commits: RefCell<BTreeMap<CommitId, Said>>,
    /// The same by what is in a commit.
    trees: RefCell<BTreeMap<String, Said>>,
    files: RefCell<BTreeMap<String, Said>>,
    /// Which files each fleet.yaml names, by the name of its content.
    named: RefCell<BTreeMap<String, Vec<String>>>,
    /// How many bytes more are read of what nobody believes yet.
    left: Cell<u64>,
    /// How long it may take, until when that is, and what ends it before.
    longest: Duration,
    ends: Cell<Instant>,
    cancel: Option<&'m AtomicBool>,
}

impl<'m> Judge<'m> {
    /// Prepares to judge what is in `mirror`.
    ///
    /// # Errors
    /// The settings name signers who cannot be used.
    pub fn new(mirror: &'m Mirror, settings: &settings::Trust) -> Result<Judge<'m>, Refusal> {
        let trust = first(settings.signers.as_deref())?;
        Ok(Judge {
            mirror,
            is_told: trust.is_some(),
            otherwise: Arc::new(trust.unwrap_or_else(Trust::nobody)),
            since: settings.since.clone(),
            commits: RefCell::default(),
            trees: RefCell::default(),
            files: RefCell::default(),
            named: RefCell::default(),
            left: Cell::new(MOST_READ),
            longest: LONGEST,
            ends: Cell::new(Instant::now()),
            cancel: None,
        })
    }

    /// Believes `tip` of the branch `followed`, or says why not.
    ///
    /// # Errors
    /// It is not to be believed, or that cannot be told.
    pub fn believe(
        &self,
        before: Before<'_>,
        tip: &CommitId,
        followed: &str,
        now: Timestamp,
    ) -> Result<Verdict, Refusal> {
        self.ends.set(Instant::now() + self.longest);
        let newest = self.says(tip)?;
        let Some(says) = self.trust(&newest) else { return Err(Refusal::Unclear { commit: tip.clone() }) };
        let mut olds: Vec<&CommitId> = before.believed.iter().chain(&before.floor).copied().collect();
        let is_meant = |it: &&Accepted| olds.contains(&&it.from) && self.leads(&it.to, tip);
        let accepted = before.accepted.filter(is_meant);
        if olds.is_empty() {
            olds.extend(&self.since);
        }
        for old in olds.iter().filter(|_| accepted.is_none()) {
            self.goes_on(old, tip, &newest)?;
        }
        let by_settings = accepted.is_some_and(|it| it.by_settings);
        let anchor = olds.into_iter().find(|old| self.mirror.has(old)).filter(|_| !by_settings);
        let (before, way) = match anchor {
            Some(anchor) => {
                let trust = self.trust(&self.says(anchor)?).ok_or(Refusal::Unclear { commit: anchor.clone() })?;
                let at = self.mirror.signed(anchor)?.at;
                let way = self.mirror.way(anchor, tip, MOST_COMMITS, || self.go_on())?.ok_or(Refusal::TooMany)?;
                (trust::Before { id: Some(anchor.clone()), trust, at }, way)
            }
            // Nothing is known here: the tip alone can be compared with the settings.
            None if !self.is_told && says.require != Require::None => return Err(Refusal::NoFirst),
            None => {
                let trust = Arc::clone(&self.otherwise);
                (trust::Before { id: None, trust, at: Timestamp::UNIX_EPOCH }, vec![tip.clone()])
            }
        };
        // Whoever is named beside a commit may be the one who signed it.
        for commit in &way {
            self.go_on()?;
            self.says(commit)?;
        }
        let known = self.known();
        let read = |commit| self.go_on().and_then(|()| self.read(commit, &known));
        let mut way: Vec<trust::Commit> = way.iter().map(read).collect::<Result<_, _>>()?;
        let outside = |commit: &CommitId| self.says(commit).ok().and_then(|said| self.trust(&said));
        let mut judged = trust::believe(&before, &way, outside, now);
        // A walk by dates may list what was believed long ago, where dates are off.
        let is_old = |commit: &CommitId| before.id.as_ref().is_some_and(|anchor| self.leads(commit, anchor));
        if judged.as_ref().is_err_and(|it| is_old(&it.commit)) {
            way.retain(|commit| !is_old(&commit.id));
            judged = trust::believe(&before, &way, outside, now);
        }
        judged?;
        if let Some(meant) = says.branch.as_ref().filter(|meant| *meant != followed) {
            return Err(Refusal::OtherBranch { meant: shown(meant), followed: followed.to_owned() });
        }
        Ok(Verdict { trust: says, commits: way.len() })
    }

    fn go_on(&self) -> Result<(), Refusal> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Refusal::Interrupted);
        }
        if Instant::now() >= self.ends.get() { Err(Refusal::TooLong) } else { Ok(()) }
    }

    /// Says whether a commit is another one or leads to it, as far as that can be read.
    fn leads(&self, old: &CommitId, new: &CommitId) -> bool {
        old == new || (self.mirror.has(old) && self.mirror.is_ancestor(old, new).unwrap_or(false))
    }

    /// Checks that a commit goes on from an old one, or says that it takes its place. That counts only where the old one is there to say
    /// who may: what a commit says of itself is judged after this.
    fn goes_on(&self, old: &CommitId, tip: &CommitId, newest: &Said) -> Result<(), Refusal> {
        let is_known = self.mirror.has(old);
        let is_replaced = || matches!(newest, Said::Trust(trust) if trust.replaces.contains(old));
        if is_known && (self.mirror.is_ancestor(old, tip)? || is_replaced()) {
            return Ok(());
        }
        let (believed, tip) = (old.clone(), tip.clone());
        Err(match is_known && self.mirror.is_ancestor(&tip, &believed)? {
            true => Refusal::Rollback { believed, tip },
            false => Refusal::Rewritten { believed, tip },
        })
    }

    /// Takes from a commit what is judged.
    fn read(&self, commit: &CommitId, known: &[Arc<Trust>]) -> Result<trust::Commit, Refusal> {
        let commit = self.mirror.signed(commit)?;
        let signature = signature::of(&commit, known);
        let approves = approvals(&commit.message);
        let trust = self.trust(&self.says(&commit.id)?);
        let Signed { id, parents, at, .. } = commit;
        Ok(trust::Commit { id, parents, at, signature, approves, trust })
    }

    /// Returns what holds after something was said; `None` where that cannot be read.
    fn trust(&self, said: &Said) -> Option<Arc<Trust>> {
        match said {
            Said::Trust(trust) => Some(Arc::clone(trust)),
            Said::Nothing => Some(Arc::clone(&self.otherwise)),
            Said::Unreadable => None,
        }
    }

    /// Reads what a commit says of trust. Whoever can push makes as many commits as they like before anybody looks at a signature: what
    /// was read is known by its name then, and there is an end to what is read.
    fn says(&self, commit: &CommitId) -> Result<Said, GitError> {
        if let Some(said) = self.commits.borrow().get(commit) {
            return Ok(said.clone());
        }
        let tree = self.mirror.name_at(commit, "")?.unwrap_or_default();
        let known = self.trees.borrow().get(&tree).cloned();
        let said = match known {
            Some(said) => said,
            None => self.says_in(commit)?,
        };
        self.trees.borrow_mut().insert(tree, said.clone());
        self.commits.borrow_mut().insert(commit.clone(), said.clone());
        Ok(said)
    }

    fn says_in(&self, commit: &CommitId) -> Result<Said, GitError> {
        let Some(fleet) = self.mirror.name_at(commit, FLEET)? else { return Ok(Said::Unreadable) };
        let named = self.named.borrow().get(&fleet).cloned();
        let (paths, mut text) = match named {
            Some(paths) => (paths, None),
            None if self.named.borrow().len() >= MOST_VERSIONS => return Ok(Said::Unreadable),
            None => {
                let text = self.text_at(commit, FLEET)?;
                let paths = text.as_deref().map(manifest::files_of_signers).unwrap_or_default();
                self.named.borrow_mut().insert(fleet.clone(), paths.clone());
                (paths, text)
            }
        };
        let mut key = fleet;
        for path in &paths {
            if let Some(name) = self.mirror.name_at(commit, path)? {
                key.extend([" ", &name, " ", path]);
            }
        }
        if let Some(said) = self.files.borrow().get(&key) {
            return Ok(said.clone());
        }
        if self.files.borrow().len() >= MOST_VERSIONS {
            return Ok(Said::Unreadable);
        }
        if text.is_none() {
            text = self.text_at(commit, FLEET)?;
        }
        let mut files = BTreeMap::new();
        for path in paths {
            if let Some(text) = self.text_at(commit, &path)? {
                files.insert(path, text);
            }
        }
        let said = text.map_or(Said::Unreadable, |text| manifest::said_of_trust(&text, |path| files.get(path)));
        self.files.borrow_mut().insert(key, said.clone());
        Ok(said)
    }

    /// Reads a file of a commit; `None` where there is none, or where too much was read already.
    fn text_at(&self, commit: &CommitId, path: &str) -> Result<Option<String>, GitError> {
        let most = MOST_TEXT.min(self.left.get());
        let text = self.mirror.text_at(commit, path, most)?.map(|(_, text)| text);
        self.left.set(self.left.get().saturating_sub(text.as_ref().map_or(0, |text| text.len() as u64)));
        Ok(text)
    }

    /// Says whether what a commit holds may be read to tell what is wrong with it, although it cannot be told what it says of trust:
    /// where nobody had to sign before it, or somebody signed it who was named then.
    pub fn may_be_told(&self, before: &Before<'_>, commit: &CommitId) -> bool {
        let old = before.believed.into_iter().chain(before.floor).find(|old| self.mirror.has(old));
        let trust = match old.map(|old| self.says(old)) {
            None => Some(Arc::clone(&self.otherwise)),
            Some(Ok(said)) => self.trust(&said),
            Some(Err(_)) => None,
        };
        let (Some(trust), Ok(signed)) = (trust, self.mirror.signed(commit)) else { return false };
        trust.require == Require::None
            || match signature::of(&signed, &[Arc::clone(&trust)]) {
                trust::Signature::By(key) => trust.signers.iter().any(|signer| signer.key == key),
                _ => false,
            }
    }

    /// Says what holds since a commit that is believed.
    ///
    /// # Errors
    /// The commit cannot be read.
    pub fn standing(&self, commit: &CommitId) -> Result<Option<Standing>, GitError> {
        let at = self.mirror.signed(commit)?.at;
        Ok(self.trust(&self.says(commit)?).map(|trust| Standing::of(&trust, at)))
    }

    /// Lists whose signatures can be checked here: of everybody who was read of by now.
    fn known(&self) -> Vec<Arc<Trust>> {
        let files = self.files.borrow();
        let said = files.values().filter_map(|said| match said {
            Said::Trust(trust) => Some(Arc::clone(trust)),
            Said::Nothing | Said::Unreadable => None,
        });
        said.chain([Arc::clone(&self.otherwise)]).collect()
    }

    /// Says in words who signed a commit, whether that counts or not.
    ///
    /// # Errors
    /// The commit cannot be read.
    pub fn signer(&self, commit: &CommitId) -> Result<String, GitError> {
        self.says(commit)?;
        for parent in &self.mirror.signed(commit)?.parents {
            self.says(parent)?;
        }
        Ok(match signature::of(&self.mirror.signed(commit)?, &self.known()) {
            trust::Signature::Missing => "it is not signed".to_owned(),
            trust::Signature::By(key) => format!("it is signed with {key}"),
            trust::Signature::Claims(key) => format!("it says that it is signed with {key}, which nobody here knows"),
            trust::Signature::Broken(why) => format!("its signature does not hold: {why}"),
        })
    }
}

/// Reads to which changes a message agrees: in its last lines, which stand apart, as git's own trailers do.
fn approvals(message: &str) -> Vec<CommitId> {
    let Some((_, last)) = message.trim_end().rsplit_once("\n\n") else { return Vec::new() };
    let names = last.lines().filter_map(|line| line.strip_prefix(APPROVES));
    names.filter_map(|name| CommitId::parse(name.trim()).ok()).collect()
}

/// What was believed last, beside the settings: it is there when the state is not.
#[derive(Clone, Debug)]
pub struct Floor {
    path: PathBuf,
    commit: Result<Option<CommitId>, String>,
}

impl Floor {
    /// Reads it again where it was of no use: a person may have mended it.
    pub fn refresh(&mut self) {
        if self.commit.is_err() {
            *self = Floor::open(&self.path);
        }
    }

    /// Reads it.
    pub fn open(path: &Path) -> Floor {
        let off = |why: &dyn std::fmt::Display| Err(format!("{} {why}", path.display()));
        let commit = match fs::read_to_string(path) {
            Ok(text) => match CommitId::parse(text.lines().next().unwrap_or_default().trim()) {
                Ok(commit) => Ok(Some(commit)),
                Err(_) => off(&"should name a commit, and does not: write its whole name there, or remove it"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => off(&format!("cannot be read: {error}")),
        };
        Floor { path: path.to_owned(), commit }
    }

    /// Returns the commit.
    ///
    /// # Errors
    /// The file is there and of no use.
    pub fn commit(&self) -> Result<Option<&CommitId>, Refusal> {
        self.commit.as_ref().map(Option::as_ref).map_err(|why| Refusal::Floor(why.clone()))
    }

    /// Raises it to a commit that is believed.
    pub fn raise(&mut self, commit: &CommitId) {
        if self.commit.as_ref().is_ok_and(|known| known.as_ref() == Some(commit)) {
            return;
        }
        match write(&self.path, commit) {
            Ok(()) => self.commit = Ok(Some(commit.clone())),
            Err(error) => warn!(
                path = %self.path.display(),
                %error,
                "failed to keep which commit is believed: should the state be lost, an older one would be believed again"
            ),
        }
    }
}

fn write(path: &Path, commit: &CommitId) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(format!("{commit}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    // It is what is left where the state is lost: a power cut takes nothing of it back.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
