//! A witness over HTTP/1.1, with or without TLS: what is said is signed on both sides.
//!
//! ```text
//! POST <prefix>/add-checkpoint                              the request of `message`, judged
//! GET  <prefix>/<SHA-256 of origin, hex>/checkpoint         the last checkpoint that it cosigned of that log
//! GET  <prefix>/                                            who this is and how far it has seen, for people
//! ```
//!
//! Anybody may ask, so everything is bounded: connections, their heads and lives, a request's size and time, requests
//! being judged at once, and requests a second from one address.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::judge::{Answer, Witness};
use super::message::SIZE_TYPE;

/// A request of 63 hashes and a note of 100 signatures is shorter.
const MAX_BODY: usize = 64 << 10;
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// For a request's head, and for the next one on an open connection to begin.
const HEAD_TIME: Duration = Duration::from_secs(20);
const LARGEST_HEAD: usize = 16 << 10;
/// Requests waiting for the disk at once.
const MOST_JUDGED: usize = 64;
/// The longest life of a connection; clients connect again.
const LIFE: Duration = Duration::from_secs(600);
/// How long running requests may go on after the shutdown has begun, or at the end of a connection's life.
const DRAIN_TIME: Duration = Duration::from_secs(15);
/// As many addresses are counted one by one; beyond, all share one allowance.
const MOST_SOURCES: usize = 10_000;
/// After a failed accept (no file descriptors left), so as not to spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How a witness is served.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The path before `/add-checkpoint`: empty, or with a leading slash and without one at its end.
    pub prefix: String,
    /// Open connections; more wait. One address has at most half of them; more of its are closed at once.
    pub connections: NonZeroUsize,
    /// For a request's body to arrive, and again for its turn to be judged.
    pub request_time: Duration,
    /// Requests a second from one address (IPv6: from one /64); more are answered 429.
    pub per_second: NonZeroU32,
    /// How many of these may come at once.
    pub burst: NonZeroU32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            connections: const { NonZeroUsize::new(256).unwrap() },
            request_time: Duration::from_secs(10),
            per_second: const { NonZeroU32::new(20).unwrap() },
            burst: const { NonZeroU32::new(100).unwrap() },
        }
    }
}

/// Serves until `shutdown` is ready; then requests that have begun are answered, within bounds.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    witness: Arc<Witness>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) {
    let room = Arc::new(Semaphore::new(options.connections.get().min(Semaphore::MAX_PERMITS)));
    let served =
        Served { router: router(witness, &options), tls: tls.map(TlsAcceptor::from), stop: CancellationToken::new() };
    let open = Open { by: Arc::default(), most: options.connections.get().div_ceil(2) };
    let connections = TaskTracker::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (served, source) = (served.clone(), Source::of(from.ip()));
                // Dropped, the connection closes: whoever has half of all does without this one.
                if let Some(counted) = open.one_more(source) {
                    connections.spawn(async move {
                        served.connection(stream, source).await;
                        drop((counted, place));
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    served.stop.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_TIME, connections.wait()).await.is_err() {
        tracing::warn!("connections still open at the end are cut off");
    }
}

#[derive(Clone)]
struct Served {
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
}

impl Served {
    async fn connection(&self, stream: TcpStream, source: Source) {
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.answer(stream, source).await,
            Some(tls) => {
                // Of a stranger that speaks no TLS, or too slowly, there is nothing to tell anybody.
                if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                    self.answer(stream, source).await;
                }
            }
        }
    }

    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, source: Source) {
        let router = self.router.clone().layer(Extension(source));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(LIFE) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(DRAIN_TIME, connection).await;
    }
}

/// Whom a request is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

/// Open connections by source.
struct Open {
    by: Arc<Mutex<HashMap<Source, usize>>>,
    most: usize,
}

/// One of them; counted until it is dropped.
struct Counted {
    by: Arc<Mutex<HashMap<Source, usize>>>,
    source: Source,
}

impl Open {
    fn one_more(&self, source: Source) -> Option<Counted> {
        // Counting does not panic; a poisoned lock would say nothing against the counts.
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by.entry(source).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted { by: Arc::clone(&self.by), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                by.remove(&self.source);
            }
        }
    }
}

struct Desk {
    witness: Arc<Witness>,
    request_time: Duration,
    judging: Arc<Semaphore>,
    sources: DefaultKeyedRateLimiter<Source>,
    others: DefaultDirectRateLimiter,
}

