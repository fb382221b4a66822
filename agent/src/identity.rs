//! Who a host is to the others: the key that it signs with what it says, and whether a text is what the owner of a key said.
//!
//! A signature is one of OpenSSH (PROTOCOL.sshsig) over the name of the fleet, the end of a line, and the text; it stands behind the
//! text, from a line on that begins with [`SIGNATURE`]. The namespace keeps apart what is said in different places.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::record::{Record, signed_part};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};
use tracing::warn;

use crate::settings::Settings;

/// The namespace of a record.
pub const RECORD: &str = "mainstay-record";
/// The namespace of a sign of life.
pub const SEEN: &str = "mainstay-seen";
/// Where the key is looked for unless the settings name one: made by `mainstay install`, or the host's own for ssh.
pub const PLACES: [&str; 2] = ["/etc/mainstay/identity", "/etc/ssh/ssh_host_ed25519_key"];
/// A file that is larger holds no key.
const MOST: u64 = 64 << 10;

/// Why a host cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("failed to read this host's key in {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds no key that can be used.
    #[error("{} holds no key that this host can sign with: {why}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Why a text does not count as said by somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// Nobody signed it.
    #[error("it is not signed")]
    Missing,
    /// The signature cannot be read, or is not one over this text.
    #[error("its signature does not hold")]
    Broken,
    /// Somebody else did.
    #[error("it is signed with another key than fleet.yaml names")]
    OtherKey,
    /// The key in fleet.yaml cannot be read.
    #[error("the key that fleet.yaml names cannot be read")]
    NoKey,
}

/// The key of a host.
pub struct Identity {
    key: PrivateKey,
    public: String,
}

impl Identity {
    /// Finds the key of this host; `None` where there is none and the settings name none.
    ///
    /// # Errors
    /// There is one, and it is of no use.
    pub fn find(settings: &Settings) -> Result<Option<Identity>, IdentityError> {
        if let Some(path) = &settings.identity {
            return Identity::open(path).map(Some);
        }
        let found = PLACES.iter().map(Path::new).find(|path| path.exists());
        found.map(Identity::open).transpose()
    }

    /// Reads a key: ed25519, in OpenSSH's form, without a passphrase.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Identity, IdentityError> {
        let unreadable = |source| IdentityError::Unreadable { path: path.to_owned(), source };
        let unfit = |why: String| IdentityError::Unfit { path: path.to_owned(), why };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MOST {
            return Err(unfit(format!("it has {size} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let key = PrivateKey::from_openssh(&text).map_err(|error| unfit(error.to_string()))?;
        if key.is_encrypted() {
            return Err(unfit("a passphrase protects it, and nobody is there to type it".to_owned()));
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(unfit(format!("it is of type {}, and has to be of type ssh-ed25519", key.algorithm())));
        }
        let mut public = key.public_key().clone();
        public.set_comment("");
        let public = public.to_openssh().map_err(|error| unfit(error.to_string()))?.trim().to_owned();
        Ok(Identity { key, public })
    }

    /// Returns the public half, as `key` in fleet.yaml has it: `ssh-ed25519 AAAA…`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Says whether a key in fleet.yaml is this one.
    pub fn is(&self, key: &str) -> bool {
        key.split_whitespace().take(2).eq(self.public.split_whitespace().take(2))
    }

    /// Puts a signature behind a text that ends with a line's end.
    ///
    /// # Errors
    /// The key does not sign, in words.
    pub fn sign(&self, namespace: &str, fleet: &str, text: &str) -> Result<String, String> {
        let signature = self.key.sign(namespace, HashAlg::Sha512, payload(fleet, text).as_bytes());
        let armoured = signature.and_then(|signature| signature.to_pem(LineEnding::LF));
        Ok(format!("{text}{}\n", armoured.map_err(|error| error.to_string())?.trim_end()))
    }
}

/// Returns what was signed of a text, if the owner of `key` signed it.
///
/// # Errors
/// Nobody did, or somebody else.
pub fn verify<'t>(key: &str, namespace: &str, fleet: &str, text: &'t str) -> Result<&'t str, Unsigned> {
    let (signed, signature) = signed_part(text).ok_or(Unsigned::Missing)?;
    let key = PublicKey::from_openssh(key).map_err(|_| Unsigned::NoKey)?;
    let signature = SshSig::from_pem(signature.trim()).map_err(|_| Unsigned::Broken)?;
    if key.key_data() != signature.public_key() {
        return Err(Unsigned::OtherKey);
    }
    key.verify(namespace, payload(fleet, signed).as_bytes(), &signature).map_err(|_| Unsigned::Broken)?;
    Ok(signed)
}

/// Says why others leave out what a host says, if they do: it is not signed with the key that fleet.yaml names.
pub fn left_out(named: Option<&str>, identity: Option<&Identity>) -> Option<String> {
    const SO: &str = "others leave out what this host says: fleet.yaml names";
    match (named?, identity) {
        (named, Some(identity)) if identity.is(named) => None,
        (_, Some(identity)) => Some(format!("{SO} another key than it signs with, which is {}", identity.public())),
        (_, None) => Some(format!("{SO} a key, and it has none that it could sign with (`identity` in the settings)")),
    }
}

/// A host's key, and the fleet for which it speaks.
#[derive(Clone)]
pub struct Voice {
    /// The key.
    pub identity: Arc<Identity>,
    /// The fleet.
    pub fleet: String,
}

impl Voice {
    /// Finds what was said last among texts that others may have written too: the highest number of those that this key signed.
    pub fn last_of(&self, texts: impl IntoIterator<Item = String>) -> Option<(String, u64)> {
        let own = texts.into_iter().filter_map(|text| {
            let record = verify(self.identity.public(), RECORD, &self.fleet, &text).ok()?;
            let counter = Record::parse(record).ok()?.counter;
            Some((text, counter))
        });
        own.max_by_key(|(_, counter)| *counter)
    }

