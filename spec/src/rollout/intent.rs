//! What a host says before it does it.
//!
//! Of two hosts that begin at the same time at least one sees the other, if each says so first and then looks: only what was
//! looked at after an intention was pushed counts for it.

use jiff::Timestamp;

use crate::digest::Digest;

/// A change whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The release; `None` where the application is removed.
    pub release: Option<Digest>,
    /// Since when.
    pub since: Timestamp,
    /// When the others could see it: what they said until then has to be looked at before it begins.
    pub pushed: Option<Timestamp>,
}

impl Intent {
    /// Goes on with the intention `before`, if it is for this release.
    #[must_use]
    pub fn to(release: Option<Digest>, before: Option<Intent>, now: Timestamp) -> Intent {
        let fresh = Intent { release, since: now, pushed: None };
        before.filter(|before| before.release == release).unwrap_or(fresh)
    }

    /// Says whether the change may begin by what the others said when they were asked at `view`. `is_shown`: the same look showed this
    /// host's own announcement, as another host's look does from then on. That it was pushed before is not enough: a repository that
    /// is kept in several places answers for a while as if it had not been.
    pub fn is_told(&self, view: Option<Timestamp>, is_shown: bool) -> bool {
        is_shown && self.pushed.is_some_and(|pushed| view.is_some_and(|view| view > pushed))
    }
}
