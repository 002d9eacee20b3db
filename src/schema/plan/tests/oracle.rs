//! Plans against `prost-reflect`: what is accepted is what decodes, what is found is in the decoded message, and what goes on
//! decodes to the decoded message without what is withheld.
//!
//! Where the two are meant to differ:
//! - a plan refuses groups and tags of more than five bytes: see [`is_framed`];
//! - a plan refuses subjects that are too long or no text, and what comes twice or in parts and must come once: see [`is_meant`];
//! - a plan wants proto2's required fields, `prost-reflect` does not look: the oracle is asked with [`is_initialized`];
//! - a plan takes proto2's strings as they are, `prost-reflect` wants UTF-8 of them too;
//! - `prost-reflect` takes a map's field with any wire type for one with a length;
//! - of map entries with one key the last counts: subjects of the others are found all the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::encoding::{WireType, decode_key, encode_key, encode_varint, skip_field};
use prost_reflect::{FieldDescriptor, Kind, MapKey, ReflectMessage, Syntax, Value};

use super::generate::{self, Random};
use super::*;
use crate::schema::annotations::FieldAnnotations;

/// One field as on the wire, tag and all.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, WireType, Vec<u8>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let before = bytes;
        let (number, wire) = decode_key(&mut bytes).ok()?;
        skip_field(wire, number, &mut bytes, prost::encoding::DecodeContext::default()).ok()?;
        all.push((number, wire, before[..before.len() - bytes.len()].to_vec()));
    }
    Some(all)
}

/// The same message or another, in another form: fields turned round, repeated, in parts, packed or not, and unknown ones.
fn reshape(random: &mut Random, message: &MessageDescriptor, bytes: &[u8], unknown: bool) -> Vec<u8> {
    let Some(mut all) = fields(bytes) else { return bytes.to_vec() };
    for _ in 0..random.below(4) {
        let (a, b) = (random.below(all.len()), random.below(all.len()));
        if !all.is_empty() {
            all.swap(a, b);
        }
    }
    let mut out = Vec::new();
    for (number, wire, field) in all {
        let times = if random.one_in(8) { 2 } else { 1 };
        for _ in 0..times {
            if wire != WireType::LengthDelimited {
                out.extend_from_slice(&field);
                continue;
            }
            let inside = payload(&field);
            match message.get_field(number).map(|field| field.kind()) {
                Some(Kind::Message(inner)) => {
                    let inside = reshape(random, &inner, inside, unknown);
                    let parts = fields(&inside).unwrap_or_default();
                    let is_map = inner.is_map_entry();
                    let at = if random.one_in(6) && !is_map { random.below(parts.len()) } else { parts.len() };
                    let (one, other) = parts.split_at(at);
                    for part in [one, other].into_iter().filter(|part| part.len() == parts.len() || at < parts.len()) {
                        out.extend(super::field(
                            number,
                            &part.iter().flat_map(|(_, _, field)| field.clone()).collect::<Vec<_>>(),
                        ));
                    }
                }
                _ => out.extend_from_slice(&field),
            }
        }
        if unknown && random.one_in(6) {
            let number = 2_000 + random.below(3) as u32;
            out.extend(if random.one_in(2) { varint(number, random.next()) } else { super::field(number, b"unknown") });
        }
    }
    out
}

/// What stands after a field's tag and length.
fn payload(field: &[u8]) -> &[u8] {
    let mut rest = field;
    let _ = decode_key(&mut rest);
    let _ = prost::encoding::decode_varint(&mut rest);
    rest
}

