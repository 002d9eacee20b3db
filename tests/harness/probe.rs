//! A back-end whose behaviour the caller chooses: service `kopuro.test.v1.Probe`, all four kinds of call over
//! `google.protobuf.BytesValue`. Metadata `x-do` says what to do; what the back-end saw is kept for the test to read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto, field_descriptor_proto,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::metadata::MetadataMap;
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt};

/// The service's full name.
pub(crate) const SERVICE: &str = "kopuro.test.v1.Probe";

/// Its only message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) value: bytes::Bytes,
}

/// What the back-end saw and did.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) metadata: Mutex<Option<MetadataMap>>,
    /// Rings whenever one of the counts changes.
    pub(crate) changed: Notify,
}

impl Seen {
    fn count(&self, what: &AtomicU64) {
        what.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits, for at most ten seconds, until `holds`.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if holds(self) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never came: {what}"));
    }
}

/// A running back-end.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Probe {
    /// Serves over mutual TLS.
    pub(crate) async fn start(address: SocketAddr, certificate: &str, key: &str, roots: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let listener = TcpListener::bind(address).await.unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(roots));
        let server = Server::builder().tls_config(tls).unwrap().add_service(Service(seen.clone()));
        let task = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { seen, task }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service's descriptor set, as a directory lists it.
pub(crate) fn descriptors() -> Vec<u8> {
    let method = |name: &str, client, server| MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(".kopuro.test.v1.Blob".into()),
        output_type: Some(".kopuro.test.v1.Blob".into()),
        client_streaming: Some(client),
        server_streaming: Some(server),
        ..Default::default()
    };
    let value = FieldDescriptorProto {
        name: Some("value".into()),
        number: Some(1),
        label: Some(field_descriptor_proto::Label::Optional.into()),
        r#type: Some(field_descriptor_proto::Type::Bytes.into()),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("kopuro/test/v1/probe.proto".into()),
        package: Some("kopuro.test.v1".into()),
        syntax: Some("proto3".into()),
        message_type: vec![DescriptorProto { name: Some("Blob".into()), field: vec![value], ..Default::default() }],
        service: vec![ServiceDescriptorProto {
            name: Some("Probe".into()),
            method: vec![
                // Nothing happens when the probe is asked twice.
                MethodDescriptorProto {
                    options: Some(prost_types::MethodOptions {
                        idempotency_level: Some(prost_types::method_options::IdempotencyLevel::NoSideEffects.into()),
                        ..Default::default()
                    }),
                    ..method("Unary", false, false)
                },
                method("Collect", true, false),
                method("Expand", false, true),
                method("Chat", true, true),
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

#[derive(Clone)]
struct Service(Arc<Seen>);

impl NamedService for Service {
    const NAME: &'static str = SERVICE;
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let most = 64 << 20;
            let mut grpc = Grpc::new(ProstCodec::<Blob, Blob>::default())
                .max_decoding_message_size(most)
                .max_encoding_message_size(most)
                .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
                .send_compressed(tonic::codec::CompressionEncoding::Gzip);
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Unary") => grpc.unary(this, request).await,
                Some("Collect") => grpc.client_streaming(this, request).await,
                Some("Expand") => grpc.server_streaming(this, request).await,
                _ => grpc.streaming(this, request).await,
            })
        })
    }
}

type Blobs = Pin<Box<dyn Stream<Item = Result<Blob, Status>> + Send>>;

/// Counts a call that is dropped before it was done.
struct Running {
    seen: Arc<Seen>,
    done: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            self.seen.count(&self.seen.cancelled);
        }
    }
}

impl Service {
    fn begin(&self, metadata: &MetadataMap) -> (String, Running) {
        self.0.count(&self.0.calls);
        *self.0.metadata.lock().unwrap() = Some(metadata.clone());
        let what = metadata.get("x-do").and_then(|v| v.to_str().ok()).unwrap_or("echo").to_owned();
        (what, Running { seen: self.0.clone(), done: false })
    }

