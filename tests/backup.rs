//! A backup: made while the log grows, opened by foreign tools, restored to the last entry, and refused where one bit is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kopuro::log::backup::{BackupError, Part, Restored, Restoring, verify_log, verify_shred};
use kopuro::log::closed::ClosedLog;
use kopuro::log::restored::Marker;
use kopuro::log::sealing_key::{SealingKeySource, SecretSource};
use kopuro::log::verify::verify_folder;
use kopuro::log::{AppendError, Log, LogError, LogHealth, Prune};
use kopuro::trust::note::Verifier;
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::{CONSUMER, Companion, Running};
use crate::log_support::{erasure, is_erased, open, opens, record, said_erased, signer};

fn key() -> Verifier {
    signer(1).verifier()
}

fn part(log: &Log, part: Part) -> Vec<u8> {
    let mut written = Vec::new();
    log.backup(part, &mut written, 1_790_000_000_000).unwrap();
    written
}

/// The sealing key of a folder.
fn sealing_key(folder: &Path) -> SealingKeySource {
    SealingKeySource::Secret(SecretSource::File(folder.join("seal.key")))
}

/// Puts both parts back to a place, with the sealing key of the folder that they are of.
fn restore(place: &Path, of: &Path, log: &[u8], shred: &[u8]) -> Result<Restored, BackupError> {
    let mut restoring = Restoring::begin(place, &key(), log)?;
    restoring.shred_keys(shred)?;
    let size = restoring.checkpoint().size;
    let restored = restoring.finish(Some(&sealing_key(of)), &Marker::new(size, 1, 2))?;
    std::fs::copy(of.join("seal.key"), place.join("seal.key")).unwrap();
    Ok(restored)
}

async fn append(log: &Log, count: usize) {
    futures_util::future::join_all((0..count).map(|_| log.append(record(Uuid::now_v7())))).await;
}

/// What is in a folder besides what was there.
fn left_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|found| found.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_the_log_as_it_was_and_takes_nothing_until_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (log, _) = open(&old).unwrap();
    append(&log, 700).await;
    // Writers go on all the while.
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(700)));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (log, stop, written) = (log.clone(), stop.clone(), written.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    log.append(record(Uuid::now_v7())).await.unwrap();
                    written.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let acknowledged = written.load(Ordering::SeqCst);
    let reader = log.clone();
    let both = tokio::task::spawn_blocking(move || (part(&reader, Part::Log), part(&reader, Part::Shred)));
    let (entries, shred) = both.await.unwrap();
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let kept = verify_log(&entries[..], &key()).unwrap();
    let size = kept.checkpoint.size;
    assert!(size >= acknowledged && kept.halves == size, "{size} of {acknowledged}");
    assert!(verify_shred(&shred[..], &key()).unwrap() >= size);

    let restored = restore(&new, &old, &entries, &shred).unwrap();
    assert_eq!((restored.checkpoint.size, restored.opened, restored.lost), (size, Some(size), 0));
    let verified = verify_folder(&new, &key()).unwrap();
    assert_eq!((verified.size, verified.commits, verified.ahead_of_head), (size, kept.commits, 0));
    {
        let closed = ClosedLog::open(&new).unwrap();
        for index in 0..size {
            assert_eq!(closed.read(index, 1).unwrap()[0], log.read(index, 1).unwrap()[0], "entry {index}");
            assert_eq!(closed.read_private(index).unwrap(), log.read_private(index).unwrap());
        }
        assert_eq!(closed.checkpoint().root, log.root_at(size).unwrap());
    }

    let (again, recovered) = open(&new).unwrap();
    assert_eq!(recovered.size, size);
    let refused = again.append(record(Uuid::now_v7())).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Refusing(why) if why.contains("restored")), "{refused}");
    let erased = again.erase(erasure(0, 1), 1).await.unwrap_err();
    assert!(matches!(erased, LogError::ErasureIncomplete(_)), "{erased}");
    assert!(again.read_private(0).is_ok(), "what cannot be said is not destroyed");
    again.close().await;
    let (again, _) = open(&new).unwrap();
    assert!(
        matches!(&*again.health().borrow(), LogHealth::Refusing { until_restart: false, .. }),
        "nor after a restart"
    );
    again.confirm_restored().unwrap();
    let appended = again.append(record(Uuid::now_v7())).await.unwrap();
    assert_eq!(appended.index, size);
    again.close().await;
    let (again, _) = open(&new).unwrap();
    assert!(again.append(record(Uuid::now_v7())).await.is_ok());
    again.close().await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_after_a_backup_is_erased_in_it_with_the_next_shred_keys() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    let (log, _) = open(&old).unwrap();
    append(&log, 600).await;
    log.erase(erasure(10, 5), 1).await.unwrap();
    let (first, first_shred) = (part(&log, Part::Log), part(&log, Part::Shred));
    log.erase(erasure(300, 2), 2).await.unwrap();
    append(&log, 10).await;
    let later_shred = part(&log, Part::Shred);
    let said = said_erased(&log);

    let place = folder.path().join("with-later-keys");
    restore(&place, &old, &first, &later_shred).unwrap();
    let (restored, _) = open(&place).unwrap();
    assert_eq!(restored.checkpoint().size, 601);
    (0..601).filter(|index| said[*index as usize]).for_each(|index| is_erased(&restored, &said, index));
    assert_eq!((0..601).filter(|index| opens(&restored, &said, *index)).count(), 594);
    restored.close().await;

    // Without them, what the log says was erased stays erased; keys older than the log are refused.
    let place = folder.path().join("with-its-own");
    restore(&place, &old, &first, &first_shred).unwrap();
    let (restored, _) = open(&place).unwrap();
    assert!(matches!(restored.read_private(12), Err(LogError::Erased { index: 12 })));
    assert!(restored.read_private(300).is_ok());
    restored.close().await;
    let second = part(&log, Part::Log);
    let place = folder.path().join("with-older-keys");
    let error = restore(&place, &old, &second, &first_shred).unwrap_err();
    assert!(matches!(error, BackupError::OldShred { found: 601, size: 612 }), "{error}");

    // No keys at all: everything is there but private values.
    let mut restoring = Restoring::begin(&place, &key(), &second[..]).unwrap();
    restoring.without_private_values().unwrap();
    let restored = restoring.finish(None, &Marker::new(612, 1, 2)).unwrap();
    assert_eq!((restored.opened, restored.lost), (None, 612 - 7));
    let closed = ClosedLog::open(&place).unwrap();
    std::fs::copy(old.join("seal.key"), place.join("seal.key")).unwrap();
    drop(closed);
    let closed = ClosedLog::open(&place).unwrap();
    assert!(matches!(closed.read_private(301), Err(LogError::Erased { .. })));
    assert!(matches!(closed.read_private(7), Err(LogError::PrivateLost { index: 7 })));
    log.close().await;
}

