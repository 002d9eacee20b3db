//! The register of schemas by its commands: from `.proto` files to a signed directory, a new version, and what is refused.

use std::fs;
use std::path::Path;

use kopuro::proto::DESCRIPTORS;
use kopuro::schema::{digest, extract};
use kopuro::trust::directory::Directory;
use kopuro::trust::note::Signer;
use serde_json::Value;

use crate::pki::{kopuro, succeed};

const PROVIDER: &str = "KG/GOV/1/registry";
const SERVICE: &str = "kg.deeds.v1.Deeds";

const PROTO: &str = r#"syntax = "proto3";
package kg.deeds.v1;
import "kopuro/options/v1/options.proto";

service Deeds {
  option (kopuro.options.v1.body) = "KG/GOV/1";
  rpc Get(GetRequest) returns (Deed) {
    option (kopuro.options.v1.purposes) = "law-1";
    option (kopuro.options.v1.publication) = "delayed 30";
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message GetRequest {
  string pin = 1 [(kopuro.options.v1.subject) = true];
}
message Deed {
  string number = 1 [(kopuro.options.v1.commit) = true];
  string owner = 2 [(kopuro.options.v1.category) = "identity"];
  repeated Deed earlier = 3;
}
"#;

/// A folder with an agency's `.proto` and a council's `directory.toml`.
struct Office(tempfile::TempDir);

impl Office {
    fn new() -> Self {
        let office = Self(tempfile::tempdir().unwrap());
        office.proto("v1", PROTO);
        let key = Signer::generate("ombudsman").unwrap();
        fs::write(office.at().join("ombudsman.key"), key.to_encoded()).unwrap();
        let members: String = (1..=2)
            .map(|number| {
                format!(
                    "[[members]]\nid = \"KG/GOV/{number}\"\nky = \"К\"\nru = \"Р\"\nen = \"E\"\n\n\
                     [[systems]]\nid = \"KG/GOV/{number}/registry\"\n\n"
                )
            })
            .collect();
        let head = format!(
            "# The federation's list.\nfederation = \"KG\"\nversion = 1 # the first\nexpires = 2099-03-01T00:00:00Z\n\
             threshold = 1\ncouncil = [\"{}\"]\n\n{members}",
            key.verifier()
        );
        fs::write(office.at().join("directory.toml"), head).unwrap();
        office
    }

    fn at(&self) -> &Path {
        self.0.path()
    }

    fn proto(&self, version: &str, text: &str) {
        let folder = self.at().join("proto/kg/deeds").join(version);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("deeds.proto"), text).unwrap();
    }

    fn toml(&self) -> String {
        fs::read_to_string(self.at().join("directory.toml")).unwrap()
    }

    /// What the command says on either stream, and its exit code.
    fn run(&self, arguments: &[&str]) -> (String, i32) {
        let output = kopuro(self.at(), arguments);
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8(said).unwrap(), output.status.code().unwrap())
    }

    fn add(&self, provider: &str) -> (String, i32) {
        self.run(&["schema", "add", "proto", "--directory", "directory.toml", "--provider", provider])
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = kopuro(self.at(), arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn sets(&self) -> usize {
        let names = fs::read_dir(self.at()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".binpb")).count()
    }
}

#[test]
fn from_proto_to_a_signed_directory_and_a_new_version() {
    let office = Office::new();
    let before = office.toml();
    let (said, code) = office.run(&["schema", "check", "proto/kg/deeds/v1/deeds.proto", "--against", "directory.toml"]);
    assert_eq!((said.as_str(), code), ("good: kg.deeds.v1.Deeds\n", 0));
    let (said, code) = office.add(PROVIDER);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("added    kg.deeds.v1.Deeds  "), "{said}");
    assert!(said.contains("Raise its version (it is 1)"), "{said}");
    let after = office.toml();
    assert!(after.starts_with(&before) && after.ends_with(".binpb\"\n"), "{after}");
    assert_eq!(office.sets(), 1);

    // As the council signs it; the set goes along.
    fs::create_dir(office.at().join("public")).unwrap();
    let sign =
        ["directory", "sign", "--source", "directory.toml", "--key", "ombudsman.key", "--out", "public/directory"];
    assert!(succeed(office.at(), &sign).contains("1 of 1, enough"));
    let listed = office.json(&["schema", "list", "--directory", "public", "--json"]);
    let [service] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((service["service"].as_str(), service["provider"].as_str()), (Some(SERVICE), Some(PROVIDER)));
    assert_eq!(
        ["methods", "subjects", "categories", "commits", "purposes"].map(|key| service[key].as_u64().unwrap()),
        [1, 1, 1, 1, 1]
    );
    let first = service["set"].as_str().unwrap().to_owned();

    // The same again changes nothing.
    let (said, code) = office.add(PROVIDER);
    assert!(code == 0 && said.contains("has it all already"), "{said}");
    assert_eq!(office.toml(), after);

    // A compatible version: the entry is changed, the old set stays.
    office.proto("v1", &PROTO.replace("repeated Deed", "string place = 4;\n  repeated Deed"));
    let (said, code) = office.add(PROVIDER);
    assert!(code == 0 && said.contains(&format!("changed  {SERVICE}  {first} -> ")), "{said}");
    assert!(said.contains("+ kg.deeds.v1.Deed.place: field place = 4"), "{said}");
    let changed = office.toml();
    assert_eq!(changed.lines().count(), after.lines().count());
    assert!(!changed.contains(&first) && changed.contains("version = 1 # the first"));
    assert_eq!(office.sets(), 2);
    let (said, code) = office.run(&["schema", "check", "proto", "--against", "public"]);
    assert_eq!((said.as_str(), code), ("good: kg.deeds.v1.Deeds\n", 0));

    // A second provider may be a version behind; and a new package is never a break.
    office.proto("v1", PROTO);
    let (said, code) = office.add("KG/GOV/2/registry");
    assert!(code == 0 && said.starts_with("added "), "{said}");
    office.proto("v2", &PROTO.replace("kg.deeds.v1", "kg.deeds.v2").replace("string owner", "int64 owner"));
    let (said, code) = office.add("KG/GOV/2/registry");
    assert!(
        code == 0 && said.contains("added    kg.deeds.v2.Deeds") && said.contains("as it is kg.deeds.v1"),
        "{said}"
    );
    assert_eq!(Directory::from_toml_with(&office.toml(), &mut |_| Ok([0; 32])).unwrap().services.len(), 3);

    // A set whose file is gone is told.
    fs::remove_file(office.at().join("public").join(format!("{first}.binpb"))).unwrap();
    let (said, code) = office.run(&["schema", "list", "--directory", "public"]);
    assert!(code == 1 && said.contains("PROBLEM  no file beside the directory has this set"), "{said}");
}

