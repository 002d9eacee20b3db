//! `google.api.http`: which HTTP requests stand for a method (`google/api/http.proto` says how), in both directions. Pure.
//!
//! In: a method's descriptor. Out: its [`Rule`]s, which make a message of a request ([`Rule::read_request`]) and a request of a message
//! ([`Rule::write_request`]), and the same for answers. [`Routes`] finds the rule for a request among all services.
//!
//! Kept to: patterns get, put, post, delete, patch and custom; templates with `*`, `**` at the end, variables and a verb; `body` `"*"` or
//! a field; `response_body`; `additional_bindings`. Not known: `google.api.HttpBody`.

mod read;
mod routes;
mod template;
mod write;

use std::borrow::Cow;

use http::Method as Verb;
use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage, Value,
};

pub use routes::{Found, Route, Routes};
pub use template::{Captures, Template, TemplateError};
pub use write::Written;

/// Why a method's annotation cannot be kept to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is no pattern, or one that is no HTTP method.
    #[error("a rule has no pattern that is an HTTP method and a path")]
    Pattern,
    /// The path is not one.
    #[error("path {path:?}: {why}")]
    Template {
        /// As it is written.
        path: String,
        /// The rule that it breaks.
        why: TemplateError,
    },
    /// A field that the message does not have, or that cannot be there.
    #[error("{place}: {field:?} is not {expected}")]
    Field {
        /// `path`, `body` or `response_body`.
        place: &'static str,
        /// The name.
        field: String,
        /// What it would have to be.
        expected: String,
    },
    /// A rule within an additional one.
    #[error("additional_bindings are nested")]
    Nested,
}

/// One HTTP request that stands for a method.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The HTTP method.
    pub verb: Verb,
    /// The path.
    pub template: Template,
    /// The fields of the path's variables, in their order.
    variables: Vec<FieldPath>,
    /// What the request's body holds.
    pub body: BodyOf,
    /// The field that is the answer's body; none: all of it.
    pub response_body: Option<FieldDescriptor>,
    input: MessageDescriptor,
    output: MessageDescriptor,
}

/// What a body holds.
#[derive(Debug, Clone, PartialEq)]
pub enum BodyOf {
    /// There is none; what is not in the path is in the query.
    Nothing,
    /// Everything that is not in the path.
    Rest,
    /// One field; what is neither there nor in the path is in the query.
    Field(FieldDescriptor),
}

/// Names and values of a query, decoded.
pub type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The way to a field.
type FieldPath = Vec<FieldDescriptor>;

