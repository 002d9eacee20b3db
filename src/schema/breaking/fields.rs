//! Two versions of a field or extension, known by its number.

use prost_reflect::{
    Cardinality, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, FileDescriptor, Kind, Syntax,
    Value,
};
use prost_types::field_options::{CType, JsType};
use prost_types::{FieldDescriptorProto, FieldOptions};

use super::{Judge, annotations, rules};
use crate::schema::kind_name;

/// A field of a message, or an extension of one.
#[derive(Debug)]
pub(super) enum Field {
    Plain(FieldDescriptor),
    Extension(ExtensionDescriptor),
}

/// Runs `$body` with either kind of descriptor.
macro_rules! either {
    ($field:expr, $of:ident => $body:expr) => {
        match $field {
            Field::Plain($of) => $body,
            Field::Extension($of) => $body,
        }
    };
}

impl Field {
    pub(super) fn number(&self) -> u32 {
        either!(self, of => of.number())
    }

    pub(super) fn name(&self) -> &str {
        either!(self, of => of.name())
    }

    pub(super) fn full_name(&self) -> &str {
        either!(self, of => of.full_name())
    }

    pub(super) fn path(&self) -> &[i32] {
        either!(self, of => of.path())
    }

    pub(super) fn file(&self) -> FileDescriptor {
        either!(self, of => of.parent_file())
    }

    pub(super) fn options(&self) -> DynamicMessage {
        either!(self, of => of.options())
    }

    fn proto(&self) -> &FieldDescriptorProto {
        either!(self, of => of.field_descriptor_proto())
    }

    fn kind(&self) -> Kind {
        either!(self, of => of.kind())
    }

    fn default(&self) -> Value {
        either!(self, of => of.default_value())
    }

    fn is_repeated(&self) -> bool {
        either!(self, of => of.is_list() || of.is_map())
    }

    fn is_map_entry(&self) -> bool {
        matches!(self, Self::Plain(field) if field.parent_message().is_map_entry())
    }

    /// The message, of an extension the one that it extends.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Plain(field) => field.parent_message().full_name().to_owned(),
            Self::Extension(field) => field.containing_message().full_name().to_owned(),
        }
    }

    fn cardinality(&self) -> &'static str {
        either!(self, of => {
            if of.is_map() {
                "a map"
            } else {
                match of.cardinality() {
                    Cardinality::Repeated => "repeated",
                    Cardinality::Required => "required",
                    Cardinality::Optional if of.supports_presence() => "optional, present or not",
                    Cardinality::Optional => "optional, zero where it is not set",
                }
            }
        })
    }

    /// protobuf's name of the type.
    fn type_name(&self) -> &'static str {
        if either!(self, of => of.is_group()) {
            return "group";
        }
        kind_name(&self.kind())
    }

    /// Full name of its message or enum.
    fn refers_to(&self) -> Option<String> {
        match self.kind() {
            Kind::Message(of) => Some(of.full_name().to_owned()),
            Kind::Enum(of) => Some(of.full_name().to_owned()),
            _ => None,
        }
    }

    fn oneof(&self) -> Option<String> {
        let Self::Plain(field) = self else { return None };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())?;
        Some(oneof.name().to_owned())
    }

    fn is_proto2(&self) -> bool {
        self.file().syntax() == Syntax::Proto2
    }
}

