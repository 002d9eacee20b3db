//! The private halves of entries, sealed where they lie.
//!
//! AES-256-GCM-SIV under one key in a file of its own (`seal.key`, readable by its owner only), so that a copy of the
//! store alone gives nothing away. The entry's leaf hash is associated data: a private half opens beside its own entry
//! and no other. The nonce is derived from it too, so it takes no room and needs no counter that a crash could turn
//! back; with SIV, sealing two different halves beside one leaf would reveal nothing but whether they are equal.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::LogError;
use super::index::Pseudonym;
use super::tree::Hash;

/// What sealing adds to a private half.
pub(super) const OVERHEAD: usize = 16;

/// The key file's name in the data folder.
pub(super) const KEY_FILE: &str = "seal.key";

/// What the key for pseudonyms is derived by.
const PSEUDONYM: &[u8] = b"kopuro/subject/v1";

/// The sealing key of one data folder.
pub(super) struct Seal {
    aead: LessSafeKey,
    /// For pseudonyms of subjects: HMAC-SHA256 of the key and [`PSEUDONYM`].
    pseudonym: Hmac<Sha256>,
}

impl Seal {
    /// Reads the folder's key; makes one where there is none and `may_create`, that is while nothing is sealed yet.
    /// The caller syncs the folder.
    pub(super) fn open(folder: &Path, may_create: bool) -> Result<Self, LogError> {
        let path = folder.join(KEY_FILE);
        let mut key = Zeroizing::new([0; 32]);
        let mut trailing = [0; 1];
        match File::open(&path) {
            Ok(mut file) => match file.read_exact(&mut *key).and_then(|()| file.read(&mut trailing)) {
                Ok(0) => {}
                // Torn while it was made, before anything was sealed with it.
                _ if may_create => create(&path, &mut key)?,
                _ => return Err(LogError::SealingKey { path, what: "not 32 bytes" }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !may_create {
                    return Err(LogError::SealingKey { path, what: "missing" });
                }
                create(&path, &mut key)?;
            }
            Err(error) => return Err(LogError::io(path)(error)),
        }
        let pseudonym: Zeroizing<[u8; 32]> =
            Zeroizing::new(keyed(&*key).chain_update(PSEUDONYM).finalize().into_bytes().into());
        let key = UnboundKey::new(&AES_256_GCM_SIV, &*key);
        let key = key.map_err(|_| LogError::SealingKey { path, what: "refused by the cipher" })?;
        Ok(Self { aead: LessSafeKey::new(key), pseudonym: keyed(&*pseudonym) })
    }

    /// What stands for a subject in the index: nobody without the key can tell whose it is.
    pub(super) fn pseudonym(&self, subject: &[u8]) -> Pseudonym {
        let mac = self.pseudonym.clone().chain_update(subject).finalize().into_bytes();
        let mut pseudonym = [0; 16];
        pseudonym.copy_from_slice(&mac[..16]);
        pseudonym
    }

    /// Seals a private half beside the entry with this leaf hash.
    pub(super) fn seal(&self, leaf: &Hash, private: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = Vec::with_capacity(private.len() + OVERHEAD);
        sealed.extend_from_slice(private);
        self.aead.seal_in_place_append_tag(nonce(leaf), Aad::from(leaf.0), &mut sealed).ok()?;
        Some(sealed)
    }

    /// Opens what was sealed beside the entry with this leaf hash; none where it is damaged or another key's.
    pub(super) fn open_sealed(&self, leaf: &Hash, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut private = Zeroizing::new(sealed.to_vec());
        let length = self.aead.open_in_place(nonce(leaf), Aad::from(leaf.0), &mut private).ok()?.len();
        private.truncate(length);
        Some(private)
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn nonce(leaf: &Hash) -> Nonce {
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&leaf.0[..12]);
    Nonce::assume_unique_for_key(nonce)
}

fn create(path: &Path, key: &mut [u8; 32]) -> Result<(), LogError> {
    getrandom::fill(key).map_err(|error| LogError::io(path)(std::io::Error::other(error.to_string())))?;
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| file.write_all(key).and_then(|()| file.sync_all()));
    written.map_err(LogError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_beside_its_own_entry_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open(folder.path(), true).unwrap();
        let leaf = Hash::of_leaf(b"entry");
        let sealed = seal.seal(&leaf, b"a person's number").unwrap();
        assert_eq!(sealed.len(), 17 + OVERHEAD);

        let again = Seal::open(folder.path(), false).unwrap();
        assert_eq!(*again.open_sealed(&leaf, &sealed).unwrap(), b"a person's number");
        assert!(again.open_sealed(&Hash::of_leaf(b"other"), &sealed).is_none());
        let mut damaged = sealed;
        damaged[3] ^= 1;
        assert!(again.open_sealed(&leaf, &damaged).is_none());

        let key = folder.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&key, b"short").unwrap();
        assert!(matches!(Seal::open(folder.path(), false), Err(LogError::SealingKey { .. })));
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(Seal::open(folder.path(), false), Err(LogError::SealingKey { .. })));
    }
}
