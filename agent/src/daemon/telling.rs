//! What the loop tells others of this host: its record, its signs of life, and what `mainstay status` is to know.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, warn};

use super::{Daemon, far};
use crate::board::Pulse;
use crate::git::{PushError, Pushed};
use crate::identity;
use crate::ledger::LedgerError;
use crate::report;

/// The first wait before a failed push is tried again; doubled with each further failure.
const PUSH_AGAIN: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to push.
const PUSH_LATEST: Duration = Duration::from_secs(900);

impl Daemon {
    /// Writes the record when it says something new, and lets it be pushed. While a conversation with the repository
    /// holds the mirror, the record waits for its end.
    pub(super) fn note(&mut self) -> Result<(), LedgerError> {
        self.note_due = self.upstream.is_busy();
        if self.note_due {
            return Ok(());
        }
        let Some(belief) = self.host.aim() else { return Ok(()) };
        let memory = &self.host.ledger.memory;
        let Some(mut record) = report::record(memory, belief, &self.host.name, Timestamp::now()) else { return Ok(()) };
        self.host.rollouts.announce(&mut record);
        self.host.lookout.announce(&mut record);
        if !self.upstream.is_news(&mut record) {
            self.announced = self.host.rollouts.announced();
            return Ok(());
        }
        // The number is used up before the record exists: none is ever used twice.
        self.host.ledger.memory.counter = record.counter;
        self.host.ledger.save()?;
        match self.upstream.note(&record) {
            Ok(()) => {
                self.announced = self.host.rollouts.announced();
                self.push_at = Some(Instant::now());
                self.push_failures = 0;
            }
            Err(error) => warn!("failed to write the record: {}", crate::chain(&error)),
        }
        Ok(())
    }

    pub(super) fn push(&mut self) {
        if self.upstream.is_busy() {
            return;
        }
        self.push_at = None;
        if !self.settings.report.push {
            return;
        }
        let is_quiet = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() >= every);
        let due = is_quiet(self.seen_at, self.settings.report.heartbeat)
            || self.host.rollouts.heartbeat().is_some_and(|every| is_quiet(self.sign_at, every));
        let believed = self.host.ledger.memory.believed.clone();
        if due && believed.is_some() {
            self.seen_at = Some(Instant::now());
        }
        let name = self.host.name.clone();
        (self.offered, self.sign_at) = ((self.announced.clone(), Timestamp::now()), Some(Instant::now()));
        let spare = self.poll_due().saturating_duration_since(Instant::now());
        self.upstream.push(&name, believed, due, spare);
    }

    pub(super) fn pushed(&mut self, pushed: Result<Pushed, PushError>) {
        let pulse = &self.board.pulse;
        match pushed {
            Ok(pushed) => {
                let (announced, at) = &self.offered;
                let is_first = pushed == Pushed::Done && self.host.rollouts.signed(*at);
                self.host.lookout.signed();
                // Before it begins, what the others said until then is looked at.
                if self.host.rollouts.seen(announced, Timestamp::now()) {
                    self.poll_at = Instant::now();
                }
                if is_first {
                    self.look_at = Instant::now();
                }
                Pulse::count(&pulse.pushes);
                Pulse::now(&pulse.pushed_at);
                self.push_failures = 0;
                // A record that was written while this push was under way is due at once.
                let next = Instant::now() + self.settings.report.heartbeat;
                self.push_at = Some(self.push_at.map_or(next, |at| at.min(next)));
                let left_out = self.left_out();
                if let Some(why) = left_out.as_ref().filter(|_| self.notice.unreported != left_out) {
                    warn!("{why}");
                }
                self.notice.unreported = left_out;
            }
            Err(error) => {
                Pulse::count(&pulse.push_failures);
                let text = crate::chain(&error);
                if self.notice.unreported.as_ref() != Some(&text) {
                    warn!("the record could not be pushed; it is kept and pushed later: {text}");
                }
                self.notice.unreported = Some(text);
                if matches!(error, PushError::Denied { .. }) {
                    self.host.rollouts.denied();
                    self.host.lookout.denied();
                }
                (self.seen_at, self.sign_at) = (None, None);
                self.push_failures = self.push_failures.saturating_add(1);
                let doubled = PUSH_AGAIN.saturating_mul(1 << self.push_failures.min(10)).min(PUSH_LATEST);
                self.push_at = Some(Instant::now() + doubled.mul_f64(0.5 + fastrand::f64() / 2.0));
            }
        }
        self.keep_notice();
    }

    /// Says why others leave out what this host says, if they do.
    fn left_out(&self) -> Option<String> {
        let named = self.host.belief.as_ref()?.keys.get(&self.host.name)?;
        identity::left_out(Some(named), self.upstream.identity())
    }

    /// Returns when the next push is due: sooner while others may wait for a sign of life.
    pub(super) fn push_due(&self) -> Instant {
        let usual = self.push_at.unwrap_or_else(far);
        match self.host.rollouts.heartbeat() {
            Some(every) if self.push_failures == 0 && self.settings.report.push => {
                usual.min(self.sign_at.map_or_else(Instant::now, |at| at + every))
            }
            _ => usual,
        }
    }

    pub(super) fn keep_notice(&mut self) {
        let now = Timestamp::now();
        self.notice.stale = self.notice.trust.as_ref().and_then(|trust| trust.stale(now));
        if let Some(stale) = self.notice.stale.as_ref().filter(|stale| self.noted.stale.as_ref() != Some(stale)) {
            error!("the branch is stale: {stale}");
        }
        if self.notice != self.noted {
            if let Err(error) = self.notice.write(&self.settings.state) {
                warn!(%error, "failed to write the notice for `mainstay status`");
            }
            self.noted = self.notice.clone();
            self.board.notice(&self.notice);
        }
    }
}
