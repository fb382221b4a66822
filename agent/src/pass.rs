//! The spine: believe, observe, plan, apply, report. Whoever knows this file knows the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use spec::id::{CommitId, HostName, HostPath, ResourceId};
use spec::plan::{self, Plan};
use spec::tree::Tree;
use tracing::{error, info, warn};

use crate::apply::{self, Outcome, Patience};
use crate::backups::Backups;
use crate::belief::{self, Belief, Refusal};
use crate::disk::Disk;
use crate::engine::{Engine, Owner};
use crate::ledger::{Found, Ledger, LedgerError};
use crate::observe::{self, Providers};
use crate::progress::Progress;
use crate::publish;
use crate::report;
use crate::settings::Settings;
use crate::systemd::Systemd;

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
    /// How patient to be.
    pub patience: Patience,
    /// For the watchdog and for stopping.
    pub progress: Arc<Progress>,
    sockets: Vec<PathBuf>,
    /// What units read and could not be written.
    unpublished: BTreeSet<HostPath>,
    registries: Option<PathBuf>,
    /// What the last pass said, so that a pass that says the same is silent.
    said: String,
}

/// What a pass found and did.
pub struct Passed {
    /// The plan it carried out.
    pub plan: Plan,
    /// What came of it.
    pub outcome: Outcome,
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
            && plan.drift.is_empty()
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
        Ok(Host::with(ledger, name, settings, progress))
    }

    /// Says whether another agent holds this host at the moment.
    pub fn is_taken(&self) -> bool {
        self.ledger.is_taken()
    }

    fn with(ledger: Ledger, name: HostName, settings: &Settings, progress: Arc<Progress>) -> Host {
        match ledger.found {
            Found::Whole | Found::Nothing => {}
            Found::Before => warn!("the ledger was damaged; the copy before it is used"),
            Found::Lost => {
                error!("the ledger was damaged and is started anew; nothing is removed that it does not remember");
            }
        }
        let holds_containers = ledger.memory.owned.keys().any(|id| matches!(id, ResourceId::Container(_)));
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
        let providers = Providers::new(Disk::new(""), Systemd::new(), engine, backups);
        let patience = Patience { job: settings.job, pull: settings.pull, settle: settings.settle };
        Host {
            name,
            providers,
            ledger,
            belief: None,
            patience,
            progress,
            sockets,
            registries,
            unpublished: BTreeSet::new(),
            said: String::new(),
        }
    }

    /// Believes a tree from now on, if it is sound. What was believed before stays when it is not.
    ///
    /// # Errors
    /// The tree has mistakes, or this host is not in it.
    pub fn believe(
        &mut self,
        tree: &Tree,
        commit: Option<CommitId>,
    ) -> Result<Vec<spec::diagnostic::Diagnostic>, Refusal> {
        let (belief, warnings) = belief::believe(tree, commit, &self.name)?;
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
            self.providers.disk = Disk::new(fleet);
            self.providers.engine = Engine::new(self.sockets.clone(), owner).with_credentials(self.registries.clone());
        }
        if belief.commit.is_some() {
            self.ledger.memory.believed.clone_from(&belief.commit);
        }
        self.belief = Some(belief);
        Ok(warnings)
    }

    /// Names the commits that this host runs or believes: the mirror keeps them whatever the branch does.
    pub fn commits(&self) -> Vec<CommitId> {
        let memory = &self.ledger.memory;
        let apps = memory.apps.values().flat_map(|app| [&app.commit, &app.from]);
        let all: BTreeSet<&CommitId> = apps.chain([&memory.believed]).flatten().collect();
        all.into_iter().cloned().collect()
    }

    /// Looks, plans, and changes nothing.
    pub async fn plan(&mut self, now: Timestamp, patience: plan::Patience) -> Option<Plan> {
        let belief = self.belief.as_ref()?;
        let mut observed = observe::observe(&mut self.providers, &belief.desired, &self.ledger.memory).await;
        observed.unpublished.clone_from(&self.unpublished);
        Some(plan::plan(&belief.desired, &observed, &self.ledger.memory, now, patience))
    }

    /// Looks, plans, says so, and notes which applications are about to change. `None` when nothing is believed yet.
    pub async fn prepare(&mut self, now: Timestamp, patience: plan::Patience) -> Option<Plan> {
        self.unpublished = publish::ensure(Path::new("/"), &self.belief.as_ref()?.desired);
        let plan = self.plan(now, patience).await?;
        self.progress.mark();
        let said = if plan.is_empty() { String::new() } else { plan.to_string() };
        if said != self.said && !said.is_empty() {
            info!(steps = plan.steps.len(), conflicts = plan.conflicts.len(), "plan\n{}", said.trim_end());
        }
        self.said = said;
        let belief = self.belief.as_ref()?;
        report::applying(&mut self.ledger.memory, belief, &plan, now);
        Some(plan)
    }

    /// Makes the host what a plan says, as far as one pass can.
    ///
    /// # Errors
    /// The ledger could not be written; nothing is changed without it.
    pub async fn carry_out(&mut self, plan: Plan) -> Result<Option<Passed>, LedgerError> {
        let Some(belief) = &self.belief else { return Ok(None) };
        let (desired, ledger) = (&belief.desired, &mut self.ledger);
        let outcome = apply::apply(&plan, desired, &mut self.providers, ledger, self.patience, &self.progress).await?;
        if let Some(socket) = self.providers.engine.socket() {
            self.ledger.memory.engine = Some(socket.to_string_lossy().into_owned());
        }
        report::fold(&mut self.ledger.memory, belief, &plan, &outcome, Timestamp::now());
        self.ledger.save()?;
        Ok(Some(Passed { plan, outcome }))
    }
}
