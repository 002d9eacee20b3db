//! A node's configuration: real files, the real binary, and every mistake told with its place and its remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kopuro::config::{self, Change, Loaded, NodeConfig, Severity};
use kopuro::policy::{Denial, Publication};
use kopuro::schema;
use kopuro::trust::directory::{Directory, Member, Node, Service, SignedDirectory, System};
use kopuro::trust::identity::{Identity, MemberId};
use kopuro::trust::note::Signer;
use kopuro::trust::pki::{Authority, Sans, Validity};
use time::{Duration as Span, OffsetDateTime};

const CIVIL: &str = "KG/GOV/70000005";
const TAX: &str = "KG/GOV/70000006";
const SERVICE: &str = "kg.civil.v1.CivilRegistry";

const NODE: &str = r#"[node]
member = "KG/GOV/70000005"

[tls]
certificate = "node.pem"
key = "node.key"
roots = ["root.pem"]
crls = ["civil.crl"]

[directory]
mirrors = ["directory.note"]
council = ["COUNCIL"]
threshold = 1

[log]
warn_free = "2B"
refuse_free = "1B"

[backends.civil-registry]
endpoint = "https://127.0.0.1:9001"
"#;

pub(crate) const GRANT: &str = r#"[[grant]]
consumer = "KG/GOV/70000006/tax-service"
provider = "civil-registry"
service = "kg.civil.v1.CivilRegistry"
methods = ["GetPerson"]
legal_basis = { code = "NK-54-2", text = "Tax Code, article 54, part 2" }
"#;

const OUTBOUND: &str = r#"[[allow]]
system = "civil-registry"
provider = "*"
service = "kg.civil.v1.CivilRegistry"
methods = ["GetPerson"]
"#;

/// A folder with everything that the node of the civil registry needs.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    civil_ca: Authority,
    council: Signer,
    pub(crate) directory: Directory,
    now: OffsetDateTime,
}

impl Site {
    pub(crate) fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root("KG", now).unwrap();
        let mut civil_ca = root.issue_member_ca(&member(CIVIL), now).unwrap();
        let tax_ca = root.issue_member_ca(&member(TAX), now).unwrap();
        let crls = [&mut root, &mut civil_ca, &mut { tax_ca }].map(|ca| ca.crl(now, now + Span::days(7)).unwrap());
        let log_key = Signer::generate("civil.kg/log").unwrap();
        let set = schema::extract(kopuro::proto::DESCRIPTORS, &[SERVICE]).unwrap();
        let council = Signer::generate("council-1").unwrap();

