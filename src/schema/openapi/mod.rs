//! A service as an OpenAPI 3.1 document (<https://spec.openapis.org/oas/v3.1.1>): its methods by their own paths (the Connect protocol)
//! and by those of `google.api.http`, its messages as JSON Schema by protobuf's JSON mapping, the comments of the `.proto`, and Kopuro's
//! annotations as `x-kopuro-…`. Pure.

mod comments;
mod types;

use prost_reflect::{MessageDescriptor, MethodDescriptor, ServiceDescriptor};
use serde_json::{Map, Value, json};

use crate::schema::annotations::{MethodAnnotations, body_of};
use crate::schema::http::{BodyOf, Rule};

use comments::of_method;
use types::{Types, field_schema};

/// What a caller may tell the gateway, with every call.
const HEADERS: [(&str, &str); 5] = [
    ("kopuro-provider", "Which system shall answer; needed only where several offer the service."),
    ("kopuro-purpose", "Code of the legal basis; needed only where the call is granted on several."),
    ("kopuro-user", "The official acting."),
    ("kopuro-subject", "Whom the data is about."),
    ("kopuro-case", "Case or application number."),
];

/// Describes the methods of a service for which `shown` holds.
pub fn describe(service: &ServiceDescriptor, providers: &[&str], shown: &dyn Fn(&str) -> bool) -> Value {
    let mut types = Types::default();
    let mut paths = Map::new();
    for method in service.methods().filter(|method| shown(method.name())) {
        let own = format!("/{}/{}", service.full_name(), method.name());
        put(&mut paths, &own, "post", connect(&method, &mut types));
        // A rule that cannot be kept to is none here, as it is none for calls.
        let rules = Rule::of(&method).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate().filter(|_| !method.is_client_streaming()) {
            put(
                &mut paths,
                &rule.template.to_string(),
                &rule.verb.as_str().to_ascii_lowercase(),
                rest(&method, rule, index, &mut types),
            );
        }
    }
    let version = service.package_name().rsplit('.').next().filter(|part| !part.is_empty()).unwrap_or("1").to_owned();
    let mut info = json!({ "title": service.full_name(), "version": version, "x-kopuro-providers": providers });
    set(&mut info, "description", comments::of_service(service));
    set(&mut info, "x-kopuro-body", body_of(service));
    let parameters: Map<String, Value> = HEADERS
        .iter()
        .map(|(name, what)| {
            let schema = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
            ((*name).to_owned(), json!({ "name": name, "in": "header", "description": what, "schema": schema }))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": info,
        "servers": [{ "url": "/" }],
        "security": [{ "mutualTLS": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "mutualTLS": {
                "type": "mutualTLS",
                "description": "The system's own certificate, at its own member's node.",
            } },
            "parameters": parameters,
            "responses": { "Error": {
                "description": "A refusal of a node, or an error of the provider. Which node refused and why is in the detail google.rpc.ErrorInfo.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/connect.Error" } } },
            } },
            "schemas": types.into_schemas(),
        },
    })
}

fn put(paths: &mut Map<String, Value>, path: &str, verb: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    // OpenAPI 3.1 has these and no others.
    if matches!(verb, "get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace") {
        item[verb] = operation;
    }
}

/// The method by its own path.
fn connect(method: &MethodDescriptor, types: &mut Types) -> Value {
    let streams = method.is_client_streaming() || method.is_server_streaming();
    let content_type = if streams { "application/connect+json" } else { "application/json" };
    let mut operation = operation(method, method.name());
    operation["requestBody"] =
        json!({ "required": true, "content": { content_type: { "schema": types.reference(&method.input()) } } });
    operation["parameters"] = headers();
    let mut description = "The answer.".to_owned();
    if streams {
        description.push_str(" Messages are enveloped as the Connect protocol says.");
    }
    respond(&mut operation, &description, content_type, &types.reference(&method.output()));
    operation
}

