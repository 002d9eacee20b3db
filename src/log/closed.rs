//! Reading a log that no node has open, without its key: for the command line on a data folder.
//!
//! It shows what the head says was acknowledged. It checks nothing (`verify` does) and changes neither entries nor head;
//! sled tidies up its own files when opened, as it does for a node.

use std::path::Path;
use std::sync::RwLock;

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{self, Found, Head};
use super::hidden::Seen;
use super::index::{EntrySource, Pseudonym, SourceError};
use super::recovery::Replay;
use super::seal::Seal;
use super::shared::StoredTree;
use super::sled_store::SledStore;
use super::tree::Hash;
use super::{PrivateHalf, READ_BYTES, proof, store};

/// A log that no node has open. While it lives no node can.
pub struct ClosedLog {
    store: SledStore,
    checkpoint: Checkpoint,
    /// Where the folder has its key.
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
        match Head::read(folder)? {
            Found::Checkpoint(checkpoint) => Ok(Self { store, checkpoint, seal: Seal::open(folder, false).ok() }),
            Found::Missing => Err(unusable("missing")),
            Found::Damaged => Err(unusable("damaged")),
        }
    }

    /// The latest checkpoint, as the head has it; its signature has not been looked at.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Entries' bytes from an index on, at most `max_entries` and about a mebibyte.
    pub fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Bytes>, LogError> {
        let entries = store::read(&self.store, from, self.checkpoint.size, max_entries, READ_BYTES)?;
        Ok(entries.into_iter().map(|stored| stored.entry).collect())
    }
}

impl ClosedLog {
    /// As [`Self::read`], with what delayed and sealed entries hide, where the folder's key opens it.
    pub fn read_seen(&self, from: u64, max_entries: usize) -> Result<Vec<Seen>, LogError> {
        let entries = store::read(&self.store, from, self.checkpoint.size, max_entries, READ_BYTES)?;
        Ok(entries.into_iter().map(|stored| super::seen(self.seal.as_ref(), stored)).collect())
    }

    /// As [`Self::read`], each entry with its private half; none where that, or the folder's key, is gone.
    pub fn read_with_private(&self, from: u64, max_entries: usize) -> Result<Vec<(Bytes, PrivateHalf)>, LogError> {
        let entries = store::read(&self.store, from, self.checkpoint.size, max_entries, READ_BYTES)?;
        Ok(entries.into_iter().map(|stored| super::with_private(self.seal.as_ref(), stored)).collect())
    }

    /// The inclusion proof of an entry in the tree of the first `size` entries. Reads the whole log, whose roots are
    /// compared with the stored checkpoints on the way.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        if size > self.checkpoint.size {
            return Err(LogError::Beyond { asked: size, size: self.checkpoint.size });
        }
        let replay = Replay::run(&self.store, &self.checkpoint.origin, |_, _| {}, |_| Ok(()))?;
        let tiles = RwLock::new(replay.tiles);
        let mut tree = StoredTree::new(&tiles, &self.store, self.checkpoint.size);
        proof::inclusion(&mut tree, index, size).map_err(|error| match error {
            proof::MakeError::Beyond(asked, size) => LogError::Beyond { asked, size },
            proof::MakeError::Source(error) => error,
        })
    }
}

impl EntrySource for ClosedLog {
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
