//! Tells somebody when a person is needed, and when no longer: webhooks, chat, Alertmanager, ntfy.
//!
//! What is told follows from what is, never from a queue of what happened: each receiver has a task that compares the picture of the
//! moment with what it told there last. So nothing is told twice, a receiver that is away costs nothing but its own silence, and
//! what has come and gone meanwhile needs nobody any more. No pass ever waits for any of it.

mod message;
mod receiver;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::lookout::Call;
use spec::manifest::Alert;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::settings::Settings;
use crate::snapshot::Snapshot;
pub use message::Message;
pub use receiver::{Receiver, Undelivered};
pub use trouble::{Kind, Subject, Trouble};

/// The wait after the first failure to deliver; doubled with each further one.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest such wait.
const LATEST: Duration = Duration::from_secs(900);
/// Of one subject no more is told before: what comes and goes all the time is told once in a while.
const CALM: Duration = Duration::from_secs(20);
/// No wait is shorter: what is due now may be due a moment later by another clock.
const SHORTEST: Duration = Duration::from_millis(10);
/// A receiver that forgets what is not repeated is told again after this time.
const REPEAT: Duration = Duration::from_secs(20 * 60);

/// What one receiver was told last of each subject that is in trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told(BTreeMap<String, Trouble>);

/// Who is told, and what of it.
pub struct Alerts {
    receivers: Vec<Receiver>,
    kinds: Vec<Kind>,
    tells_recovery: bool,
    state: PathBuf,
}

impl Alerts {
    /// Reads from the settings who is told.
    ///
    /// # Errors
    /// A file that they name cannot be read, or a client cannot be built.
    pub fn of(settings: &Settings) -> anyhow::Result<Alerts> {
        let events = &settings.alerts.on;
        Ok(Alerts {
            receivers: Receiver::all(&settings.alerts)?,
            kinds: Kind::ALL.into_iter().filter(|kind| events.iter().any(|event| event == kind.as_str())).collect(),
            tells_recovery: events.iter().any(|event| event == message::RECOVERED),
            state: settings.state.clone(),
        })
    }

    /// Returns who is told.
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// Begins to tell, for as long as pictures come. What was told of the fleet as a whole is passed on to `told_of`.
    pub fn begin(self, pictures: &watch::Receiver<Arc<Snapshot>>, told_of: mpsc::Sender<Call>) {
        let (kinds, state): (Arc<[Kind]>, Arc<Path>) = (self.kinds.into(), self.state.into());
        for receiver in self.receivers {
            let (kinds, told_of) = (Arc::clone(&kinds), told_of.clone());
            let teller = Teller::new(receiver, kinds, self.tells_recovery, Arc::clone(&state), told_of);
            tokio::spawn(teller.tell(pictures.clone()));
        }
        tokio::spawn(follow(state, told_of, pictures.clone()));
    }
}

/// Tells those whom the repository names, for as long as it does.
async fn follow(state: Arc<Path>, told_of: mpsc::Sender<Call>, mut pictures: watch::Receiver<Arc<Snapshot>>) {
    let mut tellers: BTreeMap<Alert, JoinHandle<()>> = BTreeMap::new();
    loop {
        let picture = Arc::clone(&pictures.borrow_and_update());
        let is_known = picture.alerts.iter().all(|alert| tellers.contains_key(alert));
        if picture.ready && !(is_known && picture.alerts.len() == tellers.len()) {
            tellers.retain(|alert, teller| {
                let stays = picture.alerts.contains(alert);
                if !stays {
                    teller.abort();
                }
                stays
            });
            let ids: BTreeSet<String> = picture.alerts.iter().map(Alert::id).collect();
            Told::keep_only(&state, &ids);
            for alert in picture.alerts.iter() {
                if !tellers.contains_key(alert)
                    && let Some(teller) = Teller::of(alert, &state, &told_of)
                {
                    tellers.insert(alert.clone(), tokio::spawn(teller.tell(pictures.clone())));
                }
            }
        }
        if pictures.changed().await.is_err() {
            return;
        }
    }
}

