//! From messages to HTTP.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

use super::{BodyOf, Rule, is_text, name_of};
use crate::schema::json::{self, JsonError};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Path and query.
    pub target: String,
    /// JSON; none where the rule has no body.
    pub body: Option<Vec<u8>>,
}

impl Rule {
    /// The request that stands for a message. What the path cannot tell (an empty text, a part of dots), or the query (a map, a list of
    /// messages), is an error.
    pub fn write_request(&self, message: &DynamicMessage, limit: usize) -> Result<Written, JsonError> {
        let mut rest = message.clone();
        let mut texts = Vec::new();
        for way in &self.variables {
            let text = take(&mut rest, way).unwrap_or_default();
            texts.push(text);
        }
        let unfit = || {
            let names: Vec<String> = self.variables.iter().map(|way| name_of(way)).collect();
            JsonError::Field {
                path: names.join(", "),
                expected: "what can stand in the path of the back-end's address".into(),
            }
        };
        let mut target = self.template.fill(&texts).ok_or_else(unfit)?;
        let body = match &self.body {
            BodyOf::Nothing => None,
            BodyOf::Rest => {
                let body = json::write(&rest, limit)?;
                rest = DynamicMessage::new(self.input.clone());
                Some(body)
            }
            BodyOf::Field(field) => {
                let body = write_field(&rest, field, limit)?;
                rest.clear_field(field);
                Some(body)
            }
        };
        let mut separator = '?';
        let mut put = |name: &str, text: &str| {
            target.push(separator);
            target.extend(
                utf8_percent_encode(name, NON_ALPHANUMERIC).map(|part| part.replace("%2E", ".").replace("%5F", "_")),
            );
            target.push('=');
            target.extend(utf8_percent_encode(text, NON_ALPHANUMERIC));
            separator = '&';
        };
        write_query(&rest, &mut Vec::new(), &mut put)?;
        if target.len() > limit {
            return Err(JsonError::TooLarge(limit));
        }
        Ok(Written { target, body })
    }

    /// The body of an answer.
    pub fn write_answer(&self, message: &DynamicMessage, limit: usize) -> Result<Vec<u8>, JsonError> {
        match &self.response_body {
            None => json::write(message, limit),
            Some(field) => write_field(message, field, limit),
        }
    }
}

/// One field's JSON.
fn write_field(message: &DynamicMessage, field: &FieldDescriptor, limit: usize) -> Result<Vec<u8>, JsonError> {
    let mut only = DynamicMessage::new(message.descriptor());
    if message.has_field(field) {
        only.set_field(field, message.get_field(field).into_owned());
    }
    let whole = json::write_all(&only, limit)?;
    let whole: serde_json::Value = serde_json::from_slice(&whole).map_err(|_| JsonError::NotTellable)?;
    let value = whole.get(field.json_name()).unwrap_or(&serde_json::Value::Null);
    Ok(value.to_string().into_bytes())
}

/// Takes a field's text out of a message.
fn take(message: &mut DynamicMessage, way: &[FieldDescriptor]) -> Option<String> {
    let (last, above) = way.split_last()?;
    let mut inside = message;
    for field in above {
        if !inside.has_field(field) {
            return None;
        }
        inside = inside.get_field_mut(field).as_message_mut()?;
    }
    let text = text(last, &inside.get_field(last));
    inside.clear_field(last);
    text
}

fn write_query(
    message: &DynamicMessage,
    way: &mut Vec<FieldDescriptor>,
    put: &mut impl FnMut(&str, &str),
) -> Result<(), JsonError> {
    for (field, value) in message.fields() {
        way.push(field.clone());
        let unfit = || JsonError::Field {
            path: name_of(way),
            expected: "what can stand in the query of the back-end's address".into(),
        };
        match value {
            Value::List(list) => {
                for value in list {
                    put(&name_of(way), &text(&field, value).ok_or_else(unfit)?);
                }
            }
            Value::Message(inner) if !is_text(&inner.descriptor()) => write_query(inner, way, put)?,
            value => put(&name_of(way), &text(&field, value).ok_or_else(unfit)?),
        }
        way.pop();
    }
    Ok(())
}

/// A value's text.
fn text(field: &FieldDescriptor, value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Bytes(value) => URL_SAFE.encode(value),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => {
                kind.get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_owned())
            }
            _ => number.to_string(),
        },
        Value::Message(message) if is_text(&message.descriptor()) => match serde_json::to_value(message).ok()? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        },
        Value::Message(_) | Value::List(_) | Value::Map(_) => return None,
    })
}
