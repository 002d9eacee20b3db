//! What all protocols here share: the method that is called, its request as a gRPC one, its answer taken apart.

use std::borrow::Cow;
use std::io::Read;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::header::{CONTENT_TYPE, HeaderName, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::{Code, Status};

use crate::gateway::Gateway;
use crate::gateway::body::{Answer, Arriving, BoxError, Budget, CollectError, Whole};
use crate::gateway::framing::{FramingError, PREFIX};
use crate::gateway::metadata;
use crate::gateway::ordinary::own_descriptors;
use crate::gateway::refusal::Refusal;
use crate::gateway::view::View;
use crate::log::entry::Side;
use crate::schema::http::{Pairs, Rule};
use crate::schema::json;

/// JSON may be so many times as long as the largest message: names and digits take more room than protobuf's tags.
const JSON_PER_MESSAGE: usize = 4;

/// The types of the services that the node answers itself.
static OWN: LazyLock<DescriptorPool> = LazyLock::new(|| own_descriptors().unwrap_or_default());

/// A method that is called.
pub(super) struct Target {
    /// `/package.Service/Method`, or whatever was asked for.
    pub(super) path: String,
    /// Its types, where it is known, of the system that is to answer.
    pub(super) method: Option<MethodDescriptor>,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Protobuf,
}

/// How answers are written.
#[derive(Debug, Clone)]
pub(super) enum Wording {
    /// As Connect has it.
    Connect(Codec),
    /// As a rule of google.api.http has it, in JSON.
    Rest(Arc<Rule>),
}

/// What may be held for one call.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Largest message, bytes; and largest JSON of a request.
    pub(super) message: u32,
    /// For a request's one message to arrive.
    pub(super) wait: Duration,
    /// For an answer to be there whole.
    pub(super) answer: Duration,
    pub(super) budget: Budget,
}

/// The answer to a call with one answer.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) result: Result<Bytes, Status>,
}

impl Target {
    /// The method at a path of gRPC's form, of the provider that the headers name or else of the first.
    pub(super) fn of(view: &View, path: &str, headers: &HeaderMap) -> Self {
        Self { path: path.to_owned(), method: find(view, path, headers) }
    }

    pub(super) fn is_known(&self) -> bool {
        self.method.is_some()
    }

    /// Every type of the one who answers.
    pub(super) fn pool(&self) -> Option<&DescriptorPool> {
        self.method.as_ref().map(MethodDescriptor::parent_pool)
    }
}

fn find(view: &View, path: &str, headers: &HeaderMap) -> Option<MethodDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let provider = headers.get(metadata::PROVIDER).and_then(|name| name.to_str().ok()?.parse().ok());
    // A provider that does not offer it is refused later, as in gRPC.
    let named = provider.and_then(|provider| view.catalogue.method_of(&provider, service, method));
    match named.or_else(|| view.catalogue.method(service, method)) {
        Some(offered) => Some(offered.descriptor.clone()),
        None => OWN.get_service_by_name(service)?.methods().find(|known| known.name() == method),
    }
}

impl Room {
    pub(super) fn of(gateway: &Gateway) -> Self {
        let limits = &gateway.limits;
        Self {
            message: u32::try_from(limits.message).unwrap_or(u32::MAX),
            wait: limits.request_body_timeout,
            answer: limits.unary_timeout,
            budget: gateway.budget.clone(),
        }
    }

    /// Largest JSON of an answer.
    pub(super) fn json(&self) -> usize {
        (self.message as usize).saturating_mul(JSON_PER_MESSAGE)
    }

    /// A request's body, whole.
    pub(super) async fn gather(&self, body: Arriving) -> Result<Whole, Refusal> {
        match tokio::time::timeout(self.wait, Whole::gather(body, self.message, &self.budget)).await {
            Err(_) => Err(Refusal::deadline()),
            Ok(Err(CollectError::Framing(error))) => Err(Refusal::framing(error, "request")),
            Ok(Err(CollectError::Broken(error))) => Err(Refusal::of_request(error)),
            Ok(Err(CollectError::Budget)) => Err(Refusal::overloaded("bytes held in messages")),
            Ok(Ok(whole)) => Ok(whole),
        }
    }
}

impl Codec {
    /// Protobuf bytes of a message that came.
    pub(super) fn read(self, message: &MessageDescriptor, bytes: Bytes, room: &Room) -> Result<Bytes, Refusal> {
        match self {
            Self::Protobuf => Ok(bytes),
            Self::Json => {
                let read = json::read(message, &bytes, room.message as usize).map_err(|error| Refusal::json(&error))?;
                Ok(prost::Message::encode_to_vec(&read).into())
            }
        }
    }
}

impl From<Codec> for Wording {
    fn from(codec: Codec) -> Self {
        Self::Connect(codec)
    }
}

impl Wording {
    /// A message that goes, from its protobuf bytes.
    pub(super) fn write(&self, message: &MessageDescriptor, bytes: Bytes, room: &Room) -> Result<Bytes, Refusal> {
        match self {
            Self::Connect(Codec::Protobuf) => Ok(bytes),
            Self::Connect(Codec::Json) => {
                json::write(&decoded(message, bytes)?, room.json()).map(Bytes::from).map_err(Refusal::answer)
            }
            Self::Rest(rule) => {
                let written = rule.write_answer(&decoded(message, bytes)?, room.json());
                written.map(Bytes::from).map_err(Refusal::answer)
            }
        }
    }

    /// Of an answer that is one message.
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Connect(Codec::Protobuf) => "application/proto",
            Self::Connect(Codec::Json) | Self::Rest(_) => "application/json",
        }
    }
}

