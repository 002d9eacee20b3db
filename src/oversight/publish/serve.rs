//! The publication over plain HTTP, to be put behind any web server, or asked as it is.
//!
//! Nothing beyond the published checkpoint is shown. Full tiles and bundles come from the store where there is one, and
//! are compared with the log's tree; where the store fails or has something else, and for everything younger, from the
//! log. Connections, requests and waits are bounded; nothing here changes anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};
use tower_http::cors::{Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::clients::Clients;
use super::respond::{Part, describe, matches, not_found, range, unavailable, unchanged, whole};
use super::{CHECKPOINT, MOST_TILE, Shared, StoreError, TILE, open_data, portal, tiles};
use crate::log::tile::{Kind, Tile};
use crate::policy::Rate;
use crate::telemetry::metrics as names;

const MOST_CONNECTIONS: usize = 1_024;
/// One client's, so that no one takes all.
const MOST_OF_ONE: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST_HEAD: usize = 16 << 10;
/// For a request, up to the head of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Between two parts of a long file.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest life of a connection; also what a slow download gets.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// After a failed accept (no file descriptors left), so as not to spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Tiles being made at once.
const MOST_ANSWERS: usize = 16;
/// Bytes of tiles on their way to clients, however slowly these take them.
const MOST_BYTES: usize = 256 << 20;

/// How the publication is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How long others may keep the checkpoint.
    pub cache: Duration,
    /// How much one client may ask.
    pub rate: Rate,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
}

/// What requests are answered from.
#[derive(Clone)]
struct Source {
    shared: Arc<Shared>,
    checkpoint_cache: HeaderValue,
    answers: Arc<Semaphore>,
    /// In KiB, because a semaphore gives 32 bits at once.
    memory: Arc<Semaphore>,
}

/// A tile's bytes with the room that they take.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, options: ServeOptions, stop: CancellationToken) {
    let clients = Arc::new(Clients::new(options.rate, MOST_OF_ONE, options.proxies));
    let cache = format!("public, max-age={}", options.cache.as_secs());
    let source = Source {
        shared,
        checkpoint_cache: HeaderValue::from_str(&cache).unwrap_or(HeaderValue::from_static("no-cache")),
        answers: Arc::new(Semaphore::new(MOST_ANSWERS)),
        memory: Arc::new(Semaphore::new(MOST_BYTES >> 10)),
    };
    let router = router(source, clients.clone());
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // No room: closed at once, the caller comes again.
                    if let (Ok(room), Some(counted)) = (room.clone().try_acquire_owned(), clients.connect(peer)) {
                        let router = router.clone();
                        connections.spawn(async move {
                            answer(stream, peer, router).await;
                            drop((room, counted));
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "publish.listen: accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn router(source: Source, clients: Arc<Clients>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .expose_headers([header::ETAG, header::CONTENT_RANGE])
        .max_age(Duration::from_secs(86_400));
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/open-data/{file}", get(open_data_file))
        .route("/", get(to_portal))
        .route("/portal", get(to_portal))
        .route("/portal/", get(portal_index))
        .route("/portal/{*path}", get(portal_file))
        .route("/{file}", get(beside))
        .fallback(async || not_found())
        .with_state(source.clone())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIMEOUT))
        .layer(RequestBodyLimitLayer::new(0))
        .layer(cors)
        .layer(middleware::from_fn_with_state((source, clients), count))
}

async fn answer(stream: TcpStream, peer: SocketAddr, router: Router) {
    let service = Extension(peer).layer(router);
    let service = hyper::service::service_fn(move |request| service.clone().oneshot(request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on such a connection is the other side's.
    let _ = tokio::time::timeout(LIFE, connection).await;
}

/// Lets a client ask so much and no more, and counts what is answered.
async fn count(
    State((source, clients)): State<(Source, Arc<Clients>)>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match clients.request(peer, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            let wait = HeaderValue::from(wait.as_secs() + 1);
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, wait)], "too many requests\n").into_response()
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let labels = [("node", source.shared.options.node.clone()), ("status", response.status().as_str().to_owned())];
    metrics::counter!(names::PUBLISH_REQUESTS, &labels).increment(1);
    response
}

async fn checkpoint(State(source): State<Source>, headers: HeaderMap) -> Response {
    let published = source.shared.published.borrow().clone();
    match published {
        Some(published) => {
            let note = Bytes::from(published.note.clone());
            let mut response = whole(note, CHECKPOINT, &headers, false);
            response.headers_mut().insert(header::CACHE_CONTROL, source.checkpoint_cache);
            response
        }
        None => unavailable(),
    }
}

