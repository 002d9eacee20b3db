//! A new member joins a federation that runs, with the commands of docs/operate.md and nothing else: from an empty folder to its
//! first exchange.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::demo::StandingDemo;
use crate::harness::free_port;

const KOPURO: &str = env!("CARGO_BIN_EXE_kopuro");
const JUSTICE: &str = "KG/GOV/70000008";

/// For a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(KOPURO).current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kopuro {}\n{stdout}{stderr}", arguments.join(" "));
    stdout.into_owned()
}

fn bad(folder: &Path, arguments: &[&str], expected: &str) {
    let output = run(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(expected), "kopuro {}\n{stderr}", arguments.join(" "));
}

/// Ends however the test does.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn init<'a>(endpoint: &'a str, council: &'a [String]) -> Vec<&'a str> {
    let mut arguments = vec![
        "node",
        "init",
        "--out",
        "justice",
        "--member",
        JUSTICE,
        "--ky",
        "Юстиция министрлиги",
        "--ru",
        "Министерство юстиции",
        "--en",
        "Ministry of Justice",
        "--endpoint",
        endpoint,
        "--origin",
        "justice.log.example/70000008",
        "--system",
        "notary",
        "--dns",
        "localhost",
        "--roots",
        "demo/root.pem",
        "--mirror",
        "../demo/directory/directory.note",
    ];
    for key in council {
        arguments.extend(["--council", key]);
    }
    arguments
}

#[test]
fn a_new_member_joins_a_running_federation_by_commands_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let demo = StandingDemo::start(&folder.join("demo"), 40);
    let registry = std::fs::read_to_string(folder.join("demo/registry/node.toml")).unwrap();
    let council: Vec<String> =
        registry.split('"').filter(|text| text.starts_with("council-")).map(str::to_owned).collect();
    assert_eq!(council.len(), 3, "{registry}");
    let began = Instant::now();

    // The newcomer.
    let (systems, nodes, admin) = (free_port(), free_port(), free_port());
    let endpoint = format!("127.0.0.1:{nodes}");
    let told = good(folder, &init(&endpoint, &council));
    let fingerprint = told.lines().find_map(|line| line.strip_prefix("its fingerprint")).unwrap().trim().to_owned();
    bad(folder, &init(&endpoint, &council), "overwrites nothing");

    // The council: enrols, certifies the CA, signs the next version.
    let enrol = |fingerprint| {
        [
            "directory",
            "enrol",
            "justice/enrolment",
            "--source",
            "demo/directory/directory.toml",
            "--fingerprint",
            fingerprint,
            "--root",
            "demo/root",
            "--certificate",
            "justice/ca/ca.pem",
        ]
    };
    bad(folder, &enrol("0000 0000 0000 0000 0000 0000 0000 0000"), "not what the member has read out");
    good(folder, &enrol(&fingerprint));
    bad(folder, &enrol(&fingerprint), "is a member already");
    let sign = [
        "directory",
        "sign",
        "--source",
        "demo/directory/directory.toml",
        "--key",
        "demo/council-1.key",
        "--key",
        "demo/council-2.key",
        "--previous",
        "demo/directory/directory.note",
        "--out",
        "demo/directory/next",
    ];
    assert!(good(folder, &sign).contains("enough"));
    std::fs::rename(folder.join("demo/directory/next"), folder.join("demo/directory/directory.note")).unwrap();

    // The provider grants.
    let grant = format!(
        "[[grant]]\nconsumer = \"{JUSTICE}/notary\"\nprovider = \"civil-registry\"\nservice = \"kg.civil.v1.CivilRegistry\"\n\
         methods = [\"GetPerson\"]\nlegal_basis = {{ code = \"{}\", text = \"as the demo has it\" }}\n",
        basis(&folder.join("demo/registry/grants"))
    );
    std::fs::write(folder.join("demo/registry/grants/justice.toml"), grant).unwrap();

    // The newcomer again: certificates, what its system may call, check, start.
    good(folder, &["pki", "sign", "--ca", "justice/ca", "--csr", "justice/node.csr", "--out", "justice/node.pem"]);
    good(folder, &["pki", "crl", "--ca", "justice/ca"]);
    let identity = format!("{JUSTICE}/notary");
    good(folder, &["pki", "issue", "--ca", "justice/ca", "--identity", &identity, "--out", "justice/systems/notary"]);
    let allow = "[[allow]]\nsystem = \"notary\"\nprovider = \"KG/GOV/70000001\"\nservice = \"kg.civil.v1.CivilRegistry\"\nmethods = [\"GetPerson\"]\n";
    std::fs::write(folder.join("justice/outbound.toml"), allow).unwrap();
    let toml = folder.join("justice/node.toml");
    let configured = std::fs::read_to_string(&toml).unwrap();
    let configured =
        configured.replace("# descriptors = \"descriptors\"", "descriptors = \"../demo/directory/descriptors\"");
    std::fs::write(&toml, configured).unwrap();
    let addresses = [systems, nodes, admin].map(|port| format!("127.0.0.1:{port}"));
    let node: Vec<&str> = vec![
        "node",
        "--config",
        "justice/node.toml",
        "--systems",
        &addresses[0],
        "--nodes",
        &addresses[1],
        "--admin",
        &addresses[2],
    ];
    assert!(good(folder, &[&node[..], &["--check"]].concat()).contains("ok:"));
    let out = std::fs::File::create(folder.join("node.out")).unwrap();
    let _node =
        Node(Command::new(KOPURO).current_dir(folder).args(&node).stdout(Stdio::null()).stderr(out).spawn().unwrap());

    // Its first exchange. The registry's node takes the new directory and grant up by itself.
    let url = format!("https://localhost:{systems}");
    let call = [
        "call",
        "--node",
        &url,
        "--cert",
        "justice/systems/notary.pem",
        "--key",
        "justice/systems/notary.key",
        "--ca",
        "justice/root.pem",
        "kg.civil.v1.CivilRegistry/GetPerson",
        "-d",
        &person(&demo.text),
    ];
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        let output = run(folder, &call);
        if output.status.success() {
            break String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let said = || std::fs::read_to_string(folder.join("node.out")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{}\n{}", String::from_utf8_lossy(&output.stderr), said());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(answer.contains("\"surname\""), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(600), "under ten minutes");
    demo.interrupt();
}

