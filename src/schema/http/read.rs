//! From HTTP to messages.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde::de::IgnoredAny;

use super::{BodyOf, Captures, Rule, field_path, is_text, name_of};
use crate::schema::json::{self, JsonError, LONGEST_NAME};

const INDIFFERENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

impl Rule {
    /// The message of a request: what the path says holds over the query and the body.
    pub fn read_request(
        &self,
        captures: &Captures,
        query: &[(Cow<'_, str>, Cow<'_, str>)],
        body: &[u8],
        limit: usize,
    ) -> Result<DynamicMessage, JsonError> {
        let mut message = match &self.body {
            BodyOf::Nothing => DynamicMessage::new(self.input.clone()),
            // Nothing sent is a message without fields.
            BodyOf::Rest | BodyOf::Field(_) if body.is_empty() => DynamicMessage::new(self.input.clone()),
            BodyOf::Rest => json::read(&self.input, body, limit)?,
            BodyOf::Field(field) => read_field(&self.input, field, body, limit, false)?,
        };
        for (name, text) in query {
            let way = self.query_way(name).ok_or_else(|| JsonError::UnknownField {
                message: self.input.full_name().to_owned(),
                name: name.chars().take(LONGEST_NAME).collect(),
                path: "the query".to_owned(),
            })?;
            set(&mut message, &way, text, true)?;
        }
        for (way, text) in self.variables.iter().zip(captures) {
            set(&mut message, way, text, false)?;
        }
        Ok(message)
    }

    /// The message of an answer; names that its type has not are passed over.
    pub fn read_answer(&self, body: &[u8], limit: usize) -> Result<DynamicMessage, JsonError> {
        match &self.response_body {
            None => json::read_leniently(&self.output, body, limit),
            Some(field) => read_field(&self.output, field, body, limit, true),
        }
    }

    /// A field that may be in the query.
    fn query_way(&self, name: &str) -> Option<Vec<FieldDescriptor>> {
        let way = field_path(&self.input, name)?;
        let of_body = match &self.body {
            BodyOf::Nothing => false,
            BodyOf::Rest => true,
            BodyOf::Field(field) => way.first() == Some(field),
        };
        let last = way.last()?;
        let fits = !last.is_map()
            && match last.kind() {
                Kind::Message(message) => is_text(&message),
                _ => true,
            };
        (fits && !of_body && !self.variables.contains(&way)).then_some(way)
    }
}

/// A message of which JSON gives one field.
fn read_field(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    body: &[u8],
    limit: usize,
    leniently: bool,
) -> Result<DynamicMessage, JsonError> {
    // One value and nothing after it: what is around it then means what it says.
    serde_json::from_slice::<IgnoredAny>(body)
        .map_err(|error| JsonError::Syntax { line: error.line(), column: error.column() })?;
    let name = serde_json::Value::from(field.json_name()).to_string();
    let whole = [b"{", name.as_bytes(), b":", body, b"}"].concat();
    let limit = limit.saturating_add(name.len() + 3);
    if leniently { json::read_leniently(message, &whole, limit) } else { json::read(message, &whole, limit) }
}

/// Sets a field, or adds to a repeated one.
fn set(message: &mut DynamicMessage, way: &[FieldDescriptor], text: &str, repeated: bool) -> Result<(), JsonError> {
    let Some((last, above)) = way.split_last() else { return Ok(()) };
    let mut inside = message;
    for field in above {
        let Some(inner) = inside.get_field_mut(field).as_message_mut() else { return Ok(()) };
        inside = inner;
    }
    let value = value(last, text)
        .ok_or_else(|| JsonError::Field { path: name_of(way), expected: json::in_words(&last.kind()) })?;
    if last.is_list() {
        if let (true, Some(list)) = (repeated, inside.get_field_mut(last).as_list_mut()) {
            list.push(value);
        }
    } else {
        inside.set_field(last, value);
    }
    Ok(())
}

/// A value from its text.
fn value(field: &FieldDescriptor, text: &str) -> Option<Value> {
    Some(match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Float => Value::F32(text.parse().ok()?),
        Kind::Double => Value::F64(text.parse().ok()?),
        Kind::Bytes => {
            let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
            Value::Bytes(Bytes::from(GeneralPurpose::new(alphabet, INDIFFERENT).decode(text).ok()?))
        }
        Kind::Enum(kind) => match kind.get_value_by_name(text) {
            Some(value) => Value::EnumNumber(value.number()),
            None => Value::EnumNumber(text.parse().ok()?),
        },
        Kind::Message(message) => Value::Message(json::read_text(&message, text).ok()?),
    })
}
