//! The spine: believe, observe, plan, apply, report. Whoever knows this file knows the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spec::check::Check;
use spec::course::{self, Release};
use spec::desired::{DesiredApp, Hold};
use spec::digest::Digest;
use spec::handover;
use spec::id::{AppName, CommitId, HostName, HostPath, ResourceId, UnitName, User};
use spec::images;
use spec::inputs;
use spec::journal;
use spec::lookout::Call;
use spec::memory::{AppState, Memory, Ran};
use spec::observed::Unpublished;
use spec::pins;
use spec::plan::{self, Plan};
use spec::resolve;
use spec::tree::Tree;
use spec::trust::Standing;
use spec::unpack;
use tracing::{error, info, warn};

use crate::apply::{self, Blame, Outcome, Patience, StepFailure};
use crate::artifacts::Fetcher;
use crate::backups::Backups;
use crate::belief::{self, Belief, Past, Refusal};
use crate::check::{self, Eyes};
use crate::disk::Disk;
use crate::ears::{Ears, Hearing};
use crate::engine::{Engine, Owner, credentials};
use crate::git::{Mirror, Peers};
use crate::ledger::{Found, Ledger, LedgerError};
use crate::leftovers;
use crate::lookout::Lookout;
use crate::observe::{self, Providers};
use crate::progress::Progress;
use crate::publish::{self, Surroundings};
use crate::releases::Releases;
use crate::report::{self, Seen};
use crate::requests::{self, Pending};
use crate::rollout::{Rollouts, TURN};
use crate::seal::Opener;
use crate::settings::{self, Settings};
use crate::store::Store;
use crate::systemd::Managers;
use crate::trust::{self, Before, Case, Floor, Judge, Judged, Verdict};
use crate::web;

/// One host and everything the agent holds of it.
pub struct Host {
    /// Who it is in `fleet.yaml`.
    pub name: HostName,
    /// Eyes and hands.
    pub providers: Providers,
    /// Memory, on disk.
    pub ledger: Ledger,
    /// What it is held to, once something was believed.
    pub belief: Option<Belief>,
    /// The same with the last good release of each application that is held back; `None` while none is.
    held: Option<Belief>,
    /// What `held` was made for.
    held_for: BTreeMap<AppName, Hold>,
    /// Grows whenever `belief` or `held` may have become another one.
    turns: u64,
    /// What memory alone holds back, and whether a plan made more wait.
    holds: BTreeMap<AppName, Hold>,
    in_motion: bool,
    /// What applications go back to.
    releases: Releases,
    /// Whom to believe at first, which branch that is for, and the last that was believed, as the file beside the settings has it.
    first: settings::Trust,
    followed: String,
    floor: Floor,
    /// The commit that was judged last, and may be believed.
    judged: Option<CommitId>,
    /// What is known of how changes spread over the fleet.
    pub rollouts: Rollouts,
    /// What others say, as far as it is theirs.
    pub ears: Ears,
    /// What is the matter with the fleet, and what of it this host tells.
    pub lookout: Lookout,
    eyes: Eyes,
    state: PathBuf,
    /// How patient to be.
    pub patience: Patience,
    /// For the watchdog and for stopping.
    pub progress: Arc<Progress>,
    sockets: Vec<PathBuf>,
    /// What units read and could not be written, and what of that was told.
    unpublished: BTreeMap<HostPath, Unpublished>,
    complained: BTreeMap<HostPath, Unpublished>,
    /// What opens secrets.
    opener: Opener,
    registries: Option<PathBuf>,
    /// What the last pass said, so that a pass that says the same is silent.
    said: String,
}

/// An edition of what is wanted and remembered; see [`Host::edition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    turns: u64,
    saves: u64,
}

/// What a pass found and did.
pub struct Passed {
    /// The plan it carried out.
    pub plan: Plan,
    /// What came of it.
    pub outcome: Outcome,
    /// Another pass is due at once: something goes back, or what it waited for is there now.
    pub again: bool,
}

impl Passed {
    /// Says whether the host now is as wanted, as far as one pass can tell.
    pub fn is_converged(&self) -> bool {
        let plan = &self.plan;
        self.outcome.failed.is_empty()
            && !self.outcome.interrupted
            && plan.conflicts.is_empty()
            && plan.unknown.is_empty()
            && plan.waiting.is_empty()
            && plan.held.is_none()
            && plan.held_back.is_empty()
            && plan.drift.is_empty()
            && plan.postponed.is_empty()
            && self.outcome.unwell.is_empty()
    }
}