    fn answer<T>(&self, body: T, asked: &MetadataMap) -> Response<T> {
        let mut response = Response::new(body);
        if let Some(said) = asked.get("x-said") {
            response.metadata_mut().insert("x-heard", said.clone());
        }
        if let Some(said) = asked.get_bin("x-said-bin") {
            response.metadata_mut().insert_bin("x-heard-bin", said.clone());
        }
        // A back-end must not be able to speak for the gateway.
        response.metadata_mut().insert("kopuro-refused", "failed FORGED".parse().unwrap());
        response
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(size: usize) -> Blob {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    Blob { value: (0..size).map(|_| next()).collect::<Vec<u8>>().into() }
}

/// The error that `x-do: fail` asks for.
pub(crate) fn failure() -> Status {
    let mut details =
        ErrorDetails::with_error_info("PROBE_FAILED", "probe.test", [("why".to_owned(), "asked to".to_owned())]);
    details.set_localized_message("ky", "Ката кетти");
    let mut status = Status::with_error_details(Code::FailedPrecondition, "asked to fail: ката", details);
    status.metadata_mut().insert("x-trailer", "kept".parse().unwrap());
    status
}

impl UnaryService<Blob> for Service {
    type Response = Blob;
    type Future = BoxFuture<Response<Blob>, Status>;

    fn call(&mut self, request: Request<Blob>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (what, mut running) = this.begin(request.metadata());
            match what.as_str() {
                "hang" => std::future::pending::<()>().await,
                "slow" => tokio::time::sleep(Duration::from_millis(300)).await,
                _ => {}
            }
            running.done = true;
            match what.as_str() {
                "fail" => Err(failure()),
                "big" => {
                    let size = String::from_utf8_lossy(&request.get_ref().value).parse().unwrap_or(0);
                    Ok(this.answer(noise(size), request.metadata()))
                }
                _ => {
                    let metadata = request.metadata().clone();
                    Ok(this.answer(request.into_inner(), &metadata))
                }
            }
        })
    }
}

impl ClientStreamingService<Blob> for Service {
    type Response = Blob;
    type Future = BoxFuture<Response<Blob>, Status>;

    fn call(&mut self, request: Request<Streaming<Blob>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (what, mut running) = this.begin(request.metadata());
            let metadata = request.metadata().clone();
            let mut stream = request.into_inner();
            let mut bytes = 0u64;
            while let Some(message) = stream.next().await {
                bytes += message?.value.len() as u64;
                this.0.count(&this.0.messages_received);
                if what == "stall" {
                    std::future::pending::<()>().await;
                }
            }
            running.done = true;
            if what == "fail" {
                return Err(failure());
            }
            Ok(this.answer(Blob { value: bytes.to_string().into() }, &metadata))
        })
    }
}

impl ServerStreamingService<Blob> for Service {
    type Response = Blob;
    type ResponseStream = Blobs;
    type Future = BoxFuture<Response<Blobs>, Status>;

    fn call(&mut self, request: Request<Blob>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (what, running) = this.begin(request.metadata());
            let metadata = request.metadata().clone();
            let value = request.into_inner().value;
            let most: u64 = String::from_utf8_lossy(&value).parse().unwrap_or(u64::MAX);
            let seen = this.0.clone();
            let blobs = futures_util::stream::unfold((0u64, running), move |(n, mut running)| {
                let (what, seen) = (what.clone(), seen.clone());
                async move {
                    if n == most {
                        running.done = true;
                        return match what.as_str() {
                            "fail" => Some((Err(failure()), (n + 1, running))),
                            "hang" => std::future::pending().await,
                            _ => None,
                        };
                    }
                    if n > most {
                        return None;
                    }
                    seen.count(&seen.messages_sent);
                    Some((Ok(Blob { value: n.to_string().into() }), (n + 1, running)))
                }
            });
            let blobs: Blobs = Box::pin(blobs);
            Ok(this.answer(blobs, &metadata))
        })
    }
}

impl StreamingService<Blob> for Service {
    type Response = Blob;
    type ResponseStream = Blobs;
    type Future = BoxFuture<Response<Blobs>, Status>;

