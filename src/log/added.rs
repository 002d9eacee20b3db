//! The tree as one commit leaves it, kept for the proofs of that commit's entries.

use super::LogError;
use super::tree::{Hash, RightEdge, Subtrees};

/// The tree before a commit, and every leaf and complete subtree that the commit adds: its entries' proofs are looked up,
/// and nothing is hashed again for each of them.
#[derive(Debug)]
pub(super) struct Added {
    before: RightEdge,
    /// By level, the leaves first. What a commit adds to a level is without gaps.
    levels: Vec<Vec<Hash>>,
}

impl Added {
    /// Appends leaves to a tree.
    pub(super) fn to(edge: &mut RightEdge, leaves: Vec<Hash>) -> Self {
        let before = edge.clone();
        let mut above: Vec<Vec<Hash>> = Vec::new();
        for leaf in &leaves {
            edge.push_merging(*leaf, |level, _, hash| {
                // Inner nodes are of level 1 and up, and a level is reached by way of the one below.
                let row = level as usize - 1;
                if above.len() <= row {
                    above.resize_with(row + 1, Vec::new);
                }
                above[row].push(hash);
            });
        }
        let levels = std::iter::once(leaves).chain(above).collect();
        Self { before, levels }
    }

    /// The leaves.
    pub(super) fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// The inner nodes that were completed: level, index, hash.
    pub(super) fn inner(&self) -> impl Iterator<Item = (u32, u64, Hash)> {
        let rows = (0_u32..).zip(&self.levels).skip(1);
        rows.flat_map(|(level, row)| (self.first(level)..).zip(row).map(move |(index, hash)| (level, index, *hash)))
    }

    /// A leaf or complete subtree that was added, or that the tree's edge had before.
    pub(super) fn find(&self, level: u32, index: u64) -> Option<Hash> {
        let before = self.before.complete(level, index);
        before.or_else(|| {
            let at = usize::try_from(index.checked_sub(self.first(level))?).ok()?;
            self.levels.get(level as usize)?.get(at).copied()
        })
    }

    /// Index of the first subtree that was added at a level.
    fn first(&self, level: u32) -> u64 {
        self.before.size().checked_shr(level).unwrap_or(0)
    }
}

impl Subtrees for &Added {
    type Error = LogError;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, LogError> {
        self.find(level, index).ok_or_else(|| LogError::Beyond { asked: index, size: self.before.size() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::proof;

    #[test]
    fn every_entry_of_a_commit_has_its_proof_whatever_the_tree_was() {
        let leaf = |index: u64| Hash::of_leaf(&index.to_be_bytes());
        for before in (0..40).chain([63, 64, 65, 255, 256, 1_000]) {
            for count in [1, 2, 3, 7, 8, 31, 64, 300] {
                let mut edge = RightEdge::default();
                (0..before).for_each(|index| edge.push(leaf(index)));
                let size = before + count;
                let added = Added::to(&mut edge, (before..size).map(leaf).collect());
                assert_eq!(edge.size(), size);
                for index in before..size {
                    let path = proof::inclusion(&mut &added, index, size).unwrap();
                    proof::verify_inclusion(leaf(index), index, size, &path, edge.root()).unwrap();
                }
                let mut told = Vec::new();
                let mut again = added.before.clone();
                (before..size).for_each(|index| again.push_merging(leaf(index), |l, i, h| told.push((l, i, h))));
                let mut inner: Vec<_> = added.inner().collect();
                told.sort_unstable();
                inner.sort_unstable();
                assert_eq!(inner, told);
            }
        }
    }
}
