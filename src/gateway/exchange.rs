//! One side's record of one exchange: what its entries say, and the rule that each is durable before anything moves.
//!
//! ```text
//!            open()                      close()             a streamed request besides: completed(), REQUEST_COMPLETED
//!   New ───────────────▶ Open ──────────────────────────▶ Closed
//!    │   REQUEST_SENT     │    RESPONSE_SENT / _RECEIVED
//!    │   REQUEST_RECEIVED │
//!    └── refuse() ──▶ Closed (REFUSED)
//!                         └── fail(), or dropped ──▶ Closed (FAILED)
//! ```
//!
//! An exchange that is dropped while open (its caller went away, a connection was cut) is closed as FAILED/CANCELLED. One that a
//! crash leaves open is closed as FAILED/INTERRUPTED when the node comes back.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Code;
use uuid::Uuid;

use super::Gateway;
use super::framing::Totals;
use super::metadata::CallMetadata;
use super::metered::Completion;
use super::peer_log::PeerLog;
use super::proofs;
use super::recorder::Recorder;
use super::refusal::Refusal;
use super::status;
use super::traced::Traced;
use super::typed::{Gathered, Withheld};
use crate::log::Expected;
use crate::log::entry::{self, Draft, ExchangeKey, Kind, Outcome, Record, Side, Slot};
use crate::log::further::{Direction, FurtherFields};
use crate::policy::Publication;
use crate::telemetry::metrics::{NodeMetrics, Stage};
use crate::telemetry::trace::Trace;
use crate::trust::identity::MemberId;

/// How an exchange ended.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) code: i32,
    /// With the side at fault; of refusals and failures only.
    pub(super) reason: Option<(String, Side)>,
    pub(super) request: Totals,
    pub(super) response: Option<Totals>,
}

/// One side's record of one exchange.
pub(super) struct Exchange {
    recorder: Recorder,
    side: Side,
    state: State,
    pub(super) id: Uuid,
    key: ExchangeKey,
    pub(super) consumer: String,
    pub(super) provider: String,
    pub(super) service: String,
    pub(super) method: String,
    pub(super) legal_basis: String,
    /// What of it is published, and when.
    pub(super) class: Publication,
    private: Vec<(Slot, zeroize::Zeroizing<Vec<u8>>)>,
    /// SHA-256 of the descriptor set by which messages are judged, once that is known.
    pub(super) schema: Option<[u8; 32]>,
    /// Whose data the messages are, and committed fields.
    gathered: Gathered,
    /// No entry of gathered subjects may follow the closing one.
    closed: Arc<AtomicBool>,
    request: Totals,
    metrics: Arc<NodeMetrics>,
    /// The node's log stays open as long as this lives.
    running: TaskTrackerToken,
    /// Its next entry is not far.
    expected: Option<Expected>,
    began: Instant,
    /// Of consumer and provider, once both are known: labels of metrics.
    pub(super) members: Option<(MemberId, MemberId)>,
    /// The other side is another node: it is shown what is logged here.
    pub(super) to_peer: bool,
    /// That node's log, once it is known: it has to show the same.
    pub(super) peer_log: Option<Arc<PeerLog>>,
    /// A checkpoint of the other side's log, to be kept in the next entry.
    pub(super) peer_checkpoint: String,
    /// Of which no entry says anything.
    pub(super) traced: Traced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Closed,
}

impl Exchange {
    /// An exchange of which nothing is recorded yet. With a nil id it gets one of its own when something is.
    pub(super) fn new(
        gateway: &Gateway,
        side: Side,
        id: Uuid,
        address: String,
        trace: Option<Trace>,
        began: tokio::time::Instant,
    ) -> Self {
        gateway.metrics.in_flight().increment(1.0);
        let key = if gateway.recorder.is_on() { ExchangeKey::generate() } else { ExchangeKey::unused() };
        Self {
            traced: Traced::new(gateway, trace),
            schema: None,
            gathered: Arc::new(Mutex::new(FurtherFields::new(&key))),
            closed: Arc::default(),
            recorder: gateway.recorder.clone(),
            metrics: gateway.metrics.clone(),
            running: gateway.exchanges.token(),
            expected: gateway.recorder.expect(),
            began: began.into_std(),
            members: None,
            to_peer: false,
            peer_log: None,
            peer_checkpoint: String::new(),
            side,
            state: State::New,
            id,
            key,
            consumer: String::new(),
            provider: String::new(),
            service: String::new(),
            method: String::new(),
            legal_basis: String::new(),
            class: Publication::Public,
            private: vec![(Slot::Address, zeroize::Zeroizing::new(address.into_bytes()))],
            request: Totals::default(),
        }
    }

