//! Sending a call to the next hop and reading its answer, alike for a peer's node and a back-end: collected where the method
//! answers with one message, left streaming where it streams.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;
use uuid::Uuid;

use super::body::{Arriving, Budget, CollectError, Outgoing, Whole};
use super::exchange::{Ending, Exchange};
use super::framing::{FramingError, Meter, Totals};
use super::metadata;
use super::metered::Progress;
use super::proofs::{self, Shown};
use super::refusal::Refusal;
use super::typed::{Judge, JudgedStream, Withheld};
use super::upstream::{self, InFlight, Upstream, UpstreamError};
use crate::log::entry::{Outcome, Side};
use crate::trust::identity::{Identity, SystemId};

/// Frames that a stream's follower may be ahead of its reader.
const FRAMES_AHEAD: usize = 8;

/// Between nodes: nothing of the call passed.
const REFUSED: &str = "refused";
/// Between nodes: it came to no answer.
pub(super) const FAILED: &str = "failed";

/// Where a call goes, for messages.
#[derive(Debug, Clone)]
pub(super) enum Hop {
    /// Another member's node.
    Peer(SystemId),
    /// The provider's own system.
    Backend(SystemId),
}

/// The bounds of one call.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) deadline: Instant,
    pub(super) message: u32,
    pub(super) idle: Duration,
    pub(super) budget: Budget,
}

/// What came back.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once a call and taken apart at once: a box would cost more")]
pub(super) enum Answered {
    /// All of it.
    Whole { head: Parts, whole: Whole, totals: Totals, trailers: HeaderMap, in_head: bool },
    /// Its head; the rest streams.
    Stream { head: Parts, body: Arriving, in_flight: Option<InFlight> },
}

/// What was sent: known whole, or still on its way.
#[derive(Debug)]
pub(super) enum Sent {
    Whole(Totals),
    Stream(Arc<Progress>),
}

impl Sent {
    pub(super) fn totals_now(&self) -> Option<Totals> {
        match self {
            Self::Whole(totals) => Some(*totals),
            Self::Stream(_) => None,
        }
    }

    pub(super) fn totals(&self) -> Totals {
        match self {
            Self::Whole(totals) => *totals,
            Self::Stream(progress) => progress.totals(),
        }
    }

    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(progress) => Some(progress),
        }
    }
}

impl Hop {
    fn name(&self) -> String {
        match self {
            Self::Peer(system) => format!("the node of {}", system.member()),
            Self::Backend(system) => system.to_string(),
        }
    }

    fn refusal(&self, error: &UpstreamError) -> Refusal {
        match (self, error) {
            (Self::Peer(system), UpstreamError::Unreachable(why)) => Refusal::peer_unreachable(system.member(), why),
            (Self::Backend(system), UpstreamError::Unreachable(why)) => Refusal::backend_unreachable(system, why),
            (_, UpstreamError::Broken { code, message }) => Refusal::broken_off(self.name(), *code, message),
        }
    }
}

/// Sends over the network. What the request's own stream did wrong is told before what the other end made of it.
pub(super) async fn send(
    upstream: &Arc<Upstream>,
    hop: &Hop,
    request: Request<Outgoing>,
    bounds: &Bounds,
    progress: Option<&Arc<Progress>>,
) -> Result<(http::Response<Arriving>, Option<InFlight>), Refusal> {
    match within(bounds, progress, pin!(upstream.send(request))).await? {
        Ok((response, in_flight)) => Ok((response.map(Arriving::Wire), Some(in_flight))),
        Err(error) => Err(progress.and_then(|p| p.failure()).cloned().unwrap_or_else(|| hop.refusal(&error))),
    }
}

