//! Which bytes are messages.

use std::collections::HashSet;

use super::*;

const ALL: &str = "
    enum E { ZERO = 0; ONE = 1; SEVEN = 7; }
    message M {
      int32 int = 1; bool yes = 2; string text = 3; bytes raw = 4; fixed32 four = 5; double eight = 6; E number = 7; M inner = 8;
      repeated sint64 many = 9; repeated string texts = 10; map<int32, M> map = 11; repeated fixed64 eights = 12;
      google.protobuf.Any any = 13; google.protobuf.Struct json = 14; repeated E numbers = 15; map<string, E> named = 16;
      string far = 536870911;
    }";

#[test]
fn wire_format() {
    let plan = compile(&message("proto3", ALL), &everything());
    let good: &[&[u8]] = &[
        b"",
        &varint(1, u64::MAX),
        &varint(2, 77),
        &field(3, "Көпүрө".as_bytes()),
        &field(9, &[1, 2, 0x80, 0x01]),
        &[varint(9, 1), field(9, &[]), varint(9, 3)].concat(),
        &field(10, b""),
        &field(11, &[varint(1, 5), field(2, &varint(1, 1))].concat()),
        &field(11, &[]),
        &field(12, &[0; 16]),
        &[0x2d, 1, 2, 3, 4],
        &field(536_870_911, b"far"),
        &varint(99, 1),
        // A tag and a length in more bytes than they need.
        &[0x88, 0x80, 0x80, 0x80, 0x00, 1],
        &[0x9a, 0x00, 0x81, 0x00, b'a'],
    ];
    for bytes in good {
        assert!(apply(&plan, bytes).is_ok(), "{bytes:?}");
    }
    let bad: &[(&[u8], &str)] = &[
        (&[0x08], "int"),
        (&[0x80], "t.M"),
        (&[0x00, 1], "t.M"),
        (&[0x06], "t.M"),
        (&[0x0f], "int"),
        (&[0x80, 0x80, 0x80, 0x80, 0x10, 1], "t.M"),
        (&[0x88, 0x80, 0x80, 0x80, 0x80, 0x00, 1], "t.M"),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "int"),
        (&[0x1a, 2, b'a'], "text"),
        (&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "text"),
        (&[0x1a, 1, 0xff], "text"),
        (&[0x2d, 1, 2, 3], "four"),
        (&[0x09, 1, 2, 3, 4, 5, 6, 7, 8], "int"),
        (&[0x0a, 1, 1], "int"),
        (&varint(3, 1), "text"),
        (&field(9, &[0x80]), "many"),
        (&field(12, &[0; 15]), "eights"),
        (&varint(10, 1), "texts"),
        (&field(8, &field(8, &[0x08])), "inner.inner.int"),
        (&field(11, &field(2, &varint(3, 0))), "map.value.text"),
        (&[0x0b, 0x0c], "int"),
        (&[0x9b, 0x06, 0x9c, 0x06], "t.M"),
        (&[0x0c], "int"),
    ];
    for (bytes, path) in bad {
        assert_eq!(malformed(&plan, bytes).0, *path, "{bytes:?}");
    }
}

#[test]
fn a_hundred_messages_deep_and_no_more() {
    let message = message("proto3", ALL);
    let plan = compile(&message, &everything());
    let mut bytes = varint(1, 1);
    for _ in 0..100 {
        bytes = field(8, &bytes);
    }
    assert!(apply(&plan, &bytes).is_ok());
    assert!(DynamicMessage::decode(message.clone(), &bytes[..]).is_ok());
    let bytes = field(8, &bytes);
    assert!(malformed(&plan, &bytes).1.contains("100 deep"));
    assert!(DynamicMessage::decode(message, &bytes[..]).is_err());
}

