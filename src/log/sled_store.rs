//! The store on one machine: sled 0.34.7 for the entries, the head file beside it.
//!
//! ```text
//! key      first index (u64)                         of a record; a record over the cap goes on under first ‖ part (u8)
//! record   version(1) ‖ ends a commit(1) ‖ parts(u8) ‖ count(u16)
//!          ‖ count × ( length(u16) ‖ entry ‖ length(u16) ‖ sealed private half )
//!          ‖ at a commit's end: roots(u8) ‖ roots × 32 ‖ length(u16) ‖ signed checkpoint
//! ```
//!
//! All numbers big-endian. What sled does not do by itself, and is done here:
//!
//! - its `flush` does not survive a power cut: `fdatasync` of its file `db` follows every flush;
//! - a page (up to 16 values) over a quarter of `segment_size` goes to a file under `blobs/` that is never synced: no
//!   value is over [`VALUE_CAP`], and a commit fails when a blob file is seen all the same;
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
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{Found, Head};
use super::store::{Commit, Run, Runs, Store, Stored};
use super::tree::Hash;
use crate::failpoint;

/// The largest value given to sled. Seventeen of them (a leaf page about to split) are under a quarter of a segment.
const VALUE_CAP: usize = 7_000;
const SEGMENT_SIZE: usize = 512 << 10;
const CACHE: u64 = 32 << 20;

const LOCK_PATIENCE: Duration = Duration::from_secs(1);

const FOLDER: &str = "sled";
const VERSION: u8 = 1;
const HEADER: usize = 5;

/// sled and the head file of one data folder.
pub(super) struct SledStore {
    /// None only while dropping.
    db: Option<sled::Db>,
    /// sled's own file, for `fdatasync`.
    file: File,
    path: PathBuf,
    /// Open for writing once a recovery has settled what it holds.
    head: Mutex<Option<Head>>,
    folder: PathBuf,
}

