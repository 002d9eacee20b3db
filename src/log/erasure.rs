//! Erasure: private values are destroyed, and the log says so in an entry of its own.
//!
//! ```text
//!   1 intend     file `erasing`: the entry to come, synced          a crash from here on is made up for at the next start:
//!   2 destroy    shred keys overwritten where they lie, synced        the steps are done again, and leave out what was done
//!   3 append     KIND_ERASURE, durable
//!   4 remove     the halves, to make room
//!   5 forget     `erasing` removed
//! ```
//!
//! So the log never says of values that they are erased while they can be opened (3 is after 2), and never forgets one
//! that was (1 is before 2). Between 2 and 3 they are gone and the log does not say so yet; the file does.
//!
//! What is erased are K and the values of an entry's private half: nobody can open its commitment any more, and
//! without K not even guess. The entry itself stays, and with it the tree. Values in older copies of the data folder
//! are beyond this: a copy has its own shred keys.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use super::entry::IndexRange;
use super::entry::{Draft, Entry, ExchangeKey, Kind, Publication, Record};
use super::error::{AppendError, LogError};
use super::hidden;
use super::shared::{Shared, open_half};
use super::store::Store;

/// The file of intention in the data folder.
pub(super) const FILE: &str = "erasing";

const MAGIC: &[u8] = b"kopuro erasing v1\n";
/// What one ERASURE entry speaks of at most.
const MOST_RANGES: usize = 2_000;
const MOST_ENTRIES: u64 = 32_768;
const READ_AT_ONCE: usize = 1_024;
const DAY_MS: i64 = 86_400_000;

/// Whose private values are erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All entries of these exchanges that are kept here; of pruned ones, name the entries.
    Exchanges(Vec<Uuid>),
    /// Entries made before this time, Unix milliseconds; a delayed one only when its delay was over by then.
    Before(i64),
    /// These entries.
    Entries(Vec<IndexRange>),
}

/// What is to be erased, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whose values.
    pub whose: Whose,
    /// Code of the legal basis, published in the entry.
    pub legal_basis: String,
    /// Reason, UPPER_SNAKE_CASE, published in the entry.
    pub reason: String,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Of how many entries the private values were destroyed now.
    pub entries: u64,
    /// Indices of the entries that say so.
    pub recorded: Vec<u64>,
}

/// How an entry gets into the log: waits until it is durable.
pub(super) type Append<'a> = &'a mut dyn FnMut(Record) -> Result<u64, AppendError>;

impl Shared {
    /// Erases. Blocks for as long as it takes.
    pub(super) fn erase(&self, erasure: &Erasure, now_unix_ms: i64, append: Append<'_>) -> Result<Erased, LogError> {
        let _turn = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is destroyed that the log could not say is.
        if self.held.load(Ordering::Acquire) {
            return Err(LogError::ErasureIncomplete("the log was restored and is not confirmed yet".into()));
        }
        let mut erased = Erased::default();
        erased.recorded.extend(self.resume_erasure(append)?);
        let mut from = 0;
        loop {
            let (ranges, next) = self.choose(&erasure.whose, from)?;
            if !ranges.is_empty() {
                erased.entries += ranges.iter().map(|range| range.count).sum::<u64>();
                let entry = Entry {
                    kind: Kind::Erasure.into(),
                    time_unix_ms: now_unix_ms,
                    legal_basis: erasure.legal_basis.clone(),
                    reason: erasure.reason.clone(),
                    erased: ranges,
                    ..Entry::default()
                };
                write_intention(&self.folder, self.size(), &entry)?;
                erased.recorded.push(self.carry_out(&entry, append)?);
            }
            match next {
                Some(next) => from = next,
                None => return Ok(erased),
            }
        }
    }

    /// Carries out an erasure that was broken off; the index of the entry that says so.
    pub(super) fn resume_erasure(&self, append: Append<'_>) -> Result<Option<u64>, LogError> {
        let Some((size, entry)) = read_intention(&self.folder)? else { return Ok(None) };
        let said = self.said_already(size, &entry)?;
        tracing::info!(said = said.is_some(), "an erasure that was broken off is carried out");
        if let Some(index) = said {
            self.clear_away(&entry)?;
            return Ok(Some(index));
        }
        self.carry_out(&entry, append).map(Some)
    }

