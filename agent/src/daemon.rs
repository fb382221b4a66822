//! When to work: one loop, one closed set of reasons to wake. What is done depends only on what is, never on why we woke.

mod asking;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sd_notify::NotifyState;
use spec::id::{AppName, CommitId};
use spec::lookout::Call;
use spec::memory::{AppMemory, AppState};
use spec::plan;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::alert::Alerts;
use crate::board::{Asked, Board};
use crate::endpoint;
use crate::engine::Engine;
use crate::ledger::LedgerError;
use crate::pass::{Host, Passed};
use crate::progress::Progress;
use crate::report::{Notice, Seen};
use crate::requests::{self, Syncing};
use crate::rollout::Announced;
use crate::settings::Settings;
use crate::snapshot::{Repository, Snapshot};
use crate::source::Schedule;
use crate::spent::Spent;
use crate::upstream::{Done, Upstream};
use crate::vigil::{Verdict, Vigil};
use crate::watch::Watch;

/// The loop turns at least this often, whatever the settings say.
const ALIVE: Duration = Duration::from_secs(60);
/// The host is looked at at least this often while it is not as wanted, or while not all that happens to it can be heard.
const UNSETTLED: Duration = Duration::from_secs(10);
/// Nothing achieved for this long, beside the longest single wait that the settings allow, means that the agent hangs.
const HUNG: Duration = Duration::from_secs(600);
/// Passes that follow upon each other at once, at most: one for each step of a chain of needs, and the ways back.
pub const MOST_IN_A_ROW: usize = 50;

/// So many calls are told before the loop takes note of them.
const MOST_CALLS: usize = 32;

/// Why the loop turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// It is time to ask the repository.
    Poll,
    /// Somebody asked for it now (SIGHUP).
    Poke,
    /// Somebody asked over the endpoint that the repository is asked now.
    Sync,
    /// It is time to look at the host.
    Drift,
    /// A conversation with the repository ended.
    Upstream,
    /// A push is due again.
    Push,
    /// Something happened to what is wanted, and has come to rest.
    Change,
    /// A check was looked at.
    Check,
    /// Somebody was told of what is the matter with the fleet.
    Told,
    /// Nothing: the watchdog sees that the loop turns.
    Alive,
    /// The service manager, or a person, wants the agent to end.
    Stop,
}

/// The loop's own state.
struct Daemon {
    host: Host,
    upstream: Upstream,
    settings: Settings,
    schedule: Schedule,
    poll_at: Instant,
    fetch_began: Instant,
    look_at: Instant,
    push_at: Option<Instant>,
    push_failures: u32,
    seen_at: Option<Instant>,
    /// When the last sign of life went out.
    sign_at: Option<Instant>,
    /// What the record announces that was written last, and that is being pushed, with when that began.
    announced: Announced,
    offered: (Announced, Timestamp),
    /// When signs of life went out during a pass.
    beats: Vec<Timestamp>,
    /// When the repository was asked last, and by how much the next question is moved so that a fleet spreads.
    asked_at: Timestamp,
    spread: f64,
    /// There is a record to write as soon as the mirror is free.
    note_due: bool,
    /// The request for the newest commit that the fetch under way answers.
    syncing: Option<Syncing>,
    /// What ended during a pass, and is taken in after it.
    late: Option<Done>,
    /// The tip that is neither believed nor refused yet.
    tip: Option<CommitId>,
    notice: Notice,
    noted: Notice,
    /// Looks at what runs, beside the passes.
    vigil: Vigil,
    engine: Arc<Engine>,
    /// Listens for changes between the passes.
    watch: Watch,
    /// The last passes in a row found nothing to do.
    was_idle: bool,
    /// What the service manager was told last.
    told: String,
    /// Where the endpoint sees what is known here.
    board: Board,
    asked: Arc<Asked>,
    /// Tells what was told of the fleet.
    told_of: mpsc::Receiver<Call>,
}

