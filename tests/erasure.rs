//! Erased private values are gone for good, the log says whose, and it still verifies.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kopuro::log::closed::ClosedLog;
use kopuro::log::entry::{Draft, Entry, ExchangeKey, Kind, Publication, Slot};
use kopuro::log::erasure::{Erasure, IndexRange, Whose};
use kopuro::log::hidden::Seen;
use kopuro::log::index::{EntrySource, Index, IndexOptions};
use kopuro::log::sealing_key::SealingKeySource;
use kopuro::log::verify::verify_folder;
use kopuro::log::{Log, LogError};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::{CONSUMER, Federation, Running};
use crate::log_support::{ORIGIN, draft, erasure, open, opens, record, said_erased, signer};

const DAY_MS: i64 = 86_400_000;
/// When the records of [`draft`] were made.
const MADE: i64 = 1_790_000_000_000;
const PERSON: &[u8] = b"20101199912345";

async fn log_of(folder: &Path, size: usize) -> (Log, Vec<Uuid>) {
    let (log, _) = open(folder).unwrap();
    let ids: Vec<Uuid> = (0..size).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        log.append(record(*id)).await.unwrap();
    }
    (log, ids)
}

fn entry(log: &Log, index: u64) -> Entry {
    Entry::decode(log.read(index, 1).unwrap().remove(0)).unwrap()
}

/// The shred key of an entry, as docs/protocol.md says where it lies.
fn shred_key(folder: &Path, index: usize) -> Vec<u8> {
    fs::read(folder.join("shred/00000000.keys")).unwrap()[32 * index..32 * (index + 1)].to_vec()
}

/// Whether these bytes are in any file under a folder.
fn lies_in(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|file| {
        let path = file.unwrap().path();
        if path.is_dir() {
            return lies_in(&path, bytes);
        }
        fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &to.join(file.file_name())),
            false => drop(fs::copy(file.path(), to.join(file.file_name())).unwrap()),
        }
    }
}

#[tokio::test]
async fn what_is_erased_is_nowhere_and_the_log_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let (log, ids) = log_of(folder.path(), 40).await;
    let root_before = log.checkpoint();
    let keys: Vec<Vec<u8>> = (0..40).map(|index| shred_key(folder.path(), index)).collect();
    assert!(lies_in(folder.path(), &keys[7]), "the test would see it");
    assert!(!lies_in(folder.path(), PERSON), "a person's number in the clear");

    let whose = Whose::Exchanges(vec![ids[7], ids[8], ids[30]]);
    let order = Erasure { whose, legal_basis: "KG-LAW-58-9".into(), reason: "REQUESTED".into() };
    let erased = log.erase(order.clone(), MADE + 5).await.unwrap();
    assert_eq!((erased.entries, &erased.recorded[..]), (3, &[40][..]));
    let said = entry(&log, 40);
    assert_eq!((said.kind(), said.publication(), said.time_unix_ms), (Kind::Erasure, Publication::Public, MADE + 5));
    assert_eq!((said.legal_basis.as_str(), said.reason.as_str()), ("KG-LAW-58-9", "REQUESTED"));
    assert_eq!(said.erased, [IndexRange { first: 7, count: 2 }, IndexRange { first: 30, count: 1 }]);
    assert!(said.exchange_id.is_empty() && said.commitment.len() == 32);

    let said = said_erased(&log);
    for index in 0..=40 {
        assert_eq!(opens(&log, &said, index), ![7, 8, 30].contains(&index));
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(lies_in(folder.path(), key), ![7, 8, 30].contains(&index), "shred key {index}");
    }
    // Twice is nothing.
    assert_eq!(log.erase(order, MADE + 6).await.unwrap().entries, 0);
    assert_eq!(log.checkpoint().size, 41);
    let proof = log.consistency_proof(root_before.size, 41).unwrap();
    kopuro::log::proof::verify_consistency(40, root_before.root, 41, log.checkpoint().root, &proof).unwrap();
    log.close().await;

    assert_eq!(verify_folder(folder.path(), &signer(1).verifier()).unwrap().size, 41);
    let (log, _) = open(folder.path()).unwrap();
    assert!(matches!(log.read_private(7), Err(LogError::Erased { index: 7 })));
    log.close().await;
}

