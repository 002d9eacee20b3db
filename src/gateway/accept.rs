//! Connections in: TCP, TLS 1.3 with a client certificate, HTTP/2, and who calls. Each step has a time limit, so that nobody holds a
//! place by doing nothing; each listener has a limit of connections, and of those that have not said who they are. At the systems'
//! listener HTTP/1.1 is spoken too, for what [`super::web`] understands.
//!
//! A connection lives as long as its certificate holds: when certificates, CRLs or roots are reloaded, every open connection is judged
//! again by the new ones and cut if it fails; so is one whose certificate or CRL has expired, at the directory's next poll. Other nodes
//! do so too with ours: when it is replaced, they are asked to connect anew (GOAWAY), long before the old one may end or be revoked,
//! and what runs on the old connection may end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::body::{Answer, Arriving, BoxError};
use super::own::{OwnAnswer, OwnServices};
use super::refusal::Refusal;
use super::socket::Socket;
use super::stall::Stalling;
use super::strangers::{Stranger, Strangers};
use super::untaken::Untaken;
use super::upstream::{CONNECTION_WINDOW, STREAM_WINDOW, root_cause};
use super::view::{PROOF_ROOM, View};
use super::workers::Workers;
use super::{consumer, leg, provider, web};
use crate::log::entry::Side;
use crate::telemetry::metrics::Listener as Role;
use crate::trust::certificate::{PeerIdentity, Usage};
use crate::trust::tls::{self, Credentials};

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for a head of HTTP/1.1 and what comes with it; hyper takes no less than 8 KiB.
const HTTP1_BUFFER: usize = 64 << 10;

/// After a failed accept (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: Arc<PeerIdentity>,
    pub(super) address: SocketAddr,
}

/// A listener and what its connections need.
pub(super) struct Listener {
    pub(super) gateway: Arc<Gateway>,
    pub(super) role: Role,
    pub(super) own: OwnServices,
    pub(super) strangers: Arc<Strangers>,
    /// Places of those who have shaken hands.
    pub(super) connections: Arc<Semaphore>,
    /// Changes when certificates are to be judged again.
    pub(super) reloaded: watch::Receiver<u64>,
    /// No new connections and no new exchanges; running ones may end.
    pub(super) drain: CancellationToken,
    /// The end for those, too.
    pub(super) abort: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) workers: Arc<Workers>,
}

impl Caller {
    /// A certificate can expire while its connection is open.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let now = UnixTime::now().as_secs();
        if u64::try_from(self.peer.not_after_unix).is_ok_and(|until| now <= until) {
            Ok(())
        } else {
            Err(Refusal::certificate("it has expired"))
        }
    }
}

