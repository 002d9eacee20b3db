//! The node's log published, as `[publish]` says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::node::NodeError;
use crate::config::{NodeConfig, Publish};
use crate::log::Log;
use crate::oversight::portal::{LogSource, Sources, public_policy};
use crate::oversight::publish::{Cosign, Publication, PublishError, PublishOptions, ServeOptions, Store};
use crate::oversight::witness::Cosigners;
use crate::telemetry;
use crate::trust::note::Verifier;

/// How long the last checkpoint of a node that stops may take.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// A publication and its listener.
pub(super) struct Publishing {
    publication: Publication,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
}

impl Publishing {
    /// Begins to publish; refuses where what is published contradicts the log.
    pub(super) async fn start(
        config: &NodeConfig,
        publish: &Publish,
        gateway: &Arc<Gateway>,
        log: &Log,
        health: &telemetry::Health,
        listener: Option<(TcpListener, SocketAddr)>,
    ) -> Result<Self, NodeError> {
        let granting = Arc::downgrade(gateway);
        let cosigners = config.witness.as_ref().map(Cosigners::from_config).transpose()?;
        let keys = log.keys();
        let key = keys.signing().first();
        let options = PublishOptions {
            node: config.identity().to_string(),
            folder: config.node.data.clone(),
            store: publish.store.as_deref().map(Store::open).transpose().map_err(PublishError::from)?,
            interval: publish.interval,
            open_data: publish.open_data,
            directory: config.last_good_directory(),
            grants: Arc::new(move || {
                let view = granting.upgrade()?.view();
                Some((view.grants.clone(), view.catalogue.clone()))
            }),
            portal: key.and_then(|key| portal(config, publish, key)),
            cosign: cosigners.map(|cosigners| Arc::new(cosigners.for_log(log.clone())) as Cosign),
        };
        let publication = Publication::start(log.clone(), options, health.clone()).await?;
        let (stop, address) = (CancellationToken::new(), listener.as_ref().map(|(_, address)| *address));
        let serving = listener.map(|(listener, _)| {
            let options =
                ServeOptions { cache: publish.cache, rate: publish.rate.into(), proxies: publish.proxies.clone() };
            tokio::spawn(publication.serve(listener, options, stop.clone()))
        });
        tracing::info!(store = publish.store, listen = ?address, "the log is published");
        Ok(Self { publication, stop, serving, address })
    }

    /// Where the publication is served.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The publication itself.
    pub(super) fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Publishes what the log now holds, within a limit, and ends. The log must still be open.
    pub(super) async fn finish(self) {
        self.publication.finish(LAST_LIMIT).await;
        self.stop.cancel();
        if let Some(serving) = self.serving {
            let _ = serving.await;
        }
    }
}

/// What the portal beside this log shows: it, and whichever others the operator names.
fn portal(config: &NodeConfig, publish: &Publish, key: &Verifier) -> Option<Sources> {
    if !publish.portal.enabled {
        return None;
    }
    let own = LogSource { url: "../".into(), vkey: key.to_string() };
    // That it can be read has been seen when the cosigners were made.
    let policy = config.witness.as_ref().and_then(|witness| std::fs::read_to_string(&witness.policy).ok());
    let policy = policy.map(|policy| public_policy(&policy));
    Some(Sources {
        logs: std::iter::once(own).chain(publish.portal.logs.iter().cloned()).collect(),
        policy,
        monitor: publish.portal.monitor.clone(),
    })
}
