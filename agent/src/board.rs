//! Where the daemon puts up what it knows: the picture of the moment, and the numbers that change all the time.
//!
//! A picture is made when it says something new. The numbers are counted in place, so that a look at a host on which
//! nothing changed allocates nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use spec::desired::{Desired, FileKind};
use spec::id::{CommitId, ENDPOINTS_FILE, HostPath};
use spec::lookout::Call;
use spec::plan::{Plan, Step, Why};
use tokio::sync::{Notify, watch};

use crate::difference::{self, Difference};
use crate::pass::{Edition, Host, Passed};
use crate::report::Notice;
use crate::snapshot::{
    App, Change, Condition, Endpoint, PlanView, Refused, Release, Snapshot, StepView, without_secrets,
};
use crate::upstream::Upstream;

/// So many changes are remembered.
const CHANGES: usize = 20;
/// So many steps of each.
const STEPS: usize = 50;
/// Of so many files of each is it shown what changed.
const FILES: usize = 10;
/// And no more than so many bytes of it.
const SHOWN: usize = 16 << 10;

/// Where the daemon puts up what it knows.
pub struct Board {
    sender: watch::Sender<Arc<Snapshot>>,
    /// What changes all the time.
    pub pulse: Arc<Pulse>,
    /// The commits that the picture names, as far as they could be read.
    releases: BTreeMap<CommitId, Release>,
    /// What the picture was made of.
    edition: Option<Edition>,
    /// What the picture shows as drift: what is compared before files are read.
    drift: Vec<Step>,
    /// What the plan under way changes in files.
    under_way: Vec<Difference>,
}

impl Board {
    /// Puts up a first picture.
    pub fn new(first: Snapshot) -> Board {
        Board {
            sender: watch::Sender::new(Arc::new(first)),
            pulse: Arc::new(Pulse::default()),
            releases: BTreeMap::new(),
            edition: None,
            drift: Vec::new(),
            under_way: Vec::new(),
        }
    }

    /// Returns what tells of each new picture.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.sender.subscribe()
    }

    /// A plan is about to be carried out.
    pub fn begin(&mut self, host: &Host, upstream: &mut Upstream, plan: &Plan) {
        let Some(aim) = host.aim() else { return };
        self.under_way = bounded(difference::of_steps(&plan.steps, &aim.desired));
        let view = PlanView::of(plan).with(self.under_way.iter().cloned());
        let mut next = self.next(host, upstream, &aim.desired);
        (next.condition, next.plan) = (Condition::Applying, view);
        self.put_up(next, host);
    }

    /// A pass is over.
    pub fn rest(&mut self, host: &Host, upstream: &mut Upstream, passed: &Passed) {
        let Some(aim) = host.aim() else { return };
        self.pulse.take(passed);
        let condition = if passed.is_converged() { Condition::Converged } else { Condition::Unconverged };
        let mut view = PlanView::of(&passed.plan);
        // Its steps are done, or failed, which their applications say.
        view.steps.clear();
        view.kept.clear();
        let before = Arc::clone(&self.sender.borrow());
        // What stays drifted is read again only when it drifted in another way.
        let same_drift = self.drift == passed.plan.drift;
        if same_drift && before.condition != Condition::Applying {
            view.differences.clone_from(&before.plan.differences);
        } else {
            view = view.with(bounded(difference::of_steps(&passed.plan.drift, &aim.desired)));
            self.drift.clone_from(&passed.plan.drift);
        }
        let is_news = self.edition != Some(host.edition())
            || !before.ready
            || before.condition != condition
            || before.plan != view
            || before.commit.as_ref().map(|commit| &commit.id) != aim.commit.as_ref()
            || host.belief.as_ref().is_some_and(|belief| *belief.alerts != *before.alerts)
            || self.lacks_names(upstream);
        if !is_news {
            return;
        }
        let mut next = self.next(host, upstream, &aim.desired);
        (next.ready, next.condition, next.plan) = (true, condition, view);
        if !passed.plan.steps.is_empty() {
            next.changes.insert(0, Arc::new(change(passed, aim.commit.clone(), std::mem::take(&mut self.under_way))));
            next.changes.truncate(CHANGES);
        }
        self.put_up(next, host);
    }

    /// What is known beside the ledger is another.
    pub fn notice(&mut self, notice: &Notice) {
        let mut next = self.sender.borrow().next();
        let refused = notice.refused.as_ref();
        next.refused = refused.map(|(commit, why)| Refused { commit: commit.clone(), why: without_secrets(why) });
        next.unreachable = notice.unreachable.as_deref().map(without_secrets);
        next.unreported = notice.unreported.as_deref().map(without_secrets);
        (next.trust, next.stale) = (notice.trust.clone(), notice.stale.clone());
        self.sender.send_replace(Arc::new(next));
    }

    /// What of the fleet falls to this host to tell is another.
    pub fn calls(&mut self, calls: Vec<Call>) {
        if *self.sender.borrow().calls != *calls {
            let mut next = self.sender.borrow().next();
            next.calls = calls.into();
            self.sender.send_replace(Arc::new(next));
        }
    }

    fn put_up(&mut self, next: Snapshot, host: &Host) {
        self.edition = Some(host.edition());
        self.sender.send_replace(Arc::new(next));
    }

    /// Makes the picture that follows, with what the ledger says.
    fn next(&mut self, host: &Host, upstream: &mut Upstream, desired: &Desired) -> Snapshot {
        let memory = &host.ledger.memory;
        let named = memory.apps.values().filter_map(|app| app.commit.as_ref()).chain(&memory.believed);
        self.name(named.collect(), upstream);
        let release = |id: &CommitId| self.releases.get(id).cloned().unwrap_or_else(|| Release::nameless(id));
        let mut next = self.sender.borrow().next();
        next.fleet = Some(desired.fleet.clone());
        next.commit = memory.believed.as_ref().map(release);
        next.apps = memory.apps.iter().map(|(name, known)| (name.clone(), App::of(known, release))).collect();
        next.alerts = host.belief.as_ref().map(|belief| Arc::clone(&belief.alerts)).unwrap_or_default();
        let endpoints = endpoints(desired);
        if *next.endpoints != endpoints {
            next.endpoints = Arc::new(endpoints);
        }
        next
    }

    /// Finds out what people call these commits, and forgets the others. While the mirror is busy, it is found out later.
    fn name(&mut self, wanted: BTreeSet<&CommitId>, upstream: &mut Upstream) {
        self.releases.retain(|id, _| wanted.contains(id));
        for id in wanted {
            if self.releases.get(id).is_some_and(|release| release.subject.is_some()) {
                continue;
            }
            let release = match upstream.source() {
                Some(source) => Release::read(source.mirror(), id),
                None => Release::nameless(id),
            };
            self.releases.insert(id.clone(), release);
        }
    }

    /// Says whether a name is missing that could be found out by now.
    fn lacks_names(&self, upstream: &mut Upstream) -> bool {
        let mut missing = self.releases.values().filter(|release| release.subject.is_none()).peekable();
        missing.peek().is_some()
            && upstream.source().is_some_and(|source| missing.any(|release| source.mirror().has(&release.id)))
    }
}

