//! Editions: `prost-reflect` reads proto2 and proto3. A file of edition 2023 or 2024 is written anew as the nearest of these, with each
//! feature where that syntax has it (`required`, `packed`, groups, explicit presence) and the two that it has not, whether strings must
//! be UTF-8 and enums are closed, kept as features of the field and enum: [`verifies_utf8`], [`is_closed`].
//!
//! <https://protobuf.dev/editions/features/>. Features of a language change no bytes and are left as they are. Nothing else of a
//! set is touched, options and their extensions included.

use std::borrow::Cow;
use std::collections::HashSet;

use prost::Message;
use prost::encoding::{self, DecodeContext, WireType};
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, EnumDescriptor, Syntax};

/// Numbers in `google/protobuf/descriptor.proto`.
mod number {
    pub(super) const SET_FILE: u32 = 1;
    pub(super) const FILE_MESSAGE: u32 = 4;
    pub(super) const FILE_ENUM: u32 = 5;
    pub(super) const FILE_EXTENSION: u32 = 7;
    pub(super) const FILE_OPTIONS: u32 = 8;
    pub(super) const FILE_SYNTAX: u32 = 12;
    pub(super) const FILE_EDITION: u32 = 14;
    pub(super) const FILE_FEATURES: u32 = 50;
    pub(super) const MESSAGE_NAME: u32 = 1;
    pub(super) const MESSAGE_FIELD: u32 = 2;
    pub(super) const MESSAGE_NESTED: u32 = 3;
    pub(super) const MESSAGE_ENUM: u32 = 4;
    pub(super) const MESSAGE_EXTENSION: u32 = 6;
    pub(super) const MESSAGE_OPTIONS: u32 = 7;
    pub(super) const MAP_ENTRY: u32 = 7;
    pub(super) const FIELD_EXTENDEE: u32 = 2;
    pub(super) const FIELD_LABEL: u32 = 4;
    pub(super) const FIELD_TYPE: u32 = 5;
    pub(super) const FIELD_TYPE_NAME: u32 = 6;
    pub(super) const FIELD_OPTIONS: u32 = 8;
    pub(super) const FIELD_ONEOF: u32 = 9;
    pub(super) const FIELD_OPTIONAL: u32 = 17;
    pub(super) const PACKED: u32 = 2;
    pub(super) const FIELD_FEATURES: u32 = 21;
    pub(super) const ENUM_VALUE: u32 = 2;
    pub(super) const ENUM_OPTIONS: u32 = 3;
    pub(super) const ENUM_FEATURES: u32 = 7;
    pub(super) const VALUE_NUMBER: u32 = 2;
    pub(super) const PRESENCE: u32 = 1;
    pub(super) const ENUM_TYPE: u32 = 2;
    pub(super) const REPEATED: u32 = 3;
    pub(super) const UTF8: u32 = 4;
    pub(super) const ENCODING: u32 = 5;
}

const EDITIONS: [u64; 2] = [1000, 1001];
const REQUIRED: u64 = 2;
const REPEATED: u64 = 3;
const STRING: u64 = 9;
const GROUP: u64 = 10;
const MESSAGE: u64 = 11;
const BYTES: u64 = 12;
/// Deeper than any types are nested.
const MAX_DEPTH: u32 = 100;

/// The pool of a descriptor set, of whatever syntax.
pub fn pool(set: &[u8]) -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(&lower(set)[..])
}

/// A set without editions; what is no set, or has an edition that is not known, is as it was.
pub fn lower(set: &[u8]) -> Cow<'_, [u8]> {
    let Some(files) = fields(set) else { return Cow::Borrowed(set) };
    if !files.iter().any(|file| edition(file.payload).is_some()) {
        return Cow::Borrowed(set);
    }
    let mut out = Vec::with_capacity(set.len() + set.len() / 4);
    for file in files {
        match edition(file.payload) {
            Some(()) if file.number == number::SET_FILE => put(number::SET_FILE, &lower_file(file.payload), &mut out),
            _ => out.extend_from_slice(file.whole),
        }
    }
    Cow::Owned(out)
}

