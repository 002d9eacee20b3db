//! Reading the parts of a backup: every byte is looked at, in one pass, and what is good is shown to a [`Sink`] as it comes.

use std::collections::VecDeque;
use std::io::Read;

use bytes::Bytes;
use prost::Message;
use roaring::RoaringTreemap;
use zeroize::Zeroizing;

use super::{
    ALONG, BASE, BackupError, CHECKPOINT, COMMITS, FILES, FORMAT, HALVES, MANIFEST, MOST_FILE, Manifest, PEERS, Part,
    SHRED, TAIL,
};
use crate::log::checkpoint::Checkpoint;
use crate::log::entry::{Entry, Kind as EntryKind, MAX_ENTRY};
use crate::log::error::LogError;
use crate::log::records;
use crate::log::shred::{FILE_BYTES, FILE_KEYS, KeyFile};
use crate::log::store::Base;
use crate::log::tile::{self, FULL, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, TILE_LEAVES};
use crate::trust::note::Verifier;

const MOST_MANIFEST: u64 = 64 << 10;
const MOST_NOTE: u64 = 64 << 10;
/// A base has 256 parts of 7,000 bytes at the most.
const MOST_BASE: u64 = 2 << 20;
const MOST_BUNDLE: u64 = FULL as u64 * (2 + MAX_ENTRY as u64);
/// What follows the last member: the end of a tar, and its padding.
const MOST_END: u64 = 1 << 20;

/// What a log's part was found to hold.
#[derive(Debug)]
pub struct Kept {
    /// What it says that it is.
    pub manifest: Manifest,
    /// The checkpoint that all of it is of.
    pub checkpoint: Checkpoint,
    /// Commits, each with its own signature.
    pub commits: u64,
    /// Sealed private halves.
    pub halves: u64,
    /// Entries of which the log says that their private values were erased.
    pub(super) erased: RoaringTreemap,
    /// The tree's right edge at the end.
    pub(super) edge: RightEdge,
}

/// Who takes what was read.
pub(super) trait Sink {
    /// Where the log begins.
    fn base(&mut self, base: &Base) -> Result<(), BackupError>;
    /// Entries that follow each other, and where they end a commit the edge and its checkpoint, which have been compared.
    fn entries(&mut self, first: u64, entries: &[Bytes], ends: Option<(&RightEdge, &str)>) -> Result<(), BackupError>;
    /// Sealed halves of entries from this one on; empty where there is none.
    fn halves(&mut self, first: u64, halves: &[Bytes]) -> Result<(), BackupError>;
    /// A file of the data folder.
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError>;
}

struct Nobody;

impl Sink for Nobody {
    fn base(&mut self, _: &Base) -> Result<(), BackupError> {
        Ok(())
    }

    fn entries(&mut self, _: u64, _: &[Bytes], _: Option<(&RightEdge, &str)>) -> Result<(), BackupError> {
        Ok(())
    }

    fn halves(&mut self, _: u64, _: &[Bytes]) -> Result<(), BackupError> {
        Ok(())
    }

