//! The repository as the daemon and `once` use it: fetched and pushed on a thread of its own, one call at a time, while
//! the loop goes on; read in place in between.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use spec::id::{CommitId, HostName};
use spec::record::Record;
use tokio::task::JoinHandle;

use crate::git::{
    self, BranchName, Deadlines, FetchError, Fetched, Files, GitError, Heard, Limits, Mirror, Peers, Proposal,
    PushError, Pushed, Remote, Seen, Token, Url, UrlError,
};
use crate::identity::{self, Identity, RECORD, Voice};
use crate::settings::Settings;
use crate::source::Source;
use crate::spent::Spent;
use crate::trust::{Case, Judged};
use crate::web;

/// What of a tree is read: more than any configuration repository needs, less than would hurt a host.
pub const LIMITS: Limits = Limits { max_blob: 16 << 20, max_entries: 50_000, max_total: 256 << 20 };

/// How long tidying the mirror may take.
const TIDY: Duration = Duration::from_secs(120);
/// The mirror's name in the state folder.
const MIRROR: &str = "mirror.git";
/// What the token for https is called among the service's credentials of systemd.
const CREDENTIAL: &str = "git-token";

/// Why the repository cannot be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is none.
    #[error("no repository is set: write `repository: URL` into {}", crate::settings::DEFAULT_PATH)]
    Unset,
    /// Its address or branch is not usable.
    #[error("the settings name a repository that cannot be followed: {0}")]
    Address(#[from] UrlError),
    /// The mirror cannot be opened.
    #[error("failed to open the mirror of the repository")]
    Mirror(#[from] GitError),
}

/// What came of a conversation with the remote.
pub enum Done {
    /// A fetch.
    Fetched(Result<Fetched, FetchError>),
    /// A push of this host's notes and sign of life, or of that alone.
    Pushed(Result<Pushed, PushError>),
}

/// What is asked of the repository.
#[derive(Clone, Default)]
pub struct Question {
    /// What stays in the mirror where it is tidied, beside everything that the branch reaches.
    pub keep: Vec<CommitId>,
    /// Whose signs of life are asked for.
    pub peers: Option<Peers>,
    /// What it takes to say whether the newest commit may be believed, and of which that is known.
    pub case: Option<(Case, Vec<CommitId>)>,
}

/// What a conversation leaves behind.
struct Conversed {
    source: Source,
    done: Done,
    /// Which other hosts it asked for, and when.
    peers: Option<(Peers, Timestamp)>,
    judged: Option<Judged>,
}

/// What this host said last, by what it signed: others count nothing that is not later.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The highest number of its records.
    counter: u64,
    /// The number in its last sign of life, and when that was given.
    sign: Option<(u64, Timestamp)>,
}

impl Said {
    fn of(mirror: &Mirror, record: &Record, voice: Option<&Voice>) -> Said {
        let Some(voice) = voice else { return Said::default() };
        let last = mirror.last_said(&record.host, &record.commit, voice).unwrap_or_else(|error| {
            tracing::warn!("this host's own notes cannot be read: {}", crate::chain(&error));
            None
        });
        let counter = last.map_or(0, |(_, counter)| counter);
        let sign = mirror.sign_given(&record.host).and_then(|text| {
            let number = text.split_once("\n\n").map_or(Some(0), |(_, it)| Some(Record::parse(it).ok()?.counter));
            Some((number?, git::said_by(&text)?.1))
        });
        Said { counter: counter.max(sign.map_or(0, |(counter, _)| counter)), sign }
    }

    /// Says whether something of it is later than a record with a number and what would be said with that at a moment: the state was
    /// lost, or the clock set back.
    fn outranks(&self, counter: u64, now: Timestamp) -> bool {
        self.counter > counter || self.sign.is_some_and(|sign| sign > (counter, now))
    }
}

