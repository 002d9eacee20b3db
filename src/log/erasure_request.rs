//! Erasure on a running node: whoever may write in its data folder leaves a request there, and finds the answer there.
//!
//! ```text
//! erase-request   {"id": …, "exchanges": [ids] or "before_unix_ms": n, "legal_basis": …, "reason": …}   at most 1 MiB
//! erase-answer    {"id": …, "entries": n, "recorded": [indices]} or {"id": …, "error": …}
//! ```
//!
//! A request is put in its place whole (by a link to a file written before, which fails where another request waits),
//! carried out, answered, and only then removed: after a crash it is carried out again, which leaves out what was
//! done.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::erasure::{Erased, Erasure, IndexRange, Whose};
use super::index::Index;
use super::{Log, LogError};

const REQUEST: &str = "erase-request";
const ANSWER: &str = "erase-answer";
const MOST_BYTES: u64 = 1 << 20;

/// How often whoever waits for an answer looks.
const LOOK: Duration = Duration::from_millis(100);

/// A request as it lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    id: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exchanges: Vec<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before_unix_ms: Option<i64>,
    legal_basis: String,
    reason: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    id: Uuid,
    entries: u64,
    recorded: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Request {
    /// Asks for the erasure of the values of these exchanges.
    pub fn exchanges(exchanges: Vec<Uuid>, legal_basis: String, reason: String) -> Self {
        Self { id: Uuid::now_v7(), exchanges, before_unix_ms: None, legal_basis, reason }
    }

    /// Asks for the erasure of the values of entries made before this time.
    pub fn before(unix_ms: i64, legal_basis: String, reason: String) -> Self {
        Self { id: Uuid::now_v7(), exchanges: Vec::new(), before_unix_ms: Some(unix_ms), legal_basis, reason }
    }

    /// Carries it out. Exchanges whose entries were pruned are found by the index. Blocks.
    pub fn carry_out(&self, log: &Log, index: &Index, now_unix_ms: i64) -> Result<Erased, LogError> {
        let order = |whose| Erasure { whose, legal_basis: self.legal_basis.clone(), reason: self.reason.clone() };
        if let Some(before) = self.before_unix_ms {
            return log.erase_blocking(&order(Whose::Before(before)), now_unix_ms);
        }
        let mut erased = log.erase_blocking(&order(Whose::Exchanges(self.exchanges.clone())), now_unix_ms)?;
        let mut pruned = Vec::new();
        for id in &self.exchanges {
            let found = index.find(id.as_bytes()).map_err(|error| LogError::Store(error.to_string()))?;
            pruned.extend(found.into_iter().filter(|entry| *entry < log.first()));
        }
        if !pruned.is_empty() {
            pruned.sort_unstable();
            let ranges = pruned.into_iter().map(|first| IndexRange { first, count: 1 }).collect();
            let more = log.erase_blocking(&order(Whose::Entries(ranges)), now_unix_ms)?;
            erased.entries += more.entries;
            erased.recorded.extend(more.recorded);
        }
        Ok(erased)
    }

    /// Leaves the request in the data folder of a running node and waits for the answer. Blocks, no longer than
    /// `patience`.
    pub fn ask(&self, data: &Path, patience: Duration) -> Result<Erased, LogError> {
        let (request, new) = (data.join(REQUEST), data.join(format!("{REQUEST}.{}", self.id)));
        let failed = |what: &str| LogError::ErasureIncomplete(what.into());
        write(&new, &serde_json::to_vec(self).unwrap_or_default())?;
        let put = std::fs::hard_link(&new, &request);
        let _ = std::fs::remove_file(&new);
        put.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => failed("another request waits in the folder"),
            _ => LogError::io(&request)(error),
        })?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let answer = read::<Answer>(&data.join(ANSWER)).ok().flatten();
            match answer.filter(|answer| answer.id == self.id) {
                Some(Answer { error: Some(error), .. }) => return Err(LogError::ErasureIncomplete(error)),
                Some(Answer { entries, recorded, .. }) => return Ok(Erased { entries, recorded }),
                None => std::thread::sleep(LOOK),
            }
        }
        Err(failed("the node has not answered yet, and goes on with it"))
    }
}

/// Carries out a request that waits in the log's folder, if one does, and answers it.
pub(super) fn serve(log: &Log, index: &Index, now_unix_ms: i64) -> Result<(), LogError> {
    let data = &log.shared.folder;
    let path = data.join(REQUEST);
    let answer = match read::<Request>(&path) {
        Ok(None) => return Ok(()),
        Ok(Some(request)) => {
            let answer = Answer { id: request.id, ..Answer::default() };
            match request.carry_out(log, index, now_unix_ms) {
                Ok(Erased { entries, recorded }) => Answer { entries, recorded, ..answer },
                Err(error) => Answer { error: Some(error.to_string()), ..answer },
            }
        }
        Err(error) => Answer { error: Some(error.to_string()), ..Answer::default() },
    };
    if let Some(error) = &answer.error {
        tracing::error!(%error, "a request to erase failed");
    }
    let new = data.join("erase-answer.new");
    write(&new, &serde_json::to_vec(&answer).unwrap_or_default())?;
    std::fs::rename(&new, data.join(ANSWER)).map_err(LogError::io(&new))?;
    std::fs::remove_file(&path).map_err(LogError::io(&path))
}

fn write(path: &Path, content: &[u8]) -> Result<(), LogError> {
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map_err(LogError::io(path))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, LogError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io(path)(error)),
    };
    let mut content = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut content).map_err(LogError::io(path))?;
    let parsed = serde_json::from_slice(&content).map_err(std::io::Error::other);
    parsed.map(Some).map_err(LogError::io(path))
}
