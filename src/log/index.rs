//! The derived index: finds exchanges by their public fields, behind the writer and off the durability path.
//!
//! In: entries, read from an [`EntrySource`] as they become durable. Out: pages of exchanges, one exchange's entries,
//! counts. What is indexed is the exchange, at the place of its first entry ("the opening"): bitmaps of openings per
//! value of each dimension, how the exchange ended included, although the closing entry comes later.
//!
//! Invariant: everything here follows from the entries alone. A segment is 65,536 entries; the newest is in memory, a
//! full one is sealed as an immutable file `<number>.seg`, written atomically, with checksums. Whatever is missing,
//! damaged or of another log is rebuilt from the entries; the whole folder may be deleted at any time.
//!
//! Files, and not values in the log's store: sled writes values of this size as blob files that it never syncs, and
//! its own files would then have to be kept clear of them.
//!
//! ```text
//! entry      one entry, as far as the index cares      builder   the segment in memory
//! file       a sealed segment's bytes                  cache     decoded parts of sealed segments, bounded by bytes
//! segments   which segments there are, and repair      search    filters, pages, counts, joins
//! follow     the thread that reads new entries         pending   delayed entries that are not opened yet
//! subjects   which exchanges concerned whom, by keyed pseudonym, built when it is first asked for
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::entry::{Outcome, Publication};
use super::hidden::Seen;
use super::{Log, PrivateHalf};
use segments::Shared;

mod builder;
mod cache;
mod entry;
mod file;
mod follow;
mod pending;
mod search;
mod segments;
mod subjects;

pub use entry::Progress;
pub use follow::Follower;

/// The most entries of a segment, and their number in a node's index.
pub const SEGMENT_ENTRIES: u32 = 65_536;

/// Why a source could not give its entries.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where entries come from: a [`Log`], or a list in a test.
pub trait EntrySource: Send + Sync {
    /// How many entries are durable.
    fn size(&self) -> u64;

    /// The first entry that can still be read; those before were pruned.
    fn first(&self) -> u64 {
        0
    }

    /// Entries' bytes from an index on, at least one where there is one and at most `max`.
    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError>;

    /// The same, with what delayed and sealed entries hide, where that is known.
    fn read_seen(&self, from: u64, max: usize) -> Result<Vec<Seen>, SourceError> {
        Ok(self.read(from, max)?.into_iter().map(|entry| Seen { entry, hidden: None }).collect())
    }

    /// The same, with private halves; none where they are gone.
    fn read_with_private(&self, from: u64, max: usize) -> Result<Vec<(Bytes, PrivateHalf)>, SourceError> {
        Ok(self.read(from, max)?.into_iter().map(|entry| (entry, None)).collect())
    }

    /// What stands for a subject in the index; none where the source has no key.
    fn pseudonym(&self, _subject: &[u8]) -> Option<Pseudonym> {
        None
    }
}

/// What stands for a subject in the index: 16 bytes of an HMAC-SHA256 under a key that is derived from the sealing key.
pub type Pseudonym = [u8; 16];

impl EntrySource for Log {
    fn size(&self) -> u64 {
        self.checkpoint().size
    }

    fn first(&self) -> u64 {
        Self::first(self)
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(Self::read(self, from, max)?)
    }

    fn read_seen(&self, from: u64, max: usize) -> Result<Vec<Seen>, SourceError> {
        Ok(Self::read_seen(self, from, max)?)
    }

    fn read_with_private(&self, from: u64, max: usize) -> Result<Vec<(Bytes, PrivateHalf)>, SourceError> {
        Ok(Self::read_with_private(self, from, max)?)
    }

    fn pseudonym(&self, subject: &[u8]) -> Option<Pseudonym> {
        Some(Self::pseudonym(self, subject))
    }
}

/// Where an index is and how much it may hold.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Folder of the segment files; made where missing.
    pub folder: PathBuf,
    /// Entries per segment: 1 to 65,536. Smaller only in tests.
    pub segment_entries: u32,
    /// Bytes that decoded parts of sealed segments may take in memory.
    pub cache_bytes: usize,
}

