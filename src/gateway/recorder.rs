//! From a draft to a durable entry and its proof: where a node's exchanges meet its log.

use std::time::Duration;

use http::HeaderValue;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::proofs;
use super::refusal::Refusal;
use crate::log::entry::{Draft, Record, Slot};
use crate::log::entry_proof::EntryProof;
use crate::log::{AppendError, Appended, Expected, Log};

/// Where entries go.
#[derive(Debug, Clone)]
pub(super) enum Recorder {
    /// The node's log; an entry waits at most this long.
    Log(Log, Duration),
    /// Nowhere: only the benchmark's, to measure the data path alone.
    Off,
}

impl Recorder {
    /// Returns when the entry is durable; with `open`, the proof of that, opening these slots.
    pub(super) fn append<'a>(
        &'a self,
        draft: Draft,
        open: Option<&'a [Slot]>,
    ) -> impl Future<Output = Result<Option<HeaderValue>, Refusal>> + Send + 'a {
        self.append_among(Vec::new(), draft, Vec::new(), open)
    }

    /// The same with other entries before and behind it; all of them are durable. They are sealed before anything is awaited:
    /// drafts are large, and a call's future would have room for them.
    pub(super) fn append_among<'a>(
        &'a self,
        before: Vec<Draft>,
        draft: Draft,
        behind: Vec<Draft>,
        open: Option<&'a [Slot]>,
    ) -> impl Future<Output = Result<Option<HeaderValue>, Refusal>> + Send + 'a {
        let sealed = self.is_on().then(|| {
            let (record, openings) = draft.seal_opening(open.unwrap_or_default());
            let (entry, at) = (record.entry.clone(), before.len());
            let records = if before.is_empty() && behind.is_empty() {
                Records::One(record)
            } else {
                let sealed = |drafts: Vec<Draft>| drafts.into_iter().map(Draft::seal);
                Records::Several(sealed(before).chain([record]).chain(sealed(behind)).collect(), at)
            };
            (entry, openings, records)
        });
        async move {
            let (Self::Log(log, limit), Some((entry, openings, records))) = (self, sealed) else { return Ok(None) };
            let appended = Self::append_sealed(log, *limit, records).await?;
            Ok(open.and_then(|_| proofs::to_header(&EntryProof::new(&appended, entry, &openings))))
        }
    }

    /// Tells the log that entries are about to come.
    pub(super) fn expect(&self) -> Option<Expected> {
        match self {
            Self::Log(log, _) => Some(log.expect()),
            Self::Off => None,
        }
    }

    /// Whether there is a log, and so proofs.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::Log(..))
    }

    async fn append_sealed(log: &Log, limit: Duration, records: Records) -> Result<Appended, Refusal> {
        let appending = async {
            match records {
                Records::One(record) => log.append(record).await,
                Records::Several(records, at) => {
                    let all = Box::pin(log.append_all(records)).await?;
                    all.into_iter().nth(at).ok_or(AppendError::Closed)
                }
            }
        };
        match tokio::time::timeout(limit, appending).await {
            Ok(Ok(appended)) => Ok(appended),
            Ok(Err(error)) => Err(Refusal::log_unavailable(error)),
            Err(_) => Err(Refusal::log_unavailable(format!("no answer within {limit:?}"))),
        }
    }

    /// For those who cannot wait: the entry follows as soon as the log takes it.
    pub(super) fn append_later(&self, draft: Draft, running: TaskTrackerToken) {
        let Self::Log(log, limit) = self else { return };
        let record = draft.seal();
        if log.append_detached(record.clone()).is_ok() {
            return;
        }
        // The queue is full: wait for room on a task of its own. Without a runtime the node is gone, and its next start
        // closes the exchange.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (log, limit) = (log.clone(), *limit);
            runtime.spawn(async move {
                let _ = Self::append_sealed(&log, limit, Records::One(record)).await;
                drop(running);
            });
        }
    }
}

/// What is appended in one go.
enum Records {
    One(Record),
    /// With the place of the one whose proof is wanted.
    Several(Vec<Record>, usize),
}
