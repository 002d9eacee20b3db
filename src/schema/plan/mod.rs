//! Compiled plans: what is done to the messages of one type. A [`Plan`] walks a message's wire format once, without building
//! it: is it well formed for its type, whose data is it, which fields have a commitment of their own, and what of it may go on.
//!
//! In: a message descriptor and [`PlanOptions`] (once), a message's bytes (for each). Out: the bytes that may go on, or that all
//! of them may, and what was [`Found`]; or the [`Violation`]. Pure.
//!
//! What is accepted is what protobuf's parsers accept (<https://protobuf.dev/programming-guides/encoding/>), except that
//! - groups are refused, of known and of unknown fields;
//! - a known field with another field's wire type is refused, where some parsers take it for unknown;
//! - proto2's required fields must be there, and in each part of a message that comes in parts;
//! - what protobuf lets come several times, the last one winning or the parts being merged, must come once where something hangs
//!   on which of them counts: a field annotated as `subject` or `commit`, one with rules, a message that holds such fields
//!   or required ones, the fields of a oneof of which one is such or only some go on, and both fields of an `Any`.
//!
//! Masks keep what decoding, clearing fields and encoding again would keep, in the bytes that the sender chose.

mod compile;
mod cut;
mod declared;
mod draft;
mod error;
mod found;
mod mask;
mod note;
mod plain;
pub mod rules;
mod seen;
mod subject;
mod table;
mod utf8;
mod walk;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::MessageDescriptor;

pub use error::{PlanError, Violation};
pub use found::{Found, MAX_COMMITTED_BYTES, MAX_FOUND, MAX_WITHHELD_PATHS};
pub use subject::Subject;

use crate::policy::UnknownFields;
use table::{Field, Node, Numbers};

/// Messages may nest as deep as protobuf's parsers let them.
pub const MAX_DEPTH: u32 = 100;
/// Most nodes of a plan: a message type counts once for each way in which it is judged.
pub const MAX_NODES: usize = 8_192;
/// Most fields of a plan's nodes together.
pub const MAX_FIELDS: usize = 65_536;
/// Most fields of one message.
pub const MAX_MESSAGE_FIELDS: usize = 16_384;
/// A subject is a personal number, not a text.
pub const MAX_SUBJECT_BYTES: usize = 256;

const ANY: &str = "google.protobuf.Any";

/// What a plan is to do.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Which fields go on.
    pub allow: Allow,
    /// What becomes of fields that the type does not know.
    pub unknown: UnknownFields,
    /// Whether `buf.validate` rules are enforced: a rule that is not supported is then a [`PlanError`].
    pub rules: bool,
}

/// Which fields of a message go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// All of them.
    Everything,
    /// These paths and what is below them (`google.protobuf.FieldMask`, also through repeated messages).
    Paths(BTreeSet<String>),
    /// Fields whose category, if they have one, is among these.
    Categories(BTreeSet<String>),
}

/// A compiled plan for one message type. Cheap to share: put it into an `Arc`.
#[derive(Debug)]
pub struct Plan {
    message: MessageDescriptor,
    /// The root is the first.
    nodes: Vec<Node>,
    fields: Vec<Field>,
    enums: Vec<Numbers>,
    /// Nodes of what a `google.protobuf.Any` may hold, by full name: where it goes on, and where it does not.
    any: HashMap<Arc<str>, [u32; 2]>,
}

impl Plan {
    /// Compiles a plan for messages of this type.
    pub fn compile(message: &MessageDescriptor, options: &PlanOptions) -> Result<Self, PlanError> {
        compile::compile(message, options)
    }

    /// The type it is for.
    pub fn message(&self) -> &MessageDescriptor {
        &self.message
    }

    /// Walks one message once. What may go on of it is returned, or none where that is all of it: the message itself. What is
    /// of note is added to `found`, also where the message then turns out not to go on.
    pub fn apply(&self, message: &Bytes, found: &mut Found) -> Result<Option<Bytes>, Violation> {
        walk::apply(self, message, found)
    }
}

#[cfg(test)]
mod tests;
