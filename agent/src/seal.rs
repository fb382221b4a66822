//! Opens what is encrypted for this host, with the key that it signs with or one of age's own. What is opened is kept in memory, and wiped
//! when it is not needed any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::rand_core::RngCore as _;
use aes_gcm::aead::{Aead as _, KeyInit as _, OsRng, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Key};
use age::armor::ArmoredReader;
use age::{Decryptor, Identity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::DumpableBehavior;
use sha2::{Digest as _, Sha256, Sha512};
use spec::digest::Digest;
use spec::manifest::{self, Sops};
use spec::sealed::{Envelope, Form, MOST_BYTES, Part, Sealed};
use zeroize::Zeroizing;

use crate::identity::PLACES;
use crate::settings::Settings;

/// Where a key of age's own is looked for, beside those of ssh.
const AGE: &str = "/etc/mainstay/age.key";
/// A file that is larger holds no key.
const MOST_KEY: u64 = 64 << 10;
/// The file with what digests of contents are made with, in the state folder: whoever has neither it nor the secret cannot try guesses.
const LABEL: &str = "secrets.key";
/// What these digests are for.
const PURPOSE: &[u8] = b"mainstay: digests of secrets";

/// Something that was opened.
pub type Opened = Zeroizing<Vec<u8>>;

/// Why something cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// This host has no key.
    #[error("there is no key here that could open it: {0}")]
    NoKey(String),
    /// It is for others.
    #[error(
        "it is encrypted for other keys than are here{}: `mainstay secret rekey`, by somebody who can open it, adds those of fleet.yaml",
        among(unusable)
    )]
    NotForUs {
        /// Files with keys that cannot be used, and why.
        unusable: Vec<String>,
    },
    /// It is damaged, or somebody changed it.
    #[error("{0}")]
    Damaged(String),
    /// It cannot stand where it is wanted.
    #[error("it holds a line break, and stands in a file in which every line has a meaning of its own")]
    LeavesLine,
}

/// Says which keys were not tried.
fn among(unusable: &[String]) -> String {
    if unusable.is_empty() { String::new() } else { format!(" and can be used ({})", unusable.join("; ")) }
}

/// Opens what is encrypted, once.
pub struct Opener {
    /// Where keys may be.
    paths: Vec<PathBuf>,
    /// What these files were when they were read.
    stamps: Vec<Option<Stamp>>,
    keys: Vec<Box<dyn Identity + Send + Sync>>,
    /// Files with keys that cannot be used, and why.
    unusable: Vec<String>,
    /// What digests are made with.
    label: Zeroizing<[u8; 32]>,
    /// That is in a file.
    is_remembered: bool,
    known: BTreeMap<Digest, Arc<Opened>>,
    /// The values of files of SOPS, by the digests of the files: each was checked as a whole.
    files: BTreeMap<Digest, Arc<BTreeMap<Vec<String>, Opened>>>,
}

/// Keeps what is in this memory out of core dumps: the unit's `LimitCORE=0` is not asked where one is piped to a program (core(5)).
pub fn leave_no_core() {
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process would hold what is secret");
    }
}

impl Opener {
    /// Finds this host's keys. It may have none: then nothing can be opened, which is told where something has to be.
    pub fn find(settings: &Settings) -> Opener {
        let own: Vec<PathBuf> = match &settings.identity {
            Some(path) => vec![path.clone()],
            None => PLACES.iter().map(PathBuf::from).collect(),
        };
        let paths: Vec<PathBuf> = own.into_iter().chain([PathBuf::from(AGE)]).collect();
        let opener = Opener::any(&paths);
        let label = fs::read(settings.state.join(LABEL)).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Opener { label: label.map_or(opener.label, Zeroizing::new), ..opener }
    }

