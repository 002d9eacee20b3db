//! Whole answers that a connection's client has not taken yet. A client that stops reading could otherwise keep them, and their share
//! of the node's memory, for as long as it answers PINGs: hyper waits for room and asks nobody. (What little fits into HTTP/2's own
//! buffers counts as taken: that is bounded by the streams of a connection.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts of one connection: answers given since the last tick and those given before it, in turns.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    ticks: AtomicUsize,
    given: [AtomicUsize; 2],
}

/// One answer, until it is taken.
#[derive(Debug)]
pub(super) struct Given {
    untaken: Arc<Untaken>,
    turn: usize,
}

impl Untaken {
    /// Counts an answer.
    pub(super) fn give(self: &Arc<Self>) -> Given {
        let turn = self.ticks.load(Ordering::Relaxed) % 2;
        self.given[turn].fetch_add(1, Ordering::Relaxed);
        Given { untaken: self.clone(), turn }
    }

    /// Whether every answer that was given before the last tick has been taken.
    pub(super) fn tick(&self) -> bool {
        let next = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1) % 2;
        self.given[next].load(Ordering::Relaxed) == 0
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.untaken.given[self.turn].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_at_least_one_whole_tick() {
        let untaken = Arc::new(Untaken::default());
        let first = untaken.give();
        assert!(untaken.tick());
        let second = untaken.give();
        assert!(!untaken.tick(), "the first is there since before the last tick");
        drop(first);
        assert!(!untaken.tick());
        drop(second);
        assert!(untaken.tick() && untaken.tick());
    }
}
