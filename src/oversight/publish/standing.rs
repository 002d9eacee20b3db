//! What has been published, compared with what the log holds: at every start, and before every publication.

use std::fmt;

use crate::log::tree::Hash;
use crate::log::{Checkpoint, Log, LogError};

/// The log's key has signed what the log does not hold: the log is an older copy, or another history. Nothing is
/// published over it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// More was published than is stored.
    #[error("{place} has {published} entries published, and the log holds {stored}: the log is an older copy")]
    Beyond {
        /// Where it was found.
        place: Place,
        /// Entries published.
        published: u64,
        /// Entries stored.
        stored: u64,
    },
    /// One size has two roots.
    #[error("{place} has root {published} published for {size} entries, and the log's is {stored}: two histories")]
    Roots {
        /// Where it was found.
        place: Place,
        /// The size.
        size: u64,
        /// The root that was published.
        published: Hash,
        /// The root that the log has.
        stored: Hash,
    },
}

/// Where a published checkpoint was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The store.
    Store,
    /// The file `published` in the data folder.
    Folder,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "publish.store",
            Self::Folder => "the data folder's file `published`",
        })
    }
}

/// What stands in the way of publishing where there is something already.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The log contradicts it.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// It is another log's checkpoint, or none at all.
    #[error("{place} has a checkpoint that is not this log's: {reason}")]
    Foreign {
        /// Where it was found.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads a published checkpoint and compares it with the log. Blocks shortly.
pub(super) fn compare(log: &Log, note: &[u8], place: Place) -> Result<Checkpoint, StandingError> {
    let foreign = |reason: String| StandingError::Foreign { place, reason };
    let note = std::str::from_utf8(note).map_err(|error| foreign(error.to_string()))?;
    let published = Checkpoint::verify(note, log.keys().all()).map_err(|error| foreign(error.to_string()))?;
    let stored = log.checkpoint().size;
    if published.size > stored {
        return Err(Contradiction::Beyond { place, published: published.size, stored }.into());
    }
    let root = log.root_at(published.size)?;
    if root != published.root {
        let (size, published) = (published.size, published.root);
        return Err(Contradiction::Roots { place, size, published, stored: root }.into());
    }
    Ok(published)
}