/// Runs until told to stop.
///
/// # Errors
/// The ledger can no longer be written, so nothing may be changed; systemd starts the agent again.
pub async fn run(
    host: Host,
    upstream: Upstream,
    settings: Settings,
    endpoint: endpoint::Config,
    alerts: Alerts,
) -> Result<(), LedgerError> {
    let now = Instant::now();
    // A refusal does not outlive the agent that spoke it: its version, or its settings, may have been the reason.
    let notice = Notice { refused: None, ..Notice::read(&settings.state) };
    let schedule = Schedule { interval: settings.poll, ..Schedule::default() };
    let first = now + schedule.first(uptime(), host.ledger.memory.believed.is_some(), fastrand::f64());
    let progress = Arc::clone(&host.progress);
    let engine = Arc::new(host.another_engine());
    let (name, repository) =
        (host.name.clone(), Repository { url: upstream.address(), branch: settings.branch.clone() });
    let (tell_of, told_of) = mpsc::channel(MOST_CALLS);
    let mut daemon = Daemon {
        vigil: Vigil::default(),
        watch: Watch::new(
            Arc::clone(&engine),
            [requests::retry, requests::pause, requests::sync].map(|path| path(&settings.state)),
        ),
        was_idle: true,
        engine,
        host,
        upstream,
        schedule,
        poll_at: first,
        fetch_began: now,
        look_at: now + settings.observe,
        push_at: Some(first),
        push_failures: 0,
        seen_at: None,
        sign_at: None,
        announced: Announced::new(),
        offered: (Announced::new(), Timestamp::UNIX_EPOCH),
        beats: Vec::new(),
        asked_at: Timestamp::UNIX_EPOCH,
        spread: 1.0,
        note_due: false,
        syncing: None,
        late: None,
        tip: None,
        told: String::new(),
        noted: notice.clone(),
        notice,
        board: Board::new(Snapshot::first(name, repository)),
        asked: Arc::new(Asked::default()),
        told_of,
        settings,
    };
    daemon.board.notice(&daemon.notice);
    daemon.remember();
    let longest = HUNG + daemon.settings.job.max(daemon.settings.pull);
    let _answering = endpoint::open(endpoint, &daemon.board, &daemon.asked, &progress, longest);
    alerts.begin(&daemon.board.watch(), tell_of);
    let watchdog = tokio::spawn(watchdog(Arc::clone(&progress), longest));
    let ended = daemon.turn(&progress).await;
    watchdog.abort();
    tell(&[NotifyState::Stopping]);
    ended
}

