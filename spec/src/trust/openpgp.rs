//! Who may sign with OpenPGP: certificates in their armour, as `gpg --export --armor` writes them (RFC 9580, sections 6 and 10.1), and
//! the signatures that `git commit -S` makes with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{self, Signature as Packet, SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, KeyVersion, PublicParams, Tag};

use super::{Fingerprint, Signature, Signer};
use crate::id::shown;

/// How a certificate begins and ends.
pub(super) const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
pub(super) const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// How the private half begins and ends, which has no place in a repository.
pub(super) const PRIVATE: [&str; 2] = ["-----BEGIN PGP PRIVATE KEY BLOCK-----", "-----END PGP PRIVATE KEY BLOCK-----"];

/// A signature that is longer was not made by a person's key, and a block of certificates that is longer carries what is no use here.
const LONGEST_SIGNATURE: usize = 16 << 10;
pub(super) const LONGEST_BLOCK: usize = 512 << 10;
/// More certificates than this are not in one file.
pub(super) const MOST_CERTIFICATES: usize = 200;
/// More signatures than this are not checked for one certificate: each takes a moment, and those of other people do not count. Nor are
/// there more than the other in all of a file.
const MOST_SIGNATURES: usize = 40;
const MOST_IN_ALL: usize = 400;
/// More keys than this are not of one number by chance.
const MOST_TRIED: usize = 4;
/// More of what somebody wrote is not repeated.
const LONGEST: usize = 80;
/// The encoding of an RSA key of 2048 bits is longer than the first, and that of one with 4096 bits at most as long as the second.
const RSA: std::ops::RangeInclusive<usize> = 256..=2 + 512 + 2 + 8;

/// A key that signs: that of a certificate, or one of its subkeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Primary(packet::PublicKey),
    Sub(packet::PublicSubkey),
}

impl Key {
    fn names(&self) -> (pgp::types::Fingerprint, pgp::types::KeyId) {
        match self {
            Key::Primary(key) => (key.fingerprint(), key.legacy_key_id()),
            Key::Sub(key) => (key.fingerprint(), key.legacy_key_id()),
        }
    }

    fn has_signed(&self, signature: &DetachedSignature, payload: &[u8]) -> bool {
        match self {
            Key::Primary(key) => signature.verify(key, payload).is_ok(),
            Key::Sub(key) => signature.verify(key, payload).is_ok(),
        }
    }
}

/// What is left of what may be looked at in one file, and what was found by then.
pub(super) struct Reader {
    /// So many certificates and signatures may still be looked at.
    certificates: usize,
    signatures: usize,
    /// Keys that their owners revoked, in whatever copy of their certificates.
    revoked: BTreeSet<Fingerprint>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { certificates: MOST_CERTIFICATES, signatures: MOST_IN_ALL, revoked: BTreeSet::new() }
    }
}

impl Reader {
    /// Says whether a key is revoked: a copy from before does not bring it back.
    pub(super) fn has_revoked(&self, key: &Fingerprint) -> bool {
        self.revoked.contains(key)
    }
}

/// Takes what is in an armour out of it (RFC 9580, section 6.2): the lines behind the empty one, without the checksum.
fn bare(armoured: &str, longest: usize) -> Result<Vec<u8>, String> {
    if armoured.len() > longest {
        return Err(format!("it has {} bytes, and {longest} are the most that is read", armoured.len()));
    }
    let mut lines = armoured.trim().lines().map(str::trim);
    let begin = lines.next().unwrap_or_default();
    let is_header = |line: &&str| line.contains(": ");
    let rest: Vec<&str> = lines.skip_while(is_header).collect();
    let Some((end, data)) = rest.split_last() else { return Err("it is cut off".to_owned()) };
    if begin.replacen("BEGIN", "END", 1) != **end {
        return Err("it is cut off".to_owned());
    }
    let data: String = data.iter().filter(|line| !line.starts_with('=')).copied().collect();
    STANDARD.decode(data).map_err(|_| "it is not base64".to_owned())
}

