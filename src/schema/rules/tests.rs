//! Against the table that protovalidate's own implementation agrees with (`tests/foreign/rules.py`), and what is refused.

use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

use crate::policy::UnknownFields;
use crate::schema::plan::{Allow, Found, Plan, PlanOptions, Violation};

const HEAD: &str = r#"syntax = "proto3";
package rules;
import "buf/validate/validate.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum E { E_ZERO = 0; E_ONE = 1; E_FOUR = 4; }
"#;

fn compile(messages: &str) -> DescriptorPool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.proto"), format!("{HEAD}{messages}")).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.path(), &own]).unwrap();
    compiler.include_imports(true).open_file("rules.proto").unwrap();
    DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..]).unwrap()
}

fn plan(message: &MessageDescriptor) -> Result<Plan, String> {
    let options = PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Refuse, rules: true };
    Plan::compile(message, &options).map_err(|error| error.to_string())
}

fn judge(plan: &Plan, value: &Value) -> Result<(), Violation> {
    let whole = if value.is_null() { json!({}) } else { json!({ "v": value }) };
    let message = DynamicMessage::deserialize(plan.message().clone(), whole).unwrap();
    plan.apply(&Bytes::from(message.encode_to_vec()), &mut Found::default()).map(drop)
}

#[test]
fn every_value_of_the_table_is_judged_as_protovalidate_judges_it() {
    let table: Vec<Value> = serde_json::from_str(include_str!("../../../tests/foreign/rules.json")).unwrap();
    let messages: String = table
        .iter()
        .enumerate()
        .map(|(index, case)| format!("message M{index} {{ {} }}\n", case["field"].as_str().unwrap()))
        .collect();
    let pool = compile(&messages);
    let (mut judged, mut wrong) = (0, Vec::new());
    for (index, case) in table.iter().enumerate() {
        let message = pool.get_message_by_name(&format!("rules.M{index}")).unwrap();
        let plan = plan(&message).unwrap_or_else(|error| panic!("{}: {error}", case["field"]));
        for (expected, values) in [(true, &case["valid"]), (false, &case["invalid"])] {
            for value in values.as_array().unwrap() {
                judged += 1;
                let found = judge(&plan, value);
                if let Err(violation) = &found {
                    assert!(matches!(violation, Violation::Rule { .. }), "{}: {value}: {violation}", case["field"]);
                }
                if found.is_ok() != expected {
                    wrong.push(format!("{}: {value}: {found:?}", case["field"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged > 250, "{judged}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (body, expected) in [
        (
            "string v = 1 [(buf.validate.field).cel = {id: \"a\", expression: \"true\"}];",
            "the rule cel is not supported",
        ),
        ("string v = 1 [(buf.validate.field).cel_expression = \"this != ''\"];", "the rule cel_expression is not"),
        ("string v = 1 [(buf.validate.field).string.uri = true];", "the rule string.uri is not supported"),
        (
            "string v = 1 [(buf.validate.field).string.well_known_regex = KNOWN_REGEX_HTTP_HEADER_NAME];",
            "string.well_known_regex",
        ),
        ("bytes v = 1 [(buf.validate.field).bytes.pattern = \"a\"];", "bytes.pattern is not"),
        ("repeated string v = 1 [(buf.validate.field).repeated.unique = true];", "repeated.unique is not"),
        (
            "repeated string v = 1 [(buf.validate.field).repeated.items.string.uri = true];",
            "repeated.items.string.uri is not",
        ),
        ("map<string, string> v = 1 [(buf.validate.field).map.min_pairs = 2];", "map.min_pairs above 1 is not"),
        (
            "map<string, string> v = 1 [(buf.validate.field).map.keys.string.address = true];",
            "map.keys.string.address is not",
        ),
        ("google.protobuf.Timestamp v = 1 [(buf.validate.field).timestamp.lt_now = true];", "timestamp.lt_now is not"),
        (
            "google.protobuf.Any v = 1 [(buf.validate.field).any = {in: [\"a\"]}];",
            "any of a google.protobuf.Any is not",
        ),
        (
            "google.protobuf.StringValue v = 1 [(buf.validate.field).string.min_len = 1];",
            "string of a google.protobuf.StringValue is not",
        ),
        ("M v = 1 [(buf.validate.field).ignore = IGNORE_ALWAYS];", "ignore = IGNORE_ALWAYS of a message field is not"),
        (
            "option (buf.validate.message).cel_expression = \"true\"; string v = 1;",
            "(buf.validate.message).cel_expression is not",
        ),
        (
            "option (buf.validate.message).oneof = {fields: [\"v\", \"w\"]}; string v = 1; string w = 2;",
            "(buf.validate.message).oneof is not",
        ),
        ("int32 v = 1 [(buf.validate.field).string.min_len = 1];", "string: does not fit a field that is int32"),
        (
            "repeated string v = 1 [(buf.validate.field).string.min_len = 1];",
            "string: does not fit a field that is a list",
        ),
        (
            "map<string, string> v = 1 [(buf.validate.field).repeated.min_items = 1];",
            "repeated: does not fit a field that is a map",
        ),
        ("string v = 1 [(buf.validate.field).string.pattern = \"[\"];", "string.pattern: is no regular expression"),
        (
            "string v = 1 [(buf.validate.field).string.pattern = \"(?:a{1000}){1000}\"];",
            "string.pattern: compiles to too large a program",
        ),
        (
            "string v = 1 [(buf.validate.field).string.pattern = \"\\\\bx\"];",
            "string.pattern: has \\b, which is not supported",
        ),
        ("string v = 1 [(buf.validate.field).string.pattern = \"[\\\\D]\"];", "string.pattern: has \\D in a class"),
        (
            "repeated string v = 1 [(buf.validate.field).repeated = {min_items: 3, max_items: 2}];",
            "no number is within both",
        ),
    ] {
        let pool = compile(&format!("message M {{ {body} }}"));
        let told = plan(&pool.get_message_by_name("rules.M").unwrap()).unwrap_err();
        assert!(told.starts_with("rules.M"), "{told}");
        assert!(told.contains(expected), "{told} should say {expected}");
    }
}

#[test]
fn a_violation_names_the_rule_and_no_value() {
    let field = "string v = 1 [(buf.validate.field).string.pattern = \"^[0-9]{14}$\"];";
    let pool = compile(&format!("message M {{ {field} }}"));
    let plan = plan(&pool.get_message_by_name("rules.M").unwrap()).unwrap();
    let told = judge(&plan, &json!("secret")).unwrap_err().to_string();
    assert_eq!(told, "v: must match the pattern `^[0-9]{14}$`");
}
