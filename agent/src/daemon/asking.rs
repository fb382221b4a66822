//! What the loop asks of the repository, and what it makes of the answers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use spec::diagnostic::Diagnostic;
use spec::id::CommitId;
use spec::manifest;
use spec::plan;
use spec::trust::Require;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Daemon;
use crate::belief::{Past, Refusal};
use crate::board::Pulse;
use crate::git::{FetchError, Peers};
use crate::ledger::LedgerError;
use crate::pass::Host;
use crate::report::Notice;
use crate::source::Health;
use crate::trust::{self, Verdict};
use crate::upstream::{Done, LIMITS, Question};

/// Why a commit is not believed.
enum Disbelief {
    /// Who signed it was not checked yet, or for another case than is at hand now; that takes too long to be done here.
    Unjudged,
    /// It could not be read, or not be judged on this host, which may be over without another commit.
    Passing(String),
    /// It has mistakes, or is not for this host.
    Refused(String),
}

impl Daemon {
    /// Believes again what was believed before the agent ended: it is enforced with or without a network.
    pub(super) fn remember(&mut self) {
        let Some(commit) = self.host.ledger.memory.believed.clone() else { return };
        match self.read(&commit) {
            Ok(()) => info!(commit = commit.as_str(), "enforcing {}, which was believed before", commit.short()),
            Err(Disbelief::Passing(why) | Disbelief::Refused(why)) => warn!(
                commit = commit.as_str(),
                "{} was believed before and cannot be read; waiting for the repository: {why}",
                commit.short()
            ),
            // Nothing is judged that was believed.
            Err(Disbelief::Unjudged) => {}
        }
    }

