//! Entries of delayed and sealed exchanges, which show commitments only, and the two ways to the rest: this node's
//! private halves, and a later entry that opens an earlier one.
//!
//! A hidden entry has `publication`, `delay_days` and `commitment`. Its other fields are the value of SLOT_HIDDEN, an
//! encoded Entry; appended to the entry's bytes it gives the whole entry, as concatenated protobuf messages merge
//! (docs/protocol.md, "Delayed and sealed entries"). Pure. Where the private half is gone there is nothing to append:
//! the entry stays as it is, and that is no error.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::commitment::{self, Opening};
use super::entry::{Entry, FIRST_FURTHER, MAX_ENTRY, MAX_FURTHER, OpenedEntry, Publication, Slot};
use super::proof::ProofError;
use super::tree::Hash;

/// Milliseconds of a day, as `delay_days` counts them.
const DAY_MS: i64 = 86_400_000;

/// Whether exchanges of this class are hidden.
pub fn hides(publication: Publication) -> bool {
    matches!(publication, Publication::Delayed | Publication::Sealed)
}

/// Whether an entry's bytes are those of a hidden entry: a class that hides, and no kind. Quick for all others, which
/// begin with their kind.
pub fn is_hidden(entry: &[u8]) -> bool {
    const KIND: u8 = 1 << 3;
    if entry.first() == Some(&KIND) {
        return false;
    }
    let (mut rest, mut hides_fields) = (entry, false);
    while !rest.is_empty() {
        match field(&mut rest) {
            Some((1, _)) | None => return false,
            Some((9, Value::Number(class))) => {
                let class = i32::try_from(class).ok().and_then(|class| Publication::try_from(class).ok());
                hides_fields = class.is_some_and(hides);
            }
            Some(_) => {}
        }
    }
    hides_fields
}

/// When a delayed entry is to be opened, Unix milliseconds: `delay_days` after it was made. None for other classes.
pub fn due_unix_ms(entry: &Entry) -> Option<i64> {
    (entry.publication() == Publication::Delayed)
        .then(|| entry.time_unix_ms.saturating_add(i64::from(entry.delay_days).saturating_mul(DAY_MS)))
}

/// An entry as somebody sees it who may see what it hides: the leaf's bytes, and the hidden fields where they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The leaf's bytes.
    pub entry: Bytes,
    /// The value of its SLOT_HIDDEN; none where the entry hides nothing, or what it hides has been destroyed.
    pub hidden: Option<Bytes>,
}

impl Seen {
    /// With what the private half (encoded PrivateFields) says, where there is one.
    pub fn new(entry: Bytes, private: Option<&[u8]>) -> Self {
        let hidden = private.filter(|_| is_hidden(&entry)).and_then(|private| {
            let value = Private::read(private)?.value(Slot::Hidden)?;
            fits(value).map(|()| Bytes::copy_from_slice(value)).ok()
        });
        Self { entry, hidden }
    }

    /// The whole entry's bytes; those of the leaf where nothing more is known.
    pub fn whole(&self) -> Bytes {
        match &self.hidden {
            Some(hidden) => [&self.entry[..], &hidden[..]].concat().into(),
            None => self.entry.clone(),
        }
    }

    /// Whether fields stay hidden.
    pub fn stays_hidden(&self) -> bool {
        self.hidden.is_none() && is_hidden(&self.entry)
    }
}

