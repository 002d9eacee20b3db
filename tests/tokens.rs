//! Keys that stay in a PKCS#11 token (SoftHSM2): a node's TLS key and its log's key, made, used, renewed, lost, and wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kopuro::log::verify::verify_folder;
use kopuro::log::{Log, LogHealth, LogOptions};
use kopuro::trust::note::{Signer, Verifier};
use kopuro::trust::pki::Validity;
use kopuro::trust::secret::SecretSource;
use kopuro::trust::token::{self, KeyInToken, KeyKind, TokenKey};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::process::Process;
use crate::harness::published::Published;
use crate::harness::raw::{client_config, tls};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, eventually};
use crate::log_support::record;

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];
const TOKEN: &str = "kopuro-test";
const PIN: &str = "271828";

/// A fresh token, as an operator makes one.
struct SoftToken {
    folder: tempfile::TempDir,
    module: PathBuf,
}

impl SoftToken {
    /// None, and said so, where SoftHSM2 is not installed.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let module = MODULES.iter().map(PathBuf::from).find(|module| module.exists());
        let this = Self { module: module.clone().unwrap_or_default(), folder };
        std::fs::create_dir(this.path("tokens")).unwrap();
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", this.path("tokens").display());
        std::fs::write(this.conf(), text).unwrap();
        this.write_pin("pin", PIN);
        let init = ["--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "314159"];
        let made = Command::new("softhsm2-util").args(init).env("SOFTHSM2_CONF", this.conf()).output();
        if made.is_err() || module.is_none() {
            println!("SKIPPED: softhsm2 is not installed");
            return None;
        }
        assert!(made.unwrap().status.success());
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn conf(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    fn write_pin(&self, name: &str, pin: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// `key = …` of node.toml.
    fn toml(&self, key: &str, pin: &str) -> String {
        let (module, pin) = (self.module.display(), self.path(pin));
        format!(
            "key = {{ pkcs11 = {{ module = \"{module}\", token = \"{TOKEN}\", key = \"{key}\", pin = {{ file = \"{}\" }} }} }}",
            pin.display()
        )
    }

    /// A command with these arguments, and where the key is.
    fn run(&self, at: &Path, args: &[&str], key: &str) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(args)
            .args(["--token", TOKEN, "--key-label", key, "--pkcs11"])
            .arg(&self.module)
            .arg("--pin-file")
            .arg(self.path("pin"))
            .current_dir(at)
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(!said.contains(PIN), "{said}");
        output
    }

    fn good(&self, at: &Path, args: &[&str], key: &str) -> String {
        let output = self.run(at, args, key);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `kopuro node --check` says.
    fn check(&self, federation: &Federation) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["node", "--check", "--config"])
            .arg(federation.member_path(PROVIDER, "node.toml"))
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains(PIN) && !said.contains("161803"), "{said}");
        (output.status.success(), said)
    }
}

