//! Inclusion and consistency proofs of RFC 6962 (section 2.1), made and checked. Pure.

use super::tree::{Hash, Subtrees};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not in a tree of that size, or the old tree is larger than the new one.
    #[error("index or size {0} is beyond the tree's size {1}")]
    Beyond(u64, u64),
    /// The proof has not the length that the sizes ask for.
    #[error("the proof has {got} hashes, the sizes ask for {want}")]
    Length {
        /// Hashes given.
        got: usize,
        /// Hashes that a proof for these sizes has.
        want: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to the root {got}, not to {want}")]
    Root {
        /// The root that the proof leads to.
        got: Hash,
        /// The root that was to be shown.
        want: Hash,
    },
}

/// Why no proof could be made: the question was wrong, or a subtree could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError<E> {
    /// The index is not in a tree of that size, or the old tree is larger than the new one.
    #[error("index or size {0} is beyond the tree's size {1}")]
    Beyond(u64, u64),
    /// A subtree could not be had.
    #[error(transparent)]
    Source(#[from] E),
}

/// The audit path of leaf `index` in the tree of `size` leaves, from the leaf's sibling up: `PATH(m, D[n])`.
pub fn inclusion<S: Subtrees>(source: &mut S, index: u64, size: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    if index >= size {
        return Err(MakeError::Beyond(index, size));
    }
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(source.root_of(middle, to)?);
            to = middle;
        } else {
            path.push(source.root_of(from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves: `PROOF(m, D[n])`. Empty where
/// either `old` is 0 (the empty tree is a prefix of all) or the two are the same.
pub fn consistency<S: Subtrees>(source: &mut S, old: u64, new: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    if old > new {
        return Err(MakeError::Beyond(old, new));
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut from, mut to) = (0, new);
    let mut proof = Vec::new();
    // SUBPROOF: walk down to the old tree's right border; `from` leaves zero for the first time when b becomes false.
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(source.root_of(middle, to)?);
            to = middle;
        } else {
            proof.push(source.root_of(from, middle)?);
            from = middle;
        }
    }
    if from > 0 {
        proof.push(source.root_of(from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is the leaf `index` of the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash], root: Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Beyond(index, size));
    }
    let want = inclusion_length(index, size);
    if path.len() != want {
        return Err(ProofError::Length { got: path.len(), want });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if node & 1 == 1 || node == last {
            hash = Hash::of_node(sibling, &hash);
            // A node without a right neighbour moves up unchanged until it is a right child.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = Hash::of_node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if hash == root { Ok(()) } else { Err(ProofError::Root { got: hash, want: root }) }
}

/// Checks that the tree of `old` leaves with root `old_root` is a prefix of the tree of `new` leaves with `new_root`
/// (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(
    old: u64,
    old_root: Hash,
    new: u64,
    new_root: Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Beyond(old, new));
    }
    if old == new || old == 0 {
        if !proof.is_empty() {
            return Err(ProofError::Length { got: proof.len(), want: 0 });
        }
        if old == 0 && old_root != Hash::of_nothing() {
            return Err(ProofError::Root { got: old_root, want: Hash::of_nothing() });
        }
        // Of two empty trees too, both roots are looked at.
        let same = old != new || old_root == new_root;
        return if same { Ok(()) } else { Err(ProofError::Root { got: new_root, want: old_root }) };
    }
    let want = consistency_length(old, new);
    if proof.len() != want {
        return Err(ProofError::Length { got: proof.len(), want });
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut hashes = proof.iter();
    // Where the old tree is one complete subtree, its root opens the proof without being sent.
    let first = if old.is_power_of_two() { Some(&old_root) } else { hashes.next() };
    let Some(first) = first else { return Err(ProofError::Length { got: 0, want }) };
    let (mut to_old, mut to_new) = (*first, *first);
    for hash in hashes {
        if node & 1 == 1 || node == last {
            to_old = Hash::of_node(hash, &to_old);
            to_new = Hash::of_node(hash, &to_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            to_new = Hash::of_node(&to_new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if to_old != old_root {
        return Err(ProofError::Root { got: to_old, want: old_root });
    }
    if to_new == new_root { Ok(()) } else { Err(ProofError::Root { got: to_new, want: new_root }) }
}

/// The largest power of two smaller than `n`, for n > 1: where RFC 6962 splits a tree.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

fn inclusion_length(index: u64, size: u64) -> usize {
    let (mut from, mut to, mut length) = (0, size, 0);
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            to = middle;
        } else {
            from = middle;
        }
        length += 1;
    }
    length
}

fn consistency_length(old: u64, new: u64) -> usize {
    let (mut from, mut to, mut length) = (0, new, 0);
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            to = middle;
        } else {
            from = middle;
        }
        length += 1;
    }
    length + usize::from(from > 0)
}
