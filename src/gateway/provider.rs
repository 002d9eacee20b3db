//! The provider's side: another node's call, or one from this node's own other half, on its way to a system of this member.

use std::sync::{Arc, PoisonError};

use http::Request;
use http::request::Parts;
use tokio::time::Instant;
use uuid::Uuid;

use super::Gateway;
use super::accept::Caller;
use super::body::Arriving;
use super::consumer::{address, content_type, path};
use super::exchange::{Exchange, unix_ms};
use super::forward::Hop;
use super::leg::{Begun, Plan};
use super::metadata::{self, NodeMetadata};
use super::proofs;
use super::recent::RecentError;
use super::refusal::Refusal;
use super::typed::Types;
use super::view::View;
use crate::log::entry::Side;
use crate::policy::Denial;
use crate::telemetry::metrics::Stage;
use crate::telemetry::trace::Trace;
use crate::trust::identity::Identity;

/// Begins a call of another member's node.
pub(super) fn provide(gateway: &Arc<Gateway>, caller: &Caller, request: Request<Arriving>) -> Begun {
    begin(gateway, &gateway.view(), Some(caller), request)
}

/// Begins a call that this node's consumer side has recorded.
pub(super) fn provide_locally(gateway: &Arc<Gateway>, view: &Arc<View>, request: Request<Arriving>) -> Begun {
    begin(gateway, view, None, request)
}

fn begin(gateway: &Arc<Gateway>, view: &Arc<View>, caller: Option<&Caller>, request: Request<Arriving>) -> Begun {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let trace = Trace::take(&mut parts.headers, gateway.sampling());
    let span = Trace::log_span(trace.as_ref());
    let from = caller.map_or_else(|| "local".to_owned(), |caller| address(caller.address));
    // Until the other node's id is known to be its to use, a refusal is recorded under one of our own.
    let mut exchange = Exchange::new(gateway, Side::Provider, Uuid::nil(), from, trace, started);
    if let Some(caller) = caller {
        exchange.consumer = caller.peer.identity.to_string();
        exchange.to_peer = gateway.recorder.is_on();
    }
    let authorised = span.in_scope(|| authorise(gateway, view, caller, &mut parts, &mut exchange, started));
    gateway.metrics.stage(Stage::Check, started.elapsed());
    Begun::new(exchange, authorised, parts, body, span)
}

fn authorise(
    gateway: &Arc<Gateway>,
    view: &Arc<View>,
    caller: Option<&Caller>,
    parts: &mut Parts,
    exchange: &mut Exchange,
    started: Instant,
) -> Result<Plan, Refusal> {
    let (service_name, method_name) = path(parts)?;
    service_name.clone_into(&mut exchange.service);
    method_name.clone_into(&mut exchange.method);
    if let Some(caller) = caller {
        caller.check()?;
        check_node(view, caller)?;
        exchange.peer_log = view.log_of(&caller.peer.identity).filter(|_| exchange.to_peer).cloned();
    }
    content_type(parts)?;
    let proof = proofs::take(&mut parts.headers);
    let (node, call) = metadata::take_node_call(&mut parts.headers).map_err(|e| Refusal::metadata(&e))?;
    if let Some(caller) = caller {
        check_consumer(caller, &node)?;
    }
    node.consumer.as_str().clone_into(&mut exchange.consumer);
    // Until the grant is known, at least as little is shown of the call as the consumer shows.
    exchange.class = node.publication;
    exchange.set_call(&call);
    if !view.directory.has_system(&node.consumer) {
        return Err(Refusal::not_in_directory(&node.consumer));
    }
    let now = unix_ms();
    let permit = match caller {
        Some(_) => {
            let mut recent = gateway.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.admit(node.exchange, now).map_err(|error| match error {
                RecentError::Full => Refusal::overloaded("exchange ids remembered"),
                _ => Refusal::stale_exchange(&error.to_string()),
            })?;
            drop(recent);
            exchange.id = node.exchange;
            Some(gateway.admit(view)?)
        }
        None => {
            exchange.id = node.exchange;
            None
        }
    };

    let provider = call
        .provider
        .clone()
        .ok_or_else(|| Refusal::metadata(&metadata::MetadataError::Missing(metadata::PROVIDER.to_string())))?;
    provider.as_str().clone_into(&mut exchange.provider);
    if provider.member() != &view.member {
        return Err(Refusal::not_provider_here(&provider));
    }
    exchange.members = Some((node.consumer.member().clone(), provider.member().clone()));
    let proven = match exchange.peer_log.clone() {
        Some(log) => Some(proofs::request(&log, proof.as_ref(), exchange, &node, &call)?),
        None => None,
    };
    let (service_name, method_name) = (exchange.service.as_str(), exchange.method.as_str());
    let service = view.catalogue.service(service_name).ok_or_else(|| Refusal::service_unknown(service_name))?;
    let offer = service.offer(&provider).ok_or_else(|| Refusal::provider_unknown(&provider, service_name))?;
    let method = offer.method(method_name).ok_or_else(|| Refusal::method_unknown(service_name, method_name))?.clone();
    exchange.traced.is_known = true;

    let denied = |denial| Refusal::denied(&denial, &node.consumer, service_name, method_name);
    let (number, grant) = view
        .grants
        .decide_numbered(&node.consumer, &provider, service_name, method_name, call.purpose.as_deref(), now)
        .map_err(denied)?;
    exchange.legal_basis.clone_from(&grant.legal_basis.code);
    // Not only the grant's: what the types' author allows may have been narrowed since.
    if !method.is_for(&grant.legal_basis.code) {
        return Err(denied(Denial::PurposeNotAllowed));
    }
    exchange.schema = Some(method.schema);
    let plans = view.plans.of(number, method_name);
    let plans = plans.map_err(|error| Refusal::unusable(service_name, method_name, error))?;
    let types = Types { plans: plans.clone(), name_withheld: grant.name_withheld };
    exchange.class = method.publication(grant.publication);
    exchange.class.check_recorded(node.publication).map_err(denied)?;

    let backend = view
        .backend(&provider)
        .ok_or_else(|| Refusal::backend_unreachable(&provider, "this node's configuration has no back-end for it"))?;
    let next = backend.next(&method, Hop::Backend(provider.clone()))?;
    let bounds = gateway.bounds(&method, call.timeout, started);
    Ok(Plan { consumer: node.consumer, provider, method, call, types, next, bounds, permit, proven })
}

/// The caller is a node of the directory.
fn check_node(view: &View, caller: &Caller) -> Result<(), Refusal> {
    let identity = &caller.peer.identity;
    let Identity::Node { member, name } = identity else {
        return Err(Refusal::wrong_listener(
            identity,
            "this listener is for nodes; systems call their own member's node",
        ));
    };
    if view.directory.node(member, name).is_none() {
        return Err(Refusal::not_in_directory(identity));
    }
    Ok(())
}

/// It speaks for a system of its own member.
fn check_consumer(caller: &Caller, node: &NodeMetadata) -> Result<(), Refusal> {
    let identity = &caller.peer.identity;
    if node.consumer.member() != identity.member() {
        return Err(Refusal::foreign_consumer(identity, &node.consumer));
    }
    Ok(())
}
