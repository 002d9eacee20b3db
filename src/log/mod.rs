//! The append-only log: entries, their Merkle tree, durable commits, proofs, signed checkpoints, derived indexes.
//!
//! In: [`Record`]s, sealed from a [`entry::Draft`]. Out: their indices, once they are durable under a signed
//! [`Checkpoint`]; entries' bytes; proofs. The room knows nothing of gRPC and nothing of what an exchange may do. Its
//! invariants, each kept in one place:
//!
//! - what was acknowledged survives SIGKILL and power cuts, or the log refuses to open and says what is lost
//!   ([`commit`], `store`, `recovery`);
//! - no history is ever signed over: after any failure nothing is signed until a restart has recomputed the tree;
//! - readers see durable entries only, under the checkpoint that covers them.
//!
//! ```text
//! entry       Draft, Record, the exchange's key      commitment  what an entry commits to, and openings    (pure)
//! tree proof  RFC 6962                     (pure)    checkpoint  the signed statement of size and root
//! tile        C2SP tiles and bundles       (pure)    hidden      entries that show commitments only, and their opening
//! seal shred  private halves, and what destroys them sealing_key where their key comes from; token: from PKCS#11
//! store       append, read, head: the seam           records     keys and values of the store behind it     (pure)
//! entry_proof what a node shows another    (pure)
//! tlog_proof  C2SP proofs that stand alone (pure)
//! commit      the one writer thread                  recovery    opening: recompute, compare, refuse
//! added       what a commit adds to the tree (pure)
//! due         opening delayed entries in time        opening     files that open fields to somebody outside (pure)
//! space       the watermark                          verify      the same checks for an auditor, with public keys
//! backup      written while it grows, restored        restored   what was put back signs nothing until it is confirmed
//! keys        what it signs by, and has signed by
//! erasure(_request)  private values destroyed, and said  prune       published entries leave the store; retention: when
//! ```

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::trust::note::Verifier;

mod added;
pub mod backup;
pub mod checkpoint;
pub mod closed;
mod commit;
pub mod commitment;
pub mod due;
pub mod entry;
pub mod entry_proof;
pub mod erasure;
pub mod erasure_request;
mod error;
pub mod further;
mod head;
pub mod hidden;
pub mod index;
mod keys;
pub mod opening;
mod pace;
pub mod proof;
mod prune;
mod records;
mod recovery;
pub mod restored;
pub mod retention;
mod seal;
pub mod sealing_key;
mod shared;
mod shred;
mod sled_store;
mod space;
mod store;
pub mod tile;
pub mod tlog_proof;
mod token;
pub mod tree;
pub mod verify;

use added::Added;
pub use checkpoint::Checkpoint;
use commit::{Message, Writer};
pub use entry::Record;
use entry::{Entry, Side};
use erasure::{Erased, Erasure};
pub use error::{AppendError, LogError, LogHealth};
use head::Head;
use hidden::Seen;
pub use keys::{LogKeys, Signers};
pub use prune::Prune;
use seal::Seal;
use sealing_key::SealingKeySource;
use shared::{Parts, Shared, StoredTree};
use sled_store::SledStore;
use space::Watermark;
use store::{Base, Store};
use tree::{Hash, Subtrees, TILE_LEVELS};

/// About how many bytes of entries one [`Log::read`] gives.
const READ_BYTES: usize = 1 << 20;

/// Where a log is and how it behaves.
#[derive(Debug)]
pub struct LogOptions {
    /// The data folder; made where missing. The log has `head`, `seal.key`, `shred/` and `sled/` in it.
    pub folder: PathBuf,
    /// The log's key, or two while it is changed. Their name is the log's origin.
    pub signers: Signers,
    /// Other keys by which the log has signed what is in the folder.
    pub known_keys: Vec<Verifier>,
    /// Where the key comes from that seals private halves. Usually `seal.key` in the folder.
    pub sealing_key: SealingKeySource,
    /// Where entries that were pruned can be had, for those who ask. Usually `https://` and the origin.
    pub published_at: String,
    /// How many appends may wait in the queue.
    pub queue: usize,
    /// How long an append waits for room in the queue.
    pub queue_wait: Duration,
    /// The most entries in one commit.
    pub max_batch: usize,
    /// Below this many free bytes the log warns.
    pub warn_free: u64,
    /// Below this many free bytes the log refuses.
    pub refuse_free: u64,
}

