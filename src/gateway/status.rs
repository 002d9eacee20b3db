//! The node at a glance: what `/status` on the admin address tells, and `kopuro status` prints. Facts of operation, nothing of any
//! payload.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Gateway;
use super::exchange::unix_ms;
use super::recorder::Recorder;
use crate::log::Checkpoint;
use crate::telemetry::{Health, RefusalSeen};
use crate::trust::identity::Identity;

/// What a node says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `KG/GOV/70000005/_node/main`.
    pub node: String,
    /// The program's.
    pub version: String,
    /// Seconds since it started.
    pub up_seconds: u64,
    /// Whether exchanges pass.
    pub ready: bool,
    /// What somebody should look at, by name.
    pub conditions: BTreeMap<String, String>,
    /// Exchanges running now.
    pub in_flight: u64,
    /// The log; none where the node records nothing.
    pub log: Option<LogStatus>,
    /// What of it is published; none where nothing is.
    pub published: Option<PublishedStatus>,
    /// The directory in force.
    pub directory: DirectoryStatus,
    /// Unix seconds at which the node's certificate, or a CA above it, ends.
    pub certificate_until_unix: i64,
    /// Unix seconds at which the first revocation list ends; none where none is configured.
    #[serde(default)]
    pub crl_until_unix: Option<i64>,
    /// Other members' nodes.
    pub peers: Vec<DestinationStatus>,
    /// This member's systems that provide something.
    pub backends: Vec<DestinationStatus>,
    /// How many grants are in force.
    pub grants: usize,
    /// The last refusals and failures, the newest last.
    pub refusals: Vec<RefusalSeen>,
}

/// The log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogStatus {
    /// Its name.
    pub origin: String,
    /// Durable entries.
    pub entries: u64,
    /// The first that is still kept here.
    pub first: u64,
    /// Root of the tree, hexadecimal.
    pub root: String,
    /// Public keys of what it signs by: one, or two while the key is changed.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// The publication.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// Entries published.
    pub entries: u64,
}

/// The directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Its version.
    pub version: u64,
    /// Unix seconds at which it ends.
    pub until_unix: i64,
}

/// Where calls go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Whose it is.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Open connections; none are opened before they are needed.
    pub connections: usize,
    /// The last attempt to connect failed.
    pub failing: bool,
    /// A peer whose log contradicts itself: it is refused.
    pub contradicts: bool,
}

/// What the status is made from.
pub(super) struct StatusSource {
    pub(super) gateway: Weak<Gateway>,
    pub(super) health: Health,
    pub(super) identity: Identity,
    pub(super) started: Instant,
    pub(super) published: Option<watch::Receiver<Option<Arc<Checkpoint>>>>,
}

impl StatusSource {
    /// As it is now; none when the node is gone.
    pub(super) fn now(&self) -> Option<NodeStatus> {
        let gateway = self.gateway.upgrade()?;
        let view = gateway.view();
        let health = self.health.now();
        let contradicting = gateway.peer_logs.contradicting();
        let destination =
            |name: String, (address, connections, reachable): (&str, usize, Option<bool>)| DestinationStatus {
                address: address.to_owned(),
                connections,
                failing: reachable == Some(false),
                contradicts: contradicting.contains(&name),
                name,
            };
        let mut peers: Vec<_> =
            view.all_peers().map(|peer| destination(peer.identity.to_string(), peer.upstream.standing())).collect();
        let mut backends: Vec<_> =
            view.all_backends().map(|(system, backend)| destination(system.to_string(), backend.standing())).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        backends.sort_by(|a, b| a.name.cmp(&b.name));
        let log = match &gateway.recorder {
            Recorder::Log(log, _) => {
                let checkpoint = log.checkpoint();
                let (origin, root) = (checkpoint.origin.clone(), checkpoint.root.to_string());
                let keys = log.keys().signing().iter().map(ToString::to_string).collect();
                Some(LogStatus { origin, entries: checkpoint.size, first: log.first(), root, keys })
            }
            Recorder::Off => None,
        };
        let published = self.published.as_ref();
        let published = published
            .map(|published| PublishedStatus { entries: published.borrow().as_ref().map_or(0, |last| last.size) });
        let in_flight = gateway.limits.in_flight.get().saturating_sub(gateway.in_flight.available_permits());
        Some(NodeStatus {
            node: self.identity.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: self.started.elapsed().as_secs(),
            ready: health.is_ready(),
            conditions: health.reasons().map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect(),
            in_flight: in_flight as u64,
            log,
            published,
            directory: DirectoryStatus {
                version: view.directory.version,
                until_unix: view.directory.expires.unix_timestamp(),
            },
            certificate_until_unix: view.certificate_until_unix,
            crl_until_unix: view.anchors.crls().iter().map(|crl| crl.next_update_unix).min(),
            peers,
            backends,
            grants: view.grants.len(),
            refusals: gateway.metrics.refusals().seen(),
        })
    }
}

/// A refusal as it is remembered, now.
pub(super) fn seen(side: &str, reason: &str, consumer: &str, provider: &str, method: String) -> RefusalSeen {
    RefusalSeen {
        time_unix_ms: unix_ms(),
        side: side.to_owned(),
        reason: reason.to_owned(),
        consumer: consumer.to_owned(),
        provider: provider.to_owned(),
        method,
    }
}
