//! Which exchanges concerned whom: for each segment sorted rows of pseudonyms, of everybody whom one of its entries names as a
//! subject. A pseudonym is a keyed hash ([`super::Pseudonym`]): the files alone name nobody.
//!
//! A row names the opening of the entry's exchange where that is in the same segment; an entry of an exchange that opened
//! earlier it names itself, and the late table leads from there. So every row follows from its own segment, and an answer still
//! goes by openings.
//!
//! Made from the private halves when it is first asked for, segment by segment, and kept as `<number>.sub` beside the
//! segment; a node that nobody asks never pays for it. Like all of the index it may be deleted at any time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Instant;

use roaring::RoaringBitmap;

use super::file::{Header, Ids, Sealed, Sections};
use super::segments::Shared;
use super::{IndexError, Page, Pseudonym, file};
use crate::log::hidden::Private;

/// Private halves opened in one go.
const BATCH: usize = 512;

/// Rows are kept apart by the first byte of the pseudonym: a question reads one of so many parts.
const BUCKETS: usize = 256;

/// Pseudonym, offset.
type Row = (Pseudonym, u16);

/// The segment in memory, as far as its subjects have been found out.
#[derive(Debug, Default)]
pub(super) struct CurrentSubjects {
    segment: u32,
    /// How many of its entries have been read.
    read: u32,
    rows: Vec<Row>,
}

/// What the rows of segments name for one pseudonym, looked up once for each question.
type Looked = HashMap<u32, Vec<u32>>;

