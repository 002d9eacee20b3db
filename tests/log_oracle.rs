//! Tree, tiles and proofs against implementations and vectors that nobody here wrote: the crate `ct-merkle`, and the test
//! vectors of transparency-dev/merkle, which Trillian, Sunlight and others go by.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use kopuro::log::Checkpoint;
use kopuro::log::proof::{verify_consistency, verify_inclusion};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::oversight::published::{Place, Publication, PublishedTree};
use proptest::prelude::*;
use sha2::Sha256;

use crate::harness::publisher::{publish, small_entries};
use crate::log_support::signer;

type Oracle = MemoryBackedTree<Sha256, Bytes>;

fn bytes(proof: &[Hash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn hashes(proof: &[u8]) -> Vec<Hash> {
    proof.chunks_exact(32).map(|hash| Hash(hash.try_into().unwrap())).collect()
}

fn root(oracle: &Oracle) -> Hash {
    Hash(oracle.root().as_bytes().as_slice().try_into().unwrap())
}

fn oracle(entries: &[Bytes]) -> Oracle {
    let mut oracle = Oracle::new();
    entries.iter().for_each(|entry| oracle.push(entry.clone()));
    oracle
}

#[test]
fn roots_of_all_sizes_to_seventy_thousand() {
    let (mut oracle, mut edge) = (Oracle::new(), RightEdge::default());
    for (size, entry) in small_entries(70_000).into_iter().enumerate() {
        assert_eq!(edge.root(), root(&oracle), "size {size}");
        edge.push(Hash::of_leaf(&entry));
        oracle.push(entry);
    }
    assert_eq!(edge.root(), root(&oracle));
}

/// Proofs made from published tiles, and their judgement by both.
async fn compare(tree: &PublishedTree, entries: &[Bytes], oracle: &Oracle, index: usize, old: usize) {
    let size = entries.len();
    let (leaf, top) = (Hash::of_leaf(&entries[index]), root(oracle));
    let ours = tree.inclusion_proof(index as u64).await.unwrap();
    assert_eq!(bytes(&ours), oracle.prove_inclusion(index).as_bytes(), "entry {index} of {size}");
    verify_inclusion(leaf, index as u64, size as u64, &ours, top).unwrap();
    let theirs = InclusionProof::<Sha256>::from_bytes(bytes(&ours));
    oracle.root().verify_inclusion(&entries[index], index as u64, &theirs).unwrap();

    let before = self::oracle(&entries[..old]);
    assert_eq!(tree.root_at(old as u64).await.unwrap(), root(&before));
    let ours = tree.consistency_proof(old as u64).await.unwrap();
    if old > 0 {
        let theirs = oracle.prove_consistency(size - old);
        verify_consistency(old as u64, root(&before), size as u64, top, &hashes(theirs.as_bytes())).unwrap();
        let ours = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&ours)).unwrap();
        oracle.root().verify_consistency(&before.root(), &ours).unwrap();
    }
    verify_consistency(old as u64, root(&before), size as u64, top, &ours).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// What is published, and the tree read back from it.
fn published(entries: &[Bytes]) -> (tempfile::TempDir, PublishedTree) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint: Checkpoint = publish(folder.path(), entries, 0, &signer(1));
    let publication = Publication::new(Place::Folder(folder.path().into()), None).unwrap();
    let tree = runtime().block_on(PublishedTree::open(publication, checkpoint)).unwrap();
    (folder, tree)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proofs_of_random_sizes(size in 1_usize..3_000, picks in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 4)) {
        let entries = small_entries(size);
        let (oracle, (_folder, tree)) = (oracle(&entries), published(&entries));
        for [index, old] in picks {
            runtime().block_on(compare(&tree, &entries, &oracle, index.index(size), old.index(size + 1).min(size - 1)));
        }
    }
}

#[test]
fn proofs_of_a_tree_of_three_tile_levels() {
    let entries = small_entries(70_000);
    let (oracle, (_folder, tree)) = (oracle(&entries), published(&entries));
    for (index, old) in [(0, 1), (255, 256), (256, 65_535), (65_535, 65_536), (65_536, 65_537), (69_999, 69_999)] {
        runtime().block_on(compare(&tree, &entries, &oracle, index, old));
    }
}

#[derive(serde::Deserialize)]
struct Vectors {
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    file: String,
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    file: String,
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

/// None where it has not 32 bytes: what we could not even be given.
fn hash(text: Option<&String>) -> Option<Hash> {
    BASE64_STANDARD.decode(text?).ok()?.try_into().ok().map(Hash)
}

/// Roots that the vectors say nothing of ("don't care"), each like itself only.
fn root_or_placeholder(text: Option<&String>) -> Hash {
    hash(text).unwrap_or_else(|| Hash::of_leaf(text.map_or(&[], |text| text.as_bytes())))
}

fn proof(list: Option<Vec<String>>) -> Option<Vec<Hash>> {
    list.unwrap_or_default().iter().map(|one| hash(Some(one))).collect()
}

#[test]
fn vectors_of_transparency_dev() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/transparency-dev-merkle.json")).unwrap();
    assert_eq!((vectors.inclusion.len(), vectors.consistency.len()), (98, 97));
    for vector in vectors.inclusion {
        let held = match (hash(vector.leaf_hash.as_ref()), hash(vector.root.as_ref()), proof(vector.proof)) {
            (Some(leaf), Some(root), Some(path)) => {
                verify_inclusion(leaf, vector.leaf_idx, vector.tree_size, &path, root).is_ok()
            }
            _ => false,
        };
        assert_eq!(held, !vector.want_err, "{}", vector.file);
    }
    for vector in vectors.consistency {
        let [one, two] = [&vector.root1, &vector.root2].map(|root| root_or_placeholder(root.as_ref()));
        let held = proof(vector.proof)
            .is_some_and(|proof| verify_consistency(vector.size1, one, vector.size2, two, &proof).is_ok());
        // We ask more of the empty tree: that its root be the one that RFC 6962 gives it.
        let empty = (vector.size1, vector.size2) == (0, 0);
        assert_eq!(held, !vector.want_err && !empty, "{}", vector.file);
    }
}