#[tokio::test]
async fn an_older_copy_of_the_halves_opens_with_no_key_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = log_of(folder.path(), 10).await;
    log.close().await;
    let older = tempfile::tempdir().unwrap();
    copy(&folder.path().join("sled"), &older.path().join("sled"));
    fs::copy(folder.path().join("head"), older.path().join("head")).unwrap();
    let (log, _) = open(folder.path()).unwrap();
    log.erase(erasure(4, 1), MADE).await.unwrap();
    log.close().await;

    // Everything that is left, beside the halves as they were before.
    copy(&folder.path().join("shred"), &older.path().join("shred"));
    fs::copy(folder.path().join("seal.key"), older.path().join("seal.key")).unwrap();
    let closed = ClosedLog::open(older.path()).unwrap();
    let unsealed = closed.unseal(&SealingKeySource::in_folder(older.path())).unwrap();
    assert!(unsealed.read_private(3).is_ok(), "the copy is whole");
    assert!(matches!(unsealed.read_private(4), Err(LogError::Erased { index: 4 })));
}

#[tokio::test]
async fn by_age_a_delayed_entry_waits_until_it_could_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let of = |publication, delay_days, time| {
        let mut draft = Draft::new(Kind::Refused, Uuid::now_v7(), time, &ExchangeKey::generate());
        (draft.publication, draft.delay_days) = (publication, delay_days);
        draft.set(Slot::Subject, PERSON);
        draft.seal()
    };
    let records = [
        of(Publication::Public, 0, MADE),
        of(Publication::Delayed, 30, MADE + 1),
        of(Publication::Sealed, 0, MADE + 2),
        of(Publication::Delayed, 1, MADE + 3),
        of(Publication::Public, 0, MADE + 20 * DAY_MS),
        of(Publication::Sealed, 0, MADE + 20 * DAY_MS),
    ];
    for record in records {
        log.append(record).await.unwrap();
    }
    let before = |time| Erasure { whose: Whose::Before(time), legal_basis: "KG-LAW-58-9".into(), reason: "AGE".into() };
    let erased = log.erase(before(MADE + 10 * DAY_MS), MADE + 20 * DAY_MS).await.unwrap();
    assert_eq!((erased.entries, &erased.recorded[..]), (3, &[6][..]));
    let ranges = [IndexRange { first: 0, count: 1 }, IndexRange { first: 2, count: 2 }];
    assert_eq!(entry(&log, 6).erased, ranges, "the delayed one of 30 days stays, and what is younger");
    // Its delay over, it goes with the others.
    let erased = log.erase(before(MADE + 40 * DAY_MS), MADE + 41 * DAY_MS).await.unwrap();
    assert_eq!(erased.entries, 3);
    assert_eq!(entry(&log, 7).erased, [IndexRange { first: 1, count: 1 }, IndexRange { first: 4, count: 2 }]);
    // Entries that say so have nothing to erase: it comes to an end.
    assert_eq!(log.erase(before(i64::MAX), MADE).await.unwrap().entries, 0);
    assert!(matches!(log.read_private(7), Err(LogError::NoPrivate { index: 7 })));
    log.close().await;
}

/// The file of an intended erasure, written as docs/protocol.md says.
fn intention(size: u64, erased: IndexRange) -> Vec<u8> {
    let entry = Entry {
        kind: Kind::Erasure.into(),
        time_unix_ms: MADE + 77,
        legal_basis: "KG-LAW-58-9".into(),
        reason: "REQUESTED".into(),
        erased: vec![erased],
        ..Entry::default()
    };
    let entry = entry.encode_to_vec();
    let mut file = [b"kopuro erasing v1\n", &size.to_be_bytes()[..], &(entry.len() as u32).to_be_bytes()].concat();
    file.extend(entry);
    let digest = Sha256::digest(&file);
    file.extend(digest);
    file
}

