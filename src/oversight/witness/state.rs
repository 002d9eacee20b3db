//! What a witness has cosigned: one file for each log, replaced in one step and durable before the answer leaves.
//!
//! ```text
//! witness                          "kopuro witness v1\n" "key " vkey "\n" ("log " origin "\n")* "sha256 " hex "\n"
//! <SHA-256 of origin>.checkpoint   the last checkpoint cosigned: the log's signature and the witness's own
//! evidence/<hash>-<hash>           two checkpoints of one log, both signed by it, that contradict each other
//! lock                             held while a witness runs on the folder
//! ```
//!
//! A witness that forgets can be led to cosign a second history. So the folder is made once, with the key; the list
//! `witness` says which logs have a file; and whatever is missing, damaged, or not cosigned by this very key makes the
//! state refuse to open. A log's first checkpoint is in its file before it is in the list: a crash between the two
//! leaves a file more than the list knows, which is good, never one less.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::log::Checkpoint;
use crate::trust::file::{Access, Existing, write};
use crate::trust::note::{Note, Verifier};

const LIST: &str = "witness";
const HEADER: &str = "kopuro witness v1";
const EXTENSION: &str = "checkpoint";
const EVIDENCE: &str = "evidence";
/// As many contradictions of one log are kept: one is proof enough, more only fill the disk.
const MAX_EVIDENCE: usize = 16;
/// No file of ours is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no state to go on from.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder holds no state, or that of another time has been taken away.
    #[error("{0}: no witness's state; it is made with the key: kopuro witness keygen")]
    Missing(PathBuf),
    /// There is one already.
    #[error("{0} already holds a witness's state; a witness that starts anew needs a new key")]
    Exists(PathBuf),
    /// Another process runs on it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// A file is not as this witness left it.
    #[error("{path}: {what}; a witness that forgets must not go on: restore the file, or retire the key")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The last checkpoint that a witness cosigned of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// With the log's signature and the witness's.
    pub checkpoint: Checkpoint,
    /// The time of the cosignature, Unix seconds.
    pub time: u64,
    /// The cosignature line, as it was answered.
    pub line: String,
}

impl Seen {
    /// Reads what a witness with this key has cosigned.
    fn verify(note: &str, key: &Verifier) -> Result<Self, String> {
        let checkpoint = Checkpoint::parse(note).map_err(|error| error.to_string())?;
        let note = Note::parse(note).map_err(|error| error.to_string())?;
        let own = note.signatures().iter().find(|signature| signature.is_of(key));
        let own = own.ok_or_else(|| format!("it has no cosignature of {key}"))?;
        let time = key.cosigned_at(note.text(), &own.bytes).ok_or("its cosignature is not of this checkpoint")?;
        Ok(Self { checkpoint, time, line: own.to_string() })
    }
}

/// The SHA-256 of a log's origin in hex: its file's name, and its place among what is served.
pub(super) fn origin_hash(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}

/// A witness's state folder, held by this process.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    key: Verifier,
    listed: Mutex<BTreeSet<String>>,
    /// Held, never written: the lock ends with it.
    _lock: File,
}

impl State {
    /// Makes the state of a new witness, empty.
    pub fn create(folder: &Path, key: &Verifier) -> Result<(), StateError> {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(LIST);
        // Whatever is there may be what is left of a state.
        if path.exists() || !checkpoint_files(folder)?.is_empty() {
            return Err(StateError::Exists(folder.into()));
        }
        write(&path, list(key, &BTreeSet::new()).as_bytes(), Access::Public, Existing::Keep).map_err(io(&path))
    }

    /// Opens the state of the witness with this key, and all that it has seen, every file verified.
    pub fn open(folder: &Path, key: &Verifier) -> Result<(Self, Vec<Seen>), StateError> {
        let path = folder.join("lock");
        if !folder.join(LIST).exists() {
            return Err(StateError::Missing(folder.into()));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StateError::InUse(folder.into()))?;
        let (found, seen) = Self::read(folder)?;
        if found != *key {
            return Err(damaged(&folder.join(LIST), format!("it is the state of {found}, and the key is {key}")));
        }
        let origins: BTreeSet<String> = seen.iter().map(|seen| seen.checkpoint.origin.clone()).collect();
        let state = Self { folder: folder.into(), key: found, listed: Mutex::default(), _lock: lock };
        // After a crash between a first checkpoint and the list.
        state.put_on_list(origins)?;
        Ok((state, seen))
    }