impl LogOptions {
    /// Options that suit a node, for a log in this folder under this key.
    pub fn new(folder: impl Into<PathBuf>, signers: impl Into<Signers>) -> Self {
        let (folder, signers) = (folder.into(), signers.into());
        Self {
            sealing_key: SealingKeySource::in_folder(&folder),
            published_at: format!("https://{}/", signers.name()),
            folder,
            signers,
            known_keys: Vec::new(),
            queue: 8_192,
            queue_wait: Duration::from_secs(5),
            max_batch: 1_024,
            warn_free: 2 << 30,
            refuse_free: 512 << 20,
        }
    }
}

/// What opening a log found.
#[derive(Debug)]
pub struct Recovered {
    /// How many entries the log has.
    pub size: u64,
    /// Exchanges that were opened and never closed, in the order of their entries: the node was interrupted.
    pub open_exchanges: Vec<OpenExchange>,
    /// By how many durable commits the head file lagged. One is an ordinary crash; more, and the head is an older copy.
    pub head_behind: u64,
}

/// An exchange that has an opening entry on this side and no closing one.
#[derive(Clone, Debug)]
pub struct OpenExchange {
    /// Its id.
    pub exchange_id: Uuid,
    /// Which side this log saw: by `REQUEST_SENT` the consumer's, by `REQUEST_RECEIVED` the provider's.
    pub side: Side,
    /// Where its opening entry is.
    pub index: u64,
    /// The opening entry.
    pub entry: Entry,
}

/// What an appender is told once its entry is durable.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Where the entry is.
    pub index: u64,
    /// The signed checkpoint that covers it, shared by all entries of its commit.
    pub checkpoint: Arc<Checkpoint>,
    commit: Arc<Added>,
}

impl Appended {
    /// The inclusion proof of the entry under [`Self::checkpoint`], computed from memory.
    pub fn inclusion_proof(&self) -> Vec<Hash> {
        proof::inclusion(&mut &*self.commit, self.index, self.checkpoint.size).unwrap_or_default()
    }
}

/// A handle to an open log. Clones are handles to the same log, which is closed by [`Log::close`] or with the last one.
#[derive(Clone)]
pub struct Log {
    sender: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    queue_wait: Duration,
}