async fn tile(State(source): State<Source>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(tile) = Tile::parse(&format!("tile/{path}")) else { return not_found() };
    let size = source.shared.published.borrow().as_ref().map_or(0, |published| published.size);
    if !tiles::is_within(tile, size) {
        return not_found();
    }
    let Ok(_place) = source.answers.acquire().await else { return unavailable() };
    let Some(bytes) = source.tile(tile, size).await else { return unavailable() };
    let room = u32::try_from(bytes.len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
    // Waits no longer than any request.
    let Ok(_room) = source.memory.clone().acquire_many_owned(room).await else { return unavailable() };
    let bytes = Bytes::from_owner(Held { bytes, _room });
    match tile.kind {
        Kind::Entries => {
            // Compressing takes longer than one may hold up the others.
            let made = tokio::task::spawn_blocking(move || whole(bytes, TILE, &headers, true)).await;
            made.unwrap_or_else(|_| unavailable())
        }
        Kind::Hashes(_) => whole(bytes, TILE, &headers, false),
    }
}

async fn beside(State(source): State<Source>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let beside = source.shared.beside.load_full();
    match beside.files().find(|(name, ..)| *name == file) {
        Some((_, bytes, served)) => whole(bytes, served, &headers, false),
        None => not_found(),
    }
}

async fn to_portal(State(source): State<Source>) -> Response {
    match *source.shared.site.load() {
        Some(_) => Redirect::temporary("portal/").into_response(),
        None => not_found(),
    }
}

async fn portal_index(source: State<Source>, headers: HeaderMap) -> Response {
    portal_file(source, Path(portal::INDEX.to_owned()), headers).await
}

async fn portal_file(State(source): State<Source>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let site = source.shared.site.load_full();
    let Some((site, (_, bytes, served))) = site.as_ref().and_then(|site| Some((site, site.file(&path)?))) else {
        return not_found();
    };
    let mut response = whole(bytes, served, &headers, served.content_type != portal::ICON.content_type);
    for (name, value) in site.headers() {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn open_data_file(State(source): State<Source>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(served) = open_data::served(&file).filter(|_| source.shared.options.open_data) else {
        return not_found();
    };
    let (files, path) = (&source.shared.files, format!("open-data/{file}"));
    let failed = |error: StoreError| {
        tracing::debug!(%error, "open data not served");
        unavailable()
    };
    let found = match files.head(&path).await {
        Ok(Some(found)) => found,
        Ok(None) => return not_found(),
        Err(error) => return failed(error),
    };
    let tag = format!("\"{}\"", found.tag.unwrap_or_default().replace('"', ""));
    if matches(&headers, &tag) {
        return unchanged(&tag, served);
    }
    let part = match range(&headers, &tag, found.size) {
        Part::Whole => None,
        Part::Of(part) => Some(part),
        Part::Beyond => {
            let size = [(header::CONTENT_RANGE, format!("bytes */{}", found.size))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, size).into_response();
        }
    };
    let reading = match files.read(&path, part.clone()).await {
        Ok(Some(reading)) => reading,
        Ok(None) => return not_found(),
        Err(error) => return failed(error),
    };
    // A store that stops in the middle of a file ends the answer, not the wait for it.
    let parts = futures_util::stream::unfold(reading.bytes, |mut bytes| async {
        let part = tokio::time::timeout(PART_TIMEOUT, bytes.next()).await;
        let part = part.unwrap_or_else(|_| {
            Some(Err(object_store::Error::NotImplemented {
                operation: "a part in time".into(),
                implementer: "publish.store".into(),
            }))
        })?;
        Some((part, bytes))
    });
    let mut response = Response::new(Body::from_stream(parts.map_err(std::io::Error::other)));
    describe(&mut response, served, &tag);
    let length = part.as_ref().map_or(reading.size, |part| part.end - part.start);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(part) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let place = format!("bytes {}-{}/{}", part.start, part.end - 1, reading.size);
        if let Ok(place) = HeaderValue::try_from(place) {
            response.headers_mut().insert(header::CONTENT_RANGE, place);
        }
    }
    response
}

impl Source {
    /// A tile within the published size.
    async fn tile(&self, tile: Tile, size: u64) -> Option<Bytes> {
        let full = tile.full();
        let is_old = matches!(tile.kind, Kind::Entries | Kind::Hashes(0)) && tiles::is_within(full, size);
        if is_old && let Some(stored) = self.stored(full).await {
            return if tile.is_full() { Some(stored) } else { tiles::cut(&stored, tile) };
        }
        let log = self.shared.log.clone();
        match tokio::task::spawn_blocking(move || tiles::build(&log, tile)).await {
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(error)) => {
                // The log may begin behind it: then only the store has it.
                let stored = self.unchecked(tile).await;
                if stored.is_none() {
                    tracing::warn!(%error, %tile, "a published tile cannot be served");
                }
                stored
            }
            Err(_) => None,
        }
    }

    /// A tile as the store has it, or a part of the full one.
    async fn unchecked(&self, tile: Tile) -> Option<Bytes> {
        let store = self.shared.options.store.as_ref()?;
        match store.get(&tile.to_string(), MOST_TILE).await {
            Ok(Some(bytes)) => Some(bytes),
            _ => tiles::cut(&store.get(&tile.full().to_string(), MOST_TILE).await.ok()??, tile),
        }
    }

    /// A full tile as the store has it, where that is right.
    async fn stored(&self, full: Tile) -> Option<Bytes> {
        let store = self.shared.options.store.as_ref()?;
        let path = full.to_string();
        let bytes = match store.get(&path, MOST_TILE).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, "the store fails: served from the log");
                return None;
            }
        };
        let log = self.shared.log.clone();
        let checked = tokio::task::spawn_blocking(move || {
            bytes.filter(|bytes| tiles::is_right(&log, full, bytes).unwrap_or(true))
        })
        .await;
        let right = checked.ok().flatten();
        if right.is_none() {
            tracing::warn!(path, "publish.store has not the tile that was published: served from the log");
            metrics::counter!(names::PUBLISH_WRONG, "node" => self.shared.options.node.clone()).increment(1);
        }
        right
    }
}
