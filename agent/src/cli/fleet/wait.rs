//! `mainstay fleet wait`: until a commit has arrived, for CI.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, CommitId, shown};
use spec::manifest;
use tokio::time::Instant;

use super::super::{Common, Ended, names, out};
use super::{Place, Repo, answered};
use crate::fleet::Reading;
use crate::fleet::arrival::{Arrival, Awaited, Pair, Verdict};
use crate::fleet::spread::Contained;
use crate::upstream::LIMITS;

/// The pause between two looks is a part of what was waited already, within these bounds: who waits for a minute wants to know
/// within seconds, and who waits for a day must not ask for every second of it.
const PART: u32 = 20;
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(30);
/// So much longer at most, so that many that began together do not ask together.
const JITTER: f64 = 0.3;
/// How long a fetch may take that is one of many.
const FETCH: Duration = Duration::from_secs(60);
/// More of them are counted, not named.
const MOST_NAMED: usize = 6;

const EXAMPLES: &str = "\
Exit codes:
  0  converged: it runs on every host that is waited for
  4  failed: on some, with no later commit to mend it, and over on the others
  5  halted: more failed than may; it goes no further without another commit
  6  superseded: a later commit converged in its place, with another content
  7  timeout: none of this within --timeout
  3  the commit has mistakes: no host applies it
  1  it could not be found out: not on the branch, no host reports, no answer

Examples:
  mainstay fleet wait HEAD --timeout 20m
  mainstay fleet wait $CI_COMMIT_SHA --app web --where environment=test";

/// Wait until a commit has arrived on its hosts, for CI
///
/// Looks again and again, every 5 to 30 seconds, until there is something to say in the end. What a later commit left as it is counts
/// for both. A host that is silent or unreported is waited for as long as its rollout waits for it (`silent-after`), and then
/// passed over and named, unless --strict.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The commit
    #[arg(value_name = "COMMIT")]
    commit: String,
    /// Only this application
    #[arg(long, value_name = "APP", value_parser = AppName::parse)]
    app: Option<AppName>,
    /// Only hosts with these labels: ring=canary,environment=prod; `host` is a label too, `|` is between values, `!=` is not
    #[arg(long = "where", value_name = "SELECTOR", value_parser = selector)]
    place: Option<manifest::Place>,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30m")]
    timeout: Duration,
    /// Pass over nobody
    #[arg(long)]
    strict: bool,
}

/// Reads a selector.
pub(super) fn selector(text: &str) -> Result<manifest::Place, String> {
    let one = |part: &str| {
        let (name, values) = part.split_once('=').ok_or_else(|| format!("`{part}` is no label=value"))?;
        let (name, is_not) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let values: BTreeSet<String> = values.split('|').map(|value| value.trim().to_owned()).collect();
        if name.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(format!("`{part}` is no label=value"));
        }
        let label = manifest::Place::Label { name: name.trim().to_owned(), values };
        Ok(if is_not { manifest::Place::Not(Box::new(label)) } else { label })
    };
    text.split(',').map(one).collect::<Result<Vec<_>, _>>().map(manifest::Place::Each)
}

/// Waits.
///
/// # Errors
/// The clone cannot be read, or there is nothing to wait for.
pub(super) async fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let begun = Timestamp::now();
    let mut clone = place.open()?;
    let commit = clone.mirror.named(&args.commit)?;
    let Some(awaited) = awaited(&clone, &commit, args, begun)? else {
        eprintln!("mainstay: {} has mistakes, which `mainstay check` lists: no host applies it", commit.short());
        return Ok(Ended::Mistaken);
    };
    let ends = Instant::now() + args.timeout;
    let mut stop = std::pin::pin!(out::stopped()?);
    let mut told = String::new();
    loop {
        let reading = match answered_reading(&clone) {
            Ok(reading) => reading,
            Err(error) => return answered(Err(error)),
        };
        let newest = &reading.tip;
        if !clone.mirror.is_ancestor(&commit, newest)? {
            anyhow::bail!("{} is not on {}: no host is held to it", commit.short(), clone.followed);
        }
        let arrival = awaited.look(&reading, &mut Contained::new(&clone.mirror, &commit));
        let verdict = arrival.verdict();
        let is_late = Instant::now() >= ends;
        if verdict != Verdict::Open || is_late {
            clone.warn(&reading);
            return Ok(tell(common, &clone, &commit, &arrival, &verdict));
        }
        let now = format!("waiting: {}", pairs(&arrival.open));
        if now != told && !common.json {
            eprintln!("{now}");
        }
        told = now;
        let waited = Duration::try_from(Timestamp::now().duration_since(begun)).unwrap_or_default();
        let pause = (waited / PART).clamp(SHORTEST, LONGEST).mul_f64(1.0 + JITTER * fastrand::f64());
        tokio::select! {
            () = &mut stop => return Ok(Ended::Impossible),
            () = tokio::time::sleep_until((Instant::now() + pause).min(ends)) => {}
        }
        let renewal = tokio::task::spawn_blocking(move || {
            clone.renew(FETCH);
            clone
        });
        clone = tokio::select! {
            () = &mut stop => return Ok(Ended::Impossible),
            renewed = renewal => renewed?,
        };
    }
}