#[test]
fn an_enrolment_that_was_changed_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    std::fs::create_dir_all(folder.join("demo")).unwrap();
    std::fs::write(folder.join("demo/root.pem"), "").unwrap();
    let council =
        vec![good(folder, &["directory", "keygen", "--name", "council", "--out", "council.key"]).trim().to_owned()];
    good(folder, &init("gw.justice.example:7444", &council));
    let source = format!(
        "federation = \"KG\"\nversion = 1 # one\nexpires = 2099-01-01T00:00:00Z\nthreshold = 1\ncouncil = [\"{}\"]\n",
        council[0]
    );
    std::fs::write(folder.join("directory.toml"), &source).unwrap();
    let enrolment = std::fs::read_to_string(folder.join("justice/enrolment")).unwrap();
    let enrol = ["directory", "enrol", "changed", "--source", "directory.toml"];
    for (from, to, expected) in [
        ("gw.justice.example", "gw.another.example", "signature"),
        ("KG/GOV/70000008/notary", "KG/GOV/70000001/notary", "signature"),
        ("kopuro enrolment v1", "kopuro enrolment v2", "\"kopuro enrolment v2\" is not known"),
        ("\n— ", "\n— x", "note"),
    ] {
        assert!(enrolment.contains(from), "{from}");
        std::fs::write(folder.join("changed"), enrolment.replace(from, to)).unwrap();
        bad(folder, &enrol, expected);
        assert_eq!(std::fs::read_to_string(folder.join("directory.toml")).unwrap(), source, "nothing was written");
    }
    std::fs::write(folder.join("changed"), &enrolment).unwrap();
    assert!(good(folder, &enrol).contains("version 2"));
    let grown = std::fs::read_to_string(folder.join("directory.toml")).unwrap();
    assert!(grown.starts_with(&source.replace("version = 1 # one", "version = 2 # one")), "{grown}");
}

/// A legal basis that the demo's own grants have for the same method.
fn basis(grants: &Path) -> String {
    for file in std::fs::read_dir(grants).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let grant = text.split("[[grant]]").find(|grant| grant.contains("\"GetPerson\"") && !grant.contains("sealed"));
        if let Some(code) = grant.and_then(|grant| grant.split("code = \"").nth(1)) {
            return code.split('"').next().unwrap().to_owned();
        }
    }
    panic!("no grant for GetPerson in {}", grants.display());
}

/// The request that the demo shows.
fn person(text: &str) -> String {
    let at = text.find("{\"pin\"").unwrap();
    text[at..].split('\'').next().unwrap().to_owned()
}