impl Host {
    /// Takes hold of this host.
    ///
    /// # Errors
    /// Another agent holds it, or the ledger cannot be read or written.
    pub fn open(name: HostName, settings: &Settings, progress: Arc<Progress>) -> Result<Host, LedgerError> {
        let ledger = Ledger::open(&settings.state)?;
        let host = Host::with(ledger, name, settings, progress);
        host.providers.backups.ensure_bounded(Timestamp::now());
        Ok(host)
    }

    /// Takes a look at this host without taking hold of it: for commands that change nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn look(name: HostName, settings: &Settings, progress: Arc<Progress>) -> Result<Host, LedgerError> {
        let ledger = Ledger::peek(&settings.state)?;
        let mut host = Host::with(ledger, name, settings, progress);
        host.rollouts.only_look();
        host.lookout.only_look();
        host.ears.only_look();
        Ok(host)
    }

    /// Says whether nothing is changed here by who asks.
    pub fn only_looks(&self) -> bool {
        self.rollouts.only_looks()
    }

    /// Says whether another agent holds this host at the moment.
    pub fn is_taken(&self) -> bool {
        self.ledger.is_taken()
    }

    fn with(mut ledger: Ledger, name: HostName, settings: &Settings, progress: Arc<Progress>) -> Host {
        match ledger.found {
            Found::Whole | Found::Nothing => {}
            Found::Before => warn!("the ledger was damaged; the copy before it is used"),
            Found::Lost => {
                error!("the ledger was damaged and is started anew; nothing is removed that it does not remember");
            }
        }
        // Whoever looks before it is taken up sees it as well.
        Pending::peek(&settings.state).iter().for_each(|asked| asked.apply(&mut ledger.memory.pauses));
        let holds_containers =
            ledger.memory.owned.keys().any(|id| matches!(id, ResourceId::Container(_) | ResourceId::Network(_)));
        let sockets = match (&settings.engine, &ledger.memory.engine) {
            (Some(socket), _) => vec![socket.clone()],
            // What is on one engine would be made a second time on another one.
            (None, Some(socket)) if holds_containers => vec![PathBuf::from(socket)],
            (None, _) => Engine::usual_sockets(),
        };
        let owner = Owner { fleet: String::new(), host: name.clone() };
        let backups = Backups::of(&settings.state, settings.backups.bounds());
        let registries = settings.registries.clone();
        let engine = Engine::new(sockets.clone(), owner).with_credentials(registries.clone());
        let store = Store::of(&settings.state, Arc::clone(&progress));
        let fetcher = Fetcher::new(credentials::files(registries.clone()), web::fetcher());
        let providers =
            Providers::new(Disk::new("", store.clone()), Managers::new(), engine, backups, (store, fetcher));
        let patience = Patience { job: settings.job, pull: settings.pull, settle: settings.settle };
        let releases = Releases::open(&settings.state);
        let rollouts = Rollouts::open(&settings.state, &name, settings.report.push);
        let lookout = Lookout::open(&settings.state, &name, settings.report.push, settings.report.heartbeat);
        Host {
            name,
            providers,
            ledger,
            belief: None,
            held: None,
            held_for: BTreeMap::new(),
            turns: 0,
            holds: BTreeMap::new(),
            in_motion: false,
            releases,
            first: settings.trust.clone(),
            followed: settings.branch.clone(),
            floor: Floor::open(&settings.trust.floor),
            judged: None,
            rollouts,
            lookout,
            ears: Ears::open(&settings.state),
            eyes: Eyes::default(),
            state: settings.state.clone(),
            patience,
            progress,
            sockets,
            registries,
            unpublished: BTreeMap::new(),
            complained: BTreeMap::new(),
            opener: Opener::find(settings),
            said: String::new(),
        }
    }

    /// Returns what it takes to say whether a commit may be believed here.
    ///
    /// # Errors
    /// The floor cannot be read.
    pub fn case(&mut self) -> Result<Case, trust::Refusal> {
        self.floor.refresh();
        Ok(Case {
            believed: self.ledger.memory.believed.clone(),
            floor: self.floor.commit()?.cloned(),
            accepted: requests::accepted(&self.state),
            ..Case::new(&self.first, &self.followed)
        })
    }

    /// Says whether a commit that is in `mirror` may be believed: who signed what leads to it, and that it goes on from what was believed
    /// before.
    ///
    /// # Errors
    /// It may not, or that cannot be told.
    pub fn trusts(&mut self, mirror: &Mirror, commit: &CommitId) -> Result<Verdict, trust::Refusal> {
        let verdict = self.case()?.judge(mirror, commit, Timestamp::now(), None)?;
        self.judged = Some(commit.clone());
        Ok(verdict)
    }

    /// The same by what was judged elsewhere; `None` where that is another case by now.
    ///
    /// # Errors
    /// As for [`Host::trusts`].
    pub fn heeds(&mut self, judged: Option<Judged>, commit: &CommitId) -> Result<Option<Verdict>, trust::Refusal> {
        let case = self.case()?;
        let Some(judged) = judged.filter(|it| it.case == case && it.commit == *commit) else { return Ok(None) };
        let verdict = judged.verdict?;
        self.judged = Some(judged.commit);
        Ok(Some(verdict))
    }

    /// Says whether what is wrong with a commit may be told from what it holds, although it cannot be told what it says of trust.
    pub fn may_be_told(&self, mirror: &Mirror, commit: &CommitId) -> bool {
        let floor = self.floor.commit().ok().flatten();
        let before = Before { believed: self.ledger.memory.believed.as_ref(), floor, accepted: None };
        Judge::new(mirror, &self.first).is_ok_and(|judge| judge.may_be_told(&before, commit))
    }

    /// Says who has to sign what is believed, since a commit that is; `None` where that cannot be read.
    pub fn standing(&self, mirror: &Mirror, commit: &CommitId) -> Option<Standing> {
        let read = Judge::new(mirror, &self.first).map(|judge| judge.standing(commit));
        match read {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => {
                warn!(%error, "failed to read who has to sign commits");
                None
            }
            Err(error) => {
                warn!(%error, "failed to read who has to sign commits");
                None
            }
        }
    }

    /// Believes a tree from now on, if it is sound. What was believed before stays when it is not. `past` is where the commits are
    /// that overrides name.
    ///
    /// # Errors
    /// The tree has mistakes, or this host is not in it.
    pub fn believe(
        &mut self,
        tree: &Tree,
        commit: Option<CommitId>,
        past: Option<&Past<'_>>,
    ) -> Result<Vec<spec::diagnostic::Diagnostic>, Refusal> {
        let (belief, warnings) = belief::believe(tree, commit, &self.name, &self.ledger.memory, past)?;
        let fleet = &belief.desired.fleet;
        let memory = &mut self.ledger.memory;
        match &memory.fleet {
            Some(before) if before != fleet && !memory.owned.is_empty() => {
                return Err(Refusal::OtherFleet { before: before.clone(), now: fleet.clone() });
            }
            _ => memory.fleet = Some(fleet.clone()),
        }
        if self.belief.as_ref().is_none_or(|before| before.desired.fleet != *fleet) {
            // The fleet's name is part of every mark.
            let owner = Owner { fleet: fleet.clone(), host: self.name.clone() };
            self.providers.disk = Disk::new(fleet, self.providers.store.clone());
            self.providers.engine = Engine::new(self.sockets.clone(), owner).with_credentials(self.registries.clone());
        }
        if let Some(commit) = &belief.commit {
            self.ledger.memory.believed = Some(commit.clone());
        }
        (self.belief, self.held) = (Some(belief), None);
        self.turns += 1;
        Ok(warnings)
    }

    /// Keeps which commit is believed where the loss of the state does not reach, once it was judged and is in the ledger.
    fn keep_floor(&mut self) -> Result<(), LedgerError> {
        let Some(commit) = self.judged.take().filter(|it| self.ledger.memory.believed.as_ref() == Some(it)) else {
            return Ok(());
        };
        self.ledger.save()?;
        self.floor.raise(&commit);
        if requests::accepted(&self.state).is_some()
            && let Err(error) = requests::forget_accepted(&self.state)
        {
            warn!(%error, "failed to forget which rewrite was accepted");
        }
        Ok(())
    }

    /// Names the commits that this host runs or believes: the mirror keeps them whatever the branch does.
    pub fn commits(&self) -> Vec<CommitId> {
        let memory = &self.ledger.memory;
        let apps = memory.apps.values().flat_map(|app| [&app.commit, &app.from]);
        let floor = self.floor.commit().ok().flatten();
        let all: BTreeSet<&CommitId> = apps.chain([&memory.believed]).flatten().chain(floor).collect();
        all.into_iter().cloned().collect()
    }

    /// Names the hosts of the fleet, as far as they matter to this one.
    pub fn members(&self) -> BTreeSet<HostName> {
        let Some(belief) = &self.belief else { return BTreeSet::new() };
        let placed = belief.scheme.iter().flat_map(|scheme| scheme.fleet.hosts.keys());
        let watched = belief.watch.iter().flat_map(|watch| watch.hosts.keys());
        placed.chain(watched).chain(belief.keys.keys()).cloned().collect()
    }

    /// Takes in what the mirror holds of `whom`, who were asked for at `asked`.
    pub fn look_at_peers(&mut self, mirror: &Mirror, whom: &Peers, asked: Timestamp) {
        let (Some(belief), now) = (&self.belief, Timestamp::now()) else { return };
        let mut hearing = Hearing { mirror, ears: &mut self.ears, keys: &belief.keys, fleet: &belief.desired.fleet };
        if let Some(scheme) = &belief.scheme {
            self.rollouts.look(&mut hearing, scheme, (whom, asked), now);
        }
        self.lookout.look(&mut hearing, belief, self.rollouts.records(), (whom, asked), now);
    }

    /// Returns whom to ask for with the next look at the repository: something here waits for them, or they are listened for.
    pub fn asks(&self, now: Timestamp) -> Option<Peers> {
        let listened_for = self.belief.as_ref().and_then(|belief| self.lookout.asks(belief, now));
        match (self.rollouts.asks(), listened_for) {
            (Some(Peers::Some(some)), Some(Peers::Some(others))) => Some(Peers::Some(&some | &others)),
            (Some(Peers::All), _) | (_, Some(Peers::All)) => Some(Peers::All),
            (some, others) => some.or(others),
        }
    }

    /// Finds what is the matter with the fleet, and returns what of it this host has to tell somebody.
    pub fn calls(&mut self, now: Timestamp) -> Vec<Call> {
        let Some(belief) = &self.belief else { return Vec::new() };
        if belief.alerts.is_empty() {
            return Vec::new();
        }
        let halts = self.rollouts.halts(belief, &self.ledger.memory, now);
        self.lookout.take(belief, halts, now);
        self.lookout.calls(belief)
    }

    /// Notes that something of the fleet was told.
    pub fn told(&mut self, call: &Call, now: Timestamp) {
        if let Some(belief) = &self.belief {
            self.lookout.told(belief, call, now);
        }
    }

    /// Takes in what the checks of an application say now.
    pub fn checked(&mut self, app: &AppName, unhealthy: Option<String>, now: Timestamp) -> Seen {
        let Host { ledger, releases, .. } = self;
        let belief = self.held.as_ref().or(self.belief.as_ref());
        let seen = report::checked(&mut ledger.memory, belief, releases.kept(), app, unhealthy, now);
        if seen == Seen::Spoilt {
            releases.spoil(app);
        }
        seen
    }

    /// Returns when something here changes by itself: a release has baked, or a window opens.
    pub fn next_moment(&self, now: Timestamp) -> Option<Duration> {
        let bakes = self.belief.as_ref().and_then(|belief| report::rest(&self.ledger.memory, belief, now));
        let opens = self.rollouts.next().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        bakes.into_iter().chain(opens).min()
    }

    /// Makes another client to the engine, for who looks beside the passes.
    pub fn another_engine(&self) -> Engine {
        let fleet = self.belief.as_ref().map(|belief| belief.desired.fleet.clone()).unwrap_or_default();
        Engine::new(self.sockets.clone(), Owner { fleet, host: self.name.clone() })
    }

    /// Iterates over the checks of the releases that run here and were reached.
    pub fn checks(&self) -> impl Iterator<Item = (&AppName, Digest, &[Check])> {
        let apps = self.aim().into_iter().flat_map(|aim| &aim.desired.apps);
        let apps = apps.filter(|(name, wanted)| {
            let known = self.ledger.memory.apps.get(*name);
            !wanted.checks.is_empty() && known.is_some_and(|known| known.is_reached(wanted.digest))
        });
        apps.map(|(name, wanted)| (name, wanted.digest, wanted.checks.as_slice()))
    }

    /// Says which edition of what is wanted and remembered this is: what was derived from the one before holds while it is the same.
    pub fn edition(&self) -> Edition {
        Edition { turns: self.turns, saves: self.ledger.saves() }
    }

    /// Returns what passes work towards: the belief, but for what is held back.
    pub fn aim(&self) -> Option<&Belief> {
        self.held.as_ref().or(self.belief.as_ref())
    }

    /// Looks, plans, and changes nothing.
    pub async fn plan(&mut self, now: Timestamp, patience: plan::Patience) -> Option<Plan> {
        self.work_out(now, patience, false).await
    }

    /// Looks and plans; what units read of this host's place in the fleet is written before that where `publishes` says so.
    async fn work_out(&mut self, now: Timestamp, patience: plan::Patience, publishes: bool) -> Option<Plan> {
        self.open_archives();
        let mut holds = self.decide(now).await?;
        self.read_secrets(now, Publish::Nothing);
        let mut plan = self.observe_and_plan(now, patience).await?;
        let mut more = course::in_motion(&self.belief.as_ref()?.desired, &self.ledger.memory, &plan);
        more.retain(|app, _| !holds.contains_key(app));
        self.in_motion = !more.is_empty();
        if self.in_motion {
            holds.extend(more);
            self.hold(&holds, now).await;
            self.read_secrets(now, Publish::Nothing);
            plan = self.observe_and_plan(now, patience).await?;
        }
        if publishes {
            // Not before it is known who is held back: nobody reads a secret of a release that waits.
            let before = self.unpublished.clone();
            self.read_secrets(now, Publish::All);
            if self.unpublished != before {
                plan = self.observe_and_plan(now, patience).await?;
            }
        }
        Some(plan)
    }

    /// Decides what is not brought to the commit at this moment.
    pub async fn decide(&mut self, now: Timestamp) -> Option<BTreeMap<AppName, Hold>> {
        let Host { belief, ledger, rollouts, releases, .. } = self;
        let belief = belief.as_ref()?;
        let mut holds = course::holds(&belief.desired, &ledger.memory, now);
        self.holds.clone_from(&holds);
        let turns = rollouts.holds(belief, &ledger.memory, &holds, now);
        let running = releases.of(&turns_of_all(belief, &ledger.memory), &ledger.memory);
        let groups = handover::groups(&belief.desired, &ledger.memory, &running);
        holds.extend(rollouts.lead(belief, &ledger.memory, turns, &groups, now));
        let good = releases.of(&holds, &ledger.memory);
        handover::together(&belief.desired, &ledger.memory, &good, &mut holds);
        rollouts.retract(|app| holds.get(app).is_some_and(|hold| *hold != Hold::Waits(TURN.to_owned())));
        self.hold(&holds, now).await;
        Some(holds)
    }

    /// Removes what is kept and not needed: not by what is believed, nor aimed at, nor by the releases that are kept.
    async fn tidy_up(&mut self) -> Result<(), LedgerError> {
        // What was just fetched counts as what it holds.
        self.open_archives();
        let wanted = self.belief.iter().chain(&self.held).flat_map(|belief| belief.desired.apps.values());
        let needed = wanted.flat_map(DesiredApp::artifacts).chain(self.releases.artifacts()).collect();
        self.providers.store.keep_only(&needed);
        let Host { belief, held, ledger, releases, providers, progress, .. } = self;
        let wanted = || belief.iter().chain(&*held).flat_map(|belief| belief.desired.apps.values());
        // What a person stopped for a while looks as if it ran no image.
        let unneeded = match ledger.memory.pauses.is_empty() {
            true => images::unneeded(&ledger.memory, wanted(), releases.images()),
            false => images::Unneeded::default(),
        };
        let is_named = |user: &User| wanted().any(|app| app.user.as_ref() == Some(user));
        match leftovers::remove_images(providers, &mut ledger.memory, unneeded, is_named, progress).await {
            true => ledger.save(),
            false => Ok(()),
        }
    }

    /// Puts what archives hold among the wanted files, where it is known by now.
    fn open_archives(&mut self) {
        let Host { belief, providers, turns, .. } = self;
        if let Some(belief) = belief {
            let is_opened = unpack::open(&mut belief.desired, |origin| {
                providers.store.list(origin.key()).filter(|_| providers.store.holds(origin))
            });
            *turns += u64::from(is_opened);
        }
    }

    async fn hold(&mut self, holds: &BTreeMap<AppName, Hold>, now: Timestamp) {
        if self.held_for != *holds {
            self.held_for.clone_from(holds);
            self.turns += 1;
        }
        let Host { belief, held, providers, ledger, turns, releases, .. } = self;
        let Some(belief) = belief.as_ref().filter(|_| !holds.is_empty()) else {
            *held = None;
            return;
        };
        let good = releases.of(holds, &ledger.memory);
        let mut desired = course::held_back(&belief.desired, holds, &good);
        // Of what is paused nothing is started, so nothing has to be asked.
        let asked = if ledger.memory.pauses.is_empty() {
            pins::in_doubt(&desired, &good, &ledger.memory)
        } else {
            let mut stirs = good.clone();
            stirs.retain(|app, _| ledger.memory.pauses.of(app, now).is_none());
            pins::in_doubt(&desired, &stirs, &ledger.memory)
        };
        let found = match asked.is_empty() {
            true => pins::Found::new(),
            false => observe::images_in_podman(&mut providers.systemd, asked).await,
        };
        let before = held.as_ref().map(|held| pins::all(&held.desired)).unwrap_or_default();
        pins::pin(&mut desired, &good, &ledger.memory, &found);
        if pins::all(&desired) != before {
            *turns += 1;
        }
        *held = Some(Belief { desired, ..belief.clone() });
    }

    async fn observe_and_plan(&mut self, now: Timestamp, patience: plan::Patience) -> Option<Plan> {
        let Host { providers, ledger, held, belief, unpublished, .. } = self;
        let aim = held.as_ref().or(belief.as_ref())?;
        let mut observed = observe::observe(providers, &aim.desired, &ledger.memory).await;
        observed.unpublished.clone_from(unpublished);
        let plan = plan::plan(&aim.desired, &observed, &ledger.memory, now, patience);
        let names = plan::names_in_doubt(&plan, &aim.desired, &observed);
        if names.is_empty() {
            return Some(plan);
        }
        observe::names_in_podman(&mut providers.systemd, names, &mut observed).await;
        Some(plan::plan(&aim.desired, &observed, &ledger.memory, now, patience))
    }

    /// Gives back what units read, as a boot took it away; what is there stays as it is until a pass knows more.
    pub fn publish(&mut self, now: Timestamp) {
        self.read_secrets(now, Publish::Missing);
    }

    /// Wipes secrets that nothing on this host was given any more.
    fn wipe_secrets(&self) {
        let Some(aim) = self.aim() else { return };
        let around = Surroundings { is_still: &|_| false, is_there: &|path| owns(&self.ledger.memory, path) };
        publish::wipe(Path::new("/"), &aim.desired, &around);
    }

    /// Finds out what the secrets for this host are, and writes what units read.
    fn read_secrets(&mut self, now: Timestamp, publish: Publish) {
        let Host { held, belief, opener, unpublished, complained, state, ledger, .. } = self;
        let publishes = publish != Publish::Nothing;
        let Some(aim) = held.as_mut().or(belief.as_mut()) else { return };
        if publishes
            && aim.desired.secrets().next().is_some()
            && let Err(error) = opener.remember(state)
        {
            warn!(%error, "what reads a secret will be restarted with the agent: failed to keep what tells whether one changed");
        }
        let memory = &ledger.memory;
        let untouched: BTreeSet<AppName> =
            aim.desired.held_back.iter().filter(|(_, held)| held.is_untouched).map(|(app, _)| app.clone()).collect();
        let is_still = |app: &AppName| {
            publish == Publish::Missing || memory.pauses.of(app, now).is_some() || untouched.contains(app)
        };
        let around = Surroundings { is_still: &is_still, is_there: &|path| owns(memory, path) };
        let found = match publishes {
            true => publish::ensure(Path::new("/"), &mut aim.desired, opener, &around),
            false => publish::look(Path::new("/"), &mut aim.desired, opener, &around),
        };
        // Whoever only looks is told by the plan.
        if publishes {
            for (path, Unpublished { why, is_kept }) in
                found.iter().filter(|(path, it)| complained.get(*path) != Some(*it))
            {
                warn!(%path, why, is_kept, "failed to write what units read; those that name it are left alone until it can be");
            }
            complained.clone_from(&found);
        }
        *unpublished = found;
    }

    /// Looks, plans, says so, and notes which applications are about to change. `None` when nothing is believed yet.
    ///
    /// # Errors
    /// What a person asked for could not be written down.
    pub async fn prepare(&mut self, now: Timestamp, patience: plan::Patience) -> Result<Option<Plan>, LedgerError> {
        self.keep_floor()?;
        self.take_up_requests()?;
        self.take_up_pauses(now)?;
        let Some(plan) = self.work_out(now, patience, true).await else { return Ok(None) };
        self.progress.mark();
        let said = if plan.is_empty() { String::new() } else { plan.to_string() };
        if said != self.said && !said.is_empty() {
            info!(steps = plan.steps.len(), conflicts = plan.conflicts.len(), "plan\n{}", said.trim_end());
        }
        self.said = said;
        let Host { ledger, held, belief, .. } = self;
        if let Some(aim) = held.as_ref().or(belief.as_ref()) {
            report::applying(&mut ledger.memory, aim, &plan, now);
        }
        Ok(Some(plan))
    }

    /// Takes up that a person wants what failed to be tried again.
    fn take_up_requests(&mut self) -> Result<(), LedgerError> {
        let apps = requests::pending(&self.state);
        if apps.is_empty() {
            return Ok(());
        }
        for app in &apps {
            if journal::retry(&mut self.ledger.memory, app) {
                info!(%app, "tried again, as a person asked");
            }
        }
        // Taken up is what is on disk: asked twice does no harm, forgotten does.
        self.ledger.save()?;
        if let Err(error) = requests::taken_up(&self.state) {
            warn!(%error, "failed to remove a request that was taken up");
        }
        Ok(())
    }

    /// Takes up that a person pauses something, or no longer does, and ends what is over.
    fn take_up_pauses(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let pending = Pending::take(&self.state);
        let pauses = &mut self.ledger.memory.pauses;
        for asked in &pending.asked {
            asked.apply(pauses);
            match &asked.pause {
                Some(pause) => warn!("paused: nothing of {} is changed {pause}", asked.whom()),
                None => info!("resumed: {} is looked after again, as a person asked", asked.whom()),
            }
        }
        let over = pauses.end(now);
        let whole = over.host.iter().map(|pause| ("this host".to_owned(), pause));
        for (whom, pause) in whole.chain(over.apps.iter().map(|(app, pause)| (app.to_string(), pause))) {
            warn!("the pause of {whom} is over, which was {pause}");
        }
        self.ledger.save()?;
        if let Err(error) = pending.taken_up() {
            warn!(%error, "failed to remove a request that was taken up");
        }
        Ok(())
    }

    /// A person asks for another attempt: what is no longer put back, since somebody else changes it back, is put back again.
    pub fn make_peace(&mut self) {
        journal::make_peace(&mut self.ledger.memory);
    }

    /// Makes the host what a plan says, as far as one pass can.
    ///
    /// # Errors
    /// The ledger could not be written; nothing is changed without it.
    pub async fn carry_out(&mut self, mut plan: Plan) -> Result<Option<Passed>, LedgerError> {
        let Host { providers, ledger, held, belief, .. } = self;
        let Some(aim) = held.as_ref().or(belief.as_ref()) else { return Ok(None) };
        plan::first_managers(&mut plan, &aim.desired, &ledger.memory);
        let applied = apply::apply(&plan, &aim.desired, providers, ledger, self.patience, &self.progress);
        let mut outcome = applied.await?;
        let unproven = unproven(aim, &ledger.memory, &plan, &outcome);
        check(&self.eyes, &providers.engine, &self.progress, aim, unproven, &mut outcome).await;
        if let Some(socket) = providers.engine.socket() {
            ledger.memory.engine = Some(socket.to_string_lossy().into_owned());
        }
        let now = Timestamp::now();
        report::fold(&mut ledger.memory, aim, &plan, &outcome, self.releases.kept(), now);
        for app in report::bake(&mut ledger.memory, aim, self.releases.kept(), &plan, now) {
            error!(%app, "its release did not stay healthy while it baked");
            self.releases.spoil(&app);
        }
        journal::forget_adopted(&mut ledger.memory);
        keep_good(&mut self.releases, &ledger.memory, aim);
        ledger.save()?;
        let done: usize = outcome.done.values().sum();
        let holds = belief.as_ref().map(|belief| course::holds(&belief.desired, &ledger.memory, Timestamp::now()));
        let is_opened = plan.closed.iter().any(|app| !outcome.failed.contains_key(app)) && !outcome.interrupted;
        let again = holds.is_some_and(|holds| holds != self.holds) || (self.in_motion && done > 0) || is_opened;
        if !plan.steps.is_empty() {
            self.wipe_secrets();
            self.tidy_up().await?;
        }
        Ok(Some(Passed { plan, outcome, again }))
    }
}