#[test]
fn what_breaks_callers_is_refused() {
    let office = Office::new();
    assert_eq!(office.add(PROVIDER).1, 0);
    let (before, sets) = (office.toml(), office.sets());
    for (from, to, rule, place) in [
        ("  string number = 1", "  bytes number = 1", "FIELD_SAME_TYPE", "deeds.proto:17: kg.deeds.v1.Deed.number: "),
        ("rpc Get(", "rpc Fetch(", "RPC_NO_DELETE", "deeds.proto:5: kg.deeds.v1.Deeds: "),
        ("\"identity\"", "\"contact\"", "KOPURO_FIELD_SAME_CATEGORY", "deeds.proto:18: kg.deeds.v1.Deed.owner: "),
        (
            "\"delayed 30\"",
            "\"public\"",
            "KOPURO_METHOD_PUBLICATION_NOT_OPENER",
            "deeds.proto:7: kg.deeds.v1.Deeds.Get: ",
        ),
    ] {
        assert!(PROTO.contains(from));
        office.proto("v1", &PROTO.replace(from, to));
        // Of either provider: they would offer the same package.
        for provider in [PROVIDER, "KG/GOV/2/registry"] {
            let (said, code) = office.add(provider);
            assert_eq!(code, 1, "{from}: {said}");
            assert!(said.contains(&format!("({rule})")) && said.contains(place), "{said}");
            assert!(said.contains("breaks what is built with kg.deeds.v1.Deeds of KG/GOV/1/registry"), "{said}");
            assert!(said.contains("refused: give the new version a package of its own"), "{said}");
        }
        assert_eq!((office.toml(), office.sets()), (before.clone(), sets));
        let checked = office.json(&["schema", "check", "proto", "--against", "directory.toml", "--json"]);
        assert_eq!(checked["ok"], false);
        assert!(checked["findings"].as_array().unwrap().iter().any(|finding| finding["rule"] == rule), "{checked}");
    }
}

