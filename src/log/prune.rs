//! Pruning: entries that are published leave the store from the front, and the tree goes on from its right edge there.
//!
//! A step takes some thousands of entries, up to the end of a commit. What has to be known of them is put together from
//! the entries themselves (the edge, compared with the signed checkpoint; which exchanges are open; the days) and
//! becomes the new [`Base`] in the same batch of the store that removes them: after a crash there is the one or the
//! other. The writer is never waited for and never waits.
//!
//! Kept whatever the rule: what is not published, and a delayed entry that is still to be opened.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;

use super::checkpoint::Checkpoint;
use super::entry::Entry;
use super::error::LogError;
use super::hidden;
use super::recovery::OpenTracker;
use super::shared::Shared;
use super::store::{Base, Store};
use super::tree::{Hash, RightEdge};

/// About how many entries one step takes.
const STEP: u64 = 4_096;
const DAY_MS: i64 = 86_400_000;

/// Which published entries are pruned: those that either rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Those made before this time, Unix milliseconds.
    pub before_unix_ms: Option<i64>,
    /// As many as it takes until the entries that are kept have no more bytes than this.
    pub most_bytes: Option<u64>,
    /// None from this index on.
    pub until: u64,
}

impl Shared {
    /// One step; how many entries it took, none where there is nothing more to take. Blocks shortly.
    pub(super) fn prune_step(&self, rule: &Prune, now_unix_ms: i64) -> Result<u64, LogError> {
        let _turn = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = rule.until.min(self.published.load(Ordering::Relaxed)).min(self.size());
        let limit = limit.min(self.pinned.load(Ordering::Acquire));
        let base = self.base();
        let first = self.first();
        if limit <= first {
            return Ok(0);
        }
        self.with_store(|store| {
            let Some((cut, note)) = self.find_cut(store, rule, first, limit, now_unix_ms)? else { return Ok(0) };
            let (next, bytes) = self.base_at(store, base.as_deref(), cut, note)?;
            // Readers are turned away first: nobody takes what is being removed for damage.
            self.set_base(next.clone());
            store.prune(&next)?;
            let kept = self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
            metrics::gauge!("kopuro_log_bytes").set(kept as f64);
            Ok(cut - first)
        })
    }

    /// Where the step ends: a commit's end within the limit, with its checkpoint.
    fn find_cut(
        &self,
        store: &dyn Store,
        rule: &Prune,
        first: u64,
        limit: u64,
        now: i64,
    ) -> Result<Option<(u64, String)>, LogError> {
        let mut surplus =
            rule.most_bytes.map_or(0, |most| self.kept_bytes.load(Ordering::Relaxed).saturating_sub(most));
        let mut cut = None;
        let mut index = first;
        for run in store.runs(first) {
            let run = run?;
            for bytes in run.entries {
                if index >= limit {
                    return Ok(cut);
                }
                let length = bytes.len() as u64;
                // Both: what is still to be opened, whichever rule it is that would take it.
                let Some(entry) = self.whole_in(store, index, bytes) else { return Ok(cut) };
                let is_old = rule.before_unix_ms.is_some_and(|before| entry.time_unix_ms < before);
                let is_due = hidden::due_unix_ms(&entry).is_none_or(|due| due < now);
                if !is_due || !(is_old || surplus > 0) {
                    return Ok(cut);
                }
                surplus = surplus.saturating_sub(length);
                index += 1;
            }
            if let Some((_, note)) = run.end {
                cut = Some((index, note));
                if index - first >= STEP {
                    break;
                }
            }
        }
        Ok(cut)
    }

    /// The base at this cut, computed from the one before and the entries between, and the bytes of these.
    fn base_at(&self, store: &dyn Store, base: Option<&Base>, cut: u64, note: String) -> Result<(Base, u64), LogError> {
        let mut edge = base.map_or_else(RightEdge::default, |base| base.edge.clone());
        let mut days = base.map_or_else(Vec::new, |base| base.days.clone());
        let mut open = OpenTracker::from_base(base);
        let mut bytes = 0;
        'runs: for run in store.runs(edge.size()) {
            for entry in run?.entries {
                let index = edge.size();
                if index == cut {
                    break 'runs;
                }
                edge.push(Hash::of_leaf(&entry));
                bytes += entry.len() as u64;
                let Some(whole) = self.whole_in(store, index, entry) else { continue };
                note_day(&mut days, &whole, index + 1);
                open.entry(index, &Bytes::from(whole.encode_to_vec()));
            }
        }
        // Days of which every half is erased are of no more use.
        let erased = self.private_from.load(Ordering::Relaxed);
        days.retain(|(_, end)| *end > erased);
        let checkpoint = Checkpoint::parse(&note)?;
        if edge.size() != cut || checkpoint.size != cut || checkpoint.root != edge.root() {
            let what = "the entries to prune are not those that were signed".into();
            return Err(LogError::Damaged { index: cut.saturating_sub(1), what });
        }
        Ok((Base { edge, note, days, open: open.open_entries() }, bytes))
    }
}

/// Until `end` no entry was made later than the last day; what shows no time was made with its neighbours.
fn note_day(days: &mut Vec<(i64, u64)>, entry: &Entry, end: u64) {
    let day = entry.time_unix_ms.div_euclid(DAY_MS);
    match days.last_mut() {
        Some((last, last_end)) if day <= *last => *last_end = end,
        _ => days.push((day, end)),
    }
}
