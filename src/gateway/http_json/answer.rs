//! An HTTP answer as a gRPC one.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use prost::Message;
use prost_reflect::MethodDescriptor;
use tonic::Status;

use super::pool::Busy;
use super::status;
use crate::gateway::body::{Answer, Arriving, BoxError, CollectError, Held, Whole};
use crate::gateway::forward::Bounds;
use crate::gateway::framing::FramingError;
use crate::gateway::refusal::Refusal;
use crate::gateway::upstream::root_cause;
use crate::gateway::web::call::{framed, gunzip};
use crate::schema::http::Rule;
use crate::schema::json;

/// How a call's answer is read.
pub(super) struct Reading {
    pub(super) who: String,
    pub(super) method: MethodDescriptor,
    pub(super) rule: Option<Rule>,
    /// Largest JSON.
    pub(super) limit: usize,
    pub(super) bounds: Bounds,
}

impl Reading {
    pub(super) async fn read(
        self,
        response: Response<Incoming>,
        connection: Busy,
    ) -> Result<Response<Arriving>, Refusal> {
        let (head, body) = response.into_parts();
        let (headers, mut trailers) = metadata(&head.headers);
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_json = matches!(
            content_type.split(';').next().unwrap_or_default().trim(),
            "application/json" | "application/x-ndjson"
        );
        let gzip = head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        if head.status.is_success() && self.method.is_server_streaming() {
            if !is_json || head.headers.contains_key(CONTENT_ENCODING) {
                return Err(Refusal::not_json(&self.who, "a stream has to be application/x-ndjson, not compressed"));
            }
            return Ok(grpc(headers, Arriving::Made(self.stream(body, connection))));
        }
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let body = Arriving::Wire(body);
        let gathering = tokio::time::timeout_at(self.bounds.deadline, Whole::gather(body, limit, &self.bounds.budget));
        let mut whole = gathering.await.map_err(|_| Refusal::deadline())?.map_err(|error| self.broken(error))?;
        connection.give_back();
        let mut bytes = whole.take();
        if gzip {
            bytes = gunzip(&bytes, limit, "response")?;
        }
        if !head.status.is_success() {
            let status = status::of(head.status, &bytes, self.method.parent_pool());
            return Ok(self.failed(headers, &trailers, &status));
        }
        if !is_json && !bytes.is_empty() {
            return Err(Refusal::not_json(&self.who, "its content-type is not application/json"));
        }
        let message = framed(self.message(&bytes)?)?;
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let answer = Answer::Whole(Whole::counted(message, &self.bounds.budget), Some(trailers));
        Ok(grpc(headers, Arriving::Answer(Box::new(answer))))
    }

    /// One message. Nothing said is one without fields.
    fn message(&self, bytes: &[u8]) -> Result<Bytes, Refusal> {
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        let read = match &self.rule {
            Some(rule) => rule.read_answer(bytes, self.limit),
            None => json::read_leniently(&self.method.output(), bytes, self.limit),
        };
        Ok(read.map_err(|error| Refusal::not_json(&self.who, error))?.encode_to_vec().into())
    }

    fn failed(&self, mut headers: HeaderMap, trailers: &HeaderMap, status: &Status) -> Response<Arriving> {
        headers.extend(trailers.iter().map(|(name, value)| (name.clone(), value.clone())));
        if status.add_header(&mut headers).is_err() {
            headers.insert("grpc-status", HeaderValue::from_static("2"));
        }
        grpc(headers, Arriving::Answer(Box::new(Answer::Whole(Whole::default(), None))))
    }

    fn broken(&self, error: CollectError) -> Refusal {
        match error {
            CollectError::Framing(error) => Refusal::framing(error, "response"),
            CollectError::Broken(error) => {
                Refusal::broken_off(&self.who, tonic::Code::Unavailable, root_cause(error.as_ref()))
            }
            CollectError::Budget => Refusal::overloaded("bytes held in messages"),
        }
    }

    /// Lines of JSON, a message each.
    fn stream(self, body: Incoming, connection: Busy) -> http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError> {
        let held = Held::new(&self.bounds.budget);
        let lines = Lines { reading: self, body, buffer: BytesMut::new(), seen: 0, held, connection: Some(connection) };
        let frames = futures_util::stream::unfold(Some(lines), |lines| async move {
            let mut lines = lines?;
            match lines.next().await {
                Ok(Some(message)) => Some((Ok(Frame::data(message)), Some(lines))),
                Ok(None) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    if let Some(connection) = lines.connection.take() {
                        connection.give_back();
                    }
                    Some((Ok(Frame::trailers(trailers)), None))
                }
                Err(refusal) => Some((Err(BoxError::from(refusal)), None)),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

struct Lines {
    reading: Reading,
    body: Incoming,
    buffer: BytesMut,
    /// In which no end of line was found.
    seen: usize,
    held: Held,
    connection: Option<Busy>,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            while let Some(at) = self.buffer[self.seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.take(self.seen + at);
                self.buffer.advance(1);
                self.held.release(1);
                if !line.trim_ascii().is_empty() {
                    return self.message(&line).map(Some);
                }
            }
            self.seen = self.buffer.len();
            if self.buffer.len() > self.reading.limit {
                let (size, limit) = (u32::try_from(self.buffer.len()).unwrap_or(u32::MAX), self.reading.bounds.message);
                return Err(Refusal::framing(FramingError::TooLarge { size, limit }, "response"));
            }
            match self.body.frame().await {
                None => {
                    let last = self.take(self.buffer.len());
                    let is_empty = last.trim_ascii().is_empty();
                    return if is_empty { Ok(None) } else { self.message(&last).map(Some) };
                }
                Some(Err(error)) => return Err(self.reading.broken(CollectError::Broken(error.into()))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.held.add(data.len()).map_err(|error| self.reading.broken(error))?;
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take(&mut self, size: usize) -> Bytes {
        self.seen = 0;
        self.held.release(size);
        self.buffer.split_to(size).freeze()
    }

    fn message(&self, line: &[u8]) -> Result<Bytes, Refusal> {
        framed(self.reading.message(line)?)
    }
}

fn grpc(mut headers: HeaderMap, body: Arriving) -> Response<Arriving> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// An answer's headers as metadata; those that Connect would call trailers.
fn metadata(headers: &HeaderMap) -> (HeaderMap, HeaderMap) {
    const NOT: [&str; 4] = ["connection", "keep-alive", "set-cookie", "alt-svc"];
    let (mut leading, mut trailing) = (HeaderMap::new(), HeaderMap::new());
    for (name, value) in headers {
        let text = name.as_str();
        if let Some(Ok(name)) = text.strip_prefix("trailer-").map(HeaderName::try_from) {
            // A status of gRPC's is not an HTTP service's to give.
            if !name.as_str().starts_with("grpc-") {
                trailing.append(name, value.clone());
            }
        } else if !NOT.contains(&text) && !text.starts_with("content-") && !text.starts_with("grpc-") {
            leading.append(name, value.clone());
        }
    }
    (leading, trailing)
}