/// Why an opening of an entry does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenedError {
    /// The entry hides nothing.
    #[error("the entry hides nothing")]
    NotHidden,
    /// What is said to be hidden is no entry, or sets what the entry itself shows.
    #[error("the hidden fields are no entry's: {0}")]
    Fields(&'static str),
    /// Numbers or hashes that no opening has.
    #[error("the opening is malformed: {0}")]
    Malformed(&'static str),
    /// The entry commits to something else.
    #[error("the entry does not commit to these fields: {0}")]
    Commitment(ProofError),
}

/// Checks that an opening (of KIND_OPENED) shows what the entry with these bytes hides; the whole entry. That the bytes
/// are those at `opened.index` is for the caller to know.
pub fn verify_opened(opened: &OpenedEntry, entry: &[u8]) -> Result<Entry, OpenedError> {
    if !is_hidden(entry) {
        return Err(OpenedError::NotHidden);
    }
    fits(&opened.hidden)?;
    let hash = |bytes: &Bytes| bytes.as_ref().try_into().map(Hash);
    let path: Result<Vec<Hash>, _> = opened.path.iter().map(hash).collect();
    let opening = Opening {
        slot: Slot::Hidden as u8,
        salt: opened.salt.as_ref().try_into().map_err(|_| OpenedError::Malformed("a salt has 32 bytes"))?,
        value: opened.hidden.to_vec(),
        slots: u8::try_from(opened.slots).map_err(|_| OpenedError::Malformed("too many slots"))?,
        path: path.map_err(|_| OpenedError::Malformed("a hash has 32 bytes"))?,
    };
    let shown = Entry::decode(entry).map_err(|_| OpenedError::NotHidden)?;
    let root = hash(&shown.commitment).map_err(|_| OpenedError::Malformed("a commitment has 32 bytes"))?;
    opening.verify(root).map_err(OpenedError::Commitment)?;
    let whole = [entry, &opened.hidden[..]].concat();
    Entry::decode(&whole[..]).map_err(|_| OpenedError::Fields("they do not merge"))
}

/// The opening of the entry at `index` with this private half (encoded PrivateFields); none where it hides nothing that
/// is known.
pub fn open(index: u64, private: &[u8]) -> Option<OpenedEntry> {
    let opening = Private::read(private)?.open(Slot::Hidden)?;
    Some(OpenedEntry {
        index,
        hidden: opening.value.into(),
        salt: Bytes::copy_from_slice(&opening.salt),
        slots: opening.slots.into(),
        path: opening.path.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect(),
    })
}

/// Hidden fields set nothing that the entry shows: merged, they would say something else than was signed first.
fn fits(hidden: &[u8]) -> Result<(), OpenedError> {
    if hidden.len() > MAX_ENTRY {
        return Err(OpenedError::Fields("too long"));
    }
    let mut rest = hidden;
    while !rest.is_empty() {
        match field(&mut rest) {
            None => return Err(OpenedError::Fields("no protobuf")),
            Some((9 | 10 | 15, _)) => return Err(OpenedError::Fields("they set what the entry shows")),
            Some(_) => {}
        }
    }
    Entry::decode(hidden).map(drop).map_err(|_| OpenedError::Fields("no entry of this version"))
}

/// A private half, borrowed from its bytes: no copy of a person's number is left behind unwiped.
pub struct Private<'p> {
    key: &'p [u8; 32],
    fields: Vec<(u8, &'p [u8])>,
}

impl<'p> Private<'p> {
    /// Reads encoded PrivateFields; none where they are not, or the key is gone.
    pub fn read(mut bytes: &'p [u8]) -> Option<Self> {
        let (mut key, mut fields) = (None, Vec::new());
        while !bytes.is_empty() {
            match field(&mut bytes)? {
                (1, Value::Bytes(value)) => key = Some(value.try_into().ok()?),
                (2, Value::Bytes(mut inner)) => {
                    let (mut slot, mut value) = (0, &inner[..0]);
                    while !inner.is_empty() {
                        match field(&mut inner)? {
                            (1, Value::Number(number)) => slot = u8::try_from(number).ok()?,
                            (2, Value::Bytes(bytes)) => value = bytes,
                            _ => {}
                        }
                    }
                    fields.push((slot, value));
                }
                _ => {}
            }
        }
        Some(Self { key: key?, fields })
    }

    /// What the entry of this half commits to.
    pub fn commitment(&self) -> Hash {
        commitment::root(self.key, &self.fields)
    }

    /// The value of a slot.
    pub fn value(&self, slot: Slot) -> Option<&'p [u8]> {
        self.value_at(slot as u8)
    }

    /// Everybody whom the entry names as a subject, with the slot that does: SLOT_SUBJECT and further ones, ascending.
    pub fn subjects(&self) -> Vec<(u8, &'p [u8])> {
        let first = self.value(Slot::Subject).map(|subject| (Slot::Subject as u8, subject));
        let further = self.further().into_iter();
        let further = further.filter_map(|slot| Some((slot, further_subject(self.value_at(slot)?)?)));
        first.into_iter().chain(further).collect()
    }

    /// The value of a slot by its number, further ones included.
    pub fn value_at(&self, slot: u8) -> Option<&'p [u8]> {
        self.fields.iter().rev().find(|(number, _)| *number == slot).map(|(_, value)| *value)
    }

    /// Numbers of the further slots that have a value, ascending.
    pub fn further(&self) -> Vec<u8> {
        let slots = self.fields.iter().map(|(slot, _)| *slot);
        let mut further: Vec<u8> =
            slots.filter(|slot| (FIRST_FURTHER..FIRST_FURTHER + MAX_FURTHER).contains(slot)).collect();
        further.sort_unstable();
        further.dedup();
        further
    }

    /// What opens a slot; none where it has no value.
    pub fn open(&self, slot: Slot) -> Option<Opening> {
        self.open_at(slot as u8)
    }

    /// The same of a slot by its number.
    pub fn open_at(&self, slot: u8) -> Option<Opening> {
        Opening::new(self.key, &self.fields, slot)
    }
}

