//! Putting a data folder together from a backup: beside its place, checked, made durable, and moved there in one step.
//!
//! ```text
//!   .<name>.restoring-…   1 log's part       sled: entries under their own commits, halves; peers, published
//!                         2 published tail   entries that others have and the backup has not, one commit    (where asked for)
//!                         3 shred keys       and destroyed again what the log says was erased
//!                         4 check            every key has its half; with the sealing key: it opens, and the entry commits to it
//!                         5 `restored`, then `head`
//!   rename to <name>
//! ```
//!
//! Whatever fails leaves nothing behind but an empty place; after a crash the folder that begins with a dot can be deleted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::read::{self, Kept, Sink};
use super::{BackupError, Manifest};
use crate::log::checkpoint::Checkpoint;
use crate::log::entry::Entry;
use crate::log::error::LogError;
use crate::log::head::{Found, Head};
use crate::log::hidden::Private;
use crate::log::records;
use crate::log::recovery;
use crate::log::restored::Marker;
use crate::log::seal::Seal;
use crate::log::sealing_key::SealingKeySource;
use crate::log::shared::open_half;
use crate::log::shred::{self, ERASED, FILE_BYTES, FILE_KEYS, KEY, KeyFile, LOST, NO_KEY};
use crate::log::sled_store::SledStore;
use crate::log::store::{Base, Half, Store};
use crate::log::tree::{Hash, RightEdge};
use crate::trust::note::Verifier;

/// So much is put before sled is made to write it.
const FLUSH_BYTES: usize = 32 << 20;

/// A data folder that is being put together. Dropped before [`Self::finish`] it leaves nothing.
#[derive(Debug)]
pub struct Restoring {
    place: PathBuf,
    folder: TempDir,
    store: SledStore,
    log: Vec<Verifier>,
    kept: Kept,
    /// The latest checkpoint: the backup's, or that of the published tail.
    checkpoint: Checkpoint,
    /// Private halves that are known to be lost.
    lost: u64,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The latest checkpoint.
    pub checkpoint: Checkpoint,
    /// How many private halves open; none where the sealing key was not given.
    pub opened: Option<u64>,
    /// Entries whose private values are lost.
    pub lost: u64,
}

impl Restoring {
    /// Reads a backup's log part into a folder beside `place`, where nothing may be yet.
    pub fn begin(
        place: &Path,
        log: &(impl AsRef<[Verifier]> + ?Sized),
        log_part: impl Read,
    ) -> Result<Self, BackupError> {
        let log = log.as_ref().to_vec();
        if std::fs::read_dir(place).is_ok_and(|mut there| there.next().is_some()) {
            return Err(BackupError::NotEmpty(place.into()));
        }
        let place = std::path::absolute(place)?;
        let parent = place.parent().unwrap_or_else(|| Path::new("/"));
        std::fs::create_dir_all(parent).map_err(LogError::io(parent))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let folder = tempfile::Builder::new().prefix(&format!(".{name}.restoring-")).tempdir_in(parent);
        let folder = folder.map_err(LogError::io(parent))?;
        let store = SledStore::open(folder.path())?;
        let mut filling = Filling { store: &store, folder: folder.path(), bytes: 0 };
        let kept = read::read_log(log_part, &log, &mut filling)?;
        store.sync()?;
        if let Some(check) = sealing_check(&kept.manifest)? {
            store.set_sealing_check(&check)?;
        }
        let checkpoint = kept.checkpoint.clone();
        Ok(Self { place, folder, store, log, kept, checkpoint, lost: 0 })
    }

    /// What the backup holds.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The latest checkpoint of what is put together.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The root of the first `size` entries, where a commit ends there.
    pub fn root_at(&self, size: u64) -> Result<Option<Hash>, BackupError> {
        let Some(last) = size.checked_sub(1) else { return Ok(Some(Hash::of_nothing())) };
        for run in self.store.runs(last) {
            let run = run?;
            let end = run.first + run.entries.len() as u64;
            if end >= size {
                let note = run.end.filter(|_| end == size).map(|(_, note)| note);
                return Ok(note.map(|note| Checkpoint::parse(&note)).transpose()?.map(|checkpoint| checkpoint.root));
            }
        }
        Ok(None)
    }

