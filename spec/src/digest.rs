//! SHA-256 digests of what is wanted and what was found; two things with one digest are the same thing to the planner.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Displays as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests one run of bytes, as `sha256sum` would.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Wraps a digest that was computed elsewhere, for instance while a file was streamed.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Returns it as bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hex digits.
    ///
    /// # Errors
    /// Says what a digest looks like when `text` is not one.
    pub fn parse(text: &str) -> Result<Digest, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| format!("`{text}` is not a sha256 digest of 64 hex digits"))?;
        Ok(Digest(bytes))
    }

    /// Returns the first twelve hex digits: enough to tell two apart in a message.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Digest, String> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Digests a sequence of labelled fields so that no two different sequences collide by concatenation.
///
/// Each label and value is preceded by its length (8 bytes, little endian).
#[derive(Default)]
pub struct Fields(Sha256);

impl Fields {
    /// Adds one field.
    pub fn add(&mut self, label: &str, value: &[u8]) -> &mut Fields {
        for part in [label.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Returns the digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_collide_by_concatenation() {
        let one = Fields::default().add("a", b"bc").finish();
        let other = Fields::default().add("ab", b"c").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"mainstay");
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        assert!(Digest::parse("12").is_err());
    }
}
