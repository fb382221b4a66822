//! `cargo lab`: the lab for people. Shows the product, runs its tests, boots hosts to try things on, and enters the hosts of
//! any running lab or test.

mod bench;
mod demo;
mod fleet;
mod load;
mod soak;
mod suite;

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use lab::{Lab, register};

/// Real Debian hosts with systemd on this machine, each booted in a second or two.
///
/// A lab lives in namespaces of its own and changes nothing on the machine; it goes when the command that started it
/// ends. Needs root, namespaces and the unified cgroup hierarchy; missing Debian packages are installed.
#[derive(Parser)]
#[command(name = "lab", bin_name = "cargo lab")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show mainstay on three hosts: deploy by a push, change a line, break things and see them repaired.
    ///
    /// Then the hosts stay up until Ctrl-C, to be entered from another terminal with `cargo lab sh NAME`.
    Demo {
        /// End when everything was shown; fails unless every step was really seen.
        #[arg(long)]
        check: bool,
    },
    /// Run every test of the workspace.
    ///
    /// Prepares what they share: Debian packages, the root tree, the test runner, the agent's package.
    Test {
        /// Arguments for `cargo nextest run`, such as a part of a test's name.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Try many more seeds than CI has: of the simulator of rollouts, and of the planner's properties.
    ///
    /// Says the seed of what failed, and how to see it again. A thousand seeds take some hours.
    Soak(soak::Arguments),
    /// Measure mainstay against the calls that no agent can avoid, on one host in the same minutes.
    ///
    /// Prints a table of figures, floors and ratios. On a machine that has other work to do only the ratios mean something.
    Bench(bench::Arguments),
    /// Measure how long `mainstay fleet status` takes over the refs of thousands of hosts.
    Fleet(fleet::Arguments),
    /// Measure what hosts cost the git server: a look, a commit with its records, a rollout; over ssh, https and git.
    Load(load::Arguments),
    /// Make the bench's raw calls, on one of its hosts.
    #[command(hide = true)]
    BenchFloor(bench::FloorArguments),
    /// Boot hosts and keep them until Ctrl-C.
    ///
    /// The hosts know each other by name. From another terminal, `cargo lab sh NAME` enters one.
    Up {
        /// Names of the hosts.
        #[arg(default_values_t = ["attic".to_owned(), "barn".to_owned()])]
        names: Vec<String>,
        /// Boot a forge too: a git server with a repository `fleet` that the hosts may fetch and push, and a registry.
        #[arg(long)]
        forge: bool,
    },
    /// Enter a running host: a shell, or one command.
    ///
    /// Works on the hosts of `cargo lab up` and on those of a test that is running. Where several labs have a host of
    /// that name, name it LAB/NAME.
    Sh {
        /// Name of the host.
        name: String,
        /// Program and arguments to run instead of a shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// List the running hosts.
    Ls,
    /// Remove what labs of dead processes left behind.
    ///
    /// A lab cleans up after itself even when its process is killed; this is for when its keeper was killed too.
    Clean,
    /// Build the root tree that all hosts share, unless it is there, and print where it is.
    Tree,
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    // Most tests need no lab; all else does.
    if !matches!(what, What::Test { .. } | What::Soak(_) | What::BenchFloor(_) | What::Fleet(_))
        && let Err(reason) = lab::available()
    {
        bail!("{reason}");
    }
    match what {
        What::Demo { check } => demo::run(check),
        What::Test { arguments } => suite::run(&arguments),
        What::Soak(arguments) => soak::run(&arguments),
        What::Bench(arguments) => bench::run(&arguments),
        What::Fleet(arguments) => fleet::run(&arguments),
        What::Load(arguments) => load::run(&arguments),
        What::BenchFloor(arguments) => bench::serve_floor(&arguments),
        What::Up { names, forge } => up(&names, forge),
        What::Sh { name, command } => enter(&name, &command),
        What::Ls => list(),
        What::Clean => clean(),
        What::Tree => {
            println!("{}", lab::root_tree(lab::Debian::Trixie)?.display());
            Ok(())
        }
    }
}

fn up(names: &[String], with_forge: bool) -> Result<()> {
    let lab = Lab::start()?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let hosts = lab.boot_all(&names)?;
    let forge = if with_forge { Some(lab.forge()?) } else { None };
    for host in hosts.iter().chain(forge.as_deref()) {
        let (name, address) = (host.name(), host.address());
        println!("{name:<16} {address:<12} enter with: cargo lab sh {name}");
    }
    if let Some(forge) = &forge {
        hosts.iter().try_for_each(|host| forge.authorize(host))?;
        println!("{:<16} {}", "repository", forge.repo("fleet")?.ssh_url());
        println!("{:<16} {}:5000", "registry", forge.address());
    }
    println!("Ctrl-C ends them all");
    // Nothing to do on Ctrl-C: the lab's keeper notices the end of this process and cleans up.
    loop {
        std::thread::park();
    }
}

fn enter(name: &str, command: &[String]) -> Result<()> {
    let host = register::host(name)?;
    let words: Vec<_> =
        if command.is_empty() { vec!["bash", "-l"] } else { command.iter().map(String::as_str).collect() };
    Err(lab::enter::interactive(host.leader.pid, &host.cgroup, &words).exec().into())
}

fn list() -> Result<()> {
    for (id, host) in register::hosts()? {
        println!("{:<16} {:<12} {id}", host.name, host.address);
    }
    Ok(())
}

fn clean() -> Result<()> {
    let cleaned = register::clean()?;
    for id in &cleaned {
        println!("removed what was left of {id}");
    }
    if cleaned.is_empty() {
        println!("nothing was left behind");
    }
    Ok(())
}