    /// Takes what the caller said about the person, the official and the case.
    pub(super) fn set_call(&mut self, call: &CallMetadata) {
        if let Some(subject) = &call.subject {
            self.gathered().subject(Direction::Request, subject.as_bytes());
        }
        for (slot, value) in [(Slot::User, &call.user), (Slot::Case, &call.case)] {
            if let Some(value) = value {
                self.private.push((slot, zeroize::Zeroizing::new(value.clone().into_bytes())));
            }
        }
    }

    /// Whose data the messages are, for those who judge them.
    pub(super) fn gathering(&self) -> &Gathered {
        &self.gathered
    }

    /// The first of those whom the exchange is about, where metadata can tell it.
    pub(super) fn first_subject(&self) -> Option<String> {
        let gathered = self.gathered();
        let first = std::str::from_utf8(gathered.first()?).ok()?;
        let told =
            first.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !first.starts_with(' ') && !first.ends_with(' ');
        told.then(|| first.to_owned())
    }

    fn gathered(&self) -> MutexGuard<'_, FurtherFields> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts fields that were withheld.
    pub(super) fn tell_withheld(&self, withheld: &Withheld) {
        if self.side == Side::Provider && withheld.count > 0 {
            self.metrics.withheld(withheld.count);
        }
    }

    /// What has passed of a streamed request, for the closing entry of an exchange that fails.
    pub(super) fn set_request(&mut self, request: Totals) {
        self.request = request;
    }

    /// The side whose record this is.
    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// It streams: nobody knows when its next entry comes.
    pub(super) fn streams(&mut self) {
        self.expected = None;
    }

    /// Whether it has an opening entry and no closing one.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns when the opening entry is durable: now the request may leave, with the proof where the other side is told. A
    /// streamed request has no digest yet.
    pub(super) async fn open(&mut self, request: Option<Totals>) -> Result<Option<HeaderValue>, Refusal> {
        let kind = if self.side == Side::Consumer { Kind::RequestSent } else { Kind::RequestReceived };
        self.request = request.unwrap_or_default();
        if !self.recorder.is_on() {
            self.state = State::Open;
            return Ok(None);
        }
        let (draft, more) = self.opening(kind, request);
        // Open from here: if this wait is cut short the entry may still become durable, and must then be closed.
        self.state = State::Open;
        self.append(Vec::new(), draft, more, self.to_peer.then_some(&proofs::OF_REQUEST)).await
    }

    /// Returns when the closing entry is durable: now the answer may leave, with the proof where another node is told.
    pub(super) async fn close(&mut self, ending: Ending) -> Result<Option<HeaderValue>, Refusal> {
        let kind = if self.side == Side::Consumer { Kind::ResponseReceived } else { Kind::ResponseSent };
        self.metrics.request_bytes(ending.request.bytes);
        self.metrics.response_bytes(ending.response.map_or(0, |response| response.bytes));
        if !self.recorder.is_on() {
            self.count(&ending);
            self.set_closed();
            return Ok(None);
        }
        let (more, draft) = self.ending(kind, ending);
        self.set_closed();
        self.append(more, draft, Vec::new(), self.answers_peer().then_some(&proofs::OF_CLOSING)).await
    }

    /// Returns when the entry is durable that says why nothing passed (REFUSED), or why it came to no answer (FAILED); with its
    /// proof where another node is told.
    pub(super) async fn end(&mut self, refusal: &Refusal) -> Result<Option<HeaderValue>, Refusal> {
        let kind = if self.is_open() { Kind::Failed } else { Kind::Refused };
        let refused = self.refused(refusal);
        let (more, draft) = self.ending(kind, refused);
        self.set_closed();
        self.append(more, draft, Vec::new(), self.answers_peer().then_some(&[])).await
    }