/// The repository and whatever is under way with it.
pub struct Upstream {
    at_rest: Option<Source>,
    under_way: Option<JoinHandle<Conversed>>,
    /// Whose signs of life have come in and were not looked at.
    peers: Option<(Peers, Timestamp)>,
    /// What came of the newest commit, and was not looked at.
    judged: Option<Judged>,
    reports: Remote,
    /// Commits come from there too.
    is_one: bool,
    /// The server that it reports to answered last time.
    answered: bool,
    deadlines: Deadlines,
    cancel: Arc<AtomicBool>,
    /// What the note on the believed commit is known to say: looked up once, not with every pass.
    noted: Option<Record>,
    /// The last that this host said to anybody, looked up as rarely.
    said: Option<Said>,
    /// The key that this host signs with what it says, and the fleet for which it speaks, once that is known.
    identity: Option<Arc<Identity>>,
    voice: Option<Voice>,
}

impl Upstream {
    /// Opens the mirror; uses no network.
    ///
    /// # Errors
    /// No repository is set, it cannot be followed, or the mirror cannot be opened.
    pub fn open(settings: &Settings) -> Result<Upstream, UpstreamError> {
        let address = settings.repository.as_deref().ok_or(UpstreamError::Unset)?;
        let remote = remote(settings, address)?;
        let reports = match &settings.report.repository {
            Some(other) => self::remote(settings, other)?,
            None => remote.clone(),
        };
        let (git, is_one) = (&settings.git, reports == remote);
        let deadlines = Deadlines { connect: git.connect, stall: git.stall, total: git.total };
        let source = Source::open(&settings.state.join(MIRROR), remote, deadlines)?.through(web::fetcher());
        let cancel = Arc::new(AtomicBool::new(false));
        let identity = match Identity::find(settings) {
            Ok(identity) => identity.map(Arc::new),
            Err(error) => {
                tracing::warn!("what this host says is not signed: {}", crate::chain(&error));
                None
            }
        };
        Ok(Upstream {
            at_rest: Some(source),
            under_way: None,
            reports,
            is_one,
            answered: true,
            deadlines,
            cancel,
            noted: None,
            said: None,
            peers: None,
            judged: None,
            identity,
            voice: None,
        })
    }

    /// Returns the key that this host signs with what it says.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Returns the mirror to read from and write to; `None` while a conversation is under way.
    pub fn source(&mut self) -> Option<&mut Source> {
        self.at_rest.as_mut()
    }

    /// Returns where commits come from, without credentials.
    pub fn address(&self) -> Option<String> {
        self.at_rest.as_ref().map(|source| source.remote().url.to_string())
    }

    /// Returns the first line of a commit's message, safe to print; empty when it cannot be read.
    pub fn subject(&mut self, commit: &CommitId) -> String {
        let summary = self.source().and_then(|source| source.mirror().commit(commit).ok());
        summary.map(|summary| summary.subject).unwrap_or_default()
    }

