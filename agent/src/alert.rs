//! Tells somebody when a person is needed, and when no longer: webhooks, chat, Alertmanager, ntfy.
//!
//! What is told follows from what is, never from a queue of what happened: each receiver has a task that compares the picture of the
//! moment with what it told there last. So nothing is told twice, a receiver that is away costs nothing but its own silence, and
//! what has come and gone meanwhile needs nobody any more. No pass ever waits for any of it.

mod message;
mod receiver;
mod trouble;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
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

    /// Begins to tell, for as long as pictures come.
    pub fn begin(self, pictures: &watch::Receiver<Arc<Snapshot>>) {
        let (kinds, state): (Arc<[Kind]>, Arc<Path>) = (self.kinds.into(), self.state.into());
        for receiver in self.receivers {
            let teller = Teller {
                told: Told::read(&state, receiver.name()),
                receiver,
                kinds: Arc::clone(&kinds),
                tells_recovery: self.tells_recovery,
                state: Arc::clone(&state),
                not_before: BTreeMap::new(),
                repeat_at: Instant::now(),
                failed: None,
                complaint: String::new(),
            };
            tokio::spawn(teller.tell(pictures.clone()));
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
}

impl Teller {
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
        if is_repeated {
            self.repeat_at = Instant::now() + REPEAT;
            next = Some(self.repeat_at);
        }
        self.not_before.retain(|_, due| *due > Instant::now());
        next.map(|next| next.saturating_duration_since(Instant::now()).max(SHORTEST))
    }

    /// Tells one thing; returns how long to wait when it could not be delivered.
    async fn tell_one(&mut self, change: &Change, picture: &Snapshot) -> Result<(), Duration> {
        let is_silent = change.now.is_none() && !self.tells_recovery && !self.receiver.forgets();
        if !is_silent && let Err(error) = self.receiver.deliver(&Message::of(picture, change, Timestamp::now())).await {
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
        self.keep(change);
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
            && let Err(error) = self.told.write(&self.state, self.receiver.name())
        {
            warn!(%error, "failed to write down what was told: it may be told twice");
        }
    }
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
