//! Neighbouring versions: a change that breaks nothing passes both ways, between stubs of either version and through plans of
//! either version. What nodes do with it is in `docs/protocol.md`.

use bytes::Bytes;
use kopuro::policy::UnknownFields;
use kopuro::schema::breaking::breaking;
use kopuro::schema::plan::{Allow, Found, Plan, PlanOptions, Violation};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::schema_breaking::{neighbours, pool};

const NAME: &str = "t.v1.M0";

/// A message with about half of its fields set, some of them more than once, as `choices` say.
fn filled(message: &MessageDescriptor, choices: &mut impl Iterator<Item = u8>, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let choice = choices.next().unwrap_or(0);
        if choice.is_multiple_of(2) {
            continue;
        }
        let mut one = || value(&field, choices, depth);
        let value = if field.is_list() { Value::List((0..=choice % 3).map(|_| one()).collect()) } else { one() };
        filled.set_field(&field, value);
    }
    filled
}

fn value(field: &FieldDescriptor, choices: &mut impl Iterator<Item = u8>, depth: usize) -> Value {
    let choice = choices.next().unwrap_or(1);
    match field.kind() {
        Kind::String => Value::String(format!("Ө{choice}")),
        Kind::Bytes => Value::Bytes(vec![choice, 0xff].into()),
        Kind::Int64 => Value::I64(-i64::from(choice) - 1),
        Kind::Bool => Value::Bool(true),
        Kind::Double => Value::F64(f64::from(choice) + 0.5),
        Kind::Fixed32 => Value::U32(u32::from(choice) + 1),
        // Also numbers that the enum does not have: it is open.
        Kind::Enum(_) => Value::EnumNumber(i32::from(choice) + 1),
        Kind::Message(of) if depth < 3 => Value::Message(filled(&of, choices, depth + 1)),
        Kind::Message(of) => Value::Message(DynamicMessage::new(of)),
        other => unreachable!("{other:?} is not generated"),
    }
}

/// What `message` says in the terms of another version: fields that it lacks are gone, at every depth.
fn in_terms_of(message: &DynamicMessage, other: &MessageDescriptor) -> DynamicMessage {
    let mut said = DynamicMessage::new(other.clone());
    for (field, value) in message.fields() {
        let Some(field) = other.get_field(field.number()) else { continue };
        let convert = |value: &Value| match (value, field.kind()) {
            (Value::Message(inner), Kind::Message(of)) => Value::Message(in_terms_of(inner, &of)),
            (value, _) => value.clone(),
        };
        let value = match value {
            Value::List(values) => Value::List(values.iter().map(convert).collect()),
            value => convert(value),
        };
        said.set_field(&field, value);
    }
    said
}

/// Whether it holds what the other version does not know.
fn is_ahead_of(message: &DynamicMessage, other: &MessageDescriptor) -> bool {
    message.encoded_len() != in_terms_of(message, other).encoded_len()
}

fn plan(message: &MessageDescriptor, unknown: UnknownFields) -> Plan {
    Plan::compile(message, &PlanOptions { allow: Allow::Everything, unknown, rules: true }).unwrap()
}

/// Without unknown fields, to compare what is said.
fn decoded(of: &MessageDescriptor, bytes: &[u8]) -> DynamicMessage {
    in_terms_of(&DynamicMessage::decode(of.clone(), bytes).unwrap(), of)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_compatible_change_passes_both_ways(
        (old, new) in neighbours(),
        choices in prop::collection::vec(any::<u8>(), 64),
    ) {
        let (old, new) = (pool(&old), pool(&new));
        prop_assert!(breaking(&old, &new).is_empty());
        let (old, new) = (old.get_message_by_name(NAME).unwrap(), new.get_message_by_name(NAME).unwrap());
        let mut choices = choices.into_iter();

        // A new stub speaks to an old one: what the old one knows arrives, the rest is kept if it is passed on.
        let sent = filled(&new, &mut choices, 0);
        let bytes = Bytes::from(sent.encode_to_vec());
        let arrived = DynamicMessage::decode(old.clone(), bytes.clone()).unwrap();
        prop_assert_eq!(decoded(&old, &bytes), in_terms_of(&sent, &old));
        prop_assert_eq!(&decoded(&new, &arrived.encode_to_vec()), &sent);

        // Through plans: of its own version; of the old one, which passes, strips or refuses what it does not know.
        let mut found = Found::default();
        for unknown in [UnknownFields::Refuse, UnknownFields::Strip, UnknownFields::Pass] {
            prop_assert_eq!(plan(&new, unknown).apply(&bytes, &mut found).unwrap(), None);
        }
        prop_assert_eq!(plan(&old, UnknownFields::Pass).apply(&bytes, &mut found).unwrap(), None);
        let stripped = plan(&old, UnknownFields::Strip).apply(&bytes, &mut found).unwrap().unwrap_or_else(|| bytes.clone());
        let ahead = is_ahead_of(&sent, &old);
        prop_assert_eq!(decoded(&new, &stripped), in_terms_of(&in_terms_of(&sent, &old), &new));
        prop_assert_eq!(stripped != bytes, ahead);
        prop_assert_eq!(found.withheld > 0, ahead);
        match plan(&old, UnknownFields::Refuse).apply(&bytes, &mut found) {
            Ok(changed) => prop_assert!(!ahead && changed.is_none()),
            Err(violation) => prop_assert!(ahead && matches!(violation, Violation::Unknown { .. }), "{}", violation),
        }

        // An old stub speaks to a new one: nothing is unknown, what is new is not set.
        let sent = filled(&old, &mut choices, 0);
        let bytes = Bytes::from(sent.encode_to_vec());
        let arrived = DynamicMessage::decode(new.clone(), bytes.clone()).unwrap();
        prop_assert_eq!(arrived.unknown_fields().count(), 0);
        prop_assert_eq!(in_terms_of(&arrived, &old), sent);
        prop_assert_eq!(plan(&new, UnknownFields::Refuse).apply(&bytes, &mut found).unwrap(), None);
    }
}
