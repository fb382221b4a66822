//! What only some can read: files and values that are encrypted with age (<https://age-encryption.org/v1>), alone or in files of SOPS.
//!
//! Nothing is decrypted here. What can be told without a key is: whether something is encrypted at all, and for whom.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::diagnostic::Location;
use crate::digest::{Digest, Fields};

/// The first line of everything that age encrypts.
const VERSION: &[u8] = b"age-encryption.org/v1\n";
/// The first and the last line of the armour.
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// What is larger holds no secret of a configuration.
pub const MOST_BYTES: usize = 1 << 20;
/// No file has more secrets in it.
pub(crate) const MOST_PARTS: usize = 1000;

/// Something encrypted that is opened as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Envelope {
    /// Encrypted with age, in its armour or without.
    Age(Blob),
    /// A value of a file of SOPS, by the keys that lead to it.
    Sops {
        /// The whole file: what says that nobody changed it is over all of it.
        file: Blob,
        /// The keys.
        path: Vec<String>,
        /// The value as it stands there.
        value: String,
    },
}

/// Bytes that stand once beside whatever names them, however often they are named: they are written by their digest alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Their digest.
    pub digest: Digest,
    /// They themselves; none after they were read, until they are put there again.
    #[serde(skip)]
    pub bytes: Arc<[u8]>,
}

impl From<Arc<[u8]>> for Blob {
    fn from(bytes: Arc<[u8]>) -> Blob {
        Blob { digest: Digest::of(&bytes), bytes }
    }
}

impl Envelope {
    /// Returns the bytes that it is made of.
    pub fn blob(&self) -> &Blob {
        match self {
            Envelope::Age(blob) | Envelope::Sops { file: blob, .. } => blob,
        }
    }

    /// The same, to put them there.
    pub fn blob_mut(&mut self) -> &mut Blob {
        match self {
            Envelope::Age(blob) | Envelope::Sops { file: blob, .. } => blob,
        }
    }

    /// Digests what is encrypted. Who has no key learns nothing of the secret by it, and cannot try guesses.
    pub fn digest(&self) -> Digest {
        let mut fields = Fields::default();
        match self {
            Envelope::Age(blob) => fields.add("age", &blob.bytes),
            Envelope::Sops { path, value, .. } => path
                .iter()
                .fold(&mut fields, |fields, key| fields.add("key", key.as_bytes()))
                .add("value", value.as_bytes()),
        };
        fields.finish()
    }
}

/// How a value is written where a template prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As it is.
    #[default]
    Plain,
    /// As it is, in a file of lines: it may not leave its own.
    Line,
    /// In base64 (RFC 4648, section 4).
    Base64,
}

impl Form {
    const ALL: [Form; 3] = [Form::Plain, Form::Line, Form::Base64];

    fn as_str(self) -> &'static str {
        match self {
            Form::Plain => "plain",
            Form::Line => "line",
            Form::Base64 => "base64",
        }
    }
}

/// What stands before and behind the name of a secret in a text that was rendered: characters that nobody else may write.
pub(crate) const OPEN: char = '\u{F0000}';
/// See [`OPEN`].
pub(crate) const CLOSE: char = '\u{F0001}';
/// Both.
pub(crate) const MARKS: [char; 2] = [OPEN, CLOSE];

/// Returns what stands in a rendered text for a secret.
pub(crate) fn marked(name: &str, form: Form) -> String {
    format!("{OPEN}{}:{name}{CLOSE}", form.as_str())
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// What stands there for everybody.
    Text(String),
    /// What has to be opened.
    Sealed(Arc<Envelope>, #[serde(default)] Form),
}

/// The content of a file of which something is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Vec<Part>);

impl Sealed {
    /// A file that is encrypted as a whole.
    pub fn whole(bytes: Arc<[u8]>) -> Sealed {
        Sealed(vec![Part::Sealed(Arc::new(Envelope::Age(bytes.into())), Form::Plain)])
    }

    /// What one envelope holds, alone.
    pub fn of(envelope: &Arc<Envelope>) -> Sealed {
        Sealed(vec![Part::Sealed(Arc::clone(envelope), Form::Plain)])
    }

    /// Takes a rendered text apart at its secrets; `None` where it has none.
    pub(crate) fn rendered(text: &str, secrets: &Secrets) -> Option<Sealed> {
        let mut rest = text;
        let mut parts = Vec::new();
        while let Some((before, inner)) = rest.split_once(OPEN) {
            let (secret, behind) = inner.split_once(CLOSE)?;
            let (form, name) = secret.split_once(':')?;
            let form = Form::ALL.into_iter().find(|it| it.as_str() == form)?;
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::Sealed(Arc::clone(&secrets.get(name)?.envelope), form));
            rest = behind;
        }
        if parts.is_empty() {
            return None;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        Some(Sealed(parts))
    }

    /// Iterates over what has to be opened for it.
    pub fn envelopes(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Sealed(envelope, _) => Some(envelope),
        })
    }

    /// Digests it as it stands in the repository: the same for everybody, and of no use to who guesses.
    pub fn digest(&self) -> Digest {
        let mut fields = Fields::default();
        for part in &self.0 {
            match part {
                Part::Text(text) => fields.add("text", text.as_bytes()),
                Part::Sealed(envelope, form) => fields.add(form.as_str(), envelope.digest().to_string().as_bytes()),
            };
        }
        fields.finish()
    }
}

