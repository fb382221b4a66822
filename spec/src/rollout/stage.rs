//! How far one host is on its way to a release, by what it published.

use std::time::Duration;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::id::{AppName, CommitId};
use crate::memory::AppState;
use crate::record::{AppRecord, Record};

/// How far a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun.
    Waiting,
    /// It has begun, and is not healthy.
    Changing,
    /// It is healthy, not for long enough.
    Baking,
    /// It is there.
    Done,
    /// The release failed there, and it went back.
    Failed,
    /// The release failed there, and what was there before does not run either.
    Down,
    /// It began long ago, and has not come to an end.
    Stuck,
    /// It is not there, and has said nothing for too long.
    Silent,
    /// It is not there, could have been for long, and says that it is on its way.
    Idle,
    /// It is not there, and the repository holds it back.
    Held,
}

impl Stage {
    /// Says whether it is not available because of the change, and somebody may yet wait for that to end. One that came to no end in time
    /// is among the failures, which a policy allows so many of.
    pub fn is_changing(self) -> bool {
        matches!(self, Stage::Changing | Stage::Down)
    }

    /// Says whether the release failed there, or came to no end.
    pub fn has_failed(self) -> bool {
        matches!(self, Stage::Failed | Stage::Down | Stage::Stuck)
    }

    /// Says whether the waves behind it wait for it.
    pub fn is_open(self) -> bool {
        matches!(self, Stage::Waiting | Stage::Changing | Stage::Baking)
    }

    /// Returns how far a host counts that said so and was `heard` last some time ago, while a release is known `since`. What is
    /// there, or failed, is so whether the host goes on to say it or not.
    #[must_use]
    pub fn unless_silent(
        self,
        heard: Option<Timestamp>,
        silent_after: Duration,
        since: Timestamp,
        now: Timestamp,
    ) -> Stage {
        if matches!(self, Stage::Done | Stage::Failed) {
            return self;
        }
        // A host has as long from when this one saw the commit: that is when it began to be waited for.
        let heard = heard.map_or(since, |heard| heard.max(since));
        let quiet = Duration::try_from(now.duration_since(heard)).unwrap_or_default();
        if quiet > silent_after { Stage::Silent } else { self }
    }
}

/// What is known of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The last record that counts, if there is one.
    pub record: Option<Record>,
    /// When it gave its last sign of life, as far as this host saw.
    pub heard: Timestamp,
}

/// Says how far `peer` is on the way to `target` at `commit`, which this host has seen `since`.
pub fn stage(
    peer: Option<&Peer>,
    release: (&AppName, Option<Digest>, &CommitId),
    silent_after: Duration,
    since: Timestamp,
    now: Timestamp,
) -> Stage {
    let record = peer.and_then(|peer| peer.record.as_ref());
    let said = record.map_or(Stage::Waiting, |record| said(record, release));
    said.unless_silent(peer.map(|peer| peer.heard), silent_after, since, now)
}

/// Says how far a host is on the way to `target` at `commit` by its record, whenever that was heard.
///
/// A record counts for the release when its digest is the one that is expected there, or when it is of this very commit: an agent of
/// another version may count its digests in another way.
pub fn said(record: &Record, (app, target, commit): (&AppName, Option<Digest>, &CommitId)) -> Stage {
    let (known, is_at) = (record.apps.get(app), record.commit == *commit);
    match (target, known) {
        (None, None) => Stage::Done,
        // What is still there of an application that goes has begun to go, or changes to what it was to be before; or waits.
        (None, Some(known)) if known.state == AppState::Applying => Stage::Changing,
        (None, Some(known)) if is_at && known.state == AppState::Failed => Stage::Down,
        (None, Some(_)) => Stage::Waiting,
        (Some(_), None) => Stage::Waiting,
        (Some(target), Some(known)) if known.digest == target || (is_at && known.runs.is_none()) => match known.bad {
            Some(bad) if bad == known.digest => failed(known),
            _ => going(known),
        },
        // It went back, and says which release it does not want.
        (Some(target), Some(known)) if known.bad == Some(target) || (is_at && known.bad.is_some()) => failed(known),
        // To whatever it changes, it is not available. It says so until it has seen this commit, and no longer.
        (Some(_), Some(known)) if known.state == AppState::Applying => Stage::Changing,
        (Some(_), Some(_)) => Stage::Waiting,
    }
}

fn going(known: &AppRecord) -> Stage {
    match known.state {
        AppState::Waiting => Stage::Waiting,
        AppState::Applying | AppState::Unhealthy => Stage::Changing,
        AppState::Baking => Stage::Baking,
        // It went back from another release to this one.
        AppState::Converged | AppState::Repaired | AppState::Drifted | AppState::RolledBack => Stage::Done,
        AppState::Failed => failed(known),
    }
}

fn failed(known: &AppRecord) -> Stage {
    match known.state {
        AppState::Failed | AppState::Unhealthy | AppState::Applying => Stage::Down,
        _ => Stage::Failed,
    }
}
