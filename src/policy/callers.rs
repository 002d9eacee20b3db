//! A limit on each calling system, to protect the node itself.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use governor::DefaultDirectRateLimiter;

use super::Denial;
use super::grant::Rate;
use super::grants::{check, limiter};
use crate::trust::identity::SystemId;

/// A rate for each calling system, for at most so many systems: those beyond share one allowance.
#[derive(Debug)]
pub struct CallerLimits {
    rate: Rate,
    most: usize,
    callers: RwLock<HashMap<SystemId, DefaultDirectRateLimiter>>,
    others: DefaultDirectRateLimiter,
}

impl CallerLimits {
    /// Each of up to `most` callers gets `rate`.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, callers: RwLock::default(), others: limiter(rate) }
    }

    /// Counts one call of this system.
    pub fn check(&self, caller: &SystemId) -> Result<(), Denial> {
        let counted = {
            // A poisoned lock only says that somebody panicked while counting: the map is whole.
            let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
            callers.get(caller).map(check)
        };
        counted.unwrap_or_else(|| self.first_call(caller)).map_err(|retry_after| Denial::RateLimited { retry_after })
    }

    /// Forgets callers that are gone, so that new ones get their own allowance.
    pub fn retain(&self, known: impl Fn(&SystemId) -> bool) {
        self.callers.write().unwrap_or_else(PoisonError::into_inner).retain(|caller, _| known(caller));
    }

    fn first_call(&self, caller: &SystemId) -> Result<(), std::time::Duration> {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= self.most && !callers.contains_key(caller) {
            drop(callers);
            return check(&self.others);
        }
        check(callers.entry(caller.clone()).or_insert_with(|| limiter(self.rate)))
    }
}