/// Reads an answer as far as its method allows before the closing entry.
pub(super) async fn receive(
    response: http::Response<Arriving>,
    in_flight: Option<InFlight>,
    hop: &Hop,
    streaming: bool,
    bounds: &Bounds,
    progress: Option<&Arc<Progress>>,
) -> Result<Answered, Refusal> {
    let (head, body) = response.into_parts();
    check_head(&head, hop)?;
    let in_head = head.headers.contains_key(metadata::STATUS);
    if streaming && !in_head {
        return Ok(Answered::Stream { head, body, in_flight });
    }
    let collecting = pin!(Whole::collect(body, bounds.message, &bounds.budget));
    let (whole, totals, trailers) = within(bounds, progress, collecting)
        .await?
        .map_err(|error| progress.and_then(|p| p.failure()).cloned().unwrap_or_else(|| collect_refusal(error, hop)))?;
    let trailers = if in_head { head.headers.clone() } else { trailers.unwrap_or_default() };
    let code = status_of(&trailers).ok_or_else(|| Refusal::not_grpc(hop.name(), "no grpc-status", Code::Unknown))?;
    if code == 0 && totals.messages != 1 && !streaming {
        return Err(Refusal::framing(FramingError::Count(totals.messages), "response"));
    }
    Ok(Answered::Whole { head, whole, totals, trailers, in_head })
}

/// Follows a streamed answer to its end: frames go to the reader as they come, the closing entry is durable before the trailers
/// go. Ends early when the reader is gone, the deadline passes, or nothing moves for too long.
pub(super) async fn follow(
    mut body: Arriving,
    reader: mpsc::Sender<Frame<Bytes>>,
    mut exchange: Exchange,
    mut judged: JudgedStream,
    hop: Hop,
    bounds: Bounds,
    request: Sent,
) {
    let mut meter = Meter::new(bounds.message);
    let carried = carry(&mut body, &reader, &mut exchange, &mut judged, &mut meter, &hop, &bounds, request.progress());
    let mut trailers = match carried.await {
        Ok(trailers) => trailers,
        Err(refusal) => {
            exchange.set_request(request.totals());
            finish_failed(&mut exchange, &refusal, &reader, &bounds).await;
            return;
        }
    };
    if let (Side::Consumer, Some(log)) = (exchange.side(), exchange.peer_log.clone()) {
        let request = (&request.totals(), request.progress().is_some());
        let (proof, totals) = (proofs::take(&mut trailers), meter.totals());
        match proofs::closing(&log, proof.as_ref(), &trailers, &mut exchange, request, (&totals, true)) {
            Ok(Shown::Logged) => {}
            Ok(Shown::NoLog) => trailers = no_log(log.node(), &trailers),
            Err(refusal) => {
                exchange.set_request(*request.0);
                finish_failed(&mut exchange, &refusal, &reader, &bounds).await;
                return;
            }
        }
    }
    let ending = ending_of(&trailers, request.totals(), Some(meter.totals()), exchange.side());
    let withheld = withheld(&exchange, &judged.judge, &trailers);
    metadata::strip_response(&mut trailers);
    withheld.tell(&mut trailers);
    let trailers = match exchange.close(ending).await {
        Ok(proof) => {
            proofs::put(&mut trailers, proof);
            trailers
        }
        Err(refusal) => told(&exchange, &refusal, FAILED, None),
    };
    let _ = tokio::time::timeout_at(bounds.deadline, reader.send(Frame::trailers(trailers))).await;
}

/// The channel between a stream's follower and its reader.
pub(super) fn frames() -> (mpsc::Sender<Frame<Bytes>>, mpsc::Receiver<Frame<Bytes>>) {
    mpsc::channel(FRAMES_AHEAD)
}

/// What the caller is told of fields that were withheld: at the provider's node as it judged, at the consumer's as it was told.
pub(super) fn withheld(exchange: &Exchange, judge: &Judge, trailers: &HeaderMap) -> Withheld {
    let withheld = match exchange.side() {
        Side::Provider => judge.withheld(),
        _ => Withheld::told(trailers),
    };
    exchange.tell_withheld(&withheld);
    withheld
}

