//! A published log's hash tiles, authenticated from the root down.
//!
//! The partial tiles at the right border hold the roots of all complete subtrees that the tree is made of: together they
//! give its root, which must be the checkpoint's. Every full tile lies below a hash of the tile above it, which has been
//! authenticated the same way. So each tile costs one comparison, and a wrong one is named.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Publication, PublishedError};
use crate::log::Checkpoint;
use crate::log::proof::{self, MakeError, ProofError};
use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, Subtrees, TILE_LEAVES, TILE_LEVELS};

/// Authenticated tiles kept, of 8 KiB each; enough for what a thousand million entries read in order need at a time.
const KEPT: usize = 512;

/// A published log under one checkpoint.
#[derive(Debug)]
pub struct PublishedTree {
    publication: Publication,
    checkpoint: Checkpoint,
    /// The hashes of the partial tile at each level; empty where the level has none.
    border: Vec<Arc<[Hash]>>,
    /// Authenticated full tiles above the lowest level.
    kept: Mutex<Kept>,
}

/// By level and number.
type Kept = HashMap<(u8, u64), Arc<[Hash]>>;

type Hashes<'a> = Pin<Box<dyn Future<Output = Result<Arc<[Hash]>, PublishedError>> + Send + 'a>>;

impl PublishedTree {
    /// Reads the right border and compares its root with the checkpoint's, whose signature the caller has verified.
    pub async fn open(publication: Publication, checkpoint: Checkpoint) -> Result<Self, PublishedError> {
        let size = checkpoint.size;
        let levels = (u64::BITS - size.leading_zeros()).div_ceil(TILE_LEVELS);
        let mut border = Vec::new();
        for level in 0..levels as u8 {
            let in_level = size >> (u32::from(level) * TILE_LEVELS);
            let width = (in_level % TILE_LEAVES) as u16;
            let hashes: Arc<[Hash]> = match width {
                0 => Arc::new([]),
                width => {
                    let tile = Tile { kind: Kind::Hashes(level), number: in_level / TILE_LEAVES, width };
                    read_hashes(&publication, tile).await?.into()
                }
            };
            border.push(hashes);
        }
        let tree = Self { publication, checkpoint, border, kept: Mutex::default() };
        let computed = tree.border_root();
        if computed != tree.checkpoint.root {
            return Err(tree.diagnose(computed).await);
        }
        Ok(tree)
    }

    /// The checkpoint that everything is checked against.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many entries there are.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// How many bundles they are in.
    pub fn bundles(&self) -> u64 {
        self.size().div_ceil(TILE_LEAVES)
    }

    /// The root of the first `size` entries, from authenticated hashes.
    pub async fn root_at(&self, size: u64) -> Result<Hash, PublishedError> {
        if size > self.size() {
            return Err(ProofError::Beyond(size, self.size()).into());
        }
        self.over_subtrees(|source| source.root_of(0, size).map_err(MakeError::Source)).await
    }

    /// Checks that this log still contains the one of an earlier checkpoint.
    pub async fn extends(&self, seen: &Checkpoint) -> Result<(), PublishedError> {
        if seen.size > self.size() {
            return Err(PublishedError::Truncated { size: self.size(), seen: seen.size });
        }
        let computed = self.root_at(seen.size).await?;
        if computed == seen.root {
            return Ok(());
        }
        Err(PublishedError::Rewritten { size: seen.size, computed, seen: seen.root })
    }

    /// The inclusion proof of an entry under the checkpoint.
    pub async fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, PublishedError> {
        self.over_subtrees(|source| proof::inclusion(source, index, self.size())).await
    }

    /// The proof that the tree of `old` entries is a prefix of this one.
    pub async fn consistency_proof(&self, old: u64) -> Result<Vec<Hash>, PublishedError> {
        self.over_subtrees(|source| proof::consistency(source, old, self.size())).await
    }

