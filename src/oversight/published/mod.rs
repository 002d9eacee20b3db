//! Reading a log as it is published: C2SP tlog-tiles, at a URL or in a folder, ours or anybody's.
//!
//! In: where it is, and a checkpoint. Out: entries, hashes and proofs, each checked against that checkpoint's root before
//! anybody sees it. Hence plain `http://` will do: whoever changes what passes can only make the reading fail. Nothing is
//! believed but the checkpoint's signature, which the caller verifies ([`crate::log::Checkpoint::verify`]).
//!
//! ```text
//! place    one file of a publication: bounded in size and time, tried again, gunzipped where HTTP says so
//! tree     hash tiles, authenticated from the root down: right border first, then each full tile by the one above it
//! verify   all bundles against all tiles, in parallel, and the first one that is wrong
//! seen     the last checkpoint seen of a log, kept for the next time
//! ```

mod place;
mod seen;
mod tree;
mod verify;

use std::sync::Arc;

use crate::log::LogError;
use crate::log::proof::ProofError;
use crate::log::tile::{BundleError, Tile};
use crate::log::tree::Hash;
use crate::trust::note::Note;

pub use place::{Place, Publication};
pub use seen::Seen;
pub use tree::PublishedTree;
pub use verify::{Bundles, bundles, verify};

/// Whether enough witnesses cosigned a checkpoint's note, and if not, what is missing. A closure, so that reading knows
/// nothing of how policies are written.
pub type Quorum = Arc<dyn Fn(&Note) -> Result<(), String> + Send + Sync>;

/// What is wrong with a publication, or with the way to it.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// Neither a URL that can be fetched nor a folder.
    #[error("{0:?} is no published log: expected https://…, http://… or a folder")]
    Place(String),
    /// A file could not be had. Says nothing about the log.
    #[error("{what}: {reason}")]
    Fetch {
        /// Its address.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A file is not there that the checkpoint says must be.
    #[error("{0} is not there")]
    Missing(String),
    /// The checkpoint is none, or not signed by this log.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] LogError),
    /// Too few witnesses cosigned the checkpoint.
    #[error("checkpoint: {0}")]
    Quorum(String),
    /// A hash tile does not belong under the root, or has not its width.
    #[error("first bad tile {tile}: {what}")]
    Tile {
        /// Which one.
        tile: Tile,
        /// What is wrong.
        what: String,
    },
    /// A bundle cannot be cut into its entries.
    #[error("first bad index {first}: bundle {tile}: {source}")]
    Bundle {
        /// Which one.
        tile: Tile,
        /// Index of its first entry.
        first: u64,
        /// What is wrong.
        source: BundleError,
    },
    /// An entry is not the leaf that the tree has at its place.
    #[error("first bad index {index}: the entry in {tile} is not the one that was logged")]
    Entry {
        /// Its index.
        index: u64,
        /// Where it was read.
        tile: Tile,
    },
    /// All tiles agree with each other, and not with the checkpoint.
    #[error("the tiles give the root {computed}, the checkpoint of {size} entries has {signed}")]
    Root {
        /// Size of the checkpoint.
        size: u64,
        /// What the tiles give.
        computed: Hash,
        /// What the checkpoint says.
        signed: Hash,
    },
    /// The log does not contain what it once signed: two histories.
    #[error(
        "this log's first {size} entries have the root {computed}; a checkpoint seen before has {seen}: it was rewritten"
    )]
    Rewritten {
        /// Size of the earlier checkpoint.
        size: u64,
        /// The root of that many entries now.
        computed: Hash,
        /// The root that was seen.
        seen: Hash,
    },
    /// The checkpoint is of fewer entries than one seen before.
    #[error("the log shows {size} entries, and has shown {seen} before")]
    Truncated {
        /// Entries now.
        size: u64,
        /// Entries before.
        seen: u64,
    },
    /// A proof could not be made.
    #[error("no proof: {0}")]
    Proof(#[from] ProofError),
    /// The checkpoint seen before cannot be kept or read.
    #[error("{path}: {reason}")]
    Seen {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl PublishedError {
    /// Whether the way to the log failed and not the log: another try may succeed.
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::Fetch { .. } | Self::Missing(_))
    }
}
