//! Metrics: names, help texts, buckets, and a node's own handles to them.
//! [`told`] lists them all.

mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};
use arc_swap::ArcSwap;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use told::{ALL, Kind, Told, When};

use super::{RecentRefusals, TelemetryError};
use crate::trust::identity::{Identity, MemberId};

/// Which version runs.
pub const BUILD: &str = "kopuro_build_info";

/// Exchanges that ended here.
pub const EXCHANGES: &str = "kopuro_exchanges_total";
/// Calls refused.
pub const REFUSED: &str = "kopuro_refused_total";
/// Fields withheld.
pub const WITHHELD: &str = "kopuro_withheld_fields_total";
/// Time in each stage.
pub const STAGE_SECONDS: &str = "kopuro_stage_seconds";
/// Whole unary exchanges.
pub const EXCHANGE_SECONDS: &str = "kopuro_exchange_seconds";
/// Exchanges running.
pub const IN_FLIGHT: &str = "kopuro_in_flight";
/// Open connections.
pub const CONNECTIONS: &str = "kopuro_connections";
/// Connections that came to nothing.
pub const CONNECTIONS_REFUSED: &str = "kopuro_connections_refused_total";
/// Message bytes forwarded.
pub const BYTES: &str = "kopuro_bytes_total";
/// When something ends.
pub const EXPIRY: &str = "kopuro_expiry_timestamp_seconds";
/// The directory in force.
pub const DIRECTORY_VERSION: &str = "kopuro_directory_version";
/// Configurations taken up or refused.
pub const RELOADS: &str = "kopuro_reloads_total";
/// Whether exchanges pass.
pub const READY: &str = "kopuro_ready";
/// When the last backup of the log was made.
pub const BACKUP: &str = "kopuro_backup_timestamp_seconds";

/// Whether a peer's node can be reached.
pub const PEER_REACHABLE: &str = "kopuro_peer_reachable";
/// Connections to it.
pub const PEER_CONNECTIONS: &str = "kopuro_peer_connections";
/// Whether a back-end can be reached.
pub const BACKEND_REACHABLE: &str = "kopuro_backend_reachable";
/// Connections to it.
pub const BACKEND_CONNECTIONS: &str = "kopuro_backend_connections";
/// Messages refused since a peer did not prove what it has to.
pub const PEER_MISBEHAVIOUR: &str = "kopuro_peer_misbehaviour_total";
/// Whether peers proved their logs' consistency.
pub const PEER_PROOFS: &str = "kopuro_peer_consistency_proofs_total";
/// Checkpoints waiting for it.
pub const PEER_PENDING: &str = "kopuro_peer_checkpoints_pending";
/// Peers whose logs contradict themselves.
pub const PEER_CONTRADICTIONS: &str = "kopuro_peer_contradictions";
/// Entries published.
pub const PUBLISH_SIZE: &str = "kopuro_publish_size";
/// Durable entries that are not published yet.
pub const PUBLISH_LAG_ENTRIES: &str = "kopuro_publish_lag_entries";
/// How long the first of these has waited.
pub const PUBLISH_LAG_SECONDS: &str = "kopuro_publish_lag_seconds";
/// Attempts to publish that failed.
pub const PUBLISH_FAILURES: &str = "kopuro_publish_failures_total";
/// Whether the log contradicts what it has published.
pub const PUBLISH_REFUSED: &str = "kopuro_publish_refused";
/// Published tiles that were wrong or missing.
pub const PUBLISH_MENDED: &str = "kopuro_publish_mended_total";
/// Wrong or missing tiles that were not served from the store.
pub const PUBLISH_WRONG: &str = "kopuro_publish_store_wrong_total";
/// Requests for the publication.
pub const PUBLISH_REQUESTS: &str = "kopuro_publish_requests_total";

/// Spans for a collector.
pub const OTLP_SPANS: &str = "kopuro_otlp_spans_total";
/// Exports of metrics to it.
pub const OTLP_METRICS: &str = "kopuro_otlp_metrics_total";

/// From a tenth of a millisecond (a durable wait on a good disk is a few of these) to a minute.
const SECONDS: [f64; 17] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Of one commit: as many as are waiting, up to `log.batch`.
const ENTRIES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Starts recording, once per process: later calls give the same handle, so that several nodes can live together.
pub fn install() -> Result<PrometheusHandle, TelemetryError> {
    // Poisoned or not, the handle is either there or not.
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_commit_entries".into()), &ENTRIES))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    told::describe();
    Ok(installed.insert(handle).clone())
}