/// A file of shred keys that is destroyed as a whole leaves an empty one; in a log that is restored shorter it has room for keys again.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_where_a_whole_file_of_shred_keys_was_destroyed_since() {
    const FILE_KEYS: u64 = 32_768;
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (log, _) = open(&old).unwrap();
    append(&log, 100).await;
    let entries = part(&log, Part::Log);
    while log.checkpoint().size <= FILE_KEYS {
        append(&log, 4_000).await;
    }
    log.erase(erasure(0, FILE_KEYS), 1).await.unwrap();
    assert!(old.join("shred/00000000.erased").exists());
    let shred = part(&log, Part::Shred);
    log.close().await;

    restore(&new, &old, &entries, &shred).unwrap();
    let (restored, _) = open(&new).unwrap();
    assert!((0..100).all(|index| matches!(restored.read_private(index), Err(LogError::Erased { .. }))));
    restored.confirm_restored().unwrap();
    append(&restored, 1).await;
    restored.close().await;
    let (restored, _) = open(&new).unwrap();
    assert!(restored.read_private(100).is_ok());
    restored.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruned_log_is_restored_where_it_begins_and_nothing_is_pruned_while_it_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (log, _) = open(&old).unwrap();
    for _ in 0..5 {
        append(&log, 300).await;
    }
    log.erase(erasure(0, 400), 1).await.unwrap();
    log.set_published(1_000);
    let rule = Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until: 700 };
    log.prune(&rule, i64::MAX).unwrap();
    let first = log.first();
    assert!(first > 0 && first % 256 != 0, "{first}");

    /// Prunes what it can each time something is written to it.
    struct Pruning<'a>(&'a Log, Vec<u8>);
    impl std::io::Write for Pruning<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let rule = Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until: u64::MAX };
            assert_eq!(self.0.prune(&rule, i64::MAX).unwrap(), 0);
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut entries = Pruning(&log, Vec::new());
    log.backup(Part::Log, &mut entries, 1).unwrap();
    assert!(log.prune(&Prune { until: u64::MAX, ..rule }, i64::MAX).unwrap() > 0, "and afterwards it goes on");
    let entries = entries.1;
    let shred = part(&log, Part::Shred);
    let kept = verify_log(&entries[..], &key()).unwrap();
    assert_eq!((kept.manifest.first, kept.manifest.private_from, kept.checkpoint.size), (first, 400, 1_501));

    restore(&new, &old, &entries, &shred).unwrap();
    let (restored, _) = open(&new).unwrap();
    assert_eq!((restored.first(), restored.checkpoint().root), (first, log.checkpoint().root));
    assert!(restored.read_private(450).is_ok() && matches!(restored.read_private(399), Err(LogError::Erased { .. })));
    assert!(restored.consistency_proof(first, 1_501).is_ok());
    restored.confirm_restored().unwrap();
    restored.set_published(1_400);
    assert!(restored.prune(&Prune { until: u64::MAX, ..rule }, i64::MAX).unwrap() > 0, "its commits are as they were");
    restored.close().await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_wrong_is_restored_and_nothing_is_left_of_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (old, places) = (folder.path().join("old"), folder.path().join("places"));
    std::fs::create_dir(&places).unwrap();
    let (log, _) = open(&old).unwrap();
    append(&log, 100).await;
    append(&log, 200).await;
    let (entries, shred) = (part(&log, Part::Log), part(&log, Part::Shred));
    let place = places.join("data");
    let refused = |entries: &[u8], shred: &[u8]| {
        let error = restore(&place, &old, entries, shred).unwrap_err();
        assert_eq!(left_in(&places), [] as [PathBuf; 0], "{error}");
        error.to_string()
    };
    // A bit anywhere in a member's content is seen: entries and checkpoints by the tree, halves and keys by their seals.
    let at = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).position(|found| found == needle).unwrap();
    let (bundle, halves) = (at(&entries, b"tile/entries/000"), at(&entries, b"halves/0"));
    let commits = at(&entries, b"commits/0");
    for (position, told) in [
        (bundle + 512 + 100, "entries 0 to "),
        (halves + 512 + 100, "entry 0: its private half does not open"),
        (commits + 512 + 40, ""),
        (at(&entries, b"checkpoint") + 512 + 20, "checkpoint"),
    ] {
        let mut altered = entries.clone();
        altered[position] ^= 1;
        let said = refused(&altered, &shred);
        assert!(said.contains(told), "{said}");
    }
    let mut altered = shred.clone();
    let keys = at(&shred, b"shred/00000000.keys") + 512;
    altered[keys + 7 * 32] ^= 1;
    assert!(refused(&entries, &altered).contains("entry 7: its private half does not open"));
    altered[keys + 7 * 32..keys + 8 * 32].fill(0);
    assert!(refused(&entries, &altered).contains("entry 7: its shred key is missing"));
    // Cut off, swapped, with something behind it, another log's.
    assert!(refused(&entries[..halves], &shred).contains("its checkpoint is of 300"));
    refused(&entries[..bundle + 700], &shred);
    assert!(refused(&shred, &entries).contains("the other part"));
    assert!(refused(&[&entries[..], &entries[..]].concat(), &shred).contains("something follows"));
    let stranger = signer(2).verifier();
    assert!(verify_log(&entries[..], &stranger).is_err());
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("head"), b"something").unwrap();
    assert!(matches!(restore(&place, &old, &entries, &shred), Err(BackupError::NotEmpty(_))));
    std::fs::remove_dir_all(&place).unwrap();
    // Another sealing key.
    let mut restoring = Restoring::begin(&place, &key(), &entries[..]).unwrap();
    restoring.shred_keys(&shred[..]).unwrap();
    std::fs::write(folder.path().join("seal.key"), [7; 32]).unwrap();
    set_secret(&folder.path().join("seal.key"));
    let error = restoring.finish(Some(&sealing_key(folder.path())), &Marker::new(300, 1, 2)).unwrap_err();
    assert!(matches!(error, BackupError::Log(LogError::OtherSealingKey)), "{error}");
    assert_eq!(left_in(&places), [] as [PathBuf; 0]);
    restore(&place, &old, &entries, &shred).unwrap();
    log.close().await;
}

