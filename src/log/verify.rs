//! Verification of a log that no node has open, with nothing but its public key: what an auditor runs.
//!
//! Everything that opening checks, and every commit's signature besides, by any of the keys that the log has had. It signs nothing and changes neither entries
//! nor head; sled itself tidies up its files when opened, as it does for a node.

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::error::LogError;
use super::head::{self, Found, Head};
use super::recovery;
use super::sled_store::SledStore;
use super::store::Base;
use crate::trust::note::Verifier;

/// What a folder was verified to hold.
#[derive(Debug)]
pub struct Verified {
    /// The latest checkpoint. None where the log has never had an entry and no head.
    pub checkpoint: Option<Checkpoint>,
    /// How many entries.
    pub size: u64,
    /// The first that is kept: of those before, which were pruned, the signed checkpoint at the cut is the only witness here.
    pub first: u64,
    /// How many commits, each with its own signature.
    pub commits: u64,
    /// How many of them the head does not know of: one after an ordinary crash.
    pub ahead_of_head: u64,
}

/// Recomputes the log of a data folder: every entry, root and signature, and the head. The error names the first bad
/// index. [`LogError::Locked`] where a node is running on it.
pub fn verify_folder(folder: &Path, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<Verified, LogError> {
    let keys = log.as_ref();
    let origin = keys.first().map_or("", Verifier::name);
    let head_path = folder.join(head::FILE);
    let head = Head::read(folder)?;
    if !SledStore::exists(folder) {
        return Err(match head {
            Found::Checkpoint(head) if head.size > 0 => recovery::lost(0, head.size),
            _ => LogError::Missing(folder.into()),
        });
    }
    let store = SledStore::open(folder)?;
    let agreed = recovery::agree(&store, origin, keys, &head_path, true, |_, _| {})?;
    let checkpoint = match (agreed.replay.last, head) {
        (Some(last), _) => Some(last),
        (None, Found::Checkpoint(head)) => Some(head),
        (None, _) => None,
    };
    let (size, first) = (agreed.replay.edge.size(), Base::first(&agreed.replay.base));
    Ok(Verified { checkpoint, size, first, commits: agreed.replay.commits, ahead_of_head: agreed.ahead })
}
