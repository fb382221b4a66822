//! The git client: a bare mirror of the desired state, and this host's notes on it.
//!
//! Everything here speaks git's protocol in-process; `ssh` is a byte pipe, and the `git` program is needed only for
//! `file://` remotes, for [`Mirror::tidy`] and for [`Mirror::bring`]. Nothing here checks files out, runs hooks or filters, follows submodules
//! or judges what a commit says. All calls block, and all of them are bounded by [`Deadlines`] and by a cancel flag.
//!
//! The modules below are in the order of dependency: each names only those above it.

mod remote;
mod error;
mod command;
mod complaints;
mod opening;
mod wire;
mod credential;
mod http;
mod connect;
mod signs;
mod mirror;
mod tree;
mod signed;
mod meter;
mod link;
mod pack;
mod spool;
mod walk;
mod apart;
mod pull;
mod hear;
mod fetch;
mod notes;
mod history;
mod hosts;
mod search;
mod clone;
mod push;
mod propose;
mod serve;

#[cfg(test)]
pub(crate) mod tests;

pub use clone::Followed;
pub use error::{Cap, Deadline, FetchError, GitError, PushError};
pub use fetch::Fetched;
pub use hosts::{Heartbeat, Newest, said_by};
pub use link::OPENING;
pub use mirror::{Mirror, Tidied};
pub use propose::Proposal;
pub use push::{Pushed, Seen};
pub use remote::{Bounds, BranchName, Deadlines, Files, Remote, Ssh, Token, Url, UrlError};
pub use search::Touched;
pub use serve::Fetcher;
pub use signed::Signed;
pub use signs::{Heard, Peers};
pub use tree::{Limits, Summary};
