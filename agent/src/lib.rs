//! What mainstay does: everything that touches the world. What *should* be is decided in `spec`.
//!
//! The order of the modules below is the order of reading and of dependency: a module names only modules above it.

use std::error::Error;

pub mod progress;
pub mod spent;
pub mod tls;
pub mod store;
pub mod backups;
pub mod draw;
pub mod settings;
pub mod systemd;
pub mod podman;
pub mod engine;
pub mod artifacts;
pub mod check;
pub mod vigil;
pub mod git;
pub mod source;
pub mod disk;
pub mod ledger;
pub mod releases;
pub mod requests;
pub mod belief;
pub mod observe;
pub mod leftovers;
pub mod apply;
pub mod report;
pub mod publish;
pub mod pass;
pub mod watch;
pub mod upstream;
pub mod difference;
pub mod snapshot;
pub mod board;
pub mod history;
pub mod logs;
pub mod endpoint;
pub mod alert;
pub mod folder;
pub mod daemon;
pub mod scaffold;
pub mod install;
pub mod doctor;
pub mod cli;

/// Puts an error and everything that caused it on one line: what we were doing, then why it failed.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
