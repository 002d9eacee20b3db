//! Connections of HTTP/1.1, one call at a time on each. So many at once are open at most; a call waits for one within its deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Endpoint;
use crate::gateway::body::BoxError;
use crate::gateway::reachable::Reachable;
use crate::gateway::refusal::Refusal;
use crate::gateway::upstream::{Connections, Link, UpstreamLimits, root_cause, secure};
use crate::trust::tls;
use tonic::Code;

/// For each connection of HTTP/2 that a destination may have, so many of HTTP/1.1.
const PER_CONNECTION: usize = 16;

/// How long a connection that was in use may take to be ready again.
const READY: Duration = Duration::from_millis(100);

/// hyper takes no less for a head.
const SMALLEST_BUFFER: usize = 64 << 10;

type Connection = (SendRequest<Full<Bytes>>, Arc<Link>);

/// A back-end's connections.
#[derive(Debug)]
pub(super) struct Pool {
    name: String,
    endpoint: Endpoint,
    tls: Option<Arc<rustls::ClientConfig>>,
    limits: UpstreamLimits,
    all: Connections,
    places: Arc<Semaphore>,
    most: usize,
    idle: Mutex<Vec<Connection>>,
    reachable: Reachable,
}

/// A connection that carries a call; idle again when it is [`given back`](Busy::give_back).
pub(super) struct Busy {
    sender: SendRequest<Full<Bytes>>,
    link: Arc<Link>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(
        name: String,
        endpoint: Endpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: UpstreamLimits,
        all: Connections,
    ) -> Self {
        let most = limits.connections.saturating_mul(PER_CONNECTION).min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(most));
        let tls = tls.map(|tls| tls::only_http1(&tls));
        Self { name, endpoint, tls, limits, all, places, most, idle: Mutex::default(), reachable: Reachable::default() }
    }

    /// Sends a request. It is tried again, once, only when hyper hands it back unsent: its connection had just been closed.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Busy), Refusal> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Refusal::draining())?;
        let mut kept = self.take_idle().await;
        loop {
            let is_new = kept.is_none();
            let (mut sender, link) = match kept.take() {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Busy { sender, link, pool: self.clone(), _place: place })),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    unsent => {
                        let why = root_cause(&error.into_error());
                        return Err(match unsent {
                            Some(_) => self.unreachable(&why),
                            None => Refusal::broken_off(&self.name, Code::Unavailable, why),
                        });
                    }
                },
            }
        }
    }

    /// Open connections at this moment.
    pub(super) fn open(&self) -> usize {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, _)| !sender.is_closed());
        idle.len() + self.most.saturating_sub(self.places.available_permits())
    }

    /// Whether it could be reached when that was last tried.
    pub(super) fn is_reachable(&self) -> Option<bool> {
        self.reachable.now()
    }

    /// Tries to connect where the last attempt failed. A connection that comes of it waits for the next call.
    pub(super) async fn look(&self) {
        if self.is_reachable() == Some(false)
            && self.reachable.is_due()
            && let Ok(connection) = self.connect().await
        {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Refusal {
        Refusal::broken_off(&self.name, Code::Unavailable, why)
    }

    async fn take_idle(&self) -> Option<Connection> {
        loop {
            let (mut sender, link) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let ready = tokio::time::timeout(READY, sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) && link.takes_calls() {
                return Some((sender, link));
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Refusal> {
        let connected = match tokio::time::timeout(self.limits.connect_timeout, self.dial()).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {:?}", self.limits.connect_timeout)),
        };
        let connected = connected.map_err(|why| format!("{}: {why}", self.endpoint.authority()));
        self.reachable.tried(&self.name, connected.as_ref().err().map(String::as_str));
        connected.map_err(|why| match self.name.parse() {
            Ok(system) => Refusal::backend_unreachable(&system, why),
            Err(_) => self.unreachable(&why),
        })
    }

    async fn dial(&self) -> Result<Connection, BoxError> {
        let tcp = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return self.handshake(tcp, Vec::new()).await };
        let stream = secure(tls, &self.endpoint.host, tcp).await?;
        let peer = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        self.handshake(stream, peer).await
    }

    async fn handshake<T>(&self, io: T, peer: Vec<CertificateDer<'static>>) -> Result<Connection, BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let buffer = (self.limits.header_list as usize).max(SMALLEST_BUFFER);
        let (sender, driver) = Builder::new().max_buf_size(buffer).handshake(TokioIo::new(io)).await?;
        let link = Arc::new(Link::new(self.name.clone(), peer, CancellationToken::new()));
        self.all.add(&link);
        let (cut, destination) = (link.cut.clone(), self.name.clone());
        tokio::spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled_owned(driver).await {
                tracing::debug!(%destination, error = %root_cause(&error), "connection ended");
            }
        });
        Ok((sender, link))
    }
}

impl Busy {
    /// All of the answer has been read: another call may have the connection.
    pub(super) fn give_back(self) {
        if !self.sender.is_closed() {
            let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|(sender, _)| !sender.is_closed());
            idle.push((self.sender, self.link));
        }
    }
}
