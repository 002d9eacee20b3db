//! `[telemetry]`: traces and metrics to a collector. Log lines are the command line's; metrics for Prometheus are always at `listen.admin`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use super::document::{ConfigError, Problem, Step};
use super::private::Secret;
use super::{NodeConfig, units};
use crate::telemetry::otlp::OtlpOptions;
use crate::telemetry::trace::Sampling;
use crate::trust::secret::SecretSource;
use crate::trust::tls;

/// `[telemetry]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// An OpenTelemetry collector. Default none: nothing is exported.
    pub otlp: Option<Otlp>,
}

/// `[telemetry.otlp]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector, OTLP over gRPC: `https://host:4317`, or `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// Lets `http://` go to another machine. Default false.
    #[serde(default)]
    pub insecure: bool,
    /// Roots, PEM, for the collector's certificate, besides the system's. Default none.
    #[serde(default)]
    pub roots: Option<PathBuf>,
    /// What goes with every request, a `name: value` in each line, where the collector asks for it. Default none.
    #[serde(default)]
    pub headers: Option<Secret>,
    /// Whether traces are exported. Default true.
    #[serde(default = "yes")]
    pub traces: bool,
    /// Which part of the traces that begin at this node are recorded; a caller's own choice always holds. Default 1.
    #[serde(default = "all")]
    pub sample: f64,
    /// How long a span may wait for others to go with it. Default `5s`.
    #[serde(default = "delay", deserialize_with = "units::wait")]
    pub delay: Duration,
    /// How many exchanges' spans may wait; those beyond it are dropped. Default 2048.
    #[serde(default = "queue")]
    pub queue: NonZeroUsize,
    /// Whether metrics are exported. Default true.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// How often metrics are. Default `60s`.
    #[serde(default = "interval", deserialize_with = "units::wait")]
    pub interval: Duration,
    /// How long the collector may take, tries included, before what it was sent is dropped. Default `10s`.
    #[serde(default = "timeout", deserialize_with = "units::wait")]
    pub timeout: Duration,
}

impl Telemetry {
    pub(super) fn resolve(&mut self, base: &Path) {
        let Some(otlp) = &mut self.otlp else { return };
        let headers = match &mut otlp.headers {
            Some(Secret::File(path)) => Some(path),
            _ => None,
        };
        for path in headers.into_iter().chain(&mut otlp.roots) {
            *path = base.join(&path);
        }
    }
}

impl NodeConfig {
    /// What is exported, where to; none where nothing is.
    pub fn otlp(&self) -> Result<Option<OtlpOptions>, ConfigError> {
        let Some(otlp) = &self.telemetry.otlp else { return Ok(None) };
        let mut problems = Vec::new();
        let mut wrong = |field, what: String, remedy: &str| {
            let steps = [Step::Key("telemetry"), Step::Key("otlp"), Step::Key(field)];
            problems.push(self.problem(&steps, what, remedy));
        };
        if let Err(what) = check_endpoint(otlp) {
            wrong("endpoint", what, "write https://host:4317, or http://127.0.0.1:4317");
        }
        if !(0.0..=1.0).contains(&otlp.sample) {
            wrong("sample", format!("{} is no part of all traces", otlp.sample), "write a number from 0.0 to 1.0");
        }
        if !otlp.traces && !otlp.metrics {
            wrong("traces", "neither traces nor metrics are exported".into(), "set one of them, or remove the table");
        }
        let tls = tls::web_client_config(otlp.roots.as_deref());
        let tls = tls.map_err(|error| wrong("roots", error.to_string(), "give a PEM file of root certificates"));
        let headers = otlp.headers.clone().map_or_else(|| Ok(MetadataMap::new()), read_headers);
        let remedy = "give a file that its owner alone can read, with a header in each line, as name: value";
        let headers = headers.map_err(|what| wrong("headers", what, remedy));
        match (tls, headers) {
            (Ok(tls), Ok(headers)) if problems.is_empty() => Ok(Some(OtlpOptions {
                node: self.identity().to_string(),
                endpoint: otlp.endpoint.clone(),
                tls: otlp.endpoint.starts_with("https://").then_some(tls),
                headers,
                traces: otlp.traces.then_some(Sampling { ratio: otlp.sample }),
                metrics: otlp.metrics.then_some(otlp.interval),
                delay: otlp.delay,
                queue: otlp.queue.get(),
                timeout: otlp.timeout,
            })),
            _ => Err(ConfigError { problems }),
        }
    }
}

/// What can be said of `[telemetry]` without asking the collector anything.
pub(super) fn check(config: &NodeConfig, problems: &mut Vec<Problem>) {
    if let Err(error) = config.otlp() {
        problems.extend(error.problems);
    }
}

fn check_endpoint(otlp: &Otlp) -> Result<(), String> {
    let endpoint = &otlp.endpoint;
    let wrong = || format!("{endpoint:?} is no address of a collector");
    let uri: http::Uri = endpoint.parse().map_err(|_| wrong())?;
    let (Some(host), Some(1..), "" | "/", None) = (uri.host(), uri.port_u16(), uri.path(), uri.query()) else {
        return Err(wrong());
    };
    let is_here = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here || otlp.insecure => Ok(()),
        Some("http") => Err(format!("{endpoint:?} is another machine, in the clear, and insecure is not set")),
        _ => Err(wrong()),
    }
}

/// The text is a secret: no message repeats it.
fn read_headers(from: Secret) -> Result<MetadataMap, String> {
    let text = SecretSource::from(from).text().map_err(|error| error.to_string())?;
    let mut headers = MetadataMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let name = AsciiMetadataKey::from_bytes(name.trim().to_ascii_lowercase().as_bytes()).ok()?;
            Some((name, AsciiMetadataValue::try_from(value.trim()).ok()?))
        });
        let (name, mut value) = header.ok_or_else(|| format!("line {} is no header", index + 1))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn yes() -> bool {
    true
}

fn all() -> f64 {
    1.0
}

fn delay() -> Duration {
    Duration::from_secs(5)
}

fn queue() -> NonZeroUsize {
    const { NonZeroUsize::new(2_048).unwrap() }
}

fn interval() -> Duration {
    Duration::from_secs(60)
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}
