//! The rules of `buf.validate` that a node enforces, compiled from the annotations of a field. What is not in `docs/typing.md` is
//! refused here, by name: a rule is enforced as [protovalidate](https://protovalidate.com/reference/rules/) defines it, or the
//! service is not served. CEL is not supported, neither are rules that need a clock or more than one value.

mod known;
mod number;
mod pattern;
mod read;
mod text;

#[cfg(test)]
mod tests;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Value};

use super::plan::rules::{RuleError, Scalar};
use read::Element;

/// The rules of one field, compiled. An error's text is the rule in words ("must be at least 1 character long"), never a value.
#[derive(Debug)]
pub struct Rules {
    required: bool,
    /// Whether a value that is not set can be told from a zero.
    presence: bool,
    /// A zero is not looked at (`IGNORE_IF_ZERO_VALUE`); for a list or map, an empty one.
    ignore_zero: bool,
    /// What an implicit value is where the field does not come; none: a message.
    zero: Option<Scalar<'static>>,
    /// Of a singular field's value.
    value: Element,
    /// Of a list's elements, or of a map's values.
    items: Element,
    /// Of a map's keys.
    keys: Element,
    min: Option<u64>,
    max: Option<u64>,
    /// `item` or `pair`.
    counted: &'static str,
}

/// A field's rules; none where it has none, or none that says anything.
pub fn compile(field: &FieldDescriptor) -> Result<Option<Rules>, RuleError> {
    let Some(written) = extension(&field.options(), "buf.validate.field")? else { return Ok(None) };
    let head = read::Head::read(&written, "")?;
    let scalar = !matches!(field.kind(), Kind::Message(_));
    if head.ignore_always {
        // What is below would have to be ignored too, and the walk judges it.
        return if scalar || field.is_map() && is_scalar_map(field) {
            Ok(None)
        } else {
            Err(RuleError::Unsupported { rule: "ignore = IGNORE_ALWAYS of a message field".into() })
        };
    }
    let mut rules = Rules {
        required: head.required,
        presence: field.supports_presence(),
        ignore_zero: head.ignore_zero,
        zero: read::zero(&field.kind()),
        value: Element::default(),
        items: Element::default(),
        keys: Element::default(),
        min: None,
        max: None,
        counted: if field.is_map() { "pair" } else { "item" },
    };
    let Some((name, typed)) = &head.typed else {
        return Ok(rules.required.then_some(rules));
    };
    if field.is_map() {
        rules.of_map(name, typed, field)?;
    } else if field.is_list() {
        rules.of_list(name, typed, field)?;
    } else {
        rules.value = Element { ignore_zero: false, checks: read::checks(name, typed, &field.kind(), "")? };
    }
    Ok(Some(rules))
}

/// Whether one of a oneof's fields must be set.
pub fn oneof_is_required(oneof: &OneofDescriptor) -> Result<bool, RuleError> {
    let Some(written) = extension(&oneof.options(), "buf.validate.oneof")? else { return Ok(false) };
    let mut required = false;
    for (name, value) in read::fields(&written, "")? {
        match name.as_str() {
            "required" => required = read::boolean(&value, &name)?,
            _ => return Err(RuleError::Unsupported { rule: format!("(buf.validate.oneof).{name}") }),
        }
    }
    Ok(required)
}

/// Rules of a message as a whole: none is supported, so this only finds out that there are none.
pub fn check_message(message: &MessageDescriptor) -> Result<(), RuleError> {
    let Some(written) = extension(&message.options(), "buf.validate.message")? else { return Ok(()) };
    match read::fields(&written, "")?.first() {
        Some((name, _)) => Err(RuleError::Unsupported { rule: format!("(buf.validate.message).{name}") }),
        None => Ok(()),
    }
}

/// One of the options of `buf.validate`, where it is set.
fn extension(options: &DynamicMessage, name: &str) -> Result<Option<DynamicMessage>, RuleError> {
    for (extension, value) in options.extensions() {
        if extension.full_name() == name {
            return match value {
                Value::Message(rules) => Ok(Some(rules.clone())),
                _ => {
                    Err(RuleError::Wrong { rule: name.to_owned(), what: "is not defined as protovalidate does".into() })
                }
            };
        }
        if extension.full_name() == "buf.validate.predefined" {
            return Err(RuleError::Unsupported { rule: "(buf.validate.predefined)".into() });
        }
    }
    Ok(None)
}

