//! Messages as JSON, by protobuf's JSON mapping (<https://protobuf.dev/programming-guides/json/>): enums by name, 64-bit integers as
//! strings, well-known types as they are written there, fields without a value left out. Pure.
//!
//! prost-reflect knows the mapping. Added here are bounds, and errors that name the field and never a value: `serde_json` and
//! prost-reflect quote what they were given, and that is somebody's data.

use std::io;

use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::de::DeserializeSeed;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment, Track};

/// Longest name of the caller's own that is told back.
pub(super) const LONGEST_NAME: usize = 64;

/// A message holds at most one value for so many bytes of the largest JSON that is taken: each takes far more memory than its text.
const BYTES_PER_VALUE: usize = 8;

/// Why JSON is not a message of its type, or a message not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON (RFC 8259), or nested more than 128 deep.
    #[error("it is not JSON: line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The type has no such field.
    #[error("{} has no field {name:?}{}", .message, inside(.path))]
    UnknownField {
        /// The message type.
        message: String,
        /// The name, as far as it is not too long.
        name: String,
        /// Where the message is; empty: at the top.
        path: String,
    },
    /// A value does not fit its field.
    #[error("field {path}: not {expected} in protobuf's JSON mapping")]
    Field {
        /// Which.
        path: String,
        /// What would fit.
        expected: String,
    },
    /// The whole does not fit.
    #[error("it is not {0} in protobuf's JSON mapping")]
    Message(String),
    /// Text of more bytes than may be.
    #[error("as JSON it has more than {0} bytes")]
    TooLarge(usize),
    /// More values than may be.
    #[error("it has more than {0} values")]
    TooManyValues(usize),
    /// A message that has no JSON: an `Any` of a type that is not known, a time out of range.
    #[error("it cannot be told in JSON: it holds an Any of an unknown type, or a value out of range")]
    NotTellable,
}

fn inside(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" (in field {path})") }
}

/// Reads a message; `limit` is the largest JSON that is taken, in bytes. Names that the type has not are refused.
pub fn read(message: &MessageDescriptor, json: &[u8], limit: usize) -> Result<DynamicMessage, JsonError> {
    read_with(message, json, limit, &DeserializeOptions::new())
}

/// The same, passing over names that the type has not.
pub fn read_leniently(message: &MessageDescriptor, json: &[u8], limit: usize) -> Result<DynamicMessage, JsonError> {
    read_with(message, json, limit, &DeserializeOptions::new().deny_unknown_fields(false))
}

/// Reads a value that is no JSON text of its own but one string of it: of a query or a path.
pub fn read_text(message: &MessageDescriptor, text: &str) -> Result<DynamicMessage, JsonError> {
    let unfit = || JsonError::Message(message.full_name().to_owned());
    DynamicMessage::deserialize(message.clone(), serde_json::Value::String(text.to_owned())).map_err(|_| unfit())
}

/// Writes a message, in at most `limit` bytes.
pub fn write(message: &DynamicMessage, limit: usize) -> Result<Vec<u8>, JsonError> {
    write_with(message, limit, &SerializeOptions::new())
}

/// Writes a message with every field, also those that have no value.
pub fn write_all(message: &DynamicMessage, limit: usize) -> Result<Vec<u8>, JsonError> {
    write_with(message, limit, &SerializeOptions::new().skip_default_fields(false))
}

fn write_with(message: &DynamicMessage, limit: usize, options: &SerializeOptions) -> Result<Vec<u8>, JsonError> {
    let mut into = Bounded { bytes: Vec::new(), limit };
    let mut serializer = serde_json::Serializer::new(&mut into);
    match message.serialize_with_options(&mut serializer, options) {
        Ok(()) => Ok(into.bytes),
        Err(error) if error.classify() == Category::Io => Err(JsonError::TooLarge(limit)),
        Err(_) => Err(JsonError::NotTellable),
    }
}

fn read_with(
    message: &MessageDescriptor,
    json: &[u8],
    limit: usize,
    options: &DeserializeOptions,
) -> Result<DynamicMessage, JsonError> {
    if json.len() > limit {
        return Err(JsonError::TooLarge(limit));
    }
    let most = limit / BYTES_PER_VALUE;
    if values(json) > most {
        return Err(JsonError::TooManyValues(most));
    }
    let mut track = Track::new();
    let mut text = serde_json::Deserializer::from_slice(json);
    let reading = serde_path_to_error::Deserializer::new(&mut text, &mut track);
    let read = Seed(message, options).deserialize(reading).and_then(|read| text.end().map(|()| read));
    read.map_err(|error| explain(message, &error, &track.path()))
}

struct Seed<'a>(&'a MessageDescriptor, &'a DeserializeOptions);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = DynamicMessage;

    fn deserialize<D>(self, deserializer: D) -> Result<Self::Value, D::Error>
    where
        D: serde::Deserializer<'de>,
    {
        DynamicMessage::deserialize_with_options(self.0.clone(), deserializer, self.1)
    }
}

