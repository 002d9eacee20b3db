//! An example of a message: valid for its type, and for the simple rules of `buf.validate` that its fields have.
//!
//! In: a message type. Out: a message with every field filled in once, down to a few messages in messages, with values that a person
//! can replace: from the field's rules, else from its name, else plain ones. The same type always gives the same example. Pure and bounded. It is an
//! example, not a proof: a rule in CEL is not looked at.

mod pattern;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use super::plan::{Allow, Found, Plan, PlanOptions};
use crate::policy::UnknownFields;

/// How deep messages in messages are filled in.
const MAX_DEPTH: usize = 5;

/// Most fields filled in, in all.
const MAX_FIELDS: usize = 200;

/// An example of this type.
pub fn of(message: &MessageDescriptor) -> DynamicMessage {
    let mut maker = Maker { left: MAX_FIELDS };
    maker.message(message, &mut vec![message.full_name().to_owned()])
}

/// Why an example does not pass as it is, if it does not: a rule that it could not be made for.
pub fn unfit(example: &DynamicMessage) -> Option<String> {
    let options = PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Refuse, rules: true };
    let plan = match Plan::compile(&example.descriptor(), &options) {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    let bytes = Bytes::from(example.encode_to_vec());
    plan.apply(&bytes, &mut Found::default()).err().map(|violation| violation.to_string())
}

struct Maker {
    left: usize,
}

impl Maker {
    fn message(&mut self, message: &MessageDescriptor, above: &mut Vec<String>) -> DynamicMessage {
        let mut made = DynamicMessage::new(message.clone());
        for field in message.fields() {
            // Of a oneof, the first.
            let later = field.containing_oneof().is_some_and(|oneof| {
                !oneof.is_synthetic() && oneof.fields().next().is_some_and(|first| first.number() != field.number())
            });
            if later || self.left == 0 {
                continue;
            }
            self.left -= 1;
            let rules = Rules::of(&field);
            if let Some(value) = self.value(&field, &rules, above) {
                made.set_field(&field, value);
            }
        }
        made
    }

    fn value(&mut self, field: &FieldDescriptor, rules: &Rules, above: &mut Vec<String>) -> Option<Value> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let of_map = rules.of_kind("map");
            let key = self.one(&entry.map_entry_key_field(), &of_map.inner("keys"), above)?;
            let value = self.one(&entry.map_entry_value_field(), &of_map.inner("values"), above)?;
            return Some(Value::Map([(key_of(key)?, value)].into()));
        }
        if field.is_list() {
            let of_list = rules.of_kind("repeated");
            let one = self.one(field, &of_list.inner("items"), above)?;
            let count = of_list.number("min_items").map_or(1, |least| least.clamp(1.0, 8.0) as usize);
            return Some(Value::List(vec![one; count]));
        }
        self.one(field, rules, above)
    }

    fn one(&mut self, field: &FieldDescriptor, rules: &Rules, above: &mut Vec<String>) -> Option<Value> {
        Some(match field.kind() {
            Kind::String => Value::String(string(field.name(), &rules.of_kind("string"))),
            Kind::Bytes => Value::Bytes(bytes(&rules.of_kind("bytes")).into()),
            Kind::Bool => {
                Value::Bool(rules.of_kind("bool").value("const").and_then(|value| value.as_bool()) != Some(false))
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(field.name(), rules) as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(field.name(), rules) as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number(field.name(), rules) as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number(field.name(), rules) as u64),
            Kind::Float => Value::F32(number(field.name(), rules) as f32),
            Kind::Double => Value::F64(number(field.name(), rules)),
            Kind::Enum(values) => {
                let of_enum = rules.of_kind("enum");
                let allowed = of_enum.number("const").or_else(|| of_enum.first("in").as_ref().and_then(as_number));
                let meaningful = values.values().find(|value| value.number() != 0).or_else(|| values.values().next());
                Value::EnumNumber(allowed.map(|number| number as i32).or_else(|| Some(meaningful?.number()))?)
            }
            Kind::Message(message) => Value::Message(self.inside(&message, above)?),
        })
    }

    fn inside(&mut self, message: &MessageDescriptor, above: &mut Vec<String>) -> Option<DynamicMessage> {
        if let Some(known) = well_known(message) {
            return known;
        }
        if above.len() >= MAX_DEPTH || above.iter().any(|up| up == message.full_name()) {
            return None;
        }
        above.push(message.full_name().to_owned());
        let made = self.message(message, above);
        above.pop();
        Some(made)
    }
}

