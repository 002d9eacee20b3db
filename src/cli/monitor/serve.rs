//! What the monitor serves: a page for people, the report, health and metrics. Nothing here changes anything.

use std::future::Future;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::oversight::monitor::Report;
use crate::oversight::monitor::page::{self, Language};
use crate::telemetry::admin;

/// The report of the last round, once there is one.
type Current = watch::Receiver<Option<Report>>;

pub(super) async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    current: Current,
    shutdown: impl Future<Output = ()> + Send,
) {
    let rendered = metrics.clone();
    let router = Router::new()
        .route("/", get(html))
        .route("/report.json", get(json))
        .route("/healthz", get(health))
        .with_state(current)
        .route("/metrics", get(|| async move { admin::prometheus(&rendered) }));
    admin::serve_router(listener, router, metrics, shutdown).await;
}

async fn html(State(current): State<Current>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = Language::choose(query.as_deref(), accepts);
    let page = current.borrow().as_ref().map(|report| page::html(report, language));
    let Some(page) = page else { return not_yet() };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "max-age=10"),
        (header::VARY, "accept-language"),
    ];
    (headers, page).into_response()
}

async fn json(State(current): State<Current>) -> Response {
    let body = current.borrow().as_ref().map(serde_json::to_string);
    match body {
        // Pages of other hosts may read it: the portal is one.
        Some(Ok(body)) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
            (headers, body).into_response()
        }
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        None => not_yet(),
    }
}

/// That the monitor works; what it found is no matter of its own health.
async fn health(State(current): State<Current>) -> Response {
    if current.borrow().is_some() { "ok\n".into_response() } else { not_yet() }
}

fn not_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "the first look is not over\n").into_response()
}