#[tokio::test]
async fn an_erasure_broken_off_at_any_step_is_carried_out_and_said_once() {
    let range = IndexRange { first: 3, count: 4 };
    for step in ["intended", "destroyed", "said", "halves removed"] {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = log_of(folder.path(), 10).await;
        log.close().await;
        match step {
            "intended" => {}
            "destroyed" => {
                let path = folder.path().join("shred/00000000.keys");
                let mut keys = fs::read(&path).unwrap();
                for slot in keys[3 * 32..7 * 32].chunks_mut(32) {
                    slot.fill(0);
                    slot[..14].copy_from_slice(b"kopuro: erased");
                }
                fs::write(path, keys).unwrap();
            }
            _ => {
                // All of it done, but for the file's removal; of "said" the halves are still there.
                let halves = tempfile::tempdir().unwrap();
                copy(folder.path(), halves.path());
                fs::write(folder.path().join("erasing"), intention(10, range)).unwrap();
                open(folder.path()).unwrap().0.close().await;
                if step == "said" {
                    let read = |folder: &Path| sled::Config::new().path(folder.join("sled")).open().unwrap();
                    let (old, new) = (read(halves.path()), read(folder.path()));
                    for half in old.range(&[0xff][..]..) {
                        let (key, value) = half.unwrap();
                        new.insert(key, value).unwrap();
                    }
                    new.flush().unwrap();
                }
            }
        }
        fs::write(folder.path().join("erasing"), intention(10, range)).unwrap();
        for round in 0..2 {
            let (log, recovered) = open(folder.path()).unwrap();
            assert_eq!(recovered.size, 11, "{step}, {round}: one entry says so");
            let said = entry(&log, 10);
            assert_eq!((said.kind(), &said.erased[..], said.time_unix_ms), (Kind::Erasure, &[range][..], MADE + 77));
            let said = said_erased(&log);
            (0..=10).for_each(|index| _ = opens(&log, &said, index));
            assert!(!folder.path().join("erasing").exists());
            log.close().await;
        }
        verify_folder(folder.path(), &signer(1).verifier()).unwrap();
    }
}

#[tokio::test]
async fn an_intention_that_cannot_be_read_is_told_and_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = log_of(folder.path(), 3).await;
    log.close().await;
    let mut damaged = intention(3, IndexRange { first: 0, count: 1 });
    damaged[30] ^= 1;
    fs::write(folder.path().join("erasing"), &damaged).unwrap();
    let (log, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.size, 3);
    let error = log.erase(erasure(1, 1), MADE).await.unwrap_err();
    assert!(matches!(error, LogError::ErasureIncomplete(_)), "{error}");
    assert!(log.read_private(1).is_ok(), "nothing was destroyed that no entry could say");
    assert_eq!(fs::read(folder.path().join("erasing")).unwrap(), damaged);
    log.close().await;
}

#[tokio::test]
async fn many_scattered_entries_take_several_entries_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let appends: Vec<_> = (0..4_500).map(|_| log.append(draft(Kind::Refused, Uuid::now_v7()).seal())).collect();
    for batch in futures_util::future::join_all(appends).await {
        batch.unwrap();
    }
    let whose = Whose::Entries((0..2_250).map(|n| IndexRange { first: 2 * n, count: 1 }).collect());
    let order = Erasure { whose, legal_basis: "KG-LAW-58-9".into(), reason: "REQUESTED".into() };
    let erased = log.erase(order, MADE).await.unwrap();
    assert_eq!((erased.entries, erased.recorded), (2_250, vec![4_500, 4_501]));
    let said = said_erased(&log);
    assert!((0..4_500).all(|index| opens(&log, &said, index) == (index % 2 == 1)));
    assert!(entry(&log, 4_500).encoded_len() <= 65_535);
    assert_eq!(log.checkpoint().origin, ORIGIN);
    log.close().await;
}

// === The command, on a running node and on a stopped one ===