/// What is told to one receiver.
struct Teller {
    receiver: Receiver,
    kinds: Arc<[Kind]>,
    tells_recovery: bool,
    state: Arc<Path>,
    told: Told,
    not_before: BTreeMap<String, Instant>,
    repeat_at: Instant,
    /// When the next delivery may be tried after one that failed, and how long that wait is.
    failed: Option<(Instant, Duration)>,
    /// Why the last delivery failed, so that it is said once.
    complaint: String,
    /// Whom it is told when something of the fleet was told.
    told_of: mpsc::Sender<Call>,
    /// What was told of the fleet and may be asked for again until that is known.
    sent: BTreeMap<String, Call>,
}

impl Teller {
    fn new(
        receiver: Receiver,
        kinds: Arc<[Kind]>,
        tells_recovery: bool,
        state: Arc<Path>,
        told_of: mpsc::Sender<Call>,
    ) -> Teller {
        Teller {
            told: Told::read(&state, &receiver.key()),
            receiver,
            kinds,
            tells_recovery,
            state,
            not_before: BTreeMap::new(),
            repeat_at: Instant::now(),
            failed: None,
            complaint: String::new(),
            told_of,
            sent: BTreeMap::new(),
        }
    }

    /// Makes one for somebody whom the repository names.
    fn of(alert: &Alert, state: &Arc<Path>, told_of: &mpsc::Sender<Call>) -> Option<Teller> {
        let receiver = Receiver::of(alert);
        let receiver = receiver.inspect_err(|error| warn!("somebody whom fleet.yaml names cannot be told: {error:#}"));
        let kinds = Kind::ALL.into_iter().filter(|kind| alert.on.contains(kind.as_str())).collect();
        let tells_recovery = alert.on.contains(message::RECOVERED);
        Some(Teller::new(receiver.ok()?, kinds, tells_recovery, Arc::clone(state), told_of.clone()))
    }

    async fn tell(mut self, mut pictures: watch::Receiver<Arc<Snapshot>>) {
        loop {
            let picture = Arc::clone(&pictures.borrow_and_update());
            let wait = if picture.ready { self.tell_all(&picture).await } else { None };
            let wait = wait.unwrap_or(LATEST);
            // A change of the picture, or the time at which something is due that was put off.
            match timeout(wait, pictures.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return,
            }
        }
    }

    /// Tells what is new in a picture. Returns when something is due that was put off.
    async fn tell_all(&mut self, picture: &Snapshot) -> Option<Duration> {
        let now = Instant::now();
        if let Some((again_at, _)) = self.failed.filter(|(again_at, _)| *again_at > now) {
            return Some(again_at - now);
        }
        let is_repeated = self.receiver.forgets() && now >= self.repeat_at;
        let mut next: Option<Instant> = self.receiver.forgets().then_some(self.repeat_at);
        for change in changes(&self.told, picture, &self.kinds, is_repeated) {
            let due = self.not_before.get(&change.subject.to_string()).copied().filter(|due| *due > now);
            match due.filter(|_| !change.is_repeated) {
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => {
                    if let Err(wait) = self.tell_one(&change, picture).await {
                        return Some(wait);
                    }
                }
            }
        }
        if let Err(wait) = self.tell_of_the_fleet(picture, is_repeated, &mut next).await {
            return Some(wait);
        }
        if is_repeated {
            self.repeat_at = Instant::now() + REPEAT;
            next = Some(self.repeat_at);
        }
        self.not_before.retain(|_, due| *due > Instant::now());
        next.map(|next| next.saturating_duration_since(Instant::now()).max(SHORTEST))
    }

