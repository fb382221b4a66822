#!/bin/sh
# Makes what the tests of OpenPGP read, with gpg in an empty folder. The private keys stay there; thrown away, nobody signs with them again.
set -e
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
g() { gpg --batch --quiet --pinentry-mode loopback --passphrase '' "$@"; }
at() { moment=$1; shift; g --faked-system-time "$moment!" "$@"; }
fingerprint() { gpg --list-keys --with-colons "$1" | awk -F: '/^fpr/ { print $10; exit }'; }
signed() { at 20260601T000000 --armor --detach-sign "$@" <payload; }

printf 'tree 0\n\nhello\n' >payload
at 20260101T000000 --quick-gen-key 'Ann <ann@example.com>' ed25519 cert never
at 20260102T000000 --quick-add-key "$(fingerprint ann@example.com)" ed25519 sign never
at 20260102T000000 --quick-add-key "$(fingerprint ann@example.com)" cv25519 encr never
at 20260101T000000 --quick-gen-key 'Bob <bob@example.com>' rsa3072 sign 20270101T000000
at 20260101T000000 --quick-gen-key 'Eve <eve@example.com>' ed25519 sign never
at 20260101T000000 --cert-digest-algo SHA1 --quick-gen-key 'Old <old@example.com>' rsa2048 sign never
at 20260101T000000 --quick-gen-key 'Weak <weak@example.com>' rsa1024 sign never
at 20260101T000000 --quick-gen-key 'Gone <gone@example.com>' ed25519 sign never
at 20260101T000000 --quick-gen-key 'Enc <enc@example.com>' ed25519 cert never
gpg --armor --export ann@example.com bob@example.com >people.asc
gpg --armor --export eve@example.com >eve.asc
gpg --armor --export old@example.com >sha1.asc
gpg --armor --export weak@example.com >weak.asc
gpg --armor --export enc@example.com >no-signing.asc
gpg --armor --export gone@example.com >gone.asc
for who in ann bob eve gone; do signed -u "$who@example.com" >"$who.sig"; done
signed --digest-algo SHA1 -u ann@example.com >ann-sha1.sig
signed --default-sig-expire 1y -u ann@example.com >ann-expires.sig
signed --textmode -u ann@example.com >ann-text.sig
sed 's/^:-----/-----/' "$GNUPGHOME/openpgp-revocs.d/$(fingerprint gone@example.com).rev" | g --import
gpg --armor --export gone@example.com >revoked.asc
gpgconf --kill gpg-agent
rm -r "$GNUPGHOME"