impl IndexOptions {
    /// What suits a node with this data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { folder: data.into().join("index"), segment_entries: SEGMENT_ENTRIES, cache_bytes: 32 << 20 }
    }
}

/// What an index cannot do.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The entries could not be read.
    #[error("reading entries from {from}: {source}")]
    Source {
        /// First entry wanted.
        from: u64,
        /// What the source said.
        source: SourceError,
    },
    /// A segment's file is damaged, and rebuilding it did not help.
    #[error("segment {segment} is damaged: {what}")]
    Damaged {
        /// Which one.
        segment: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// The time allowed was over before the counts were complete.
    #[error("not finished in the time allowed")]
    OutOfTime,
    /// Segments of 0 or of more than 65,536 entries.
    #[error("a segment has 1 to 65,536 entries")]
    SegmentLength,
    /// Subjects are found by a key that is not there.
    #[error("the key that finds subjects is not there")]
    NoKey,
    /// The log is larger than the index can address.
    #[error("the log has more segments than can be numbered")]
    Full,
}

/// Which records are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// Exchanges between systems.
    #[default]
    Exchanges,
    /// Auditors' looks.
    Audits,
    /// Both.
    All,
}

/// Which exchanges are meant; what is not set does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Opened at this time or later, Unix milliseconds.
    pub from_unix_ms: Option<i64>,
    /// Opened before this time.
    pub until_unix_ms: Option<i64>,
    /// A system, a whole member or an auditor.
    pub consumer: Option<String>,
    /// A system or a whole member.
    pub provider: Option<String>,
    /// Full service name.
    pub service: Option<String>,
    /// Method name.
    pub method: Option<String>,
    /// How it ended. [`Outcome::Unspecified`] is "not yet".
    pub outcome: Option<Outcome>,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// Code of the legal basis.
    pub legal_basis: Option<String>,
    /// Publication class.
    pub publication: Option<Publication>,
    /// Its id.
    pub exchange_id: Option<[u8; 16]>,
    /// Exchanges, auditors' looks, or both.
    pub records: Records,
}

/// A page wanted.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which exchanges.
    pub filter: Filter,
    /// The latest first.
    pub newest_first: bool,
    /// Go on after the exchange with this opening.
    pub after: Option<u64>,
    /// At most so many exchanges.
    pub limit: usize,
    /// When to give what has been found so far.
    pub deadline: Instant,
}

/// A page of exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Indices of the openings, in the order asked for.
    pub openings: Vec<u64>,
    /// Where the next page goes on, where there may be one: [`Query::after`].
    pub next: Option<u64>,
    /// The answer covers entries below this index.
    pub indexed_size: u64,
}

/// How many exchanges there are by each value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By UTC day of the opening, `2026-11-24`.
    pub by_day: Vec<(String, u64)>,
    /// By `consumer -> provider`.
    pub by_pair: Vec<(String, u64)>,
    /// By service.
    pub by_service: Vec<(String, u64)>,
    /// By outcome; those still open are [`Outcome::Unspecified`].
    pub by_outcome: Vec<(Outcome, u64)>,
    /// Refusals and failures by reason.
    pub by_reason: Vec<(String, u64)>,
    /// All of them.
    pub exchanges: u64,
    /// Entries, not among these, whose fields are hidden for good: what opened them has been destroyed.
    pub hidden: u64,
    /// The answer covers entries below this index.
    pub indexed_size: u64,
}

/// A handle to an index. Clones are handles to the same index. Its methods block shortly: call them off the runtime's
/// threads.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
    followed: bool,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder = &self.shared.options.folder;
        f.debug_struct("Index").field("folder", folder).field("indexed_size", &self.indexed_size()).finish()
    }
}

impl Index {
    /// Opens the index of a source: takes over the segment files that fit. Nothing is read after that until
    /// [`Self::catch_up`] or a [`Follower`] does.
    pub fn open(options: IndexOptions, source: Arc<dyn EntrySource>) -> Result<Self, IndexError> {
        Ok(Self { shared: Arc::new(Shared::open(options, source)?), followed: false })
    }

