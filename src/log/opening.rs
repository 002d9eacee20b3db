//! Opening files: what shows somebody outside that an entry of a published log commits to this value. JSON, version 1;
//! docs/protocol.md has the format, docs/opening.md a procedure that verifies one without this program.
//!
//! Pure. A file holds the entry's bytes, for each opened field value, salt and path to the entry's commitment, and the
//! entry's inclusion proof under a signed checkpoint. It shows one field at a time: nothing of the others follows from it.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::checkpoint::Checkpoint;
use super::commitment::Opening;
use super::entry::{Entry, FIRST_FURTHER, MAX_FURTHER, OpenedEntry, Slot};
use super::error::LogError;
use super::hidden::{self, OpenedError, Private};
use super::proof::{self, MakeError, ProofError};
use super::tree::{Hash, Subtrees};
use crate::trust::note::Verifier;

/// Name and version of the format.
pub const FORMAT: &str = "kopuro-opening/v1";

/// Longer than any opening file: an entry, all its values, in base64.
pub const MAX_BYTES: u64 = 1 << 20;

/// The slots with names, by those that opening files and the command line use.
pub const FIELDS: [(&str, Slot); 9] = [
    ("request-digest", Slot::RequestDigest),
    ("response-digest", Slot::ResponseDigest),
    ("subject", Slot::Subject),
    ("user", Slot::User),
    ("case", Slot::Case),
    ("address", Slot::Address),
    ("sizes", Slot::Sizes),
    ("query", Slot::Query),
    ("hidden", Slot::Hidden),
];

/// What names of slots without a name of their own begin with; the number follows: `further-9`.
const FURTHER: &str = "further-";

/// The name of a slot.
pub fn field_name(slot: u8) -> Cow<'static, str> {
    match FIELDS.iter().find(|(_, named)| *named as u8 == slot) {
        Some((name, _)) => (*name).into(),
        None => format!("{FURTHER}{slot}").into(),
    }
}

/// The slot with this name.
pub fn slot_named(name: &str) -> Option<u8> {
    let named = FIELDS.iter().find(|(other, _)| *other == name).map(|(_, slot)| *slot as u8);
    // One name for each slot: no signs, no zeros before.
    named
        .or_else(|| name.strip_prefix(FURTHER)?.parse().ok().filter(|slot| is_slot(*slot) && field_name(*slot) == name))
}

/// Whether entries have this slot: those with names, and further ones.
pub fn is_slot(slot: u8) -> bool {
    slot < FIRST_FURTHER + MAX_FURTHER
}

