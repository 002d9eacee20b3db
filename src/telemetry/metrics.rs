//! Metrics: names, help texts, buckets, and a node's own handles to them.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `kopuro_exchanges_total` | node, consumer, provider, outcome | exchanges that ended here, by member |
//! | `kopuro_refused_total` | node, side, reason | calls refused |
//! | `kopuro_withheld_fields_total` | node | fields of answers that no grant allows |
//! | `kopuro_stage_seconds` | node, stage | time in each stage of an exchange |
//! | `kopuro_exchange_seconds` | node, side | whole unary exchanges |
//! | `kopuro_in_flight` | node | exchanges running |
//! | `kopuro_connections` | node, listener | open connections |
//! | `kopuro_connections_refused_total` | node, listener, reason | connections that came to nothing |
//! | `kopuro_bytes_total` | node, direction | message bytes forwarded |
//! | `kopuro_expiry_timestamp_seconds` | node, what | when certificate, directory and the first CRL end, Unix time |
//! | `kopuro_directory_version` | node | version of the directory in force |
//! | `kopuro_reloads_total` | node, result | configurations taken up or refused |
//! | `kopuro_ready` | node | 1 where exchanges pass |
//! | `kopuro_peer_consistency_proofs_total` | node, result | answers of peers that proved their logs' consistency, or did not |
//! | `kopuro_peer_checkpoints_pending` | node | a peer's checkpoints waiting for such a proof, as of the last answer |
//! | `kopuro_peer_contradictions` | node | peers refused since their logs contradict themselves |
//! | `kopuro_publish_size` | node | entries published |
//! | `kopuro_publish_lag_entries` | node | durable entries that are not published yet |
//! | `kopuro_publish_lag_seconds` | node | how long the first of these has waited |
//! | `kopuro_publish_failures_total` | node | attempts to publish that failed |
//! | `kopuro_publish_refused` | node | 1 where the log contradicts what it has published |
//! | `kopuro_publish_mended_total` | node | published tiles that were wrong or missing |
//! | `kopuro_publish_store_wrong_total` | node | full tiles that were not in the store as published, and were served from the log |
//! | `kopuro_publish_requests_total` | node, status | requests for the publication |
//!
//! The log's own metrics are in the log room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{RecentRefusals, TelemetryError};
use crate::trust::identity::MemberId;

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

/// From a tenth of a millisecond (a durable wait on a good disk is a few of these) to a minute.
const SECONDS: [f64; 17] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

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
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    describe();
    Ok(installed.insert(handle).clone())
}

fn describe() {
    describe_counter!(EXCHANGES, Unit::Count, "Exchanges that ended at this node, by members and outcome");
    describe_counter!(REFUSED, Unit::Count, "Calls refused, by the side whose node refused and the reason");
    describe_counter!(WITHHELD, Unit::Count, "Fields of answers that this node withheld, because no grant allows them");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "Time in each stage of an exchange at this node");
    describe_histogram!(EXCHANGE_SECONDS, Unit::Seconds, "Whole unary exchanges, from their headers to their trailers");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Exchanges running now");
    describe_gauge!(CONNECTIONS, Unit::Count, "Open connections by listener");
    describe_counter!(CONNECTIONS_REFUSED, Unit::Count, "Connections closed before a call, by listener and reason");
    describe_counter!(BYTES, Unit::Bytes, "Message bytes forwarded, by direction");
    describe_gauge!(EXPIRY, Unit::Seconds, "When the certificate, the directory or the first CRL ends, Unix time");
    describe_gauge!(DIRECTORY_VERSION, Unit::Count, "Version of the directory in force");
    describe_counter!(RELOADS, Unit::Count, "Configurations taken up or refused");
    describe_gauge!(READY, Unit::Count, "1 where exchanges pass, else 0");
    describe_counter!(
        PEER_PROOFS,
        Unit::Count,
        "Peers' answers about their logs' consistency, by whether they proved it"
    );
    describe_gauge!(PEER_PENDING, Unit::Count, "A peer's checkpoints waiting for a consistency proof");
    describe_gauge!(PEER_CONTRADICTIONS, Unit::Count, "Peers refused since their logs contradict themselves");
    describe_gauge!(PUBLISH_SIZE, Unit::Count, "Entries published");
    describe_gauge!(PUBLISH_LAG_ENTRIES, Unit::Count, "Durable entries that are not published yet");
    describe_gauge!(PUBLISH_LAG_SECONDS, Unit::Seconds, "How long the first entry that is not published has waited");
    describe_counter!(PUBLISH_FAILURES, Unit::Count, "Attempts to publish that failed");
    describe_gauge!(PUBLISH_REFUSED, Unit::Count, "1 where the log contradicts what it has published, else 0");
    describe_counter!(PUBLISH_MENDED, Unit::Count, "Published tiles that were wrong or missing, and are not any more");
    describe_counter!(PUBLISH_WRONG, Unit::Count, "Full tiles not in the store as published: served from the log");
    describe_counter!(PUBLISH_REQUESTS, Unit::Count, "Requests for the publication, by HTTP status");
}

/// A stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the request up to where it can be decided about.
    Accept,
    /// Routing and authorising.
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

    /// Whether exchanges pass.
    pub fn ready(&self, ready: bool) {
        gauge!(READY, &[("node", self.node.clone())]).set(if ready { 1.0 } else { 0.0 });
    }
}
