//! What was deployed on a host and what came of it, as its own records tell: a timeline of its applications.
//!
//! The notes ref is the history; nothing else is kept. Looking back is bounded, and what is older is not looked at.

pub mod annotations;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::memory::AppState;
use spec::record::{AppRecord, Record};

use crate::git::{GitError, Mirror};
use crate::identity::{self, RECORD};
use crate::snapshot::{Release, without_secrets};

/// So many records are looked at.
pub const RECORDS: usize = 1000;
/// So many entries are told unless more are asked for.
pub const USUAL: usize = 50;

/// One thing that happened to an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// To which application.
    pub app: AppName,
    /// The state that it came into, or `removed`.
    pub state: &'static str,
    /// The commit that the host was held to.
    pub commit: Release,
    /// The commit of the release before, where this one replaced another.
    pub from: Option<CommitId>,
    /// The commit of the release that runs instead, of one that was rolled back or waits.
    pub runs: Option<CommitId>,
    /// How long it was being applied before, in seconds.
    pub took_seconds: Option<i64>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// One thing that happened, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The host.
    pub host: HostName,
    /// What happened there.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Reads the history of `host`, the latest first: of one application or of all, and at most `limit` entries. Others may have written
/// notes under its name: what counts is what `key` signed, where there is one.
///
/// # Errors
/// The mirror cannot be read.
pub fn read(
    mirror: &Mirror,
    host: &HostName,
    key: Option<&str>,
    app: Option<&AppName>,
    limit: usize,
) -> Result<Vec<Entry>, GitError> {
    read_last(mirror, host, key, app, limit, RECORDS).map(|(entries, _)| entries)
}

/// The same, of the last `records` records; and how many of them do not count.
///
/// # Errors
/// The mirror cannot be read.
pub fn read_last(
    mirror: &Mirror,
    host: &HostName,
    key: Option<&str>,
    app: Option<&AppName>,
    limit: usize,
    records: usize,
) -> Result<(Vec<Entry>, usize), GitError> {
    let (texts, is_all) = mirror.note_history(host, records)?;
    let (records, left_out) = own(host, key, &texts);
    let mut known = BTreeMap::new();
    let mut entries =
        timeline(records, is_all, |id| known.entry(id.clone()).or_insert_with(|| Release::read(mirror, id)).clone());
    entries.retain(|entry| app.is_none_or(|app| entry.app == *app));
    entries.reverse();
    entries.truncate(limit);
    Ok((entries, left_out))
}

/// Takes from the notes under a host's name those that are its own: those that its key signed, and, since the key may be younger than
/// the host, those with lower numbers than all of them. Whoever forges one can change nothing that came after the key.
fn own(host: &HostName, key: Option<&str>, texts: &[String]) -> (Vec<Record>, usize) {
    let read: Vec<(Record, bool)> = texts
        .iter()
        .filter_map(|text| {
            let record = Record::parse(text).ok().filter(|record| record.host == *host)?;
            let is_own = key.is_none_or(|key| identity::verify(key, RECORD, &record.fleet, text).is_ok());
            Some((record, is_own))
        })
        .collect();
    let first = read.iter().filter(|(_, is_own)| *is_own).map(|(record, _)| record.counter).min();
    let all = read.len();
    let counts = |(record, is_own): &(Record, bool)| *is_own || first.is_some_and(|first| record.counter < first);
    let records: Vec<Record> = read.into_iter().filter(counts).map(|(record, _)| record).collect();
    let left_out = all - records.len();
    (records, left_out)
}

/// Puts records in order and tells what changed from each to the next. Unless they are all there are, the first one only says
/// what was before.
fn timeline(mut records: Vec<Record>, is_all: bool, mut release: impl FnMut(&CommitId) -> Release) -> Vec<Entry> {
    records.sort_by_key(|record| record.counter);
    records.dedup_by_key(|record| record.counter);
    let mut entries: Vec<Entry> = Vec::new();
    let mut last: BTreeMap<AppName, AppRecord> = BTreeMap::new();
    for (number, record) in records.into_iter().enumerate() {
        let tells = is_all || number > 0;
        let gone: Vec<AppName> = last.keys().filter(|app| !record.apps.contains_key(*app)).cloned().collect();
        for app in gone {
            last.remove(&app);
            if tells {
                let commit = release(&record.commit);
                let (from, runs, took_seconds, failure) = (None, None, None, None);
                entries.push(Entry { at: record.at, app, state: "removed", commit, from, runs, took_seconds, failure });
            }
        }
        for (app, now) in record.apps {
            let before = last.insert(app.clone(), now.clone());
            let key = |it: &AppRecord| (it.state, it.since, it.digest);
            if !tells || before.as_ref().is_some_and(|before| key(before) == key(&now)) {
                continue;
            }
            let applying = before.filter(|before| ended(before, now.state, now.digest));
            if applying.is_some() {
                // That it began is part of how it ended.
                let began =
                    entries.iter().rposition(|entry| entry.app == app && entry.state == AppState::Applying.as_str());
                began.map(|began| entries.remove(began));
            }
            entries.push(Entry {
                at: now.since,
                app,
                state: now.state.as_str(),
                commit: release(&record.commit),
                from: now.from,
                runs: now.runs,
                took_seconds: applying.map(|began| now.since.duration_since(began.since).as_secs().max(0)),
                failure: now.failure.as_deref().map(without_secrets),
            });
        }
    }
    entries
}