/// Returns what would be held back if no change might begin.
fn turns_of_all(belief: &Belief, memory: &Memory) -> BTreeMap<AppName, Hold> {
    let all = match belief.scheme {
        Some(_) => course::pending(&belief.desired, memory),
        None => BTreeSet::new(),
    };
    all.into_iter().map(|app| (app, Hold::Waits(String::new()))).collect()
}

/// Names the applications whose checks decide whether their release is reached: everything else of it is done.
fn unproven<'a>(aim: &'a Belief, memory: &Memory, plan: &Plan, outcome: &Outcome) -> BTreeSet<&'a AppName> {
    let apps = aim.desired.apps.iter().filter(|(name, wanted)| {
        let is_reached = memory.apps.get(*name).is_some_and(|known| known.is_reached(wanted.digest));
        let is_untouched = aim.desired.held_back.get(*name).is_some_and(|held| held.is_untouched);
        let is_open = plan.waiting.contains_key(*name)
            || plan.is_paused(name)
            || plan.conflicts.iter().any(|conflict| conflict.app == **name)
            || plan.unknown.iter().any(|unknown| unknown.app == **name);
        !wanted.checks.is_empty() && !is_reached && !is_untouched && !is_open && !outcome.failed.contains_key(*name)
    });
    apps.map(|(name, _)| name).collect()
}

