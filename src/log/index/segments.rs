//! Which segments there are: the sealed ones by what is worth remembering of each, the one in memory, and how entries
//! turn the second into the first.
//!
//! A sealed segment found damaged or missing is not mended in place: the index goes back to before it and is built
//! forward again, which takes over the later files as they are. Readers see a shorter reach meanwhile, never a wrong
//! answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prost::Message;
use roaring::RoaringBitmap;
use tokio::sync::Notify;

use super::builder::{Builder, Dimension, number_key};
use super::cache::{Cache, Loaded, Part};
use super::file::{self, Carried, Header, Ids, LateTable, Sealed};
use super::pending::Pending;
use super::subjects::CurrentSubjects;
use super::{EntrySource, IndexError, IndexOptions, SEGMENT_ENTRIES};
use crate::log::entry::{Entry, IndexRange, Kind, Outcome};
use crate::log::hidden::Seen;
use crate::log::tree::Hash;

/// Entries taken at once: readers wait for no more.
const BATCH: usize = 512;

/// What handles of one index share.
pub(super) struct Shared {
    pub(super) options: IndexOptions,
    pub(super) source: Arc<dyn EntrySource>,
    state: RwLock<State>,
    /// Held by whoever adds entries, seals or goes back.
    writing: Mutex<()>,
    /// Held by whoever finds out subjects.
    pub(super) subjects: Mutex<CurrentSubjects>,
    pub(super) cache: Cache,
    /// Wakes the follower when the index has gone back.
    pub(super) gone_back: Notify,
}

pub(super) struct State {
    pub(super) sealed: Vec<Outline>,
    /// In which sealed segments a value occurs at all, endings that came later included.
    presence: HashMap<(Dimension, Box<str>), RoaringBitmap>,
    /// For a sealed segment the later sealed ones in which its exchanges go on.
    late_in: HashMap<u32, Vec<u32>>,
    pub(super) current: Builder,
    /// Delayed entries that wait to be opened.
    pub(super) pending: Pending,
}

/// What is remembered of a sealed segment.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    /// Times of its openings; the wrong way round where it has none.
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// Exchange ids of its openings.
    min_id: [u8; 16],
    max_id: [u8; 16],
    /// Entries whose fields stay hidden.
    pub(super) hidden: u32,
}

impl Outline {
    /// Whether an exchange with this id may have opened here.
    pub(super) fn may_hold(&self, id: &[u8; 16]) -> bool {
        self.min_time <= self.max_time && self.min_id <= *id && *id <= self.max_id
    }
}

impl State {
    fn new(capacity: u32) -> Self {
        Self {
            sealed: Vec::new(),
            presence: HashMap::new(),
            late_in: HashMap::new(),
            current: Builder::new(0, capacity, Vec::new()),
            pending: Pending::new(capacity),
        }
    }

    /// Sealed segments in which a value occurs.
    pub(super) fn presence(&self, dimension: Dimension, value: &str) -> Option<&RoaringBitmap> {
        // The key is owned by the map: a look-up has to own one too. Once per query.
        self.presence.get(&(dimension, value.into()))
    }

    /// Later sealed segments in which exchanges of this one go on.
    pub(super) fn late_in(&self, segment: u32) -> &[u32] {
        self.late_in.get(&segment).map_or(&[], Vec::as_slice)
    }

    fn install(&mut self, header: &Header, late: &LateTable, carried: Vec<Carried>, capacity: u32) {
        let number = header.number;
        let dimensions = header.dimensions.iter().zip(Dimension::ALL);
        for (key, dimension) in dimensions.flat_map(|(d, dimension)| d.keys.iter().map(move |key| (key, dimension))) {
            self.presence.entry((dimension, key.name.as_str().into())).or_default().insert(number);
        }
        for (opening, _, outcome, reason) in late.rows(0..u64::MAX) {
            let Ok(segment) = u32::try_from(opening / u64::from(capacity)) else { continue };
            let later = self.late_in.entry(segment).or_default();
            if later.last() != Some(&number) {
                later.push(number);
            }
            if outcome != Outcome::Unspecified {
                let key = (Dimension::Outcome, number_key(outcome.into()).into());
                self.presence.entry(key).or_default().insert(segment);
            }
            if !reason.is_empty() {
                self.presence.entry((Dimension::Reason, reason.into())).or_default().insert(segment);
            }
        }
        self.sealed.push(Outline {
            min_time: header.min_time,
            max_time: header.max_time,
            min_id: header.min_id.as_slice().try_into().unwrap_or([0xff; 16]),
            max_id: header.max_id.as_slice().try_into().unwrap_or([0; 16]),
            hidden: header.hidden,
        });
        self.current = Builder::new(number + 1, capacity, carried);
    }

