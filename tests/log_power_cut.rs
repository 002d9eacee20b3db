//! A power cut at any moment: a writer's writes and syncs are recorded in order, and then played up to many points.
//! At each, the disk may hold what completed syncs have made durable, and of what was written since: nothing, all, or
//! any sectors of it. Opened on such a disk the log has every entry acknowledged until then, or refuses.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kopuro::log::LogError;
use uuid::Uuid;

use crate::log_support::{all_ids, is_erased, open, opens, parse_ack, parse_erased, said_erased, writer_child};

/// The writer is run so many times, so that opening an existing log is in the record too.
const RUNS: u64 = 2;
const ENTRIES: u64 = 2_500;
const POINTS: usize = 80;
const SECTOR: usize = 512;
/// The file of the first shred keys.
const KEYS: &str = "shred/00000000.keys";
/// Private halves looked at on each disk.
const HALVES: usize = 40;

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut() {
    let work = tempfile::tempdir().unwrap();
    let records: Vec<_> = (0..RUNS).map(|_| record_a_writer(work.path())).collect();
    let mut events = Vec::new();
    records.iter().for_each(|record| parse(record, &mut events));
    let syncs = events.iter().filter(|event| matches!(event, Event::SyncEnd { .. })).count();

    let mut random = Random(0x6b6f_7075_726f);
    let mut points: Vec<usize> = (0..events.len())
        // At the end of a sync, just before it, and just after an acknowledgement.
        .filter(|at| {
            let around = [*at, (at + 1).min(events.len() - 1)];
            around.iter().any(|at| matches!(events[*at], Event::SyncEnd { .. })) || matches!(events[*at], Event::Ack(_))
        })
        .collect();
    while points.len() > POINTS {
        points.swap_remove(random.below(points.len()));
    }
    points.extend((0..POINTS / 3).map(|_| random.below(events.len())));
    points.sort_unstable();

    // In memory where there is such a place: what is synced while opening them is of no interest.
    let disks = Some(Path::new("/dev/shm")).filter(|place| place.is_dir()).unwrap_or_else(|| work.path());
    let mut disk = Disk::default();
    let (mut without_fdatasync, mut without_keys) = (Disk::default(), Disk::default());
    // The same run with a disk that takes its time over the keys: how long that sync takes beside the store's is chance, and
    // nothing but the head, or the sync of an erasure, waits for it.
    let (mut late_keys, mut late, mut destroying) = (Disk::default(), Vec::new(), None);
    let mut erased: Vec<(u64, u64)> = Vec::new();
    let mut acknowledged: Vec<(u64, Uuid)> = Vec::new();
    let mut lost_halves = 0;
    let (mut images, mut refusals) = (0, BTreeMap::<String, usize>::new());
    let mut next = points.iter().peekable();
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Ack(lines) => {
                acknowledged.extend(lines.lines().filter_map(parse_ack));
                erased.extend(lines.lines().filter_map(parse_erased));
            }
            event => {
                disk.take(number, event);
                let path = if let Event::SyncEnd { path, .. } = event { path } else { "" };
                if path != "sled/db" {
                    without_fdatasync.take(number, event);
                }
                if path != KEYS {
                    without_keys.take(number, event);
                }
                match event {
                    Event::Written { path: KEYS, bytes, .. } if bytes.starts_with(b"kopuro: erased") => {
                        destroying = Some(number);
                    }
                    Event::Written { path: "head", .. } => {
                        late.drain(..).for_each(|(number, event)| late_keys.take(number, event));
                    }
                    _ => {}
                }
                match event {
                    Event::SyncEnd { path: KEYS, began } if destroying.is_none_or(|marked| marked >= *began) => {
                        late.push((number, event));
                    }
                    Event::SyncEnd { path: KEYS, .. } => {
                        destroying = None;
                        late_keys.take(number, event);
                    }
                    event => late_keys.take(number, event),
                }
            }
        }
        while next.next_if(|point| **point == number).is_some() {
            for (disk, kept) in [
                (&disk, Kept::Nothing),
                (&disk, Kept::All),
                (&disk, Kept::Some(2)),
                (&disk, Kept::Some(6)),
                (&late_keys, Kept::Nothing),
            ] {
                let image = tempfile::tempdir_in(disks).unwrap();
                disk.write(image.path(), kept, &mut random);
                images += 1;
                match open(image.path()) {
                    Ok((log, _)) => {
                        let ids = all_ids(&log);
                        for (index, id) in &acknowledged {
                            assert_eq!(ids.get(*index as usize), Some(id), "event {number}, {kept:?}: entry {index}");
                        }
                        // Some of them with their private values, or erased and said to be.
                        let said = said_erased(&log);
                        for _ in 0..HALVES.min(acknowledged.len()) {
                            opens(&log, &said, acknowledged[random.below(acknowledged.len())].0);
                        }
                        for (first, count) in &erased {
                            (*first..first + count).for_each(|index| is_erased(&log, &said, index));
                        }
                        let lost = (0..ids.len() as u64).rev().take(60);
                        lost_halves += lost
                            .filter(|index| matches!(log.read_private(*index), Err(LogError::PrivateLost { .. })))
                            .count();
                    }
                    Err(error) => *refusals.entry(format!("{error}")).or_default() += 1,
                }
            }
        }
    }
    let refused: usize = refusals.values().sum();
    println!(
        "{} events, {syncs} syncs, {} acknowledgements; {images} disks, {refused} refused: {refusals:#?}",
        events.len(),
        acknowledged.len()
    );
    println!("{} erasures; {lost_halves} halves lost of entries that were never acknowledged", erased.len());
    assert!(erased.len() > 5 && lost_halves > 0);
    assert_eq!(acknowledged.len() as u64, RUNS * ENTRIES);
    assert!(syncs > 200 && images > 400);
    // Of pages that were never synced a disk may keep any, in any order; a few such disks sled cannot read, and the node refuses to
    // start on them. That is safe, and has to be rare.
    assert!(refused * 100 <= images, "{refused} of {images} disks keep a node from starting: {refusals:#?}");

    // As a control: sled's own flush makes nothing durable. Without the fdatasync after it all is lost, and noticed.
    let image = tempfile::tempdir_in(disks).unwrap();
    without_fdatasync.write(image.path(), Kept::Nothing, &mut random);
    let error = open(image.path()).unwrap_err();
    assert!(matches!(error, LogError::Lost { .. } | LogError::Damaged { .. } | LogError::Store(_)), "{error}");

    // And without the fdatasync of the shred keys the values behind acknowledged entries are, and that is noticed too.
    let image = tempfile::tempdir_in(disks).unwrap();
    without_keys.write(image.path(), Kept::Nothing, &mut random);
    let error = open(image.path()).unwrap_err();
    assert!(matches!(&error, LogError::Damaged { what, .. } if what == "its shred key is missing"), "{error}");
}

