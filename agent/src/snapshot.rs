//! What the daemon knows, as one immutable picture that others may look at while it works: the answers of `/v1`.
//!
//! Its fields and their names are an interface: `FORMAT` rises when one of them goes or means something else. Nothing here
//! looks at the host or asks anybody.

mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::Serialize;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, ContainerName, HostName};
use spec::lookout::Call;
use spec::manifest::Alert;
use spec::memory::{AppMemory, AppState};
use spec::trust::Standing;

use crate::git::Mirror;

pub use plan::{DifferenceView, PlanView, StepView};

/// The version of the answers' form.
pub const FORMAT: u32 = 1;

/// What the daemon knows at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    /// Rises with each picture that one agent makes.
    pub serial: u64,
    /// When it was made: what it says holds since then.
    pub at: Timestamp,
    /// The program.
    pub agent: Agent,
    /// Who this host is in `fleet.yaml`.
    pub host: HostName,
    /// The fleet, once something was believed.
    pub fleet: Option<String>,
    /// What is followed.
    pub repository: Repository,
    /// The commit that the host is held to, once one was believed.
    pub commit: Option<Release>,
    /// The first look at the host is over, and a commit is believed.
    pub ready: bool,
    /// How the host is.
    pub condition: Condition,
    /// How each application fares.
    pub apps: BTreeMap<AppName, App>,
    /// A newer commit that is not believed.
    pub refused: Option<Refused>,
    /// Why the repository could not be asked, while it could not.
    pub unreachable: Option<String>,
    /// Why the last record could not be pushed, while it could not.
    pub unreported: Option<String>,
    /// Who has to sign what is believed.
    pub trust: Option<Standing>,
    /// Why newer commits may be withheld, while they may.
    pub stale: Option<String>,
    /// What is being done, and what cannot be done.
    pub plan: PlanView,
    /// What was done since the agent started, the latest first; not everything.
    pub changes: Vec<Arc<Change>>,
    /// Where to find the services that this host's environment offers.
    pub endpoints: Arc<BTreeMap<String, Endpoint>>,
    /// Who is told of this host and of the fleet, as the repository says.
    #[serde(skip)]
    pub alerts: Arc<[Alert]>,
    /// What of the fleet falls to this host to tell.
    #[serde(skip)]
    pub calls: Arc<[Call]>,
    /// The same as text, for whoever may see all of it and for everybody: written once, when it is asked for.
    #[serde(skip)]
    texts: (OnceLock<Arc<str>>, OnceLock<Arc<str>>),
}

/// How a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It was not looked at yet.
    Starting,
    /// Steps of the plan are being carried out.
    Applying,
    /// Everything is as the commit says.
    Converged,
    /// Something is not.
    Unconverged,
}

/// The program that runs.
#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    /// Its version.
    pub version: &'static str,
    /// When it started.
    pub since: Timestamp,
}

/// What is followed.
#[derive(Clone, Debug, Serialize)]
pub struct Repository {
    /// Its address, without credentials.
    pub url: Option<String>,
    /// The branch.
    pub branch: String,
}

/// A commit as people recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Its full id.
    pub id: CommitId,
    /// The first line of its message, where it can be read.
    pub subject: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// When it was committed.
    pub committed: Option<Timestamp>,
}

/// How an application fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct App {
    /// The state, as records name it.
    pub state: AppState,
    /// Since when.
    pub since: Timestamp,
    /// The release that runs; `None` for one from a local folder.
    pub commit: Option<Release>,
    /// The commit of the release before.
    pub from: Option<CommitId>,
    /// The digest of the release.
    pub digest: Digest,
    /// How many steps the last change or repair took.
    pub changes: usize,
    /// The digest of the image of each container.
    pub images: BTreeMap<ContainerName, String>,
    /// What is wrong with it, in words; behind the first line stands what a service printed.
    pub trouble: Option<String>,
    /// Passes in a row that failed at this release.
    pub failures: u32,
    /// When it is tried again after a failure.
    pub again_at: Option<Timestamp>,
    /// The release that failed here and is not tried again.
    pub bad: Option<Bad>,
}

