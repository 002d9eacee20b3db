//! A question of this node's own to another node, beside the calls that it carries: one message there, one back, on the connections that
//! the calls go by.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use prost::Message;
use tonic::Status;

use super::Gateway;
use super::body::{Arriving, Outgoing, Whole};
use super::view::Peer;

/// Asks, for at most `patience` and for an answer of at most `largest` bytes. The error is for the log, or for whoever wanted to know.
pub(super) async fn ask<Q: Message, A: Message + Default>(
    gateway: &Gateway,
    peer: &Peer,
    path: &'static str,
    question: &Q,
    largest: u32,
    patience: Duration,
) -> Result<A, String> {
    let mut message = BytesMut::from(&[0][..]);
    message.put_u32(u32::try_from(question.encoded_len()).map_err(|error| error.to_string())?);
    question.encode(&mut message).map_err(|error| error.to_string())?;
    let mut request = http::Request::post(path).body(Outgoing::Whole(Whole::of(message.freeze())));
    if let Ok(request) = &mut request {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    let request = request.map_err(|error| error.to_string())?;
    let asking = async {
        let (response, _in_flight) = peer.upstream.send(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let collected = Whole::collect(Arriving::Wire(body), largest, &gateway.budget).await;
        let (mut whole, _, trailers) = collected.map_err(|error| format!("{error:?}"))?;
        let trailers = trailers.unwrap_or(head.headers);
        match Status::from_header_map(&trailers) {
            Some(status) if status.code() == tonic::Code::Ok => Ok(whole.take()),
            Some(status) => Err(format!("{:?}: {}", status.code(), status.message())),
            None => Err("no gRPC status".to_owned()),
        }
    };
    let answer =
        tokio::time::timeout(patience, asking).await.map_err(|_| format!("no answer within {patience:?}"))??;
    let message = answer.get(5..).ok_or("an answer without a message")?;
    A::decode(message).map_err(|error| error.to_string())
}
