//! The segment in memory: takes entries one by one, answers like a sealed one, and becomes a file when it is full.
//!
//! An exchange that opened in an earlier segment and goes on here cannot be written there any more. Its later entries
//! are kept here, in the *late* table, under the index of the opening; the exchanges still open when the segment is
//! full are carried over to the next.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::entry::{Facts, Progress};
use super::file::{Carried, DelayedTable, Header, LateTable, Sections};
use super::subjects;
use crate::log::entry::{Kind, Outcome};
use crate::log::hidden::Seen;
use crate::log::tree::Hash;

/// What openings are indexed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dimension {
    Consumer,
    ConsumerMember,
    Provider,
    ProviderMember,
    /// `consumer -> provider`: for counting.
    Pair,
    Service,
    Method,
    LegalBasis,
    /// Number of the class.
    Publication,
    /// UTC day, as 2026-11-24.
    Day,
    /// Number of the kind.
    Kind,
    /// How it ended: number of the outcome.
    Outcome,
    /// Why it was refused or failed.
    Reason,
}

impl Dimension {
    /// In the order of their numbers, which is that of the file's dictionaries.
    pub(super) const ALL: [Self; DIMENSIONS] = [
        Self::Consumer,
        Self::ConsumerMember,
        Self::Provider,
        Self::ProviderMember,
        Self::Pair,
        Self::Service,
        Self::Method,
        Self::LegalBasis,
        Self::Publication,
        Self::Day,
        Self::Kind,
        Self::Outcome,
        Self::Reason,
    ];
}

/// How many dimensions there are.
const DIMENSIONS: usize = 13;
/// The dimensions that a route (who asks whom for what) settles: the first ones.
const ROUTE: usize = 8;
/// The most exchanges carried over; beyond, the oldest are given up: what comes of them later stands alone.
const MAX_CARRIED: usize = 65_536;
/// No value in this dimension.
const NONE: u32 = u32::MAX;
const DAY_MS: i64 = 86_400_000;

/// An exchange that is not at its end.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) opening: u64,
    /// Its latest entry.
    last: u64,
    progress: Progress,
    reason: String,
}

/// Values of one dimension, each with its openings.
#[derive(Debug, Default)]
struct Values {
    numbers: HashMap<Box<str>, u32>,
    bitmaps: Vec<RoaringBitmap>,
}

impl Values {
    fn number(&mut self, value: &str) -> u32 {
        if value.is_empty() {
            return NONE;
        }
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        // At most 65,536 values: one per entry.
        let number = u32::try_from(self.bitmaps.len()).unwrap_or(NONE);
        self.numbers.insert(value.into(), number);
        self.bitmaps.push(RoaringBitmap::new());
        number
    }

    fn insert(&mut self, number: u32, offset: u32) {
        if let Some(bitmap) = self.bitmaps.get_mut(number as usize) {
            bitmap.insert(offset);
        }
    }
}

/// The newest segment.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) number: u32,
    /// Index of its first entry.
    pub(super) first: u64,
    capacity: u32,
    values: [Values; DIMENSIONS],
    routes: HashMap<Box<str>, [u32; ROUTE]>,
    route: String,
    day: (i64, u32),
    openings: RoaringBitmap,
    /// Exchange ids of openings, with their offsets.
    ids: Vec<([u8; 16], u16)>,
    /// Of every entry.
    times: Vec<i64>,
    /// For each entry the offset of the next one of its exchange; 0 is none.
    next: Vec<u16>,
    open: HashMap<[u8; 16], Open>,
    /// (opening, offset here) of entries whose exchange opened in an earlier segment; how it ended, where it did.
    late: BTreeMap<(u64, u16), (Outcome, String)>,
    pub(super) delayed: DelayedTable,
    /// Entries whose fields stay hidden.
    pub(super) hidden: u32,
    last_leaf: Hash,
}

