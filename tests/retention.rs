//! Published entries leave the store by age or size, and nothing else does; what is left proves as before.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kopuro::log::closed::ClosedLog;
use kopuro::log::entry::{Draft, ExchangeKey, Kind, Publication, Slot};
use kopuro::log::erasure::{Erasure, Whose};
use kopuro::log::index::{Filter, Index, IndexOptions, Query};
use kopuro::log::retention::{Keeper, Retention};
use kopuro::log::tree::Hash;
use kopuro::log::verify::verify_folder;
use kopuro::log::{Checkpoint, Log, LogError, Prune, proof};
use uuid::Uuid;

use crate::log_support::{id_of, open, opens, parse_ack, said_erased, signer, writer_child};

const DAY_MS: i64 = 86_400_000;
const MADE: i64 = 1_790_000_000_000;
const ALL: Prune = Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until: u64::MAX };

fn draft(kind: Kind, id: Uuid, time: i64) -> Draft {
    let mut draft = Draft::new(kind, id, time, &ExchangeKey::generate());
    draft.publication = Publication::Public;
    draft.consumer = "KG/GOV/70000006/tax-service".into();
    draft.set(Slot::Subject, "20101199912345");
    draft
}

/// Appends refused calls, an hour between two of them, in commits of one and more.
async fn append(log: &Log, count: u64, from: i64) -> Vec<Arc<Checkpoint>> {
    let mut checkpoints = Vec::new();
    let mut made = 0;
    while made < count {
        let together = (1 + made % 5).min(count - made);
        let times = (made..made + together).map(|n| from + n as i64 * DAY_MS / 24);
        let appends = times.map(|time| log.append(draft(Kind::Refused, Uuid::now_v7(), time).seal()));
        let appended = futures_util::future::try_join_all(appends).await.unwrap();
        checkpoints.extend(appended.into_iter().map(|appended| appended.checkpoint));
        made += together;
    }
    checkpoints.dedup_by_key(|checkpoint| checkpoint.size);
    checkpoints
}

/// Every proof that can be asked for between entries that are kept, checked.
fn proofs_hold(log: &Log, checkpoints: &[Arc<Checkpoint>]) {
    let first = log.first();
    let kept: Vec<_> = checkpoints.iter().filter(|checkpoint| checkpoint.size >= first).collect();
    for (at, newer) in kept.iter().enumerate().step_by(53) {
        for older in kept[..=at].iter().step_by(29) {
            let path = log.consistency_proof(older.size, newer.size).unwrap();
            proof::verify_consistency(older.size, older.root, newer.size, newer.root, &path).unwrap();
        }
        for index in (first..newer.size).step_by(211) {
            let leaf = Hash::of_leaf(&log.read(index, 1).unwrap()[0]);
            let path = log.inclusion_proof(index, newer.size).unwrap();
            proof::verify_inclusion(leaf, index, newer.size, &path, newer.root).unwrap();
        }
    }
}

fn is_pruned(error: &LogError, at: u64) -> bool {
    matches!(error, LogError::Pruned { index, published, .. } if *index == at && published == "https://kg.example/log/")
}

