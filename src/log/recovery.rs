//! Opening a log: everything is read, the tree is computed again and compared with what was signed.
//!
//! A store is believed only as far as its entries give the roots that this log's key signed, and only if it reaches the
//! head. What may differ after an ordinary crash is one thing: the store may be a commit ahead of the head, whole and
//! signed, and then the head is brought forward. Anything else refuses to open, and nothing is signed:
//!
//! ```text
//! store < head                      entries lost                       Lost, naming them
//! head's root ≠ tree's at its size  another history                    HeadDiffers
//! no head, entries                  what was acknowledged is unknown   HeadUnusable
//! hole, record unreadable           damage                             Damaged
//! root, edge or size ≠ signed       entries altered                    Altered, Damaged
//! another key's signature           wrong key or forged                Signature
//! a shred key not there              private values that cannot open    Damaged
//! ```
//!
//! A log that was pruned begins at its base: the tree's right edge there, under a checkpoint that this log's key signed,
//! and goes on from it.
//!
//! Signatures are checked from the head on (a root that equals a signed one vouches for all before it); `verify` checks
//! every one. A log that has changed its key has several, and any of them counts.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::OpenExchange;
use super::checkpoint::Checkpoint;
use super::entry::{Entry, Kind, Side};
use super::error::LogError;
use super::head::Found;
use super::hidden;
use super::seal::Seal;
use super::shared::open_half;
use super::shred::Slot;
use super::store::{Base, Run, Store};
use super::tree::{Hash, RightEdge, Tiles};
use crate::trust::note::Verifier;

/// The tree as far as it has been computed again.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) edge: RightEdge,
    pub(super) tiles: Tiles,
    /// Commits seen whole.
    pub(super) commits: u64,
    /// The latest of them.
    pub(super) last: Option<Checkpoint>,
    /// Where the log begins, where it was pruned.
    pub(super) base: Option<Base>,
    /// Bytes of all entries.
    pub(super) bytes: u64,
    /// First index of the commit being read.
    commit_first: u64,
}

impl Replay {
    /// Reads everything in the store, in order. Each entry and each commit's checkpoint is shown to the caller; the
    /// checkpoint's root has been compared by then, its signature has not been looked at.
    pub(super) fn run(
        store: &dyn Store,
        origin: &str,
        mut on_entry: impl FnMut(u64, &Bytes),
        mut on_commit: impl FnMut(&Checkpoint) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        let mut replay = match store.base()? {
            Some(base) => Self::from(base, origin)?,
            None => Self::default(),
        };
        for run in store.runs(replay.commit_first) {
            let index = replay.edge.size();
            let run = run.map_err(|error| match error {
                LogError::Store(what) => LogError::Damaged { index, what },
                other => other,
            })?;
            replay.take(run, origin, &mut on_entry, &mut on_commit)?;
        }
        let size = replay.edge.size();
        if replay.commit_first != size {
            return Err(LogError::Damaged {
                index: replay.commit_first,
                what: format!("the commit of entries {} to {} has no end", replay.commit_first, size - 1),
            });
        }
        Ok(replay)
    }

    /// A replay that begins where the log was pruned. The base's checkpoint has been compared with its edge; its
    /// signature has not been looked at.
    fn from(base: Base, origin: &str) -> Result<Self, LogError> {
        let size = base.edge.size();
        let damaged =
            |what: String| LogError::Damaged { index: size, what: format!("where the pruned log begins: {what}") };
        let checkpoint = Checkpoint::parse(&base.note).map_err(|error| damaged(error.to_string()))?;
        if checkpoint.size != size || checkpoint.origin != origin || checkpoint.root != base.edge.root() {
            return Err(damaged("its checkpoint is not of the tree at the cut".into()));
        }
        Ok(Self {
            edge: base.edge.clone(),
            tiles: Tiles::from(size),
            last: Some(checkpoint),
            base: Some(base),
            commit_first: size,
            ..Self::default()
        })
    }

    fn take(
        &mut self,
        run: Run,
        origin: &str,
        on_entry: &mut impl FnMut(u64, &Bytes),
        on_commit: &mut impl FnMut(&Checkpoint) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let expected = self.edge.size();
        if run.first != expected {
            let what = match run.first.checked_sub(1) {
                Some(last) if last >= expected => format!("entries {expected} to {last} are missing"),
                _ => format!("a record of entry {} is in its place", run.first),
            };
            return Err(LogError::Damaged { index: expected, what });
        }
        let Self { edge, tiles, bytes, .. } = self;
        for entry in &run.entries {
            on_entry(edge.size(), entry);
            *bytes += entry.len() as u64;
            edge.push_merging(Hash::of_leaf(entry), |level, index, hash| tiles.note(level, index, hash));
        }
        let Some((roots, note)) = run.end else { return Ok(()) };
        let (first, size) = (self.commit_first, self.edge.size());
        let checkpoint = Checkpoint::parse(&note)
            .map_err(|error| LogError::Damaged { index: first, what: format!("its checkpoint: {error}") })?;
        if checkpoint.size != size || checkpoint.origin != origin {
            let what = format!("its checkpoint is of {} entries of {}", checkpoint.size, checkpoint.origin);
            return Err(LogError::Damaged { index: first, what });
        }
        let computed = self.edge.root();
        if checkpoint.root != computed {
            return Err(LogError::Altered { first, last: size - 1, computed, signed: checkpoint.root });
        }
        if roots != self.edge.roots() {
            return Err(LogError::Damaged { index: first, what: "the stored right edge is not the tree's".into() });
        }
        on_commit(&checkpoint)?;
        self.commits += 1;
        self.commit_first = size;
        self.last = Some(checkpoint);
        Ok(())
    }
}

