//! What is done with the values that are of note: rules are put to them, subjects and committed values are taken, and what does
//! not go on is cut and named.

use super::cut::Frame;
use super::rules;
use super::seen::Seen;
use super::table::{COUNTED, End, Field, Form, LENGTH, NO_BIT, NOTED, Node, Part, Scalar, Slot};
use super::utf8;
use super::walk::{Fault, Walk, Walked};
use super::wire::{self, What};
use super::{MAX_SUBJECT_BYTES, MAX_WITHHELD_PATHS};

const MISSING: What = "a required field is missing";
const LONG_SUBJECT: What = "a subject of more than 256 bytes";
const SUBJECT_NOT_TEXT: What = "a subject that is not UTF-8";

/// How many names of unknown fields are made for one message at most.
const MAX_NAMINGS: u32 = 4 * MAX_WITHHELD_PATHS as u32;

impl Walk<'_, '_> {
    /// A field of note has come, and is well formed.
    #[inline(never)]
    pub(super) fn special(&mut self, slot: Slot, value: &[u8], seen: &mut Seen, counts: &mut [usize]) -> Walked<()> {
        if slot.has(NOTED) {
            self.note(slot, value)?;
            let own_bit = self.field(slot.field).map_or(NO_BIT, |field| field.own_bit);
            if own_bit != NO_BIT {
                seen.insert(own_bit);
            }
        }
        if slot.has(COUNTED) {
            self.count(slot, 1, counts);
        }
        Ok(())
    }

    fn field(&self, index: u32) -> Option<&Field> {
        self.plan.fields.get(index as usize)
    }

    /// Adds to how often a list or map has come.
    pub(super) fn count(&self, slot: Slot, more: usize, counts: &mut [usize]) {
        if let Some(count) = self.field(slot.field).and_then(|field| counts.get_mut(usize::from(field.count))) {
            *count += more;
        }
    }

    /// Puts the rules to a value, and takes it where it is a subject or committed.
    pub(super) fn note(&mut self, slot: Slot, value: &[u8]) -> Walked<()> {
        let Some(field) = self.plan.fields.get(slot.field as usize) else { return Ok(()) };
        let number = Number::of(field.scalar, value);
        if let Some((part, rules)) = &field.rules {
            let value = number.as_rules(value);
            let judged = match part {
                Part::Value => rules.check(value),
                Part::Item => rules.check_item(value),
                Part::Key => rules.check_key(value),
                Part::MapValue => rules.check_value(value),
                Part::Map => Ok(()),
            };
            judged.map_err(|rule| Fault::rule(rule).within(slot.field))?;
        }
        if field.subject {
            let malformed = |what| Fault::malformed(what).within(slot.field);
            if value.len() > MAX_SUBJECT_BYTES {
                return Err(malformed(LONG_SUBJECT));
            }
            let mut decimal = [0; DECIMAL];
            match number.decimal(&mut decimal) {
                Some(b"0") => {}
                Some(digits) => self.found.subject(digits),
                None if value.is_empty() => {}
                // A text has been found to be one.
                None if slot.form == Form::Text || utf8::is_utf8(value) => self.found.subject(value),
                None => return Err(malformed(SUBJECT_NOT_TEXT)),
            }
        }
        if field.commit {
            self.found.commit(&field.path, self.message.slice_ref(value));
        }
        Ok(())
    }

    /// What must hold at a message's end.
    #[inline(never)]
    pub(super) fn ends(&self, node: &Node, seen: &Seen, counts: &[usize]) -> Walked<()> {
        for end in &node.ends {
            let (index, judged) = match end {
                End::Required { bit, field } if !seen.has(*bit) => {
                    return Err(Fault::malformed(MISSING).within(*field));
                }
                End::Oneof { bit, name } if !seen.has(*bit) => {
                    return Err(Fault::rule(format!("one field of the oneof {name} must be set")));
                }
                End::Absent { bit, field } if !seen.has(*bit) => (*field, self.absent(*field)),
                End::Count { field } => (*field, self.counted(*field, counts)),
                End::Required { .. } | End::Oneof { .. } | End::Absent { .. } => continue,
            };
            judged.map_err(|rule| Fault::rule(rule).within(index))?;
        }
        Ok(())
    }

    fn absent(&self, index: u32) -> Result<(), String> {
        let Some(field) = self.field(index) else { return Ok(()) };
        let Some((part, rules)) = &field.rules else { return Ok(()) };
        let zero = || Number::zero(field.scalar).as_rules(b"");
        match part {
            Part::Value => rules.check_absent(),
            Part::Key => rules.check_key(zero()),
            Part::MapValue => rules.check_value(zero()),
            Part::Item | Part::Map => Ok(()),
        }
    }

