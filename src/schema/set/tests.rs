//! Sets made by hand to be refused.

use super::*;

fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.into()),
        package: Some("t.v1".into()),
        syntax: Some("proto3".into()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        ..Default::default()
    }
}

fn message(name: &str) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), ..Default::default() }
}

fn faults_of(file: Vec<FileDescriptorProto>) -> Vec<&'static str> {
    let faults = read(&FileDescriptorSet { file }.encode_to_vec()).err().unwrap_or_default();
    faults.iter().map(SetFault::rule).collect()
}

#[test]
fn hostile_sets_are_told_apart() {
    assert_eq!(faults_of(vec![file("a", &["b"]), file("b", &[])]), [""; 0]);
    assert_eq!(faults_of(vec![]), ["SET_UNREADABLE"]);
    assert_eq!(read(b"\xff\xff").unwrap_err()[0].rule(), "SET_UNREADABLE");
    assert_eq!(read(&vec![0; MAX_BYTES + 1]).unwrap_err(), [SetFault::TooLarge(MAX_BYTES + 1)]);
    assert_eq!(faults_of(vec![file("a", &[]); MAX_FILES + 1]), ["SET_TOO_LARGE"]);
    assert_eq!(faults_of(vec![file("a", &[]), file("a", &[])]), ["SET_FILE_TWICE"]);
    assert_eq!(faults_of(vec![file("a", &["b", "c"])]), ["SET_IMPORT_MISSING"; 2]);
    assert_eq!(faults_of(vec![file("a", &["a"])]), ["SET_IMPORT_CIRCLE"]);
    assert_eq!(faults_of(vec![file("a", &["b"]), file("b", &["c"]), file("c", &["a"])]), ["SET_IMPORT_CIRCLE"]);
    assert_eq!(
        faults_of(vec![FileDescriptorProto { syntax: Some("editions".into()), ..file("a", &[]) }]),
        ["SET_EDITION"]
    );
    assert_eq!(
        faults_of(vec![FileDescriptorProto { syntax: Some("proto4".into()), ..file("a", &[]) }]),
        ["SET_SYNTAX"]
    );
    for name in ["", "a b", "a\u{1b}[2J", "ы", "1a"] {
        let file = FileDescriptorProto { message_type: vec![message(name)], ..file("a", &[]) };
        assert_eq!(faults_of(vec![file]), ["SET_NAME"], "{name:?}");
    }
    assert_eq!(faults_of(vec![file("a\n", &[])]), ["SET_NAME"]);
    let twice = FileDescriptorProto { message_type: vec![message("M"), message("M")], ..file("a", &[]) };
    assert_eq!(faults_of(vec![twice]), ["SET_CONTRADICTORY"]);
    let many = FileDescriptorProto { message_type: vec![message("M"); MAX_ELEMENTS], ..file("a", &[]) };
    assert_eq!(faults_of(vec![many]), ["SET_TOO_LARGE"]);
}

#[test]
fn one_number_is_extended_once() {
    use prost_types::descriptor_proto::ExtensionRange;
    let extension = |name: &str| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(5),
        extendee: Some(".t.v1.M".into()),
        label: Some(1),
        r#type: Some(9),
        ..Default::default()
    };
    let range = ExtensionRange { start: Some(1), end: Some(10), options: None };
    let extended = FileDescriptorProto {
        syntax: None,
        message_type: vec![DescriptorProto { extension_range: vec![range], ..message("M") }],
        ..file("a", &[])
    };
    let once = FileDescriptorProto { extension: vec![extension("x")], ..extended.clone() };
    assert_eq!(faults_of(vec![once]), [""; 0]);
    let twice = FileDescriptorProto { extension: vec![extension("x"), extension("y")], ..extended };
    assert_eq!(faults_of(vec![twice]), ["SET_CONTRADICTORY"]);
}

#[test]
fn what_no_compiler_writes_is_refused() {
    use prost_types::{FieldOptions, MessageOptions};
    let field = |number, kind: Type| FieldDescriptorProto {
        name: Some(format!("f{number}")),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        ..Default::default()
    };
    let entry = |field: Vec<FieldDescriptorProto>| {
        let options = MessageOptions { map_entry: Some(true), ..Default::default() };
        let inner = DescriptorProto { field, options: Some(options), ..message("FEntry") };
        let map = FieldDescriptorProto {
            label: Some(Label::Repeated as i32),
            type_name: Some(".t.v1.M.FEntry".into()),
            ..field_of("f")
        };
        let outer = DescriptorProto { field: vec![map], nested_type: vec![inner], ..message("M") };
        faults_of(vec![FileDescriptorProto { message_type: vec![outer], ..file("a", &[]) }])
    };
    fn field_of(name: &str) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(1),
            r#type: Some(Type::Message as i32),
            ..Default::default()
        }
    }
    assert_eq!(entry(vec![field(1, Type::String), field(2, Type::Bytes)]), [""; 0]);
    for fields in [vec![], vec![field(1, Type::String)], vec![field(1, Type::Double), field(2, Type::Bytes)]] {
        assert_eq!(entry(fields), ["SET_CONTRADICTORY"]);
    }
    let options = FieldOptions { uninterpreted_option: vec![UninterpretedOption::default()], ..Default::default() };
    let unread = FieldDescriptorProto { options: Some(options), ..field(1, Type::String) };
    let message = DescriptorProto { field: vec![unread], ..message("M") };
    assert_eq!(
        faults_of(vec![FileDescriptorProto { message_type: vec![message], ..file("a", &[]) }]),
        ["SET_CONTRADICTORY"]
    );
}

#[test]
fn a_long_chain_of_imports_is_no_circle_and_no_deep_stack() {
    let name = |at: usize| format!("f{at}");
    let chain = (0..MAX_FILES).map(|at| match at {
        0 => file(&name(0), &[]),
        at => file(&name(at), &[&name(at - 1)]),
    });
    assert_eq!(faults_of(chain.rev().collect()), [""; 0]);
}