/// Reads a block: those who may sign with what is in it, and why certificates of it are of no use.
///
/// # Errors
/// It is damaged, in words.
pub(super) fn read(block: &str, reader: &mut Reader) -> Result<(Vec<Signer>, Vec<String>), String> {
    let unread = |why: String| format!("this cannot be read as OpenPGP: {why}");
    let bytes = bare(block, LONGEST_BLOCK).map_err(unread)?;
    let damaged =
        |error: pgp::errors::Error| format!("this cannot be read as OpenPGP: {}", first_line(&error.to_string()));
    let certificates = SignedPublicKey::from_bytes_many(bytes.as_slice()).map_err(damaged)?;
    let (mut signers, mut unusable) = (Vec::new(), Vec::new());
    for certificate in certificates {
        let Some(left) = reader.certificates.checked_sub(1) else {
            return Err(format!("there are more than {MOST_CERTIFICATES} certificates in this file"));
        };
        reader.certificates = left;
        let certificate = certificate.map_err(damaged)?;
        match Certificate::read(&certificate, reader) {
            Ok(found) => signers.extend(found),
            Err(why) => {
                let name = Fingerprint::of_openpgp(certificate.fingerprint().as_bytes());
                unusable.push(format!("nobody can sign with {name}: {why}"));
            }
        }
    }
    match signers.is_empty() && unusable.is_empty() {
        true => Err("there is no certificate in this block".to_owned()),
        false => Ok((signers, unusable)),
    }
}

/// One certificate, as far as it speaks for itself.
struct Certificate<'c, 'r> {
    primary: &'c packet::PublicKey,
    /// So many signatures may still be checked.
    spare: usize,
    reader: &'r mut Reader,
    ends: Option<Timestamp>,
}

impl<'c, 'r> Certificate<'c, 'r> {
    /// Finds the keys that may sign, and notes those that are revoked.
    fn read(certificate: &'c SignedPublicKey, reader: &'r mut Reader) -> Result<Vec<Signer>, String> {
        let primary = &certificate.primary_key;
        if !matches!(primary.version(), KeyVersion::V4 | KeyVersion::V6) {
            return Err("it is of an old version that nothing can be proven with".to_owned());
        }
        check(primary.public_params())?;
        let mut this = Certificate { primary, spare: MOST_SIGNATURES, reader, ends: None };
        this.refuse_revoked(certificate)?;
        let (own, name) = this.own(certificate)?;
        this.ends = end(primary.created_at(), own.key_expiration_time());
        let mut signers = Vec::new();
        if own.key_flags().sign() {
            let from = Some(moment(primary.created_at()));
            signers.push(signer(&name, Key::Primary(primary.clone()), (from, this.ends)));
        }
        for sub in &certificate.public_subkeys {
            signers.extend(this.subkey(sub, &name)?);
        }
        match signers.is_empty() {
            true => Err("none of its keys is for signing and valid".to_owned()),
            false => Ok(signers),
        }
    }

    /// Whatever the reason that is given: the key may be in other hands, and whoever has it can write reasons, too.
    fn refuse_revoked(&mut self, certificate: &'c SignedPublicKey) -> Result<(), String> {
        let details = &certificate.details;
        let is_revoked = self.find(&details.revocation_signatures, |it, key| it.verify_key(key).is_ok())?.is_some();
        // Who else may revoke it has no place here to be checked by; that somebody did is enough.
        let names_revoker = |it: &&Packet| it.revocation_key().is_some();
        let by_another = details.direct_signatures.iter().any(|it| names_revoker(&it))
            && details.revocation_signatures.iter().any(|it| !self.is_own(it));
        if !is_revoked && !by_another {
            return Ok(());
        }
        let names = [self.primary.fingerprint()].into_iter();
        let names = names.chain(certificate.public_subkeys.iter().map(|sub| sub.key.fingerprint()));
        self.reader.revoked.extend(names.map(|name| Fingerprint::of_openpgp(name.as_bytes())));
        Err("it is revoked".to_owned())
    }

    /// Finds what it says of itself last, and whose it is.
    fn own(&mut self, certificate: &'c SignedPublicKey) -> Result<(&'c Packet, String), String> {
        let details = &certificate.details;
        // One that only names who may revoke it says nothing of what it is for, and until when.
        let is_own = |it: &Packet, key: &packet::PublicKey| {
            let says = it
                .config()
                .is_some_and(|it| it.hashed_subpackets().any(|it| matches!(it.data, SubpacketData::KeyFlags(_))));
            says && is_sound(it) && it.verify_key(key).is_ok()
        };
        let mut newest = self.find(&details.direct_signatures, is_own)?;
        let (mut name, mut is_main) = (None, false);
        for user in &details.users {
            let names =
                |it: &Packet, key: &packet::PublicKey| it.verify_certification(key, Tag::UserId, &user.id).is_ok();
            let is_revoked = |it: &Packet, key: &packet::PublicKey| {
                it.typ() == Some(SignatureType::CertRevocation) && names(it, key)
            };
            if self.find(&user.signatures, is_revoked)?.is_some() {
                continue;
            }
            let is_own = |it: &Packet, key: &packet::PublicKey| {
                it.typ() != Some(SignatureType::CertRevocation) && is_sound(it) && names(it, key)
            };
            let Some(own) = self.find(&user.signatures, is_own)? else { continue };
            if name.is_none() || (own.is_primary() && !is_main) {
                (name, is_main) = (Some(address(user.id.id())), own.is_primary());
            }
            newest = Some(newest.filter(|it| it.created() >= own.created()).unwrap_or(own));
        }
        let none = "none of its own signatures holds, or all of them rest on a hash that is broken, such as SHA-1";
        let own = newest.ok_or(none)?;
        Ok((own, name.ok_or("it names nobody")?))
    }

