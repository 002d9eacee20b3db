//! What auditors and citizens see of the log: the auditors' query API, the exchanges that concerned a person, the log published,
//! and witnesses.
//!
//! In: requests of auditors and systems whose certificates the gateway has verified. Out: exchanges, entries, proofs, counts.
//! Nothing here writes to the log but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
pub mod publish;
mod status;
pub mod subject;
pub mod witness;
