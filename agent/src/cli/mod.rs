//! The command line: one file per subcommand, each of which calls the library and prints.

mod width;
mod bars;
#[macro_use]
mod out;
mod print;
mod times;
mod names;
mod held_to;
mod forecast;
mod screen;
mod wakes;
pub mod alerts;
pub mod check;
pub mod history;
pub mod fleet;
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
pub mod secret;
pub mod retry;
pub mod run;
pub mod settings;
pub mod status;
pub mod logs;
pub mod doctor;
pub mod fetcher;
pub mod pause;
pub mod resume;
pub mod sync;
pub mod accept_rewrite;
pub mod trust;

pub use out::Log;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use spec::id::HostName;
use spec::settings as keys;

use crate::progress::Progress;
use crate::settings::{DEFAULT_PATH, Settings, SettingsError};

const AFTER: &str = "\
Exit codes:
  0  done: repository sound, host as wanted; `plan`: one pass can make it so
  1  it could not be done: settings, ledger, network or host stood in the way
  2  the command line is off
  3  the repository has mistakes; nothing of it was applied
  4  the host is not as wanted: a step failed, or something waits for a person

SIGHUP makes `run` ask the repository at once, and try again what failed or was
refused; what went back to its last good release stays there until a commit
changes it, or `mainstay retry`.

Try it out without any server:
  mainstay check ./fleet                      what is wrong with it, if anything
  mainstay render --dir ./fleet --host attic  what a host would get
  mainstay plan --dir ./fleet --host attic    what would change on this machine
  mainstay once --dir ./fleet --host attic    change it";

