//! Retention: how long private values and published entries are kept, and the thread that sees to it. The same thread
//! carries out requests to erase that are left in the data folder.
//!
//! It works in small steps with rests between, so that the writer has the disk to itself for most of the time, and
//! never waits for it nor makes it wait. A failure is told and tried again; it harms nothing but room.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::erasure::{Erased, Erasure, Whose};
use super::erasure_request;
use super::index::{Index, IndexError};
use super::{Log, LogError, Prune};

/// How often to look for requests to erase.
const LOOK: Duration = Duration::from_secs(1);

/// The rest between two steps of pruning.
const REST: Duration = Duration::from_millis(50);

/// The reason of entries that retention makes.
pub const REASON: &str = "RETENTION";

/// What is kept for how long. Nothing set, all is kept for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// K and private values are erased when their entry is this old.
    pub private_values: Option<Duration>,
    /// Published entries leave the store when they are this old.
    pub entries: Option<Duration>,
    /// Published entries leave the store, oldest first, while all entries in it have more bytes than this.
    pub entries_size: Option<u64>,
    /// Code of the law that sets the term, for the entries that say what was erased.
    pub legal_basis: String,
    /// How often to look.
    pub every: Duration,
}

/// What one round has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was erased.
    pub erased: Erased,
    /// How many entries were pruned.
    pub pruned: u64,
}

impl Retention {
    /// Whether there is anything to do at all.
    pub fn is_idle(&self) -> bool {
        self.private_values.is_none() && self.entries.is_none() && self.entries_size.is_none()
    }

    /// One round. Entries from `until` on are not pruned: the index may not have seen them. Blocks.
    pub fn round(
        &self,
        log: &Log,
        until: u64,
        now_unix_ms: i64,
        mut rest: impl FnMut() -> bool,
    ) -> Result<Kept, LogError> {
        let mut kept = Kept::default();
        let ago = |age| ago(now_unix_ms, age);
        if let Some(age) = self.private_values {
            let whose = Whose::Before(ago(age));
            let erasure = Erasure { whose, legal_basis: self.legal_basis.clone(), reason: REASON.into() };
            kept.erased = log.erase_blocking(&erasure, now_unix_ms)?;
        }
        if self.entries.is_some() || self.entries_size.is_some() {
            let rule = Prune { before_unix_ms: self.entries.map(ago), most_bytes: self.entries_size, until };
            loop {
                match log.shared.prune_step(&rule, now_unix_ms)? {
                    0 => break,
                    more => kept.pruned += more,
                }
                if !rest() {
                    break;
                }
            }
        }
        Ok(kept)
    }
}

/// The thread that keeps a log within its retention. Dropping it stops the thread and waits for it: as long as one
/// erasure or one step of pruning takes.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it. Pruning goes no further than the index has got.
    pub fn start(retention: Retention, log: Log, index: Index) -> Result<Self, LogError> {
        let (stop, stopped) = sync_channel(1);
        let run = move || {
            // Not at once: a node that starts has other things to do.
            let mut wait = retention.every.min(Duration::from_secs(10));
            let mut looked = Instant::now();
            while rest(&stopped, wait.min(LOOK)) {
                if let Err(error) = erasure_request::serve(&log, &index, unix_ms()) {
                    tracing::error!(%error, "a request to erase cannot be answered");
                }
                if looked.elapsed() < wait || retention.is_idle() {
                    continue;
                }
                (wait, looked) = (retention.every, Instant::now());
                let now = unix_ms();
                let (round, until) = match unopened(&retention, &index, now) {
                    Ok(round) => round,
                    Err(error) => {
                        tracing::error!(%error, "retention does not get on; trying again");
                        continue;
                    }
                };
                match round.round(&log, until, now, || rest(&stopped, REST)) {
                    Ok(kept) if kept != Kept::default() => {
                        tracing::info!(erased = kept.erased.entries, pruned = kept.pruned, "retention");
                    }
                    Ok(_) => {}
                    Err(LogError::Closed) => return,
                    Err(error) => tracing::error!(%error, "retention does not get on; trying again"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("retention".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::Store(format!("no thread for retention: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst; what it began is finished at the next start.
            let _ = thread.join();
        }
    }
}

/// What a round may do while delayed entries that are due are still to be opened (the node may have stood still for
/// longer than the term), and how far it may prune.
fn unopened(retention: &Retention, index: &Index, now_unix_ms: i64) -> Result<(Retention, u64), IndexError> {
    let mut round = retention.clone();
    if let Some(age) = round.private_values
        && !index.due(ago(now_unix_ms, age), 0, 1)?.is_empty()
    {
        round.private_values = None;
    }
    let first = index.due(now_unix_ms, 0, 1)?.first().copied();
    Ok((round, first.unwrap_or(u64::MAX).min(index.indexed_size())))
}

/// The time that long before another.
fn ago(unix_ms: i64, age: Duration) -> i64 {
    unix_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Rests, and says whether to go on.
fn rest(stopped: &Receiver<()>, time: Duration) -> bool {
    matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
