//! Calls in other protocols than gRPC, at the systems' listener: for systems whose language has no gRPC, for `curl`, for browsers.
//!
//! In: an HTTP request of either version. It is made into an ordinary gRPC call, which takes the one way that all calls take
//! ([`super::consumer`], or the node's own services), so that certificates, outbound list, grants and log hold as they always do, and
//! protobuf bytes are what is recorded and what crosses. Out: that call's answer in the caller's protocol. What breaks a protocol's
//! rules is refused on the same way, so it is recorded like any other refusal.
//!
//! [`connect`] is the Connect protocol, unary (POST and GET) and streaming, in JSON and protobuf; [`rest`] the paths of
//! `google.api.http`; [`grpc_web`] gRPC-Web; [`openapi`] describes what may be called.
//!
//! A request's body is read only once the call is authorised. Nothing is buffered beyond the limit of one message, and all of it
//! counts among what the node holds.

pub(super) mod call;
mod connect;
mod envelope;
pub(super) mod error;
mod grpc_web;
mod openapi;
mod rest;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use tonic::Code;

use super::accept::{Caller, Listener};
use super::body::{Answer, Arriving};
use super::refusal::Refusal;

use call::{Codec, Target};

const GRPC_WEB: &str = "application/grpc-web";

/// What a request is, by its head.
enum Spoken {
    ConnectUnary(Codec),
    ConnectGet,
    ConnectStream(Codec),
    GrpcWeb,
}

/// Whether a request is to be taken as gRPC.
pub(super) fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = media_type(request.headers());
    let grpc =
        matches!(content_type.strip_prefix("application/grpc"), Some(rest) if rest.is_empty() || rest.starts_with('+'));
    let trailers = request.headers().get("te").is_some_and(|te| te == "trailers");
    request.version() == Version::HTTP_2 && (grpc || trailers && !content_type.starts_with(GRPC_WEB))
}

/// Answers a request that is not gRPC.
pub(super) async fn answer(listener: &Listener, caller: &Arc<Caller>, request: Request<Incoming>) -> Response<Answer> {
    let request = request.map(Arriving::Wire);
    let view = listener.gateway.view();
    if let Some(asked) = openapi::asked(request.method(), request.uri().path()) {
        return openapi::answer(listener, caller, &view, &request, asked);
    }
    let target = Target::of(&view, request.uri().path(), request.headers());
    if is_cross_site(request.headers()) {
        let (refusal, status) = (Refusal::cross_site(), http::StatusCode::FORBIDDEN);
        return connect::refuse(listener, caller, target, request, refusal, status).await;
    }
    match spoken(&request) {
        Some(Spoken::GrpcWeb) => grpc_web::call(listener, caller, request).await,
        Some(Spoken::ConnectStream(codec)) => connect::stream(listener, caller, target, codec, request).await,
        Some(Spoken::ConnectUnary(codec)) if target.is_known() => {
            connect::unary(listener, caller, target, codec, request).await
        }
        Some(Spoken::ConnectGet) if target.is_known() => connect::get(listener, caller, target, request).await,
        _ if target.is_known() => {
            let what = "the content-type is none of application/json, application/proto, application/connect+json, \
                        application/connect+proto, application/grpc-web; gRPC itself needs HTTP/2";
            let refusal = Refusal::protocol(Code::Unimplemented, what);
            connect::refuse(listener, caller, target, request, refusal, http::StatusCode::UNSUPPORTED_MEDIA_TYPE).await
        }
        _ => rest::call(listener, caller, &view, request).await,
    }
}

fn spoken(request: &Request<Arriving>) -> Option<Spoken> {
    match *request.method() {
        http::Method::POST => match media_type(request.headers()) {
            "application/json" => Some(Spoken::ConnectUnary(Codec::Json)),
            "application/proto" => Some(Spoken::ConnectUnary(Codec::Protobuf)),
            "application/connect+json" => Some(Spoken::ConnectStream(Codec::Json)),
            "application/connect+proto" => Some(Spoken::ConnectStream(Codec::Protobuf)),
            other if other.starts_with(GRPC_WEB) => Some(Spoken::GrpcWeb),
            _ => None,
        },
        http::Method::GET => Some(Spoken::ConnectGet),
        _ => None,
    }
}

/// Whether a browser says that a page of elsewhere asks (<https://www.w3.org/TR/fetch-metadata/>). It would use the certificate that it
/// holds, and the exchange would be the system's.
fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

/// The content type without its parameters: JSON is UTF-8 whatever they say.
fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