    /// Keeps what digests are made with, so that what is remembered of secrets holds after a restart.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn remember(&mut self, state: &Path) -> io::Result<()> {
        if self.is_remembered {
            return Ok(());
        }
        let path = state.join(LABEL);
        match fs::read(&path).map(<[u8; 32]>::try_from) {
            Ok(Ok(label)) => {
                self.label = Zeroizing::new(label);
                self.is_remembered = true;
                return Ok(());
            }
            // What is damaged is worth nothing; what cannot be read now may be read later.
            Ok(Err(_)) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut new = tempfile::NamedTempFile::new_in(state)?;
        new.write_all(&*self.label)?;
        new.as_file().sync_all()?;
        new.persist_noclobber(path).map_err(|error| error.error)?;
        self.is_remembered = true;
        Ok(())
    }

    /// Opens with the keys of those of these files that are there and can be used, as people have them in several places.
    pub fn any(paths: &[PathBuf]) -> Opener {
        leave_no_core();
        let mut label = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *label);
        let mut opener = Opener {
            paths: paths.to_vec(),
            stamps: Vec::new(),
            keys: Vec::new(),
            unusable: Vec::new(),
            label,
            is_remembered: false,
            known: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        opener.look();
        opener
    }

    /// Reads the keys, unless they are those that were read. Says whether they were.
    fn look(&mut self) -> bool {
        let stamps: Vec<Option<Stamp>> = self.paths.iter().map(|path| stamp(path)).collect();
        if stamps == self.stamps {
            return false;
        }
        self.keys.clear();
        self.unusable.clear();
        for (path, _) in self.paths.iter().zip(&stamps).filter(|(_, stamp)| stamp.is_some()) {
            match key(path) {
                Ok(found) => self.keys.extend(found),
                Err(error) => self.unusable.push(format!("{}: {error}", path.display())),
            }
        }
        self.stamps = stamps;
        true
    }

    /// Opens a file.
    ///
    /// # Errors
    /// The first part of it that cannot be opened.
    pub fn open(&mut self, sealed: &Sealed) -> Result<Opened, Unopened> {
        let mut parts = Vec::new();
        for part in &sealed.0 {
            parts.push(match part {
                Part::Text(_) => None,
                Part::Sealed(envelope, _) => Some(self.envelope(envelope)?),
            });
        }
        let size = |(part, opened): (&Part, &Option<Arc<Opened>>)| match (part, opened) {
            (Part::Text(text), _) => text.len(),
            (Part::Sealed(_, Form::Base64), Some(opened)) => opened.len().div_ceil(3) * 4,
            (Part::Sealed(..), opened) => opened.as_ref().map_or(0, |it| it.len()),
        };
        let size = sealed.0.iter().zip(&parts).map(size).sum();
        if size > MOST_BYTES {
            return Err(Unopened::Damaged("what it would be is larger than 1 MiB".to_owned()));
        }
        // All at once: what a vector grows out of is not wiped.
        let mut content = Zeroizing::new(Vec::with_capacity(size));
        for (part, opened) in sealed.0.iter().zip(parts) {
            match (part, opened) {
                (Part::Text(text), _) => content.extend_from_slice(text.as_bytes()),
                (Part::Sealed(..), None) => {}
                (Part::Sealed(_, form), Some(opened)) => match form {
                    Form::Plain => content.extend_from_slice(&opened),
                    Form::Line if leaves_line(&opened) => {
                        return Err(Unopened::LeavesLine);
                    }
                    Form::Line => content.extend_from_slice(&opened),
                    Form::Base64 => {
                        let text = Zeroizing::new(STANDARD.encode(&**opened));
                        content.extend_from_slice(text.as_bytes());
                    }
                },
            }
        }
        Ok(content)
    }

