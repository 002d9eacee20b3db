//! One node's leg of an exchange, once it is authorised: record, forward, record, answer. The consumer's node and the provider's
//! walk the same steps; they differ in where the next hop is and in what they tell it.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::Gateway;
use super::body::{Answer, Arriving, CollectError, Outgoing, Whole};
use super::exchange::Exchange;
use super::forward::{self, Answered, Bounds, Hop, Sent};
use super::framing::{FramingError, Meter, Totals};
use super::http_json::HttpJson;
use super::metadata::{self, CallMetadata};
use super::metered::{End, MeteredRequest};
use super::proofs::{self, Shown, Told};
use super::provider;
use super::refusal::Refusal;
use super::typed::{ENCODINGS, Judge, JudgedStream, Types, Withheld};
use super::upstream::Upstream;
use super::view::View;
use crate::log::entry::Side;
use crate::log::entry_proof::Proven;
use crate::log::further::Direction;
use crate::schema::Method;
use crate::telemetry::metrics::Stage;
use crate::trust::identity::SystemId;

/// A call that authorisation has let pass or not, and nothing has been recorded of.
pub(super) struct Begun {
    outcome: Result<Box<Leg>, Box<(Exchange, Refusal)>>,
    parts: Parts,
    body: Arriving,
    span: Span,
}

impl Begun {
    pub(super) fn new(
        exchange: Exchange,
        authorised: Result<Plan, Refusal>,
        parts: Parts,
        body: Arriving,
        span: Span,
    ) -> Self {
        let outcome = match authorised {
            Ok(plan) => Ok(Box::new(Leg { exchange, plan })),
            Err(refusal) => Err(Box::new((exchange, refusal))),
        };
        Self { outcome, parts, body, span }
    }

    /// Carries it to its end, or refuses it.
    pub(super) async fn carry(self, gateway: &Arc<Gateway>) -> Response<Answer> {
        let Self { outcome, parts, body, span } = self;
        match outcome {
            Ok(leg) => leg.run(gateway, parts, body).instrument(span).await,
            Err(refused) => {
                // Boxed: a future is as large as its largest part, and is moved as it nests.
                let (exchange, refusal) = *refused;
                Box::pin(refuse(exchange, &refusal).instrument(span)).await
            }
        }
    }
}

/// An authorised call at one node.
struct Leg {
    exchange: Exchange,
    plan: Plan,
}

/// What authorisation found out.
pub(super) struct Plan {
    pub(super) consumer: SystemId,
    pub(super) provider: SystemId,
    pub(super) method: Arc<Method>,
    pub(super) call: CallMetadata,
    /// By what the messages are judged.
    pub(super) types: Types,
    pub(super) next: Next,
    pub(super) bounds: Bounds,
    /// One of the exchanges that may be in flight; none where this node's other half holds it.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// What another node has shown of the request that it sent.
    pub(super) proven: Option<Proven>,
}

/// The next hop.
pub(super) enum Next {
    /// Over a connection.
    Remote(Arc<Upstream>, Hop),
    /// A back-end that speaks HTTP and JSON.
    HttpJson(Arc<HttpJson>, Hop),
    /// Both systems are this member's: this node's own other half.
    Local(Arc<View>),
}

impl Next {
    /// As a trace has it: what it is, and its address where anything leaves the node.
    fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Remote(upstream, Hop::Peer(_)) => ("peer", upstream.address()),
            Self::Remote(upstream, Hop::Backend(_)) => ("backend", upstream.address()),
            Self::HttpJson(backend, _) => ("backend", backend.address()),
            Self::Local(_) => ("local", ""),
        }
    }
}