/// Keeps so much of differences as may be remembered.
fn bounded(differences: impl Iterator<Item = Difference>) -> Vec<Difference> {
    let mut room = SHOWN;
    let mut kept = Vec::new();
    for mut difference in differences.take(FILES) {
        if difference.text.len() > room {
            difference.text = "not shown: too much changed at once\n".to_owned();
        }
        room = room.saturating_sub(difference.text.len());
        kept.push(difference);
    }
    kept
}

fn change(passed: &Passed, commit: Option<CommitId>, differences: Vec<Difference>) -> Change {
    let steps = &passed.plan.steps;
    Change {
        at: Timestamp::now(),
        commit,
        steps: steps.iter().take(STEPS).map(StepView::of).collect(),
        more: steps.len().saturating_sub(STEPS),
        failed: passed.outcome.failed.keys().cloned().collect(),
        differences: differences.into_iter().map(Into::into).collect(),
    }
}

/// Reads back what is published for units: the same words, for those who ask.
fn endpoints(desired: &Desired) -> BTreeMap<String, Endpoint> {
    let published = HostPath::parse(ENDPOINTS_FILE).ok().and_then(|path| desired.published.get(&path));
    let Some(FileKind::Regular { content, .. }) = published.map(|file| &file.kind) else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(content);
    let mut found: BTreeMap<String, Endpoint> = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if let Some(name) = name.strip_suffix("_ALL") {
            let all: Vec<String> = value.split(',').map(without_secrets).collect();
            let url = all.first().cloned().unwrap_or_default();
            found.insert(name.to_lowercase(), Endpoint { url, all });
        }
    }
    found
}

/// What the daemon counts. Times are in microseconds, moments in seconds since 1970; zero is never.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Passes that ended.
    pub passes: AtomicU64,
    /// How long the last one took.
    pub pass_us: AtomicU64,
    /// How much of that was computing.
    pub pass_cpu_us: AtomicU64,
    /// When the last one ended.
    pub passed_at: AtomicU64,
    /// Steps that were done.
    pub steps: AtomicU64,
    /// Steps that failed.
    pub failed: AtomicU64,
    /// Steps that were planned since the host had drifted.
    pub repairs: AtomicU64,
    /// Fetches that succeeded.
    pub fetches: AtomicU64,
    /// Fetches that failed.
    pub fetch_failures: AtomicU64,
    /// When the last one succeeded.
    pub fetched_at: AtomicU64,
    /// Pushes that succeeded.
    pub pushes: AtomicU64,
    /// Pushes that failed.
    pub push_failures: AtomicU64,
    /// When the last one succeeded.
    pub pushed_at: AtomicU64,
    /// Of how many other hosts something is left out that they did not sign.
    pub ignored: AtomicU64,
    /// Signs of life and records that were left out.
    pub refused: AtomicU64,
}

impl Pulse {
    /// Counts one more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that something happened at this moment.
    pub fn now(moment: &AtomicU64) {
        moment.store(Timestamp::now().as_second().unsigned_abs(), Ordering::Relaxed);
    }

    /// Notes what a pass cost.
    pub fn spent(&self, wall_us: u64, cpu_us: u64) {
        Pulse::count(&self.passes);
        Pulse::now(&self.passed_at);
        self.pass_us.store(wall_us, Ordering::Relaxed);
        self.pass_cpu_us.store(cpu_us, Ordering::Relaxed);
    }

    fn take(&self, passed: &Passed) {
        let add = |counter: &AtomicU64, number: usize| counter.fetch_add(number as u64, Ordering::Relaxed);
        let outcome = &passed.outcome;
        add(&self.steps, outcome.done.values().sum());
        add(&self.failed, outcome.failed.values().map(Vec::len).sum());
        let drifted = passed.plan.steps.iter().filter(|step| matches!(step.why, Why::Drifted(_)));
        add(&self.repairs, drifted.count());
    }
}

/// Somebody wants the repository to be asked now. Asked twice before it happens is asked once.
#[derive(Debug, Default)]
pub struct Asked(Notify);

impl Asked {
    /// Asks.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody asks. Dropping this future loses nothing.
    pub async fn next(&self) {
        self.0.notified().await;
    }
}
