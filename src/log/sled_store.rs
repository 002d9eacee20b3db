//! The store on one machine: sled 0.34.7 for entries and private halves ([`super::records`] says under which keys), a file
//! of shred keys and the head file beside it.
//!
//! What sled does not do by itself, and is done here:
//!
//! - its `flush` does not survive a power cut: `fdatasync` of its file `db` follows every flush;
//! - a page (up to 16 values) over a quarter of `segment_size` goes to a file under `blobs/` that is never synced: no
//!   value is over [`records::VALUE_CAP`], and a commit fails when a blob file is seen all the same;
//! - its cache looks for pages to drop only once every 64 accesses to one of 256 shards, so that reading each page
//!   once fills the memory with all of them: every record read is touched twice more (573 MB became 55 over 1.5
//!   million entries);
//! - it panics on some damage: every call is behind `catch_unwind`.
//!
//! Cap and segment size were chosen by measuring 420 bytes an entry, in commits of 256, flush and fdatasync: values of
//! 1.3, 3.4 and 7 kB with sled's own 512 KiB segments took 204,000, 267,000 and 228,000 entries/s in 35 to 49 MB; 7
//! to 110 kB with 1 to 8 MiB segments took 231,000 to 301,000 within the noise of the disk, in up to 178 MB, with tails
//! of 3 to 11 ms instead of 2. Space was 1.6 to 1.8 times the payload in all of them (2.5 with a commit per entry).

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{Found, Head};
use super::records;
use super::shred::{KeyFile, ShredKeys, Slot};
use super::store::{Base, Commit, Half, Run, Runs, Store};
use crate::failpoint;

const SEGMENT_SIZE: usize = 512 << 10;
const CACHE: u64 = 32 << 20;

const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How coarse a folder's time of change may be, and more.
const BLOBS_SETTLE: Duration = Duration::from_secs(2);

const FOLDER: &str = "sled";

/// Records of halves that are rewritten in one batch.
const REMOVED_AT_ONCE: usize = 64;

/// sled and the head file of one data folder.
pub(super) struct SledStore {
    /// None only while dropping.
    db: Option<sled::Db>,
    /// sled's own file, for `fdatasync`.
    file: File,
    path: PathBuf,
    /// Open for writing once a recovery has settled what it holds.
    head: Mutex<Option<Head>>,
    shred: ShredKeys,
    folder: PathBuf,
    /// When the folder of blobs, found empty, had been changed.
    blobs: Mutex<Option<SystemTime>>,
}

impl SledStore {
    /// Whether the folder has a store in it.
    pub(super) fn exists(folder: &Path) -> bool {
        Self::file_of(folder).exists()
    }

    /// sled's own file in a data folder.
    pub(super) fn file_of(folder: &Path) -> PathBuf {
        folder.join(FOLDER).join("db")
    }

    /// Opens the store of a folder, or makes an empty one; the folder itself exists. Everything opened is durable as
    /// directory entries.
    pub(super) fn open(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join(FOLDER);
        let config = sled::Config::new()
            .path(&path)
            .segment_size(SEGMENT_SIZE)
            .cache_capacity(CACHE)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None);
        let db = open_sled(&config, &path)?;
        let data = path.join("db");
        let file = File::open(&data).map_err(LogError::io(&data))?;
        let shred = ShredKeys::of(folder);
        let (head, blobs) = (Mutex::new(None), Mutex::new(None));
        let store = Self { db: Some(db), file, path, head, shred, folder: folder.into(), blobs };
        store.sync()?;
        sync_file(&store.path.join("conf"))?;
        for made in [&store.path.join("blobs"), &store.path, &store.folder] {
            sync_file(made)?;
        }
        Ok(store)
    }

    fn db(&self) -> Result<&sled::Db, LogError> {
        self.db.as_ref().ok_or_else(|| LogError::Store("closed".into()))
    }

    /// Makes durable which files are in the data folder.
    pub(super) fn sync_folder(&self) -> Result<(), LogError> {
        sync_file(&self.folder)
    }

    /// Puts a commit's records as one batch.
    fn put(&self, commit: &Commit<'_>) -> Result<(), LogError> {
        let mut batch = sled::Batch::default();
        records::pack(commit, |key, value| batch.insert(key, value));
        let db = self.db()?;
        guarded(|| db.apply_batch(batch))
    }

    /// Makes what was put durable.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let db = self.db()?;
        guarded(|| db.flush())?;
        self.file.sync_data().map_err(LogError::io(self.path.join("db")))
    }

    /// Fails where sled has written a file that it does not sync. The folder is read when it was changed only.
    fn check_blobs(&self) -> Result<(), LogError> {
        let blobs = self.path.join("blobs");
        let failed = |error| LogError::io(&blobs)(error);
        let changed = std::fs::metadata(&blobs).and_then(|folder| folder.modified()).map_err(failed)?;
        let mut seen_empty = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen_empty == Some(changed) {
            return Ok(());
        }
        let files = std::fs::read_dir(&blobs).map_err(failed)?.count();
        metrics::gauge!("kopuro_log_blob_files").set(files as f64);
        if files > 0 {
            return Err(LogError::Store(format!("sled wrote {files} blob files, which it does not sync")));
        }
        // Another change so soon after might have the same time.
        *seen_empty = changed.elapsed().is_ok_and(|age| age > BLOBS_SETTLE).then_some(changed);
        Ok(())
    }

    /// Puts records of a backup, as one batch.
    pub(super) fn put_restored(&self, pack: impl FnOnce(&mut dyn FnMut(&[u8], Vec<u8>))) -> Result<(), LogError> {
        let mut batch = sled::Batch::default();
        pack(&mut |key, value| batch.insert(key, value));
        let db = self.db()?;
        guarded(|| db.apply_batch(batch))
    }

    /// The shred keys, to put those of a backup in their place.
    pub(super) fn shred_keys(&self) -> &ShredKeys {
        &self.shred
    }
}

