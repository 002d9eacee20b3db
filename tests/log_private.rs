//! Private halves lie apart from the log, and the key that seals them comes from where the operator keeps it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kopuro::log::entry::{Draft, ExchangeKey, Kind, Publication, Slot};
use kopuro::log::sealing_key::{SealingKeySource, SecretSource, TokenKey};
use kopuro::log::verify::verify_folder;
use kopuro::log::{Log, LogError, LogOptions};
use uuid::Uuid;

use crate::log_support::{all_ids, open, record, signer};

async fn log_of(folder: &Path, size: usize) {
    let (log, _) = open(folder).unwrap();
    for _ in 0..size {
        log.append(record(Uuid::now_v7())).await.unwrap();
    }
    log.close().await;
}

fn sled(folder: &Path) -> sled::Db {
    sled::Config::new().path(folder.join("sled")).open().unwrap()
}

#[tokio::test]
async fn the_log_is_whole_without_them_and_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    log_of(folder.path(), 5).await;
    {
        let db = sled(folder.path());
        let halves: Vec<_> = db.range(&[0xff][..]..).keys().map(Result::unwrap).collect();
        assert_eq!(halves.len(), 5);
        assert!(!db.range(..&[0xfe][..]).values().any(|record| record.unwrap().len() > 1_000), "entries only");
        halves.into_iter().for_each(|key| drop(db.remove(key).unwrap()));
        db.flush().unwrap();
    }
    verify_folder(folder.path(), &signer(1).verifier()).unwrap();
    let (log, _) = open(folder.path()).unwrap();
    assert_eq!(all_ids(&log).len(), 5);
    let error = log.read_private(2).unwrap_err();
    assert!(matches!(&error, LogError::Damaged { index: 2, what } if what == "its private half is missing"), "{error}");
    log.close().await;

    // A shred key is not made up for: without one an acknowledged entry's values are lost, and that is said at once.
    fs::remove_file(folder.path().join("shred/00000000.keys")).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(&error, LogError::Damaged { index: 0, what } if what == "its shred key is missing"), "{error}");
    verify_folder(folder.path(), &signer(1).verifier()).unwrap();
}

#[tokio::test]
async fn another_sealing_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    log_of(folder.path(), 1).await;
    fs::write(folder.path().join("seal.key"), [9; 32]).unwrap();
    assert!(matches!(open(folder.path()), Err(LogError::OtherSealingKey)));
}

#[tokio::test]
async fn the_format_before_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    log_of(folder.path(), 2).await;
    {
        let db = sled(folder.path());
        let mut record = db.get(0_u64.to_be_bytes()).unwrap().unwrap().to_vec();
        record[0] = 1;
        db.insert(0_u64.to_be_bytes(), record).unwrap();
        db.flush().unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, LogError::Format { found: 1, reads: 2 }), "{error}");
    assert!(error.to_string().contains("format 1"), "{error}");
    assert!(matches!(verify_folder(folder.path(), &signer(1).verifier()), Err(LogError::Format { .. })));
}

#[tokio::test]
async fn an_interrupted_exchange_that_is_hidden_is_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let key = ExchangeKey::generate();
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for (kind, id) in [(Kind::RequestSent, ids[0]), (Kind::RequestSent, ids[1]), (Kind::ResponseReceived, ids[1])] {
        let mut draft = Draft::new(kind, id, 1_790_000_000_000, &key);
        draft.publication = Publication::Sealed;
        draft.consumer = "KG/GOV/70000006/tax-service".into();
        draft.set(Slot::Subject, "20101199912345");
        log.append(draft.seal()).await.unwrap();
    }
    log.close().await;
    let (log, recovered) = open(folder.path()).unwrap();
    let [exchange] = &recovered.open_exchanges[..] else { panic!("{recovered:?}") };
    assert_eq!((exchange.exchange_id, exchange.index), (ids[0], 0));
    assert_eq!(exchange.entry.consumer, "KG/GOV/70000006/tax-service");
    log.close().await;
}

// === Sources that are the process's own: each in a process of its own ===

const CHILD_FOLDER: &str = "KOPURO_TEST_SEAL_FOLDER";
const CHILD_SOURCE: &str = "KOPURO_TEST_SEAL_SOURCE";
const CHILD_KEY: &str = "KOPURO_TEST_SEAL_KEY";

/// This test binary again, opening the log of `folder` with the key from `source`; what it says of it.
fn child_says(folder: &Path, source: &str, environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "log_private::child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD_FOLDER, folder).env(CHILD_SOURCE, source).env_remove("CREDENTIALS_DIRECTORY");
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("child: "));
    line.unwrap_or_else(|| panic!("{said}")).1.to_owned()
}

