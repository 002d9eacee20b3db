//! The log's tiles and bundles, made from the log.

use bytes::Bytes;

use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, TILE_LEAVES};
use crate::log::{Log, LogError};

/// A tile's bytes, from the log. Blocks shortly; the tile must be within the log.
pub(super) fn build(log: &Log, tile: Tile) -> Result<Bytes, LogError> {
    let first = tile.number.checked_mul(TILE_LEAVES).ok_or(LogError::Beyond { asked: u64::MAX, size: 0 })?;
    match tile.kind {
        Kind::Hashes(level) => Ok(encode(&log.tile_hashes(level, first, tile.width.into())?)),
        Kind::Entries => Ok(bundle(&entries(log, first, tile.width.into())?)),
    }
}

/// A bundle and the leaves' hashes of the same place, from one reading of the entries.
pub(super) fn build_pair(log: &Log, bundled: Tile) -> Result<[(Tile, Bytes); 2], LogError> {
    let entries = entries(log, bundled.number * TILE_LEAVES, bundled.width.into())?;
    let hashes: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
    Ok([(bundled, bundle(&entries)), (Tile { kind: Kind::Hashes(0), ..bundled }, encode(&hashes))])
}

/// Whether these are the bytes of this full tile: by the root over it, which the log has in memory.
pub(super) fn is_right(log: &Log, tile: Tile, bytes: &Bytes) -> bool {
    let (hashes, level) = match tile.kind {
        Kind::Hashes(level) => (tile::hashes(bytes, tile.width), level),
        Kind::Entries => {
            let entries = tile::entries(bytes, tile.width).ok();
            (entries.map(|entries| entries.iter().map(|entry| Hash::of_leaf(entry)).collect()), 0)
        }
    };
    let (Some(hashes), true) = (hashes, tile.is_full()) else { return false };
    let mut edge = RightEdge::default();
    hashes.into_iter().for_each(|hash| edge.push(hash));
    let root = log.tile_hashes(level + 1, tile.number, 1);
    root.is_ok_and(|root| root.first() == Some(&edge.root()))
}

/// The first `width` of a full tile; none where the bytes are no such tile.
pub(super) fn cut(full: &Bytes, tile: Tile) -> Option<Bytes> {
    match tile.kind {
        Kind::Hashes(_) => Some(full.slice(..full.len().min(32 * usize::from(tile.width)))),
        Kind::Entries => {
            let entries = tile::entries(full, tile::FULL).ok()?;
            Some(bundle(&entries[..usize::from(tile.width).min(entries.len())]))
        }
    }
}

/// Whether a tree of `size` leaves has this tile.
pub(super) fn is_within(tile: Tile, size: u64) -> bool {
    let end = tile.number.checked_mul(TILE_LEAVES).and_then(|first| first.checked_add(tile.width.into()));
    let leaves = end.zip(tile.span()).and_then(|(end, span)| end.checked_mul(span));
    leaves.is_some_and(|leaves| leaves <= size)
}

fn entries(log: &Log, first: u64, count: usize) -> Result<Vec<Bytes>, LogError> {
    let mut entries: Vec<Bytes> = Vec::with_capacity(count);
    while entries.len() < count {
        let next = first + entries.len() as u64;
        let read = log.read(next, count - entries.len())?;
        if read.is_empty() {
            return Err(LogError::Beyond { asked: next, size: log.checkpoint().size });
        }
        entries.extend(read);
    }
    Ok(entries)
}

fn bundle(entries: &[Bytes]) -> Bytes {
    let mut bundle = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.len()).sum());
    entries.iter().for_each(|entry| tile::push_entry(&mut bundle, entry));
    bundle.into()
}

fn encode(hashes: &[Hash]) -> Bytes {
    hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>().into()
}
