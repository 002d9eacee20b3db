//! Witnesses: independent bodies that cosign a log's checkpoints, so that a log cannot show one history to one and
//! another to the next. C2SP tlog-witness 1.1, both sides of it.
//!
//! ```text
//! message    the request add-checkpoint, read and written                                   (pure)
//! state      what a witness has cosigned, on disk before anyone hears of it
//! judge      one request against that state: cosign, or the reason why not
//! serve      HTTP around it
//! cosigners  a log's side: asks the witnesses of a policy, in parallel, until the quorum is met
//! ask        one of these, once
//! ```
//!
//! A witness knows nothing of entries: it sees sizes, roots and proofs. Checkpoints are signed by the log and
//! cosignatures by the witness, so neither side needs TLS to trust what it reads.

mod ask;
mod cosigners;
mod judge;
mod message;
mod serve;
mod state;

pub use ask::WitnessFault;
pub use cosigners::{Cosigners, CosignersError, CosignersOptions, QuorumError};
pub use judge::{Answer, Witness, WitnessError};
pub use message::{AddCheckpoint, MessageError, SIZE_TYPE, parse_size};
pub use serve::{ServeOptions, serve};
pub use state::{Seen, State, StateError};
