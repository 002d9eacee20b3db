//! Enums by their full names, their values by number.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, EnumDescriptor, Syntax};

use super::Judge;
use super::messages::{missing_from, ranges_words};

pub(super) fn judge(judge: &mut Judge<'_>, old: &DescriptorPool) {
    for before in old.all_enums() {
        if !judge.scope.has(before.package_name(), before.full_name()) {
            continue;
        }
        match judge.new.get_enum_by_name(before.full_name()) {
            Some(after) => pair(judge, &before, &after),
            None if judge.packages.contains(before.package_name()) => {
                let what = format!("enum {} was deleted", before.name());
                judge.missing("PACKAGE_ENUM_NO_DELETE", &before.parent_file(), before.full_name(), what);
            }
            None => {}
        }
    }
}

fn pair(judge: &mut Judge<'_>, before: &EnumDescriptor, after: &EnumDescriptor) {
    let file = after.parent_file();
    let mut add = |rule, what: String| judge.add(rule, &file, after.path(), after.full_name(), what);

    let (old_proto2, new_proto2) = (is_proto2(before), is_proto2(after));
    if old_proto2 != new_proto2 {
        let kind = |closed: bool| if closed { "closed" } else { "open" };
        add("ENUM_SAME_TYPE", format!("changed from {} to {}", kind(old_proto2), kind(new_proto2)));
    }
    if !old_proto2 && new_proto2 {
        add("ENUM_SAME_JSON_FORMAT", "its JSON is not guaranteed any more".into());
    }

    let (old_values, new_values) = (by_number(before), by_number(after));
    let proto = after.enum_descriptor_proto();
    for (number, names) in &old_values {
        let listed = || names.iter().copied().collect::<Vec<_>>().join(", ");
        match new_values.get(number) {
            Some(now) if now.is_superset(names) => {}
            Some(now) => {
                let now = now.iter().copied().collect::<Vec<_>>().join(", ");
                add("ENUM_VALUE_SAME_NAME", format!("value {number} changed its name from {} to {now}", listed()));
            }
            None => {
                add("ENUM_VALUE_NO_DELETE", format!("value {number} ({}) was deleted", listed()));
                if !names.iter().all(|name| proto.reserved_name.iter().any(|reserved| reserved == name)) {
                    let what = format!("value {number} was deleted without reserving its name {}", listed());
                    add("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", what);
                }
                if !proto.reserved_range.iter().any(|range| (range.start()..=range.end()).contains(number)) {
                    let what = format!("value {number} ({}) was deleted without reserving its number", listed());
                    add("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", what);
                }
            }
        }
    }

    let old_proto = before.enum_descriptor_proto();
    // Of enums the ends are inclusive.
    let ranges = |of: &EnumDescriptor| -> Vec<(i64, i64)> {
        of.enum_descriptor_proto().reserved_range.iter().map(|r| (r.start().into(), r.end().into())).collect()
    };
    let gone = missing_from(&ranges(before), ranges(after));
    if !gone.is_empty() {
        add("RESERVED_ENUM_NO_DELETE", format!("numbers are not reserved any more: {}", ranges_words(&gone)));
    }
    for name in old_proto.reserved_name.iter().filter(|name| !proto.reserved_name.contains(name)) {
        add("RESERVED_ENUM_NO_DELETE", format!("the name {name} is not reserved any more"));
    }
}

/// Of proto2: closed, and without a promise about JSON.
fn is_proto2(of: &EnumDescriptor) -> bool {
    of.parent_file().syntax() == Syntax::Proto2
}

fn by_number(of: &EnumDescriptor) -> BTreeMap<i32, BTreeSet<&str>> {
    let mut values: BTreeMap<i32, BTreeSet<&str>> = BTreeMap::new();
    for value in &of.enum_descriptor_proto().value {
        values.entry(value.number()).or_default().insert(value.name());
    }
    values
}