    fn set_closed(&mut self) {
        self.state = State::Closed;
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Returns when everything is durable that has been gathered and fills entries of its own: between the messages of a stream.
    pub(super) async fn record_gathered(&mut self) -> Result<(), Refusal> {
        loop {
            let full = {
                let template = self.named(Kind::Subjects);
                self.gathered().full(&template, unix_ms())
            };
            match full {
                Some(draft) => drop(self.append(Vec::new(), draft, Vec::new(), None).await?),
                None => return Ok(()),
            }
        }
    }

    /// What records the same from within a streamed request.
    pub(super) fn gathering_recorder(&mut self) -> GatheringRecorder {
        let template = self.named(Kind::Subjects);
        let (gathered, recorder, closed) = (self.gathered.clone(), self.recorder.clone(), self.closed.clone());
        GatheringRecorder { template, gathered, recorder, closed }
    }

    /// An entry with those that belong before and behind it, in one go.
    fn append<'a>(
        &'a self,
        before: Vec<Draft>,
        draft: Draft,
        behind: Vec<Draft>,
        open: Option<&'a [Slot]>,
    ) -> impl Future<Output = Result<Option<HeaderValue>, Refusal>> + Send + 'a {
        let began = Instant::now();
        let appending = self.recorder.append_among(before, draft, behind, open);
        appending.inspect(move |_| self.metrics.stage(Stage::Durable, began.elapsed()))
    }

    /// What records the end of a streamed request: to be called with what passed, once all of it has. Gives the trailers that
    /// show it to the provider's node.
    pub(super) fn completed(&mut self) -> Completion {
        let mut draft = self.draft(Kind::RequestCompleted);
        let (recorder, metrics, running) = (self.recorder.clone(), self.metrics.clone(), self.running.clone());
        Box::new(move |totals: Totals| {
            Box::pin(async move {
                let began = Instant::now();
                draft.time_unix_ms = unix_ms();
                draft.set(Slot::RequestDigest, totals.digest);
                draft.set(Slot::Sizes, sizes(&totals, None));
                let proof = recorder.append(draft, Some(&proofs::OF_REQUEST)).await?;
                metrics.stage(Stage::Durable, began.elapsed());
                drop(running);
                let mut trailers = HeaderMap::new();
                proofs::put(&mut trailers, proof);
                Ok(trailers)
            })
        })
    }

    /// Whether the answer goes to another node.
    fn answers_peer(&self) -> bool {
        self.to_peer && self.side == Side::Provider
    }

    fn count(&mut self, ending: &Ending) {
        let (outcome, of_provider) = match ending.outcome {
            Outcome::Ok => ("ok", false),
            Outcome::Error => ("error", false),
            Outcome::Refused => ("refused", true),
            Outcome::Failed | Outcome::Unspecified => ("failed", true),
        };
        if let Some((consumer, provider)) = &self.members {
            self.metrics.exchange_ended(consumer, provider, outcome);
        }
        self.metrics.exchange_took(self.side == Side::Provider, self.began.elapsed());
        self.traced.ends(outcome, ending);
        let reason = ending.reason.as_ref().map(|(reason, _)| reason.as_str());
        tracing::debug!(exchange = %self.id, side = ?self.side, consumer = %self.consumer, provider = %self.provider,
            service = %self.service, method = %self.method, outcome, reason, "exchange ended");
        if let (true, Some((reason, side))) = (of_provider, &ending.reason) {
            let misbehaved = *side == self.side && Refusal::MISBEHAVIOUR.contains(&reason.as_str());
            if let Some(log) = self.peer_log.as_ref().filter(|_| misbehaved) {
                self.metrics.peer_misbehaved(log.node(), reason);
            }
            let side = if *side == Side::Provider { "provider" } else { "consumer" };
            self.metrics.refused(side, reason);
            let method = format!("{}/{}", self.service, self.method);
            self.metrics.refusals().push(status::seen(side, reason, &self.consumer, &self.provider, method));
        }
    }

    fn refused(&self, refusal: &Refusal) -> Ending {
        Ending {
            outcome: if self.is_open() { Outcome::Failed } else { Outcome::Refused },
            code: refusal.code as i32,
            reason: Some((refusal.reason.to_owned(), self.side)),
            request: self.request,
            response: None,
        }
    }

    /// The opening entry, and those that belong behind it.
    fn opening(&mut self, kind: Kind, request: Option<Totals>) -> (Draft, Vec<Draft>) {
        let mut draft = self.draft(kind);
        if let Some(totals) = request {
            draft.set(Slot::RequestDigest, totals.digest);
            draft.set(Slot::Sizes, sizes(&totals, None));
        }
        let more = self.gathered().fill(&mut draft);
        (draft, more)
    }

    /// The closing entry, and those that belong before it.
    fn ending(&mut self, kind: Kind, ending: Ending) -> (Vec<Draft>, Draft) {
        self.count(&ending);
        let mut draft = self.draft(kind);
        draft.outcome = ending.outcome;
        draft.grpc_status = ending.code.unsigned_abs();
        if let Some((reason, side)) = ending.reason {
            draft.reason = reason;
            draft.side = side;
        }
        if ending.request != Totals::default() {
            draft.set(Slot::RequestDigest, ending.request.digest);
            draft.set(Slot::Sizes, sizes(&ending.request, ending.response.as_ref()));
        }
        if let Some(response) = ending.response {
            draft.set(Slot::ResponseDigest, response.digest);
        }
        // What never opened says no more than whom it was about.
        let more = if self.is_open() { self.gathered().fill(&mut draft) } else { Vec::new() };
        (more, draft)
    }

    fn draft(&mut self, kind: Kind) -> Draft {
        let mut draft = self.named(kind);
        draft.peer_checkpoint = std::mem::take(&mut self.peer_checkpoint);
        for (slot, value) in &self.private {
            draft.set(*slot, value.to_vec());
        }
        if let Some(first) = self.gathered().first() {
            draft.set(Slot::Subject, first);
        }
        draft
    }

    /// A draft with the names that are known.
    fn named(&mut self, kind: Kind) -> Draft {
        if self.id.is_nil() {
            self.id = Uuid::now_v7();
        }
        let mut draft = Draft::new(kind, self.id, unix_ms(), &self.key);
        draft.schema = self.schema;
        draft.consumer.clone_from(&self.consumer);
        draft.provider.clone_from(&self.provider);
        draft.service.clone_from(&self.service);
        draft.method.clone_from(&self.method);
        draft.legal_basis.clone_from(&self.legal_basis);
        (draft.publication, draft.delay_days) = recorded(self.class);
        draft
    }
}

