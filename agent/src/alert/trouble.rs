//! What of a picture needs a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::id::AppName;
use spec::memory::AppState;

use crate::snapshot::{App, Snapshot};

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A step failed, and the application is not at its release.
    Failed,
    /// The release failed, and the last good one is back.
    RolledBack,
    /// Its checks do not pass any more.
    Unhealthy,
    /// It is not as the commit says, and not put back.
    Drifted,
    /// Something of somebody else is in the way.
    Conflict,
    /// A commit is not believed.
    Refused,
    /// Newer commits may be withheld.
    Stale,
    /// The rollout of an application is halted, for the whole fleet.
    Halted,
    /// A host says nothing.
    Silent,
}

impl Kind {
    /// All that each host tells of itself.
    pub const ALL: [Kind; 7] =
        [Kind::Failed, Kind::RolledBack, Kind::Unhealthy, Kind::Drifted, Kind::Conflict, Kind::Refused, Kind::Stale];

    /// Returns the word for it, as in `alerts: { on: … }`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::RolledBack => "rolled-back",
            Kind::Unhealthy => "unhealthy",
            Kind::Drifted => "drifted",
            Kind::Conflict => "conflict",
            Kind::Refused => "refused",
            Kind::Stale => "stale",
            Kind::Halted => "halted",
            Kind::Silent => "silent",
        }
    }
}

/// The branch, where applications are named: no application is called so.
const BRANCH: &str = "*branch";

/// What is in trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The host as a whole.
    Host,
    /// The branch that it follows.
    Branch,
    /// An application on it.
    App(AppName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Host => f.write_str("*"),
            Subject::Branch => f.write_str(BRANCH),
            Subject::App(app) => app.fmt(f),
        }
    }
}

impl Subject {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Subject {
        match text {
            BRANCH => Subject::Branch,
            text => AppName::parse(text).map_or(Subject::Host, Subject::App),
        }
    }
}

/// A trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// What it is about: another release in the same trouble is another trouble.
    pub about: String,
    /// Since when.
    pub since: Timestamp,
    /// In words, one line.
    pub text: String,
}

impl Trouble {
    /// Says whether both are one and the same, whatever the words are by now.
    pub(super) fn is_same(&self, other: &Trouble) -> bool {
        (self.kind, &self.about) == (other.kind, &other.about)
    }
}

/// Finds everything of these kinds, and what is changing just now or is paused, so that nobody can tell.
pub(super) fn of(picture: &Snapshot, kinds: &[Kind]) -> (BTreeMap<Subject, Trouble>, BTreeSet<Subject>) {
    let (mut found, mut open) = (BTreeMap::new(), BTreeSet::new());
    for (name, app) in &picture.apps {
        let subject = Subject::App(name.clone());
        // A release that failed is on its way back: what comes of that is worth telling.
        let goes_back =
            app.state == AppState::Failed && app.failures <= 1 && app.bad.as_ref().is_some_and(|bad| !bad.stuck);
        // Whoever paused it is at work on it: what is still so afterwards is told then.
        if app.state == AppState::Applying || goes_back || picture.plan.is_paused(name) {
            open.insert(subject);
        } else if let Some(trouble) = of_app(picture, name, app).filter(|trouble| kinds.contains(&trouble.kind)) {
            found.insert(subject, trouble);
        }
    }
    if let Some(stale) = picture.stale.as_ref().filter(|_| kinds.contains(&Kind::Stale)) {
        let about = picture.commit.as_ref().map(|commit| commit.id.as_str().to_owned()).unwrap_or_default();
        let text = one_line(stale);
        found.insert(Subject::Branch, Trouble { kind: Kind::Stale, about, since: picture.at, text });
    }
    if let Some(refused) = picture.refused.as_ref().filter(|_| kinds.contains(&Kind::Refused)) {
        let about = refused.commit.as_str().to_owned();
        let text = format!("{} is not believed: {}", refused.commit.short(), one_line(&refused.why));
        found.insert(Subject::Host, Trouble { kind: Kind::Refused, about, since: picture.at, text });
    }
    (found, open)
}

fn of_app(picture: &Snapshot, name: &AppName, app: &App) -> Option<Trouble> {
    let conflict = picture.plan.conflicts.iter().find(|conflict| conflict.app == *name);
    let contested = picture.plan.contested.iter().find(|contested| contested.app == *name);
    let drift = picture.plan.drift.iter().find(|step| step.app.as_ref() == Some(name));
    let said = || app.trouble.as_deref().map(one_line).unwrap_or_default();
    let about = app.bad.as_ref().map_or(app.digest, |bad| bad.digest).to_string();
    let (kind, text) = match (app.state, conflict, contested, drift) {
        (_, Some(conflict), ..) => {
            (Kind::Conflict, format!("{} is in the way: {}", conflict.resource, one_line(&conflict.why)))
        }
        (AppState::Failed, ..) => (Kind::Failed, said()),
        (AppState::RolledBack, ..) => (Kind::RolledBack, said()),
        (AppState::Unhealthy, ..) => (Kind::Unhealthy, said()),
        (_, _, Some(contested), _) => {
            (Kind::Drifted, format!("{} is changed back by somebody else again and again", contested.resource))
        }
        (AppState::Drifted, _, _, Some(step)) => {
            (Kind::Drifted, format!("{} {}: {}", step.verb, step.object, step.why))
        }
        (AppState::Drifted, ..) => (Kind::Drifted, "it is not as the commit says, and only reported".to_owned()),
        (AppState::Applying | AppState::Baking | AppState::Waiting | AppState::Converged | AppState::Repaired, ..) => {
            return None;
        }
    };
    Some(Trouble { kind, about, since: app.since, text })
}

/// The longest text that is told.
const LONGEST: usize = 500;

/// Returns the first line, which is our own words: what a service printed may hold anything.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
