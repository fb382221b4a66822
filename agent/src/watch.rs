//! Notices that something on the host may be different, within milliseconds, by what systemd, the engine and the kernel say by
//! themselves. What it is, the pass finds out: a message that was missed costs time, and one too many costs a look.

mod files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use spec::desired::Desired;
use spec::id::User;
use spec::memory::Memory;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use crate::engine::{Engine, Event, Events};
use crate::observe;
use crate::pass::Edition;
use crate::systemd::{Heard, Signals, object_path};
use files::Files;

/// How long a file must be left alone before it is looked at: whoever is writing may not be done.
const FILE_AT_REST: Duration = Duration::from_millis(25);
/// How long a unit or a container must be left alone: they come down and up again in one movement when somebody restarts them.
const AT_REST: Duration = Duration::from_millis(5);
/// How long a container must be left alone whose process has ended: it may be on its way out, or up again.
const ENDED_AT_REST: Duration = Duration::from_millis(60);
/// The longest that a look is put off because there is no rest.
const LONGEST: Duration = Duration::from_secs(1);
/// Looks in a row that find nothing to do, before they become rarer.
const FREE: u32 = 3;
/// The pause between looks that find nothing, at first; doubled with each.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long, what found nothing is forgotten.
const CALM: Duration = Duration::from_secs(30);
/// The wait before somebody who does not speak is called again; doubled up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// Whom we listen to, beside the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speaker {
    /// The host's manager, or a user's.
    Manager(Option<User>),
    /// The container engine.
    Engine,
}

/// What somebody said.
enum Said {
    Unit((Option<User>, String)),
    UnitFiles,
    Container(Event),
    /// It speaks again after a silence: anything may have happened.
    Back,
}

/// Listens to everything that is wanted.
pub struct Watch {
    engine: Arc<Engine>,
    edition: Option<Edition>,
    files: Option<Files>,
    /// Files in which a person asks for something.
    requests: [PathBuf; 3],
    speakers: BTreeSet<Speaker>,
    voices: SelectAll<BoxStream<'static, Said>>,
    units: BTreeSet<(Option<User>, String)>,
    containers: BTreeSet<String>,
    stir: Option<Stir>,
    pace: Pace,
}

/// Something has happened, and may go on.
#[derive(Clone, Copy, Debug)]
struct Stir {
    since: Instant,
    /// When files are at rest, and when everything else is, as far as is known.
    files: Instant,
    others: Instant,
}

/// What happened, by how long it takes until no more of it is to be expected.
#[derive(Clone, Copy, Debug)]
enum Change {
    File,
    Ended,
    Other,
}

impl Stir {
    /// Takes in that something happens at `now`.
    fn more(before: Option<Stir>, now: Instant, change: Change) -> Stir {
        let mut stir = before.unwrap_or(Stir { since: now, files: now, others: now });
        match change {
            Change::File => stir.files = now + FILE_AT_REST,
            Change::Ended => stir.others = now + ENDED_AT_REST,
            Change::Other => stir.others = now + AT_REST,
        }
        stir
    }

    fn due(self) -> Instant {
        self.files.max(self.others).min(self.since + LONGEST)
    }
}

/// How often looks found nothing lately.
#[derive(Debug, Default)]
struct Pace {
    idle: u32,
    looked_at: Option<Instant>,
    not_before: Option<Instant>,
}

impl Watch {
    /// Listens to nothing yet; to `requests`, files in which a person asks for something, as soon as anything is followed.
    pub fn new(engine: Arc<Engine>, requests: [PathBuf; 3]) -> Watch {
        let files = Files::new().inspect_err(|error| {
            tracing::warn!(
                "changes to files are noticed at the next look only, since the kernel does not let us listen: {error}"
            );
        });
        Watch {
            engine,
            edition: None,
            files: files.ok(),
            requests,
            speakers: BTreeSet::new(),
            voices: SelectAll::new(),
            units: BTreeSet::new(),
            containers: BTreeSet::new(),
            stir: None,
            pace: Pace::default(),
        }
    }

