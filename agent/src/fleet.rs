//! The fleet as anybody can read it who has a clone: what should be where, by the newest commit of the branch, and what every
//! host said last. All that is told of a fleet is derived from one such reading; nothing here asks a host.

pub mod past;
pub mod spread;
pub mod contrast;
pub mod turns;
pub mod arrival;
mod anchor;
mod verified;
#[cfg(test)]
pub(crate) mod made_up;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{self, Fleet, Override};
use spec::memory::AppState;
use spec::record::{AppRecord, Record, signed_part};
use spec::rollout;

use crate::git::{Followed, GitError, Heartbeat, Mirror};
use crate::identity::{RECORD, SEEN};
use crate::settings;
use crate::snapshot::without_secrets;
use crate::trust::{Before, Judge};
use crate::upstream::LIMITS;
use anchor::Anchor;
use verified::Verified;

/// A host that nothing concerns gives a sign of life hourly. Two may be late or lost before it counts as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(2 * 3600 + 1800);
/// So many commits are gone back to find one without mistakes.
const MOST_UNSOUND: usize = 20;

/// Why a fleet cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The clone cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// No host can be at any of the newest commits.
    #[error(
        "the newest commits of {branch} have mistakes, from {} on: `mainstay check` lists them",
        commit.short()
    )]
    Unsound {
        /// The branch.
        branch: String,
        /// The newest of them.
        commit: CommitId,
    },
    /// None of the newest commits is believed, and neither is there what was before.
    #[error("{} of {branch} is not believed: {why}", commit.short())]
    Refused {
        /// The branch.
        branch: String,
        /// The newest of them.
        commit: CommitId,
        /// Why not.
        why: String,
    },
}

/// What is known of a fleet at one moment.
pub struct Reading {
    /// When it was read.
    pub at: Timestamp,
    /// The branch that hosts follow, as the clone calls it.
    pub branch: String,
    /// The newest commit without mistakes that is believed: see [`anchor`].
    pub commit: CommitId,
    /// The newest commit of all.
    pub tip: CommitId,
    /// The same, where it has mistakes: no host is at it.
    pub unsound: Option<CommitId>,
    /// The newest one that has none and is not believed, and why.
    pub refused: Option<(CommitId, String)>,
    /// What it says should be where.
    pub fleet: Fleet,
    /// What earlier commits say that its overrides name, by the digits that these give.
    pub past: BTreeMap<String, Fleet>,
    /// What is known of each of its hosts.
    pub hosts: BTreeMap<HostName, Known>,
    /// What was read and does not count.
    pub aside: Aside,
}

/// What is known of a host.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The last record.
    pub record: Option<Record>,
    /// Where its record is, beside the newest commit.
    pub position: Option<Position>,
    /// The last sign of life, by the host's own clock.
    pub heard: Option<Timestamp>,
    /// Whether that is longer ago than it should be.
    pub is_silent: bool,
}

/// Where a host is, beside the newest commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It is at it.
    Newest,
    /// It is at one before.
    Behind,
    /// It is at one that the branch does not have here: it is newer than what was fetched, or the history was rewritten.
    Elsewhere,
}

/// What was read and does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Refs of hosts that the commit does not name.
    pub strangers: usize,
    /// Hosts of which no record can be read, or only ones of somebody else.
    pub unreadable: usize,
    /// Records that are written in a newer form: what this version does not know of them is not shown.
    pub newer: usize,
    /// Records that are not signed with the key that `fleet.yaml` names for their hosts.
    pub forged: usize,
}

/// One application on one host.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// The host.
    pub host: &'r HostName,
    /// The application.
    pub app: &'r AppName,
    /// What is known of the host.
    pub known: &'r Known,
    /// What the host says of the application.
    pub said: Option<&'r AppRecord>,
    /// Whether the newest commit has it there.
    pub is_placed: bool,
}

/// How much something deserves somebody's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// A person should look.
    Trouble,
    /// Nobody knows.
    Unheard,
    /// It is on its way.
    Moving,
    /// It is as its commit says.
    Well,
}

impl Condition {
    /// All of them, as they are counted.
    pub const ALL: [Condition; 4] = [Condition::Well, Condition::Moving, Condition::Trouble, Condition::Unheard];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Well => "well",
            Condition::Moving => "moving",
            Condition::Trouble => "trouble",
            Condition::Unheard => "unheard",
        }
    }

    /// Returns its place among all of them.
    pub fn number(self) -> usize {
        match self {
            Condition::Well => 0,
            Condition::Moving => 1,
            Condition::Trouble => 2,
            Condition::Unheard => 3,
        }
    }
}

