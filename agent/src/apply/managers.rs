//! Has the managers of users run before anything is asked of them, and left running without a login.

use std::collections::BTreeMap;

use spec::id::{UnitName, User};
use spec::plan::{Action, Phase, Step};

use super::Work;
use crate::systemd::Verb;

/// Carries out the steps on managers. What fails here fails its application before anything of it is changed.
pub(super) async fn prepare(work: &mut Work<'_>) {
    for step in work.steps(Phase::Prepare) {
        match &step.action {
            Action::Linger(user) => match work.providers.systemd.host.linger(user).await {
                Ok(()) => work.done(step),
                Err(error) => work.failed(step, &error, ""),
            },
            Action::StartManager(user) => start(work, step, user).await,
            _ => {}
        }
    }
}

/// Starts a user's manager, and waits until it answers: systemd calls it started when it says that it is ready.
async fn start(work: &mut Work<'_>, step: &Step, user: &User) {
    let (patience, progress) = (work.patience.job, work.progress);
    let jobs = vec![(user.manager(), Verb::Start)];
    let mark = || progress.mark();
    let mut ran: BTreeMap<UnitName, _> = tokio::select! {
        ran = work.providers.systemd.run(jobs, patience, &mark) => ran,
        () = progress.overdue() => {
            work.outcome.interrupted = true;
            return;
        }
    };
    match ran.remove(&user.manager()) {
        Some(Err(error)) => work.failed(step, &error, ""),
        Some(Ok(_)) | None => work.done(step),
    }
}
