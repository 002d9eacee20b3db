//! Spans of exchanges: a bounded queue of those that ended, and OTLP of them. Names and attributes by OpenTelemetry's semantic conventions
//! for gRPC (<https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::metrics::{Counter, SharedString, counter};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

use super::{Collector, said, scope, text};
use crate::telemetry::metrics::OTLP_SPANS;
use crate::telemetry::trace::{Sampling, Trace};

/// Exchanges in one request: a span for each, and mostly one for its next hop.
const BATCH: usize = 256;

/// Before a second try, doubled for each that follows.
const PAUSE: Duration = Duration::from_millis(200);

/// In a span's flags: whether its parent is elsewhere is known; and it is.
const IS_REMOTE_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The condition of [`crate::telemetry::Health`].
const CONDITION: &str = "traces";

/// An exchange that ended at this node.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// Its place in a trace that is sampled.
    pub trace: Trace,
    /// Its id.
    pub exchange: Uuid,
    /// Whether this node is the provider's.
    pub as_provider: bool,
    /// The asking system.
    pub consumer: String,
    /// The asked one; empty where the call named none.
    pub provider: String,
    /// `package.Service`, and the method, of a call that names one that is known.
    pub method: Option<(String, String)>,
    /// `ok`, `error`, `refused`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// gRPC's status.
    pub code: i32,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// When it came.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// The leg to the next hop, if it came to that.
    pub hop: Option<HopTaken>,
}

/// The leg to the next hop.
#[derive(Debug, Clone)]
pub struct HopTaken {
    /// `peer`, `backend`, or `local`: this node's own other half.
    pub to: &'static str,
    /// `host:port`; empty where nothing left the node.
    pub address: String,
    /// When the request left.
    pub began: Instant,
    /// When its answer was there; as the exchange, where it streamed or never came.
    pub ended: Option<Instant>,
    /// The answer's status, where it was there.
    pub code: Option<i32>,
}

/// Where exchanges that ended are told. Clones share the queue.
#[derive(Clone)]
pub struct Spans {
    sender: mpsc::Sender<Exchanged>,
    sampling: Sampling,
    full: Counter,
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spans").field("sampling", &self.sampling).finish_non_exhaustive()
    }
}

impl Spans {
    pub(super) fn new(node: &str, sampling: Sampling, most: usize) -> (Self, Queue) {
        let node: SharedString = node.to_owned().into();
        let count = |result: &'static str| counter!(OTLP_SPANS, "node" => node.clone(), "result" => result);
        let (sender, receiver) = mpsc::channel(most.max(1));
        let [exported, full, failed, rejected] = ["exported", "queue_full", "failed", "rejected"].map(count);
        for counter in [&exported, &full, &failed, &rejected] {
            counter.increment(0);
        }
        (Self { sender, sampling, full }, Queue { receiver, exported, failed, rejected })
    }

    /// Which traces are recorded.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// One more, if there is room. Never waits.
    pub fn ended(&self, exchanged: Exchanged) {
        let spans = exchanged.spans();
        if self.sender.try_send(exchanged).is_err() {
            self.full.increment(spans);
        }
    }
}

/// The queue's other end.
pub(super) struct Queue {
    receiver: mpsc::Receiver<Exchanged>,
    exported: Counter,
    failed: Counter,
    rejected: Counter,
}

impl Queue {
    /// Exports until stopped, and then what is left.
    pub(super) async fn export(mut self, collector: Collector, delay: Duration, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let came = stop.run_until_cancelled(self.receiver.recv_many(&mut batch, BATCH)).await;
            if came == Some(0) {
                return;
            }
            let gathered = tokio::time::Instant::now() + delay;
            while batch.len() < BATCH && !stop.is_cancelled() {
                let room = BATCH - batch.len();
                let more = tokio::time::timeout_at(gathered, self.receiver.recv_many(&mut batch, room));
                match stop.run_until_cancelled(more).await {
                    Some(Ok(1..)) => {}
                    _ => break,
                }
            }
            if stop.is_cancelled() {
                while let (true, Ok(more)) = (batch.len() < BATCH, self.receiver.try_recv()) {
                    batch.push(more);
                }
                if batch.is_empty() {
                    return;
                }
            }
            self.send(&collector, &batch).await;
            batch.clear();
        }
    }

    async fn send(&self, collector: &Collector, batch: &[Exchanged]) {
        let spans: Vec<Span> = {
            let now = (Instant::now(), SystemTime::now());
            batch.iter().flat_map(|exchanged| exchanged.to_spans(now)).collect()
        };
        let count = spans.len() as u64;
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
        let resource = Some(collector.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans };
        let mut last = "no answer".to_owned();
        let sent = tokio::time::timeout(collector.timeout, send(collector, request, &mut last)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("not within {:?}: {last}", collector.timeout)));
        collector.tell(CONDITION, &sent);
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.rejected.increment(rejected);
                self.exported.increment(count - rejected);
            }
            Err(_) => self.failed.increment(count),
        }
    }
}

