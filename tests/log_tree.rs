//! The Merkle tree is RFC 6962's: against the RFC written down naively, and against the vectors that Certificate
//! Transparency's own tests use.

use std::convert::Infallible;

use kopuro::log::proof::{self, MakeError};
use kopuro::log::tree::{Hash, RightEdge, Subtrees, Tiles};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// RFC 6962, section 2.1, as it stands there.
mod rfc {
    use super::*;

    /// MTH
    pub(super) fn mth(d: &[Vec<u8>]) -> Vec<u8> {
        match d {
            [] => Sha256::digest([]).to_vec(),
            [one] => Sha256::digest([&[0], &one[..]].concat()).to_vec(),
            _ => {
                let k = k(d.len());
                Sha256::digest([&[1], &mth(&d[..k])[..], &mth(&d[k..])[..]].concat()).to_vec()
            }
        }
    }

    /// PATH(m, D[n])
    pub(super) fn path(m: usize, d: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if d.len() == 1 {
            return vec![];
        }
        let k = k(d.len());
        if m < k {
            [path(m, &d[..k]), vec![mth(&d[k..])]].concat()
        } else {
            [path(m - k, &d[k..]), vec![mth(&d[..k])]].concat()
        }
    }

    /// PROOF(m, D[n]) = SUBPROOF(m, D[n], true)
    pub(super) fn subproof(m: usize, d: &[Vec<u8>], b: bool) -> Vec<Vec<u8>> {
        if m == d.len() {
            return if b { vec![] } else { vec![mth(d)] };
        }
        let k = k(d.len());
        if m <= k {
            [subproof(m, &d[..k], b), vec![mth(&d[k..])]].concat()
        } else {
            [subproof(m - k, &d[k..], false), vec![mth(&d[..k])]].concat()
        }
    }

    /// The largest power of two smaller than n.
    fn k(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }
}

/// Complete subtrees out of a list of all leaves.
struct Leaves<'a>(&'a [Vec<u8>]);

impl Subtrees for Leaves<'_> {
    type Error = Infallible;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
        let from = (index << level) as usize;
        Ok(hash(&rfc::mth(&self.0[from..from + (1 << level)])))
    }
}

fn hash(bytes: &[u8]) -> Hash {
    Hash(bytes.try_into().unwrap())
}

fn hashes(list: &[Vec<u8>]) -> Vec<Hash> {
    list.iter().map(|one| hash(one)).collect()
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_be_bytes().to_vec()).collect()
}

fn edge_of(data: &[Vec<u8>]) -> RightEdge {
    let mut edge = RightEdge::default();
    data.iter().for_each(|leaf| edge.push(Hash::of_leaf(leaf)));
    edge
}

#[test]
fn roots_of_all_sizes_to_a_thousand() {
    let data = leaves(1_000);
    let mut edge = RightEdge::default();
    for size in 0..=data.len() {
        assert_eq!(edge.root(), hash(&rfc::mth(&data[..size])), "size {size}");
        assert_eq!(RightEdge::from_roots(size as u64, edge.roots().to_vec()), Some(edge.clone()));
        for level in 0..10 {
            for index in 0..size as u64 >> level {
                if let Some(root) = edge.complete(level, index) {
                    assert_eq!(root, Leaves(&data).complete(level, index).unwrap());
                }
            }
        }
        if let Some(leaf) = data.get(size) {
            edge.push(Hash::of_leaf(leaf));
        }
    }
    assert_eq!(RightEdge::from_roots(3, vec![Hash::of_nothing()]), None);
}

#[test]
fn tiles_give_every_complete_subtree_of_a_tile_or_more() {
    let data = leaves(2_500);
    let (mut edge, mut tiles) = (RightEdge::default(), Tiles::default());
    for leaf in &data {
        edge.push_merging(Hash::of_leaf(leaf), |level, index, hash| tiles.note(level, index, hash));
    }
    assert_eq!(tiles.leaves(), 2_304);
    for level in 8..12 {
        for index in 0..=data.len() as u64 >> level {
            let there = (index + 1) << level <= 2_304;
            let expected = there.then(|| Leaves(&data).complete(level, index).unwrap());
            assert_eq!(tiles.complete(level, index), expected, "level {level} index {index}");
        }
    }
    assert_eq!(tiles.complete(7, 0), None);
    assert_eq!(tiles.complete(63, u64::MAX), None);
}

#[test]
fn tiles_keep_the_latest_leaves() {
    let data: Vec<Hash> = leaves(2_500).iter().map(|leaf| Hash::of_leaf(leaf)).collect();
    let mut tiles = Tiles::from(100);
    assert_eq!(tiles.latest_leaves(100, 101), None);
    for commit in [100..101, 101..350, 350..351, 351..2_500] {
        tiles.note_leaves(commit.start as u64, &data[commit.clone()]);
        let latest = commit.end.saturating_sub(1_024).max(100);
        for range in [latest..commit.end, commit.end - 1..commit.end, latest..latest + 1, latest..latest] {
            let kept = tiles.latest_leaves(range.start as u64, range.end as u64);
            assert_eq!(kept.as_deref(), Some(&data[range]));
        }
        assert_eq!(tiles.latest_leaves(latest as u64 - 1, commit.end as u64), None);
        assert_eq!(tiles.latest_leaves(latest as u64, commit.end as u64 + 1), None);
        assert_eq!(tiles.latest_leaves(commit.end as u64, latest as u64), None);
    }
    // Those that do not follow begin anew.
    tiles.note_leaves(3_000, &data[..10]);
    assert_eq!(tiles.latest_leaves(2_999, 3_000), None);
    assert_eq!(tiles.latest_leaves(3_000, 3_010).as_deref(), Some(&data[..10]));
}

