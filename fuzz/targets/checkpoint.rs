#![no_main]
//! Checkpoints: what parses says the same of itself when it is read again.

use kopuro::log::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.note, text);
        assert!(text.starts_with(&format!("{}\n{}\n", checkpoint.origin, checkpoint.size)));
    }
});
