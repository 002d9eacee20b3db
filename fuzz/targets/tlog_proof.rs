#![no_main]
//! Proofs that stand alone: what parses prints the same, and is judged without a panic whatever its numbers are.

use kopuro::log::proof::{verify_consistency, verify_inclusion};
use kopuro::log::tlog_proof::TlogProof;
use kopuro::log::tree::Hash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = std::str::from_utf8(data).unwrap_or_default().parse::<TlogProof>() {
        assert_eq!(proof.to_string().as_bytes(), data);
        let checkpoint = &proof.checkpoint;
        let _ = verify_inclusion(checkpoint.root, proof.index, checkpoint.size, &proof.path, checkpoint.root);
    }
    let Some((numbers, rest)) = data.split_first_chunk::<16>() else { return };
    let [one, other] = [&numbers[..8], &numbers[8..]].map(|n| n.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    let (path, _) = rest.as_chunks::<32>();
    let path: Vec<Hash> = path.iter().map(|hash| Hash(*hash)).collect();
    let root = path.first().copied().unwrap_or_else(Hash::of_nothing);
    let _ = verify_inclusion(root, one, other, &path, root);
    let _ = verify_consistency(one, root, other, root, &path);
});
