//! The log record in the making: the public fields of an entry, the private values behind its commitment, and the
//! key of the exchange. A [`Draft`] is filled where the exchange is known and sealed into a [`Record`]: from then on
//! the entry is bytes, encoded once and never again.

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::commitment::{self, Opening};
use super::hidden;
pub use crate::proto::kopuro::log::v1::{
    CommittedField, Entry, FurtherField, IndexRange, Kind, OpenedEntry, Outcome, PrivateField, PrivateFields,
    Publication, Side, Slot, further_field,
};

/// The largest entry, and the largest private half, in bytes: an entry's length is 16 bits in a C2SP entry bundle.
pub const MAX_ENTRY: usize = 65_535;

/// The first slot without a name, which holds a [`FurtherField`].
pub const FIRST_FURTHER: u8 = 9;

/// The most further fields of one entry.
pub const MAX_FURTHER: u8 = 128;

/// What a private value takes besides its bytes: tags, lengths, number of the slot.
const SLOT_OVERHEAD: usize = 16;

/// K: 32 random bytes of one exchange, from which the salts of its entries are derived; those with further fields have each a key
/// of their own. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ExchangeKey([u8; 32]);

impl ExchangeKey {
    /// Draws a key for a new exchange, from the TLS library's generator: no system call for each.
    pub fn generate() -> Self {
        let mut key = Self([0; 32]);
        aws_lc_rs::rand::fill(&mut key.0)
            .expect("a generator seeded from the kernel does not fail once it has started");
        key
    }

    /// In the place of one, for an exchange that is not recorded.
    pub(crate) fn unused() -> Self {
        Self([0; 32])
    }

    /// The key kept in an entry's private half; none where it has not 32 bytes.
    pub fn from_private(private: &PrivateFields) -> Option<Self> {
        Some(Self(private.key.as_ref().try_into().ok()?))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExchangeKey(…)")
    }
}

/// An entry before it is encoded. The public fields are those of [`Entry`]; see `proto/kopuro/log/v1/entry.proto`.
#[derive(Clone)]
#[allow(missing_docs, reason = "the fields of Entry, documented there")]
pub struct Draft {
    pub kind: Kind,
    pub exchange_id: Uuid,
    pub time_unix_ms: i64,
    pub consumer: String,
    pub provider: String,
    pub service: String,
    pub method: String,
    pub legal_basis: String,
    pub publication: Publication,
    pub delay_days: u32,
    pub outcome: Outcome,
    pub grpc_status: u32,
    pub reason: String,
    pub side: Side,
    pub peer_checkpoint: String,
    pub other_peer_checkpoint: String,
    pub opened: Option<OpenedEntry>,
    pub erased: Vec<IndexRange>,
    /// SHA-256 of the descriptor set by which the messages were checked.
    pub schema: Option<[u8; 32]>,
    key: ExchangeKey,
    private: Vec<(u8, Zeroizing<Vec<u8>>)>,
}

impl Draft {
    /// A draft with nothing but what every entry has; the key is the exchange's own.
    pub fn new(kind: Kind, exchange_id: Uuid, time_unix_ms: i64, key: &ExchangeKey) -> Self {
        Self {
            kind,
            exchange_id,
            time_unix_ms,
            consumer: String::new(),
            provider: String::new(),
            service: String::new(),
            method: String::new(),
            legal_basis: String::new(),
            publication: Publication::Unspecified,
            delay_days: 0,
            outcome: Outcome::Unspecified,
            grpc_status: 0,
            reason: String::new(),
            side: Side::Unspecified,
            peer_checkpoint: String::new(),
            other_peer_checkpoint: String::new(),
            opened: None,
            erased: Vec::new(),
            schema: None,
            key: key.clone(),
            private: Vec::new(),
        }
    }

    /// Commits to a private value. The last one given for a slot counts.
    pub fn set(&mut self, slot: Slot, value: impl Into<Vec<u8>>) -> &mut Self {
        let slot = slot as u8;
        self.private.retain(|(other, _)| *other != slot);
        self.private.push((slot, Zeroizing::new(value.into())));
        self
    }

    /// Commits to one more subject or a committed field, in the next slot that has no name; false, and nothing is added,
    /// when there are [`MAX_FURTHER`] already, or where the entry would become too large.
    pub fn add(&mut self, field: &FurtherField) -> bool {
        self.add_encoded(Zeroizing::new(field.encode_to_vec())).is_ok()
    }

