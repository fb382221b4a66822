//! The command line: one file per subcommand, each of which calls the library and prints.

#[macro_use]
mod out;
mod print;
mod times;
mod names;
mod held_to;
mod screen;
mod wakes;
pub mod alerts;
pub mod check;
pub mod history;
pub mod completions;
pub mod init;
pub mod man;
pub mod schema;
pub mod install;
pub mod uninstall;
pub mod once;
pub mod plan;
pub mod render;
pub mod restore;
pub mod retry;
pub mod run;
pub mod settings;
pub mod status;
pub mod logs;
pub mod doctor;
pub mod pause;
pub mod resume;
pub mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ColorChoice, Parser, Subcommand};
use spec::id::HostName;
use spec::settings as keys;

use crate::settings::{DEFAULT_PATH, Settings, SettingsError};

const AFTER: &str = "\
Exit codes:
  0  done: the repository is sound, the host is as wanted (`plan`: one pass could make it so)
  1  it could not be done: the settings, the ledger, the network or the host stood in the way
  2  the command line is off
  3  the repository has mistakes; nothing of it was applied
  4  the host is not as wanted: a step failed, or something waits for a person

SIGHUP makes `run` ask the repository at once, and try again what failed or was refused; what went back to its last good \
release stays there until a commit changes it, or `mainstay retry`.

Try it out without any server:
  mainstay check ./fleet                      what is wrong with it, if anything
  mainstay render --dir ./fleet --host attic  what a host would get
  mainstay plan --dir ./fleet --host attic    what would change on this machine
  mainstay once --dir ./fleet --host attic    change it";

/// Keeps this host at `main`: what its git repository says should run is what runs.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, after_help = AFTER, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The settings file [default: /etc/mainstay/agent.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Who this host is in fleet.yaml [default: the settings' `host`, else the machine's name]
    #[arg(long, global = true, value_name = "NAME", value_parser = HostName::parse)]
    host: Option<HostName>,
    /// Where the mirror and the ledger are [default: /var/lib/mainstay]
    #[arg(long, global = true, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    /// Say more: -v for debug, -vv for everything (`RUST_LOG` is finer)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print all at once, also where it is longer than the screen
    #[arg(long, global = true)]
    no_pager: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the repository and keep this host at it, until stopped: what the service runs
    Run(run::Args),
    /// Bring this host to its commit once, and say what was done
    Once(once::Args),
    /// Show what would change on this host, and change nothing
    Plan(plan::Args),
    /// Write a configuration repository to begin with
    Init(init::Args),
    /// Print what editors need to complete fleet.yaml and app.yaml
    Schema(schema::Args),
    /// Find every mistake in a configuration repository, without touching any host
    Check(check::Args),
    /// Show what a host would get: files, units and containers, after overlays and templates
    Render(render::Args),
    /// Show what is converged, what drifted, at which commit, since when
    Status(status::Args),
    /// Show what was deployed on this host, and what came of it
    History(history::Args),
    /// Show what an application's services and containers say
    Logs(logs::Args),
    /// Have the agent ask the repository now
    Sync(sync::Args),
    /// Say what this host lacks, and what to do about it
    Doctor(doctor::Args),
    /// Follow a repository from now on: settings, a key, and the service
    Install(install::Args),
    /// Take the agent off this host; what runs goes on running
    Uninstall(uninstall::Args),
    /// Try again what failed and went back, without waiting for another commit
    Retry(retry::Args),
    /// Have the agent change nothing for a while, or nothing of some applications
    Pause(pause::Args),
    /// End a pause: what waited is done now
    Resume(resume::Args),
    /// Show who is told when a person is needed, and try it
    Alerts(alerts::Args),
    /// Show the agent's own settings, and which file each value comes from
    Settings(settings::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(man::Args),
    /// List what was kept before it was overwritten or removed, and bring it back
    Restore(restore::Args),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All is as wanted.
    Well,
    /// It could not be done.
    Impossible,
    /// The repository has mistakes.
    Mistaken,
    /// The host is not as wanted.
    Unconverged,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(match ended {
            Ended::Well => 0,
            Ended::Impossible => 1,
            Ended::Mistaken => 3,
            Ended::Unconverged => 4,
        })
    }
}

