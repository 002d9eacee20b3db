//! Compiled plans: what is done to the messages of one type. A [`Plan`] walks a message's wire format once, without building
//! it: is it well formed for its type, whose data is it, which fields have a commitment of their own, and what of it may go on.
//!
//! In: a message descriptor and [`PlanOptions`] (once), a message's bytes (for each). Out: the bytes that may go on, which
//! are the same [`Bytes`] where nothing is dropped, and what was [`Found`]; or the [`Violation`]. Pure.

pub mod rules;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost_reflect::MessageDescriptor;

use crate::policy::UnknownFields;

/// Most subjects, and most values of committed fields, that are taken from one side of an exchange; more are counted.
pub const MAX_FOUND: usize = 4_096;

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
}

/// What was taken from the messages of one side of an exchange. Bounded: see [`MAX_FOUND`].
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Values of the fields annotated as `subject`, each once, in order; integers in decimal.
    pub subjects: Vec<Bytes>,
    /// Values of committed fields: the path (shared by all messages of the plan) and the value as on the wire without tag and length.
    pub committed: Vec<(std::sync::Arc<str>, Bytes)>,
    /// How many fields were withheld: a repeated field counts once for each occurrence on the wire.
    pub withheld: u64,
    /// Which, each once, without repetition; of unknown fields the number.
    pub withheld_paths: BTreeSet<std::sync::Arc<str>>,
    /// How many subjects and committed values there were beyond the bound.
    pub beyond: u64,
}

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A path of a mask names no field.
    #[error("{message} has no field {path:?}")]
    NoSuchField {
        /// The message type.
        message: String,
        /// The path as it was given.
        path: String,
    },
}

/// Why a message does not go on. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It is not well formed for its type.
    #[error("{path}: {what}")]
    Malformed {
        /// Where, from the message down; the message's own name at the top.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// It has a field that the type does not know.
    #[error("{path}: unknown field {number}")]
    Unknown {
        /// In which message.
        path: String,
        /// The field's number.
        number: u32,
    },
    /// It breaks a rule of `buf.validate`.
    #[error("{path}: {rule}")]
    Rule {
        /// Which field.
        path: String,
        /// The rule, in words.
        rule: String,
    },
}

impl Plan {
    /// Compiles a plan for messages of this type.
    pub fn compile(message: &MessageDescriptor, _options: &PlanOptions) -> Result<Self, PlanError> {
        Ok(Self { message: message.clone() })
    }

    /// The type it is for.
    pub fn message(&self) -> &MessageDescriptor {
        &self.message
    }

    /// Walks one message once. What may go on of it is returned; what is of note is added to `found`.
    pub fn apply(&self, message: &Bytes, _found: &mut Found) -> Result<Bytes, Violation> {
        Ok(message.clone())
    }
}