    /// Digests a content so that equal ones have equal digests, and nobody without this host's key can try guesses.
    pub fn digest(&self, content: &[u8]) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.label).expect("a key may have any length");
        mac.update(PURPOSE);
        mac.update(content);
        Digest::from_bytes(mac.finalize().into_bytes().into())
    }

    /// Forgets, and wipes, what none of these needs.
    pub fn keep_only<'s>(&mut self, needed: impl Iterator<Item = &'s Sealed>) {
        let needed: std::collections::BTreeSet<Digest> =
            needed.flat_map(Sealed::envelopes).map(|envelope| envelope.digest()).collect();
        self.known.retain(|digest, _| needed.contains(digest));
        // Whoever needs one of their values has it.
        self.files.clear();
    }

    fn envelope(&mut self, envelope: &Envelope) -> Result<Arc<Opened>, Unopened> {
        let digest = envelope.digest();
        if let Some(known) = self.known.get(&digest) {
            return Ok(Arc::clone(known));
        }
        // What cannot be opened is tried again: a key may be there by then.
        let opened = match self.unseal(envelope) {
            Err(Unopened::NoKey(_) | Unopened::NotForUs { .. }) if self.look() => self.unseal(envelope),
            opened => opened,
        };
        let opened = Arc::new(opened?);
        self.known.insert(digest, Arc::clone(&opened));
        Ok(opened)
    }

    fn unseal(&mut self, envelope: &Envelope) -> Result<Opened, Unopened> {
        match envelope {
            Envelope::Age(blob) => self.age(&blob.bytes),
            Envelope::Sops { file, path, .. } => {
                let none = || Unopened::Damaged("its file does not hold it".to_owned());
                self.sops(&file.bytes)?.get(path).cloned().ok_or_else(none)
            }
        }
    }

    /// Opens a file of SOPS as a whole, once.
    fn sops(&mut self, file: &[u8]) -> Result<Arc<BTreeMap<Vec<String>, Opened>>, Unopened> {
        let digest = Digest::of(file);
        if let Some(values) = self.files.get(&digest) {
            return Ok(Arc::clone(values));
        }
        let text = std::str::from_utf8(file).map_err(|_| Unopened::Damaged("it is not UTF-8".to_owned()))?;
        let sops = manifest::sops(text).map_err(Unopened::Damaged)?;
        let key = self.data_key(&sops)?;
        let values = Arc::new(verify(&sops, &key)?);
        self.files.insert(digest, Arc::clone(&values));
        Ok(values)
    }

    fn age(&self, bytes: &[u8]) -> Result<Opened, Unopened> {
        if self.keys.is_empty() {
            let all: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Unopened::NoKey(match self.unusable.is_empty() {
                true => format!("there is none of {}", all.join(", ")),
                false => self.unusable.join("; "),
            }));
        }
        if bytes.len() > MOST_BYTES {
            return Err(Unopened::Damaged("it is larger than 1 MiB".to_owned()));
        }
        let bytes =
            if spec::sealed::is_armoured(&String::from_utf8_lossy(bytes)) { bytes.trim_ascii_start() } else { bytes };
        let damaged = |error: &dyn std::fmt::Display| Unopened::Damaged(format!("it cannot be opened: {error}"));
        let decryptor = Decryptor::new(ArmoredReader::new(bytes)).map_err(|error| damaged(&error))?;
        let all = self.keys.iter().map(|key| &**key as &dyn Identity);
        let reader = match decryptor.decrypt(all) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => {
                return Err(Unopened::NotForUs { unusable: self.unusable.clone() });
            }
            Err(error) => return Err(damaged(&error)),
        };
        let mut content = Zeroizing::new(Vec::with_capacity(bytes.len()));
        reader.take(MOST_BYTES as u64).read_to_end(&mut content).map_err(|error| damaged(&error))?;
        Ok(content)
    }

    /// Opens the key of a file of SOPS.
    fn data_key(&self, sops: &Sops) -> Result<Opened, Unopened> {
        let mut why = Unopened::NotForUs { unusable: self.unusable.clone() };
        for sealed in &sops.keys {
            match self.age(sealed.as_bytes()) {
                Ok(key) if key.len() == 32 => return Ok(key),
                Ok(_) => why = Unopened::Damaged("its key has no 32 bytes".to_owned()),
                Err(Unopened::NotForUs { .. }) => {}
                Err(other) => why = other,
            }
        }
        Err(why)
    }
}

/// Says whether what is behind something would be read as part of it, or it as more than one line.
pub fn leaves_line(content: &[u8]) -> bool {
    content.contains(&b'\n') || content.contains(&b'\r') || content.ends_with(b"\\")
}

/// What tells that a file is another one than before: when it was changed, and which it is.
type Stamp = (i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.ctime(), found.ctime_nsec(), found.ino()))
}

