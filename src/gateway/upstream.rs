//! Connections to where calls go: another member's node, or a back-end system of our own. Each destination keeps up to
//! `connections` HTTP/2 connections, shared out among the worker threads, opens another when those it has are busy, and sends a call on the least busy one.
//!
//! A connection lives as long as the other end's certificate holds. When that is about to end, no new calls go on it: the next
//! connection shows the certificate's successor, and nothing has to be cut off.
//!
//! A call is tried again only when hyper hands it back unsent, which is what gRPC calls transparent retry. A destination that
//! refused a connection is not tried again for a moment: callers get the last error at once instead of queueing for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::body::{BoxError, Outgoing};
use super::reachable::Reachable;
use super::socket::Socket;
use super::workers;

/// HTTP/2 flow-control window of a stream: what one slow reader can make us hold.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;

/// HTTP/2 window of a connection. Only accounting: what is held is bounded by the streams' windows. It is large because h2 closes
/// a connection whose unread small frames cost more than half of it, and many slow readers of tiny messages share one.
pub(super) const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;

/// A connection with this many calls on it is busy: the next call opens another, if one more is allowed.
const BUSY: usize = 64;

/// After a failed connect, how long callers get its error at once.
const BACK_OFF: Duration = Duration::from_millis(250);

/// So long before a certificate ends no new calls go on its connection. Longer than anybody waits between two looks.
const SOON: Duration = Duration::from_secs(600);

/// Bounds of one destination's connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct UpstreamLimits {
    /// Most connections at once, of all workers together; each may have one at least.
    pub(super) connections: usize,
    /// Threads that carry exchanges.
    pub(super) workers: usize,
    /// TCP and TLS together.
    pub(super) connect_timeout: Duration,
    /// Between HTTP/2 PINGs.
    pub(super) keepalive_interval: Duration,
    /// For a PING's answer.
    pub(super) keepalive_timeout: Duration,
    /// Largest header list taken, bytes.
    pub(super) header_list: u32,
}

/// One destination.
pub(super) struct Upstream {
    name: String,
    address: String,
    uri: Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    limits: UpstreamLimits,
    all: Connections,
    /// Of each worker, and last of all other threads: an exchange goes on by a connection of its own thread.
    pools: Box<[Pool]>,
    reachable: Reachable,
    /// The runtime on which hands are shaken; where there was none, each thread does that by itself.
    home: Option<Handle>,
}

/// The connections of one thread.
#[derive(Debug, Default)]
struct Pool {
    connections: Mutex<Vec<Arc<Connection>>>,
    connecting: tokio::sync::Mutex<Option<(Instant, String)>>,
}

/// Why a call did not get an answer's head.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection or the stream broke after the call was sent.
    #[error("{message}")]
    Broken {
        /// What gRPC makes of it.
        code: Code,
        /// For people.
        message: String,
    },
}

struct Connection {
    link: Arc<Link>,
    sender: SendRequest<Outgoing>,
    in_flight: AtomicUsize,
}

/// A connection as far as its certificate is concerned.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) destination: String,
    /// Its chain; empty without TLS.
    pub(super) peer: Vec<CertificateDer<'static>>,
    /// Ends the connection and all calls on it.
    pub(super) cut: CancellationToken,
    /// No new calls: its certificate is about to end.
    leaving: AtomicBool,
}

impl Link {
    pub(super) fn new(destination: String, peer: Vec<CertificateDer<'static>>, cut: CancellationToken) -> Self {
        Self { destination, peer, cut, leaving: AtomicBool::new(false) }
    }

    /// Whether new calls may go on it.
    pub(super) fn takes_calls(&self) -> bool {
        !self.cut.is_cancelled() && !self.leaving.load(Ordering::Relaxed)
    }
}

/// Every connection of a node that is pooled or carries a call, whatever became of the view that it was made under.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<Weak<Link>>>>);

