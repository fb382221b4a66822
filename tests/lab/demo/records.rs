//! What the hosts say of themselves: their records, read from git notes as anybody with the repository can, and shown live.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lab::Repo;

use super::story::seconds;

/// What one host last said of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The line for people.
    pub(crate) headline: String,
    /// State by application.
    pub(crate) apps: BTreeMap<String, String>,
    failures: Vec<String>,
}

impl Record {
    /// Reads a note's text: a line for people, then a line of JSON per application.
    fn parse(text: &str) -> Record {
        let mut record = Record { headline: text.lines().next().unwrap_or_default().to_owned(), ..Record::default() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        for line in lines {
            let word = |key: &str| Some(line.get(key)?.as_str()?.to_owned());
            if let (Some(app), Some(state)) = (word("app"), word("state")) {
                record.failures.extend(word("failure").map(|failure| format!("{app}: {failure}")));
                record.apps.insert(app, state);
            }
        }
        record
    }

    /// Whether all of `apps` are as the commit says.
    fn holds(&self, apps: &[&str]) -> bool {
        let is_so = |app: &&str| matches!(self.apps.get(*app).map(String::as_str), Some("converged" | "repaired"));
        apps.iter().all(is_so)
    }

    fn line(&self) -> String {
        if self.apps.is_empty() {
            return "no record yet".to_owned();
        }
        let apps = self.apps.iter().map(|(app, state)| format!("{app} {state}"));
        apps.chain(self.failures.iter().cloned()).collect::<Vec<_>>().join(", ")
    }
}

/// A host's record of a commit; empty while there is none.
pub(crate) fn of(repo: &Repo, host: &str, commit: &str) -> Result<Record> {
    let reference = format!("refs/notes/mainstay/{host}");
    if repo.git(&["for-each-ref", "--format=x", &reference])?.is_empty() {
        return Ok(Record::default());
    }
    let notes = repo.git(&["notes", &format!("--ref={reference}"), "list"])?;
    let blob = notes.lines().find_map(|line| line.split_once(' ').filter(|(_, noted)| *noted == commit));
    Ok(match blob {
        Some((blob, _)) => Record::parse(&repo.git(&["cat-file", "blob", blob])?),
        None => Record::default(),
    })
}

/// Shows how the hosts get to a commit until each has said that all its applications are there; returns how long it took.
pub(crate) fn watch(repo: &Repo, commit: &str, hosts: &[(&str, &[&str])], deadline: Duration) -> Result<Duration> {
    let began = Instant::now();
    let view = View::open(hosts.iter().map(|(name, _)| *name));
    let mut arrived = BTreeMap::new();
    let all = lab::poll(deadline, || {
        for (name, apps) in hosts.iter().filter(|(name, _)| !arrived.contains_key(name)).collect::<Vec<_>>() {
            let record = of(repo, name, commit)?;
            let is_there = record.holds(apps);
            view.show(name, &record, is_there, began.elapsed());
            if is_there {
                arrived.insert(*name, record);
            }
        }
        Ok((arrived.len() == hosts.len()).then_some(()))
    })?;
    view.close();
    if all.is_some() {
        return Ok(began.elapsed());
    }
    let mut late = Vec::new();
    for (name, apps) in hosts.iter().filter(|(name, _)| !arrived.contains_key(name)) {
        late.push(format!("{name} should have {}; it said: {}", apps.join(", "), of(repo, name, commit)?.line()));
    }
    bail!("not there after {}:\n{}", seconds(deadline), late.join("\n"))
}

/// One line per host: redrawn on a terminal, printed at each change elsewhere.
struct View {
    lines: MultiProgress,
    hosts: BTreeMap<String, (ProgressBar, std::cell::RefCell<String>)>,
}

impl View {
    fn open<'a>(names: impl Iterator<Item = &'a str>) -> View {
        const RUNNING: &str = "   {spinner:.cyan}  {prefix:<8} {wide_msg}";
        let style = ProgressStyle::with_template(RUNNING).expect("the template is a constant");
        let lines = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::stdout());
        let line = |name: &str| {
            let bar = lines.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(name.to_owned()));
            bar.set_message("no record yet");
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        };
        let hosts = names.map(|name| (name.to_owned(), (line(name), std::cell::RefCell::default()))).collect();
        View { lines, hosts }
    }

    fn show(&self, name: &str, record: &Record, is_there: bool, time: Duration) {
        let Some((bar, last)) = self.hosts.get(name) else { return };
        let line = record.line();
        if record.apps.is_empty() || *last.borrow() == line {
            return;
        }
        let time = format!("+{}", seconds(time));
        if self.lines.is_hidden() {
            println!("   {time:>7}  {name:<8} {line}");
        }
        if is_there {
            let style = ProgressStyle::with_template("   {prefix}").expect("the template is a constant");
            bar.set_style(style);
            bar.set_prefix(format!("{time:>7}  {name:<8} {line}"));
            bar.finish();
        } else {
            bar.set_message(line.clone());
        }
        last.replace(line);
    }

    fn close(&self) {
        for (bar, _) in self.hosts.values().filter(|(bar, _)| !bar.is_finished()) {
            bar.abandon();
        }
    }
}
