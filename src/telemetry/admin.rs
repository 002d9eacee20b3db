//! The plain listener for operators and orchestrators: `/healthz` (alive), `/readyz` (exchanges pass), `/metrics`,
//! and of a node `/status`.
//!
//! In the clear and without authentication, hence on loopback unless the configuration says otherwise. Nothing here
//! changes anything. Connections, their heads and their lives are bounded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Health, Snapshot};

const MOST_CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_HEAD: usize = 16 << 10;
/// The longest life of a connection; scrapers connect again.
const LIFE: Duration = Duration::from_secs(60);
/// Histograms gather what was recorded until somebody looks; so somebody looks.
const UPKEEP: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptors left), so as not to spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until `shutdown` is ready, then drops what is open.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    health: Health,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_router(listener, router(metrics.clone(), health), metrics, shutdown).await;
}

/// Answers with these routes, whatever they are, under the same bounds.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()> + Send,
) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = upkeep.tick() => metrics.run_upkeep(),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // No room: closed at once, the caller comes again.
                    if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
                        let router = router.clone();
                        connections.spawn(async move {
                            answer(stream, router).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "admin listener: accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The routes alone, for whoever has a server already.
pub fn router(metrics: PrometheusHandle, health: Health) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(health)
        .route("/metrics", get(render).with_state(metrics))
}

/// `/status`: what a node says of itself, as JSON; 503 when it is gone.
pub fn status_router<S: Serialize>(now: impl Fn() -> Option<S> + Send + Sync + 'static) -> Router {
    let now = Arc::new(now);
    let answer = move || {
        let body = now().and_then(|status| serde_json::to_string(&status).ok());
        async move {
            match body {
                Some(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
                None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    };
    Router::new().route("/status", get(answer))
}

async fn answer(stream: TcpStream, router: Router) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What goes wrong on such a connection is the other side's.
    let _ = tokio::time::timeout(LIFE, connection).await;
}

async fn alive(State(health): State<Health>, headers: HeaderMap) -> Response {
    let now = health.now();
    report(now.is_live(), &now, &headers)
}

async fn ready(State(health): State<Health>, headers: HeaderMap) -> Response {
    let now = health.now();
    report(now.is_ready(), &now, &headers)
}

async fn render(State(metrics): State<PrometheusHandle>) -> Response {
    prometheus(&metrics)
}

/// All metrics of this process, as Prometheus reads them.
pub fn prometheus(metrics: &PrometheusHandle) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// 200 or 503 with the reasons, a line each, or as JSON where that is asked for.
fn report(good: bool, now: &Snapshot, headers: &HeaderMap) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if json {
        let reasons: serde_json::Map<String, serde_json::Value> =
            now.reasons().map(|(name, reason)| (name.to_owned(), reason.into())).collect();
        let body = serde_json::json!({ "ok": good, "conditions": reasons }).to_string();
        return (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let mut body = String::from(if good { "ok\n" } else { "not ok\n" });
    for (name, reason) in now.reasons() {
        body.push_str(&format!("{name}: {reason}\n"));
    }
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
