//! Who may sign: a file in the form of OpenSSH's `allowed_signers` (ssh-keygen(1), ALLOWED SIGNERS), as `git` and `ssh-keygen -Y verify`
//! read it, or certificates for OpenPGP in their armour.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use jiff::civil::DateTime;
use sha2::{Digest as _, Sha256};

use super::openpgp;
use crate::id::shown;

/// A public key's fingerprint, as `ssh-keygen -l` prints it: `SHA256:` and 43 characters; or `openpgp:` and the fingerprint's hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Makes that of an SSH public key, in the encoding of RFC 4253, section 6.6.
    pub fn of_ssh(blob: &[u8]) -> Fingerprint {
        Fingerprint(format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob))))
    }

    /// Makes that of a key for OpenPGP (RFC 9580, section 5.5.4).
    pub fn of_openpgp(fingerprint: &[u8]) -> Fingerprint {
        Fingerprint(format!("openpgp:{}", hex::encode_upper(fingerprint)))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Whom people know by it, as it is written: usually an e-mail address.
    pub principals: String,
    /// The key.
    pub key: Fingerprint,
    /// For what it may sign, as patterns; everything where there are none.
    pub namespaces: Vec<String>,
    /// From when, and until when, its signatures count.
    pub valid: (Option<Timestamp>, Option<Timestamp>),
    /// The key itself, where a signature does not bring it along.
    pub(super) openpgp: Option<Arc<openpgp::Key>>,
}

impl Signer {
    /// Says why a signature of this key does not count that was made for `namespace` at a moment, if it does not.
    pub fn objection(&self, namespace: &str, at: Timestamp) -> Option<String> {
        if !self.namespaces.is_empty() && !is_listed(&self.namespaces, namespace) {
            return Some(format!("may sign for {} and not for `{namespace}`", self.namespaces.join(", ")));
        }
        match self.valid {
            (Some(after), _) if at < after => Some(format!("may not sign before {after}")),
            (_, Some(before)) if at >= before => Some(format!("may not sign since {before}")),
            _ => None,
        }
    }
}

impl Signer {
    /// Says whether its signatures count only later than at a moment.
    pub fn is_early(&self, at: Timestamp) -> bool {
        self.valid.0.is_some_and(|after| at < after)
    }
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: bytes of the file.
    pub extent: std::ops::Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: &'static str,
    /// It does no harm.
    pub is_warning: bool,
}

const FORM: &str = "write a line as `ssh-keygen -Y verify` reads it: alice@example.com ssh-ed25519 AAAA…";
const BLOCK: &str = "export the certificates again: gpg --export --armor alice@example.com";
const PRIVATE: (&str, &str) =
    ("this is a private key", "replace this key everywhere: whoever reads the repository has it");
const OPTIONS: &str = "the options are namespaces=\"git\", valid-after=\"20260101Z\" and valid-before=\"20270101Z\"";

/// Reads a file: those who may sign, and every mistake in it.
pub fn read(text: &str) -> (Vec<Signer>, Vec<Mistake>) {
    let mut reader = Reader::default();
    let (mut signers, mistakes) = reader.read(text);
    reader.leave_out_revoked(&mut signers);
    (signers, mistakes)
}

/// Reads files that belong together.
#[derive(Default)]
pub struct Reader(openpgp::Reader);

impl Reader {
    /// Leaves out keys that any of the files says are revoked, where another one has them from before that.
    pub fn leave_out_revoked(&self, signers: &mut Vec<Signer>) {
        signers.retain(|signer| !self.0.has_revoked(&signer.key));
    }

    /// Reads one of the files.
    pub fn read(&mut self, text: &str) -> (Vec<Signer>, Vec<Mistake>) {
        read_one(text, &mut self.0)
    }
}

fn read_one(text: &str, certificates: &mut openpgp::Reader) -> (Vec<Signer>, Vec<Mistake>) {
    let (mut signers, mut mistakes) = (Vec::new(), Vec::new());
    let mut start = 0;
    while let Some(whole) = text[start..].split_inclusive('\n').next() {
        let line = whole.trim_end();
        let begin = start + line.len() - line.trim_start().len();
        start += whole.len();
        let line = line.trim_start();
        let mut wrong = |message: String, help, is_warning| {
            mistakes.push(Mistake { extent: begin..begin + line.len(), message, help, is_warning });
        };
        if line == openpgp::BEGIN {
            let Some(end) = end_of_block(text, begin, openpgp::END) else {
                wrong("this block has no end".to_owned(), BLOCK, false);
                break;
            };
            match openpgp::read(&text[begin..end], certificates) {
                Ok((found, unusable)) => {
                    signers.extend(found);
                    unusable
                        .into_iter()
                        .for_each(|why| wrong(why, "remove it, or export it again when it is mended", true));
                }
                Err(why) => wrong(why, BLOCK, false),
            }
            start = end;
        } else if line == openpgp::PRIVATE[0] {
            wrong(PRIVATE.0.to_owned(), PRIVATE.1, false);
            start = end_of_block(text, begin, openpgp::PRIVATE[1]).unwrap_or(text.len());
        } else if !line.is_empty() && !line.starts_with('#') {
            let mut reader = Line { rest: line, at: begin, mistakes: &mut mistakes };
            signers.extend(reader.signer());
        }
    }
    (signers, mistakes)
}

