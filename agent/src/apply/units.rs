//! Carries out the steps on units, each kind as one batch: systemd orders what depends on each other itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use spec::id::{AppName, UnitName, User};
use spec::journal;
use spec::memory::Run;
use spec::observed::InvocationId;
use spec::plan::{Action, Phase, Step, Verb, Why};

use super::{Blame, StepFailure, Work, unit_of};
use crate::ledger::LedgerError;
use crate::progress::Progress;
use crate::systemd::{self, JobError, Managers, Settled, Systemd};

/// What came of jobs.
type Results = BTreeMap<UnitName, Result<(), JobError>>;

/// How many of a failed service's last lines go into the failure.
pub(super) const LINES: usize = 20;

/// Stops units that are no longer wanted.
pub(super) async fn retire(work: &mut Work<'_>, rank: usize) {
    let plan = work.plan;
    let retires = |step: &&Step| matches!(step.action, Action::RetireUnit(_)) && plan.rank(step) == rank;
    let steps: Vec<&Step> = work.steps(Phase::Clear).into_iter().filter(retires).collect();
    let jobs = steps.iter().filter_map(|step| Some((unit_of(&step.action)?.clone(), systemd::Verb::Stop))).collect();
    let providers = &mut work.providers;
    let results = jobs_done(&mut providers.systemd, work.patience.job, work.progress, jobs).await;
    let Some(mut results) = results else {
        work.outcome.interrupted = true;
        return;
    };
    for step in steps {
        let Some(unit) = unit_of(&step.action) else { continue };
        match results.remove(unit) {
            Some(Err(error)) => work.failed(step, &error, ""),
            Some(Ok(())) | None => {
                // What failed before it was stopped would stay in systemd's memory as failed.
                if let Err(error) =
                    work.providers.systemd.of(unit.user()).reset_failed(std::slice::from_ref(unit)).await
                {
                    tracing::debug!(%unit, error = crate::chain(&error), "failed to reset a unit that goes");
                }
                journal::retired(&mut work.ledger.memory, unit);
                work.done(step);
            }
        }
    }
}

/// Removes the links of what goes while its text is still there: once the text is gone nothing tells that they were ours.
pub(super) async fn disable_unwanted(work: &mut Work<'_>) {
    let steps: Vec<&Step> = work
        .steps(Phase::Enable)
        .into_iter()
        .filter(|step| matches!((&step.action, &step.why), (Action::DisableUnit(_), Why::Unwanted)))
        .collect();
    link(work, &steps, false).await;
}

/// Makes and removes the links of `[Install]` sections.
pub(super) async fn enable(work: &mut Work<'_>) {
    for enable in [false, true] {
        let steps: Vec<&Step> = work
            .steps(Phase::Enable)
            .into_iter()
            .filter(|step| step.why != Why::Unwanted && matches!(step.action, Action::EnableUnit(_)) == enable)
            .collect();
        link(work, &steps, enable).await;
    }
}

async fn link(work: &mut Work<'_>, steps: &[&Step], enable: bool) {
    let units: Vec<UnitName> = steps.iter().filter_map(|step| unit_of(&step.action)).cloned().collect();
    if units.is_empty() {
        return;
    }
    let result = match enable {
        true => work.providers.systemd.host.enable(&units).await,
        false => work.providers.systemd.host.disable(&units).await,
    };
    for step in steps {
        let refused = result.as_ref().map(|refused| unit_of(&step.action).and_then(|unit| refused.get(unit)));
        match refused {
            Ok(None) => work.done(step),
            Ok(Some(error)) | Err(error) => work.failed(step, error, ""),
        }
    }
}

/// Tells each manager to read its unit files again, once.
pub(super) async fn reload(work: &mut Work<'_>) {
    for step in work.steps(Phase::Reload) {
        let user = match &step.action {
            Action::ReloadManager(user) => Some(user),
            _ => None,
        };
        if !work.units_changed.contains(&user.map(User::uid)) && matches!(step.why, Why::Changed(_)) {
            journal::reloaded(&mut work.ledger.memory, user);
            continue;
        }
        match work.providers.systemd.of(user).reload().await {
            Ok(()) => {
                journal::reloaded(&mut work.ledger.memory, user);
                work.done(step);
            }
            Err(error) => work.failed(step, &error, ""),
        }
        work.providers.forget_units();
    }
}

