//! One entry, as far as the index cares: borrowed from its bytes, without the allocations of a full decoding, since
//! every entry of the log passes here. And how the entries of one exchange add up.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::log::entry::{Entry, Kind, Outcome};
use crate::log::hidden::due_unix_ms;

/// The indexed fields of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'e> {
    pub(super) kind: Kind,
    /// None where it is of no exchange.
    pub(super) exchange_id: Option<[u8; 16]>,
    pub(super) time_unix_ms: i64,
    pub(super) consumer: &'e str,
    pub(super) provider: &'e str,
    pub(super) service: &'e str,
    pub(super) method: &'e str,
    pub(super) legal_basis: &'e str,
    pub(super) publication: i32,
    pub(super) delay_days: u32,
    pub(super) outcome: Outcome,
    pub(super) reason: &'e str,
    /// Which entry it opens.
    pub(super) opened: Option<u64>,
}

impl<'e> Facts<'e> {
    /// Reads a whole entry; none where it is none.
    pub(super) fn read(mut bytes: &'e [u8]) -> Option<Self> {
        let mut facts = Self {
            kind: Kind::Unspecified,
            exchange_id: None,
            time_unix_ms: 0,
            consumer: "",
            provider: "",
            service: "",
            method: "",
            legal_basis: "",
            publication: 0,
            delay_days: 0,
            outcome: Outcome::Unspecified,
            reason: "",
            opened: None,
        };
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).ok()?;
            match (tag, wire) {
                (1, WireType::Varint) => facts.kind = enumeration(&mut bytes)?,
                (2, WireType::LengthDelimited) => facts.exchange_id = delimited(&mut bytes)?.try_into().ok(),
                (3, WireType::Varint) => facts.time_unix_ms = decode_varint(&mut bytes).ok()?.cast_signed(),
                (4, WireType::LengthDelimited) => facts.consumer = text(&mut bytes)?,
                (5, WireType::LengthDelimited) => facts.provider = text(&mut bytes)?,
                (6, WireType::LengthDelimited) => facts.service = text(&mut bytes)?,
                (7, WireType::LengthDelimited) => facts.method = text(&mut bytes)?,
                (8, WireType::LengthDelimited) => facts.legal_basis = text(&mut bytes)?,
                (9, WireType::Varint) => facts.publication = i32::try_from(decode_varint(&mut bytes).ok()?).ok()?,
                (10, WireType::Varint) => facts.delay_days = u32::try_from(decode_varint(&mut bytes).ok()?).ok()?,
                (11, WireType::Varint) => facts.outcome = enumeration(&mut bytes)?,
                (13, WireType::LengthDelimited) => facts.reason = text(&mut bytes)?,
                (19, WireType::LengthDelimited) => facts.opened = Some(target(delimited(&mut bytes)?)?),
                _ => skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?,
            }
        }
        Some(facts)
    }

    /// Whether it is of an exchange, or an auditor's look, and not about the log itself.
    pub(super) fn of_exchange(&self) -> Option<[u8; 16]> {
        let about_the_log = matches!(self.kind, Kind::Erasure | Kind::Opened | Kind::Evidence);
        self.exchange_id.filter(|_| !about_the_log)
    }

    /// When it is to be opened, where it is delayed.
    pub(super) fn due_unix_ms(&self) -> Option<i64> {
        let entry = Entry {
            publication: self.publication,
            delay_days: self.delay_days,
            time_unix_ms: self.time_unix_ms,
            ..Entry::default()
        };
        due_unix_ms(&entry)
    }
}

/// The index in an OpenedEntry.
fn target(mut bytes: &[u8]) -> Option<u64> {
    let mut index = 0;
    while !bytes.is_empty() {
        match decode_key(&mut bytes).ok()? {
            (1, WireType::Varint) => index = decode_varint(&mut bytes).ok()?,
            (tag, wire) => skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?,
        }
    }
    Some(index)
}

fn delimited<'e>(bytes: &mut &'e [u8]) -> Option<&'e [u8]> {
    let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (value, rest) = bytes.split_at_checked(len)?;
    bytes.advance(bytes.len() - rest.len());
    Some(value)
}

fn text<'e>(bytes: &mut &'e [u8]) -> Option<&'e str> {
    std::str::from_utf8(delimited(bytes)?).ok()
}

fn enumeration<E: TryFrom<i32> + Default>(bytes: &mut &[u8]) -> Option<E> {
    let number = i32::try_from(decode_varint(bytes).ok()?).ok()?;
    Some(E::try_from(number).unwrap_or_default())
}

