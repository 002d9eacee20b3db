//! What the store's keys and values are: commits as records of entries, and apart from them records of sealed private
//! halves, so that the one can be pruned while the other stays. Pure.
//!
//! ```text
//! every record   version(1) = 2 ‖ parts after this one(u8) ‖ …              a value has at most 7,000 bytes: a record
//!                                                                           that has more goes on under key ‖ part(u8)
//! entries        key first index(u64)
//!                … ‖ ends a commit(1) ‖ count(u16) ‖ count × ( length(u16) ‖ entry )
//!                ‖ at a commit's end: roots(u8) ‖ roots × 32 ‖ length(u16) ‖ signed checkpoint
//! halves         key ff ‖ first index(u64)
//!                … ‖ count(u16) ‖ count × ( length(u16) ‖ sealed half )     length 0: removed
//! base           key fe 01                                                  where the log begins, once it is pruned
//!                … ‖ size(u64) ‖ roots(u8) ‖ roots × 32 ‖ length(u16) ‖ signed checkpoint
//!                ‖ days(u32) ‖ days × ( day(i64) ‖ end(u64) ) ‖ open(u32) ‖ open × ( index(u64) ‖ length(u16) ‖ entry )
//! check          key fe 02
//!                … ‖ HMAC-SHA256(sealing key, "kopuro/check/v1")
//! ```
//!
//! All numbers big-endian. Indices begin with neither fe nor ff, so entries sort before all else.

use bytes::Bytes;

use super::error::LogError;
use super::store::{Base, Commit, Run};
use super::tree::{Hash, RightEdge};

/// The largest value given to sled. Seventeen of them (a leaf page about to split) are under a quarter of a segment.
pub(super) const VALUE_CAP: usize = 7_000;
pub(super) const VERSION: u8 = 2;
/// The most parts of a record beyond its first.
const MOST_PARTS: usize = 255;

/// Where the keys of entries end.
pub(super) const ENTRIES_END: [u8; 1] = [0xfe];
pub(super) const BASE_KEY: [u8; 2] = [0xfe, 1];
pub(super) const CHECK_KEY: [u8; 2] = [0xfe, 2];
const HALVES: u8 = 0xff;

