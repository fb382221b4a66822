//! What is remembered of how conversations with a remote begin, so that an unchanged tip costs one exchange.
//!
//! Protocol v2 begins with two: the server's capabilities, then a list of refs. Both the capabilities and what gix asks
//! for after them are the same every time. So a socket carries that request right behind the greeting, without waiting
//! for capabilities, and over http the capabilities are not asked for again. gix still reads, checks and judges every
//! byte that arrives, and a conversation that goes another way than expected is begun anew without any of this.

use std::cell::RefCell;
use std::collections::BTreeMap;

use spec::digest::Digest;

/// The longest opening that is remembered; capabilities and a request take less than 1 KiB.
pub(super) const MAX_OPENING: usize = 16 << 10;

/// What is known about the openings of one remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Opening {
    /// Nothing: take the long way, and learn.
    #[default]
    Unknown,
    /// The request for the list (sockets) or the capabilities (http), and whether the short way ever worked.
    Known { bytes: Vec<u8>, proven: bool },
    /// The short way does not work there.
    Never,
}

/// More openings than this are not remembered: which hosts are asked for changes while a rollout goes on.
const MOST_REMEMBERED: usize = 16;

/// The openings of all remotes, by the digest of the address and of what is asked for.
#[derive(Debug, Default)]
pub(super) struct Openings(RefCell<BTreeMap<Digest, Opening>>);

/// The part that an opening plays in one conversation.
#[derive(Debug, Default)]
pub(super) struct Guess {
    /// What this conversation assumes.
    pub(super) expected: Option<Vec<u8>>,
    /// What it taught.
    learnt: Option<Vec<u8>>,
    /// How far it held.
    pub(super) held: Held,
    /// A list of refs was read.
    pub(super) listed: bool,
}

/// How far an assumption held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    /// It was not put to the test.
    #[default]
    Untried,
    /// Something was sent that rests on it.
    Used,
    /// gix went the same way.
    Confirmed,
}

impl Openings {
    /// Returns what is known for `key`.
    pub(super) fn get(&self, key: &Digest) -> Opening {
        self.0.borrow().get(key).cloned().unwrap_or_default()
    }

    /// Replaces what is known for `key`.
    pub(super) fn set(&self, key: &Digest, opening: Opening) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MOST_REMEMBERED && !known.contains_key(key) {
            known.clear();
        }
        known.insert(*key, opening);
    }
}

impl Guess {
    /// Begins a conversation that goes by `opening`.
    pub(super) fn by(opening: &Opening) -> Guess {
        match opening {
            Opening::Known { bytes, .. } => Guess { expected: Some(bytes.clone()), ..Guess::default() },
            Opening::Unknown | Opening::Never => Guess::default(),
        }
    }

    /// Takes note of the request that followed the capabilities, if it is one that can be sent before them.
    pub(super) fn learn_request(&mut self, request: &[u8]) {
        // Four digits of length come before each line.
        if request.len() <= MAX_OPENING && request.get(4..).is_some_and(|line| line.starts_with(b"command=ls-refs")) {
            self.learnt = Some(request.to_vec());
        }
    }

    /// Takes note of capabilities, if they are protocol v2's; an older protocol lists its refs in their place.
    pub(super) fn learn_capabilities(&mut self, body: &[u8]) {
        // An announcement of the service may come before the version.
        let beginning = &body[..body.len().min(100)];
        if body.len() <= MAX_OPENING && beginning.windows(10).any(|line| line == b"version 2\n") {
            self.learnt = Some(body.to_vec());
        }
    }

    /// Returns what was learnt, as the opening for the next conversation.
    pub(super) fn into_opening(self) -> Opening {
        self.learnt.map_or(Opening::Unknown, |bytes| Opening::Known { bytes, proven: false })
    }
}