    /// Begins to ask for the newest commit; does nothing while something is under way. When many packs have piled up the
    /// mirror is tidied after it. The signs of life are asked for with it, in the same conversation where they are at the same remote;
    /// see [`Upstream::peers`], and [`Upstream::judged`].
    pub fn fetch(&mut self, question: Question) {
        let Question { keep, peers, case } = question;
        let (cancel, reports, deadlines) = (Arc::clone(&self.cancel), self.reports.clone(), self.deadlines);
        let is_one = self.is_one;
        self.begin(move |mut source| {
            let spent = Spent::begin();
            let asked = Timestamp::now();
            let fetched = source.latest_with(peers.as_ref().filter(|_| is_one), &cancel);
            tracing::debug!(wall_us = spent.wall_us(), cpu_us = spent.cpu_us(), "asked the repository");
            let (fetched, mut heard) = match fetched {
                Ok((fetched, heard)) => (Ok(fetched), heard),
                Err(error) => (Err(error), Heard::Nothing),
            };
            if let (Some(peers), false, Ok(_)) = (&peers, is_one, &fetched) {
                let peers = source.mirror_mut().fetch_peers(&reports, peers, &deadlines, &cancel);
                heard = peers.unwrap_or_else(|error| {
                    tracing::warn!(
                        "the signs of life of the other hosts could not be fetched: {}",
                        crate::chain(&error)
                    );
                    Heard::Nothing
                });
            }
            let is_news = fetched.as_ref().is_ok_and(|fetched| fetched.changed) || heard == Heard::News;
            // What is refused or half taken over is tidied away, too.
            let is_odd = fetched.is_err() || (peers.is_some() && heard == Heard::Nothing);
            if (is_news || is_odd)
                && let Err(error) = source.mirror_mut().tidy(&keep, TIDY, &cancel)
            {
                tracing::warn!(
                    error = crate::chain(&error),
                    "the mirror could not be tidied; it is tried again after the next commit, or the next that is refused"
                );
            }
            let peers = peers.filter(|_| heard != Heard::Nothing).map(|whom| (whom, asked));
            let tip = fetched.as_ref().ok().map(|fetched| fetched.tip.clone());
            let judged = case.zip(tip).filter(|((_, known), tip)| !known.contains(tip)).map(|((case, _), commit)| {
                let verdict = case.judge(source.mirror(), &commit, Timestamp::now(), Some(&cancel));
                Judged { case, commit, verdict }
            });
            Conversed { source, done: Done::Fetched(fetched), peers, judged }
        });
    }

    /// Returns what came of the newest commit where a case was given; once.
    pub fn judged(&mut self) -> Option<Judged> {
        self.judged.take()
    }

    /// Returns whose signs of life were asked for, and when, once they have come in; once.
    pub fn peers(&mut self) -> Option<(Peers, Timestamp)> {
        self.peers.take()
    }

    /// Begins to push this host's notes, with its sign of life; that alone where `is_due`. `believed`: what it says there. `spare`:
    /// for how long nothing else needs the mirror.
    pub fn push(&mut self, host: &HostName, believed: Option<CommitId>, is_due: bool, spare: Duration) {
        let deadlines = self.deadlines.patient(self.patience(spare));
        let (cancel, remote, host) = (Arc::clone(&self.cancel), self.reports.clone(), host.clone());
        let voice = self.voice.clone();
        // Before it is known for which fleet it speaks, it says nothing that others would leave out.
        let believed = believed.filter(|_| voice.is_some() || self.identity.is_none());
        self.begin(move |mut source| {
            let voice = voice.as_ref();
            let seen = believed.as_ref().map(|believed| Seen { at: Timestamp::now(), believed, is_due, voice });
            let pushed = source.mirror_mut().publish(&remote, &host, seen, &deadlines, &cancel);
            Conversed { source, done: Done::Pushed(pushed), peers: None, judged: None }
        });
    }

    /// Proposes another fleet.yaml than that of a commit, as a branch; `None` while a conversation is under way. Returns the name of the
    /// branch, and the commit on it.
    ///
    /// # Errors
    /// See [`PushError`].
    pub async fn propose(
        &mut self,
        host: HostName,
        base: CommitId,
        content: String,
    ) -> Option<Result<(String, CommitId), PushError>> {
        let mut source = self.at_rest.take()?;
        let cancel = Arc::clone(&self.cancel);
        let proposed = tokio::task::spawn_blocking(move || {
            let message = format!(
                "Enrol {host}\n\nIts key, as `mainstay install` found it on the host: compare it with what is shown there.\n"
            );
            let at = Timestamp::now();
            let proposal =
                Proposal { host: &host, base: &base, path: "fleet.yaml", content: &content, message: &message, at };
            let proposed = source.propose(&proposal, &cancel);
            (source, proposed)
        });
        let (source, proposed) = proposed.await.expect("a conversation with the remote does not panic");
        self.at_rest = Some(source);
        Some(proposed)
    }