    /// The entries of a bundle, each the leaf that the tree has at its place. With `tiles` the bundle's hash tile is
    /// read and compared too; without, only where it takes that to name the entry that is wrong.
    pub async fn bundle(&self, number: u64, tiles: bool) -> Result<Vec<Bytes>, PublishedError> {
        let first = number * TILE_LEAVES;
        if first >= self.size() {
            return Err(ProofError::Beyond(first, self.size()).into());
        }
        let width = (self.size() - first).min(TILE_LEAVES) as u16;
        let tile = Tile { kind: Kind::Entries, number, width };
        let (bytes, read) = self.publication.tile(tile).await?;
        let mut entries =
            tile::entries(&bytes, read.width).map_err(|source| PublishedError::Bundle { tile: read, first, source })?;
        entries.truncate(width.into());
        let leaves: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
        if tile.is_full() && !tiles {
            let above = self.hashes(1, number / TILE_LEAVES).await?;
            if above.get((number % TILE_LEAVES) as usize) == Some(&fold(&leaves)) {
                return Ok(entries);
            }
        }
        let hashes = self.hashes(0, number).await?;
        match leaves.iter().zip(hashes.iter()).position(|(leaf, hash)| leaf != hash) {
            None => Ok(entries),
            Some(at) => Err(PublishedError::Entry { index: first + at as u64, tile: read }),
        }
    }

