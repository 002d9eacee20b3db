//! The seam between the log and where it is kept, and what crosses it.
//!
//! A store keeps commits: [`Store::append`] returns when one survives a power cut and the head names it, or fails, and
//! then the log never uses it again. It gives back what it kept, in order, and the head. It need not notice damage: the
//! log recomputes the tree before it trusts what a store returns. sled is behind it (`sled_store`); a database would
//! keep a commit as a row guarded by compare-and-set on the head.
//!
//! Entries and private halves go in together and go apart: entries from the front, once they are published
//! ([`Store::prune`]); halves in any order, with their shred keys destroyed first ([`Store::destroy_keys`]).

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::Found;
use super::shred::{KeyFile, ShredKey, Slot};
use super::tree::{Hash, RightEdge};

/// An entry, its sealed private half, and the shred key without which that cannot be opened.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) entry: Bytes,
    pub(super) sealed: Bytes,
    pub(super) shred: ShredKey,
}

/// What a store has of an entry's private half.
#[derive(Debug)]
pub(super) enum Half {
    Sealed {
        sealed: Bytes,
        shred: ShredKey,
    },
    /// The entry has none.
    None,
    Erased,
    /// Of an entry that was never acknowledged.
    Lost,
    /// Not there, and nothing says why: the shred key or the half.
    Missing(&'static str),
}

/// Where a log begins that has been pruned: the tree over the entries that are gone, and what else has to be known of
/// them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Base {
    /// The tree's right edge at the cut; its size is the first index that is kept.
    pub(super) edge: RightEdge,
    /// The signed checkpoint of that tree.
    pub(super) note: String,
    /// Days since the Unix epoch, ascending, each with the index below which no entry was made after that day.
    pub(super) days: Vec<(i64, u64)>,
    /// Opening entries of exchanges that were open at the cut.
    pub(super) open: Vec<(u64, Bytes)>,
}

impl Base {
    /// The first index that is kept.
    pub(super) fn first(base: &Option<Self>) -> u64 {
        base.as_ref().map_or(0, |base| base.edge.size())
    }
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
    pub(super) entries: Vec<Bytes>,
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

    /// Makes a checkpoint of the size and root that the head has the head: signed by other keys.
    fn replace_head(&self, checkpoint: &Checkpoint) -> Result<(), LogError>;

    /// Where the log begins; none where nothing was pruned.
    fn base(&self) -> Result<Option<Base>, LogError>;

    /// Puts a base in the place of the one there was and removes the entries below it, both or neither. Halves stay.
    fn prune(&self, base: &Base) -> Result<(), LogError>;

    /// What tells the sealing key from others; none in a new store.
    fn sealing_check(&self) -> Result<Option<[u8; 32]>, LogError>;

    /// Keeps what tells the sealing key from others: before the first entry.
    fn set_sealing_check(&self, check: &[u8; 32]) -> Result<(), LogError>;

    /// An entry's private half.
    fn half(&self, index: u64) -> Result<Half, LogError>;

    /// The sealed halves of entries `from` to `until - 1`, as they are; empty where there is none.
    fn sealed_halves(&self, from: u64, until: u64) -> Result<Vec<Bytes>, LogError>;

    /// A file of shred keys, as it is.
    fn key_file(&self, number: u64) -> Result<KeyFile, LogError>;

    /// How it stands with the private halves of entries `from` to `until - 1`, in order. A key that is there tells
    /// nothing of the half itself.
    fn each_key(
        &self,
        from: u64,
        until: u64,
        show: &mut dyn FnMut(u64, Slot) -> Result<(), LogError>,
    ) -> Result<(), LogError>;

    /// Says of an entry that its private half is lost.
    fn lose_key(&self, index: u64) -> Result<(), LogError>;

    /// Destroys the shred keys of entries `first` to `first + count - 1`: on return no power cut brings them back, and
    /// no copy of the halves can be opened. May be done twice.
    fn destroy_keys(&self, first: u64, count: u64) -> Result<(), LogError>;

    /// Removes halves whose keys are destroyed, to make room. May be done twice.
    fn remove_halves(&self, first: u64, count: u64, size: u64) -> Result<(), LogError>;
}

/// Entries from an index on, up to `until`, at most `max_entries` and about `max_bytes` (one at least).
pub(super) fn read(
    store: &dyn Store,
    from: u64,
    until: u64,
    max_entries: usize,
    max_bytes: usize,
) -> Result<Vec<Bytes>, LogError> {
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
        for entry in run.entries.into_iter().skip(skip as usize) {
            bytes += entry.len();
            if entries.len() == wanted || (bytes > max_bytes && !entries.is_empty()) {
                return Ok(entries);
            }
            entries.push(entry);
        }
        if entries.len() == wanted {
            return Ok(entries);
        }
    }
    Err(LogError::Damaged { index: from + entries.len() as u64, what: "missing".into() })
}
