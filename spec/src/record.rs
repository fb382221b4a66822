//! The record a host publishes as a git note: a line for people, then a line of JSON per fact.
//!
//! ```text
//! attic converged 2026-11-20 18:40:12Z: mqtt, site
//!
//! {"mainstay-record":1,"fleet":"home","host":"attic","commit":"1f2e…","counter":7,"at":"2026-11-20T18:40:12Z"}
//! {"app":"mqtt","state":"converged","since":"2026-11-20T18:40:12Z","digest":"9f86…","changes":3}
//! ```
//!
//! A signature follows behind the last line, from a line on that begins with [`SIGNATURE`]; what is signed is everything
//! before that line, for the fleet. Readers skip lines and keys that they do not know, so that newer hosts can say more.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AppName, CommitId, ContainerName, HostName, shown};
use crate::memory::AppState;

/// The version of the format that this crate writes.
pub const VERSION: u32 = 1;
/// Where a signature begins (sshsig, PROTOCOL.sshsig of OpenSSH).
pub const SIGNATURE: &str = "-----BEGIN SSH SIGNATURE-----";
/// A failure's text longer than this is cut: records are read by every peer.
const LONGEST_FAILURE: usize = 300;
/// More than this is told of a fleet by no host.
pub const MOST_TOLD: usize = 64;

/// What one host says of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The fleet.
    pub fleet: String,
    /// The host that speaks.
    pub host: HostName,
    /// The commit it speaks of.
    pub commit: CommitId,
    /// Counts this host's records, so that an old one cannot be passed off as new.
    pub counter: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Every application placed on the host.
    pub apps: BTreeMap<AppName, AppRecord>,
    /// What it told of the fleet as a whole, so that nobody else does.
    pub told: Vec<Told>,
}

/// What a host told somebody of the fleet as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What is the matter, and with whom.
    pub subject: String,
    /// Which of the matters of this kind: another release that is halted is another one.
    pub about: String,
    /// Who was told, as [`crate::manifest::Alert::id`] names it.
    pub to: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// When it was told.
    pub at: Timestamp,
    /// It was told as well that it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

/// What a host says of one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// How it fares.
    pub state: AppState,
    /// Since when.
    pub since: Timestamp,
    /// The commit of the release before, if this one replaced another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<CommitId>,
    /// The digest of its resolved content: equal digests are the same release.
    pub digest: Digest,
    /// What is no longer repaired, since somebody else changes it back again and again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<String>,
    /// The digest of each container's image, by container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ContainerName, String>,
    /// How many steps the last change took.
    #[serde(default)]
    pub changes: usize,
    /// The digest of the release that failed here and is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<Digest>,
    /// The commit of the release that runs instead of this commit's, for one that was rolled back or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<CommitId>,
    /// Why it failed: our own words only, never what a service printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl AppRecord {
    /// What a host says of an application that is new there and about to begin.
    pub fn begins(digest: Digest, since: Timestamp) -> AppRecord {
        AppRecord {
            state: AppState::Applying,
            since,
            from: None,
            digest,
            contested: Vec::new(),
            images: BTreeMap::new(),
            changes: 0,
            bad: None,
            runs: None,
            failure: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(rename = "mainstay-record")]
    version: u32,
    fleet: String,
    host: HostName,
    commit: CommitId,
    counter: u64,
    at: Timestamp,
    /// What of it cannot be read is left out: whoever wrote it tells in a newer form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    told: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    app: AppName,
    #[serde(flatten)]
    record: AppRecord,
}

impl Record {
    /// Says whether both say the same, apart from when and which in number.
    pub fn says_the_same_as(&self, other: &Record) -> bool {
        let whose = (&self.fleet, &self.host, &self.commit) == (&other.fleet, &other.host, &other.commit);
        whose && self.apps == other.apps && self.told == other.told
    }

    /// Returns the record as its readers get it: of each failure only the first line.
    #[must_use]
    pub fn as_published(&self) -> Record {
        let mut published = self.clone();
        for record in published.apps.values_mut() {
            record.failure = record.failure.take().map(|failure| first_line(&failure));
        }
        published
    }