#[test]
fn unknown_fields_by_policy_at_every_level() {
    let message = message("proto3", ALL);
    let with = |unknown| compile(&message, &PlanOptions { unknown, ..everything() });
    let entry = [varint(1, 5), field(2, &[field(77, b"?"), varint(1, 1)].concat()), varint(3, 1)].concat();
    let bytes =
        [varint(99, 1), varint(1, 2), field(8, &[varint(98, 1), varint(97, 1)].concat()), field(11, &entry)].concat();
    assert_eq!(apply(&with(UnknownFields::Pass), &bytes).unwrap().0, bytes);
    let (out, found) = apply(&with(UnknownFields::Strip), &bytes).unwrap();
    let entry = [varint(1, 5), field(2, &varint(1, 1))].concat();
    assert_eq!(out, [varint(1, 2), field(8, b""), field(11, &entry)].concat());
    assert_eq!(found.withheld, 5);
    assert_eq!(withheld(&found), ["99", "t.M.77", "t.M.97", "t.M.98", "t.M.MapEntry.3"]);
    let refusing = with(UnknownFields::Refuse);
    let unknown = |bytes: &[u8]| apply(&refusing, bytes).unwrap_err();
    assert_eq!(unknown(&bytes), Violation::Unknown { path: "t.M".into(), number: 99 });
    assert_eq!(unknown(&field(8, &field(50, b""))), Violation::Unknown { path: "inner".into(), number: 50 });
    assert_eq!(unknown(&field(8, &field(50, b""))).to_string(), "inner: unknown field 50");
}

#[test]
fn enums_are_open_in_proto3_and_closed_in_proto2() {
    let text = "enum E { A = 1; B = 2; C = -5; } \
        message M { optional E e = 1; repeated E es = 2; repeated E packed = 3 [packed = true]; optional int32 i = 4; MAP }";
    let message2 = message("proto2", &text.replace("MAP", "map<int32, E> map = 5;"));
    let bytes = [varint(1, 9), varint(2, 1), varint(2, 9), field(3, &[1, 9, 2]), varint(4, 9)].concat();
    let entries = [
        field(5, &[varint(1, 1), varint(2, 2)].concat()),
        field(5, &[varint(1, 3), varint(2, 9), varint(8, 8)].concat()),
    ];
    let bytes = [bytes, entries.concat()].concat();
    let with = |unknown| compile(&message2, &PlanOptions { unknown, ..everything() });
    assert_eq!(apply(&with(UnknownFields::Pass), &bytes).unwrap().0, bytes);
    let (out, found) = apply(&with(UnknownFields::Strip), &bytes).unwrap();
    assert_eq!(out, [varint(2, 1), field(3, &[1, 2]), varint(4, 9), entries[0].clone()].concat());
    assert_eq!(withheld(&found), ["1", "2", "3", "5", "t.M.MapEntry.8"]);
    let refused = apply(&with(UnknownFields::Refuse), &bytes).unwrap_err();
    assert_eq!(refused, Violation::Unknown { path: "t.M".into(), number: 1 });
    // -5, as protobuf writes it.
    assert!(apply(&with(UnknownFields::Refuse), &varint(1, -5_i64 as u64)).is_ok());

    let message3 = message("proto3", ALL);
    let plan = compile(&message3, &PlanOptions { unknown: UnknownFields::Refuse, ..everything() });
    assert!(apply(&plan, &[varint(7, 1234), field(15, &[9, 9])].concat()).is_ok());
}

#[test]
fn proto2() {
    let message = message(
        "proto2",
        "message A { required int32 a = 1; } \
         message M { required string text = 1; optional A a = 2; optional group G = 3 { optional int32 i = 1; } extensions 100 to 199; } \
         extend M { optional A more = 100; repeated string words = 101 [(kopuro.options.v1.subject) = true]; }",
    );
    let plan = compile(&message, &PlanOptions { unknown: UnknownFields::Refuse, ..everything() });
    // proto2 does not promise UTF-8.
    let text = field(1, &[0xff]);
    assert!(apply(&plan, &text).is_ok());
    assert_eq!(malformed(&plan, b"").0, "text");
    assert_eq!(malformed(&plan, &[&text[..], &field(2, b"")].concat()).0, "a.a");
    assert_eq!(malformed(&plan, &[&text[..], &[0x1b, 0x08, 1, 0x1c]].concat()).0, "g");
    let (_, found) =
        apply(&plan, &[&text[..], &field(100, &varint(1, 1)), &field(101, b"12"), &field(101, b"7")].concat()).unwrap();
    assert_eq!(subjects(&found), ["12", "7"]);
    assert_eq!(malformed(&plan, &[&text[..], &field(100, &[])].concat()).0, "[t.more].a");
    assert_eq!(malformed(&plan, &[&text[..], &field(101, &[0xff])].concat()).0, "[t.words]");
    // In parts, the parts could not be judged.
    let part = field(2, &varint(1, 1));
    assert!(apply(&plan, &[&text[..], &part].concat()).is_ok());
    assert!(malformed(&plan, &[&text[..], &part, &part].concat()).1.contains("more than once"));

    let group = self::message("proto2", "message M { required group G = 3 { optional int32 i = 1; } }");
    assert!(matches!(Plan::compile(&group, &everything()), Err(PlanError::RequiredGroup { .. })));
}

