//! Shred keys: 32 random bytes for each entry, in files of their own, to be destroyed when its private half is.
//!
//! A private half is sealed under a key that follows from the sealing key and the entry's shred key ([`super::seal`]).
//! The store of the halves keeps old copies of what it has written for as long as it likes, and so may a backup of it:
//! removing a half there destroys nothing. A shred key lies at one place on the disk and is overwritten there, and
//! then none of the copies of the half can be opened again, not even with the sealing key.
//!
//! ```text
//! shred/<n>.keys    n = index / 32,768 in eight digits: 32,768 slots of 32 bytes, all written when the file is made
//!                   zeros: no key    "kopuro: erased"…: destroyed    "kopuro: lost"…: see below    "kopuro: none"…: nothing
//!                   to seal    else: the key
//! shred/<n>.erased  in its place and empty, once every key in it is destroyed
//! ```
//!
//! Since a file is written in full when it is made, a commit's keys change data only, and their `fdatasync` needs no
//! journal of the file system; a thread of its own does it while the writer waits for the store's. A slot does not
//! cross sectors: after a power cut it is what was written or what was there before.
//!
//! A commit that reached the store and no acknowledgement may lack its keys after a power cut. Nothing has passed on
//! the strength of it; its private values are gone, and its slots say *lost*. A key missing of an entry that was
//! acknowledged is damage.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::LogError;

/// The folder's name in the data folder.
pub(super) const FOLDER: &str = "shred";

/// Keys in one file.
pub(super) const FILE_KEYS: u64 = 32_768;
pub(super) const KEY: usize = 32;
pub(super) const FILE_BYTES: usize = FILE_KEYS as usize * KEY;

pub(super) const NO_KEY: [u8; KEY] = [0; KEY];
pub(super) const ERASED: [u8; KEY] = *b"kopuro: erased\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub(super) const NO_HALF: [u8; KEY] = *b"kopuro: none\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub(super) const LOST: [u8; KEY] = *b"kopuro: lost\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// 32 random bytes without which one private half cannot be opened. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct ShredKey(pub(super) [u8; KEY]);

impl ShredKey {
    pub(super) fn generate() -> Option<Self> {
        let mut key = Self(NO_KEY);
        // The library's generator: one call into the kernel for each entry would cost more than all of its sealing.
        aws_lc_rs::rand::fill(&mut key.0).ok()?;
        Some(key)
    }

    /// What stands in the place of a key where there is nothing to seal.
    pub(super) fn of_no_half() -> Self {
        Self(NO_HALF)
    }
}

impl std::fmt::Debug for ShredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShredKey(…)")
    }
}

/// What is in an entry's slot.
#[derive(Debug)]
pub(super) enum Slot {
    Key(ShredKey),
    /// The entry has no private half.
    NoHalf,
    Erased,
    Lost,
    Missing,
}

impl Slot {
    /// Whether there is nothing left that could be destroyed.
    pub(super) fn is_spent(&self) -> bool {
        matches!(self, Self::Erased | Self::NoHalf)
    }

    pub(super) fn read(bytes: &[u8; KEY]) -> Self {
        match *bytes {
            NO_KEY => Self::Missing,
            ERASED => Self::Erased,
            LOST => Self::Lost,
            NO_HALF => Self::NoHalf,
            key => Self::Key(ShredKey(key)),
        }
    }
}

/// A file of shred keys.
pub(super) enum KeyFile {
    /// Its slots, all of them.
    Keys(Zeroizing<Vec<u8>>),
    /// Every key in it is destroyed.
    Erased,
    Missing,
}

/// The shred keys of one data folder.
#[derive(Debug)]
pub(super) struct ShredKeys {
    folder: PathBuf,
    /// The file that new keys go to, and its number.
    current: Mutex<Option<(u64, Arc<File>)>>,
    syncer: Mutex<Option<Syncer>>,
}

impl ShredKeys {
    /// The keys of a data folder. Nothing is opened or made yet.
    pub(super) fn of(data: &Path) -> Self {
        Self { folder: data.join(FOLDER), current: Mutex::new(None), syncer: Mutex::new(None) }
    }

