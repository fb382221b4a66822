//! `mainstay plan`: what a pass would do now, with readable differences, and without doing it.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use spec::plan as planner;

use super::forecast;
use super::held_to::{Believed, Origin, believe};
use super::{Common, Ended, print};
use crate::difference;
use crate::git::Peers;
use crate::pass::Host;
use crate::upstream::{Question, Upstream};

const EXAMPLES: &str = "\
Examples:
  mainstay plan                             what the next pass does
  mainstay plan --dir ./fleet --host attic  what a folder would change here
  mainstay plan --json | jq .steps          for programs
  mainstay plan --all-hosts                 what your edits change, and where
  mainstay plan --all-hosts --from origin/main --to HEAD --markdown";

/// Show what would change, here or on all hosts
///
/// Looks at this host, compares it with its commit and prints the steps that would follow, in their order, each with
/// its reason, and what changes in files. Nothing is changed; what not everybody may read is not shown.
///
/// With `--all-hosts` it compares two commits instead, in any clone and without access to any host: which applications
/// change where, what restarts on hosts that are as the first commit says, and when each host's turn is at the earliest
/// by the waves, windows, freezes and holds of the second one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Plan from this folder instead of the repository of the settings
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Take what the mirror has; do not ask the repository
    #[arg(long, conflicts_with = "dir")]
    offline: bool,
    /// Leave out what changes in files
    #[arg(long)]
    no_diff: bool,
    #[command(flatten)]
    forecast: forecast::Sides,
}

/// Looks at the other hosts where something waits for them, so that the plan says for whom; where they cannot be asked for, at what they
/// said last.
async fn look_around(host: &mut Host, upstream: &mut Upstream) {
    host.decide(Timestamp::now()).await;
    if !host.rollouts.is_concerned() {
        return;
    }
    upstream.fetch(Question { keep: host.commits(), peers: Some(Peers::All), case: None });
    upstream.done().await;
    let asked = upstream.peers();
    let Some(source) = upstream.source() else { return };
    if let Some((whom, asked)) = asked {
        host.look_at_peers(source.mirror(), &whom, asked);
        return;
    }
    let last = source.mirror().heard_last();
    let when =
        last.map_or("there is none".to_owned(), |at| format!("the newest is of {}", at.strftime("%Y-%m-%d %H:%M:%SZ")));
    eprintln!(
        "mainstay: the other hosts could not be asked for; going on with the records that were fetched before: {when}"
    );
    host.look_at_peers(source.mirror(), &Peers::All, Timestamp::now());
}

/// Plans.
///
/// # Errors
/// The settings, the ledger or the repository cannot be read.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    if args.forecast.all_hosts {
        return forecast::run(common, args.dir.as_deref(), &args.forecast);
    }
    let settings = common.settings()?;
    let name = settings.host()?;
    let progress = common.progress();
    let looking = Host::look(name.clone(), &settings, Arc::clone(&progress))?;
    let (mut host, origin) = match &args.dir {
        Some(dir) => (looking, Origin::Folder(dir.clone())),
        // While the service runs, it is the one that asks the repository.
        None if args.offline || looking.is_taken() => (looking, Origin::Mirror),
        None => (Host::open(name, &settings, progress)?, Origin::Repository),
    };
    let (mut upstream, believed) = match believe(common, &settings, &mut host, origin).await? {
        Believed::Yes(upstream) => (upstream, true),
        Believed::Stale(upstream) => (upstream, false),
        Believed::No(ended) => return Ok(ended),
    };
    if let Some(upstream) = &mut upstream {
        look_around(&mut host, upstream).await;
    }
    let (Some(plan), Some(belief)) = (host.plan(Timestamp::now(), planner::Patience::Now).await, host.aim()) else {
        anyhow::bail!("there is nothing to plan for: no commit was believed on this host yet");
    };
    let differences = if args.no_diff { Vec::new() } else { difference::of_plan(&plan, &belief.desired) };
    if common.json {
        println!("{:#}", print::plan_as_json(&plan, &differences));
    } else {
        print::plan(&plan, common.colour());
        print::differences(&differences, common.colour());
    }
    let stuck = !plan.conflicts.is_empty() || plan.held.is_some() || !plan.unknown.is_empty();
    Ok(match (believed, stuck) {
        (false, _) => Ended::Impossible,
        (true, true) => Ended::Unconverged,
        (true, false) => Ended::Well,
    })
}
