//! A published log is checked from its tiles alone, by anybody: what is whole verifies, and whatever was changed is named.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use kopuro::log::Checkpoint;
use kopuro::log::proof::{verify_consistency, verify_inclusion};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::oversight::published::{Place, Publication, PublishedError, PublishedTree, bundles, verify};
use kopuro::trust::note::Signer;
use tempfile::TempDir;

use crate::harness::publisher::{
    Faults, WebServer, publish, publish_log, small_entries, write_checkpoint, write_tiles,
};
use crate::log_support::{ORIGIN, open, record, signer};

/// A level of full tiles below another, and partial ones at each.
const SIZE: usize = 66_345;

struct Published {
    folder: TempDir,
    entries: Vec<Bytes>,
    checkpoint: Checkpoint,
}

fn published(size: usize) -> Published {
    let folder = tempfile::tempdir().unwrap();
    let entries = small_entries(size);
    let checkpoint = publish(folder.path(), &entries, 0, &signer(1));
    Published { folder, entries, checkpoint }
}

impl Published {
    async fn tree(&self) -> Result<Arc<PublishedTree>, PublishedError> {
        tree(&Place::Folder(self.folder.path().into())).await
    }

    /// Changes one byte of a file for as long as `then` takes; gives what verification says.
    async fn with_flipped(&self, path: &str, at: usize) -> String {
        let path = self.folder.path().join(path);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let refused = match self.tree().await {
            Ok(tree) => verify(&tree, 0, 4, |_| {}).await.unwrap_err(),
            Err(error) => error,
        };
        std::fs::write(&path, good).unwrap();
        refused.to_string()
    }
}

async fn tree(place: &Place) -> Result<Arc<PublishedTree>, PublishedError> {
    let publication = Publication::new(place.clone(), None)?;
    let checkpoint = Checkpoint::verify(&publication.checkpoint().await?, &signer(1).verifier())?;
    PublishedTree::open(publication, checkpoint).await.map(Arc::new)
}

