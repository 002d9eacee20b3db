//! Checkpoints: what the log says of itself, as C2SP tlog-checkpoint. A signed note whose text is origin, size and root
//! of the tree; whoever holds two of one log can have it proved that one extends the other.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::error::LogError;
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

    /// Reads a checkpoint and checks that this log signed it.
    pub fn verify(note: &str, log: &Verifier) -> Result<Self, LogError> {
        let checkpoint = Self::parse(note)?;
        if checkpoint.origin != log.name() {
            return Err(LogError::Checkpoint("it is another log's"));
        }
        checkpoint.verify_signature(log)?;
        Ok(checkpoint)
    }

    /// Checks that this log signed it.
    pub fn verify_signature(&self, log: &Verifier) -> Result<(), LogError> {
        let signed = Note::parse(&self.note).and_then(|note| note.verify(std::slice::from_ref(log)).map(drop));
        signed.map_err(|source| LogError::Signature { size: self.size, key: log.to_string(), source })
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
}
