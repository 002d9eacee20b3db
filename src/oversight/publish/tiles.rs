//! The log's tiles and bundles, made from the log.

use bytes::Bytes;

use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{self, Hash, RightEdge, TILE_LEAVES};
use crate::log::{Log, LogError};

/// A tile's bytes, from the log. Blocks shortly; the tile must be within the log.
pub(super) fn build(log: &Log, tile: Tile) -> Result<Bytes, LogError> {
    let first = tile.number.checked_mul(TILE_LEAVES).ok_or(LogError::Beyond { asked: u64::MAX, size: 0 })?;
    match tile.kind {
        Kind::Hashes(level) => Ok(tree::concatenated(&log.tile_hashes(level, first, tile.width.into())?)),
        Kind::Entries => Ok(bundle(&entries(log, first, tile.width.into())?)),
    }
}

/// A bundle and the leaves' hashes of the same place, from one reading of the entries.
pub(super) fn build_pair(log: &Log, bundled: Tile) -> Result<[(Tile, Bytes); 2], LogError> {
    let entries = entries(log, bundled.number * TILE_LEAVES, bundled.width.into())?;
    let hashes: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
    Ok([(bundled, bundle(&entries)), (Tile { kind: Kind::Hashes(0), ..bundled }, tree::concatenated(&hashes))])
}

/// Whether these are the bytes of this full tile: by the root over it, which the log has in memory. Not known where the log
/// begins behind it.
pub(super) fn is_right(log: &Log, tile: Tile, bytes: &Bytes) -> Option<bool> {
    let (hashes, level) = match tile.kind {
        Kind::Hashes(level) => (tile::hashes(bytes, tile.width), level),
        Kind::Entries => {
            let entries = tile::entries(bytes, tile.width).ok();
            (entries.map(|entries| entries.iter().map(|entry| Hash::of_leaf(entry)).collect()), 0)
        }
    };
    let (Some(hashes), true) = (hashes, tile.is_full()) else { return Some(false) };
    let root = log.tile_hashes(level + 1, tile.number, 1).ok()?;
    let mut edge = RightEdge::default();
    hashes.into_iter().for_each(|hash| edge.push(hash));
    Some(root.first() == Some(&edge.root()))
}

/// A tile of hashes of which the log has only what came after the first `had`: these, as they were published, and the rest.
pub(super) fn extend(log: &Log, tile: Tile, published: &Bytes, had: u16) -> Result<Bytes, LogError> {
    let first = tile.number.saturating_mul(TILE_LEAVES);
    let (Kind::Hashes(level), Some(before)) = (tile.kind, tile::hashes(published, had)) else {
        return Err(LogError::Beyond { asked: first, size: log.checkpoint().size });
    };
    let rest = log.tile_hashes(level, first + u64::from(had), usize::from(tile.width.saturating_sub(had)))?;
    Ok(tree::concatenated(&[before, rest].concat()))
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::log::LogOptions;
    use crate::log::entry::{Draft, ExchangeKey, Kind as EntryKind};
    use crate::trust::note::Signer;

    #[tokio::test(flavor = "multi_thread")]
    async fn tiles_are_cut_extended_and_known_when_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = LogOptions::new(folder.path(), Signer::generate("kg.example/log").unwrap());
        (options.warn_free, options.refuse_free) = (0, 0);
        let (log, _) = Log::open(options).unwrap();
        let key = ExchangeKey::generate();
        let record = || Draft::new(EntryKind::RequestSent, Uuid::now_v7(), 1, &key).seal();
        futures_util::future::join_all((0..1_300).map(|_| log.append(record()))).await;

        let upper = |width| Tile { kind: Kind::Hashes(1), number: 0, width };
        let published = build(&log, upper(2)).unwrap();
        assert_eq!(extend(&log, upper(5), &published, 2).unwrap(), build(&log, upper(5)).unwrap());
        assert!(extend(&log, upper(5), &published, 3).is_err(), "another width than it has");
        assert!(build(&log, upper(6)).is_err());

        for kind in [Kind::Hashes(0), Kind::Entries] {
            let full = Tile { kind, number: 4, width: 256 };
            let bytes = build(&log, full).unwrap();
            assert_eq!(is_right(&log, full, &bytes), Some(true));
            let mut wrong = bytes.to_vec();
            wrong[40] ^= 1;
            assert_eq!(is_right(&log, full, &wrong.into()), Some(false));
            assert_eq!(is_right(&log, full, &bytes.slice(1..)), Some(false));
            assert_eq!(is_right(&log, Tile { number: 5, ..full }, &bytes), None, "the log does not reach so far");
            let part = Tile { width: 7, ..full };
            assert_eq!(cut(&bytes, part), build(&log, part).ok());
        }
        for (size, within) in [(1_024, false), (1_025, true), (1_300, true)] {
            assert_eq!(is_within(Tile { kind: Kind::Entries, number: 4, width: 1 }, size), within);
        }
        assert!(!is_within(Tile { kind: Kind::Hashes(8), number: 0, width: 1 }, u64::MAX));
        assert!(is_within(Tile { kind: Kind::Hashes(1), number: 0, width: 5 }, 1_280));
        log.close().await;
    }
}