    /// Returns the note's text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let head = Head {
            version: VERSION,
            fleet: self.fleet.clone(),
            host: self.host.clone(),
            commit: self.commit.clone(),
            counter: self.counter,
            at: self.at,
            told: self.told.iter().take(MOST_TOLD).map(json).collect(),
        };
        push_json(&mut text, &head);
        for (app, record) in self.as_published().apps {
            push_json(&mut text, &Line { app, record });
        }
        text
    }

    /// Returns the line for people: the worst state first, with the applications that are in it.
    pub fn headline(&self) -> String {
        let mut by_state: BTreeMap<u8, (AppState, Vec<String>)> = BTreeMap::new();
        for (app, record) in &self.apps {
            let words = match (&record.failure, record.state) {
                (Some(failure), AppState::Failed | AppState::RolledBack | AppState::Unhealthy) => {
                    format!("{app} ({})", first_line(failure))
                }
                (_, AppState::Drifted) if !record.contested.is_empty() => {
                    format!("{app} (changed back again and again by somebody else: {})", record.contested.join(", "))
                }
                _ => app.to_string(),
            };
            by_state.entry(rank(record.state)).or_insert_with(|| (record.state, Vec::new())).1.push(words);
        }
        let mut states = by_state.into_values();
        let at = self.at.strftime("%Y-%m-%d %H:%M:%SZ");
        let Some((worst, apps)) = states.next() else {
            return format!("{} converged {at}: nothing is placed here", self.host);
        };
        let mut line = format!("{} {} {at}: {}", self.host, worst.as_str(), apps.join(", "));
        for (state, apps) in states {
            write!(line, "; {}: {}", state.as_str(), apps.join(", ")).expect("writing to a string does not fail");
        }
        line
    }

    /// Reads a note's text.
    ///
    /// # Errors
    /// Says what is wrong with the note; a record of a newer version than this crate knows is read as far as it goes.
    pub fn parse(text: &str) -> Result<Record, String> {
        let signed = text.lines().take_while(|line| !line.starts_with(SIGNATURE));
        let mut lines = signed.filter(|line| line.starts_with('{'));
        let head = lines.next().ok_or("it holds no line of JSON")?;
        let head: Head =
            serde_json::from_str(head).map_err(|error| format!("its first line of JSON is off: {error}"))?;
        let mut apps = BTreeMap::new();
        for line in lines {
            if let Ok(Line { app, record }) = serde_json::from_str(line) {
                apps.insert(app, record);
            } else if head.version <= VERSION {
                return Err(format!("a line of JSON is off: {}", shown(&line.chars().take(80).collect::<String>())));
            }
        }
        let Head { fleet, host, commit, counter, at, told, .. } = head;
        let told = told.into_iter().take(MOST_TOLD).filter_map(|told| serde_json::from_value(told).ok()).collect();
        Ok(Record { fleet, host, commit, counter, at, apps, told })
    }
}

/// Takes a text apart where its last signature begins, at the beginning of a line: what was signed, and the signature.
pub fn signed_part(text: &str) -> Option<(&str, &str)> {
    let is_line = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let (at, _) = text.rmatch_indices(SIGNATURE).find(|(at, _)| is_line(at))?;
    Some(text.split_at(at))
}

/// Says whether a note is a record of a newer version than this crate knows.
pub fn is_newer(text: &str) -> bool {
    let head = text.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str::<Head>(line).ok());
    head.is_some_and(|head| head.version > VERSION)
}

fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("a record holds only strings, numbers and maps with string keys")
}

fn push_json(text: &mut String, value: &impl Serialize) {
    text.push_str(
        &serde_json::to_string(value).expect("a record holds only strings, numbers and maps with string keys"),
    );
    text.push('\n');
}

