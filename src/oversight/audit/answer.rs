//! The answers, from the log and its index. Blocking: called off the runtime's threads.

use std::time::Instant;

use tonic::Status;

use super::AuditService;
use crate::log::LogError;
use crate::log::hidden::Seen;
use crate::log::index::{Filter, IndexError, Query};
use crate::log::tree::Hash;
use crate::oversight::filter::Token;
use crate::oversight::{join, status};
use crate::proto::kopuro::audit::v1::{
    GetConsistencyProofResponse, GetExchangeResponse, GetInclusionProofResponse, IndexedEntry, QueryExchangesResponse,
    StatsResponse,
};

impl AuditService {
    pub(super) fn page(&self, query: &Query, binding: u64) -> Result<QueryExchangesResponse, Status> {
        let page = self.index.query(query).map_err(index_failed)?;
        let exchanges = join::exchanges(&self.log, &self.index, &page.openings).map_err(join_failed)?;
        Ok(QueryExchangesResponse {
            exchanges,
            next_page_token: page.next.map(|after| Token::write(after, binding)).unwrap_or_default(),
            indexed_size: page.indexed_size,
        })
    }

    pub(super) fn exchange(&self, id: &[u8; 16]) -> Result<GetExchangeResponse, Status> {
        let (exchange, entries) = join::exchange(&self.log, &self.index, id).map_err(join_failed)?;
        if entries.is_empty() {
            let reach = self.index.indexed_size();
            let text = format!("no exchange with this id among the first {reach} entries");
            return Err(status::with_reason(tonic::Code::NotFound, &text, "EXCHANGE_UNKNOWN"));
        }
        let entries = entries.into_iter().map(|(index, seen)| indexed(index, seen)).collect();
        Ok(GetExchangeResponse { exchange, entries })
    }

    pub(super) fn inclusion(&self, index: u64, tree_size: u64) -> Result<GetInclusionProofResponse, Status> {
        let checkpoint = self.log.checkpoint();
        let tree_size = if tree_size == 0 { checkpoint.size } else { tree_size };
        if index >= tree_size || tree_size > checkpoint.size {
            let size = checkpoint.size;
            return Err(Status::out_of_range(format!("entry {index} in a tree of {tree_size}: the log has {size}")));
        }
        let hashes = self.log.inclusion_proof(index, tree_size).map_err(log_failed)?;
        let entry = self.log.read(index, 1).map_err(log_failed)?.into_iter().next();
        let entry = entry.ok_or_else(|| Status::internal("the entry cannot be read"))?;
        let checkpoint = checkpoint.note.clone();
        Ok(GetInclusionProofResponse { index, tree_size, entry, hashes: bytes(&hashes), checkpoint })
    }

    pub(super) fn consistency(&self, old_size: u64, new_size: u64) -> Result<GetConsistencyProofResponse, Status> {
        let size = self.log.checkpoint().size;
        let new_size = if new_size == 0 { size } else { new_size };
        if old_size > new_size || new_size > size {
            return Err(Status::out_of_range(format!("from {old_size} to {new_size}: the log has {size} entries")));
        }
        let hashes = self.log.consistency_proof(old_size, new_size).map_err(log_failed)?;
        Ok(GetConsistencyProofResponse { old_size, new_size, hashes: bytes(&hashes) })
    }

    pub(super) fn counts(&self, filter: &Filter, deadline: Instant) -> Result<StatsResponse, Status> {
        let counts = self.index.count(filter, deadline).map_err(index_failed)?;
        Ok(join::stats(counts))
    }
}

/// An entry as an auditor is shown it.
pub(super) fn indexed(index: u64, seen: Seen) -> IndexedEntry {
    IndexedEntry { index, entry: seen.entry, hidden: seen.hidden.unwrap_or_default() }
}

fn bytes(hashes: &[Hash]) -> Vec<bytes::Bytes> {
    hashes.iter().map(|hash| bytes::Bytes::copy_from_slice(&hash.0)).collect()
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn index_failed(error: IndexError) -> Status {
    if matches!(error, IndexError::OutOfTime) {
        return status::with_reason(
            tonic::Code::ResourceExhausted,
            "too much to count in the time allowed: narrow the filter, the time first",
            "TOO_BROAD",
        );
    }
    tracing::error!(%error, "the log's index failed");
    Status::internal("the log's index failed")
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn log_failed(error: LogError) -> Status {
    if matches!(error, LogError::Pruned { .. }) {
        return status::with_reason(tonic::Code::OutOfRange, &error.to_string(), "ENTRY_PRUNED");
    }
    tracing::error!(%error, "reading the log failed");
    Status::internal("reading the log failed")
}

fn join_failed(error: join::JoinError) -> Status {
    match error {
        join::JoinError::Index(error) => index_failed(error),
        join::JoinError::Source(error) => match error.downcast::<LogError>() {
            Ok(error) => log_failed(*error),
            Err(error) => {
                tracing::error!(%error, "reading the log failed");
                Status::internal("reading the log failed")
            }
        },
    }
}
