//! What is taken from messages, within bounds.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Subject;

/// Most subjects, and most values of committed fields, that are taken from one side of an exchange; more are counted.
pub const MAX_FOUND: usize = 4_096;
/// Most bytes of committed values that are kept; what is beyond is counted.
pub const MAX_COMMITTED_BYTES: usize = 1 << 20;
/// Most paths of withheld fields that are named; the rest are only counted.
pub const MAX_WITHHELD_PATHS: usize = 256;

/// From how many subjects on they are looked up by hash.
const MANY: usize = 16;

/// How many withheld fields are remembered as named.
const NAMED: usize = 16;

/// What was taken from the messages of one side of an exchange. Bounded: see [`MAX_FOUND`]. Committed values are slices of
/// their messages and keep these in memory: whoever keeps them longer than their message copies them.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Values of the fields annotated as `subject`, each once, in order; integers in decimal. Of fields that are withheld, of
    /// empty strings and of zeros there is none: they are about nobody.
    pub subjects: Vec<Subject>,
    /// Values of committed fields: the path (shared by all messages of the plan) and the value as on the wire without tag and length.
    pub committed: Vec<(Arc<str>, Bytes)>,
    /// How many fields were withheld: a repeated field counts once for each occurrence on the wire.
    pub withheld: u64,
    /// Which, each once, without repetition; of unknown fields the number. Where a type contains itself, what is below has
    /// the field's full name (`kg.civil.v1.Person.pin`) and not its path. At most [`MAX_WITHHELD_PATHS`].
    pub withheld_paths: BTreeSet<Arc<str>>,
    /// How many subjects and committed values there were beyond the bound.
    pub beyond: u64,
    /// The subjects, once they are many.
    pub(crate) by_hash: HashSet<Subject>,
    /// Of the withheld fields that were named, those that are remembered, by the last bits of their index: the next message has
    /// them too.
    pub(crate) named: Vec<Option<Arc<str>>>,
    /// The length of all that was committed.
    pub(crate) committed_bytes: usize,
}

impl Found {
    /// Adds a subject unless it is there.
    pub(super) fn subject(&mut self, value: &[u8]) {
        if self.subjects.len() < MANY {
            if !self.subjects.iter().any(|subject| **subject == *value) {
                self.subjects.push(value.into());
            }
            return;
        }
        if self.by_hash.is_empty() {
            self.by_hash.extend(self.subjects.iter().cloned());
        }
        if self.by_hash.contains(value) {
            return;
        }
        if self.subjects.len() < MAX_FOUND {
            self.by_hash.insert(value.into());
            self.subjects.push(value.into());
        } else {
            self.beyond += 1;
        }
    }

    /// Adds a committed field's value.
    pub(super) fn commit(&mut self, path: &Arc<str>, value: Bytes) {
        let kept = self.committed_bytes.saturating_add(value.len());
        if self.committed.len() < MAX_FOUND && kept <= MAX_COMMITTED_BYTES {
            self.committed_bytes = kept;
            self.committed.push((path.clone(), value));
        } else {
            self.beyond += 1;
        }
    }

    /// Names a withheld field, by its index in the plan.
    #[inline]
    pub(super) fn name(&mut self, index: u32, path: &Arc<str>) {
        let at = index as usize % NAMED;
        match self.named.get(at) {
            Some(Some(named)) if Arc::ptr_eq(named, path) && !self.withheld_paths.is_empty() => {}
            _ => self.name_anew(at, path),
        }
    }

    #[inline(never)]
    fn name_anew(&mut self, at: usize, path: &Arc<str>) {
        if self.names_withheld() {
            if !self.withheld_paths.contains(path) {
                self.withheld_paths.insert(path.clone());
            }
            self.named.resize(NAMED, None);
            self.named[at] = Some(path.clone());
        }
    }

    /// Whether further names of withheld fields are kept.
    pub(super) fn names_withheld(&self) -> bool {
        self.withheld_paths.len() < MAX_WITHHELD_PATHS
    }
}