/// What is said of a command, and in which order.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

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
#[command(next_help_heading = "Global options")]
pub struct Common {
    /// The settings file [default: /etc/mainstay/agent.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// This host's name in fleet.yaml [default: as the settings say, else the machine's name]
    #[arg(long, global = true, value_name = "NAME", value_parser = HostName::parse)]
    host: Option<HostName>,
    /// Mirror, ledger and the rest [default: /var/lib/mainstay]
    #[arg(long, global = true, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    /// Log more: -v for debug, -vv for everything, else `RUST_LOG`
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print all at once, longer than the screen or not
    #[arg(long, global = true)]
    no_pager: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// What can be asked for; each says of itself what it does.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Once(once::Args),
    Plan(plan::Args),
    Init(init::Args),
    Schema(schema::Args),
    Check(check::Args),
    Render(render::Args),
    Secret(secret::Args),
    Status(status::Args),
    History(history::Args),
    Fleet(Box<fleet::Args>),
    Logs(logs::Args),
    Sync(sync::Args),
    Doctor(doctor::Args),
    Install(install::Args),
    Uninstall(uninstall::Args),
    Retry(retry::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Trust(trust::Args),
    AcceptRewrite(accept_rewrite::Args),
    Alerts(alerts::Args),
    Settings(settings::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Fetcher(fetcher::Args),
    #[command(hide = true)]
    Man(man::Args),
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
    /// A rollout goes no further.
    Halted,
    /// Something later took the place of what was waited for.
    Superseded,
    /// It was not over in time.
    Late,
}

impl Ended {
    /// Returns the exit code.
    pub fn code(self) -> u8 {
        match self {
            Ended::Well => 0,
            Ended::Impossible => 1,
            Ended::Mistaken => 3,
            Ended::Unconverged => 4,
            Ended::Halted => 5,
            Ended::Superseded => 6,
            Ended::Late => 7,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(ended.code())
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

    /// Begins something that may fetch: on a terminal it shows how far it is.
    fn progress(&self) -> Arc<Progress> {
        let onlooker = bars::Bars::on_terminal().filter(|_| !self.json);
        Arc::new(onlooker.map_or_else(Progress::default, |bars| Progress::seen_by(Box::new(bars))))
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
    /// Reads the command line; help and mistakes end the program.
    pub fn read() -> Cli {
        Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
    }

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
            Command::Fleet(args) => args.is_long(),
            Command::Run(_)
            | Command::Fetcher(_)
            | Command::Secret(_)
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
            | Command::Trust(_)
            | Command::AcceptRewrite(_)
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
            Command::Plan(args) => Box::pin(plan::run(common, args)).await,
            Command::Init(args) => init::run(common, args),
            Command::Schema(args) => schema::run(common, args),
            Command::Sync(args) => Box::pin(sync::run(common, args)).await,
            Command::Check(args) => check::run(common, args),
            Command::Render(args) => render::run(common, args),
            Command::Secret(args) => secret::run(common, args),
            Command::Status(args) => status::run(common, args).await,
            Command::History(args) => history::run(common, args),
            Command::Fleet(args) => Box::pin(fleet::run(common, args)).await,
            Command::Logs(args) => logs::run(common, args).await,
            Command::Retry(args) => retry::run(common, args),
            Command::Pause(args) => pause::run(common, args).await,
            Command::Resume(args) => resume::run(common, args).await,
            Command::Doctor(args) => Box::pin(doctor::run(common, args)).await,
            Command::Install(args) => Box::pin(install::run(common, args)).await,
            Command::Uninstall(args) => uninstall::run(common, args).await,
            Command::Trust(args) => trust::run(common, args),
            Command::AcceptRewrite(args) => accept_rewrite::run(common, args),
            Command::Alerts(args) => alerts::run(common, args).await,
            Command::Settings(args) => settings::run(common, args),
            Command::Completions(args) => Ok(completions::run(args)),
            Command::Fetcher(args) => fetcher::run(args).await,
            Command::Man(args) => man::run(args),
            Command::Restore(args) => restore::run(common, args),
        }
    }
}

/// Builds the command line as people are told of it: `--help` is as compact as `-h`, and says what there is to say before the options.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(told)
}

fn told(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(told);
    let Some(text) = command.get_long_about().cloned() else { return command };
    let summary = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Clap puts the summary before the rest of it.
    let text = text.to_string();
    let text = text.strip_prefix(&summary).unwrap_or(&text).trim().to_owned();
    command.long_about(None).before_help(text).help_template(TEMPLATE)
}

/// Names the settings file for messages.
fn settings_path(common: &Common) -> PathBuf {
    common.settings.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// How wide the help is drawn.
    const WIDTH: usize = 80;

    fn help(command: &clap::Command) -> String {
        let mut command = command.clone().term_width(WIDTH);
        let help = command.render_help().to_string();
        let is_one = help.contains("Print help\n") && command.get_long_about().is_none();
        assert!(is_one, "what -h and --help print is the same: {help}");
        let (own, rest) = help.split_once("Global options:\n").expect("the options that all have stand apart");
        // Behind a blank line comes what is said after the options.
        let after = rest.split_once("\n\n").map(|(_, after)| format!("\n\n{after}")).unwrap_or_default();
        // Told once, by the command above.
        let own = own
            .split_once("Where to read:\n")
            .filter(|_| command.get_subcommands().count() == 0)
            .map_or(own, |(own, _)| own);
        ["\n", &"-".repeat(WIDTH), "\n", own.trim_end(), "\n", after.strip_prefix('\n').unwrap_or_default()].concat()
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        let mut all = command().term_width(WIDTH);
        all.build();
        let top = all.render_help().to_string();
        let mut said = top.clone();
        for command in all.get_subcommands().filter(|it| it.get_name() != "help") {
            said += &help(command);
            for command in command.get_subcommands().filter(|it| it.get_name() != "help") {
                said += &help(command);
            }
        }
        let nested = all.get_subcommands().flat_map(clap::Command::get_subcommands);
        let after = all.get_subcommands().chain(nested).chain([&all]).filter_map(|it| it.get_after_help());
        let after: Vec<String> = after.map(ToString::to_string).collect();
        let wide = said.lines().chain(after.iter().flat_map(|it| it.lines())).find(|line| line.chars().count() > WIDTH);
        assert_eq!(wide, None, "the help fits a terminal as it is written");
        expect_file!["help.txt"].assert_eq(&said);
        assert!(include_str!("../../../README.md").contains(&top), "the README shows what --help prints");
    }
}
