//! The signs of life of the host that asks, and whether others may have taken it for silent.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The signs of life of the host that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// It reports to nobody.
    Unreported,
    /// It has not been able to say anything yet.
    None,
    /// They are there.
    Since {
        /// When the first was pushed of those that followed each other without a gap.
        first: Timestamp,
        /// When the last was pushed.
        last: Timestamp,
        /// Whether others may have taken it for silent before the first.
        ///
        /// They count from when they saw the release at the earliest. So it was away when more than three quarters of
        /// `silent-after` lie between its last answer from the repository before it saw the release and the first sign, or when
        /// there was a gap of more than half of `silent-after` after it saw the release. A gap from before is none: hosts that
        /// have nothing to do are quiet.
        was_away: bool,
    },
}

/// Signs of life that followed each other without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// The last one before the gap.
    pub before: Option<Timestamp>,
}

/// A release of an application that spreads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spreading {
    /// Which.
    pub release: Digest,
    /// Since when it is known.
    pub seen: Timestamp,
    /// When the repository answered last before that: nobody can have waited for this host longer.
    pub polled: Option<Timestamp>,
}

impl Row {
    /// Adds a sign that was given at `at` to those before, if there are any and no gap is between them.
    #[must_use]
    pub fn with(before: Option<Row>, at: Timestamp, silent_after: Duration) -> Row {
        let longest = SignedDuration::try_from(silent_after / 2).unwrap_or(SignedDuration::MAX);
        match before {
            Some(row) if at.duration_since(row.last) <= longest => Row { last: at, ..row },
            Some(row) => Row { first: at, last: at, before: Some(row.last) },
            None => Row { first: at, last: at, before: None },
        }
    }

    /// Says what these mean for a release, if its spreading is known.
    pub fn signs(&self, spreading: Option<&Spreading>, silent_after: Duration) -> Signs {
        let silent_after = SignedDuration::try_from(silent_after).unwrap_or(SignedDuration::MAX);
        // Everybody counts from when they saw the release at the earliest, so what was before matters to nobody.
        let was_away = spreading.is_none_or(|spreading| {
            let late = spreading.polled.is_none_or(|polled| self.first.duration_since(polled) > silent_after / 4 * 3);
            let has_gap = self.before.is_some_and(|before| before >= spreading.seen);
            late || has_gap
        });
        Signs::Since { first: self.first, last: self.last, was_away }
    }
}
