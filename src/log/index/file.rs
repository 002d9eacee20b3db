//! A sealed segment's file: written once, read in parts.
//!
//! ```text
//! "kopuro index 2\n"   header length (u32)   check (u64)   header   sections
//! ```
//!
//! The header, a protobuf message, says where each section begins, how long it is and what it must hash to; a section
//! is read whole and checked before it is believed. Integers outside the header are little-endian. The file is renamed
//! into place and not synced: what a power cut leaves of it fails its checks and is built again.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use prost::Message;
use roaring::RoaringBitmap;
use sha2::{Digest, Sha256};

use super::IndexError;
use crate::log::entry::Outcome;

/// Name and version of the format.
const MAGIC: &[u8] = b"kopuro index 2\n";
/// Magic, header length, check.
const PREFIX: usize = MAGIC.len() + 4 + 8;
/// An exchange id and an offset.
const ID: usize = 18;

/// Where a section is, from the header's end on.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Span {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint32, tag = "2")]
    len: u32,
    /// First eight bytes of its SHA-256.
    #[prost(fixed64, tag = "3")]
    check: u64,
}

/// A value of a dimension.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Key {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// How many openings have it.
    #[prost(uint32, tag = "2")]
    pub(super) count: u32,
    #[prost(message, required, tag = "3")]
    pub(super) span: Span,
}

/// The dictionary of a dimension, sorted by name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dictionary {
    #[prost(message, repeated, tag = "1")]
    pub(super) keys: Vec<Key>,
}

impl Dictionary {
    pub(super) fn push(&mut self, name: &str, bitmap: &RoaringBitmap, sections: &mut Sections) {
        let count = u32::try_from(bitmap.len()).unwrap_or(u32::MAX);
        self.keys.push(Key { name: name.into(), count, span: sections.bitmap(bitmap) });
    }

    pub(super) fn get(&self, name: &str) -> Option<(usize, &Key)> {
        let at = self.keys.binary_search_by(|key| key.name.as_str().cmp(name)).ok()?;
        Some((at, &self.keys[at]))
    }
}

/// What is known of a segment without reading its sections.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(uint64, tag = "2")]
    pub(super) first: u64,
    #[prost(uint32, tag = "3")]
    pub(super) entries: u32,
    /// Times of its openings.
    #[prost(sint64, tag = "4")]
    pub(super) min_time: i64,
    #[prost(sint64, tag = "5")]
    pub(super) max_time: i64,
    /// Exchange ids of its openings.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) min_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) max_id: Vec<u8>,
    /// Leaf hash of its last entry: a segment of another log has another.
    #[prost(bytes = "vec", tag = "8")]
    pub(super) last_leaf: Vec<u8>,
    #[prost(message, repeated, tag = "9")]
    pub(super) dimensions: Vec<Dictionary>,
    #[prost(message, optional, tag = "10")]
    pub(super) openings: Option<Span>,
    #[prost(message, optional, tag = "11")]
    pub(super) ids: Option<Span>,
    #[prost(message, optional, tag = "12")]
    pub(super) times: Option<Span>,
    #[prost(message, optional, tag = "13")]
    pub(super) next: Option<Span>,
    #[prost(message, optional, tag = "14")]
    pub(super) late: Option<Span>,
    #[prost(message, optional, tag = "15")]
    pub(super) carried: Option<Span>,
    #[prost(message, optional, tag = "16")]
    pub(super) delayed: Option<Span>,
    /// Entries whose fields stay hidden.
    #[prost(uint32, tag = "17")]
    pub(super) hidden: u32,
    /// Of a file of subjects: its rows by the first byte of the pseudonym, 256 sections of ids.
    #[prost(message, repeated, tag = "18")]
    pub(super) buckets: Vec<Span>,
}

impl Header {
    pub(super) fn dimensions_mut(&mut self, count: usize) -> &mut [Dictionary] {
        self.dimensions.resize(count, Dictionary::default());
        &mut self.dimensions
    }
}