impl Listener {
    /// Accepts until drained.
    pub(super) async fn serve(self, listener: TcpListener) {
        let this = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = this.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = this.role.as_str(), %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = this.clone();
            // Here and not in the task, so that their order is that of their coming.
            let stranger = this.strangers.enter();
            this.tasks.spawn(async move {
                let open = connection.gateway.metrics.connections(connection.role);
                open.increment(1.0);
                if let Err(error) = connection.connection(stream, address, stranger).await {
                    connection.gateway.metrics.connection_refused(connection.role, "handshake");
                    tracing::info!(listener = connection.role.as_str(), %address, error = %root_cause(error.as_ref()), "connection refused");
                }
                open.decrement(1.0);
            });
        }
    }

    async fn connection(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        stranger: Stranger,
    ) -> Result<(), BoxError> {
        // From before the certificate is judged, so that no reload is missed.
        let mut reloaded = self.reloaded.clone();
        reloaded.mark_unchanged();
        stream.set_nodelay(true)?;
        let limit = self.gateway.limits.handshake_timeout;
        let view = self.gateway.view();
        let shown = view.credentials.clone();
        let (mut io, peer, spoken) = tokio::select! {
            shaken = tokio::time::timeout(limit, self.handshake(Socket::new(stream), view)) => {
                shaken.map_err(|_| format!("no TLS and HTTP/2 handshake within {limit:?}"))??
            }
            () = stranger.pushed_out() => return Err("no handshake before many newer connections came".into()),
        };
        drop(stranger);
        let Ok(_place) = self.connections.try_acquire() else {
            tracing::warn!(listener = self.role.as_str(), peer = %peer.identity, "at the limit of connections: one was closed");
            self.gateway.metrics.connection_refused(self.role, "limit");
            return Ok(());
        };
        let (caller, ends) = (Arc::new(Caller { peer, address }), Ends { reloaded, shown });
        io.inner.get_mut().0.leave()?;
        let this = self.clone();
        let carrying = self.workers.run(async move { this.carry(io, spoken, caller, ends).await });
        match carrying {
            // A task that broke has said so.
            Some(carrying) => carrying.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    /// Carries the exchanges of a connection, on a worker.
    async fn carry(
        self: Arc<Self>,
        mut io: Rewound<tokio_rustls::server::TlsStream<Socket>>,
        spoken: Spoken,
        caller: Arc<Caller>,
        ends: Ends,
    ) -> Result<(), BoxError> {
        io.inner.get_mut().0.arrive()?;
        let untaken = Arc::new(Untaken::default());

        let limits = &self.gateway.limits;
        let service = service_fn(|request| {
            let (this, caller, untaken) = (self.clone(), caller.clone(), untaken.clone());
            // Boxed: hyper moves a call's future several times before it runs, and ours is large.
            Box::pin(async move {
                let response = this.call(&caller, request).await;
                Ok::<_, std::convert::Infallible>(response.map(|answer| answer.given(&untaken)))
            })
        });
        match spoken {
            Spoken::Http2 => {
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .auto_date_header(false)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_concurrent_streams(limits.streams_per_connection.get())
                    .max_header_list_size(self.header_list())
                    .keep_alive_interval(limits.keepalive_interval)
                    .keep_alive_timeout(limits.keepalive_timeout)
                    .serve_connection(TokioIo::new(io), service);
                self.drive(connection, &caller, &untaken, ends).await;
            }
            Spoken::Http1 => {
                // Of HTTP/1.1 nothing tells that the other end is still there: a head has to come in time, also the first one
                // of a connection and the next one of a quiet connection, and what is written has to be taken.
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .auto_date_header(false)
                    .header_read_timeout(limits.request_body_timeout)
                    .max_header_size(limits.metadata)
                    .max_buf_size(limits.metadata.max(HTTP1_BUFFER))
                    .serve_connection(TokioIo::new(Stalling::new(io, 2 * limits.request_body_timeout)), service);
                self.drive(connection, &caller, &untaken, ends).await;
            }
        }
        Ok(())
    }

    /// Serves until the other end goes, the node drains, or the connection may not go on.
    async fn drive(
        &self,
        connection: impl Serving,
        caller: &Caller,
        untaken: &Untaken,
        Ends { mut reloaded, shown }: Ends,
    ) {
        tokio::pin!(connection);
        let patience = self.gateway.limits.request_body_timeout;
        let mut tick = tokio::time::interval_at(Instant::now() + patience, patience);
        let (mut draining, mut ending) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %caller.peer.identity, error = %root_cause(&error), "connection ended");
                    }
                    return;
                }
                () = self.abort.cancelled() => return,
                _ = tick.tick() => {
                    if !untaken.tick() {
                        tracing::warn!(peer = %caller.peer.identity, "closing a connection that does not take its answers");
                        return;
                    }
                }
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    if !std::mem::replace(&mut ending, true) {
                        connection.as_mut().end_gracefully();
                    }
                }
                Ok(()) = reloaded.changed() => {
                    if let Err(error) = self.judge(caller) {
                        tracing::warn!(peer = %caller.peer.identity, serial = %caller.peer.serial_hex, %error,
                            "closing a connection whose certificate is no longer valid");
                        return;
                    }
                    // Nodes alone: other clients do not look at a certificate again, and not all know how to begin anew.
                    let replaced = self.role == Role::Nodes && self.gateway.view().credentials != shown;
                    if replaced && !ending {
                        ending = true;
                        connection.as_mut().end_gracefully();
                    }
                }
            }
        }
    }

    async fn handshake<T>(
        &self,
        stream: T,
        view: Arc<View>,
    ) -> Result<(Rewound<tokio_rustls::server::TlsStream<T>>, Arc<PeerIdentity>, Spoken), BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let server = match self.role {
            Role::Systems => view.systems_server.clone(),
            Role::Nodes => view.server.clone(),
        };
        let mut stream = TlsAcceptor::from(server).accept(stream).await.map_err(|error| tls::explain(&error))?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Arc::new(self.gateway.view().anchors.verify_peer(chain, Usage::Client, UnixTime::now())?);
        let agreed = stream.get_ref().1.alpn_protocol();
        if agreed == Some(tls::HTTP1) {
            return Ok((Rewound { first: Bytes::new(), inner: stream }, peer, Spoken::Http1));
        }
        // Who names no protocol is known by how they begin; only at the systems' listener may that be HTTP/1.1.
        let may_be_http1 = agreed.is_none() && self.role == Role::Systems;
        let mut preface = [0; PREFACE.len()];
        let mut read = 0;
        while read < preface.len() && (!may_be_http1 || PREFACE.starts_with(&preface[..read])) {
            match stream.read(&mut preface[read..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                some => read += some,
            }
        }
        let first = Bytes::copy_from_slice(&preface[..read]);
        match preface == *PREFACE {
            true => Ok((Rewound { first, inner: stream }, peer, Spoken::Http2)),
            false if may_be_http1 => Ok((Rewound { first, inner: stream }, peer, Spoken::Http1)),
            false => Err("it does not begin as HTTP/2 does".into()),
        }
    }

    /// The largest header list taken: of nodes, with the proof besides what their callers may send.
    fn header_list(&self) -> u32 {
        let metadata = u32::try_from(self.gateway.limits.metadata).unwrap_or(u32::MAX);
        match self.role {
            Role::Systems => metadata,
            Role::Nodes => metadata.saturating_add(PROOF_ROOM),
        }
    }

    fn judge(&self, caller: &Caller) -> Result<(), crate::trust::certificate::CertificateError> {
        self.gateway.view().anchors.verify_peer(&caller.peer.chain, Usage::Client, UnixTime::now()).map(drop)
    }

    async fn call(&self, caller: &Arc<Caller>, request: Request<Incoming>) -> Response<Answer> {
        if self.role == Role::Systems && !web::is_grpc(&request) {
            return Box::pin(web::answer(self, caller, request)).await;
        }
        self.grpc(caller, request.map(Arriving::Wire)).await
    }

    /// Carries a gRPC call, whatever it was when it came.
    pub(super) async fn grpc(&self, caller: &Caller, request: Request<Arriving>) -> Response<Answer> {
        if self.own.serves(self.role, request.uri().path()) {
            if let Err(refusal) = caller.check() {
                return leg::respond(
                    refusal.to_trailers(Side::Consumer),
                    Answer::Whole(super::body::Whole::default(), None),
                );
            }
            let answer = Box::pin(self.own.call(caller, request)).await;
            return answer.map(|body| Answer::Own(OwnAnswer::new(body, self.drain.clone())));
        }
        let begun = match self.role {
            Role::Systems => consumer::consume(&self.gateway, caller, request),
            Role::Nodes => provider::provide(&self.gateway, caller, request),
        };
        begun.carry(&self.gateway).await
    }
}

/// By what a connection may have to end: reloads, and whether its own end's certificate is still the one that was shown.
struct Ends {
    reloaded: watch::Receiver<u64>,
    shown: Arc<Credentials>,
}

/// The version of HTTP on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
}

/// A connection of either version.
trait Serving: Future<Output = Result<(), hyper::Error>> {
    /// No new requests; running ones may end.
    fn end_gracefully(self: Pin<&mut Self>);
}

impl<I, S> Serving for http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<BoxError>,
{
    fn end_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Serving for http2::Connection<I, S, TokioExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    fn end_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// A stream whose first bytes were read ahead, to be read again.
struct Rewound<T> {
    first: Bytes,
    inner: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let taken = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..taken]);
        self.first.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