/// Tries the checks of releases that were not reached before, until they pass or their time is over.
async fn check(
    eyes: &Eyes,
    engine: &Engine,
    progress: &Progress,
    aim: &Belief,
    apps: BTreeSet<&AppName>,
    outcome: &mut Outcome,
) {
    if apps.is_empty() {
        return;
    }
    if outcome.interrupted {
        outcome.unchecked.extend(apps.into_iter().cloned());
        return;
    }
    let checks = apps.iter().flat_map(|app| aim.desired.apps[*app].checks.iter().map(move |check| (*app, check)));
    let Some(missed) = eyes.until_well(checks.collect(), engine, progress).await else {
        outcome.interrupted = true;
        outcome.unchecked.extend(apps.into_iter().cloned());
        return;
    };
    for (app, missed) in check::by_app(missed) {
        for (check, miss) in missed {
            let within = humantime::format_duration(check.within);
            let text = format!("{check} did not pass within {within}: {}", miss.why);
            error!(app = app.as_str(), "{text}");
            let is_back = aim.desired.held_back.get(app).is_some_and(|held| held.why == Hold::Bad);
            if is_back && !miss.is_blind {
                let text = format!("{text}, at the last good release as well: a person is needed");
                outcome.unwell.entry(app.clone()).or_insert(text);
                continue;
            }
            let blame = if miss.is_blind { Blame::Circumstances } else { Blame::Release };
            outcome.failed.entry(app.clone()).or_default().push(StepFailure { text, said: miss.said, blame });
        }
    }
}