/// Whether a string field must be UTF-8, by its `google.protobuf.FieldOptions` or else by the syntax of its file.
pub fn verifies_utf8(options: &DynamicMessage, syntax: Syntax) -> bool {
    let options = options.encode_to_vec();
    match feature(&options, number::FIELD_FEATURES, number::UTF8) {
        Some(utf8) => utf8 == 2,
        None => syntax != Syntax::Proto2,
    }
}

/// Whether an enum has no other numbers than its own.
pub fn is_closed(descriptor: &EnumDescriptor) -> bool {
    let options = descriptor.options().encode_to_vec();
    match feature(&options, number::ENUM_FEATURES, number::ENUM_TYPE) {
        Some(kind) => kind == 2,
        None => descriptor.parent_file().syntax() == Syntax::Proto2,
    }
}

/// One feature in a message of options.
fn feature(options: &[u8], features: u32, feature: u32) -> Option<u64> {
    varint(bytes(options, features)?, feature)
}

/// A field as it stands in a message.
struct Field<'a> {
    number: u32,
    wire: WireType,
    whole: &'a [u8],
    /// What stands after the tag, and after the length where there is one.
    payload: &'a [u8],
}

/// A message's fields; none where it is malformed.
fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let start = message;
        let (number, wire) = encoding::decode_key(&mut message).ok()?;
        let mut payload = message;
        encoding::skip_field(wire, number, &mut message, DecodeContext::default()).ok()?;
        if wire == WireType::LengthDelimited {
            encoding::decode_varint(&mut payload).ok()?;
        }
        let payload = &payload[..payload.len() - message.len()];
        all.push(Field { number, wire, whole: &start[..start.len() - message.len()], payload });
    }
    Some(all)
}

/// A field with a length; the last one counts.
fn bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    let field = fields(message)?.into_iter().rfind(|field| field.number == number)?;
    (field.wire == WireType::LengthDelimited).then_some(field.payload)
}

/// A varint field; the last one counts.
fn varint(message: &[u8], number: u32) -> Option<u64> {
    let field = fields(message)?.into_iter().rfind(|field| field.number == number)?;
    if field.wire == WireType::Varint { encoding::decode_varint(&mut &*field.payload).ok() } else { None }
}

fn put(number: u32, payload: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(number, WireType::LengthDelimited, out);
    encoding::encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

fn put_varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encoding::encode_key(number, WireType::Varint, out);
    encoding::encode_varint(value, out);
}

/// Whether a file is of an edition that is known.
fn edition(file: &[u8]) -> Option<()> {
    let known = varint(file, number::FILE_EDITION).is_some_and(|edition| EDITIONS.contains(&edition));
    (known && bytes(file, number::FILE_SYNTAX) == Some(b"editions")).then_some(())
}

/// The features that change what bytes mean.
#[derive(Clone, Copy)]
struct Features {
    presence: u64,
    enum_type: u64,
    repeated: u64,
    utf8: u64,
    encoding: u64,
}

impl Features {
    /// Of editions 2023 and 2024: explicit, open, packed, verified, with a length.
    const DEFAULT: Self = Self { presence: 1, enum_type: 1, repeated: 1, utf8: 2, encoding: 1 };

    /// With those that options set.
    fn with(self, options: Option<&[u8]>, features: u32) -> Self {
        let set = |number, inherited| {
            options.and_then(|options| feature(options, features, number)).filter(|set| *set != 0).unwrap_or(inherited)
        };
        Self {
            presence: set(number::PRESENCE, self.presence),
            enum_type: set(number::ENUM_TYPE, self.enum_type),
            repeated: set(number::REPEATED, self.repeated),
            utf8: set(number::UTF8, self.utf8),
            encoding: set(number::ENCODING, self.encoding),
        }
    }
}

