//! `mainstay fleet diff`: how two hosts differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use spec::id::{AppName, HostName};

use super::super::width::{self, folded};
use super::super::{Common, Ended};
use super::{Place, known_host};
use crate::fleet::contrast::{Contrast, Side, contrast};

const FITS: &str = "writing to a string does not fail";

const EXAMPLES: &str = "\
Exit codes:
  0  they are alike
  4  they differ
  1  it could not be found out

Examples:
  mainstay fleet diff attic barn";

/// Show how two hosts differ
///
/// Compares which applications two hosts have, which releases run, how they fare, and what those releases want of each: files, units,
/// containers. What is really on them only they know: `mainstay plan` there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The one
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    left: HostName,
    /// The other
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    right: HostName,
}

/// Shows it.
///
/// # Errors
/// The clone cannot be read, or the fleet has no such host.
pub(super) fn run(common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let clone = place.open()?;
    let reading = clone.read()?;
    clone.warn(&reading);
    let hosts = [&args.left, &args.right];
    hosts.iter().try_for_each(|host| known_host(&reading, host))?;
    let differences = contrast(&clone.mirror, &reading, hosts);
    if common.json {
        let mut answer = clone.as_json(&reading);
        answer.insert("hosts".to_owned(), json!(hosts));
        answer.insert("apps".to_owned(), json!(differences));
        println!("{:#}", Value::Object(answer));
    } else {
        print!("{}", folded(&text(hosts, &differences), width::of_output()));
    }
    Ok(clone.ended(if differences.is_empty() { Ended::Well } else { Ended::Unconverged }))
}

pub(super) fn text([left, right]: [&HostName; 2], differences: &BTreeMap<AppName, Contrast>) -> String {
    if differences.is_empty() {
        return format!("{left} and {right} are alike, as far as their records and releases say\n");
    }
    let mut text = String::new();
    for (app, contrast) in differences {
        let [first, second] = &contrast.sides;
        if !text.is_empty() {
            text.push('\n');
        }
        match (first, second) {
            (Some(first), Some(second)) if first == second => {
                writeln!(text, "{app}: {} on both", side(first)).expect(FITS);
            }
            (Some(first), Some(second)) => {
                writeln!(text, "{app}: {} on {left}, {} on {right}", side(first), side(second)).expect(FITS);
            }
            (Some(first), None) => writeln!(text, "{app}: only on {left}, {}", side(first)).expect(FITS),
            (None, second) => {
                writeln!(text, "{app}: only on {right}, {}", second.as_ref().map(side).unwrap_or_default())
                    .expect(FITS);
            }
        }
        for resource in &contrast.other {
            writeln!(text, "  not the same  {resource}").expect(FITS);
        }
        for (host, resources) in [left, right].into_iter().zip(&contrast.only) {
            for resource in resources {
                writeln!(text, "  only on {host}  {resource}").expect(FITS);
            }
        }
        if contrast.is_unknown {
            text.push_str("  what their releases want cannot be compared: their commits are not here\n");
        }
    }
    text
}

fn side(side: &Side) -> String {
    match &side.release {
        Some(release) => format!("{} at {}", side.state, release.short()),
        None => side.state.to_owned(),
    }
}
