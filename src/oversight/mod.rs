//! What auditors and citizens see of the log: the query API, published logs, and what comparing them finds.
//!
//! In: requests of auditors whose certificates the gateway has verified; published logs. Out: exchanges, entries, proofs,
//! counts, findings. Nothing here writes but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
pub mod monitor;
pub mod published;
mod status;
