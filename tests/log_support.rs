//! What the tests of the log share: records, opened folders, and a writer in a process of its own, to be killed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kopuro::log::entry::{Draft, Entry, ExchangeKey, Kind, Slot};
use kopuro::log::erasure::{Erasure, IndexRange, Whose};
use kopuro::log::{Log, LogError, LogOptions, Prune, Record, Recovered};
use kopuro::trust::note::Signer;
use uuid::Uuid;

/// Name of every log in these tests, and of its key.
pub(crate) const ORIGIN: &str = "kg.example/log";

/// A key made from nothing but its number, so that a child process has the same.
pub(crate) fn signer(number: u8) -> Signer {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use ed25519_dalek::SigningKey;
    use sha2::{Digest, Sha256};
    let seed = [number; 32];
    let public = SigningKey::from_bytes(&seed).verifying_key();
    let id = Sha256::digest([ORIGIN.as_bytes(), b"\n\x01", public.as_bytes()].concat());
    let secret = BASE64_STANDARD.encode([&[1], &seed[..]].concat());
    Signer::from_encoded(&format!("PRIVATE+KEY+{ORIGIN}+{}+{secret}", hex::encode(&id[..4]))).unwrap()
}

/// Opens the log of a folder under the tests' key, whatever space is free.
pub(crate) fn open(folder: &Path) -> Result<(Log, Recovered), LogError> {
    let mut options = LogOptions::new(folder, signer(1));
    (options.warn_free, options.refuse_free) = (0, 0);
    Log::open(options)
}

/// A record of about 300 bytes and a private half, of an exchange of its own.
pub(crate) fn record(id: Uuid) -> Record {
    draft(Kind::RequestSent, id).seal()
}

/// The draft of such a record.
pub(crate) fn draft(kind: Kind, id: Uuid) -> Draft {
    let mut draft = Draft::new(kind, id, 1_790_000_000_000, &ExchangeKey::generate());
    draft.consumer = "KG/GOV/70000006/tax-service".into();
    draft.provider = "KG/GOV/70000005/civil-registry".into();
    draft.service = "kg.civil.v1.CivilRegistry".into();
    draft.method = "GetPerson".into();
    draft.legal_basis = "tax-code-2022-art-118".into();
    draft.peer_checkpoint = "x".repeat(80);
    draft.set(Slot::RequestDigest, [7; 32]).set(Slot::Subject, "20101199912345");
    draft
}

/// An order to erase these entries' private values.
pub(crate) fn erasure(first: u64, count: u64) -> Erasure {
    let whose = Whose::Entries(vec![IndexRange { first, count }]);
    Erasure { whose, legal_basis: "KG-LAW-58-9".into(), reason: "REQUESTED".into() }
}

/// Of each entry whether an ERASURE entry says that its private values were destroyed.
pub(crate) fn said_erased(log: &Log) -> Vec<bool> {
    let mut said = vec![false; log.checkpoint().size as usize];
    let mut at = log.first();
    while at < log.checkpoint().size {
        let read = match log.read(at, 1_000) {
            // Pruned since it was looked where the log begins.
            Err(LogError::Pruned { first, .. }) => {
                at = first;
                continue;
            }
            read => read.unwrap(),
        };
        for entry in read {
            at += 1;
            for range in <Entry as prost::Message>::decode(entry).unwrap().erased {
                said[range.first as usize..(range.first + range.count) as usize].fill(true);
            }
        }
    }
    said
}

/// Checks of an entry that its private half opens, or else that the log says it was erased; gives whether it opens.
pub(crate) fn opens(log: &Log, said_erased: &[bool], index: u64) -> bool {
    match (log.read_private(index), said_erased[index as usize]) {
        (Ok(_) | Err(LogError::NoPrivate { .. }), false) => true,
        (Err(LogError::Erased { .. }), true) => false,
        (other, said) => panic!("entry {index}: {:?}, said to be erased: {said}", other.map(drop)),
    }
}

/// Checks of an entry of whose erasure somebody was told that it cannot be opened, and that the log says so; one that
/// says so itself has nothing to erase.
pub(crate) fn is_erased(log: &Log, said_erased: &[bool], index: u64) {
    match log.read_private(index) {
        Err(LogError::NoPrivate { .. }) => {}
        Err(LogError::Erased { .. }) if said_erased[index as usize] => {}
        other => panic!("entry {index}: {:?}", other.map(drop)),
    }
}

