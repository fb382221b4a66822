//! The `mainstay` program: logging, the runtime, and the exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use mainstay::cli::{Cli, Ended, Log};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::read();
    log(cli.log_level());
    match Box::pin(cli.run()).await {
        Ok(ended) => ended.into(),
        Err(error) => {
            complain(format_args!("{}", mainstay::told(&error)));
            Ended::Impossible.into()
        }
    }
}

/// Prints to standard error; where nobody reads that, nobody can be told.
fn complain(text: std::fmt::Arguments<'_>) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Logs to the journal with fields when systemd listens there, to standard error otherwise.
fn log(level: &str) {
    let named = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = named.or_else(|| level.parse().ok()).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && !std::io::stderr().is_terminal()
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal.with_syslog_identifier("mainstay".to_owned())).init();
        return;
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Log).with_ansi(std::io::stderr().is_terminal());
    registry.with(lines.with_target(false).without_time()).init();
}
