//! The one writer: a thread of its own that turns what has queued into commits.
//!
//! Group commit: whatever has queued while one commit was on its way to the disk makes the next. The order of a commit,
//! and what a crash (SIGKILL or power cut) between its steps leaves behind:
//!
//! ```text
//!   queue ──▶ 1 stage    indices, leaves into a copy of the right edge
//!             2 sign     the checkpoint of the staged tree            nothing on disk yet:        as if never asked
//!             3 put      shred keys into their file; records, private
//!                        halves and checkpoint, one sled batch
//!             4 sync     sled flush, fdatasync of sled's file, and    torn or whole, not acknowledged:
//!                        beside it fdatasync of the shred keys          whole, it is kept (without its private
//!                                                                       halves if their keys are not); else never was
//!             5 head     write, fdatasync                             sled one commit ahead of the head:
//!                                                                       kept, the head is brought forward
//!             6 apply    edge, tiles, published checkpoint
//!             7 acknowledge every waiter                              durable twice over:         found again
//! ```
//!
//! Steps 3 to 5 are `Store::append`. The checkpoint signed in step 2 leaves this process only in step 6, so no one can
//! hold a checkpoint that a power cut then takes back. If one of the steps 3 to 5 fails, the state on disk is unknown: the
//! log refuses for good, every waiter is told so, and nothing is ever signed again until a restart has recomputed the
//! tree. If step 2 fails, because a token does not sign, nothing has been written: the log refuses until it signs again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::added::Added;
use super::checkpoint::Checkpoint;
use super::error::{AppendError, LogError, LogHealth};
use super::pace::{Next, Pace};
use super::shared::Shared;
use super::space::{self, Watermark};
use super::store::{Commit, Stored};
use super::tree::{Hash, RightEdge};
use super::{Appended, LogKeys, Record, Signers};
use crate::trust::note::Verifier;

/// The most bytes of entries and private halves in one commit.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Who waits for an entry.
pub(super) type Waiter = oneshot::Sender<Result<Appended, AppendError>>;

/// What comes through the queue.
pub(super) enum Message {
    /// An entry to append. Holds one place of the queue.
    Append { stored: Stored, leaf: Hash, waiter: Option<Waiter> },
    /// Commit what has queued before this, close the store, answer.
    Close(oneshot::Sender<()>),
    /// Sign by these from now on; the second list has others by which the log has signed.
    Keys(Box<Signers>, Vec<Verifier>, oneshot::Sender<Result<(), LogError>>),
}

/// The writer's own state; nobody else signs or stores.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) receiver: Receiver<Message>,
    pub(super) signers: Signers,
    pub(super) edge: RightEdge,
    pub(super) watermark: Watermark,
    pub(super) max_batch: usize,
    pub(super) batch: Batch,
    pub(super) pace: Pace,
    /// The last checkpoint could not be signed.
    pub(super) unsigned: bool,
}

/// The commit being gathered. Its vectors are used again.
#[derive(Default)]
pub(super) struct Batch {
    stored: Vec<Stored>,
    leaves: Vec<Hash>,
    waiters: Vec<Option<Waiter>>,
    bytes: usize,
    /// How many it had when the writer began to sleep for more.
    before_sleep: Option<usize>,
}