impl Store for SledStore {
    fn append(&self, commit: &Commit<'_>) -> Result<(), LogError> {
        let keys = self.shred.put(commit.first, commit.entries.iter().map(|stored| &stored.shred))?;
        self.put(commit)?;
        self.sync()?;
        keys.wait()?;
        self.check_blobs()?;
        failpoint::reach("commit");
        self.replace_head(commit.checkpoint)?;
        failpoint::reach("head");
        Ok(())
    }

    fn runs(&self, from: u64) -> Runs<'_> {
        let start = match self.db().and_then(|db| start_of_record(db, from)) {
            Ok(start) => start,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        Box::new(RunIterator { store: self, next_key: Some(start) })
    }

    fn head(&self) -> Result<Found, LogError> {
        Head::read(&self.folder)
    }

    fn settle(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        self.sync()?;
        self.check_blobs()?;
        self.shred.prepare(checkpoint.size)?;
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(Head::open(&self.folder)?);
        self.replace_head(checkpoint)?;
        sync_file(&self.folder)
    }

    fn replace_head(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *head {
            Some(head) => head.replace(checkpoint),
            None => Err(LogError::Store("appended to before it was recovered".into())),
        }
    }

    fn base(&self) -> Result<Option<Base>, LogError> {
        let Some(record) = self.record(&records::BASE_KEY)? else { return Ok(None) };
        let unreadable = || LogError::Store("where the pruned log begins cannot be read".into());
        records::unpack_base(record).map(Some).ok_or_else(unreadable)
    }

    fn prune(&self, base: &Base) -> Result<(), LogError> {
        let db = self.db()?;
        let mut batch = sled::Batch::default();
        // The old base may have had more parts.
        let from = records::BASE_KEY;
        let old = guarded(|| db.range(&from[..]..&records::CHECK_KEY[..]).keys().collect::<sled::Result<Vec<_>>>())?;
        old.into_iter().for_each(|key| batch.remove(key));
        records::pack_base(base, |key, value| batch.insert(key, value))?;
        let end = base.edge.size().to_be_bytes();
        let gone = guarded(|| db.range(..&end[..]).keys().collect::<sled::Result<Vec<_>>>())?;
        gone.into_iter().for_each(|key| batch.remove(key));
        guarded(|| db.apply_batch(batch))?;
        self.check_blobs()
    }

    fn sealing_check(&self) -> Result<Option<[u8; 32]>, LogError> {
        let Some(record) = self.record(&records::CHECK_KEY)? else { return Ok(None) };
        let unreadable = || LogError::Store("what tells the sealing key from others cannot be read".into());
        records::unpack_check(&record).map(Some).ok_or_else(unreadable)
    }

    fn set_sealing_check(&self, check: &[u8; 32]) -> Result<(), LogError> {
        let db = self.db()?;
        guarded(|| db.insert(records::CHECK_KEY, records::pack_check(check)))?;
        Ok(())
    }

