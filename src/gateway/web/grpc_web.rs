//! gRPC-Web (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>), binary and text: tonic-web's layer around the one way that
//! gRPC calls take.

use std::convert::Infallible;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service};

use super::{call, media_type};
use crate::gateway::accept::{Caller, Listener};
use crate::gateway::body::{Answer, Arriving};

/// gRPC's own headers, which mean the same here.
const KEPT: [HeaderName; 3] = [
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Carries a call.
pub(super) async fn call(listener: &Listener, caller: &Caller, mut request: Request<Arriving>) -> Response<Answer> {
    // The layer knows the media type alone.
    if let Ok(plain) = HeaderValue::from_str(media_type(request.headers())) {
        request.headers_mut().insert(CONTENT_TYPE, plain);
    }
    let grpc = tower::service_fn(|request: Request<tonic::body::Body>| async move {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let kept = KEPT.map(|name| (parts.headers.get(&name).cloned(), name));
        let body = Arriving::Made(body.map_err(Into::into).boxed_unsync());
        let mut request = call::request(parts, &path, None, body);
        for (value, name) in kept {
            value.and_then(|value| request.headers_mut().insert(name, value));
        }
        Ok::<_, Infallible>(listener.grpc(caller, request).await)
    });
    let answer = GrpcWebLayer::new().layer(grpc).call(request).await;
    answer.unwrap_or_else(|never| match never {}).map(|body| Answer::Made(body.map_err(Into::into).boxed_unsync()))
}
