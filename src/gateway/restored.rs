//! A node whose log was put back from a backup: it signs nothing until whoever could have seen a newer log has said that they have not.
//!
//! ```text
//!   asked             answer                             what follows
//!   every peer        the latest checkpoint of this      more entries than restored, or other ones: the log ends. The checkpoint is
//!   in the directory  log that it was shown              kept in the file `restored`; a node does not open this folder again
//!   publish.store     its checkpoint                     the same
//!   every witness     where it stands (no signature)     ahead, or another history: nothing is signed as long as it says so
//! ```
//!
//! The log goes on when all peers and the store have answered, and of the witnesses so many that the others are no quorum: whatever was
//! published with a quorum was then seen by one who answered. Whom the operator names (`kopuro restore --without`) is not waited for. Asked
//! again and again until then; what is missing is told in the node's health.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::node::{NodeError, close_interrupted};
use super::node_log;
use crate::config::NodeConfig;
use crate::log::restored::{Beyond, Marker};
use crate::log::{Checkpoint, Log, LogError, OpenExchange};
use crate::oversight::publish::{self, PublishError, Store};
use crate::oversight::witness::{Cosigners, WitnessFault};
use crate::trust::identity::Identity;

/// Peers asked at once.
const AT_ONCE: usize = 16;
/// Between two rounds; doubled up to the second.
const PAUSE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// As many of those who do not answer are named.
const NAMED: usize = 8;

/// What is to be found out, and for what.
pub(super) struct Confirming {
    gateway: Arc<Gateway>,
    log: Log,
    store: Option<Store>,
    witnesses: Option<Cosigners>,
    /// Exchanges that were open at the backup.
    open: Vec<OpenExchange>,
}

/// What a round found.
enum Found {
    /// Nobody has seen more.
    Confirmed,
    /// It is not known yet: why.
    Missing(Vec<String>),
    Beyond(Beyond),
}

impl Confirming {
    pub(super) fn new(
        config: &NodeConfig,
        gateway: &Arc<Gateway>,
        log: &Log,
        open: Vec<OpenExchange>,
    ) -> Result<Self, NodeError> {
        let store = config.publish.as_ref().and_then(|publish| publish.store.as_deref());
        Ok(Self {
            gateway: gateway.clone(),
            log: log.clone(),
            store: store.map(Store::open).transpose().map_err(PublishError::from)?,
            witnesses: config.witness.as_ref().map(Cosigners::from_config).transpose()?,
            open,
        })
    }

