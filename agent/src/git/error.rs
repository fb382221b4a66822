//! What can go wrong with git, one variant per reaction. `Display` says what we were doing, the sources say why.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::id::CommitId;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The deadline that was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deadline {
    /// No connection was made.
    Connect,
    /// Nothing was heard.
    Stall,
    /// It took too long altogether.
    Total,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deadline::Connect => {
                "connecting took too long: check the address, and whether a firewall lets this host through"
            }
            Deadline::Stall => "the server fell silent",
            Deadline::Total => "it took too long altogether",
        })
    }
}

/// What to do where somebody means it.
const RAISE: &str = "if the repository is that large, raise `git.max-size` in the settings of the host";

/// What a server may send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cap {
    /// Bytes on the wire.
    Bytes(u64),
    /// Bytes of a list of refs, or of whatever else comes before a pack.
    List(u64),
    /// Objects in one pack.
    Objects(usize),
    /// Bytes that the objects of one pack have when they are unpacked.
    Unpacked(u64),
    /// Bytes that it takes on this disk, where each object is compressed on its own.
    Stored(u64),
    /// Bytes of memory while it is unpacked.
    Memory(u64),
    /// Bytes in one file.
    File(u64),
    /// Refs in one list.
    Refs(usize),
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cap::Bytes(limit) => write!(f, "{limit} bytes at once: {RAISE}"),
            Cap::List(limit) => write!(f, "{limit} bytes before anything that was asked for"),
            Cap::Objects(limit) => write!(f, "{limit} objects at once: {RAISE}"),
            Cap::Unpacked(limit) => write!(f, "{limit} bytes, unpacked: {RAISE}"),
            Cap::Stored(limit) => write!(f, "{limit} bytes at once, as they are stored here: {RAISE}"),
            Cap::File(limit) => {
                write!(
                    f,
                    "{limit} bytes in one file: keep it elsewhere, as an artifact, and out of the branch's history"
                )
            }
            Cap::Memory(limit) => {
                write!(
                    f,
                    "what {limit} bytes of memory can unpack: keep large files that change often elsewhere, as artifacts; {RAISE}, \
                     and `MemoryMax=` of mainstay-fetch.service"
                )
            }
            Cap::Refs(limit) => write!(f, "{limit} refs at once"),
        }
    }
}