/// Why an opening cannot be made, or does not hold: each variant a rule.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The entry commits to no value in this field.
    #[error("the entry has no {field}{}", further_in_words(.further))]
    Absent {
        /// Which field.
        field: Cow<'static, str>,
        /// Of a further field: the slots of those that there are.
        further: Vec<u8>,
    },
    /// The private half is gone.
    #[error("the entry's private half is gone: nothing of it can be opened any more")]
    Destroyed,
    /// The file cannot be read as one.
    #[error("it is no opening file of version 1: {0}")]
    Format(String),
    /// The checkpoint is not signed by the log's key, or another log's.
    #[error(transparent)]
    Checkpoint(#[from] LogError),
    /// The checkpoint's tree does not hold the entry at its index.
    #[error("the entry is not in the log at this index: {0}")]
    Inclusion(ProofError),
    /// The entry's bytes are no entry.
    #[error("the entry's bytes are no entry: {0}")]
    Entry(&'static str),
    /// The entry commits to another value.
    #[error("the entry does not commit to this {field}: {why}")]
    Value {
        /// Which field.
        field: Cow<'static, str>,
        /// What the proof's check said.
        why: ProofError,
    },
    /// Hidden fields that are none.
    #[error(transparent)]
    Hidden(#[from] OpenedError),
    /// The trusted checkpoint is of another tree, or of an older one.
    #[error("the trusted checkpoint has {trusted} entries, the file's {file}: make the opening for the trusted one")]
    OtherSize {
        /// Entries by the trusted checkpoint.
        trusted: u64,
        /// Entries by the file's.
        file: u64,
    },
    /// The published log does not continue the file's tree.
    #[error("the published log is not a continuation of the tree under which this was shown: {0}")]
    OtherHistory(ProofError),
    /// The published log's tiles cannot be had.
    #[error("the published log: {0}")]
    Published(String),
    /// Two histories of one size.
    #[error("the trusted checkpoint and the file's have {0} entries and different roots: the log shows two histories")]
    OtherRoot(u64),
}

impl OpeningError {
    /// That an entry with this private half has no value in this slot.
    pub fn absent(slot: u8, private: &Private<'_>) -> Self {
        let further = if slot < FIRST_FURTHER { Vec::new() } else { private.further() };
        Self::Absent { field: field_name(slot), further }
    }
}

fn further_in_words(further: &[u8]) -> String {
    match further {
        [] => String::new(),
        [only] => format!(": of these it has {FURTHER}{only}"),
        [first, .., last] => format!(": of these it has {FURTHER}{first} to {FURTHER}{last}"),
    }
}

/// An opening file.
#[derive(Clone, Serialize, Deserialize)]
pub struct OpeningFile {
    format: String,
    /// Where the entry is.
    pub index: u64,
    entry: Base64,
    openings: Vec<OpenedField>,
    proof: Vec<Base64>,
    checkpoint: String,
}

/// One opened field.
#[derive(Clone, Serialize, Deserialize)]
struct OpenedField {
    field: String,
    slot: u8,
    value: Base64,
    salt: Base64,
    slots: u8,
    path: Vec<Base64>,
}

/// What an opening file was verified to show.
#[derive(Clone)]
pub struct Shown {
    /// Where the entry is.
    pub index: u64,
    /// The entry; whole where its hidden fields are opened.
    pub entry: Entry,
    /// The opened fields: slots and values.
    pub fields: Vec<(u8, Zeroizing<Vec<u8>>)>,
    /// The checkpoint under which it was shown.
    pub checkpoint: Checkpoint,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("index", &self.index).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OpeningFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpeningFile").field("index", &self.index).finish_non_exhaustive()
    }
}

impl OpeningFile {
    /// Opens these fields of the entry at `index`; `proof` is its inclusion proof under `checkpoint`.
    pub fn new(
        index: u64,
        entry: &[u8],
        private: &[u8],
        slots: &[u8],
        proof: &[Hash],
        checkpoint: &Checkpoint,
    ) -> Result<Self, OpeningError> {
        let private = Private::read(private).ok_or(OpeningError::Destroyed)?;
        let open = |slot: &u8| private.open_at(*slot).ok_or_else(|| OpeningError::absent(*slot, &private));
        let openings = slots.iter().map(open).collect::<Result<_, OpeningError>>()?;
        let proof: Vec<Vec<u8>> = proof.iter().map(|hash| hash.0.to_vec()).collect();
        Ok(Self::of_openings(index, entry, openings, &proof, &checkpoint.note))
    }

    /// The same, from openings that were made elsewhere; nothing is checked.
    pub fn of_openings(index: u64, entry: &[u8], openings: Vec<Opening>, proof: &[Vec<u8>], checkpoint: &str) -> Self {
        let openings = openings.into_iter().map(OpenedField::new).collect();
        let proof = proof.iter().cloned().map(Base64).collect();
        Self {
            format: FORMAT.into(),
            index,
            entry: Base64(entry.to_vec()),
            openings,
            proof,
            checkpoint: checkpoint.into(),
        }
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, OpeningError> {
        if text.len() as u64 > MAX_BYTES {
            return Err(OpeningError::Format("it is too long".into()));
        }
        let file: Self = serde_json::from_str(text).map_err(|error| OpeningError::Format(error.to_string()))?;
        if file.format != FORMAT {
            return Err(OpeningError::Format(format!("its format is {:?}", file.format)));
        }
        Ok(file)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        // A struct of strings, numbers and lists always has a JSON.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Checks the whole: this log's signature, the entry's place in the log, every opened field.
    pub fn verify(&self, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<Shown, OpeningError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, log)?;
        let proof = self.proof.iter().map(Base64::hash).collect::<Result<Vec<_>, _>>()?;
        let leaf = Hash::of_leaf(&self.entry.0);
        proof::verify_inclusion(leaf, self.index, checkpoint.size, &proof, checkpoint.root)
            .map_err(OpeningError::Inclusion)?;
        let mut entry =
            Entry::decode(&self.entry.0[..]).map_err(|_| OpeningError::Entry("no protobuf of this version"))?;
        let root = entry.commitment.as_ref().try_into().map(Hash);
        let root = root.map_err(|_| OpeningError::Entry("its commitment has not 32 bytes"))?;
        if self.openings.is_empty() {
            return Err(OpeningError::Format("it opens nothing".into()));
        }
        let mut fields = Vec::new();
        for opened in &self.openings {
            let slot = opened.slot()?;
            let path = opened.path.iter().map(Base64::hash).collect::<Result<Vec<_>, _>>()?;
            let salt = opened.salt.hash()?.0;
            let value = opened.value.0.clone();
            let opening = Opening { slot: opened.slot, salt, value, slots: opened.slots, path };
            opening.verify(root).map_err(|why| OpeningError::Value { field: field_name(slot), why })?;
            if slot == Slot::Hidden as u8 {
                entry = hidden::verify_opened(&opened.as_opened_entry(self.index), &self.entry.0)?;
            }
            fields.push((slot, Zeroizing::new(opened.value.0.clone())));
        }
        Ok(Shown { index: self.index, entry, fields, checkpoint })
    }
}

impl Shown {
    /// That a checkpoint which was got another way is the one under which this was shown.
    pub fn check_against(&self, trusted: &Checkpoint) -> Result<(), OpeningError> {
        let shown = &self.checkpoint;
        if trusted.size != shown.size {
            return Err(OpeningError::OtherSize { trusted: trusted.size, file: shown.size });
        }
        if trusted.root == shown.root { Ok(()) } else { Err(OpeningError::OtherRoot(shown.size)) }
    }

    /// That the published log with this checkpoint and this tree continues the one under which this was shown. What the
    /// tree's source says need not be believed: it has to make a proof.
    pub fn check_within<S>(&self, published: &Checkpoint, tree: &mut S) -> Result<(), OpeningError>
    where
        S: Subtrees,
        S::Error: std::fmt::Display,
    {
        let shown = &self.checkpoint;
        if published.size <= shown.size {
            return self.check_against(published);
        }
        let proof = proof::consistency(tree, shown.size, published.size).map_err(|error| match error {
            MakeError::Beyond(old, new) => OpeningError::OtherSize { trusted: new, file: old },
            MakeError::Source(error) => OpeningError::Published(error.to_string()),
        })?;
        proof::verify_consistency(shown.size, shown.root, published.size, published.root, &proof)
            .map_err(OpeningError::OtherHistory)
    }
}

impl OpenedField {
    fn new(opening: Opening) -> Self {
        Self {
            field: field_name(opening.slot).into(),
            slot: opening.slot,
            salt: Base64(opening.salt.to_vec()),
            slots: opening.slots,
            path: opening.path.iter().map(|hash| Base64(hash.0.to_vec())).collect(),
            value: Base64(opening.value),
        }
    }

    fn slot(&self) -> Result<u8, OpeningError> {
        let named = slot_named(&self.field).filter(|slot| *slot == self.slot);
        named.ok_or_else(|| OpeningError::Format("a field's name and slot disagree".into()))
    }

    fn as_opened_entry(&self, index: u64) -> OpenedEntry {
        OpenedEntry {
            index,
            hidden: self.value.0.clone().into(),
            salt: self.salt.0.clone().into(),
            slots: self.slots.into(),
            path: self.path.iter().map(|hash| hash.0.clone().into()).collect(),
        }
    }
}

/// Bytes, in JSON as standard base64.
#[derive(Clone)]
struct Base64(Vec<u8>);

impl Base64 {
    fn hash(&self) -> Result<Hash, OpeningError> {
        let bytes = self.0.as_slice().try_into();
        bytes.map(Hash).map_err(|_| OpeningError::Format("a hash or salt has not 32 bytes".into()))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}