pub(super) fn pair(judge: &mut Judge<'_>, before: &Field, after: &Field) {
    let file = after.file();
    let mut add = |rule, what: String| judge.add(rule, &file, after.path(), after.full_name(), what);
    let number = after.number();

    let names = match (before, after) {
        (Field::Extension(old), Field::Extension(new)) => (old.full_name(), new.full_name()),
        _ => (before.name(), after.name()),
    };
    if names.0 != names.1 {
        add("FIELD_SAME_NAME", format!("field {number} changed its name from {} to {}", names.0, names.1));
    }
    if let (Field::Plain(old), Field::Plain(new)) = (before, after)
        && old.json_name() != new.json_name()
    {
        let what = format!("its JSON name changed from {} to {}", old.json_name(), new.json_name());
        add("FIELD_SAME_JSON_NAME", what);
    }
    types(&mut add, before, after);
    if !(before.is_map_entry() && after.is_map_entry()) {
        let (was, is) = (before.cardinality(), after.cardinality());
        if was != is {
            add("FIELD_SAME_CARDINALITY", format!("changed from {was} to {is}"));
            if was.starts_with("optional") != is.starts_with("optional") || !was.starts_with("optional") {
                add("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", format!("changed from {was} to {is}"));
            }
        }
    }
    generated_code(&mut add, before, after);
    default(&mut add, before, after);

    match (before.oneof(), after.oneof()) {
        (None, None) => {}
        (Some(was), Some(is)) if was == is => {}
        (was, is) => {
            let name = |of: Option<String>| of.map_or_else(|| "no oneof".to_owned(), |name| format!("oneof {name}"));
            add("FIELD_SAME_ONEOF", format!("moved from {} to {}", name(was), name(is)));
        }
    }
    annotations::field(judge, before, after);
    if judge.scope.is_sent(&before.message()) {
        rules::field(judge, before, after);
    }
}

