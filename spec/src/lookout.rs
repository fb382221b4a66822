//! What is the matter with the fleet as a whole, and whether it falls to this host to tell somebody: told once, by one host for all,
//! without asking the others.
//!
//! Those who could tell stand in a line, the same for everybody who looks. The first one tells at once and publishes that it did;
//! each of the others waits for longer than the one before it, looks at the records again, and tells only what nobody in the
//! fleet has told by then. So something is told twice only when a host tells it and dies before its record is out. That it is over
//! is told in the same way, by whoever told it, or by the next in line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::HostName;
use crate::manifest::{self, Alert, Fleet};
use crate::record::{MOST_TOLD, Told};
use crate::rollout;

/// So many hosts stand in a line: as many as may be down at once, less one. The price of a longer one is that each of them asks for
/// the others of it now and then, however large a fleet is; only one asks for all, as long as it is there.
pub const LINE: usize = rollout::MOST_TELLERS;
/// So many tell those again who forget: who told it, and those behind it.
pub const REPEATERS: usize = 4;
/// More hosts than this that are silent at once are told as one.
pub const MOST_SINGLE: usize = 8;
/// Stands for them.
pub const MANY: &str = "*";
/// What is over is remembered for so long, for who told it and is away.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);
/// A record that is further ahead than this is not of this world.
const AHEAD: Duration = Duration::from_secs(3600);

/// What can be the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// The rollout of an application.
    Halted,
    /// A host says nothing.
    Silent,
}

impl Matter {
    /// Returns the word for it, as in `alerts: [ { on: … } ]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Matter::Halted => "halted",
            Matter::Silent => "silent",
        }
    }
}

/// What is the matter, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subject {
    /// What.
    pub matter: Matter,
    /// The application or the host; `*` for many hosts.
    pub of: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.matter.as_str(), self.of)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Subject, String> {
        let (word, of) = text.split_once(' ').ok_or("it names nobody")?;
        let matter = [Matter::Halted, Matter::Silent].into_iter().find(|it| it.as_str() == word);
        Ok(Subject { matter: matter.ok_or("it is of another kind")?, of: of.to_owned() })
    }
}

/// Something that is the matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which matter of its kind.
    pub about: String,
    /// Since when.
    pub since: Timestamp,
    /// In words, one line.
    pub text: String,
}

/// Something that is or was the matter, as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Case {
    finding: Finding,
    /// Since when this host knows what it knows: that it is so, or that it is over.
    noticed: Timestamp,
    is_over: bool,
    /// Who tells, first of all the first.
    line: Vec<HostName>,
    /// How much longer each waits than the one before it.
    patience: Duration,
}

/// Something for this host to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whom, as [`Alert::id`] names it.
    pub to: String,
    /// What is the matter, and with whom.
    pub subject: Subject,
    /// What it is, or was.
    pub finding: Finding,
    /// It is over.
    pub is_over: bool,
    /// This host has told it: it is for those who forget what is not repeated.
    pub is_told: bool,
}

/// What this host knows of what is the matter with the fleet, and of what was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lookout {
    cases: BTreeMap<Subject, Case>,
    /// What this host told.
    told: Vec<Told>,
    /// What others told.
    others: BTreeMap<HostName, Vec<Told>>,
    /// The last sign of life of each host, where this one listens, and when it listened last.
    heard: BTreeMap<HostName, Heard>,
    listened: Option<Timestamp>,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    sign: String,
    /// When it was there first, as far as this host saw.
    at: Timestamp,
}

impl Lookout {
    /// Notes that something is the matter.
    pub fn found(&mut self, subject: Subject, found: Finding, line: Vec<HostName>, patience: Duration, now: Timestamp) {
        let before = self.cases.get(&subject);
        let same = before.filter(|case| !case.is_over && case.finding.about == found.about);
        let (since, noticed) = same.map_or((found.since, now), |case| (case.finding.since, case.noticed));
        // The line is that of the moment when it was found: later on, who waits for nothing but another commit looks at few.
        let line = same.map_or_else(|| line.into_iter().take(LINE).collect(), |case| case.line.clone());
        let finding = Finding { since, ..found };
        self.cases.insert(subject, Case { finding, noticed: noticed.min(now), is_over: false, line, patience });
    }