    /// Takes in what the repository said.
    pub(super) async fn hear(&mut self, done: Option<Done>) -> Result<(), LedgerError> {
        if self.note_due {
            self.note()?;
        }
        match done {
            Some(Done::Fetched(fetched)) => {
                let looked = self.look_at_peers();
                self.count_refused();
                let wait = self.upstream.source().map(|source| self.schedule.wait(source.health(), fastrand::f64()));
                let poked = self.poll_at > self.fetch_began;
                if !poked {
                    self.poll_at = Instant::now() + wait.unwrap_or(self.schedule.interval);
                }
                let answered = fetched.is_ok().then_some(self.asked_at);
                let passed = self.fetched(fetched.map(|fetched| fetched.tip)).await?;
                if looked && !passed {
                    self.pass(plan::Patience::Wait).await?;
                }
                if let Some(at) = answered {
                    self.host.rollouts.polled(at);
                }
                self.synced();
                Ok(())
            }
            Some(Done::Pushed(pushed)) => {
                self.pushed(pushed);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells whoever asked for the newest commit that the host is at it, or cannot get there.
    fn synced(&mut self) {
        let done = self.syncing.take().map_or(Ok(()), |syncing| syncing.done(&self.settings.state));
        if let Err(error) = done {
            warn!(%error, "failed to remove a request that was taken up");
        }
    }

    /// Takes in what the branch is at. Says whether the host was looked at for it.
    async fn fetched(&mut self, fetched: Result<CommitId, FetchError>) -> Result<bool, LedgerError> {
        let pulse = &self.board.pulse;
        match fetched {
            Ok(tip) => {
                Pulse::count(&pulse.fetches);
                Pulse::now(&pulse.fetched_at);
                if self.notice.unreachable.take().is_some() {
                    info!("the repository answers again");
                }
                let believed = self.host.belief.as_ref().and_then(|belief| belief.commit.as_ref());
                if believed == Some(&tip) {
                    self.notice.refused = None;
                }
                let refused = self.notice.refused.as_ref().map(|(commit, _)| commit);
                if believed != Some(&tip) && refused != Some(&tip) || self.tip.is_some() {
                    self.tip = Some(tip);
                }
                if self.tip.is_some() {
                    self.consider();
                    self.pass(plan::Patience::Wait).await?;
                    if self.tip.is_none() && self.host.rollouts.lacks_view() {
                        self.poll_at = Instant::now();
                    }
                    return Ok(true);
                }
            }
            Err(FetchError::Cancelled { .. }) => {}
            Err(error) => {
                Pulse::count(&pulse.fetch_failures);
                let text = crate::chain(&error);
                if self.notice.unreachable.as_ref() != Some(&text) {
                    warn!("the repository could not be asked; what was believed stays enforced: {text}");
                }
                self.notice.unreachable = Some(text);
            }
        }
        self.keep_notice();
        Ok(false)
    }

    /// Asks the repository, and for the other hosts where something here waits for them.
    pub(super) fn fetch(&mut self) {
        (self.fetch_began, self.asked_at) = (Instant::now(), Timestamp::now());
        // Whoever asks from now on asks for another one; when that is due else follows from what comes of this one.
        self.poll_at = self.fetch_began;
        self.spread = 0.9 + fastrand::f64() / 5.0;
        let peers = self.host.asks(self.asked_at);
        if let (Some(Peers::All), Some(source)) = (&peers, self.upstream.source()) {
            source.mirror_mut().expect(self.host.members());
        }
        let question = Question { peers, ..question(&mut self.host, &self.notice, self.tip.as_ref()) };
        self.upstream.fetch(question);
    }

    /// Takes in what came of asking for the other hosts. Says whether anything did.
    fn look_at_peers(&mut self) -> bool {
        if self.upstream.is_busy() {
            return false;
        }
        let Some((whom, asked)) = self.upstream.peers() else { return false };
        let Some(source) = self.upstream.source() else { return false };
        self.host.look_at_peers(source.mirror(), &whom, asked);
        true
    }

    /// Counts what was left out of what other hosts are to have said.
    fn count_refused(&mut self) {
        let Some(source) = self.upstream.source() else { return };
        let (mirror, ears) = (source.mirror(), &self.host.ears);
        let ignored = ears.ignored().into_iter().chain(mirror.deaf_to().cloned()).collect::<BTreeSet<_>>().len();
        self.board.pulse.ignored.store(ignored as u64, Ordering::Relaxed);
        self.board.pulse.refused.store(ears.count() + mirror.left_out(), Ordering::Relaxed);
    }

    /// Returns when the repository is asked next: sooner while something here waits for other hosts.
    pub(super) fn poll_due(&mut self) -> Instant {
        let quick = self.host.rollouts.interval(self.settings.poll);
        let is_well = self.upstream.source().is_some_and(|source| source.health() == Health::Well);
        match quick < self.settings.poll && is_well {
            true => self.poll_at.min(self.fetch_began + quick.mul_f64(self.spread)),
            false => self.poll_at,
        }
    }

    /// Believes the tip, or says why not; what was believed stays enforced then.
    fn consider(&mut self) {
        let Some(tip) = self.tip.take() else { return };
        match self.read(&tip) {
            Ok(()) => {
                let subject = self.upstream.subject(&tip);
                info!(commit = tip.as_str(), "believed {} {subject}", tip.short());
                self.notice.refused = None;
            }
            Err(Disbelief::Unjudged) => (self.tip, self.poll_at) = (Some(tip), Instant::now()),
            Err(Disbelief::Passing(why)) => {
                let refused = Some((tip.clone(), format!("{why}; it is tried again")));
                if self.notice.refused != refused {
                    error!(commit = tip.as_str(), "{} cannot be believed now; it is tried again: {why}", tip.short());
                }
                (self.notice.refused, self.tip) = (refused, Some(tip));
            }
            Err(Disbelief::Refused(why)) => {
                error!(commit = tip.as_str(), "refused {}; the last good state stays enforced: {why}", tip.short());
                self.notice.refused = Some((tip, why));
            }
        }
        self.keep_notice();
    }

    fn read(&mut self, commit: &CommitId) -> Result<(), Disbelief> {
        if self.upstream.is_busy() {
            return Err(Disbelief::Unjudged);
        }
        let judged = self.upstream.judged();
        let Some(source) = self.upstream.source() else { return Err(Disbelief::Unjudged) };
        // Before anything else of it is read: it may have been made to be hard to read. Mistakes are told to who may sign.
        let mut unclear = None;
        if self.host.ledger.memory.believed.as_ref() != Some(commit) {
            match self.host.heeds(judged, commit) {
                Ok(Some(verdict)) => tell(&verdict),
                Ok(None) => return Err(Disbelief::Unjudged),
                Err(refusal) if refusal.is_passing() => {
                    return Err(Disbelief::Passing(crate::chain(&refusal)));
                }
                Err(refusal @ trust::Refusal::Unclear { .. }) if self.host.may_be_told(source.mirror(), commit) => {
                    unclear = Some(refusal);
                }
                Err(refusal) => return Err(Disbelief::Refused(crate::chain(&refusal))),
            }
        }
        let tree = source.mirror().tree(commit, &LIMITS);
        let tree = tree.map_err(|error| Disbelief::Passing(crate::chain(&error)))?;
        if let Some(unclear) = unclear {
            // Most likely it has a mistake, which is better told as one.
            let mistakes = manifest::parse(&tree, Some(commit)).diagnostics;
            let why = match mistakes.iter().any(Diagnostic::is_error) {
                true => format!("{}; `mainstay check` shows them all", Refusal::Mistakes(mistakes)),
                false => unclear.to_string(),
            };
            return Err(Disbelief::Refused(why));
        }
        let past = Past { mirror: source.mirror(), limits: LIMITS };
        match self.host.believe(&tree, Some(commit.clone()), Some(&past)) {
            Ok(warnings) => {
                self.notice.trust = self.host.standing(source.mirror(), commit);
                warnings.iter().for_each(|warning| warn!(commit = commit.as_str(), "{warning}"));
                Ok(())
            }
            Err(refusal @ Refusal::Mistakes(_)) => {
                Err(Disbelief::Refused(format!("{refusal}; `mainstay check` shows them all")))
            }
            Err(refusal) => Err(Disbelief::Refused(refusal.to_string())),
        }
    }
}

/// Asks for the newest commit, and whether it is to be believed: whoever can push has a say in how long that takes, and no change of this
/// host waits for it. One that was refused for good is not judged again, unless it is `open`.
pub(super) fn question(host: &mut Host, notice: &Notice, open: Option<&CommitId>) -> Question {
    let refused = notice.refused.as_ref().map(|(commit, _)| commit).filter(|commit| open != Some(commit));
    let known = host.ledger.memory.believed.iter().chain(refused).cloned().collect();
    // Why there is none is said when a commit is to be believed.
    let case = host.case().ok().map(|case| (case, known));
    Question { keep: host.commits(), peers: None, case }
}

/// Says which signatures were asked for, loudly where there are none.
fn tell(verdict: &Verdict) {
    match verdict.trust.require {
        Require::None => warn!(
            "nobody has to sign commits here: whoever can push to the branch is root on this host; see `trust` in README"
        ),
        Require::Tip | Require::EveryCommit => {
            info!(commits = verdict.commits, require = ?verdict.trust.require, "signatures hold");
        }
    }
}
