//! Artifacts: files that the repository names by URL and by the SHA-256 of their bytes, without holding them.

use serde::{Deserialize, Serialize};

use crate::authority::{is_authority, is_loopback};
use crate::digest::Digest;

/// How many bytes an artifact may have unless its entry says so.
pub const LIMIT: u64 = 1 << 30;
/// How many bytes any artifact may have: what is on the host is read as a whole when the agent starts.
pub const MOST: u64 = 4 << 30;
/// The longest address.
const LONGEST: usize = 2048;

/// Where an artifact is fetched from, and what has to come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The address, as it was written; [`Address::parse`] takes it.
    pub url: String,
    /// The digest of the bytes that are fetched.
    pub sha256: Digest,
    /// More bytes than this are not fetched.
    pub limit: u64,
}

/// The kinds of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'u> {
    /// One file at a web server.
    Web(&'u str),
}

/// Why a text is no address of an artifact: what is wrong, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong.
    pub why: &'static str,
    /// What to do.
    pub help: &'static str,
}

const WHOLE: &str = "write the whole address, such as https://ci.example/bridge-1.4";

impl<'u> Address<'u> {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none that artifacts are fetched from.
    pub fn parse(text: &'u str) -> Result<Address<'u>, Flaw> {
        let flaw = |why, help| Err(Flaw { why, help });
        let Some((scheme, rest)) = text.split_once("://") else {
            return flaw("it does not begin with https://", WHOLE);
        };
        if text.len() > LONGEST {
            return flaw("it is longer than 2048 bytes", "shorten it");
        }
        if text.chars().any(|c| !c.is_ascii_graphic()) {
            return flaw("it holds a character that URLs escape", "write it with %-escapes, such as %20 for a space");
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return flaw(
                "it holds a user or password, which everybody who reads the repository sees",
                "remove what is before the `@`",
            );
        }
        match scheme {
            "https" | "http" if text.contains('#') => flaw("a server never sees what is behind a `#`", "remove it"),
            "https" | "http" if !is_authority(authority) => flaw("its host or port is none", WHOLE),
            "https" => Ok(Address::Web(text)),
            "http" if is_loopback(authority) => Ok(Address::Web(text)),
            "http" => flaw(
                "everybody on the way sees what is fetched over http://",
                "write https://; http:// is for loopback",
            ),
            _ => flaw("artifacts are fetched over https://", WHOLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_very_host() {
        for good in
            ["https://ci.example/x", "https://ci.example:8443/x?y=1", "http://127.0.0.1/x", "http://[::1]:8080/x"]
        {
            assert_eq!(Address::parse(good), Ok(Address::Web(good)));
        }
        for bad in [
            "/srv/x",
            "ftp://ci.example/x",
            "http://ci.example/x",
            "http://127.0.0.1.example/x",
            "https://me:secret@ci.example/x",
            "https:///x",
            "https://ci.example:0/x",
            "https://ci.example/x#y",
            "https://ci.example/a b",
            "https://ci.example\\x/",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
