//! What the services and containers of an application said, on one line of time: the journal for units, the engine for containers.
//!
//! Nothing is kept: each line goes through a channel of a fixed size to whoever reads, and a reader that goes away ends it all.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use spec::desired::Desired;
use spec::id::{AppName, ContainerName, ResourceId, UnitName};
use spec::memory::Memory;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::engine::Engine;
use crate::systemd::Entries;

/// The most lines that are shown of what was said already: more belongs to `journalctl`.
pub const MOST: usize = 20_000;
/// How many lines may be on their way to the reader.
const QUEUE: usize = 256;
/// What was said already is here when nothing more came for so long; only then the order is known.
const QUIET: Duration = Duration::from_millis(250);
/// Nobody waits longer for all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nor, where more is to come, for the first line: a service that never falls silent is not waited for.
const BEGIN: Duration = Duration::from_millis(1500);
/// The wait before a container that went away is looked for again, first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Something that speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A unit, in the journal.
    Unit(UnitName),
    /// A container, by its engine.
    Container(ContainerName),
}

impl Source {
    /// Returns its name, as it stands before each line.
    pub fn name(&self) -> &str {
        match self {
            Source::Unit(unit) => unit.as_str(),
            Source::Container(name) => name.as_str(),
        }
    }

    /// Says whether a person may mean this one by `text`.
    pub fn is_called(&self, text: &str) -> bool {
        match self {
            Source::Unit(unit) => unit.as_str() == text || unit.stem() == text,
            Source::Container(name) => name.as_str() == text,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it was said.
    pub at: Timestamp,
    /// The unit or container that it is about.
    pub source: String,
    /// systemd says it of the unit.
    pub by_systemd: bool,
    /// How bad it is, from 0 to 7 as with syslog(3), where that is known.
    pub priority: Option<u8>,
    /// What was said, without its line end; may hold anything.
    pub text: String,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose words.
    pub sources: BTreeSet<Source>,
    /// The newest so many lines of what was said already.
    pub lines: usize,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Whether to go on with what is said from now on.
    pub follow: bool,
}

/// Lines, and what could not be read.
#[derive(Debug)]
pub enum Heard {
    /// A line.
    Line(Line),
    /// Some source cannot be read; the others go on.
    Trouble(String),
}

/// Finds everything of an application that may have said something: wanted, or still there.
pub fn sources(app: &AppName, desired: Option<&Desired>, memory: &Memory) -> BTreeSet<Source> {
    let wanted = desired.and_then(|desired| desired.apps.get(app));
    let units = wanted.into_iter().flat_map(|wanted| wanted.units.keys());
    let units = units.chain(memory.units.iter().filter(|(_, known)| known.app == *app).map(|(unit, _)| unit));
    let containers = wanted.into_iter().flat_map(|wanted| wanted.containers.keys());
    let owned = memory.owned.iter().filter(|(_, owned)| owned.app == *app).filter_map(|(id, _)| match id {
        ResourceId::Container(name) => Some(name),
        ResourceId::File(_) | ResourceId::Unit(_) | ResourceId::Network(_) | ResourceId::Volume(_) => None,
    });
    let units = units.filter(|unit| !unit.is_template()).cloned().map(Source::Unit);
    units.chain(containers.chain(owned).cloned().map(Source::Container)).collect()
}

/// Begins to read. What was said already comes first, in its order; then, with `follow`, what is said.
pub fn read(query: Query, engine: Engine) -> mpsc::Receiver<Heard> {
    let (reader, heard) = mpsc::channel(QUEUE);
    tokio::spawn(merge(query, engine, reader));
    heard
}

/// Puts the words of all sources into one order, as far as they were said already.
async fn merge(query: Query, engine: Engine, reader: mpsc::Sender<Heard>) {
    let (sender, mut said) = mpsc::channel(QUEUE);
    let follow = query.follow;
    let most = query.lines.min(MOST);
    listen(query, engine, &sender);
    drop(sender);
    let mut past: VecDeque<Line> = VecDeque::new();
    // Without `follow`, sources end by themselves; with it they fall silent.
    let (wait, longest) = if follow { (QUIET, BEGIN) } else { (PATIENCE, PATIENCE) };
    let until = Instant::now() + longest;
    loop {
        let wait = if past.is_empty() { longest } else { wait };
        match timeout(wait.min(until.saturating_duration_since(Instant::now())), said.recv()).await {
            Ok(Some(Heard::Line(line))) => past.push_back(line),
            Ok(Some(trouble)) => {
                if reader.send(trouble).await.is_err() {
                    return;
                }
            }
            Ok(None) | Err(_) => break,
        }
        // Sorted in portions, so that this takes no more memory than is shown.
        if past.len() > 2 * MOST {
            newest(&mut past, most);
        }
    }
    newest(&mut past, most);
    for line in past {
        if reader.send(Heard::Line(line)).await.is_err() {
            return;
        }
    }
    if !follow {
        return;
    }
    loop {
        let heard = tokio::select! {
            heard = said.recv() => heard,
            () = reader.closed() => return,
        };
        let Some(heard) = heard else { return };
        if reader.send(heard).await.is_err() {
            return;
        }
    }
}

fn newest(lines: &mut VecDeque<Line>, most: usize) {
    lines.make_contiguous().sort_by_key(|line| line.at);
    lines.drain(..lines.len().saturating_sub(most));
}

/// Begins to listen to everybody.
fn listen(query: Query, engine: Engine, sender: &mpsc::Sender<Heard>) {
    let Query { sources, lines, since, follow } = query;
    let (mut units, mut containers) = (BTreeSet::new(), Vec::new());
    for source in sources {
        match source {
            Source::Unit(unit) => drop(units.insert(unit)),
            Source::Container(name) => containers.push(name),
        }
    }
    if !units.is_empty() {
        tokio::spawn(journal(units, lines, since, follow, sender.clone()));
    }
    let engine = std::sync::Arc::new(engine);
    for name in containers {
        let engine = std::sync::Arc::clone(&engine);
        tokio::spawn(container(engine, name, lines, since, follow, sender.clone()));
    }
}

async fn journal(
    units: BTreeSet<UnitName>,
    lines: usize,
    since: Option<Timestamp>,
    follow: bool,
    sender: mpsc::Sender<Heard>,
) {
    let mut entries = match Entries::read(&units, lines, since, follow) {
        Ok(entries) => entries,
        Err(error) => {
            let said = sender.send(Heard::Trouble(format!("the journal cannot be read: {error}"))).await;
            return drop(said);
        }
    };
    loop {
        let next = tokio::select! {
            next = entries.next() => next,
            () = sender.closed() => return,
        };
        match next {
            Ok(Some(entry)) => {
                for text in entry.text.lines() {
                    let (source, text) = (entry.unit.clone(), text.to_owned());
                    let line =
                        Line { at: entry.at, source, by_systemd: entry.by_systemd, priority: entry.priority, text };
                    if sender.send(Heard::Line(line)).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => return,
            Err(error) => {
                let said = sender.send(Heard::Trouble(format!("the journal cannot be read on: {error}"))).await;
                return drop(said);
            }
        }
    }
}

/// Passes on what a container says, and whichever takes its place.
async fn container(
    engine: std::sync::Arc<Engine>,
    name: ContainerName,
    lines: usize,
    since: Option<Timestamp>,
    follow: bool,
    sender: mpsc::Sender<Heard>,
) {
    let (mut since, mut tail, mut wait, mut complaint) = (since, Some(lines), AGAIN.0, String::new());
    loop {
        let heard = engine.listen(&name, tail, since, follow, |at, text| {
            let source = name.to_string();
            let line = Line { at, source, by_systemd: false, priority: None, text };
            // What was heard before the connection was lost comes again.
            let is_news = tail.is_some() || since.is_none_or(|last| at > last);
            let sender = &sender;
            async move { !is_news || sender.send(Heard::Line(line)).await.is_ok() }
        });
        let heard = tokio::select! {
            heard = heard => heard,
            () = sender.closed() => return,
        };
        let trouble = match heard {
            Ok(Some(last)) => {
                (since, wait) = (Some(last), AGAIN.0);
                None
            }
            Ok(None) => None,
            Err(error) => Some(crate::chain(&error)),
        };
        if let Some(trouble) = trouble.filter(|trouble| *trouble != complaint) {
            complaint = trouble.clone();
            if sender.send(Heard::Trouble(trouble)).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        // From now on everything is new.
        since = since.or(Some(Timestamp::now()));
        tail = None;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = sender.closed() => return,
        }
        wait = (wait * 2).min(AGAIN.1);
    }
}