/// A job to ask for.
pub(super) struct Wanted<'a> {
    step: &'a Step,
    unit: &'a UnitName,
    verb: Verb,
    with: spec::memory::Inputs,
}

/// Writes down which units are about to be started or restarted, and the runs they are in now.
pub(super) async fn begin<'a>(work: &mut Work<'a>) -> Result<Vec<Wanted<'a>>, LedgerError> {
    let mut wanted: Vec<Wanted<'a>> = work
        .steps(Phase::Ensure)
        .into_iter()
        .filter_map(|step| match &step.action {
            Action::RunUnit { unit, verb, with, .. } => Some(Wanted { step, unit, verb: *verb, with: *with }),
            _ => None,
        })
        .collect();
    let starts = |it: &&Wanted<'_>| matches!(it.verb, Verb::Start | Verb::Restart);
    let names: Vec<UnitName> = wanted.iter().filter(starts).map(|it| it.unit.clone()).collect();
    if names.is_empty() {
        return Ok(wanted);
    }
    let (mut runs, mut starting) = (BTreeMap::new(), BTreeSet::new());
    for (user, names) in systemd::by_manager(names.clone(), |name| name) {
        match looked(work.providers.systemd.of(user.as_ref()), &names).await {
            Ok((seen, under_way)) => {
                runs.extend(seen);
                starting.extend(under_way);
            }
            Err(error) => {
                let (its, others): (Vec<_>, Vec<_>) =
                    wanted.into_iter().partition(|it| it.unit.user() == user.as_ref());
                its.iter().for_each(|it| work.failed(it.step, &error, ""));
                wanted = others;
            }
        }
    }
    let run = |unit: &UnitName| runs.get(unit).map(|(invocation, _)| invocation.clone());
    for it in wanted.iter_mut().filter(|it| it.verb == Verb::Restart) {
        let known = work.ledger.memory.units.get(it.unit).map(|known| &known.run);
        // An earlier pass asked for this very restart. It is under way, or happened since we looked: asking for a start
        // joins it, asking for a restart would make it two.
        if let Some(Run::Beginning { with, was }) = known
            && with.start == it.with.start
            && (starting.contains(it.unit) || run(it.unit).is_some_and(|now| Some(&now) != was.as_ref()))
        {
            it.verb = Verb::Start;
        }
    }
    let begun = wanted.iter().filter(starts).map(|it| (it.unit.clone(), it.with, run(it.unit)));
    journal::beginning(&mut work.ledger.memory, begun);
    let is_begun = |unit: &UnitName| wanted.iter().filter(starts).any(|it| it.unit == unit);
    let pulled = work.outcome.unit_images.iter().filter(|((_, unit), _)| is_begun(unit));
    let images = pulled.map(|((_, unit), ran)| (unit.clone(), ran.clone()));
    journal::run_anew(&mut work.ledger.memory, &names);
    journal::running(&mut work.ledger.memory, images);
    work.ledger.save()?;
    // Nobody else's failures are reset: a unit that is started for our change must not be held back by the last one.
    let names = wanted.iter().filter(starts).map(|it| it.unit.clone()).collect();
    for (user, names) in systemd::by_manager(names, |name| name) {
        if let Err(error) = work.providers.systemd.of(user.as_ref()).reset_failed(&names).await {
            tracing::debug!(error = crate::chain(&error), "failed to reset units before their start");
        }
    }
    Ok(wanted)
}

/// Looks at the current runs of units, and at which of them are on their way to another.
async fn looked(
    systemd: &mut Systemd,
    names: &[UnitName],
) -> Result<(BTreeMap<UnitName, (InvocationId, Option<Timestamp>)>, BTreeSet<UnitName>), systemd::Error> {
    Ok((systemd.runs(names).await?, systemd.starting(names).await?))
}

