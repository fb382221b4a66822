//! From a tree to what this host should be: parsed, resolved, and believed as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use spec::course;
use spec::desired::Desired;
use spec::diagnostic::{Diagnostic, Severity};
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::lookout::Watch;
use spec::manifest::{self, Alert, Rollout};
use spec::memory::Memory;
use spec::resolve;
use spec::rollout::{self, Scheme};
use spec::tree::Tree;

use crate::ears::Keys;
use crate::git::{Limits, Mirror};

/// What the host is held to.
#[derive(Clone, Debug)]
pub struct Belief {
    /// The commit it comes from; `None` for a local folder.
    pub commit: Option<CommitId>,
    /// What the host should be.
    pub desired: Desired,
    /// What decides when each change may begin; `None` where nothing does.
    pub scheme: Option<Arc<Scheme>>,
    /// How each application changes here, where the repository says something about that.
    pub policies: BTreeMap<AppName, Rollout>,
    /// Who is told of this host and of the fleet.
    pub alerts: Arc<[Alert]>,
    /// What this host listens for, if it is one of those who do for the fleet.
    pub watch: Option<Arc<Watch>>,
    /// Who signs with which key; only its own where this host listens to nobody.
    pub keys: Arc<Keys>,
}

/// Why a tree is not believed. Nothing of it is applied anywhere.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It has mistakes.
    #[error("the repository has {} {}: {}", errors(.0), plural(errors(.0)), first(.0))]
    Mistakes(Vec<Diagnostic>),
    /// It is for another fleet than the one whose things are on this host.
    #[error(
        "this host belongs to the fleet `{before}`, and this repository says `fleet: {now}`: what is on the host carries the \
         fleet's name; keep the name, or remove everything with the old one first"
    )]
    OtherFleet {
        /// The fleet whose things are here.
        before: String,
        /// The fleet of the repository.
        now: String,
    },
    /// This host is not in it.
    #[error("{0}")]
    Unplaced(String),
}

fn errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "error" } else { "errors" }
}

fn first(diagnostics: &[Diagnostic]) -> String {
    let first = diagnostics.iter().find(|diagnostic| diagnostic.severity == Severity::Error);
    first.map(ToString::to_string).unwrap_or_default()
}

/// What earlier commits of the branch say, for overrides that are for one of them.
pub struct Past<'m> {
    /// Where they are.
    pub mirror: &'m Mirror,
    /// How much of one is read.
    pub limits: Limits,
}

impl Past<'_> {
    /// Returns what `host` had at the commit that begins with some digits, if that is one before `newest` that can be read.
    fn digests(&self, digits: &str, newest: &CommitId, host: &HostName) -> Option<BTreeMap<AppName, Digest>> {
        let commit = self.mirror.named(digits).ok()?;
        if !self.mirror.is_ancestor(&commit, newest).unwrap_or(false) {
            return None;
        }
        let tree = self.mirror.tree(&commit, &self.limits).ok()?;
        let fleet = manifest::parse(&tree, Some(&commit)).fleet?;
        let desired = resolve::resolve(&fleet, host).ok()?;
        Some(desired.apps.into_iter().map(|(app, wanted)| (app, wanted.digest)).collect())
    }
}

/// Reads a tree for one host. Warnings do not stand in the way and are returned beside the belief.
///
/// # Errors
/// The tree has an error anywhere, for any host; or this host is not in it.
pub fn believe(
    tree: &Tree,
    commit: Option<CommitId>,
    host: &HostName,
    memory: &Memory,
    past: Option<&Past<'_>>,
) -> Result<(Belief, Vec<Diagnostic>), Refusal> {
    let parsed = manifest::parse(tree, commit.as_ref());
    let Some(mut fleet) = parsed.fleet else { return Err(Refusal::Mistakes(parsed.diagnostics)) };
    let desired = resolve::resolve(&fleet, host).map_err(|unplaced| Refusal::Unplaced(unplaced.to_string()))?;
    // What is on its way, or failed, may have its turn later, whatever became of it until then.
    let open = memory.apps.iter().filter(|(_, known)| !known.reached || known.baking.is_some() || known.bad.is_some());
    let mut pending = course::pending(&desired, memory);
    pending.extend(open.map(|(app, _)| app.clone()));
    if let (Some(commit), Some(past)) = (&commit, past) {
        let digest = |app: &AppName| desired.apps.get(app).map(|wanted| wanted.digest);
        let targets = pending.iter().map(|app| (app.clone(), digest(app))).collect();
        let digests = |digits: &str| past.digests(digits, commit, host);
        fleet.overrides = rollout::overrides(&fleet.overrides, &targets, commit, Timestamp::now(), digests);
    }
    // A local folder is for this host alone.
    let scheme = commit.as_ref().and_then(|commit| Scheme::of(&fleet, commit, host, &pending)).map(Arc::new);
    let apps = desired.apps.keys().map(|app| (app.clone(), rollout::policy(&fleet, app, host)));
    let policies = apps.filter(|(_, policy)| *policy != Rollout::default()).collect();
    let watch = commit.as_ref().and_then(|_| Watch::of(&fleet, host)).map(Arc::new);
    let listens = scheme.is_some() || watch.is_some();
    let heard = fleet.hosts.iter().filter(|(name, _)| listens || *name == host);
    let keys: Keys = heard.filter_map(|(name, it)| Some((name.clone(), it.key.clone()?))).collect();
    let (alerts, keys) = (fleet.alerts.into(), Arc::new(keys));
    Ok((Belief { commit, desired, scheme, policies, alerts, watch, keys }, parsed.diagnostics))
}
