//! All bundles of a publication, in order and in parallel.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use super::{PublishedError, PublishedTree};
use crate::log::tree::TILE_LEAVES;

/// The entries of one bundle after the other, each with the index of its first.
pub type Bundles = BoxStream<'static, Result<(u64, Vec<Bytes>), PublishedError>>;

/// Entries from an index on, authenticated, read `ahead` bundles at a time; they come in order.
pub fn bundles(tree: &Arc<PublishedTree>, from: u64, ahead: usize) -> Bundles {
    let tree = Arc::clone(tree);
    let numbers = from / TILE_LEAVES..if from < tree.size() { tree.bundles() } else { from / TILE_LEAVES };
    let read = move |number| {
        let tree = Arc::clone(&tree);
        async move {
            let task = tokio::spawn(async move { tree.bundle(number, false).await });
            let mut entries = joined(task.await)?;
            let first = (number * TILE_LEAVES).max(from);
            entries.drain(..(first - number * TILE_LEAVES) as usize);
            Ok((first, entries))
        }
    };
    futures_util::stream::iter(numbers).map(read).buffered(ahead.max(1)).boxed()
}

/// Checks every bundle and every hash tile from the entry `from` on, `jobs` at a time, and tells after each how many
/// entries are done. The error is the first one in the log's order.
pub async fn verify(
    tree: &Arc<PublishedTree>,
    from: u64,
    jobs: usize,
    done: impl Fn(u64),
) -> Result<u64, PublishedError> {
    let numbers = from / TILE_LEAVES..if from < tree.size() { tree.bundles() } else { from / TILE_LEAVES };
    let check = |number| {
        let tree = Arc::clone(tree);
        async move {
            let task = tokio::spawn(async move { tree.bundle(number, true).await.map(|entries| entries.len()) });
            joined(task.await).map(|entries| (number * TILE_LEAVES + entries as u64).saturating_sub(from))
        }
    };
    let checked = futures_util::stream::iter(numbers).map(check).buffered(jobs.max(1));
    checked
        .try_fold(0, |_, entries| {
            done(entries);
            std::future::ready(Ok(entries))
        })
        .await
}

fn joined<T>(outcome: Result<Result<T, PublishedError>, tokio::task::JoinError>) -> Result<T, PublishedError> {
    let stopped =
        |error: tokio::task::JoinError| PublishedError::Fetch { what: "bundle".into(), reason: error.to_string() };
    outcome.map_err(stopped)?
}
