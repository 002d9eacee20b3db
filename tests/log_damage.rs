//! Damage to the files of a log is detected and named when it is opened, and nothing is signed over it.

use std::fs;
use std::path::{Path, PathBuf};

use kopuro::log::verify::verify_folder;
use kopuro::log::{Log, LogError, LogOptions};
use uuid::Uuid;

use crate::log_support::{all_ids, open, record, signer};

/// A closed log of `size` entries in commits of their own, and its entries' exchange ids.
fn log_of(size: usize) -> (tempfile::TempDir, Vec<Uuid>) {
    let folder = tempfile::tempdir().unwrap();
    let ids = extend(folder.path(), size);
    (folder, ids)
}

fn extend(folder: &Path, by: usize) -> Vec<Uuid> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (log, _) = open(folder).unwrap();
        let ids: Vec<_> = (0..by).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            log.append(record(*id)).await.unwrap();
        }
        log.close().await;
        ids
    })
}

/// Opens the log, which must fail, twice: the failure has signed nothing and changed no verdict. Gives what it said.
fn refused(folder: &Path) -> LogError {
    let head = fs::read(folder.join("head")).ok();
    let error = open(folder).expect_err("opened a damaged log");
    open(folder).expect_err("opened a damaged log the second time");
    assert_eq!(fs::read(folder.join("head")).ok(), head, "signed after: {error}");
    error
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn db(folder: &Path) -> PathBuf {
    folder.join("sled/db")
}

#[test]
fn flipped_bytes_in_the_store() {
    let (folder, ids) = log_of(60);
    let good = tempfile::tempdir().unwrap();
    copy(folder.path(), good.path());
    let content = fs::read(db(good.path())).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refusals, mut harmless) = (0, 0);
    {
        // As a control: the copy alone does no harm.
        let image = tempfile::tempdir().unwrap();
        copy(good.path(), image.path());
        assert_eq!(open(image.path()).unwrap().1.size, 60);
    }
    for round in 0..60 {
        let image = tempfile::tempdir().unwrap();
        copy(good.path(), image.path());
        let mut damaged = content.clone();
        let at = (used as u64 * (2 * round + 1) / 120) as usize;
        damaged[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(db(image.path()), damaged).unwrap();
        // sled writes pages again and again: damage to an old copy of one harms nobody.
        match open(image.path()) {
            Ok((log, recovered)) => {
                assert_eq!(recovered.size, 60, "byte {at}");
                assert_eq!(all_ids(&log), ids, "byte {at}");
                harmless += 1;
            }
            Err(error) => {
                let named = matches!(
                    error,
                    LogError::Damaged { .. } | LogError::Lost { .. } | LogError::Altered { .. } | LogError::Store(_)
                );
                assert!(named, "byte {at}: {error}");
                refused(image.path());
                assert!(verify_folder(image.path(), &signer(1).verifier()).is_err());
                refusals += 1;
            }
        }
    }
    println!("{refusals} refused, {harmless} in dead copies of pages");
    assert!(refusals > 0);
}

#[test]
fn altered_entry_in_the_store() {
    // Not damage but forgery: the store is consistent in itself, one entry is another.
    let (folder, _) = log_of(20);
    {
        let db = sled::Config::new().path(folder.path().join("sled")).open().unwrap();
        let key = 7_u64.to_be_bytes();
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        let at = value.windows(9).position(|window| window == b"GetPerson").unwrap();
        value[at..at + 9].copy_from_slice(b"GetPerhap");
        db.insert(key, value).unwrap();
        db.flush().unwrap();
    }
    let error = refused(folder.path());
    assert!(matches!(error, LogError::Altered { first: 7, last: 7, .. }), "{error}");
    let error = verify_folder(folder.path(), &signer(1).verifier()).unwrap_err();
    assert!(matches!(error, LogError::Altered { first: 7, last: 7, .. }), "{error}");
}

#[test]
fn removed_entries_in_the_store() {
    for (remove, first, last) in [(5..8, 5, 7), (17..20, 17, 19)] {
        let (folder, _) = log_of(20);
        {
            let db = sled::Config::new().path(folder.path().join("sled")).open().unwrap();
            for index in remove {
                db.remove(u64::to_be_bytes(index)).unwrap().unwrap();
            }
            db.flush().unwrap();
        }
        match refused(folder.path()) {
            LogError::Damaged { index: 5, what } => assert!(what.starts_with("entries 5 to 7 are missing"), "{what}"),
            LogError::Lost { first: lost, last: to, head: 20, stored: 17 } => assert_eq!((lost, to), (first, last)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_tail_cut_off_the_store() {
    let (folder, ids) = log_of(200);
    let content = fs::read(db(folder.path())).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refusals = 0;
    for cut in [1, 600, 5_000, 20_000, used / 2, used - 10] {
        let image = tempfile::tempdir().unwrap();
        copy(folder.path(), image.path());
        fs::write(db(image.path()), &content[..used - cut]).unwrap();
        match open(image.path()) {
            Ok((log, _)) => assert_eq!(all_ids(&log), ids, "cut by {cut}"),
            Err(error) => {
                assert!(
                    matches!(error, LogError::Damaged { .. } | LogError::Lost { .. } | LogError::Store(_)),
                    "{error}"
                );
                refused(image.path());
                refusals += 1;
            }
        }
    }
    println!("{refusals} refused of 6");
    assert!(refusals >= 4);
}

#[test]
fn a_store_that_fell_back_to_an_older_state() {
    let (folder, _) = log_of(30);
    let older = tempfile::tempdir().unwrap();
    copy(&folder.path().join("sled"), older.path());
    extend(folder.path(), 12);
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    copy(older.path(), &folder.path().join("sled"));
    let error = refused(folder.path());
    assert!(matches!(error, LogError::Lost { first: 30, last: 41, head: 42, stored: 30 }), "{error}");
    assert!(error.to_string().contains("entries 30 to 41 are lost"), "{error}");

    // The same by the whole folder gone.
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, LogError::Lost { first: 0, last: 41, .. }), "{error}");
    assert!(!folder.path().join("sled").exists(), "an empty store in place of a lost one");
}

#[test]
fn a_head_that_is_gone_or_garbage() {
    let (folder, _) = log_of(10);
    let head = folder.path().join("head");
    let content = fs::read(&head).unwrap();
    for garbage in [&b""[..], &[0; 8_192], &[0xaa; 100], &content[..200]] {
        fs::write(&head, garbage).unwrap();
        let error = refused(folder.path());
        assert!(matches!(error, LogError::HeadUnusable { what: "damaged", stored: 10, .. }), "{error}");
    }
    fs::remove_file(&head).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, LogError::HeadUnusable { what: "missing", stored: 10, .. }), "{error}");
    fs::write(&head, content).unwrap();
    assert_eq!(open(folder.path()).unwrap().1.size, 10);
}

#[test]
fn a_head_older_than_the_store() {
    let (folder, mut ids) = log_of(10);
    let head = folder.path().join("head");
    let older = fs::read(&head).unwrap();
    ids.extend(extend(folder.path(), 5));
    fs::write(&head, older).unwrap();
    // The store's commits are whole, signed, and extend what the head says: they count, and the lag is told.
    let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
    assert_eq!((verified.size, verified.ahead_of_head), (15, 5));
    let (log, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.size, recovered.head_behind), (15, 5));
    assert_eq!(all_ids(&log), ids);
}

