//! What the writer and the handles share: the store for reading, the tiles, the latest checkpoint, the log's health.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};

use super::checkpoint::Checkpoint;
use super::error::{LogError, LogHealth};
use super::seal::Seal;
use super::store::{self, Store};
use super::tree::{Hash, RightEdge, Subtrees, TILE_LEAVES, TILE_LEVELS, Tiles};

/// Shared state of one open log.
pub(super) struct Shared {
    /// None once closed.
    store: RwLock<Option<Box<dyn Store>>>,
    pub(super) seal: Seal,
    pub(super) tiles: RwLock<Tiles>,
    pub(super) checkpoint: watch::Sender<Arc<Checkpoint>>,
    pub(super) health: watch::Sender<LogHealth>,
    /// Free places in the queue.
    pub(super) room: Semaphore,
    queue: usize,
}

impl Shared {
    pub(super) fn new(
        store: Box<dyn Store>,
        seal: Seal,
        tiles: Tiles,
        checkpoint: Checkpoint,
        health: LogHealth,
        queue: usize,
    ) -> Self {
        Self {
            store: RwLock::new(Some(store)),
            seal,
            tiles: RwLock::new(tiles),
            checkpoint: watch::Sender::new(Arc::new(checkpoint)),
            health: watch::Sender::new(health),
            room: Semaphore::new(queue),
            queue,
        }
    }

    /// Uses the store while it is open.
    pub(super) fn with_store<T>(&self, f: impl FnOnce(&dyn Store) -> Result<T, LogError>) -> Result<T, LogError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        f(store.as_deref().ok_or(LogError::Closed)?)
    }

    /// Closes the store, once those reading from it have done.
    pub(super) fn close(&self) {
        self.room.close();
        drop(self.store.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// How many entries are durable.
    pub(super) fn size(&self) -> u64 {
        self.checkpoint.borrow().size
    }

    pub(super) fn set_health(&self, health: LogHealth) {
        let refusing = matches!(health, LogHealth::Refusing { .. });
        metrics::gauge!("kopuro_log_refusing").set(if refusing { 1.0 } else { 0.0 });
        self.health.send_replace(health);
    }

    /// Why the log refuses, where it does.
    pub(super) fn refusal(&self) -> Option<Arc<str>> {
        match &*self.health.borrow() {
            LogHealth::Refusing { reason, .. } => Some(Arc::clone(reason)),
            _ => None,
        }
    }

    pub(super) fn give_room(&self, places: usize) {
        self.room.add_permits(places);
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.saturating_sub(self.room.available_permits())
    }
}

/// The log's tree as a source of proofs: tiles from memory, what is smaller from the entries in the store.
pub(super) struct StoredTree<'a> {
    tiles: &'a RwLock<Tiles>,
    store: &'a dyn Store,
    size: u64,
    /// The leaves of the tile last read, and its number: a proof asks for several subtrees of one tile.
    tile: Option<(u64, Vec<Hash>)>,
}

impl<'a> StoredTree<'a> {
    pub(super) fn new(tiles: &'a RwLock<Tiles>, store: &'a dyn Store, size: u64) -> Self {
        Self { tiles, store, size, tile: None }
    }

    fn leaves(&mut self, tile: u64) -> Result<&[Hash], LogError> {
        if self.tile.as_ref().is_none_or(|(number, _)| *number != tile) {
            let from = tile * TILE_LEAVES;
            let until = self.size.min(from + TILE_LEAVES);
            let entries = store::read(self.store, from, until, TILE_LEAVES as usize, usize::MAX)?;
            let leaves = entries.iter().map(|stored| Hash::of_leaf(&stored.entry)).collect();
            self.tile = Some((tile, leaves));
        }
        Ok(self.tile.as_ref().map_or(&[], |(_, leaves)| leaves))
    }
}

impl Subtrees for StoredTree<'_> {
    type Error = LogError;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, LogError> {
        let beyond = LogError::Beyond { asked: index.checked_shl(level).unwrap_or(u64::MAX), size: self.size };
        if level >= TILE_LEVELS {
            let tiles = self.tiles.read().unwrap_or_else(PoisonError::into_inner);
            return tiles.complete(level, index).ok_or(beyond);
        }
        let from = index << level;
        let within = (from % TILE_LEAVES) as usize;
        let leaves = self.leaves(from / TILE_LEAVES)?;
        let subtree = leaves.get(within..within + (1 << level)).ok_or(beyond)?;
        let mut edge = RightEdge::default();
        subtree.iter().for_each(|leaf| edge.push(*leaf));
        Ok(edge.root())
    }
}
