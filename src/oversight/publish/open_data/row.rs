//! A row of open data, from an entry: what its leaf shows, and nothing else.

use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::log::entry::{Entry, Kind, Outcome, Publication};

/// An entry as open data sees it.
pub(in crate::oversight::publish) enum Seen {
    /// Its fields are public.
    Row(Box<Row>),
    /// Counted only.
    Delayed,
    /// Counted only.
    Sealed,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::oversight::publish) struct Row {
    pub(in crate::oversight::publish) entry: u64,
    pub(in crate::oversight::publish) opened_by: Option<u64>,
    pub(in crate::oversight::publish) time_unix_ms: i64,
    pub(in crate::oversight::publish) kind: &'static str,
    pub(in crate::oversight::publish) exchange_id: String,
    pub(in crate::oversight::publish) consumer: String,
    pub(in crate::oversight::publish) provider: String,
    pub(in crate::oversight::publish) service: String,
    pub(in crate::oversight::publish) method: String,
    pub(in crate::oversight::publish) legal_basis: String,
    pub(in crate::oversight::publish) publication: &'static str,
    pub(in crate::oversight::publish) outcome: &'static str,
    pub(in crate::oversight::publish) grpc_status: Option<u32>,
    pub(in crate::oversight::publish) reason: String,
    pub(in crate::oversight::publish) side: &'static str,
    pub(in crate::oversight::publish) schema: String,
}

/// The columns, in order.
pub(in crate::oversight::publish) const COLUMNS: [&str; 16] = [
    "entry",
    "opened_by",
    "time",
    "kind",
    "exchange_id",
    "consumer",
    "provider",
    "service",
    "method",
    "legal_basis",
    "publication",
    "outcome",
    "grpc_status",
    "reason",
    "side",
    "schema",
];

/// What open data shows of an entry.
pub(in crate::oversight::publish) fn see(index: u64, entry: Entry) -> Seen {
    match entry.publication() {
        // Whatever its leaf shows: a class is a class.
        Publication::Delayed => return Seen::Delayed,
        Publication::Sealed => return Seen::Sealed,
        Publication::Public | Publication::Unspecified => {}
    }
    if let (Kind::Opened, Some(opened)) = (entry.kind(), &entry.opened)
        && let Ok(hidden) = Entry::decode(opened.hidden.clone())
    {
        return Seen::Row(Box::new(Row {
            opened_by: Some(index),
            publication: name(Publication::Delayed.as_str_name(), "PUBLICATION_"),
            ..row(opened.index, hidden)
        }));
    }
    Seen::Row(Box::new(row(index, entry)))
}

/// The UTC day of an entry's own time, counted from 1970; none where it does not show one.
pub(in crate::oversight::publish) fn day(entry: &Entry) -> Option<i64> {
    (entry.time_unix_ms > 0).then(|| entry.time_unix_ms.div_euclid(super::DAY_MS))
}

fn row(index: u64, entry: Entry) -> Row {
    let outcome = entry.outcome();
    Row {
        entry: index,
        opened_by: None,
        time_unix_ms: entry.time_unix_ms,
        kind: name(entry.kind().as_str_name(), "KIND_"),
        exchange_id: Uuid::from_slice(&entry.exchange_id).map(|id| id.to_string()).unwrap_or_default(),
        publication: name(entry.publication().as_str_name(), "PUBLICATION_"),
        outcome: name(outcome.as_str_name(), "OUTCOME_"),
        grpc_status: (outcome != Outcome::Unspecified).then_some(entry.grpc_status),
        side: name(entry.side().as_str_name(), "SIDE_"),
        schema: hex::encode(&entry.schema),
        consumer: entry.consumer,
        provider: entry.provider,
        service: entry.service,
        method: entry.method,
        legal_basis: entry.legal_basis,
        reason: entry.reason,
    }
}

/// A value of an enumeration without its prefix; nothing for the unspecified one.
fn name(value: &'static str, prefix: &str) -> &'static str {
    let name = value.strip_prefix(prefix).unwrap_or(value);
    if name == "UNSPECIFIED" { "" } else { name }
}

/// `2026-11-25T09:40:00.123Z`; nothing where there is no such time.
pub(in crate::oversight::publish) fn timestamp(unix_ms: i64) -> String {
    let form = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    time.filter(|_| unix_ms > 0).and_then(|time| time.format(form).ok()).unwrap_or_default()
}
