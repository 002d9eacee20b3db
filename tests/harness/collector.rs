//! An OpenTelemetry collector, as far as a node sees one: OTLP over gRPC, with the server that opentelemetry-proto generates. What came is kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kopuro::trust::pki::Issued;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What a node sent.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// With `service.instance.id`: whose they are.
    pub(crate) spans: Vec<(String, Span)>,
    pub(crate) metrics: Vec<(String, Metric)>,
    pub(crate) metadata: Option<MetadataMap>,
    /// Requests as they came.
    pub(crate) bytes: Vec<u8>,
}

/// A collector that takes everything.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    came: Arc<Mutex<Came>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Takes(Arc<Mutex<Came>>);

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::start_with(tonic::transport::Server::builder()).await
    }

    /// Over TLS, with this certificate.
    pub(crate) async fn start_secure(certificate: &Issued) -> Self {
        let identity = Identity::from_pem(&certificate.cert_pem, &*certificate.key_pem);
        let tls = ServerTlsConfig::new().identity(identity);
        Self::start_with(tonic::transport::Server::builder().tls_config(tls).unwrap()).await
    }

    async fn start_with(mut server: tonic::transport::Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(Mutex::new(Came::default()));
        let takes = Takes(came.clone());
        let server =
            server.add_service(TraceServiceServer::new(takes.clone())).add_service(MetricsServiceServer::new(takes));
        let task = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, came, task }
    }

    /// Waits, for at most ten seconds, until something has come that this finds.
    pub(crate) async fn until<T>(&self, what: &str, mut find: impl FnMut(&Came) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = find(&self.came.lock().unwrap()) {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "never came: {what}; {:#?}",
                self.came.lock().unwrap().spans
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An attribute's text.
pub(crate) fn said<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        other => panic!("{key} is no text: {other:?}"),
    }
}

fn source(resource: Option<opentelemetry_proto::tonic::resource::v1::Resource>) -> String {
    let resource = resource.expect("a resource");
    assert_eq!(said(&resource.attributes, "service.name"), Some("kopuro"));
    said(&resource.attributes, "service.instance.id").unwrap().to_owned()
}

#[tonic::async_trait]
impl TraceService for Takes {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut came = self.0.lock().unwrap();
        came.metadata = Some(request.metadata().clone());
        let message = request.into_inner();
        came.bytes.extend(message.encode_to_vec());
        for of_one in message.resource_spans {
            let source = source(of_one.resource);
            let spans = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            came.spans.extend(spans.map(|span| (source.clone(), span)));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Takes {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut came = self.0.lock().unwrap();
        for of_one in request.into_inner().resource_metrics {
            let source = source(of_one.resource);
            let metrics = of_one.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            // Cumulative: the latest of each says all.
            for metric in metrics {
                came.metrics.retain(|(other, known)| *other != source || known.name != metric.name);
                came.metrics.push((source.clone(), metric));
            }
        }
        Ok(Response::new(Default::default()))
    }
}