    /// The same of an encoded field; gives it back where there is no room.
    pub(super) fn add_encoded(&mut self, field: Zeroizing<Vec<u8>>) -> Result<(), Zeroizing<Vec<u8>>> {
        let next = self.private.iter().map(|(slot, _)| slot + 1).fold(FIRST_FURTHER, u8::max);
        if next >= FIRST_FURTHER + MAX_FURTHER || self.takes() + SLOT_OVERHEAD + field.len() > MAX_ENTRY {
            return Err(field);
        }
        if next == FIRST_FURTHER {
            // Entries of one exchange hold different persons in the same further slot: with the same key it had the same salt,
            // and whoever were shown one, and the neighbour of the other, could guess the other.
            self.key = ExchangeKey::generate();
        }
        self.private.push((next, field));
        Ok(())
    }

    /// Whether so many further fields, of so many bytes in all (paths and values), find room.
    pub(super) fn has_room_for(&self, fields: usize, bytes: usize) -> bool {
        // Tags and lengths within a field.
        const INNER: usize = 32;
        let there = self.private.iter().filter(|(slot, _)| *slot >= FIRST_FURTHER).count();
        there + fields <= usize::from(MAX_FURTHER)
            && self.takes() + bytes + fields * (SLOT_OVERHEAD + INNER) <= MAX_ENTRY
    }

    /// How many bytes its private half takes at most, once it is sealed.
    fn takes(&self) -> usize {
        // The key, the seal, and of what is hidden all but the texts.
        const FIXED: usize = 512;
        let private: usize = self.private.iter().map(|(_, value)| SLOT_OVERHEAD + value.len()).sum();
        let texts = [&self.consumer, &self.provider, &self.service, &self.method, &self.legal_basis, &self.reason];
        let notes = self.peer_checkpoint.len() + self.other_peer_checkpoint.len();
        FIXED + private + notes + texts.iter().map(|text| SLOT_OVERHEAD + text.len()).sum::<usize>()
    }

    /// An entry of its own for more subjects and committed fields of the same exchange: KIND_SUBJECTS, with the same names,
    /// class and schema, and nothing private yet.
    pub fn for_subjects(&self, time_unix_ms: i64) -> Self {
        Self {
            consumer: self.consumer.clone(),
            provider: self.provider.clone(),
            service: self.service.clone(),
            method: self.method.clone(),
            legal_basis: self.legal_basis.clone(),
            publication: self.publication,
            delay_days: self.delay_days,
            schema: self.schema,
            ..Self::new(Kind::Subjects, self.exchange_id, time_unix_ms, &self.key)
        }
    }

    /// Computes the commitment and encodes both halves. Of a delayed or sealed exchange the entry shows its class and the
    /// commitment; everything else goes into SLOT_HIDDEN.
    pub fn seal(self) -> Record {
        self.seal_opening(&[]).0
    }

    /// The same, with the openings of those of these slots that have a value, and of what the entry hides.
    pub fn seal_opening(mut self, open: &[Slot]) -> (Record, Vec<Opening>) {
        let mut open: Vec<u8> = open.iter().map(|slot| *slot as u8).collect();
        let mut entry = self.take_public();
        if hidden::hides(self.publication) {
            let hidden = std::mem::take(&mut entry).encode_to_vec();
            self.set(Slot::Hidden, hidden);
            open.push(Slot::Hidden as u8);
        }
        let fields: Vec<(u8, &[u8])> = self.private.iter().map(|(slot, value)| (*slot, value.as_slice())).collect();
        let (commitment, openings) = commitment::commit(self.key.as_bytes(), &fields, &open);
        let private = encode_private(&self.key, &self.private);
        entry.publication = self.publication.into();
        entry.delay_days = self.delay_days;
        entry.commitment = Bytes::copy_from_slice(&commitment.0);
        (Record { entry: entry.encode_to_vec().into(), private }, openings)
    }

