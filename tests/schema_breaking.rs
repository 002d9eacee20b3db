//! Breaking changes of types: every rule by example (buf is held to the same file by `tests/foreign/breaking.py`), and as
//! properties of generated types.

use std::collections::{BTreeMap, BTreeSet};

use kopuro::proto::DESCRIPTORS;
use kopuro::schema::breaking::{Break, added, breaking};
use kopuro::schema::set;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, File, FileResolver, GoogleFileResolver};

const PAIRS: &str = include_str!("vectors/breaking.txt");

/// One pair of the file.
#[derive(Debug)]
struct Pair<'a> {
    name: &'a str,
    rules: BTreeSet<&'a str>,
    before: BTreeMap<&'a str, String>,
    after: BTreeMap<&'a str, String>,
}

fn pairs() -> impl Iterator<Item = Pair<'static>> {
    PAIRS.split("\n=== ").skip(1).map(|section| {
        let mut parts = section.split("\n--- ");
        let mut head = parts.next().unwrap().lines();
        let name = head.next().unwrap();
        let rules = head.filter_map(|line| line.strip_prefix('=')).flat_map(str::split_whitespace).collect();
        let mut pair = Pair { name, rules, before: BTreeMap::new(), after: BTreeMap::new() };
        for part in parts {
            let (title, body) = part.split_once('\n').unwrap();
            let (side, path) = title.split_once(' ').unwrap_or((title, "t/v1/a.proto"));
            let head = if body.contains("syntax = ") { "" } else { "syntax = \"proto3\";\npackage t.v1;\n" };
            let files = if side == "before" { &mut pair.before } else { &mut pair.after };
            files.insert(path, format!("{head}{body}"));
        }
        pair
    })
}

struct Sources(BTreeMap<&'static str, String>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(source) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn compile(files: BTreeMap<&'static str, String>) -> DescriptorPool {
    let names: Vec<_> = files.keys().copied().collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(files));
    resolver.add(GoogleFileResolver::new());
    resolver.add(DescriptorSetFileResolver::decode(DESCRIPTORS).unwrap());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true).open_files(names).unwrap();
    DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..]).unwrap()
}

/// One file, in the vectors' package.
fn one(source: &str) -> DescriptorPool {
    compile([("t/v1/a.proto", format!("syntax = \"proto3\";\npackage t.v1;\n{source}"))].into())
}

#[test]
fn every_rule_by_example() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for pair in pairs() {
        let found = breaking(&compile(pair.before), &compile(pair.after));
        let rules: BTreeSet<&str> = found.list.iter().map(|found| found.rule).collect();
        if rules != pair.rules {
            wrong.push(format!("{}\n  found    {rules:?}\n  expected {:?}", pair.name, pair.rules));
        }
        seen.extend(rules);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Every rule of the two categories, and of ours.
    let missing: Vec<_> = ALL_RULES.iter().filter(|rule| !seen.contains(*rule)).collect();
    assert!(missing.is_empty(), "no pair breaks {missing:?}");
}

