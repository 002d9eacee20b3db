//! One published log, followed: its checkpoint judged against the last one seen, its entries read one after the other.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::fact::Reading;
use crate::log::Checkpoint;
use crate::log::entry::{Entry, Kind, OpenedEntry};
use crate::log::hidden;
use crate::log::tree::TILE_LEAVES;
use crate::oversight::published::{Publication, PublishedError, PublishedTree};

/// Bundles read ahead of each log.
const AHEAD: usize = 8;

/// How a log was found at the last look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "state", content = "why")]
pub enum Condition {
    /// Its signature, its continuity and its entries are good.
    Good,
    /// It has not been looked at yet.
    New,
    /// It could not be reached.
    Unreachable(String),
    /// Something of it does not verify.
    Bad(String),
    /// It has told two histories; the evidence is kept.
    Forked(String),
}

impl Condition {
    /// Whether there is nothing wrong.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good)
    }

    /// Its stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Good => "GOOD",
            Self::New => "NEW",
            Self::Unreachable(_) => "UNREACHABLE",
            Self::Bad(_) => "BAD",
            Self::Forked(_) => "FORKED",
        }
    }

    /// Why it is not good.
    pub fn why(&self) -> &str {
        match self {
            Self::Good | Self::New => "",
            Self::Unreachable(why) | Self::Bad(why) | Self::Forked(why) => why,
        }
    }
}

impl From<&PublishedError> for Condition {
    fn from(error: &PublishedError) -> Self {
        match error {
            error if error.is_transport() => Self::Unreachable(error.to_string()),
            PublishedError::Rewritten { .. } => Self::Forked(error.to_string()),
            error => Self::Bad(error.to_string()),
        }
    }
}

/// Readings of one bundle: the index after them, the first and the latest time that an entry tells, and the last checkpoint of a
/// peer that one carries.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) next: u64,
    pub(super) first_ms: Option<i64>,
    pub(super) time_ms: i64,
    /// Between which times hidden entries stand, which tell none themselves.
    pub(super) hidden: Vec<Between>,
    pub(super) peer_checkpoint: Option<String>,
    pub(super) readings: Vec<Reading>,
}

/// The times that the entries before and behind tell, as far as the bundle has them.
pub(super) type Between = (Option<i64>, Option<i64>);

pub(super) type Batches = BoxStream<'static, Result<Batch, PublishedError>>;

/// Opens a log under a verified checkpoint, and checks that it continues the one seen before.
pub(super) async fn advance(
    publication: Publication,
    checkpoint: Checkpoint,
    seen: Option<&Checkpoint>,
) -> Result<Arc<PublishedTree>, PublishedError> {
    if let Some(seen) = seen {
        // Before anything is fetched: these two contradict each other whatever the tiles say.
        if seen.size == checkpoint.size && seen.root != checkpoint.root {
            let (computed, seen) = (checkpoint.root, seen.root);
            return Err(PublishedError::Rewritten { size: checkpoint.size, computed, seen });
        }
        if seen.size > checkpoint.size {
            return Err(PublishedError::Truncated { size: checkpoint.size, seen: seen.size });
        }
    }
    let tree = PublishedTree::open(publication, checkpoint).await?;
    if let Some(seen) = seen {
        tree.extends(seen).await?;
    }
    Ok(Arc::new(tree))
}

/// Reads entries from an index on, decoded off the caller's thread, in order.
pub(super) fn batches(tree: &Arc<PublishedTree>, log: u32, from: u64) -> Batches {
    let tree = Arc::clone(tree);
    let numbers = from / TILE_LEAVES..if from < tree.size() { tree.bundles() } else { from / TILE_LEAVES };
    let read = move |number| {
        let tree = Arc::clone(&tree);
        async move {
            let task = tokio::spawn(async move { read_bundle(&tree, log, number, from).await });
            task.await.map_err(|error| PublishedError::Fetch { what: "bundle".into(), reason: error.to_string() })?
        }
    };
    futures_util::stream::iter(numbers).map(read).buffered(AHEAD).boxed()
}

async fn read_bundle(tree: &PublishedTree, log: u32, number: u64, from: u64) -> Result<Batch, PublishedError> {
    let entries = tree.bundle(number, false).await?;
    let first = number * TILE_LEAVES;
    let next = first + entries.len() as u64;
    let readings = Vec::with_capacity(entries.len());
    let mut batch = Batch { next, first_ms: None, time_ms: 0, hidden: Vec::new(), peer_checkpoint: None, readings };
    let mut before = None;
    let mut opener = Opener { tree, number: None, entries: Vec::new() };
    for (at, bytes) in entries.into_iter().enumerate() {
        let index = first + at as u64;
        if index < from {
            continue;
        }
        let reading = match Entry::decode(bytes) {
            Err(error) => Reading::Unreadable { index, reason: error.to_string() },
            Ok(mut entry) => {
                if entry.kind != i32::from(Kind::Evidence) && !entry.peer_checkpoint.is_empty() {
                    batch.peer_checkpoint = Some(std::mem::take(&mut entry.peer_checkpoint));
                }
                batch.time_ms = batch.time_ms.max(entry.time_unix_ms);
                if entry.time_unix_ms > 0 {
                    before = Some(entry.time_unix_ms);
                    batch.first_ms = batch.first_ms.or(before);
                    if let Some((_, until @ None)) = batch.hidden.last_mut() {
                        *until = before;
                    }
                }
                match entry.opened {
                    Some(opened) if entry.kind == i32::from(Kind::Opened) => {
                        opener.open(log, index, entry.time_unix_ms, &opened).await?
                    }
                    opened => Reading::of(log, index, Entry { opened, ..entry }),
                }
            }
        };
        if matches!(reading, Reading::Hidden(_)) && !matches!(batch.hidden.last(), Some((_, None))) {
            batch.hidden.push((before, None));
        }
        batch.readings.push(reading);
    }
    Ok(batch)
}

/// Fetches the entries that later ones open. They follow each other: the last bundle is kept.
struct Opener<'t> {
    tree: &'t PublishedTree,
    number: Option<u64>,
    entries: Vec<bytes::Bytes>,
}

impl Opener<'_> {
    async fn open(
        &mut self,
        log: u32,
        index: u64,
        shown_ms: i64,
        opened: &OpenedEntry,
    ) -> Result<Reading, PublishedError> {
        let unreadable = |reason: String| Reading::Unreadable { index, reason };
        if opened.index >= index {
            return Ok(unreadable(format!("it opens entry {}, which does not come before it", opened.index)));
        }
        let number = opened.index / TILE_LEAVES;
        if self.number != Some(number) {
            self.entries = self.tree.bundle(number, false).await?;
            self.number = Some(number);
        }
        let Some(entry) = self.entries.get((opened.index % TILE_LEAVES) as usize) else {
            return Ok(unreadable(format!("entry {} is not there", opened.index)));
        };
        Ok(match hidden::verify_opened(opened, entry) {
            Ok(whole) if super::fact::is_of_exchange(&whole) => {
                Reading::of_exchange(log, opened.index, shown_ms, whole)
            }
            Ok(_) => Reading::Other,
            Err(error) => unreadable(format!("it does not open entry {}: {error}", opened.index)),
        })
    }
}