#[test]
fn any_is_looked_into() {
    let pool = pool(&[(
        "t.proto",
        "syntax = \"proto3\"; package t; import \"google/protobuf/any.proto\"; import \"kopuro/options/v1/options.proto\"; \
         message Held { string pin = 1 [(kopuro.options.v1.subject) = true]; string secret = 2 [(kopuro.options.v1.category) = \"health\"]; \
           google.protobuf.Any more = 3; } \
         message M { google.protobuf.Any any = 1; repeated google.protobuf.Any more = 2; }",
    )]);
    let message = pool.get_message_by_name("t.M").unwrap();
    let any = |name: &str, value: &[u8]| [field(1, name.as_bytes()), field(2, value)].concat();
    let held = [field(1, b"5"), field(2, b"s")].concat();
    let deep = [held.clone(), field(3, &any("x/t.Held", &held))].concat();
    let bytes = [field(1, &any("type.googleapis.com/t.Held", &deep)), field(2, b"")].concat();
    let (out, found) = apply(&compile(&message, &everything()), &bytes).unwrap();
    assert_eq!((out, subjects(&found)), (bytes.clone().into(), vec!["5"]));
    let (out, found) = apply(&compile(&message, &categories(&[])), &bytes).unwrap();
    let kept = [field(1, b"5"), field(3, &any("x/t.Held", &field(1, b"5")))].concat();
    assert_eq!(out, [field(1, &any("type.googleapis.com/t.Held", &kept)), field(2, b"")].concat());
    assert_eq!(withheld(&found), ["t.Held.secret"]);
    // The value before its type.
    let turned = field(1, &[field(2, &held), field(1, b"x/t.Held")].concat());
    let (out, _) = apply(&compile(&message, &categories(&[])), &turned).unwrap();
    assert_eq!(out, field(1, &[field(2, &field(1, b"5")), field(1, b"x/t.Held")].concat()));

    let with = |unknown| compile(&message, &PlanOptions { unknown, ..everything() });
    let strange = [field(2, &any("x/t.Strange", b"\xff\xff")), field(2, &any("x/t.Held", b""))].concat();
    assert_eq!(apply(&with(UnknownFields::Pass), &strange).unwrap().0, strange);
    let (out, found) = apply(&with(UnknownFields::Strip), &strange).unwrap();
    assert_eq!(out, [field(2, b""), field(2, &any("x/t.Held", b""))].concat());
    assert_eq!((found.withheld, withheld(&found)), (1, vec!["google.protobuf.Any.2"]));
    let refused = apply(&with(UnknownFields::Refuse), &strange).unwrap_err();
    assert_eq!(refused, Violation::UnknownType { path: "more".into() });
    let bad = field(1, &any("x/t.Held", &field(1, &[0xff])));
    assert_eq!(malformed(&with(UnknownFields::Pass), &bad).0, "any.value.pin");
    let twice = field(1, &[any("x/t.Held", b""), field(1, b"x/t.M")].concat());
    assert_eq!(malformed(&with(UnknownFields::Pass), &twice).0, "any.type_url");
}

