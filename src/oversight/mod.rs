//! What auditors and citizens see of the log: the auditors' query API, and the exchanges that concerned a person.
//!
//! In: requests of auditors and systems whose certificates the gateway has verified. Out: exchanges, entries, proofs, counts.
//! Nothing here writes but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
mod status;
pub mod subject;
