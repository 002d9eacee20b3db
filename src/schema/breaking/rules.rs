//! Rules of `buf.validate` on what callers send: a rule that is new or stricter refuses requests that were good.
//! A rule that went, or whose bound is wider, does not; any other change is taken for stricter, since telling would need
//! to understand it (a pattern, a CEL expression).

use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, Value};

use super::Judge;
use super::fields::Field;

const RULE: &str = "KOPURO_REQUEST_RULE_NOT_STRICTER";

/// Bounds that refuse less as they rise, and those that refuse less as they fall.
const UPPER: [&str; 6] = ["max_len", "max_bytes", "max_items", "max_pairs", "lt", "lte"];
const LOWER: [&str; 6] = ["min_len", "min_bytes", "min_items", "min_pairs", "gt", "gte"];

/// Deeper nesting of rules than `repeated.items.map.values` has needs nobody.
const MAX_DEPTH: usize = 8;

pub(super) fn field(judge: &mut Judge<'_>, before: &Field, after: &Field) {
    for what in stricter(&before.options(), &after.options(), "buf.validate.field") {
        judge.add(RULE, &after.file(), after.path(), after.full_name(), what);
    }
}

pub(super) fn message(judge: &mut Judge<'_>, before: &MessageDescriptor, after: &MessageDescriptor) {
    let mut changes = stricter(&before.options(), &after.options(), "buf.validate.message");
    for oneof in after.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        if let Some(old) = before.oneofs().find(|old| old.name() == oneof.name()) {
            changes.extend(stricter(&old.options(), &oneof.options(), "buf.validate.oneof"));
        }
    }
    for what in changes {
        judge.add(RULE, &after.parent_file(), after.path(), after.full_name(), what);
    }
}

/// The value of one extension, where it is set and a message.
fn option(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let extension = options.descriptor().parent_pool().get_extension_by_name(name)?;
    if extension.containing_message() != options.descriptor() || !options.has_extension(&extension) {
        return None;
    }
    Some(options.get_extension(&extension).as_message()?.clone())
}

fn stricter(old: &DynamicMessage, new: &DynamicMessage, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(new) = option(new, name) {
        compare(option(old, name).as_ref(), &new, "", 0, &mut found);
    }
    found
}

fn compare(old: Option<&DynamicMessage>, new: &DynamicMessage, path: &str, depth: usize, found: &mut Vec<String>) {
    for (field, value) in new.fields() {
        let name = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        // The two pools have descriptors of their own: fields meet by name.
        let before = old.and_then(|old| {
            let field = old.descriptor().get_field_by_name(field.name())?;
            old.has_field(&field).then(|| old.get_field(&field).into_owned())
        });
        match (before.as_ref(), value) {
            (before, Value::Message(new)) if depth < MAX_DEPTH => {
                compare(before.and_then(Value::as_message), new, &name, depth + 1, found);
            }
            (None, Value::Bool(false)) => {}
            (None, _) => found.push(format!("rule {name} is new")),
            (Some(before), value) if same(before, value) => {}
            (Some(Value::Bool(true)), Value::Bool(false)) => {}
            (Some(before), value) => {
                let wider = number(before).zip(number(value)).is_some_and(|(was, is)| {
                    (UPPER.contains(&field.name()) && is >= was) || (LOWER.contains(&field.name()) && is <= was)
                });
                if !wider {
                    found.push(format!("rule {name} is stricter, or another one"));
                }
            }
        }
    }
}

/// Values of different pools are not equal by `==` where they hold messages; their bytes are.
fn same(old: &Value, new: &Value) -> bool {
    use prost::Message;
    match (old, new) {
        (Value::Message(old), Value::Message(new)) => old.encode_to_vec() == new.encode_to_vec(),
        (Value::List(old), Value::List(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
        }
        _ => old == new,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::I32(value) => Some((*value).into()),
        Value::I64(value) => Some(*value as f64),
        Value::U32(value) => Some((*value).into()),
        Value::U64(value) => Some(*value as f64),
        Value::F32(value) => Some((*value).into()),
        Value::F64(value) => Some(*value),
        _ => None,
    }
}