    /// The hashes of a tile, authenticated: 256, or as many as the tree has there.
    pub(super) fn hashes(&self, level: u8, number: u64) -> Hashes<'_> {
        Box::pin(async move {
            let in_level = self.size().checked_shr(u32::from(level) * TILE_LEVELS).unwrap_or(0);
            if number == in_level / TILE_LEAVES {
                return Ok(self.border.get(usize::from(level)).cloned().unwrap_or_default());
            }
            let tile = Tile { kind: Kind::Hashes(level), number, width: tile::FULL };
            if number > in_level / TILE_LEAVES {
                return Err(PublishedError::Tile { tile, what: "beyond the tree".into() });
            }
            if level > 0
                && let Some(kept) = self.kept().get(&(level, number))
            {
                return Ok(Arc::clone(kept));
            }
            let above = self.hashes(level + 1, number / TILE_LEAVES).await?;
            let hashes: Arc<[Hash]> = read_hashes(&self.publication, tile).await?.into();
            let expected = above.get((number % TILE_LEAVES) as usize);
            let computed = fold(&hashes);
            if expected != Some(&computed) {
                let expected = expected.map(Hash::to_string).unwrap_or_default();
                let what = format!("its hashes give {computed}, the tile above has {expected}");
                return Err(PublishedError::Tile { tile, what });
            }
            if level > 0 {
                let mut kept = self.kept();
                if kept.len() >= KEPT {
                    // The upper ones are needed by all; the lowest ones pass by in order.
                    kept.retain(|(level, _), _| *level > 1);
                }
                kept.insert((level, number), Arc::clone(&hashes));
            }
            Ok(hashes)
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Whoever panicked had it locked for a look-up: it is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a computation over complete subtrees: once to learn which ones it wants, then, with these read, for good.
    async fn over_subtrees<T>(
        &self,
        compute: impl Fn(&mut Known) -> Result<T, MakeError<Infallible>>,
    ) -> Result<T, PublishedError> {
        let beyond = |error| match error {
            MakeError::Beyond(asked, size) => PublishedError::Proof(ProofError::Beyond(asked, size)),
            MakeError::Source(never) => match never {},
        };
        let mut known = Known::default();
        compute(&mut known).map_err(beyond)?;
        for (level, index) in std::mem::take(&mut known.wanted) {
            let tile_level = (level / TILE_LEVELS) as u8;
            let width = 1_u64 << (level % TILE_LEVELS);
            let first = index * width;
            let hashes = self.hashes(tile_level, first / TILE_LEAVES).await?;
            let from = (first % TILE_LEAVES) as usize;
            let subtree = hashes.get(from..from + width as usize);
            let subtree = subtree.ok_or_else(|| ProofError::Beyond(first, self.size()))?;
            known.known.insert((level, index), fold(subtree));
        }
        compute(&mut known).map_err(beyond)
    }

    fn border_root(&self) -> Hash {
        let mut roots = Vec::new();
        for hashes in self.border.iter().rev() {
            // The width's binary digits name complete subtrees, largest first.
            let mut from = 0;
            for bit in (0..TILE_LEVELS).rev().filter(|bit| hashes.len() >> bit & 1 == 1) {
                roots.push(fold(&hashes[from..from + (1 << bit)]));
                from += 1 << bit;
            }
        }
        RightEdge::from_roots(self.size(), roots).map_or_else(Hash::of_nothing, |edge| edge.root())
    }

    /// The border does not give the root: which of its tiles is it, going by what lies below each.
    async fn diagnose(&self, computed: Hash) -> PublishedError {
        for (level, hashes) in self.border.iter().enumerate() {
            let number = (self.size() >> (level as u32 * TILE_LEVELS)) / TILE_LEAVES;
            let kind = Kind::Hashes(level as u8);
            let tile = Tile { kind, number, width: hashes.len() as u16 };
            for (at, hash) in hashes.iter().enumerate() {
                let below = number * TILE_LEAVES + at as u64;
                let given = match level.checked_sub(1) {
                    None if at > 0 => continue,
                    None => match self.border_leaves(number, hashes).await {
                        Ok(()) => continue,
                        Err(error) => return error,
                    },
                    Some(lower) => {
                        let lower = Tile { kind: Kind::Hashes(lower as u8), number: below, width: tile::FULL };
                        match read_hashes(&self.publication, lower).await {
                            Ok(hashes) => fold(&hashes),
                            Err(error) => return error,
                        }
                    }
                };
                if given != *hash {
                    let what = format!("its hash {at} is {hash}, the tile below gives {given}");
                    return PublishedError::Tile { tile, what };
                }
            }
        }
        PublishedError::Root { size: self.size(), computed, signed: self.checkpoint.root }
    }

    /// Compares the last, partial bundle with the partial tile of the lowest level.
    async fn border_leaves(&self, number: u64, hashes: &[Hash]) -> Result<(), PublishedError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let tile = Tile { kind: Kind::Entries, number, width: hashes.len() as u16 };
        let (bytes, read) = self.publication.tile(tile).await?;
        let first = number * TILE_LEAVES;
        let entries =
            tile::entries(&bytes, read.width).map_err(|source| PublishedError::Bundle { tile: read, first, source })?;
        match entries.iter().zip(hashes).position(|(entry, hash)| Hash::of_leaf(entry) != *hash) {
            None => Ok(()),
            Some(at) => Err(PublishedError::Entry { index: first + at as u64, tile: read }),
        }
    }
}

/// Subtrees that have been read, and those that somebody wanted and had not.
#[derive(Debug, Default)]
struct Known {
    known: HashMap<(u32, u64), Hash>,
    wanted: Vec<(u32, u64)>,
}

impl Subtrees for Known {
    type Error = Infallible;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
        Ok(self.known.get(&(level, index)).copied().unwrap_or_else(|| {
            self.wanted.push((level, index));
            Hash([0; 32])
        }))
    }
}

async fn read_hashes(publication: &Publication, tile: Tile) -> Result<Vec<Hash>, PublishedError> {
    let (bytes, read) = publication.tile(tile).await?;
    let hashes = tile::hashes(&bytes, read.width);
    let wrong =
        || PublishedError::Tile { tile: read, what: format!("{} bytes, not {} hashes", bytes.len(), read.width) };
    let mut hashes = hashes.ok_or_else(wrong)?;
    hashes.truncate(tile.width.into());
    Ok(hashes)
}

/// The root over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    let mut width = row.len();
    while width > 1 {
        width /= 2;
        for at in 0..width {
            row[at] = Hash::of_node(&row[2 * at], &row[2 * at + 1]);
        }
    }
    row.first().copied().unwrap_or_else(Hash::of_nothing)
}
