//! What a system may call, described: `GET /openapi` is the list, `GET /openapi/<package.Service>.json` an OpenAPI 3.1 document. Like
//! server reflection it shows a system no more than what its own node lets it call.

use bytes::Bytes;
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode};
use serde_json::{Value, json};
use tonic::Code;

use super::call::Room;
use super::{connect, error};
use crate::gateway::accept::{Caller, Listener};
use crate::gateway::body::{Answer, Arriving};
use crate::gateway::refusal::Refusal;
use crate::gateway::view::View;
use crate::log::entry::Side;
use crate::policy::Methods;
use crate::schema::openapi::describe;
use crate::schema::{Offer, Service};
use crate::trust::identity::{Identity, SystemId};

const LIST: &str = "/openapi";

/// What is asked for.
pub(super) enum Asked {
    List,
    Service(String),
}

/// Whether a request asks for a description.
pub(super) fn asked(verb: &Verb, path: &str) -> Option<Asked> {
    let rest = path.strip_prefix(LIST).filter(|_| verb == Verb::GET)?;
    match rest {
        "" | "/" => Some(Asked::List),
        _ => Some(Asked::Service(rest.strip_prefix('/')?.strip_suffix(".json")?.to_owned())),
    }
}

/// Answers it.
pub(super) fn answer(
    listener: &Listener,
    caller: &Caller,
    view: &View,
    request: &Request<Arriving>,
    asked: Asked,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let gzip = connect::accepts_gzip(request.headers());
    let told = who(listener, caller, view).and_then(|system| match asked {
        Asked::List => Ok(list(view, system)),
        Asked::Service(name) => document(view, system, &name),
    });
    let (status, told) = match told {
        Ok(told) => (StatusCode::OK, told),
        Err(refusal) => (error::http_status(refusal.code), error::to_json(&refusal.to_status(Side::Consumer), None)),
    };
    connect::whole(status, HeaderMap::new(), "application/json", Bytes::from(told.to_string()), gzip, &room)
}

fn who<'a>(listener: &Listener, caller: &'a Caller, view: &View) -> Result<&'a SystemId, Refusal> {
    caller.check()?;
    let here = "this listener answers the member's own systems";
    let Identity::System(system) = &caller.peer.identity else {
        return Err(Refusal::wrong_listener(&caller.peer.identity, here));
    };
    if system.member() != &view.member {
        return Err(Refusal::wrong_listener(&caller.peer.identity, here));
    }
    if !view.directory.has_system(system) {
        return Err(Refusal::not_in_directory(system));
    }
    let checked = listener.gateway.callers.check(system);
    checked.map_err(|denial| Refusal::denied(&denial, system, LIST, "GET"))?;
    Ok(system)
}

/// A service's offers that a system may call, and which methods of them.
fn callable<'a>(view: &View, system: &SystemId, service: &'a Service) -> Vec<(&'a Offer, Methods)> {
    let offers = service.offers().iter();
    offers
        .filter_map(|offer| Some((offer, view.outbound.callable_by(system, &offer.provider, service.name())?)))
        .collect()
}

fn list(view: &View, system: &SystemId) -> Value {
    let mut services: Vec<&Service> = view.catalogue.services().map(|service| &**service).collect();
    services.sort_by_key(|service| service.name());
    let listed: Vec<Value> = services
        .into_iter()
        .filter_map(|service| {
            let offers = callable(view, system, service);
            let providers: Vec<&str> = offers.iter().map(|(offer, _)| offer.provider.as_str()).collect();
            (!offers.is_empty()).then(|| {
                json!({ "service": service.name(), "providers": providers, "openapi": format!("{LIST}/{}.json", service.name()) })
            })
        })
        .collect();
    json!({ "system": system.as_str(), "services": listed })
}

fn document(view: &View, system: &SystemId, name: &str) -> Result<Value, Refusal> {
    let unknown = || {
        let what = format!("{name} is not known, or not among what {system} may call: GET {LIST} lists that");
        Refusal::protocol(Code::NotFound, what)
    };
    let service = view.catalogue.service(name).ok_or_else(unknown)?;
    let offers = callable(view, system, service);
    let (first, methods) = offers.first().ok_or_else(unknown)?;
    let providers: Vec<&str> = offers.iter().map(|(offer, _)| offer.provider.as_str()).collect();
    Ok(describe(&first.descriptor, &providers, &|method| methods.contains(method)))
}
