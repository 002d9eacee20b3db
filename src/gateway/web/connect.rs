//! The Connect protocol (<https://connectrpc.com/docs/protocol>): unary calls by POST, by GET where a method has no side effects, and
//! streams. Metadata are headers; the trailers of a unary answer are headers that begin with `trailer-`, those of a stream come with
//! its end.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use prost_reflect::MethodDescriptor;
use prost_types::method_options::IdempotencyLevel;
use tonic::Code;

use super::call::{self, Codec, Reply, Room, Target, Wording};
use super::{envelope, error};
use crate::gateway::accept::{Caller, Listener};
use crate::gateway::body::{Answer, Arriving, Whole};
use crate::gateway::refusal::Refusal;
use crate::log::entry::Side;

const VERSION: &str = "connect-protocol-version";
const TIMEOUT: &str = "connect-timeout-ms";
const STREAM_ENCODING: &str = "connect-content-encoding";

/// Answers of fewer bytes are not compressed.
const WORTH_COMPRESSING: usize = 1 << 10;

/// A unary call by POST.
pub(super) async fn unary(
    listener: &Listener,
    caller: &Caller,
    target: Target,
    codec: Codec,
    request: Request<Arriving>,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let (parts, body) = request.into_parts();
    let asked = target.method.as_ref().ok_or_else(|| Refusal::no_route(&parts.method)).and_then(|method| {
        one_each(method)?;
        let (input, room) = (method.input(), room.clone());
        let gzip = is_gzip(&parts.headers, &CONTENT_ENCODING)?;
        Ok(call::made(async move {
            let mut whole = room.gather(body).await?;
            let bytes = plain(whole.take(), gzip, &room)?;
            codec.read(&input, bytes, &room)
        }))
    });
    let gzip = accepts_gzip(&parts.headers);
    let response = carry(listener, caller, &target, parts, asked).await;
    unary_answer(call::reply(response, &room).await, &target, &codec.into(), gzip, None, &room)
}

/// A unary call by GET, its message in the query.
pub(super) async fn get(
    listener: &Listener,
    caller: &Caller,
    target: Target,
    request: Request<Arriving>,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let (parts, _) = request.into_parts();
    let mut status = None;
    let mut codec = Codec::Json;
    let asked = target.method.as_ref().ok_or_else(|| Refusal::no_route(&parts.method)).and_then(|method| {
        one_each(method)?;
        if !has_no_side_effects(method) {
            status = Some(StatusCode::METHOD_NOT_ALLOWED);
            let what = "GET is for methods with idempotency_level = NO_SIDE_EFFECTS: use POST";
            return Err(Refusal::protocol(Code::Unimplemented, what));
        }
        let asked = Query::read(parts.uri.query().unwrap_or_default(), &room)?;
        codec = asked.codec;
        let message = asked.codec.read(&method.input(), asked.message, &room)?;
        Ok(call::made(std::future::ready(Ok(message))))
    });
    let gzip = accepts_gzip(&parts.headers);
    let response = carry(listener, caller, &target, parts, asked).await;
    unary_answer(call::reply(response, &room).await, &target, &codec.into(), gzip, status, &room)
}

/// A call of a method that streams, or whose caller speaks as if it did.
pub(super) async fn stream(
    listener: &Listener,
    caller: &Caller,
    target: Target,
    codec: Codec,
    request: Request<Arriving>,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let (parts, body) = request.into_parts();
    let asked = target.method.as_ref().ok_or_else(|| Refusal::no_route(&parts.method)).and_then(|method| {
        if method.is_client_streaming() && method.is_server_streaming() && parts.version != Version::HTTP_2 {
            let what = "the method streams in both directions: that needs HTTP/2";
            return Err(Refusal::protocol(Code::Unimplemented, what));
        }
        let gzip = is_gzip(&parts.headers, &HeaderName::from_static(STREAM_ENCODING))?;
        Ok(envelope::requests(body, codec, method.input(), gzip, room.clone()))
    });
    let response = carry(listener, caller, &target, parts, asked).await;
    let content_type = match codec {
        Codec::Json => "application/connect+json",
        Codec::Protobuf => "application/connect+proto",
    };
    streaming(envelope::answers(response, &target, codec.into(), &room), content_type)
}

/// A streamed answer's head.
pub(super) fn streaming(mut response: Response<Answer>, content_type: &'static str) -> Response<Answer> {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    private(response.headers_mut());
    response
}

/// Refuses what is no call in any protocol, as a call that is refused: on record.
pub(super) async fn refuse(
    listener: &Listener,
    caller: &Caller,
    target: Target,
    request: Request<Arriving>,
    refusal: Refusal,
    status: StatusCode,
) -> Response<Answer> {
    let room = Room::of(&listener.gateway);
    let (parts, _) = request.into_parts();
    let response = carry(listener, caller, &target, parts, Err(refusal)).await;
    unary_answer(call::reply(response, &room).await, &target, &Codec::Json.into(), false, Some(status), &room)
}