/// Messages of `google.protobuf` have a JSON of their own, and not every content of them has one.
fn well_known(message: &MessageDescriptor) -> Option<Option<DynamicMessage>> {
    let name = message.full_name().strip_prefix("google.protobuf.")?;
    let mut made = DynamicMessage::new(message.clone());
    match name {
        // 2026-01-31T09:00:00Z.
        "Timestamp" => made.set_field_by_name("seconds", Value::I64(1_769_850_000)),
        "Duration" => made.set_field_by_name("seconds", Value::I64(60)),
        // Anything may be in it, also nothing.
        "FieldMask" | "Empty" | "Struct" | "ListValue" => {}
        "Any" | "Value" => return Some(None),
        // Wrappers.
        _ => return None,
    }
    Some(Some(made))
}

fn string(name: &str, rules: &Rules) -> String {
    if let Some(given) =
        rules.text("const").or_else(|| rules.first("in").and_then(|value| Some(value.as_str()?.to_owned())))
    {
        return given;
    }
    let usual = usual(name);
    if let Some(pattern) = rules.text("pattern") {
        let fits = regex_fits(&pattern, usual);
        return if fits { usual.to_owned() } else { pattern::matching(&pattern).unwrap_or_else(|| usual.to_owned()) };
    }
    for (rule, text) in [
        ("email", "name@example.kg"),
        ("hostname", "example.kg"),
        ("ip", "192.0.2.1"),
        ("ipv4", "192.0.2.1"),
        ("ipv6", "2001:db8::1"),
        ("uri", "https://example.kg/"),
        ("uuid", "019ab1c2-3d4e-7f50-8a6b-7c8d9e0f1a2b"),
    ] {
        if rules.value(rule).and_then(|value| value.as_bool()) == Some(true) {
            return text.to_owned();
        }
    }
    let (prefix, suffix) = (rules.text("prefix").unwrap_or_default(), rules.text("suffix").unwrap_or_default());
    let mut text = if prefix.is_empty() && suffix.is_empty() { usual.to_owned() } else { format!("{prefix}{suffix}") };
    let length = |rule: &str| rules.number(rule).map(|length| length.clamp(0.0, 1_000.0) as usize);
    let (exact, least, most) = (length("len"), length("min_len"), length("max_len"));
    let wanted = exact.unwrap_or_else(|| text.chars().count().max(least.unwrap_or(0)).min(most.unwrap_or(usize::MAX)));
    while text.chars().count() < wanted {
        text.push('a');
    }
    text.chars().take(wanted).collect()
}

/// What a field of this name usually holds. Personal data of nobody.
fn usual(name: &str) -> &'static str {
    let has = |part: &str| name.split('_').any(|word| word == part);
    match name {
        "pin" | "inn" | "personal_number" => "20109198714151",
        "on" | "since" | "until" | "from" | "to" | "date" | "day" => "2026-01-31",
        "surname" => "Асанов",
        "given_name" => "Үсөн",
        "currency" => "KGS",
        _ if has("pin") || has("inn") => "20109198714151",
        _ if has("date") || has("on") || has("until") || has("since") => "2026-01-31",
        _ if has("month") => "2026-01",
        _ if has("year") => "2026",
        _ if has("phone") => "+996555123456",
        _ if has("email") => "name@example.kg",
        _ => "text",
    }
}

fn bytes(rules: &Rules) -> Vec<u8> {
    let length =
        rules.number("len").or_else(|| rules.number("min_len")).map_or(1, |length| length.clamp(0.0, 1_000.0) as usize);
    vec![0; length]
}

fn number(name: &str, rules: &Rules) -> f64 {
    let rules = rules.of_number();
    if let Some(given) = rules.number("const").or_else(|| rules.first("in").as_ref().and_then(as_number)) {
        return given;
    }
    let year = name == "year" || name.ends_with("_year");
    let usual: f64 = if year { 2025.0 } else { 1.0 };
    let least = rules.number("gte").or_else(|| rules.number("gt").map(|than| than + 1.0));
    let most = rules.number("lte").or_else(|| rules.number("lt").map(|than| than - 1.0));
    usual.max(least.unwrap_or(f64::MIN)).min(most.unwrap_or(f64::MAX))
}

fn key_of(value: Value) -> Option<MapKey> {
    Some(match value {
        Value::Bool(value) => MapKey::Bool(value),
        Value::I32(value) => MapKey::I32(value),
        Value::I64(value) => MapKey::I64(value),
        Value::U32(value) => MapKey::U32(value),
        Value::U64(value) => MapKey::U64(value),
        Value::String(value) => MapKey::String(value),
        _ => return None,
    })
}

/// Whether the pattern is one that a text has as a whole: told by what it generates, where it is only classes and literals.
fn regex_fits(pattern: &str, text: &str) -> bool {
    pattern::fits(pattern, text).unwrap_or(false)
}

/// The rules of `buf.validate` that a field has, or some of them; perhaps none.
struct Rules(Option<DynamicMessage>);

