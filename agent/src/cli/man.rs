//! `mainstay man`: the manual pages, written from the same words as `--help`; packages bring them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Ended};

/// Write the manual pages into a folder
///
/// Writes mainstay.1 and a page for each command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder, which has to be there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Ended> {
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.folder)
        .with_context(|| format!("failed to write manual pages to {}", args.folder.display()))?;
    Ok(Ended::Well)
}
