//! Paths of `google.api.http`, for services that have that annotation: JSON in path, query and body. A method that answers with a
//! stream answers with lines of JSON (`application/x-ndjson`): `{"result": …}` for each message and, last, `{"end": …}` with the error
//! and the trailers, so that a reader knows whether it has all of it.

use http::{Request, Response, StatusCode};
use http_body::Body;
use tonic::{Code, Status};

use super::call::{self, Room, Target, Wording};
use super::{connect, envelope, media_type};
use crate::gateway::accept::{Caller, Listener};
use crate::gateway::body::{Answer, Arriving};
use crate::gateway::metadata;
use crate::gateway::refusal::Refusal;
use crate::gateway::view::View;
use crate::schema::http::{BodyOf, Found, Route};

/// Answers whatever has a path that is no method's own.
pub(super) async fn call(
    listener: &Listener,
    caller: &Caller,
    view: &View,
    request: Request<Arriving>,
) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    let mut found = view.catalogue.routes().find(request.method(), &path);
    let provider = request.headers().get(metadata::PROVIDER).and_then(|name| name.to_str().ok());
    if let Some(provider) = provider {
        found.retain(|found| found.route.provider.as_str() == provider);
    }
    let mut paths: Vec<&str> = found.iter().map(|found| &*found.route.method.path).collect();
    paths.sort_unstable();
    paths.dedup();
    if paths.len() > 1 {
        let refusal = Refusal::route_ambiguous(&paths);
        let target = Target { path, method: None };
        return connect::refuse(listener, caller, target, request, refusal, StatusCode::CONFLICT).await;
    }
    // Of several providers the first's types are as good as another's: without a name the call is refused.
    let Some(Found { route, captures }) = found.into_iter().next() else {
        let refusal = Refusal::no_route(request.method());
        let target = Target { path, method: None };
        return connect::refuse(listener, caller, target, request, refusal, StatusCode::NOT_FOUND).await;
    };
    let route = route.clone();
    carry(listener, caller, route, captures, request).await
}

async fn carry(
    listener: &Listener,
    caller: &Caller,
    route: Route,
    captures: Vec<String>,
    request: Request<Arriving>,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let (parts, body) = request.into_parts();
    let rule = route.rule;
    let method = route.method.descriptor.clone();
    let streams = method.is_server_streaming();
    let target = Target { path: route.method.path.to_string(), method: Some(method.clone()) };
    let mut status = None;
    let asked = 'asked: {
        if method.is_client_streaming() {
            let what = "the caller of this method sends a stream: that needs gRPC or application/connect+json";
            break 'asked Err(Refusal::protocol(Code::Unimplemented, what));
        }
        let has_body = rule.body != BodyOf::Nothing;
        let gzip = match connect::is_gzip(&parts.headers, &http::header::CONTENT_ENCODING) {
            Ok(gzip) => gzip,
            Err(refusal) => break 'asked Err(refusal),
        };
        if has_body && !body.is_end_stream() && media_type(&parts.headers) != "application/json" {
            status = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            break 'asked Err(Refusal::protocol(Code::InvalidArgument, "the content-type is not application/json"));
        }
        if !has_body && !body.is_end_stream() {
            break 'asked Err(Refusal::protocol(Code::InvalidArgument, "this path takes no body"));
        }
        let (room, rule) = (room.clone(), rule.clone());
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Ok(call::made(async move {
            let mut whole = if has_body { room.gather(body).await? } else { Default::default() };
            let bytes = connect::plain(whole.take(), gzip, &room)?;
            let query = call::query(&query)?;
            let read = rule.read_request(&captures, &query, &bytes, room.message as usize);
            Ok(prost::Message::encode_to_vec(&read.map_err(|error| Refusal::json(&error))?).into())
        }))
    };
    let gzip = connect::accepts_gzip(&parts.headers);
    let response = connect::carry(listener, caller, &target, parts, asked).await;
    let wording = Wording::Rest(rule);
    if streams && Status::from_header_map(response.headers()).is_none() {
        return connect::streaming(envelope::answers(response, &target, wording, &room), "application/x-ndjson");
    }
    connect::unary_answer(call::reply(response, &room).await, &target, &wording, gzip, status, &room)
}