        let site = Self {
            directory: directory(now, &council, &log_key, schema::digest(&set)),
            folder: tempfile::tempdir().unwrap(),
            civil_ca,
            council,
            now,
        };
        site.write("node.toml", &NODE.replace("COUNCIL", &site.council.verifier().to_string()));
        site.write("root.pem", root.certificate_pem());
        site.write("civil.crl", &crls.concat());
        site.write_secret("log.key", &log_key.to_encoded());
        fs::create_dir(site.path("descriptors")).unwrap();
        fs::write(site.path(&format!("descriptors/{}.binpb", hex::encode(schema::digest(&set)))), set).unwrap();
        fs::create_dir(site.path("grants")).unwrap();
        site.write("grants/tax.toml", GRANT);
        site.write("outbound.toml", OUTBOUND);
        let mut site = site;
        site.issue_node("main", Validity::days(now, 90));
        site
    }

    fn issue_node(&mut self, name: &str, validity: Validity) {
        let identity: Identity = format!("{CIVIL}/_node/{name}").parse().unwrap();
        let issued = self.civil_ca.issue(&identity, &Sans::default(), validity).unwrap();
        self.write("node.pem", &issued.cert_pem);
        self.write_secret("node.key", &issued.key_pem);
    }

    pub(crate) fn sign_directory(&self) {
        self.write("directory.note", &self.council.sign(&self.directory.to_text()).unwrap());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn write_secret(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        self.write(name, &text.replacen(from, to, 1));
    }

    fn config(&self) -> NodeConfig {
        config::load(&self.path("node.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What the node would load with this directory in force.
    pub(crate) fn load(&self) -> Result<Loaded, String> {
        self.reload(None)
    }

    pub(crate) fn reload(&self, previous: Option<&Loaded>) -> Result<Loaded, String> {
        let signed = SignedDirectory { note: String::new(), directory: self.directory.clone() };
        config::recheck(&self.config(), &signed, previous).map_err(|error| error.to_string())
    }

    /// The problems, without the folder's name.
    pub(crate) fn problems(&self) -> String {
        let text = match self.load() {
            Ok(loaded) => loaded.warnings.iter().map(|warning| format!("{warning}\n")).collect(),
            Err(problems) => problems,
        };
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    pub(crate) fn check(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["node", "--check", "--config"])
            .arg(self.path("node.toml"))
            .env_clear()
            .output()
            .unwrap()
    }
}

fn member(text: &str) -> MemberId {
    text.parse().unwrap()
}

fn directory(now: OffsetDateTime, council: &Signer, log_key: &Signer, descriptors: [u8; 32]) -> Directory {
    let listed = |id: &str, ky: &str, ru: &str, en: &str| Member {
        id: member(id),
        name_ky: ky.into(),
        name_ru: ru.into(),
        name_en: en.into(),
    };
    let provider = member(CIVIL).system("civil-registry").unwrap();
    Directory {
        federation: "KG".into(),
        version: 3,
        expires: (now + Span::days(30)).replace_nanosecond(0).unwrap(),
        threshold: 1,
        council: vec![council.verifier()],
        members: vec![
            listed(CIVIL, "Мамлекеттик каттоо кызматы", "Служба регистрации", "State Registration Service"),
            listed(TAX, "Салык кызматы", "Налоговая служба", "State Tax Service"),
        ],
        nodes: vec![Node {
            member: member(CIVIL),
            name: "main".into(),
            endpoint: "127.0.0.1:7444".into(),
            log_key: log_key.verifier(),
            more_log_keys: Vec::new(),
        }],
        systems: vec![System { id: provider.clone() }, System { id: member(TAX).system("tax-service").unwrap() }],
        services: vec![Service { name: SERVICE.into(), provider, descriptors }],
        auditors: vec![],
        purposes: vec![],
    }
}

fn assert_told(told: &str, expected: &[&str]) {
    for part in expected {
        assert!(told.contains(part), "not told: {part}\ntold:\n{told}");
    }
}

#[test]
fn the_examples_load() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let config = config::load(&deploy.join("node.example.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.identity().to_string(), "KG/GOV/70000005/_node/main");
    assert_eq!(config.tls.certificate, deploy.join("node.pem"));
    assert_eq!(config.backends["civil-registry"].endpoint.to_string(), "https://127.0.0.1:9001");

    let folder = tempfile::tempdir().unwrap();
    fs::copy(deploy.join("grants.example.toml"), folder.path().join("grants.toml")).unwrap();
    let grants = config::load_grants(folder.path(), &member(CIVIL)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(grants.len(), 4);
    assert_eq!(grants[3].provider.as_str(), "KG/GOV/70000005/node", "the node itself");
    assert_eq!(grants[1].publication, Some(Publication::Delayed { days: 90 }));
    // 2028-12-31 is the last day: the grant ends as 2029 begins.
    assert_eq!(grants[0].until_unix_ms, Some(1_861_920_000_000));
    assert_eq!(grants[2].from_unix_ms, Some(1_772_301_600_000));

    let rules = config::load_outbound(&deploy.join("outbound.example.toml"), &member(CIVIL));
    assert_eq!(rules.unwrap_or_else(|error| panic!("{error}")).len(), 1);
}

/// What is commented out in the example is the default: with all of it in force, nothing changes.
#[test]
fn the_example_shows_the_defaults() {
    let (text, with_defaults) = example("node.example.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        let config = config::load(&path).unwrap_or_else(|error| panic!("{error}\n{text}"));
        format!("{config:#?}")
    };
    assert!(with_defaults.contains("\nstream_idle = \"5m\""), "{with_defaults}");
    assert_eq!(load(&text), load(&with_defaults));
}

/// A witness's example likewise.
#[test]
fn the_witness_s_example_shows_the_defaults() {
    let (text, with_defaults) = example("witness.example.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("witness.toml");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        let config = config::load_witness(&path).unwrap_or_else(|error| panic!("{error}\n{text}"));
        format!("{config:#?}")
    };
    assert!(with_defaults.contains("\nburst = 100"), "{with_defaults}");
    assert_eq!(load(&text), load(&with_defaults));
    let log = config::load_witness(&path).unwrap().logs[0].parse::<kopuro::trust::note::Verifier>();
    assert_eq!(log.unwrap().name(), "gw.civil.example/log");
}

/// An example's text, and the same with all defaults in force.
fn example(name: &str) -> (String, String) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap();
    let with_defaults = text
        .lines()
        .filter(|line| !line.contains("none by default"))
        .map(|line| {
            let setting =
                line.strip_prefix("# ").filter(|rest| rest.split_once(" = ").is_some_and(|(name, _)| is_name(name)));
            format!("{}\n", setting.unwrap_or(line))
        })
        .collect();
    (text, with_defaults)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn where_the_sealing_key_comes_from_and_how_long_things_are_kept() {
    use kopuro::log::sealing_key::{SealingKeySource, SecretSource, TokenKey};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let load = |more: &str| {
        fs::write(&path, format!("{NODE}{more}")).unwrap();
        config::load(&path)
    };
    let file = |path: &str| SealingKeySource::Secret(SecretSource::File(folder.path().join(path)));
    let token = TokenKey {
        module: "/usr/lib/softhsm/libsofthsm2.so".into(),
        token: "kopuro".into(),
        key: "seal".into(),
        pin: SecretSource::File(folder.path().join("pin")),
    };
    for (key, expected) in [
        ("", file("data/seal.key")),
        ("key = { file = \"keys/seal\" }", file("keys/seal")),
        ("key = { credential = \"seal\" }", SealingKeySource::Secret(SecretSource::Credential("seal".into()))),
        ("key = { environment = \"SEAL\" }", SealingKeySource::Secret(SecretSource::Environment("SEAL".into()))),
        (
            "key = { pkcs11 = { module = \"/usr/lib/softhsm/libsofthsm2.so\", token = \"kopuro\", key = \"seal\", \
             pin = { file = \"pin\" } } }",
            SealingKeySource::Token(token),
        ),
    ] {
        assert_eq!(load(&format!("[private]\n{key}\n")).unwrap().sealing_key(), expected);
    }
    for wrong in ["{ file = \"a\", credential = \"b\" }", "{ vault = \"a\" }", "\"a\""] {
        let error = load(&format!("[private]\nkey = {wrong}\n")).unwrap_err().to_string();
        assert!(error.contains("private.key"), "{error}");
    }
    assert!(load("").unwrap().log_retention().is_idle());
    let kept = load("[retention]\nprivate_values = \"1825d\"\nlegal_basis = \"law-9\"\nentries_size = \"1GiB\"\n");
    let kept = kept.unwrap().log_retention();
    assert_eq!(kept.private_values, Some(Duration::from_secs(1_825 * 86_400)));
    assert_eq!((kept.entries, kept.entries_size, kept.legal_basis.as_str()), (None, Some(1 << 30), "law-9"));
    assert!(load("[retention]\nentries = \"0d\"\n").unwrap_err().to_string().contains("longer than zero"));
}

#[test]
fn a_term_needs_the_law_that_sets_it() {
    let site = Site::new();
    let text = fs::read_to_string(site.path("node.toml")).unwrap();
    site.write("node.toml", &format!("{text}[retention]\nprivate_values = \"30d\"\n"));
    let output = site.check();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_told(&told, &["retention.private_values: erases by a term", "add retention.legal_basis"]);
}

#[test]
fn mistakes_in_node_toml_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let cases = [
        (
            "member = \"KG/GOV/70000005\"",
            "member = \"KG/GOV\"",
            "node.toml:2:10: node.member: \"KG/GOV\" is not a member",
        ),
        ("threshold = 1", "treshold = 1", "node.toml:13:1: directory.treshold: unknown field `treshold`"),
        ("threshold = 1", "", "directory: missing field `threshold`; add it"),
        (
            "key = \"node.key\"",
            "key = 7",
            "node.toml:6:7: tls.key: invalid type: integer `7`, expected a file's path, or",
        ),
        ("https://127.0.0.1:9001", "http://10.0.0.1:9001", "http:// is only for a loopback address"),
        (
            "https://127.0.0.1:9001",
            "127.0.0.1:9001",
            "backends.civil-registry.endpoint: \"127.0.0.1:9001\" is not an endpoint",
        ),
        ("\"2B\"", "\"2 gigabytes\"", "node.toml:16:13: log.warn_free: \"2 gigabytes\" is not a size"),
        ("[log]", "[limits]\nin_flight = 0\n[log]", "limits.in_flight: invalid value: integer `0`"),
        ("[log]", "[limits]\nunary_timeout = \"0s\"\n[log]", "limits.unary_timeout: must be longer than zero"),
        ("[log]", "[log", "node.toml:15:5: "),
    ];
    for (from, to, expected) in cases {
        fs::write(&path, NODE.replacen(from, to, 1)).unwrap();
        let told = config::load(&path).expect_err(to).to_string();
        assert_told(&told, &[expected]);
    }
    assert_told(
        &config::load(&folder.path().join("none.toml")).unwrap_err().to_string(),
        &["none.toml: cannot be read"],
    );
}

#[test]
fn mistakes_about_a_collector_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let told = |table: &str| {
        fs::write(&path, format!("{NODE}[telemetry.otlp]\n{table}")).unwrap();
        let config = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        config.otlp().map(drop).map_err(|error| error.to_string())
    };
    for good in ["http://127.0.0.1:4317", "http://[::1]:4317/", "https://collector.example:4317"] {
        assert_eq!(told(&format!("endpoint = \"{good}\"\n")), Ok(()));
    }
    assert_eq!(told("endpoint = \"http://10.0.0.1:4317\"\ninsecure = true\n"), Ok(()));
    let clear = told("endpoint = \"http://10.0.0.1:4317\"\n").unwrap_err();
    assert_told(&clear, &["node.toml:22:12: telemetry.otlp.endpoint: ", "in the clear, and insecure is not set"]);
    for bad in ["collector:4317", "https://collector", "https://collector:4317/v1/traces", "ftp://127.0.0.1:4317"] {
        let error = told(&format!("endpoint = \"{bad}\"\n")).unwrap_err();
        assert_told(&error, &["is no address of a collector; write https://host:4317"]);
    }
    let headers = folder.path().join("headers");
    let with_headers = |text: &str, mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(&headers, text).unwrap();
        fs::set_permissions(&headers, fs::Permissions::from_mode(mode)).unwrap();
        told("endpoint = \"http://127.0.0.1:4317\"\nheaders = { file = \"headers\" }\n")
    };
    assert_eq!(with_headers("authorization: Bearer s3cret\n\nx-scope: kg\n", 0o600), Ok(()));
    let wrong = with_headers("authorization: Bearer s3cret\ns3cret\n", 0o600).unwrap_err();
    assert_told(&wrong, &["telemetry.otlp.headers: line 2 is no header"]);
    assert!(!wrong.contains("s3cret"), "{wrong}");
    assert_told(&with_headers("authorization: x\n", 0o644).unwrap_err(), &["telemetry.otlp.headers", "chmod 600"]);
    let rest = "sample = 1.5\ntraces = false\nmetrics = false\nroots = \"none.pem\"\n";
    let several = told(&format!("endpoint = \"http://127.0.0.1:4317\"\n{rest}")).unwrap_err();
    assert_told(
        &several,
        &["sample: 1.5 is no part", "neither traces nor metrics", "telemetry.otlp.roots: ", "none.pem"],
    );
}

#[test]
fn endpoints() {
    let endpoint = |text: &str| text.parse::<config::Endpoint>();
    let v6 = endpoint("https://[::1]:9001").unwrap();
    assert_eq!((v6.host.as_str(), v6.port, v6.tls), ("::1", 9001, true));
    assert_eq!(v6.to_string(), "https://[::1]:9001");
    assert!(!endpoint("http://127.0.0.1:9001").unwrap().tls);
    assert!(!endpoint("http://[::1]:9001/").unwrap().tls);
    for bad in [
        "",
        "https://host",
        "https://host:0",
        "https://u@host:1",
        "https://host:1/x",
        "http://localhost:1",
        "ftp://host:1",
    ] {
        assert!(endpoint(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_mistake_in_grants_is_told_at_once() {
    let site = Site::new();
    site.write(
        "grants/bad.toml",
        r#"[[grant]]
consumer = "KG/GOV"
provider = "KG/GOV/70000006/tax-service"
service = "kg civil"
methods = ["GetPerson", "*"]
legal_basis = { code = "tax code", text = "x" }
from = "2026-13-01"
publication = "secret"

[[grant]]
consumer = "KG/GOV/70000006"
provider = "civil-registry"
service = "kg.civil.v1.CivilRegistry"
methods = []
legal_basis = { code = "a", text = " " }
from = "2027-01-01"
until = 2026-01-01
"#,
    );
    site.write("grants/unknown.toml", "[[grant]]\nconsumers = \"KG/GOV/1\"\n");
    assert_told(
        &site.problems(),
        &[
            "grants/bad.toml:2:12: grant[0].consumer: \"KG/GOV\" is not a system",
            "grants/bad.toml:3:12: grant[0].provider: KG/GOV/70000006/tax-service is not a system of KG/GOV/70000005; name a system of this member",
            "grants/bad.toml:4:11: grant[0].service: \"kg civil\" is not a service; write its full name",
            "grants/bad.toml:5:25: grant[0].methods[1]: \"*\" is not a method",
            "grants/bad.toml:6:24: grant[0].legal_basis.code: \"tax code\" is not a code",
            "grants/bad.toml:7:8: grant[0].from: \"2026-13-01\" is no date",
            "grants/bad.toml:8:15: grant[0].publication: \"secret\" is not a publication class",
            "grants/bad.toml:14:11: grant[1].methods: names no method",
            "grants/bad.toml:15:36: grant[1].legal_basis.text: is empty",
            "grants/bad.toml:17:9: grant[1].until: ends before it begins",
            "grants/unknown.toml:2:1: grant[0].consumers: unknown field `consumers`",
        ],
    );
}

#[test]
fn a_good_site_loads_without_a_word() {
    let site = Site::new();
    let loaded = site.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.grants.len(), loaded.outbound.iter().count(), loaded.backends.len()), (1, 1, 1));
    assert!(loaded.catalogue.method(SERVICE, "GetPerson").is_some());
}

#[test]
fn a_log_key_is_changed_by_way_of_both() {
    let mut site = Site::new();
    let old = site.directory.nodes[0].log_key.clone();
    let next = Signer::generate("civil.kg/log").unwrap();
    let old_text = fs::read_to_string(site.path("log.key")).unwrap();
    let signs_by = |site: &Site| site.load().unwrap().log_signers.verifiers();

    site.write_secret("log.key.next", &Signer::generate("else.kg/log").unwrap().to_encoded());
    assert_told(&site.problems(), &["log.next_key: ", "has a key of else.kg/log, and the log is civil.kg/log"]);
    site.write_secret("log.key.next", "no key");
    assert_told(&site.problems(), &["log.next_key: log.key.next: not a signing key"]);

    // Both sign, and the directory has the old one.
    site.write_secret("log.key.next", &next.to_encoded());
    assert_eq!(signs_by(&site), [old.clone(), next.verifier()]);
    assert_told(
        &site.problems(),
        &["notice: log.next_key: ", "does not list civil.kg/log+", "have the council list it"],
    );
    // Then both, then the new one.
    site.directory.nodes[0].more_log_keys = vec![next.verifier()];
    assert_eq!(site.problems(), "");
    site.directory.nodes[0].log_key = next.verifier();
    site.directory.nodes[0].more_log_keys = Vec::new();
    assert_told(&site.problems(), &["notice: log.key: ", "put the listed one, next_key's, in its place"]);
    site.directory.nodes[0].more_log_keys = vec![old];
    fs::rename(site.path("log.key.next"), site.path("log.key")).unwrap();
    assert_eq!(site.problems(), "");
    assert_eq!(signs_by(&site), [next.verifier()]);
    assert_eq!(site.load().unwrap().listed_log_keys.len(), 2);

    // A directory that has neither is not taken.
    site.directory.nodes[0].more_log_keys = Vec::new();
    site.write("log.key", &old_text);
    assert_told(
        &site.problems(),
        &["log.key: its public key is civil.kg/log+", " and directory version 3 has civil.kg/log+"],
    );
    // Another place for the next one.
    site.edit("node.toml", "[log]\n", "[log]\nnext_key = \"new/log.key\"\n");
    fs::create_dir(site.path("new")).unwrap();
    site.write_secret("new/log.key", &next.to_encoded());
    assert_told(&site.problems(), &["notice: log.key: "]);
}

#[test]
fn all_problems_of_a_site_are_told_at_once() {
    let mut site = Site::new();
    site.issue_node("other", Validity::days(site.now, 90));
    site.write_secret("log.key", &Signer::generate("civil.kg/log").unwrap().to_encoded());
    site.edit("grants/tax.toml", "tax-service", "tax-servise");
    site.edit("outbound.toml", "GetPerson", "GetPersona");
    site.edit("node.toml", "[backends.civil-registry]", "[backends.registry]");
    fs::remove_dir_all(site.path("descriptors")).unwrap();
    assert_told(
        &site.problems(),
        &[
            "node.toml:5:15: tls.certificate: speaks for KG/GOV/70000005/_node/other, and this node is KG/GOV/70000005/_node/main",
            "node.toml:15:1: log.key: its public key is civil.kg/log+",
            "grants/tax.toml:2:12: mismatch: grant[0].consumer: the directory does not list the system KG/GOV/70000006/tax-servise",
            "mismatch: directory.descriptors: kg.civil.v1.CivilRegistry of KG/GOV/70000005/civil-registry: no descriptor set",
            "mismatch: backends: the directory lists services of KG/GOV/70000005/civil-registry, and there is no back-end",
            "node.toml:19:1: mismatch: backends.registry: the directory lists no service of KG/GOV/70000005/registry",
        ],
    );
}

#[test]
fn mismatches_do_not_stop_a_node() {
    let site = Site::new();
    site.edit("grants/tax.toml", "GetPerson", "GetPersona");
    site.edit("outbound.toml", "\"*\"", "\"KG/GOV/70000009\"");
    let loaded = site.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Mismatch));
    assert_told(
        &site.problems(),
        &[
            "grants/tax.toml:5:11: mismatch: grant[0].methods: kg.civil.v1.CivilRegistry has no method GetPersona",
            "outbound.toml:3:12: mismatch: allow[0].provider: the directory does not list the member KG/GOV/70000009",
        ],
    );
}

#[test]
fn certificates_that_do_not_hold_are_told() {
    let mut site = Site::new();
    let past = Validity { not_before: site.now - Span::days(20), not_after: site.now - Span::days(1) };
    site.issue_node("main", past);
    assert_told(&site.problems(), &["tls.certificate: does not hold under tls.roots and tls.crls", "expired"]);

    let soon = Validity { not_before: site.now - Span::days(87), not_after: site.now + Span::hours(71) };
    site.issue_node("main", soon);
    site.sign_directory();
    let output = site.check();
    assert!(output.status.success(), "{output:?}");
    assert_told(
        &String::from_utf8_lossy(&output.stderr),
        &["notice: the certificate ", "node.pem ends in 2 days, at "],
    );

    let key = fs::read_to_string(site.path("node.key")).unwrap();
    site.issue_node("main", Validity::days(site.now, 90));
    site.write_secret("node.key", &key);
    assert_told(&site.problems(), &["tls.key: the private key", "does not belong to the certificate"]);

    fs::remove_file(site.path("node.key")).unwrap();
    assert_told(&site.problems(), &["node.toml:6:7: tls.key: ", "node.key"]);

    site.issue_node("main", Validity::days(site.now, 90));
    let late = site.civil_ca.crl(site.now - Span::days(9), site.now - Span::days(2)).unwrap();
    site.write("civil.crl", &late);
    assert_told(&site.problems(), &["tls.certificate: does not hold", "tls.crls: the CRL of"]);
}

#[test]
fn a_reload_keeps_what_rate_limits_have_counted() {
    let site = Site::new();
    site.edit("grants/tax.toml", "legal_basis", "rate = { per_second = 1, burst = 2 }\nlegal_basis");
    let decide = |loaded: &Loaded| {
        let (consumer, provider) = (member(TAX).system("tax-service"), member(CIVIL).system("civil-registry"));
        loaded.grants.decide(&consumer.unwrap(), &provider.unwrap(), SERVICE, "GetPerson", None, 0).map(|_| ())
    };
    let first = site.load().unwrap();
    assert_eq!((decide(&first), decide(&first)), (Ok(()), Ok(())));
    site.write("grants/more.toml", &GRANT.replace("GetPerson", "GetResidence"));
    let second = site.reload(Some(&first)).unwrap();
    assert_eq!(second.grants.len(), 2);
    assert!(matches!(decide(&second), Err(Denial::RateLimited { .. })));
}

#[tokio::test]
async fn changes_and_hangups_are_told() {
    let site = Site::new();
    let mut watch = config::watch(&site.config()).unwrap();
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("a change is told");

    site.write("grants/more.toml", "");
    assert_eq!(next().await, Change::Files);
    // As editors and Kubernetes do it: a new file in the place of the old one.
    site.write("civil.crl.new", "");
    fs::rename(site.path("civil.crl.new"), site.path("civil.crl")).unwrap();
    assert_eq!(next().await, Change::Files);
    // A folder that was put in the place of another is watched again.
    fs::rename(site.path("grants"), site.path("grants.old")).unwrap();
    fs::create_dir(site.path("grants")).unwrap();
    assert_eq!(next().await, Change::Files);
    site.write("grants/tax.toml", GRANT);
    assert_eq!(next().await, Change::Files);

    let own = std::process::id().to_string();
    assert!(Command::new("kill").args(["-HUP", &own]).status().unwrap().success());
    // A straggler of the changes above may come first.
    while next().await != Change::Hangup {}
}

#[test]
fn the_binary_checks_a_good_site() {
    let site = Site::new();
    site.sign_directory();
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_told(
        &said,
        &["ok: KG/GOV/70000005/_node/main; directory KG version 3 (until ", "1 grant, 1 outbound rule, 1 back-end"],
    );
}

#[test]
fn the_binary_tells_all_problems_and_exits_64() {
    let site = Site::new();
    site.sign_directory();
    site.edit("node.toml", "[tls]", "[listen]\nsystems = \"127.0.0.1:7444\"\nadmin = \"0.0.0.0:7445\"\n[tls]");
    site.edit("grants/tax.toml", "tax-service", "tax-servise");
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert_told(
        &told,
        &[
            "listen.nodes: 0.0.0.0:7444 is also listen.systems's; give each listener its own port",
            "listen.admin: 0.0.0.0:7445 is reached from other machines",
            "grant[0].consumer: the directory does not list the system",
            "kopuro: the configuration has 3 problems",
        ],
    );
}

#[test]
fn the_binary_refuses_a_directory_that_the_council_has_not_signed() {
    let site = Site::new();
    site.sign_directory();
    let stranger = Signer::generate("council-1").unwrap();
    site.edit("node.toml", &site.council.verifier().to_string(), &stranger.verifier().to_string());
    let output = site.check();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert_told(&told, &["node.toml:11:11: directory.mirrors: "]);
}

#[test]
fn the_binary_fails_its_check_on_mismatches() {
    let site = Site::new();
    site.sign_directory();
    site.edit("node.toml", "[backends.civil-registry]", "[backends.registry]");
    let output = site.check();
    assert_eq!(output.status.code(), Some(64));
    assert_told(
        &String::from_utf8_lossy(&output.stderr),
        &["[backends.civil-registry]", "kopuro: the configuration has 2 problems"],
    );
}

#[test]
fn a_witness_policy_is_checked() {
    use kopuro::trust::note::Cosigner;
    let mut site = Site::new();
    let base = fs::read_to_string(site.path("node.toml")).unwrap();
    assert!(site.config().witness.is_none());
    site.write("node.toml", &format!("{base}\n[witness]\npolicy = \"witnesses.policy\"\n"));
    let witness = site.config().witness.unwrap();
    assert_eq!((witness.timeout, witness.grace), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!(witness.policy, site.path("witnesses.policy"));
    assert_told(&site.problems(), &["witness.policy: ", "No such file"]);

    let key = Cosigner::generate("w.example/1").unwrap().verifier();
    let log = site.directory.nodes[0].log_key.clone();
    for (policy, told) in [
        (format!("witness w {key} http://127.0.0.1:1\nquorum x\n"), "line 2: no witness or group x"),
        (format!("witness w {key}\nquorum w\n"), "it can never be met"),
        (
            format!(
                "log {}\nwitness w {key} http://127.0.0.1:1\nquorum w\n",
                Signer::generate("x").unwrap().verifier()
            ),
            "lists other logs, and not this node's",
        ),
    ] {
        site.write("witnesses.policy", &policy);
        assert_told(&site.problems(), &["node.toml:", "witness.policy: ", told]);
    }
    for policy in [
        format!("witness w {key} http://127.0.0.1:1\nquorum w\n"),
        format!("log {log}\nwitness w {key} https://w.example/kg\nquorum w\n"),
        format!("witness w {key}\nquorum none\n"),
    ] {
        site.write("witnesses.policy", &policy);
        assert_eq!(site.problems(), "");
    }
    // A witness's key is no log's, nor a council's.
    site.directory.nodes[0].log_key = key.clone();
    assert!(Directory::parse_text(&site.directory.to_text()).is_err());
    site.directory.nodes[0].log_key = log;
    site.directory.council = vec![key];
    assert!(Directory::parse_text(&site.directory.to_text()).is_err());
}