/// Key of a record of halves.
pub(super) fn halves_key(first: u64) -> [u8; 9] {
    let mut key = [HALVES; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

/// The first index of a record of halves, from its key or one of its parts'.
pub(super) fn halves_first(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(&[HALVES])?.first_chunk()?;
    Some(u64::from_be_bytes(*index))
}

/// Key of a later part of a record.
pub(super) fn part_key(key: &[u8], part: u8) -> Vec<u8> {
    [key, &[part]].concat()
}

/// Cuts a commit into records under the cap, of entries and of halves, and gives each to `put` with its key.
pub(super) fn pack(commit: &Commit<'_>, mut put: impl FnMut(&[u8], Vec<u8>)) {
    let entries: Vec<&Bytes> = commit.entries.iter().map(|stored| &stored.entry).collect();
    pack_entries(commit.first, &entries, Some((commit.edge, &commit.checkpoint.note)), &mut put);
    let halves: Vec<&Bytes> = commit.entries.iter().map(|stored| &stored.sealed).collect();
    runs_under_cap(&halves, 4, 0, |at, now, _| {
        pack_halves(commit.first + at as u64, now.iter().map(|half| &half[..]), &mut put);
    });
}

/// Entries that follow each other, cut into records; with the edge and the checkpoint behind them where they end a commit.
pub(super) fn pack_entries(
    first: u64,
    entries: &[&Bytes],
    ends: Option<(&RightEdge, &str)>,
    mut put: impl FnMut(&[u8], Vec<u8>),
) {
    let tail = ends.map_or(0, |(edge, note)| 1 + 32 * edge.roots().len() + 2 + note.len());
    runs_under_cap(entries, 5, tail, |at, now, last| {
        let end = ends.filter(|_| last);
        let mut record = header();
        record.push(u8::from(end.is_some()));
        put_all(&mut record, now.iter().map(|entry| &entry[..]));
        if let Some((edge, note)) = end {
            put_edge(&mut record, edge, note);
        }
        let first = first + at as u64;
        put_record(&first.to_be_bytes(), record, &mut put);
    });
}

/// Halves of entries that follow each other, cut into records; a run of removed ones needs none.
pub(super) fn pack_all_halves(first: u64, halves: &[Bytes], mut put: impl FnMut(&[u8], Vec<u8>)) {
    let halves: Vec<&Bytes> = halves.iter().collect();
    runs_under_cap(&halves, 4, 0, |at, now, _| {
        if now.iter().any(|half| !half.is_empty()) {
            pack_halves(first + at as u64, now.iter().map(|half| &half[..]), &mut put);
        }
    });
}

/// A record of halves; a removed one is empty.
pub(super) fn pack_halves<'h>(
    first: u64,
    halves: impl ExactSizeIterator<Item = &'h [u8]>,
    mut put: impl FnMut(&[u8], Vec<u8>),
) {
    let mut record = header();
    put_all(&mut record, halves);
    put_record(&halves_key(first), record, &mut put);
}

/// The base's record. Fails where it is larger than a record can be.
pub(super) fn pack_base(base: &Base, put: impl FnMut(&[u8], Vec<u8>)) -> Result<(), LogError> {
    let mut record = header();
    record.extend_from_slice(&base.edge.size().to_be_bytes());
    put_edge(&mut record, &base.edge, &base.note);
    record.extend_from_slice(&(base.days.len() as u32).to_be_bytes());
    for (day, end) in &base.days {
        record.extend_from_slice(&day.to_be_bytes());
        record.extend_from_slice(&end.to_be_bytes());
    }
    record.extend_from_slice(&(base.open.len() as u32).to_be_bytes());
    for (index, entry) in &base.open {
        record.extend_from_slice(&index.to_be_bytes());
        put_short(&mut record, entry);
    }
    if record.len() > (MOST_PARTS + 1) * VALUE_CAP {
        return Err(LogError::Store("too many exchanges are open to prune the log".into()));
    }
    put_record(&BASE_KEY, record, put);
    Ok(())
}

/// The record by which the sealing key is told from others.
pub(super) fn pack_check(check: &[u8; 32]) -> Vec<u8> {
    [&header()[..], check].concat()
}

pub(super) fn unpack_check(record: &Bytes) -> Option<[u8; 32]> {
    record.get(2..)?.try_into().ok()
}

/// How many parts a record has beyond its first; the version has been looked at.
pub(super) fn parts(record: &[u8]) -> Result<u8, LogError> {
    match *record {
        [VERSION, parts, ..] => Ok(parts),
        [found, ..] if found != 0 && found < 16 => Err(LogError::Format { found, reads: VERSION }),
        _ => Err(LogError::Store("a record that is none".into())),
    }
}

/// Entries' record, whole.
pub(super) fn unpack(first: u64, mut rest: Bytes) -> Option<Run> {
    take(&mut rest, 2)?;
    let ends = take(&mut rest, 1)?[0];
    let entries = take_all(&mut rest).filter(|entries| !entries.is_empty() && ends <= 1)?;
    let end = if ends == 1 { Some(take_edge(&mut rest)?) } else { None };
    rest.is_empty().then_some(Run { first, entries, end })
}

/// The halves of a record, whole.
pub(super) fn unpack_halves(mut rest: Bytes) -> Option<Vec<Bytes>> {
    take(&mut rest, 2)?;
    let halves = take_all(&mut rest)?;
    rest.is_empty().then_some(halves)
}

pub(super) fn unpack_base(mut rest: Bytes) -> Option<Base> {
    take(&mut rest, 2)?;
    let size = take_u64(&mut rest)?;
    let (roots, note) = take_edge(&mut rest)?;
    let edge = RightEdge::from_roots(size, roots)?;
    let count = |rest: &mut Bytes| Some(u32::from_be_bytes(take(rest, 4)?.as_ref().try_into().ok()?));
    let days = (0..count(&mut rest)?).map(|_| Some((take_u64(&mut rest)? as i64, take_u64(&mut rest)?)));
    let days = days.collect::<Option<_>>()?;
    let open = (0..count(&mut rest)?).map(|_| Some((take_u64(&mut rest)?, take_short(&mut rest)?)));
    let open = open.collect::<Option<_>>()?;
    rest.is_empty().then_some(Base { edge, note, days, open })
}

/// Divides items into runs that, with `head` bytes before and `tail` behind the last, are under the cap; an item that
/// is over it by itself is a run.
fn runs_under_cap(items: &[&Bytes], head: usize, tail: usize, mut run: impl FnMut(usize, &[&Bytes], bool)) {
    let mut at = 0;
    while at < items.len() {
        let rest = &items[at..];
        let (mut count, mut length) = (0, head);
        for (position, item) in rest.iter().enumerate() {
            let with_tail = if position + 1 == rest.len() { tail } else { 0 };
            let more = 2 + item.len();
            if count > 0 && length + more + with_tail > VALUE_CAP {
                break;
            }
            (count, length) = (count + 1, length + more);
        }
        run(at, &rest[..count], count == rest.len());
        at += count;
    }
}

fn header() -> Vec<u8> {
    let mut record = Vec::with_capacity(VALUE_CAP);
    record.extend_from_slice(&[VERSION, 0]);
    record
}

fn put_all<'i>(record: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'i [u8]>) {
    record.extend_from_slice(&(items.len() as u16).to_be_bytes());
    items.for_each(|item| put_short(record, item));
}

fn put_edge(record: &mut Vec<u8>, edge: &RightEdge, note: &str) {
    record.push(edge.roots().len() as u8);
    edge.roots().iter().for_each(|root| record.extend_from_slice(&root.0));
    put_short(record, note.as_bytes());
}

fn put_short(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    record.extend_from_slice(bytes);
}

fn put_record(key: &[u8], mut record: Vec<u8>, mut put: impl FnMut(&[u8], Vec<u8>)) {
    if record.len() <= VALUE_CAP {
        put(key, record);
        return;
    }
    record[1] = ((record.len() - 1) / VALUE_CAP) as u8;
    for (part, piece) in record.chunks(VALUE_CAP).enumerate() {
        match part {
            0 => put(key, piece.to_vec()),
            _ => put(&part_key(key, part as u8), piece.to_vec()),
        }
    }
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (rest.len() >= length).then(|| rest.split_to(length))
}

fn take_u64(rest: &mut Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(take(rest, 8)?.as_ref().try_into().ok()?))
}

fn take_short(rest: &mut Bytes) -> Option<Bytes> {
    let length = take(rest, 2)?;
    take(rest, u16::from_be_bytes([length[0], length[1]]).into())
}

fn take_all(rest: &mut Bytes) -> Option<Vec<Bytes>> {
    let count = take(rest, 2)?;
    (0..u16::from_be_bytes([count[0], count[1]])).map(|_| take_short(rest)).collect()
}

fn take_edge(rest: &mut Bytes) -> Option<(Vec<Hash>, String)> {
    let roots = take(rest, 1)?[0];
    let roots = take(rest, 32 * usize::from(roots))?;
    let roots = roots.as_chunks::<32>().0.iter().map(|root| Hash(*root)).collect();
    Some((roots, String::from_utf8(take_short(rest)?.to_vec()).ok()?))
}
