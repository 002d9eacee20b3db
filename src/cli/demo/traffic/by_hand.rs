//! Calls that no generated stub makes: bytes that are no message of the type, and JSON over HTTPS as `curl` sends it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::World;
use super::scenario::Came;

const GET_PERSON: &str = "/kg.civil.v1.CivilRegistry/GetPerson";

/// The most of an answer that is read.
const LARGEST: usize = 1 << 20;

/// A system's way to its node without gRPC.
#[derive(Debug, Clone)]
pub(in crate::cli::demo) struct JsonClient {
    /// Where the node listens.
    pub(in crate::cli::demo) node: SocketAddr,
    /// The system's certificate, and whom it trusts.
    pub(in crate::cli::demo) tls: Arc<ClientConfig>,
}

impl World {
    /// Sends these bytes as the request of `GetPerson`.
    pub(super) async fn raw(&self, consumer: &str, message: Vec<u8>) -> Result<Came, Status> {
        let channel = self.channels.get(consumer).cloned().ok_or_else(|| Status::internal("no connection"))?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static(GET_PERSON);
        grpc.unary(tonic::Request::new(Bytes::from(message)), path, Raw).await?;
        Ok(Came { messages: 1, withheld: 0 })
    }

    /// `POST`s JSON, over HTTP/1.1 and TLS.
    pub(super) async fn json(&self, consumer: &str, pin: &str) -> Result<Came, Status> {
        let client = self.json.get(consumer).ok_or_else(|| Status::internal("no connection"))?;
        let failed = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let tcp = TcpStream::connect(client.node).await.map_err(|error| failed(&error))?;
        let name = ServerName::try_from("localhost").map_err(|error| failed(&error))?;
        let stream = TlsConnector::from(client.tls.clone()).connect(name, tcp).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let driver = tokio::spawn(connection);
        let request = Request::post(Uri::from_static(GET_PERSON))
            .header(header::HOST, client.node.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("kopuro-user", "inspector-14")
            .body(Full::new(Bytes::from(serde_json::json!({ "pin": pin }).to_string())))
            .map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| failed(&error))?.to_bytes();
        driver.abort();
        let answer: serde_json::Value = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
        if !head.status.is_success() {
            return Err(Status::new(Code::Unknown, format!("HTTP status {}: {answer}", head.status)));
        }
        if answer["person"]["pin"] != pin {
            return Err(Status::data_loss("the answer is about somebody else"));
        }
        let withheld = head.headers.get("trailer-kopuro-withheld").and_then(|count| count.to_str().ok()?.parse().ok());
        Ok(Came { messages: 1, withheld: withheld.unwrap_or_default() })
    }
}

/// Bytes as they are, in both directions.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
