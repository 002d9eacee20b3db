//! Grants and types that must not come into force: each mistake is told with its file, its line and what to do, a grant whose
//! limits are not understood lets nothing through, and a running node keeps what it had.

use kopuro::policy::{Allowed, UnknownFields};
use kopuro::schema;
use kopuro::trust::directory::{Purpose, Service};

use crate::config::{GRANT, Site};
use crate::harness::probe::ProbeClient;
use crate::harness::{Federation, PROVIDER, write_whole};

const SERVICE: &str = "kg.test.v1.Test";

/// A service of three methods, annotated; `more` goes into its file.
fn proto(more: &str) -> String {
    format!(
        r#"syntax = "proto3";
package kg.test.v1;
import "buf/validate/validate.proto";
import "kopuro/options/v1/options.proto";
service Test {{
  option (kopuro.options.v1.body) = "KG/GOV/70000005";
  rpc GetPerson(Request) returns (Answer) {{
    option (kopuro.options.v1.purposes) = "NK-54-2";
    option (kopuro.options.v1.publication) = "delayed 30";
  }}
  rpc GetResidence(Request) returns (Answer);
}}
message Request {{ string pin = 1 [(kopuro.options.v1.subject) = true, (buf.validate.field).string.len = 14]; }}
message Answer {{ Person person = 1; map<string, Person> kin = 2; }}
message Person {{
  string surname = 1 [(kopuro.options.v1.category) = "identity"];
  string passport = 2 [(kopuro.options.v1.category) = "kg.passport", (kopuro.options.v1.commit) = true];
}}
{more}"#
    )
}

