//! Traces and metrics to an OpenTelemetry collector, by OTLP over gRPC. In: exchanges that ended ([`Spans`]), and the metrics as Prometheus
//! gets them. Out: requests to one collector. Nothing of a payload, nothing of a person.
//!
//! Exchanges never wait for a collector. Spans queue up to a limit; those beyond it, and those of which the collector does not take
//! charge in time, are dropped and counted. Metrics are cumulative: what one export misses the next one tells.

mod metrics;
mod spans;

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};

pub use spans::{Exchanged, HopTaken, Spans};

use super::trace::Sampling;
use super::{Health, Status};

/// To reach the collector, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// For what is left when the node stops.
const LAST: Duration = Duration::from_secs(3);

/// Why exporting does not start.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no address.
    #[error("the collector's endpoint is no http:// or https:// address: {0}")]
    Endpoint(String),
}

/// What is exported, where to.
#[derive(Clone)]
pub struct OtlpOptions {
    /// `KG/GOV/70000005/_node/main`: names the source of all that is exported.
    pub node: String,
    /// `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// For `https://`.
    pub tls: Option<rustls::ClientConfig>,
    /// Sent with every request; secret.
    pub headers: MetadataMap,
    /// Whether traces are, and which; a caller's own choice always holds.
    pub traces: Option<Sampling>,
    /// How often metrics are; none: never.
    pub metrics: Option<Duration>,
    /// How long a span may wait for others to go with it.
    pub delay: Duration,
    /// How many spans may wait.
    pub queue: usize,
    /// How long the collector may take to take charge of what it is sent, tries included.
    pub timeout: Duration,
}

impl std::fmt::Debug for OtlpOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpOptions").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What exports, until it is finished.
#[derive(Debug)]
pub struct Exporter {
    spans: Option<Spans>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Exporter {
    /// Begins. The collector need not be there; [`Health`] says where it is not.
    pub fn start(options: &OtlpOptions, metrics: PrometheusHandle, health: Health) -> Result<Self, OtlpError> {
        let collector = Collector::new(options, health)?;
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let spans = options.traces.map(|sampling| {
            let (spans, queue) = Spans::new(&options.node, sampling, options.queue);
            tasks.push(tokio::spawn(queue.export(collector.clone(), options.delay, stop.clone())));
            spans
        });
        if let Some(interval) = options.metrics {
            tasks.push(tokio::spawn(metrics::export(collector, metrics, interval, options.node.clone(), stop.clone())));
        }
        Ok(Self { spans, stop, tasks })
    }

    /// Where exchanges that ended are told; none where traces are not exported.
    pub fn spans(&self) -> Option<&Spans> {
        self.spans.as_ref()
    }

    /// Exports what is left, for a moment at most.
    pub async fn finish(mut self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut self.tasks);
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(LAST, futures_util::future::join_all(tasks)).await.is_err() {
            tracing::warn!("the collector does not take the last traces and metrics: they are dropped");
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Whether the collector takes what this node would send: asked with a request that has nothing in it. How long it took.
pub async fn ask(options: &OtlpOptions) -> Result<Duration, String> {
    let collector = Collector::new(options, Health::starting()).map_err(|error| error.to_string())?;
    let began = std::time::Instant::now();
    let nothing = collector.request(ExportTraceServiceRequest::default());
    let mut client = TraceServiceClient::new(collector.channel);
    match tokio::time::timeout(options.timeout, client.export(nothing)).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(status)) => Err(said(&status)),
        Err(_) => Err(format!("no answer within {:?}", options.timeout)),
    }
}

/// The collector, as both signals see it.
#[derive(Clone)]
struct Collector {
    channel: Channel,
    headers: MetadataMap,
    resource: Resource,
    timeout: Duration,
    health: Health,
}

impl Collector {
    fn new(options: &OtlpOptions, health: Health) -> Result<Self, OtlpError> {
        let wrong = |error: &dyn std::fmt::Display| OtlpError::Endpoint(format!("{}: {error}", options.endpoint));
        let uri: Uri = options.endpoint.parse().map_err(|error| wrong(&error))?;
        let host = uri.host().ok_or_else(|| wrong(&"no host"))?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().ok_or_else(|| wrong(&"no port"))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(secure(options, &host).map_err(|error| wrong(&error))?),
            _ => return Err(wrong(&"no scheme")),
        };
        let dial = move |_: Uri| {
            let (host, tls) = (host.clone(), tls.clone());
            async move {
                let tcp = TcpStream::connect((host.as_str(), port)).await?;
                tcp.set_nodelay(true)?;
                let stream: Box<dyn Stream> = match tls {
                    None => Box::new(tcp),
                    Some((connector, name)) => Box::new(connector.connect(name, tcp).await?),
                };
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        };
        // The connection is ours to make: tonic, which does no TLS here, takes no https:// but to say so in its requests.
        let plain = options.endpoint.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain).map_err(|error| wrong(&error))?;
        let endpoint = endpoint.origin(uri).connect_timeout(CONNECT).timeout(options.timeout);
        Ok(Self {
            channel: endpoint.connect_with_connector_lazy(tower::service_fn(dial)),
            headers: options.headers.clone(),
            resource: resource(&options.node),
            timeout: options.timeout,
            health,
        })
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }

    /// Says once that the collector takes nothing, and once that it does again.
    fn tell<T>(&self, condition: &'static str, result: &Result<T, String>) {
        let was_good = matches!(self.health.now().get(condition), None | Some(Status::Ok));
        match result {
            Ok(_) => {
                if !was_good {
                    tracing::info!("the collector takes {condition} again");
                }
                self.health.set(condition, Status::Ok);
            }
            Err(error) => {
                if was_good {
                    tracing::warn!(%error, "the collector does not take {condition}");
                }
                self.health.set(condition, Status::Warning(format!("the collector does not take them: {error}")));
            }
        }
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

type Secured = (TlsConnector, rustls::pki_types::ServerName<'static>);

fn secure(options: &OtlpOptions, host: &str) -> Result<Secured, String> {
    let mut config = options.tls.clone().ok_or("https:// without a TLS configuration")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    Ok((TlsConnector::from(std::sync::Arc::new(config)), name))
}

/// Who exports.
fn resource(node: &str) -> Resource {
    let federation = node.split('/').next().unwrap_or_default();
    let attributes = vec![
        text("service.name", "kopuro"),
        text("service.namespace", federation),
        text("service.instance.id", node),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: "kopuro".to_owned(), version, ..InstrumentationScope::default() }
}

/// An attribute.
fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What tonic says, with what lies behind it.
fn said(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => crate::trust::tls::reasons(source),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
