//! What is kept of rollouts over a restart of the agent. It can be lost: others are then waited for longer, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use spec::id::{AppName, HostName};
use spec::rollout::{Overdue, Row, Spreading};
use tracing::warn;

/// The file's name in the state folder.
const NAME: &str = "rollout.json";
/// For how long the others have been at something grows with each look: it is kept not more often than this.
const KEEP_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The last sign of each other host, and when it was seen here first.
    pub(super) heard: BTreeMap<HostName, Heard>,
    /// The release of each application that spreads, and since when it is known.
    pub(super) releases: BTreeMap<AppName, Spreading>,
    /// This host's own signs of life.
    pub(super) signs: Option<Row>,
    /// When the repository answered last.
    pub(super) polled: Option<Timestamp>,
    /// For how long the others have been at each application.
    pub(super) overdue: BTreeMap<AppName, Overdue>,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heard {
    pub(super) value: String,
    pub(super) at: Timestamp,
}

impl Kept {
    /// Takes back what a clock said that was ahead: nothing is known of the future.
    pub(super) fn not_after(&mut self, now: Timestamp) {
        self.heard.values_mut().for_each(|heard| heard.at = heard.at.min(now));
        self.releases.values_mut().for_each(|spreading| spreading.seen = spreading.seen.min(now));
        self.polled = self.polled.filter(|polled| *polled <= now);
        self.signs.take_if(|row| row.last > now);
    }
}

/// Keeps it.
pub(super) struct Keeper {
    path: PathBuf,
    is_looking: bool,
    kept: Kept,
    saved: Kept,
    /// When it was kept last for how long the others have been at something.
    noted: Option<Timestamp>,
}

impl Keeper {
    /// Reads what was kept.
    pub(super) fn open(state: &Path) -> Keeper {
        let path = state.join(NAME);
        let kept: Kept =
            fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Keeper { path, is_looking: false, saved: kept.clone(), kept, noted: None }
    }

    /// Writes nothing from now on: somebody else does.
    pub(super) fn only_look(&mut self) {
        self.is_looking = true;
    }

    pub(super) fn only_looks(&self) -> bool {
        self.is_looking
    }

    /// Keeps what would be missed after a restart, where something of it is new.
    pub(super) fn save(&mut self) {
        let same = |kept: &Kept| Kept { polled: None, overdue: BTreeMap::new(), ..kept.clone() };
        if same(&self.kept) != same(&self.saved) {
            self.keep();
        }
    }

    /// Keeps for how long the others have been at something, now and then.
    pub(super) fn save_overdue(&mut self, now: Timestamp) {
        let is_new = self.noted.is_none_or(|noted| noted > now || now.duration_since(noted) > KEEP_EVERY);
        if is_new && self.kept.overdue.values().any(|overdue| !overdue.is_empty()) {
            self.noted = Some(now);
            self.keep();
        }
    }

    fn keep(&mut self) {
        if self.is_looking {
            return;
        }
        match write(&self.path, &self.kept) {
            Ok(()) => self.saved.clone_from(&self.kept),
            Err(error) => warn!(%error, "failed to keep what is known of rollouts"),
        }
    }
}

impl Deref for Keeper {
    type Target = Kept;

    fn deref(&self) -> &Kept {
        &self.kept
    }
}

impl DerefMut for Keeper {
    fn deref_mut(&mut self) -> &mut Kept {
        &mut self.kept
    }
}

fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec(kept)?)?;
    fs::rename(&new, path)
}
