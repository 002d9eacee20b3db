//! What goes on, what is taken, and which masks are refused.

use super::*;

const PEOPLE: &str = "
    message Address { string town = 1 [(kopuro.options.v1.category) = \"contact\"]; string street = 2; }
    message Person {
      string pin = 1 [(kopuro.options.v1.subject) = true, (kopuro.options.v1.category) = \"identity\"];
      string surname = 2;
      Address address = 3;
      repeated Person children = 4 [(kopuro.options.v1.category) = \"family\"];
      map<string, Address> places = 5;
      sint64 income = 6 [(kopuro.options.v1.category) = \"kg.tax-secret\", (kopuro.options.v1.commit) = true];
    }
    message M { Person person = 1; repeated Person others = 2; int32 total = 3; }";

const ONE: &str = r#"{
    "person": {"pin": "1", "surname": "Асанов", "address": {"town": "Ош", "street": "Ленина"}, "income": "-7",
        "children": [{"pin": "2", "address": {"town": "Нарын"}}, {"pin": "3", "surname": "B"}],
        "places": {"a": {"town": "T", "street": "S"}}},
    "others": [{"pin": "4", "surname": "C"}, {"pin": "1", "surname": "D"}],
    "total": 5}"#;

#[test]
fn what_goes_on_whole_is_not_copied() {
    let message = message("proto3", PEOPLE);
    let plan = compile(&message, &everything());
    let bytes = Bytes::from(json(&message, ONE));
    let mut found = Found::default();
    assert_eq!(plan.apply(&bytes, &mut found), Ok(None));
    assert_eq!(subjects(&found), ["1", "2", "3", "4"]);
    assert_eq!(found.committed, [("person.income".into(), Bytes::from_static(&[13]))]);
    assert_eq!((found.withheld, found.beyond), (0, 0));
}

#[test]
fn paths_keep_what_they_name_through_repeated_messages() {
    let message = message("proto3", PEOPLE);
    let plan = compile(&message, &paths(&["others.surname", "person.address.town", "person.places", "total"]));
    let (out, found) = apply(&plan, &json(&message, ONE)).unwrap();
    let expected = serde_json::json!({
        "person": {"address": {"town": "Ош"}, "places": {"a": {"town": "T", "street": "S"}}},
        "others": [{"surname": "C"}, {"surname": "D"}],
        "total": 5});
    assert_eq!(to_json(&message, &out), expected);
    assert_eq!(out, json(&message, &expected.to_string()));
    // What does not cross is about nobody, and is committed to by nobody.
    assert_eq!(subjects(&found), Vec::<&str>::new());
    assert_eq!(found.committed, []);
    assert_eq!(found.withheld, 8);
    assert_eq!(
        withheld(&found),
        ["others.pin", "person.address.street", "person.children", "person.income", "person.pin", "person.surname"]
    );
}

#[test]
fn categories_gate_a_field_and_all_in_it() {
    let message = message("proto3", PEOPLE);
    let plan = compile(&message, &categories(&["identity", "contact"]));
    let (out, found) = apply(&plan, &json(&message, ONE)).unwrap();
    assert_eq!(subjects(&found), ["1", "4"]);
    assert_eq!(withheld(&found), ["person.children", "person.income"]);
    assert_eq!(to_json(&message, &out)["person"]["surname"], "Асанов");
    // What is inside an allowed field is judged too; a type within itself is told by its name.
    let plan = compile(&message, &categories(&["family"]));
    let (out, found) = apply(&plan, &json(&message, ONE)).unwrap();
    let expected = serde_json::json!({
        "person": {"surname": "Асанов", "address": {"street": "Ленина"}, "children": [{"address": {}}, {"surname": "B"}],
            "places": {"a": {"street": "S"}}},
        "others": [{"surname": "C"}, {"surname": "D"}],
        "total": 5});
    assert_eq!(to_json(&message, &out), expected);
    assert_eq!(
        withheld(&found),
        [
            "others.pin",
            "person.address.town",
            "person.income",
            "person.pin",
            "person.places.value.town",
            "t.Address.town",
            "t.Person.pin"
        ]
    );
    assert_eq!(found.withheld, 9);
}

#[test]
fn the_whole_by_a_star_and_nothing_by_no_path() {
    let message = message("proto3", PEOPLE);
    let bytes = json(&message, ONE);
    assert_eq!(apply(&compile(&message, &paths(&["*"])), &bytes).unwrap().0, bytes);
    let (out, found) = apply(&compile(&message, &paths(&[])), &bytes).unwrap();
    assert_eq!((out.len(), found.withheld), (0, 4));
}

#[test]
fn lengths_shrink_with_what_they_count() {
    let message = message("proto3", "message A { string keep = 1; bytes drop = 2; A a = 3; } message M { A a = 1; }");
    let plan = compile(&message, &paths(&["a.keep", "a.a.keep", "a.a.a"]));
    // From a length of three bytes to two, one and none.
    for size in [0, 1, 100, 126, 127, 128, 129, 16_380, 16_384, 70_000] {
        let inner = [field(1, b"in"), field(2, &vec![7; size])].concat();
        let outer = [field(2, &vec![8; size]), field(3, &inner), field(1, b"out"), field(2, b"")].concat();
        let (out, found) = apply(&plan, &field(1, &outer)).unwrap();
        assert_eq!(out, field(1, &[field(3, &field(1, b"in")), field(1, b"out")].concat()), "{size}");
        assert_eq!(found.withheld, 3);
    }
}

#[test]
fn masks_that_cannot_be_meant_are_refused() {
    let message = message("proto3", PEOPLE);
    let error = |options| Plan::compile(&message, &options).unwrap_err().to_string();
    assert_eq!(error(paths(&["person.name"])), r#"t.M has no field "person.name""#);
    assert_eq!(
        error(paths(&["person.surname.first"])).split(':').nth(1).unwrap().trim(),
        r#"the path "person.surname.first" goes into person.surname, which is a string"#
    );
    assert!(error(paths(&["person.places.value"])).contains("person.places, which is a map"));
    assert!(error(paths(&["person", "person.surname"])).contains(r#"overlapping paths "person" and "person.surname""#));
    assert!(error(paths(&["*", "person"])).contains(r#"overlapping paths "*" and "person""#));
    assert!(error(paths(&["person..surname"])).contains("empty part"));
    assert!(error(paths(&[""])).contains("empty part"));
    assert!(error(categories(&["identiy"])).contains(r#""identiy" is no category"#));
    let through = PlanOptions { unknown: UnknownFields::Pass, ..paths(&["total"]) };
    assert!(error(through).contains("masks nothing"));
}

#[test]
fn annotations_must_fit_their_fields() {
    for (annotated, part) in [
        (
            "float a = 1 [(kopuro.options.v1.subject) = true];",
            "t.M.a is annotated as subject, and is a floating-point number",
        ),
        ("M a = 1 [(kopuro.options.v1.subject) = true];", "is a message"),
        (
            "map<string, string> a = 1 [(kopuro.options.v1.commit) = true];",
            "t.M.a is annotated as commit, and is a map",
        ),
        ("M a = 1 [(kopuro.options.v1.commit) = true];", "is a message"),
        ("string a = 1 [(kopuro.options.v1.category) = \"idntity\"];", "t.M.a has the category \"idntity\""),
        ("string a = 1 [(kopuro.options.v1.category) = \".\"];", "t.M.a has the category"),
    ] {
        let message = message("proto3", &format!("message M {{ {annotated} }}"));
        let error = Plan::compile(&message, &everything()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_required_field_goes_on_with_its_message_or_not_at_all() {
    let message = message(
        "proto2",
        "message A { required string a = 1; optional string b = 2; } message M { optional A a = 1; }",
    );
    let error = Plan::compile(&message, &paths(&["a.b"])).unwrap_err().to_string();
    assert!(error.starts_with("t.A.a is required and would be withheld"), "{error}");
    compile(&message, &paths(&["a.a"]));
    compile(&message, &paths(&[]));
}

#[test]
fn of_a_oneof_that_goes_on_in_part_one_member_comes() {
    let message = message("proto3", "message M { oneof it { string a = 1; string b = 2; string c = 3; } }");
    let plan = compile(&message, &paths(&["a", "c"]));
    assert_eq!(apply(&plan, &field(1, b"x")).unwrap().0, field(1, b"x"));
    assert_eq!(apply(&plan, &field(2, b"x")).unwrap().0, b"".as_slice());
    // Were only b dropped, a would show, which b has replaced.
    assert_eq!(malformed(&plan, &[field(1, b"x"), field(2, b"y")].concat()).0, "b");
    let whole = compile(&message, &everything());
    assert!(apply(&whole, &[field(1, b"x"), field(2, b"y"), field(1, b"z")].concat()).is_ok());
}