#[test]
fn vectors_of_certificate_transparency() {
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let data: Vec<_> = inputs.iter().map(|input| hex::decode(input).unwrap()).collect();
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(edge_of(&data[..size]).root().to_string(), *root);
    }
    let text = |proof: Vec<Hash>| proof.iter().map(Hash::to_string).collect::<Vec<_>>();
    let inclusion = |index, size| text(proof::inclusion(&mut Leaves(&data), index, size).unwrap());
    let l0l1 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
    let l1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    let l2l3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    let l4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    let l4_to_l7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    let l6l7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    assert_eq!(inclusion(0, 1), Vec::<String>::new());
    assert_eq!(inclusion(0, 8), [l1, l2l3, l4_to_l7]);
    assert_eq!(inclusion(5, 8), [l4, l6l7, roots[4]]);
    assert_eq!(inclusion(2, 3), [l0l1]);
    assert_eq!(inclusion(1, 5), [roots[1], l2l3, l4]);

    let consistency = |old, new| text(proof::consistency(&mut Leaves(&data), old, new).unwrap());
    let l4l5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    assert_eq!(consistency(1, 1), Vec::<String>::new());
    assert_eq!(consistency(1, 8), [l1, l2l3, l4_to_l7]);
    assert_eq!(consistency(6, 8), [l4l5, l6l7, roots[4]]);
    assert_eq!(consistency(2, 5), [l2l3, l4]);
}

#[test]
fn all_proofs_of_small_trees_hold_and_only_for_what_they_show() {
    let data = leaves(40);
    let root = |size: u64| hash(&rfc::mth(&data[..size as usize]));
    for size in 1..=40 {
        for index in 0..size {
            let path = proof::inclusion(&mut Leaves(&data), index, size).unwrap();
            assert_eq!(path, hashes(&rfc::path(index as usize, &data[..size as usize])));
            for (at, leaf) in data.iter().enumerate() {
                let held = proof::verify_inclusion(Hash::of_leaf(leaf), index, size, &path, root(size)).is_ok();
                assert_eq!(held, at as u64 == index);
            }
        }
        for old in 0..=size {
            let path = proof::consistency(&mut Leaves(&data), old, size).unwrap();
            if old > 0 {
                assert_eq!(path, hashes(&rfc::subproof(old as usize, &data[..size as usize], true)));
            }
            for claimed in 0..=40 {
                let held = proof::verify_consistency(old, root(claimed), size, root(size), &path).is_ok();
                assert_eq!(held, claimed == old, "{old} to {size}, claimed {claimed}");
            }
        }
    }
    assert_eq!(proof::inclusion(&mut Leaves(&data), 5, 5), Err(MakeError::Beyond(5, 5)));
    assert_eq!(proof::consistency(&mut Leaves(&data), 6, 5), Err(MakeError::Beyond(6, 5)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_of_larger_trees(size in 1_usize..1_000, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()) {
        let data = leaves(size);
        let root = hash(&rfc::mth(&data));
        let index = index.index(size);
        let leaf = Hash::of_leaf(&data[index]);
        let (index, size) = (index as u64, size as u64);
        let path = proof::inclusion(&mut Leaves(&data), index, size).unwrap();
        prop_assert_eq!(&path, &hashes(&rfc::path(index as usize, &data)));
        prop_assert_eq!(proof::verify_inclusion(leaf, index, size, &path, root), Ok(()));

        let old = old.index(data.len()) + 1;
        let grown = proof::consistency(&mut Leaves(&data), old as u64, size).unwrap();
        prop_assert_eq!(&grown, &hashes(&rfc::subproof(old, &data, true)));
        let old_root = hash(&rfc::mth(&data[..old]));
        prop_assert_eq!(proof::verify_consistency(old as u64, old_root, size, root, &grown), Ok(()));

        // One bit anywhere, one hash more or less: refused.
        for (mut proof, inclusion) in [(path, true), (grown, false)] {
            let verify = |proof: &[Hash]| if inclusion {
                proof::verify_inclusion(leaf, index, size, proof, root)
            } else {
                proof::verify_consistency(old as u64, old_root, size, root, proof)
            };
            proof.push(Hash::of_nothing());
            prop_assert!(verify(&proof).is_err());
            proof.pop();
            if !proof.is_empty() {
                let shorter = &proof[1..];
                prop_assert!(verify(shorter).is_err());
                let at = flip.0.index(proof.len());
                proof[at].0[usize::from(flip.1) % 32] ^= 1 << (flip.1 % 8);
                prop_assert!(verify(&proof).is_err());
            }
        }
    }
}
