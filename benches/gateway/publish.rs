//! How fast a log that nobody has published yet is published to a folder (tiles, bundles and checkpoint, each file durable), and how
//! fast the public can verify it and a monitor follow it from there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::{Log, LogOptions};
use kopuro::oversight::monitor::{KnownLog, Monitor, MonitorOptions};
use kopuro::oversight::publish::{Publication, PublishOptions, Store};
use kopuro::oversight::published::{self, Place, PublishedTree};
use kopuro::telemetry::Health;
use kopuro::trust::note::Signer;
use serde::Serialize;

use crate::log::record;

/// Entries to publish: more than one tile of the third level.
const ENTRIES: u64 = 200_000;
const WAITING: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Entries a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PublicRates {
    /// From a log to a folder.
    pub(crate) published: f64,
    /// From that folder: every entry hashed, every tile compared; over all cores.
    pub(crate) verified: f64,
    /// From that folder, by a monitor that waits for each exchange's other side.
    pub(crate) monitored: f64,
}

/// Publishes a log of its own in `folder`, verifies it and follows it.
pub(crate) async fn rates(folder: &Path) -> Result<PublicRates> {
    eprintln!("publishing {ENTRIES} entries to a folder");
    let folder = folder.join("publication");
    let signer = Signer::generate("benchmark")?;
    let key = signer.verifier();
    let (log, _) = Log::open(LogOptions::new(folder.join("log"), signer))?;
    for _ in 0..ENTRIES / WAITING {
        let appended = futures_util::future::join_all((0..WAITING).map(|_| log.append(record()))).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let store = folder.join("public");
    let options = PublishOptions {
        node: "benchmark".into(),
        folder: folder.clone(),
        store: Some(Store::open(&store.to_string_lossy())?),
        interval: Duration::from_secs(1),
        open_data: false,
        directory: folder.join("directory.note"),
        grants: Arc::new(|| None),
        portal: None,
        cosign: None,
    };
    let begun = Instant::now();
    let publication = Publication::start(log.clone(), options, Health::starting()).await?;
    let mut published = publication.published();
    let whole = published.wait_for(|published| published.as_ref().is_some_and(|published| published.size == ENTRIES));
    tokio::time::timeout(LIMIT, whole).await.context("not published in time")??;
    let rate = |begun: Instant| ENTRIES as f64 / begun.elapsed().as_secs_f64();
    let published = rate(begun);
    publication.finish(LIMIT).await;
    log.close().await;

    eprintln!("verifying and monitoring them");
    let place = Place::Folder(store);
    let begun = Instant::now();
    let source = published::Publication::new(place.clone(), None)?;
    let checkpoint = Checkpoint::verify(&source.checkpoint().await?, &key)?;
    let tree = Arc::new(PublishedTree::open(source, checkpoint).await?);
    published::verify(&tree, 0, 2 * crate::cores(), |_| {}).await?;
    let verified = rate(begun);

    let begun = Instant::now();
    let mut monitor = Monitor::open(MonitorOptions {
        places: vec![place],
        known: vec![KnownLog { keys: vec![key], member: None }],
        quorum: None,
        state: folder.join("monitor"),
        grace: Duration::from_secs(600),
        roots: None,
    })?;
    let report = monitor.round(0, |_| {}).await?;
    anyhow::ensure!(report.read == ENTRIES, "the monitor read {} of {ENTRIES} entries", report.read);
    Ok(PublicRates { published, verified, monitored: rate(begun) })
}