/// Sends until the collector takes charge, or says that it never will. How many spans it rejected; `last` is why the last try failed.
async fn send(collector: &Collector, request: ExportTraceServiceRequest, last: &mut String) -> Result<u64, String> {
    let mut client = TraceServiceClient::new(collector.channel.clone());
    let mut pause = PAUSE;
    loop {
        match client.export(collector.request(request.clone())).await {
            Ok(answer) => {
                let partial = answer.into_inner().partial_success;
                return Ok(partial.map_or(0, |partial| partial.rejected_spans.unsigned_abs()));
            }
            Err(status) if !may_be_sent_again(status.code()) => return Err(said(&status)),
            Err(status) => *last = said(&status),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// As OTLP's specification has it.
fn may_be_sent_again(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

impl Exchanged {
    fn spans(&self) -> u64 {
        1 + u64::from(self.hop.is_some())
    }

    /// This node's span and that of the leg to the next hop.
    fn to_spans(&self, now: (Instant, SystemTime)) -> impl Iterator<Item = Span> {
        let side = if self.as_provider { "provider" } else { "consumer" };
        let mut own = self.span(now, self.trace.span, self.trace.parent, self.began, self.ended);
        own.kind = span::SpanKind::Server as i32;
        own.attributes.extend(self.status(self.code));
        own.attributes.push(text("kopuro.side", side));
        own.attributes.push(text("kopuro.outcome", self.outcome));
        own.attributes.extend(self.reason.as_ref().map(|reason| text("kopuro.reason", reason)));
        // A refusal of what the caller may not do is no error of the one who refuses.
        own.status = is_servers_error(self.code).then(error);
        let hop = self.hop.as_ref().map(|hop| {
            let ended = hop.ended.unwrap_or(self.ended);
            let mut leg = self.span(now, self.trace.hop, Some(self.trace.span), hop.began, ended);
            let code = hop.code.unwrap_or(self.code);
            leg.kind = span::SpanKind::Client as i32;
            leg.attributes.extend(self.status(code));
            leg.attributes.push(text("kopuro.hop", hop.to));
            if let Some((host, port)) = hop.address.rsplit_once(':') {
                leg.attributes.push(text("server.address", host));
                let port = port.parse().map(any_value::Value::IntValue);
                leg.attributes.extend(port.map(|port| super::attribute("server.port", port)));
            }
            leg.status = (code != 0).then(error);
            leg
        });
        std::iter::once(own).chain(hop)
    }

    /// With what both have.
    fn span(
        &self,
        now: (Instant, SystemTime),
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        began: Instant,
        ended: Instant,
    ) -> Span {
        let (name, service) = match &self.method {
            Some((service, method)) => (format!("{service}/{method}"), Some(text("rpc.service", service))),
            // What a caller makes up is no name.
            None => ("_OTHER".to_owned(), None),
        };
        let mut attributes = vec![
            text("rpc.system.name", "grpc"),
            text("rpc.method", &name),
            text("kopuro.exchange_id", self.exchange.to_string()),
            text("kopuro.consumer", &self.consumer),
        ];
        attributes.extend(service);
        if !self.provider.is_empty() {
            attributes.push(text("kopuro.provider", &self.provider));
        }
        Span {
            trace_id: self.trace.trace_id.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            flags: u32::from(self.trace.flags)
                | IS_REMOTE_KNOWN
                | if parent.is_some() && parent == self.trace.parent { IS_REMOTE } else { 0 },
            name,
            start_time_unix_nano: unix_nanos(now, began),
            end_time_unix_nano: unix_nanos(now, ended),
            attributes,
            ..Span::default()
        }
    }

    fn status(&self, code: i32) -> impl Iterator<Item = KeyValue> {
        let name = name_of(code);
        let error = (code != 0).then(|| text("error.type", self.reason.as_deref().unwrap_or(name)));
        std::iter::once(text("rpc.response.status_code", name)).chain(error)
    }
}

fn error() -> Status {
    Status { code: status::StatusCode::Error as i32, ..Status::default() }
}

/// Those of gRPC's statuses that say that the server did not do what it should.
fn is_servers_error(code: i32) -> bool {
    matches!(
        Code::from_i32(code),
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn name_of(code: i32) -> &'static str {
    match Code::from_i32(code) {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A moment of the monotonic clock by the other one, as both are now.
fn unix_nanos((instant, system): (Instant, SystemTime), at: Instant) -> u64 {
    let then = system.checked_sub(instant.saturating_duration_since(at)).unwrap_or(system);
    then.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
