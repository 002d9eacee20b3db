//! What auditors and citizens see of the log: the query API, published logs and what comparing them finds, witnesses.
//!
//! In: requests of auditors whose certificates the gateway has verified; published logs. Out: exchanges, entries, proofs,
//! counts, findings. Nothing here writes to the log but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
pub mod monitor;
pub mod published;
mod status;
pub mod witness;