/// Runs the writer under the recording shim; gives the record.
fn record_a_writer(work: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut_shim.c");
    let (shim, record, folder) = (work.join("shim.so"), work.join("record"), work.join("log"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(built.expect("cc, which linking Rust needs as well").success());
    std::fs::create_dir_all(&folder).unwrap();
    let acks = work.join("acks");
    let mut writer = writer_child(&folder, Some(&acks), ENTRIES);
    writer.env("LD_PRELOAD", &shim).env("KOPURO_SHIM_FOLDER", &folder);
    writer.env("KOPURO_SHIM_RECORD", &record).env("KOPURO_SHIM_ACKS", &acks);
    assert!(writer.output().unwrap().status.success());
    std::fs::read(record).unwrap()
}

/// One thing that the writer did; paths are within its folder.
#[derive(Clone, Copy, Debug)]
enum Event<'a> {
    Created(&'a str),
    FolderMade(&'a str),
    Unlinked(&'a str),
    Renamed(&'a str, &'a str),
    Written {
        path: &'a str,
        offset: usize,
        bytes: &'a [u8],
    },
    Sized {
        path: &'a str,
        size: usize,
    },
    SyncBegin,
    /// Covers what was done to the path before event `began`.
    SyncEnd {
        path: &'a str,
        began: usize,
    },
    Ack(&'a str),
}

fn parse<'a>(mut record: &'a [u8], events: &mut Vec<Event<'a>>) {
    let before = events.len();
    while !record.is_empty() {
        let end = record.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&record[..end]).unwrap();
        record = &record[end + 1..];
        let mut payload = |length: &str| {
            let (bytes, rest) = record.split_at(length.parse().unwrap());
            record = rest;
            bytes
        };
        let fields: Vec<&str> = line.split('\t').collect();
        events.push(match fields[..] {
            ["C", path] => Event::Created(path),
            ["D", path] => Event::FolderMade(path),
            ["U", path] => Event::Unlinked(path),
            ["R", from, to] => Event::Renamed(from, to),
            ["W", path, offset, length] => {
                Event::Written { path, offset: offset.parse().unwrap(), bytes: payload(length) }
            }
            ["T", path, size] => Event::Sized { path, size: size.parse().unwrap() },
            ["B", _] => Event::SyncBegin,
            ["E", path, began] => Event::SyncEnd { path, began: before + began.parse::<usize>().unwrap() },
            ["K", length] => Event::Ack(std::str::from_utf8(payload(length)).unwrap()),
            _ => panic!("{line}"),
        });
    }
}

/// How much of what no sync covers has reached the disk all the same.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    All,
    /// So many sectors of eight, at random, and the first so many changes of names.
    Some(usize),
}

/// A disk with a volatile cache: what is durable, and what was done since, in order.
#[derive(Default)]
struct Disk<'a> {
    files: Vec<File<'a>>,
    /// What the process sees.
    names: BTreeMap<&'a str, usize>,
    /// What a power cut leaves of it.
    durable_names: BTreeMap<&'a str, usize>,
    durable_folders: Vec<&'a str>,
    /// Changes of names that no sync of their folder has covered.
    changes: Vec<(usize, Change<'a>)>,
}

#[derive(Default)]
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<(usize, Data<'a>)>,
}

#[derive(Clone, Copy)]
enum Data<'a> {
    Write(usize, &'a [u8]),
    Size(usize),
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Folder(&'a str),
    Link(&'a str, usize),
    Unlink(&'a str),
    Rename(&'a str, &'a str, usize),
}

impl<'a> Disk<'a> {
    fn take(&mut self, number: usize, event: &Event<'a>) {
        match *event {
            Event::Created(path) => {
                self.names.insert(path, self.files.len());
                self.changes.push((number, Change::Link(path, self.files.len())));
                self.files.push(File::default());
            }
            Event::FolderMade(path) => self.changes.push((number, Change::Folder(path))),
            Event::Unlinked(path) => {
                self.names.remove(path);
                self.changes.push((number, Change::Unlink(path)));
            }
            Event::Renamed(from, to) => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to, file);
                self.changes.push((number, Change::Rename(from, to, file)));
            }
            Event::Written { path, offset, bytes } => self.pending(path, number, Data::Write(offset, bytes)),
            Event::Sized { path, size } => self.pending(path, number, Data::Size(size)),
            Event::SyncEnd { path, began } => match self.names.get(path) {
                Some(file) => {
                    let File { durable, pending } = &mut self.files[*file];
                    for (_, data) in pending.extract_if(.., |(at, _)| *at < began) {
                        data.apply(durable, |_| true);
                    }
                }
                // A folder's names; only a file's own sync covers its bytes.
                None => {
                    for (_, change) in
                        self.changes.extract_if(.., |(at, change)| *at < began && change.folder() == path)
                    {
                        change.apply(&mut self.durable_names, &mut self.durable_folders);
                    }
                }
            },
            Event::SyncBegin | Event::Ack(_) => {}
        }
    }

    fn pending(&mut self, path: &str, number: usize, data: Data<'a>) {
        let file = self.names[path];
        self.files[file].pending.push((number, data));
    }

    /// Writes what the disk may hold after a power cut now.
    fn write(&self, to: &Path, kept: Kept, random: &mut Random) {
        let (mut names, mut folders) = (self.durable_names.clone(), self.durable_folders.clone());
        let changes = match kept {
            Kept::Nothing => 0,
            Kept::All => self.changes.len(),
            Kept::Some(_) => random.below(self.changes.len() + 1),
        };
        for (_, change) in &self.changes[..changes] {
            change.apply(&mut names, &mut folders);
        }
        for folder in folders {
            std::fs::create_dir_all(to.join(folder)).unwrap();
        }
        for (path, file) in names {
            let target: PathBuf = to.join(path);
            if !target.parent().unwrap().exists() {
                continue;
            }
            let File { durable, pending } = &self.files[file];
            let mut content = durable.clone();
            for (_, data) in pending {
                match kept {
                    Kept::Nothing => {}
                    Kept::All => data.apply(&mut content, |_| true),
                    Kept::Some(of_eight) => data.apply(&mut content, |_| random.below(8) < of_eight),
                }
            }
            std::fs::write(&target, content).unwrap();
            std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

impl Data<'_> {
    /// Applies what of it is kept: a write sector by sector.
    fn apply(&self, content: &mut Vec<u8>, mut keep: impl FnMut(usize) -> bool) {
        match *self {
            Self::Size(size) => {
                if keep(0) {
                    content.resize(size, 0);
                }
            }
            Self::Write(offset, bytes) => {
                let mut at = offset;
                while at < offset + bytes.len() {
                    let end = ((at / SECTOR + 1) * SECTOR).min(offset + bytes.len());
                    if keep(at / SECTOR) {
                        content.resize(content.len().max(end), 0);
                        content[at..end].copy_from_slice(&bytes[at - offset..end - offset]);
                    }
                    at = end;
                }
            }
        }
    }
}

impl<'a> Change<'a> {
    fn folder(&self) -> &'a str {
        let (Self::Folder(path) | Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _)) = *self;
        path.rsplit_once('/').map_or(".", |(folder, _)| folder)
    }

    fn apply(self, names: &mut BTreeMap<&'a str, usize>, folders: &mut Vec<&'a str>) {
        match self {
            Self::Folder(path) => folders.push(path),
            Self::Link(path, file) => _ = names.insert(path, file),
            Self::Unlink(path) => _ = names.remove(path),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to, file);
            }
        }
    }
}

/// xorshift: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
