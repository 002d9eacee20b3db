//! The five steps of a publication ([`super`]), in order, again and again.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beside::{self, Beside};
use super::standing::{self, Place};
use super::summary::Summaries;
use super::{
    CHECKPOINT, MOST_CHECKPOINT, MOST_TILE, PublishError, Shared, StandingError, Store, StoreError, TILE, tiles,
};
use crate::failpoint;
use crate::log::entry::Entry;
use crate::log::tile::{Kind, Tile};
use crate::log::tree::{TILE_LEAVES, TILE_LEVELS};
use crate::log::{Checkpoint, LogError};
use crate::oversight::portal;
use crate::telemetry::{Status, metrics as names};
use crate::trust::file::{self, Access, Existing};
use crate::trust::note::Verifier;

/// How long a start waits for the store to show what it has.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long whoever cosigns may take.
const COSIGN_LIMIT: Duration = Duration::from_secs(60);

/// Full tiles are written for so many leaves at a time; what is done is not done again after a failure.
const STRIDE: u64 = 1 << 16;

/// So many tiles, or about so many bytes of them, are made ahead of being written.
const AHEAD: usize = 64;
const AHEAD_BYTES: usize = 8 << 20;

/// How many are written at once.
const AT_ONCE: usize = 16;

/// How long partial tiles stay beside the full one: for those who read the checkpoint before it.
const PARTIALS_STAY: Duration = Duration::from_secs(600);

/// The condition in the node's health.
pub(super) const CONDITION: &str = "publication";

/// So often what comes while the last checkpoint is published is published too.
const LAST_TURNS: usize = 3;