impl Reading {
    /// Reads a fleet.
    ///
    /// # Errors
    /// The clone cannot be read, or there is no commit without mistakes.
    pub fn of(mirror: &Mirror, followed: &Followed, now: Timestamp) -> Result<Reading, FleetError> {
        let tip = mirror.newest_of(followed)?;
        let Newest { commit, fleet, unsound, refused } = Newest::of(mirror, &tip, followed, now)?;
        let (forged, ears) = (AtomicUsize::new(0), Ears { fleet: &fleet, verified: Verified::open(mirror) });
        let signs = mirror.heartbeats(|host, beat, text| ears.sign_of_life(host, beat, text))?;
        let known = |host: &HostName| signs.get(host)?.note.as_deref();
        let read = |host: &HostName, texts: &[String]| ears.newest_record(host, (texts, known(host)), &forged);
        let records = mirror.newest_notes(known, read)?;
        ears.verified.keep();
        let branch = followed.to_string();
        let (past, hosts) = (past(mirror, &fleet, &commit, now), BTreeMap::new());
        let aside = Aside { forged: forged.into_inner(), ..Aside::default() };
        let mut reading = Reading { at: now, branch, commit, tip, unsound, refused, fleet, past, hosts, aside };
        let names: BTreeSet<&HostName> = records.hosts.keys().chain(signs.keys()).collect();
        let strangers = names.iter().filter(|name| !reading.fleet.hosts.contains_key(**name)).count();
        reading.aside.strangers = strangers + records.nameless;
        let mut records = records.hosts;
        for name in reading.fleet.hosts.keys() {
            let found = records.remove(name);
            reading.aside.unreadable += usize::from(matches!(found, Some(None)));
            let (sign, found) = (signs.get(name), found.flatten());
            // Whoever can push can set its notes back to an old one, but not both it and its sign of life to a newer one.
            let is_said = found.as_ref().is_some_and(|found| found.is_said);
            let said = sign.filter(|_| !is_said).and_then(|sign| written(name, sign.note.as_deref()?));
            let read = [found, said].into_iter().flatten().max_by_key(|written| written.record.counter);
            reading.aside.newer += usize::from(read.as_ref().is_some_and(|written| written.is_newer));
            // A host keeps its name when the fleet is called another; what it says of another fleet is nothing to this one.
            let record = read.map(|written| written.record).filter(|record| record.fleet == reading.fleet.name);
            let heard = heard(record.as_ref(), sign.map(|sign| &sign.beat));
            reading.hosts.insert(name.clone(), Known { record, heard, ..Known::default() });
        }
        reading.find_positions(mirror)?;
        reading.find_silent();
        Ok(reading)
    }

    fn find_positions(&mut self, mirror: &Mirror) -> Result<(), GitError> {
        let records = self.hosts.values().filter_map(|known| known.record.as_ref());
        let commits: BTreeSet<CommitId> = records.map(|record| record.commit.clone()).collect();
        let reached = mirror.reached(&self.commit, &commits)?;
        for known in self.hosts.values_mut() {
            known.position = known.record.as_ref().map(|record| match &record.commit {
                commit if *commit == self.commit => Position::Newest,
                commit if reached.contains(commit) => Position::Behind,
                _ => Position::Elsewhere,
            });
        }
        Ok(())
    }

    /// Finds out which hosts are silent. One that should have seen the newest commit by now counts as silent when its rollout would
    /// not wait for it any more: from when the first host was at that commit, which is when it was there for everybody to see.
    fn find_silent(&mut self) {
        let now = self.at;
        let seen = self.seen();
        let silent = self.hosts.iter().filter(|(name, known)| {
            let Some(heard) = known.heard else { return false };
            let patience = self.silent_after(name);
            let is_concerned = known.position != Some(Position::Newest);
            let late = seen.filter(|_| is_concerned).is_some_and(|seen| age(heard.max(seen), now) > patience);
            late || age(heard, now) > patience.max(SILENT_AFTER)
        });
        let silent: Vec<HostName> = silent.map(|(name, _)| name.clone()).collect();
        for name in silent {
            self.hosts.entry(name).or_default().is_silent = true;
        }
    }

    /// Returns when the first host was at the newest commit: it was there for everybody to see by then.
    pub fn seen(&self) -> Option<Timestamp> {
        let at_newest = self.hosts.values().filter(|known| known.position == Some(Position::Newest));
        at_newest.filter_map(|known| known.record.as_ref()).map(|record| record.at).min()
    }