#[test]
fn subjects_are_text_or_decimal_once_each_and_bounded() {
    let message = message(
        "proto3",
        "message M { string a = 1 [(kopuro.options.v1.subject) = true]; bytes b = 2 [(kopuro.options.v1.subject) = true]; \
           repeated int32 c = 3 [(kopuro.options.v1.subject) = true]; repeated sint64 d = 4 [(kopuro.options.v1.subject) = true]; \
           repeated fixed64 e = 5 [(kopuro.options.v1.subject) = true, (kopuro.options.v1.commit) = true]; \
           repeated sfixed32 f = 6 [(kopuro.options.v1.subject) = true]; }",
    );
    let plan = compile(&message, &everything());
    let bytes = json(
        &message,
        r#"{"a": "Ж", "b": "MTI=", "c": [0, -1, 12, 7], "d": ["-9223372036854775808", "7"], "e": ["18446744073709551615"], "f": [-3]}"#,
    );
    let (_, found) = apply(&plan, &bytes).unwrap();
    assert_eq!(subjects(&found), ["Ж", "12", "-1", "7", "-9223372036854775808", "18446744073709551615", "-3"]);
    assert_eq!(found.committed, [("e".into(), Bytes::from_static(&[0xff; 8]))]);
    assert_eq!(malformed(&plan, &field(2, &[0xff])).0, "b");
    assert_eq!(malformed(&plan, &field(1, &[b'1'; 257])).1, "a subject of more than 256 bytes");
    assert_eq!(malformed(&plan, &[field(1, b"1"), field(1, b"1")].concat()).0, "a");

    let many: Vec<u8> = (1..=5_000_u64).flat_map(|pin| [varint(3, pin), varint(3, pin)].concat()).collect();
    let (_, found) = apply(&plan, &many).unwrap();
    assert_eq!((found.subjects.len(), found.beyond), (MAX_FOUND, 2 * (5_000 - MAX_FOUND as u64)));
    assert_eq!(found.subjects.iter().collect::<HashSet<_>>().len(), MAX_FOUND);
}

/// Longer ones than fit in place are the same to whoever asks.
#[test]
fn subjects_are_equal_as_their_bytes_are() {
    let message = message("proto3", "message M { repeated string a = 1 [(kopuro.options.v1.subject) = true]; }");
    let plan = compile(&message, &everything());
    let long: Vec<String> = (1..=256).step_by(3).map(|length| "1".repeat(length)).collect();
    let twice: Vec<u8> = long.iter().chain(&long).flat_map(|value| field(1, value.as_bytes())).collect();
    let (_, found) = apply(&plan, &twice).unwrap();
    assert_eq!(subjects(&found), long);
    let hashed: HashSet<_> = found.subjects.iter().collect();
    assert!(long.iter().all(|value| hashed.contains(&Subject::from(value.as_bytes()))));
    assert!(!format!("{found:?}").contains("1111"), "what it prints is in no log");
}

/// Texts are checked many at once: the one that is wrong is named all the same, and nothing wrong hides in its neighbours.
#[test]
fn texts_in_runs() {
    let plan = compile(
        &message(
            "proto3",
            "message M { string a = 1; int32 b = 2; repeated string c = 3; bytes d = 4; fixed64 e = 5; float f = 6; string g = 20; }",
        ),
        &everything(),
    );
    let letters = ["", "a", "Ж", "€", "𝄞", "Көпүрө", "Ысык-Көл облусу, Каракол шаары, 145-А", "日本語のテキスト"];
    let wrong: [&[u8]; 9] = [
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9d\x84",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xff",
    ];
    let between: [&[u8]; 8] = [
        b"",
        &varint(2, 7),
        &varint(2, 300),
        &varint(2, u64::MAX),
        &field(4, b"\x9f"),
        &[0x29, 1, 2, 3, 4, 5, 6, 7, 0x96],
        &[0x35, 0x96, 2, 3, 0x96],
        &field(20, "Ж".repeat(80).as_bytes()),
    ];
    for (first, second) in letters.iter().flat_map(|first| letters.map(|second| (first, second))) {
        for between in between {
            let around = |middle: &[u8], number| {
                [
                    &field(1, first.as_bytes())[..],
                    between,
                    &field(number, middle),
                    between,
                    &field(3, second.as_bytes()),
                ]
                .concat()
            };
            assert!(apply(&plan, &around("Ош".as_bytes(), 3)).is_ok());
            for wrong in wrong {
                // Alone, after what is right, and so that its neighbours would complete it.
                let middles = [wrong.to_vec(), [second.as_bytes(), wrong].concat(), [wrong, b"\x80\x80\x80"].concat()];
                for (middle, (number, name)) in
                    middles.iter().flat_map(|middle| [(middle, (3, "c")), (middle, (20, "g"))])
                {
                    if std::str::from_utf8(middle).is_err() {
                        assert_eq!(malformed(&plan, &around(middle, number)).0, name, "{middle:x?} after {between:x?}");
                    }
                }
            }
        }
    }
}
