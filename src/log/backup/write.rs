//! Writing the parts of a backup, a bundle at a time.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    ALONG, BASE, BackupError, CHECKPOINT, COMMITS, FILES, FORMAT, HALVES, MANIFEST, MOST_FILE, Manifest, PEERS, Part,
    SHRED, TAIL,
};
use crate::log::Log;
use crate::log::checkpoint::Checkpoint;
use crate::log::closed::ClosedLog;
use crate::log::error::LogError;
use crate::log::records;
use crate::log::shared::Shared;
use crate::log::shred::{FILE_KEYS, KEY, KeyFile};
use crate::log::store::{Base, Store};
use crate::log::tile::{FULL, Kind, Tile, push_entry};
use crate::log::tree::TILE_LEAVES;

/// The longest that the copying of a log rests between two bundles.
const LONGEST_REST: Duration = Duration::from_millis(200);

/// No backup is being made.
pub(in crate::log) const NOT_PINNED: u64 = u64::MAX;

impl Log {
    /// Writes a part of a backup of the log as it is now; entries go on coming. Blocks for as long as it takes, and as the output takes
    /// it. One backup at a time.
    pub fn backup(&self, part: Part, output: impl Write, now_unix_ms: i64) -> Result<(), BackupError> {
        let shared = &*self.shared;
        let _pinned = match part {
            Part::Log => Some(Pinned::new(shared)?),
            Part::Shred => None,
        };
        // Before the checkpoint: nothing that lies beside the log may know of more than the backup has.
        let files = files(&shared.folder)?;
        let snapshot = Snapshot {
            reading: Reading::Open(shared),
            base: shared.base(),
            checkpoint: self.checkpoint(),
            private_from: shared.private_from.load(Ordering::Relaxed),
            files,
        };
        snapshot.write(part, output, now_unix_ms)
    }
}

impl ClosedLog {
    /// Writes a part of a backup.
    pub fn backup(&self, folder: &Path, part: Part, output: impl Write, now_unix_ms: i64) -> Result<(), BackupError> {
        let size = self.checkpoint().size;
        let mut private_from = size;
        self.store().each_key(0, size, &mut |index, slot| {
            if !slot.is_spent() {
                private_from = private_from.min(index);
            }
            Ok(())
        })?;
        let snapshot = Snapshot {
            reading: Reading::Closed(self.store()),
            base: self.base(),
            checkpoint: Arc::new(self.checkpoint().clone()),
            private_from,
            files: files(folder)?,
        };
        snapshot.write(part, output, now_unix_ms)
    }
}

/// While it lives nothing is pruned from the entries that were there when it was made.
struct Pinned<'a>(&'a Shared);

impl<'a> Pinned<'a> {
    fn new(shared: &'a Shared) -> Result<Self, BackupError> {
        let _turn = shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let first = shared.first();
        let pinned = shared.pinned.compare_exchange(NOT_PINNED, first, Ordering::AcqRel, Ordering::Acquire);
        pinned.map(|_| Self(shared)).map_err(|_| BackupError::Busy)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.pinned.store(NOT_PINNED, Ordering::Release);
    }
}

/// The store of an open log, which may close meanwhile, or of a closed one.
enum Reading<'a> {
    Open(&'a Shared),
    Closed(&'a dyn Store),
}

impl Reading<'_> {
    fn with<T>(&self, f: impl FnOnce(&dyn Store) -> Result<T, LogError>) -> Result<T, LogError> {
        match self {
            Self::Open(shared) => shared.with_store(f),
            Self::Closed(store) => f(*store),
        }
    }

    /// How many entries there are by now.
    fn size(&self) -> u64 {
        match self {
            Self::Open(shared) => shared.size(),
            Self::Closed(_) => 0,
        }
    }

    /// A file of shred keys, between two erasures.
    fn key_file(&self, number: u64) -> Result<KeyFile, LogError> {
        let _turn = match self {
            Self::Open(shared) => Some(shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner)),
            Self::Closed(_) => None,
        };
        self.with(|store| store.key_file(number))
    }
}

/// A log at a checkpoint.
struct Snapshot<'a> {
    reading: Reading<'a>,
    base: Option<Arc<Base>>,
    checkpoint: Arc<Checkpoint>,
    private_from: u64,
    files: Vec<(String, Vec<u8>)>,
}