/// Later entries of exchanges that opened in earlier segments, as columns sorted by opening and index.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LateTable {
    #[prost(uint64, repeated, tag = "1")]
    openings: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    indices: Vec<u64>,
    /// How the exchange ended with this entry; 0 where it did not.
    #[prost(int32, repeated, tag = "3")]
    outcomes: Vec<i32>,
    /// Numbers of the reasons.
    #[prost(uint32, repeated, tag = "4")]
    reasons: Vec<u32>,
    #[prost(string, repeated, tag = "5")]
    names: Vec<String>,
}

impl LateTable {
    pub(super) fn push(&mut self, opening: u64, index: u64, outcome: Outcome, reason: &str) {
        let known = self.names.iter().position(|name| name == reason);
        let number = known.unwrap_or_else(|| {
            self.names.push(reason.into());
            self.names.len() - 1
        });
        self.openings.push(opening);
        self.indices.push(index);
        self.outcomes.push(outcome.into());
        self.reasons.push(u32::try_from(number).unwrap_or(u32::MAX));
    }

    /// Rows of exchanges that opened in this range: the opening, the entry's index, how it ended.
    pub(super) fn rows(&self, openings: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u64, Outcome, &str)> {
        let from = self.openings.partition_point(|opening| *opening < openings.start);
        let to = self.openings.partition_point(|opening| *opening < openings.end);
        (from..to).filter_map(|row| {
            let outcome = Outcome::try_from(*self.outcomes.get(row)?).unwrap_or_default();
            let reason = self.names.get(*self.reasons.get(row)? as usize)?;
            Some((self.openings[row], *self.indices.get(row)?, outcome, reason.as_str()))
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.openings.len() * 24 + self.names.iter().map(|name| name.len() + 24).sum::<usize>()
    }
}

/// Delayed entries of a segment, and which entries it opens.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DelayedTable {
    /// Offsets of delayed entries, ascending.
    #[prost(uint32, repeated, tag = "1")]
    offsets: Vec<u32>,
    /// When each is due.
    #[prost(sint64, repeated, tag = "2")]
    due: Vec<i64>,
    /// Indices of entries that entries here open, of this segment and of earlier ones.
    #[prost(uint64, repeated, tag = "3")]
    pub(super) opened: Vec<u64>,
}

impl DelayedTable {
    pub(super) fn push(&mut self, offset: u32, due_unix_ms: i64) {
        self.offsets.push(offset);
        self.due.push(due_unix_ms);
    }

    /// Offsets with the times when they are due, from the n-th on.
    pub(super) fn rows(&self, from: usize) -> impl Iterator<Item = (u32, i64)> + '_ {
        self.offsets.iter().copied().zip(self.due.iter().copied()).skip(from)
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }
}

/// An exchange that was open when the segment was full.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Carried {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) exchange_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) opening: u64,
    #[prost(uint32, tag = "3")]
    pub(super) open_sides: u32,
    /// How it ended so far.
    #[prost(int32, tag = "4")]
    pub(super) outcome: i32,
    #[prost(string, tag = "5")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct CarriedTable {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<Carried>,
}

/// Sections in the making.
#[derive(Default)]
pub(super) struct Sections(Vec<u8>);

impl Sections {
    fn since(&self, start: usize) -> Span {
        let bytes = &self.0[start..];
        // A section has at most 18 bytes per entry (of subjects, 129 times that), or is a few names: far under 4 GiB.
        Span { offset: start as u64, len: u32::try_from(bytes.len()).unwrap_or(u32::MAX), check: check(bytes) }
    }

    pub(super) fn bitmap(&mut self, bitmap: &RoaringBitmap) -> Span {
        let start = self.0.len();
        bitmap.serialize_into(&mut self.0).expect("writing to a Vec does not fail");
        self.since(start)
    }