    /// Listens for what concerns these from now on, and for nothing else. While they are the `edition` of the last time, only
    /// folders are looked for that were not there then.
    pub fn follow(&mut self, edition: Edition, desired: &Desired, memory: &Memory) {
        if self.edition == Some(edition) {
            self.files.iter_mut().for_each(Files::complete);
            return;
        }
        self.edition = Some(edition);
        let interest = observe::interest(desired, memory);
        if let Some(files) = &mut self.files {
            let paths = interest.files.iter().map(|path| Path::new(path.as_str()));
            files.follow(paths.chain(self.requests.iter().map(PathBuf::as_path)));
        }
        self.units = interest.units.iter().map(|unit| (unit.user().cloned(), object_path(unit))).collect();
        self.containers = interest.containers;
        let mut speakers: BTreeSet<Speaker> =
            self.units.iter().map(|(user, _)| Speaker::Manager(user.clone())).collect();
        if !self.containers.is_empty() {
            speakers.insert(Speaker::Engine);
        }
        if speakers != self.speakers {
            self.voices = speakers.iter().map(|speaker| voice(speaker.clone(), &self.engine)).collect();
            self.speakers = speakers;
        }
    }

    /// Says whether all that is followed can be heard of; else only a look finds out.
    pub fn hears_all(&self) -> bool {
        self.files.as_ref().is_some_and(Files::hears_all)
    }

    /// Waits until something has happened to what is followed and has come to rest. Nothing is lost when this is not waited for
    /// to the end.
    pub async fn next(&mut self) {
        loop {
            let due = self.stir.map(|stir| self.pace.due(stir.due()));
            tokio::select! {
                change = hear(&mut self.files, &mut self.voices, &self.units, &self.containers) => {
                    self.stir = Some(Stir::more(self.stir, Instant::now(), change));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.stir = None;
                    return;
                }
            }
        }
    }

    /// Takes in whether the look that this led to found anything to do.
    pub fn looked(&mut self, is_idle: bool) {
        self.pace.looked(is_idle, Instant::now());
    }
}

/// Waits for something that concerns us.
async fn hear(
    files: &mut Option<Files>,
    voices: &mut SelectAll<BoxStream<'static, Said>>,
    units: &BTreeSet<(Option<User>, String)>,
    containers: &BTreeSet<String>,
) -> Change {
    let changed = async {
        match files {
            Some(files) => files.next().await,
            None => std::future::pending().await,
        }
    };
    let said = async {
        loop {
            match voices.next().await {
                Some(Said::Unit(unit)) if units.contains(&unit) => return Change::Other,
                Some(Said::Container(event)) if containers.contains(&event.name) => {
                    return if event.has_ended { Change::Ended } else { Change::Other };
                }
                Some(Said::UnitFiles | Said::Back) => return Change::Other,
                Some(Said::Unit(_) | Said::Container(_)) => {}
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = changed => Change::File,
        change = said => change,
    }
}

impl Pace {
    fn due(&self, at: Instant) -> Instant {
        self.not_before.map_or(at, |not_before| not_before.max(at))
    }

    fn looked(&mut self, is_idle: bool, now: Instant) {
        let is_calm = self.looked_at.is_none_or(|before| now.duration_since(before) > CALM);
        self.looked_at = Some(now);
        self.idle = match (is_idle, is_calm) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => self.idle.saturating_add(1),
        };
        let many = self.idle.saturating_sub(FREE);
        self.not_before = (many > 0).then(|| now + PAUSE.saturating_mul(1 << (many - 1).min(16)).min(LONGEST_PAUSE));
    }
}

/// Listens to one of them, and calls it again when it falls silent.
fn voice(speaker: Speaker, engine: &Arc<Engine>) -> BoxStream<'static, Said> {
    match speaker {
        Speaker::Manager(user) => {
            let open = move || {
                let user = user.clone();
                async move {
                    let signals = Signals::open(user.as_ref()).await.map_err(|error| crate::chain(&error))?;
                    let said = move |heard| match heard {
                        Heard::Unit(path) => Said::Unit((user.clone(), path)),
                        Heard::Files => Said::UnitFiles,
                    };
                    let heard = stream::unfold(signals, |mut signals| async { Some((signals.next().await?, signals)) });
                    Ok(heard.map(said).boxed())
                }
            };
            tireless("systemd", open).boxed()
        }
        Speaker::Engine => {
            let engine = Arc::clone(engine);
            let open = move || {
                let engine = Arc::clone(&engine);
                async move {
                    let events = engine.events().map_err(|error| crate::chain(&error))?;
                    let heard = stream::unfold(events, |mut events: Events| async {
                        let name = events.next().await?;
                        Some((name, events))
                    });
                    Ok(heard.map(Said::Container).boxed())
                }
            };
            tireless("the engine", open).boxed()
        }
    }
}