/// The child's side of [`child_says`]; does nothing when it runs as an ordinary test.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let source = match std::env::var(CHILD_SOURCE).unwrap().as_str() {
        "credential" => SealingKeySource::Secret(SecretSource::Credential("seal".into())),
        "environment" => SealingKeySource::Secret(SecretSource::Environment(CHILD_KEY.into())),
        "token" | "make token key" => SealingKeySource::Token(token_key()),
        other => panic!("{other}"),
    };
    if std::env::var(CHILD_SOURCE).unwrap() == "make token key" {
        make_token_key(&token_key());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(async {
        let options = LogOptions { sealing_key: source, ..LogOptions::new(&folder, signer(1)) };
        match Log::open(LogOptions { warn_free: 0, refuse_free: 0, ..options }) {
            Ok((log, _)) => {
                let record = record(Uuid::now_v7());
                let index = log.append(record.clone()).await.unwrap().index;
                assert_eq!(log.read_private(index).unwrap(), record.private);
                let readable = (0..=index).filter(|index| log.read_private(*index).is_ok()).count();
                log.close().await;
                format!("{readable} halves open")
            }
            Err(error) => error.to_string(),
        }
    });
    println!("child: {said}");
}

#[test]
fn the_key_comes_from_a_credential_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    let there = [("CREDENTIALS_DIRECTORY", credentials.path())];
    let said = child_says(folder.path(), "credential", &[]);
    assert!(said.contains("CREDENTIALS_DIRECTORY is not set"), "{said}");
    let said = child_says(folder.path(), "credential", &there);
    assert!(said.contains("missing"), "never made up: {said}");

    let digits = hex::encode([5; 32]);
    write_secret(&credentials.path().join("seal"), digits.as_bytes());
    assert_eq!(child_says(folder.path(), "credential", &there), "1 halves open");
    assert!(!folder.path().join("seal.key").exists(), "a key on the disk after all");
    // The same key by another way.
    assert_eq!(child_says(folder.path(), "environment", &[(CHILD_KEY, Path::new(&digits))]), "2 halves open");
    let other = hex::encode([6; 32]);
    let said = child_says(folder.path(), "environment", &[(CHILD_KEY, Path::new(&other))]);
    assert!(said.contains("another than the one"), "{said}");
}

fn write_secret(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
}

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

fn token_key() -> TokenKey {
    let module = MODULES.iter().map(PathBuf::from).find(|module| module.exists()).unwrap_or_default();
    let pin = SecretSource::Environment("KOPURO_TEST_PIN".into());
    TokenKey { module, token: "kopuro-test".into(), key: "kopuro-seal".into(), pin }
}

/// As an operator does with `pkcs11-tool --keygen --key-type GENERIC:32 --usage-sign`.
fn make_token_key(key: &TokenKey) {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::object::{Attribute, KeyType, ObjectClass};
    let module = Pkcs11::new(&key.module).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    let is_ours = |slot: &&cryptoki::slot::Slot| module.get_token_info(**slot).unwrap().label() == key.token;
    let session = module.open_rw_session(*slots.iter().find(is_ours).unwrap()).unwrap();
    let pin = std::env::var("KOPURO_TEST_PIN").unwrap();
    session.login(cryptoki::session::UserType::User, Some(&pin.into())).unwrap();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Label(key.key.clone().into_bytes()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Value(vec![42; 32]),
    ];
    session.create_object(&template).unwrap();
    drop(session);
    module.finalize().unwrap();
}

#[test]
fn the_key_comes_from_a_pkcs11_token() {
    let tokens = tempfile::tempdir().unwrap();
    let conf = tokens.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.path().display()))
        .unwrap();
    let init = ["--init-token", "--free", "--label", "kopuro-test", "--pin", "1234", "--so-pin", "5678"];
    let made = Command::new("softhsm2-util").args(init).env("SOFTHSM2_CONF", &conf).output();
    if made.is_err() || !token_key().module.exists() {
        println!("SKIPPED: softhsm2 is not installed");
        return;
    }
    assert!(made.unwrap().status.success());
    let folder = tempfile::tempdir().unwrap();
    let there = [("SOFTHSM2_CONF", conf.as_path()), ("KOPURO_TEST_PIN", Path::new("1234"))];
    let said = child_says(folder.path(), "token", &there);
    assert!(said.contains("has 0 secret keys labelled"), "{said}");
    let said = child_says(folder.path(), "token", &[there[0], ("KOPURO_TEST_PIN", Path::new("4321"))]);
    assert!(said.contains("login"), "{said}");
    assert_eq!(child_says(folder.path(), "make token key", &there), "1 halves open");
    assert_eq!(child_says(folder.path(), "token", &there), "2 halves open");

    // Another implementation's HMAC over what docs/protocol.md says gives the same key.
    use hmac::{Hmac, KeyInit, Mac};
    let mac: Hmac<sha2::Sha256> = Hmac::new_from_slice(&[42; 32]).unwrap();
    let key = hex::encode(mac.chain_update(b"kopuro/seal/v1\0kg.example/log").finalize().into_bytes());
    assert_eq!(child_says(folder.path(), "environment", &[(CHILD_KEY, Path::new(&key))]), "3 halves open");
}
