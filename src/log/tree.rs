//! The Merkle tree of RFC 6962: hashes, the right edge by which a tree grows, and the hashes of its full tiles, from
//! which any older tree can be had again.
//!
//! Pure: no I/O, no clock. A tree of n leaves is the complete subtrees that n's binary digits name, largest first; their
//! roots are the [`RightEdge`]. Appending a leaf merges equal neighbours from the right. Every subtree in a proof is
//! either complete or at the right border, and one at the border is made of complete ones, so whoever can name complete
//! subtrees ([`Subtrees`]) can prove anything.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// How many levels of the tree one C2SP tile spans: 256 leaves.
pub const TILE_LEVELS: u32 = 8;

/// How many leaves a full tile of the lowest level covers.
pub const TILE_LEAVES: u64 = 1 << TILE_LEVELS;

/// A SHA-256 hash in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of the empty tree.
    pub fn of_nothing() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The hash of a leaf: `SHA-256(0x00 ‖ data)`.
    pub fn of_leaf(data: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
    }

    /// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
    pub fn of_node(left: &Self, right: &Self) -> Self {
        let mut block = [1; 65];
        block[1..33].copy_from_slice(&left.0);
        block[33..].copy_from_slice(&right.0);
        Self(Sha256::digest(block).into())
    }
}

/// Hashes written one after another.
pub fn concatenated(hashes: &[Hash]) -> Bytes {
    hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>().into()
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The roots of the complete subtrees that a tree is made of, largest first: all that is needed to append to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    roots: Vec<Hash>,
}

impl RightEdge {
    /// The edge of a tree of `size` leaves whose complete subtrees have these roots; none where the count does not fit.
    pub fn from_roots(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// The edge of a tree of which only the size is known: of what is appended to it, its own complete subtrees can be had.
    pub(super) fn unknown(size: u64) -> Self {
        Self { size, roots: Vec::new() }
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots, largest subtree first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_merging(leaf, |_, _, _| {});
    }

    /// Appends a leaf and tells of every inner node that it completes: level (1 is over two leaves), index, hash.
    pub fn push_merging(&mut self, leaf: Hash, mut completed: impl FnMut(u32, u64, Hash)) {
        let mut root = leaf;
        for level in 1..=self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                root = Hash::of_node(&left, &root);
                completed(level, self.size >> level, root);
            }
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut from_right = self.roots.iter().rev();
        let Some(last) = from_right.next() else { return Hash::of_nothing() };
        from_right.fold(*last, |right, left| Hash::of_node(left, &right))
    }

    /// The root of the complete subtree at this place, where it is one of the edge's.
    pub fn complete(&self, level: u32, index: u64) -> Option<Hash> {
        let here = self.size.checked_shr(level)?;
        // The edge has a subtree of this level where size has the bit, and then it is the last full one there.
        if here & 1 == 0 || index != here - 1 {
            return None;
        }
        self.roots.get((here >> 1).count_ones() as usize).copied()
    }
}

/// Who can name the roots of complete subtrees: level 0 is leaves, `index` counts subtrees of `2^level` leaves.
pub trait Subtrees {
    /// What can go wrong in looking one up.
    type Error;

    /// The root over leaves `[index · 2^level, (index + 1) · 2^level)`.
    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error>;

    /// The root over leaves `[from, to)` of any tree, where `from` starts a subtree at least that large.
    fn root_of(&mut self, from: u64, to: u64) -> Result<Hash, Self::Error> {
        let mut root = None;
        let mut end = to;
        // Complete subtrees from the right, smallest first.
        while end > from {
            let level = (end - from).trailing_zeros();
            let start = end - (1 << level);
            let hash = self.complete(level, start >> level)?;
            root = Some(root.map_or(hash, |right| Hash::of_node(&hash, &right)));
            end = start;
        }
        Ok(root.unwrap_or_else(Hash::of_nothing))
    }
}

