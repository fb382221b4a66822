//! Artifacts: files that the repository names by URL and by the SHA-256 of their bytes, without holding them.

use serde::{Deserialize, Serialize};

use crate::authority::{is_authority, is_loopback};
use crate::digest::{Digest, Fields};
use crate::id::HostPath;

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
    /// More bytes than this are not fetched, and not unpacked.
    pub limit: u64,
    /// What becomes of it, when it is an archive that is unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpack: Option<Unpack>,
}

/// How an archive is unpacked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// The directory.
    pub into: HostPath,
    /// So many leading folders of its paths are left out.
    pub strip: usize,
}

impl Origin {
    /// Identifies what comes of it: another `strip` of the same archive is another content.
    pub fn key(&self) -> Digest {
        let Some(unpack) = &self.unpack else { return self.sha256 };
        let mut fields = Fields::default();
        fields.add("archive", self.sha256.to_string().as_bytes()).add("into", unpack.into.as_str().as_bytes());
        fields.add("strip", &unpack.strip.to_le_bytes()).finish()
    }
}

/// The kinds of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'u> {
    /// One file at a web server.
    Web(&'u str),
    /// A layer of an image or artifact in a registry.
    Registry(Image<'u>),
}

/// What a registry calls an image or artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'u> {
    /// HOST or HOST:PORT.
    pub registry: &'u str,
    /// The repository's path.
    pub repository: &'u str,
    /// A tag, or `sha256:…` of a manifest.
    pub reference: &'u str,
}

impl Image<'_> {
    /// Returns registry and repository, as credentials are kept for.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
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
        if scheme == "oci" {
            return image(rest).map(Address::Registry);
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
            _ => flaw("artifacts are fetched over https:// or oci://", WHOLE),
        }
    }
}

/// Reads REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST (OCI Distribution Specification 1.1, "Pull").
fn image(text: &str) -> Result<Image<'_>, Flaw> {
    const HELP: &str = "write oci://registry.example/team/bridge:1.4, or @sha256:… behind the name";
    let flaw = |why| Err(Flaw { why, help: HELP });
    let Some((registry, name)) = text.split_once('/') else { return flaw("it names no repository") };
    if registry.contains('@') {
        return flaw("it holds a user or password, which everybody who reads the repository sees");
    }
    if !is_authority(registry) {
        return flaw("its registry is none");
    }
    let (repository, reference) = match (name.split_once('@'), name.split_once(':')) {
        (Some((repository, digest)), _) => match digest.strip_prefix("sha256:").map(Digest::parse) {
            Some(Ok(parsed)) if digest.ends_with(&parsed.to_string()) => (repository, digest),
            _ => return flaw("what is behind the `@` is no digest"),
        },
        (None, Some((repository, tag))) if is_tag(tag) => (repository, tag),
        (None, Some(_)) => return flaw("its tag is none"),
        (None, None) => return flaw("it names neither tag nor digest"),
    };
    match repository.split('/').all(is_component) && name.len() <= 255 {
        true => Ok(Image { registry, repository, reference }),
        false => flaw("its repository is none"),
    }
}

fn is_tag(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=128).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(plain)
}

/// Says whether `text` is lower-case words with separators between them.
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_registries_do() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        let read = |text: &str| match Address::parse(text) {
            Ok(Address::Registry(image)) => format!("{} {} {}", image.registry, image.repository, image.reference),
            Ok(Address::Web(_)) => "web".to_owned(),
            Err(flaw) => flaw.why.to_owned(),
        };
        assert_eq!(read("oci://r.example:5000/team/bridge:1.4"), "r.example:5000 team/bridge 1.4");
        assert_eq!(read(&format!("oci://r.example/bridge@{digest}")), format!("r.example bridge {digest}"));
        for bad in [
            "oci://r.example",
            "oci:///bridge:1",
            "oci://r.example/bridge",
            "oci://me:secret@r.example/bridge:1",
            "oci://r.example/Bridge:1",
            "oci://r.example/a//b:1",
            "oci://r.example/../b:1",
            "oci://r.example/b:1/2",
            "oci://r.example/b:1?x=y",
            "oci://r.example/b:",
            "oci://r.example/b@sha256:12",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

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
