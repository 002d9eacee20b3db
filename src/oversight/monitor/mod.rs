//! The monitor: follows any number of published logs from their tiles alone, and compares what both sides of every
//! exchange tell.
//!
//! In: where the logs are published, their keys, and the time. Out: a [`Report`]: how each log was found, and every
//! exchange that one side lacks or tells differently. It needs no permission of anybody, and asks no node anything but
//! its published files.
//!
//! ```text
//! follow      one log: signature, quorum, continuity with the last checkpoint seen; its entries, in order
//! fact        what an entry says of an exchange                                                     (pure)
//! judge       whether two sides tell the same                                                       (pure)
//! exchanges   those that wait for their other side: memory stays flat, the rest is on disk
//! state       how far each log was read, replaced in one step: a restart goes on where it was
//! report      what was found, as text, lines of JSON and metrics        page   the same for people
//! ```
//!
//! A round looks at every log's checkpoint, reads what has come, from the log first that is furthest behind in time, and
//! judges. Logs entangle: the checkpoints of a peer that an entry carries are compared with that peer's log as it is
//! published, so a log that shows the monitor another history than its peers is found out.

mod exchanges;
mod fact;
mod follow;
mod judge;
pub mod page;
mod report;
mod round;
mod state;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::log::Checkpoint;
use crate::oversight::published::{Place, Publication, PublishedError, Quorum};
use crate::trust::identity::MemberId;
use crate::trust::note::Verifier;

use exchanges::Exchanges;
pub use follow::Condition;
pub use judge::Problem;
pub use report::{ExchangeCounts, Finding, LogReport, Report};
use state::State;

/// A log's key, and whose log it is.
#[derive(Clone, Debug)]
pub struct KnownLog {
    /// Verify its checkpoints; a log that has changed its key has several. Their name is its origin.
    pub keys: Vec<Verifier>,
    /// The member whose node writes it; where nobody has said, the log's own entries do.
    pub member: Option<MemberId>,
}

impl KnownLog {
    /// The log's name, which is that of its keys.
    pub fn origin(&self) -> &str {
        self.keys.first().map_or("", Verifier::name)
    }
}

/// What a monitor follows, and by what rules.
#[derive(Clone)]
pub struct MonitorOptions {
    /// Where the logs are published.
    pub places: Vec<Place>,
    /// Keys of logs, of more than are followed perhaps. Which is whose is told by the origin in the checkpoint.
    pub known: Vec<KnownLog>,
    /// What a checkpoint must carry besides its log's signature.
    pub quorum: Option<Quorum>,
    /// Where the state is kept.
    pub state: PathBuf,
    /// How long the other side of an exchange may take to be published.
    pub grace: Duration,
    /// Root certificates for HTTPS besides the system's, PEM.
    pub roots: Option<PathBuf>,
}

impl std::fmt::Debug for MonitorOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonitorOptions")
            .field("places", &self.places)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Why a monitor cannot go on. What is wrong with logs is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The state cannot be read or written.
    #[error("monitor state {path}: {reason}")]
    State {
        /// The file or folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another monitor has this state.
    #[error("another monitor is running on the state in {0}")]
    Locked(String),
    /// A place cannot be read from at all.
    #[error(transparent)]
    Place(#[from] PublishedError),
}

impl MonitorError {
    fn state(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::State { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// A log that is followed.
#[derive(Debug)]
struct Followed {
    publication: Publication,
    /// Its number in the state, from the first look that told whose it is.
    number: Option<usize>,
    condition: Condition,
}

/// Follows logs, round after round.
#[derive(Debug)]
pub struct Monitor {
    options: MonitorOptions,
    followed: Vec<Followed>,
    state: State,
    exchanges: Exchanges,
    /// The latest checkpoint of each log that others' entries carry and that has not been compared yet.
    entangled: HashMap<String, Checkpoint>,
    /// Held as long as the monitor lives.
    _lock: std::fs::File,
}

impl Monitor {
    /// Goes on from the state in the folder, or begins.
    pub fn open(options: MonitorOptions) -> Result<Self, MonitorError> {
        let folder = &options.state;
        std::fs::create_dir_all(folder).map_err(|error| MonitorError::state(folder, error))?;
        let lock = state::lock(folder)?;
        let state = State::read(folder)?;
        let exchanges = Exchanges::open(folder.join("exchanges"), state.exchanges.clone())?;
        let followed = options.places.iter().map(|place| {
            let publication = Publication::new(place.clone(), options.roots.as_deref())?;
            Ok(Followed { publication, number: None, condition: Condition::New })
        });
        let followed = followed.collect::<Result<_, MonitorError>>()?;
        Ok(Self { options, followed, state, exchanges, entangled: HashMap::new(), _lock: lock })
    }
}