/// Makes the call; what is wrong with the request is told on the way that refusals take.
pub(super) async fn carry(
    listener: &Listener,
    caller: &Caller,
    target: &Target,
    parts: Parts,
    asked: Result<Arriving, Refusal>,
) -> Response<Answer> {
    let said = said(&parts.headers);
    let timeout = said.as_ref().ok().copied().flatten();
    let (body, unfit) = match said.and(asked) {
        Ok(body) => (body, None),
        Err(refusal) => (call::made(std::future::ready(Err(refusal.clone()))), Some(refusal)),
    };
    let mut request = call::request(parts, &target.path, timeout, body);
    if let Some(unfit) = unfit {
        request.extensions_mut().insert(unfit);
    }
    listener.grpc(caller, request).await
}

/// The answer of a unary call; an error has `status`, where that says more than its code's own.
pub(super) fn unary_answer(
    reply: Reply,
    target: &Target,
    wording: &Wording,
    gzip: bool,
    status: Option<StatusCode>,
    room: &Room,
) -> Response<Answer> {
    let written = reply.result.and_then(|message| match &target.method {
        Some(method) => {
            wording.write(&method.output(), message, room).map_err(|refusal| refusal.to_status(Side::Consumer))
        }
        None => Ok(message),
    });
    let (status, content_type, body) = match written {
        Ok(body) => (StatusCode::OK, wording.content_type(), body),
        Err(told) => {
            let json = error::to_json(&told, target.pool()).to_string();
            (status.unwrap_or_else(|| error::http_status(told.code())), "application/json", json.into())
        }
    };
    let mut headers = reply.headers;
    for (name, value) in &reply.trailers {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    whole(status, headers, content_type, body, gzip, room)
}

/// A whole answer, compressed where the caller takes that and it is worth it.
pub(super) fn whole(
    status: StatusCode,
    mut headers: HeaderMap,
    content_type: &'static str,
    body: Bytes,
    gzip: bool,
    room: &Room,
) -> Response<Answer> {
    let compressed = if gzip && body.len() >= WORTH_COMPRESSING { compress(&body) } else { None };
    if compressed.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    private(&mut headers);
    let mut response = Response::new(Answer::Whole(Whole::counted(compressed.unwrap_or(body), &room.budget), None));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What is told is about people: nothing on the way may keep it, unless the provider says otherwise.
fn private(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn compress(body: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Whether a body is compressed, in the one way that is understood.
pub(super) fn is_gzip(headers: &HeaderMap, name: &HeaderName) -> Result<bool, Refusal> {
    match headers.get(name).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => {
            Err(Refusal::protocol(Code::Unimplemented, format!("{name}: only gzip and identity are understood")))
        }
    }
}

pub(super) fn plain(bytes: Bytes, gzip: bool, room: &Room) -> Result<Bytes, Refusal> {
    if gzip && !bytes.is_empty() { call::gunzip(&bytes, room.message, "request") } else { Ok(bytes) }
}

pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| {
            let (name, quality) = encoding.split_once(';').unwrap_or((encoding, ""));
            name.trim() == "gzip" && quality.trim() != "q=0"
        })
}

/// The protocol's version and the caller's deadline.
fn said(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    if headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(Refusal::protocol(Code::InvalidArgument, format!("{VERSION} must be 1")));
    }
    let Some(timeout) = headers.get(TIMEOUT) else { return Ok(None) };
    let digits = timeout
        .to_str()
        .ok()
        .filter(|text| (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(Refusal::protocol(Code::InvalidArgument, format!("{TIMEOUT} must be 1 to 10 digits"))),
    }
}

fn one_each(method: &MethodDescriptor) -> Result<(), Refusal> {
    if method.is_client_streaming() || method.is_server_streaming() {
        let what = format!("{} streams: use application/connect+json or application/connect+proto", method.name());
        return Err(Refusal::protocol(Code::Unimplemented, what));
    }
    Ok(())
}

/// By protobuf's own option.
pub(super) fn has_no_side_effects(method: &MethodDescriptor) -> bool {
    let proto = method.method_descriptor_proto();
    proto.options.as_ref().is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

/// What a GET says.
struct Query {
    codec: Codec,
    message: Bytes,
}

impl Query {
    fn read(query: &str, room: &Room) -> Result<Self, Refusal> {
        let wrong = |what: &str| Refusal::protocol(Code::InvalidArgument, what);
        let (mut codec, mut message, mut base64, mut gzip) = (None, None, false, false);
        for (name, value) in call::query(query)? {
            match (&*name, &*value) {
                ("connect", "v1") => {}
                ("connect", _) => return Err(wrong("connect must be v1")),
                ("encoding", "json") => codec = Some(Codec::Json),
                ("encoding", "proto") => codec = Some(Codec::Protobuf),
                ("encoding", _) => return Err(wrong("encoding must be json or proto")),
                ("compression", "gzip") => gzip = true,
                ("compression", "" | "identity") => {}
                ("compression", _) => return Err(wrong("compression must be gzip or identity")),
                ("base64", "1") => base64 = true,
                ("message", _) => message = Some(value),
                _ => {}
            }
        }
        let (Some(codec), Some(message)) = (codec, message) else {
            return Err(wrong("a GET needs connect=v1, encoding and message in its query"));
        };
        let bytes: Bytes = if base64 {
            let decoded = URL_SAFE_NO_PAD.decode(message.trim_end_matches('='));
            decoded.map_err(|_| wrong("message is not URL-safe base64"))?.into()
        } else {
            message.into_owned().into_bytes().into()
        };
        Ok(Self { codec, message: plain(bytes, gzip, room)? })
    }
}
