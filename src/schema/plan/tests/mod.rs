//! Types are written as .proto; messages are made with `DynamicMessage` or byte by byte.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::*;

mod checks;
mod generate;
mod masks;
mod oracle;

/// Compiles files of .proto, by name.
pub(super) fn pool(files: &[(&str, &str)]) -> DescriptorPool {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.path(), &own]).unwrap();
    compiler.include_imports(true).open_files(files.iter().map(|(name, _)| name)).unwrap();
    // With the options' extensions, which `protox::compile` loses.
    DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..]).unwrap()
}

/// The message `t.M` of one file.
pub(super) fn message(syntax: &str, body: &str) -> MessageDescriptor {
    let text = format!(
        "syntax = \"{syntax}\"; package t; import \"kopuro/options/v1/options.proto\"; import \"google/protobuf/any.proto\"; \
         import \"google/protobuf/struct.proto\"; import \"google/protobuf/wrappers.proto\"; {body}"
    );
    pool(&[("t.proto", &text)]).get_message_by_name("t.M").unwrap()
}

pub(super) fn everything() -> PlanOptions {
    PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Pass, rules: false }
}

pub(super) fn paths(paths: &[&str]) -> PlanOptions {
    let allow = Allow::Paths(paths.iter().map(|path| (*path).to_owned()).collect());
    PlanOptions { allow, unknown: UnknownFields::Strip, rules: false }
}

pub(super) fn categories(categories: &[&str]) -> PlanOptions {
    let allow = Allow::Categories(categories.iter().map(|category| (*category).to_owned()).collect());
    PlanOptions { allow, unknown: UnknownFields::Strip, rules: false }
}

pub(super) fn compile(message: &MessageDescriptor, options: &PlanOptions) -> Plan {
    Plan::compile(message, options).unwrap()
}

/// What a plan makes of bytes.
pub(super) fn apply(plan: &Plan, bytes: &[u8]) -> Result<(Bytes, Found), Violation> {
    let mut found = Found::default();
    let bytes = Bytes::copy_from_slice(bytes);
    let out = plan.apply(&bytes, &mut found)?;
    // None where nothing is dropped, and only there.
    assert!(out.as_ref().is_none_or(|out| out.len() < bytes.len() && found.withheld > 0));
    Ok((out.unwrap_or(bytes), found))
}

/// Where it is malformed.
pub(super) fn malformed(plan: &Plan, bytes: &[u8]) -> (String, &'static str) {
    match apply(plan, bytes) {
        Err(Violation::Malformed { path, what }) => (path, what),
        other => panic!("{other:?}"),
    }
}

pub(super) fn withheld(found: &Found) -> Vec<&str> {
    found.withheld_paths.iter().map(|path| &**path).collect()
}

pub(super) fn subjects(found: &Found) -> Vec<&str> {
    found.subjects.iter().map(|subject| std::str::from_utf8(subject).unwrap()).collect()
}

/// A message from the protobuf JSON mapping.
pub(super) fn json(message: &MessageDescriptor, text: &str) -> Vec<u8> {
    DynamicMessage::deserialize(message.clone(), &mut serde_json::Deserializer::from_str(text)).unwrap().encode_to_vec()
}

/// And back.
pub(super) fn to_json(message: &MessageDescriptor, bytes: &[u8]) -> serde_json::Value {
    serde_json::to_value(DynamicMessage::decode(message.clone(), bytes).unwrap()).unwrap()
}

/// A field with a length.
pub(super) fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// A field that is a varint.
pub(super) fn varint(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}