#[expect(clippy::too_many_arguments, reason = "one stream's parts, each of its caller's own")]
async fn carry(
    body: &mut Arriving,
    reader: &mpsc::Sender<Frame<Bytes>>,
    exchange: &mut Exchange,
    judged: &mut JudgedStream,
    meter: &mut Meter,
    hop: &Hop,
    bounds: &Bounds,
    progress: Option<&Arc<Progress>>,
) -> Result<HeaderMap, Refusal> {
    let mut moved = Moved::now();
    let alarm = tokio::time::sleep_until(moved.alarm(bounds));
    tokio::pin!(alarm);
    // At the provider's node a back-end's bytes are metered as they came, for the framing; what crosses is metered as it leaves.
    let mut incoming = Meter::new(bounds.message);
    loop {
        // Room first, then the next frame: a slow reader slows its writer.
        let room = loop {
            tokio::select! {
                room = reader.reserve() => break room.map_err(|_| Refusal::cancelled())?,
                () = &mut alarm => alarm.as_mut().reset(moved.next_alarm(bounds, progress)?),
            }
        };
        if let Some(data) = judged.pop() {
            meter.push(&data).map_err(|e| Refusal::framing(e, "response"))?;
            room.send(Frame::data(data));
            continue;
        }
        let frame = loop {
            tokio::select! {
                frame = body.frame() => break frame,
                () = reader.closed() => return Err(Refusal::cancelled()),
                () = &mut alarm => alarm.as_mut().reset(moved.next_alarm(bounds, progress)?),
            }
        };
        moved.at = Instant::now();
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let error = match error.downcast::<Refusal>() {
                    Ok(refusal) => return Err(*refusal),
                    Err(error) => error,
                };
                let code = upstream::code_of(error.as_ref());
                return Err(progress
                    .and_then(|p| p.failure())
                    .cloned()
                    .unwrap_or_else(|| Refusal::broken_off(hop.name(), code, upstream::root_cause(error.as_ref()))));
            }
            None => {
                return Err(Refusal::not_grpc(hop.name(), "the stream ended without a grpc-status", Code::Internal));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                incoming.push(&data).map_err(|e| Refusal::framing(e, "response"))?;
                judged.push(data)?;
                exchange.record_gathered().await?;
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if status_of(&trailers).is_none() {
                    return Err(Refusal::not_grpc(hop.name(), "trailers without a grpc-status", Code::Internal));
                }
                incoming.finish().map_err(|e| Refusal::framing(e, "response"))?;
                return Ok(trailers);
            }
        }
    }
}

/// Waits for the next hop until the deadline, and on a stream only while something moves. Borrows what it waits for: taken by value
/// it would be held twice, in every call.
async fn within<T>(
    bounds: &Bounds,
    progress: Option<&Arc<Progress>>,
    mut next_hop: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Refusal> {
    let mut moved = Moved::now();
    let mut alarm = moved.alarm(bounds);
    loop {
        match tokio::time::timeout_at(alarm, next_hop.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) => alarm = moved.next_alarm(bounds, progress)?,
        }
    }
}

/// When something last moved, in either direction.
struct Moved {
    at: Instant,
    request_bytes: u64,
}

impl Moved {
    fn now() -> Self {
        Self { at: Instant::now(), request_bytes: 0 }
    }

    fn alarm(&self, bounds: &Bounds) -> Instant {
        bounds.deadline.min(self.at + bounds.idle)
    }

    fn next_alarm(&mut self, bounds: &Bounds, progress: Option<&Arc<Progress>>) -> Result<Instant, Refusal> {
        let now = Instant::now();
        if now >= bounds.deadline {
            return Err(Refusal::deadline());
        }
        if let Some(bytes) = progress.map(|p| p.bytes()).filter(|bytes| *bytes != self.request_bytes) {
            *self = Self { at: now, request_bytes: bytes };
        }
        if self.at + bounds.idle <= now { Err(Refusal::idle(bounds.idle)) } else { Ok(self.alarm(bounds)) }
    }
}

async fn finish_failed(
    exchange: &mut Exchange,
    refusal: &Refusal,
    reader: &mpsc::Sender<Frame<Bytes>>,
    bounds: &Bounds,
) {
    let trailers = refused(exchange, refusal).await;
    // A reader that is there takes the trailers at once; one that stalls has until the deadline, or a moment past it.
    let limit = bounds.deadline.max(Instant::now() + Duration::from_secs(1));
    let _ = tokio::time::timeout_at(limit, reader.send(Frame::trailers(trailers))).await;
}

