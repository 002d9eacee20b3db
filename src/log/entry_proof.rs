//! How one node shows another that it has logged what it sends (promise 2): the entry, its inclusion proof, the signed
//! checkpoint, and the openings of what the other side knows anyway.
//!
//! Pure. A proof is read and checked in steps, each of which says what is wrong: [`EntryProof::read`] takes the bytes
//! apart; the caller finds the checkpoint that it names to be signed by the sender's log; [`EntryProof::verify`] shows
//! the entry to be in that tree and its openings to be of its commitment; [`Proven::opens`] compares an opened slot with
//! what was received. What the entry has to say is the caller's to judge.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use bytes::Bytes;
use prost::Message;

use super::Appended;
use super::checkpoint::Checkpoint;
use super::commitment::Opening;
use super::entry::{Entry, OpenedEntry, Slot};
use super::hidden::{self, OpenedError};
use super::proof::{self, ProofError};
use super::tree::{Hash, concatenated};
use crate::proto::kopuro::log::v1 as wire;

/// The largest proof taken, in bytes before base64.
pub const MAX_PROOF: usize = 16 << 10;

/// gRPC has binary metadata in base64, and receivers take it with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Which rule a proof breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProofError {
    /// Not base64, not protobuf, too large, or hashes that are not 32 bytes.
    #[error("it cannot be read: {0}")]
    Malformed(&'static str),
    /// The entry is not in the checkpoint's tree.
    #[error("the entry is not in the tree of the checkpoint: {0}")]
    Inclusion(ProofError),
    /// The entry hides its fields, and what is shown of them is not what it commits to.
    #[error("of what its entry hides: {0}")]
    Hidden(OpenedError),
    /// An opening is not of the entry's commitment.
    #[error("the opening of slot {0} is not of the entry's commitment")]
    Opening(u32),
    /// A slot that has to be opened is not.
    #[error("slot {0:?} is not opened")]
    NotOpened(Slot),
    /// The opened value is another than what was received.
    #[error("what the entry commits to in slot {0:?} is not what was received")]
    OtherValue(Slot),
}

/// A proof that has been read and not verified yet.
#[derive(Debug, Clone)]
pub struct EntryProof(wire::EntryProof);

/// A proof found to hold under a checkpoint.
#[derive(Debug, Clone)]
pub struct Proven {
    entry: Entry,
    commitment: Hash,
    openings: Vec<wire::SlotOpening>,
}

impl EntryProof {
    /// The proof of an entry just appended, with these openings. The values of payload digests stay out: the other side
    /// computes them.
    pub fn new(appended: &Appended, entry: Bytes, openings: &[Opening]) -> Self {
        let opening = |opening: &Opening| {
            let digest = [Slot::RequestDigest, Slot::ResponseDigest].iter().any(|slot| *slot as u8 == opening.slot);
            wire::SlotOpening {
                slot: opening.slot.into(),
                salt: Bytes::copy_from_slice(&opening.salt),
                value: if digest { Bytes::new() } else { opening.value.clone().into() },
                slots: opening.slots.into(),
                path: concatenated(&opening.path),
            }
        };
        Self(wire::EntryProof {
            entry,
            index: appended.index,
            path: concatenated(&appended.inclusion_proof()),
            checkpoint: appended.checkpoint.note.clone(),
            openings: openings.iter().map(opening).collect(),
        })
    }

    /// A proof as it is on the wire, past its base64.
    pub fn from_wire(proof: wire::EntryProof) -> Self {
        Self(proof)
    }

    /// As the value of binary metadata.
    pub fn to_base64(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.encode_to_vec())
    }

    /// Reads the value of binary metadata. Says nothing about whether the proof holds.
    pub fn read(base64: &[u8]) -> Result<Self, EntryProofError> {
        if base64.len() > MAX_PROOF.div_ceil(3) * 4 {
            return Err(EntryProofError::Malformed("too large"));
        }
        let bytes = BASE64.decode(base64).map_err(|_| EntryProofError::Malformed("not base64"))?;
        let proof = wire::EntryProof::decode(Bytes::from(bytes));
        Ok(Self(proof.map_err(|_| EntryProofError::Malformed("not an EntryProof"))?))
    }

    /// The checkpoint that it names: a signed note, not verified.
    pub fn checkpoint(&self) -> &str {
        &self.0.checkpoint
    }

    /// Checks inclusion under this checkpoint, which must be the one named and known to be the sender's, and the openings.
    pub fn verify(self, checkpoint: &Checkpoint) -> Result<Proven, EntryProofError> {
        let wire::EntryProof { entry: bytes, index, path, openings, .. } = self.0;
        let path = hashes(&path)?;
        proof::verify_inclusion(Hash::of_leaf(&bytes), index, checkpoint.size, &path, checkpoint.root)
            .map_err(EntryProofError::Inclusion)?;
        let entry = if hidden::is_hidden(&bytes) {
            hidden::verify_opened(&opened(index, &openings)?, &bytes).map_err(EntryProofError::Hidden)?
        } else {
            Entry::decode(bytes).map_err(|_| EntryProofError::Malformed("its entry is no Entry"))?
        };
        let commitment = entry.commitment.as_ref().try_into().map(Hash);
        let commitment = commitment.map_err(|_| EntryProofError::Malformed("its entry's commitment"))?;
        Ok(Proven { entry, commitment, openings })
    }
}

impl Proven {
    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the entry's commitment holds this value in this slot.
    pub fn opens(&self, slot: Slot, value: &[u8]) -> Result<(), EntryProofError> {
        let number = slot as u32;
        let opening = self.openings.iter().find(|opening| opening.slot == number);
        let opening = opening.ok_or(EntryProofError::NotOpened(slot))?;
        let bad = EntryProofError::Opening(number);
        let opened = Opening {
            slot: slot as u8,
            salt: opening.salt.as_ref().try_into().map_err(|_| bad.clone())?,
            value: value.to_vec(),
            slots: u8::try_from(opening.slots).map_err(|_| bad)?,
            path: hashes(&opening.path)?,
        };
        opened.verify(self.commitment).map_err(|_| EntryProofError::OtherValue(slot))
    }
}

/// What a hidden entry hides, as the other side may see it: it is of its own exchange.
fn opened(index: u64, openings: &[wire::SlotOpening]) -> Result<OpenedEntry, EntryProofError> {
    let opening = openings.iter().find(|opening| opening.slot == Slot::Hidden as u32);
    let opening = opening.ok_or(EntryProofError::NotOpened(Slot::Hidden))?;
    let path = hashes(&opening.path)?;
    Ok(OpenedEntry {
        index,
        hidden: opening.value.clone(),
        salt: opening.salt.clone(),
        slots: opening.slots,
        path: path.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect(),
    })
}

/// Hashes written one after another.
pub fn hashes(bytes: &[u8]) -> Result<Vec<Hash>, EntryProofError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() > 64 {
        return Err(EntryProofError::Malformed("a path is up to 64 hashes of 32 bytes"));
    }
    Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
}
