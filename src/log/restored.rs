//! A log that was put back from a backup, until it is known that no newer one was shown to anybody.
//!
//! The file `restored` in the data folder says so. While it is there the log opens, can be read and shown, and takes no entry: nothing is
//! signed. Whoever can find out (the node asks peers, witnesses and its publication) removes it by [`Log::confirm_restored`], or writes
//! into it what stands against that: a checkpoint, signed by this log's key, of more entries than were restored, or of other ones. From
//! then on the log is for reading only, and a node does not open it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::error::{LogError, LogHealth};
use super::{Checkpoint, Log};
use crate::trust::file::{self, Access, Existing};

/// The file's name in the data folder.
pub(super) const FILE: &str = "restored";
const FORMAT: &str = "kopuro-restored/v1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    format: String,
    /// How many entries were restored.
    pub size: u64,
    /// When the backup was made, Unix milliseconds.
    pub backup_unix_ms: i64,
    /// When it was restored.
    pub restored_unix_ms: i64,
    /// Whose answer is not waited for, as the operator says: nodes by identity, witnesses by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// What was shown to others of this log beyond what was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<Beyond>,
}

/// A checkpoint of this log that what was restored does not lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beyond {
    /// Who has it.
    pub seen_by: String,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Marker {
    /// Of a log of this size, restored now.
    pub fn new(size: u64, backup_unix_ms: i64, restored_unix_ms: i64) -> Self {
        Self { format: FORMAT.into(), size, backup_unix_ms, restored_unix_ms, without: Vec::new(), beyond: None }
    }

    /// What a data folder's says, where it has one.
    pub fn read(folder: &Path) -> Result<Option<Self>, LogError> {
        let path = folder.join(FILE);
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io(path)(error)),
        };
        let marker: Result<Self, _> = serde_json::from_slice(&content);
        let wrong = |what: String| LogError::io(&path)(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        let marker = marker.map_err(|error| wrong(error.to_string()))?;
        if marker.format != FORMAT {
            return Err(wrong(format!("its format is {:?}, and this version reads {FORMAT:?}", marker.format)));
        }
        Ok(Some(marker))
    }

    /// Puts it into a data folder, in place of the one there was; durable.
    pub fn write(&self, folder: &Path) -> Result<(), LogError> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        file::write(&path, &text, Access::Secret, Existing::Replace).map_err(LogError::io(path))
    }

    /// Why a log with this marker is not opened for writing.
    pub(super) fn refusal(&self) -> Option<LogError> {
        let beyond = self.beyond.as_ref()?;
        let seen = Checkpoint::parse(&beyond.checkpoint).map_or(self.size, |checkpoint| checkpoint.size);
        Some(LogError::Continued { size: self.size, seen, seen_by: beyond.seen_by.clone() })
    }
}

impl Log {
    /// What the data folder says of having been restored; none where the log is as it was left.
    pub fn restored(&self) -> Result<Option<Marker>, LogError> {
        Marker::read(&self.shared.folder)
    }

    /// Says why a restored log takes no entries yet.
    pub fn hold(&self, reason: &str) {
        if self.shared.held.load(Ordering::Acquire) {
            self.shared.set_health(LogHealth::Refusing { reason: Arc::from(reason), until_restart: false });
        }
    }

    /// A newer log, or another, was shown to somebody: this one is for reading only from now on, after a restart too.
    pub fn refuse_restored(&self, beyond: Beyond) -> Result<(), LogError> {
        let Some(mut marker) = self.restored()? else { return Ok(()) };
        marker.beyond = Some(beyond);
        marker.write(&self.shared.folder)?;
        if let Some(refusal) = marker.refusal() {
            self.hold(&refusal.to_string());
        }
        Ok(())
    }

    /// No newer log was shown to anybody: from now on this one takes entries. Durable on return.
    pub fn confirm_restored(&self) -> Result<(), LogError> {
        let path = self.shared.folder.join(FILE);
        std::fs::remove_file(&path).map_err(LogError::io(&path))?;
        let synced = std::fs::File::open(&self.shared.folder).and_then(|folder| folder.sync_all());
        synced.map_err(LogError::io(&self.shared.folder))?;
        self.shared.held.store(false, Ordering::Release);
        metrics::gauge!("kopuro_log_restored").set(0.0);
        self.shared.set_health(LogHealth::Healthy);
        Ok(())
    }
}