fn answered_reading(clone: &Repo) -> anyhow::Result<Reading> {
    Ok(clone.read()?)
}

/// Finds out what is waited for; `None` where the commit has mistakes.
fn awaited(clone: &Repo, commit: &CommitId, args: &Args, begun: Timestamp) -> anyhow::Result<Option<Awaited>> {
    let tree = clone.mirror.tree(commit, &LIMITS)?;
    let Some(fleet) = manifest::parse(&tree, Some(commit)).fleet else { return Ok(None) };
    if let Some(app) = args.app.as_ref().filter(|app| !fleet.apps.contains_key(*app)) {
        let hint = names::hint(app.as_str(), fleet.apps.keys().map(AppName::as_str));
        anyhow::bail!("{} has no application `{}`{hint}", commit.short(), shown(app.as_str()));
    }
    let place = args.place.as_ref().unwrap_or(&manifest::Place::All);
    let awaited = Awaited::new(&fleet, commit, place, args.app.as_ref(), begun);
    let awaited = if args.strict { awaited.strictly() } else { awaited };
    (!awaited.is_empty())
        .then_some(Some(awaited))
        .with_context(|| format!("no application of {} is placed on any host that is meant", commit.short()))
}

fn tell(common: &Common, clone: &Repo, commit: &CommitId, arrival: &Arrival, verdict: &Verdict) -> Ended {
    let (word, ended) = outcome(verdict);
    // Nobody knows what an old answer would be by now.
    let ended = if *verdict == Verdict::Open { clone.ended(ended) } else { ended };
    if common.json {
        let answer = json!({
            "result": word,
            "commit": commit,
            "done": arrival.done,
            "superseded-by": arrival.superseded,
            "failed": arrival.failed,
            "open": arrival.open,
            "passed-over": arrival.passed_over,
            "halted": arrival.halted,
            "unreachable": clone.unreachable,
        });
        println!("{:#}", answer);
    } else {
        println!("{}", text(commit, arrival, word));
    }
    ended
}

/// Returns the word for what it came to, and the exit code.
pub(super) fn outcome(verdict: &Verdict) -> (&'static str, Ended) {
    match verdict {
        Verdict::Converged => ("converged", Ended::Well),
        Verdict::Failed => ("failed", Ended::Unconverged),
        Verdict::Halted => ("halted", Ended::Halted),
        Verdict::Superseded => ("superseded", Ended::Superseded),
        Verdict::Open => ("timeout", Ended::Late),
        Verdict::Unheard => ("unheard", Ended::Impossible),
    }
}

pub(super) fn text(commit: &CommitId, arrival: &Arrival, word: &str) -> String {
    let mut parts = vec![format!("{word}: {} on {} of {}", commit.short(), arrival.done, total(arrival))];
    let by: Vec<&str> = arrival.superseded.iter().map(CommitId::short).collect();
    parts.extend((!by.is_empty()).then(|| format!("superseded by {}", by.join(", "))));
    parts.extend(arrival.halted.clone());
    for (what, found) in [("failed", &arrival.failed), ("open", &arrival.open), ("passed over", &arrival.passed_over)] {
        parts.extend((!found.is_empty()).then(|| format!("{what}: {}", pairs(found))));
    }
    parts.join("; ")
}

fn total(arrival: &Arrival) -> usize {
    arrival.done + arrival.open.len() + arrival.failed.len() + arrival.passed_over.len()
}

fn pairs(all: &[Pair]) -> String {
    let first = all.iter().take(MOST_NAMED).map(|it| format!("{} on {} ({})", it.app, it.host, it.state));
    let first: Vec<String> = first.collect();
    match all.len().saturating_sub(MOST_NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
