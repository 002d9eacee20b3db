//! Free space where the log is, and what follows from it: below one mark the log warns, below the other it refuses,
//! while there is still room to open it and look. It takes entries again as soon as there is space again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::LogHealth;
use super::sled_store::SledStore;

/// How often the writer looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The watermark of one folder.
#[derive(Debug)]
pub(super) struct Watermark {
    pub(super) folder: PathBuf,
    pub(super) warn: u64,
    pub(super) refuse: u64,
    pub(super) looked: Option<Instant>,
}

impl Watermark {
    /// The health that free space allows, where it is time to look again.
    pub(super) fn look(&mut self) -> Option<LogHealth> {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now.duration_since(looked) < INTERVAL) {
            return None;
        }
        self.looked = Some(now);
        let free = match rustix::fs::statvfs(&self.folder) {
            Ok(at) => at.f_bavail.saturating_mul(at.f_frsize),
            // A file system that cannot say is about to say worse at the next write.
            Err(error) => {
                let reason = format!("cannot tell the free space: {error}").into();
                return Some(LogHealth::Refusing { reason, until_restart: false });
            }
        };
        metrics::gauge!("kopuro_log_free_bytes").set(free as f64);
        if let Ok(store) = std::fs::metadata(SledStore::file_of(&self.folder)) {
            metrics::gauge!("kopuro_log_store_bytes").set(store.len() as f64);
        }
        Some(if free < self.refuse {
            let reason = format!("{free} bytes free, below the mark of {}", self.refuse).into();
            LogHealth::Refusing { reason, until_restart: false }
        } else if free < self.warn {
            LogHealth::LowSpace { free }
        } else {
            LogHealth::Healthy
        })
    }
}
