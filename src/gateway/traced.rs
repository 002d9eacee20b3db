//! An exchange as a trace has it: beside its record, and without any part in it.

use std::time::Instant;

use http::HeaderMap;
use tonic::Code;

use super::Gateway;
use super::exchange::{Ending, Exchange};
use crate::log::entry::Side;
use crate::telemetry::otlp::{Exchanged, HopTaken, Spans};
use crate::telemetry::trace::Trace;

/// What is to be told of it, if anybody traces it.
#[derive(Default)]
pub(super) struct Traced {
    /// Its place in a trace, if it is in one.
    trace: Option<Trace>,
    /// Where that trace is recorded, if it is.
    spans: Option<Spans>,
    hop: Option<HopTaken>,
    ended: Option<(&'static str, i32, Option<String>)>,
    /// Service and method are such as there are, and not only what the caller says.
    pub(super) is_known: bool,
}

impl Traced {
    pub(super) fn new(gateway: &Gateway, trace: Option<Trace>) -> Self {
        let spans = trace.filter(Trace::is_sampled).and_then(|_| gateway.spans.clone());
        Self { trace, spans, ..Self::default() }
    }

    /// Tells the next hop.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.put(headers);
        }
    }

    /// The request leaves for the next hop.
    pub(super) fn leaves(&mut self, to: &'static str, address: &str) {
        if self.spans.is_some() {
            let address = address.to_owned();
            self.hop = Some(HopTaken { to, address, began: Instant::now(), ended: None, code: None });
        }
    }

    /// The whole answer of the next hop is there.
    pub(super) fn answered(&mut self, code: Option<i32>) {
        if let Some(hop) = &mut self.hop {
            (hop.ended, hop.code) = (Some(Instant::now()), code);
        }
    }

    /// How the exchange ended; what follows until its answer has gone belongs to it.
    pub(super) fn ends(&mut self, outcome: &'static str, ending: &Ending) {
        if self.spans.is_some() {
            self.ended = Some((outcome, ending.code, ending.reason.as_ref().map(|(reason, _)| reason.clone())));
        }
    }

    /// Tells whoever records the trace.
    pub(super) fn tell(self, exchange: &Exchange, began: Instant) {
        let (Some(spans), Some(trace)) = (self.spans, self.trace) else { return };
        // One that is dropped before anything is recorded of it had no end of its own.
        let (outcome, code, reason) = self.ended.unwrap_or(("cancelled", Code::Cancelled as i32, None));
        spans.ended(Exchanged {
            trace,
            exchange: exchange.id,
            as_provider: exchange.side() == Side::Provider,
            consumer: exchange.consumer.clone(),
            provider: exchange.provider.clone(),
            method: self.is_known.then(|| (exchange.service.clone(), exchange.method.clone())),
            outcome,
            code,
            reason,
            began,
            ended: Instant::now(),
            hop: self.hop,
        });
    }
}