impl Leg {
    /// Carries the call to its end, or to where its answer streams.
    async fn run(mut self: Box<Self>, gateway: &Arc<Gateway>, parts: Parts, body: Arriving) -> Response<Answer> {
        match self.carry(gateway, parts, body).await {
            Ok((Answered::Whole { head, whole, totals, trailers, in_head }, request, _)) => {
                match self.judged(gateway, &head.headers, whole, totals) {
                    Ok((whole, totals, judge)) => {
                        let withheld = forward::withheld(&self.exchange, &judge, &trailers);
                        let answer = Finished { whole, totals, trailers, in_head, withheld };
                        self.finish(head.headers, answer, request).await
                    }
                    Err(refusal) => {
                        self.exchange.set_request(request.totals());
                        Box::pin(refuse(self.exchange, &refusal)).await
                    }
                }
            }
            Ok((Answered::Stream { head, body, in_flight }, request, opening)) => {
                let mut headers = head.headers;
                let judged = JudgedStream::new(self.judge(Direction::Response, &headers), &self.plan.bounds.budget);
                self.learn(&headers);
                metadata::strip_response(&mut headers);
                forward::mark(&mut headers, &self.exchange);
                if self.exchange.side() == Side::Provider {
                    proofs::put(&mut headers, opening);
                }
                let (sender, receiver) = forward::frames();
                let Self { exchange, plan: Plan { next, bounds, provider, permit, .. } } = *self;
                let hop = hop_of(&next, &provider);
                let following = async move {
                    forward::follow(body, sender, exchange, judged, hop, bounds, request).await;
                    drop((in_flight, permit));
                };
                tokio::spawn(following.in_current_span());
                respond(headers, Answer::Stream(receiver))
            }
            Err(refusal) => Box::pin(refuse(self.exchange, &refusal)).await,
        }
    }

    async fn carry(
        &mut self,
        gateway: &Arc<Gateway>,
        mut parts: Parts,
        body: Arriving,
    ) -> Result<(Answered, Sent, Option<HeaderValue>), Refusal> {
        let Plan { method, bounds, .. } = &self.plan;
        let mut judge = self.judge(Direction::Request, &parts.headers);
        let (outgoing, sent) = if method.client_streaming {
            let judged = JudgedStream::new(judge, &bounds.budget);
            let recorder = self.exchange.gathering_recorder();
            let end = end_of_stream(&mut self.exchange);
            let (body, progress) = MeteredRequest::new(body, bounds.message, judged, recorder, end);
            (Outgoing::Stream(Box::new(body)), Sent::Stream(progress))
        } else {
            let began = Instant::now();
            let (mut whole, totals) = collect_request(body, gateway, bounds).await?;
            let collected = Instant::now();
            gateway.metrics.stage(Stage::Accept, collected - began);
            if let (Some(log), Some(proven)) = (&self.exchange.peer_log, &self.plan.proven) {
                proofs::payload(log, proven, &totals)?;
            }
            if let Some(changed) = judge.whole(&whole, &bounds.budget)? {
                whole = changed;
            }
            gateway.metrics.stage(Stage::Check, collected.elapsed());
            (Outgoing::Whole(whole), Sent::Whole(totals))
        };
        let opening = self.exchange.open(sent.totals_now()).await?;
        if self.plan.method.client_streaming || self.plan.method.server_streaming {
            self.exchange.streams();
        }

        if self.plan.call.subject.is_none() {
            self.plan.call.subject = self.exchange.first_subject();
        }
        let plan = &self.plan;
        metadata::strip_request(&mut parts.headers);
        let accepted = accepted(&parts.headers);
        parts.headers.insert(metadata::ACCEPT_ENCODING, accepted);
        self.tell(&mut parts.headers);
        let opening = match &plan.next {
            Next::Remote(_, Hop::Peer(_)) => {
                proofs::put(&mut parts.headers, opening);
                None
            }
            _ => opening,
        };
        let began = Instant::now();
        let left = plan.bounds.deadline.saturating_duration_since(began);
        if left.is_zero() {
            return Err(Refusal::deadline());
        }
        metadata::put_timeout(&mut parts.headers, left);

        let progress = sent.progress();
        let (to, address) = plan.next.told();
        self.exchange.traced.leaves(to, address);
        let hop = hop_of(&plan.next, &plan.provider);
        let (response, in_flight) = match &plan.next {
            Next::Remote(upstream, hop) => {
                let request = Request::from_parts(parts, outgoing);
                forward::send(upstream, hop, request, &plan.bounds, progress).await?
            }
            Next::HttpJson(backend, _) => {
                let request = Request::from_parts(parts, outgoing);
                // Boxed, as what follows: few calls go that way, and each would have room for it.
                (Box::pin(backend.call(&plan.method, request, &plan.bounds)).await?, None)
            }
            Next::Local(view) => {
                let request = Request::from_parts(parts, Arriving::Request(Box::new(outgoing)));
                let answer = Box::pin(provider::provide_locally(gateway, view, request).carry(gateway));
                match tokio::time::timeout_at(plan.bounds.deadline, answer).await {
                    Ok(response) => (response.map(|answer| Arriving::Answer(Box::new(answer))), None),
                    Err(_) => return Err(Refusal::deadline()),
                }
            }
        };
        let stage = match &hop {
            Hop::Peer(_) => Stage::Peer,
            Hop::Backend(_) => Stage::Backend,
        };
        gateway.metrics.stage(stage, began.elapsed());
        let answered =
            forward::receive(response, in_flight, &hop, plan.method.server_streaming, &plan.bounds, progress).await?;
        if let Answered::Whole { trailers, .. } = &answered {
            self.exchange.traced.answered(forward::status_of(trailers));
        }
        Ok((self.shown(answered, &sent)?, sent, opening))
    }