    /// Opens the index of a log and starts the thread that follows it.
    pub fn follow(options: IndexOptions, log: &Log) -> Result<(Self, Follower), IndexError> {
        Self::follow_source(options, Arc::new(log.clone()), log.subscribe())
    }

    /// The same of any source; whatever is sent on `commits` wakes the thread.
    pub fn follow_source<C: Send + Sync + 'static>(
        options: IndexOptions,
        source: Arc<dyn EntrySource>,
        commits: watch::Receiver<C>,
    ) -> Result<(Self, Follower), IndexError> {
        let index = Self { followed: true, ..Self::open(options, source)? };
        let follower = Follower::start(index.shared.clone(), commits)?;
        Ok((index, follower))
    }

    /// Reads everything that is durable now. For closed logs and tests; a node's index has a [`Follower`].
    pub fn catch_up(&self) -> Result<(), IndexError> {
        while self.shared.advance()? {}
        Ok(())
    }

    /// How many entries the index covers: the answers' reach.
    pub fn indexed_size(&self) -> u64 {
        self.shared.state().current.end()
    }

    /// A page of exchanges. Shorter than asked for, with [`Page::next`] set, where time ran out.
    pub fn query(&self, query: &Query) -> Result<Page, IndexError> {
        self.mending(|shared| shared.page(query))
    }

    /// Indices of all entries of the exchange with this opening, ascending. An exchange ends with its last side; an
    /// entry with its id that comes later opens another.
    pub fn entries_of(&self, opening: u64) -> Result<Vec<u64>, IndexError> {
        self.mending(|shared| shared.entries_of(opening))
    }

    /// Indices of all entries with this exchange id, ascending; empty where there is none.
    pub fn find(&self, exchange_id: &[u8; 16]) -> Result<Vec<u64>, IndexError> {
        self.mending(|shared| {
            let mut entries = Vec::new();
            for opening in shared.openings_by_id(exchange_id)? {
                entries.extend(shared.entries_of(opening)?);
            }
            entries.sort_unstable();
            Ok(entries)
        })
    }

    /// Openings of exchanges that concerned a subject, the newest first, those before `before` where it is given. Where
    /// it is not known yet which segments hold the subject, that is found out from the private halves first; where time
    /// runs out, [`Page::next`] says where to go on.
    pub fn of_subject(
        &self,
        subject: &[u8],
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page, IndexError> {
        let Some(pseudonym) = self.shared.source.pseudonym(subject) else { return Err(IndexError::NoKey) };
        self.mending(|shared| shared.of_subject(&pseudonym, before, limit, deadline))
    }

    /// Forgets what it knows of the subjects of these entries: after private halves were destroyed. What is left is
    /// found again when it is asked for.
    pub fn forget_subjects(&self, first: u64, count: u64) -> Result<(), IndexError> {
        self.shared.forget_subjects(first, count)
    }

    /// Delayed entries from `from` on that are due at this time and that no later entry has opened, ascending, at most
    /// `limit`. Only as far as the index reaches: see [`Self::indexed_size`].
    pub fn due(&self, now_unix_ms: i64, from: u64, limit: usize) -> Result<Vec<u64>, IndexError> {
        self.mending(|shared| shared.due(now_unix_ms, from, limit))
    }

    /// Does not name this entry as due any more, until the index is opened again: it cannot be opened.
    pub fn set_aside(&self, entry: u64) {
        self.shared.set_aside(entry);
    }

    /// Counts by bitmaps; no entry is read.
    pub fn count(&self, filter: &Filter, deadline: Instant) -> Result<Counts, IndexError> {
        self.mending(|shared| shared.counts(filter, deadline))
    }

    /// Asks again after going back to before a segment that turned out damaged, each time a lower one.
    fn mending<T>(&self, ask: impl Fn(&Shared) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let mut before = u32::MAX;
        loop {
            match ask(&self.shared) {
                Err(IndexError::Damaged { segment, .. }) if segment < before => {
                    self.shared.go_back(segment);
                    before = segment;
                    if !self.followed {
                        self.catch_up()?;
                    }
                }
                answer => return answer,
            }
        }
    }
}

impl IndexError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
