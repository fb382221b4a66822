//! `mainstay status`: what is converged, what drifted, at which commit, since when.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, CommitId, shown};
use spec::memory::AppMemory;
use spec::plan::{self as planner, Plan};
use spec::trust::Require;

use super::print::{Since, plan_as_json};
use super::screen::Screen;
use super::width::{self, folded};
use super::{Common, Ended, out, print, wakes};
use crate::belief::Past;
use crate::git::Peers;
use crate::ledger::Found;
use crate::pass::Host;
use crate::progress::Progress;
use crate::report::Notice;
use crate::settings::Settings;
use crate::upstream::{self, LIMITS};

/// How often ages are counted on.
const TICK: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  mainstay status
  mainstay status --watch
  mainstay status --json | jq .apps";

/// Show what is converged and what drifted, at which commit
///
/// Shows each application with its state, since when, and its release; what differs on the host at this moment; a newer
/// commit that was refused, and why; whether the repository answers and records arrive there. Changes nothing.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Go on, and show what becomes of it until Ctrl-C: on a terminal in place of what was shown, else one line for each change
    #[arg(short, long)]
    pub(super) watch: bool,
}

/// What there is to show.
struct Seen {
    host: Host,
    notice: Notice,
    subject: Option<String>,
    plan: Option<Plan>,
}

impl Seen {
    async fn now(settings: &Settings) -> anyhow::Result<Seen> {
        let mut host = Host::look(settings.host()?, settings, Arc::new(Progress::default()))?;
        let notice = Notice::read(&settings.state);
        let subject = remember(&mut host, settings);
        let plan = host.plan(Timestamp::now(), planner::Patience::Now).await;
        Ok(Seen { host, notice, subject, plan })
    }

    fn is_well(&self) -> bool {
        self.plan.as_ref().is_some_and(Plan::is_empty)
            && self.host.ledger.memory.apps.values().all(|app| app.trouble().is_none())
            && self.notice.refused.is_none()
            && self.notice.stale.is_none()
    }

    fn as_json(&self) -> serde_json::Value {
        as_json(&self.host, &self.notice, self.plan.as_ref())
    }

    fn text(&self, colour: bool, width: Option<usize>) -> String {
        let mut text = String::new();
        show(&mut text, self, colour, width).expect("writing to a string does not fail");
        folded(&text, width)
    }

    /// One line that says how everything is.
    fn line(&self) -> String {
        let memory = &self.host.ledger.memory;
        let commit = memory.believed.as_ref().map_or("no commit", CommitId::short);
        let apps = memory.apps.iter().map(|(app, known)| format!("{app} {}", known.state.as_str()));
        let apps: Vec<String> = apps.collect();
        let apps = if apps.is_empty() { "no applications".to_owned() } else { apps.join(", ") };
        let mut said = vec![format!("{} at {commit}: {apps}", self.host.name)];
        let off = self.plan.as_ref().map_or(0, |plan| plan.steps.len() + plan.postponed.len() + plan.drift.len());
        said.extend((off > 0).then(|| format!("{off} not as the commit says")));
        let pauses = memory.pauses.at(Timestamp::now());
        said.extend(pauses.host.iter().map(|pause| format!("paused {pause}")));
        said.extend(pauses.apps.iter().map(|(app, pause)| format!("{app} is paused {pause}")));
        said.extend(self.notice.refused.iter().map(|(commit, _)| format!("{} is refused", commit.short())));
        said.extend(self.notice.stale.iter().map(|_| "the branch is stale".to_owned()));
        said.join("; ")
    }
}

/// Shows the status.
///
/// # Errors
/// The settings or the ledger cannot be read.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    if args.watch {
        return watch(common, &settings).await;
    }
    let seen = Seen::now(&settings).await?;
    if common.json {
        println!("{:#}", seen.as_json());
    } else {
        print!("{}", seen.text(common.colour(), width::of_output()));
    }
    Ok(if seen.is_well() { Ended::Well } else { Ended::Unconverged })
}