impl Daemon {
    async fn turn(&mut self, progress: &Arc<Progress>) -> Result<(), LedgerError> {
        let expect = "signals can be waited for: the runtime has its I/O driver";
        let mut hangup = signal(SignalKind::hangup()).expect(expect);
        let mut terminate = signal(SignalKind::terminate()).expect(expect);
        let mut interrupt = signal(SignalKind::interrupt()).expect(expect);
        // A pass is not cancelled by a signal: it stops itself at the next safe place.
        let stopping = Arc::clone(progress);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            info!("asked to stop");
            stopping.stop();
        });
        // Ready means that the host is being looked after; what a slow service takes to start is no reason to start over.
        // What it publishes is there before: units that read it are ordered after this service.
        let now = Timestamp::now();
        self.host.decide(now).await;
        self.host.publish(now);
        tell(&[NotifyState::Ready]);
        self.pass(plan::Patience::Wait).await?;
        loop {
            progress.mark();
            if progress.is_stopping() {
                return self.end().await;
            }
            let (push_at, poll_at) = (self.push_due(), self.poll_due());
            let busy = self.upstream.is_busy();
            let mut done = None;
            let (mut checked, mut said) = (None, None);
            let wake = tokio::select! {
                ended = ended(&mut self.late, &mut self.beats, &mut self.upstream) => { done = Some(ended); Wake::Upstream }
                () = sleep_until(self.look_at) => Wake::Drift,
                () = self.watch.next() => Wake::Change,
                () = sleep_until(poll_at), if !busy => Wake::Poll,
                () = sleep_until(push_at), if !busy => Wake::Push,
                _ = hangup.recv() => Wake::Poke,
                () = self.asked.next() => Wake::Sync,
                seen = self.vigil.next(&self.engine) => { checked = Some(seen); Wake::Check }
                Some(call) = self.told_of.recv() => { said = Some(call); Wake::Told }
                () = progress.stopped() => Wake::Stop,
                () = tokio::time::sleep(ALIVE) => Wake::Alive,
            };
            let asked = Syncing::look(&self.settings.state).is_some_and(|asked| Some(asked) != self.syncing);
            let wake =
                if asked && matches!(wake, Wake::Change | Wake::Drift | Wake::Alive) { Wake::Poke } else { wake };
            debug!(?wake, "awake");
            if wake == Wake::Poke {
                // Somebody asks for it now: what was refused is looked at again, what failed is tried again.
                self.notice.refused = None;
                self.host.make_peace();
                self.pass(plan::Patience::Now).await?;
            }
            match wake {
                Wake::Alive => {}
                // What is under way, the pass's own push included, may have asked too early: the repository is asked right
                // after it.
                Wake::Poke | Wake::Sync if self.upstream.is_busy() => self.poll_at = Instant::now(),
                Wake::Poll | Wake::Poke | Wake::Sync => {
                    self.syncing = Syncing::look(&self.settings.state);
                    self.fetch();
                }
                Wake::Push => self.push(),
                Wake::Drift => self.pass(plan::Patience::Wait).await?,
                Wake::Change => {
                    self.pass(plan::Patience::Wait).await?;
                    self.watch.looked(self.was_idle);
                }
                Wake::Upstream => self.hear(done).await?,
                Wake::Check => self.checked(checked)?,
                Wake::Told => self.told_of(said.as_ref())?,
                Wake::Stop => {}
            }
        }
    }

    /// Takes in what was seen of an application's checks. It is neither restarted nor taken back for it: its release was
    /// good, and what it lacks may be elsewhere.
    fn checked(&mut self, seen: Option<(AppName, Verdict)>) -> Result<(), LedgerError> {
        let Some((app, verdict)) = seen else { return Ok(()) };
        let unhealthy = match verdict {
            Verdict::Unclear => return Ok(()),
            Verdict::Well => None,
            Verdict::Unhealthy(why) => Some(why),
        };
        let seen = self.host.checked(&app, unhealthy.clone(), Timestamp::now());
        if seen != Seen::Nothing {
            match unhealthy {
                Some(why) if seen == Seen::Spoilt => error!(%app, "did not stay healthy while it baked: {why}"),
                Some(why) => error!(%app, "unhealthy: {why}"),
                None => info!(%app, "healthy again"),
            }
            self.host.ledger.save()?;
            self.note()?;
            // What needs it, and what is said of this host, depend on it.
            self.look_at = Instant::now();
        }
        Ok(())
    }

    /// Takes in that somebody was told of what is the matter with the fleet, and publishes it, so that nobody else tells.
    fn told_of(&mut self, call: Option<&Call>) -> Result<(), LedgerError> {
        let now = Timestamp::now();
        if let Some(call) = call {
            self.host.told(call, now);
        }
        self.board.calls(self.host.calls(now));
        self.note()
    }

    /// A pass, and those that follow upon it at once: the way back, and what waited for what is there now.
    async fn pass(&mut self, patience: plan::Patience) -> Result<(), LedgerError> {
        let mut patience = patience;
        self.was_idle = true;
        for _ in 0..MOST_IN_A_ROW {
            let again = self.pass_once(patience).await?;
            if !again || self.host.progress.is_stopping() {
                break;
            }
            patience = plan::Patience::Wait;
        }
        Ok(())
    }

    /// One pass, and what it means for the records. Says whether another one is due at once.
    async fn pass_once(&mut self, patience: plan::Patience) -> Result<bool, LedgerError> {
        let (now, spent) = (Timestamp::now(), Spent::begin());
        let passed = match self.host.prepare(now, patience).await? {
            Some(plan) => {
                // A change takes a while; peers and people see that it is under way.
                if !plan.steps.is_empty() {
                    self.board.begin(&self.host, &mut self.upstream, &plan);
                    self.note()?;
                    self.push();
                }
                let passed = self.carry_out(plan).await?;
                for at in self.beats.drain(..) {
                    self.host.rollouts.signed(at);
                }
                passed
            }
            None => None,
        };
        let is_settled = passed.as_ref().is_some_and(Passed::is_converged) && self.watch.hears_all();
        let longest = if is_settled { Duration::MAX } else { UNSETTLED };
        let moment = self.host.next_moment(Timestamp::now()).unwrap_or(Duration::MAX);
        self.look_at = Instant::now() + self.settings.observe.min(longest).min(self.until_a_pause_ends()).min(moment);
        let Some(passed) = passed else {
            self.status("waiting for a commit to believe");
            return Ok(false);
        };
        self.board.rest(&self.host, &mut self.upstream, &passed);
        self.board.calls(self.host.calls(now));
        self.note()?;
        self.vigil.follow(self.host.checks());
        if let Some(aim) = self.host.aim() {
            self.watch.follow(self.host.edition(), &aim.desired, &self.host.ledger.memory);
        }
        self.was_idle &= passed.plan.steps.is_empty();
        self.status(&self.describe(&passed));
        let steps = passed.plan.steps.len();
        debug!(wall_us = spent.wall_us(), cpu_us = spent.cpu_us(), steps, "pass done");
        self.board.pulse.spent(spent.wall_us(), spent.cpu_us());
        Ok(passed.again)
    }

    /// Carries a plan out, which may take as long as a large image takes to come. Who asks for the newest commit meanwhile
    /// does not wait for that: the repository is asked beside it, once, and what it says is taken in after it.
    async fn carry_out(&mut self, plan: plan::Plan) -> Result<Option<Passed>, LedgerError> {
        let Daemon { host, upstream, asked, late, settings, sign_at, poll_at, notice, tip, .. } = self;
        let (question, name) = (asking::question(host, notice, tip.as_ref()), host.name.clone());
        let believed = host.ledger.memory.believed.clone();
        let heartbeat = host.rollouts.heartbeat().filter(|_| settings.report.push);
        let (mut is_asked, mut began, mut is_beating, mut beats) = (false, None, false, Vec::new());
        let mut carried = std::pin::pin!(host.carry_out(plan));
        let passed = loop {
            // Others would take a host for silent whose change takes long.
            let beat_at = heartbeat.map_or_else(far, |every| sign_at.map_or_else(Instant::now, |at| at + every));
            let wants_end = (is_asked && began.is_none()) || heartbeat.is_some();
            tokio::select! {
                passed = &mut carried => break passed,
                () = asked.next(), if !is_asked => is_asked = true,
                // What was under way before, most likely the news that the pass has begun, or the sign of life.
                ended = upstream.done(), if upstream.is_busy() && wants_end && (is_beating || late.is_none()) => {
                    match ended {
                        Done::Pushed(pushed) if is_beating => beats.extend(pushed.ok().map(|_| Timestamp::now())),
                        ended => *late = Some(ended),
                    }
                    is_beating = false;
                }
                () = sleep_until(beat_at), if !upstream.is_busy() => {
                    let spare = poll_at.saturating_duration_since(Instant::now());
                    upstream.push(&name, believed.clone(), true, spare);
                    (is_beating, *sign_at) = (true, Some(Instant::now()));
                }
            }
            if is_asked && began.is_none() && !upstream.is_busy() {
                self.syncing = Syncing::look(&settings.state);
                upstream.fetch(question.clone());
                (is_asked, began) = (false, Some(Instant::now()));
            }
        };
        self.beats.extend(beats);
        self.fetch_began = began.unwrap_or(self.fetch_began);
        if is_asked {
            self.poll_at = Instant::now();
        }
        passed
    }

    /// Says how long it takes until something is no longer paused.
    fn until_a_pause_ends(&self) -> Duration {
        let left = self.host.ledger.memory.pauses.next_end().map(|end| end.duration_since(Timestamp::now()));
        left.map_or(Duration::MAX, |left| Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    fn describe(&self, passed: &Passed) -> String {
        let commit = self.host.belief.as_ref().and_then(|belief| belief.commit.as_ref());
        let commit = commit.map_or("a local folder", CommitId::short);
        let apps = &self.host.ledger.memory.apps;
        let count = |is: fn(&AppMemory) -> bool| apps.values().filter(|app| is(app)).count();
        let counts = [
            (count(|app| app.failure.is_some()), "failed"),
            (count(|app| app.state == AppState::RolledBack), "rolled back"),
            (count(|app| app.state == AppState::Unhealthy), "unhealthy"),
            (count(|app| app.state == AppState::Waiting), "waiting"),
        ];
        let told = counts.iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> =
            told.map(|(count, what)| format!("{count} of {} applications {what}", apps.len())).collect();
        let pauses = &passed.plan.pauses;
        let paused = match (&pauses.host, pauses.apps.len()) {
            (Some(pause), _) => format!("paused {pause}; "),
            (None, 0) => String::new(),
            (None, _) => pauses.apps.iter().map(|(app, pause)| format!("{app} is paused {pause}; ")).collect(),
        };
        match (passed.is_converged(), told.is_empty()) {
            (true, true) => format!("{paused}converged on {commit}: {} applications", apps.len()),
            (false, true) => format!("{paused}on {commit}, not converged: see `mainstay status`"),
            (_, false) => format!("{paused}on {commit}, {}: see `mainstay status`", told.join(", ")),
        }
    }

    /// Tells the service manager, and with it `systemctl status`, when there is something new to tell.
    fn status(&mut self, text: &str) {
        let refused = self.notice.refused.as_ref().map(|(commit, _)| format!("; {} is refused", commit.short()));
        let stale = self.notice.stale.as_ref().map_or("", |_| "; STALE, newer commits may be withheld");
        let text = format!("{text}{}{stale}", refused.unwrap_or_default());
        if text != self.told {
            tell(&[NotifyState::Status(&text)]);
            self.told = text;
        }
    }

    /// Ends: what is under way is cancelled, what is owed is in the ledger.
    async fn end(&mut self) -> Result<(), LedgerError> {
        self.upstream.cancel();
        if self.upstream.is_busy() && tokio::time::timeout(Duration::from_secs(5), self.upstream.done()).await.is_err()
        {
            warn!("a conversation with the repository did not end in time");
        }
        self.host.ledger.save()
    }
}

/// Waits for the end of a conversation with the repository, or returns the one that ended during a pass: what was fetched once the mirror
/// can be read, as a sign of life may be under way. Dropping this future loses nothing.
async fn ended(late: &mut Option<Done>, beats: &mut Vec<Timestamp>, upstream: &mut Upstream) -> Done {
    if matches!(late, Some(Done::Fetched(_))) && upstream.is_busy() {
        match upstream.done().await {
            // What came of that is told with the next one.
            Done::Pushed(pushed) => beats.extend(pushed.ok().map(|_| Timestamp::now())),
            newer @ Done::Fetched(_) => *late = Some(newer),
        }
    }
    match late.take() {
        Some(done) => done,
        None => upstream.done().await,
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

/// Returns how long the machine is up, where the kernel tells.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

/// Tells the service manager; where there is none, nothing happens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager could not be told");
    }
}

/// Answers systemd's watchdog for as long as the agent gets on.
async fn watchdog(progress: Arc<Progress>, longest: Duration) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(interval / 3);
    loop {
        tick.tick().await;
        if progress.idle_for() < longest {
            tell(&[NotifyState::Watchdog]);
        } else {
            error!(idle = ?progress.idle_for(), "nothing was achieved for too long; the watchdog is not answered any more");
        }
    }
}