fn types(add: &mut impl FnMut(&'static str, String), before: &Field, after: &Field) {
    let (was, is) = (before.type_name(), after.type_name());
    let (old_name, new_name) = (before.refers_to(), after.refers_to());
    if was != is {
        let what = format!("its type changed from {was} to {is}");
        add("FIELD_SAME_TYPE", what.clone());
        if wire_json_group(was) != wire_json_group(is) {
            add("FIELD_WIRE_JSON_COMPATIBLE_TYPE", what);
        }
    } else if old_name != new_name {
        let name = |name: Option<String>| name.unwrap_or_default();
        let what = format!("its type changed from {} to {}", name(old_name), name(new_name));
        add("FIELD_SAME_TYPE", what.clone());
        let grown = match (before.kind(), after.kind()) {
            (Kind::Enum(old), Kind::Enum(new)) => has_grown(&old, &new),
            _ => false,
        };
        if !grown {
            add("FIELD_WIRE_JSON_COMPATIBLE_TYPE", what);
        }
    }
}

/// Types that are the same on the wire and in JSON.
fn wire_json_group(name: &str) -> &str {
    match name {
        "uint32" => "int32",
        "uint64" => "int64",
        "sfixed32" => "fixed32",
        "sfixed64" => "fixed64",
        other => other,
    }
}

/// Whether an enum in another place is the old one, perhaps with more values.
fn has_grown(old: &EnumDescriptor, new: &EnumDescriptor) -> bool {
    let values = &new.enum_descriptor_proto().value;
    old.name() == new.name()
        && old
            .enum_descriptor_proto()
            .value
            .iter()
            .all(|value| values.iter().any(|now| now.name() == value.name() && now.number() == value.number()))
}

/// What changes nothing on the wire but code that was generated.
fn generated_code(add: &mut impl FnMut(&'static str, String), before: &Field, after: &Field) {
    let options = |field: &Field| -> FieldOptions { field.proto().options.clone().unwrap_or_default() };
    let (old, new) = (options(before), options(after));
    let is_text = |field: &Field| matches!(field.kind(), Kind::String | Kind::Bytes);
    let both_entries = before.is_map_entry() && after.is_map_entry();
    let (was, is) = (old.ctype(), new.ctype());
    // A string piece is still a string.
    if is_text(before)
        && is_text(after)
        && !both_entries
        && was != is
        && (was, is) != (CType::StringPiece, CType::String)
    {
        add("FIELD_SAME_CPP_STRING_TYPE", format!("ctype changed from {} to {}", was.as_str_name(), is.as_str_name()));
    }
    let is_long = |field: &Field| {
        matches!(field.kind(), Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64)
    };
    let (was, is): (JsType, JsType) = (old.jstype(), new.jstype());
    if is_long(before) && is_long(after) && was != is {
        add("FIELD_SAME_JSTYPE", format!("jstype changed from {} to {}", was.as_str_name(), is.as_str_name()));
    }
    if before.kind() == Kind::String && after.kind() == Kind::String {
        let words = |verified: bool| if verified { "verified" } else { "not verified" };
        let (was, is) = (!before.is_proto2(), !after.is_proto2());
        if was != is {
            add("FIELD_SAME_UTF8_VALIDATION", format!("UTF-8 was {} and is {}", words(was), words(is)));
        }
        let java = |field: &Field| {
            let file = field.file();
            let options = file.file_descriptor_proto().options.as_ref();
            !field.is_proto2() || options.is_some_and(|options| options.java_string_check_utf8())
        };
        let (was, is) = (java(before), java(after));
        if was != is {
            let what = format!("UTF-8 was {} and is {} in Java", words(was), words(is));
            add("FIELD_SAME_JAVA_UTF8_VALIDATION", what);
        }
    }
}

/// Defaults are compared by what they are worth, whichever the type: what changed the type is told by another rule.
fn default(add: &mut impl FnMut(&'static str, String), before: &Field, after: &Field) {
    let has_none = |field: &Field| field.is_repeated() || matches!(field.kind(), Kind::Message(_));
    if has_none(before) || has_none(after) {
        return;
    }
    let (was, is) = (worth(&before.default()), worth(&after.default()));
    let same = match (&was, &is) {
        (Worth::Float(old), Worth::Float(new)) => old == new || (old.is_nan() && new.is_nan()),
        // One of them is a float: as precise as the less precise.
        (Worth::Double(old), Worth::Float(new)) | (Worth::Float(new), Worth::Double(old)) => {
            *old as f32 == *new || (old.is_nan() && new.is_nan())
        }
        (Worth::Double(old), Worth::Double(new)) => old == new || (old.is_nan() && new.is_nan()),
        (Worth::Whole(old), Worth::Whole(new)) => old == new,
        (Worth::Whole(whole), Worth::Double(other)) | (Worth::Double(other), Worth::Whole(whole)) => {
            *whole as f64 == *other
        }
        (Worth::Whole(whole), Worth::Float(other)) | (Worth::Float(other), Worth::Whole(whole)) => {
            *whole as f64 == f64::from(*other)
        }
        (Worth::Text(old), Worth::Text(new)) => old == new,
        _ => was.is_zero() && is.is_zero(),
    };
    if !same {
        let words = |field: &Field| field.proto().default_value.clone().unwrap_or_else(|| "none".to_owned());
        add("FIELD_SAME_DEFAULT", format!("its default changed from {} to {}", words(before), words(after)));
    }
}

enum Worth {
    Whole(i128),
    Float(f32),
    Double(f64),
    Text(Vec<u8>),
}

impl Worth {
    fn is_zero(&self) -> bool {
        match self {
            Self::Whole(value) => *value == 0,
            Self::Float(value) => *value == 0.0,
            Self::Double(value) => *value == 0.0,
            Self::Text(value) => value.is_empty(),
        }
    }
}

fn worth(value: &Value) -> Worth {
    match value {
        Value::Bool(value) => Worth::Whole((*value).into()),
        Value::I32(value) | Value::EnumNumber(value) => Worth::Whole((*value).into()),
        Value::I64(value) => Worth::Whole((*value).into()),
        Value::U32(value) => Worth::Whole((*value).into()),
        Value::U64(value) => Worth::Whole((*value).into()),
        Value::F32(value) => Worth::Float(*value),
        Value::F64(value) => Worth::Double(*value),
        Value::String(value) => Worth::Text(value.clone().into_bytes()),
        Value::Bytes(value) => Worth::Text(value.to_vec()),
        // None of these has a default.
        Value::Message(_) | Value::List(_) | Value::Map(_) => Worth::Whole(0),
    }
}