/// The exchange id in an entry's bytes.
pub(crate) fn id_of(entry: bytes::Bytes) -> Uuid {
    let entry = <Entry as prost::Message>::decode(entry).unwrap();
    Uuid::from_slice(&entry.exchange_id).unwrap()
}

/// All entries' exchange ids, in order.
pub(crate) fn all_ids(log: &Log) -> Vec<Uuid> {
    let mut ids = Vec::new();
    loop {
        let entries = log.read(ids.len() as u64, 1_000).unwrap();
        if entries.is_empty() {
            return ids;
        }
        for entry in entries {
            let decoded = <Entry as prost::Message>::decode(entry.clone()).unwrap();
            // An entry of no exchange: something that is there once all the same.
            let none = Uuid::from_u128(ids.len() as u128);
            ids.push(if decoded.exchange_id.is_empty() { none } else { id_of(entry) });
        }
    }
}

const CHILD_FOLDER: &str = "KOPURO_TEST_LOG_CHILD";
const CHILD_ACKS: &str = "KOPURO_TEST_LOG_CHILD_ACKS";
const CHILD_PRUNES: &str = "KOPURO_TEST_LOG_CHILD_PRUNES";
const CHILD_ENTRIES: &str = "KOPURO_TEST_LOG_CHILD_ENTRIES";

/// This test binary again, as a writer of the log in `folder`: appends from `appenders` tasks until it is killed or
/// has appended `entries`, and writes `index id` to `acks` (a file, or its standard output) for each acknowledged one.
/// One of the tasks erases private values now and then, and writes which.
pub(crate) fn writer_child(folder: &Path, acks: Option<&Path>, entries: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "log_support::child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD_FOLDER, folder).env(CHILD_ENTRIES, entries.to_string());
    if let Some(acks) = acks {
        command.env(CHILD_ACKS, acks);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// One line of acknowledgement, as the child writes it.
pub(crate) fn parse_ack(line: &str) -> Option<(u64, Uuid)> {
    let (index, id) = line.strip_prefix("ack ")?.split_once(' ')?;
    Some((index.parse().ok()?, id.parse().ok()?))
}

/// One line of an erasure that is done: its first index and how many.
pub(crate) fn parse_erased(line: &str) -> Option<(u64, u64)> {
    let (first, count) = line.strip_prefix("erased ")?.split_once(' ')?;
    Some((first.parse().ok()?, count.parse().ok()?))
}

/// The child's side of [`writer_child`]; does nothing when it runs as an ordinary test.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let entries: u64 = std::env::var(CHILD_ENTRIES).unwrap().parse().unwrap();
    let acks: Option<std::fs::File> = std::env::var_os(CHILD_ACKS).map(|path| std::fs::File::create(path).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (log, _) = open(Path::new(&folder)).unwrap();
        if std::env::var_os(CHILD_PRUNES).is_some() {
            // All but the last hundred, again and again.
            let log = log.clone();
            tokio::task::spawn_blocking(move || {
                loop {
                    let until = log.checkpoint().size.saturating_sub(100);
                    log.set_published(until);
                    let rule = Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until };
                    log.prune(&rule, 0).unwrap();
                }
            });
        }
        let (left, acks) = (Arc::new(AtomicU64::new(entries)), Arc::new(acks));
        let appenders = (0..24).map(|number| {
            let (log, left, acks) = (log.clone(), Arc::clone(&left), Arc::clone(&acks));
            tokio::spawn(async move {
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let id = Uuid::now_v7();
                    let mut draft = draft(Kind::RequestSent, id);
                    // One in many is large: several parts of a record.
                    if id.as_bytes()[15].is_multiple_of(64) {
                        draft.set(Slot::Query, vec![number; 20_000]);
                    }
                    let appended = log.append(draft.seal()).await.unwrap();
                    // One write, so that lines do not mix and none is half written when the process is killed.
                    let tell = |line: String| match &*acks {
                        Some(file) => (&*file).write_all(line.as_bytes()).unwrap(),
                        None => std::io::stdout().write_all(line.as_bytes()).unwrap(),
                    };
                    tell(format!("ack {} {id}\n", appended.index));
                    if number == 0 && id.as_bytes()[15].is_multiple_of(8) {
                        let (first, count) = (appended.index / 2, 3);
                        log.erase(erasure(first, count), 1_790_000_000_000 + appended.index as i64).await.unwrap();
                        tell(format!("erased {first} {count}\n"));
                    }
                }
            })
        });
        for appender in appenders.collect::<Vec<_>>() {
            appender.await.unwrap();
        }
        log.close().await;
    });
}
