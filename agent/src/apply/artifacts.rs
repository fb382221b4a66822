//! Carries out the steps that fetch artifacts.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use spec::artifact::Origin;
use spec::plan::{Action, Phase, Step};

use super::Work;

/// How many artifacts are fetched at once.
const FETCHES: usize = 3;

/// Fetches artifacts, a few at a time; nothing is disturbed by it, and a failure leaves the application as it is.
pub(super) async fn fetch(work: &mut Work<'_>) {
    let mut wanted: BTreeMap<&Arc<Origin>, Vec<&Step>> = BTreeMap::new();
    for step in work.steps(Phase::Fetch) {
        if let Action::FetchArtifact(origin) = &step.action {
            wanted.entry(origin).or_default().push(step);
        }
    }
    let (fetcher, store) = (&work.providers.fetcher, &work.providers.store);
    let (patience, progress) = (work.patience.pull, work.progress);
    let fetches = wanted.into_iter().map(|(origin, steps)| async move {
        let fetched = fetcher.fetch(origin, store, patience, progress).await;
        (steps, fetched)
    });
    let fetches = stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(FETCHES).collect::<Vec<_>>();
    let fetched = tokio::select! {
        fetched = fetches => fetched,
        () = progress.overdue() => {
            work.outcome.interrupted = true;
            return;
        }
    };
    for (steps, fetched) in fetched {
        for step in steps {
            match &fetched {
                Ok(()) => work.done(step),
                Err(error) => work.failed(step, error, ""),
            }
        }
    }
}
