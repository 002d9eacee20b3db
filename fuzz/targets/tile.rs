#![no_main]
//! Tile paths and bundles: one way to write each.

use bytes::Bytes;
use kopuro::log::tile::{Tile, entries, hashes, push_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(tile) = std::str::from_utf8(data).ok().and_then(Tile::parse) {
        assert_eq!(tile.to_string().as_bytes(), data);
        let _ = tile.span();
    }
    let Some((width, bundle)) = data.split_first() else { return };
    let width = u16::from(*width) + 1;
    if let Ok(cut) = entries(&Bytes::copy_from_slice(bundle), width) {
        let mut again = Vec::new();
        cut.iter().for_each(|entry| push_entry(&mut again, entry));
        assert_eq!(again, bundle);
    }
    if let Some(cut) = hashes(bundle, width) {
        assert_eq!(cut.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>(), bundle);
    }
});