    /// Notes that something is the matter no longer.
    pub fn over(&mut self, subject: &Subject, now: Timestamp) {
        if let Some(case) = self.cases.get_mut(subject).filter(|case| !case.is_over) {
            (case.is_over, case.noticed) = (true, now);
        }
    }

    /// Names what is the matter as far as this host knows.
    pub fn open(&self, matter: Matter) -> impl Iterator<Item = (&Subject, &Finding)> {
        let open = self.cases.iter().filter(move |(subject, case)| subject.matter == matter && !case.is_over);
        open.map(|(subject, case)| (subject, &case.finding))
    }

    /// Names the other hosts whose records matter for what is open here.
    pub fn concerned(&self, me: &HostName) -> BTreeSet<HostName> {
        let line = self.cases.values().flat_map(|case| &case.line);
        line.chain(self.others.keys()).filter(|host| *host != me).cloned().collect()
    }

    /// Says to whom `me` listens: to those before it in the line, as long as one of them is there, and to everybody otherwise, or
    /// where it has to find out what became of somebody else; `None` for everybody.
    pub fn listens_to(&self, me: &HostName, watch: &Watch) -> Option<BTreeSet<HostName>> {
        let before: BTreeSet<HostName> = watch.line.iter().take_while(|host| *host != me).cloned().collect();
        let silent: BTreeSet<&str> = self.open(Matter::Silent).map(|(subject, _)| subject.of.as_str()).collect();
        let is_led = before.iter().any(|host| !silent.contains(host.as_str()));
        let is_done = silent.iter().all(|of| before.iter().any(|host| host.as_str() == *of));
        (is_led && is_done).then_some(before)
    }

    /// Takes in what another host told.
    pub fn heard(&mut self, host: &HostName, told: &[Told], now: Timestamp) {
        let latest = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let told: Vec<Told> = told.iter().filter(|told| told.at <= latest).take(MOST_TOLD).cloned().collect();
        match told.is_empty() {
            true => drop(self.others.remove(host)),
            false => drop(self.others.insert(host.clone(), told)),
        }
    }

    /// Takes in the signs of life of all hosts, each of which is another one than the last, and finds out who is silent.
    pub fn listen(
        &mut self,
        me: &HostName,
        watch: &Watch,
        signs: &BTreeMap<HostName, String>,
        heartbeat: Duration,
        now: Timestamp,
    ) {
        // Who did not listen itself knows nothing of that time: when the git server is back, all others come back after it.
        let was_deaf = self.listened.is_none_or(|at| at > now || age(at, now) > heartbeat.saturating_mul(3) / 2);
        self.listened = Some(now);
        let is_open = |host: &HostName| {
            let subject = Subject { matter: Matter::Silent, of: host.to_string() };
            self.cases.get(&subject).is_some_and(|case| !case.is_over)
        };
        let known = |host: &HostName| host != me && watch.hosts.contains_key(host);
        let mut heard = BTreeMap::new();
        for (host, sign) in signs.iter().filter(|(host, _)| known(host)) {
            let sign = Digest::of(sign.as_bytes()).short();
            let before = self.heard.get(host).filter(|before| before.sign == sign && (!was_deaf || is_open(host)));
            let at = before.map_or(now, |before| before.at.min(now));
            heard.insert(host.clone(), Heard { sign, at });
        }
        self.heard = heard;
        self.find_silent(watch, heartbeat, now);
    }

