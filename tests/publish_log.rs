//! A log published without a node around it: sizes that nodes take days to reach, and cosignatures that do not come.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use kopuro::log::tile::{Kind, Tile};
use kopuro::log::{Checkpoint, Log, LogError, Prune};
use kopuro::oversight::publish::{Publication, PublishOptions, Store};
use kopuro::telemetry::Health;
use kopuro::trust::note::Signer;
use uuid::Uuid;

use crate::harness::published::Published;
use crate::log_support::{erasure, open, record, signer};

fn options(folder: &Path, store: &Path) -> PublishOptions {
    PublishOptions {
        node: "KG/GOV/1/_node/main".into(),
        folder: folder.to_owned(),
        store: Some(Store::open(&store.to_string_lossy()).unwrap()),
        interval: Duration::from_millis(20),
        open_data: false,
        directory: folder.join("directory.note"),
        grants: Arc::new(|| None),
        portal: None,
        cosign: None,
    }
}

async fn append(log: &Log, count: u64) {
    let mut left = count;
    while left > 0 {
        let now = left.min(4_000);
        futures_util::future::join_all((0..now).map(|_| log.append(record(Uuid::now_v7())))).await;
        left -= now;
    }
}

async fn published(publication: &Publication, size: u64) -> Arc<Checkpoint> {
    let mut published = publication.published();
    let done = published.wait_for(|published| published.as_ref().is_some_and(|published| published.size == size));
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("in time").unwrap().clone().unwrap()
}

