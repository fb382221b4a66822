//! Who signed something: signatures as git carries them, checked against what they are of.

use std::sync::Arc;

use spec::id::shown;
use spec::trust::{self, Fingerprint, GIT, Signature, Trust};
use ssh_key::{PublicKey, SshSig};

use crate::git::Signed;

/// More of what somebody wrote is not repeated.
const LONGEST: usize = 80;
const SSH: &str = "-----BEGIN SSH SIGNATURE-----";
const OPENPGP: &str = "-----BEGIN PGP SIGNATURE-----";

/// Says who signed a commit: with a key for ssh (PROTOCOL.sshsig of OpenSSH), or as one of those in `known` with one for OpenPGP.
pub(super) fn of(commit: &Signed, known: &[Arc<Trust>]) -> Signature {
    let Some((payload, armoured)) = &commit.signature else { return Signature::Missing };
    if armoured.trim_start().starts_with(OPENPGP) {
        return trust::verify_openpgp(armoured, payload, known.iter().flat_map(|trust| &trust.signers));
    }
    if !armoured.trim_start().starts_with(SSH) {
        let kind = armoured.trim_start().lines().next().unwrap_or_default();
        let kind: String = kind.chars().take(LONGEST).collect();
        return Signature::Broken(format!(
            "it begins with `{}`, and only signatures of keys for ssh and OpenPGP are checked",
            shown(&kind)
        ));
    }
    match ssh(payload, armoured) {
        Ok(key) => Signature::By(key),
        Err(why) => Signature::Broken(why),
    }
}

fn ssh(payload: &[u8], armoured: &str) -> Result<Fingerprint, String> {
    let signature = SshSig::from_pem(armoured.trim()).map_err(|error| format!("it cannot be read: {error}"))?;
    if signature.namespace() != GIT {
        return Err(format!(
            "it was made for `{}` and not for git",
            shown(&signature.namespace().chars().take(LONGEST).collect::<String>())
        ));
    }
    let key = PublicKey::from(signature.public_key().clone());
    let blob = key.to_bytes().map_err(|error| format!("its key cannot be read: {error}"))?;
    let named = Fingerprint::of_ssh(&blob);
    key.verify(GIT, payload, &signature).map_err(|_| format!("it is not one of {named} over this commit"))?;
    Ok(named)
}
