//! End-to-end tests on real hosts; each file is one subject. Where no lab can run, a test prints why and returns.

#![allow(
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "a test tells a story"
)]
#![allow(clippy::unwrap_used, reason = "all of this is tests, their shared parts too")]

mod agent;
mod alerts;
mod artifacts;
mod backups;
mod bars;
mod command_line;
mod compose;
mod compose_alike;
mod convergence;
mod dice;
mod drift;
mod drop_ins;
mod endpoint;
mod examples;
mod failures;
mod first_day;
mod fleet_commands;
mod first_steps;
mod fleet_story;
mod full_disks;
mod hostile_hosts;
mod hostile_servers;
mod hostile_trees;
mod images;
mod impostors;
mod installation;
mod interruptions;
mod kill_world;
mod kills;
mod kills_at_random;
mod knock_on;
mod lab_forge;
mod lab_itself;
mod layers;
mod logs;
mod messages;
mod ownership;
mod page;
mod pauses;
mod private_registry;
mod privileges;
mod prune;
mod quadlets;
mod records;
mod rollouts;
mod rootless;
mod secrets;
mod sources;
mod states;
mod trust;
mod unit_texts;
mod watching;
mod way_back;

/// A lab, or `None` with the reason printed.
fn start() -> Option<lab::Lab> {
    match lab::available() {
        Ok(()) => Some(lab::Lab::start().expect("what the lab needs is here")),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}
