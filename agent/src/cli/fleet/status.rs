//! `mainstay fleet status`: what runs where, how it fares, since when.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::id::{AppName, CommitId, shown};
use tokio::time::Instant;

use super::super::screen::Screen;
use super::super::width::{self, folded};
use super::super::{Common, Ended, out, print};
use super::table::{hosts_as_json, table};
use super::{Place, Repo, answered};
use crate::fleet::turns::in_words;
use crate::fleet::{Condition, Position, Reading, Row};
use crate::snapshot::Release;

/// More rows than this are summed up.
const MOST_ROWS: usize = 60;
/// How often ages are counted on.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait between two fetches, and how much longer at most: many people may look on.
const PAUSE: Duration = Duration::from_secs(15);
const JITTER: Duration = Duration::from_secs(5);
/// How long a fetch may take that is one of many.
const FETCH: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Exit codes:
  0  every host is at the newest commit, and all is well
  4  not (yet)
  1  it could not be found out; also with an answer that may be old

Examples:
  mainstay fleet status
  mainstay fleet status --watch
  mainstay fleet status --json | jq '.hosts[] | select(.reported | not)'";

/// Show what runs where, how it fares, since when
///
/// Shows each application on each host with its state and its release. A large fleet is summed up by application, and only what is
/// not well is listed. A host counts as silent after 2.5 h without a record or a heartbeat, or after `silent-after` of its policy, if
/// that is longer; while other hosts are at a commit that it is not at, after `silent-after`. One that never said anything is
/// unreported: it may run all the same, and not be allowed to push.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// List every row, however many there are
    #[arg(long)]
    all: bool,
    /// Go on, and show what becomes of it until Ctrl-C: on a terminal in place of what was shown, else one line for each change
    #[arg(short, long)]
    pub(super) watch: bool,
}

impl Args {
    /// Returns how many rows are listed rather than summed up.
    fn most(&self) -> usize {
        if self.all { usize::MAX } else { MOST_ROWS }
    }
}

/// How many hosts are where.
#[derive(Default)]
pub(super) struct Sum {
    hosts: usize,
    newest: usize,
    behind: usize,
    elsewhere: usize,
    silent: usize,
    unreported: usize,
    trouble: usize,
}

impl Sum {
    pub(super) fn of(reading: &Reading) -> Sum {
        let mut sum = Sum { hosts: reading.hosts.len(), ..Sum::default() };
        for known in reading.hosts.values() {
            match known.position {
                _ if !known.is_reported() => sum.unreported += 1,
                _ if known.is_silent => sum.silent += 1,
                Some(Position::Newest) => sum.newest += 1,
                Some(Position::Behind) | None => sum.behind += 1,
                Some(Position::Elsewhere) => sum.elsewhere += 1,
            }
        }
        sum.trouble = reading.rows().filter(|row| row.condition() == Condition::Trouble).count();
        sum
    }

