//! Whether the node is alive and ready, and why not: named conditions, set by whoever knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// How one condition is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// Good.
    #[default]
    Ok,
    /// Works, and somebody should look at it.
    Warning(String),
    /// Until it is good again, no exchange passes.
    NotReady(String),
    /// Only a restart helps.
    Dead(String),
}

/// All conditions at one moment, by name (`log`, `directory`, `certificate`, `draining`, …).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    conditions: BTreeMap<&'static str, Status>,
}

/// The node's health. Clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<watch::Sender<Snapshot>>,
}

impl Health {
    /// The condition that is not ready until the node has started.
    pub const NODE: &str = "node";

    /// Of a node that is starting: not ready until condition [`Health::NODE`] is set to [`Status::Ok`].
    pub fn starting() -> Self {
        let starting = BTreeMap::from([(Self::NODE, Status::NotReady("starting".into()))]);
        Self { state: Arc::new(watch::Sender::new(Snapshot { conditions: starting })) }
    }

    /// Sets a condition. Followers wake only where that changes something.
    pub fn set(&self, condition: &'static str, status: Status) {
        self.state.send_if_modified(|snapshot| {
            let changed = snapshot.conditions.get(condition) != Some(&status);
            if changed {
                snapshot.conditions.insert(condition, status);
            }
            changed
        });
    }

    /// How it is now.
    pub fn now(&self) -> Snapshot {
        self.state.borrow().clone()
    }

    /// Follows it.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.state.subscribe()
    }
}

impl Snapshot {
    /// Whether the process is worth keeping.
    pub fn is_live(&self) -> bool {
        !self.conditions.values().any(|status| matches!(status, Status::Dead(_)))
    }

    /// Whether exchanges pass.
    pub fn is_ready(&self) -> bool {
        !self.conditions.values().any(|status| matches!(status, Status::Dead(_) | Status::NotReady(_)))
    }

    /// Every condition that has something to say, and what.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.conditions.iter().filter_map(|(name, status)| match status {
            Status::Ok => None,
            Status::Warning(reason) | Status::NotReady(reason) | Status::Dead(reason) => Some((*name, reason.as_str())),
        })
    }

    /// One condition.
    pub fn get(&self, condition: &str) -> Option<&Status> {
        self.conditions.get(condition)
    }
}