fn is_scalar_map(field: &FieldDescriptor) -> bool {
    let Kind::Message(entry) = field.kind() else { return false };
    entry.get_field(2).is_some_and(|value| !matches!(value.kind(), Kind::Message(_)))
}

impl Rules {
    fn of_list(&mut self, name: &str, typed: &DynamicMessage, field: &FieldDescriptor) -> Result<(), RuleError> {
        if name != "repeated" {
            return Err(read::does_not_fit(name, "a list"));
        }
        for (name, value) in read::fields(typed, "repeated.")? {
            let rule = format!("repeated.{name}");
            match name.as_str() {
                "min_items" => self.min = Some(read::unsigned(&value, &rule)?),
                "max_items" => self.max = Some(read::unsigned(&value, &rule)?),
                "unique" if !read::boolean(&value, &rule)? => {}
                "items" => self.items = Element::read(&value, &field.kind(), "repeated.items.")?,
                _ => return Err(RuleError::Unsupported { rule }),
            }
        }
        self.check_bounds()
    }

    fn of_map(&mut self, name: &str, typed: &DynamicMessage, field: &FieldDescriptor) -> Result<(), RuleError> {
        let Kind::Message(entry) = field.kind() else { return Err(read::does_not_fit(name, "a map")) };
        if name != "map" {
            return Err(read::does_not_fit(name, "a map"));
        }
        for (name, value) in read::fields(typed, "map.")? {
            let rule = format!("map.{name}");
            let part = |number| entry.get_field(number).map(|part| part.kind());
            match (name.as_str(), part(1), part(2)) {
                ("min_pairs", ..) => self.min = Some(read::unsigned(&value, &rule)?),
                ("max_pairs", ..) => self.max = Some(read::unsigned(&value, &rule)?),
                ("keys", Some(kind), _) => self.keys = Element::read(&value, &kind, "map.keys.")?,
                ("values", _, Some(kind)) => self.items = Element::read(&value, &kind, "map.values.")?,
                _ => return Err(RuleError::Unsupported { rule }),
            }
        }
        // A key may come twice, so that more pairs come than there are.
        if self.min.is_some_and(|min| min > 1) {
            return Err(RuleError::Unsupported { rule: "map.min_pairs above 1".into() });
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<(), RuleError> {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min > max => Err(RuleError::Wrong {
                rule: format!("min_{0}s and max_{0}s", self.counted),
                what: "no number is within both".into(),
            }),
            _ => Ok(()),
        }
    }

    /// A value of a singular field.
    pub fn check(&self, value: Scalar<'_>) -> Result<(), String> {
        if !self.presence && read::is_zero(value) {
            if self.required {
                return Err(REQUIRED.to_owned());
            }
            if self.ignore_zero {
                return Ok(());
            }
        }
        self.value.check(value)
    }

    /// An element of a list: `repeated.items`.
    pub fn check_item(&self, value: Scalar<'_>) -> Result<(), String> {
        self.items.check(value)
    }

    /// The key of a map's entry: `map.keys`.
    pub fn check_key(&self, key: Scalar<'_>) -> Result<(), String> {
        self.keys.check(key)
    }

    /// The value of a map's entry: `map.values`.
    pub fn check_value(&self, value: Scalar<'_>) -> Result<(), String> {
        self.items.check(value)
    }

    /// How many elements a list has, or entries on the wire a map: `min_items`, `max_items`, `min_pairs`, `max_pairs`, `required`.
    pub fn check_count(&self, count: usize) -> Result<(), String> {
        if count == 0 {
            if self.required {
                return Err(REQUIRED.to_owned());
            }
            if self.ignore_zero {
                return Ok(());
            }
        }
        let count = count as u64;
        let said = |bound: &str, number: u64| {
            let plural = if number == 1 { "" } else { "s" };
            Err(format!("must contain at {bound} {number} {}{plural}", self.counted))
        };
        match (self.min, self.max) {
            (Some(min), _) if count < min => said("least", min),
            (_, Some(max)) if count > max => said("most", max),
            _ => Ok(()),
        }
    }

    /// A singular field did not come. With explicit presence only `required` judges it; without, the field is its zero value
    /// and every rule does, unless it is to be ignored.
    pub fn check_absent(&self) -> Result<(), String> {
        match self.zero {
            Some(zero) if !self.presence => self.check(zero),
            _ if self.required => Err(REQUIRED.to_owned()),
            _ => Ok(()),
        }
    }
}

const REQUIRED: &str = "a value is required";