    /// Makes ready for the keys of entries from `size` on. The caller syncs the data folder.
    pub(super) fn prepare(&self, size: u64) -> Result<(), LogError> {
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(LogError::io(&self.folder)(error));
            }
            _ => {}
        }
        sync_folder(&self.folder)?;
        self.file_for(size / FILE_KEYS)?;
        let mut syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner);
        if syncer.is_none() {
            *syncer = Some(Syncer::start()?);
        }
        Ok(())
    }

    /// Writes the keys of entries from `first` on and begins to make them durable, on another thread.
    pub(super) fn put<'k>(
        &self,
        first: u64,
        keys: impl Iterator<Item = &'k ShredKey>,
    ) -> Result<PendingSync<'_>, LogError> {
        let mut files = Vec::with_capacity(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY * keys.size_hint().0));
        let mut start = first;
        for (index, key) in (first..).zip(keys) {
            if index.is_multiple_of(FILE_KEYS) && index > start {
                files.push(self.write(start, &bytes)?);
                (start, bytes) = (index, Zeroizing::new(Vec::with_capacity(bytes.capacity())));
            }
            bytes.extend_from_slice(&key.0);
        }
        files.push(self.write(start, &bytes)?);
        let syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*syncer {
            Some(syncer) if syncer.requests.send(files).is_ok() => Ok(PendingSync { keys: self }),
            _ => Err(LogError::Store("the shred keys' thread is gone".into())),
        }
    }

    fn write(&self, first: u64, keys: &[u8]) -> Result<Arc<File>, LogError> {
        let number = first / FILE_KEYS;
        let file = self.file_for(number)?;
        let offset = (first % FILE_KEYS) * KEY as u64;
        file.write_all_at(keys, offset).map_err(LogError::io(self.path(number)))?;
        Ok(file)
    }

    /// The file with this number for writing; made where it is not there, and durable then.
    fn file_for(&self, number: u64) -> Result<Arc<File>, LogError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = current.as_ref().filter(|(at, _)| *at == number) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(LogError::io(&path))?;
        let length = file.metadata().map_err(LogError::io(&path))?.len();
        if length < FILE_BYTES as u64 {
            let rest = vec![0; FILE_BYTES - length as usize];
            file.write_all_at(&rest, length).and_then(|()| file.sync_all()).map_err(LogError::io(&path))?;
        }
        sync_folder(&self.folder)?;
        let file = Arc::new(file);
        *current = Some((number, Arc::clone(&file)));
        Ok(file)
    }

    /// A file as it is.
    pub(super) fn file(&self, number: u64) -> Result<KeyFile, LogError> {
        let path = self.path(number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(if self.erased_path(number).exists() { KeyFile::Erased } else { KeyFile::Missing });
            }
            Err(error) => return Err(LogError::io(path)(error)),
        };
        let mut slots = Zeroizing::new(vec![0; FILE_BYTES]);
        read_up_to(&file, &mut slots, 0).map_err(LogError::io(path))?;
        Ok(KeyFile::Keys(slots))
    }

    /// Makes a file as it was, durable but for the folder that it is in. The folder must be there.
    pub(super) fn restore(&self, number: u64, file: &KeyFile) -> Result<(), LogError> {
        let (path, slots) = match file {
            KeyFile::Keys(slots) => (self.path(number), &slots[..]),
            KeyFile::Erased => (self.erased_path(number), &[][..]),
            KeyFile::Missing => return Ok(()),
        };
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = open.and_then(|file| file.write_all_at(slots, 0).and_then(|()| file.sync_all()));
        written.map_err(LogError::io(path))
    }

    /// What is in an entry's slot.
    pub(super) fn get(&self, index: u64) -> Result<Slot, LogError> {
        let mut slot = Slot::Missing;
        self.each(index, index + 1, |_, found| {
            slot = found;
            Ok(())
        })?;
        Ok(slot)
    }

    /// Shows the slots of entries `from` to `until - 1`, in order.
    pub(super) fn each(
        &self,
        from: u64,
        until: u64,
        mut show: impl FnMut(u64, Slot) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut at = from;
        while at < until {
            let number = at / FILE_KEYS;
            let end = until.min((number + 1) * FILE_KEYS);
            match File::open(self.path(number)) {
                Ok(file) => {
                    let mut bytes = Zeroizing::new(vec![0; (end - at) as usize * KEY]);
                    let offset = (at % FILE_KEYS) * KEY as u64;
                    // A file that is too short lacks the keys at its end.
                    read_up_to(&file, &mut bytes, offset).map_err(LogError::io(self.path(number)))?;
                    for (index, slot) in (at..end).zip(bytes.as_chunks::<KEY>().0) {
                        show(index, Slot::read(slot))?;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let erased = self.erased_path(number).exists();
                    (at..end).try_for_each(|index| show(index, if erased { Slot::Erased } else { Slot::Missing }))?;
                }
                Err(error) => return Err(LogError::io(self.path(number))(error)),
            }
            at = end;
        }
        Ok(())
    }

    /// Destroys the keys of entries `first` to `first + count - 1`. On return they are gone for good.
    pub(super) fn destroy(&self, first: u64, count: u64) -> Result<(), LogError> {
        self.mark(first, count, &ERASED)
    }

    /// Says of an entry that its key was never durable.
    pub(super) fn lose(&self, index: u64) -> Result<(), LogError> {
        self.mark(index, 1, &LOST)
    }

    fn mark(&self, first: u64, count: u64, mark: &[u8; KEY]) -> Result<(), LogError> {
        let (mut at, until) = (first, first.saturating_add(count));
        while at < until {
            let number = at / FILE_KEYS;
            let end = until.min((number + 1) * FILE_KEYS);
            let path = self.path(number);
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => {
                    let marks = mark.repeat((end - at) as usize);
                    let offset = (at % FILE_KEYS) * KEY as u64;
                    let written = file.write_all_at(&marks, offset).and_then(|()| file.sync_data());
                    written.map_err(LogError::io(&path))?;
                }
                // All of it is destroyed already.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.erased_path(number).exists() => {}
                Err(error) => return Err(LogError::io(path)(error)),
            }
            at = end;
        }
        Ok(())
    }

    /// Gives back the room of files that hold nothing but marks of erasure, among those of entries `first` to
    /// `first + count - 1`. Not of the file that keys are written to.
    pub(super) fn tidy(&self, first: u64, count: u64, size: u64) -> Result<(), LogError> {
        let last = (first.saturating_add(count).saturating_sub(1) / FILE_KEYS).min(size / FILE_KEYS);
        for number in first / FILE_KEYS..=last {
            let path = self.path(number);
            if (number + 1) * FILE_KEYS > size || !path.exists() {
                continue;
            }
            let mut all = true;
            self.each(number * FILE_KEYS, (number + 1) * FILE_KEYS, |_, slot| {
                all &= slot.is_spent();
                Ok(())
            })?;
            if all {
                let erased = self.erased_path(number);
                std::fs::rename(&path, &erased).map_err(LogError::io(&path))?;
                let cut = OpenOptions::new().write(true).open(&erased).and_then(|file| file.set_len(0));
                cut.map_err(LogError::io(&erased))?;
                sync_folder(&self.folder)?;
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.keys"))
    }

    fn erased_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.erased"))
    }
}