async fn start(log: &Log, options: PublishOptions) -> Publication {
    Publication::start(log.clone(), options, Health::starting()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_past_two_tile_levels_is_published_and_only_what_is_new_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("public");
    let (log, _) = open(&folder.path().join("log")).unwrap();
    append(&log, 65_536 + 300).await;
    let publication = start(&log, options(folder.path(), &store)).await;
    published(&publication, 65_836).await;
    let mut settled = publication.settled();
    let full_bundles = settled.wait_for(|settled| *settled == 65_792);
    tokio::time::timeout(Duration::from_secs(10), full_bundles).await.expect("full bundles are settled").unwrap();
    let reader = Published::folder(&store);
    reader.verify(&signer(1).verifier()).await;
    let made = |path: &str| std::fs::metadata(store.join(path)).unwrap().modified().unwrap();
    let (full, upper) = (made("tile/entries/200"), made("tile/1/000"));

    append(&log, 1_000).await;
    published(&publication, 66_836).await;
    publication.finish(Duration::from_secs(5)).await;
    let publication = start(&log, options(folder.path(), &store)).await;
    append(&log, 1).await;
    published(&publication, 66_837).await;
    let (checkpoint, _) = reader.verify(&signer(1).verifier()).await;
    assert_eq!((checkpoint.size, checkpoint.root), (66_837, log.root_at(66_837).unwrap()));
    assert_eq!((made("tile/entries/200"), made("tile/1/000")), (full, upper), "what is there is left alone");
    // Partial tiles of every size that was published.
    for size in [65_836, 66_836, 66_837] {
        for tile in Tile::between(0, size).filter(|tile| !tile.is_full()) {
            assert!(store.join(tile.to_string()).exists(), "{tile} of size {size}");
        }
    }
    publication.finish(Duration::from_secs(5)).await;
    log.close().await;
}

/// Everything that may go, with the log open and after it was opened again; what remains is published as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_prunes_goes_on_publishing_and_the_publication_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("public"), folder.path().join("log"));
    let all = Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until: u64::MAX };
    let key = signer(1).verifier();
    let reader = Published::folder(&store);
    let mut size = 0;
    for more in [700, 300, 20, 1] {
        // Opened again each time: tiles of what is gone are then known by the edge only.
        let (log, _) = open(&data).unwrap();
        let publication = start(&log, options(folder.path(), &store)).await;
        for _ in 0..2 {
            append(&log, more).await;
            size += more;
            published(&publication, size).await;
            let mut settled = publication.settled();
            let told = settled.wait_for(|settled| *settled == size - size % 256);
            tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is settled").unwrap();
            log.prune(&all, i64::MAX).unwrap();
            let (checkpoint, entries) = reader.verify(&key).await;
            assert_eq!((checkpoint.size, entries.len() as u64), (size, size));
            assert_eq!(checkpoint.root, log.checkpoint().root);
        }
        assert!(log.first() <= size - size % 256, "what is in no full bundle stays");
        assert_eq!(log.read(log.first(), 1).unwrap()[0], reader.verify(&key).await.1[log.first() as usize]);
        let error = log.read(log.first() - 1, 1).unwrap_err();
        assert!(matches!(error, LogError::Pruned { .. }) && error.to_string().contains("https://kg.example/log/"));
        publication.finish(Duration::from_secs(5)).await;
        log.close().await;
    }
    let (log, _) = open(&data).unwrap();
    assert!(log.first() > 1_500, "{}", log.first());
    assert_eq!(log.erase(erasure(3, 1), 1).await.unwrap().recorded, [size], "its values went later than the entry");
    log.close().await;

    // Nor has anybody who compares the two anything to say against it.
    let fsck = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
        command.args(["log", "fsck", "--vkey", &key.to_string(), "--data"]).arg(&data).arg("--published").arg(&store);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (good, told) = fsck();
    assert!(good && told.contains("pruned") && told.contains("private    good"), "{told}");
    let last = Tile::between(0, size).filter(|tile| tile.kind == Kind::Hashes(1)).last().unwrap();
    let path = store.join(last.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (good, told) = fsck();
    assert!(!good && told.contains(&format!("{last} differs")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_when_the_log_closes_is_published_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("public");
    let (log, _) = open(&folder.path().join("log")).unwrap();
    let mut seldom = options(folder.path(), &store);
    seldom.interval = Duration::from_secs(3_600);
    let publication = start(&log, seldom).await;
    assert_eq!(published(&publication, 0).await.size, 0, "an empty log has a checkpoint too");
    append(&log, 5).await;
    publication.finish(Duration::from_secs(5)).await;
    assert_eq!(Published::folder(&store).verify(&signer(1).verifier()).await.0.size, 5);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_cosignatures_no_checkpoint_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("public");
    let (log, _) = open(&folder.path().join("log")).unwrap();
    append(&log, 300).await;
    let witness = Signer::generate("witness.example").unwrap();
    let (there, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // A stranger's checkpoint first, then none, then a good one.
    let wrong = Arc::new(Mutex::new(Some(log.checkpoint().note.replace("\n300\n", "\n301\n"))));
    let mut cosigned = options(folder.path(), &store);
    let (is_there, was_asked, key) = (there.clone(), asked.clone(), Arc::new(witness));
    let verifier = key.verifier();
    cosigned.cosign = Some(Arc::new(move |checkpoint| {
        was_asked.fetch_add(1, Ordering::SeqCst);
        let answer = match (wrong.lock().unwrap().take(), is_there.load(Ordering::SeqCst)) {
            (Some(wrong), _) => Ok(wrong),
            (None, false) => Err("1 of 2".to_owned()),
            (None, true) => {
                let text =
                    checkpoint.note.split_inclusive("\n\n").next().unwrap().trim_end_matches('\n').to_owned() + "\n";
                let line = key.sign(&text).unwrap().lines().last().unwrap().to_owned();
                Ok(format!("{}{line}\n", checkpoint.note))
            }
        };
        async move { answer }.boxed()
    }));
    let publication = start(&log, cosigned).await;
    while asked.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(publication.published().borrow().is_none());
    assert!(!store.join("checkpoint").exists(), "nothing is said before the quorum says it too");
    assert!(store.join("tile/entries/000").exists(), "tiles alone say nothing");
    there.store(true, Ordering::SeqCst);
    let shown = published(&publication, 300).await;
    let (checkpoint, _) = Published::folder(&store).verify(&signer(1).verifier()).await;
    assert_eq!(checkpoint, *shown);
    assert!(
        kopuro::trust::note::Note::parse(&shown.note).unwrap().verify(&[verifier]).is_ok(),
        "the cosignature is there"
    );
    publication.finish(Duration::from_secs(5)).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tile_hashes_of_the_log_are_those_of_its_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    append(&log, 1_000).await;
    for size in [0, 1, 255, 256, 257, 511, 512, 1_000] {
        let leaves: Vec<_> = match size {
            0 => Vec::new(),
            size => log.tile_hashes(0, 0, size).unwrap(),
        };
        assert_eq!(log.root_at(size as u64).unwrap(), crate::harness::published::root(&leaves));
    }
    for tile in Tile::between(0, 1_000) {
        if let Kind::Hashes(level) = tile.kind {
            let hashes = log.tile_hashes(level, tile.number * 256, tile.width.into()).unwrap();
            assert_eq!(hashes.len(), usize::from(tile.width));
        }
    }
    assert!(log.tile_hashes(0, 990, 11).is_err() && log.tile_hashes(1, 0, 4).is_err() && log.root_at(1_001).is_err());
    assert!(log.tile_hashes(255, u64::MAX, 256).is_err());
    log.close().await;
}

/// By hand: with an S3 service at `AWS_ENDPOINT` that has the bucket `kopuro-test` (`moto_server` will do), and `AWS_ALLOW_HTTP`,
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 service"]
async fn a_bucket_has_what_a_folder_has() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(&folder.path().join("log")).unwrap();
    let location = format!("s3://kopuro-test/{}", Uuid::now_v7());
    let store = Store::open(&location).unwrap();
    assert!(store.get("checkpoint", 1 << 16).await.unwrap().is_none());
    let mut to_bucket = options(folder.path(), folder.path());
    to_bucket.store = Some(store.clone());
    to_bucket.open_data = true;
    let publication = start(&log, to_bucket).await;
    for count in [1, 299, 700] {
        append(&log, count).await;
        published(&publication, log.checkpoint().size).await;
    }
    let copy = folder.path().join("copy");
    let files = Tile::between(0, 1_000).map(|tile| tile.to_string());
    for file in files.chain(["checkpoint".into(), "vkey".into(), "open-data/dictionary.csv".into()]) {
        let bytes = store.get(&file, 1 << 24).await.unwrap().unwrap_or_else(|| panic!("{file} is missing"));
        std::fs::create_dir_all(copy.join(&file).parent().unwrap()).unwrap();
        std::fs::write(copy.join(&file), bytes).unwrap();
    }
    Published::folder(&copy).verify(&signer(1).verifier()).await;
    assert!(store.get("tile/0/004", 1 << 24).await.unwrap().is_none());
    let large = vec![7; 20 << 20];
    let served = kopuro::oversight::publish::Served { content_type: "text/csv", cache: "no-cache" };
    store.upload("large", &large[..], served).await.unwrap();
    assert_eq!(store.get("large", 1 << 25).await.unwrap().unwrap(), large);
    store.clear("large", 10).await.unwrap();
    publication.finish(Duration::from_secs(5)).await;
    log.close().await;
}
