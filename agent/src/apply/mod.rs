//! Carries a plan out, phase by phase, and writes down before and after each what a kill must not lose.
//!
//! No judgement about what should be: the plan says it. A failed step fails its application, whose later steps are
//! skipped; the others go on. Nothing changes on the host unless the ledger could be written first.

mod adoption;
mod artifacts;
mod containers;
mod blame;
mod files;
mod managers;
mod quadlets;
mod remedy;
mod texts;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use spec::desired::{Desired, FileKind, UnitGoal};
use spec::id::{AppName, ContainerName, HostPath, ResourceId, UnitName, shown};
use spec::journal;
use spec::memory::Ran;
use spec::observed::FileState;
use spec::plan::{Action, Lesson, Phase, Plan, Step};
use tracing::{error, info};

pub use blame::Blame;

use crate::disk::Disk;
use crate::ledger::{Ledger, LedgerError};
use crate::observe::Providers;
use crate::progress::Progress;

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one start, stop or reload.
    pub job: Duration,
    /// For one image.
    pub pull: Duration,
    /// For how long what was started is watched.
    pub settle: Duration,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many steps were done, by application; `None` counts those of the whole host.
    pub done: BTreeMap<Option<AppName>, usize>,
    /// What failed, by application.
    pub failed: BTreeMap<AppName, Vec<StepFailure>>,
    /// Checks that do not pass although the application is back at its last good release, in words.
    pub unwell: BTreeMap<AppName, String>,
    /// Applications whose checks were not tried to the end.
    pub unchecked: BTreeSet<AppName>,
    /// The digest of the image of each container that was created.
    pub images: BTreeMap<ContainerName, String>,
    /// The image that each service of a quadlet was started with.
    pub unit_images: BTreeMap<(AppName, UnitName), Ran>,
    /// The agent was asked to stop in between: what is left is owed.
    pub interrupted: bool,
}

/// A step that failed.
#[derive(Clone, Debug)]
pub struct StepFailure {
    /// What was tried, on what, and why it failed: one line, our own words and systemd's or the engine's.
    pub text: String,
    /// The last lines that the service or container itself printed; may be empty. Never published.
    pub said: String,
    /// Whose fault it is.
    pub blame: Blame,
}

/// A plan being carried out.
struct Work<'a> {
    plan: &'a Plan,
    desired: &'a Desired,
    providers: &'a mut Providers,
    ledger: &'a mut Ledger,
    patience: Patience,
    progress: &'a Progress,
    outcome: Outcome,
    /// Whose unit files or their links did change, root's or those of a user: what a failed application was spared needs no
    /// reload.
    units_changed: BTreeSet<Option<u32>>,
    /// Applications that stay because one that needs them could not go.
    spared: BTreeSet<AppName>,
    /// Paths that this plan was to write and that are not in place: nothing that reads them may start.
    missing: BTreeSet<HostPath>,
    /// Applications whose containers were touched.
    begun: BTreeSet<AppName>,
}

/// Carries `plan` out.
///
/// # Errors
/// The ledger could not be written. What had been done until then is on the host, and the next pass sees it.
pub async fn apply(
    plan: &Plan,
    desired: &Desired,
    providers: &mut Providers,
    ledger: &mut Ledger,
    patience: Patience,
    progress: &Progress,
) -> Result<Outcome, LedgerError> {
    // Taken before the plan's lessons drop claims on what was not made.
    let ours = files::ours(&ledger.memory, desired);
    let mut work = Work {
        plan,
        desired,
        providers,
        ledger,
        patience,
        progress,
        outcome: Outcome::default(),
        units_changed: BTreeSet::new(),
        spared: BTreeSet::new(),
        missing: written_by(plan),
        begun: BTreeSet::new(),
    };
    let known = containers::known(plan, &work.ledger.memory);
    journal::begin(&mut work.ledger.memory, plan, desired);
    for step in &plan.steps {
        if let (Action::WriteFile(path, FileState::Absent), Some(app)) = (&step.action, &step.app) {
            journal::making(&mut work.ledger.memory, app, Disk::missing_parents(path));
        }
    }
    work.ledger.save()?;
    files::sweep(work.providers, &ours);
    if !plan.steps.is_empty() || !work.unproven().is_empty() {
        work.carry_out().await?;
    }
    containers::spare(&mut work, known);
    let failed = work.unfinished();
    journal::settle(&mut work.ledger.memory, desired, plan, &failed, Timestamp::now());
    journal::forget_apps(&mut work.ledger.memory, desired);
    work.ledger.save()?;
    Ok(work.outcome)
}

