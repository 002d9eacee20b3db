//! Opening delayed entries when their time has come: a later entry, KIND_OPENED, shows what an earlier one hid.
//!
//! Which entries wait is known from the index, which knows it from the log alone: what was opened before a restart is not
//! opened again. The index must therefore have seen all that this task has appended before it is asked again; where it
//! lags, the round waits, and is given up before it could open anything twice. One task of a node does this.

use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::entry::{Draft, ExchangeKey, Kind, OpenedEntry, Publication};
use super::error::{AppendError, LogError};
use super::index::{Index, IndexError};
use super::{Log, hidden};

/// How often a node looks for entries that have become due: delays are counted in days.
const INTERVAL: Duration = Duration::from_secs(300);
/// Entries taken in one go.
const PAGE: usize = 256;
/// Openings that are on their way to the disk together.
const AT_ONCE: usize = 16;
/// How long a round waits for the index, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// Why a round ended early; the next one goes on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum DueError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] LogError),
    /// The log takes no entries.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The index has not caught up with the log.
    #[error("the index is {0} entries behind the log")]
    IndexBehind(u64),
    /// A thread of the round broke.
    #[error("the round broke off")]
    Broken,
}

/// Opens what becomes due, until stopped.
pub async fn run(log: Log, index: Index, stop: CancellationToken) {
    loop {
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = open_due(&log, &index, i64::try_from(now).unwrap_or(i64::MAX)) => round,
        };
        match round {
            Ok(0) => {}
            Ok(opened) => tracing::info!(opened, "delayed entries are opened: their time has come"),
            Err(error) => tracing::warn!(%error, "delayed entries that are due wait for the next round"),
        }
        if tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Opens every entry that is due at this time; how many. Those whose private half is gone stay hidden.
pub async fn open_due(log: &Log, index: &Index, now_unix_ms: i64) -> Result<u64, DueError> {
    caught_up(log, index).await?;
    let (mut opened, mut from) = (0, 0);
    loop {
        let (reader, due) = (log.clone(), index.clone());
        let page = tokio::task::spawn_blocking(move || page(&reader, &due, now_unix_ms, from));
        let page = page.await.map_err(|_| DueError::Broken)??;
        let Some((last, _)) = page.last() else { return Ok(opened) };
        from = last + 1;
        let appended = futures_util::stream::iter(page)
            .map(|(entry, opening)| append(log, index, now_unix_ms, entry, opening))
            .buffer_unordered(AT_ONCE);
        // All of them, also where one fails: what has queued may yet become durable, and the next round must find it so.
        for appended in appended.collect::<Vec<_>>().await {
            let more = appended?;
            metrics::counter!("kopuro_log_opened_total").increment(more);
            opened += more;
        }
    }
}

async fn caught_up(log: &Log, index: &Index) -> Result<(), DueError> {
    let size = log.checkpoint().size;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let behind = size.saturating_sub(index.indexed_size());
        if behind == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(DueError::IndexBehind(behind));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The next entries that are due, each with its opening where there still is one.
fn page(log: &Log, index: &Index, now_unix_ms: i64, from: u64) -> Result<Vec<(u64, Option<OpenedEntry>)>, DueError> {
    let mut page = Vec::new();
    for entry in index.due(now_unix_ms, from, PAGE)? {
        let read = match log.read_with_private(entry, 1) {
            Err(LogError::Pruned { .. }) => Vec::new(),
            read => read?,
        };
        let opening = read.into_iter().next().and_then(|(bytes, private)| {
            // Only what others will find to hold.
            hidden::open(entry, &private?).filter(|opening| hidden::verify_opened(opening, &bytes).is_ok())
        });
        page.push((entry, opening));
    }
    Ok(page)
}

/// Returns when the opening is durable; how many that makes.
async fn append(
    log: &Log,
    index: &Index,
    now_unix_ms: i64,
    entry: u64,
    opening: Option<OpenedEntry>,
) -> Result<u64, DueError> {
    let Some(opening) = opening else {
        tracing::info!(entry, "a delayed entry cannot be opened: its private half is gone");
        index.set_aside(entry);
        return Ok(0);
    };
    let mut draft = Draft::new(Kind::Opened, Uuid::nil(), now_unix_ms, &ExchangeKey::generate());
    draft.publication = Publication::Public;
    draft.opened = Some(opening);
    match log.append(draft.seal()).await {
        Ok(_) => Ok(1),
        Err(AppendError::TooLarge(bytes)) => {
            tracing::warn!(entry, bytes, "a delayed entry cannot be opened: its opening does not fit into an entry");
            index.set_aside(entry);
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}
