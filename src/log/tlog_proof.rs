//! Proofs that stand alone, as C2SP tlog-proof (a draft) has them: `.tlog-proof` files. Pure.
//!
//! ```text
//! "c2sp.org/tlog-proof@v1" \n
//! ["extra " base64 \n]            kept when read, never written by us
//! "index " decimal \n
//! (base64 hash \n){0..63}
//! \n
//! checkpoint                      signed note, with cosignatures where it has them
//! ```

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::proof::{self, ProofError};
use super::tree::Hash;
use crate::trust::note::Verifier;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^64 leaves has no longer path.
const MAX_HASHES: usize = 63;

/// That an entry is in a log: its index, its audit path, and the checkpoint that the path leads to. `Display` prints the
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// What an application put there, still in base64.
    pub extra: Option<String>,
    /// Index of the entry.
    pub index: u64,
    /// RFC 6962 audit path, from the leaf's sibling up.
    pub path: Vec<Hash>,
    /// The checkpoint; its signatures have not been looked at.
    pub checkpoint: Checkpoint,
}

/// Why a text is no tlog-proof, or does not show what it should.
#[derive(Debug, thiserror::Error)]
pub enum TlogProofError {
    /// A line is not what it should be.
    #[error("no tlog-proof: {0}")]
    Format(&'static str),
    /// The checkpoint is none, or not this log's.
    #[error(transparent)]
    Checkpoint(#[from] LogError),
    /// The path does not lead from this entry to the checkpoint's root.
    #[error("the entry is not in the log at this index: {0}")]
    Proof(#[from] ProofError),
}

impl TlogProof {
    /// Checks that this log signed the checkpoint, and that `entry` is in it at the proof's index.
    pub fn verify(&self, entry: &[u8], log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<(), TlogProofError> {
        self.checkpoint.verify_signature(log)?;
        let Checkpoint { size, root, .. } = self.checkpoint;
        Ok(proof::verify_inclusion(Hash::of_leaf(entry), self.index, size, &self.path, root)?)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const fn bad(what: &'static str) -> TlogProofError {
            TlogProofError::Format(what)
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| bad("no empty line before a checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(bad("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = extra.and_then(|line| line.strip_prefix("extra ")).map(str::to_owned);
        if extra.as_ref().is_some_and(|extra| BASE64_STANDARD.decode(extra).is_err()) {
            return Err(bad("its extra data is not base64"));
        }
        let written = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or_else(|| bad("no index"))?;
        let index: u64 = written.parse().map_err(|_| bad("its index is no number"))?;
        if index.to_string() != written {
            return Err(bad("its index is not written plainly"));
        }
        let mut path = Vec::new();
        for line in lines {
            if path.len() == MAX_HASHES {
                return Err(bad("more than 63 hashes"));
            }
            let hash = BASE64_STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
            path.push(Hash(hash.ok_or_else(|| bad("a hash is not 32 bytes in base64"))?));
        }
        Ok(Self { extra, index, path, checkpoint: Checkpoint::parse(checkpoint)? })
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {extra}")?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.checkpoint.note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tree::RightEdge;
    use crate::trust::note::Signer;

    #[test]
    fn prints_parses_and_verifies() {
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut edge = RightEdge::default();
        for entry in [b"zero", b"one.", b"two."] {
            edge.push(Hash::of_leaf(entry));
        }
        let checkpoint = Checkpoint::sign(&signer, &edge).unwrap();
        let left = Hash::of_node(&Hash::of_leaf(b"zero"), &Hash::of_leaf(b"one."));
        let proof = TlogProof { extra: None, index: 2, path: vec![left], checkpoint };
        let printed = proof.to_string();
        assert_eq!(printed.parse::<TlogProof>().unwrap(), proof);
        proof.verify(b"two.", &signer.verifier()).unwrap();
        assert!(matches!(proof.verify(b"one.", &signer.verifier()), Err(TlogProofError::Proof(_))));
        let other = Signer::generate("kg.example/log").unwrap();
        assert!(matches!(proof.verify(b"two.", &other.verifier()), Err(TlogProofError::Checkpoint(_))));

        let extra = printed.replace("index", "extra AAAA\nindex");
        assert_eq!(extra.parse::<TlogProof>().unwrap().to_string(), extra);
        for (from, to) in [("@v1", "@v2"), ("index 2", "index 02"), ("index 2", "at 2"), ("index", "extra !\nindex")] {
            assert!(printed.replace(from, to).parse::<TlogProof>().is_err(), "{to}");
        }
        let hash = format!("{}\n", BASE64_STANDARD.encode([7; 32]));
        let longer = printed.replace("index 2\n", &format!("index 2\n{}", hash.repeat(64)));
        assert!(matches!(longer.parse::<TlogProof>(), Err(TlogProofError::Format("more than 63 hashes"))));
    }
}