impl<'a> Work<'a> {
    async fn carry_out(&mut self) -> Result<(), LedgerError> {
        texts::prove(self).await;
        quadlets::prove(self).await;
        managers::prepare(self).await;
        containers::pull(self).await;
        quadlets::pull(self).await;
        artifacts::fetch(self).await;
        if self.is_stopped() {
            return Ok(());
        }
        if !self.clear().await {
            return Ok(());
        }
        units::disable_unwanted(self).await;
        texts::unlink_gone(self);
        files::remove(self);
        texts::unlink_stale(self);
        files::write(self);
        units::enable(self).await;
        units::reload(self).await;
        if self.is_stopped() {
            return Ok(());
        }
        self.hold_back();
        containers::provide(self).await;
        adoption::note(self).await?;
        let runs = units::begin(self).await?;
        Box::pin(self.ensure(runs)).await;
        Ok(())
    }

    /// Stops what goes: first the applications that need others, then these. Says whether to go on.
    async fn clear(&mut self) -> bool {
        for rank in 0..=self.plan.ranks.values().copied().max().unwrap_or(0) {
            units::retire(self, rank).await;
            if self.outcome.interrupted {
                return false;
            }
            containers::remove(self, rank).await;
            let apps = &self.ledger.memory.apps;
            let failed = self.outcome.failed.keys().chain(&self.spared).filter_map(|app| apps.get(app));
            let spared: Vec<AppName> = failed.flat_map(|known| known.needs.iter().cloned()).collect();
            self.spared.extend(spared.into_iter().filter(|app| self.plan.ranks.contains_key(app)));
        }
        containers::remove_networks(self).await;
        true
    }

    /// Starts and restarts, and watches all of it in one window. Containers are made one after another beside the jobs of
    /// systemd, which keep another processor busy; only those of an application with units of its own wait for these.
    async fn ensure(&mut self, runs: Vec<units::Wanted<'a>>) {
        let (window, job, progress, desired) = (self.patience.settle, self.patience.job, self.progress, self.desired);
        let (apart, _) = containers::sorted(self);
        self.begun.extend(apart.iter().filter_map(|step| step.app.clone()));
        let Providers { systemd, engine, .. } = &mut *self.providers;
        let making = containers::make(engine, desired, progress, apart);
        let (results, made) = tokio::join!(units::run(systemd, job, progress, &runs), making);
        let Some(results) = results else {
            // Asked to stop, and the jobs take too long: they go on without us, and the next pass learns what came of them.
            self.outcome.interrupted = true;
            containers::take(self, made).await;
            return;
        };
        // Who has units comes second, and not at all if one of these failed.
        let started = units::take(self, runs, results).await;
        let (_, after) = containers::sorted(self);
        self.begun.extend(after.iter().filter_map(|step| step.app.clone()));
        let mut created = containers::take(self, made).await;
        let made = containers::make(&self.providers.engine, desired, progress, after).await;
        created.extend(containers::take(self, made).await);
        let unproven = self.unproven();
        let begun = units::names(&started);
        let (mut units, containers) = (begun.clone(), containers::watched(desired, &created));
        units.extend(unproven.iter().map(|(_, unit)| unit.clone()));
        let Providers { systemd, engine, .. } = &mut *self.providers;
        let settling = async { tokio::join!(systemd.settle(&units, window), engine.settle(&containers, window)) };
        let Some((units, containers)) = progress.within_reason(settling).await else {
            // What settles without us is seen as running by the next pass.
            self.outcome.interrupted = true;
            return;
        };
        units::settled(self, started, unproven, units).await;
        quadlets::look(self, &begun).await;
        containers::settled(self, created, containers).await;
    }

    /// Names the units of releases that were not reached yet which turned out to run: an earlier pass started them, and was
    /// killed before it was known whether they stay up.
    fn unproven(&self) -> Vec<(AppName, UnitName)> {
        let runs = self.plan.lessons.iter().filter_map(|lesson| match lesson {
            Lesson::Runs(unit, app, ..) => Some((app, unit)),
            _ => None,
        });
        let unproven = runs.filter(|(app, unit)| {
            let Some(wanted) = self.desired.apps.get(*app) else { return false };
            let is_reached = self.ledger.memory.apps.get(*app).is_some_and(|it| it.is_reached(wanted.digest));
            let should_run = wanted.units.get(*unit).is_some_and(|it| it.state == Some(UnitGoal::Running));
            should_run && !is_reached && !self.outcome.failed.contains_key(*app)
        });
        unproven.map(|(app, unit)| (app.clone(), unit.clone())).collect()
    }

    /// Says whether the agent was asked to stop; what is not done yet stays owed.
    fn is_stopped(&mut self) -> bool {
        self.progress.mark();
        if self.progress.is_stopping() {
            info!("stopping between two phases; what is left is done when the agent is back");
            self.outcome.interrupted = true;
        }
        self.outcome.interrupted
    }

    /// Names the applications of which not every step was done.
    fn unfinished(&self) -> BTreeSet<AppName> {
        let all = self.plan.steps.iter().filter(|_| self.outcome.interrupted).filter_map(|step| step.app.clone());
        all.chain(self.outcome.failed.keys().cloned()).chain(self.spared.iter().cloned()).collect()
    }