/// The roots of every full tile at every tile level (256 leaves, 65,536 leaves, …): 1/256 of the leaves' hashes, small
/// enough to keep in memory (125 MB at a billion entries), and enough to have any complete subtree of 256 leaves or more
/// in at most 255 hashes.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    /// Leaves before this one are known by the right edge at it only; a tile that ends behind it is here.
    first: u64,
    levels: Vec<Vec<Hash>>,
    /// The latest leaves, with the index of the first: proofs are asked for of trees that have just grown.
    latest: (u64, VecDeque<Hash>),
}

/// How many of the latest leaves are kept.
const LATEST: usize = 4 * TILE_LEAVES as usize;

impl Tiles {
    /// The tiles of a tree that is known from leaf `first` on.
    pub fn from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Number of the first tile that is here, at a tile level.
    fn first_at(&self, tile_level: usize) -> u64 {
        let levels = u32::try_from(tile_level + 1).unwrap_or(u32::MAX).saturating_mul(TILE_LEVELS);
        self.first.checked_shr(levels).unwrap_or(0)
    }

    /// Takes note of a completed inner node, as [`RightEdge::push_merging`] tells of it; keeps those at tile levels.
    pub fn note(&mut self, level: u32, index: u64, hash: Hash) {
        if level == 0 || !level.is_multiple_of(TILE_LEVELS) {
            return;
        }
        let tile_level = (level / TILE_LEVELS - 1) as usize;
        if self.levels.len() <= tile_level {
            self.levels.resize_with(tile_level + 1, Vec::new);
        }
        let first = self.first_at(tile_level);
        let level = &mut self.levels[tile_level];
        debug_assert_eq!(first + level.len() as u64, index, "nodes complete in order");
        level.push(hash);
    }

    /// Takes note of leaves in order, those of one commit after those of the last.
    pub fn note_leaves(&mut self, from: u64, leaves: &[Hash]) {
        let (first, latest) = &mut self.latest;
        if *first + latest.len() as u64 != from {
            *first = from;
            latest.clear();
        }
        latest.extend(leaves);
        let old = latest.len().saturating_sub(LATEST);
        latest.drain(..old);
        *first += old as u64;
    }

    /// Leaves `from` to `until - 1`, where all of them are among the latest.
    pub fn latest_leaves(&self, from: u64, until: u64) -> Option<Vec<Hash>> {
        let (first, latest) = &self.latest;
        let at = |index: u64| usize::try_from(index.checked_sub(*first)?).ok();
        let range = at(from)?..at(until)?;
        (range.start <= range.end && range.end <= latest.len()).then(|| latest.range(range).copied().collect())
    }

    /// How many leaves full tiles cover.
    pub fn leaves(&self) -> u64 {
        (self.first_at(0) + self.levels.first().map_or(0, |level| level.len() as u64)) * TILE_LEAVES
    }

    /// Hashes `from` to `from + count - 1` of a tile level from 1 on, where all are there.
    pub fn row(&self, level: u8, from: u64, count: usize) -> Option<&[Hash]> {
        let tile_level = usize::from(level).checked_sub(1)?;
        let known = self.levels.get(tile_level)?;
        let from = usize::try_from(from.checked_sub(self.first_at(tile_level))?).ok()?;
        known.get(from..from.checked_add(count)?)
    }

    /// The root of a complete subtree of 256 leaves or more, where the tree reaches that far.
    pub fn complete(&self, level: u32, index: u64) -> Option<Hash> {
        let tile_level = level.checked_div(TILE_LEVELS)?.checked_sub(1)? as usize;
        let known = self.levels.get(tile_level)?;
        let width = 1_usize << (level % TILE_LEVELS);
        let from = index.checked_mul(width as u64)?.checked_sub(self.first_at(tile_level))?;
        let from = usize::try_from(from).ok()?;
        let mut row = known.get(from..from.checked_add(width)?)?.to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| Hash::of_node(&pair[0], &pair[1])).collect();
        }
        row.first().copied()
    }
}
