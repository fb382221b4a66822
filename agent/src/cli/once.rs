//! `mainstay once`: one pass, from the repository or from a local folder, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use spec::plan as planner;

use super::held_to::{Believed, Origin, believe};
use super::{Common, Ended, print};
use crate::daemon::MOST_IN_A_ROW;
use crate::difference;
use crate::fleet::turns::in_words;
use crate::git::{Peers, PushError};
use crate::identity;
use crate::pass::{Host, Passed};
use crate::progress::Progress;
use crate::report;
use crate::settings::Settings;
use crate::upstream::{Done, Question, Upstream};

/// Looks at the others, at least where something waits for them, and at most: each brings this host a step further.
const FEWEST_ROUNDS: usize = 2;
const MOST_ROUNDS: usize = 6;
/// For so long a run waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
Examples:
  mainstay once                             what the repository says now
  mainstay once --dir ./fleet --host attic  what a folder says
  mainstay once --offline                   what was fetched last";

/// Bring this host to its commit once, and say what was done
///
/// Asks the repository, brings this host to its newest commit and reports, once. With --dir it takes a local folder
/// instead: no server, no git, the way to try mainstay out. What is put on the host is remembered in the same ledger.
///
/// A rollout that goes from host to host finds one that is run by a timer only now and then: it is passed over meanwhile, and begins when
/// it comes by and it is its turn. It shows itself first and waits until the others have seen it, for a quarter of `silent-after` and for
/// at most five minutes; with a longer `silent-after`, only the service gets its turn.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Converge from this folder instead of the repository of the settings
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Take what the mirror has; do not ask the repository
    #[arg(long, conflicts_with = "dir")]
    offline: bool,
}

/// Converges once.
///
/// # Errors
/// The settings, the ledger or the repository cannot be used.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let name = settings.host()?;
    let progress = common.progress();
    let mut host = Host::open(name, &settings, Arc::clone(&progress))?;
    let origin = match &args.dir {
        Some(dir) => Origin::Folder(dir.clone()),
        None if args.offline => Origin::Mirror,
        None => Origin::Repository,
    };
    let (mut upstream, fresh) = match believe(common, &settings, &mut host, origin).await? {
        Believed::Yes(upstream) => (upstream, true),
        Believed::Stale(upstream) => (upstream, false),
        Believed::No(ended) => return Ok(ended),
    };
    stop_on_signals(&progress);
    host.make_peace();
    if let Some(upstream) = &mut upstream {
        take_turn(&mut host, upstream, &settings, &progress).await?;
    }
    let passes = converge(common, &mut host, &progress).await?;
    let Some(last) = passes.last() else {
        anyhow::bail!("there is nothing to converge to: no commit was believed on this host yet");
    };
    if let Some(upstream) = &mut upstream {
        publish(&mut host, upstream, &settings).await?;
    }
    tell(common, &host, &passes);
    Ok(match (last.is_converged(), fresh) {
        (false, _) => Ended::Unconverged,
        (true, false) => Ended::Impossible,
        (true, true) => Ended::Well,
    })
}