    fn file(&mut self, _: &str, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
}

/// Reads a log's part to its end and compares all of it with what one of the log's keys signed. Blocks.
pub fn verify_log(input: impl Read, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<Kept, BackupError> {
    read_log(input, log.as_ref(), &mut Nobody)
}

/// Reads a shred keys' part to its end; how many entries it has the keys of. Blocks.
pub fn verify_shred(input: impl Read, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<u64, BackupError> {
    read_shred(input, log.as_ref(), |_, _| Ok(())).map(|checkpoint| checkpoint.size)
}

/// Reads a log's part, and shows it.
pub(super) fn read_log(input: impl Read, log: &[Verifier], sink: &mut dyn Sink) -> Result<Kept, BackupError> {
    let mut tar = tar::Archive::new(input);
    let mut members = Members::of(&mut tar, Part::Log)?;
    let (manifest, checkpoint) = members.begin(log)?;
    let mut reader = LogReader {
        edge: RightEdge::default(),
        commit_first: 0,
        ends: VecDeque::new(),
        next_halves: 0,
        kept: Kept {
            manifest,
            checkpoint,
            commits: 0,
            halves: 0,
            erased: RoaringTreemap::new(),
            edge: RightEdge::default(),
        },
        log,
        sink,
    };
    while let Some((name, content)) = members.next()? {
        reader.member(&name, content)?;
    }
    let kept = reader.finish()?;
    end(tar.into_inner())?;
    Ok(kept)
}

/// Reads a shred keys' part, and shows its files in order.
pub(super) fn read_shred(
    input: impl Read,
    log: &[Verifier],
    mut show: impl FnMut(u64, KeyFile) -> Result<(), BackupError>,
) -> Result<Checkpoint, BackupError> {
    let mut tar = tar::Archive::new(input);
    let mut members = Members::of(&mut tar, Part::Shred)?;
    let (_, checkpoint) = members.begin(log)?;
    let mut next = 0;
    while let Some((name, content)) = members.next()? {
        let file = match name.strip_prefix(SHRED).and_then(|file| file.split_once('.')) {
            Some((number, kind)) if number == format!("{next:08}") => match kind {
                "keys" if content.len() == FILE_BYTES => KeyFile::Keys(Zeroizing::new(content)),
                "erased" if content.is_empty() => KeyFile::Erased,
                _ => return Err(BackupError::member(name, "neither 32,768 slots nor an empty file")),
            },
            _ => return Err(BackupError::member(name, format!("out of place: {SHRED}{next:08} is next"))),
        };
        show(next, file)?;
        next += 1;
    }
    if next != checkpoint.size.div_ceil(FILE_KEYS) {
        return Err(BackupError::Short { found: next * FILE_KEYS, size: checkpoint.size });
    }
    end(tar.into_inner())?;
    Ok(checkpoint)
}

/// Nothing but the tar's end may follow; to its end, since an encrypted file that was cut short says so there.
fn end(input: impl Read) -> Result<(), BackupError> {
    let mut rest = Vec::new();
    input.take(MOST_END + 1).read_to_end(&mut rest)?;
    if rest.len() as u64 > MOST_END || rest.iter().any(|byte| *byte != 0) {
        return Err(BackupError::member("end", "something follows it"));
    }
    Ok(())
}

/// The members of a part, in order.
struct Members<'a, R: Read> {
    entries: tar::Entries<'a, R>,
    part: Part,
}

impl<'a, R: Read> Members<'a, R> {
    fn of(tar: &'a mut tar::Archive<R>, part: Part) -> Result<Self, BackupError> {
        // Raw: no extension is read into memory before its name is judged.
        Ok(Self { entries: tar.entries()?.raw(true), part })
    }

    /// The manifest and the checkpoint, which has been verified.
    fn begin(&mut self, log: &[Verifier]) -> Result<(Manifest, Checkpoint), BackupError> {
        let wanted = match self.part {
            Part::Log => "log's",
            Part::Shred => "shred keys'",
        };
        let other = |found: String| BackupError::Part { wanted, found };
        let manifest = match self.next()? {
            Some((name, content)) if name == MANIFEST => content,
            Some((name, _)) => return Err(other(format!("it begins with {name:?}"))),
            None => return Err(other("it is empty".into())),
        };
        let manifest: Manifest =
            serde_json::from_slice(&manifest).map_err(|error| BackupError::member(MANIFEST, error.to_string()))?;
        if manifest.format != FORMAT {
            let what = format!("its format is {:?}, and this version reads {FORMAT:?}", manifest.format);
            return Err(BackupError::member(MANIFEST, what));
        }
        if manifest.part != self.part {
            return Err(other("it is the other part of a backup".into()));
        }
        let Some((_, note)) = self.next()?.filter(|(name, _)| name == CHECKPOINT) else {
            return Err(BackupError::member(CHECKPOINT, "not there"));
        };
        let note = std::str::from_utf8(&note).map_err(|_| BackupError::member(CHECKPOINT, "not UTF-8"))?;
        let checkpoint = Checkpoint::verify(note, log)?;
        if manifest.origin != checkpoint.origin || manifest.size != checkpoint.size || manifest.first > manifest.size {
            return Err(BackupError::member(MANIFEST, "it says otherwise than the checkpoint"));
        }
        Ok((manifest, checkpoint))
    }

    fn next(&mut self) -> Result<Option<(String, Vec<u8>)>, BackupError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        let mut entry = entry?;
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| BackupError::member("member", "its name is not UTF-8"))?;
        let size = entry.header().entry_size()?;
        let most = match name.split_inclusive('/').next().unwrap_or_default() {
            MANIFEST => MOST_MANIFEST,
            CHECKPOINT => MOST_NOTE,
            BASE => MOST_BASE,
            FILES => MOST_FILE,
            COMMITS => FULL as u64 * (10 + MOST_NOTE),
            SHRED => FILE_BYTES as u64,
            "tile/" | TAIL | HALVES => MOST_BUNDLE,
            _ => return Err(BackupError::member(name, "no member of a backup")),
        };
        if !entry.header().entry_type().is_file() || size > most {
            return Err(BackupError::member(name, format!("no file, or more than {most} bytes")));
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        entry.read_to_end(&mut content)?;
        if content.len() as u64 != size {
            return Err(BackupError::member(name, "it breaks off"));
        }
        Ok(Some((name, content)))
    }
}

/// The log, as far as it has been read.
struct LogReader<'a> {
    edge: RightEdge,
    /// First entry of the commit being read.
    commit_first: u64,
    /// Commits that end in the bundle that comes next.
    ends: VecDeque<(u64, String)>,
    next_halves: u64,
    kept: Kept,
    log: &'a [Verifier],
    sink: &'a mut dyn Sink,
}

