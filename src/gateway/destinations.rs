//! How the nodes and systems that calls go to stand, for the metrics: told every few seconds. One that was in use and is not connected any
//! more is tried again, so that an operator learns of its end, and of its return, while nobody calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::telemetry::metrics::Destination;

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// Tells, and tries, until stopped.
pub(super) async fn follow(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut known = HashSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        stop.run_until_cancelled(look(&gateway)).await;
        let now = tell(&gateway);
        for (kind, name) in known.difference(&now) {
            gateway.metrics.destination_gone(*kind, name);
        }
        known = now;
    }
}

/// All at once: each attempt is bounded by `limits.connect_timeout`.
async fn look(gateway: &Gateway) {
    let view = gateway.view();
    let peers = futures_util::future::join_all(view.all_peers().map(|peer| peer.upstream.look()));
    let backends = futures_util::future::join_all(view.all_backends().map(|(_, backend)| backend.look()));
    tokio::join!(peers, backends);
}

fn tell(gateway: &Gateway) -> HashSet<(Destination, String)> {
    let view = gateway.view();
    let peers = view.all_peers().map(|peer| (Destination::Peer, peer.identity.to_string(), peer.upstream.standing()));
    let backends =
        view.all_backends().map(|(system, backend)| (Destination::Backend, system.to_string(), backend.standing()));
    let told = peers.chain(backends).map(|(kind, name, (_, connections, reachable))| {
        gateway.metrics.destination(kind, &name, connections, reachable);
        (kind, name)
    });
    told.collect()
}
