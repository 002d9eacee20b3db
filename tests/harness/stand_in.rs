//! A provider's node in a test's own hands: it listens where the directory says, with that node's certificate, and answers as the
//! test pleases.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kopuro::trust::tls::Credentials;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::{Federation, PROVIDER};

/// What it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What it answers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Answers {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// The node; gone when dropped.
pub(crate) struct StandIn(AbortHandle);

type Answering = dyn Fn(Asked) -> BoxFuture<'static, Answers> + Send + Sync;

impl Asked {
    pub(crate) fn exchange(&self) -> Uuid {
        self.headers["kopuro-exchange"].to_str().unwrap().parse().unwrap()
    }
}

impl StandIn {
    pub(crate) async fn start(federation: &mut Federation, answer: Arc<Answering>) -> Self {
        let issued = federation.issue(&format!("{PROVIDER}/_node/main"));
        let credentials = Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // Whom it lets in is not what is tested here.
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(credentials.chain().to_vec(), key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let address = SocketAddr::from(([127, 0, 0, 1], federation.ports[PROVIDER].nodes));
        let listener = TcpListener::bind(address).await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| respond(answer.clone(), request));
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self(serving.abort_handle())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn respond(
    answer: Arc<Answering>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let asked = Asked { path: head.uri.path().to_owned(), headers: head.headers, body };
    let Answers { headers, body, trailers } = answer(asked).await;
    let mut frames = Vec::new();
    if !body.is_empty() {
        frames.push(Ok(Frame::data(body)));
    }
    if !trailers.is_empty() {
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
    *response.headers_mut() = headers;
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}