fn decoded(message: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, Refusal> {
    DynamicMessage::decode(message.clone(), bytes)
        .map_err(|_| Refusal::answer(format!("it is not a well-formed {}", message.full_name())))
}

/// The gRPC call that a request stands for.
pub(super) fn request(mut parts: Parts, path: &str, timeout: Option<Duration>, body: Arriving) -> Request<Arriving> {
    let sent: Vec<HeaderName> = parts.headers.keys().filter(|name| !crosses(name.as_str())).cloned().collect();
    for name in sent {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = timeout {
        metadata::put_timeout(&mut parts.headers, timeout);
    }
    parts.method = Method::POST;
    parts.version = Version::HTTP_2;
    // What is no path of gRPC's has been refused before, and is refused for that.
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    Request::from_parts(parts, body)
}

/// Of a request's headers those are metadata that are not HTTP's, gRPC's or Connect's, nor such as a browser adds by itself.
pub(in crate::gateway) fn crosses(name: &str) -> bool {
    const NOT: [&str; 20] = [
        "accept",
        "connection",
        "cache-control",
        "cookie",
        "dnt",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "origin",
        "pragma",
        "priority",
        "range",
        "referer",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "via",
    ];
    const NOT_WITH: [&str; 9] =
        ["accept-", "access-control-", "connect-", "content-", "grpc-", "if-", "proxy-", "sec-", "x-forwarded-"];
    !NOT.contains(&name) && !NOT_WITH.iter().any(|prefix| name.starts_with(prefix))
}

/// A request's body that is made when it is asked for.
pub(super) fn made(message: impl Future<Output = Result<Bytes, Refusal>> + Send + 'static) -> Arriving {
    let frame = futures_util::stream::once(async move { framed(message.await?) });
    let frame = frame.map_ok(Frame::data).map_err(|refusal| -> BoxError { Box::new(refusal) });
    Arriving::Made(StreamBody::new(frame).boxed_unsync())
}

/// gRPC's framing of a message.
pub(in crate::gateway) fn framed(message: Bytes) -> Result<Bytes, Refusal> {
    let too_large = |_| Refusal::framing(FramingError::TooLarge { size: u32::MAX, limit: u32::MAX }, "request");
    let size = u32::try_from(message.len()).map_err(too_large)?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(size);
    framed.put(message);
    Ok(framed.freeze())
}

/// Decompresses what came with a request or, as `direction` says, a response: to at most `limit` bytes.
pub(in crate::gateway) fn gunzip(bytes: &[u8], limit: u32, direction: &str) -> Result<Bytes, Refusal> {
    let mut plain = Vec::new();
    let most = u64::from(limit) + 1;
    flate2::read::MultiGzDecoder::new(bytes)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_| Refusal::malformed("what is announced as gzip is not"))?;
    match u32::try_from(plain.len()) {
        Ok(size) if size <= limit => Ok(plain.into()),
        _ => Err(Refusal::framing(FramingError::TooLarge { size: limit.saturating_add(1), limit }, direction)),
    }
}

/// Reads an answer whole.
pub(super) async fn reply(response: Response<Answer>, room: &Room) -> Reply {
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    headers.remove(CONTENT_TYPE);
    let internal = |why: &str| Err(Refusal::answer(why).to_status(Side::Consumer));
    let collecting = Whole::collect(body, room.message, &room.budget);
    let (mut whole, trailers) = match tokio::time::timeout(room.answer, collecting).await {
        Ok(Ok((whole, _, trailers))) => (whole, trailers),
        Ok(Err(_)) => return Reply { headers, trailers: HeaderMap::new(), result: internal("it is not whole") },
        Err(_) => {
            let result = Err(Refusal::deadline().to_status(Side::Consumer));
            return Reply { headers, trailers: HeaderMap::new(), result };
        }
    };
    let mut trailers = trailers.unwrap_or_default();
    let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&headers));
    let compressed = headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
    for map in [&mut headers, &mut trailers] {
        strip(map);
    }
    let result = match status {
        Some(status) if status.code() == Code::Ok => match unframed(&whole.take(), compressed, room.message) {
            Some(message) => Ok(message),
            None => internal("it has no message, or one that is compressed in a way that was not asked for"),
        },
        Some(status) => Err(Status::with_details(status.code(), status.message(), status.details().to_vec().into())),
        None => internal("it has no grpc-status"),
    };
    Reply { headers, trailers, result }
}

/// Leaves of gRPC's headers only metadata, and nothing that would tell a browser what to do.
pub(super) fn strip(headers: &mut HeaderMap) {
    const NOT: [&str; 6] =
        ["alt-svc", "clear-site-data", "location", "refresh", "set-cookie", "strict-transport-security"];
    const NOT_WITH: [&str; 3] = ["access-control-", "content-", "grpc-"];
    let goes = |name: &str| NOT.contains(&name) || NOT_WITH.iter().any(|prefix| name.starts_with(prefix));
    let not: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in not {
        headers.remove(name);
    }
}

/// The one message of an answer.
fn unframed(framed: &Bytes, gzip: bool, limit: u32) -> Option<Bytes> {
    let flag = *framed.first()?;
    let message = framed.slice(PREFIX.min(framed.len())..);
    match flag {
        0 => Some(message),
        1 if gzip => gunzip(&message, limit, "response").ok(),
        _ => None,
    }
}

/// The names and values of a query, decoded.
pub(super) fn query(query: &str) -> Result<Pairs<'_>, Refusal> {
    let decoded = |text: &'_ str| -> Result<String, Refusal> {
        let spaces = text.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&spaces).decode_utf8();
        decoded.map(Cow::into_owned).map_err(|_| Refusal::malformed("the query is not UTF-8"))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?.into(), decoded(value)?.into()))
        })
        .collect()
}
