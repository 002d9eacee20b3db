//! What auditors and citizens see of the log: the auditors' query API, the exchanges that concerned a person, the log published,
//! published logs and what comparing them finds, witnesses, and the portal that shows it.
//!
//! In: requests of auditors and systems whose certificates the gateway has verified; published logs. Out: exchanges, entries,
//! proofs, counts, findings. Nothing here writes to the log but the entries that say who looked.

pub mod audit;
pub mod filter;
pub mod join;
pub mod monitor;
pub mod portal;
pub mod publish;
pub mod published;
mod status;
pub mod subject;
pub mod witness;
