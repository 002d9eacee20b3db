//! Summaries of the published entries, for those who do not read every entry: `open-data/summary.json` of the whole log and
//! `open-data/summary-YYYY-MM.json` of each month.
//!
//! They are counted from the rows of open data ([`super::open_data`]), and so show nothing that the leaves do not. Counted is
//! what ends an exchange on this log's side, and auditors' looks; hidden entries by their class alone. Their size has a limit
//! however long the log: so many groups, days and months. What is beyond is counted under `…`. They are derived: where the kept
//! state is gone they are counted again from the first entry that the log still has.

mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::{PublishError, Shared, open_data};
use crate::log::entry::Entry;
use crate::log::{Log, LogError};
use crate::trust::file::{self, Access, Existing};
use tally::Tally;

/// Entries counted in one go, and how long a turn may go on counting.
const STRIDE: u64 = 1 << 16;
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// How often files are written while entries come.
const EVERY: Duration = Duration::from_secs(5);

/// A kept state that is larger is none.
const MOST_KEPT: u64 = 64 << 20;

const DAY_MS: i64 = 86_400_000;

/// Counts what is published; one per publisher.
pub(super) struct Summaries {
    shared: Arc<Shared>,
    tally: Option<Tally>,
    /// Whether the files in the store are those of an older state.
    stale: bool,
    written: Option<Instant>,
}

impl Summaries {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tally: None, stale: true, written: None }
    }

    /// Counts what has been published since, and writes the files: at the last turn all of it, else as time allows.
    pub(super) async fn turn(&mut self, last: bool) -> Result<(), PublishError> {
        if !self.shared.options.open_data {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let mut tally = match self.tally.take() {
                Some(tally) => tally,
                None => self.kept().await?,
            };
            let published = self.shared.published.borrow().as_ref().map_or(0, |published| published.size);
            let (log, before) = (self.shared.log.clone(), tally.entries);
            let until = published.min(before.saturating_add(STRIDE));
            let (counted, month_over) = tokio::task::spawn_blocking(move || {
                let over = count(&log, &mut tally, until);
                (tally, over)
            })
            .await?;
            let all_counted = counted.entries >= published;
            self.stale |= counted.entries != before;
            let tally = self.tally.insert(counted);
            let month_over = month_over?;
            let due = self
                .written
                .is_none_or(|written| written.elapsed() >= EVERY || (all_counted && before == tally.entries));
            if self.stale && (month_over || last || due) {
                self.write().await?;
            }
            if let Some(tally) = self.tally.as_mut().filter(|_| month_over) {
                // What is over is written and stays.
                tally.next_month();
            } else if all_counted || (!last && began.elapsed() >= LONGEST_TURN) {
                return Ok(());
            }
        }
    }

    /// The store has lost files.
    pub(super) fn lost(&mut self) {
        self.stale = true;
    }

    async fn write(&mut self) -> Result<(), PublishError> {
        let Some(tally) = &self.tally else { return Ok(()) };
        let (path, state) = (self.kept_file(), serde_json::to_vec(tally).unwrap_or_default());
        let kept = path.clone();
        let write = move || file::write(&kept, &state, Access::Public, Existing::Replace);
        tokio::task::spawn_blocking(write).await?.map_err(PublishError::file(&path))?;
        let month = tally.month_name().map(|month| (format!("summary-{month}.json"), tally.month_json()));
        // The whole last: it says how far the months go.
        let files = month.into_iter().chain([("summary.json".to_owned(), tally.json(self.shared.log.keys().origin()))]);
        for (name, text) in files {
            if let Some(served) = open_data::served(&name) {
                self.shared.files.put(&format!("open-data/{name}"), Bytes::from(text), served).await?;
            }
        }
        self.shared.summed.store(tally.entries, std::sync::atomic::Ordering::Relaxed);
        (self.stale, self.written) = (false, Some(Instant::now()));
        Ok(())
    }

    /// The state as it was kept; a new one where there is none that goes with the log.
    async fn kept(&self) -> Result<Tally, PublishError> {
        let path = self.kept_file();
        let member = self.shared.options.node.split("/_node").next().unwrap_or_default();
        let size = tokio::fs::metadata(&path).await.map_or(0, |found| found.len());
        let kept = match size {
            0 => None,
            1..=MOST_KEPT => {
                let text = tokio::fs::read(&path).await.map_err(PublishError::file(&path))?;
                serde_json::from_slice::<Tally>(&text).ok()
            }
            _ => None,
        };
        let logged = self.shared.log.checkpoint().size;
        let kept = kept.filter(|tally| tally.goes_on(member) && tally.entries <= logged);
        if kept.is_none() && size > 0 {
            tracing::warn!(path = %path.display(), "no summary that goes with this log: counted again");
        }
        Ok(kept.unwrap_or_else(|| Tally::new(member, self.shared.log.first())))
    }

    fn kept_file(&self) -> PathBuf {
        self.shared.options.folder.join("open-data.summary")
    }
}

/// Counts entries up to `until`, or up to one of a later month: whether there is such a one. Blocks shortly.
fn count(log: &Log, tally: &mut Tally, until: u64) -> Result<bool, LogError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
    let today = now.div_euclid(DAY_MS);
    tally.entries = tally.entries.max(log.first().min(until));
    while tally.entries < until {
        let entries = log.read(tally.entries, usize::try_from(until - tally.entries).unwrap_or(usize::MAX))?;
        if entries.is_empty() {
            break;
        }
        for bytes in entries {
            // One of a later version shows what this one knows.
            let entry = Entry::decode(bytes).unwrap_or_default();
            let day = open_data::row::day(&entry).filter(|day| *day <= today);
            if !tally.begins(day) {
                return Ok(true);
            }
            tally.count(open_data::row::see(tally.entries, entry));
        }
    }
    Ok(false)
}
