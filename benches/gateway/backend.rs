//! The echo back-end: the least a gRPC server can do over hyper's HTTP/2 and mutual TLS, in a process of its own, the
//! same for every row. It does not parse what it echoes; a server stream yields one DATA frame per message, as gRPC
//! servers do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::echo::{self, StreamRequest};

/// Flow-control windows of the back-end and of the load generator: a small stream's, a large connection's.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves until the process ends; calls `bound` with the address first.
pub(crate) async fn serve(tls: Arc<ServerConfig>, bound: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    bound(listener.local_addr()?);
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(tls) = acceptor.accept(socket).await else { return };
            // What goes wrong on a connection shows at the caller's, who counts it.
            let _ = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(1024)
                .serve_connection(TokioIo::new(tls), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let streams = request.uri().path() == echo::SERVER_STREAM;
    let message = request.into_body().collect().await?.to_bytes();
    let body = if streams { stream_body(&message) } else { unary_body(message) };
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

fn unary_body(message: Bytes) -> Body {
    Full::new(message)
        .map_err(|never| match never {})
        .with_trailers(async { Some(Ok::<_, hyper::Error>(ok())) })
        .boxed()
}

fn stream_body(request: &Bytes) -> Body {
    let asked = request.get(5..).and_then(|m| StreamRequest::decode(m).ok()).unwrap_or_default();
    let message = echo::streamed(asked.size as usize);
    let messages = (0..asked.count).map(move |_| Ok::<_, Infallible>(Frame::data(message.clone())));
    let frames = messages.chain(std::iter::once(Ok(Frame::trailers(ok()))));
    StreamBody::new(stream::iter(frames)).map_err(|never| match never {}).boxed()
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}