    fn find_silent(&mut self, watch: &Watch, heartbeat: Duration, now: Timestamp) {
        // Two signs of life may be late or lost.
        let longest = |host: &HostName| watch.hosts[host].max(heartbeat.saturating_mul(5) / 2);
        let silent: BTreeMap<&HostName, &Heard> =
            self.heard.iter().filter(|(host, heard)| age(heard.at, now) > longest(host)).collect();
        let subject = |of: &str| Subject { matter: Matter::Silent, of: of.to_owned() };
        let is_single = |host: &HostName| self.cases.get(&subject(host.as_str())).is_some_and(|case| !case.is_over);
        let mut found: Vec<(Subject, Finding)> = Vec::new();
        for (host, heard) in silent.iter().filter(|(host, _)| silent.len() <= MOST_SINGLE || is_single(host)) {
            let text = format!("nothing was heard of it since {}", heard.at.strftime("%Y-%m-%d %H:%M:%SZ"));
            let finding = Finding { about: heard.sign.clone(), since: heard.at, text };
            found.push((subject(host.as_str()), finding));
        }
        if silent.len() > MOST_SINGLE {
            let first: Vec<&str> = silent.keys().take(MOST_SINGLE).map(|host| host.as_str()).collect();
            let more = silent.len() - first.len();
            let text = format!("nothing is heard of {} hosts: {} and {more} more", silent.len(), first.join(", "));
            let since = silent.values().map(|heard| heard.at).max().unwrap_or(now);
            found.push((subject(MANY), Finding { about: "many".to_owned(), since, text }));
        }
        let line: Vec<HostName> = watch.line.iter().filter(|host| !silent.contains_key(host)).cloned().collect();
        let still: BTreeSet<Subject> = found.iter().map(|(subject, _)| subject.clone()).collect();
        for (subject, finding) in found {
            self.found(subject, finding, line.clone(), heartbeat.saturating_mul(2), now);
        }
        let open = self.open(Matter::Silent).map(|(subject, _)| subject.clone());
        let over: Vec<Subject> = open.filter(|subject| !still.contains(subject)).collect();
        over.iter().for_each(|subject| self.over(subject, now));
    }

    /// Says whether it is time to listen again.
    pub fn is_deaf(&self, heartbeat: Duration, now: Timestamp) -> bool {
        self.listened.is_none_or(|at| at > now || age(at, now) >= heartbeat)
    }

    /// Listens no longer: another one does.
    pub fn stop_listening(&mut self, now: Timestamp) {
        self.heard.clear();
        self.listened = None;
        let open: Vec<Subject> = self.open(Matter::Silent).map(|(subject, _)| subject.clone()).collect();
        open.iter().for_each(|subject| self.over(subject, now));
    }

    /// Returns what this host told, as its record says it.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Lists what falls to `me` to tell, who asked for the records of the others at `view` and has taken them in.
    pub fn calls(&self, me: &HostName, alerts: &[Alert], view: Option<Timestamp>) -> Vec<Call> {
        let is_new = |due: Timestamp| view.is_some_and(|view| view > due);
        let due = self.pending(me, alerts).filter(|(_, due)| due.is_none_or(is_new));
        due.map(|(call, _)| call).collect()
    }

    /// Says whether the records of the others have to be looked at again before this host tells something.
    pub fn wants(&self, me: &HostName, alerts: &[Alert], view: Option<Timestamp>, now: Timestamp) -> bool {
        let is_old = |due: Timestamp| view.is_none_or(|view| view <= due);
        self.pending(me, alerts).any(|(_, due)| due.is_some_and(|due| now > due && is_old(due)))
    }

