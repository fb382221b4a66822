//! `mainstay completions`: what a shell completes; packages bring it.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Ended};

const EXAMPLES: &str = "\
Examples:
  mainstay completions bash >/etc/bash_completion.d/mainstay";

/// Print completions for a shell
///
/// Prints a script for a shell that completes commands and options. The packages bring it for bash, zsh and fish.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the completions.
pub fn run(args: &Args) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mainstay", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ended::Well
}