/// Returns where the line is over that ends a block.
fn end_of_block(text: &str, begin: usize, end: &str) -> Option<usize> {
    let found = begin + text[begin..].find(end)? + end.len();
    Some(text[found..].find('\n').map_or(text.len(), |rest| found + rest + 1))
}

struct Line<'t, 'm> {
    rest: &'t str,
    at: usize,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'t> Line<'t, '_> {
    fn wrong(&mut self, word: (usize, &str), message: impl Into<String>, help: &'static str) {
        let extent = word.0..word.0 + word.1.len();
        self.mistakes.push(Mistake { extent, message: message.into(), help, is_warning: false });
    }

    /// Takes the next word; blanks within double quotes are part of it.
    fn word(&mut self) -> Option<(usize, &'t str)> {
        let trimmed = self.rest.trim_start();
        self.at += self.rest.len() - trimmed.len();
        let mut is_quoted = false;
        let end = trimmed.find(|c: char| {
            is_quoted ^= c == '"';
            c.is_whitespace() && !is_quoted
        });
        let (word, rest) = trimmed.split_at(end.unwrap_or(trimmed.len()));
        let at = self.at;
        (self.at, self.rest) = (at + word.len(), rest);
        (!word.is_empty()).then_some((at, word))
    }

    fn signer(&mut self) -> Option<Signer> {
        let whole = (self.at, self.rest);
        let before = self.mistakes.len();
        if whole.1.contains("PRIVATE KEY") {
            self.wrong(whole, PRIVATE.0, PRIVATE.1);
            return None;
        }
        let principals = self.word()?;
        if is_key_type(principals.1) {
            self.wrong(principals, "this line does not say whose key it is", FORM);
            return None;
        }
        let Some(mut kind) = self.word() else {
            self.wrong(whole, "this line has no key", FORM);
            return None;
        };
        let (mut namespaces, mut valid) = (Vec::new(), (None, None));
        if !is_key_type(kind.1) && (kind.1.contains(['=', ',']) || kind.1.eq_ignore_ascii_case("cert-authority")) {
            for option in split(kind) {
                self.option(option, &mut namespaces, &mut valid);
            }
            let Some(next) = self.word() else {
                self.wrong(whole, "this line has no key", FORM);
                return None;
            };
            kind = next;
        }
        if !is_key_type(kind.1) {
            self.wrong(
                kind,
                format!("`{}` is no type of key that signs", shown(kind.1)),
                "ssh-ed25519, ecdsa-sha2-nistp256, ssh-rsa and the sk- types of security keys do",
            );
            return None;
        }
        let Some(data) = self.word() else {
            self.wrong(kind, "the key itself is missing behind its type", FORM);
            return None;
        };
        let key = match key(kind.1, data.1) {
            Ok(key) => key,
            Err(why) => {
                self.wrong(data, why, "copy the whole line of the .pub file");
                return None;
            }
        };
        let principals = principals.1.trim_matches('"').to_owned();
        (self.mistakes.len() == before || self.mistakes[before..].iter().all(|it| it.is_warning)).then_some(Signer {
            principals,
            key,
            namespaces,
            valid,
            openpgp: None,
        })
    }

    fn option(
        &mut self,
        option: (usize, &str),
        namespaces: &mut Vec<String>,
        valid: &mut (Option<Timestamp>, Option<Timestamp>),
    ) {
        let (name, value) = option.1.split_once('=').unwrap_or((option.1, ""));
        let value = value.trim_matches('"');
        match name.to_ascii_lowercase().as_str() {
            "namespaces" if !value.is_empty() => *namespaces = value.split(',').map(str::to_owned).collect(),
            "valid-after" => valid.0 = self.moment(option, value),
            "valid-before" => valid.1 = self.moment(option, value),
            "cert-authority" => self.wrong(
                option,
                "keys that are vouched for by a certificate authority are not supported",
                "name the key of each person who signs",
            ),
            _ => self.wrong(option, format!("`{}` is no option of a signer", shown(option.1)), OPTIONS),
        }
    }