impl Connections {
    /// Looks again at the certificates behind open connections, each with its destination's name, and at a time; those that no
    /// longer hold are closed with their calls, those that soon will not take no new ones.
    pub(super) fn recheck(&self, still_good: impl Fn(&str, &[CertificateDer<'static>], UnixTime) -> bool) {
        let now = UnixTime::now();
        let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
        let all: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        for connection in all.iter().filter(|connection| !connection.peer.is_empty()) {
            if !still_good(&connection.destination, &connection.peer, now) {
                tracing::warn!(destination = %connection.destination, "closing a connection whose certificate is no longer valid");
                connection.cut.cancel();
            } else if !still_good(&connection.destination, &connection.peer, soon) {
                connection.leaving.store(true, Ordering::Relaxed);
            }
        }
    }

    /// One more.
    pub(super) fn add(&self, connection: &Arc<Link>) {
        let mut all = self.lock();
        all.retain(|connection| connection.strong_count() > 0);
        all.push(Arc::downgrade(connection));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Link>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a call on its connection until its answer has been read.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Connection>);

impl InFlight {
    fn on(connection: &Arc<Connection>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(connection.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    /// A destination at `address` (host:port), called `name` in messages; over TLS unless `tls` is none. Its connections
    /// are among `all`.
    pub(super) fn new(
        name: String,
        address: String,
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: UpstreamLimits,
        all: Connections,
    ) -> Result<Self, http::Error> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(address.as_str()).path_and_query("/").build()?;
        let pools = (0..=limits.workers).map(|_| Pool::default()).collect();
        Ok(Self {
            name,
            address,
            uri,
            tls,
            limits,
            all,
            pools,
            reachable: Reachable::default(),
            home: Handle::try_current().ok(),
        })
    }

    /// Sends a call; its URI's scheme and authority become this destination's.
    pub(super) fn send(
        &self,
        mut request: Request<Outgoing>,
    ) -> impl Future<Output = Result<(Response<Incoming>, InFlight), UpstreamError>> + Send {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        let addressed = Uri::from_parts(parts).map(|uri| {
            *request.uri_mut() = uri;
            *request.version_mut() = http::Version::HTTP_2;
        });
        // A block, whose future has room for one request; a function's own would have room for two.
        async move {
            addressed.map_err(|error| UpstreamError::Unreachable(error.to_string()))?;
            let pool = self.pool();
            let mut retried = false;
            loop {
                let connection = self.connection(pool).await?;
                let in_flight = InFlight::on(&connection);
                match connection.sender.clone().try_send_request(request).await {
                    Ok(response) => return Ok((response, in_flight)),
                    Err(mut error) => {
                        pool.forget(&connection);
                        match error.take_message() {
                            Some(unsent) if !retried => {
                                retried = true;
                                request = unsent;
                            }
                            Some(_) => return Err(UpstreamError::Unreachable(root_cause(&error.into_error()))),
                            None => return Err(broken(&error.into_error())),
                        }
                    }
                }
            }
        }
    }

    /// Address, open connections, and whether it could be reached when that was last tried.
    pub(super) fn standing(&self) -> (&str, usize, Option<bool>) {
        (&self.address, self.open_connections(), self.reachable.now())
    }

    /// Where it is: `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Tries to connect where there was a connection, or an attempt, and is none any more: so that it is known how things stand
    /// also while nobody calls.
    pub(super) async fn look(&self) {
        if self.reachable.is_due() && self.open_connections() == 0 {
            // Whether it worked is noted where it is tried.
            let _ = self.connection(self.pool()).await;
        }
    }

    /// Open connections at this moment.
    pub(super) fn open_connections(&self) -> usize {
        self.pools.iter().map(|pool| pool.lock().iter().filter(|connection| connection.is_open()).count()).sum()
    }

    /// Whether an attempt to connect failed, and just now.
    pub(super) fn has_just_failed(&self) -> bool {
        self.pools.iter().any(Pool::has_just_failed)
    }

    /// The one of the thread on which this runs.
    fn pool(&self) -> &Pool {
        let others = self.pools.len() - 1;
        &self.pools[workers::current().unwrap_or(others).min(others)]
    }

    async fn connection(&self, pool: &Pool) -> Result<Arc<Connection>, UpstreamError> {
        let (least, count) = pool.least_busy();
        let most = self.limits.connections.div_ceil(self.limits.workers.max(1));
        match least {
            Some(least) if least.in_flight.load(Ordering::Relaxed) < BUSY || count >= most => Ok(least),
            // Busy, and one more is allowed: whoever gets the lock opens it, the others use what there is meanwhile.
            Some(least) => match pool.connecting.try_lock() {
                Ok(mut last) => Ok(Box::pin(self.connect(pool, &mut last)).await.unwrap_or(least)),
                Err(_) => Ok(least),
            },
            None => {
                let mut last = pool.connecting.lock().await;
                match pool.least_busy().0 {
                    Some(opened_meanwhile) => Ok(opened_meanwhile),
                    // Boxed, here and above: connecting is rare, and every call's future would have room for it.
                    None => Box::pin(self.connect(pool, &mut last)).await,
                }
            }
        }
    }

    async fn connect(
        &self,
        pool: &Pool,
        last: &mut Option<(Instant, String)>,
    ) -> Result<Arc<Connection>, UpstreamError> {
        if let Some((when, why)) = last
            && when.elapsed() < BACK_OFF
        {
            return Err(UpstreamError::Unreachable(why.clone()));
        }
        let result = match tokio::time::timeout(self.limits.connect_timeout, self.dial()).await {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no connection within {:?}", self.limits.connect_timeout)),
        };
        match result {
            Ok(connection) => {
                *last = None;
                self.reachable.tried(&self.name, None);
                let connection = Arc::new(connection);
                self.all.add(&connection.link);
                pool.lock().push(connection.clone());
                Ok(connection)
            }
            Err(why) => {
                let why = format!("{}: {why}", self.address);
                self.reachable.tried(&self.name, Some(&why));
                *last = Some((Instant::now(), why.clone()));
                Err(UpstreamError::Unreachable(why))
            }
        }
    }

    async fn dial(&self) -> Result<Connection, BoxError> {
        let Some(tls) = &self.tls else {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            return self.handshake(tcp, Vec::new()).await;
        };
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let shaking = shake_hands(self.address.clone(), tls.clone(), host);
        let (mut stream, peer) = match &self.home {
            Some(home) => AbortOnDropHandle::new(home.spawn(shaking)).await??,
            None => shaking.await?,
        };
        stream.get_mut().0.arrive()?;
        self.handshake(stream, peer).await
    }

    async fn handshake<T>(&self, io: T, peer: Vec<CertificateDer<'static>>) -> Result<Connection, BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let cut = CancellationToken::new();
        let until_cut = UntilCut { cut: cut.clone(), started: Arc::default() };
        let (sender, driver) = Builder::new(until_cut)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(self.limits.header_list)
            .keep_alive_interval(self.limits.keepalive_interval)
            .keep_alive_timeout(self.limits.keepalive_timeout)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        let (destination, until) = (self.name.clone(), cut.clone());
        tokio::spawn(async move {
            if let Some(Err(error)) = until.run_until_cancelled(driver).await {
                tracing::debug!(%destination, error = %root_cause(&error), "connection ended");
            }
        });
        let link = Arc::new(Link::new(self.name.clone(), peer, cut));
        Ok(Connection { link, sender, in_flight: AtomicUsize::new(0) })
    }
}

impl Pool {
    fn least_busy(&self) -> (Option<Arc<Connection>>, usize) {
        let mut connections = self.lock();
        connections.retain(|connection| connection.is_open());
        let least = connections.iter().min_by_key(|c| c.in_flight.load(Ordering::Relaxed)).cloned();
        (least, connections.len())
    }

    fn forget(&self, gone: &Arc<Connection>) {
        if !gone.is_open() {
            self.lock().retain(|c| !Arc::ptr_eq(c, gone));
        }
    }

    fn has_just_failed(&self) -> bool {
        self.connecting.try_lock().is_ok_and(|last| last.as_ref().is_some_and(|(when, _)| when.elapsed() < BACK_OFF))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.link.takes_calls()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link).finish_non_exhaustive()
    }
}

/// Runs hyper's tasks. The first that hyper starts is the connection itself, which ends when it is cut; those that follow are of
/// single calls and end with it.
#[derive(Clone)]
struct UntilCut {
    cut: CancellationToken,
    started: Arc<AtomicBool>,
}

impl<F> Executor<F> for UntilCut
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Boxed at once: hyper's tasks are all as large as a connection, and each further hand would copy all of it.
        let task = Box::pin(task);
        if self.started.swap(true, Ordering::Relaxed) {
            tokio::spawn(task);
        } else {
            let cut = self.cut.clone();
            tokio::spawn(async move { cut.run_until_cancelled_owned(task).await.map(drop) });
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// TCP and TLS to a destination that speaks HTTP/2, and who is there. The connection has left the runtime.
async fn shake_hands(
    address: String,
    tls: Arc<rustls::ClientConfig>,
    host: String,
) -> Result<(TlsStream<Socket>, Vec<CertificateDer<'static>>), BoxError> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    let mut stream = secure(&tls, &host, Socket::new(tcp)).await?;
    let (socket, session) = stream.get_mut();
    if session.alpn_protocol() != Some(b"h2") {
        return Err("the other end does not speak HTTP/2 (ALPN h2)".into());
    }
    let peer = session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    socket.leave()?;
    Ok((stream, peer))
}

/// TLS to a destination.
pub(super) async fn secure<T>(tls: &Arc<rustls::ClientConfig>, host: &str, tcp: T) -> Result<TlsStream<T>, BoxError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())?;
    let connected = TlsConnector::from(tls.clone()).connect(name, tcp).await;
    connected.map_err(|error| crate::trust::tls::explain(&error).into())
}

/// What a broken HTTP/2 stream means in gRPC (the protocol's table of error codes).
pub(super) fn code_of(error: &(dyn std::error::Error + 'static)) -> Code {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::CANCEL) => Code::Cancelled,
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
                Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
                Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
                Some(_) if h2.is_reset() => Code::Internal,
                _ => Code::Unavailable,
            };
        }
        cause = error.source();
    }
    Code::Unavailable
}

/// The innermost cause, which says most.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn broken(error: &hyper::Error) -> UpstreamError {
    UpstreamError::Broken { code: code_of(error), message: root_cause(error) }
}