    fn call(&mut self, request: Request<Streaming<Blob>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (what, running) = this.begin(request.metadata());
            let metadata = request.metadata().clone();
            let seen = this.0.clone();
            let blobs =
                futures_util::stream::unfold((request.into_inner(), running), move |(mut stream, mut running)| {
                    let (what, seen) = (what.clone(), seen.clone());
                    async move {
                        match stream.next().await {
                            Some(Ok(blob)) => {
                                seen.count(&seen.messages_received);
                                Some((Ok(blob), (stream, running)))
                            }
                            Some(Err(status)) => Some((Err(status), (stream, running))),
                            None => {
                                running.done = true;
                                (what == "fail").then(|| (Err(failure()), (stream, running)))
                            }
                        }
                    }
                });
            let blobs: Blobs = Box::pin(blobs);
            Ok(this.answer(blobs, &metadata))
        })
    }
}

// === the calling side ===

/// Calls the probe through a channel, as generated stubs do.
#[derive(Debug, Clone)]
pub(crate) struct ProbeClient {
    channel: tonic::transport::Channel,
    metadata: MetadataMap,
    timeout: Option<Duration>,
    gzip: bool,
}

impl ProbeClient {
    pub(crate) fn new(channel: tonic::transport::Channel) -> Self {
        Self { channel, metadata: MetadataMap::new(), timeout: None, gzip: false }
    }

    /// With metadata of this kind in every call.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.metadata.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) fn with_bin(mut self, name: &'static str, value: &[u8]) -> Self {
        self.metadata.insert_bin(name, tonic::metadata::MetadataValue::from_bytes(value));
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(crate) fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<tonic::transport::Channel>, Status> {
        let most = 64 << 20;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(most)
            .max_encoding_message_size(most)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        if self.gzip {
            grpc = grpc.send_compressed(tonic::codec::CompressionEncoding::Gzip);
        }
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(grpc)
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    pub(crate) async fn unary(&self, value: impl Into<bytes::Bytes>) -> Result<Response<Blob>, Status> {
        self.unary_at("/kopuro.test.v1.Probe/Unary", value).await
    }

    pub(crate) async fn unary_at(
        &self,
        path: &'static str,
        value: impl Into<bytes::Bytes>,
    ) -> Result<Response<Blob>, Status> {
        let request = self.request(Blob { value: value.into() });
        let path = http::uri::PathAndQuery::from_static(path);
        self.grpc().await?.unary(request, path, ProstCodec::<Blob, Blob>::default()).await
    }

    pub(crate) async fn collect<S>(&self, blobs: S) -> Result<Response<Blob>, Status>
    where
        S: Stream<Item = Blob> + Send + 'static,
    {
        let path = http::uri::PathAndQuery::from_static("/kopuro.test.v1.Probe/Collect");
        self.grpc().await?.client_streaming(self.request(blobs), path, ProstCodec::<Blob, Blob>::default()).await
    }

    /// `count` answers, or as many as one takes.
    pub(crate) async fn expand(&self, count: Option<u64>) -> Result<Response<Streaming<Blob>>, Status> {
        let value = count.map(|n| n.to_string()).unwrap_or_default();
        let path = http::uri::PathAndQuery::from_static("/kopuro.test.v1.Probe/Expand");
        let request = self.request(Blob { value: value.into() });
        self.grpc().await?.server_streaming(request, path, ProstCodec::<Blob, Blob>::default()).await
    }

    pub(crate) async fn chat<S>(&self, blobs: S) -> Result<Response<Streaming<Blob>>, Status>
    where
        S: Stream<Item = Blob> + Send + 'static,
    {
        let path = http::uri::PathAndQuery::from_static("/kopuro.test.v1.Probe/Chat");
        self.grpc().await?.streaming(self.request(blobs), path, ProstCodec::<Blob, Blob>::default()).await
    }
}

/// A message.
pub(crate) fn blob(value: &str) -> Blob {
    Blob { value: value.to_owned().into() }
}