/// Records why an exchange came to nothing; the trailers that tell its caller, once that is durable.
pub(super) async fn refused(exchange: &mut Exchange, refusal: &Refusal) -> HeaderMap {
    let word = if exchange.is_open() { FAILED } else { REFUSED };
    match exchange.end(refusal).await {
        Ok(proof) => told(exchange, refusal, word, proof),
        Err(log) => told(exchange, &log, word, None),
    }
}

/// In the place of what a provider's node says that cannot write its log, and so cannot show that it said it.
pub(super) fn no_log(node: &Identity, said: &HeaderMap) -> HeaderMap {
    let refusal = Refusal::log_unavailable(format!("so says {node}"));
    let mut trailers = refusal.to_trailers(Side::Provider);
    let refused = said.get(metadata::REFUSED).is_some_and(|said| said.as_bytes().starts_with(REFUSED.as_bytes()));
    let word = if refused { REFUSED } else { FAILED };
    metadata::put(&mut trailers, metadata::REFUSED, &format!("{word} {}", refusal.reason));
    trailers
}

/// The trailers that tell a caller of this node's own refusal or failure; the other node hears which of the two it is.
pub(super) fn told(exchange: &Exchange, refusal: &Refusal, word: &str, proof: Option<HeaderValue>) -> HeaderMap {
    let mut trailers = refusal.to_trailers(exchange.side());
    mark(&mut trailers, exchange);
    proofs::put(&mut trailers, proof);
    if exchange.side() == Side::Provider {
        metadata::put(&mut trailers, metadata::REFUSED, &format!("{word} {}", refusal.reason));
    }
    trailers
}

/// How an answer with these trailers ends the exchange.
pub(super) fn ending_of(trailers: &HeaderMap, request: Totals, response: Option<Totals>, side: Side) -> Ending {
    let code = status_of(trailers).unwrap_or(Code::Unknown as i32);
    // Only the consumer's node hears this word, from the provider's; from a back-end it was stripped or means nothing.
    let said =
        if side == Side::Consumer { trailers.get(metadata::REFUSED).and_then(|v| v.to_str().ok()) } else { None };
    let (outcome, reason) = match said.and_then(|said| said.split_once(' ')) {
        Some((REFUSED, reason)) => (Outcome::Refused, Some((reason.to_owned(), Side::Provider))),
        Some((_, reason)) => (Outcome::Failed, Some((reason.to_owned(), Side::Provider))),
        None if code == 0 => (Outcome::Ok, None),
        None => (Outcome::Error, None),
    };
    Ending { outcome, code, reason, request, response }
}

/// Writes into an answer's metadata what the next hop is told of the exchange.
pub(super) fn mark(headers: &mut HeaderMap, exchange: &Exchange) {
    let mut text = Uuid::encode_buffer();
    metadata::put_once(headers, metadata::EXCHANGE, exchange.id.hyphenated().encode_lower(&mut text));
    if !exchange.legal_basis.is_empty() {
        metadata::put(headers, metadata::PURPOSE, &exchange.legal_basis);
    }
    if exchange.side() == Side::Provider {
        metadata::put(headers, metadata::PUBLICATION, &exchange.class.to_string());
    }
}

fn check_head(head: &Parts, hop: &Hop) -> Result<(), Refusal> {
    if head.status != StatusCode::OK {
        // The gRPC protocol's table of HTTP statuses.
        let code = match head.status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        return Err(Refusal::not_grpc(hop.name(), format!("HTTP status {}", head.status.as_u16()), code));
    }
    let grpc = head.headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        Ok(())
    } else {
        Err(Refusal::not_grpc(hop.name(), "its content-type is not application/grpc", Code::Unknown))
    }
}

pub(super) fn collect_refusal(error: CollectError, hop: &Hop) -> Refusal {
    match error {
        CollectError::Framing(error) => Refusal::framing(error, "response"),
        CollectError::Broken(error) => {
            Refusal::broken_off(hop.name(), upstream::code_of(error.as_ref()), upstream::root_cause(error.as_ref()))
        }
        CollectError::Budget => Refusal::overloaded("bytes held in messages"),
    }
}

pub(super) fn status_of(trailers: &HeaderMap) -> Option<i32> {
    trailers.get(metadata::STATUS)?.to_str().ok()?.parse().ok()
}
