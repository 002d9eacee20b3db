//! The signed directory: its text, what it must not contradict, who must have signed it, and the council's commands.

use kopuro::trust::directory::{
    Auditor, Directory, DirectoryError, Member, Node, Purpose, Service, SignedDirectory, System,
};
use kopuro::trust::note::{Note, NoteError, Signer, Verifier};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration as Span, OffsetDateTime};

use crate::pki::{fail, kopuro, succeed};

pub(crate) const CIVIL: &str = "KG/GOV/70000005";
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

pub(crate) fn directory(version: u64, council: &[&Signer], threshold: usize) -> Directory {
    let mut directory = Directory {
        federation: "KG".into(),
        version,
        expires: NOW + Span::days(90),
        threshold,
        council: council.iter().map(|signer| signer.verifier()).collect(),
        members: vec![
            Member {
                id: CIVIL.parse().unwrap(),
                name_ky: "Жарандык абалдын актыларын каттоо башкармалыгы".into(),
                name_ru: "Управление \"ЗАГС\" \\ Минцифры".into(),
                name_en: "Civil Registry Office".into(),
            },
            Member {
                id: "KG/NGO/1".parse().unwrap(),
                name_ky: "Коомдук кеңеш".into(),
                name_ru: "Общественный совет".into(),
                name_en: "Public council".into(),
            },
        ],
        nodes: vec![Node {
            member: CIVIL.parse().unwrap(),
            name: "main".into(),
            endpoint: "gw.civil.kg:7444".into(),
            log_key: Signer::generate("gw.civil.kg/log").unwrap().verifier(),
            more_log_keys: Vec::new(),
        }],
        systems: vec![System { id: format!("{CIVIL}/civil-registry").parse().unwrap() }],
        services: vec![Service {
            name: "kg.civil.v1.CivilRegistry".into(),
            provider: format!("{CIVIL}/civil-registry").parse().unwrap(),
            descriptors: [7; 32],
        }],
        auditors: vec![Auditor { identity: "KG/NGO/1/_auditor/board".parse().unwrap() }],
        purposes: ["ZR-12-4", "NK-54-2", "NK-54"].map(purpose).into(),
    };
    directory.sort();
    directory.check().unwrap();
    directory
}

fn purpose(code: &str) -> Purpose {
    Purpose {
        code: code.into(),
        law: "Салык кодекси, \"54-берене\"".into(),
        ky: "Салык төлөөчүнү текшерүү".into(),
        ru: "Проверка \\ сверка".into(),
        en: "To verify a taxpayer".into(),
    }
}

pub(crate) fn signed(directory: &Directory, signers: &[&Signer]) -> String {
    let mut note = Note::parse(&signers[0].sign(&directory.to_text()).unwrap()).unwrap();
    for signer in &signers[1..] {
        note.add_signature(signer).unwrap();
    }
    note.to_string()
}

pub(crate) fn council() -> [Signer; 3] {
    ["audit-chamber", "ombudsman", "ministry"].map(|name| Signer::generate(name).unwrap())
}

pub(crate) fn keys(signers: &[Signer]) -> Vec<Verifier> {
    signers.iter().map(Signer::verifier).collect()
}

