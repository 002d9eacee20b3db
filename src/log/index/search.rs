//! Filters turned into bitmaps, segment by segment; pages, counts and joins over them.
//!
//! How an exchange ended is a bitmap of its opening's segment where it ended there; where it ended later, a row of the
//! late table of the segment where it did. Both are put together here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, RwLockReadGuard};
use std::time::Instant;

use roaring::RoaringBitmap;

use super::builder::{Dimension, audit_key, number_key};
use super::file::Sealed;
use super::segments::{Outline, Shared, State};
use super::{Counts, Filter, IndexError, Page, Query, Records};
use crate::log::entry::Outcome;

/// A filter, prepared: looked up once instead of per segment.
struct Plan<'f> {
    filter: &'f Filter,
    /// Values that an opening must have.
    values: Vec<(Dimension, String)>,
    /// Openings by exchange id, where the filter names one.
    openings: Option<Vec<u64>>,
    /// Sealed segments that may hold anything; none is all.
    sealed: Option<RoaringBitmap>,
}

/// An exchange's end, in a later segment than its opening.
struct Ending {
    offset: u32,
    outcome: Outcome,
    reason: String,
}

/// A segment as it is searched.
struct View<'s> {
    shared: &'s Shared,
    number: u32,
    inner: Inner<'s>,
}

enum Inner<'s> {
    Sealed {
        sealed: Arc<Sealed>,
        outline: Outline,
    },
    /// The newest segment. The state is locked: nothing here may lock it again.
    Current(RwLockReadGuard<'s, State>),
}

impl Shared {
    pub(super) fn page(&self, query: &Query) -> Result<Page, IndexError> {
        let indexed_size = self.state().current.end();
        let mut page = Page { indexed_size, ..Page::default() };
        let capacity = self.capacity();
        // A position is the index of an opening; pages go on beyond it.
        let (mut from, mut to) = (0, indexed_size);
        match query.after {
            Some(after) if query.newest_first => to = to.min(after),
            Some(after) => from = after.saturating_add(1),
            None => {}
        }
        if query.limit == 0 || from >= to {
            return Ok(page);
        }
        let plan = self.plan(&query.filter)?;
        let segments = from / capacity..=(to - 1) / capacity;
        let mut search = |segment: u64| -> Result<bool, IndexError> {
            let start = segment * capacity;
            let range = from.saturating_sub(start).min(capacity) as u32..to.saturating_sub(start).min(capacity) as u32;
            let found = match self.view(segment)? {
                Some(view) => view.matches(&plan, Some(range))?,
                None => RoaringBitmap::new(),
            };
            let room = query.limit - page.openings.len();
            let more = found.len() > room as u64;
            if query.newest_first {
                page.openings.extend(found.iter().rev().take(room).map(|offset| start + u64::from(offset)));
            } else {
                page.openings.extend(found.iter().take(room).map(|offset| start + u64::from(offset)));
            }
            if more {
                page.next = page.openings.last().copied();
            } else if Instant::now() >= query.deadline {
                // Searched up to this segment's border.
                page.next = if query.newest_first { Some(start) } else { Some(start + capacity - 1) };
            }
            Ok(page.next.is_some())
        };
        let ordered: Box<dyn Iterator<Item = u64>> =
            if query.newest_first { Box::new(segments.rev()) } else { Box::new(segments) };
        for segment in ordered {
            if search(segment)? {
                break;
            }
        }
        // Nothing is left beyond the two ends.
        if page.next.is_some_and(|next| if query.newest_first { next == 0 } else { next + 1 >= indexed_size }) {
            page.next = None;
        }
        Ok(page)
    }

    pub(super) fn counts(&self, filter: &Filter, deadline: Instant) -> Result<Counts, IndexError> {
        let indexed_size = self.state().current.end();
        let plan = self.plan(filter)?;
        let mut tally = Tally::default();
        for segment in 0..=indexed_size / self.capacity() {
            if Instant::now() >= deadline {
                return Err(IndexError::OutOfTime);
            }
            let Some(view) = self.view(segment)? else { continue };
            let found = view.matches(&plan, None)?;
            if !found.is_empty() {
                view.tally(&found, &mut tally)?;
            }
        }
        let state = self.state();
        let hidden = state.sealed.iter().map(|outline| u64::from(outline.hidden)).sum::<u64>();
        Ok(Counts { hidden: hidden + u64::from(state.current.hidden), ..tally.into_counts(indexed_size) })
    }

