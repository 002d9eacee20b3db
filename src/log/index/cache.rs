//! Decoded parts of sealed segments, kept while there is room: the least recently used go first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;

use super::IndexError;
use super::file::{Ids, LateTable, Sealed};

/// Which part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Header,
    /// Dimension, number of the key.
    Bitmap(u8, u32),
    Openings,
    Ids,
    Times,
    Next,
    Late,
}

/// A part, decoded.
#[derive(Clone, Debug)]
pub(super) enum Loaded {
    Header(Arc<Sealed>),
    Bitmap(Arc<RoaringBitmap>),
    Ids(Arc<Ids>),
    Times(Arc<Vec<i64>>),
    Next(Arc<Vec<u16>>),
    Late(Arc<LateTable>),
}

impl Loaded {
    fn memory(&self) -> usize {
        // What a part costs besides its contents: map entries, allocation headers.
        const OVERHEAD: usize = 200;
        OVERHEAD
            + match self {
                Self::Header(sealed) => {
                    let keys = sealed.header.dimensions.iter().flat_map(|dictionary| &dictionary.keys);
                    keys.map(|key| size_of_val(key) + key.name.len() + 16).sum()
                }
                Self::Bitmap(bitmap) => bitmap.serialized_size(),
                Self::Ids(ids) => ids.memory(),
                Self::Times(times) => times.len() * 8,
                Self::Next(next) => next.len() * 2,
                Self::Late(late) => late.memory(),
            }
    }
}

/// The cache: at most `budget` bytes, estimated.
#[derive(Debug)]
pub(super) struct Cache {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: HashMap<(u32, Part), (Loaded, usize, u64)>,
    /// Use number to part, the least recent first.
    used: BTreeMap<u64, (u32, Part)>,
    uses: u64,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, state: Mutex::default() }
    }

    /// A part of a segment, loaded where it is not there. Two who miss it together both load it: harmless.
    pub(super) fn get(
        &self,
        segment: u32,
        part: Part,
        load: impl FnOnce() -> Result<Loaded, IndexError>,
    ) -> Result<Loaded, IndexError> {
        if let Some(found) = self.lock().touch(segment, part) {
            return Ok(found);
        }
        let loaded = load()?;
        self.lock().put(segment, part, loaded.clone(), self.budget);
        Ok(loaded)
    }

    /// Forgets segments from this one on.
    pub(super) fn forget(&self, from: u32) {
        let mut state = self.lock();
        let gone: Vec<_> = state.parts.keys().filter(|(segment, _)| *segment >= from).copied().collect();
        for key in gone {
            state.remove(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a wrong sum of bytes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, segment: u32, part: Part) -> Option<Loaded> {
        let (loaded, _, used) = self.parts.get_mut(&(segment, part))?;
        self.uses += 1;
        self.used.remove(used);
        *used = self.uses;
        self.used.insert(self.uses, (segment, part));
        Some(loaded.clone())
    }

    fn put(&mut self, segment: u32, part: Part, loaded: Loaded, budget: usize) {
        self.remove((segment, part));
        let bytes = loaded.memory();
        self.uses += 1;
        self.bytes += bytes;
        self.used.insert(self.uses, (segment, part));
        self.parts.insert((segment, part), (loaded, bytes, self.uses));
        while self.bytes > budget {
            let Some((_, oldest)) = self.used.first_key_value() else { break };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: (u32, Part)) {
        if let Some((_, bytes, used)) = self.parts.remove(&key) {
            self.bytes -= bytes;
            self.used.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_recently_used_within_its_budget() {
        let cache = Cache::new(3_000);
        let times = || Ok(Loaded::Times(Arc::new(vec![0; 100])));
        for segment in 0..3 {
            cache.get(segment, Part::Times, times).unwrap();
        }
        let miss = || -> Result<Loaded, IndexError> { Err(IndexError::OutOfTime) };
        cache.get(0, Part::Times, miss).unwrap();
        cache.get(3, Part::Times, times).unwrap();
        assert!(cache.get(1, Part::Times, miss).is_err(), "the least recently used went");
        assert!(cache.get(0, Part::Times, miss).is_ok());
        cache.forget(3);
        assert!(cache.get(3, Part::Times, miss).is_err());
        assert!(cache.lock().bytes <= 3_000);
    }
}