#[test]
fn text_is_canonical() {
    let [a, b, _] = council();
    let text = directory(7, &[&a, &b], 2).to_text();
    assert!(
        text.starts_with("kopuro directory v1\nfederation KG\nversion 7\nexpires 2027-02-22T12:00:00Z\nthreshold 2\n")
    );
    assert!(text.contains(r#""Управление \"ЗАГС\" \\ Минцифры" "Civil Registry Office""#));
    assert_eq!(Directory::parse_text(&text).unwrap().to_text(), text);

    let line = |needle: &str| text.lines().position(|line| line.starts_with(needle)).unwrap() + 1;
    let lines: Vec<&str> = text.lines().collect();
    let swapped = |i: usize, j: usize| {
        let mut lines = lines.clone();
        lines.swap(i - 1, j - 1);
        lines.join("\n") + "\n"
    };
    for (bad, at) in [
        (String::new(), 1),
        (text.replace("directory v1", "directory v2"), 1),
        (text.replace("version 7", "version 07"), 3),
        (text.replace("version 7", "version +7"), 3),
        (text.replace("12:00:00Z", "12:00:00.0Z"), 4),
        (text.replace("12:00:00Z", "12:00:00+00:00"), 4),
        (swapped(line("member KG/GOV"), line("member KG/NGO")), line("member KG/GOV")),
        (swapped(line("node"), line("system")), line("node")),
        (text.replace("system KG", "system  KG"), line("system")),
        (text.replace("\"Civil", "\"C\\ivil"), line("member KG/GOV")),
        (text.replace("0707", "07070"), line("service")),
        (text.replace("0707", "zz07"), line("service")),
        (text.trim_end().into(), lines.len() + 1),
        (format!("{text}\n"), lines.len() + 1),
        (text.replace('\n', "\r\n"), 1),
        (format!("{text}witness x\n"), lines.len() + 1),
    ] {
        match Directory::parse_text(&bad) {
            Err(DirectoryError::Line { line, .. }) => assert_eq!(line, at, "{bad}"),
            other => panic!("{other:?} for {bad}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_consistent_prints_and_parses(
        names in proptest::collection::vec("[а-яА-ЯөүңӨҮҢa-z\"\\\\]{1,12}( [«»a-z\"\\\\-]{1,8}){0,2}", 3..12),
        version in 1u64..,
        days in 1i64..100_000,
    ) {
        let signer = Signer::generate("one").unwrap();
        let mut made = directory(version, &[&signer], 1);
        made.expires = NOW + Span::days(days);
        for (index, names) in names.chunks_exact(3).enumerate() {
            let id = format!("KG/COM/{index}").parse().unwrap();
            let [name_ky, name_ru, name_en] = [0, 1, 2].map(|language| names[language].clone());
            let [ky, ru, en] = [&name_ky, &name_ru, &name_en].map(String::clone);
            made.purposes.push(Purpose { code: format!("law.{index}"), law: names[0].clone(), ky, ru, en });
            made.members.push(Member { id, name_ky, name_ru, name_en });
        }
        made.sort();
        made.check().unwrap();
        prop_assert_eq!(Directory::parse_text(&made.to_text()).unwrap(), made.clone());
        prop_assert_eq!(Directory::from_toml(&made.to_toml()).unwrap(), made);
    }

    #[test]
    fn no_other_text_is_read_as_a_directory(position in 0usize..2000, replacement in "(.|\n){0,3}", length in 0usize..3) {
        let signer = Signer::from_encoded(
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
        ).unwrap();
        let text = directory(7, &[&signer], 1).to_text();
        let mut chars: Vec<char> = text.chars().collect();
        let start = position % chars.len();
        let end = (start + length).min(chars.len());
        chars.splice(start..end, replacement.chars());
        let altered: String = chars.into_iter().collect();
        if let Ok(parsed) = Directory::parse_text(&altered) {
            prop_assert_eq!(parsed.to_text(), altered);
        }
    }
}

/// While a log changes its key, and for what was signed before, a node has more keys than one.
#[test]
fn a_log_may_have_several_keys() {
    let [a, b, _] = council();
    let mut changed = directory(7, &[&a, &b], 2);
    let before = changed.to_text();
    assert!(!before.contains("log-key"), "a directory without any is written as it always was");
    let main = changed.nodes[0].clone();
    let (log, second) = (main.log_key.clone(), "gw.second.kg/log");
    let key = |name: &str| Signer::generate(name).unwrap().verifier();
    changed.nodes.push(Node { name: "second".into(), log_key: key(second), more_log_keys: vec![key(second)], ..main });
    changed.nodes[0].more_log_keys = vec![key(log.name()), key(log.name())];
    changed.sort();
    let text = changed.to_text();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("node ")).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).take(6).collect();
    assert_eq!(kinds, ["node", "node", "log-key", "log-key", "log-key", "system"]);
    assert!(lines[2..5].is_sorted() && lines[2].starts_with("log-key KG/GOV/70000005 main gw.civil.kg/log+"));
    assert_eq!(Directory::parse_text(&text).unwrap(), changed);
    assert_eq!(Directory::from_toml(&changed.to_toml()).unwrap(), changed);
    assert_eq!(changed.nodes[0].log_keys().len(), 3);
    assert_eq!(changed.nodes[0].log_keys()[0], log);

    let at = text.lines().position(|line| line.starts_with("log-key")).unwrap() + 1;
    let third = text.lines().nth(at + 1).unwrap();
    for (bad, line, why) in [
        (text.replacen("log-key KG/GOV/70000005 main", "log-key KG/GOV/70000005 none", 1), at, "has no node none"),
        (text.replace(third, &third.replace(" second ", " main ")), at + 2, "not named for the log"),
        (text.replace(third, &format!("{third} x")), at + 2, "expected log-key"),
    ] {
        let error = Directory::parse_text(&bad).unwrap_err().to_string();
        assert!(error.starts_with(&format!("directory, line {line}: ")) && error.contains(why), "{error}");
    }
    let mut swapped: Vec<&str> = text.lines().collect();
    swapped.swap(at - 1, at);
    assert!(Directory::parse_text(&(swapped.join("\n") + "\n")).is_err(), "sorted");
    let toml = changed.to_toml();
    let at = toml.lines().position(|line| line.starts_with("more_log_keys")).unwrap() + 1;
    let error = Directory::from_toml(&toml.replacen("more_log_keys = [\"gw", "more_log_keys = [\"gv", 1)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("directory.toml:{at}: more_log_keys: ")), "{error}");
}

#[test]
fn contradictions_are_named() {
    let [a, b, _] = council();
    let refused = |change: &dyn Fn(&mut Directory), expected: &str| {
        let mut directory = directory(1, &[&a, &b], 2);
        change(&mut directory);
        let error = directory.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
        // And not by its text either.
        assert!(Directory::parse_text(&directory.to_text()).is_err());
    };
    refused(&|d| d.threshold = 3, "threshold: 3 of 2 council keys");
    refused(&|d| d.threshold = 0, "threshold: 0 of 2");
    refused(&|d| d.council[0] = d.council[1].clone(), "listed twice");
    refused(&|d| d.version = 0, "versions begin with 1");
    refused(&|d| d.federation = "KZ".into(), "does not belong to the federation KZ");
    refused(&|d| d.members.push(d.members[0].clone()), "listed twice");
    refused(&|d| d.members[1].name_ru = String::new(), "member 2: ru");
    refused(&|d| d.members[1].name_ky = "a\u{85}b".into(), "member 2: ky");
    refused(&|d| d.nodes[0].member = "KG/GOV/9".parse().unwrap(), "node 1: member: KG/GOV/9 is not a listed member");
    refused(&|d| d.nodes[0].name = "_x".into(), "node 1: name");
    refused(&|d| d.nodes[0].endpoint = "gw".into(), "node 1: endpoint");
    refused(&|d| d.nodes.push(d.nodes[0].clone()), "listed twice");
    refused(
        &|d| d.nodes.push(Node { name: "second".into(), ..d.nodes[0].clone() }),
        "node 2: log_key: gw.civil.kg/log+",
    );
    refused(
        &|d| d.nodes[0].more_log_keys = vec![d.nodes[0].log_key.clone()],
        "log key 1: more_log_keys: gw.civil.kg/log+",
    );
    let elsewhere = Signer::generate("gw.else.kg/log").unwrap().verifier();
    refused(&|d| d.nodes[0].more_log_keys = vec![elsewhere.clone()], "is not named for the log, gw.civil.kg/log");
    refused(&|d| d.systems[0].id = "KG/GOV/9/x".parse().unwrap(), "system 1: id: KG/GOV/9");
    refused(&|d| d.systems.clear(), "service 1: provider");
    refused(&|d| d.services[0].name = "CivilRegistry".into(), "service 1: name");
    refused(&|d| d.services.push(d.services[0].clone()), "service 2: provider");
    refused(&|d| d.auditors[0].identity = "KG/NGO/1/x".parse().unwrap(), "auditor 1: identity");
    refused(&|d| d.auditors[0].identity = "KG/NGO/2/_auditor/x".parse().unwrap(), "KG/NGO/2 is not a listed member");
    refused(&|d| d.purposes[1].code = "NK 54".into(), "purpose 2: code: \"NK 54\" is not a code");
    refused(&|d| d.purposes.push(d.purposes[0].clone()), "purpose 4: code: NK-54 is listed twice");
    refused(&|d| d.purposes[2].law = String::new(), "purpose 3: law: ");
    refused(&|d| d.purposes[0].ky = " a".into(), "purpose 1: ky: ");
    refused(&|d| d.purposes[0].en = "a\nb".into(), "purpose 1: en: ");
}

fn toml_source(council: &[Verifier], descriptors: &str) -> String {
    let council: Vec<String> = council.iter().map(|key| format!("{:?}", key.to_string())).collect();
    let log = Signer::generate("gw.civil.kg/log").unwrap().verifier();
    format!(
        r#"federation = "KG"
version = 1
expires = 2099-03-01T06:00:00+06:00
threshold = 2
council = [{}]

[[members]]
id = "{CIVIL}"
ky = "Жарандык абал"
ru = "ЗАГС"
en = "Civil Registry"

[[nodes]]
member = "{CIVIL}"
name = "main"
endpoint = "gw.civil.kg:7444"
log_key = "{log}"

[[systems]]
id = "{CIVIL}/civil-registry"

[[services]]
name = "kg.civil.v1.CivilRegistry"
provider = "{CIVIL}/civil-registry"
descriptors = "{descriptors}"

[[purposes]]
code = "NK-54-2"
law = "Tax Code, article 54, part 2"
ky = "Салык төлөөчүнү текшерүү"
ru = "Проверка налогоплательщика"
en = "To verify a taxpayer"
"#,
        council.join(", ")
    )
}

#[test]
fn toml_errors_name_line_and_field() {
    let council = council();
    let good = toml_source(&keys(&council), &"07".repeat(32));
    let directory = Directory::from_toml(&good).unwrap();
    assert_eq!(directory.expires, datetime!(2099-03-01 0:00 UTC));
    assert_eq!(Directory::parse_text(&directory.to_text()).unwrap(), directory);
    for (from, to, expected) in [
        ("threshold = 2", "threshold = 4", "directory.toml:4: threshold: 4 of 3"),
        ("threshold = 2", "treshold = 2", "directory.toml:4: unknown field `treshold`"),
        ("version = 1", "version = -1", "directory.toml:2: "),
        ("expires = 2099-03-01T06:00:00+06:00", "expires = 2099-03-01", "directory.toml:3: expires: "),
        ("id = \"KG/GOV/70000005\"", "id = \"KG/GOV\"", "directory.toml:8: id: \"KG/GOV\" is not a member"),
        ("ru = \"ЗАГС\"", "ru = \" ЗАГС\"", "directory.toml:10: ru: "),
        (
            "member = \"KG/GOV/70000005\"",
            "member = \"KG/GOV/7\"",
            "directory.toml:14: member: KG/GOV/7 is not a listed member",
        ),
        (":7444", "", "directory.toml:16: endpoint: \"gw.civil.kg\" is not host:port"),
        ("log_key = \"gw", "log_key = \"gv", "directory.toml:17: log_key: the key id of gv"),
        (
            "provider = \"KG/GOV/70000005/civil-registry\"",
            "provider = \"KG/GOV/70000005/tax\"",
            "directory.toml:24: provider: ",
        ),
        ("descriptors = \"07", "descriptors = \"", "directory.toml:25: descriptors: "),
        ("code = \"NK-54-2\"", "code = \"NK 54\"", "directory.toml:28: code: \"NK 54\" is not a code"),
        ("law = \"Tax", "law = \" Tax", "directory.toml:29: law: "),
        ("ru = \"Проверка налогоплательщика\"\n", "", "directory.toml:27: missing field `ru`"),
        ("name = \"main\"\n", "", "directory.toml:13: missing field `name`"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = Directory::from_toml(&bad).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} should be {expected}");
    }
}

#[test]
fn enough_of_the_council_must_sign() {
    let council = council();
    let [a, b, c] = &council;
    let stranger = Signer::generate("stranger").unwrap();
    let directory = directory(5, &[a, b, c], 2);
    let verify = |note: &str, now, min_version| SignedDirectory::verify(note, &keys(&council), 2, now, min_version);

    assert_eq!(verify(&signed(&directory, &[a, c]), NOW, 5).unwrap().directory, directory);
    assert!(verify(&signed(&directory, &[a, b, c, &stranger]), NOW, 1).is_ok());
    assert!(matches!(
        verify(&signed(&directory, &[a]), NOW, 1),
        Err(DirectoryError::Threshold { signed: 1, threshold: 2, council: 3 })
    ));
    assert!(matches!(
        verify(&signed(&directory, &[&stranger]), NOW, 1),
        Err(DirectoryError::Threshold { signed: 0, .. })
    ));
    // One signature twice is one signature.
    let once = signed(&directory, &[a]);
    let twice = format!("{once}{}\n", once.lines().last().unwrap());
    assert!(matches!(verify(&twice, NOW, 1), Err(DirectoryError::Threshold { signed: 1, .. })));
    // One false signature of the council spoils the note, however many good ones there are.
    let other = signed(&self::directory(6, &[a, b, c], 2), &[c]);
    let spoilt = format!("{}{}\n", signed(&directory, &[a, b]), other.lines().last().unwrap());
    assert!(
        matches!(verify(&spoilt, NOW, 1), Err(DirectoryError::Note(NoteError::BadSignature(name))) if name == "ministry")
    );

    let note = signed(&directory, &[a, b]);
    assert!(matches!(verify(&note, NOW, 6), Err(DirectoryError::Older { version: 5, in_force: 6 })));
    assert!(verify(&note, directory.expires - Span::SECOND, 1).is_ok());
    assert!(matches!(verify(&note, directory.expires, 1), Err(DirectoryError::Expired { version: 5, .. })));
    assert!(SignedDirectory::verify(&note, &keys(&council), 0, NOW, 1).is_err());
    assert!(SignedDirectory::verify(&note, &[a.verifier(), a.verifier()], 2, NOW, 1).is_err());
}

/// A descriptor set with one service without methods.
fn descriptor_set() -> Vec<u8> {
    use prost::Message;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
    let service = ServiceDescriptorProto { name: Some("CivilRegistry".into()), ..Default::default() };
    let file = FileDescriptorProto {
        name: Some("civil.proto".into()),
        package: Some("kg.civil.v1".into()),
        syntax: Some("proto3".into()),
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

#[test]
fn the_command_line_of_a_council() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let vkeys: Vec<Verifier> = ["one", "two", "three"]
        .map(|name| {
            let key = format!("{name}.key");
            succeed(at, &["directory", "keygen", "--name", name, "--out", &key]).trim().parse().unwrap()
        })
        .into();
    assert!(!kopuro(at, &["directory", "keygen", "--name", "one", "--out", "one.key"]).status.success());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(at.join("one.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let source = toml_source(&vkeys, "civil.binpb");
    std::fs::write(at.join("directory.toml"), &source).unwrap();
    std::fs::create_dir(at.join("public")).unwrap();
    let sign = |keys: &[&str], out: &str, more: &[&str]| -> Vec<String> {
        let mut arguments = vec!["directory", "sign", "--source", "directory.toml", "--out", out];
        keys.iter().for_each(|key| arguments.extend(["--key", key]));
        arguments.extend(more);
        arguments.into_iter().map(String::from).collect()
    };
    let run = |arguments: &[String]| succeed(at, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let refuse = |arguments: &[String]| fail(at, &arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let first = sign(&["one.key"], "public/directory", &[]);
    assert!(refuse(&first).contains("directory.toml:25: descriptors: civil.binpb: No such file"));
    std::fs::write(at.join("civil.binpb"), b"\x0a\x03\x0a\x01a").unwrap();
    assert!(refuse(&first).contains("has no service kg.civil.v1.CivilRegistry"));
    std::fs::write(at.join("civil.binpb"), descriptor_set()).unwrap();
    assert!(run(&first).contains("1 of 3, 1 more needed"));

    let council: Vec<String> = vkeys.iter().flat_map(|key| ["--council".into(), key.to_string()]).collect();
    let verify: Vec<String> =
        ["directory", "verify", "public/directory", "--threshold", "2", "--descriptors", "public"]
            .into_iter()
            .map(String::from)
            .chain(council)
            .collect();
    assert!(refuse(&verify).contains("signed by 1 of the 3"));
    assert!(run(&sign(&["three.key"], "public/directory", &[])).contains("2 of 3, enough"));
    assert!(run(&verify).starts_with("good: version 1 of KG, signed by 2 of 3 (2 needed), expires 2099-03-01"));

    // The next version: raised, signed by the council in force; a stranger's key is turned away.
    succeed(at, &["directory", "keygen", "--name", "stranger", "--out", "stranger.key"]);
    assert!(refuse(&sign(&["stranger.key"], "public/directory", &[])).contains("not a key of the council"));
    std::fs::write(at.join("directory.toml"), source.replace(":7444", ":8444")).unwrap();
    assert!(refuse(&sign(&["one.key"], "public/directory", &[])).contains("with another text"));
    let next = source.replace(":7444", ":8444").replace("version = 1", "version = 2");
    std::fs::write(at.join("directory.toml"), next).unwrap();
    let previous = ["--previous", "public/directory"];
    assert!(run(&sign(&["one.key", "two.key"], "next", &previous)).contains("2 of 3, enough"));
    succeed(at, &["directory", "verify", "next", "--previous", "public/directory"]);
    let back = fail(at, &["directory", "verify", "public/directory", "--previous", "next"]);
    assert!(back.contains("older than version 3"), "{back}");

    let diff = kopuro(at, &["directory", "diff", "public/directory", "next"]);
    let lines = String::from_utf8(diff.stdout).unwrap();
    assert_eq!(diff.status.code(), Some(1));
    let changes: Vec<&str> = lines.lines().collect();
    assert_eq!((changes[0], changes[2], changes.len()), ("- version 1", "+ version 2", 4));
    assert!(changes[1].starts_with("- node") && changes[3].contains(":8444"), "{lines}");
    succeed(at, &["directory", "diff", "next", "next"]);

    let shown = succeed(at, &["directory", "show", "next"]);
    for expected in
        ["federation KG, version 2", "2 of 3 sign the next version", "Жарандык абал", "main at gw.civil.kg:8444"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}