    /// Returns the steps of a phase whose application has not failed.
    fn steps(&self, phase: Phase) -> Vec<&'a Step> {
        let failed: BTreeSet<&AppName> = self.outcome.failed.keys().chain(&self.spared).collect();
        let plan: &'a Plan = self.plan;
        plan.phase(phase).filter(|step| step.app.as_ref().is_none_or(|app| !failed.contains(app))).collect()
    }

    /// Fails what would start without a file that it reads: it would be remembered as started with it.
    fn hold_back(&mut self) {
        for step in self.steps(Phase::Ensure) {
            let is_missing = |path: &&HostPath| {
                let is_archive =
                    self.desired.file(path).is_some_and(|file| matches!(file.kind, FileKind::Archive { .. }));
                let lacks_a_part = || self.missing.iter().any(|missing| missing.is_below(path.as_str()));
                self.missing.contains(*path) || (is_archive && lacks_a_part())
            };
            if let Some(path) = step.reads.iter().find(is_missing) {
                let why = format!("it waits for {path}, which could not be put in place");
                self.failed_with(step, &why, "");
            }
        }
    }

    fn done(&mut self, step: &Step) {
        self.progress.mark();
        if let Action::WriteFile(path, _) = &step.action {
            self.missing.remove(path);
        }
        info!(
            app = step.app.as_ref().map(AppName::as_str),
            verb = step.action.verb(),
            object = step.action.object(),
            why = %step.why,
            "{step}"
        );
        match &step.action {
            Action::WriteFile(path, _) | Action::RemoveFile(path, _) if path.is_of_a_unit() => {
                self.units_changed.insert(path.quadlet_uid());
            }
            Action::EnableUnit(_) | Action::DisableUnit(_) => {
                self.units_changed.insert(None);
            }
            _ => {}
        }
        *self.outcome.done.entry(step.app.clone()).or_default() += 1;
    }

    /// Notes a failed step: it fails its application, or every application of the plan when it concerns the whole host.
    fn failed(&mut self, step: &Step, error: &(dyn std::error::Error + 'static), said: &str) {
        self.failed_for(step, &crate::chain(error), said, blame::of(step, error));
    }

    /// Notes a step that could not be tried.
    fn failed_with(&mut self, step: &Step, why: &str, said: &str) {
        self.failed_for(step, why, said, Blame::Circumstances);
    }

    fn failed_for(&mut self, step: &Step, why: &str, said: &str, blame: Blame) {
        self.progress.mark();
        let (verb, object) = (step.action.verb(), step.action.object());
        let why = remedy::added(why, &object);
        // The clients' errors say themselves what they were doing, and to what.
        let text = if why.starts_with("failed to ") || why.contains(&object) {
            why
        } else {
            format!("failed to {verb} {object}: {why}")
        };
        let lines: Vec<String> = said.lines().map(|line| format!("  | {}", shown(line))).collect();
        error!(
            app = step.app.as_ref().map(AppName::as_str),
            verb,
            object,
            "{}",
            [std::slice::from_ref(&text), &lines].concat().join("\n")
        );
        let apps: Vec<AppName> = match &step.app {
            Some(app) => vec![app.clone()],
            None => {
                self.plan.steps.iter().filter_map(|it| it.app.clone()).filter(|app| self.concerns(step, app)).collect()
            }
        };
        for app in BTreeSet::from_iter(apps) {
            let failure = StepFailure { text: text.clone(), said: said.to_owned(), blame };
            self.outcome.failed.entry(app).or_default().push(failure);
        }
    }

    /// Says whether a step that is not for one application alone is for this one: each user's manager is for that user's.
    fn concerns(&self, step: &Step, app: &AppName) -> bool {
        let Action::ReloadManager(user) = &step.action else { return true };
        let wanted = self.desired.apps.get(app).map(|wanted| wanted.user.as_ref());
        wanted.is_none_or(|it| it == Some(user))
    }

    /// Notes a removal that was done.
    fn removed(&mut self, step: &Step, id: &ResourceId) {
        journal::removed(&mut self.ledger.memory, id);
        self.done(step);
    }
}

/// Names every path that a plan writes.
fn written_by(plan: &Plan) -> BTreeSet<HostPath> {
    let paths = plan.steps.iter().filter_map(|step| match &step.action {
        Action::WriteFile(path, _) => Some(path.clone()),
        _ => None,
    });
    paths.collect()
}

/// Returns the step's unit, for the actions on units alone.
fn unit_of(action: &Action) -> Option<&UnitName> {
    match action {
        Action::RetireUnit(unit)
        | Action::DisableUnit(unit)
        | Action::EnableUnit(unit)
        | Action::RunUnit { unit, .. } => Some(unit),
        _ => None,
    }
}