    /// Lists what may fall to `me`, and until when somebody else may tell it first; `None` for what this host told.
    fn pending<'a>(&'a self, me: &'a HostName, alerts: &'a [Alert]) -> impl Iterator<Item = (Call, Option<Timestamp>)> {
        let cases = self.cases.iter().flat_map(move |case| alerts.iter().map(move |alert| (case, alert)));
        cases.filter_map(move |((subject, case), alert)| {
            if !alert.on.contains(subject.matter.as_str()) {
                return None;
            }
            let (to, subject) = (alert.id(), subject.clone());
            let last = self.last(me, &subject, &to).filter(|(_, told)| !told.over);
            let call = |is_told| Call { to, subject, finding: case.finding.clone(), is_over: case.is_over, is_told };
            let mut line: Vec<&HostName> = case.line.iter().collect();
            match (last, case.is_over) {
                (None, true) => return None,
                (Some((teller, told)), false) if told.about == case.finding.about => {
                    // Who forgets hears of it from several: the same again is the same there, and who told it may be down.
                    let place = |host: &HostName| case.line.iter().position(|it| it == host);
                    let first = place(teller).unwrap_or_default();
                    let is_near = place(me).is_some_and(|at| (first..first + REPEATERS).contains(&at));
                    let repeats = teller == me || (alert.receiver.forgets() && is_near);
                    return repeats.then(|| (call(true), None));
                }
                (Some((teller, _)), true) => {
                    // Who told it says that it is over.
                    line.retain(|host| *host != teller);
                    line.insert(0, teller);
                }
                _ => {}
            }
            let before = u32::try_from(line.iter().position(|host| *host == me)?).ok()?;
            if last.is_none() && self.told.iter().filter(|told| !told.over).count() >= MOST_TOLD {
                return None;
            }
            let due = case.noticed.checked_add(case.patience.saturating_mul(before)).unwrap_or(Timestamp::MAX);
            Some((call(false), Some(due)))
        })
    }

    /// Returns what was said last to somebody of a subject, and by whom.
    fn last<'a>(&'a self, me: &'a HostName, subject: &Subject, to: &str) -> Option<(&'a HostName, &'a Told)> {
        let subject = subject.to_string();
        let others = self.others.iter().flat_map(|(host, told)| told.iter().map(move |told| (host, told)));
        let all = self.told.iter().map(|told| (me, told)).chain(others);
        let same = all.filter(|(_, told)| told.subject == subject && told.to == to);
        same.max_by_key(|(host, told)| (told.at, *host))
    }

    /// Notes that `me` told something.
    pub fn tell(&mut self, me: &HostName, call: &Call, now: Timestamp) {
        let (subject, about) = (call.subject.to_string(), call.finding.about.clone());
        // What was told last counts, whatever the clocks of the two hosts say.
        let before = self.last(me, &call.subject, &call.to).map(|(_, told)| told.at);
        let next = before.and_then(|at| at.checked_add(Duration::from_secs(1)).ok());
        let at = next.map_or(now, |next| next.max(now));
        self.told.retain(|told| told.subject != subject || told.to != call.to);
        let (to, since) = (call.to.clone(), call.finding.since);
        self.told.push(Told { subject, about, to, since, at, over: call.is_over });
    }

    /// Forgets what matters to nobody any more.
    pub fn tidy(&mut self, me: &HostName, alerts: &[Alert], now: Timestamp) {
        let is_wanted = |subject: &Subject, alert: &Alert| alert.on.contains(subject.matter.as_str());
        let counts = |told: &Told| {
            let Ok(subject) = Subject::try_from(told.subject.clone()) else { return false };
            let has_ended = told.over && age(told.at, now) >= REMEMBERED;
            let is_known = alerts.iter().any(|alert| alert.id() == told.to && is_wanted(&subject, alert));
            is_known && !has_ended && self.last(me, &subject, &told.to).is_some_and(|(host, _)| host == me)
        };
        let mut kept: Vec<Told> = self.told.iter().filter(|told| counts(told)).cloned().collect();
        while kept.len() > MOST_TOLD {
            // What is over goes first, the oldest of it before.
            let oldest = kept.iter().enumerate().min_by_key(|(_, told)| (!told.over, told.at)).map(|(at, _)| at);
            oldest.map(|at| kept.remove(at));
        }
        self.told = kept;
        let is_owed = |subject: &Subject| {
            let of_one = |alert: &Alert| self.last(me, subject, &alert.id()).is_some_and(|(_, told)| !told.over);
            alerts.iter().any(of_one)
        };
        let mut cases = self.cases.clone();
        cases.retain(|subject, case| {
            alerts.iter().any(|alert| is_wanted(subject, alert)) && (!case.is_over || is_owed(subject))
        });
        self.cases = cases;
        if self.cases.is_empty() {
            self.others.clear();
        }
    }
}

/// Who listens for hosts that are silent, and for how long each may be: for a host that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// All who listen, in the order in which they tell.
    pub line: Vec<HostName>,
    /// All hosts, and how long a rollout waits for each.
    pub hosts: BTreeMap<HostName, Duration>,
}

impl Watch {
    /// Says what `me` listens for, if it is one of those who do.
    pub fn of(fleet: &Fleet, me: &HostName) -> Option<Watch> {
        if !fleet.alerts.iter().any(|alert| alert.on.contains(Matter::Silent.as_str())) {
            return None;
        }
        let mut line: Vec<(_, &HostName)> = fleet.hosts.keys().map(|it| (rollout::rank(it, &fleet.name), it)).collect();
        line.sort_unstable();
        let line: Vec<HostName> = line.into_iter().take(LINE).map(|(_, host)| host.clone()).collect();
        if !line.contains(me) {
            return None;
        }
        let patience = |host: &HostName| {
            let policies = fleet.placed(host).map(|(app, _)| rollout::policy(fleet, app, host).silent_after);
            policies.max().unwrap_or(manifest::SILENT_AFTER)
        };
        let hosts = fleet.hosts.keys().map(|host| (host.clone(), patience(host))).collect();
        Some(Watch { line, hosts })
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}
