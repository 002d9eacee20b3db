//! Delayed entries that no later entry has opened yet: a bitmap for each segment that has any, and when the first of
//! them is due. Times stand in the segments' files and are read only where something is due.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::IndexError;
use super::file::DelayedTable;
use super::segments::Shared;

/// What waits in all segments.
#[derive(Debug)]
pub(super) struct Pending {
    capacity: u64,
    waiting: BTreeMap<u32, Waiting>,
    /// Which segment is followed, and how much of its table has been taken: delayed entries, entries opened.
    followed: (u32, usize, usize),
}

/// What waits in one segment.
#[derive(Debug)]
struct Waiting {
    offsets: RoaringBitmap,
    /// Nothing here is due before this time, Unix milliseconds.
    not_before: i64,
}

impl Pending {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity: u64::from(capacity), waiting: BTreeMap::new(), followed: (0, 0, 0) }
    }

    /// Takes what is new in the table of this segment, the last one so far.
    pub(super) fn follow(&mut self, segment: u32, table: &DelayedTable) {
        if self.followed.0 != segment {
            self.followed = (segment, 0, 0);
        }
        let (_, rows, opened) = self.followed;
        for (offset, due) in table.rows(rows) {
            let waiting = self.waiting.entry(segment);
            let waiting = waiting.or_insert_with(|| Waiting { offsets: RoaringBitmap::new(), not_before: due });
            waiting.offsets.insert(offset);
            waiting.not_before = waiting.not_before.min(due);
        }
        for entry in table.opened.iter().skip(opened) {
            self.remove(*entry);
        }
        self.followed = (segment, table.len(), table.opened.len());
    }

    /// Forgets segments from this one on.
    pub(super) fn truncate(&mut self, to: u32) {
        self.waiting.split_off(&to);
        self.followed = (to, 0, 0);
    }

    fn remove(&mut self, entry: u64) {
        let Ok(segment) = u32::try_from(entry / self.capacity) else { return };
        if let Some(waiting) = self.waiting.get_mut(&segment) {
            // Under 65,536 by the modulus.
            waiting.offsets.remove((entry % self.capacity) as u32);
            if waiting.offsets.is_empty() {
                self.waiting.remove(&segment);
            }
        }
    }
}

impl Shared {
    pub(super) fn due(&self, now_unix_ms: i64, from: u64, limit: usize) -> Result<Vec<u64>, IndexError> {
        let first = u32::try_from(from / self.capacity()).unwrap_or(u32::MAX);
        let segments: Vec<u32> = {
            let state = self.state();
            let waiting = state.pending.waiting.range(first..);
            waiting.filter(|(_, waiting)| waiting.not_before <= now_unix_ms).map(|(segment, _)| *segment).collect()
        };
        let mut due = Vec::new();
        for segment in segments {
            if due.len() >= limit {
                break;
            }
            self.due_in(segment, now_unix_ms, |entry| {
                if entry >= from && due.len() < limit {
                    due.push(entry);
                }
            })?;
        }
        Ok(due)
    }

    fn due_in(&self, segment: u32, now_unix_ms: i64, mut due: impl FnMut(u64)) -> Result<(), IndexError> {
        let start = u64::from(segment) * self.capacity();
        let sealed = if (segment as usize) < self.state().sealed.len() { Some(self.sealed(segment)?) } else { None };
        let table = sealed.map(|sealed| sealed.delayed()).transpose()?;
        let mut state = self.state_mut();
        let state = &mut *state;
        // Sealed meanwhile, or gone: the next time.
        let table = match &table {
            Some(table) => table,
            None if state.current.number == segment => &state.current.delayed,
            None => return Ok(()),
        };
        let Some(waiting) = state.pending.waiting.get_mut(&segment) else { return Ok(()) };
        waiting.not_before = i64::MAX;
        for (offset, time) in table.rows(0).filter(|(offset, _)| waiting.offsets.contains(*offset)) {
            waiting.not_before = waiting.not_before.min(time);
            if time <= now_unix_ms {
                due(start + u64::from(offset));
            }
        }
        Ok(())
    }

    pub(super) fn set_aside(&self, entry: u64) {
        self.state_mut().pending.remove(entry);
    }
}