impl SledStore {
    /// Whether the folder has a store in it.
    pub(super) fn exists(folder: &Path) -> bool {
        folder.join(FOLDER).join("db").exists()
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
        let store = Self { db: Some(db), file, path, head: Mutex::new(None), folder: folder.into() };
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

    /// Puts a commit's records as one batch.
    fn put(&self, commit: &Commit<'_>) -> Result<(), LogError> {
        let mut batch = sled::Batch::default();
        pack(commit, |key, value| batch.insert(key, value));
        let db = self.db()?;
        guarded(|| db.apply_batch(batch))
    }

    /// Makes what was put durable.
    fn sync(&self) -> Result<(), LogError> {
        let db = self.db()?;
        guarded(|| db.flush())?;
        self.file.sync_data().map_err(LogError::io(self.path.join("db")))
    }

    /// Fails where sled has written a file that it does not sync.
    fn check_blobs(&self) -> Result<(), LogError> {
        let blobs = self.path.join("blobs");
        let files = std::fs::read_dir(&blobs).map_err(LogError::io(&blobs))?.count();
        metrics::gauge!("kopuro_log_blob_files").set(files as f64);
        if files > 0 {
            return Err(LogError::Store(format!("sled wrote {files} blob files, which it does not sync")));
        }
        Ok(())
    }

    fn replace_head(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *head {
            Some(head) => head.replace(checkpoint),
            None => Err(LogError::Store("appended to before it was recovered".into())),
        }
    }
}

impl Store for SledStore {
    fn append(&self, commit: &Commit<'_>) -> Result<(), LogError> {
        self.put(commit)?;
        self.sync()?;
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
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(Head::open(&self.folder)?);
        self.replace_head(checkpoint)?;
        sync_file(&self.folder)
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

/// Cuts a commit into records under the cap and gives each to `put` with its key.
fn pack(commit: &Commit<'_>, mut put: impl FnMut(&[u8], Vec<u8>)) {
    let tail = 1 + 32 * commit.edge.roots().len() + 2 + commit.checkpoint.note.len();
    let mut index = commit.first;
    let mut rest = commit.entries;
    while !rest.is_empty() {
        let (mut count, mut length) = (0, HEADER);
        for (position, stored) in rest.iter().enumerate() {
            let with_tail = if position + 1 == rest.len() { tail } else { 0 };
            let more = 4 + stored.entry.len() + stored.sealed.len();
            if count > 0 && length + more + with_tail > VALUE_CAP {
                break;
            }
            (count, length) = (count + 1, length + more);
        }
        let (now, later) = rest.split_at(count);
        let end = later.is_empty();
        let mut record = Vec::with_capacity(length + if end { tail } else { 0 });
        record.extend_from_slice(&[VERSION, u8::from(end), 0]);
        record.extend_from_slice(&(count as u16).to_be_bytes());
        for stored in now {
            put_short(&mut record, &stored.entry);
            put_short(&mut record, &stored.sealed);
        }
        if end {
            record.push(commit.edge.roots().len() as u8);
            commit.edge.roots().iter().for_each(|root| record.extend_from_slice(&root.0));
            put_short(&mut record, commit.checkpoint.note.as_bytes());
        }
        put_record(index, record, &mut put);
        index += count as u64;
        rest = later;
    }
}

fn put_short(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    record.extend_from_slice(bytes);
}

fn put_record(index: u64, mut record: Vec<u8>, put: &mut impl FnMut(&[u8], Vec<u8>)) {
    let key = index.to_be_bytes();
    if record.len() <= VALUE_CAP {
        put(&key, record);
        return;
    }
    record[2] = ((record.len() - 1) / VALUE_CAP) as u8;
    for (part, piece) in record.chunks(VALUE_CAP).enumerate() {
        match part {
            0 => put(&key, piece.to_vec()),
            _ => put(&part_key(index, part as u8), piece.to_vec()),
        }
    }
}

fn part_key(index: u64, part: u8) -> [u8; 9] {
    let mut key = [part; 9];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key of the record that holds an entry, or the first there is.
fn start_of_record(db: &sled::Db, index: u64) -> Result<[u8; 8], LogError> {
    let before = guarded(|| db.range(..=part_key(index, u8::MAX)).next_back().transpose())?;
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
        let Some((key, value)) = touching(db, || db.range(from..).next().transpose())? else { return Ok(None) };
        let Ok(key) = <[u8; 8]>::try_from(key.as_ref()) else {
            return Err(LogError::Store("a record's later part has no beginning".into()));
        };
        let first = u64::from_be_bytes(key);
        let damaged = |what: &str| LogError::Damaged { index: first, what: what.into() };
        let mut record = value.to_vec();
        for part in 1..=record.get(2).copied().unwrap_or(0) {
            let more = touching(db, || Ok(db.get(part_key(first, part))?.map(|value| (part_key(first, part), value))))?;
            record.extend_from_slice(&more.ok_or_else(|| damaged("a part of its record is missing"))?.1);
        }
        let run = unpack(first, record.into()).ok_or_else(|| damaged("its record cannot be read"))?;
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

fn unpack(first: u64, mut rest: Bytes) -> Option<Run> {
    let header = take(&mut rest, HEADER)?;
    let (version, ends, count) = (header[0], header[1], u16::from_be_bytes([header[3], header[4]]));
    if version != VERSION || ends > 1 || count == 0 {
        return None;
    }
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        entries.push(Stored { entry: take_short(&mut rest)?, sealed: take_short(&mut rest)? });
    }
    let end = if ends == 1 {
        let roots = take(&mut rest, 1)?[0];
        let roots = take(&mut rest, 32 * usize::from(roots))?;
        let roots = roots.as_chunks::<32>().0.iter().map(|root| Hash(*root)).collect();
        Some((roots, String::from_utf8(take_short(&mut rest)?.to_vec()).ok()?))
    } else {
        None
    };
    rest.is_empty().then_some(Run { first, entries, end })
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (rest.len() >= length).then(|| rest.split_to(length))
}

fn take_short(rest: &mut Bytes) -> Option<Bytes> {
    let length = take(rest, 2)?;
    take(rest, u16::from_be_bytes([length[0], length[1]]).into())
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
    use crate::log::store;
    use crate::log::tree::RightEdge;
    use crate::trust::note::Signer;

    fn stored(entry: usize, sealed: usize) -> Stored {
        Stored { entry: vec![entry as u8; entry].into(), sealed: vec![sealed as u8; sealed].into() }
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
                assert!(one.entry == other.entry && one.sealed == other.sealed);
            }
        }
        assert_eq!(store::read(&store, 2, 60, 7, usize::MAX).unwrap().len(), 7);
        assert_eq!(store::read(&store, 1, 60, 7, 100).unwrap().len(), 1);
        assert_eq!(store.runs(0).filter(|run| run.as_ref().unwrap().end.is_some()).count(), 5);
        assert_eq!(std::fs::read_dir(folder.path().join("sled/blobs")).unwrap().count(), 0);
    }
}