/// How far an exchange has come, by its entries in order. It is open while a side of it is: a log that has both sides
/// sees it end when the second one closes. It ended well where every side did; else as the last entry says that did
/// not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    open_sides: u32,
    outcome: Outcome,
}

impl Progress {
    /// Takes in the next entry; true where it now says how the exchange ended, reason and status included.
    pub fn add(&mut self, kind: Kind, outcome: Outcome) -> bool {
        match kind {
            Kind::RequestSent | Kind::RequestReceived => self.open_sides += 1,
            Kind::ResponseSent | Kind::ResponseReceived | Kind::Failed => {
                self.open_sides = self.open_sides.saturating_sub(1);
            }
            // A refusal opens and closes its own side at once, and leaves another side open.
            Kind::Refused
            | Kind::Audit
            | Kind::RequestCompleted
            | Kind::Subjects
            | Kind::Erasure
            | Kind::Opened
            | Kind::Evidence
            | Kind::Unspecified => {}
        }
        let tells = match outcome {
            Outcome::Unspecified => false,
            Outcome::Ok => matches!(self.outcome, Outcome::Unspecified | Outcome::Ok),
            Outcome::Error | Outcome::Refused | Outcome::Failed => true,
        };
        if tells {
            self.outcome = outcome;
        }
        tells
    }

    /// Takes in the next entry, decoded.
    pub fn add_entry(&mut self, entry: &Entry) -> bool {
        self.add(entry.kind(), entry.outcome())
    }

    /// Whether a side of it is still open.
    pub fn is_open(&self) -> bool {
        self.open_sides > 0
    }

    /// How it ended; unspecified while it is open.
    pub fn outcome(&self) -> Outcome {
        if self.is_open() { Outcome::Unspecified } else { self.outcome }
    }

    pub(super) fn parts(&self) -> (u32, Outcome) {
        (self.open_sides, self.outcome)
    }

    pub(super) fn from_parts(open_sides: u32, outcome: Outcome) -> Self {
        Self { open_sides, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn reads_what_prost_writes_and_nothing_else() {
        let entry = Entry {
            kind: Kind::ResponseSent.into(),
            exchange_id: vec![7; 16].into(),
            time_unix_ms: -1,
            consumer: "KG/GOV/1/tax".into(),
            provider: "KG/GOV/2/register".into(),
            service: "kg.civil.v1.CivilRegistry".into(),
            method: "GetPerson".into(),
            legal_basis: "TAX-12".into(),
            publication: 2,
            delay_days: 30,
            outcome: Outcome::Refused.into(),
            grpc_status: 7,
            reason: "GRANT_MISSING".into(),
            side: 1,
            commitment: vec![1; 32].into(),
            peer_checkpoint: "note".into(),
            ..Entry::default()
        };
        let bytes = entry.encode_to_vec();
        let facts = Facts::read(&bytes).unwrap();
        assert_eq!((facts.kind, facts.exchange_id, facts.time_unix_ms), (Kind::ResponseSent, Some([7; 16]), -1));
        assert_eq!((facts.consumer, facts.provider), ("KG/GOV/1/tax", "KG/GOV/2/register"));
        assert_eq!((facts.service, facts.method), ("kg.civil.v1.CivilRegistry", "GetPerson"));
        assert_eq!((facts.legal_basis, facts.publication), ("TAX-12", 2));
        assert_eq!((facts.outcome, facts.reason), (Outcome::Refused, "GRANT_MISSING"));

        for cut in 0..bytes.len() {
            // Cut anywhere: refused, or read up to a field's end; never a panic.
            let _ = Facts::read(&bytes[..cut]);
        }
        assert!(Facts::read(b"").is_some_and(|facts| facts.of_exchange().is_none()));
        assert!(Facts::read(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_none());
    }

    #[test]
    fn an_exchange_ends_with_its_last_side_and_badly_if_any_did() {
        let mut both = Progress::default();
        both.add(Kind::RequestSent, Outcome::Unspecified);
        both.add(Kind::RequestReceived, Outcome::Unspecified);
        assert!(both.add(Kind::Failed, Outcome::Failed));
        assert_eq!((both.is_open(), both.outcome()), (true, Outcome::Unspecified));
        assert!(!both.add(Kind::ResponseSent, Outcome::Ok));
        assert_eq!((both.is_open(), both.outcome()), (false, Outcome::Failed));

        let mut refused = Progress::default();
        refused.add(Kind::RequestSent, Outcome::Unspecified);
        refused.add(Kind::Refused, Outcome::Refused);
        assert!(refused.is_open());
        refused.add(Kind::ResponseReceived, Outcome::Refused);
        assert_eq!(refused.outcome(), Outcome::Refused);
    }
}