    /// Returns after which time a host counts as silent while a rollout concerns it.
    pub fn silent_after(&self, host: &HostName) -> Duration {
        let policies = self.fleet.placed(host).map(|(app, _)| rollout::policy(&self.fleet, app, host).silent_after);
        policies.max().unwrap_or(manifest::Rollout::default().silent_after)
    }

    /// Iterates over all applications that are on a host or should be.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.hosts.keys().flat_map(|host| self.rows_of(host))
    }

    /// Iterates over all applications that are on `host` or should be.
    pub fn rows_of<'r>(&'r self, host: &'r HostName) -> impl Iterator<Item = Row<'r>> {
        let known = self.hosts.get(host);
        let placed: BTreeSet<&AppName> = self.fleet.placed(host).map(|(app, _)| app).collect();
        let said = known.and_then(|known| known.record.as_ref()).map(|record| &record.apps);
        let all: BTreeSet<&AppName> = placed.iter().copied().chain(said.into_iter().flat_map(BTreeMap::keys)).collect();
        let row = move |app: &'r AppName| {
            let said = said.and_then(|apps| apps.get(app));
            known.map(|known| Row { host, app, known, said, is_placed: placed.contains(app) })
        };
        all.into_iter().filter_map(row)
    }
}

impl Known {
    /// Says whether the host reports.
    pub fn is_reported(&self) -> bool {
        self.heard.is_some()
    }

    /// Says how long the host has been silent, if it is.
    pub fn silence(&self, now: Timestamp) -> Option<Duration> {
        self.heard.filter(|_| self.is_silent).map(|heard| age(heard, now))
    }
}

impl<'r> Row<'r> {
    /// Returns the commit of the release that runs, as far as the host says.
    pub fn release(&self) -> Option<&'r CommitId> {
        let commit = self.known.record.as_ref().map(|record| &record.commit)?;
        self.said.map(|said| said.runs.as_ref().unwrap_or(commit))
    }

    /// Returns the word for how it fares.
    pub fn state(&self) -> &'static str {
        match self.said {
            Some(_) if !self.is_placed => "leaving",
            Some(said) => said.state.as_str(),
            None if self.known.is_reported() => "not there yet",
            None => "unreported",
        }
    }

    /// Says how much it deserves attention.
    pub fn condition(&self) -> Condition {
        let said = match self.said {
            None if self.known.is_reported() => Condition::Moving,
            None => Condition::Unheard,
            Some(said) if is_trouble(said) => Condition::Trouble,
            Some(_) if !self.is_placed => Condition::Moving,
            Some(said) => match said.state {
                AppState::Waiting | AppState::Applying | AppState::Baking => Condition::Moving,
                _ => Condition::Well,
            },
        };
        if self.known.is_silent && said != Condition::Trouble { Condition::Unheard } else { said }
    }
}

/// Says whether a person should look at an application.
pub fn is_trouble(said: &AppRecord) -> bool {
    matches!(said.state, AppState::Failed | AppState::RolledBack | AppState::Unhealthy | AppState::Drifted)
        || !said.contested.is_empty()
}

/// Returns why an application is not well, as its host says it, without what gives access to anything.
pub fn failure(said: &AppRecord) -> Option<String> {
    let contested = (!said.contested.is_empty())
        .then(|| format!("changed back again and again by somebody else: {}", said.contested.join(", ")));
    said.failure.as_deref().map(without_secrets).or(contested)
}

/// Returns how long ago something was; what is in the future by another clock was just now.
pub fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn heard(record: Option<&Record>, heartbeat: Option<&Heartbeat>) -> Option<Timestamp> {
    record.map(|record| record.at).max(heartbeat.map(|heartbeat| heartbeat.at))
}

/// A record that was read.
struct Written {
    record: Record,
    /// It is of a newer form.
    is_newer: bool,
    /// It stands in the host's sign of life, too.
    is_said: bool,
}

/// What a host's own sign of life says.
struct Sign {
    /// That it was alive.
    beat: Heartbeat,
    /// Its last note, as it was written.
    note: Option<String>,
}

fn written(host: &HostName, text: &str) -> Option<Written> {
    let record = Record::parse(text).ok().filter(|record| record.host == *host)?;
    Some(Written { record, is_newer: spec::record::is_newer(text), is_said: false })
}

/// Tells what hosts said from what others wrote in their place.
struct Ears<'f> {
    fleet: &'f Fleet,
    verified: Verified,
}