    pub(super) fn ids(&mut self, ids: &[([u8; 16], u16)]) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(&Ids::new(ids).0);
        self.since(start)
    }

    /// The smallest, the bytes of a difference (4 or 8), the differences.
    pub(super) fn times(&mut self, times: &[i64]) -> Span {
        let start = self.0.len();
        let base = times.iter().copied().min().unwrap_or_default();
        let difference = |time: &i64| time.wrapping_sub(base).cast_unsigned();
        let narrow = times.iter().all(|time| u32::try_from(difference(time)).is_ok());
        let width = if narrow { 4 } else { 8 };
        self.0.extend_from_slice(&base.to_le_bytes());
        self.0.push(width as u8);
        for time in times {
            self.0.extend_from_slice(&difference(time).to_le_bytes()[..width]);
        }
        self.since(start)
    }

    pub(super) fn numbers(&mut self, numbers: &[u16]) -> Span {
        let start = self.0.len();
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_le_bytes()));
        self.since(start)
    }

    pub(super) fn message(&mut self, message: &impl Message) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(&message.encode_to_vec());
        self.since(start)
    }

    pub(super) fn carried(&mut self, rows: Vec<Carried>) -> Span {
        self.message(&CarriedTable { rows })
    }

    pub(super) fn into_file(self, header: &Header) -> Vec<u8> {
        let header = header.encode_to_vec();
        let mut file = Vec::with_capacity(PREFIX + header.len() + self.0.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
        file.extend_from_slice(&check(&header).to_le_bytes());
        file.extend_from_slice(&header);
        file.extend_from_slice(&self.0);
        file
    }
}

fn check(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The path of a segment's file.
pub(super) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.seg"))
}

/// Writes a file beside its place and renames it there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), IndexError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let written = File::create(&beside).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| std::fs::rename(&beside, path)).map_err(IndexError::io(path))
}

/// A sealed segment: its header, and its sections on demand.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) header: Header,
    path: PathBuf,
    /// Where its sections begin.
    base: u64,
}

impl Sealed {
    /// Reads the header of a segment's file.
    pub(super) fn open(folder: &Path, number: u32) -> Result<Self, IndexError> {
        Self::open_file(path(folder, number), number)
    }

    /// The same of a file beside it that is about this segment.
    pub(super) fn open_file(path: PathBuf, number: u32) -> Result<Self, IndexError> {
        let damaged = |what| IndexError::Damaged { segment: number, what };
        let file = open(&path, number)?;
        let mut prefix = [0; PREFIX];
        read(&file, &path, &mut prefix, 0, number)?;
        let Some(rest) = prefix.strip_prefix(MAGIC) else {
            return Err(damaged("it is no segment of this version"));
        };
        let (len, sum) = rest.split_at(4);
        let len = u32::from_le_bytes(len.try_into().map_err(|_| damaged("no header"))?);
        let sum = u64::from_le_bytes(sum.try_into().map_err(|_| damaged("no header"))?);
        let bytes = section(&file, &path, PREFIX as u64, len, sum, number)?;
        let header = Header::decode(bytes.as_slice()).map_err(|_| damaged("its header cannot be read"))?;
        if header.number != number {
            return Err(damaged("it is another segment's"));
        }
        Ok(Self { header, path, base: PREFIX as u64 + u64::from(len) })
    }

    fn section(&self, span: Option<Span>) -> Result<Vec<u8>, IndexError> {
        let span = span.ok_or_else(|| self.damaged("a section is missing"))?;
        let number = self.header.number;
        let file = open(&self.path, number)?;
        section(&file, &self.path, self.base.saturating_add(span.offset), span.len, span.check, number)
    }

