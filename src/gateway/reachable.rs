//! Whether a destination can be reached, as the last attempt has it: for the metrics, and for when to try again by ourselves.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After a failed attempt, how long the next one waits that nobody's call makes; doubled for each that follows, up to two minutes.
const TRY_AGAIN: Duration = Duration::from_secs(2);
const MOST_DOUBLINGS: u32 = 6;

/// Whether a destination could be reached when that was last tried.
#[derive(Debug, Default)]
pub(super) struct Reachable(Mutex<Option<Tried>>);

#[derive(Debug, Clone, Copy)]
struct Tried {
    at: Instant,
    /// In a row; none where it worked.
    failures: u32,
}

impl Reachable {
    /// None before the first try.
    pub(super) fn now(&self) -> Option<bool> {
        self.lock().map(|tried| tried.failures == 0)
    }

    /// Whether it is time to try by ourselves: at once where it worked, ever more seldom where it does not. One that nobody needed
    /// is left alone.
    pub(super) fn is_due(&self) -> bool {
        self.lock().is_some_and(|Tried { at, failures }| {
            failures == 0 || at.elapsed() >= TRY_AGAIN * 2_u32.pow((failures - 1).min(MOST_DOUBLINGS))
        })
    }

    /// Takes an attempt's result. Says so to operators where it is another than the last one's.
    pub(super) fn tried(&self, destination: &str, failed: Option<&str>) {
        let before = {
            let mut tried = self.lock();
            let before = tried.map_or(0, |tried| tried.failures);
            let failures = failed.map_or(0, |_| before.saturating_add(1));
            *tried = Some(Tried { at: Instant::now(), failures });
            before
        };
        match failed {
            Some(error) if before == 0 => tracing::warn!(%destination, %error, "cannot connect"),
            Some(error) => tracing::debug!(%destination, %error, "still cannot connect"),
            None if before > 0 => tracing::info!(%destination, "connected again"),
            None => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Tried>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
