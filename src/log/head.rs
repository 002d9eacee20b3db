//! The head: the latest acknowledged checkpoint, in a small file beside the store.
//!
//! The store may lose a tail or fall back to an older state after damage, and could not tell. The head can: it is made
//! durable after the commit it names and before anyone hears of that commit, so a store that has less than the head
//! says has lost acknowledged entries.
//!
//! ```text
//! head, 8,192 bytes:   slot 0 at 0        slot 1 at 4,096
//! slot:                magic(16) ‖ sequence(u64) ‖ length(u32) ‖ checkpoint note ‖ SHA-256 of all before
//! ```
//!
//! Two fixed slots, written in turn: `pwrite` over the older one, then `fdatasync`. A power cut can tear only the slot
//! being written, and the other one still holds the checkpoint before it, which is what the store's last acknowledged
//! commit has if the new one was not yet acknowledged. The newer valid slot wins. Writing a new file, syncing it,
//! renaming it over the old one and syncing the folder is as safe and pays for two journal commits: measured in turn on
//! one busy disk, each behind a synced append of 100 kB, 4.0 ms at the median against 12.2 (mean 4.9 against 14.0), and
//! 4.0 against 12.0 (3.8 against 11.1) in a second run. Where damage (not a power cut) takes the newer slot, the older
//! one still guards all but the last commit.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::checkpoint::Checkpoint;
use super::error::LogError;

/// The head file's name in the data folder.
pub(super) const FILE: &str = "head";

const SLOT: usize = 4_096;
const MAGIC: &[u8; 16] = b"kopuro head v1\n\0";
const BEFORE_NOTE: usize = 16 + 8 + 4;
const MAX_NOTE: usize = SLOT - BEFORE_NOTE - 32;

/// The head file, open for writing.
#[derive(Debug)]
pub(super) struct Head {
    file: File,
    path: PathBuf,
    sequence: u64,
    next_slot: u64,
    buffer: Vec<u8>,
}

/// What a head file holds.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no such file.
    Missing,
    /// It has no valid slot.
    Damaged,
    /// The checkpoint of the newer valid slot. Its signature has not been looked at.
    Checkpoint(Checkpoint),
}

impl Head {
    /// Reads the head of a folder without opening it for writing.
    pub(super) fn read(folder: &Path) -> Result<Found, LogError> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(content) => Ok(match newest(&content) {
                Some((_, _, checkpoint)) => Found::Checkpoint(checkpoint),
                None => Found::Damaged,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(LogError::io(path)(error)),
        }
    }

    /// Opens the head of a folder for writing, made and sized where it is not. The caller syncs the folder.
    pub(super) fn open(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join(FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(LogError::io(&path))?;
        let mut content = vec![0; 2 * SLOT];
        let length = read_up_to(&file, &mut content).map_err(LogError::io(&path))?;
        if length < content.len() {
            // Blocks written once, so that later writes change data only and never need the file system's journal.
            let sized = file.write_all_at(&content, 0).and_then(|()| file.sync_all());
            sized.map_err(LogError::io(&path))?;
        }
        let (sequence, slot) = newest(&content).map_or((0, 1), |(sequence, slot, _)| (sequence, slot));
        Ok(Self { file, path, sequence, next_slot: 1 - slot, buffer: content })
    }

    /// Makes this checkpoint the head. On return it is durable.
    pub(super) fn replace(&mut self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let note = checkpoint.note.as_bytes();
        if note.len() > MAX_NOTE {
            return Err(LogError::Checkpoint("its note is too long for the head file"));
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(MAGIC);
        self.buffer.extend_from_slice(&(self.sequence + 1).to_be_bytes());
        self.buffer.extend_from_slice(&(note.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(note);
        let digest = Sha256::digest(&self.buffer);
        self.buffer.extend_from_slice(&digest);
        let written = self.file.write_all_at(&self.buffer, self.next_slot * SLOT as u64);
        written.and_then(|()| self.file.sync_data()).map_err(LogError::io(&self.path))?;
        self.sequence += 1;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

/// Sequence, slot and checkpoint of the newer valid slot.
fn newest(content: &[u8]) -> Option<(u64, u64, Checkpoint)> {
    let slots = content.chunks(SLOT).zip(0..2);
    slots
        .filter_map(|(bytes, slot)| parse(bytes).map(|(sequence, checkpoint)| (sequence, slot, checkpoint)))
        .max_by_key(|(sequence, ..)| *sequence)
}

fn parse(slot: &[u8]) -> Option<(u64, Checkpoint)> {
    let rest = slot.strip_prefix(MAGIC)?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (note, digest) = (rest.get(..length)?, rest.get(length..length.checked_add(32)?)?);
    if Sha256::digest(&slot[..BEFORE_NOTE + length])[..] != *digest {
        return None;
    }
    Some((u64::from_be_bytes(*sequence), Checkpoint::parse(std::str::from_utf8(note).ok()?).ok()?))
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tree::{Hash, RightEdge};
    use crate::trust::note::Signer;

    #[test]
    fn the_newer_valid_slot_wins_whatever_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut edge = RightEdge::default();
        let mut head = Head::open(folder.path()).unwrap();
        assert!(matches!(Head::read(folder.path()).unwrap(), Found::Damaged));
        for size in 1..=5 {
            edge.push(Hash::of_leaf(&[size]));
            head.replace(&Checkpoint::sign(&signer, &edge).unwrap()).unwrap();
            if size == 3 {
                head = Head::open(folder.path()).unwrap();
            }
            let Found::Checkpoint(found) = Head::read(folder.path()).unwrap() else { panic!("no head") };
            assert_eq!(found.size, u64::from(size));
        }
        // Size 5 lies in slot 0; whatever byte of it is damaged, size 4 shows.
        let path = folder.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        let used = BEFORE_NOTE + head.buffer[BEFORE_NOTE..].len();
        for position in 0..used {
            let mut torn = good.clone();
            torn[position] ^= 0x40;
            assert_eq!(newest(&torn).unwrap().2.size, 4, "byte {position}");
        }
        assert_eq!(newest(&good[..SLOT]).unwrap().2.size, 5);
        assert!(newest(&good[..100]).is_none());
    }
}