/// Looks at the other hosts where something here waits for them, and tells them where it is this one's turn.
///
/// Whoever is not there all the time has been passed over, and shows itself first: the others have a quarter of `silent-after` to see
/// it, which is waited for here, once.
async fn take_turn(
    host: &mut Host,
    upstream: &mut Upstream,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<()> {
    host.prepare(Timestamp::now(), planner::Patience::Now).await?;
    if !host.rollouts.is_concerned() {
        return Ok(());
    }
    let mut has_waited = false;
    for round in 1..=MOST_ROUNDS {
        // Whoever is not there all the time asks for everybody.
        upstream.fetch(Question { keep: host.commits(), peers: Some(Peers::All), case: None });
        upstream.done().await;
        if let (Some((whom, asked)), Some(source)) = (upstream.peers(), upstream.source()) {
            host.look_at_peers(source.mirror(), &whom, asked);
        }
        let now = Timestamp::now();
        host.prepare(now, planner::Patience::Now).await?;
        publish(host, upstream, settings).await?;
        let left = host.rollouts.next().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        match left {
            _ if host.rollouts.is_about_to_begin() => {}
            Some(left) if !has_waited && left <= LONGEST_WAIT => {
                eprintln!("mainstay: waits for {} until it may go on", in_words(left));
                tokio::select! { () = tokio::time::sleep(left) => {}, () = progress.stopped() => return Ok(()) }
                has_waited = true;
            }
            // It shows that it is there, and looks at the others once more after that.
            _ if round < FEWEST_ROUNDS => {}
            Some(left) if !has_waited => {
                eprintln!("mainstay: what may go on in {} is left to the next run, or to the service", in_words(left));
                break;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Makes passes as long as each makes another one possible: what needs others comes after them, and what failed goes back.
async fn converge(common: &Common, host: &mut Host, progress: &Progress) -> anyhow::Result<Vec<Passed>> {
    let mut passes: Vec<Passed> = Vec::new();
    let mut patience = planner::Patience::Now;
    while passes.len() < MOST_IN_A_ROW && !progress.is_stopping() {
        let plan = host.prepare(Timestamp::now(), patience).await?;
        if let (Some(plan), Some(aim), false) = (&plan, host.aim(), common.json) {
            print::plan(plan, common.colour());
            print::differences(&difference::of_plan(plan, &aim.desired), common.colour());
        }
        let Some(plan) = plan else { break };
        let Some(passed) = host.carry_out(plan).await? else { break };
        let again = passed.again;
        passes.push(passed);
        if !again {
            break;
        }
        patience = planner::Patience::Wait;
    }
    Ok(passes)
}

/// Writes the record and pushes it, where this host reports; a host that cannot push works all the same.
async fn publish(host: &mut Host, upstream: &mut Upstream, settings: &Settings) -> anyhow::Result<()> {
    let Some(belief) = host.aim() else { return Ok(()) };
    let now = Timestamp::now();
    let Some(mut record) = report::record(&host.ledger.memory, belief, &host.name, now) else { return Ok(()) };
    host.rollouts.announce(&mut record);
    host.lookout.announce(&mut record);
    let announced = host.rollouts.announced();
    if upstream.is_news(&mut record) {
        host.ledger.memory.counter = record.counter;
        host.ledger.save()?;
        upstream.note(&record).context("failed to write the record")?;
    }
    if !settings.report.push {
        return Ok(());
    }
    upstream.push(&host.name, Some(record.commit), true, Duration::MAX);
    match upstream.done().await {
        Done::Pushed(Ok(_)) => {
            host.rollouts.signed(now);
            host.rollouts.seen(&announced, Timestamp::now());
            let named = host.belief.as_ref().and_then(|belief| belief.keys.get(&host.name).cloned());
            if let Some(why) = identity::left_out(named.as_deref(), upstream.identity()) {
                eprintln!("mainstay: {why}");
            }
        }
        Done::Pushed(Err(error)) => {
            if matches!(error, PushError::Denied { .. }) {
                host.rollouts.denied();
            }
            let why = crate::chain(&error);
            eprintln!("mainstay: the record could not be pushed; it is kept and pushed later\n  {why}");
        }
        Done::Fetched(_) => {}
    }
    Ok(())
}

/// Prints what came of the passes.
fn tell(common: &Common, host: &Host, passes: &[Passed]) {
    let is_converged = passes.last().is_some_and(Passed::is_converged);
    let done: usize = passes.iter().flat_map(|passed| passed.outcome.done.values()).sum();
    let failed = passes.iter().flat_map(|passed| &passed.outcome.failed);
    let failed = failed.flat_map(|(app, failures)| failures.iter().map(move |failure| (app, failure)));
    if common.json {
        let failed: Vec<_> =
            failed.map(|(app, failure)| json!({ "app": app.as_str(), "failure": failure.text })).collect();
        let result = json!({
            "host": host.name.as_str(),
            "converged": is_converged,
            "steps-done": done,
            "failed": failed,
            "plan": passes.first().map(|passed| print::plan_as_json(&passed.plan, &[])),
        });
        println!("{result:#}");
        return;
    }
    for (app, failure) in failed {
        eprintln!("\nfailed in {app}: {}", failure.text);
        for line in failure.said.lines() {
            eprintln!("  | {line}");
        }
    }
    match (is_converged, done) {
        (true, 0) => println!("{} is as wanted", host.name),
        (true, done) => {
            println!("{} is as wanted now, after {done} step{}", host.name, if done == 1 { "" } else { "s" });
        }
        (false, done) => {
            println!(
                "{} is not as wanted: see above ({done} step{} done)",
                host.name,
                if done == 1 { "" } else { "s" }
            );
        }
    }
}

/// Ends at the next safe place when a person or the service manager asks for it.
fn stop_on_signals(progress: &Arc<Progress>) {
    use tokio::signal::unix::{SignalKind, signal};
    let progress = Arc::clone(progress);
    let expect = "signals can be waited for: the runtime has its I/O driver";
    let mut terminate = signal(SignalKind::terminate()).expect(expect);
    let mut interrupt = signal(SignalKind::interrupt()).expect(expect);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        progress.stop();
    });
}