/// `buf config ls-breaking-rules`, WIRE_JSON and PACKAGE; then ours.
const ALL_RULES: [&str; 64] = [
    "ENUM_SAME_JSON_FORMAT",
    "ENUM_SAME_TYPE",
    "ENUM_VALUE_NO_DELETE",
    "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED",
    "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
    "ENUM_VALUE_SAME_NAME",
    "EXTENSION_MESSAGE_NO_DELETE",
    "FIELD_NO_DELETE",
    "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
    "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
    "FIELD_SAME_CARDINALITY",
    "FIELD_SAME_CPP_STRING_TYPE",
    "FIELD_SAME_DEFAULT",
    "FIELD_SAME_JAVA_UTF8_VALIDATION",
    "FIELD_SAME_JSON_NAME",
    "FIELD_SAME_JSTYPE",
    "FIELD_SAME_NAME",
    "FIELD_SAME_ONEOF",
    "FIELD_SAME_TYPE",
    "FIELD_SAME_UTF8_VALIDATION",
    "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY",
    "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
    "FILE_SAME_CC_ENABLE_ARENAS",
    "FILE_SAME_CC_GENERIC_SERVICES",
    "FILE_SAME_CSHARP_NAMESPACE",
    "FILE_SAME_GO_PACKAGE",
    "FILE_SAME_JAVA_GENERIC_SERVICES",
    "FILE_SAME_JAVA_MULTIPLE_FILES",
    "FILE_SAME_JAVA_OUTER_CLASSNAME",
    "FILE_SAME_JAVA_PACKAGE",
    "FILE_SAME_OBJC_CLASS_PREFIX",
    "FILE_SAME_OPTIMIZE_FOR",
    "FILE_SAME_PACKAGE",
    "FILE_SAME_PHP_CLASS_PREFIX",
    "FILE_SAME_PHP_METADATA_NAMESPACE",
    "FILE_SAME_PHP_NAMESPACE",
    "FILE_SAME_PY_GENERIC_SERVICES",
    "FILE_SAME_RUBY_PACKAGE",
    "FILE_SAME_SWIFT_PREFIX",
    "FILE_SAME_SYNTAX",
    "MESSAGE_NO_REMOVE_STANDARD_DESCRIPTOR_ACCESSOR",
    "MESSAGE_SAME_JSON_FORMAT",
    "MESSAGE_SAME_REQUIRED_FIELDS",
    "ONEOF_NO_DELETE",
    "PACKAGE_ENUM_NO_DELETE",
    "PACKAGE_EXTENSION_NO_DELETE",
    "PACKAGE_MESSAGE_NO_DELETE",
    "PACKAGE_NO_DELETE",
    "PACKAGE_SERVICE_NO_DELETE",
    "RESERVED_ENUM_NO_DELETE",
    "RESERVED_MESSAGE_NO_DELETE",
    "RPC_NO_DELETE",
    "RPC_SAME_CLIENT_STREAMING",
    "RPC_SAME_IDEMPOTENCY_LEVEL",
    "RPC_SAME_REQUEST_TYPE",
    "RPC_SAME_RESPONSE_TYPE",
    "RPC_SAME_SERVER_STREAMING",
    "KOPURO_FIELD_SAME_CATEGORY",
    "KOPURO_FIELD_SAME_COMMIT",
    "KOPURO_FIELD_SAME_SUBJECT",
    "KOPURO_METHOD_PUBLICATION_NOT_OPENER",
    "KOPURO_METHOD_PURPOSE_NO_DELETE",
    "KOPURO_REQUEST_RULE_NOT_STRICTER",
    "KOPURO_SERVICE_SAME_BODY",
];

#[test]
fn a_break_says_where_and_what() {
    let old = one("message M {\n  string a = 1;\n  string b = 2;\n}");
    let new = one("// A comment.\nmessage M {\n\n  int32 a = 1;\n}");
    let found = breaking(&old, &new).list;
    let told: Vec<String> = found.iter().map(|b: &Break| format!("{} {}: {}", b.rule, b.place, b.what)).collect();
    assert_eq!(
        told,
        [
            "FIELD_SAME_TYPE t/v1/a.proto:6: t.v1.M.a: its type changed from string to int32",
            "FIELD_WIRE_JSON_COMPATIBLE_TYPE t/v1/a.proto:6: t.v1.M.a: its type changed from string to int32",
            "FIELD_NO_DELETE t/v1/a.proto:4: t.v1.M: field 2 b was deleted",
            "FIELD_NO_DELETE_UNLESS_NAME_RESERVED t/v1/a.proto:4: t.v1.M: field 2 b was deleted without reserving its name",
            "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED t/v1/a.proto:4: t.v1.M: field 2 b was deleted without reserving its number",
        ]
    );
}

