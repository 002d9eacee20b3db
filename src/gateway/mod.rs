//! The data path: an exchange from the moment a call arrives to the moment its answer has gone.
//!
//! In reading order: [`accept`] takes connections and knows who calls; [`consumer`] and [`provider`] authorise a call, each for its
//! side ([`web`] makes gRPC calls out of JSON and others first); [`leg`] records it, forwards it and records its answer; [`forward`] reads the answer; [`exchange`] is the record,
//! and [`recorder`] takes it to the log;
//! [`workers`] are the threads that all this runs on; [`node`] puts a ministry's node together and shuts it down, [`reload`] takes up
//! what has changed, [`expiry`] tells what ends; [`backup`] hands out copies of the log, and `restored` finds out whether one that was
//! put back may go on.
//!
//! Invariant (promise 1): a request or an answer leaves this node only after its entry is durable. There is one place for each:
//! [`leg`]'s `carry` after `open`, and `finish` (or [`forward`]'s `follow`) after `close`.

mod accept;
mod ask;
pub mod backup;
mod body;
mod catalogue;
mod consumer;
mod destinations;
mod exchange;
mod expiry;
mod forward;
mod framing;
mod grant_plans;
mod http_json;
mod leg;
mod metadata;
mod metered;
mod node;
mod node_grants;
mod node_log;
pub mod ordinary;
mod own;
mod peer_log;
mod proofs;
mod provider;
mod publication;
mod reachable;
mod recent;
mod recorder;
mod refusal;
mod reload;
mod restored;
mod socket;
mod stall;
pub mod status;
mod strangers;
mod traced;
mod typed;
mod untaken;
mod upstream;
mod view;
mod web;
mod workers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use node::{Node, NodeError};
pub use refusal::DOMAIN;

use self::body::Budget;
use self::forward::Bounds;
use self::peer_log::PeerLogs;
use self::recent::RecentExchanges;
use self::recorder::Recorder;
use self::refusal::Refusal;
use self::upstream::Connections;
use self::view::View;
use crate::config::Limits;
use crate::policy::CallerLimits;
use crate::schema::Method;
use crate::telemetry::metrics::NodeMetrics;
use crate::telemetry::otlp::Spans;
use crate::telemetry::trace::Sampling;

/// What all connections of a node share.
pub(crate) struct Gateway {
    view: ArcSwap<View>,
    connections: Connections,
    peer_logs: PeerLogs,
    recorder: Recorder,
    limits: Limits,
    budget: Budget,
    in_flight: Arc<Semaphore>,
    /// Exchanges of which something is still to be recorded: the log closes after them.
    exchanges: TaskTracker,
    recent: Mutex<RecentExchanges>,
    callers: CallerLimits,
    draining: AtomicBool,
    /// Where exchanges are told whose trace is recorded; none where no traces are exported.
    spans: Option<Spans>,
    metrics: Arc<NodeMetrics>,
}

impl Gateway {
    /// Everything that reloads together, as it is now.
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Which traces this node records.
    fn sampling(&self) -> Option<Sampling> {
        self.spans.as_ref().map(Spans::sampling)
    }

    /// A place among the exchanges in flight, if the node may carry any.
    fn admit(&self, view: &View) -> Result<OwnedSemaphorePermit, Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::draining());
        }
        if view.directory.expires.unix_timestamp() * 1_000 <= exchange::unix_ms() {
            return Err(Refusal::directory_expired());
        }
        self.in_flight.clone().try_acquire_owned().map_err(|_| Refusal::overloaded("exchanges in flight"))
    }

    /// The bounds of a call: the caller's deadline, or the node's own if that is sooner.
    fn bounds(&self, method: &Method, timeout: Option<std::time::Duration>, started: Instant) -> Bounds {
        let streams = method.client_streaming || method.server_streaming;
        let most = if streams { self.limits.stream_timeout } else { self.limits.unary_timeout };
        Bounds {
            deadline: started + timeout.unwrap_or(most).min(self.limits.stream_timeout),
            message: u32::try_from(self.limits.message).unwrap_or(u32::MAX),
            idle: if streams { self.limits.stream_idle } else { self.limits.stream_timeout },
            budget: self.budget.clone(),
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}