/// What is written of what units read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publish {
    /// Somebody only looks.
    Nothing,
    /// What is not there.
    Missing,
    /// Whatever is not as it should be.
    All,
}

/// Says whether a path is one that mainstay made.
fn owns(memory: &Memory, path: &HostPath) -> bool {
    memory.owned.contains_key(&ResourceId::File(path.clone()))
}

/// Keeps every release that was reached, so that its application can go back to it; images by what they were created from. One
/// that has not been healthy for long enough is kept beside the last good one.
fn keep_good(releases: &mut Releases, memory: &Memory, aim: &Belief) {
    releases.keep_only(|app| memory.apps.contains_key(app));
    for (name, wanted) in &aim.desired.apps {
        let Some(known) = memory.apps.get(name) else { continue };
        if known.baking.is_none() && known.bad.is_none() && releases.baking().get(name) == Some(&known.digest) {
            if let Err(error) = releases.baked(name) {
                warn!(app = %name, %error, "failed to keep the release that has baked: the one before stays the good one");
            }
            continue;
        }
        let is_good = matches!(known.state, AppState::Converged | AppState::Repaired | AppState::Drifted);
        let kept = if known.baking.is_some() { releases.baking() } else { releases.kept() };
        let is_kept = kept.get(name) == Some(&wanted.digest);
        if !is_good || is_kept || !known.is_reached(wanted.digest) || aim.desired.held_back.contains_key(name) {
            continue;
        }
        let mut app = wanted.clone();
        app.close();
        for (container, image) in &known.images {
            if let Some(container) = app.containers.get_mut(container) {
                container.settings.image.clone_from(image);
            }
        }
        let reads = course::reads(&app, &aim.desired);
        let published = resolve::reads_of(&app, &aim.desired.published);
        let published = published.map(|(path, file)| (path.clone(), file.clone())).collect();
        let release = Release { commit: known.commit.clone(), ran: ran(&app, memory), app, reads, published };
        // A quadlet names its image by a tag, which may move on: what it ran with is kept by its digest too.
        let images = known.images.values().cloned().collect();
        let kept = match known.baking {
            Some(_) => releases.bake(name, &release, images),
            None => releases.keep(name, &release, images),
        };
        if let Err(error) = kept {
            warn!(app = %name, %error, "failed to keep the release: until the next one, there is none to go back to");
        }
    }
}

/// Collects the images that the quadlets' services of a release were started with.
fn ran(app: &DesiredApp, memory: &Memory) -> BTreeMap<UnitName, Ran> {
    let managed = app.files.iter().collect();
    let run = app.units.iter().filter(|(name, unit)| inputs::runs(name, unit, &managed).is_some());
    run.filter_map(|(name, _)| Some((name.clone(), memory.ran.get(name)?.clone()))).collect()
}
