//! Kopuro (көпүрө, "bridge"): an interoperability gateway between state bodies.
//!
//! A ministry's node carries typed gRPC calls between its own back-end systems and other ministries' over mutual TLS,
//! and writes every exchange to an append-only log that anybody can verify. The rooms below depend downward only:
//!
//! ```text
//! cli        the commands of the binary
//! config     node.toml and grants, checked
//! gateway    the data path: accept, route, authorise, record, forward
//! oversight  what auditors see: the query API
//! log        entry, tree, commit, store, proof, checkpoint, index
//! schema     descriptors of the services
//! policy     grants and decisions
//! trust      identities, certificates, revocation, directory, signed notes
//! telemetry  tracing, metrics, health
//! ```

pub mod cli;
pub mod config;
mod failpoint;
pub mod gateway;
pub mod log;
pub mod oversight;
pub mod policy;
pub mod proto;
pub mod schema;
pub mod telemetry;
pub mod trust;
