//! Reading a log that no node has open, without its key: for the command line on a data folder.
//!
//! It shows what the head says was acknowledged. It checks nothing (`verify` does) and changes neither entries nor head;
//! sled tidies up its own files when opened, as it does for a node.

use std::path::Path;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::READ_BYTES;
use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{self, Found, Head};
use super::index::{EntrySource, SourceError};
use super::seal::Seal;
use super::sealing_key::SealingKeySource;
use super::shared::open_half;
use super::sled_store::SledStore;
use super::store::{self, Base, Store};

/// A log that no node has open. While it lives no node can.
pub struct ClosedLog {
    store: SledStore,
    checkpoint: Checkpoint,
    first: u64,
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
        let first = Base::first(&store.base()?);
        match Head::read(folder)? {
            Found::Checkpoint(checkpoint) => Ok(Self { store, checkpoint, first }),
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
        if from < self.first {
            let published = format!("https://{}/", self.checkpoint.origin);
            return Err(LogError::Pruned { index: from, first: self.first, published });
        }
        store::read(&self.store, from, self.checkpoint.size, max_entries, READ_BYTES)
    }

    /// The first entry that is kept here.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Opens private halves too, under the sealing key; refuses another key than this log's.
    pub fn unseal(&self, key: &SealingKeySource) -> Result<Unsealed<'_>, LogError> {
        let seal = Seal::new(&key.read(&self.checkpoint.origin, false)?);
        match self.store.sealing_check()? {
            Some(check) if check == seal.check() => Ok(Unsealed { log: self, seal }),
            _ => Err(LogError::OtherSealingKey),
        }
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
        let size = self.log.checkpoint.size;
        if index >= size {
            return Err(LogError::Beyond { asked: index, size });
        }
        open_half(&self.log.store, &self.seal, index)
    }
}

impl EntrySource for ClosedLog {
    fn first(&self) -> u64 {
        self.first
    }

    fn size(&self) -> u64 {
        self.checkpoint.size
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(Self::read(self, from, max)?)
    }
}
