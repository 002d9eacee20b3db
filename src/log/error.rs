//! What can go wrong with a log, each a rule, and how well it is.

use std::path::PathBuf;
use std::sync::Arc;

use super::tree::Hash;
use crate::trust::note::NoteError;
use crate::trust::secret::SecretError;
use crate::trust::token::TokenError;

/// Why a log cannot be opened, read or verified. Those about history are final: somebody has to look, and nothing is
/// signed until then.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error("{0}: in use by another process (is a node running on this folder?)")]
    Locked(PathBuf),
    /// The store failed or panicked.
    #[error("the log's store failed: {0}")]
    Store(String),
    /// There is no log in the folder.
    #[error("{0}: no log here")]
    Missing(PathBuf),
    /// The head file is there and the entries are not, or fewer of them than the head says were acknowledged.
    #[error(
        "entries {first} to {last} are lost: they were acknowledged (the head says {head} entries) and the store has {stored}"
    )]
    Lost {
        /// First lost index.
        first: u64,
        /// Last lost index.
        last: u64,
        /// Entries by the head.
        head: u64,
        /// Entries in the store.
        stored: u64,
    },
    /// The store has entries and the head file is gone, empty or unreadable.
    #[error("the store has {stored} entries and {path} is {what}: what was acknowledged is unknown")]
    HeadUnusable {
        /// The head file.
        path: PathBuf,
        /// Missing or damaged.
        what: &'static str,
        /// Entries in the store.
        stored: u64,
    },
    /// The head is signed and speaks of another history than the store's.
    #[error(
        "the head at size {size} has the root {head}, and the stored entries {}",
        stored.map_or("have no commit that ends there".into(), |root| format!("give {root}"))
    )]
    HeadDiffers {
        /// Size of the tree the head speaks of.
        size: u64,
        /// The head's root.
        head: Hash,
        /// The store's root at that size, where a commit ends there.
        stored: Option<Hash>,
    },
    /// A stored record is not where or what it must be.
    #[error("damaged at entry {index}: {what}")]
    Damaged {
        /// First entry concerned.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// The entries give another root than the checkpoint that was signed over them.
    #[error(
        "entries {first} to {last} are not those that were signed: the tree has the root {computed}, the checkpoint {signed}"
    )]
    Altered {
        /// First entry of the commit concerned.
        first: u64,
        /// Last entry of the commit concerned.
        last: u64,
        /// Root recomputed.
        computed: Hash,
        /// Root signed.
        signed: Hash,
    },
    /// A checkpoint is signed by another key than this log's, or not signed.
    #[error("the checkpoint at size {size} is not signed by {key}: {source}")]
    Signature {
        /// Size of the tree it speaks of.
        size: u64,
        /// The log's key.
        key: String,
        /// What the note's check said.
        source: NoteError,
    },
    /// A checkpoint's text is no checkpoint, or another log's.
    #[error("bad checkpoint: {0}")]
    Checkpoint(&'static str),
    /// The key that seals private halves is missing or damaged while there are entries.
    #[error("{path}: {what}: private halves cannot be read")]
    SealingKey {
        /// The key file, or the name of the credential or environment variable.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A checkpoint cannot be signed; nothing of its commit is written.
    #[error("the checkpoint cannot be signed: {0}")]
    Unsigned(NoteError),
    /// The token that is to give the sealing key does not.
    #[error("{module}: {what}")]
    Token {
        /// The PKCS#11 module.
        module: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The sealing key is not the one under which this log's private halves are sealed.
    #[error("the sealing key is another than the one that this log's private halves are sealed with")]
    OtherSealingKey,
    /// The folder was written by a version of the program whose format this one does not read.
    #[error("the log is in format {found}, of another version of kopuro: this one reads format {reads}")]
    Format {
        /// The format's number in the records.
        found: u8,
        /// The format that this version reads.
        reads: u8,
    },
    /// The entry has no private values: it says that those of others were erased.
    #[error("entry {index} has no private values")]
    NoPrivate {
        /// The entry.
        index: u64,
    },
    /// The private values of the entry were erased: its key is destroyed.
    #[error("the private values of entry {index} were erased")]
    Erased {
        /// The entry.
        index: u64,
    },
    /// The private values of an entry that was never acknowledged did not reach the disk before a power cut.
    #[error("the private values of entry {index} did not reach the disk before a power cut, nor was it acknowledged")]
    PrivateLost {
        /// The entry.
        index: u64,
    },
    /// The entry is published and no longer kept here.
    #[error("entry {index} is no longer kept here: entries below {first} are published, under {published}")]
    Pruned {
        /// Index or size asked for.
        index: u64,
        /// The first entry that is kept.
        first: u64,
        /// Where the others are published.
        published: String,
    },
    /// An erasure was broken off: its intention is on the disk and is carried out when the log is opened again.
    #[error("the erasure is not complete: {0}; it goes on when it is asked for again or the node is restarted")]
    ErasureIncomplete(String),
    /// The log was restored from a backup, and a newer one, or another, had been shown to others.
    #[error(
        "restored with {size} entries, and {seen_by} has a checkpoint of this log with {seen} that they do not lead to: it can be read, \
         and must not go on; restore it with --published, or begin a new log"
    )]
    Continued {
        /// Entries restored.
        size: u64,
        /// Entries of the checkpoint.
        seen: u64,
        /// Who has it.
        seen_by: String,
    },
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
    /// An index or size was asked for that the log has not reached.
    #[error("{asked} is beyond the log's {size} entries")]
    Beyond {
        /// Index or size asked for.
        asked: u64,
        /// Durable entries.
        size: u64,
    },
}

impl From<SecretError> for LogError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Unusable { path, what } => Self::SealingKey { path, what },
            SecretError::Io { path, source } => Self::Io { path, source },
        }
    }
}

impl From<TokenError> for LogError {
    fn from(TokenError { module, what }: TokenError) -> Self {
        Self::Token { module, what }
    }
}

impl LogError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Why an entry was not appended. To a caller every one of them is `UNAVAILABLE`, reason `LOG_UNAVAILABLE`. After
/// [`AppendError::Refusing`] the entry may yet turn out durable (the failure may have come after it was written); it was
/// never acknowledged, and nothing may have passed on the strength of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log takes no entries: the store failed, or too little space is free.
    #[error("the log refuses entries: {0}")]
    Refusing(Arc<str>),
    /// No room in the queue within the time allowed.
    #[error("the log's queue is full")]
    QueueFull,
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
    /// The entry or its private half is larger than [`super::entry::MAX_ENTRY`].
    #[error("{0} bytes: an entry has at most 65,535")]
    TooLarge(usize),
}

/// How the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// It takes entries.
    Healthy,
    /// It takes entries; free space is below the warning mark.
    LowSpace {
        /// Bytes free where the log is.
        free: u64,
    },
    /// It takes none.
    Refusing {
        /// Why, for operators.
        reason: Arc<str>,
        /// Whether it will be so until the node is restarted; else it ends when space is free again.
        until_restart: bool,
    },
}
