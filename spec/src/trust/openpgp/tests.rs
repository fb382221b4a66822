//! Certificates and signatures that gpg made (`tests/openpgp/make.sh`), and what an attacker makes of them.

use super::*;
use crate::trust::read_signers;

const PAYLOAD: &[u8] = include_bytes!("../../../tests/openpgp/payload");
const PEOPLE: &str = include_str!("../../../tests/openpgp/people.asc");
const EVE: &str = include_str!("../../../tests/openpgp/eve.asc");
const GONE: &str = include_str!("../../../tests/openpgp/gone.asc");
const REVOKED: &str = include_str!("../../../tests/openpgp/revoked.asc");
const SHA1: &str = include_str!("../../../tests/openpgp/sha1.asc");
const WEAK: &str = include_str!("../../../tests/openpgp/weak.asc");
const NO_SIGNING: &str = include_str!("../../../tests/openpgp/no-signing.asc");
const ANN_SIG: &str = include_str!("../../../tests/openpgp/ann.sig");
const BOB_SIG: &str = include_str!("../../../tests/openpgp/bob.sig");
const EVE_SIG: &str = include_str!("../../../tests/openpgp/eve.sig");
const GONE_SIG: &str = include_str!("../../../tests/openpgp/gone.sig");

/// Reads a file that has no mistakes.
fn signers(text: &str) -> Vec<Signer> {
    let (signers, mistakes) = read_signers(text);
    assert_eq!(mistakes, []);
    signers
}