    /// Says how long a push may wait for a server that is busy. One that did not answer last time is more likely gone; and what
    /// reports go to is no reason to ask another server later for commits.
    fn patience(&self, spare: Duration) -> Duration {
        let longest = self.deadlines.total / 2;
        match (self.answered, self.is_one) {
            (false, _) => Duration::ZERO,
            (true, true) => longest,
            (true, false) => longest.min(spare),
        }
    }

    fn begin(&mut self, work: impl FnOnce(Source) -> Conversed + Send + 'static) {
        if let Some(source) = self.at_rest.take() {
            self.under_way = Some(tokio::task::spawn_blocking(move || work(source)));
        }
    }

    /// Says whether a conversation is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits for what is under way; for ever when nothing is. Dropping this future loses nothing.
    pub async fn done(&mut self) -> Done {
        let Some(task) = self.under_way.as_mut() else { return std::future::pending().await };
        let conversed = task.await.expect("a conversation with the remote does not panic");
        let Conversed { source, done, peers, judged } = conversed;
        self.peers = peers.or(self.peers.take());
        self.judged = judged.or(self.judged.take());
        self.under_way = None;
        self.at_rest = Some(source);
        self.answered = match &done {
            Done::Fetched(fetched) if self.is_one => fetched.is_ok(),
            Done::Pushed(Ok(Pushed::Done)) => true,
            Done::Pushed(Err(_)) => false,
            Done::Fetched(_) | Done::Pushed(Ok(Pushed::Nothing)) => self.answered,
        };
        let is_same = matches!(&done, Done::Fetched(Ok(fetched)) if !fetched.renewed);
        if !is_same {
            // It may be another mirror now, or hold what the remote had of this host; it is asked again.
            (self.noted, self.said) = (None, None);
        }
        done
    }