    /// Asks until it is known.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut pause = PAUSE[0];
        loop {
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = self.round() => found,
            };
            match found {
                Ok(Found::Confirmed) => match self.log.confirm_restored() {
                    Ok(()) => {
                        tracing::warn!(
                            entries = self.log.checkpoint().size,
                            "the restored log goes on: nobody who was asked has seen a newer one"
                        );
                        return close_interrupted(&self.log, std::mem::take(&mut self.open)).await;
                    }
                    Err(error) => self.log.hold(&format!("restored, and this cannot be kept: {error}")),
                },
                Ok(Found::Beyond(beyond)) => {
                    tracing::error!(
                        seen_by = beyond.seen_by,
                        checkpoint = beyond.checkpoint,
                        "THE RESTORED LOG IS OLDER THAN WHAT WAS SHOWN OF IT, OR ANOTHER: nothing is signed any more"
                    );
                    match self.log.refuse_restored(beyond) {
                        Ok(()) => return,
                        Err(error) => self.log.hold(&format!("restored, and a newer log was seen: {error}")),
                    }
                }
                Ok(Found::Missing(missing)) => {
                    let more = missing.len().saturating_sub(NAMED);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
                    let size = self.log.checkpoint().size;
                    self.log.hold(&format!(
                        "restored from a backup with {size} entries; takes none until it is known that no newer log was shown: {named}{more}"
                    ));
                }
                Err(error) => self.log.hold(&format!("restored, and what was seen cannot be compared: {error}")),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE[1]);
        }
    }

    async fn round(&self) -> Result<Found, LogError> {
        let Some(marker) = self.log.restored()? else { return Ok(Found::Confirmed) };
        let mut missing = Vec::new();
        if let Some(store) = &self.store {
            match publish::stored_checkpoint(store).await {
                Ok(note) => {
                    if let Some(beyond) = self.judge("publish.store", note.iter().map(String::as_str)).await? {
                        return Ok(Found::Beyond(beyond));
                    }
                }
                Err(error) => missing.push(error.to_string()),
            }
        }
        if let Some(beyond) = self.ask_peers(&marker, &mut missing).await? {
            return Ok(Found::Beyond(beyond));
        }
        self.ask_witnesses(&marker, &mut missing).await;
        Ok(if missing.is_empty() { Found::Confirmed } else { Found::Missing(missing) })
    }

    async fn ask_peers(&self, marker: &Marker, missing: &mut Vec<String>) -> Result<Option<Beyond>, LogError> {
        let view = self.gateway.view();
        let peers: Vec<Identity> = view.all_peers().map(|peer| peer.identity.clone()).collect();
        let mut answers = futures_util::stream::iter(peers)
            .map(|identity| {
                let (gateway, view) = (self.gateway.clone(), view.clone());
                async move {
                    let answer = match view.node(&identity) {
                        Some(peer) => node_log::shown_to(&gateway, peer).await,
                        None => Err("the directory lists no such node any more".into()),
                    };
                    (identity.to_string(), answer)
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((name, answer)) = answers.next().await {
            match answer {
                // Who is not waited for may answer all the same, and counts.
                Ok(notes) => {
                    if let Some(beyond) = self.judge(&name, notes.iter().map(String::as_str)).await? {
                        return Ok(Some(beyond));
                    }
                }
                Err(_) if marker.without.contains(&name) => {}
                Err(error) => missing.push(format!("{name} does not answer: {error}")),
            }
        }
        missing.sort();
        Ok(None)
    }

    async fn ask_witnesses(&self, marker: &Marker, missing: &mut Vec<String>) {
        let Some(witnesses) = &self.witnesses else { return };
        let (answers, may_hide) = witnesses.standing(&self.log, &self.log.checkpoint()).await;
        for (name, answer) in answers {
            let Err(fault) = answer else { continue };
            let contradicts = matches!(fault, WitnessFault::Ahead(_) | WitnessFault::Refused { status: 422, .. });
            // Too few of them to have hidden anything, or not waited for; but what one says counts.
            if contradicts || (may_hide && !marker.without.contains(&name)) {
                missing.push(format!("witness {name} {fault}"));
            }
        }
    }

    /// Compares what somebody has of this log with the log. What none of its keys signed says nothing.
    async fn judge(&self, seen_by: &str, notes: impl Iterator<Item = &str>) -> Result<Option<Beyond>, LogError> {
        for note in notes {
            let Ok(seen) = Checkpoint::verify(note, self.log.keys().all()) else {
                tracing::warn!(seen_by, "has a checkpoint that none of the log's keys signed: it says nothing");
                continue;
            };
            let (log, size) = (self.log.clone(), seen.size);
            let is_ours = tokio::task::spawn_blocking(move || match log.root_at(size) {
                Ok(root) => Ok(root == seen.root),
                Err(LogError::Beyond { .. }) => Ok(false),
                // Older than all that is kept here: the base's checkpoint is of the same key, and later.
                Err(LogError::Pruned { .. }) => Ok(true),
                Err(error) => Err(error),
            });
            let is_ours = is_ours.await.map_err(|_| LogError::Store("comparing broke off".into()))??;
            if !is_ours {
                return Ok(Some(Beyond { seen_by: seen_by.into(), checkpoint: note.into() }));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for Confirming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Confirming").finish_non_exhaustive()
    }
}