/// About how many values a text has: its commas and opening brackets that are in no string.
fn values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// What was wrong, without the value.
fn explain(message: &MessageDescriptor, error: &serde_json::Error, path: &Path) -> JsonError {
    if matches!(error.classify(), Category::Syntax | Category::Eof | Category::Io) {
        return JsonError::Syntax { line: error.line(), column: error.column() };
    }
    let (path, kind) = place(message, path);
    let text = error.to_string();
    if let Some(name) = text.strip_prefix("unrecognized field name '").and_then(|rest| rest.split('\'').next()) {
        let name = name.chars().take(LONGEST_NAME).collect();
        let message = match &kind {
            Some(Kind::Message(inner)) => inner.full_name(),
            _ => message.full_name(),
        };
        return JsonError::UnknownField { message: message.to_owned(), name, path };
    }
    match kind {
        _ if path.is_empty() => JsonError::Message(message.full_name().to_owned()),
        Some(kind) => JsonError::Field { path, expected: in_words(&kind) },
        None => JsonError::Field { path, expected: "what its type takes".to_owned() },
    }
}

/// The way to a field, by the names of fields only: keys of maps are data. And what the field is.
fn place(message: &MessageDescriptor, path: &Path) -> (String, Option<Kind>) {
    let mut text = String::new();
    let mut kind = Some(Kind::Message(message.clone()));
    let mut in_map = false;
    for segment in path {
        match (segment, &kind) {
            (Segment::Seq { index }, _) => text.push_str(&format!("[{index}]")),
            (Segment::Map { .. }, _) if in_map => {
                text.push_str("[*]");
                in_map = false;
            }
            (Segment::Map { key }, Some(Kind::Message(inside))) => {
                let field = inside.get_field_by_json_name(key).or_else(|| inside.get_field_by_name(key));
                let Some(field) = field else { break };
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(field.name());
                in_map = field.is_map();
                kind = match field.kind() {
                    Kind::Message(entry) if in_map => Some(entry.map_entry_value_field().kind()),
                    kind => Some(kind),
                };
            }
            _ => break,
        }
    }
    (text, kind)
}

pub(super) fn in_words(kind: &Kind) -> String {
    match kind {
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer".to_owned(),
        Kind::Uint32 | Kind::Fixed32 => "a 32-bit integer that is not negative".to_owned(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit integer, in a string".to_owned(),
        Kind::Uint64 | Kind::Fixed64 => "a 64-bit integer that is not negative, in a string".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "a string".to_owned(),
        Kind::Bytes => "a string of base64".to_owned(),
        Kind::Message(message) => format!("a {}", message.full_name()),
        Kind::Enum(kind) => format!("the name of a value of {}", kind.full_name()),
    }
}

struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn message(name: &str) -> MessageDescriptor {
        DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap().get_message_by_name(name).unwrap()
    }

    fn refused(name: &str, json: &str) -> String {
        read(&message(name), json.as_bytes(), 1 << 16).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field_and_no_value() {
        let change = "kg.civil.v1.ListChangesResponse";
        assert_eq!(
            refused("kg.civil.v1.GetPersonRequest", r#"{"pni":"2010919"}"#),
            "kg.civil.v1.GetPersonRequest has no field \"pni\""
        );
        assert_eq!(
            refused(change, r#"{"change":{"secret":1}}"#),
            "kg.civil.v1.Change has no field \"secret\" (in field change)"
        );
        let wrong = refused(change, r#"{"change":{"recordedAt":"yesterday"}}"#);
        assert!(wrong.contains("change.recorded_at") && !wrong.contains("yesterday"), "{wrong}");
        let wrong = refused(change, r#"{"change":{"kind":"CHANGE_KIND_MOOD"}}"#);
        assert!(wrong.contains("change.kind") && !wrong.contains("MOOD"), "{wrong}");
        let wrong = refused("kg.civil.v1.GetFamilyResponse", r#"{"members":[{},{"person":{"pin":12345}}]}"#);
        assert_eq!(wrong, "field members[1].person.pin: not a string in protobuf's JSON mapping");
        assert_eq!(refused("kg.civil.v1.GetPersonRequest", r#"{"pin":"#), "it is not JSON: line 1, column 7");
        assert!(refused("kg.civil.v1.GetPersonRequest", "[]").contains("kg.civil.v1.GetPersonRequest"));
        assert!(refused("kg.civil.v1.GetPersonRequest", "{} {}").contains("not JSON"));
    }

    #[test]
    fn bounds() {
        let list = message("google.protobuf.FieldOptions");
        let many = format!("{{\"targets\":[{}]}}", vec!["0"; 9_000].join(","));
        assert_eq!(read(&list, many.as_bytes(), 1 << 16).unwrap_err(), JsonError::TooManyValues(8192));
        assert_eq!(read(&list, many.as_bytes(), 100).unwrap_err(), JsonError::TooLarge(100));
        let deep = "[".repeat(100_000);
        assert!(read(&list, deep.as_bytes(), 1 << 20).is_err());
        let person = read(&message("kg.civil.v1.GetPersonRequest"), br#"{"pin":"123456789"}"#, 100).unwrap();
        assert_eq!(write(&person, 10).unwrap_err(), JsonError::TooLarge(10));
        assert_eq!(write(&person, 100).unwrap(), br#"{"pin":"123456789"}"#);
    }

    #[test]
    fn the_mapping() {
        let json = r#"{"change":{"sequence":"18446744073709551615","recordedAt":"2026-03-01T10:00:00Z","kind":"CHANGE_KIND_BIRTH"}}"#;
        let read = read(&message("kg.civil.v1.ListChangesResponse"), json.as_bytes(), 1 << 16).unwrap();
        assert_eq!(write(&read, 1 << 16).unwrap(), json.as_bytes());
    }
}