    /// Tells what of the fleet falls to this host, and passes on that it did.
    async fn tell_of_the_fleet(
        &mut self,
        picture: &Snapshot,
        is_repeated: bool,
        next: &mut Option<Instant>,
    ) -> Result<(), Duration> {
        let Some(id) = self.receiver.id().map(str::to_owned) else { return Ok(()) };
        let calls = || picture.calls.iter().filter(|call| call.to == id);
        self.sent.retain(|key, _| calls().any(|call| !call.is_told && call.subject.to_string() == *key));
        for call in calls() {
            let key = call.subject.to_string();
            let is_again = call.is_told && is_repeated && !call.is_over;
            let is_sent = self.sent.get(&key).is_some_and(|sent| is_same(sent, call));
            if is_sent || (call.is_told && !is_again) {
                continue;
            }
            let now = Instant::now();
            if let Some(due) = self.not_before.get(&key).copied().filter(|due| *due > now && !is_again) {
                *next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            self.deliver(call.is_over, &Message::of_fleet(picture, call, Timestamp::now())).await?;
            if is_again {
                continue;
            }
            self.not_before.insert(key.clone(), Instant::now() + CALM);
            self.sent.insert(key, call.clone());
            if self.told_of.send(call.clone()).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells one thing; returns how long to wait when it could not be delivered.
    async fn tell_one(&mut self, change: &Change, picture: &Snapshot) -> Result<(), Duration> {
        self.deliver(change.now.is_none(), &Message::of(picture, change, Timestamp::now())).await?;
        self.keep(change);
        Ok(())
    }

    /// Delivers a message, unless it is that something is over and nobody wants to hear of that.
    async fn deliver(&mut self, is_over: bool, message: &Message) -> Result<(), Duration> {
        let is_silent = is_over && !self.tells_recovery && !self.receiver.forgets();
        if !is_silent && let Err(error) = self.receiver.deliver(message).await {
            let wait = self.failed.map_or(AGAIN, |(_, wait)| (wait * 2).min(LATEST));
            self.failed = Some((Instant::now() + wait.mul_f64(0.75 + fastrand::f64() / 4.0), wait));
            let text = error.to_string();
            if self.complaint != text {
                warn!(receiver = self.receiver.name(), "an alert could not be delivered; it is tried again: {text}");
                self.complaint = text;
            }
            return Err(wait);
        }
        if self.failed.take().is_some() {
            info!(receiver = self.receiver.name(), "alerts are delivered again");
            self.complaint.clear();
        }
        Ok(())
    }

    fn keep(&mut self, change: &Change) {
        let key = change.subject.to_string();
        if !change.is_repeated {
            self.not_before.insert(key.clone(), Instant::now() + CALM);
        }
        let before = match &change.now {
            Some(trouble) => self.told.0.insert(key, trouble.clone()),
            None => self.told.0.remove(&key),
        };
        if before.as_ref() != change.now.as_ref()
            && let Err(error) = self.told.write(&self.state, &self.receiver.key())
        {
            warn!(%error, "failed to write down what was told: it may be told twice");
        }
    }
}

/// Says whether both tell the same.
fn is_same(one: &Call, other: &Call) -> bool {
    (&one.finding.about, one.is_over) == (&other.finding.about, other.is_over)
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub subject: Subject,
    /// What was told of it last.
    pub before: Option<Trouble>,
    /// What is so now; `None` when it is well.
    pub now: Option<Trouble>,
    /// It was told already.
    pub is_repeated: bool,
}

/// Compares what was told with what is. What is changing just now is left as it was told.
fn changes(told: &Told, picture: &Snapshot, kinds: &[Kind], is_repeated: bool) -> Vec<Change> {
    let (now, open) = trouble::of(picture, kinds);
    let mut changes = Vec::new();
    for (subject, trouble) in &now {
        let before = told.0.get(&subject.to_string()).cloned();
        let is_same = before.as_ref().is_some_and(|before| before.is_same(trouble));
        if !is_same || is_repeated {
            let now = if is_same { before.clone() } else { Some(trouble.clone()) };
            changes.push(Change { subject: subject.clone(), before, now, is_repeated: is_same });
        }
    }
    for (key, before) in &told.0 {
        let subject = Subject::parse(key);
        if !now.contains_key(&subject) && !open.contains(&subject) {
            changes.push(Change { subject, before: Some(before.clone()), now: None, is_repeated: false });
        }
    }
    changes
}

impl Told {
    fn path(state: &Path, receiver: &str) -> PathBuf {
        state.join(format!("alerts-{receiver}.json"))
    }

    /// Forgets what was told those whom the repository names no longer.
    fn keep_only(state: &Path, ids: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(state) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix("alerts-fleet-").and_then(|rest| rest.strip_suffix(".json"));
            if id.is_some_and(|id| !ids.contains(id))
                && let Err(error) = fs::remove_file(entry.path())
            {
                warn!(%error, "failed to remove {name}, which is of no use any more");
            }
        }
    }

    /// Reads what was told before the agent was started; nothing when that cannot be read, so that it is rather told twice.
    fn read(state: &Path, receiver: &str) -> Told {
        let text = fs::read_to_string(Told::path(state, receiver)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write(&self, state: &Path, receiver: &str) -> io::Result<()> {
        let path = Told::path(state, receiver);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string(self)?)?;
        fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests;
