//! `mainstay fleet`: what runs where in the whole fleet, read from any clone. One file for each question.

mod table;
mod status;
mod drift;
mod history;
mod locate;
mod diff;
mod explain;
mod wait;
mod serve;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::id::{HostName, shown};

use super::{Common, Ended};
use crate::fleet::{FleetError, Reading};
use crate::git::{Followed, Mirror};
use crate::snapshot::without_secrets;

/// How long a fetch may take: the first one of a large fleet brings all that its hosts ever said.
const FETCH: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
Examples:
  mainstay fleet status               what runs where, since when
  mainstay fleet drift                what is not as it should be; 4 if anything
  mainstay fleet where 'new login'    how far a feature has come
  mainstay fleet history web          what was deployed, on all hosts";

/// Ask what runs where, in the whole fleet, from any clone
///
/// Reads a clone of the configuration repository and nothing else: what should be where, and the records that hosts publish in git
/// notes. Fetches both first, with your own git and its credentials, which are never asked for here. The notes stay in the clone,
/// where `git log --notes='mainstay/*'` shows them. A remote that does not answer is told, what the clone has is shown all the same,
/// and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    question: Question,
}

/// Where the answer is looked for.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where to read")]
struct Place {
    /// The clone [default: .]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The remote whose branch hosts follow [default: as the current branch does, else origin]
    #[arg(long, global = true, value_name = "NAME")]
    remote: Option<String>,
    /// The branch that hosts follow [default: the remote's HEAD]
    #[arg(long, global = true, value_name = "NAME")]
    branch: Option<String>,
    /// The remote that has the records, where they are not beside the commits
    #[arg(long, global = true, value_name = "NAME")]
    records: Option<String>,
    /// Read what is in the clone, and ask nobody
    #[arg(long, global = true)]
    no_fetch: bool,
}

/// What is asked.
#[derive(Debug, clap::Subcommand)]
enum Question {
    Status(status::Args),
    Drift(drift::Args),
    History(history::Args),
    Where(locate::Args),
    Diff(diff::Args),
    Explain(explain::Args),
    Wait(wait::Args),
    Serve(serve::Args),
}

/// A clone, and how new what it has is.
struct Repo {
    mirror: Mirror,
    followed: Followed,
    records: Option<String>,
    is_fetched: bool,
    /// Why the remote could not be asked.
    unreachable: Option<String>,
}

impl Place {
    /// Opens the clone, and brings it up to date unless that is not wanted.
    fn open(&self) -> anyhow::Result<Repo> {
        let mirror = Mirror::of_clone(self.dir.as_deref().unwrap_or(Path::new(".")))?;
        let followed = mirror.followed(self.remote.as_deref(), self.branch.as_deref())?;
        if let Some(records) = &self.records {
            mirror.followed(Some(records), self.branch.as_deref())?;
        }
        let records = self.records.clone();
        let mut clone = Repo { mirror, followed, records, is_fetched: !self.no_fetch, unreachable: None };
        clone.renew(FETCH);
        Ok(clone)
    }
}

impl Repo {
    /// Fetches again, unless nothing is to be fetched.
    fn renew(&mut self, deadline: Duration) {
        if !self.is_fetched {
            return;
        }
        let brought = self.mirror.bring(&self.followed, self.records.as_deref(), deadline, &AtomicBool::new(false));
        self.unreachable = brought.err().map(|why| without_secrets(&why));
    }

    fn read(&self) -> Result<Reading, FleetError> {
        Reading::of(&self.mirror, &self.followed, Timestamp::now())
    }

    /// Tells what an answer has to be taken with, on standard error: answers stand alone.
    fn warn(&self, reading: &Reading) {
        for line in self.remarks(reading) {
            eprintln!("{line}");
        }
    }