    /// Reads a state without holding it: whose it is and what it has seen, by origin.
    pub fn read(folder: &Path) -> Result<(Verifier, Vec<Seen>), StateError> {
        let path = folder.join(LIST);
        if !path.exists() {
            return Err(StateError::Missing(folder.into()));
        }
        let (key, mut listed) = parse_list(&read_text(&path)?).ok_or_else(|| damaged(&path, "it is damaged"))?;
        let mut all = Vec::new();
        for path in checkpoint_files(folder)? {
            let seen = Seen::verify(&read_text(&path)?, &key).map_err(|what| damaged(&path, what))?;
            if path.file_stem() != Some(OsStr::new(&origin_hash(&seen.checkpoint.origin))) {
                return Err(damaged(&path, format!("it is of the log {}", seen.checkpoint.origin)));
            }
            listed.remove(&seen.checkpoint.origin);
            all.push(seen);
        }
        if let Some(origin) = listed.first() {
            let path = folder.join(origin_hash(origin)).with_extension(EXTENSION);
            return Err(damaged(&path, format!("it is gone, and the log {origin} has been cosigned")));
        }
        all.sort_by(|one, other| one.checkpoint.origin.cmp(&other.checkpoint.origin));
        Ok((key, all))
    }

    /// The files of contradictions that a witness has kept.
    pub fn evidence(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
        let folder = folder.join(EVIDENCE);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(io(&folder))? {
            files.push(entry.map_err(io(&folder))?.path());
        }
        files.sort();
        Ok(files)
    }

    /// Puts a checkpoint in the place of the last one of its log. On return it is durable.
    pub(super) fn remember(&self, seen: &Seen) -> Result<(), StateError> {
        let origin = &seen.checkpoint.origin;
        let path = self.folder.join(origin_hash(origin)).with_extension(EXTENSION);
        write(&path, seen.checkpoint.note.as_bytes(), Access::Public, Existing::Replace).map_err(io(&path))?;
        self.put_on_list([origin.clone()])
    }

    /// Keeps two checkpoints that cannot both be true, where there is room. Says whether it was news.
    pub(super) fn keep_evidence(&self, origin: &str, cosigned: &str, other: &str) -> Result<bool, StateError> {
        let folder = self.folder.join(EVIDENCE);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let log = origin_hash(origin);
        let path = folder.join(format!("{log}-{}", hex::encode(Sha256::digest(other))));
        let of_log = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(&log));
        let kept = std::fs::read_dir(&folder).map_err(io(&folder))?.filter_map(Result::ok);
        if path.exists() || kept.filter(|entry| of_log(&entry.file_name())).count() >= MAX_EVIDENCE {
            return Ok(false);
        }
        write(&path, format!("{cosigned}\n{other}").as_bytes(), Access::Public, Existing::Replace)
            .map_err(io(&path))?;
        Ok(true)
    }

    fn put_on_list(&self, origins: impl IntoIterator<Item = String>) -> Result<(), StateError> {
        // Poisoned or not, the set is what the file has, or more.
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = listed.clone();
        all.extend(origins);
        if all.len() == listed.len() {
            return Ok(());
        }
        let path = self.folder.join(LIST);
        write(&path, list(&self.key, &all).as_bytes(), Access::Public, Existing::Replace).map_err(io(&path))?;
        *listed = all;
        Ok(())
    }
}

fn list(key: &Verifier, origins: &BTreeSet<String>) -> String {
    let mut text = format!("{HEADER}\nkey {key}\n");
    for origin in origins {
        text.push_str(&format!("log {origin}\n"));
    }
    let digest = hex::encode(Sha256::digest(&text));
    text.push_str(&format!("sha256 {digest}\n"));
    text
}

fn parse_list(text: &str) -> Option<(Verifier, BTreeSet<String>)> {
    let mut lines = text.lines();
    let key = lines.nth(1)?.strip_prefix("key ")?.parse().ok()?;
    let origins = lines.filter_map(|line| line.strip_prefix("log ")).map(Into::into).collect();
    // Whole, and nothing else in it: it would be written so.
    (list(&key, &origins) == text).then_some((key, origins))
}

fn checkpoint_files(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        if path.extension() == Some(OsStr::new(EXTENSION)) {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_text(path: &Path) -> Result<String, StateError> {
    let length = std::fs::metadata(path).map_err(io(path))?.len();
    if length > MAX_BYTES {
        return Err(damaged(path, format!("it has {length} bytes")));
    }
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::InvalidData => damaged(path, "it is not UTF-8"),
        _ => io(path)(source),
    })
}

fn damaged(path: &Path, what: impl Into<String>) -> StateError {
    StateError::Damaged { path: path.into(), what: what.into() }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path: path.clone(), source }
}
