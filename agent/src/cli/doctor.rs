//! `mainstay doctor`: what this host lacks, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::width::{self, folded};
use super::{Common, Ended, settings_path, status};
use crate::doctor::{self, Finding, Needs, Verdict};
use crate::pass::Host;
use crate::progress::Progress;
use crate::settings::Settings;

const EXAMPLES: &str = "\
Examples:
  mainstay doctor
  mainstay doctor --json | jq -r '.findings[].remedy // empty'";

/// Say what this host lacks, and what to do about it
///
/// Looks at what mainstay needs of this host: systemd, a container engine, Podman, git, ssh and the repository, room on the disks,
/// the clock, the service and its settings. What is missing comes with the command that brings it. What the believed commit does
/// not need is only a warning. Changes nothing. Exit code 4 says that something is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Looks.
///
/// # Errors
/// There is none: what cannot be read is what is said.
pub async fn run(common: &Common, _args: &Args) -> anyhow::Result<Ended> {
    let (first, settings) = settings(common);
    let mut findings = vec![first];
    findings.extend(doctor::examine(&settings, needs(&settings)).await);
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    if common.json {
        let all: Vec<_> = findings
            .iter()
            .map(
                |it| json!({ "what": it.what, "verdict": it.verdict.as_str(), "found": it.found, "remedy": it.remedy }),
            )
            .collect();
        println!("{:#}", json!({ "missing": missing, "findings": all }));
    } else {
        let width = width::of_output();
        for finding in &findings {
            print!("{}", folded(&format!("{}\n", coloured(finding, common.colour())), width));
        }
        match missing {
            0 => println!("\nnothing is missing on this host"),
            1 => println!("\n1 thing is missing on this host"),
            _ => println!("\n{missing} things are missing on this host"),
        }
    }
    Ok(if missing == 0 { Ended::Well } else { Ended::Unconverged })
}

fn coloured(finding: &Finding, colour: bool) -> String {
    let text = finding.to_string();
    let code = match finding.verdict {
        Verdict::Fine => "32",
        Verdict::Warning => "33",
        Verdict::Missing => "31",
    };
    let word = finding.verdict.as_str();
    match text.strip_prefix(word) {
        Some(rest) if colour => format!("\u{1b}[{code}m{word}\u{1b}[0m{rest}"),
        _ => text,
    }
}

/// Reads the settings. Where they have mistakes, the rest is looked at with what is usual.
fn settings(common: &Common) -> (Finding, Settings) {
    let what = "settings";
    let path = settings_path(common).display().to_string();
    let off = |verdict, found: String, remedy: &str| Finding { what, verdict, found, remedy: Some(remedy.to_owned()) };
    match common.settings() {
        Ok(settings) => {
            let finding = match settings.host() {
                Ok(host) => {
                    Finding { what, verdict: Verdict::Fine, found: format!("{path}; this is {host}"), remedy: None }
                }
                Err(error) => off(Verdict::Missing, crate::chain(&error), "write `host: NAME` into the settings"),
            };
            (finding, settings)
        }
        Err(error) => {
            let first = crate::chain(&error);
            let settings = Settings {
                state: common.state.clone().unwrap_or_else(|| PathBuf::from("/var/lib/mainstay")),
                ..Settings::default()
            };
            (off(Verdict::Missing, first, "mainstay settings"), settings)
        }
    }
}

/// Says what the believed commit needs, where there is one that can be read.
fn needs(settings: &Settings) -> Option<Needs> {
    let mut host = Host::look(settings.host().ok()?, settings, Arc::new(Progress::default())).ok()?;
    host.ledger.memory.believed.as_ref()?;
    status::remember(&mut host, settings);
    host.belief.as_ref().map(|belief| Needs::of(&belief.desired))
}
