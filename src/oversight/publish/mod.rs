//! The log published, so that anybody can check it: C2SP tlog-tiles in a store, over HTTP, or both; beside it who may
//! ask whom for what, the directory, the form of an entry, open data, and the portal.
//!
//! In: the log, and who else to ask before a checkpoint goes out ([`Cosign`]). Out: files. The order survives a crash at
//! any point, because every step only repeats what is already so, and the checkpoint comes last:
//!
//! ```text
//!   the log's commit and head ──▶ 1 compare   what the store has with what the log has
//!                                 2 tiles     full ones, then the partial ones of this size
//!                                 3 cosign    where a quorum is asked for; without it nothing more happens
//!                                 4 remember  the checkpoint in the data folder's file `published`
//!                                 5 publish   the checkpoint
//!   a crash before 5: the tiles are written again (or, with the store gone for a while, later), with the same bytes
//! ```
//!
//! Stored beyond published: the difference is published. Published beyond stored, or one size with two roots under the
//! log's own signature: the node does not start; where that comes to light later (the store was out of reach at the
//! start) nothing more is published, and it is said in the node's health, a metric and its log. A store that fails is
//! tried again for as long as it takes, ever less often; the log and the exchanges do not notice.
//!
//! ```text
//! store       a folder or a bucket                       standing   published against stored
//! tiles       tiles and bundles from the log             publisher  the five steps, again and again
//! beside      grants.json, directory, entry.proto        open_data  a file for each day
//! summary     counts by day and month                    serve      plain HTTP
//! respond     the form of an answer                      clients    how much each may ask
//! ```
//!
//! It does not publish private halves, and reads none. Whether entries show only what they may is the log's.

mod beside;
mod clients;
mod open_data;
mod publisher;
mod respond;
mod serve;
mod standing;
mod store;
mod summary;
mod tiles;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::log::tree::TILE_LEAVES;
use crate::log::{Checkpoint, Log, LogError};
use crate::oversight::portal;
use crate::policy::Grants;
use crate::schema::Catalogue;
use crate::telemetry;

use beside::Beside;
use publisher::Publisher;

pub use serve::ServeOptions;
pub use standing::{Contradiction, Place, StandingError};
pub use store::{Served, Store, StoreError};

/// `Cache-Control` of what never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

const CHECKPOINT: Served = Served { content_type: "text/plain; charset=utf-8", cache: "public, max-age=5" };
const TILE: Served = Served { content_type: "application/octet-stream", cache: IMMUTABLE };

/// The largest checkpoint that makes sense, cosignatures and all.
const MOST_CHECKPOINT: usize = 64 << 10;

/// The largest bundle: 256 entries of 65,535 bytes.
const MOST_TILE: usize = 256 * (2 + 65_535);

/// Gives a checkpoint back with the cosignatures that its publication needs, or says why it has not got them. Is asked
/// again at the next turn, with a newer checkpoint where there is one.
pub type Cosign = Arc<dyn Fn(Arc<Checkpoint>) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What grants are in force now; none where nobody knows any more.
pub type GrantsNow = Arc<dyn Fn() -> Option<(Arc<Grants>, Arc<Catalogue>)> + Send + Sync>;

/// The note at `checkpoint` in a store, not verified; none where there is none.
pub async fn stored_checkpoint(store: &Store) -> Result<Option<String>, PublishError> {
    let note = store.get("checkpoint", MOST_CHECKPOINT).await?;
    Ok(note.map(|note| String::from_utf8_lossy(&note).into_owned()))
}

/// What is published, where, and how often.
pub struct PublishOptions {
    /// The node, for metrics: `KG/GOV/70000005/_node/main`.
    pub node: String,
    /// The data folder: `published` and `open-data.csv` are kept in it, and without a store `publication/`.
    pub folder: PathBuf,
    /// Where the publication is written. Without one, open data alone is, to `publication/` in the data folder.
    pub store: Option<Store>,
    /// How often what is new is published.
    pub interval: Duration,
    /// Whether daily files of the public fields are made.
    pub open_data: bool,
    /// The signed directory in force, as a file.
    pub directory: PathBuf,
    /// The grants in force.
    pub grants: GrantsNow,
    /// What the portal shows; none: there is no portal.
    pub portal: Option<portal::Sources>,
    /// Who cosigns, where anybody has to.
    pub cosign: Option<Cosign>,
}

impl std::fmt::Debug for PublishOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishOptions").field("node", &self.node).field("store", &self.store).finish_non_exhaustive()
    }
}

