//! What is the matter with the fleet as a whole, as far as this host sees it, and what of it falls to it to tell: kept over restarts,
//! and read from the records of the others. The judgement is [`spec::lookout`]'s.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use spec::id::{AppName, HostName};
use spec::lookout::{self as judgement, Call, Finding, Matter, Subject};
use spec::record::Record;
use tracing::warn;

use crate::belief::Belief;
use crate::ears::Hearing;
use crate::git::Peers;
use crate::rollout::Halts;

/// The file's name in the state folder. It can be lost: what this host told is told once more then.
const NAME: &str = "lookout.json";

/// What this host knows of what is the matter with its fleet.
pub struct Lookout {
    path: PathBuf,
    host: HostName,
    known: judgement::Lookout,
    saved: judgement::Lookout,
    /// When the records of those were asked for last that matter for what is known.
    view: Option<Timestamp>,
    heartbeat: Duration,
    /// Nobody could see what this host tells.
    is_mute: bool,
    is_looking: bool,
}

impl Lookout {
    /// Reads what was kept.
    pub fn open(state: &Path, host: &HostName, reports: bool, heartbeat: Duration) -> Lookout {
        let path = state.join(NAME);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let known: judgement::Lookout = serde_json::from_str(&text).unwrap_or_default();
        let saved = known.clone();
        let view = None;
        Lookout { path, host: host.clone(), known, saved, view, heartbeat, is_mute: !reports, is_looking: false }
    }

    /// Keeps nothing from now on: somebody else does.
    pub fn only_look(&mut self) {
        self.is_looking = true;
    }

    /// The repository does not let this host say what it told, so that it is for others to tell.
    pub fn denied(&mut self) {
        self.is_mute = true;
    }

    /// The others can see again what this host told.
    pub fn signed(&mut self) {
        self.is_mute = false;
    }

    /// Takes in which rollouts are halted, as this host sees it by what it knows of the others.
    pub fn take(&mut self, belief: &Belief, halts: Halts, now: Timestamp) {
        if !tells(belief, Matter::Halted) && self.known.open(Matter::Halted).next().is_none() {
            return;
        }
        let subject = |app: &AppName| Subject { matter: Matter::Halted, of: app.to_string() };
        let open = self.known.open(Matter::Halted).map(|(subject, _)| subject.clone());
        let is_clear = |subject: &Subject| !halts.unclear.iter().any(|app| app.as_str() == subject.of);
        let is_halted = |subject: &Subject| halts.halted.keys().any(|app| app.as_str() == subject.of);
        let over: Vec<Subject> = open.filter(|subject| is_clear(subject) && !is_halted(subject)).collect();
        over.iter().for_each(|subject| self.known.over(subject, now));
        for (app, (halt, patience)) in halts.halted {
            let text = halt.because.strip_prefix("halted: ").unwrap_or(&halt.because).to_owned();
            let finding = Finding { about: halt.about, since: now, text };
            self.known.found(subject(&app), finding, halt.waiting, patience, now);
        }
        if self.known.concerned(&self.host).is_empty() {
            // Nobody else can have told anything.
            self.view = Some(now);
        }
        self.save();
    }

    /// Returns whom to ask for with the next look at the repository, for this alone.
    pub fn asks(&self, belief: &Belief, now: Timestamp) -> Option<Peers> {
        if self.is_mute {
            return None;
        }
        let mut hosts = BTreeSet::new();
        if let Some(watch) = belief.watch.as_ref().filter(|_| self.known.is_deaf(self.heartbeat, now)) {
            match self.known.listens_to(&self.host, watch) {
                Some(before) => hosts.extend(before),
                None => return Some(Peers::All),
            }
        }
        if self.known.wants(&self.host, &belief.alerts, self.view, now) {
            hosts.extend(self.known.concerned(&self.host));
        }
        (!hosts.is_empty()).then_some(Peers::Some(hosts))
    }

    /// Takes in what is heard of `whom`, who were asked for at `asked`, and what of others was read before.
    pub fn look<'r>(
        &mut self,
        hearing: &mut Hearing<'_>,
        belief: &Belief,
        read: impl Iterator<Item = (&'r HostName, &'r Record)>,
        (whom, asked): (&Peers, Timestamp),
        now: Timestamp,
    ) {
        if belief.alerts.is_empty() {
            return;
        }
        let were_asked = |hosts: &BTreeSet<HostName>| match whom {
            Peers::All => true,
            Peers::Some(asked) => hosts.is_subset(asked),
        };
        let is_new = were_asked(&self.known.concerned(&self.host));
        let line = belief.watch.iter().flat_map(|watch| &watch.line).cloned();
        let mut unread: BTreeSet<HostName> = self.known.concerned(&self.host).into_iter().chain(line).collect();
        unread.remove(&self.host);
        for (host, record) in read {
            self.known.heard(host, &record.told, now);
        }
        for host in unread {
            if let Some(record) = hearing.record(&host) {
                self.known.heard(&host, &record.told, now);
            }
        }
        match belief.watch.as_ref().filter(|_| !self.is_mute) {
            Some(watch) => {
                let whom = self.known.listens_to(&self.host, watch).map_or(Peers::All, Peers::Some);
                let is_heard = match &whom {
                    Peers::All => were_asked(&watch.hosts.keys().filter(|host| **host != self.host).cloned().collect()),
                    Peers::Some(hosts) => were_asked(hosts),
                };
                if is_heard {
                    self.known.listen(&self.host, watch, &hearing.values(&whom), self.heartbeat, now);
                }
            }
            None => self.known.stop_listening(now),
        }
        if is_new {
            self.view = Some(asked);
        }
        self.known.tidy(&self.host, &belief.alerts, now);
        self.save();
    }

    /// Lists what falls to this host to tell.
    pub fn calls(&self, belief: &Belief) -> Vec<Call> {
        if self.is_mute { Vec::new() } else { self.known.calls(&self.host, &belief.alerts, self.view) }
    }

    /// Notes that something was told.
    pub fn told(&mut self, belief: &Belief, call: &Call, now: Timestamp) {
        self.known.tell(&self.host, call, now);
        self.known.tidy(&self.host, &belief.alerts, now);
        self.save();
    }

    /// Writes into a record what was told.
    pub fn announce(&self, record: &mut Record) {
        record.told = self.known.told().to_vec();
    }

    fn save(&mut self) {
        if self.is_looking || self.known == self.saved {
            return;
        }
        match write(&self.path, &self.known) {
            Ok(()) => self.saved.clone_from(&self.known),
            Err(error) => warn!(%error, "failed to keep what was told of the fleet: it may be told twice"),
        }
    }
}

/// Says whether somebody wants to hear of a matter.
fn tells(belief: &Belief, matter: Matter) -> bool {
    belief.alerts.iter().any(|alert| alert.on.contains(matter.as_str()))
}

fn write(path: &Path, known: &judgement::Lookout) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec(known)?)?;
    fs::rename(&new, path)
}
