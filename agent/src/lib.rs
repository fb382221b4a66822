//! What mainstay does: everything that touches the world. What *should* be is decided in `spec`.
//!
//! The order of the modules below is the order of reading and of dependency: a module names only modules above it.

use std::error::Error;

pub mod transfer;
pub mod progress;
pub mod spent;
pub mod tls;
pub mod web;
pub mod store;
pub mod backups;
pub mod draw;
pub mod settings;
pub mod identity;
pub mod seal;
pub mod systemd;
pub mod podman;
pub mod engine;
pub mod artifacts;
pub mod check;
pub mod vigil;
pub mod git;
pub mod fetcher;
pub mod source;
pub mod ears;
pub mod disk;
pub mod ledger;
pub mod releases;
pub mod requests;
pub mod trust;
pub mod belief;
pub mod observe;
pub mod leftovers;
pub mod apply;
pub mod report;
pub mod beneath;
pub mod publish;
pub mod rollout;
pub mod lookout;
pub mod pass;
pub mod watch;
pub mod upstream;
pub mod difference;
pub mod snapshot;
pub mod board;
pub mod history;
pub mod fleet;
pub mod logs;
pub mod endpoint;
pub mod alert;
pub mod folder;
pub mod vault;
pub mod daemon;
pub mod scaffold;
pub mod install;
pub mod doctor;
pub mod cli;
#[cfg(test)]
mod messages;

/// Puts an error and everything that caused it on one line: what we were doing, then why it failed.
pub fn chain(error: &dyn Error) -> String {
    let mut text = plain(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let words = plain(&cause.to_string());
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// Says the same to a person at a terminal: each cause on a line of its own.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = format!("mainstay: {}", plain(&error.to_string()));
    for cause in error.chain().skip(1) {
        let words = plain(&cause.to_string());
        if !text.contains(&words) {
            text.push_str("\n  because ");
            text.push_str(&words);
        }
    }
    text
}

/// Takes the kernel's numbers out of a message: its words say the same.
fn plain(words: &str) -> String {
    let mut parts = words.split(" (os error ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_without_numbers() {
        let missing = std::io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(missing).context("failed to read /x").context("the token is of no use");
        let causes = "failed to read /x\n  because No such file or directory";
        assert_eq!(told(&error), format!("mainstay: the token is of no use\n  because {causes}"));
        assert_eq!(chain(&*error), "the token is of no use: failed to read /x: No such file or directory");
        assert_eq!(plain("a (os error 5), b (os error 7): c"), "a, b: c");
    }
}