impl Builder {
    /// An empty segment, with the exchanges that the one before left open.
    pub(super) fn new(number: u32, capacity: u32, carried: Vec<Carried>) -> Self {
        let open = carried.into_iter().filter_map(|carried| {
            let outcome = Outcome::try_from(carried.outcome).unwrap_or_default();
            let progress = Progress::from_parts(carried.open_sides, outcome);
            let id: [u8; 16] = carried.exchange_id.as_slice().try_into().ok()?;
            Some((id, Open { opening: carried.opening, last: carried.opening, progress, reason: carried.reason }))
        });
        Self {
            number,
            first: u64::from(number) * u64::from(capacity),
            capacity,
            values: std::array::from_fn(|_| Values::default()),
            routes: HashMap::new(),
            route: String::new(),
            day: (i64::MIN, NONE),
            openings: RoaringBitmap::new(),
            ids: Vec::new(),
            times: Vec::new(),
            next: Vec::new(),
            open: open.collect(),
            late: BTreeMap::new(),
            delayed: DelayedTable::default(),
            hidden: 0,
            last_leaf: Hash::of_nothing(),
        }
    }

    /// Index of the entry that it takes next.
    pub(super) fn end(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    /// How many more entries it takes.
    pub(super) fn room(&self) -> usize {
        (self.capacity as usize).saturating_sub(self.times.len())
    }

    /// Takes the entry at [`Self::end`]. One that cannot be read has its place and is not indexed.
    pub(super) fn add(&mut self, seen: &Seen) {
        let index = self.end();
        // At most 65,535: the segment's length is checked when the index is opened, and room() before each entry.
        let offset = u16::try_from(self.times.len()).unwrap_or(u16::MAX);
        let entry = seen.whole();
        let facts = Facts::read(&entry);
        self.times.push(facts.map_or(0, |facts| facts.time_unix_ms));
        self.next.push(0);
        if self.room() == 0 {
            self.last_leaf = Hash::of_leaf(&seen.entry);
        }
        let Some(facts) = facts else { return };
        if let Some(opened) = facts.opened {
            self.delayed.opened.push(opened);
        }
        if seen.stays_hidden() {
            self.hidden += 1;
        } else if seen.hidden.is_some()
            && let Some(due) = facts.due_unix_ms()
        {
            self.delayed.push(u32::from(offset), due);
        }
        let Some(id) = facts.of_exchange() else { return };
        if let Some(open) = self.open.get_mut(&id) {
            let last = std::mem::replace(&mut open.last, index);
            if open.progress.add(facts.kind, facts.outcome) {
                facts.reason.clone_into(&mut open.reason);
            }
            let (opening, ended, outcome) = (open.opening, !open.progress.is_open(), open.progress.outcome());
            let reason = if ended { std::mem::take(&mut open.reason) } else { String::new() };
            if ended {
                self.open.remove(&id);
            }
            match opening.checked_sub(self.first) {
                Some(opening) => {
                    if let Some(next) = self.next.get_mut((last.saturating_sub(self.first)) as usize) {
                        *next = offset;
                    }
                    if ended {
                        self.end_of(opening as u32, outcome, &reason);
                    }
                }
                None => drop(self.late.insert((opening, offset), (outcome, reason))),
            }
        } else {
            self.opens(id, &facts, index, offset);
        }
    }

    fn opens(&mut self, id: [u8; 16], facts: &Facts<'_>, index: u64, offset: u16) {
        let at = u32::from(offset);
        self.openings.insert(at);
        self.ids.push((id, offset));
        let route = self.route_of(facts);
        for (values, number) in self.values.iter_mut().zip(route) {
            values.insert(number, at);
        }
        let day = facts.time_unix_ms.div_euclid(DAY_MS);
        if self.day.0 != day {
            self.day = (day, self.values[Dimension::Day as usize].number(&day_label(day)));
        }
        self.values[Dimension::Day as usize].insert(self.day.1, at);
        self.insert_number(Dimension::Publication, facts.publication, at);
        self.insert_number(Dimension::Kind, facts.kind.into(), at);

        let mut progress = Progress::default();
        progress.add(facts.kind, facts.outcome);
        if progress.is_open() {
            let reason = facts.reason.to_owned();
            self.open.insert(id, Open { opening: index, last: index, progress, reason });
        } else {
            self.end_of(at, progress.outcome(), facts.reason);
        }
    }

    /// The numbers of who asks whom for what: looked up together, since the same few come again and again.
    fn route_of(&mut self, facts: &Facts<'_>) -> [u32; ROUTE] {
        self.route.clear();
        for part in [facts.consumer, facts.provider, facts.service, facts.method, facts.legal_basis] {
            self.route.push_str(part);
            self.route.push('\0');
        }
        if let Some(numbers) = self.routes.get(self.route.as_str()) {
            return *numbers;
        }
        let pair = format!("{} -> {}", facts.consumer, facts.provider);
        let values: [&str; ROUTE] = [
            facts.consumer,
            member_of(facts.consumer),
            facts.provider,
            member_of(facts.provider),
            &pair,
            facts.service,
            facts.method,
            facts.legal_basis,
        ];
        let mut numbers = [NONE; ROUTE];
        for ((number, values), value) in numbers.iter_mut().zip(&mut self.values).zip(values) {
            *number = values.number(value);
        }
        self.routes.insert(self.route.as_str().into(), numbers);
        numbers
    }

    fn end_of(&mut self, opening: u32, outcome: Outcome, reason: &str) {
        if outcome != Outcome::Unspecified {
            self.insert_number(Dimension::Outcome, outcome.into(), opening);
        }
        let values = &mut self.values[Dimension::Reason as usize];
        let number = values.number(reason);
        values.insert(number, opening);
    }

    fn insert_number(&mut self, dimension: Dimension, value: i32, offset: u32) {
        let values = &mut self.values[dimension as usize];
        let number = if (0..10).contains(&value) {
            // The usual ones, without allocating.
            let digit = [b'0' + value as u8];
            values.number(std::str::from_utf8(&digit).unwrap_or_default())
        } else {
            values.number(&value.to_string())
        };
        values.insert(number, offset);
    }

    /// Openings with this value.
    pub(super) fn bitmap(&self, dimension: Dimension, value: &str) -> Option<&RoaringBitmap> {
        let values = &self.values[dimension as usize];
        values.bitmaps.get(*values.numbers.get(value)? as usize)
    }

    /// All values of a dimension with their openings.
    pub(super) fn all(&self, dimension: Dimension) -> impl Iterator<Item = (&str, &RoaringBitmap)> {
        let values = &self.values[dimension as usize];
        values.numbers.iter().filter_map(|(name, number)| Some((&**name, values.bitmaps.get(*number as usize)?)))
    }

    /// All openings.
    pub(super) fn openings(&self) -> &RoaringBitmap {
        &self.openings
    }

    /// When an entry was made.
    pub(super) fn time(&self, offset: u32) -> Option<i64> {
        self.times.get(offset as usize).copied()
    }

    /// Offsets of openings with this exchange id.
    pub(super) fn find<'s>(&'s self, id: &'s [u8; 16]) -> impl Iterator<Item = u32> + 's {
        self.ids.iter().filter(move |(other, _)| other == id).map(|(_, offset)| u32::from(*offset))
    }

    /// The offset of the next entry of the same exchange in this segment.
    pub(super) fn next(&self, offset: u32) -> Option<u32> {
        self.next.get(offset as usize).copied().filter(|next| *next > 0).map(u32::from)
    }

    /// For each entry, what a row of the index of subjects names.
    pub(super) fn named(&self) -> Vec<Option<u16>> {
        let late = self.late(0..self.first).map(|(_, index, ..)| (index - self.first) as u32);
        subjects::named(self.times.len(), &self.openings, |offset| self.next(offset), late)
    }

    /// Later entries of exchanges that opened in this range of indices: the opening, the entry's index, how it ended.
    pub(super) fn late(
        &self,
        openings: std::ops::Range<u64>,
    ) -> impl Iterator<Item = (u64, u64, Outcome, &str)> + use<'_> {
        let range = (openings.start, 0)..(openings.end, 0);
        self.late.range(range).map(|((opening, offset), (outcome, reason))| {
            (*opening, self.first + u64::from(*offset), *outcome, reason.as_str())
        })
    }

