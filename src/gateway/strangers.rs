//! Connections that have not yet said who they are. They are many only when somebody opens them and says nothing; then the oldest make
//! room, so that whoever shakes hands at once is always let in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A listener's connections before their handshake is done, at most so many.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By age.
    by_number: BTreeMap<u64, CancellationToken>,
}

/// One of them, until its handshake is done.
#[derive(Debug)]
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    pushed_out: CancellationToken,
}

impl Strangers {
    /// At most `most` at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default() })
    }

    /// Takes one more; if that is one too many, the oldest is pushed out.
    pub(super) fn enter(self: &Arc<Self>) -> Stranger {
        let pushed_out = CancellationToken::new();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_number.insert(number, pushed_out.clone());
        if waiting.by_number.len() > self.most
            && let Some((_, oldest)) = waiting.by_number.pop_first()
        {
            oldest.cancel();
        }
        drop(waiting);
        Stranger { strangers: self.clone(), number, pushed_out }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Returns when it has to make room.
    pub(super) async fn pushed_out(&self) {
        self.pushed_out.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.waiting().by_number.remove(&self.number);
    }
}