#[test]
fn hostile_types_are_told_with_file_and_line() {
    let office = Office::new();
    for (from, to, expected) in [
        (
            "string pin = 1 [(",
            "bool pin = 1 [(",
            "kg/deeds/v1/deeds.proto:14: kg.deeds.v1.GetRequest.pin: is annotated as subject",
        ),
        (
            "\"identity\"",
            "\"identiy\"",
            "kg/deeds/v1/deeds.proto:18: kg.deeds.v1.Deed.owner: has the category \"identiy\"",
        ),
        ("\"delayed 30\"", "\"delayed\"", "kg/deeds/v1/deeds.proto:7: kg.deeds.v1.Deeds.Get: has the publication"),
        ("\"KG/GOV/1\"", "\"KG\"", "kg/deeds/v1/deeds.proto:5: kg.deeds.v1.Deeds: has the body"),
        ("  string number", "  strin number", "kg/deeds/v1/deeds.proto:17: name 'strin' is not defined (PROTO)"),
        ("options/v1", "options/v9", "kg/deeds/v1/deeds.proto:3: import 'kopuro/options/v9/options.proto' not found"),
        ("owner = 2", "owner = 1", "kg/deeds/v1/deeds.proto:18: "),
        ("syntax = \"proto3\"", "edition = \"2023\"", "editions are not understood here"),
    ] {
        assert!(PROTO.contains(from));
        office.proto("v1", &PROTO.replacen(from, to, 1));
        let (said, code) = office.run(&["schema", "check", "proto"]);
        assert!(code == 1 && said.contains(expected), "{expected}: {said}");
        let (said, code) = office.add(PROVIDER);
        assert!(code == 1 && said.contains(expected) && said.ends_with("refused\n"), "{expected}: {said}");
    }
    assert_eq!(office.sets(), 0);

    // Sets, and what cannot be used at all.
    let file = |name: &str, bytes: &[u8]| fs::write(office.at().join(name), bytes).unwrap();
    let civil = extract(DESCRIPTORS, &["kg.civil.v1.CivilRegistry"]).unwrap();
    file("civil.binpb", &civil);
    file("twice.binpb", &[&civil[..], &civil[..]].concat());
    file("garbage.binpb", b"\xff\xff");
    file("empty.binpb", b"");
    for (arguments, expected, exit) in [
        (&["check", "civil.binpb"][..], "good: kg.civil.v1.CivilRegistry", 0),
        (&["check", "twice.binpb"], "the file stands in it twice (SET_FILE_TWICE)", 1),
        (&["check", "garbage.binpb"], "(SET_UNREADABLE)", 1),
        (&["check", "empty.binpb"], "it holds no file", 1),
        (&["check", "nowhere.binpb"], "nowhere.binpb: No such file", 2),
        (&["check", "civil.binpb", "--service", "kg.No"], "--service kg.No: there is kg.civil.v1.CivilRegistry", 2),
        (&["check", "civil.binpb", "--against", "garbage.binpb"], "garbage.binpb: not a google.protobuf", 2),
        (&["check"], "required arguments were not provided", 2),
        (&["add", "civil.binpb", "--directory", "directory.toml", "--provider", "KG/GOV/3/x"], "add [[systems]]", 2),
        (&["show", "abcd", "--directory", "directory.toml"], "begins with \"abcd\"", 2),
    ] {
        let (said, code) = office.run(&[&["schema"], arguments].concat());
        assert!(code == exit && said.contains(expected), "{arguments:?}: {code}: {said}");
    }
}

