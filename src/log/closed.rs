//! Reading a log that no node has open, without its key: for the command line on a data folder.
//!
//! It shows what the head says was acknowledged. It checks nothing (`verify` does) and changes neither entries nor head;
//! sled tidies up its own files when opened, as it does for a node.

use std::path::Path;

use bytes::Bytes;

use super::READ_BYTES;
use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{self, Found, Head};
use super::index::{EntrySource, SourceError};
use super::sled_store::SledStore;
use super::store;

/// A log that no node has open. While it lives no node can.
pub struct ClosedLog {
    store: SledStore,
    checkpoint: Checkpoint,
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
            Found::Checkpoint(checkpoint) => Ok(Self { store, checkpoint }),
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

impl EntrySource for ClosedLog {
    fn size(&self) -> u64 {
        self.checkpoint.size
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(Self::read(self, from, max)?)
    }
}