/// Shows it again and again, whenever it is another.
async fn watch(common: &Common, settings: &Settings) -> anyhow::Result<Ended> {
    let mut wakes = wakes::of(settings.endpoint.socket.clone());
    let mut stop = std::pin::pin!(out::stopped()?);
    let mut seen = Seen::now(settings).await?;
    let screen = if common.json { None } else { Screen::begin() };
    let mut told = String::new();
    loop {
        let text = match (&screen, common.json) {
            (Some(screen), _) => {
                screen.draw(&seen.text(common.colour(), width::of_output()));
                String::new()
            }
            (None, true) => seen.as_json().to_string(),
            (None, false) => seen.line(),
        };
        if screen.is_none() && text != told {
            match common.json {
                true => println!("{text}"),
                false => println!("{}  {text}", Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ")),
            }
            out::flush();
            told = text;
        }
        tokio::select! {
            _ = wakes.recv() => seen = Seen::now(settings).await?,
            // How long ago something was is shown.
            () = tokio::time::sleep(TICK) => {}
            () = &mut stop => break,
        }
        if !out::is_read() {
            break;
        }
    }
    drop(screen);
    Ok(if seen.is_well() { Ended::Well } else { Ended::Unconverged })
}

/// Takes up what was believed last, from the mirror; returns the commit's subject.
pub(super) fn remember(host: &mut Host, settings: &Settings) -> Option<String> {
    let commit = host.ledger.memory.believed.clone()?;
    let read = || {
        let mirror = upstream::peek(&settings.state)?;
        let tree = mirror.tree(&commit, &LIMITS)?;
        let subject = mirror.commit(&commit)?.subject;
        Ok::<_, crate::git::GitError>((mirror, tree, subject))
    };
    let (mirror, tree, subject) = match read() {
        Ok(read) => read,
        Err(error) => {
            eprintln!("mainstay: {} cannot be read: {}", commit.short(), crate::chain(&error));
            return None;
        }
    };
    let past = Past { mirror: &mirror, limits: LIMITS };
    if let Err(refusal) = host.believe(&tree, Some(commit.clone()), Some(&past)) {
        eprintln!("mainstay: {} is not believed by this version: {refusal}", commit.short());
        return None;
    }
    host.look_at_peers(&mirror, &Peers::All, Timestamp::now());
    Some(subject)
}

fn as_json(host: &Host, notice: &Notice, plan: Option<&Plan>) -> serde_json::Value {
    let apps: serde_json::Map<String, serde_json::Value> = host
        .ledger
        .memory
        .apps
        .iter()
        .map(|(app, known)| {
            let value = json!({
                "state": known.state.as_str(),
                "since": known.since.to_string(),
                "commit": known.commit.as_ref().map(CommitId::as_str),
                "digest": known.digest.to_string(),
                "failure": known.trouble(),
                "bad": known.bad.as_ref().map(|bad| json!({
                    "commit": bad.commit.as_ref().map(CommitId::as_str),
                    "digest": bad.digest.to_string(),
                    "since": bad.since.to_string(),
                    "stuck": bad.stuck.is_some(),
                })),
            });
            (app.to_string(), value)
        })
        .collect();
    json!({
        "host": host.name.as_str(),
        "commit": host.ledger.memory.believed.as_ref().map(CommitId::as_str),
        "apps": apps,
        "paused": host.ledger.memory.pauses.at(Timestamp::now()),
        "refused": notice.refused.as_ref().map(|(commit, why)| json!({ "commit": commit.as_str(), "why": why })),
        "unreachable": notice.unreachable,
        "unreported": notice.unreported,
        "trust": notice.trust,
        "stale": notice.stale,
        "now": plan.map(|plan| plan_as_json(plan, &[])),
    })
}

fn show(text: &mut String, seen: &Seen, colour: bool, width: Option<usize>) -> fmt::Result {
    let Seen { host, notice, subject, plan } = seen;
    let now = Timestamp::now();
    let memory = &host.ledger.memory;
    match (&memory.believed, host.ledger.found) {
        (Some(commit), _) => {
            let subject = shown(subject.as_deref().unwrap_or_default());
            writeln!(text, "{} at {} {subject}", host.name, commit.short())?;
        }
        (None, Found::Nothing) => writeln!(text, "{}: mainstay has not worked on this host yet", host.name)?,
        (None, _) => writeln!(text, "{}: no commit was believed yet", host.name)?,
    }
    let pauses = memory.pauses.at(now);
    if let Some(pause) = &pauses.host {
        writeln!(text, "\nPAUSED: nothing on this host is changed {pause}")?;
    }
    for (app, pause) in &pauses.apps {
        writeln!(text, "\nPAUSED: nothing of {app} is changed {pause}")?;
    }
    writeln!(text)?;
    let widths = (
        memory.apps.keys().map(|app| app.as_str().len()).max().unwrap_or(0).max("APPLICATION".len()),
        memory.apps.values().map(|known| known.state.as_str().len()).max().unwrap_or(0).max("converged".len()),
    );
    let since = Since::beside(widths.0 + widths.1 + 2 * 3 + "a local folder".len(), width);
    let (w0, w1, w2) = (widths.0, widths.1, since.width());
    if !memory.apps.is_empty() {
        writeln!(text, "{:<w0$}  {:<w1$}  {:<w2$}  RELEASE", "APPLICATION", "STATE", "SINCE")?;
    }
    for (app, known) in &memory.apps {
        let release = known.commit.as_ref().map_or("a local folder", CommitId::short);
        let since = since.say(known.since, now);
        let state = format!("{:<w1$}", known.state.as_str());
        let state = print::painted(&state, print::colour_of(known.state), colour);
        writeln!(text, "{app:<w0$}  {state}  {since:<w2$}  {release}")?;
        trouble(text, app, known, now)?;
    }
    writeln!(text)?;
    match plan {
        None => writeln!(text, "This host is held to nothing at this moment.")?,
        Some(plan) if plan.is_empty() => writeln!(text, "Everything on this host is as the commit says.")?,
        Some(plan) => {
            writeln!(text, "On this host at this moment:")?;
            text.push_str(&print::plan_text(plan, colour));
        }
    }
    if let Some((commit, why)) = &notice.refused {
        writeln!(text, "\nRefused: {}: {why}", commit.short())?;
    }
    if let Some(why) = &notice.unreachable {
        writeln!(text, "\nThe repository does not answer: {why}")?;
    }
    if let Some(why) = &notice.unreported {
        writeln!(text, "\nUnreported: {why}")?;
    }
    if let Some(why) = &notice.stale {
        writeln!(text, "\nSTALE: {why}")?;
    }
    if notice.trust.as_ref().is_some_and(|trust| trust.require == Require::None) {
        writeln!(
            text,
            "\nUnsigned: nobody has to sign commits here, so whoever can push to the branch is root on this host."
        )?;
    }
    Ok(())
}

fn trouble(text: &mut String, app: &AppName, known: &AppMemory, now: Timestamp) -> fmt::Result {
    for line in known.trouble().unwrap_or_default().lines() {
        writeln!(text, "    {}", shown(line))?;
    }
    if let Some(bad) = &known.bad {
        let commit = bad.commit.as_ref().map_or("the release from the folder", CommitId::short);
        writeln!(text, "    {commit} is not tried again until a commit changes {app}, or `mainstay retry {app}`")?;
        return Ok(());
    }
    let Some(failure) = &known.failure else { return Ok(()) };
    if failure.not_before > now {
        let wait = failure.not_before.duration_since(now).as_secs();
        writeln!(
            text,
            "    failed {} time{}; tried again in {wait} s",
            failure.count,
            if failure.count == 1 { "" } else { "s" }
        )?;
    }
    Ok(())
}