#[test]
fn a_set_is_shown_and_two_are_compared() {
    let office = Office::new();
    assert_eq!(office.add(PROVIDER).1, 0);
    let toml = office.toml();
    let key = toml.lines().last().unwrap().split('"').nth(1).unwrap().trim_end_matches(".binpb").to_owned();
    let shown = succeed(office.at(), &["schema", "show", &key[..8], "--directory", "directory.toml"]);
    for line in [
        "  body KG/GOV/1",
        "  Get(kg.deeds.v1.GetRequest) -> kg.deeds.v1.Deed",
        "    purposes    law-1",
        "    publication delayed 30",
        "    NO_SIDE_EFFECTS",
        "      1  string pin                                      subject",
        "      2  string owner                                    category identity",
        "      3  repeated kg.deeds.v1.Deed earlier",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?}: {shown}");
    }
    let same = office.json(&["schema", "show", "proto", "--json"]);
    assert_eq!(same[0]["messages"][1]["fields"][1]["category"], "identity");
    assert_eq!(digest(&fs::read(office.at().join(format!("{key}.binpb"))).unwrap()), hex::decode(&key).unwrap()[..]);

    let old = format!("{key}.binpb");
    let (said, code) = office.run(&["schema", "diff", &old, "proto"]);
    assert_eq!((said.as_str(), code), ("no difference\n", 0));
    office.proto("v1", &PROTO.replace("string owner = 2", "string town = 5;\n  string holder = 2"));
    let (said, code) = office.run(&["schema", "diff", &old, "proto"]);
    assert_eq!(code, 1);
    assert!(said.contains("+ kg/deeds/v1/deeds.proto:18: kg.deeds.v1.Deed.town: field town = 5"), "{said}");
    assert!(said.contains("! kg/deeds/v1/deeds.proto:19: kg.deeds.v1.Deed.holder: field 2 changed its name"), "{said}");
    let told = office.json(&["schema", "diff", &old, "proto", "--json"]);
    assert_eq!(told["added"][0]["line"], 18);
    assert_eq!(told["breaking"][0]["rule"], "FIELD_SAME_NAME");
}

/// Runs `docs/schemas.md`: writes its files and runs its commands, in their order.
#[test]
fn the_documents_commands_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_kopuro")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut said = String::new();
    let (mut key, mut commands) = (String::new(), 0);
    for block in include_str!("../docs/schemas.md").split("\n```").collect::<Vec<_>>().chunks_exact(2) {
        let [before, block] = block else { unreachable!() };
        let (language, body) = block.split_once('\n').unwrap();
        let mark = before.lines().last().unwrap();
        if let Some(name) = mark.strip_prefix("<!-- file: ").and_then(|name| name.strip_suffix(" -->")) {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{}\n", body.replace("ombudsman+…", key.trim()))).unwrap();
            continue;
        }
        assert_eq!(language, "sh", "{body}");
        commands += 1;
        let mut shell = std::process::Command::new("bash");
        let output = shell.args(["-euo", "pipefail", "-c", body]).env("PATH", &path).current_dir(folder.path());
        let output = output.output().unwrap();
        let expected = if mark == "<!-- refused -->" { 1 } else { 0 };
        said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{body}\n{said}");
        if body.contains("keygen") {
            key.clone_from(&said);
        }
        if expected == 1 {
            // As the document prints it, but for digests.
            let text = include_str!("../docs/schemas.md");
            let printed =
                text.lines().filter(|line| line.starts_with("      kg/deeds/") || line.contains("    breaks what"));
            for line in printed.map(|line| line.trim().split(" (…)").next().unwrap()) {
                assert!(said.contains(line), "{line}: {said}");
            }
        }
    }
    assert_eq!(commands, 6);
    assert!(said.contains("kg.deeds.v1.Deeds\n") && said.contains("kg.deeds.v2.Deeds\n"), "{said}");
}
