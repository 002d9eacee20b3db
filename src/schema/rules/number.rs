//! Rules of what has an order: numbers, enums, timestamps and durations.

use std::fmt;

use prost_reflect::{DynamicMessage, Value};

use super::read::{fields, list, part, wrong};
use crate::schema::plan::rules::RuleError;

/// `const`, `lt`, `lte`, `gt`, `gte`, `in`, `not_in`.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    exactly: Option<T>,
    lower: Option<Bound<T>>,
    upper: Option<Bound<T>>,
    among: Vec<T>,
    none_of: Vec<T>,
}

#[derive(Debug, Clone, Copy)]
struct Bound<T> {
    at: T,
    inclusive: bool,
}

/// A value that rules can have.
pub(super) trait Number: Copy + PartialOrd + fmt::Display {
    fn of(value: &Value) -> Option<Self>;
}

impl Number for i64 {
    fn of(value: &Value) -> Option<Self> {
        value.as_i64().or_else(|| value.as_i32().map(Self::from))
    }
}

impl Number for u64 {
    fn of(value: &Value) -> Option<Self> {
        value.as_u64().or_else(|| value.as_u32().map(Self::from))
    }
}

impl Number for f64 {
    fn of(value: &Value) -> Option<Self> {
        value.as_f64().or_else(|| value.as_f32().map(Self::from))
    }
}

impl Number for i32 {
    fn of(value: &Value) -> Option<Self> {
        value.as_i32()
    }
}

/// A `google.protobuf.Timestamp` or `Duration`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Time {
    /// Seconds and nanoseconds together: both carry the sign.
    nanos: i128,
}

impl Time {
    fn new(seconds: i64, nanos: i64) -> Self {
        Self { nanos: i128::from(seconds) * 1_000_000_000 + i128::from(nanos) }
    }

    /// From the wire.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // Both types are the same on the wire.
        let time = <prost_types::Duration as prost::Message>::decode(bytes).ok()?;
        Some(Self::new(time.seconds, time.nanos.into()))
    }
}

impl Number for Time {
    fn of(value: &Value) -> Option<Self> {
        let message = value.as_message()?;
        Some(Self::new(part(message, "seconds")?, part(message, "nanos")?))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, nanos) = (if self.nanos < 0 { "-" } else { "" }, self.nanos.unsigned_abs());
        write!(f, "{sign}{}", nanos / 1_000_000_000)?;
        match nanos % 1_000_000_000 {
            0 => f.write_str("s"),
            rest => write!(f, ".{rest:09}s"),
        }
    }
}

impl<T: Number> Numbers<T> {
    /// Reads the rules of a type; `more` knows those of its own and says whether one was.
    pub(super) fn read(
        rules: &DynamicMessage,
        place: &str,
        more: &mut dyn FnMut(&str, &Value) -> Result<bool, RuleError>,
    ) -> Result<Self, RuleError> {
        let mut read = Self { exactly: None, lower: None, upper: None, among: Vec::new(), none_of: Vec::new() };
        for (name, value) in fields(rules, place)? {
            let rule = format!("{place}{name}");
            let number =
                |value: &Value, rule: &str| T::of(value).ok_or_else(|| wrong(rule, "is not of the field's type"));
            let bound = |inclusive| Ok::<_, RuleError>(Some(Bound { at: number(&value, &rule)?, inclusive }));
            match name.as_str() {
                "const" => read.exactly = Some(number(&value, &rule)?),
                "lt" => read.upper = bound(false)?,
                "lte" => read.upper = bound(true)?,
                "gt" => read.lower = bound(false)?,
                "gte" => read.lower = bound(true)?,
                "in" => read.among = list(&value, &rule, number)?,
                "not_in" => read.none_of = list(&value, &rule, number)?,
                _ if more(&name, &value)? => {}
                _ => return Err(RuleError::Unsupported { rule }),
            }
        }
        Ok(read)
    }

    pub(super) fn check(&self, value: T) -> Result<(), String> {
        if let Some(exactly) = self.exactly
            && value != exactly
        {
            return Err(format!("must equal {exactly}"));
        }
        let above = self.lower.is_none_or(|lower| value > lower.at || lower.inclusive && value == lower.at);
        let below = self.upper.is_none_or(|upper| value < upper.at || upper.inclusive && value == upper.at);
        // Where the upper bound is below the lower one, what lies between them is excluded.
        let outside = matches!((&self.lower, &self.upper), (Some(lower), Some(upper)) if upper.at < lower.at);
        if !(if outside { above || below } else { above && below }) {
            return Err(self.bounds(if outside { "or" } else { "and" }));
        }
        if !self.among.is_empty() && !self.among.contains(&value) {
            return Err(format!("must be in list [{}]", joined(&self.among)));
        }
        if self.none_of.contains(&value) {
            return Err(format!("must not be in list [{}]", joined(&self.none_of)));
        }
        Ok(())
    }

    fn bounds(&self, join: &str) -> String {
        let one = |bound: &Bound<T>, than: &str| {
            let equal = if bound.inclusive { " or equal to" } else { "" };
            format!("{than} than{equal} {}", bound.at)
        };
        let said: Vec<String> = [
            self.lower.as_ref().map(|bound| one(bound, "greater")),
            self.upper.as_ref().map(|bound| one(bound, "less")),
        ]
        .into_iter()
        .flatten()
        .collect();
        format!("must be {}", said.join(&format!(" {join} ")))
    }
}

fn joined<T: fmt::Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