    /// Who judges the messages of one direction, which come with these headers.
    fn judge(&self, direction: Direction, headers: &HeaderMap) -> Judge {
        let claimed = self.plan.call.subject.clone().filter(|_| direction == Direction::Request);
        let Plan { types, bounds, .. } = &self.plan;
        Judge::new(types, direction, headers, bounds.message, self.exchange.gathering(), claimed)
    }

    /// What of a whole answer goes on: at the provider's node what the grant allows, metered as it crosses.
    fn judged(
        &self,
        gateway: &Gateway,
        headers: &HeaderMap,
        whole: Whole,
        totals: Totals,
    ) -> Result<(Whole, Totals, Judge), Refusal> {
        let mut judge = self.judge(Direction::Response, headers);
        let began = Instant::now();
        let changed = judge.whole(&whole, &self.plan.bounds.budget)?;
        gateway.metrics.stage(Stage::Check, began.elapsed());
        let Some(changed) = changed else { return Ok((whole, totals, judge)) };
        let mut meter = Meter::new(self.plan.bounds.message);
        let framed = meter.push(&changed.joined()).and_then(|()| meter.finish());
        let totals = framed.map_err(|error| Refusal::framing(error, "response"))?;
        Ok((changed, totals, judge))
    }

    /// What another node answered, once it has shown that it has logged it.
    fn shown(&mut self, mut answered: Answered, sent: &Sent) -> Result<Answered, Refusal> {
        let log = match (&self.exchange.peer_log, self.exchange.side()) {
            (Some(log), Side::Consumer) => log.clone(),
            _ => return Ok(answered),
        };
        match &mut answered {
            Answered::Stream { head, .. } => proofs::received(&log, &head.headers, &mut self.exchange)?,
            Answered::Whole { head, whole, totals, trailers, in_head } => {
                let streamed = matches!(sent, Sent::Stream(_));
                let request = (&sent.totals(), streamed);
                let proof = head.headers.get(proofs::PROOF);
                if proofs::closing(&log, proof, trailers, &mut self.exchange, request, (totals, false))? == Shown::NoLog
                {
                    *trailers = forward::no_log(log.node(), trailers);
                    (head.headers, *in_head) = (trailers.clone(), true);
                    (*whole, *totals) = (Whole::default(), Totals::default());
                }
            }
        }
        Ok(answered)
    }

    /// A whole answer: the closing entry first, then the answer leaves.
    async fn finish(mut self: Box<Self>, mut headers: HeaderMap, answer: Finished, request: Sent) -> Response<Answer> {
        let Finished { whole, totals, mut trailers, in_head, withheld } = answer;
        self.learn(&headers);
        let ending = forward::ending_of(&trailers, request.totals(), Some(totals), self.exchange.side());
        let proof = match self.exchange.close(ending).await {
            Ok(proof) => proof,
            Err(refusal) => {
                let trailers = forward::told(&self.exchange, &refusal, forward::FAILED, None);
                return respond(trailers, Answer::Whole(Whole::default(), None));
            }
        };
        metadata::strip_response(&mut headers);
        forward::mark(&mut headers, &self.exchange);
        proofs::put(&mut headers, proof);
        if in_head {
            return respond(headers, Answer::Whole(whole, None));
        }
        metadata::strip_response(&mut trailers);
        withheld.tell(&mut trailers);
        respond(headers, Answer::Whole(whole, Some(trailers)))
    }