impl Common {
    /// Reads the settings and lets the command line have the last word.
    fn settings(&self) -> Result<Settings, SettingsError> {
        self.said().map(|said| Settings::from(&said))
    }

    /// The same, each value with where it came from.
    fn said(&self) -> Result<keys::Settings, SettingsError> {
        let mut said = crate::settings::read(self.settings.as_deref(), coloured(self.color, &std::io::stderr()))?;
        let state = self.state.as_ref().map(|state| state.to_string_lossy().into_owned());
        let host = self.host.as_ref().map(ToString::to_string);
        for (path, text) in [("state", state), ("host", host)] {
            if let (Some(key), Some(text)) = (keys::KEYS.iter().find(|key| key.path == path), text) {
                said.set(key, keys::Value::Text(text), keys::Origin::CommandLine);
            }
        }
        Ok(said)
    }

    /// Says whether to colour what goes to standard output.
    fn colour(&self) -> bool {
        coloured(self.color, &std::io::stdout())
    }
}

fn coloured(choice: ColorChoice, output: &impl std::io::IsTerminal) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // Set to nothing counts as not set: https://no-color.org
        ColorChoice::Auto => std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()) && output.is_terminal(),
    }
}

impl Cli {
    /// Says how much to log: the daemon informs, the other commands only warn, since they print.
    pub fn log_level(&self) -> &'static str {
        match (self.common.verbose, &self.command) {
            (0, Command::Run(_)) => "mainstay=info,warn",
            (0, _) => "mainstay=warn,error",
            (1, _) => "mainstay=debug,info",
            _ => "trace",
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What stood in the way, for the operator: what we were doing, then why it failed.
    pub async fn run(self) -> anyhow::Result<Ended> {
        if self.is_long() && !self.common.no_pager {
            out::page();
        }
        let ended = Box::pin(self.obey()).await;
        out::finish().context("failed to print")?;
        ended
    }

    /// Says whether the command may print more than a screen.
    fn is_long(&self) -> bool {
        match &self.command {
            Command::Plan(_) | Command::Check(_) | Command::Render(_) | Command::History(_) | Command::Settings(_) => {
                true
            }
            // What is drawn over again has no end to page to.
            Command::Status(args) => !args.watch,
            Command::Run(_)
            | Command::Once(_)
            | Command::Init(_)
            | Command::Schema(_)
            | Command::Logs(_)
            | Command::Sync(_)
            | Command::Doctor(_)
            | Command::Install(_)
            | Command::Uninstall(_)
            | Command::Retry(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::Alerts(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Restore(_) => false,
        }
    }

    async fn obey(&self) -> anyhow::Result<Ended> {
        let common = &self.common;
        match &self.command {
            Command::Run(args) => run::run(common, args).await,
            Command::Once(args) => Box::pin(once::run(common, args)).await,
            Command::Plan(args) => plan::run(common, args).await,
            Command::Init(args) => init::run(common, args),
            Command::Schema(args) => schema::run(common, args),
            Command::Sync(args) => Box::pin(sync::run(common, args)).await,
            Command::Check(args) => check::run(common, args),
            Command::Render(args) => render::run(common, args),
            Command::Status(args) => status::run(common, args).await,
            Command::History(args) => history::run(common, args),
            Command::Logs(args) => logs::run(common, args).await,
            Command::Retry(args) => retry::run(common, args),
            Command::Pause(args) => pause::run(common, args).await,
            Command::Resume(args) => resume::run(common, args).await,
            Command::Doctor(args) => Box::pin(doctor::run(common, args)).await,
            Command::Install(args) => Box::pin(install::run(common, args)).await,
            Command::Uninstall(args) => uninstall::run(common, args).await,
            Command::Alerts(args) => alerts::run(common, args).await,
            Command::Settings(args) => settings::run(common, args),
            Command::Completions(args) => Ok(completions::run(args)),
            Command::Man(args) => man::run(args),
            Command::Restore(args) => restore::run(common, args),
        }
    }
}

/// Names the settings file for messages.
fn settings_path(common: &Common) -> PathBuf {
    common.settings.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
