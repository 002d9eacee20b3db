//! What the writer and the handles share: the store for reading, the tiles, the latest checkpoint, the log's health.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use super::LogKeys;
use super::added::Added;
use super::checkpoint::Checkpoint;
use super::entry::{MAX_ENTRY, Record};
use super::error::{AppendError, LogError, LogHealth};
use super::seal::{self, Seal};
use super::shred::ShredKey;
use super::store::{self, Base, Half, Store, Stored};
use super::tree::{Hash, RightEdge, Subtrees, TILE_LEAVES, TILE_LEVELS, Tiles};

/// Shared state of one open log.
pub(super) struct Shared {
    /// None once closed.
    store: RwLock<Option<Box<dyn Store>>>,
    pub(super) folder: PathBuf,
    pub(super) seal: Seal,
    /// Where the log begins; none where nothing was pruned.
    base: RwLock<Option<Arc<Base>>>,
    /// Where entries that were pruned can be had.
    pub(super) published_at: String,
    /// How many entries are published, as far as whoever publishes has said.
    pub(super) published: AtomicU64,
    /// Bytes of the entries that are kept.
    pub(super) kept_bytes: AtomicU64,
    /// Below this index every private half is erased.
    pub(super) private_from: AtomicU64,
    /// From this entry on nothing is pruned: a backup is being made.
    pub(super) pinned: AtomicU64,
    /// Whether the log takes nothing until it is known that no newer one was shown to anybody.
    pub(super) held: AtomicBool,
    /// Held by whoever erases or prunes.
    pub(super) upkeep: Mutex<()>,
    pub(super) tiles: RwLock<Tiles>,
    pub(super) checkpoint: watch::Sender<Arc<Checkpoint>>,
    /// Keys by which the log signs, and others by which it has signed.
    pub(super) keys: RwLock<Arc<LogKeys>>,
    pub(super) health: watch::Sender<LogHealth>,
    /// How many are about to append.
    pub(super) expected: AtomicUsize,
    /// Free places in the queue.
    pub(super) room: Semaphore,
    queue: usize,
}

