//! What is appended is found again: by index, with its private half, with proofs that hold under the signed checkpoint,
//! in this process and in the next.

use std::collections::HashSet;
use std::time::Duration;

use kopuro::log::entry::{Kind, MAX_ENTRY, PrivateFields};
use kopuro::log::tree::Hash;
use kopuro::log::verify::verify_folder;
use kopuro::log::{AppendError, Checkpoint, Log, LogError, LogHealth, LogOptions, Signers, proof};
use prost::Message;
use uuid::Uuid;

use crate::log_support::{all_ids, draft, open, record, signer};

#[tokio::test(flavor = "multi_thread")]
async fn entries_proofs_and_private_halves_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    let mut checkpoints = Vec::new();
    for round in 0..3_u64 {
        let (log, recovered) = open(folder.path()).unwrap();
        assert_eq!(recovered.size, ids.len() as u64);
        assert_eq!(recovered.open_exchanges.len(), ids.len(), "requests sent and never answered");
        assert_eq!(all_ids(&log), ids);
        let mut follower = log.subscribe();
        let batch: Vec<Uuid> = (0..300).map(|_| Uuid::now_v7()).collect();
        let appends = batch.iter().map(|id| {
            let (log, record) = (log.clone(), record(*id));
            tokio::spawn(async move { (log.append(record.clone()).await.unwrap(), record) })
        });
        let mut placed = vec![Uuid::nil(); 300];
        for (append, id) in appends.collect::<Vec<_>>().into_iter().zip(&batch) {
            let (appended, record) = append.await.unwrap();
            placed[(appended.index - round * 300) as usize] = *id;
            let checkpoint = Checkpoint::verify(&appended.checkpoint.note, &signer(1).verifier()).unwrap();
            let leaf = Hash::of_leaf(&record.entry);
            let path = appended.inclusion_proof();
            proof::verify_inclusion(leaf, appended.index, checkpoint.size, &path, checkpoint.root).unwrap();
            assert_eq!(path, log.inclusion_proof(appended.index, checkpoint.size).unwrap());
            assert_eq!(log.read(appended.index, 1).unwrap(), [record.entry]);
            assert_eq!(log.read_private(appended.index).unwrap(), record.private);
            checkpoints.push(appended.checkpoint);
        }
        ids.extend(placed);
        assert!(follower.has_changed().unwrap());
        assert_eq!(follower.borrow_and_update().size, ids.len() as u64);
        assert_eq!(log.checkpoint().size, ids.len() as u64);
        assert!(log.read(ids.len() as u64, 10).unwrap().is_empty());
        assert!(matches!(log.read(ids.len() as u64 + 1, 10), Err(LogError::Beyond { .. })));

        // Every checkpoint there ever was is a prefix of the latest.
        let latest = log.checkpoint();
        for old in &checkpoints {
            let path = log.consistency_proof(old.size, latest.size).unwrap();
            proof::verify_consistency(old.size, old.root, latest.size, latest.root, &path).unwrap();
        }
        assert!(matches!(log.inclusion_proof(0, latest.size + 1), Err(LogError::Beyond { .. })));
        assert!(matches!(verify_folder(folder.path(), &signer(1).verifier()), Err(LogError::Locked(_))));
        let other = log.clone();
        log.close().await;
        assert_eq!(other.append(record(Uuid::now_v7())).await.unwrap_err(), AppendError::Closed);
        assert!(matches!(other.read(0, 1), Err(LogError::Closed)));

        let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
        assert_eq!((verified.size, verified.ahead_of_head), (ids.len() as u64, 0));
        assert_eq!(verified.checkpoint.unwrap(), *latest);
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 900);
    let blobs = std::fs::read_dir(folder.path().join("sled/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled wrote files that it does not sync");
}

