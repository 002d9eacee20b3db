//! Which exchanges concerned whom: for each segment one sorted array of pseudonyms with the openings that had the
//! subject. A pseudonym is a keyed hash ([`super::Pseudonym`]): the files alone name nobody.
//!
//! Made from the private halves when it is first asked for, segment by segment, and kept as `<number>.sub` beside the
//! segment; a node that nobody asks never pays for it. Like all of the index it may be deleted at any time.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Instant;

use super::file::{Header, Ids, Sealed, Sections};
use super::segments::Shared;
use super::{IndexError, Page, Pseudonym, file};
use crate::log::entry::Slot;
use crate::log::hidden::Private;

/// Private halves opened in one go.
const BATCH: usize = 512;

/// The segment in memory, as far as its subjects have been found out.
#[derive(Debug, Default)]
pub(super) struct CurrentSubjects {
    segment: u32,
    /// How many of its entries have been read.
    read: u32,
    rows: Vec<(Pseudonym, u16)>,
}

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
        for segment in (0..=(to - 1) / self.capacity()).rev() {
            let start = segment * self.capacity();
            let mut found = self.subject_in(u32::try_from(segment).unwrap_or(u32::MAX), pseudonym)?;
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.dedup();
            for opening in found.into_iter().map(|offset| start + u64::from(offset)).filter(|opening| *opening < to) {
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

    /// Offsets of openings in one segment.
    fn subject_in(&self, segment: u32, pseudonym: &Pseudonym) -> Result<Vec<u32>, IndexError> {
        let mut current = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if (segment as usize) < self.state().sealed.len() {
            let sealed = self.sealed(segment)?;
            return Ok(self.subjects_of(&sealed)?.find(pseudonym));
        }
        if current.segment != segment {
            *current = CurrentSubjects { segment, ..CurrentSubjects::default() };
        }
        let start = u64::from(segment) * self.capacity();
        let (openings, end) = {
            let state = self.state();
            let here = state.current.number == segment;
            (here.then(|| state.current.openings().clone()), state.current.end())
        };
        let Some(openings) = openings else {
            // Sealed this very moment: it has its own file from now on.
            let sealed = self.sealed(segment)?;
            return Ok(self.subjects_of(&sealed)?.find(pseudonym));
        };
        let found = self.read_subjects(start + u64::from(current.read), end)?;
        current.rows.extend(found.iter().filter(|(_, offset)| openings.contains(u32::from(*offset))));
        current.read = (end - start) as u32;
        Ok(current.rows.iter().filter(|(other, _)| other == pseudonym).map(|(_, at)| u32::from(*at)).collect())
    }

    /// The array of a sealed segment, from its file; made where there is none that fits.
    fn subjects_of(&self, sealed: &Sealed) -> Result<Ids, IndexError> {
        let header = &sealed.header;
        let path = self.subjects_path(header.number);
        // A file that another key made answers nothing: this tells.
        let probe = self.source.pseudonym(b"").ok_or(IndexError::NoKey)?;
        let kept = Sealed::open_file(path.clone(), header.number).and_then(|kept| {
            let fits = kept.header.last_leaf == header.last_leaf && kept.header.min_id == probe;
            if fits { kept.ids() } else { Err(kept.damaged("it is of another log or key")) }
        });
        match kept {
            Ok(ids) => return Ok(ids),
            Err(IndexError::Damaged { .. }) => {}
            Err(other) => return Err(other),
        }
        let openings = self.openings(sealed)?;
        let mut rows = self.read_subjects(header.first, header.first + u64::from(header.entries))?;
        rows.retain(|(_, offset)| openings.contains(u32::from(*offset)));
        rows.sort_unstable();
        let mut sections = Sections::default();
        let ids = Some(sections.ids(&rows));
        let about = Header {
            number: header.number,
            first: header.first,
            entries: header.entries,
            last_leaf: header.last_leaf.clone(),
            min_id: probe.to_vec(),
            ids,
            ..Header::default()
        };
        // A folder that takes no file answers all the same; only the next question costs as much again.
        if let Err(error) = file::write(&path, &sections.into_file(&about)) {
            tracing::warn!(%error, "the index of subjects cannot be kept");
        }
        Ok(Ids::new(&rows))
    }

    /// Pseudonyms of the entries in a range that have a subject, with their offsets in the segment.
    fn read_subjects(&self, from: u64, to: u64) -> Result<Vec<(Pseudonym, u16)>, IndexError> {
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
                let private = private.as_ref().and_then(|private| Private::read(private));
                if let Some(subject) = private.and_then(|private| private.value(Slot::Subject))
                    && let Some(pseudonym) = self.source.pseudonym(subject)
                {
                    // Under 65,536 by the modulus.
                    rows.push((pseudonym, (at % self.capacity()) as u16));
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