/// Cuts a failure to its first line: what a service printed behind it may hold a secret.
fn first_line(text: &str) -> String {
    let line = shown(text.lines().next().unwrap_or_default());
    match line.char_indices().nth(LONGEST_FAILURE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

fn rank(state: AppState) -> u8 {
    match state {
        AppState::Failed => 0,
        AppState::RolledBack => 1,
        AppState::Unhealthy => 2,
        AppState::Drifted => 3,
        AppState::Waiting => 4,
        AppState::Applying => 5,
        AppState::Baking => 6,
        AppState::Repaired => 7,
        AppState::Converged => 8,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn record() -> Record {
        let at: Timestamp = "2026-11-20T18:40:12Z".parse().expect("a time");
        let app = |state, failure: Option<&str>| AppRecord {
            state,
            since: at,
            from: None,
            digest: Digest::of(b"x"),
            contested: Vec::new(),
            images: BTreeMap::new(),
            changes: 2,
            bad: None,
            runs: None,
            failure: failure.map(str::to_owned),
        };
        let name = |text| AppName::parse(text).expect("a name");
        Record {
            fleet: "home".to_owned(),
            host: HostName::parse("attic").expect("a host"),
            commit: CommitId::parse(&"1f".repeat(20)).expect("a commit"),
            counter: 7,
            at,
            apps: BTreeMap::from([
                (name("mqtt"), app(AppState::Converged, None)),
                (name("site"), app(AppState::Failed, Some("failed to start unit `site.service`\npassword=hunter2"))),
            ]),
            told: Vec::new(),
        }
    }

    #[test]
    fn reads_well() {
        expect![[r#"
            attic failed 2026-11-20 18:40:12Z: site (failed to start unit `site.service`); converged: mqtt

            {"mainstay-record":1,"fleet":"home","host":"attic","commit":"1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f","counter":7,"at":"2026-11-20T18:40:12Z"}
            {"app":"mqtt","state":"converged","since":"2026-11-20T18:40:12Z","digest":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","changes":2}
            {"app":"site","state":"failed","since":"2026-11-20T18:40:12Z","digest":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","changes":2,"failure":"failed to start unit `site.service`"}
        "#]]
        .assert_eq(&record().text());
    }

    #[test]
    fn what_a_service_printed_is_not_published() {
        assert!(!record().text().contains("hunter2"));
    }

    #[test]
    fn round_trips_and_tolerates_newer_versions() {
        let text = record().text();
        let read = Record::parse(&text).expect("our own record");
        assert!(!read.says_the_same_as(&record()), "the failure's later lines are gone");
        assert!(read.says_the_same_as(&record().as_published()));
        assert_eq!(read.apps.len(), 2);
        let newer = text.replace("\"mainstay-record\":1", "\"mainstay-record\":2,\"mood\":\"fine\"")
            + "{\"weather\":\"rain\"}\n-----BEGIN SSH SIGNATURE-----\n{\"app\":\"forged\"}\n";
        assert_eq!(Record::parse(&newer).expect("a newer record").apps.len(), 2);
        assert!(is_newer(&newer) && !is_newer(&text) && !is_newer("hello"));
        let told = Told {
            subject: "halted web".to_owned(),
            about: "9f86".to_owned(),
            to: "2d71".to_owned(),
            since: record().at,
            at: record().at,
            over: true,
        };
        let mut telling = record();
        telling.told = vec![told.clone(); MOST_TOLD + 5];
        let read = Record::parse(&telling.text()).expect("our own record");
        assert_eq!((read.told.len(), &read.told[0]), (MOST_TOLD, &told), "it is bounded");
        assert!(!read.says_the_same_as(&record().as_published()), "what was told is news");
        let odd = text.replace("\"counter\":7", "\"counter\":7,\"told\":[{\"subject\":1},7]");
        assert_eq!(Record::parse(&odd).expect("a record that tells oddly").told, []);
        for bad in ["", "hello", "{}", "{\"mainstay-record\":1}"] {
            assert!(Record::parse(bad).is_err(), "{bad:?}");
        }
    }
}