    fn is_own(&self, signature: &Packet) -> bool {
        is_named(signature, &self.primary.fingerprint(), self.primary.legacy_key_id())
    }

    fn subkey(&mut self, sub: &SignedPublicSubKey, name: &str) -> Result<Option<Signer>, String> {
        if check(sub.key.public_params()).is_err() {
            return Ok(None);
        }
        let binds = |it: &Packet, key: &packet::PublicKey| it.verify_subkey_binding(key, &sub.key).is_ok();
        let is_revoked =
            |it: &Packet, key: &packet::PublicKey| it.typ() == Some(SignatureType::SubkeyRevocation) && binds(it, key);
        let is_bound = |it: &Packet, key: &packet::PublicKey| {
            it.typ() == Some(SignatureType::SubkeyBinding) && is_sound(it) && binds(it, key)
        };
        if self.find(&sub.signatures, is_revoked)?.is_some() {
            self.reader.revoked.insert(Fingerprint::of_openpgp(sub.key.fingerprint().as_bytes()));
            return Ok(None);
        }
        let Some(binding) = self.find(&sub.signatures, is_bound)?.filter(|it| it.key_flags().sign()) else {
            return Ok(None);
        };
        // Somebody could name the key of another person a subkey of theirs: the key itself has to say so.
        let back = binding.embedded_signature();
        let is_mutual =
            back.is_some_and(|it| is_sound(it) && it.verify_primary_key_binding(&sub.key, self.primary).is_ok());
        if !is_mutual {
            return Ok(None);
        }
        let from = moment(sub.key.created_at()).max(moment(self.primary.created_at()));
        let ends = [end(sub.key.created_at(), binding.key_expiration_time()), self.ends];
        Ok(Some(signer(name, Key::Sub(sub.key.clone()), (Some(from), ends.into_iter().flatten().min()))))
    }

    /// Finds the newest of some signatures that holds.
    fn find<'s>(
        &mut self,
        signatures: &'s [Packet],
        holds: impl Fn(&Packet, &packet::PublicKey) -> bool,
    ) -> Result<Option<&'s Packet>, String> {
        let mut newest: Option<&Packet> = None;
        for signature in signatures {
            if !self.is_own(signature) {
                continue;
            }
            let Some(spare) = self.spare.checked_sub(1) else {
                return Err(format!(
                    "it carries more than {MOST_SIGNATURES} signatures of its own: `gpg --export-options export-minimal` leaves old \
                     ones out"
                ));
            };
            let Some(left) = self.reader.signatures.checked_sub(1) else {
                return Err(format!(
                    "more than {MOST_IN_ALL} signatures would have to be checked for all of this file"
                ));
            };
            (self.spare, self.reader.signatures) = (spare, left);
            if newest.is_none_or(|it| it.created() < signature.created()) && holds(signature, self.primary) {
                newest = Some(signature);
            }
        }
        Ok(newest)
    }
}

fn signer(name: &str, key: Key, valid: (Option<Timestamp>, Option<Timestamp>)) -> Signer {
    Signer {
        principals: name.to_owned(),
        key: Fingerprint::of_openpgp(key.names().0.as_bytes()),
        namespaces: Vec::new(),
        valid,
        openpgp: Some(Arc::new(key)),
    }
}

/// Checks that a key is of a kind that signs, and neither weak nor made to be slow.
fn check(key: &PublicParams) -> Result<(), String> {
    match key {
        PublicParams::RSA(params) if !RSA.contains(&params.write_len()) => {
            Err("an RSA key has from 2048 to 4096 bits, or proves nothing any more".to_owned())
        }
        PublicParams::RSA(_) | PublicParams::ECDSA(_) | PublicParams::EdDSALegacy(_) => Ok(()),
        PublicParams::Ed25519(_) | PublicParams::Ed448(_) => Ok(()),
        _ => Err("keys of its kind are not checked: RSA, ECDSA and EdDSA are".to_owned()),
    }
}

