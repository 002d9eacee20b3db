//! Reading a log that no node has open, without its key: for the command line on a data folder. What is sealed is opened
//! where the sealing key is in the folder.
//!
//! It shows what the head says was acknowledged. It checks nothing (`verify` does) and changes neither entries nor head;
//! sled tidies up its own files when opened, as it does for a node.

use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{self, Found, Head};
use super::hidden::Seen;
use super::index::{EntrySource, Pseudonym, SourceError};
use super::recovery::Replay;
use super::seal::Seal;
use super::sealing_key::SealingKeySource;
use super::shared::{StoredTree, open_half};
use super::sled_store::SledStore;
use super::store::{self, Base, Store};
use super::tree::{Hash, RightEdge, Tiles};
use super::{PrivateHalf, READ_BYTES, proof};

/// A log that no node has open. While it lives no node can.
pub struct ClosedLog {
    store: SledStore,
    checkpoint: Checkpoint,
    base: Option<Arc<Base>>,
    /// The tree's tiles: computed when the first proof is asked for.
    tiles: OnceLock<RwLock<Tiles>>,
    published_at: String,
    /// Where it is this log's.
    seal: Option<Seal>,
}

impl std::fmt::Debug for ClosedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosedLog").field("size", &self.checkpoint.size).finish_non_exhaustive()
    }
}

impl ClosedLog {
    /// Opens the log of a data folder. [`LogError::Locked`] where a node is running on it.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        if !SledStore::exists(folder) {
            return Err(LogError::Missing(folder.into()));
        }
        let store = SledStore::open(folder)?;
        let unusable = |what| LogError::HeadUnusable { path: folder.join(head::FILE), what, stored: 0 };
        let base = store.base()?.map(Arc::new);
        let checkpoint = match Head::read(folder)? {
            Found::Checkpoint(checkpoint) => checkpoint,
            Found::Missing => return Err(unusable("missing")),
            Found::Damaged => return Err(unusable("damaged")),
        };
        let published_at = format!("https://{}/", checkpoint.origin);
        let log = Self { store, checkpoint, base, tiles: OnceLock::new(), published_at, seal: None };
        let seal = log.seal_from(&SealingKeySource::in_folder(folder)).ok();
        Ok(Self { seal, ..log })
    }

    /// The latest checkpoint, as the head has it; its signature has not been looked at.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Entries' bytes from an index on, at most `max_entries` and about a mebibyte.
    pub fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Bytes>, LogError> {
        self.kept(from)?;
        store::read(&self.store, from, self.checkpoint.size, max_entries, READ_BYTES)
    }

    /// The first entry that is kept here.
    pub fn first(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.edge.size())
    }

    /// The tree's right edge at [`Self::first`].
    pub fn edge(&self) -> RightEdge {
        self.base.as_ref().map_or_else(RightEdge::default, |base| base.edge.clone())
    }

    /// Whether private halves can be opened: the sealing key is in the folder, and it is this log's.
    pub fn has_key(&self) -> bool {
        self.seal.is_some()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &self.store
    }

    pub(super) fn base(&self) -> Option<Arc<Base>> {
        self.base.clone()
    }

    fn kept(&self, index: u64) -> Result<(), LogError> {
        let first = self.first();
        if index < first {
            return Err(LogError::Pruned { index, first, published: self.published_at.clone() });
        }
        Ok(())
    }

    fn seal_from(&self, key: &SealingKeySource) -> Result<Seal, LogError> {
        let seal = Seal::new(&key.read(&self.checkpoint.origin, false)?);
        match self.store.sealing_check()? {
            Some(check) if check == seal.check() => Ok(seal),
            _ => Err(LogError::OtherSealingKey),
        }
    }

    /// Opens private halves too, under the sealing key; refuses another key than this log's.
    pub fn unseal(&self, key: &SealingKeySource) -> Result<Unsealed<'_>, LogError> {
        Ok(Unsealed { log: self, seal: self.seal_from(key)? })
    }

    /// The private half of an entry, as [`super::Log::read_private`] gives it.
    pub fn read_private(&self, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
        self.open_half(self.seal.as_ref().ok_or(LogError::OtherSealingKey)?, index)
    }

    fn open_half(&self, seal: &Seal, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
        let size = self.checkpoint.size;
        if index >= size {
            return Err(LogError::Beyond { asked: index, size });
        }
        open_half(&self.store, seal, index)
    }
}

/// A closed log with its sealing key.
#[derive(Debug)]
pub struct Unsealed<'a> {
    log: &'a ClosedLog,
    seal: Seal,
}

impl Unsealed<'_> {
    /// The private half of an entry, as [`super::Log::read_private`] gives it.
    pub fn read_private(&self, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
        self.log.open_half(&self.seal, index)
    }
}

impl ClosedLog {
    /// As [`Self::read`], with what delayed and sealed entries hide, where the folder's key opens it.
    pub fn read_seen(&self, from: u64, max_entries: usize) -> Result<Vec<Seen>, LogError> {
        Ok(super::seen(from, self.read(from, max_entries)?, &|index| self.read_private(index)))
    }

    /// As [`Self::read`], each entry with its private half; none where that, or the folder's key, is gone.
    pub fn read_with_private(&self, from: u64, max_entries: usize) -> Result<Vec<(Bytes, PrivateHalf)>, LogError> {
        Ok(super::with_private(from, self.read(from, max_entries)?, &|index| self.read_private(index)))
    }

    /// The inclusion proof of an entry in the tree of the first `size` entries. The first reads the whole log, whose roots
    /// are compared with the stored checkpoints on the way.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        if size > self.checkpoint.size {
            return Err(LogError::Beyond { asked: size, size: self.checkpoint.size });
        }
        self.kept(index)?;
        let tiles = match self.tiles.get() {
            Some(tiles) => tiles,
            None => {
                let replay = Replay::run(&self.store, &self.checkpoint.origin, |_, _| {}, |_| Ok(()))?;
                self.tiles.get_or_init(|| RwLock::new(replay.tiles))
            }
        };
        let base = self.base.clone();
        let mut tree = StoredTree::new(tiles, &self.store, self.checkpoint.size, base, &self.published_at);
        proof::inclusion(&mut tree, index, size).map_err(|error| match error {
            proof::MakeError::Beyond(asked, size) => LogError::Beyond { asked, size },
            proof::MakeError::Source(error) => error,
        })
    }
}

impl EntrySource for ClosedLog {
    fn first(&self) -> u64 {
        Self::first(self)
    }

    fn size(&self) -> u64 {
        self.checkpoint.size
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(Self::read(self, from, max)?)
    }

    fn read_seen(&self, from: u64, max: usize) -> Result<Vec<Seen>, SourceError> {
        Ok(Self::read_seen(self, from, max)?)
    }

    fn read_with_private(&self, from: u64, max: usize) -> Result<Vec<(Bytes, PrivateHalf)>, SourceError> {
        Ok(Self::read_with_private(self, from, max)?)
    }

    fn pseudonym(&self, subject: &[u8]) -> Option<Pseudonym> {
        Some(self.seal.as_ref()?.pseudonym(subject))
    }
}