    /// Says what an answer has to be taken with.
    fn remarks(&self, reading: &Reading) -> Vec<String> {
        let mut remarks = Vec::new();
        let plural = |count: usize, one: &str, many: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
        };
        if let Some(why) = &self.unreachable {
            remarks.push(format!("mainstay: what follows may be old, {} cannot be fetched: {why}", self.followed));
        }
        if let Some(commit) = &reading.unsound {
            let (new, old) = (commit.short(), reading.commit.short());
            remarks.push(format!("mainstay: {new} has mistakes, which `mainstay check` lists; hosts stay at {old}"));
        }
        if let Some((commit, why)) = &reading.refused {
            let (new, old) = (commit.short(), reading.commit.short());
            remarks.push(format!("mainstay: what follows is by {old}, and not by {new}: {why}"));
        }
        let aside = &reading.aside;
        if aside.strangers > 0 {
            let refs = plural(aside.strangers, "ref is of a host", "refs are of hosts");
            remarks.push(format!("mainstay: {refs} that fleet.yaml does not name, and left out"));
        }
        if aside.unreadable > 0 {
            let hosts = plural(aside.unreadable, "host has", "hosts have");
            remarks.push(format!("mainstay: {hosts} no record that can be read, and count as unreported"));
        }
        if aside.forged > 0 {
            let records = plural(aside.forged, "record is", "records are");
            remarks.push(format!(
                "mainstay: {records} not signed with the key that fleet.yaml names for the host, and left out"
            ));
        }
        if aside.newer > 0 {
            let records = plural(aside.newer, "record is", "records are");
            remarks.push(format!("mainstay: {records} of a newer mainstay, which may say more than this one shows"));
        }
        remarks
    }

    /// What an answer for programs begins with.
    fn as_json(&self, reading: &Reading) -> serde_json::Map<String, Value> {
        let head = json!({
            "fleet": reading.fleet.name,
            "branch": reading.branch,
            "commit": reading.commit,
            "at": reading.at,
            "unreachable": self.unreachable,
            "unsound": reading.unsound,
            "refused": reading.refused.as_ref().map(|(commit, why)| json!({ "commit": commit, "why": why })),
            "left-out": {
                "strangers": reading.aside.strangers,
                "unreadable": reading.aside.unreadable,
                "newer": reading.aside.newer,
                "forged": reading.aside.forged,
            },
        });
        match head {
            Value::Object(head) => head,
            _ => serde_json::Map::new(),
        }
    }

    /// Returns how a command ends that came to an end by itself: an old answer is not taken for a new one.
    fn ended(&self, ended: Ended) -> Ended {
        if self.unreachable.is_some() { Ended::Impossible } else { ended }
    }
}

/// Answers a question.
///
/// # Errors
/// The clone cannot be read.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    match &args.question {
        Question::Status(asked) => status::run(common, &args.place, asked).await,
        Question::Drift(asked) => answered(drift::run(common, &args.place, asked)),
        Question::History(asked) => answered(history::run(common, &args.place, asked)),
        Question::Where(asked) => answered(locate::run(common, &args.place, asked)),
        Question::Diff(asked) => answered(diff::run(common, &args.place, asked)),
        Question::Explain(asked) => answered(explain::run(common, &args.place, asked)),
        Question::Wait(asked) => Box::pin(wait::run(common, &args.place, asked)).await,
        Question::Serve(asked) => Box::pin(serve::run(common, &args.place, asked)).await,
    }
}

impl Args {
    /// Says whether the answer may be longer than a screen.
    pub(super) fn is_long(&self) -> bool {
        match &self.question {
            Question::Status(asked) => !asked.watch,
            Question::Wait(_) | Question::Serve(_) | Question::Explain(_) => false,
            Question::Drift(_) | Question::History(_) | Question::Where(_) | Question::Diff(_) => true,
        }
    }
}

/// Tells mistakes of the repository apart from what else stands in the way.
fn answered(answer: anyhow::Result<Ended>) -> anyhow::Result<Ended> {
    match answer {
        Err(error) if matches!(error.downcast_ref(), Some(FleetError::Unsound { .. })) => {
            eprintln!("{}", crate::told(&error));
            Ok(Ended::Mistaken)
        }
        other => other,
    }
}

/// Refuses a host that the fleet does not have.
fn known_host(reading: &Reading, host: &HostName) -> anyhow::Result<()> {
    if reading.hosts.contains_key(host) {
        return Ok(());
    }
    let hint = super::names::hint(host.as_str(), reading.hosts.keys().map(HostName::as_str));
    anyhow::bail!("there is no host `{}` in fleet `{}`{hint}", shown(host.as_str()), reading.fleet.name)
}

#[cfg(test)]
mod tests;
