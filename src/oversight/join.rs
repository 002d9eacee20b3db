//! Exchanges out of entries: the index says which entries are of one exchange, this reads and joins them. For the audit
//! service and for the command line on a closed log.

use std::collections::BTreeMap;

use prost::Message;

use crate::log::entry::{Entry, Outcome};
use crate::log::hidden::Seen;
use crate::log::index::{Counts, EntrySource, Index, IndexError, Progress, SourceError};
use crate::proto::kopuro::audit::v1::{Count, Exchange, StatsResponse};

/// Entries nearer to each other than this are read in one go.
const NEAR: u64 = 16;
/// Entries read in one go at most.
const RUN: u64 = 512;

/// Entries with their indices, ascending.
pub type Entries = Vec<(u64, Seen)>;

/// Why exchanges could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The entries could not be read.
    #[error("reading entries: {0}")]
    Source(SourceError),
}

/// The exchanges with these openings, in the same order.
pub fn exchanges(source: &impl EntrySource, index: &Index, openings: &[u64]) -> Result<Vec<Exchange>, JoinError> {
    let members: Vec<Vec<u64>> = openings.iter().map(|opening| index.entries_of(*opening)).collect::<Result<_, _>>()?;
    let entries = entries(source, members.iter().flatten().copied().collect())?;
    Ok(members
        .iter()
        .filter_map(|indices| join(indices.iter().filter_map(|at| Some((*at, entries.get(at)?)))))
        .collect())
}

/// The exchange with this id and its entries; none where the index has none.
pub fn exchange(
    source: &impl EntrySource,
    index: &Index,
    id: &[u8; 16],
) -> Result<(Option<Exchange>, Entries), JoinError> {
    let entries = entries(source, index.find(id)?)?;
    let exchange = join(entries.iter().map(|(at, entry)| (*at, entry)));
    Ok((exchange, entries.into_iter().collect()))
}

/// Counts as the service gives them.
pub fn stats(counts: Counts) -> StatsResponse {
    let list =
        |counts: Vec<(String, u64)>| counts.into_iter().map(|(label, n)| Count { label, exchanges: n }).collect();
    let mut by_outcome: Vec<Count> = counts
        .by_outcome
        .into_iter()
        .map(|(outcome, n)| Count { label: outcome_label(outcome).into(), exchanges: n })
        .collect();
    by_outcome.sort_by_key(|count| std::cmp::Reverse(count.exchanges));
    StatsResponse {
        by_day: list(counts.by_day),
        by_pair: list(counts.by_pair),
        by_service: list(counts.by_service),
        by_outcome,
        by_reason: list(counts.by_reason),
        exchanges: counts.exchanges,
        indexed_size: counts.indexed_size,
        hidden_entries: counts.hidden,
    }
}

/// An outcome in one word; an exchange without one is open.
pub fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "OPEN",
        Outcome::Ok => "OK",
        Outcome::Error => "ERROR",
        Outcome::Refused => "REFUSED",
        Outcome::Failed => "FAILED",
    }
}

fn entries(source: &impl EntrySource, mut indices: Vec<u64>) -> Result<BTreeMap<u64, Seen>, JoinError> {
    indices.sort_unstable();
    indices.dedup();
    let mut found = BTreeMap::new();
    let mut wanted = indices.as_slice();
    while let Some(first) = wanted.first().copied() {
        let gap = wanted.windows(2).position(|pair| pair[1] - pair[0] > NEAR || pair[1] - first >= RUN);
        let (run, rest) = wanted.split_at(gap.map_or(wanted.len(), |gap| gap + 1));
        let last = run.last().copied().unwrap_or(first);
        let mut from = first;
        while from <= last {
            let max = usize::try_from(last - from + 1).unwrap_or(1);
            let read = source.read_seen(from, max).map_err(JoinError::Source)?;
            if read.is_empty() {
                return Err(JoinError::Source(format!("entry {from} is not there").into()));
            }
            for entry in read {
                if run.binary_search(&from).is_ok() {
                    found.insert(from, entry);
                }
                from += 1;
            }
        }
        wanted = rest;
    }
    Ok(found)
}

/// Joins the entries of one exchange, in order; none where there is none that can be read.
pub(super) fn join<'e>(entries: impl Iterator<Item = (u64, &'e Seen)>) -> Option<Exchange> {
    let mut exchange: Option<Exchange> = None;
    let mut progress = Progress::default();
    let mut last = 0;
    for (index, seen) in entries {
        let Ok(entry) = Entry::decode(seen.whole()) else { continue };
        let exchange = exchange.get_or_insert_with(|| opened(&entry));
        exchange.indices.push(index);
        last = entry.time_unix_ms;
        if !entry.legal_basis.is_empty() {
            // A consumer that named none learns from the answer which one held.
            exchange.legal_basis.clone_from(&entry.legal_basis);
        }
        if exchange.schema.is_empty() {
            exchange.schema.clone_from(&entry.schema);
        }
        if progress.add_entry(&entry) {
            exchange.grpc_status = entry.grpc_status;
            exchange.reason = entry.reason;
            exchange.side = entry.side;
        }
    }
    let mut exchange = exchange?;
    exchange.outcome = progress.outcome().into();
    if progress.is_open() {
        (exchange.grpc_status, exchange.reason, exchange.side) = (0, String::new(), 0);
    } else {
        exchange.duration_ms = last.saturating_sub(exchange.time_unix_ms);
    }
    Some(exchange)
}

fn opened(entry: &Entry) -> Exchange {
    Exchange {
        exchange_id: entry.exchange_id.clone(),
        time_unix_ms: entry.time_unix_ms,
        consumer: entry.consumer.clone(),
        provider: entry.provider.clone(),
        service: entry.service.clone(),
        method: entry.method.clone(),
        legal_basis: entry.legal_basis.clone(),
        publication: entry.publication,
        delay_days: entry.delay_days,
        kind: entry.kind,
        ..Exchange::default()
    }
}