impl Snapshot<'_> {
    fn write(&self, part: Part, output: impl Write, now_unix_ms: i64) -> Result<(), BackupError> {
        let mut tar = Tar { tar: tar::Builder::new(output), time: now_unix_ms.div_euclid(1_000).max(0) as u64 };
        let size = self.checkpoint.size;
        let manifest = Manifest {
            format: FORMAT.into(),
            part,
            origin: self.checkpoint.origin.clone(),
            size,
            first: self.base.as_ref().map_or(0, |base| base.edge.size()),
            private_from: self.private_from,
            time_unix_ms: now_unix_ms,
            sealing_check: self.reading.with(|store| store.sealing_check())?.map(hex::encode),
            kopuro: env!("CARGO_PKG_VERSION").into(),
        };
        tar.put(MANIFEST, &serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from)?)?;
        tar.put(CHECKPOINT, self.checkpoint.note.as_bytes())?;
        match part {
            Part::Log => {
                if let Some(base) = &self.base {
                    let mut record = Vec::new();
                    records::pack_base(base, |_, part| record.extend_from_slice(&part))?;
                    tar.put(BASE, &record)?;
                }
                for (name, content) in &self.files {
                    tar.put(&format!("{FILES}{name}"), content)?;
                }
                let from = manifest.first.min(manifest.private_from) / TILE_LEAVES;
                for number in from..size.div_ceil(TILE_LEAVES) {
                    let (started, size_then) = (Instant::now(), self.reading.size());
                    self.bundle(&mut tar, &manifest, number)?;
                    // A log that is being written has the other half of the time.
                    if self.reading.size() > size_then {
                        std::thread::sleep(started.elapsed().min(LONGEST_REST));
                    }
                }
            }
            Part::Shred => {
                (0..size.div_ceil(FILE_KEYS)).try_for_each(|number| self.keys(&mut tar, number))?;
            }
        }
        tar.tar.into_inner()?.flush()?;
        Ok(())
    }

    /// Commits, entries and halves of one bundle.
    fn bundle(&self, tar: &mut Tar<impl Write>, manifest: &Manifest, number: u64) -> Result<(), BackupError> {
        let start = number * TILE_LEAVES;
        let until = manifest.size.min(start + TILE_LEAVES);
        let tile = Tile { kind: Kind::Entries, number, width: (until - start).min(u64::from(FULL)) as u16 };
        if until > manifest.first {
            let from = start.max(manifest.first);
            let (entries, commits) = self.reading.with(|store| read(store, from, until))?;
            if !commits.is_empty() {
                tar.put(&format!("{COMMITS}{number}"), &commits)?;
            }
            let mut bundle = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 2).sum());
            entries.iter().for_each(|entry| push_entry(&mut bundle, entry));
            match from {
                from if from == start => tar.put(&tile.to_string(), &bundle)?,
                from => tar.put(&format!("{TAIL}{from}"), &bundle)?,
            }
        }
        if until > manifest.private_from {
            let halves = self.reading.with(|store| store.sealed_halves(start, until))?;
            let mut sealed = Vec::with_capacity(halves.iter().map(|half| half.len() + 2).sum());
            halves.iter().for_each(|half| push_entry(&mut sealed, half));
            tar.put(&format!("{HALVES}{number}"), &sealed)?;
        }
        Ok(())
    }

    /// One file of shred keys.
    fn keys(&self, tar: &mut Tar<impl Write>, number: u64) -> Result<(), BackupError> {
        match self.reading.key_file(number)? {
            KeyFile::Keys(mut slots) => {
                let known = (self.checkpoint.size - number * FILE_KEYS).min(FILE_KEYS) as usize * KEY;
                slots[known..].fill(0);
                tar.put(&format!("{SHRED}{number:08}.keys"), &slots)
            }
            KeyFile::Erased => tar.put(&format!("{SHRED}{number:08}.erased"), &[]),
            KeyFile::Missing => {
                let what = "its shred key is missing".into();
                Err(LogError::Damaged { index: number * FILE_KEYS, what }.into())
            }
        }
    }
}

/// Entries `from` to `until - 1`, and as `size(u64) ‖ length(u16) ‖ note` the commits that end among them.
fn read(store: &dyn Store, from: u64, until: u64) -> Result<(Vec<Bytes>, Vec<u8>), LogError> {
    let (mut entries, mut commits, mut next) = (Vec::new(), Vec::new(), from);
    for run in store.runs(from) {
        let run = run?;
        let end = run.first + run.entries.len() as u64;
        if run.first > next {
            return Err(LogError::Damaged { index: next, what: "missing".into() });
        }
        let fresh = (run.first..).zip(run.entries).filter(|(index, _)| (next..until).contains(index));
        entries.extend(fresh.map(|(_, entry)| entry));
        next = until.min(end.max(next));
        if let Some((_, note)) = run.end.filter(|_| from < end && end <= until) {
            commits.extend_from_slice(&end.to_be_bytes());
            commits.extend_from_slice(&(note.len() as u16).to_be_bytes());
            commits.extend_from_slice(note.as_bytes());
        }
        if next == until {
            return Ok((entries, commits));
        }
    }
    Err(LogError::Damaged { index: next, what: "missing".into() })
}

/// What goes along: peers' checkpoints and evidence, the last published checkpoint.
fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, LogError> {
    let mut files = Vec::new();
    let mut take = |name: String| {
        let path = folder.join(&name);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() <= MOST_FILE => {
                files.push((name, std::fs::read(&path).map_err(LogError::io(&path))?));
            }
            _ => {}
        }
        Ok::<_, LogError>(())
    };
    ALONG.iter().try_for_each(|name| take((*name).into()))?;
    let peers = std::fs::read_dir(folder.join(PEERS)).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = peers.filter_map(|peer| peer.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().filter(|name| super::is_peers(name)).try_for_each(|name| take(format!("{PEERS}/{name}")))?;
    Ok(files)
}

struct Tar<W: Write> {
    tar: tar::Builder<W>,
    time: u64,
}

impl<W: Write> Tar<W> {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        Ok(self.tar.append_data(&mut header, name, content)?)
    }
}
