//! Why a plan cannot be made, and why a message does not go on.

use super::rules::RuleError;
use crate::schema::annotations::CORE_CATEGORIES;

/// Why a plan cannot be made: for the operator who wrote the grant, or the author of the types.
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
    /// A path of a mask, or a part of one, is empty.
    #[error(
        "{message}: the path {path:?} has an empty part: write field names with single dots between them, \"person.surname\""
    )]
    EmptyPath {
        /// The message type.
        message: String,
        /// The path as it was given.
        path: String,
    },
    /// A path of a mask goes into a field that has no fields.
    #[error("{message}: the path {path:?} goes into {field}, which is {kind}: end the path there")]
    PathTooDeep {
        /// The message type.
        message: String,
        /// The path as it was given.
        path: String,
        /// The field with which it should end.
        field: String,
        /// What that field is.
        kind: &'static str,
    },
    /// One path of a mask is contained in another.
    #[error("{message}: overlapping paths {path:?} and {inner:?}: the first holds all of the second, keep one of them")]
    OverlappingPaths {
        /// The message type.
        message: String,
        /// The path that holds the other.
        path: String,
        /// The path that is held.
        inner: String,
    },
    /// A category in the grant can be no category.
    #[error("{message}: {category:?} is no category: one of {core}, or one with a dot in its name", core = CORE_CATEGORIES.join(", "))]
    NoSuchCategory {
        /// The message type.
        message: String,
        /// The category as it was given.
        category: String,
    },
    /// A field's annotation names what can be no category.
    #[error("{message}.{field} has the category {category:?}: annotate it as one of {core}, or with a dot in the name", core = CORE_CATEGORIES.join(", "))]
    WrongCategory {
        /// The message type.
        message: String,
        /// The field.
        field: String,
        /// The category as it is annotated.
        category: String,
    },
    /// An annotation stands on a field of a type that it cannot have.
    #[error("{message}.{field} is annotated as {annotation}, and is {kind}: {allowed}")]
    WrongAnnotation {
        /// The message type.
        message: String,
        /// The field.
        field: String,
        /// Which annotation.
        annotation: &'static str,
        /// What the field is.
        kind: &'static str,
        /// On which fields it may stand.
        allowed: &'static str,
    },
    /// What goes on would lack a field that the receiver requires.
    #[error(
        "{message}.{field} is required and would be withheld, so that nobody could read the rest: let it go on, withhold {message} whole, or make the field optional"
    )]
    RequiredWithheld {
        /// The message type.
        message: String,
        /// The field.
        field: String,
    },
    /// A required field is a group, and groups are refused: no message would pass.
    #[error("{message}.{field} is required and a group, which the gateway refuses: make it a message field")]
    RequiredGroup {
        /// The message type.
        message: String,
        /// The field.
        field: String,
    },
    /// Two fields or extensions have one number.
    #[error(
        "{message}: the number {number} belongs to two fields, {field} and {other}: give one of them another number"
    )]
    NumberTwice {
        /// The message type.
        message: String,
        /// The number.
        number: u32,
        /// One field.
        field: String,
        /// The other.
        other: String,
    },
    /// Unknown fields would go through a mask.
    #[error("{message}: a mask that passes unknown fields masks nothing: refuse or strip them")]
    UnknownThroughMask {
        /// The message type.
        message: String,
    },
    /// The types are larger than any that a gateway should carry.
    #[error(
        "{message} has more than {limit} {what}, counting what its fields refer to: split the type, or the service"
    )]
    TooLarge {
        /// The message type.
        message: String,
        /// Of what there is too much.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A field's rules cannot be enforced.
    #[error("{message}.{field}: {error}")]
    Rule {
        /// The message type.
        message: String,
        /// The field or oneof.
        field: String,
        /// Why not.
        error: RuleError,
    },
    /// A message's own rules cannot be enforced.
    #[error("{message}: {error}")]
    MessageRule {
        /// The message type.
        message: String,
        /// Why not.
        error: RuleError,
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
    /// It has a `google.protobuf.Any` of a type that the provider's types do not have.
    #[error("{path}: a google.protobuf.Any of a type that is not known here")]
    UnknownType {
        /// Which field.
        path: String,
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
