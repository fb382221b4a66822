//! What fleet.yaml says of how changes spread: policies, freezes, holds and overrides.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::selector::Place;
use crate::calendar::Window;
use crate::id::AppName;

/// The name of the policy of applications that name none.
pub const DEFAULT: &str = "default";

/// How a change of an application spreads over its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Who goes when: selectors first, then growing shares of the others.
    pub waves: Vec<Wave>,
    /// How long a host has to be healthy at the release before the next wave.
    pub bake: Duration,
    /// How many hosts may be changing at the same time.
    pub max_unavailable: Count,
    /// How many hosts may fail before the release is halted for everybody.
    pub failures: Count,
    /// After which time without a sign a host is no longer waited for.
    pub silent_after: Duration,
    /// For how long a host may say that it is about to be there, beyond twice the bake, before it is no longer waited for.
    pub progress_deadline: Duration,
    /// What a host does whose change failed.
    pub on_failure: OnFailure,
    /// When changes may begin; at any time where there are none.
    pub windows: Vec<Window>,
}

/// A wave of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wave {
    /// The hosts that match.
    Where(Place),
    /// As many percent of the hosts that match no selector, those of the shares before included.
    Share(u8),
}

/// A number of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Hosts(u32),
    /// So many percent, rounded down.
    Percent(u8),
}

/// What a host does whose change failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It goes back to its last good release.
    Rollback,
    /// It stays as it is, for a person to look at.
    Stop,
}

/// A time in which nothing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
    /// Where; everywhere unless it says.
    pub place: Place,
    /// For which applications; for all where it names none.
    pub apps: BTreeSet<AppName>,
    /// Why.
    pub reason: String,
}

/// An application of which nothing new is deployed until this is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The application; `None` for every one.
    pub app: Option<AppName>,
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: String,
}

/// A rule that somebody breaks in the open, for one commit and for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The first digits of the commit that it is for.
    pub commit: String,
    /// The application; `None` for every one.
    pub app: Option<AppName>,
    /// What is not looked at.
    pub ignore: BTreeSet<Rule>,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub until: Timestamp,
}

/// What an override can do away with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Windows.
    Windows,
    /// Freezes.
    Freezes,
    /// Holds.
    Holds,
    /// Waves and bake: every host may go as far as `max-unavailable` lets it.
    Waves,
    /// The halt after too many failures.
    Failures,
    /// The applications that are needed elsewhere.
    Needs,
}

/// The words for rules.
pub const RULES: [(&str, Rule); 6] = [
    ("windows", Rule::Windows),
    ("freezes", Rule::Freezes),
    ("holds", Rule::Holds),
    ("waves", Rule::Waves),
    ("failures", Rule::Failures),
    ("needs", Rule::Needs),
];

impl Default for Rollout {
    /// Everybody at once, which is what a repository without rollouts gets.
    fn default() -> Rollout {
        Rollout {
            waves: vec![Wave::Share(100)],
            bake: Duration::ZERO,
            max_unavailable: Count::Percent(100),
            failures: Count::Percent(100),
            silent_after: SILENT_AFTER,
            progress_deadline: progress_deadline(SILENT_AFTER),
            on_failure: OnFailure::Rollback,
            windows: Vec::new(),
        }
    }
}

/// After which time a host counts as silent where a policy does not say.
pub const SILENT_AFTER: Duration = Duration::from_secs(15 * 60);

/// Returns how long a host may take to come to an end where a policy does not say: an image over a slow line, a start that takes its
/// time.
pub(super) fn progress_deadline(silent_after: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(10 * 60);
    silent_after.saturating_mul(4).max(LEAST)
}

impl Count {
    /// Returns how many of `hosts` that is.
    pub fn of(self, hosts: usize) -> usize {
        match self {
            Count::Hosts(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Count::Percent(percent) => hosts.saturating_mul(usize::from(percent)) / 100,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Hosts(count) => write!(f, "{count}"),
            Count::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Override {
    /// Says whether it breaks `rule` for `app` at `commit`.
    pub fn breaks(&self, rule: Rule, app: &AppName, commit: &str, now: Timestamp) -> bool {
        now < self.until
            && self.ignore.contains(&rule)
            && commit.starts_with(&self.commit)
            && self.app.as_ref().is_none_or(|meant| meant == app)
    }
}