/// The method by a path of its annotation.
fn rest(method: &MethodDescriptor, rule: &Rule, index: usize, types: &mut Types) -> Value {
    let mut operation = operation(method, &format!("{}_{}", method.name(), index + 1));
    let mut parameters: Vec<Value> = Vec::new();
    for (name, way) in rule.template.fields().zip(rule.path_fields()) {
        if let Some(field) = way.last() {
            parameters
                .push(json!({ "name": name, "in": "path", "required": true, "schema": field_schema(field, types) }));
        }
    }
    for way in rule.query_fields() {
        let name: Vec<&str> = way.iter().map(|field| field.json_name()).collect();
        if let Some(field) = way.last() {
            parameters.push(json!({ "name": name.join("."), "in": "query", "schema": field_schema(field, types) }));
        }
    }
    if let Value::Array(more) = headers() {
        parameters.extend(more);
    }
    operation["parameters"] = parameters.into();
    let body = match &rule.body {
        BodyOf::Nothing => None,
        BodyOf::Rest => Some(types.reference(&method.input())),
        BodyOf::Field(field) => Some(field_schema(field, types)),
    };
    if let Some(schema) = body {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
    }
    let answer = match &rule.response_body {
        None => types.reference(&method.output()),
        Some(field) => field_schema(field, types),
    };
    if method.is_server_streaming() {
        let line = json!({ "oneOf": [
            { "type": "object", "properties": { "result": answer }, "required": ["result"], "additionalProperties": false },
            { "type": "object", "properties": { "end": { "type": "object" } }, "required": ["end"], "additionalProperties": false },
        ] });
        respond(
            &mut operation,
            "A line for each message, and last one that says how the stream ended.",
            "application/x-ndjson",
            &line,
        );
    } else {
        respond(&mut operation, "The answer.", "application/json", &answer);
    }
    operation
}

fn operation(method: &MethodDescriptor, id: &str) -> Value {
    let mut operation = json!({ "operationId": id, "tags": [method.parent_service().name()] });
    set(&mut operation, "description", of_method(method));
    let said = MethodAnnotations::of(method);
    if !said.purposes.is_empty() {
        operation["x-kopuro-purposes"] = said.purposes.into();
    }
    set(&mut operation, "x-kopuro-publication", said.publication);
    operation
}

fn headers() -> Value {
    HEADERS.iter().map(|(name, _)| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
}

fn respond(operation: &mut Value, description: &str, content_type: &str, schema: &Value) {
    let ok = json!({
        "description": description,
        "headers": { "kopuro-exchange": {
            "description": "The exchange's id in both ministries' logs.",
            "schema": { "type": "string", "format": "uuid" },
        } },
        "content": { content_type: { "schema": schema } },
    });
    operation["responses"] = json!({ "200": ok, "default": { "$ref": "#/components/responses/Error" } });
}

fn set(object: &mut Value, name: &str, value: Option<String>) {
    if let Some(value) = value {
        object[name] = value.into();
    }
}

/// A message's name among the schemas.
fn schema_name(message: &MessageDescriptor) -> String {
    message.full_name().to_owned()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn a_service_is_described() {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let service = pool.get_service_by_name("kg.civil.v1.CivilRegistry").unwrap();
        let told = describe(&service, &["KG/GOV/70000005/civil-registry"], &|method| method != "GetFamily");
        assert_eq!(told["info"]["version"], "v1");
        assert!(told["info"]["description"].as_str().unwrap().starts_with("Kept by the body"));
        let paths = told["paths"].as_object().unwrap();
        assert!(!paths.keys().any(|path| path.contains("amily")), "{paths:?}");
        assert_eq!(told["paths"]["/v1/persons/{pin}"]["get"]["parameters"][0]["name"], "pin");
        assert_eq!(told["paths"]["/v1/persons/{pin}/residence"]["get"]["parameters"][1]["in"], "query");
        let schemas = &told["components"]["schemas"];
        assert_eq!(schemas["kg.civil.v1.Change"]["properties"]["recordedAt"]["format"], "date-time");
        assert_eq!(schemas["kg.civil.v1.Change"]["properties"]["sequence"]["type"], "string");
        assert_eq!(schemas["kg.civil.v1.Sex"]["enum"][1], "SEX_FEMALE");
        assert!(
            schemas["kg.civil.v1.Person"]["properties"]["pin"]["description"].as_str().unwrap().contains("14 digits")
        );
        // Every reference leads somewhere.
        let text = told.to_string();
        for reference in text.split("\"#/components/").skip(1) {
            let pointer = format!("/components/{}", reference.split('"').next().unwrap());
            assert!(told.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