    /// Indices of the openings of all exchanges that are open, in no order.
    pub(super) fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.values().map(|open| open.opening)
    }

    /// The file of a full segment.
    pub(super) fn seal(&self) -> (Header, Vec<u8>) {
        let mut sections = Sections::default();
        let mut header = Header {
            number: self.number,
            first: self.first,
            entries: self.capacity,
            last_leaf: self.last_leaf.0.to_vec(),
            hidden: self.hidden,
            ..Header::default()
        };
        for (dimension, values) in header.dimensions_mut(DIMENSIONS).iter_mut().zip(&self.values) {
            let mut names: Vec<(&str, u32)> = values.numbers.iter().map(|(name, number)| (&**name, *number)).collect();
            names.sort_unstable();
            for (name, number) in names {
                if let Some(bitmap) = values.bitmaps.get(number as usize) {
                    dimension.push(name, bitmap, &mut sections);
                }
            }
        }
        header.openings = Some(sections.bitmap(&self.openings));
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        header.min_id = ids.first().map(|(id, _)| id.to_vec()).unwrap_or_default();
        header.max_id = ids.last().map(|(id, _)| id.to_vec()).unwrap_or_default();
        header.ids = Some(sections.ids(&ids));
        let opened = self.openings.iter().filter_map(|offset| self.time(offset));
        let (min, max) = opened.fold((i64::MAX, i64::MIN), |(min, max), time| (min.min(time), max.max(time)));
        (header.min_time, header.max_time) = (min, max);
        header.times = Some(sections.times(&self.times));
        header.next = Some(sections.numbers(&self.next));
        header.late = Some(sections.message(&self.late_table()));
        header.carried = Some(sections.carried(self.carried()));
        header.delayed = Some(sections.message(&self.delayed));
        let file = sections.into_file(&header);
        (header, file)
    }

    /// The late table as it is sealed.
    pub(super) fn late_table(&self) -> LateTable {
        let mut table = LateTable::default();
        for (opening, index, outcome, reason) in self.late(0..self.first) {
            table.push(opening, index, outcome, reason);
        }
        table
    }

    /// The exchanges that are open, oldest first.
    pub(super) fn carried(&self) -> Vec<Carried> {
        let mut carried: Vec<Carried> = self
            .open
            .iter()
            .map(|(id, open)| {
                let (open_sides, outcome) = open.progress.parts();
                let (opening, reason) = (open.opening, open.reason.clone());
                Carried { exchange_id: id.to_vec(), opening, open_sides, outcome: outcome.into(), reason }
            })
            .collect();
        carried.sort_unstable_by_key(|carried| carried.opening);
        let given_up = carried.len().saturating_sub(MAX_CARRIED);
        carried.split_off(given_up)
    }
}

/// The member of a system, node or auditor: the first three segments; empty where there are fewer.
fn member_of(identity: &str) -> &str {
    let mut slashes = identity.match_indices('/');
    match (slashes.next(), slashes.next(), slashes.next()) {
        (Some(_), Some(_), Some((end, _))) => &identity[..end],
        (Some(_), Some(_), None) => identity,
        _ => "",
    }
}

fn day_label(day: i64) -> String {
    let start = day.checked_mul(DAY_MS / 1_000).and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    start.map(|start| start.date().to_string()).unwrap_or_default()
}

/// The dictionary key of a number: a kind, an outcome, a class.
pub(super) fn number_key(number: i32) -> String {
    number.to_string()
}

/// The dictionary key of auditors' looks.
pub(super) fn audit_key() -> String {
    number_key(Kind::Audit.into())
}