    /// Everything that a class may hide.
    fn take_public(&mut self) -> Entry {
        use std::mem::take;
        // An entry that is of no exchange has no id.
        let id = (!self.exchange_id.is_nil()).then(|| Bytes::copy_from_slice(self.exchange_id.as_bytes()));
        Entry {
            kind: self.kind.into(),
            exchange_id: id.unwrap_or_default(),
            time_unix_ms: self.time_unix_ms,
            consumer: take(&mut self.consumer),
            provider: take(&mut self.provider),
            service: take(&mut self.service),
            method: take(&mut self.method),
            legal_basis: take(&mut self.legal_basis),
            outcome: self.outcome.into(),
            grpc_status: self.grpc_status,
            reason: take(&mut self.reason),
            side: self.side.into(),
            peer_checkpoint: take(&mut self.peer_checkpoint),
            other_peer_checkpoint: take(&mut self.other_peer_checkpoint),
            opened: self.opened.take(),
            erased: take(&mut self.erased),
            schema: self.schema.take().map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
            ..Entry::default()
        }
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let exchange = self.exchange_id;
        f.debug_struct("Draft").field("kind", &self.kind).field("exchange_id", &exchange).finish_non_exhaustive()
    }
}

/// A sealed draft: what [`super::Log::append`] takes.
#[derive(Clone)]
pub struct Record {
    /// The entry's bytes: the leaf.
    pub entry: Bytes,
    /// The private half: [`PrivateFields`], encoded. Wiped when dropped.
    pub private: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("entry_bytes", &self.entry.len()).finish_non_exhaustive()
    }
}

/// [`PrivateFields`] as protobuf, written here field by field so that no copy is left behind unwiped.
fn encode_private(key: &ExchangeKey, fields: &[(u8, Zeroizing<Vec<u8>>)]) -> Zeroizing<Vec<u8>> {
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
    let inner = |slot: u8, value: &[u8]| {
        let number = u64::from(slot);
        let slot_len = if number == 0 { 0 } else { key_len(1) + encoded_len_varint(number) };
        let len = value.len() as u64;
        let value_len = if value.is_empty() { 0 } else { key_len(2) + encoded_len_varint(len) + value.len() };
        slot_len + value_len
    };
    let outer = |(slot, value): &(u8, Zeroizing<Vec<u8>>)| {
        let len = inner(*slot, value);
        key_len(2) + encoded_len_varint(len as u64) + len
    };
    // Reserved in full: growing would leave the old buffer unwiped.
    let total = 2 + 32 + fields.iter().map(outer).sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(total));
    encode_key(1, WireType::LengthDelimited, &mut *out);
    encode_varint(32, &mut *out);
    out.extend_from_slice(key.as_bytes());
    for (slot, value) in fields {
        encode_key(2, WireType::LengthDelimited, &mut *out);
        encode_varint(inner(*slot, value) as u64, &mut *out);
        if *slot != 0 {
            encode_key(1, WireType::Varint, &mut *out);
            encode_varint(u64::from(*slot), &mut *out);
        }
        if !value.is_empty() {
            encode_key(2, WireType::LengthDelimited, &mut *out);
            encode_varint(value.len() as u64, &mut *out);
            out.extend_from_slice(value);
        }
    }
    debug_assert_eq!(out.len(), total);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_halves_decode_and_open() {
        let key = ExchangeKey::generate();
        let mut draft = Draft::new(Kind::RequestSent, Uuid::now_v7(), 1_700_000_000_000, &key);
        draft.consumer = "KG/GOV/1/tax".into();
        draft.set(Slot::RequestDigest, [9; 32]).set(Slot::Subject, "wrong").set(Slot::Subject, "20101199912345");
        draft.set(Slot::Case, "").set(Slot::Query, vec![1; 300]);
        let record = draft.seal();

        let entry = Entry::decode(record.entry.clone()).unwrap();
        assert_eq!((entry.kind(), entry.consumer.as_str()), (Kind::RequestSent, "KG/GOV/1/tax"));
        let private = PrivateFields::decode(&record.private[..]).unwrap();
        assert_eq!(private.encode_to_vec(), *record.private, "as prost would have written it");
        let key = ExchangeKey::from_private(&private).unwrap();
        let fields: Vec<(u8, &[u8])> = private.fields.iter().map(|f| (f.slot as u8, &f.value[..])).collect();
        let root = super::super::tree::Hash(entry.commitment.as_ref().try_into().unwrap());
        for slot in [Slot::RequestDigest, Slot::Subject, Slot::Case, Slot::Query] {
            Opening::new(key.as_bytes(), &fields, slot as u8).unwrap().verify(root).unwrap();
        }
        assert!(!format!("{draft_debug:?}", draft_debug = record).contains("2010"));
    }
}