    fn text(&self, commit: &CommitId) -> String {
        let plural = if self.hosts == 1 { "" } else { "s" };
        let newest = format!("at {}", commit.short());
        let parts = [
            (self.newest, newest.as_str()),
            (self.behind, "behind"),
            (self.elsewhere, "at a commit that the branch does not have here"),
            (self.silent, "silent"),
            (self.unreported, "unreported"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let trouble = match self.trouble {
            0 => String::new(),
            1 => "; 1 application is not well".to_owned(),
            some => format!("; {some} applications are not well"),
        };
        format!("{} host{plural}: {}{trouble}", self.hosts, parts.join(", "))
    }

    /// Returns how many hosts are in each state.
    pub(super) fn counts(&self) -> [(&'static str, usize); 5] {
        [
            ("newest", self.newest),
            ("behind", self.behind),
            ("elsewhere", self.elsewhere),
            ("silent", self.silent),
            ("unreported", self.unreported),
        ]
    }

    fn as_json(&self) -> Value {
        json!({
            "hosts": self.hosts,
            "newest": self.newest,
            "behind": self.behind,
            "elsewhere": self.elsewhere,
            "silent": self.silent,
            "unreported": self.unreported,
            "trouble": self.trouble,
        })
    }
}

/// Shows it.
///
/// # Errors
/// The clone cannot be read.
pub(super) async fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    if args.watch {
        return watch(common, place, args).await;
    }
    answered(once(common, place, args))
}

fn once(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    if common.json {
        println!("{:#}", as_json(&clone, &reading));
    } else {
        let newest = Release::read(&clone.mirror, &reading.commit);
        print!("{}", text(&reading, &newest, args.most(), common.colour(), width::of_output()));
    }
    Ok(clone.ended(if is_well(&reading) { Ended::Well } else { Ended::Unconverged }))
}

fn is_well(reading: &Reading) -> bool {
    reading.hosts.values().all(|known| known.position == Some(Position::Newest) && !known.is_silent)
        && reading.rows().all(|row| row.condition() == Condition::Well)
}

pub(super) fn as_json(clone: &Repo, reading: &Reading) -> Value {
    let mut answer = clone.as_json(reading);
    answer.insert("summary".to_owned(), Sum::of(reading).as_json());
    answer.insert("hosts".to_owned(), hosts_as_json(reading, |_| true));
    Value::Object(answer)
}

/// Shows it again and again.
async fn watch(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let mut stop = std::pin::pin!(out::stopped()?);
    let mut clone = place.open()?;
    let screen = if common.json { None } else { Screen::begin() };
    let mut told = String::new();
    loop {
        let mut reading = clone.read()?;
        let newest = Release::read(&clone.mirror, &reading.commit);
        let line = match common.json {
            true => serde_json::to_string(&hosts_as_json(&reading, |_| true))?,
            false => lines(&reading),
        };
        if screen.is_none() && line != told {
            clone.warn(&reading);
            println!("{}", if common.json { as_json(&clone, &reading).to_string() } else { line.clone() });
            out::flush();
            told = line;
        }
        let next = Instant::now() + PAUSE + JITTER.mul_f64(fastrand::f64());
        while Instant::now() < next {
            if let Some(screen) = &screen {
                reading.at = Timestamp::now();
                let mut all = clone.remarks(&reading).into_iter().map(|line| line + "\n").collect::<String>();
                all += &text(&reading, &newest, args.most(), common.colour(), width::of_output());
                screen.draw(&all);
            }
            tokio::select! {
                () = &mut stop => return Ok(clone.ended(Ended::Well)),
                () = tokio::time::sleep(TICK) => if screen.is_none() && !out::is_read() { return Ok(Ended::Well) },
            }
        }
        let renewal = tokio::task::spawn_blocking(move || {
            clone.renew(FETCH);
            clone
        });
        clone = tokio::select! {
            () = &mut stop => return Ok(Ended::Well),
            renewed = renewal => renewed?,
        };
    }
}

/// One line that says how everything is.
pub(super) fn lines(reading: &Reading) -> String {
    let rows = reading.rows().filter(|row| row.condition() != Condition::Well).take(MOST_ROWS);
    let word = |row: &Row<'_>| if row.known.is_silent { "silent" } else { row.state() };
    let rows: Vec<String> = rows.map(|row| format!("{} {} {}", row.host, row.app, word(&row))).collect();
    let rows = if rows.is_empty() { String::new() } else { format!("; {}", rows.join(", ")) };
    Sum::of(reading).text(&reading.commit) + &rows
}

pub(super) fn text(reading: &Reading, newest: &Release, most: usize, colour: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    show(&mut text, reading, newest, most, (colour, width)).expect("writing to a string does not fail");
    folded(&text, width)
}

fn show(
    text: &mut String,
    reading: &Reading,
    newest: &Release,
    most: usize,
    (colour, width): (bool, Option<usize>),
) -> fmt::Result {
    let now = reading.at;
    let subject = shown(newest.subject.as_deref().unwrap_or_default());
    let when = newest.committed.map(|at| format!(", {}", print::ago(at, now))).unwrap_or_default();
    writeln!(text, "{} at {} {subject} ({}{when})", reading.fleet.name, reading.commit.short(), reading.branch)?;
    writeln!(text, "{}", Sum::of(reading).text(&reading.commit))?;
    let rows: Vec<Row<'_>> = reading.rows().collect();
    if rows.len() <= most {
        if !rows.is_empty() {
            writeln!(text, "\n{}", table(&rows, now, colour, width).trim_end())?;
        }
        return without_applications(text, reading);
    }
    writeln!(text)?;
    by_application(text, &rows)?;
    let mut rows: Vec<Row<'_>> = rows.into_iter().filter(|row| row.condition() != Condition::Well).collect();
    rows.sort_by_key(Row::condition);
    let more = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    if !rows.is_empty() {
        writeln!(text, "\nNot well, or not there yet:\n{}", table(&rows, now, colour, width).trim_end())?;
    }
    if more > 0 {
        writeln!(text, "and {more} more")?;
    }
    writeln!(text, "\nEverything: mainstay fleet status --all")
}

/// Names hosts that have nothing, which no row shows.
fn without_applications(text: &mut String, reading: &Reading) -> fmt::Result {
    let empty = reading.hosts.iter().filter(|(name, _)| reading.rows_of(name).next().is_none());
    let empty: Vec<String> = empty
        .map(|(name, known)| {
            let silence = known.silence(reading.at).map(|silence| format!(" (silent for {})", in_words(silence)));
            let word = if known.is_reported() { silence.unwrap_or_default() } else { " (unreported)".to_owned() };
            format!("{name}{word}")
        })
        .collect();
    if empty.is_empty() { Ok(()) } else { writeln!(text, "\nNothing is placed on {}", empty.join(", ")) }
}

/// Sums up rows by application, with how many hosts run which releases.
fn by_application(text: &mut String, rows: &[Row<'_>]) -> fmt::Result {
    /// More releases than this are counted, not named.
    const MOST_RELEASES: usize = 3;
    let mut apps: BTreeMap<&AppName, ([usize; 4], BTreeMap<&CommitId, usize>)> = BTreeMap::new();
    for row in rows {
        let (counts, releases) = apps.entry(row.app).or_default();
        counts[row.condition().number()] += 1;
        if let Some(release) = row.release() {
            *releases.entry(release).or_default() += 1;
        }
    }
    let app = apps.keys().map(|app| app.as_str().len()).max().unwrap_or(0).max("APPLICATION".len());
    writeln!(
        text,
        "{:<app$}  {:>7}  {:>7}  {:>7}  {:>7}  RELEASES",
        "APPLICATION", "WELL", "MOVING", "NOT OK", "UNHEARD"
    )?;
    for (name, ([well, moving, trouble, unheard], releases)) in apps {
        let mut most: Vec<(usize, &CommitId)> = releases.into_iter().map(|(commit, count)| (count, commit)).collect();
        most.sort_by(|left, right| right.cmp(left));
        let named = most.iter().take(MOST_RELEASES).map(|(count, commit)| format!("{} on {count}", commit.short()));
        let mut named: Vec<String> = named.collect();
        named.extend((most.len() > MOST_RELEASES).then(|| format!("{} more", most.len() - MOST_RELEASES)));
        let line = format!("{name:<app$}  {well:>7}  {moving:>7}  {trouble:>7}  {unheard:>7}  {}", named.join(", "));
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}
