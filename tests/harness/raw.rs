//! Callers that no generated stub makes: TLS streams and HTTP/2 requests written by hand. Every wait is bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kopuro::trust::pki::Issued;
use kopuro::trust::tls::{Credentials, client_config_by_name, explain};
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;

use super::Federation;
use super::probe::Blob;

/// What HTTP/2 begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request's body, as it pleases the test.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An HTTP/2 connection.
pub(crate) struct Raw {
    sender: SendRequest<Body>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) http: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Of the trailers, or of the headers where there are none.
    pub(crate) status: Option<Status>,
}

impl Raw {
    /// Connects over mutual TLS.
    pub(crate) async fn connect(federation: &Federation, address: SocketAddr, with: &Issued) -> Self {
        let stream = tls(client_config(federation, Some(with)), address).await.unwrap();
        let (sender, driver) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self { sender }
    }

    /// A gRPC call with these headers besides; one of the same name takes the place of ours.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Answered, hyper::Error> {
        let mut request = Request::post(format!("https://node{path}")).body(body).unwrap();
        let ours = [("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in ours.iter().chain(headers) {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        self.send(request).await
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Answered, hyper::Error> {
        let answering = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let collected = body.collect().await?;
            let status = Status::from_header_map(collected.trailers().unwrap_or(&head.headers));
            Ok(Answered { http: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), status })
        };
        tokio::time::timeout(PATIENCE, answering).await.expect("an answer, or an error")
    }
}

/// A body at once.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body and its trailers.
pub(crate) fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Body {
    let frames = [http_body::Frame::data(bytes), http_body::Frame::trailers(trailers)];
    http_body_util::StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync()
}

/// One gRPC message.
pub(crate) fn framed(value: &str) -> Body {
    whole(frame(value))
}

/// Its bytes.
pub(crate) fn frame(value: &str) -> Bytes {
    let message = Blob { value: value.to_owned().into() }.encode_to_vec();
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.freeze()
}

/// TLS 1.3 with this certificate and ALPN h2.
pub(crate) fn client_config(federation: &Federation, with: Option<&Issued>) -> rustls::ClientConfig {
    let credentials = with.map(|issued| Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap());
    (*client_config_by_name(&[federation.path("root.pem")], credentials.as_ref()).unwrap()).clone()
}

/// Connects; a refusal of our certificate comes only with the first read.
pub(crate) async fn tls(config: rustls::ClientConfig, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    tokio::time::timeout(PATIENCE, connecting).await.expect("a handshake ends")
}

/// Why the node ended a connection on which we say `first`: its alert, or `closed`.
pub(crate) async fn ended(config: rustls::ClientConfig, address: SocketAddr, first: &[u8]) -> String {
    let talk = async {
        let mut stream = tls(config, address).await?;
        let written = async {
            stream.write_all(first).await?;
            stream.flush().await
        };
        match written.await {
            // The node hung up in the middle; what it said before can still be read.
            Err(error) if hung_up(&error) => {}
            written => written?,
        }
        until_closed(&mut stream).await
    };
    match talk.await {
        Ok(_) => "closed".to_owned(),
        Err(error) => explain(&error),
    }
}

/// Reads until the node closes the connection; what it said until then.
pub(crate) async fn until_closed<S>(stream: &mut S) -> std::io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + Unpin,
{
    let mut said = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(n) => said.extend_from_slice(&buffer[..n]),
                // Closed without a TLS goodbye.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) if hung_up(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the node closes the connection")?;
    Ok(said)
}

fn hung_up(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
}