/// What a store and its head were found to hold, once they agree.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) replay: Replay,
    /// Commits that the head does not know of yet.
    pub(super) ahead: u64,
    /// How many entries the head says were acknowledged.
    pub(super) head_size: u64,
    /// Whether there is a head.
    pub(super) has_head: bool,
}

/// Computes the tree again, compares it with the head, and shows each entry to the caller. Changes nothing.
pub(super) fn agree(
    store: &dyn Store,
    origin: &str,
    log: &[Verifier],
    head_path: &std::path::Path,
    check_all_signatures: bool,
    on_entry: impl FnMut(u64, &Bytes),
) -> Result<Agreed, LogError> {
    let head = store.head()?;
    let head_checkpoint = match &head {
        Found::Checkpoint(checkpoint) => {
            if checkpoint.origin != origin {
                return Err(LogError::Checkpoint("the head is another log's"));
            }
            checkpoint.verify_signature(log)?;
            Some(checkpoint)
        }
        Found::Missing | Found::Damaged => None,
    };
    let head_size = head_checkpoint.map_or(0, |checkpoint| checkpoint.size);
    let mut ahead = 0;
    let mut root_at_head = (head_size == 0).then(Hash::of_nothing);
    let replay = Replay::run(store, origin, on_entry, |checkpoint| {
        if checkpoint.size == head_size {
            root_at_head = Some(checkpoint.root);
        }
        if checkpoint.size > head_size {
            ahead += 1;
        }
        // At the head's size the head's own signature counts, for its root is compared: the log may have changed its key since.
        if checkpoint.size > head_size || check_all_signatures {
            checkpoint.verify_signature(log)?;
        }
        Ok(())
    })
    .map_err(|error| lost_or(error, head_size))?;
    let stored = replay.edge.size();
    if let Some(base) = &replay.base {
        let at_base = Checkpoint::parse(&base.note)?;
        // What follows it leads to the head's root, which is signed.
        if at_base.size > head_size || check_all_signatures {
            at_base.verify_signature(log)?;
        }
        if at_base.size == head_size {
            root_at_head = Some(at_base.root);
        }
    }
    let Some(head_checkpoint) = head_checkpoint else {
        let what = if matches!(head, Found::Missing) { "missing" } else { "damaged" };
        return match stored {
            // Made and never used, or torn while it was made.
            0 => Ok(Agreed { replay, ahead, head_size, has_head: false }),
            _ => Err(LogError::HeadUnusable { path: head_path.into(), what, stored }),
        };
    };
    if stored < head_size {
        return Err(lost(stored, head_size));
    }
    if root_at_head != Some(head_checkpoint.root) {
        return Err(LogError::HeadDiffers { size: head_size, head: head_checkpoint.root, stored: root_at_head });
    }
    Ok(Agreed { replay, ahead, head_size, has_head: true })
}

/// Looks whether every entry has what its private half opens with, or a mark that says why not; gives the first index
/// whose half was not erased. Of a commit that nobody was told of (it is in the store and not in the head) the shred
/// keys may have been lost to a power cut: those entries stay, and are marked.
pub(super) fn settle_halves(store: &dyn Store, seal: &Seal, head: u64, size: u64) -> Result<u64, LogError> {
    let (mut first, mut untold) = (None, Vec::new());
    store.each_key(0, size, &mut |index, slot| {
        match slot {
            Slot::Missing if index < head => {
                return Err(LogError::Damaged { index, what: "its shred key is missing".into() });
            }
            Slot::Missing | Slot::Key(_) if index >= head => untold.push(index),
            _ => {}
        }
        if !slot.is_spent() && first.is_none() {
            first = Some(index);
        }
        Ok(())
    })?;
    for index in untold {
        if let Err(LogError::Damaged { .. }) = open_half(store, seal, index) {
            tracing::warn!(index, "private values did not reach the disk; the entry was never acknowledged");
            store.lose_key(index)?;
        }
    }
    Ok(first.unwrap_or(size))
}

/// Entries that the head says were acknowledged and that are not there.
pub(super) fn lost(stored: u64, head: u64) -> LogError {
    LogError::Lost { first: stored, last: head - 1, head, stored }
}