/// Asks for the jobs and waits for them. Writes nothing down: see [`take`].
pub(super) async fn run(
    systemd: &mut Managers,
    patience: Duration,
    progress: &Progress,
    wanted: &[Wanted<'_>],
) -> Option<Results> {
    let jobs = wanted.iter().map(|it| (it.unit.clone(), verb(it.verb))).collect();
    jobs_done(systemd, patience, progress, jobs).await
}

/// Writes down what came of the jobs; returns what was started and has to settle.
pub(super) async fn take<'a>(work: &mut Work<'a>, wanted: Vec<Wanted<'a>>, mut results: Results) -> Vec<Wanted<'a>> {
    let mut started = Vec::new();
    for it in wanted {
        match (results.remove(it.unit).unwrap_or(Ok(())), it.verb) {
            (Ok(()), Verb::Stop) => {
                journal::stopped(&mut work.ledger.memory, it.unit);
                work.done(it.step);
            }
            (Ok(()), Verb::Reload) => {
                let invocation = known_invocation(work, it.unit);
                journal::started(&mut work.ledger.memory, it.unit, it.with, invocation);
                work.done(it.step);
            }
            (Ok(()), Verb::Start | Verb::Restart) => started.push(it),
            (Err(error), verb) => {
                // What became of a job that was late, lost or replaced shows in the unit's run: the next pass judges by
                // that. Owing a restart here would end a start that only takes longer than we were ready to wait.
                let unclear = matches!(
                    error.why,
                    systemd::Why::TimedOut(_) | systemd::Why::Lost | systemd::Why::Canceled | systemd::Why::NotAsked
                );
                if matches!(verb, Verb::Start | Verb::Restart) && !unclear {
                    journal::not_started(&mut work.ledger.memory, it.unit);
                }
                let said = systemd::journal_tail(it.unit, None, LINES).await;
                work.failed(it.step, &error, &said);
            }
        }
    }
    started
}

/// Names what has to settle.
pub(super) fn names(started: &[Wanted<'_>]) -> Vec<UnitName> {
    started.iter().map(|it| it.unit.clone()).collect()
}

/// Writes down what came of watching what was started: a start counts only when it lasts.
pub(super) async fn settled(
    work: &mut Work<'_>,
    started: Vec<Wanted<'_>>,
    unproven: Vec<(AppName, UnitName)>,
    settled: Settled,
) {
    let (mut seen, mut lost) = (BTreeMap::new(), BTreeMap::new());
    for (user, settled) in settled {
        match settled {
            Ok(settled) => seen.extend(settled),
            Err(error) => drop(lost.insert(user, error)),
        }
    }
    let mut settled = seen;
    for it in started {
        if let Some(error) = lost.get(&it.unit.user().cloned()) {
            work.failed(it.step, error, "");
            continue;
        }
        match settled.remove(it.unit).unwrap_or(Ok(None)) {
            Ok(invocation) => {
                journal::started(&mut work.ledger.memory, it.unit, it.with, invocation);
                work.done(it.step);
            }
            Err(unsettled) => {
                journal::not_started(&mut work.ledger.memory, it.unit);
                let said = systemd::journal_tail(it.unit, unsettled.invocation.as_ref(), LINES).await;
                work.failed(it.step, &unsettled, &said);
            }
        }
    }
    for (app, unit) in unproven {
        if let Some(Err(unsettled)) = settled.remove(&unit) {
            journal::not_started(&mut work.ledger.memory, &unit);
            let said = systemd::journal_tail(&unit, unsettled.invocation.as_ref(), LINES).await;
            tracing::error!(app = app.as_str(), object = %unit, "{unsettled}");
            let failure = StepFailure { text: unsettled.to_string(), said, blame: Blame::Release };
            work.outcome.failed.entry(app).or_default().push(failure);
        }
    }
}

/// Runs jobs to their end; `None` when the agent is asked to stop and they take too long. They go on without us then,
/// nothing is noted of them, and the next pass joins what still runs and learns what ended.
async fn jobs_done(
    systemd: &mut Managers,
    patience: Duration,
    progress: &Progress,
    jobs: Vec<(UnitName, systemd::Verb)>,
) -> Option<Results> {
    if jobs.is_empty() {
        return Some(Results::new());
    }
    let mark = || progress.mark();
    tokio::select! {
        results = systemd.run(jobs, patience, &mark) => {
            Some(results.into_iter().map(|(unit, result)| (unit, result.map(|_| ()))).collect())
        }
        () = progress.overdue() => None,
    }
}

fn known_invocation(work: &Work<'_>, unit: &UnitName) -> Option<String> {
    match &work.ledger.memory.units.get(unit)?.run {
        Run::Started { invocation, .. } => invocation.clone(),
        _ => None,
    }
}

fn verb(verb: Verb) -> systemd::Verb {
    match verb {
        Verb::Start => systemd::Verb::Start,
        Verb::Restart => systemd::Verb::Restart,
        Verb::Reload => systemd::Verb::Reload,
        Verb::Stop => systemd::Verb::Stop,
    }
}