impl std::fmt::Debug for Private<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Private(…)")
    }
}

/// The subject in an encoded FurtherField, where it holds one. Of a oneof the last field counts.
fn further_subject(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut subject = None;
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Value::Bytes(value)) => subject = Some(value),
            (2, Value::Bytes(_)) | (3, Value::Number(_)) => subject = None,
            _ => {}
        }
    }
    subject
}

/// A protobuf field's value, as far as anybody here cares.
enum Value<'v> {
    Number(u64),
    Bytes(&'v [u8]),
    Other,
}

/// Takes the next field off a message's bytes.
fn field<'v>(bytes: &mut &'v [u8]) -> Option<(u32, Value<'v>)> {
    let (tag, wire) = decode_key(bytes).ok()?;
    let value = match wire {
        WireType::Varint => Value::Number(decode_varint(bytes).ok()?),
        WireType::LengthDelimited => {
            let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (value, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Value::Bytes(value)
        }
        _ => {
            skip_field(wire, tag, bytes, DecodeContext::default()).ok()?;
            Value::Other
        }
    };
    Some((tag, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::entry::{Draft, ExchangeKey, Kind, Outcome, PrivateField, PrivateFields, Record, Side};
    use super::*;

    fn draft(publication: Publication, text: &str, time: i64) -> Draft {
        let mut draft = Draft::new(Kind::ResponseSent, Uuid::now_v7(), time, &ExchangeKey::generate());
        draft.publication = publication;
        draft.delay_days = if publication == Publication::Delayed { 30 } else { 0 };
        draft.consumer = text.into();
        draft.service = "kg.civil.v1.CivilRegistry".into();
        (draft.outcome, draft.grpc_status, draft.side) = (Outcome::Refused, 7, Side::Provider);
        draft.set(Slot::Subject, "20101199912345");
        draft
    }

    fn seen(record: &Record) -> Seen {
        Seen::new(record.entry.clone(), Some(&record.private))
    }

    #[test]
    fn a_hidden_entry_shows_its_class_and_commitment_and_opens_to_the_whole() {
        let public = draft(Publication::Public, "KG/GOV/1/tax", 7).seal();
        assert!(!is_hidden(&public.entry) && seen(&public).hidden.is_none());
        for class in [Publication::Delayed, Publication::Sealed] {
            let record = draft(class, "KG/GOV/1/tax", 7).seal();
            let shown = Entry::decode(record.entry.clone()).unwrap();
            let delay_days = shown.delay_days;
            let commitment = shown.commitment.clone();
            assert_eq!(shown, Entry { publication: class.into(), delay_days, commitment, ..Entry::default() });
            assert!(is_hidden(&record.entry) && record.entry.len() < 50);
            assert!(Seen::new(record.entry.clone(), None).stays_hidden(), "no private half: shown as it is");
            assert_eq!(Seen::new(record.entry.clone(), None).whole(), record.entry);

            let whole = Entry::decode(seen(&record).whole()).unwrap();
            assert_eq!((whole.kind(), whole.consumer.as_str()), (Kind::ResponseSent, "KG/GOV/1/tax"));
            assert_eq!((whole.publication(), whole.delay_days), (class, delay_days));

            let opened = open(3, &record.private).unwrap();
            assert_eq!(verify_opened(&opened, &record.entry).unwrap(), whole);
            let other = draft(class, "KG/GOV/1/tax", 7).seal();
            assert!(matches!(verify_opened(&opened, &other.entry), Err(OpenedError::Commitment(_))));
            assert_eq!(verify_opened(&opened, &public.entry), Err(OpenedError::NotHidden));
            let mut forged = opened.clone();
            forged.hidden = Entry { consumer: "KG/GOV/2/b".into(), ..Entry::default() }.encode_to_vec().into();
            assert!(matches!(verify_opened(&forged, &record.entry), Err(OpenedError::Commitment(_))));
            for damage in 0..4 {
                let mut bad = opened.clone();
                match damage {
                    0 => bad.salt = Bytes::from_static(b"short"),
                    1 => bad.slots = 300,
                    2 => bad.path.clear(),
                    _ => bad.path[0] = Bytes::from_static(b"short"),
                }
                assert!(verify_opened(&bad, &record.entry).is_err(), "{damage}");
            }
        }
    }

    #[test]
    fn hidden_fields_cannot_say_otherwise_than_the_entry() {
        // A log that commits to a class in the hidden half, to show one thing first and another later.
        let key = ExchangeKey::generate();
        let twisted = Entry { publication: Publication::Public.into(), ..Entry::default() }.encode_to_vec();
        let fields = [(Slot::Hidden as u8, twisted.as_slice())];
        let commitment = commitment::root(key.as_bytes(), &fields);
        let shown = Entry {
            publication: Publication::Sealed.into(),
            commitment: Bytes::copy_from_slice(&commitment.0),
            ..Entry::default()
        };
        let opening = Opening::new(key.as_bytes(), &fields, Slot::Hidden as u8).unwrap();
        let opened = OpenedEntry {
            index: 0,
            hidden: twisted.into(),
            salt: Bytes::copy_from_slice(&opening.salt),
            slots: opening.slots.into(),
            path: opening.path.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect(),
        };
        assert!(matches!(verify_opened(&opened, &shown.encode_to_vec()), Err(OpenedError::Fields(_))));
    }

    #[test]
    fn subjects_are_those_that_the_entry_commits_to() {
        let further = |who: &[u8]| [&[0x0a, who.len() as u8][..], who].concat();
        let field = |slot: i32, value: Vec<u8>| PrivateField { slot, value: value.into() };
        let half = PrivateFields {
            key: vec![7; 32].into(),
            fields: vec![
                field(10, further(b"ten")),
                field(2, b"two".to_vec()),
                field(9, further(b"not this one")),
                field(9, further(b"nine")),
                // Of a oneof the last counts; a committed field; no FurtherField; no further slot.
                field(11, [further(b"eleven"), vec![0x12, 0]].concat()),
                field(12, [vec![0x18, 5], further(b"twelve")].concat()),
                field(13, vec![0x0a, 9, 1]),
                field(3, further(b"three")),
                field(137, further(b"beyond")),
            ],
        };
        let half = half.encode_to_vec();
        let private = Private::read(&half).unwrap();
        let expected: [(u8, &[u8]); 4] = [(2, b"two"), (9, b"nine"), (10, b"ten"), (12, b"twelve")];
        assert_eq!(private.subjects(), expected);
        assert_eq!(private.further(), [9, 10, 11, 12, 13]);
        for (slot, _) in expected {
            private.open_at(slot).unwrap().verify(private.commitment()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn a_hidden_entry_merges_to_what_a_public_one_says(text in "\\PC{0,80}", time in any::<i64>(), sealed: bool) {
            let class = if sealed { Publication::Sealed } else { Publication::Delayed };
            let hidden = draft(class, &text, time);
            let mut public = hidden.clone();
            public.publication = Publication::Public;
            let whole = Entry::decode(seen(&hidden.seal()).whole()).unwrap();
            let plain = Entry::decode(public.seal().entry).unwrap();
            let (publication, delay_days) = (whole.publication, whole.delay_days);
            prop_assert_eq!(publication, i32::from(class));
            let commitment = whole.commitment.clone();
            prop_assert_eq!(whole, Entry { publication, delay_days, commitment, ..plain });
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let opened = OpenedEntry { hidden: bytes.clone().into(), ..OpenedEntry::default() };
            let _ = (is_hidden(&bytes), Private::read(&bytes).is_some(), verify_opened(&opened, &bytes).is_ok());
            let _ = Seen::new(bytes.clone().into(), Some(&bytes)).whole();
            if let Some(private) = Private::read(&bytes) {
                prop_assert!(private.subjects().iter().all(|(slot, _)| private.open_at(*slot).is_some()));
            }
            // Three further fields of these bytes: all of them subjects, or none.
            let fields = (9..12).map(|slot| PrivateField { slot, value: bytes.clone().into() }).collect();
            let half = PrivateFields { key: vec![7; 32].into(), fields }.encode_to_vec();
            let private = Private::read(&half).unwrap();
            prop_assert_eq!(private.further(), [9, 10, 11]);
            prop_assert!(matches!(private.subjects().len(), 0 | 3));
        }
    }
}