fn compile(text: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.proto"), text).unwrap();
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.path(), &own]).unwrap();
    compiler.include_imports(true).open_file("test.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

/// The site offers `kg.test.v1.Test` beside what it has, by this set.
fn offer(site: &mut Site, set: &[u8]) {
    let descriptors = schema::digest(set);
    std::fs::write(site.path(&format!("descriptors/{}.binpb", hex::encode(descriptors))), set).unwrap();
    let provider = site.directory.systems[0].id.clone();
    site.directory.services.retain(|service| service.name != SERVICE);
    site.directory.services.push(Service { name: SERVICE.into(), provider, descriptors });
    site.directory.sort();
}

/// A site that offers the service, and a grant of it with these lines at its end.
fn site(lines: &str) -> Site {
    let mut site = Site::new();
    offer(&mut site, &compile(&proto("")));
    site.write("grants/tax.toml", &format!("{}{lines}\n", GRANT.replace("kg.civil.v1.CivilRegistry", SERVICE)));
    site
}

#[test]
fn limits_are_read() {
    let site = site(
        "fields = [\"person.surname\", \"kin\"]\nunknown_fields = \"strip\"\nunknown_response_fields = \"refuse\"\nname_withheld = true",
    );
    let loaded = site.load().unwrap();
    assert_eq!(loaded.warnings, []);
    let grant = loaded.grants.iter().next().unwrap();
    let Allowed::Fields(fields) = &grant.allowed else { panic!("{:?}", grant.allowed) };
    assert_eq!(fields["GetPerson"].iter().collect::<Vec<_>>(), ["kin", "person.surname"]);
    assert_eq!((grant.unknown.request, grant.unknown.response), (UnknownFields::Strip, UnknownFields::Refuse));
    assert!(grant.name_withheld);

    site.write(
        "grants/tax.toml",
        &std::fs::read_to_string(site.path("grants/tax.toml"))
            .unwrap()
            .replace("fields = [\"person.surname\", \"kin\"]", "categories = [\"identity\", \"kg.passport\"]"),
    );
    let loaded = site.load().unwrap();
    let categories = ["identity", "kg.passport"].map(String::from);
    assert_eq!(loaded.grants.iter().next().unwrap().allowed, Allowed::Categories(categories.into()));
}

#[test]
fn limits_that_contradict_themselves_refuse_the_file() {
    for (lines, expected) in [
        (
            "fields = [\"person\"]\ncategories = [\"identity\"]",
            "grants/tax.toml:8:14: grant[0].categories: stands beside fields; keep one of fields and categories",
        ),
        ("fields = []", "grants/tax.toml:7:10: grant[0].fields: names no field; name some"),
        (
            "fields = [\"person\", \"person.surname\"]",
            "grants/tax.toml:7:21: grant[0].fields[1]: \"person.surname\" overlaps with \"person\", which holds all of it; keep one of them",
        ),
        ("fields = [\"*\", \"kin\"]", "grants/tax.toml:7:16: grant[0].fields[1]: \"kin\" overlaps with \"*\""),
        ("fields = [\"kin\", \"kin\"]", "grants/tax.toml:7:18: grant[0].fields[1]: \"kin\" overlaps with \"kin\""),
        (
            "fields = [\"person..x\"]",
            "grants/tax.toml:7:11: grant[0].fields[0]: \"person..x\" is no path of fields; write",
        ),
        (
            "fields = { GetFamily = [\"*\"], GetPerson = [\"*\"] }",
            "grant[0].fields.GetFamily: is not among the methods of this grant; add it to methods, or remove it here",
        ),
        ("fields = { GetPerson = [] }", "grants/tax.toml:7:24: grant[0].fields.GetPerson: names no field"),
        ("fields = 3", "grants/tax.toml:7:10: grant[0].fields: fields are [\"person.surname\"] or { GetPerson ="),
        ("field = [\"person\"]", "grants/tax.toml:7:1: grant[0].field: unknown field `field`"),
        (
            "categories = [\"identity\", \"identty\"]",
            "grants/tax.toml:7:27: grant[0].categories[1]: \"identty\" is not a category; name some of identity, contact,",
        ),
        (
            "categories = [\"identity\", \"identity\"]",
            "grants/tax.toml:7:27: grant[0].categories[1]: \"identity\" stands twice",
        ),
        (
            "unknown_fields = \"drop\"",
            "grants/tax.toml:7:18: grant[0].unknown_fields: \"drop\" says nothing of unknown fields; write \"refuse\", \"strip\" or \"pass\"",
        ),
        (
            "categories = [\"identity\"]\nunknown_response_fields = \"pass\"",
            "grants/tax.toml:8:27: grant[0].unknown_response_fields: would let through what nobody knows",
        ),
    ] {
        let site = site(lines);
        assert!(site.load().is_err(), "{lines}");
        let told = site.problems();
        assert!(told.contains(expected), "{lines}\n{told}should say {expected}");
    }
    // What depends on the methods.
    let two = site("fields = { GetPerson = [\"*\"] }");
    two.edit("grants/tax.toml", "[\"GetPerson\"]", "[\"GetPerson\", \"GetResidence\"]");
    let expected =
        "grants/tax.toml:7:10: grant[0].fields: do not say what crosses of GetResidence; add GetResidence = [\"*\"]";
    assert!(two.load().is_err() && two.problems().contains(expected), "{}", two.problems());
    let all = site("fields = [\"person\"]");
    all.edit("grants/tax.toml", "[\"GetPerson\"]", "[\"*\"]");
    let expected = "grants/tax.toml:7:10: grant[0].fields: are for methods that are named, and methods is [\"*\"]; name the methods";
    assert!(all.load().is_err() && all.problems().contains(expected), "{}", all.problems());
}

#[test]
fn a_grant_that_does_not_fit_the_types_is_left_out_whole() {
    let register = |codes: &[&str]| -> Vec<Purpose> {
        let text = || "a".to_owned();
        let purpose = |code: &&str| Purpose { code: (*code).into(), law: text(), ky: text(), ru: text(), en: text() };
        codes.iter().map(purpose).collect()
    };
    let told = |lines: &str, codes: &[&str], basis: &str, expected: &str| {
        let mut site = site(lines);
        site.directory.purposes = register(codes);
        site.edit("grants/tax.toml", "\"NK-54-2\"", &format!("{basis:?}"));
        let loaded = site.load().unwrap_or_else(|error| panic!("{lines}: {error}"));
        assert_eq!((loaded.grants.len(), loaded.left_out.len()), (0, 1), "{lines}");
        let told = site.problems();
        assert!(told.contains(expected), "{lines}\n{told}should say {expected}");
    };
    let of_types = |lines: &str, expected: &str| told(lines, &[], "NK-54-2", expected);
    of_types(
        "fields = [\"person.surnam\"]",
        "grants/tax.toml:7:10: mismatch: grant[0].fields.GetPerson: GetPerson: kg.test.v1.Answer has no field \"person.surnam\"; write the names of the .proto",
    );
    of_types(
        "fields = { GetPerson = [\"person.surname.first\"] }",
        "grants/tax.toml:7:24: mismatch: grant[0].fields.GetPerson: GetPerson: kg.test.v1.Answer: the path \"person.surname.first\" goes into",
    );
    of_types("fields = [\"kin.surname\"]", "the path \"kin.surname\" goes into kin, which is a map");
    of_types(
        "publication = \"public\"",
        "grants/tax.toml:7:15: mismatch: grant[0].publication: public shows more, or sooner, than GetPerson's author lets be shown: delayed 30; write that class or a stricter one",
    );
    told(
        "",
        &["NK-54-2", "NK-99"],
        "NK-99",
        "grants/tax.toml:6:24: mismatch: grant[0].legal_basis.code: GetPerson may not be called on the basis NK-99: its purposes are NK-54-2; name one of them",
    );
    told(
        "",
        &["NK-99"],
        "NK-54-2",
        "grants/tax.toml:6:24: mismatch: grant[0].legal_basis.code: the directory's register of purposes has no NK-54-2; correct it, or have the council list it",
    );
    // As strict, or stricter, is well; and so is another method, whose author says nothing.
    for lines in ["publication = { delayed_days = 30 }", "publication = \"sealed\""] {
        assert_eq!(site(lines).load().unwrap().warnings, [], "{lines}");
    }
    let other = site("publication = \"public\"");
    other.edit("grants/tax.toml", "GetPerson", "GetResidence");
    assert_eq!(other.load().unwrap().warnings, []);
}

#[test]
fn what_a_node_itself_answers_has_no_fields_to_choose() {
    let site = site("categories = [\"identity\"]");
    site.edit("grants/tax.toml", SERVICE, "kopuro.audit.v1.SubjectAccess");
    site.edit("grants/tax.toml", "\"civil-registry\"", "\"node\"");
    site.edit("grants/tax.toml", "GetPerson", "ListExchanges");
    let loaded = site.load().unwrap();
    assert_eq!((loaded.grants.len(), loaded.left_out.len()), (0, 1));
    let expected = "grants/tax.toml:7:14: mismatch: grant[0].categories: kopuro.audit.v1.SubjectAccess is answered by the node itself, whole; remove it";
    assert!(site.problems().contains(expected), "{}", site.problems());
}

#[test]
fn a_running_node_refuses_a_new_bad_grant_and_drops_one_that_the_types_have_left_behind() {
    let mut site = site("fields = [\"person.surname\"]");
    let first = site.load().unwrap();
    assert_eq!(first.grants.len(), 1);
    // The operator's mistake: nothing of the new files is taken.
    let good = std::fs::read_to_string(site.path("grants/tax.toml")).unwrap();
    site.edit("grants/tax.toml", "person.surname", "person.surnam");
    let refused = site.reload(Some(&first)).unwrap_err();
    assert!(
        refused.contains("tax.toml:7:10: grant[0].fields.GetPerson: GetPerson: kg.test.v1.Answer has no field"),
        "{refused}"
    );
    // The types change under a grant: it goes, the rest of the reload does not wait for it, also the next time.
    site.write("grants/tax.toml", &good);
    offer(&mut site, &compile(&proto("").replace("surname = 1", "family_name = 1")));
    let second = site.reload(Some(&first)).unwrap();
    assert_eq!((second.grants.len(), second.left_out.len()), (0, 1));
    let third = site.reload(Some(&second)).unwrap();
    assert_eq!((third.grants.len(), third.left_out.len()), (0, 1));
    assert!(third.warnings[0].to_string().contains("mismatch: grant[0].fields.GetPerson"), "{}", third.warnings[0]);
}

/// A set, and what the node says of it.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let twice = |first: &str, second: &str| [compile(first), compile(second)].concat();
    let own = include_str!("../proto/kopuro/options/v1/options.proto");
    let mut sets = vec![
        (
            "a file in two versions",
            twice(&proto(""), &proto("message More {}")),
            "stands in it twice",
        ),
        ("no set at all", b"\xff\xff\xff".to_vec(), "not a google.protobuf.FileDescriptorSet"),
        ("a missing import", without(&compile(&proto("")), "buf/validate/validate.proto"), "is not in the set"),
        ("as large as can be", vec![0; (16 << 20) + 1], "has 16777217 bytes, more than 16777216"),
        (
            "messages without end",
            compile(&proto(&(0..30_000).map(|index| format!("message M{index} {{ int32 a = 1; int32 b = 2; int32 c = 3; int32 d = 4; int32 e = 5; int32 f = 6; }}\n")).collect::<String>())),
            "at most 200000 are taken",
        ),
    ];
    let annotated =
        |field: &str| compile(&proto("").replace("message Answer {", &format!("message Answer {{ {field}")));
    for (name, field, expected) in [
        (
            "a subject that is a message",
            "Person p = 9 [(kopuro.options.v1.subject) = true];",
            "kg.test.v1.Test of KG/GOV/70000005/civil-registry: kg.test.v1.Answer.p is annotated as subject and is message kg.test.v1.Person: a subject is a string",
        ),
        (
            "a subject that is a map",
            "map<string, string> p = 9 [(kopuro.options.v1.subject) = true];",
            "kg.test.v1.Answer.p is annotated as subject and is a map",
        ),
        (
            "a subject that is a number with a point",
            "double p = 9 [(kopuro.options.v1.subject) = true];",
            "is annotated as subject and is double",
        ),
        (
            "a commitment to a message",
            "Person p = 9 [(kopuro.options.v1.commit) = true];",
            "kg.test.v1.Answer.p is annotated with commit and is message",
        ),
        (
            "an unknown category",
            "string p = 9 [(kopuro.options.v1.category) = \"identty\"];",
            "kg.test.v1.Answer.p has the category \"identty\", which is not registered (identity, contact,",
        ),
    ] {
        sets.push((name, annotated(field), expected));
    }
    for (name, from, to, expected) in [
        (
            "a body that is no member",
            "\"KG/GOV/70000005\"",
            "\"civil\"",
            "kg.test.v1.Test has the body \"civil\": name a member",
        ),
        (
            "a purpose that is no code",
            "\"NK-54-2\"",
            "\"NK 54\"",
            "kg.test.v1.Test.GetPerson has the purpose \"NK 54\"",
        ),
        (
            "a class that there is not",
            "\"delayed 30\"",
            "\"later\"",
            "kg.test.v1.Test.GetPerson has the publication \"later\": write public",
        ),
        (
            "a rule that is not supported",
            "string.len = 14",
            "string.uri = true",
            "GetPerson of KG/GOV/70000005/civil-registry: kg.test.v1.Request.pin: the rule string.uri is not supported",
        ),
        (
            "a rule of another type",
            "string.len = 14",
            "int32.gt = 1",
            "kg.test.v1.Request.pin: int32: does not fit a field that is string",
        ),
    ] {
        sets.push((name, compile(&proto("").replace(from, to)), expected));
    }
    // Its own options.proto, in which `subject` is a string.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("kopuro/options/v1")).unwrap();
    let redefined = own.replace("bool subject = 50740;", "string subject = 50740;");
    std::fs::write(folder.path().join("kopuro/options/v1/options.proto"), redefined).unwrap();
    std::fs::write(folder.path().join("test.proto"), proto("").replace("subject) = true", "subject) = \"pin\""))
        .unwrap();
    let known = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.path(), &known]).unwrap();
    compiler.include_imports(true).open_file("test.proto").unwrap();
    sets.push((
        "an annotation of another type",
        compiler.encode_file_descriptor_set(),
        "kopuro.options.v1.subject is defined as string 50740 of google.protobuf.FieldOptions, and must be bool 50740",
    ));
    sets
}

