#![no_main]
//! Witness policies: what parses is judged without a panic, and all witnesses together meet its quorum.

use kopuro::trust::policy::WitnessPolicy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(policy) = WitnessPolicy::parse(data) {
        assert!(policy.is_quorum(|_| true));
        assert_eq!(policy.is_quorum(|_| false), policy.is_quorum_none());
    }
});
