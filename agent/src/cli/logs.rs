//! `mainstay logs`: what an application's services and containers said, on one line of time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use serde_json::json;
use spec::id::{AppName, shown};

use super::{Common, Ended, names, out, print, status, times};
use crate::logs::{self, Heard, Line, Query, Source};
use crate::pass::Host;
use crate::progress::Progress;

/// What is shown when nothing is said.
const USUAL: usize = 100;
/// How often to look whether anybody still reads, while nothing is said.
const LOOK: Duration = Duration::from_secs(1);
/// One colour for each unit or container, round and round.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

const EXAMPLES: &str = "\
Examples:
  mainstay logs web                    the last lines of all that it runs
  mainstay logs web -f                 and what is said from now on
  mainstay logs web proxy --since 10m  the last ten minutes of one of them";

/// Show what an application's services and containers say
///
/// In the order of time: units from the journal, containers from their engine. Without --since the last lines are shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The application
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    app: AppName,
    /// Units and containers of it, with or without `.service` [default: all]
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
    /// Go on with what is said
    #[arg(short, long)]
    follow: bool,
    /// How many lines of what was said [default: 100; with --since all]
    #[arg(short = 'n', long, value_name = "LINES", value_parser = clap::value_parser!(u64).range(..=logs::MOST as u64))]
    lines: Option<u64>,
    /// Nothing older, like 10m, 06:30, 2026-11-22T06:30 (this host's time) or 2026-11-22T05:30Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// Shows them.
///
/// # Errors
/// The settings or the ledger cannot be read, or there is no such application or unit here.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let mut host = Host::look(settings.host()?, &settings, Arc::new(Progress::default()))?;
    status::remember(&mut host, &settings);
    names::known(&host, &BTreeSet::from([args.app.clone()]))?;
    let all = logs::sources(&args.app, host.belief.as_ref().map(|belief| &belief.desired), &host.ledger.memory);
    let sources = chosen(args, all)?;
    let since = args.since.as_deref().map(|text| times::last(text, &Zoned::now())).transpose();
    let since = since.map_err(anyhow::Error::msg)?;
    let usual = if since.is_some() { logs::MOST } else { USUAL };
    let lines = args.lines.map_or(usual, |lines| usize::try_from(lines).unwrap_or(usual));
    let printer = Printer::of(&sources, common);
    let query = Query { sources, lines, since, follow: args.follow };
    let mut heard = logs::read(query, host.another_engine());
    // Ended in order, so that no `journalctl` is left behind.
    let mut stop = std::pin::pin!(out::stopped()?);
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(LOOK, heard.recv()) => next,
            () = &mut stop => return Ok(Ended::Well),
        };
        match next {
            Ok(Some(Heard::Line(line))) => printer.print(&line),
            Ok(Some(Heard::Trouble(why))) => eprintln!("mainstay: {why}"),
            Ok(None) => return Ok(Ended::Well),
            Err(_) => {}
        }
        if heard.is_empty() && !out::is_read() {
            return Ok(Ended::Well);
        }
    }
}

/// Picks what is named among what there is.
fn chosen(args: &Args, mut all: BTreeSet<Source>) -> anyhow::Result<BTreeSet<Source>> {
    let app = &args.app;
    if all.is_empty() {
        anyhow::bail!("{app} has neither units nor containers on this host, so nothing of it says anything");
    }
    let is_called = |unit: &String| all.iter().any(|source| source.is_called(unit));
    if let Some(wrong) = args.units.iter().find(|unit| !is_called(unit)) {
        let hint = names::hint(wrong, all.iter().map(Source::name));
        anyhow::bail!("there is no unit or container `{}` in {app}{hint}", shown(wrong));
    }
    if !args.units.is_empty() {
        all.retain(|source| args.units.iter().any(|unit| source.is_called(unit)));
    }
    Ok(all)
}

/// How lines are printed.
struct Printer {
    json: bool,
    colour: bool,
    width: usize,
    colours: BTreeMap<String, &'static str>,
}

impl Printer {
    fn of(sources: &BTreeSet<Source>, common: &Common) -> Printer {
        let names: BTreeSet<String> = sources.iter().map(|source| source.name().to_owned()).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let colours = names.into_iter().zip(COLOURS.into_iter().cycle()).collect();
        Printer { json: common.json, colour: common.colour(), width, colours }
    }

    fn print(&self, line: &Line) {
        if self.json {
            // One object a line, so that a reader need not wait for the end.
            return println!(
                "{}",
                json!({ "at": line.at.to_string(), "source": line.source, "by-systemd": line.by_systemd,
                    "priority": line.priority, "text": line.text })
            );
        }
        let name = format!("{:<1$}", line.source, self.width);
        let code = self.colours.get(&line.source).copied().unwrap_or_default();
        let name = print::painted(&name, code, self.colour);
        let text = plain(&line.text);
        let text = match (line.priority, line.by_systemd) {
            (Some(0..=3), _) => print::painted(&text, "31", self.colour),
            (_, true) => print::painted(&text, "2", self.colour),
            _ => text,
        };
        println!("{}  {name}  {text}", line.at.strftime("%Y-%m-%d %H:%M:%SZ"));
    }
}

/// Takes colours out of a line, and shows what else is not to reach a terminal.
fn plain(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("\u{1b}[") {
        let (before, sequence) = rest.split_at(begin);
        kept.push_str(before);
        let body = &sequence[2..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end {
            Some(end) if body.as_bytes()[end] == b'm' => rest = &body[end + 1..],
            _ => {
                kept.push('\u{1b}');
                rest = &sequence[1..];
            }
        }
    }
    kept.push_str(rest);
    shown(&kept.replace('\t', "    "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_a_service_are_left_out_and_worse_is_shown() {
        assert_eq!(plain("\u{1b}[1;31mfailed\u{1b}[0m\tat 3"), "failed    at 3");
        assert_eq!(plain("a\u{1b}[2Jb\u{1b}]0;x\u{7}"), "a\\u{1b}[2Jb\\u{1b}]0;x\\u{7}");
        assert_eq!(plain("\u{1b}[31"), "\\u{1b}[31");
    }
}