/// Publishes; one per log.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    /// What the store has, once that is known.
    stands: Option<Option<Checkpoint>>,
    /// Full tiles are written up to here, counted in leaves, if more than stands.
    written: u64,
    /// What lies beside the log in the store.
    beside: Option<Arc<Beside>>,
    /// Of which tiles there are partial ones, and not yet a published full one.
    partial: BTreeSet<Tile>,
    /// Full tiles whose partial ones are to go, and when.
    outgrown: VecDeque<(Instant, Tile)>,
    summaries: Summaries,
    /// The log's key in the portal's pages, once they are in the store.
    portal: Option<Verifier>,
    failures: u32,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            summaries: Summaries::new(shared.clone()),
            portal: None,
            shared,
            stands: None,
            written: 0,
            beside: None,
            partial: BTreeSet::new(),
            outgrown: VecDeque::new(),
            failures: 0,
        }
    }

    /// Step 1, at the start. Only what contradicts the log is an error.
    pub(super) async fn begin(&mut self) -> Result<(), PublishError> {
        let remembered = self.remembered().await;
        let looked = match tokio::time::timeout(FIRST_LOOK, self.look()).await {
            Ok(looked) => looked,
            Err(_) => Err(StoreError::Silent("checkpoint".into()).into()),
        };
        let remembered = match remembered {
            Ok(remembered) => remembered,
            Err(error) if error.contradiction().is_some() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "what was last published is not known");
                None
            }
        };
        match looked {
            Ok(()) => {}
            Err(error) if error.contradiction().is_some() => return Err(error),
            Err(error) => {
                self.tell(Err(error));
            }
        }
        // What was remembered was about to be published, or is: where the store cannot be asked, or there is none, it stands.
        let shown = match &self.stands {
            Some(stands) if self.shared.options.store.is_some() => stands.clone(),
            _ => remembered,
        };
        if self.shared.options.store.is_none() {
            self.stands = Some(shown.clone());
        }
        self.shared.published.send_replace(shown.map(Arc::new));
        if self.stands.is_some() {
            // Not on the word of the data folder alone: the store may have been emptied.
            self.shared.settle();
        }
        Ok(())
    }

    /// Publishes until told to stop, and then once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let turn = tokio::select! {
                () = stop.cancelled() => break,
                turn = self.turn(false) => turn,
            };
            if self.tell(turn) {
                stop.cancelled().await;
                return;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
        for _ in 0..LAST_TURNS {
            let last = self.turn(true).await;
            let failed = last.is_err();
            // What was on its way when the node began to stop may be logged while this publishes.
            let published = self.shared.published.borrow().as_ref().map_or(0, |published| published.size);
            if self.tell(last) || failed || published == self.shared.log.checkpoint().size {
                return;
            }
        }
    }

    /// The pause before the next turn: longer with each failure, up to 32 times the interval.
    fn pause(&self) -> Duration {
        let interval = self.shared.options.interval;
        interval.saturating_mul(1 << self.failures.min(5)).min(LONGEST_PAUSE.max(interval))
    }

    async fn turn(&mut self, last: bool) -> Result<(), PublishError> {
        let checkpoint = self.shared.log.checkpoint();
        let has_news = match &self.stands {
            // Of the same entries there may be a new one, signed by a key that the log has had since.
            Some(Some(stands)) => {
                let keys = self.shared.log.keys();
                stands.size < checkpoint.size || !stands.is_signed_as_well_as(&checkpoint, keys.signing())
            }
            _ => true,
        };
        if has_news {
            self.look().await?;
            let old = self.stands.as_ref().and_then(Option::as_ref).map_or(0, |stands| stands.size);
            if let Some(store) = self.shared.options.store.clone() {
                self.write_tiles(&store, old, checkpoint.size).await?;
            }
            failpoint::reach("tiles");
            let cosigned = self.cosign(&checkpoint).await?;
            self.remember(&cosigned).await?;
            failpoint::reach("remembered");
            if let Some(store) = &self.shared.options.store {
                store.put("checkpoint", Bytes::from(cosigned.note.clone()), CHECKPOINT).await?;
            }
            failpoint::reach("checkpoint");
            self.stands = Some(Some(cosigned.clone()));
            self.written = checkpoint.size;
            self.outgrow(checkpoint.size);
            self.shared.published.send_replace(Some(Arc::new(cosigned)));
            self.shared.settle();
        }
        self.put_beside().await?;
        self.put_portal().await?;
        self.summaries.turn(last).await?;
        self.shared.settle();
        self.clear_outgrown().await
    }

    /// Step 1: what the store has. Where that is less than was published (it was emptied, or put back), it is published
    /// again from there.
    async fn look(&mut self) -> Result<(), PublishError> {
        let Some(store) = self.shared.options.store.clone() else { return Ok(()) };
        let found = store.get("checkpoint", MOST_CHECKPOINT).await?;
        let found = match found {
            None => None,
            Some(note) => Some(self.compare(note, Place::Store).await?),
        };
        match &self.stands {
            Some(stands) if stands.as_ref().map(|stands| stands.size) == found.as_ref().map(|found| found.size) => {
                return Ok(());
            }
            Some(stands) => {
                let size =
                    |checkpoint: &Option<Checkpoint>| checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
                let (published, found) = (size(stands), size(&found));
                tracing::warn!(
                    published,
                    found,
                    "publish.store does not have what was published: it is published again"
                );
                (self.beside, self.portal) = (None, None);
                self.summaries.lost();
            }
            None => {}
        }
        self.written = 0;
        if let Some(found) = &found {
            self.mend_edge(&store, found.size).await?;
            self.partial.extend(edge(found.size).filter(|tile| !tile.is_full()).map(Tile::full));
        }
        self.stands = Some(found);
        Ok(())
    }

    /// The last tile of each level must be there as it must be: a store that lost some, lost the last.
    async fn mend_edge(&self, store: &Store, size: u64) -> Result<(), PublishError> {
        for tile in edge(size) {
            let log = self.shared.log.clone();
            let right = tokio::task::spawn_blocking(move || tiles::build(&log, tile)).await?;
            let path = tile.to_string();
            let stored = match store.get(&path, MOST_TILE).await {
                Err(StoreError::TooLarge { .. }) => None,
                stored => stored?,
            };
            let right = match (right, &stored) {
                (Ok(right), _) => right,
                // The log begins behind some of it: there is nothing to compare it with.
                (Err(_), Some(_)) => continue,
                (Err(error), None) => return Err(error.into()),
            };
            if stored.as_ref() != Some(&right) {
                let what = if stored.is_some() { "wrong" } else { "missing" };
                tracing::warn!(path, what, "a published tile is not as it must be: it is written again");
                metrics::counter!(names::PUBLISH_MENDED, "node" => self.shared.options.node.clone()).increment(1);
                store.put(&path, right, TILE).await?;
            }
        }
        Ok(())
    }

    async fn compare(&self, note: Bytes, place: Place) -> Result<Checkpoint, PublishError> {
        let log = self.shared.log.clone();
        Ok(tokio::task::spawn_blocking(move || standing::compare(&log, &note, place)).await??)
    }

    /// Step 2.
    async fn write_tiles(&mut self, store: &Store, old: u64, size: u64) -> Result<(), PublishError> {
        let mut from = self.written.max(old);
        while from < size {
            let to = size.min((from / STRIDE + 1) * STRIDE);
            self.write(store, old, Tile::between(from, to).filter(Tile::is_full).collect()).await?;
            from = to;
            self.written = to - to % STRIDE;
        }
        let partial: Vec<Tile> = Tile::between(old, size).filter(|tile| !tile.is_full()).collect();
        self.partial.extend(partial.iter().map(|tile| tile.full()));
        self.write(store, old, partial).await
    }

    async fn write(&self, store: &Store, old: u64, wanted: Vec<Tile>) -> Result<(), PublishError> {
        let mut left = VecDeque::from(wanted);
        while !left.is_empty() {
            let log = self.shared.log.clone();
            let (rest, mut made, torn) = tokio::task::spawn_blocking(move || {
                let (mut made, mut torn, mut bytes) = (Vec::new(), Vec::new(), 0);
                while let Some(tile) = left.pop_front() {
                    match tile.kind {
                        Kind::Entries => made.extend(tiles::build_pair(&log, tile)?),
                        // Made with its bundle.
                        Kind::Hashes(0) => continue,
                        Kind::Hashes(_) => match tiles::build(&log, tile) {
                            Ok(bytes) => made.push((tile, bytes)),
                            Err(error) => torn.push((tile, error)),
                        },
                    }
                    bytes += made.last().map_or(0, |(_, made)| made.len());
                    if made.len() >= AHEAD || bytes >= AHEAD_BYTES {
                        break;
                    }
                }
                Ok::<_, PublishError>((left, made, torn))
            })
            .await??;
            left = rest;
            for (tile, error) in torn {
                made.push((tile, self.extend(store, old, tile, error).await?));
            }
            let put = async |(tile, bytes): (Tile, Bytes)| {
                store.put(&tile.to_string(), bytes, TILE).await?;
                failpoint::reach("tile");
                Ok::<_, StoreError>(())
            };
            futures_util::stream::iter(made).map(put).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
        Ok(())
    }

    /// A tile of which the log has only the end, because it begins behind the rest: with what was published at the old size.
    async fn extend(&self, store: &Store, old: u64, tile: Tile, error: LogError) -> Result<Bytes, PublishError> {
        let before = edge(old).find(|before| before.full() == tile.full() && before.width < tile.width);
        let Some(before) = before else { return Err(error.into()) };
        let Some(published) = store.get(&before.to_string(), MOST_TILE).await? else { return Err(error.into()) };
        let log = self.shared.log.clone();
        Ok(tokio::task::spawn_blocking(move || tiles::extend(&log, tile, &published, before.width)).await??)
    }

    /// Step 3.
    async fn cosign(&self, checkpoint: &Arc<Checkpoint>) -> Result<Checkpoint, PublishError> {
        let Some(cosign) = &self.shared.options.cosign else { return Ok(Checkpoint::clone(checkpoint)) };
        let failed = |reason: String| PublishError::Cosign { size: checkpoint.size, reason };
        let note = tokio::time::timeout(COSIGN_LIMIT, cosign(Arc::clone(checkpoint))).await;
        let note = note.map_err(|_| failed(format!("no answer within {COSIGN_LIMIT:?}")))?.map_err(failed)?;
        let cosigned =
            Checkpoint::verify(&note, self.shared.log.keys().all()).map_err(|error| failed(error.to_string()))?;
        if note.len() > MOST_CHECKPOINT || (cosigned.size, cosigned.root) != (checkpoint.size, checkpoint.root) {
            return Err(failed("what came back is another checkpoint".into()));
        }
        Ok(cosigned)
    }

    /// Step 4.
    async fn remember(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        let (path, note) = (self.published_file(), checkpoint.note.clone());
        let written = path.clone();
        let write = move || file::write(&written, note.as_bytes(), Access::Public, Existing::Replace);
        tokio::task::spawn_blocking(write).await?.map_err(PublishError::file(&path))
    }

    /// What was last remembered.
    async fn remembered(&self) -> Result<Option<Checkpoint>, PublishError> {
        let path = self.published_file();
        match tokio::fs::read(&path).await {
            Ok(note) => self.compare(note.into(), Place::Folder).await.map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PublishError::file(&path)(error)),
        }
    }

    fn published_file(&self) -> PathBuf {
        self.shared.options.folder.join("published")
    }

    async fn put_beside(&mut self) -> Result<(), PublishError> {
        let now = Beside::now(&self.shared.options, &self.shared.log).await;
        if self.shared.beside.load().as_ref() != &now {
            self.shared.beside.store(Arc::new(now));
        }
        let now = self.shared.beside.load_full();
        if let Some(store) = &self.shared.options.store
            && self.beside.as_deref() != Some(&*now)
        {
            for (path, bytes, served) in now.files() {
                store.put(path, bytes, served).await?;
            }
        }
        self.beside = Some(now);
        Ok(())
    }

    /// The portal's pages change, while the node runs, with the log's key alone. They are written where the store has others.
    async fn put_portal(&mut self) -> Result<(), PublishError> {
        let keys = self.shared.log.keys();
        let (Some(sources), Some(key)) = (&self.shared.options.portal, keys.signing().first()) else { return Ok(()) };
        if self.portal.as_ref() == Some(key) {
            return Ok(());
        }
        let site = Arc::new(portal::Site::new(&sources.with_key(key)));
        self.shared.site.store(Some(site.clone()));
        if let Some(store) = &self.shared.options.store {
            beside::put_portal(store, &site).await?;
        }
        self.portal = Some(key.clone());
        Ok(())
    }

    /// Takes note of partial tiles for which there is a full one now.
    fn outgrow(&mut self, size: u64) {
        let go = Instant::now() + PARTIALS_STAY;
        let (outgrown, partial) = self.partial.iter().partition(|tile| tiles::is_within(**tile, size));
        self.partial = partial;
        let outgrown: BTreeSet<Tile> = outgrown;
        self.outgrown.extend(outgrown.into_iter().map(|tile| (go, tile)));
    }

    async fn clear_outgrown(&mut self) -> Result<(), PublishError> {
        let Some(store) = self.shared.options.store.clone() else { return Ok(()) };
        while let Some((go, tile)) = self.outgrown.front()
            && *go <= Instant::now()
        {
            store.clear(&format!("{tile}.p"), usize::from(crate::log::tile::FULL)).await?;
            self.outgrown.pop_front();
        }
        Ok(())
    }

    /// Says how a turn went. Gives back whether it was the last.
    fn tell(&mut self, turn: Result<(), PublishError>) -> bool {
        let Shared { health, options, .. } = &*self.shared;
        let Err(error) = turn else {
            if self.failures > 0 {
                tracing::info!(after = self.failures, "published again");
            }
            self.failures = 0;
            health.set(CONDITION, Status::Ok);
            return false;
        };
        self.failures = self.failures.saturating_add(1);
        metrics::counter!(names::PUBLISH_FAILURES, "node" => options.node.clone()).increment(1);
        if error.contradiction().is_some() {
            metrics::gauge!(names::PUBLISH_REFUSED, "node" => options.node.clone()).set(1.0);
            tracing::error!(%error, "THE LOG CONTRADICTS WHAT IT HAS PUBLISHED: nothing more is published");
            health.set(CONDITION, Status::Warning(format!("nothing more is published: {error}")));
            return true;
        }
        // A wrong checkpoint in the store may be somebody's mistake, and be mended there.
        let foreign = matches!(error, PublishError::Standing(StandingError::Foreign { .. }));
        if foreign || self.failures.is_power_of_two() {
            tracing::warn!(%error, failures = self.failures, next = ?self.pause(), "not published");
        }
        health.set(CONDITION, Status::Warning(format!("the log is not published: {error}")));
        false
    }
}