/// Says whether an application that was being applied is now done with it, in whatever way.
fn ended(before: &AppRecord, state: AppState, digest: Digest) -> bool {
    before.state == AppState::Applying
        && state != AppState::Applying
        && (before.digest == digest || state == AppState::RolledBack)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).expect("a time")
    }

    fn record(counter: u64, commit: &str, apps: &[(&str, AppState, i64, &str, Option<&str>)]) -> Record {
        let apps = apps.iter().map(|(name, state, since, release, failure)| {
            let record = AppRecord {
                state: *state,
                since: at(*since),
                from: None,
                digest: Digest::of(release.as_bytes()),
                contested: Vec::new(),
                images: BTreeMap::new(),
                changes: 1,
                bad: None,
                runs: None,
                failure: failure.map(str::to_owned),
            };
            (AppName::parse(name).expect("a name"), record)
        });
        Record {
            fleet: "home".to_owned(),
            host: HostName::parse("attic").expect("a name"),
            commit: CommitId::parse(&commit.repeat(20)).expect("a commit"),
            counter,
            at: at(100),
            apps: apps.collect(),
            told: Vec::new(),
        }
    }

    fn told(records: Vec<Record>, is_all: bool) -> String {
        let entries = timeline(records, is_all, Release::nameless);
        let line = |it: &Entry| {
            let took = it.took_seconds.map(|took| format!(" took {took} s")).unwrap_or_default();
            let why = it.failure.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let at = it.at.as_second() - 1_790_000_000;
            format!("{at} {} {} {}{took}{why}\n", it.app, it.state, &it.commit.id.as_str()[..2])
        };
        entries.iter().map(line).collect()
    }

    #[test]
    fn records_become_a_timeline() {
        use AppState::{Applying, Converged, Failed, Repaired, RolledBack};
        let records = || {
            vec![
                // The order in which they were read does not matter, nor that one was read twice.
                record(3, "2b", &[("db", Converged, 1, "d1", None), ("web", Applying, 10, "w2", None)]),
                record(1, "1a", &[("db", Applying, 0, "d1", None), ("web", Applying, 0, "w1", None)]),
                record(2, "1a", &[("db", Converged, 1, "d1", None), ("web", Converged, 4, "w1", None)]),
                record(2, "1a", &[("db", Converged, 1, "d1", None), ("web", Converged, 4, "w1", None)]),
                record(4, "2b", &[("db", Converged, 1, "d1", None), ("web", Failed, 12, "w2", Some("no"))]),
                record(5, "2b", &[("db", Converged, 1, "d1", None), ("web", RolledBack, 13, "w1", Some("no"))]),
                record(6, "2b", &[("db", Repaired, 20, "d1", None), ("web", RolledBack, 13, "w1", Some("no"))]),
                record(7, "3c", &[("db", Repaired, 20, "d1", None)]),
                record(8, "3c", &[("db", Applying, 30, "d2", None)]),
            ]
        };
        expect![[r#"
            1 db converged 1a took 1 s
            4 web converged 1a took 4 s
            12 web failed 2b took 2 s: no
            13 web rolled-back 2b: no
            20 db repaired 2b
            100 web removed 3c
            30 db applying 3c
        "#]]
        .assert_eq(&told(records(), true));
        let later = records().into_iter().filter(|it| it.counter >= 5).collect();
        expect![[r#"
            20 db repaired 2b
            100 web removed 3c
            30 db applying 3c
        "#]]
        .assert_eq(&told(later, false));
    }

    #[test]
    fn what_others_wrote_under_its_name_is_no_history() {
        use identity::made_up;
        let [old, key, eve] = [1, 2, 3].map(made_up);
        let text = |counter| record(counter, "1a", &[]).text();
        let by = |who: &identity::Identity, counter| who.sign(RECORD, "home", &text(counter)).expect("signed");
        let mut texts = vec![by(&eve, 90), text(80), by(&key, 6), by(&eve, 5), by(&key, 4), by(&old, 3), text(2)];
        let host = HostName::parse("attic").expect("a name");
        let numbers = |key: Option<&str>, texts: &[String]| {
            let (records, left_out) = own(&host, key, texts);
            (records.into_iter().map(|record| record.counter).collect::<Vec<_>>(), left_out)
        };
        assert_eq!(numbers(Some(key.public()), &texts), (vec![6, 4, 3, 2], 3));
        assert_eq!(numbers(None, &texts).1, 0);
        texts.retain(|text| identity::verify(key.public(), RECORD, "home", text).is_err());
        assert_eq!(numbers(Some(key.public()), &texts), (vec![], 5), "nothing says when the key began");
    }
}