fn set_secret(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The binary; whether it succeeded, and what it said.
pub(crate) async fn kopuro(args: &[&str]) -> (bool, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro")).args(args).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_is_backed_up_under_load_and_foreign_tools_open_it() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await);
    let companions: Vec<_> = (0..4).map(|_| Companion::start(probe.clone())).collect();
    for _ in 0..20 {
        probe.unary("hello").await.unwrap();
    }
    let acknowledged = running.consumer.log().unwrap().checkpoint().size;
    let path = |name: &str| running.federation.path(name).to_str().unwrap().to_owned();
    let config = running.federation.member_path(CONSUMER, "node.toml").to_str().unwrap().to_owned();
    let (identity, to, shred) = (path("backup.key"), path("one.age"), path("shred.age"));
    let (made, recipient) = kopuro(&["backup", "keygen", "--out", &identity]).await;
    assert!(made && recipient.starts_with("age1"), "{recipient}");
    let recipient = recipient.trim();
    let make = ["backup", "--config", &config, "--recipient", recipient, "--to", &to, "--shred-to", &shred];
    let (made, said) = kopuro(&make).await;
    assert!(made && said.contains("entries of log.example/KG/GOV/1"), "{said}");
    assert!(!kopuro(&make).await.0, "a backup is a new file");
    let second = path("two.age");
    let rated = ["backup", "--config", &config, "--recipient", recipient, "--to", &second, "--shred-to", &shred];
    let (made, said) = kopuro(&[&rated[..], &["--rate", "1GiB"]].concat()).await;
    assert!(made, "{said}");

    let vkey = running.federation.log_key(CONSUMER).to_string();
    let check = ["backup", "verify", &to, "--shred", &shred, "--identity", &identity, "--vkey", &vkey];
    let (good, said) = kopuro(&check).await;
    assert!(good && said.contains("each signed"), "{said}");
    let size: u64 = said.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(size >= acknowledged, "{size} of {acknowledged}");
    // Nobody else opens it, and no bit of it may change.
    let other = path("other.key");
    kopuro(&["backup", "keygen", "--out", &other]).await;
    let (good, said) = kopuro(&["backup", "verify", &to, "--identity", &other, "--vkey", &vkey]).await;
    assert!(!good && said.contains("other keys"), "{said}");
    let whole = std::fs::read(&to).unwrap();
    for (what, file) in [("cut", whole[..whole.len() - 1_000].to_vec()), ("altered", altered(&whole))] {
        let wrong = path(what);
        std::fs::write(&wrong, file).unwrap();
        let (good, said) = kopuro(&["backup", "verify", &wrong, "--identity", &identity, "--vkey", &vkey]).await;
        assert!(!good && said.contains("cut short or altered"), "{what}: {said}");
    }
    for companion in companions {
        companion.unharmed().await;
    }
    drop(probe);
    foreign(Path::new(&to), Path::new(&identity), &running.federation.path("opened"), size);
    let federation = running.stop().await;

    // And of the stopped node.
    let third = federation.path("three.age").to_str().unwrap().to_owned();
    let stopped = ["backup", "--config", &config, "--recipient", recipient, "--to", &third, "--shred-to", &shred];
    let (made, said) = kopuro(&stopped).await;
    assert!(made, "{said}");
    let check = ["backup", "verify", &third, "--shred", &shred, "--identity", &identity, "--vkey", &vkey];
    let (good, said) = kopuro(&check).await;
    assert!(good, "{said}");
}

fn altered(whole: &[u8]) -> Vec<u8> {
    let mut altered = whole.to_vec();
    altered[whole.len() / 2] ^= 1;
    altered
}

/// `age` and `tar` open it, and a few lines of Python find the checkpoint's root in what they gave.
fn foreign(backup: &Path, identity: &Path, folder: &Path, size: u64) {
    std::fs::create_dir(folder).unwrap();
    let opened = folder.join("backup.tar");
    let age = Command::new("age").args(["-d", "-i"]).arg(identity).arg("-o").arg(&opened).arg(backup).status();
    let Ok(status) = age else {
        println!("SKIPPED: age is not installed");
        return;
    };
    assert!(status.success());
    assert!(Command::new("tar").arg("-xf").arg(&opened).arg("-C").arg(folder).status().unwrap().success());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/backup.py");
    let checked = Command::new("python3").arg(script).arg(folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&checked.stdout).trim(), size.to_string(), "{checked:?}");
    // And what `age` encrypts, we open.
    let recipient = Command::new("age-keygen").arg("-y").arg(identity).output().unwrap().stdout;
    let foreign = folder.join("foreign.age");
    let mut age = Command::new("age");
    age.args(["-r", String::from_utf8(recipient).unwrap().trim(), "-o"]).arg(&foreign).arg(&opened);
    assert!(age.status().unwrap().success());
    let identities = kopuro::trust::age::Identity::parse_file(&std::fs::read_to_string(identity).unwrap()).unwrap();
    let mut decrypted = Vec::new();
    let mut reader = kopuro::trust::age::Decryptor::new(&identities, std::fs::File::open(&foreign).unwrap()).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut decrypted).unwrap();
    assert!(decrypted == std::fs::read(&opened).unwrap());
}