async fn kopuro_log_erase(federation: &Federation, more: &[&str]) -> (bool, String) {
    let config = federation.member_path(CONSUMER, "node.toml");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
    command.args(["log", "erase", "--node-config"]).arg(config).args(["--basis", "KG-LAW-58-9"]).args(more);
    let output = command.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_erases_an_exchange_while_the_node_runs_and_when_it_does_not() {
    let mut running = Running::start().await;
    let desk = ProbeClient::new(running.desk().await);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = desk.clone().with("kopuro-subject", "20101199912345").unary("hello").await.unwrap();
        ids.push(answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().to_owned());
    }
    let log = running.consumer.log().unwrap().clone();
    let size = log.checkpoint().size;
    assert_eq!((size, (0..4).filter(|index| log.read_private(*index).is_ok()).count()), (4, 4));

    let (done, said) = kopuro_log_erase(&running.federation, &["--exchange", &ids[0]]).await;
    assert!(done && said.contains("of 2 entries, said in entry 4"), "{said}");
    assert!((0..4).all(|index| log.read_private(index).is_ok() == (index > 1)));
    assert_eq!(entry(&log, 4).reason, "REQUESTED");
    let (done, said) = kopuro_log_erase(&running.federation, &["--exchange", &ids[0]]).await;
    assert!(done && said.contains("nothing to erase"), "{said}");
    drop(log);
    // The node goes on as before.
    desk.clone().unary("hello").await.unwrap();
    drop(desk);
    let federation = running.stop().await;

    let (done, said) = kopuro_log_erase(&federation, &["--older-than", "0", "--reason", "TERM_OVER"]).await;
    assert!(done && said.contains("of 4 entries, said in entry 7"), "{said}");
    let (done, said) = kopuro_log_erase(&federation, &["--exchange", &ids[1], "--reason", "because"]).await;
    assert!(!done && said.contains("in capitals"), "{said}");
    let (done, said) = kopuro_log_erase(&federation, &[]).await;
    assert!(!done && said.contains("--exchange"), "{said}");
    let data = federation.member_path(CONSUMER, "data");
    assert_eq!(verify_folder(&data, federation.log_key(CONSUMER)).unwrap().size, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_entries_and_the_index_of_subjects_forget_what_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for class in [Publication::Sealed, Publication::Delayed, Publication::Public] {
        let mut draft = draft(Kind::Refused, Uuid::now_v7());
        (draft.publication, draft.delay_days) = (class, u32::from(class == Publication::Delayed) * 30);
        log.append(draft.seal()).await.unwrap();
    }
    let index = Index::open(IndexOptions::new(folder.path()), Arc::new(log.clone())).unwrap();
    let known = |index: &Index| {
        index.catch_up().unwrap();
        index.of_subject(b"20101199912345", None, 10, Instant::now() + Duration::from_secs(60)).unwrap().openings
    };
    assert_eq!(known(&index), [2, 1, 0]);
    let hidden = |seen: Vec<Seen>| seen.iter().map(Seen::stays_hidden).collect::<Vec<_>>();
    assert_eq!(hidden(log.read_seen(0, 10).unwrap()), [false; 3]);

    log.erase(erasure(0, 2), 1).await.unwrap();
    assert_eq!(known(&index), [2]);
    assert_eq!(hidden(log.read_seen(0, 10).unwrap()), [true, true, false, false]);
    let halves = log.read_with_private(0, 10).unwrap();
    assert_eq!(halves.iter().map(|(_, half)| half.is_some()).collect::<Vec<_>>(), [false, false, true, false]);
    drop(index);
    log.close().await;

    // The same on a stopped folder, which has its key; without it all of them are hidden and nobody is found.
    let look = || {
        let closed = Arc::new(ClosedLog::open(folder.path()).unwrap());
        let index = Index::open(IndexOptions::new(folder.path()), closed.clone()).unwrap();
        let found = closed.pseudonym(b"20101199912345").map(|_| known(&index));
        (hidden(closed.read_seen(0, 10).unwrap()), found)
    };
    assert_eq!(look(), (vec![true, true, false, false], Some(vec![2])));
    let key = folder.path().join("seal.key");
    fs::write(&key, [7; 32]).unwrap();
    assert_eq!(look(), (vec![true, true, false, false], None), "another key is none");
    fs::remove_file(&key).unwrap();
    assert_eq!(look().1, None);
}