/// Reads the keys of a file: of ssh, or of age.
fn key(path: &Path) -> Result<Vec<Box<dyn Identity + Send + Sync>>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MOST_KEY {
        return Err(format!("it has {size} bytes, which no key has"));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| error.to_string())?);
    if text.contains("PRIVATE KEY") {
        return match age::ssh::Identity::from_buffer(io::BufReader::new(text.as_bytes()), None) {
            Ok(age::ssh::Identity::Unencrypted(key)) => Ok(vec![Box::new(age::ssh::Identity::Unencrypted(key))]),
            Ok(age::ssh::Identity::Encrypted(_)) => {
                Err("a passphrase protects it, and nobody is there to type it".to_owned())
            }
            Ok(age::ssh::Identity::Unsupported(_)) => Err("it is of a type that age does not know".to_owned()),
            Err(error) => Err(error.to_string()),
        };
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let found: Result<Vec<Box<dyn Identity + Send + Sync>>, String> = lines
        .map(|line| {
            let key: age::x25519::Identity = line.parse().map_err(|why: &str| why.to_owned())?;
            Ok(Box::new(key) as Box<dyn Identity + Send + Sync>)
        })
        .collect();
    let found = found?;
    if found.is_empty() { Err("it holds no key".to_owned()) } else { Ok(found) }
}

/// Decrypts the values of a file of SOPS, and checks by what it says of all of them together that nobody changed it.
fn verify(sops: &Sops, key: &Opened) -> Result<BTreeMap<Vec<String>, Opened>, Unopened> {
    let (mut all, mut values) = (Sha512::new(), BTreeMap::new());
    for (path, value) in &sops.values {
        let opened = decrypt(key, value, &place(path))?;
        all.update(&*opened);
        values.insert(path.clone(), opened);
    }
    let said = decrypt(key, &sops.mac, &sops.last_modified)?;
    let found = hex::encode_upper(all.finalize());
    match said.as_slice() == found.as_bytes() {
        true => Ok(values),
        false => Err(Unopened::Damaged(
            "somebody changed its file without SOPS: its `mac` is that of another one".to_owned(),
        )),
    }
}

/// Writes the keys that lead to a value as SOPS binds it to its place.
fn place(path: &[String]) -> String {
    path.iter().map(|key| format!("{key}:")).collect()
}

/// Decrypts a value of SOPS: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:str]`.
fn decrypt(key: &Opened, value: &str, place: &str) -> Result<Opened, Unopened> {
    let odd = || Unopened::Damaged("it is not in the form of SOPS".to_owned());
    let inner = value.strip_prefix("ENC[AES256_GCM,").and_then(|rest| rest.strip_suffix(']')).ok_or_else(odd)?;
    let field =
        |name: &str| inner.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix(':')).ok_or_else(odd);
    let bytes = |name| STANDARD.decode(field(name)?).map_err(|_| odd());
    let (mut data, iv, tag) = (bytes("data")?, bytes("iv")?, bytes("tag")?);
    if iv.len() != 32 || tag.len() != 16 {
        return Err(odd());
    }
    data.extend_from_slice(&tag);
    let cipher = AesGcm::<Aes256, U32>::new(Key::<Aes256>::from_slice(key));
    let payload = Payload { msg: &data, aad: place.as_bytes() };
    let opened = cipher.decrypt(GenericArray::from_slice(&iv), payload);
    opened
        .map(Zeroizing::new)
        .map_err(|_| Unopened::Damaged("somebody changed it, or moved it to another place".to_owned()))
}

/// Encrypts for some keys, as a text.
///
/// # Errors
/// There are none, or one of them is no key.
pub fn seal(content: &[u8], recipients: &[String]) -> Result<String, String> {
    let keys: Vec<Box<dyn age::Recipient + Send>> =
        recipients.iter().map(|key| recipient(key)).collect::<Result<_, _>>()?;
    let all = keys.iter().map(|key| &**key as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(all).map_err(|error| error.to_string())?;
    let sealed = || -> io::Result<Vec<u8>> {
        let armour = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armour)?;
        writer.write_all(content)?;
        writer.finish()?.finish()
    };
    let sealed = sealed().map_err(|error| error.to_string())?;
    String::from_utf8(sealed).map_err(|error| error.to_string())
}