    /// Reads `YYYYMMDD[HHMM[SS]][Z]`. Without `Z` it is the zone of whoever reads it, which is another one on each host.
    fn moment(&mut self, option: (usize, &str), value: &str) -> Option<Timestamp> {
        let digits = value.strip_suffix(['Z', 'z']).unwrap_or(value);
        let form = match digits.len() {
            8 => "%Y%m%d",
            12 => "%Y%m%d%H%M",
            14 => "%Y%m%d%H%M%S",
            _ => "",
        };
        let at = match form {
            "%Y%m%d" => jiff::civil::Date::strptime(form, digits).map(|date| date.at(0, 0, 0, 0)),
            form => DateTime::strptime(form, digits),
        };
        let at = at.ok().filter(|_| !form.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
        let at = at.and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok()).map(|at| at.timestamp());
        match at {
            None => {
                self.wrong(option, format!("`{}` is no date", shown(value)), "write it as 20260131Z, or 202601312359Z");
            }
            Some(_) if digits.len() == value.len() => self.mistakes.push(Mistake {
                extent: option.0..option.0 + option.1.len(),
                message: "this date has no zone: it is taken for UTC here, and for local time by ssh-keygen".to_owned(),
                help: "write a `Z` behind it",
                is_warning: true,
            }),
            Some(_) => {}
        }
        at
    }
}

/// Takes options apart at the commas outside of quotes.
fn split((at, text): (usize, &str)) -> Vec<(usize, &str)> {
    let (mut options, mut begin, mut is_quoted) = (Vec::new(), 0, false);
    for (offset, c) in text.char_indices().chain([(text.len(), ',')]) {
        is_quoted ^= c == '"';
        if c == ',' && (!is_quoted || offset == text.len()) {
            options.push((at + begin, &text[begin..offset]));
            begin = offset + 1;
        }
    }
    options
}

/// The types of keys whose signatures are checked.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

fn is_key_type(word: &str) -> bool {
    TYPES.contains(&word)
}

/// Checks that a key is one of its type, and returns its fingerprint.
///
/// # Errors
/// It is damaged, or too weak to prove anything.
pub(crate) fn key(kind: &str, data: &str) -> Result<Fingerprint, String> {
    let blob = STANDARD.decode(data).map_err(|_| "the key is damaged: it is not base64".to_owned())?;
    let mut fields = Fields(&blob);
    let inner = fields.next().ok_or("the key is damaged: it is too short")?;
    if inner != kind.as_bytes() {
        return Err(format!("the key is of type `{}` inside", shown(&String::from_utf8_lossy(inner))));
    }
    match kind {
        "ssh-ed25519" | "sk-ssh-ed25519@openssh.com" => {
            fields.next().filter(|key| key.len() == 32).ok_or("the key is damaged: it has no 32 bytes")?;
        }
        "ssh-rsa" => {
            let modulus = fields.next().and_then(|_| fields.next()).ok_or("the key is damaged: it is too short")?;
            let bits = 8 * modulus.iter().skip_while(|byte| **byte == 0).count();
            if bits > 4096 {
                return Err(format!("the key has {bits} bits, and RSA keys of more than 4096 are not checked"));
            }
            if bits < 2048 {
                return Err(format!(
                    "the key has {bits} bits, and an RSA key of less than 2048 proves nothing any more"
                ));
            }
        }
        _ => {
            fields.next().and_then(|_| fields.next()).ok_or("the key is damaged: it is too short")?;
        }
    }
    Ok(Fingerprint::of_ssh(&blob))
}

/// The strings of an SSH encoding (RFC 4251, section 5).
struct Fields<'b>(&'b [u8]);

impl<'b> Iterator for Fields<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}

/// Says whether a list of patterns holds a word: `*` and `?` stand for any characters, `!` excludes (ssh_config(5), PATTERNS).
fn is_listed(patterns: &[String], word: &str) -> bool {
    let excluded = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    let mut named = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
    !excluded.into_iter().any(|pattern| matches(pattern, word)) && named.any(|pattern| matches(pattern, word))
}

fn matches(pattern: &str, word: &str) -> bool {
    match (pattern.chars().next(), word.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = pattern.trim_start_matches('*');
            rest.is_empty() || word.char_indices().any(|(at, _)| matches(rest, &word[at..]))
        }
        (Some('?'), Some(c)) => matches(&pattern[1..], &word[c.len_utf8()..]),
        (Some(a), Some(b)) if a == b => matches(&pattern[a.len_utf8()..], &word[b.len_utf8()..]),
        _ => false,
    }
}