    /// Steps 2 to 5.
    fn carry_out(&self, entry: &Entry, append: Append<'_>) -> Result<u64, LogError> {
        let each = |range: &IndexRange| self.with_store(|store| store.destroy_keys(range.first, range.count));
        entry.erased.iter().try_for_each(each)?;
        let mut draft = Draft::new(Kind::Erasure, Uuid::nil(), entry.time_unix_ms, &ExchangeKey::generate());
        draft.publication = Publication::Public;
        draft.legal_basis.clone_from(&entry.legal_basis);
        draft.reason.clone_from(&entry.reason);
        draft.erased.clone_from(&entry.erased);
        let mut record = draft.seal();
        // It commits to nothing, so it keeps nothing: else a term would erase erasures for ever.
        record.private = Zeroizing::default();
        let index = append(record).map_err(|error| LogError::ErasureIncomplete(error.to_string()))?;
        self.clear_away(entry)?;
        let count: u64 = entry.erased.iter().map(|range| range.count).sum();
        metrics::counter!("kopuro_log_erased_total").increment(count);
        tracing::info!(entries = count, index, "private values were erased");
        Ok(index)
    }

    /// Steps 4 and 5.
    fn clear_away(&self, entry: &Entry) -> Result<(), LogError> {
        let size = self.size();
        for range in &entry.erased {
            self.with_store(|store| store.remove_halves(range.first, range.count, size))?;
        }
        forget_intention(&self.folder)?;
        let from = self.private_from.load(Ordering::Relaxed);
        let first = self.first_unerased(from)?.unwrap_or(size);
        self.private_from.store(first, Ordering::Relaxed);
        Ok(())
    }

    /// The first index from this one on whose private half was not erased.
    fn first_unerased(&self, mut from: u64) -> Result<Option<u64>, LogError> {
        let size = self.size();
        while from < size {
            let until = size.min(from + MOST_ENTRIES);
            let mut found = None;
            self.with_store(|store| {
                store.each_key(from, until, &mut |index, slot| {
                    if found.is_none() && !slot.is_spent() {
                        found = Some(index);
                    }
                    Ok(())
                })
            })?;
            if found.is_some() {
                return Ok(found);
            }
            from = until;
        }
        Ok(None)
    }

    /// Where the log has this erasure's entry, if it has it: not before it was intended.
    fn said_already(&self, size_then: u64, entry: &Entry) -> Result<Option<u64>, LogError> {
        let mut found = None;
        let mut at = size_then.max(self.first());
        self.each_entry(&mut at, |index, bytes| {
            // Hidden entries are none of ours.
            let is_it = Entry::decode(bytes).is_ok_and(|other| {
                other.kind() == Kind::Erasure
                    && other.time_unix_ms == entry.time_unix_ms
                    && other.erased == entry.erased
            });
            found = is_it.then_some(index);
            Ok(!is_it)
        })?;
        Ok(found)
    }

    /// The next entries whose values are to be erased and are not yet, as many as one ERASURE entry speaks of, and where
    /// to go on.
    fn choose(&self, whose: &Whose, from: u64) -> Result<(Vec<IndexRange>, Option<u64>), LogError> {
        let mut chosen = Chosen::default();
        let size = self.size();
        let mut at = from.max(self.private_from.load(Ordering::Relaxed));
        match whose {
            Whose::Entries(ranges) => {
                for range in ranges {
                    let end = range.first.saturating_add(range.count).min(size);
                    let mut next = range.first.max(at);
                    while next < end {
                        let until = end.min(next + MOST_ENTRIES);
                        self.choose_unerased(next, until, &mut chosen)?;
                        next = until;
                        if chosen.is_full() {
                            return Ok((chosen.ranges, Some(next)));
                        }
                    }
                }
                return Ok((chosen.ranges, None));
            }
            Whose::Before(time) => {
                // Of pruned entries it is known by day.
                let base = self.base();
                let (first, day) = (self.first(), time.div_euclid(DAY_MS));
                let days = base.iter().flat_map(|base| &base.days);
                let until = days.filter(|(made, _)| *made < day).map(|(_, end)| *end).max().unwrap_or(0);
                while at < until {
                    let to = until.min(at + MOST_ENTRIES);
                    self.choose_unerased(at, to, &mut chosen)?;
                    at = to;
                    if chosen.is_full() {
                        return Ok((chosen.ranges, Some(at)));
                    }
                }
                at = at.max(first);
            }
            Whose::Exchanges(_) => at = at.max(self.first()),
        }
        self.each_entry(&mut at, |index, bytes| {
            let Some(entry) = self.whole(index, bytes) else { return Ok(true) };
            let is_meant = match whose {
                Whose::Exchanges(ids) => ids.iter().any(|id| id.as_bytes()[..] == entry.exchange_id[..]),
                // Entries come in the order of their time, but for what passed each other in the queue.
                Whose::Before(time) if entry.time_unix_ms >= *time && entry.time_unix_ms > 0 => return Ok(false),
                Whose::Before(time) => hidden::due_unix_ms(&entry).unwrap_or(entry.time_unix_ms) < *time,
                Whose::Entries(_) => false,
            };
            if is_meant {
                self.choose_unerased(index, index + 1, &mut chosen)?;
            }
            Ok(!chosen.is_full())
        })?;
        let next = (chosen.is_full() && at < size).then_some(at);
        Ok((chosen.ranges, next))
    }