/// A stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the request's message.
    Accept,
    /// Routing and authorising; and again, judging the messages by their types.
    Check,
    /// Waiting until an entry is durable.
    Durable,
    /// The other node, from sending the request to its response's headers.
    Peer,
    /// The back-end, likewise.
    Backend,
}

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The member's own systems.
    Systems,
    /// Other nodes.
    Nodes,
}

impl Listener {
    /// As in labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systems => "systems",
            Self::Nodes => "nodes",
        }
    }
}

/// What calls go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Another member's node.
    Peer,
    /// A system of this member.
    Backend,
}

/// A node's metrics. Those of the data path are looked up once, here.
#[derive(Clone)]
pub struct NodeMetrics {
    node: SharedString,
    stages: [Histogram; 5],
    exchanges_as: [Histogram; 2],
    in_flight: Gauge,
    connections: [Gauge; 2],
    bytes: [Counter; 2],
    /// By consumer and provider: as many as there are pairs of members that exchange.
    ended: Arc<ArcSwap<HashMap<(MemberId, MemberId), Ended>>>,
    refusals: Arc<RecentRefusals>,
    withheld: Counter,
}

/// How exchanges between two members ended, in the order of [`OUTCOMES`].
type Ended = [Counter; 4];
const OUTCOMES: [&str; 4] = ["ok", "error", "refused", "failed"];

impl std::fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NodeMetrics").field(&self.node).finish()
    }
}

impl NodeMetrics {
    /// Of the node with this name (`KG/GOV/70000005/_node/main`). [`install`] comes first: what is measured before is lost.
    pub fn new(node: impl Into<String>) -> Self {
        let node: SharedString = node.into().into();
        let label = || ("node", node.clone());
        gauge!(BUILD, &[label(), ("version", env!("CARGO_PKG_VERSION").into())]).set(1.0);
        // From the beginning, so that the first one is an increase too.
        for (name, results) in [(RELOADS, ["taken_up", "refused"]), (PEER_PROOFS, ["proven", "not_proven"])] {
            for result in results {
                counter!(name, &[label(), ("result", result.into())]).increment(0);
            }
        }
        gauge!(PEER_PENDING, &[label()]).set(0.0);
        Self {
            stages: ["accept", "check", "durable", "peer", "backend"]
                .map(|stage| histogram!(STAGE_SECONDS, &[label(), ("stage", stage.into())])),
            exchanges_as: ["consumer", "provider"]
                .map(|side| histogram!(EXCHANGE_SECONDS, &[label(), ("side", side.into())])),
            in_flight: gauge!(IN_FLIGHT, &[label()]),
            connections: [Listener::Systems, Listener::Nodes]
                .map(|listener| gauge!(CONNECTIONS, &[label(), ("listener", listener.as_str().into())])),
            bytes: ["request", "response"]
                .map(|direction| counter!(BYTES, &[label(), ("direction", direction.into())])),
            ended: Arc::default(),
            refusals: Arc::default(),
            withheld: counter!(WITHHELD, &[label()]),
            node,
        }
    }

