//! What a monitor remembers: `state.json`, replaced in one step, and a lock.

use std::fs::{File, TryLockError};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::exchanges::{HORIZON_MS, Saved};
use super::follow::Between;
use super::{Condition, MonitorError};
use crate::trust::file::{Access, Existing, write};

const FILE: &str = "state.json";
const VERSION: u32 = 1;

/// Hidden entries closer to each other than this are told as one run of them.
const RUN_MS: i64 = 600_000;

/// Everything but the waiting exchanges themselves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// By number; a log keeps its number for good.
    pub(super) logs: Vec<LogState>,
    pub(super) exchanges: Saved,
    /// Files with two checkpoints that contradict each other.
    pub(super) evidence: Vec<String>,
}

/// What is remembered of a log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogState {
    pub(super) origin: String,
    /// Told by the operator, or by the log's own entries.
    pub(super) member: Option<String>,
    /// The last checkpoint seen, signed.
    pub(super) checkpoint: Option<String>,
    /// Entries that have been read.
    pub(super) read: u64,
    /// The latest time that they tell.
    pub(super) time_ms: i64,
    /// When the checkpoint was last found good.
    pub(super) good_ms: i64,
    pub(super) delayed: u64,
    pub(super) sealed: u64,
    pub(super) unreadable: u64,
    /// The first of them, and why.
    pub(super) first_unreadable: Option<(u64, String)>,
    /// Entries that accuse a peer's log, and the first few of them.
    pub(super) accusations: u64,
    pub(super) accused: Vec<(u64, String)>,
    /// Why it is no longer followed: two histories.
    pub(super) forked: Option<String>,
    /// Between which times it has hidden entries, ascending.
    #[serde(default)]
    pub(super) hidden: Vec<(i64, i64)>,
}

impl State {
    pub(super) fn read(folder: &Path) -> Result<Self, MonitorError> {
        let path = folder.join(FILE);
        let empty = Self { version: VERSION, logs: Vec::new(), exchanges: Saved::default(), evidence: Vec::new() };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(empty),
            Err(error) => return Err(MonitorError::state(&path, error)),
        };
        let state: Self = serde_json::from_str(&text).map_err(|error| MonitorError::state(&path, error))?;
        if state.version != VERSION {
            return Err(MonitorError::state(
                &path,
                format!("version {}, this monitor writes {VERSION}", state.version),
            ));
        }
        Ok(state)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), MonitorError> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| MonitorError::state(&path, error))?;
        write(&path, &text, Access::Public, Existing::Replace).map_err(|error| MonitorError::state(&path, error))
    }

    /// The number of the log with this origin; a new one where there is none.
    pub(super) fn number_of(&mut self, origin: &str) -> usize {
        let known = self.logs.iter().position(|log| log.origin == origin);
        known.unwrap_or_else(|| {
            self.logs.push(LogState { origin: origin.into(), ..LogState::default() });
            self.logs.len() - 1
        })
    }
}

impl LogState {
    /// Takes in between which times a bundle has hidden entries; `first_ms` is the first time that it tells. Before what it tells
    /// itself is taken: [`Self::time_ms`] is the last time before it.
    pub(super) fn add_hidden(&mut self, first_ms: Option<i64>, hidden: &[Between]) {
        if let (Some(first), Some((from, until @ i64::MAX))) = (first_ms, self.hidden.last_mut()) {
            *until = first.max(*from);
        }
        for (before, behind) in hidden {
            // Clocks that go back must not make a run end before it begins.
            let from = before.unwrap_or(self.time_ms);
            let until = behind.unwrap_or(i64::MAX).max(from);
            match self.hidden.last_mut() {
                Some((first, last)) if from <= last.saturating_add(RUN_MS) => {
                    *first = from.min(*first);
                    *last = until.max(*last);
                }
                _ => self.hidden.push((from, until)),
            }
        }
        let forgotten = self.time_ms.saturating_sub(HORIZON_MS);
        self.hidden.retain(|(_, until)| *until >= forgotten);
    }

    /// A log that has forked stays so: nothing that it shows later makes up for it.
    pub(super) fn condition(&self, now: Condition) -> Condition {
        self.forked.clone().map_or(now, Condition::Forked)
    }
}

/// One monitor per state.
pub(super) fn lock(folder: &Path) -> Result<File, MonitorError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| MonitorError::state(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(MonitorError::Locked(folder.display().to_string())),
        Err(TryLockError::Error(error)) => Err(MonitorError::state(&path, error)),
    }
}
