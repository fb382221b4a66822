//! `mainstay status`: what is converged, what drifted, at which commit, since when.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use spec::id::{AppName, CommitId, shown};
use spec::memory::AppMemory;
use spec::plan::{self as planner, Plan};

use super::print::{ago, plan_as_json};
use super::{Common, Ended, print};
use crate::ledger::Found;
use crate::pass::Host;
use crate::progress::Progress;
use crate::report::Notice;
use crate::settings::Settings;
use crate::upstream::{self, LIMITS};

/// Shows each application with its state, since when, and its release; what differs on the host at this moment; a newer
/// commit that was refused, and why; whether the repository answers and records arrive there. Changes nothing.
#[derive(Debug, Default, clap::Args)]
pub struct Args {}

/// Shows the status.
///
/// # Errors
/// The settings or the ledger cannot be read.
pub async fn run(common: &Common, _args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let name = settings.host()?;
    let mut host = Host::look(name, &settings, Arc::new(Progress::default()))?;
    let notice = Notice::read(&settings.state);
    let subject = remember(&mut host, &settings);
    let plan = host.plan(Timestamp::now(), planner::Patience::Now).await;
    let converged = plan.as_ref().is_some_and(Plan::is_empty)
        && host.ledger.memory.apps.values().all(|app| app.trouble().is_none());
    if common.json {
        println!("{:#}", as_json(&host, &notice, plan.as_ref()));
    } else {
        show(&host, &notice, plan.as_ref(), subject.as_deref(), common.colour());
    }
    Ok(if converged && notice.refused.is_none() { Ended::Well } else { Ended::Unconverged })
}

/// Takes up what was believed last, from the mirror; returns the commit's subject.
pub(super) fn remember(host: &mut Host, settings: &Settings) -> Option<String> {
    let commit = host.ledger.memory.believed.clone()?;
    let read = || {
        let mirror = upstream::peek(&settings.state)?;
        let tree = mirror.tree(&commit, &LIMITS)?;
        Ok::<_, crate::git::GitError>((tree, mirror.commit(&commit)?.subject))
    };
    let (tree, subject) = match read() {
        Ok(read) => read,
        Err(error) => {
            eprintln!("mainstay: {} cannot be read: {}", commit.short(), crate::chain(&error));
            return None;
        }
    };
    if let Err(refusal) = host.believe(&tree, Some(commit.clone())) {
        eprintln!("mainstay: {} is not believed by this version: {refusal}", commit.short());
        return None;
    }
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
        "now": plan.map(|plan| plan_as_json(plan, &[])),
    })
}

fn show(host: &Host, notice: &Notice, plan: Option<&Plan>, subject: Option<&str>, colour: bool) {
    let now = Timestamp::now();
    let memory = &host.ledger.memory;
    match (&memory.believed, host.ledger.found) {
        (Some(commit), _) => println!("{} at {} {}", host.name, commit.short(), shown(subject.unwrap_or_default())),
        (None, Found::Nothing) => println!("{}: mainstay has not worked on this host yet", host.name),
        (None, _) => println!("{}: no commit was believed yet", host.name),
    }
    let pauses = memory.pauses.at(now);
    if let Some(pause) = &pauses.host {
        println!("\nPAUSED: nothing on this host is changed {pause}");
    }
    for (app, pause) in &pauses.apps {
        println!("\nPAUSED: nothing of {app} is changed {pause}");
    }
    println!();
    let widths = (
        memory.apps.keys().map(|app| app.as_str().len()).max().unwrap_or(0).max("APPLICATION".len()),
        memory.apps.values().map(|known| known.state.as_str().len()).max().unwrap_or(0).max("converged".len()),
    );
    if !memory.apps.is_empty() {
        println!("{:<w0$}  {:<w1$}  {:<32}  RELEASE", "APPLICATION", "STATE", "SINCE", w0 = widths.0, w1 = widths.1);
    }
    for (app, known) in &memory.apps {
        let release = known.commit.as_ref().map_or("a local folder", CommitId::short);
        let since = format!("{} ({})", known.since.strftime("%Y-%m-%d %H:%M:%SZ"), ago(known.since, now));
        let state = format!("{:<w1$}", known.state.as_str(), w1 = widths.1);
        let state = print::painted(&state, print::colour_of(known.state), colour);
        println!("{app:<w0$}  {state}  {since:<32}  {release}", w0 = widths.0);
        print_trouble(app, known, now);
    }
    println!();
    match plan {
        None => println!("This host is held to nothing at this moment."),
        Some(plan) if plan.is_empty() => println!("Everything on this host is as the commit says."),
        Some(plan) => {
            println!("On this host at this moment:");
            print::plan(plan, colour);
        }
    }
    if let Some((commit, why)) = &notice.refused {
        println!("\nRefused: {}: {why}", commit.short());
    }
    if let Some(why) = &notice.unreachable {
        println!("\nThe repository does not answer: {why}");
    }
    if let Some(why) = &notice.unreported {
        println!("\nUnreported: {why}");
    }
}

fn print_trouble(app: &AppName, known: &AppMemory, now: Timestamp) {
    for line in known.trouble().unwrap_or_default().lines() {
        println!("    {}", shown(line));
    }
    if let Some(bad) = &known.bad {
        let commit = bad.commit.as_ref().map_or("the release from the folder", CommitId::short);
        println!("    {commit} is not tried again until a commit changes {app}, or `mainstay retry {app}`");
        return;
    }
    let Some(failure) = &known.failure else { return };
    if failure.not_before > now {
        let wait = failure.not_before.duration_since(now).as_secs();
        println!(
            "    failed {} time{}; tried again in {wait} s",
            failure.count,
            if failure.count == 1 { "" } else { "s" }
        );
    }
}