/// What a voice is doing.
enum Voice {
    Silent(Duration),
    Speaking(BoxStream<'static, Said>, Instant),
}

/// Goes on with a new stream when one has ended or cannot be had, after a pause that grows. After each silence it says so.
fn tireless<F>(whom: &'static str, open: impl Fn() -> F + Send + 'static) -> impl Stream<Item = Said> + Send
where
    F: Future<Output = Result<BoxStream<'static, Said>, String>> + Send,
{
    stream::unfold((Voice::Silent(Duration::ZERO), open), move |(mut voice, open)| async move {
        loop {
            voice = match voice {
                Voice::Silent(wait) => {
                    sleep(wait.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
                    match open().await {
                        Ok(speaking) if wait.is_zero() => Voice::Speaking(speaking, Instant::now()),
                        Ok(speaking) => {
                            debug!(whom, "listening again");
                            return Some((Said::Back, (Voice::Speaking(speaking, Instant::now()), open)));
                        }
                        Err(why) => {
                            debug!(whom, why, "cannot listen; what happens is noticed at the next look");
                            Voice::Silent((wait * 2).clamp(AGAIN, LATEST))
                        }
                    }
                }
                Voice::Speaking(mut speaking, since) => match speaking.next().await {
                    Some(said) => return Some((said, (Voice::Speaking(speaking, since), open))),
                    // One that ends at once is not called again at once.
                    None if since.elapsed() < AGAIN => Voice::Silent(LATEST / 4),
                    None => Voice::Silent(AGAIN),
                },
            };
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_at_work_is_not_fought_and_one_without_end_is() {
        let began = Instant::now();
        let mut now = began;
        let mut stir = Stir::more(None, now, Change::File);
        assert_eq!(stir.due(), began + FILE_AT_REST);
        for _ in 0..10 {
            now += FILE_AT_REST / 2;
            stir = Stir::more(Some(stir), now, Change::File);
            assert_eq!(stir.due(), now + FILE_AT_REST);
        }
        // A unit that stops meanwhile does not cut that short.
        stir = Stir::more(Some(stir), now, Change::Other);
        assert_eq!(stir.due(), now + FILE_AT_REST);
        for _ in 0..1000 {
            now += FILE_AT_REST / 2;
            stir = Stir::more(Some(stir), now, Change::File);
        }
        assert_eq!(stir.due(), began + LONGEST);
    }

    #[test]
    fn looks_that_find_nothing_become_rarer_and_one_that_finds_something_is_prompt_again() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let mut now = began;
        let mut looks = 0;
        // Something happens all the time, and is nothing to us.
        while now < began + Duration::from_secs(60) {
            now = pace.due(now + AT_REST);
            pace.looked(true, now);
            looks += 1;
        }
        assert!(looks < 25, "{looks} looks within a minute");
        pace.looked(false, now);
        assert_eq!(pace.due(now + AT_REST), now + AT_REST);
        // After its own repair there is nothing to do, and the next one is not later for it.
        pace.looked(true, now);
        pace.looked(true, now + CALM + CALM);
        assert_eq!(pace.due(now), now);
    }
}
