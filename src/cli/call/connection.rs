//! A tonic channel to a node over our own TLS: the only kind that the command line uses.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::trust::tls::{Credentials, client_config_by_name};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects to `https://host:port`, verifying the node's name under `roots`.
pub(in crate::cli) async fn connect(
    node: &str,
    roots: &[PathBuf],
    credentials: Option<&Credentials>,
) -> anyhow::Result<Channel> {
    let uri: Uri = node.parse().with_context(|| format!("{node:?} is no URL"))?;
    let host = host_of(&uri)?;
    let name = ServerName::try_from(host.clone()).with_context(|| format!("{host:?} is no host name"))?;
    let config = client_config_by_name(roots, credentials)?;
    Ok(endpoint(node)?.connect_with_connector(connector(&uri, name, config)?).await?)
}

/// Connects to `host:port` under a TLS configuration that knows by itself who must be there.
pub(in crate::cli) async fn connect_as(address: &str, config: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    let node = format!("https://{address}");
    let uri: Uri = node.parse().with_context(|| format!("{address:?} is not host:port"))?;
    // The name is not looked at: the identity in the certificate is.
    let name = ServerName::try_from("localhost").context("a host name")?;
    Ok(endpoint(&node)?.connect_with_connector(connector(&uri, name, config)?).await?)
}

/// The address without its scheme's TLS, which is ours to do.
fn endpoint(node: &str) -> anyhow::Result<Endpoint> {
    let uri: Uri = node.parse().with_context(|| format!("{node:?} is no URL"))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
    let authority = authority.with_context(|| format!("{node:?} is not of the form https://host:port"))?;
    Ok(Endpoint::from_shared(format!("http://{authority}"))?
        .origin(Uri::builder().scheme("https").authority(authority.clone()).path_and_query("/").build()?)
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        // Much larger than a stream's, or tiny messages to a slow reader break the connection (h2's small-frame budget).
        .initial_connection_window_size(16 << 20))
}

fn connector(
    uri: &Uri,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> anyhow::Result<
    impl tower::Service<
        Uri,
        Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
        Error = std::io::Error,
        Future: Send,
    > + Send
    + 'static,
> {
    let port = uri.port_u16().unwrap_or(443);
    let target = Arc::new((host_of(uri)?, port, name, TlsConnector::from(config)));
    Ok(tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move {
            let (host, port, name, connector) = &*target;
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(connector.connect(name.clone(), tcp).await?))
        }
    }))
}

fn host_of(uri: &Uri) -> anyhow::Result<String> {
    Ok(uri.host().context("no host")?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// tonic reports its own clock running out as CANCELLED; for a caller it is DEADLINE_EXCEEDED, whose clock it was.
pub(in crate::cli) fn timed_out(status: Status) -> Status {
    let mut cause = status.source();
    while let Some(inner) = cause.filter(|cause| !cause.is::<tonic::TimeoutExpired>()) {
        cause = inner.source();
    }
    if cause.is_some() && status.code() == Code::Cancelled {
        Status::deadline_exceeded("no answer within the deadline")
    } else {
        status
    }
}
