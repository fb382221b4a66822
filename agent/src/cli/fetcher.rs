//! `mainstay fetcher`: what mainstay-fetch.service runs.

use super::Ended;
use crate::fetcher;

/// Talk to servers for the agent: what mainstay-fetch.service runs
///
/// Fetches, pushes and asks in the place of the agent, which asks over /run/mainstay/fetch.sock: without root, and without the host's files.
/// systemd starts it when it is needed; it ends by itself.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Answers until nobody asks any more.
///
/// # Errors
/// It was not started by systemd.
pub async fn run(_args: &Args) -> anyhow::Result<Ended> {
    fetcher::run().await?;
    Ok(Ended::Well)
}