/// Who can open something, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Marks of keys of ssh, see [`mark`].
    pub marks: Vec<String>,
    /// How many keys of age itself, which stay unnamed.
    pub unnamed: usize,
    /// Whether somebody else can, with a passphrase or a plugin.
    pub others: bool,
}

impl Readers {
    /// Says whether a key of ssh (`ssh-ed25519 AAAA…`) is among them.
    pub fn has(&self, key: &str) -> bool {
        mark(key).is_some_and(|mark| self.marks.contains(&mark))
    }
}

/// Why something is not what age makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// It is not encrypted at all.
    Plain,
    /// It once was, and cannot be read.
    Damaged(&'static str),
}

impl fmt::Display for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsealed::Plain => f.write_str("it is not encrypted"),
            Unsealed::Damaged(why) => write!(f, "it is damaged: {why}"),
        }
    }
}

/// Returns the mark that age puts beside what it encrypts for a key of ssh: the first four bytes of the SHA-256 of its encoding.
pub fn mark(key: &str) -> Option<String> {
    let blob = STANDARD.decode(key.split_whitespace().nth(1)?).ok()?;
    Some(STANDARD_NO_PAD.encode(&Sha256::digest(blob)[..4]))
}

/// Reads for whom something is encrypted.
///
/// # Errors
/// It is not encrypted, or damaged.
pub fn readers(bytes: &[u8]) -> Result<Readers, Unsealed> {
    let start = bytes.trim_ascii_start();
    if start.starts_with(BEGIN.as_bytes()) {
        let text = std::str::from_utf8(start).map_err(|_| Unsealed::Damaged("it is not text"))?;
        return of_header(&armoured(text)?);
    }
    if !bytes.starts_with(VERSION) {
        return Err(Unsealed::Plain);
    }
    of_header(bytes)
}

/// Says whether a text is in age's armour, or was meant to be.
pub fn is_armoured(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

fn armoured(text: &str) -> Result<Vec<u8>, Unsealed> {
    let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let body = body.ok_or(Unsealed::Damaged("its last line is missing"))?;
    let packed: String = body.split_ascii_whitespace().collect();
    let bytes = STANDARD
        .decode(packed)
        .map_err(|_| Unsealed::Damaged("what stands between its first and last line is not base64"))?;
    if bytes.starts_with(VERSION) { Ok(bytes) } else { Err(Unsealed::Damaged("it is of another version of age")) }
}

/// Reads the recipients ("stanzas") of a header, up to the line that ends it.
fn of_header(bytes: &[u8]) -> Result<Readers, Unsealed> {
    let mut readers = Readers::default();
    for line in bytes[VERSION.len()..].split(|byte| *byte == b'\n') {
        if line.starts_with(b"---") {
            return match readers.marks.is_empty() && readers.unnamed == 0 && !readers.others {
                true => Err(Unsealed::Damaged("it is for nobody")),
                false => Ok(readers),
            };
        }
        let line = std::str::from_utf8(line).map_err(|_| Unsealed::Damaged("its header has no end"))?;
        let Some(stanza) = line.strip_prefix("-> ") else { continue };
        match stanza.split(' ').collect::<Vec<_>>()[..] {
            ["ssh-ed25519" | "ssh-rsa", mark, ..] => readers.marks.push(mark.to_owned()),
            ["X25519", ..] => readers.unnamed += 1,
            // Of a plugin, of a passphrase, or one that means nothing, so that no reader takes the form for fixed: no host opens it.
            _ => readers.others |= !stanza.contains("-grease"),
        }
    }
    Err(Unsealed::Damaged("its header has no end"))
}

/// A value of a file in secrets/.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Where it is.
    pub envelope: Arc<Envelope>,
    /// Who can read it.
    pub readers: Readers,
    /// Where it was written.
    pub location: Location,
}

/// Values by their names.
pub type Secrets = BTreeMap<String, Secret>;
