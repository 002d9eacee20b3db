//! The flat tables that a plan is made of: per node (a message type with what goes on of it) its fields by number.

use std::sync::Arc;

use prost_reflect::Kind;

use super::plain::Plain;
use super::rules::Rules;
use crate::policy::UnknownFields;

/// Field numbers below this are found by index, others by binary search.
pub(super) const DENSE: u32 = 64;
/// No seen bit.
pub(super) const NO_BIT: u16 = u16::MAX;

/// Varint, eight bytes, length and bytes, four bytes: the wire types that are carried. Groups are not.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
pub(super) const FIXED32: u8 = 5;
/// Of a field that no message may have.
pub(super) const NEVER: u8 = 8;

/// How a field's value is checked, once its wire type is known to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// There is no such field.
    Absent,
    /// Any varint.
    Varint,
    /// Any four bytes.
    Fixed32,
    /// Any eight bytes.
    Fixed64,
    /// Any bytes.
    Bytes,
    /// It is UTF-8.
    Text,
    /// It is one of the numbers in the enum table `child`; else the field is unknown (`closed` enums).
    Closed,
    /// By the node `child`.
    Message,
    /// A group: refused.
    Group,
    /// The bytes in a `google.protobuf.Any`.
    AnyValue,
}

/// The field is a list of numbers and may come packed.
pub(super) const PACKABLE: u16 = 1;
/// It does not go on.
pub(super) const WITHHELD: u16 = 1 << 1;
/// Its seen bit may be set once only.
pub(super) const ONCE: u16 = 1 << 2;
/// Its values are of note: see its [`Field`].
pub(super) const NOTED: u16 = 1 << 3;
/// Its occurrences are counted, at `Field::count`.
pub(super) const COUNTED: u16 = 1 << 4;
/// It is a map: `child` is the node of its entries.
pub(super) const MAP: u16 = 1 << 5;

/// What the walk needs to know of a field, small enough to be copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) form: Form,
    /// The wire type of one value.
    pub(super) wire: u8,
    pub(super) flags: u16,
    /// Its seen bit; the fields of a oneof may share one.
    pub(super) bit: u16,
    /// A node, or an enum table.
    pub(super) child: u32,
    /// Its [`Field`].
    pub(super) field: u32,
}

impl Slot {
    pub(super) const ABSENT: Self = Self { form: Form::Absent, wire: NEVER, flags: 0, bit: NO_BIT, child: 0, field: 0 };

    pub(super) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What is needed of a field when something is to be done with it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    /// From the root down, or the full name where there is no one path.
    pub(super) path: Arc<str>,
    /// None for messages.
    pub(super) scalar: Option<Scalar>,
    pub(super) list: bool,
    pub(super) subject: bool,
    pub(super) commit: bool,
    pub(super) rules: Option<(Part, Arc<Rules>)>,
    /// Where its occurrences are counted.
    pub(super) count: u16,
    /// Of a field of a oneof whose fields share a seen bit: one that is its own.
    pub(super) own_bit: u16,
}

/// To what of a field its rules are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A singular field's value.
    Value,
    /// An element of a list.
    Item,
    /// A map as a whole: its rules are put to the keys and values, and to their number.
    Map,
    /// The key of an entry.
    Key,
    /// The value of an entry.
    MapValue,
}

/// What must hold when a message ends.
#[derive(Debug)]
pub(super) enum End {
    /// A required field has come.
    Required { bit: u16, field: u32 },
    /// If the field has not come, its rules allow that.
    Absent { bit: u16, field: u32 },
    /// The field's rules allow as many as have come.
    Count { field: u32 },
    /// One of a oneof's fields has come.
    Oneof { bit: u16, name: Arc<str> },
}

/// A message type with what goes on of it.
#[derive(Debug)]
pub(super) struct Node {
    /// Slots of the fields with small numbers, by number.
    pub(super) dense: Box<[Slot]>,
    /// What is skipped, by tag.
    pub(super) plain: Box<[Plain]>,
    /// The others, sorted by number.
    pub(super) sparse: Box<[(u32, Slot)]>,
    /// What stands before a field's name in its path: empty, or ending in a dot.
    pub(super) prefix: Arc<str>,
    pub(super) unknown: UnknownFields,
    /// Nothing of it goes on: it is only checked.
    pub(super) silent: bool,
    /// Whether it is a `google.protobuf.Any`.
    pub(super) any: bool,
    /// Whether it is the entry of a map.
    pub(super) entry: bool,
    /// How many counts.
    pub(super) counts: u16,
    pub(super) ends: Box<[End]>,
}

impl Node {
    /// The slot of a field number.
    #[inline]
    pub(super) fn slot(&self, number: u32) -> Slot {
        match self.dense.get(number as usize) {
            Some(slot) => *slot,
            None => self.far_slot(number),
        }
    }

    fn far_slot(&self, number: u32) -> Slot {
        match self.sparse.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(index) => self.sparse[index].1,
            Err(_) => Slot::ABSENT,
        }
    }
}

/// The numbers of a closed enum, sorted.
#[derive(Debug)]
pub(super) struct Numbers(pub(super) Box<[i32]>);

impl Numbers {
    #[inline]
    pub(super) fn has(&self, number: i32) -> bool {
        // Most enums count up from zero or one.
        match usize::try_from(number).ok().and_then(|index| self.0.get(index)) {
            Some(&found) if found == number => true,
            _ => self.0.binary_search(&number).is_ok(),
        }
    }
}

/// A scalar type of protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Bool,
    Enum,
    Text,
    Bytes,
}

impl Scalar {
    /// Of a field's kind; none for messages.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Int32 => Self::Int32,
            Kind::Int64 => Self::Int64,
            Kind::Uint32 => Self::Uint32,
            Kind::Uint64 => Self::Uint64,
            Kind::Sint32 => Self::Sint32,
            Kind::Sint64 => Self::Sint64,
            Kind::Fixed32 => Self::Fixed32,
            Kind::Fixed64 => Self::Fixed64,
            Kind::Sfixed32 => Self::Sfixed32,
            Kind::Sfixed64 => Self::Sfixed64,
            Kind::Float => Self::Float,
            Kind::Double => Self::Double,
            Kind::Bool => Self::Bool,
            Kind::Enum(_) => Self::Enum,
            Kind::String => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::Message(_) => return None,
        })
    }

    /// The wire type of one value.
    pub(super) fn wire(self) -> u8 {
        match self {
            Self::Text | Self::Bytes => LENGTH,
            Self::Fixed32 | Self::Sfixed32 | Self::Float => FIXED32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => FIXED64,
            _ => VARINT,
        }
    }

    /// Whether it can say whose data a message holds.
    pub(super) fn identifies(self) -> bool {
        !matches!(self, Self::Float | Self::Double | Self::Bool | Self::Enum)
    }

    /// In an error's sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float | Self::Double => "a floating-point number",
            Self::Bool => "a bool",
            Self::Enum => "an enum",
            Self::Text => "a string",
            Self::Bytes => "bytes",
            _ => "an integer",
        }
    }
}