/// A tail that breaks off before the head is lost entries first of all, whatever else is wrong with it.
fn lost_or(error: LogError, head: u64) -> LogError {
    match error {
        LogError::Damaged { index, what } if index < head => {
            LogError::Damaged { index, what: format!("{what} (the head says {head} entries were acknowledged)") }
        }
        other => other,
    }
}

/// Keeps track of which exchanges have an opening entry and no closing one.
#[derive(Debug, Default)]
pub(super) struct OpenTracker {
    open: HashMap<([u8; 16], Side), OpenExchange>,
}

impl OpenTracker {
    /// With the exchanges that were open where the log was pruned.
    pub(super) fn from_base(base: Option<&Base>) -> Self {
        let mut tracker = Self::default();
        base.iter().flat_map(|base| &base.open).for_each(|(index, entry)| tracker.entry(*index, entry));
        tracker
    }

    /// Takes note of an entry, with what it hides where that can be known.
    pub(super) fn seen(&mut self, index: u64, entry: &Bytes, store: &dyn Store, seal: &Seal) {
        if !hidden::is_hidden(entry) {
            return self.entry(index, entry);
        }
        let private = open_half(store, seal, index).ok();
        let seen = hidden::Seen::new(entry.clone(), private.as_ref().map(|private| &private[..]));
        self.entry(index, &seen.whole());
    }

    /// Takes note of an entry. One that cannot be decoded opens and closes nothing.
    pub(super) fn entry(&mut self, index: u64, bytes: &[u8]) {
        let Ok(entry) = Entry::decode(bytes) else {
            tracing::warn!(index, "an entry is no protobuf of this version");
            return;
        };
        let Ok(id) = <[u8; 16]>::try_from(entry.exchange_id.as_ref()) else { return };
        match entry.kind() {
            Kind::RequestSent => self.opened(id, Side::Consumer, index, entry),
            Kind::RequestReceived => self.opened(id, Side::Provider, index, entry),
            Kind::ResponseReceived => _ = self.closed(id, Side::Consumer),
            Kind::ResponseSent => _ = self.closed(id, Side::Provider),
            // It closes the side it names; where that side has no entry in this log, the side that has.
            Kind::Failed => {
                let named_first = match entry.side() {
                    Side::Consumer => [Side::Consumer, Side::Provider],
                    Side::Provider | Side::Unspecified => [Side::Provider, Side::Consumer],
                };
                named_first.iter().any(|side| self.closed(id, *side));
            }
            Kind::Unspecified
            | Kind::Refused
            | Kind::Audit
            | Kind::RequestCompleted
            | Kind::Subjects
            | Kind::Erasure
            | Kind::Opened
            | Kind::Evidence => {}
        }
    }

    /// The exchanges still open, in the order of their opening entries.
    pub(super) fn into_open(self) -> Vec<OpenExchange> {
        let mut open: Vec<_> = self.open.into_values().collect();
        open.sort_by_key(|exchange| exchange.index);
        open
    }

    /// Opening entries of the exchanges still open, as a base keeps them.
    pub(super) fn open_entries(&self) -> Vec<(u64, Bytes)> {
        let mut open: Vec<_> =
            self.open.values().map(|open| (open.index, Bytes::from(open.entry.encode_to_vec()))).collect();
        open.sort_by_key(|(index, _)| *index);
        open
    }

    fn opened(&mut self, id: [u8; 16], side: Side, index: u64, entry: Entry) {
        let exchange = OpenExchange { exchange_id: Uuid::from_bytes(id), side, index, entry };
        self.open.insert((id, side), exchange);
    }

    fn closed(&mut self, id: [u8; 16], side: Side) -> bool {
        self.open.remove(&(id, side)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Draft, ExchangeKey};
    use super::*;

    #[test]
    fn tells_open_exchanges_by_side() {
        let key = ExchangeKey::generate();
        let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
        let mut tracker = OpenTracker::default();
        let mut index = 0;
        let mut note = |kind, id, side| {
            let mut draft = Draft::new(kind, id, 0, &key);
            draft.side = side;
            tracker.entry(index, &draft.seal().entry);
            index += 1;
        };
        // 0: both sides, provider's closed. 1: closed. 2: both sides, the consumer's failed. 3: failed at the peer's.
        for id in [ids[0], ids[2]] {
            note(Kind::RequestSent, id, Side::Unspecified);
            note(Kind::RequestReceived, id, Side::Unspecified);
        }
        note(Kind::ResponseSent, ids[0], Side::Unspecified);
        note(Kind::RequestReceived, ids[1], Side::Unspecified);
        note(Kind::ResponseSent, ids[1], Side::Unspecified);
        note(Kind::Failed, ids[2], Side::Consumer);
        note(Kind::RequestSent, ids[3], Side::Unspecified);
        note(Kind::Failed, ids[3], Side::Provider);
        note(Kind::Refused, Uuid::now_v7(), Side::Provider);
        let open: Vec<_> = tracker.into_open().iter().map(|open| (open.exchange_id, open.side, open.index)).collect();
        assert_eq!(open, [(ids[0], Side::Consumer, 0), (ids[2], Side::Provider, 3)]);
    }
}
