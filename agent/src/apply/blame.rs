//! Sorts failures by whose fault they are: the release's, or that of what surrounds it.
//!
//! A release is to blame for what it makes systemd or the engine refuse and for what does not stay up. What could not be
//! fetched, written or asked is a circumstance, and so is everything that this file does not know.

use std::error::Error;

use spec::plan::{Phase, Step};

use super::containers::Trouble;
use crate::engine;
use crate::systemd::{self, JobError, Why};

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The release's: trying it again will end in the same way.
    Release,
    /// The network's, the disk's, the bus's or the engine's: it is tried again.
    Circumstances,
}

/// Says whose fault it is that a step failed.
pub(super) fn of(step: &Step, error: &(dyn Error + 'static)) -> Blame {
    // What concerns the whole host is not one release's fault, and a fetch disturbs nothing.
    if step.app.is_none() || step.action.phase() == Phase::Fetch {
        return Blame::Circumstances;
    }
    let is_release = if let Some(error) = error.downcast_ref::<systemd::Error>() {
        matches!(error, systemd::Error::Refused { .. })
    } else if let Some(error) = error.downcast_ref::<JobError>() {
        !matches!(error.why, Why::Lost | Why::NotAsked | Why::Canceled)
    } else if let Some(error) = error.downcast_ref::<engine::Error>() {
        is_refusal(error)
    } else if let Some(trouble) = error.downcast_ref::<Trouble>() {
        match trouble {
            Trouble::Engine(error) => is_refusal(error),
            // What it depends on is of the same application, and has a failure of its own if that is no fault of the release.
            Trouble::Dependency(_) => true,
        }
    } else if let Some(error) = error.downcast_ref::<engine::Unsettled>() {
        error.why != engine::Unrest::Gone
    } else {
        error.is::<systemd::Unsettled>()
    };
    if is_release { Blame::Release } else { Blame::Circumstances }
}

fn is_refusal(error: &engine::Error) -> bool {
    matches!(error, engine::Error::Refused { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use spec::id::{AppName, UnitName};
    use spec::plan::{Action, Why as Reason};

    use super::*;

    #[test]
    fn a_service_that_fails_is_the_releases_fault_and_an_absent_bus_is_not() {
        let unit = UnitName::parse("a.service").expect("a unit");
        let app = AppName::parse("a").ok();
        let step = |action| Step { app: app.clone(), action, why: Reason::New, reads: BTreeSet::new() };
        let start = step(Action::EnableUnit(unit.clone()));
        let job = |why| JobError { unit: unit.clone(), verb: systemd::Verb::Start, why };
        assert_eq!(of(&start, &job(Why::Failed)), Blame::Release);
        assert_eq!(of(&start, &job(Why::TimedOut(std::time::Duration::from_secs(90)))), Blame::Release);
        assert_eq!(of(&start, &job(Why::Lost)), Blame::Circumstances);
        let run_full = systemd::Error::RunFull { doing: "reload", words: String::new() };
        assert_eq!(of(&start, &run_full), Blame::Circumstances);
        let refused = || engine::Error::Refused { doing: "pull".into(), words: "no such tag".to_owned() };
        assert_eq!(of(&start, &refused()), Blame::Release);
        assert_eq!(of(&start, &Trouble::Engine(refused())), Blame::Release);
        assert_eq!(of(&start, &Trouble::Dependency("b is not healthy".to_owned())), Blame::Release);
        assert_eq!(of(&step(Action::PullImage("x".to_owned())), &refused()), Blame::Circumstances);
        assert_eq!(of(&start, &std::io::Error::other("full")), Blame::Circumstances);
    }
}