/// A set without one of its files.
fn without(set: &[u8], name: &str) -> Vec<u8> {
    use prost::Message;
    let mut set = prost_types::FileDescriptorSet::decode(set).unwrap();
    set.file.retain(|file| file.name() != name);
    set.encode_to_vec()
}

#[test]
fn a_hostile_set_is_told_takes_nothing_else_away_and_a_running_node_keeps_the_types_it_had() {
    let mut site = site("");
    let first = site.load().unwrap();
    assert_eq!(first.warnings, []);
    for (name, set, expected) in hostile() {
        offer(&mut site, &set);
        let fresh = site.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = site.problems();
        assert!(told.contains(expected), "{name}\n{told}should say {expected}");
        assert!(
            told.contains("node.toml:10:1: mismatch: directory.descriptors: ") || told.contains("mismatch: directory"),
            "{name}: {told}"
        );
        assert!(fresh.catalogue.service(SERVICE).is_none(), "{name}");
        assert!(fresh.catalogue.method("kg.civil.v1.CivilRegistry", "GetPerson").is_some(), "{name}");
        let running = site.reload(Some(&first)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let method = |loaded: &kopuro::config::Loaded| loaded.catalogue.method(SERVICE, "GetPerson").unwrap().schema;
        assert_eq!(method(&running), method(&first), "{name}");
        assert_eq!(running.grants.len(), 1, "{name}");
        assert!(
            running
                .warnings
                .iter()
                .any(|warning| warning.to_string().contains("the types that the node had stay in force"))
        );
    }
    // Types that contain themselves are no attack.
    offer(
        &mut site,
        &compile(
            &proto("").replace("message Person {", "message Person { Person mother = 9; repeated Answer all = 8;"),
        ),
    );
    assert_eq!(site.load().unwrap().warnings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_goes_on_under_the_old_grants() {
    let mut running = Federation::new().start("").await;
    let probe = ProbeClient::new(running.desk().await);
    probe.unary("x").await.unwrap();
    let bad = running.federation.grants.replace("methods = [\"*\"]", "methods = [\"Unary\"]\nfields = [\"no.such\"]");
    write_whole(&running.federation.member_path(PROVIDER, "grants/probe.toml"), bad.as_bytes());
    let refused = running.provider.reload().await.unwrap_err().to_string();
    assert!(
        refused.contains("probe.toml:6:10: grant[0].fields.Unary: Unary: kopuro.test.v1.Blob has no field \"no.such\""),
        "{refused}"
    );
    probe.unary("y").await.unwrap();
    running.stop().await;
}