impl Writer {
    /// Runs until the log is closed or its last handle is gone.
    pub(super) fn run(mut self) {
        let mut closing = None;
        while closing.is_none() {
            match self.receiver.recv_timeout(space::INTERVAL) {
                Ok(Message::Close(answer)) => closing = Some(answer),
                Ok(message) => {
                    closing = self.gather(message);
                    self.write();
                }
                Err(RecvTimeoutError::Timeout) => self.look_at_space(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.shared.close();
        // Whoever came after the close finds no store and is told so.
        while let Ok(message) = self.receiver.try_recv() {
            match message {
                Message::Append { waiter, .. } => answer(waiter, Err(AppendError::Closed)),
                Message::Close(other) => _ = other.send(()),
                Message::Keys(_, _, told) => _ = told.send(Err(LogError::Closed)),
            }
        }
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }

    /// Commits one entry here and now, on the thread that has the writer before it runs.
    pub(super) fn append_now(&mut self, record: Record) -> Result<u64, AppendError> {
        let (stored, leaf) = self.shared.prepare(record)?;
        self.shared.room.try_acquire().map_err(|_| AppendError::QueueFull)?.forget();
        let (waiter, mut answer) = oneshot::channel();
        self.batch.push(stored, leaf, Some(waiter));
        self.write();
        answer.try_recv().unwrap_or(Err(AppendError::Closed)).map(|appended| appended.index)
    }

    /// Takes what has queued, up to the caps, and as much more as is worth waiting for; gives back who asks to close.
    fn gather(&mut self, first: Message) -> Option<oneshot::Sender<()>> {
        let began = Instant::now();
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(Message::Append { stored, leaf, waiter }) => self.batch.push(stored, leaf, waiter),
                Some(Message::Close(answer)) => return Some(answer),
                // What has been gathered is signed by the new keys: nobody has been told of it yet.
                Some(Message::Keys(signers, known, told)) => _ = told.send(self.use_keys(*signers, known)),
                None => {}
            }
            let gathered = self.batch.leaves.len();
            if gathered >= self.max_batch || self.batch.bytes >= MAX_BATCH_BYTES {
                return None;
            }
            next = self.receiver.try_recv().ok();
            if next.is_some() {
                continue;
            }
            match self.pace.next(gathered, began.elapsed(), self.shared.expected.load(Ordering::Relaxed)) {
                Next::Write => return None,
                Next::Take(within) => next = self.receiver.recv_timeout(within).ok(),
                Next::Sleep(time) => {
                    self.batch.before_sleep.get_or_insert(gathered);
                    std::thread::sleep(time);
                }
            }
        }
    }

    /// Commits the batch and answers its waiters, whatever happens.
    fn write(&mut self) {
        let count = self.batch.leaves.len();
        let before_sleep = self.batch.before_sleep.take();
        if count == 0 {
            return;
        }
        self.shared.give_room(count);
        metrics::gauge!("kopuro_log_queue_depth").set(self.shared.queued() as f64);
        self.look_at_space();
        if let Some(reason) = self.shared.refusal() {
            return self.batch.refuse(&reason);
        }
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| self.commit())).unwrap_or_else(|_| Err(panicked())) {
            Ok(checkpoint) => {
                let took = started.elapsed();
                self.pace.committed(before_sleep, count, took);
                metrics::histogram!("kopuro_log_commit_entries").record(count as f64);
                metrics::histogram!("kopuro_log_commit_seconds").record(took.as_secs_f64());
                metrics::gauge!("kopuro_log_entries").set(checkpoint.size as f64);
            }
            Err(error @ LogError::Unsigned(_)) => {
                let reason: Arc<str> = error.to_string().into();
                tracing::error!(%reason, size = self.edge.size(), "the log refuses entries until it can sign again");
                self.unsigned = true;
                self.shared.set_health(LogHealth::Refusing { reason: Arc::clone(&reason), until_restart: false });
                self.batch.refuse(&reason);
            }
            Err(error) => {
                let reason = self.fail(&error);
                self.batch.refuse(&reason);
            }
        }
    }

    /// What is on the disk is in doubt: nothing more is signed.
    fn fail(&self, error: &LogError) -> Arc<str> {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(%reason, size = self.edge.size(), "the log failed and refuses until restarted");
        self.shared.set_health(LogHealth::Refusing { reason: Arc::clone(&reason), until_restart: true });
        reason
    }

    /// Steps 1 to 7. An error or panic leaves the writer as it was before the commit, and the disk in doubt.
    fn commit(&mut self) -> Result<Arc<Checkpoint>, LogError> {
        // 1 stage
        let first = self.edge.size();
        let mut edge = self.edge.clone();
        let added = Arc::new(Added::to(&mut edge, std::mem::take(&mut self.batch.leaves)));

        // 2 sign
        let checkpoint = Checkpoint::sign_by(&self.signers, &edge).map_err(LogError::Unsigned)?;
        let checkpoint = Arc::new(checkpoint);

        // 3 put, 4 sync, 5 head
        self.shared.with_store(|store| {
            store.append(&Commit { first, entries: &self.batch.stored, edge: &edge, checkpoint: &checkpoint })
        })?;

        // 6 apply
        let bytes: usize = self.batch.stored.iter().map(|stored| stored.entry.len()).sum();
        let kept = self.shared.kept_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        metrics::gauge!("kopuro_log_bytes").set(kept as f64);
        self.edge = edge;
        let mut tiles = self.shared.tiles.write().unwrap_or_else(PoisonError::into_inner);
        tiles.note_leaves(first, added.leaves());
        added.inner().for_each(|(level, index, hash)| tiles.note(level, index, hash));
        drop(tiles);
        self.shared.checkpoint.send_replace(Arc::clone(&checkpoint));

        // 7 acknowledge
        for (index, waiter) in (first..).zip(self.batch.waiters.drain(..)) {
            if let Some(waiter) = waiter {
                let appended = Appended { index, checkpoint: Arc::clone(&checkpoint), commit: Arc::clone(&added) };
                answer(Some(waiter), Ok(appended));
            }
        }
        self.batch.clear();
        Ok(checkpoint)
    }

    /// Signs by other keys from now on, beginning with the checkpoint that there is: whoever has only the new key can open the
    /// log, and verify what it shows, before the next commit.
    fn use_keys(&mut self, signers: Signers, known: Vec<Verifier>) -> Result<(), LogError> {
        if signers.name() != self.signers.name() {
            return Err(LogError::Checkpoint("the key is another log's"));
        }
        if signers.verifiers() != self.signers.verifiers() {
            if let Some(reason) = self.shared.refusal() {
                return Err(LogError::Store(reason.to_string()));
            }
            let checkpoint = Checkpoint::sign_by(&signers, &self.edge).map_err(LogError::Unsigned)?;
            if let Err(error) = self.shared.with_store(|store| store.replace_head(&checkpoint)) {
                self.fail(&error);
                return Err(error);
            }
            let keys: Vec<String> = signers.verifiers().iter().map(ToString::to_string).collect();
            tracing::info!(keys = keys.join(", "), size = checkpoint.size, "the log signs by other keys than before");
            self.signers = signers;
            self.shared.checkpoint.send_replace(Arc::new(checkpoint));
        }
        self.shared.set_keys(LogKeys::new(&self.signers, known));
        Ok(())
    }

    /// Looks at free space now and then, and whether a checkpoint can be signed again; a log that has failed stays failed.
    fn look_at_space(&mut self) {
        if self.shared.held.load(Ordering::Acquire) {
            return;
        }
        let Some(health) = self.watermark.look() else { return };
        if self.unsigned {
            // Of the tree as it was signed before: the same signature again.
            if Checkpoint::sign_by(&self.signers, &self.edge).is_err() {
                return;
            }
            self.unsigned = false;
            tracing::info!("checkpoints can be signed again");
        }
        let before = self.shared.health.borrow().clone();
        let same = match (&before, &health) {
            (LogHealth::Refusing { .. }, LogHealth::Refusing { .. }) => true,
            (LogHealth::Refusing { until_restart, .. }, _) => *until_restart,
            (LogHealth::LowSpace { .. }, LogHealth::LowSpace { .. }) => true,
            (before, health) => before == health,
        };
        if !same {
            match &health {
                LogHealth::Healthy => tracing::info!("enough free space again"),
                LogHealth::LowSpace { free } => tracing::warn!(free, "free space for the log is low"),
                LogHealth::Refusing { reason, .. } => tracing::error!(%reason, "the log refuses entries"),
            }
            self.shared.set_health(health);
        }
    }
}

impl Batch {
    fn push(&mut self, stored: Stored, leaf: Hash, waiter: Option<Waiter>) {
        self.bytes += stored.entry.len() + stored.sealed.len();
        self.stored.push(stored);
        self.leaves.push(leaf);
        self.waiters.push(waiter);
    }

    fn refuse(&mut self, reason: &Arc<str>) {
        for waiter in self.waiters.drain(..) {
            answer(waiter, Err(AppendError::Refusing(Arc::clone(reason))));
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.stored.clear();
        self.leaves.clear();
        self.waiters.clear();
        self.bytes = 0;
    }
}

/// Tells a waiter, who may have gone.
fn answer(waiter: Option<Waiter>, result: Result<Appended, AppendError>) {
    if let Some(waiter) = waiter {
        let _ = waiter.send(result);
    }
}

fn panicked() -> LogError {
    LogError::Store("the writer panicked".into())
}