    fn plan<'f>(&self, filter: &'f Filter) -> Result<Plan<'f>, IndexError> {
        let mut values = Vec::new();
        let side = |text: &str, system, member| {
            if text.split('/').count() > 3 { (system, text.to_owned()) } else { (member, text.to_owned()) }
        };
        values.extend(filter.consumer.as_deref().map(|c| side(c, Dimension::Consumer, Dimension::ConsumerMember)));
        values.extend(filter.provider.as_deref().map(|p| side(p, Dimension::Provider, Dimension::ProviderMember)));
        let plain = [
            (Dimension::Service, &filter.service),
            (Dimension::Method, &filter.method),
            (Dimension::LegalBasis, &filter.legal_basis),
            (Dimension::Reason, &filter.reason),
        ];
        values.extend(plain.into_iter().filter_map(|(dimension, value)| Some((dimension, value.clone()?))));
        values.extend(filter.publication.map(|class| (Dimension::Publication, number_key(class.into()))));
        values.extend((filter.records == Records::Audits).then(|| (Dimension::Kind, audit_key())));
        if let Some(outcome) = filter.outcome.filter(|outcome| *outcome != Outcome::Unspecified) {
            values.push((Dimension::Outcome, number_key(outcome.into())));
        }
        let openings = filter.exchange_id.as_ref().map(|id| self.openings_by_id(id)).transpose()?;

        let state = self.state();
        let capacity = self.capacity();
        let segment_of = |opening: u64| u32::try_from(opening / capacity).unwrap_or(u32::MAX);
        let mut sealed: Option<RoaringBitmap> = None;
        let mut narrow = |segments: RoaringBitmap| match &mut sealed {
            Some(sealed) => *sealed &= segments,
            None => sealed = Some(segments),
        };
        for (dimension, value) in &values {
            let mut segments = state.presence(*dimension, value).cloned().unwrap_or_default();
            if matches!(dimension, Dimension::Outcome | Dimension::Reason) {
                segments.extend(state.current.late(0..u64::MAX).map(|(opening, ..)| segment_of(opening)));
            }
            narrow(segments);
        }
        if filter.outcome == Some(Outcome::Unspecified) {
            narrow(state.current.open().map(segment_of).collect());
        }
        if let Some(openings) = &openings {
            narrow(openings.iter().copied().map(segment_of).collect());
        }
        drop(state);
        Ok(Plan { filter, values, openings, sealed })
    }

    /// A segment; none where it is not there (any more).
    fn view(&self, number: u64) -> Result<Option<View<'_>>, IndexError> {
        let Ok(number) = u32::try_from(number) else { return Ok(None) };
        let state = self.state();
        let outline = state.sealed.get(number as usize).cloned();
        let inner = match outline {
            Some(outline) => {
                drop(state);
                Inner::Sealed { sealed: self.sealed(number)?, outline }
            }
            None if state.current.number == number => Inner::Current(state),
            None => return Ok(None),
        };
        Ok(Some(View { shared: self, number, inner }))
    }

    pub(super) fn openings_of_segment(&self, number: u32) -> Range<u64> {
        let start = u64::from(number) * self.capacity();
        start..start + self.capacity()
    }

    fn offset(&self, opening: u64) -> u32 {
        // Under 65,536 by the modulus.
        (opening % self.capacity()) as u32
    }

    /// Openings with this exchange id, ascending. More than one only where the id was used again.
    pub(super) fn openings_by_id(&self, id: &[u8; 16]) -> Result<Vec<u64>, IndexError> {
        let (candidates, mut found) = {
            let state = self.state();
            let held = state.sealed.iter().enumerate().filter(|(_, outline)| outline.may_hold(id));
            let candidates: Vec<u32> = held.filter_map(|(number, _)| u32::try_from(number).ok()).collect();
            let first = state.current.first;
            (candidates, state.current.find(id).map(|offset| first + u64::from(offset)).collect::<Vec<_>>())
        };
        for segment in candidates {
            let start = self.openings_of_segment(segment).start;
            found.extend(self.ids(segment)?.find(id).into_iter().map(|offset| start + u64::from(offset)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Indices of the entries of the exchange with this opening, ascending.
    pub(super) fn entries_of(&self, opening: u64) -> Result<Vec<u64>, IndexError> {
        let segment = u32::try_from(opening / self.capacity()).map_err(|_| IndexError::Full)?;
        let (start, mut offset) = (self.openings_of_segment(segment).start, self.offset(opening));
        let mut entries = vec![opening];
        let later = {
            let state = self.state();
            if opening >= state.current.end() {
                return Ok(Vec::new());
            }
            entries.extend(state.current.late(opening..opening + 1).map(|(_, index, ..)| index));
            if state.current.number == segment {
                while let Some(next) = state.current.next(offset) {
                    entries.push(start + u64::from(next));
                    offset = next;
                }
                return Ok(entries);
            }
            state.late_in(segment).to_vec()
        };
        let next = self.next(segment)?;
        // Ascending, or the file is not what was written: a circle would not end.
        while let Some(after) = next.get(offset as usize).map(|after| u32::from(*after)).filter(|after| *after > offset)
        {
            entries.push(start + u64::from(after));
            offset = after;
        }
        for segment in later {
            entries.extend(self.late(segment)?.rows(opening..opening + 1).map(|(_, index, ..)| index));
        }
        entries.sort_unstable();
        Ok(entries)
    }
}

impl View<'_> {
    /// Openings that the filter means, in a range of offsets.
    fn matches(&self, plan: &Plan<'_>, range: Option<Range<u32>>) -> Result<RoaringBitmap, IndexError> {
        let filter = plan.filter;
        let from = filter.from_unix_ms.unwrap_or(i64::MIN);
        let until = filter.until_unix_ms.unwrap_or(i64::MAX);
        let mut timed = filter.from_unix_ms.is_some() || filter.until_unix_ms.is_some();
        if let Inner::Sealed { outline, .. } = &self.inner {
            let absent = plan.sealed.as_ref().is_some_and(|sealed| !sealed.contains(self.number));
            if absent || outline.max_time < from || outline.min_time >= until {
                return Ok(RoaringBitmap::new());
            }
            timed &= outline.min_time < from || outline.max_time >= until;
        }
        let mut values = plan.values.iter();
        let mut found = match values.next() {
            Some((dimension, value)) => self.having(*dimension, value)?,
            None => self.openings()?,
        };
        for (dimension, value) in values {
            if found.is_empty() {
                return Ok(found);
            }
            found &= self.having(*dimension, value)?;
        }
        if filter.records == Records::Exchanges {
            found -= self.having(Dimension::Kind, &audit_key())?;
        }
        if filter.outcome == Some(Outcome::Unspecified) {
            found &= self.open();
        }
        if let Some(openings) = &plan.openings {
            let here = self.shared.openings_of_segment(self.number);
            let here = openings.iter().filter(|opening| here.contains(opening));
            found &= here.map(|opening| self.shared.offset(*opening)).collect::<RoaringBitmap>();
        }
        if let Some(range) = range {
            found.remove_range(..range.start);
            found.remove_range(range.end..);
        }
        if timed && !found.is_empty() {
            match &self.inner {
                Inner::Sealed { .. } => {
                    let times = self.shared.times(self.number)?;
                    found.retain(|offset| times.get(offset as usize).is_some_and(|t| (from..until).contains(t)));
                }
                Inner::Current(state) => {
                    found.retain(|offset| state.current.time(offset).is_some_and(|t| (from..until).contains(&t)));
                }
            }
        }
        Ok(found)
    }

    /// Openings with this value.
    fn having(&self, dimension: Dimension, value: &str) -> Result<RoaringBitmap, IndexError> {
        match &self.inner {
            Inner::Current(state) => Ok(state.current.bitmap(dimension, value).cloned().unwrap_or_default()),
            Inner::Sealed { sealed, .. } => {
                let stored = self.shared.bitmap(sealed, dimension, value)?;
                let mut having = stored.map(|bitmap| (*bitmap).clone()).unwrap_or_default();
                if matches!(dimension, Dimension::Outcome | Dimension::Reason) {
                    let ended = self.ended_later()?.into_iter().filter(|ending| match dimension {
                        Dimension::Outcome => number_key(ending.outcome.into()) == value,
                        _ => ending.reason == value,
                    });
                    having.extend(ended.map(|ending| ending.offset));
                }
                Ok(having)
            }
        }
    }

    fn openings(&self) -> Result<RoaringBitmap, IndexError> {
        match &self.inner {
            Inner::Current(state) => Ok(state.current.openings().clone()),
            Inner::Sealed { sealed, .. } => Ok((*self.shared.openings(sealed)?).clone()),
        }
    }

    /// Openings of exchanges that have not ended.
    fn open(&self) -> RoaringBitmap {
        let here = self.shared.openings_of_segment(self.number);
        let of = |state: &State| {
            let open = state.current.open().filter(|opening| here.contains(opening));
            open.map(|opening| self.shared.offset(opening)).collect()
        };
        match &self.inner {
            Inner::Current(state) => of(state),
            Inner::Sealed { .. } => of(&self.shared.state()),
        }
    }

    /// Ends, in later segments, of exchanges that opened here.
    fn ended_later(&self) -> Result<Vec<Ending>, IndexError> {
        if matches!(self.inner, Inner::Current(_)) {
            return Ok(Vec::new());
        }
        let here = self.shared.openings_of_segment(self.number);
        let ending = |(opening, _, outcome, reason): (u64, u64, Outcome, &str)| {
            let offset = self.shared.offset(opening);
            (outcome != Outcome::Unspecified).then(|| Ending { offset, outcome, reason: reason.to_owned() })
        };
        let (later, mut endings) = {
            let state = self.shared.state();
            let endings: Vec<Ending> = state.current.late(here.clone()).filter_map(ending).collect();
            (state.late_in(self.number).to_vec(), endings)
        };
        for segment in later {
            endings.extend(self.shared.late(segment)?.rows(here.clone()).filter_map(ending));
        }
        Ok(endings)
    }

    fn tally(&self, found: &RoaringBitmap, tally: &mut Tally) -> Result<(), IndexError> {
        tally.exchanges += found.len();
        for (dimension, counts) in tally.plain() {
            self.count(dimension, found, |name, count| add(counts, name, count))?;
        }
        self.count(Dimension::Outcome, found, |name, count| {
            let outcome =
                name.parse::<i32>().ok().and_then(|number| Outcome::try_from(number).ok()).unwrap_or_default();
            *tally.outcomes.entry(outcome).or_default() += count;
        })?;
        for ending in self.ended_later()?.into_iter().filter(|ending| found.contains(ending.offset)) {
            *tally.outcomes.entry(ending.outcome).or_default() += 1;
            if !ending.reason.is_empty() {
                add(&mut tally.reasons, &ending.reason, 1);
            }
        }
        *tally.outcomes.entry(Outcome::Unspecified).or_default() += self.open().intersection_len(found);
        Ok(())
    }

    /// How many of the openings found have each value of a dimension.
    fn count(
        &self,
        dimension: Dimension,
        found: &RoaringBitmap,
        mut add: impl FnMut(&str, u64),
    ) -> Result<(), IndexError> {
        match &self.inner {
            Inner::Current(state) => {
                state.current.all(dimension).for_each(|(name, bitmap)| add(name, bitmap.intersection_len(found)));
            }
            Inner::Sealed { sealed, .. } => {
                // Where nothing was filtered out, the dictionary has the answer.
                let all = *self.shared.openings(sealed)? == *found;
                for key in sealed.header.dimensions.get(dimension as usize).iter().flat_map(|d| &d.keys) {
                    let count = if all {
                        u64::from(key.count)
                    } else {
                        self.shared.bitmap(sealed, dimension, &key.name)?.map_or(0, |b| b.intersection_len(found))
                    };
                    add(&key.name, count);
                }
            }
        }
        Ok(())
    }
}

/// Counts in the making.
#[derive(Default)]
struct Tally {
    days: HashMap<String, u64>,
    pairs: HashMap<String, u64>,
    services: HashMap<String, u64>,
    reasons: HashMap<String, u64>,
    outcomes: HashMap<Outcome, u64>,
    exchanges: u64,
}

fn add(counts: &mut HashMap<String, u64>, name: &str, count: u64) {
    if count == 0 {
        return;
    }
    match counts.get_mut(name) {
        Some(sum) => *sum += count,
        None => drop(counts.insert(name.to_owned(), count)),
    }
}

impl Tally {
    fn plain(&mut self) -> [(Dimension, &mut HashMap<String, u64>); 4] {
        [
            (Dimension::Day, &mut self.days),
            (Dimension::Pair, &mut self.pairs),
            (Dimension::Service, &mut self.services),
            (Dimension::Reason, &mut self.reasons),
        ]
    }

    fn into_counts(self, indexed_size: u64) -> Counts {
        let frequent = |counts: HashMap<String, u64>| {
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
            counts
        };
        let mut by_day = frequent(self.days);
        by_day.sort_unstable();
        let mut by_outcome: Vec<_> = self.outcomes.into_iter().filter(|(_, count)| *count > 0).collect();
        by_outcome.sort_unstable_by_key(|(outcome, _)| *outcome as i32);
        Counts {
            by_day,
            by_pair: frequent(self.pairs),
            by_service: frequent(self.services),
            by_outcome,
            by_reason: frequent(self.reasons),
            exchanges: self.exchanges,
            hidden: 0,
            indexed_size,
        }
    }
}