fn lower_file(file: &[u8]) -> Vec<u8> {
    let features = Features::DEFAULT.with(bytes(file, number::FILE_OPTIONS), number::FILE_FEATURES);
    let mut out = Vec::with_capacity(file.len());
    let mut proto3 = true;
    for field in fields(file).unwrap_or_default() {
        match field.number {
            number::FILE_MESSAGE => {
                put(field.number, &lower_message(field.payload, features, MAX_DEPTH, &mut proto3), &mut out);
            }
            number::FILE_ENUM => put(field.number, &lower_enum(field.payload, features, &mut proto3), &mut out),
            number::FILE_EXTENSION => {
                put(field.number, &lower_field(field.payload, features, &HashSet::new(), false), &mut out);
            }
            number::FILE_SYNTAX | number::FILE_EDITION => {}
            _ => out.extend_from_slice(field.whole),
        }
    }
    // proto3's enums begin with zero. proto2 has no implicit presence: a file with both is read as if all were explicit.
    put(number::FILE_SYNTAX, if proto3 { b"proto3" } else { b"proto2" }, &mut out);
    out
}

fn lower_message(message: &[u8], features: Features, depth: u32, proto3: &mut bool) -> Vec<u8> {
    let Some(depth) = depth.checked_sub(1) else { return message.to_vec() };
    let is_entry = |message| {
        bytes(message, number::MESSAGE_OPTIONS).and_then(|options| varint(options, number::MAP_ENTRY)) == Some(1)
    };
    let all = fields(message).unwrap_or_default();
    let nested = all.iter().filter(|field| field.number == number::MESSAGE_NESTED).map(|field| field.payload);
    let entries: HashSet<&[u8]> =
        nested.filter(|nested| is_entry(nested)).filter_map(|nested| bytes(nested, number::MESSAGE_NAME)).collect();
    let own_entry = is_entry(message);
    let mut out = Vec::with_capacity(message.len());
    for field in all {
        let lowered = match field.number {
            number::MESSAGE_FIELD | number::MESSAGE_EXTENSION => {
                lower_field(field.payload, features, &entries, own_entry)
            }
            number::MESSAGE_NESTED => lower_message(field.payload, features, depth, proto3),
            number::MESSAGE_ENUM => lower_enum(field.payload, features, proto3),
            _ => {
                out.extend_from_slice(field.whole);
                continue;
            }
        };
        put(field.number, &lowered, &mut out);
    }
    out
}

/// `entries`: names of its message's map entries; `in_entry`: it is the key or value of one. Maps never have groups.
fn lower_field(field: &[u8], features: Features, entries: &HashSet<&[u8]>, in_entry: bool) -> Vec<u8> {
    let options = bytes(field, number::FIELD_OPTIONS);
    let features = features.with(options, number::FIELD_FEATURES);
    let kind = varint(field, number::FIELD_TYPE).unwrap_or_default();
    let label = varint(field, number::FIELD_LABEL).unwrap_or(1);
    let type_name = bytes(field, number::FIELD_TYPE_NAME).unwrap_or_default();
    let type_name = type_name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let is_map = label == REPEATED && entries.contains(type_name);
    let is_scalar = !matches!(kind, GROUP | MESSAGE);
    let is_alone = label != REPEATED
        && bytes(field, number::FIELD_EXTENDEE).is_none()
        && varint(field, number::FIELD_ONEOF).is_none();

    let mut out = Vec::with_capacity(field.len() + 16);
    let dropped = [number::FIELD_TYPE, number::FIELD_LABEL, number::FIELD_OPTIONAL, number::FIELD_OPTIONS];
    for part in fields(field).unwrap_or_default().iter().filter(|part| !dropped.contains(&part.number)) {
        out.extend_from_slice(part.whole);
    }
    let is_group = kind == MESSAGE && features.encoding == 2 && !is_map && !in_entry;
    put_varint(number::FIELD_TYPE, if is_group { GROUP } else { kind }, &mut out);
    let is_required = is_alone && features.presence == 3;
    put_varint(number::FIELD_LABEL, if is_required { REQUIRED } else { label }, &mut out);
    if is_alone && is_scalar && features.presence == 1 && !in_entry {
        put_varint(number::FIELD_OPTIONAL, 1, &mut out);
    }
    let mut lowered = options.unwrap_or_default().to_vec();
    if label == REPEATED && is_scalar && !matches!(kind, STRING | BYTES) {
        put_varint(number::PACKED, u64::from(features.repeated == 1), &mut lowered);
    }
    let mut utf8 = Vec::new();
    put_varint(number::UTF8, features.utf8, &mut utf8);
    put(number::FIELD_FEATURES, &utf8, &mut lowered);
    put(number::FIELD_OPTIONS, &lowered, &mut out);
    out
}