    /// Forgets segments from this one on.
    fn truncate(&mut self, to: u32, carried: Vec<Carried>, capacity: u32) {
        self.sealed.truncate(to as usize);
        self.presence.retain(|_, segments| {
            segments.remove_range(to..);
            !segments.is_empty()
        });
        self.late_in.retain(|segment, later| {
            later.retain(|number| *number < to);
            *segment < to && !later.is_empty()
        });
        self.pending.truncate(to);
        self.current = Builder::new(to, capacity, carried);
    }
}

impl Shared {
    pub(super) fn open(options: IndexOptions, source: Arc<dyn EntrySource>) -> Result<Self, IndexError> {
        if !(1..=SEGMENT_ENTRIES).contains(&options.segment_entries) {
            return Err(IndexError::SegmentLength);
        }
        std::fs::create_dir_all(&options.folder).map_err(IndexError::io(&options.folder))?;
        let state = RwLock::new(State::new(options.segment_entries));
        let cache = Cache::new(options.cache_bytes);
        let (writing, subjects) = (Mutex::new(()), Mutex::default());
        let shared = Self { options, source, state, writing, subjects, cache, gone_back: Notify::new() };
        {
            let _writing = shared.writing();
            while shared.adopt()? {}
        }
        Ok(shared)
    }

    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.options.segment_entries)
    }

    // A thread that panicked with a lock has left what the next restart, or a step back, builds again.

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next step towards the source's end; false where that is reached.
    pub(super) fn advance(&self) -> Result<bool, IndexError> {
        let _writing = self.writing();
        let (end, room, fresh) = {
            let state = self.state();
            (state.current.end(), state.current.room(), state.current.end() == state.current.first)
        };
        if room == 0 {
            self.seal()?;
            return Ok(true);
        }
        if fresh && self.adopt()? {
            return Ok(true);
        }
        let behind = self.source.size().saturating_sub(end);
        if behind == 0 {
            return Ok(false);
        }
        let max = room.min(BATCH).min(usize::try_from(behind).unwrap_or(usize::MAX));
        let pruned = self.source.first().saturating_sub(end);
        if pruned > 0 {
            // Not to be had any more: they keep their places, and nothing is known of them.
            let mut state = self.state_mut();
            (0..pruned.min(max as u64)).for_each(|_| state.current.add(&Seen::default()));
            return Ok(true);
        }
        let entries = self.source.read_seen(end, max).map_err(|source| IndexError::Source { from: end, source })?;
        // Before the entries that say so count as seen: no answer tells of a person what the log says is destroyed.
        for range in entries.iter().take(max).flat_map(|seen| erased(&seen.entry)) {
            self.forget_subjects(range.first, range.count)?;
        }
        let mut state = self.state_mut();
        let state = &mut *state;
        for entry in entries.iter().take(max) {
            state.current.add(entry);
        }
        state.pending.follow(state.current.number, &state.current.delayed);
        Ok(!entries.is_empty())
    }

    /// Writes the full segment to its file and begins the next one.
    fn seal(&self) -> Result<(), IndexError> {
        let (header, bytes, late, carried) = {
            let state = self.state();
            let (header, bytes) = state.current.seal();
            (header, bytes, state.current.late_table(), state.current.carried())
        };
        header.number.checked_add(1).ok_or(IndexError::Full)?;
        file::write(&file::path(&self.options.folder, header.number), &bytes)?;
        self.cache.forget(header.number);
        self.state_mut().install(&header, &late, carried, self.options.segment_entries);
        Ok(())
    }

    /// Takes over the file of the segment that is to begin, where there is one that fits the log.
    fn adopt(&self) -> Result<bool, IndexError> {
        let (number, first) = {
            let state = self.state();
            (state.current.number, state.current.first)
        };
        let end = first + self.capacity();
        if self.source.size() < end {
            return Ok(false);
        }
        let sealed = match Sealed::open(&self.options.folder, number) {
            Ok(sealed) => sealed,
            Err(IndexError::Damaged { .. }) => return Ok(false),
            Err(other) => return Err(other),
        };
        let header = &sealed.header;
        if header.first != first || u64::from(header.entries) != self.capacity() {
            return Ok(false);
        }
        // Where its last entry was pruned nothing is left to compare with: its own checksums have to do.
        let pruned = end <= self.source.first();
        let read = if pruned { Ok(Vec::new()) } else { self.source.read(end - 1, 1) };
        let last = read.map_err(|source| IndexError::Source { from: end - 1, source })?;
        if !pruned && last.first().is_none_or(|last| Hash::of_leaf(last).0 != *header.last_leaf) {
            return Ok(false);
        }
        let read = || Ok((sealed.late()?, sealed.carried()?, sealed.delayed()?));
        let (late, carried, delayed) = match read() {
            Ok(read) => read,
            Err(IndexError::Damaged { .. }) => return Ok(false),
            Err(other) => return Err(other),
        };
        header.number.checked_add(1).ok_or(IndexError::Full)?;
        self.cache.forget(number);
        let mut state = self.state_mut();
        state.pending.follow(number, &delayed);
        state.install(header, &late, carried, self.options.segment_entries);
        Ok(true)
    }

    /// Goes back to before a damaged segment, so that it is built again.
    pub(super) fn go_back(&self, damaged: u32) {
        let _writing = self.writing();
        if self.state().sealed.len() <= damaged as usize {
            return;
        }
        tracing::warn!(segment = damaged, "a segment of the log's index is damaged or gone; building it again");
        // Gone already, or in the way: what is written next replaces it.
        let _ = std::fs::remove_file(file::path(&self.options.folder, damaged));
        let mut to = damaged;
        let carried = loop {
            let Some(before) = to.checked_sub(1) else { break Vec::new() };
            match Sealed::open(&self.options.folder, before).and_then(|sealed| sealed.carried()) {
                Ok(carried) => break carried,
                Err(_) => to = before,
            }
        };
        self.cache.forget(to);
        self.state_mut().truncate(to, carried, self.options.segment_entries);
        self.gone_back.notify_one();
    }

    // === Parts of sealed segments, by way of the cache ===

    pub(super) fn sealed(&self, segment: u32) -> Result<Arc<Sealed>, IndexError> {
        let load = || Ok(Loaded::Header(Arc::new(Sealed::open(&self.options.folder, segment)?)));
        match self.cache.get(segment, Part::Header, load)? {
            Loaded::Header(sealed) => Ok(sealed),
            _ => Err(mixed_up(segment)),
        }
    }

    /// Openings with this value.
    pub(super) fn bitmap(
        &self,
        sealed: &Sealed,
        dimension: Dimension,
        value: &str,
    ) -> Result<Option<Arc<RoaringBitmap>>, IndexError> {
        let dictionary = sealed.header.dimensions.get(dimension as usize);
        let Some((at, key)) = dictionary.and_then(|dictionary| dictionary.get(value)) else { return Ok(None) };
        let part = Part::Bitmap(dimension as u8, u32::try_from(at).unwrap_or(u32::MAX));
        self.cached_bitmap(sealed, part, || sealed.bitmap(Some(key.span))).map(Some)
    }

    pub(super) fn openings(&self, sealed: &Sealed) -> Result<Arc<RoaringBitmap>, IndexError> {
        self.cached_bitmap(sealed, Part::Openings, || sealed.bitmap(sealed.header.openings))
    }

    fn cached_bitmap(
        &self,
        sealed: &Sealed,
        part: Part,
        load: impl FnOnce() -> Result<RoaringBitmap, IndexError>,
    ) -> Result<Arc<RoaringBitmap>, IndexError> {
        match self.cache.get(sealed.header.number, part, || Ok(Loaded::Bitmap(Arc::new(load()?))))? {
            Loaded::Bitmap(bitmap) => Ok(bitmap),
            _ => Err(mixed_up(sealed.header.number)),
        }
    }

    pub(super) fn ids(&self, segment: u32) -> Result<Arc<Ids>, IndexError> {
        let load = || Ok(Loaded::Ids(Arc::new(self.sealed(segment)?.ids()?)));
        match self.cache.get(segment, Part::Ids, load)? {
            Loaded::Ids(ids) => Ok(ids),
            _ => Err(mixed_up(segment)),
        }
    }

    pub(super) fn times(&self, segment: u32) -> Result<Arc<Vec<i64>>, IndexError> {
        let load = || Ok(Loaded::Times(Arc::new(self.sealed(segment)?.times()?)));
        match self.cache.get(segment, Part::Times, load)? {
            Loaded::Times(times) => Ok(times),
            _ => Err(mixed_up(segment)),
        }
    }

    pub(super) fn next(&self, segment: u32) -> Result<Arc<Vec<u16>>, IndexError> {
        let load = || Ok(Loaded::Next(Arc::new(self.sealed(segment)?.next()?)));
        match self.cache.get(segment, Part::Next, load)? {
            Loaded::Next(next) => Ok(next),
            _ => Err(mixed_up(segment)),
        }
    }

    pub(super) fn late(&self, segment: u32) -> Result<Arc<LateTable>, IndexError> {
        let load = || Ok(Loaded::Late(Arc::new(self.sealed(segment)?.late()?)));
        match self.cache.get(segment, Part::Late, load)? {
            Loaded::Late(late) => Ok(late),
            _ => Err(mixed_up(segment)),
        }
    }
}

/// A part of another type than its name says: the cache is filled here only, by the same names.
fn mixed_up(segment: u32) -> IndexError {
    IndexError::Damaged { segment, what: "its parts are mixed up in memory" }
}

/// Whose private values an entry says were destroyed; none where it is no ERASURE entry.
fn erased(entry: &[u8]) -> Vec<IndexRange> {
    // As an encoder writes it, the kind comes first: the others are not decoded for this.
    if !entry.starts_with(&[1 << 3, Kind::Erasure as u8]) {
        return Vec::new();
    }
    match Entry::decode(entry) {
        Ok(entry) if entry.kind() == Kind::Erasure => entry.erased,
        _ => Vec::new(),
    }
}