    fn counted(&self, index: u32, counts: &[usize]) -> Result<(), String> {
        let Some(field) = self.field(index) else { return Ok(()) };
        let Some((_, rules)) = &field.rules else { return Ok(()) };
        rules.check_count(counts.get(usize::from(field.count)).copied().unwrap_or_default())
    }

    /// Drops a field that does not go on.
    #[inline(never)]
    pub(super) fn withhold(&mut self, slot: Slot, frame: &Frame<'_>, start: usize, end: usize) {
        self.cuts.cut(frame, start, end);
        self.found.withheld += 1;
        if let Some(field) = self.plan.fields.get(slot.field as usize) {
            self.found.name(slot.field, &field.path);
        }
    }

    /// Drops a field that is not known.
    #[inline(never)]
    pub(super) fn strip(&mut self, node: &Node, frame: &Frame<'_>, number: u32, start: usize, end: usize) {
        self.cuts.cut(frame, start, end);
        self.found.withheld += 1;
        let (last, namings) = self.unknown_named;
        if last != number && namings < MAX_NAMINGS && self.found.names_withheld() {
            self.unknown_named = (number, namings + 1);
            self.found.withheld_paths.insert(format!("{}{number}", node.prefix).into());
        }
    }
}

/// Most digits of a 64-bit integer, and a sign.
const DECIMAL: usize = 20;

/// A scalar value, decoded; text and bytes are what they are.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
    Enum(i32),
    Text,
    Bytes,
    Message,
}

impl Number {
    fn of(scalar: Option<Scalar>, value: &[u8]) -> Self {
        let varint = || wire::varint(value, &mut 0).unwrap_or_default();
        let four = || value.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let eight = || value.try_into().map(u64::from_le_bytes).unwrap_or_default();
        match scalar {
            None => Self::Message,
            Some(Scalar::Text) => Self::Text,
            Some(Scalar::Bytes) => Self::Bytes,
            Some(Scalar::Int32) => Self::Int(i64::from(varint() as i32)),
            Some(Scalar::Int64) => Self::Int(varint() as i64),
            Some(Scalar::Uint32) => Self::Uint(u64::from(varint() as u32)),
            Some(Scalar::Uint64) => Self::Uint(varint()),
            Some(Scalar::Sint32) => Self::Int(zigzag(u64::from(varint() as u32))),
            Some(Scalar::Sint64) => Self::Int(zigzag(varint())),
            Some(Scalar::Fixed32) => Self::Uint(u64::from(four())),
            Some(Scalar::Fixed64) => Self::Uint(eight()),
            Some(Scalar::Sfixed32) => Self::Int(i64::from(four() as i32)),
            Some(Scalar::Sfixed64) => Self::Int(eight() as i64),
            Some(Scalar::Float) => Self::Float(f64::from(f32::from_bits(four()))),
            Some(Scalar::Double) => Self::Float(f64::from_bits(eight())),
            Some(Scalar::Bool) => Self::Bool(varint() != 0),
            Some(Scalar::Enum) => Self::Enum(varint() as i32),
        }
    }

    /// What a field is that has not come.
    fn zero(scalar: Option<Scalar>) -> Self {
        Self::of(
            scalar,
            match scalar.map(Scalar::wire) {
                None | Some(LENGTH) => b"",
                Some(_) => &[0],
            },
        )
    }

    fn as_rules(self, value: &[u8]) -> rules::Scalar<'_> {
        match self {
            Self::Int(number) => rules::Scalar::Int(number),
            Self::Uint(number) => rules::Scalar::Uint(number),
            Self::Float(number) => rules::Scalar::Float(number),
            Self::Bool(value) => rules::Scalar::Bool(value),
            Self::Enum(number) => rules::Scalar::Enum(number),
            Self::Text => rules::Scalar::Str(std::str::from_utf8(value).unwrap_or_default()),
            Self::Bytes => rules::Scalar::Bytes(value),
            Self::Message => rules::Scalar::Message(value),
        }
    }

    /// An integer's digits, written into `space`.
    fn decimal(self, space: &mut [u8; DECIMAL]) -> Option<&[u8]> {
        let (negative, mut rest) = match self {
            Self::Int(number) => (number < 0, number.unsigned_abs()),
            Self::Uint(number) => (false, number),
            _ => return None,
        };
        let mut at = DECIMAL;
        loop {
            at -= 1;
            space[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if negative {
            at -= 1;
            space[at] = b'-';
        }
        Some(&space[at..])
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
