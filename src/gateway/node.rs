//! A ministry's node, put together: from configuration to listeners, through reloads, to a clean end.
//!
//! Start: check everything, open the log (which recomputes its tree), close what a crash left open, bind, serve. Reload: check everything
//! again, swap the view whole or keep the old one. Stop: no new exchanges, running ones end or meet the drain limit, the log closes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Gateway;
use super::accept::Listener;
use super::backup;
use super::body::Budget;
use super::catalogue::CatalogueService;
use super::destinations;
use super::exchange;
use super::expiry;
use super::node_grants::NodeGrantsService;
use super::node_log::{self, NodeLogService};
use super::ordinary::{Health, Reflection};
use super::own::OwnServices;
use super::peer_log::PeerLogs;
use super::publication::Publishing;
use super::recent::{self, RecentExchanges};
use super::recorder::Recorder;
use super::reload::{self, Files, Reload};
use super::restored;
use super::status::StatusSource;
use super::strangers::Strangers;
use super::upstream::Connections;
use super::view::View;
use super::workers::Workers;
use crate::config::{self, Loaded, NodeConfig};
use crate::log::entry::{Entry, Kind};
use crate::log::index::{Follower, Index, IndexOptions};
use crate::log::retention::Keeper;
use crate::log::{Checkpoint, Log, LogError, LogHealth, LogOptions, OpenExchange, due};
use crate::oversight::audit::{AuditLimits, AuditService};
use crate::oversight::publish::{Publication, PublishError};
use crate::oversight::subject::{self, SubjectLimits, SubjectService};
use crate::policy::CallerLimits;
use crate::schema::Catalogue;
use crate::telemetry::metrics::{Listener as Role, NodeMetrics};
use crate::telemetry::otlp::Exporter;
use crate::telemetry::{self, Status};
use crate::trust::directory::Source;
use crate::trust::identity::{Identity, SystemId};

/// An entry that has been queued and is not durable within this time means a disk that hangs.
const APPEND_LIMIT: Duration = Duration::from_secs(10);

/// How many exchanges that a crash left open are closed at a time.
const CLOSED_AT_ONCE: usize = 256;