fn lower_enum(descriptor: &[u8], features: Features, proto3: &mut bool) -> Vec<u8> {
    let options = bytes(descriptor, number::ENUM_OPTIONS);
    let features = features.with(options, number::ENUM_FEATURES);
    let all = fields(descriptor).unwrap_or_default();
    let first = all.iter().find(|field| field.number == number::ENUM_VALUE);
    if first.and_then(|value| varint(value.payload, number::VALUE_NUMBER)).is_some_and(|number| number != 0) {
        *proto3 = false;
    }
    let mut out = Vec::with_capacity(descriptor.len() + 8);
    for field in all.iter().filter(|field| field.number != number::ENUM_OPTIONS) {
        out.extend_from_slice(field.whole);
    }
    let mut lowered = options.unwrap_or_default().to_vec();
    let mut kind = Vec::new();
    put_varint(number::ENUM_TYPE, features.enum_type, &mut kind);
    put(number::ENUM_FEATURES, &kind, &mut lowered);
    put(number::ENUM_OPTIONS, &lowered, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost_reflect::{Cardinality, MessageDescriptor};

    use super::*;
    use crate::policy::UnknownFields;
    use crate::schema::plan::{Allow, Found, Plan, PlanOptions, Violation};

    /// Of `FieldDescriptorProto`, with features as they are written: (number, value).
    fn field(name: &str, at: u64, kind: u64, label: u64, type_name: &str, features: &[(u32, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        put(1, name.as_bytes(), &mut out);
        put_varint(3, at, &mut out);
        put_varint(number::FIELD_LABEL, label, &mut out);
        put_varint(number::FIELD_TYPE, kind, &mut out);
        if !type_name.is_empty() {
            put(number::FIELD_TYPE_NAME, type_name.as_bytes(), &mut out);
        }
        put(number::FIELD_OPTIONS, &options(number::FIELD_FEATURES, features), &mut out);
        out
    }

    fn options(at: u32, features: &[(u32, u64)]) -> Vec<u8> {
        let (mut set, mut out) = (Vec::new(), Vec::new());
        features.iter().for_each(|(feature, value)| put_varint(*feature, *value, &mut set));
        put(at, &set, &mut out);
        out
    }

    fn message(file_features: &[(u32, u64)], first_of_enum: u64) -> MessageDescriptor {
        let fields = [
            field("verified", 1, STRING, 1, "", &[]),
            field("plain", 2, STRING, 1, "", &[(number::UTF8, 3)]),
            field("packed", 3, 5, REPEATED, "", &[]),
            field("expanded", 4, 5, REPEATED, "", &[(number::REPEATED, 2)]),
            field("delimited", 5, MESSAGE, 1, ".t.M", &[(number::ENCODING, 2)]),
            field("required", 6, 5, 1, "", &[(number::PRESENCE, 3)]),
            field("implicit", 7, 5, 1, "", &[(number::PRESENCE, 2)]),
            field("closed", 8, 14, 1, ".t.E", &[]),
        ];
        let (mut message, mut value, mut numbers, mut file, mut set) = (vec![], vec![], vec![], vec![], vec![]);
        put(number::MESSAGE_NAME, b"M", &mut message);
        fields.iter().for_each(|field| put(number::MESSAGE_FIELD, field, &mut message));
        put(1, b"ONE", &mut value);
        put_varint(number::VALUE_NUMBER, first_of_enum, &mut value);
        put(1, b"E", &mut numbers);
        put(number::ENUM_VALUE, &value, &mut numbers);
        put(number::ENUM_OPTIONS, &options(number::ENUM_FEATURES, &[(number::ENUM_TYPE, 2)]), &mut numbers);
        put(1, b"t.proto", &mut file);
        put(2, b"t", &mut file);
        put(number::FILE_MESSAGE, &message, &mut file);
        put(number::FILE_ENUM, &numbers, &mut file);
        put(number::FILE_OPTIONS, &options(number::FILE_FEATURES, file_features), &mut file);
        put(number::FILE_SYNTAX, b"editions", &mut file);
        put_varint(number::FILE_EDITION, 1000, &mut file);
        put(number::SET_FILE, &file, &mut set);
        pool(&set).unwrap().get_message_by_name("t.M").unwrap()
    }

    #[test]
    fn features_of_fields_files_and_enums() {
        let of = message(&[], 0);
        let get = |name: &str| of.get_field_by_name(name).unwrap();
        assert!(get("verified").supports_presence() && !get("implicit").supports_presence());
        assert!(get("packed").is_packed() && !get("expanded").is_packed());
        assert!(get("delimited").is_group() && get("required").cardinality() == Cardinality::Required);
        let utf8 = |name: &str| verifies_utf8(&get(name).options(), of.parent_file().syntax());
        assert!(utf8("verified") && !utf8("plain"));
        assert!(is_closed(get("closed").kind().as_enum().unwrap()));

        // What a file sets holds for fields that set nothing; an enum that does not begin with zero makes it proto2.
        let of = message(&[(number::PRESENCE, 2), (number::REPEATED, 2), (number::UTF8, 3)], 1);
        let get = |name: &str| of.get_field_by_name(name).unwrap();
        assert!(!get("packed").is_packed());
        assert!(!verifies_utf8(&get("verified").options(), of.parent_file().syntax()));
        assert_eq!(of.parent_file().syntax(), Syntax::Proto2);
    }

    #[test]
    fn a_plan_holds_messages_to_their_features() {
        let plan = Plan::compile(
            &message(&[], 0),
            &PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Refuse, rules: false },
        )
        .unwrap();
        let apply = |bytes: &[u8]| plan.apply(&Bytes::copy_from_slice(bytes), &mut Found::default());
        let required = [0x30, 1];
        assert!(apply(&required).is_ok());
        assert!(apply(&[&required[..], &[0x12, 1, 0xff]].concat()).is_ok());
        for (bytes, at) in [(&[0x0a, 1, 0xff][..], "verified"), (&[0x2b, 0x2c], "delimited"), (&[0x2a, 0], "delimited")]
        {
            let refused = apply(&[&required[..], bytes].concat()).unwrap_err();
            assert!(matches!(&refused, Violation::Malformed { path, .. } if path == at), "{refused}");
        }
        assert!(matches!(apply(&[]), Err(Violation::Malformed { path, .. }) if path == "required"));
        assert!(matches!(apply(&[0x30, 1, 0x40, 9]), Err(Violation::Unknown { number: 8, .. })));
    }

    #[test]
    fn other_sets_stay_as_they_are() {
        let own = crate::proto::DESCRIPTORS;
        assert!(matches!(lower(own), Cow::Borrowed(set) if set == own));
        assert!(matches!(lower(b"\xff\xff"), Cow::Borrowed(_)));
    }
}
