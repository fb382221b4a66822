//! `cargo lab test`: every test of the workspace with one command, on a machine where nothing is prepared.
//!
//! What tests share is made here, once and in order: packages of the machine, the root tree, the agent's package. What runs
//! and for how long is said in `.config/nextest.toml`; nothing here picks tests.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lab::product;

/// Runs all tests; the last line printed is the runner's summary.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let began = Instant::now();
    match lab::available() {
        Ok(()) => lab::prepare()?,
        // The tests print it again, each for itself, and are then counted as passed: better said once, up here.
        Err(reason) => eprintln!("lab: end-to-end tests are skipped: {reason}"),
    }
    ensure_runner()?;
    let variables = product::variables()?;
    eprintln!("lab: ready after {:.0?}: {}", began.elapsed(), variables[1].1.display());

    let mut documentation = product::cargo();
    documentation.args(["test", "--quiet", "--workspace", "--doc"]);
    // Who names tests waits for these alone.
    let documentation = !arguments.is_empty() || succeeds(&mut documentation)?;
    let mut tests = product::cargo();
    // On success nothing follows the summary, not even a list of slow tests.
    tests.args(["nextest", "run", "--workspace", "--profile", "ci", "--final-status-level", "fail"]);
    tests.args(arguments).envs(variables);
    if !succeeds(&mut tests)? {
        bail!("not every test passed");
    }
    if !documentation {
        bail!("not every example in the documentation holds; see above the tests");
    }
    Ok(())
}

/// Installs the test runner unless it is there. Unoptimised: it waits for tests, and is built in half the time.
fn ensure_runner() -> Result<()> {
    let mut version = product::cargo();
    version.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if succeeds(&mut version)? {
        return Ok(());
    }
    eprintln!("lab: installing cargo-nextest (once, some minutes)");
    let mut install = product::cargo();
    install.args(["install", "--quiet", "--locked", "--debug", "cargo-nextest"]);
    if !succeeds(&mut install)? {
        bail!("failed to install cargo-nextest; what cargo printed above says why");
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(command.status().with_context(|| format!("failed to start {:?}", command.get_program()))?.success())
}