/// Why a fetch brought nothing. In every case the commits that were there before are still there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server cannot be reached or broke off: retry, with back-off.
    #[error("failed to reach {url}")]
    Unreachable {
        /// The remote.
        url: String,
        /// The wait that the server asked for.
        retry_after: Option<Duration>,
        /// Why.
        #[source]
        source: Source,
    },
    /// The server does not let us in, or hides the repository: retry slowly.
    #[error("{url} does not let us read it")]
    Denied {
        /// The remote.
        url: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// The branch is gone: keep what runs and be loud, it may come back.
    #[error("{url} has no branch `{branch}`: push it, or name another one with `branch` in the settings")]
    RefMissing {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
    },
    /// What arrived or what is stored does not hold together: retry; the mirror is renewed by the next fetch.
    #[error("failed to take over what {url} sent")]
    Corrupt {
        /// The remote.
        url: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// More was sent than we accept: ask a person, retry slowly.
    #[error("{url} sent more than {cap}")]
    TooLarge {
        /// The remote.
        url: String,
        /// What was passed.
        cap: Cap,
    },
    /// The settings cannot work: ask a person.
    #[error("failed to set up the connection to {url}")]
    Config {
        /// The remote.
        url: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// A deadline passed: retry, with back-off.
    #[error("gave up on {url}: {deadline}")]
    TimedOut {
        /// The remote.
        url: String,
        /// The deadline.
        deadline: Deadline,
    },
    /// We were asked to stop.
    #[error("the conversation with {url} was cancelled")]
    Cancelled {
        /// The remote.
        url: String,
    },
    /// The state directory cannot be written: nothing else should be changed either.
    #[error("failed to write to the mirror {}", path.display())]
    Local {
        /// The mirror.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
}

/// Why a report was not published. It stays in the mirror and is pushed with the next one.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Somebody else was faster, or the network failed: retry, with back-off.
    #[error("failed to push `{name}` to {url}")]
    Retryable {
        /// The remote.
        url: String,
        /// The ref.
        name: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// We may not write there: go on without, and show the host as unreported.
    #[error("{url} does not let us write `{name}`")]
    Denied {
        /// The remote.
        url: String,
        /// The ref.
        name: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// Anything else: ask a person, retry slowly.
    #[error("cannot push `{name}` to {url}")]
    Other {
        /// The remote.
        url: String,
        /// The ref.
        name: String,
        /// Why.
        #[source]
        source: Source,
    },
}

/// Why something in the mirror could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// An object is missing or unreadable; the next fetch renews the mirror.
    #[error("commit {commit} is damaged in the mirror")]
    Damaged {
        /// The commit that was read.
        commit: CommitId,
        /// Why.
        #[source]
        source: Source,
    },
    /// A limit on the whole tree was passed: this commit is not usable.
    #[error("commit {commit} is too large: {what}")]
    TooLarge {
        /// The commit that was read.
        commit: CommitId,
        /// Which limit.
        what: String,
    },
    /// The mirror itself cannot be used.
    #[error("failed to {doing} in the mirror {}", path.display())]
    Mirror {
        /// What we were doing.
        doing: String,
        /// The mirror.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// There is no clone to read from.
    #[error("{} is in no git repository: name a clone with --dir, or go into one", folder.display())]
    NoClone {
        /// Where one was looked for.
        folder: PathBuf,
    },
    /// A clone cannot be read.
    #[error("failed to read the clone {}", folder.display())]
    Clone {
        /// The clone.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// A commit is as no git program writes one, which it stays.
    #[error("commit {} is none that is read", commit.short())]
    Malformed {
        /// Which.
        commit: CommitId,
        /// Why.
        #[source]
        source: Source,
    },
    /// A commit's name means nothing, or more than one thing.
    #[error("no commit of {} is called `{name}`: `git log --oneline --all` there lists them; fetch it first where it is new", folder.display())]
    NoSuchCommit {
        /// The name.
        name: String,
        /// The clone.
        folder: PathBuf,
    },
}

/// Why a pull failed.
pub(super) enum Failure {
    /// A reason that renewing the mirror would not change.
    Plain(FetchError),
    /// Neither the network nor the disk: our objects or theirs do not hold together.
    Odd(Source),
}

/// Says why the wire was given up; kept beside the conversation, because the layers above only know "an I/O error".
#[derive(Debug)]
pub(super) enum Verdict {
    /// No connection, or it broke.
    Unreachable(Option<Duration>, Source),
    /// 401, 403, 404, or ssh's "Permission denied".
    Denied(Source),
    /// Needs a person.
    Config(Source),
    /// A deadline passed.
    TimedOut(Deadline),
    /// The cancel flag was raised.
    Cancelled,
    /// A cap was reached.
    TooLarge(Cap),
}

impl Verdict {
    pub(super) fn into_fetch(self, url: String) -> FetchError {
        match self {
            Verdict::Unreachable(retry_after, source) => FetchError::Unreachable { url, retry_after, source },
            Verdict::Denied(source) => FetchError::Denied { url, source },
            Verdict::Config(source) => FetchError::Config { url, source },
            Verdict::TimedOut(deadline) => FetchError::TimedOut { url, deadline },
            Verdict::Cancelled => FetchError::Cancelled { url },
            Verdict::TooLarge(cap) => FetchError::TooLarge { url, cap },
        }
    }

    pub(super) fn into_push(self, url: String, name: String) -> PushError {
        match self {
            Verdict::Unreachable(_, source) => PushError::Retryable { url, name, source },
            Verdict::Denied(source) => PushError::Denied { url, name, source },
            Verdict::Config(source) => PushError::Other { url, name, source },
            Verdict::TimedOut(deadline) => PushError::Retryable { url, name, source: deadline.to_string().into() },
            Verdict::Cancelled => PushError::Retryable { url, name, source: "it was cancelled".into() },
            Verdict::TooLarge(cap) => PushError::Other { url, name, source: format!("it sent more than {cap}").into() },
        }
    }
}

impl FetchError {
    /// Classes the failure of a fetch that a push needed.
    pub(super) fn into_push(self, name: String) -> PushError {
        let url = match &self {
            FetchError::Unreachable { url, .. }
            | FetchError::Denied { url, .. }
            | FetchError::RefMissing { url, .. }
            | FetchError::Corrupt { url, .. }
            | FetchError::TooLarge { url, .. }
            | FetchError::Config { url, .. }
            | FetchError::TimedOut { url, .. }
            | FetchError::Cancelled { url } => url.clone(),
            FetchError::Local { .. } => String::new(),
        };
        match self {
            FetchError::Denied { source, .. } => PushError::Denied { url, name, source },
            FetchError::Config { .. } | FetchError::TooLarge { .. } | FetchError::Local { .. } => {
                PushError::Other { url, name, source: Box::new(self) }
            }
            _ => PushError::Retryable { url, name, source: Box::new(self) },
        }
    }
}

/// Turns an error message into a source.
pub(super) fn because(why: impl Into<String>) -> Source {
    Box::new(io::Error::other(why.into()))
}
