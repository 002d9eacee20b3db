//! A back-end that speaks plain HTTP and JSON, behind a gRPC service: each call becomes one request of HTTP/1.1 by the method's
//! `google.api.http` (its first rule), or a POST of JSON to `/package.Service/Method` where it has none, and the answer becomes
//! protobuf again. This happens where the provider's node calls its back-end: after the request is recorded, before the answer is, and
//! what is recorded is protobuf on both ways.
//!
//! A method that answers with a stream is answered with lines of JSON, a message each. Names in an answer that its type has not are
//! passed over: a service of HTTP says more than its `.proto`.

mod answer;
mod pool;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Response, Uri};
use http_body_util::Full;
use prost_reflect::DynamicMessage;
use tokio::time::Instant;
use tonic::Code;

use super::body::{Arriving, Outgoing};
use super::forward::Bounds;
use super::framing::PREFIX;
use super::refusal::Refusal;
use super::upstream::{Connections, UpstreamLimits};
use super::web::call::{crosses, gunzip};
use crate::config::Endpoint;
use crate::schema::Method;
use crate::schema::http::{Rule, Written};
use crate::schema::json;

use pool::Pool;

/// JSON may be so many times as long as the largest message.
const JSON_PER_MESSAGE: usize = 4;

/// The back-end of one system.
#[derive(Debug)]
pub(super) struct HttpJson {
    name: String,
    host: HeaderValue,
    pool: Arc<Pool>,
}

impl HttpJson {
    /// At `endpoint`, called `name` in messages; over TLS unless `tls` is none.
    pub(super) fn new(
        name: String,
        endpoint: &Endpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: UpstreamLimits,
        all: Connections,
    ) -> Result<Self, http::Error> {
        let host = HeaderValue::from_str(&endpoint.authority())?;
        let pool = Pool::new(name.clone(), endpoint.clone(), tls, limits, all);
        Ok(Self { name, host, pool: Arc::new(pool) })
    }

    /// Address, open connections, and whether it could be reached when that was last tried.
    pub(super) fn standing(&self) -> (&str, usize, Option<bool>) {
        (self.address(), self.pool.open(), self.pool.is_reachable())
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }

    /// Tries to connect where the last attempt failed.
    pub(super) async fn look(&self) {
        self.pool.look().await;
    }

    /// Makes a call, and gRPC of its answer.
    pub(super) async fn call(
        &self,
        method: &Method,
        request: Request<Outgoing>,
        bounds: &Bounds,
    ) -> Result<Response<Arriving>, Refusal> {
        let limit = (bounds.message as usize).saturating_mul(JSON_PER_MESSAGE);
        // One that cannot be kept to is named by `--check`; the method's own path is always there.
        let rule = Rule::of(&method.descriptor).ok().and_then(|rules| rules.into_iter().next());
        let request = self.request(method, rule.as_ref(), request, bounds, limit)?;
        let asking = tokio::time::timeout_at(bounds.deadline, self.pool.send(request));
        let (response, connection) = asking.await.map_err(|_| Refusal::deadline())??;
        let reading = answer::Reading {
            who: self.name.clone(),
            method: method.descriptor.clone(),
            rule,
            limit,
            bounds: bounds.clone(),
        };
        reading.read(response, connection).await
    }

    fn request(
        &self,
        method: &Method,
        rule: Option<&Rule>,
        request: Request<Outgoing>,
        bounds: &Bounds,
        limit: usize,
    ) -> Result<Request<Full<Bytes>>, Refusal> {
        let (parts, outgoing) = request.into_parts();
        let Outgoing::Whole(mut whole) = outgoing else { return Err(Refusal::backend_cannot_stream(&method.path)) };
        let message = unframed(&whole.take(), &parts.headers, bounds.message)?;
        let message = DynamicMessage::decode(method.descriptor.input(), message).map_err(|_| {
            let error = json::JsonError::Message(method.descriptor.input().full_name().to_owned());
            Refusal::json(&error)
        })?;
        let (verb, written) = match rule {
            Some(rule) => (rule.verb.clone(), rule.write_request(&message, limit)),
            None => {
                let body = json::write(&message, limit);
                (Verb::POST, body.map(|body| Written { target: method.path.to_string(), body: Some(body) }))
            }
        };
        let Written { target, body } = written.map_err(|error| Refusal::json(&error))?;
        let mut headers = parts.headers;
        headers_for(&mut headers, bounds);
        headers.insert(HOST, self.host.clone());
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(match method.server_streaming {
                true => "application/x-ndjson",
                false => "application/json",
            }),
        );
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let uri: Uri = target.parse().map_err(|_| Refusal::json(&json::JsonError::TooLarge(limit)))?;
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (verb, uri, headers);
        Ok(request)
    }
}

/// Metadata are headers; the deadline is told as Connect tells it. What means something to HTTP is the node's to say, not the caller's.
fn headers_for(headers: &mut HeaderMap, bounds: &Bounds) {
    let not: Vec<HeaderName> =
        headers.keys().filter(|name| !crosses(name.as_str()) || misleads(name.as_str())).cloned().collect();
    for name in not {
        headers.remove(name);
    }
    let left = bounds.deadline.saturating_duration_since(Instant::now()).as_millis().clamp(1, 9_999_999_999);
    headers.insert("connect-timeout-ms", HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX)));
}

/// By which some services take a request for another one, or for somebody else's.
fn misleads(name: &str) -> bool {
    matches!(name, "x-real-ip" | "x-original-url" | "x-rewrite-url" | "x-method-override")
        || name.starts_with("x-http-method")
}

/// The one message of a request.
fn unframed(framed: &Bytes, headers: &HeaderMap, limit: u32) -> Result<Bytes, Refusal> {
    let message = framed.slice(PREFIX.min(framed.len())..);
    match (framed.first(), headers.get("grpc-encoding").map(HeaderValue::as_bytes)) {
        (Some(0), _) => Ok(message),
        (Some(1), Some(b"gzip")) => gunzip(&message, limit, "request"),
        (_, _) => {
            let what = "the provider's system takes JSON, and the message is compressed in another way than gzip";
            Err(Refusal::protocol(Code::Unimplemented, what))
        }
    }
}