#[tokio::test]
async fn what_is_pruned_is_published_and_the_rest_proves_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let mut checkpoints = append(&log, 1_500, MADE).await;
    assert_eq!(log.prune(&ALL, MADE).unwrap(), 0, "nobody has said that anything is published");
    let mut first = 0;
    // Cuts at all kinds of places: in a tile, at its edge, in the one after, far on.
    for published in [3, 255, 256, 300, 700, 1_024, 1_101, 1_500] {
        log.set_published(published);
        log.set_published(published - 1);
        log.prune(&ALL, MADE).unwrap();
        assert!(log.first() <= published && log.first() + 5 > published, "{} of {published}", log.first());
        first = log.first();
        proofs_hold(&log, &checkpoints);
        let error = log.read(first - 1, 10).unwrap_err();
        assert!(is_pruned(&error, first - 1), "{error}");
        assert!(log.read_private(first - 1).is_ok(), "private halves stay");
    }
    assert!(
        is_pruned(&log.inclusion_proof(0, first + 1).map(drop).err().unwrap_or(LogError::Closed), 0) || first == 1_500
    );
    checkpoints.extend(append(&log, 300, MADE + 1_500 * DAY_MS / 24).await);
    log.set_published(u64::MAX);
    let rule = Prune { until: 1_600, ..ALL };
    log.prune(&rule, MADE).unwrap();
    first = log.first();
    assert!(first > 1_590 && first <= 1_600, "no further than the index has got");
    proofs_hold(&log, &checkpoints);
    let root = log.checkpoint().root;
    log.close().await;

    // All the same after opening again, for an auditor, and on the closed folder.
    let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
    assert_eq!((verified.size, verified.first), (1_800, first));
    let closed = ClosedLog::open(folder.path()).unwrap();
    assert!(is_pruned(&closed.read(0, 1).unwrap_err(), 0));
    assert_eq!(closed.read(first, 1).unwrap().len(), 1);
    drop(closed);
    let (log, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.size, log.checkpoint().root, log.first()), (1_800, root, first));
    checkpoints.extend(append(&log, 700, MADE).await);
    proofs_hold(&log, &checkpoints);
    assert!(is_pruned(&log.inclusion_proof(9, 2_000).unwrap_err(), 9));
    assert!(is_pruned(&log.consistency_proof(999, 2_000).unwrap_err(), 999));
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &signer(1).verifier()).unwrap().size, 2_500);
}

#[tokio::test]
async fn a_base_that_was_tampered_with_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    append(&log, 100, MADE).await;
    log.set_published(100);
    log.prune(&ALL, MADE).unwrap();
    append(&log, 10, MADE).await;
    log.close().await;
    {
        let db = sled::Config::new().path(folder.path().join("sled")).open().unwrap();
        let mut base = db.get([0xfe, 1]).unwrap().unwrap().to_vec();
        base[12] ^= 1;
        db.insert([0xfe, 1], base).unwrap();
        db.flush().unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert!(verify_folder(folder.path(), &signer(1).verifier()).is_err());
}

#[tokio::test]
async fn by_age_by_size_and_not_what_is_still_to_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    append(&log, 240, MADE).await;
    let mut delayed = draft(Kind::Refused, Uuid::now_v7(), MADE + 10 * DAY_MS);
    (delayed.publication, delayed.delay_days) = (Publication::Delayed, 90);
    let delayed = log.append(delayed.seal()).await.unwrap().index;
    append(&log, 240, MADE + 10 * DAY_MS).await;
    log.set_published(u64::MAX);
    let idle = Retention {
        private_values: None,
        entries: None,
        entries_size: None,
        legal_basis: "KG-LAW-58-9".into(),
        every: Duration::from_secs(3_600),
    };
    let round = async |retention: &Retention, now: i64| {
        let (log, retention) = (log.clone(), retention.clone());
        tokio::task::spawn_blocking(move || retention.round(&log, u64::MAX, now, || true).unwrap()).await.unwrap()
    };
    assert_eq!(round(&idle, i64::MAX).await.pruned, 0);

    let by_age = Retention { entries: Some(Duration::from_secs(30 * 86_400)), ..idle.clone() };
    round(&by_age, MADE + 35 * DAY_MS).await;
    // Five days of twenty-four, to the end of a commit.
    assert!((116..=120).contains(&log.first()), "{}", log.first());
    let by_size = Retention { entries_size: Some(1), ..idle.clone() };
    round(&by_size, MADE + 35 * DAY_MS).await;
    assert_eq!(log.first(), delayed, "a delayed entry stays until it can be opened, and what is after it");
    round(&by_age, MADE + 60 * DAY_MS).await;
    assert_eq!(log.first(), delayed);
    let half = Retention { entries_size: Some(10_000), ..idle.clone() };
    round(&half, MADE + 101 * DAY_MS).await;
    let kept: usize = {
        let mut bytes = 0;
        let mut at = log.first();
        while at < log.checkpoint().size {
            for entry in log.read(at, 1_000).unwrap() {
                bytes += entry.len();
                at += 1;
            }
        }
        bytes
    };
    assert!(kept > 9_000 && kept < 11_000, "{kept}");

    // Private values by age, of pruned entries too.
    assert!(log.first() > delayed);
    let private = Retention { private_values: Some(Duration::from_secs(30 * 86_400)), ..idle };
    let erased = round(&private, MADE + 35 * DAY_MS).await.erased;
    // By day where an entry is pruned, exactly where it is not.
    assert!((96..=120).contains(&erased.entries), "{erased:?}");
    assert!(log.read_private(90).is_err() && log.read_private(130).is_ok());
    round(&private, MADE + 200 * DAY_MS).await;
    assert!((0..=480).all(|index| matches!(log.read_private(index), Err(LogError::Erased { .. }))));
    assert_eq!(round(&private, MADE + 200 * DAY_MS).await.erased.entries, 0);
    log.close().await;
    verify_folder(folder.path(), &signer(1).verifier()).unwrap();
}