/// Records what is gathered while a streamed request passes.
pub(super) struct GatheringRecorder {
    template: Draft,
    gathered: Gathered,
    recorder: Recorder,
    closed: Arc<AtomicBool>,
}

impl GatheringRecorder {
    /// An entry's worth, on its way into the log; none where that much has not been gathered.
    pub(super) fn record(&self) -> Option<Recording> {
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let full = self.gathered.lock().unwrap_or_else(PoisonError::into_inner).full(&self.template, unix_ms());
        let (draft, recorder) = (full?, self.recorder.clone());
        Some(Box::pin(async move { recorder.append(draft, None).await.map(drop) }))
    }
}

/// An entry on its way into the log.
pub(super) type Recording = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.in_flight().decrement(1.0);
        if self.is_open() {
            let cancelled = self.refused(&Refusal::cancelled());
            let (more, draft) = self.ending(Kind::Failed, cancelled);
            for draft in more.into_iter().chain([draft]) {
                self.recorder.append_later(draft, self.running.clone());
            }
        }
        std::mem::take(&mut self.traced).tell(self, self.began);
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("id", &self.id)
            .field("side", &self.side)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A class as entries have it.
pub(super) fn recorded(class: Publication) -> (entry::Publication, u32) {
    match class {
        Publication::Public => (entry::Publication::Public, 0),
        Publication::Delayed { days } => (entry::Publication::Delayed, days),
        Publication::Sealed => (entry::Publication::Sealed, 0),
    }
}

/// The node's clock, milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Closes an exchange that a crash left open.
pub(super) fn interrupted(opening: &entry::Entry, id: Uuid) -> Record {
    let side = if opening.kind() == Kind::RequestSent { Side::Consumer } else { Side::Provider };
    let mut draft = Draft::new(Kind::Failed, id, unix_ms(), &ExchangeKey::generate());
    draft.consumer.clone_from(&opening.consumer);
    draft.provider.clone_from(&opening.provider);
    draft.service.clone_from(&opening.service);
    draft.method.clone_from(&opening.method);
    draft.legal_basis.clone_from(&opening.legal_basis);
    draft.publication = opening.publication();
    draft.delay_days = opening.delay_days;
    draft.schema = opening.schema.as_ref().try_into().ok();
    draft.outcome = Outcome::Failed;
    draft.grpc_status = Code::Unavailable as u32;
    draft.reason = "INTERRUPTED".to_owned();
    draft.side = side;
    draft.seal()
}

pub(super) fn sizes(request: &Totals, response: Option<&Totals>) -> Vec<u8> {
    let response = response.copied().unwrap_or_default();
    [request.messages, request.bytes, response.messages, response.bytes].iter().flat_map(|n| n.to_be_bytes()).collect()
}
