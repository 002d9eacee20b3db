//! Backups of a log: written while it grows, checked to the last byte when read, restored whole or not at all.
//!
//! A backup has two parts, each a tar file, so that nobody needs Kopuro to read it (whoever makes the file encrypts it). The log's part
//! is for keeping; the shred keys' part is replaced with each backup, and with it goes, in *every* older backup, what was erased since:
//!
//! ```text
//! the log's part                                                          the shred keys' part
//!   manifest.json   what it is, of which log, when                          manifest.json
//!   checkpoint      signed; everything below is of its size                 checkpoint            of its size or a smaller one's log
//!   base            where a pruned log begins, else not there               shred/<n>.keys        the file, without keys beyond the size
//!   files/…         peers' checkpoints and evidence, published              shred/<n>.erased      empty: all of it is destroyed
//!   for each 256 entries:
//!     commits/<N>           sizes and signed checkpoints of the commits that end there
//!     tile/entries/<N>      C2SP bundle; of a pruned log the first may be tail/<first entry>
//!     halves/<N>            private halves, sealed
//! ```
//!
//! Written: entries are only ever appended, so the log as it was at a checkpoint is read while new ones come; nobody waits and nothing
//! is locked, but that what is being copied is not pruned meanwhile. Halves go before shred keys: a half that an erasure removes while
//! it is copied has lost its key by then.
//!
//! Read ([`read`](mod@read)): nothing is believed but what the log's key signed. Not signed are the halves (each opens with its own key only), the
//! shred keys, and of a pruned log the days and open exchanges in `base`. [`restore`] puts a data folder together beside its place.

mod read;
mod restore;
mod write;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::LogError;

pub use read::{Kept, verify_log, verify_shred};
pub use restore::{Restored, Restoring, head_of};
pub(super) use write::NOT_PINNED;

/// The manifests' format.
const FORMAT: &str = "kopuro-backup/v1";

const MANIFEST: &str = "manifest.json";
const CHECKPOINT: &str = "checkpoint";
const BASE: &str = "base";
const COMMITS: &str = "commits/";
const HALVES: &str = "halves/";
const TAIL: &str = "tail/";
const FILES: &str = "files/";
const SHRED: &str = "shred/";

/// Files of the data folder that go with the log, beside the peers' checkpoints: as they are, each at most [`MOST_FILE`].
/// Not `directory.note`: a node believes the one that it finds, and who wrote a backup is not known by who may read it.
const ALONG: [&str; 1] = ["published"];
const PEERS: &str = "peers";
const MOST_FILE: u64 = 1 << 20;

/// Which part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Entries, sealed private halves, what is known of peers.
    Log,
    /// The keys without which no private half opens.
    Shred,
}

/// What a part says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// Which part.
    pub part: Part,
    /// The log's name.
    pub origin: String,
    /// How many entries the log had.
    pub size: u64,
    /// The first entry that is in it: those before were pruned.
    pub first: u64,
    /// Below this one every private half is erased.
    pub private_from: u64,
    /// When it was made, Unix milliseconds.
    pub time_unix_ms: i64,
    /// What tells the sealing key from others, hexadecimal.
    pub sealing_check: Option<String>,
    /// Which version of Kopuro made it.
    pub kopuro: String,
}

/// Why a backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log, or what is restored of it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Reading or writing the backup failed; a file that was cut short or altered fails so.
    #[error("the backup: {0}")]
    Io(#[from] std::io::Error),
    /// Another backup of this log is being made.
    #[error("another backup is being made")]
    Busy,
    /// The other part, or another kind of file.
    #[error("the backup is no {wanted} part: {found}")]
    Part {
        /// What was asked for.
        wanted: &'static str,
        /// What was found.
        found: String,
    },
    /// A member of the backup is not what it must be.
    #[error("the backup's {member}: {what}")]
    Member {
        /// Its name.
        member: String,
        /// What is wrong.
        what: String,
    },
    /// It ends before the log does.
    #[error("the backup has entries up to {found}, and its checkpoint is of {size}")]
    Short {
        /// Entries found.
        found: u64,
        /// By the checkpoint.
        size: u64,
    },
    /// The shred keys are older than the log's part, or of another log.
    #[error("the shred keys are of {found} entries, and the log's part has {size}: take those made with it, or later")]
    OldShred {
        /// Entries that there are keys of.
        found: u64,
        /// Entries of the log's part.
        size: u64,
    },
    /// There is something in the folder.
    #[error(
        "{0} is not empty: restore to a folder that is not there, and keep the old one for what it may still tell (--remains)"
    )]
    NotEmpty(PathBuf),
    /// A private half is not what it must be.
    #[error("entry {index}: {what}")]
    Half {
        /// The entry.
        index: u64,
        /// What is wrong.
        what: String,
    },
}

impl BackupError {
    fn member(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Member { member: member.into(), what: what.into() }
    }
}

/// Whether a file of `peers/` is one that goes along: `<id>.checkpoint`, `<id>.evidence`; the id is of the peer's log's
/// origin, or, of files made before, of its key.
fn is_peers(name: &str) -> bool {
    let Some((id, kind)) = name.split_once('.') else { return false };
    matches!(id.len(), 8 | 16)
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && matches!(kind, "checkpoint" | "evidence")
}