    /// What the next hop is told besides what the caller said.
    fn tell(&self, headers: &mut HeaderMap) {
        let Plan { consumer, provider, call, .. } = &self.plan;
        forward::mark(headers, &self.exchange);
        self.exchange.traced.put(headers);
        headers.remove(metadata::PUBLICATION);
        if self.exchange.side() == Side::Consumer {
            metadata::put(headers, metadata::PUBLICATION, &self.exchange.class.to_string());
        }
        metadata::put(headers, metadata::CONSUMER, consumer.as_str());
        metadata::put(headers, metadata::PROVIDER, provider.as_str());
        let said = [(metadata::USER, &call.user), (metadata::SUBJECT, &call.subject), (metadata::CASE, &call.case)];
        for (name, value) in said {
            if let Some(value) = value {
                metadata::put_once(headers, name, value);
            }
        }
        if self.exchange.side() == Side::Consumer
            && let Some(purpose) = &call.purpose
        {
            metadata::put(headers, metadata::PURPOSE, purpose);
        }
    }

    /// The consumer's node learns from the provider's which legal basis and publication class held.
    fn learn(&mut self, headers: &HeaderMap) {
        if self.exchange.side() != Side::Consumer {
            return;
        }
        if let Some(basis) = headers.get(metadata::PURPOSE).and_then(|v| v.to_str().ok()) {
            basis.clone_into(&mut self.exchange.legal_basis);
        }
        if let Some(class) = headers.get(metadata::PUBLICATION).and_then(|v| v.to_str().ok()?.parse().ok()) {
            self.exchange.class = self.exchange.class.stricter(class);
        }
    }
}

/// A whole answer that may be given.
struct Finished {
    whole: Whole,
    totals: Totals,
    trailers: HeaderMap,
    in_head: bool,
    withheld: Withheld,
}

/// Answers a call that is not carried, once the entry that says why is durable.
async fn refuse(mut exchange: Exchange, refusal: &Refusal) -> Response<Answer> {
    let trailers = forward::refused(&mut exchange, refusal).await;
    respond(trailers, Answer::Whole(Whole::default(), None))
}

/// A gRPC response; with a status among its headers it is trailers-only.
pub(super) fn respond(headers: HeaderMap, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
    response
}

async fn collect_request(body: Arriving, gateway: &Gateway, bounds: &Bounds) -> Result<(Whole, Totals), Refusal> {
    let limit = bounds.deadline.min(Instant::now() + gateway.limits.request_body_timeout);
    let collected = tokio::time::timeout_at(limit, Whole::collect(body, bounds.message, &bounds.budget)).await;
    match collected {
        Err(_) => Err(Refusal::deadline()),
        Ok(Err(CollectError::Framing(error))) => Err(Refusal::framing(error, "request")),
        Ok(Err(CollectError::Broken(error))) => Err(Refusal::of_request(error)),
        Ok(Err(CollectError::Budget)) => Err(Refusal::overloaded("bytes held in messages")),
        Ok(Ok((_, totals, _))) if totals.messages != 1 => {
            Err(Refusal::framing(FramingError::Count(totals.messages), "request"))
        }
        Ok(Ok((whole, totals, _))) => Ok((whole, totals)),
    }
}

/// What follows the last message of a streamed request.
fn end_of_stream(exchange: &mut Exchange) -> End {
    match (exchange.side(), exchange.to_peer, exchange.peer_log.clone()) {
        (Side::Consumer, true, _) => End::Prove(exchange.completed()),
        (Side::Provider, true, Some(log)) => {
            let told = Told::by(exchange);
            End::Check(Box::new(move |trailers, totals| proofs::completed(&log, trailers, &told, totals)))
        }
        _ => End::Plain,
    }
}

fn hop_of(next: &Next, provider: &SystemId) -> Hop {
    match next {
        Next::Remote(_, hop) | Next::HttpJson(_, hop) => hop.clone(),
        Next::Local(_) => Hop::Peer(provider.clone()),
    }
}

/// Of the encodings that can be looked into ([`ENCODINGS`]), those that the caller takes: an answer that is not changed goes on as it
/// came.
fn accepted(headers: &HeaderMap) -> HeaderValue {
    let said = headers.get_all(metadata::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut deflate, mut gzip) = (false, false);
    for name in said.flat_map(|value| value.split(',')).map(str::trim) {
        deflate |= name == "deflate";
        gzip |= name == "gzip";
    }
    HeaderValue::from_static(match (deflate, gzip) {
        (true, true) => ENCODINGS,
        (true, false) => "identity,deflate",
        (false, true) => "identity,gzip",
        (false, false) => "identity",
    })
}