    /// Entries behind the backup's, as they were published under this checkpoint: one commit, with private values lost. `entries`
    /// gives them in order, in pieces.
    pub fn extend<E: From<BackupError>>(
        &mut self,
        checkpoint: &Checkpoint,
        mut entries: impl FnMut(u64) -> Result<Vec<Bytes>, E>,
    ) -> Result<(), E> {
        let failed = |error: LogError| E::from(BackupError::Log(error));
        checkpoint.verify_signature(&self.log).map_err(failed)?;
        let note = crate::trust::note::Note::parse(&checkpoint.note).map(|note| note.only_of(&self.log));
        let note = note.map_err(|_| failed(LogError::Checkpoint("it is no signed note")))?.to_string();
        let first = self.kept.edge.size();
        let mut edge = self.kept.edge.clone();
        while edge.size() < checkpoint.size {
            let at = edge.size();
            let piece = entries(at)?;
            if piece.is_empty() || at + piece.len() as u64 > checkpoint.size {
                return Err(failed(LogError::Beyond { asked: at, size: checkpoint.size }));
            }
            for entry in &piece {
                edge.push(Hash::of_leaf(entry));
                read::note_erasure(&mut self.kept.erased, edge.size(), entry);
            }
            let ends = edge.size() == checkpoint.size;
            if ends && edge.root() != checkpoint.root {
                let (computed, signed) = (edge.root(), checkpoint.root);
                return Err(failed(LogError::Altered { first, last: checkpoint.size - 1, computed, signed }));
            }
            let piece: Vec<&Bytes> = piece.iter().collect();
            let ends = ends.then_some((&edge, note.as_str()));
            self.store.put_restored(|put| records::pack_entries(at, &piece, ends, put)).map_err(failed)?;
        }
        self.store.sync().map_err(failed)?;
        self.kept.edge = edge;
        self.checkpoint = Checkpoint { note, ..checkpoint.clone() };
        Ok(())
    }

    /// Reads the backup's shred keys, those of this log's part or later ones. Keys of what the log says was erased are not taken.
    pub fn shred_keys(&mut self, shred_part: impl Read) -> Result<(), BackupError> {
        let (backup, size) = (self.kept.checkpoint.size, self.checkpoint.size);
        self.make_shred_folder()?;
        let (store, erased) = (&self.store, &self.kept.erased);
        let mut lost = 0;
        let mut files = 0;
        let shred = read::read_shred(shred_part, &self.log, |number, file| {
            files = number + 1;
            let first = number * FILE_KEYS;
            if first >= size {
                return Ok(());
            }
            let mut slots = match file {
                KeyFile::Keys(slots) => slots,
                // The log will go on in this one.
                KeyFile::Erased if size < first + FILE_KEYS => Zeroizing::new(ERASED.repeat(FILE_KEYS as usize)),
                file => return Ok(store.shred_keys().restore(number, &file)?),
            };
            for (index, slot) in (first..).zip(slots.as_chunks_mut::<KEY>().0) {
                if index >= size {
                    *slot = NO_KEY;
                } else if index >= backup {
                    // Its half went with what came after the backup.
                    lost += u64::from(!matches!(shred::Slot::read(slot), shred::Slot::Erased | shred::Slot::NoHalf));
                    *slot = lost_of(slot);
                } else if erased.contains(index) {
                    *slot = ERASED;
                }
            }
            Ok(store.shred_keys().restore(number, &KeyFile::Keys(slots))?)
        })?;
        if shred.size < backup {
            return Err(BackupError::OldShred { found: shred.size, size: backup });
        }
        self.lost += lost;
        // Of entries behind the last file's.
        self.lose(files)
    }

    /// Without shred keys: every private half is lost.
    pub fn without_private_values(&mut self) -> Result<(), BackupError> {
        self.make_shred_folder()?;
        self.lose(0)
    }

    /// Files of keys from this one on, in which everything is lost that was not erased.
    fn lose(&mut self, files: u64) -> Result<(), BackupError> {
        let size = self.checkpoint.size;
        for number in files..size.div_ceil(FILE_KEYS) {
            let mut slots = Zeroizing::new(vec![0; FILE_BYTES]);
            for (index, slot) in (number * FILE_KEYS..size).zip(slots.as_chunks_mut::<KEY>().0) {
                let erased = self.kept.erased.contains(index);
                self.lost += u64::from(!erased);
                *slot = if erased { ERASED } else { LOST };
            }
            self.store.shred_keys().restore(number, &KeyFile::Keys(slots))?;
        }
        Ok(())
    }

    fn make_shred_folder(&self) -> Result<(), BackupError> {
        let shred = self.folder.path().join(shred::FOLDER);
        Ok(std::fs::create_dir_all(&shred).map_err(LogError::io(shred))?)
    }

