#![no_main]
//! Entries of any bytes: as exchanges see them, hidden ones, and openings of one by another.

use kopuro::log::entry::{Entry, OpenedEntry, PrivateField, PrivateFields};
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
    if let Some(private) = hidden::Private::read(data) {
        let named = private.subjects();
        assert!(named.iter().all(|(slot, _)| private.open_at(*slot).is_some()));
        let _ = private.further();
    }
    if data.len() > 32 {
        // As a private half with this key, whose further fields are any bytes.
        let (key, value) = data.split_at(32);
        let fields = (9..12).map(|slot| PrivateField { slot, value: value.to_vec().into() }).collect();
        let half = PrivateFields { key: key.to_vec().into(), fields }.encode_to_vec();
        let private = hidden::Private::read(&half).expect("it has a key");
        assert_eq!(private.further(), [9, 10, 11]);
        assert!(matches!(private.subjects().len(), 0 | 3));
    }
    let half = data.len() / 2;
    if let Ok(opened) = OpenedEntry::decode(&data[..half]) {
        let _ = hidden::verify_opened(&opened, &data[half..]);
    }
});