/// Packed lists without their packing, and lists of numbers packed.
fn repack(random: &mut Random, message: &MessageDescriptor, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, wire, field) in fields(bytes).unwrap_or_default() {
        let list = message.get_field(number).filter(|field| field.is_list()).map(|field| field.kind());
        let value = |wire| !matches!(wire, WireType::LengthDelimited | WireType::StartGroup | WireType::EndGroup);
        match list {
            Some(kind) if value(kind.wire_type()) && random.one_in(2) => {
                if wire == WireType::LengthDelimited {
                    let mut rest = payload(&field);
                    while !rest.is_empty() {
                        let before = rest;
                        let context = prost::encoding::DecodeContext::default();
                        if skip_field(kind.wire_type(), number, &mut rest, context).is_err() {
                            break;
                        }
                        encode_key(number, kind.wire_type(), &mut out);
                        out.extend_from_slice(&before[..before.len() - rest.len()]);
                    }
                } else {
                    let mut rest = &field[..];
                    let _ = decode_key(&mut rest);
                    encode_key(number, WireType::LengthDelimited, &mut out);
                    encode_varint(rest.len() as u64, &mut out);
                    out.extend_from_slice(rest);
                }
            }
            _ => out.extend_from_slice(&field),
        }
    }
    out
}

/// Whether all required fields are there.
fn is_initialized(message: &DynamicMessage) -> bool {
    let is_there = |field: &FieldDescriptor| !field.is_required() || message.has_field(field);
    message.descriptor().fields().all(|field| is_there(&field))
        && message
            .fields()
            .map(|(_, value)| value)
            .chain(message.extensions().map(|(_, value)| value))
            .all(all_initialized)
}

fn all_initialized(value: &Value) -> bool {
    match value {
        Value::Message(message) => is_initialized(message),
        Value::List(values) => values.iter().all(all_initialized),
        Value::Map(values) => values.values().all(all_initialized),
        _ => true,
    }
}

/// What goes on of a message, by the decoded message.
#[derive(Clone, Copy)]
enum Kept<'a> {
    All,
    Paths(&'a BTreeSet<String>, &'a str),
    Categories(&'a BTreeSet<String>),
}

impl Kept<'_> {
    fn goes_on(&self, name: &str, annotations: &FieldAnnotations) -> bool {
        match self {
            Self::All => true,
            Self::Paths(paths, prefix) => {
                let path = format!("{prefix}{name}");
                paths.iter().any(|p| *p == path || p.starts_with(&format!("{path}.")))
            }
            Self::Categories(allowed) => {
                annotations.category.as_ref().is_none_or(|category| allowed.contains(category))
            }
        }
    }
}

/// A message in words, without what does not go on, and without unknown fields; and the subjects in it.
fn tell(message: &DynamicMessage, kept: Kept<'_>, subjects: &mut BTreeSet<String>) -> String {
    let mut told = BTreeMap::new();
    for (field, value) in message.fields() {
        let annotations = FieldAnnotations::of(&field);
        if kept.goes_on(field.name(), &annotations) {
            let prefix = match kept {
                Kept::Paths(_, prefix) => format!("{prefix}{}.", field.name()),
                _ => String::new(),
            };
            let below = match kept {
                Kept::Paths(paths, _) if paths.contains(&prefix[..prefix.len() - 1]) => Kept::All,
                Kept::Paths(paths, _) => Kept::Paths(paths, &prefix),
                other => other,
            };
            told.insert(field.number(), tell_value(value, below, annotations.subject, subjects));
        }
    }
    for (extension, value) in message.extensions() {
        let annotations = FieldAnnotations::of_options(&extension.options());
        if !matches!(kept, Kept::Paths(..)) && kept.goes_on("", &annotations) {
            told.insert(extension.number(), tell_value(value, kept, annotations.subject, subjects));
        }
    }
    format!("{told:?}")
}

