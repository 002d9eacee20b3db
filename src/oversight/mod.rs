//! What auditors and citizens see of the log: the query API, and the log published.
//!
//! In: requests of auditors whose certificates the gateway has verified. Out: exchanges, entries, proofs, counts.
//! Nothing here writes but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
pub mod publish;
mod status;