impl Log {
    /// Opens the log of a folder, or makes an empty one: recomputes the tree from the entries, compares it with what
    /// was signed, and starts the writer thread. Blocks, for a second or so per million entries.
    pub fn open(options: LogOptions) -> Result<(Self, Recovered), LogError> {
        let LogOptions { folder, signers, known_keys, sealing_key, published_at, .. } = options;
        let LogOptions { queue, queue_wait, max_batch, warn_free, refuse_free, .. } = options;
        std::fs::create_dir_all(&folder).map_err(LogError::io(&folder))?;
        if !SledStore::exists(&folder) {
            // Before sled makes an empty one.
            match Head::read(&folder)? {
                head::Found::Checkpoint(head) if head.size > 0 => return Err(recovery::lost(0, head.size)),
                _ => {}
            }
        }
        let restored = restored::Marker::read(&folder)?;
        if let Some(refusal) = restored.as_ref().and_then(restored::Marker::refusal) {
            return Err(refusal);
        }
        let store = SledStore::open(&folder)?;
        // A key is made only while nothing can be sealed yet, and is durable before anything is.
        let check = store.sealing_check()?;
        let seal = Seal::new(&sealing_key.read(signers.name(), check.is_none() && store.runs(0).next().is_none())?);
        store.sync_folder()?;
        let mut open_exchanges = recovery::OpenTracker::from_base(store.base()?.as_ref());
        let on_entry = |index, entry: &Bytes| open_exchanges.seen(index, entry, &store, &seal);
        let keys = LogKeys::new(&signers, known_keys);
        let head_path = folder.join(head::FILE);
        let agreed = recovery::agree(&store, signers.name(), keys.all(), &head_path, false, on_entry)?;
        let replay = agreed.replay;
        let size = replay.edge.size();
        match check {
            Some(check) if check == seal.check() => {}
            _ if size == 0 => store.set_sealing_check(&seal.check())?,
            _ => return Err(LogError::OtherSealingKey),
        }
        let private_from = recovery::settle_halves(&store, &seal, agreed.head_size, size)?;
        // The last one stored may be signed by fewer keys than the log has now.
        let signing = |source| LogError::Signature { size, key: signers.name().into(), source };
        let signed = Checkpoint::sign_by(&signers, &replay.edge).map_err(signing)?;
        let checkpoint = match replay.last {
            Some(last) if last.is_signed_as_well_as(&signed, keys.signing()) => last,
            _ => signed,
        };
        store.settle(&checkpoint)?;
        if agreed.has_head && agreed.ahead > 1 {
            tracing::warn!(commits = agreed.ahead, "the head file was older than the last crash explains");
        }
        metrics::gauge!("kopuro_log_entries").set(size as f64);
        metrics::gauge!("kopuro_log_signing_keys").set(keys.signing().len() as f64);
        metrics::gauge!("kopuro_log_first_entry").set(Base::first(&replay.base) as f64);
        metrics::gauge!("kopuro_log_bytes").set(replay.bytes as f64);
        for counted in ["kopuro_log_erased_total", "kopuro_log_opened_total"] {
            metrics::counter!(counted).increment(0);
        }

        let mut watermark = Watermark { folder: folder.clone(), warn: warn_free, refuse: refuse_free, looked: None };
        let health = watermark.look().unwrap_or(LogHealth::Healthy);
        shared::tell_refusing(&health);
        let queue = queue.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared::new(Parts {
            store: Box::new(store),
            folder,
            seal,
            base: replay.base,
            published_at,
            kept_bytes: replay.bytes,
            private_from,
            tiles: replay.tiles,
            checkpoint,
            keys,
            health,
            queue,
        }));
        metrics::gauge!("kopuro_log_restored").set(if restored.is_some() { 1.0 } else { 0.0 });
        if restored.is_some() {
            shared.held.store(true, Ordering::Release);
            let reason = "restored from a backup: not confirmed yet that no newer log was shown to anybody".into();
            shared.set_health(LogHealth::Refusing { reason, until_restart: false });
        }
        let (sender, receiver) = mpsc::channel();
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            receiver,
            signers,
            edge: replay.edge,
            watermark,
            max_batch: max_batch.max(1),
            batch: commit::Batch::default(),
            pace: pace::Pace::default(),
            unsigned: false,
        };
        match shared.resume_erasure(&mut |record| writer.append_now(record)) {
            // No space, as it may be: the intention stays, and the log opens and says so.
            Err(error @ LogError::ErasureIncomplete(_)) => tracing::error!(%error, "an erasure was broken off"),
            resumed => drop(resumed?),
        }
        let size = shared.size();
        let thread = std::thread::Builder::new().name("kopuro-log".into()).spawn(|| writer.run());
        thread.map_err(|error| LogError::Store(format!("no thread for the writer: {error}")))?;
        let open_exchanges = open_exchanges.into_open();
        let recovered = Recovered { size, open_exchanges, head_behind: agreed.ahead };
        Ok((Self { sender, shared, queue_wait }, recovered))
    }

    /// Appends an entry and waits until it is durable. The wait for room in the queue is bounded; from then on it is
    /// as long as the disk takes. Whoever stops waiting after that does not take the entry back.
    pub async fn append(&self, record: Record) -> Result<Appended, AppendError> {
        let answer = self.enqueue(record).await?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Says that somebody will append before long, for as long as the answer is kept: a commit waits a little for a good part of
    /// those who are expected, where they are several.
    pub fn expect(&self) -> Expected {
        self.shared.expected.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(&self.shared))
    }

    /// Appends entries in this order and returns when all of them are durable, often in one commit. Where one cannot be
    /// appended, those before it may have been.
    pub async fn append_all(&self, records: Vec<Record>) -> Result<Vec<Appended>, AppendError> {
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            answers.push(self.enqueue(record).await?);
        }
        let mut appended = Vec::with_capacity(answers.len());
        for answer in answers {
            appended.push(answer.await.unwrap_or(Err(AppendError::Closed))?);
        }
        Ok(appended)
    }

    /// Puts an entry into the writer's queue, once there is room.
    async fn enqueue(&self, record: Record) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let (stored, leaf) = self.shared.prepare(record)?;
        let place = match self.shared.room.try_acquire() {
            Ok(place) => place,
            Err(_) => match tokio::time::timeout(self.queue_wait, self.shared.room.acquire()).await {
                Ok(place) => place.map_err(|_| AppendError::Closed)?,
                Err(_) => return Err(AppendError::QueueFull),
            },
        };
        // The writer gives the place back when it takes the entry out of the queue.
        place.forget();
        let (waiter, answer) = oneshot::channel();
        let message = Message::Append { stored, leaf, waiter: Some(waiter) };
        self.sender.send(message).map_err(|_| AppendError::Closed)?;
        Ok(answer)
    }

    /// Appends an entry for which nobody waits, where there is room in the queue. Whether it becomes durable is not
    /// told.
    pub fn append_detached(&self, record: Record) -> Result<(), AppendError> {
        let (stored, leaf) = self.shared.prepare(record)?;
        let place = self.shared.room.try_acquire().map_err(|error| match error {
            tokio::sync::TryAcquireError::Closed => AppendError::Closed,
            tokio::sync::TryAcquireError::NoPermits => AppendError::QueueFull,
        })?;
        place.forget();
        self.sender.send(Message::Append { stored, leaf, waiter: None }).map_err(|_| AppendError::Closed)
    }

    /// The latest checkpoint: durable, signed. An empty log has one too.
    pub fn checkpoint(&self) -> Arc<Checkpoint> {
        Arc::clone(&self.shared.checkpoint.borrow())
    }

    /// Signs by these keys from now on, the latest checkpoint too; `known` are others by which it has signed. Where it fails,
    /// the log goes on signing by those it had.
    pub async fn use_keys(&self, signers: Signers, known: Vec<Verifier>) -> Result<(), LogError> {
        let (told, done) = oneshot::channel();
        self.sender.send(Message::Keys(Box::new(signers), known, told)).map_err(|_| LogError::Closed)?;
        done.await.unwrap_or(Err(LogError::Closed))
    }

    /// The log's keys: those that sign, and others that have.
    pub fn keys(&self) -> Arc<LogKeys> {
        self.shared.keys()
    }

    /// Follows the log: the value changes with each commit, and with the keys that sign.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Checkpoint>> {
        self.shared.checkpoint.subscribe()
    }

    /// Entries' bytes from an index on, at most `max_entries` and about a mebibyte; none at the end of the log. Blocks
    /// shortly.
    pub fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Bytes>, LogError> {
        let size = self.shared.size();
        if from > size {
            return Err(LogError::Beyond { asked: from, size });
        }
        self.shared.read(from, size, max_entries, READ_BYTES)
    }

    /// The first entry that is kept here: those below it were pruned ([`LogError::Pruned`]).
    pub fn first(&self) -> u64 {
        self.shared.first()
    }

    /// The private half of an entry: encoded [`entry::PrivateFields`]. [`LogError::Erased`] where it was erased; it may
    /// be there while the entry itself was pruned. Blocks shortly.
    pub fn read_private(&self, index: u64) -> Result<Zeroizing<Vec<u8>>, LogError> {
        let size = self.shared.size();
        if index >= size {
            return Err(LogError::Beyond { asked: index, size });
        }
        self.shared.private(index)
    }

    /// Erases private values for good and appends entries that say so; what was erased before is left out. An erasure
    /// that fails halfway is carried out when the log is opened again, or with the next.
    pub async fn erase(&self, erasure: Erasure, now_unix_ms: i64) -> Result<Erased, LogError> {
        let log = self.clone();
        let task = tokio::task::spawn_blocking(move || log.erase_blocking(&erasure, now_unix_ms));
        task.await.unwrap_or_else(|_| Err(LogError::Store("the erasure panicked".into())))
    }

    /// The same, on a thread that may wait.
    fn erase_blocking(&self, erasure: &Erasure, now_unix_ms: i64) -> Result<Erased, LogError> {
        self.shared.erase(erasure, now_unix_ms, &mut |record| {
            let (stored, leaf) = self.shared.prepare(record)?;
            self.shared.room.try_acquire().map_err(|_| AppendError::QueueFull)?.forget();
            let (waiter, answer) = oneshot::channel();
            let message = Message::Append { stored, leaf, waiter: Some(waiter) };
            self.sender.send(message).map_err(|_| AppendError::Closed)?;
            answer.blocking_recv().unwrap_or(Err(AppendError::Closed)).map(|appended| appended.index)
        })
    }

    /// Says how many entries are published, under a published checkpoint, with their tiles. Nothing beyond is ever pruned;
    /// until it is called nothing is at all. It only rises.
    pub fn set_published(&self, size: u64) {
        self.shared.published.fetch_max(size.min(self.shared.size()), Ordering::Relaxed);
    }

    /// Prunes published entries by a rule; how many went. Blocks, a little for each of many steps.
    pub fn prune(&self, rule: &Prune, now_unix_ms: i64) -> Result<u64, LogError> {
        let mut pruned = 0;
        loop {
            match self.shared.prune_step(rule, now_unix_ms)? {
                0 => return Ok(pruned),
                more => pruned += more,
            }
        }
    }

    /// As [`Self::read`], with what delayed and sealed entries hide; only their private halves are opened.
    pub fn read_seen(&self, from: u64, max_entries: usize) -> Result<Vec<Seen>, LogError> {
        Ok(seen(from, self.read(from, max_entries)?, &|index| self.shared.private(index)))
    }

    /// As [`Self::read`], each entry with its private half (encoded [`entry::PrivateFields`]); none where that is gone.
    pub fn read_with_private(&self, from: u64, max_entries: usize) -> Result<Vec<(Bytes, PrivateHalf)>, LogError> {
        Ok(with_private(from, self.read(from, max_entries)?, &|index| self.shared.private(index)))
    }

    /// What stands for a subject in the index of subjects.
    pub fn pseudonym(&self, subject: &[u8]) -> index::Pseudonym {
        self.shared.seal.pseudonym(subject)
    }

    /// The inclusion proof of an entry in the tree of the first `size` entries. Blocks shortly.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        if index < self.first() {
            return Err(self.shared.pruned(index));
        }
        self.prove(size, |tree| proof::inclusion(tree, index, size))
    }

    /// The proof that the tree of `old` entries is a prefix of that of `new` entries. [`LogError::Pruned`] where it takes
    /// hashes that left the store with their entries, which is for most sizes below [`Self::first`]: the published tiles
    /// have them. Blocks shortly.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
        let proof = self.prove(new, |tree| proof::consistency(tree, old, new));
        proof.map_err(|error| if matches!(error, LogError::Pruned { .. }) { self.shared.pruned(old) } else { error })
    }

    /// For each of these sizes (ascending) but the first, the proof that the tree of the size before is a prefix of its own: much
    /// less work than one by one where they lie close together. Blocks shortly.
    pub fn consistency_proofs(&self, sizes: &[u64]) -> Result<Vec<Vec<Hash>>, LogError> {
        let Some(largest) = sizes.last() else { return Ok(Vec::new()) };
        self.prove(*largest, |tree| sizes.windows(2).map(|pair| proof::consistency(tree, pair[0], pair[1])).collect())
    }

    /// The root of the tree of the first `size` entries. Blocks shortly.
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        self.prove(size, |tree| tree.root_of(0, size).map_err(proof::MakeError::Source))
    }

    /// Hashes `from` to `from + count - 1` of a tile level: leaves' hashes at 0 (from the entries; blocks shortly), roots
    /// over 256 leaves at 1, and so on (from memory).
    pub fn tile_hashes(&self, level: u8, from: u64, count: usize) -> Result<Vec<Hash>, LogError> {
        if level > 0 {
            let tiles = self.shared.tiles.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let row = tiles.row(level, from, count).map(<[Hash]>::to_vec);
            return row.ok_or_else(|| LogError::Beyond { asked: from, size: self.shared.size() });
        }
        let mut hashes = Vec::with_capacity(count.min(1 << TILE_LEVELS));
        while hashes.len() < count {
            let next = from + hashes.len() as u64;
            let entries = self.read(next, count - hashes.len())?;
            if entries.is_empty() {
                return Err(LogError::Beyond { asked: next, size: self.shared.size() });
            }
            hashes.extend(entries.iter().map(|entry| Hash::of_leaf(entry)));
        }
        Ok(hashes)
    }

    /// How the log is, now and from now on.
    pub fn health(&self) -> watch::Receiver<LogHealth> {
        self.shared.health.subscribe()
    }

    /// Commits what has queued, stops the writer thread and closes the store; the folder can be opened again then.
    /// Later appends give [`AppendError::Closed`].
    pub async fn close(self) {
        let (answer, closed) = oneshot::channel();
        if self.sender.send(Message::Close(answer)).is_ok() {
            let _ = closed.await;
        }
    }

    fn prove<T>(
        &self,
        size: u64,
        make: impl Fn(&mut StoredTree<'_>) -> Result<T, proof::MakeError<LogError>>,
    ) -> Result<T, LogError> {
        let durable = self.shared.size();
        if size > durable {
            return Err(LogError::Beyond { asked: size, size: durable });
        }
        let prove = || {
            self.shared.with_store(|store| {
                make(&mut self.shared.tree(store)).map_err(|error| match error {
                    proof::MakeError::Beyond(asked, size) => LogError::Beyond { asked, size },
                    proof::MakeError::Source(error) => error,
                })
            })
        };
        let first = self.first();
        // Pruned while the proof was being made: the new base may have what it takes.
        prove().or_else(|error| if self.first() == first { Err(error) } else { prove() })
    }
}

/// An entry is on its way to the log: see [`Log::expect`].
pub struct Expected(Arc<Shared>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(…)")
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("size", &self.shared.size()).finish_non_exhaustive()
    }
}

/// An entry's private half, opened; none where it, or its key, is gone.
pub type PrivateHalf = Option<Zeroizing<Vec<u8>>>;

/// How a private half is opened.
type OpenHalf<'a> = &'a dyn Fn(u64) -> Result<Zeroizing<Vec<u8>>, LogError>;

/// Entries from an index on, with what they hide. Where the half of one is gone it stays hidden: that is no error.
fn seen(from: u64, entries: Vec<Bytes>, open: OpenHalf<'_>) -> Vec<Seen> {
    let seen = |(index, entry): (u64, Bytes)| {
        let private = hidden::is_hidden(&entry).then(|| open(index).ok()).flatten();
        Seen::new(entry, private.as_ref().map(|private| private.as_slice()))
    };
    (from..).zip(entries).map(seen).collect()
}

fn with_private(from: u64, entries: Vec<Bytes>, open: OpenHalf<'_>) -> Vec<(Bytes, PrivateHalf)> {
    (from..).zip(entries).map(|(index, entry)| (entry, open(index).ok())).collect()
}
