//! Random types, as .proto, and random messages of them.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// SplitMix64: enough for tests, and the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const SCALARS: [&str; 16] = [
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64", "float",
    "double", "bool", "string", "bytes", "E",
];
const CATEGORIES: [&str; 3] = ["identity", "contact", "kg.secret"];

/// A pool with the messages `t.M0` to `t.M3`, which may hold each other and themselves.
pub(super) fn types(random: &mut Random, annotated: bool) -> (DescriptorPool, String) {
    let proto2 = random.one_in(2);
    let mut text = format!(
        "syntax = \"{}\"; package t; import \"kopuro/options/v1/options.proto\"; import \"google/protobuf/struct.proto\"; \
         import \"google/protobuf/wrappers.proto\"; enum E {{ ZERO = 0; ONE = 1; FAR = 300; LOW = -1; }}\n",
        if proto2 { "proto2" } else { "proto3" }
    );
    for index in 0..4 {
        let _ = writeln!(text, "message M{index} {{");
        let mut number = 0;
        for name in 0..random.below(9) {
            number += 1 + if random.one_in(4) { random.below(40) } else { 0 };
            if random.one_in(9) {
                // Its fields are of one to three kinds.
                let _ = writeln!(text, "  oneof o{number} {{");
                for _ in 0..1 + random.below(3) {
                    let kind = kind(random);
                    let options = options(random, kind, annotated, false);
                    let _ = writeln!(text, "    {kind} f{name}_{number} = {number}{options};");
                    number += 1;
                }
                text.push_str("  }\n");
                continue;
            }
            if random.one_in(9) {
                let key = random.pick(&["int32", "sint64", "bool", "string", "fixed32", "uint64"]);
                let value = kind(random);
                let options = options(random, "map", annotated, false);
                let _ = writeln!(text, "  map<{key}, {value}> f{name} = {number}{options};");
                continue;
            }
            let kind = kind(random);
            let list = random.one_in(3);
            let label = match (list, proto2) {
                (true, _) => "repeated ",
                (false, true) if random.one_in(12) => "required ",
                (false, true) => "optional ",
                (false, false) if random.one_in(4) => "optional ",
                (false, false) => "",
            };
            let options = options(random, kind, annotated, list);
            let _ = writeln!(text, "  {label}{kind} f{name} = {number}{options};");
        }
        if proto2 {
            text.push_str("  extensions 1000 to 1010;\n");
        }
        text.push_str("}\n");
        if proto2 && random.one_in(2) {
            let kind = kind(random);
            let label = random.pick(&["optional", "repeated"]);
            let options = options(random, kind, annotated, label == "repeated");
            let _ = writeln!(text, "extend M{index} {{ {label} {kind} e{index} = 1000{options}; }}");
        }
    }
    (super::pool(&[("t.proto", &text)]), text)
}

fn kind(random: &mut Random) -> &'static str {
    match random.below(8) {
        0..5 => random.pick(&SCALARS),
        5 | 6 => random.pick(&["M0", "M1", "M2", "M3"]),
        _ => random.pick(&["google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.StringValue"]),
    }
}

fn options(random: &mut Random, kind: &str, annotated: bool, list: bool) -> String {
    let mut options = Vec::new();
    let scalar = SCALARS.contains(&kind);
    if list && scalar && !matches!(kind, "string" | "bytes") && random.one_in(3) {
        options.push(format!("packed = {}", random.one_in(2)));
    }
    if annotated {
        if scalar && !matches!(kind, "float" | "double" | "bool" | "E") && random.one_in(4) {
            options.push("(kopuro.options.v1.subject) = true".to_owned());
        }
        if scalar && random.one_in(6) {
            options.push("(kopuro.options.v1.commit) = true".to_owned());
        }
        if random.one_in(3) {
            options.push(format!("(kopuro.options.v1.category) = \"{}\"", random.pick(&CATEGORIES)));
        }
    }
    if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) }
}

/// Some of the categories.
pub(super) fn categories(random: &mut Random) -> Vec<&'static str> {
    CATEGORIES.into_iter().filter(|_| random.one_in(2)).collect()
}

/// Paths of a mask, none within another.
pub(super) fn paths(random: &mut Random, message: &MessageDescriptor, prefix: &str, depth: u32) -> Vec<String> {
    let mut all = Vec::new();
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        match field.kind() {
            Kind::Message(inner) if depth > 0 && !field.is_map() && random.one_in(2) => {
                all.extend(paths(random, &inner, &format!("{path}."), depth - 1));
            }
            _ if random.one_in(2) => all.push(path),
            _ => {}
        }
    }
    all
}

/// A message with some of its fields, its required ones among them.
pub(super) fn message(random: &mut Random, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let is_message = matches!(field.kind(), Kind::Message(_));
        if !field.is_required() && (random.one_in(3) || (is_message && (depth == 0 || random.one_in(2)))) {
            continue;
        }
        // A type that requires itself has no messages.
        if depth == 0 && is_message {
            continue;
        }
        let value = if field.is_list() {
            Value::List((0..random.below(4)).map(|_| value(random, &field.kind(), depth)).collect())
        } else if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            let (key, held) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            Value::Map(
                (0..random.below(3)).map(|_| (map_key(random, &key), value(random, &held.kind(), depth))).collect(),
            )
        } else {
            value(random, &field.kind(), depth)
        };
        message.set_field(&field, value);
    }
    for extension in descriptor.extensions() {
        if random.one_in(2) && !(depth == 0 && matches!(extension.kind(), Kind::Message(_))) {
            let value = value(random, &extension.kind(), depth);
            let value = if extension.is_list() { Value::List(vec![value]) } else { value };
            message.set_extension(&extension, value);
        }
    }
    message
}

fn map_key(random: &mut Random, key: &FieldDescriptor) -> MapKey {
    match key.kind() {
        Kind::Int32 => MapKey::I32(random.below(4) as i32),
        Kind::Sint64 => MapKey::I64(random.next() as i64),
        Kind::Bool => MapKey::Bool(random.one_in(2)),
        Kind::Fixed32 => MapKey::U32(random.next() as u32),
        Kind::Uint64 => MapKey::U64(random.next()),
        _ => MapKey::String(text(random)),
    }
}

fn text(random: &mut Random) -> String {
    let letters = ["a", "Ж", "ө", "№", "1", "𝄞", " longer, of ASCII only", " длиннее, кириллицей"];
    (0..random.below(6)).map(|_| random.pick(&letters)).collect()
}

fn value(random: &mut Random, kind: &Kind, depth: u32) -> Value {
    let number = match random.below(4) {
        0 => 0,
        1 => random.below(300) as u64,
        2 => (random.below(300) as u64).wrapping_neg(),
        _ => random.next(),
    };
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
        Kind::Float => Value::F32(number as f32),
        Kind::Double => Value::F64(number as f64),
        Kind::Bool => Value::Bool(number % 2 == 1),
        Kind::String => Value::String(text(random)),
        Kind::Bytes => Value::Bytes(text(random).into_bytes().into()),
        Kind::Enum(numbers) => {
            let all: Vec<i32> = numbers.values().map(|value| value.number()).collect();
            Value::EnumNumber(random.pick(&all))
        }
        Kind::Message(inner) => Value::Message(message(random, inner, depth.saturating_sub(1))),
    }
}