    fn half(&self, index: u64) -> Result<Half, LogError> {
        let shred = match self.shred.get(index)? {
            Slot::Key(shred) => shred,
            Slot::NoHalf => return Ok(Half::None),
            Slot::Erased => return Ok(Half::Erased),
            Slot::Lost => return Ok(Half::Lost),
            Slot::Missing => return Ok(Half::Missing("its shred key is missing")),
        };
        let missing = Half::Missing("its private half is missing");
        let Some(first) = self.halves_at(index)? else { return Ok(missing) };
        let halves = self.halves(first)?.unwrap_or_default();
        let sealed = index.checked_sub(first).and_then(|at| halves.get(usize::try_from(at).ok()?));
        Ok(match sealed {
            Some(sealed) if !sealed.is_empty() => Half::Sealed { sealed: sealed.clone(), shred },
            _ => missing,
        })
    }

    fn sealed_halves(&self, from: u64, until: u64) -> Result<Vec<Bytes>, LogError> {
        let mut all = vec![Bytes::new(); usize::try_from(until.saturating_sub(from)).unwrap_or_default()];
        let end = records::halves_key(until);
        let mut at = records::halves_key(self.halves_at(from)?.unwrap_or(from));
        let db = self.db()?;
        while let Some((key, _)) = touching(db, || db.range(&at[..]..&end[..]).next().transpose())? {
            let unknown = || LogError::Store("a record of halves has no key".into());
            let first = records::halves_first(&key).ok_or_else(unknown)?;
            // A later part is read with its record.
            if key.len() == end.len() {
                for (index, half) in (first..).zip(self.halves(first)?.unwrap_or_default()) {
                    let place = index.checked_sub(from).and_then(|at| all.get_mut(usize::try_from(at).ok()?));
                    if let Some(place) = place {
                        *place = half;
                    }
                }
            }
            at = records::halves_key(first.saturating_add(1));
        }
        Ok(all)
    }

    fn key_file(&self, number: u64) -> Result<KeyFile, LogError> {
        self.shred.file(number)
    }

    fn each_key(
        &self,
        from: u64,
        until: u64,
        show: &mut dyn FnMut(u64, Slot) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        self.shred.each(from, until, show)
    }

    fn lose_key(&self, index: u64) -> Result<(), LogError> {
        self.shred.lose(index)
    }

    fn destroy_keys(&self, first: u64, count: u64) -> Result<(), LogError> {
        self.shred.destroy(first, count)
    }

    fn remove_halves(&self, first: u64, count: u64, size: u64) -> Result<(), LogError> {
        let end = first.saturating_add(count);
        let mut from = self.halves_at(first)?.unwrap_or(first);
        while from < end {
            let db = self.db()?;
            let (start, stop) = (records::halves_key(from), records::halves_key(end));
            let keys = guarded(|| {
                db.range(&start[..]..&stop[..]).keys().take(REMOVED_AT_ONCE).collect::<sled::Result<Vec<_>>>()
            })?;
            let Some(last) = keys.last().and_then(|key| records::halves_first(key)) else { break };
            let mut batch = sled::Batch::default();
            for key in &keys {
                // A later part goes with its record.
                let Some(at) = records::halves_first(key).filter(|_| key.len() == start.len()) else { continue };
                let Some(halves) = self.halves(at)? else { continue };
                let is_gone = |index: u64| (first..end).contains(&index);
                let left = (at..).zip(&halves).map(|(index, half)| if is_gone(index) { &[][..] } else { half });
                let left: Vec<&[u8]> = left.collect();
                let old = guarded(|| db.get(key))?.map_or(Ok(0), |record| records::parts(&record))?;
                batch.remove(key);
                (1..=old).for_each(|part| batch.remove(records::part_key(key, part)));
                if left.iter().any(|half| !half.is_empty()) {
                    records::pack_halves(at, left.into_iter(), |key, value| batch.insert(key, value));
                }
            }
            guarded(|| db.apply_batch(batch))?;
            from = last + 1;
        }
        self.shred.tidy(first, count, size)?;
        self.sync()?;
        self.check_blobs()
    }
}

impl SledStore {
    /// A record, put together from its parts.
    fn record(&self, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        let db = self.db()?;
        let Some((_, value)) = touching(db, || Ok(db.get(key)?.map(|value| (key, value))))? else { return Ok(None) };
        self.whole(key, &value).map(Some)
    }

    /// The whole of the record that begins so.
    fn whole(&self, key: &[u8], beginning: &[u8]) -> Result<Bytes, LogError> {
        let db = self.db()?;
        let mut record = beginning.to_vec();
        for part in 1..=records::parts(beginning)? {
            let key = records::part_key(key, part);
            let more = touching(db, || Ok(db.get(&key)?.map(|value| (&key, value))))?;
            let missing = || LogError::Store("a part of its record is missing".into());
            record.extend_from_slice(&more.ok_or_else(missing)?.1);
        }
        Ok(record.into())
    }

