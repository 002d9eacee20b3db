//! Proofs as they come from another node: nothing in them may do more than be refused.
#![no_main]

use bytes::Bytes;
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::entry::Slot;
use kopuro::log::entry_proof::EntryProof;
use kopuro::log::tree::Hash;
use kopuro::proto::kopuro::log::v1::EntryProof as Wire;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = EntryProof::read(data) {
        let _ = Checkpoint::parse(proof.checkpoint());
    }
    // Past the base64, where the root happens to be the entry's own leaf.
    let Ok(mut wire) = Wire::decode(Bytes::copy_from_slice(data)) else { return };
    (wire.index, wire.path) = (0, Bytes::new());
    let root = Hash::of_leaf(&wire.entry);
    let checkpoint = Checkpoint { origin: "fuzz".into(), size: 1, root, note: String::new() };
    if let Ok(proven) = EntryProof::from_wire(wire).verify(&checkpoint) {
        let _ = proven.opens(Slot::RequestDigest, &[7; 32]);
    }
});