impl Ears<'_> {
    /// Takes from a sign of life what it says, if it is the host's own.
    fn sign_of_life(&self, host: &HostName, beat: Heartbeat, text: &str) -> Option<Sign> {
        if !self.is_signed(host, SEEN, text) {
            return None;
        }
        // Its last signature is over the whole of it, and none of the note's.
        let said = self.key(host).and_then(|_| signed_part(text)).map_or(text, |(said, _)| said);
        let note = said.split_once("\n\n").map(|(_, note)| note.to_owned());
        Some(Sign { beat, note })
    }

    fn key(&self, host: &HostName) -> Option<&str> {
        self.fleet.hosts.get(host).and_then(|host| host.key.as_deref())
    }

    /// Says whether a host signed a text, where fleet.yaml names its key; others are taken by their word.
    fn is_signed(&self, host: &HostName, namespace: &str, text: &str) -> bool {
        self.key(host).is_none_or(|key| self.verified.is_signed(key, namespace, &self.fleet.name, text))
    }

    /// Reads the newest of some notes that are a record of `host`; counts those that it did not sign. One that stands in its sign of
    /// life, too, is signed with that.
    fn newest_record(
        &self,
        host: &HostName,
        (texts, said): (&[String], Option<&str>),
        forged: &AtomicUsize,
    ) -> Option<Written> {
        let read = |text: &String| {
            let is_said = said == Some(text);
            if !is_said && !self.is_signed(host, RECORD, text) {
                forged.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            written(host, text).map(|written| Written { is_said, ..written })
        };
        texts.iter().filter_map(read).max_by_key(|written| written.record.counter)
    }
}

/// Reads what the commits say that overrides name, as far as they are before the newest one and can be read: whoever decides does not
/// look at others either.
fn past(mirror: &Mirror, fleet: &Fleet, newest: &CommitId, now: Timestamp) -> BTreeMap<String, Fleet> {
    let is_past = |it: &&Override| now < it.until && !newest.as_str().starts_with(&it.commit);
    let named: BTreeSet<&str> = fleet.overrides.iter().filter(is_past).map(|it| it.commit.as_str()).collect();
    let read = |digits: &str| {
        let commit = mirror.named(digits).ok()?;
        let is_before = mirror.is_ancestor(&commit, newest).unwrap_or(false);
        let tree = is_before.then(|| mirror.tree(&commit, &LIMITS).ok()).flatten()?;
        manifest::parse(&tree, Some(&commit)).fleet
    };
    named.into_iter().filter_map(|digits| Some((digits.to_owned(), read(digits)?))).collect()
}

/// The newest commit that hosts are held to.
struct Newest {
    commit: CommitId,
    fleet: Fleet,
    unsound: Option<CommitId>,
    refused: Option<(CommitId, String)>,
}

impl Newest {
    /// Finds the newest commit that has no mistakes and is believed, since one that was believed before.
    fn of(mirror: &Mirror, tip: &CommitId, followed: &Followed, now: Timestamp) -> Result<Newest, FleetError> {
        let anchor = Anchor::of(mirror, followed);
        let judge = Judge::new(mirror, &settings::Trust::default()).ok();
        let why_not = |commit: &CommitId| {
            let old = anchor.commit().filter(|old| *old != commit)?;
            let before = Before { believed: Some(old), ..Before::default() };
            let refusal = judge.as_ref()?.believe(before, commit, &followed.branch, now).err()?;
            let (old, path) = (old.short(), anchor.path().display());
            Some(format!(
                "{refusal} (this clone believed {old} before; to begin anew with what is there, remove {path})"
            ))
        };
        let sound = |commit: &CommitId| -> Result<Option<Fleet>, GitError> {
            Ok(manifest::parse(&mirror.tree(commit, &LIMITS)?, Some(commit)).fleet)
        };
        let (mut commit, mut unsound, mut refused) = (Some(tip.clone()), None, None);
        for _ in 0..MOST_UNSOUND {
            let Some(id) = commit else { break };
            match sound(&id)? {
                Some(fleet) => match why_not(&id) {
                    None => {
                        anchor.keep(&id);
                        return Ok(Newest { commit: id, fleet, unsound, refused });
                    }
                    Some(why) => drop(refused.get_or_insert((id.clone(), why))),
                },
                None if id == *tip => unsound = Some(id.clone()),
                None => {}
            }
            commit = mirror.before(&id);
        }
        // What was believed before still holds, whatever came since.
        if let Some(old) = anchor.commit().filter(|old| mirror.has(old))
            && let Some(fleet) = sound(old)?
        {
            return Ok(Newest { commit: old.clone(), fleet, unsound, refused });
        }
        let (branch, commit) = (followed.to_string(), tip.clone());
        Err(match refused {
            Some((commit, why)) => FleetError::Refused { branch, commit, why },
            None => FleetError::Unsound { branch, commit },
        })
    }
}
