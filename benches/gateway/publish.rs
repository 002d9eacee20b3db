//! How fast a log that nobody has published yet is published to a folder: tiles, bundles and checkpoint, each file durable.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kopuro::log::{Log, LogOptions};
use kopuro::oversight::publish::{Publication, PublishOptions, Store};
use kopuro::telemetry::Health;
use kopuro::trust::note::Signer;

use crate::log::record;

/// Entries to publish: more than one tile of the third level.
const ENTRIES: u64 = 200_000;
const WAITING: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Entries a second, from a log in `folder` to a store in `folder`.
pub(crate) async fn rate(folder: &Path) -> Result<f64> {
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
        cosign: None,
    };
    let begun = Instant::now();
    let publication = Publication::start(log.clone(), key, options, Health::starting()).await?;
    let mut published = publication.published();
    let whole = published.wait_for(|published| published.as_ref().is_some_and(|published| published.size == ENTRIES));
    tokio::time::timeout(LIMIT, whole).await.context("not published in time")??;
    let took = begun.elapsed();
    publication.finish(LIMIT).await;
    log.close().await;
    Ok(ENTRIES as f64 / took.as_secs_f64())
}
