//! Pauses: a person tells this host's agent to change nothing, or nothing of some applications, for a while.
//!
//! A pause ends by itself: one that was forgotten must not leave a host behind for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{AppName, shown};

/// Nothing is changed until then, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// What the person said.
    pub reason: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "until {}: {}", self.until.strftime("%Y-%m-%d %H:%M:%SZ"), shown(&self.reason))
    }
}

/// What is paused on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pauses {
    /// Everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Pause>,
    /// Single applications.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: BTreeMap<AppName, Pause>,
}

impl Pauses {
    /// Says whether nothing is paused.
    pub fn is_empty(&self) -> bool {
        self.host.is_none() && self.apps.is_empty()
    }

    /// Returns those that are not over at `now`.
    pub fn at(&self, now: Timestamp) -> Pauses {
        let mut left = self.clone();
        drop(left.end(now));
        left
    }

    /// Returns why nothing of `app` is changed at `now`, if it is paused.
    pub fn of(&self, app: &AppName, now: Timestamp) -> Option<&Pause> {
        self.host.iter().chain(self.apps.get(app)).find(|pause| now < pause.until)
    }

    /// Says whether nothing at all is changed at `now`.
    pub fn is_total(&self, now: Timestamp) -> bool {
        self.host.as_ref().is_some_and(|pause| now < pause.until)
    }

    /// Returns when the next one ends.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.host.iter().chain(self.apps.values()).map(|pause| pause.until).min()
    }

    /// Pauses these applications, or everything where none is named, in place of what was said of them before.
    pub fn begin(&mut self, apps: &BTreeSet<AppName>, pause: &Pause) {
        if apps.is_empty() {
            self.host = Some(pause.clone());
        }
        self.apps.extend(apps.iter().map(|app| (app.clone(), pause.clone())));
    }

    /// Lifts the pauses of these applications, or every one where none is named.
    pub fn lift(&mut self, apps: &BTreeSet<AppName>) {
        if apps.is_empty() {
            *self = Pauses::default();
        }
        self.apps.retain(|app, _| !apps.contains(app));
    }

    /// Takes out those that are over at `now`, and returns them.
    pub fn end(&mut self, now: Timestamp) -> Pauses {
        let is_over = |pause: &Pause| pause.until <= now;
        let host = self.host.take_if(|pause| is_over(pause));
        let (apps, left) = std::mem::take(&mut self.apps).into_iter().partition(|(_, pause)| is_over(pause));
        self.apps = left;
        Pauses { host, apps }
    }
}

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The applications; none stands for the whole host.
    pub apps: BTreeSet<AppName>,
    /// The pause that begins; `None` lifts those that there are.
    pub pause: Option<Pause>,
}

impl Asked {
    /// Takes it over. Doing so twice is as good as once.
    pub fn apply(&self, pauses: &mut Pauses) {
        match &self.pause {
            Some(pause) => pauses.begin(&self.apps, pause),
            None => pauses.lift(&self.apps),
        }
    }

    /// Says whom it is about, in words.
    pub fn whom(&self) -> String {
        let apps: Vec<&str> = self.apps.iter().map(AppName::as_str).collect();
        if apps.is_empty() { "this host".to_owned() } else { apps.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_pause_ends_by_itself_and_that_of_the_host_is_for_everything() {
        let (web, page) = (AppName::parse("web").expect("a name"), AppName::parse("page").expect("a name"));
        let pause = |until| Pause { reason: "night".to_owned(), since: at(0), until: at(until) };
        let mut pauses = Pauses::default();
        pauses.begin(&BTreeSet::from([web.clone()]), &pause(10));
        assert!(pauses.of(&web, at(9)).is_some() && pauses.of(&page, at(9)).is_none());
        assert!(pauses.of(&web, at(10)).is_none(), "it is over");
        pauses.begin(&BTreeSet::new(), &pause(20));
        assert!(pauses.of(&page, at(9)).is_some() && pauses.is_total(at(19)) && !pauses.is_total(at(20)));
        assert_eq!(pauses.next_end(), Some(at(10)));
        assert_eq!(pauses.end(at(15)).apps.keys().collect::<Vec<_>>(), [&web]);
        assert_eq!(pauses.at(at(15)), pauses);
        assert!(pauses.at(at(20)).is_empty());
        pauses.begin(&BTreeSet::from([web.clone(), page]), &pause(30));
        pauses.lift(&BTreeSet::from([web]));
        assert!(pauses.host.is_some() && pauses.apps.len() == 1, "{pauses:?}");
        pauses.lift(&BTreeSet::new());
        assert!(pauses.is_empty());
    }
}