impl Rules {
    fn of(field: &FieldDescriptor) -> Self {
        let options = field.options();
        let extension = options.descriptor().parent_pool().get_extension_by_name("buf.validate.field");
        let rules = extension.filter(|extension| {
            extension.containing_message() == options.descriptor() && options.has_extension(extension)
        });
        Self(rules.and_then(|rules| options.get_extension(&rules).as_message().cloned()))
    }

    /// Those for one kind of field; none where they are for another.
    fn of_kind(&self, kind: &str) -> Self {
        Self(self.value(kind).and_then(|value| value.as_message().cloned()))
    }

    /// Those for whichever kind of number.
    fn of_number(&self) -> Self {
        let kinds = [
            "float", "double", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
            "sfixed32", "sfixed64",
        ];
        kinds.iter().map(|kind| self.of_kind(kind)).find(|rules| rules.0.is_some()).unwrap_or(Self(None))
    }

    /// Those for elements, keys or values.
    fn inner(&self, of: &str) -> Self {
        self.of_kind(of)
    }

    fn value(&self, name: &str) -> Option<Value> {
        let rules = self.0.as_ref()?;
        let field = rules.descriptor().get_field_by_name(name)?;
        rules.has_field(&field).then(|| rules.get_field(&field).into_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.as_str().map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<f64> {
        as_number(&self.value(name)?)
    }

    fn first(&self, name: &str) -> Option<Value> {
        self.value(name)?.as_list()?.first().cloned()
    }
}

fn as_number(value: &Value) -> Option<f64> {
    Some(match value {
        Value::I32(value) => f64::from(*value),
        Value::U32(value) => f64::from(*value),
        Value::I64(value) => *value as f64,
        Value::U64(value) => *value as f64,
        Value::F32(value) => f64::from(*value),
        Value::F64(value) => *value,
        Value::EnumNumber(value) => f64::from(*value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(message: &str) -> String {
        let pool = prost_reflect::DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        serde_json::to_string(&of(&pool.get_message_by_name(message).unwrap())).unwrap()
    }

    #[test]
    fn requests_of_the_example_services() {
        assert_eq!(json("kg.civil.v1.GetPersonRequest"), r#"{"pin":"20109198714151"}"#);
        assert_eq!(json("kg.civil.v1.GetResidenceRequest"), r#"{"pin":"20109198714151","on":"2026-01-31"}"#);
        assert_eq!(
            json("kg.civil.v1.ListChangesRequest"),
            r#"{"fromSequence":"1","limit":1,"kinds":["CHANGE_KIND_BIRTH"]}"#
        );
        assert!(json("kg.civil.v1.Change").contains(r#""recordedAt":"2026-01-31T09:00:00Z""#));
    }

    #[test]
    fn rules_are_kept_where_they_are_simple() {
        let folder = tempfile::tempdir().unwrap();
        let proto = "syntax = \"proto3\"; package t; import \"buf/validate/validate.proto\"; message M { \
            string pin = 1 [(buf.validate.field).string.pattern = \"^[0-9]{14}$\"]; \
            string card = 2 [(buf.validate.field).string.pattern = \"^ID[0-9]{7}$\"]; \
            string short = 3 [(buf.validate.field).string = {min_len: 6, max_len: 8}]; \
            string mail = 4 [(buf.validate.field).string.email = true]; \
            uint32 limit = 5 [(buf.validate.field).uint32 = {gte: 10, lte: 20}]; \
            repeated string names = 6 [(buf.validate.field).repeated = {min_items: 2, items: {string: {prefix: \"N\"}}}]; \
            int64 kind = 7 [(buf.validate.field).int64 = {in: [7, 8]}]; }";
        std::fs::write(folder.path().join("t.proto"), proto).unwrap();
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let mut compiler = protox::Compiler::new([folder.path().to_str().unwrap(), ours]).unwrap();
        compiler.include_imports(true).open_file("t.proto").unwrap();
        let bytes = compiler.encode_file_descriptor_set();
        let pool = prost_reflect::DescriptorPool::decode(&bytes[..]).unwrap();
        let example = of(&pool.get_message_by_name("t.M").unwrap());
        assert_eq!(
            serde_json::to_string(&example).unwrap(),
            r#"{"pin":"20109198714151","card":"ID1111111","short":"textaa","mail":"name@example.kg","limit":10,"names":["N","N"],"kind":"7"}"#
        );
        assert_eq!(unfit(&example), None);
    }

    #[test]
    fn every_type_has_an_example_that_is_valid_json_for_it() {
        let pool = prost_reflect::DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let mut types = 0;
        for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
            let text = serde_json::to_string(&of(&message)).unwrap();
            let mut reader = serde_json::Deserializer::from_str(&text);
            DynamicMessage::deserialize(message.clone(), &mut reader).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(text.len() < 64 << 10, "{}", message.full_name());
            types += 1;
        }
        assert!(types > 100, "{types}");
    }
}