/// Reads a file that names nobody, and says why.
fn nobody(text: &str) -> String {
    let (signers, mistakes) = read_signers(text);
    assert_eq!(signers, [], "{mistakes:?}");
    mistakes.iter().map(|it| it.message.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn keys_that_sign_are_found_with_whose_they_are_and_for_how_long() {
    let told: Vec<String> = signers(PEOPLE)
        .iter()
        .map(|it| {
            let moment = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
            format!("{} {} {}", it.principals, moment(it.valid.0), moment(it.valid.1))
        })
        .collect();
    // Of Ann the subkey: her own key is there to certify, and another subkey to encrypt.
    assert_eq!(told, ["ann@example.com 2026-01-02 -", "bob@example.com 2026-01-01 2027-01-01"]);
}

#[test]
fn a_signature_is_that_of_a_key_that_is_known_over_this_very_text() {
    let people = signers(PEOPLE);
    for (signature, key) in [(ANN_SIG, &people[0].key), (BOB_SIG, &people[1].key)] {
        assert_eq!(verify(signature, PAYLOAD, &people), Signature::By(key.clone()));
        let broken = verify(signature, b"tree 1\n\nhello\n", &people);
        assert!(matches!(&broken, Signature::Broken(why) if why.contains("is not one of")), "{broken:?}");
    }
    let eve = &signers(EVE)[0].key;
    assert_eq!(verify(EVE_SIG, PAYLOAD, &people), Signature::Claims(eve.clone()));
    assert_eq!(verify(EVE_SIG, PAYLOAD, &[]), Signature::Claims(eve.clone()));
    assert_eq!(verify(EVE_SIG, PAYLOAD, &[people, signers(EVE)].concat()), Signature::By(eve.clone()));
}

#[test]
fn what_is_revoked_weak_or_not_for_signing_signs_nothing() {
    let gone = signers(GONE);
    assert_eq!(verify(GONE_SIG, PAYLOAD, &gone), Signature::By(gone[0].key.clone()));
    assert!(nobody(REVOKED).contains("it is revoked"), "{}", nobody(REVOKED));
    // A copy from before does not bring it back, wherever it stands.
    for both in [format!("{GONE}{REVOKED}"), format!("{REVOKED}\n{GONE}")] {
        assert!(read_signers(&both).0.is_empty());
    }
    assert!(nobody(SHA1).contains("SHA-1"), "{}", nobody(SHA1));
    assert!(nobody(WEAK).contains("2048"), "{}", nobody(WEAK));
    assert!(nobody(NO_SIGNING).contains("none of its keys is for signing"), "{}", nobody(NO_SIGNING));
}

#[test]
fn signatures_that_prove_less_than_they_seem_to_are_refused() {
    let people = signers(PEOPLE);
    let sha1 = include_str!("../../../tests/openpgp/ann-sha1.sig");
    let expires = include_str!("../../../tests/openpgp/ann-expires.sig");
    let text = include_str!("../../../tests/openpgp/ann-text.sig");
    for (signature, word) in [
        (sha1, "SHA-1"),
        (expires, "it expires"),
        (text, "not one of a commit"),
        // One that takes hours where each of its lines is looked at again and again.
        (&format!("-----BEGIN PGP SIGNATURE-----\n{}", "k: abcd\n".repeat(100_000)), "cannot be read"),
        (
            &format!("-----BEGIN PGP SIGNATURE-----\n{}-----END PGP SIGNATURE-----", "k: abcd\n".repeat(1000)),
            "it is empty",
        ),
        ("-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", "cannot be read"),
        ("-----BEGIN PGP SIGNATURE-----\n", "cannot be read"),
        (PEOPLE, "cannot be read"),
    ] {
        let said = verify(signature, PAYLOAD, &people);
        assert!(matches!(&said, Signature::Broken(why) if why.contains(word)), "{word}: {said:?}");
    }
}

#[test]
fn the_key_of_somebody_else_does_not_become_ones_subkey_by_saying_so() {
    let first = |block: &str| SignedPublicKey::from_armor_single(block.as_bytes()).expect("a certificate").0;
    let own = |it: &SignedPublicKey| Certificate::read(it, &mut Reader::default());
    let (mut ann, eve) = (first(PEOPLE), first(EVE));
    let before = own(&ann).expect("ann may sign").len();
    // Her own subkey's signatures, under another certificate; and of hers without what the subkey says itself.
    let mut stolen = eve;
    stolen.public_subkeys = ann.public_subkeys.clone();
    let found = own(&stolen).expect("eve may sign");
    assert!(found.iter().all(|it| it.principals == "eve@example.com") && found.len() == 1, "{found:?}");
    for sub in &mut ann.public_subkeys {
        for signature in &mut sub.signatures {
            while signature.config().is_some_and(|it| it.unhashed_subpackets().count() > 0) {
                signature.unhashed_subpacket_remove(0).expect("there is one");
            }
        }
    }
    assert_eq!((before, own(&ann).err().as_deref()), (1, Some("none of its keys is for signing and valid")));
}

#[test]
fn damaged_blocks_are_mistakes_and_the_rest_of_the_file_is_read() {
    let ssh = "ann@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDLvtuWPvcNFbZJrUcZvzFQrZ9EhGVJcEDYZKGuOhqrS\n";
    let both = format!("# people\n{ssh}{PEOPLE}\n{EVE}");
    assert_eq!(signers(&both).len(), 4);
    let cut = format!("{ssh}{}", &PEOPLE[..PEOPLE.len() / 2]);
    let (found, mistakes) = read_signers(&cut);
    assert_eq!((found.len(), mistakes.len()), (1, 1), "{mistakes:?}");
    assert!(mistakes[0].message.contains("has no end") && &cut[mistakes[0].extent.clone()] == BEGIN);
    let garbled = PEOPLE.replace("AQ", "QA") + ssh;
    let (found, mistakes) = read_signers(&garbled);
    assert!(found.len() == 1 && mistakes.len() == 1 && !mistakes[0].is_warning, "{found:?} {mistakes:?}");
    let private = format!("{}\n\nAAAA\nBBBB\n{}\n{ssh}", PRIVATE[0], PRIVATE[1]);
    let (found, mistakes) = read_signers(&private);
    assert_eq!((found.len(), mistakes.len(), mistakes[0].message.as_str()), (1, 1, "this is a private key"));
}
