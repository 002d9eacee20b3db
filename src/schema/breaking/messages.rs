//! Messages by their full names: their fields, oneofs and ranges; and extensions by what they extend and their number.

use std::collections::BTreeSet;

use prost_reflect::{Cardinality, DescriptorPool, MessageDescriptor, Syntax};

use super::fields::{self, Field};
use super::{Judge, rules};

pub(super) fn judge(judge: &mut Judge<'_>, old: &DescriptorPool) {
    for before in old.all_messages() {
        if !judge.scope.has(before.package_name(), before.full_name()) {
            continue;
        }
        match judge.new.get_message_by_name(before.full_name()) {
            Some(after) => pair(judge, &before, &after),
            None if judge.packages.contains(before.package_name()) => {
                let what = format!("message {} was deleted", before.name());
                judge.missing("PACKAGE_MESSAGE_NO_DELETE", &before.parent_file(), before.full_name(), what);
            }
            None => {}
        }
    }
    for before in old.all_extensions() {
        let extended = before.containing_message();
        let counts = judge.scope.has(before.package_name(), extended.full_name())
            || judge.scope.has(extended.package_name(), extended.full_name());
        if !counts {
            continue;
        }
        if judge.new.get_extension_by_name(before.full_name()).is_none()
            && judge.packages.contains(before.package_name())
        {
            let what = format!("extension {} was deleted", before.name());
            judge.missing("PACKAGE_EXTENSION_NO_DELETE", &before.parent_file(), before.full_name(), what);
        }
        let after = judge.new.get_message_by_name(extended.full_name());
        if let Some(after) = after.and_then(|message| message.get_extension(before.number())) {
            fields::pair(judge, &Field::Extension(before), &Field::Extension(after));
        }
    }
}

fn pair(judge: &mut Judge<'_>, before: &MessageDescriptor, after: &MessageDescriptor) {
    for field in before.fields() {
        match after.get_field(field.number()) {
            Some(now) => fields::pair(judge, &Field::Plain(field), &Field::Plain(now)),
            None => deleted(judge, &Field::Plain(field), after),
        }
    }
    required(judge, before, after);
    ranges(judge, before, after);

    let file = after.parent_file();
    let mut add = |rule, what: String| judge.add(rule, &file, after.path(), after.full_name(), what);
    for oneof in before.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        if !after.oneofs().any(|now| now.name() == oneof.name()) {
            add("ONEOF_NO_DELETE", format!("oneof {} was deleted", oneof.name()));
        }
    }
    if before.parent_file().syntax() == Syntax::Proto3 && file.syntax() == Syntax::Proto2 {
        add("MESSAGE_SAME_JSON_FORMAT", "its JSON is not guaranteed any more".into());
    }
    let accessor = |message: &MessageDescriptor| {
        let options = message.descriptor_proto().options.as_ref();
        options.is_some_and(|options| options.no_standard_descriptor_accessor())
    };
    if !accessor(before) && accessor(after) {
        let what = "option no_standard_descriptor_accessor was set".into();
        add("MESSAGE_NO_REMOVE_STANDARD_DESCRIPTOR_ACCESSOR", what);
    }
    if judge.scope.is_sent(before.full_name()) {
        rules::message(judge, before, after);
    }
}

fn deleted(judge: &mut Judge<'_>, field: &Field, after: &MessageDescriptor) {
    let (name, number) = (field.name(), field.number());
    let proto = after.descriptor_proto();
    let file = after.parent_file();
    let mut add = |rule, what: String| judge.add(rule, &file, after.path(), after.full_name(), what);
    add("FIELD_NO_DELETE", format!("field {number} {name} was deleted"));
    if !proto.reserved_name.iter().any(|reserved| reserved == name) {
        let what = format!("field {number} {name} was deleted without reserving its name");
        add("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", what);
    }
    let reserved = |range: (i64, i64)| (range.0..=range.1).contains(&i64::from(number));
    if !reserved_ranges(after).into_iter().any(reserved) {
        let what = format!("field {number} {name} was deleted without reserving its number");
        add("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", what);
    }
}

fn required(judge: &mut Judge<'_>, before: &MessageDescriptor, after: &MessageDescriptor) {
    let numbers = |message: &MessageDescriptor| -> BTreeSet<u32> {
        message.fields().filter(|f| f.cardinality() == Cardinality::Required).map(|f| f.number()).collect()
    };
    let (old, new) = (numbers(before), numbers(after));
    for number in old.symmetric_difference(&new) {
        let what = if new.contains(number) { "was added" } else { "is not there any more" };
        let what = format!("required field {number} {what}");
        judge.add("MESSAGE_SAME_REQUIRED_FIELDS", &after.parent_file(), after.path(), after.full_name(), what);
    }
}

fn ranges(judge: &mut Judge<'_>, before: &MessageDescriptor, after: &MessageDescriptor) {
    let file = after.parent_file();
    let mut add = |rule, what: String| judge.add(rule, &file, after.path(), after.full_name(), what);
    let gone = missing_from(&reserved_ranges(before), reserved_ranges(after));
    if !gone.is_empty() {
        add("RESERVED_MESSAGE_NO_DELETE", format!("numbers are not reserved any more: {}", ranges_words(&gone)));
    }
    let names = &after.descriptor_proto().reserved_name;
    for name in before.descriptor_proto().reserved_name.iter().filter(|name| !names.contains(name)) {
        add("RESERVED_MESSAGE_NO_DELETE", format!("the name {name} is not reserved any more"));
    }
    let extensions = |message: &MessageDescriptor| -> Vec<(i64, i64)> {
        let ranges = &message.descriptor_proto().extension_range;
        ranges.iter().map(|range| (range.start().into(), i64::from(range.end()) - 1)).collect()
    };
    let gone = missing_from(&extensions(before), extensions(after));
    if !gone.is_empty() {
        let what = format!("numbers are not free for extensions any more: {}", ranges_words(&gone));
        add("EXTENSION_MESSAGE_NO_DELETE", what);
    }
}

/// With inclusive ends; of messages a descriptor has exclusive ones.
fn reserved_ranges(message: &MessageDescriptor) -> Vec<(i64, i64)> {
    let ranges = &message.descriptor_proto().reserved_range;
    ranges.iter().map(|range| (range.start().into(), i64::from(range.end()) - 1)).collect()
}

/// The parts of `old` that `new` does not cover; ends are inclusive.
pub(super) fn missing_from(old: &[(i64, i64)], mut new: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    new.sort_unstable();
    let mut missing = Vec::new();
    for (start, end) in old {
        let mut next = *start;
        for (from, to) in new.iter().filter(|(from, to)| from <= end && to >= start) {
            if *from > next {
                missing.push((next, from - 1));
            }
            next = next.max(to + 1);
        }
        if next <= *end {
            missing.push((next, *end));
        }
    }
    missing
}

pub(super) fn ranges_words(ranges: &[(i64, i64)]) -> String {
    let words = ranges.iter().take(10).map(|(from, to)| match from == to {
        true => from.to_string(),
        false => format!("{from} to {to}"),
    });
    words.collect::<Vec<_>>().join(", ")
}