/// A release that failed on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The commit with which it failed.
    pub commit: Option<CommitId>,
    /// Its digest.
    pub digest: Digest,
    /// When it failed.
    pub since: Timestamp,
    /// Whether the application could not go back.
    pub stuck: bool,
}

/// A commit that is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The commit.
    pub commit: CommitId,
    /// Why not.
    pub why: String,
}

/// What one pass did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// When it was done.
    pub at: Timestamp,
    /// What the host was held to.
    pub commit: Option<CommitId>,
    /// The steps; some of them where they were many.
    pub steps: Vec<StepView>,
    /// How many steps are left out.
    pub more: usize,
    /// The applications of which a step failed.
    pub failed: Vec<AppName>,
    /// What changed in files; some of it where it was much.
    pub differences: Vec<DifferenceView>,
}

/// Where a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The nearest.
    pub url: String,
    /// All of them, the nearest first.
    pub all: Vec<String>,
}

/// How much somebody may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything that is not secret by itself.
    Full,
    /// What anybody on this host may know: not what services printed, nor what files hold.
    Least,
}

impl Snapshot {
    /// Makes the first picture, of an agent that has not looked at anything yet.
    pub fn first(host: HostName, repository: Repository) -> Snapshot {
        let at = Timestamp::now();
        Snapshot {
            format: FORMAT,
            serial: 0,
            at,
            agent: Agent { version: env!("CARGO_PKG_VERSION"), since: at },
            host,
            fleet: None,
            repository,
            commit: None,
            ready: false,
            condition: Condition::Starting,
            apps: BTreeMap::new(),
            refused: None,
            unreachable: None,
            unreported: None,
            trust: None,
            stale: None,
            plan: PlanView::default(),
            changes: Vec::new(),
            endpoints: Arc::default(),
            alerts: Arc::default(),
            calls: Arc::default(),
            texts: Default::default(),
        }
    }

    /// Returns the picture that follows this one, to be changed.
    #[must_use]
    pub fn next(&self) -> Snapshot {
        Snapshot { serial: self.serial + 1, at: Timestamp::now(), texts: Default::default(), ..self.clone() }
    }

    /// Returns it as JSON.
    pub fn text(&self, detail: Detail) -> Arc<str> {
        let text = |snapshot: &Snapshot| Arc::from(as_json(snapshot));
        match detail {
            Detail::Full => self.texts.0.get_or_init(|| text(self)),
            Detail::Least => self.texts.1.get_or_init(|| text(&self.least())),
        }
        .clone()
    }

    /// Leaves out what only those may see who proved who they are.
    #[must_use]
    pub fn least(&self) -> Snapshot {
        let mut least = self.next();
        (least.serial, least.at) = (self.serial, self.at);
        for app in least.apps.values_mut() {
            app.trouble = app.trouble.take().map(first_line);
        }
        for text in [&mut least.unreachable, &mut least.unreported] {
            *text = text.take().map(first_line);
        }
        if let Some(refused) = &mut least.refused {
            refused.why = first_line(std::mem::take(&mut refused.why));
        }
        least.plan.differences.clear();
        for change in &mut least.changes {
            Arc::make_mut(change).differences.clear();
        }
        least
    }

    /// Returns the view that somebody may have.
    pub fn seen(&self, detail: Detail) -> std::borrow::Cow<'_, Snapshot> {
        match detail {
            Detail::Full => std::borrow::Cow::Borrowed(self),
            Detail::Least => std::borrow::Cow::Owned(self.least()),
        }
    }
}

impl Release {
    /// Reads what people call a commit by, as far as it can be read.
    pub fn read(mirror: &Mirror, id: &CommitId) -> Release {
        let read = mirror.commit(id).ok();
        let (author, committed) = (read.as_ref().map(|it| it.author.clone()), read.as_ref().map(|it| it.time));
        Release { id: id.clone(), subject: read.map(|it| it.subject), author, committed }
    }

