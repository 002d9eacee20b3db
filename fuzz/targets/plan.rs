#![no_main]
//! Compiled plans: any bytes as types and as a message of them, or a message of the types that are there. Nothing panics, what
//! goes on goes on again unchanged, and what is a message to a plan is one to `prost-reflect`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use kopuro::policy::UnknownFields;
use kopuro::schema::annotations::CORE_CATEGORIES;
use kopuro::schema::plan::{Allow, Found, MAX_FOUND, Plan, PlanOptions};
use libfuzzer_sys::fuzz_target;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor};

static OWN: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(kopuro::proto::DESCRIPTORS).unwrap());

fuzz_target!(|data: &[u8]| {
    let [how, which, mask, rest @ ..] = data else { return };
    let own = how & 1 == 1;
    let (pool, message) = if own {
        (OWN.clone(), rest)
    } else {
        let [low, high, rest @ ..] = rest else { return };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let Some(pool) = read(&rest[..length]) else { return };
        (pool, &rest[length..])
    };
    let count = pool.all_messages().len();
    let Some(descriptor) = pool.all_messages().nth(usize::from(*which) % count.max(1)) else { return };
    let options = PlanOptions {
        allow: match how >> 1 & 3 {
            0 => Allow::Everything,
            1 => Allow::Paths(paths(&descriptor, *mask, 2)),
            2 => Allow::Categories(CORE_CATEGORIES.map(str::to_owned).into_iter().take(usize::from(*mask)).collect()),
            // Whatever was written into a grant.
            _ => Allow::Paths(String::from_utf8_lossy(message).split('\n').take(9).map(str::to_owned).collect()),
        },
        unknown: match how >> 3 & 3 {
            0 => UnknownFields::Refuse,
            1 => UnknownFields::Strip,
            _ => UnknownFields::Pass,
        },
        rules: how >> 5 & 1 == 1,
    };
    let Ok(plan) = Plan::compile(&descriptor, &options) else { return };
    let bytes = Bytes::copy_from_slice(message);
    let mut found = Found::default();
    let Ok(changed) = plan.apply(&bytes, &mut found) else { return };
    assert_eq!(changed.is_some(), found.withheld > 0);
    let out = changed.unwrap_or_else(|| bytes.clone());
    assert!(found.subjects.len() <= MAX_FOUND && found.committed.len() <= MAX_FOUND);
    assert!(out.len() <= bytes.len());
    let mut again = Found::default();
    assert_eq!(plan.apply(&out, &mut again), Ok(None));
    assert_eq!(again.withheld, 0);
    // These are all proto3: others may have strings that are not UTF-8, which `prost-reflect` does not take.
    if own && descriptor.full_name().starts_with("kg.") {
        DynamicMessage::decode(descriptor, out).unwrap();
    }
});

/// As the gateway reads sets: `prost-reflect` panics on some that no compiler writes, which is caught there and would end the fuzzer.
fn read(set: &[u8]) -> Option<DescriptorPool> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let pool = kopuro::schema::set::read(set).ok();
    std::panic::set_hook(hook);
    pool
}

/// Some of a message's fields, as paths.
fn paths(message: &MessageDescriptor, mask: u8, depth: u8) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (index, field) in message.fields().enumerate().take(64) {
        let chosen = mask >> (index % 8) & 1 == 1;
        match field.kind() {
            Kind::Message(inner) if depth > 0 && !field.is_map() && !chosen => {
                all.extend(
                    paths(&inner, mask.rotate_left(3), depth - 1).iter().map(|p| format!("{}.{p}", field.name())),
                );
            }
            _ if chosen => drop(all.insert(field.name().to_owned())),
            _ => {}
        }
    }
    all
}
