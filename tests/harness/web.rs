//! A system that speaks plain HTTP to its node: either version, over mutual TLS. Every wait is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kopuro::trust::pki::Issued;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Federation;
use super::raw::{Body, client_config, tls, whole};

const PATIENCE: Duration = Duration::from_secs(15);

/// A connection.
pub(crate) enum Web {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// HTTP/1.1 over TLS, to be written by hand.
pub(crate) async fn http1_stream(federation: &Federation, address: SocketAddr, with: &Issued) -> TlsStream<TcpStream> {
    let mut config = client_config(federation, Some(with));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls(config, address).await.unwrap()
}

impl Web {
    pub(crate) async fn http1(federation: &Federation, address: SocketAddr, with: &Issued) -> Self {
        let stream = http1_stream(federation, address, with).await;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self::Http1(sender)
    }

    pub(crate) async fn http2(federation: &Federation, address: SocketAddr, with: &Issued) -> Self {
        let stream = tls(client_config(federation, Some(with)), address).await.unwrap();
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self::Http2(sender)
    }

    /// A POST of JSON.
    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Told {
        let body = body.into();
        self.send("POST", path, &[&[("content-type", "application/json")], headers].concat(), whole(body)).await
    }

    /// A GET.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Told {
        self.send("GET", path, headers, whole("")).await
    }

    /// Any request; of headers of one name the last counts.
    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Told {
        let (head, body) = self.open(method, path, headers, body).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("an end").expect("a body").to_bytes();
        Told { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The same, its answer still to come.
    pub(crate) async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Incoming> {
        let uri = match self {
            Self::Http1(_) => path.to_owned(),
            Self::Http2(_) => format!("https://node{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).body(body).unwrap();
        if matches!(self, Self::Http1(_)) {
            request.headers_mut().insert("host", "node".parse().unwrap());
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let answering = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, answering).await.expect("an answer in time").expect("an answer")
    }
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Reason and side of a node's own error.
    pub(crate) fn reason(&self) -> (String, String) {
        let detail = self.json()["details"][0].clone();
        assert_eq!(detail["type"], "google.rpc.ErrorInfo", "{self:?}");
        assert_eq!(detail["debug"]["domain"], "kopuro");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&detail["debug"]["reason"]), text(&detail["debug"]["metadata"]["side"]))
    }
}