    /// Time that an exchange spent in a stage.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages[stage as usize].record(time);
    }

    /// A whole unary exchange, on this side of it.
    pub fn exchange_took(&self, as_provider: bool, time: Duration) {
        self.exchanges_as[usize::from(as_provider)].record(time);
    }

    /// An exchange ended with this outcome (`ok`, `error`, `refused`, `failed`).
    pub fn exchange_ended(&self, consumer: &MemberId, provider: &MemberId, outcome: &'static str) {
        let Some(at) = OUTCOMES.iter().position(|known| *known == outcome) else { return };
        let pair = (consumer.clone(), provider.clone());
        if let Some(counters) = self.ended.load().get(&pair) {
            return counters[at].increment(1);
        }
        let counters = OUTCOMES.map(|outcome| {
            let labels: [(&'static str, SharedString); 4] = [
                ("node", self.node.clone()),
                ("consumer", consumer.to_string().into()),
                ("provider", provider.to_string().into()),
                ("outcome", outcome.into()),
            ];
            counter!(EXCHANGES, &labels)
        });
        counters[at].increment(1);
        self.ended.rcu(|known| {
            let mut more = HashMap::clone(known);
            more.insert(pair.clone(), counters.clone());
            more
        });
    }

    /// A call was refused by the node of this side (`consumer`, `provider`), for a stable reason.
    pub fn refused(&self, side: &'static str, reason: &str) {
        let labels: [(&'static str, SharedString); 3] =
            [("node", self.node.clone()), ("side", side.into()), ("reason", reason.to_owned().into())];
        counter!(REFUSED, &labels).increment(1);
    }

    /// Fields of an answer were withheld, because no grant allows them.
    pub fn withheld(&self, fields: u64) {
        self.withheld.increment(fields);
    }

    /// The last refusals.
    pub fn refusals(&self) -> &RecentRefusals {
        &self.refusals
    }

    /// Exchanges running; also a guard's to decrement.
    pub fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// Open connections of a listener.
    pub fn connections(&self, listener: Listener) -> &Gauge {
        &self.connections[listener as usize]
    }

    /// A connection came to nothing, for a stable reason.
    pub fn connection_refused(&self, listener: Listener, reason: &'static str) {
        let labels: [(&'static str, SharedString); 3] =
            [("node", self.node.clone()), ("listener", listener.as_str().into()), ("reason", reason.into())];
        counter!(CONNECTIONS_REFUSED, &labels).increment(1);
    }

    /// Bytes of a request's messages that went on.
    pub fn request_bytes(&self, bytes: u64) {
        self.bytes[0].increment(bytes);
    }

    /// Bytes of a response's messages that went on.
    pub fn response_bytes(&self, bytes: u64) {
        self.bytes[1].increment(bytes);
    }

    /// When `what` (`certificate`, `directory`, `crl`) ends.
    pub fn expires(&self, what: &'static str, unix_seconds: i64) {
        let labels: [(&'static str, SharedString); 2] = [("node", self.node.clone()), ("what", what.into())];
        gauge!(EXPIRY, &labels).set(unix_seconds as f64);
    }

    /// The directory in force.
    pub fn directory_version(&self, version: u64) {
        gauge!(DIRECTORY_VERSION, &[("node", self.node.clone())]).set(version as f64);
    }

    /// A changed configuration was taken up, or refused.
    pub fn reloaded(&self, taken_up: bool) {
        let result = if taken_up { "taken_up" } else { "refused" };
        let labels: [(&'static str, SharedString); 2] = [("node", self.node.clone()), ("result", result.into())];
        counter!(RELOADS, &labels).increment(1);
    }

    /// A peer answered about its log's consistency; so many of its checkpoints still wait.
    pub fn peer_proofs(&self, proven: bool, pending: usize) {
        let result = if proven { "proven" } else { "not_proven" };
        counter!(PEER_PROOFS, &[("node", self.node.clone()), ("result", result.into())]).increment(1);
        gauge!(PEER_PENDING, &[("node", self.node.clone())]).set(pending as f64);
    }

    /// How many peers are refused since their logs contradict themselves.
    pub fn peer_contradictions(&self, peers: usize) {
        gauge!(PEER_CONTRADICTIONS, &[("node", self.node.clone())]).set(peers as f64);
    }

    /// What a peer sent was refused, since it did not prove what it has to.
    pub fn peer_misbehaved(&self, peer: &Identity, reason: &str) {
        let labels: [(&'static str, SharedString); 3] =
            [("node", self.node.clone()), ("peer", peer.to_string().into()), ("reason", reason.to_owned().into())];
        counter!(PEER_MISBEHAVIOUR, &labels).increment(1);
    }

    /// How a peer's node (`KG/GOV/70000005/_node/main`) or a back-end's system is: its open connections, and whether it could be
    /// reached when that was last tried.
    pub fn destination(&self, kind: Destination, name: &str, connections: usize, reachable: Option<bool>) {
        let (label, of_connections, of_reachable) = match kind {
            Destination::Peer => ("peer", PEER_CONNECTIONS, PEER_REACHABLE),
            Destination::Backend => ("system", BACKEND_CONNECTIONS, BACKEND_REACHABLE),
        };
        let labels: [(&'static str, SharedString); 2] = [("node", self.node.clone()), (label, name.to_owned().into())];
        gauge!(of_connections, &labels).set(connections as f64);
        if let Some(reachable) = reachable {
            gauge!(of_reachable, &labels).set(f64::from(u8::from(reachable)));
        }
    }

    /// A destination that is no more: what was last known of it alerts nobody.
    pub fn destination_gone(&self, kind: Destination, name: &str) {
        self.destination(kind, name, 0, Some(true));
    }

    /// Whether exchanges pass.
    pub fn ready(&self, ready: bool) {
        gauge!(READY, &[("node", self.node.clone())]).set(if ready { 1.0 } else { 0.0 });
    }

    /// The log was handed out whole for a backup.
    pub fn backed_up(&self, unix_seconds: i64) {
        gauge!(BACKUP, &[("node", self.node.clone())]).set(unix_seconds as f64);
    }
}