/// Says whether a signature can be relied on, if its numbers are right: it says when it was made, says nothing that matters and is not
/// understood, and rests on a hash that nobody can forge.
fn is_sound(signature: &Packet) -> bool {
    let Some(config) = signature.config() else { return false };
    let is_strong = matches!(
        config.hash_alg,
        HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    );
    let is_strange = |it: &SubpacketData| {
        matches!(it, SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_))
    };
    let is_clear = config.hashed_subpackets().all(|it| !it.is_critical || !is_strange(&it.data));
    let lasts = signature.signature_expiration_time().is_none_or(|it| std::time::Duration::from(it).is_zero());
    is_strong && is_clear && lasts && signature.created().is_some()
}

/// Says whether a signature names a key as the one that made it; one that names none may be of any.
fn is_named(signature: &Packet, fingerprint: &pgp::types::Fingerprint, id: pgp::types::KeyId) -> bool {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    match fingerprints.is_empty() {
        true => ids.is_empty() || ids.contains(&&id),
        // Anybody can make a key of a certain number.
        false => fingerprints.contains(&fingerprint),
    }
}

/// Takes the address out of `Name <address>`; the whole, where there is none.
fn address(id: &[u8]) -> String {
    let text = String::from_utf8_lossy(id);
    let address = text.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(address, _)| address.trim());
    let name = address.filter(|it| !it.is_empty()).unwrap_or(text.trim());
    shown(&name.chars().take(LONGEST).collect::<String>())
}

fn moment(at: pgp::types::Timestamp) -> Timestamp {
    Timestamp::from_second(i64::from(at.as_secs())).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn end(from: pgp::types::Timestamp, length: Option<pgp::types::Duration>) -> Option<Timestamp> {
    let length = length.map(std::time::Duration::from).filter(|it| !it.is_zero())?;
    moment(from).checked_add(length).ok()
}

fn first_line(text: &str) -> String {
    shown(&text.lines().next().unwrap_or_default().chars().take(LONGEST).collect::<String>())
}

/// Says whose signature of `payload` this is, of those who are known; nobody else's can be checked.
pub fn verify<'s>(armoured: &str, payload: &[u8], known: impl IntoIterator<Item = &'s Signer>) -> Signature {
    let damaged = |error: pgp::errors::Error| format!("it cannot be read: {}", first_line(&error.to_string()));
    let read = || -> Result<DetachedSignature, String> {
        let bytes = bare(armoured, LONGEST_SIGNATURE).map_err(|why| format!("it cannot be read: {why}"))?;
        let mut signatures = DetachedSignature::from_bytes_many(bytes.as_slice()).map_err(damaged)?;
        let first = signatures.next().ok_or("it is empty")?.map_err(damaged)?;
        match signatures.next() {
            None => Ok(first),
            Some(_) => Err("there is more than one: sign with one key".to_owned()),
        }
    };
    let signature = match read() {
        Ok(signature) => signature,
        Err(why) => return Signature::Broken(why),
    };
    let packet = &signature.signature;
    if packet.typ() != Some(SignatureType::Binary) {
        return Signature::Broken("it is not one of a commit".to_owned());
    }
    if !is_sound(packet) {
        return Signature::Broken(
            "it expires, says something that is not understood, or rests on a hash that is broken, such as SHA-1"
                .to_owned(),
        );
    }
    let claimed = packet.issuer_fingerprint().first().map(|it| Fingerprint::of_openpgp(it.as_bytes()));
    let claimed = claimed.or_else(|| packet.issuer_key_id().first().map(|it| Fingerprint::of_openpgp(it.as_ref())));
    let Some(claimed) = claimed else { return Signature::Broken("it does not say whose it is".to_owned()) };
    let mut tried: Vec<&Key> = Vec::new();
    for signer in known {
        let Some(key) = signer.openpgp.as_deref() else { continue };
        let (fingerprint, id) = key.names();
        if !is_named(packet, &fingerprint, id) || tried.contains(&key) || tried.len() == MOST_TRIED {
            continue;
        }
        tried.push(key);
        if key.has_signed(&signature, payload) {
            return Signature::By(signer.key.clone());
        }
    }
    match !tried.is_empty() {
        true => Signature::Broken(format!("it is not one of {claimed} over this commit")),
        false => Signature::Claims(claimed),
    }
}

#[cfg(test)]
mod tests;