#[tokio::test]
async fn exchanges_open_at_the_cut_are_still_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let ids: Vec<Uuid> = (0..600).map(|_| Uuid::now_v7()).collect();
    for (at, id) in ids.iter().enumerate() {
        let mut opening = draft(Kind::RequestSent, *id, MADE);
        if at % 2 == 0 {
            opening.publication = Publication::Sealed;
        }
        log.append(opening.seal()).await.unwrap();
    }
    for id in &ids[..250] {
        log.append(draft(Kind::ResponseReceived, *id, MADE).seal()).await.unwrap();
    }
    log.set_published(u64::MAX);
    assert_eq!(log.prune(&Prune { until: 700, ..ALL }, MADE).unwrap(), 700);
    log.close().await;
    let (log, recovered) = open(folder.path()).unwrap();
    let open_ids: Vec<Uuid> = recovered.open_exchanges.iter().map(|open| open.exchange_id).collect();
    assert_eq!(open_ids, ids[250..], "closed by entries before the cut, behind it, or not at all");
    assert_eq!(recovered.open_exchanges[0].entry.consumer, "KG/GOV/70000006/tax-service");
    log.close().await;
}

#[tokio::test]
async fn the_index_keeps_what_it_has_and_builds_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    append(&log, 500, MADE).await;
    let last = id_of(log.read(499, 1).unwrap().remove(0));
    let options = IndexOptions { segment_entries: 64, ..IndexOptions::new(folder.path()) };
    let openings = |index: &Index| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let query = Query { filter: Filter::default(), newest_first: false, after: None, limit: 1_000, deadline };
        index.query(&query).unwrap().openings
    };
    let index = Index::open(options.clone(), Arc::new(log.clone())).unwrap();
    index.catch_up().unwrap();
    assert_eq!(openings(&index).len(), 500);
    drop(index);
    log.set_published(u64::MAX);
    log.prune(&Prune { until: 200, ..ALL }, MADE).unwrap();
    let first = log.first();

    let index = Index::open(options.clone(), Arc::new(log.clone())).unwrap();
    index.catch_up().unwrap();
    assert_eq!(openings(&index).len(), 500, "sealed segments stay");
    drop(index);
    std::fs::remove_dir_all(&options.folder).unwrap();
    let index = Index::open(options.clone(), Arc::new(log.clone())).unwrap();
    index.catch_up().unwrap();
    assert_eq!(openings(&index), (first..500).collect::<Vec<_>>(), "what is there");
    assert_eq!(index.find(last.as_bytes()).unwrap(), [499]);
    // And these are taken over again.
    let index = Index::open(options, Arc::new(log.clone())).unwrap();
    index.catch_up().unwrap();
    assert_eq!(openings(&index), (first..500).collect::<Vec<_>>());
    log.close().await;
}

/// Raises a flag when dropped.
struct Raises(Arc<AtomicBool>);