    /// Asks what is under way to end soon.
    pub fn cancel(&self) {
        self.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Says whether a record says something that the note on its commit does not say yet, or has to be said again for others to count
    /// what this host says next. It is given the number that it needs. While a conversation holds the mirror nothing is news.
    pub fn is_news(&mut self, record: &mut Record) -> bool {
        let published = record.as_published();
        self.speak_for(&record.fleet);
        let Some(source) = self.at_rest.as_mut() else { return false };
        let mirror = source.mirror();
        let said = self.said.get_or_insert_with(|| Said::of(mirror, record, self.voice.as_ref()));
        if !self.noted.as_ref().is_some_and(|noted| noted.says_the_same_as(&published)) {
            let before = mirror.read_note(&record.host, &record.commit);
            // One that it did not sign, or with another key, says nothing to others.
            let is_ours = |text: &String| match &self.voice {
                Some(Voice { identity, fleet }) => identity::verify(identity.public(), RECORD, fleet, text).is_ok(),
                None => true,
            };
            self.noted = before.filter(is_ours).and_then(|text| Record::parse(&text).ok());
        }
        let noted = self.noted.as_ref().filter(|noted| noted.says_the_same_as(&published));
        let is_news = noted.is_none_or(|noted| said.outranks(noted.counter, record.at));
        record.counter = record.counter.max(said.counter + 1);
        is_news
    }

    /// Writes a record as a note, locally.
    ///
    /// # Errors
    /// The mirror cannot be written.
    pub fn note(&mut self, record: &Record) -> Result<(), GitError> {
        self.speak_for(&record.fleet);
        let voice = self.voice.clone();
        (self.noted, self.said) = (None, None);
        let Some(source) = self.source() else { return Ok(()) };
        let text = record.text();
        let text = voice.map(|voice| voice.sign(RECORD, text.clone())).unwrap_or(text);
        source.mirror_mut().write_note(&record.host, &record.commit, &text, record.at).map(|_| ())
    }

    fn speak_for(&mut self, fleet: &str) {
        if self.voice.as_ref().is_none_or(|voice| voice.fleet != fleet) {
            let fleet = fleet.to_owned();
            self.voice = self.identity.clone().map(|identity| Voice { identity, fleet });
        }
    }
}

/// Opens the mirror to read from, beside an agent that may be using it.
///
/// # Errors
/// There is none yet, or it cannot be read.
pub fn peek(state: &Path) -> Result<Mirror, GitError> {
    Mirror::peek(&state.join(MIRROR))
}

fn remote(settings: &Settings, address: &str) -> Result<Remote, UrlError> {
    let files = if settings.allow_file { Files::Allowed } else { Files::Refused };
    let mut remote = Remote::new(Url::parse(address, files)?, BranchName::parse(&settings.branch)?);
    remote = remote.of_at_most(settings.git.max_size);
    remote.ssh.keys = settings.git.key.iter().cloned().collect();
    remote.ssh.known_hosts = settings.git.known_hosts.iter().cloned().collect();
    remote.ca_file.clone_from(&settings.git.ca);
    let own = settings.git.token.clone().map(Token::File).or_else(|| Token::program(settings.git.helper.as_deref()?));
    // systemd gives it whatever address is followed; who says nothing of a token means it for https.
    remote.token = own.or_else(|| Token::of_systemd(CREDENTIAL).filter(|_| remote.url.is_https()));
    Ok(remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::tests::Fixture;
    use crate::settings;

    #[test]
    fn a_push_is_patient_with_a_server_that_answers_and_keeps_nobody_else_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let patience = |reports: Option<&str>, answered: bool| {
            let mut settings = Settings { state: folder.path().to_owned(), ..Settings::default() };
            settings.repository = Some("git://git.example/fleet".to_owned());
            settings.report.repository = reports.map(str::to_owned);
            let mut upstream = Upstream::open(&settings).expect("a mirror");
            upstream.answered = answered;
            [5, 600].map(|spare| upstream.patience(Duration::from_secs(spare)).as_secs())
        };
        let another = Some("git://notes.example/fleet");
        assert_eq!(patience(None, true), [150, 150], "no commit comes from a server that is too busy for a record");
        assert_eq!(patience(another, true), [5, 150]);
        assert_eq!((patience(None, false), patience(another, false)), ([0, 0], [0, 0]));
    }

    #[test]
    fn what_was_said_with_a_clock_that_was_ahead_is_outranked_by_a_higher_number() {
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).expect("a time");
        let said = Said { counter: 7, sign: Some((7, at(60))) };
        assert!(!said.outranks(7, at(60)) && !said.outranks(7, at(61)));
        assert!(said.outranks(7, at(59)), "others would take its next sign of life for an old one");
        assert!(said.outranks(6, at(99)), "another state of this host has said more");
        assert!(!said.outranks(8, at(0)));
        assert!(!Said::default().outranks(0, at(0)));
    }

    /// Asks once, with a case or without, and returns what was judged.
    fn asked(known: bool) -> (CommitId, Option<Judged>) {
        let (scratch, fixture) = (tempfile::tempdir().expect("a folder"), Fixture::new());
        let tip = fixture.main();
        let path = scratch.path().join("agent.yaml");
        let text = format!("repository: file://{}\nallow-file: true\n", fixture.served().display());
        std::fs::write(&path, text).expect("a file");
        let said = settings::read(Some(&path), false).expect("settings");
        let settings = Settings { state: scratch.path().join("state"), ..Settings::from(&said) };
        let case = Case::new(&settings.trust, "main");
        let mut upstream = Upstream::open(&settings).expect("a mirror");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let known = if known { vec![tip.clone()] } else { Vec::new() };
            upstream.fetch(Question { case: Some((case, known)), ..Question::default() });
            assert!(matches!(upstream.done().await, Done::Fetched(Ok(_))));
        });
        let judged = upstream.judged();
        assert!(upstream.judged().is_none(), "once");
        (tip, judged)
    }

    #[test]
    fn what_is_new_is_judged_where_it_was_fetched() {
        let (tip, judged) = asked(false);
        let judged = judged.expect("it is new");
        assert_eq!(judged.commit, tip);
        assert!(judged.verdict.is_ok());
        assert!(asked(true).1.is_none(), "it is known");
    }
}