/// What an open log is made of.
pub(super) struct Parts {
    pub(super) store: Box<dyn Store>,
    pub(super) folder: PathBuf,
    pub(super) seal: Seal,
    pub(super) base: Option<Base>,
    pub(super) published_at: String,
    pub(super) kept_bytes: u64,
    pub(super) private_from: u64,
    pub(super) tiles: Tiles,
    pub(super) checkpoint: Checkpoint,
    pub(super) keys: LogKeys,
    pub(super) health: LogHealth,
    pub(super) queue: usize,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            folder,
            seal,
            base,
            published_at,
            kept_bytes,
            private_from,
            tiles,
            checkpoint,
            keys,
            health,
            queue,
        } = parts;
        Self {
            store: RwLock::new(Some(store)),
            folder,
            seal,
            base: RwLock::new(base.map(Arc::new)),
            published_at,
            published: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(kept_bytes),
            private_from: AtomicU64::new(private_from),
            pinned: AtomicU64::new(super::backup::NOT_PINNED),
            held: AtomicBool::new(false),
            upkeep: Mutex::new(()),
            tiles: RwLock::new(tiles),
            checkpoint: watch::Sender::new(Arc::new(checkpoint)),
            keys: RwLock::new(Arc::new(keys)),
            health: watch::Sender::new(health),
            expected: AtomicUsize::new(0),
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

    /// The log's keys.
    pub(super) fn keys(&self) -> Arc<LogKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these are the log's keys.
    pub(super) fn set_keys(&self, keys: LogKeys) {
        metrics::gauge!("kopuro_log_signing_keys").set(keys.signing().len() as f64);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Where the log begins.
    pub(super) fn base(&self) -> Option<Arc<Base>> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.base().map_or(0, |base| base.edge.size())
    }

    /// From now on nobody reads below this.
    pub(super) fn set_base(&self, base: Base) {
        metrics::gauge!("kopuro_log_first_entry").set(base.edge.size() as f64);
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(base));
    }

    fn kept(&self, index: u64) -> Result<(), LogError> {
        if index < self.first() { Err(self.pruned(index)) } else { Ok(()) }
    }

    /// What is said of an index or size that was pruned.
    pub(super) fn pruned(&self, index: u64) -> LogError {
        LogError::Pruned { index, first: self.first(), published: self.published_at.clone() }
    }

    /// The tree that proofs are made from.
    pub(super) fn tree<'a>(&'a self, store: &'a dyn Store) -> StoredTree<'a> {
        StoredTree::new(&self.tiles, store, self.size(), self.base(), &self.published_at)
    }

    /// Entries from an index on, up to `until`.
    pub(super) fn read(
        &self,
        from: u64,
        until: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, LogError> {
        self.kept(from)?;
        let read = self.with_store(|store| store::read(store, from, until, max_entries, max_bytes));
        // Pruned meanwhile: not damage.
        read.or_else(|error| self.kept(from).and(Err(error)))
    }

    /// An entry's private half, opened.
    pub(super) fn private(&self, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
        self.with_store(|store| open_half(store, &self.seal, index))
    }

    /// What an append can do before it has a place in the queue: check, hash, seal, off the writer thread.
    pub(super) fn prepare(&self, record: Record) -> Result<(Stored, Hash), AppendError> {
        if let Some(reason) = self.refusal() {
            return Err(AppendError::Refusing(reason));
        }
        let largest = record.entry.len().max(record.private.len() + seal::OVERHEAD);
        if largest > MAX_ENTRY {
            return Err(AppendError::TooLarge(largest));
        }
        let leaf = Hash::of_leaf(&record.entry);
        if record.private.is_empty() {
            let shred = ShredKey::of_no_half();
            return Ok((Stored { entry: record.entry, sealed: Bytes::new(), shred }, leaf));
        }
        let sealed = ShredKey::generate()
            .and_then(|shred| Some((self.seal.seal(&shred, &record.private)?, shred)))
            .map(|(sealed, shred)| Stored { entry: record.entry, sealed: sealed.into(), shred });
        Ok((sealed.ok_or_else(|| AppendError::Refusing("the private half cannot be sealed".into()))?, leaf))
    }

    pub(super) fn set_health(&self, health: LogHealth) {
        tell_refusing(&health);
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

/// Opens an entry's private half, or says why it cannot be.
pub(super) fn open_half(store: &dyn Store, seal: &Seal, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
    let damaged = |what: &str| LogError::Damaged { index, what: what.into() };
    match store.half(index)? {
        Half::Sealed { sealed, shred } => {
            seal.open_sealed(&shred, &sealed).ok_or_else(|| damaged("its private half does not open"))
        }
        Half::None => Err(LogError::NoPrivate { index }),
        Half::Erased => Err(LogError::Erased { index }),
        Half::Lost => Err(LogError::PrivateLost { index }),
        Half::Missing(what) => Err(damaged(what)),
    }
}

/// The log's tree as a source of proofs: tiles from memory, what is smaller from the entries in the store, what was
/// pruned from the right edge at the cut.
pub(super) struct StoredTree<'a> {
    tiles: &'a RwLock<Tiles>,
    store: &'a dyn Store,
    size: u64,
    base: Option<Arc<Base>>,
    published_at: &'a str,
    /// The number of the tile last read, and its tree: proofs ask for several subtrees of one tile.
    tile: Option<(u64, Added)>,
    /// Subtrees of more than one tile that were asked for: proofs of neighbouring trees have them in common.
    large: HashMap<(u32, u64), Hash>,
}

impl<'a> StoredTree<'a> {
    pub(super) fn new(
        tiles: &'a RwLock<Tiles>,
        store: &'a dyn Store,
        size: u64,
        base: Option<Arc<Base>>,
        published_at: &'a str,
    ) -> Self {
        Self { tiles, store, size, base, published_at, tile: None, large: HashMap::new() }
    }

    /// The tree of what is kept of a tile, as far as the log goes.
    fn read_tile(&self, tile: u64) -> Result<Added, LogError> {
        let start = tile * TILE_LEAVES;
        let until = self.size.min(start + TILE_LEAVES);
        let base = self.base.as_ref().map(|base| &base.edge).filter(|edge| edge.size() > start);
        let mut edge = base.cloned().unwrap_or_else(|| RightEdge::unknown(start));
        let latest = self.tiles.read().unwrap_or_else(PoisonError::into_inner).latest_leaves(edge.size(), until);
        let leaves = match latest {
            Some(leaves) => leaves,
            None => {
                let entries = store::read(self.store, edge.size(), until, TILE_LEAVES as usize, usize::MAX)?;
                entries.iter().map(|entry| Hash::of_leaf(entry)).collect()
            }
        };
        Ok(Added::to(&mut edge, leaves))
    }
}

impl Subtrees for StoredTree<'_> {
    type Error = LogError;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, LogError> {
        let range = index.checked_shl(level).zip((index + 1).checked_shl(level));
        let (from, to) = range.unwrap_or((u64::MAX, u64::MAX));
        let beyond = LogError::Beyond { asked: from, size: self.size };
        if to > self.size {
            return Err(beyond);
        }
        if level >= TILE_LEVELS {
            if let Some(root) = self.large.get(&(level, index)) {
                return Ok(*root);
            }
            let tiles = self.tiles.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(root) = tiles.complete(level, index) {
                self.large.insert((level, index), root);
                return Ok(root);
            }
        }
        if let Some(base) = self.base.as_ref().filter(|base| from < base.edge.size()) {
            let first = base.edge.size();
            if to <= first {
                let pruned = || LogError::Pruned { index: from, first, published: self.published_at.into() };
                return base.edge.complete(level, index).ok_or_else(pruned);
            }
            // Both sides of the cut, so of two leaves at least.
            let (left, right) = (self.complete(level - 1, 2 * index)?, self.complete(level - 1, 2 * index + 1)?);
            return Ok(Hash::of_node(&left, &right));
        }
        if level >= TILE_LEVELS {
            return Err(beyond);
        }
        let tile = from / TILE_LEAVES;
        if self.tile.as_ref().is_none_or(|(number, _)| *number != tile) {
            self.tile = Some((tile, self.read_tile(tile)?));
        }
        self.tile.as_ref().and_then(|(_, tree)| tree.find(level, index)).ok_or(beyond)
    }
}

/// Tells the metrics whether the log takes entries.
pub(super) fn tell_refusing(health: &LogHealth) {
    let refusing = matches!(health, LogHealth::Refusing { .. });
    metrics::gauge!("kopuro_log_refusing").set(if refusing { 1.0 } else { 0.0 });
}