    fn choose_unerased(&self, from: u64, until: u64, chosen: &mut Chosen) -> Result<(), LogError> {
        self.with_store(|store| {
            store.each_key(from, until, &mut |index, slot| {
                if !slot.is_spent() {
                    chosen.add(index);
                }
                Ok(())
            })
        })
    }

    fn whole(&self, index: u64, bytes: Bytes) -> Option<Entry> {
        self.with_store(|store| Ok(self.whole_in(store, index, bytes))).ok().flatten()
    }

    /// An entry with the fields that it hides, where they can still be known.
    pub(super) fn whole_in(&self, store: &dyn Store, index: u64, bytes: Bytes) -> Option<Entry> {
        let private = hidden::is_hidden(&bytes).then(|| open_half(store, &self.seal, index).ok()).flatten();
        let seen = hidden::Seen::new(bytes, private.as_ref().map(|private| &private[..]));
        Entry::decode(seen.whole()).ok()
    }

    /// Shows the entries from `at` on, until the end or until it is told that it is enough; `at` is then the next.
    pub(super) fn each_entry(
        &self,
        at: &mut u64,
        mut show: impl FnMut(u64, Bytes) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let size = self.size();
        while *at < size {
            for entry in self.read(*at, size, READ_AT_ONCE, super::READ_BYTES)? {
                let index = *at;
                *at += 1;
                if !show(index, entry)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What one ERASURE entry is to speak of.
#[derive(Default)]
struct Chosen {
    ranges: Vec<IndexRange>,
    entries: u64,
}

impl Chosen {
    fn add(&mut self, index: u64) {
        self.entries += 1;
        match self.ranges.last_mut() {
            Some(last) if last.first + last.count == index => last.count += 1,
            _ => self.ranges.push(IndexRange { first: index, count: 1 }),
        }
    }

    fn is_full(&self) -> bool {
        self.ranges.len() >= MOST_RANGES || self.entries >= MOST_ENTRIES
    }
}

fn write_intention(folder: &Path, size: u64, entry: &Entry) -> Result<(), LogError> {
    let entry = entry.encode_to_vec();
    let mut content = MAGIC.to_vec();
    content.extend_from_slice(&size.to_be_bytes());
    content.extend_from_slice(&(entry.len() as u32).to_be_bytes());
    content.extend_from_slice(&entry);
    let digest = Sha256::digest(&content);
    content.extend_from_slice(&digest);
    let (path, new) = (folder.join(FILE), folder.join("erasing.new"));
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = open.and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()));
    written.and_then(|()| std::fs::rename(&new, &path)).map_err(LogError::io(&path))?;
    sync_folder(folder)
}

/// The erasure that was broken off, if one was: how large the log was then, and the entry to come.
fn read_intention(folder: &Path) -> Result<Option<(u64, Entry)>, LogError> {
    let path = folder.join(FILE);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io(path)(error)),
    };
    let read = || {
        let (body, digest) = content.split_last_chunk::<32>()?;
        let (size, rest) = body.strip_prefix(MAGIC)?.split_first_chunk()?;
        let (length, entry) = rest.split_first_chunk()?;
        let whole = u32::from_be_bytes(*length) as usize == entry.len() && Sha256::digest(body)[..] == *digest;
        Some((u64::from_be_bytes(*size), Entry::decode(entry).ok().filter(|_| whole)?))
    };
    // It was renamed to its name whole: this is damage, and nobody could say what was to be erased.
    let damaged = || LogError::ErasureIncomplete(format!("{} is damaged", path.display()));
    read().map(Some).ok_or_else(damaged)
}

fn forget_intention(folder: &Path) -> Result<(), LogError> {
    let path = folder.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LogError::io(path)(error)),
        _ => sync_folder(folder),
    }
}

fn sync_folder(folder: &Path) -> Result<(), LogError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::io(folder))
}