/// Keys on their way to the disk.
#[must_use]
pub(super) struct PendingSync<'a> {
    keys: &'a ShredKeys,
}

impl PendingSync<'_> {
    /// Waits until they are durable.
    pub(super) fn wait(self) -> Result<(), LogError> {
        let syncer = self.keys.syncer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = syncer.as_ref().and_then(|syncer| syncer.results.recv().ok());
        result.unwrap_or_else(|| Err(std::io::ErrorKind::BrokenPipe.into())).map_err(LogError::io(&self.keys.folder))
    }
}

/// The thread that syncs keys while the writer syncs the store.
#[derive(Debug)]
struct Syncer {
    requests: SyncSender<Vec<Arc<File>>>,
    results: Receiver<std::io::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start() -> Result<Self, LogError> {
        let (requests, wanted) = sync_channel::<Vec<Arc<File>>>(1);
        let (done, results) = sync_channel(1);
        let run = move || {
            while let Ok(files) = wanted.recv() {
                if done.send(files.iter().try_for_each(|file| file.sync_data())).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kopuro-shred".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::Store(format!("no thread for the shred keys: {error}")))?;
        Ok(Self { requests, results, thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        // The thread ends when nobody can ask it any more.
        (self.requests, _) = sync_channel(0);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sync_folder(path: &Path) -> Result<(), LogError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(LogError::io(path))
}

fn read_up_to(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset)? {
            0 => return Ok(()),
            more => {
                buffer = &mut buffer[more..];
                offset += more as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keys: &ShredKeys, first: u64, count: u8) {
        let new: Vec<ShredKey> = (1..=count).map(|n| ShredKey([n; KEY])).collect();
        keys.put(first, new.iter()).unwrap().wait().unwrap();
    }

    #[test]
    fn gives_back_destroys_and_makes_room() {
        let data = tempfile::tempdir().unwrap();
        let keys = ShredKeys::of(data.path());
        keys.prepare(0).unwrap();
        put(&keys, 0, 3);
        // Across the border of two files.
        put(&keys, FILE_KEYS - 2, 5);
        assert!(matches!(keys.get(2).unwrap(), Slot::Key(key) if key.0 == [3; KEY]));
        assert!(matches!(keys.get(3).unwrap(), Slot::Missing));
        for (at, number) in (FILE_KEYS - 2..).zip(1..=5_u8) {
            assert!(matches!(keys.get(at).unwrap(), Slot::Key(key) if key.0 == [number; KEY]));
        }
        assert!(matches!(keys.get(10 * FILE_KEYS).unwrap(), Slot::Missing));

        keys.lose(FILE_KEYS).unwrap();
        keys.destroy(1, 1).unwrap();
        assert!(matches!(keys.get(1).unwrap(), Slot::Erased));
        assert!(matches!(keys.get(FILE_KEYS).unwrap(), Slot::Lost));
        assert_eq!(std::fs::read(keys.path(0)).unwrap()[KEY..2 * KEY], ERASED);

        // Whole files of marks take no room, and say the same.
        keys.destroy(0, FILE_KEYS).unwrap();
        keys.tidy(0, FILE_KEYS, FILE_KEYS + 3).unwrap();
        assert!(!keys.path(0).exists() && std::fs::metadata(keys.erased_path(0)).unwrap().len() == 0);
        assert!(matches!(keys.get(7).unwrap(), Slot::Erased));
        keys.destroy(5, FILE_KEYS).unwrap();
        assert!(matches!(ShredKeys::of(data.path()).get(FILE_KEYS + 4).unwrap(), Slot::Erased));
    }
}
