//! Streams: Connect's envelopes are gRPC's (a flag, a length, a message), except that a stream ends with an envelope of flag 2, which
//! holds as JSON what gRPC has in trailers. For a path of google.api.http each of these is a line of JSON instead: `{"result": …}`,
//! and last `{"end": …}`. Messages are read and written one at a time; no more than one is held.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::call::{self, Codec, Room, Target, Wording};
use super::{connect, error};
use crate::gateway::body::{Answer, Arriving, BoxError, CollectError, Held};
use crate::gateway::framing::{FramingError, PREFIX};
use crate::gateway::refusal::Refusal;
use crate::log::entry::Side;

/// The message is compressed.
const COMPRESSED: u8 = 1;
/// The last envelope.
const END_OF_STREAM: u8 = 2;

/// A body, message by message.
pub(super) struct Envelopes<B> {
    body: B,
    buffer: BytesMut,
    held: Held,
    limit: u32,
    pub(super) trailers: Option<HeaderMap>,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Envelopes<B> {
    pub(super) fn new(body: B, room: &Room) -> Self {
        Self { body, buffer: BytesMut::new(), held: Held::new(&room.budget), limit: room.message, trailers: None }
    }

    /// The next flag and message; none at the end.
    pub(super) async fn next(&mut self) -> Option<Result<(u8, Bytes), CollectError>> {
        loop {
            match self.take() {
                Ok(None) => {}
                Ok(Some(envelope)) => return Some(Ok(envelope)),
                Err(error) => return Some(Err(error)),
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return None,
                None => return Some(Err(CollectError::Framing(FramingError::Truncated))),
                Some(Err(error)) => return Some(Err(CollectError::Broken(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Err(error) = self.held.add(data.len()) {
                            return Some(Err(error));
                        }
                        self.buffer.put(data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn take(&mut self) -> Result<Option<(u8, Bytes)>, CollectError> {
        if self.buffer.len() < PREFIX {
            return Ok(None);
        }
        let flag = self.buffer[0];
        let size = (&self.buffer[1..PREFIX]).get_u32();
        if size > self.limit {
            return Err(CollectError::Framing(FramingError::TooLarge { size, limit: self.limit }));
        }
        let whole = PREFIX + size as usize;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut envelope = self.buffer.split_to(whole).freeze();
        self.held.release(whole);
        envelope.advance(PREFIX);
        Ok(Some((flag, envelope)))
    }
}

/// The body of the gRPC call that a streamed request stands for.
pub(super) fn requests(body: Arriving, codec: Codec, input: MessageDescriptor, gzip: bool, room: Room) -> Arriving {
    let envelopes = Envelopes::new(body, &room);
    let frames = futures_util::stream::unfold(Some(envelopes), move |envelopes| {
        let (input, room) = (input.clone(), room.clone());
        async move {
            let mut envelopes = envelopes?;
            let read = match envelopes.next().await? {
                Ok((END_OF_STREAM, _)) => return None,
                Ok((flag, message)) => request_message(flag, message, codec, &input, gzip, &room),
                Err(CollectError::Framing(error)) => Err(Refusal::framing(error, "request")),
                Err(CollectError::Broken(error)) => Err(Refusal::of_request(error)),
                Err(CollectError::Budget) => Err(Refusal::overloaded("bytes held in messages")),
            };
            match read {
                Ok(message) => Some((Ok(Frame::data(message)), Some(envelopes))),
                Err(refusal) => Some((Err(BoxError::from(refusal)), None)),
            }
        }
    });
    Arriving::Made(StreamBody::new(frames).boxed_unsync())
}

fn request_message(
    flag: u8,
    message: Bytes,
    codec: Codec,
    input: &MessageDescriptor,
    gzip: bool,
    room: &Room,
) -> Result<Bytes, Refusal> {
    let plain = match flag {
        0 => message,
        COMPRESSED if gzip => connect::plain(message, true, room)?,
        _ => return Err(Refusal::malformed("an envelope's flag is not one of those that may be in a request")),
    };
    call::framed(codec.read(input, plain, room)?)
}

/// A gRPC answer as a stream; its head's metadata as headers.
pub(super) fn answers(response: Response<Answer>, target: &Target, wording: Wording, room: &Room) -> Response<Answer> {
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    let at_once = Status::from_header_map(&headers);
    let compressed = headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
    call::strip(&mut headers);
    let writer = Writer {
        wording,
        output: target.method.as_ref().map(prost_reflect::MethodDescriptor::output),
        types: target.pool().cloned(),
        gzip: compressed,
        room: room.clone(),
    };
    let end = at_once.map(|status| writer.end(&status, &HeaderMap::new()));
    let state = match end {
        Some(end) => Next::Last(end),
        None => Next::Read(Box::new(Envelopes::new(body, room)), writer),
    };
    let frames = futures_util::stream::unfold(state, |state| async move {
        let (bytes, state) = match state {
            Next::Done => return None,
            Next::Last(end) => (end, Next::Done),
            Next::Read(mut envelopes, writer) => match writer.next(&mut envelopes).await {
                Ok(message) => (message, Next::Read(envelopes, writer)),
                Err(end) => (end, Next::Done),
            },
        };
        Some((Ok::<_, BoxError>(Frame::data(bytes)), state))
    });
    let mut response = Response::new(Answer::Made(StreamBody::new(frames).boxed_unsync()));
    *response.headers_mut() = headers;
    response
}

enum Next {
    Read(Box<Envelopes<Answer>>, Writer),
    Last(Bytes),
    Done,
}

struct Writer {
    wording: Wording,
    output: Option<MessageDescriptor>,
    types: Option<DescriptorPool>,
    gzip: bool,
    room: Room,
}

impl Writer {
    /// The next envelope, or the last one.
    async fn next(&self, envelopes: &mut Envelopes<Answer>) -> Result<Bytes, Bytes> {
        let broken = |why: &str| Refusal::answer(why).to_status(Side::Consumer);
        let (flag, message) = match envelopes.next().await {
            Some(Ok(envelope)) => envelope,
            Some(Err(_)) => return Err(self.end(&broken("it is not whole"), &HeaderMap::new())),
            None => {
                let mut trailers = envelopes.trailers.take().unwrap_or_default();
                let status =
                    Status::from_header_map(&trailers).unwrap_or_else(|| broken("it ended without a grpc-status"));
                call::strip(&mut trailers);
                return Err(self.end(&status, &trailers));
            }
        };
        let plain = match flag {
            0 => Ok(message),
            COMPRESSED if self.gzip => call::gunzip(&message, self.room.message, "response"),
            _ => Err(Refusal::answer("it is compressed in a way that was not asked for")),
        };
        let written = plain.and_then(|plain| match &self.output {
            Some(output) => self.wording.write(output, plain, &self.room),
            None => Ok(plain),
        });
        written
            .and_then(|message| match self.wording {
                Wording::Connect(_) => enveloped(0, &message),
                Wording::Rest(_) => Ok(line(b"result", &message)),
            })
            .map_err(|refusal| self.end(&refusal.to_status(Side::Consumer), &HeaderMap::new()))
    }

    fn end(&self, status: &Status, trailers: &HeaderMap) -> Bytes {
        let end = end_of_stream(status, trailers, self.types.as_ref()).to_string();
        match self.wording {
            Wording::Connect(_) => enveloped(END_OF_STREAM, end.as_bytes()).unwrap_or_default(),
            Wording::Rest(_) => line(b"end", end.as_bytes()),
        }
    }
}

/// How a stream ended, with its trailers.
fn end_of_stream(status: &Status, trailers: &HeaderMap, types: Option<&DescriptorPool>) -> Value {
    let mut metadata = Map::new();
    for name in trailers.keys() {
        let values: Vec<Value> =
            trailers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(Value::from).collect();
        metadata.insert(name.to_string(), values.into());
    }
    let mut end = json!({});
    if status.code() != Code::Ok {
        end["error"] = error::to_json(status, types);
    }
    if !metadata.is_empty() {
        end["metadata"] = metadata.into();
    }
    end
}

fn enveloped(flag: u8, message: &[u8]) -> Result<Bytes, Refusal> {
    let size = u32::try_from(message.len()).map_err(|_| Refusal::answer("a message is too large"))?;
    let mut envelope = BytesMut::with_capacity(PREFIX + message.len());
    envelope.put_u8(flag);
    envelope.put_u32(size);
    envelope.put(message);
    Ok(envelope.freeze())
}

fn line(name: &[u8], json: &[u8]) -> Bytes {
    [b"{\"", name, b"\":", json, b"}\n"].concat().into()
}