#[tokio::test]
async fn large_entries_pass_and_larger_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let overhead = { draft(Kind::RequestSent, Uuid::now_v7()).seal().entry.len() - 80 };
    for size in [MAX_ENTRY - overhead - 2, 60_000, 7_000, 6_500] {
        let mut draft = draft(Kind::RequestSent, Uuid::now_v7());
        draft.peer_checkpoint = "x".repeat(size);
        draft.set(kopuro::log::entry::Slot::Query, vec![1; size.min(60_000)]);
        let record = draft.seal();
        let appended = log.append(record.clone()).await.unwrap();
        assert_eq!(log.read(appended.index, 1).unwrap(), [record.entry]);
        let private = PrivateFields::decode(&log.read_private(appended.index).unwrap()[..]).unwrap();
        assert_eq!(private.fields.last().unwrap().value.len(), size.min(60_000));
    }
    let mut draft = draft(Kind::RequestSent, Uuid::now_v7());
    draft.peer_checkpoint = "x".repeat(MAX_ENTRY);
    assert!(matches!(log.append(draft.seal()).await, Err(AppendError::TooLarge(_))));
    assert_eq!(std::fs::read_dir(folder.path().join("sled/blobs")).unwrap().count(), 0);
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &signer(1).verifier()).unwrap().size, 4);
}

#[tokio::test]
async fn an_empty_log_has_a_checkpoint_and_a_key_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (log, recovered) = open(folder.path()).unwrap();
        let checkpoint = Checkpoint::verify(&log.checkpoint().note, &signer(1).verifier()).unwrap();
        assert_eq!((recovered.size, checkpoint.size, checkpoint.root), (0, 0, Hash::of_nothing()));
        log.close().await;
    }
    let another = Log::open(LogOptions::new(folder.path(), signer(2)));
    assert!(matches!(another, Err(LogError::Signature { size: 0, .. })), "{another:?}");
    assert!(matches!(verify_folder(&folder.path().join("none"), &signer(1).verifier()), Err(LogError::Missing(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_below_the_watermark_and_says_so_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = LogOptions::new(folder.path(), signer(1));
    (options.warn_free, options.refuse_free) = (u64::MAX, 0);
    let (log, _) = Log::open(options).unwrap();
    assert!(matches!(*log.health().borrow(), LogHealth::LowSpace { .. }));
    log.append(record(Uuid::now_v7())).await.unwrap();
    log.close().await;

    let mut options = LogOptions::new(folder.path(), signer(1));
    options.refuse_free = u64::MAX;
    let (log, _) = Log::open(options).unwrap();
    assert!(matches!(*log.health().borrow(), LogHealth::Refusing { until_restart: false, .. }));
    assert!(matches!(log.append(record(Uuid::now_v7())).await, Err(AppendError::Refusing(_))));
    assert_eq!(log.checkpoint().size, 1, "and what is there can still be read");
    assert_eq!(log.read(0, 10).unwrap().len(), 1);
    log.close().await;
}

#[tokio::test]
async fn detached_appends_need_room_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = LogOptions::new(folder.path(), signer(1));
    (options.queue, options.queue_wait) = (4, Duration::from_secs(20));
    (options.warn_free, options.refuse_free) = (0, 0);
    let (log, _) = Log::open(options).unwrap();
    let mut taken = 0;
    for _ in 0..2_000 {
        match log.append_detached(record(Uuid::now_v7())) {
            Ok(()) => taken += 1,
            Err(error) => assert_eq!(error, AppendError::QueueFull),
        }
    }
    // Behind them in the queue, and waiting for room in it.
    let appended = log.append(record(Uuid::now_v7())).await.unwrap();
    assert_eq!(appended.index, taken);
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &signer(1).verifier()).unwrap().size, taken + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_commit_it_refuses_until_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    log.append(record(Uuid::now_v7())).await.unwrap();
    // As if sled had written a page to a file that it does not sync: the commit cannot be vouched for.
    let blob = folder.path().join("sled/blobs/0000000000000001");
    std::fs::write(&blob, b"page").unwrap();
    let refused = log.append(record(Uuid::now_v7())).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Refusing(reason) if reason.contains("blob")), "{refused}");
    std::fs::remove_file(&blob).unwrap();
    for _ in 0..3 {
        assert_eq!(log.append(record(Uuid::now_v7())).await.unwrap_err(), refused, "for good");
    }
    assert_eq!(log.append_detached(record(Uuid::now_v7())), Err(refused));
    assert!(matches!(*log.health().borrow(), LogHealth::Refusing { until_restart: true, .. }));
    assert_eq!(log.checkpoint().size, 1, "nothing more was shown to anyone");
    log.close().await;

    // The entry had been written, whole and signed, and was not acknowledged: it counts, the head is brought forward.
    let (log, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.size, recovered.head_behind), (2, 1));
    assert_eq!(log.append(record(Uuid::now_v7())).await.unwrap().index, 2);
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &signer(1).verifier()).unwrap().ahead_of_head, 0);
}

