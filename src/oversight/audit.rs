//! `kopuro.audit.v1.AuditLog`: the auditor's view of a node's log.
//!
//! Every call is first written to the log as KIND_AUDIT and is answered only once that entry is durable; so is the
//! refusal of a caller who is no auditor. The caller is the [`PeerIdentity`] that the gateway has put into the request's
//! extensions as `Arc<PeerIdentity>`; a request without one is refused. An auditor sees the public fields of every
//! entry, sealed and delayed ones too: those classes are about publication, and auditors are authorised. Private
//! values never pass here.
//!
//! What one auditor can take up is bounded: questions answered at once and their time, open streams, and what a slow
//! reader of a stream makes the node hold.

mod admit;
mod answer;
mod tail;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::log::Log;
use crate::log::index::{Index, Query};
use crate::oversight::filter::{self, Token};
use crate::oversight::status;
use crate::proto::kopuro::audit::v1::audit_log_server::AuditLog;
use crate::proto::kopuro::audit::v1::{
    GetCheckpointRequest, GetCheckpointResponse, GetConsistencyProofRequest, GetConsistencyProofResponse,
    GetExchangeRequest, GetExchangeResponse, GetInclusionProofRequest, GetInclusionProofResponse,
    QueryExchangesRequest, QueryExchangesResponse, StatsRequest, StatsResponse, TailEntriesRequest,
};
use crate::trust::certificate::PeerIdentity;
use crate::trust::identity::MemberId;
use tail::{TailStream, Tails};

/// Whether the directory in force lists this caller as an auditor.
pub type IsAuditor = Arc<dyn Fn(&PeerIdentity) -> bool + Send + Sync>;

/// How much of a node auditors may take up.
#[derive(Clone, Debug)]
pub struct AuditLimits {
    /// Streams of entries that one auditor may have open.
    pub tails_per_auditor: usize,
    /// Questions answered at once, for all auditors together.
    pub questions: usize,
    /// How long one question may take.
    pub time: Duration,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { tails_per_auditor: 4, questions: 4, time: Duration::from_secs(10) }
    }
}

/// The service. Give it to tonic as `AuditLogServer::new(service)`.
#[derive(Clone)]
pub struct AuditService {
    log: Log,
    index: Index,
    member: MemberId,
    is_auditor: IsAuditor,
    limits: AuditLimits,
    stop: CancellationToken,
    questions: Arc<Semaphore>,
    tails: Tails,
}

impl std::fmt::Debug for AuditService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("AuditService");
        shown.field("member", &self.member).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl AuditService {
    /// The service over a log and its index. `stop` ends open streams of entries: cancel it when the node drains.
    pub fn new(
        log: Log,
        index: Index,
        member: MemberId,
        is_auditor: IsAuditor,
        limits: AuditLimits,
        stop: CancellationToken,
    ) -> Self {
        let questions = Arc::new(Semaphore::new(limits.questions.clamp(1, 1_024)));
        let tails = Tails::new(limits.tails_per_auditor);
        Self { log, index, member, is_auditor, limits, stop, questions, tails }
    }

    /// Answers a question off the runtime's threads, when one of the places is free.
    async fn answer<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Self, Instant) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let place = tokio::time::timeout(self.limits.time, self.questions.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(status::busy("too many questions at once: ask again later"));
        };
        let (service, deadline) = (self.clone(), Instant::now() + self.limits.time);
        let answered = tokio::task::spawn_blocking(move || {
            let _place = place;
            ask(&service, deadline)
        });
        match answered.await {
            Ok(answer) => answer.map(Response::new),
            Err(_) => Err(Status::internal("the question could not be answered")),
        }
    }
}

#[tonic::async_trait]
impl AuditLog for AuditService {
    type TailEntriesStream = TailStream;

    async fn query_exchanges(
        &self,
        request: Request<QueryExchangesRequest>,
    ) -> Result<Response<QueryExchangesResponse>, Status> {
        let request = self.admit("QueryExchanges", request).await?;
        let asked = request.get_ref();
        let wanted = asked.filter.clone().unwrap_or_default();
        let filter = filter::read(&wanted)?;
        let order = filter::newest_first(asked.order)?;
        let limit = filter::page_size(asked.page_size)?;
        let binding = filter::binding(&wanted, order);
        let after = Token::read(&asked.page_token, binding)?;
        self.answer(move |service, deadline| {
            let query = Query { filter, newest_first: order, after, limit, deadline };
            service.page(&query, binding)
        })
        .await
    }

    async fn get_exchange(
        &self,
        request: Request<GetExchangeRequest>,
    ) -> Result<Response<GetExchangeResponse>, Status> {
        let request = self.admit("GetExchange", request).await?;
        let id = filter::exchange_id(&request.get_ref().exchange_id)?;
        self.answer(move |service, _| service.exchange(&id)).await
    }

    async fn tail_entries(
        &self,
        request: Request<TailEntriesRequest>,
    ) -> Result<Response<Self::TailEntriesStream>, Status> {
        let request = self.admit("TailEntries", request).await?;
        let place = self.tails.take(request.auditor())?;
        let TailEntriesRequest { from, follow } = *request.get_ref();
        let size = self.log.checkpoint().size;
        if from > size {
            return Err(Status::out_of_range(format!("the log has {size} entries")));
        }
        Ok(Response::new(tail::stream(self.log.clone(), from, follow, self.stop.clone(), place)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        self.admit("GetCheckpoint", request).await?;
        Ok(Response::new(GetCheckpointResponse { checkpoint: self.log.checkpoint().note.clone() }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<GetInclusionProofResponse>, Status> {
        let request = self.admit("GetInclusionProof", request).await?;
        let GetInclusionProofRequest { index, tree_size } = *request.get_ref();
        self.answer(move |service, _| service.inclusion(index, tree_size)).await
    }

    async fn get_consistency_proof(
        &self,
        request: Request<GetConsistencyProofRequest>,
    ) -> Result<Response<GetConsistencyProofResponse>, Status> {
        let request = self.admit("GetConsistencyProof", request).await?;
        let GetConsistencyProofRequest { old_size, new_size } = *request.get_ref();
        self.answer(move |service, _| service.consistency(old_size, new_size)).await
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let request = self.admit("Stats", request).await?;
        let filter = filter::read(&request.get_ref().filter.clone().unwrap_or_default())?;
        self.answer(move |service, deadline| service.counts(&filter, deadline)).await
    }
}
