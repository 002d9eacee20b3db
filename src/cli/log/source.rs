//! Where the answers come from: a node's audit service, or the data folder of a stopped node. The same questions, the
//! same answers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::log::LogError;
use crate::log::checkpoint::Checkpoint;
use crate::log::closed::ClosedLog;
use crate::log::hidden::Seen;
use crate::log::index::{Index, IndexOptions, Query};
use crate::log::tree::Hash;
use crate::oversight::{filter, join};
use crate::proto::kopuro::audit::v1::audit_log_client::AuditLogClient;
use crate::proto::kopuro::audit::v1::{
    Filter, GetCheckpointRequest, GetExchangeRequest, GetInclusionProofRequest, IndexedEntry, Order,
    QueryExchangesRequest, QueryExchangesResponse, StatsRequest, StatsResponse, TailEntriesRequest,
};

/// Nobody waits behind us: on a folder, questions take what they take.
const PATIENCE: Duration = Duration::from_secs(3_600);

pub(super) enum Source {
    Node(AuditLogClient<Channel>),
    Folder { log: Arc<ClosedLog>, index: Index },
}

/// Entries in order, as they come.
pub(super) enum Entries {
    Node(Streaming<IndexedEntry>),
    Folder { log: Arc<ClosedLog>, next: u64, batch: std::collections::VecDeque<Seen> },
}

impl Source {
    pub(super) fn node(channel: Channel) -> Self {
        Self::Node(AuditLogClient::new(channel).max_decoding_message_size(64 << 20))
    }

    pub(super) fn folder(folder: &Path) -> anyhow::Result<Self> {
        let log = Arc::new(ClosedLog::open(folder).map_err(explained)?);
        let index = Index::open(IndexOptions::new(folder), log.clone())?;
        index.catch_up()?;
        Ok(Self::Folder { log, index })
    }

    pub(super) async fn query(&mut self, request: QueryExchangesRequest) -> anyhow::Result<QueryExchangesResponse> {
        match self {
            Self::Node(client) => Ok(client.query_exchanges(request).await.map_err(refused)?.into_inner()),
            Self::Folder { log, index } => {
                let after = match request.page_token.as_str() {
                    "" => None,
                    token => Some(token.parse().context("page token")?),
                };
                let page = index.query(&Query {
                    filter: filter::read(&request.filter.unwrap_or_default()).map_err(refused)?,
                    newest_first: request.order != i32::from(Order::OldestFirst),
                    after,
                    limit: request.page_size as usize,
                    deadline: Instant::now() + PATIENCE,
                })?;
                Ok(QueryExchangesResponse {
                    exchanges: join::exchanges(&**log, index, &page.openings)?,
                    next_page_token: page.next.map(|next| next.to_string()).unwrap_or_default(),
                    indexed_size: page.indexed_size,
                })
            }
        }
    }

    pub(super) async fn exchange(&mut self, id: [u8; 16]) -> anyhow::Result<join::Entries> {
        let entries = match self {
            Self::Node(client) => {
                let request = GetExchangeRequest { exchange_id: Bytes::copy_from_slice(&id) };
                let response = client.get_exchange(request).await.map_err(refused)?.into_inner();
                response.entries.into_iter().map(seen).collect()
            }
            Self::Folder { log, index } => join::exchange(&**log, index, &id)?.1,
        };
        if entries.is_empty() {
            bail!("no exchange with this id");
        }
        Ok(entries)
    }

    pub(super) async fn entry(&mut self, index: u64) -> anyhow::Result<(u64, Seen)> {
        let first = self.entries(index, false).await?.next().await?;
        first.with_context(|| format!("the log has no entry {index}"))
    }

    pub(super) async fn entries(&mut self, from: u64, follow: bool) -> anyhow::Result<Entries> {
        Ok(match self {
            Self::Node(client) => {
                let stream = client.tail_entries(TailEntriesRequest { from, follow }).await;
                Entries::Node(stream.map_err(refused)?.into_inner())
            }
            Self::Folder { log, .. } => Entries::Folder { log: log.clone(), next: from, batch: Default::default() },
        })
    }

    /// The latest checkpoint, not verified.
    pub(super) async fn checkpoint(&mut self) -> anyhow::Result<Checkpoint> {
        match self {
            Self::Node(client) => {
                let response = client.get_checkpoint(GetCheckpointRequest {}).await.map_err(refused)?;
                Ok(Checkpoint::parse(&response.into_inner().checkpoint)?)
            }
            Self::Folder { log, .. } => Ok(log.checkpoint().clone()),
        }
    }

    /// An entry, its audit path and the latest checkpoint, as a node gives them; not verified.
    pub(super) async fn inclusion_proof(&mut self, index: u64) -> anyhow::Result<(Bytes, Vec<Hash>, Checkpoint)> {
        let Self::Node(client) = self else { bail!("only a node makes proofs") };
        let request = GetInclusionProofRequest { index, tree_size: 0 };
        let response = client.get_inclusion_proof(request).await.map_err(refused)?.into_inner();
        let hash = |bytes: &Bytes| Some(Hash(bytes.as_ref().try_into().ok()?));
        let path: Option<Vec<Hash>> = response.hashes.iter().map(hash).collect();
        let checkpoint = Checkpoint::parse(&response.checkpoint)?;
        Ok((response.entry, path.context("a hash has not 32 bytes")?, checkpoint))
    }

    pub(super) async fn stats(&mut self, filter: Filter) -> anyhow::Result<StatsResponse> {
        match self {
            Self::Node(client) => {
                let request = StatsRequest { filter: Some(filter) };
                Ok(client.stats(request).await.map_err(refused)?.into_inner())
            }
            Self::Folder { index, .. } => {
                let filter = filter::read(&filter).map_err(refused)?;
                Ok(join::stats(index.count(&filter, Instant::now() + PATIENCE)?))
            }
        }
    }
}

impl Entries {
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<(u64, Seen)>> {
        match self {
            Self::Node(stream) => {
                let next = stream.message().await.map_err(refused)?;
                Ok(next.map(seen))
            }
            Self::Folder { log, next, batch } => {
                if batch.is_empty() {
                    batch.extend(log.read_seen(*next, 1_024)?);
                }
                let entry = batch.pop_front();
                *next += u64::from(entry.is_some());
                Ok(entry.map(|entry| (*next - 1, entry)))
            }
        }
    }
}

/// An entry as the node shows it.
fn seen(indexed: IndexedEntry) -> (u64, Seen) {
    let hidden = (!indexed.hidden.is_empty()).then_some(indexed.hidden);
    (indexed.index, Seen { entry: indexed.entry, hidden })
}

/// A folder that a node has open is not a fault of the folder.
pub(super) fn explained(error: LogError) -> anyhow::Error {
    let locked = matches!(error, LogError::Locked(_));
    let error = anyhow::Error::new(error);
    if locked { error.context("a node is running on this folder: ask the node, with --node") } else { error }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn refused(status: tonic::Status) -> anyhow::Error {
    use tonic_types::StatusExt;
    let reason = status.get_details_error_info().map(|info| format!(" ({})", info.reason)).unwrap_or_default();
    anyhow::anyhow!("{:?}{reason}: {}", status.code(), status.message())
}