#[test]
fn what_was_added_is_told() {
    let old = one("message M { string a = 1; } service S { rpc Get(M) returns (M); }");
    let new = one("import \"kopuro/options/v1/options.proto\";
        message M { string a = 1 [(kopuro.options.v1.subject) = true]; N n = 2; }
        message N { E e = 1; message Inner {} }
        enum E { E_UNSPECIFIED = 0; }
        service S { rpc Get(M) returns (M) { option (kopuro.options.v1.purposes) = \"law-1\"; } rpc Put(N) returns (N); }");
    assert!(breaking(&old, &new).is_empty());
    let told: Vec<String> =
        added(&old, &new).list.into_iter().map(|a| format!("{} {}", a.place.name, a.what)).collect();
    assert_eq!(
        told,
        [
            "t.v1.S.Get the first purposes: only by law-1",
            "t.v1.S.Put method Put",
            "t.v1.M.a annotation subject",
            "t.v1.M.n field n = 2",
            "t.v1.N message N",
            "t.v1.E enum E",
        ]
    );
    assert!(added(&new, &new).is_empty());
}

/// Types of every kind in one file: messages that hold each other, an enum, and a service over them.
pub(crate) fn types() -> impl Strategy<Value = FileDescriptorProto> {
    let field = (1..2_000i32, 0..8usize, any::<bool>());
    let messages = prop::collection::vec(prop::collection::vec(field, 1..6), 1..5);
    let values = prop::collection::btree_set(1..200i32, 0..6);
    (messages, values).prop_map(|(messages, values)| {
        let count = messages.len();
        let message = |(index, fields): (usize, Vec<(i32, usize, bool)>)| {
            let mut used = BTreeSet::new();
            let fields = fields.into_iter().filter(|(number, ..)| used.insert(*number));
            DescriptorProto {
                name: Some(format!("M{index}")),
                field: fields.map(|(number, kind, repeated)| field_of(number, kind, repeated, count)).collect(),
                ..Default::default()
            }
        };
        let name = |number| format!("E_{number}");
        let value = |number| EnumValueDescriptorProto { name: Some(name(number)), number: Some(number), options: None };
        let method = |index: usize| MethodDescriptorProto {
            name: Some(format!("Get{index}")),
            input_type: Some(format!(".t.v1.M{index}")),
            output_type: Some(format!(".t.v1.M{}", count - 1 - index)),
            server_streaming: Some(index % 2 == 1),
            ..Default::default()
        };
        FileDescriptorProto {
            name: Some("t/v1/a.proto".into()),
            package: Some("t.v1".into()),
            syntax: Some("proto3".into()),
            message_type: messages.into_iter().enumerate().map(message).collect(),
            enum_type: vec![EnumDescriptorProto {
                name: Some("E".into()),
                value: std::iter::once(0).chain(values).map(value).collect(),
                ..Default::default()
            }],
            service: vec![ServiceDescriptorProto {
                name: Some("S".into()),
                method: (0..count).map(method).collect(),
                options: None,
            }],
            ..Default::default()
        }
    })
}

fn field_of(number: i32, kind: usize, repeated: bool, messages: usize) -> FieldDescriptorProto {
    let scalars = [Type::String, Type::Bytes, Type::Int64, Type::Bool, Type::Double, Type::Fixed32];
    let (kind, name) = match kind {
        6 => (Type::Message, Some(format!(".t.v1.M{}", number as usize % messages))),
        7 => (Type::Enum, Some(".t.v1.E".into())),
        scalar => (scalars[scalar], None),
    };
    FieldDescriptorProto {
        name: Some(format!("f{number}")),
        json_name: Some(format!("f{number}")),
        number: Some(number),
        label: Some(if repeated { Label::Repeated } else { Label::Optional } as i32),
        r#type: Some(kind as i32),
        type_name: name,
        ..Default::default()
    }
}

pub(crate) fn pool(file: &FileDescriptorProto) -> DescriptorPool {
    DescriptorPool::decode(&FileDescriptorSet { file: vec![file.clone()] }.encode_to_vec()[..]).unwrap()
}

/// Changes one element: the message `at` of the file, or its field.
type Change = fn(&mut FileDescriptorProto, usize);

const ADDING: [Change; 5] = [
    |file, at| {
        let messages = file.message_type.len();
        file.message_type[at % messages].field.push(field_of(5_000 + at as i32, at % 8, at % 2 == 0, messages));
    },
    |file, at| file.message_type.push(DescriptorProto { name: Some(format!("New{at}")), ..Default::default() }),
    |file, at| {
        let value =
            EnumValueDescriptorProto { name: Some("E_NEW".into()), number: Some(500 + at as i32), options: None };
        file.enum_type[0].value.push(value);
    },
    |file, _| {
        let method = MethodDescriptorProto { name: Some("New".into()), ..file.service[0].method[0].clone() };
        file.service[0].method.push(method);
    },
    |file, _| file.message_type.reverse(),
];

/// Types, and a next version of them that only adds.
pub(crate) fn neighbours() -> impl Strategy<Value = (FileDescriptorProto, FileDescriptorProto)> {
    (types(), prop::collection::btree_map(0..ADDING.len(), 0..4usize, 0..6)).prop_map(|(old, changes)| {
        let mut new = old.clone();
        changes.into_iter().for_each(|(change, at)| ADDING[change](&mut new, at));
        (old, new)
    })
}

const BREAKING: [Change; 9] = [
    |file, at| drop(fields(file, at).remove(0)),
    |file, at| fields(file, at)[0].number = Some(9_000),
    |file, at| {
        let field = &mut fields(file, at)[0];
        let other = if field.r#type() == Type::Sint32 { Type::Sint64 } else { Type::Sint32 };
        (field.r#type, field.type_name) = (Some(other as i32), None);
    },
    |file, at| {
        let field = &mut fields(file, at)[0];
        let other = if field.label() == Label::Repeated { Label::Optional } else { Label::Repeated };
        field.label = Some(other as i32);
    },
    |file, at| fields(file, at)[0].name = Some("renamed".into()),
    |file, at| {
        let at = at % file.service[0].method.len();
        file.service[0].method.remove(at);
    },
    |file, at| {
        let at = at % file.service[0].method.len();
        let method = &mut file.service[0].method[at];
        method.server_streaming = Some(!method.server_streaming());
    },
    |file, _| file.enum_type[0].value[0].name = Some("E_RENAMED".into()),
    |file, _| drop(file.service.remove(0)),
];

fn fields(file: &mut FileDescriptorProto, at: usize) -> &mut Vec<FieldDescriptorProto> {
    let at = at % file.message_type.len();
    &mut file.message_type[at].field
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn adding_never_breaks((old, new) in neighbours()) {
        let found = breaking(&pool(&old), &pool(&new));
        prop_assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn damaged_sets_are_refused_or_compared(
        file in types(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let whole = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let mut damaged = whole.clone();
        for (at, byte) in damage {
            damaged[at.index(whole.len())] = byte;
        }
        let whole = set::read(&whole).unwrap();
        if let Ok(damaged) = set::read(&damaged) {
            breaking(&whole, &damaged);
            added(&damaged, &whole);
            prop_assert!(breaking(&damaged, &damaged).is_empty());
            prop_assert!(added(&damaged, &damaged).is_empty());
        }
    }

    #[test]
    fn deleting_renumbering_and_retyping_always_break(old in types(), change in 0..BREAKING.len(), at in 0..4usize) {
        let mut new = old.clone();
        BREAKING[change](&mut new, at);
        prop_assert!(!breaking(&pool(&old), &pool(&new)).is_empty());
        prop_assert!(breaking(&pool(&old), &pool(&old)).is_empty());
    }
}