    /// Checks the whole once more as a node's start does, and every private half; then makes it durable and moves it to its place.
    pub fn finish(self, sealing_key: Option<&SealingKeySource>, marker: &Marker) -> Result<Restored, BackupError> {
        let seal = match sealing_key {
            None => None,
            Some(source) => {
                let seal = Seal::new(&source.read(&self.checkpoint.origin, false)?);
                match self.store.sealing_check()? {
                    Some(check) if check != seal.check() => return Err(LogError::OtherSealingKey.into()),
                    _ => Some(seal),
                }
            }
        };
        let opened = self.check_halves(seal.as_ref())?;
        marker.write(self.folder.path())?;
        self.store.settle(&self.checkpoint)?;
        recovery::agree(
            &self.store,
            &self.checkpoint.origin,
            &self.log,
            &self.folder.path().join("head"),
            false,
            |_, _| {},
        )?;
        let Self { place, folder, store, checkpoint, lost, .. } = self;
        drop(store);
        sync_all(folder.path())?;
        let folder = folder.keep();
        let moved = std::fs::rename(&folder, &place);
        if let Err(error) = moved {
            let _ = std::fs::remove_dir_all(&folder);
            return Err(LogError::io(&place)(error).into());
        }
        if let Some(parent) = place.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(LogError::io(parent))?;
        }
        Ok(Restored { checkpoint, opened: seal.map(|_| opened), lost })
    }

    /// Every key has its half; where there is a sealing key it opens, and its entry commits to it.
    fn check_halves(&self, seal: Option<&Seal>) -> Result<u64, BackupError> {
        let size = self.checkpoint.size;
        let first = self.kept.manifest.first;
        let mut opened = 0;
        let store: &dyn Store = &self.store;
        let mut wanted = Vec::new();
        let mut check = |wanted: &mut Vec<u64>| {
            for index in wanted.drain(..) {
                let wrong = |what: &str| BackupError::Half { index, what: what.into() };
                if let Half::Missing(what) = store.half(index)? {
                    return Err(wrong(what));
                }
                let Some(seal) = seal else { continue };
                let half = open_half(store, seal, index)?;
                opened += 1;
                if index < first {
                    continue;
                }
                let entry = crate::log::store::read(store, index, size, 1, usize::MAX)?.pop().unwrap_or_default();
                let commitment = Private::read(&half).map(|half| half.commitment());
                let committed = Entry::decode(entry)
                    .is_ok_and(|entry| commitment.is_some_and(|commitment| commitment.0[..] == entry.commitment[..]));
                if !committed {
                    return Err(wrong("it does not commit to its private half"));
                }
            }
            Ok(())
        };
        let mut at = 0;
        while at < size {
            let until = size.min(at + FILE_KEYS);
            store.each_key(at, until, &mut |index, slot| {
                match slot {
                    shred::Slot::Key(_) => wanted.push(index),
                    shred::Slot::Missing => {
                        return Err(LogError::Damaged { index, what: "its shred key is missing".into() });
                    }
                    _ => {}
                }
                Ok(())
            })?;
            check(&mut wanted)?;
            at = until;
        }
        Ok(opened)
    }
}

/// What stays of a slot whose half is not there any more.
fn lost_of(slot: &[u8; KEY]) -> [u8; KEY] {
    match shred::Slot::read(slot) {
        shred::Slot::Erased | shred::Slot::NoHalf => *slot,
        _ => LOST,
    }
}

fn sealing_check(manifest: &Manifest) -> Result<Option<[u8; 32]>, BackupError> {
    let Some(check) = &manifest.sealing_check else { return Ok(None) };
    let mut bytes = [0; 32];
    let wrong = |_| BackupError::member(super::MANIFEST, "sealing_check is not 32 bytes in hexadecimal");
    hex::decode_to_slice(check, &mut bytes).map_err(wrong)?;
    Ok(Some(bytes))
}

/// The head of what is left of an earlier data folder.
pub fn head_of(folder: &Path, log: &[Verifier]) -> Result<Option<Checkpoint>, LogError> {
    match Head::read(folder)? {
        Found::Checkpoint(head) if log.iter().any(|key| head.origin == key.name()) => {
            head.verify_signature(log).map(|()| Some(head))
        }
        _ => Ok(None),
    }
}

/// The store, being filled.
struct Filling<'a> {
    store: &'a SledStore,
    folder: &'a Path,
    bytes: usize,
}

impl Filling<'_> {
    fn filled(&mut self, more: usize) -> Result<(), BackupError> {
        self.bytes += more;
        if self.bytes >= FLUSH_BYTES {
            self.bytes = 0;
            self.store.sync()?;
        }
        Ok(())
    }
}

impl Sink for Filling<'_> {
    fn base(&mut self, base: &Base) -> Result<(), BackupError> {
        let mut packed = Vec::new();
        records::pack_base(base, |key, value| packed.push((key.to_vec(), value)))?;
        Ok(self.store.put_restored(|put| packed.into_iter().for_each(|(key, value)| put(&key, value)))?)
    }

    fn entries(&mut self, first: u64, entries: &[Bytes], ends: Option<(&RightEdge, &str)>) -> Result<(), BackupError> {
        let bytes = entries.iter().map(Bytes::len).sum();
        let entries: Vec<&Bytes> = entries.iter().collect();
        self.store.put_restored(|put| records::pack_entries(first, &entries, ends, put))?;
        self.filled(bytes)
    }

    fn halves(&mut self, first: u64, halves: &[Bytes]) -> Result<(), BackupError> {
        self.store.put_restored(|put| records::pack_all_halves(first, halves, put))?;
        self.filled(halves.iter().map(Bytes::len).sum())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        let path = self.folder.join(name);
        let parent = path.parent().unwrap_or(self.folder);
        std::fs::create_dir_all(parent).map_err(LogError::io(parent))?;
        Ok(std::fs::write(&path, content).map_err(LogError::io(path))?)
    }
}

/// Makes a folder durable, with everything in it.
fn sync_all(folder: &Path) -> Result<(), LogError> {
    for found in std::fs::read_dir(folder).map_err(LogError::io(folder))? {
        let found = found.map_err(LogError::io(folder))?;
        let path = found.path();
        if found.file_type().map_err(LogError::io(&path))?.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(LogError::io(path))?;
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::io(folder))
}
