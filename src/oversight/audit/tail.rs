//! Streams of entries: what is there, and then what comes. Each stream holds a few hundred entries for its reader and
//! waits for the reader with the rest.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::answer::indexed;
use crate::log::Log;
use crate::oversight::status;
use crate::proto::kopuro::audit::v1::IndexedEntry;

/// Entries read at once.
const BATCH: usize = 256;
/// Entries that wait for a reader.
const WAITING: usize = 256;

/// A stream of entries as tonic sends it.
pub(super) type TailStream = Pin<Box<dyn Stream<Item = Result<IndexedEntry, Status>> + Send>>;

/// Who has how many streams open.
#[derive(Clone)]
pub(super) struct Tails {
    most: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place for one stream; free again when dropped.
pub(super) struct Place {
    auditor: String,
    tails: Tails,
}

impl Tails {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    pub(super) fn take(&self, auditor: &str) -> Result<Place, Status> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(auditor.to_owned()).or_default();
        if *count >= self.most {
            return Err(status::busy("this auditor has too many streams of entries open"));
        }
        *count += 1;
        Ok(Place { auditor: auditor.to_owned(), tails: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.tails.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.auditor) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.auditor);
            }
        }
    }
}

/// The stream. It ends when the reader goes, when the node stops, and, where it does not follow, at the size of now.
pub(super) fn stream(log: Log, from: u64, follow: bool, stop: CancellationToken, place: Place) -> TailStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _place = place;
        let gone = sender.clone();
        tokio::select! {
            () = send(&log, from, follow, &sender) => {}
            () = gone.closed() => {}
            () = stop.cancelled() => {
                // Where the reader is slow there is no room to say so: the stream then ends without.
                let _ = sender.try_send(Err(Status::unavailable("the node is stopping")));
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn send(log: &Log, mut from: u64, follow: bool, sender: &mpsc::Sender<Result<IndexedEntry, Status>>) {
    let mut commits = log.subscribe();
    let end = commits.borrow_and_update().size;
    loop {
        let size = if follow { commits.borrow_and_update().size } else { end };
        while from < size {
            let max = usize::try_from(size - from).unwrap_or(BATCH).min(BATCH);
            let reader = log.clone();
            let read = tokio::task::spawn_blocking(move || reader.read_seen(from, max)).await;
            let entries = match read {
                Ok(Ok(entries)) => entries,
                Ok(Err(error)) => return drop(sender.send(Err(super::answer::log_failed(error))).await),
                Err(_) => return drop(sender.send(Err(Status::internal("reading the log failed"))).await),
            };
            if entries.is_empty() {
                return;
            }
            for seen in entries {
                if sender.send(Ok(indexed(from, seen))).await.is_err() {
                    return;
                }
                from += 1;
            }
        }
        // An error: the log is closed, nothing will come.
        if !follow || commits.changed().await.is_err() {
            return;
        }
    }
}
