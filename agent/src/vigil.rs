//! Looks at the checks of what runs, from time to time: each at its own interval, a few at once, beside the passes and never
//! in their way. What a look means for an application is decided here only as far as counting goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spec::check::{Check, STRIKES};
use spec::digest::Digest;
use spec::id::AppName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::check::{Eyes, Miss};
use crate::engine::Engine;

/// How many looks are under way at once.
const AT_ONCE: usize = 4;

/// One check of one release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    app: AppName,
    release: Digest,
    number: usize,
}

/// A check that is looked at, and what was seen.
struct Watched {
    check: Check,
    due: Instant,
    is_under_way: bool,
    /// Looks in a row that did not pass, with what the last one said; `None` until it was looked at.
    misses: Option<(u32, String)>,
}

/// What a look means for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check passes.
    Well,
    /// These do not, several times in a row; in words.
    Unhealthy(String),
    /// Not known yet.
    Unclear,
}

/// Everything that is looked at.
#[derive(Default)]
pub struct Vigil {
    watched: BTreeMap<Key, Watched>,
    looks: JoinSet<(Key, Result<(), Miss>)>,
    eyes: Arc<Eyes>,
}

impl Vigil {
    /// Looks at these checks from now on, and at no others: releases that were reached, each with its application.
    pub fn follow<'a>(&mut self, releases: impl Iterator<Item = (&'a AppName, Digest, &'a [Check])>) {
        let mut before = std::mem::take(&mut self.watched);
        for (app, release, checks) in releases {
            for (number, check) in checks.iter().enumerate() {
                let key = Key { app: app.clone(), release, number };
                let fresh = || Watched {
                    check: check.clone(),
                    due: Instant::now() + spread(check.interval),
                    is_under_way: false,
                    misses: None,
                };
                let watched = before.remove(&key).unwrap_or_else(fresh);
                self.watched.insert(key, watched);
            }
        }
    }

    /// Waits until a look has ended, beginning those that are due, and says what is known of its application now.
    /// Nothing is lost when this is not waited for to the end.
    pub async fn next(&mut self, engine: &Arc<Engine>) -> (AppName, Verdict) {
        loop {
            self.begin(engine);
            let free = self.looks.len() < AT_ONCE;
            let due = self.watched.values().filter(|it| free && !it.is_under_way).map(|it| it.due).min();
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                Some(ended) = self.looks.join_next() => {
                    if let Ok((key, result)) = ended
                        && let Some(app) = self.take(&key, result)
                    {
                        let verdict = self.verdict(&app);
                        return (app, verdict);
                    }
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// Begins the looks that are due.
    fn begin(&mut self, engine: &Arc<Engine>) {
        let now = Instant::now();
        for (key, watched) in self.watched.iter_mut().filter(|(_, it)| !it.is_under_way && it.due <= now) {
            if self.looks.len() >= AT_ONCE {
                break;
            }
            watched.is_under_way = true;
            let (key, check) = (key.clone(), watched.check.clone());
            let (eyes, engine) = (Arc::clone(&self.eyes), Arc::clone(engine));
            self.looks.spawn(async move {
                let result = eyes.look(&key.app, &check, &engine).await;
                (key, result)
            });
        }
    }

    /// Takes in what a look saw; nothing when the release was left meanwhile, or nothing could be seen.
    fn take(&mut self, key: &Key, result: Result<(), Miss>) -> Option<AppName> {
        let watched = self.watched.get_mut(key)?;
        watched.is_under_way = false;
        watched.due = Instant::now() + spread(watched.check.interval);
        let before = watched.misses.as_ref().map_or(0, |(count, _)| *count);
        watched.misses = match result {
            Ok(()) => Some((0, String::new())),
            Err(miss) if miss.is_blind => {
                debug!(app = %key.app, why = miss.why, "a check could not be looked at");
                return None;
            }
            Err(miss) => Some((before.saturating_add(1), format!("{} does not pass: {}", watched.check, miss.why))),
        };
        Some(key.app.clone())
    }

    fn verdict(&self, app: &AppName) -> Verdict {
        let of = || self.watched.iter().filter(|(key, _)| key.app == *app).map(|(_, watched)| watched.misses.as_ref());
        let failing = of().flatten().filter(|(count, _)| *count >= STRIKES);
        let failing: Vec<&str> = failing.map(|(_, why)| why.as_str()).collect();
        if !failing.is_empty() {
            return Verdict::Unhealthy(failing.join("\n"));
        }
        match of().all(|misses| misses.is_some_and(|(count, _)| *count == 0)) {
            true => Verdict::Well,
            false => Verdict::Unclear,
        }
    }
}

/// Spreads looks, so that neither checks nor hosts move in step.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use spec::check::{INTERVAL, Probe, TIMEOUT, WITHIN};

    use super::*;

    #[test]
    fn an_application_is_unhealthy_after_misses_in_a_row_and_well_when_all_passes() {
        let app = AppName::parse("web").expect("a name");
        let check = |port: u16| Check {
            name: None,
            probe: Probe::Tcp { address: format!("h:{port}") },
            within: WITHIN,
            timeout: TIMEOUT,
            interval: INTERVAL,
        };
        let (checks, release) = ([check(1), check(2)], Digest::of(b"x"));
        let mut vigil = Vigil::default();
        vigil.follow([(&app, release, checks.as_slice())].into_iter());
        let key = |number| Key { app: app.clone(), release, number };
        let miss = |is_blind| Err(Miss { why: "refused".to_owned(), said: String::new(), is_blind });
        let mut look = |number, result| vigil.take(&key(number), result).map(|app| vigil.verdict(&app));
        assert_eq!(look(0, Ok(())), Some(Verdict::Unclear), "the other one was not looked at");
        assert_eq!(look(1, Ok(())), Some(Verdict::Well));
        assert_eq!(look(1, miss(false)), Some(Verdict::Unclear));
        assert_eq!(look(1, miss(true)), None, "who cannot look knows nothing");
        assert_eq!(look(1, miss(false)), Some(Verdict::Unclear));
        let unhealthy = Verdict::Unhealthy("check of tcp h:2 does not pass: refused".to_owned());
        assert_eq!(look(1, miss(false)), Some(unhealthy.clone()));
        assert_eq!(look(0, Ok(())), Some(unhealthy));
        assert_eq!(look(1, Ok(())), Some(Verdict::Well));
        vigil.follow([(&app, Digest::of(b"y"), checks.as_slice())].into_iter());
        assert_eq!(vigil.take(&key(1), miss(false)), None, "that release was left");
    }
}
