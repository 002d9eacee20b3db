//! The consumer's side: a call of one of this member's systems, on its way out.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http::request::Parts;
use tokio::time::Instant;
use uuid::Uuid;

use super::Gateway;
use super::accept::Caller;
use super::body::Arriving;
use super::exchange::Exchange;
use super::forward::Hop;
use super::leg::{Begun, Next, Plan};
use super::metadata::{self, CallMetadata};
use super::refusal::Refusal;
use super::typed::Types;
use super::view::View;
use crate::log::entry::Side;
use crate::policy::Denial;
use crate::schema::Service;
use crate::telemetry::metrics::Stage;
use crate::telemetry::trace::Trace;
use crate::trust::identity::{Identity, SystemId};

/// Longest service or method name that is taken: protobuf names are far shorter, and an entry has to hold it.
const LONGEST_NAME: usize = 256;

/// Begins a call of a system.
pub(super) fn consume(gateway: &Arc<Gateway>, caller: &Caller, request: Request<Arriving>) -> Begun {
    let started = Instant::now();
    let view = gateway.view();
    let (mut parts, body) = request.into_parts();
    let trace = Trace::take(&mut parts.headers, gateway.sampling());
    let span = Trace::log_span(trace.as_ref());
    let mut exchange = Exchange::new(gateway, Side::Consumer, Uuid::now_v7(), address(caller.address), trace, started);
    caller.peer.identity.to_string().clone_into(&mut exchange.consumer);
    let authorised = span.in_scope(|| authorise(gateway, &view, caller, &mut parts, &mut exchange, started));
    gateway.metrics.stage(Stage::Check, started.elapsed());
    Begun::new(exchange, authorised, parts, body, span)
}

fn authorise(
    gateway: &Arc<Gateway>,
    view: &Arc<View>,
    caller: &Caller,
    parts: &mut Parts,
    exchange: &mut Exchange,
    started: Instant,
) -> Result<Plan, Refusal> {
    // What made a gRPC call of another protocol's request may have found that it cannot be one.
    let unfit = parts.extensions.remove::<Refusal>();
    let (service_name, method_name) = path(parts).map_err(|refusal| unfit.clone().unwrap_or(refusal))?;
    service_name.clone_into(&mut exchange.service);
    method_name.clone_into(&mut exchange.method);
    caller.check()?;
    let Identity::System(consumer) = &caller.peer.identity else {
        return Err(Refusal::wrong_listener(
            &caller.peer.identity,
            "this listener carries calls of the member's own systems",
        ));
    };
    if consumer.member() != &view.member {
        return Err(Refusal::wrong_listener(&caller.peer.identity, &format!("this is the node of {}", view.member)));
    }
    if !view.directory.has_system(consumer) {
        return Err(Refusal::not_in_directory(consumer));
    }
    unfit.map_or(Ok(()), Err)?;
    content_type(parts)?;
    let call = metadata::take_call(&mut parts.headers).map_err(|e| Refusal::metadata(&e))?;
    exchange.set_call(&call);
    let permit = gateway.admit(view)?;

    let service =
        view.catalogue.service(&exchange.service).ok_or_else(|| Refusal::service_unknown(&exchange.service))?;
    let provider = provider_of(service, &call)?;
    provider.as_str().clone_into(&mut exchange.provider);
    exchange.members = Some((consumer.member().clone(), provider.member().clone()));
    let method = view
        .catalogue
        .method_of(&provider, &exchange.service, &exchange.method)
        .ok_or_else(|| Refusal::method_unknown(&exchange.service, &exchange.method))?
        .clone();
    exchange.traced.is_known = true;

    let denied = |denial| Refusal::denied(&denial, consumer, service.name(), method.descriptor.name());
    gateway.callers.check(consumer).map_err(denied)?;
    let rule = view.outbound.decide(consumer, &provider, &exchange.service, &exchange.method).map_err(denied)?;
    let purpose = call.purpose.clone().or_else(|| rule.purpose.clone());
    purpose.clone().unwrap_or_default().clone_into(&mut exchange.legal_basis);
    if purpose.as_deref().is_some_and(|purpose| !method.is_for(purpose)) {
        return Err(denied(Denial::PurposeNotAllowed));
    }
    exchange.schema = Some(method.schema);
    let unusable = |error| Refusal::unusable(&exchange.service, &exchange.method, error);
    let plans = method.open_plans().map_err(unusable)?.clone();
    exchange.class = method.publication(rule.publication);

    let next = if provider.member() == &view.member {
        Next::Local(view.clone())
    } else {
        let peer = view.peer(provider.member()).ok_or_else(|| {
            Refusal::peer_unreachable(provider.member(), "the directory lists no node of this member")
        })?;
        exchange.to_peer = gateway.recorder.is_on();
        exchange.peer_log = exchange.to_peer.then(|| peer.log.clone());
        Next::Remote(peer.upstream.clone(), Hop::Peer(provider.clone()))
    };
    let bounds = gateway.bounds(&method, call.timeout, started);
    Ok(Plan {
        consumer: consumer.clone(),
        provider,
        types: Types { plans, name_withheld: false },
        method,
        call: CallMetadata { purpose, ..call },
        next,
        bounds,
        permit: Some(permit),
        proven: None,
    })
}

/// `/package.Service/Method`, split.
pub(super) fn path(parts: &Parts) -> Result<(&str, &str), Refusal> {
    let path = parts.uri.path();
    path.strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .filter(|(service, method)| {
            (1..=LONGEST_NAME).contains(&service.len())
                && (1..=LONGEST_NAME).contains(&method.len())
                && !method.contains('/')
        })
        .filter(|_| parts.method == http::Method::POST)
        .ok_or_else(|| Refusal::malformed("gRPC calls are POST requests to /package.Service/Method"))
}

/// gRPC's content type, in any of its sub-formats.
pub(super) fn content_type(parts: &Parts) -> Result<(), Refusal> {
    match parts.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes) {
        Some(value) if is_grpc(value) => Ok(()),
        _ => Err(Refusal::malformed("the content-type is not application/grpc")),
    }
}

fn is_grpc(value: &[u8]) -> bool {
    matches!(value.strip_prefix(b"application/grpc"), Some([] | [b'+' | b';', ..]))
}

fn provider_of(service: &Service, call: &CallMetadata) -> Result<SystemId, Refusal> {
    if let Some(provider) = &call.provider {
        return match service.offer(provider) {
            Some(offer) => Ok(offer.provider.clone()),
            None => Err(Refusal::provider_unknown(provider, service.name())),
        };
    }
    match service.offers() {
        [only] => Ok(only.provider.clone()),
        several => {
            let systems: Vec<&SystemId> = several.iter().map(|offer| &offer.provider).collect();
            Err(Refusal::provider_required(service.name(), &systems))
        }
    }
}

pub(super) fn address(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}