    /// Stands for a commit of which nothing can be read now.
    pub fn nameless(id: &CommitId) -> Release {
        Release { id: id.clone(), subject: None, author: None, committed: None }
    }
}

impl App {
    /// Puts into words how an application fares; `release` knows commits.
    pub fn of(known: &AppMemory, mut release: impl FnMut(&CommitId) -> Release) -> App {
        App {
            state: known.state,
            since: known.since,
            commit: known.commit.as_ref().map(&mut release),
            from: known.from.clone(),
            digest: known.digest,
            changes: known.changes,
            images: known.images.clone(),
            trouble: known.trouble().map(without_secrets),
            failures: known.failure.as_ref().map_or(0, |failure| failure.count),
            again_at: known.failure.as_ref().map(|failure| failure.not_before),
            bad: known.bad.as_ref().map(|bad| Bad {
                commit: bad.commit.clone(),
                digest: bad.digest,
                since: bad.since,
                stuck: bad.stuck.is_some(),
            }),
        }
    }
}

/// Writes an answer.
pub fn as_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("answers hold only strings, numbers and maps with string keys")
}

fn first_line(text: String) -> String {
    match text.find('\n') {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Takes out of a text what gives access in the addresses that it names: passwords, tokens, signatures behind a `?`.
pub fn without_secrets(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>'));
        let (url, tail) = after.split_at(end.unwrap_or(after.len()));
        kept.push_str(before);
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        let host = match url[..authority].rfind('@') {
            // A user of ssh is no secret; elsewhere the user may be a token.
            Some(at) if before.ends_with("ssh://") && !url[..at].contains(':') => url,
            Some(at) => {
                kept.push_str("***@");
                &url[at + 1..]
            }
            None => url,
        };
        match host.split_once('?') {
            Some((path, _)) => kept.extend([path, "?***"]),
            None => kept.push_str(host),
        }
        rest = tail;
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_what_gives_access() {
        for (text, expected) in [
            ("nothing", "nothing"),
            ("failed: https://u:p@h/x: 401", "failed: https://***@h/x: 401"),
            ("https://token@h/x?a=b and `https://h:1/y`", "https://***@h/x?*** and `https://h:1/y`"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://***@h/x"),
            ("http://h?sig=1\nhttp://a:b@c", "http://h?***\nhttp://***@c"),
            ("://", "://"),
            ("https://h/a@b", "https://h/a@b"),
            ("https://u:p@ss@h/é", "https://***@h/é"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn who_may_see_the_least_sees_neither_what_services_print_nor_what_files_hold() {
        let host = HostName::parse("attic").expect("a name");
        let repository = Repository { url: None, branch: "main".to_owned() };
        let mut snapshot = Snapshot::first(host, repository);
        let canary = "hunter2";
        snapshot.unreachable = Some(format!("it failed\n{canary}"));
        snapshot.apps.insert(
            AppName::parse("web").expect("a name"),
            App {
                state: AppState::Failed,
                since: snapshot.at,
                commit: None,
                from: None,
                digest: Digest::of(b"x"),
                changes: 1,
                images: BTreeMap::new(),
                trouble: Some(format!("failed to start web.service\n  | {canary}")),
                failures: 1,
                again_at: None,
                bad: None,
            },
        );
        let difference = DifferenceView { path: "/etc/web".to_owned(), text: format!("+{canary}") };
        snapshot.plan.differences.push(difference.clone());
        snapshot.changes.push(Arc::new(Change {
            at: snapshot.at,
            commit: None,
            steps: Vec::new(),
            more: 0,
            failed: Vec::new(),
            differences: vec![difference],
        }));
        assert_eq!(snapshot.text(Detail::Full).matches(canary).count(), 4);
        let least = snapshot.text(Detail::Least);
        assert!(!least.contains(canary), "{least}");
        assert!(least.contains("failed to start web.service"), "{least}");
    }
}