#[test]
fn a_head_of_another_history() {
    let (folder, _) = log_of(10);
    for (other_size, expected) in [(10, "HeadDiffers"), (7, "HeadDiffers"), (12, "Lost")] {
        let (other, _) = log_of(other_size);
        fs::copy(other.path().join("head"), folder.path().join("head")).unwrap();
        let error = refused(folder.path());
        assert!(format!("{error:?}").starts_with(expected), "{error}");
    }
}

#[test]
fn another_key() {
    let (folder, _) = log_of(3);
    let error = Log::open(LogOptions::new(folder.path(), signer(2))).unwrap_err();
    assert!(matches!(error, LogError::Signature { size: 3, .. }), "{error}");
    let error = verify_folder(folder.path(), &signer(2).verifier()).unwrap_err();
    assert!(matches!(error, LogError::Signature { size: 3, .. }), "{error}");
    assert!(verify_folder(folder.path(), &signer(1).verifier()).is_ok());
}

#[test]
fn a_lost_sealing_key() {
    let (folder, _) = log_of(3);
    fs::remove_file(folder.path().join("seal.key")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, LogError::SealingKey { what: "missing", .. }), "{error}");
    assert!(verify_folder(folder.path(), &signer(1).verifier()).is_ok(), "the public half needs no key");
}
