//! Taking up what has changed on disk or in the directory's mirrors: everything is checked again, and the new view replaces the old
//! one whole, or the old one stays in force and the node says why. Open connections are judged again by the new certificates and CRLs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::node::NodeError;
use super::view::View;
use crate::config::{self, Loaded, NodeConfig};
use crate::log::{Log, LogError};
use crate::schema::Catalogue;
use crate::telemetry::metrics::NodeMetrics;
use crate::telemetry::{self, Status};
use crate::trust::certificate::Usage;
use crate::trust::directory::{DirectoryError, Source};

/// How long the log may take to sign by other keys: as long as one commit, unless the disk hangs.
const SIGNING_LIMIT: Duration = Duration::from_secs(10);

/// What a reload needs.
pub(super) struct Reload {
    pub(super) config: NodeConfig,
    pub(super) gateway: Arc<Gateway>,
    /// None in a node that records nothing.
    pub(super) log: Option<Log>,
    /// One reload at a time.
    pub(super) files: tokio::sync::Mutex<Files>,
    pub(super) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(super) health: telemetry::Health,
    /// Connections look at their certificates again when it changes.
    pub(super) generation: watch::Sender<u64>,
}

/// What is in force, and where the directory comes from.
pub(super) struct Files {
    pub(super) source: Source,
    pub(super) loaded: Loaded,
}

impl Reload {
    /// Reloads whenever a watched file changes, on SIGHUP, and when the directory's mirrors have a new version. Each time that the
    /// mirrors are asked, open connections are judged again.
    pub(super) async fn follow(self: Arc<Self>, drain: CancellationToken) {
        let mut watch = match config::watch(&self.config) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::error!(%error, "files are not watched: only a restart takes changes");
                None
            }
        };
        let mut poll = tokio::time::interval(self.config.directory.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        poll.reset();
        loop {
            let change = async {
                match &mut watch {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                () = drain.cancelled() => return,
                _ = change => self.now().await,
                _ = poll.tick() => self.poll_directory().await,
            };
            if let Err(error) = result {
                tracing::error!(%error, "the new configuration is refused: the old one stays in force");
            }
        }
    }

    /// Takes whatever the files say now, or keeps all of the old.
    pub(super) async fn now(&self) -> Result<(), NodeError> {
        let mut files = self.files.lock().await;
        let now = OffsetDateTime::now_utc();
        // A mirror out of reach leaves the last good directory in force; the files are taken all the same.
        let polled = files.source.poll(now).await;
        self.tell_directory(&files, now, polled.as_ref().err());
        config::fetch_descriptors(&self.config, &files.source).await;
        let result = self.swap(&mut files, now).await;
        self.gateway.metrics.reloaded(result.is_ok());
        self.health.set(
            "configuration",
            match &result {
                Ok(()) => Status::Ok,
                Err(error) => {
                    Status::Warning(format!("the files on disk are refused, the old ones stay in force: {error}"))
                }
            },
        );
        if result.is_ok() {
            tracing::info!(directory = files.loaded.directory.version, "configuration reloaded");
        }
        result
    }

    async fn poll_directory(&self) -> Result<(), NodeError> {
        let mut files = self.files.lock().await;
        let now = OffsetDateTime::now_utc();
        let polled = files.source.poll(now).await;
        self.tell_directory(&files, now, polled.as_ref().err());
        let came = config::fetch_descriptors(&self.config, &files.source).await;
        if matches!(polled, Ok(Some(_))) || came > 0 {
            return self.swap(&mut files, now).await;
        }
        // Certificates and CRLs expire without a change of any file.
        self.judge_connections(&files.loaded);
        Ok(())
    }

    /// Whether there is a directory in force, and why no newer one.
    fn tell_directory(&self, files: &Files, now: OffsetDateTime, refused: Option<&DirectoryError>) {
        if let Some(error) = refused {
            tracing::error!(%error, "no new directory: the last good one stays in force until it expires");
        }
        let status = match (files.source.current(now), refused) {
            (None, _) => Status::NotReady("the directory has expired and no mirror has a newer one".into()),
            (Some(_), Some(error)) => Status::Warning(format!("the last good directory stays in force: {error}")),
            (Some(_), None) => Status::Ok,
        };
        self.health.set("directory", status);
    }

    async fn swap(&self, files: &mut Files, now: OffsetDateTime) -> Result<(), NodeError> {
        let directory = files.source.current(now).ok_or(NodeError::NoDirectory)?;
        let loaded = config::recheck(&self.config, directory, Some(&files.loaded))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let previous = self.gateway.view();
        let (connections, logs) = (&self.gateway.connections, &self.gateway.peer_logs);
        let view = View::new(&self.config, &loaded, connections, logs, Some(&previous))?;
        if let Some(log) = &self.log {
            let signing = log.use_keys(loaded.log_signers.clone(), loaded.listed_log_keys.clone());
            let signing = tokio::time::timeout(SIGNING_LIMIT, signing).await;
            signing.unwrap_or_else(|_| Err(LogError::Store("its writer does not answer".into())))?;
        }
        self.catalogue.store(view.catalogue.clone());
        self.gateway.view.store(Arc::new(view));
        self.judge_connections(&loaded);
        let directory = loaded.directory.clone();
        self.gateway.callers.retain(|system| directory.has_system(system));
        tell_expiry(&self.gateway.metrics, &loaded);
        files.loaded = loaded;
        Ok(())
    }

    /// Has every open connection's certificate judged again, whoever opened it; those that no longer hold are closed.
    fn judge_connections(&self, loaded: &Loaded) {
        self.gateway.connections.recheck(|destination, chain, at| {
            let backend = loaded.backends.iter().find(|(system, _)| system.as_str() == destination);
            let anchors = backend.map_or(&loaded.anchors, |(_, backend)| &backend.anchors);
            anchors.verify_peer(chain, Usage::Server, at).is_ok()
        });
        self.generation.send_modify(|generation| *generation += 1);
    }
}

/// What certificate, directory and CRLs are in force, and until when.
pub(super) fn tell_expiry(metrics: &NodeMetrics, loaded: &Loaded) {
    metrics.expires("certificate", loaded.certificate_until_unix);
    // The first to end; none where no list is configured.
    if let Some(first) = loaded.anchors.crls().iter().map(|crl| crl.next_update_unix).min() {
        metrics.expires("crl", first);
    }
    metrics.expires("directory", loaded.directory.expires.unix_timestamp());
    if let Some(first) = loaded.anchors.crls().iter().map(|crl| crl.next_update_unix).min() {
        metrics.expires("crl", first);
    }
    metrics.directory_version(loaded.directory.version);
}
