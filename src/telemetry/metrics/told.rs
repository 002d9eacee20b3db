//! Every metric that this program tells: the one list, which operators' table (`docs/operate.md`), Prometheus' help texts and the tests go by.
//! Names are stable; labels are of a bounded number. The log's own are here too, though the log room counts them.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use super::*;

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Its name; a histogram's is followed by `_bucket`, `_sum` or `_count`.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: Kind,
    /// Who tells it when.
    pub when: When,
    /// What it means.
    pub help: &'static str,
}

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Who tells a metric, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every node, once it has carried an exchange with another one.
    Always,
    /// A node with `[publish]`.
    Published,
    /// A node, once it has happened.
    Happened,
    /// A node with `[telemetry.otlp]`.
    Exporting,
    /// A witness.
    Witness,
    /// A monitor.
    Monitor,
}

use Kind::{Counter as C, Gauge as G, Histogram as H};
use When::{Always, Exporting, Happened, Monitor, Published, Witness};

const fn told(name: &'static str, kind: Kind, when: When, help: &'static str) -> Told {
    Told { name, kind, when, help }
}

/// All of them.
pub const ALL: &[Told] = &[
    told(BUILD, G, Always, "Always 1; its label says which version runs"),
    told(READY, G, Always, "1 where exchanges pass, else 0"),
    told(EXCHANGES, C, Always, "Exchanges that ended at this node, by members and outcome"),
    told(REFUSED, C, Happened, "Calls refused, by the side whose node refused and the reason"),
    told(WITHHELD, C, Always, "Fields of answers that this node withheld, because no grant allows them"),
    told(EXCHANGE_SECONDS, H, Always, "Whole unary exchanges, from their headers to their trailers"),
    told(STAGE_SECONDS, H, Always, "Time in each stage of an exchange at this node"),
    told(IN_FLIGHT, G, Always, "Exchanges running now"),
    told(BYTES, C, Always, "Message bytes forwarded, by direction"),
    told(CONNECTIONS, G, Always, "Open connections by listener"),
    told(CONNECTIONS_REFUSED, C, Happened, "Connections closed before a call, by listener and reason"),
    told(EXPIRY, G, Always, "When the certificate, the directory or the first CRL ends, Unix time"),
    told(DIRECTORY_VERSION, G, Always, "Version of the directory in force"),
    told(RELOADS, C, Always, "Configurations taken up or refused"),
    told(
        PEER_REACHABLE,
        G,
        Always,
        "1 where the last attempt to connect to a peer's node succeeded, 0 where it failed",
    ),
    told(PEER_CONNECTIONS, G, Always, "Open connections to a peer's node"),
    told(
        BACKEND_REACHABLE,
        G,
        Always,
        "1 where the last attempt to connect to a back-end succeeded, 0 where it failed",
    ),
    told(BACKEND_CONNECTIONS, G, Always, "Open connections to a back-end"),
    told(PEER_PROOFS, C, Always, "Peers' answers about their logs' consistency, by whether they proved it"),
    told(PEER_PENDING, G, Always, "A peer's checkpoints waiting for a consistency proof"),
    told(PEER_CONTRADICTIONS, G, Always, "Peers refused since their logs contradict themselves"),
    told(PEER_MISBEHAVIOUR, C, Happened, "Messages of a peer refused since it did not prove what it has to, by reason"),
    told("kopuro_log_entries", G, Always, "Entries in the log"),
    told("kopuro_log_signing_keys", G, Always, "Keys that sign the log: 2 while its key is changed"),
    told("kopuro_log_first_entry", G, Always, "The first entry still kept: those before were pruned"),
    told("kopuro_log_bytes", G, Always, "Bytes of the entries that are kept, without their private halves"),
    told(
        "kopuro_log_store_bytes",
        G,
        Always,
        "Size of the store's file, in which pruned entries leave room for new ones",
    ),
    told("kopuro_log_erased_total", C, Always, "Entries whose private values were erased"),
    told("kopuro_log_commit_seconds", H, Always, "Time that commits took"),
    told("kopuro_log_commit_entries", H, Always, "Entries in a commit"),
    told("kopuro_log_queue_depth", G, Always, "Entries waiting for the log's writer"),
    told("kopuro_log_free_bytes", G, Always, "Free space where the log is"),
    told(
        "kopuro_log_restored",
        G,
        Always,
        "1 where the log was restored and waits to hear that nobody has seen more of it, else 0",
    ),
    told(BACKUP, G, Happened, "When the log was last handed out whole for a backup, Unix time"),
    told("kopuro_log_refusing", G, Always, "1 where the log takes no entries, else 0"),
    told("kopuro_log_blob_files", G, Always, "Files that sled does not sync: must be 0"),
    told("kopuro_log_opened_total", C, Always, "Delayed entries opened because their time had come"),
    told("kopuro_index_lag_entries", G, Always, "Durable entries not yet in the index"),
    told(PUBLISH_SIZE, G, Published, "Entries published"),
    told(PUBLISH_LAG_ENTRIES, G, Published, "Durable entries that are not published yet"),
    told(PUBLISH_LAG_SECONDS, G, Published, "How long the first entry that is not published has waited"),
    told(PUBLISH_FAILURES, C, Published, "Attempts to publish that failed"),
    told(PUBLISH_REFUSED, G, Published, "1 where the log contradicts what it has published, else 0"),
    told(PUBLISH_MENDED, C, Happened, "Published tiles that were wrong or missing, and are not any more"),
    told(PUBLISH_WRONG, C, Happened, "Full tiles not in the store as published: served from the log"),
    told(PUBLISH_REQUESTS, C, Happened, "Requests for the publication, by HTTP status"),
    told("kopuro_cosigned_size", G, Happened, "Size of the last checkpoint that a witness cosigned for this node"),
    told("kopuro_cosignature_failures_total", C, Happened, "Witnesses that gave no cosignature, by reason"),
    told(OTLP_SPANS, C, Exporting, "Spans for the collector, by what became of them"),
    told(OTLP_METRICS, C, Exporting, "Exports of metrics to the collector, by what became of them"),
    told("kopuro_witness_size", G, Witness, "Size that this witness cosigned last"),
    told("kopuro_witness_requests_total", C, Witness, "Requests to add a checkpoint, by HTTP status"),
    told("kopuro_witness_contradictions_total", C, Witness, "Requests with a second root for the size cosigned last"),
    told("kopuro_monitor_ok", G, Monitor, "1 where nothing is wrong, else 0"),
    told("kopuro_monitor_round_timestamp_seconds", G, Monitor, "When the monitor last looked, Unix time"),
    told("kopuro_monitor_exchanges_wrong", G, Monitor, "Exchanges that one side lacks or tells differently"),
    told("kopuro_monitor_exchanges", G, Monitor, "Exchanges by what the monitor found of them"),
    told("kopuro_monitor_evidence", G, Monitor, "Pairs of checkpoints that contradict each other"),
    told("kopuro_monitor_log_good", G, Monitor, "1 where a log verifies, else 0"),
    told("kopuro_monitor_log_entries", G, Monitor, "Entries of a log"),
    told(
        "kopuro_monitor_log_good_timestamp_seconds",
        G,
        Monitor,
        "When a log's checkpoint was last found good, Unix time",
    ),
    told("kopuro_monitor_log_unreadable", G, Monitor, "Entries of a log that cannot be read"),
    told("kopuro_monitor_log_accusations", G, Monitor, "Entries of a log that accuse a peer"),
    told("kopuro_monitor_entries_read_total", C, Monitor, "Entries read"),
];

/// Gives the recorder their help texts.
pub(super) fn describe() {
    for Told { name, kind, help, .. } in ALL {
        let unit = match name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") || *name == BYTES => Unit::Bytes,
            _ => Unit::Count,
        };
        match kind {
            Kind::Counter => describe_counter!(*name, unit, *help),
            Kind::Gauge => describe_gauge!(*name, unit, *help),
            Kind::Histogram => describe_histogram!(*name, unit, *help),
        }
    }
}
