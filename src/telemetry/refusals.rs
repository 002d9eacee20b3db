//! The last refusals and failures of a node, for whoever looks at it now. The log has all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How many are kept.
const KEPT: usize = 32;

/// One refused or failed call. Names of systems only, nothing of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalSeen {
    /// Milliseconds since the Unix epoch.
    pub time_unix_ms: i64,
    /// The node that refused: `consumer` or `provider`.
    pub side: String,
    /// The stable reason.
    pub reason: String,
    /// Who asked.
    pub consumer: String,
    /// Who was asked; empty where the call named nobody.
    pub provider: String,
    /// `package.Service/Method`.
    pub method: String,
}

/// The last of them, the newest last.
#[derive(Debug, Default)]
pub struct RecentRefusals(Mutex<VecDeque<RefusalSeen>>);

impl RecentRefusals {
    /// One more.
    pub fn push(&self, refusal: RefusalSeen) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// All that are kept.
    pub fn seen(&self) -> Vec<RefusalSeen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
