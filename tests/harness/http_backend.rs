//! A back-end that knows nothing of gRPC: HTTP/1.1 and JSON over mutual TLS, answering as the test pleases.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kopuro::trust::certificate::Anchors;
use kopuro::trust::tls::{Credentials, HTTP1, server_config};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::Federation;

/// What it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) struct Says {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// And then nothing more, without an end.
    pub(crate) hangs: bool,
}

pub(crate) type Answering = dyn Fn(&Asked) -> Says + Send + Sync;

/// The back-end; gone when dropped.
pub(crate) struct HttpBackend {
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that were opened.
    pub(crate) connections: Arc<Mutex<usize>>,
    serving: AbortHandle,
}

impl Says {
    pub(crate) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.into(), hangs: false }
    }
}

impl HttpBackend {
    /// At this port, with the certificate of this system; it lets in whom the federation's root vouches for.
    pub(crate) async fn start(federation: &mut Federation, system: &str, port: u16, answer: Arc<Answering>) -> Self {
        let issued = federation.issue(system);
        let credentials = Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap();
        let anchors = Arc::new(Anchors::load(&[federation.path("root.pem")], &[]).unwrap());
        let mut tls = (*server_config(&credentials, &anchors).unwrap()).clone();
        tls.alpn_protocols = vec![HTTP1.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        let (asked, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (seen, opened) = (asked.clone(), connections.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, seen, opened) = (acceptor.clone(), answer.clone(), seen.clone(), opened.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    *opened.lock().unwrap() += 1;
                    let service = service_fn(move |request| respond(answer.clone(), seen.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { asked, connections, serving: serving.abort_handle() }
    }

    /// The last request.
    pub(crate) fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().cloned().expect("a request")
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn respond(
    answer: Arc<Answering>,
    seen: Arc<Mutex<Vec<Asked>>>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let asked = Asked { method: head.method.to_string(), target: head.uri.to_string(), headers: head.headers, body };
    let says = answer(&asked);
    seen.lock().unwrap().push(asked);
    let first = futures_util::stream::iter([Ok(Frame::data(says.body))]);
    let body = match says.hangs {
        true => StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending())).boxed_unsync(),
        false => StreamBody::new(first).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = says.status.try_into().unwrap();
    for (name, value) in says.headers {
        response.headers_mut().append(name, value.parse().unwrap());
    }
    Ok(response)
}