    /// The first index of the record that holds an entry's half, where there is one.
    fn halves_at(&self, index: u64) -> Result<Option<u64>, LogError> {
        let db = self.db()?;
        let (from, to) = (records::halves_key(0), records::part_key(&records::halves_key(index), u8::MAX));
        let before = guarded(|| db.range(&from[..]..=&to[..]).next_back().transpose())?;
        Ok(before.and_then(|(key, _)| records::halves_first(&key)))
    }

    fn halves(&self, first: u64) -> Result<Option<Vec<Bytes>>, LogError> {
        let Some(record) = self.record(&records::halves_key(first))? else { return Ok(None) };
        let damaged =
            || LogError::Damaged { index: first, what: "the record of its private half cannot be read".into() };
        records::unpack_halves(record).map(Some).ok_or_else(damaged)
    }
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // sled flushes when dropped, and panics where that fails.
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

/// Opens sled. A process that has just closed it may hold the lock a moment longer, in sled's own threads.
fn open_sled(config: &sled::Config, path: &Path) -> Result<sled::Db, LogError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match catch_unwind(AssertUnwindSafe(|| config.open())).map_err(panicked)? {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if Instant::now() >= deadline {
                    return Err(LogError::Locked(path.into()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// The key of the record that holds an entry, or the first there is.
fn start_of_record(db: &sled::Db, index: u64) -> Result<[u8; 8], LogError> {
    let before = records::part_key(&index.to_be_bytes(), u8::MAX);
    let before = guarded(|| db.range(..=before).next_back().transpose())?;
    let first = before.and_then(|(key, _)| key.first_chunk().copied());
    Ok(first.unwrap_or([0; 8]))
}

struct RunIterator<'a> {
    store: &'a SledStore,
    /// Where to go on; none when the end was reached or something failed.
    next_key: Option<[u8; 8]>,
}

impl RunIterator<'_> {
    fn record(&mut self, from: [u8; 8]) -> Result<Option<Run>, LogError> {
        let db = self.store.db()?;
        let range = &from[..]..&records::ENTRIES_END[..];
        let Some((key, value)) = touching(db, || db.range(range).next().transpose())? else { return Ok(None) };
        let Ok(key) = <[u8; 8]>::try_from(key.as_ref()) else {
            return Err(LogError::Store("a record's later part has no beginning".into()));
        };
        let first = u64::from_be_bytes(key);
        let record = self.store.whole(&key, &value).map_err(|error| match error {
            LogError::Store(what) => LogError::Damaged { index: first, what },
            other => other,
        })?;
        let unreadable = || LogError::Damaged { index: first, what: "its record cannot be read".into() };
        let run = records::unpack(first, record).ok_or_else(unreadable)?;
        self.next_key = first.checked_add(run.entries.len() as u64).map(u64::to_be_bytes);
        Ok(Some(run))
    }
}

impl Iterator for RunIterator<'_> {
    type Item = Result<Run, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.next_key.take()?;
        self.record(from).transpose()
    }
}

/// Reads a record and touches it twice more, so that sled's cache lets go of earlier ones.
fn touching<K: AsRef<[u8]>>(
    db: &sled::Db,
    read: impl FnOnce() -> sled::Result<Option<(K, sled::IVec)>>,
) -> Result<Option<(K, sled::IVec)>, LogError> {
    guarded(|| {
        let found = read()?;
        if let Some((key, _)) = &found {
            db.contains_key(key)?;
            db.contains_key(key)?;
        }
        Ok(found)
    })
}

fn sync_file(path: &Path) -> Result<(), LogError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(LogError::io(path))
}

/// Runs a call into sled; its panics are errors like any other.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, LogError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(panicked)?.map_err(|error| failed(&error))
}

fn failed(error: &sled::Error) -> LogError {
    LogError::Store(format!("sled: {error}"))
}