/// The provider's node with its keys in the token, made there, and no key file left.
fn in_token(token: &SoftToken, federation: &mut Federation) -> Verifier {
    let folder = federation.member_path(PROVIDER, "");
    let origin = format!("log.example/{PROVIDER}");
    let vkey = token.good(&folder, &["directory", "keygen", "--name", &origin], "the log");
    let vkey: Verifier = vkey.trim().parse().unwrap();
    let identity = format!("{PROVIDER}/_node/main");
    let csr = ["pki", "csr", "--identity", &identity, "--ip", "127.0.0.1", "--make-key", "--out", "node"];
    token.good(&folder, &csr, "the node");
    let csr = std::fs::read_to_string(folder.join("node.csr")).unwrap();
    let ca = federation.cas.get_mut(PROVIDER).unwrap();
    let chain = ca.sign(&csr, Validity::days(OffsetDateTime::now_utc(), 90)).unwrap();
    std::fs::write(folder.join("node.pem"), chain).unwrap();
    for file in ["node.key", "log.key"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    edit(federation, "key = \"node.key\"", &token.toml("the node", "pin"));
    edit(federation, "key = \"log.key\"", &format!("{}\norigin = \"{origin}\"", token.toml("the log", "pin")));
    federation.list_log_key(PROVIDER, vkey.clone());
    federation.publish_directory();
    vkey
}

fn edit(federation: &Federation, from: &str, to: &str) {
    let path = federation.member_path(PROVIDER, "node.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_exchanges_and_publishes_with_keys_that_never_leave_the_token() {
    let Some(token) = SoftToken::new() else { return };
    let mut federation = Federation::new();
    federation.write_files("");
    let toml = federation.member_path(PROVIDER, "node.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{text}[publish]\nstore = \"public\"\ninterval = \"100ms\"\n")).unwrap();
    let vkey = in_token(&token, &mut federation);
    let (good, said) = token.check(&federation);
    assert!(good && said.contains("ok: "), "{said}");

    let conf = token.conf();
    let probe = federation.start_probe().await;
    let provider = Process::start_with(&federation, PROVIDER, &[("SOFTHSM2_CONF", &conf)]).await;
    let consumer = federation.start_node(CONSUMER).await;
    let desk = federation.issue(DESK);
    let caller = ProbeClient::new(federation.channel(consumer.systems_addr(), &desk).await.unwrap());
    for _ in 0..20 {
        caller.unary("x").await.unwrap();
    }
    let store = federation.member_path(PROVIDER, "public");
    let published = Published::folder(&store);
    eventually("all is published", async || published.checkpoint(&vkey).await.filter(|seen| seen.size >= 40)).await;
    let (_, entries) = published.verify(&vkey).await;
    assert!(entries.len() >= 40);

    // Renewed for the same key, by the CA beside it; the node takes it up, and the connection stays.
    let ca = federation.path("ca");
    federation.cas.get_mut(PROVIDER).unwrap().save(&ca).unwrap();
    let ca = ca.to_str().unwrap();
    let renew = ["pki", "renew", "--ca", ca, "--certificate", "node.pem", "--within"];
    let folder = federation.member_path(PROVIDER, "");
    assert!(token.good(&folder, &[&renew[..], &["30"]].concat(), "the node").starts_with("kept"));
    let said = token.good(&folder, &[&renew[..], &["0"]].concat(), "the node");
    let serial = said.split("serial ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    eventually("the new certificate is shown", async || {
        let stream = tls(client_config(&federation, Some(&desk)), provider.nodes).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        (hex::encode(leaf.raw_serial()) == serial).then_some(())
    })
    .await;
    caller.unary("x").await.unwrap();

    drop(caller);
    consumer.stop().await;
    provider.stop().await;
    drop(probe);
    // Restarted, it goes on with the same history.
    let provider = Process::start_with(&federation, PROVIDER, &[("SOFTHSM2_CONF", &conf)]).await;
    provider.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_told_with_its_place() {
    let Some(token) = SoftToken::new() else { return };
    let mut federation = Federation::new();
    federation.write_files("");
    in_token(&token, &mut federation);
    token.write_pin("wrong", "161803");
    let toml = std::fs::read_to_string(federation.member_path(PROVIDER, "node.toml")).unwrap();
    let says = |from: &str, to: &str, words: &[&str]| {
        edit(&federation, from, to);
        let (good, said) = token.check(&federation);
        assert!(!good, "{said}");
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
        std::fs::write(federation.member_path(PROVIDER, "node.toml"), &toml).unwrap();
    };
    let (node, log) = (token.toml("the node", "pin"), token.toml("the log", "pin"));
    says(&node, &token.toml("the node", "wrong"), &["tls.key: ", "login: the token \"kopuro-test\" refuses the PIN"]);
    says(&node, &token.toml("nobody", "pin"), &["tls.key: ", "has 0 ECDSA P-256 private keys labelled \"nobody\""]);
    says(&node, &token.toml("the node", "none"), &["tls.key: ", "its PIN: ", "none: missing"]);
    says(&node, &token.toml("the node", "pin").replace(TOKEN, "other"), &["has no token labelled \"other\""]);
    let nowhere = token.toml("the node", "pin").replace(&*token.module.to_string_lossy(), "/nowhere.so");
    says(&node, &nowhere, &["tls.key: /nowhere.so: cannot be loaded"]);
    says(&node, &token.toml("the log", "pin"), &["tls.key: ", "has 0 ECDSA P-256 private keys"]);
    says(&log, &token.toml("the node", "pin"), &["log.key: ", "has 0 Ed25519 private keys"]);
    says("origin = ", "# origin = ", &["log.key: ", "add log.origin"]);
    says("origin = \"log.", "origin = \"lag.", &["log.key: its public key is lag.example"]);
    says("pkcs11 = { module", "pkcs11 = { modul", &["key.pkcs11.modul: unknown field `modul`"]);
    says("{ pkcs11 =", "{ pkcs12 =", &["unknown field `pkcs12`"]);

    // Another key than the certificate's.
    let folder = federation.member_path(PROVIDER, "");
    let identity = format!("{PROVIDER}/_node/main");
    let csr = ["pki", "csr", "--identity", &identity, "--out", "other"];
    let without = token.run(&folder, &csr, "another");
    assert!(String::from_utf8_lossy(&without.stderr).contains("has 0 ECDSA P-256 private keys labelled \"another\""));
    token.good(&folder, &[&csr[..], &["--make-key"]].concat(), "another");
    says(
        &node,
        &token.toml("another", "pin"),
        &["tls.key: the private key \"another\" in the token", "does not belong"],
    );
    let twice = token.run(&folder, &[&csr[..], &["--make-key", "--force"]].concat(), "another");
    assert!(String::from_utf8_lossy(&twice.stderr).contains("has a key labelled \"another\" in the token already"));
    let (good, said) = token.check(&federation);
    assert!(good, "{said}");
}

// === What needs the module in this process: in a process of its own ===

const CHILD: &str = "KOPURO_TEST_TOKEN_MODULE";

#[test]
fn a_session_that_is_lost_is_opened_again_and_a_refused_pin_is_not() {
    let Some(token) = SoftToken::new() else { return };
    token.write_pin("wrong", "161803");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tokens::child", "--nocapture", "--test-threads=1"])
        .current_dir(token.folder.path())
        .env(CHILD, &token.module)
        .env("SOFTHSM2_CONF", token.conf())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("child: all good"), "{said}");
}

