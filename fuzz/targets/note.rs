#![no_main]
//! Signed notes: whatever parses prints as the same bytes; keys and signatures of any shape are refused, never a panic.

use kopuro::trust::note::{Note, Verifier};
use libfuzzer_sys::fuzz_target;

const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(note) = Note::parse(text) {
        assert_eq!(note.to_string(), text);
        let key: Verifier = VKEY.parse().expect("the key of Go's own example");
        let _ = note.verify(&[key]);
    }
    if let Ok(key) = text.parse::<Verifier>() {
        assert_eq!(key.to_string(), text);
    }
});