impl Rule {
    /// A method's rules, the first one first; none where it has no annotation.
    pub fn of(method: &MethodDescriptor) -> Result<Vec<Self>, RuleError> {
        let pool = method.parent_pool();
        let options = method.options();
        let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Ok(Vec::new()) };
        if extension.containing_message() != options.descriptor() || !options.has_extension(&extension) {
            return Ok(Vec::new());
        }
        let value = options.get_extension(&extension);
        let Some(rule) = value.as_message() else { return Ok(Vec::new()) };
        let mut rules = vec![Self::new(method, rule)?];
        let more = rule.get_field_by_name("additional_bindings");
        for additional in more.iter().filter_map(|more| more.as_list()).flatten().filter_map(Value::as_message) {
            let nested = additional.get_field_by_name("additional_bindings");
            if nested.is_some_and(|nested| nested.as_list().is_some_and(|list| !list.is_empty())) {
                return Err(RuleError::Nested);
            }
            rules.push(Self::new(method, additional)?);
        }
        Ok(rules)
    }

    fn new(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Self, RuleError> {
        let text = |message: &DynamicMessage, name: &str| {
            let value = message.get_field_by_name(name);
            value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let plain = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb));
        let (verb, path) = match plain {
            Some(verb) => (verb.to_ascii_uppercase(), text(rule, verb)),
            None => {
                let custom = rule.get_field_by_name("custom");
                let custom = custom.as_ref().and_then(|custom| custom.as_message()).ok_or(RuleError::Pattern)?;
                (text(custom, "kind"), text(custom, "path"))
            }
        };
        let verb = Verb::from_bytes(verb.as_bytes()).map_err(|_| RuleError::Pattern)?;
        let template = Template::parse(&path).map_err(|why| RuleError::Template { path: path.clone(), why })?;
        let (input, output) = (method.input(), method.output());
        let variables = template
            .fields()
            .map(|name| {
                field_path(&input, name).filter(|path| path.last().is_some_and(is_plain)).ok_or_else(|| {
                    let expected =
                        format!("a single field of {} that is a text, a number or an enum", input.full_name());
                    RuleError::Field { place: "path", field: name.to_owned(), expected }
                })
            })
            .collect::<Result<_, _>>()?;
        let field = |place, message: &MessageDescriptor, name: &str| {
            let expected = format!("a field of {}", message.full_name());
            let missing = RuleError::Field { place, field: name.to_owned(), expected };
            message.get_field_by_name(name).ok_or(missing)
        };
        let body = match text(rule, "body").as_str() {
            "" => BodyOf::Nothing,
            "*" => BodyOf::Rest,
            name => BodyOf::Field(field("body", &input, name)?),
        };
        let response_body = match text(rule, "response_body").as_str() {
            "" => None,
            name => Some(field("response_body", &output, name)?),
        };
        Ok(Self { verb, template, variables, body, response_body, input, output })
    }

    /// The fields of the path's variables.
    pub fn path_fields(&self) -> impl Iterator<Item = &[FieldDescriptor]> {
        self.variables.iter().map(Vec::as_slice)
    }

    /// Fields of the request that are in the query, each once, those inside of messages by their way.
    pub fn query_fields(&self) -> Vec<Vec<FieldDescriptor>> {
        let mut found = Vec::new();
        if self.body != BodyOf::Rest {
            self.collect_query(&self.input, &mut Vec::new(), &mut found);
        }
        found
    }

    fn collect_query(&self, message: &MessageDescriptor, way: &mut FieldPath, found: &mut Vec<FieldPath>) {
        for field in message.fields() {
            let of_body = way.is_empty() && matches!(&self.body, BodyOf::Field(body) if *body == field);
            way.push(field.clone());
            if !of_body && !self.variables.contains(way) {
                match field.kind() {
                    Kind::Message(inner) if !is_text(&inner) => {
                        let recursive = way[..way.len() - 1].contains(&field);
                        if !field.is_list() && !field.is_map() && !recursive && way.len() < DEEPEST {
                            self.collect_query(&inner, way, found);
                        }
                    }
                    _ => found.push(way.clone()),
                }
            }
            way.pop();
        }
    }
}

/// The longest way to a field in a query.
const DEEPEST: usize = 8;

/// The fields that a dotted name leads through, by their names or JSON names; only the last may be repeated.
fn field_path(message: &MessageDescriptor, name: &str) -> Option<FieldPath> {
    let mut inside = Some(message.clone());
    let mut path = Vec::new();
    for part in name.split('.') {
        let message = inside.take()?;
        let field = message.get_field_by_name(part).or_else(|| message.get_field_by_json_name(part))?;
        if let (Kind::Message(inner), false) = (field.kind(), field.cardinality() == Cardinality::Repeated) {
            inside = Some(inner);
        }
        path.push(field);
        if path.len() > DEEPEST {
            return None;
        }
    }
    Some(path)
}

/// One value that has a text.
fn is_plain(field: &FieldDescriptor) -> bool {
    field.cardinality() != Cardinality::Repeated
        && match field.kind() {
            Kind::Message(message) => is_text(&message),
            _ => true,
        }
}

/// Well-known types that are one string or number in JSON.
fn is_text(message: &MessageDescriptor) -> bool {
    let name = message.full_name().strip_prefix("google.protobuf.");
    name.is_some_and(|name| {
        matches!(name, "Timestamp" | "Duration" | "FieldMask")
            || name.ends_with("Value") && !matches!(name, "Value" | "ListValue")
    })
}

/// A way's name, of JSON names.
fn name_of(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests;
