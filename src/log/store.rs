//! The seam between the log and where it is kept, and what crosses it.
//!
//! A store keeps commits: [`Store::append`] returns when one survives a power cut and the head names it, or fails, and
//! then the log never uses it again. It gives back what it kept, in order, and the head. It need not notice damage: the
//! log recomputes the tree before it trusts what a store returns. sled is behind it (`sled_store`); a database would
//! keep a commit as a row guarded by compare-and-set on the head.

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::Found;
use super::tree::{Hash, RightEdge};

/// An entry and its sealed private half.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) entry: Bytes,
    pub(super) sealed: Bytes,
}

/// What is stored at once: at least one entry, the tree's right edge behind the last, and the checkpoint over it.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) first: u64,
    pub(super) entries: &'a [Stored],
    pub(super) edge: &'a RightEdge,
    pub(super) checkpoint: &'a Checkpoint,
}

/// A run of entries as a store gives them back.
#[derive(Debug)]
pub(super) struct Run {
    /// Index of the first.
    pub(super) first: u64,
    /// The entries, at least one.
    pub(super) entries: Vec<Stored>,
    /// Where the run ends a commit: the right edge's roots and the signed checkpoint, as stored.
    pub(super) end: Option<(Vec<Hash>, String)>,
}

/// Runs in order of their indices.
pub(super) type Runs<'a> = Box<dyn Iterator<Item = Result<Run, LogError>> + 'a>;

/// Where a log is kept.
pub(super) trait Store: Send + Sync {
    /// Makes the commit durable and then the head; neither may be seen by a power cut the other way round.
    fn append(&self, commit: &Commit<'_>) -> Result<(), LogError>;

    /// All runs from the one that holds entry `from`, in order. May be called beside `append`.
    fn runs(&self, from: u64) -> Runs<'_>;

    /// What the head says.
    fn head(&self) -> Result<Found, LogError>;

    /// Makes durable whatever the store holds, and then this checkpoint the head: the last step of a recovery.
    fn settle(&self, checkpoint: &Checkpoint) -> Result<(), LogError>;
}

/// Entries from an index on, up to `until`, at most `max_entries` and about `max_bytes` (one at least).
pub(super) fn read(
    store: &dyn Store,
    from: u64,
    until: u64,
    max_entries: usize,
    max_bytes: usize,
) -> Result<Vec<Stored>, LogError> {
    let wanted = until.saturating_sub(from).min(max_entries as u64) as usize;
    let mut entries = Vec::with_capacity(wanted.min(1_024));
    let mut bytes = 0;
    if wanted == 0 {
        return Ok(entries);
    }
    for run in store.runs(from) {
        let run = run?;
        let next = from + entries.len() as u64;
        let skip = next.checked_sub(run.first).filter(|skip| *skip < run.entries.len() as u64);
        let Some(skip) = skip else {
            return Err(LogError::Damaged { index: next, what: "not where it must be".into() });
        };
        for stored in run.entries.into_iter().skip(skip as usize) {
            bytes += stored.entry.len();
            if entries.len() == wanted || (bytes > max_bytes && !entries.is_empty()) {
                return Ok(entries);
            }
            entries.push(stored);
        }
        if entries.len() == wanted {
            return Ok(entries);
        }
    }
    Err(LogError::Damaged { index: from + entries.len() as u64, what: "missing".into() })
}
