#![no_main]
//! Entries of any bytes: as exchanges see them, hidden ones, and openings of one by another.

use kopuro::log::entry::{Entry, OpenedEntry};
use kopuro::log::hidden;
use kopuro::log::index::Progress;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = Entry::decode(data) {
        let mut progress = Progress::default();
        progress.add_entry(&entry);
        let _ = (progress.is_open(), progress.outcome());
        let _ = hidden::due_unix_ms(&entry);
        if let Some(opened) = &entry.opened {
            let _ = hidden::verify_opened(opened, data);
        }
    }
    let _ = hidden::is_hidden(data);
    let _ = hidden::open(0, data);
    let half = data.len() / 2;
    if let Ok(opened) = OpenedEntry::decode(&data[..half]) {
        let _ = hidden::verify_opened(&opened, &data[half..]);
    }
});
