//! Messages and enums as JSON Schema (2020-12), by protobuf's JSON mapping.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::{of_enum, of_field, of_message};
use super::{schema_name, set};
use crate::schema::annotations::FieldAnnotations;

/// The types that a document speaks of.
#[derive(Debug, Default)]
pub(super) struct Types {
    schemas: BTreeMap<String, Value>,
}

impl Types {
    /// A message, by reference to its schema; or the schema itself of a well-known type.
    pub(super) fn reference(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message) {
            return schema;
        }
        let name = schema_name(message);
        if !self.schemas.contains_key(&name) {
            // First the name, so that a message may hold itself.
            self.schemas.insert(name.clone(), Value::Null);
            let schema = self.message(message);
            self.schemas.insert(name.clone(), schema);
        }
        reference_to(&name)
    }

    pub(super) fn into_schemas(mut self) -> Map<String, Value> {
        self.schemas.insert("connect.Error".to_owned(), error());
        self.schemas.into_iter().collect()
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let properties: Map<String, Value> =
            message.fields().map(|field| (field.json_name().to_owned(), described(&field, self))).collect();
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        set(&mut schema, "description", of_message(message));
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double | Kind::Float => json!({ "type": ["number", "string"] }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "pattern": "^-?[0-9]{1,19}$" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "pattern": "^[0-9]{1,20}$" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Message(message) => self.reference(message),
            Kind::Enum(kind) => self.enumeration(kind),
        }
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) -> Value {
        if kind.full_name() == "google.protobuf.NullValue" {
            return json!({ "type": "null" });
        }
        let name = kind.full_name().to_owned();
        self.schemas.entry(name.clone()).or_insert_with(|| {
            let values: Vec<Value> = kind.values().map(|value| value.name().into()).collect();
            let mut schema = json!({ "type": "string", "enum": values });
            set(&mut schema, "description", of_enum(kind));
            schema
        });
        reference_to(&name)
    }
}

/// A field's schema.
pub(super) fn field_schema(field: &FieldDescriptor, types: &mut Types) -> Value {
    if field.is_map() {
        let value = match field.kind() {
            Kind::Message(entry) => types.kind(&entry.map_entry_value_field().kind()),
            _ => Value::Bool(true),
        };
        return json!({ "type": "object", "additionalProperties": value });
    }
    let one = types.kind(&field.kind());
    if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
}

/// A field's schema, and what its author says of it.
fn described(field: &FieldDescriptor, types: &mut Types) -> Value {
    let mut schema = field_schema(field, types);
    set(&mut schema, "description", of_field(field));
    let said = FieldAnnotations::of(field);
    set(&mut schema, "x-kopuro-category", said.category);
    for (name, holds) in [("x-kopuro-subject", said.subject), ("x-kopuro-commit", said.commit)] {
        if holds {
            schema[name] = true.into();
        }
    }
    schema
}

fn well_known(message: &MessageDescriptor) -> Option<Value> {
    Some(match message.full_name().strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "Struct" => json!({ "type": "object" }),
        "Value" => json!({}),
        "ListValue" => json!({ "type": "array" }),
        "Empty" => json!({ "type": "object", "additionalProperties": false }),
        "Any" => {
            json!({ "type": "object", "properties": { "@type": { "type": "string" } }, "required": ["@type"] })
        }
        "StringValue" => json!({ "type": ["string", "null"] }),
        "BytesValue" => json!({ "type": ["string", "null"], "contentEncoding": "base64" }),
        "BoolValue" => json!({ "type": ["boolean", "null"] }),
        "Int32Value" | "UInt32Value" => json!({ "type": ["integer", "null"] }),
        "Int64Value" | "UInt64Value" => json!({ "type": ["string", "null"], "pattern": "^-?[0-9]{1,20}$" }),
        "FloatValue" | "DoubleValue" => json!({ "type": ["number", "string", "null"] }),
        _ => return None,
    })
}

/// An error, as the Connect protocol has it.
fn error() -> Value {
    json!({
        "type": "object",
        "required": ["code"],
        "properties": {
            "code": { "type": "string" },
            "message": { "type": "string" },
            "details": { "type": "array", "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": { "type": "string" },
                    "value": { "type": "string", "contentEncoding": "base64" },
                    "debug": {},
                },
            } },
        },
    })
}

fn reference_to(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