/// Why something could not be published, this time or for good.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What is published does not go with the log.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// The store fails.
    #[error("publish.store: {0}")]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The cosignatures that are needed are not there.
    #[error("the checkpoint of {size} entries is not cosigned: {reason}")]
    Cosign {
        /// Its size.
        size: u64,
        /// Why not.
        reason: String,
    },
    /// A file of the data folder cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Open data cannot be written in its form.
    #[error("open data of {day}: {reason}")]
    OpenData {
        /// The day.
        day: String,
        /// What is wrong.
        reason: String,
    },
    /// A task broke.
    #[error("a task of the publication broke off")]
    Task(#[from] tokio::task::JoinError),
}

impl PublishError {
    /// Where the log contradicts what its key has signed: nothing more may be published.
    pub fn contradiction(&self) -> Option<&Contradiction> {
        match self {
            Self::Standing(StandingError::Contradiction(contradiction)) => Some(contradiction),
            _ => None,
        }
    }

    fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.display().to_string(), source }
    }
}

/// What the publication's tasks share.
struct Shared {
    log: Log,
    options: PublishOptions,
    /// The store, or the folder that has open data where there is no store.
    files: Store,
    /// The latest published checkpoint, with its cosignatures.
    published: watch::Sender<Option<Arc<Checkpoint>>>,
    /// Entries before this one are of no more use here: [`Publication::settled`].
    settled: watch::Sender<u64>,
    /// Entries that are in days of open data, and in its summaries.
    in_days: AtomicU64,
    summed: AtomicU64,
    beside: ArcSwap<Beside>,
    /// The portal's pages.
    site: ArcSwapOption<portal::Site>,
    health: telemetry::Health,
}

impl Shared {
    /// Finds out how many entries are settled, and tells the log: it prunes nothing beyond.
    fn settle(&self) {
        let published = self.published.borrow().as_ref().map_or(0, |published| published.size);
        let counted = || self.in_days.load(Ordering::Relaxed).min(self.summed.load(Ordering::Relaxed));
        let in_days = if self.options.open_data { counted() } else { u64::MAX };
        // Without a store nobody else has the tiles.
        let settled = if self.options.store.is_some() { published.min(in_days) } else { 0 };
        let settled = settled - settled % TILE_LEAVES;
        self.log.set_published(settled);
        self.settled.send_replace(settled);
    }
}

/// A log's publication, running.
pub struct Publication {
    shared: Arc<Shared>,
    stop: CancellationToken,
    publishing: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Publication {
    /// Compares what is published with the log, and begins to publish. A store out of reach is no error: it is tried again.
    /// What contradicts the log is one.
    pub async fn start(log: Log, options: PublishOptions, health: telemetry::Health) -> Result<Self, PublishError> {
        let files = match &options.store {
            Some(store) => store.clone(),
            None => Store::open(&options.folder.join("publication").to_string_lossy())?,
        };
        let beside = Beside::now(&options, &log).await;
        let (published, beside) = (watch::Sender::new(None), ArcSwap::from_pointee(beside));
        let (settled, in_days, summed) = (watch::Sender::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let site = options.portal.as_ref().map(|portal| Arc::new(portal::Site::new(portal)));
        let site = ArcSwapOption::new(site);
        let shared =
            Arc::new(Shared { log, options, files, published, settled, in_days, summed, beside, site, health });
        let mut publisher = Publisher::new(shared.clone());
        publisher.begin().await?;

        let stop = CancellationToken::new();
        let mut others = vec![tokio::spawn(publisher::tell_lag(shared.clone(), stop.clone()))];
        if shared.options.open_data {
            others.push(tokio::spawn(open_data::keep(shared.clone(), stop.clone())));
        }
        let publishing = tokio::spawn(publisher.run(stop.clone()));
        Ok(Self { shared, stop, publishing, others })
    }

    /// How many entries the log need not keep for the publication's sake: those in full published bundles of a store, and,
    /// where open data is made, in a day that is written.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.shared.settled.subscribe()
    }

    /// The latest published checkpoint; none before the first.
    pub fn published(&self) -> watch::Receiver<Option<Arc<Checkpoint>>> {
        self.shared.published.subscribe()
    }

    /// Serves the publication over plain HTTP until `stop`.
    pub fn serve(
        &self,
        listener: tokio::net::TcpListener,
        options: ServeOptions,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        serve::serve(self.shared.clone(), listener, options, stop)
    }

    /// Publishes what the log now holds, if that is done within `limit`, and ends.
    pub async fn finish(mut self, limit: Duration) {
        self.stop.cancel();
        for task in &self.others {
            task.abort();
        }
        if tokio::time::timeout(limit, &mut self.publishing).await.is_err() {
            self.publishing.abort();
            tracing::warn!(?limit, "the last checkpoint is not published: the next start does it");
        }
    }
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication").field("files", &self.shared.files).finish_non_exhaustive()
    }
}