impl LogReader<'_> {
    fn member(&mut self, name: &str, content: Vec<u8>) -> Result<(), BackupError> {
        let wrong = |what: String| BackupError::member(name, what);
        let out_of_place = || wrong("out of place".into());
        if let Some(file) = name.strip_prefix(FILES) {
            let peer = file.strip_prefix(PEERS).and_then(|file| file.strip_prefix('/'));
            if !ALONG.contains(&file) && !peer.is_some_and(super::is_peers) {
                return Err(wrong("no file that goes along".into()));
            }
            self.sink.file(file, &content)
        } else if name == BASE {
            if self.edge.size() > 0 {
                return Err(out_of_place());
            }
            self.base(content.into())
        } else if let Some(number) = name.strip_prefix(COMMITS) {
            let number: u64 = number.parse().map_err(|_| out_of_place())?;
            self.commits(number, &content).ok_or_else(|| wrong("no commits of that bundle".into()))
        } else if let Some(number) = name.strip_prefix(HALVES) {
            let number: u64 = number.parse().map_err(|_| out_of_place())?;
            self.halves(number, &content.into())
        } else if let Some(first) = name.strip_prefix(TAIL) {
            let first: u64 = first.parse().map_err(|_| out_of_place())?;
            let until = (first / TILE_LEAVES + 1) * TILE_LEAVES;
            self.entries(name, first, until.min(self.kept.checkpoint.size), &content.into())
        } else {
            let tile = Tile::parse(name).filter(|tile| tile.kind == Kind::Entries).ok_or_else(out_of_place)?;
            let first = tile.number.checked_mul(TILE_LEAVES).ok_or_else(out_of_place)?;
            self.entries(name, first, first.saturating_add(tile.width.into()), &content.into())
        }
    }

    fn base(&mut self, record: Bytes) -> Result<(), BackupError> {
        let wrong = |what: &str| BackupError::member(BASE, what);
        let base = records::unpack_base(record).ok_or_else(|| wrong("it cannot be read"))?;
        let checkpoint = Checkpoint::verify(&base.note, self.log)?;
        let size = base.edge.size();
        if checkpoint.size != size
            || checkpoint.root != base.edge.root()
            || size != self.kept.manifest.first
            || size == 0
        {
            return Err(wrong("its checkpoint is not of the tree at the cut"));
        }
        self.sink.base(&base)?;
        (self.edge, self.commit_first) = (base.edge, size);
        Ok(())
    }

    fn commits(&mut self, number: u64, mut rest: &[u8]) -> Option<()> {
        if !self.ends.is_empty() || self.edge.size() / TILE_LEAVES != number {
            return None;
        }
        let until = (number + 1) * TILE_LEAVES;
        let mut last = self.edge.size();
        while !rest.is_empty() {
            let (size, more) = rest.split_first_chunk()?;
            let (length, more) = more.split_first_chunk()?;
            let (note, more) = more.split_at_checked(u16::from_be_bytes(*length).into())?;
            let size = u64::from_be_bytes(*size);
            if size <= last || size > until {
                return None;
            }
            self.ends.push_back((size, std::str::from_utf8(note).ok()?.to_owned()));
            (last, rest) = (size, more);
        }
        Some(())
    }

    fn entries(&mut self, name: &str, first: u64, until: u64, bundle: &Bytes) -> Result<(), BackupError> {
        if first != self.edge.size() || until <= first || until > self.kept.checkpoint.size {
            let what = format!("out of place: entry {} is next", self.edge.size());
            return Err(BackupError::member(name, what));
        }
        let entries = tile::entries(bundle, (until - first) as u16);
        let mut entries = &*entries.map_err(|error| BackupError::member(name, error.to_string()))?;
        while !entries.is_empty() {
            let at = self.edge.size();
            let end = self.ends.front().map_or(until, |(size, _)| (*size).min(until));
            let (now, rest) = entries.split_at((end - at) as usize);
            for entry in now {
                self.edge.push(Hash::of_leaf(entry));
                note_erasure(&mut self.kept.erased, self.edge.size(), entry);
            }
            let ends = self.ends.front().is_some_and(|(size, _)| *size == end);
            let ends = if ends { self.ends.pop_front() } else { None };
            if let Some((_, note)) = &ends {
                self.commit(note)?;
            }
            self.sink.entries(at, now, ends.as_ref().map(|(_, note)| (&self.edge, note.as_str())))?;
            entries = rest;
        }
        Ok(())
    }

    /// A commit ends here: its checkpoint has to be of this tree and signed.
    fn commit(&mut self, note: &str) -> Result<(), BackupError> {
        let (first, size) = (self.commit_first, self.edge.size());
        let checkpoint = Checkpoint::verify(note, self.log)?;
        let computed = self.edge.root();
        if checkpoint.size != size {
            let what = format!("its checkpoint is of {} entries", checkpoint.size);
            return Err(LogError::Damaged { index: first, what }.into());
        }
        if checkpoint.root != computed {
            return Err(LogError::Altered { first, last: size - 1, computed, signed: checkpoint.root }.into());
        }
        self.commit_first = size;
        self.kept.commits += 1;
        Ok(())
    }

    fn halves(&mut self, number: u64, halves: &Bytes) -> Result<(), BackupError> {
        let name = || format!("{HALVES}{number}");
        let size = self.kept.checkpoint.size;
        let first = number.saturating_mul(TILE_LEAVES);
        let until = size.min(first.saturating_add(TILE_LEAVES));
        if number < self.next_halves || first >= size || until > self.edge.size().max(self.kept.manifest.first) {
            return Err(BackupError::member(name(), "out of place"));
        }
        let halves = tile::entries(halves, (until - first) as u16);
        let halves = halves.map_err(|error| BackupError::member(name(), error.to_string()))?;
        self.kept.halves += halves.iter().filter(|half| !half.is_empty()).count() as u64;
        self.next_halves = number + 1;
        self.sink.halves(first, &halves)
    }

    fn finish(mut self) -> Result<Kept, BackupError> {
        let (checkpoint, edge) = (&self.kept.checkpoint, &self.edge);
        let (found, size) = (edge.size(), checkpoint.size);
        if found != size || self.commit_first != size {
            return Err(BackupError::Short { found: self.commit_first, size });
        }
        if edge.root() != checkpoint.root {
            let first = self.kept.manifest.first.min(size.saturating_sub(1));
            let (computed, signed) = (edge.root(), checkpoint.root);
            return Err(LogError::Altered { first, last: size.saturating_sub(1), computed, signed }.into());
        }
        self.kept.edge = self.edge;
        Ok(self.kept)
    }
}

/// Takes note of whose private values an entry says are erased: of entries before it only.
pub(super) fn note_erasure(erased: &mut RoaringTreemap, size: u64, entry: &[u8]) {
    let Ok(entry) = Entry::decode(entry) else { return };
    if entry.kind() != EntryKind::Erasure {
        return;
    }
    for range in &entry.erased {
        let until = range.first.saturating_add(range.count).min(size);
        erased.insert_range(range.first.min(until)..until);
    }
}