#[allow(clippy::needless_pass_by_value, reason = "what catch_unwind gives")]
fn panicked(payload: Box<dyn std::any::Any + Send>) -> LogError {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
    LogError::Store(format!("sled panicked: {}", text.unwrap_or("without a word")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::shred::ShredKey;
    use crate::log::store::{self, Stored};
    use crate::log::tree::{Hash, RightEdge};
    use crate::trust::note::Signer;

    fn stored(entry: usize, sealed: usize) -> Stored {
        let shred = ShredKey([sealed as u8 | 1; 32]);
        Stored { entry: vec![entry as u8; entry].into(), sealed: vec![sealed as u8; sealed].into(), shred }
    }

    #[test]
    fn gives_back_what_it_was_given_whatever_the_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut edge = RightEdge::default();
        let mut all = Vec::new();
        {
            let store = SledStore::open(folder.path()).unwrap();
            store.settle(&Checkpoint::sign(&signer, &edge).unwrap()).unwrap();
            let commits = [
                vec![stored(0, 0)],
                vec![stored(65_535, 65_535)],
                (0..60).map(|n| stored(300 + n, 150)).collect(),
                vec![stored(300, 0), stored(65_535, 65_535), stored(6_990, 0), stored(6_000, 990), stored(1, 1)],
                (0..40).map(|_| stored(60_000, 10)).collect(),
            ];
            for entries in commits {
                let first = edge.size();
                entries.iter().for_each(|stored| edge.push(Hash::of_leaf(&stored.entry)));
                let checkpoint = Checkpoint::sign(&signer, &edge).unwrap();
                store.append(&Commit { first, entries: &entries, edge: &edge, checkpoint: &checkpoint }).unwrap();
                all.extend(entries);
            }
            assert!(matches!(SledStore::open(folder.path()), Err(LogError::Locked(_))));
        }
        let store = SledStore::open(folder.path()).unwrap();
        for from in 0..all.len() {
            let read = store::read(&store, from as u64, all.len() as u64, 1_000, usize::MAX).unwrap();
            assert_eq!(read.len(), all.len() - from);
            for (one, other) in read.iter().zip(&all[from..]) {
                assert!(*one == other.entry);
            }
            match store.half(from as u64).unwrap() {
                Half::Sealed { sealed, shred } => {
                    assert!(sealed == all[from].sealed && shred.0 == all[from].shred.0);
                }
                half => assert!(all[from].sealed.is_empty(), "{half:?}"),
            }
        }
        assert_eq!(store::read(&store, 2, 60, 7, usize::MAX).unwrap().len(), 7);
        assert_eq!(store::read(&store, 1, 60, 7, 100).unwrap().len(), 1);
        assert_eq!(store.runs(0).filter(|run| run.as_ref().unwrap().end.is_some()).count(), 5);
        assert_eq!(std::fs::read_dir(folder.path().join("sled/blobs")).unwrap().count(), 0);

        // Halves go one by one, and leave the others and the entries.
        let gone = [1, 30, 31, 32, 63, 70];
        for index in gone {
            store.destroy_keys(index, 1).unwrap();
            store.remove_halves(index, 1, all.len() as u64).unwrap();
        }
        for (index, stored) in (0..).zip(&all) {
            let half = store.half(index).unwrap();
            let ok = match half {
                Half::Erased => gone.contains(&index),
                Half::Sealed { ref sealed, .. } => !gone.contains(&index) && *sealed == stored.sealed,
                _ => stored.sealed.is_empty(),
            };
            assert!(ok, "{index}: {half:?}");
        }
        assert_eq!(store::read(&store, 0, all.len() as u64, 1_000, usize::MAX).unwrap().len(), all.len());
    }

    #[test]
    fn a_file_that_sled_does_not_sync_fails_the_commit_that_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut edge = RightEdge::default();
        let store = SledStore::open(folder.path()).unwrap();
        store.settle(&Checkpoint::sign(&signer, &edge).unwrap()).unwrap();
        let mut append = || {
            let (first, entries) = (edge.size(), [stored(300, 150)]);
            edge.push(Hash::of_leaf(&entries[0].entry));
            let checkpoint = Checkpoint::sign(&signer, &edge).unwrap();
            store.append(&Commit { first, entries: &entries, edge: &edge, checkpoint: &checkpoint })
        };
        let blobs = folder.path().join("sled/blobs");
        let long_ago = SystemTime::now() - 10 * BLOBS_SETTLE;
        File::open(&blobs).unwrap().set_modified(long_ago).unwrap();
        append().unwrap();
        assert_eq!(*store.blobs.lock().unwrap(), Some(long_ago), "it is not read again while it does not change");
        append().unwrap();
        std::fs::write(blobs.join("1"), "").unwrap();
        assert!(append().unwrap_err().to_string().contains("1 blob files"));
        std::fs::remove_file(blobs.join("1")).unwrap();
        append().unwrap();
        assert_eq!(*store.blobs.lock().unwrap(), None, "it has just been changed");
    }
}