fn router(witness: Arc<Witness>, options: &ServeOptions) -> Router {
    let quota = Quota::per_second(options.per_second).allow_burst(options.burst);
    let desk = Arc::new(Desk {
        witness,
        request_time: options.request_time,
        judging: Arc::new(Semaphore::new(MOST_JUDGED)),
        sources: RateLimiter::keyed(quota),
        others: RateLimiter::direct(quota),
    });
    let prefix = &options.prefix;
    Router::new()
        .route(&format!("{prefix}/add-checkpoint"), post(add_checkpoint))
        .route(&format!("{prefix}/{{hash}}/checkpoint"), get(checkpoint))
        .route(&format!("{prefix}/"), get(page))
        .with_state(desk)
}

async fn add_checkpoint(State(desk): State<Arc<Desk>>, Extension(source): Extension<Source>, body: Body) -> Response {
    let response = desk.add_checkpoint(source, body).await;
    metrics::counter!("kopuro_witness_requests_total", "status" => response.status().as_str().to_owned()).increment(1);
    response
}

async fn checkpoint(
    State(desk): State<Arc<Desk>>,
    Extension(source): Extension<Source>,
    Path(hash): Path<String>,
) -> Response {
    if !desk.admits(source) {
        return too_many();
    }
    match desk.witness.latest_by_hash(&hash) {
        Some(seen) => {
            let cached = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "max-age=5")];
            (cached, seen.checkpoint.note).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such log, or nothing cosigned yet\n").into_response(),
    }
}

async fn page(State(desk): State<Arc<Desk>>, Extension(source): Extension<Source>) -> Response {
    if !desk.admits(source) {
        return too_many();
    }
    let mut text =
        format!("A witness of transparency logs (https://c2sp.org/tlog-witness)\n{}\n", desk.witness.verifier());
    for (origin, seen) in desk.witness.seen() {
        let line = match seen {
            Some(seen) => {
                let time =
                    i64::try_from(seen.time).ok().and_then(|time| time::OffsetDateTime::from_unix_timestamp(time).ok());
                let time = time.map_or_else(|| seen.time.to_string(), |time| time.to_string());
                format!("\n{origin}\n  size {}\n  root {}\n  at   {time}\n", seen.checkpoint.size, seen.checkpoint.root)
            }
            None => format!("\n{origin}\n  nothing cosigned yet\n"),
        };
        text.push_str(&line);
    }
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

impl Desk {
    async fn add_checkpoint(&self, source: Source, body: Body) -> Response {
        if !self.admits(source) {
            return too_many();
        }
        let body = match tokio::time::timeout(self.request_time, axum::body::to_bytes(body, MAX_BODY)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "cut short, or longer than 64 KiB\n"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time\n"),
        };
        let Ok(Ok(place)) = tokio::time::timeout(self.request_time, Arc::clone(&self.judging).acquire_owned()).await
        else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "busy\n");
        };
        let witness = Arc::clone(&self.witness);
        // Not cut off by a client that goes away: what is being kept is kept whole, and has its place until then.
        let judging = tokio::task::spawn_blocking(move || {
            let answer = witness.add_checkpoint(&body, unix_seconds());
            drop(place);
            answer
        });
        match judging.await {
            Ok(answer) => respond(answer),
            Err(error) => {
                tracing::error!(%error, "a request could not be judged");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be judged\n")
            }
        }
    }

    fn admits(&self, source: Source) -> bool {
        if self.sources.len() >= MOST_SOURCES {
            self.sources.retain_recent();
        }
        if self.sources.len() >= MOST_SOURCES {
            return self.others.check().is_ok();
        }
        self.sources.check_key(&source).is_ok()
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match answer {
        Answer::Cosigned(line) => typed(status, TEXT, line),
        Answer::Conflict(size) => typed(status, SIZE_TYPE, format!("{size}\n")),
        Answer::Malformed(reason) | Answer::Inconsistent(reason) => typed(status, TEXT, format!("{reason}\n")),
        Answer::UnknownLog => plain(status, "this witness does not follow that log\n"),
        Answer::NotSigned => plain(status, "no signature of the log's key, or a bad one\n"),
        Answer::Unavailable(reason) => typed(status, TEXT, format!("{reason}\n")),
    }
}

fn too_many() -> Response {
    let retry: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, TEXT), (header::RETRY_AFTER, "1")];
    (StatusCode::TOO_MANY_REQUESTS, retry, "too many requests from this address\n").into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    typed(status, TEXT, text.into())
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, kind)], text).into_response()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