/// Does nothing when it runs as an ordinary test.
#[test]
fn child() {
    use cryptoki::context::Pkcs11;
    let Some(module) = std::env::var_os(CHILD) else { return };
    let at = |pin: &str| TokenKey {
        module: module.clone().into(),
        token: TOKEN.into(),
        key: "log".into(),
        pin: SecretSource::File(pin.into()),
    };
    for told in ["refuses the PIN", "not tried again before a restart"] {
        let error = KeyInToken::open(&at("wrong"), KeyKind::Ed25519).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let key = token::generate(&at("pin"), KeyKind::Ed25519).unwrap();
    let signer = Signer::in_token("kg.example/log", key).unwrap();
    let signs = || signer.sign("text\n").map(|note| note.parse::<kopuro::trust::note::Note>().unwrap());
    assert!(signs().unwrap().verify(&[signer.verifier()]).is_ok());
    assert!(signer.to_encoded().is_empty(), "it never leaves the token");

    // As when the token is reset: nobody is logged in any more, and what sessions knew of its keys does not count.
    let loaded = Pkcs11::new(&module).unwrap();
    let slots = loaded.get_slots_with_initialized_token().unwrap();
    let reset = || loaded.open_ro_session(slots[0]).unwrap().logout().unwrap();
    reset();
    assert!(signs().unwrap().verify(&[signer.verifier()]).is_ok());

    let key = KeyInToken::open(&at("pin"), KeyKind::Ed25519).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(a_log_waits_for_its_token(Signer::in_token("kg.example/log", key).unwrap(), &reset));

    // And when the key is another's meanwhile.
    let destroy = Command::new("softhsm2-util").args(["--delete-token", "--token", TOKEN]).output().unwrap();
    assert!(destroy.status.success());
    reset();
    let error = signs().unwrap_err().to_string();
    assert!(error.contains("opening the token again: "), "{error}");
    println!("child: all good");
}

/// A log whose token is away refuses, and goes on when the token is back: nothing was written meanwhile.
async fn a_log_waits_for_its_token(signer: Signer, reset: &dyn Fn()) {
    let folder = tempfile::tempdir().unwrap();
    let key = signer.verifier();
    let options = LogOptions { warn_free: 0, refuse_free: 0, ..LogOptions::new(folder.path(), signer) };
    let (log, _) = Log::open(options).unwrap();
    log.append(record(Uuid::now_v7())).await.unwrap();

    std::fs::rename("pin", "pin.away").unwrap();
    reset();
    let error = log.append(record(Uuid::now_v7())).await.unwrap_err().to_string();
    assert!(error.contains("the checkpoint cannot be signed: ") && error.contains("its PIN: "), "{error}");
    let health = log.health().borrow().clone();
    assert!(matches!(health, LogHealth::Refusing { until_restart: false, .. }), "{health:?}");

    std::fs::rename("pin.away", "pin").unwrap();
    let record = || log.append(record(Uuid::now_v7()));
    let appended = eventually("the log goes on", async || record().await.ok()).await;
    assert_eq!((appended.index, log.checkpoint().size), (1, 2));
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &key).unwrap().size, 2);
}