fn tell_value(value: &Value, kept: Kept<'_>, subject: bool, subjects: &mut BTreeSet<String>) -> String {
    if subject {
        let is = match value {
            Value::I32(number) => number.to_string(),
            Value::I64(number) => number.to_string(),
            Value::U32(number) => number.to_string(),
            Value::U64(number) => number.to_string(),
            Value::String(text) => text.clone(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        if !is.is_empty() && is != "0" {
            subjects.insert(is);
        }
    }
    match value {
        Value::Message(message) => tell(message, kept, subjects),
        Value::List(values) => {
            format!("{:?}", values.iter().map(|value| tell_value(value, kept, subject, subjects)).collect::<Vec<_>>())
        }
        Value::Map(values) => {
            let key = |key: &MapKey| format!("{key:?}");
            let told: BTreeMap<_, _> =
                values.iter().map(|(k, value)| (key(k), tell_value(value, kept, false, subjects))).collect();
            format!("{told:?}")
        }
        other => format!("{other:?}"),
    }
}

/// What a plan may refuse although it decodes.
fn is_meant(what: &str, reshaped: bool) -> bool {
    // Or the first of two parts lacks what it requires.
    let in_parts = what.starts_with("it comes more than once") || what == "a required field is missing";
    (reshaped && in_parts) || what.starts_with("a subject")
}

/// Whether every tag is one that a plan takes: no groups, not more than five bytes, and maps with a length.
fn is_framed(message: &MessageDescriptor, bytes: &[u8]) -> bool {
    let Some(all) = fields(bytes) else { return false };
    all.iter().all(|(number, wire, field)| {
        let tag = field.iter().take_while(|byte| **byte >= 0x80).count();
        let declared = message.get_field(*number).map(|field| (field.kind(), field.is_map()));
        let declared = declared.or_else(|| message.get_extension(*number).map(|field| (field.kind(), false)));
        match declared {
            _ if *wire == WireType::StartGroup || tag >= 5 => false,
            Some((Kind::Message(inner), map)) => match wire {
                WireType::LengthDelimited => is_framed(&inner, payload(field)),
                _ => !map,
            },
            _ => true,
        }
    })
}

/// How often what was checked, so that it is seen that all of it was.
#[derive(Debug, Default)]
struct Tally {
    accepted: u32,
    refused_by_both: u32,
    refused_by_the_plan: u32,
    withheld: u32,
    subjects: u32,
    committed: u32,
}

/// Checks one message; `intact`: it is as `prost-reflect` wrote it.
fn check(
    tally: &mut Tally,
    (message, text): (&MessageDescriptor, &str),
    (options, kept): (&PlanOptions, Kept<'_>),
    bytes: &[u8],
    intact: bool,
) {
    let Ok(plan) = Plan::compile(message, options) else { return };
    let decoded = DynamicMessage::decode(message.clone(), bytes).map_err(|error| error.to_string());
    let decoded = decoded.and_then(|decoded| is_framed(message, bytes).then_some(decoded).ok_or_else(String::new));
    let applied = apply(&plan, bytes);
    let note = || format!("{text}\n{options:?}\n{bytes:02x?}\n{decoded:?}\n{applied:?}");
    let (decoded, (out, found)) = match (&decoded, &applied) {
        (Ok(decoded), Ok(applied)) => (decoded, applied),
        (Err(_), Err(_)) => {
            tally.refused_by_both += 1;
            return;
        }
        (Ok(decoded), Err(Violation::Malformed { what, .. })) => {
            assert!(is_meant(what, !intact) || !is_initialized(decoded), "{}", note());
            tally.refused_by_the_plan += 1;
            return;
        }
        (Err(error), Ok(_)) => {
            let proto2 = message.parent_file().syntax() == Syntax::Proto2;
            assert!(proto2 && error.contains("UTF-8"), "{}", note());
            return;
        }
        (Ok(_), Err(_)) => panic!("{}", note()),
    };
    assert!(is_initialized(decoded), "{}", note());
    tally.accepted += 1;
    tally.withheld += u32::from(found.withheld > 0);
    tally.subjects += u32::from(!found.subjects.is_empty());
    tally.committed += u32::from(!found.committed.is_empty());
    let (mut expected, mut subjects) = (BTreeSet::new(), BTreeSet::new());
    let told = tell(decoded, kept, &mut expected);
    let again = DynamicMessage::decode(message.clone(), &out[..]).unwrap_or_else(|error| panic!("{error}\n{}", note()));
    assert_eq!(told, tell(&again, Kept::All, &mut subjects), "{}", note());
    if found.withheld == 0 {
        assert_eq!(out, bytes, "{}", note());
    }
    let found: BTreeSet<String> =
        found.subjects.iter().map(|subject| String::from_utf8(subject.to_vec()).unwrap()).collect();
    if intact {
        assert_eq!(found, expected, "{}", note());
    } else {
        assert!(found.is_superset(&expected), "{}", note());
    }
}

/// All of it for one seed.
fn check_seed(seed: u64, tally: &mut Tally) {
    let mut random = Random(seed);
    let annotated = random.one_in(2);
    let (pool, text) = generate::types(&mut random, annotated);
    let message = pool.get_message_by_name("t.M0").unwrap();
    let allowed: BTreeSet<String> = generate::categories(&mut random).into_iter().map(str::to_owned).collect();
    let paths: BTreeSet<String> = generate::paths(&mut random, &message, "", 2).into_iter().collect();
    let stripping = |allow| PlanOptions { allow, unknown: UnknownFields::Strip, rules: false };
    let plans = [
        (everything(), Kept::All),
        (stripping(Allow::Everything), Kept::All),
        (stripping(Allow::Paths(paths.clone())), Kept::Paths(&paths, "")),
        (stripping(Allow::Categories(allowed.clone())), Kept::Categories(&allowed)),
    ];
    let of = (&message, &text[..]);
    for _ in 0..4 {
        let bytes = generate::message(&mut random, &message, 4).encode_to_vec();
        let repacked = repack(&mut random, &message, &bytes);
        let reshaped = reshape(&mut random, &message, &bytes, true);
        let mut mutated = reshaped.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(mutated.len());
            if random.one_in(4) {
                mutated.truncate(at);
            } else if let Some(byte) = mutated.get_mut(at) {
                *byte = if random.one_in(2) { *byte ^ (1 << random.below(8)) } else { random.next() as u8 };
            }
        }
        for (options, kept) in &plans {
            let plan = (options, *kept);
            for (bytes, intact) in [(&bytes, true), (&repacked, true), (&reshaped, false)] {
                check(tally, of, plan, bytes, intact);
            }
        }
        // A number that a closed enum does not have is unknown to a plan: only where such fields pass can the two agree.
        check(tally, of, (&plans[0].0, Kept::All), &mutated, false);
        if message.parent_file().syntax() == Syntax::Proto3 {
            for (options, kept) in &plans[1..] {
                check(tally, of, (options, *kept), &mutated, false);
            }
        }
    }
}

proptest! {
    // Each seed is many messages.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 16, ..ProptestConfig::default() })]
    #[test]
    fn plans_agree_with_prost_reflect(seed: u64) {
        check_seed(seed, &mut Tally::default());
    }
}

#[test]
fn the_comparison_meets_all_that_it_is_for() {
    let mut tally = Tally::default();
    (0..30).for_each(|seed| check_seed(seed, &mut tally));
    let Tally { accepted, refused_by_both, refused_by_the_plan, withheld, subjects, committed } = tally;
    assert!(accepted > 800 && refused_by_both > 50 && refused_by_the_plan > 20, "{tally:?}");
    assert!(withheld > 200 && subjects > 80 && committed > 80, "{tally:?}");
}

proptest! {
    #[test]
    fn utf8_as_the_standard_library_has_it(
        text in "[aЖ№𝄞\u{7ff}\u{800}]{0,40}", at in any::<prop::sample::Index>(), byte: u8, whole: bool,
    ) {
        let mut bytes = text.into_bytes();
        if !whole && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for start in 0..bytes.len().min(4) {
            let text = &bytes[start..];
            prop_assert_eq!(utf8::is_utf8(text), std::str::from_utf8(text).is_ok());
        }
    }
}
