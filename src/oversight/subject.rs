//! `kopuro.audit.v1.SubjectAccess`: a person's view of a node's log, by way of a system that this node's member has granted
//! it; and `kopuro.audit.v1.Openings`, which opens single fields to an officer. Who that is, is judged by the grants in
//! force, like any other call.
//!
//! Every call is first written to the log, KIND_AUDIT with the person in SLOT_SUBJECT, and is answered only once that entry
//! is durable; so is the refusal of a caller without a grant. An exchange may be about many: a person is shown the slots that
//! hold themselves, never another's. Exchanges that the law delays or seals are left out, and
//! nothing in the answer tells whether there are any: pages are filled up from further back, and page tokens are masked.
//! What callers can take up is bounded: questions answered at once, their time, and the size of a page.

mod admit;
mod find;
mod open;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::log::Log;
use crate::log::commitment::Opening;
use crate::log::entry::Slot;
use crate::log::hidden::Private;
use crate::log::index::Index;
use crate::log::tree::Hash;
use crate::oversight::join::JoinError;
use crate::oversight::status;
use crate::policy::Grant;
use crate::proto::kopuro::audit::v1::subject_access_server::SubjectAccess;
use crate::proto::kopuro::audit::v1::{
    FieldOpening, ListExchangesRequest, ListExchangesResponse, ShownEntry, SubjectExchange,
};
use crate::trust::certificate::PeerIdentity;
use crate::trust::identity::MemberId;
use admit::About;
pub use admit::NotPermitted;
pub use find::{Classes, Found, FoundExchange, Wanted, find};

/// The service's full name: what a grant names.
pub const SERVICE: &str = "kopuro.audit.v1.SubjectAccess";

/// The full name of the service that opens fields.
pub const OPENINGS: &str = "kopuro.audit.v1.Openings";

/// The methods of both: what a grant may name. None where it is neither.
pub fn methods(service: &str) -> Option<&'static [&'static str]> {
    match service {
        SERVICE => Some(&["ListExchanges"]),
        OPENINGS => Some(&["OpenFields"]),
        _ => None,
    }
}

/// The provider that a grant names: the node itself, not one of its member's systems.
pub const PROVIDER: &str = "node";

/// The grant that lets this caller call this service's method on this claimed legal basis, or why there is none.
pub type Permit = Arc<dyn Fn(&PeerIdentity, &str, &str, Option<&str>) -> Result<Grant, NotPermitted> + Send + Sync>;

/// A page holds about so many bytes at most.
const PAGE_BYTES: usize = 1 << 20;

/// How much of a node subject access may take up.
#[derive(Clone, Debug)]
pub struct SubjectLimits {
    /// Questions answered at once.
    pub questions: usize,
    /// How long one question may take.
    pub time: Duration,
}

impl Default for SubjectLimits {
    fn default() -> Self {
        Self { questions: 4, time: Duration::from_secs(10) }
    }
}

/// Both services. Give it to tonic as `SubjectAccessServer::new(service)` and `OpeningsServer::new(service)`.
#[derive(Clone)]
pub struct SubjectService {
    log: Log,
    index: Index,
    member: MemberId,
    permit: Permit,
    limits: SubjectLimits,
    questions: Arc<Semaphore>,
}

impl std::fmt::Debug for SubjectService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("SubjectService");
        shown.field("member", &self.member).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl SubjectService {
    /// The service over a log and its index.
    pub fn new(log: Log, index: Index, member: MemberId, permit: Permit, limits: SubjectLimits) -> Self {
        let questions = Arc::new(Semaphore::new(limits.questions.clamp(1, 1_024)));
        Self { log, index, member, permit, limits, questions }
    }

    /// Answers a question off the runtime's threads, when one of the places is free.
    async fn answer<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Self, Instant) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let place = tokio::time::timeout(self.limits.time, self.questions.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(status::busy("too many questions at once: ask again later")) };
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

    fn page(
        &self,
        wanted: &Wanted,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Found, ListExchangesResponse), Status> {
        let found = find(&self.log, &self.index, wanted, before, limit, PAGE_BYTES, deadline).map_err(failed)?;
        // After the search: it covers all that was found.
        let checkpoint = self.log.checkpoint();
        let mut exchanges = Vec::with_capacity(found.exchanges.len());
        for FoundExchange { exchange, entries } in &found.exchanges {
            let mut shown = Vec::with_capacity(entries.len());
            for (index, entry, private) in entries {
                let proof = self.log.inclusion_proof(*index, checkpoint.size);
                let proof = proof.map_err(|error| failed(JoinError::Source(error.into())))?;
                // Of whom else the entry names nothing is opened.
                let half = Private::read(private);
                let mut slots = half.as_ref().map_or_else(Vec::new, |half| find::slots_of(half, &wanted.subject));
                slots.push(Slot::Hidden as u8);
                shown.push(shown_entry(*index, entry.clone(), half.as_ref(), &slots, &proof));
            }
            exchanges.push(SubjectExchange { exchange: Some(exchange.clone()), entries: shown });
        }
        let response = ListExchangesResponse {
            exchanges,
            next_page_token: String::new(),
            checkpoint: checkpoint.note.clone(),
            indexed_size: found.indexed_size,
        };
        Ok((found, response))
    }
}

#[tonic::async_trait]
impl SubjectAccess for SubjectService {
    async fn list_exchanges(
        &self,
        request: Request<ListExchangesRequest>,
    ) -> Result<Response<ListExchangesResponse>, Status> {
        let subject = Zeroizing::new(request.get_ref().subject.clone().into_bytes());
        let about = About { subject, ..About::default() };
        let request = self.admit(SERVICE, "ListExchanges", request, &about).await?;
        let wanted = find::wanted(&request, now_unix_ms())?;
        let limit = find::page_size(request.page_size)?;
        let before = find::read_token(&self.log, &request)?;
        self.answer(move |service, deadline| {
            let (found, mut response) = service.page(&wanted, before, limit, deadline)?;
            if let Some(next) = found.next {
                response.next_page_token = find::write_token(&service.log, &request, next);
            }
            Ok(response)
        })
        .await
    }
}

/// An entry with those of these slots opened that have a value.
fn shown_entry(index: u64, entry: Bytes, private: Option<&Private<'_>>, slots: &[u8], proof: &[Hash]) -> ShownEntry {
    let open = |slot: &u8| private.and_then(|private| private.open_at(*slot)).map(field);
    ShownEntry { index, entry, openings: slots.iter().filter_map(open).collect(), inclusion: hashes(proof) }
}

fn field(opening: Opening) -> FieldOpening {
    FieldOpening {
        slot: opening.slot.into(),
        salt: Bytes::copy_from_slice(&opening.salt),
        slots: opening.slots.into(),
        path: hashes(&opening.path),
        value: opening.value.into(),
    }
}

fn hashes(hashes: &[Hash]) -> Vec<Bytes> {
    hashes.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect()
}

fn now_unix_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: JoinError) -> Status {
    tracing::error!(%error, "a question about a subject could not be answered");
    Status::internal("the log or its index failed")
}
