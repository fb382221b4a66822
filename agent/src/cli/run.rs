//! `mainstay run`: the daemon.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::info;

use super::{Common, Ended, settings_path};
use crate::alert::Alerts;
use crate::daemon;
use crate::endpoint;
use crate::git::Url;
use crate::pass::Host;
use crate::progress::Progress;
use crate::upstream::Upstream;

/// Follow the repository until stopped: what the service runs
///
/// Follows the repository of the settings and keeps this host at it: polls with jitter and back-off, repairs drift,
/// publishes a record in git notes. SIGHUP asks the repository at once; SIGTERM ends at the next safe place.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the daemon.
///
/// # Errors
/// The settings or the ledger cannot be used.
pub async fn run(common: &Common, _args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let name = settings.host()?;
    let off = || format!("the settings cannot be used; see {}", settings_path(common).display());
    let upstream = Upstream::open(&settings).with_context(off)?;
    let endpoint = endpoint::Config::of(&settings, &name).with_context(off)?;
    let alerts = Alerts::of(&settings).with_context(off)?;
    let host = Host::open(name, &settings, Arc::new(Progress::default()))?;
    info!(host = %host.name, repository = settings.repository.as_deref().map(Url::shown), branch = settings.branch, "mainstay {} starts", env!("CARGO_PKG_VERSION"));
    Box::pin(daemon::run(host, upstream, settings, endpoint, alerts)).await?;
    Ok(Ended::Well)
}