impl Drop for Raises {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_prunes_and_erases_beside_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let retention = Retention {
        private_values: Some(Duration::from_secs(1)),
        entries: Some(Duration::from_secs(1)),
        entries_size: None,
        legal_basis: "KG-LAW-58-9".into(),
        every: Duration::from_millis(20),
    };
    let (index, follower) = Index::follow(IndexOptions::new(folder.path()), &log).unwrap();
    let keeper = Keeper::start(retention, log.clone(), index).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    // Also where the test fails: the runtime waits for the reader.
    let stop_reader = Raises(Arc::clone(&done));
    let reader = {
        let (log, done) = (log.clone(), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            // What it reads is right, or it is told that it came too late.
            while !done.load(Ordering::Relaxed) {
                let (size, first) = (log.checkpoint().size, log.first());
                match log.read(first, 100) {
                    Ok(_) | Err(LogError::Pruned { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                if let Some(index) = size.checked_sub(1) {
                    match log.inclusion_proof(index, size) {
                        Ok(_) | Err(LogError::Pruned { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut appended, mut said) = (0, false);
    while appended < 600 || !said || log.first() < 300 {
        append(&log, 50, MADE).await;
        appended += 50;
        log.set_published(log.checkpoint().size);
        said = said_erased(&log).contains(&true);
        if Instant::now() > deadline {
            break;
        }
    }
    drop(stop_reader);
    assert!(said && log.first() >= 300, "{appended} appended, first {}, {said}", log.first());
    reader.await.unwrap();
    drop((keeper, follower));
    log.close().await;
    let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
    assert!(verified.first >= 300 && verified.size > verified.first);
}

#[test]
fn pruning_killed_at_any_moment_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u64, Uuid)> = Vec::new();
    let mut cuts = Vec::new();
    for round in 0..12 {
        let mut child = pruning_child(folder.path()).spawn().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(output);
        let enough = acknowledged.len() + 150 + 61 * (round % 5);
        for line in lines.by_ref() {
            acknowledged.extend(parse_ack(&line.unwrap()));
            if acknowledged.len() >= enough {
                break;
            }
        }
        child.kill().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse_ack(&line)));
        child.wait().unwrap();
        assert!(acknowledged.len() >= enough, "the child died by itself");
        let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
        cuts.push(verified.first);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, recovered) = open(folder.path()).unwrap();
    let said = said_erased(&log);
    for (index, id) in &acknowledged {
        assert!(*index < recovered.size);
        match log.read(*index, 1) {
            Ok(entries) => assert_eq!(id_of(entries[0].clone()), *id, "entry {index}"),
            Err(error) => assert!(*index < log.first() && matches!(error, LogError::Pruned { .. }), "{error}"),
        }
        if *index >= log.first() {
            opens(&log, &said, *index);
        }
    }
    println!("{} entries, cut at {cuts:?}", recovered.size);
    assert!(cuts.windows(2).filter(|pair| pair[1] > pair[0]).count() > 5, "{cuts:?}");
    runtime.block_on(log.close());
}

/// The tests' writer, pruning as it goes.
fn pruning_child(folder: &Path) -> std::process::Command {
    let mut command = writer_child(folder, None, u64::MAX);
    command.env("KOPURO_TEST_LOG_CHILD_PRUNES", "1");
    command
}

#[tokio::test]
async fn values_of_pruned_entries_can_be_erased_by_their_indices() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    append(&log, 50, MADE).await;
    let id = id_of(log.read(3, 1).unwrap().remove(0));
    log.set_published(50);
    log.prune(&ALL, MADE).unwrap();
    let order = |whose| Erasure { whose, legal_basis: "KG-LAW-58-9".into(), reason: "REQUESTED".into() };
    assert_eq!(log.erase(order(Whose::Exchanges(vec![id])), MADE).await.unwrap().entries, 0);
    let range = kopuro::log::erasure::IndexRange { first: 3, count: 1 };
    assert_eq!(log.erase(order(Whose::Entries(vec![range])), MADE).await.unwrap().entries, 1);
    assert!(matches!(log.read_private(3), Err(LogError::Erased { index: 3 })));
    log.close().await;
}
