//! `cargo lab soak`: the long run. Every course of the rollouts' simulator with other seeds than CI has, and the planner's properties
//! with fresh ones, and before them a thousand hosts that report to a git server at once; each failure is said with how to see it
//! again.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use lab::product;

/// After so many seeds of the simulator the planner has another round.
const CHUNK: u64 = 50;
/// What the tests take their seeds from.
const ROLLOUT_SEEDS: &str = "MAINSTAY_ROLLOUT_SEEDS";
const PLANNER_SEED: &str = "PROPTEST_RNG_SEED";
/// How many hosts report at the same time, where CI has forty.
const PUSHERS: &str = "MAINSTAY_PUSHERS";
const MANY: &str = "1000";

/// How long to go on.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds of the simulator; the planner has a round of its properties with each fifty.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// End after as many minutes, however far it is then; what is under way is finished.
    #[arg(long)]
    minutes: Option<u64>,
}

/// Something that failed, and the command that shows it again.
struct Failure {
    what: String,
    again: String,
}

/// Goes on until all seeds were tried or the time is over, and fails if anything did.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let longest = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let end = arguments.from.saturating_add(arguments.seeds);
    let (mut failures, mut first, mut rounds) = (Vec::from_iter(crowd()?), arguments.from, 0);
    while first < end && longest.is_none_or(|longest| begun.elapsed() < longest) {
        let next = end.min(first + CHUNK);
        failures.extend(rollouts(first, next)?);
        failures.extend(planner(fresh_seed()?)?);
        (first, rounds) = (next, rounds + 1);
        println!("soak: seeds {}..{next}, {rounds} rounds of the planner, {:.0?}", arguments.from, begun.elapsed());
    }
    for Failure { what, again } in &failures {
        println!("soak: {what} failed; again: {again}");
    }
    if !failures.is_empty() {
        bail!("{} runs failed", failures.len());
    }
    Ok(())
}

/// A thousand hosts that report to a git server at the same time.
fn crowd() -> Result<Option<Failure>> {
    let crowd = "a_crowd_that_reports_at_once";
    let mut tests: Command = product::cargo();
    tests.args(["test", "--quiet", "--package", "mainstay", "--lib", crowd]).env(PUSHERS, MANY);
    let is_well = tests.status().context("failed to start cargo")?.success();
    let again = format!("{PUSHERS}={MANY} cargo test -p mainstay --lib {crowd}");
    Ok((!is_well).then(|| Failure { what: format!("{MANY} hosts that report at the same time"), again }))
}

fn rollouts(first: u64, end: u64) -> Result<Option<Failure>> {
    let seeds = format!("{first}..{end}");
    let is_well = succeeds("rollout", ROLLOUT_SEEDS, &seeds)?;
    let again =
        format!("{ROLLOUT_SEEDS}={seeds} cargo test -p mainstay-spec --test rollout (each seed by itself: above)");
    Ok((!is_well).then(|| Failure { what: format!("a course with one of the seeds {seeds}"), again }))
}

fn planner(seed: u64) -> Result<Option<Failure>> {
    let is_well = succeeds("planner", PLANNER_SEED, &seed.to_string())?;
    let again = format!("{PLANNER_SEED}={seed} cargo test -p mainstay-spec --test planner");
    Ok((!is_well).then(|| Failure { what: format!("a property of the planner with seed {seed}"), again }))
}

/// Runs a test binary of the crate that decides: all of it, whatever fails, and for as long as it takes, which the test runner
/// with its limits would not.
fn succeeds(binary: &str, variable: &str, seed: &str) -> Result<bool> {
    let mut tests: Command = product::cargo();
    tests.args(["test", "--quiet", "--package", "mainstay-spec", "--test", binary]);
    tests.env(variable, seed);
    Ok(tests.status().context("failed to start cargo")?.success())
}

/// Other cases with each run: what is repeated names its seed.
fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_secs() * 1000 + u64::from(now.subsec_millis()))
}