fn recipient(key: &str) -> Result<Box<dyn age::Recipient + Send>, String> {
    if key.starts_with("age1") {
        let key: age::x25519::Recipient = key.parse().map_err(|why: &str| format!("{key}: {why}"))?;
        return Ok(Box::new(key));
    }
    let read: age::ssh::Recipient = key.parse().map_err(|_| format!("age does not encrypt for {key}"))?;
    Ok(Box::new(read))
}

#[cfg(test)]
pub(crate) mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    /// Keys of age's own that were made up: the file, and the public half.
    pub(crate) fn made_up(folder: &Path, name: &str) -> (PathBuf, String) {
        let key = age::x25519::Identity::generate();
        let path = folder.join(name);
        fs::write(&path, format!("# ours\n{}\n", key.to_string().expose_secret())).expect("written");
        (path, key.to_public().to_string())
    }

    pub(crate) fn whole(text: &str) -> Sealed {
        Sealed::whole(text.as_bytes().into())
    }

    #[test]
    fn what_is_sealed_is_opened_by_whom_it_is_for_and_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, our_key) = made_up(folder.path(), "ours");
        let (theirs, their_key) = made_up(folder.path(), "theirs");
        let ssh = folder.path().join("ssh");
        fs::write(&ssh, crate::identity::made_up_text(1).as_bytes()).expect("written");
        let ssh_key = crate::identity::made_up(1).public().to_owned();
        let sealed = seal(b"hunter2\n", &[our_key, ssh_key.clone()]).expect("sealed");
        assert!(spec::sealed::readers(sealed.as_bytes()).expect("it is sealed").has(&ssh_key));
        for path in [&ours, &ssh] {
            let mut opener = Opener::any(std::slice::from_ref(path));
            assert_eq!(opener.open(&whole(&sealed)).expect("opened").as_slice(), b"hunter2\n");
        }
        let mut others = Opener::any(&[theirs]);
        assert_eq!(others.open(&whole(&sealed)), Err(Unopened::NotForUs { unusable: Vec::new() }));
        // A key that is put there later is found, and one that cannot be used is named.
        let late = folder.path().join("late");
        let mut opener = Opener::any(std::slice::from_ref(&late));
        assert!(matches!(opener.open(&whole(&sealed)), Err(Unopened::NoKey(_))));
        fs::write(&late, "no key\n").expect("written");
        let none = opener.open(&whole(&sealed)).expect_err("it is no key").to_string();
        assert!(none.contains("late: "), "{none}");
        fs::copy(&ours, &late).expect("copied");
        assert_eq!(opener.open(&whole(&sealed)).expect("opened").as_slice(), b"hunter2\n");
        let cut = &sealed[..sealed.len() / 2];
        assert!(matches!(Opener::any(std::slice::from_ref(&ours)).open(&whole(cut)), Err(Unopened::Damaged(_))));
        assert!(matches!(Opener::any(&[folder.path().join("none")]).open(&whole(&sealed)), Err(Unopened::NoKey(_))));
        assert!(seal(b"", &[]).is_err() && seal(b"", &["age1x".to_owned(), their_key]).is_err());
        // Equal contents have equal digests here, whatever becomes of the keys, and nowhere else.
        let state = folder.path().to_owned();
        let digest = |identity: &PathBuf| {
            let settings = Settings { state: state.clone(), identity: Some(identity.clone()), ..Settings::default() };
            let mut opener = Opener::find(&settings);
            opener.remember(&state).expect("kept");
            opener.digest(b"hunter2\n")
        };
        assert_eq!((digest(&ours), digest(&folder.path().join("none"))), (digest(&ssh), digest(&ssh)));
        assert!(digest(&ours) != Digest::of(b"hunter2\n"));
        assert_ne!(Opener::any(std::slice::from_ref(&ours)).digest(b"x"), Opener::any(&[ours]).digest(b"x"));
    }

    #[test]
    fn parts_are_put_together_and_stay_in_their_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, key) = made_up(folder.path(), "key");
        let envelope = |text: &str| {
            let sealed = seal(text.as_bytes(), std::slice::from_ref(&key)).expect("sealed");
            Arc::new(Envelope::Age(Arc::<[u8]>::from(sealed.into_bytes()).into()))
        };
        let file = |text: &str, form| {
            Sealed(vec![Part::Text("A=".to_owned()), Part::Sealed(envelope(text), form), Part::Text("\n".to_owned())])
        };
        let mut opener = Opener::any(&[path]);
        let mut open =
            |text: &str, form| opener.open(&file(text, form)).map(|it| String::from_utf8_lossy(&it).into_owned());
        assert_eq!(open("x y", Form::Line).expect("opened"), "A=x y\n");
        assert_eq!(open("x\ny", Form::Plain).expect("opened"), "A=x\ny\n");
        assert_eq!(open("x\ny", Form::Base64).expect("opened"), "A=eAp5\n");
        for text in ["x\nB=1", "x\r", "x\\"] {
            assert_eq!(open(text, Form::Line), Err(Unopened::LeavesLine), "{text:?}");
        }
    }

    /// Encrypts as SOPS does.
    fn encrypted(key: &[u8], text: &str, place: &str) -> String {
        let cipher = AesGcm::<Aes256, U32>::new(Key::<Aes256>::from_slice(key));
        let iv = [7; 32];
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let mut data = cipher.encrypt(GenericArray::from_slice(&iv), payload).expect("encrypted");
        let tag = data.split_off(data.len() - 16);
        let [data, iv, tag] = [&data[..], &iv, &tag].map(|bytes| STANDARD.encode(bytes));
        format!("ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:str]")
    }

    #[test]
    fn files_of_sops_are_opened_as_long_as_nobody_changed_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, public) = made_up(folder.path(), "key");
        let key = [5; 32];
        let at = "2026-11-23T05:00:00Z";
        let mac = hex::encode_upper(Sha512::digest(b"hunter2smith"));
        let enc = seal(&key, &[public])
            .expect("sealed")
            .lines()
            .fold(String::new(), |all, line| all + "          " + line + "\n");
        let file = format!(
            "db: {}\nmail:\n  user: {}\nempty: \"\"\nsops:\n  age:\n    - recipient: age1x\n      enc: |\n{enc}  lastmodified: \"{at}\"\n  mac: {}\n",
            encrypted(&key, "hunter2", "db:"),
            encrypted(&key, "smith", "mail:user:"),
            encrypted(&key, &mac, at)
        );
        let open = |file: &str, path: &[&str]| {
            let keys: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
            let value = manifest::sops(file)
                .expect("one of SOPS")
                .values
                .into_iter()
                .find(|(at, _)| *at == keys)
                .map(|(_, it)| it);
            let envelope = Envelope::Sops {
                file: Arc::<[u8]>::from(file.as_bytes()).into(),
                path: keys,
                value: value.unwrap_or_default(),
            };
            let sealed = Sealed(vec![Part::Sealed(Arc::new(envelope), Form::Plain)]);
            Opener::any(&[folder.path().join("key")]).open(&sealed).map(|it| String::from_utf8_lossy(&it).into_owned())
        };
        assert_eq!(open(&file, &["db"]).expect("opened"), "hunter2");
        assert_eq!(open(&file, &["mail", "user"]).expect("opened"), "smith");
        // A value in another place, one that is gone, and one that was put there in its place.
        let [one, other] =
            ["db: ", "  user: "].map(|name| file.lines().find_map(|line| line.strip_prefix(name)).expect("a value"));
        let swapped = file.replace(one, "-").replace(other, one).replace("db: -", &format!("db: {other}"));
        for changed in [
            swapped,
            file.replace(&format!("  user: {other}"), "  user: \"\""),
            file.replace(at, "2026-11-23T06:00:00Z"),
        ] {
            assert!(
                matches!(open(&changed, &["db"]), Err(Unopened::Damaged(why)) if why.contains("somebody changed")),
                "{changed}"
            );
        }
        drop(path);
    }
}