    pub(super) fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::Damaged { segment: self.header.number, what }
    }

    pub(super) fn bitmap(&self, span: Option<Span>) -> Result<RoaringBitmap, IndexError> {
        let bytes = self.section(span)?;
        RoaringBitmap::deserialize_from(bytes.as_slice()).map_err(|_| self.damaged("a bitmap cannot be read"))
    }

    /// Rows of a file of subjects whose pseudonyms begin with this byte.
    pub(super) fn bucket(&self, first: u8) -> Result<Ids, IndexError> {
        Ok(Ids(self.section(self.header.buckets.get(usize::from(first)).copied())?))
    }

    /// Exchange ids of openings, sorted, with their offsets.
    pub(super) fn ids(&self) -> Result<Ids, IndexError> {
        Ok(Ids(self.section(self.header.ids)?))
    }

    /// When each entry was made.
    pub(super) fn times(&self) -> Result<Vec<i64>, IndexError> {
        let bytes = self.section(self.header.times)?;
        let damaged = || self.damaged("its times cannot be read");
        let (base, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (width, rest) = rest.split_first().ok_or_else(damaged)?;
        let base = i64::from_le_bytes(*base);
        if !matches!(width, 4 | 8) || rest.len() != self.header.entries as usize * usize::from(*width) {
            return Err(damaged());
        }
        let difference = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        Ok(rest.chunks_exact(usize::from(*width)).map(|d| base.wrapping_add(difference(d).cast_signed())).collect())
    }

    /// For each entry the offset of the next one of its exchange; 0 is none.
    pub(super) fn next(&self) -> Result<Vec<u16>, IndexError> {
        let bytes = self.section(self.header.next)?;
        Ok(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
    }

    pub(super) fn late(&self) -> Result<LateTable, IndexError> {
        let bytes = self.section(self.header.late)?;
        LateTable::decode(bytes.as_slice()).map_err(|_| self.damaged("its late table cannot be read"))
    }

    pub(super) fn delayed(&self) -> Result<DelayedTable, IndexError> {
        let bytes = self.section(self.header.delayed)?;
        DelayedTable::decode(bytes.as_slice()).map_err(|_| self.damaged("its delayed entries cannot be read"))
    }

    pub(super) fn carried(&self) -> Result<Vec<Carried>, IndexError> {
        let bytes = self.section(self.header.carried)?;
        let table = CarriedTable::decode(bytes.as_slice()).map_err(|_| self.damaged("what it leaves open is lost"))?;
        Ok(table.rows)
    }
}

/// Sorted exchange ids with offsets, as they are in the file.
#[derive(Debug)]
pub(super) struct Ids(Vec<u8>);

impl Ids {
    /// Of sorted rows.
    pub(super) fn new(rows: &[([u8; 16], u16)]) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * ID);
        for (id, offset) in rows {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        Self(bytes)
    }

    /// Offsets of the openings with this id.
    pub(super) fn find(&self, id: &[u8; 16]) -> Vec<u32> {
        let rows = self.0.as_chunks::<ID>().0;
        let from = rows.partition_point(|row| &row[..16] < id.as_slice());
        let same = rows[from..].iter().take_while(|row| &row[..16] == id.as_slice());
        same.map(|row| u32::from(u16::from_le_bytes([row[16], row[17]]))).collect()
    }

    pub(super) fn memory(&self) -> usize {
        self.0.len()
    }
}

fn open(path: &Path, number: u32) -> Result<File, IndexError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IndexError::Damaged { segment: number, what: "its file is missing" },
        _ => IndexError::Io { path: path.into(), source },
    })
}

fn read(file: &File, path: &Path, into: &mut [u8], at: u64, number: u32) -> Result<(), IndexError> {
    file.read_exact_at(into, at).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => IndexError::Damaged { segment: number, what: "its file is cut short" },
        _ => IndexError::Io { path: path.into(), source },
    })
}

fn section(file: &File, path: &Path, at: u64, len: u32, sum: u64, number: u32) -> Result<Vec<u8>, IndexError> {
    // Before allocating: a damaged length must not.
    let size = file.metadata().map_err(IndexError::io(path))?.len();
    if at.saturating_add(u64::from(len)) > size {
        return Err(IndexError::Damaged { segment: number, what: "its file is cut short" });
    }
    let mut bytes = vec![0; len as usize];
    read(file, path, &mut bytes, at, number)?;
    if check(&bytes) != sum {
        return Err(IndexError::Damaged { segment: number, what: "a section fails its check" });
    }
    Ok(bytes)
}