/// Why a node does not start, or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Configuration, certificates, directory or grants are not right: all that was found.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The log does not open.
    #[error("the log does not open")]
    Log(#[from] LogError),
    /// The index does not open.
    #[error("the log's index does not open")]
    Index(#[from] crate::log::index::IndexError),
    /// The log contradicts what is published of it, or cannot be published.
    #[error("the log is not published: {0}")]
    Publish(#[from] PublishError),
    /// A listener cannot be bound.
    #[error("cannot listen for {what} at {address}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] crate::trust::tls::TlsError),
    /// An endpoint is no authority.
    #[error("an endpoint is not host:port")]
    Endpoint(#[from] http::Error),
    /// Witnesses cannot be asked.
    #[error(transparent)]
    Cosigners(#[from] crate::oversight::witness::CosignersError),
    /// The threads that carry exchanges do not start.
    #[error("cannot start the threads that carry exchanges (limits.workers)")]
    Workers(#[source] std::io::Error),
    /// Metrics cannot be recorded.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// Traces and metrics cannot be exported.
    #[error(transparent)]
    Otlp(#[from] telemetry::otlp::OtlpError),
    /// A name is no identity.
    #[error(transparent)]
    Identity(#[from] crate::trust::identity::IdentityError),
    /// The gateway's own types do not load.
    #[error(transparent)]
    Schema(#[from] crate::schema::SchemaError),
    /// The directory's source has nothing to go on with.
    #[error("there is no directory that has not expired")]
    NoDirectory,
    /// A task of the start broke.
    #[error("starting broke off")]
    Task(#[from] tokio::task::JoinError),
}

/// A running node.
pub struct Node {
    gateway: Arc<Gateway>,
    parts: Option<LogParts>,
    reload: Arc<Reload>,
    systems: SocketAddr,
    nodes: SocketAddr,
    admin: SocketAddr,
    health: telemetry::Health,
    drain: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    workers: Arc<Workers>,
    background: Vec<JoinHandle<()>>,
    drain_limit: Duration,
    exporter: Option<Exporter>,
}

/// What closes with the log.
struct LogParts {
    log: Log,
    follower: Follower,
    keeper: Keeper,
    publishing: Option<Publishing>,
}

impl Node {
    /// Checks the configuration, opens the log, binds, and serves. Nothing is bound where anything is wrong.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let (source, loaded) = config::open(&config).await?;
        Self::start_checked(config, source, loaded).await
    }

    /// Starts with what [`config::open`] gave.
    pub async fn start_checked(config: NodeConfig, source: Source, loaded: Loaded) -> Result<Self, NodeError> {
        // First: what the log tells while it opens would be lost.
        telemetry::metrics::install()?;
        let (log, index, follower, open) = open_log(&config, &loaded).await?;
        Self::serve(config, Files { source, loaded }, Some((log, index, follower)), open).await
    }

    /// A node that records nothing: to measure the data path alone. Not reachable from any configuration.
    #[doc(hidden)]
    pub async fn start_without_log(config: NodeConfig) -> Result<Self, NodeError> {
        let (source, loaded) = config::open(&config).await?;
        Self::serve(config, Files { source, loaded }, None, Vec::new()).await
    }

    /// `open` are exchanges that a crash left open, of a log that takes no entries yet.
    async fn serve(
        config: NodeConfig,
        files: Files,
        log: Option<(Log, Index, Follower)>,
        open: Vec<OpenExchange>,
    ) -> Result<Self, NodeError> {
        for warning in &files.loaded.warnings {
            tracing::warn!("{warning}");
        }
        let recorder = match &log {
            Some((log, ..)) => Recorder::Log(log.clone(), APPEND_LIMIT),
            None => Recorder::Off,
        };
        let (recent, shown) = match &log {
            Some((log, ..)) => recent_exchanges(log)?,
            None => Default::default(),
        };
        let (limits, retention) = (config.limits.clone(), config.log_retention());
        let identity = Identity::Node { member: config.node.member.clone(), name: config.node.name.as_str().into() };
        let metrics_handle = telemetry::metrics::install()?;
        let health = telemetry::Health::starting();
        let exporter = config.otlp()?;
        let exporter = exporter.map(|options| Exporter::start(&options, metrics_handle.clone(), health.clone()));
        let exporter = exporter.transpose()?;
        let metrics = Arc::new(NodeMetrics::new(identity.to_string()));
        reload::tell_expiry(&metrics, &files.loaded);
        let connections = Connections::default();
        let (peer_logs, contradictions) = PeerLogs::new(config.node.data.join("peers"));
        let view = View::new(&config, &files.loaded, &connections, &peer_logs, None)?;
        // What peers had shown when the node stopped, whether or not there was time to keep it.
        for peer in view.all_peers() {
            if let Some((_, note)) = shown.get(&peer.log.origin()) {
                peer.log.came_before(note);
            }
        }
        let catalogue = Arc::new(ArcSwap::from(view.catalogue.clone()));
        let gateway = Arc::new(Gateway {
            view: ArcSwap::from_pointee(view),
            connections,
            peer_logs,
            exchanges: TaskTracker::new(),
            recorder,
            budget: Budget::new(limits.buffered_bytes),
            in_flight: Arc::new(Semaphore::new(limits.in_flight.get())),
            recent: Mutex::new(recent),
            callers: CallerLimits::new(limits.caller_rate(), limits.callers.get()),
            draining: AtomicBool::new(false),
            spans: exporter.as_ref().and_then(Exporter::spans).cloned(),
            metrics: metrics.clone(),
            limits,
        });

        let (systems_listener, systems) = bind("systems", config.listen.systems).await?;
        let (nodes_listener, nodes) = bind("nodes", config.listen.nodes).await?;
        let (admin_listener, admin) = bind("admin", config.listen.admin).await?;

        let public = config.publish.as_ref().and_then(|publish| publish.listen);
        let public = match public {
            Some(address) => Some(bind("publication", address).await?),
            None => None,
        };

        let workers = Arc::new(Workers::start(gateway.limits.workers).map_err(NodeError::Workers)?);
        let drain = CancellationToken::new();
        let abort = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (generation, reloaded) = watch::channel(0);
        let reloads = reloaded.clone();
        let (ready, is_ready) = watch::channel(false);
        let own = own_services(&gateway, &catalogue, is_ready, log.as_ref(), &drain)?;
        let publishing = match (&config.publish, &log) {
            (Some(publish), Some((log, ..))) => {
                Some(Publishing::start(&config, publish, &gateway, log, &health, public).await?)
            }
            _ => None,
        };
        for (role, listener, most) in [
            (Role::Systems, systems_listener, gateway.limits.systems_connections.get()),
            (Role::Nodes, nodes_listener, gateway.limits.nodes_connections.get()),
        ] {
            let listener_task = Listener {
                gateway: gateway.clone(),
                role,
                own: own.clone(),
                strangers: Strangers::new(most),
                connections: Arc::new(Semaphore::new(most)),
                reloaded: reloaded.clone(),
                drain: drain.clone(),
                abort: abort.clone(),
                tasks: tasks.clone(),
                workers: workers.clone(),
            };
            tasks.spawn(listener_task.serve(listener));
        }

        let drain_limit = config.drain.limit;
        let status = StatusSource {
            gateway: Arc::downgrade(&gateway),
            health: health.clone(),
            identity,
            started: Instant::now(),
            published: publishing.as_ref().map(|publishing| publishing.publication().published()),
        };
        let reload = Arc::new(Reload {
            config,
            gateway: gateway.clone(),
            catalogue,
            health: health.clone(),
            generation,
            files: tokio::sync::Mutex::new(files),
            log: log.as_ref().map(|(log, ..)| log.clone()),
        });
        let mut background = vec![
            tokio::spawn(telemetry::admin::serve_router(
                admin_listener,
                telemetry::admin::router(metrics_handle.clone(), health.clone())
                    .merge(telemetry::admin::status_router(move || status.now())),
                metrics_handle,
                abort.clone().cancelled_owned(),
            )),
            tokio::spawn(tell_ready(health.clone(), ready, metrics.clone())),
            tokio::spawn(reload.clone().follow(drain.clone())),
            tokio::spawn(destinations::follow(gateway.clone(), drain.clone())),
            tokio::spawn(expiry::watch(gateway.clone(), health.clone(), reloads, drain.clone())),
            tokio::spawn(node_log::follow(gateway.clone(), contradictions, health.clone(), abort.clone())),
        ];
        if let Some((log, ..)) = &log {
            let data = reload.config.node.data.clone();
            background.push(tokio::spawn(backup::serve(log.clone(), data, metrics.clone(), abort.clone())));
            if log.restored()?.is_some() {
                let confirming = restored::Confirming::new(&reload.config, &gateway, log, open)?;
                background.push(tokio::spawn(confirming.run(abort.clone())));
            }
        }
        let keep = |(log, index, follower): (Log, Index, Follower)| {
            background.push(tokio::spawn(due::run(log.clone(), index.clone(), drain.clone())));
            // Known before the node calls itself ready.
            tell_log(&log.health().borrow(), &health);
            background.push(tokio::spawn(watch_log(log.health(), health.clone())));
            let keeper = Keeper::start(retention, log.clone(), index)?;
            Ok::<_, NodeError>(LogParts { log, follower, keeper, publishing })
        };
        let parts = log.map(keep).transpose()?;
        health.set(telemetry::Health::NODE, Status::Ok);
        tracing::info!(member = %gateway.view().member, %systems, %nodes, %admin, "the node is up");
        Ok(Self {
            gateway,
            parts,
            reload,
            systems,
            nodes,
            admin,
            health,
            drain,
            abort,
            tasks,
            workers,
            background,
            drain_limit,
            exporter,
        })
    }

    /// Where the member's systems call.
    pub fn systems_addr(&self) -> SocketAddr {
        self.systems
    }

    /// Where other nodes call.
    pub fn nodes_addr(&self) -> SocketAddr {
        self.nodes
    }

    /// Where health and metrics are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The node's log; none where it was started without one.
    pub fn log(&self) -> Option<&Log> {
        self.parts.as_ref().map(|parts| &parts.log)
    }

    /// The log's publication; none where it is not published.
    pub fn publication(&self) -> Option<&Publication> {
        self.parts.as_ref()?.publishing.as_ref().map(Publishing::publication)
    }

    /// Where the publication is served; none where it is not.
    pub fn publication_addr(&self) -> Option<SocketAddr> {
        self.parts.as_ref()?.publishing.as_ref()?.address()
    }

    /// Reads certificates, CRLs, directory, grants again. On an error all of the old stays in force.
    pub async fn reload(&self) -> Result<(), NodeError> {
        self.reload.now().await
    }

    /// Drains: no new exchanges; running ones end or meet the drain limit. Then the log closes.
    pub async fn stop(self) {
        self.gateway.draining.store(true, Ordering::Relaxed);
        self.health.set("draining", Status::NotReady("the node is shutting down".into()));
        self.drain.cancel();
        let exchanges = &self.gateway.exchanges;
        self.tasks.close();
        exchanges.close();
        let ended = || async { tokio::join!(self.tasks.wait(), exchanges.wait()) };
        if tokio::time::timeout(self.drain_limit, ended()).await.is_err() {
            tracing::warn!(limit = ?self.drain_limit, "exchanges still running at the drain limit are cut off");
        }
        self.abort.cancel();
        for task in &self.background {
            task.abort();
        }
        // What was cut off still writes its closing entries.
        if tokio::time::timeout(APPEND_LIMIT, ended()).await.is_err() {
            tracing::error!("exchanges are left without a closing entry: the next start closes them as interrupted");
        }
        drop(self.workers);
        node_log::keep(&self.gateway).await;
        if let Some(LogParts { log, follower, keeper, publishing }) = self.parts {
            // With the closing entries of all that was cut off.
            if let Some(publishing) = publishing {
                publishing.finish().await;
            }
            // Joins their threads, which are between two batches at most.
            let _ = tokio::task::spawn_blocking(move || drop((keeper, follower))).await;
            log.close().await;
        }
        if let Some(exporter) = self.exporter {
            exporter.finish().await;
        }
        tracing::info!("the node is down");
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("systems", &self.systems).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// The log, its index, and what a crash left open and could not be closed, because the log takes no entries yet.
async fn open_log(
    config: &NodeConfig,
    loaded: &Loaded,
) -> Result<(Log, Index, Follower, Vec<OpenExchange>), NodeError> {
    let usual = LogOptions::new(&config.node.data, loaded.log_signers.clone());
    let url = config.publish.as_ref().and_then(|publish| publish.url.as_ref());
    let options = LogOptions {
        queue: config.log.queue.get(),
        queue_wait: config.log.append_timeout,
        max_batch: config.log.batch.get(),
        warn_free: config.log.warn_free,
        refuse_free: config.log.refuse_free,
        sealing_key: config.sealing_key(),
        known_keys: loaded.listed_log_keys.clone(),
        published_at: url.map_or_else(|| usual.published_at.clone(), |url| format!("{url}/")),
        ..usual
    };
    let data: PathBuf = config.node.data.clone();
    let (log, recovered, index, follower) = tokio::task::spawn_blocking(move || {
        let (log, recovered) = Log::open(options)?;
        let (index, follower) = Index::follow(IndexOptions::new(data), &log)?;
        Ok::<_, NodeError>((log, recovered, index, follower))
    })
    .await??;
    tracing::info!(entries = recovered.size, open = recovered.open_exchanges.len(), "the log is open and whole");
    let mut open = recovered.open_exchanges;
    if log.restored()?.is_none() {
        close_interrupted(&log, std::mem::take(&mut open)).await;
    }
    Ok((log, index, follower, open))
}

/// Closes exchanges that a crash left open: together, so that they share commits. A log that refuses (no space) makes the node start not
/// ready, and say why: the exchanges stay open until a start that can close them.
pub(super) async fn close_interrupted(log: &Log, open: Vec<OpenExchange>) {
    let closed = futures_util::stream::iter(open)
        .map(|open| {
            let (log, record) = (log.clone(), exchange::interrupted(&open.entry, open.exchange_id));
            async move { log.append(record).await }
        })
        .buffer_unordered(CLOSED_AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await;
    if let Err(error) = closed {
        tracing::error!(%error, "interrupted exchanges could not be closed");
    }
}

/// The largest checkpoint of each log, with its size, by the log's name.
type Shown = HashMap<String, (u64, String)>;

/// From the log's last minute and more, the ids that a node could be asked to act on a second time, and what peers' logs had shown.
fn recent_exchanges(log: &Log) -> Result<(RecentExchanges, Shown), NodeError> {
    const STEP: u64 = 1_000;
    let now = exchange::unix_ms();
    let mut recent = RecentExchanges::default();
    let mut shown = Shown::new();
    let mut last = None;
    let mut end = log.checkpoint().size;
    // Whatever was pruned is older than the window, or so is what had to be published before it.
    while end > log.first() {
        let start = end.saturating_sub(STEP).max(log.first());
        let mut newest = i64::MIN;
        let mut at = start;
        while at < end {
            let entries = log.read_seen(at, usize::try_from(end - at).unwrap_or(usize::MAX))?;
            if entries.is_empty() {
                break;
            }
            at += entries.len() as u64;
            for entry in entries.iter().filter_map(|seen| Entry::decode(seen.whole()).ok()) {
                newest = newest.max(entry.time_unix_ms);
                if let Ok(checkpoint) = Checkpoint::parse(&entry.peer_checkpoint)
                    && shown.get(&checkpoint.origin).is_none_or(|(size, _)| *size < checkpoint.size)
                {
                    shown.insert(checkpoint.origin, (checkpoint.size, checkpoint.note));
                }
                if let (Kind::RequestReceived, Ok(id)) = (entry.kind(), Uuid::from_slice(&entry.exchange_id)) {
                    // Too old or twice: nothing to remember.
                    let _ = recent.admit(id, now);
                }
            }
        }
        // By the log's last entry, not by the clock: the node may have been down for long, and what it had not kept by then is here.
        let last = *last.get_or_insert(newest);
        if newest < last.min(now) - 2 * recent::WINDOW_MS {
            break;
        }
        end = start;
    }
    Ok((recent, shown))
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| NodeError::Bind { what, address, source })
}

fn own_services(
    gateway: &Arc<Gateway>,
    catalogue: &Arc<ArcSwap<Catalogue>>,
    ready: watch::Receiver<bool>,
    log: Option<&(Log, Index, Follower)>,
    drain: &CancellationToken,
) -> Result<OwnServices, NodeError> {
    let may_call = {
        let gateway = Arc::downgrade(gateway);
        Arc::new(move |system: &SystemId| {
            gateway.upgrade().map(|gateway| callable(&gateway.view(), system)).unwrap_or_default()
        })
    };
    let reflection = Reflection::new(catalogue.clone(), may_call)?;
    let own = log.map(|(log, index, _)| {
        let gateway_of_subject = Arc::downgrade(gateway);
        let permit: subject::Permit =
            Arc::new(move |peer, service, method, purpose| match gateway_of_subject.upgrade() {
                Some(gateway) => gateway.view().own_grant(&peer.identity, service, method, purpose),
                None => Err(crate::policy::Denial::NoGrant.into()),
            });
        let gateway_of_audit = Arc::downgrade(gateway);
        let is_auditor = Arc::new(move |peer: &crate::trust::certificate::PeerIdentity| {
            gateway_of_audit.upgrade().is_some_and(|gateway| gateway.view().directory.is_auditor(&peer.identity))
        });
        let member = gateway.view().member.clone();
        let limits = SubjectLimits::default();
        let subject = SubjectService::new(log.clone(), index.clone(), member.clone(), permit, limits);
        let audit =
            AuditService::new(log.clone(), index.clone(), member, is_auditor, AuditLimits::default(), drain.clone());
        (audit, subject)
    });
    let node_log = log.map(|(log, ..)| {
        let gateway = Arc::downgrade(gateway);
        let log_of = Arc::new(move |identity: &Identity| gateway.upgrade()?.view().log_of(identity).cloned());
        NodeLogService::new(log.clone(), log_of)
    });
    let asked = (CatalogueService::new(gateway, reflection.own().clone()), NodeGrantsService::new(gateway));
    Ok(OwnServices::new(&Health::new(ready), &reflection, own, node_log, asked))
}

/// Services that a system may call, as far as this node's outbound list says; and subject access, where it is granted.
fn callable(view: &View, system: &SystemId) -> Vec<String> {
    let allowed = |service: &&Arc<crate::schema::Service>| {
        let offers = service.offers().iter();
        offers.clone().any(|offer| view.outbound.callable_by(system, &offer.provider, service.name()).is_some())
    };
    let own = view.own_callable(system);
    view.catalogue.services().filter(allowed).map(|service| service.name().to_owned()).chain(own).collect()
}

async fn watch_log(mut log: watch::Receiver<LogHealth>, health: telemetry::Health) {
    loop {
        tell_log(&log.borrow_and_update(), &health);
        if log.changed().await.is_err() {
            health.set("log", Status::Dead("the log is closed".into()));
            return;
        }
    }
}

fn tell_log(log: &LogHealth, health: &telemetry::Health) {
    let status = match log {
        LogHealth::Healthy => Status::Ok,
        LogHealth::LowSpace { free } => Status::Warning(format!("{} MiB are free on the log's disk", free >> 20)),
        LogHealth::Refusing { reason, until_restart: false } => Status::NotReady(reason.to_string()),
        LogHealth::Refusing { reason, until_restart: true } => Status::Dead(reason.to_string()),
    };
    health.set("log", status);
}

/// Tells `grpc.health.v1` and the metrics whether exchanges pass.
async fn tell_ready(health: telemetry::Health, ready: watch::Sender<bool>, metrics: Arc<NodeMetrics>) {
    let mut changes = health.subscribe();
    loop {
        let is_ready = changes.borrow_and_update().is_ready();
        metrics.ready(is_ready);
        ready.send_replace(is_ready);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
