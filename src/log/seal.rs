//! Private halves of entries, sealed.
//!
//! AES-256-GCM-SIV under a key of the half's own:
//!
//! ```text
//! key    HMAC-SHA256(sealing key, "kopuro/half/v1" ‖ shred key)
//! nonce  twelve zeros: a key seals one half
//! ```
//!
//! The sealing key is the data folder's ([`super::sealing_key`]): a copy of the folder without it gives nothing away. The
//! shred key is the entry's ([`super::shred`]): without it not even the sealing key opens the half. A half belongs to
//! its entry by the shred key; that its values are those that the entry commits to, the commitment shows.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::index::Pseudonym;
use super::sealing_key::SealingKey;
use super::shred::ShredKey;

/// What sealing adds to a private half.
pub(super) const OVERHEAD: usize = 16;

const HALF: &[u8] = b"kopuro/half/v1";
const CHECK: &[u8] = b"kopuro/check/v1";
/// What the key for pseudonyms is derived by.
const PSEUDONYM: &[u8] = b"kopuro/subject/v1";

/// Seals and opens under the sealing key of one data folder. The library wipes its copy of the key when it is dropped.
pub(super) struct Seal {
    key: hmac::Key,
    /// For pseudonyms of subjects: HMAC-SHA256 of the sealing key and [`PSEUDONYM`].
    pseudonym: hmac::Key,
}

impl Seal {
    pub(super) fn new(key: &SealingKey) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let pseudonym = hmac::Key::new(hmac::HMAC_SHA256, &*derive(&key, PSEUDONYM, &[]));
        Self { key, pseudonym }
    }

    /// What stands for a subject in the index: nobody without the key can tell whose it is.
    pub(super) fn pseudonym(&self, subject: &[u8]) -> Pseudonym {
        let mac = hmac::sign(&self.pseudonym, subject);
        let mut pseudonym = [0; 16];
        pseudonym.copy_from_slice(&mac.as_ref()[..16]);
        pseudonym
    }

    /// Tells this key from others and gives nothing of it away: kept beside what it seals.
    pub(super) fn check(&self) -> [u8; 32] {
        *derive(&self.key, CHECK, &[])
    }

    /// Seals a private half.
    pub(super) fn seal(&self, shred: &ShredKey, private: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = Vec::with_capacity(private.len() + OVERHEAD);
        sealed.extend_from_slice(private);
        self.cipher(shred)?.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some(sealed)
    }

    /// Opens what was sealed with this shred key; none where it is damaged or another key's.
    pub(super) fn open_sealed(&self, shred: &ShredKey, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut private = Zeroizing::new(sealed.to_vec());
        let length = self.cipher(shred)?.open_in_place(nonce(), Aad::empty(), &mut private).ok()?.len();
        private.truncate(length);
        Some(private)
    }

    fn cipher(&self, shred: &ShredKey) -> Option<LessSafeKey> {
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*derive(&self.key, HALF, &shred.0)).ok()?))
    }
}

fn derive(key: &hmac::Key, label: &[u8], from: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = hmac::Context::with_key(key);
    mac.update(label);
    mac.update(from);
    let mut derived = Zeroizing::new([0; 32]);
    derived.copy_from_slice(mac.sign().as_ref());
    derived
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_both_keys_only() {
        let seal = Seal::new(&SealingKey::from_bytes([1; 32]));
        let shred = ShredKey([2; 32]);
        let sealed = seal.seal(&shred, b"a person's number").unwrap();
        assert_eq!(sealed.len(), 17 + OVERHEAD);
        assert_eq!(*seal.open_sealed(&shred, &sealed).unwrap(), b"a person's number");
        assert!(seal.open_sealed(&ShredKey([3; 32]), &sealed).is_none());
        let other = Seal::new(&SealingKey::from_bytes([4; 32]));
        assert!(other.open_sealed(&shred, &sealed).is_none());
        assert_ne!(other.check(), seal.check());
        let mut damaged = sealed;
        damaged[3] ^= 1;
        assert!(seal.open_sealed(&shred, &damaged).is_none());
    }
}