/// The key that signs is changed while the log works: the latest checkpoint is signed by the new one at once, and whoever has only that
/// opens the log. To verify every commit takes both.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_changed_while_the_log_works() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [1, 2].map(|number| signer(number).verifier());
    let open_with = |signers: Signers, known: &[u8]| {
        let mut options = LogOptions::new(folder.path(), signers);
        (options.warn_free, options.refuse_free) = (0, 0);
        options.known_keys = known.iter().map(|number| signer(*number).verifier()).collect();
        Log::open(options)
    };
    let (log, _) = open_with(signer(1).into(), &[]).unwrap();
    log.append(record(Uuid::now_v7())).await.unwrap();
    let before = log.checkpoint();
    let elsewhere = kopuro::trust::note::Signer::generate("kg.example/elsewhere").unwrap();
    assert!(log.use_keys(elsewhere.into(), Vec::new()).await.is_err(), "another log's key");
    assert_eq!(log.checkpoint(), before);

    let mut follower = log.subscribe();
    follower.mark_unchanged();
    log.use_keys(Signers::new(signer(1), Some(signer(2))), Vec::new()).await.unwrap();
    assert!(follower.has_changed().unwrap());
    let both = log.checkpoint();
    assert_eq!((both.size, both.root), (before.size, before.root));
    for key in [&old, &new] {
        Checkpoint::verify(&both.note, key).unwrap();
    }
    assert_eq!(log.keys().signing(), [old.clone(), new.clone()]);
    // Once more changes nothing.
    follower.mark_unchanged();
    log.use_keys(Signers::new(signer(1), Some(signer(2))), Vec::new()).await.unwrap();
    assert!(!follower.has_changed().unwrap());
    log.close().await;

    // The commit is signed by the old key, the head by both.
    let (log, recovered) = open_with(signer(2).into(), &[]).unwrap();
    assert_eq!(recovered.size, 1);
    assert!(Checkpoint::verify(&log.checkpoint().note, &new).is_ok());
    let appended = log.append(record(Uuid::now_v7())).await.unwrap();
    assert!(Checkpoint::verify(&appended.checkpoint.note, &new).is_ok());
    log.close().await;
    assert_eq!(verify_folder(folder.path(), &[old, new.clone()][..]).unwrap().size, 2);
    assert!(matches!(verify_folder(folder.path(), &new), Err(LogError::Signature { .. })));

    // Changed while it was closed, it opens where somebody vouches for the key before.
    assert!(matches!(open_with(signer(3).into(), &[]), Err(LogError::Signature { .. })));
    assert!(matches!(open_with(signer(3).into(), &[1]), Err(LogError::Signature { .. })));
    let (log, _) = open_with(signer(3).into(), &[2]).unwrap();
    let latest = log.checkpoint();
    Checkpoint::verify(&latest.note, &signer(3).verifier()).unwrap();
    assert_eq!((latest.size, log.keys().signing().len(), log.keys().all().len()), (2, 1, 2));
    log.close().await;
    open_with(signer(3).into(), &[]).unwrap().0.close().await;
}
