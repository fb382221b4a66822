//! What is fetched at this moment, for whoever looks on: images, artifacts, commits.
//!
//! Knows no terminal. Whether anybody looks on, and what that looks like, is the command line's; nobody looks at the daemon.

/// Looks on while things are fetched.
pub trait Onlooker: Send + Sync {
    /// Is told that something begins to be fetched, by its name.
    fn begin(&self, what: &str) -> Box<dyn Look>;
}

/// A look at one thing that is fetched; dropped when that is over, however it ended.
pub trait Look: Send {
    /// Is told how many bytes came, and how many there are, where that is known.
    fn moved(&mut self, done: u64, total: Option<u64>);
}