/// The last tile of each level of a tree, and the last bundle.
fn edge(size: u64) -> impl Iterator<Item = Tile> {
    let kinds = std::iter::once(Kind::Entries).chain((0..8).map(Kind::Hashes));
    kinds.filter_map(move |kind| {
        let shift = match kind {
            Kind::Entries => 0,
            Kind::Hashes(level) => u32::from(level) * TILE_LEVELS,
        };
        let number = (size >> shift).checked_sub(1)? / TILE_LEAVES;
        Some(Tile { kind, number, width: ((size >> shift) - number * TILE_LEAVES) as u16 })
    })
}

/// Tells how far the publication is behind the log.
pub(super) async fn tell_lag(shared: Arc<Shared>, stop: CancellationToken) {
    let node = || shared.options.node.clone();
    metrics::gauge!(names::PUBLISH_REFUSED, "node" => node()).set(0.0);
    metrics::counter!(names::PUBLISH_FAILURES, "node" => node()).increment(0);
    let mut tick = tokio::time::interval(shared.options.interval.min(Duration::from_secs(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let published = shared.published.borrow().as_ref().map_or(0, |published| published.size);
        let lag = shared.log.checkpoint().size.saturating_sub(published);
        let mut seconds = 0.0;
        if lag > 0 {
            // How long the first entry that is not published has waited. A hidden one does not say when it was made.
            let log = shared.log.clone();
            let first = tokio::task::spawn_blocking(move || log.read(published, 64)).await;
            let made = first.into_iter().flatten().flatten().filter_map(|bytes| Entry::decode(bytes).ok());
            let made = made.map(|entry| entry.time_unix_ms).find(|time| *time > 0);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
            seconds = made.map_or(0, |made| now.saturating_sub(made).max(0)) as f64 / 1_000.0;
        }
        metrics::gauge!(names::PUBLISH_SIZE, "node" => node()).set(published as f64);
        metrics::gauge!(names::PUBLISH_LAG_ENTRIES, "node" => node()).set(lag as f64);
        metrics::gauge!(names::PUBLISH_LAG_SECONDS, "node" => node()).set(seconds);
    }
}