fn root(entries: &[Bytes]) -> Hash {
    let mut edge = RightEdge::default();
    entries.iter().for_each(|entry| edge.push(Hash::of_leaf(entry)));
    edge.root()
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_logs_verify_and_prove() {
    for size in [0, 1, 255, 256, 257, 1_000, 65_536, SIZE] {
        let log = published(size);
        let tree = log.tree().await.unwrap();
        assert_eq!(verify(&tree, 0, 4, |_| {}).await.unwrap(), size as u64);
        for old in [0, 1, 200, 256, 777, 65_536].into_iter().filter(|old| *old <= size) {
            let old_root = root(&log.entries[..old]);
            assert_eq!(tree.root_at(old as u64).await.unwrap(), old_root);
            let proof = tree.consistency_proof(old as u64).await.unwrap();
            verify_consistency(old as u64, old_root, size as u64, log.checkpoint.root, &proof).unwrap();
            assert_eq!(verify(&tree, old as u64, 4, |_| {}).await.unwrap(), (size - old) as u64);
        }
        for index in [0, 1, 255, 256, 900, 65_535, SIZE - 1].into_iter().filter(|index| *index < size) {
            let path = tree.inclusion_proof(index as u64).await.unwrap();
            let leaf = Hash::of_leaf(&log.entries[index]);
            verify_inclusion(leaf, index as u64, size as u64, &path, log.checkpoint.root).unwrap();
        }
        assert!(tree.inclusion_proof(size as u64).await.is_err());
        assert!(tree.root_at(size as u64 + 1).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_in_order_from_any_index() {
    use futures_util::TryStreamExt;
    let log = published(1_000);
    let tree = log.tree().await.unwrap();
    for from in [0, 1, 256, 700, 999, 1_000, 2_000] {
        let parts: Vec<(u64, Vec<Bytes>)> = bundles(&tree, from as u64, 3).try_collect().await.unwrap();
        let mut next = from;
        for (first, entries) in parts {
            assert_eq!(first, next as u64);
            assert_eq!(entries, log.entries[next..next + entries.len()]);
            next += entries.len();
        }
        assert_eq!(next, 1_000.max(from));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_is_named() {
    let log = published(SIZE);
    // Each entry is 2 bytes of length, "entry " and its number.
    for (path, at, named) in [
        ("tile/entries/000", 2, "first bad index 0: the entry in tile/entries/000 is not"),
        ("tile/entries/003", 14, "first bad index 769: the entry in tile/entries/003"),
        // 41 entries in the last, partial bundle.
        ("tile/entries/259.p/41", 2 + 40 * 13, "first bad index 66344: the entry in tile/entries/259.p/41"),
        // A length: the bundle can no longer be cut.
        ("tile/entries/004", 0, "first bad index 1024: bundle tile/entries/004"),
        ("tile/0/000", 0, "first bad tile tile/0/000:"),
        ("tile/0/258", 8_191, "first bad tile tile/0/258:"),
        ("tile/1/000", 40, "first bad tile tile/1/000:"),
        // The right border: of the leaf's hash or the entry, the entry is to blame as far as anybody can tell.
        ("tile/0/259.p/41", 35, "first bad index 66305: the entry in tile/entries/259.p/41"),
        ("tile/1/001.p/3", 64, "first bad tile tile/1/001.p/3: its hash 2 is"),
        ("tile/2/000.p/1", 0, "first bad tile tile/2/000.p/1: its hash 0 is"),
    ] {
        let refused = log.with_flipped(path, at).await;
        assert!(refused.starts_with(named), "{path}: {refused}");
    }
    // All tiles agree, and another root was signed.
    let other = published(SIZE - 1);
    write_checkpoint(
        log.folder.path(),
        &Checkpoint::sign(&signer(1), &{
            let mut edge = RightEdge::default();
            (0..SIZE).for_each(|n| edge.push(Hash::of_leaf(n.to_string().as_bytes())));
            edge
        })
        .unwrap(),
    );
    let refused = log.tree().await.unwrap_err();
    assert!(matches!(refused, PublishedError::Root { .. }), "{refused}");
    // Another key, and a checkpoint without its tiles.
    write_checkpoint(log.folder.path(), &publish(other.folder.path(), &other.entries, 0, &signer(2)));
    assert!(matches!(log.tree().await, Err(PublishedError::Checkpoint(_))));
    write_checkpoint(log.folder.path(), &log.checkpoint);
    std::fs::remove_file(log.folder.path().join("tile/1/000")).unwrap();
    let tree = log.tree().await.unwrap();
    assert!(
        matches!(verify(&tree, 0, 4, |_| {}).await, Err(PublishedError::Missing(path)) if path.ends_with("tile/1/000"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_gzipped_from_a_server_that_stumbles() {
    let log = published(1_000);
    // The partial tiles of 1,000 went when the log grew; the full ones serve.
    let more = small_entries(1_030);
    write_tiles(log.folder.path(), &more, 1_000);
    for path in ["tile/0/003.p/232", "tile/entries/003.p/232"] {
        std::fs::remove_file(log.folder.path().join(path)).unwrap();
    }
    let faults = Faults { unavailable: 1, gzip: true, ..Faults::default() };
    let server = WebServer::start(log.folder.path().into(), faults).await;
    let place: Place = server.url().parse().unwrap();
    let tree_there = tree(&place).await.unwrap();
    assert_eq!(verify(&tree_there, 0, 8, |_| {}).await.unwrap(), 1_000);

    // More than a bundle can have is not read to its end, nor unpacked.
    server.faults.lock().unwrap().instead.insert("tile/entries/001".into(), vec![0; 17 << 20]);
    let refused = verify(&tree_there, 0, 8, |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("larger than"), "{refused}");
    drop(server);
    let gone = tree(&place).await.unwrap_err();
    assert!(gone.is_transport() && gone.to_string().contains("4 attempts"), "{gone}");
}

fn kopuro(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kopuro")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A log of real entries, published and closed.
async fn real_log(folder: &Path, count: usize) -> Signer {
    let (log, _) = open(&folder.join("data")).unwrap();
    let appends = (0..count).map(|_| log.append(record(uuid::Uuid::now_v7())));
    futures_util::future::try_join_all(appends).await.unwrap();
    publish_log(&folder.join("published"), &log, 0);
    log.close().await;
    signer(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_goes_on_from_what_it_saw_and_keeps_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let vkey = real_log(folder.path(), 300).await.verifier().to_string();
    let verify = |more: &[&str]| kopuro(&[&["log", "verify", &path("published")], more].concat());

    let output = verify(&["--vkey", &vkey, "--state", &path("seen")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("verified: 300 entries, signed by kg.example/log"), "{}", stdout(&output));
    // Without a key nothing is verified.
    assert!(!verify(&[]).status.success());
    assert!(!verify(&["--vkey", &signer(2).verifier().to_string()]).status.success());
    std::fs::copy(path("published/checkpoint"), path("old")).unwrap();

    let (log, _) = open(&folder.path().join("data")).unwrap();
    futures_util::future::try_join_all((0..30).map(|_| log.append(record(uuid::Uuid::now_v7())))).await.unwrap();
    publish_log(&folder.path().join("published"), &log, 300);
    log.close().await;
    for more in [["--state", &path("seen")], ["--from", &path("old")]] {
        let output = verify(&[&["--vkey", &vkey], &more[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains("330 entries, of them 30 since"), "{}", stdout(&output));
    }

    // A log that shows less than before, and one that tells another history of the same length.
    let other = small_entries(330);
    publish(Path::new(&path("published")), &other[..10], 0, &signer(1));
    let output = verify(&["--vkey", &vkey, "--state", &path("seen")]);
    assert!(stderr(&output).contains("shows 10 entries, and has shown 330"), "{}", stderr(&output));
    publish(Path::new(&path("published")), &other, 0, &signer(1));
    let output = verify(&["--vkey", &vkey, "--state", &path("seen")]);
    assert!(!output.status.success() && stderr(&output).contains("rewritten"), "{}", stderr(&output));
    let evidence = std::fs::read_dir(path("seen")).unwrap().map(|file| file.unwrap().path());
    let evidence = evidence.filter(|path| path.extension().is_some_and(|ending| ending == "evidence"));
    let evidence: Vec<_> = evidence.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(evidence.len(), 1);
    assert_eq!(evidence[0].matches(&format!("{ORIGIN}\n330\n")).count(), 2, "{}", evidence[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let vkey = real_log(folder.path(), 300).await.verifier().to_string();
    let (published, data) = (path("published"), path("data"));
    for source in [&[published.as_str()][..], &["--data", data.as_str()]] {
        let files = ["-o", &path("7.tlog-proof"), "--entry", &path("7.entry"), "--vkey", &vkey];
        let output = kopuro(&[&["log", "proof", "7"], source, &files].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let check = |entry: &str, vkey: &str| {
            kopuro(&["log", "check-proof", &path("7.tlog-proof"), "--entry", entry, "--vkey", vkey])
        };
        let output = check(&path("7.entry"), &vkey);
        assert!(stdout(&output).contains("it is entry 7 of kg.example/log"), "{}", stderr(&output));
        assert!(!check(&path("published/checkpoint"), &vkey).status.success());
        assert!(!check(&path("7.entry"), &signer(2).verifier().to_string()).status.success());
    }
    let files = ["-o", &path("300.tlog-proof"), "--vkey", &vkey];
    for source in [&[published.as_str()][..], &["--data", data.as_str()]] {
        let output = kopuro(&[&["log", "proof", "300"], source, &files].concat());
        assert!(stderr(&output).contains("entries 0 to 299"), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_compares_everything_and_repairs_what_is_derived() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let vkey = real_log(folder.path(), 700).await.verifier().to_string();
    let fsck = |more: &[&str]| {
        let flags = ["log", "fsck", "--data", &path("data"), "--published", &path("published"), "--vkey", &vkey];
        kopuro(&[&flags, more].concat())
    };
    let output = fsck(&[]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("700 of 700 entries, 7 tiles and bundles"), "{}", stdout(&output));

    // One is gone, one is another, one of the right border is short.
    std::fs::remove_file(path("published/tile/0/001")).unwrap();
    std::fs::write(path("published/tile/entries/000"), b"what?").unwrap();
    std::fs::write(path("published/tile/1/000.p/2"), [7; 32]).unwrap();
    // A stray file where only segments of the index are.
    std::fs::create_dir_all(path("data/index")).unwrap();
    std::fs::write(path("data/index/stray"), b"?").unwrap();
    let output = fsck(&[]);
    let text = stdout(&output);
    assert!(!output.status.success(), "{text}");
    for named in ["tile/entries/000 differs", "tile/1/000.p/2 differs", "tile/0/001 is not there", "index      BAD"] {
        assert!(text.contains(named), "{named}: {text}");
    }
    let output = fsck(&["--repair"]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("3 of them written again"), "{}", stdout(&output));
    let output = kopuro(&["log", "verify", &path("published"), "--vkey", &vkey]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fsck(&[]).status.success());

    // Published beyond what is stored, and another history: nothing that can be repaired.
    for entries in [small_entries(701), small_entries(700)] {
        publish(Path::new(&path("published")), &entries, 0, &signer(1));
        let evidence = std::fs::read(path("published/tile/entries/000")).unwrap();
        let output = fsck(&["--repair"]);
        assert!(!output.status.success() && stdout(&output).contains("published  BAD"), "{}", stdout(&output));
        assert_eq!(std::fs::read(path("published/tile/entries/000")).unwrap(), evidence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policys_quorum_is_required() {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use kopuro::trust::note::{Cosigner, Note};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let vkey = real_log(folder.path(), 10).await.verifier().to_string();
    let witness = Cosigner::generate("council.example/witness").unwrap();
    let policy = format!("log {vkey}\nwitness council {}\nquorum council\n", witness.verifier());
    std::fs::write(path("policy"), policy).unwrap();
    let state = path("state");
    let verify = || kopuro(&["log", "verify", &path("published"), "--policy", &path("policy")]);
    let monitor = || {
        let flags = ["monitor", "--log", &path("published"), "--policy", &path("policy"), "--state", &state, "--once"];
        kopuro(&flags)
    };
    for output in [verify(), monitor()] {
        assert!(!output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
    let checkpoint = path("published/checkpoint");
    let note = std::fs::read_to_string(&checkpoint).unwrap();
    let cosignature = witness.cosign(Note::parse(&note).unwrap().text(), 1_795_600_000).unwrap();
    let data = [&cosignature.key_id[..], &cosignature.bytes].concat();
    let line = format!("— {} {}\n", cosignature.name, BASE64_STANDARD.encode(data));
    std::fs::write(&checkpoint, note + &line).unwrap();
    for output in [verify(), monitor()] {
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
}

/// Leaves a publication, its key and an older checkpoint where tests/foreign wants them; does nothing when it runs as an
/// ordinary test.
#[test]
fn for_foreign_verifiers() {
    let Some(folder) = std::env::var_os("KOPURO_TEST_PUBLISH") else { return };
    let folder = Path::new(&folder);
    let entries = small_entries(70_000);
    std::fs::create_dir_all(folder).unwrap();
    publish(folder, &entries[..700], 0, &signer(1));
    std::fs::copy(folder.join("checkpoint"), folder.join("older-checkpoint")).unwrap();
    publish(folder, &entries, 700, &signer(1));
    std::fs::write(folder.join("vkey"), format!("{}\n", signer(1).verifier())).unwrap();
}
