#![no_main]
//! Two descriptor sets, one behind the other: what can be read of them is compared without a panic, and a set breaks and adds
//! nothing against itself.

use kopuro::schema::breaking::{added, breaking};
use kopuro::schema::set;
use libfuzzer_sys::fuzz_target;

// prost-reflect panics on some sets, and `set::read` catches that: libFuzzer's hook would take it for a finding. One that nobody
// catches aborts all the same.
fuzz_target!(init: drop(std::panic::take_hook()), |data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (old, new) = (set::read(&rest[..at]), set::read(&rest[at..]));
    for set in [&old, &new].into_iter().flatten() {
        assert!(breaking(set, set).is_empty());
        assert!(added(set, set).is_empty());
    }
    if let (Ok(old), Ok(new)) = (old, new) {
        breaking(&old, &new);
        added(&old, &new);
    }
});