    /// Puts a signature behind a text that ends with a line's end; leaves it as it is where the key does not sign, which is told.
    pub fn sign(&self, namespace: &str, text: String) -> String {
        match self.identity.sign(namespace, &self.fleet, &text) {
            Ok(signed) => signed,
            Err(why) => {
                warn!(why, "failed to sign what this host says; others will leave it out");
                text
            }
        }
    }
}

fn payload(fleet: &str, text: &str) -> String {
    format!("{fleet}\n{text}")
}

/// The same as the file that holds it.
#[cfg(test)]
pub(crate) fn made_up_text(seed: u8) -> String {
    made_up(seed).key.to_openssh(LineEnding::LF).expect("a key").to_string()
}

/// A key that was made up.
#[cfg(test)]
pub(crate) fn made_up(seed: u8) -> Identity {
    let key = PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]));
    let public = key.public_key().to_openssh().expect("a key").trim().to_owned();
    Identity { key, public }
}

#[cfg(test)]
mod tests {
    use spec::record::SIGNATURE;

    use super::*;

    #[test]
    fn a_text_is_that_of_who_signed_it_in_its_place_and_fleet() {
        let [attic, barn] = [1, 2].map(made_up);
        let text = "attic is well\n\n{\"a\":1}\n";
        let signed = attic.sign(RECORD, "home", text).expect("signed");
        assert!(signed.starts_with(text) && signed[text.len()..].starts_with(SIGNATURE), "{signed}");
        assert_eq!(verify(attic.public(), RECORD, "home", &signed), Ok(text));
        assert_eq!(verify(&format!("{} root@attic", attic.public()), RECORD, "home", &signed), Ok(text));
        assert_eq!(verify(barn.public(), RECORD, "home", &signed), Err(Unsigned::OtherKey));
        assert_eq!(verify(attic.public(), SEEN, "home", &signed), Err(Unsigned::Broken));
        assert_eq!(verify(attic.public(), RECORD, "farm", &signed), Err(Unsigned::Broken));
        assert_eq!(verify(attic.public(), RECORD, "home", text), Err(Unsigned::Missing));
        assert_eq!(verify("ssh-ed25519 AAAA", RECORD, "home", &signed), Err(Unsigned::NoKey));
        let changed = signed.replace("well", "ill!");
        assert_eq!(verify(attic.public(), RECORD, "home", &changed), Err(Unsigned::Broken));
        // A signature of somebody else behind it, with or without the first one.
        let more = barn.sign(RECORD, "home", &signed).expect("signed");
        assert_eq!(verify(attic.public(), RECORD, "home", &more), Err(Unsigned::OtherKey));
        assert_eq!(verify(attic.public(), RECORD, "home", &format!("{signed}{text}")), Err(Unsigned::Broken));
    }

    #[test]
    fn the_last_word_of_a_key_is_found_among_what_others_wrote() {
        let [attic, eve] = [1, 2].map(made_up);
        let record = |counter: u64| {
            format!(
                "{{\"mainstay-record\":1,\"fleet\":\"home\",\"host\":\"attic\",\"commit\":\"{}\",\"counter\":{counter},\
                 \"at\":\"2026-11-22T05:00:00Z\"}}\n",
                "2b".repeat(20)
            )
        };
        let by = |who: &Identity, counter| who.sign(RECORD, "home", &record(counter)).expect("signed");
        let texts = vec![by(&eve, 9), record(8), by(&attic, 4), by(&attic, 6), "nonsense".to_owned(), by(&attic, 5)];
        let voice = Voice { identity: Arc::new(attic), fleet: "home".to_owned() };
        assert_eq!(voice.last_of(texts.clone()), Some((texts[3].clone(), 6)));
        let voice = Voice { fleet: "farm".to_owned(), ..voice };
        assert_eq!(voice.last_of(texts), None);
    }

    #[test]
    fn a_host_is_told_that_others_leave_it_out() {
        let [attic, eve] = [1, 2].map(made_up);
        assert_eq!(left_out(None, None), None);
        assert_eq!(left_out(Some(attic.public()), Some(&attic)), None);
        assert!(left_out(Some(attic.public()), Some(&eve)).is_some_and(|why| why.contains(eve.public())));
        assert!(left_out(Some(attic.public()), None).is_some_and(|why| why.contains("has none")));
    }

    #[test]
    fn a_key_is_read_and_one_that_cannot_sign_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity");
        let text = made_up(1).key.to_openssh(LineEnding::LF).expect("a key");
        std::fs::write(&path, text.as_bytes()).expect("written");
        let read = Identity::open(&path).expect("a key");
        assert!(read.public() == made_up(1).public() && read.is(&format!("{} root@attic", read.public())));
        assert!(!read.is(made_up(2).public()));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(Identity::open(&path), Err(IdentityError::Unreadable { .. })));
        std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
            .expect("written");
        assert!(matches!(Identity::open(&path), Err(IdentityError::Unfit { .. })));
        std::fs::write(&path, "x".repeat(70_000)).expect("written");
        assert!(matches!(Identity::open(&path), Err(IdentityError::Unfit { why, .. }) if why.contains("bytes")));
    }
}
