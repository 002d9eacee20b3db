//! Checkpoints: what the log says of itself, as C2SP tlog-checkpoint. A signed note whose text is origin, size and root
//! of the tree; whoever holds two of one log can have it proved that one extends the other.
//!
//! While a log changes its key, both keys sign, each with a line of its own, and whoever knows either verifies it. So where a
//! checkpoint is verified, a log may have several keys: one of them must have signed, and none that did must be false.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::error::LogError;
use super::keys::Signers;
use super::tree::{Hash, RightEdge};
use crate::trust::note::{Note, NoteError, Signer, Verifier};

/// A signed statement that the log `origin` has `size` entries and this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log, and of its key.
    pub origin: String,
    /// How many entries the log has.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
    /// The signed note, as published.
    pub note: String,
}

impl Checkpoint {
    /// Signs a checkpoint of the tree with this right edge.
    pub fn sign(signer: &Signer, edge: &RightEdge) -> Result<Self, NoteError> {
        let (origin, size, root) = (signer.name(), edge.size(), edge.root());
        let note = signer.sign(&format!("{origin}\n{size}\n{}\n", BASE64_STANDARD.encode(root.0)))?;
        Ok(Self { origin: origin.into(), size, root, note })
    }

    /// Signs by each of these keys, which have one name.
    pub(super) fn sign_by(signers: &Signers, edge: &RightEdge) -> Result<Self, NoteError> {
        let mut checkpoint = Self::sign(signers.first(), edge)?;
        if let Some(second) = signers.second() {
            let mut note = Note::parse(&checkpoint.note)?;
            note.add_signature(second)?;
            checkpoint.note = note.to_string();
        }
        Ok(checkpoint)
    }

    /// Reads a checkpoint without saying anything of its signatures.
    pub fn parse(note: &str) -> Result<Self, LogError> {
        let parsed = Note::parse(note).map_err(|_| LogError::Checkpoint("it is no signed note"))?;
        let mut lines = parsed.text().lines();
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(LogError::Checkpoint("its text is not origin, size and root"));
        };
        let decimal: u64 = size.parse().map_err(|_| LogError::Checkpoint("its size is no number"))?;
        if decimal.to_string() != size {
            return Err(LogError::Checkpoint("its size is not written plainly"));
        }
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(LogError::Checkpoint("its root is not 32 bytes in base64"))?;
        Ok(Self { origin: origin.into(), size: decimal, root: Hash(root), note: note.into() })
    }

    /// Reads a checkpoint and checks that a log signed it, of which these are the keys: one, or several of one name.
    pub fn verify(note: &str, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<Self, LogError> {
        let checkpoint = Self::parse(note)?;
        checkpoint.verify_signature(log)?;
        Ok(checkpoint)
    }

    /// Checks that the log with these keys signed it.
    pub fn verify_signature(&self, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<(), LogError> {
        let keys = log.as_ref();
        if keys.iter().any(|key| key.name() != self.origin) {
            return Err(LogError::Checkpoint("it is another log's"));
        }
        let signed = Note::parse(&self.note).and_then(|note| note.verify(keys).map(drop));
        let named = || keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", nor by ");
        signed.map_err(|source| LogError::Signature { size: self.size, key: named(), source })
    }

    /// Whether each key that signed this one also signed the other.
    pub(crate) fn is_signed_as_well_as(&self, other: &Self, keys: &[Verifier]) -> bool {
        let signed = |checkpoint: &Self| match Note::parse(&checkpoint.note) {
            Ok(note) => note.verify(keys).map_or_else(|_| Vec::new(), |by| by.into_iter().cloned().collect()),
            Err(_) => Vec::new(),
        };
        let by = signed(self);
        signed(other).iter().all(|key| by.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_is_none() {
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut edge = RightEdge::default();
        edge.push(Hash::of_leaf(b"entry"));
        let signed = Checkpoint::sign(&signer, &edge).unwrap();
        assert_eq!(Checkpoint::verify(&signed.note, &signer.verifier()).unwrap(), signed);
        assert!(signed.note.starts_with("kg.example/log\n1\n"));

        let other = Signer::generate("kg.example/log").unwrap();
        assert!(matches!(Checkpoint::verify(&signed.note, &other.verifier()), Err(LogError::Signature { .. })));
        let elsewhere = Signer::generate("kg.example/elsewhere").unwrap();
        assert!(matches!(Checkpoint::verify(&signed.note, &elsewhere.verifier()), Err(LogError::Checkpoint(_))));
        for text in ["kg.example/log\n01\n", "kg.example/log\n1\nAAAA\n", "kg.example/log\n", "a\n1\nAA==\nmore\n"] {
            assert!(Checkpoint::parse(&signer.sign(text).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn while_the_key_is_changed_either_verifies_it() {
        let generate = || Signer::generate("kg.example/log").unwrap();
        let (old, new, stranger) = (generate(), generate(), generate());
        let (old_key, new_key) = (old.verifier(), new.verifier());
        let before = Checkpoint::sign(&old, &RightEdge::default()).unwrap();
        let both = Checkpoint::sign_by(&Signers::new(old, Some(new)), &RightEdge::default()).unwrap();
        assert_eq!(both.note.lines().count(), 6);
        for key in [&old_key, &new_key] {
            assert_eq!(Checkpoint::verify(&both.note, key).unwrap(), both);
        }
        assert!(Checkpoint::verify(&both.note, &stranger.verifier()).is_err());
        let keys = [old_key.clone(), new_key.clone()];
        assert_eq!(Checkpoint::verify(&before.note, &keys[..]).unwrap(), before);
        assert!(Checkpoint::verify(&before.note, &new_key).is_err());
        assert!(both.is_signed_as_well_as(&before, &keys) && !before.is_signed_as_well_as(&both, &keys));
        // A false line of a known key spoils the note, whatever the others say.
        let mut spoilt = Note::parse(&both.note).unwrap();
        let line = spoilt.signatures()[1].clone();
        let mut bytes = line.bytes.clone();
        bytes[5] ^= 1;
        spoilt.add(crate::trust::note::Signature { bytes, ..line }).unwrap();
        assert!(Checkpoint::verify(&spoilt.to_string(), &keys[..]).is_err());
        assert!(Checkpoint::verify(&spoilt.to_string(), &old_key).is_ok());
        let elsewhere = Signer::generate("kg.example/elsewhere").unwrap();
        assert_eq!(Signers::new(stranger, Some(elsewhere)).verifiers().len(), 1);
    }
}
