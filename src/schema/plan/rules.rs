//! What the walk asks of `buf.validate` rules: the seam between a [`Plan`](super::Plan) and how rules are compiled.
//!
//! In: a field's descriptor (once), each value of it as the walk meets it, how often it came. Out: the rule that is broken, in
//! words and without the value. Only asked where [`PlanOptions::rules`](super::PlanOptions::rules) is set and a field has rules.
//!
//! The order for one message: [`Rules::check`] (a singular field), [`Rules::check_item`] (each element of a list) or
//! [`Rules::check_key`] and [`Rules::check_value`] (each entry of a map) as they come on the wire; at the message's end
//! [`Rules::check_count`] for each list or map with its count, also zero, and [`Rules::check_absent`] for each singular field that did not
//! come. A map entry without its key or its value is given the zero value. Every value is checked, also one that is withheld.

/// A value, as it is checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// int32, int64, sint32, sint64, sfixed32, sfixed64.
    Int(i64),
    /// uint32, uint64, fixed32, fixed64.
    Uint(u64),
    /// float, double.
    Float(f64),
    /// bool.
    Bool(bool),
    /// string; always valid UTF-8.
    Str(&'a str),
    /// bytes.
    Bytes(&'a [u8]),
    /// An enum's number; whether the enum has it is for the rule to know (`defined_only`).
    Enum(i32),
    /// A message as on the wire, without tag and length: for rules on wrappers, timestamps, durations, Any, FieldMask. It has
    /// been found well formed. A message in parts is refused where there are rules, so that this is all of it.
    Message(&'a [u8]),
}

/// Why a field's rules cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A rule that is not supported: refused at load, never ignored.
    #[error("the rule {rule} is not supported, and none is ignored: remove it")]
    Unsupported {
        /// The rule, as it is written.
        rule: String,
    },
    /// A rule that does not fit its field, or contradicts another.
    #[error("{rule}: {what}")]
    Wrong {
        /// The rule, as it is written.
        rule: String,
        /// What is wrong with it.
        what: String,
    },
}

pub use crate::schema::rules::{Rules, check_message, compile, oneof_is_required};