impl Shared {
    pub(super) fn of_subject(
        &self,
        pseudonym: &Pseudonym,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page, IndexError> {
        let indexed_size = self.state().current.end();
        let mut page = Page { indexed_size, ..Page::default() };
        let to = before.unwrap_or(indexed_size).min(indexed_size);
        if limit == 0 || to == 0 {
            return Ok(page);
        }
        let mut looked = Looked::new();
        for segment in (0..=(to - 1) / self.capacity()).rev() {
            let start = segment * self.capacity();
            let number = u32::try_from(segment).unwrap_or(u32::MAX);
            let mut found = self.concerned(number, pseudonym, &mut looked)?;
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.dedup();
            for opening in found.into_iter().filter(|opening| *opening < to) {
                if page.openings.len() == limit {
                    page.next = page.openings.last().copied();
                    return Ok(page);
                }
                page.openings.push(opening);
            }
            if segment > 0 && Instant::now() >= deadline {
                page.next = Some(start);
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// Openings in one segment of exchanges that concern a subject, by whichever of their entries, in no order.
    fn concerned(&self, segment: u32, pseudonym: &Pseudonym, looked: &mut Looked) -> Result<Vec<u64>, IndexError> {
        let here = self.openings_of_segment(segment);
        let (mut later, current) = {
            let state = self.state();
            (state.late_in(segment).to_vec(), state.current.number)
        };
        later.extend((current > segment).then_some(current));
        let mut found = Vec::new();
        let offsets = self.looked_up(segment, pseudonym, looked)?;
        if !offsets.is_empty() {
            let openings = self.all_openings(segment)?;
            let opened_here = offsets.iter().filter(|offset| openings.contains(**offset));
            found.extend(opened_here.map(|offset| here.start + u64::from(*offset)));
        }
        for segment in later {
            let start = self.openings_of_segment(segment).start;
            let offsets = self.looked_up(segment, pseudonym, looked)?;
            if offsets.is_empty() {
                continue;
            }
            let names = |index: u64| offsets.iter().any(|offset| start + u64::from(*offset) == index);
            let in_memory = {
                let state = self.state();
                let late = state.current.late(here.clone()).filter(|(_, index, ..)| names(*index));
                (state.current.number == segment).then(|| late.map(|(opening, ..)| opening).collect::<Vec<_>>())
            };
            match in_memory {
                Some(openings) => found.extend(openings),
                None => {
                    let late = self.late(segment)?;
                    let rows = late.rows(here.clone()).filter(|(_, index, ..)| names(*index));
                    found.extend(rows.map(|(opening, ..)| opening));
                }
            }
        }
        Ok(found)
    }

    fn looked_up<'l>(
        &self,
        segment: u32,
        pseudonym: &Pseudonym,
        looked: &'l mut Looked,
    ) -> Result<&'l [u32], IndexError> {
        use std::collections::hash_map::Entry;
        match looked.entry(segment) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.subject_in(segment, pseudonym)?)),
        }
    }

    fn all_openings(&self, segment: u32) -> Result<RoaringBitmap, IndexError> {
        {
            let state = self.state();
            if state.current.number == segment {
                return Ok(state.current.openings().clone());
            }
        }
        let sealed = self.sealed(segment)?;
        Ok((*self.openings(&sealed)?).clone())
    }

    /// What the rows of one segment name.
    fn subject_in(&self, segment: u32, pseudonym: &Pseudonym) -> Result<Vec<u32>, IndexError> {
        let mut current = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if (segment as usize) < self.state().sealed.len() {
            return self.subject_in_sealed(&*self.sealed(segment)?, pseudonym);
        }
        if current.segment != segment {
            *current = CurrentSubjects { segment, ..CurrentSubjects::default() };
        }
        let start = u64::from(segment) * self.capacity();
        let (named, end) = {
            let state = self.state();
            let here = state.current.number == segment;
            let new = here && state.current.end() > start + u64::from(current.read);
            (here.then(|| if new { state.current.named() } else { Vec::new() }), state.current.end())
        };
        let Some(named) = named else {
            // Sealed this very moment: it has its own file from now on.
            return self.subject_in_sealed(&*self.sealed(segment)?, pseudonym);
        };
        let rows = self.read_subjects(start + u64::from(current.read), end, &named)?;
        current.rows.extend(rows);
        current.read = (end - start) as u32;
        Ok(current.rows.iter().filter(|(other, _)| other == pseudonym).map(|(_, at)| u32::from(*at)).collect())
    }

    /// The same of a sealed segment, from its file; that is made where there is none that fits.
    fn subject_in_sealed(&self, sealed: &Sealed, pseudonym: &Pseudonym) -> Result<Vec<u32>, IndexError> {
        let header = &sealed.header;
        let path = self.subjects_path(header.number);
        // A file that another key made answers nothing: this tells.
        let probe = self.source.pseudonym(b"").ok_or(IndexError::NoKey)?;
        let kept = Sealed::open_file(path.clone(), header.number).and_then(|kept| {
            let of_this = kept.header.last_leaf == header.last_leaf && kept.header.min_id == probe;
            let fits = of_this && kept.header.buckets.len() == BUCKETS;
            if fits { kept.bucket(pseudonym[0]) } else { Err(kept.damaged("it is of another log, key or version")) }
        });
        match kept {
            Ok(rows) => return Ok(rows.find(pseudonym)),
            Err(IndexError::Damaged { .. }) => {}
            Err(other) => return Err(other),
        }
        let (openings, next, late) = (self.openings(sealed)?, self.next(header.number)?, self.late(header.number)?);
        let late = late.rows(0..u64::MAX).map(|(_, index, ..)| index.saturating_sub(header.first) as u32);
        // Ascending, or the file is not what was written.
        let next = |offset: u32| next.get(offset as usize).map(|next| u32::from(*next)).filter(|next| *next > offset);
        let named = named(header.entries as usize, &openings, next, late);
        let mut rows = self.read_subjects(header.first, header.first + u64::from(header.entries), &named)?;
        rows.sort_unstable();
        rows.dedup();
        let mut sections = Sections::default();
        let mut rest = rows.as_slice();
        let mut buckets = Vec::with_capacity(BUCKETS);
        for first in 0..=u8::MAX {
            let (bucket, others) = rest.split_at(rest.partition_point(|(pseudonym, _)| pseudonym[0] == first));
            buckets.push(sections.ids(bucket));
            rest = others;
        }
        let about = Header {
            number: header.number,
            first: header.first,
            entries: header.entries,
            last_leaf: header.last_leaf.clone(),
            min_id: probe.to_vec(),
            buckets,
            ..Header::default()
        };
        // A folder that takes no file answers all the same; only the next question costs as much again.
        if let Err(error) = file::write(&path, &sections.into_file(&about)) {
            tracing::warn!(%error, "the index of subjects cannot be kept");
        }
        Ok(Ids::new(&rows).find(pseudonym))
    }

    /// Rows of the entries in a range, which are all of one segment; `named` is what rows of its entries name.
    fn read_subjects(&self, from: u64, to: u64, named: &[Option<u16>]) -> Result<Vec<Row>, IndexError> {
        // Of what was pruned there is nothing left to show.
        let (mut rows, mut at) = (Vec::new(), from.max(self.source.first()));
        while at < to {
            let max = usize::try_from(to - at).unwrap_or(BATCH).min(BATCH);
            let read = self.source.read_with_private(at, max);
            let read = read.map_err(|source| IndexError::Source { from: at, source })?;
            if read.is_empty() {
                break;
            }
            for (_, private) in read.into_iter().take(max) {
                let name = named.get((at % self.capacity()) as usize).copied().flatten();
                let private = private.as_ref().and_then(|private| Private::read(private));
                if let (Some(name), Some(private)) = (name, private) {
                    let subjects = private.subjects().into_iter();
                    rows.extend(subjects.filter_map(|(_, who)| Some((self.source.pseudonym(who)?, name))));
                }
                at += 1;
            }
        }
        Ok(rows)
    }

    pub(super) fn forget_subjects(&self, first: u64, count: u64) -> Result<(), IndexError> {
        let Some(last) = count.checked_sub(1).map(|more| first.saturating_add(more)) else { return Ok(()) };
        let mut current = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        *current = CurrentSubjects::default();
        let sealed = self.state().sealed.len() as u64;
        for segment in first / self.capacity()..(last / self.capacity()).saturating_add(1).min(sealed) {
            let path = self.subjects_path(u32::try_from(segment).unwrap_or(u32::MAX));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(IndexError::io(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn subjects_path(&self, segment: u32) -> PathBuf {
        file::path(&self.options.folder, segment).with_extension("sub")
    }
}

/// For each entry of a segment, the offset that a row about it names: that of its exchange's opening where it opened here, its
/// own where it is late, none where it is of no exchange. `next` leads from an entry of an exchange that opened here to the
/// next one.
pub(super) fn named(
    entries: usize,
    openings: &RoaringBitmap,
    next: impl Fn(u32) -> Option<u32>,
    late: impl Iterator<Item = u32>,
) -> Vec<Option<u16>> {
    let mut named: Vec<Option<u16>> = vec![None; entries];
    for offset in openings.iter().chain(late) {
        if let (Some(name), Ok(offset)) = (named.get_mut(offset as usize), u16::try_from(offset)) {
            *name = Some(offset);
        }
    }
    for offset in 0..entries {
        // Under 65,536: a segment has no more entries.
        let after = next(offset as u32).map(|after| after as usize).filter(|after| *after > offset);
        if let (Some(name), Some(after)) = (named[offset], after.and_then(|after| named.get_mut(after))) {
            *after = Some(name);
        }
    }
    named
}
